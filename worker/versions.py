"""Which version of the workflows' code runs which workflow: Temporal's worker versioning.

Workflows are pinned to the version that they began on, and move to the present one with a new run (`workflows`). A
server dispatches nothing to a version that was never promoted, so somebody has to: by default the worker itself.
"""

from __future__ import annotations

import asyncio

from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client, RPCError
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCStatusCode
from temporalio.worker import WorkerDeploymentConfig

from activities.temporal import CONNECT

DEPLOYMENT = "certwright"

WORKFLOWS_VERSION = "1"
"""Raised only with code that does not replay the histories of the version before. It is not the package's version: a
pinned workflow waits for ever where no worker of its own version runs any more."""

_TRIES = 60
_PAUSE_SECONDS = 0.5
"""A version is known to the server once its worker has polled: a fraction of a second; 30 s bridge a busy server."""


def deployment(build_id: str = WORKFLOWS_VERSION) -> WorkerDeploymentConfig:
    """The versioning of a worker that runs workflows."""
    version = WorkerDeploymentVersion(deployment_name=DEPLOYMENT, build_id=build_id)
    return WorkerDeploymentConfig(version=version, use_worker_versioning=True)


async def promote(client: Client, build_id: str = WORKFLOWS_VERSION) -> None:
    """New workflows and new runs begin on this version from now on; its worker must be running. Raises RPCError."""
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=DEPLOYMENT, build_id=build_id, identity=client.identity
    )
    for attempt in range(1, _TRIES + 1):
        try:
            await client.workflow_service.set_worker_deployment_current_version(request, timeout=CONNECT)
        except RPCError as error:
            waits = error.status in (
                RPCStatusCode.NOT_FOUND,
                RPCStatusCode.FAILED_PRECONDITION,
                RPCStatusCode.UNAVAILABLE,
                RPCStatusCode.DEADLINE_EXCEEDED,
            )
            if not waits or attempt == _TRIES:
                raise
            await asyncio.sleep(_PAUSE_SECONDS if attempt > 5 else _PAUSE_SECONDS / 5)
        else:
            return
