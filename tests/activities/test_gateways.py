"""A domain on its gateway in every shape that the lab can run, each judged by what clients meet at the edge."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest
import trustme
import yaml
from kubernetes.aio.dynamic import DynamicClient

from activities import edge as edges
from activities.certificates import CertificateActivities
from activities.edge import EdgeActivities, EdgeSettings
from activities.gateways import GatewayActivities
from lab.api import APPLY, ApiError
from lab.cluster import GATEWAY_ADDRESSES, Lab
from lab.ports import free_ports
from lifecycle import names, targets
from lifecycle.domain import (
    Backend,
    GatewayKind,
    GatewayTarget,
    HeaderMatch,
    Hsts,
    Route,
    TlsMode,
    TlsSettings,
    TlsVersion,
)
from lifecycle.manifests import Manifest
from lifecycle.steps import CertificateTarget, EdgeReport
from tests.activities import domains

pytestmark = pytest.mark.lab

HOSTNAMES = ("gate.h1.test", "www.gate.h1.test")
FIRST = HOSTNAMES[0]
GOLDEN = Path(__file__).parents[1] / "lifecycle" / "golden"
KINDS = tuple(GatewayKind)
YEAR = Hsts(max_age_seconds=31_536_000, include_subdomains=True)
CA = "clients-ca"
SETTLED = 1.0
"""Envoy forgets a removed Gateway a tenth of a second after the write; until then it serves the next test too."""

ROUTES = (
    Route(prefix="/", service="frontend-service", port=80),
    Route(prefix="/api", service="api-service", port=8080, timeout_seconds=0.5),
    Route(prefix="/api", service="frontend-service", port=80, headers=(HeaderMatch(name="x-beta", value="yes"),)),
    Route(prefix="/only", service="api-service", port=8080, exact=True),
    Route(
        prefix="/shared",
        service="frontend-service",
        port=80,
        weight=3,
        others=(Backend(service="api-service", port=8080, weight=1),),
    ),
)


def shaped(kind: GatewayKind, tls: TlsSettings | None = None, **more: object) -> CertificateTarget:
    """The domain of this file on a target of that kind."""
    plain = dataclasses.replace(domains.request(*HOSTNAMES), gateway=GatewayTarget(kind=kind))
    return CertificateTarget(request=dataclasses.replace(plain, tls=tls or plain.tls, **more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
async def issued(issuing: Lab, admin: DynamicClient) -> AsyncIterator[str]:
    """The fingerprint of the domain's certificate, issued with challenges routed by the Gateway API."""
    certificates = CertificateActivities(admin)
    domains.point_here(issuing, *HOSTNAMES)
    target = shaped(GatewayKind.GATEWAY_API)
    await domains.run(certificates.apply_certificate, target)
    result = await domains.run(certificates.await_certificate, target)
    assert result.findings == ()
    assert result.secret is not None
    left = await issuing.api.call("GET", "/apis/gateway.networking.k8s.io/v1/namespaces/istio-system/httproutes")
    assert [one["metadata"]["name"] for one in left["items"]] == []
    yield result.secret.fingerprint
    await domains.run(certificates.remove_certificate, target)


@pytest.fixture(params=KINDS)
async def kind(
    request: pytest.FixtureRequest, issued: str, issuing: Lab, gateways: GatewayActivities
) -> AsyncIterator[GatewayKind]:
    """Each kind of target; the domain is taken off it afterwards, so that the other kind has the name for itself."""
    assert issued
    chosen: GatewayKind = request.param
    yield chosen
    await domains.run(gateways.unbind_gateway, shaped(chosen))
    await delete(issuing, targets.gateway(shaped(chosen).request, https=False))
    await asyncio.sleep(SETTLED)


def path_of(document: Manifest) -> str:
    plural = {"Gateway": "gateways", "Secret": "secrets"}[document["kind"]]
    version, metadata = document["apiVersion"], document["metadata"]
    root = "/apis" if "/" in version else "/api"
    return f"{root}/{version}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"


async def delete(lab: Lab, document: Manifest) -> None:
    with contextlib.suppress(ApiError):
        await lab.api.call("DELETE", path_of(document))


async def bound(gateways: GatewayActivities, edge: EdgeActivities, target: CertificateTarget) -> EdgeReport:
    """What the edge serves once the domain is bound; it must be all that was asked for."""
    result = await domains.run(gateways.bind_gateway, target)
    assert result.findings == ()
    assert result.bound
    report = await domains.run(edge.verify_edge, target)
    assert report.findings == ()
    assert {one.address for one in report.served} == set(GATEWAY_ADDRESSES)
    return report


