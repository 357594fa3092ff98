"""Who else claims a name: by exact host, on the same gateway workload, and never what is ours."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle import manifests, names
from lifecycle.claims import is_ours, object_collision, other_claims
from lifecycle.domain import IssuerRef, OnboardingRequest, Route

NAME = "shop.example.com"
REQUEST = OnboardingRequest(
    tenant="acme",
    hostnames=(NAME, "www.shop.example.com"),
    issuer=IssuerRef(name="le"),
    routes=(Route(prefix="/", service="frontend", port=80),),
)


def gateway(*hosts: str, selector: dict[str, str] | None = None, name: str = "other") -> dict[str, Any]:
    return {
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "theirs"},
        "spec": {
            "selector": {"istio": "ingressgateway"} if selector is None else selector,
            "servers": [{"hosts": list(hosts)}],
        },
    }


def virtual_service(*hosts: str, gateways: tuple[str, ...] = ("theirs/other",)) -> dict[str, Any]:
    return {
        "kind": "VirtualService",
        "metadata": {"name": "other", "namespace": "theirs"},
        "spec": {"hosts": list(hosts), "gateways": list(gateways)},
    }


def certificate(*hosts: str, secret: str = "x", namespace: str = "istio-system") -> dict[str, Any]:
    return {
        "kind": "Certificate",
        "metadata": {"name": "other", "namespace": namespace},
        "spec": {"dnsNames": list(hosts), "secretName": secret},
    }


@pytest.mark.parametrize(
    ("other", "claims"),
    [
        (gateway(NAME), True),
        (gateway("Shop.example.com"), True),
        (gateway(f"*/{NAME}"), True),
        (gateway(NAME, selector={}), True),
        (gateway(NAME, selector={"istio": "ingressgateway", "app": "edge"}), True),
        (gateway(NAME, selector={"istio": "inner"}), False),
        (gateway("*"), False),
        (gateway("*.example.com"), False),
        (gateway("other.example.com"), False),
        (manifests.gateway(REQUEST, https=True), False),
    ],
)
def test_another_gateway(other: dict[str, Any], claims: bool) -> None:
    assert [finding.code for finding in other_claims(REQUEST, gateways=(other,))] == ["CW1501"] * claims


@pytest.mark.parametrize(
    ("other", "claims"),
    [
        (virtual_service(NAME), True),
        (virtual_service(NAME, gateways=("other",)), True),
        (virtual_service(NAME, gateways=("mesh",)), False),
        (virtual_service(NAME, gateways=()), False),
        (virtual_service(NAME, gateways=("theirs/inner",)), False),
        (virtual_service(NAME, gateways=("mesh", "somewhere/unknown")), True),
        (virtual_service("other.example.com"), False),
        (manifests.virtual_service(REQUEST), False),
    ],
)
def test_another_virtual_service(other: dict[str, Any], claims: bool) -> None:
    inner = gateway("*", selector={"istio": "inner"}, name="inner")
    found = other_claims(REQUEST, gateways=(inner,), virtual_services=(other,))
    assert [finding.code for finding in found] == ["CW1501"] * claims


@pytest.mark.parametrize(
    ("other", "codes"),
    [
        (certificate(NAME), ["CW1502"]),
        (certificate(NAME, namespace="elsewhere"), ["CW1502"]),
        (certificate("other.example.com", secret=names.secret_name(NAME)), ["CW1407"]),
        (certificate("other.example.com", secret=names.secret_name(NAME), namespace="elsewhere"), []),
        (certificate(NAME, secret=names.secret_name(NAME)), ["CW1407", "CW1502"]),
        (certificate("other.example.com"), []),
        (manifests.certificate(REQUEST), []),
    ],
)
def test_another_certificate(other: dict[str, Any], codes: list[str]) -> None:
    assert [finding.code for finding in other_claims(REQUEST, certificates=(other,))] == codes


def test_an_object_without_our_annotation_is_somebody_elses() -> None:
    ours = manifests.gateway(REQUEST, https=False)
    assert is_ours(ours, REQUEST)
    assert object_collision(ours, REQUEST) is None
    assert object_collision(None, REQUEST) is None
    theirs = {**ours, "metadata": {"name": "shop", "namespace": "istio-system"}}
    found = object_collision(theirs, REQUEST)
    assert found is not None
    assert (found.code, found.subject) == ("CW1501", "Gateway istio-system/shop")
    assert found.fix.startswith("kubectl delete gateway -n istio-system shop")
