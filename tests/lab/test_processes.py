"""However the lab ends, its processes end with it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from lab.processes import alive

LAB = """
import asyncio, os, pathlib, sys
from lab.processes import ProcessGuard

async def main():
    guard = ProcessGuard()
    await guard.open()
    here = pathlib.Path(sys.argv[1])
    script = "sleep 300 & echo $! > grandchild; echo $$ > child; wait"
    await guard.start(["/bin/sh", "-c", script], cwd=here, environment=dict(os.environ), log=here / "log")
    while not ((here / "child").exists() and (here / "child").read_text()):
        await asyncio.sleep(0.02)
    print("up", flush=True)
    await asyncio.sleep(300)

asyncio.run(main())
"""


async def test_a_killed_lab_leaves_neither_child_nor_grandchild(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    lab = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        LAB,
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert lab.stdout is not None
    assert await asyncio.wait_for(lab.stdout.readline(), 20) == b"up\n"
    family = [int((tmp_path / name).read_text()) for name in ("child", "grandchild")]
    assert [alive(process) for process in family] == [True, True]

    lab.send_signal(signal.SIGKILL)
    await lab.wait()
    async with asyncio.timeout(5):
        while any(alive(process) for process in family):  # noqa: ASYNC110 - other processes tell nobody of their end
            await asyncio.sleep(0.02)
