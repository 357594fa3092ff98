"""`IssuanceQuota`: one for each ACME account; whoever means to order asks it, and hears when the turn has come.

Asked by an Update of an owner's activity, whose answer is the first one, or by a signal; every other answer is a signal
to the owner. Handlers only put down what came; the one loop looks at it, grants, and sends the answers. Everything is
carried from run to run (`lifecycle.quota.QuotaState`); who is granted what is decided there. Left out: what an owner
does with a grant, and how long it waits before it asks again.
"""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import VersioningBehavior
from temporalio.exceptions import FailureError
from temporalio.workflow import ContinueAsNewVersioningBehavior

with workflow.unsafe.imports_passed_through():
    from lifecycle.quota import (
        ANSWER_SIGNAL,
        AnswerKind,
        Ledger,
        Outcome,
        PastOrders,
        Place,
        QuotaAnswer,
        QuotaAsk,
        QuotaLimits,
        QuotaOverview,
        QuotaRequest,
        QuotaState,
    )
    from lifecycle.rate_limits import Throttle

T = TypeVar("T")

MOST_AT_ONCE = 200
"""Requests looked at in one turn of the loop, and answers under way at once: Temporal allows 2,000 signals under way,
and a workflow task must end within two seconds."""

MOST_CARRIED = 1_000
"""Requests that a run hands on without having looked at them; with more it goes on, so that the next one's first
payload stays small (see `lifecycle.quota.MOST_NAMES_WAITING`)."""

_SOONEST = timedelta(milliseconds=1)


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class IssuanceQuota:
    """Lives as long as its account. It never fails and never ends by itself."""

    @workflow.init
    def __init__(self, state: QuotaState) -> None:
        self._ledger = Ledger(state)
        self._asked: list[QuotaRequest] = list(state.unread)
        self._told: list[Outcome] = []
        self._refused: list[Throttle] = []
        self._learned: list[PastOrders] = []
        self._allowed: list[QuotaLimits] = []
        self._signalled: set[str] = set()
        self._listening: dict[str, list[asyncio.Future[QuotaAnswer]]] = {}
        self._nudged = False

    @workflow.run
    async def run(self, state: QuotaState) -> None:
        """Grant, for ever."""
        while True:
            await self._step()
            if self._new_run_is_due() and len(self._asked) <= MOST_CARRIED:
                # who listens waits for the next step, and the step for this loop
                await workflow.wait_condition(lambda: workflow.all_handlers_finished() or bool(self._listening))
                if not (self._listening or self._told or self._refused or self._learned or self._allowed):
                    self._begin_new_run()
            await self._wait(state.account)

    async def _step(self) -> None:
        for limits in self._taken(self._allowed):
            self._ledger.allow(limits.limits)
        for past in self._taken(self._learned):
            self._ledger.learn(past.orders)
        asked, self._asked = self._asked[:MOST_AT_ONCE], self._asked[MOST_AT_ONCE:]
        answers = self._ledger.step(
            workflow.now(), asked=asked, outcomes=self._taken(self._told), throttles=self._taken(self._refused)
        )
        for begin in range(0, len(answers), MOST_AT_ONCE):
            await asyncio.gather(*(self._send(answer) for answer in answers[begin : begin + MOST_AT_ONCE]))

    @staticmethod
    def _taken(came: list[T]) -> list[T]:
        taken, came[:] = list(came), []
        return taken

    async def _send(self, answer: QuotaAnswer) -> None:
        """To those who listen, else by signal. An owner that is gone needs no grant: it goes back and to the next."""
        listening = self._listening.pop(answer.request_id, [])
        for future in listening:
            future.set_result(answer)
        if listening and answer.request_id not in self._signalled:
            return
        self._signalled.discard(answer.request_id)
        try:
            await workflow.get_external_workflow_handle(answer.owner).signal(ANSWER_SIGNAL, answer)
        except FailureError:
            workflow.logger.warning("the owner is gone", extra={"owner": answer.owner, "request": answer.request_id})
            if answer.kind in (AnswerKind.GRANTED, AnswerKind.WAITING):
                self._told.append(Outcome(request_id=answer.request_id))

    async def _wait(self, account: str) -> None:
        now = workflow.now()
        overview = self._ledger.overview(now, most=10)
        soon = "".join(
            f"\n- {one.place}. {one.request_id}, {one.expected_at:%Y-%m-%d %H:%M} UTC" for one in overview.next
        )
        lanes = ", ".join(f"{number} {lane}" for lane, number in overview.lanes)
        pause = f", paused until {overview.paused_until:%Y-%m-%d %H:%M} UTC" if overview.paused_until else ""
        workflow.set_current_details(
            f"Orders of {account}: {overview.under_way} under way, {overview.waiting} wait ({lanes}){pause}.{soon}"
        )
        timeout = None if overview.next_at is None else max(overview.next_at - now, _SOONEST)
        try:
            await workflow.wait_condition(
                self._something_came, timeout=timeout, timeout_summary="until a bucket has one more, or a lease is over"
            )
        except TimeoutError:
            return

    def _something_came(self) -> bool:
        return bool(
            self._asked or self._told or self._refused or self._learned or self._allowed or self._new_run_is_due()
        )

    def _new_run_is_due(self) -> bool:
        info = workflow.info()
        return self._nudged or info.is_continue_as_new_suggested() or info.is_target_worker_deployment_version_changed()

    def _begin_new_run(self) -> None:
        state = dataclasses.replace(self._ledger.state(workflow.now()), unread=tuple(self._asked))
        workflow.continue_as_new(
            state,
            initial_versioning_behavior=(
                ContinueAsNewVersioningBehavior.AUTO_UPGRADE
                if workflow.info().get_current_deployment_version() is not None
                else None
            ),
        )

    # --- what comes ---------------------------------------------------------------------------------------------------

    @workflow.update
    async def turn(self, ask: QuotaAsk) -> QuotaAnswer:
        """The first answer to a request, at once; later ones come by the signal `lifecycle.quota.ANSWER_SIGNAL`."""
        if ask.limits != self._ledger.limits:
            self._allowed.append(QuotaLimits(limits=ask.limits))
        self._asked.append(ask.request)
        answer: asyncio.Future[QuotaAnswer] = asyncio.Future()
        self._listening.setdefault(ask.request.id, []).append(answer)
        return await answer

    @workflow.signal
    def ask(self, request: QuotaRequest) -> None:
        """Somebody means to order; the owner hears by the signal `lifecycle.quota.ANSWER_SIGNAL`."""
        self._signalled.add(request.id)
        self._asked.append(request)

    @workflow.signal
    def tell(self, outcome: Outcome) -> None:
        """What came of a grant; or that a request is withdrawn."""
        self._told.append(outcome)

    @workflow.signal
    def refused(self, throttle: Throttle) -> None:
        """The CA refused somebody who had not asked here."""
        self._refused.append(throttle)

    @workflow.signal
    def learn(self, past: PastOrders) -> None:
        """Orders that were made without asking."""
        self._learned.append(past)

    @workflow.signal
    def allow(self, limits: QuotaLimits) -> None:
        """The account's limits from now on."""
        self._allowed.append(limits)

    @workflow.signal
    def nudge(self) -> None:
        """Move to the present version now; the end of a rollout sends it."""
        self._nudged = True

    @workflow.query
    def place_of(self, owner: str) -> Place | None:
        """Where an owner's request stands now; None where none of its waits."""
        return self._ledger.place_of(owner, workflow.now())

    @workflow.query
    def overview(self, most: int = 20) -> QuotaOverview:
        """Counts, and who is next."""
        return self._ledger.overview(workflow.now(), most)
