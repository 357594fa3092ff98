"""Where do the name servers say that ``_acme-challenge`` leads? Asked as cert-manager asks, of each resolver.

The name server of an RFC 2136 solver is asked too, wherever it is: who may write issuers names it, and cert-manager
sends its updates there. Left out: what the answers mean (`lifecycle.delegation`).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Iterable

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from activities.resolving import AT_ONCE, name_servers, resolve, resolvers
from lifecycle.delegation import Authority, Delegation, DnsChallenge, DynamicUpdates, written_at
from lifecycle.routing import KNOWN, LONGEST_CHAIN, Lookup, server_address

_LONGEST_SECONDS = 15.0
"""For one record: a way is asked for step by step, and the look that this belongs to must end."""


async def gather_delegations(
    challenges: Iterable[DnsChallenge], nameservers: Iterable[str], timeout: float
) -> tuple[Delegation, ...]:
    """Each resolver's view of each record's way.

    `timeout` in seconds for one question. Raises ValueError for a name server's address that is none.
    """
    asked = resolvers(nameservers, timeout)
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(challenge: DnsChallenge, nameserver: str, resolver: dns.asyncresolver.Resolver) -> Delegation:
        async with limit:
            try:
                async with asyncio.timeout(_LONGEST_SECONDS):
                    return await _view(challenge, nameserver, resolver, timeout)
            except TimeoutError:
                return Delegation(challenge=challenge, nameserver=nameserver, lookup=Lookup.TIMEOUT)

    return tuple(await asyncio.gather(*(one(challenge, *server) for challenge in challenges for server in asked)))


async def _view(
    challenge: DnsChallenge, nameserver: str, resolver: dns.asyncresolver.Resolver, timeout: float
) -> Delegation:
    aliases, lookup = await _aliases(resolver, challenge.record)
    wildcard = bool(aliases) and await _of_a_wildcard(resolver, challenge.record, aliases[0])
    if lookup is Lookup.ANSWERED or lookup not in KNOWN:  # endless, or not known where it goes on
        return Delegation(challenge=challenge, nameserver=nameserver, lookup=lookup, aliases=aliases, wildcard=wildcard)
    end = written_at(challenge, aliases)
    zone, zone_lookup = await _zone(resolver, end)
    servers, values, authority = await asyncio.gather(
        resolve(resolver, zone, "NS"),
        resolve(resolver, end, "TXT"),
        _authority(challenge.solver.updates, zone, timeout),
    )
    return Delegation(
        challenge=challenge,
        nameserver=nameserver,
        lookup=lookup,
        aliases=aliases,
        wildcard=wildcard,
        zone=zone,
        zone_lookup=zone_lookup,
        servers=name_servers(servers) if zone else (),
        authority=authority,
        values=0 if values.cnames else len(values.records),
    )


async def _aliases(resolver: dns.asyncresolver.Resolver, record: str) -> tuple[tuple[str, ...], Lookup]:
    """The aliases in order, and how the last question ended; answered where there is no end to them."""
    way = [record]
    while len(way) <= LONGEST_CHAIN + 1:
        reply = await resolve(resolver, way[-1], "CNAME")
        if reply.lookup is not Lookup.ANSWERED:
            return tuple(way[1:]), reply.lookup
        target = reply.records[0].target.to_text(omit_final_dot=True).lower()  # type: ignore[attr-defined]
        way.append(target)
        if target in way[:-1]:
            break
    return tuple(way[1:]), Lookup.ANSWERED


async def _of_a_wildcard(resolver: dns.asyncresolver.Resolver, record: str, target: str) -> bool:
    """Whether a name beside it that nobody has set is an alias of the same (RFC 4592, section 2.2.1)."""
    beside = f"certwright-{secrets.token_hex(4)}.{record.partition('.')[2]}"
    return (await _aliases(resolver, beside))[0][:1] == (target,)


async def _zone(resolver: dns.asyncresolver.Resolver, name: str) -> tuple[str, Lookup]:
    """The nearest level upwards with an SOA record (cert-manager's FindZoneByFqdn), and how the last question ended."""
    labels = name.split(".")
    lookup = Lookup.NXDOMAIN
    for index in range(len(labels)):
        level = ".".join(labels[index:])
        reply = await resolve(resolver, level, "SOA")
        if reply.lookup not in KNOWN:
            return "", reply.lookup
        lookup = reply.lookup
        if reply.records and not reply.cnames:  # no alias stands at the top of a zone
            return level, lookup
    return "", lookup


async def _authority(updates: DynamicUpdates | None, zone: str, timeout: float) -> Authority:
    """Whether the solver's name server answers for a zone as one of its own: the AA bit (RFC 1035, section 4.1.1)."""
    if updates is None or not zone:
        return Authority.UNKNOWN
    question = dns.message.make_query(zone, dns.rdatatype.SOA, flags=0)
    try:
        async with asyncio.timeout(timeout):
            address, port = await server_endpoint(updates.nameserver)
            answer, _ = await dns.asyncquery.udp_with_fallback(question, address, port=port)
    except (dns.exception.DNSException, OSError, TimeoutError):
        return Authority.UNKNOWN
    if answer.rcode() == dns.rcode.SERVFAIL:
        return Authority.UNKNOWN
    top = any(rrset.name == dns.name.from_text(zone) for rrset in answer.answer)
    return Authority.YES if top and answer.flags & dns.flags.AA else Authority.NO


async def server_endpoint(nameserver: str) -> tuple[str, int]:
    """Address and port of a solver's name server, by the system's resolver as for cert-manager. Raises OSError."""
    host, port = server_address(nameserver)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    return str(found[0][4][0]), port
