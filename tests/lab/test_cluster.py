"""The lab is a Kubernetes with Istio and cert-manager in which a domain gets its certificate as on a real one."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import aiohttp
import httpx
import pytest

from lab.api import Json
from lab.cluster import GATEWAY_ADDRESSES, Lab
from lifecycle import manifests, names, x509
from lifecycle.domain import CertificateSpec, IssuerRef, OnboardingRequest, Route
from lifecycle.manifests import ChallengeRoute
from lifecycle.steps import IssuerRequest

pytestmark = pytest.mark.lab

REQUEST = OnboardingRequest(
    tenant="acme",
    hostnames=("shop.customer.test", "www.shop.customer.test"),
    issuer=IssuerRef(name="pebble"),
    routes=(
        Route(prefix="/", service="frontend-service", port=80),
        Route(prefix="/api", service="api-service", port=8080),
    ),
)
CHALLENGES = "/apis/acme.cert-manager.io/v1/namespaces/istio-system/challenges"
CERTIFICATES = "/apis/cert-manager.io/v1/namespaces/istio-system/certificates"


def ready(name: str) -> Callable[[Json], bool]:
    """Whether the object of this name is Ready; the lab is shared with other domains."""

    def is_ready(item: Json) -> bool:
        conditions = (item.get("status") or {}).get("conditions") or []
        return item["metadata"]["name"] == name and any(
            condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
        )

    return is_ready


async def route_challenges(lab: Lab, request: OnboardingRequest) -> None:
    """Keep the challenge route in step with the Challenges, for ever."""
    known: dict[str, ChallengeRoute] = {}
    async for kind, challenge in lab.api.follow(CHALLENGES):
        if kind not in {"ADDED", "MODIFIED"} or challenge["metadata"]["uid"] in known:
            continue
        if challenge["spec"]["dnsName"] not in request.hostnames:
            continue
        token = challenge["spec"]["token"]
        services = "/api/v1/namespaces/istio-system/services"
        ours = {"labelSelector": "acme.cert-manager.io/http01-solver=true"}
        for item in (await lab.api.call("GET", services, query=ours))["items"]:
            owners = item["metadata"].get("ownerReferences") or []
            if any(owner["uid"] == challenge["metadata"]["uid"] for owner in owners):
                known[challenge["metadata"]["uid"]] = ChallengeRoute(
                    hostname=challenge["spec"]["dnsName"],
                    token=token,
                    service=item["metadata"]["name"],
                    namespace="istio-system",
                )
                await lab.apply(manifests.challenge_route(request, tuple(known.values())))


async def presented(address: str, port: int, hostname: str) -> bytes:
    """The DER of the leaf that an address presents."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=hostname)
    leaf: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return leaf


async def test_a_domain_is_issued_and_served_on_every_address(lab: Lab) -> None:
    lab.dns.add_zone("customer.test")
    for hostname in REQUEST.hostnames:
        lab.dns.set(hostname, "A", GATEWAY_ADDRESSES)
    issuer = IssuerRequest(ref=REQUEST.issuer, server=lab.acme_directory, ca_bundle=lab.acme_ca.read_text())
    await lab.apply_when_answered(manifests.acme_issuer(issuer))
    await lab.until("/apis/cert-manager.io/v1/clusterissuers", ready(REQUEST.issuer.name))
    await lab.apply(manifests.gateway(REQUEST, https=False))
    await lab.apply(manifests.certificate(REQUEST))
    routing = asyncio.create_task(route_challenges(lab, REQUEST))
    try:
        await lab.until(CERTIFICATES, ready(names.certificate_name(REQUEST.hostname)))
    finally:
        routing.cancel()
    orders = await lab.api.call("GET", "/apis/acme.cert-manager.io/v1/namespaces/istio-system/orders")
    ours = names.certificate_name(REQUEST.hostname)
    assert sum(order["metadata"]["name"].startswith(ours) for order in orders["items"]) == 1
    secret = await lab.api.call("GET", f"/api/v1/namespaces/istio-system/secrets/{names.secret_name(REQUEST.hostname)}")
    chain, key = (base64.b64decode(secret["data"][name]) for name in ("tls.crt", "tls.key"))
    found, problems = x509.secret_findings(chain, key, REQUEST.hostnames, subject="the Secret", now=datetime.now(UTC))
    assert problems == ()
    assert found is not None
    await lab.apply(manifests.gateway(REQUEST, https=True))
    await lab.apply(manifests.virtual_service(REQUEST))
    deadline = time.monotonic() + 15
    while True:
        try:
            served = {await presented(address, lab.https_port, REQUEST.hostname) for address in GATEWAY_ADDRESSES}
            break
        except OSError:
            assert time.monotonic() < deadline, "the gateway serves no TLS"
            await asyncio.sleep(0.1)
    assert {found.fingerprint} == {x509.facts(_pem(leaf)).fingerprint for leaf in served}
    async with aiohttp.ClientSession() as session:
        url = f"{lab.acme_management}/roots/0"
        root = await (await session.get(url, ssl=ssl.create_default_context(cafile=str(lab.acme_ca)))).read()
    ders = tuple(ssl.PEM_cert_to_DER_cert(part) for part in _parts(chain.decode()))
    for hostname in REQUEST.hostnames:
        assert x509.chain_problem(ders, root, hostname, datetime.now(UTC)) == ""
    assert x509.chain_problem(ders, root, "other.test", datetime.now(UTC)) != ""
    await routes_answer(lab)


