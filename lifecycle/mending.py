"""What is said of an issuance that stands still, and of what was done about it.

A tenant may have done what concerns his own domain's Certificate only; what touches others' objects is an operator's.
Left out: which remedy is safe at all (`diagnosing`), and doing it (`activities.remedies`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from lifecycle import claims, findings
from lifecycle.blame import Action, Remedy
from lifecycle.diagnosing import Diagnosis
from lifecycle.domain import Observation, OnboardingRequest
from lifecycle.findings import Finding, Severity
from lifecycle.snapshot import Snapshot
from lifecycle.steps import MendReport, Standstill

STEP = "fix"
"""Lines of evidence with this step tell what was done."""

_SELF_CHECK = findings.CHALLENGE_NOT_REACHABLE.code


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What came of a remedy, in words; `cause` is the finding that it was about."""

    remedy: Remedy
    done: bool
    words: str
    cause: Finding | None = None


def tenants(request: OnboardingRequest, seen: Snapshot, remedy: Remedy) -> bool:
    """Whether the domain itself may do a remedy, whoever of its tenant's people asks.

    An issuance of its own is left to it, since it counts them.
    """
    ours = seen.certificate is not None and claims.is_ours(seen.certificate, request)
    return ours and remedy.own and remedy.action is not Action.RENEW


def mend_report(found: Diagnosis, done: Iterable[Mended], now: datetime) -> MendReport:
    """What the domain records of remedies, and of what was found after them."""
    done = tuple(done)
    lines = [_line(one) for one in done]
    if not lines:
        cause = found.cause if found.cause is not None and found.cause.severity is Severity.ERROR else None
        lines.append(f"nothing was done by itself. {_named(cause)}" if cause else f"nothing to do: {found.summary}")
    return MendReport(
        findings=tuple(one for one in found.findings if not _unseen(one)),
        evidence=tuple(Observation(at=now, step=STEP, detail=line[:300]) for line in lines),
        issuing=any(one.done and one.remedy.renew for one in done),
        renewal=found.remedy is not None and found.remedy.action is Action.RENEW,
    )


def standstill(found: Diagnosis, hostname: str, since: datetime) -> Standstill:
    """What is told of an issuance that has not moved since then.

    cert-manager's own look at a challenge that fails is a cause too, though it is tried again.
    """
    cause = found.cause
    if cause is None or (cause.severity is not Severity.ERROR and cause.code != _SELF_CHECK):
        return Standstill()
    if found.remedy is not None and "--fix" not in cause.fix:
        cause = replace(cause, fix=f"{cause.fix} Or: certwright diagnose {hostname} --fix, to {found.remedy.words}.")
    return Standstill(cause=cause, since=since)


def _line(one: Mended) -> str:
    if not one.done:
        return f"not fixed: {one.remedy.words}: {one.words}"
    return f"fixed: {one.remedy.words}. {_named(one.cause)}" if one.cause else f"fixed: {one.remedy.words}"


def _named(cause: Finding) -> str:
    return f"The cause: {cause.code} {cause.subject}: {cause.problem}"


def _unseen(finding: Finding) -> bool:
    """What may not be looked at is no fault of the domain."""
    return finding.code == findings.PERMISSION_MISSING.code and finding.severity is not Severity.ERROR
