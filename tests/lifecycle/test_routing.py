"""A name points here when all its addresses are ours; what could not be asked is unknown, never wrong."""

from __future__ import annotations

import pytest

from lifecycle.domain import DnsRecord, RoutingStatus
from lifecycle.routing import DnsAnswer, Lookup, routing_verdict

GATEWAY = ("203.0.113.7", "2001:db8::7")
NAME = "shop.example.com"


def answer(
    *addresses: str, lookup: Lookup = Lookup.ANSWERED, name: str = NAME, cname: str = "", server: str = "", ttl: int = 0
) -> DnsAnswer:
    return DnsAnswer(
        hostname=name,
        lookup=lookup,
        addresses=addresses,
        cnames=(cname,) if cname else (),
        nameserver=server,
        authoritative=server.startswith("ns"),
        ttl=ttl,
    )


NXDOMAIN = answer(lookup=Lookup.NXDOMAIN)
NO_DATA = answer(lookup=Lookup.NO_DATA)
SERVFAIL = answer(lookup=Lookup.SERVFAIL)
TIMEOUT = answer(lookup=Lookup.TIMEOUT)


@pytest.mark.parametrize(
    ("answers", "status", "code"),
    [
        ((answer("203.0.113.7"), answer("2001:DB8:0::7")), RoutingStatus.POINTED, ""),
        ((answer("203.0.113.7"), NO_DATA), RoutingStatus.POINTED, ""),
        ((answer("203.0.113.7"), answer("2001:db8::9")), RoutingStatus.PARTLY, "CW1103"),
        ((answer("203.0.113.7", "198.51.100.1"),), RoutingStatus.PARTLY, "CW1103"),
        ((answer("198.51.100.1"), NO_DATA), RoutingStatus.ELSEWHERE, "CW1102"),
        ((NXDOMAIN, NXDOMAIN), RoutingStatus.MISSING, "CW1101"),
        ((NO_DATA, NO_DATA), RoutingStatus.MISSING, "CW1101"),
        ((SERVFAIL, TIMEOUT), RoutingStatus.UNKNOWN, "CW1104"),
        ((answer("203.0.113.7"), SERVFAIL), RoutingStatus.UNKNOWN, "CW1104"),
        ((NO_DATA, TIMEOUT), RoutingStatus.UNKNOWN, "CW1104"),
        ((answer("198.51.100.1"), TIMEOUT), RoutingStatus.ELSEWHERE, "CW1102"),
        ((answer("203.0.113.7"), answer("198.51.100.1"), SERVFAIL), RoutingStatus.PARTLY, "CW1103"),
    ],
)
def test_one_name(answers: tuple[DnsAnswer, ...], status: RoutingStatus, code: str) -> None:
    verdict = routing_verdict(answers, GATEWAY)
    assert status is verdict.status
    assert code == "".join(finding.code for finding in verdict.findings)
    assert (verdict.action_required is None) is (status in {RoutingStatus.POINTED, RoutingStatus.UNKNOWN})


@pytest.mark.parametrize(
    ("other", "status"),
    [
        (answer("203.0.113.7", name="www"), RoutingStatus.POINTED),
        (answer("198.51.100.1", name="www"), RoutingStatus.PARTLY),
        (answer(name="www", lookup=Lookup.NXDOMAIN), RoutingStatus.PARTLY),
        (answer(name="www", lookup=Lookup.TIMEOUT), RoutingStatus.UNKNOWN),
    ],
)
def test_several_names_together(other: DnsAnswer, status: RoutingStatus) -> None:
    assert status is routing_verdict((answer("203.0.113.7"), other), GATEWAY).status


def test_the_exact_records_are_named() -> None:
    action = routing_verdict((NXDOMAIN,), GATEWAY).action_required
    assert action is not None
    assert action.records == (
        DnsRecord(name=NAME, type="A", value="203.0.113.7"),
        DnsRecord(name=NAME, type="AAAA", value="2001:db8::7"),
    )


def test_an_alias_is_asked_for_where_there_is_a_name_for_it_but_not_at_an_apex() -> None:
    apex = answer(name="example.com", lookup=Lookup.NXDOMAIN)
    action = routing_verdict((NXDOMAIN, apex), ("203.0.113.7",), "edge.certwright.example").action_required
    assert action is not None
    assert action.records == (
        DnsRecord(name=NAME, type="CNAME", value="edge.certwright.example."),
        DnsRecord(name="example.com", type="A", value="203.0.113.7"),
    )


def test_an_alias_to_our_own_name_points_here_whatever_lies_behind_it() -> None:
    followed = answer("192.0.2.80", cname="Edge.certwright.example.")
    assert routing_verdict((followed,), (), "edge.certwright.example").status is RoutingStatus.POINTED


