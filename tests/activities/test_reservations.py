"""A domain's further names are held all or none, by workflows that only their owner lets go."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import VersioningBehavior
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.reservations import ReservationActivities
from lifecycle import names, queues
from lifecycle.steps import Reservation
from tests.activities import domains
from worker import versions
from worker.sandbox import workflow_runner
from workflows.reservation import HostnameReservation


@workflow.defn(name="DomainOnboarding", sandboxed=False, versioning_behavior=VersioningBehavior.PINNED)
class Sleeping:
    """Stands for a domain of its own: only its id and type matter here."""

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)


@pytest.fixture(scope="module")
async def temporal() -> AsyncIterator[Client]:
    """A client of a dev server, with a worker for the workflows that hold names."""
    program = str(Path(sys.executable).parent / "temporal")
    async with (
        await WorkflowEnvironment.start_local(dev_server_existing_path=program) as environment,
        Worker(
            environment.client,
            task_queue=queues.WORKFLOWS,
            workflows=[HostnameReservation, Sleeping],
            workflow_runner=workflow_runner(),
            deployment_config=versions.deployment(),
        ),
    ):
        await versions.promote(environment.client)
        yield environment.client


@pytest.fixture
def holding(temporal: Client) -> ReservationActivities:
    return ReservationActivities(temporal)


def wish(domain: str, *hostnames: str, tenant: str = "acme") -> Reservation:
    return Reservation(tenant=tenant, owner=names.domain_id(domain), hostnames=hostnames)


async def ended(temporal: Client, *hostnames: str) -> None:
    """Wait until nobody holds the names."""
    async with asyncio.timeout(10):
        for hostname in hostnames:
            await temporal.get_workflow_handle(names.reservation_id(hostname)).result()


async def test_names_are_held_once_and_asking_again_changes_nothing(
    temporal: Client, holding: ReservationActivities
) -> None:
    mine = wish("a.example.com", "www.a.example.com", "shop.a.example.com")
    assert (await domains.run(holding.reserve_names, mine)).taken == ()
    assert (await domains.run(holding.reserve_names, mine)).taken == ()
    held = await temporal.get_workflow_handle(names.reservation_id("www.a.example.com")).query(
        HostnameReservation.owner
    )
    assert held.owner == "domain/a.example.com"
    assert set((await domains.run(holding.release_names, mine)).removed) == set(mine.hostnames)
    await ended(temporal, *mine.hostnames)
    assert (await domains.run(holding.release_names, mine)).removed == ()


async def test_where_one_name_is_taken_none_is_held(temporal: Client, holding: ReservationActivities) -> None:
    theirs = wish("b.example.com", "n.b.example.com", tenant="globex")
    assert (await domains.run(holding.reserve_names, theirs)).taken == ()
    mine = wish("c.example.com", "a.c.example.com", "n.b.example.com", "z.c.example.com")
    assert (await domains.run(holding.reserve_names, mine)).taken == ("n.b.example.com",)
    await ended(temporal, "a.c.example.com")
    assert (await domains.run(holding.release_names, mine)).removed == ()  # what is theirs stays
    assert (await domains.run(holding.reserve_names, theirs)).taken == ()


async def test_the_same_owner_of_another_tenant_is_another(holding: ReservationActivities) -> None:
    assert (await domains.run(holding.reserve_names, wish("t.example.com", "www.t.example.com"))).taken == ()
    other = wish("t.example.com", "www.t.example.com", tenant="globex")
    assert (await domains.run(holding.reserve_names, other)).taken == ("www.t.example.com",)


async def test_the_name_of_a_domain_is_taken_and_its_history_untouched(
    temporal: Client, holding: ReservationActivities
) -> None:
    handle = await temporal.start_workflow(
        Sleeping.run, id=names.domain_id("d.example.com"), task_queue=queues.WORKFLOWS
    )
    mine = wish("e.example.com", "d.example.com", "www.e.example.com")
    assert (await domains.run(holding.reserve_names, mine)).taken == ("d.example.com",)
    assert (await domains.run(holding.release_names, mine)).removed == ()
    history = await handle.fetch_history()
    assert "release" not in history.to_json()
    await handle.terminate()
    assert (await domains.run(holding.reserve_names, mine)).taken == ()


async def test_of_two_at_the_same_instant_one_gets_all(holding: ReservationActivities) -> None:
    first = wish("f.example.com", "x.example.com", "y.example.com")
    second = wish("g.example.com", "y.example.com", "x.example.com", tenant="globex")
    results = await asyncio.gather(
        domains.run(holding.reserve_names, first), domains.run(holding.reserve_names, second)
    )
    assert sorted(bool(result.taken) for result in results) == [False, True]
