"""What the end-to-end tests do on a stage: ask as a tenant would, look as the cluster's administrator would."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import httpx
from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState
from temporalio.service import RPCError, RPCStatusCode

from lab.api import ApiError
from lab.cluster import GATEWAY_ADDRESSES
from lab.stage import TENANTS, Stage
from lab.witness import secret_fingerprint
from lifecycle import names

ZONE = "e2e-shops.com"
GATEWAY_NAMESPACE = "istio-system"

Seen = dict[str, Any]

_LOOK_SECONDS = 0.2
_STEP_SECONDS = 0.004
"""How long the worker runs between two looks when a quick step is to be caught."""

_CERT_MANAGER = f"/apis/cert-manager.io/v1/namespaces/{GATEWAY_NAMESPACE}"
_ACME = f"/apis/acme.cert-manager.io/v1/namespaces/{GATEWAY_NAMESPACE}"
_ISTIO = f"/apis/networking.istio.io/v1/namespaces/{GATEWAY_NAMESPACE}"
_CORE = f"/api/v1/namespaces/{GATEWAY_NAMESPACE}"
_COLLECTIONS = (
    f"{_CERT_MANAGER}/certificates",
    f"{_CERT_MANAGER}/certificaterequests",
    f"{_ACME}/orders",
    f"{_ACME}/challenges",
    f"{_ISTIO}/gateways",
    f"{_ISTIO}/virtualservices",
    f"{_CORE}/secrets",
)


def active(seen: Seen) -> bool:
    """A domain as it is to be."""
    return bool(seen["phase"] == "active" and seen["serving"] == "served")


def told_to_act(seen: Seen) -> bool:
    """A domain that waits for its customer."""
    return seen["action_required"] is not None


def after_renewals(number: int) -> Callable[[Seen], bool]:
    """An active domain that was renewed so many times at least."""
    return lambda seen: active(seen) and seen["renewals"] >= number


class Play:
    """A stage, two tenants' clients of its portal, and what was seen of the cluster since it began.

    Attributes:
        orders: of every ACME Order since the beginning its uid and name: cert-manager takes old ones away.
        keys: every private key (PEM) that a Secret has held.
    """

    def __init__(self, stage: Stage, portal: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
        self.stage = stage
        self.lab = stage.lab
        self.portal = portal
        self.other = other
        self.orders: dict[str, str] = {}
        self.keys: set[bytes] = set()

    @staticmethod
    @contextlib.asynccontextmanager
    async def on(stage: Stage) -> AsyncIterator[Play]:
        """A play on the stage, watching its cluster for as long as the block."""
        async with stage.client(TENANTS[0]) as portal, stage.client(TENANTS[1]) as other:
            play = Play(stage, portal, other)
            stage.lab.dns.add_zone(ZONE)
            watching = [asyncio.create_task(play._watch_orders()), asyncio.create_task(play._watch_keys())]
            try:
                yield play
            finally:
                for task in watching:
                    task.cancel()
                await asyncio.gather(*watching, return_exceptions=True)

    async def _watch_orders(self) -> None:
        async for _, item in self.lab.api.follow("/apis/acme.cert-manager.io/v1/orders"):
            if item:
                self.orders[item["metadata"]["uid"]] = item["metadata"]["name"]

    async def _watch_keys(self) -> None:
        async for _, item in self.lab.api.follow("/api/v1/secrets"):
            if key := (item.get("data") or {}).get("tls.key"):
                self.keys.add(base64.b64decode(key))

    # --- as a tenant ------------------------------------------------------------------------------------------------

    def point(self, *hostnames: str) -> None:
        """Set the customer's records as the portal says they must be."""
        for hostname in hostnames:
            self.lab.dns.set(hostname, "A", GATEWAY_ADDRESSES)

    async def ask(self, *hostnames: str, **fields: object) -> Seen:
        """POST the domain. Returns the portal's answer."""
        answer = await self.portal.post("/v1/domains", json={"hostnames": list(hostnames), **fields})
        assert answer.status_code in (200, 201, 202), answer.text
        return dict(answer.json())

    async def seen(self, hostname: str) -> Seen | None:
        """The domain's state as the portal shows it; None where no worker answers."""
        answer = await self.portal.get(f"/v1/domains/{hostname}")
        assert answer.status_code == 200, answer.text
        status: Seen | None = answer.json()["status"]
        return status

    async def until(self, hostname: str, accept: Callable[[Seen], bool], *, seconds: float = 60.0) -> Seen:
        """The domain's state once it is as wanted."""
        deadline = time.monotonic() + seconds
        while True:
            status = await self.seen(hostname)
            if status is not None and accept(status):
                return status
            assert time.monotonic() < deadline, f"{hostname} is not as wanted within {seconds:.0f} s: {brief(status)}"
            await asyncio.sleep(_LOOK_SECONDS)

    async def check(self, hostname: str) -> Seen:
        """Ask for a check now; returns the state that the portal answers with."""
        answer = await self.portal.post(f"/v1/domains/{hostname}/check")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def active(self, *hostnames: str, seconds: float = 90.0, **fields: object) -> Seen:
        """A domain with the right records, asked for and active."""
        self.point(*hostnames)
        await self.ask(*hostnames, **fields)
        return await self.until(hostnames[0], active, seconds=seconds)

    # --- as the administrator -----------------------------------------------------------------------------------------

    def orders_of(self, hostname: str) -> list[str]:
        """The Orders that were ever made for the domain; cert-manager names them after the Certificate."""
        return [name for name in self.orders.values() if name.startswith(names.certificate_name(hostname))]

    async def objects_of(self, hostname: str) -> list[str]:
        """Everything on the cluster that is named after the domain."""
        listed = await asyncio.gather(*(self.lab.api.call("GET", path) for path in _COLLECTIONS))
        return [
            f"{path.rpartition('/')[2]}/{item['metadata']['name']}"
            for path, answer in zip(_COLLECTIONS, listed, strict=True)
            for item in answer["items"]
            if item["metadata"]["name"].startswith(names.object_name(hostname))
        ]

    async def running_workflows(self, hostname: str) -> list[str]:
        """The ids of the running workflows that belong to the domain or to one of its names."""
        wanted = (names.object_name(hostname), hostname)
        found = self.stage.temporal.list_workflows("ExecutionStatus = 'Running'")
        return [execution.id async for execution in found if any(word in execution.id for word in wanted)]

    async def fingerprint(self, hostname: str) -> str:
        """SHA-256 of the certificate in the domain's Secret."""
        return await secret_fingerprint(self.lab.api, GATEWAY_NAMESPACE, names.secret_name(hostname))

    # --- the worker, caught in the act --------------------------------------------------------------------------------

    async def under_way(self, step: str, hostname: str) -> bool:
        """Whether a worker is at the step (an activity's name) of the domain at this moment."""
        try:
            described = await self.stage.temporal.get_workflow_handle(workflow_of(step, hostname)).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise
        if step == "reserve_names":  # within the domain's first workflow task, not an activity by itself
            task = described.raw_description.pending_workflow_task
            started = task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED
            return started and described.history_length < 6
        return any(
            one.activity_type.name == step and one.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
            for one in described.raw_description.pending_activities
        )

    async def until_under_way(self, step: str, hostname: str, *, seconds: float = 60.0) -> None:
        """Wait until a worker is at the step of the domain."""
        deadline = time.monotonic() + seconds
        while not await self.under_way(step, hostname):
            assert time.monotonic() < deadline, f"{step} of {hostname} did not begin"
            await asyncio.sleep(0.02)

    async def kill_worker_in(self, step: str, hostname: str, begin: Awaitable[object], **meanwhile: str) -> None:
        """SIGKILL the worker while it is at the step that `begin` leads to, and start another one.

        The worker is stopped and let go on for moments (SIGSTOP, SIGCONT), so that the quickest step is caught; it
        is killed only where the server, asked once more a moment later, still waits for the step. `meanwhile`: steps
        of other domains that must be under way too.
        """
        pid = self.stage.pid("worker")
        asked = asyncio.ensure_future(begin)
        deadline = time.monotonic() + 40.0
        try:
            while not await self._stopped_in(pid, step, hostname):
                os.kill(pid, signal.SIGCONT)
                assert time.monotonic() < deadline, f"{step} of {hostname} was never caught"
                await asyncio.sleep(_STEP_SECONDS)
            others = {other: await self.under_way(other, domain) for other, domain in meanwhile.items()}
            assert all(others.values()), f"not under way when {step} was: {others}"
            await self.stage.kill("worker")
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            asked.cancel()
            raise
        await self.stage.start("worker")
        await asyncio.gather(asked, return_exceptions=True)

    async def _stopped_in(self, pid: int, step: str, hostname: str) -> bool:
        """Stop the worker; whether it is at the step."""
        try:
            await self.stage.temporal.get_workflow_handle(workflow_of(step, hostname)).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False  # nothing is to be caught yet, so it may run
            raise
        os.kill(pid, signal.SIGSTOP)
        if not await self.under_way(step, hostname):
            return False
        await asyncio.sleep(0.05)  # what the worker has sent already arrives
        return await self.under_way(step, hostname)


