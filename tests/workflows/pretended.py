"""Activities that pretend: the names and types of the real ones, answers from a script, and a record of each call."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.api.testservice.v1 import UnlockTimeSkippingRequest
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities import turns
from lifecycle import names, progress, queues
from lifecycle.domain import (
    CertificateFacts,
    DomainState,
    DomainStatus,
    IssuerRef,
    Observation,
    OnboardingRequest,
    QuotaTurn,
    Route,
    RoutingStatus,
    ServedAt,
)
from lifecycle.quota import LEASE
from lifecycle.steps import (
    AdditionFacts,
    BackupReport,
    BindingResult,
    CertificateTarget,
    ChangeKind,
    Cleanup,
    DomainAnswer,
    EdgeReport,
    FleetReviewReport,
    IssuanceResult,
    IssuerOverview,
    IssuerStatus,
    MendReport,
    ObjectChange,
    PlatformInspection,
    PlatformVerdict,
    PreflightReport,
    Proof,
    QuotaQuestion,
    ReleaseFacts,
    RenewalRequest,
    RenewalResult,
    ReservationResult,
    RestoreReport,
)
from worker import versions
from worker.sandbox import workflow_runner
from workflows.definitions import WORKFLOWS
from workflows.domain import DomainOnboarding
from workflows.hands import HANDS, Hand

ADDRESSES = ("203.0.113.7", "2001:db8::7")
Answer = Callable[[Any], Any]


def request(*hostnames: str, tenant: str = "acme") -> OnboardingRequest:
    return OnboardingRequest(
        tenant=tenant,
        hostnames=hostnames or ("shop.example.com", "www.shop.example.com"),
        issuer=IssuerRef(name="letsencrypt"),
        routes=(
            Route(prefix="/api", service="api-service", port=8080),
            Route(prefix="/", service="frontend-service", port=80),
        ),
    )


def begin(*hostnames: str, tenant: str = "acme") -> DomainState:
    return progress.begin(request(*hostnames, tenant=tenant))


async def onboard(client: Client, asked: OnboardingRequest, workflow_id: str = "") -> DomainAnswer:
    """As the doors do it: start and ask in one; under the domain's own id where none is given."""
    return await client.execute_update_with_start_workflow(
        DomainOnboarding.onboard,
        asked,
        start_workflow_operation=WithStartWorkflowOperation(
            DomainOnboarding.run,
            progress.begin(asked),
            id=workflow_id or names.domain_id(asked.hostname),
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            task_queue=queues.WORKFLOWS,
        ),
    )


