"""`CertificateIssuance`: apply the Certificate, route its challenges, wait until the Secret has it.

Cancelled in the middle, it takes away what it made. A failure of the issuance is a result with findings, since the
parent decides what follows; only broken surroundings are exceptions.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.certificates import CertificateActivities
    from lifecycle.steps import CertificateTarget, IssuanceResult
    from workflows import timeouts


@workflow.defn
class CertificateIssuance:
    """One issuance of one domain's certificate."""

    @workflow.run
    async def run(self, target: CertificateTarget) -> IssuanceResult:
        """The Secret's facts and evidence, or the findings that say why there is none."""
        names = ", ".join(target.request.hostnames)
        try:
            await workflow.execute_activity_method(
                CertificateActivities.apply_certificate,
                target,
                start_to_close_timeout=timeouts.CALL,
                retry_policy=timeouts.SURROUNDINGS,
                summary=f"apply the Certificate for {names}",
            )
            return await workflow.execute_activity_method(
                CertificateActivities.await_certificate,
                target,
                start_to_close_timeout=timeouts.ISSUANCE,
                heartbeat_timeout=timeouts.HEARTBEAT,
                retry_policy=timeouts.SURROUNDINGS,
                summary=f"route the challenges of {names} and wait for the certificate",
            )
        except BaseException as error:
            if is_cancelled_exception(error) and not target.previous_fingerprint:
                await asyncio.shield(self._undo(target))
            raise

    async def _undo(self, target: CertificateTarget) -> None:
        await workflow.execute_activity_method(
            CertificateActivities.remove_certificate,
            target,
            start_to_close_timeout=timeouts.CALL,
            retry_policy=timeouts.SURROUNDINGS,
            summary="take away what the cancelled issuance made",
        )
