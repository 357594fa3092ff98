"""How many events and octets does a domain's history take, from request to active, and for one renewal?

Run as ``python -m benchmarks.history``. Temporal's development server, real workflows, pretended activities that answer
what the real ones do, so that it takes seconds; the demo counts the same on the lab. A domain's own history is counted
with its children's, each also by itself. Prints a table for docs/benchmarks.md; fails where an
aim is missed.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle

from lifecycle import names
from lifecycle.domain import DomainStatus, Phase
from lifecycle.steps import Wake
from tests.workflows.conftest import development_server
from tests.workflows.pretended import World, onboard, request, seen, status_of, working
from workflows.domain import DomainOnboarding

MOST_EVENTS_TO_ACTIVE = 60
"""Aim of design page "temporal": from request to active, children included."""

MOST_OCTETS_TO_ACTIVE = 64 * 1024

MOST_EVENTS_OF_A_RENEWAL = 12
"""One renewal that the review sees: from its wake until the new certificate is recorded as served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Events and octets of some history."""

    what: str
    events: int
    octets: int
    kinds: tuple[tuple[str, int], ...] = ()


def count(what: str, events: list[HistoryEvent]) -> Count:
    """The events as the server stores them (protobuf)."""
    kinds = Counter(EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").lower() for event in events)
    return Count(
        what=what, events=len(events), octets=sum(event.ByteSize() for event in events), kinds=tuple(kinds.items())
    )


async def events_of(client: Client, workflow_id: str, run_id: str | None = None) -> list[HistoryEvent]:
    """One run's history."""
    return list((await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()).events)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a domain's life costs; each run ends with its continuation, which is counted with the next one's beginning.

    Attributes:
        parts: the histories of an onboarding, the domain's own first.
        active: their sum.
        renewal: from the review's wake until the new certificate is recorded.
        rest: what every cycle adds: a new run that waits.
    """

    parts: tuple[Count, ...]
    active: Count
    renewal: Count
    rest: Count

    @property
    def missed(self) -> bool:
        """Whether an aim is missed."""
        return (
            self.active.events > MOST_EVENTS_TO_ACTIVE
            or self.active.octets > MOST_OCTETS_TO_ACTIVE
            or self.renewal.events > MOST_EVENTS_OF_A_RENEWAL
        )


async def measure(client: Client, world: World) -> Figures:
    """Onboard a domain of two names, then let the review see a renewal."""
    asked = request("shop.example.com", "www.shop.example.com")
    workflow_id = names.domain_id(asked.hostname)
    await onboard(client, asked)
    await seen(client, workflow_id, lambda status: status.phase is Phase.ACTIVE)
    second = await at_rest(client, workflow_id)
    first = (await events_of(client, workflow_id, second))[0].workflow_execution_started_event_attributes
    namespace = asked.gateway.namespace
    onboarding = await events_of(client, workflow_id, first.continued_execution_run_id)
    parts = (
        count("DomainOnboarding", onboarding[:-1]),
        count(
            "CertificateIssuance",
            await events_of(client, names.certificate_id(namespace, names.certificate_name(asked.hostname))),
        ),
        count(
            "GatewayBinding", await events_of(client, names.gateway_id(namespace, names.gateway_name(asked.hostname)))
        ),
    )
    active = Count(what="request to active", events=sum(p.events for p in parts), octets=sum(p.octets for p in parts))
    before = await events_of(client, workflow_id, second)
    wake = Wake(reason="renewed by itself", at=await world.now(), fingerprint="ff" * 32)
    handle: WorkflowHandle[DomainOnboarding, DomainStatus] = client.get_workflow_handle_for(
        DomainOnboarding.run, workflow_id
    )
    await handle.signal(DomainOnboarding.wake, wake)
    await seen(client, workflow_id, lambda status: status.renewals == 1 and status.phase is Phase.ACTIVE)
    third = await at_rest(client, workflow_id, other_than=second)
    run = await events_of(client, workflow_id, second)
    following = await events_of(client, workflow_id, third)
    return Figures(
        parts=parts,
        active=active,
        renewal=count("renewal seen by the review", run[len(before) : -1]),
        rest=count("a new run that waits, each cycle", [run[-1], *following]),
    )


async def at_rest(client: Client, workflow_id: str, *, other_than: str = "") -> str:
    """The id of the domain's run, once it waits for a timer."""
    for _ in range(200):
        described = await client.get_workflow_handle(workflow_id).describe()
        events = await events_of(client, workflow_id, described.run_id)
        waits = events[-1].event_type == EventType.EVENT_TYPE_TIMER_STARTED
        if waits and described.run_id not in (None, other_than) and described.parent_id is None:
            await status_of(client, workflow_id)
            return described.run_id or ""
        await asyncio.sleep(0.05)
    message = "the domain does not come to rest"
    raise AssertionError(message)


def table(figures: Figures) -> str:
    """The figures as Markdown."""
    active, renewal, rest = figures.active, figures.renewal, figures.rest
    rows = [
        "| what | events | aim | KB | aim |",
        "|---|---|---|---|---|",
        *(f"| {part.what} | {part.events} | | {part.octets / 1024:.1f} | |" for part in figures.parts),
        f"| **{active.what}** | **{active.events}** | {MOST_EVENTS_TO_ACTIVE} "
        f"| **{active.octets / 1024:.1f}** | {MOST_OCTETS_TO_ACTIVE // 1024} |",
        f"| **{renewal.what}** | **{renewal.events}** | {MOST_EVENTS_OF_A_RENEWAL} | {renewal.octets / 1024:.1f} | |",
        f"| {rest.what} | {rest.events} | | {rest.octets / 1024:.1f} | |",
    ]
    return "\n".join(rows)


async def main() -> int:
    """Non-zero where an aim is missed."""
    async with development_server() as environment:
        world = World(environment)
        async with working(environment.client, world, versioned=True):
            figures = await measure(environment.client, world)
    print(table(figures))
    for part in (*figures.parts, figures.renewal, figures.rest):
        print(f"{part.what}: {', '.join(f'{number} {kind}' for kind, number in part.kinds)}", file=sys.stderr)
    return int(figures.missed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
