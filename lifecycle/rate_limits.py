"""How much does a CA allow? Its limits as token buckets, by the CA's directory, and what its refusals say.

Let's Encrypt counts by a leaky bucket ("Rate Limits", How Our Rate Limits Work): a burst, and a steady refill. Such a
bucket is one instant, when it is full again (GCRA's theoretical arrival time); the events themselves need not be kept.
A CA that counts within a period instead is given a smaller bucket that can never exceed it (`within`). Left out: who
may take from a bucket, and when (`quota`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from lifecycle.requests import FieldError


class LimitKind(StrEnum):
    """What is counted, and for whom."""

    ORDERS = "orders"
    """New orders, for the account."""
    DOMAIN = "registered-domain"
    """Certificates issued, for each registered domain in them."""
    EXACT_SET = "exact-set"
    """Certificates issued, for the exact set of names."""
    FAILURES = "failures"
    """Failed authorizations, for each name (and account)."""
    CONSECUTIVE = "consecutive-failures"
    """Failed authorizations since the last success, for each name (and account)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One bucket's measure.

    Attributes:
        burst: how many a full bucket has, at least 1.
        refill_seconds: after how long one more comes.
        renewals_count: whether another certificate for the same names takes from it.
    """

    kind: LimitKind
    burst: int
    refill_seconds: float
    renewals_count: bool = True

    @property
    def refill(self) -> timedelta:
        """The same as a duration."""
        return timedelta(seconds=self.refill_seconds)


def within(kind: LimitKind, count: int, period: timedelta, *, renewals_count: bool = True) -> Limit:
    """A bucket that lets at most `count` through in any `period`, for a CA that counts so.

    A bucket lets ``burst`` through at once and one more at each refill; half of the count at once and the rest spread
    over the period never exceeds it, wherever the period begins.
    """
    burst = (count + 1) // 2
    refill = period / (count - burst + 1)
    return Limit(kind=kind, burst=burst, refill_seconds=refill.total_seconds(), renewals_count=renewals_count)


# --- the arithmetic of one bucket -------------------------------------------------------------------------------------


def free_at(limit: Limit, full_at: datetime, held: int) -> datetime | None:
    """From when on one more may be taken; None where that depends on something held being given back or used.

    Args:
        full_at: when the bucket would be full if nothing more were taken; may lie in the past.
        held: how many are promised and may be taken at any moment.
    """
    spare = limit.burst - held - 1
    return None if spare < 0 else full_at - limit.refill * spare


def expected_at(limit: Limit, full_at: datetime, ahead: int, now: datetime) -> datetime:
    """When the next one may be taken after `ahead` others, if these are taken as early as they may."""
    spare = limit.burst - ahead - 1
    return full_at - limit.refill * spare if spare >= 0 else max(full_at, now) - limit.refill * spare


def taken(limit: Limit, full_at: datetime, at: datetime, number: int = 1) -> datetime:
    """When the bucket is full again after `number` were taken at `at`.

    Taking for an earlier instant after a later one gives a later result than the right order would, never an earlier.
    """
    return max(full_at, at) + limit.refill * number


def emptied(limit: Limit, full_at: datetime, until: datetime) -> datetime:
    """When the bucket is full again if the CA says that there is nothing in it before `until`."""
    return max(full_at, until + limit.refill * (limit.burst - 1))


# --- the CAs ----------------------------------------------------------------------------------------------------------

_HOUR, _DAY = 3600.0, 86400.0

LETS_ENCRYPT = (
    Limit(kind=LimitKind.ORDERS, burst=300, refill_seconds=36, renewals_count=False),
    Limit(kind=LimitKind.DOMAIN, burst=50, refill_seconds=202 * 60, renewals_count=False),
    Limit(kind=LimitKind.EXACT_SET, burst=5, refill_seconds=34 * _HOUR),
    Limit(kind=LimitKind.FAILURES, burst=5, refill_seconds=12 * 60),
    Limit(kind=LimitKind.CONSECUTIVE, burst=1152, refill_seconds=_DAY),
)
"""Let's Encrypt, "Rate Limits" (2025): its own words round the refills of the weekly limits up, so do we."""

LETS_ENCRYPT_STAGING = (
    Limit(kind=LimitKind.ORDERS, burst=1500, refill_seconds=7.2, renewals_count=False),
    Limit(kind=LimitKind.DOMAIN, burst=30_000, refill_seconds=20.16, renewals_count=False),
    Limit(kind=LimitKind.EXACT_SET, burst=30_000, refill_seconds=20.16),
    Limit(kind=LimitKind.FAILURES, burst=200, refill_seconds=18),
)
"""Let's Encrypt, "Staging Environment", Rate Limits; it names no count of consecutive failures."""

KNOWN: Mapping[str, tuple[Limit, ...]] = {
    "acme-v02.api.letsencrypt.org": LETS_ENCRYPT,
    "acme-staging-v02.api.letsencrypt.org": LETS_ENCRYPT_STAGING,
}
"""By the host of the ACME directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaLimits:
    """An operator's own table: for other CAs, and for accounts that a CA gave more."""

    host: str
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsTable:
    """What a file of limits says."""

    entries: tuple[CaLimits, ...] = ()


def limits_of(server: str, table: LimitsTable | None = None) -> tuple[Limit, ...]:
    """The limits of the CA with this directory URL; the operator's table first. None known: what it refuses counts."""
    host = (urlsplit(server).hostname or "").lower()
    for entry in table.entries if table else ():
        if entry.host == host:
            return entry.limits
    return KNOWN.get(host, ())


_FIELDS = ("kind", "count", "period_seconds", "refill_seconds", "renewals_count")


