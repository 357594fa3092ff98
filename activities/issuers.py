"""Set an issuer up: apply it, and watch until cert-manager says that it is ready or why it is not.

Left out: what an issuer looks like (`lifecycle.manifests`) and what its words mean (`lifecycle.diagnosis`).
"""

from __future__ import annotations

import asyncio
import contextlib

from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from activities.attended import attended
from lifecycle import findings, manifests
from lifecycle.diagnosis import issuer_status, said
from lifecycle.domain import IssuerKind, IssuerRef
from lifecycle.findings import Finding, Handling
from lifecycle.manifests import FIELD_MANAGER
from lifecycle.platform import Permission, refused_permission
from lifecycle.steps import IssuerRequest, IssuerStatus

_CERT_MANAGER = "cert-manager.io/v1"
_LONGEST_SECONDS = 150.0
"""cert-manager tries again within two minutes where the CA does not answer; the activity's own limit is longer."""

_REFUSED = {400, 403, 422}
"""How the API server hands on what a validating webhook or the schema says."""


class IssuerActivities:
    """Activities on Issuers and ClusterIssuers, given the cluster's client."""

    def __init__(self, cluster: DynamicClient, *, longest_seconds: float = _LONGEST_SECONDS) -> None:
        self._cluster = cluster
        self._longest = longest_seconds

    @activity.defn
    async def apply_issuer(self, request: IssuerRequest) -> IssuerStatus:
        """Apply the issuer through cert-manager's webhook; fields that somebody else owns are not taken over.

        What cert-manager or the API server has against it is a finding. Raises ApplicationError.
        """
        ref, step = request.ref, "apply"
        found = await self._apply(request)
        if found is not None:
            return IssuerStatus(ref=ref, step=step, ready=False, findings=(found,))
        return IssuerStatus(ref=ref, step=step, ready=False)

    async def _apply(self, request: IssuerRequest) -> Finding | None:
        ref, manifest = request.ref, manifests.acme_issuer(request)
        action, subject = f"apply {ref.kind.value} {ref.name}", _subject(ref)
        permission = Permission("patch", "cert-manager.io", f"{ref.kind.value.lower()}s", ref.namespace)
        try:
            kind = await kubernetes.resource(self._cluster, _CERT_MANAGER, ref.kind.value)
        except ApplicationError as error:
            if error.type != "KindMissing":
                raise
            return findings.CERT_MANAGER_MISSING.found(
                subject=subject,
                problem=f"This cluster knows no {ref.kind.value}: cert-manager is not installed.",
                fix="certwright platform install, then apply the issuer again.",
            )
        async with kubernetes.answering(self._cluster, action, permission):
            try:
                await self._cluster.server_side_apply(
                    kind,
                    body=manifest,
                    namespace=ref.namespace or None,
                    field_manager=FIELD_MANAGER,
                    _request_timeout=kubernetes.CALL_SECONDS,
                )
            except DynamicApiError as error:
                refusal = str(error.summary())
                words = said(refusal)
                if error.status == 409:
                    return findings.FIELD_CONFLICT.found(
                        subject=subject,
                        problem=f"Somebody else manages fields of it: {words}",
                        fix="Name another issuer; or hand this one over by applying the same fields: "
                        f"kubectl apply --server-side --force-conflicts --field-manager={FIELD_MANAGER} -f FILE",
                    )
                if error.status == 404:
                    return findings.OBJECT_REJECTED.found(
                        subject=subject,
                        problem=f"Its namespace is not there: {words}",
                        fix=f"kubectl create namespace {ref.namespace}",
                    )
                if error.status in _REFUSED and refused_permission(refusal) is None:
                    return findings.ISSUER_CONFIGURATION_INVALID.found(
                        subject=subject, problem=words, fix="Correct the field that it names and apply it again."
                    )
                raise
        return None

    @activity.defn
    async def await_issuer(self, request: IssuerRequest) -> IssuerStatus:
        """Watch until the issuer is ready and its account registered, or cannot be without somebody's help.

        Where the CA does not answer, cert-manager goes on trying; that is waited for, and said after two and a half
        minutes. Heartbeats say what cert-manager says. Raises ApplicationError.
        """
        seen = [IssuerStatus(ref=request.ref, step="watch", ready=False, detail="waiting for cert-manager")]
        return await attended(self._watch(request.ref, seen), lambda: seen[0].detail or "waiting for the issuer")

    async def _watch(self, ref: IssuerRef, seen: list[IssuerStatus]) -> IssuerStatus:
        """The decisive status; `seen` holds the latest one meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._longest):
                async for change, item in kubernetes.follow(
                    self._cluster, _CERT_MANAGER, ref.kind.value, ref.namespace, name=ref.name
                ):
                    seen[0] = issuer_status(ref, None if change == "DELETED" else item, step="watch")
                    if _decisive(seen[0]):
                        return seen[0]
        return seen[0] if seen[0].findings else _silent(seen[0])


def _decisive(status: IssuerStatus) -> bool:
    """Ready, or in need of somebody: what cert-manager tries again by itself is waited for."""
    return status.ready or any(finding.handling is not Handling.RETRY for finding in status.findings)


def _silent(status: IssuerStatus) -> IssuerStatus:
    ref = status.ref
    kind = "clusterissuer" if ref.kind is IssuerKind.CLUSTER_ISSUER else f"issuer -n {ref.namespace}"
    found = findings.ISSUER_NOT_READY.found(
        subject=_subject(ref),
        problem=f"cert-manager has said nothing about it within the time allowed ({status.detail}).",
        fix=f"kubectl describe {kind} {ref.name}; kubectl get pods -A -l app.kubernetes.io/name=cert-manager",
    )
    return IssuerStatus(
        ref=ref, step=status.step, ready=False, account=status.account, detail=status.detail, findings=(found,)
    )


def _subject(ref: IssuerRef) -> str:
    return f"{ref.kind.value} {ref.namespace}/{ref.name}" if ref.namespace else f"{ref.kind.value} {ref.name}"
