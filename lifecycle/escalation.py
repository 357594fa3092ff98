"""A renewal is due and nothing new has come: how bad is that by now, and when is it looked at again?

All thresholds are fractions of the life that was left at the renewal time, so that a certificate of six days and one
of ninety are watched alike (facts of the field: express thresholds as fractions). Left out: the fleet's three clocks,
and what is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from lifecycle import findings
from lifecycle.domain import CertificateFacts
from lifecycle.findings import Finding

RENEWED_AT = 2 / 3
"""Fraction of the life after which cert-manager renews by default (cert-manager: "Certificate resource")."""

LOOKS = 20
"""Looks between the renewal time and the end, at least: no state of it lasts longer unseen than a twentieth."""

SHORTEST_PAUSE = timedelta(minutes=1)
"""One look takes seconds; a certificate that lives for minutes is a test's."""


class Level(IntEnum):
    """How bad; the fractions are of the life left at the renewal time."""

    WAIT = 0
    DIAGNOSE = 1
    ALERT = 2
    PAGE = 3
    EXPIRED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """The level, what to say of it, and when to look again."""

    level: Level
    look_at: datetime
    findings: tuple[Finding, ...] = ()


def renewal_time(facts: CertificateFacts, renewal_at: datetime | None) -> datetime:
    """The issuer's own renewal time, or two thirds of the life where it said none."""
    if renewal_at is not None and renewal_at < facts.not_after:
        return renewal_at
    return facts.not_before + (facts.not_after - facts.not_before) * RENEWED_AT


def escalate(facts: CertificateFacts, renewal_at: datetime | None, now: datetime, *, hostname: str) -> Escalation:
    """How bad it is at `now` that the certificate of these facts has not been replaced."""
    due = renewal_time(facts, renewal_at)
    window = facts.not_after - due
    left = facts.not_after - now
    end = f"{facts.not_after:%Y-%m-%d %H:%M} UTC"
    look_at = now + max(window / LOOKS, SHORTEST_PAUSE)
    fix = "Read the Certificate's events and its Order, mend what they name, then renew now."
    if now >= facts.not_after:
        level, kind, problem = Level.EXPIRED, findings.CERTIFICATE_EXPIRED, f"The certificate expired on {end}."
    elif left <= window / 10:
        level, kind, problem = Level.PAGE, findings.EXPIRY_IMMINENT, f"It expires on {end} and was not renewed."
    elif left <= window / 3:
        level, kind, problem = Level.ALERT, findings.EXPIRY_NEAR, f"It expires on {end} and was not renewed."
    elif now >= due + window / 10:
        said = f"Its renewal was due on {due:%Y-%m-%d %H:%M} UTC and has not come."
        level, kind, problem = Level.DIAGNOSE, findings.RENEWAL_OVERDUE, said
    else:
        return Escalation(level=Level.WAIT, look_at=look_at)
    return Escalation(level=level, look_at=look_at, findings=(kind.found(subject=hostname, problem=problem, fix=fix),))
