"""A domain's life with pretended activities and skipped time: what it waits for, what it says, what it undoes."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from temporalio.client import (
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError

from lifecycle import findings, queues
from lifecycle.domain import (
    ActionRequired,
    CertificateStatus,
    DnsRecord,
    DomainStatus,
    Phase,
    RoutingStatus,
    ServingStatus,
)
from lifecycle.steps import (
    IssuanceResult,
    PreflightReport,
    RenewalRequest,
    RenewalResult,
    ReservationResult,
    Wake,
)
from tests.workflows.pretended import World, begin, hang, linger, onboard, request, seen, status_of, until
from workflows.domain import DomainOnboarding

Handle = WorkflowHandle[Any, DomainStatus]

RECORD = DnsRecord(name="shop.example.com", type="A", value="203.0.113.7")
NOT_POINTED = PreflightReport(
    routing=RoutingStatus.MISSING,
    may_proceed=False,
    action_required=ActionRequired(summary="Set the record.", records=(RECORD,)),
    findings=(
        findings.NAME_DOES_NOT_RESOLVE.found(
            subject="shop.example.com", problem="It does not resolve.", fix="shop.example.com A 203.0.113.7"
        ),
    ),
)
REFUSED_BY_CA = IssuanceResult(
    ready=False,
    findings=(findings.CHALLENGE_FAILED.found(subject="shop.example.com", problem="404 seen.", fix="Mend the route."),),
)


async def start(world: World, *hostnames: str) -> Handle:
    """A domain of its own, without a further name unless asked for."""
    state = begin(*(hostnames or ("shop.example.com",)))
    return await world.environment.client.start_workflow(
        DomainOnboarding.run, state, id=f"domain/{uuid.uuid4()}", task_queue=queues.WORKFLOWS
    )


async def active(world: World, *hostnames: str) -> Handle:
    handle = await start(world, *hostnames)
    await seen(world.environment.client, handle.id, in_phase(Phase.ACTIVE))
    return latest(world, handle)


def latest(world: World, handle: Handle) -> Handle:
    """The domain's handle without the run, so that it follows the domain from run to run."""
    return world.environment.client.get_workflow_handle_for(DomainOnboarding.run, handle.id)


def in_phase(phase: Phase) -> Callable[[DomainStatus], bool]:
    return lambda status: status.phase is phase


# --- from request to active -------------------------------------------------------------------------------------------


async def test_a_domain_becomes_active_by_all_three_statuses(world: World) -> None:
    handle = await active(world, "shop.example.com", "www.shop.example.com")
    status = await status_of(world.environment.client, handle.id)
    assert (
        status.routing,
        status.certificate,
        status.serving,
    ) == (RoutingStatus.POINTED, CertificateStatus.VALID, ServingStatus.SERVED)
    assert status.secret is not None
    assert {status.secret.fingerprint} == {one.fingerprint for one in status.served}
    assert status.renewal_at == status.next_check_at
    assert world.calls == [
        "reserve_names",
        "check_preflight",
        "issue_certificate",
        "bind_gateway",
        "verify_edge",
    ]
    assert world.arguments["reserve_names"][0].hostnames == ("www.shop.example.com",)


async def test_asking_twice_joins_and_another_tenant_learns_nothing(world: World) -> None:
    client, workflow_id = world.environment.client, f"domain/{uuid.uuid4()}"
    first, second = await asyncio.gather(
        onboard(client, request("shop.example.com"), workflow_id),
        onboard(client, request("shop.example.com"), workflow_id),
    )
    assert sorted((first.joined, second.joined)) == [False, True]
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await onboard(client, request("shop.example.com", tenant="globex"), workflow_id)
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == queues.HOSTNAME_TAKEN
    assert refused.value.cause.message == "shop.example.com is not available"
    await seen(client, workflow_id, in_phase(Phase.ACTIVE))
    assert world.calls.count("issue_certificate") == 1
    for update in (DomainOnboarding.check_now, DomainOnboarding.renew_now, DomainOnboarding.cancel_request):
        with pytest.raises(WorkflowUpdateFailedError):
            await client.get_workflow_handle(workflow_id).execute_update(update, "globex")
    assert (await onboard(client, request("shop.example.com"), workflow_id)).joined


