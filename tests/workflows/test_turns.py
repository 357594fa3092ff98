"""A domain and its account's quota: what it waits for, what it shows meanwhile, and what it never does.

The activities pretend here, the quota too: the test answers in its place. `test_turns_together` has the real one.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from lifecycle import findings, queues, turns
from lifecycle.domain import DomainStatus, OnboardingRequest, Phase, QuotaTurn, RoutingStatus
from lifecycle.quota import LEASE, AnswerKind, Lane, QuotaAnswer
from lifecycle.steps import IssuanceResult, PreflightReport, QuotaQuestion
from tests.workflows.pretended import World, begin, hang, seen, status_of, until
from workflows.domain import DomainOnboarding

Handle = WorkflowHandle[Any, DomainStatus]

MINUTE = timedelta(minutes=1)
NOT_POINTED = PreflightReport(routing=RoutingStatus.MISSING, may_proceed=False)
TURN_OVER = IssuanceResult(
    ready=False, findings=(findings.QUOTA_TURN_OVER.found(subject="shop.example.com", problem="Over.", fix="None."),)
)


async def start(world: World, *, after: timedelta = 60 * MINUTE, place: int = 17, **said: Any) -> Handle:
    """A domain whose first look finds everything ready, and a queue; a further one would be granted at once."""

    async def looked(asked: OnboardingRequest) -> PreflightReport:
        world.script["check_preflight"].clear()
        at = await world.now() + after
        turn = await world.turn(asked, **{"granted": False, "place": place, "at": at, **said})
        return PreflightReport(routing=RoutingStatus.POINTED, may_proceed=True, turn=turn)

    world.script["check_preflight"] = [looked]
    client, workflow_id = world.environment.client, f"domain/{uuid.uuid4()}"
    await client.start_workflow(
        DomainOnboarding.run, begin("shop.example.com"), id=workflow_id, task_queue=queues.WORKFLOWS
    )
    return client.get_workflow_handle_for(DomainOnboarding.run, workflow_id)


async def queued(world: World, handle: Handle) -> DomainStatus:
    return await seen(world.environment.client, handle.id, lambda status: status.quota is not None)


async def active(world: World, handle: Handle) -> DomainStatus:
    return await seen(world.environment.client, handle.id, lambda status: status.phase is Phase.ACTIVE)


def request_of(world: World) -> str:
    """The id of the first look's request."""
    return world.turns[0].request_id


async def answer(
    world: World, handle: Handle, kind: AnswerKind, request_id: str, *, at: timedelta = LEASE, place: int = 0
) -> None:
    told = QuotaAnswer(request_id=request_id, owner=handle.id, kind=kind, at=await world.now() + at, place=place)
    await handle.signal(DomainOnboarding.quota_answered, told)


def grants(world: World) -> list[QuotaTurn | None]:
    """With which each certificate was asked for."""
    return [target.turn for target in world.arguments["issue_certificate"]]


def requests(world: World) -> list[str]:
    return [turn.request_id if turn else "" for turn in grants(world)]


async def test_a_grant_at_once_goes_with_the_order(world: World) -> None:
    handle = await start(world, granted=True, place=0, after=LEASE)
    status = await active(world, handle)
    assert status.quota is None
    assert [turn is not None and turn.granted for turn in grants(world)] == [True]
    assert "ask_turn" not in world.calls


async def test_a_queued_domain_shows_place_and_time_and_orders_when_it_is_granted(world: World) -> None:
    handle = await start(world)
    status = await queued(world, handle)
    assert status.quota is not None
    assert (status.phase, status.quota.place, status.quota.lane) == (Phase.PREFLIGHT, 17, "new")
    assert status.quota.account == world.account
    assert "place 17" in status.step
    assert status.next_check_at is not None
    assert status.quota.expected_at is not None
    assert status.next_check_at > status.quota.expected_at
    await answer(world, handle, AnswerKind.WAITING, request_of(world), at=5 * MINUTE, place=2)
    await seen(world.environment.client, handle.id, lambda now: now.quota is not None and now.quota.place == 2)
    assert "issue_certificate" not in world.calls
    await answer(world, handle, AnswerKind.GRANTED, request_of(world))
    assert (await active(world, handle)).quota is None
    assert requests(world) == [request_of(world)]
    assert "check_again" not in world.calls


