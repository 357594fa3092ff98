"""`make demo`: the whole lifecycle once through, on the lab, ending in evidence.

`run` tells the story and ends everything it started; `up` leaves it running, `down` ends it. The evidence is gathered
by a witness that uses nothing of the product (`lab.witness`), beside what the product says of itself; any line that is
not true gives its reason and a non-zero exit. `DEMO_JSON=file` writes the same as JSON, `DEMO_SVG=file` a picture.

Exit codes: 0 all true, 1 something is not, 2 bad arguments, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from temporalio.client import Client

from activities.temporal import leave
from lab import detached
from lab.binaries import BuildError, abandon, prepare
from lab.cli import VARIABLE, may_be_replaced
from lab.cluster import GATEWAY_ADDRESSES, LabError
from lab.processes import alive
from lab.stage import PROGRAMS, CommandError, Stage, run_stage
from lab.tour import printed, tour, write_environment
from lab.view import Fact, Steps, evidence_table, picture
from lab.witness import Traffic, secret_fingerprint
from lifecycle import names

HOSTNAME = "shop.example.com"
HOSTNAMES = (HOSTNAME, "www.shop.example.com")
ISSUER = "lab"
CLUSTER = "lab"
GATEWAY_NAMESPACE = "istio-system"

BUILD = "build the lab's programs"
START = "start Kubernetes, Istio, the ACME CA and the product"
PLATFORM = "install cert-manager and prove it"
ISSUER_STEP = "register an account at the ACME CA"
ASK = "ask for a domain that does not point here yet"
ONBOARD = "set its records; from request to active"
SCHEDULES = "schedule reviews and backups"
BACKUP = "back up, encrypted, and open it"
RENEW = "renew while clients request"
GATHER = "look at everything as a client would"
STEPS = (BUILD, START, PLATFORM, ISSUER_STEP, ASK, ONBOARD, SCHEDULES, BACKUP, RENEW, GATHER)

_LONGEST_SECONDS = {ASK: 30.0, ONBOARD: 120.0, SCHEDULES: 30.0, BACKUP: 60.0, RENEW: 120.0}
_DOWN_SECONDS = 40.0


class StoryError(Exception):
    """The story cannot go on; the message says at what and why."""


@dataclasses.dataclass(slots=True)
class Story:
    """What was seen so far: the product's own answers by step, and the witness's."""

    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    platform: dict[str, Any] = dataclasses.field(default_factory=dict)
    issuer: dict[str, Any] = dataclasses.field(default_factory=dict)
    waiting: dict[str, Any] = dataclasses.field(default_factory=dict)
    orders_before: int = -1
    active: dict[str, Any] = dataclasses.field(default_factory=dict)
    active_seconds: float = 0.0
    schedules: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    review: dict[str, Any] = dataclasses.field(default_factory=dict)
    backup: dict[str, Any] = dataclasses.field(default_factory=dict)
    backup_content: list[str] = dataclasses.field(default_factory=list)
    before: str = ""
    renewed: dict[str, Any] = dataclasses.field(default_factory=dict)
    traffic: Traffic = dataclasses.field(default_factory=Traffic)
    facts: list[Fact] = dataclasses.field(default_factory=list)

    def fact(self, what: str, seen: str, *, true: bool, why: str = "") -> None:
        """A line of evidence; `why` is told where it is not true."""
        self.facts.append(Fact(what=what, seen=seen, wrong="" if true else why or "this is not as it must be"))


async def tell(stage: Stage, steps: Steps, story: Story) -> None:
    """The lifecycle, step by step. Raises StoryError, CommandError, LabError."""
    lab = stage.lab
    with steps.step(PLATFORM) as step:
        asked = stage.command("platform", "install", "--cluster", CLUSTER)
        story.platform = await _shown(stage.temporal, names.platform_id(CLUSTER), steps, asked)
        step.detail = f"cert-manager {story.platform['release']['app_version']}"
    with steps.step(ISSUER_STEP) as step:
        document = {
            "name": ISSUER,
            "server": lab.acme_directory,
            "ca_bundle": await _text(lab.acme_ca),
            "profile": "default",  # unasked, this CA takes any of its profiles
        }
        path = stage.directory / "issuer.json"
        await asyncio.to_thread(path.write_text, json.dumps(document))
        story.issuer = await stage.command("issuer", "apply", "-f", str(path))
        step.detail = story.issuer["account"]
    lab.dns.add_zone("example.com")
    async with stage.client() as portal:
        with steps.step(ASK) as step:
            answer = await portal.post("/v1/domains", json={"hostnames": list(HOSTNAMES)})
            if answer.status_code not in (200, 201, 202):
                raise StoryError(f"the portal answered {answer.status_code}: {answer.text[:300]}")
            story.waiting = await _domain(portal, steps, ASK, lambda seen: seen["action_required"] is not None)
            story.orders_before = await _orders(stage)
            records = story.waiting["action_required"]["records"]
            step.detail = "told to set " + ", ".join(f"{one['name']} {one['type']} {one['value']}" for one in records)
        with steps.step(ONBOARD) as step:
            for hostname in HOSTNAMES:
                lab.dns.set(hostname, "A", GATEWAY_ADDRESSES)
            began = time.monotonic()
            checked = await portal.post(f"/v1/domains/{HOSTNAME}/check")
            checked.raise_for_status()
            story.active = await _domain(portal, steps, ONBOARD, lambda seen: seen["phase"] == "active")
            story.active_seconds = time.monotonic() - began
            step.detail = f"every address serves {story.active['secret']['fingerprint'][:16]}…"
        with steps.step(SCHEDULES) as step:
            await stage.command("schedules", "apply")
            await stage.command("schedules", "trigger", "fleet-review")
            story.review = await _reviewed(stage)
            story.schedules = await stage.command("schedules", "list")
            step.detail = ", ".join(one["name"] for one in story.schedules)
        with steps.step(BACKUP) as step:
            async with asyncio.timeout(_LONGEST_SECONDS[BACKUP]):
                story.backup = await stage.command("backup", "--wait")
                story.backup_content = await _opened(stage, story.backup["name"])
            step.detail = f"{story.backup['name']}, {story.backup['verified_how']}"
        with steps.step(RENEW) as step:
            await _renew(stage, steps, story, portal)
            step.detail = f"{story.traffic.made} requests meanwhile, {story.traffic.lost} lost"
    with steps.step(GATHER):
        await gather(stage, story)


async def _renew(stage: Stage, steps: Steps, story: Story, portal: httpx.AsyncClient) -> None:
    secret = names.secret_name(HOSTNAME)
    story.before = await secret_fingerprint(stage.lab.api, GATEWAY_NAMESPACE, secret)
    async with stage.witness.traffic(HOSTNAME) as story.traffic:
        await asyncio.sleep(0.5)
        asked = await portal.post(f"/v1/domains/{HOSTNAME}/renew")
        asked.raise_for_status()
        story.renewed = await _domain(
            portal, steps, RENEW, lambda seen: seen["phase"] == "active" and seen["renewals"] > 0
        )
        await asyncio.sleep(1.0)


async def gather(stage: Stage, story: Story) -> None:
    """The evidence, as the witness sees it."""
    await _versions(stage, story)
    story.fact(
        "cert-manager",
        f"{story.platform['release']['app_version']} by Helm; "
        + "; ".join(p["detail"] for p in story.platform["proofs"]),
        true=story.platform["ready"],
    )
    story.fact("ACME account", story.issuer["account"], true=bool(story.issuer["ready"] and story.issuer["account"]))
    records = (story.waiting["action_required"] or {}).get("records", [])
    story.fact(
        "before its DNS was right",
        f"{story.orders_before} orders; told: " + ", ".join(f"{r['name']} {r['type']} {r['value']}" for r in records),
        true=story.orders_before == 0 and len(records) >= len(HOSTNAMES),
        why="something was ordered, or a record was not named",
    )
    first, second = story.active["order"], story.renewed["order"]
    story.fact(
        "orders",
        f"{first}, and {second} for the renewal",
        true=bool(first and second) and first != second,
        why="one order for the first certificate and another one for the renewal were expected",
    )
    await _edge(stage, story)
    story.fact(
        "schedules",
        "; ".join(f"{one['name']} every {one['every_seconds'] / 60:.0f} min" for one in story.schedules),
        true={"fleet-review", "backup"} <= {one["name"] for one in story.schedules},
    )
    story.fact(
        "review of the fleet",
        f"{story.review['certificates']} certificates, {story.review['ours']} ours, on three clocks: "
        f"{story.review['stale_at_edge']} stale at the edge, {story.review['expired']} expired",
        true=story.review["ours"] == 1 and not story.review["stale_at_edge"] and not story.review["expired"],
    )
    backup = story.backup
    counts = ", ".join(f"{number} {kind}" for kind, number in backup["counts"])
    secret_file = next((one for one in story.backup_content if names.secret_name(HOSTNAME) in one), "")
    story.fact(
        "backup",
        f"{backup['name']}, {backup['bytes']} octets: {counts}; opened by age: {len(story.backup_content)} files",
        true=bool(backup["verified"] and secret_file),
        why="it was not verified, or the domain's Secret is not in it",
    )
    await _history(stage, story)
    for name in ("worker", "installer", "portal"):
        story.fact(f"memory of the {name}", f"{stage.memory(name) / 2**20:.0f} MiB", true=True)


async def _edge(stage: Stage, story: Story) -> None:
    served = await stage.witness.served_everywhere(*HOSTNAMES)
    secret = await secret_fingerprint(stage.lab.api, GATEWAY_NAMESPACE, names.secret_name(HOSTNAME))
    story.fact("fingerprint in the Secret", secret, true=secret == story.renewed["secret"]["fingerprint"])
    for one in served:
        story.fact(
            f"{one.hostname} on {one.address}",
            f"{one.fingerprint[:32]}… chain and name verified, {one.protocol}, {one.cipher}"
            if not one.problem
            else "-",
            true=one.fingerprint == secret and not one.problem,
            why=one.problem or "it serves another certificate than the Secret's",
        )
    for path, app in (("/", "frontend-service"), ("/api/orders", "api-service")):
        answers = [await stage.witness.get(address, HOSTNAME, path) for address in GATEWAY_ADDRESSES]
        said = {(answer.status, answer.app) for answer in answers}
        words = ", ".join(f"{status} from {who or 'nobody'}" for status, who in sorted(said))
        story.fact(f"https://{HOSTNAME}{path}", words, true=said == {(200, app)}, why=f"200 from {app} was expected")
    plain = [await stage.witness.get(address, HOSTNAME, "/", https=False) for address in GATEWAY_ADDRESSES]
    redirects = {(answer.status, answer.location) for answer in plain}
    story.fact(
        f"http://{HOSTNAME}/",
        ", ".join(f"{status} to {location or 'nowhere'}" for status, location in redirects),
        true=redirects == {(301, f"https://{HOSTNAME}/")},
        why="a redirect to HTTPS was expected",
    )
    after, traffic = story.renewed["secret"]["fingerprint"], story.traffic
    story.fact(
        "renewal",
        f"{story.before[:32]}… became {after[:32]}…",
        true=after not in ("", story.before) and secret == after,
        why="the fingerprint is the old one",
    )
    story.fact(
        "clients during the renewal",
        f"{traffic.made} requests, {traffic.lost} lost",
        true=traffic.made > 0 and traffic.lost == 0 and set(traffic.fingerprints) == {story.before, after},
        why=f"lost: {dict(traffic.reasons)}; certificates seen: {[one[:16] for one in traffic.fingerprints]}",
    )


async def _versions(stage: Stage, story: Story) -> None:
    inspection = story.platform["inspection"]
    envoy, temporal = await asyncio.gather(
        _output(str(PROGRAMS / "envoy"), "--version"), _output(str(PROGRAMS / "temporal"), "--version")
    )
    story.versions = {
        "Kubernetes": inspection["kubernetes"],
        "Istio": inspection["istio"],
        "Envoy": next((part for part in envoy.split("/") if part[:1].isdigit() and "." in part), ""),
        "cert-manager": story.platform["release"]["app_version"],
        "Temporal": temporal.removeprefix("temporal version ").split(" (")[0],
    }
    words = ", ".join(f"{name} {version}" for name, version in story.versions.items())
    story.fact("versions", words, true=all(story.versions.values()))


async def _history(stage: Stage, story: Story) -> None:
    """Events and octets of the onboarding, its children included; and our time beside cert-manager's own."""
    events = octets = 0
    async for execution in stage.temporal.list_workflows(f"WorkflowId = '{names.domain_id(HOSTNAME)}'"):
        history = await stage.temporal.get_workflow_handle(execution.id, run_id=execution.run_id).fetch_history()
        events, octets = (
            events + len(history.events),
            octets + sum(len(one.SerializeToString()) for one in history.events),
        )
    story.fact("history, renewal included", f"{events} events, {octets / 1024:.0f} KiB", true=True)
    certificate = await stage.lab.api.call(
        "GET",
        f"/apis/cert-manager.io/v1/namespaces/{GATEWAY_NAMESPACE}/certificates/{names.certificate_name(HOSTNAME)}",
    )
    story.fact(
        "valid until, renewal at",
        f"{certificate['status']['notAfter']}, {certificate['status']['renewalTime']}",
        true=True,
    )
    story.fact("from the right DNS to active", f"{story.active_seconds:.1f} s", true=True)


