"""Labs on one host are given different ports, however close together they ask."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

from lab.ports import free_ports

ASK = """
import json, sys
from lab.ports import free_ports
print(json.dumps(free_ports(80)), flush=True)
sys.stdin.read()
"""


async def test_two_labs_that_choose_at_once_get_different_ports() -> None:
    root = str(Path(__file__).parents[2])
    labs = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            ASK,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": root},
        )
        for _ in range(4)
    ]
    chosen: list[int] = []
    for lab in labs:
        assert lab.stdout is not None
        chosen += json.loads(await asyncio.wait_for(lab.stdout.readline(), 20))
    for lab in labs:
        await lab.communicate(b"")
    assert len(chosen) == len(set(chosen)) == 320


def test_a_port_that_somebody_listens_on_is_not_given_away() -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        assert port not in free_ports(150)


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(free_ports(20)) < first or first <= 20_100
