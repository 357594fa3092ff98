"""A request is a good value, or every reason why not, field by field, at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.domain import IssuerKind, IssuerRef, KeyAlgorithm, OnboardingRequest, Rehearsal, Route
from lifecycle.requests import OnboardingDefaults, parse_onboarding, parse_platform
from lifecycle.steps import PlatformRequest
from tests.starter.bad_input import BAD_HOSTNAMES

DEFAULTS = OnboardingDefaults(
    issuer=IssuerRef(name="acme"), routes=(Route(prefix="/", service="frontend-service", port=80),)
)

FULL: dict[str, Any] = {
    "hostnames": ["Shop.Example.com", "www.shop.example.com", "shop.example.com."],
    "issuer": {"name": "letsencrypt", "kind": "ClusterIssuer"},
    "routes": [
        {"prefix": "/api", "service": "api-service", "port": 8080},
        {"prefix": "/", "service": "frontend-service", "port": 80, "namespace": "default"},
    ],
    "certificate": {"key_algorithm": "rsa", "key_size": 3072, "duration_seconds": 7776000},
}


def parsed(document: object, defaults: OnboardingDefaults = DEFAULTS) -> OnboardingRequest:
    request = parse_onboarding(document, tenant="acme", defaults=defaults)
    assert isinstance(request, OnboardingRequest), request
    return request


def refused(document: object, defaults: OnboardingDefaults = DEFAULTS) -> dict[str, list[str]]:
    found = parse_onboarding(document, tenant="acme", defaults=defaults)
    assert isinstance(found, tuple)
    by_field: dict[str, list[str]] = {}
    for error in found:
        assert error.fix
        assert len(error.value) <= 80
        by_field.setdefault(error.field, []).append(error.problem)
    return by_field


def test_a_full_request_is_taken_as_it_is_meant() -> None:
    request = parsed(FULL)
    assert request.hostnames == ("shop.example.com", "www.shop.example.com")
    assert (request.tenant, request.hostname, request.issuer.name) == ("acme", "shop.example.com", "letsencrypt")
    assert [route.prefix for route in request.routes] == ["/api", "/"]
    assert (request.certificate.key_algorithm, request.certificate.key_size) == (KeyAlgorithm.RSA, 3072)


def test_a_hostname_is_enough_where_there_are_defaults() -> None:
    request = parsed({"hostname": "shop.example.com"})
    assert request.routes == DEFAULTS.routes
    assert request.issuer == DEFAULTS.issuer
    assert request.certificate == DEFAULTS.certificate


def test_the_algorithm_alone_takes_its_own_smallest_key() -> None:
    request = parsed({"hostname": "shop.example.com", "certificate": {"key_algorithm": "RSA"}})
    assert request.certificate.key_size == 2048


def test_every_bad_hostname_of_a_request_is_named_with_its_place() -> None:
    found = refused({"hostnames": ["good.example.com", *BAD_HOSTNAMES]})
    assert list(found) == [f"hostnames[{index}]" for index in range(1, len(BAD_HOSTNAMES) + 1)]
    for problems, word in zip(found.values(), BAD_HOSTNAMES.values(), strict=True):
        assert word in problems[0]


def test_all_problems_of_all_fields_come_at_once() -> None:
    found = refused(
        {
            "hostname": "*.shop_1..cluster.local",
            "isuer": "acme",
            "routes": [
                {"prefix": "api", "service": "Api_Service", "port": "80"},
                {"prefix": "/a/../b", "service": "x", "port": 70000, "namespace": "kube-system"},
                {"prefix": "/.well-known/acme-challenge/x", "service": "x"},
                "nothing",
            ],
            "certificate": {"key_algorithm": "DSA", "key_size": True, "renew_before_percentage": 100},
        }
    )
    assert len(found["hostname"]) == 4
    assert set(found) == {
        "hostname",
        "isuer",
        "routes[0].prefix",
        "routes[0].service",
        "routes[0].port",
        "routes[1].prefix",
        "routes[1].port",
        "routes[1].namespace",
        "routes[2].prefix",
        "routes[2].port",
        "routes[3]",
        "certificate.key_algorithm",
        "certificate.key_size",
        "certificate.renew_before_percentage",
    }


@pytest.mark.parametrize(
    ("document", "field", "problem"),
    [
        ([], "", "not an object"),
        ({}, "hostnames", "missing"),
        ({"hostnames": []}, "hostnames", "empty"),
        ({"hostnames": "shop.example.com"}, "hostnames", "not a list"),
        ({"hostname": "a.example.com", "hostnames": ["b.example.com"]}, "hostname", "hostnames too"),
        ({"hostnames": [f"n{n}.example.com" for n in range(101)]}, "hostnames", "more than 100"),
        ({"hostname": "a.example.com", "routes": []}, "routes", "empty"),
        ({"hostname": "a.example.com", "routes": "x"}, "routes", "not a list"),
        ({"hostname": "a.example.com", "routes": [{"service": "a", "port": 1}] * 51}, "routes", "more than 50"),
        ({"hostname": "a.example.com", "issuer": {}}, "issuer.name", "missing"),
        ({"hostname": "a.example.com", "issuer": 3}, "issuer", "neither"),
        ({"hostname": "a.example.com", "issuer": {"name": "x", "kind": "Vault"}}, "issuer.kind", "none of"),
        ({"hostname": "a.example.com", "issuer": {"name": "x", "namespace": "y"}}, "issuer.namespace", "ClusterIssuer"),
        ({"hostname": "a.example.com", "certificate": []}, "certificate", "not an object"),
        ({"hostname": "a.example.com", "certificate": {"key_size": 300}}, "certificate.key_size", "no key size"),
        ({"hostname": "a.example.com", "certificate": {"duration_seconds": 60}}, "certificate.duration_seconds", "out"),
        ({"hostname": "a.example.com", "tenant": "other"}, "tenant", "not a known field"),
    ],
)
def test_a_bad_field_is_refused_by_its_name(document: object, field: str, problem: str) -> None:
    found = refused(document)
    assert problem in found[field][0]
    assert len(found) == 1


def test_an_issuer_signs_only_beside_the_gateway() -> None:
    beside = parsed({"hostname": "a.example.com", "issuer": {"name": "x", "kind": "Issuer"}})
    assert beside.issuer == IssuerRef(name="x", kind=IssuerKind.ISSUER, namespace="istio-system")
    elsewhere = {"name": "x", "kind": "Issuer", "namespace": "shop"}
    assert "gateway's namespace" in refused({"hostname": "a.example.com", "issuer": elsewhere})["issuer.namespace"][0]


def test_the_same_paths_twice_are_refused() -> None:
    routes = [{"prefix": prefix, "service": "a", "port": 80} for prefix in ("/api", "/api/")]
    assert "also in routes[0]" in refused({"hostname": "a.example.com", "routes": routes})["routes[1].prefix"][0]


def test_routes_lead_only_where_the_operator_opened() -> None:
    document = {"hostname": "a.example.com", "routes": [{"service": "a", "port": 80}]}
    open_to_shop = OnboardingDefaults(issuer=IssuerRef(name="x"), allowed_route_namespaces=("shop",))
    assert parsed(document, open_to_shop).routes[0].namespace == "shop"


def test_an_unknown_field_gets_the_nearest_name_and_its_value_is_not_repeated() -> None:
    found = parse_onboarding({"hostnmae": "s3cret.example.com"}, tenant="acme", defaults=DEFAULTS)
    assert isinstance(found, tuple)
    assert (found[0].fix, found[0].value) == ("did you mean hostname?", "")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_fields = st.sampled_from(
    ["hostname", "hostnames", "issuer", "routes", "certificate", "x", "monitoring", "issuer_ports", "monitoring_labels"]
)


@given(st.dictionaries(_fields, _json) | _json)
def test_whatever_is_sent_is_answered(document: object) -> None:
    for answer in (
        parse_onboarding(document, tenant="acme", defaults=DEFAULTS),
        parse_platform(document),
    ):
        assert not isinstance(answer, tuple) or len(answer) > 0


def test_a_platform_is_parsed() -> None:
    document = {"cluster": "prod-1", "version": "1.21.2", "values": {"a": 1}, "gateway": {"selector": {"istio": "in"}}}
    request = parse_platform(document)
    assert isinstance(request, PlatformRequest)
    assert (request.version, json.loads(request.values)) == ("v1.21.2", {"a": 1})
    assert request.gateway.selector == (("istio", "in"),)


def test_what_a_platform_is_to_have_beside_cert_manager_is_parsed_and_absent_is_neither_yes_nor_no() -> None:
    request = parse_platform(
        {
            "cluster": "prod-1",
            "high_availability": True,
            "dashboard": False,
            "issuer_ports": [8200, 5353, 8200],
            "monitoring_labels": {"release": "prometheus", "example.com/team": ""},
            "concurrent_workers": 50,
        }
    )
    assert isinstance(request, PlatformRequest)
    assert (request.high_availability, request.network_policies, request.monitoring, request.dashboard) == (
        True,
        None,
        None,
        False,
    )
    assert request.issuer_ports == (5353, 8200)
    assert request.concurrent_workers == 50
    assert request.monitoring_labels == (("example.com/team", ""), ("release", "prometheus"))


def test_all_problems_of_a_platform_come_at_once() -> None:
    found = parse_platform(
        {
            "version": "latest",
            "values": [],
            "gateway": {"selector": {"a b": "c"}, "servce": "x"},
            "dry_run": "yes",
            "monitoring": "yes",
            "issuer_ports": [0, "443"],
            "api_server_ports": 6443,
            "monitoring_labels": {"a b": "c", "d": "e f"},
            "concurrent_workers": 61,
        }
    )
    assert isinstance(found, tuple)
    assert {error.field for error in found} == {
        "cluster",
        "version",
        "values",
        "gateway.selector.a b",
        "gateway.servce",
        "dry_run",
        "monitoring",
        "issuer_ports[0]",
        "issuer_ports[1]",
        "api_server_ports",
        "monitoring_labels.a b",
        "monitoring_labels.d",
        "concurrent_workers",
    }


@pytest.mark.parametrize(
    ("said", "expected"),
    [(None, Rehearsal.FIRST), ("first", Rehearsal.FIRST), ("Always", Rehearsal.ALWAYS), ("never", Rehearsal.NEVER)],
)
def test_a_request_says_whether_it_is_rehearsed(said: str | None, expected: Rehearsal) -> None:
    document = {"hostname": "shop.example.com", **({"rehearsal": said} if said else {})}
    defaults = OnboardingDefaults(issuer=IssuerRef(name="le"), routes=(Route(prefix="/", service="web", port=80),))
    request = parse_onboarding(document, tenant="acme", defaults=defaults)
    assert isinstance(request, OnboardingRequest)
    assert request.rehearsal is expected
    refused = parse_onboarding({**document, "rehearsal": "once"}, tenant="acme", defaults=defaults)
    assert isinstance(refused, tuple)
    (error,) = refused
    assert (error.field, error.fix) == ("rehearsal", "write one of first, always, never")
