"""May cert-manager be installed here, is one here already, and what must we be allowed to do?

Versions go by a matrix, permissions by a list with a reason each, an existing cert-manager by who installed it: there
are never two. Left out: asking the cluster, and running Helm.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lifecycle import availability, findings
from lifecycle.controller_values import LEADER_ELECTION, concurrency_values
from lifecycle.diagnosis import said
from lifecycle.findings import Finding
from lifecycle.steps import PlatformRequest, PlatformVerdict

RELEASE = "cert-manager"
"""Our Helm release's name; cert-manager's own documentation uses it, so most installations have it."""

CERT_MANAGER_VERSION = "v1.21.2"
CHART = "oci://quay.io/jetstack/charts/cert-manager"
"""cert-manager documentation, "Installing with Helm": the OCI registry is the recommended source."""

KUBERNETES_FOR_CERT_MANAGER: dict[tuple[int, ...], tuple[tuple[int, int], tuple[int, int]]] = {
    (1, 21): ((1, 33), (1, 36)),
}
"""First and last Kubernetes minor by cert-manager minor (cert-manager documentation, "Supported Releases")."""

ISTIO_TRIED = ((1, 30), (1, 31))
"""Istio minors that this was tried with; others may work, so they are warned of and not refused."""

BROKEN_VERSIONS: dict[tuple[int, ...], str] = {(1, 21, 0): "its controller panics"}
"""Releases of cert-manager never to install, with the reason."""

WEBHOOK_TIMEOUT_SECONDS = 30
"""The longest that Kubernetes allows (AdmissionReview: timeoutSeconds); a cold webhook needs some of it."""


class Permission(NamedTuple):
    """One thing we must be allowed to do; `namespace` is empty where it must hold in all or the kind has none."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledCertManager:
    """One cert-manager controller that runs.

    Attributes:
        version: as its image or label tells, e.g. ``v1.20.1``; may be empty.
        release: the Helm release that owns it, empty where none does.
        release_status: Helm's word for it, e.g. ``deployed``, ``failed``, ``pending-upgrade``.
        values_differ: whether our values would change the release.
    """

    namespace: str
    version: str
    release: str = ""
    release_status: str = ""
    values_differ: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformEvidence:
    """What was gathered of a cluster.

    Attributes:
        kubernetes: as reported, e.g. ``v1.36.3``.
        istio: likewise; empty where none runs.
        denied: what we may not do of what is needed in any case.
        installation_denied: the same of what only an installation or an upgrade needs.
        additions_denied: the same of what only the wishes of the request need.
        complete: False where something could not be looked at because it is denied: what is missing then says
            nothing about the cluster.
    """

    kubernetes: str
    istio: str
    installed: tuple[InstalledCertManager, ...] = ()
    gateway_pods: int = 0
    gateway_addresses: tuple[str, ...] = ()
    denied: tuple[Permission, ...] = ()
    installation_denied: tuple[Permission, ...] = ()
    additions_denied: tuple[Permission, ...] = ()
    complete: bool = True


class PlatformDecision(NamedTuple):
    """What is to be done, and everything worth telling; with an error among the findings nothing is done."""

    verdict: PlatformVerdict
    findings: tuple[Finding, ...]


def _permissions(group: str, resource: str, verbs: str, why: str, namespace: str = "") -> tuple[Permission, ...]:
    return tuple(Permission(verb, group, resource, namespace, why) for verb in verbs.split())


# A server-side apply that creates asks for both `create` and `patch`.
_READ, _APPLY = "get list watch", "get list watch create patch"
_GATEWAY_API = "gateway.networking.k8s.io"
_ISTIO, _CERT_MANAGER, _ACME = "networking.istio.io", "cert-manager.io", "acme.cert-manager.io"
_SECURITY = "security.istio.io"


