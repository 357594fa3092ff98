"""`Backup`: taken, opened and compared, and only then the oldest are taken away. Scheduled."""

from __future__ import annotations

import dataclasses

from temporalio import workflow
from temporalio.common import VersioningBehavior

with workflow.unsafe.imports_passed_through():
    from lifecycle import findings
    from lifecycle.steps import BackupReport, BackupRequest
    from workflows import hands, timeouts
    from workflows.calling import once


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class Backup:
    """One backup. A failure fails the workflow, so that the schedule pauses and somebody looks."""

    @workflow.run
    async def run(self, request: BackupRequest) -> BackupReport:
        """What was written, how it was verified, what was removed. Raises ActivityError."""
        taken = await once(hands.TAKE_BACKUP, request, summary="write an encrypted backup", retry=timeouts.THRICE)
        if findings.errors(taken.findings):
            return taken
        verified = await once(
            hands.VERIFY_BACKUP, taken, summary=f"open {taken.name} and compare it", retry=timeouts.THRICE
        )
        workflow.set_current_details(f"{verified.name}: {verified.bytes} octets, {verified.verified_how}")
        if not verified.verified:
            return verified  # what cannot be opened replaces nothing
        pruned = await once(hands.PRUNE_BACKUPS, request, summary="take the oldest backups away", retry=timeouts.THRICE)
        return dataclasses.replace(verified, removed=pruned.removed, findings=(*verified.findings, *pruned.findings))
