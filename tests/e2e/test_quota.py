"""Many domains at a CA that takes few orders: whose turn it is, what is shown, and what a killed worker changes.

The CA is the lab's under its address (`lab.stage.SCARCE_HOST`), whose limits the workers are told by a file; when an
Order was made is read from the cluster.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import datetime

import pytest

from lab.stage import SCARCE_AT_ONCE, SCARCE_HOST, SCARCE_SECONDS
from lifecycle import names
from tests.e2e.play import GATEWAY_NAMESPACE, ZONE, Play, Seen, active, eventually

pytestmark = pytest.mark.lab

ISSUER = "scarce"


@pytest.fixture(scope="module", autouse=True)
async def scarce(play: Play, resident: Seen) -> None:
    """An issuer of an account of its own at that CA."""
    directory = play.lab.acme_directory.replace("localhost", SCARCE_HOST)
    applied = await play.stage.command(
        "issuer", "apply", "--name", ISSUER, "--profile", "default", "--server", directory, "--ca-bundle",
        str(play.lab.acme_ca),
    )  # fmt: skip
    assert applied["ready"], applied


def new_domains(number: int) -> tuple[str, ...]:
    """Names that nobody has asked for, also where the test is run again."""
    series = secrets.token_hex(3)
    return tuple(f"queue{one}-{series}.{ZONE}" for one in range(number))


async def all_asked(play: Play, hostnames: tuple[str, ...]) -> None:
    play.point(*hostnames)
    await asyncio.gather(*(play.ask(hostname, issuer=ISSUER) for hostname in hostnames))


async def orders(play: Play) -> dict[str, float]:
    """When each Order by this issuer was made, in Unix seconds; as exact as Kubernetes' times."""
    path = f"/apis/acme.cert-manager.io/v1/namespaces/{GATEWAY_NAMESPACE}/orders"
    listed = await play.lab.api.call("GET", path)
    return {
        item["metadata"]["name"]: datetime.fromisoformat(item["metadata"]["creationTimestamp"]).timestamp()
        for item in listed["items"]
        if item["spec"]["issuerRef"]["name"] == ISSUER
    }


def never_more_than_there_were(made: dict[str, float]) -> None:
    """In no span of time more orders than the bucket can have had: what it holds, and what came in."""
    times = sorted(made.values())
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            span = times[last] - begin + 1.0  # times are whole seconds
            assert last - first + 1 <= SCARCE_AT_ONCE + span / SCARCE_SECONDS, times


async def nobody_left(play: Play) -> bool:
    shown = (await play.stage.command("quota"))["accounts"]
    scarce_ones = [one for one in shown if SCARCE_HOST in one["account"]]
    return [(one["waiting"], one["under_way"]) for one in scarce_ones] == [(0, 0)]


async def once_each(play: Play, hostnames: tuple[str, ...]) -> None:
    for hostname in hostnames:
        assert len(play.orders_of(hostname)) == 1, play.orders_of(hostname)
        assert (await play.seen(hostname) or {})["quota"] is None


async def test_five_at_once_are_ordered_as_the_limit_allows_and_who_waits_sees_place_and_time(play: Play) -> None:
    hostnames = new_domains(5)
    await all_asked(play, hostnames)
    places: dict[str, Seen] = {}
    several_wait = asyncio.Event()

    async def watched(hostname: str) -> None:
        def looked(status: Seen) -> bool:
            if status["quota"] is not None and status["quota"]["place"]:
                places.setdefault(hostname, status["quota"])
                if len(places) >= 2:
                    several_wait.set()
            return active(status)

        await play.until(hostname, looked, seconds=180)

    shown: list[Seen] = []

    async def asked_by_command() -> None:
        await several_wait.wait()
        last = max(places, key=lambda hostname: places[hostname]["place"])
        shown.extend(await asyncio.gather(play.stage.command("status", last), play.stage.command("quota")))

    async with asyncio.timeout(200):
        await asyncio.gather(*map(watched, hostnames), asked_by_command())
    assert all(place["expected_at"] and place["lane"] == "new" for place in places.values())
    assert max(place["place"] for place in places.values()) >= 2
    status, overview = shown
    assert status["status"]["phase"] == "preflight"
    (account,) = [one for one in overview["accounts"] if SCARCE_HOST in one["account"]]
    assert account["waiting"] >= 1
    assert account["next"][0]["place"] == 1
    never_more_than_there_were(await orders(play))
    await once_each(play, hostnames)
    await eventually(lambda: nobody_left(play), seconds=15)


async def test_a_worker_that_is_killed_while_domains_wait_loses_and_doubles_no_turn(play: Play) -> None:
    hostnames = new_domains(4)
    await all_asked(play, hostnames)

    async def some_wait() -> bool:
        states = await asyncio.gather(*(play.seen(hostname) for hostname in hostnames))
        return sum(bool(one and one["quota"]) for one in states) >= 2

    await eventually(some_wait, seconds=30)
    await play.stage.kill("worker")
    await play.stage.start("worker")
    async with asyncio.timeout(200):
        await asyncio.gather(*(play.until(hostname, active, seconds=180) for hostname in hostnames))
    made = await orders(play)
    never_more_than_there_were(made)
    assert {names.certificate_name(hostname) for hostname in hostnames} <= {
        name.rpartition("-")[0].rpartition("-")[0] for name in made
    }
    await once_each(play, hostnames)
    await eventually(lambda: nobody_left(play), seconds=90)
