"""`PlatformInstallation`: cert-manager is there in the right version and proved to work, or nothing was changed.

Inspected first, refused with findings where it cannot be right; installed, upgraded, adopted or kept; proved by the
webhook's answer and by a canary certificate, which prove the network policies too. What this run changed is taken back
where the proof fails, the release by Helm. A second run finds the release as it should be and only proves it again.
"""

from __future__ import annotations

import asyncio
import dataclasses

from temporalio import workflow
from temporalio.common import VersioningBehavior

with workflow.unsafe.imports_passed_through():
    from lifecycle import additions, findings, progress
    from lifecycle.steps import (
        AdditionFacts,
        Hindrance,
        PlatformRequest,
        PlatformStatus,
        PlatformVerdict,
        ProofRequest,
        ReleaseFacts,
        RollbackRequest,
    )
    from workflows import hands
    from workflows.calling import CancelledLateError, StepRefusedError, call, shielded
    from workflows.hands import A, Hand, R


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class PlatformInstallation:
    """One run over one cluster."""

    @workflow.init
    def __init__(self, request: PlatformRequest) -> None:
        self._request = request
        self._status = PlatformStatus(cluster=request.cluster, step="requested", ready=False)
        self._hindrance: Hindrance | None = None
        self._undoing: AdditionFacts | None = None

    @workflow.run
    async def run(self, request: PlatformRequest) -> PlatformStatus:
        """The platform's state at the end."""
        try:
            await self._install()
        except StepRefusedError as refused:
            self._show(findings=(*self._status.findings, refused.finding))
            await self._take_back()
        except asyncio.CancelledError as cancelled:
            late = cancelled.result if isinstance(cancelled, CancelledLateError) else None
            if isinstance(late, ReleaseFacts):
                self._show(release=late)
            if isinstance(late, AdditionFacts):
                self._changed_beside(late)
            await self._take_back()
            raise
        self._show(step="ready" if self._status.ready else f"not ready: {self._status.step}")
        return self._status

    @workflow.query
    def status(self) -> PlatformStatus:
        """The state now; says so where the surroundings are broken."""
        if self._hindrance is None:
            return self._status
        found = progress.broken(self._request.cluster, self._hindrance)
        return dataclasses.replace(self._status, findings=(found, *self._status.findings))

    async def _install(self) -> None:
        request = self._request
        inspection = await self._call(
            hands.INSPECT_PLATFORM, request, f"look at versions, permissions and cert-manager of {request.cluster}"
        )
        self._show(inspection=inspection, findings=inspection.findings)
        if inspection.verdict is PlatformVerdict.REFUSE or request.dry_run:
            return
        if inspection.verdict in (PlatformVerdict.INSTALL, PlatformVerdict.UPGRADE):
            release = await self._call(
                hands.INSTALL_RELEASE,
                request,
                f"{inspection.verdict.value} cert-manager {request.version} by Helm".replace("  ", " "),
            )
            self._show(release=release)
        # one that is adopted may lie elsewhere
        namespace = inspection.namespace or request.namespace
        if additions.objects_asked_for(request):
            place = dataclasses.replace(request, namespace=namespace)
            changed = await self._call(hands.CHANGE_ADDITIONS, place, "bring or remove what was asked for beside it")
            self._changed_beside(changed)
            if findings.errors(changed.findings):
                await self._take_back()
                return
        proof = ProofRequest(namespace=namespace)
        for hand, summary in (
            (hands.PROVE_WEBHOOK, "wait for cert-manager's Pods and prove its webhook by a dry run"),
            (hands.PROVE_ISSUANCE, "prove issuance by a self-signed canary certificate"),
        ):
            proved = await self._call(hand, proof, summary)
            found = (*self._status.findings, *proved.findings)
            self._show(proofs=(*self._status.proofs, proved), findings=found)
            if findings.errors(proved.findings):
                await self._take_back()
                return
        self._show(ready=True)

    def _changed_beside(self, facts: AdditionFacts) -> None:
        self._undoing = facts
        self._show(additions=facts, findings=(*self._status.findings, *facts.findings))

    async def _take_back(self) -> None:
        """Take back what this run changed, and nothing else: the objects beside cert-manager, then its release."""
        if self._status.rolled_back:
            return
        removed = await self._take_back_additions()
        release = self._status.release
        if release is None or not release.changed:
            self._show(rolled_back=removed)
            return
        back = RollbackRequest(name=release.name, namespace=release.namespace, revision=release.previous_revision)
        what = f"roll back to revision {back.revision}" if back.revision else "uninstall, as it was not there before"
        try:
            await shielded(self._call(hands.ROLL_BACK_RELEASE, back, f"{release.name}: {what}"))
        except StepRefusedError as refused:
            left = findings.UNDO_INCOMPLETE.found(
                subject=f"release {release.namespace}/{release.name}",
                problem=refused.finding.problem,
                fix=f"helm history -n {release.namespace} {release.name}; then helm rollback or uninstall by hand",
            )
            self._show(findings=(*self._status.findings, left))
            return
        self._show(rolled_back=True)

    async def _take_back_additions(self) -> bool:
        """Whether something was removed; says what stays."""
        facts, self._undoing = self._undoing, None
        if facts is None:
            return False
        self._show(findings=(*self._status.findings, *additions.kept(facts)))
        if not additions.created(facts):
            return False
        try:
            await shielded(self._call(hands.TAKE_BACK_ADDITIONS, facts, "remove what this run made beside it"))
        except StepRefusedError as refused:
            left = findings.UNDO_INCOMPLETE.found(
                subject=f"objects beside cert-manager in namespace {facts.namespace}",
                problem=refused.finding.problem,
                fix="certwright platform install --no-network-policies --no-monitoring --no-dashboard",
            )
            self._show(findings=(*self._status.findings, left))
            return False
        return True

    async def _call(self, hand: Hand[A, R], argument: A, summary: str) -> R:
        self._show(step=summary)
        return await call(hand, argument, summary=summary, subject=self._request.cluster, tell=self._tell)

    async def _tell(self, hindrance: Hindrance) -> None:
        self._hindrance = hindrance if hindrance.problem else None

    def _show(self, **changes: object) -> None:
        self._status = dataclasses.replace(self._status, **changes)  # type: ignore[arg-type]
        found = "\n".join(f"- {item.code} {item.title}: {item.problem} {item.fix}" for item in self._status.findings)
        workflow.set_current_details(f"**{self._status.cluster}**: {self._status.step}\n\n{found}")
