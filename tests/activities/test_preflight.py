"""What must be right before an order: gathered from real DNS and a real cluster, all of it in one round."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from dns.nameserver import Do53Nameserver
from kubernetes.aio.dynamic import DynamicClient

from activities import kubernetes, lookups, resolving
from activities.preflight import PreflightActivities
from lab.accounts import service_account_kubeconfig
from lab.api import Json
from lab.cluster import GATEWAY_ADDRESSES, Lab
from lab.dns import DnsServer, FaultKind
from lifecycle import names
from lifecycle.domain import GatewayTarget, IssuerKind, IssuerRef, RoutingStatus
from lifecycle.platform import Permission, required_permissions
from lifecycle.routing import Lookup
from lifecycle.steps import PreflightReport
from tests.activities import domains
from tests.activities.domains import preflight_settings as settings

REQUEST = domains.request("ahead.h1.test", "www.ahead.h1.test")


@pytest.fixture
def preflight(issuing: Lab, admin: DynamicClient) -> PreflightActivities:
    domains.point_here(issuing, *REQUEST.hostnames)
    return PreflightActivities(admin, settings(issuing))


def codes(report: PreflightReport) -> list[str]:
    return [finding.code for finding in report.findings]


@pytest.mark.lab
async def test_a_name_that_points_here_may_be_ordered(preflight: PreflightActivities) -> None:
    report = await domains.run(preflight.check_preflight, REQUEST)
    assert report.findings == ()
    assert (report.routing, report.may_proceed) == (RoutingStatus.POINTED, True)
    assert report.gateway_addresses == GATEWAY_ADDRESSES
    assert report.action_required is None
    assert "127.0.0.1" in report.evidence[0].detail


@pytest.mark.lab
@pytest.mark.parametrize(
    ("fault", "routing", "code"),
    [
        (FaultKind.SERVFAIL, RoutingStatus.UNKNOWN, "CW1104"),
        (FaultKind.TIMEOUT, RoutingStatus.UNKNOWN, "CW1104"),
        (FaultKind.NXDOMAIN, RoutingStatus.PARTLY, "CW1101"),
    ],
)
async def test_a_fault_of_the_dns_is_unknown_and_not_wrong(
    issuing: Lab, preflight: PreflightActivities, fault: FaultKind, routing: RoutingStatus, code: str
) -> None:
    issuing.dns.fault("www.ahead.h1.test", fault)
    try:
        report = await domains.run(preflight.check_preflight, REQUEST)
    finally:
        issuing.dns.fault("www.ahead.h1.test", None)
    assert (report.routing, report.may_proceed, codes(report)) == (routing, False, [code])
    assert (report.action_required is None) is (routing is RoutingStatus.UNKNOWN)


@pytest.mark.lab
async def test_a_stray_v6_address_stands_against_it_with_the_record_to_remove(
    issuing: Lab, preflight: PreflightActivities
) -> None:
    issuing.dns.set("ahead.h1.test", "AAAA", ["2001:db8::bad"])
    try:
        report = await domains.run(preflight.check_preflight, REQUEST)
    finally:
        issuing.dns.remove("ahead.h1.test", "AAAA")
    assert (report.routing, report.may_proceed) == (RoutingStatus.PARTLY, False)
    (finding,) = report.findings
    assert finding.code == "CW1103"
    assert "2001:db8::bad" in finding.fix
    assert report.action_required is not None
    assert {record.value for record in report.action_required.records} == set(GATEWAY_ADDRESSES)


@pytest.mark.lab
async def test_everything_that_stands_against_it_is_told_at_once(
    issuing: Lab, admin: DynamicClient, preflight: PreflightActivities
) -> None:
    request = dataclasses.replace(domains.request("crowded.h1.test"), issuer=IssuerRef(name="h1-nobody"))
    domains.point_here(issuing, "crowded.h1.test")
    async with existing(issuing, admin, others("crowded.h1.test")):
        report = await domains.run(preflight.check_preflight, request)
    assert report.routing is RoutingStatus.POINTED
    assert not report.may_proceed
    assert sorted(codes(report)) == ["CW1201", "CW1407", "CW1501", "CW1501", "CW1502"]
    assert {finding.subject for finding in report.findings if finding.code == "CW1501"} == {
        "Gateway default/h1-other",
        "VirtualService istio-system/h1-other",
    }
    assert "Secret" in next(finding.subject for finding in report.findings if finding.code == "CW1407")


def others(hostname: str) -> list[Json]:
    """What somebody else has in the cluster for the same name, and one Gateway of another workload."""
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": [f"*/{hostname}"]}
    istio = "networking.istio.io/v1"
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": names.secret_name(hostname), "namespace": "istio-system"},
            "stringData": {"mine": "yes"},
        },
        {
            "apiVersion": istio,
            "kind": "Gateway",
            "metadata": {"name": "h1-other", "namespace": "default"},
            "spec": {"selector": {"istio": "ingressgateway"}, "servers": [server]},
        },
        {
            "apiVersion": istio,
            "kind": "Gateway",
            "metadata": {"name": "h1-inner", "namespace": "default"},
            "spec": {"selector": {"istio": "inner"}, "servers": [server]},
        },
        {
            "apiVersion": istio,
            "kind": "VirtualService",
            "metadata": {"name": "h1-other", "namespace": "istio-system"},
            "spec": {
                "hosts": [hostname],
                "gateways": ["default/h1-other"],
                "http": [{"redirect": {"authority": "elsewhere.example"}}],
            },
        },
        {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": {"name": "h1-other", "namespace": "default"},
            "spec": {"secretName": "h1-other", "dnsNames": [hostname], "issuerRef": {"name": "h1-nobody"}},
        },
    ]


@contextlib.asynccontextmanager
async def existing(lab: Lab, admin: DynamicClient, documents: Iterable[Json]) -> AsyncIterator[None]:
    made: list[Json] = []
    try:
        for document in documents:
            await lab.apply_when_answered(document)
            made.append(document)
        yield
    finally:
        for document in made:
            metadata = document["metadata"]
            await kubernetes.remove(
                admin, document["apiVersion"], document["kind"], metadata["namespace"], metadata["name"]
            )


@pytest.mark.lab
async def test_an_issuer_of_another_namespace_and_a_gateway_without_address_are_told(
    preflight: PreflightActivities,
) -> None:
    request = dataclasses.replace(
        REQUEST,
        issuer=IssuerRef(name="h1", kind=IssuerKind.ISSUER, namespace="default"),
        gateway=GatewayTarget(service="h1-nothing"),
    )
    report = await domains.run(preflight.check_preflight, request)
    assert (report.routing, report.may_proceed) == (RoutingStatus.UNKNOWN, False)
    assert sorted(set(codes(report))) == ["CW1005", "CW1104", "CW1201"]


@pytest.mark.lab
async def test_a_missing_permission_is_a_finding_with_the_rule_to_add(issuing: Lab, tmp_path: Path) -> None:
    domains.point_here(issuing, *REQUEST.hostnames)
    missing = {("watch", "challenges"), ("list", "virtualservices")}
    granted = [one for one in required_permissions("istio-system") if (one.verb, one.resource) not in missing]
    kubeconfig = await account(issuing, "h1-preflight", granted, tmp_path)
    async with kubernetes.connect(str(kubeconfig)) as cluster:
        report = await domains.run(PreflightActivities(cluster, settings(issuing)).check_preflight, REQUEST)
    assert (report.routing, report.may_proceed) == (RoutingStatus.POINTED, False)
    assert set(codes(report)) == {"CW1801"}
    fixes = " ".join(finding.fix for finding in report.findings)
    for verb, resource in missing:
        assert f'"resources": ["{resource}"], "verbs": ["{verb}"]' in fixes


async def account(lab: Lab, name: str, granted: Iterable[Permission], directory: Path) -> Path:
    """The kubeconfig of an account with exactly these permissions, in all namespaces for brevity."""
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [one.group], "resources": [one.resource], "verbs": [one.verb]} for one in granted]
    await lab.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}})
    await lab.apply({"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
    await lab.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
        }
    )
    return await service_account_kubeconfig(lab, "default", name, directory / name)


# --- lookups ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[tuple[DnsServer, str]]:
    dns = DnsServer()
    host, port = await dns.start()
    dns.add_zone("customer.test")
    dns.add_zone("edge.test")
    yield dns, f"{host}:{port}"
    await dns.stop()


async def test_answers_of_each_name_server(server: tuple[DnsServer, str]) -> None:
    dns, address = server
    dns.set("shop.customer.test", "A", ["192.0.2.1", "192.0.2.2"])
    dns.set("alias.customer.test", "CNAME", ["entry.edge.test."])
    dns.set("entry.edge.test", "AAAA", ["2001:db8::1"])
    hostnames = ("shop.customer.test", "alias.customer.test", "nothing.customer.test", "shop.example")
    answers = await lookups.ask(hostnames, (address,), 1.0)
    assert [(answer.hostname.partition(".")[0], answer.lookup, sorted(answer.addresses)) for answer in answers] == [
        ("shop", Lookup.ANSWERED, ["192.0.2.1", "192.0.2.2"]),
        ("shop", Lookup.NO_DATA, []),
        ("alias", Lookup.NO_DATA, []),
        ("alias", Lookup.ANSWERED, ["2001:db8::1"]),
        ("nothing", Lookup.NXDOMAIN, []),
        ("nothing", Lookup.NXDOMAIN, []),
        ("shop", Lookup.REFUSED, []),
        ("shop", Lookup.REFUSED, []),
    ]
    assert answers[3].cnames == ("entry.edge.test",)
    assert {answer.nameserver for answer in answers} == {address}


async def test_a_wildcard_is_asked_for_a_name_below_that_nobody_has_set(server: tuple[DnsServer, str]) -> None:
    dns, address = server
    dns.set("shop.customer.test", "A", ["192.0.2.9"])
    dns.set("*.customer.test", "A", ["192.0.2.1"])
    answers = await lookups.ask(("*.customer.test", "*.edge.test"), (address,), 1.0)
    assert [(answer.hostname, answer.lookup, answer.addresses) for answer in answers[::2]] == [
        ("*.customer.test", Lookup.ANSWERED, ("192.0.2.1",)),
        ("*.edge.test", Lookup.NXDOMAIN, ()),
    ]


@pytest.mark.parametrize(
    ("fault", "lookup"),
    [
        (FaultKind.SERVFAIL, Lookup.SERVFAIL),
        (FaultKind.BOGUS, Lookup.BOGUS),
        (FaultKind.NXDOMAIN, Lookup.NXDOMAIN),
        (FaultKind.TIMEOUT, Lookup.TIMEOUT),
    ],
)
async def test_a_fault_is_told_as_what_it_is(server: tuple[DnsServer, str], fault: FaultKind, lookup: Lookup) -> None:
    dns, address = server
    dns.set("shop.customer.test", "A", ["192.0.2.1"])
    dns.fault("shop.customer.test", fault)
    answers = await lookups.ask(("shop.customer.test",), (address,), 0.5)
    assert {answer.lookup for answer in answers} == {lookup}


async def test_a_name_server_that_is_not_there_is_asked_beside_one_that_is(server: tuple[DnsServer, str]) -> None:
    dns, address = server
    dns.set("shop.customer.test", "A", ["192.0.2.1"])
    answers = await lookups.ask(("shop.customer.test",), ("127.0.0.1:1", address), 0.5)
    assert {(answer.nameserver, answer.lookup) for answer in answers if answer.nameserver == address} == {
        (address, Lookup.ANSWERED),
        (address, Lookup.NO_DATA),
    }
    assert {answer.lookup for answer in answers if answer.nameserver != address} <= {Lookup.TIMEOUT, Lookup.BROKEN}
    assert await lookups.addresses_of("shop.customer.test", ("127.0.0.1:1", address), 0.5) == ("192.0.2.1",)


async def test_aliases_in_a_circle_end(server: tuple[DnsServer, str]) -> None:
    dns, address = server
    dns.set("a.customer.test", "CNAME", ["b.customer.test."])
    dns.set("b.customer.test", "CNAME", ["a.customer.test."])
    async with asyncio.timeout(10):
        answers = await lookups.ask(("a.customer.test",), (address,), 1.0)
    assert {answer.lookup for answer in answers} <= {Lookup.BROKEN, Lookup.SERVFAIL}


async def test_the_zones_own_servers_are_found_and_do_not_follow_an_alias_out_of_it(
    server: tuple[DnsServer, str],
) -> None:
    dns, address = server
    dns.set("shop.customer.test", "A", ["192.0.2.1"], ttl=60)
    dns.set("alias.customer.test", "CNAME", ["entry.elsewhere.test."])
    dns.set("ns.customer.test", "A", ["127.0.0.1"])
    hostnames = ("www.shop.customer.test", "shop.customer.test", "alias.customer.test")
    port = int(address.rpartition(":")[2])

    async def asked(*allowed: str) -> list[tuple[str, Lookup, tuple[str, ...], int]]:
        answers = await lookups.ask_authorities(
            hostnames, (address,), 1.0, may_dial=lambda one: one in allowed, port=port
        )
        assert {(one.authoritative, one.nameserver) for one in answers} <= {(True, "ns.customer.test")}
        return [(one.hostname.partition(".")[0], one.lookup, one.addresses, one.ttl) for one in answers]

    found = await asked("127.0.0.1")
    assert found[2] == ("shop", Lookup.ANSWERED, ("192.0.2.1",), 60)
    assert [one[:3] for one in found] == [
        ("www", Lookup.NXDOMAIN, ()),
        ("www", Lookup.NXDOMAIN, ()),
        ("shop", Lookup.ANSWERED, ("192.0.2.1",)),
        ("shop", Lookup.NO_DATA, ()),
        ("alias", Lookup.ANSWERED, ()),
        ("alias", Lookup.ANSWERED, ()),
    ]
    assert await asked("192.0.2.53") == []
    dns.fault("customer.test", FaultKind.SERVFAIL, whole_zone=True)
    assert await asked("127.0.0.1") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("192.0.2.53:5353", ("192.0.2.53", 5353)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
    ],
)
def test_a_name_server_is_an_address_with_or_without_a_port(text: str, expected: tuple[str, int]) -> None:
    ((_, resolver),) = resolving.resolvers((text,), 1.0)
    (made,) = resolver.nameservers
    assert isinstance(made, Do53Nameserver)
    assert (made.address, made.port) == expected
