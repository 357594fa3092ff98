"""A program of ours as a process, with the settings that a test gives and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path


@contextlib.asynccontextmanager
async def program(words: tuple[str, ...], log: Path, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m` and the words, saying everything to the log; killed where the test did not end it."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *words,
            stdout=output,
            stderr=output,
            env={"PATH": os.environ["PATH"], **settings},
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process, seconds: float) -> int:
    """The exit code after SIGTERM, within the time."""
    process.send_signal(signal.SIGTERM)
    return await asyncio.wait_for(process.wait(), seconds)
