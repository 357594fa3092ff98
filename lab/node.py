"""The lab's Node: registers itself, binds Pods, runs them, and reports, as kubelet and scheduler do on a cluster.

Everything comes by list and watch: Pods of the whole cluster (pending ones are bound here), ConfigMaps and Secrets
(for volumes; Helm's release records are left out). The Node is Ready before the first Pod is looked at, since the
EndpointSlice controller skips Pods of unknown nodes and comes back late. Left out: the kubelet's own HTTP API (logs
and exec), eviction, taints, affinity, resource accounting. A nodeSelector that does not match leaves a Pod pending.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import platform
import shutil
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from lab.api import APPLY, MERGE_PATCH, Api, ApiError, Json, cluster_of
from lab.images import Images
from lab.pod import Pod, PortClaims, Surroundings, timestamp
from lab.processes import ProcessGuard
from lab.solver import SolverListener

HEARTBEAT_SECONDS = 10.0
RETRY_SECONDS = 1.0
LEASE_CALL_SECONDS = 5.0
LEASE_SECONDS = 40
SHUTDOWN_GRACE_SECONDS = 5.0
KEPT_POD_DIRECTORIES = 60
_FIELD_MANAGER = "certwright-lab-node"
_SCRUBBED = (ApiError, aiohttp.ClientError, TimeoutError, OSError)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """One node: its `name`, the `address` its Pods have (not loopback), its `directory`, an admin's `kubeconfig`."""

    name: str
    address: str
    directory: Path
    kubeconfig: Path
    images: Images


