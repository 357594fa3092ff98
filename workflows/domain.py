"""`DomainOnboarding`: a customer's domain, from request to retirement.

An entity: one run after another under one id, for years. One main loop issues every command; updates and signals only
record a wish and wait, bounded. What is waited for is an instant in the state, since timers do not survive a new run.
A new run begins at every certificate cycle, so that histories and code paths stay short.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar

from temporalio import workflow
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    VersioningBehavior,
)
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)
from temporalio.workflow import ChildWorkflowCancellationType, ContinueAsNewVersioningBehavior, ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from lifecycle import escalation, findings, names, pacing, progress, queues, turns, waiting
    from lifecycle.domain import (
        ActionRequired,
        CertificateFacts,
        CertificateStatus,
        DomainState,
        DomainStatus,
        Observation,
        OnboardingRequest,
        Phase,
        QuotaTurn,
        RoutingStatus,
        ServedAt,
        ServingStatus,
    )
    from lifecycle.escalation import Level
    from lifecycle.quota import Lane, QuotaAnswer
    from lifecycle.steps import (
        BindingResult,
        CertificateTarget,
        DomainAnswer,
        EdgeReport,
        Hindrance,
        IssuanceResult,
        MendReport,
        PreflightReport,
        QuotaQuestion,
        RenewalRequest,
        Reservation,
        Standstill,
        Wake,
    )
    from lifecycle.turns import Move
    from workflows import hands, timeouts
    from workflows.calling import StepRefusedError, call, once, shielded, words
    from workflows.certificate import CertificateIssuance
    from workflows.gateway import GatewayBinding
    from workflows.hands import A, Hand, R

T = TypeVar("T")

_RESTING = (Phase.PREFLIGHT, Phase.SUSPENDED, Phase.BINDING, Phase.ACTIVE)
"""Phases in which somebody's wish for a check is taken up at once, if the domain waits."""

_MENDED_FIRST = (Phase.PREFLIGHT, Phase.SUSPENDED, Phase.ACTIVE)
_MENDED_BESIDE = (Phase.ISSUING, Phase.BINDING, Phase.RENEWING)
"""Phases in which a wish for a remedy is taken up between the steps, and while a step waits for what is stuck."""

_STALE_LOOKS = timedelta(minutes=5)
"""Between looks at an edge that does not serve what it should: Envoy takes up a Secret in a tenth of a second, so
somebody has to act, and sees within minutes that it helped."""

_ASTRAY_LOOKS = timedelta(hours=1)
"""Between looks at an active domain whose names point elsewhere, as for a customer who is waited for: visitors do not
come, and the next renewal by HTTP cannot be proved."""

_KEYS = {
    queues.AttributeType.KEYWORD: SearchAttributeKey.for_keyword,
    queues.AttributeType.BOOL: SearchAttributeKey.for_bool,
    queues.AttributeType.DATETIME: SearchAttributeKey.for_datetime,
}


def _key(attribute: queues.SearchAttribute) -> SearchAttributeKey[Any]:
    make: Any = _KEYS[attribute.type]
    key: SearchAttributeKey[Any] = make(attribute.name)
    return key


_ATTRIBUTES = {attribute.name: _key(attribute) for attribute in queues.SEARCH_ATTRIBUTES}

_TOLD_AFRESH = timedelta(hours=1)
"""A next look that moved by less is not told to lists by itself: each telling is an event."""


_QUOTA = "issuance-quota"
"""The patch with which a domain waits for its turn; who has it at once needs none."""


