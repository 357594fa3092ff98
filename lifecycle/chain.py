"""The chain of objects that an issuance passes through, good or bad, and the cluster's warnings about them, for people.

Left out: what is to blame (`diagnosing`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lifecycle import findings
from lifecycle.diagnosis import Document, conditions_of, said
from lifecycle.domain import RoutingStatus
from lifecycle.findings import Finding
from lifecycle.observed import (
    event_at,
    has_endpoints,
    hosts_of,
    issuer_subject,
    place_of,
    pod_ready,
    pod_words,
    state_of,
)
from lifecycle.routing import routing_verdict
from lifecycle.snapshot import (
    FINAL_STATES,
    Snapshot,
    controlled,
    issuer_of,
)

_MOST_LINKS, _MOST_EVENTS = 40, 8


class LinkState(StrEnum):
    """How an object of the chain stands."""

    GOOD = "good"
    WAITING = "waiting"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One object of the chain from the Certificate to the edge, and what it says of itself."""

    subject: str
    state: LinkState
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLine:
    """A warning that the cluster keeps about an object of the chain."""

    at: str
    subject: str
    words: str


def chain_of(seen: Snapshot, found: tuple[Finding, ...]) -> tuple[Link, ...]:
    """Every object that an issuance passes through, whether good or bad."""
    bad = {finding.subject for finding in findings.errors(found)}

    def link(kind: str, document: Document, state: LinkState, words: str) -> Link:
        subject = f"{kind} {place_of(document)}"
        return Link(subject=subject, state=LinkState.BAD if subject in bad else state, words=said(words))

    links: list[Link] = []
    if seen.certificate is not None:
        ready = conditions_of(seen.certificate).get("Ready", {})
        state = LinkState.GOOD if ready.get("status") == "True" else LinkState.WAITING
        words = conditions_of(seen.certificate).get("Issuing", {}).get("message") or ready.get("message", "")
        links.append(link("Certificate", seen.certificate, state, words))
        ref = seen.certificate["spec"]["issuerRef"]
        good = seen.issuer is not None and conditions_of(seen.issuer).get("Ready", {}).get("status") == "True"
        if seen.issuer is not None:
            words = conditions_of(seen.issuer).get("Ready", {}).get("message", "")
            links.append(
                Link(subject=issuer_subject(seen), state=LinkState.GOOD if good else LinkState.BAD, words=said(words))
            )
        elif issuer_of(seen.certificate) is not None:
            state = LinkState.BAD if seen.issuer_seen else LinkState.UNKNOWN
            links.append(Link(subject=f"{ref.get('kind', 'Issuer')} {ref['name']}", state=state, words="not there"))
    if not seen.settled and seen.request is not None:
        ready = conditions_of(seen.request).get("Ready", {})
        failed = ready.get("reason") in ("Failed", "Denied")
        state = LinkState.BAD if failed else _good_if(ready.get("status") == "True")
        links.append(link("CertificateRequest", seen.request, state, ready.get("message", "")))
    if not seen.settled and seen.order is not None:
        links.append(link("Order", seen.order, *_state_words(seen.order)))
    for challenge in seen.present if not seen.settled else ():
        links.append(link("Challenge", challenge, *_state_words(challenge)))
        links += [
            link("Pod", pod, _good_if(pod_ready(pod)), "ready" if pod_ready(pod) else pod_words(pod))
            for pod in seen.solver_pods
            if controlled(pod, challenge)
        ]
        links += [
            link("Service", one, _good_if(has_endpoints(seen, [one])), "")
            for one in seen.solver_services
            if controlled(one, challenge)
        ]
    for hostname in seen.hostnames if seen.answers else ():
        answers = [one for one in seen.answers if one.hostname == hostname]
        verdict = routing_verdict(answers, seen.gateway_addresses, seen.cname_target)
        state = LinkState.GOOD if verdict.status is RoutingStatus.POINTED else LinkState.BAD
        state = LinkState.UNKNOWN if verdict.status is RoutingStatus.UNKNOWN else state
        addresses = ", ".join(dict.fromkeys(address for one in answers for address in one.addresses))
        links.append(Link(subject=f"DNS {hostname}", state=state, words=addresses or "no address"))
    links += [
        link("Gateway", one, LinkState.GOOD, "")
        for one in seen.gateways
        if any(hosts_of(server) & set(seen.hostnames) for server in one["spec"].get("servers") or ())
    ]
    if seen.certificate is not None and seen.secret is not None:
        subject = f"Secret {seen.namespace}/{seen.certificate['spec']['secretName']}"
        words = f"{seen.secret.fingerprint[:16]}, valid until {seen.secret.not_after:%Y-%m-%d %H:%M} UTC"
        links.append(Link(subject=subject, state=LinkState.BAD if subject in bad else LinkState.GOOD, words=words))
    links += [
        Link(
            subject=f"edge {one.address} {one.hostname}",
            state=LinkState.BAD if one.problem else LinkState.GOOD,
            words=one.problem or f"serves {one.fingerprint[:16]}",
        )
        for one in seen.served
    ]
    return tuple(links[:_MOST_LINKS])


def _state_words(document: Document) -> tuple[LinkState, str]:
    state, status = state_of(document), document.get("status") or {}
    good, bad = state in ("valid", "ready"), state in FINAL_STATES - {"valid"}
    words = f"{state or 'made'} {status.get('reason') or ''}".strip()
    return LinkState.GOOD if good else LinkState.BAD if bad else LinkState.WAITING, words


def events_of(seen: Snapshot) -> tuple[EventLine, ...]:
    newest = sorted(seen.events, key=event_at, reverse=True)[:_MOST_EVENTS]
    return tuple(
        EventLine(
            at=event_at(one),
            subject=f"{one['involvedObject'].get('kind')} {one['involvedObject'].get('name')}",
            words=said(f"{one.get('reason') or ''}: {one.get('message') or ''}"),
        )
        for one in newest
    )


def _good_if(good: bool) -> LinkState:
    return LinkState.GOOD if good else LinkState.WAITING
