"""`Restore`: the Secrets of a backup are put back, before any Certificate could ask for new ones."""

from __future__ import annotations

from temporalio import workflow
from temporalio.common import VersioningBehavior

with workflow.unsafe.imports_passed_through():
    from lifecycle.steps import RestoreReport, RestoreRequest
    from workflows import hands, timeouts
    from workflows.calling import once


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class Restore:
    """One restore; a second run finds the Secrets equal and changes nothing."""

    @workflow.run
    async def run(self, request: RestoreRequest) -> RestoreReport:
        """What was put back and what was skipped. Raises ActivityError."""
        into = request.into or "their own namespaces"
        report = await once(
            hands.RESTORE_BACKUP,
            request,
            summary=f"put the Secrets of {request.backup} back into {into}",
            retry=timeouts.THRICE,
        )
        workflow.set_current_details(
            f"{len(report.restored)} restored, {len(report.skipped)} skipped, "
            f"{'equal to the manifest' if report.equal else 'not equal to the manifest'}"
        )
        return report
