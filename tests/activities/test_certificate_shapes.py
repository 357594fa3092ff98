"""Certificates of every shape that the lab can issue, each looked at in its Secret and at the edge.

By pebble over ACME, and by CAs of our own that the product's own manifests make.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import pkcs12
from kubernetes.aio.dynamic import DynamicClient

from activities import edge as edges
from activities.certificates import CertificateActivities
from activities.edge import EdgeActivities
from activities.gateways import GatewayActivities
from activities.issuance import read_secret
from lab.api import APPLY, ApiError, Json
from lab.cluster import GATEWAY_ADDRESSES, Lab
from lifecycle import names
from lifecycle.authorities import Authority, NameConstraints, authority_manifest
from lifecycle.certificate_details import KeyEncoding, Keystore, KeyUsage, Pkcs12Profile, Subject
from lifecycle.domain import CertificateFacts, CertificateSpec, IssuerRef, KeyAlgorithm
from lifecycle.steps import CertificateTarget, EdgeReport
from tests.activities import domains

pytestmark = pytest.mark.lab

GOLDEN = Path(__file__).parents[1] / "lifecycle" / "golden" / "certificates"
BOOTSTRAP, ROOT, NARROW = (IssuerRef(name=f"c4-{name}") for name in ("bootstrap", "root", "narrow"))
TEN_DAYS = 864_000
KINDS = "/apis/cert-manager.io/v1"


def shaped(hostnames: tuple[str, ...], issuer: IssuerRef = domains.ISSUER, **certificate: Any) -> CertificateTarget:
    """A domain whose certificate is of that shape."""
    plain = domains.request(*hostnames)
    return CertificateTarget(
        request=dataclasses.replace(plain, issuer=issuer, certificate=CertificateSpec(**certificate))
    )


async def make_issuer(lab: Lab, ref: IssuerRef, spec: Json) -> None:
    await lab.apply_when_answered(
        {"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": ref.name}, "spec": spec}
    )


async def make_authority(lab: Lab, ref: IssuerRef, signer: IssuerRef, permitted: NameConstraints) -> None:
    """A CA's certificate by its signer, and the issuer that signs with it."""
    authority = Authority(
        name=ref.name,
        namespace="cert-manager",
        issuer=signer,
        certificate=CertificateSpec(common_name=ref.name, duration_seconds=TEN_DAYS),
        permitted=permitted,
    )
    await lab.apply_when_answered(authority_manifest(authority))
    await lab.until(f"{KINDS}/namespaces/cert-manager/certificates", lambda item: ready(item, ref.name))
    await make_issuer(lab, ref, {"ca": {"secretName": ref.name}})
    await lab.until(f"{KINDS}/clusterissuers", lambda item: ready(item, ref.name))


def ready(item: Json, name: str) -> bool:
    conditions = (item.get("status") or {}).get("conditions") or []
    return item["metadata"]["name"] == name and any(
        one["type"] == "Ready" and one["status"] == "True" for one in conditions
    )


@pytest.fixture(scope="module")
async def authorities(issuing: Lab) -> Lab:
    """The lab with a root of its own, and with a CA below it that may sign for narrow.h1.test only."""
    await make_issuer(issuing, BOOTSTRAP, {"selfSigned": {}})
    await make_authority(issuing, ROOT, BOOTSTRAP, NameConstraints())
    await make_authority(issuing, NARROW, ROOT, NameConstraints(dns_domains=("narrow.h1.test",)))
    return issuing


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """The activities of a domain, and the lab they work on."""

    lab: Lab
    cluster: DynamicClient
    certificates: CertificateActivities
    gateways: GatewayActivities
    edge: EdgeActivities

    async def issued(self, target: CertificateTarget) -> CertificateFacts:
        """The certificate's facts, once it is there and as asked for."""
        domains.point_here(self.lab, *target.request.hostnames)
        result = await domains.run(self.certificates.issue_certificate, target, seconds=300)
        assert result.findings == ()
        assert result.ready
        assert result.secret is not None
        return result.secret

    async def served(self, target: CertificateTarget) -> EdgeReport:
        """What the edge serves after the domain was bound."""
        bound = await domains.run(self.gateways.bind_gateway, target)
        assert bound.findings == ()
        return await domains.run(self.edge.verify_edge, target, seconds=120)

    async def secret(self, target: CertificateTarget) -> Json:
        path = f"/api/v1/namespaces/istio-system/secrets/{names.secret_name(target.request.hostname)}"
        return await self.lab.api.call("GET", path)

    async def part(self, target: CertificateTarget, key: str) -> bytes:
        return base64.b64decode((await self.secret(target))["data"][key])

    async def remove(self, target: CertificateTarget) -> None:
        await domains.run(self.gateways.unbind_gateway, target)
        await domains.run(self.certificates.remove_certificate, target)