class World:
    """What the activities find. A script for a name is used up first: values, exceptions, or functions."""

    def __init__(self, environment: WorkflowEnvironment, *, cached: int = 100) -> None:
        self.environment = environment
        self.cached = cached
        self.life = timedelta(days=90)
        self.dns01 = False
        self.directory = "https://acme.example/directory"
        self.profile = ""
        self.rehearsal = ""
        self.account = "https://acme.example/acct/1"
        self.issued = 0
        self.turns: list[QuotaTurn] = []
        self.calls: list[str] = []
        self.arguments: dict[str, list[Any]] = defaultdict(list)
        self.script: dict[str, list[Any]] = defaultdict(list)

    async def now(self) -> datetime:
        return await self.environment.get_current_time()

    async def sleep(self, duration: timedelta) -> None:
        """Let time pass, in parts: a call to the server has half a minute of real time, in which days are looked at."""
        while duration > timedelta():
            part = min(duration, timedelta(days=2))
            await self.environment.sleep(part)
            duration -= part

    async def facts(self, target: OnboardingRequest) -> CertificateFacts:
        now = (await self.now()).replace(microsecond=0)
        return CertificateFacts(
            fingerprint=self.fingerprint(),
            serial=f"{self.issued:032x}",
            issuer="CN=R11,O=Let's Encrypt,C=US",
            dns_names=target.hostnames,
            not_before=now - timedelta(hours=1),
            not_after=now - timedelta(hours=1) + self.life,
            public_key="ECDSA 256",
            public_key_fingerprint=hashlib.sha256(f"key{self.issued}".encode()).hexdigest(),
            chain_length=2,
        )

    async def turn(self, target: OnboardingRequest, **changes: Any) -> QuotaTurn:
        """What the account's quota says to the calling activity's domain: granted, where it is not told otherwise."""
        now = await self.now()
        told: dict[str, Any] = {"granted": True, "at": now + LEASE, **changes}
        turn = turns.new_turn(target, account=self.account, server=self.directory)
        self.turns.append(dataclasses.replace(turn, since=now, asked_at=now, **told))
        return self.turns[-1]

    def fingerprint(self) -> str:
        return hashlib.sha256(f"certificate {self.issued}".encode()).hexdigest()

    async def issue(self, target: OnboardingRequest) -> IssuanceResult:
        self.issued += 1
        facts = await self.facts(target)
        now = await self.now()
        return IssuanceResult(
            ready=True,
            secret=facts,
            renewal_at=facts.not_before + self.life * 2 / 3,
            order=f"shop-example-com-{self.issued}",
            orders=1,
            evidence=(
                Observation(at=now, step="Challenge for shop.example.com", detail="valid"),
                Observation(at=now, step="Certificate", detail="Ready"),
            ),
        )

    def edge(self, target: OnboardingRequest, *, problem: str = "") -> EdgeReport:
        served = tuple(
            ServedAt(
                address=address,
                hostname=hostname,
                fingerprint=self.fingerprint(),
                chain_verified=True,
                protocol="TLSv1.3",
                cipher="TLS_AES_256_GCM_SHA384",
                redirect="301",
                routes=("/ 200", "/api 200"),
                problem=problem,
            )
            for address in ADDRESSES
            for hostname in target.hostnames
        )
        return EdgeReport(serving=not problem, fingerprint=self.fingerprint(), served=served)

    async def answer(self, hand: Hand[Any, Any], argument: Any) -> Any:
        self.calls.append(hand.name)
        self.arguments[hand.name].append(argument)
        script = self.script[hand.name]
        if script:
            told = script[0] if callable(script[0]) else script.pop(0)
            if callable(told):
                told = told(argument)
                if isinstance(told, Awaitable):
                    told = await told
            if isinstance(told, BaseException):
                raise told
            if told is not None:
                return told
        match argument:
            case OnboardingRequest():
                turn = await self.turn(argument) if hand.name == "check_preflight" else None
                return PreflightReport(
                    routing=RoutingStatus.POINTED, may_proceed=True, gateway_addresses=ADDRESSES, turn=turn
                )
            case QuotaQuestion():
                now = await self.now()
                return dataclasses.replace(argument.turn, asked_at=now, granted=True, place=0, at=now + LEASE)
            case QuotaTurn():
                return Cleanup(removed=(f"request {argument.request_id}",))
            case CertificateTarget():
                return await self._domain(hand.name, argument.request)
            case RenewalRequest():
                issuance = await self.issue(argument.request)
                return RenewalResult(issuance=issuance, edge=self.edge(argument.request))
        return self._other(hand.name, argument)

    async def _domain(self, name: str, target: OnboardingRequest) -> Any:
        match name:
            case "issue_certificate":
                return await self.issue(target)
            case "bind_gateway":
                return BindingResult(bound=True)
            case "verify_edge":
                return self.edge(target)
            case "mend_certificate":
                nothing = Observation(at=await self.now(), step="fix", detail="nothing to do: nothing is wrong")
                return MendReport(evidence=(nothing,))
        return Cleanup(removed=(f"what {name} removes",))

    def _other(self, name: str, argument: Any) -> Any:
        backup = BackupReport(name="20270101T000000Z.age", bytes=4096, sha256="ab" * 32, counts=(("Secret", 3),))
        answers: dict[str, Callable[[], Any]] = {
            "reserve_names": lambda: ReservationResult(),
            "release_names": lambda: Cleanup(),
            "inspect_platform": lambda: PlatformInspection(
                verdict=PlatformVerdict.INSTALL, kubernetes="v1.36.3", istio="1.31.0", installed=""
            ),
            "install_release": lambda: ReleaseFacts(
                name="cert-manager",
                namespace="cert-manager",
                revision=1,
                previous_revision=0,
                app_version="v1.21.2",
                changed=True,
            ),
            "change_additions": lambda: AdditionFacts(
                namespace="cert-manager",
                changes=(
                    ObjectChange(
                        kind="ConfigMap",
                        namespace="cert-manager",
                        name="certwright-dashboard",
                        change=ChangeKind.CREATE,
                    ),
                ),
            ),
            "take_back_additions": lambda: Cleanup(removed=("ConfigMap cert-manager/certwright-dashboard",)),
            "roll_back_release": lambda: Cleanup(removed=("release cert-manager",)),
            "prove_webhook": lambda: Proof(detail="the webhook admitted a dry run", pods=("a", "b", "c")),
            "prove_issuance": lambda: Proof(detail="a canary was issued", fingerprint="cd" * 32),
            "apply_issuer": lambda: IssuerStatus(ref=argument.ref, step="applied", ready=False),
            "await_issuer": lambda: IssuerStatus(ref=argument.ref, step="ready", ready=True, account="acct/1"),
            "inspect_issuers": lambda: IssuerOverview(
                issuers=(
                    IssuerStatus(
                        ref=argument.ref or IssuerRef(name="letsencrypt"),
                        step="inspect",
                        ready=True,
                        type="acme",
                        server=self.directory,
                        profile=self.profile,
                        rehearsal=self.rehearsal,
                        account="acct/1",
                        wildcard=self.dns01,
                        solvers='[{"dns01": {"rfc2136": {"nameserver": "ns1:53"}}}]' if self.dns01 else "[]",
                    ),
                )
            ),
            "review_fleet": lambda: FleetReviewReport(certificates=300, ours=299),
            "take_backup": lambda: backup,
            "verify_backup": lambda: dataclasses.replace(backup, verified=True, verified_how="opened"),
            "prune_backups": lambda: dataclasses.replace(backup, removed=("oldest.age",)),
            "restore_backup": lambda: RestoreReport(backup=argument.backup, equal=True),
        }
        return answers[name]()

    def activities(self, queue: str) -> list[Callable[..., Any]]:
        return [self._pretend(hand) for hand in HANDS if hand.queue == queue]

    def _pretend(self, hand: Hand[Any, Any]) -> Callable[..., Any]:
        async def pretend(argument: Any) -> Any:
            return await self.answer(hand, argument)

        pretend.__annotations__ = {"argument": hand.takes, "return": hand.gives}
        return activity.defn(name=hand.name)(pretend)


