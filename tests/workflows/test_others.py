"""The platform, issuers, review, backup, restore and held names, with pretended activities."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import (
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError, CancelledError

from lifecycle import findings, names, queues
from lifecycle.domain import IssuerRef
from lifecycle.steps import (
    AdditionFacts,
    BackupReport,
    BackupRequest,
    ChangeKind,
    FleetReviewReport,
    FleetReviewRequest,
    IssuerRequest,
    IssuerStatus,
    ObjectChange,
    PlatformInspection,
    PlatformRequest,
    PlatformVerdict,
    Proof,
    ReleaseFacts,
    Reservation,
    RestoreRequest,
    RollbackRequest,
)
from tests.workflows.pretended import World, linger, onboard, request, until
from workflows.backup import Backup
from workflows.issuer import IssuerSetup
from workflows.platform import PlatformInstallation
from workflows.reservation import HostnameReservation
from workflows.restore import Restore
from workflows.review import FleetReview

PLATFORM = PlatformRequest(cluster="lab", version="v1.21.2")
ISSUER = IssuerRequest(ref=IssuerRef(name="letsencrypt"), server="https://acme.example/directory")
RELEASE = ReleaseFacts(
    name="cert-manager",
    namespace="cert-manager",
    revision=4,
    previous_revision=3,
    app_version="v1.21.2",
    changed=True,
)


def inspected(verdict: PlatformVerdict, *found: findings.Finding) -> PlatformInspection:
    return PlatformInspection(
        verdict=verdict, kubernetes="v1.36.3", istio="1.31.0", installed="v1.20.0", findings=found
    )


def failed(kind: findings.FindingKind, subject: str = "cert-manager") -> findings.Finding:
    return kind.found(subject=subject, problem="It is so.", fix="Mend it.")


async def begun(world: World, run: Any, argument: Any) -> WorkflowHandle[Any, Any]:
    return await world.environment.client.start_workflow(
        run, argument, id=f"test/{uuid.uuid4()}", task_queue=queues.WORKFLOWS
    )


# --- platform ---------------------------------------------------------------------------------------------------------


async def test_a_bare_cluster_gets_cert_manager_and_it_is_proved(world: World) -> None:
    status = await (await begun(world, PlatformInstallation.run, PLATFORM)).result()
    assert status.ready
    assert status.findings == ()
    assert not status.rolled_back
    assert world.calls == ["inspect_platform", "install_release", "prove_webhook", "prove_issuance"]


async def test_a_refused_platform_is_left_as_it_is(world: World) -> None:
    twice = failed(findings.CERT_MANAGER_TWICE)
    world.script["inspect_platform"] = [inspected(PlatformVerdict.REFUSE, twice)]
    status = await (await begun(world, PlatformInstallation.run, PLATFORM)).result()
    assert not status.ready
    assert (twice,) == status.findings
    assert world.calls == ["inspect_platform"]


@pytest.mark.parametrize("verdict", [PlatformVerdict.KEEP, PlatformVerdict.ADOPT])
async def test_what_is_right_already_is_kept_and_only_proved(world: World, verdict: PlatformVerdict) -> None:
    world.script["inspect_platform"] = [inspected(verdict)]
    status = await (await begun(world, PlatformInstallation.run, PLATFORM)).result()
    assert status.ready
    assert status.release is None
    assert world.calls == ["inspect_platform", "prove_webhook", "prove_issuance"]


async def test_a_dry_run_looks_and_does_nothing(world: World) -> None:
    asked = dataclasses.replace(PLATFORM, dry_run=True)
    status = await (await begun(world, PlatformInstallation.run, asked)).result()
    assert not status.ready
    assert status.inspection is not None
    assert world.calls == ["inspect_platform"]


@pytest.mark.parametrize("proof", ["prove_webhook", "prove_issuance"])
async def test_an_upgrade_that_cannot_be_proved_is_rolled_back(world: World, proof: str) -> None:
    world.script["inspect_platform"] = [inspected(PlatformVerdict.UPGRADE)]
    world.script["install_release"] = [RELEASE]
    world.script[proof] = [Proof(detail="no answer", findings=(failed(findings.WEBHOOK_NOT_ANSWERING),))]
    status = await (await begun(world, PlatformInstallation.run, PLATFORM)).result()
    assert not status.ready
    assert status.rolled_back
    assert [findings.WEBHOOK_NOT_ANSWERING.code] == [item.code for item in status.findings]
    (back,) = world.arguments["roll_back_release"]
    assert RollbackRequest(name="cert-manager", namespace="cert-manager", revision=3) == back


async def test_an_installation_that_changed_nothing_is_not_rolled_back(world: World) -> None:
    world.script["install_release"] = [dataclasses.replace(RELEASE, changed=False)]
    world.script["prove_webhook"] = [ApplicationError("pods is forbidden", non_retryable=True)]
    status = await (await begun(world, PlatformInstallation.run, PLATFORM)).result()
    assert not status.ready
    assert not status.rolled_back
    assert "roll_back_release" not in world.calls


async def test_a_proof_that_is_refused_rolls_the_release_back_and_says_what_is_left(world: World) -> None:
    world.script["install_release"] = [RELEASE]
    world.script["prove_issuance"] = [ApplicationError("issuers is forbidden", non_retryable=True)]
    world.script["roll_back_release"] = [ApplicationError("another operation is in progress", non_retryable=True)]
    status = await (await begun(world, PlatformInstallation.run, PLATFORM)).result()
    assert not status.rolled_back
    assert [findings.STEP_FAILED.code, findings.UNDO_INCOMPLETE.code] == [item.code for item in status.findings]


async def test_a_cancelled_installation_is_rolled_back(world: World) -> None:
    world.script["install_release"] = [RELEASE]
    world.script["prove_webhook"] = [linger]
    handle = await begun(world, PlatformInstallation.run, PLATFORM)
    await until(lambda: "prove_webhook" in world.calls)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as failure:
        await handle.result()
    assert isinstance(failure.value.cause, CancelledError)
    assert world.calls[-1] == "roll_back_release"


async def test_an_installation_cancelled_while_helm_works_is_rolled_back(world: World) -> None:
    async def installs(_: object) -> ReleaseFacts:
        await asyncio.sleep(1)
        return RELEASE

    world.script["install_release"] = [installs]
    handle = await begun(world, PlatformInstallation.run, PLATFORM)
    await until(lambda: "install_release" in world.calls)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert world.calls == ["inspect_platform", "install_release", "roll_back_release"]


MORE = dataclasses.replace(PLATFORM, network_policies=True, dashboard=True)


async def test_what_was_asked_for_beside_it_is_brought_before_the_proofs(world: World) -> None:
    status = await (await begun(world, PlatformInstallation.run, MORE)).result()
    assert status.ready
    assert status.additions is not None
    assert [one.name for one in status.additions.changes] == ["certwright-dashboard"]
    expected = ["inspect_platform", "install_release", "change_additions", "prove_webhook", "prove_issuance"]
    assert expected == world.calls


async def test_beside_an_adopted_one_it_is_brought_where_that_one_is(world: World) -> None:
    found = dataclasses.replace(inspected(PlatformVerdict.ADOPT), namespace="certs")
    world.script["inspect_platform"] = [found]
    status = await (await begun(world, PlatformInstallation.run, MORE)).result()
    assert status.ready
    assert [one.namespace for one in world.arguments["change_additions"]] == ["certs"]


async def test_replicas_alone_are_a_matter_of_the_release(world: World) -> None:
    asked = dataclasses.replace(PLATFORM, high_availability=True)
    assert (await (await begun(world, PlatformInstallation.run, asked)).result()).ready
    assert "change_additions" not in world.calls


async def test_policies_that_cert_manager_does_not_work_with_are_taken_back_with_the_release(world: World) -> None:
    world.script["install_release"] = [RELEASE]
    world.script["prove_issuance"] = [Proof(detail="no", findings=(failed(findings.CANARY_NOT_ISSUED),))]
    status = await (await begun(world, PlatformInstallation.run, MORE)).result()
    assert not status.ready
    assert status.rolled_back
    assert world.calls[-2:] == ["take_back_additions", "roll_back_release"]


async def test_policies_beside_a_release_that_is_kept_are_taken_back_alone(world: World) -> None:
    world.script["inspect_platform"] = [inspected(PlatformVerdict.KEEP)]
    world.script["prove_webhook"] = [Proof(detail="no", findings=(failed(findings.WEBHOOK_NOT_ANSWERING),))]
    status = await (await begun(world, PlatformInstallation.run, MORE)).result()
    assert status.rolled_back
    assert world.calls[-1] == "take_back_additions"


async def test_an_object_of_somebody_else_ends_the_run_and_takes_the_release_back(world: World) -> None:
    world.script["install_release"] = [RELEASE]
    facts = AdditionFacts(namespace="cert-manager", findings=(failed(findings.ADDITION_FOREIGN),))
    world.script["change_additions"] = [facts]
    status = await (await begun(world, PlatformInstallation.run, MORE)).result()
    assert not status.ready
    assert [findings.ADDITION_FOREIGN.code] == [item.code for item in status.findings]
    assert world.calls == ["inspect_platform", "install_release", "change_additions", "roll_back_release"]


async def test_what_a_failed_run_changed_of_an_earlier_ones_is_told(world: World) -> None:
    world.script["inspect_platform"] = [inspected(PlatformVerdict.KEEP)]
    change = ObjectChange(kind="NetworkPolicy", namespace="cert-manager", name="one", change=ChangeKind.CHANGE)
    world.script["change_additions"] = [AdditionFacts(namespace="cert-manager", changes=(change,))]
    world.script["prove_issuance"] = [Proof(detail="no", findings=(failed(findings.CANARY_NOT_ISSUED),))]
    status = await (await begun(world, PlatformInstallation.run, MORE)).result()
    assert not status.rolled_back
    assert [findings.CANARY_NOT_ISSUED.code, findings.ADDITION_KEPT.code] == [item.code for item in status.findings]


async def test_a_run_cancelled_while_objects_are_written_takes_them_back(world: World) -> None:
    async def writes(_: object) -> AdditionFacts:
        await asyncio.sleep(1)
        change = ObjectChange(kind="NetworkPolicy", namespace="cert-manager", name="one", change=ChangeKind.CREATE)
        return AdditionFacts(namespace="cert-manager", changes=(change,))

    world.script["inspect_platform"] = [inspected(PlatformVerdict.KEEP)]
    world.script["change_additions"] = [writes]
    handle = await begun(world, PlatformInstallation.run, MORE)
    await until(lambda: "change_additions" in world.calls)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert world.calls == ["inspect_platform", "change_additions", "take_back_additions"]


async def test_a_platform_says_that_its_surroundings_are_broken(world: World) -> None:
    world.script["inspect_platform"] = [lambda _: ApplicationError("connection refused")]
    handle = await begun(world, PlatformInstallation.run, PLATFORM)
    await until(lambda: "inspect_platform" in world.calls)
    await world.sleep(timedelta(seconds=30))
    said = await handle.query(PlatformInstallation.status)
    assert [findings.SURROUNDINGS_BROKEN.code] == [item.code for item in said.findings]
    world.script["inspect_platform"] = []
    status = await handle.result()
    assert status.ready
    assert status.findings == ()


# --- issuer -----------------------------------------------------------------------------------------------------------


async def test_an_issuer_is_applied_and_ready(world: World) -> None:
    status = await (await begun(world, IssuerSetup.run, ISSUER)).result()
    assert status.ready
    assert status.account
    assert world.calls == ["apply_issuer", "await_issuer"]


async def test_an_issuer_that_is_refused_says_why(world: World) -> None:
    refused = failed(findings.ISSUER_CONFIGURATION_INVALID, "ClusterIssuer letsencrypt")
    world.script["apply_issuer"] = [IssuerStatus(ref=ISSUER.ref, step="applied", ready=False, findings=(refused,))]
    status = await (await begun(world, IssuerSetup.run, ISSUER)).result()
    assert not status.ready
    assert (refused,) == status.findings
    assert world.calls == ["apply_issuer"]


async def test_a_missing_permission_is_an_issuers_finding(world: World) -> None:
    missing = findings.PERMISSION_MISSING.found(
        subject="letsencrypt", problem="may not patch clusterissuers", fix="Add the rule."
    )
    world.script["apply_issuer"] = [ApplicationError("forbidden", missing, non_retryable=True)]
    status = await (await begun(world, IssuerSetup.run, ISSUER)).result()
    assert (missing,) == status.findings


# --- review, backup, restore ------------------------------------------------------------------------------------------


async def test_a_review_is_one_activity_and_survives_a_restart_of_the_cluster(world: World) -> None:
    world.script["review_fleet"] = [ApplicationError("connection refused")]
    report = await (await begun(world, FleetReview.run, FleetReviewRequest())).result()
    assert FleetReviewReport(certificates=300, ours=299) == report
    assert world.calls == ["review_fleet"] * 2


async def test_a_backup_takes_the_oldest_away_only_after_it_was_verified(world: World) -> None:
    report = await (await begun(world, Backup.run, BackupRequest())).result()
    assert report.verified
    assert report.removed == ("oldest.age",)
    assert world.calls == ["take_backup", "verify_backup", "prune_backups"]


@pytest.mark.parametrize("kind", [findings.BACKUP_DAMAGED, findings.BACKUP_NOT_OPENED])
async def test_a_backup_that_was_not_verified_replaces_nothing(world: World, kind: findings.FindingKind) -> None:
    def unopened(taken: BackupReport) -> BackupReport:
        return dataclasses.replace(taken, verified=False, findings=(failed(kind),))

    world.script["verify_backup"] = [unopened]
    report = await (await begun(world, Backup.run, BackupRequest())).result()
    assert not report.verified
    assert report.removed == ()
    assert world.calls == ["take_backup", "verify_backup"]


async def test_a_backup_that_cannot_be_taken_fails_so_that_its_schedule_pauses(world: World) -> None:
    world.script["take_backup"] = [lambda _: ApplicationError("no space left")]
    with pytest.raises(WorkflowFailureError):
        await (await begun(world, Backup.run, BackupRequest())).result()
    assert world.calls == ["take_backup"] * 3


async def test_a_restore_is_one_activity(world: World) -> None:
    report = await (await begun(world, Restore.run, RestoreRequest(backup="20270101T000000Z.age"))).result()
    assert report.equal
    assert world.calls == ["restore_backup"]


# --- held names -------------------------------------------------------------------------------------------------------


async def test_a_held_name_is_refused_to_everybody_until_its_owner_lets_it_go(world: World) -> None:
    client = world.environment.client
    owner = names.domain_id("shop.example.com")
    held = Reservation(tenant="acme", owner=owner, hostnames=("www.shop.example.com",))
    reservation = await client.start_workflow(
        HostnameReservation.run, held, id=names.reservation_id("www.shop.example.com"), task_queue=queues.WORKFLOWS
    )
    asked = request("www.shop.example.com", tenant="globex")
    assert reservation.id == names.domain_id(asked.hostname), "one name has one owner"
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await onboard(client, asked)
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == queues.HOSTNAME_TAKEN
    assert "acme" not in str(refused.value.cause)
    assert owner not in str(refused.value.cause)
    await reservation.signal(HostnameReservation.release, "domain/other.example.com")
    assert held == await reservation.query(HostnameReservation.owner)
    await reservation.signal(HostnameReservation.release, owner)
    assert held == await reservation.result()
