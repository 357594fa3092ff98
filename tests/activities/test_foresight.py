"""What a CA would meet is seen before it is asked: made to happen on a real DNS, a real gateway and a real cluster."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml
from kubernetes.aio.dynamic import DynamicClient

from activities import kubernetes
from activities.preflight import PreflightActivities
from activities.snapshot import CertificatePlace, DiagnosisSettings, look
from lab.accounts import service_account_kubeconfig
from lab.api import Json
from lab.cluster import DNS_KEY_NAME, GATEWAY_ADDRESSES, Lab
from lab.dns import DnsServer, FaultKind
from lab.loadbalancer import Address, Fault
from lifecycle import manifests
from lifecycle.diagnosing import diagnose
from lifecycle.domain import DnsRecord, IssuerRef, OnboardingRequest, RoutingStatus
from lifecycle.issuer_requests import parse_issuer
from lifecycle.issuers import issuer_manifest
from lifecycle.rate_limits import CaLimits, Limit, LimitKind, LimitsTable
from lifecycle.steps import IssuerRequest, PreflightReport
from starter import credentials
from tests.activities import domains
from tests.activities.domains import preflight_settings as settings
from tests.activities.test_preflight import codes, existing

ZONE = "foreseen.test"
CA = "lab-ca.example"

pytestmark = pytest.mark.lab


@pytest.fixture
def zone(issuing: Lab) -> Lab:
    issuing.dns.add_zone(ZONE)
    return issuing


async def seen(lab: Lab, admin: DynamicClient, hostname: str, *, point: bool = True, **more: object) -> PreflightReport:
    if point:
        lab.dns.set(hostname, "A", GATEWAY_ADDRESSES)
    activities = PreflightActivities(admin, settings(lab, **more))
    return await domains.run(activities.check_preflight, domains.request(hostname))


# --- DNS --------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def own_server(lab: Lab, hostname: str, *values: str) -> AsyncIterator[str]:
    """The zone's own name server, on an address and port of its own, that knows these addresses."""
    port = int(lab.dns_address.rpartition(":")[2])
    server = DnsServer()
    server.add_zone(ZONE)
    if values:
        server.set(hostname, "A", values)
    await server.start("127.0.0.3", port)
    lab.dns.set(f"ns.{ZONE}", "A", ["127.0.0.3"])
    try:
        yield f"ns.{ZONE}"
    finally:
        lab.dns.remove(f"ns.{ZONE}")
        await server.stop()


async def test_a_resolver_that_remembers_the_former_record_is_waited_for(zone: Lab, admin: DynamicClient) -> None:
    hostname = f"moving.{ZONE}"
    zone.dns.set(hostname, "A", ["192.0.2.7"], ttl=40)
    async with own_server(zone, hostname, *GATEWAY_ADDRESSES):
        report = await seen(zone, admin, hostname, point=False)
    assert (report.routing, report.may_proceed) == (RoutingStatus.PARTLY, False)
    (finding,) = report.findings
    assert finding.code == "CW1105"
    assert "192.0.2.7" in finding.problem
    assert "within 40 s" in finding.fix
    assert report.action_required is None, "the customer has done it"


async def test_what_the_zone_itself_says_goes_before_what_resolvers_remember(zone: Lab, admin: DynamicClient) -> None:
    hostname = f"taken-back.{ZONE}"
    async with own_server(zone, hostname, "192.0.2.7"):
        report = await seen(zone, admin, hostname)
    assert report.routing is RoutingStatus.ELSEWHERE
    assert codes(report) == ["CW1102"]
    assert report.action_required is not None


async def test_a_name_server_of_the_customer_at_an_inner_address_is_never_asked(
    zone: Lab, admin: DynamicClient
) -> None:
    hostname = f"inner.{ZONE}"
    async with own_server(zone, hostname, "192.0.2.7"):
        report = await seen(zone, admin, hostname, allowed_networks=("127.0.0.1/32", "127.0.0.2/32"))
    assert report.routing is RoutingStatus.POINTED


async def test_an_own_name_server_that_does_not_answer_says_nothing(zone: Lab, admin: DynamicClient) -> None:
    hostname = f"silent-authority.{ZONE}"
    zone.dns.set(f"ns.{ZONE}", "A", ["127.0.0.9"])
    try:
        report = await seen(zone, admin, hostname)
    finally:
        zone.dns.remove(f"ns.{ZONE}")
    assert (report.routing, codes(report)) == (RoutingStatus.POINTED, [])


