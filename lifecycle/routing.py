"""Does every name point at our gateway, and if not, which record has to be set?

Decided over answers that were gathered elsewhere. A name points here when every address it resolves to, A and AAAA,
is the gateway's: one wrong address is one visitor, and one validation of a CA, that goes astray. What could not be
looked up (SERVFAIL, REFUSED, time-outs) is unknown, never wrong. What the zone's own servers say is where the name is
going; what resolvers say besides is what they still remember. Left out: asking name servers, and CAA.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lifecycle import findings
from lifecycle.cdn import cdns_of
from lifecycle.domain import ActionRequired, DnsRecord, RoutingStatus
from lifecycle.findings import Finding

_MOST_SHOWN = 4

LONGEST_CHAIN = 8
"""Aliases that are followed from zone to zone; resolvers give up at about as many (RFC 1034, section 3.6.2)."""


DNS_PORT = 53


class Lookup(StrEnum):
    """How one question ended."""

    ANSWERED = "answered"
    NXDOMAIN = "nxdomain"
    NO_DATA = "no-data"
    SERVFAIL = "servfail"
    BOGUS = "dnssec-bogus"
    """SERVFAIL, and an answer when asked not to check signatures (RFC 4035, section 3.2.2: the CD bit)."""
    REFUSED = "refused"
    TIMEOUT = "timeout"
    BROKEN = "broken"


KNOWN = {Lookup.ANSWERED, Lookup.NXDOMAIN, Lookup.NO_DATA}
"""RFC 2308: no such name, and no such type, are answers; everything else says nothing about the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsAnswer:
    """One answer of one name server about one name (A or AAAA); several for a name are judged together.

    Attributes:
        addresses: textual, v4 or v6.
        cnames: the aliases followed, in order.
        detail: the resolver's own words where it failed, cut.
        authoritative: asked of one of the zone's own servers; these do not follow an alias out of the zone.
        ttl: seconds that the answer may still be remembered, 0 where that is not known.
    """

    hostname: str
    lookup: Lookup
    addresses: tuple[str, ...] = ()
    cnames: tuple[str, ...] = ()
    nameserver: str = ""
    detail: str = ""
    authoritative: bool = False
    ttl: int = 0


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
        status, moving = _judged(said, ours, cname_target)
        statuses.append(status)
        if status is RoutingStatus.POINTED:
            continue
        wanted = _records(hostname, gateway_addresses, cname_target)
        if moving is not None:
            found.append(moving)
            continue
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


def _judged(said: list[DnsAnswer], ours: frozenset[str], cname_target: str) -> tuple[RoutingStatus, Finding | None]:
    """The status of one name; with a finding where the records are right and only not known everywhere yet."""
    resolvers = [answer for answer in said if not answer.authoritative]
    zone = _telling([answer for answer in said if answer.authoritative], cname_target)
    remembered = _status(resolvers, ours, cname_target) if resolvers else RoutingStatus.UNKNOWN
    by_resolver = _by_server(resolvers, ours, cname_target)
    behind = [name for name, status in by_resolver.items() if status in _WRONG]
    if not zone:
        # Some know it here and some do not: whichever way it goes, it arrives by itself.
        if behind and RoutingStatus.POINTED in by_resolver.values():
            return RoutingStatus.PARTLY, _in_motion(said, behind, "Resolvers differ: the resolver")
        return remembered, None
    by_zone = _by_server(zone, ours, cname_target)
    if RoutingStatus.POINTED not in by_zone.values():
        return _status(zone, ours, cname_target), None
    lame = [name for name, status in by_zone.items() if status is not RoutingStatus.POINTED]
    if lame:
        return RoutingStatus.PARTLY, _in_motion(said, lame, "The zone's own servers differ:")
    if behind:
        return RoutingStatus.PARTLY, _in_motion(said, behind, "The record is right, but the resolver")
    return remembered, None


def _telling(zone: list[DnsAnswer], cname_target: str) -> list[DnsAnswer]:
    """The answers of those servers of a zone that answered every question about the name.

    Of the others nothing is believed: they are several, and our way to them may be closed. An alias that leads out of
    the zone tells nothing either, unless it is to our own name.
    """
    target = _bare(cname_target)
    silent = {
        answer.nameserver
        for answer in zone
        if answer.lookup not in KNOWN
        or (answer.cnames and not answer.addresses and target not in map(_bare, answer.cnames))
    }
    return [answer for answer in zone if answer.nameserver not in silent]


