"""What runs on which queue: clients, activities and workers of one process, put together.

The table in `workflows.hands` says which activity belongs where; an activity that nobody provides, or that another
type's, is a fault of the build and told at the start.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from kubernetes.aio.dynamic import DynamicClient
from temporalio.client import Client
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from activities import kubernetes
from activities.additions import AdditionActivities
from activities.backups import BackupActivities, BackupSettings
from activities.certificates import CertificateActivities
from activities.diagnosis import DiagnosisActivities
from activities.edge import EdgeActivities, EdgeSettings
from activities.gateways import GatewayActivities
from activities.issuers import IssuerActivities
from activities.platform import PlatformActivities, PlatformSettings
from activities.preflight import PreflightActivities, PreflightSettings
from activities.renewals import RenewalActivities
from activities.reservations import ReservationActivities
from activities.review import ReviewActivities
from activities.snapshot import DiagnosisSettings
from activities.turns import Quotas, TurnActivities
from lifecycle import queues
from worker import versions
from worker.sandbox import workflow_runner
from worker.settings import Settings
from workflows.definitions import WORKFLOWS
from workflows.hands import HANDS

HEARTBEAT_THROTTLE = timedelta(seconds=2)
"""Cancellation comes with heartbeats: within a second then, not 21 s as by default."""

WORKFLOW_TASKS = 20
"""At once; the deadlock detector gives each two seconds, whatever else the processor does."""

SLOTS = {
    queues.WORKFLOWS: 50,  # reservations and turns: a few calls to Temporal each
    queues.CLUSTER: 200,  # a watch of a challenge holds one for as long as the CA takes
    queues.PROBE: 50,  # each opens a connection to every address of a gateway
    queues.PLATFORM: 4,  # Helm is a process of about 100 MB
}
"""Activities at once on each queue: fixed, since it is the cluster that is to be spared."""

_THREADS = 8


def providers(settings: Settings, cluster: DynamicClient | None, temporal: Client) -> tuple[object, ...]:
    """The objects whose methods are the activities, given their clients; no `cluster` for those that need none."""
    quotas = Quotas(temporal, settings.limits)
    of_temporal = (ReservationActivities(temporal), TurnActivities(quotas))
    if cluster is None:
        return of_temporal
    edge = EdgeSettings(
        roots_pem=settings.roots_pem,
        http_port=settings.edge_http_port,
        https_port=settings.edge_https_port,
        allowed_networks=settings.allowed_networks,
        timeout_seconds=settings.edge_timeout,
        nameservers=settings.nameservers,
        dns_timeout=settings.dns_timeout,
        cname_target=settings.cname_target,
        client_certificate=settings.edge_client[0] if settings.edge_client else None,
        client_key=settings.edge_client[1] if settings.edge_client else None,
    )
    preflight = PreflightSettings(
        nameservers=settings.nameservers,
        cname_target=settings.cname_target,
        delegation_zone=settings.delegation_zone,
        timeout_seconds=settings.dns_timeout,
        http_port=settings.edge_http_port,
        http_timeout_seconds=settings.edge_timeout,
        allowed_networks=settings.allowed_networks,
        caa_identities=settings.caa_identities,
        limits=settings.limits,
    )
    diagnosis = DiagnosisSettings(
        edge=edge,
        nameservers=settings.nameservers,
        dns_timeout=settings.dns_timeout,
        cname_target=settings.cname_target,
        caa_identities=settings.caa_identities,
    )
    platform = PlatformSettings(
        helm=settings.helm, kubeconfig=settings.kubeconfig, chart=settings.chart, extra_values=settings.helm_values
    )
    backups = BackupSettings(
        directory=settings.backup_directory,
        recipients=settings.backup_recipients,
        identity_file=settings.backup_identity_file,
        keep=settings.backup_keep,
    )
    looking = PreflightActivities(cluster, preflight, quotas)
    return (
        *of_temporal,
        looking,
        CertificateActivities(cluster, temporal, quotas),
        DiagnosisActivities(cluster, diagnosis),
        GatewayActivities(cluster),
        EdgeActivities(cluster, edge),
        RenewalActivities(cluster, edge, looking, temporal, quotas),
        IssuerActivities(cluster),
        PlatformActivities(cluster, platform),
        AdditionActivities(cluster),
        BackupActivities(cluster, backups),
        ReviewActivities(cluster, temporal, edge),
    )


def activities_on(queue: str, provided: Sequence[object]) -> list[Callable[..., Any]]:
    """The activities of a queue by the table. Raises LookupError where nobody provides one."""
    found = []
    for hand in HANDS:
        if hand.queue != queue:
            continue
        method = next((getattr(one, hand.name) for one in provided if hasattr(one, hand.name)), None)
        if method is None:
            message = f"no activity {hand.name} for the queue {queue}"
            raise LookupError(message)
        found.append(method)
    return found


@contextlib.asynccontextmanager
async def assembled(settings: Settings, temporal: Client) -> AsyncIterator[list[Worker]]:
    """The workers of this process, one for each of its queues, not yet running."""
    async with contextlib.AsyncExitStack() as stack:
        provided = providers(settings, None, temporal)
        if any(queue != queues.WORKFLOWS for queue in settings.queues):
            cluster = await stack.enter_async_context(kubernetes.connect(settings.kubeconfig))
            provided = providers(settings, cluster, temporal)
        threads = stack.enter_context(ThreadPoolExecutor(_THREADS, thread_name_prefix="activity"))
        yield [_worker(queue, settings, temporal, provided, threads) for queue in settings.queues]


def _worker(
    queue: str, settings: Settings, temporal: Client, provided: Sequence[object], threads: ThreadPoolExecutor
) -> Worker:
    of_workflows: dict[str, Any] = {}
    if queue == queues.WORKFLOWS:
        of_workflows = {
            "workflows": list(WORKFLOWS),
            "workflow_runner": workflow_runner(),
            "deployment_config": versions.deployment(settings.build_id),
            "max_concurrent_workflow_tasks": WORKFLOW_TASKS,
            "workflow_task_poller_behavior": PollerBehaviorAutoscaling(),
        }
    return Worker(
        temporal,
        task_queue=queue,
        activities=activities_on(queue, provided),
        activity_executor=threads,
        max_concurrent_activities=SLOTS[queue],
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        graceful_shutdown_timeout=timedelta(seconds=settings.shutdown_grace),
        **of_workflows,
    )


def runtime(settings: Settings) -> Runtime:
    """The SDK's runtime; with metrics as Temporal's documented alerts expect them (by default they are otherwise)."""
    if settings.metrics is None:
        return Runtime(telemetry=TelemetryConfig())
    host, port = settings.metrics
    metrics = PrometheusConfig(
        bind_address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        counters_total_suffix=True,
        unit_suffix=True,
        durations_as_seconds=True,
    )
    return Runtime(telemetry=TelemetryConfig(metrics=metrics))
