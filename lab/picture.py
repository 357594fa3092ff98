"""`python -m lab.picture`: the README's picture of `certwright status NAME --watch`, taken on the demo of `make up`.

A domain is asked for before its DNS is right; while the command runs on a terminal of its own, the records are set and
a check is asked for, until it is active. The picture has the command's own screens, one for each state, with the
seconds at which they were seen. The domain is cancelled in the end.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from lab.cluster import GATEWAY_ADDRESSES
from lab.view import picture

HOSTNAME = "cafe.example.com"
WAITING, ISSUING, ACTIVE = "waiting for the customer", "getting the certificate", "served"
"""By what a screen is known, in the order in which they come."""

COLUMNS, LINES = 92, 40
_CLEAR = "\x1b[2J\x1b[H"
_LONGEST_SECONDS = 90.0


class Screen(NamedTuple):
    """What the command showed, and how many seconds after the first."""

    text: str
    seconds: float


def take(environment: Path) -> tuple[Screen, ...]:
    """The three screens. Raises RuntimeError where they do not come, CalledProcessError where a command fails."""

    def run(*command: str) -> None:
        subprocess.run(_in(environment, *command), check=True, stdout=subprocess.DEVNULL)

    def act() -> None:
        run("certwright-lab", "dns", "set", HOSTNAME, "A", *GATEWAY_ADDRESSES)
        run("certwright", "check", HOSTNAME)

    run("certwright-lab", "dns", "unset", HOSTNAME)
    run("certwright", "onboard", HOSTNAME, "--again")
    try:
        return _states(_watched(environment, "certwright", "status", HOSTNAME, "--watch"), act)
    finally:
        run("certwright", "cancel", HOSTNAME, "--yes")


def _in(environment: Path, *command: str) -> list[str]:
    return ["sh", "-c", f'. "{environment}" && exec "$@"', "sh", *command]


def _states(screens: Iterator[str], act: Callable[[], None]) -> tuple[Screen, ...]:
    """The first screen of each state; when the first state is seen somebody acts."""
    began, found = time.monotonic(), dict[str, Screen]()
    for text in screens:
        for state in (WAITING, ISSUING, ACTIVE):
            if state in Text.from_ansi(text).plain and state not in found:
                found[state] = Screen(text, time.monotonic() - began)
                if state == WAITING:
                    act()
        if ACTIVE in found:
            return tuple(found[state] for state in (WAITING, ISSUING, ACTIVE) if state in found)
    raise RuntimeError(f"seen only: {', '.join(found) or 'nothing'}")


def _watched(environment: Path, *command: str) -> Iterator[str]:
    """The screens that a command shows on a terminal, each as soon as the next one begins or nothing more comes."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    terminal = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(_in(environment, *command), stdin=its, stdout=its, stderr=its, env=terminal)
    os.close(its)
    seen, deadline = "", time.monotonic() + _LONGEST_SECONDS
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.3)[0]:
                seen += os.read(ours, 65536).decode(errors="replace")
            elif seen.strip():
                yield seen.rpartition(_CLEAR)[2].replace("\r\n", "\n")
                seen = ""
    finally:
        process.terminate()
        process.wait(10)
        os.close(ours)


def drawn(screens: tuple[Screen, ...]) -> str:
    """The screens below each other, as an SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
    for number, screen in enumerate(screens):
        if number:
            console.print()
            console.print(Rule(Text(f"after {screen.seconds:.0f} s"), style="dim", align="left"))
        console.print(Text.from_ansi(screen.text.strip("\n")))
    return picture(console, f"certwright status {HOSTNAME} --watch")


def main() -> int:
    """Take the picture; 1 where it did not come to be."""
    parser = argparse.ArgumentParser(prog="python -m lab.picture", description="The README's picture of --watch.")
    parser.add_argument("--dir", type=Path, default=Path(".demo"), help="of the demo that runs (default: .demo)")
    parser.add_argument("file", nargs="?", type=Path, default=Path("docs/status.svg"))
    given = parser.parse_args()
    environment: Path = given.dir.absolute() / "env"
    if not environment.exists():
        print(f"no demo runs in {given.dir}; start one with: make up", file=sys.stderr)
        return 1
    given.file.write_text(drawn(take(environment)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
