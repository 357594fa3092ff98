"""How far has cert-manager come with a Certificate? Read from its objects, decided without asking anybody.

`Ready=False` is normal while issuing, so it decides nothing: the `Issuing` condition and the failure time do. Left
out: why an issuance failed (`diagnosis`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from lifecycle import findings
from lifecycle.diagnosis import conditions_of, said
from lifecycle.findings import Finding

Document = Mapping[str, Any]

CERTIFICATE_NAME = "cert-manager.io/certificate-name"
"""Annotation of CertificateRequests, Orders and Secrets: whose they are (cert-manager: "Annotations")."""

REVISION = "cert-manager.io/certificate-revision"

LONGEST_SILENCE = timedelta(seconds=10)
"""cert-manager takes up a new Certificate within a second, and a CA takes an order within a few."""


class Progress(StrEnum):
    """What a Certificate's status says."""

    WAITING = "waiting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateProgress:
    """The verdict, cert-manager's own words, and its next renewal time where it has one.

    Attributes:
        failed_at: of the last issuance, where that failed and no later one came of it.
        failures: in a row, up to that one; times of whole seconds do not tell two apart.
        not_after: end of the certificate that the status, `renewal_at` included, speaks of: cert-manager writes a new
            Secret a moment before it.
    """

    progress: Progress
    reason: str = ""
    renewal_at: datetime | None = None
    not_after: datetime | None = None
    issuing: bool = False
    failed_at: datetime | None = None
    failures: int = 0
    findings: tuple[Finding, ...] = ()


def proved_name(challenge: Document) -> str:
    """The hostname that a Challenge proves; of a wildcard's its spec has the name below and a mark."""
    spec = challenge["spec"]
    return f"*.{spec['dnsName']}" if spec.get("wildcard") else str(spec["dnsName"])


def certificate_progress(certificate: Document) -> CertificateProgress:
    """The verdict over one Certificate (cert-manager API reference: CertificateStatus)."""
    status = certificate.get("status") or {}
    conditions = conditions_of(certificate)
    ready, issuing = conditions.get("Ready", {}), conditions.get("Issuing", {})
    failed_at = _instant(status.get("lastFailureTime"))
    failures = int(status.get("failedIssuanceAttempts") or 1) if failed_at else 0

    def seen(progress: Progress, reason: str = "", **more: Any) -> CertificateProgress:
        return CertificateProgress(
            progress=progress, reason=said(reason), failed_at=failed_at, failures=failures, **more
        )

    if issuing.get("status") == "True":
        return seen(Progress.WAITING, issuing.get("message", ""), issuing=True)
    current = ready.get("observedGeneration") == certificate["metadata"].get("generation")
    if ready.get("status") == "True" and current:
        return seen(
            Progress.READY,
            renewal_at=_instant(status.get("renewalTime")),
            not_after=_instant(status.get("notAfter")),
        )
    if issuing.get("status") == "False" and failed_at:
        found = failure(certificate)
        return seen(Progress.FAILED, found.problem, findings=(found,))
    return seen(Progress.WAITING, ready.get("message", ""))


def failure(certificate: Document) -> Finding:
    """The finding that an issuance failed, in cert-manager's words."""
    metadata = certificate["metadata"]
    issuing = conditions_of(certificate).get("Issuing", {})
    return findings.ISSUANCE_FAILED.found(
        subject=f"Certificate {metadata['namespace']}/{metadata['name']}",
        problem=said(issuing.get("message", "")) or "cert-manager gave up without a word.",
        fix=f"kubectl describe orders -n {metadata['namespace']}; mend the cause, then renew",
    )


def issuing_since(certificate: Document) -> datetime | None:
    """When the issuance under way began: the `Issuing` condition's own time; None where none is under way."""
    issuing = conditions_of(certificate).get("Issuing", {})
    return _instant(issuing.get("lastTransitionTime")) if issuing.get("status") == "True" else None


def askable_at(certificate: Document) -> datetime | None:
    """When another issuance may be asked for at the earliest; None where no failure stands before it.

    cert-manager tells the requests of a failed issuance from those of the next one by times in whole seconds
    (requestmanager: FailureTime before the Issuing condition's): within the same second it would take the old failure
    for the new one's, and wait for hours with a certificate already issued.
    """
    failed_at = _instant((certificate.get("status") or {}).get("lastFailureTime"))
    return failed_at + timedelta(seconds=1) if failed_at else None


