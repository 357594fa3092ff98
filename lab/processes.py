"""How the lab starts a process so that none is left behind, however the lab itself ends.

Three nets, each for what the one before misses:

1. every process is started in a session (and so a process group) of its own, and is ended as a group: SIGTERM, a
   grace period, SIGKILL;
2. the kernel kills the process when the lab's own process dies (``PR_SET_PDEATHSIG``, prctl(2)), which covers SIGKILL
   of the lab, but only its direct children;
3. a guard, one tiny process for the whole lab, holds the reading end of a pipe. When the lab dies the pipe closes, and
   the guard kills every group that was still registered: this reaches grandchildren such as pilot-agent's Envoy.

Left out: restarts, logs' rotation and readiness belong to whoever starts the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)

_GUARD = """
import os, signal, sys
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


def die_with_parent(parent: int) -> Callable[[], None]:
    """What a child runs between fork and exec, so that the kernel kills it when `parent` (a process id) dies."""

    def set_death_signal() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the call above took effect
            os._exit(1)

    return set_death_signal


def alive(process: int) -> bool:
    """Whether a process runs (a zombie that nobody has waited for does not)."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class ProcessGuard:
    """Starts processes in groups of their own, and kills every group that is left when this process dies."""

    def __init__(self) -> None:
        self._guard: asyncio.subprocess.Process | None = None

    async def open(self) -> None:
        """Start the guard process. Must run before the first `start`."""
        self._guard = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", _GUARD, stdin=asyncio.subprocess.PIPE, start_new_session=True, cwd="/"
        )

    @property
    def pid(self) -> int:
        """The guard's own process id; 0 before `open`."""
        return self._guard.pid if self._guard is not None else 0

    async def close(self) -> None:
        """End the guard; it kills the groups that are still registered."""
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin is not None:
            guard.stdin.close()
            await guard.wait()

    def _tell(self, sign: str, group: int) -> None:
        if self._guard is not None and self._guard.stdin is not None and not self._guard.stdin.is_closing():
            self._guard.stdin.write(f"{sign}{group}\n".encode())

    async def start(
        self, argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path
    ) -> asyncio.subprocess.Process:
        """Start `argv` with its output appended to `log`. Raises OSError where the program cannot be started."""
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd=cwd,
                env=dict(environment),
                start_new_session=True,
                preexec_fn=die_with_parent(os.getpid()),
            )
        finally:
            os.close(descriptor)
        self._tell("+", process.pid)
        return process

    async def run(self, argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
        """Run a short command to its end: exit code, output and errors. It ends with its caller. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=die_with_parent(os.getpid()),
        )
        self._tell("+", process.pid)
        try:
            out, errors = await process.communicate()
        finally:
            self.forget(process)
            await process.wait()
        return process.returncode or 0, out.decode(errors="replace"), errors.decode(errors="replace")

    def forget(self, process: asyncio.subprocess.Process) -> None:
        """Kill what is left of a finished process's group, and stop guarding it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        self._tell("-", process.pid)

    async def stop(self, process: asyncio.subprocess.Process, *, grace: float) -> None:
        """End a process: SIGTERM to it, `grace` seconds, then SIGKILL to its whole group."""
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(process.wait()), grace)
        self.forget(process)
        await process.wait()
