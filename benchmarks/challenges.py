"""How long do many HTTP-01 challenges take, by the number of cert-manager's workers? On a stage of its own.

`python -m benchmarks.challenges 5 30 60` installs cert-manager with each number of workers, and has one domain of 25
names issued, then 30 domains of one name each, asked for at once. Seconds are a client's, from the first request until
the portal shows the last of them active; cert-manager holds a worker for ten seconds with each challenge.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import httpx

from lab.cluster import GATEWAY_ADDRESSES
from lab.stage import Stage, run_stage

ZONE = "bench-shops.com"
NAMES, DOMAINS = 25, 30
_LONGEST = 900.0


async def measure(stage: Stage, workers: int) -> tuple[float, float]:
    """Seconds of one domain with many names, and of many domains, with so many workers."""
    await stage.command("platform", "install", "--cluster", "lab", "--concurrent-workers", str(workers))
    lab = stage.lab
    server = ("--server", lab.acme_directory, "--ca-bundle", str(lab.acme_ca))
    await stage.command("issuer", "apply", "--name", "lab", "--profile", "default", *server)
    async with stage.client() as portal:
        names = [f"w{workers}.{ZONE}", *(f"n{n}.w{workers}.{ZONE}" for n in range(1, NAMES))]
        lab.dns.add_zone(ZONE)
        for name in names:
            lab.dns.set(name, "A", GATEWAY_ADDRESSES)
        many = await _seconds(portal, [names])
        shops = [f"shop{n}-w{workers}.{ZONE}" for n in range(DOMAINS)]
        for shop in shops:
            lab.dns.set(shop, "A", GATEWAY_ADDRESSES)
        return many, await _seconds(portal, [[shop] for shop in shops])


async def _seconds(portal: httpx.AsyncClient, domains: list[list[str]]) -> float:
    began = time.monotonic()
    await asyncio.gather(*(_active(portal, hostnames) for hostnames in domains))
    return time.monotonic() - began


async def _active(portal: httpx.AsyncClient, hostnames: list[str]) -> None:
    (await portal.post("/v1/domains", json={"hostnames": hostnames})).raise_for_status()
    async with asyncio.timeout(_LONGEST):
        while not await _is_active(portal, hostnames[0]):  # noqa: ASYNC110 - looked at as a client would
            await asyncio.sleep(0.5)


async def _is_active(portal: httpx.AsyncClient, hostname: str) -> bool:
    status = (await portal.get(f"/v1/domains/{hostname}")).json()["status"]
    return bool(status and status["phase"] == "active")


async def _main(numbers: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with run_stage(Path(directory) / "stage") as stage:
            print(f"| workers | {NAMES} names, one order | {DOMAINS} domains at once |\n|---|---|---|")
            for workers in numbers:
                many, fleet = await measure(stage, workers)
                print(f"| {workers} | {many:.0f} | {fleet:.0f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.challenges", description="Challenges by workers.")
    parser.add_argument("workers", type=int, nargs="+")
    asyncio.run(_main(parser.parse_args().workers))


if __name__ == "__main__":
    main()