def parse_limits(document: object) -> LimitsTable | tuple[FieldError, ...]:
    """A file of limits, or everything that is wrong with it.

    ``{"acme.example.net": [{"kind": "orders", "count": 100, "period_seconds": 3600}]}``: at most 100 in any hour.
    With ``refill_seconds`` in place of the period it is a bucket of 100 that gets one more at each. Raises nothing.
    """
    if not isinstance(document, Mapping):
        return (_wrong("", document, "is not an object", 'write {"<host of the directory>": [limits]}'),)
    errors: list[FieldError] = []
    entries = []
    for host, items in document.items():
        if not isinstance(items, list):
            errors.append(_wrong(str(host), items, "is not a list", "write a list of limits"))
            continue
        parsed = [_limit(f"{host}[{index}]", item, errors) for index, item in enumerate(items)]
        kinds = [limit.kind for limit in parsed if limit]
        errors.extend(
            _wrong(str(host), kind.value, "is given twice", "keep one limit of each kind")
            for kind in dict.fromkeys(kinds)
            if kinds.count(kind) > 1
        )
        entries.append(CaLimits(host=str(host).lower(), limits=tuple(limit for limit in parsed if limit)))
    return tuple(errors) if errors else LimitsTable(entries=tuple(entries))


def _limit(field: str, item: object, errors: list[FieldError]) -> Limit | None:
    before = len(errors)
    if not isinstance(item, Mapping):
        errors.append(_wrong(field, item, "is not an object", 'write {"kind": "orders", "count": 100, …}'))
        return None
    kinds = ", ".join(kind.value for kind in LimitKind)
    errors.extend(
        _wrong(f"{field}.{name}", name, "is not a field of a limit", f"use only {', '.join(_FIELDS)}")
        for name in item
        if name not in _FIELDS
    )
    kind = item.get("kind")
    if not isinstance(kind, str) or kind not in set(LimitKind):
        errors.append(_wrong(f"{field}.kind", kind, "is no kind of limit", f"write one of {kinds}"))
    count = item.get("count")
    if type(count) is not int or not 1 <= count <= 10**9:
        errors.append(_wrong(f"{field}.count", count, "is not a whole number from 1 on", "write how many it allows"))
    given = [name for name in ("period_seconds", "refill_seconds") if name in item]
    if len(given) != 1:
        errors.append(_wrong(field, "", "needs one of period_seconds and refill_seconds", "write one of the two"))
    elif not _positive(item[given[0]]):
        errors.append(_wrong(f"{field}.{given[0]}", item[given[0]], "is no duration", "write seconds, more than 0"))
    renewals = item.get("renewals_count", True)
    if not isinstance(renewals, bool):
        errors.append(_wrong(f"{field}.renewals_count", renewals, "is not true or false", "write true or false"))
    if len(errors) > before:
        return None
    if given[0] == "period_seconds":
        period = timedelta(seconds=float(item["period_seconds"]))
        return within(LimitKind(item["kind"]), item["count"], period, renewals_count=renewals)
    return Limit(
        kind=LimitKind(item["kind"]),
        burst=item["count"],
        refill_seconds=float(item["refill_seconds"]),
        renewals_count=renewals,
    )


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 366 * _DAY


def _wrong(field: str, value: Any, problem: str, fix: str) -> FieldError:
    return FieldError(field=field, value="" if value is None else str(value)[:80], problem=problem, fix=fix)


# --- what a CA says when it refuses -----------------------------------------------------------------------------------

UNTOLD = timedelta(hours=1)
"""A refusal without an instant is believed for so long; cert-manager's own first pause."""

LONGEST = timedelta(days=8)
"""No bucket takes longer than a week to have one more; a later instant is an error of the CA, or of its reader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """A CA's refusal: nothing of this before `until`.

    Attributes:
        kind: the limit, None where the words do not tell; then it is the whole account.
        key: the registered domain or the name; empty for the account and for the exact set of who was refused.
    """

    until: datetime
    kind: LimitKind | None = None
    key: str = ""


# Boulder's own words (letsencrypt/boulder, ratelimits/limiter.go: Decision.Result), of today and of before 2025.
_REFUSALS: tuple[tuple[str, LimitKind], ...] = (
    (r"too many new orders", LimitKind.ORDERS),
    (r"too many certificates .*exact set of", LimitKind.EXACT_SET),
    (r"too many failed authorizations (?:\(\d+\) )?for \"?(?P<key>[\w.*-]+)", LimitKind.FAILURES),
    (r"too many failed authorizations", LimitKind.FAILURES),
    (r"too many certificates .*issued for:? \"?(?P<key>[\w.*-]+)", LimitKind.DOMAIN),
)
_REFUSED = re.compile(r"ratelimited|\b429\b|too many (certificates|new orders|failed authorizations)", re.IGNORECASE)
_UNTIL = re.compile(r"retry after (\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?: UTC|Z)", re.IGNORECASE)


def throttle_of(words: str, now: datetime) -> Throttle | None:
    """What a CA's refusal means, None where it is about no limit. A time in the past, or too far, is bounded."""
    if not _REFUSED.search(words):
        return None
    told = _UNTIL.search(words)
    until = datetime.fromisoformat(f"{told[1]}T{told[2]}").replace(tzinfo=UTC) if told else now + UNTOLD
    until = min(max(until, now), now + LONGEST)
    for pattern, kind in _REFUSALS:
        found = re.search(pattern, words, re.IGNORECASE | re.DOTALL)
        if found:
            key = (found.groupdict().get("key") or "").rstrip(".").lower()
            return Throttle(until=until, kind=kind, key=key)
    return Throttle(until=until)


def by_kind(limits: Iterable[Limit]) -> dict[LimitKind, Limit]:
    """The limits by what they count."""
    return {limit.kind: limit for limit in limits}
