"""What every address of the gateway serves is seen as a client sees it; renewals are seen through to there."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from kubernetes.aio.dynamic import DynamicClient

from activities import edge as edges
from activities import kubernetes, renewals
from activities.certificates import CertificateActivities
from activities.edge import EdgeActivities, EdgeSettings
from activities.gateways import GatewayActivities, gateway_addresses
from activities.issuance import ACME
from activities.preflight import PreflightActivities
from activities.renewals import RenewalActivities
from lab.api import MERGE_PATCH
from lab.cluster import GATEWAY_ADDRESSES, Lab
from lab.loadbalancer import Address, Fault
from lifecycle import manifests, names, pacing
from lifecycle.domain import CertificateFacts, GatewayTarget, Route, RoutingStatus
from lifecycle.steps import EdgeReport, RenewalRequest
from tests.activities import domains

pytestmark = pytest.mark.lab

HOSTNAMES = ("edge.h1.test", "www.edge.h1.test")
TARGET = domains.target(*HOSTNAMES)
SETTLED = 2.0
"""Envoy has changed routes a tenth of a second after the write; what served well before it still would until then."""


@pytest.fixture(scope="module")
def preflight(issuing: Lab, admin: DynamicClient) -> PreflightActivities:
    return PreflightActivities(admin, domains.preflight_settings(issuing))


@pytest.fixture(scope="module")
async def secret(issuing: Lab, admin: DynamicClient, gateways: GatewayActivities) -> AsyncIterator[CertificateFacts]:
    """The certificate of a domain that is bound to the gateway."""
    certificates = CertificateActivities(admin)
    domains.point_here(issuing, *HOSTNAMES)
    await domains.run(certificates.apply_certificate, TARGET)
    result = await domains.run(certificates.await_certificate, TARGET)
    assert result.secret is not None
    assert (await domains.run(gateways.inspect_secret, TARGET)).ready
    assert (await domains.run(gateways.bind_gateway, TARGET)).bound
    yield result.secret
    gone = await domains.run(gateways.unbind_gateway, TARGET)
    assert len(gone.removed) == 2
    await domains.run(certificates.remove_certificate, TARGET)


@pytest.fixture
def edge(admin: DynamicClient, settings: EdgeSettings) -> EdgeActivities:
    return EdgeActivities(admin, settings)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come is not waited for as long as in earnest."""
    monkeypatch.setattr(edges, "_CATCH_UP_SECONDS", 1.0)


def codes(report: EdgeReport) -> set[str]:
    return {finding.code for finding in report.findings}


async def test_every_address_is_seen_to_serve_every_name(secret: CertificateFacts, edge: EdgeActivities) -> None:
    report = await domains.run(edge.verify_edge, TARGET)
    assert report.findings == ()
    assert report.serving
    assert report.fingerprint == secret.fingerprint
    assert {(one.address, one.hostname) for one in report.served} == {
        (address, hostname) for address in GATEWAY_ADDRESSES for hostname in HOSTNAMES
    }
    for one in report.served:
        assert (one.fingerprint, one.chain_verified) == (secret.fingerprint, True)
        assert (one.protocol, one.redirect) == ("TLSv1.3", f"https://{one.hostname}/")
        assert one.cipher.startswith("TLS_")
        assert one.routes == ("/ 200", "/api 200")


@pytest.mark.usefixtures("secret")
async def test_where_the_names_point_is_told_where_it_is_wished_for(
    issuing: Lab, admin: DynamicClient, settings: EdgeSettings
) -> None:
    edge = EdgeActivities(admin, dataclasses.replace(settings, nameservers=(issuing.dns_address,)))
    asking = dataclasses.replace(TARGET, with_routing=True)
    report = await domains.run(edge.verify_edge, asking)
    assert (report.serving, report.routing, report.routing_findings) == (True, RoutingStatus.POINTED, ())
    issuing.dns.remove(HOSTNAMES[0], "A")
    try:
        report = await domains.run(edge.verify_edge, asking)
        unasked = await domains.run(edge.verify_edge, TARGET)
    finally:
        domains.point_here(issuing, *HOSTNAMES)
    assert (report.serving, report.findings) == (True, ())  # what is served is one thing, who comes another
    assert report.routing is RoutingStatus.PARTLY
    assert [one.code for one in report.routing_findings] == ["CW1101"]
    assert report.action_required is not None
    assert [(one.name, one.value) for one in report.action_required.records] == [
        (HOSTNAMES[0], address) for address in GATEWAY_ADDRESSES
    ]
    assert (unasked.routing, unasked.action_required) == (None, None)