async def test_broken_signatures_are_told_from_a_server_that_fails(zone: Lab, admin: DynamicClient) -> None:
    hostname = f"bogus.{ZONE}"
    zone.dns.fault(hostname, FaultKind.BOGUS)
    try:
        report = await seen(zone, admin, hostname)
    finally:
        zone.dns.fault(hostname, None)
    assert (report.routing, report.may_proceed, codes(report)) == (RoutingStatus.UNKNOWN, False, ["CW1106"])


async def test_a_proxied_name_is_told_from_one_that_points_elsewhere(zone: Lab, admin: DynamicClient) -> None:
    hostname = f"proxied.{ZONE}"
    zone.dns.set(hostname, "A", ["104.16.1.1"])
    zone.dns.set(hostname, "AAAA", ["2606:4700::1111"])
    report = await seen(zone, admin, hostname, point=False)
    assert (report.routing, codes(report)) == (RoutingStatus.ELSEWHERE, ["CW1107"])
    assert "Cloudflare" in report.findings[0].fix


# --- CAA --------------------------------------------------------------------------------------------------------------


async def test_a_caa_record_for_somebody_else_forbids_it_and_the_record_to_add_is_named(
    zone: Lab, admin: DynamicClient
) -> None:
    hostname = f"shop.forbidden.{ZONE}"
    zone.dns.set(f"forbidden.{ZONE}", "CAA", ['0 issue "pki.example"'])
    report = await seen(zone, admin, hostname, caa_identities=(CA,))
    assert (report.routing, report.may_proceed, codes(report)) == (RoutingStatus.POINTED, False, ["CW1305"])
    assert report.action_required is not None
    assert report.action_required.records == (DnsRecord(name=f"forbidden.{ZONE}", type="CAA", value=f'0 issue "{CA}"'),)


async def test_a_caa_record_is_held_against_our_account_and_method(zone: Lab, admin: DynamicClient) -> None:
    hostname = f"narrow.{ZONE}"
    account = await account_of(zone)
    zone.dns.set(hostname, "CAA", [f'0 issue "{CA}; accounturi={account}; validationmethods=http-01"'])
    report = await seen(zone, admin, hostname, caa_identities=(CA,))
    assert (report.may_proceed, codes(report)) == (True, [])
    zone.dns.set(hostname, "CAA", [f'0 issue "{CA}; accounturi={account}0"'])
    assert codes(await seen(zone, admin, hostname, caa_identities=(CA,))) == ["CW1305"]
    zone.dns.set(hostname, "CAA", [f'0 issue "{CA}; validationmethods=dns-01"'])
    assert codes(await seen(zone, admin, hostname, caa_identities=(CA,))) == ["CW1305"]


async def account_of(lab: Lab) -> str:
    path = f"/apis/cert-manager.io/v1/clusterissuers/{domains.ISSUER.name}"
    return str((await lab.api.call("GET", path))["status"]["acme"]["uri"])


async def test_a_caa_record_where_our_own_name_is_not_known_is_a_warning_only(zone: Lab, admin: DynamicClient) -> None:
    hostname = f"who-are-we.{ZONE}"
    zone.dns.set(hostname, "CAA", ['0 issue "pki.example"'])
    report = await seen(zone, admin, hostname)
    assert (report.may_proceed, codes(report)) == (True, ["CW1315"])


# --- the record of DNS-01 --------------------------------------------------------------------------------------------


DNS_ISSUER = IssuerRef(name="foreseen-dns")


@pytest.fixture
async def by_dns(zone: Lab) -> AsyncIterator[OnboardingRequest]:
    """A request whose issuer proves by DNS-01 and follows aliases, with its key in a Secret beside cert-manager."""
    zone.dns.add_zone("delegated-foreseen.test")
    hostname = f"by-dns.{ZONE}"
    zone.dns.set(hostname, "A", GATEWAY_ADDRESSES)
    await key_of(zone, zone.dns_key)
    update = {"nameserver": zone.dns_address, "tsig_key_name": DNS_KEY_NAME.rstrip("."), "tsig_secret": "foreseen-tsig"}
    parsed = parse_issuer(
        {
            "name": DNS_ISSUER.name,
            "server": zone.acme_directory,
            "ca_bundle": zone.acme_ca.read_text(),
            "solvers": [{"dns01": {"rfc2136": update}, "cname_strategy": "follow"}],
        }
    )
    assert isinstance(parsed, IssuerRequest)
    await zone.apply_when_answered(issuer_manifest(parsed))
    await zone.until(
        "/apis/cert-manager.io/v1/clusterissuers",
        lambda item: (
            item["metadata"]["name"] == DNS_ISSUER.name
            and any(one["status"] == "True" for one in (item.get("status") or {}).get("conditions") or ())
        ),
    )
    yield dataclasses.replace(domains.request(hostname), issuer=DNS_ISSUER)
    zone.dns.remove(f"_acme-challenge.{hostname}")