async def test_a_grant_after_a_long_wait_is_used_after_another_look(world: World) -> None:
    handle = await start(world)
    await queued(world, handle)
    await world.sleep(30 * MINUTE)
    await answer(world, handle, AnswerKind.GRANTED, request_of(world))
    await active(world, handle)
    assert world.calls.count("check_preflight") == world.calls.count("check_again") == 1
    assert requests(world) == [request_of(world)]


async def test_what_is_not_ready_any_more_gives_its_turn_back_and_orders_nothing(world: World) -> None:
    world.script["check_again"] = [NOT_POINTED]
    handle = await start(world)
    await queued(world, handle)
    await world.sleep(30 * MINUTE)
    world.script["check_preflight"] = [lambda _: NOT_POINTED]
    await answer(world, handle, AnswerKind.GRANTED, request_of(world))
    await until(lambda: "withdraw_turn" in world.calls)
    status = await seen(world.environment.client, handle.id, lambda now: now.routing is RoutingStatus.MISSING)
    assert (status.quota, status.phase) == (None, Phase.PREFLIGHT)
    assert [turn.request_id for turn in world.arguments["withdraw_turn"]] == [request_of(world)]
    assert "issue_certificate" not in world.calls


async def test_a_grant_that_is_over_is_not_used_and_another_one_is_asked_for(world: World) -> None:
    handle = await start(world)
    await queued(world, handle)
    await answer(world, handle, AnswerKind.GRANTED, request_of(world), at=turns.LAST_MOMENT)
    await active(world, handle)
    assert world.calls.count("check_preflight") == 2
    assert len(requests(world)) == 1
    assert request_of(world) not in requests(world)


async def test_an_order_that_was_refused_for_its_lateness_is_no_failure(world: World) -> None:
    world.script["issue_certificate"] = [TURN_OVER]
    handle = await start(world, granted=True, place=0, after=LEASE)
    status = await active(world, handle)
    first, second = requests(world)
    assert first != second
    assert status.findings == ()


async def test_a_cancelled_domain_leaves_the_queue(world: World) -> None:
    handle = await start(world)
    await queued(world, handle)
    await handle.execute_update(DomainOnboarding.cancel_request, "acme")
    status = await handle.result()
    assert (status.phase, status.quota) == (Phase.RETIRED, None)
    assert [turn.request_id for turn in world.arguments["withdraw_turn"]] == [request_of(world)]
    assert "issue_certificate" not in world.calls


async def test_a_new_run_goes_on_waiting_with_the_same_request(world: World) -> None:
    handle = await start(world)
    before = await queued(world, handle)
    request_id, first = request_of(world), (await handle.describe()).run_id
    await handle.signal(DomainOnboarding.nudge)
    after = await seen(world.environment.client, handle.id, lambda status: status.quota is not None)
    assert before.quota == after.quota
    assert first != (await handle.describe()).run_id
    await answer(world, handle, AnswerKind.GRANTED, request_id)
    await active(world, handle)
    assert requests(world) == [request_id]
    assert world.calls.count("check_preflight") == 1


async def test_an_answer_that_comes_before_the_look_has_ended_is_heard(world: World) -> None:
    handle: Handle | None = None

    async def looked(asked: OnboardingRequest) -> PreflightReport:
        world.script["check_preflight"].clear()
        turn = await world.turn(asked, granted=False, place=1, at=await world.now() + MINUTE)
        assert handle is not None
        await answer(world, handle, AnswerKind.GRANTED, turn.request_id)
        return PreflightReport(routing=RoutingStatus.POINTED, may_proceed=True, turn=turn)

    client, workflow_id = world.environment.client, f"domain/{uuid.uuid4()}"
    handle = client.get_workflow_handle_for(DomainOnboarding.run, workflow_id)
    world.script["check_preflight"] = [looked]
    await client.start_workflow(
        DomainOnboarding.run, begin("shop.example.com"), id=workflow_id, task_queue=queues.WORKFLOWS
    )
    await active(world, handle)
    assert [turn is not None and turn.granted for turn in grants(world)] == [True]


