"""What a request says of its gateway is a good value, or is refused with every reason at once."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.domain import (
    Backend,
    GatewayKind,
    HeaderMatch,
    Hsts,
    IssuerRef,
    OnboardingRequest,
    Route,
    TlsMode,
    TlsSettings,
    TlsVersion,
)
from lifecycle.requests import OnboardingDefaults, parse_onboarding

DEFAULTS = OnboardingDefaults(
    issuer=IssuerRef(name="acme"),
    routes=(Route(prefix="/", service="frontend-service", port=80),),
    allowed_route_namespaces=("default", "shop", "istio-system"),
)
RSA_ONLY = {"ciphers": ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"]}
"""The guide's own list."""


def parsed(**fields: Any) -> OnboardingRequest:
    request = parse_onboarding({"hostname": "shop.example.com", **fields}, tenant="acme", defaults=DEFAULTS)
    assert isinstance(request, OnboardingRequest), request
    return request


def refused(**fields: Any) -> dict[str, str]:
    found = parse_onboarding({"hostname": "shop.example.com", **fields}, tenant="acme", defaults=DEFAULTS)
    assert isinstance(found, tuple), found
    assert all(error.fix for error in found)
    return {error.field: error.problem for error in found}


def test_what_is_not_said_is_as_before() -> None:
    request = parsed()
    assert (request.tls, request.hsts, request.gateway.kind) == (TlsSettings(), None, GatewayKind.ISTIO)


def test_a_full_request_is_taken_as_it_is_meant() -> None:
    request = parsed(
        target="Gateway-API",
        tls={"mode": "optional_mutual", "ciphers": ["ECDHE-ECDSA-AES256-GCM-SHA384"] * 2, "client_ca": "clients-ca"},
        hsts={"max_age_seconds": 31_536_000, "include_subdomains": True, "preload": True},
        routes=[
            {
                "prefix": "/api",
                "service": "api",
                "port": 80,
                "exact": True,
                "headers": {"X-Beta": "yes"},
                "weight": 9,
                "others": [{"service": "canary", "port": 81, "namespace": "shop"}],
                "timeout_seconds": 0.5,
            }
        ],
    )
    assert request.gateway.kind is GatewayKind.GATEWAY_API
    assert request.tls == TlsSettings(
        mode=TlsMode.OPTIONAL_MUTUAL, ciphers=("ECDHE-ECDSA-AES256-GCM-SHA384",), client_ca="clients-ca"
    )
    assert request.hsts == Hsts(max_age_seconds=31_536_000, include_subdomains=True, preload=True)
    assert request.routes == (
        Route(
            prefix="/api",
            service="api",
            port=80,
            exact=True,
            headers=(HeaderMatch(name="x-beta", value="yes"),),
            weight=9,
            others=(Backend(service="canary", port=81, namespace="shop"),),
            timeout_seconds=0.5,
        ),
    )


@pytest.mark.parametrize("written", ["TLSV1_3", "tlsv1_3", "1.3", 1.3, "TLSv1.3", "TLS 1.3"])
def test_protocols_are_read_as_people_write_them(written: object) -> None:
    assert parsed(tls={"min_protocol": written}).tls.min_protocol is TlsVersion.TLSV1_3


