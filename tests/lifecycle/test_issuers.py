"""What an issuer needs and can prove is read from its document."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.domain import IssuerKind, IssuerRef
from lifecycle.issuer_requests import parse_issuer
from lifecycle.issuers import (
    SecretReference,
    brings_its_root,
    credential_finding,
    issuer_manifest,
    issuer_type,
    proves_wildcards,
    secret_namespace,
    secret_references,
)
from lifecycle.steps import IssuerRequest
from tests.lifecycle.issuer_shapes import SHAPES, document


def manifest(name: str) -> dict[str, Any]:
    request = parse_issuer(document(name))
    assert isinstance(request, IssuerRequest), request
    return issuer_manifest(request)


NEEDED: dict[str, set[tuple[str, tuple[str, ...]]]] = {
    "acme-every-field": {("old-account", ("tls.key",)), ("eab-key", ("hmac",))},
    "dns01-rfc2136": {("tsig", ("tsig-secret-key",))},
    "dns01-cloudflare": {("cloudflare-api-token", ("api-token",))},
    "dns01-cloudflare-key": {("cloudflare", ("global",))},
    "dns01-route53": {("route53", ("secret-access-key",))},
    "dns01-route53-secrets": {("route53", ("access-key-id",)), ("route53", ("secret-access-key",))},
    "dns01-clouddns": {("gcp", ("key.json",))},
    "dns01-azuredns": {("azure", ("client-secret",))},
    "dns01-acmedns": {("acme-dns", ("a.json",))},
    "dns01-digitalocean": {("digitalocean", ("access-token",))},
    "dns01-akamai": {("akamai", ("clientToken",)), ("akamai", ("clientSecret",)), ("akamai", ("accessToken",))},
    "dns01-webhook": {("dns-api", ("token",))},
    "ca": {("shop-root", ("tls.crt", "tls.key"))},
    "vault-token": {("vault-token", ("token",))},
    "vault-app-role": {
        ("vault-ca", ("ca.crt",)),
        ("vault-client", ("tls.crt",)),
        ("vault-client", ("tls.key",)),
        ("vault-role", ("secretId",)),
    },
    "vault-kubernetes-secret": {("issuer-token", ("token",))},
    "vault-client-certificate": {("vault-login", ("tls.crt", "tls.key"))},
    "venafi-self-hosted": {("tpp", ())},
    "venafi-self-hosted-ca-secret": {("tpp", ()), ("tpp-ca", ("ca.crt",))},
    "venafi-saas": {("venafi", ("apikey",))},
    "venafi-ngts": {("ngts", ())},
}
"""By shape; the others refer to none."""


@pytest.mark.parametrize("name", SHAPES)
def test_every_secret_that_a_shape_refers_to_is_found(name: str) -> None:
    assert NEEDED.get(name, set()) == {(one.name, one.keys) for one in secret_references(manifest(name))}


@pytest.mark.parametrize("name", SHAPES)
def test_a_wildcard_is_proved_by_dns_or_without_a_challenge(name: str) -> None:
    assert proves_wildcards(manifest(name)) is not name.startswith(("acme", "http01"))


def test_types_are_told_and_those_with_a_root_of_their_own() -> None:
    own = {name for name in SHAPES if brings_its_root(manifest(name))}
    assert own == {"ca", "self-signed"}
    assert not brings_its_root(None)
    assert issuer_type({"spec": {"step": {}}}) is None
    assert not proves_wildcards({"spec": {}})


def test_secrets_lie_beside_cert_manager_or_the_issuer() -> None:
    assert secret_namespace(IssuerRef(name="a"), "certs") == "certs"
    assert secret_namespace(IssuerRef(name="a", kind=IssuerKind.ISSUER, namespace="shop"), "certs") == "shop"


DNS = SecretReference("spec.acme.x", "dns", ("token",))
ROOT = SecretReference("spec.ca.secretName", "root", ("tls.crt", "tls.key"))
TPP = SecretReference("spec.venafi.tpp.credentialsRef", "tpp", (), (("access-token",), ("username", "password")))


@pytest.mark.parametrize(
    ("reference", "keys", "elsewhere", "words"),
    [
        (DNS, None, (), "is not there"),
        (DNS, None, ("istio-system",), "lies in istio-system instead"),
        (DNS, {"tokn"}, (), "lacks the key token"),
        (TPP, {"username"}, (), "lacks the key access-token or username+password"),
        (ROOT, {"tls.crt"}, (), "lacks the key tls.key"),
    ],
)
def test_a_secret_that_is_not_as_needed_is_a_finding_with_the_command(
    reference: SecretReference, keys: set[str] | None, elsewhere: tuple[str, ...], words: str
) -> None:
    held = None if keys is None else frozenset(keys)
    found = credential_finding(reference, "cert-manager", held, elsewhere=elsewhere)
    assert found is not None
    assert (found.code, found.subject) == ("CW1206", f"Secret cert-manager/{reference.name}")
    assert words in found.problem
    assert f"certwright issuer credentials {reference.name} --secret-namespace cert-manager" in found.fix


@pytest.mark.parametrize(
    ("reference", "keys"),
    [(DNS, {"token", "x"}), (TPP, {"access-token"}), (TPP, {"username", "password"}), (ROOT, {"tls.crt", "tls.key"})],
)
def test_a_secret_that_is_as_needed_is_none(reference: SecretReference, keys: set[str]) -> None:
    assert credential_finding(reference, "cert-manager", frozenset(keys)) is None
