"""`make demo`, `make up` and `make down` as a newcomer runs them: as programs, judged by what they print and leave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parent.parent.parent
LONGEST_SECONDS = 420.0


def demo(directory: Path, *arguments: str, evidence: Path | None = None) -> subprocess.Popen[str]:
    """`python -m lab.demo`, in a session of its own, as a shell would start it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CERTWRIGHT_", "DEMO_"))}
    # the marker is inherited by everything that the demo starts, however deep
    environment["DEMO_TEST_MARKER"] = str(directory)
    if evidence is not None:
        environment["DEMO_JSON"] = str(evidence)
    return subprocess.Popen(
        [sys.executable, "-m", "lab.demo", *arguments, "--dir", str(directory)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


async def ended(process: subprocess.Popen[str], *, seconds: float = LONGEST_SECONDS) -> tuple[int, str]:
    """The exit code and what was printed."""
    try:
        printed, _ = await asyncio.to_thread(process.communicate, timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        printed, _ = process.communicate(timeout=60)
        raise AssertionError(f"not ended after {seconds:.0f} s: {printed[-2000:]}") from None
    return process.returncode, printed


def left(directory: Path) -> list[str]:
    """The processes that carry the demo's marker, or name its directory; a zombie is none."""
    found, wanted = [], str(directory).encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if int(process.name) != os.getpid() and wanted in command + (process / "environ").read_bytes():
                found.append(f"{process.name} {command.replace(bytes(1), b' ').decode(errors='replace')[:100]}")
        except OSError:  # it has ended, or is not ours
            continue
    return found


async def gone(directory: Path) -> list[str]:
    """What is left of the demo's processes after the moment that a killed one needs to vanish."""
    deadline = time.monotonic() + 5.0
    while True:
        processes = left(directory)
        if not processes or time.monotonic() > deadline:
            return processes
        await asyncio.sleep(0.1)


async def test_two_demos_at_once_end_in_evidence_of_which_every_line_is_true(tmp_path: Path) -> None:
    """One is run and ends, the other stays up until it is told to end; they share the machine and no port."""
    evidence = tmp_path / "evidence.json"
    once, staying = tmp_path / "once", tmp_path / "staying"
    running, up = demo(once, "run", evidence=evidence), demo(staying, "up")
    try:
        (code, printed), (code_up, printed_up) = await asyncio.gather(ended(running), ended(up))
        assert code == 0, printed
        assert code_up == 0, printed_up
        told = json.loads(evidence.read_text())
        assert told["true"]
        assert [line for line in told["evidence"] if line["wrong"]] == []
        assert told["requests"]["made"] > 0
        assert told["requests"]["lost"] == 0
        assert told["backup"]["verified"]
        assert told["domain"]["renewals"] == 1
        assert all(told["versions"].values())
        assert all(step["seconds"] >= 0 for step in told["steps"])
        assert await gone(once) == []

        facts: dict[str, Any] = json.loads((staying / "demo.json").read_text())
        for name in ("temporal_ui", "portal", "kubeconfig"):
            assert facts[name] in printed_up
        tokens = json.loads((staying / "keys" / "portal-tokens.json").read_text())
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(facts["temporal_ui"])).status_code == 200
            headers = {"Authorization": f"Bearer {tokens['acme']}"}
            listed = await client.get(f"{facts['portal']}/v1/domains", headers=headers)
            assert [one["phase"] for one in listed.json()["domains"]] == ["active"]
        assert left(staying)
    finally:
        code, printed = await ended(demo(staying, "down"), seconds=60)
    assert code == 0, printed
    assert await gone(staying) == []
    code, printed = await ended(demo(staying, "down"), seconds=60)
    assert (code, "nothing runs" in printed) == (0, True)


async def test_an_interrupted_demo_ends_with_130_and_leaves_no_process(tmp_path: Path) -> None:
    directory = tmp_path / "interrupted"
    running = demo(directory, "run")
    await asyncio.to_thread(_until_api_server_answers, directory, running)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to everything of the session's foreground
    code, printed = await ended(running, seconds=60)
    assert code == 130, printed
    assert await gone(directory) == []


def _until_api_server_answers(directory: Path, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120.0
    while not (directory / "lab" / "logs" / "kube-controller-manager.log").exists():
        assert running.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, "the API server did not start"
        time.sleep(0.1)
