"""The worker as a process: what it says of bad settings, how it waits for Temporal, and how it ends."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
from temporalio.testing import WorkflowEnvironment

from lab.cluster import GATEWAY_ADDRESSES, Lab
from lab.ports import free_ports
from lifecycle import manifests, names, queues
from lifecycle.domain import IssuerRef, OnboardingRequest, Route
from lifecycle.steps import CertificateTarget, IssuerRequest
from tests.programs import ended, program
from workflows.certificate import CertificateIssuance

HOSTNAME = "drain.umbrella.test"


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    program = str(Path(sys.executable).parent / "temporal")
    async with await WorkflowEnvironment.start_local(dev_server_existing_path=program) as environment:
        yield environment


worker = partial(program, ("worker",))


def events(log: Path) -> list[dict[str, object]]:
    """What was logged as events; the SDK's core writes lines of its own."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("never came true")


async def test_bad_settings_end_with_2_and_all_reasons(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with worker(log, CERTWRIGHT_QUEUES="kitchen", CERTWRIGHT_LOG_LEVEL="loud") as process:
        assert await asyncio.wait_for(process.wait(), 30) == 2
    lines = log.read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("CERTWRIGHT_QUEUES (kitchen) is no queue; use any of")
    assert lines[1].startswith("CERTWRIGHT_LOG_LEVEL (loud) is none of")


async def test_a_worker_waits_for_temporal_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with worker(log, CERTWRIGHT_QUEUES="workflows", TEMPORAL_ADDRESS="127.0.0.1:9") as process:
        await until(lambda: len(events(log)) >= 2)
        assert await ended(process, 10) == 0
    first, second, *_ = events(log)
    assert (first["event"], first["attempt"], second["attempt"]) == ("temporal away", 1, 2)
    assert "127.0.0.1:9 cannot be reached: Connection refused" in str(first["reason"])


async def test_metrics_are_named_as_documented_alerts_expect(tmp_path: Path, temporal: WorkflowEnvironment) -> None:
    (port,) = free_ports(1)
    log = tmp_path / "log"
    async with (
        worker(
            log,
            CERTWRIGHT_QUEUES="workflows",
            TEMPORAL_ADDRESS=temporal.client.service_client.config.target_host,
            CERTWRIGHT_METRICS_ADDRESS=f"127.0.0.1:{port}",
        ) as process,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        await until(lambda: any(one["event"] == "version promoted" for one in events(log)))
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        assert "temporal_request_total{" in text
        assert "temporal_request_latency_seconds_bucket{" in text
        assert await ended(process, 20) == 0


@pytest.mark.lab
async def test_sigterm_during_a_challenge_drains_and_the_next_worker_goes_on(
    lab: Lab, temporal: WorkflowEnvironment, tmp_path: Path
) -> None:
    lab.dns.add_zone("umbrella.test")  # the name itself is not there yet: its challenge waits
    issuer = IssuerRequest(
        ref=IssuerRef(name="pebble-drain"), server=lab.acme_directory, ca_bundle=lab.acme_ca.read_text()
    )
    await lab.apply_when_answered(manifests.acme_issuer(issuer))
    target = CertificateTarget(
        request=OnboardingRequest(
            tenant="umbrella",
            hostnames=(HOSTNAME,),
            issuer=issuer.ref,
            routes=(Route(prefix="/", service="frontend-service", port=80),),
        )
    )
    settings = {
        "CERTWRIGHT_QUEUES": "workflows,cluster",
        "CERTWRIGHT_KUBECONFIG": str(lab.kubeconfig),
        "TEMPORAL_ADDRESS": temporal.client.service_client.config.target_host,
    }
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    handle = await temporal.client.start_workflow(
        CertificateIssuance.run, target, id=f"certificate/{uuid.uuid4()}", task_queue=queues.WORKFLOWS
    )

    async def challenged() -> bool:
        path = "/apis/networking.istio.io/v1/namespaces/istio-system/virtualservices"
        items = (await lab.api.call("GET", path))["items"]
        return names.challenge_route_name(HOSTNAME) in {item["metadata"]["name"] for item in items}

    async with worker(first, **settings) as process:
        await until(challenged)
        began = time.monotonic()
        assert await ended(process, 20) == 0
        seconds = time.monotonic() - began
    assert seconds < 10, seconds
    told = [str(one["event"]) for one in events(first)]
    assert "draining" in told
    assert told[-1] == "ended"
    assert "worker failed" not in told
    async with worker(second, **settings) as process:
        lab.dns.set(HOSTNAME, "A", GATEWAY_ADDRESSES)
        result = await asyncio.wait_for(handle.result(), 90)
        assert await ended(process, 20) == 0
    assert result.ready
    assert result.findings == ()
    orders = await lab.api.call("GET", "/apis/acme.cert-manager.io/v1/namespaces/istio-system/orders")
    ours = names.certificate_name(HOSTNAME)
    assert [result.order] == [
        one["metadata"]["name"] for one in orders["items"] if one["metadata"]["name"].startswith(ours)
    ]
    assert not await challenged()
