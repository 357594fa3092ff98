"""What the quota is told of an order, by the Orders and Challenges as cert-manager leaves them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from lifecycle.order_outcome import outcome
from lifecycle.quota import Outcome
from lifecycle.rate_limits import LimitKind

SINCE = datetime(2027, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
BEFORE, MADE = "2027-01-02T03:04:04Z", "2027-01-02T03:04:05Z"


def order(made: str = MADE, **status: str) -> dict[str, Any]:
    return {"metadata": {"creationTimestamp": made}, "status": {"url": "https://acme.example/order/1"} | status}


def challenge(name: str, state: str, *, made: str = MADE, wildcard: bool = False, reason: str = "") -> dict[str, Any]:
    return {
        "metadata": {"creationTimestamp": made},
        "spec": {"dnsName": name, "wildcard": wildcard},
        "status": {"state": state, "reason": reason},
    }


def told(orders: list[dict[str, Any]], challenges: list[dict[str, Any]], *, issued: bool = False) -> Outcome:
    return outcome("r", orders, challenges, since=SINCE, issued=issued, now=SINCE)


def test_an_issued_certificate_is_an_order_even_where_none_was_seen() -> None:
    assert Outcome(request_id="r", orders=1, issued=True) == told([], [], issued=True)
    assert Outcome(request_id="r", orders=1, issued=True) == told([order(state="valid")], [], issued=True)


def test_orders_and_challenges_of_an_earlier_issuance_do_not_count() -> None:
    assert Outcome(request_id="r") == told([order(BEFORE)], [challenge("a.example.com", "invalid", made=BEFORE)])


def test_an_order_that_was_never_made_at_the_ca_does_not_count() -> None:
    assert Outcome(request_id="r") == told([order(url="")], [])


def test_the_names_that_the_ca_could_not_validate_are_told_and_no_others() -> None:
    seen = [
        challenge("a.example.com", "invalid"),
        challenge("example.com", "invalid", wildcard=True),
        challenge("b.example.com", "valid"),
        challenge("c.example.com", "pending"),
    ]
    assert told([order(state="invalid")], seen).failed == ("a.example.com", "*.example.com")


def test_a_refusal_of_the_ca_is_told_with_its_instant() -> None:
    words = (
        "Failed to create Order: 429 urn:ietf:params:acme:error:rateLimited: too many certificates (50) already "
        'issued for "example.com" in the last 168h0m0s, retry after 2027-01-02 07:00:00 UTC: see '
        "https://letsencrypt.org/docs/rate-limits/"
    )
    refused = told([order(url="", state="errored", reason=words)], [])
    assert refused.throttle is not None
    assert (refused.throttle.kind, refused.throttle.key) == (LimitKind.DOMAIN, "example.com")
    assert refused.throttle.until == datetime(2027, 1, 2, 7, tzinfo=UTC)
    assert refused.throttle.until - SINCE > timedelta(hours=3)
    assert refused.orders == 0