async def test_a_domain_with_a_taken_name_is_refused_and_ends(world: World) -> None:
    world.script["reserve_names"] = [ReservationResult(taken=("www.shop.example.com",))]
    client, workflow_id = world.environment.client, f"domain/{uuid.uuid4()}"
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await onboard(client, request(), workflow_id)
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == queues.HOSTNAME_TAKEN
    ended = await client.get_workflow_handle_for(DomainOnboarding.run, workflow_id).result()
    assert Phase.REFUSED is ended.phase
    assert [findings.HOSTNAME_NOT_AVAILABLE.code] == [one.code for one in ended.findings]
    assert world.calls == ["reserve_names"]


async def test_nothing_is_ordered_before_the_name_points_here_and_a_check_answers_freshly(world: World) -> None:
    world.script["check_preflight"] = [lambda _: NOT_POINTED]
    handle, client = await start(world), world.environment.client
    status = await seen(client, handle.id, lambda status: status.next_check_at is not None)
    assert status.action_required is not None
    assert status.action_required.records == (RECORD,)
    assert RoutingStatus.MISSING is status.routing
    elsewhere = PreflightReport(routing=RoutingStatus.ELSEWHERE, may_proceed=False)
    world.script["check_preflight"] = [lambda _: elsewhere]
    answered = await latest(world, handle).execute_update(DomainOnboarding.check_now, "acme")
    assert RoutingStatus.ELSEWHERE is answered.routing
    assert {"check_preflight"} == set(world.calls)
    world.script["check_preflight"] = []
    await latest(world, handle).execute_update(DomainOnboarding.check_now, "acme")
    status = await seen(client, handle.id, in_phase(Phase.ACTIVE))
    assert status.action_required is None


async def test_checks_follow_the_published_schedule_to_suspension_and_a_check_resumes(world: World) -> None:
    world.script["check_preflight"] = [lambda _: NOT_POINTED]
    handle, client = await start(world), world.environment.client
    await seen(client, handle.id, lambda status: status.next_check_at is not None)
    await world.sleep(timedelta(minutes=11))
    await until(lambda: len(world.calls) >= 5)
    assert len(world.calls) == 5  # at once, and after 1, 2, 5 and 10 minutes
    await world.sleep(timedelta(days=7, hours=5))
    status = await seen(client, handle.id, in_phase(Phase.SUSPENDED))
    assert findings.DOMAIN_SUSPENDED.code == status.findings[0].code
    assert 50 < len(world.calls) < 80
    assert {"check_preflight"} == set(world.calls)
    reminders = [line for line in status.evidence if line.step == "reminder"]
    assert reminders
    await world.sleep(timedelta(days=30))
    before = len(world.calls)
    assert before == len(world.calls)
    world.script["check_preflight"] = []
    await latest(world, handle).execute_update(DomainOnboarding.check_now, "acme")
    await seen(client, handle.id, in_phase(Phase.ACTIVE))


@pytest.mark.parametrize("world", [100], ids=["cached"], indirect=True)
async def test_asking_again_resumes_a_suspended_domain(world: World) -> None:
    world.script["check_preflight"] = [lambda _: NOT_POINTED]
    handle, client = await start(world), world.environment.client
    await seen(client, handle.id, lambda status: status.next_check_at is not None)
    await world.sleep(timedelta(days=8))
    await seen(client, handle.id, in_phase(Phase.SUSPENDED))
    world.script["check_preflight"] = []
    assert (await onboard(client, request("shop.example.com"), handle.id)).joined
    await seen(client, handle.id, in_phase(Phase.ACTIVE))


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["check_preflight", "issue_certificate", "verify_edge"])
async def test_broken_surroundings_are_waited_for_and_said(world: World, step: str) -> None:
    broken = True

    def answer(_: object) -> Any:
        return ApplicationError("dial tcp: connection refused", type="ClusterUnreachable") if broken else None

    world.script[step] = [answer]
    handle, client = await start(world), world.environment.client
    await until(lambda: step in world.calls)
    await world.sleep(timedelta(seconds=10))
    status = await seen(client, handle.id, lambda status: "surroundings broken since" in status.step)
    assert findings.SURROUNDINGS_BROKEN.code == status.findings[0].code
    assert "connection refused" in status.findings[0].problem
    assert status.waiting_until is not None
    await world.sleep(timedelta(minutes=20))
    broken = False
    await world.sleep(timedelta(minutes=2))
    status = await seen(client, handle.id, in_phase(Phase.ACTIVE))
    assert status.findings == ()
    assert status.waiting_until is None
    assert len([line for line in status.evidence if line.step == "surroundings"]) == 2
    assert world.issued == 1


