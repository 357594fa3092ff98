"""What do the name servers say about CAA? Every level of every name, asked of each of them at once.

All levels are asked though the first with records decides: together they take no longer than one, and names of one
domain share them. A failure is an answer too. Left out: what the answers mean (`lifecycle.caa`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

from activities.lookups import LONGEST_CHAIN, aliases, resolvers, unanswered
from lifecycle.caa import CaaClimb, CaaLevel, CaaRecord, climbed
from lifecycle.diagnosis import said
from lifecycle.routing import Lookup

_AT_ONCE = 64
"""Questions under way, as for addresses."""

_MOST_RECORDS = 50
"""More CAA records at one name are nobody's policy; whoever writes them must not fill our memory."""


async def gather_caa(hostnames: Iterable[str], nameservers: Iterable[str], timeout: float) -> tuple[CaaClimb, ...]:
    """Each name server's answers on the way up from each name, in their order.

    `timeout` in seconds for one question. Raises ValueError for a name server's address that is none.
    """
    names = tuple(dict.fromkeys(hostnames))
    asked = resolvers(nameservers, timeout)
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str, resolver: dns.asyncresolver.Resolver) -> CaaLevel:
        async with limit:
            return await _level(name, resolver)

    levels = tuple(dict.fromkeys(level for name in names for level in climbed(name)))
    answers = await asyncio.gather(*(one(level, resolver) for _, resolver in asked for level in levels))
    by_server = [
        dict(zip(levels, answers[begin : begin + len(levels)], strict=True))
        for begin in range(0, len(answers), max(len(levels), 1))
    ]
    return tuple(
        CaaClimb(hostname=name, nameserver=nameserver, levels=tuple(found[level] for level in climbed(name)))
        for name in names
        for (nameserver, _), found in zip(asked, by_server, strict=True)
    )


async def _level(name: str, resolver: dns.asyncresolver.Resolver) -> CaaLevel:
    def ended(lookup: Lookup, *records: CaaRecord, detail: str = "") -> CaaLevel:
        return CaaLevel(name=name, lookup=lookup, records=records, cnames=tuple(cnames), detail=said(detail))

    cnames: list[str] = []
    target = name
    try:
        for _ in range(LONGEST_CHAIN):
            answer = await resolver.resolve(target + ".", dns.rdatatype.CAA, raise_on_no_answer=False)
            followed = [alias.to_text(omit_final_dot=True).lower() for alias in aliases(answer)]
            cnames.extend(followed)
            if answer.rrset is not None:
                return ended(
                    Lookup.ANSWERED,
                    *(
                        CaaRecord(
                            flags=record.flags,
                            tag=record.tag.decode("ascii", "replace"),
                            value=record.value.decode("ascii", "replace"),
                        )
                        for record in list(answer.rrset)[:_MOST_RECORDS]
                    ),
                )
            if not followed:
                return ended(Lookup.NO_DATA)
            target = followed[-1]  # an authority follows an alias only within its own zones
    except dns.resolver.NXDOMAIN:
        return ended(Lookup.NXDOMAIN)
    except dns.resolver.LifetimeTimeout:
        return ended(Lookup.TIMEOUT)
    except dns.resolver.NoNameservers as error:
        return ended(unanswered(error), detail=type(error).__name__)
    except (dns.exception.DNSException, OSError) as error:
        return ended(Lookup.BROKEN, detail=str(error) or type(error).__name__)
    return ended(Lookup.BROKEN, detail=f"more than {LONGEST_CHAIN} aliases")
