"""The customers' DNS: an authoritative server for zones in memory, with faults that can be switched.

Answers A, AAAA, CNAME, TXT, CAA, SOA, NS and the rest as RFC 1034 section 4.3.2 says for an authority (CNAMEs
followed inside its zones, wildcards, SOA in the authority section of negative answers), takes dynamic updates (RFC
2136) signed by TSIG (RFC 8945), and refuses what lies outside its zones. Left out: recursion, zone transfers,
DNSSEC, delegations.
"""

from __future__ import annotations

import asyncio
import dataclasses
import struct
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.tsigkeyring
import dns.update

_LONGEST_CHAIN = 8
_UDP_SIZE = 1232  # what the DNS flag day of 2020 recommends
_NEGATIVE_TTL = 1
_IN = dns.rdataclass.IN

_Rdata = dns.rdata.Rdata
_Records = dict[dns.name.Name, dict[dns.rdatatype.RdataType, tuple[int, tuple[_Rdata, ...]]]]


class FaultKind(StrEnum):
    """What can be wrong with a name or a zone."""

    SERVFAIL = "servfail"
    BOGUS = "bogus"
    """As a validating resolver answers for broken signatures: SERVFAIL unless told not to check (RFC 4035, 3.2.2)."""
    NXDOMAIN = "nxdomain"
    SLOW = "slow"
    STALE = "stale"
    TIMEOUT = "timeout"


@dataclasses.dataclass(slots=True)
class _Fault:
    kind: FaultKind
    seconds: float
    whole_zone: bool
    records: _Records


