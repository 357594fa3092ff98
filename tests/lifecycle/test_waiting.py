"""Waiting for a customer follows a published schedule and ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.waiting import LONGEST_WAIT, OFFSETS, ends_at, next_check, reminder_due

BEGAN = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("checks", "waited", "expected"),
    [
        (0, 0 * MINUTE, 0 * MINUTE),
        (1, 0 * MINUTE, 1 * MINUTE),
        (2, 1 * MINUTE, 2 * MINUTE),
        (3, 2 * MINUTE, 5 * MINUTE),
        (4, 5 * MINUTE, 10 * MINUTE),
        (5, 10 * MINUTE, 1 * HOUR),
        (6, 1 * HOUR, 2 * HOUR),
        (28, 23 * HOUR, 24 * HOUR),
        (29, 24 * HOUR, 28 * HOUR),
        (64, 6 * DAY + 20 * HOUR, 7 * DAY),
        (1, 3 * HOUR + 5 * MINUTE, 4 * HOUR),  # the worker was away
        (2, 1 * MINUTE - timedelta(seconds=3), 2 * MINUTE),  # the timer rang early
        (1, 7 * DAY, None),
        (65, 6 * DAY, None),
    ],
)
def test_the_schedule(checks: int, waited: timedelta, expected: timedelta | None) -> None:
    due = next_check(checks, BEGAN, BEGAN + waited)
    assert (None if expected is None else BEGAN + expected) == due


def test_a_whole_wait_is_64_checks_after_the_first_and_then_over() -> None:
    now, checks = BEGAN, 0
    while (due := next_check(checks, BEGAN, now)) is not None:
        assert due >= now
        now, checks = due, checks + 1
    assert (checks, now) == (1 + len(OFFSETS), ends_at(BEGAN))
    assert len(OFFSETS) == 64


@given(st.integers(0, 80), st.timedeltas(timedelta(0), 8 * DAY))
def test_a_check_lies_ahead_and_within_the_wait(checks: int, waited: timedelta) -> None:
    now = BEGAN + waited
    due = next_check(checks, BEGAN, now)
    if due is None:
        assert waited >= LONGEST_WAIT or checks > len(OFFSETS)
    else:
        assert now <= due <= ends_at(BEGAN)
        assert due - now <= 4 * HOUR or checks > 1


@given(st.integers(1, 64), st.timedeltas(timedelta(0), 7 * DAY), st.timedeltas(timedelta(0), DAY))
def test_later_never_means_an_earlier_check(checks: int, waited: timedelta, more: timedelta) -> None:
    early, late = (next_check(checks, BEGAN, BEGAN + time) for time in (waited, waited + more))
    assert late is None or (early is not None and early <= late)


@pytest.mark.parametrize(
    ("reminders", "waited", "expected"),
    [
        (0, 23 * HOUR, False),
        (0, DAY, True),
        (1, DAY, False),
        (1, 3 * DAY, True),
        (2, 6 * DAY, True),
        (3, 6 * DAY + HOUR, False),
        (0, 8 * DAY, False),
    ],
)
def test_reminders(reminders: int, waited: timedelta, expected: bool) -> None:
    assert expected is reminder_due(reminders, BEGAN, BEGAN + waited)
