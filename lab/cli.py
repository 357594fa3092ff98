"""`python -m lab`: one lab in a directory, started, looked at and ended from a shell.

`up` leaves a server process behind that owns the whole lab; what it needs to be found again is in `lab.json` of the
lab's directory. Exit codes: 0 done, 1 the lab is not as asked for, 2 bad arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.binaries import BuildError, prepare
from lab.cluster import GATEWAY_ADDRESSES, Lab, LabError, run_lab

_DOWN_SECONDS = 20.0


def describe(lab: Lab) -> dict[str, Any]:
    """What `lab.json` says of a running lab; paths, addresses and URLs, no keys."""
    return {
        "pid": os.getpid(),
        "kubeconfig": str(lab.kubeconfig),
        "binaries": str(lab.programs.binaries),
        "dns": lab.dns_address,
        "gateway": {"addresses": GATEWAY_ADDRESSES, "http_port": lab.http_port, "https_port": lab.https_port},
        "acme": {"directory": lab.acme_directory, "ca": str(lab.acme_ca), "management": lab.acme_management},
        "cert_manager": {"chart": str(lab.programs.cert_manager_chart), "values": lab.cert_manager_values},
    }


def _facts(directory: Path) -> dict[str, Any] | None:
    """The description of the lab that runs in `directory`, or None."""
    try:
        facts: dict[str, Any] = json.loads((directory / "lab.json").read_text())
        os.kill(facts["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    return facts


async def _serve(directory: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    starting = asyncio.create_task(_run(directory, stop))
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done() and not (directory / "lab.json").exists():
        starting.cancel()  # asked to stop before it had started
    await asyncio.gather(starting, return_exceptions=False)


async def _run(directory: Path, stop: asyncio.Event) -> None:
    path = directory / "lab.json"
    try:
        async with run_lab(directory, progress=lambda line: print(line, flush=True)) as lab:
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(describe(lab), indent=2))
            partial.replace(path)
            await stop.wait()
    finally:
        path.unlink(missing_ok=True)


def may_be_replaced(directory: Path) -> bool:
    """Whether `up` may delete what is there: nothing, an empty directory, or an earlier lab's (it has a lab.log)."""
    if not directory.exists():
        return True
    return directory.is_dir() and ((directory / "lab.log").exists() or not any(directory.iterdir()))


def up(directory: Path) -> int:
    """Start a lab and leave it running; progress on standard output."""
    if (facts := _facts(directory)) is not None:
        print(f"a lab runs in {directory} already (process {facts['pid']})")
        return 0
    if not may_be_replaced(directory):
        print(f"{directory} has files that are not a lab's; give an empty or a new directory to --dir", file=sys.stderr)
        return 2
    prepare(lambda line: print(line, flush=True))
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, mode=0o700)
    log = directory / "lab.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "lab", "serve", "--dir", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    shown = 0
    while True:
        ended = server.poll() is not None
        ready = _facts(directory) is not None
        lines = log.read_text().splitlines()
        for line in lines[shown:]:
            print(line, flush=True)
        shown = len(lines)
        if ready:
            print(f"kubeconfig: {directory / 'kubeconfig'}")
            return 0
        if ended:
            print(f"the lab did not start; the whole log is {log}", file=sys.stderr)
            return 1
        time.sleep(0.2)


def down(directory: Path) -> int:
    """End the lab and every process it started."""
    facts = _facts(directory)
    if facts is None:
        print(f"no lab runs in {directory}")
        return 0
    os.kill(facts["pid"], signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_SECONDS
    while time.monotonic() < deadline:
        try:
            os.kill(facts["pid"], 0)
        except ProcessLookupError:
            print("the lab is down")
            return 0
        time.sleep(0.1)
    print(f"process {facts['pid']} has not ended after {_DOWN_SECONDS:.0f} s", file=sys.stderr)
    return 1


def _logs(directory: Path, name: str) -> int:
    found = [*directory.glob("logs/*.log"), *directory.glob("node/**/*.log")]
    matching = [path for path in found if name in str(path.relative_to(directory))]
    if not matching:
        names = sorted(str(path.relative_to(directory)) for path in found)
        print("no log of that name; there are:\n" + "\n".join(names), file=sys.stderr)
        return 1
    for path in matching:
        if len(matching) > 1:
            print(f"==> {path.relative_to(directory)} <==")
        sys.stdout.write(path.read_text(errors="replace"))
    return 0


def _exec(facts: dict[str, Any], command: Sequence[str]) -> int:
    path = os.pathsep.join((facts["binaries"], str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = {**os.environ, "KUBECONFIG": facts["kubeconfig"], "PATH": path}
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except FileNotFoundError:
        print(f"no program {command[0]!r} in the lab or on this machine", file=sys.stderr)
        return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="lab", description="A real Kubernetes with Istio, without containers.")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--dir", type=Path, default=Path(".lab"), help="the lab's directory (default: .lab)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in {
        "up": "start a lab and leave it running",
        "down": "end it and every process it started",
        "status": "where everything is",
        "kubeconfig": "print the path of the kubeconfig",
        "serve": "run a lab in the foreground until SIGTERM",
    }.items():
        added = commands.add_parser(name, parents=[shared], help=purpose)
        if name == "status":
            added.add_argument("--json", action="store_true", help="everything, as JSON")
    logs = commands.add_parser("logs", parents=[shared], help="print the logs of servers or Pods")
    logs.add_argument("name", help="part of the log's name, such as istiod or kube-apiserver")
    run = commands.add_parser("exec", parents=[shared], help="run a command with the lab's KUBECONFIG and PATH")
    run.add_argument("argv", nargs="+", metavar="CMD", help="after --, such as: -- kubectl get pods -A")
    given = parser.parse_args(arguments)
    directory: Path = given.dir.absolute()
    try:
        match given.command:
            case "up":
                return up(directory)
            case "down":
                return down(directory)
            case "serve":
                asyncio.run(_serve(directory))
                return 0
            case "logs":
                return _logs(directory, given.name)
        facts = _facts(directory)
        if facts is None:
            print(f"no lab runs in {directory}; start one with: python -m lab up", file=sys.stderr)
            return 1
        if given.command == "exec":
            return _exec(facts, given.argv)
        if given.command == "kubeconfig":
            print(facts["kubeconfig"])
        elif given.json:
            print(json.dumps(facts, indent=2))
        else:
            gateway = facts["gateway"]
            print(f"lab        process {facts['pid']}")
            print(f"kubeconfig {facts['kubeconfig']}")
            for address in gateway["addresses"]:
                print(f"gateway    {address}, ports {gateway['http_port']} and {gateway['https_port']}")
            print(f"DNS        {facts['dns']}")
            print(f"ACME       {facts['acme']['directory']}")
    except (LabError, BuildError, asyncio.CancelledError) as error:
        print(error or "stopped before it had started", file=sys.stderr)
        return 1
    return 0
