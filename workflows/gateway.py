"""`GatewayBinding`: put the certificate on the gateway, and keep it there only if the edge proves it.

Bound only after the Secret parses, matches its key and covers the names; undone where the verification fails or the
workflow is cancelled, so that other domains' traffic never sees half a configuration.
"""

from __future__ import annotations

import asyncio
import dataclasses

from temporalio import workflow
from temporalio.common import VersioningBehavior

with workflow.unsafe.imports_passed_through():
    from lifecycle import findings
    from lifecycle.steps import BindingResult, CertificateTarget
    from workflows import hands
    from workflows.calling import StepRefusedError, call, shielded, tell_parent
    from workflows.hands import Hand, R


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class GatewayBinding:
    """One binding of one domain to its gateway."""

    @workflow.run
    async def run(self, target: CertificateTarget) -> BindingResult:
        """What the edge serves, or the findings that say why nothing is bound."""
        hostname = target.request.hostname
        workflow.set_current_details(f"Bind {hostname} to Gateway workload {target.request.gateway.service}.")
        try:
            bound = await self._call(
                hands.BIND_GATEWAY, target, f"apply Gateway and routes of {hostname}, if its Secret fits"
            )
            if not bound.bound:
                return bound  # it was decided before anything was applied
            edge = await self._call(hands.VERIFY_EDGE, target, f"see {hostname} served on every address")
        except StepRefusedError as refused:
            return await self._undone(target, BindingResult(bound=False, findings=(refused.finding,)))
        except asyncio.CancelledError:
            await self._undone(target, BindingResult(bound=False))
            raise
        if edge.serving:
            return BindingResult(bound=True, edge=edge)
        seen = dataclasses.replace(edge, findings=())
        return await self._undone(target, BindingResult(bound=False, edge=seen, findings=edge.findings))

    async def _undone(self, target: CertificateTarget, result: BindingResult) -> BindingResult:
        """The result with the finding that says what was taken away."""
        hostname = target.request.hostname
        try:
            await shielded(self._call(hands.UNBIND_GATEWAY, target, "take port 443 and the routes away again"))
        except StepRefusedError as refused:
            left = findings.UNDO_INCOMPLETE.found(
                subject=hostname, problem=refused.finding.problem, fix=refused.finding.fix
            )
            return dataclasses.replace(result, bound=False, findings=(*result.findings, left))
        undone = findings.GATEWAY_BINDING_UNDONE.found(
            subject=hostname,
            problem="The edge did not serve the certificate as it should; port 443 and the routes were taken away.",
            fix="Mend what the other findings name, then ask for a check.",
        )
        return dataclasses.replace(result, bound=False, findings=(*result.findings, undone))

    async def _call(self, hand: Hand[CertificateTarget, R], target: CertificateTarget, summary: str) -> R:
        request = target.request
        return await call(
            hand, target, summary=summary, subject=request.hostname, tell=tell_parent, tenant=request.tenant
        )