def required_permissions(gateway_namespace: str) -> tuple[Permission, ...]:
    """What the worker needs for domains, issuers and the review, Secrets in the gateway's namespace only."""
    ours = gateway_namespace
    return (
        *_permissions(_CERT_MANAGER, "certificates", f"{_APPLY} delete", "each domain has one"),
        *_permissions(_CERT_MANAGER, "certificates/status", "patch", "renewal on request sets Issuing"),
        *_permissions(_CERT_MANAGER, "certificaterequests", _READ, "they say why an issuance failed"),
        *_permissions(_CERT_MANAGER, "issuers", _APPLY, "issuers are set up and watched"),
        *_permissions(_CERT_MANAGER, "clusterissuers", _APPLY, "issuers are set up and watched"),
        *_permissions(_ACME, "orders", _READ, "they say how far an issuance is"),
        *_permissions(_ACME, "challenges", _READ, "each needs a route while it exists"),
        *_permissions(_ISTIO, "gateways", _READ, "another one may claim the same name"),
        *_permissions(_ISTIO, "virtualservices", _READ, "another one may claim the same name"),
        *_permissions(_ISTIO, "gateways", "create patch delete", "each domain has one", ours),
        *_permissions(_ISTIO, "virtualservices", "create patch delete", "routes and challenge routes", ours),
        *_permissions("", "secrets", "get list watch", "facts of the TLS Secrets", ours),
        *_permissions("", "secrets", "create patch delete", "restore, and the end of a domain", ours),
        *_permissions("", "services", _READ, "the gateway's addresses and the solvers", ours),
        *_permissions("", "pods", _READ, "the gateway is found by its selector", ours),
        *_permissions("apps", "deployments", _READ, "which istiod and which cert-manager run"),
    )


def gateway_api_permissions(gateway_namespace: str) -> tuple[Permission, ...]:
    """What domains need beyond that whose target is the Gateway API; ReferenceGrants lie where routes lead to."""
    ours = gateway_namespace
    return (
        *_permissions(_GATEWAY_API, "gateways", _READ, "another one may claim the same name"),
        *_permissions(_GATEWAY_API, "gateways", "create patch delete", "each domain has one", ours),
        *_permissions(_GATEWAY_API, "httproutes", _READ, "backups have them"),
        *_permissions(_GATEWAY_API, "tlsroutes", _READ, "backups have them"),
        *_permissions(_GATEWAY_API, "httproutes", "create patch delete", "routes and challenge routes", ours),
        *_permissions(_GATEWAY_API, "tlsroutes", "create patch delete", "routes of mode PASSTHROUGH", ours),
        *_permissions(_GATEWAY_API, "referencegrants", f"{_APPLY} delete", "they open the routes' Services to them"),
    )


def diagnosis_permissions(gateway_namespace: str) -> tuple[Permission, ...]:
    """What a domain needs to say why its issuance stands still, and to mend it; it lives without, and says less.

    Deleting and patching is what its remedies do (`lifecycle.blame.Action`), each by uid.
    """
    ours = gateway_namespace
    return (
        *_permissions("", "events", "list", "the only place where some refusals are told", ours),
        *_permissions("discovery.k8s.io", "endpointslices", "list", "a solver's Service may have nobody", ours),
        *_permissions(_SECURITY, "authorizationpolicies", "list", "one may forbid the challenge's path", ours),
        *_permissions(_CERT_MANAGER, "certificaterequests", "delete", "a restored one blocks the next", ours),
        *_permissions(_ACME, "orders", "delete", "a restored one blocks the next", ours),
        *_permissions(_ACME, "challenges", "delete patch", "made anew with its solver; its finalizer may stay", ours),
    )


def proof_permissions(namespace: str) -> tuple[Permission, ...]:
    """What the proofs need beyond that, in cert-manager's namespace: a canary is issued there and taken away."""
    return (
        *_permissions(_CERT_MANAGER, "issuers", "delete", "the canary's issuer is taken away again", namespace),
        *_permissions("", "secrets", "get list delete", "the canary's Secret is read and taken away", namespace),
        *_permissions("", "pods", _READ, "three must become ready", namespace),
    )


def backup_permissions(namespace: str) -> tuple[Permission, ...]:
    """What backup and restore need beyond that: the ACME account keys of ClusterIssuers lie beside cert-manager."""
    return _permissions("", "secrets", "get list create patch", "ACME account keys", namespace)


def restore_permissions(namespace: str) -> tuple[Permission, ...]:
    """What a restore into any other namespace needs there; bound for the occasion only."""
    return _permissions("", "secrets", "get list create patch", "Secrets are put back", namespace)


