"""How a workflow calls its hands: broken surroundings are waited for and said, a refusal is a finding.

Attempts leave no events in a history, so a workflow does not see that one fails. Therefore a call's retries come in
windows (`timeouts.WINDOWS`): where one is used up, the workflow says what does not answer and since when, and goes on
trying. A call ends by an answer, by a refusal for good, or by cancellation; never by a failure of the surroundings.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    TimeoutError,  # noqa: A004 - Temporal's own, raised by its activities
    TimeoutType,
    is_cancelled_exception,
)
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from lifecycle import findings, queues
    from lifecycle.findings import Finding
    from lifecycle.steps import Hindrance
    from workflows import timeouts
    from workflows.hands import A, Hand, R

T = TypeVar("T")

_LONGEST_WORDS = 300

_LATE = "TemporalTimeout:StartToClose"
"""What Temporal's server calls the end of an attempt's time where it looks whether to try again."""


class StepRefusedError(Exception):
    """A step that was refused for good; always caught by the workflow that called, and told as its finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.problem)
        self.finding = finding


class CancelledLateError(asyncio.CancelledError):
    """Cancelled, while the activity did not heed it and ended well: what it did may have to be undone."""

    def __init__(self, result: object) -> None:
        super().__init__("cancelled; the step under way ended well nevertheless")
        self.result = result


Tell = Callable[[Hindrance], Awaitable[None]]


async def tell_parent(hindrance: Hindrance) -> None:
    """A child's way to say that it is hindered: the parent's signal `hindered`. Costs events only then."""
    parent = workflow.info().parent
    if parent is None:
        return
    try:
        await workflow.get_external_workflow_handle(parent.workflow_id).signal("hindered", hindrance)
    except FailureError:
        workflow.logger.warning("the parent is gone", extra={"parent": parent.workflow_id})


async def tell_nobody(hindrance: Hindrance) -> None:
    """For calls whose delay no state shows."""
    workflow.logger.warning("surroundings broken", extra={"step": hindrance.step, "problem": hindrance.problem})


async def call(
    hand: Hand[A, R],
    argument: A,
    *,
    summary: str,
    subject: str,
    tell: Tell = tell_nobody,
    tenant: str = "",
    priority: int = queues.PRIORITY_ONBOARDING,
) -> R:
    """What the activity answers, however long its surroundings take.

    Raises:
        StepRefusedError: refused for good, or nothing came within the limit of a watch.
        asyncio.CancelledError: cancelled; an activity that changes something has ended before, with the result that a
            CancelledLateError has, or by taking back what it did.
    """
    since = workflow.now()
    window = 0
    while True:
        try:
            result = await once(
                hand,
                argument,
                summary=summary,
                retry=timeouts.WINDOWS[min(window, len(timeouts.WINDOWS) - 1)],
                tenant=tenant,
                priority=priority,
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise asyncio.CancelledError from error
            refused = refusal(error, hand, summary, subject)
            if refused is not None:
                if window:
                    await tell(Hindrance(step=summary))
                raise StepRefusedError(refused) from error
            window += 1
            following = timeouts.WINDOWS[min(window, len(timeouts.WINDOWS) - 1)]
            again_by = workflow.now() + (following.maximum_interval or timedelta())
            await tell(Hindrance(step=summary, problem=words(error), since=since, again_by=again_by))
            continue
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise CancelledLateError(result)
        if window:
            await tell(Hindrance(step=summary))
        return result


async def once(
    hand: Hand[A, R],
    argument: A,
    *,
    summary: str,
    retry: RetryPolicy,
    tenant: str = "",
    priority: int = queues.PRIORITY_ONBOARDING,
) -> R:
    """What the activity answers within one window of retries. Raises ActivityError."""
    cancellation = (
        ActivityCancellationType.WAIT_CANCELLATION_COMPLETED if hand.mutates else ActivityCancellationType.TRY_CANCEL
    )
    if hand.late is not None:
        retry = dataclasses.replace(retry, non_retryable_error_types=[_LATE])
    if hand.local:
        local: R = await workflow.execute_local_activity(
            hand.name,
            argument,
            result_type=hand.gives,
            start_to_close_timeout=hand.limit,
            retry_policy=retry,
            cancellation_type=cancellation,
            summary=summary,
        )
        return local
    result: R = await workflow.execute_activity(
        hand.name,
        argument,
        result_type=hand.gives,
        task_queue=hand.queue,
        start_to_close_timeout=hand.limit,
        heartbeat_timeout=hand.heartbeat,
        retry_policy=retry,
        cancellation_type=cancellation,
        summary=summary,
        priority=Priority(priority_key=priority, fairness_key=tenant[:64] or None),
    )
    return result


def refusal(error: ActivityError, hand: Hand[A, R], step: str, subject: str) -> Finding | None:
    """The finding of a failure that no retry mends, else None."""
    cause = error.cause
    # One that never heartbeat did not live: its worker was killed, and another one is to take it up.
    if isinstance(cause, TimeoutError) and cause.type is TimeoutType.START_TO_CLOSE and cause.last_heartbeat_details:
        last = cause.last_heartbeat_details[0]
        said = f" The last word was: {last}." if isinstance(last, str) else ""
        if hand.late is not None:
            return hand.late.found(
                subject=subject,
                problem=f"Nothing came within {hand.limit.total_seconds() / 3600:.0f} h: {step}.{said}"[
                    :_LONGEST_WORDS
                ],
                fix="Look at the Certificate's Order and Challenges, mend what they name, then ask for a check.",
            )
        return None
    if not isinstance(cause, ApplicationError) or not cause.non_retryable:
        return None
    told = _told(cause)
    if told is not None:
        return told
    kind = {"PermissionMissing": findings.PERMISSION_MISSING, "ClusterRefused": findings.OBJECT_REJECTED}.get(
        cause.type or "", findings.STEP_FAILED
    )
    return kind.found(
        subject=subject,
        problem=f"Refused: {step}. {words(error)}"[:_LONGEST_WORDS],
        fix="Mend what the refusal names, then ask for a check.",
    )


def _told(cause: ApplicationError) -> Finding | None:
    """A finding that the activity put into the error's details."""
    first: Any = cause.details[0] if cause.details else None
    if not isinstance(first, dict):
        return None
    try:
        return Finding(
            code=str(first["code"]),
            title=str(first["title"]),
            severity=findings.Severity(first["severity"]),
            handling=findings.Handling(first["handling"]),
            subject=str(first["subject"]),
            problem=str(first["problem"]),
            fix=str(first["fix"]),
        )
    except (KeyError, ValueError):
        return None


def words(error: FailureError) -> str:
    """The innermost message of a failure, cut."""
    cause: BaseException = error
    while isinstance(cause, FailureError) and cause.cause is not None:
        cause = cause.cause
    message = cause.message if isinstance(cause, FailureError) else str(cause)
    return " ".join(message.split())[:_LONGEST_WORDS]


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """What undoes something, to its end, also where the workflow is being cancelled (again)."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
        except StepRefusedError:
            break
    return task.result()