async def ask(
    lab: Lab, path: str, headers: Mapping[str, str] | None = None, *, plain: bool = False, count: int = 1
) -> list[httpx.Response]:
    """What a client gets, who trusts anything."""
    port = lab.http_port if plain else lab.https_port
    url = f"{'http' if plain else 'https'}://{GATEWAY_ADDRESSES[0]}:{port}{path}"
    async with httpx.AsyncClient(verify=False, trust_env=False) as client:
        extensions = {} if plain else {"sni_hostname": FIRST}
        return [
            await client.get(url, headers={"Host": FIRST, **(headers or {})}, extensions=extensions)
            for _ in range(count)
        ]


async def test_routes_are_matched_shared_and_timed_and_hsts_is_told(
    issuing: Lab, gateways: GatewayActivities, admin: DynamicClient, settings: EdgeSettings, kind: GatewayKind
) -> None:
    edge = EdgeActivities(admin, settings)
    report = await bound(gateways, edge, shaped(kind, routes=ROUTES, hsts=YEAR))
    for one in report.served:
        assert one.redirect == f"https://{one.hostname}/"
        assert one.routes == ("/ 200", "/api 200", "/api with x-beta 200", "/only 200", "/shared 200")
    assert {one.limits for one in report.served if one.hostname == FIRST} == {
        ("TLS 1.1: refused (tlsv1 alert protocol version)",)
    }

    async def app(path: str, **headers: str) -> str:
        (answer,) = await ask(issuing, path, headers)
        assert answer.headers["strict-transport-security"] == YEAR.header
        return str(answer.json()["app"])

    assert await app("/") == "frontend-service"
    assert await app("/api/v1") == "api-service"
    assert await app("/apiary") == "frontend-service"
    assert await app("/api/v1", **{"x-beta": "yes"}) == "frontend-service"
    assert await app("/api/v1", **{"x-beta": "no"}) == "api-service"
    assert await app("/only") == "api-service"
    assert await app("/only/more") == "frontend-service"
    shared = collections.Counter(one.json()["app"] for one in await ask(issuing, "/shared", count=60))
    assert set(shared) == {"frontend-service", "api-service"}
    assert shared["frontend-service"] > shared["api-service"]
    (late,) = await ask(issuing, "/api?wait=2")
    assert late.status_code == 504
    (plain,) = await ask(issuing, "/api/v1?a=b", plain=True)
    assert plain.status_code == 301
    assert "strict-transport-security" not in plain.headers  # RFC 6797, section 7.2


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come is not waited for as long as in earnest."""
    monkeypatch.setattr(edges, "_CATCH_UP_SECONDS", 2.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", [GatewayKind.ISTIO], indirect=True)
async def test_protocols_and_ciphers_are_negotiated_and_a_gateway_that_differs_is_told(
    gateways: GatewayActivities, admin: DynamicClient, settings: EdgeSettings, kind: GatewayKind
) -> None:
    edge = EdgeActivities(admin, settings)
    newest = shaped(kind, TlsSettings(min_protocol=TlsVersion.TLSV1_3))
    report = await bound(gateways, edge, newest)
    assert {one.protocol for one in report.served} == {"TLSv1.3"}
    assert {one.limits for one in report.served if one.hostname == FIRST} == {
        ("TLS 1.2: refused (tlsv1 alert protocol version)",)
    }
    cipher = "ECDHE-ECDSA-AES256-GCM-SHA384"
    older = shaped(kind, TlsSettings(max_protocol=TlsVersion.TLSV1_2, ciphers=(cipher,)))
    report = await domains.run(edge.verify_edge, older)
    assert {finding.code for finding in report.findings} == {"CW1513"}
    assert "negotiates TLSv1.3, which it must not" in report.findings[0].problem
    report = await bound(gateways, edge, older)
    assert {(one.protocol, one.cipher) for one in report.served} == {("TLSv1.2", cipher)}
    (limits,) = {one.limits for one in report.served if one.hostname == FIRST}
    assert [limit.partition(" (")[0] for limit in limits] == [
        "TLS 1.1: refused",
        "TLS 1.3 only: refused",
        f"TLS 1.2 with {cipher}: accepted",
        "TLS 1.2 with other ciphers: refused",
    ]
    report = await domains.run(edge.verify_edge, newest)
    assert {finding.code for finding in report.findings} == {"CW1513"}
    assert "negotiates TLSv1.2, which it must not" in report.findings[0].problem


async def test_ciphers_are_negotiated_by_either_kind_of_gateway(
    gateways: GatewayActivities, admin: DynamicClient, settings: EdgeSettings, kind: GatewayKind
) -> None:
    cipher = "ECDHE-ECDSA-CHACHA20-POLY1305"
    report = await bound(gateways, EdgeActivities(admin, settings), shaped(kind, TlsSettings(ciphers=(cipher,))))
    (limits,) = {one.limits for one in report.served if one.hostname == FIRST}
    assert [limit.partition(" (")[0] for limit in limits] == [
        "TLS 1.1: refused",
        f"TLS 1.2 with {cipher}: accepted",
        "TLS 1.2 with other ciphers: refused",
    ]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The CA of clients' certificates."""
    return trustme.CA()


