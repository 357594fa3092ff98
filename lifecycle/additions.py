"""Which objects does a platform get beside cert-manager, and which are taken away again, on request?

NetworkPolicies, monitoring and the dashboard are objects of our own and no values of the chart, because they then
serve a cert-manager that another tool installed, and because a policy can carry the reason for each of its ports. Left
out: replicas and disruption budgets, which are the chart's (`lifecycle.availability`), writing any of it
(`activities.additions`), and what alerts and dashboard say (`deploy/alerts.yaml`, `deploy/dashboard.json`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lifecycle import findings
from lifecycle.availability import component_labels
from lifecycle.findings import Finding
from lifecycle.manifests import Manifest
from lifecycle.platform import RELEASE, Permission
from lifecycle.steps import AdditionFacts, ChangeKind, ObjectChange, PlatformRequest

MANAGED_BY = {"app.kubernetes.io/managed-by": "certwright"}

API_SERVER_PORTS = (443, 6443)
"""What Pods reach the API server on. A policy is asked after the Service's address was translated to an endpoint's
(Kubernetes documentation, "Network Policies": the order is not defined), so both are needed: 443 is the Service's and
that of most managed clusters, 6443 kubeadm's."""

REASONS_ANNOTATION = "certwright.dev/reasons"
DASHBOARD_LABEL = {"grafana_dashboard": "1"}
"""By which the sidecar of Grafana's Helm chart finds dashboards (its value `sidecar.dashboards.label`)."""

ALERTS_NAME = MONITOR_NAME = "certwright-cert-manager"
DASHBOARD_NAME = "certwright-dashboard"
DASHBOARD_FILE = "certwright.json"

_POLICY, _MONITORING = "networking.k8s.io/v1", "monitoring.coreos.com/v1"


class Source(NamedTuple):
    """The files of `deploy/` that objects are made of.

    Attributes:
        alerts: the rules as Prometheus reads them: an object with `groups`.
        dashboard: Grafana's model of the dashboard, as JSON.
    """

    alerts: Mapping[str, Any]
    dashboard: str


class Plan(NamedTuple):
    """Objects to be there, and objects not to be there, which are told by kind, namespace and name alone."""

    present: tuple[Manifest, ...]
    absent: tuple[Manifest, ...]


def objects_asked_for(request: PlatformRequest) -> bool:
    """Whether there is anything to bring or to take away beside the release."""
    return any(wish is not None for wish in (request.network_policies, request.monitoring, request.dashboard))


def plan(request: PlatformRequest, source: Source) -> Plan:
    """Everything that was asked for, in the namespace of the request, which must be cert-manager's."""
    groups = (
        (request.network_policies, network_policies(request)),
        (request.monitoring, (alerts(request, source), monitor(request))),
        (request.dashboard, (dashboard(request, source),)),
    )
    return Plan(
        present=tuple(item for wish, items in groups if wish is True for item in items),
        absent=tuple(_named(item) for wish, items in groups if wish is False for item in items),
    )


def _named(item: Manifest) -> Manifest:
    place = {key: item["metadata"][key] for key in ("name", "namespace")}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": place}


def is_ours(present: Mapping[str, Any]) -> bool:
    """Whether an object carries our label; no other one is changed or removed."""
    labels = present["metadata"].get("labels") or {}
    return MANAGED_BY.items() <= labels.items()


def foreign(present: Mapping[str, Any]) -> Finding:
    """An object that has our name and is not ours."""
    kind, namespace, name = present["kind"], present["metadata"]["namespace"], present["metadata"]["name"]
    return findings.ADDITION_FOREIGN.found(
        subject=f"{kind} {namespace}/{name}",
        problem="It has the name of ours and not our label: somebody else made it.",
        fix=f"kubectl get {kind.lower()} {name} -n {namespace} -o yaml; rename or remove it. Nothing was changed.",
    )


def kind_missing(wanted: Mapping[str, Any]) -> Finding:
    """A monitoring object that the cluster has no kind for."""
    return findings.MONITORING_KIND_MISSING.found(
        subject=f"{wanted['kind']} {wanted['metadata']['namespace']}/{wanted['metadata']['name']}",
        problem=f"The cluster has no {wanted['kind']} of {wanted['apiVersion']}, so it was left out.",
        fix="Install the Prometheus operator's CustomResourceDefinitions, then run the installation again.",
    )


