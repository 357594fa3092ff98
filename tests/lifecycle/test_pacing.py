"""When a failed step is made again: by the CA's measure for orders, within seconds for bindings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lifecycle import pacing

FAILED = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("failures", "pause"),
    [
        (1, timedelta(minutes=10)),
        (2, timedelta(minutes=100)),
        (3, timedelta(days=1)),
        (7, timedelta(days=1)),
        (8, None),
        (9, None),
    ],
)
def test_an_order_is_made_again_as_the_ca_asks_for(failures: int, pause: timedelta | None) -> None:
    assert (FAILED + pause if pause else None) == pacing.next_attempt(failures, FAILED)


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
