"""When a failed step is made again: by the CA's measure for orders, within seconds for bindings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lifecycle import findings, pacing
from lifecycle.findings import Finding, FindingKind
from lifecycle.rate_limits import LETS_ENCRYPT, LimitKind, free_at, taken

FAILED = datetime(2027, 1, 1, tzinfo=UTC)


DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("failures", "pause", "soon"),
    [
        (1, timedelta(minutes=10), timedelta(minutes=1)),
        (2, timedelta(minutes=100), timedelta(minutes=10)),
        (3, DAY, timedelta(minutes=100)),
        (4, DAY, DAY),
        (7, DAY, DAY),
        (8, None, None),
        (9, None, None),
    ],
)
def test_an_order_is_made_again_as_the_ca_asks_for(
    failures: int, pause: timedelta | None, soon: timedelta | None
) -> None:
    assert (FAILED + pause if pause else None) == pacing.next_attempt(failures, FAILED)
    assert (FAILED + soon if soon else None) == pacing.next_attempt(failures, FAILED, soon=True)


def kinds(*found: FindingKind) -> list[Finding]:
    return [one.found(subject="shop.example.com", problem="It.", fix="That.") for one in found]


@pytest.mark.parametrize(
    ("found", "seen"),
    [
        ([], False),
        ([findings.CHALLENGE_FAILED], True),
        ([findings.CAA_FORBIDS, findings.ORDER_FAILED, findings.ISSUANCE_FAILED], True),
        ([findings.REHEARSAL_FAILED, findings.CHALLENGE_FAILED], True),
        ([findings.RATE_LIMITED, findings.ISSUANCE_FAILED], False),
        ([findings.ACCOUNT_PAUSED], False),
        ([findings.NAME_REJECTED], False),
        ([findings.REHEARSAL_FAILED, findings.RATE_LIMITED], False),
    ],
)
def test_what_the_ca_says_of_itself_no_look_from_here_refutes(found: list[FindingKind], seen: bool) -> None:
    assert seen is pacing.cause_seen(kinds(*found))


def test_no_hour_sees_more_failures_than_the_ca_allows_however_impatient_somebody_is() -> None:
    """Let's Encrypt's bucket: five, and one more every twelve minutes; cert-manager may have used one before."""
    limit = next(one for one in LETS_ENCRYPT if one.kind is LimitKind.FAILURES)
    for wishes in (False, True):
        now, full_at, failures = FAILED, taken(limit, FAILED, FAILED), 0
        while True:
            free = free_at(limit, full_at, 0)
            assert free is None or free <= now, f"{failures} failures, the next at {now}"
            full_at, failures = taken(limit, full_at, now), failures + 1
            paced = pacing.next_attempt(failures, now, soon=True)
            if paced is None:
                break
            now = min(paced, pacing.earliest_order(failures, now)) if wishes else paced
        assert failures == pacing.MOST_FAILURES


@pytest.mark.parametrize(
    ("failures", "pause"),
    [(1, timedelta(minutes=1)), (2, timedelta(minutes=10)), (3, timedelta(minutes=100)), (4, DAY), (40, DAY)],
)
def test_a_failed_renewal_is_asked_for_after_minutes_instead_of_hours(failures: int, pause: timedelta) -> None:
    assert FAILED + pause == pacing.next_renewal(failures, FAILED)


@pytest.mark.parametrize(
    ("failures", "after", "pause"),
    [
        (1, timedelta(seconds=5), timedelta(seconds=55)),
        (1, timedelta(minutes=1), timedelta(minutes=1)),
        (1, timedelta(minutes=8), timedelta(minutes=8)),
        (1, timedelta(days=3), timedelta(hours=1)),
        (3, timedelta(minutes=10), timedelta(minutes=90)),
    ],
)
def test_whether_its_cause_is_gone_is_looked_at_ever_more_seldom(
    failures: int, after: timedelta, pause: timedelta
) -> None:
    now = FAILED + after
    assert now + pause == pacing.next_look(failures, FAILED, now)


@pytest.mark.parametrize(("failures", "pause"), [(1, timedelta()), (2, timedelta()), (3, timedelta(minutes=12))])
def test_even_a_wish_waits_where_an_order_would_exceed_the_cas_limit(failures: int, pause: timedelta) -> None:
    assert FAILED + pause == pacing.earliest_order(failures, FAILED)


def test_bindings_are_made_again_soon_then_hourly_for_a_week() -> None:
    now, count = FAILED, 0
    while (again := pacing.next_binding(count + 1, now)) is not None:
        assert now < again <= now + timedelta(hours=1)
        now, count = again, count + 1
    assert timedelta(seconds=15) == (pacing.next_binding(1, FAILED) or FAILED) - FAILED
    assert timedelta(days=6, hours=22) < now - FAILED < timedelta(days=7, hours=2)
