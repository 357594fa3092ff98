"""A command that goes on in a process of its own when the one that was typed is done, and what it says until then.

Left out: when it is ready, and how it is ended: that is known to whoever starts it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def start(log: Path, *words: str) -> subprocess.Popen[bytes]:
    """`python -m` and the words, in a session of its own, saying everything to the log, begun anew. Raises OSError."""
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def show(log: Path, shown: int) -> int:
    """Print the log's lines after the first `shown`; returns how many it has now."""
    lines = log.read_text(errors="replace").splitlines()
    for line in lines[shown:]:
        print(line, flush=True)
    return len(lines)
