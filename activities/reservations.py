"""Hold a domain's further names, so that nobody else can ask for them, and let them go again.

A name is held by a running workflow with the id that a domain of this name would have; Temporal lets one of an id run,
so there is no other list that could disagree. Workflows are named, not imported. Left out: the domain's first name,
which its own workflow holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from lifecycle import names, queues
from lifecycle.diagnosis import said
from lifecycle.steps import Cleanup, Reservation, ReservationResult

WORKFLOW, RELEASE = "HostnameReservation", "release"
"""The workflow's name and its signal."""

OWNER = "owner"
"""The memo that says who holds a name: unlike a query it needs no worker, so that a busy one cannot wait for itself."""

_CALL = timedelta(seconds=10)

_AT_ONCE = 8


class ReservationActivities:
    """Activities on the names of domains, given Temporal's client."""

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal

    @activity.defn
    async def reserve_names(self, reservation: Reservation) -> ReservationResult:
        """Hold all names or none; `taken` are those that somebody else has. Asking twice changes nothing.

        Raises ApplicationError, to be tried again, where Temporal does not answer.
        """
        # In one order for everybody: of two that want the same names, one gets all that are free.
        wanted = tuple(sorted(dict.fromkeys(reservation.hostnames)))
        taken: list[str] = []
        for hostname in wanted:
            held = await (self._is_ours(reservation, hostname) if taken else self._hold(reservation, hostname))
            if held is False:
                taken.append(hostname)
        if taken:
            await self._let_go(reservation)
        return ReservationResult(taken=tuple(name for name in reservation.hostnames if name in taken))

    @activity.defn
    async def release_names(self, reservation: Reservation) -> Cleanup:
        """Let go of those names that the reservation's owner holds; others' stay. Raises ApplicationError."""
        return Cleanup(removed=await self._let_go(reservation))

    async def _hold(self, reservation: Reservation, hostname: str) -> bool:
        """Whether the name is held for this owner now."""
        held = Reservation(tenant=reservation.tenant, owner=reservation.owner, hostnames=(hostname,))
        with _answering(f"hold {hostname}"):
            try:
                await self._temporal.start_workflow(
                    WORKFLOW,
                    held,
                    id=names.reservation_id(hostname),
                    task_queue=queues.WORKFLOWS,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                    static_summary=f"{hostname} is held",
                    memo={OWNER: held},
                    rpc_timeout=_CALL,
                )
            except WorkflowAlreadyStartedError:
                # one that has ended meanwhile is tried again: it was somebody's a moment ago
                return await self._is_ours(reservation, hostname) is True
        return True

    async def _is_ours(self, reservation: Reservation, hostname: str) -> bool | None:
        """Whether this owner holds the name; None where nobody does."""
        handle = self._temporal.get_workflow_handle(names.reservation_id(hostname))
        with _answering(f"ask who holds {hostname}"):
            try:
                found = await handle.describe(rpc_timeout=_CALL)
                if found.status is not WorkflowExecutionStatus.RUNNING:
                    return None
                if found.workflow_type != WORKFLOW:
                    return False  # a domain of its own
                holder = await found.memo_value(OWNER, None, type_hint=Reservation)
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return None
                raise
        if holder is None:
            return False
        return (holder.owner, holder.tenant) == (reservation.owner, reservation.tenant)

    async def _let_go(self, reservation: Reservation) -> tuple[str, ...]:
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(hostname: str) -> bool:
            async with limit:
                if not await self._is_ours(reservation, hostname):
                    return False
                handle = self._temporal.get_workflow_handle(names.reservation_id(hostname))
                with _answering(f"let {hostname} go"):
                    try:
                        await handle.signal(RELEASE, reservation.owner, rpc_timeout=_CALL)
                    except RPCError as error:
                        if error.status is RPCStatusCode.NOT_FOUND:
                            return False
                        raise
                return True

        hostnames = tuple(dict.fromkeys(reservation.hostnames))
        gone = await asyncio.gather(*map(one, hostnames))
        return tuple(hostname for hostname, done in zip(hostnames, gone, strict=True) if done)


@contextlib.contextmanager
def _answering(action: str) -> Iterator[None]:
    """Temporal's failures as ApplicationErrors that are tried again."""
    try:
        yield
    except RPCError as error:
        raise ApplicationError(f"{action}: {said(str(error))}", type="TemporalUnreachable") from None
