"""`IssuerSetup`: an issuer is applied and Ready, or the reason is said in words."""

from __future__ import annotations

import dataclasses

from temporalio import workflow
from temporalio.common import VersioningBehavior

with workflow.unsafe.imports_passed_through():
    from lifecycle import findings, progress
    from lifecycle.steps import Hindrance, IssuerRequest, IssuerStatus
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
                (hands.AWAIT_ISSUER, f"wait until {name} is ready and its account registered"),
            ):
                self._status = dataclasses.replace(self._status, step=summary)
                workflow.set_current_details(f"**{name}**: {summary}")
                self._status = await call(hand, request, summary=summary, subject=name, tell=self._tell)
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
