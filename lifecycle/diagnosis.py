"""Why does an issuer or an issuance not come on? The words of cert-manager's objects as findings with a fix.

cert-manager hands on what the CA says as text, so texts are matched here, by the problem types of RFC 8555, section
6.7, where the CA gives them. What nothing matches is told as it stands, cut. Left out: how far an issuance is
(`issuance`), and evidence from outside the cluster (DNS, CAA).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from lifecycle import findings, issuers
from lifecycle.certificate_details import Keystore
from lifecycle.domain import IssuerKind, IssuerRef
from lifecycle.findings import Finding, FindingKind, Severity
from lifecycle.steps import IssuerStatus

Document = Mapping[str, Any]

LONGEST_TEXT = 300
"""Characters of foreign text in a finding."""

FIRST_BACK_OFF = timedelta(hours=1)
LONGEST_BACK_OFF = timedelta(hours=32)
"""cert-manager waits an hour after a failed issuance, then doubles (API reference: CertificateStatus)."""

_FAILED_STATES = {"invalid", "expired", "errored"}
_RETRY_AFTER = re.compile(r"retry after (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC)", re.IGNORECASE)

# The first pattern that is found decides, so the more particular ones come first.
_REASONS: tuple[tuple[str, FindingKind, str], ...] = (
    (
        r"ratelimited|\b429\b|too many (certificates|new orders|failed authorizations|requests)",
        findings.RATE_LIMITED,
        "Wait until the CA's limit is free again; ordering more often makes it worse.",
    ),
    (
        r"error:caa\b|\bcaa\b.*(forbid|prevent|record)|checking caa",
        findings.CAA_FORBIDS,
        "Have the domain's owner allow this CA by a CAA record, or mend the zone's name servers (RFC 8659).",
    ),
    (
        # a client that the CA knows no account for sends an empty key id (RFC 8555, section 6.2)
        r"accountDoesNotExist|account (has been|is|was) deactivated|account is not valid|unable to find.*account"
        r"|key id \(kid\) in jws",
        findings.ACCOUNT_REFUSED,
        "Delete the Secret with the account's key (the issuer's privateKeySecretRef): cert-manager registers a new "
        "account. Then renew.",
    ),
    (
        r"account.*paused|paused.*(account|identifier|issuance)",
        findings.ACCOUNT_PAUSED,
        "Follow the CA's link for unpausing the account, after the cause is mended.",
    ),
    (
        r"rejectedidentifier|policy forbids|unsupportedidentifier",
        findings.NAME_REJECTED,
        "The CA does not issue for this name: ask for another one, or by another CA.",
    ),
    (
        r"no configured challenge solvers|no valid solver|solver configuration",
        findings.NO_SOLVER,
        "Give the issuer an HTTP-01 solver without a selector, or one that selects this name.",
    ),
    (
        r"gateway api is not enabled",
        findings.ISSUER_CONFIGURATION_INVALID,
        "Switch it on in cert-manager (Helm value config.enableGatewayAPI: true), or use http01: virtual-service.",
    ),
    (
        r"already exists",
        findings.REQUEST_DEADLOCK,
        "Delete the old CertificateRequest and its Order by name (cert-manager#7912), then renew.",
    ),
)


def said(text: str) -> str:
    """Foreign words on one line, cut, without the challenge's token, which no history needs."""
    plain = re.sub(r"(/\.well-known/acme-challenge/)[\w-]+", r"\1…", " ".join(text.split()))
    return plain if len(plain) <= LONGEST_TEXT else plain[: LONGEST_TEXT - 1] + "…"


