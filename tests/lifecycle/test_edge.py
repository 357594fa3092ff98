"""What one address did is judged in the order in which a client meets it, and the fix can be pasted."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from lifecycle.domain import DEFAULT_TLS, CertificateFacts, OnboardingRequest, TlsMode, TlsSettings, TlsVersion
from lifecycle.edge import EdgeEvidence, Met, RouteAnswer, Trial, may_dial, route_answer, served, trials, works
from tests.lifecycle.gateway_shapes import PLAIN

NAME, ADDRESS = "shop.example.com", "203.0.113.7"
LEAF = CertificateFacts(
    fingerprint="ab" * 32,
    serial="1",
    issuer="CN=ca",
    dns_names=(NAME,),
    not_before=datetime(2026, 11, 1, tzinfo=UTC),
    not_after=datetime(2027, 1, 1, tzinfo=UTC),
    public_key="ECDSA 256",
)
GOOD = EdgeEvidence(
    address=ADDRESS,
    hostname=NAME,
    leaf=LEAF,
    protocol="TLSv1.3",
    cipher="TLS_AES_128_GCM_SHA256",
    redirect_status=301,
    redirect=f"https://{NAME}/",
    routes=(RouteAnswer(prefix="/", status=200, upstream=True), RouteAnswer(prefix="/api", status=401, upstream=True)),
)


def judged(
    *, https_port: int = 443, address: str = ADDRESS, tls: TlsSettings = DEFAULT_TLS, hsts: str = "", **changes: Any
) -> tuple[str, str, str]:
    evidence = dataclasses.replace(GOOD, address=address, **changes)
    seen, finding = served(evidence, "ab" * 32, http_port=80, https_port=https_port, tls=tls, hsts=hsts)
    assert (seen.problem == "") is (finding is None)
    return (finding.code, finding.problem, finding.fix) if finding else ("", "", "")


def test_what_is_right_is_no_finding() -> None:
    seen, finding = served(GOOD, "ab" * 32, http_port=80, https_port=443)
    assert finding is None
    assert (seen.fingerprint, seen.chain_verified, seen.protocol) == ("ab" * 32, True, "TLSv1.3")
    assert seen.routes == ("/ 200", "/api 401")


def test_a_wildcard_is_asked_by_one_of_its_names() -> None:
    asked = "certwright-probe.example.com"
    assert judged(hostname="*.example.com", redirect=f"https://{asked}/") == ("", "", "")
    code, _, fix = judged(hostname="*.example.com", redirect="https://*.example.com/")
    assert (code, f"http://{asked}/" in fix) == ("CW1507", True)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"refused": True}, "CW1509", "not a public address"),
        ({"unreachable": "TimeoutError"}, "CW1503", "port 443"),
        ({"leaf": None, "handshake": "SSLError"}, "CW1504", "SSLError"),
        ({"leaf": dataclasses.replace(LEAF, fingerprint="cd" * 32)}, "CW1505", "cdcdcdcdcdcdcdcd"),
        ({"distrust": "no chain"}, "CW1506", "no chain"),
        ({"unanswered": "ReadTimeout"}, "CW1508", "ReadTimeout"),
        ({"redirect_status": 200, "redirect": ""}, "CW1507", "answers HTTP with 200,"),
        ({"redirect_status": 302}, "CW1507", "302"),
        ({"redirect": "https://other.example.com/"}, "CW1507", "other.example.com"),
        ({"redirect": f"https://{NAME}.evil.example/"}, "CW1507", "evil"),
        ({"redirect_status": 308}, "", ""),
        ({"routes": (RouteAnswer(prefix="/", status=404, upstream=False),)}, "CW1508", "/ 404 by the gateway"),
        ({"routes": (RouteAnswer(prefix="/", status=500, upstream=True),)}, "CW1508", "/ 500"),
    ],
)
def test_the_first_thing_that_is_wrong(changes: dict[str, Any], code: str, words: str) -> None:
    found, problem, fix = judged(**changes)
    assert found == code
    assert words in problem
    assert bool(fix) is bool(code)


def test_the_fix_names_the_port_and_the_address_as_they_are() -> None:
    _, _, fix = judged(https_port=8443, address="2001:db8::7", distrust="no")
    assert fix == f"openssl s_client -connect [2001:db8::7]:8443 -servername {NAME}"
    _, _, fix = judged(https_port=8443, routes=(RouteAnswer(prefix="/api", status=503, upstream=False),))
    assert fix == f"curl -si --resolve {NAME}:8443:{ADDRESS} https://{NAME}:8443/api"


@pytest.mark.parametrize(
    ("status", "headers", "working"),
    [
        (200, {"server": "istio-envoy", "x-envoy-upstream-service-time": "3"}, True),
        (404, {"server": "istio-envoy", "x-envoy-upstream-service-time": "3"}, True),
        (404, {"server": "istio-envoy"}, False),
        (404, {"server": "nginx"}, True),
        (404, {}, True),
        (503, {"server": "istio-envoy"}, False),
        (503, {"server": "istio-envoy", "x-envoy-upstream-service-time": "3"}, False),
        (403, {"server": "istio-envoy"}, True),
        (302, {"server": "istio-envoy"}, True),
        (401, {"x-envoy-upstream-service-time": "3"}, True),
    ],
)
def test_a_route_works_where_an_application_answers(status: int, headers: dict[str, str], working: bool) -> None:
    assert works(route_answer("/", status, headers)) is working


@pytest.mark.parametrize(
    ("address", "networks", "allowed"),
    [
        ("203.0.113.7", (), False),  # documentation (RFC 5737) is not public
        ("9.9.9.9", (), True),
        ("2620:fe::fe", (), True),
        ("10.0.0.1", (), False),
        ("10.0.0.1", ("10.0.0.0/8",), True),
        ("127.0.0.1", (), False),
        ("::1", (), False),
        ("169.254.169.254", (), False),
        ("::ffff:10.0.0.1", (), False),
        ("::ffff:9.9.9.9", (), True),
        ("::ffff:10.0.0.1", ("10.0.0.0/8",), True),
        ("224.0.0.1", (), False),
        ("fd00::1", ("fd00::/8", "10.0.0.0/8"), True),
    ],
)
def test_only_public_or_listed_addresses_are_dialled(address: str, networks: tuple[str, ...], allowed: bool) -> None:
    assert may_dial(address, networks) is allowed


def shape(**tls: Any) -> OnboardingRequest:
    return dataclasses.replace(PLAIN, tls=TlsSettings(**tls))


@pytest.mark.parametrize(
    ("tls", "clients"),
    [
        ({}, {"TLS 1.1": Met.REFUSED}),
        ({"min_protocol": TlsVersion.TLSV1_3}, {"TLS 1.2": Met.REFUSED}),
        ({"max_protocol": TlsVersion.TLSV1_2}, {"TLS 1.1": Met.REFUSED, "TLS 1.3 only": Met.REFUSED}),
        (
            {"ciphers": ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384")},
            {
                "TLS 1.1": Met.REFUSED,
                "TLS 1.2 with ECDHE-ECDSA-AES256-GCM-SHA384": Met.ACCEPTED,
                "TLS 1.2 with other ciphers": Met.REFUSED,
            },
        ),
        (
            {"mode": TlsMode.MUTUAL},
            {
                "TLS 1.1": Met.REFUSED,
                "without a certificate": Met.REFUSED,
                "with a stranger's certificate": Met.REFUSED,
            },
        ),
        (
            {"mode": TlsMode.OPTIONAL_MUTUAL},
            {
                "TLS 1.1": Met.REFUSED,
                "without a certificate": Met.ACCEPTED,
                "with a stranger's certificate": Met.REFUSED,
            },
        ),
        ({"mode": TlsMode.PASSTHROUGH}, {}),
    ],
)
def test_clients_are_tried_that_must_be_refused_or_taken(tls: dict[str, Any], clients: dict[str, Met]) -> None:
    assert {one.client: one.wanted for one in trials(shape(**tls))} == clients


def test_a_client_with_other_ciphers_offers_none_of_the_allowed() -> None:
    allowed = ("ECDHE-ECDSA-AES256-GCM-SHA384",)
    (other,) = [one for one in trials(shape(ciphers=allowed)) if one.client == "TLS 1.2 with other ciphers"]
    assert not set(other.ciphers) & set(allowed)
    assert "ECDHE-ECDSA-AES128-GCM-SHA256" in other.ciphers  # of the same key: it is the list that must refuse it


@pytest.mark.parametrize(
    ("wanted", "met", "code"),
    [
        (Met.REFUSED, Met.REFUSED, ""),
        (Met.REFUSED, Met.UNTRIED, ""),
        (Met.REFUSED, Met.ACCEPTED, "CW1513"),
        (Met.ACCEPTED, Met.ACCEPTED, ""),
        (Met.ACCEPTED, Met.REFUSED, "CW1514"),
        (Met.UNTRIED, Met.ACCEPTED, ""),
        (Met.UNTRIED, Met.REFUSED, ""),
    ],
)
def test_a_trial_that_ends_otherwise_is_told(wanted: Met, met: Met, code: str) -> None:
    found, problem, _ = judged(trials=(Trial(client="TLS 1.1", wanted=wanted, met=met, words="alert"),))
    assert found == code
    assert ("TLS 1.1" in problem) is bool(code)


@pytest.mark.parametrize(
    ("hsts", "code"), [("max-age=300", ""), ("", "CW1515"), ("max-age=300; includeSubDomains", "CW1515")]
)
def test_an_answer_with_other_hsts_than_asked_for_is_told(hsts: str, code: str) -> None:
    answer = route_answer("/", 200, {"strict-transport-security": hsts} if hsts else {})
    found, problem, fix = judged(hsts="max-age=300", routes=(answer,))
    assert found == code
    assert (hsts or "missing") in problem or not code
    assert fix.startswith("curl") or not code


@pytest.mark.parametrize(
    ("tls", "protocol", "cipher", "code"),
    [
        ({}, "TLSv1.1", "ECDHE-RSA-AES128-SHA", "CW1513"),
        ({}, "TLSv1.2", "ECDHE-RSA-AES128-SHA", ""),
        ({"min_protocol": TlsVersion.TLSV1_3}, "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", "CW1513"),
        ({"max_protocol": TlsVersion.TLSV1_2}, "TLSv1.3", "TLS_AES_128_GCM_SHA256", "CW1513"),
        ({"max_protocol": TlsVersion.TLSV1_3}, "TLSv1.3", "TLS_AES_128_GCM_SHA256", ""),
        ({"ciphers": ("ECDHE-ECDSA-AES256-GCM-SHA384",)}, "TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", "CW1513"),
        ({"ciphers": ("ECDHE-ECDSA-AES256-GCM-SHA384",)}, "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", ""),
        ({"ciphers": ("ECDHE-ECDSA-AES256-GCM-SHA384",)}, "TLSv1.3", "TLS_AES_128_GCM_SHA256", ""),
        ({"mode": TlsMode.PASSTHROUGH}, "TLSv1.1", "ECDHE-RSA-AES128-SHA", ""),
    ],
)
def test_what_was_negotiated_must_be_what_may_be(tls: dict[str, Any], protocol: str, cipher: str, code: str) -> None:
    assert judged(tls=TlsSettings(**tls), protocol=protocol, cipher=cipher)[0] == code
