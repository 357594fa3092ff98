"""Which port of this host stands for a Pod's well-known port, so that two labs can run side by side.

Pods share the host's network here, and some ports are written into charts and programs: istiod's 15017, the
cert-manager webhook's 10250, an acmesolver's 8089. A container network would give each Pod an address of its own; the
lab translates ports instead, as a load balancer with port mapping does:

- programs are told other ports by flags or environment (`lab.images`), and probes follow (`lab.pod`);
- for those that others reach through a Service, a MutatingAdmissionPolicy rewrites the port in the Service's
  EndpointSlices. Pods, Services and charts stay as they are; only the addresses behind a Service name the real
  port. The EndpointSlice controller compares generations, not contents, so it does not fight the rewrite.

Ports nobody reaches through a Service (probes, metrics, Envoy's admin) are chosen free for each Pod at its start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from typing import Any

_ANY = "0.0.0.0"


def free_ports(count: int) -> tuple[int, ...]:
    """`count` distinct TCP ports that nobody listens on now, on any address of this host."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            listener.bind((_ANY, 0))
            ports.append(int(listener.getsockname()[1]))
        return tuple(ports)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The host's ports of one lab that stand for well-known ones. Each is a TCP port number."""

    istiod_grpc: int
    istiod_xds: int
    istiod_webhook: int
    istiod_monitoring: int
    cert_manager_webhook: int
    solver: int

    @classmethod
    def choose(cls) -> Ports:
        """Free ports for a new lab."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**dict(zip(names, free_ports(len(names)), strict=True)))

    @property
    def istiod(self) -> dict[int, int]:
        """Istiod's ports that are reached through its Service, by their well-known numbers."""
        return {
            15010: self.istiod_grpc,
            15012: self.istiod_xds,
            15014: self.istiod_monitoring,
            15017: self.istiod_webhook,
        }

    def policies(self) -> tuple[dict[str, Any], ...]:
        """The policies and bindings that rewrite EndpointSlices, to be applied before anything is installed.

        An EndpointSlice carries its Service's labels, and these select it.
        """
        return (
            *_policy("istiod", {"app": "istiod"}, self.istiod),
            *_policy(
                "cert-manager-webhook",
                {"app.kubernetes.io/component": "webhook", "app.kubernetes.io/name": "webhook"},
                {10250: self.cert_manager_webhook},
            ),
            *_policy("acme-solver", {"acme.cert-manager.io/http01-solver": "true"}, {8089: self.solver}),
        )


def _policy(name: str, labels: dict[str, str], table: dict[int, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    translated = "{" + ", ".join(f"{declared}: {real}" for declared, real in table.items()) + "}"
    expression = (
        "(has(object.ports) ? object.ports : [])"
        ".map(p, has(p.port) ? int(p.port) : 0).size() == 0 ? [] : "
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9].filter(i, i < size(object.ports) && has(object.ports[i].port)"
        " && int(object.ports[i].port) in variables.table)"
        '.map(i, JSONPatch{op: "replace", path: "/ports/" + string(i) + "/port",'
        " value: variables.table[int(object.ports[i].port)]})"
    )
    metadata = {"name": f"lab-ports-{name}"}
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": metadata,
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {
                "objectSelector": {"matchLabels": labels},
                "resourceRules": [
                    {
                        "apiGroups": ["discovery.k8s.io"],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["endpointslices"],
                    }
                ],
            },
            "variables": [{"name": "table", "expression": translated}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": metadata,
        "spec": {"policyName": metadata["name"]},
    }
    return policy, binding
