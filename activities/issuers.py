"""Set an issuer up: see that its Secrets are there, apply it, and watch until it is ready or says why it is not.

Of Secrets only the names of their keys are looked at. Left out: what an issuer looks like and needs
(`lifecycle.issuers`), and what its words mean (`lifecycle.diagnosis`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from activities.attended import attended
from lifecycle import findings
from lifecycle.diagnosis import issuer_status, said
from lifecycle.domain import DEFAULT_GATEWAY, IssuerKind, IssuerRef
from lifecycle.findings import Finding, Handling
from lifecycle.issuer_requests import unrehearsed
from lifecycle.issuers import (
    SecretReference,
    credential_finding,
    credentials_unseen,
    issuer_manifest,
    secret_namespace,
    secret_references,
)
from lifecycle.manifests import FIELD_MANAGER, Manifest
from lifecycle.platform import Permission, permission_finding, refused_permission
from lifecycle.steps import IssuerOverview, IssuerQuestion, IssuerRequest, IssuerStatus

_CERT_MANAGER = "cert-manager.io/v1"
_LONGEST_SECONDS = 150.0
"""cert-manager tries again within two minutes where the CA does not answer; the activity's own limit is longer."""

_MOST_SHOWN = 100
"""Issuers in an overview: it lies in a workflow's history."""

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

        Nothing is applied where a Secret that it refers to is not as needed. That, and what cert-manager or the API
        server has against it, is a finding. Raises ApplicationError.
        """
        manifest = issuer_manifest(request)
        found = await self._credentials(request, manifest)
        if (hint := unrehearsed(request)) is not None:
            found = (*found, hint)
        if not findings.errors(found) and (refused := await self._apply(request, manifest)) is not None:
            found = (*found, refused)
        return IssuerStatus(ref=request.ref, step="apply", ready=False, findings=found)

    async def _credentials(self, request: IssuerRequest, manifest: Manifest) -> tuple[Finding, ...]:
        namespace = secret_namespace(request.ref, request.cert_manager_namespace)
        others = {request.cert_manager_namespace, DEFAULT_GATEWAY.namespace, request.ref.namespace} - {namespace, ""}
        wanted = secret_references(manifest)
        found = await asyncio.gather(*(self._credential(one, namespace, sorted(others)) for one in wanted))
        return tuple(one for one in dict.fromkeys(found) if one is not None)

    async def _credential(self, reference: SecretReference, namespace: str, others: list[str]) -> Finding | None:
        try:
            keys = await self._keys(namespace, reference.name)
        except ApplicationError as error:
            if not error.non_retryable:
                raise
            rule = permission_finding(Permission("get", "", "secrets", namespace)).fix
            return credentials_unseen(reference, namespace, rule)
        elsewhere = []
        if keys is None:
            for other in others:
                with contextlib.suppress(ApplicationError):  # where we may not look nothing is said
                    if await self._keys(other, reference.name) is not None:
                        elsewhere.append(other)
        return credential_finding(reference, namespace, keys, elsewhere=tuple(elsewhere))

    async def _keys(self, namespace: str, name: str) -> frozenset[str] | None:
        """The names of a Secret's keys, of those that hold anything; None where it is not there."""
        secret = await kubernetes.read(self._cluster, "v1", "Secret", namespace, name)
        return None if secret is None else frozenset(key for key, value in (secret.get("data") or {}).items() if value)

    async def _apply(self, request: IssuerRequest, manifest: Manifest) -> Finding | None:
        ref = request.ref
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

    @activity.defn
    async def inspect_issuers(self, question: IssuerQuestion) -> IssuerOverview:
        """What one issuer, or each, says of itself and can prove; a missing one has that finding.

        Raises ApplicationError.
        """
        if question.ref is not None:
            ref = question.ref
            item = await kubernetes.read(self._cluster, _CERT_MANAGER, ref.kind.value, ref.namespace, ref.name)
            return IssuerOverview(issuers=(issuer_status(ref, item, step="inspect"),))
        seen: list[IssuerStatus] = []
        for kind in (IssuerKind.CLUSTER_ISSUER, IssuerKind.ISSUER):
            async for page in kubernetes.pages(self._cluster, _CERT_MANAGER, kind.value):
                seen += [issuer_status(_ref(kind, item), item, step="inspect") for item in page]
        seen.sort(key=lambda one: (one.ref.kind.value, one.ref.namespace, one.ref.name))
        return IssuerOverview(issuers=tuple(seen[:_MOST_SHOWN]), more=max(len(seen) - _MOST_SHOWN, 0))

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
    return dataclasses.replace(status, findings=(found,))


def _ref(kind: IssuerKind, item: Manifest) -> IssuerRef:
    metadata = item["metadata"]
    return IssuerRef(name=metadata["name"], kind=kind, namespace=metadata.get("namespace", ""))


def _subject(ref: IssuerRef) -> str:
    return f"{ref.kind.value} {ref.namespace}/{ref.name}" if ref.namespace else f"{ref.kind.value} {ref.name}"
