"""A domain that is stuck says why, and does what is safe about it when it is asked: beside the step that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateStage
from temporalio.exceptions import ApplicationError

from lifecycle import findings, queues
from lifecycle.domain import DomainStatus, Observation, Phase, RoutingStatus
from lifecycle.findings import Finding
from lifecycle.steps import MendReport, PreflightReport, Standstill
from tests.workflows.pretended import World, hang, seen, status_of, until
from tests.workflows.test_domain import active, in_phase, latest, start
from workflows.domain import DomainOnboarding

UNROUTED = findings.CHALLENGE_NOT_ROUTED.found(
    subject="VirtualService istio-system/shop-acme", problem="No route leads there.", fix="certwright diagnose --fix"
)
LATE = findings.SOLVER_NOT_READY.found(subject="Pod istio-system/solver", problem="It waits.", fix="Look at it.")
Answer = Callable[[object], Awaitable[Any]]


def waiting_for(free: asyncio.Event) -> Answer:
    """An issuance that waits until its way is free, heartbeating as a watch does."""

    async def wait(_: object) -> None:
        while not free.is_set():
            activity.heartbeat("waiting")
            await asyncio.sleep(0.05)

    return wait


def fixing(world: World, free: asyncio.Event, *left: Finding) -> Answer:
    """A remedy that frees the way, and what is found after it."""

    async def fix(_: object) -> MendReport:
        free.set()
        line = Observation(at=await world.now(), step="fix", detail="fixed: apply the route")
        return MendReport(evidence=(line,), findings=left)

    return fix


async def stuck(world: World) -> tuple[Any, asyncio.Event]:
    """A domain whose issuance waits."""
    free = asyncio.Event()
    world.script["issue_certificate"] = [waiting_for(free)]
    handle = await start(world)
    await until(lambda: "issue_certificate" in world.calls)
    return handle, free


def told(status: DomainStatus, step: str) -> list[str]:
    return [line.detail for line in status.evidence if line.step == step]


async def test_a_stuck_issuance_is_freed_while_it_is_under_way_and_the_record_says_so(world: World) -> None:
    handle, free = await stuck(world)
    world.script["mend_certificate"] = [fixing(world, free)]
    answered = await handle.execute_update(DomainOnboarding.fix, "acme")
    assert told(answered, "fix") == ["fixed: apply the route"]
    status = await seen(world.environment.client, handle.id, in_phase(Phase.ACTIVE))
    assert told(status, "fix") == ["fixed: apply the route"]
    assert world.calls.count("issue_certificate") == 1
    assert world.arguments["mend_certificate"][0].request.hostname == "shop.example.com"


async def test_another_tenant_can_have_nothing_done(world: World) -> None:
    handle = await active(world)
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(DomainOnboarding.fix, "globex")
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == queues.HOSTNAME_TAKEN
    assert "mend_certificate" not in world.calls


async def test_why_an_issuance_does_not_move_is_in_the_status_until_it_does(world: World) -> None:
    handle, free = await stuck(world)
    client, now = world.environment.client, await world.now()
    standing = Standstill(cause=UNROUTED, since=now)
    await handle.signal(DomainOnboarding.stands, standing)
    status = await handle.query(DomainOnboarding.status)
    assert status.findings == (UNROUTED,)
    assert "nothing has moved since" in status.step
    await handle.signal(DomainOnboarding.stands, standing)  # a worker that took the watch over
    await handle.signal(DomainOnboarding.stands, Standstill(cause=LATE, since=now))
    status = await handle.query(DomainOnboarding.status)
    assert status.findings == (LATE,)
    assert [line.split()[0] for line in told(status, "nothing moves")] == ["CW1355", "CW1354"]
    await handle.signal(DomainOnboarding.stands, Standstill())
    assert (await handle.query(DomainOnboarding.status)).findings == ()
    free.set()
    status = await seen(client, handle.id, in_phase(Phase.ACTIVE))
    assert (status.findings, told(status, "it moves again")) == ((), [LATE.subject])
    await latest(world, handle).signal(DomainOnboarding.stands, standing)  # late: its issuance is over
    assert (await status_of(client, handle.id)).findings == ()


async def test_a_stuck_renewal_says_why_and_is_freed_too(world: World) -> None:
    handle = await active(world)
    free = asyncio.Event()
    world.script["see_renewal_through"] = [waiting_for(free)]
    world.script["mend_certificate"] = [fixing(world, free)]
    renewing = await handle.start_update(
        DomainOnboarding.renew_now, "acme", wait_for_stage=WorkflowUpdateStage.ACCEPTED
    )
    await until(lambda: "see_renewal_through" in world.calls)
    await handle.signal(DomainOnboarding.stands, Standstill(cause=UNROUTED, since=await world.now()))
    status = await handle.query(DomainOnboarding.status)
    assert (status.phase, status.findings) == (Phase.RENEWING, (UNROUTED,))
    await handle.execute_update(DomainOnboarding.fix, "acme")
    assert (await renewing.result()).renewals == 1
    status = await seen(world.environment.client, handle.id, in_phase(Phase.ACTIVE))
    assert (status.findings, told(status, "fix")) == ((), ["fixed: apply the route"])


async def test_what_a_remedy_leaves_is_the_cause_that_is_shown(world: World) -> None:
    handle, free = await stuck(world)
    still = asyncio.Event()
    world.script["mend_certificate"] = [fixing(world, still, LATE)]
    status = await handle.execute_update(DomainOnboarding.fix, "acme")
    assert status.findings == (LATE,)
    free.set()
    await seen(world.environment.client, handle.id, lambda one: one.phase is Phase.ACTIVE and not one.findings)


async def test_a_remedy_that_nobody_can_do_is_said_and_the_issuance_goes_on(world: World) -> None:
    handle, free = await stuck(world)
    world.script["mend_certificate"] = [ApplicationError("the API server does not answer")] * 3
    status = await handle.execute_update(DomainOnboarding.fix, "acme")
    assert told(status, "fix") == ["not fixed: the API server does not answer"]
    free.set()
    await seen(world.environment.client, handle.id, in_phase(Phase.ACTIVE))


async def test_a_domain_that_ends_while_it_is_mended_ends(world: World) -> None:
    handle, _ = await stuck(world)
    world.script["mend_certificate"] = [hang]
    asked = await handle.start_update(DomainOnboarding.fix, "acme", wait_for_stage=WorkflowUpdateStage.ACCEPTED)
    await until(lambda: "mend_certificate" in world.calls)
    world.script["mend_certificate"] = []
    ended = await handle.execute_update(DomainOnboarding.cancel_request, "acme")
    assert ended.phase is Phase.RETIRED
    assert (await asked.result()).phase is Phase.RETIRED


@pytest.mark.parametrize(("report", "forced"), [(MendReport(issuing=True), False), (MendReport(renewal=True), True)])
async def test_an_active_domain_sees_an_issuance_through_that_a_remedy_began(
    world: World, report: MendReport, forced: bool
) -> None:
    handle = await active(world)
    world.script["mend_certificate"] = [report]
    status = await handle.execute_update(DomainOnboarding.fix, "acme")
    assert status.renewals == 1
    assert [one.force for one in world.arguments["see_renewal_through"]] == [forced]


async def test_an_active_domain_is_looked_at_again(world: World) -> None:
    handle = await active(world)
    before = world.calls.count("verify_edge")
    status = await handle.execute_update(DomainOnboarding.fix, "acme")
    assert told(status, "fix") == ["nothing to do: nothing is wrong"]
    assert world.calls.count("verify_edge") == before + 1
    assert world.calls[-2:] == ["mend_certificate", "verify_edge"]


async def test_a_domain_that_waits_for_its_customer_is_looked_at_again(world: World) -> None:
    missing = PreflightReport(routing=RoutingStatus.MISSING, may_proceed=False)
    world.script["check_preflight"] = [missing]
    handle = await start(world)
    await seen(world.environment.client, handle.id, lambda status: status.next_check_at is not None)
    await latest(world, handle).execute_update(DomainOnboarding.fix, "acme")
    assert world.calls[:3] == ["check_preflight", "mend_certificate", "check_preflight"]
    await seen(world.environment.client, handle.id, in_phase(Phase.ACTIVE))
