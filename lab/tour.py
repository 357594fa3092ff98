"""What can be tried with a demo that was left running: an environment for a shell, and the commands, word for word.

What is printed is what the end-to-end test of a newcomer runs. Left out: running them.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lab.cluster import GATEWAY_ADDRESSES

BREAK_IT = "Break its DNS, and be told the fix:"
_PROGRAMS = Path(sys.executable).parent


class Try(NamedTuple):
    """One command for a shell, and what it shows."""

    command: str
    words: str


def write_environment(path: Path, variables: Mapping[str, str], binaries: Path) -> None:
    """A file for ``. FILE``: the variables, and `PATH` with the product's, the lab's and its `binaries`' programs."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    programs = ":".join(shlex.quote(str(place)) for place in (_PROGRAMS, binaries))
    path.write_text("\n".join([*lines, f'export PATH={programs}:"$PATH"', ""]))


def tour(*, hostname: str, environment: Path, directory: Path) -> tuple[tuple[str, tuple[Try, ...]], ...]:
    """The commands by heading, for a shell with `environment`; paths are shown as seen from here."""
    down = "make down" if directory == Path(".demo").absolute() else _down(directory)
    return (
        (
            BREAK_IT,
            (
                Try(f". {_shown(environment)}", "this shell knows the demo now"),
                Try(f"certwright status {hostname}", "it is active"),
                Try(f"certwright-lab dns unset {hostname} A", "the customer deletes the record"),
                Try(f"certwright check {hostname}", "which record is missing"),
                Try(f"certwright diagnose {hostname}", "the same, without Temporal and workers"),
                Try(f"certwright-lab dns set {hostname} A {' '.join(GATEWAY_ADDRESSES)}", "the fix"),
                Try(f"certwright check {hostname}", "it is well again"),
            ),
        ),
        (
            "Look around, and break more (docs/lab.md):",
            (
                Try("kubectl get pods -A", "the cluster"),
                Try("certwright-lab status", "every process, and what is broken"),
                Try("certwright-lab fault freeze pebble", "the CA hangs; thaw mends it"),
            ),
        ),
        ("End it:", (Try(down, "every process of it"),)),
    )


def printed(parts: Sequence[tuple[str, Sequence[Try]]]) -> str:
    """The commands as lines for a terminal; what each shows is a shell's comment."""
    wide = max(len(one.command) for _, tries in parts for one in tries)
    lines = []
    for heading, tries in parts:
        lines += ["", heading, *(f"  {one.command:<{wide}}  # {one.words}" for one in tries)]
    return "\n".join(lines)


def _shown(path: Path) -> str:
    near = path.is_relative_to(Path.cwd())
    text = str(path.relative_to(Path.cwd()) if near else path)
    return shlex.quote(f"./{text}" if near and "/" not in text else text)


def _down(directory: Path) -> str:
    return f"{shlex.quote(sys.executable)} -m lab.demo down --dir {_shown(directory)}"
