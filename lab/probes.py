"""Whether a container answers: startup, readiness and liveness probes by HTTP, TCP or command.

As the kubelet does it (Kubernetes: "Configure Liveness, Readiness and Startup Probes"), with one difference: until
a container is ready for the first time its readiness is asked four times a second without the initial delay, so
that a lab starts fast. Left out: gRPC probes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping

import aiohttp

from lab.api import Json

EAGER_SECONDS = 0.25


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a container listens: the Pod's address, port names to declared numbers, declared numbers to real ones."""

    address: str
    names: Mapping[str, int]
    real: Mapping[int, int]

    def port(self, stated: int | str) -> int:
        """The real port of a probe's port, by number or name. Raises KeyError for an unknown name."""
        number = self.names[stated] if isinstance(stated, str) and not stated.isdecimal() else int(stated)
        return self.real.get(number, number)


Execute = Callable[[list[str], float], Awaitable[int]]
"""(argv, seconds) to an exit code."""


async def answer(probe: Json, target: Target, session: aiohttp.ClientSession, execute: Execute) -> str | None:
    """Ask once. None where the probe succeeds, else the reason in a few words."""
    seconds = float(probe.get("timeoutSeconds") or 1)
    try:
        async with asyncio.timeout(seconds):
            if asked := probe.get("httpGet"):
                return await _http(asked, target, session)
            if asked := probe.get("tcpSocket"):
                _, writer = await asyncio.open_connection(
                    asked.get("host") or target.address, target.port(asked["port"])
                )
                writer.close()
                return None
            if asked := probe.get("exec"):
                code = await execute(list(asked.get("command") or []), seconds)
                return None if code == 0 else f"command ended with {code}"
            return None
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except (OSError, aiohttp.ClientError) as error:
        return f"{type(error).__name__}: {str(error)[:160]}"
    except KeyError as error:
        return f"the container has no port named {error.args[0]}"


async def _http(asked: Json, target: Target, session: aiohttp.ClientSession) -> str | None:
    scheme = (asked.get("scheme") or "HTTP").lower()
    url = f"{scheme}://{asked.get('host') or target.address}:{target.port(asked['port'])}{asked.get('path') or '/'}"
    headers = {header["name"]: header["value"] for header in asked.get("httpHeaders") or []}
    async with session.get(url, headers=headers, ssl=False, allow_redirects=False) as response:
        return None if 200 <= response.status < 400 else f"HTTP {response.status}"


async def until_failure(probe: Json, ask: Callable[[], Awaitable[str | None]]) -> str:
    """A liveness probe: returns the reason once `failureThreshold` answers in a row were bad."""
    await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
    failures = 0
    while True:
        reason = await ask()
        failures = 0 if reason is None else failures + 1
        if reason is not None and failures >= int(probe.get("failureThreshold") or 3):
            return reason
        await asyncio.sleep(float(probe.get("periodSeconds") or 10))


async def until_success(probe: Json, ask: Callable[[], Awaitable[str | None]]) -> str | None:
    """A startup probe: None once it succeeded, or the reason when its time is over."""
    period = float(probe.get("periodSeconds") or 10)
    allowed = float(probe.get("initialDelaySeconds") or 0) + period * int(probe.get("failureThreshold") or 3)
    reason: str | None = "not asked"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(allowed):
            while True:
                reason = await ask()
                if reason is None:
                    return None
                await asyncio.sleep(min(period, EAGER_SECONDS))
    return reason


async def watch_readiness(
    probe: Json, ask: Callable[[], Awaitable[str | None]], changed: Callable[[bool, str], None]
) -> None:
    """A readiness probe: calls `changed` with each change, for ever."""
    ready = was_ready = False
    failures = successes = 0
    while True:
        reason = await ask()
        failures, successes = (0, successes + 1) if reason is None else (failures + 1, 0)
        if not ready and successes >= int(probe.get("successThreshold") or 1):
            ready = was_ready = True
            changed(True, "")
        elif ready and failures >= int(probe.get("failureThreshold") or 3):
            ready = False
            changed(False, reason or "")
        await asyncio.sleep(float(probe.get("periodSeconds") or 10) if was_ready else EAGER_SECONDS)
