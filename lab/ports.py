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
import os
import random
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any

_ANY = "0.0.0.0"
_FIRST, _LAST = 20_000, 29_999
"""Between the well-known ports and Kubernetes' node ports, and below what Linux gives to outgoing connections."""
_BLOCK = 100


class _Reserve:
    """The ports that this process may give away: blocks of `_BLOCK`, each held by one process of this host.

    A block is held by a name in the abstract socket namespace (unix(7)), which the kernel frees when the process ends,
    however it ends. So two labs that choose at the same moment choose from different ports, and since none of them is
    one of the kernel's ephemeral ports, no outgoing connection can take a port between its choice and its use.
    """

    def __init__(self) -> None:
        self._process = 0
        self._held: list[socket.socket] = []
        self._ports: list[int] = []
        self._next = 0

    def take(self, but: Collection[int]) -> int:
        """A free port other than `but`: the one given away longest ago, or one of a new block.

        Raises OSError where none is left.
        """
        if self._process != os.getpid():  # a fork shares its parent's block with it
            self._process, self._held, self._ports, self._next = os.getpid(), [], [], 0
        while True:
            for _ in range(len(self._ports)):
                port = self._ports[self._next % len(self._ports)]
                self._next += 1
                if port not in but and _is_free(port):
                    return port
            first = self._block()
            self._next = len(self._ports)
            self._ports += range(first, first + _BLOCK)

    def _block(self) -> int:
        blocks = [first for first in range(_FIRST, _LAST, _BLOCK) if first + _BLOCK <= _ephemeral_from()]
        random.shuffle(blocks)
        for first in blocks:
            holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                holder.bind(f"\0certwright-lab-ports-{first}")
            except OSError:
                holder.close()
                continue
            self._held.append(holder)
            return first
        raise OSError(f"other labs hold all ports from {_FIRST} to {_LAST}")


_RESERVE = _Reserve()


def _ephemeral_from() -> int:
    """The first port that the kernel gives to outgoing connections (ip(7), ip_local_port_range)."""
    with contextlib.suppress(OSError, ValueError):
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        if first > _FIRST + _BLOCK:
            return first
    return _LAST + 1


def _is_free(port: int) -> bool:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: a port may linger in TIME_WAIT
        try:
            tcp.bind((_ANY, port))
            udp.bind((_ANY, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> tuple[int, ...]:
    """`count` distinct TCP and UDP ports that nobody listens on, and that no other lab on this host is given.

    Raises OSError where the host has none left.
    """
    ports: list[int] = []
    while len(ports) < count:
        ports.append(_RESERVE.take(ports))
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
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9].filter(i, i < size(variables.ports) && has(variables.ports[i].port)"
        " && int(variables.ports[i].port) in variables.table)"
        '.map(i, JSONPatch{op: "replace", path: "/ports/" + string(i) + "/port",'
        " value: variables.table[int(variables.ports[i].port)]})"
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
            "variables": [
                {"name": "table", "expression": translated},
                # a Service that no Pod is Ready for yet has a slice whose ports are null
                {"name": "ports", "expression": "has(object.ports) && object.ports != null ? object.ports : []"},
            ],
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
