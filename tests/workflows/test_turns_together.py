"""Domains and the quota of their account together, on a real server; only the cluster and the CA pretend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.turns import Quotas, new_turn
from lifecycle import names, progress, queues
from lifecycle.domain import IssuerRef, OnboardingRequest, Phase, QuotaTurn, RoutingStatus
from lifecycle.quota import Lane, Outcome, PastOrder, QuotaOverview, quota_id
from lifecycle.rate_limits import CaLimits, Limit, LimitKind, LimitsTable
from lifecycle.steps import CertificateTarget, Cleanup, IssuanceResult, PreflightReport, QuotaQuestion
from starter import domains
from starter.quotas import overviews
from tests.workflows.conftest import development_server
from tests.workflows.pretended import World, request, seen, working
from workflows.domain import DomainOnboarding
from workflows.quota import IssuanceQuota

REFILL = 2.0


def table(burst: int, refill_seconds: float = REFILL) -> LimitsTable:
    orders = Limit(kind=LimitKind.ORDERS, burst=burst, refill_seconds=refill_seconds)
    return LimitsTable(entries=(CaLimits(host="acme.example", limits=(orders,)),))


class Ca:
    """Asks and tells as the real activities do; when which order reached it."""

    def __init__(self, world: World, account: str, burst: int) -> None:
        self.account = f"https://acme.example/acct/{account}"
        self.quotas = Quotas(world.environment.client, table(burst))
        self.past: tuple[PastOrder, ...] = ()
        self.orders: list[float] = []
        self.world = world
        world.script["check_preflight"] = [self.look]
        world.script["ask_turn"] = [self.ask_again]
        world.script["withdraw_turn"] = [self.withdraw]
        world.script["issue_certificate"] = [self.issue]

    async def look(self, asked: OnboardingRequest) -> PreflightReport:
        turn = new_turn(asked, account=self.account, server=self.world.directory)
        turn = await self.quotas.ask(asked, turn, owner=names.domain_id(asked.hostname), past=lambda: self.past)
        return PreflightReport(routing=RoutingStatus.POINTED, may_proceed=True, turn=turn)

    async def ask_again(self, question: QuotaQuestion) -> QuotaTurn:
        return await self.quotas.ask(question.request, question.turn, owner=names.domain_id(question.request.hostname))

    async def withdraw(self, turn: QuotaTurn) -> Cleanup:
        await self.quotas.tell(turn.account, Outcome(request_id=turn.request_id))
        return Cleanup()

    async def issue(self, target: CertificateTarget) -> IssuanceResult:
        assert target.turn is not None
        assert target.turn.granted
        self.orders.append(time.monotonic())
        await self.quotas.tell(self.account, Outcome(request_id=target.turn.request_id, orders=1, issued=True))
        return await self.world.issue(target.request)

    async def overview(self) -> QuotaOverview:
        quota = self.world.environment.client.get_workflow_handle(quota_id(self.account))
        told: QuotaOverview = await quota.query(IssuanceQuota.overview, 10)
        return told


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with development_server() as environment:
        pretending = World(environment)
        async with working(environment.client, pretending, versioned=True):
            yield pretending


async def onboard(world: World, *hostnames: str) -> list[Any]:
    client = world.environment.client
    return [
        await client.start_workflow(
            DomainOnboarding.run,
            progress.begin(request(hostname)),
            id=names.domain_id(hostname),
            task_queue=queues.WORKFLOWS,
        )
        for hostname in hostnames
    ]


async def test_six_at_once_are_ordered_as_the_bucket_fills_and_each_is_told_its_place(world: World) -> None:
    ca = Ca(world, "six", burst=2)
    client, began = world.environment.client, time.monotonic()
    hostnames = [f"shop{number}.example.com" for number in range(6)]
    await onboard(world, *hostnames)
    places: dict[str, int] = {}

    async def watch(hostname: str) -> None:
        while True:
            status = await seen(client, names.domain_id(hostname), lambda _: True)
            if status.quota is not None:
                places.setdefault(hostname, status.quota.place)
                assert status.quota.expected_at is not None
            if status.phase is Phase.ACTIVE:
                return
            await asyncio.sleep(0.2)

    async with asyncio.timeout(60):
        await asyncio.gather(*map(watch, hostnames))
    assert len(ca.orders) == 6
    for number, at in enumerate(sorted(ca.orders)):
        assert at - began >= (number - 1) * REFILL - 0.1, "one more than the bucket had"
    assert len(places) >= 3
    overview = await ca.overview()
    assert (overview.under_way, overview.waiting) == (0, 0)


async def test_a_domain_that_leaves_makes_room_for_the_next(world: World) -> None:
    ca = Ca(world, "leaving", burst=1)
    ca.quotas = Quotas(world.environment.client, table(1, 3600.0))
    client = world.environment.client
    first = PastOrder(at=datetime.now(UTC), hostnames=("old.example.com",), registered_domains=("example.com",))
    ca.past = (first,)
    (one,) = await onboard(world, "one.example.com")
    await seen(client, one.id, lambda status: status.quota is not None)
    (two,) = await onboard(world, "two.example.com")
    await seen(client, two.id, lambda status: status.quota is not None)
    assert ca.orders == [], "what the cluster shows was counted, once"
    before = await ca.overview()
    assert before.waiting == 2
    assert timedelta(minutes=59) < before.next[0].expected_at - first.at <= timedelta(hours=1)
    told = (await domains.read(client, "two.example.com", "acme")).status
    assert told is not None
    assert told.quota is not None
    assert told.quota.place == 2
    await one.execute_update(DomainOnboarding.cancel_request, "acme")
    for _ in range(100):
        after = await ca.overview()
        if after.waiting == 1:
            break
        await asyncio.sleep(0.1)
    assert [place.place for place in after.next] == [1]
    assert after.next[0].request_id.startswith(two.id)
    told = (await domains.read(client, "two.example.com", "acme")).status
    assert told is not None
    assert told.quota is not None
    assert told.quota.place == 1, "as it is now, though nobody told the domain"
    ca.quotas = Quotas(client, table(2, 3600.0))  # the operator's file says more now: whoever asks next tells it
    await onboard(world, "three.example.com")
    await seen(client, two.id, lambda status: status.phase is Phase.ACTIVE)


async def test_many_questions_at_once_are_all_heard_and_one_is_granted(world: World) -> None:
    quotas = Quotas(world.environment.client, table(1, 3600.0))
    now = datetime.now(UTC)

    def asked(number: int) -> tuple[OnboardingRequest, QuotaTurn]:
        wanted = request(f"many{number}.example.com")
        return wanted, QuotaTurn(
            account="https://acme.example/acct/many",
            server=world.directory,
            issuer=IssuerRef(name="letsencrypt"),
            request_id=f"many/{number}",
            lane=Lane.NEW,
            since=now,
            asked_at=now,
        )

    answers = await asyncio.gather(*(quotas.ask(*asked(number), owner="domain/nobody") for number in range(40)))
    assert sum(turn.granted for turn in answers) == 1
    assert [turn.request_id for turn in answers if turn.silent_since is not None] == []
    places = sorted(turn.place for turn in answers)
    assert places[0] == 0
    assert places[-1] == 39


async def test_an_account_whose_quota_no_worker_runs_is_told_as_silent_in_time() -> None:
    async with development_server() as environment:
        quotas = Quotas(environment.client, table(1))
        wanted, now = request("quiet.example.com"), datetime.now(UTC)
        asked = QuotaTurn(
            account="https://acme.example/acct/quiet",
            server="https://acme.example/directory",
            issuer=IssuerRef(name="letsencrypt"),
            request_id="quiet/1",
            lane=Lane.NEW,
            since=now,
            asked_at=now,
        )
        began = time.monotonic()
        turn = await quotas.ask(wanted, asked, owner="domain/quiet.example.com")
        assert turn.silent_since is not None
        assert not turn.granted
        assert time.monotonic() - began < 10
        described = await environment.client.get_workflow_handle(quota_id(asked.account)).describe()
        assert described.workflow_type == "IssuanceQuota", "the question waits there for a worker"


async def test_an_operator_sees_every_account(world: World) -> None:
    Ca(world, "seen", burst=2)
    await onboard(world, "seen.example.com")
    await seen(world.environment.client, names.domain_id("seen.example.com"), lambda one: one.phase is Phase.ACTIVE)
    found: list[QuotaOverview] = []
    silent: tuple[str, ...] = ()

    async def listed() -> bool:
        nonlocal silent
        seen_now, silent = await overviews(world.environment.client, most=5)
        found[:] = seen_now
        return any(one.account.endswith("/seen") for one in found)

    for _ in range(50):
        if await listed():
            break
        await asyncio.sleep(0.1)
    assert any(one.account.endswith("/seen") for one in found)
    assert silent == ()