async def test_an_overdue_answer_is_asked_for_with_the_same_request(world: World) -> None:
    handle = await start(world, after=10 * MINUTE)
    await queued(world, handle)
    await world.sleep(10 * MINUTE + turns.SLACK - timedelta(seconds=5))
    assert "ask_turn" not in world.calls
    await world.sleep(10 * MINUTE)
    await active(world, handle)
    (question,) = world.arguments["ask_turn"]
    assert question.turn.request_id == request_of(world)
    assert requests(world) == [request_of(world)]


async def test_a_silent_quota_does_not_hold_a_domain_for_ever(world: World) -> None:
    async def silent(question: QuotaQuestion) -> QuotaTurn:
        return turns.unanswered(question.turn, await world.now())

    world.script["ask_turn"] = [silent]
    handle = await start(world, place=0, at=None, silent_since=await world.now())
    await queued(world, handle)
    await world.sleep(turns.LONGEST_SILENCE - 5 * MINUTE)
    assert "issue_certificate" not in world.calls
    await world.sleep(10 * MINUTE)
    status = await active(world, handle)
    assert requests(world) == [""]
    assert any(line.step == "quota" and "ordered without" in line.detail for line in status.evidence)
    assert "withdraw_turn" in world.calls


async def test_a_look_for_a_queued_domain_changes_nothing_in_the_queue(world: World) -> None:
    handle = await start(world)
    before = await queued(world, handle)
    status = await handle.execute_update(DomainOnboarding.check_now, "acme")
    assert before.quota == status.quota
    assert (world.calls.count("check_again"), world.calls.count("check_preflight")) == (1, 1)
    assert "withdraw_turn" not in world.calls


@pytest.mark.parametrize("granted", [True, False])
async def test_a_forced_renewal_asks_and_is_made_at_last_in_any_case(world: World, granted: bool) -> None:
    handle = await start(world, granted=True, place=0, after=LEASE)
    await active(world, handle)

    async def never(question: QuotaQuestion) -> QuotaTurn:
        return turns.unanswered(question.turn, await world.now())

    world.script["ask_turn"] = [] if granted else [never]
    await handle.execute_update(DomainOnboarding.renew_now, "acme")
    if not granted:
        assert "see_renewal_through" not in world.calls
        await world.sleep(turns.LONGEST_WAIT[Lane.RENEWAL])
    status = await seen(
        world.environment.client, handle.id, lambda now: now.renewals == 1 and now.phase is Phase.ACTIVE
    )
    (question,) = world.arguments["ask_turn"]
    (renewal,) = world.arguments["see_renewal_through"]
    assert question.turn.lane == Lane.RENEWAL
    assert (renewal.turn is not None, renewal.account) == (granted, world.account)
    assert granted or any(line.step == "quota" and "renewed so" in line.detail for line in status.evidence)


async def test_a_domain_that_is_cancelled_while_it_orders_withdraws_nothing(world: World) -> None:
    """What came of the order is told by the activity, which knows whether there was one."""
    world.script["issue_certificate"] = [hang]
    handle = await start(world, granted=True, place=0, after=LEASE)
    await until(lambda: "issue_certificate" in world.calls)
    await handle.execute_update(DomainOnboarding.cancel_request, "acme")
    await handle.result()
    assert "withdraw_turn" not in world.calls


async def test_a_turn_for_an_order_that_must_wait_is_given_back(world: World) -> None:
    failed = findings.CHALLENGE_FAILED.found(subject="shop.example.com", problem="404 seen.", fix="Mend it.")
    world.script["issue_certificate"] = [IssuanceResult(ready=False, findings=(failed,))] * 4
    handle = await start(world, granted=True, place=0, after=LEASE)
    client = world.environment.client
    for tries in (1, 2, 3):
        await seen(client, handle.id, lambda now: now.next_check_at is not None and bool(now.findings))
        assert world.calls.count("issue_certificate") == tries
        await handle.execute_update(DomainOnboarding.check_now, "acme")
    await until(lambda: "withdraw_turn" in world.calls)
    assert world.calls.count("issue_certificate") == 3
    assert (await status_of(client, handle.id)).phase is Phase.PREFLIGHT
