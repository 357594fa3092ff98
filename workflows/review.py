"""`FleetReview`: one pass over all certificates; it wakes the domains that need something. Scheduled."""

from __future__ import annotations

from temporalio import workflow
from temporalio.common import VersioningBehavior

with workflow.unsafe.imports_passed_through():
    from lifecycle import queues
    from lifecycle.steps import FleetReviewReport, FleetReviewRequest
    from workflows import hands, timeouts
    from workflows.calling import once


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class FleetReview:
    """One pass. Where it fails the next one on the schedule does the work."""

    @workflow.run
    async def run(self, request: FleetReviewRequest) -> FleetReviewReport:
        """Counts, who was woken and the worst findings. Raises ActivityError where no pass was possible."""
        report = await once(
            hands.REVIEW_FLEET,
            request,
            summary="look at every certificate on three clocks and wake the domains that need something",
            retry=timeouts.THRICE,
            priority=queues.PRIORITY_REVIEW,
        )
        found = "\n".join(f"- {item.code} {item.subject}: {item.problem}" for item in report.findings)
        workflow.set_current_details(
            f"{report.certificates} certificates, {report.ours} ours, {report.due} due, {report.expired} expired, "
            f"{report.stale_at_edge} stale at the edge, {len(report.woken)} woken\n\n{found}"
        )
        return report