async def test_a_refusal_for_good_is_a_finding_and_is_tried_again_when_asked(world: World) -> None:
    world.script["issue_certificate"] = [
        ApplicationError("certificates is forbidden", type="PermissionMissing", non_retryable=True)
    ]
    handle, client = await start(world), world.environment.client
    status = await seen(client, handle.id, lambda status: status.certificate is CertificateStatus.FAILED)
    status = await seen(client, handle.id, lambda status: status.next_check_at is not None)
    assert {findings.PERMISSION_MISSING.code} == {item.code for item in status.findings}
    assert "certificates is forbidden" in status.findings[0].problem
    await latest(world, handle).execute_update(DomainOnboarding.check_now, "acme")
    await seen(client, handle.id, in_phase(Phase.ACTIVE))


async def test_a_failed_issuance_is_undone_and_paced_for_the_ca(world: World) -> None:
    world.script["issue_certificate"] = [lambda _: REFUSED_BY_CA]
    handle, client = await start(world), world.environment.client
    await seen(client, handle.id, lambda status: status.certificate is CertificateStatus.FAILED)
    await until(lambda: "remove_certificate" in world.calls)
    await world.sleep(timedelta(minutes=9))
    assert world.calls.count("issue_certificate") == 1
    await world.sleep(timedelta(minutes=2))
    await until(lambda: world.calls.count("issue_certificate") == 2)
    await world.sleep(timedelta(hours=3))
    await until(lambda: world.calls.count("issue_certificate") == 3)
    status = await seen(client, handle.id, lambda status: status.next_check_at is not None)
    # The CA's limit also holds for the impatient: looked at, but not ordered.
    status = await latest(world, handle).execute_update(DomainOnboarding.check_now, "acme")
    assert 3 <= world.calls.count("issue_certificate") <= 4
    assert findings.CHALLENGE_FAILED.code in {item.code for item in status.findings}
    await world.sleep(timedelta(days=10))
    status = await seen(client, handle.id, in_phase(Phase.SUSPENDED))
    assert world.calls.count("issue_certificate") <= 9
    assert findings.DOMAIN_SUSPENDED.code == status.findings[0].code


async def test_an_order_whose_cause_is_seen_to_be_gone_is_made_after_1_10_and_100_minutes(world: World) -> None:
    mendable = dataclasses.replace(REFUSED_BY_CA, cause_seen=True)
    world.script["issue_certificate"] = [lambda _: mendable]
    handle, client = await start(world), world.environment.client
    await seen(client, handle.id, lambda status: status.certificate is CertificateStatus.FAILED)
    for number, minutes in enumerate((1, 10, 100), start=1):
        await seen(client, handle.id, lambda status: status.next_check_at is not None)
        await world.sleep(timedelta(minutes=minutes * 0.8))
        assert world.calls.count("issue_certificate") == number
        if minutes == 100:  # looked at in time, and not clean: nothing is ordered
            world.script["check_preflight"] = [lambda _: NOT_POINTED]
        await world.sleep(timedelta(minutes=minutes * 0.3))
        if minutes < 100:
            await until(partial(issued_times, world, number + 1))
    await until(lambda: world.calls.count("check_preflight") >= 4)
    assert world.calls.count("issue_certificate") == 3
    world.script.clear()
    await latest(world, handle).execute_update(DomainOnboarding.check_now, "acme")
    status = await seen(client, handle.id, in_phase(Phase.ACTIVE))
    assert status.findings == ()