def issuance_findings(
    certificate: Document, requests: Iterable[Document], orders: Iterable[Document], challenges: Iterable[Document]
) -> tuple[Finding, ...]:
    """What keeps a Certificate from being issued, the nearest cause first; empty where all goes its way.

    Args:
        certificate: the Certificate.
        requests, orders, challenges: those of its present issuance.
    """
    found = [
        *sorted(filter(None, map(_challenge, challenges)), key=lambda one: one.severity is not Severity.ERROR),
        *filter(None, map(_order, orders)),
        *filter(None, map(_request, requests)),
        *_backing_off(certificate),
    ]
    # an Order that failed because of a Challenge repeats it: one cause, one finding
    unique = {(finding.code, finding.problem): finding for finding in found}
    if any(finding.code == findings.CHALLENGE_FAILED.code for finding in unique.values()):
        unique = {key: one for key, one in unique.items() if one.code != findings.ORDER_FAILED.code}
    return tuple(unique.values())


def _challenge(challenge: Document) -> Finding | None:
    status = challenge.get("status") or {}
    reason, hostname = said(status.get("reason") or ""), str(challenge["spec"]["dnsName"])
    if challenge["spec"].get("type") == "DNS-01":
        return _dns_challenge(hostname, status, reason)
    if status.get("state") in _FAILED_STATES:
        return _classified(reason, hostname) or findings.CHALLENGE_FAILED.found(
            subject=hostname,
            problem=f"The CA could not prove the name: {reason or 'it gave no reason'}",
            fix=f"Open port 80 of {hostname} to the CA from everywhere, and check its A and AAAA records; then renew.",
        )
    if classified := _classified(reason, hostname):
        return classified
    if status.get("presented") and reason and status.get("state") not in {"valid", "processing"}:
        return findings.CHALLENGE_NOT_REACHABLE.found(
            subject=hostname,
            problem=f"cert-manager does not see its own answer yet: {reason}",
            fix=f"curl -v http://{hostname}/.well-known/acme-challenge/ must reach the gateway; it is tried again.",
        )
    return None


def _dns_challenge(hostname: str, status: Document, reason: str) -> Finding | None:
    """Of a DNS-01 challenge (RFC 8555, section 8.4): the record lies at _acme-challenge, or where an alias leads."""
    record = f"_acme-challenge.{hostname.removeprefix('*.')}"
    if status.get("state") in _FAILED_STATES:
        return _classified(reason, hostname) or findings.CHALLENGE_FAILED.found(
            subject=hostname,
            problem=f"The CA could not prove the name: {reason or 'it gave no reason'}",
            fix=f"dig TXT {record} at every name server of the zone; mend the zone or its alias, then renew.",
        )
    if classified := _classified(reason, hostname):
        return classified
    if reason and status.get("state") not in {"valid", "processing"}:
        fix = f"dig TXT {record}; check the solver's credentials and zone, and the alias if there is one."
        return findings.CHALLENGE_NOT_REACHABLE.found(
            subject=hostname, problem=f"Its DNS record is not there yet: {reason}", fix=fix
        )
    return None


def _order(order: Document) -> Finding | None:
    status = order.get("status") or {}
    if status.get("state") not in _FAILED_STATES:
        return None
    reason, subject = said(status.get("reason") or ""), _subject("Order", order)
    return _classified(reason, subject) or findings.ORDER_FAILED.found(
        subject=subject,
        problem=f"The order is {status['state']}: {reason or 'no reason was given'}",
        fix=f"kubectl describe order -n {order['metadata'].get('namespace')} {order['metadata']['name']}; then renew.",
    )


def _request(request: Document) -> Finding | None:
    conditions = conditions_of(request)
    subject = _subject("CertificateRequest", request)
    denied, ready = conditions.get("Denied", {}), conditions.get("Ready", {})
    words = said(denied.get("message") or ready.get("message") or "")
    if denied.get("status") == "True":
        return findings.REQUEST_DENIED.found(
            subject=subject, problem=f"An approver denied it: {words}", fix="Change the approver's policy, then renew."
        )
    if ready.get("status") == "True":
        return None
    if classified := _classified(words, subject):
        return classified
    issuer = request["spec"]["issuerRef"]
    if re.search(r"referenced .*(not found|does not exist)", words, re.IGNORECASE):
        return findings.ISSUER_MISSING.found(
            subject=f"{issuer.get('kind', 'Issuer')} {issuer['name']}",
            problem=words,
            fix="certwright issuer apply, or name another issuer.",
        )
    if re.search(r"ready status condition|issuer is not ready|not have a ready", words, re.IGNORECASE):
        return findings.ISSUER_NOT_READY.found(
            subject=f"{issuer.get('kind', 'Issuer')} {issuer['name']}",
            problem=words,
            fix=f"kubectl describe {issuer.get('kind', 'issuer').lower()} {issuer['name']}",
        )
    return None


