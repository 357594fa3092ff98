"""Pods of one host agree on who has a port."""

from __future__ import annotations

import asyncio

import pytest

from lab.pod import PortClaims

PORT = 20_000
SECOND = "2026-09-01T10:00:00Z"


@pytest.mark.parametrize(("old", "new"), [("a", "b"), ("b", "a")], ids=["uids ascend", "uids descend"])
async def test_of_two_pods_made_within_one_second_the_later_one_gets_the_port(old: str, new: str) -> None:
    claims = PortClaims()
    await claims.want([PORT], old, (SECOND, 1))
    await claims.take([PORT], old)
    await claims.want([PORT], new, (SECOND, 2))
    async with asyncio.timeout(1):
        await claims.outranked([PORT], old)
        taking = asyncio.create_task(claims.take([PORT], new))
        await asyncio.sleep(0)
        assert not taking.done(), "the old Pod's process still has the port"
        await claims.release([PORT], old)
        await taking


async def test_a_port_goes_back_to_the_next_newest_when_the_newest_leaves() -> None:
    claims = PortClaims()
    await claims.want([PORT], "old", (SECOND, 1))
    await claims.want([PORT], "new", (SECOND, 2))
    await claims.take([PORT], "new")
    await claims.leave("new")
    taking = asyncio.create_task(claims.take([PORT], "old"))
    await claims.release([PORT], "new")
    async with asyncio.timeout(1):
        await taking