@pytest.fixture(scope="module")
async def hands(issuing: Lab, admin: DynamicClient) -> Hands:
    return Hands(
        lab=issuing,
        cluster=admin,
        certificates=CertificateActivities(admin),
        gateways=GatewayActivities(admin),
        edge=EdgeActivities(admin, await domains.edge_settings(issuing)),
    )


async def test_every_golden_certificate_is_one_that_the_api_server_takes(issuing: Lab) -> None:
    """By server-side dry-run: the schema and cert-manager's webhook have their say."""
    refused = {}
    for path in sorted(GOLDEN.glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        metadata = document["metadata"]
        where = f"{KINDS}/namespaces/{metadata['namespace']}/certificates/{metadata['name']}"
        query = {"fieldManager": "certwright", "force": "true", "dryRun": "All", "fieldValidation": "Strict"}
        try:
            await issuing.api.call("PATCH", where, body=document, query=query, content_type=APPLY)
        except ApiError as error:
            refused[path.name] = str(error)
    assert json.dumps(refused) == "{}"


MANY = tuple(f"n{number:02}.many.h1.test" for number in range(25))

OVER_ACME: dict[str, tuple[CertificateTarget, str, str]] = {
    "rsa-2048": (
        shaped(("rsa2048.h1.test",), key_algorithm=KeyAlgorithm.RSA, key_size=2048),
        "RSA 2048",
        "RSA PRIVATE",
    ),
    "rsa-4096-pkcs1": (
        shaped(("rsa4096.h1.test",), key_algorithm=KeyAlgorithm.RSA, key_size=4096, key_encoding=KeyEncoding.PKCS1),
        "RSA 4096",
        "RSA PRIVATE",
    ),
    "ecdsa-384-pkcs8": (
        shaped(("ecdsa384.h1.test",), key_size=384, key_encoding=KeyEncoding.PKCS8),
        "ECDSA 384",
        "PRIVATE",
    ),
    "25-names": (shaped(MANY), "ECDSA 256", "EC PRIVATE"),
}


@pytest.mark.parametrize("shape", OVER_ACME)
async def test_a_certificate_over_acme_has_its_key_and_names_and_is_served(hands: Hands, shape: str) -> None:
    target, key, header = OVER_ACME[shape]
    facts = await hands.issued(target)
    try:
        assert facts.public_key == key
        assert set(facts.dns_names) == set(target.request.hostnames)
        assert (await hands.part(target, "tls.key")).startswith(f"-----BEGIN {header} KEY-----".encode())
        report = await hands.served(target)
        assert report.findings == ()
        assert report.serving
        assert {one.fingerprint for one in report.served} == {facts.fingerprint}
        assert len(report.served) == len(target.request.hostnames) * len(GATEWAY_ADDRESSES)
    finally:
        await hands.remove(target)


async def test_a_ca_of_ones_own_signs_addresses_uris_usages_and_a_subject(authorities: Lab, hands: Hands) -> None:
    target = shaped(
        ("rich.h1.test",),
        ROOT,
        key_algorithm=KeyAlgorithm.RSA,
        key_size=3072,
        usages=(KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT, KeyUsage.SERVER_AUTH, KeyUsage.CLIENT_AUTH),
        common_name="rich.h1.test",
        subject=Subject(organizations=("Shop Ltd",), countries=("DE",)),
        duration_seconds=7200,
        renew_before_seconds=1800,
        ip_addresses=("192.0.2.7", "2001:db8::7"),
        uris=("spiffe://h1.test/shop",),
        secret_labels=(("team", "shop"),),
        secret_annotations=(("example.com/owner", "shop"),),
    )
    facts = await hands.issued(target)
    try:
        assert facts.public_key == "RSA 3072"
        assert facts.ip_addresses == ("192.0.2.7", "2001:db8::7")
        assert facts.uris == ("spiffe://h1.test/shop",)
        assert facts.usages == ("server auth", "client auth")
        assert (facts.not_after - facts.not_before).total_seconds() == 7200
        leaf = x509.load_pem_x509_certificate(await hands.part(target, "tls.crt"))
        assert {"O=Shop Ltd", "C=DE", "CN=rich.h1.test"} <= set(leaf.subject.rfc4514_string().split(","))
        metadata = (await hands.secret(target))["metadata"]
        assert metadata["labels"]["team"] == "shop"
        assert metadata["annotations"]["example.com/owner"] == "shop"
        certificate = names.certificate_name(target.request.hostname)
        item = await authorities.api.call("GET", f"{KINDS}/namespaces/istio-system/certificates/{certificate}")
        renewal = datetime.fromisoformat(item["status"]["renewalTime"])
        assert (facts.not_after - renewal).total_seconds() == 1800
        report = await hands.served(target)
        assert report.findings == ()
        assert report.serving
    finally:
        await hands.remove(target)


@pytest.mark.usefixtures("authorities")
async def test_an_ed25519_certificate_of_a_ca_of_ones_own_is_served(hands: Hands) -> None:
    target = shaped(("ed25519.h1.test",), ROOT, key_algorithm=KeyAlgorithm.ED25519)
    facts = await hands.issued(target)
    try:
        assert facts.public_key == "Ed25519"
        assert (await hands.part(target, "tls.key")).startswith(b"-----BEGIN PRIVATE KEY-----")
        report = await hands.served(target)
        assert report.findings == ()
        assert {one.fingerprint for one in report.served} == {facts.fingerprint}
    finally:
        await hands.remove(target)


async def test_keystores_lie_beside_the_certificate_once_their_password_does(authorities: Lab, hands: Hands) -> None:
    secret, password = "c4-keystore", b"correct horse"
    target = shaped(
        ("keystore.h1.test",),
        ROOT,
        jks=Keystore(secret=secret),
        pkcs12=Keystore(secret=secret, profile=Pkcs12Profile.MODERN_2023),
    )
    refused = await domains.run(hands.certificates.issue_certificate, target)
    assert [one.code for one in refused.findings] == ["CW1410"]
    assert "certwright issuer credentials c4-keystore" in refused.findings[0].fix
    certificate = f"{KINDS}/namespaces/istio-system/certificates/{names.certificate_name('keystore.h1.test')}"
    with pytest.raises(ApiError):
        await authorities.api.call("GET", certificate)
    metadata = {"name": secret, "namespace": "istio-system"}
    content = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"password": encoded(password)}}
    await authorities.apply(content)
    try:
        facts = await hands.issued(target)
        assert facts.keystores == ("keystore.jks", "keystore.p12")
        store = pkcs12.load_pkcs12(await hands.part(target, "keystore.p12"), password)
        assert store.cert is not None
        assert store.cert.certificate.fingerprint(hashes.SHA256()).hex() == facts.fingerprint
        assert (await hands.part(target, "keystore.jks")).startswith(bytes.fromhex("feedfeed"))  # JKS's magic number
        assert {"truststore.jks", "truststore.p12"} <= set((await hands.secret(target))["data"])
        shown = repr(await read_secret(hands.cluster, target.request))
        assert password.decode() not in shown
    finally:
        await hands.remove(target)
        await authorities.api.call("DELETE", f"/api/v1/namespaces/istio-system/secrets/{secret}")


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


