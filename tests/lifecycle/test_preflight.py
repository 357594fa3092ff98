"""An order is made only where every name points here and nothing stands against it; each obstacle is told."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from lifecycle import findings, manifests, names
from lifecycle.caa import CaaClimb, CaaLevel, CaaRecord
from lifecycle.delegation import Authority, Delegation, dns_challenges
from lifecycle.domain import (
    CertificateSpec,
    DnsRecord,
    IssuerKind,
    IssuerRef,
    KeyAlgorithm,
    OnboardingRequest,
    Route,
    RoutingStatus,
)
from lifecycle.foresight import Foresight, acme_of
from lifecycle.platform import Permission
from lifecycle.preflight import PreflightEvidence, preflight_report, without_quota
from lifecycle.routing import DnsAnswer, Lookup
from lifecycle.scratch_record import ScratchRecord, Writing
from lifecycle.steps import PreflightReport

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
NAME = "shop.example.com"
REQUEST = OnboardingRequest(
    tenant="acme",
    hostnames=(NAME,),
    issuer=IssuerRef(name="le"),
    routes=(Route(prefix="/", service="frontend", port=80),),
)
ISSUER: dict[str, Any] = {
    "metadata": {"name": "le", "generation": 1},
    "status": {"conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}]},
}
GOOD = PreflightEvidence(
    answers=(DnsAnswer(hostname=NAME, lookup=Lookup.ANSWERED, addresses=("203.0.113.7",)),),
    gateway_addresses=("203.0.113.7",),
    issuer=ISSUER,
)


def report(request: OnboardingRequest = REQUEST, **changes: Any) -> tuple[bool, list[str]]:
    made = preflight_report(request, dataclasses.replace(GOOD, **changes), cname_target="", now=NOW)
    return made.may_proceed, [finding.code for finding in made.findings]


FOREIGN_SECRET = {"metadata": {"name": names.secret_name(NAME), "namespace": "istio-system"}}
FOREIGN_GATEWAY = {"kind": "Gateway", "metadata": {"name": names.gateway_name(NAME), "namespace": "istio-system"}}
OTHER_CERTIFICATE = {
    "kind": "Certificate",
    "metadata": {"name": "other", "namespace": "default"},
    "spec": {"secretName": "other", "dnsNames": [NAME]},
}
UNSEEN = findings.RESOURCE_KIND_MISSING.found(subject="Certificate", problem="It is not there.", fix="Install it.")


@pytest.mark.parametrize(
    ("changes", "may_proceed", "codes"),
    [
        ({}, True, []),
        ({"answers": (DnsAnswer(hostname=NAME, lookup=Lookup.SERVFAIL),)}, False, ["CW1104"]),
        ({"answers": (DnsAnswer(hostname=NAME, lookup=Lookup.NXDOMAIN),)}, False, ["CW1101"]),
        ({"gateway_addresses": ()}, False, ["CW1104", "CW1005"]),
        ({"issuer": None}, False, ["CW1201"]),
        ({"issuer": {"metadata": {"name": "le", "generation": 1}}}, False, ["CW1202"]),
        ({"issuer": None, "issuer_seen": False, "unseen": (UNSEEN,)}, False, ["CW1804"]),
        ({"secret": FOREIGN_SECRET}, False, ["CW1407"]),
        ({"objects": (FOREIGN_GATEWAY, None)}, False, ["CW1501"]),
        ({"objects": (manifests.gateway(REQUEST, https=False), None)}, True, []),
        ({"certificates": (OTHER_CERTIFICATE,)}, True, ["CW1502"]),
        ({"denied": (Permission("watch", "acme.cert-manager.io", "challenges"),)}, False, ["CW1801"]),
        ({"unseen": (UNSEEN, UNSEEN)}, False, ["CW1804"]),
        ({"stage": IssuerRef(name="le-staging"), "stage_issuer": ISSUER}, True, []),
        ({"stage": IssuerRef(name="le-staging")}, False, ["CW1260"]),
    ],
)
def test_what_stands_against_an_order(changes: dict[str, Any], may_proceed: bool, codes: list[str]) -> None:
    assert report(**changes) == (may_proceed, codes)


def test_an_issuer_of_another_namespace_cannot_sign() -> None:
    elsewhere = IssuerRef(name="le", kind=IssuerKind.ISSUER, namespace="default")
    assert report(dataclasses.replace(REQUEST, issuer=elsewhere)) == (False, ["CW1201"])
    beside = IssuerRef(name="le", kind=IssuerKind.ISSUER, namespace="istio-system")
    assert report(dataclasses.replace(REQUEST, issuer=beside)) == (True, [])


HTTP_ONLY = {**ISSUER, "spec": {"acme": {"solvers": [{"http01": {"ingress": {}}}]}}}
BY_DNS = {
    **ISSUER,
    "spec": {"acme": {"solvers": [{"dns01": {"rfc2136": {}}, "selector": {"dnsZones": ["example.com"]}}]}},
}


@pytest.mark.parametrize(
    ("issuer", "hostname", "expected"),
    [
        (HTTP_ONLY, "shop.example.com", (True, [])),
        (HTTP_ONLY, "*.example.com", (False, ["CW1307"])),
        (BY_DNS, "*.example.com", (True, [])),
        (BY_DNS, "shop.example.org", (False, ["CW1307"])),
        ({**ISSUER, "spec": {"ca": {"secretName": "root"}}}, "*.example.org", (True, [])),
        ({**HTTP_ONLY, "status": {}}, "*.example.com", (False, ["CW1202", "CW1307"])),
    ],
)
def test_a_name_that_no_solver_proves_is_not_ordered(
    issuer: dict[str, Any], hostname: str, expected: tuple[bool, list[str]]
) -> None:
    answers = (DnsAnswer(hostname=hostname, lookup=Lookup.ANSWERED, addresses=("203.0.113.7",)),)
    assert expected == report(dataclasses.replace(REQUEST, hostnames=(hostname,)), issuer=issuer, answers=answers)


def test_evidence_is_few_lines_however_many_names() -> None:
    hostnames = tuple(f"{number}.example.com" for number in range(100))
    answers = tuple(DnsAnswer(hostname=name, lookup=Lookup.ANSWERED, addresses=("203.0.113.7",)) for name in hostnames)
    made = preflight_report(
        dataclasses.replace(REQUEST, hostnames=hostnames),
        dataclasses.replace(GOOD, answers=answers),
        cname_target="",
        now=NOW,
    )
    assert made.routing is RoutingStatus.POINTED
    assert [line.step for line in made.evidence] == ["DNS", "Service istio-system/istio-ingressgateway"]
    assert "96 more" in made.evidence[0].detail
    assert all(len(line.detail) <= 300 for line in made.evidence)


def test_what_its_issuer_would_refuse_is_not_ordered() -> None:
    """The door has looked too; but the issuer may be another since then, and the day too."""
    solver = {"http01": {"ingress": {"ingressClassName": "certwright-none"}}}
    server = "https://acme-v02.api.letsencrypt.org/directory"
    public = {**ISSUER, "spec": {"acme": {"server": server, "solvers": [solver]}}}
    wanted = dataclasses.replace(REQUEST, certificate=CertificateSpec(key_algorithm=KeyAlgorithm.ED25519))
    assert report(wanted) == (True, [])
    assert report(wanted, issuer=public) == (False, ["CW1330"])
    assert report(wanted, issuer=None, issuer_seen=False) == (True, [])


def test_caa_records_are_asked_for_together_with_the_addresses() -> None:
    issuer = {**ISSUER, "spec": {"acme": {"server": "https://acme-v02.api.letsencrypt.org/directory"}}}
    record = CaaRecord(flags=0, tag="issue", value="pki.example")
    climb = CaaClimb(hostname=NAME, levels=(CaaLevel(name=NAME, lookup=Lookup.ANSWERED, records=(record,)),))
    ahead = Foresight(acme=acme_of(REQUEST, issuer), climbs=(climb,))
    wanted = DnsRecord(name=NAME, type="CAA", value='0 issue "letsencrypt.org"')
    made = preflight_report(REQUEST, dataclasses.replace(GOOD, ahead=ahead), cname_target="", now=NOW)
    assert (made.may_proceed, [one.code for one in made.findings]) == (False, ["CW1305"])
    assert made.action_required is not None
    assert made.action_required.records == (wanted,)
    missing = (DnsAnswer(hostname=NAME, lookup=Lookup.NXDOMAIN),)
    made = preflight_report(REQUEST, dataclasses.replace(GOOD, ahead=ahead, answers=missing), cname_target="", now=NOW)
    assert made.action_required is not None
    assert made.action_required.records == (DnsRecord(name=NAME, type="A", value="203.0.113.7"), wanted)
    assert "beside those that are there" in made.action_required.summary


def test_the_record_of_dns_01_is_in_the_evidence_and_what_to_set_is_told_beside_the_other_records() -> None:
    solver = {"dns01": {"cnameStrategy": "Follow", "rfc2136": {"nameserver": "192.0.2.53"}}}
    issuer = {
        **ISSUER,
        "spec": {"acme": {"server": "https://acme-v02.api.letsencrypt.org/directory", "solvers": [solver]}},
    }
    (challenge,) = dns_challenges((NAME,), [solver])
    ours = Delegation(challenge=challenge, lookup=Lookup.NXDOMAIN, zone="example.com", authority=Authority.YES)
    foreign = dataclasses.replace(ours, authority=Authority.NO)
    trial = ScratchRecord(delegation=ours, ending=Writing.NOT_TRIED, detail="Secret cm/tsig may not be read here")
    climb = CaaClimb(
        hostname=NAME,
        levels=(
            CaaLevel(
                name=NAME, lookup=Lookup.ANSWERED, records=(CaaRecord(flags=0, tag="issue", value="pki.example"),)
            ),
        ),
    )

    def made(**ahead: Any) -> PreflightReport:
        seen = Foresight(acme=acme_of(REQUEST, issuer), **ahead)
        evidence = dataclasses.replace(GOOD, issuer=issuer, ahead=seen)
        return preflight_report(REQUEST, evidence, cname_target="", now=NOW, delegation_zone="acme.example.net")

    good = made(delegations=(ours,), scratch=(trial,))
    assert good.may_proceed
    assert [one.detail for one in good.evidence][-2:] == [
        f"_acme-challenge.{NAME}, zone example.com",
        "writing not tried: Secret cm/tsig may not be read here",
    ]
    wrong = made(delegations=(foreign,), climbs=(climb,))
    assert not wrong.may_proceed
    assert wrong.action_required is not None
    assert [one.type for one in wrong.action_required.records] == ["CNAME", "CAA"]
    assert wrong.action_required.records[0].value == f"{NAME}.acme.example.net."
    unknown = dataclasses.replace(ours, lookup=Lookup.SERVFAIL, zone="")
    silent = (DnsAnswer(hostname=NAME, lookup=Lookup.SERVFAIL),)
    said_once = preflight_report(
        REQUEST,
        dataclasses.replace(
            GOOD, issuer=issuer, answers=silent, ahead=Foresight(acme=acme_of(REQUEST, issuer), delegations=(unknown,))
        ),
        cname_target="",
        now=NOW,
    )
    assert [one.code for one in said_once.findings] == ["CW1104"]


def test_a_used_up_limit_is_the_quotas_to_judge_where_it_is_asked() -> None:
    used_up = findings.QUOTA_USED_UP.found(subject=NAME, problem="It is used up.", fix="Wait.")
    made = preflight_report(REQUEST, GOOD, cname_target="", now=NOW)
    alone = dataclasses.replace(made, may_proceed=False, findings=(used_up,))
    assert without_quota(alone) == made
    beside = dataclasses.replace(alone, findings=(used_up, UNSEEN))
    assert (without_quota(beside).may_proceed, without_quota(beside).findings) == (False, (UNSEEN,))
    elsewhere = dataclasses.replace(alone, routing=RoutingStatus.ELSEWHERE)
    assert not without_quota(elsewhere).may_proceed
