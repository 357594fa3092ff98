"""Does ``_acme-challenge`` lead to where the issuer's DNS-01 solver can write?

What cert-manager 1.21 does is the measure (pkg/issuer/acme/dns/util: followCNAMEs, FindZoneByFqdn): with cnameStrategy
Follow it writes where the aliases end, with None at the name itself; the zone is the nearest level upwards with an SOA
record. The CA follows aliases always (RFC 8555, section 8.4). What cannot be known, such as whose account a hosted
zone is in, is not called wrong. Left out: asking name servers, and whether a record can be written there
(`scratch_record`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from lifecycle import findings
from lifecycle.domain import DnsRecord
from lifecycle.findings import Finding
from lifecycle.registered_domain import is_registry, registered_domain
from lifecycle.routing import KNOWN, LONGEST_CHAIN, Lookup, server_address
from lifecycle.solvers import OWN_LABELS, explain, words

Document = Mapping[str, Any]

RFC2136, ACME_DNS, AZURE_DNS, WEBHOOK = "rfc2136", "acmeDNS", "azureDNS", "webhook"
"""Providers by cert-manager's names of them."""

USUAL_SERVERS = {
    # Amazon Route 53 Developer Guide, "Getting the name servers for a public hosted zone"
    "route53": re.compile(r"ns-\d+\.awsdns-\d+\.(com|net|org|co\.uk)"),
    # Cloudflare documentation, "Nameserver options"
    "cloudflare": re.compile(r"[a-z0-9-]+\.ns\.cloudflare\.com"),
    # Google Cloud DNS documentation, "Update your domain's name servers"
    "cloudDNS": re.compile(r"ns-cloud-[a-z]\d\.googledomains\.com"),
    # Microsoft Learn, "Delegation of DNS zones with Azure DNS"
    AZURE_DNS: re.compile(r"ns\d+-\d+\.azure-dns\.(com|net|org|info)"),
    # DigitalOcean documentation, "Point to DigitalOcean name servers"
    "digitalocean": re.compile(r"ns\d\.digitalocean\.com"),
    # Akamai TechDocs, "Edge DNS: Delegate a zone"
    "akamai": re.compile(r"a\d+-\d+\.akam\.net"),
}
"""Name servers of hosted zones. All but DigitalOcean also serve zones under servers named by the customer."""

MANY_VALUES = 5
"""Ours. One or two at a name are of orders under way, and acme-dns keeps two always; more were left behind."""

_LONGEST_NAME = 253
_MOST_SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicUpdates:
    """How an RFC 2136 solver sends its updates.

    Attributes:
        nameserver: ``host`` or ``host:port``.
        key_name: of TSIG (RFC 8945); empty where updates are not signed.
        algorithm: as cert-manager spells it.
        secret: the Secret with the key, and `secret_key` its key there.
    """

    nameserver: str
    key_name: str = ""
    algorithm: str = "HMACMD5"
    secret: str = ""
    secret_key: str = ""
    tcp: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSolver:
    """A DNS-01 solver of an issuer.

    Attributes:
        provider: as cert-manager names it, e.g. ``rfc2136``.
        title: in words.
        follows: whether cert-manager writes at the end of the aliases.
        updates: of RFC 2136.
        zone: the only zone that it writes to, where the issuer names one.
    """

    provider: str
    title: str
    follows: bool
    updates: DynamicUpdates | None = None
    zone: str = ""

    @property
    def nameserver(self) -> str:
        """The one that takes the updates, empty where there is none."""
        return self.updates.nameserver if self.updates else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsChallenge:
    """A record by which names are proved; a wildcard and its apex share one (RFC 8555, section 8.4)."""

    record: str
    solver: DnsSolver


class Authority(StrEnum):
    """Does the solver's own name server answer for the zone?"""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """What one resolver said of the way from a record to its zone.

    Attributes:
        nameserver: the resolver, empty for the system's.
        lookup: how the last question about an alias ended.
        aliases: in order; the last is the first one again where they lead in a circle.
        wildcard: whether any other name beside the record has the same alias, so that it is a wildcard's.
        zone: that the writing goes to; empty where none was found.
        zone_lookup: how the last question on the way up ended.
        servers: of the zone, by its NS records.
        authority: what the solver's name server says of the zone.
        values: TXT records there.
    """

    challenge: DnsChallenge
    lookup: Lookup
    nameserver: str = ""
    aliases: tuple[str, ...] = ()
    wildcard: bool = False
    zone: str = ""
    zone_lookup: Lookup = Lookup.ANSWERED
    servers: tuple[str, ...] = ()
    authority: Authority = Authority.UNKNOWN
    values: int = 0

    @property
    def written_at(self) -> str:
        """The name that cert-manager writes to."""
        return written_at(self.challenge, self.aliases)