async def test_a_binding_that_the_edge_does_not_serve_is_undone_and_made_again(world: World) -> None:
    bad = world.edge(request("shop.example.com"), problem="connection refused")
    world.script["verify_edge"] = [bad]
    handle, client = await start(world), world.environment.client
    status = await seen(
        client, handle.id, lambda status: status.phase is Phase.BINDING and status.next_check_at is not None
    )
    assert world.calls[-3:] == ["bind_gateway", "verify_edge", "unbind_gateway"]
    assert findings.GATEWAY_BINDING_UNDONE.code in {item.code for item in status.findings}
    assert ServingStatus.NONE is status.serving
    await latest(world, handle).execute_update(DomainOnboarding.check_now, "acme")
    await seen(client, handle.id, in_phase(Phase.ACTIVE))
    assert world.calls.count("issue_certificate") == 1


# --- cancelled --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outside", [False, True], ids=["by the update", "by cancelling the workflow"])
@pytest.mark.parametrize(
    ("step", "how", "undone"),
    [
        ("check_preflight", linger, []),
        ("issue_certificate", linger, ["remove_certificate"]),
        ("issue_certificate", hang, ["remove_certificate"]),
        ("bind_gateway", linger, ["unbind_gateway", "remove_certificate"]),
        ("verify_edge", hang, ["unbind_gateway", "remove_certificate"]),
    ],
)
async def test_a_cancelled_request_takes_everything_away(
    world: World, step: str, how: Callable[[object], Any], undone: list[str], outside: bool
) -> None:
    world.script[step] = [how]
    handle = await start(world, "shop.example.com", "www.shop.example.com")
    await until(lambda: step in world.calls)
    if outside:
        await handle.cancel()
    else:
        await handle.execute_update(DomainOnboarding.cancel_request, "acme")
    ended = await handle.result()
    assert Phase.RETIRED is ended.phase
    assert ended.findings == ()
    after = world.calls[world.calls.index(step) + 1 :]
    # The child undoes its own part first; the domain then takes away all there is, in reverse order.
    assert [*undone, "release_names"] == list(dict.fromkeys([*after[-len(undone) - 1 :]]))
    assert {*undone, "release_names"} == set(after)


async def test_an_active_domain_retires_and_what_cannot_be_undone_is_said(world: World) -> None:
    handle = await active(world)
    world.script["unbind_gateway"] = [ApplicationError("gateways is forbidden", non_retryable=True)]
    status = await handle.execute_update(DomainOnboarding.cancel_request, "acme")
    assert Phase.RETIRED is status.phase
    assert [findings.UNDO_INCOMPLETE.code] == [item.code for item in status.findings]
    assert world.calls[-2:] == ["unbind_gateway", "remove_certificate"]


# --- years of life ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("life", "renewals"), [(90, 18), (47, 34), (6, 270)])
async def test_three_years_of_a_domain(world: World, life: int, renewals: int) -> None:
    world.life = timedelta(days=life)
    handle, client = await active(world), world.environment.client
    years = 3 if world.cached else 1
    await world.sleep(timedelta(days=years * 365))
    status = await seen(client, handle.id, lambda status: status.phase is Phase.ACTIVE)
    assert renewals * years // 3 <= status.renewals <= renewals * years / 3 * 1.05 + 1
    assert status.secret is not None
    assert status.secret.fingerprint == world.fingerprint()
    assert status.previous_fingerprint not in ("", status.secret.fingerprint)
    assert status.findings == ()
    assert len(status.evidence) <= 40
    assert world.calls.count("issue_certificate") == 1
    assert status.renewals == world.calls.count("see_renewal_through")
    assert Phase.RETIRED is (await handle.execute_update(DomainOnboarding.cancel_request, "acme")).phase