def issuing_by_hand(certificate: Document, now: datetime, *, again: bool = False) -> list[dict[str, Any]] | None:
    """The status conditions that make cert-manager renew now, as `cmctl renew` sets them; None where it does already.

    `again` sets them also then: what cert-manager has failed to do it tries again at once, not after its back-off.
    Deleting the Secret would do it too, and leave the gateway without a certificate meanwhile.
    """
    if issuing_since(certificate) is not None and not again:
        return None
    kept = [dict(condition) for kind, condition in conditions_of(certificate).items() if kind != "Issuing"]
    asked = {
        "type": "Issuing",
        "status": "True",
        "reason": "ManuallyTriggered",
        "message": "Certificate re-issuance manually triggered",
        "lastTransitionTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "observedGeneration": certificate["metadata"].get("generation", 0),
    }
    return [*kept, asked]


def ready_seconds(certificate: Document, began: datetime | None, now: datetime) -> float:
    """cert-manager's own time, from the beginning to Ready, in whole seconds as it keeps them.

    Args:
        began: of a renewal; None for the first issuance, which began with the Certificate.
        now: when Ready was seen; counts for a renewal, during which Ready may never change.
    """
    start = began or _instant(certificate["metadata"].get("creationTimestamp"))
    if start is None:
        return 0.0
    ready = _instant(conditions_of(certificate).get("Ready", {}).get("lastTransitionTime"))
    end = ready if ready is not None and ready >= start else now
    return max((end - start).total_seconds(), 0.0)


class Parts(NamedTuple):
    """What cert-manager made for the present issuance of one Certificate."""

    requests: tuple[Document, ...]
    orders: tuple[Document, ...]
    challenges: tuple[Document, ...]


def parts(
    certificate: Document,
    requests: Iterable[Document],
    orders: Iterable[Document],
    challenges: Iterable[Document],
) -> Parts:
    """Those that belong to the Certificate's latest revision, out of all in its namespace."""
    ours = [request for request in requests if belongs(request, certificate)]
    latest = max(map(_revision, ours), default=0)
    ours = [request for request in ours if _revision(request) == latest]
    request_ids = {request["metadata"]["uid"] for request in ours}
    own_orders = [order for order in orders if request_ids & set(_owners(order))]
    order_ids = {order["metadata"]["uid"] for order in own_orders}
    return Parts(
        tuple(ours),
        tuple(own_orders),
        tuple(challenge for challenge in challenges if order_ids & set(_owners(challenge))),
    )


def belongs(item: Document, certificate: Document) -> bool:
    """Whether a CertificateRequest or an Order is of this very Certificate, not of an earlier one of its name."""
    metadata, owner = item["metadata"], certificate["metadata"]
    return bool(
        (metadata.get("annotations") or {}).get(CERTIFICATE_NAME) == owner["name"]
        and metadata.get("creationTimestamp", "") >= owner.get("creationTimestamp", "")
    )


def silence(certificate: Document, orders: Iterable[Document], *, controllers: int | None, now: datetime) -> str:
    """Who does not do what it should within seconds, in words; empty where nobody can be blamed.

    Args:
        orders: of the present issuance.
        controllers: available cert-manager controllers; None where that is not known.
    """
    if controllers == 0:
        return "cert-manager's controller is not running: nothing is issued until it is"
    created = _instant(certificate["metadata"].get("creationTimestamp"))
    if not conditions_of(certificate) and created and now - created > LONGEST_SILENCE:
        return f"cert-manager has not looked at the Certificate since {created:%H:%M:%S} UTC"
    for order in orders:
        since = _instant(order["metadata"].get("creationTimestamp"))
        if not (order.get("status") or {}).get("url") and since and now - since > LONGEST_SILENCE:
            return f"the CA has not taken the order since {since:%H:%M:%S} UTC; cert-manager goes on asking"
    return ""


def _owners(item: Document) -> list[str]:
    return [owner["uid"] for owner in item["metadata"].get("ownerReferences") or []]


def _revision(request: Document) -> int:
    text = (request["metadata"].get("annotations") or {}).get(REVISION, "")
    return int(text) if text.isdigit() else 0


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