def workflow_of(step: str, hostname: str) -> str:
    """The id of the workflow that calls the activity for the domain."""
    if step == "issue_certificate":
        return names.certificate_id(GATEWAY_NAMESPACE, names.certificate_name(hostname))
    if step in ("bind_gateway", "verify_edge"):
        return names.gateway_id(GATEWAY_NAMESPACE, names.gateway_name(hostname))
    return names.domain_id(hostname)


def codes(seen: Mapping[str, Any]) -> set[str]:
    """The codes of a domain's findings."""
    return {finding["code"] for finding in seen["findings"]}


def brief(seen: Seen | None) -> str:
    """A domain's state for a failed test's message."""
    if seen is None:
        return "no worker answers"
    said = "; ".join(f"{one['code']} {one['problem']}" for one in seen["findings"])
    return f"{seen['phase']}, {seen['step']}, serving {seen['serving']}, renewals {seen['renewals']}. {said}"


async def exists(play: Play, path: str) -> bool:
    """Whether there is an object at a path of the API server."""
    try:
        await play.lab.api.call("GET", path)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


async def eventually(look: Callable[[], Awaitable[object]], *, seconds: float) -> None:
    """Look again and again until what is looked at is true."""
    deadline = time.monotonic() + seconds
    while True:
        if await look():
            return
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        await asyncio.sleep(_LOOK_SECONDS)