@pytest.mark.usefixtures("impatient", "secret")
@pytest.mark.parametrize(("fault", "code"), [(Fault.REFUSE, "CW1503"), (Fault.BLACKHOLE, "CW1503")])
async def test_an_address_that_does_not_answer_is_told(
    issuing: Lab, admin: DynamicClient, settings: EdgeSettings, fault: Fault, code: str
) -> None:
    broken = Address(host=GATEWAY_ADDRESSES[1], port=issuing.https_port)
    edge = EdgeActivities(admin, dataclasses.replace(settings, timeout_seconds=1.0))
    await issuing.balancer.break_(broken, fault)
    try:
        report = await domains.run(edge.verify_edge, TARGET)
    finally:
        await issuing.balancer.mend(broken)
    assert not report.serving
    assert codes(report) == {code}
    assert {finding.fix for finding in report.findings} == {
        f"openssl s_client -connect {broken.host}:{broken.port} -servername {hostname}" for hostname in HOSTNAMES
    }
    assert {one.problem == "" for one in report.served if one.address == GATEWAY_ADDRESSES[0]} == {True}


@pytest.mark.usefixtures("secret")
async def test_an_address_that_is_not_public_is_not_dialled(admin: DynamicClient, settings: EdgeSettings) -> None:
    edge = EdgeActivities(admin, dataclasses.replace(settings, allowed_networks=("127.0.0.1/32",)))
    report = await domains.run(edge.verify_edge, TARGET, seconds=10)
    assert codes(report) == {"CW1509"}
    assert {one.address for one in report.served if one.problem} == {"127.0.0.2"}


@pytest.mark.usefixtures("impatient", "secret")
async def test_a_chain_to_another_root_is_told(issuing: Lab, admin: DynamicClient, settings: EdgeSettings) -> None:
    other = dataclasses.replace(settings, roots_pem=issuing.acme_ca.read_bytes())
    assert codes(await domains.run(EdgeActivities(admin, other).verify_edge, TARGET)) == {"CW1506"}


@pytest.mark.usefixtures("impatient", "secret")
async def test_a_route_without_a_service_and_a_missing_route_are_told(
    admin: DynamicClient, gateways: GatewayActivities, edge: EdgeActivities
) -> None:
    nowhere = Route(prefix="/gone", service="nobody", port=80)
    request = dataclasses.replace(TARGET.request, routes=(*TARGET.request.routes, nowhere))
    await kubernetes.apply(admin, manifests.virtual_service(request))
    await asyncio.sleep(SETTLED)
    try:
        report = await domains.run(edge.verify_edge, dataclasses.replace(TARGET, request=request))
    finally:
        await domains.run(gateways.bind_gateway, TARGET)
    assert codes(report) == {"CW1508"}
    assert "/gone 503 by the gateway" in report.findings[0].problem
    only_api = dataclasses.replace(TARGET.request, routes=(domains.ROUTES[1],))
    await kubernetes.apply(admin, manifests.virtual_service(only_api))
    await asyncio.sleep(SETTLED)
    try:
        report = await domains.run(edge.verify_edge, TARGET)
    finally:
        await domains.run(gateways.bind_gateway, TARGET)
    assert codes(report) == {"CW1508"}
    assert "/ 404 by the gateway" in report.findings[0].problem


@pytest.mark.usefixtures("impatient")
async def test_a_domain_without_a_secret_is_not_served(gateways: GatewayActivities, edge: EdgeActivities) -> None:
    target = domains.target("nothing.h1.test")
    assert [one.code for one in (await domains.run(gateways.inspect_secret, target)).findings] == ["CW1401"]
    report = await domains.run(edge.verify_edge, target)
    assert not report.serving
    assert "CW1401" in codes(report)


async def test_objects_of_somebody_else_are_not_taken_over(issuing: Lab, gateways: GatewayActivities) -> None:
    target = domains.target("foreign.h1.test")
    metadata = {"name": names.gateway_name("foreign.h1.test"), "namespace": "istio-system"}
    spec = {
        "selector": {"istio": "none"},
        "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["foreign.h1.test"]}],
    }
    path = f"/apis/networking.istio.io/v1/namespaces/istio-system/gateways/{metadata['name']}"
    await issuing.apply({"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": metadata, "spec": spec})
    try:
        result = await domains.run(gateways.bind_gateway, target)
        assert (result.bound, [finding.code for finding in result.findings]) == (False, ["CW1401", "CW1501"])
        assert (await domains.run(gateways.unbind_gateway, target)).removed == ()
        assert (await issuing.api.call("GET", path))["spec"]["selector"] == {"istio": "none"}
    finally:
        await issuing.api.call("DELETE", path)