def host_address() -> str:
    """This host's own address, which Pods carry: EndpointSlices refuse loopback (Kubernetes: "EndpointSlices").

    The source address of the default route; where there is none, the first address of the host's name that is not
    loopback. No packet is sent. Raises RuntimeError where the host has loopback only.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        address = str(probe.getsockname()[0])
        if not address.startswith("127."):
            return address
    with contextlib.suppress(OSError):
        for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET):
            if not str(entry[4][0]).startswith("127."):
                return str(entry[4][0])
    raise RuntimeError("this host has no IPv4 address but loopback, and Kubernetes refuses loopback for Pods")


async def run_node(settings: NodeSettings, ready: asyncio.Event, pods: dict[str, Pod]) -> None:
    """Be the node until cancelled; `ready` is set once Pods are watched. Ends every Pod's process on the way out.

    `pods` is kept as the table of what runs, by uid.
    """
    guard = ProcessGuard()
    await guard.open()
    solver = SolverListener(address=settings.address, port=settings.images.ports.solver)
    try:
        await solver.start()
        async with Api.connect(settings.kubeconfig) as api, aiohttp.ClientSession() as session:
            node = Node(settings, api, session, guard, solver, pods)
            try:
                await node.run(ready)
            finally:
                await node.shut_down()
    finally:
        await solver.stop()
        await guard.close()


class Node:
    """The node's loops and the Pods it runs."""

    def __init__(
        self,
        settings: NodeSettings,
        api: Api,
        session: aiohttp.ClientSession,
        guard: ProcessGuard,
        solver: SolverListener,
        pods: dict[str, Pod],
    ) -> None:
        self._settings = settings
        self._api = api
        self._cache: dict[tuple[str, str, str], Json] = {}
        self._pods = pods
        self._tasks: set[asyncio.Task[None]] = set()
        self._labels = {
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
            "kubernetes.io/hostname": settings.name,
        }
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._capacity = {"cpu": float(os.cpu_count() or 1), "memory": float(memory)}
        self._around = Surroundings(
            api=api,
            node=settings.name,
            address=settings.address,
            directory=settings.directory,
            cluster=cluster_of(settings.kubeconfig),
            images=settings.images,
            guard=guard,
            solver=solver,
            session=session,
            claims=PortClaims(),
            capacity=self._capacity,
            lookup=self._lookup,
            event=self._event,
        )

    async def run(self, ready: asyncio.Event) -> None:
        """Register, then follow the cluster for ever."""
        self._settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._until_done(self._register)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            group.create_task(self._follow_sources("configmaps", {}))
            group.create_task(self._follow_sources("secrets", {"fieldSelector": "type!=helm.sh/release.v1"}))
            group.create_task(self._follow_pods(ready))

    async def shut_down(self) -> None:
        """End every Pod's processes; the Pods' objects stay."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(pod.stop(SHUTDOWN_GRACE_SECONDS) for pod in self._pods.values()))

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            with contextlib.suppress(*_SCRUBBED):
                await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_done(self, work: Callable[[], Awaitable[object]]) -> None:
        delay = 0.1
        while True:
            try:
                await work()
                return
            except _SCRUBBED:
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)

    # -- the Node object -----------------------------------------------------------------------------------------

    async def _register(self) -> None:
        name = self._settings.name
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": self._labels}}
        query = {"fieldManager": _FIELD_MANAGER, "force": "true"}
        await self._api.call("PATCH", f"/api/v1/nodes/{name}", body=body, query=query, content_type=APPLY)
        await self._report_node()
        await self._renew_lease()

    async def _report_node(self) -> None:
        now = timestamp()
        quantities = {
            "cpu": str(int(self._capacity["cpu"])),
            "memory": f"{int(self._capacity['memory'] // 1024)}Ki",
            "pods": "250",
            "ephemeral-storage": "100Gi",
        }
        conditions = [
            ("Ready", "True", "KubeletReady"),
            ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ]
        version = await self._api.call("GET", "/version")
        status = {
            "capacity": quantities,
            "allocatable": quantities,
            "addresses": [
                {"type": "InternalIP", "address": self._settings.address},
                {"type": "Hostname", "address": self._settings.name},
            ],
            "conditions": [
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": "the lab's node is up",
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": now,
                }
                for kind, status, reason in conditions
            ],
            "nodeInfo": {
                "architecture": self._labels["kubernetes.io/arch"],
                "operatingSystem": "linux",
                "osImage": "host processes",
                "kernelVersion": platform.release(),
                "kubeletVersion": version["gitVersion"],
                "kubeProxyVersion": "",
                "containerRuntimeVersion": "lab://processes",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
            },
        }
        path = f"/api/v1/nodes/{self._settings.name}/status"
        await self._api.call("PATCH", path, body={"status": status}, content_type=MERGE_PATCH)

    async def _renew_lease(self) -> None:
        name, now = self._settings.name, timestamp().replace("Z", ".000000Z")
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
        }
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"
        query = {"fieldManager": _FIELD_MANAGER, "force": "true"}
        try:
            await self._api.call("PATCH", path, body=body, query=query, content_type=APPLY, timeout=LEASE_CALL_SECONDS)
        except ApiError as error:
            if error.status != 404:  # the namespace is made a moment after the API server is up
                raise

    async def _beat(self) -> None:
        """Renew the lease, and now and then the status; after the API was away, both as soon as it is back."""
        beats, heard = 0, True
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS if beats and heard else RETRY_SECONDS)
            beats += 1
            try:
                await self._renew_lease()
                if not heard or beats % 6 == 0:
                    await self._report_node()
                heard = True
            except _SCRUBBED:
                heard = False
            for pod in self._pods.values():
                with contextlib.suppress(OSError):
                    pod.bound_logs()

    # -- ConfigMaps and Secrets ----------------------------------------------------------------------------------

    async def _follow_sources(self, kind: str, query: dict[str, str]) -> None:
        async for change, item in self._api.follow(f"/api/v1/{kind}", query=query):
            if change == "SYNCED":
                continue
            namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
            if change == "DELETED":
                self._cache.pop((kind, namespace, name), None)
            else:
                self._cache[kind, namespace, name] = item
            for pod in self._pods.values():
                if pod.namespace == namespace:
                    pod.source_changed(kind, name)

    async def _lookup(self, kind: str, namespace: str, name: str) -> Json | None:
        """From the cache, or the API server for what the watch has not brought yet."""
        if found := self._cache.get((kind, namespace, name)):
            return found
        try:
            return await self._api.call("GET", f"/api/v1/namespaces/{namespace}/{kind}/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    # -- Pods ----------------------------------------------------------------------------------------------------

    async def _follow_pods(self, ready: asyncio.Event) -> None:
        async for change, item in self._api.follow("/api/v1/pods"):
            if change == "SYNCED":
                ready.set()
                continue
            uid = item["metadata"]["uid"]
            if change == "DELETED":
                if pod := self._pods.pop(uid, None):
                    self._spawn(self._forget(pod))
                continue
            bound = item["spec"].get("nodeName")
            if not bound and not item["metadata"].get("deletionTimestamp"):
                self._spawn(self._bind(item))
            elif bound == self._settings.name:
                self._admit(item)

    async def _bind(self, item: Json) -> None:
        namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
        wanted = item["spec"].get("nodeSelector") or {}
        if any(self._labels.get(key) != value for key, value in wanted.items()) or item["spec"].get("schedulingGates"):
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "the node's labels do not match the Pod's nodeSelector",
                "lastTransitionTime": timestamp(),
            }
            already = (item.get("status") or {}).get("conditions") or []
            if not any(entry.get("reason") == "Unschedulable" for entry in already):
                path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
                conditions: Json = {"status": {"conditions": [condition]}}
                await self._api.call("PATCH", path, body=conditions, content_type=MERGE_PATCH)
            return
        body: Json = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": item["metadata"]["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self._settings.name},
        }

        async def bind() -> None:
            try:
                await self._api.call("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/binding", body=body)
            except ApiError as error:
                if error.status not in {403, 404, 409}:  # 403: its namespace is being deleted
                    raise

        await self._until_done(bind)  # nobody says again that the Pod is pending

    def _admit(self, item: Json) -> None:
        uid = item["metadata"]["uid"]
        pod = self._pods.get(uid)
        leaving = item["metadata"].get("deletionTimestamp")
        if pod is None:
            pod = Pod(item, self._around)
            self._pods[uid] = pod
            finished = (item.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
            if not leaving and not finished:
                pod.start()
        else:
            pod.update(item)
        if leaving and not pod.leaving:
            pod.leaving = True
            self._spawn(self._delete(pod, float(item["metadata"].get("deletionGracePeriodSeconds") or 0)))

    async def _delete(self, pod: Pod, grace: float) -> None:
        await pod.stop(grace)
        with contextlib.suppress(*_SCRUBBED):
            await pod.report()
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        delay = 0.1
        while True:
            try:
                await self._api.call("DELETE", path, body=body)
                return
            except ApiError as error:
                if error.status in {404, 409}:
                    return
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    async def _forget(self, pod: Pod) -> None:
        await pod.stop(0 if not pod.leaving else SHUTDOWN_GRACE_SECONDS)
        pod.remove_files()
        self._prune_directories()

    def _prune_directories(self) -> None:
        """Logs of Pods that have gone stay, of the newest `KEPT_POD_DIRECTORIES`."""
        running = {pod.directory for pod in self._pods.values()}
        gone = [entry for entry in (self._settings.directory / "pods").glob("*_*") if entry not in running]
        for entry in sorted(gone, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_POD_DIRECTORIES:]:
            shutil.rmtree(entry, ignore_errors=True)

    def _event(self, item: Json, kind: str, reason: str, message: str) -> None:
        metadata = item["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "reason": reason,
            "message": message[:1000],
            "type": kind,
            "source": {"component": "kubelet", "host": self._settings.name},
            "firstTimestamp": timestamp(),
            "lastTimestamp": timestamp(),
            "count": 1,
        }
        self._spawn(self._post_event(metadata["namespace"], body))

    async def _post_event(self, namespace: str, body: Json) -> None:
        await self._api.call("POST", f"/api/v1/namespaces/{namespace}/events", body=body)
