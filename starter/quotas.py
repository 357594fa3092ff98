"""What doors learn of the CAs' quotas: each account's queue for an operator, and a domain's place as it is now.

Left out: whose turn it is (`lifecycle.quota`).
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, RPCError, WorkflowQueryFailedError

from activities.temporal import away_if_unreachable
from lifecycle.domain import QuotaPlace
from lifecycle.quota import QuotaOverview, quota_id
from workflows.quota import IssuanceQuota

_CALL = timedelta(seconds=5)
"""A query replays one run at most: milliseconds. More means that no worker answers."""

_PROMPT = timedelta(seconds=2)
"""For what the domain's own state nearly knows."""

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


async def place_now(client: Client, owner: str, told: QuotaPlace) -> QuotaPlace:
    """The place of a domain (by its workflow's id) as its quota knows it now; what it was `told` where none answers."""
    handle = client.get_workflow_handle(quota_id(told.account))
    try:
        now = await handle.query(IssuanceQuota.place_of, owner, rpc_timeout=_PROMPT)
    except (RPCError, WorkflowQueryFailedError):
        return told
    if now is None:
        return told
    return dataclasses.replace(
        told, lane=now.lane, place=now.place, expected_at=now.expected_at, told_at=datetime.now(UTC)
    )
