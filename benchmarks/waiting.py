"""What does one more domain cost a worker's memory while it waits? Measured by itself, without a lab.

`python -m benchmarks.waiting`: Temporal's development server, the real workflows in the workers' sandbox, activities
that pretend. Domains whose DNS does not point here yet are onboarded and stay in the worker's cache. Resident memory of
this process, which is worker and asker at once, is read before and after, so what a request leaves behind is counted
too; the first domains pay for imports and connections and are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
from pathlib import Path

from temporalio.client import Client

from lifecycle import names
from lifecycle.domain import RoutingStatus
from lifecycle.steps import PreflightReport
from tests.workflows.conftest import development_server
from tests.workflows.pretended import World, onboard, request, seen, working

FIRST = 50
"""Not counted."""

TOGETHER = 10
"""Onboarded at the same time."""


def resident() -> int:
    """Octets of this process in memory; what Python no longer refers to is collected before."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def until_it_waits(client: Client, hostname: str) -> None:
    """Ask for the domain and wait until it waits."""
    await onboard(client, request(hostname))
    await seen(client, names.domain_id(hostname), lambda status: status.next_check_at is not None)


async def measure(number: int) -> float:
    """Octets that each of `number` more waiting domains adds."""
    async with development_server() as environment:
        world = World(environment, cached=FIRST + number + TOGETHER)
        world.script["check_preflight"] = [lambda _: PreflightReport(routing=RoutingStatus.MISSING, may_proceed=False)]
        async with working(environment.client, world, versioned=True):
            before = 0
            for begun in range(0, FIRST + number, TOGETHER):
                if begun == FIRST:
                    before = resident()
                some = (f"shop{begun + one}.example.com" for one in range(TOGETHER))
                await asyncio.gather(*(until_it_waits(environment.client, hostname) for hostname in some))
            return (resident() - before) / number


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting", description="Memory of a waiting domain.")
    parser.add_argument("--domains", type=int, default=200, help="a multiple of ten")
    number = parser.parse_args().domains
    print(f"{asyncio.run(measure(number)) / 1024:.0f} KiB for each of {number} further domains that wait")


if __name__ == "__main__":
    main()