class DelegationVerdict(NamedTuple):
    """What stands against the challenges, the records that the customer has to set, and where one can be written."""

    findings: tuple[Finding, ...] = ()
    records: tuple[DnsRecord, ...] = ()
    writable: tuple[Delegation, ...] = ()


def challenge_record(hostname: str) -> str:
    """RFC 8555, section 8.4; for a wildcard without its label (section 7.1.3)."""
    return f"_acme-challenge.{hostname.removeprefix('*.')}"


def dns_challenges(hostnames: Iterable[str], solvers: Sequence[Document]) -> tuple[DnsChallenge, ...]:
    """The records of those names that a DNS-01 solver proves, each once."""
    found = []
    for hostname in hostnames:
        number = explain(hostname, solvers, OWN_LABELS).number
        if number >= 0 and solvers[number].get("dns01") is not None:
            found.append(dns_challenge(hostname, solvers[number]))
    return tuple(dict.fromkeys(found))


def dns_challenge(hostname: str, solver: Document) -> DnsChallenge:
    """The record by which a DNS-01 solver, as cert-manager writes it, proves a name."""
    return DnsChallenge(record=challenge_record(hostname), solver=_solver(solver))


def _solver(solver: Document) -> DnsSolver:
    dns01 = solver["dns01"]
    provider = next((name for name in dns01 if name != "cnameStrategy"), "")
    section = dns01.get(provider) or {}
    return DnsSolver(
        provider=provider,
        title=words(solver),
        follows=dns01.get("cnameStrategy") == "Follow",
        updates=_updates(section) if provider == RFC2136 else None,
        # of Route 53 and Cloud DNS the issuer has the hosted zone's id, which is no DNS name
        zone=str(section.get("hostedZoneName") or "").rstrip(".").lower() if provider == AZURE_DNS else "",
    )


def _updates(section: Document) -> DynamicUpdates:
    reference = section.get("tsigSecretSecretRef") or {}
    return DynamicUpdates(
        nameserver=str(section.get("nameserver") or ""),
        key_name=str(section.get("tsigKeyName") or ""),
        # cert-manager's own default (pkg/issuer/acme/dns/rfc2136)
        algorithm=str(section.get("tsigAlgorithm") or "HMACMD5").upper(),
        secret=str(reference.get("name") or ""),
        secret_key=str(reference.get("key") or ""),
        tcp=str(section.get("protocol") or "").upper() == "TCP",
    )


def written_at(challenge: DnsChallenge, aliases: Sequence[str]) -> str:
    """The name that the record is written at; of acme-dns that is where the customer's alias has to lead."""
    followed = challenge.solver.follows or challenge.solver.provider == ACME_DNS
    return aliases[-1] if aliases and followed else challenge.record


def delegated_name(record: str, zone: str) -> str:
    """The name in our zone that a customer's record is to lead to; empty where there is no such zone.

    One for each hostname, readable, and never the same for two; a long one by its SHA-256.
    """
    if not zone:
        return ""
    hostname = record.removeprefix("_acme-challenge.")
    name = f"{hostname}.{zone}"
    return name if len(name) <= _LONGEST_NAME else f"{hashlib.sha256(hostname.encode()).hexdigest()[:32]}.{zone}"


# --- the policy -------------------------------------------------------------------------------------------------------


class _Fix(NamedTuple):
    """What the customer can set: a record, and the words for it."""

    records: tuple[DnsRecord, ...]
    words: str


def delegation_verdict(seen: Iterable[Delegation], zone: str = "") -> DelegationVerdict:
    """The verdict over all records.

    What one resolver tells to be wrong weighs more than what others say, since the CA asks from several places; then
    comes what is unknown. `zone`: ours, that customers' records may lead to; may be empty.
    """
    by_challenge: dict[DnsChallenge, list[Delegation]] = {}
    for one in seen:
        by_challenge.setdefault(one.challenge, []).append(one)
    found: list[Finding] = []
    records: list[DnsRecord] = []
    writable: list[Delegation] = []
    for challenge, views in by_challenge.items():
        fix = _fix(challenge, zone)
        told = tuple(finding for one in views if (finding := _against(one, fix)) is not None)
        wrong = findings.errors(told)
        # of what does not stop an order, what is known goes before what is not
        worst = min(wrong or told, key=lambda one: one.code == findings.DELEGATION_NOT_LOOKED_UP.code, default=None)
        if worst is not None:
            found.append(worst)
            records.extend(fix.records if worst.code in _BY_THE_CUSTOMER else ())
        if not wrong:
            writable += [one for one in views if one.zone][:1]
        found += [finding for one in views[:1] if (finding := _left(one)) is not None]
    return DelegationVerdict(tuple(found), tuple(dict.fromkeys(records)), tuple(writable))


