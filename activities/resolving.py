"""How does a name server answer one question? Asked, aliases followed, and how it ended as a value.

A failure is an answer too (`lifecycle.routing.Lookup`): what could not be looked up is unknown. Left out: which names
and types are asked (`lookups`, `caa`, `delegation`), and what the answers mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rcode
import dns.rdata
import dns.resolver

from lifecycle.diagnosis import said
from lifecycle.routing import LONGEST_CHAIN, Lookup, server_address

AT_ONCE = 64
"""Questions under way: a hundred names at three name servers are done within seconds, and no one is flooded."""

_RCODES = {dns.rcode.SERVFAIL: Lookup.SERVFAIL, dns.rcode.REFUSED: Lookup.REFUSED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How one question ended.

    Attributes:
        records: those of the last alias, or of the name itself.
        cnames: the aliases followed, in order, lower-case without the final dot.
        ttl: seconds that it may still be remembered, 0 where that is not known.
        detail: the resolver's own words where it failed, cut.
    """

    lookup: Lookup
    records: tuple[dns.rdata.Rdata, ...] = ()
    cnames: tuple[str, ...] = ()
    ttl: int = 0
    detail: str = ""


def resolver_at(address: str, port: int, timeout: float) -> dns.asyncresolver.Resolver:
    """A resolver that asks one name server; `timeout` in seconds for one question."""
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [dns.nameserver.Do53Nameserver(address, port)]
    resolver.timeout = resolver.lifetime = timeout
    return resolver


def resolvers(nameservers: Iterable[str], timeout: float) -> tuple[tuple[str, dns.asyncresolver.Resolver], ...]:
    """A resolver for each name server ("ip", "ip:port" or "[v6]:port"), else one that goes by /etc/resolv.conf.

    `timeout` in seconds for one question. Raises ValueError for a text that is no address.
    """
    made = tuple((text, resolver_at(*server_address(text), timeout)) for text in nameservers)
    if made:
        return made
    system = dns.asyncresolver.Resolver()
    system.timeout = system.lifetime = timeout
    return (("", system),)


async def resolve(resolver: dns.asyncresolver.Resolver, name: str, kind: str, *, authority: bool = False) -> Reply:
    """The records of one type, through aliases from zone to zone.

    `authority`: the server is one of the zone's own; an alias that leads out of its zones is all that it has to say.
    """
    cnames: list[str] = []
    ttl = 0

    def ended(lookup: Lookup, *records: dns.rdata.Rdata, detail: str = "") -> Reply:
        return Reply(lookup=lookup, records=records, cnames=tuple(cnames), ttl=ttl, detail=said(detail))

    target = name
    try:
        for _ in range(LONGEST_CHAIN):
            # absolute, so that no search list is tried
            answer = await resolver.resolve(target.rstrip(".") + ".", kind, raise_on_no_answer=False)
            followed = [alias.to_text(omit_final_dot=True).lower() for alias in _aliases(answer)]
            cnames.extend(followed)
            ttl = max(ttl, int(answer.chaining_result.minimum_ttl))
            if answer.rrset is not None:
                return ended(Lookup.ANSWERED, *answer.rrset)
            if not followed:
                return ended(Lookup.NO_DATA)
            if authority:
                return ended(Lookup.ANSWERED)
            target = followed[-1]  # an authority follows an alias only within its own zones
    except dns.resolver.NXDOMAIN:
        return ended(Lookup.NXDOMAIN)
    except dns.resolver.LifetimeTimeout:
        return ended(Lookup.TIMEOUT)
    except dns.resolver.NoNameservers as error:
        lookup = _unanswered(error)
        if lookup is Lookup.SERVFAIL and not authority and await _answers_unchecked(resolver, target, kind):
            lookup = Lookup.BOGUS
        return ended(lookup, detail=type(error).__name__)
    except (dns.exception.DNSException, OSError) as error:
        return ended(Lookup.BROKEN, detail=str(error) or type(error).__name__)
    return ended(Lookup.BROKEN, detail=f"more than {LONGEST_CHAIN} aliases")


def name_servers(reply: Reply) -> tuple[str, ...]:
    """The names in NS records, sorted."""
    return tuple(sorted(record.target.to_text(omit_final_dot=True).lower() for record in reply.records))  # type: ignore[attr-defined]


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


def _aliases(answer: dns.resolver.Answer) -> list[dns.name.Name]:
    return [record.target for cname in answer.chaining_result.cnames for record in cname]


def _unanswered(error: dns.resolver.NoNameservers) -> Lookup:
    """Why no server answered: by the response code of the last one that gave any."""
    for *_, response in reversed(error.kwargs.get("errors") or []):
        if isinstance(response, dns.message.Message):
            return _RCODES.get(response.rcode(), Lookup.BROKEN)
    return Lookup.BROKEN
