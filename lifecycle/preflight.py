"""May a certificate be ordered, now? Everything that must be right before, decided over what was gathered.

All of it is looked at, so that one round names every problem. Left out: gathering, and whose turn it is at the CA.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lifecycle import findings, names
from lifecycle.acceptance import acceptance_findings
from lifecycle.claims import object_collision, other_claims
from lifecycle.delegation import delegation_words
from lifecycle.diagnosis import issuer_status, secret_collision
from lifecycle.domain import (
    ActionRequired,
    DnsRecord,
    IssuerKind,
    IssuerRef,
    Observation,
    OnboardingRequest,
    RoutingStatus,
)
from lifecycle.findings import Finding
from lifecycle.foresight import Foresight, foreseen
from lifecycle.issuers import IssuerType, issuer_type, solvers_of
from lifecycle.platform import Permission, permission_findings
from lifecycle.rehearsal import stage_finding
from lifecycle.routing import DnsAnswer, routing_verdict
from lifecycle.scratch_record import scratch_words
from lifecycle.solvers import solver_findings
from lifecycle.steps import PreflightReport

Document = Mapping[str, Any]

_MOST_SHOWN = 4
_UNRESOLVED = {findings.NAME_NOT_LOOKED_UP.code, findings.DNSSEC_BROKEN.code}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightEvidence:
    """What was gathered for one domain; None stands for an object that is not there.

    Attributes:
        objects: those that already have the names of ours (Certificate, Gateway, VirtualService).
        unseen: findings that say why something could not be looked at; of the objects of that kind nothing is said.
        issuer_seen: False where the issuer could not be looked at.
        stage: where it is to be rehearsed, None where it is not; `stage_issuer` is that issuer.
        ahead: what the CA would meet.
    """

    answers: tuple[DnsAnswer, ...] = ()
    gateway_addresses: tuple[str, ...] = ()
    issuer: Document | None = None
    issuer_seen: bool = True
    stage: IssuerRef | None = None
    stage_issuer: Document | None = None
    secret: Document | None = None
    objects: tuple[Document | None, ...] = ()
    certificates: tuple[Document, ...] = ()
    gateways: tuple[Document, ...] = ()
    virtual_services: tuple[Document, ...] = ()
    denied: tuple[Permission, ...] = ()
    unseen: tuple[Finding, ...] = ()
    ahead: Foresight = field(default_factory=Foresight)


def preflight_report(
    request: OnboardingRequest,
    evidence: PreflightEvidence,
    *,
    cname_target: str,
    now: datetime,
    delegation_zone: str = "",
) -> PreflightReport:
    """The verdict: an order may be made where every name points here and nothing stands against it."""
    routing = routing_verdict(evidence.answers, evidence.gateway_addresses, cname_target)
    ahead = foreseen(
        request,
        evidence.ahead,
        addresses=evidence.gateway_addresses,
        certificates=evidence.certificates,
        unresolved=frozenset(one.subject for one in routing.findings if one.code in _UNRESOLVED),
        cname_target=cname_target,
        now=now,
        delegation_zone=delegation_zone,
    )
    found = (
        *routing.findings,
        *_address(request, evidence),
        *(_issuer(request, evidence) if evidence.issuer_seen else ()),
        *acceptance_findings(request, evidence.issuer, now),
        *_stage(request, evidence),
        *filter(
            None,
            (
                secret_collision(evidence.secret, names.certificate_name(request.hostname)),
                *(object_collision(one, request) for one in evidence.objects),
            ),
        ),
        *other_claims(
            request,
            certificates=evidence.certificates,
            gateways=evidence.gateways,
            virtual_services=evidence.virtual_services,
        ),
        *ahead.findings,
        *permission_findings(evidence.denied),
        *evidence.unseen,
    )
    unique = tuple({(one.code, one.subject, one.problem): one for one in found}.values())
    return PreflightReport(
        routing=routing.status,
        may_proceed=routing.status is RoutingStatus.POINTED and not findings.errors(unique),
        gateway_addresses=evidence.gateway_addresses,
        action_required=_action(routing.action_required, caa=ahead.records, aliases=ahead.aliases),
        findings=unique,
        evidence=_evidence(request, evidence, now),
    )


def without_quota(report: PreflightReport) -> PreflightReport:
    """The report for whoever asks the account's quota: that knows better than the cluster's Orders whose turn it is."""
    found = tuple(one for one in report.findings if one.code != findings.QUOTA_USED_UP.code)
    may_proceed = report.routing is RoutingStatus.POINTED and not findings.errors(found)
    return dataclasses.replace(report, may_proceed=may_proceed, findings=found)


def _action(
    of_routing: ActionRequired | None, *, caa: tuple[DnsRecord, ...], aliases: tuple[DnsRecord, ...]
) -> ActionRequired | None:
    """All records to set: where the names point, those that prove them, and those that let the CA issue."""
    parts = [of_routing] if of_routing else []
    if aliases:
        words = f"Set CNAME {_named(aliases)} in place of what is there; it stays for renewals."
        parts.append(ActionRequired(summary=words, records=aliases))
    if caa:
        words = f"Add these CAA records of {_named(caa)}, beside those that are there."
        parts.append(ActionRequired(summary=words, records=caa))
    if not parts:
        return None
    records = tuple(record for part in parts for record in part.records)
    return ActionRequired(summary=" ".join(part.summary for part in parts), records=records)


def _named(records: tuple[DnsRecord, ...]) -> str:
    return ", ".join(dict.fromkeys(record.name for record in records))


def _address(request: OnboardingRequest, evidence: PreflightEvidence) -> tuple[Finding, ...]:
    if evidence.gateway_addresses:
        return ()
    place = f"{request.gateway.namespace}/{request.gateway.service}"
    missing = findings.GATEWAY_ADDRESS_MISSING.found(
        subject=f"Service {place}",
        problem="The gateway's Service is not there, or has no address.",
        fix=f"kubectl get service -n {place.replace('/', ' ')}; wait for its load balancer, or set spec.externalIPs.",
    )
    return (missing,)


def _issuer(request: OnboardingRequest, evidence: PreflightEvidence) -> tuple[Finding, ...]:
    ref = request.issuer
    if ref.kind is IssuerKind.ISSUER and ref.namespace != request.gateway.namespace:
        # cert-manager documentation, "Issuer Configuration": an Issuer serves its own namespace only
        apart = findings.ISSUER_MISSING.found(
            subject=f"Issuer {ref.namespace}/{ref.name}",
            problem=f"It lies in another namespace than the Certificate, which must be in {request.gateway.namespace}.",
            fix="Name a ClusterIssuer, or an Issuer in the gateway's namespace.",
        )
        return (apart,)
    status = issuer_status(ref, evidence.issuer)
    unproved: tuple[Finding, ...] = ()
    if evidence.issuer is not None and issuer_type(evidence.issuer) is IssuerType.ACME:
        described = f"{ref.kind.value} {ref.name}"
        unproved = solver_findings(described, request.hostnames, solvers_of(evidence.issuer))
    if status.ready or status.findings:
        return (*status.findings, *unproved)
    waiting = findings.ISSUER_NOT_READY.found(
        subject=f"{ref.kind.value} {ref.name}",
        problem=f"It is not ready: {status.detail}.",
        fix=f"kubectl describe {ref.kind.value.lower()} {ref.name}; kubectl get pods -A -l app=cert-manager",
    )
    return (waiting, *unproved)


def _stage(request: OnboardingRequest, evidence: PreflightEvidence) -> tuple[Finding, ...]:
    found = evidence.stage and stage_finding(request, evidence.stage, evidence.stage_issuer)
    return (found,) if found else ()


def _evidence(request: OnboardingRequest, evidence: PreflightEvidence, now: datetime) -> tuple[Observation, ...]:
    """Few lines, since every round adds them to the domain's."""
    lines = []
    if evidence.answers:
        shown = [
            f"{hostname} {', '.join(_addresses(evidence.answers, hostname)) or 'no address'}"
            for hostname in request.hostnames[:_MOST_SHOWN]
        ]
        more = len(request.hostnames) - _MOST_SHOWN
        lines.append(("DNS", "; ".join(shown) + (f"; {more} more" if more > 0 else "")))
    addresses = ", ".join(evidence.gateway_addresses) or "no address"
    lines.append((f"Service {request.gateway.namespace}/{request.gateway.service}", addresses))
    if evidence.ahead.path:
        answered = Counter(str(one.status) if one.status else one.ending.value for one in evidence.ahead.path)
        shown_answers = ", ".join(f"{what} ({count})" for what, count in answered.most_common(_MOST_SHOWN))
        lines.append(("the challenge's path on port 80", shown_answers))
    ways = {one.challenge: one for one in reversed(evidence.ahead.delegations)}
    if ways:
        lines.append(("the challenge's record", "; ".join(map(delegation_words, list(ways.values())[:_MOST_SHOWN]))))
    if evidence.ahead.scratch:
        tried = dict.fromkeys(map(scratch_words, evidence.ahead.scratch))
        lines.append(("a record on trial", "; ".join(list(tried)[:_MOST_SHOWN])))
    return tuple(Observation(at=now, step=step, detail=detail[:300]) for step, detail in lines)


def _addresses(answers: tuple[DnsAnswer, ...], hostname: str) -> list[str]:
    return list(dict.fromkeys(address for one in answers if one.hostname == hostname for address in one.addresses))