def _fix(challenge: DnsChallenge, zone: str) -> _Fix:
    solver, target = challenge.solver, delegated_name(challenge.record, zone)
    if not target or solver.provider == ACME_DNS:
        return _Fix((), f"Set {challenge.record} CNAME to {_where(solver)}")
    record = DnsRecord(name=challenge.record, type="CNAME", value=f"{target}.")
    # an alias that the solver does not follow would be the next obstacle
    return _Fix((record,) if solver.follows else (), f"Set {record.name} {record.type} {record.value}")


def _where(solver: DnsSolver) -> str:
    if solver.provider == ACME_DNS:
        return "the fulldomain of its acme-dns account"
    if solver.provider == RFC2136:
        return f"a name in a zone of {solver.nameserver}"
    return f"a name in a zone that {solver.title} can write"


_Policy = Callable[[Delegation, _Fix], Finding | None]


def _against(seen: Delegation, fix: _Fix) -> Finding | None:
    """The first thing that is wrong: what comes after an alias that leads nowhere says nothing."""
    return next((finding for policy in _POLICIES if (finding := policy(seen, fix)) is not None), None)


def _signatures_broken(seen: Delegation, fix: _Fix) -> Finding | None:
    if Lookup.BOGUS not in (seen.lookup, seen.zone_lookup):
        return None
    return findings.DNSSEC_BROKEN.found(
        subject=seen.challenge.record,
        problem=f"{seen.written_at} answers only where DNSSEC signatures are not checked, and CAs check them.",
        fix=f"Make the DS record at the registrar match the zone's keys, or remove it: dig +dnssec {seen.written_at}; "
        f"https://dnsviz.net/d/{seen.written_at}/ shows where it breaks.",
    )


def _aliases_in_a_circle(seen: Delegation, fix: _Fix) -> Finding | None:
    way = (seen.challenge.record, *seen.aliases)
    circle = len(set(way)) < len(way)
    if not circle and len(seen.aliases) <= LONGEST_CHAIN:
        return None
    return findings.CHALLENGE_ALIAS_ENDLESS.found(
        subject=seen.challenge.record,
        problem=f"Its aliases {'lead in a circle' if circle else 'are too many'}: {_way(seen)}.",
        fix=f"{fix.words}, in place of the CNAME that is there.",
    )


def _not_looked_up(seen: Delegation, fix: _Fix) -> Finding | None:
    name, lookup = seen.written_at, seen.lookup
    if lookup in KNOWN:
        name, lookup = f"the zone of {name}", seen.zone_lookup
    if lookup in KNOWN:
        return None
    where = f" from {seen.nameserver}" if seen.nameserver else ""
    return findings.DELEGATION_NOT_LOOKED_UP.found(
        subject=seen.challenge.record,
        problem=f"Where it leads is not known: {lookup.value}{where}, asked for {name}.",
        fix=f"Nothing to do unless it lasts; then: dig CNAME {seen.challenge.record}; dig SOA {seen.written_at} "
        "(DNSSEC, name servers that are gone or do not know the zone).",
    )


def _alias_not_followed(seen: Delegation, fix: _Fix) -> Finding | None:
    """A wildcard's alias ends by itself when the record is written (RFC 4592, section 2.2.1); a webhook may write
    where it likes."""
    solver = seen.challenge.solver
    if not seen.aliases or seen.wildcard or solver.follows or solver.provider in (ACME_DNS, WEBHOOK):
        return None
    return findings.CHALLENGE_ALIAS_NOT_FOLLOWED.found(
        subject=seen.challenge.record,
        problem=f"It is a CNAME to {seen.aliases[0]}, where the CA looks; {solver.title} writes at the name itself.",
        fix="Give the solver cname_strategy: follow (spec.acme.solvers[].dns01.cnameStrategy: Follow), or remove the "
        f"CNAME {seen.challenge.record}.",
    )


def _zone_missing(seen: Delegation, fix: _Fix) -> Finding | None:
    end = seen.written_at
    if seen.zone and not is_registry(seen.zone):
        return None
    nobody = f": the nearest one is the registry's, {seen.zone}" if seen.zone else ""
    danger = f" Whoever registers {registered_domain(end)} can prove the name." if seen.zone and seen.aliases else ""
    return findings.CHALLENGE_ZONE_MISSING.found(
        subject=seen.challenge.record,
        problem=f"It leads to {end}, and there is no zone for that name{nobody}.{danger}",
        fix=f"{fix.words}, or register {registered_domain(end)} and serve its zone.",
    )