# --- asking and waiting -----------------------------------------------------------------------------------------------


async def _domain(
    portal: httpx.AsyncClient, steps: Steps, step: str, accept: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The domain as the portal shows it, once it is as wanted. Raises StoryError."""
    deadline = time.monotonic() + _LONGEST_SECONDS[step]
    while True:
        answer = await portal.get(f"/v1/domains/{HOSTNAME}")
        answer.raise_for_status()
        seen: dict[str, Any] = answer.json()["status"] or {}
        if seen and accept(seen):
            return seen
        if seen:
            steps.say(f"{seen['phase']}: {seen['step']}")
        if time.monotonic() > deadline:
            said = "; ".join(f"{one['code']} {one['problem']} {one['fix']}" for one in seen.get("findings", ()))
            raise StoryError(f"{HOSTNAME} is still {seen.get('phase')} ({seen.get('step')}). {said}")
        await asyncio.sleep(0.2)


async def _shown(client: Client, workflow_id: str, steps: Steps, asked: Awaitable[Any]) -> dict[str, Any]:
    """The answer of a command, while its workflow's step is shown."""
    running = asyncio.ensure_future(asked)
    try:
        while not running.done():
            with contextlib.suppress(Exception):  # only for show: what goes wrong is told by the command itself
                status: dict[str, Any] = await client.get_workflow_handle(workflow_id).query("status")
                steps.say(str(status["step"]))
            await asyncio.wait({running}, timeout=0.3)
        answer: dict[str, Any] = running.result()
        return answer
    finally:
        running.cancel()


async def _reviewed(stage: Stage) -> dict[str, Any]:
    """The report of the review that was triggered. Raises StoryError."""
    deadline = time.monotonic() + _LONGEST_SECONDS[SCHEDULES]
    while time.monotonic() < deadline:
        async for execution in stage.temporal.list_workflows("WorkflowType = 'FleetReview'"):
            handle = stage.temporal.get_workflow_handle(execution.id, run_id=execution.run_id)
            report: dict[str, Any] = await handle.result()
            return report
        await asyncio.sleep(0.2)
    raise StoryError("the review that was triggered has not begun")


async def _orders(stage: Stage) -> int:
    orders = await stage.lab.api.call("GET", "/apis/acme.cert-manager.io/v1/orders")
    return len(orders["items"])


async def _opened(stage: Stage, backup: str) -> list[str]:
    """The names of the files in a backup, opened by the standard age tool."""
    age, path = stage.lab.programs.binaries / "age", stage.backups / backup
    script = f'"{age}" --decrypt --identity "{stage.identity}" "{path}" | tar --list --gzip'
    return (await _output("sh", "-c", script)).splitlines()


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    if process.returncode:
        raise StoryError(f"{Path(command[0]).name}: {errors.decode(errors='replace')[-300:].strip()}")
    return out.decode(errors="replace").strip()


async def _text(path: Path) -> str:
    return await asyncio.to_thread(path.read_text)


# --- the programs -----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _played(directory: Path, console: Console, story: Story) -> AsyncIterator[tuple[Stage, Steps]]:
    """The stage after the story was told on it; whatever happens, all of it ends with the block."""
    async with contextlib.AsyncExitStack() as stack:
        with Steps(console, STEPS) as steps:
            with steps.step(BUILD):
                try:
                    await asyncio.to_thread(prepare, steps.say)
                except asyncio.CancelledError:
                    abandon()  # else the thread would go on compiling
                    raise
            with steps.step(START) as step:
                stage = await stack.enter_async_context(run_stage(directory, progress=steps.say))
                step.detail = f"Temporal UI {stage.temporal_ui}, portal {stage.portal}"
            await tell(stage, steps, story)
        yield stage, steps


def _conclude(console: Console, story: Story, steps: Steps) -> bool:
    """Print the evidence and write it where it was asked for; whether all of it is true."""
    console.print()
    console.print(evidence_table(story.facts))
    wrong = [fact for fact in story.facts if fact.wrong]
    total = sum(step.seconds or 0.0 for step in steps.steps.values())
    verdict = f"{len(story.facts)} of {len(story.facts)} lines are true" if not wrong else f"{len(wrong)} are not true"
    console.print(f"{verdict}; {total:.0f} s in all.", style="bold green" if not wrong else "bold red")
    if path := os.environ.get("DEMO_JSON"):
        document = {
            "true": not wrong,
            "evidence": [dataclasses.asdict(fact) for fact in story.facts],
            "steps": [{"name": one.name, "seconds": round(one.seconds or 0.0, 2)} for one in steps.steps.values()],
            "versions": story.versions,
            "requests": {"made": story.traffic.made, "lost": story.traffic.lost},
            "domain": story.renewed,
            "backup": story.backup,
        }
        Path(path).write_text(json.dumps(document, indent=2) + "\n")
    if path := os.environ.get("DEMO_SVG"):
        Path(path).write_text(picture(console, "make demo"))
    return not wrong


async def _main(directory: Path, console: Console, *, stay: bool) -> int:
    """Tell the story; with `stay` keep everything running until SIGTERM."""
    story, stop = Story(), asyncio.Event()
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        stop.set()
        if task is not None and not state.exists():
            task.cancel()

    state = directory / "demo.json"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt)
    try:
        async with _played(directory, console, story) as (stage, steps):
            good = _conclude(console, story, steps)
            if stay:
                variables = {**stage.shell, VARIABLE: str(stage.lab.directory)}
                write_environment(directory / "env", variables, stage.lab.programs.binaries)
                _write(state, _addresses(stage))
                await _until_stopped(stage, stop)
    except asyncio.CancelledError:
        console.print("interrupted; everything it started has ended", style="yellow")
        return 130 if interrupted else 1
    except (StoryError, CommandError, LabError, BuildError, httpx.HTTPError) as error:
        console.print(f"The demo could not go on: {error}", style="bold red", markup=False)
        console.print(f"The logs are in {directory}.", markup=False)
        return 1
    finally:
        for path in (state, directory / "env"):
            path.unlink(missing_ok=True)
    return 0 if good else 1


