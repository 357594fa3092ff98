"""A step of a domain has failed: when is it made again, and when is that given up?

The pace suits the CA, which counts failures; a customer's own wait is in `waiting`. Instants are computed from
instants, since due times are carried from run to run and timers are not.
"""

from __future__ import annotations

from datetime import datetime, timedelta

PAUSES = (timedelta(minutes=10), timedelta(minutes=100))
"""Pauses after the first failures (Let's Encrypt, "Integration Guide", Retrying failures)."""

PAUSE_AFTERWARDS = timedelta(days=1)
"""Each further one (same source): once a day."""

MOST_FAILURES = 8
"""Two soon and one on each of six days; by then a person must look."""

BINDING_PAUSES = (timedelta(seconds=15), timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15))
"""Pauses after the first bindings that the edge did not serve: the CA has no part in it, and its cause is often over in
moments (the gateway's control plane was away)."""

BINDING_PAUSE_AFTERWARDS = timedelta(hours=1)
"""Each attempt binds for some seconds and is undone, which no other domain notices."""

MOST_BINDINGS = len(BINDING_PAUSES) + 7 * 24
"""Seven days, as long as a customer is waited for."""

BURST = 3
"""Failures after which even somebody's wish has to wait: five failed authorizations an hour is the CA's limit for one
name and account, and cert-manager may have used one itself."""

REFILL = timedelta(minutes=12)
"""One more failed authorization is allowed after this (Let's Encrypt, "Rate Limits")."""


def next_attempt(failures: int, failed_at: datetime) -> datetime | None:
    """When to try again after `failures` failures in a row, or None where it is to be suspended."""
    if failures >= MOST_FAILURES:
        return None
    pauses = (*PAUSES, PAUSE_AFTERWARDS)
    return failed_at + pauses[min(max(failures, 1), len(pauses)) - 1]


def next_binding(failures: int, failed_at: datetime) -> datetime | None:
    """When to bind again after `failures` bindings in a row that were undone, or None where it is to be suspended."""
    if failures >= MOST_BINDINGS:
        return None
    pauses = (*BINDING_PAUSES, BINDING_PAUSE_AFTERWARDS)
    return failed_at + pauses[min(max(failures, 1), len(pauses)) - 1]


def earliest_order(failures: int, failed_at: datetime) -> datetime:
    """Before when not even a wish may cause an order."""
    return failed_at if failures < BURST else failed_at + REFILL
