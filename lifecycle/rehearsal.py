"""Is a certificate rehearsed, at which issuer, and what is its shadow?

An issuer names its counterpart by an annotation: for Let's Encrypt its staging environment, which allows forty times as
many failed validations. The same specification is issued there into a Secret that no gateway names; only where that
went well does the real issuer get an order. Left out: making and removing the shadow (`activities.rehearsal`), and what
people write (`lifecycle.issuer_requests`, `lifecycle.requests`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from lifecycle import findings, manifests, names
from lifecycle.diagnosis import conditions_of, issuer_status
from lifecycle.domain import CertificateFacts, IssuerKind, IssuerRef, Observation, OnboardingRequest, Rehearsal
from lifecycle.findings import Finding
from lifecycle.issuers import NO_REHEARSAL, REHEARSAL_ANNOTATION, rehearsal_of
from lifecycle.manifests import Manifest
from lifecycle.snapshot import issuer_of
from lifecycle.steps import IssuanceResult

Document = Mapping[str, Any]

SHADOW_LABEL = "certwright.dev/rehearsal"
"""Of a shadow's Certificate and Secret: whoever counts or keeps domains' Certificates leaves these out."""

NO_SHADOWS = f"!{SHADOW_LABEL}"
"""The selector of all others."""

_LABEL = (SHADOW_LABEL, "true")


def is_shadow(document: Document) -> bool:
    """Whether an object is part of a rehearsal."""
    return SHADOW_LABEL in (document["metadata"].get("labels") or {})


def counterpart(issuer: Document | None) -> IssuerRef | None:
    """The issuer at which this one's certificates are rehearsed; None where it names none."""
    said = rehearsal_of(issuer)
    if issuer is None or said in ("", NO_REHEARSAL):
        return None
    kind, slash, name = said.rpartition("/")
    if not slash:
        kind = str(issuer["kind"])
    namespace = issuer["metadata"].get("namespace", "")
    if kind == IssuerKind.ISSUER and namespace:
        return IssuerRef(name=name, kind=IssuerKind.ISSUER, namespace=namespace)
    return IssuerRef(name=name)


def has_proved_itself(issuer: IssuerRef, certificates: Iterable[Document]) -> bool:
    """Whether one of the Certificates was had from this issuer, and not for a rehearsal."""
    return any(
        issuer_of(one) == issuer and conditions_of(one).get("Ready", {}).get("status") == "True" and not is_shadow(one)
        for one in certificates
    )


def stage_of(request: OnboardingRequest, issuer: Document | None, certificates: Iterable[Document]) -> IssuerRef | None:
    """Where the request is rehearsed; None where it is not.

    Args:
        issuer: the one that the request names.
        certificates: of the cluster; needed only where `Rehearsal.FIRST` decides.
    """
    at = counterpart(issuer)
    if at is None or request.rehearsal is Rehearsal.NEVER:
        return None
    if request.rehearsal is Rehearsal.FIRST and has_proved_itself(request.issuer, certificates):
        return None
    return at


def stage_finding(request: OnboardingRequest, at: IssuerRef, issuer: Document | None) -> Finding | None:
    """Why nothing can be rehearsed at this issuer now; None where it is ready.

    `issuer` is that issuer's document, None where it is not there.
    """
    status = issuer_status(at, issuer)
    if at == request.issuer:
        why = "it is the issuer itself, whose limits a rehearsal is to spare"
    elif status.ready:
        return None
    else:
        why = status.findings[0].problem if status.findings else f"not ready: {status.detail}"
    return findings.REHEARSAL_ISSUER_MISSING.found(
        subject=_words(at),
        problem=f"Certificates of {_words(request.issuer)} are rehearsed there first, and it cannot be used: {why}",
        fix=f"Apply that issuer; or do without: {_without(request.issuer)}",
    )


def rehearsed(request: OnboardingRequest, at: IssuerRef) -> OnboardingRequest:
    """The request as it is rehearsed: all that a CA sees of it.

    Not with labels of the customer's for the Secret: other programs copy Secrets by them. Nor with keystores, which are
    further copies of a key that nobody will use.
    """
    spec = dataclasses.replace(
        request.certificate, secret_labels=(_LABEL,), secret_annotations=(), temporary=False, jks=None, pkcs12=None
    )
    return dataclasses.replace(request, issuer=at, certificate=spec)


def shadow(request: OnboardingRequest, at: IssuerRef) -> Manifest:
    """The Certificate of a rehearsal, in the gateway's namespace as the real one, with a Secret of its own."""
    made = manifests.certificate(rehearsed(request, at))
    name = names.rehearsal_name(request.hostname)
    made["metadata"]["name"] = made["spec"]["secretName"] = name
    made["metadata"]["labels"] = made["metadata"]["labels"] | dict([_LABEL])
    return made


def failed(request: OnboardingRequest, at: IssuerRef, result: IssuanceResult) -> IssuanceResult:
    """What a rehearsal that went wrong means for the request: nothing is ordered, and the causes are told."""
    cause = result.findings[0] if result.findings else None
    why = cause.problem if cause else "nothing came of it"
    told = findings.REHEARSAL_FAILED.found(
        subject=request.hostname,
        problem=f"Rehearsed at {_words(at)}, and it failed; nothing was ordered of {_words(request.issuer)}. {why}",
        fix=f"{cause.fix if cause else 'Look at that issuer.'} It is rehearsed again by itself; where only that issuer "
        f"cannot issue it: {_without(request.issuer)}",
    )
    # the shadow is gone, so nobody waits for its sake
    causes = (one for one in result.findings if one.code != findings.ISSUANCE_BACKING_OFF.code)
    return IssuanceResult(ready=False, findings=(told, *causes), evidence=result.evidence, cause_seen=result.cause_seen)


def observed(at: IssuerRef, secret: CertificateFacts, seconds: float, now: datetime) -> Observation:
    """The line of evidence of a rehearsal that went well."""
    return Observation(
        at=now,
        step="rehearsal",
        detail=f"rehearsed at {_words(at)}: {secret.fingerprint[:16]}… by {secret.issuer} after {seconds:.0f} s, "
        "names and key as asked for; it was taken away",
    )


def _without(issuer: IssuerRef) -> str:
    where = f" -n {issuer.namespace}" if issuer.namespace else ""
    return (
        f"kubectl annotate {issuer.kind.lower()}{where} {issuer.name} --overwrite {REHEARSAL_ANNOTATION}={NO_REHEARSAL}"
    )


def _words(ref: IssuerRef) -> str:
    return f"{ref.kind.value} {ref.namespace}/{ref.name}" if ref.namespace else f"{ref.kind.value} {ref.name}"
