"""The whole product on a lab: Temporal with its UI, two workers under their own ServiceAccounts, and the portal.

Everything is what a platform team would run: the programs `certwright-worker` and `certwright portal` as processes,
their settings from the environment, RBAC from `deploy/`, tokens and keys in files. The demo tells its story on it, and
the end-to-end tests break it. Left out: what is asked of the product.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pyrage
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from lab.accounts import service_account_kubeconfig
from lab.cluster import GATEWAY_ADDRESSES, Lab, LabError, run_lab
from lab.ports import free_ports
from lab.processes import ProcessGuard
from lab.witness import Witness
from lifecycle import queues
from starter import tokens

PROGRAMS = Path(sys.executable).parent
DEPLOY = Path(__file__).parent.parent / "deploy"
NAMESPACE = "certwright"
TENANTS = ("acme", "globex")
WORKERS = {"worker": "workflows,cluster,probe", "installer": "platform"}
"""Worker processes by name; each runs under the ServiceAccount `certwright-<name>` and serves these queues."""

SCARCE_HOST, SCARCE_AT_ONCE, SCARCE_SECONDS = "127.0.0.1", 2, 10.0
"""The lab's CA under its address is one with few orders, for whoever wants to see a queue: so many at once, and one
more after each of so many seconds. Its usual name is `localhost`, without limits."""

_READY_SECONDS = 30.0
_STOP_SECONDS = 25.0


class CommandError(Exception):
    """A command of the product ended with an exit code other than 0; the message has what it printed."""

    def __init__(self, arguments: tuple[str, ...], code: int, output: str, errors: str) -> None:
        super().__init__(f"certwright {' '.join(arguments)}: exit {code}: {(errors or output)[-600:].strip()}")
        self.code = code
        self.output = output
        self.errors = errors


@dataclasses.dataclass(slots=True, kw_only=True)
class Stage:
    """The product, running on `lab`.

    Attributes:
        portal, temporal_ui: URLs. `temporal_address` is host:port of the frontend.
        tokens: a portal token of each tenant, made anew for each stage; also in keys/portal-tokens.json, for whoever
            looks around.
        backups: the directory that backups are written to; `identity` is the file that opens them.
        shell: what a person's shell needs for the product's and the lab's commands, `PATH` left out; no secrets.
    """

    directory: Path
    lab: Lab
    temporal: Client
    temporal_address: str
    temporal_ui: str
    portal: str
    tokens: Mapping[str, str]
    backups: Path
    identity: Path
    shell: Mapping[str, str]
    witness: Witness
    _guard: ProcessGuard
    _environments: dict[str, dict[str, str]]
    _processes: dict[str, asyncio.subprocess.Process] = dataclasses.field(default_factory=dict)

    async def command(self, *arguments: str) -> Any:
        """Run `certwright ... --json`, and return what it says. Raises CommandError."""
        process = await asyncio.create_subprocess_exec(
            str(PROGRAMS / "certwright"),
            *arguments,
            "--json",
            env=self._environments["command"],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, errors = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            raise
        if process.returncode:
            raise CommandError(arguments, process.returncode, out.decode(), errors.decode())
        return json.loads(out)

    def client(self, tenant: str = TENANTS[0]) -> httpx.AsyncClient:
        """A client of the portal with the tenant's token."""
        headers = {"Authorization": f"Bearer {self.tokens[tenant]}"}
        return httpx.AsyncClient(base_url=self.portal, headers=headers, timeout=60.0, trust_env=False)

    async def start(self, name: str) -> None:
        """Start one of the product's processes: worker, installer or portal."""
        program = (
            [str(PROGRAMS / "certwright"), "portal"] if name == "portal" else [str(PROGRAMS / "certwright-worker")]
        )
        self._processes[name] = await self._guard.start(
            [str(PROGRAMS / program[0]), *program[1:]],
            cwd=self.directory,
            environment=self._environments[name],
            log=self.directory / f"{name}.log",
        )

    async def kill(self, name: str) -> None:
        """End a process as a power cut would (SIGKILL)."""
        process = self._processes.pop(name)
        process.kill()
        self._guard.forget(process)
        await process.wait()

    async def stop(self, name: str) -> None:
        """End a process as a rollout would (SIGTERM, and time to drain)."""
        process = self._processes.pop(name, None)
        if process is not None:
            await self._guard.stop(process, grace=_STOP_SECONDS)

    def pid(self, name: str) -> int:
        """The process id of worker, installer or portal."""
        return self._processes[name].pid

    def ended(self, name: str) -> bool:
        """Whether a process that was started has ended by itself."""
        return self._processes[name].returncode is not None

    def memory(self, name: str) -> int:
        """Resident memory of a process, in octets (proc(5), VmRSS)."""
        lines = Path(f"/proc/{self.pid(name)}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@contextlib.asynccontextmanager
async def run_stage(directory: Path, *, progress: Callable[[str], None] = print) -> AsyncIterator[Stage]:
    """The product on a lab of its own in `directory`, for as long as the block. cert-manager is not there yet.

    Raises LabError where something does not start.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103 - pathlib's would be refused here
    async with contextlib.AsyncExitStack() as stack:
        guard = ProcessGuard()
        await guard.open()
        stack.push_async_callback(guard.close)
        address, ui = await _temporal(directory, guard, stack)
        lab = await stack.enter_async_context(run_lab(directory / "lab", progress=progress))
        progress("starting Temporal, the workers and the portal")
        temporal = await _connected(address, directory)
        await lab.apply_all(DEPLOY / "rbac.yaml")
        stage = await _stage(directory, lab, temporal, guard, address, ui)

        async def end() -> None:
            await asyncio.gather(*(stage.stop(name) for name in ("portal", *WORKERS)))

        stack.push_async_callback(end)
        await stage.command("search-attributes", "apply")
        await asyncio.gather(*(stage.start(name) for name in ("portal", *WORKERS)))
        await _until_healthy(stage)
        yield stage


async def _temporal(directory: Path, guard: ProcessGuard, stack: contextlib.AsyncExitStack) -> tuple[str, str]:
    """Start Temporal's development server with its UI and a database file; returns its address and the UI's URL."""
    port, ui, metrics = free_ports(3)
    process = await guard.start(
        [
            str(PROGRAMS / "temporal"),
            "server",
            "start-dev",
            f"--db-filename={directory / 'temporal.db'}",
            "--ip=127.0.0.1",
            f"--port={port}",
            f"--ui-port={ui}",
            f"--metrics-port={metrics}",
            "--log-level=warn",
        ],
        cwd=directory,
        environment=os.environ,
        log=directory / "temporal.log",
    )
    stack.push_async_callback(guard.stop, process, grace=5.0)
    return f"127.0.0.1:{port}", f"http://127.0.0.1:{ui}"


async def _connected(address: str, directory: Path) -> Client:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            return await Client.connect(address)
        except (RPCError, RuntimeError) as error:
            if time.monotonic() > deadline:
                raise LabError(f"Temporal did not get ready; see {directory / 'temporal.log'}") from error
            await asyncio.sleep(0.1)


async def _stage(directory: Path, lab: Lab, temporal: Client, guard: ProcessGuard, address: str, ui: str) -> Stage:
    keys = directory / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    identity = pyrage.x25519.Identity.generate()
    identity_file = _private(keys / "backup-identity.txt", f"{identity}\n")
    made = {tenant: tokens.new(tenant) for tenant in TENANTS}
    tokens_file = _private(keys / "tokens", "".join(f"{line}\n" for _, line in made.values()))
    tokens_by_tenant = {tenant: token for tenant, (token, _) in made.items()}
    _private(keys / "portal-tokens.json", json.dumps(tokens_by_tenant, indent=2) + "\n")
    backups = directory / "backups"
    backups.mkdir(mode=0o700, exist_ok=True)
    values = _private(directory / "cert-manager-values.json", json.dumps(lab.cert_manager_values))
    scarce = {"kind": "orders", "count": SCARCE_AT_ONCE, "refill_seconds": SCARCE_SECONDS}
    limits = _private(directory / "limits.json", json.dumps({SCARCE_HOST: [scarce]}))
    roots = await lab.acme_root()
    (portal_port,) = free_ports(1)
    ours = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("CERTWRIGHT_", "TEMPORAL_"))},
        "TEMPORAL_ADDRESS": address,
        "CERTWRIGHT_LOG_FORMAT": "json",
    }
    for_workers = {
        "CERTWRIGHT_EDGE_HTTP_PORT": str(lab.http_port),
        "CERTWRIGHT_EDGE_HTTPS_PORT": str(lab.https_port),
        "CERTWRIGHT_EDGE_ROOTS_FILE": str(roots),
        "CERTWRIGHT_EDGE_ALLOWED_NETWORKS": "127.0.0.0/8",
        "CERTWRIGHT_NAMESERVERS": lab.dns_address,
        "CERTWRIGHT_LIMITS_FILE": str(limits),
    }
    for_installer = {
        "CERTWRIGHT_HELM": str(lab.programs.binaries / "helm"),
        "CERTWRIGHT_CHART": str(lab.programs.cert_manager_chart),
        "CERTWRIGHT_HELM_VALUES_FILE": str(values),
        "CERTWRIGHT_BACKUP_DIRECTORY": str(backups),
        "CERTWRIGHT_BACKUP_RECIPIENTS": str(identity.to_public()),
        "CERTWRIGHT_BACKUP_IDENTITY_FILE": str(identity_file),
    }
    for_doors = {
        "CERTWRIGHT_DEFAULT_ISSUER": "lab",
        "CERTWRIGHT_DEFAULT_ROUTES": "/api=api-service.default:8080,/=frontend-service.default:80",
    }
    kubeconfig = str(lab.kubeconfig)
    environments = {"command": {**ours, "CERTWRIGHT_TENANT": TENANTS[0]}}
    for name, served in WORKERS.items():
        account = await service_account_kubeconfig(lab, NAMESPACE, f"certwright-{name}", keys / f"{name}.kubeconfig")
        environments[name] = {
            **ours,
            **for_workers,
            **(for_installer if name == "installer" else {}),
            "CERTWRIGHT_QUEUES": served,
            "CERTWRIGHT_KUBECONFIG": str(account),
        }
    environments["portal"] = {
        **ours,
        "CERTWRIGHT_PORTAL_ADDRESS": f"127.0.0.1:{portal_port}",
        "CERTWRIGHT_PORTAL_TOKENS_FILE": str(tokens_file),
        **for_doors,
    }
    return Stage(
        directory=directory,
        lab=lab,
        temporal=temporal,
        temporal_address=address,
        temporal_ui=ui,
        portal=f"http://127.0.0.1:{portal_port}",
        tokens=tokens_by_tenant,
        backups=backups,
        identity=identity_file,
        shell={
            "TEMPORAL_ADDRESS": address,
            "KUBECONFIG": kubeconfig,
            "CERTWRIGHT_KUBECONFIG": kubeconfig,
            "CERTWRIGHT_TENANT": TENANTS[0],
            **for_workers,
            **for_doors,
        },
        witness=Witness(roots, GATEWAY_ADDRESSES, lab.http_port, lab.https_port),
        _guard=guard,
        _environments=environments,
    )


def _private(path: Path, content: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(content)
    return path


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")[:300]


async def _until_healthy(stage: Stage) -> None:
    """Until the portal answers and a worker asks for work on every queue. Raises LabError."""
    deadline = time.monotonic() + _READY_SECONDS
    async with stage.client() as portal:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                healthy = (await portal.get("/healthz")).status_code == 200
                if healthy and all([await _polled(stage.temporal, queue) for queue in queues.QUEUES]):
                    return
            for name in ("portal", *WORKERS):
                if stage.ended(name):
                    raise LabError(f"the {name} ended at once: {_last_line(stage.directory / f'{name}.log')}")
            if time.monotonic() > deadline:
                raise LabError(f"portal or workers did not get ready; their logs are in {stage.directory}")
            await asyncio.sleep(0.1)


async def _polled(client: Client, queue: str) -> bool:
    kind = (
        TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW if queue == queues.WORKFLOWS else TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
    )
    asked = DescribeTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind, report_pollers=True
    )
    return bool((await client.workflow_service.describe_task_queue(asked)).pollers)
