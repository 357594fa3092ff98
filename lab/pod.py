"""One Pod of the lab: its volumes, environment, containers, probes and status, from binding to deletion.

A container is a process whose working directory is a root of its own, with the mounts laid out below it; absolute mount
paths in arguments and variables are rewritten to lie there. Left out: isolation of any kind, users, resource limits,
shared process namespaces, ephemeral containers, post-start hooks.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import aiohttp
import yaml

from lab import probes, volumes
from lab.api import MERGE_PATCH, Api, ApiError, Json
from lab.images import Images, Launch, UnknownImageError
from lab.processes import ProcessGuard
from lab.solver import Solution, SolverListener

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
BACK_OFF_FIRST, BACK_OFF_LAST = 0.5, 30.0
BACK_OFF_FORGIVEN = 60.0
"""Seconds a container must have run for its back-off to start over."""
LOG_LIMIT = 16 * 2**20
MOUNT_RETRY_SECONDS = 2.0
_TRANSIENT = (ApiError, aiohttp.ClientError, TimeoutError, OSError)


def timestamp() -> str:
    """Now, as the API writes times."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class PortClaims:
    """Which Pod has a port that only one can have.

    The newest Pod that wants a port gets it: a Deployment's rolling update starts the new Pod before it ends the old
    one, and on one host the old must give way. When the newest goes, the next newest has it back. The API tells ages to
    the second only; of two Pods made within one, the newer is the one that was bound to the node later.
    """

    def __init__(self) -> None:
        self._wanted: dict[int, dict[str, tuple[str, int]]] = {}
        self._held: dict[int, str] = {}
        self._changed = asyncio.Condition()

    async def want(self, ports: Iterable[int], uid: str, age: tuple[str, int]) -> None:
        """Announce that a Pod wants ports, until `leave`. `age` is its creation's timestamp and its number here."""
        async with self._changed:
            for port in ports:
                self._wanted.setdefault(port, {})[uid] = age
            self._changed.notify_all()

    def _first(self, port: int) -> str | None:
        wanted = self._wanted.get(port) or {}
        return max(wanted, key=lambda uid: wanted[uid]) if wanted else None

    async def take(self, ports: Iterable[int], uid: str) -> None:
        """Wait until all `ports` are free and this Pod is the newest that wants them; then hold them."""
        ports = tuple(ports)
        async with self._changed:
            await self._changed.wait_for(
                lambda: all(self._first(port) == uid and self._held.get(port, uid) == uid for port in ports)
            )
            for port in ports:
                self._held[port] = uid

    async def outranked(self, ports: Iterable[int], uid: str) -> None:
        """Wait until a newer Pod wants one of `ports`."""
        ports = tuple(ports)
        async with self._changed:
            await self._changed.wait_for(lambda: any(self._first(port) != uid for port in ports))

    async def release(self, ports: Iterable[int], uid: str) -> None:
        """The process that used `ports` has ended."""
        async with self._changed:
            for port in ports:
                if self._held.get(port) == uid:
                    del self._held[port]
            self._changed.notify_all()

    async def leave(self, uid: str) -> None:
        """The Pod has gone, or is going: it wants nothing any more, but holds its ports until `release`."""
        async with self._changed:
            for wanted in self._wanted.values():
                wanted.pop(uid, None)
            self._changed.notify_all()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the Pods of a node share."""

    api: Api
    node: str
    address: str
    directory: Path
    cluster: Json
    """The kubeconfig's `cluster` entry."""
    images: Images
    guard: ProcessGuard
    solver: SolverListener
    session: aiohttp.ClientSession
    claims: PortClaims
    capacity: dict[str, float]
    lookup: volumes.LookupIn
    event: Callable[[Json, str, str, str], None]
    """(Pod, type, reason, message)"""


