"""A customer's domain through a door: start or join, read, list, check, fix, renew, cancel.

One way for the portal and the command line, so that both refuse alike. Whatever is another tenant's is answered like
something that does not exist. What the answers look like is each door's own.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import hashlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from temporalio.client import (
    Client,
    RPCError,
    WithStartWorkflowOperation,
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCStatusCode

from activities.temporal import TemporalAwayError, away_if_unreachable
from lifecycle import progress, queues
from lifecycle.diagnosis import said
from lifecycle.domain import DomainStatus, OnboardingRequest, Phase
from lifecycle.names import domain_id
from lifecycle.steps import DomainAnswer
from starter import quotas
from workflows.domain import DomainOnboarding

READ = timedelta(seconds=5)
"""A query replays at most one certificate cycle: milliseconds. More means that no worker answers."""

START = timedelta(seconds=15)
"""The domain answers within five seconds (its names are reserved meanwhile); beyond it no worker answers."""

ASK = timedelta(seconds=40)
"""The domain answers a check, a renewal or a cancellation within 30 s, done or not."""

LARGEST_PAGE = 200

_SUM_OCTETS = 8
_ASKED_AGAIN = 5
_PAUSE_SECONDS = 0.2

_KIND = "DomainOnboarding"
_TENANT = SearchAttributeKey.for_keyword(queues.TENANT.name)
_PHASE = SearchAttributeKey.for_keyword(queues.DOMAIN_PHASE.name)
_ISSUER = SearchAttributeKey.for_keyword(queues.ISSUER_NAME.name)
_SHOWN = {
    "phase": _PHASE,
    "routing": SearchAttributeKey.for_keyword(queues.ROUTING_STATUS.name),
    "certificate": SearchAttributeKey.for_keyword(queues.CERTIFICATE_STATUS.name),
    "serving": SearchAttributeKey.for_keyword(queues.SERVING_STATUS.name),
    "issuer": _ISSUER,
}
_NEEDS_ACTION = SearchAttributeKey.for_bool(queues.ACTION_REQUIRED.name)
_NOT_AFTER = SearchAttributeKey.for_datetime(queues.NOT_AFTER.name)
_NEXT_CHECK = SearchAttributeKey.for_datetime(queues.NEXT_CHECK_AT.name)


class DomainUnknownError(Exception):
    """There is no such domain, or it is another tenant's: the answer is the same."""


class NotAvailableError(Exception):
    """One of the names is another's. Nothing is said about whose."""


class RetiredError(Exception):
    """The domain was retired; it begins anew only where that is asked for."""


class NotNowError(Exception):
    """The domain is not in a state for that; `str` says which it is in."""


class TooManyError(Exception):
    """Too many requests for one domain are being answered."""


class SilentError(Exception):
    """Temporal took the question, and no worker answered in time."""


class MovedOnError(Exception):
    """The question met the end of a run; the next run will answer it."""


class UnpreparedError(Exception):
    """Temporal lacks our search attributes."""


class Source(StrEnum):
    """Who answered: the domain itself, or Temporal's list of domains because no worker answers."""

    DOMAIN = "domain"
    VISIBILITY = "visibility"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSummary:
    """A domain in a list; statuses are as last told to the list, empty where not told yet."""

    hostname: str
    tenant: str
    phase: str = ""
    routing: str = ""
    certificate: str = ""
    serving: str = ""
    issuer: str = ""
    action_required: bool = False
    not_after: datetime | None = None
    next_check_at: datetime | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainView:
    """One domain. `status` is None where only the list knows it, which `source` says."""

    hostname: str
    source: Source
    status: DomainStatus | None = None
    summary: DomainSummary | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainPage:
    """One page of a list; `next_page` is empty on the last one."""

    domains: tuple[DomainSummary, ...]
    next_page: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Onboarded:
    """What came of asking for a domain; `answer` is None where it was started and no worker has answered yet."""

    hostname: str
    answer: DomainAnswer | None


