"""What an operator learns of the CAs' quotas: each account's queue, as its own workflow tells it.

Left out: one domain's place, which its own state has.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import Client, RPCError, WorkflowQueryFailedError

from activities.temporal import away_if_unreachable
from lifecycle.quota import QuotaOverview
from workflows.quota import IssuanceQuota

_CALL = timedelta(seconds=5)
"""A query replays one run at most: milliseconds. More means that no worker answers."""

_ALL = 'WorkflowType = "IssuanceQuota" AND ExecutionStatus = "Running"'


async def overviews(client: Client, *, most: int) -> tuple[tuple[QuotaOverview, ...], tuple[str, ...]]:
    """The accounts' overviews with the next `most` requests each, and the ids of quotas that do not answer.

    Raises TemporalAwayError.
    """
    found: list[QuotaOverview] = []
    silent: list[str] = []
    with away_if_unreachable():
        running = [one.id async for one in client.list_workflows(_ALL, rpc_timeout=_CALL)]
        for workflow_id in sorted(running):
            handle = client.get_workflow_handle(workflow_id)
            try:
                found.append(await handle.query(IssuanceQuota.overview, most, rpc_timeout=_CALL))
            except (RPCError, WorkflowQueryFailedError):
                silent.append(workflow_id)
    return tuple(found), tuple(silent)
