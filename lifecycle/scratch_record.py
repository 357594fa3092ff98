"""Can the solver's credentials write the challenge's record? Judged by a record that was written, read and removed.

The name is the very one that an order will need: what a name server allows is by name (BIND's update-policy), so that
any other would prove nothing. A further TXT value there harms no order that is under way (RFC 8555, section 8.4: the CA
looks for one among several). Left out: writing it, and whether the name is the right one (`delegation`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lifecycle import findings
from lifecycle.delegation import Delegation, DynamicUpdates
from lifecycle.findings import Finding
from lifecycle.routing import server_address

_MOST_SHOWN = 4


class Writing(StrEnum):
    """How it ended; the words of a refusal are the DNS's own (RFC 2136, section 2.2; RFC 8945, section 3)."""

    SEEN = "seen"
    NOT_SEEN = "not-seen"
    BADKEY = "BADKEY"
    BADSIG = "BADSIG"
    BADTIME = "BADTIME"
    NOTAUTH = "NOTAUTH"
    NOTZONE = "NOTZONE"
    REFUSED = "REFUSED"
    FAILED = "failed"
    KEY_UNUSABLE = "key-unusable"
    UNANSWERED = "unanswered"
    NOT_TRIED = "not-tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchRecord:
    """One record that was tried.

    Attributes:
        value: what was written; it names us, and is random.
        detail: of a failure or of what was not tried, in words; never a key.
        asked: servers that were to show it, `unseen` those that did not.
        left: whether it could not be removed again.
        namespace: where cert-manager looks for the solver's Secret.
        against: what was found wrong before anything was sent.
    """

    delegation: Delegation
    ending: Writing
    value: str = ""
    detail: str = ""
    asked: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    left: bool = False
    namespace: str = ""
    against: Finding | None = None


def scratch_findings(seen: ScratchRecord) -> tuple[Finding, ...]:
    """What stands against the solver's writing."""
    return tuple(filter(None, (seen.against, _refused(seen), _unanswered(seen), _not_seen(seen), _left(seen))))


def _refused(seen: ScratchRecord) -> Finding | None:
    updates = seen.delegation.challenge.solver.updates
    words = _REFUSALS.get(seen.ending)
    if updates is None or words is None:
        return None
    problem, fix = (text.format(**_fields(seen, updates)) for text in words)
    return findings.UPDATE_REFUSED.found(subject=seen.delegation.written_at, problem=problem, fix=fix)


_REFUSALS: dict[Writing, tuple[str, str]] = {
    Writing.BADKEY: (
        "{server} does not know the TSIG key {key} with {algorithm} (BADKEY).",
        "Make tsigKeyName and tsigAlgorithm those of the server's key; in BIND: rndc tsig-list.",
    ),
    Writing.BADSIG: (
        "{server} knows the TSIG key {key}, but its secret is another one than in {secret} (BADSIG).",
        "certwright issuer credentials {secret_name} --secret-namespace {namespace} {secret_key}=file:PATH --replace",
    ),
    Writing.BADTIME: (
        "The clock of {server} and the one here differ by more than five minutes (BADTIME).",
        "Set both clocks by NTP: timedatectl status",
    ),
    Writing.NOTAUTH: (
        "{server} says that it is not the zone's primary, or does not know the key {key} (NOTAUTH).",
        "Name the primary of {zone} as the solver's nameserver; if it is, give it the key {key}.",
    ),
    Writing.NOTZONE: (
        "{server} says that {name} does not lie in its zone {zone} (NOTZONE).",
        "dig @{host} SOA {zone}; serve the zone there that resolvers see.",
    ),
    Writing.REFUSED: (
        "{server} refuses {who} to write {name} (REFUSED).",
        "Allow it there; in BIND, in the zone {zone}: update-policy {{ grant {grantee} name {name}. TXT; }}; or "
        "name the zone's primary as the solver's nameserver, if this is a secondary.",
    ),
    Writing.FAILED: (
        "{server} could not write {name}: {detail}.",
        "Look into the log of {host}: a zone's file and journal must be writable, and the zone dynamic.",
    ),
    Writing.KEY_UNUSABLE: (
        "The TSIG key in {secret} cannot be used: {detail}.",
        "certwright issuer credentials {secret_name} --secret-namespace {namespace} {secret_key}=file:PATH --replace, "
        "with the server's base64 text.",
    ),
}
"""Problem and fix of each refusal."""


def _fields(seen: ScratchRecord, updates: DynamicUpdates) -> dict[str, str]:
    return {
        "server": updates.nameserver,
        "host": server_address(updates.nameserver)[0],
        "key": updates.key_name or "(none)",
        "algorithm": updates.algorithm,
        "who": f"the key {updates.key_name}" if updates.key_name else "updates that are not signed",
        "grantee": updates.key_name or "KEY",
        "secret": f"Secret {seen.namespace}/{updates.secret}, key {updates.secret_key}",
        "namespace": seen.namespace,
        "secret_name": updates.secret,
        "secret_key": updates.secret_key,
        "zone": seen.delegation.zone,
        "name": seen.delegation.written_at,
        "detail": seen.detail,
    }


def _unanswered(seen: ScratchRecord) -> Finding | None:
    updates = seen.delegation.challenge.solver.updates
    if updates is None or seen.ending is not Writing.UNANSWERED:
        return None
    return findings.DELEGATION_NOT_LOOKED_UP.found(
        subject=seen.delegation.written_at,
        problem=f"{updates.nameserver} did not answer an update from here: {seen.detail}.",
        fix="Nothing to do if cert-manager reaches it, and it takes updates from there.",
    )


def _not_seen(seen: ScratchRecord) -> Finding | None:
    if seen.ending is not Writing.NOT_SEEN:
        return None
    taker, behind = seen.delegation.challenge.solver.nameserver, ", ".join(seen.unseen[:_MOST_SHOWN])
    return findings.UPDATE_NOT_SEEN.found(
        subject=seen.delegation.written_at,
        problem=f"{taker} took a record, but {behind} did not show it within some seconds.",
        fix=f"Compare dig SOA {seen.delegation.zone} at each server: it must be one and the same zone, and secondaries "
        "must be notified.",
    )


def _left(seen: ScratchRecord) -> Finding | None:
    updates = seen.delegation.challenge.solver.updates
    if not seen.left or updates is None:
        return None
    name, (host, port) = seen.delegation.written_at, server_address(updates.nameserver)
    return findings.CHALLENGE_RECORDS_LEFT.found(
        subject=name,
        problem=f"The record that was written there to try it could not be removed: {seen.value}. It does no harm.",
        fix=f"nsupdate, with the solver's key: server {host} {port}; zone "
        f'{seen.delegation.zone}; update delete {name}. TXT "{seen.value}"; send',
    )


def scratch_words(seen: ScratchRecord) -> str:
    """What was done, for people, in a few words."""
    if seen.ending is Writing.SEEN:
        return f"a record was written, read from {', '.join(seen.asked[:_MOST_SHOWN])}, and removed"
    if seen.ending is Writing.NOT_TRIED:
        return f"writing not tried: {seen.detail}"
    return f"writing a record: {seen.ending.value}"
