"""Record histories of every workflow for `test_replay`: ``python -m tests.replay.record [NAME...]``.

Real workflows on Temporal's development server, pretended activities. Committed histories stand for what runs at
customers: one is recorded anew only where no workflow of the code before can still be running, and after that
`worker.versions.WORKFLOWS_VERSION` is raised. New scenes are added under new names. Stack traces and identities are
left out of the files: they name machines.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from activities.turns import Quotas, new_turn
from lifecycle import findings, names, queues, rehearsal
from lifecycle.domain import DomainStatus, IssuerRef, OnboardingRequest, Phase, RoutingStatus
from lifecycle.quota import LEASE, AnswerKind, Outcome, QuotaAnswer, QuotaRequest, quota_id
from lifecycle.rate_limits import CaLimits, Limit, LimitKind, LimitsTable, Throttle
from lifecycle.steps import (
    BackupRequest,
    CertificateTarget,
    FleetReviewRequest,
    IssuanceResult,
    IssuerQuestion,
    IssuerRequest,
    MendReport,
    PlatformInspection,
    PlatformRequest,
    PlatformVerdict,
    PreflightReport,
    Proof,
    RenewalResult,
    Reservation,
    ReservationResult,
    RestoreRequest,
    Standstill,
    Wake,
)
from tests.workflows.conftest import development_server
from tests.workflows.pretended import World, hang, onboard, request, seen, until, working
from workflows.backup import Backup
from workflows.domain import DomainOnboarding
from workflows.issuer import IssuerInspection, IssuerSetup
from workflows.platform import PlatformInstallation
from workflows.quota import IssuanceQuota
from workflows.reservation import HostnameReservation
from workflows.restore import Restore
from workflows.review import FleetReview

HISTORIES = Path(__file__).parent / "histories"
COMMANDS = Path(__file__).parent / "commands.json"

_TENANT = "acme"
_LEFT_OUT = {"stackTrace"}
_NAMELESS = {"identity", "workerId"}
_PROCESS = re.compile(r"\d+@")

Condition = Callable[[DomainStatus], bool]


class Stage:
    """What a scene needs: the server, the pretending world, and the domain that it is about."""

    def __init__(self, client: Client, world: World, name: str) -> None:
        self.client = client
        self.world = world
        self.asked: OnboardingRequest = request(f"{name}.example.com")
        self.id = names.domain_id(self.asked.hostname)

    @property
    def handle(self) -> Any:
        return self.client.get_workflow_handle_for(DomainOnboarding.run, self.id)

    async def onboard(self, *further: str) -> None:
        self.asked = request(self.asked.hostname, *further)
        await onboard(self.client, self.asked)

    async def seen(self, condition: Condition) -> DomainStatus:
        return await seen(self.client, self.id, condition)

    async def run(self, workflow: Any, argument: Any) -> None:
        self.id = f"scene/{self.asked.hostname}"
        with suppress(WorkflowFailureError):
            await self.client.execute_workflow(workflow, argument, id=self.id, task_queue=queues.WORKFLOWS)


def active(status: DomainStatus) -> bool:
    return status.phase is Phase.ACTIVE


def waits(status: DomainStatus) -> bool:
    return status.next_check_at is not None


# --- the scenes -------------------------------------------------------------------------------------------------------


async def domain_active(stage: Stage) -> None:
    await stage.onboard(f"www.{stage.asked.hostname}")
    await stage.seen(active)


async def domain_refused(stage: Stage) -> None:
    taken = f"www.{stage.asked.hostname}"
    stage.world.script["reserve_names"] = [ReservationResult(taken=(taken,))]
    with suppress(WorkflowUpdateFailedError):
        await stage.onboard(taken)


async def domain_waits_for_the_customer(stage: Stage) -> None:
    stage.world.script["check_preflight"] = [
        lambda _: PreflightReport(routing=RoutingStatus.MISSING, may_proceed=False)
    ]
    await stage.onboard()
    await stage.seen(waits)
    await stage.handle.execute_update(DomainOnboarding.check_now, _TENANT)
    await stage.handle.signal(DomainOnboarding.nudge)
    await stage.seen(waits)
    stage.world.script.clear()
    await stage.handle.execute_update(DomainOnboarding.check_now, _TENANT)
    await stage.seen(active)


async def domain_issued_at_the_second_try(stage: Stage) -> None:
    failed = findings.CHALLENGE_FAILED.found(subject=stage.asked.hostname, problem="404 seen.", fix="Mend it.")
    stage.world.script["issue_certificate"] = [IssuanceResult(ready=False, findings=(failed,))]
    await stage.onboard()
    await stage.seen(waits)
    await stage.handle.execute_update(DomainOnboarding.check_now, _TENANT)
    await stage.seen(active)


async def domain_whose_rehearsal_failed(stage: Stage) -> None:
    cause = findings.CHALLENGE_FAILED.found(subject=stage.asked.hostname, problem="404 seen.", fix="Mend it.")
    failed = IssuanceResult(ready=False, findings=(cause,), cause_seen=True)
    stage.world.script["issue_certificate"] = [rehearsal.failed(stage.asked, IssuerRef(name="staging"), failed)]
    await stage.onboard()
    await stage.seen(waits)
    await stage.handle.execute_update(DomainOnboarding.check_now, _TENANT)
    await stage.seen(active)


async def domain_bound_at_the_second_try(stage: Stage) -> None:
    stage.world.script["verify_edge"] = [stage.world.edge(stage.asked, problem="connection refused")]
    await stage.onboard()
    await stage.seen(waits)
    await stage.handle.execute_update(DomainOnboarding.check_now, _TENANT)
    await stage.seen(active)


async def domain_with_broken_surroundings(stage: Stage) -> None:
    stage.world.script["issue_certificate"] = [ApplicationError("connection refused")] * 3
    await stage.onboard()
    await stage.seen(active)


async def domain_cancelled_while_it_is_issued(stage: Stage) -> None:
    stage.world.script["issue_certificate"] = [hang]
    await stage.onboard(f"www.{stage.asked.hostname}")
    await until(lambda: "issue_certificate" in stage.world.calls)
    await stage.handle.execute_update(DomainOnboarding.cancel_request, _TENANT)
    await stage.handle.result()


async def domain_mended_while_it_is_issued(stage: Stage) -> None:
    stage.world.script["issue_certificate"] = [hang]
    await stage.onboard()
    await until(lambda: "issue_certificate" in stage.world.calls)
    cause = findings.CHALLENGE_NOT_ROUTED.found(subject="VirtualService", problem="It is not there.", fix="Make it.")
    await stage.handle.signal(DomainOnboarding.stands, Standstill(cause=cause, since=await stage.world.now()))
    await stage.handle.execute_update(DomainOnboarding.fix, _TENANT)
    await stage.handle.execute_update(DomainOnboarding.cancel_request, _TENANT)
    await stage.handle.result()


async def domain_mended_and_renewed(stage: Stage) -> None:
    await stage.onboard()
    await stage.seen(active)
    stage.world.script["mend_certificate"] = [MendReport(renewal=True)]
    await stage.handle.execute_update(DomainOnboarding.fix, _TENANT)
    await stage.seen(lambda status: active(status) and status.renewals == 1)


async def domain_retired(stage: Stage) -> None:
    await stage.onboard()
    await stage.seen(active)
    await stage.handle.execute_update(DomainOnboarding.cancel_request, _TENANT)
    await stage.handle.result()


async def domain_renewed(stage: Stage) -> None:
    await stage.onboard()
    status = await stage.seen(active)
    assert status.secret is not None
    now = await stage.world.now()
    await stage.handle.signal(DomainOnboarding.wake, Wake(reason="renewed", at=now, fingerprint="ff" * 32))
    await stage.seen(lambda status: active(status) and status.renewals == 1)
    await stage.handle.execute_update(DomainOnboarding.renew_now, _TENANT)
    await stage.seen(lambda status: active(status) and status.renewals == 2)


async def domain_not_renewed_and_stale(stage: Stage) -> None:
    await stage.onboard()
    await stage.seen(active)
    stage.world.script["see_renewal_through"] = [RenewalResult(issuance=IssuanceResult(ready=False))]
    await stage.handle.execute_update(DomainOnboarding.renew_now, _TENANT)
    stage.world.script["verify_edge"] = [stage.world.edge(stage.asked, problem="serves another certificate")]
    await stage.handle.execute_update(DomainOnboarding.check_now, _TENANT)
    await stage.handle.execute_update(DomainOnboarding.check_now, _TENANT)
    await stage.seen(active)


async def domain_renewed_when_its_cause_was_gone(stage: Stage) -> None:
    await stage.onboard()
    await stage.seen(active)
    failed = findings.CHALLENGE_FAILED.found(subject=stage.asked.hostname, problem="404 seen.", fix="Mend it.")
    look_at = await stage.world.now() + timedelta(seconds=3)
    stage.world.script["see_renewal_through"] = [
        RenewalResult(issuance=IssuanceResult(ready=False, findings=(failed,), look_at=look_at))
    ]
    await stage.handle.execute_update(DomainOnboarding.renew_now, _TENANT)
    await stage.seen(lambda status: active(status) and bool(status.findings))
    await asyncio.sleep(4)
    await stage.seen(active)


def in_the_queue(stage: Stage) -> Callable[[OnboardingRequest], Awaitable[PreflightReport]]:
    """A look that finds everything ready and a queue; used up by its call."""

    async def looked(asked: OnboardingRequest) -> PreflightReport:
        stage.world.script["check_preflight"].clear()
        at = await stage.world.now() + timedelta(hours=1)
        turn = await stage.world.turn(asked, granted=False, place=17, at=at)
        return PreflightReport(routing=RoutingStatus.POINTED, may_proceed=True, turn=turn)

    return looked


def queued(status: DomainStatus) -> bool:
    return status.quota is not None


async def answered(stage: Stage, kind: AnswerKind) -> None:
    request_id, at = stage.world.turns[-1].request_id, await stage.world.now() + LEASE
    answer = QuotaAnswer(request_id=request_id, owner=stage.id, kind=kind, at=at, place=2)
    await stage.handle.signal(DomainOnboarding.quota_answered, answer)


async def domain_active_by_a_turn_at_once(stage: Stage) -> None:
    await domain_active(stage)


async def domain_waits_for_its_turn(stage: Stage) -> None:
    stage.world.script["check_preflight"] = [in_the_queue(stage)]
    await stage.onboard()
    await stage.seen(queued)
    await answered(stage, AnswerKind.WAITING)
    await stage.handle.execute_update(DomainOnboarding.check_now, _TENANT)
    await stage.handle.signal(DomainOnboarding.nudge)
    await stage.seen(queued)
    await answered(stage, AnswerKind.GRANTED)
    await stage.seen(active)
    await stage.handle.execute_update(DomainOnboarding.renew_now, _TENANT)
    await stage.seen(lambda status: active(status) and status.renewals == 1)


async def domain_leaves_the_queue(stage: Stage) -> None:
    stage.world.script["check_preflight"] = [in_the_queue(stage)]
    await stage.onboard()
    await stage.seen(queued)
    await stage.handle.execute_update(DomainOnboarding.cancel_request, _TENANT)
    await stage.handle.result()


async def domain_whose_turn_was_over(stage: Stage) -> None:
    over = findings.QUOTA_TURN_OVER.found(subject=stage.asked.hostname, problem="Over.", fix="None.")
    stage.world.script["issue_certificate"] = [IssuanceResult(ready=False, findings=(over,))]
    await stage.onboard()
    await stage.seen(active)


async def quota_of_an_account(stage: Stage) -> None:
    """Two real domains ask one real quota, which has one order at once."""
    limit = Limit(kind=LimitKind.ORDERS, burst=1, refill_seconds=1)
    table = LimitsTable(entries=(CaLimits(host="acme.example", limits=(limit,)),))
    quotas, account = Quotas(stage.client, table), "https://acme.example/acct/quota-of-an-account"

    async def looked(asked: OnboardingRequest) -> PreflightReport:
        turn = new_turn(asked, account=account, server=stage.world.directory)
        turn = await quotas.ask(asked, turn, owner=names.domain_id(asked.hostname))
        return PreflightReport(routing=RoutingStatus.POINTED, may_proceed=True, turn=turn)

    async def issued(target: CertificateTarget) -> IssuanceResult:
        assert target.turn is not None
        await quotas.tell(account, Outcome(request_id=target.turn.request_id, orders=1, issued=True))
        return await stage.world.issue(target.request)

    stage.world.script["check_preflight"], stage.world.script["issue_certificate"] = [looked], [issued]
    for name in ("first", "second"):
        stage.asked = request(f"{name}.{stage.asked.hostname}")
        stage.id = names.domain_id(stage.asked.hostname)
        await stage.onboard()
    await stage.seen(active)
    quota = stage.client.get_workflow_handle_for(IssuanceQuota.run, quota_id(account))
    gone = QuotaRequest(
        id="nobody/1",
        owner="domain/nobody",
        tenant=_TENANT,
        hostnames=("nobody.example.com",),
        registered_domains=("example.com",),
    )
    await quota.signal(IssuanceQuota.ask, gone)
    await quota.signal(IssuanceQuota.refused, Throttle(until=await stage.world.now()))
    await quota.signal(IssuanceQuota.nudge)
    await asyncio.sleep(1)
    stage.id = quota.id


async def platform_installed(stage: Stage) -> None:
    await stage.run(PlatformInstallation.run, PlatformRequest(cluster="lab"))


async def platform_rolled_back(stage: Stage) -> None:
    failed = findings.WEBHOOK_NOT_ANSWERING.found(subject="webhook", problem="No answer.", fix="Look at its log.")
    stage.world.script["prove_webhook"] = [Proof(detail="no answer", findings=(failed,))]
    await stage.run(PlatformInstallation.run, PlatformRequest(cluster="lab"))


async def platform_additions_taken_back(stage: Stage) -> None:
    failed = findings.CANARY_NOT_ISSUED.found(subject="canary", problem="It did not come.", fix="Look at the log.")
    stage.world.script["prove_issuance"] = [Proof(detail="no certificate", findings=(failed,))]
    asked = PlatformRequest(cluster="lab", high_availability=True, network_policies=True, dashboard=True)
    await stage.run(PlatformInstallation.run, asked)


async def platform_refused(stage: Stage) -> None:
    twice = findings.CERT_MANAGER_TWICE.found(subject="cert-manager", problem="There are two.", fix="Remove one.")
    stage.world.script["inspect_platform"] = [
        PlatformInspection(
            verdict=PlatformVerdict.REFUSE, kubernetes="v1.36.3", istio="1.31.0", installed="", findings=(twice,)
        )
    ]
    await stage.run(PlatformInstallation.run, PlatformRequest(cluster="lab"))


async def issuer_ready(stage: Stage) -> None:
    server = "https://acme.example/directory"
    await stage.run(IssuerSetup.run, IssuerRequest(ref=IssuerRef(name="letsencrypt"), server=server))


async def issuer_inspected(stage: Stage) -> None:
    await stage.run(IssuerInspection.run, IssuerQuestion(ref=IssuerRef(name="letsencrypt")))


async def fleet_reviewed(stage: Stage) -> None:
    await stage.run(FleetReview.run, FleetReviewRequest())


async def backup_taken(stage: Stage) -> None:
    await stage.run(Backup.run, BackupRequest())


async def backup_failed(stage: Stage) -> None:
    stage.world.script["take_backup"] = [ApplicationError("no space left", non_retryable=True)]
    await stage.run(Backup.run, BackupRequest())


async def backup_restored(stage: Stage) -> None:
    await stage.run(Restore.run, RestoreRequest(backup="20270101T000000Z.age"))


async def name_held(stage: Stage) -> None:
    held = Reservation(tenant=_TENANT, owner="domain/shop.example.com", hostnames=("www.shop.example.com",))
    stage.id = names.reservation_id("www.shop.example.com")
    handle = await stage.client.start_workflow(HostnameReservation.run, held, id=stage.id, task_queue=queues.WORKFLOWS)
    await handle.signal(HostnameReservation.release, held.owner)
    await handle.result()


SCENES: tuple[Callable[[Stage], Awaitable[None]], ...] = (
    domain_active,
    domain_refused,
    domain_waits_for_the_customer,
    domain_issued_at_the_second_try,
    domain_whose_rehearsal_failed,
    domain_bound_at_the_second_try,
    domain_with_broken_surroundings,
    domain_cancelled_while_it_is_issued,
    domain_mended_while_it_is_issued,
    domain_mended_and_renewed,
    domain_retired,
    domain_renewed,
    domain_not_renewed_and_stale,
    domain_renewed_when_its_cause_was_gone,
    domain_active_by_a_turn_at_once,
    domain_waits_for_its_turn,
    domain_leaves_the_queue,
    domain_whose_turn_was_over,
    quota_of_an_account,
    platform_installed,
    platform_rolled_back,
    platform_additions_taken_back,
    platform_refused,
    issuer_ready,
    issuer_inspected,
    fleet_reviewed,
    backup_taken,
    backup_failed,
    backup_restored,
    name_held,
)


# --- what is kept -----------------------------------------------------------------------------------------------------


def nameless(value: Any) -> Any:
    """The history without what names a machine."""
    if isinstance(value, dict):
        return {
            key: "worker" if key in _NAMELESS else nameless(part) for key, part in value.items() if key not in _LEFT_OUT
        }
    if isinstance(value, list):
        return [nameless(part) for part in value]
    return "worker" if isinstance(value, str) and _PROCESS.match(value) else value  # a sticky queue's name


def commands(history: dict[str, Any]) -> list[str]:
    """What the workflow commanded, in order: the kind of each event that a command caused, and what it names."""
    found = []
    for event in history["events"]:
        kind = event["eventType"].removeprefix("EVENT_TYPE_")
        attributes: dict[str, Any] = next((part for key, part in event.items() if key.endswith("EventAttributes")), {})
        if "workflowTaskCompletedEventId" not in attributes:
            continue
        named = (
            attributes.get("activityType", {}).get("name")
            or attributes.get("workflowType", {}).get("name")
            or attributes.get("signalName")
            or ",".join(sorted(attributes.get("searchAttributes", {}).get("indexedFields", {})))
        )
        found.append(f"{kind} {named}".strip().lower())
    return found


async def keep(client: Client, name: str, workflow_id: str) -> dict[str, list[str]]:
    """Write the histories of all runs of the domain and of its children; returns what each commanded."""
    kept: dict[str, list[str]] = {}
    wanted, number = [workflow_id], 0
    while wanted:
        current = wanted.pop(0)
        runs = [one async for one in client.list_workflows(f"WorkflowId = '{current}'")]
        for run in sorted(runs, key=lambda one: one.start_time):
            history = await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
            number += 1
            file = f"{name}-{number}"
            written = nameless(json.loads(history.to_json()))
            (HISTORIES / f"{file}.json").write_text(json.dumps({"workflowId": run.id, **written}) + "\n")
            kept[file] = commands(written)
            for event in history.events:
                child = event.start_child_workflow_execution_initiated_event_attributes.workflow_id
                if child and child not in wanted:
                    wanted.append(child)
    return kept


async def main(chosen: list[str]) -> None:
    """Record the chosen scenes, or all."""
    HISTORIES.mkdir(exist_ok=True)
    recorded: dict[str, list[str]] = json.loads(COMMANDS.read_text()) if COMMANDS.exists() and chosen else {}
    async with development_server() as environment:
        world = World(environment)
        async with working(environment.client, world, versioned=True):
            for scene in SCENES:
                name = scene.__name__
                if chosen and name not in chosen:
                    continue
                for old in HISTORIES.glob(f"{name}-*.json"):
                    old.unlink()
                world.script.clear()
                world.calls.clear()
                stage = Stage(environment.client, world, name.replace("_", "-"))
                await scene(stage)
                await asyncio.sleep(1.5)  # the list of workflows is told a moment later
                recorded = {key: value for key, value in recorded.items() if key.rpartition("-")[0] != name}
                recorded |= await keep(environment.client, name, stage.id)
                print(f"recorded {name}")
    COMMANDS.write_text(json.dumps(dict(sorted(recorded.items())), indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