def _caught_by_a_wildcard(seen: Delegation, fix: _Fix) -> Finding | None:
    if not seen.wildcard or seen.written_at == seen.challenge.record or not _known_to_be_foreign(seen):
        return None
    return findings.CHALLENGE_CAUGHT_BY_WILDCARD.found(
        subject=seen.challenge.record,
        problem=f"A wildcard record catches it, and leads it to {seen.aliases[0]}, which the solver cannot write.",
        fix=f"{fix.words}: a record of its own goes before the wildcard.",
    )


def _zone_not_ours(seen: Delegation, fix: _Fix) -> Finding | None:
    if not _known_to_be_foreign(seen):
        return None
    solver = seen.challenge.solver
    if solver.provider == ACME_DNS:
        why = "it has no alias, and acme-dns is asked for what lies in its own zone only"
    elif solver.provider == AZURE_DNS:
        why = f"it ends in the zone {seen.zone}, and the solver writes to {solver.zone} only"
    else:
        why = f"it ends in the zone {seen.zone}, for which {solver.nameserver} does not answer"
    at = f" (at {seen.written_at})" if seen.aliases else ""
    follow = "" if solver.follows or solver.provider == ACME_DNS else ", and give the solver cname_strategy: follow"
    return findings.CHALLENGE_ZONE_NOT_OURS.found(
        subject=seen.challenge.record,
        problem=f"{solver.title} cannot write it: {why}{at}.",
        fix=f"{fix.words}{follow}; or give the issuer a solver for the zone {seen.zone}.",
    )


def _server_silent(seen: Delegation, fix: _Fix) -> Finding | None:
    solver = seen.challenge.solver
    if solver.updates is None or seen.authority is not Authority.UNKNOWN:
        return None
    return findings.DELEGATION_NOT_LOOKED_UP.found(
        subject=seen.challenge.record,
        problem=f"Whether {solver.nameserver} answers for the zone {seen.zone} is not known: it does not answer from "
        "here.",
        fix=f"Nothing to do if cert-manager reaches it: dig @{server_address(solver.nameserver)[0]} SOA {seen.zone}",
    )


def _zone_hosted_elsewhere(seen: Delegation, fix: _Fix) -> Finding | None:
    usual = USUAL_SERVERS.get(seen.challenge.solver.provider)
    if usual is None or not seen.servers or any(usual.fullmatch(server) for server in seen.servers):
        return None
    follow = "" if seen.challenge.solver.follows else ", and give the solver cname_strategy: follow"
    return findings.CHALLENGE_ZONE_ELSEWHERE.found(
        subject=seen.challenge.record,
        problem=f"The zone {seen.zone} is served by {', '.join(seen.servers[:_MOST_SHOWN])}, which is not usual for "
        f"{seen.challenge.solver.title}.",
        fix=f"Nothing to do if the zone is hosted there under own names of its servers. Else: {fix.words}{follow}.",
    )


_POLICIES: tuple[_Policy, ...] = (
    _signatures_broken,
    _aliases_in_a_circle,
    _alias_not_followed,
    _not_looked_up,
    _zone_missing,
    _caught_by_a_wildcard,
    _zone_not_ours,
    _server_silent,
    _zone_hosted_elsewhere,
)
"""In the order in which cert-manager and the CA would meet it."""

_BY_THE_CUSTOMER = {
    findings.CHALLENGE_ALIAS_ENDLESS.code,
    findings.CHALLENGE_ZONE_MISSING.code,
    findings.CHALLENGE_CAUGHT_BY_WILDCARD.code,
    findings.CHALLENGE_ZONE_NOT_OURS.code,
}


def _known_to_be_foreign(seen: Delegation) -> bool:
    solver = seen.challenge.solver
    if solver.provider == ACME_DNS:
        return not seen.aliases or seen.wildcard
    if solver.provider == AZURE_DNS and solver.zone:
        return not _within(seen.written_at, solver.zone)
    return seen.authority is Authority.NO


def _left(seen: Delegation) -> Finding | None:
    if seen.values < MANY_VALUES:
        return None
    return findings.CHALLENGE_RECORDS_LEFT.found(
        subject=seen.challenge.record,
        problem=f"{seen.written_at} has {seen.values} TXT records; they do no harm, but more are added by each order "
        "that leaves one behind.",
        fix=f"dig TXT {seen.written_at}; remove them while no order is under way.",
    )


def _within(name: str, zone: str) -> bool:
    return f".{name}".endswith(f".{zone}")


def _way(seen: Delegation) -> str:
    return " → ".join((seen.challenge.record, *seen.aliases))[:300]


def delegation_words(seen: Delegation) -> str:
    """The way for people, in one line."""
    zone = f", zone {seen.zone}" if seen.zone else f", {seen.lookup.value}" if seen.lookup not in KNOWN else ""
    return f"{_way(seen)}{zone}"
