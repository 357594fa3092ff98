"""Does the DNS allow our CA to issue for these names? CAA records, as the CA will read them.

RFC 8659, section 3: the records of the name itself, else of its parent, and so on up to the top-level domain; the first
level with any decides. At each level aliases are followed, but the way up goes on from the name that was asked, not
from where the alias led. RFC 8657: `accounturi` and `validationmethods` narrow a permission to one account and to some
methods. What could not be looked up is unknown here, never forbidden; a CA does refuse while it lasts. Left out:
asking name servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urlsplit

from lifecycle import findings
from lifecycle.domain import DnsRecord
from lifecycle.findings import Finding
from lifecycle.registered_domain import registered_domain
from lifecycle.routing import Lookup

IDENTITIES = {
    "acme-v02.api.letsencrypt.org": ("letsencrypt.org",),
    "acme-staging-v02.api.letsencrypt.org": ("letsencrypt.org",),
}
"""What CAs call themselves in CAA records (`caaIdentities` of the directory, RFC 8555, section 7.1.1), by its host."""

CRITICAL = 128 | 1
"""RFC 8659, section 4.1: bit 0 is the one worth 128; many set the one worth 1, and Let's Encrypt heeds both (Boulder,
va/caa.go)."""

_KNOWN_TAGS = {"issue", "issuewild", "iodef", "issuemail"}
"""Tags that Let's Encrypt knows (same place); any other one forbids if it is critical."""

_MOST_SHOWN = 3
_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class CaaRecord:
    """One CAA record: flags, a tag in any case, and its value without quotes."""

    flags: int
    tag: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaaLevel:
    """What one name server said about the CAA records of one name on the way up.

    Attributes:
        cnames: the aliases followed, in order; the records are those of the last.
        detail: the resolver's own words where it failed, cut.
    """

    name: str
    lookup: Lookup
    records: tuple[CaaRecord, ...] = ()
    cnames: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaaClimb:
    """One name server's answers for one hostname, from its own level upwards."""

    hostname: str
    levels: tuple[CaaLevel, ...]
    nameserver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaaPolicy:
    """Who we are to the CA.

    Attributes:
        identities: the CA's names in CAA records; empty where they are not known.
        account: URI of the ACME account; empty where it is not known.
        method: by which names are proved (RFC 8657, section 4).
        target: a name of ours that customers may alias theirs to; empty where they set addresses.
    """

    identities: tuple[str, ...]
    account: str = ""
    method: str = "http-01"
    target: str = ""


class CaaStatus(StrEnum):
    """May the CA issue?"""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    UNKNOWN = "unknown"


class CaaVerdict(NamedTuple):
    """The status of all names together, a finding for each that is not allowed, and the records to set."""

    status: CaaStatus
    findings: tuple[Finding, ...] = ()
    records: tuple[DnsRecord, ...] = ()


def identities_of(server: str) -> tuple[str, ...]:
    """The names of the CA with this directory URL in CAA records; empty where they are not known here."""
    return IDENTITIES.get((urlsplit(server).hostname or "").lower(), ())


def climbed(hostname: str) -> tuple[str, ...]:
    """The names to ask, in order: without the wildcard label, up to the top-level domain (RFC 8659, section 3)."""
    labels = hostname.removeprefix("*.").rstrip(".").split(".")
    return tuple(".".join(labels[index:]) for index in range(len(labels)))


def caa_verdict(climbs: Iterable[CaaClimb], policy: CaaPolicy) -> CaaVerdict:
    """The verdict over all names. A refusal that one name server tells weighs more than what the others say, since the
    CA asks from several places; then comes what is unknown."""
    by_name: dict[str, list[_Judged]] = {}
    for climb in climbs:
        by_name.setdefault(climb.hostname, []).append(_judged(climb, policy))
    worst = [min(judged, key=lambda one: _WEIGHT.index(one.status)) for judged in by_name.values()]
    statuses = {one.status for one in worst}
    records = dict.fromkeys(record for one in worst for record in one.records)
    return CaaVerdict(
        next((status for status in _WEIGHT if status in statuses), CaaStatus.UNKNOWN),
        tuple(one.finding for one in worst if one.finding),
        tuple(records),
    )


_WEIGHT = (CaaStatus.FORBIDDEN, CaaStatus.UNKNOWN, CaaStatus.ALLOWED)


class _Judged(NamedTuple):
    status: CaaStatus
    finding: Finding | None = None
    records: tuple[DnsRecord, ...] = ()


def _judged(climb: CaaClimb, policy: CaaPolicy) -> _Judged:
    apex = registered_domain(climb.hostname)
    for level in climb.levels:
        if level.records:
            return _by_records(climb, level, policy)
        if level.lookup in (Lookup.ANSWERED, Lookup.NO_DATA, Lookup.NXDOMAIN):
            continue
        if level.lookup is Lookup.REFUSED and not f".{level.name}".endswith(f".{apex}"):
            continue  # a server that answers for the domain only says nothing about the registry above it
        return _unknown(climb, level)
    return _Judged(CaaStatus.ALLOWED if climb.levels else CaaStatus.UNKNOWN)


def _unknown(climb: CaaClimb, level: CaaLevel) -> _Judged:
    where = f" from {climb.nameserver}" if climb.nameserver else ""
    return _Judged(
        CaaStatus.UNKNOWN,
        findings.CAA_NOT_LOOKED_UP.found(
            subject=climb.hostname,
            problem=f"The CAA records of {level.name} could not be looked up: {level.lookup.value}{where}. "
            "The CA refuses while that lasts.",
            fix=f"dig CAA {level.name} must answer, also with nothing; if it lasts, mend the zone's name servers "
            "(DNSSEC, types they do not know).",
        ),
    )


