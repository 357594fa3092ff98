"""What do a certificate's three clocks say together: nothing to do, due, overdue, over, or not served?

The clocks: when the issuer means to renew, when the certificate in the Secret ends, and which certificate the edge
really serves. How bad it is that a renewal has not come is decided in `escalation`; here the edge is added, how long a
review may look away, and whether the domain's workflow is to be woken: it attends to its renewal itself, and each wake
is events in its history. Left out: reading the clocks, and what a woken domain does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from lifecycle import findings
from lifecycle.domain import CertificateFacts, Phase, ServingStatus
from lifecycle.escalation import Level, escalate, renewal_time
from lifecycle.findings import Finding


class ClockVerdict(StrEnum):
    """What the clocks say, from quiet to loud; a stale edge is told apart by itself."""

    NOTHING = "nothing"
    DUE = "due"
    DIAGNOSE = "diagnose"
    ALERT = "alert"
    PAGE = "page"
    EXPIRED = "expired"
    STALE_AT_EDGE = "stale-at-edge"


_VERDICTS = {
    Level.WAIT: ClockVerdict.DUE,
    Level.DIAGNOSE: ClockVerdict.DIAGNOSE,
    Level.ALERT: ClockVerdict.ALERT,
    Level.PAGE: ClockVerdict.PAGE,
    Level.EXPIRED: ClockVerdict.EXPIRED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """What was read of one domain.

    Attributes:
        subject: the hostname, or ``Certificate namespace/name``.
        secret: what the Secret holds.
        renewal_at: the issuer's own renewal time (status.renewalTime); None where it has none.
        served: fingerprints that the edge's addresses presented; empty where nobody looked.
        unreached: addresses that presented none.
        issuing: a new certificate is being issued (the `Issuing` condition).
    """

    subject: str
    secret: CertificateFacts
    renewal_at: datetime | None = None
    served: tuple[str, ...] = ()
    unreached: int = 0
    issuing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDomain:
    """What a domain's workflow last told to lists; each may be unknown, since lists lag and attributes may be missing.

    Attributes:
        not_after: the end of the certificate that it has recorded.
        next_check_at: when it looks again by itself.
    """

    phase: str = ""
    serving: str = ""
    not_after: datetime | None = None
    next_check_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """The verdict, what to tell about it, and when to look again if nothing else happens before."""

    verdict: ClockVerdict
    next_look: datetime
    findings: tuple[Finding, ...] = ()


def review(clocks: Clocks, now: datetime) -> Review:
    """What the three clocks say at `now`."""
    escalation = escalate(clocks.secret, clocks.renewal_at, now, hostname=clocks.subject)
    due = renewal_time(clocks.secret, clocks.renewal_at)
    waiting = now < due and escalation.level is Level.WAIT
    verdict = ClockVerdict.NOTHING if waiting else _VERDICTS[escalation.level]
    next_look = due if waiting else escalation.look_at
    found = escalation.findings
    stale = tuple(fingerprint for fingerprint in clocks.served if fingerprint != clocks.secret.fingerprint)
    if stale:
        found = (*found, _stale(clocks, stale))
        next_look = min(next_look, escalation.look_at)
        # an expired Secret is the louder trouble, and its cure renews the edge too
        if verdict is not ClockVerdict.EXPIRED:
            verdict = ClockVerdict.STALE_AT_EDGE
    return Review(verdict=verdict, next_look=next_look, findings=found)


_SAME_INSTANT = timedelta(seconds=1)
"""X.509 counts in seconds (RFC 5280, section 4.1.2.5); two certificates that end at once differ at the edge."""

_MISSING_PAUSE = timedelta(hours=1)
"""A domain that knows that its Secret is missing or unreadable looks again within this."""


def wake_reason(clocks: Clocks, said: Review, known: KnownDomain) -> str:
    """Why the domain is to look now; empty where it need not be told, or is at it already."""
    if not _listens(known):
        return ""
    end = clocks.secret.not_after
    if known.not_after is not None and abs(end - known.not_after) >= _SAME_INSTANT:
        return f"the Secret holds another certificate, which ends on {end:%Y-%m-%d %H:%M} UTC"
    if clocks.issuing and known.phase != Phase.RENEWING:
        # somebody asked for it (cmctl renew); without the domain its challenges have no route, and it waits for ever
        return "it is being renewed without the domain's doing"
    unserved = said.verdict is ClockVerdict.STALE_AT_EDGE or clocks.unreached
    if unserved:
        # a domain that knows it looks every few minutes
        believes = known.serving in ("", ServingStatus.SERVED)
        return "not every address of the gateway serves the Secret's certificate" if believes else ""
    sleeps = known.next_check_at is None or known.next_check_at > said.next_look
    if said.verdict is not ClockVerdict.NOTHING and sleeps:
        due = renewal_time(clocks.secret, clocks.renewal_at)
        return f"its renewal was due on {due:%Y-%m-%d %H:%M} UTC"
    return ""


def wake_reason_without_secret(known: KnownDomain, now: datetime) -> str:
    """Why a domain whose Secret is missing or unreadable is to look now; empty where it is at it already."""
    sleeps = known.next_check_at is None or known.next_check_at > now + _MISSING_PAUSE
    return "its Secret is missing or cannot be read" if _listens(known) and sleeps else ""


def serves(known: KnownDomain) -> bool:
    """Whether the domain should be found at the edge: it is bound, or nobody knows."""
    return _listens(known)


def _listens(known: KnownDomain) -> bool:
    return known.phase in ("", Phase.ACTIVE, Phase.RENEWING)


def _stale(clocks: Clocks, stale: tuple[str, ...]) -> Finding:
    return findings.STALE_AT_EDGE.found(
        subject=clocks.subject,
        problem=(
            f"{len(stale)} of {len(clocks.served)} addresses serve {stale[0][:16]}…, "
            f"while the Secret holds {clocks.secret.fingerprint[:16]}…."
        ),
        fix="Ask for a check; where it lasts, restart the gateway's Pods one by one (kubectl rollout restart).",
    )
