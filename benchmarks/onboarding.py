"""What does one domain cost? History, time beside cert-manager's own, memory: measured on a stage of its own.

`python -m benchmarks.onboarding` starts a lab with the product, onboards domains whose DNS is right from the start, one
after another, renews one, and writes the section "Onboarding" of `docs/benchmarks.md`. Times are a client's: from the
portal's answer to a request until the portal shows the domain active, asked every 50 ms. cert-manager's own time is
from the Certificate's appearance in a watch to its Ready condition in the same watch.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import re
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from temporalio.client import Client

from activities.temporal import leave
from lab.api import MERGE_PATCH, Api
from lab.cluster import GATEWAY_ADDRESSES
from lab.stage import Stage, run_stage
from lifecycle import names

ZONE = "bench-shops.com"
DOMAINS = 5
WAITING = 60
"""Domains that wait for their customer, for the memory of one more."""

MOST_EVENTS, MOST_OCTETS, MOST_RENEWAL_EVENTS, LONGEST_SHARE = 60, 64 * 1024, 12, 2.0
"""The aims."""

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_GATEWAY_NAMESPACE = "istio-system"
_CERTIFICATES = f"/apis/cert-manager.io/v1/namespaces/{_GATEWAY_NAMESPACE}/certificates"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Events and octets of histories, as the server counts them."""

    events: int = 0
    octets: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(events=self.events + other.events, octets=self.octets + other.octets)

    def __sub__(self, other: Size) -> Size:
        return Size(events=self.events - other.events, octets=self.octets - other.octets)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Onboarded:
    """One onboarding: seconds from request to active, cert-manager's own, and the histories."""

    seconds: float
    cert_manager: float
    own: Size
    children: Size

    @property
    def share(self) -> float:
        """What is not cert-manager's."""
        return self.seconds - self.cert_manager


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All figures. Memory in octets: of each process with one domain, with those onboarded, and what more waiting add.

    Attributes:
        rest: the history of a domain that waits for its renewal; `renewal` is what a renewal adds to it.
    """

    onboarded: tuple[Onboarded, ...]
    rest: Size
    renewal: Size
    review: Size
    idle: dict[str, int]
    active: dict[str, int]
    waiting: dict[str, int]


async def measure(stage: Stage) -> Result:
    """The figures of a stage without domains."""
    lab = stage.lab
    await stage.command("platform", "install", "--cluster", "lab")
    server = ("--server", lab.acme_directory, "--ca-bundle", str(lab.acme_ca))
    await stage.command("issuer", "apply", "--name", "lab", "--profile", "default", *server)
    await stage.command("schedules", "apply", "--review-every", "10h", "--backup-every", "10d")
    lab.dns.add_zone(ZONE)
    ready = CertificateTimes(lab.api)
    watching = asyncio.ensure_future(ready.watch())
    try:
        async with stage.client() as portal:
            await _onboard(stage, portal, ready, f"warm.{ZONE}")  # imports, connections, discovery
            idle = _memory(stage)
            onboarded = [await _onboard(stage, portal, ready, f"shop{n}.{ZONE}") for n in range(DOMAINS)]
            active = _memory(stage)
            rest, renewal, review = await _renewed(stage, portal, f"shop0.{ZONE}")
            before = _memory(stage)
            await asyncio.gather(*(_ask(portal, f"waiting{n}.{ZONE}") for n in range(WAITING)))
            await asyncio.sleep(2.0)
            waiting = {name: octets - before[name] for name, octets in _memory(stage).items()}
    finally:
        watching.cancel()
    return Result(
        onboarded=tuple(onboarded), rest=rest, renewal=renewal, review=review, idle=idle, active=active, waiting=waiting
    )


class CertificateTimes:
    """When each Certificate appeared and when it was Ready, by a watch."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._appeared: dict[str, float] = {}
        self._ready: dict[str, float] = {}

    async def watch(self) -> None:
        """Watch for ever."""
        async for change, item in self._api.follow(_CERTIFICATES):
            if change not in ("ADDED", "MODIFIED"):
                continue
            name, now = item["metadata"]["name"], time.monotonic()
            self._appeared.setdefault(name, now)
            conditions = (item.get("status") or {}).get("conditions") or []
            if any((one["type"], one["status"]) == ("Ready", "True") for one in conditions):
                self._ready.setdefault(name, now)

    def seconds(self, hostname: str) -> float:
        """cert-manager's own time for a domain."""
        name = names.certificate_name(hostname)
        return self._ready[name] - self._appeared[name]


async def _ask(portal: httpx.AsyncClient, hostname: str) -> None:
    answer = await portal.post("/v1/domains", json={"hostnames": [hostname]})
    answer.raise_for_status()


async def _until(portal: httpx.AsyncClient, hostname: str, renewals: int) -> None:
    async with asyncio.timeout(120):
        while True:
            status: dict[str, Any] = (await portal.get(f"/v1/domains/{hostname}")).json()["status"] or {}
            if status.get("phase") == "active" and status["renewals"] >= renewals:
                return
            await asyncio.sleep(0.05)


async def _onboard(stage: Stage, portal: httpx.AsyncClient, ready: CertificateTimes, hostname: str) -> Onboarded:
    stage.lab.dns.set(hostname, "A", GATEWAY_ADDRESSES)
    began = time.monotonic()
    await _ask(portal, hostname)
    await _until(portal, hostname, 0)
    seconds = time.monotonic() - began
    await asyncio.sleep(1.0)  # until the run that carried the onboarding is closed, and listed as such
    certificate, gateway = names.certificate_name(hostname), names.gateway_name(hostname)
    own = await _first_run(stage.temporal, names.domain_id(hostname))
    children = await _first_run(stage.temporal, names.certificate_id(_GATEWAY_NAMESPACE, certificate))
    children += await _first_run(stage.temporal, names.gateway_id(_GATEWAY_NAMESPACE, gateway))
    return Onboarded(seconds=seconds, cert_manager=ready.seconds(hostname), own=own, children=children)