def test_without_a_gateway_address_nothing_is_said_to_be_wrong() -> None:
    verdict = routing_verdict((answer("203.0.113.7"),), ())
    assert (verdict.status, verdict.action_required) == (RoutingStatus.UNKNOWN, None)


def test_no_answers_are_unknown() -> None:
    assert routing_verdict((), GATEWAY).status is RoutingStatus.UNKNOWN


OURS, FORMER = "203.0.113.7", "198.51.100.1"
RIGHT, WRONG = answer(OURS, server="192.0.2.53"), answer(FORMER, server="192.0.2.54", ttl=300)
ZONE_RIGHT, ZONE_WRONG = answer(OURS, server="ns1"), answer(FORMER, server="ns2")
ZONE_GONE = answer(lookup=Lookup.NXDOMAIN, server="ns1")
ZONE_SILENT = answer(lookup=Lookup.TIMEOUT, server="ns1")


@pytest.mark.parametrize(
    ("answers", "status", "code", "told"),
    [
        ((RIGHT, ZONE_RIGHT), RoutingStatus.POINTED, "", False),
        ((RIGHT, ZONE_SILENT), RoutingStatus.POINTED, "", False),
        ((RIGHT, WRONG), RoutingStatus.PARTLY, "CW1105", False),
        ((RIGHT, answer(lookup=Lookup.NXDOMAIN, server="192.0.2.54")), RoutingStatus.PARTLY, "CW1105", False),
        ((RIGHT, answer(lookup=Lookup.NO_DATA, server="ns1"), ZONE_SILENT), RoutingStatus.POINTED, "", False),
        ((RIGHT, SERVFAIL, ZONE_RIGHT), RoutingStatus.UNKNOWN, "CW1104", False),
        ((RIGHT, WRONG, ZONE_RIGHT), RoutingStatus.PARTLY, "CW1105", False),
        ((NXDOMAIN, ZONE_RIGHT), RoutingStatus.PARTLY, "CW1105", False),
        ((RIGHT, ZONE_RIGHT, ZONE_WRONG), RoutingStatus.PARTLY, "CW1105", False),
        ((RIGHT, ZONE_WRONG), RoutingStatus.ELSEWHERE, "CW1102", True),
        ((RIGHT, ZONE_GONE), RoutingStatus.MISSING, "CW1101", True),
        ((SERVFAIL, ZONE_RIGHT), RoutingStatus.UNKNOWN, "CW1104", False),
        ((answer(lookup=Lookup.BOGUS), ZONE_RIGHT), RoutingStatus.UNKNOWN, "CW1106", False),
        ((WRONG, ZONE_SILENT), RoutingStatus.ELSEWHERE, "CW1102", True),
    ],
)
def test_what_the_zone_says_goes_before_what_resolvers_remember(
    answers: tuple[DnsAnswer, ...], status: RoutingStatus, code: str, told: bool
) -> None:
    verdict = routing_verdict(answers, GATEWAY)
    assert (status, code) == (verdict.status, "".join(finding.code for finding in verdict.findings))
    assert told is (verdict.action_required is not None)


def test_a_change_under_way_names_who_is_behind_and_for_how_long() -> None:
    (finding,) = routing_verdict((RIGHT, WRONG, ZONE_RIGHT), GATEWAY).findings
    assert "192.0.2.54 answers 198.51.100.1" in finding.problem
    assert "within 300 s" in finding.fix


def test_the_zones_servers_do_not_follow_an_alias_out_of_it() -> None:
    target = "edge.certwright.example"
    to_us = answer(cname=f"{target}.", server="ns1")
    resolved = answer("192.0.2.80", cname=f"{target}.")
    assert routing_verdict((resolved, to_us), GATEWAY, target).status is RoutingStatus.POINTED
    elsewhere = answer(cname="other.example.net.", server="ns1")
    assert (
        routing_verdict((answer(OURS, cname="other.example.net."), elsewhere), GATEWAY).status is RoutingStatus.POINTED
    )


def test_a_proxied_name_is_told_from_a_flattened_alias() -> None:
    (finding,) = routing_verdict((answer("104.16.1.1", "172.67.1.1"),), GATEWAY).findings
    assert finding.code == "CW1107"
    assert "which is Cloudflare" in finding.problem
    flattened = answer(OURS, name="example.com")  # the provider answers with the target's own addresses
    assert routing_verdict((flattened,), GATEWAY, "edge.certwright.example").status is RoutingStatus.POINTED
    mixed = routing_verdict((answer("104.16.1.1", FORMER),), GATEWAY).findings
    assert [one.code for one in mixed] == ["CW1102"]


def test_a_stray_record_is_named_with_its_type() -> None:
    (finding,) = routing_verdict((answer(OURS), answer("2001:db8::9")), GATEWAY).findings
    assert finding.fix.startswith("Remove the AAAA record 2001:db8::9.")
