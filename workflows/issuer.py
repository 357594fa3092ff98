"""`IssuerSetup`: an issuer is applied and Ready, or the reason is said in words. `IssuerInspection` only looks."""

from __future__ import annotations

import dataclasses

from temporalio import workflow
from temporalio.common import VersioningBehavior
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from lifecycle import findings, progress
    from lifecycle.steps import Hindrance, IssuerOverview, IssuerQuestion, IssuerRequest, IssuerStatus
    from workflows import hands
    from workflows.calling import StepRefusedError, call


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class IssuerSetup:
    """One issuer. Asked again it applies the same and finds it Ready."""

    @workflow.init
    def __init__(self, request: IssuerRequest) -> None:
        self._status = IssuerStatus(ref=request.ref, step="requested", ready=False)
        self._hindrance: Hindrance | None = None

    @workflow.run
    async def run(self, request: IssuerRequest) -> IssuerStatus:
        """The issuer's state at the end."""
        name = f"{request.ref.kind.value} {request.ref.name}"
        try:
            for hand, summary in (
                (hands.APPLY_ISSUER, f"apply {name}"),
                (hands.AWAIT_ISSUER, f"wait until {name} is ready{_account(request)}"),
            ):
                self._status = dataclasses.replace(self._status, step=summary)
                workflow.set_current_details(f"**{name}**: {summary}")
                warned = self._status.findings
                answer = await call(hand, request, summary=summary, subject=name, tell=self._tell)
                self._status = dataclasses.replace(answer, findings=(*warned, *answer.findings))
                if findings.errors(self._status.findings):
                    break
        except StepRefusedError as refused:
            self._status = dataclasses.replace(self._status, ready=False, findings=(refused.finding,))
        workflow.set_current_details(f"**{name}**: {'ready' if self._status.ready else 'not ready'}")
        return self._status

    @workflow.query
    def status(self) -> IssuerStatus:
        """The state now; says so where the surroundings are broken."""
        if self._hindrance is None:
            return self._status
        found = progress.broken(self._status.ref.name, self._hindrance)
        return dataclasses.replace(self._status, findings=(found, *self._status.findings))

    async def _tell(self, hindrance: Hindrance) -> None:
        self._hindrance = hindrance if hindrance.problem else None


def _account(request: IssuerRequest) -> str:
    return " and its account registered" if request.server else ""


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class IssuerInspection:
    """What issuers say of themselves and can prove, as the worker sees them; asked by doors, which see no cluster."""

    @workflow.run
    async def run(self, question: IssuerQuestion) -> IssuerOverview:
        """The issuers. Raises ApplicationError where the cluster refuses, with the finding as its detail."""
        subject = question.ref.name if question.ref else "all issuers"
        try:
            return await call(hands.INSPECT_ISSUERS, question, summary=f"look at {subject}", subject=subject)
        except StepRefusedError as refused:
            raise ApplicationError(refused.finding.problem, refused.finding, type=refused.finding.title) from None