async def test_renew_now_answers_when_the_new_certificate_is_served(world: World) -> None:
    handle = await active(world)
    before = await status_of(world.environment.client, handle.id)
    after = await handle.execute_update(DomainOnboarding.renew_now, "acme")
    assert before.secret is not None
    assert after.secret is not None
    assert before.secret.fingerprint == after.previous_fingerprint != after.secret.fingerprint
    assert {after.secret.fingerprint} == {one.fingerprint for one in after.served}
    assert after.renewals == 1
    assert world.arguments["see_renewal_through"][0].force


def issued_times(world: World, number: int) -> bool:
    return world.calls.count("issue_certificate") == number


def says(code: str, status: DomainStatus) -> bool:
    return code in {item.code for item in status.findings}


async def test_a_renewal_that_does_not_come_is_told_by_fractions_of_the_life_left(world: World) -> None:
    handle, client = await active(world), world.environment.client
    world.script["see_renewal_through"] = [lambda _: RenewalResult(issuance=IssuanceResult(ready=False))]
    first = await status_of(client, handle.id)
    assert first.secret is not None
    assert first.renewal_at is not None
    window = first.secret.not_after - first.renewal_at
    forced: dict[str, bool] = {}
    for part, code in (
        (0.15, findings.RENEWAL_OVERDUE),
        (0.75, findings.EXPIRY_NEAR),
        (0.95, findings.EXPIRY_IMMINENT),
        (1.1, findings.CERTIFICATE_EXPIRED),
    ):
        now = await world.now()
        await world.sleep(first.renewal_at + window * part - now)
        status = await seen(client, handle.id, partial(says, code.code))
        calls = world.arguments["see_renewal_through"]
        forced[code.title] = isinstance(calls[-1], RenewalRequest) and calls[-1].force
    assert CertificateStatus.EXPIRED is status.certificate
    assert forced == {"RenewalOverdue": False, "ExpiryNear": True, "ExpiryImminent": True, "CertificateExpired": True}
    world.script["see_renewal_through"] = []
    await world.sleep(window)
    status = await seen(client, handle.id, lambda status: status.renewals > 0 and not status.findings)
    assert CertificateStatus.VALID is status.certificate


async def test_a_failed_renewal_is_looked_at_when_the_activity_says_and_not_a_twentieth_of_the_rest_later(
    world: World,
) -> None:
    handle, client = await active(world), world.environment.client
    first = await status_of(client, handle.id)
    assert first.renewal_at is not None

    async def failed(_: RenewalRequest) -> RenewalResult:
        return RenewalResult(
            issuance=dataclasses.replace(REFUSED_BY_CA, look_at=await world.now() + timedelta(minutes=1))
        )

    world.script["see_renewal_through"] = [failed]
    await world.sleep(first.renewal_at - await world.now() + timedelta(seconds=5))
    await seen(client, handle.id, lambda status: bool(status.findings))
    assert world.calls.count("see_renewal_through") == 1
    world.script.clear()
    await world.sleep(timedelta(minutes=1, seconds=5))
    status = await seen(client, handle.id, lambda status: status.renewals == 1)
    assert status.findings == ()
    assert not any(one.force for one in world.arguments["see_renewal_through"])


async def test_the_review_wakes_for_a_new_certificate_and_for_a_stale_edge(world: World) -> None:
    handle, client = await active(world), world.environment.client
    now = await world.now()
    status = await status_of(client, handle.id)
    assert status.secret is not None
    bad = world.edge(request("shop.example.com"), problem="serves another certificate")
    world.script["verify_edge"] = [bad]
    stale = Wake(reason="stale at the edge", at=now, fingerprint=status.secret.fingerprint)
    await handle.signal(DomainOnboarding.wake, stale)
    status = await seen(client, handle.id, lambda status: status.serving is ServingStatus.STALE)
    assert world.calls.count("see_renewal_through") == 0
    await world.sleep(timedelta(minutes=6))
    await seen(client, handle.id, lambda status: status.serving is ServingStatus.SERVED)
    await handle.signal(DomainOnboarding.wake, Wake(reason="renewed by itself", at=now, fingerprint="ff" * 32))
    status = await seen(client, handle.id, lambda status: status.renewals == 1 and status.phase is Phase.ACTIVE)
    assert not world.arguments["see_renewal_through"][0].force
    assert any(line.step == "review" for line in status.evidence)


