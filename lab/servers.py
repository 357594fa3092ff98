"""The lab's servers (etcd, kube-apiserver, ...): started in order, watched, started again, ended in reverse.

A server that ends by itself is noticed at once: it is said in the lab's log, and the server is started again with the
same arguments, ports and data. One that keeps ending is given up, and `failed` says so to whoever runs the lab. Left
out: Pods, which the node restarts (`lab.pod`), and what is broken on purpose, and why (`lab.faults`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path

from lab.processes import ProcessGuard

_STOP_SECONDS = 2.0
_GIVEN_UP_AFTER, _GIVEN_UP_SECONDS = 5, 60.0
"""A server that ended so many times by itself within so many seconds is not started again."""
_AGAIN_FIRST, _AGAIN_LAST = 0.2, 2.0

Progress = Callable[[str], None]


async def _nothing() -> None:
    return


@dataclasses.dataclass(slots=True, kw_only=True)
class Server:
    """One server: how it is started, and how it is.

    Attributes:
        health: URL that answers with less than 400 when the server is ready; empty where nobody asks.
        started: awaited after each start.
        wanted: False while it is stopped on purpose.
        restarts: how often it was started again after it had ended by itself.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    health: str = ""
    started: Callable[[], Awaitable[None]] = _nothing
    process: asyncio.subprocess.Process | None = None
    wanted: bool = True
    given_up: bool = False
    restarts: int = 0
    deaths: list[float] = dataclasses.field(default_factory=list)

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self.process.pid if self.process is not None and self.process.returncode is None else None


class Servers:
    """The servers of one lab, by name."""

    def __init__(self, directory: Path, guard: ProcessGuard, progress: Progress) -> None:
        self._directory = directory
        self._guard = guard
        self._progress = progress
        self._servers: dict[str, Server] = {}
        self._keepers: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done once something of the lab is broken for good; its result says what."""
        (directory / "logs").mkdir(exist_ok=True)

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers.values())

    def __getitem__(self, name: str) -> Server:
        return self._servers[name]

    def __contains__(self, name: str) -> bool:
        return name in self._servers

    async def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        health: str = "",
        started: Callable[[], Awaitable[None]] = _nothing,
    ) -> Server:
        """Start a new server, with `environment` on top of this process's. Raises OSError, and what `started` does."""
        server = Server(
            name=name,
            argv=tuple(argv),
            environment={**os.environ, **(environment or {})},
            log=self._directory / "logs" / f"{name}.log",
            health=health,
            started=started,
        )
        self._servers[name] = server
        await self._launch(server)
        await server.started()
        return server

    async def stop(self, name: str, *, grace: float = _STOP_SECONDS) -> None:
        """End a server on purpose: SIGTERM, `grace` seconds, SIGKILL; it stays away. Raises KeyError."""
        server = self._servers[name]
        server.wanted = False
        process, server.process = server.process, None
        if process is not None:
            await self._guard.stop(process, grace=grace)

    async def start_again(self, name: str) -> None:
        """Start a stopped server as it was: same arguments, ports and data. Raises KeyError, OSError."""
        server = self._servers[name]
        server.wanted, server.given_up = True, False
        server.deaths.clear()
        if server.pid is None:
            await self._launch(server)
            await server.started()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a server's process group. Raises KeyError, ProcessLookupError where it does not run."""
        if (pid := self._servers[name].pid) is None:
            raise ProcessLookupError(f"{name} does not run")
        os.killpg(pid, number)

    def fail(self, what: str) -> None:
        """Say that the lab is broken for good."""
        self._progress(what)
        if not self.failed.done():
            self.failed.set_result(what)

    async def close(self) -> None:
        """End every server, the last started first."""
        for server in reversed(list(self._servers.values())):
            with contextlib.suppress(ProcessLookupError):
                self.signal(server.name, signal.SIGCONT)  # a frozen one hears no SIGTERM
            await self.stop(server.name)
        for keeper in list(self._keepers):
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _launch(self, server: Server) -> None:
        process = await self._guard.start(
            server.argv, cwd=self._directory, environment=server.environment, log=server.log
        )
        server.process = process
        keeper = asyncio.create_task(self._keep(server, process), name=f"server {server.name}")
        self._keepers.add(keeper)
        keeper.add_done_callback(self._keepers.discard)

    async def _keep(self, server: Server, process: asyncio.subprocess.Process) -> None:
        """Wait for the end of one process of a server, and start the next where nobody meant it to end."""
        code = await process.wait()
        if server.process is not process or not server.wanted:
            return
        self._guard.forget(process)
        server.process = None
        now = time.monotonic()
        server.deaths = [death for death in server.deaths if now - death < _GIVEN_UP_SECONDS] + [now]
        if len(server.deaths) >= _GIVEN_UP_AFTER:
            server.given_up = True
            self.fail(f"{server.name} ended {len(server.deaths)} times by itself and is given up; see {server.log}")
            return
        self._progress(f"{server.name} ended by itself with {code}, and is started again; its log is {server.log}")
        await asyncio.sleep(min(_AGAIN_FIRST * 2 ** (len(server.deaths) - 1), _AGAIN_LAST))
        if server.wanted and server.process is None:
            server.restarts += 1
            try:
                await self._launch(server)
            except OSError as error:
                self.fail(f"{server.name} cannot be started again: {error.strerror}")
                return
            with contextlib.suppress(Exception):  # it may end once more, which its next keeper sees
                await server.started()
