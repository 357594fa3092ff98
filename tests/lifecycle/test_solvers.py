"""Which solver a name takes, by cert-manager's precedence; the lab's own cert-manager is asked elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle import solvers

HTTP: dict[str, Any] = {"http01": {"ingress": {"ingressClassName": "certwright-none"}}}
DNS: dict[str, Any] = {"dns01": {"rfc2136": {"nameserver": "ns1:53"}, "cnameStrategy": "Follow"}}

SOLVERS: tuple[dict[str, Any], ...] = (
    HTTP,
    {**DNS, "selector": {"dnsZones": ["example.com"]}},
    {**HTTP, "selector": {"dnsZones": ["shop.example.com", "example.com"]}},
    {**HTTP, "selector": {"dnsNames": ["www.example.com", "shop.example.com"]}},
    {**HTTP, "selector": {"dnsNames": ["www.example.com"], "dnsZones": ["example.com"]}},
    {**HTTP, "selector": {"matchLabels": {"tier": "gold"}}},
    {**DNS, "selector": {"matchLabels": {"tier": "gold", "team": "a"}}},
    {**HTTP, "selector": {"dnsNames": ["www.example.com"], "matchLabels": {"tier": "lead"}}},
    {**DNS, "selector": {}},
)
"""In an order in which the last one that matches is seldom the one."""

NAMES: tuple[tuple[str, dict[str, str], int], ...] = (
    ("other.test", {}, 0),
    ("other.test", {"tier": "gold"}, 5),
    ("other.test", {"tier": "gold", "team": "a"}, 6),
    ("example.com", {}, 1),
    ("a.example.com", {"tier": "gold", "team": "a"}, 1),
    ("a.shop.example.com", {}, 2),
    ("shop.example.com", {}, 3),
    ("www.example.com", {}, 4),
    ("www.example.com", {"tier": "lead"}, 4),
    ("*.example.com", {}, 1),
    ("*.shop.example.com", {}, 1),
    ("*.other.test", {}, 8),
    ("*.other.test", {"tier": "gold", "team": "a"}, 6),
    ("badexample.com", {}, 0),
)


@pytest.mark.parametrize(("hostname", "labels", "expected"), NAMES)
def test_a_name_takes_the_solver_that_fits_it_best(hostname: str, labels: dict[str, str], expected: int) -> None:
    explained = solvers.explain(hostname, SOLVERS, labels)
    assert expected == explained.number
    assert [one.number for one in explained.considered if one.chosen] == [expected]
    assert all(one.reason and one.solver for one in explained.considered)


def test_reasons_are_told_for_each() -> None:
    reasons = {one.number: one.reason for one in solvers.explain("www.example.com", SOLVERS, {}).considered}
    assert reasons[0] == "solver 4 lists the name itself"
    assert reasons[3] == "solver 4 has a longer zone"
    assert reasons[4] == "its dnsNames list the name"
    assert reasons[5] == "the Certificate has no label tier=gold"
    wildcard = solvers.explain("*.other.test", SOLVERS, {}).considered
    assert wildcard[0].reason == "HTTP-01 proves no wildcard (RFC 8555, section 8.3)"
    assert (
        solvers.explain("a.test", (HTTP, HTTP), {}).considered[1].reason == "solver 0 matches as well and comes first"
    )


def test_without_a_solver_that_fits_there_is_none() -> None:
    explained = solvers.explain("*.example.com", (HTTP,), {})
    assert (explained.number, explained.solver) == (-1, "")
    (found,) = solvers.solver_findings("ClusterIssuer le", ("www.example.com", "*.example.com"), (HTTP,))
    assert (found.code, found.subject) == ("CW1307", "*.example.com")
    assert "certwright issuer explain '*.example.com' --issuer le" in found.fix


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        (HTTP, "HTTP-01 through Istio's VirtualService"),
        (DNS, "DNS-01 by rfc2136 ns1:53, following CNAMEs"),
        ({"http01": {"ingress": {"class": "nginx"}}}, "HTTP-01 through Ingress class nginx"),
        ({"http01": {"ingress": {"name": "shop"}}}, "HTTP-01 through Ingress shop"),
        (
            {"http01": {"gatewayHTTPRoute": {"parentRefs": [{"name": "edge", "namespace": "istio-system"}]}}},
            "HTTP-01 through the Gateway API's Gateway istio-system/edge",
        ),
        ({}, "no solver"),
    ],
)
def test_a_solver_is_told_in_words(solver: dict[str, Any], expected: str) -> None:
    assert expected == solvers.words(solver)


def test_only_an_ingress_needs_a_route_of_ours() -> None:
    assert solvers.needs_route(HTTP)
    assert solvers.needs_route({"http01": {"ingress": {"class": "istio"}}})
    assert not solvers.needs_route(DNS)
    assert not solvers.needs_route({"http01": {"gatewayHTTPRoute": {}}})