async def test_a_temporary_certificate_fills_the_secret_and_no_gateway_is_given_it(hands: Hands) -> None:
    target = shaped(("temporary.h1.test",), temporary=True)
    domains.point_here(hands.lab, "temporary.h1.test", addresses=("127.0.0.9",))  # the CA finds nobody there
    applied = await domains.run(hands.certificates.apply_certificate, target)
    assert applied.findings == ()
    try:
        async with asyncio.timeout(30):
            while (found := await read_secret(hands.cluster, target.request))[0] is None:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.2)
        facts, problems = found
        assert facts is not None
        assert facts.issuer == "CN=cert-manager.local"
        assert facts.dns_names == ("temporary.h1.test",)
        assert [one.code for one in problems] == ["CW1409"]
        bound = await domains.run(hands.gateways.bind_gateway, target)
        assert not bound.bound
        result = await domains.run(hands.certificates.await_certificate, target, seconds=120)
        assert not result.ready
        assert result.findings[0].code == "CW1303"
    finally:
        await domains.run(hands.certificates.remove_certificate, target)
    replaced = shaped(("replaced.h1.test",), temporary=True)
    real = await hands.issued(replaced)
    assert "cert-manager.local" not in real.issuer
    await domains.run(hands.certificates.remove_certificate, replaced)


@pytest.mark.usefixtures("authorities")
async def test_name_constraints_of_a_ca_bound_what_clients_believe(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edges, "_CATCH_UP_SECONDS", 3.0)
    secret = await hands.lab.api.call("GET", f"/api/v1/namespaces/cert-manager/secrets/{NARROW.name}")
    authority = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    constraints = authority.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees == [x509.DNSName("narrow.h1.test")]
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert authority.not_valid_after_utc > datetime.now(UTC)
    inside, outside = shaped(("shop.narrow.h1.test",), NARROW), shaped(("wide.h1.test",), NARROW)
    try:
        await hands.issued(inside)
        assert (await hands.served(inside)).findings == ()
        await hands.issued(outside)  # cert-manager signs it
        report = await hands.served(outside)
        assert {finding.code for finding in report.findings} == {"CW1506"}
    finally:
        await hands.remove(inside)
        await hands.remove(outside)
