"""What do the name servers say about CAA? Every level of every name, asked of each of them at once.

All levels are asked though the first with records decides: together they take no longer than one, and names of one
domain share them. A failure is an answer too. Left out: what the answers mean (`lifecycle.caa`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import dns.asyncresolver

from activities.resolving import AT_ONCE, resolve, resolvers
from lifecycle.caa import CaaClimb, CaaLevel, CaaRecord, climbed

_MOST_RECORDS = 50
"""More CAA records at one name are nobody's policy; whoever writes them must not fill our memory."""


async def gather_caa(hostnames: Iterable[str], nameservers: Iterable[str], timeout: float) -> tuple[CaaClimb, ...]:
    """Each name server's answers on the way up from each name, in their order.

    `timeout` in seconds for one question. Raises ValueError for a name server's address that is none.
    """
    names = tuple(dict.fromkeys(hostnames))
    asked = resolvers(nameservers, timeout)
    limit = asyncio.Semaphore(AT_ONCE)

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
    reply = await resolve(resolver, name, "CAA")
    return CaaLevel(
        name=name,
        lookup=reply.lookup,
        records=tuple(_record(one) for one in reply.records[:_MOST_RECORDS]),
        cnames=reply.cnames,
        detail=reply.detail,
    )


def _record(record: Any) -> CaaRecord:
    tag, value = (part.decode("ascii", "replace") for part in (record.tag, record.value))
    return CaaRecord(flags=record.flags, tag=tag, value=value)
