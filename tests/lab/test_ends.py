"""However and whenever a whole lab ends, nothing of it is left; and a directory has one lab at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from lab.directory import DirectoryTakenError, clear, facts, held, may_be_replaced, taken
from lab.processes import alive

pytestmark = pytest.mark.lab
ROOT = Path(__file__).parents[2]
WITHOUT_ISTIO = """
import asyncio, sys
from pathlib import Path
from lab.cluster import run_lab

async def main():
    async with run_lab(Path(sys.argv[1]), istio=False):
        print("up", flush=True)
        await asyncio.sleep(300)

asyncio.run(main())
"""


def of_lab(directory: Path) -> set[int]:
    """The processes that have the lab's directory in their command line or as their working directory."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words, place = (entry / "cmdline").read_bytes(), (entry / "cwd").readlink()
            if (str(directory).encode() in words or place.is_relative_to(directory)) and alive(int(entry.name)):
                found.add(int(entry.name))
    return found


async def nothing_left(directory: Path) -> None:
    async with asyncio.timeout(10):
        while of_lab(directory):  # noqa: ASYNC110 - other processes tell nobody of their end
            await asyncio.sleep(0.05)
    assert not taken(directory)


async def lab_process(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


async def said(process: asyncio.subprocess.Process, word: str) -> None:
    """Return once the process has printed `word`. Raises AssertionError where it ends before."""
    assert process.stdout is not None
    async with asyncio.timeout(90):
        async for line in process.stdout:
            if word in line.decode():
                return
    raise AssertionError(f"{word!r} was never said")


async def test_a_killed_owner_leaves_no_process(tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    owner = await lab_process("-c", WITHOUT_ISTIO, str(directory))
    await said(owner, "up")
    assert len(of_lab(directory)) >= 5
    owner.kill()
    await owner.wait()
    await nothing_left(directory)


@pytest.mark.parametrize("moment", ["", "API server answers", "node, DNS", "definitions are installed"])
async def test_an_interrupted_start_leaves_no_process(tmp_path: Path, moment: str) -> None:
    directory = tmp_path / "lab"
    owner = await lab_process("-m", "lab", "serve", "--dir", str(directory))
    if moment:
        await said(owner, moment)
    else:
        async with asyncio.timeout(30):
            while not (directory / "logs" / "kube-apiserver.log").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    owner.send_signal(signal.SIGINT)
    await asyncio.wait_for(owner.communicate(), 20)
    assert owner.returncode == 130
    await nothing_left(directory)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_up_ends_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    directory = tmp_path / "lab"
    starter = await lab_process("-m", "lab", "up", "--dir", str(directory))
    await said(starter, "API server answers")
    starter.send_signal(number)
    rest, _ = await asyncio.wait_for(starter.communicate(), 30)
    assert (starter.returncode, b"nothing is left running" in rest) == (130, True)
    await nothing_left(directory)


async def test_two_ups_at_once_start_one_lab(tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    both = [await lab_process("-m", "lab", "up", "--dir", str(directory)) for _ in range(2)]
    answers = [(await asyncio.wait_for(one.communicate(), 120))[0].decode() for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert sum("Istio is ready" in answer for answer in answers) == 1
    assert sum("runs in" in answer and "already" in answer for answer in answers) == 1
    running = facts(directory)
    assert running is not None
    assert running["kubeconfig"] == str(directory / "kubeconfig")
    down = await lab_process("-m", "lab", "down", "--dir", str(directory))
    assert "the lab is down" in (await asyncio.wait_for(down.communicate(), 30))[0].decode()
    await nothing_left(directory)


async def test_a_new_lab_forgets_the_data_of_one_that_was_killed(tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    for _ in range(2):
        owner = await lab_process("-c", WITHOUT_ISTIO, str(directory))
        await said(owner, "up")
        owner.kill()
        await owner.wait()
        await nothing_left(directory)


async def test_a_directory_has_one_lab_at_a_time(tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    with held(directory):
        assert taken(directory)
        with pytest.raises(DirectoryTakenError), held(directory):
            pass
        with pytest.raises(DirectoryTakenError):
            clear(directory)
    assert not taken(directory)
    (directory / "etcd").mkdir()
    assert may_be_replaced(directory)
    clear(directory)
    assert not (directory / "etcd").exists()
