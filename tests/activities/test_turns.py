"""What the account's quota hears of real orders: how many, which names failed; and nothing is ordered too late.

Temporal is real, without a worker: what a quota is told stands in its history as signals.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from kubernetes.aio.dynamic import DynamicClient
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.testing import WorkflowEnvironment

from activities.certificates import CertificateActivities
from activities.preflight import PreflightActivities
from activities.renewals import RenewalActivities
from activities.turns import Quotas
from lab.api import ApiError
from lab.cluster import Lab
from lifecycle import names, queues
from lifecycle.domain import IssuerRef, QuotaTurn
from lifecycle.quota import Exemption, Lane, Outcome, PastOrder, PastOrders, QuotaState, quota_id
from lifecycle.rate_limits import CaLimits, Limit, LimitKind, LimitsTable
from lifecycle.steps import CertificateTarget, RenewalRequest
from tests.activities import domains
from tests.activities.domains import preflight_settings as settings

pytestmark = pytest.mark.lab

T = TypeVar("T")

ACCOUNT = "https://acme.example/acct/1"


@pytest.fixture(scope="module")
async def temporal() -> AsyncIterator[Client]:
    """A client of a development server where a quota waits for a worker that never comes."""
    program = str(Path(sys.executable).parent / "temporal")
    async with await WorkflowEnvironment.start_local(dev_server_existing_path=program) as environment:
        await environment.client.start_workflow(
            "IssuanceQuota", QuotaState(account=ACCOUNT, limits=()), id=quota_id(ACCOUNT), task_queue=queues.WORKFLOWS
        )
        yield environment.client


@pytest.fixture(scope="module")
def certificates(admin: DynamicClient, temporal: Client) -> CertificateActivities:
    return CertificateActivities(admin, quotas=Quotas(temporal, LimitsTable()))


def target(
    hostname: str, *, lasts: timedelta = timedelta(hours=1), issuer: IssuerRef = domains.ISSUER
) -> CertificateTarget:
    now = datetime.now(UTC)
    turn = QuotaTurn(
        account=ACCOUNT,
        server="https://acme.example/directory",
        issuer=issuer,
        request_id=hostname,
        lane=Lane.NEW,
        since=now,
        asked_at=now,
        granted=True,
        at=now + lasts,
    )
    return dataclasses.replace(domains.target(hostname), turn=turn)


async def signalled(temporal: Client, name: str, kind: type[T]) -> list[T]:
    """What the quota was sent by this signal."""
    found = []
    async for event in temporal.get_workflow_handle(quota_id(ACCOUNT)).fetch_history_events():
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name == name:
            found += await DataConverter.default.decode(signal.input.payloads, [kind])
    return found


async def told(temporal: Client, request_id: str) -> list[Outcome]:
    """What the quota was told of the request."""
    return [one for one in await signalled(temporal, "tell", Outcome) if one.request_id == request_id]


async def learned(temporal: Client) -> list[PastOrder]:
    """The orders that it was not asked for."""
    return [order for past in await signalled(temporal, "learn", PastOrders) for order in past.orders]


async def made(lab: Lab, hostname: str) -> bool:
    path = f"/apis/cert-manager.io/v1/namespaces/istio-system/certificates/{names.certificate_name(hostname)}"
    try:
        await lab.api.call("GET", path)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


async def test_an_order_that_succeeds_is_told_as_one(
    issuing: Lab, certificates: CertificateActivities, temporal: Client
) -> None:
    asked = target("told.h1.test")
    domains.point_here(issuing, "told.h1.test")
    try:
        result = await domains.run(certificates.issue_certificate, asked)
        assert result.ready, result.findings
        assert await told(temporal, "told.h1.test") == [Outcome(request_id="told.h1.test", orders=1, issued=True)]
    finally:
        await domains.run(certificates.remove_certificate, asked)


async def test_an_order_that_fails_is_told_with_the_name(
    issuing: Lab, certificates: CertificateActivities, temporal: Client
) -> None:
    asked = target("untold.h1.test")
    domains.point_here(issuing, "untold.h1.test", addresses=("127.0.0.9",))  # the CA finds nobody there
    try:
        result = await domains.run(certificates.issue_certificate, asked)
        assert not result.ready
        expected = Outcome(request_id="untold.h1.test", orders=1, failed=("untold.h1.test",))
        assert await told(temporal, "untold.h1.test") == [expected]
    finally:
        await domains.run(certificates.remove_certificate, asked)


async def test_a_cancelled_order_is_told_as_far_as_it_came(
    issuing: Lab, certificates: CertificateActivities, temporal: Client
) -> None:
    asked = target("stopped.h1.test")
    domains.point_here(issuing, "stopped.h1.test")
    heard = domains.Heard()
    waiting = asyncio.create_task(domains.run(certificates.issue_certificate, asked, environment=heard.environment))
    try:
        await heard.until("the challenge of")
        heard.environment.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, 10)
        assert await told(temporal, "stopped.h1.test") == [Outcome(request_id="stopped.h1.test", orders=1)]
    finally:
        await domains.run(certificates.remove_certificate, asked)


async def test_nothing_is_ordered_with_a_grant_that_is_over(
    issuing: Lab, certificates: CertificateActivities, temporal: Client
) -> None:
    result = await domains.run(certificates.issue_certificate, target("late.h1.test", lasts=timedelta(minutes=1)))
    assert [finding.code for finding in result.findings] == ["CW1370"]
    assert not await made(issuing, "late.h1.test")
    assert await told(temporal, "late.h1.test") == [Outcome(request_id="late.h1.test")]


async def test_a_stopping_worker_tells_nothing_since_another_goes_on(
    issuing: Lab, certificates: CertificateActivities, temporal: Client
) -> None:
    asked = target("passed-on.h1.test")
    domains.point_here(issuing, "passed-on.h1.test")
    heard = domains.Heard()
    waiting = asyncio.create_task(domains.run(certificates.issue_certificate, asked, environment=heard.environment))
    try:
        await heard.until("the challenge of")
        heard.environment.worker_shutdown()
        with pytest.raises(Exception, match="shutting down"):
            await asyncio.wait_for(waiting, 10)
        assert await told(temporal, "passed-on.h1.test") == []
        # by another issuer, as a rehearsal is, it is not what was granted
        again = target("passed-on.h1.test", issuer=IssuerRef(name="another"))
        assert (await domains.run(certificates.issue_certificate, again)).ready
        assert await told(temporal, "passed-on.h1.test") == []
    finally:
        await domains.run(certificates.remove_certificate, asked)


async def test_a_look_asks_the_quota_and_not_the_clusters_orders_whose_turn_it_is(
    issuing: Lab, admin: DynamicClient, temporal: Client
) -> None:
    """The look of a domain: the quota that no worker runs is told as silent, and its first state has the orders."""
    domains.point_here(issuing, "asking.h1.test")
    host = issuing.acme_directory.partition("://")[2].partition(":")[0]
    none_left = Limit(kind=LimitKind.ORDERS, burst=1, refill_seconds=36_000)
    table = LimitsTable(entries=(CaLimits(host=host, limits=(none_left,)),))
    looking = PreflightActivities(admin, settings(issuing, limits=table), Quotas(temporal, table))
    past = target("past.h1.test")
    domains.point_here(issuing, "past.h1.test")
    certificates = CertificateActivities(admin)
    try:
        await domains.run(certificates.issue_certificate, dataclasses.replace(past, turn=None))
        request = domains.request("asking.h1.test")
        alone = await looking.look(request)
        assert (alone.may_proceed, [one.code for one in alone.findings]) == (False, ["CW1323"])
        report = await domains.run(looking.check_preflight, request)
        assert (report.may_proceed, report.findings) == (True, ())
        assert report.turn is not None
        assert report.turn.silent_since is not None
        assert report.turn.account.startswith(issuing.acme_directory.removesuffix("dir"))
        quota = temporal.get_workflow_handle(quota_id(report.turn.account))
        first = await anext(quota.fetch_history_events())
        payloads = first.workflow_execution_started_event_attributes.input.payloads
        (state,) = await DataConverter.default.decode(payloads, [QuotaState])
        assert state.limits == (none_left,)
        assert LimitKind.ORDERS in {level.kind for level in state.levels}
        again = await domains.run(looking.check_again, request)
        assert (again.may_proceed, again.turn) == (True, None)
    finally:
        await domains.run(certificates.remove_certificate, past)


async def test_a_renewal_is_told_as_what_came_of_its_grant_or_as_an_order_without_one(
    issuing: Lab, admin: DynamicClient, certificates: CertificateActivities, temporal: Client
) -> None:
    asked = target("again.h1.test")
    domains.point_here(issuing, "again.h1.test")
    looking = PreflightActivities(admin, settings(issuing))
    edge = await domains.edge_settings(issuing)
    renewals = RenewalActivities(admin, edge, looking, quotas=Quotas(temporal, LimitsTable()))
    try:
        first = await domains.run(certificates.issue_certificate, dataclasses.replace(asked, turn=None))
        assert first.secret is not None
        turn = target("again.h1.test").turn
        renewal = RenewalRequest(
            request=asked.request, current_fingerprint=first.secret.fingerprint, force=True, turn=turn, account=ACCOUNT
        )
        second = await domains.run(renewals.see_renewal_through, renewal)
        assert second.issuance.secret is not None
        # the order of the first issuance is older than the turn, and not counted again
        assert await told(temporal, "again.h1.test") == [Outcome(request_id="again.h1.test", orders=1, issued=True)]
        assert await learned(temporal) == []
        alone = dataclasses.replace(renewal, current_fingerprint=second.issuance.secret.fingerprint, turn=None)
        assert (await domains.run(renewals.see_renewal_through, alone)).issuance.ready
        (past,) = await learned(temporal)
        assert (past.hostnames, past.registered_domains) == (("again.h1.test",), ("h1.test",))
        assert (past.exemption, past.issued) == (Exemption.RENEWAL, True)
    finally:
        await domains.run(certificates.remove_certificate, asked)
