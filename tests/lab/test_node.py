"""The node runs Pods as a kubelet would: started, probed, restarted, refreshed, replaced and ended."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from lab.api import MERGE_PATCH, ApiError, Json
from lab.cluster import Lab
from lab.ports import free_ports
from lab.processes import alive

pytestmark = pytest.mark.lab

NAMESPACE = "node-test"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
READINESS = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1}


def deployment(name: str, port: int) -> Json:
    """The web application with a named port, a probe, a Secret and a field as its variables."""
    container = {
        "name": "web",
        "image": "docker.io/example/certwright-lab-web:1",
        "ports": [{"name": "http", "containerPort": port}],
        "env": [
            {"name": "APP_NAME", "value": "$(POD)-says"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "readinessProbe": READINESS,
        "volumeMounts": [{"name": "login", "mountPath": "/etc/login"}],
    }
    container["env"].reverse()  # type: ignore[attr-defined]
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [container],
                    "terminationGracePeriodSeconds": 5,
                    "volumes": [{"name": "login", "secret": {"secretName": "login"}}],
                },
            },
        },
    }


def secret(value: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "login", "namespace": NAMESPACE},
        "data": {"password": base64.b64encode(value.encode()).decode()},
    }


def is_ready(pod: Json) -> bool:
    conditions = {entry["type"]: entry["status"] for entry in pod["status"].get("conditions") or []}
    return conditions.get("Ready") == "True"


async def pods(lab: Lab, name: str) -> list[Json]:
    listed = await lab.api.call("GET", PODS, query={"labelSelector": f"app={name}"})
    return [item for item in listed["items"] if not item["metadata"].get("deletionTimestamp")]


async def ready_pod(lab: Lab, name: str, *, but: str = "", restarts: int = 0) -> Json:
    """The Deployment's Pod, once it is Ready, other than `but`, and has restarted so often. Raises TimeoutError."""
    async with asyncio.timeout(20):
        while True:
            for pod in await pods(lab, name):
                restarted = pod["metadata"]["uid"] != but and is_ready(pod)
                if restarted and pod["status"]["containerStatuses"][0]["restartCount"] >= restarts:
                    return pod
            await asyncio.sleep(0.1)


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float = 15.0) -> None:
    """Return once `holds`. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.1)


def contents(path: str) -> str:
    return Path(path).read_text()


def process_of(pod: Json) -> int:
    return int(pod["status"]["containerStatuses"][0]["containerID"].removeprefix("lab://"))


@pytest.fixture(scope="module")
async def namespace(lab: Lab) -> AsyncIterator[str]:
    await lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    await lab.apply(secret("first"))
    yield NAMESPACE
    await lab.api.call("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


async def test_a_pod_runs_is_restarted_and_is_replaced(lab: Lab, namespace: str) -> None:
    (port,) = free_ports(1)
    await lab.apply(deployment("web", port))
    pod = await ready_pod(lab, "web")
    url = f"http://{pod['status']['podIP']}:{port}"
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = (await client.get(f"{url}/a/path")).json()
        assert (f"{pod['metadata']['name']}-says", "/a/path") == (answer["app"], answer["path"])

        # a process that dies is started again
        os.kill(process_of(pod), signal.SIGKILL)
        pod = await ready_pod(lab, "web", restarts=1)
        status = pod["status"]["containerStatuses"][0]
        assert status["lastState"]["terminated"]["exitCode"] == 137

        # a failing readiness probe shows, and a recovered one too
        await client.post(f"{url}/fail")

        async def unready() -> bool:
            return not is_ready((await pods(lab, "web"))[0])

        await until(unready)
        await client.post(f"{url}/recover")
        pod = await ready_pod(lab, "web")

        # a changed Secret reaches the files
        mounted = f"/proc/{process_of(pod)}/cwd/etc/login/password"
        assert contents(mounted) == "first"
        await lab.apply(secret("second"))

        async def refreshed() -> bool:
            return contents(mounted) == "second"

        await until(refreshed)

        # a deleted Pod ends, and its Deployment's next one takes the port over
        await lab.api.call("DELETE", f"{PODS}/{pod['metadata']['name']}")
        following = await ready_pod(lab, "web", but=pod["metadata"]["uid"])
        assert not alive(process_of(pod))
        assert (await client.get(url)).json()["app"].startswith(following["metadata"]["name"])

        # a rolling update hands the port to the new Pod while the old one still exists
        changed = deployment("web", port)
        changed["spec"]["template"]["metadata"]["annotations"] = {"restarted": "yes"}
        await lab.apply(changed)
        last = await ready_pod(lab, "web", but=following["metadata"]["uid"])

        async def alone() -> bool:
            return len(await pods(lab, "web")) == 1

        await until(alone)
        assert (await client.get(url)).json()["app"].startswith(last["metadata"]["name"])


async def test_a_pod_that_the_node_controller_gave_up_is_ready_again(lab: Lab) -> None:
    """What it does to every Pod of a node that was not heard of for 50 s, as when the API server was away."""
    pods = "/api/v1/namespaces/default/pods"
    (pod,) = (await lab.api.call("GET", pods, query={"labelSelector": "app=frontend-service"}))["items"]
    name = pod["metadata"]["name"]
    conditions = [one | {"status": "False"} if one["type"] == "Ready" else one for one in pod["status"]["conditions"]]
    body = {"status": {"conditions": conditions}}
    await lab.api.call("PATCH", f"{pods}/{name}/status", body=body, content_type=MERGE_PATCH)

    def ready(item: Json) -> bool:
        return item["metadata"]["name"] == name and {"True"} == {
            one["status"] for one in item["status"]["conditions"] if one["type"] == "Ready"
        }

    await lab.until(pods, ready, seconds=10)


async def test_init_containers_run_in_order_and_a_pod_that_ends_has_succeeded(lab: Lab, namespace: str) -> None:
    def step(name: str, script: str) -> Json:
        mounts = [{"name": "shared", "mountPath": "/shared"}]
        return {
            "name": name,
            "image": "docker.io/example/certwright-lab-web:1",
            "command": ["/bin/sh", "-c", script],
            "volumeMounts": mounts,
        }

    await lab.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "steps", "namespace": NAMESPACE},
            "spec": {
                "restartPolicy": "Never",
                "initContainers": [step("one", "echo one >> shared/log"), step("two", "echo two >> shared/log")],
                "containers": [step("main", "grep -q one shared/log && echo three >> shared/log")],
                "volumes": [{"name": "shared", "emptyDir": {}}],
            },
        }
    )

    async def ended() -> bool:
        pod = await lab.api.call("GET", f"{PODS}/steps")
        return pod["status"]["phase"] in {"Succeeded", "Failed"}

    await until(ended)
    pod = await lab.api.call("GET", f"{PODS}/steps")
    assert pod["status"]["phase"] == "Succeeded"
    containers = [*pod["status"]["initContainerStatuses"], *pod["status"]["containerStatuses"]]
    assert [(entry["name"], entry["state"]["terminated"]["exitCode"]) for entry in containers] == [
        ("one", 0),
        ("two", 0),
        ("main", 0),
    ]


async def test_an_image_that_nothing_stands_for_says_so(lab: Lab, namespace: str) -> None:
    await lab.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "unknown", "namespace": NAMESPACE},
            "spec": {"containers": [{"name": "main", "image": "docker.io/example/unheard-of:1"}]},
        }
    )

    async def refused() -> bool:
        pod = await lab.api.call("GET", f"{PODS}/unknown")
        statuses = pod["status"].get("containerStatuses") or [{}]
        waiting = (statuses[0].get("state") or {}).get("waiting") or {}
        return bool(waiting.get("reason") == "ErrImagePull")

    async def gone() -> bool:
        try:
            await lab.api.call("GET", f"{PODS}/unknown")
        except ApiError as error:
            return error.status == 404
        return False

    await until(refused)
    await lab.api.call("DELETE", f"{PODS}/unknown")
    await until(gone)