class Container:
    """One container's state, as its status shows it."""

    def __init__(self, spec: Json, previous: Json | None) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.state: Json = {"waiting": {"reason": "ContainerCreating"}}
        self.last: Json = {}
        self.restarts = 0
        self.ready = False
        self.started = False
        self.process: asyncio.subprocess.Process | None = None
        self.launch: Launch | None = None
        if previous and previous.get("state", {}).keys() - {"waiting"}:
            self.restarts = int(previous.get("restartCount", 0)) + 1

    def status(self) -> Json:
        """The `containerStatuses` entry."""
        return {
            "name": self.name,
            "image": self.spec.get("image", ""),
            "imageID": "",
            "containerID": f"lab://{self.process.pid}" if self.process else "",
            "state": self.state,
            "lastState": self.last,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
        }

    @property
    def exit_code(self) -> int | None:
        """The exit code, where the container has ended for good."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])


class Pod:
    """Runs one Pod until it is told to stop or its containers have ended for good."""

    _numbers = itertools.count()

    def __init__(self, manifest: Json, around: Surroundings) -> None:
        self.manifest = manifest
        self._number = next(self._numbers)
        self._around = around
        metadata = manifest["metadata"]
        self.uid: str = metadata["uid"]
        self.namespace: str = metadata["namespace"]
        self.name: str = metadata["name"]
        self.directory = around.directory / "pods" / f"{self.namespace}_{self.name}"
        spec, status = manifest["spec"], manifest.get("status") or {}
        earlier = {
            entry["name"]: entry
            for key in ("initContainerStatuses", "containerStatuses")
            for entry in status.get(key) or []
        }
        self.init = [Container(entry, earlier.get(entry["name"])) for entry in spec.get("initContainers") or []]
        self.containers = [Container(entry, earlier.get(entry["name"])) for entry in spec["containers"]]
        self._start_time = status.get("startTime") or timestamp()
        self._conditions: dict[str, Json] = {entry["type"]: entry for entry in status.get("conditions") or []}
        self._initialized = not self.init
        self._phase = "Pending"
        self._changed = asyncio.Event()
        self._stale_volumes = asyncio.Event()
        self._token_deadline = float("inf")
        self._stopping = False
        self.leaving = False
        """The Pod is being deleted."""
        self._task: asyncio.Task[None] | None = None
        self._runners: list[asyncio.Task[None]] = []

    # -- what the node calls -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin running."""
        self._task = asyncio.create_task(self._run(), name=f"pod {self.namespace}/{self.name}")

    def update(self, manifest: Json) -> None:
        """The Pod's object changed: labels and annotations reach its volumes."""
        before, after = self.manifest["metadata"], manifest["metadata"]
        self.manifest = manifest
        if any(before.get(key) != after.get(key) for key in ("labels", "annotations")):
            self._stale_volumes.set()
        # The node controller marks every Pod of a node that was not heard of as not ready; only the node takes it back.
        ours = self._conditions.get("Ready")
        conditions = (manifest.get("status") or {}).get("conditions") or []
        theirs = next((one for one in conditions if one["type"] == "Ready"), ours)
        if ours and theirs and ours["status"] != theirs["status"]:
            self._touch()

    def source_changed(self, kind: str, name: str) -> None:
        """A ConfigMap or Secret of the Pod's namespace changed."""
        if any((kind, name) in volumes.sources(volume) for volume in self.manifest["spec"].get("volumes") or []):
            self._stale_volumes.set()

    async def stop(self, grace: float) -> None:
        """End every process: SIGTERM, `grace` seconds, SIGKILL. The last status is reported where it can be."""
        self._stopping = True
        await self._around.claims.leave(self.uid)
        if self._task is not None:
            self._task.cancel()
        everything = [*self.init, *self.containers]
        await asyncio.gather(*(self._end(container, grace) for container in everything))
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, *([self._task] if self._task else []), return_exceptions=True)
        self._around.solver.unregister(self.uid)
        for container in everything:
            if container.launch is not None:
                await self._around.claims.release(container.launch.claims, self.uid)
            if "terminated" not in container.state:
                container.state = {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": timestamp()}}
            container.ready = container.started = False

    def remove_files(self) -> None:
        """Take away everything but the logs."""
        with contextlib.suppress(OSError):
            for entry in self.directory.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                elif entry.suffix not in {".log", ".1"}:
                    entry.unlink()

    def processes(self) -> dict[str, int]:
        """The process ids of the containers that run now, by name; each leads a process group."""
        return {
            entry.name: entry.process.pid
            for entry in (*self.init, *self.containers)
            if entry.process is not None and entry.process.returncode is None
        }

    def container_ready(self, name: str) -> bool:
        """Whether the container of this name is ready."""
        return any(entry.ready for entry in (*self.init, *self.containers) if entry.name == name)

    async def report(self) -> None:
        """Write the status. Raises ApiError, aiohttp.ClientError, TimeoutError."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}/status"
        body = {"metadata": {"uid": self.uid}, "status": self.status()}
        await self._around.api.call("PATCH", path, body=body, content_type=MERGE_PATCH)

    def bound_logs(self) -> None:
        """Keep each log within `LOG_LIMIT` bytes, and one older file beside it."""
        for log in self.directory.glob("*.log"):
            if log.stat().st_size > LOG_LIMIT:
                shutil.copyfile(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)

    # -- status --------------------------------------------------------------------------------------------------

    def status(self) -> Json:
        """The Pod's status now."""
        ready = self._initialized and all(entry.ready for entry in self.containers) and not self._stopping
        done = self._phase == "Succeeded"
        self._condition("PodScheduled", True)
        self._condition("PodReadyToStartContainers", True)
        self._condition("Initialized", self._initialized, "ContainersNotInitialized")
        for kind in ("ContainersReady", "Ready"):
            self._condition(kind, ready, "PodCompleted" if done else "ContainersNotReady")
        status: Json = {
            "phase": self._phase,
            "conditions": list(self._conditions.values()),
            "hostIP": self._around.address,
            "hostIPs": [{"ip": self._around.address}],
            "podIP": self._around.address,
            "podIPs": [{"ip": self._around.address}],
            "startTime": self._start_time,
            "qosClass": (self.manifest.get("status") or {}).get("qosClass", "BestEffort"),
            "containerStatuses": [entry.status() for entry in self.containers],
        }
        if self.init:
            status["initContainerStatuses"] = [entry.status() for entry in self.init]
        return status

    def _condition(self, kind: str, holds: bool, reason: str = "") -> None:
        word = "True" if holds else "False"
        before = self._conditions.get(kind)
        since = before["lastTransitionTime"] if before and before["status"] == word else timestamp()
        self._conditions[kind] = {"type": kind, "status": word, "lastTransitionTime": since} | (
            {"reason": reason} if reason and not holds else {}
        )

    def _touch(self) -> None:
        self._changed.set()

    async def _report_changes(self) -> None:
        delay = 0.1
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.report()
                delay = 0.1
            except ApiError as error:
                if error.status == 404 or (error.status == 409 and "UID" in str(error)):
                    return  # the Pod has gone, or another one has its name
                self._changed.set()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
            except (aiohttp.ClientError, TimeoutError, OSError):
                self._changed.set()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)

    # -- running -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        self._runners.append(asyncio.create_task(self._report_changes()))
        self._touch()
        self._prepare_directory()
        await self._mount()
        self._runners.append(asyncio.create_task(self._keep_volumes()))
        for container in self.init:
            runner = asyncio.create_task(self._run_container(container, init=True))
            self._runners.append(runner)
            if container.spec.get("restartPolicy") == "Always":
                while not container.started and not runner.done():  # noqa: ASYNC110 - a sidecar's first start
                    await asyncio.sleep(0.05)
                continue
            await runner
            if container.exit_code != 0:
                self._phase = "Failed"
                self._touch()
                return
        self._initialized = True
        running = [asyncio.create_task(self._run_container(entry)) for entry in self.containers]
        self._runners += running
        self._touch()
        await asyncio.gather(*running)
        self._phase = "Succeeded" if all(entry.exit_code == 0 for entry in self.containers) else "Failed"
        for container in self.init:
            await self._end(container, 5.0)
        self._touch()

    def _prepare_directory(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.remove_files()
        for container in [*self.init, *self.containers]:
            (self._root(container)).mkdir(parents=True, exist_ok=True)

    def _root(self, container: Container) -> Path:
        return self.directory / f"root-{container.name}"

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig that stands for the in-cluster configuration."""
        return self.directory / "kubeconfig"

    async def _lookup(self, kind: str, name: str) -> Json | None:
        return await self._around.lookup(kind, self.namespace, name)

    async def _token(self, audience: str | None, seconds: int) -> str:
        account = self.manifest["spec"].get("serviceAccountName") or "default"
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else None,
                "expirationSeconds": max(600, seconds),
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid},
            },
        }
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        answer = await self._around.api.call("POST", path, body=body)
        return str(answer["status"]["token"])

    async def _mount(self) -> None:
        """Write all volumes, waiting for what is missing, and lay the mounts out."""
        said = ""
        while True:
            try:
                await self._write_volumes()
                break
            except volumes.MissingSourceError as error:
                if str(error) != said:
                    said = str(error)
                    self._around.event(self.manifest, "Warning", "FailedMount", said)
            except _TRANSIENT as error:
                if str(error) != said:
                    said = str(error)
                    self._around.event(self.manifest, "Warning", "FailedMount", said)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stale_volumes.wait(), 0.2 if not said else MOUNT_RETRY_SECONDS)
            self._stale_volumes.clear()
        for container in [*self.init, *self.containers]:
            for mount in sorted(container.spec.get("volumeMounts") or [], key=lambda entry: len(entry["mountPath"])):
                place = self._root(container) / mount["mountPath"].strip("/")
                source = self._volume(mount["name"]) / mount.get("subPath", "")
                place.parent.mkdir(parents=True, exist_ok=True)
                if place.is_symlink():
                    place.unlink()
                elif place.is_dir():
                    shutil.rmtree(place)
                place.symlink_to(source)
        self._write_kubeconfig()

    def _volume(self, name: str) -> Path:
        return self.directory / "volumes" / name

    async def _write_volumes(self) -> None:
        token_lives = []
        for volume in self.manifest["spec"].get("volumes") or []:
            directory = self._volume(volume["name"])
            if not volumes.is_rendered(volume):
                directory.mkdir(parents=True, exist_ok=True)
                continue
            token_lives += volumes.token_seconds(volume)
            volumes.write(directory, await volumes.render(volume, self._shown(), self._lookup, self._token))
        if token_lives:
            self._token_deadline = time.monotonic() + max(600, min(token_lives)) * 0.8

    async def _keep_volumes(self) -> None:
        """Write volumes anew when a source changed or a token has lived four fifths of its life."""
        while True:
            left = self._token_deadline - time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stale_volumes.wait(), left if left < 1e9 else None)
            self._stale_volumes.clear()
            try:
                await self._write_volumes()
            except volumes.MissingSourceError:
                continue  # what was mounted stays, as in the kubelet
            except _TRANSIENT:
                self._token_deadline = min(self._token_deadline, time.monotonic() + MOUNT_RETRY_SECONDS)

    def _shown(self) -> Json:
        """The Pod as field references see it: with the addresses it will have."""
        status = {**(self.manifest.get("status") or {}), "podIP": self._around.address, "hostIP": self._around.address}
        return {**self.manifest, "status": status}

    def _write_kubeconfig(self) -> None:
        mounts = [
            mount
            for container in self.containers
            for mount in container.spec.get("volumeMounts") or []
            if mount["mountPath"] == SERVICE_ACCOUNT
        ]
        if not mounts:
            return
        user = {"tokenFile": str(self._volume(mounts[0]["name"]) / "token")}
        parsed = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": self._around.cluster}],
            "users": [{"name": "pod", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "pod", "namespace": self.namespace}}],
            "current-context": "lab",
        }
        self.kubeconfig.write_text(yaml.safe_dump(parsed))
        self.kubeconfig.chmod(0o600)

    async def _environment(self, container: Container) -> dict[str, str]:
        server = self._around.api.server.rpartition("/")[2]
        host, _, port = server.rpartition(":")
        given = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._root(container)),
            "HOSTNAME": self.name,
            "POD_IP": self._around.address,
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "KUBECONFIG": str(self.kubeconfig),
        }
        for source in container.spec.get("envFrom") or []:
            kind, reference = (
                ("configmaps", source.get("configMapRef"))
                if "configMapRef" in source
                else ("secrets", source.get("secretRef") or {})
            )
            item = await self._lookup(kind, (reference or {}).get("name", ""))
            if item is None and not (reference or {}).get("optional"):
                raise volumes.MissingSourceError(f"{kind} {(reference or {}).get('name')!r} not found")
            for key, content in (volumes.contents(item) if item else {}).items():
                given[source.get("prefix", "") + key] = content.decode(errors="replace")
        for variable in container.spec.get("env") or []:
            value = await self._value(variable, container, given)
            if value is not None:
                given[variable["name"]] = value
        return given

    async def _value(self, variable: Json, container: Container, given: dict[str, str]) -> str | None:
        source = variable.get("valueFrom")
        if not source:
            return volumes.expand(variable.get("value") or "", given)
        if reference := source.get("fieldRef"):
            return volumes.field(self._shown(), reference["fieldPath"])
        if reference := source.get("resourceFieldRef"):
            return volumes.resource(container.spec, reference, self._around.capacity)
        kind = "configmaps" if "configMapKeyRef" in source else "secrets"
        reference = source.get("configMapKeyRef") or source.get("secretKeyRef") or {}
        item = await self._lookup(kind, reference.get("name", ""))
        values = volumes.contents(item) if item else {}
        if reference.get("key") not in values:
            if reference.get("optional"):
                return None
            raise volumes.MissingSourceError(f"{kind} {reference.get('name')!r} has no key {reference.get('key')!r}")
        return values[reference["key"]].decode(errors="replace")

    async def _run_container(self, container: Container, *, init: bool = False) -> None:
        policy = container.spec.get("restartPolicy") or self.manifest["spec"].get("restartPolicy") or "Always"
        if init and container.spec.get("restartPolicy") != "Always":
            policy = "Never" if policy == "Never" else "OnFailure"
        delay = BACK_OFF_FIRST
        while True:
            began = time.monotonic()
            try:
                code = await self._run_once(container)
            except UnknownImageError as error:
                self._wait(container, "ErrImagePull", str(error))
                self._around.event(self.manifest, "Warning", "Failed", str(error))
                await asyncio.sleep(BACK_OFF_LAST)
                continue
            except volumes.MissingSourceError as error:
                self._wait(container, "CreateContainerConfigError", str(error))
                await asyncio.sleep(MOUNT_RETRY_SECONDS)
                continue
            except _TRANSIENT as error:
                self._wait(container, "CreateContainerError", str(error)[:300])
                await asyncio.sleep(MOUNT_RETRY_SECONDS)
                continue
            if code is None:  # a newer Pod took the port; wait for it to go
                self._wait(container, "PortTaken", "a newer Pod uses this Pod's port")
                continue
            if policy == "Never" or (policy == "OnFailure" and code == 0) or self._stopping:
                return
            container.last, container.restarts = container.state, container.restarts + 1
            if time.monotonic() - began > BACK_OFF_FORGIVEN:
                delay = BACK_OFF_FIRST
            self._wait(container, "CrashLoopBackOff", f"back-off {delay:g} s restarting the container")
            self._around.event(self.manifest, "Warning", "BackOff", f"restarting container {container.name}")
            await asyncio.sleep(delay)
            delay = min(delay * 2, BACK_OFF_LAST)

    def _wait(self, container: Container, reason: str, message: str) -> None:
        container.state = {"waiting": {"reason": reason, "message": message}}
        container.ready = container.started = False
        self._touch()

    async def _run_once(self, container: Container) -> int | None:
        """Run the container until it ends; its exit code, or None where it gave way to a newer Pod."""
        environment = await self._environment(container)
        launch = self._around.images.launch(
            container.spec.get("image", ""), container.spec, environment, self.kubeconfig
        )
        container.launch = launch
        mounts = {
            mount["mountPath"].rstrip("/"): str(self._root(container) / mount["mountPath"].strip("/"))
            for mount in container.spec.get("volumeMounts") or []
        }
        arguments = [volumes.expand(word, environment) for word in container.spec.get("args") or []]
        command = [volumes.expand(word, environment) for word in container.spec.get("command") or []]
        if launch.solver:
            return await self._run_solver(container, arguments)
        for name, value in launch.environment.items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
        environment = {
            name: value if name in launch.environment else volumes.rewrite(value, mounts)
            for name, value in environment.items()
        }
        if launch.program[0] == sys.executable:
            environment.setdefault("PYTHONPATH", str(Path(__file__).parent.parent))
        argv = [*(_program(command, launch)), *(volumes.rewrite(word, mounts) for word in arguments), *launch.flags]
        claims = self._around.claims
        if launch.claims:
            age = (self.manifest["metadata"].get("creationTimestamp", ""), self._number)
            await claims.want(launch.claims, self.uid, age)
            await claims.take(launch.claims, self.uid)
        log = self.directory / f"{container.name}.log"
        try:
            process = await self._around.guard.start(argv, cwd=self._root(container), environment=environment, log=log)
        except OSError as error:
            await claims.release(launch.claims, self.uid)
            raise UnknownImageError(f"{argv[0]}: {error.strerror}") from None
        container.process = process
        container.state = {"running": {"startedAt": timestamp()}}
        self._phase = "Running"
        self._around.event(self.manifest, "Normal", "Started", f"Started container {container.name}")
        probing = asyncio.create_task(self._probe(container, launch, environment))
        outranked = asyncio.create_task(claims.outranked(launch.claims, self.uid)) if launch.claims else None
        ended = asyncio.create_task(process.wait())
        self._touch()
        try:
            await asyncio.wait([ended, probing, *([outranked] if outranked else [])], return_when="FIRST_COMPLETED")
            gave_way = outranked is not None and outranked.done() and not self._stopping and not ended.done()
            if not ended.done() and not self._stopping:  # liveness failed, or a newer Pod wants the port
                await self._around.guard.stop(process, grace=self._grace())
            code = await ended
            self._around.guard.forget(process)
        finally:
            for task in (probing, outranked, ended):
                if task is not None:
                    task.cancel()
            if process.returncode is not None:
                await claims.release(launch.claims, self.uid)
        container.ready = container.started = False
        if gave_way:
            return None
        exit_code = code if code >= 0 else 128 - code
        container.state = {
            "terminated": {
                "exitCode": exit_code,
                "reason": "Completed" if exit_code == 0 else "Error",
                "startedAt": container.state.get("running", {}).get("startedAt"),
                "finishedAt": timestamp(),
            }
        }
        self._touch()
        return exit_code

    async def _run_solver(self, container: Container, arguments: list[str]) -> int:
        self._around.solver.register(self.uid, Solution.of_arguments(arguments))
        container.state = {"running": {"startedAt": timestamp()}}
        container.ready = container.started = True
        self._phase = "Running"
        self._touch()
        await asyncio.Event().wait()
        return 0

    def _grace(self) -> float:
        return float(self.manifest["spec"].get("terminationGracePeriodSeconds") or 30)

    async def _end(self, container: Container, grace: float) -> None:
        process = container.process
        if process is None:
            return
        if process.returncode is None:
            pause = ((container.spec.get("lifecycle") or {}).get("preStop") or {}).get("sleep") or {}
            await asyncio.sleep(min(float(pause.get("seconds") or 0), grace))
        await self._around.guard.stop(process, grace=grace)

    # -- probes --------------------------------------------------------------------------------------------------

    async def _probe(self, container: Container, launch: Launch, environment: dict[str, str]) -> None:
        """Keeps `ready` and `started`; returns when the container is to be killed."""
        names = {
            port["name"]: int(port["containerPort"]) for port in container.spec.get("ports") or [] if "name" in port
        }
        target = probes.Target(address=self._around.address, names=names, real=launch.ports)

        async def execute(argv: list[str], seconds: float) -> int:
            process = await self._around.guard.start(
                argv, cwd=self._root(container), environment=environment, log=Path(os.devnull)
            )
            try:
                return await process.wait()
            finally:
                await self._around.guard.stop(process, grace=0)

        def ask(probe: Json) -> Callable[[], asyncio.Task[str | None]]:
            return lambda: asyncio.ensure_future(probes.answer(probe, target, self._around.session, execute))

        def changed(ready: bool, reason: str) -> None:
            container.ready = ready
            if not ready:
                self._around.event(self.manifest, "Warning", "Unhealthy", f"Readiness probe failed: {reason}")
            self._touch()

        startup = container.spec.get("startupProbe")
        if startup and (reason := await probes.until_success(startup, ask(startup))) is not None:
            self._around.event(self.manifest, "Warning", "Unhealthy", f"Startup probe failed: {reason}")
            return
        container.started = True
        watchers: list[asyncio.Task[None]] = []
        if readiness := container.spec.get("readinessProbe"):
            watchers.append(asyncio.create_task(probes.watch_readiness(readiness, ask(readiness), changed)))
        else:
            container.ready = True
        self._touch()
        try:
            if liveness := container.spec.get("livenessProbe"):
                reason = await probes.until_failure(liveness, ask(liveness))
                self._around.event(self.manifest, "Warning", "Unhealthy", f"Liveness probe failed: {reason}")
            else:
                await asyncio.Event().wait()
        finally:
            for watcher in watchers:
                watcher.cancel()


def _program(command: list[str], launch: Launch) -> list[str]:
    """The container's own command where it names one, mapped where its program is the image's; else the image's."""
    if not command:
        return list(launch.program)
    if Path(command[0]).name == Path(launch.program[0]).name:
        return [launch.program[0], *command[1:]]
    return command
