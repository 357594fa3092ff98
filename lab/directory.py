"""One lab's directory: whose it is, who may delete it, and where a running lab is described.

A running lab holds a lock on `.lab.lock`, which the kernel drops when its process ends; `up` holds `.lab.up` from
looking until the lab runs, so that two at once start one. `lab.json` says where everything is: paths,
addresses, URLs, no keys.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_DESCRIPTION = "lab.json"
_LOCK, _UP = ".lab.lock", ".lab.up"
_MARKS = ("lab.log", _LOCK)


class DirectoryTakenError(Exception):
    """Another lab runs in the directory."""


def make(directory: Path) -> None:
    """Create the directory, for its owner only. Raises OSError."""
    os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103 - pathlib's would be refused in async code


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """The directory is this process's lab's, for as long as the block. Raises DirectoryTakenError, OSError."""
    make(directory)
    with _open(directory / _LOCK) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryTakenError(f"another lab runs in {directory}") from None
        yield


@contextlib.contextmanager
def starting(directory: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """No other `up` works on the directory, for as long as the block; `waiting` is called if there is one to wait for.

    Raises OSError.
    """
    make(directory)
    with _open(directory / _UP) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def taken(directory: Path) -> bool:
    """Whether a lab runs in the directory, ready or not."""
    try:
        with _open(directory / _LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def facts(directory: Path) -> dict[str, Any] | None:
    """The description of the lab that runs in the directory and is ready, or None."""
    try:
        described: dict[str, Any] = json.loads((directory / _DESCRIPTION).read_text())
    except (OSError, ValueError):
        return None
    return described if taken(directory) else None


@contextlib.contextmanager
def published(directory: Path, description: dict[str, Any]) -> Iterator[None]:
    """The description is in the directory for as long as the block."""
    path = directory / _DESCRIPTION
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(description, indent=2))
    partial.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def may_be_replaced(directory: Path) -> bool:
    """Whether it may be deleted: it is not there, is empty but for `up`'s lock, or is an earlier lab's."""
    if not directory.exists():
        return True
    if not directory.is_dir():
        return False
    return any((directory / mark).exists() for mark in _MARKS) or all(
        entry.name == _UP for entry in directory.iterdir()
    )


def forget(directory: Path) -> None:
    """Delete an earlier lab's data, which a new lab's keys do not open, from a directory that is `held`."""
    for name in ("etcd", "node"):
        shutil.rmtree(directory / name, ignore_errors=True)


def clear(directory: Path) -> None:
    """Delete what an earlier lab left, but not the locks. Raises DirectoryTakenError, OSError."""
    if taken(directory):
        raise DirectoryTakenError(f"a lab runs in {directory}")
    make(directory)
    for entry in directory.iterdir():
        if entry.name in {_LOCK, _UP}:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