class DnsServer:
    """An authoritative server on one UDP and TCP port of this machine."""

    def __init__(self, *, keys: Mapping[str, str] | None = None) -> None:
        """`keys`: TSIG key names to base64 secrets; without any, every update is refused."""
        self._zones: dict[dns.name.Name, int] = {}
        self._records: _Records = {}
        self._faults: dict[dns.name.Name, _Fault] = {}
        self._keyring = dns.tsigkeyring.from_text(dict(keys or {}))
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.queries = 0

    async def start(self, address: str = "127.0.0.1", port: int = 0) -> tuple[str, int]:
        """Listen on UDP and TCP; port 0 takes a free one. Returns address and port. Raises OSError."""
        self._server = await asyncio.start_server(self._stream, address, port)
        chosen = int(self._server.sockets[0].getsockname()[1])
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(address, chosen))
        return address, chosen

    async def stop(self) -> None:
        """Stop listening."""
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add_zone(self, origin: str) -> None:
        """Be the authority for `origin` and all below it. A zone that exists stays as it is."""
        self._zones.setdefault(_name(origin), 1)

    def set(self, name: str, rdtype: str, values: Iterable[str], ttl: int = 5) -> None:
        """The records of one name and type, as in a zone file; replaces what was there.

        `ttl` in seconds. Raises ValueError outside the zones, dns.exception.SyntaxError for a value that is none.
        """
        owner, kind = _name(name), dns.rdatatype.from_text(rdtype)
        zone = self._zone(owner)
        if zone is None:
            raise ValueError(f"{name} lies in no zone of this server")
        parsed = tuple(
            dns.rdata.from_text(_IN, kind, value, origin=dns.name.root, relativize=False) for value in values
        )
        self._records.setdefault(owner, {})[kind] = (ttl, parsed)
        self._zones[zone] += 1

    def remove(self, name: str, rdtype: str | None = None) -> None:
        """Remove one type of a name, or the whole name. What does not exist is no error."""
        owner = _name(name)
        if rdtype is None:
            self._records.pop(owner, None)
        elif owner in self._records:
            self._records[owner].pop(dns.rdatatype.from_text(rdtype), None)
            if not self._records[owner]:
                del self._records[owner]
        zone = self._zone(owner)
        if zone is not None:
            self._zones[zone] += 1

    def fault(self, name: str, kind: FaultKind | None, *, seconds: float = 2.0, whole_zone: bool = False) -> None:
        """Break a name, or with `whole_zone` everything below it too; None mends it.

        `seconds` is the delay of SLOW. STALE freezes today's records for askers, while changes go on underneath.
        """
        owner = _name(name)
        if kind is None:
            self._faults.pop(owner, None)
            return
        frozen = {held: dict(types) for held, types in self._records.items()} if kind is FaultKind.STALE else {}
        self._faults[owner] = _Fault(kind, seconds, whole_zone, frozen)

    def mend(self) -> None:
        """Take every fault away."""
        self._faults.clear()

    def faults(self) -> dict[str, str]:
        """The names that are broken, and how."""
        return {name.to_text(omit_final_dot=True): fault.kind.value for name, fault in self._faults.items()}

    def shown(self, below: str = "") -> list[str]:
        """The records of `below` and all names under it, or of every zone, as lines of a zone file."""
        top = _name(below) if below else dns.name.root
        return [
            f"{owner} {ttl} IN {dns.rdatatype.to_text(kind)} {value.to_text()}"
            for owner, types in sorted(self._records.items())
            if owner.is_subdomain(top)
            for kind, (ttl, values) in types.items()
            for value in values
        ]

    def _zone(self, owner: dns.name.Name) -> dns.name.Name | None:
        found = [origin for origin in self._zones if owner.is_subdomain(origin)]
        return max(found, key=len) if found else None

    def _fault(self, owner: dns.name.Name) -> _Fault | None:
        candidate = owner
        while True:
            fault = self._faults.get(candidate)
            if fault is not None and (candidate == owner or fault.whole_zone):
                return fault
            if candidate == dns.name.root:
                return None
            candidate = candidate.parent()

    async def handle(self, wire: bytes, *, limit: int) -> bytes | None:
        """The answer to one message, at most `limit` octets; None where none is sent."""
        self.queries += 1
        try:
            query = dns.message.from_wire(wire, keyring=self._keyring)
        except (dns.message.UnknownTSIGKey, dns.tsig.BadAlgorithm):
            return _not_trusted(wire, dns.rcode.BADKEY)
        except dns.tsig.BadSignature:
            return _not_trusted(wire, dns.rcode.BADSIG)
        except dns.tsig.BadTime:
            return _not_trusted(wire, dns.rcode.BADTIME)
        except dns.exception.DNSException:
            return _bare(wire, dns.rcode.FORMERR)
        if query.flags & dns.flags.QR:
            return None
        if query.opcode() == dns.opcode.UPDATE:
            response = dns.message.make_response(query)
            response.set_rcode(self._update(query))
        elif query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            response = dns.message.make_response(query)
            response.set_rcode(dns.rcode.NOTIMP)
        else:
            fault = self._fault(query.question[0].name)
            if fault is not None and fault.kind is FaultKind.TIMEOUT:
                return None
            if fault is not None and fault.kind is FaultKind.SLOW:
                await asyncio.sleep(fault.seconds)
            response = self._respond(query, fault)
        size = min(limit, max(512, query.payload)) if query.edns >= 0 else min(limit, 512) if limit < 65535 else limit
        try:
            return response.to_wire(max_size=limit if limit >= 65535 else size)
        except dns.exception.TooBig:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC | dns.flags.AA
            return short.to_wire()

    def _respond(self, query: dns.message.Message, fault: _Fault | None) -> dns.message.Message:
        response = dns.message.make_response(query)
        question = query.question[0]
        owner, kind = question.name, question.rdtype
        if self._zone(owner) is None:
            response.set_rcode(dns.rcode.REFUSED)
            return response
        bogus = fault is not None and fault.kind is FaultKind.BOGUS and not query.flags & dns.flags.CD
        if bogus or (fault is not None and fault.kind is FaultKind.SERVFAIL):
            response.set_rcode(dns.rcode.SERVFAIL)
            return response
        response.flags |= dns.flags.AA
        records = fault.records if fault is not None and fault.kind is FaultKind.STALE else self._records
        for _ in range(_LONGEST_CHAIN):
            zone = self._zone(owner)
            if zone is None:  # a CNAME led out of our zones: the asker goes on from there
                return response
            later = self._fault(owner)
            if later is not None and later.kind is FaultKind.SERVFAIL:
                response.set_rcode(dns.rcode.SERVFAIL)
                return response
            gone = later is not None and later.kind is FaultKind.NXDOMAIN
            types = None if gone else self._types(records, zone, owner)
            if types is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
            elif kind in types or (kind == dns.rdatatype.ANY and types):
                for held, (ttl, values) in types.items():
                    if held == kind or kind == dns.rdatatype.ANY:
                        response.answer.append(dns.rrset.from_rdata_list(owner, ttl, list(values)))
                return response
            elif dns.rdatatype.CNAME in types:
                ttl, values = types[dns.rdatatype.CNAME]
                response.answer.append(dns.rrset.from_rdata_list(owner, ttl, list(values)))
                owner = values[0].target  # type: ignore[attr-defined]
                continue
            response.authority.append(self._soa(zone))
            return response
        return response

    def _types(
        self, records: _Records, zone: dns.name.Name, owner: dns.name.Name
    ) -> dict[dns.rdatatype.RdataType, tuple[int, tuple[_Rdata, ...]]] | None:
        """The records of a name: its own, the zone's at its top, a wildcard's; {} for an empty name, None for none."""
        found = dict(records.get(owner) or {})
        if owner == zone:
            soa, ns = self._soa(zone), dns.name.from_text("ns", zone)
            found.setdefault(dns.rdatatype.SOA, (_NEGATIVE_TTL, tuple(soa)))
            found.setdefault(dns.rdatatype.NS, (60, (dns.rdata.from_text(_IN, dns.rdatatype.NS, ns.to_text()),)))
        if found:
            return found
        if any(held != owner and held.is_subdomain(owner) for held in records):
            return {}
        ancestor = owner
        while ancestor != zone:
            ancestor = ancestor.parent()
            wildcard = records.get(dns.name.from_text("*", ancestor))
            if wildcard:
                return dict(wildcard)
            if ancestor in records:
                break
        return None

    def _soa(self, zone: dns.name.Name) -> dns.rrset.RRset:
        primary, mailbox = dns.name.from_text("ns", zone), dns.name.from_text("hostmaster", zone)
        text = f"{primary} {mailbox} {self._zones[zone]} 60 60 3600 {_NEGATIVE_TTL}"
        return dns.rrset.from_text(zone, _NEGATIVE_TTL, _IN, dns.rdatatype.SOA, text)

    def _update(self, query: dns.message.Message) -> dns.rcode.Rcode:
        """RFC 2136, sections 3.1 to 3.4."""
        if not query.had_tsig:
            return dns.rcode.REFUSED
        if not isinstance(query, dns.update.UpdateMessage) or len(query.zone) != 1:
            return dns.rcode.FORMERR
        origin = query.zone[0].name
        if origin not in self._zones:
            return dns.rcode.NOTAUTH
        for wanted in query.prerequisite:
            failed = self._prerequisite(wanted)
            if failed is not None:
                return failed
        if any(not change.name.is_subdomain(origin) for change in query.update):
            return dns.rcode.NOTZONE
        for change in query.update:
            self._change(change)
        self._zones[origin] += 1
        return dns.rcode.NOERROR

    def _prerequisite(self, wanted: dns.rrset.RRset) -> dns.rcode.Rcode | None:
        types = self._records.get(wanted.name, {})
        present = bool(types) if wanted.rdtype == dns.rdatatype.ANY else wanted.rdtype in types
        if wanted.deleting == dns.rdataclass.ANY and not present:
            return dns.rcode.NXDOMAIN if wanted.rdtype == dns.rdatatype.ANY else dns.rcode.NXRRSET
        if wanted.deleting == dns.rdataclass.NONE and present:
            return dns.rcode.YXDOMAIN if wanted.rdtype == dns.rdatatype.ANY else dns.rcode.YXRRSET
        if wanted.deleting is None and {*types.get(wanted.rdtype, (0, ()))[1]} != {*wanted}:
            return dns.rcode.NXRRSET
        return None

    def _change(self, change: dns.rrset.RRset) -> None:
        types = self._records.setdefault(change.name, {})
        if change.deleting == dns.rdataclass.ANY:
            if change.rdtype == dns.rdatatype.ANY:
                types.clear()
            else:
                types.pop(change.rdtype, None)
        else:
            ttl, held = types.get(change.rdtype, (change.ttl, ()))
            if change.deleting == dns.rdataclass.NONE:
                values = tuple(value for value in held if value not in set(change))
            else:
                ttl = change.ttl
                values = (*held, *(value for value in change if value not in held))
            if values:
                types[change.rdtype] = (ttl, values)
            else:
                types.pop(change.rdtype, None)
        if not types:
            del self._records[change.name]

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), 10))
                answer = await self.handle(await reader.readexactly(length), limit=65535)
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            return
        finally:
            writer.close()

    def received(self, wire: bytes, sender: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        """A datagram came; its answer is sent when it is ready."""

        async def answer() -> None:
            reply = await self.handle(wire, limit=_UDP_SIZE)
            if reply is not None and not transport.is_closing():
                transport.sendto(reply, sender)

        task = asyncio.ensure_future(answer())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Python 3.11's selector loop hands over a transport that is none by isinstance
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._server.received(data, addr, self._transport)


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text.lower())


def _not_trusted(wire: bytes, error: dns.rcode.Rcode) -> bytes:
    """RFC 8945, section 5.2: NOTAUTH, with the error in a TSIG record that is not signed."""
    query = dns.message.from_wire(wire, keyring=False)  # which leaves the signature alone
    response = dns.message.Message(id=query.id)
    response.flags |= dns.flags.QR
    response.set_opcode(query.opcode())
    response.set_rcode(dns.rcode.NOTAUTH)
    assert query.tsig is not None
    response.tsig = dns.rrset.from_rdata(query.tsig.name, 0, query.tsig[0].replace(mac=b"", error=error))
    return response.to_wire()


def _bare(wire: bytes, rcode: dns.rcode.Rcode) -> bytes | None:
    """A header alone: the question could not be read, or its signature not be trusted."""
    if len(wire) < 12:
        return None
    flags = (int.from_bytes(wire[2:4], "big") & 0x7900) | dns.flags.QR | rcode
    return wire[:2] + struct.pack("!HHHHH", flags, 0, 0, 0, 0)