async def _first_run(client: Client, workflow_id: str) -> Size:
    return (await _runs(client, workflow_id))[0]


async def _runs(client: Client, workflow_id: str) -> list[Size]:
    """The runs of a workflow, the first one first."""
    found = [one async for one in client.list_workflows(f"WorkflowId = '{workflow_id}'")]
    sizes = []
    for execution in sorted(found, key=lambda one: one.start_time):
        handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
        info = (await handle.describe()).raw_description.workflow_execution_info
        sizes.append(Size(events=info.history_length, octets=info.history_size_bytes))
    return sizes


async def _renewed(stage: Stage, portal: httpx.AsyncClient, hostname: str) -> tuple[Size, Size, Size]:
    """A domain at rest, a renewal that somebody else began and that the review saw, and the review's own history."""
    rest = (await _runs(stage.temporal, names.domain_id(hostname)))[-1]
    path = f"{_CERTIFICATES}/{names.certificate_name(hostname)}"
    certificate = await stage.lab.api.call("GET", path)
    issuing = {
        "type": "Issuing",
        "status": "True",
        "reason": "ManuallyTriggered",
        "message": "by a person",
        "lastTransitionTime": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    conditions = [one for one in certificate["status"]["conditions"] if one["type"] != "Issuing"]
    await stage.lab.api.call(
        "PATCH", f"{path}/status", body={"status": {"conditions": [*conditions, issuing]}}, content_type=MERGE_PATCH
    )
    await stage.command("schedules", "trigger", "fleet-review")
    await _until(portal, hostname, 1)
    await asyncio.sleep(1.0)
    reviews = [one async for one in stage.temporal.list_workflows("WorkflowType = 'FleetReview'")]
    review = await _first_run(stage.temporal, reviews[0].id)
    return rest, (await _runs(stage.temporal, names.domain_id(hostname)))[1] - rest, review


def _memory(stage: Stage) -> dict[str, int]:
    return {name: stage.memory(name) for name in ("worker", "installer", "portal")}


def told(result: Result) -> str:
    """The section, in Markdown."""
    shares = [one.share for one in result.onboarded]
    own, children = result.onboarded[-1].own, result.onboarded[-1].children
    both = own + children

    def spread(values: list[float]) -> str:
        return f"{statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f}"

    lines = [
        "## Onboarding",
        "",
        "`python -m benchmarks.onboarding`: a lab with the whole product on one machine, "
        f"{len(result.onboarded)} domains with",
        "one name each, one after another, their DNS right from the start.",
        "",
        "| seconds | median | least | most |",
        "|---|---|---|---|",
        f"| from request to active, as a client sees it | {spread([one.seconds for one in result.onboarded])} |",
        f"| cert-manager's own, Certificate made to Ready | {spread([one.cert_manager for one in result.onboarded])} |",
        f"| our share (aim: at most {LONGEST_SHARE:.0f}) | {spread(shares)} |",
        "",
        "| history | events | KiB |",
        "|---|---|---|",
        f"| the domain's own, request to active | {own.events} | {own.octets / 1024:.1f} |",
        f"| its two children's | {children.events} | {children.octets / 1024:.1f} |",
        f"| together (aim: {MOST_EVENTS} and {MOST_OCTETS // 1024}) | {both.events} | {both.octets / 1024:.1f} |",
        f"| one renewal seen by the review (aim: {MOST_RENEWAL_EVENTS} events) "
        f"| {result.renewal.events} | {result.renewal.octets / 1024:.1f} |",
        f"| the beginning of the run that waited for it | {result.rest.events} | {result.rest.octets / 1024:.1f} |",
        f"| the review's own | {result.review.events} | {result.review.octets / 1024:.1f} |",
        "",
        f"| resident memory | one domain, MiB | with {len(result.onboarded)} more, MiB "
        f"| each of {WAITING} further that wait, KiB |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {result.idle[name] / 2**20:.0f} | {result.active[name] / 2**20:.0f} "
        f"| {result.waiting[name] / WAITING / 1024:.0f} |"
        for name in result.idle
    ]
    return "\n".join(lines) + "\n"


def write(section: str, document: Path) -> None:
    """Put the section into the document, in the place of an older one of the same heading."""
    text = document.read_text() if document.exists() else "# Benchmarks\n"
    heading = section.splitlines()[0]
    pattern = re.compile(rf"^{re.escape(heading)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    known = pattern.search(text) is not None
    text = pattern.sub(lambda _: section + "\n", text) if known else f"{text.rstrip()}\n\n{section}"
    document.write_text(text.rstrip() + "\n")


async def _main(directory: Path) -> Result:
    async with run_stage(directory, progress=lambda words: print(words, file=sys.stderr)) as stage:
        return await measure(stage)


def main() -> int:
    """Measure, print and write; 1 where an aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onboarding", description="What one domain costs.")
    parser.add_argument("--print", action="store_true", dest="only_print", help="do not write the document")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = asyncio.run(_main(Path(directory) / "stage"))
    section = told(result)
    print(section)
    if not given.only_print:
        write(section, DOCUMENT)
    last = result.onboarded[-1]
    both = last.own + last.children
    good = (
        both.events <= MOST_EVENTS
        and both.octets <= MOST_OCTETS
        and result.renewal.events <= MOST_RENEWAL_EVENTS
        and statistics.median(one.share for one in result.onboarded) <= LONGEST_SHARE
    )
    return 0 if good else 1


if __name__ == "__main__":
    leave(main())