async def test_a_load_balancer_that_is_given_by_name_is_looked_up(issuing: Lab, admin: DynamicClient) -> None:
    issuing.dns.add_zone("h1.test")
    issuing.dns.set("balancer.h1.test", "A", ["127.0.0.1"])
    issuing.dns.set("balancer.h1.test", "AAAA", ["::1"])
    metadata = {"name": "h1-named", "namespace": "default"}
    spec = {"type": "LoadBalancer", "ports": [{"port": 443}]}
    await issuing.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    await issuing.api.call(
        "PATCH",
        "/api/v1/namespaces/default/services/h1-named/status",
        body={"status": {"loadBalancer": {"ingress": [{"hostname": "balancer.h1.test"}]}}},
        content_type=MERGE_PATCH,
    )
    target = GatewayTarget(namespace="default", service="h1-named")
    assert await gateway_addresses(admin, target, (issuing.dns_address,)) == ("127.0.0.1", "::1")


# --- renewals ---------------------------------------------------------------------------------------------------------


async def test_a_renewal_by_hand_is_seen_on_every_address_and_made_once(
    secret: CertificateFacts, admin: DynamicClient, settings: EdgeSettings, preflight: PreflightActivities
) -> None:
    renew = RenewalActivities(admin, settings, preflight)
    asked = RenewalRequest(request=TARGET.request, current_fingerprint=secret.fingerprint, force=True)
    result = await domains.run(renew.see_renewal_through, asked)
    assert result.issuance.findings == ()
    assert result.issuance.ready
    assert result.issuance.secret is not None
    new = result.issuance.secret.fingerprint
    assert new != secret.fingerprint
    assert 0 <= result.issuance.ready_seconds < 60
    assert result.edge is not None
    assert result.edge.serving
    assert {one.fingerprint for one in result.edge.served} == {new}
    for force in (True, False):  # a retry, and the review's word that comes late
        again = await domains.run(renew.see_renewal_through, dataclasses.replace(asked, force=force))
        assert again.issuance.secret == result.issuance.secret
        assert again.issuance.order == result.issuance.order
        assert again.edge is not None
        assert again.edge.serving


@pytest.mark.usefixtures("secret")
async def test_a_renewal_that_has_not_begun_is_told(
    admin: DynamicClient,
    settings: EdgeSettings,
    preflight: PreflightActivities,
    gateways: GatewayActivities,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewals, "_BEGINS_WITHIN", 1.0)
    now = (await domains.run(gateways.inspect_secret, TARGET)).secret
    assert now is not None
    asked = RenewalRequest(request=TARGET.request, current_fingerprint=now.fingerprint)
    renew = RenewalActivities(admin, settings, preflight)
    result = await domains.run(renew.see_renewal_through, asked)
    assert not result.issuance.ready
    assert [finding.code for finding in result.issuance.findings] == ["CW1605"]
    assert result.edge is None


@pytest.mark.usefixtures("secret")
async def test_a_renewal_that_fails_says_why_the_old_certificate_stays_and_it_is_asked_for_when_the_cause_is_gone(
    issuing: Lab,
    admin: DynamicClient,
    settings: EdgeSettings,
    preflight: PreflightActivities,
    gateways: GatewayActivities,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Last of this file: cert-manager itself waits an hour after it. Of our minute only the length is changed."""
    before = (await domains.run(gateways.inspect_secret, TARGET)).secret
    assert before is not None
    asked = RenewalRequest(request=TARGET.request, current_fingerprint=before.fingerprint, force=True)
    renew = RenewalActivities(admin, settings, preflight)
    domains.point_here(issuing, HOSTNAMES[1], addresses=("127.0.0.9",))
    waiting = dataclasses.replace(asked, force=False)
    try:
        failed = await domains.run(renew.see_renewal_through, asked)
        early = await domains.run(renew.see_renewal_through, waiting)
        monkeypatch.setattr(pacing, "PAUSES", (timedelta(seconds=1),) * 3)
        await asyncio.sleep(1)
        orders = await kubernetes.listed(admin, ACME, "Order", TARGET.request.gateway.namespace)
        still = await domains.run(renew.see_renewal_through, waiting)
        assert orders == await kubernetes.listed(admin, ACME, "Order", TARGET.request.gateway.namespace)
    finally:
        domains.point_here(issuing, HOSTNAMES[1])
    for result in (failed, early, still):
        assert not result.issuance.ready
        (challenge,) = (one for one in result.issuance.findings if one.code == "CW1303")
        assert challenge.subject == HOSTNAMES[1]
        assert result.issuance.look_at is not None
        assert result.issuance.look_at > datetime.now(UTC) - timedelta(seconds=30)
    assert early.issuance.findings[0].code == "CW1303"
    assert still.issuance.findings[0].code == "CW1102"  # what stands against it goes before what failed then
    assert (await domains.run(gateways.inspect_secret, TARGET)).secret == before
    mended = await domains.run(renew.see_renewal_through, waiting)
    assert mended.issuance.ready
    assert mended.issuance.secret is not None
    assert mended.issuance.secret.fingerprint != before.fingerprint
    assert mended.edge is not None
    assert mended.edge.serving