async def test_a_renewal_that_somebody_else_began_is_seen_through_once(world: World) -> None:
    handle, client = await active(world), world.environment.client
    status = await status_of(client, handle.id)
    assert status.secret is not None
    wake = Wake(reason="being renewed", at=await world.now(), fingerprint=status.secret.fingerprint, renewing=True)
    await handle.signal(DomainOnboarding.wake, wake)
    await seen(client, handle.id, lambda status: status.renewals == 1 and status.phase is Phase.ACTIVE)
    await handle.signal(DomainOnboarding.wake, wake)  # of a review that looked before
    await seen(client, handle.id, lambda status: sum(line.step == "review" for line in status.evidence) == 2)
    assert [argument.force for argument in world.arguments["see_renewal_through"]] == [False]
    assert "verify_edge" not in world.calls[world.calls.index("see_renewal_through") :]


async def test_check_now_tells_an_active_domains_customer_which_record_is_gone(world: World) -> None:
    handle, client = await active(world), world.environment.client
    good = world.edge(request("shop.example.com"))
    here = dataclasses.replace(good, routing=RoutingStatus.POINTED)
    world.script["verify_edge"] = [
        dataclasses.replace(
            good,
            routing=RoutingStatus.MISSING,
            action_required=NOT_POINTED.action_required,
            routing_findings=NOT_POINTED.findings,
        ),
        here,
        here,
    ]
    looks = world.calls.count("verify_edge")
    status = await handle.execute_update(DomainOnboarding.check_now, "acme")
    assert (status.phase, status.serving) == (Phase.ACTIVE, ServingStatus.SERVED)
    assert RoutingStatus.MISSING is status.routing
    assert status.findings == NOT_POINTED.findings
    assert status.action_required == NOT_POINTED.action_required
    assert world.arguments["verify_edge"][-1].with_routing
    # nobody asks any more: it is looked at again by itself, and is well again
    await world.sleep(timedelta(minutes=61))
    status = await seen(client, handle.id, lambda status: status.routing is RoutingStatus.POINTED)
    assert (status.action_required, status.findings, status.step) == (None, (), "active")
    assert world.calls.count("verify_edge") == looks + 2
    assert status.next_check_at == status.renewal_at
    await world.sleep(timedelta(hours=3))
    assert world.calls.count("verify_edge") == looks + 2


async def test_check_now_looks_at_the_edge_of_an_active_domain(world: World) -> None:
    handle = await active(world)
    await seen(world.environment.client, handle.id, in_phase(Phase.ACTIVE))
    before = world.calls.count("verify_edge")
    status = await handle.execute_update(DomainOnboarding.check_now, "acme")
    assert before + 1 == world.calls.count("verify_edge")
    assert ServingStatus.SERVED is status.serving


async def test_a_nudge_begins_a_new_run_that_goes_on_waiting(world: World) -> None:
    world.script["check_preflight"] = [lambda _: NOT_POINTED]
    handle, client = await start(world), world.environment.client
    before = await seen(client, handle.id, lambda status: status.next_check_at is not None)
    await latest(world, handle).signal(DomainOnboarding.nudge)

    async def run() -> str:
        return (await latest(world, handle).describe()).run_id or ""

    for _ in range(100):
        if await run() != handle.first_execution_run_id:
            break
        await asyncio.sleep(0.05)
    assert await run() != handle.first_execution_run_id
    after = await status_of(client, handle.id)
    assert before == after
    assert len(world.calls) == 1


async def test_a_domain_that_is_not_active_has_nothing_to_renew(world: World) -> None:
    world.script["check_preflight"] = [lambda _: NOT_POINTED]
    handle = await start(world)
    await seen(world.environment.client, handle.id, lambda status: status.next_check_at is not None)
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update(DomainOnboarding.renew_now, "acme")
