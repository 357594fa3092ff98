"""What `make up` tells a newcomer to try, tried word for word: break the DNS, be told the fix, see it well again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from lab.cluster import GATEWAY_ADDRESSES
from lab.demo import HOSTNAME
from lab.tour import BREAK_IT
from tests.e2e.test_demo import ROOT, demo, ended, gone

pytestmark = pytest.mark.lab


def commands(printed: str, heading: str) -> list[str]:
    """The commands below a heading, as they are printed."""
    _, _, after = printed.partition(f"\n{heading}\n")
    return re.findall(r"^  (\S.*)$", after.partition("\n\n")[0], re.MULTILINE)


def shell(*lines: str) -> tuple[int, str]:
    """What a fresh shell in the repository makes of lines, and the exit code of the last."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(
        ["sh", "-c", "\n".join(lines)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_newcomer_breaks_the_dns_and_is_told_the_fix(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    code, told = await ended(demo(directory, "up"))
    try:
        assert code == 0, told
        known, status, break_it, check, diagnose, fix, check_again = commands(told, BREAK_IT)
        missing = [f"{HOSTNAME} A {address}" for address in GATEWAY_ADDRESSES]

        async def run(line: str) -> tuple[int, str]:
            return await asyncio.to_thread(shell, known, line)

        code, said = await run(status)
        assert (code, "active" in said) == (0, True), said
        assert (await run(break_it))[0] == 0
        for question in (check, diagnose):
            code, said = await run(question)
            assert (code, "CW1101 NameDoesNotResolve" in said) == (1, True), said
            # a terminal may break a line anywhere
            flat = " ".join(said.split())
            assert all(record in flat for record in missing), said
        code, said = await run(status)
        assert (code, "partly" in said) == (1, True), said  # the further name still points here
        assert (await run(fix))[0] == 0
        code, said = await run(check_again)
        assert (code, "CW1101" in said, "pointed" in said) == (0, False, True), said
        code, said = await run(f"certwright status {shlex.quote(HOSTNAME)} --json")
        now = json.loads(said)["status"]
        assert (code, now["routing"], now["findings"], now["step"]) == (0, "pointed", [], "active")
        code, said = await run(diagnose)
        assert code == 0, said
    finally:
        (down,) = commands(told, "End it:") or [""]
        code, said = await asyncio.to_thread(shell, down)
    assert (code, "everything has ended" in said) == (0, True), said
    assert await gone(directory) == []
