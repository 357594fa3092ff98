"""`certwright-lab`, or `python -m lab`: one lab in a directory, started, looked at, broken and ended from a shell.

`up` leaves a server process behind that owns the whole lab; what it needs to be found again is in the lab's directory
(`lab.directory`), and so is the socket that takes faults (`lab.control`). Without --dir the lab is LAB_DIR's, else the
one that runs in `.lab`, else the demo's in `.demo/lab`. Exit codes: 0 done, 1 the lab is not as asked for, 2 bad
arguments, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from lab import control, detached
from lab.binaries import BuildError, prepare
from lab.cluster import Lab, LabError, run_lab
from lab.control import ControlError
from lab.directory import DirectoryTakenError, clear, facts, may_be_replaced, starting, taken
from lab.dns import FaultKind
from lab.loadbalancer import Fault

__all__ = ["describe", "main", "may_be_replaced"]

VARIABLE = "LAB_DIR"
"""In the environment, says which lab is meant where --dir does not."""

_DEFAULT, _DEMO = Path(".lab"), Path(".demo/lab")
_DOWN_SECONDS = 20.0


def describe(lab: Lab) -> dict[str, Any]:
    """What `lab.json` says of a running lab; paths, addresses and URLs, no keys."""
    return lab.description()


async def _serve(directory: Path) -> None:
    stop, up_and_ready = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    running = asyncio.create_task(_own(directory, stop, up_and_ready))
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done() and not up_and_ready.is_set():
        running.cancel()  # asked to stop before it had started
    await running


async def _own(directory: Path, stop: asyncio.Event, ready: asyncio.Event) -> None:
    async with run_lab(directory, progress=lambda line: print(line, flush=True)) as lab:
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        failed = lab.servers.failed
        await asyncio.wait((stopping, failed), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
    if failed.done():
        raise LabError(failed.result())


def up(directory: Path) -> int:
    """Start a lab and leave it running; progress on standard output."""
    prepare(lambda line: print(line, flush=True))
    with starting(directory, lambda: print(f"another process is starting a lab in {directory}; waiting for it")):
        if (running := facts(directory)) is not None:
            print(f"a lab runs in {directory} already (process {running['pid']})")
            return 0
        clear(directory)
        return _start(directory)


def _start(directory: Path) -> int:
    log = directory / "lab.log"
    server = detached.start(log, "lab", "serve", "--dir", str(directory))
    shown = 0
    try:
        while True:
            ended, ready = server.poll() is not None, facts(directory) is not None
            shown = detached.show(log, shown)
            if ready:
                print(f"kubeconfig: {directory / 'kubeconfig'}")
                return 0
            if ended:
                print(f"the lab did not start; the whole log is {log}", file=sys.stderr)
                return 1
            time.sleep(0.1)
    except BaseException:
        server.terminate()  # it ends what it has started
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(_DOWN_SECONDS)
        raise


def down(directory: Path) -> int:
    """End the lab and every process it started."""
    running = facts(directory)
    if running is None:
        if not taken(directory):
            print(f"no lab runs in {directory}")
            return 0
        print(f"the lab in {directory} is starting or ending; try again in a moment", file=sys.stderr)
        return 1
    os.kill(running["pid"], signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_SECONDS
    while time.monotonic() < deadline:
        if not taken(directory):
            print("the lab is down")
            return 0
        time.sleep(0.05)
    print(f"process {running['pid']} has not ended after {_DOWN_SECONDS:.0f} s", file=sys.stderr)
    return 1


def _logs(directory: Path, name: str) -> int:
    """A server's log by its name; a Pod's by its name, with or without "namespace/" and "/container"."""
    found = sorted([*directory.glob("logs/*.log"), *directory.glob("node/pods/*/*.log")])
    if directory.joinpath("lab.log").exists():
        found.append(directory / "lab.log")
    titles = {path: _title(directory, path) for path in found}
    matching = [path for path in found if titles[path] == name] or [path for path in found if name in titles[path]]
    if not matching:
        print("no log of that name; there are:\n" + "\n".join(sorted(titles.values())), file=sys.stderr)
        return 1
    for path in matching:
        if len(matching) > 1:
            print(f"==> {titles[path]} <==")
        sys.stdout.write(path.read_text(errors="replace"))
    return 0


def _title(directory: Path, path: Path) -> str:
    parts = path.relative_to(directory).parts
    return path.stem if parts[0] != "node" else f"{parts[2].replace('_', '/')}/{path.stem}"


def _exec(running: dict[str, Any], command: Sequence[str]) -> int:
    path = os.pathsep.join((running["binaries"], str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = {**os.environ, "KUBECONFIG": running["kubeconfig"], "PATH": path}
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except FileNotFoundError:
        print(f"no program {command[0]!r} in the lab or on this machine", file=sys.stderr)
        return 1


def _status(directory: Path, console: Console, *, as_json: bool) -> int:
    seen = control.ask(directory, {"about": "status"}, seconds=20)
    if as_json:
        console.print_json(data=seen)
        return 1 if seen["failed"] else 0
    gateway = seen["gateway"]
    for name, value in (
        ("directory", seen["directory"]),
        ("kubeconfig", seen["kubeconfig"]),
        *(
            ("gateway", f"{address}, ports {gateway['http_port']} and {gateway['https_port']}")
            for address in gateway["addresses"]
        ),
        ("DNS", seen["dns"]),
        ("ACME", seen["acme"]["directory"]),
        *(
            ("fault", f"{kind} {name}: {fault}")
            for kind, held in seen["faults"].items()
            for name, fault in held.items()
        ),
        *([("BROKEN", seen["failed"])] if seen["failed"] else []),
    ):
        console.print(f"{name:<11}{value}", markup=False, highlight=False, soft_wrap=True)
    console.print(_process_table(seen["processes"]), _pod_table(seen["pods"]))
    total = sum(process["kib"] for process in seen["processes"]) / 1024
    console.print(f"{len(seen['processes'])} processes, {total:.0f} MiB", highlight=False)
    return 1 if seen["failed"] else 0


def _process_table(processes: Sequence[dict[str, Any]]) -> Table:
    table = Table("process", "program", "pid", "MiB", "state", "ready", "restarts", box=None, header_style="bold")
    table.columns[0].overflow = "fold"
    for one in processes:
        table.add_row(
            one["name"],
            one["program"],
            str(one["pid"] or ""),
            f"{one['kib'] / 1024:.0f}" if one["pid"] else "",
            one["state"],
            "yes" if one["ready"] and one["state"] == "running" else "no",
            str(one.get("restarts", "")),
        )
    return table


def _pod_table(pods: Sequence[dict[str, Any]]) -> Table:
    table = Table("namespace", "Pod", "ready", "phase", "restarts", box=None, header_style="bold")
    for pod in pods:
        table.add_row(pod["namespace"], pod["name"], pod["ready"], pod["phase"], str(pod["restarts"]))
    return table


def _request(given: argparse.Namespace) -> dict[str, Any]:
    """What is asked of the lab by `fault`, `dns` and `balancer`."""
    words = {name: value for name, value in vars(given).items() if name not in {"command", "dir"} and value is not None}
    return {"about": given.command, **words}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="certwright-lab", description="A real Kubernetes with Istio, without containers."
    )
    shared = argparse.ArgumentParser(add_help=False)
    place = f"the lab's directory (default: {VARIABLE}, else {_DEFAULT}, or {_DEMO} where only that runs)"
    parser.add_argument("--dir", type=Path, help=place)
    shared.add_argument("--dir", type=Path, help=place, default=argparse.SUPPRESS)  # else it hides the one before
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in {
        "up": "start a lab and leave it running",
        "down": "end it and every process it started",
        "status": "where everything is, every process with its memory, and the Pods",
        "kubeconfig": "print the path of the kubeconfig",
        "serve": "run a lab in the foreground until SIGTERM",
    }.items():
        added = commands.add_parser(name, parents=[shared], help=purpose)
        if name == "status":
            added.add_argument("--json", action="store_true", help="everything, as JSON")
    logs = commands.add_parser("logs", parents=[shared], help="print the log of a server or a Pod")
    logs.add_argument("name", help="kube-apiserver, or a Pod's name, or a part of it such as istiod")
    run = commands.add_parser("exec", parents=[shared], help="run a command with the lab's KUBECONFIG and PATH")
    run.add_argument("argv", nargs="+", metavar="CMD", help="after --, such as: -- kubectl get pods -A")
    fault = commands.add_parser("fault", parents=[shared], help="break a server or a Deployment, or mend it")
    fault.add_argument(
        "action",
        choices=["freeze", "thaw", "kill", "stop", "start", "restart", "refuse", "accept"],
        help="freeze: connections hang; stop: really away; refuse: pebble's address refuses, its state is kept",
    )
    fault.add_argument("name", help="etcd, kube-apiserver, kube-controller-manager, pebble, cert-manager, istiod, ...")
    fault.add_argument("--seconds", type=float, help="how long `restart` leaves it away (default: 0)")
    _add_dns(commands.add_parser("dns", help="the customers' DNS: records and faults"), shared)
    balancer = commands.add_parser("balancer", help="break an address of the load balancer, or mend it")
    actions = balancer.add_subparsers(dest="action", required=True)
    for name, purpose in {
        Fault.REFUSE.value: "refuse connections",
        Fault.BLACKHOLE.value: "accept connections and stay silent",
        "lead": "lead connections to another server",
        "mend": "forward again",
    }.items():
        added = actions.add_parser(name, parents=[shared], help=purpose)
        added.add_argument("address", help="127.0.0.1 or 127.0.0.2")
        if name == "lead":
            added.add_argument("backend", metavar="HOST:PORT")
        added.add_argument("--port", type=int, help="only this port of the address (default: all)")
    return parser


def _add_dns(parser: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    records = actions.add_parser("set", parents=[shared], help="set a name's records of one type")
    records.add_argument("name")
    records.add_argument("type", help="A, AAAA, CNAME, CAA, TXT, ...")
    records.add_argument("values", nargs="+", metavar="value", help="as in a zone file, quoted where it has spaces")
    records.add_argument("--ttl", type=int, help="seconds (default: 5)")
    unset = actions.add_parser("unset", parents=[shared], help="remove a name's records")
    unset.add_argument("name")
    unset.add_argument("type", nargs="?", help="only these (default: all)")
    fault = actions.add_parser("fault", parents=[shared], help="break a name")
    fault.add_argument("name")
    fault.add_argument("kind", choices=[kind.value for kind in FaultKind])
    fault.add_argument("--seconds", type=float, help="the delay of slow answers (default: 2)")
    fault.add_argument("--whole-zone", action="store_true", help="the name and everything below it")
    mend = actions.add_parser("mend", parents=[shared], help="take faults away")
    mend.add_argument("name", nargs="?", help="of this name (default: all)")
    show = actions.add_parser("show", parents=[shared], help="print the records")
    show.add_argument("name", nargs="?", help="of this name and below (default: all)")
    zone = actions.add_parser("zone", parents=[shared], help="be the authority for a new zone")
    zone.add_argument("name")


def _interrupted(number: int, _: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _directory(given: Path | None) -> Path:
    if given is not None:
        return given.absolute()
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).absolute()
    return (_DEMO if not taken(_DEFAULT) and taken(_DEMO) else _DEFAULT).absolute()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        return _run(given, _directory(given.dir) if given.command not in {"up", "serve"} else _new(given.dir))
    except (LabError, BuildError, ControlError, DirectoryTakenError) as error:
        print(error, file=sys.stderr)
        return 1
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("stopped before it was done; nothing is left running", file=sys.stderr)
        return 130


def _new(given: Path | None) -> Path:
    return (given or _DEFAULT).absolute()


def _run(given: argparse.Namespace, directory: Path) -> int:
    if given.command in {"up", "serve"} and not may_be_replaced(directory):
        print(f"{directory} has files that are not a lab's; give an empty or a new directory to --dir", file=sys.stderr)
        return 2
    match given.command:
        case "up":
            signal.signal(signal.SIGTERM, _interrupted)
            return up(directory)
        case "down":
            return down(directory)
        case "serve":
            asyncio.run(_serve(directory))
            return 0
        case "logs":
            return _logs(directory, given.name)
    running = facts(directory)
    if running is None:
        print(f"no lab runs in {directory}; start one with: certwright-lab up", file=sys.stderr)
        return 1
    match given.command:
        case "exec":
            return _exec(running, given.argv)
        case "kubeconfig":
            print(running["kubeconfig"])
        case "status":
            return _status(directory, Console(), as_json=given.json)
        case _:
            for line in control.ask(directory, _request(given)).get("records", []):
                print(line)
    return 0