@pytest.mark.parametrize(
    ("fields", "field", "part"),
    [
        ({"tls": {"min_protocol": "TLSV1_1"}}, "tls.min_protocol", "RFC 8996"),
        ({"tls": {"min_protocol": "1.0"}}, "tls.min_protocol", "RFC 8996"),
        ({"tls": {"min_protocol": "quic"}}, "tls.min_protocol", "none of"),
        ({"tls": {"min_protocol": "1.3", "max_protocol": "1.2"}}, "tls.max_protocol", "below min_protocol"),
        ({"tls": {"mode": "ISTIO_MUTUAL"}}, "tls.mode", "none of"),
        ({"tls": {"ciphers": ["AES128-SHA"]}}, "tls.ciphers[0]", "RFC 9325"),
        ({"tls": {"ciphers": ["TLS_AES_128_GCM_SHA256"]}}, "tls.ciphers[0]", "TLS 1.3"),
        ({"tls": {"ciphers": "ALL"}}, "tls.ciphers", "is not a list"),
        ({"tls": RSA_ONLY}, "tls.ciphers", "ECDSA key"),
        (
            {"tls": {"ciphers": ["ECDHE-ECDSA-AES256-GCM-SHA384"]}, "certificate": {"key_algorithm": "RSA"}},
            "tls.ciphers",
            "RSA key",
        ),
        (
            {"tls": {"ciphers": ["ECDHE-ECDSA-AES256-GCM-SHA384"], "min_protocol": "1.3"}},
            "tls.ciphers",
            "only for TLS 1.2",
        ),
        ({"tls": {"client_ca": "clients-ca"}}, "tls.client_ca", "asks no client"),
        ({"tls": {"caCertificates": "/etc/ca.crt"}}, "tls.caCertificates", "not a known field"),
        ({"hsts": {}}, "hsts.max_age_seconds", "is missing"),
        ({"hsts": {"max_age_seconds": 300, "preload": True}}, "hsts.preload", "hstspreload.org"),
        ({"hsts": {"max_age_seconds": 300, "include_subdomains": "yes"}}, "hsts.include_subdomains", "neither true"),
        ({"target": "ingress"}, "target", "none of"),
        ({"target": "gateway-api", "tls": {"min_protocol": "1.3"}}, "tls.min_protocol", "Gateway API"),
        ({"target": "gateway-api", "tls": {"max_protocol": "1.2"}}, "tls.max_protocol", "Gateway API"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(fields: dict[str, Any], field: str, part: str) -> None:
    assert part in refused(**fields)[field]


def test_the_guides_ciphers_are_taken_with_the_key_that_they_need() -> None:
    assert len(parsed(tls=RSA_ONLY, certificate={"key_algorithm": "RSA"}).tls.ciphers) == 2


def route(**fields: Any) -> dict[str, Any]:
    return {"prefix": "/", "service": "web", "port": 80, **fields}


@pytest.mark.parametrize(
    ("fields", "field", "part"),
    [
        ({"exact": "yes"}, "exact", "neither true nor false"),
        ({"headers": ["x"]}, "headers", "is not an object"),
        ({"headers": {"Authorization": "Bearer 1"}}, "headers.Authorization", "a secret"),
        ({"headers": {"Host": "a.example.com"}}, "headers.Host", "the hostname"),
        ({"headers": {"x y": "1"}}, "headers.x y", "no header's name"),
        ({"headers": {"x-y": ""}}, "headers.x-y", "no value"),
        ({"headers": {"x-y": "1", "X-Y": "1"}}, "headers.X-Y", "twice"),
        ({"headers": {f"x-{number}": "1" for number in range(17)}}, "headers", "more than 16"),
        ({"timeout_seconds": 0}, "timeout_seconds", "number of seconds"),
        ({"timeout_seconds": True}, "timeout_seconds", "number of seconds"),
        ({"weight": 0}, "weight", "no others"),
        ({"weight": 0, "others": [{"service": "b", "port": 1, "weight": 0}]}, "weight", "nobody would answer"),
        ({"weight": 1001}, "weight", "out of range"),
        ({"others": {"service": "b"}}, "others", "is not a list"),
        ({"others": ["b"]}, "others[0]", "is not an object"),
        ({"others": [{"service": "b", "port": 1, "namespace": "kube-system"}]}, "others[0].namespace", "not open"),
        ({"others": [{"port": 1}]}, "others[0].service", "is missing"),
    ],
)
def test_a_bad_route_is_refused_with_the_reason(fields: dict[str, Any], field: str, part: str) -> None:
    assert part in refused(routes=[route(**fields)])[f"routes[0].{field}"]


def test_the_same_path_may_be_there_twice_where_headers_or_exactness_tell_them_apart() -> None:
    apart = [
        route(prefix="/api"),
        route(prefix="/api", exact=True),
        route(prefix="/api", headers={"x-beta": "1"}),
        route(prefix="/api", headers={"x-beta": "2"}),
    ]
    assert len(parsed(routes=apart).routes) == 4
    same = refused(routes=[*apart, route(prefix="/api/", headers={"X-Beta": "2"})])
    assert same == {"routes[4].prefix": "is also in routes[3].prefix"}


def test_what_a_gateway_cannot_see_is_refused_where_it_passes_tls_through() -> None:
    assert set(
        refused(
            tls={"mode": "PASSTHROUGH", "min_protocol": "1.3", "max_protocol": "1.3", "client_ca": "ca"}
            | {"ciphers": ["ECDHE-ECDSA-AES256-GCM-SHA384"]},
            hsts={"max_age_seconds": 1},
            routes=[route(timeout_seconds=1), route(prefix="/api")],
        )
    ) == {
        "tls.min_protocol",
        "tls.max_protocol",
        "tls.ciphers",
        "tls.client_ca",
        "hsts",
        "routes",
        "routes[0].namespace",
    }
    behind = parsed(tls={"mode": "PASSTHROUGH"}, routes=[route(namespace="istio-system")])
    assert not behind.tls.terminates


def test_what_does_not_fit_into_the_gateway_apis_objects_is_refused() -> None:
    hostnames = [f"h{number}.example.com" for number in range(33)]
    routes = [route(prefix=f"/{number}", service=f"s{number}") for number in range(17)]
    fields: dict[str, Any] = {"hostname": None, "hostnames": hostnames, "routes": routes}
    assert set(refused(target="gateway-api", **fields)) == {"hostnames", "routes"}
    assert len(parsed(**fields).hostnames) == 33