async def key_of(lab: Lab, key: str) -> None:
    found = credentials.Credentials(values={"tsig-secret-key": key.encode()})
    await credentials.write(str(lab.kubeconfig), "cert-manager", "foreseen-tsig", found, replace=True)


def texts(lab: Lab) -> list[str]:
    return [line for line in lab.dns.shown() if " TXT " in line]


async def test_an_own_zone_and_a_delegated_one_can_be_written_and_nothing_is_left(
    zone: Lab, admin: DynamicClient, by_dns: OnboardingRequest
) -> None:
    activities = PreflightActivities(admin, settings(zone))
    record = f"_acme-challenge.by-dns.{ZONE}"
    for way in (f"{record}, zone {ZONE}", f"{record} → a.delegated-foreseen.test, zone delegated-foreseen.test"):
        report = await domains.run(activities.check_preflight, by_dns)
        assert (report.may_proceed, codes(report)) == (True, [])
        assert [one.detail for one in report.evidence][-2:] == [
            way,
            f"a record was written, read from {zone.dns_address}, and removed",
        ]
        assert texts(zone) == []
        zone.dns.set(record, "CNAME", ["a.delegated-foreseen.test."])


async def test_a_key_that_the_server_refuses_stops_the_order_before_it_is_made(
    zone: Lab, admin: DynamicClient, by_dns: OnboardingRequest
) -> None:
    await key_of(zone, "b3RoZXI=")
    report = await domains.run(PreflightActivities(admin, settings(zone)).check_preflight, by_dns)
    assert (report.may_proceed, codes(report)) == (False, ["CW1347"])
    assert "(BADSIG)" in report.findings[0].problem
    assert "--secret-namespace cert-manager" in report.findings[0].fix
    assert "b3RoZXI=" not in repr(report)
    assert texts(zone) == []


async def test_a_worker_tries_nothing_while_something_else_stands_against_the_order(
    zone: Lab, admin: DynamicClient, by_dns: OnboardingRequest
) -> None:
    await key_of(zone, "b3RoZXI=")
    zone.dns.set(by_dns.hostname, "A", ["192.0.2.7"])
    activities = PreflightActivities(admin, settings(zone))
    assert codes(await domains.run(activities.check_preflight, by_dns)) == ["CW1102"]
    assert codes(await activities.look(by_dns, as_worker=False)) == ["CW1102", "CW1347"]


async def test_a_worker_with_the_rights_that_it_has_does_not_read_the_key_and_says_so(
    zone: Lab, by_dns: OnboardingRequest
) -> None:
    for one in yaml.safe_load_all((Path(__file__).parents[2] / "deploy" / "rbac.yaml").read_text()):
        await zone.apply(one)
    kubeconfig = await service_account_kubeconfig(
        zone, "certwright", "certwright-worker", zone.directory / "foreseen-worker"
    )
    async with kubernetes.connect(str(kubeconfig)) as worker:
        report = await domains.run(PreflightActivities(worker, settings(zone)).check_preflight, by_dns)
    assert (report.may_proceed, codes(report)) == (True, [])
    assert report.evidence[-1].detail == "writing not tried: Secret cert-manager/foreseen-tsig may not be read here"


async def test_a_wildcard_alias_that_catches_the_record_is_told_with_the_record_to_set(
    zone: Lab, admin: DynamicClient, by_dns: OnboardingRequest
) -> None:
    """The solver's own name server is another one here than the customer's, as it is outside of a lab."""
    wildcard, target = f"*.by-dns.{ZONE}", "edge.foreseen-cdn.test"
    primary = DnsServer()
    primary.add_zone("delegated-foreseen.test")
    address, port = await primary.start("127.0.0.7")
    zone.dns.add_zone("foreseen-cdn.test")
    zone.dns.set(wildcard, "CNAME", [f"{target}."])
    path = f"/apis/cert-manager.io/v1/clusterissuers/{DNS_ISSUER.name}"
    made = await zone.api.call("GET", path)
    made["spec"]["acme"]["solvers"][0]["dns01"]["rfc2136"]["nameserver"] = f"{address}:{port}"
    made["metadata"] = {"name": DNS_ISSUER.name}
    await zone.apply({key: value for key, value in made.items() if key != "status"})
    activities = PreflightActivities(admin, settings(zone, delegation_zone="delegated-foreseen.test"))
    try:
        report = await domains.run(activities.check_preflight, by_dns)
    finally:
        zone.dns.remove(wildcard)
        await primary.stop()
    assert "CW1342" in codes(report)
    assert report.action_required is not None
    assert report.action_required.records == (
        DnsRecord(
            name=f"_acme-challenge.by-dns.{ZONE}",
            type="CNAME",
            value=f"by-dns.{ZONE}.delegated-foreseen.test.",
        ),
    )


