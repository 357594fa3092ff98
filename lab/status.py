"""What runs of a lab, how much memory each process has, and whether it is ready.

Memory is VmRSS (proc(5)), in kibibytes. A server is ready when its health answers within a second; a Pod's process
when its container is. Processes that a program started itself, such as pilot-agent's Envoy, have lines of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from lab.pod import Pod

if TYPE_CHECKING:
    from lab.servers import Server, Servers

_HEALTH_SECONDS = 1.0


async def processes(servers: Servers, pods: Mapping[str, Pod], guard: int) -> list[dict[str, Any]]:
    """One entry for each process: name, program, pid, kib, state and whether it is ready. `guard` is a process id."""
    sessions = _sessions()
    rows = [{"name": name, **_process(pid), "ready": True} for name, pid in (("lab", os.getpid()), ("guard", guard))]
    async with aiohttp.ClientSession() as session:
        ready = await asyncio.gather(*(healthy(session, server) for server in servers))
    for server, answered in zip(servers, ready, strict=True):
        rows += [
            {"name": server.name, **_process(pid), "ready": answered, "restarts": server.restarts}
            for pid in sessions.get(server.pid or 0, [])
        ] or [{"name": server.name, "program": "", "pid": 0, "kib": 0, "state": _absence(server), "ready": False}]
    for pod in pods.values():
        for container, leader in pod.processes().items():
            name = f"{pod.namespace}/{pod.name}/{container}"
            ready_container = pod.container_ready(container)
            rows += [{"name": name, **_process(pid), "ready": ready_container} for pid in sessions.get(leader, [])]
    return [row for row in rows if row["pid"] or row["state"]]


async def healthy(session: aiohttp.ClientSession, server: Server) -> bool:
    """Whether a server answers that it is ready; one without a health URL is while it runs."""
    if server.pid is None:
        return False
    if not server.health:
        return True
    timeout = aiohttp.ClientTimeout(total=_HEALTH_SECONDS)
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with session.get(server.health, ssl=False, timeout=timeout) as response:
            return response.status < 400
    return False


def pods(running: Mapping[str, Pod]) -> list[dict[str, Any]]:
    """One entry for each Pod of the node."""
    entries = []
    for pod in running.values():
        status = pod.status()
        containers = status["containerStatuses"]
        entries.append(
            {
                "namespace": pod.namespace,
                "name": pod.name,
                "phase": status["phase"],
                "ready": f"{sum(entry['ready'] for entry in containers)}/{len(containers)}",
                "restarts": sum(entry["restartCount"] for entry in containers),
            }
        )
    return sorted(entries, key=lambda entry: (entry["namespace"], entry["name"]))


def _absence(server: Server) -> str:
    if server.given_up:
        return "given up"
    return "stopped" if not server.wanted else "starting"


def _sessions() -> dict[int, list[int]]:
    """Process ids by session id (proc(5), stat); every process of the lab leads a session of its own."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                found.setdefault(int(fields[3]), []).append(int(entry.name))
    return {session: sorted(members) for session, members in found.items()}


def _process(pid: int) -> dict[str, Any]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {"program": "", "pid": 0, "kib": 0, "state": ""}
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    state = facts.get("State", "").split()
    return {
        "program": facts["Name"].strip(),
        "pid": pid,
        "kib": int((facts.get("VmRSS") or "0").split()[0]),
        "state": {"T": "frozen", "Z": ""}.get(state[0] if state else "", "running"),
    }
