"""Look at a cluster, bring cert-manager there by Helm, prove that it works, and take it back where it does not.

Helm runs as a process of its own with a home of its own, and ends with the worker. What a killed attempt of a run left
half done is known by the run's id, which each Helm release carries as a label, so that a later attempt of the same run
may clear it away and nobody else's. Left out: whether it may be installed and what a failure means
(`lifecycle.platform`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import yaml
from kubernetes.aio import client
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from activities.additions import would_change
from activities.attended import attended
from activities.difference import difference
from activities.gateways import gateway_addresses
from activities.permissions import denied
from lifecycle import findings, platform, x509
from lifecycle.additions import needed_permissions, objects_asked_for
from lifecycle.diagnosis import conditions_of, said
from lifecycle.findings import Finding
from lifecycle.manifests import FIELD_MANAGER, Manifest
from lifecycle.platform import InstalledCertManager, PlatformEvidence, Revision
from lifecycle.steps import (
    Cleanup,
    ObjectChange,
    PlatformInspection,
    PlatformRequest,
    PlatformVerdict,
    Proof,
    ProofRequest,
    ReleaseFacts,
    RollbackRequest,
)

T = TypeVar("T")

_CERT_MANAGER = "cert-manager.io/v1"
_HELM_SECONDS = 360.0
"""Three images are pulled and three Pods get ready; twice this (taking it back) still fits the activity's limit."""

_PROOF_SECONDS = 180.0
"""Less than the activity's limit, so that the reason is told and not just a time-out."""

_ASK_SECONDS = 60.0
"""Helm's questions are a few requests to the API server."""

_STOP_SECONDS = 20.0
"""Helm marks a release as failed when it is asked to stop; that is one write."""

_RUN_LABEL = "certwright.dev/run"
_CANARY_LABEL = "certwright.dev/canary"
_CANARY_NAME = "canary.certwright.invalid"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

