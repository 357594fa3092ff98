"""Where `_acme-challenge` has to lead for a solver to write it, by what was gathered."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lifecycle import findings
from lifecycle.delegation import (
    Authority,
    Delegation,
    DnsChallenge,
    DnsSolver,
    DynamicUpdates,
    delegated_name,
    delegation_verdict,
    delegation_words,
    dns_challenges,
)
from lifecycle.domain import DnsRecord
from lifecycle.routing import LONGEST_CHAIN, Lookup

RECORD = "_acme-challenge.shop.example.com"
OURS = "shop.example.com.acme.platform.net"
UPDATES = DynamicUpdates(nameserver="192.0.2.53:53", key_name="acme", secret="tsig", secret_key="key")
SOLVER = DnsSolver(provider="rfc2136", title="DNS-01 by rfc2136 192.0.2.53:53", follows=True, updates=UPDATES)
STAYS = dataclasses.replace(SOLVER, follows=False)
GOOD = Delegation(
    challenge=DnsChallenge(record=RECORD, solver=SOLVER),
    lookup=Lookup.NXDOMAIN,
    aliases=(OURS,),
    zone="acme.platform.net",
    servers=("ns1.platform.net",),
    authority=Authority.YES,
)


def by(provider: str, *, follows: bool = True, zone: str = "") -> DnsChallenge:
    return DnsChallenge(
        record=RECORD, solver=DnsSolver(provider=provider, title=f"DNS-01 by {provider}", follows=follows, zone=zone)
    )


def told(**changes: Any) -> tuple[list[str], list[str]]:
    """Codes, and the records that the customer has to set."""
    verdict = delegation_verdict([dataclasses.replace(GOOD, **changes)], "acme.platform.net")
    return [one.code for one in verdict.findings], [one.value for one in verdict.records]


STAYING = DnsChallenge(record=RECORD, solver=STAYS)
WRONG = {"zone": "example.com", "authority": Authority.NO}
NOWHERE: dict[str, Any] = {"aliases": ("x.gone.com",), "zone": "com", "authority": Authority.NO}


@pytest.mark.parametrize(
    ("changes", "codes", "records"),
    [
        ({}, [], []),
        ({"lookup": Lookup.NO_DATA}, [], []),
        # a zone of its own, delegated to us by NS
        ({"aliases": (), "zone": RECORD}, [], []),
        ({"challenge": STAYING, "aliases": (), "zone": "example.com"}, [], []),
        # a CNAME that is not followed; a wildcard's ends by itself once the record is there
        ({"challenge": STAYING}, ["CW1341"], []),
        ({"challenge": STAYING, "lookup": Lookup.SERVFAIL, "zone": ""}, ["CW1341"], []),
        ({"challenge": STAYING, "wildcard": True}, [], []),
        ({"challenge": by("webhook", follows=False)}, [], []),
        # nobody set the alias
        ({"aliases": (), **WRONG}, ["CW1343"], [f"{OURS}."]),
        ({"challenge": STAYING, "aliases": (), **WRONG}, ["CW1343"], []),
        ({"aliases": ("elsewhere.example.org",), "zone": "example.org", "authority": Authority.NO}, ["CW1343"], [OURS]),
        # caught
        ({"aliases": ("edge.platform.net",), "wildcard": True, **WRONG}, ["CW1342"], [OURS]),
        ({"aliases": ("edge.platform.net",), "wildcard": True}, [], []),
        # no end, no zone
        ({"aliases": (RECORD,), "lookup": Lookup.ANSWERED, "zone": ""}, ["CW1340"], [OURS]),
        ({"aliases": ("a.example.com", "b.example.com", "a.example.com"), "zone": ""}, ["CW1340"], [OURS]),
        ({"aliases": tuple(f"a{n}.example.com" for n in range(LONGEST_CHAIN + 1)), "zone": ""}, ["CW1340"], [OURS]),
        (NOWHERE, ["CW1345"], [OURS]),
        ({**NOWHERE, "zone": ""}, ["CW1345"], [OURS]),
        ({"aliases": ("x.duckdns.org",), "zone": "duckdns.org"}, [], []),
        ({"aliases": ("x.corp",), "zone": "corp"}, [], []),
        # unknown is never wrong
        ({"lookup": Lookup.SERVFAIL, "zone": ""}, ["CW1346"], []),
        ({"zone_lookup": Lookup.TIMEOUT, "zone": ""}, ["CW1346"], []),
        ({"authority": Authority.UNKNOWN}, ["CW1346"], []),
        ({"lookup": Lookup.BOGUS, "zone": ""}, ["CW1106"], []),
        ({"zone_lookup": Lookup.BOGUS, "zone": ""}, ["CW1106"], []),
        # other providers
        ({"challenge": by("cloudflare"), "servers": ("ada.ns.cloudflare.com", "bob.ns.cloudflare.com")}, [], []),
        ({"challenge": by("cloudflare"), "servers": ("ns1.other.net",)}, ["CW1344"], []),
        ({"challenge": by("route53"), "servers": ("ns-1.awsdns-01.co.uk",)}, [], []),
        ({"challenge": by("cloudflare"), "servers": ()}, [], []),
        ({"challenge": by("webhook"), "servers": ("ns1.other.net",)}, [], []),
        ({"challenge": by("azureDNS", zone="platform.net"), "servers": ()}, [], []),
        ({"challenge": by("azureDNS", zone="latform.net"), "servers": ()}, ["CW1343"], [f"{OURS}."]),
        # acme-dns is reached by an alias only, whatever the strategy
        ({"challenge": by("acmeDNS", follows=False)}, [], []),
        ({"challenge": by("acmeDNS", follows=False), "aliases": ()}, ["CW1343"], []),
        ({"values": 4}, [], []),
        ({"values": 5}, ["CW1349"], []),
    ],
)
def test_what_stands_against_a_record(changes: dict[str, Any], codes: list[str], records: list[str]) -> None:
    assert (codes, [f"{one.rstrip('.')}." for one in records]) == told(**changes)


def test_the_fix_is_the_exact_record_where_our_zone_is_known() -> None:
    wrong = dataclasses.replace(GOOD, aliases=(), zone="example.com", authority=Authority.NO)
    verdict = delegation_verdict([wrong], "acme.platform.net")
    assert verdict.records == (DnsRecord(name=RECORD, type="CNAME", value=f"{OURS}."),)
    assert verdict.findings[0].fix.startswith(f"Set {RECORD} CNAME {OURS}.")
    assert "a name in a zone of 192.0.2.53:53" in delegation_verdict([wrong]).findings[0].fix
    staying = dataclasses.replace(wrong, challenge=STAYING)
    assert "cname_strategy: follow" in delegation_verdict([staying], "acme.platform.net").findings[0].fix
    dangling = dataclasses.replace(GOOD, **NOWHERE)
    assert "Whoever registers gone.com" in delegation_verdict([dangling]).findings[0].problem


def test_a_name_in_our_zone_is_one_for_each_hostname_and_never_too_long() -> None:
    assert delegated_name(RECORD, "acme.platform.net") == OURS
    assert delegated_name(RECORD, "") == ""
    long = "_acme-challenge." + ".".join(["a" * 60] * 4)
    made = delegated_name(long, "acme.platform.net")
    assert made.endswith(".acme.platform.net")
    assert len(made) < 60
    assert made != delegated_name(long[:-1], "acme.platform.net")


def test_what_one_resolver_tells_to_be_wrong_weighs_more_than_what_another_does_not_know() -> None:
    silent = dataclasses.replace(GOOD, lookup=Lookup.TIMEOUT, zone="", nameserver="192.0.2.1")
    wrong = dataclasses.replace(GOOD, nameserver="192.0.2.2", authority=Authority.NO)
    assert [one.code for one in delegation_verdict([silent, wrong, GOOD]).findings] == ["CW1343"]
    assert delegation_verdict([silent, wrong, GOOD]).writable == ()
    assert [one.code for one in delegation_verdict([silent, GOOD]).findings] == ["CW1346"]
    assert delegation_verdict([silent, GOOD]).writable == (GOOD,)


def test_records_are_those_of_names_that_a_dns_solver_proves() -> None:
    solvers: list[dict[str, Any]] = [
        {"http01": {"ingress": {}}},
        {
            "dns01": {
                "cnameStrategy": "Follow",
                "rfc2136": {
                    "nameserver": "ns1.example.net",
                    "tsigKeyName": "acme",
                    "tsigSecretSecretRef": {"name": "tsig", "key": "secret"},
                    "protocol": "TCP",
                },
            },
            "selector": {"dnsZones": ["example.com"]},
        },
    ]
    made = dns_challenges(("example.org", "*.shop.example.com", "shop.example.com", "*.example.org"), solvers)
    assert [one.record for one in made] == [RECORD], "a wildcard and its apex share one"
    assert made[0].solver.follows
    assert made[0].solver.updates == DynamicUpdates(
        nameserver="ns1.example.net", key_name="acme", secret="tsig", secret_key="secret", tcp=True
    )
    azure = {"dns01": {"azureDNS": {"hostedZoneName": "Platform.net."}}}
    assert dns_challenges(("example.com",), [azure])[0].solver.zone == "platform.net"
    assert dns_challenges((), solvers) == ()


def test_the_way_is_one_line() -> None:
    assert delegation_words(GOOD) == f"{RECORD} → {OURS}, zone acme.platform.net"
    failed = dataclasses.replace(GOOD, aliases=(), zone="", lookup=Lookup.SERVFAIL)
    assert delegation_words(failed) == f"{RECORD}, servfail"


def test_severities_let_only_what_is_known_to_be_wrong_stop_an_order() -> None:
    stopping = {kind.code for kind in findings.catalogue() if "CW1340" <= kind.code <= "CW1349"} - {
        "CW1344",
        "CW1346",
        "CW1348",
        "CW1349",
    }
    assert stopping == {
        kind.code
        for kind in findings.catalogue()
        if "CW1340" <= kind.code <= "CW1349" and kind.severity is findings.Severity.ERROR
    }
