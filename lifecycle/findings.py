"""What is wrong, in words: the one place where every kind of finding is recorded.

A finding is a value, never an exception. Its code is stable and never reused (`docs/findings.md` has one heading per
code), its fix is a command, a record or a field with the values filled in. This module does not decide when a finding
applies; the module that owns the rule does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding weighs: an error stops the step, a warning does not, a note explains."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Handling(StrEnum):
    """Who or what ends the trouble; each kind of failure is handled by its kind."""

    RETRY = "retry"
    CUSTOMER = "wait-for-customer"
    CA = "wait-for-ca"
    OPERATOR = "needs-operator"
    BUG = "bug"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem with one object.

    Attributes:
        code: stable code, e.g. ``CW1101``; heading of `docs/findings.md`.
        title: CamelCase name of the kind, e.g. ``NameDoesNotResolve``.
        severity: whether it stops the step.
        handling: who ends it.
        subject: the hostname or ``Kind namespace/name`` it is about.
        problem: what is wrong, one sentence.
        fix: the exact command, record or field to set.
    """

    code: str
    title: str
    severity: Severity
    handling: Handling
    subject: str
    problem: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingKind:
    """A record of the catalogue: what all findings with one code have in common."""

    code: str
    title: str
    severity: Severity
    handling: Handling

    def found(self, *, subject: str, problem: str, fix: str) -> Finding:
        """The finding of this kind about one subject."""
        return Finding(
            code=self.code,
            title=self.title,
            severity=self.severity,
            handling=self.handling,
            subject=subject,
            problem=problem,
            fix=fix,
        )


def errors(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Those findings that stop a step."""
    return tuple(finding for finding in findings if finding.severity is Severity.ERROR)