def _backing_off(certificate: Document) -> tuple[Finding, ...]:
    status = certificate.get("status") or {}
    attempts, failed = status.get("failedIssuanceAttempts") or 0, status.get("lastFailureTime")
    if not attempts or not failed:
        return ()
    again = datetime.fromisoformat(failed) + min(FIRST_BACK_OFF * 2 ** min(attempts - 1, 10), LONGEST_BACK_OFF)
    return (
        findings.ISSUANCE_BACKING_OFF.found(
            subject=_subject("Certificate", certificate),
            problem=f"{attempts} issuances failed in a row; cert-manager tries again at {again:%Y-%m-%d %H:%M} UTC.",
            fix="Mend the cause and renew now; that does not wait.",
        ),
    )


def _classified(text: str, subject: str = "") -> Finding | None:
    for pattern, kind, fix in _REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            until = _RETRY_AFTER.search(text)
            return kind.found(
                subject=subject or "the ACME account",
                problem=text,
                fix=f"Wait until {until[1]}, then renew." if until and kind is findings.RATE_LIMITED else fix,
            )
    return None


# --- issuers ----------------------------------------------------------------------------------------------------------

_ISSUER_REASONS = {
    "ErrRegisterACMEAccount": findings.ACCOUNT_NOT_REGISTERED,
    "ErrVerifyACMEAccount": findings.ACCOUNT_NOT_REGISTERED,
    "ErrUpdateACMEAccount": findings.ACCOUNT_NOT_REGISTERED,
    "InvalidConfig": findings.ISSUER_CONFIGURATION_INVALID,
    "InvalidURL": findings.ISSUER_CONFIGURATION_INVALID,
    "InvalidSolver": findings.ISSUER_CONFIGURATION_INVALID,
    "ErrGetKeyPair": findings.CREDENTIALS_MISSING,
    "ErrInvalidKeyPair": findings.ISSUER_CONFIGURATION_INVALID,
}
"""Reasons of the Ready condition of ACME and CA issuers (cert-manager 1.21, pkg/issuer/*/setup.go)."""

_UNREACHABLE = re.compile(
    r"dial tcp|i/o timeout|connection refused|connection reset|no such host|context deadline|\bEOF\b|HTTP 5\d\d",
    re.IGNORECASE,
)


def issuer_status(ref: IssuerRef, issuer: Document | None, *, step: str = "") -> IssuerStatus:
    """What an Issuer or ClusterIssuer says of itself, and what it is; `issuer` None where there is none.

    Not ready and without a finding means that cert-manager has not looked at its present form yet: wait.
    """
    said_of_itself = _issuer_says(ref, issuer, step)
    if issuer is None:
        return said_of_itself
    acme, kind = (issuer.get("spec") or {}).get("acme") or {}, issuers.issuer_type(issuer)
    return dataclasses.replace(
        said_of_itself,
        type=kind.value if kind else "",
        server=str(acme.get("server") or ""),
        profile=str(acme.get("profile") or ""),
        wildcard=issuers.proves_wildcards(issuer),
        solvers=json.dumps(acme.get("solvers") or [], sort_keys=True) if acme else "",
        rehearsal=issuers.rehearsal_of(issuer),
    )