def installation_permissions(namespace: str) -> tuple[Permission, ...]:
    """What installing the chart needs beyond that: every kind it makes.

    `escalate` and `bind` because Kubernetes lets nobody hand out rights that they do not have (RBAC documentation,
    "Privilege escalation prevention and bootstrapping"): give these to the installing worker only.
    """
    rbac, admission = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
    change, chart = "get list create patch update delete", "the chart makes them"
    return (
        *_permissions("", "namespaces", "get create", "the release has its own"),
        *_permissions("apiextensions.k8s.io", "customresourcedefinitions", change, chart),
        *_permissions(rbac, "clusterroles", f"{change} bind escalate", chart),
        *_permissions(rbac, "clusterrolebindings", change, chart),
        *_permissions(admission, "mutatingwebhookconfigurations", change, chart),
        *_permissions(admission, "validatingwebhookconfigurations", change, chart),
        *_permissions(rbac, "roles", f"{change} bind escalate", chart, namespace),
        *_permissions(rbac, "rolebindings", change, chart, namespace),
        *_permissions("apps", "deployments", f"{change} watch", chart, namespace),
        *_permissions("apps", "replicasets", "get list watch", "Helm waits for the newest", namespace),
        *_permissions("", "services", change, chart, namespace),
        *_permissions("", "serviceaccounts", change, chart, namespace),
        *_permissions("", "configmaps", change, chart, namespace),
        *_permissions("", "secrets", f"{change} watch", "Helm keeps its releases there", namespace),
        *_permissions("", "pods", "get list watch", "three must become ready", namespace),
    )


