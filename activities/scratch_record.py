"""Write a challenge's record with the solver's own credentials, read it from the zone's servers, and take it away.

Only for RFC 2136, and only where whoever asks may read the solver's Secret: Certwright itself has no right to. The key
stays within this module; nothing that leaves it has it. Left out: what the outcome means (`lifecycle.scratch_record`).
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update
from kubernetes.aio.dynamic import DynamicClient
from temporalio.exceptions import ApplicationError

from activities import kubernetes, lookups
from activities.delegation import server_endpoint
from activities.foresight import CONTROLLER
from lifecycle.delegation import Authority, Delegation, DynamicUpdates
from lifecycle.domain import IssuerRef
from lifecycle.findings import Finding
from lifecycle.issuers import SecretReference, credential_finding, secret_namespace
from lifecycle.scratch_record import ScratchRecord, Writing

MOST_RECORDS = 8
"""Records tried in one look: what a key may write differs by zone, hardly by name."""

_TTL = 60
"""cert-manager's own; all records of a name have one (RFC 2181, section 5.2)."""

_SHOWN_SECONDS = 8.0
"""Within which each server of the zone is to show it: secondaries are notified at once (RFC 1996), and fetch it."""

_AGAIN_SECONDS = 0.5

_ALGORITHMS = {
    "HMACMD5": dns.tsig.HMAC_MD5,
    "HMACSHA1": dns.tsig.HMAC_SHA1,
    "HMACSHA256": dns.tsig.HMAC_SHA256,
    "HMACSHA512": dns.tsig.HMAC_SHA512,
}
"""By cert-manager's names."""

_PEER = {
    dns.tsig.PeerBadKey: Writing.BADKEY,
    dns.tsig.PeerBadSignature: Writing.BADSIG,
    dns.tsig.PeerBadTime: Writing.BADTIME,
    dns.tsig.BadTime: Writing.BADTIME,
}
_RCODES = {
    dns.rcode.NOTAUTH: Writing.NOTAUTH,
    dns.rcode.NOTZONE: Writing.NOTZONE,
    dns.rcode.REFUSED: Writing.REFUSED,
}

_MAY_BE_THERE = {Writing.SEEN, Writing.NOT_SEEN, Writing.UNANSWERED}

_Endpoint = tuple[str, int]


_REMOVALS = 3
"""Datagrams get lost, and what was written must not stay."""


class _UnableError(Exception):
    """Nothing can be sent."""

    def __init__(self, ending: Writing, detail: str, against: Finding | None = None) -> None:
        super().__init__(detail)
        self.ending = ending
        self.detail = detail
        self.against = against


