"""What a test or a shell breaks of a lab, by name, and mends again.

A name is a server (etcd, kube-apiserver, kube-controller-manager, pebble) or a Deployment (cert-manager, istiod,
istio-ingressgateway, ...). What "gone" means differs:

- frozen (SIGSTOP): connections are accepted by the kernel, and nobody answers; nothing is lost;
- stopped: connections are refused. A server is killed and later started with the same arguments, ports and data; a
  Deployment is scaled to 0 and back. Pebble keeps everything in memory: a stopped one comes back as another CA;
- refused (pebble only): connections are refused while it goes on, so that its state is kept;
- killed: SIGKILL once; the lab or the node starts it again at once.

Left out: DNS (`lab.dns`) and load balancer (`lab.loadbalancer`), which have faults of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from lab.api import MERGE_PATCH, Json
from lab.loadbalancer import Fault
from lab.pod import Pod

if TYPE_CHECKING:
    from lab.cluster import Lab

_GONE_SECONDS = 60.0
ACME = "pebble"


class UnknownNameError(Exception):
    """Nothing of the lab has that name, or it cannot be broken in that way; the message says what can."""


class Faults:
    """The faults of one lab. Every method raises UnknownNameError."""

    def __init__(self, lab: Lab, pods: Mapping[str, Pod]) -> None:
        """`pods`: what the node runs, by uid; kept up to date by the node."""
        self._lab = lab
        self._pods = pods
        self._replicas: dict[str, int] = {}
        self._changing: dict[str, asyncio.Lock] = {}

    def names(self) -> tuple[str, ...]:
        """What can be broken now."""
        workloads = {_workload(pod.manifest) for pod in self._pods.values()} | set(self._replicas)
        return (*(server.name for server in self._lab.servers), *sorted(workloads - {""}))

    async def freeze(self, name: str) -> None:
        """Stop every process of it where it stands (SIGSTOP)."""
        self._signal(name, signal.SIGSTOP)

    async def thaw(self, name: str) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(name, signal.SIGCONT)

    async def kill(self, name: str) -> None:
        """SIGKILL, as a crash; whoever owns it starts it again."""
        self._signal(name, signal.SIGKILL)

    async def stop(self, name: str) -> None:
        """End it, and return once it has ended; it stays away until `start`. Raises LabError, ApiError."""
        async with self._changing.setdefault(name, asyncio.Lock()):
            if name in self._lab.servers:
                await self._lab.servers.stop(name, grace=0)  # as a machine that goes away, without a good-bye
                return
            namespace, found = await self._deployment(name)
            self._replicas[name] = int(found["spec"].get("replicas", 1)) or self._replicas.get(name, 1)
            await self._scale(namespace, name, 0)
            async with asyncio.timeout(_GONE_SECONDS):
                while self._workload_pods(name):  # noqa: ASYNC110 - the node has no event for it
                    await asyncio.sleep(0.05)

    async def start(self, name: str) -> None:
        """Have it back as it was, and return once it is ready. Raises LabError, ApiError, OSError."""
        async with self._changing.setdefault(name, asyncio.Lock()):
            if name in self._lab.servers:
                await self._lab.servers.start_again(name)
                await self._lab.server_ready(name)
                return
            namespace, found = await self._deployment(name)
            replicas = self._replicas.pop(name, 1)
            if not int(found["spec"].get("replicas", 1)):
                await self._scale(namespace, name, replicas)
            await self._lab.deployment_available(namespace, name)

    async def restart(self, name: str, *, seconds: float = 0.0) -> None:
        """Have it away for `seconds`, then back. Raises as `stop` and `start`."""
        async with self.stopped(name):
            await asyncio.sleep(seconds)

    async def refuse(self, name: str = ACME) -> None:
        """The ACME CA's address refuses connections from now on; the CA itself goes on."""
        self._only_acme(name)
        await self._lab.acme_front.break_(self._lab.acme_front.fronts[0], Fault.REFUSE)

    async def accept(self, name: str = ACME) -> None:
        """The ACME CA's address accepts connections again."""
        self._only_acme(name)
        await self._lab.acme_front.mend(self._lab.acme_front.fronts[0])

    @contextlib.asynccontextmanager
    async def frozen(self, name: str) -> AsyncIterator[None]:
        """Frozen for as long as the block."""
        await self.freeze(name)
        try:
            yield
        finally:
            await self.thaw(name)

    @contextlib.asynccontextmanager
    async def stopped(self, name: str) -> AsyncIterator[None]:
        """Really stopped for as long as the block; ready again when it is left. Raises as `stop` and `start`."""
        await self.stop(name)
        try:
            yield
        finally:
            await self.start(name)

    @contextlib.asynccontextmanager
    async def refused(self, name: str = ACME) -> AsyncIterator[None]:
        """The ACME CA's address refuses connections for as long as the block."""
        await self.refuse(name)
        try:
            yield
        finally:
            await self.accept(name)

    def _signal(self, name: str, number: signal.Signals) -> None:
        if name in self._lab.servers:
            try:
                self._lab.servers.signal(name, number)
            except ProcessLookupError as error:
                raise UnknownNameError(str(error)) from None
            return
        groups = [pid for pod in self._workload_pods(name) for pid in pod.processes().values()]
        if not groups:
            raise UnknownNameError(self._unknown(name))
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)

    def _workload_pods(self, name: str) -> list[Pod]:
        return [pod for pod in self._pods.values() if name in {_workload(pod.manifest), pod.name}]

    async def _deployment(self, name: str) -> tuple[str, Json]:
        listed = await self._lab.api.call("GET", "/apis/apps/v1/deployments")
        for item in listed["items"]:
            if item["metadata"]["name"] == name:
                return str(item["metadata"]["namespace"]), item
        raise UnknownNameError(self._unknown(name))

    async def _scale(self, namespace: str, name: str, replicas: int) -> None:
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
        await self._lab.api.call("PATCH", path, body={"spec": {"replicas": replicas}}, content_type=MERGE_PATCH)

    def _only_acme(self, name: str) -> None:
        if name != ACME:
            raise UnknownNameError(f"only {ACME} can refuse connections and go on; stop {name} instead")

    def _unknown(self, name: str) -> str:
        return f"nothing of the lab that runs is called {name!r}; there are: {', '.join(self.names())}"


def _workload(manifest: Json) -> str:
    """The name of the Deployment that a Pod belongs to; empty where it belongs to none."""
    metadata = manifest["metadata"]
    for owner in metadata.get("ownerReferences") or []:
        if owner["kind"] == "ReplicaSet":
            return re.sub(r"-[a-z0-9]+$", "", str(owner["name"]))
    return ""
