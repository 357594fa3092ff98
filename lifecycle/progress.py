"""How does a domain's state change, and how is it told to a person?

Pure transitions of `DomainState` and the Markdown of Temporal's page. The order of the steps is the workflow's.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

from lifecycle import findings as kinds
from lifecycle.domain import (
    CertificateStatus,
    DomainState,
    DomainStatus,
    Observation,
    OnboardingRequest,
    Phase,
    RoutingStatus,
    ServingStatus,
)
from lifecycle.findings import Finding
from lifecycle.steps import Hindrance, Standstill

MOST_EVIDENCE = 40
"""Lines of evidence that are carried: a year of renewals, and about 6 KB in each answer and each new run."""

MOST_FINDINGS = 20
"""More than this no one reads; the first say why."""

LONGEST_DETAIL = 300
"""Characters of one line of evidence."""

ENDED = (Phase.RETIRED, Phase.REFUSED)
"""Phases that a domain does not leave."""


def begin(request: OnboardingRequest) -> DomainState:
    """The state in which a domain is requested."""
    return DomainState(
        request=request,
        status=DomainStatus(
            hostname=request.hostname,
            hostnames=request.hostnames,
            tenant=request.tenant,
            phase=Phase.REQUESTED,
            routing=RoutingStatus.UNKNOWN,
            certificate=CertificateStatus.NONE,
            serving=ServingStatus.NONE,
            step="requested",
        ),
    )


def shown(state: DomainState, **changes: Any) -> DomainState:
    """The state with changes to what a portal shows; findings are kept few."""
    if "findings" in changes:
        changes["findings"] = tuple(dict.fromkeys(changes["findings"]))[:MOST_FINDINGS]
    return dataclasses.replace(state, status=dataclasses.replace(state.status, **changes))


def noted(state: DomainState, *lines: Observation) -> DomainState:
    """The state with more evidence; the oldest goes first."""
    cut = tuple(
        line if len(line.detail) <= LONGEST_DETAIL else dataclasses.replace(line, detail=line.detail[:LONGEST_DETAIL])
        for line in lines
    )
    return shown(state, evidence=(*state.status.evidence, *cut)[-MOST_EVIDENCE:])


def hindered(status: DomainStatus, hindrance: Hindrance | None) -> DomainStatus:
    """The status as it is to be read while the surroundings are broken."""
    if hindrance is None or not hindrance.problem or hindrance.since is None:
        return status
    return dataclasses.replace(
        status,
        step=f"{hindrance.step}: surroundings broken since {hindrance.since:%H:%M:%S} UTC, trying again",
        waiting_until=hindrance.again_by,
        findings=(broken(status.hostname, hindrance), *status.findings)[:MOST_FINDINGS],
    )


def standing(status: DomainStatus, standstill: Standstill | None) -> DomainStatus:
    """The status as it is to be read while an issuance stands still."""
    if standstill is None or standstill.cause is None:
        return status
    since = f" since {standstill.since:%H:%M:%S} UTC" if standstill.since else ""
    cause = standstill.cause
    others = (one for one in status.findings if (one.code, one.subject) != (cause.code, cause.subject))
    return dataclasses.replace(
        status,
        step=f"{status.step}; nothing has moved{since}",
        findings=(cause, *others)[:MOST_FINDINGS],
    )


def broken(subject: str, hindrance: Hindrance) -> Finding:
    """The finding that says what does not answer, and since when."""
    since = f"{hindrance.since:%Y-%m-%d %H:%M:%S} UTC" if hindrance.since else "now"
    return kinds.SURROUNDINGS_BROKEN.found(
        subject=subject,
        problem=f"Not possible since {since}: {hindrance.step}. {hindrance.problem}"[:LONGEST_DETAIL],
        fix="Nothing is lost and it is tried again by itself; look after what does not answer.",
    )


def suspended(state: DomainState, why: str) -> DomainState:
    """The state in which nothing is done until somebody asks for a check."""
    hostname = state.request.hostname
    found = kinds.DOMAIN_SUSPENDED.found(
        subject=hostname, problem=why, fix=f"Put it right, then ask for a check: certwright check {hostname}"
    )
    return shown(
        dataclasses.replace(state, checks=0, reminders=0, waiting_since=None, failures=0, failed_at=None),
        phase=Phase.SUSPENDED,
        step="suspended until somebody asks for a check",
        next_check_at=None,
        findings=(found, *state.status.findings),
    )


def markdown(status: DomainStatus) -> str:
    """The page of one domain: its state, what is to be done, what was found, what comes next."""

    def at(instant: datetime | None) -> str:
        return f"{instant:%Y-%m-%d %H:%M:%S} UTC" if instant else "-"

    lines = [
        f"**{status.hostname}** is {status.phase.value}: {status.step}",
        "",
        "| routing | certificate | serving | valid until | renewal | next look |",
        "|---|---|---|---|---|---|",
        f"| {status.routing.value} | {status.certificate.value} | {status.serving.value} "
        f"| {at(status.secret.not_after if status.secret else None)} | {at(status.renewal_at)} "
        f"| {at(status.next_check_at)} |",
    ]
    if status.quota:
        waits = status.quota
        lines += [
            "",
            f"Waits for its turn to order: place {waits.place or '-'}, expected {at(waits.expected_at)} "
            f"({waits.lane}, account {waits.account})",
        ]
    if status.action_required:
        lines += ["", f"**To do:** {status.action_required.summary}", ""]
        lines += [f"- `{record.name} {record.type} {record.value}`" for record in status.action_required.records]
    if status.findings:
        lines += ["", "**Findings**", ""]
        lines += [f"- {item.code} {item.title} ({item.subject}): {item.problem} {item.fix}" for item in status.findings]
    return "\n".join(lines)
