"""Does every name point at our gateway, and if not, which record has to be set?

Decided over answers that were gathered elsewhere. A name points here when every address it resolves to, A and AAAA,
is the gateway's: one wrong address is one visitor, and one validation of a CA, that goes astray. What could not be
looked up (SERVFAIL, REFUSED, time-outs) is unknown, never wrong. Left out: asking name servers, and CAA.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lifecycle import findings
from lifecycle.domain import ActionRequired, DnsRecord, RoutingStatus
from lifecycle.findings import Finding

_MOST_SHOWN = 4


class Lookup(StrEnum):
    """How one question ended."""

    ANSWERED = "answered"
    NXDOMAIN = "nxdomain"
    NO_DATA = "no-data"
    SERVFAIL = "servfail"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    BROKEN = "broken"


_KNOWN = {Lookup.ANSWERED, Lookup.NXDOMAIN, Lookup.NO_DATA}
"""RFC 2308: no such name, and no such type, are answers; everything else says nothing about the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsAnswer:
    """One answer of one name server about one name (A or AAAA); several for a name are judged together.

    Attributes:
        addresses: textual, v4 or v6.
        cnames: the aliases followed, in order.
        detail: the resolver's own words where it failed, cut.
    """

    hostname: str
    lookup: Lookup
    addresses: tuple[str, ...] = ()
    cnames: tuple[str, ...] = ()
    nameserver: str = ""
    detail: str = ""


class RoutingVerdict(NamedTuple):
    """The status of all names together, a finding for each name that is not right, and the records to set."""

    status: RoutingStatus
    findings: tuple[Finding, ...]
    action_required: ActionRequired | None


def routing_verdict(
    answers: Iterable[DnsAnswer], gateway_addresses: tuple[str, ...], cname_target: str = ""
) -> RoutingVerdict:
    """The verdict over all names that there are answers for.

    Args:
        answers: at least one for each name.
        gateway_addresses: of the gateway's Service; where empty nothing can be compared and all is unknown.
        cname_target: a name of ours that customers may alias theirs to; empty where they set addresses. An alias to
            it points here whatever it resolves to: what lies behind it is ours to keep right.
    """
    by_name: dict[str, list[DnsAnswer]] = {}
    for answer in answers:
        by_name.setdefault(answer.hostname, []).append(answer)
    ours = frozenset(map(_canonical, gateway_addresses))
    statuses: list[RoutingStatus] = []
    found: list[Finding] = []
    records: list[DnsRecord] = []
    for hostname, said in by_name.items():
        status = _status(said, ours, cname_target)
        statuses.append(status)
        if status is RoutingStatus.POINTED:
            continue
        wanted = _records(hostname, gateway_addresses, cname_target)
        found.append(_finding(hostname, status, said, ours, wanted))
        if status is not RoutingStatus.UNKNOWN:
            records.extend(wanted)
    action = None
    if records:
        named = ", ".join(dict.fromkeys(record.name for record in records))
        action = ActionRequired(
            summary=f"Set these DNS records, and remove other A, AAAA and CNAME records of {named}.",
            records=tuple(records),
        )
    return RoutingVerdict(_together(statuses), tuple(found), action)


def _status(said: list[DnsAnswer], ours: frozenset[str], cname_target: str) -> RoutingStatus:
    """What is known to be wrong outweighs what is unknown, and that outweighs what is right."""
    if not ours and not cname_target:
        return RoutingStatus.UNKNOWN
    known = [answer for answer in said if answer.lookup in _KNOWN]
    target = _bare(cname_target)
    right = wrong = False
    for answer in known:
        if target and target in map(_bare, answer.cnames):
            right = right or bool(answer.addresses)
            continue
        addresses = set(map(_canonical, answer.addresses))
        right = right or bool(addresses & ours)
        wrong = wrong or bool(addresses - ours)
    if wrong:
        return RoutingStatus.PARTLY if right else RoutingStatus.ELSEWHERE
    if len(known) < len(said):
        return RoutingStatus.UNKNOWN
    return RoutingStatus.POINTED if right else RoutingStatus.MISSING


def _together(statuses: list[RoutingStatus]) -> RoutingStatus:
    present = set(statuses)
    if len(present) == 1:
        return present.pop()
    if not present:
        return RoutingStatus.UNKNOWN
    wrong = present & {RoutingStatus.MISSING, RoutingStatus.ELSEWHERE, RoutingStatus.PARTLY}
    if not wrong:
        return RoutingStatus.UNKNOWN
    if present & {RoutingStatus.POINTED, RoutingStatus.PARTLY}:
        return RoutingStatus.PARTLY
    return RoutingStatus.ELSEWHERE if RoutingStatus.ELSEWHERE in wrong else RoutingStatus.MISSING


def _records(hostname: str, addresses: tuple[str, ...], cname_target: str) -> tuple[DnsRecord, ...]:
    """An alias where we have a name for it; but no CNAME may stand at a zone's apex (RFC 1034, section 3.6.2).

    Whether a name is an apex only its zone knows: a name of two labels is taken for one.
    """
    if cname_target and (hostname.removeprefix("*.").count(".") > 1 or not addresses):
        return (DnsRecord(name=hostname, type="CNAME", value=_bare(cname_target) + "."),)
    return tuple(
        DnsRecord(name=hostname, type="AAAA" if ":" in address else "A", value=address) for address in addresses
    )


def _finding(
    hostname: str,
    status: RoutingStatus,
    said: list[DnsAnswer],
    ours: frozenset[str],
    wanted: tuple[DnsRecord, ...],
) -> Finding:
    fix = "Set " + " and ".join(f"{record.name} {record.type} {record.value}" for record in wanted) + "."
    seen = sorted({_canonical(address) for answer in said for address in answer.addresses})
    if status is RoutingStatus.UNKNOWN:
        failed = [answer for answer in said if answer.lookup not in _KNOWN]
        how = ", ".join(
            dict.fromkeys(
                f"{answer.lookup.value} from {answer.nameserver}" if answer.nameserver else answer.lookup.value
                for answer in failed[:_MOST_SHOWN]
            )
        )
        return findings.NAME_NOT_LOOKED_UP.found(
            subject=hostname,
            problem=f"The name could not be looked up: {how}."
            if how
            else "The gateway has no address to compare with.",
            fix="Nothing to do unless it lasts: then ask the DNS provider (DNSSEC, lame name servers).",
        )
    if status is RoutingStatus.MISSING:
        exists = any(answer.lookup is not Lookup.NXDOMAIN for answer in said)
        problem = "The name has no address." if exists else "The name does not exist in the DNS."
        return findings.NAME_DOES_NOT_RESOLVE.found(subject=hostname, problem=problem, fix=fix)
    foreign = [address for address in seen if address not in ours]
    shown = ", ".join(foreign[:_MOST_SHOWN]) + (" and more" if len(foreign) > _MOST_SHOWN else "")
    if status is RoutingStatus.PARTLY:
        return findings.NAME_POINTS_PARTLY.found(
            subject=hostname, problem=f"The name points here, but also to {shown}.", fix=f"Remove {shown}. {fix}"
        )
    return findings.NAME_POINTS_ELSEWHERE.found(
        subject=hostname, problem=f"The name points to {shown}, not here.", fix=fix
    )


def _canonical(address: str) -> str:
    """One spelling for an address; a text that is none stays as it is and equals nothing of ours."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower()


def _bare(name: str) -> str:
    return name.rstrip(".").lower()
