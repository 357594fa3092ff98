"""What an issuer would refuse is refused before it is asked, on the day that it does, with where that is written."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle import acceptance
from lifecycle.acceptance import IssuerTraits
from lifecycle.domain import IssuerRef, OnboardingRequest, Rehearsal
from lifecycle.issuers import IssuerType
from lifecycle.requests import parse_onboarding
from lifecycle.steps import IssuerStatus
from tests.lifecycle import certificate_shapes

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SERVER = "https://acme-v02.api.letsencrypt.org/directory"
LE = IssuerTraits(name="le", type=IssuerType.ACME, server=SERVER)
SHORT = dataclasses.replace(LE, profile="shortlived")
TLS_SERVER = dataclasses.replace(LE, profile="tlsserver")
ZERO = IssuerTraits(name="zero", type=IssuerType.ACME, server="https://acme.zerossl.com/v2/DV90")
OWN_ACME = IssuerTraits(name="step", type=IssuerType.ACME, server="https://ca.corp.example/acme/directory")
CA = IssuerTraits(name="ca", type=IssuerType.CA)
UNKNOWN = IssuerTraits(name="new", type=None)

PLAIN = ["digital signature", "server auth"]


def asked(certificate: dict[str, Any] | None = None, names: int = 1) -> OnboardingRequest:
    document = {"hostnames": [f"n{number}.example.com" for number in range(names)], "certificate": certificate or {}}
    parsed = parse_onboarding(document, tenant="acme", defaults=certificate_shapes.DEFAULTS)
    assert isinstance(parsed, OnboardingRequest), parsed
    return parsed


def codes(request: OnboardingRequest, issuer: IssuerTraits, now: datetime = NOW) -> list[str]:
    return [one.code for one in acceptance.field_errors(request, issuer, now)]


DAYS = 86400

REFUSED: list[tuple[dict[str, Any], int, IssuerTraits, list[str], str]] = [
    ({"key_algorithm": "Ed25519"}, 1, LE, ["CW1330"], "section 6.1.5"),
    ({"key_algorithm": "Ed25519"}, 1, ZERO, ["CW1330"], "section 6.1.5"),
    ({"key_size": 521}, 1, LE, ["CW1330"], "Integration Guide"),
    ({}, 26, TLS_SERVER, ["CW1331"], "26 names, more than the 25 of profile tlsserver"),
    ({}, 26, SHORT, ["CW1331"], '"Profiles"'),
    ({"usages": [*PLAIN, "client auth"]}, 1, LE, ["CW1332"], "since 2026-07-08"),
    ({"usages": [*PLAIN, "code signing", "any"]}, 1, ZERO, ["CW1332", "CW1332"], "section 7.1.2.7"),
    ({"duration_seconds": 201 * DAYS}, 1, ZERO, ["CW1333"], "200 days"),
    ({"duration_seconds": 91 * DAYS}, 1, LE, ["CW1333"], "90 days"),
    ({"duration_seconds": 46 * DAYS}, 1, TLS_SERVER, ["CW1333"], "45 days"),
    ({"duration_seconds": 7 * DAYS}, 1, SHORT, ["CW1333"], "160 hours"),
    ({"renew_before_seconds": 30 * DAYS}, 1, SHORT, ["CW1333"], "cert-manager ignores it"),
    ({"ip_addresses": ["192.0.2.7"]}, 1, LE, ["CW1334"], "RFC 8738"),
    ({"uris": ["spiffe://example.com/a"]}, 1, OWN_ACME, ["CW1334"], "RFC 8555, section 9.7.7"),
    ({"common_name": "Shop"}, 1, OWN_ACME, ["CW1335"], "section 7.1.4.3"),
    ({"subject": {"organizations": ["Shop Ltd"]}}, 1, LE, ["CW1335"], "section 7.1.2.7.2"),
]


@pytest.mark.parametrize(("certificate", "names", "issuer", "expected", "words"), REFUSED)
def test_what_would_be_refused_is_told_with_its_source(
    certificate: dict[str, Any], names: int, issuer: IssuerTraits, expected: list[str], words: str
) -> None:
    request = asked(certificate, names)
    assert acceptance.depends_on_issuer(request)
    found = acceptance.refusals(request, issuer, NOW)
    assert expected == [one.kind.code for one in found]
    assert words in " ".join(one.problem for one in found)
    assert all(one.fix and len(one.problem) < 250 for one in found)


@pytest.mark.parametrize(
    ("certificate", "names", "issuer"),
    [
        ({}, 1, LE),
        ({}, 100, LE),
        ({}, 25, TLS_SERVER),
        ({"key_size": 384}, 25, SHORT),
        ({"key_size": 521}, 1, CA),
        ({"key_algorithm": "Ed25519"}, 1, CA),
        ({"key_size": 521}, 1, OWN_ACME),
        *(({"key_algorithm": "RSA", "key_size": size}, 1, LE) for size in (2048, 3072, 4096)),
        ({"usages": [*PLAIN, "client auth"]}, 1, CA),
        ({"usages": [*PLAIN, "client auth"]}, 1, ZERO),
        ({"duration_seconds": 90 * DAYS}, 1, LE),
        ({"duration_seconds": 200 * DAYS}, 1, ZERO),
        ({"duration_seconds": 900 * DAYS}, 1, OWN_ACME),
        ({"duration_seconds": 900 * DAYS, "renew_before_percentage": 10}, 1, CA),
        ({"ip_addresses": ["192.0.2.7"], "uris": ["spiffe://example.com/a"]}, 1, CA),
        ({"common_name": "N0.example.com"}, 1, LE),
        ({"common_name": "Shop", "subject": {"organizations": ["Shop Ltd"]}}, 1, CA),
        ({"subject": {"organizations": ["Shop Ltd"]}}, 1, OWN_ACME),
        ({"key_size": 521}, 100, UNKNOWN),
        ({}, 100, dataclasses.replace(LE, profile="of-tomorrow")),
        ({}, 100, dataclasses.replace(LE, server="https://letsencrypt.org.evil.example/")),
        ({}, 100, dataclasses.replace(LE, server="https://[", profile="tlsserver")),
    ],
)
def test_what_would_be_signed_is_not_refused(certificate: dict[str, Any], names: int, issuer: IssuerTraits) -> None:
    assert codes(asked(certificate, names), issuer) == []


def test_client_authentication_ended_on_its_day() -> None:
    request = asked({"usages": [*PLAIN, "client auth"]})
    ended = datetime(2026, 7, 8, tzinfo=UTC)
    assert codes(request, LE, ended - timedelta(seconds=1)) == []
    assert codes(request, LE, ended) == ["CW1332"]


@pytest.mark.parametrize(
    ("day", "public", "classic"),
    [
        ("2026-01-01", 398, 90),
        ("2026-03-15", 200, 90),
        ("2027-02-09", 200, 90),
        ("2027-02-10", 200, 64),
        ("2027-03-15", 100, 64),
        ("2028-02-16", 100, 45),
        ("2029-03-14", 100, 45),
        ("2029-03-15", 47, 45),
    ],
)
def test_the_longest_life_is_by_the_calendar(day: str, public: int, classic: int) -> None:
    now = datetime.fromisoformat(day).replace(tzinfo=UTC)
    assert acceptance.public_maximum(now) == timedelta(days=public)
    assert acceptance.profile_life(LE, now) == timedelta(days=classic)
    assert codes(asked({"duration_seconds": classic * DAYS}), LE, now) == []
    assert codes(asked({"duration_seconds": classic * DAYS + 1}), LE, now) == ["CW1333"]
    assert codes(asked({"duration_seconds": public * DAYS + 1}), ZERO, now) == ["CW1333"]


def test_a_plain_request_for_few_names_depends_on_no_issuer() -> None:
    assert not acceptance.depends_on_issuer(asked())
    assert not acceptance.depends_on_issuer(asked(names=25))
    assert acceptance.depends_on_issuer(asked(names=26))


def test_what_is_to_be_rehearsed_needs_an_issuer_that_says_where() -> None:
    request = dataclasses.replace(asked(), rehearsal=Rehearsal.ALWAYS)
    assert acceptance.depends_on_issuer(request)
    assert codes(request, LE) == ["CW1260"]
    assert codes(request, dataclasses.replace(LE, rehearses=True)) == []
    assert codes(dataclasses.replace(request, rehearsal=Rehearsal.FIRST), LE) == []


@pytest.mark.parametrize(("said", "rehearses"), [("", False), ("none", False), ("ClusterIssuer/le-staging", True)])
def test_where_an_issuer_is_rehearsed_is_read_alike_too(said: str, rehearses: bool) -> None:
    metadata = {"name": "le", "annotations": {"certwright.dev/rehearsal-issuer": said}}
    status = IssuerStatus(ref=IssuerRef(name="le"), step="inspect", ready=True, type="", rehearsal=said)
    assert acceptance.traits_in({"metadata": metadata}).rehearses is rehearses
    assert acceptance.traits_of(status).rehearses is rehearses


def test_an_issuer_is_read_alike_from_its_document_and_from_what_a_worker_saw() -> None:
    document = {"metadata": {"name": "le"}, "spec": {"acme": {"server": SERVER, "profile": "shortlived"}}}
    status = IssuerStatus(
        ref=IssuerRef(name="le"), step="inspect", ready=True, type="acme", server=SERVER, profile="shortlived"
    )
    assert acceptance.traits_in(document) == acceptance.traits_of(status) == SHORT


def test_a_domain_is_told_the_same_as_a_finding() -> None:
    document = {"metadata": {"name": "le"}, "spec": {"acme": {"server": SERVER, "profile": "tlsserver"}}}
    (found,) = acceptance.acceptance_findings(asked(names=26), document, NOW)
    assert (found.code, found.title, found.subject) == ("CW1331", "TooManyNames", "n0.example.com")
    assert found.problem.startswith("hostnames has 26 names")
    assert acceptance.acceptance_findings(asked(names=26), None, NOW) == ()