def kept(facts: AdditionFacts) -> tuple[Finding, ...]:
    """What a failed run did to objects of earlier runs and is not taken back."""
    past = {ChangeKind.CHANGE: "changed", ChangeKind.REMOVE: "removed"}
    return tuple(
        findings.ADDITION_KEPT.found(
            subject=f"{one.kind} {one.namespace}/{one.name}",
            problem=f"This run {past[one.change]} it, and that was not taken back.",
            fix="certwright platform install, with the options of the run before this one.",
        )
        for one in facts.changes
        if one.change in past
    )


def created(facts: AdditionFacts) -> tuple[ObjectChange, ...]:
    """What a run made anew, in the order in which it is taken away again."""
    return tuple(one for one in reversed(facts.changes) if one.change is ChangeKind.CREATE)


API_VERSIONS = {
    "NetworkPolicy": _POLICY,
    "PrometheusRule": _MONITORING,
    "ServiceMonitor": _MONITORING,
    "ConfigMap": "v1",
}
"""Of every kind that is made here."""

# --- permissions ------------------------------------------------------------------------------------------------------


def addition_permissions(namespace: str) -> tuple[Permission, ...]:
    """What all of it needs beyond what an installation does, in cert-manager's namespace."""
    asked = PlatformRequest(
        cluster="", namespace=namespace, high_availability=True, network_policies=True, monitoring=True, dashboard=True
    )
    return needed_permissions(asked, namespace)


def needed_permissions(request: PlatformRequest, namespace: str) -> tuple[Permission, ...]:
    """What the wishes of a request need; a server-side apply that creates asks for `create` and `patch`."""
    ours, chart, group = "get create patch delete", "get list create patch update delete", "monitoring.coreos.com"
    rules = (
        (request.high_availability, "policy", "poddisruptionbudgets", chart, "the chart makes them on request"),
        (request.network_policies, "networking.k8s.io", "networkpolicies", ours, "one for each component"),
        (request.monitoring, group, "prometheusrules", ours, "alerts by fractions of lifetimes"),
        (request.monitoring, group, "servicemonitors", ours, "Prometheus learns where the metrics are"),
        (request.dashboard, "", "configmaps", ours, "Grafana's dashboard"),
    )
    return tuple(
        Permission(verb, api_group, resource, namespace, why)
        for wish, api_group, resource, verbs, why in rules
        if wish is not None
        for verb in verbs.split()
    )


# --- network policies -------------------------------------------------------------------------------------------------


class Port(NamedTuple):
    """One port of a policy: a number or a container port's name, and why it is open; `well_known` is for the reason."""

    port: int | str
    why: str
    protocol: str = "TCP"
    well_known: int = 0
    only_pods: bool = False


# Inbound by the container ports' names, since values may move the numbers (on a private GKE cluster often the
# webhook's); the names are the chart's.
_METRICS = Port("http-metrics", "Prometheus reads the metrics", well_known=9402, only_pods=True)
_DNS = (
    Port(53, "names are resolved, and propagation is looked at where the zones are served", "UDP"),
    Port(53, "answers too long for UDP (RFC 7766)"),
)


def _ports(request: PlatformRequest) -> dict[str, tuple[tuple[Port, ...], tuple[Port, ...]]]:
    """(inbound, outbound) by component."""
    servers = request.api_server_ports or API_SERVER_PORTS
    api = tuple(Port(port, "the API server is watched and written to") for port in servers)
    controller = (
        *_DNS,
        Port(80, "the self-check of an HTTP-01 challenge, before the CA looks (RFC 8555, section 8.3)"),
        # Istio's own profile listens there; a node sends what goes to its load balancer's address straight to the Pod
        Port(8080, "the same where the node sends it straight to the gateway's Pod", only_pods=True),
        Port(443, "directories of ACME CAs, APIs of DNS providers"),
        *(port for port in api if port.port != 443),
        *(Port(port, "a CA or DNS service named in the request") for port in request.issuer_ports),
    )
    if 443 in servers:
        controller = tuple(
            port._replace(why=f"{port.why}; the API server") if port.port == 443 else port for port in controller
        )
    return {
        "controller": (
            (_METRICS, Port("http-healthz", "the kubelet asks whether it lives", well_known=9403)),
            controller,
        ),
        "webhook": (
            (
                Port("https", "the API server asks it; its address is not one of a Pod", well_known=10250),
                Port("healthcheck", "the kubelet asks whether it lives", well_known=6080),
                _METRICS,
            ),
            (*_DNS, *api),
        ),
        "cainjector": ((_METRICS,), (*_DNS, *api)),
    }


