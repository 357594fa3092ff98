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
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rcode
import dns.rdatatype
import dns.resolver

from lifecycle.diagnosis import said
from lifecycle.registered_domain import registered_domain
from lifecycle.routing import DnsAnswer, Lookup

_AT_ONCE = 64
"""Questions under way: a hundred names at three name servers are done within seconds, and no one is flooded."""

LONGEST_CHAIN = 8
"""Aliases that are followed from zone to zone; resolvers give up at about as many (RFC 1034, section 3.6.2)."""

MOST_SERVERS = 4
"""Of a zone's own servers: that many show whether they agree, and a zone may name as many as it likes."""

_DNS_PORT = 53
_RCODES = {dns.rcode.SERVFAIL: Lookup.SERVFAIL, dns.rcode.REFUSED: Lookup.REFUSED}


def resolvers(nameservers: Iterable[str], timeout: float) -> tuple[tuple[str, dns.asyncresolver.Resolver], ...]:
    """A resolver for each name server ("ip", "ip:port" or "[v6]:port"), else one that goes by /etc/resolv.conf.

    `timeout` in seconds for one question. Raises ValueError for a text that is no address.
    """
    made = []
    for text in nameservers:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = [dns.nameserver.Do53Nameserver(*_address(text))]
        made.append((text, resolver))
    if not made:
        made.append(("", dns.asyncresolver.Resolver()))
    for _, resolver in made:
        resolver.timeout = resolver.lifetime = timeout
    return tuple(made)


async def ask(hostnames: Iterable[str], nameservers: Iterable[str], timeout: float) -> tuple[DnsAnswer, ...]:
    """Every name server's answers about every name, in their order. Raises ValueError as `resolvers`.

    Of a wildcard a name below it is asked that nobody has set, a new one each time: what a client would ask for is
    synthesized from the wildcard's record (RFC 4592, section 2.2.1), and no cache knows it.
    """
    limit = asyncio.Semaphore(_AT_ONCE)
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


async def ask_authorities(
    hostnames: Iterable[str],
    nameservers: Iterable[str],
    timeout: float,
    *,
    may_dial: Callable[[str], bool],
    port: int = _DNS_PORT,
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
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(hostname: str, server: str, kind: str) -> DnsAnswer:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = [dns.nameserver.Do53Nameserver(allowed[server], port)]
        resolver.timeout = resolver.lifetime = timeout
        async with limit:
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
    limit = asyncio.Semaphore(_AT_ONCE)

    async def servers(level: str) -> tuple[str, ...]:
        for _, resolver in asked:
            async with limit:
                try:
                    answer = await resolver.resolve(f"{level}.", dns.rdatatype.NS, raise_on_no_answer=False)
                except dns.resolver.NXDOMAIN:
                    return ()
                except (dns.exception.DNSException, OSError):
                    continue
            if answer.rrset is None or answer.rrset.name != dns.name.from_text(level):
                return ()  # an alias leads to another zone's
            return tuple(sorted(record.target.to_text(omit_final_dot=True).lower() for record in answer.rrset))
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
    def ended(lookup: Lookup, *addresses: str, detail: str = "") -> DnsAnswer:
        return DnsAnswer(
            hostname=hostname,
            lookup=lookup,
            addresses=addresses,
            cnames=tuple(cnames),
            nameserver=nameserver,
            detail=said(detail),
            ttl=ttl,
        )

    cnames: list[str] = []
    target = hostname.replace("*", f"certwright-{secrets.token_hex(4)}", 1) if hostname.startswith("*.") else hostname
    ttl = 0
    try:
        for _ in range(LONGEST_CHAIN):
            # absolute, so that no search list is tried
            answer = await resolver.resolve(target.rstrip(".") + ".", kind, raise_on_no_answer=False)
            names = [name.to_text(omit_final_dot=True).lower() for name in aliases(answer)]
            cnames.extend(names)
            ttl = max(ttl, int(answer.chaining_result.minimum_ttl))
            if answer.rrset is not None:
                return ended(Lookup.ANSWERED, *(record.to_text() for record in answer.rrset))
            if not names:
                return ended(Lookup.NO_DATA)
            if authority:
                return ended(Lookup.ANSWERED)  # what lies outside its zones is not for it to say
            target = names[-1]  # an authority follows an alias only within its own zones
    except dns.resolver.NXDOMAIN:
        return ended(Lookup.NXDOMAIN)
    except dns.resolver.LifetimeTimeout:
        return ended(Lookup.TIMEOUT)
    except dns.resolver.NoNameservers as error:
        lookup = unanswered(error)
        if lookup is Lookup.SERVFAIL and not authority and await _answers_unchecked(resolver, target, kind):
            lookup = Lookup.BOGUS
        return ended(lookup, detail=type(error).__name__)
    except (dns.exception.DNSException, OSError) as error:
        return ended(Lookup.BROKEN, detail=str(error) or type(error).__name__)
    return ended(Lookup.BROKEN, detail=f"more than {LONGEST_CHAIN} aliases")


async def _answers_unchecked(resolver: dns.asyncresolver.Resolver, name: str, kind: str) -> bool:
    """Whether the same resolver answers where it is told not to check signatures (RFC 4035, section 3.2.2)."""
    unchecked = dns.asyncresolver.Resolver(configure=False)
    unchecked.nameservers = list(resolver.nameservers)
    unchecked.timeout = unchecked.lifetime = resolver.timeout
    unchecked.set_flags(dns.flags.RD | dns.flags.CD)
    try:
        await unchecked.resolve(name.rstrip(".") + ".", kind, raise_on_no_answer=False)
    except dns.resolver.NXDOMAIN:
        return True
    except (dns.exception.DNSException, OSError):
        return False
    return True


def aliases(answer: dns.resolver.Answer) -> list[dns.name.Name]:
    """The targets of the aliases that an answer came by, in order."""
    return [record.target for cname in answer.chaining_result.cnames for record in cname]


def unanswered(error: dns.resolver.NoNameservers) -> Lookup:
    """Why no server answered: by the response code of the last one that gave any."""
    for *_, response in reversed(error.kwargs.get("errors") or []):
        if isinstance(response, dns.message.Message):
            return _RCODES.get(response.rcode(), Lookup.BROKEN)
    return Lookup.BROKEN


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (host.startswith("[") or ":" not in host):
        return host.strip("[]"), int(port)
    return text.strip("[]"), _DNS_PORT