async def test_the_diagnosis_of_an_open_challenge_names_a_record_that_leads_astray(
    zone: Lab, admin: DynamicClient, by_dns: OnboardingRequest
) -> None:
    record = f"_acme-challenge.{by_dns.hostname}"
    zone.dns.set(record, "CNAME", [f"{record}."])
    certificate = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "foreseen-astray", "namespace": "istio-system"},
        "spec": {
            "secretName": "foreseen-astray",
            "dnsNames": [by_dns.hostname],
            "issuerRef": {"kind": "ClusterIssuer", "name": DNS_ISSUER.name, "group": "cert-manager.io"},
        },
    }
    place = CertificatePlace(namespace="istio-system", name="foreseen-astray")
    looks = DiagnosisSettings(edge=await domains.edge_settings(zone), nameservers=(zone.dns_address,))
    async with existing(zone, admin, [certificate]), asyncio.timeout(60):
        while True:
            found = diagnose(await look(admin, place, looks))
            if found.cause is not None and found.cause.code == "CW1340":
                break
            await asyncio.sleep(0.5)
        # cert-manager finishes a Challenge only where it can follow the record
        zone.dns.remove(record)
    assert found.cause.subject == record


# --- the way of the challenge -----------------------------------------------------------------------------------------


def gateway(name: str, host: str, *, redirect: bool) -> Json:
    server: Json = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": [host]}
    if redirect:
        server["tls"] = {"httpsRedirect": True}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"istio": "ingressgateway"}, "servers": [server]},
    }


async def until(
    lab: Lab, admin: DynamicClient, hostname: str, accept: Callable[[PreflightReport], bool]
) -> PreflightReport:
    """The report once Envoy does what the objects say."""
    async with asyncio.timeout(60):
        while True:
            report = await seen(lab, admin, hostname)
            if accept(report):
                return report
            await asyncio.sleep(0.3)


async def test_a_gateway_of_somebody_else_that_swallows_the_challenge_is_named(zone: Lab, admin: DynamicClient) -> None:
    hostname = f"swallowed.{ZONE}"
    async with existing(zone, admin, [gateway("foreseen-swallows", hostname, redirect=True)]):
        report = await until(zone, admin, hostname, lambda now: "CW1317" in codes(now))
    assert not report.may_proceed
    finding = next(one for one in report.findings if one.code == "CW1317")
    assert "301" in finding.problem
    assert "Gateway default/foreseen-swallows" in finding.fix


async def test_a_redirect_of_everything_is_no_obstacle_and_nor_is_our_own(zone: Lab, admin: DynamicClient) -> None:
    hostname = f"everything.{ZONE}"
    request = domains.request(hostname)
    async with existing(zone, admin, [gateway("foreseen-everything", "*", redirect=True)]):
        report = await until(zone, admin, hostname, lambda now: "301" in now.evidence[-1].detail)
        assert (report.may_proceed, codes(report)) == (True, [])
        ours = [manifests.gateway(request, https=False), manifests.virtual_service(request)]
        async with existing(zone, admin, ours):
            await asyncio.sleep(1.0)
            report = await seen(zone, admin, hostname)
            assert (report.may_proceed, codes(report)) == (True, [])
            assert "301" in report.evidence[-1].detail