def network_policies(request: PlatformRequest) -> tuple[Manifest, ...]:
    """One NetworkPolicy for each component, with the reason of each port in an annotation.

    The guide's selects `app: cert-manager` alone, and misses webhook and cainjector, DNS over TCP, the self-check on
    port 80, the API server's own port and the metrics. Outbound traffic is bound to ports, not to addresses: a CA's and
    a zone's addresses change.
    """
    return tuple(
        {
            "apiVersion": _POLICY,
            "kind": "NetworkPolicy",
            "metadata": {
                "name": f"certwright-cert-manager-{component}",
                "namespace": request.namespace,
                "labels": dict(MANAGED_BY),
                "annotations": {REASONS_ANNOTATION: _reasons(inbound, outbound)},
            },
            "spec": {
                "podSelector": {"matchLabels": _labels_of(component)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [_rule(port) for port in inbound],
                "egress": _egress(outbound),
            },
        }
        for component, (inbound, outbound) in _ports(request).items()
    )


def _rule(port: Port) -> Manifest:
    rule: Manifest = {"ports": [{"port": port.port, "protocol": port.protocol}]}
    return {"from": [{"namespaceSelector": {}}], **rule} if port.only_pods else rule


def _egress(outbound: tuple[Port, ...]) -> list[Manifest]:
    anywhere = [{"port": port.port, "protocol": port.protocol} for port in outbound if not port.only_pods]
    pods = [{"port": port.port, "protocol": port.protocol} for port in outbound if port.only_pods]
    return [{"ports": anywhere}, *([{"to": [{"namespaceSelector": {}}], "ports": pods}] if pods else [])]


def _reasons(inbound: Iterable[Port], outbound: Iterable[Port]) -> str:
    lines = [f"in {port.well_known or port.port}/{port.protocol}: {port.why}" for port in inbound]
    lines += [f"out {port.port}/{port.protocol}: {port.why}" for port in outbound]
    return "\n".join(lines)


def _labels_of(component: str) -> dict[str, str]:
    return component_labels(RELEASE, component)


# --- monitoring -------------------------------------------------------------------------------------------------------


def alerts(request: PlatformRequest, source: Source) -> Manifest:
    """The PrometheusRule (monitoring.coreos.com/v1) with the rules of `deploy/alerts.yaml`."""
    return {
        "apiVersion": _MONITORING,
        "kind": "PrometheusRule",
        "metadata": _metadata(request, ALERTS_NAME),
        "spec": {"groups": [dict(group) for group in source.alerts["groups"]]},
    }


def monitor(request: PlatformRequest) -> Manifest:
    """The ServiceMonitor (monitoring.coreos.com/v1) of all three components.

    `honorLabels`: the metrics' own `namespace` is that of the Certificate; without it Prometheus renames it to
    `exported_namespace` and puts cert-manager's there (Prometheus documentation, "scrape_config").
    """
    components = ["cainjector", "controller", "webhook"]
    return {
        "apiVersion": _MONITORING,
        "kind": "ServiceMonitor",
        "metadata": _metadata(request, MONITOR_NAME),
        "spec": {
            "jobLabel": "app.kubernetes.io/name",
            "selector": {
                "matchExpressions": [
                    {"key": "app.kubernetes.io/instance", "operator": "In", "values": [RELEASE]},
                    {"key": "app.kubernetes.io/component", "operator": "In", "values": components},
                ]
            },
            "endpoints": [{"targetPort": "http-metrics", "path": "/metrics", "interval": "60s", "honorLabels": True}],
        },
    }


def dashboard(request: PlatformRequest, source: Source) -> Manifest:
    """The ConfigMap from which Grafana's sidecar takes the dashboard."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": DASHBOARD_NAME,
            "namespace": request.namespace,
            "labels": {**MANAGED_BY, **DASHBOARD_LABEL},
        },
        "data": {DASHBOARD_FILE: source.dashboard},
    }


def _metadata(request: PlatformRequest, name: str) -> Manifest:
    labels = {**dict(request.monitoring_labels), **MANAGED_BY}
    return {"name": name, "namespace": request.namespace, "labels": labels}
