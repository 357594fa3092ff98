"""Who swallows a challenge, who only answers until our own Gateway is there, and whether anybody listens at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from lifecycle import manifests
from lifecycle.domain import IssuerRef, OnboardingRequest, Route
from lifecycle.port_eighty import Neighbours, neighbours

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
NAME = "shop.example.com"
REQUEST = OnboardingRequest(
    tenant="acme",
    hostnames=(NAME,),
    issuer=IssuerRef(name="le"),
    routes=(Route(prefix="/", service="frontend", port=80),),
)
INGRESS = {"istio": "ingressgateway"}


def gateway(
    host: str,
    *,
    redirect: bool = False,
    port: int = 80,
    selector: dict[str, str] | None = None,
    created: str = "2026-11-23T08:00:00Z",
) -> dict[str, Any]:
    return {
        "metadata": {"name": "other", "namespace": "default", "creationTimestamp": created},
        "spec": {
            "selector": INGRESS if selector is None else selector,
            "servers": [{"port": {"number": port}, "hosts": [host], "tls": {"httpsRedirect": redirect}}],
        },
    }


def seen(*gateways: dict[str, Any], bound: bool = False) -> tuple[bool, tuple[tuple[str, str], ...], set[str]]:
    found: Neighbours = neighbours(REQUEST, gateways, bound=bound, now=NOW)
    return found.listening, found.swallowing, set(found.covered)


SWALLOWED = ((NAME, "default/other"),)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (gateway(NAME, redirect=True), (True, SWALLOWED, set())),
        (gateway(f"*/{NAME}", redirect=True), (True, SWALLOWED, set())),
        (gateway(NAME, redirect=True, selector={}), (True, SWALLOWED, set())),
        (gateway(NAME, redirect=True, selector={**INGRESS, "app": "gateway"}), (True, SWALLOWED, set())),
        (gateway(NAME), (True, (), {NAME})),
        (gateway("*", redirect=True), (True, (), {NAME})),
        (gateway("ns/*.example.com", redirect=True), (True, (), {NAME})),
        (gateway("*.example.org", redirect=True), (True, (), set())),
        (gateway("other.example.com", redirect=True), (True, (), set())),
        (gateway(NAME, redirect=True, port=8080), (False, (), set())),
        (gateway(NAME, redirect=True, selector={"istio": "inner"}), (False, (), set())),
        (gateway("other.example.com", created="2026-11-24T07:59:50Z"), (False, (), set())),
        (manifests.gateway(REQUEST, https=True), (False, (), set())),  # has no age yet
    ],
)
def test_one_gateway(given: dict[str, Any], expected: tuple[bool, tuple[tuple[str, str], ...], set[str]]) -> None:
    assert expected == seen(given)


def test_our_own_routes_cover_all_names() -> None:
    assert seen(bound=True) == (False, (), {NAME})


def test_a_gateway_of_the_gateway_api_listens_and_covers_too() -> None:
    spec = {
        "addresses": [{"type": "Hostname", "value": "istio-ingressgateway.istio-system.svc.cluster.local"}],
        "listeners": [{"port": 443, "hostname": NAME}, {"port": 80, "hostname": "*.example.com"}],
    }
    metadata = {"name": "other", "namespace": "default", "creationTimestamp": "2026-11-23T08:00:00Z"}
    assert seen({"metadata": metadata, "spec": spec}) == (True, (), {NAME})
    assert seen({"metadata": metadata, "spec": {**spec, "addresses": []}}) == (False, (), set())
