"""A quota under skipped time: who is granted when, also over new runs, repetitions and owners that vanish."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from lifecycle.quota import (
    LEASE,
    AnswerKind,
    Lane,
    Outcome,
    PastOrder,
    PastOrders,
    QuotaAnswer,
    QuotaAsk,
    QuotaLimits,
    QuotaOverview,
    QuotaRequest,
    QuotaState,
    quota_id,
)
from lifecycle.rate_limits import Limit, LimitKind, Throttle
from worker.sandbox import workflow_runner
from workflows.quota import IssuanceQuota

ACCOUNT = quota_id("https://acme.example/acct/1")
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def orders(burst: int, refill: timedelta) -> Limit:
    return Limit(kind=LimitKind.ORDERS, burst=burst, refill_seconds=refill.total_seconds(), renewals_count=False)


def asking(name: str, lane: Lane = Lane.NEW) -> QuotaRequest:
    return QuotaRequest(
        id=f"{name}/1",
        owner=f"owner/{name}",
        tenant=name,
        hostnames=(f"{name}.example.com",),
        registered_domains=("example.com",),
        lane=lane,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What an owner does: ask, take `seconds` over the order, and tell (or not)."""

    request: QuotaRequest
    seconds: float = 60
    tells: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diary:
    """What an owner heard, and when it was granted."""

    answers: tuple[QuotaAnswer, ...]
    granted_at: datetime


@workflow.defn
class Owner:
    """Asks as a domain will: by signals to the account's quota."""

    def __init__(self) -> None:
        self.answers: list[QuotaAnswer] = []
        self.granted_at: datetime | None = None

    @workflow.run
    async def run(self, errand: Errand) -> Diary:
        quota = workflow.get_external_workflow_handle_for(IssuanceQuota.run, ACCOUNT)
        await quota.signal(IssuanceQuota.ask, errand.request)
        await workflow.wait_condition(lambda: self.granted_at is not None)
        await workflow.sleep(errand.seconds)
        if errand.tells:
            await quota.signal(IssuanceQuota.tell, Outcome(request_id=errand.request.id, orders=1, issued=True))
        assert self.granted_at is not None
        return Diary(answers=tuple(self.answers), granted_at=self.granted_at)

    @workflow.signal
    def quota_answered(self, answer: QuotaAnswer) -> None:
        self.answers.append(answer)
        if answer.kind is AnswerKind.GRANTED and self.granted_at is None:
            self.granted_at = workflow.now()

    @workflow.query
    def heard(self) -> list[QuotaAnswer]:
        return self.answers