async def onboard(client: Client, request: OnboardingRequest, *, update_id: str = "", again: bool = False) -> Onboarded:
    """Start the domain, or join who asked before.

    Args:
        update_id: the caller's idempotency key; a repetition gets the first answer.
        again: begin anew although the domain was retired.

    Raises:
        NotAvailableError, RetiredError, TooManyError, UnpreparedError, TemporalAwayError.
    """
    # A retired domain has completed; only one that was lost (failed, terminated) may begin again by itself.
    reuse = WorkflowIDReusePolicy.ALLOW_DUPLICATE if again else WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
    # One id, so that asking again after a lost answer is the same question.
    update_id = update_id or str(uuid.uuid4())
    for attempt in range(1, _ASKED_AGAIN):
        try:
            return await _begun(client, request, update_id, reuse)
        except MovedOnError:
            await asyncio.sleep(_PAUSE_SECONDS * attempt)
    try:
        return await _begun(client, request, update_id, reuse)
    except MovedOnError:
        raise TemporalAwayError("the domain was busy with a new run; ask again") from None


async def _begun(client: Client, request: OnboardingRequest, update_id: str, reuse: WorkflowIDReusePolicy) -> Onboarded:
    try:
        return await _start(client, request, update_id, reuse)
    except WorkflowAlreadyStartedError:
        if await _retired(client, request):
            raise RetiredError(request.hostname) from None
    return await _start(client, request, update_id, WorkflowIDReusePolicy.ALLOW_DUPLICATE)


async def _start(client: Client, request: OnboardingRequest, update_id: str, reuse: WorkflowIDReusePolicy) -> Onboarded:
    starting = WithStartWorkflowOperation(
        DomainOnboarding.run,
        progress.begin(request),
        id=domain_id(request.hostname),
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=reuse,
        task_queue=queues.WORKFLOWS,
        static_summary=f"{request.hostname} for {request.tenant}",
        # With these a list shows the domain, and whose it is, before a worker has seen it.
        memo={"tenant": request.tenant, "hostnames": list(request.hostnames)},
        search_attributes=TypedSearchAttributes(
            [
                SearchAttributePair(_TENANT, request.tenant),
                SearchAttributePair(_PHASE, Phase.REQUESTED.value),
                SearchAttributePair(_ISSUER, request.issuer.name),
            ]
        ),
        priority=Priority(priority_key=queues.PRIORITY_ONBOARDING, fairness_key=request.tenant[:64]),
    )
    asking = client.execute_update_with_start_workflow(
        DomainOnboarding.onboard,
        request,
        id=update_id,
        start_workflow_operation=starting,
        rpc_timeout=START,
    )
    try:
        async with _told(request.hostname, START):
            answer = await asking
    except SilentError:
        # Nobody answers, but the request may be there, and lasts.
        if await _recorded_for(client, request.hostname) != request.tenant:
            raise NotAvailableError(request.hostname) from None
        return Onboarded(hostname=request.hostname, answer=None)
    return Onboarded(hostname=request.hostname, answer=answer)


async def _retired(client: Client, request: OnboardingRequest) -> bool:
    """Whether the last domain of this name was this tenant's own and retired.

    A refused one never began, a former further name of another domain is free, and of another tenant's nothing is
    told.
    """
    handle = client.get_workflow_handle_for(DomainOnboarding.run, domain_id(request.hostname))
    async with _told(request.hostname):
        described = await handle.describe(rpc_timeout=READ)
        if described.workflow_type != _KIND or described.status is not WorkflowExecutionStatus.COMPLETED:
            return False
        last = await handle.result(rpc_timeout=READ)
    return last.tenant == request.tenant and last.phase is Phase.RETIRED


