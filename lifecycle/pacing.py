"""A step of a domain has failed: when is it made again, and when is that given up?

The pace suits the CA, which counts failures; a customer's own wait is in `waiting`. Instants are computed from
instants, since due times are carried from run to run and timers are not.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from lifecycle import findings
from lifecycle.findings import Finding

PAUSES = (timedelta(minutes=1), timedelta(minutes=10), timedelta(minutes=100))
"""Pauses after the first failures (Let's Encrypt, "Integration Guide", Retrying failures)."""

PAUSE_AFTERWARDS = timedelta(days=1)
"""Each further one (same source): once a day."""

MOST_FAILURES = 8
"""Four within two hours and one on each of some days; by then a person must look."""

_CAS_OWN_WORD = {
    findings.RATE_LIMITED.code,
    findings.ACCOUNT_PAUSED.code,
    findings.ACCOUNT_REFUSED.code,
    findings.NAME_REJECTED.code,
    findings.REQUEST_DENIED.code,
}
"""What no look from here can refute: an order made a minute later would hear the same."""

SHORTEST_LOOK, LONGEST_LOOK = timedelta(minutes=1), timedelta(hours=1)
"""Between looks whether the cause of a failed renewal is gone: they cost the CA nothing, and cert-manager itself would
order after an hour, whether it is gone or not."""

BINDING_PAUSES = (timedelta(seconds=15), timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15))
"""Pauses after the first bindings that the edge did not serve: the CA has no part in it, and its cause is often over in
moments (the gateway's control plane was away)."""

BINDING_PAUSE_AFTERWARDS = timedelta(hours=1)
"""Each attempt binds for some seconds and is undone, which no other domain notices."""

MOST_BINDINGS = len(BINDING_PAUSES) + 7 * 24
"""Seven days, as long as a customer is waited for."""

BURST = 3
"""Failures after which even somebody's wish has to wait: five failed authorizations an hour is the CA's limit for one
name and account, and cert-manager may have used one itself. By themselves no more than three come within an hour."""

REFILL = timedelta(minutes=12)
"""One more failed authorization is allowed after this (Let's Encrypt, "Rate Limits")."""


def cause_seen(found: Iterable[Finding]) -> bool:
    """Whether a look before the next order (preflight) sees that what failed is mended."""
    told = tuple(found)
    return bool(told) and not any(one.code in _CAS_OWN_WORD for one in told)


def next_attempt(failures: int, failed_at: datetime, *, soon: bool = False) -> datetime | None:
    """When to try again after `failures` failures in a row, or None where it is to be suspended.

    `soon`: the next order is made only where the cause is seen to be gone; else the shortest pause is left out.
    """
    if failures >= MOST_FAILURES:
        return None
    return failed_at + _pause(failures, (*(PAUSES if soon else PAUSES[1:]), PAUSE_AFTERWARDS))


def next_renewal(failures: int, failed_at: datetime) -> datetime:
    """When a renewal that failed may be asked for again, where its cause is gone; cert-manager waits 1 to 32 hours."""
    return failed_at + _pause(failures, (*PAUSES, PAUSE_AFTERWARDS))


def next_look(failures: int, failed_at: datetime, now: datetime) -> datetime:
    """When to look again whether a renewal may be asked for: as long after now as it has failed already, bounded."""
    due = next_renewal(failures, failed_at)
    return due if now < due else now + min(max(now - failed_at, SHORTEST_LOOK), LONGEST_LOOK)


def next_binding(failures: int, failed_at: datetime) -> datetime | None:
    """When to bind again after `failures` bindings in a row that were undone, or None where it is to be suspended."""
    if failures >= MOST_BINDINGS:
        return None
    return failed_at + _pause(failures, (*BINDING_PAUSES, BINDING_PAUSE_AFTERWARDS))


def earliest_order(failures: int, failed_at: datetime) -> datetime:
    """Before when not even a wish may cause an order."""
    return failed_at if failures < BURST else failed_at + REFILL


def _pause(failures: int, pauses: tuple[timedelta, ...]) -> timedelta:
    return pauses[min(max(failures, 1), len(pauses)) - 1]