@pytest.fixture(params=[100, 0], ids=["cached", "replayed each time"])
async def environment(
    request: pytest.FixtureRequest, skipping: WorkflowEnvironment
) -> AsyncIterator[WorkflowEnvironment]:
    """A quota's worker, sandboxed as in production, and one for owners."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            Worker(
                skipping.client,
                task_queue="quota",
                workflows=[IssuanceQuota],
                workflow_runner=workflow_runner(),
                max_cached_workflows=request.param,
            )
        )
        await stack.enter_async_context(
            Worker(
                skipping.client,
                task_queue="owners",
                workflows=[Owner],
                workflow_runner=UnsandboxedWorkflowRunner(),
            )
        )
        yield skipping


Quota = WorkflowHandle[IssuanceQuota, None]


async def begin(client: Client, *limits: Limit) -> Quota:
    state = QuotaState(account="https://acme.example/acct/1", limits=limits)
    return await client.start_workflow(IssuanceQuota.run, state, id=ACCOUNT, task_queue="quota")


async def send_out(client: Client, *errands: Errand) -> list[WorkflowHandle[Owner, Diary]]:
    """Owners, each of them in the queue before the next one comes."""
    handles = []
    for errand in errands:
        handle = await client.start_workflow(Owner.run, errand, id=errand.request.owner, task_queue="owners")
        await until(lambda handle=handle: handle.query(Owner.heard))
        handles.append(handle)
    return handles


async def until(look: Any) -> Any:
    """The first answer of some length; within ten seconds."""
    for _ in range(200):
        if found := await look():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("it does not come")


async def grants(handles: list[WorkflowHandle[Owner, Diary]]) -> list[datetime]:
    diaries = [await handle.result() for handle in handles]  # several at once unlock the server's clock too often
    for diary in diaries:
        assert sum(answer.kind is AnswerKind.GRANTED for answer in diary.answers) == 1
    return [diary.granted_at for diary in diaries]


def apart(times: list[datetime], of: timedelta) -> list[int]:
    """How many `of` after the first."""
    return [round((time - min(times)) / of) for time in times]


async def test_the_burst_goes_at_once_and_the_rest_as_the_bucket_fills_lanes_first(
    environment: WorkflowEnvironment,
) -> None:
    client = environment.client
    await begin(client, orders(2, 10 * MINUTE))
    first = asking("a"), asking("b"), asking("c"), asking("d"), asking("e", Lane.RENEWAL)
    with environment.auto_time_skipping_disabled():
        handles = await send_out(client, *(Errand(request=one) for one in first))
        waits = [answer.place for answer in await handles[3].query(Owner.heard)]
    assert waits == [2]  # behind c; the renewal came later
    assert apart(await grants(handles), 10 * MINUTE) == [0, 0, 2, 3, 1]


async def test_new_runs_lose_and_double_nothing(environment: WorkflowEnvironment) -> None:
    client = environment.client
    quota = await begin(client, orders(1, 10 * MINUTE))
    runs = {(await quota.describe()).run_id}
    with environment.auto_time_skipping_disabled():
        handles = await send_out(client, *(Errand(request=asking(name), seconds=5) for name in "abcd"))
        for _ in range(2):
            await quota.signal(IssuanceQuota.nudge)
            before: set[str | None] = set(runs)

            async def renewed(before: set[str | None] = before) -> bool:
                runs.add((await quota.describe()).run_id)
                return runs > before

            await until(renewed)
        overview: QuotaOverview = await quota.query(IssuanceQuota.overview, 10)
        assert (overview.waiting, overview.under_way) == (3, 1)
        await quota.signal(IssuanceQuota.ask, asking("c"))  # the one that waits asks again
    assert apart(await grants(handles), 10 * MINUTE) == [0, 1, 2, 3]
    assert len(runs) == 3


async def test_who_asks_in_both_ways_hears_in_both_ways(environment: WorkflowEnvironment) -> None:
    """An Update's caller may have gone when a worker takes it up; the signal that it sent then is answered by one."""
    client, limits, wanted = environment.client, (orders(1, 10 * MINUTE),), asking("a")
    with environment.auto_time_skipping_disabled():
        quota = await client.start_workflow(
            IssuanceQuota.run, QuotaState(account=ACCOUNT, limits=limits), id=ACCOUNT, task_queue="later"
        )
        asked = asyncio.ensure_future(quota.execute_update(IssuanceQuota.turn, QuotaAsk(request=wanted, limits=limits)))
        handle = await client.start_workflow(
            Owner.run, Errand(request=wanted, seconds=0), id=wanted.owner, task_queue="owners"
        )
        await asyncio.sleep(1)
        async with Worker(client, task_queue="later", workflows=[IssuanceQuota], workflow_runner=workflow_runner()):
            assert (await asked).kind is AnswerKind.GRANTED
            await until(lambda: _granted(handle))


async def test_a_grant_goes_to_the_next_where_its_owner_is_gone_or_silent(environment: WorkflowEnvironment) -> None:
    client = environment.client
    quota = await begin(client, orders(1, 10 * MINUTE))
    with environment.auto_time_skipping_disabled():
        await quota.signal(IssuanceQuota.ask, asking("nobody"))
        handles = await send_out(client, Errand(request=asking("silent"), tells=False), Errand(request=asking("next")))
    times = await grants(handles)
    assert times[1] - times[0] == pytest.approx(LEASE + 10 * MINUTE, abs=5 * timedelta(seconds=1))


async def test_what_the_ca_said_and_what_was_there_before_is_heeded(environment: WorkflowEnvironment) -> None:
    client = environment.client
    quota = await begin(client, orders(2, 10 * MINUTE))
    now = await environment.get_current_time()
    with environment.auto_time_skipping_disabled():
        past = PastOrder(at=now, hostnames=("old.example.com",), registered_domains=("example.com",))
        await quota.signal(IssuanceQuota.learn, PastOrders(orders=(past, past)))
        await quota.signal(
            IssuanceQuota.refused, Throttle(until=now + 3 * HOUR, kind=LimitKind.DOMAIN, key="example.com")
        )
        (handle,) = await send_out(client, Errand(request=asking("a")))
        overview: QuotaOverview = await quota.query(IssuanceQuota.overview, 10)
        assert overview.next_at == now + 3 * HOUR
    (at,) = await grants([handle])
    assert timedelta() <= at - (now + 3 * HOUR) < MINUTE


async def test_limits_may_change_meanwhile(environment: WorkflowEnvironment) -> None:
    client = environment.client
    quota = await begin(client, orders(1, 10 * HOUR))
    with environment.auto_time_skipping_disabled():
        handles = await send_out(client, Errand(request=asking("a")), Errand(request=asking("b")))
        await quota.signal(IssuanceQuota.allow, QuotaLimits(limits=(orders(2, 10 * HOUR),)))
        heard = await until(lambda: _granted(handles[1]))
    assert heard
    assert apart(await grants(handles), MINUTE) == [0, 0]


async def _granted(handle: WorkflowHandle[Owner, Diary]) -> list[QuotaAnswer]:
    return [answer for answer in await handle.query(Owner.heard) if answer.kind is AnswerKind.GRANTED]