# The kernel asks Helm to stop when the worker dies (prctl(2), PR_SET_PDEATHSIG), so that no Helm of an earlier attempt
# works beside that of the next one. A program in between, since nothing of Python is safe between fork and exec of a
# process that has threads.
_TIED = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != parent:
    sys.exit("the worker is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""

_PASSED_ON = re.compile(
    r"PATH|LANG|TZ|TMPDIR|KUBERNETES_SERVICE_\w+|SSL_CERT_(FILE|DIR)|(HTTPS?|NO)_PROXY", re.IGNORECASE
)
"""What Helm may know of our environment: nothing that could hold a secret of the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformSettings:
    """How Helm is run.

    Attributes:
        helm: the program, 3.14 or newer.
        kubeconfig: a path; empty means the Pod's own ServiceAccount.
        chart: OCI reference or directory where a request names none; empty means the official one.
        extra_values: Helm values of this installation as a JSON object; a request's are merged over them.
        helm_seconds: how long Helm waits for Pods, in each direction.
        proof_seconds: how long each proof may take.
    """

    helm: str = "helm"
    kubeconfig: str = ""
    chart: str = ""
    extra_values: str = "{}"
    helm_seconds: float = _HELM_SECONDS
    proof_seconds: float = _PROOF_SECONDS


class HelmError(Exception):
    """Helm ended with an error; its words are in the message, uncut."""


class PlatformActivities:
    """Activities on the cluster as a whole, given its client."""

    def __init__(self, cluster: DynamicClient, settings: PlatformSettings) -> None:
        self._cluster = cluster
        self._settings = settings

    # --- looking ------------------------------------------------------------------------------------------------------

    @activity.defn
    async def inspect_platform(self, request: PlatformRequest) -> PlatformInspection:
        """Versions, permissions, gateway and cert-manager, and what is to be done. Raises ApplicationError."""
        evidence = await self._evidence(request)
        verdict, found = platform.platform_verdict(request, evidence)
        only = evidence.installed[0] if len(evidence.installed) == 1 else None
        changes: tuple[ObjectChange, ...] = ()
        if verdict is not PlatformVerdict.REFUSE and objects_asked_for(request):
            place = dataclasses.replace(request, namespace=only.namespace if only else request.namespace)
            changes, beside = await would_change(self._cluster, place)
            # a run tells them itself when it gets there; what it would be refused for is told before it begins
            found = (*found, *(beside if request.dry_run else findings.errors(beside)))
            verdict = PlatformVerdict.REFUSE if findings.errors(found) else verdict
        if request.dry_run and verdict in {PlatformVerdict.INSTALL, PlatformVerdict.UPGRADE}:
            changes = (*await self._difference(request), *changes)
        return PlatformInspection(
            verdict=verdict,
            kubernetes=evidence.kubernetes,
            istio=evidence.istio,
            installed=only.version if only else "",
            namespace=only.namespace if only else "",
            gateway_addresses=evidence.gateway_addresses,
            findings=found,
            changes=changes if request.dry_run else (),
        )

    async def _difference(self, request: PlatformRequest) -> tuple[ObjectChange, ...]:
        """What `install_release` would change of the objects of the chart."""
        chart, wanted = self._chart(request)
        release = await self._release(request.namespace)
        values = self._wanted_values(request, await self._values(request.namespace) if release else {})
        arguments = ["upgrade", "--install", "--dry-run=server", "--output", "json", "--values", "-"]
        arguments += ["--namespace", request.namespace, *(("--version", wanted) if chart.startswith("oci://") else ())]
        text = await self._ask(*arguments, platform.RELEASE, chart, given=json.dumps(values))
        before = ""
        if release:
            before = await self._ask("get", "manifest", "--namespace", request.namespace, platform.RELEASE)
        manifest = json.loads(text)["manifest"]
        new, old = await asyncio.gather(*(asyncio.to_thread(_documents, one) for one in (manifest, before)))
        return await difference(self._cluster, new, old)

    async def _evidence(self, request: PlatformRequest) -> PlatformEvidence:
        gateway, namespace = request.gateway, request.namespace
        needed = (*platform.required_permissions(gateway.namespace), *platform.proof_permissions(namespace))
        kubernetes_version, missing, missing_to_install = await asyncio.gather(
            self._kubernetes(),
            denied(self._cluster, needed),
            denied(self._cluster, platform.installation_permissions(namespace)),
        )
        selector = ",".join(f"{key}={value}" for key, value in gateway.selector)
        istiods, pods, addresses, installed = await asyncio.gather(
            _unless_denied(self._list("apps/v1", "Deployment", "", "app=istiod")),
            _unless_denied(self._list("v1", "Pod", gateway.namespace, selector)),
            _unless_denied(gateway_addresses(self._cluster, gateway)),
            _unless_denied(self._installed(request)),
        )
        elsewhere = {one.namespace for one in installed or ()} - {namespace}
        for home in sorted(elsewhere):  # one that is adopted is proved where it is
            missing += await denied(self._cluster, platform.proof_permissions(home))
        home = next(iter(elsewhere), namespace) if len(elsewhere) < 2 else namespace
        beside = await denied(self._cluster, needed_permissions(request, home))
        known = {permission[:4] for permission in missing}
        return PlatformEvidence(
            kubernetes=kubernetes_version,
            istio=_version_of(istiods[0]) if istiods else "",
            installed=tuple(installed or ()),
            gateway_pods=sum(1 for pod in pods or () if not pod["metadata"].get("deletionTimestamp")),
            gateway_addresses=tuple(addresses or ()),
            denied=missing,
            installation_denied=tuple(one for one in missing_to_install if one[:4] not in known),
            additions_denied=tuple(one for one in beside if one[:4] not in known),
            complete=None not in (istiods, pods, addresses, installed),
        )

    async def _kubernetes(self) -> str:
        async with kubernetes.answering(self._cluster, "ask for the version of Kubernetes"):
            answer = await client.VersionApi(self._cluster.client).get_code(_request_timeout=kubernetes.CALL_SECONDS)
            return str(answer.git_version)

    async def _installed(self, request: PlatformRequest) -> list[InstalledCertManager]:
        """Every cert-manager controller, and our own release also where it has none (yet)."""
        selector = "app.kubernetes.io/name=cert-manager,app.kubernetes.io/component=controller"
        release = await self._release(request.namespace)
        found = []
        for item in await self._list("apps/v1", "Deployment", "", selector):
            metadata = item["metadata"]
            annotations = metadata.get("annotations") or {}
            name = annotations.get("meta.helm.sh/release-name", "")
            home = annotations.get("meta.helm.sh/release-namespace", metadata["namespace"])
            ours = release if (name, home) == (platform.RELEASE, request.namespace) else None
            found.append(
                InstalledCertManager(
                    namespace=home if name else metadata["namespace"],
                    version=_version_of(item),
                    release=name,
                    release_status=ours["status"] if ours else "",
                    values_differ=await self._values_differ(request) if ours else False,
                )
            )
            release = None if ours else release
        if release is not None:
            found.append(
                InstalledCertManager(
                    namespace=request.namespace,
                    version=release.get("app_version", ""),
                    release=platform.RELEASE,
                    release_status=release["status"],
                )
            )
        return found

    async def _values_differ(self, request: PlatformRequest) -> bool:
        present = await self._values(request.namespace)
        return self._wanted_values(request, present) != present

    # --- installing ---------------------------------------------------------------------------------------------------

    @activity.defn
    async def install_release(self, request: PlatformRequest) -> ReleaseFacts:
        """Install or upgrade cert-manager by Helm and wait for its Pods; the same again changes nothing.

        What fails, or is cancelled, is taken back before this returns. Raises ApplicationError, with the reason as a
        finding where trying again would not help.
        """
        words = f"Helm brings cert-manager {request.version or platform.CERT_MANAGER_VERSION}"
        namespace, run = request.namespace, _run()
        try:
            return await attended(self._install(request), lambda: words)
        except asyncio.CancelledError:
            if not activity.is_worker_shutdown():
                words = "cancelled: Helm takes back what it did"
                await attended(self._take_back_run(namespace, run), lambda: words)
            raise

    async def _install(self, request: PlatformRequest) -> ReleaseFacts:
        namespace, run = request.namespace, _run()
        chart, wanted = self._chart(request)
        revisions = await self._recovered(namespace, run)
        before = platform.previous_revision(revisions, run)
        release = await self._release(namespace)
        present = await self._values(namespace) if release else {}
        values = self._wanted_values(request, present)
        if release and release["status"] == "deployed" and present == values and _chart_is(release, wanted):
            # a former attempt of this run may have got here and not lived to tell
            ours = revisions[-1].run == run
            return _facts(release, namespace, changed=ours, before=before if ours else int(release["revision"]))
        seconds = f"{self._settings.helm_seconds:.0f}s"
        arguments = ["upgrade", "--install", "--create-namespace", "--wait", "--timeout", seconds, "--values", "-"]
        arguments += ["--namespace", namespace, "--labels", f"{_RUN_LABEL}={run}"]
        if chart.startswith("oci://"):
            arguments += ["--version", wanted]
        try:
            await self._helm(
                *arguments,
                platform.RELEASE,
                chart,
                given=json.dumps(values),
                seconds=self._settings.helm_seconds + _ASK_SECONDS,
            )
        except HelmError as error:
            await self._failed(namespace, run, str(error))
        release = await self._release(namespace)
        if release is None:
            raise ApplicationError("Helm's release vanished while it was made", type="ReleaseVanished")
        return _facts(release, namespace, changed=True, before=before)

    async def _recovered(self, namespace: str, run: str) -> list[Revision]:
        """The release's revisions, after what a killed attempt of this run left pending was cleared away."""
        revisions = await self._revisions(namespace)
        if not revisions or not platform.unfinished(revisions[-1].status):
            return revisions
        if revisions[-1].run != run:
            subject = f"Helm release {namespace}/{platform.RELEASE}"
            raise _refused(
                findings.RELEASE_BUSY.found(
                    subject=subject,
                    problem=f"It is {revisions[-1].status}: another run is at it, or one was killed.",
                    fix=f"helm history {platform.RELEASE} -n {namespace}; helm rollback where nobody is at it.",
                )
            )
        await self._take_back(namespace, platform.previous_revision(revisions, run))
        return await self._revisions(namespace)

    async def _failed(self, namespace: str, run: str, helm_said: str) -> None:
        """Take back what Helm could not bring to an end, and raise why."""
        if platform.surroundings_broken(helm_said):
            raise ApplicationError(f"Helm: {said(helm_said)}", type="ClusterUnreachable")
        pods: tuple[Finding, ...] = ()
        with contextlib.suppress(ApplicationError):
            pods = platform.pod_findings(await self._list("v1", "Pod", namespace), platform.RELEASE)
        found = platform.release_failure(platform.RELEASE, namespace, helm_said, pods)
        left = ""
        try:
            await self._take_back_run(namespace, run)
        except (HelmError, ApplicationError) as error:
            left = f" It could not be taken back: {said(str(error))}"
        raise _refused(dataclasses.replace(found, problem=f"{found.problem}{left}"))

    async def _take_back_run(self, namespace: str, run: str) -> Cleanup:
        """Undo what `run` did to the release, if anything. Raises HelmError, ApplicationError."""
        revisions = await self._revisions(namespace)
        if not revisions or revisions[-1].run != run:
            return Cleanup()
        return await self._take_back(namespace, platform.previous_revision(revisions, run))

    async def _take_back(self, namespace: str, revision: int, name: str = platform.RELEASE) -> Cleanup:
        wait = ["--wait", "--timeout", f"{self._settings.helm_seconds:.0f}s", "--namespace", namespace]
        limit = self._settings.helm_seconds + _ASK_SECONDS
        if revision:
            await self._helm("rollback", *wait, name, str(revision), seconds=limit)
            return Cleanup(removed=(f"changes of Helm release {namespace}/{name} after revision {revision}",))
        # in the foreground, so that the Pods have gone when Helm says so; only its debugging log says what failed
        flags = ("--ignore-not-found", "--cascade", "foreground", "--debug")
        await self._helm("uninstall", *wait, *flags, name, seconds=limit)
        return Cleanup(removed=(f"Helm release {namespace}/{name}; its CustomResourceDefinitions are kept",))

    @activity.defn
    async def roll_back_release(self, back: RollbackRequest) -> Cleanup:
        """Put a release back to a revision, or uninstall it where that is 0. Asked twice it finds it done.

        The CustomResourceDefinitions are kept, or every Certificate would go with them. Raises ApplicationError.
        """
        what = f"rolls back to revision {back.revision}" if back.revision else "uninstalls it"
        return await attended(self._roll_back(back), lambda: f"Helm {what}")

    async def _roll_back(self, back: RollbackRequest) -> Cleanup:
        try:
            text = await self._helm(
                "history", "--output", "json", "--namespace", back.namespace, back.name, missing="[]"
            )
            history = json.loads(text)
            if not history:
                return Cleanup()
            last = history[-1]
            if last["status"] == "deployed" and last.get("description") == f"Rollback to {back.revision}":
                return Cleanup()
            return await self._take_back(back.namespace, back.revision, back.name)
        except HelmError as error:
            if platform.surroundings_broken(str(error)):
                raise ApplicationError(f"Helm: {said(str(error))}", type="ClusterUnreachable") from None
            raise _refused(platform.release_failure(back.name, back.namespace, str(error), ())) from None

    # --- proving ------------------------------------------------------------------------------------------------------

    @activity.defn
    async def prove_webhook(self, request: ProofRequest) -> Proof:
        """Three Deployments are available, and the API server reaches the webhook, which lets pass and refuses.

        `helm --wait` returns before the webhook answers (cert-manager#2908). Raises ApplicationError.
        """
        words = ["waiting for cert-manager's Pods"]
        return await attended(self._webhook(request, words), lambda: words[0])

    async def _webhook(self, request: ProofRequest, words: list[str]) -> Proof:
        namespace = request.namespace
        deadline = asyncio.get_running_loop().time() + self._settings.proof_seconds
        missing = await self._components(request, words)
        pods = await self._list("v1", "Pod", namespace, f"app.kubernetes.io/instance={request.release}")
        names = tuple(sorted(pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("deletionTimestamp")))
        if missing:
            found = platform.pod_findings(pods, request.release) or (
                findings.PODS_NOT_READY.found(
                    subject=f"cert-manager in namespace {namespace}",
                    problem=f"Not available: {', '.join(missing)}.",
                    fix=f"kubectl get deployments,pods -n {namespace}",
                ),
            )
            return Proof(detail=f"not available: {', '.join(missing)}", pods=names, findings=found)
        good, bad = _canary(namespace, "dry-run", [_CANARY_NAME]), _canary(namespace, "dry-run", [])
        while True:
            problem = await self._dry_run(good, refused=False) or await self._dry_run(bad, refused=True)
            if not problem:
                detail = "the webhook let a Certificate pass and refused one without names, both as a dry run"
                return Proof(detail=detail, pods=names)
            words[0] = f"waiting for cert-manager's webhook: {problem}"
            if asyncio.get_running_loop().time() > deadline:
                return Proof(
                    detail="the webhook does not answer",
                    pods=names,
                    findings=(
                        findings.WEBHOOK_NOT_ANSWERING.found(
                            subject=f"cert-manager's webhook in namespace {namespace}",
                            problem=problem,
                            fix="Let the API server reach the webhook's port 10250 (private clusters need a firewall "
                            f"rule); kubectl get endpointslices -n {namespace}",
                        ),
                    ),
                )
            await asyncio.sleep(0.25)

    async def _components(self, request: ProofRequest, words: list[str]) -> tuple[str, ...]:
        """Which of the three Deployments did not become available in time."""
        known: dict[str, Manifest] = {}
        missing: tuple[str, ...] = platform.missing_components((), request.release)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.proof_seconds):
                async for change, item in kubernetes.follow(self._cluster, "apps/v1", "Deployment", request.namespace):
                    known.pop(item["metadata"]["name"], None)
                    if change != "DELETED":
                        known[item["metadata"]["name"]] = item
                    missing = platform.missing_components(known.values(), request.release)
                    words[0] = f"waiting for cert-manager's {', '.join(missing)}"
                    if not missing:
                        break
        return missing

    async def _dry_run(self, certificate: Manifest, *, refused: bool) -> str:
        """Why a dry-run create did not go as it must; empty where it did."""
        try:
            kind = await kubernetes.resource(self._cluster, _CERT_MANAGER, "Certificate")
            async with kubernetes.answering(self._cluster, "dry-run create Certificate"):
                try:
                    await self._cluster.create(
                        kind,
                        body=certificate,
                        namespace=certificate["metadata"]["namespace"],
                        dry_run="All",
                        field_manager=FIELD_MANAGER,
                        _request_timeout=kubernetes.CALL_SECONDS,
                    )
                except DynamicApiError as error:
                    words = str(error.summary())
                    if refused and "denied the request" in words:
                        return ""
                    if platform.refused_permission(words):
                        raise
                    return said(words)
        except ApplicationError as error:
            if error.non_retryable:
                raise
            return said(error.message)
        return "a Certificate without names passed: no webhook looks at it" if refused else ""

    @activity.defn
    async def prove_issuance(self, request: ProofRequest) -> Proof:
        """cert-manager issues a self-signed canary certificate whose key matches; nothing of it is left behind.

        Raises ApplicationError.
        """
        words = ["waiting for the canary certificate"]
        return await attended(self._issue(request, words), lambda: words[0])

    async def _issue(self, request: ProofRequest, words: list[str]) -> Proof:
        namespace = request.namespace
        await self._remove_canaries(namespace)  # of an attempt that was killed
        name = f"certwright-canary-{uuid.uuid4().hex[:8]}"
        try:
            return await self._issue_canary(namespace, name, words)
        finally:
            await asyncio.shield(asyncio.ensure_future(self._remove_canaries(namespace)))

    async def _issue_canary(self, namespace: str, name: str, words: list[str]) -> Proof:
        labels = {_CANARY_LABEL: "true", "app.kubernetes.io/managed-by": "certwright"}
        issuer: Manifest = {
            "apiVersion": _CERT_MANAGER,
            "kind": "Issuer",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"selfSigned": {}},
        }
        certificate = _canary(namespace, name, [_CANARY_NAME])
        certificate["metadata"]["labels"] = labels
        certificate["spec"]["secretTemplate"] = {"labels": labels}
        await kubernetes.apply(self._cluster, issuer)
        await kubernetes.apply(self._cluster, certificate)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.proof_seconds):
                async for _, item in kubernetes.follow(
                    self._cluster, _CERT_MANAGER, "Certificate", namespace, name=name
                ):
                    conditions = conditions_of(item)
                    told = [str(one.get("message") or "") for one in conditions.values()]
                    words[0] = f"waiting for the canary certificate: {said('; '.join(filter(None, told)))}"
                    if conditions.get("Ready", {}).get("status") == "True":
                        return await self._canary_secret(namespace, name)
        return _not_issued(namespace, name, words[0])

    async def _canary_secret(self, namespace: str, name: str) -> Proof:
        secret = await kubernetes.read(self._cluster, "v1", "Secret", namespace, name)
        data = (secret or {}).get("data") or {}
        if "tls.crt" not in data or "tls.key" not in data:
            return _not_issued(namespace, name, "the Certificate is Ready, and its Secret holds no key pair")
        chain, key = (base64.b64decode(data[part]) for part in ("tls.crt", "tls.key"))
        subject = f"Secret {namespace}/{name}"
        facts, problems = x509.secret_findings(chain, key, (_CANARY_NAME,), subject=subject, now=datetime.now(UTC))
        return Proof(
            detail=f"a self-signed certificate for {_CANARY_NAME} was issued, its key matches, and it is gone again",
            fingerprint=facts.fingerprint if facts else "",
            findings=problems,
        )

    async def _remove_canaries(self, namespace: str) -> None:
        """Whatever carries our canary label, the Secret last: cert-manager would make it anew."""
        for api_version, kind in ((_CERT_MANAGER, "Certificate"), (_CERT_MANAGER, "Issuer"), ("v1", "Secret")):
            for item in await self._list(api_version, kind, namespace, f"{_CANARY_LABEL}=true"):
                await kubernetes.remove(self._cluster, api_version, kind, namespace, item["metadata"]["name"])

    # --- Helm ---------------------------------------------------------------------------------------------------------

    def _chart(self, request: PlatformRequest) -> tuple[str, str]:
        """The chart and its version. Raises ApplicationError where a directory holds another version."""
        chart = request.chart or self._settings.chart or platform.CHART
        wanted = request.version or platform.CERT_MANAGER_VERSION
        if chart.startswith("oci://"):
            return chart, wanted
        try:
            description = yaml.safe_load((Path(chart) / "Chart.yaml").read_text())
            name, version = str(description["name"]), str(description["version"])
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            problem, fix = "It is neither an OCI reference nor a chart's directory.", f"Ask for {platform.CHART}."
            raise _refused(findings.RELEASE_FAILED.found(subject="chart", problem=problem, fix=fix)) from None
        if name != "cert-manager" or version.lstrip("v") != wanted.lstrip("v"):
            problem = f"The directory holds {name} {version}, and cert-manager {wanted} was asked for."
            fix = f"Ask for version {version}, or give the directory of {wanted}."
            raise _refused(findings.RELEASE_FAILED.found(subject="chart", problem=problem, fix=fix))
        return chart, wanted

    def _wanted_values(self, request: PlatformRequest, present: dict[str, Any]) -> dict[str, Any]:
        try:
            return platform.release_values(request, self._settings.extra_values, present)
        except ValueError as error:
            fix = "Write Helm values as a JSON object."
            raise _refused(
                findings.RELEASE_FAILED.found(subject="Helm values", problem=said(str(error)), fix=fix)
            ) from None

    async def _release(self, namespace: str) -> dict[str, Any] | None:
        """What `helm list` says of our release: revision, status, chart, app_version."""
        text = await self._ask(
            "list", "--all", "--filter", f"^{platform.RELEASE}$", "--output", "json", "--namespace", namespace
        )
        found: list[dict[str, Any]] = json.loads(text)
        return found[0] if found else None

    async def _values(self, namespace: str) -> dict[str, Any]:
        """The values that were given to our release, which must exist."""
        text = await self._ask("get", "values", "--output", "json", "--namespace", namespace, platform.RELEASE)
        return json.loads(text) or {}

    async def _ask(self, *arguments: str, given: str = "") -> str:
        try:
            return await self._helm(*arguments, given=given)
        except HelmError as error:
            if refused := platform.refused_permission(str(error)):
                raise _refused(platform.permission_finding(refused), "PermissionMissing") from None
            raise ApplicationError(f"Helm: {said(str(error))}", type="ClusterUnreachable") from None

    async def _revisions(self, namespace: str) -> list[Revision]:
        """The release's revisions, oldest first, read from the metadata of Helm's Secrets; their data stays there."""
        secrets = await kubernetes.resource(self._cluster, "v1", "Secret")
        async with kubernetes.answering(self._cluster, "list Helm's revisions"):
            answer = await self._cluster.get(
                secrets,
                namespace=namespace,
                label_selector=f"owner=helm,name={platform.RELEASE}",
                header_params={"Accept": _METADATA_ONLY},
                serialize=False,
                _request_timeout=kubernetes.CALL_SECONDS,
            )
            items = json.loads(await answer.read()).get("items") or []
        labels = [item["metadata"].get("labels") or {} for item in items]
        found = [Revision(int(one["version"]), str(one["status"]), str(one.get(_RUN_LABEL, ""))) for one in labels]
        return sorted(found)

    async def _helm(self, *arguments: str, given: str = "", seconds: float = _ASK_SECONDS, missing: str = "") -> str:
        """Run Helm with `given` on its standard input; returns its standard output, or `missing` for no release.

        Cancelled, Helm is asked to stop and waited for. Raises HelmError, ApplicationError.
        """
        program = shutil.which(self._settings.helm)
        if program is None:
            problem, fix = "The program helm was not found.", "Install Helm 3.14 or newer beside the worker."
            raise _refused(findings.RELEASE_FAILED.found(subject="helm", problem=problem, fix=fix))
        with tempfile.TemporaryDirectory(prefix="certwright-helm-") as home:
            environment = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
            environment |= {"HOME": home, "HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home, "HELM_DATA_HOME": home}
            if self._settings.kubeconfig:
                environment["KUBECONFIG"] = self._settings.kubeconfig
            # Files, not pipes: a killed worker leaves a pipe without a reader, and Helm would die of SIGPIPE over
            # its word that it was cancelled, before it marks the release.
            with open(f"{home}/stdout", "w+b") as stdout, open(f"{home}/stderr", "w+b") as stderr:  # noqa: PTH123, ASYNC230
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-I", "-S", "-c", _TIED, str(os.getpid()), program, *arguments),
                    env=environment,
                    cwd=home,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
                try:
                    async with asyncio.timeout(seconds):
                        await process.communicate(given.encode())
                except TimeoutError:
                    message = f"helm {arguments[0]} did not end in time"
                    raise ApplicationError(message, type="ClusterUnreachable") from None
                finally:
                    await _stopped(process)
                out, err = (_whole(file) for file in (stdout, stderr))
        if process.returncode == 0:
            return out.decode()
        words = _helm_words(err.decode(errors="replace"))
        if missing and re.search(r"release: not found", words):
            return missing
        raise HelmError(words)

    # --- the cluster --------------------------------------------------------------------------------------------------

    async def _list(self, api_version: str, kind: str, namespace: str, selector: str = "") -> list[Manifest]:
        return await kubernetes.listed(self._cluster, api_version, kind, namespace, label_selector=selector)


async def _unless_denied(look: Awaitable[T]) -> T | None:
    """None where we may not look; which permission is missing is found out by asking for all of them."""
    try:
        return await look
    except ApplicationError as error:
        if error.type == "PermissionMissing":
            return None
        raise


def _whole(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


async def _stopped(process: asyncio.subprocess.Process) -> None:
    """End Helm where it still runs: it marks its release as failed when it is asked to."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _helm_words(stderr: str) -> str:
    """Helm's error without its warnings, which name paths of the kubeconfig."""
    lines = [line for line in stderr.splitlines() if line.strip() and not re.match(r"WARNING|I\d{4}|W\d{4}", line)]
    first = next((number for number, line in enumerate(lines) if line.startswith("Error:")), 0)
    told = " ".join(line for line in lines[first:] if "[debug]" not in line).removeprefix("Error: ")
    logged = re.search(r"Failed to delete release: \[?(.+?)\]?$", stderr, re.MULTILINE)
    return (f"{told}: {logged[1]}" if logged else told) or "it said nothing"


def _documents(manifest: str) -> list[Manifest]:
    """The objects of a release; by libyaml where it is there, since a chart's definitions are a megabyte."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [item for item in yaml.load_all(manifest, loader) if item]  # a safe loader either way


def _chart_is(release: dict[str, Any], version: str) -> bool:
    return str(release.get("chart", "")).removeprefix("cert-manager-").lstrip("v") == version.lstrip("v")


def _facts(release: dict[str, Any], namespace: str, *, changed: bool, before: int) -> ReleaseFacts:
    return ReleaseFacts(
        name=release["name"],
        namespace=namespace,
        revision=int(release["revision"]),
        previous_revision=before,
        app_version=str(release.get("app_version", "")),
        changed=changed,
    )


def _refused(finding: Finding, kind: str = "ReleaseRefused") -> ApplicationError:
    return ApplicationError(finding.problem, finding, type=kind, non_retryable=True)


def _run() -> str:
    """The workflow's run, which a label value has room for."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", activity.info().workflow_run_id or "none")[:63].strip("-._")


def _version_of(deployment: Manifest) -> str:
    """The tag of its first container's image, else what its label says: an image may be named by digest alone."""
    image = str(deployment["spec"]["template"]["spec"]["containers"][0].get("image", ""))
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    labels = deployment["metadata"].get("labels") or {}
    return tag or str(labels.get("app.kubernetes.io/version", ""))


def _canary(namespace: str, name: str, dns_names: list[str]) -> Manifest:
    return {
        "apiVersion": _CERT_MANAGER,
        "kind": "Certificate",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "secretName": name,
            "dnsNames": dns_names,
            "issuerRef": {"name": name, "kind": "Issuer"},
            "privateKey": {"algorithm": "ECDSA", "rotationPolicy": "Always"},
        },
    }


def _not_issued(namespace: str, name: str, words: str) -> Proof:
    return Proof(
        detail="the canary certificate was not issued",
        findings=(
            findings.CANARY_NOT_ISSUED.found(
                subject=f"Certificate {namespace}/{name}",
                problem=said(words),
                fix=f"kubectl logs -n {namespace} -l app.kubernetes.io/component=controller; it is gone again.",
            ),
        ),
    )
