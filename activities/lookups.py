"""What do the name servers say about a name? Asked of each of them, A and AAAA, all names at once.

The resolvers are the operator's; the zone's own servers are found by its NS records, which whoever has the zone
writes: they are asked only at addresses that may be dialled. A failure is an answer too (`lifecycle.routing.Lookup`):
what could not be looked up is unknown. Left out: what the answers mean.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Callable, Iterable

import dns.asyncresolver

from activities.resolving import AT_ONCE, name_servers, resolve, resolver_at, resolvers
from lifecycle.registered_domain import registered_domain
from lifecycle.routing import DNS_PORT, KNOWN, DnsAnswer

MOST_SERVERS = 4
"""Of a zone's own servers: that many show whether they agree, and a zone may name as many as it likes."""

_AUTHORITIES_SECONDS = 12.0
"""For finding and asking the zones' own servers: what they add is not worth the rest of a look's time."""


async def ask(hostnames: Iterable[str], nameservers: Iterable[str], timeout: float) -> tuple[DnsAnswer, ...]:
    """Every name server's answers about every name, in their order. Raises ValueError as `resolvers`.

    Of a wildcard a name below it is asked that nobody has set, a new one each time: what a client would ask for is
    synthesized from the wildcard's record (RFC 4592, section 2.2.1), and no cache knows it.
    """
    limit = asyncio.Semaphore(AT_ONCE)
    asked = resolvers(nameservers, timeout)

    async def one(hostname: str, nameserver: str, resolver: dns.asyncresolver.Resolver, kind: str) -> DnsAnswer:
        async with limit:
            return await _answer(hostname, nameserver, resolver, kind)

    return tuple(
        await asyncio.gather(
            *(
                one(hostname, nameserver, resolver, kind)
                for hostname in hostnames
                for nameserver, resolver in asked
                for kind in ("A", "AAAA")
            )
        )
    )


async def ask_all(
    hostnames: tuple[str, ...],
    nameservers: Iterable[str],
    timeout: float,
    *,
    may_dial: Callable[[str], bool],
    port: int = DNS_PORT,
) -> tuple[DnsAnswer, ...]:
    """The resolvers' answers, and those of the zones' own servers where these come in time.

    `timeout` in seconds for one question. Raises ValueError as `resolvers`.
    """

    async def own() -> tuple[DnsAnswer, ...]:
        try:
            async with asyncio.timeout(_AUTHORITIES_SECONDS):
                return await ask_authorities(hostnames, nameservers, timeout, may_dial=may_dial, port=port)
        except TimeoutError:
            return ()

    told, authoritative = await asyncio.gather(ask(hostnames, nameservers, timeout), own())
    return (*told, *authoritative)


async def ask_authorities(
    hostnames: Iterable[str],
    nameservers: Iterable[str],
    timeout: float,
    *,
    may_dial: Callable[[str], bool],
    port: int = DNS_PORT,
) -> tuple[DnsAnswer, ...]:
    """The answers of the zones' own servers, which the resolvers name; none where those know of none.

    They are asked at addresses that `may_dial` allows. Raises ValueError as `resolvers`.
    """
    names = tuple(dict.fromkeys(hostnames))
    found = await _zones(names, nameservers, timeout)
    servers = tuple(dict.fromkeys(server for zone in found.values() for server in zone[:MOST_SERVERS]))
    addresses = await asyncio.gather(*(addresses_of(server, nameservers, timeout) for server in servers))
    allowed = {
        server: next((one for one in known if may_dial(one)), "")
        for server, known in zip(servers, addresses, strict=True)
    }
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(hostname: str, server: str, kind: str) -> DnsAnswer:
        async with limit:
            resolver = resolver_at(allowed[server], port, timeout)
            answer = await _answer(hostname, server, resolver, kind, authority=True)
            return dataclasses.replace(answer, authoritative=True)

    return tuple(
        await asyncio.gather(
            *(
                one(name, server, kind)
                for name in names
                for server in found[name][:MOST_SERVERS]
                if allowed[server]
                for kind in ("A", "AAAA")
            )
        )
    )


async def _zones(names: tuple[str, ...], nameservers: Iterable[str], timeout: float) -> dict[str, tuple[str, ...]]:
    """The servers of the zone that each name lies in: of the nearest level, up to the registered domain, with any."""
    above = {name: tuple(_levels(name)) for name in names}
    asked = resolvers(nameservers, timeout)
    limit = asyncio.Semaphore(AT_ONCE)

    async def servers(level: str) -> tuple[str, ...]:
        for _, resolver in asked:
            async with limit:
                reply = await resolve(resolver, level, "NS")
            if reply.lookup in KNOWN:
                return () if reply.cnames else name_servers(reply)  # an alias leads to another zone's
        return ()

    levels = tuple(dict.fromkeys(level for some in above.values() for level in some))
    found = dict(zip(levels, await asyncio.gather(*map(servers, levels)), strict=True))
    return {name: next((found[level] for level in some if found[level]), ()) for name, some in above.items()}


def _levels(hostname: str) -> Iterable[str]:
    apex = registered_domain(hostname)
    level = hostname.removeprefix("*.")
    while True:
        yield level
        if level == apex or "." not in level:
            return
        level = level.partition(".")[2]


async def addresses_of(hostname: str, nameservers: Iterable[str], timeout: float) -> tuple[str, ...]:
    """The addresses of a name by the first name server that knows any, v4 first; empty where none does."""
    answers = await ask((hostname,), nameservers, timeout)
    for nameserver in dict.fromkeys(answer.nameserver for answer in answers):
        found = [address for answer in answers if answer.nameserver == nameserver for address in answer.addresses]
        if found:
            return tuple(dict.fromkeys(found))
    return ()


async def _answer(
    hostname: str, nameserver: str, resolver: dns.asyncresolver.Resolver, kind: str, *, authority: bool = False
) -> DnsAnswer:
    target = hostname.replace("*", f"certwright-{secrets.token_hex(4)}", 1) if hostname.startswith("*.") else hostname
    reply = await resolve(resolver, target, kind, authority=authority)
    return DnsAnswer(
        hostname=hostname,
        lookup=reply.lookup,
        addresses=tuple(record.to_text() for record in reply.records),
        cnames=reply.cnames,
        nameserver=nameserver,
        detail=reply.detail,
        ttl=reply.ttl,
    )
