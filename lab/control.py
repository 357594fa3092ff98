"""Faults from outside the process that owns a lab: one request and one answer, JSON lines on a Unix socket.

The socket lies in the lab's directory and is its owner's alone (0600). `ask` is the client's side; `lab.cli` puts
words to it. Left out: anything that could not be asked of the `Lab` object itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import dns.exception

from lab import status
from lab.api import ApiError, Json
from lab.dns import FaultKind
from lab.faults import UnknownNameError
from lab.loadbalancer import Address, Fault

if TYPE_CHECKING:
    from lab.cluster import Lab

SOCKET = "control.sock"
_LONGEST = 1 << 20
_ASKED_SECONDS = 5.0


class ControlError(Exception):
    """The lab refused or could not do what was asked; the message is for the person who asked."""


@contextlib.asynccontextmanager
async def served(lab: Lab) -> AsyncIterator[None]:
    """Requests are answered for as long as the block. Raises OSError."""
    path = lab.directory / SOCKET
    path.unlink(missing_ok=True)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_ASKED_SECONDS):
                line = await reader.readline()
            writer.write(json.dumps(await _answer(lab, line)).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass
        finally:
            writer.close()

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with _short(path) as name:
            listener.bind(name)
        path.chmod(0o600)
        server = await asyncio.start_unix_server(answer, sock=listener, limit=_LONGEST)
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)


def ask(directory: Path, request: Json, *, seconds: float = 120.0) -> Json:
    """Ask the lab that runs in `directory`. Raises ControlError, OSError where none listens there."""
    path = directory / SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        with _short(path) as name:
            connection.connect(name)
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile() as answers:
            line = answers.readline()
    if not line:
        raise ControlError("the lab gave no answer")
    answer: Json = json.loads(line)
    if problem := answer.get("error"):
        raise ControlError(problem)
    return answer


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the socket that fits: unix(7) allows 107 octets, and a lab may lie deep."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


async def _answer(lab: Lab, line: bytes) -> Json:
    from lab.cluster import LabError

    try:
        request = json.loads(line)
        return await _HANDLERS[request["about"]](lab, request)
    except (KeyError, TypeError, ValueError, dns.exception.DNSException) as error:
        return {"error": f"not understood: {error}"}
    except (UnknownNameError, LabError, ApiError) as error:
        return {"error": str(error)}
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


async def _status(lab: Lab, _: Json) -> Json:
    return {
        **lab.description(),
        "failed": lab.servers.failed.result() if lab.servers.failed.done() else "",
        "processes": await status.processes(lab.servers, lab.pods, lab.guard.pid),
        "pods": status.pods(lab.pods),
        "faults": {"dns": lab.dns.faults(), "balancer": _balancer_faults(lab)},
    }


async def _fault(lab: Lab, request: Json) -> Json:
    name, seconds = str(request["name"]), float(request.get("seconds") or 0)
    faults = lab.faults
    match request["action"]:
        case "restart":
            await faults.restart(name, seconds=seconds)
        case "freeze" | "thaw" | "kill" | "stop" | "start" | "refuse" | "accept" as action:
            await getattr(faults, action)(name)
        case other:
            raise ValueError(f"no fault {other!r}")
    return {}


async def _dns(lab: Lab, request: Json) -> Json:
    name = str(request.get("name") or "")
    match request["action"]:
        case "set":
            lab.dns.set(name, request["type"], request["values"], ttl=int(request.get("ttl") or 5))
        case "unset":
            lab.dns.remove(name, request.get("type") or None)
        case "zone":
            lab.dns.add_zone(name)
        case "fault":
            kind = FaultKind(request["kind"])
            whole_zone, seconds = bool(request.get("whole_zone")), float(request.get("seconds") or 2)
            lab.dns.fault(name, kind, seconds=seconds, whole_zone=whole_zone)
        case "mend":
            if name:
                lab.dns.fault(name, None)
            else:
                lab.dns.mend()
        case "show":
            return {"records": lab.dns.shown(name)}
        case other:
            raise ValueError(f"no action {other!r}")
    return {}


async def _balancer(lab: Lab, request: Json) -> Json:
    host, port = str(request["address"]), int(request.get("port") or 0)
    fronts = [front for front in lab.balancer.fronts if front.host == host and port in {0, front.port}]
    if not fronts:
        known = ", ".join(f"{front.host}:{front.port}" for front in lab.balancer.fronts)
        raise UnknownNameError(f"the load balancer has no such address; it has {known}")
    for front in fronts:
        match request["action"]:
            case "mend":
                await lab.balancer.mend(front)
            case "lead":
                backend_host, _, backend_port = str(request["backend"]).rpartition(":")
                await lab.balancer.break_(front, Address(host=backend_host, port=int(backend_port)))
            case action:
                await lab.balancer.break_(front, Fault(action))
    return {}


def _balancer_faults(lab: Lab) -> dict[str, str]:
    return {f"{front.host}:{front.port}": fault for front, fault in lab.balancer.faults().items()}


_HANDLERS: dict[str, Callable[[Lab, Json], Awaitable[dict[str, Any]]]] = {
    "status": _status,
    "fault": _fault,
    "dns": _dns,
    "balancer": _balancer,
}
