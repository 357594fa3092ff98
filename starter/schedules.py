"""What runs by itself: the review of all certificates, and the backup; made or updated by one command.

A schedule that somebody paused stays paused when it is applied again. Left out: what the workflows do.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio.client import (
    Client,
    RPCError,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleDescription,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import Priority
from temporalio.service import RPCStatusCode

from activities.temporal import away_if_unreachable
from lifecycle import queues
from lifecycle.domain import GatewayTarget
from lifecycle.steps import BackupRequest, FleetReviewRequest
from workflows.backup import Backup
from workflows.review import FleetReview

REVIEW, BACKUP = "fleet-review", "backup"

REVIEW_EVERY = timedelta(hours=1)
"""A fraction of the shortest renewal window there is: a six-day certificate has days left at its renewal time."""

BACKUP_EVERY = timedelta(days=1)
"""A lost cluster costs at most a day of newly issued certificates, which can be issued anew."""

SHORTEST = timedelta(seconds=10)

_CALL = timedelta(seconds=10)


class ScheduleUnknownError(Exception):
    """There is no schedule of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleView:
    """A schedule as a person sees it; seconds between runs, instants of the runs around now."""

    name: str
    every_seconds: float
    paused: bool
    note: str
    overlap: str
    last_at: datetime | None
    last_run: str
    next_at: datetime | None


async def apply(
    client: Client,
    *,
    gateway: GatewayTarget,
    review_every: timedelta = REVIEW_EVERY,
    backup_every: timedelta = BACKUP_EVERY,
    keep: int = 0,
) -> tuple[tuple[str, bool], ...]:
    """Make or update both schedules; name and whether it was made. Raises TemporalAwayError."""
    review = ScheduleActionStartWorkflow(
        FleetReview.run,
        FleetReviewRequest(gateway=gateway),
        id=REVIEW,
        task_queue=queues.WORKFLOWS,
        static_summary="review of all certificates",
        priority=Priority(priority_key=queues.PRIORITY_REVIEW),
    )
    backup = ScheduleActionStartWorkflow(
        Backup.run,
        BackupRequest(keep=keep),
        id=BACKUP,
        task_queue=queues.WORKFLOWS,
        static_summary="encrypted backup, opened and compared",
        priority=Priority(priority_key=queues.PRIORITY_REVIEW),
    )
    # No retry policy on either: the schedule's next run is the retry, and a retrying one can block the schedule.
    made = []
    for name, action, every, overlap, pauses in (
        (REVIEW, review, review_every, ScheduleOverlapPolicy.SKIP, False),
        (BACKUP, backup, backup_every, ScheduleOverlapPolicy.BUFFER_ONE, True),
    ):
        spec = ScheduleSpec(
            intervals=[ScheduleIntervalSpec(every=every)],
            # not every installation at the full hour
            jitter=min(every / 10, timedelta(minutes=5)),
        )
        # catch up with one missed run at most (Temporal's default is a year of them)
        policy = SchedulePolicy(overlap=overlap, catchup_window=every, pause_on_failure=pauses)
        made.append((name, await _apply(client, name, Schedule(action=action, spec=spec, policy=policy))))
    return tuple(made)


async def _apply(client: Client, name: str, wanted: Schedule) -> bool:
    def changed(present: ScheduleUpdateInput) -> ScheduleUpdate:
        wanted.state = present.description.schedule.state
        return ScheduleUpdate(schedule=wanted)

    with away_if_unreachable():
        try:
            await client.create_schedule(name, wanted, rpc_timeout=_CALL)
        except ScheduleAlreadyRunningError:
            await client.get_schedule_handle(name).update(changed, rpc_timeout=_CALL)
            return False
    return True


async def listed(client: Client) -> tuple[ScheduleView, ...]:
    """Those of ours that are there. Raises TemporalAwayError."""
    found = []
    for name in (REVIEW, BACKUP):
        try:
            with away_if_unreachable():
                found.append(_view(await client.get_schedule_handle(name).describe(rpc_timeout=_CALL)))
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
    return tuple(found)


def _view(described: ScheduleDescription) -> ScheduleView:
    schedule, info = described.schedule, described.info
    last = info.recent_actions[-1] if info.recent_actions else None
    overlap = schedule.policy.overlap
    return ScheduleView(
        name=described.id,
        every_seconds=schedule.spec.intervals[0].every.total_seconds() if schedule.spec.intervals else 0.0,
        paused=schedule.state.paused,
        note=schedule.state.note or "",
        overlap=overlap.name,
        last_at=last.started_at if last else None,
        last_run=getattr(last.action, "workflow_id", "") if last else "",
        next_at=info.next_action_times[0] if info.next_action_times else None,
    )


async def pause(client: Client, name: str, note: str) -> None:
    """Start no further runs. Raises ScheduleUnknownError, TemporalAwayError."""
    await _known(name, client.get_schedule_handle(name).pause(note=note, rpc_timeout=_CALL))


async def unpause(client: Client, name: str, note: str) -> None:
    """Go on. Raises ScheduleUnknownError, TemporalAwayError."""
    await _known(name, client.get_schedule_handle(name).unpause(note=note, rpc_timeout=_CALL))


async def trigger(client: Client, name: str) -> None:
    """One run now, by the schedule's own rule for overlaps. Raises ScheduleUnknownError, TemporalAwayError."""
    await _known(name, client.get_schedule_handle(name).trigger(rpc_timeout=_CALL))


async def _known(name: str, asking: Awaitable[None]) -> None:
    try:
        with away_if_unreachable():
            await asking
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise ScheduleUnknownError(name) from None
        raise
