"""When do we look again while a customer has yet to act, and when do we stop?

Checks come soon while somebody sits in front of a DNS form, and rarely when nobody does: at 1, 2, 5 and 10 minutes,
then hourly through the first day, then every four hours, seven days in all. Instants count from the beginning of the
wait, so a worker that was away skips what it missed and does not make it up. Left out: what a check looks at, and a
check that a person asks for (it changes nothing here).
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime, timedelta

_FIRST_MINUTES = (1, 2, 5, 10)
_HOURLY_UNTIL_HOURS = 24
_LATER_HOURS = 4

LONGEST_WAIT = timedelta(days=7)
"""Then the domain is suspended, and can be resumed in place (Cloudflare for SaaS gives a customer's name as long)."""

REMINDERS = (timedelta(days=1), timedelta(days=3), timedelta(days=6))
"""After a day most who meant to act have acted; the last comes a day before the end."""

OFFSETS = (
    *(timedelta(minutes=minutes) for minutes in _FIRST_MINUTES),
    *(timedelta(hours=hours) for hours in range(1, _HOURLY_UNTIL_HOURS + 1)),
    *(timedelta(hours=hours) for hours in range(_HOURLY_UNTIL_HOURS + _LATER_HOURS, 7 * 24 + 1, _LATER_HOURS)),
)
"""The published schedule, from the beginning of the wait; the last is its end."""


def next_check(checks: int, waiting_since: datetime, now: datetime) -> datetime | None:
    """The instant of the next check, or None where the wait is over and the domain is to be suspended.

    Args:
        checks: how many checks of the schedule were made; a check is never due twice, also where a timer rang early.
            Checks that a person asked for must not be counted: asking often would use up the schedule.
        waiting_since: when the wait began; the first check (`checks` 0) is due at once.
        now: aware.
    """
    if now >= ends_at(waiting_since):
        return None
    if checks <= 0:
        return max(waiting_since, now)
    missed = bisect_right(OFFSETS, now - waiting_since)
    index = max(missed, checks - 1)
    return waiting_since + OFFSETS[index] if index < len(OFFSETS) else None


def ends_at(waiting_since: datetime) -> datetime:
    """When the wait is over."""
    return waiting_since + LONGEST_WAIT


def reminder_due(reminders: int, waiting_since: datetime, now: datetime) -> bool:
    """Whether the customer is to be reminded now; `reminders` is how many were sent in this wait."""
    due = bisect_right(REMINDERS, now - waiting_since)
    return due > reminders and now < ends_at(waiting_since)