async def test_a_policy_at_the_gateway_that_forbids_the_path_is_told(zone: Lab, admin: DynamicClient) -> None:
    hostname = f"policy.{ZONE}"
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "foreseen-policy", "namespace": "istio-system"},
        "spec": {
            "selector": {"matchLabels": {"istio": "ingressgateway"}},
            "action": "DENY",
            "rules": [{"to": [{"operation": {"hosts": [hostname]}}]}],
        },
    }
    async with existing(zone, admin, [gateway("foreseen-policy", hostname, redirect=False), policy]):
        report = await until(zone, admin, hostname, lambda now: "CW1318" in codes(now))
    assert not report.may_proceed
    assert "notPaths" in next(one.fix for one in report.findings if one.code == "CW1318")


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.BLACKHOLE])
async def test_a_closed_port_80_is_told_once_something_listens_there(
    zone: Lab, admin: DynamicClient, fault: Fault
) -> None:
    hostname = f"closed-{fault.value}.{ZONE}"
    broken = Address(host=GATEWAY_ADDRESSES[1], port=zone.http_port)
    listening = gateway("foreseen-listens", f"other.{ZONE}", redirect=False)
    await zone.balancer.break_(broken, fault)
    try:
        async with existing(zone, admin, [listening]):
            activities = PreflightActivities(admin, settings(zone))
            zone.dns.set(hostname, "A", GATEWAY_ADDRESSES)
            early = await domains.run(activities.check_preflight, domains.request(hostname))
            assert codes(early) == [], "a Gateway that was just made proves no fault"
            report = await until(zone, admin, hostname, lambda now: "CW1320" in codes(now))
    finally:
        await zone.balancer.mend(broken)
    assert not report.may_proceed
    assert [one.subject for one in report.findings if one.code == "CW1320"] == [hostname]
    assert GATEWAY_ADDRESSES[1] in report.findings[0].problem


async def test_an_address_that_may_not_be_dialled_is_not_tried(zone: Lab, admin: DynamicClient) -> None:
    report = await seen(zone, admin, f"not-allowed.{ZONE}", allowed_networks=())
    assert codes(report) == ["CW1322"] * len(GATEWAY_ADDRESSES)
    assert report.may_proceed, "what could not be tried is unknown, not wrong"


# --- the cluster and the CA's limits ----------------------------------------------------------------------------------


async def test_a_service_without_port_80_is_told(zone: Lab, admin: DynamicClient) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "foreseen-443-only", "namespace": "istio-system"},
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "ports": [{"name": "https", "port": 443}],
        },
    }
    hostname = f"one-port.{ZONE}"
    zone.dns.set(hostname, "A", GATEWAY_ADDRESSES)
    request = domains.request(hostname)
    request = dataclasses.replace(request, gateway=dataclasses.replace(request.gateway, service="foreseen-443-only"))
    async with existing(zone, admin, [service]):
        report = await domains.run(PreflightActivities(admin, settings(zone)).check_preflight, request)
    assert "CW1031" in codes(report)
    assert "port 80" in next(one.problem for one in report.findings if one.code == "CW1031")


async def test_a_used_up_limit_is_known_with_its_instant_before_the_ca_refuses(zone: Lab, admin: DynamicClient) -> None:
    hostname = f"limited.{ZONE}"
    order = {
        "apiVersion": "acme.cert-manager.io/v1",
        "kind": "Order",
        "metadata": {"name": "foreseen-order", "namespace": "default"},
        "spec": {
            "issuerRef": {"kind": "ClusterIssuer", "name": domains.ISSUER.name},
            "dnsNames": [f"other.{ZONE}"],
            "request": "AA==",
        },
    }
    host = zone.acme_directory.partition("://")[2].partition(":")[0]
    one_an_hour = Limit(kind=LimitKind.ORDERS, burst=1, refill_seconds=3600)
    table = LimitsTable(entries=(CaLimits(host=host, limits=(one_an_hour,)),))
    async with existing(zone, admin, [order]):
        report = await seen(zone, admin, hostname, limits=table)
    assert (report.may_proceed, codes(report)) == (False, ["CW1323"])
    assert "free at 20" in report.findings[0].fix


async def test_a_sidecar_at_cert_manager_is_told(zone: Lab, admin: DynamicClient) -> None:
    """A second cert-manager that is never started, since nobody schedules it, carries the sidecar of a mesh."""
    labels = {"app.kubernetes.io/name": "cert-manager"}
    containers = [{"name": name, "image": "none"} for name in ("cert-manager-controller", "istio-proxy")]
    metadata: Json = {"name": "foreseen-meshed", "namespace": "default", "labels": labels}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers[:1]}},
        },
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"schedulerName": "nobody", "containers": containers},
    }
    hostname = f"mesh.{ZONE}"
    assert codes(await seen(zone, admin, hostname)) == [], "the chart's own values keep it out"
    async with existing(zone, admin, [pod]):
        assert codes(await seen(zone, admin, hostname)) == [], "a Pod alone is no cert-manager"
    async with existing(zone, admin, [deployment]):
        await zone.apply({**pod, "metadata": {**metadata, "name": "foreseen-meshed-1"}})
        try:
            report = await seen(zone, admin, hostname)
        finally:
            await kubernetes.remove(admin, "v1", "Pod", "default", "foreseen-meshed-1")
    assert (report.may_proceed, codes(report)) == (True, ["CW1030"])
    assert report.findings[0].subject == "Pod default/foreseen-meshed-1"
