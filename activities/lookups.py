"""What do the name servers say about a name? Asked of each of them, A and AAAA, all names at once.

A failure is an answer too (`lifecycle.routing.Lookup`): what could not be looked up is unknown. Left out: what the
answers mean.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable

import dns.asyncresolver
import dns.exception
import dns.message
import dns.nameserver
import dns.rcode
import dns.rdatatype
import dns.resolver

from lifecycle.diagnosis import said
from lifecycle.routing import DnsAnswer, Lookup

_AT_ONCE = 64
"""Questions under way: a hundred names at three name servers are done within seconds, and no one is flooded."""

LONGEST_CHAIN = 8
"""Aliases that are followed from zone to zone; resolvers give up at about as many (RFC 1034, section 3.6.2)."""

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


async def addresses_of(hostname: str, nameservers: Iterable[str], timeout: float) -> tuple[str, ...]:
    """The addresses of a name by the first name server that knows any, v4 first; empty where none does."""
    answers = await ask((hostname,), nameservers, timeout)
    for nameserver in dict.fromkeys(answer.nameserver for answer in answers):
        found = [address for answer in answers if answer.nameserver == nameserver for address in answer.addresses]
        if found:
            return tuple(dict.fromkeys(found))
    return ()


async def _answer(hostname: str, nameserver: str, resolver: dns.asyncresolver.Resolver, kind: str) -> DnsAnswer:
    def ended(lookup: Lookup, *addresses: str, detail: str = "") -> DnsAnswer:
        return DnsAnswer(
            hostname=hostname,
            lookup=lookup,
            addresses=addresses,
            cnames=tuple(cnames),
            nameserver=nameserver,
            detail=said(detail),
        )

    cnames: list[str] = []
    target = hostname.replace("*", f"certwright-{secrets.token_hex(4)}", 1) if hostname.startswith("*.") else hostname
    try:
        for _ in range(LONGEST_CHAIN):
            # absolute, so that no search list is tried
            answer = await resolver.resolve(target.rstrip(".") + ".", kind, raise_on_no_answer=False)
            names = [name.to_text(omit_final_dot=True).lower() for name in aliases(answer)]
            cnames.extend(names)
            if answer.rrset is not None:
                return ended(Lookup.ANSWERED, *(record.to_text() for record in answer.rrset))
            if not names:
                return ended(Lookup.NO_DATA)
            target = names[-1]  # an authority follows an alias only within its own zones
    except dns.resolver.NXDOMAIN:
        return ended(Lookup.NXDOMAIN)
    except dns.resolver.LifetimeTimeout:
        return ended(Lookup.TIMEOUT)
    except dns.resolver.NoNameservers as error:
        return ended(unanswered(error), detail=type(error).__name__)
    except (dns.exception.DNSException, OSError) as error:
        return ended(Lookup.BROKEN, detail=str(error) or type(error).__name__)
    return ended(Lookup.BROKEN, detail=f"more than {LONGEST_CHAIN} aliases")


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