def permission_finding(permission: Permission, *, subject: str = "") -> Finding:
    """The missing permission, with the rule to add, as one line of YAML."""
    verb, group, resource, namespace, why = permission
    named = f"{resource}.{group}" if group else resource
    place = f"in namespace {namespace}" if namespace else "in all namespaces"
    # JSON is YAML: the line can be pasted under `rules:` as it is
    rule = json.dumps({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
    role = f"the Role of the worker in {namespace}" if namespace else "the worker's ClusterRole"
    return findings.PERMISSION_MISSING.found(
        subject=subject or f"{verb} {named}",
        problem=f"The worker may not {verb} {named} {place}" + (f" ({why})." if why else "."),
        fix=f"Add to the rules of {role}: - {rule}",
    )


def permission_findings(denied: Iterable[Permission]) -> tuple[Finding, ...]:
    """One finding for each missing permission."""
    return tuple(permission_finding(permission) for permission in dict.fromkeys(denied))


_FORBIDDEN = re.compile(
    r'cannot (?P<verb>[a-z]+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)
"""How Kubernetes says no (apiserver, handlers/responsewriters: Forbidden); stable since 1.9."""


def refused_permission(text: str) -> Permission | None:
    """The permission that a refusal of the API server names, where it names one."""
    found = _FORBIDDEN.search(text)
    if found is None:
        return None
    return Permission(found["verb"], found["group"], found["resource"], found["namespace"] or "")


def platform_verdict(request: PlatformRequest, evidence: PlatformEvidence) -> PlatformDecision:
    """What is to be done about cert-manager. Every rule is asked, so that one round names every problem."""
    if not evidence.complete:
        denied = permission_findings((*evidence.denied, *evidence.installation_denied))
        return PlatformDecision(PlatformVerdict.REFUSE, denied)
    wanted = request.version or CERT_MANAGER_VERSION
    verdict, about_installed = _existing(request, wanted, evidence.installed)
    installs = verdict in {PlatformVerdict.INSTALL, PlatformVerdict.UPGRADE}
    found = (
        *_versions(request, wanted, evidence),
        *_gateway(request, evidence),
        *about_installed,
        *_not_ours(request, verdict),
        *permission_findings(
            (*evidence.denied, *evidence.additions_denied, *(evidence.installation_denied if installs else ()))
        ),
    )
    return PlatformDecision(PlatformVerdict.REFUSE if findings.errors(found) else verdict, found)


def _not_ours(request: PlatformRequest, verdict: PlatformVerdict) -> tuple[Finding, ...]:
    if request.high_availability is None or verdict is not PlatformVerdict.ADOPT:
        return ()
    return (
        findings.VALUES_NOT_OURS.found(
            subject=f"cert-manager of cluster {request.cluster}",
            problem="Its replicas, resources and disruption budgets are those of the tool that installed it.",
            fix="Set them there: two replicas and a PodDisruptionBudget for controller, webhook and cainjector.",
        ),
    )


def _versions(request: PlatformRequest, wanted: str, evidence: PlatformEvidence) -> tuple[Finding, ...]:
    found: list[Finding] = []
    subject = f"cluster {request.cluster}"
    version = _numbers(wanted)
    if reason := BROKEN_VERSIONS.get(version):
        found.append(
            findings.CERT_MANAGER_VERSION_BROKEN.found(
                subject=f"cert-manager {wanted}",
                problem=f"This release is not to be installed: {reason}.",
                fix=f"Ask for {CERT_MANAGER_VERSION}.",
            )
        )
    supported = KUBERNETES_FOR_CERT_MANAGER.get(version[:2])
    kubernetes = _numbers(evidence.kubernetes)[:2]
    # a version that nobody can read, or a cert-manager we have no row for, is unknown: not a reason to refuse
    if supported and len(kubernetes) == 2 and not supported[0] <= kubernetes <= supported[1]:
        first, last = ("{}.{}".format(*minor) for minor in supported)
        found.append(
            findings.KUBERNETES_VERSION_UNSUPPORTED.found(
                subject=subject,
                problem=f"Kubernetes is {evidence.kubernetes}; cert-manager {wanted} supports {first} to {last}.",
                fix="Upgrade the cluster, or ask for a cert-manager that supports it.",
            )
        )
    if not evidence.istio:
        found.append(
            findings.ISTIO_MISSING.found(
                subject=subject, problem="No istiod was found.", fix="Install Istio first: istioctl install"
            )
        )
    elif (minor := _numbers(evidence.istio)[:2]) and not ISTIO_TRIED[0] <= minor <= ISTIO_TRIED[1]:
        first, last = ("{}.{}".format(*tried) for tried in ISTIO_TRIED)
        found.append(
            findings.ISTIO_VERSION_UNSUPPORTED.found(
                subject=subject,
                problem=f"Istio is {evidence.istio}; {first} to {last} were tried.",
                fix="Upgrade Istio, or go on knowing that.",
            )
        )
    return tuple(found)


def _gateway(request: PlatformRequest, evidence: PlatformEvidence) -> tuple[Finding, ...]:
    target = request.gateway
    if not evidence.gateway_pods:
        selector = ",".join(f"{key}={value}" for key, value in target.selector)
        return (
            findings.GATEWAY_WORKLOAD_MISSING.found(
                subject=f"namespace {target.namespace}",
                problem=f"No Pod there has the labels {selector}.",
                fix=f"kubectl get pods -A -l {selector}; then correct the gateway's namespace or selector.",
            ),
        )
    if not evidence.gateway_addresses:
        return (
            findings.GATEWAY_ADDRESS_MISSING.found(
                subject=f"Service {target.namespace}/{target.service}",
                problem="The gateway's Service has no address.",
                fix="Wait for its load balancer, or set spec.externalIPs.",
            ),
        )
    return ()


def _existing(
    request: PlatformRequest, wanted: str, installed: tuple[InstalledCertManager, ...]
) -> tuple[PlatformVerdict, tuple[Finding, ...]]:
    if not installed:
        return PlatformVerdict.INSTALL, ()
    if len(installed) > 1:
        places = ", ".join(sorted(f"{one.namespace} ({one.version})" for one in installed))
        twice = findings.CERT_MANAGER_TWICE.found(
            subject=f"cluster {request.cluster}",
            problem=f"{len(installed)} cert-managers run: {places}.",
            fix="Remove all but one; keep its CustomResourceDefinitions, or every Certificate goes with them.",
        )
        return PlatformVerdict.REFUSE, (twice,)
    (one,) = installed
    subject = f"cert-manager in namespace {one.namespace}"
    have, want = _numbers(one.version), _numbers(wanted)
    if not one.release:
        return _foreign(one, subject, have, want, wanted)
    if one.namespace != request.namespace or one.release != RELEASE:
        foreign = findings.CERT_MANAGER_FOREIGN.found(
            subject=subject,
            problem=f"It is Helm release {one.release}; a second one would be {RELEASE} in {request.namespace}.",
            fix=f"Ask for namespace {one.namespace}."
            if one.release == RELEASE
            else f"helm uninstall {one.release} -n {one.namespace}, keeping the CustomResourceDefinitions.",
        )
        return PlatformVerdict.REFUSE, (foreign,)
    if unfinished(one.release_status):
        busy = findings.RELEASE_BUSY.found(
            subject=subject,
            problem=f"Its Helm release is {one.release_status}: another run is at it, or one was killed.",
            fix=f"helm history {one.release} -n {one.namespace}; helm rollback {one.release} where nobody is at it.",
        )
        return PlatformVerdict.REFUSE, (busy,)
    if have > want:
        newer = findings.CERT_MANAGER_NEWER.found(
            subject=subject,
            problem=f"{one.version} runs, and {wanted} was asked for.",
            fix=f"Ask for version {one.version} or later.",
        )
        return PlatformVerdict.REFUSE, (newer,)
    same = have == want and one.release_status in {"", "deployed"} and not one.values_differ
    return (PlatformVerdict.KEEP if same else PlatformVerdict.UPGRADE), ()


def _foreign(
    one: InstalledCertManager, subject: str, have: tuple[int, ...], want: tuple[int, ...], wanted: str
) -> tuple[PlatformVerdict, tuple[Finding, ...]]:
    """One that Helm does not own is used as it is where it is of the same minor, and never changed."""
    if have[:2] == want[:2] and have not in BROKEN_VERSIONS:
        adopted = findings.CERT_MANAGER_ADOPTED.found(
            subject=subject,
            problem=f"{one.version} runs and belongs to no Helm release; it is used as it is.",
            fix="Upgrade it with the tool that installed it.",
        )
        return PlatformVerdict.ADOPT, (adopted,)
    foreign = findings.CERT_MANAGER_FOREIGN.found(
        subject=subject,
        problem=f"{one.version or 'An unknown version'} runs and belongs to no Helm release; {wanted} is needed.",
        fix=f"Upgrade it to {wanted} with the tool that installed it.",
    )
    return PlatformVerdict.REFUSE, (foreign,)


def unfinished(release_status: str) -> bool:
    """Whether Helm's word for a release says that somebody is at it, or was killed while being."""
    return release_status.startswith(("pending", "uninstalling"))


class Revision(NamedTuple):
    """One revision of a Helm release: its number, Helm's word for it, and which run of ours made it, if one did."""

    number: int
    status: str
    run: str = ""


def previous_revision(revisions: Iterable[Revision], run: str) -> int:
    """The revision to go back to when what `run` did is taken back: the last good one of others; 0 for none."""
    good = {"deployed", "superseded"}
    return max((one.number for one in revisions if one.status in good and one.run != run), default=0)


_COMPONENTS = ("controller", "webhook", "cainjector")
"""cert-manager's three Deployments, by their label app.kubernetes.io/component."""


def missing_components(deployments: Iterable[Mapping[str, Any]], release: str) -> tuple[str, ...]:
    """Which of the release's three Deployments are not there or not available in their present form."""
    ready = set()
    for item in deployments:
        labels, status = item["metadata"].get("labels") or {}, item.get("status") or {}
        wanted = item["spec"].get("replicas", 1)
        seen = status.get("observedGeneration", 0) >= item["metadata"].get("generation", 0)
        updated, available = status.get("updatedReplicas") or 0, status.get("availableReplicas") or 0
        if labels.get("app.kubernetes.io/instance") == release and seen and min(updated, available) >= wanted > 0:
            ready.add(labels.get("app.kubernetes.io/component"))
    return tuple(name for name in _COMPONENTS if name not in ready)


def pod_findings(pods: Iterable[Mapping[str, Any]], release: str) -> tuple[Finding, ...]:
    """Why Pods of the release are not ready, in the node's own words; empty where all are."""
    found = []
    for pod in pods:
        metadata, status = pod["metadata"], pod.get("status") or {}
        labels = metadata.get("labels") or {}
        conditions = {item["type"]: item for item in status.get("conditions") or []}
        ready = conditions.get("Ready", {}).get("status") == "True"
        if ready or labels.get("app.kubernetes.io/instance") != release or metadata.get("deletionTimestamp"):
            continue
        name = f"{metadata.get('namespace', '')}/{metadata['name']}"
        found.append(
            findings.PODS_NOT_READY.found(
                subject=f"Pod {name}",
                problem=f"It is not ready: {_pod_words(status, conditions)}",
                fix=f"kubectl describe pod -n {name.replace('/', ' ')}",
            )
        )
    return tuple(found)


def _pod_words(status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> str:
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        why = state.get("waiting") or state.get("terminated") or (container.get("lastState") or {}).get("terminated")
        if why and not container.get("ready"):
            image = f" (image {container['image']})" if container.get("image") else ""
            return said(f"{why.get('reason', '')} {why.get('message', '')}".strip() + image)
    for kind in ("PodScheduled", "Ready"):
        words = conditions.get(kind, {})
        if words.get("status") == "False" and (words.get("message") or words.get("reason")):
            return said(str(words.get("message") or words.get("reason")))
    return f"it is {status.get('phase') or 'unknown'}."


_UNREACHABLE = re.compile(
    r"cluster unreachable|connection refused|connection reset|i/o timeout|TLS handshake timeout|no such host"
    r"|dial tcp|\bEOF\b|etcdserver|server is currently unable|too many requests|client rate limiter",
    re.IGNORECASE,
)


def surroundings_broken(helm_said: str) -> bool:
    """Whether Helm failed because the cluster or the chart's registry does not answer, which is waited for."""
    return _UNREACHABLE.search(helm_said) is not None


def release_failure(release: str, namespace: str, helm_said: str, pods: tuple[Finding, ...]) -> Finding:
    """Why a release could not be installed: a missing permission, Pods that do not get ready, or Helm's own words."""
    if refused := refused_permission(helm_said):
        return permission_finding(refused, subject=f"Helm release {namespace}/{release}")
    if pods:
        first = pods[0]
        more = f" {len(pods) - 1} more are not ready either." if len(pods) > 1 else ""
        return dataclasses.replace(first, problem=f"{first.problem}{more}")
    if re.search(r"another operation .* in progress", helm_said):
        kind, fix = findings.RELEASE_BUSY, f"helm history {release} -n {namespace}; wait for it, or roll it back."
    elif re.search(r"invalid ownership metadata|cannot be imported", helm_said):
        kind = findings.RELEASE_FAILED
        fix = (
            f"Give the object to the release: annotations meta.helm.sh/release-name={release}, "
            f"meta.helm.sh/release-namespace={namespace}, label app.kubernetes.io/managed-by=Helm; or remove it."
        )
    else:
        kind, fix = findings.RELEASE_FAILED, "Mend what Helm names, then install again."
    return kind.found(subject=f"Helm release {namespace}/{release}", problem=said(helm_said), fix=fix)


def release_values(request: PlatformRequest, operator: str, present: Mapping[str, Any]) -> dict[str, Any]:
    """The values to install: those of the present release, then ours, the operator's and the request's over them.

    What somebody once set on the release stays, so that an upgrade loses nothing; only what we set for high
    availability goes where the request says so. `operator` is a JSON object, the worker's setting. Raises ValueError
    where a text is no JSON object.
    """
    theirs = json.loads(operator or "{}")
    if not isinstance(theirs, dict):
        raise ValueError("the worker's Helm values are not an object")
    request_values = json.loads(request.values or "{}")
    if not isinstance(request_values, dict):
        raise ValueError("Helm values are not an object")
    if request.high_availability is False:
        present = availability.without_high_availability(present, RELEASE)
    ours = helm_values(dataclasses.replace(request, values="{}"))
    return _merged(_merged(_merged(present, ours), theirs), request_values)


def helm_values(request: PlatformRequest) -> dict[str, Any]:
    """Our Helm values with the request's merged over them. Raises ValueError where those are no JSON object.

    The guide's, corrected: `crds.enabled` for the former `installCRDs`; the definitions outlive the release, and
    Secrets outlive their Certificates; no sidecar, since a mesh breaks cert-manager's webhook and its look at port 80;
    the chart's own check is left out, since the proof through the webhook is ours.
    """
    outside_mesh = {"podLabels": {"sidecar.istio.io/inject": "false"}}
    ours: dict[str, Any] = {
        "crds": {"enabled": True, "keep": True},
        "prometheus": {"enabled": True},
        "enableCertificateOwnerRef": False,
        "global": {"leaderElection": {"namespace": request.namespace, **LEADER_ELECTION}},
        "startupapicheck": {"enabled": False},
        "webhook": {"timeoutSeconds": WEBHOOK_TIMEOUT_SECONDS, **outside_mesh},
        "cainjector": dict(outside_mesh),
        **outside_mesh,
    }
    if request.high_availability:
        ours = _merged(ours, availability.high_availability_values(RELEASE))
    if request.concurrent_workers:
        ours = _merged(ours, concurrency_values(request.concurrent_workers))
    theirs = json.loads(request.values or "{}")
    if not isinstance(theirs, dict):
        raise ValueError("Helm values are not an object")
    return _merged(ours, theirs)


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """As Helm merges: objects field by field, everything else replaced."""
    merged = dict(ours)
    for key, value in theirs.items():
        mine = merged.get(key)
        both = isinstance(mine, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(mine, value) if both else value  # type: ignore[arg-type]
    return merged


def _numbers(version: str) -> tuple[int, ...]:
    """``v1.36.3-gke.1`` as (1, 36, 3); empty where there are none."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(part) for part in found.groups() if part is not None) if found else ()