def _issuer_says(ref: IssuerRef, issuer: Document | None, step: str) -> IssuerStatus:
    subject = f"{ref.kind.value} {ref.namespace}/{ref.name}" if ref.namespace else f"{ref.kind.value} {ref.name}"
    if issuer is None:
        missing = findings.ISSUER_MISSING.found(
            subject=subject, problem="It is not there.", fix="certwright issuer apply, or name another issuer."
        )
        return IssuerStatus(ref=ref, step=step, ready=False, findings=(missing,))
    ready = conditions_of(issuer).get("Ready", {})
    status = issuer.get("status") or {}
    account = str((status.get("acme") or {}).get("uri") or "")
    words = said(ready.get("message") or "")
    if ready.get("observedGeneration", 0) != issuer["metadata"].get("generation", 0) or not ready:
        return IssuerStatus(ref=ref, step=step, ready=False, account=account, detail="cert-manager has not looked yet")
    if ready.get("status") == "True":
        return IssuerStatus(ref=ref, step=step, ready=True, account=account, detail=words)
    kind = _ISSUER_REASONS.get(ready.get("reason", ""), findings.ISSUER_NOT_READY)
    describe = "kubectl describe " + (
        f"clusterissuer {ref.name}"
        if ref.kind is IssuerKind.CLUSTER_ISSUER
        else f"issuer -n {ref.namespace} {ref.name}"
    )
    corrected = "server, contact or account Secret" if "acme" in issuer.get("spec", {}) else "spec or Secret"
    fix = f"{describe}; correct its {corrected} and apply it again."
    if kind is findings.CREDENTIALS_MISSING and "not found" not in words:
        kind = findings.ISSUER_CONFIGURATION_INVALID  # it is there, and holds no key pair
    if kind is findings.ACCOUNT_NOT_REGISTERED and _UNREACHABLE.search(words):
        kind, fix = findings.ISSUER_CA_UNREACHABLE, "Let cert-manager reach the CA's directory; it tries again itself."
    found = kind.found(subject=subject, problem=words or "It is not ready and says no reason.", fix=fix)
    return IssuerStatus(ref=ref, step=step, ready=False, account=account, detail=words, findings=(found,))


# --- Secrets ----------------------------------------------------------------------------------------------------------


def keystore_password_missing(store: Keystore, namespace: str, *, there: bool) -> Finding:
    """The finding that a keystore's password is not where it was said to be; `there` whether the Secret is."""
    name = f"{namespace}/{store.secret}"
    return findings.KEYSTORE_PASSWORD_MISSING.found(
        subject=f"Secret {name}",
        problem=f"It has no key {store.key}, with the password of a keystore."
        if there
        else "It is not there, and is to have the password of a keystore.",
        fix=f"certwright issuer credentials {store.secret} --secret-namespace {namespace} {store.key}=env:VARIABLE",
    )


def secret_collision(secret: Document | None, certificate: str) -> Finding | None:
    """Whether a Secret belongs to somebody else than the Certificate of that name, which must not overwrite it.

    cert-manager writes the owner as an annotation; a Secret without it was made by hand or by another tool.
    """
    if secret is None:
        return None
    metadata = secret["metadata"]
    owner = (metadata.get("annotations") or {}).get("cert-manager.io/certificate-name", "")
    if owner == certificate:
        return None
    return findings.SECRET_COLLISION.found(
        subject=_subject("Secret", secret),
        problem=f"It belongs to Certificate {owner}." if owner else "It was not made by cert-manager.",
        fix=f"Rename or remove it: kubectl delete secret -n {metadata.get('namespace')} {metadata['name']}",
    )


def conditions_of(document: Document) -> dict[str, Document]:
    """The status conditions of an object, by type."""
    return {item["type"]: item for item in (document.get("status") or {}).get("conditions") or []}


def _subject(kind: str, document: Document) -> str:
    metadata = document["metadata"]
    return f"{kind} {metadata.get('namespace', '')}/{metadata['name']}"
