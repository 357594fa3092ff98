"""A lab's servers and Deployments can be frozen, stopped and killed by name, from inside and from a shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import httpx
import pytest

from lab import control
from lab.api import ApiError, Json
from lab.cluster import Lab, run_lab
from lab.faults import UnknownNameError
from lab.ports import free_ports
from lab.servers import Servers

pytestmark = pytest.mark.lab
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
async def own(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """A lab without Istio that only these tests break."""
    async with run_lab(tmp_path_factory.mktemp("faults") / "lab", istio=False) as running:
        yield running


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - what is looked at tells nobody of its changes
            await asyncio.sleep(0.05)


async def asked(lab: Lab, *words: str) -> tuple[int, str, str]:
    """Run `python -m lab WORDS` from a shell: exit code, output, errors."""
    return await lab.guard.run(
        [sys.executable, "-m", "lab", *words, "--dir", str(lab.directory)],
        cwd=Path(__file__).parents[2],
        environment=os.environ,
    )


async def answers(lab: Lab) -> bool:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, ApiError):
        await lab.api.call("GET", CONFIG_MAPS, timeout=1.0)
        return True
    return False


async def test_a_frozen_api_server_hangs_and_goes_on_where_it_was(own: Lab) -> None:
    async with own.frozen("kube-apiserver"):
        with pytest.raises(TimeoutError):
            await own.api.call("GET", CONFIG_MAPS, timeout=0.5)
        seen = await asyncio.to_thread(control.ask, own.directory, {"about": "status"})
        states = {process["name"]: (process["state"], process["ready"]) for process in seen["processes"]}
        assert states["kube-apiserver"] == ("frozen", False)
        assert states["kube-controller-manager"] == ("running", True)
    await until(lambda: answers(own))


@pytest.mark.parametrize("name", ["etcd", "kube-apiserver"])
async def test_a_stopped_server_comes_back_with_its_data(own: Lab, name: str) -> None:
    body: Json = {"metadata": {"name": f"kept-{name}"}, "data": {"a": "b"}}
    await own.api.call("POST", CONFIG_MAPS, body=body)
    before = own.servers[name].pid
    async with own.stopped(name):
        assert own.servers[name].pid is None
        assert not await answers(own)
    assert own.servers[name].pid not in {None, before}
    await until(lambda: answers(own))
    assert (await own.api.call("GET", f"{CONFIG_MAPS}/kept-{name}"))["data"] == {"a": "b"}
    assert own.servers[name].restarts == 0, "it was meant to end"


async def test_a_server_that_dies_by_itself_is_started_again(own: Lab) -> None:
    server = own.servers["kube-controller-manager"]
    before, restarts = server.pid, server.restarts
    assert before is not None
    os.kill(before, signal.SIGKILL)

    async def back() -> bool:
        return server.pid not in {None, before}

    await until(back)
    await own.server_ready("kube-controller-manager")
    assert server.restarts == restarts + 1


async def test_a_server_that_cannot_live_is_given_up_and_the_lab_says_so(own: Lab) -> None:
    said: list[str] = []
    servers = Servers(own.directory, own.guard, said.append)
    try:
        await servers.start("doomed", ["/bin/sh", "-c", "exit 3"])
        assert "doomed ended 5 times" in await asyncio.wait_for(asyncio.shield(servers.failed), 20)
        assert servers["doomed"].given_up
        assert "doomed ended by itself with 3" in said[0]
    finally:
        await servers.close()


async def test_the_ca_refuses_and_keeps_its_state_or_comes_back_as_another_one(own: Lab) -> None:
    async with aiohttp.ClientSession() as session:

        async def directory() -> int:
            async with session.get(own.acme_directory, ssl=False) as response:
                return response.status

        root = (await own.acme_root()).read_bytes()
        async with own.faults.refused():
            with pytest.raises(aiohttp.ClientConnectorError):
                await directory()
        assert await directory() == 200
        assert (await own.acme_root()).read_bytes() == root
        await own.restarted("pebble")
        assert await directory() == 200
        renewed = (own.directory / "acme-root.pem").read_bytes()
        assert renewed != root
        assert renewed == (await own.acme_root()).read_bytes()


def deployment(name: str, port: int) -> Json:
    """The web application, with a readiness probe."""
    labels = {"app": name}
    container = {
        "name": "web",
        "image": "registry.invalid/certwright-lab-web:1",
        "ports": [{"containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": port}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


@pytest.mark.parametrize("fault", ["frozen", "stopped"])
@pytest.mark.parametrize("name", ["kube-apiserver", "etcd"])
async def test_pods_that_were_being_made_when_the_control_plane_went_away_run_after_it_is_back(
    own: Lab, name: str, fault: str
) -> None:
    (port,) = free_ports(1)
    await own.apply(deployment(f"late-{fault}-{name}", port))
    async with getattr(own, fault)(name):
        await asyncio.sleep(2)
    await own.deployment_available("default", f"late-{fault}-{name}", seconds=40)


async def test_a_deployment_is_frozen_killed_and_scaled_away(own: Lab) -> None:
    (port,) = free_ports(1)
    await own.apply(deployment("fragile", port))
    await own.deployment_available("default", "fragile")
    (pod,) = [pod for pod in own.pods.values() if pod.name.startswith("fragile-")]
    url = f"http://{pod.status()['podIP']}:{port}/"

    async def served() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(trust_env=False, timeout=0.5) as client:
                return (await client.get(url)).status_code == 200
        return False

    assert await served()
    async with own.frozen("fragile"):
        assert not await served()
    await until(served)
    before = pod.processes()["web"]
    await own.faults.kill("fragile")

    async def restarted() -> bool:
        return pod.processes().get("web") not in {None, before}

    await until(restarted)
    async with own.stopped("fragile"):
        assert not await served()
        assert not [pod for pod in own.pods.values() if pod.name.startswith("fragile-")]
    assert await served()


async def test_an_unknown_name_is_told_with_the_known_ones(own: Lab) -> None:
    with pytest.raises(UnknownNameError, match="kube-apiserver"):
        await own.faults.freeze("kube-scheduler")
    with pytest.raises(UnknownNameError, match="stop etcd instead"):
        await own.faults.refuse("etcd")


async def test_a_shell_breaks_servers_dns_and_load_balancer_by_one_command_each(own: Lab) -> None:
    mode = (own.directory / control.SOCKET).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    own.dns.add_zone("shell.test")
    breaking: list[tuple[str, ...]] = [
        ("dns", "set", "www.shell.test", "A", "192.0.2.7", "192.0.2.8"),
        ("dns", "fault", "www.shell.test", "servfail"),
        ("balancer", "refuse", "127.0.0.2"),
        ("fault", "freeze", "pebble"),
    ]
    for words in breaking:
        assert await asked(own, *words) == (0, "", "")
    code, out, _ = await asked(own, "status")
    assert code == 0
    assert {"dns www.shell.test: servfail", f"balancer 127.0.0.2:{own.https_port}: refuse"} <= {
        line.removeprefix("fault").strip() for line in out.splitlines() if line.startswith("fault")
    }
    assert "frozen" in next(line for line in out.splitlines() if "pebble" in line)
    code, out, _ = await asked(own, "dns", "show", "shell.test")
    assert out.splitlines() == ["www.shell.test. 5 IN A 192.0.2.7", "www.shell.test. 5 IN A 192.0.2.8"]
    mending: list[tuple[str, ...]] = [
        ("dns", "unset", "www.shell.test"),
        ("dns", "mend"),
        ("balancer", "mend", "127.0.0.2"),
        ("fault", "thaw", "pebble"),
    ]
    for words in mending:
        assert await asked(own, *words) == (0, "", "")
    assert own.dns.faults() == {} == own.balancer.faults()
    await own.server_ready("pebble")
    code, out, errors = await asked(own, "dns", "set", "elsewhere.invalid", "A", "192.0.2.7")
    assert (code, out) == (1, "")
    assert "lies in no zone" in errors
    code, out, errors = await asked(own, "logs", "pebble")
    assert (code, errors) == (0, "")
    assert "Pebble" in out
