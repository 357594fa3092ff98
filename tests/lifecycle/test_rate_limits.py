"""Limits are buckets; a bucket is an instant; a CA's refusal says which bucket is empty, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.rate_limits import (
    LETS_ENCRYPT,
    LETS_ENCRYPT_STAGING,
    CaLimits,
    Limit,
    LimitKind,
    LimitsTable,
    Throttle,
    emptied,
    expected_at,
    free_at,
    limits_of,
    parse_limits,
    taken,
    throttle_of,
    within,
)

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
NEVER = datetime(2000, 1, 1, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
FIVE = Limit(kind=LimitKind.FAILURES, burst=5, refill_seconds=720)


def test_a_full_bucket_gives_its_burst_at_once_and_then_one_at_each_refill() -> None:
    full_at, times = NEVER, []
    now = NOW
    for _ in range(8):
        free = free_at(FIVE, full_at, 0)
        assert free is not None
        now = max(now, free)
        times.append(now - NOW)
        full_at = taken(FIVE, full_at, now)
    assert times == [0 * MINUTE] * 5 + [12 * MINUTE, 24 * MINUTE, 36 * MINUTE]


def test_what_is_held_is_as_good_as_taken_until_it_comes_back() -> None:
    assert free_at(FIVE, NEVER, 5) is None
    assert free_at(FIVE, NOW, 4) == NOW
    assert free_at(FIVE, NOW, 0) == NOW - 48 * MINUTE


def test_when_the_turn_comes_after_others() -> None:
    assert [expected_at(FIVE, NOW, ahead, NOW) - NOW for ahead in (4, 5, 6)] == [0 * MINUTE, 12 * MINUTE, 24 * MINUTE]


def test_a_bucket_that_the_ca_calls_empty_has_one_at_the_instant_it_names() -> None:
    until = NOW + 3 * HOUR
    full_at = emptied(FIVE, NEVER, until)
    assert free_at(FIVE, full_at, 0) == until
    assert emptied(FIVE, full_at, NOW) == full_at  # what we know to be emptier stays so


class Reference:
    """A token bucket in exact numbers, written another way than ours."""

    def __init__(self, burst: int, refill: int) -> None:
        self.burst, self.refill = burst, refill
        self.tokens, self.at = Fraction(burst), 0

    def take(self, at: int) -> bool:
        self.tokens = min(Fraction(self.burst), self.tokens + Fraction(at - self.at, self.refill))
        self.at = at
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@given(st.integers(1, 6), st.integers(1, 50), st.lists(st.integers(0, 60), max_size=60))
def test_our_bucket_is_the_textbook_one(burst: int, refill: int, gaps: list[int]) -> None:
    limit = Limit(kind=LimitKind.ORDERS, burst=burst, refill_seconds=refill)
    reference, full_at, at = Reference(burst, refill), NEVER, 0
    for gap in gaps:
        at += gap
        now = NOW + timedelta(seconds=at)
        free = free_at(limit, full_at, 0)
        assert free is not None
        assert reference.take(at) is (free <= now)
        if free <= now:
            full_at = taken(limit, full_at, now)


@given(st.integers(1, 12), st.integers(1, 100), st.lists(st.integers(0, 40), max_size=80))
def test_a_count_within_a_period_is_never_exceeded(count: int, period: int, gaps: list[int]) -> None:
    limit = within(LimitKind.ORDERS, count, timedelta(seconds=period))
    full_at, now, times = NEVER, NOW, []
    for gap in gaps:
        now += timedelta(seconds=gap)
        free = free_at(limit, full_at, 0)
        assert free is not None
        if free <= now:
            full_at = taken(limit, full_at, now)
            times.append(now)
    for start in times:
        assert sum(start <= time < start + timedelta(seconds=period) for time in times) <= count


@given(st.lists(st.integers(0, 5000), max_size=20), st.randoms(use_true_random=False))
def test_events_learned_in_another_order_never_make_the_bucket_fuller(times: list[int], random: object) -> None:
    def after(order: list[int]) -> datetime:
        full_at = NEVER
        for second in order:
            full_at = taken(FIVE, full_at, NOW + timedelta(seconds=second))
        return full_at

    shuffled = list(times)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert after(shuffled) >= after(sorted(times))


# --- CAs --------------------------------------------------------------------------------------------------------------


def test_limits_go_by_the_directory_and_the_operators_table_comes_first() -> None:
    production = "https://acme-v02.api.letsencrypt.org/directory"
    assert limits_of(production) == LETS_ENCRYPT
    assert limits_of("https://acme-staging-v02.api.letsencrypt.org/directory") == LETS_ENCRYPT_STAGING
    assert limits_of("https://pki.example.net/acme") == ()
    more = LimitsTable(entries=(CaLimits(host="acme-v02.api.letsencrypt.org", limits=(FIVE,)),))
    assert limits_of(production, more) == (FIVE,)


def test_a_file_of_limits() -> None:
    table = parse_limits(
        {
            "PKI.example.net": [
                {"kind": "orders", "count": 100, "period_seconds": 3600},
                {"kind": "exact-set", "count": 5, "refill_seconds": 60, "renewals_count": False},
            ]
        }
    )
    assert isinstance(table, LimitsTable)
    assert limits_of("https://pki.example.net/acme", table) == (
        within(LimitKind.ORDERS, 100, HOUR),
        Limit(kind=LimitKind.EXACT_SET, burst=5, refill_seconds=60, renewals_count=False),
    )


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ([], [""]),
        ({"ca": {}}, ["ca"]),
        ({"ca": [7]}, ["ca[0]"]),
        (
            {"ca": [{"kind": "weight", "count": 0, "period_seconds": -1, "renewals_count": 1, "per": 3}]},
            ["ca[0].per", "ca[0].kind", "ca[0].count", "ca[0].period_seconds", "ca[0].renewals_count"],
        ),
        ({"ca": [{"kind": "orders", "count": 1}]}, ["ca[0]"]),
        (
            {"ca": [{"kind": "orders", "count": True, "period_seconds": 1, "refill_seconds": 1}]},
            ["ca[0].count", "ca[0]"],
        ),
        ({"ca": [{"kind": "orders", "count": 1, "period_seconds": 60}] * 2}, ["ca"]),
    ],
)
def test_everything_wrong_with_a_file_is_said_at_once(document: object, fields: list[str]) -> None:
    errors = parse_limits(document)
    assert isinstance(errors, tuple)
    assert fields == [error.field for error in errors]


# --- refusals ---------------------------------------------------------------------------------------------------------

UNTIL = datetime(2026, 11, 25, 9, 13, 16, tzinfo=UTC)
PREFIX = "429 urn:ietf:params:acme:error:rateLimited: "
SUFFIX = " in the last 168h0m0s, retry after 2026-11-25 09:13:16 UTC: see https://letsencrypt.org/docs/rate-limits/"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("too many new orders (300) from this account" + SUFFIX, Throttle(until=UNTIL, kind=LimitKind.ORDERS)),
        (
            'too many certificates (50) already issued for "example.com"' + SUFFIX,
            Throttle(until=UNTIL, kind=LimitKind.DOMAIN, key="example.com"),
        ),
        (
            "too many certificates (5) already issued for this exact set of identifiers" + SUFFIX,
            Throttle(until=UNTIL, kind=LimitKind.EXACT_SET),
        ),
        (
            "too many certificates (5) already issued for this exact set of domains" + SUFFIX,
            Throttle(until=UNTIL, kind=LimitKind.EXACT_SET),
        ),
        (
            'too many failed authorizations (5) for "shop.example.com"' + SUFFIX,
            Throttle(until=UNTIL, kind=LimitKind.FAILURES, key="shop.example.com"),
        ),
        (
            'too many certificates already issued for "example.com". Retry after 2026-11-25T09:13:16Z: see https://…',
            Throttle(until=UNTIL, kind=LimitKind.DOMAIN, key="example.com"),
        ),
        (PREFIX + "slow down", Throttle(until=NOW + HOUR)),
        (PREFIX + "retry after 2031-01-01 00:00:00 UTC", Throttle(until=NOW + timedelta(days=8))),
        (PREFIX + "retry after 2026-01-01 00:00:00 UTC", Throttle(until=NOW)),
        ("acme: urn:ietf:params:acme:error:caa: CAA record for example.com prevents issuance", None),
        ("", None),
    ],
)
def test_what_a_refusal_means(words: str, expected: Throttle | None) -> None:
    assert expected == throttle_of(words, NOW)