async def routes_answer(lab: Lab) -> None:
    """Redirect on port 80, and each prefix to its application on port 443, on every address."""
    for address in GATEWAY_ADDRESSES:
        async with httpx.AsyncClient(verify=False) as client:
            headers = {"Host": REQUEST.hostname}
            plain = await client.get(f"http://{address}:{lab.http_port}/a?b=c", headers=headers)
            assert (301, f"https://{REQUEST.hostname}/a?b=c") == (plain.status_code, plain.headers["location"])
            for path, application in {
                "/": "frontend-service",
                "/apiary": "frontend-service",
                "/api": "api-service",
                "/api/v1": "api-service",
            }.items():
                answer = await client.get(
                    f"https://{address}:{lab.https_port}{path}",
                    headers=headers,
                    extensions={"sni_hostname": REQUEST.hostname},
                )
                assert application == answer.json()["app"]


def _parts(pem: str) -> list[str]:
    end = "-----END CERTIFICATE-----\n"
    return [part + end for part in pem.split(end) if part.strip()]


def _pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()


async def test_a_certificate_of_the_minute_profile_renews_by_itself(lab: Lab) -> None:
    request = OnboardingRequest(
        tenant="acme",
        hostnames=("minute.brief.test",),
        issuer=IssuerRef(name="pebble-minute"),
        routes=REQUEST.routes,
        certificate=CertificateSpec(renew_before_percentage=70),
    )
    lab.dns.add_zone("brief.test")
    lab.dns.set(request.hostname, "A", GATEWAY_ADDRESSES)
    issuer = IssuerRequest(
        ref=request.issuer, server=lab.acme_directory, ca_bundle=lab.acme_ca.read_text(), profile="minute"
    )
    await lab.apply_when_answered(manifests.acme_issuer(issuer))
    await lab.until("/apis/cert-manager.io/v1/clusterissuers", ready(request.issuer.name))
    await lab.apply(manifests.gateway(request, https=False))
    await lab.apply(manifests.certificate(request))
    certificate = names.certificate_name(request.hostname)
    routing = asyncio.create_task(route_challenges(lab, request))
    try:
        first = (await lab.until(CERTIFICATES, ready(certificate)))["status"]

        def renewed(item: Json) -> bool:
            return ready(certificate)(item) and item["status"]["notBefore"] > first["notBefore"]

        second = (await lab.until(CERTIFICATES, renewed, seconds=90))["status"]
    finally:
        routing.cancel()
        await lab.api.call("DELETE", f"{CERTIFICATES}/{certificate}")
    life = datetime.fromisoformat(first["notAfter"]) - datetime.fromisoformat(first["notBefore"])
    assert 99 <= life.total_seconds() <= 101
    due = datetime.fromisoformat(first["renewalTime"]) - datetime.fromisoformat(first["notBefore"])
    assert 29 <= due.total_seconds() <= 31
    again = datetime.fromisoformat(second["notBefore"]) - datetime.fromisoformat(first["notBefore"])
    assert due <= again <= due + timedelta(seconds=40), "it was not renewed when it was due"
