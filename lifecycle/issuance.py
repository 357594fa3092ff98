"""How far has cert-manager come with a Certificate? Read from its objects, decided without asking anybody.

`Ready=False` is normal while issuing, so it decides nothing: the `Issuing` condition and the failure time do. Left
out: reasons told by Orders and CertificateRequests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from lifecycle import findings
from lifecycle.diagnosis import conditions_of, said
from lifecycle.findings import Finding


class Progress(StrEnum):
    """What a Certificate's status says."""

    WAITING = "waiting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateProgress:
    """The verdict, cert-manager's own words, and its next renewal time where it has one."""

    progress: Progress
    reason: str = ""
    renewal_at: datetime | None = None
    findings: tuple[Finding, ...] = ()


def certificate_progress(certificate: Mapping[str, Any]) -> CertificateProgress:
    """The verdict over one Certificate (cert-manager API reference: CertificateStatus)."""
    status = certificate.get("status") or {}
    conditions = conditions_of(certificate)
    ready, issuing = conditions.get("Ready", {}), conditions.get("Issuing", {})
    if issuing.get("status") == "True":
        return CertificateProgress(progress=Progress.WAITING, reason=said(issuing.get("message", "")))
    current = ready.get("observedGeneration") == certificate["metadata"].get("generation")
    if ready.get("status") == "True" and current:
        renewal = status.get("renewalTime")
        return CertificateProgress(
            progress=Progress.READY, renewal_at=datetime.fromisoformat(renewal) if renewal else None
        )
    if issuing.get("status") == "False" and status.get("lastFailureTime"):
        metadata = certificate["metadata"]
        found = findings.ISSUANCE_FAILED.found(
            subject=f"Certificate {metadata['namespace']}/{metadata['name']}",
            problem=said(issuing.get("message", "")) or "cert-manager gave up without a word.",
            fix=f"kubectl describe orders -n {metadata['namespace']}; mend the cause, then renew",
        )
        return CertificateProgress(progress=Progress.FAILED, reason=found.problem, findings=(found,))
    return CertificateProgress(progress=Progress.WAITING, reason=said(ready.get("message", "")))
