"""Ask an account's quota for the turn to order, give a turn back, and tell what came of an order.

A question is an Update, so that a grant that can be had at once costs the domain nothing more; where the quota does not
answer within moments, or has too many questions under way, it is a signal, and the answer comes by one. Nothing here
stops an order for good: what cannot be asked is told as unanswered. Workflows are named, not imported. Left out: who
is granted what (`lifecycle.quota`), and what a domain makes of it (`lifecycle.turns`).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TypeVar

from temporalio import activity
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from lifecycle import queues, turns
from lifecycle.diagnosis import said
from lifecycle.domain import OnboardingRequest, QuotaTurn
from lifecycle.quota import (
    Exemption,
    Lane,
    Outcome,
    PastOrder,
    PastOrders,
    QuotaAnswer,
    QuotaAsk,
    QuotaRequest,
    QuotaState,
    opened,
    quota_id,
)
from lifecycle.rate_limits import LimitsTable, limits_of
from lifecycle.registered_domain import registered_domains
from lifecycle.steps import Cleanup, QuotaQuestion

T = TypeVar("T")

WORKFLOW, ASK, TURN, TELL, LEARN = "IssuanceQuota", "ask", "turn", "tell", "learn"
"""The workflow's name, its signals, and its Update `turn`."""

_CALL = timedelta(seconds=5)

_PROMPT = timedelta(seconds=3)
"""A quota with an idle worker answers within tens of milliseconds."""

_AT_ONCE = 4
"""Questions under way of one process: Temporal lets ten Updates of one workflow be under way (its default limit)."""

Outcomes = Callable[[bool], Outcome]


class Quotas:
    """The quotas of all accounts, given Temporal's client and the operator's table of limits."""

    def __init__(self, temporal: Client, limits: LimitsTable) -> None:
        self._temporal = temporal
        self._limits = limits
        self._asking = asyncio.Semaphore(_AT_ONCE)

    async def ask(
        self,
        request: OnboardingRequest,
        turn: QuotaTurn,
        *,
        owner: str,
        past: Callable[[], Iterable[PastOrder]] = tuple,
    ) -> QuotaTurn:
        """The turn with the quota's answer, or unanswered; then an answer comes to `owner` by signal, or none does.

        `past` gives the orders that the cluster shows; they count where this question begins the quota.
        """
        now = datetime.now(UTC)
        turn = dataclasses.replace(turn, asked_at=now)
        limits = limits_of(turn.server, self._limits)
        wanted = _wanted(request, turn, owner)

        @cache
        def first_state() -> QuotaState:
            return opened(turn.account, limits, past(), now)

        try:
            async with asyncio.timeout(_PROMPT.total_seconds()), self._asking:
                answer = await self._answer(turn.account, QuotaAsk(request=wanted, limits=limits), first_state)
            return turns.answered(turn, answer)
        except (TimeoutError, RPCError, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
            _note("quota did not answer at once", turn.account, str(error))
        try:
            await self._temporal.start_workflow(
                WORKFLOW,
                first_state(),
                id=quota_id(turn.account),
                task_queue=queues.WORKFLOWS,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                start_signal=ASK,
                start_signal_args=[wanted],
                static_summary=_summary(turn.account),
                rpc_timeout=_CALL,
            )
        except RPCError as error:
            _note("quota not asked", turn.account, error.message)
        return turns.unanswered(turn, now)

    async def _answer(self, account: str, ask: QuotaAsk, first_state: Callable[[], QuotaState]) -> QuotaAnswer:
        """The Update's answer. A quota that runs is asked without the state that it would begin with."""
        running = self._temporal.get_workflow_handle(quota_id(account))
        try:
            told: QuotaAnswer = await running.execute_update(TURN, ask, result_type=QuotaAnswer, rpc_timeout=_PROMPT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        else:
            return told
        starting: WithStartWorkflowOperation[object, None] = WithStartWorkflowOperation(
            WORKFLOW,
            first_state(),
            id=quota_id(account),
            task_queue=queues.WORKFLOWS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=_summary(account),
        )
        first: QuotaAnswer = await self._temporal.execute_update_with_start_workflow(
            TURN, ask, result_type=QuotaAnswer, start_workflow_operation=starting, rpc_timeout=_PROMPT
        )
        return first

    async def tell(self, account: str, outcome: Outcome) -> None:
        """What came of a request; a quota that cannot be told takes the worst for granted when the lease is over."""
        await self._signal(account, TELL, outcome)

    async def learn(self, account: str, past: PastOrder) -> None:
        """An order that was made without asking."""
        await self._signal(account, LEARN, PastOrders(orders=(past,)))

    async def _signal(self, account: str, name: str, argument: object) -> None:
        try:
            await self._temporal.get_workflow_handle(quota_id(account)).signal(name, argument, rpc_timeout=_CALL)
        except RPCError as error:
            _note(f"quota not told: {name}", account, error.message)

    async def telling(
        self, turn: QuotaTurn | None, work: Awaitable[T], outcome: Outcomes, issued: Callable[[T], bool]
    ) -> T:
        """What the work gives. Where it comes to its end, well or not, the quota is told; not where it is to go on.

        `outcome` is asked at the end, with what `issued` finds in the result.
        """
        if turn is None:
            return await work
        try:
            result = await work
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is not None and details.cancel_requested:
                await self.tell(turn.account, outcome(False))
            raise
        except ApplicationError as error:
            if error.non_retryable:
                await self.tell(turn.account, outcome(False))
            raise
        await self.tell(turn.account, outcome(issued(result)))
        return result


class TurnActivities:
    """Activities on the turns of domains."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    @activity.defn
    async def ask_turn(self, question: QuotaQuestion) -> QuotaTurn:
        """The turn with the quota's answer, or unanswered. Asking twice with one request is asking once."""
        return await self._quotas.ask(question.request, question.turn, owner=activity.info().workflow_id or "")

    @activity.defn
    async def withdraw_turn(self, turn: QuotaTurn) -> Cleanup:
        """Give the turn back: nothing is ordered with it."""
        await self._quotas.tell(turn.account, Outcome(request_id=turn.request_id))
        return Cleanup(removed=(f"request {turn.request_id}",))


def new_turn(request: OnboardingRequest, *, account: str, server: str) -> QuotaTurn:
    """The turn of the calling activity's domain, not asked for yet; made anew by a retry it is the same request."""
    info = activity.info()
    now = datetime.now(UTC)
    return QuotaTurn(
        account=account,
        server=server,
        issuer=request.issuer,
        request_id=f"{info.workflow_id}/{(info.workflow_run_id or '')[:8]}/{info.activity_id}",
        lane=Lane.NEW,
        since=now,
        asked_at=now,
    )


def _wanted(request: OnboardingRequest, turn: QuotaTurn, owner: str) -> QuotaRequest:
    lane = Lane(turn.lane)
    return QuotaRequest(
        id=turn.request_id,
        owner=owner,
        tenant=request.tenant,
        hostnames=request.hostnames,
        registered_domains=registered_domains(request.hostnames),
        lane=lane,
        exemption=Exemption.NONE if lane is Lane.NEW else Exemption.RENEWAL,
    )


def _summary(account: str) -> str:
    return f"whose turn it is to order with {account}"


def _note(event: str, account: str, reason: str) -> None:
    activity.logger.warning(event, extra={"account": account, "reason": said(reason)})
