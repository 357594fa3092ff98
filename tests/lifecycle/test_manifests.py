"""The objects of a domain and an issuer, against golden files. `REGOLD=1` writes them anew, to be read in the diff."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import yaml

from lifecycle import manifests
from lifecycle.domain import CertificateSpec, IssuerKind, IssuerRef, KeyAlgorithm, OnboardingRequest, Route
from lifecycle.manifests import ChallengeRoute, Manifest
from lifecycle.steps import IssuerRequest

GOLDEN = Path(__file__).parent / "golden"
REQUEST = OnboardingRequest(
    tenant="acme",
    hostnames=("shop.example.com", "www.shop.example.com"),
    issuer=IssuerRef(name="letsencrypt"),
    routes=(
        Route(prefix="/", service="frontend-service", port=80),
        Route(prefix="/api", service="api-service", port=8080),
        Route(prefix="/api/v2/", service="api-v2", port=8080, namespace="shop"),
    ),
)
LONG_LIVED = dataclasses.replace(
    REQUEST,
    certificate=CertificateSpec(
        key_algorithm=KeyAlgorithm.RSA, key_size=3072, duration_seconds=7_776_000, renew_before_percentage=40
    ),
)
CHALLENGES = tuple(
    ChallengeRoute(hostname=hostname, token=f"token-{index}", service=f"cm-acme-{index}", namespace="istio-system")
    for index, hostname in enumerate(REQUEST.hostnames)
)
ISSUER = IssuerRequest(
    ref=IssuerRef(name="letsencrypt"), server="https://ca.example/directory", email="tls@example.com", profile="short"
)

DOCUMENTS = {
    "certificate": manifests.certificate(REQUEST),
    "certificate-rsa": manifests.certificate(LONG_LIVED),
    "gateway-http": manifests.gateway(REQUEST, https=False),
    "gateway-https": manifests.gateway(REQUEST, https=True),
    "virtual-service": manifests.virtual_service(REQUEST),
    "challenge-route": manifests.challenge_route(REQUEST, CHALLENGES),
    "cluster-issuer": manifests.acme_issuer(ISSUER),
    "issuer": manifests.acme_issuer(
        dataclasses.replace(
            ISSUER,
            ref=IssuerRef(name="le", kind=IssuerKind.ISSUER, namespace="istio-system"),
            account_secret="le-key",
            ca_bundle="-----BEGIN CERTIFICATE-----\n",
        )
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_object_is_as_in_its_golden_file(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("REGOLD"):
        path.write_text(yaml.safe_dump(DOCUMENTS[name], sort_keys=False))
    assert yaml.safe_load(path.read_text()) == DOCUMENTS[name]


def test_every_golden_file_is_of_an_object() -> None:
    assert set(DOCUMENTS) == {path.stem for path in GOLDEN.glob("*.yaml")}


def test_challenges_in_any_order_make_the_same_route() -> None:
    assert manifests.challenge_route(REQUEST, CHALLENGES[::-1]) == DOCUMENTS["challenge-route"]


def test_no_gateway_redirects_by_itself() -> None:
    """`httpsRedirect` would swallow the challenges."""
    servers = manifests.gateway(REQUEST, https=True)["spec"]["servers"]
    assert all("httpsRedirect" not in server.get("tls", {}) for server in servers)


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_object_says_who_manages_it(document: Manifest) -> None:
    assert document["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "certwright"}
