"""What the cluster has ordered lately is counted as the CA counts it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle.domain import IssuerKind, IssuerRef, OnboardingRequest, Route
from lifecycle.quota import AnswerKind, Exemption, Ledger, QuotaRequest, opened
from lifecycle.quota_used import past_orders, quota_findings
from lifecycle.rate_limits import LETS_ENCRYPT, Limit, LimitKind

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
NAME = "shop.example.com"
REQUEST = OnboardingRequest(
    tenant="acme",
    hostnames=(NAME,),
    issuer=IssuerRef(name="le"),
    routes=(Route(prefix="/", service="frontend", port=80),),
)
SECONDS = timedelta(seconds=9)
REF = {"kind": "ClusterIssuer", "name": "le", "group": "cert-manager.io"}


def text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def order(*names: str, ago: timedelta = timedelta(minutes=1), state: str = "valid", revision: int = 1) -> Any:
    return {
        "metadata": {
            "name": "order",
            "namespace": "istio-system",
            "creationTimestamp": text(NOW - ago),
            "annotations": {"cert-manager.io/certificate-revision": str(revision)},
        },
        "spec": {"issuerRef": REF, "dnsNames": list(names)},
        "status": {"state": state},
    }


def certificate(*names: str, ago: timedelta = timedelta(days=1), revision: int = 1) -> Any:
    return {
        "metadata": {"name": "certificate", "namespace": "istio-system"},
        "spec": {"issuerRef": REF, "dnsNames": list(names)},
        "status": {"notBefore": text(NOW - ago - timedelta(hours=1)), "revision": revision},
    }


def found(orders: Any = (), certificates: Any = (), limits: tuple[Limit, ...] = LETS_ENCRYPT) -> list[str]:
    seen = quota_findings(REQUEST, limits, orders=orders, certificates=certificates, now=NOW)
    assert all(one.code == "CW1323" for one in seen)
    return [f"{one.subject}: {one.problem.partition('limit of ')[2].partition(' is')[0]}" for one in seen]


def siblings(count: int, **more: Any) -> list[Any]:
    return [order(f"{number}.example.com", **more) for number in range(count)]


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        ([], []),
        (siblings(49), []),
        (siblings(50), ["example.com: 50 certificates for example.com"]),
        (siblings(60, ago=timedelta(days=8)), []),
        (siblings(50, revision=2), []),  # renewals do not count
        (siblings(50, state="pending"), []),
        (
            [order(f"shop.example{n}.org", ago=timedelta(seconds=9)) for n in range(300)],
            [f"{NAME}: 300 new orders of the account"],
        ),
        ([order(NAME, state="invalid")] * 5, [f"{NAME}: 5 failed validations of {NAME}"]),
        ([order(NAME, "www.example.com", state="invalid")] * 5, []),  # which of them failed is not known
        ([order(NAME, state="invalid", ago=timedelta(hours=2))] * 5, []),
        ([order(NAME)] * 5, [f"{NAME}: 5 certificates for exactly these names"]),
        ([order(NAME)] * 4, []),
    ],
)
def test_limits(orders: list[Any], expected: list[str]) -> None:
    assert expected == found(orders)


def test_a_certificate_counts_where_its_order_is_gone_and_not_twice() -> None:
    held = [certificate(f"{number}.example.com") for number in range(60)]
    assert found(siblings(10), held) == ["example.com: 50 certificates for example.com"]
    assert found(siblings(10), held[:40]) == []


def test_another_certificate_for_the_same_names_is_a_renewal() -> None:
    assert found(siblings(50), [certificate(NAME, ago=timedelta(days=60))]) == []


def test_what_another_issuer_ordered_does_not_count() -> None:
    other = siblings(50)
    for one in other:
        one["spec"]["issuerRef"] = {**REF, "name": "staging"}
    assert found(other) == []
    here = IssuerRef(name="le", kind=IssuerKind.ISSUER, namespace="default")
    elsewhere = [{**one, "spec": {**one["spec"], "issuerRef": {"name": "le"}}} for one in siblings(50)]
    request = OnboardingRequest(tenant="acme", hostnames=(NAME,), issuer=here, routes=REQUEST.routes)
    assert quota_findings(request, LETS_ENCRYPT, orders=elsewhere, certificates=(), now=NOW) == ()


def test_the_instant_is_when_one_more_has_come() -> None:
    limit = Limit(kind=LimitKind.ORDERS, burst=2, refill_seconds=3600)
    orders = [order("a.example.com", ago=timedelta(minutes=30)), order("b.example.com", ago=timedelta(minutes=10))]
    (one,) = quota_findings(REQUEST, (limit,), orders=orders, certificates=(), now=NOW)
    assert "free at 2026-11-24 08:30:00 UTC" in one.fix


def test_a_quota_begins_with_what_the_cluster_shows() -> None:
    """As many as `quota_findings` would count: the next order waits for the same instant."""
    shown = siblings(50, ago=timedelta(hours=1))
    past = past_orders(REQUEST, orders=shown, certificates=(), now=NOW)
    ledger = Ledger(opened("account", LETS_ENCRYPT, past, NOW))
    request = QuotaRequest(
        id="1", owner="domain/shop", tenant="acme", hostnames=(NAME,), registered_domains=("example.com",)
    )
    (answer,) = ledger.step(NOW, asked=(request,))
    assert answer.kind is AnswerKind.WAITING
    (finding,) = quota_findings(REQUEST, LETS_ENCRYPT, orders=shown, certificates=(), now=NOW)
    assert f"free at {answer.at:%Y-%m-%d %H:%M:%S} UTC" in finding.fix


def test_renewals_and_failures_are_told_apart_in_the_past() -> None:
    shown = [order(NAME, revision=2), order(NAME, state="invalid"), order(NAME, "b.example.com", state="invalid")]
    past = past_orders(REQUEST, orders=shown, certificates=(), now=NOW)
    assert [one.exemption for one in past] == [Exemption.RENEWAL, Exemption.NONE, Exemption.NONE]
    assert [one.issued for one in past] == [True, False, False]
    assert [one.failed for one in past] == [(), (NAME,), ()]
    assert {one.registered_domains for one in past} == {("example.com",)}