async def _until_stopped(stage: Stage, stop: asyncio.Event) -> None:
    """Wait for the end that was asked for, or for a lab that is broken for good. Raises LabError."""
    failed = stage.lab.servers.failed
    failed.add_done_callback(lambda _: stop.set())
    await stop.wait()
    if failed.done():
        raise LabError(failed.result())


def _addresses(stage: Stage) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "temporal_ui": stage.temporal_ui,
        "temporal_address": stage.temporal_address,
        "portal": stage.portal,
        "portal_documentation": f"{stage.portal}/docs",
        "tokens": str(stage.directory / "keys" / "portal-tokens.json"),
        "kubeconfig": str(stage.lab.kubeconfig),
        "lab": str(stage.lab.directory),
        "environment": str(stage.directory / "env"),
    }


def _write(path: Path, document: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=2) + "\n")
    partial.replace(path)


def _running(directory: Path) -> dict[str, Any] | None:
    """What `up` wrote of a demo that still runs in `directory`."""
    try:
        facts: dict[str, Any] = json.loads((directory / "demo.json").read_text())
    except (OSError, ValueError):
        return None
    return facts if alive(facts["pid"]) else None


def up(directory: Path) -> int:
    """Tell the story in a process of its own, and leave everything running."""
    if (facts := _running(directory)) is None:
        log = directory / "demo.log"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        server = detached.start(log, "lab.demo", "serve", "--dir", str(directory))
        shown = 0
        try:
            while (facts := _running(directory)) is None and server.poll() is None:
                shown = detached.show(log, shown)
                time.sleep(0.2)
        except KeyboardInterrupt:
            server.terminate()
            server.wait()
            print("\ninterrupted; everything it started has ended")
            return 130
        detached.show(log, shown)
        if facts is None:
            return server.wait() or 1
    print()
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):22} {value}")
    print(printed(tour(hostname=HOSTNAME, environment=Path(facts["environment"]), directory=directory)))
    return 0


