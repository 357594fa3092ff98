"""`CertificateIssuance`: apply the Certificate, route its challenges, wait until the Secret has it.

Its undo is its own: failed or cancelled in the middle, it takes away what it made, so that cert-manager does not go on
ordering by itself. A failure is a result with findings, since the parent decides what follows.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.common import VersioningBehavior

with workflow.unsafe.imports_passed_through():
    from lifecycle.steps import CertificateTarget, Cleanup, IssuanceResult
    from workflows import hands
    from workflows.calling import StepRefusedError, call, shielded, tell_parent


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class CertificateIssuance:
    """One issuance of one domain's certificate."""

    @workflow.run
    async def run(self, target: CertificateTarget) -> IssuanceResult:
        """The Secret's facts and evidence, or the findings that say why there is none."""
        request = target.request
        names = ", ".join(request.hostnames)
        workflow.set_current_details(f"Issue a certificate for {names} by {request.issuer.name}.")
        try:
            issued = await call(
                hands.ISSUE_CERTIFICATE,
                target,
                summary=f"apply the Certificate for {names}, route its challenges and wait for it",
                subject=request.hostname,
                tell=tell_parent,
                tenant=request.tenant,
            )
        except StepRefusedError as refused:
            issued = IssuanceResult(ready=False, findings=(refused.finding,))
        except asyncio.CancelledError:
            await self._undo(target, "take away what the cancelled issuance made")
            raise
        if not issued.ready:
            await self._undo(target, "take away what the failed issuance made")
        return issued

    async def _undo(self, target: CertificateTarget, summary: str) -> None:
        if target.previous_fingerprint:
            return  # the domain lives on with the certificate it has
        removal = call(
            hands.REMOVE_CERTIFICATE,
            target,
            summary=summary,
            subject=target.request.hostname,
            tell=tell_parent,
            tenant=target.request.tenant,
        )
        try:
            gone: Cleanup = await shielded(removal)
            workflow.logger.info("undone", extra={"removed": gone.removed})
        except StepRefusedError as refused:
            # The parent takes the same away once more when the domain ends, and says there what is left.
            workflow.logger.error("not undone", extra={"problem": refused.finding.problem})
