"""`GatewayBinding`: put the certificate on the gateway, and keep it there only if the edge proves it.

Bound only after the Secret parses, matches its key and covers the names; undone where the verification fails or the
workflow is cancelled, so that other domains' traffic never sees half a configuration.
"""

from __future__ import annotations

import asyncio
import dataclasses

from temporalio import workflow
from temporalio.exceptions import is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.edge import EdgeActivities
    from activities.gateways import GatewayActivities
    from lifecycle import findings
    from lifecycle.steps import BindingResult, CertificateTarget
    from workflows import timeouts


@workflow.defn
class GatewayBinding:
    """One binding of one domain to its gateway."""

    @workflow.run
    async def run(self, target: CertificateTarget) -> BindingResult:
        """What the edge serves, or the findings that say why nothing is bound."""
        hostname = target.request.hostname
        inspected = await workflow.execute_activity_method(
            GatewayActivities.inspect_secret,
            target,
            start_to_close_timeout=timeouts.CALL,
            retry_policy=timeouts.SURROUNDINGS,
            summary=f"look whether the Secret fits {hostname}",
        )
        if not inspected.ready:
            return BindingResult(bound=False, findings=inspected.findings)
        try:
            await workflow.execute_activity_method(
                GatewayActivities.bind_gateway,
                target,
                start_to_close_timeout=timeouts.CALL,
                retry_policy=timeouts.SURROUNDINGS,
                summary=f"apply Gateway and routes of {hostname}",
            )
            edge = await workflow.execute_activity_method(
                EdgeActivities.verify_edge,
                target,
                start_to_close_timeout=timeouts.VERIFICATION,
                heartbeat_timeout=timeouts.HEARTBEAT,
                retry_policy=timeouts.SURROUNDINGS,
                summary=f"see {hostname} served on every address",
            )
        except BaseException as error:
            if is_cancelled_exception(error):
                await asyncio.shield(self._undo(target))
            raise
        if edge.serving:
            return BindingResult(bound=True, edge=edge)
        await self._undo(target)
        undone = findings.GATEWAY_BINDING_UNDONE.found(
            subject=hostname,
            problem="The edge did not serve the certificate as it should; port 443 and the routes were taken away.",
            fix="Mend what the other findings name, then ask for a check.",
        )
        said = (*edge.findings, undone)
        return BindingResult(bound=False, edge=dataclasses.replace(edge, findings=()), findings=said)

    async def _undo(self, target: CertificateTarget) -> None:
        await workflow.execute_activity_method(
            GatewayActivities.unbind_gateway,
            target,
            start_to_close_timeout=timeouts.CALL,
            retry_policy=timeouts.SURROUNDINGS,
            summary="take port 443 and the routes away again",
        )