@pytest.fixture(scope="module")
def client(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Certificate and key of a client of that CA."""
    made = authority.issue_cert("probe.client.test")
    directory = tmp_path_factory.mktemp("client")
    made.private_key_pem.write_to_path(directory / "key.pem")
    for blob in made.cert_chain_pems:
        blob.write_to_path(directory / "cert.pem", append=True)
    return directory / "cert.pem", directory / "key.pem"


@pytest.mark.parametrize("named", [CA, ""], ids=["named", "beside the Secret"])
@pytest.mark.parametrize("mode", [TlsMode.MUTUAL, TlsMode.OPTIONAL_MUTUAL])
async def test_clients_with_and_without_certificates_are_tried(
    issuing: Lab,
    gateways: GatewayActivities,
    admin: DynamicClient,
    settings: EdgeSettings,
    kind: GatewayKind,
    authority: trustme.CA,
    client: tuple[Path, Path],
    mode: TlsMode,
    named: str,
) -> None:
    target = shaped(kind, TlsSettings(mode=mode, client_ca=named))
    missing = await domains.run(gateways.bind_gateway, target)
    assert [finding.code for finding in missing.findings] == ["CW1511"]
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "namespace": "istio-system",
            "name": named or names.client_ca_name(names.secret_name(FIRST)),
        },
        "stringData": {"ca.crt": authority.cert_pem.bytes().decode()},
    }
    await issuing.apply(secret)
    try:
        report = await bound(gateways, EdgeActivities(admin, settings), target)
        optional = mode is TlsMode.OPTIONAL_MUTUAL
        (limits,) = {one.limits for one in report.served if one.hostname == FIRST}
        assert [limit.partition(" (")[0] for limit in limits] == [
            "TLS 1.1: refused",
            f"without a certificate: {'accepted' if optional else 'refused'}",
            "with a stranger's certificate: refused",
            "with a certificate of the clients' CA: not tried",
        ]
        assert optional or "certificate required" in limits[1]
        assert {one.routes for one in report.served} == {("/ 200", "/api 200") if optional else ()}
        certificate, key = client
        given = dataclasses.replace(settings, client_certificate=certificate, client_key=key)
        report = await domains.run(EdgeActivities(admin, given).verify_edge, target)
        assert report.findings == ()
        (limits,) = {one.limits for one in report.served if one.hostname == FIRST}
        assert "with a certificate of the clients' CA: accepted" in limits
        assert {one.routes for one in report.served} == {("/ 200", "/api 200")}
    finally:
        await delete(issuing, secret)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", [GatewayKind.ISTIO], indirect=True)
async def test_a_gateway_that_asks_no_client_and_one_without_hsts_are_told(
    gateways: GatewayActivities, admin: DynamicClient, settings: EdgeSettings, kind: GatewayKind
) -> None:
    edge = EdgeActivities(admin, settings)
    await bound(gateways, edge, shaped(kind))
    report = await domains.run(edge.verify_edge, shaped(kind, TlsSettings(mode=TlsMode.MUTUAL)))
    assert {finding.code for finding in report.findings} == {"CW1513"}
    assert "without a certificate" in report.findings[0].problem
    report = await domains.run(edge.verify_edge, shaped(kind, hsts=YEAR))
    assert {finding.code for finding in report.findings} == {"CW1515"}


async def test_what_is_passed_through_is_served_by_the_service_behind(
    issuing: Lab, gateways: GatewayActivities, admin: DynamicClient, settings: EdgeSettings, kind: GatewayKind
) -> None:
    (port,) = free_ports(1)
    metadata = {"name": "tls-service", "namespace": "istio-system", "labels": {"app": "tls-service"}}
    container = {
        "name": "tls-service",
        "image": "registry.invalid/certwright-lab-web:1",
        "args": ["--tls=/tls"],
        "ports": [{"containerPort": port}],
        "readinessProbe": {"tcpSocket": {"port": port}},
        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
    }
    volume = {"name": "tls", "secret": {"secretName": names.secret_name(FIRST)}}
    labels = {"app": "tls-service"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [container], "volumes": [volume]}}
    spec = {"selector": {"matchLabels": labels}, "template": pod}
    await issuing.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    ports = [{"name": "tls", "port": 8443, "targetPort": port}]
    service = {"selector": labels, "ports": ports}
    await issuing.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
    await issuing.deployment_available("istio-system", "tls-service")
    try:
        behind = (Route(prefix="/", service="tls-service", port=8443, namespace="istio-system"),)
        target = shaped(kind, TlsSettings(mode=TlsMode.PASSTHROUGH), routes=behind)
        report = await bound(gateways, EdgeActivities(admin, settings), target)
        assert {(one.redirect, one.routes) for one in report.served} == {
            (f"https://{hostname}/", ("/ 200",)) for hostname in HOSTNAMES
        }
        (answer,) = await ask(issuing, "/")
        assert (answer.json()["app"], answer.headers.get("server", "")) != ("tls-service", "istio-envoy")
        assert (await domains.run(gateways.unbind_gateway, target)).removed
    finally:
        await issuing.api.call("DELETE", "/apis/apps/v1/namespaces/istio-system/deployments/tls-service")
        await issuing.api.call("DELETE", "/api/v1/namespaces/istio-system/services/tls-service")


async def test_what_was_made_for_a_domain_is_taken_away_again(
    issuing: Lab, gateways: GatewayActivities, admin: DynamicClient, settings: EdgeSettings, kind: GatewayKind
) -> None:
    target = shaped(kind)
    await bound(gateways, EdgeActivities(admin, settings), target)
    made = len(targets.routes(target.request)) + 1
    assert len((await domains.run(gateways.unbind_gateway, target)).removed) == made
    listed = await issuing.api.call("GET", "/apis/gateway.networking.k8s.io/v1beta1/referencegrants")
    assert [one["metadata"]["name"] for one in listed["items"]] == []


async def test_25_names_are_proved_and_served_by_the_gateway_api(
    issuing: Lab, gateways: GatewayActivities, admin: DynamicClient, settings: EdgeSettings
) -> None:
    """More challenges at once than one HTTPRoute has rules, and 50 listeners on one Gateway."""
    hostnames = tuple(f"n{number}.many.h1.test" for number in range(25))
    domains.point_here(issuing, *hostnames)
    target = GatewayTarget(kind=GatewayKind.GATEWAY_API)
    many = CertificateTarget(request=dataclasses.replace(domains.request(*hostnames), gateway=target))
    certificates = CertificateActivities(admin)
    try:
        await domains.run(certificates.apply_certificate, many)
        result = await domains.run(certificates.await_certificate, many, seconds=150)
        assert result.findings == ()
        assert result.secret is not None
        assert set(result.secret.dns_names) == set(hostnames)
        report = await bound(gateways, EdgeActivities(admin, settings), many)
        assert {one.hostname for one in report.served} == set(hostnames)
        assert {one.fingerprint for one in report.served} == {result.secret.fingerprint}
    finally:
        await domains.run(gateways.unbind_gateway, many)
        gone = await domains.run(certificates.remove_certificate, many)
    assert f"Gateway istio-system/{names.gateway_name(hostnames[0])}" in gone.removed


async def test_every_golden_object_is_one_that_the_api_server_takes(issuing: Lab) -> None:
    """By server-side dry-run: schemas, Istio's and the Gateway API's rules, and webhooks have their say."""
    await issuing.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    plurals = {"ReferenceGrant": "referencegrants", "HTTPRoute": "httproutes", "TLSRoute": "tlsroutes"}
    refused = {}
    for path in sorted((GOLDEN / "gateways").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            metadata = document["metadata"]
            plural = plurals.get(document["kind"]) or document["kind"].lower() + "s"
            where = f"/apis/{document['apiVersion']}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"
            query = {"fieldManager": "certwright", "force": "true", "dryRun": "All", "fieldValidation": "Strict"}
            try:
                await issuing.api.call("PATCH", where, body=document, query=query, content_type=APPLY)
            except ApiError as error:
                refused[f"{path.name} {document['kind']}"] = str(error)
    assert json.dumps(refused) == "{}"