def _by_records(climb: CaaClimb, level: CaaLevel, policy: CaaPolicy) -> _Judged:
    wildcard = climb.hostname.startswith("*.")
    strange = [one for one in level.records if one.flags & CRITICAL and one.tag.lower() not in _KNOWN_TAGS]
    if strange:
        return _forbidden(
            climb,
            level,
            policy,
            wildcard,
            f'it has a critical property "{_plain(strange[0].tag)}" that no CA of ours knows',
        )
    tags = {one.tag.lower() for one in level.records}
    tag = "issuewild" if wildcard and "issuewild" in tags else "issue"  # RFC 8659, section 4.3
    if tag not in tags:
        return _Judged(CaaStatus.ALLOWED)  # section 4.2: without such a property nothing is restricted
    values = [one.value for one in level.records if one.tag.lower() == tag]
    if not policy.identities:
        return _not_judged(climb, level, values, "the names of our CA are not known here")
    reasons = []
    for value in values:
        permission = _permission(value)
        if permission is None or permission.issuer not in policy.identities:
            continue
        reason = _narrowed(permission, policy)
        if not reason:
            return _Judged(CaaStatus.ALLOWED)
        reasons.append(reason)
    if _ACCOUNT_UNKNOWN in reasons:
        return _not_judged(climb, level, values, _ACCOUNT_UNKNOWN)
    return _forbidden(climb, level, policy, wildcard, reasons[0] if reasons else f"it allows only {_shown(values)}")


class _Permission(NamedTuple):
    issuer: str
    parameters: tuple[tuple[str, str], ...]


_ISSUER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_PARAMETER = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)[ \t]*=[ \t]*([\x21-\x3a\x3c-\x7e]*)")


def _permission(value: str) -> _Permission | None:
    """An issue property's value by the grammar of RFC 8659, section 4.2; None where it allows nobody: no issuer, or
    malformed ("MUST NOT issue")."""
    issuer, *rest = (part.strip(" \t") for part in value.split(";"))
    if not _ISSUER.fullmatch(issuer):
        return None
    parameters = []
    for part in rest:
        if not part and part is rest[-1]:
            continue  # a semicolon at the end, which many write
        found = _PARAMETER.fullmatch(part)
        if found is None:
            return None
        parameters.append((found[1].lower(), found[2]))
    return _Permission(issuer.lower(), tuple(parameters))


_ACCOUNT_UNKNOWN = "the URI of our account is not known here"


def _narrowed(permission: _Permission, policy: CaaPolicy) -> str:
    """Why a permission for our CA is not one for us; empty where it is."""
    accounts = [value for name, value in permission.parameters if name == "accounturi"]
    methods = [value for name, value in permission.parameters if name == "validationmethods"]
    if len(accounts) > 1 or len(methods) > 1:  # RFC 8657, sections 3 and 4: then nothing satisfies it
        return "it gives accounturi or validationmethods twice, which nothing satisfies"
    if methods and policy.method not in methods[0].split(","):
        return f"it allows the method {_plain(methods[0]) or 'none'} only, and ours is {policy.method}"
    if accounts and not policy.account:
        return _ACCOUNT_UNKNOWN
    if accounts and accounts[0] != policy.account:
        return "it allows another account of the CA than ours"
    return ""


def _not_judged(climb: CaaClimb, level: CaaLevel, values: list[str], why: str) -> _Judged:
    return _Judged(
        CaaStatus.UNKNOWN,
        findings.CAA_NOT_JUDGED.found(
            subject=climb.hostname,
            problem=f"The CAA records of {_place(level)} allow only {_shown(values)}, and {why}.",
            fix="Compare them with the issuer: kubectl get clusterissuer -o yaml; status.acme.uri is the account.",
        ),
    )


def _forbidden(climb: CaaClimb, level: CaaLevel, policy: CaaPolicy, wildcard: bool, why: str) -> _Judged:
    place, apex = _place(level), registered_domain(climb.hostname)
    tag = "issuewild" if wildcard else "issue"
    ours = bool(policy.target) and place == policy.target.rstrip(".").lower() and place != level.name
    kind = findings.CAA_FORBIDS_AT_TARGET if ours else findings.CAA_FORBIDS
    # what a registry says for a whole top-level domain is overruled below it
    at = place if f".{place}".endswith(f".{apex}") or place != level.name else apex
    wanted = tuple(DnsRecord(name=at, type="CAA", value=f'0 {tag} "{identity}"') for identity in policy.identities[:1])
    by = f" (an alias of {level.name})" if place != level.name else ""
    fix = " and ".join(f"{record.name} CAA {record.value}" for record in wanted)
    if "critical" in why:
        fix, wanted = f"Remove the critical property from the CAA records of {place}.", ()
    elif fix:
        fix = f"Add {fix}."
    return _Judged(
        CaaStatus.FORBIDDEN,
        kind.found(
            subject=climb.hostname,
            problem=f"The CAA record of {place}{by} forbids our CA: {why}.",
            fix=fix or f"Add a CAA record for our CA to {at}.",
        ),
        () if ours else wanted,
    )


def _place(level: CaaLevel) -> str:
    """Where the records are: at the end of the aliases."""
    return level.cnames[-1].rstrip(".").lower() if level.cnames else level.name


def _shown(values: list[str]) -> str:
    """Whom the records allow."""
    issuers = dict.fromkeys(_plain(value.split(";")[0]) or "nobody" for value in values)
    return ", ".join(list(issuers)[:_MOST_SHOWN]) + (" and others" if len(issuers) > _MOST_SHOWN else "")


def _plain(text: str) -> str:
    """Foreign text on one line, cut: the DNS holds what anybody wrote."""
    return " ".join("".join(char if char.isprintable() else "?" for char in text).split())[:_LONGEST_SHOWN]
