"""A workflow of the tests: one call of a watch that has a second."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from lifecycle.findings import Finding
    from lifecycle.steps import CertificateTarget
    from workflows import hands
    from workflows.calling import StepRefusedError, call


@workflow.defn
class Watching:
    """Calls `issue_certificate` with a limit of one second."""

    @workflow.run
    async def run(self, target: CertificateTarget) -> Finding | None:
        """The finding that the call ended with."""
        hand = dataclasses.replace(hands.ISSUE_CERTIFICATE, limit=timedelta(seconds=1))
        try:
            await call(hand, target, summary="wait for the certificate", subject=target.request.hostname)
        except StepRefusedError as refused:
            return refused.finding
        return None