class ScratchRecords:
    """How records are tried in one cluster.

    Attributes of `__init__`: `nameservers` are the resolvers, `port` that of the zones' own servers, which are asked at
    addresses that `may_dial` allows; `timeout` in seconds for one question.
    """

    def __init__(
        self,
        cluster: DynamicClient,
        *,
        nameservers: tuple[str, ...],
        may_dial: Callable[[str], bool],
        timeout: float,
        port: int,
    ) -> None:
        self._cluster = cluster
        self._nameservers = nameservers
        self._may_dial = may_dial
        self._timeout = timeout
        self._port = port

    async def tried(self, delegations: Iterable[Delegation], issuer: IssuerRef) -> tuple[ScratchRecord, ...]:
        """One record for each way that ends where the solver's name server answers for the zone; others are said.

        Raises ApplicationError where the cluster does not answer.
        """
        delegations = tuple(delegations)
        others = tuple(
            ScratchRecord(
                delegation=one, ending=Writing.NOT_TRIED, detail=f"{one.challenge.solver.title} is no RFC 2136"
            )
            for one in delegations
            if one.challenge.solver.updates is None
        )
        able = [one for one in delegations if one.authority is Authority.YES]
        if not able:
            return others
        namespace = secret_namespace(issuer, await self._cert_manager())
        return (*others, *await asyncio.gather(*(self._tried(one, namespace) for one in able[:MOST_RECORDS])))

    async def _cert_manager(self) -> str:
        """The namespace that cert-manager runs in; its chart's own where that is not seen."""
        try:
            found = await kubernetes.listed(self._cluster, "apps/v1", "Deployment", "", label_selector=CONTROLLER)
        except ApplicationError as error:
            if not error.non_retryable:
                raise
            found = []
        return str(found[0]["metadata"]["namespace"]) if len(found) == 1 else "cert-manager"

    async def _tried(self, delegation: Delegation, namespace: str) -> ScratchRecord:
        updates = delegation.challenge.solver.updates
        assert updates is not None
        record = ScratchRecord(
            delegation=delegation,
            ending=Writing.UNANSWERED,
            value=f"certwright-preflight-{secrets.token_hex(8)}",
            namespace=namespace,
        )
        try:
            key = await self._key(updates, namespace)
            server = await server_endpoint(updates.nameserver)
        except _UnableError as error:
            return replace(record, ending=error.ending, detail=error.detail, against=error.against)
        except OSError as error:
            return replace(record, detail=type(error).__name__)
        writer = _Writer(record, server, key, self._timeout, tcp=updates.tcp)
        try:
            ending, detail = await writer.send(adding=True)
            record = replace(record, ending=ending, detail=detail)
            if ending is Writing.SEEN:
                shown, unseen = await self._read(delegation, {updates.nameserver: server}, record.value)
                record = replace(record, asked=shown, unseen=unseen, ending=Writing.NOT_SEEN if unseen else ending)
        finally:
            # an update that was not answered, or not waited for, may have been made all the same
            removed = record.ending not in _MAY_BE_THERE or await writer.removed()
        return replace(record, left=not removed and record.ending is not Writing.UNANSWERED)

    async def _key(self, updates: DynamicUpdates, namespace: str) -> dns.tsig.Key | None:
        """The solver's key, None where its updates are not signed. Raises _UnableError, ApplicationError."""
        if not (updates.key_name and updates.secret):
            return None
        place = f"Secret {namespace}/{updates.secret}"
        try:
            secret = await kubernetes.read(self._cluster, "v1", "Secret", namespace, updates.secret)
        except ApplicationError as error:
            if not error.non_retryable:
                raise
            raise _UnableError(Writing.NOT_TRIED, f"{place} may not be read here") from None
        data = (secret or {}).get("data") or {}
        if updates.secret_key not in data:
            reference = SecretReference("tsigSecretSecretRef", updates.secret, (updates.secret_key,))
            against = credential_finding(reference, namespace, None if secret is None else frozenset(data))
            raise _UnableError(Writing.NOT_TRIED, f"{place} lacks the key", against)
        return _tsig_key(updates, data[updates.secret_key])

    async def _read(
        self, delegation: Delegation, primary: dict[str, _Endpoint], value: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The servers that show the value, and those that answer without it; who does not answer is neither."""
        servers = {**primary, **await self._own(delegation)}
        shown: list[str] = []
        asked = list(servers)
        until = asyncio.get_running_loop().time() + _SHOWN_SECONDS
        while True:
            told = await asyncio.gather(*(self._shows(servers[one], delegation.written_at, value) for one in asked))
            shown += [one for one, shows in zip(asked, told, strict=True) if shows]
            asked = [one for one, shows in zip(asked, told, strict=True) if shows is False]
            if not asked or asyncio.get_running_loop().time() > until:
                return tuple(shown), tuple(asked)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _own(self, delegation: Delegation) -> dict[str, _Endpoint]:
        """The zone's own servers by its NS records, of those that may be dialled."""
        named = delegation.servers[: lookups.MOST_SERVERS]
        found = await asyncio.gather(*(lookups.addresses_of(one, self._nameservers, self._timeout) for one in named))
        return {
            server: (allowed[0], self._port)
            for server, known in zip(named, found, strict=True)
            if (allowed := [one for one in known if self._may_dial(one)])
        }

    async def _shows(self, server: _Endpoint, name: str, value: str) -> bool | None:
        question = dns.message.make_query(name, dns.rdatatype.TXT, flags=0)
        try:
            answer, _ = await dns.asyncquery.udp_with_fallback(question, server[0], self._timeout, server[1])
        except (dns.exception.DNSException, OSError):
            return None
        return any(value in record.to_text() for rrset in answer.answer for record in rrset)


def _tsig_key(updates: DynamicUpdates, data: str) -> dns.tsig.Key:
    """The key from a Secret's value, as Kubernetes has it. Raises _UnableError."""
    algorithm = _ALGORITHMS.get(updates.algorithm)
    if algorithm is None:
        raise _UnableError(Writing.KEY_UNUSABLE, f"{updates.algorithm} is no algorithm of cert-manager's")
    try:
        text = b"".join(base64.b64decode(data).split())
        shared = base64.b64decode(text, validate=True)
        name = dns.name.from_text(updates.key_name)
    except (ValueError, dns.exception.DNSException):  # binascii.Error is one
        raise _UnableError(Writing.KEY_UNUSABLE, "it is no base64 text, or the key's name is no name") from None
    if not shared:
        raise _UnableError(Writing.KEY_UNUSABLE, "it is empty")
    return dns.tsig.Key(name, shared, algorithm)


class _Writer:
    """Adds one value at one name, and removes it."""

    def __init__(
        self, record: ScratchRecord, server: _Endpoint, key: dns.tsig.Key | None, timeout: float, *, tcp: bool
    ) -> None:
        self._name = dns.name.from_text(record.delegation.written_at)
        self._zone = dns.name.from_text(record.delegation.zone)
        self._value = f'"{record.value}"'
        self._server = server
        self._key = key
        self._timeout = timeout
        self._send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp

    async def send(self, *, adding: bool) -> tuple[Writing, str]:
        """`Writing.SEEN` where the server took it, else how it refused, in words that have nothing of the key."""
        message = dns.update.UpdateMessage(self._zone, keyring=self._key)
        if adding:
            message.add(self._name, _TTL, "TXT", self._value)
        else:
            message.delete(self._name, "TXT", self._value)
        address, port = self._server
        try:
            answer = await self._send(message, address, self._timeout, port)
        except (dns.exception.Timeout, OSError) as error:
            return Writing.UNANSWERED, type(error).__name__
        except dns.exception.DNSException as error:
            return _PEER.get(type(error), Writing.FAILED), type(error).__name__
        if answer.rcode() == dns.rcode.NOERROR:
            return Writing.SEEN, ""
        return _RCODES.get(answer.rcode(), Writing.FAILED), dns.rcode.to_text(answer.rcode())

    async def removed(self) -> bool:
        """Whether the server took the removal, tried a few times."""
        for _ in range(_REMOVALS):
            if (await self.send(adding=False))[0] is Writing.SEEN:
                return True
        return False
