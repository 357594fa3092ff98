"""What doors learn of issuers: they see no cluster, so a worker looks for them, through a short workflow.

One way for the portal and the command line. Left out: setting an issuer up, and writing credentials
(`starter.credentials`).
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, RPCError, WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError
from temporalio.service import RPCStatusCode

from activities.temporal import TemporalAwayError, away_if_unreachable
from lifecycle import acceptance, queues
from lifecycle.diagnosis import said
from lifecycle.domain import IssuerRef, OnboardingRequest
from lifecycle.names import issuer_inspection_id
from lifecycle.requests import FieldError
from lifecycle.steps import IssuerOverview, IssuerQuestion
from workflows.issuer import IssuerInspection

LOOK = timedelta(seconds=20)
"""One read of the cluster, tried again where it does not answer; a person waits for it."""

PROMPT = timedelta(seconds=5)
"""A look takes a tenth of a second; a request waits for it."""

_CALL = timedelta(seconds=5)


class NotSeenError(Exception):
    """The worker could not look; `str` says why, `fix` what to do."""

    def __init__(self, title: str, fix: str = "") -> None:
        super().__init__(title)
        self.fix = fix


async def inspect(client: Client, ref: IssuerRef | None = None, *, longest: timedelta = LOOK) -> IssuerOverview:
    """What one issuer, or each, says of itself.

    Raises:
        NotSeenError: the cluster refuses.
        TemporalAwayError: Temporal does not answer, or no worker in time.
    """
    with away_if_unreachable():
        try:
            handle = await client.start_workflow(
                IssuerInspection.run,
                IssuerQuestion(ref=ref),
                id=issuer_inspection_id(ref),
                task_queue=queues.WORKFLOWS,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                execution_timeout=longest,
                rpc_timeout=_CALL,
            )
            async with asyncio.timeout(longest.total_seconds()):
                return await handle.result()
        except TimeoutError:
            raise TemporalAwayError("no worker answers for the issuers; is one running?") from None
        except WorkflowFailureError as error:
            cause = _innermost(error)
            if not isinstance(cause, ApplicationError):
                raise TemporalAwayError("no worker answers for the issuers; is one running?") from None
            told = cause.details[0] if cause.details else None
            fix = str(told.get("fix", "")) if isinstance(told, dict) else ""
            raise NotSeenError(said(cause.message), fix) from None
        except RPCError as error:
            if error.status in (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED):
                raise
            raise TemporalAwayError(f"Temporal refused ({error.status.name}): {said(error.message)}") from None


async def objections(
    client: Client, request: OnboardingRequest, doubtful: tuple[FieldError, ...] = ()
) -> tuple[FieldError, ...]:
    """What stands against a request because of its issuer, today.

    `doubtful` is what only an issuer that proves wildcards refutes. An issuer is looked at only where it decides
    anything, so that a plain request needs no worker. Where nobody can say so in time a door takes no wildcard, and
    leaves the rest to the domain, which looks again before it orders anything.
    """
    if not doubtful and not acceptance.depends_on_issuer(request):
        return ()
    try:
        (issuer,) = (await inspect(client, request.issuer, longest=PROMPT)).issuers
    except (NotSeenError, TemporalAwayError):
        return doubtful
    refused = acceptance.field_errors(request, acceptance.traits_of(issuer), datetime.now(UTC))
    return (*(() if issuer.wildcard else doubtful), *refused)


def _innermost(error: BaseException) -> BaseException:
    cause = error
    while isinstance(cause, WorkflowFailureError | ActivityError | FailureError) and cause.cause is not None:
        cause = cause.cause
    return cause