async def read(client: Client, hostname: str, tenant: str | None) -> DomainView:
    """The domain as it is now, or what the list knows where no worker answers.

    Args:
        tenant: whose it must be; None for an operator.

    Raises:
        DomainUnknownError, TemporalAwayError.
    """
    handle = client.get_workflow_handle(domain_id(hostname))
    async with _told(hostname):
        try:
            status = await handle.query(DomainOnboarding.status, rpc_timeout=READ)
        except WorkflowQueryFailedError:
            raise DomainUnknownError(hostname) from None  # the name is held by another domain
        except RPCError as error:
            if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.UNAVAILABLE):
                raise
            # No worker has polled, or none answers in time; the list may know.
            described = await handle.describe(rpc_timeout=READ)
            summary = await _summary(described)
            if described.workflow_type != _KIND or (tenant is not None and summary.tenant != tenant):
                raise DomainUnknownError(hostname) from None
            return DomainView(hostname=hostname, source=Source.VISIBILITY, summary=summary)
    if tenant is not None and status.tenant != tenant:
        raise DomainUnknownError(hostname)
    if status.quota is not None:  # its state has the place of when it asked
        place = await quotas.place_now(client, domain_id(hostname), status.quota)
        status = dataclasses.replace(status, quota=place)
    return DomainView(hostname=hostname, source=Source.DOMAIN, status=status)


async def listed(
    client: Client,
    tenant: str | None,
    *,
    page: str = "",
    size: int = 50,
    phase: Phase | None = None,
    ended: bool = False,
) -> DomainPage:
    """The living domains of a tenant (None: of all), or those that ended; by Temporal's list, which needs no worker.

    Raises:
        ValueError: `page` is none that we gave.
        UnpreparedError, TemporalAwayError.
    """
    conditions = [f'WorkflowType = "{_KIND}"', f'ExecutionStatus = "{"Completed" if ended else "Running"}"']
    if tenant is not None:
        conditions.append(f'{queues.TENANT.name} = "{tenant}"')
    if phase is not None:
        conditions.append(f'{queues.DOMAIN_PHASE.name} = "{phase.value}"')
    query = " AND ".join(conditions)
    token = _page_token(page, query)
    iterator = client.list_workflows(query, page_size=min(size, LARGEST_PAGE), next_page_token=token, rpc_timeout=READ)
    async with _told(""):
        await iterator.fetch_next_page()
    found = [await _summary(one) for one in iterator.current_page or ()]
    return DomainPage(domains=tuple(found), next_page=_page(iterator.next_page_token, query))


def _page(token: bytes | None, query: str) -> str:
    """Temporal's place in a list, with a sum, because it takes a damaged one for a fault of its own."""
    return base64.urlsafe_b64encode(_sum(token, query) + token).decode() if token else ""