@asynccontextmanager
async def working(client: Client, world: World, *, versioned: bool = False) -> AsyncIterator[None]:
    """Workers on all queues; a real server wants them versioned, the time-skipping one knows no versions."""
    async with AsyncExitStack() as stack:
        for queue in queues.QUEUES:
            workflows: dict[str, Any] = {}
            if queue == queues.WORKFLOWS:
                workflows = {
                    "workflows": list(WORKFLOWS),
                    "deployment_config": versions.deployment() if versioned else None,
                }
            await stack.enter_async_context(
                Worker(
                    client,
                    task_queue=queue,
                    activities=world.activities(queue),
                    workflow_runner=workflow_runner(),
                    max_cached_workflows=world.cached if workflows else 0,
                    max_heartbeat_throttle_interval=timedelta(seconds=1),
                    **workflows,
                )
            )
        if versioned:
            await versions.promote(client)
        yield


async def status_of(client: Client, workflow_id: str) -> DomainStatus:
    """The domain's status, asked for when it has nothing to do, or has been busy for three seconds.

    A question that meets other work is at times lost: by the time-skipping server at the end of a run, and by the SDK
    where it keeps no workflow. It is asked again.
    """
    for _ in range(20):
        for _ in range(60):
            if not await busy(client, workflow_id):
                break
            await asyncio.sleep(0.05)
        try:
            return await client.get_workflow_handle(workflow_id).query(
                DomainOnboarding.status, rpc_timeout=timedelta(seconds=2)
            )
        except RPCError:
            with contextlib.suppress(RPCError):  # what it lost holds the server's clock
                await client.test_service.unlock_time_skipping(UnlockTimeSkippingRequest())
    message = f"{workflow_id} does not answer"
    raise AssertionError(message)


_OPENS = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,  # its first task comes next
    EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
    EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
    EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED,
}
_CLOSES = {
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
    EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED,
    EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED,
    EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED,
    EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT,
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED,
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_FAILED,
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_CANCELED,
}


async def busy(client: Client, workflow_id: str) -> bool:
    """Whether the latest run has a task, an activity or a child under way."""
    events = (await client.get_workflow_handle(workflow_id).fetch_history()).events
    opened = sum(event.event_type in _OPENS for event in events) - 1
    closed = sum(event.event_type in _CLOSES for event in events)
    ended = events[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
    return ended or len(events) < 4 or opened > closed


async def seen(client: Client, workflow_id: str, condition: Callable[[DomainStatus], bool]) -> DomainStatus:
    """The first status that the condition holds for; within half a minute of real time."""
    status: DomainStatus | None = None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = await status_of(client, workflow_id)
        if condition(status):
            return status
        await asyncio.sleep(0.05)
    message = f"never seen; last: {status}"
    raise AssertionError(message)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; half a minute of real time at most."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if condition():
            return
        await asyncio.sleep(0.025)
    message = "never came true"
    raise AssertionError(message)


async def hang(_: object) -> None:
    """An activity that watches until it is cancelled."""
    while True:
        activity.heartbeat("waiting")
        await asyncio.sleep(0.05)


async def linger(_: object) -> None:
    """An activity that does not hear of its cancellation, and ends well."""
    await asyncio.sleep(1)