def _by_server(said: list[DnsAnswer], ours: frozenset[str], cname_target: str) -> dict[str, RoutingStatus]:
    servers: dict[str, list[DnsAnswer]] = {}
    for answer in said:
        servers.setdefault(answer.nameserver, []).append(answer)
    return {name: _status(answers, ours, cname_target) for name, answers in servers.items()}


def _in_motion(said: list[DnsAnswer], behind: list[str], words: str) -> Finding:
    late = [answer for answer in said if answer.nameserver in behind]
    shown = ", ".join(name or "the system's" for name in behind[:_MOST_SHOWN])
    seen = ", ".join(sorted({address for answer in late for address in answer.addresses})[:_MOST_SHOWN])
    longest = max((answer.ttl for answer in late), default=0)
    wait = f"within {longest} s" if longest else "within some minutes"
    return findings.NAME_IN_MOTION.found(
        subject=said[0].hostname,
        problem=f"{words} {shown} answers {seen or 'that there is none'}.",
        fix=f"Nothing to do: the change arrives {wait}. If it stays, ask the DNS provider why its servers differ.",
    )


def _status(said: list[DnsAnswer], ours: frozenset[str], cname_target: str) -> RoutingStatus:
    """What is known to be wrong outweighs what is unknown, and that outweighs what is right."""
    if not ours and not cname_target:
        return RoutingStatus.UNKNOWN
    known = [answer for answer in said if answer.lookup in KNOWN]
    target = _bare(cname_target)
    right = wrong = False
    for answer in known:
        if target and target in map(_bare, answer.cnames):
            right = right or bool(answer.addresses) or answer.authoritative
            continue
        addresses = set(map(_canonical, answer.addresses))
        right = right or bool(addresses & ours)
        wrong = wrong or bool(addresses - ours)
    if wrong:
        return RoutingStatus.PARTLY if right else RoutingStatus.ELSEWHERE
    if len(known) < len(said):
        return RoutingStatus.UNKNOWN
    return RoutingStatus.POINTED if right else RoutingStatus.MISSING


_WRONG = {RoutingStatus.MISSING, RoutingStatus.ELSEWHERE, RoutingStatus.PARTLY}


def _together(statuses: list[RoutingStatus]) -> RoutingStatus:
    present = set(statuses)
    if len(present) == 1:
        return present.pop()
    if not present:
        return RoutingStatus.UNKNOWN
    wrong = present & _WRONG
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
        failed = [answer for answer in said if answer.lookup not in KNOWN and not answer.authoritative]
        if any(answer.lookup is Lookup.BOGUS for answer in failed):
            return findings.DNSSEC_BROKEN.found(
                subject=hostname,
                problem="The name answers only where DNSSEC signatures are not checked; resolvers and CAs check them.",
                fix=f"Make the DS record at the registrar match the zone's keys, or remove it: dig +dnssec {hostname}; "
                f"https://dnsviz.net/d/{hostname}/ shows where it breaks.",
            )
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
    networks = cdns_of(foreign)
    if networks:
        proxy = " and ".join(networks)
        return findings.NAME_PROXIED.found(
            subject=hostname,
            problem=f"The name is proxied: it points to {shown}, which is {proxy}, not here.",
            fix=f"Switch the proxy of {proxy} off for this name (DNS only). {fix}",
        )
    if status is RoutingStatus.PARTLY:
        stray = " and ".join(f"the {'AAAA' if ':' in one else 'A'} record {one}" for one in foreign[:_MOST_SHOWN])
        return findings.NAME_POINTS_PARTLY.found(
            subject=hostname, problem=f"The name points here, but also to {shown}.", fix=f"Remove {stray}. {fix}"
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


def server_address(text: str) -> tuple[str, int]:
    """Host and port of a name server as settings and issuers write it, without brackets; 53 where none is written."""
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (host.startswith("[") or ":" not in host):
        return host.strip("[]"), int(port)
    return text.strip("[]"), DNS_PORT