def _page_token(page: str, query: str) -> bytes | None:
    if not page:
        return None
    try:
        content = base64.b64decode(page.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(page) from None
    token = content[_SUM_OCTETS:]
    if content[:_SUM_OCTETS] != _sum(token, query):
        raise ValueError(page)
    return token


def _sum(token: bytes, query: str) -> bytes:
    return hashlib.sha256(query.encode() + b"\0" + token).digest()[:_SUM_OCTETS]


async def check(client: Client, hostname: str, tenant: str) -> DomainStatus:
    """Look again now. Raises DomainUnknownError, TooManyError, TemporalAwayError."""
    return await _ask(client, DomainOnboarding.check_now, hostname, tenant)


async def renew(client: Client, hostname: str, tenant: str) -> DomainStatus:
    """Renew although it is not due. Raises NotNowError, DomainUnknownError, TooManyError, TemporalAwayError."""
    return await _ask(client, DomainOnboarding.renew_now, hostname, tenant)


async def fix(client: Client, hostname: str, tenant: str) -> DomainStatus:
    """Do what is safe about what keeps it. Raises DomainUnknownError, TooManyError, TemporalAwayError."""
    return await _ask(client, DomainOnboarding.fix, hostname, tenant)


async def cancel(client: Client, hostname: str, tenant: str) -> DomainStatus:
    """Take everything away. Raises DomainUnknownError, TooManyError, TemporalAwayError."""
    return await _ask(client, DomainOnboarding.cancel_request, hostname, tenant)


async def _ask(client: Client, update: Any, hostname: str, tenant: str) -> DomainStatus:
    handle = client.get_workflow_handle(domain_id(hostname))
    update_id = str(uuid.uuid4())
    for attempt in range(1, _ASKED_AGAIN + 1):
        try:
            async with _told(hostname, ASK):
                status: DomainStatus = await handle.execute_update(
                    update, tenant, id=update_id, result_type=DomainStatus, rpc_timeout=ASK
                )
        except SilentError:
            raise TemporalAwayError("no worker answers for this domain; is one running?") from None
        except MovedOnError:
            if attempt == _ASKED_AGAIN:
                raise TemporalAwayError("the domain was busy with a new run; ask again") from None
            await asyncio.sleep(_PAUSE_SECONDS * attempt)
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError) and cause.type == "NotActive":
                raise NotNowError(cause.message) from None
            # a name that another domain holds has no such update
            raise DomainUnknownError(hostname) from None
        except NotAvailableError:
            raise DomainUnknownError(hostname) from None  # another tenant's
        else:
            return status
    raise AssertionError  # pragma: no cover - the last attempt raised


async def _recorded_for(client: Client, hostname: str) -> str:
    """The tenant of a domain that no worker has answered for."""
    try:
        async with _told(hostname):
            described = await client.get_workflow_handle(domain_id(hostname)).describe(rpc_timeout=READ)
    except DomainUnknownError:
        raise TemporalAwayError("Temporal did not take the request in time") from None
    return (await _summary(described)).tenant if described.workflow_type == _KIND else ""


async def _summary(execution: WorkflowExecution | WorkflowExecutionDescription) -> DomainSummary:
    attributes = execution.typed_search_attributes
    memo: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # a memo that cannot be read is not worth a list
        memo = dict(await execution.memo())
    names = memo.get("hostnames") or [execution.id.partition("/")[2]]
    return DomainSummary(
        hostname=str(names[0]),
        tenant=attributes.get(_TENANT) or str(memo.get("tenant", "")),
        action_required=bool(attributes.get(_NEEDS_ACTION)),
        not_after=attributes.get(_NOT_AFTER),
        next_check_at=attributes.get(_NEXT_CHECK),
        since=execution.start_time,
        **{field: attributes.get(key) or "" for field, key in _SHOWN.items()},
    )


@contextlib.asynccontextmanager
async def _told(hostname: str, longest: timedelta | None = None) -> AsyncIterator[None]:
    """Errors of Temporal as ours; those that only one caller understands pass."""
    try:
        with away_if_unreachable():
            try:
                async with asyncio.timeout(longest.total_seconds() if longest else None):
                    yield
            except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
                raise SilentError(hostname) from None
    except WorkflowUpdateFailedError as error:
        cause = error.cause
        if isinstance(cause, ApplicationError) and cause.type == queues.HOSTNAME_TAKEN:
            raise NotAvailableError(hostname) from None
        raise
    except WorkflowFailureError:
        raise DomainUnknownError(hostname) from None
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise DomainUnknownError(hostname) from None
        if error.status is RPCStatusCode.RESOURCE_EXHAUSTED:
            raise TooManyError(hostname) from None
        if error.status is RPCStatusCode.INVALID_ARGUMENT and "search attribute" in error.message.lower():
            raise UnpreparedError(said(error.message)) from None
        if "unexpected workflow task failure" in error.message or error.status is RPCStatusCode.ABORTED:
            raise MovedOnError(hostname) from None
        raise TemporalAwayError(f"Temporal refused ({error.status.name}): {said(error.message)}") from None