class _StoppedError(Exception):
    """The domain is to end; the step under way has ended."""


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class DomainOnboarding:
    """One domain."""

    @workflow.init
    def __init__(self, state: DomainState) -> None:
        self._state = state
        self._new = state.status.requested_at is None
        self._requests = 0
        self._hindrance: Hindrance | None = None
        self._standstill: Standstill | None = None
        self._cancel = False
        self._checks_wanted = 0
        self._checks_done = 0
        self._renewals_wanted = 0
        self._renewals_done = 0
        self._fixes_wanted = 0
        self._fixes_done = 0
        self._wake: Wake | None = None
        self._answers: dict[str, QuotaAnswer] = {}
        self._turn_heard = False
        self._granted: QuotaTurn | None = None
        self._nudged = False
        self._cycle_over = False
        self._idle = False
        # A new run goes on waiting until where the old one would have waited.
        self._resume_at = None if self._new else state.status.next_check_at
        # A new run begins with the attributes that the old one handed over.
        self._published = None if self._new else self._attributes()

    # --- what others may ask --------------------------------------------------------------------------------------

    @workflow.query
    def status(self) -> DomainStatus:
        """Everything that a portal shows."""
        return progress.hindered(progress.standing(self._state.status, self._standstill), self._hindrance)

    @workflow.update
    async def onboard(self, request: OnboardingRequest) -> DomainAnswer:
        """Ask for the domain, or join who asked before. Raises ApplicationError "HostnameTaken"."""
        self._requests += 1
        # The request that starts the domain arrives with its first task, whose time is the domain's beginning.
        first = self._new and self._requests == 1 and self._status.requested_at in (None, workflow.now())
        if self._phase is Phase.SUSPENDED:
            self._checks_wanted += 1
        await self._until(lambda: self._phase is not Phase.REQUESTED, timeouts.PROMPT)
        if self._phase is Phase.REFUSED:
            why = self._status.findings[0]
            taken = why.code == findings.HOSTNAME_NOT_AVAILABLE.code
            raise ApplicationError(why.problem, type=queues.HOSTNAME_TAKEN if taken else why.title, non_retryable=True)
        return DomainAnswer(status=self.status(), joined=not first)

    @onboard.validator
    def _onboard_by_owner(self, request: OnboardingRequest) -> None:
        self._refuse_others(request.tenant)

    @workflow.update
    async def check_now(self, tenant: str) -> DomainStatus:
        """Look again, and answer with what was found; while a step is under way, with the state as it is."""
        if self._phase in _RESTING and self._idle:
            self._checks_wanted += 1
            mine = self._checks_wanted
            await self._until(lambda: self._checks_done >= mine or self._ended, timeouts.ANSWER)
        return self.status()

    @check_now.validator
    def _check_by_owner(self, tenant: str) -> None:
        self._refuse_others(tenant)

    @workflow.update
    async def renew_now(self, tenant: str) -> DomainStatus:
        """Renew although it is not due; answers when it is done, or after 30 s with the state as it is."""
        self._renewals_wanted += 1
        mine = self._renewals_wanted
        await self._until(lambda: self._renewals_done >= mine or self._ended, timeouts.ANSWER)
        return self.status()

    @renew_now.validator
    def _renew_by_owner(self, tenant: str) -> None:
        self._refuse_others(tenant)
        if self._phase not in (Phase.ACTIVE, Phase.RENEWING):
            raise ApplicationError(
                f"There is nothing to renew: the domain is {self._phase.value}.", type="NotActive", non_retryable=True
            )

    @workflow.update
    async def fix(self, tenant: str) -> DomainStatus:
        """Do what is safe about what keeps the domain, then look again; answers with what was done among the evidence.

        Only about the domain's own certificate. Answers after 30 s with the state as it is.
        """
        self._fixes_wanted += 1
        mine = self._fixes_wanted

        def done() -> bool:
            return self._ended or (self._fixes_done >= mine and self._checks_done >= self._checks_wanted)

        await self._until(done, timeouts.ANSWER)
        return self.status()

    @fix.validator
    def _fix_by_owner(self, tenant: str) -> None:
        self._refuse_others(tenant)

    @workflow.update
    async def cancel_request(self, tenant: str) -> DomainStatus:
        """End the domain: everything it made is taken away; answers when that is done, or after 30 s."""
        self._cancel = True
        await self._until(lambda: self._ended, timeouts.ANSWER)
        return self.status()

    @cancel_request.validator
    def _cancel_by_owner(self, tenant: str) -> None:
        self._refuse_others(tenant)

    @workflow.signal
    def wake(self, wake: Wake) -> None:
        """The review saw something; the latest word counts."""
        if self._phase in (Phase.ACTIVE, Phase.RENEWING):
            self._wake = wake

    @workflow.signal
    def nudge(self) -> None:
        """Begin a new run when the domain rests next, on the worker deployment's present version."""
        self._nudged = True

    @workflow.signal
    def hindered(self, hindrance: Hindrance) -> None:
        """A child says that its surroundings are broken, or answer again."""
        self._hear(hindrance)

    @workflow.signal
    def stands(self, standstill: Standstill) -> None:
        """Whoever waits for an issuance says why it does not move, or that it goes on."""
        if self._phase in (Phase.ISSUING, Phase.RENEWING):
            self._hear_standstill(standstill)

    @workflow.signal
    def quota_answered(self, answer: QuotaAnswer) -> None:
        """The account's quota grants a turn, or says how long it takes; also before the asking itself has ended."""
        turn = self._state.turn
        if turn is None or turn.request_id != answer.request_id:
            self._answers = {answer.request_id: answer}
            return
        self._turn_heard = True
        self._state = dataclasses.replace(self._state, turn=turns.answered(turn, answer))

    def _refuse_others(self, tenant: str) -> None:
        if tenant != self._state.request.tenant:
            raise ApplicationError(f"{self._hostname} is not available", type=queues.HOSTNAME_TAKEN, non_retryable=True)

    async def _until(self, condition: Any, longest: timedelta) -> None:
        if condition():
            return  # a timer that is not needed would cost two events
        try:
            await workflow.wait_condition(condition, timeout=longest, timeout_summary="answer at the latest")
        except TimeoutError:
            return

    # --- the main loop --------------------------------------------------------------------------------------------

    @workflow.run
    async def run(self, state: DomainState) -> DomainStatus:
        """The state at the end: retired or refused."""
        if self._new:
            self._show(requested_at=workflow.now())
        try:
            await self._live()
        except _StoppedError:
            pass
        except asyncio.CancelledError:
            self._cancel = True
        if self._phase is not Phase.REFUSED:
            await shielded(self._retire())
        self._publish()
        await shielded(workflow.wait_condition(workflow.all_handlers_finished))
        return self._status

    async def _live(self) -> None:
        waits_for_turn = self._state.turn is not None
        if self._resume_at is not None and self._phase in (Phase.PREFLIGHT, Phase.BINDING) and not waits_for_turn:
            await self._rest(self._resume_at, f"until the next attempt for {self._hostname}")
        while self._phase not in progress.ENDED:
            if self._cancel:
                raise _StoppedError
            if self._fixes_wanted > self._fixes_done and self._phase in _MENDED_FIRST:
                await self._step(self._mend_and_look())
            match self._phase:
                case Phase.REQUESTED:
                    await self._reserve()
                case Phase.PREFLIGHT if self._state.turn is not None:
                    await self._await_turn(self._state.turn)
                case Phase.PREFLIGHT:
                    await self._check_preflight(hands.CHECK_PREFLIGHT)
                case Phase.ISSUING:
                    await self._issue()
                case Phase.BINDING:
                    await self._bind()
                case Phase.SUSPENDED:
                    await self._rest(None, "until somebody asks for a check")
                    self._begin_again()
                case _:
                    await self._watch()

    async def _reserve(self) -> None:
        """Hold all names; one of them is held by this workflow's own id."""
        request = self._state.request
        further = request.hostnames[1:]
        self._show(step="holding the names")
        if further:
            reservation = self._reservation()
            try:
                result = await self._step(
                    self._call(hands.RESERVE_NAMES, reservation, f"hold {', '.join(further)} for this domain")
                )
            except StepRefusedError as refused:
                self._show(phase=Phase.REFUSED, step="refused", findings=(refused.finding,))
                return
            if result.taken:
                taken = ", ".join(result.taken)
                found = findings.HOSTNAME_NOT_AVAILABLE.found(
                    subject=self._hostname, problem=f"{taken} is not available", fix="Ask without it, or for another."
                )
                self._show(phase=Phase.REFUSED, step="refused", findings=(found,))
                return
        self._state = dataclasses.replace(self._state, reserved=True)
        self._show(phase=Phase.PREFLIGHT, step="looking whether everything is ready for an order")
        workflow.set_current_details(progress.markdown(self.status()))

    async def _check_preflight(self, hand: Hand[OnboardingRequest, PreflightReport]) -> None:
        """Look at what must be right before anything is ordered; wait on the published schedule where it is not."""
        wanted = self._checks_wanted
        wished = wanted > self._checks_done
        may_proceed = False
        asked: QuotaTurn | None = None
        try:
            report = await self._step(
                self._call(
                    hand,
                    self._state.request,
                    f"see whether {self._hostname} points here and may be ordered",
                )
            )
            may_proceed, asked = report.may_proceed, report.turn
            self._note(*report.evidence)
            self._show(
                routing=report.routing,
                action_required=None if may_proceed else report.action_required,
                # What the last order failed on stays said until another one is made.
                findings=(*report.findings, *(self._status.findings if may_proceed and self._waits_for_order else ())),
            )
        except StepRefusedError as refused:
            self._show(routing=RoutingStatus.UNKNOWN, findings=(refused.finding,))
        self._checks_done = max(self._checks_done, wanted)
        now = workflow.now()
        self._take_turn(asked)
        if not may_proceed:
            await self._let_go()
            await self._wait_for_customer(now, wished=wished)
            return
        state = self._state
        self._state = dataclasses.replace(state, checks=0, waiting_since=None, reminders=0)
        if state.retry_at is not None and state.failed_at is not None and now < state.retry_at:
            earliest = pacing.earliest_order(state.failures, state.failed_at)
            if not wished or now < earliest:
                await self._let_go()
                await self._wait_to_retry(state.retry_at)
                return
        self._state = dataclasses.replace(self._state, looked_at=now)
        if self._next_move() is not Move.ORDER and workflow.patched(_QUOTA):
            return
        self._begin_order()

    # --- its turn at the CA ---------------------------------------------------------------------------------------

    def _take_turn(self, asked: QuotaTurn | None) -> None:
        """Keep what a look asked for, with an answer that came before the look had ended."""
        if asked is None:
            return
        early = self._answers.pop(asked.request_id, None)
        turn = turns.answered(asked, early) if early is not None else asked
        self._state = dataclasses.replace(self._state, turn=turn, account=turn.account, server=turn.server)

    def _next_move(self, *, wished: bool = False) -> Move:
        turn = self._state.turn
        return Move.ORDER if turn is None else turns.move(turn, self._state.looked_at, workflow.now(), wished=wished)

    async def _await_turn(self, turn: QuotaTurn) -> None:
        """Nothing is ordered before the quota's grant, nor after it is over, nor by a look that is old."""
        self._turn_heard = False
        match self._next_move(wished=self._checks_wanted > self._checks_done):
            case Move.WAIT:
                due = turns.due(turn)
                self._show(step=turns.words(turn), quota=turns.place(turn), next_check_at=due)
                await self._rest(due, f"until the turn of {self._hostname} at the CA")
            case Move.LOOK:
                await self._check_preflight(hands.CHECK_AGAIN)
            case Move.ASK:
                await self._ask_turn(turn)
            case Move.ANEW:
                self._state = dataclasses.replace(self._state, turn=None)
                self._show(quota=None, next_check_at=None, step="its turn at the CA was over; asking for another one")
            case Move.UNASKED:
                self._note_line("quota", f"no answer since {turn.silent_since:%Y-%m-%d %H:%M} UTC; ordered without")
                await self._let_go()
                self._begin_order()
            case _:
                self._begin_order()

    def _begin_order(self) -> None:
        self._show(
            phase=Phase.ISSUING, step="getting the certificate", next_check_at=None, action_required=None, quota=None
        )

    async def _ask_turn(self, turn: QuotaTurn) -> None:
        question = QuotaQuestion(request=self._state.request, turn=turn)
        try:
            asked = await self._step(
                self._call(hands.ASK_TURN, question, f"ask for the turn of {self._hostname} at the CA")
            )
        except StepRefusedError as refused:
            self._note_line("quota", refused.finding.problem)
            asked = turns.unanswered(turn, workflow.now())
        now = self._state.turn
        if now is not None and not now.granted:  # a grant that came meanwhile stays
            self._state = dataclasses.replace(self._state, turn=asked)

    async def _let_go(self) -> None:
        """Give the turn back; nothing is ordered with it."""
        turn, self._state = self._state.turn, dataclasses.replace(self._state, turn=None)
        self._show(quota=None)
        if turn is None or not workflow.patched(_QUOTA):
            return
        try:
            await self._call(hands.WITHDRAW_TURN, turn, f"give the turn of {self._hostname} at the CA back")
        except StepRefusedError as refused:
            workflow.logger.warning("turn not given back", extra={"problem": refused.finding.problem})

    async def _turn_to_renew(self) -> QuotaTurn | None:
        """The grant for a forced renewal; None where it is made without one, since it must not wait for ever."""
        account, now = self._state.account, workflow.now()
        if not account or not workflow.patched(_QUOTA):
            return None
        lane = Lane.EXPIRING if self._level() >= Level.ALERT else Lane.RENEWAL
        turn = QuotaTurn(
            account=account,
            server=self._state.server,
            issuer=self._state.request.issuer,
            request_id=f"{workflow.info().workflow_id}/{workflow.uuid4()}",
            lane=lane,
            since=now,
            asked_at=now,
        )
        self._state = dataclasses.replace(self._state, turn=turn)
        await self._ask_turn(turn)
        if await self._granted_within(turns.LONGEST_WAIT[lane]):
            granted, self._state = self._state.turn, dataclasses.replace(self._state, turn=None)
            return granted
        self._note_line("quota", f"no turn within {turns.LONGEST_WAIT[lane].total_seconds() / 60:.0f} min; renewed so")
        await self._let_go()
        return None

    async def _granted_within(self, longest: timedelta) -> bool:
        def granted() -> bool:
            turn = self._state.turn
            return turn is not None and turn.granted

        if not granted() and self._state.turn is not None:
            self._show(step=turns.words(self._state.turn), quota=turns.place(self._state.turn))
            workflow.set_current_details(progress.markdown(self.status()))
            with contextlib.suppress(TimeoutError):
                await self._step(
                    workflow.wait_condition(granted, timeout=longest, timeout_summary="renew without a turn after this")
                )
            self._show(step="renewing", quota=None)
        return granted()

    @property
    def _waits_for_order(self) -> bool:
        return self._state.retry_at is not None and workflow.now() < self._state.retry_at

    async def _wait_for_customer(self, now: datetime, *, wished: bool) -> None:
        since = self._state.waiting_since or now
        # A check that somebody asked for does not use up the schedule.
        checks = self._state.checks if wished and self._state.checks else self._state.checks + 1
        self._state = dataclasses.replace(self._state, checks=checks, waiting_since=since)
        due = waiting.next_check(checks, since, now)
        if due is None:
            self._note_line("preflight", f"{checks} checks since {since:%Y-%m-%d %H:%M} UTC, then suspended")
            self._state = progress.suspended(self._state, "It did not become ready within seven days.")
            return
        if waiting.reminder_due(self._state.reminders, since, now):
            self._state = dataclasses.replace(self._state, reminders=self._state.reminders + 1)
            self._note_line("reminder", f"still waiting; suspended at {waiting.ends_at(since):%Y-%m-%d %H:%M} UTC")
        due += (due - now) * (workflow.random().random() * 0.02)  # thousands must not look at the same instant
        todo = self._status.action_required
        self._show(step="waiting for the customer" if todo else "waiting for what the findings name", next_check_at=due)
        await self._rest(due, f"until the next look whether {self._hostname} is ready")

    async def _issue(self) -> None:
        turn = self._state.turn
        self._granted = turn if turn is not None and turn.granted else None
        # from here on there is something to undo
        self._state = dataclasses.replace(self._state, applied=True, turn=None)
        self._show(certificate=CertificateStatus.PENDING, step="getting the certificate")
        self._publish()  # this may take an hour; what follows takes seconds
        request = self._state.request
        result = await self._child(
            CertificateIssuance.run,
            names.certificate_id(request.gateway.namespace, names.certificate_name(self._hostname)),
            f"certificate for {', '.join(request.hostnames)}",
            IssuanceResult,
        )
        self._granted = None
        if isinstance(result, findings.Finding):
            result = IssuanceResult(ready=False, findings=(result,))
        self._note(*result.evidence)
        if any(one.code == findings.QUOTA_TURN_OVER.code for one in result.findings):
            self._note_line("quota", result.findings[0].problem)
            self._show(phase=Phase.PREFLIGHT, certificate=CertificateStatus.NONE, step="asking for another turn")
            return
        if not result.ready or result.secret is None:
            self._note_line("certificate", result.findings[0].problem if result.findings else "nothing came of it")
            self._show(certificate=CertificateStatus.FAILED, order=result.order)
            await self._failed(
                Phase.PREFLIGHT, result.findings, "the certificate was not issued", soon=result.cause_seen
            )
            return
        self._note_line(
            "certificate", f"{result.secret.fingerprint} until {result.secret.not_after:%Y-%m-%d %H:%M} UTC"
        )
        self._state = dataclasses.replace(self._state, failures=0, failed_at=None, retry_at=None)
        self._show(
            phase=Phase.BINDING,
            certificate=CertificateStatus.ISSUED,
            secret=result.secret,
            renewal_at=result.renewal_at,
            order=result.order,
            findings=(),
            step="putting the certificate on the gateway",
        )

    async def _bind(self) -> None:
        wanted = self._checks_wanted
        self._state = dataclasses.replace(self._state, bound=True)
        self._show(step="putting the certificate on the gateway and looking at every address", next_check_at=None)
        request = self._state.request
        result = await self._child(
            GatewayBinding.run,
            names.gateway_id(request.gateway.namespace, names.gateway_name(self._hostname)),
            f"bind {self._hostname} and see it served",
            BindingResult,
        )
        self._checks_done = max(self._checks_done, wanted)
        if isinstance(result, findings.Finding):
            result = BindingResult(bound=False, findings=(result,))
        if not result.bound or result.edge is None:
            served = result.edge.served if result.edge else ()
            self._note_line("edge", result.findings[0].problem if result.findings else "not served")
            self._show(serving=ServingStatus.NONE, served=served)
            gone = any(item.code == findings.SECRET_MISSING.code for item in result.findings)
            if gone:  # what is counted from here on are orders
                self._state = dataclasses.replace(self._state, failures=0)
            await self._failed(Phase.PREFLIGHT if gone else Phase.BINDING, result.findings, "the edge did not serve it")
            return
        now = workflow.now()
        self._state = dataclasses.replace(self._state, failures=0, failed_at=None, retry_at=None)
        self._note_line("edge", _served(result.edge.served))
        self._show(
            phase=Phase.ACTIVE,
            certificate=CertificateStatus.VALID,
            serving=ServingStatus.SERVED,
            served=result.edge.served,
            findings=(),
            active_at=self._status.active_at or now,
            next_check_at=self._renewal_due(),
            step="active",
        )
        self._cycle_over = True

    async def _failed(
        self, phase: Phase, found: tuple[findings.Finding, ...], step: str, *, soon: bool = False
    ) -> None:
        """Wait before the step is made again; suspended when it has failed too often."""
        now = workflow.now()
        failures = self._state.failures + 1
        binding = phase is Phase.BINDING
        retry_at = pacing.next_binding(failures, now) if binding else pacing.next_attempt(failures, now, soon=soon)
        self._state = dataclasses.replace(self._state, failures=failures, failed_at=now, retry_at=retry_at)
        self._show(phase=phase, findings=found)
        if retry_at is None:
            self._state = progress.suspended(self._state, f"Tried {failures} times in a row: {step}.")
            return
        self._show(step=f"{step}; it is tried again")
        await self._wait_to_retry(retry_at)

    async def _wait_to_retry(self, retry_at: datetime) -> None:
        self._show(next_check_at=retry_at)
        await self._rest(retry_at, f"until the next attempt for {self._hostname}")

    def _begin_again(self) -> None:
        """Out of suspension; a certificate that is there is only bound."""
        self._state = dataclasses.replace(self._state, checks=0, waiting_since=None, reminders=0, retry_at=None)
        issued = self._status.certificate is CertificateStatus.ISSUED and self._status.secret is not None
        self._show(phase=Phase.BINDING if issued else Phase.PREFLIGHT, step="looking again", next_check_at=None)

    # --- remedies -------------------------------------------------------------------------------------------------

    async def _mend(self) -> MendReport:
        """Do what is safe about the cause; what was done is evidence. Where nobody can, that is said."""
        wanted = self._fixes_wanted
        try:
            report = await once(
                hands.MEND_CERTIFICATE,
                self._target(),
                summary=f"do what is safe about what keeps {self._hostname}",
                retry=timeouts.WINDOWS[0],  # whoever asked waits for an answer
                tenant=self._state.request.tenant,
            )
            self._note(*report.evidence)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise asyncio.CancelledError from error
            report = MendReport()
            self._note_line("fix", f"not fixed: {words(error)}")
        self._fixes_done = max(self._fixes_done, wanted)
        return report

    async def _mend_beside(self) -> None:
        """While a step is under way, which goes on by itself once its way is free."""
        report = await self._mend()
        left = findings.errors(report.findings)
        if report.evidence and self._phase in (Phase.ISSUING, Phase.RENEWING):
            self._standstill = Standstill(cause=left[0], since=workflow.now()) if left else None
        workflow.set_current_details(progress.markdown(self.status()))

    async def _mend_and_look(self) -> None:
        """Between steps; the look that follows tells whether it helped."""
        report = await self._mend()
        if self._phase is Phase.ACTIVE and report.renewal:
            self._renewals_wanted += 1
        elif self._phase is Phase.ACTIVE and report.issuing:
            self._wake = Wake(reason="an issuance that was stuck goes on", at=workflow.now())
        self._checks_wanted += 1

    # --- an active domain -----------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Sleep until the renewal is due, or somebody wishes for something."""
        due = self._status.next_check_at or self._renewal_due()
        stale = self._status.serving is not ServingStatus.SERVED or self._astray
        what = "the next look at the edge" if stale else "the renewal is due"
        await self._rest(due, f"{self._hostname}: until {what}")
        if self._cancel:
            raise _StoppedError
        secret = self._status.secret
        wake, self._wake = self._wake, None
        if self._renewals_wanted > self._renewals_done:
            await self._renew(force=True)
        elif wake is not None:
            self._note_line("review", wake.reason)
            due_now = secret is None or workflow.now() >= escalation.renewal_time(secret, self._status.renewal_at)
            same = bool(wake.fingerprint) and secret is not None and wake.fingerprint == secret.fingerprint
            if wake.renewing and not same and wake.fingerprint == self._status.previous_fingerprint:
                pass  # what the review saw being replaced is replaced by now
            elif same and not due_now and not wake.renewing:
                await self._verify()
            else:
                await self._renew(force=False)
        elif self._checks_wanted > self._checks_done:
            await self._verify()
        elif due is not None and workflow.now() >= due:
            if stale and not self._overdue():
                await self._verify()
            else:
                await self._renew(force=self._level() >= Level.ALERT)

    async def _renew(self, *, force: bool) -> None:
        """See one renewal through: one activity, so that a renewal is few events."""
        renewals, checks = self._renewals_wanted, self._checks_wanted
        before = self._status.secret
        self._show(phase=Phase.RENEWING, certificate=CertificateStatus.RENEWING, step="renewing")
        request = RenewalRequest(
            request=self._state.request,
            current_fingerprint=before.fingerprint if before else "",
            force=force,
            turn=await self._turn_to_renew() if force else None,
            account=self._state.account,
        )
        edge: EdgeReport | None = None
        try:
            result = await self._step(
                self._call(
                    hands.SEE_RENEWAL_THROUGH,
                    request,
                    f"{'renew' if force else 'see the renewal of'} {self._hostname} and see it served",
                    priority=queues.PRIORITY_RENEWAL,
                )
            )
            issuance, edge = result.issuance, result.edge
        except StepRefusedError as refused:
            issuance = IssuanceResult(ready=False, findings=(refused.finding,))
        self._checks_done = max(self._checks_done, checks)
        self._note(*issuance.evidence[-3:])
        secret = issuance.secret
        if not issuance.ready or secret is None or (before and secret.fingerprint == before.fingerprint):
            self._renewals_done = max(self._renewals_done, renewals)
            self._not_renewed(issuance)
            return
        # Whoever wished for a renewal meanwhile, or saw one come, has this one.
        self._renewals_done, self._wake = self._renewals_wanted, None
        self._note_line("renewal", f"{secret.fingerprint} until {secret.not_after:%Y-%m-%d %H:%M} UTC")
        self._show(
            phase=Phase.ACTIVE,
            certificate=CertificateStatus.VALID,
            secret=secret,
            previous_fingerprint=before.fingerprint if before else "",
            renewal_at=issuance.renewal_at,
            order=issuance.order or self._status.order,
            renewals=self._status.renewals + 1,
            findings=(),
            step="active",
        )
        self._show(next_check_at=self._renewal_due())
        if edge is not None:
            self._take_edge(edge)
        else:
            self._show(serving=ServingStatus.UNKNOWN, next_check_at=workflow.now() + _STALE_LOOKS)
        self._cycle_over = True

    def _not_renewed(self, issuance: IssuanceResult) -> None:
        """Nothing new came: how bad that is goes by the fraction of the life that is left."""
        now = workflow.now()
        secret = self._status.secret
        if secret is None:
            self._show(phase=Phase.ACTIVE, findings=issuance.findings, next_check_at=now + _STALE_LOOKS, step="active")
            return
        seen = escalation.escalate(secret, self._status.renewal_at, now, hostname=self._hostname)
        said = (*seen.findings, *issuance.findings)
        self._note_line("renewal", said[0].problem if said else "nothing new yet")
        self._show(
            phase=Phase.ACTIVE,
            certificate=CertificateStatus.EXPIRED if seen.level is Level.EXPIRED else CertificateStatus.VALID,
            findings=said,
            next_check_at=max(min(seen.look_at, issuance.look_at or seen.look_at), now),
            step="active, but its certificate was not renewed" if seen.level > Level.WAIT else "active",
        )

    async def _verify(self) -> None:
        """Look at the edge again, and where the names point by now."""
        checks = self._checks_wanted
        self._show(step="looking at every address of the gateway")
        target = dataclasses.replace(self._target(), with_routing=True)
        try:
            edge = await self._step(
                self._call(hands.VERIFY_EDGE, target, f"see {self._hostname} served on every address")
            )
            self._show(step="active")
            self._take_edge(edge)
            self._take_routing(edge)
        except StepRefusedError as refused:
            self._show(
                step="active",
                serving=ServingStatus.UNKNOWN,
                findings=(refused.finding,),
                next_check_at=workflow.now() + _STALE_LOOKS,
            )
        self._checks_done = max(self._checks_done, checks)

    def _take_edge(self, edge: EdgeReport) -> None:
        """Take over what the edge serves."""
        before = self._status.serving
        if edge.serving:
            if before is not ServingStatus.SERVED:
                self._note_line("edge", _served(edge.served))
                self._show(next_check_at=self._renewal_due())
            kept = self._status.findings if self._overdue() else ()
            self._show(serving=ServingStatus.SERVED, served=edge.served, findings=kept)
            return
        good = [one for one in edge.served if not one.problem]
        serving = ServingStatus.PARTLY if good else ServingStatus.STALE if edge.served else ServingStatus.UNKNOWN
        self._note_line("edge", edge.findings[0].problem if edge.findings else f"serving is {serving.value}")
        self._show(
            serving=serving,
            served=edge.served,
            findings=edge.findings,
            next_check_at=workflow.now() + _STALE_LOOKS,
            step="active, but the edge does not serve it everywhere",
        )

    def _take_routing(self, edge: EdgeReport) -> None:
        """Take over where the names point; a customer may have moved one of them away."""
        if edge.routing is None:
            return
        if edge.routing is not self._status.routing:
            said = edge.routing_findings[0].problem if edge.routing_findings else f"routing is {edge.routing.value}"
            self._note_line("DNS", said)
        back = edge.routing is RoutingStatus.POINTED and self._astray
        self._show(
            routing=edge.routing,
            action_required=edge.action_required,
            findings=(*edge.routing_findings, *self._status.findings),
        )
        if not edge.serving:
            return
        if self._astray:
            self._show(step="active, but not every name is known to point here")
        due = self._renewal_due()
        if due is None or self._overdue() or not (self._astray or back):
            return  # when it is looked at next is said already
        self._show(next_check_at=min(due, workflow.now() + _ASTRAY_LOOKS) if self._astray else due)

    @property
    def _astray(self) -> bool:
        """Whether an active domain's names are not known to point here."""
        return self._status.routing is not RoutingStatus.POINTED

    def _renewal_due(self) -> datetime | None:
        secret: CertificateFacts | None = self._status.secret
        return escalation.renewal_time(secret, self._status.renewal_at) if secret else None

    def _overdue(self) -> bool:
        due = self._renewal_due()
        return due is not None and workflow.now() >= due

    def _level(self) -> Level:
        secret = self._status.secret
        if secret is None:
            return Level.WAIT
        return escalation.escalate(secret, self._status.renewal_at, workflow.now(), hostname=self._hostname).level

    # --- the end --------------------------------------------------------------------------------------------------

    async def _retire(self) -> None:
        """Take away what was made, in reverse order; what cannot be undone is said."""
        self._show(phase=Phase.RETIRING, step="taking away what was made", next_check_at=None, action_required=None)
        self._hindrance = None
        left: list[findings.Finding] = []
        await self._let_go()
        target = self._target()
        for made, hand, summary in (
            (self._state.bound, hands.UNBIND_GATEWAY, f"take {self._hostname} off the gateway"),
            (self._state.applied, hands.REMOVE_CERTIFICATE, f"take the certificate of {self._hostname} away"),
        ):
            if not made:
                continue
            try:
                cleanup = await self._call(hand, target, summary)
                self._note_line("undone", ", ".join(cleanup.removed) or "nothing was left")
            except StepRefusedError as refused:
                left.append(self._left(refused))
        if self._state.request.hostnames[1:]:
            try:
                await self._call(hands.RELEASE_NAMES, self._reservation(), "let the further names go")
            except StepRefusedError as refused:
                left.append(self._left(refused))
        self._state = dataclasses.replace(self._state, reserved=False, applied=False, bound=False)
        self._show(
            phase=Phase.RETIRED,
            routing=RoutingStatus.UNKNOWN,
            certificate=CertificateStatus.NONE,
            serving=ServingStatus.NONE,
            findings=tuple(left),
            renewal_at=None,
            step="retired",
        )

    def _left(self, refused: StepRefusedError) -> findings.Finding:
        return findings.UNDO_INCOMPLETE.found(
            subject=self._hostname, problem=refused.finding.problem, fix=refused.finding.fix
        )

    # --- how a step is made ---------------------------------------------------------------------------------------

    async def _step(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result; where the domain is to end meanwhile, the work is cancelled and waited for."""
        task = asyncio.ensure_future(work)
        mending: asyncio.Task[None] | None = None
        told = False  # not task.cancelling(): the SDK sets that back while it waits for a cancelled call to end

        def to_be_mended() -> bool:
            wished = self._fixes_wanted > self._fixes_done and self._phase in _MENDED_BESIDE
            return wished and not self._cancel and not task.done() and (mending is None or mending.done())

        def over() -> bool:
            return task.done() and (mending is None or mending.done())

        def something_to_do() -> bool:
            return over() or (self._cancel and not told) or to_be_mended()

        while not over():
            try:
                await workflow.wait_condition(something_to_do)
            except asyncio.CancelledError:
                self._cancel = True
            if self._cancel and not told:
                told = True
                task.cancel()
                if mending is not None:
                    mending.cancel()
            elif to_be_mended():
                mending = asyncio.ensure_future(self._mend_beside())
        self._standstill = None
        if mending is not None and not mending.cancelled():
            mending.result()
        if self._cancel:
            if not task.cancelled():
                task.exception()  # it is of no interest any more, and must count as seen
            raise _StoppedError
        return task.result()

    async def _call(
        self, hand: Hand[A, R], argument: A, summary: str, *, priority: int = queues.PRIORITY_ONBOARDING
    ) -> R:
        return await call(
            hand,
            argument,
            summary=summary,
            subject=self._hostname,
            tell=self._tell,
            tenant=self._state.request.tenant,
            priority=priority,
        )

    async def _child(self, run: Any, child_id: str, summary: str, gives: type[T]) -> T | findings.Finding:
        """The child's result, or the finding of what became of it. A closing parent lets it undo what it did."""
        workflow.set_current_details(progress.markdown(self.status()))
        try:
            return await self._step(self._started(run, child_id, summary, gives))
        except ChildWorkflowError as error:
            return findings.STEP_FAILED.found(
                subject=self._hostname,
                problem=f"It ended without a result: {summary}. {words(error)}",
                fix="Look at the workflow's history, then ask for a check.",
            )

    async def _started(self, run: Any, child_id: str, summary: str, gives: type[T]) -> T:
        pause = timeouts.CHILD_BUSY
        while True:
            try:
                result: T = await workflow.execute_child_workflow(
                    run,
                    self._target(),
                    id=child_id,
                    result_type=gives,
                    cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
                    parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
                    static_summary=summary,
                    priority=Priority(
                        priority_key=queues.PRIORITY_ONBOARDING, fairness_key=self._state.request.tenant[:64]
                    ),
                )
            except WorkflowAlreadyStartedError:
                await workflow.sleep(pause, summary="until an earlier attempt is undone")
                pause = min(pause * 2, timeouts.CHILD_BUSY_LONGEST)
            except (ChildWorkflowError, CancelledError) as error:
                if is_cancelled_exception(error) and self._cancel:
                    raise asyncio.CancelledError from error
                raise
            else:
                return result

    async def _rest(self, until: datetime | None, summary: str) -> None:
        """Until then, or until somebody wishes for something. A new run begins here, and nowhere else."""
        if self._wished():
            return
        await self._begin_new_run_if_due()
        self._publish()
        now = workflow.now()
        if self._wished() or (until is not None and until <= now):
            return
        self._idle = True
        try:
            await workflow.wait_condition(
                lambda: self._wished() or self._nudged,
                timeout=until - now if until is not None else None,
                timeout_summary=summary,
            )
        except TimeoutError:
            return
        except asyncio.CancelledError:
            self._cancel = True
        finally:
            self._idle = False
        if self._cancel:
            raise _StoppedError
        if self._nudged and not self._wished():
            await self._rest(until, summary)

    def _wished(self) -> bool:
        return (
            self._cancel
            or self._checks_wanted > self._checks_done
            or self._renewals_wanted > self._renewals_done
            or self._fixes_wanted > self._fixes_done
            or self._wake is not None
            or (self._turn_heard and self._state.turn is not None and self._phase is Phase.PREFLIGHT)
        )

    async def _begin_new_run_if_due(self) -> None:
        info = workflow.info()
        changed = info.is_target_worker_deployment_version_changed()
        if not (self._cycle_over or self._nudged or changed or info.is_continue_as_new_suggested()):
            return
        await workflow.wait_condition(workflow.all_handlers_finished)
        if not self._wished():
            self._begin_new_run()

    def _begin_new_run(self) -> NoReturn:
        workflow.continue_as_new(
            self._state,
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(_ATTRIBUTES[name], value)
                    for name, value in self._attributes()
                    if value is not None
                ]
            ),
            initial_versioning_behavior=(
                ContinueAsNewVersioningBehavior.AUTO_UPGRADE
                if workflow.info().get_current_deployment_version() is not None
                else None
            ),
        )

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def _status(self) -> DomainStatus:
        return self._state.status

    @property
    def _phase(self) -> Phase:
        return self._state.status.phase

    @property
    def _ended(self) -> bool:
        return self._phase in progress.ENDED

    @property
    def _hostname(self) -> str:
        return self._state.request.hostname

    def _target(self) -> CertificateTarget:
        return CertificateTarget(request=self._state.request, turn=self._granted)

    def _reservation(self) -> Reservation:
        request = self._state.request
        return Reservation(tenant=request.tenant, owner=workflow.info().workflow_id, hostnames=request.hostnames[1:])

    def _show(self, **changes: Any) -> None:
        self._state = progress.shown(self._state, **changes)

    def _note(self, *lines: Observation) -> None:
        self._state = progress.noted(self._state, *lines)

    def _note_line(self, step: str, detail: str) -> None:
        self._note(Observation(at=workflow.now(), step=step, detail=detail))

    async def _tell(self, hindrance: Hindrance) -> None:
        self._hear(hindrance)

    def _hear(self, hindrance: Hindrance) -> None:
        was, self._hindrance = self._hindrance, hindrance if hindrance.problem else None
        if self._hindrance is not None and was is None:
            self._note_line("surroundings", f"{hindrance.step}: {hindrance.problem}")
        elif self._hindrance is None and was is not None and was.since is not None:
            lasted = (workflow.now() - was.since).total_seconds()
            self._note_line("surroundings", f"answer again after {lasted:.0f} s: {was.step}")
        workflow.set_current_details(progress.markdown(self.status()))

    def _hear_standstill(self, standstill: Standstill) -> None:
        was, cause = self._standstill, standstill.cause
        before = was.cause if was is not None else None
        self._standstill = standstill if cause is not None else None
        if cause is not None and (before is None or (before.code, before.subject) != (cause.code, cause.subject)):
            self._note_line("nothing moves", f"{cause.code} {cause.subject}: {cause.problem}")
        elif cause is None and before is not None:
            self._note_line("it moves again", before.subject)
        workflow.set_current_details(progress.markdown(self.status()))

    def _attributes(self) -> tuple[tuple[str, Any], ...]:
        status = self._status
        todo: ActionRequired | None = status.action_required
        return (
            (queues.TENANT.name, status.tenant),
            (queues.DOMAIN_PHASE.name, status.phase.value),
            (queues.ROUTING_STATUS.name, status.routing.value),
            (queues.CERTIFICATE_STATUS.name, status.certificate.value),
            (queues.SERVING_STATUS.name, status.serving.value),
            (queues.ACTION_REQUIRED.name, todo is not None),
            (queues.ISSUER_NAME.name, self._state.request.issuer.name),
            (
                queues.GATEWAY.name,
                f"{self._state.request.gateway.namespace}/{self._state.request.gateway.service}",
            ),
            (queues.NOT_AFTER.name, status.secret.not_after if status.secret else None),
            (queues.NEXT_CHECK_AT.name, status.next_check_at),
        )

    def _publish(self) -> None:
        """Show the state on Temporal's page, and in lists where a list would change: each change is an event."""
        workflow.set_current_details(progress.markdown(self.status()))
        now = self._attributes()
        before = self._published
        # The next look is told with whatever else changes, and by itself only where it is hours away.
        if before is not None and now[:-1] == before[:-1] and not self._far(before[-1][1], now[-1][1]):
            return
        known = dict(before or ())
        changed = [(name, value) for name, value in now if name not in known or known[name] != value]
        workflow.upsert_search_attributes(
            [
                _ATTRIBUTES[name].value_unset() if value is None else _ATTRIBUTES[name].value_set(value)
                for name, value in changed
                if value is not None or known.get(name) is not None
            ]
        )
        self._published = now

    @staticmethod
    def _far(before: datetime | None, now: datetime | None) -> bool:
        if before is None or now is None:
            return before is not now
        return abs(now - before) >= _TOLD_AFRESH


def _served(served: tuple[ServedAt, ...]) -> str:
    """What the edge was seen to serve, in a line."""
    addresses = sorted({one.address for one in served})
    fingerprints = sorted({one.fingerprint for one in served})
    return f"{', '.join(addresses)} serve {', '.join(fingerprints)}"
