"""Schedules are made once and updated after, and what somebody paused stays so."""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import ScheduleActionStartWorkflow, ScheduleOverlapPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from lifecycle.domain import GatewayTarget
from starter import schedules
from tests.starter.test_cli import Run, run
from tests.workflows.pretended import World

__all__ = ["run"]


async def eventually(condition: object) -> None:
    import asyncio

    for _ in range(100):
        if await condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.1)
    raise AssertionError("never came true")


async def test_applying_twice_updates_and_keeps_a_pause(run: Run, server: WorkflowEnvironment, world: World) -> None:
    code, out, err = await run("schedules", "apply")
    assert code == 0, err
    assert out.splitlines() == ["fleet-review: created", "backup: created"]
    for name, overlap, every in (
        ("fleet-review", ScheduleOverlapPolicy.SKIP, schedules.REVIEW_EVERY),
        ("backup", ScheduleOverlapPolicy.BUFFER_ONE, schedules.BACKUP_EVERY),
    ):
        described = (await server.client.get_schedule_handle(name).describe()).schedule
        assert described.policy.overlap is overlap
        assert described.policy.catchup_window == every
        assert described.policy.pause_on_failure is (name == "backup")
        assert described.spec.jitter
        assert isinstance(described.action, ScheduleActionStartWorkflow)
        assert described.action.retry_policy is None
    assert (await run("schedules", "pause", "backup", "--note", "moving house"))[0] == 0
    code, out, err = await run("schedules", "apply", "--backup-every", "6h", "--json")
    assert code == 0, err
    assert '"created": true' not in out
    found = {one.name: one for one in await schedules.listed(server.client)}
    assert (found["backup"].paused, found["backup"].note) == (True, "moving house")
    assert found["backup"].every_seconds == timedelta(hours=6).total_seconds()
    assert not found["fleet-review"].paused
    code, out, _ = await run("schedules", "list")
    assert "backup: every 6:00:00, paused" in out
    assert (await run("schedules", "unpause", "backup"))[0] == 0


async def test_a_trigger_runs_the_review_and_a_failed_backup_pauses(
    run: Run, server: WorkflowEnvironment, world: World
) -> None:
    await schedules.apply(server.client, gateway=GatewayTarget(namespace="edge"))
    assert (await run("schedules", "trigger", "fleet-review"))[0] == 0

    async def reviewed() -> bool:
        return "review_fleet" in world.calls

    await eventually(reviewed)
    assert world.arguments["review_fleet"][0].gateway.namespace == "edge"
    world.script["take_backup"] = [lambda _: ApplicationError("no space left", non_retryable=True)]
    assert (await run("schedules", "trigger", "backup"))[0] == 0

    async def paused() -> bool:
        return {one.name: one.paused for one in await schedules.listed(server.client)}["backup"]

    await eventually(paused)
