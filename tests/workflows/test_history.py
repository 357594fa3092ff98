"""A domain's history on a real server: how long it gets, where it ends, and what lists are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from benchmarks import history
from lifecycle import findings, names
from lifecycle.domain import Phase, RoutingStatus
from lifecycle.steps import CertificateTarget, PreflightReport
from tests.workflows.conftest import development_server
from tests.workflows.pretended import World, onboard, request, seen, working
from tests.workflows.watching import Watching
from worker.sandbox import workflow_runner
from workflows.domain import DomainOnboarding

NOT_POINTED = PreflightReport(routing=RoutingStatus.MISSING, may_proceed=False)


@pytest.fixture(scope="module")
async def short() -> AsyncIterator[World]:
    """A development server that suggests a new run after 40 events, and a worker that keeps no workflow."""
    async with development_server("limit.historyCount.suggestContinueAsNew=40") as environment:
        world = World(environment, cached=0)
        async with working(environment.client, world, versioned=True):
            yield world


async def test_an_onboarding_and_a_renewal_are_as_few_events_as_aimed_at() -> None:
    async with development_server() as environment:
        world = World(environment)
        async with working(environment.client, world, versioned=True):
            figures = await history.measure(environment.client, world)
    assert not figures.missed, history.table(figures)


async def test_a_domain_begins_a_new_run_where_the_server_suggests_it_and_loses_nothing(short: World) -> None:
    short.script["check_preflight"] = [lambda _: NOT_POINTED]
    client = short.environment.client
    await onboard(client, request("long.example.com"))
    workflow_id = names.domain_id("long.example.com")
    handle = client.get_workflow_handle_for(DomainOnboarding.run, workflow_id)
    first = (await handle.describe()).run_id
    before = await seen(client, workflow_id, lambda status: status.next_check_at is not None)
    for _ in range(8):
        status = await handle.execute_update(DomainOnboarding.check_now, "acme")
        assert status.phase is Phase.PREFLIGHT
    described = await handle.describe()
    assert first != described.run_id
    assert described.history_length < 80
    after = await seen(client, workflow_id, lambda status: status.next_check_at is not None)
    assert before.requested_at == after.requested_at
    short.script.clear()
    await handle.execute_update(DomainOnboarding.check_now, "acme")
    await seen(client, workflow_id, lambda status: status.phase is Phase.ACTIVE)


async def test_lists_find_a_domain_by_its_state(short: World) -> None:
    client = short.environment.client
    await onboard(client, request("listed.example.com"))
    workflow_id = names.domain_id("listed.example.com")
    await seen(client, workflow_id, lambda status: status.phase is Phase.ACTIVE)
    query = (
        f"WorkflowId = '{workflow_id}' AND ExecutionStatus = 'Running' AND Tenant = 'acme' AND DomainPhase = 'active' "
        "AND RoutingStatus = 'pointed' AND CertificateStatus = 'valid' AND ServingStatus = 'served' "
        "AND ActionRequired = false AND IssuerName = 'letsencrypt' AND NotAfter > '2020-01-01T00:00:00Z'"
    )
    found: list[str] = []
    for _ in range(50):
        found = [execution.id async for execution in client.list_workflows(query)]
        if found:
            break
        await asyncio.sleep(0.1)
    assert found == [workflow_id]


async def test_a_watch_whose_time_is_over_is_found_once_and_not_begun_again(short: World) -> None:
    """Only a real server looks at the kind of a time-out before it tries again."""

    async def watches(_: object) -> None:
        activity.heartbeat("the CA is slow")
        await asyncio.sleep(10)

    short.script["issue_certificate"] = [watches]
    short.calls.clear()
    client = short.environment.client
    async with Worker(client, task_queue="tests", workflows=[Watching], workflow_runner=workflow_runner()):
        found = await client.execute_workflow(
            Watching.run, CertificateTarget(request=request()), id="watching", task_queue="tests"
        )
    short.script.clear()
    assert found is not None
    assert findings.ISSUANCE_TIMED_OUT.code == found.code
    assert "the CA is slow" in found.problem
    assert short.calls.count("issue_certificate") == 1


async def test_a_server_that_is_gone_for_seconds_is_named_in_the_state(short: World) -> None:
    gone = True

    def answers(_: object) -> ApplicationError | None:
        return ApplicationError("connection refused") if gone else None

    short.script["issue_certificate"] = [answers]
    client = short.environment.client
    await onboard(client, request("hindered.example.com"))
    workflow_id = names.domain_id("hindered.example.com")
    status = await seen(client, workflow_id, lambda status: status.waiting_until is not None)
    assert findings.SURROUNDINGS_BROKEN.code == status.findings[0].code
    assert status.phase is Phase.ISSUING
    gone = False
    await seen(client, workflow_id, lambda status: status.phase is Phase.ACTIVE)