def down(directory: Path) -> int:
    """End a demo that `up` left running, and every process of it."""
    facts = _running(directory)
    if facts is None:
        print(f"nothing runs in {directory}")
        return 0
    os.kill(facts["pid"], signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_SECONDS
    while time.monotonic() < deadline:
        if not alive(facts["pid"]):
            print("everything has ended")
            return 0
        time.sleep(0.1)
    print(f"process {facts['pid']} has not ended after {_DOWN_SECONDS:.0f} s; kill it: kill -9 {facts['pid']}")
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lab.demo", description="The whole lifecycle, once through.")
    parser.add_argument("command", choices=("run", "up", "down", "serve"), nargs="?", default="run")
    parser.add_argument("--dir", type=Path, default=Path(".demo"), help="where everything is kept (default: .demo)")
    given = parser.parse_args(arguments)
    directory: Path = given.dir.absolute()
    if given.command == "down":
        return down(directory)
    if given.command == "up":
        return up(directory)
    if _running(directory) is not None:
        print(f"a demo runs in {directory}; end it first: make down", file=sys.stderr)
        return 1
    if not (may_be_replaced(directory) or (directory / "temporal.db").exists() or (directory / "demo.log").exists()):
        print(f"{directory} has files that are not a demo's; give an empty or a new one to --dir", file=sys.stderr)
        return 2
    _clear(directory)
    # a pipe or a file has no width of its own: wide enough for a fingerprint
    wide = None if sys.stdout.isatty() else 130
    console = Console(record=bool(os.environ.get("DEMO_SVG")), width=wide)
    return asyncio.run(_main(directory, console, stay=given.command == "serve"))


def _clear(directory: Path) -> None:
    """Away with what an earlier demo left; its log may be open already."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in directory.iterdir():
        if path.name == "demo.log":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    leave(main())
