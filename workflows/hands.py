"""Every activity that a workflow may call: its name, what it takes and gives, where it runs and how long it may take.

Called by name, so that a workflow's sandbox never loads a cluster's client, and so that the limits of each are in one
place; a test compares this table with the activities themselves. How a call is tried again is `workflows.calling`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from lifecycle import findings, queues
    from lifecycle.domain import OnboardingRequest, QuotaTurn
    from lifecycle.findings import FindingKind
    from lifecycle.steps import (
        AdditionFacts,
        BackupReport,
        BackupRequest,
        BindingResult,
        CertificateTarget,
        Cleanup,
        EdgeReport,
        FleetReviewReport,
        FleetReviewRequest,
        IssuanceResult,
        IssuerOverview,
        IssuerQuestion,
        IssuerRequest,
        IssuerStatus,
        MendReport,
        PlatformInspection,
        PlatformRequest,
        PreflightReport,
        Proof,
        ProofRequest,
        QuotaQuestion,
        ReleaseFacts,
        RenewalRequest,
        RenewalResult,
        Reservation,
        ReservationResult,
        RestoreReport,
        RestoreRequest,
        RollbackRequest,
    )
    from workflows import timeouts

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand(Generic[A, R]):
    """One activity.

    Attributes:
        limit: start to close, of one attempt.
        heartbeat: set for watches; cancellation reaches them with it.
        mutates: a cancelled one is waited for, so that what undoes it comes after it.
        late: what is found where a watch's time is over; None where it is tried again.
        local: done by the workflows' own worker within the workflow task; one event instead of six. Only for what takes
            moments and needs nothing but Temporal.
    """

    name: str
    takes: type[A]
    gives: type[R]
    queue: str
    limit: timedelta = timeouts.CALL
    heartbeat: timedelta | None = None
    mutates: bool = True
    late: FindingKind | None = None
    local: bool = False


RESERVE_NAMES = Hand(
    name="reserve_names", takes=Reservation, gives=ReservationResult, queue=queues.WORKFLOWS, local=True
)
RELEASE_NAMES = Hand(name="release_names", takes=Reservation, gives=Cleanup, queue=queues.WORKFLOWS, local=True)
CHECK_PREFLIGHT = Hand(
    name="check_preflight",
    takes=OnboardingRequest,
    gives=PreflightReport,
    queue=queues.PROBE,
    limit=timeouts.PREFLIGHT,
    mutates=False,
)
CHECK_AGAIN = Hand(
    name="check_again",
    takes=OnboardingRequest,
    gives=PreflightReport,
    queue=queues.PROBE,
    limit=timeouts.PREFLIGHT,
    mutates=False,
)
ASK_TURN = Hand(name="ask_turn", takes=QuotaQuestion, gives=QuotaTurn, queue=queues.WORKFLOWS)
WITHDRAW_TURN = Hand(name="withdraw_turn", takes=QuotaTurn, gives=Cleanup, queue=queues.WORKFLOWS, local=True)
ISSUE_CERTIFICATE = Hand(
    name="issue_certificate",
    takes=CertificateTarget,
    gives=IssuanceResult,
    queue=queues.CLUSTER,
    limit=timeouts.ISSUANCE,
    heartbeat=timeouts.HEARTBEAT,
    late=findings.ISSUANCE_TIMED_OUT,
)
SEE_RENEWAL_THROUGH = Hand(
    name="see_renewal_through",
    takes=RenewalRequest,
    gives=RenewalResult,
    queue=queues.CLUSTER,
    limit=timeouts.ISSUANCE,
    heartbeat=timeouts.HEARTBEAT,
    late=findings.ISSUANCE_TIMED_OUT,
)
REMOVE_CERTIFICATE = Hand(name="remove_certificate", takes=CertificateTarget, gives=Cleanup, queue=queues.CLUSTER)
MEND_CERTIFICATE = Hand(
    name="mend_certificate",
    takes=CertificateTarget,
    gives=MendReport,
    queue=queues.CLUSTER,
    limit=timeouts.MENDING,
)
BIND_GATEWAY = Hand(name="bind_gateway", takes=CertificateTarget, gives=BindingResult, queue=queues.CLUSTER)
UNBIND_GATEWAY = Hand(name="unbind_gateway", takes=CertificateTarget, gives=Cleanup, queue=queues.CLUSTER)
VERIFY_EDGE = Hand(
    name="verify_edge",
    takes=CertificateTarget,
    gives=EdgeReport,
    queue=queues.PROBE,
    limit=timeouts.VERIFICATION,
    heartbeat=timeouts.HEARTBEAT,
    mutates=False,
)
REVIEW_FLEET = Hand(
    name="review_fleet",
    takes=FleetReviewRequest,
    gives=FleetReviewReport,
    queue=queues.PROBE,
    limit=timeouts.REVIEW,
    heartbeat=timedelta(minutes=1),
)
# by the installer's account: it may look whether the Secrets beside cert-manager are there, the worker's may not
APPLY_ISSUER = Hand(name="apply_issuer", takes=IssuerRequest, gives=IssuerStatus, queue=queues.PLATFORM)
INSPECT_ISSUERS = Hand(
    name="inspect_issuers", takes=IssuerQuestion, gives=IssuerOverview, queue=queues.CLUSTER, mutates=False
)
AWAIT_ISSUER = Hand(
    name="await_issuer",
    takes=IssuerRequest,
    gives=IssuerStatus,
    queue=queues.CLUSTER,
    limit=timeouts.ISSUER,
    heartbeat=timeouts.HEARTBEAT,
    mutates=False,
)
INSPECT_PLATFORM = Hand(
    name="inspect_platform",
    takes=PlatformRequest,
    gives=PlatformInspection,
    queue=queues.PLATFORM,
    limit=timeouts.PROOF,
    mutates=False,
)
INSTALL_RELEASE = Hand(
    name="install_release",
    takes=PlatformRequest,
    gives=ReleaseFacts,
    queue=queues.PLATFORM,
    limit=timeouts.HELM,
    heartbeat=timeouts.HEARTBEAT,
)
CHANGE_ADDITIONS = Hand(
    name="change_additions", takes=PlatformRequest, gives=AdditionFacts, queue=queues.PLATFORM, limit=timeouts.ADDITIONS
)
TAKE_BACK_ADDITIONS = Hand(
    name="take_back_additions", takes=AdditionFacts, gives=Cleanup, queue=queues.PLATFORM, limit=timeouts.ADDITIONS
)
ROLL_BACK_RELEASE = Hand(
    name="roll_back_release",
    takes=RollbackRequest,
    gives=Cleanup,
    queue=queues.PLATFORM,
    limit=timeouts.HELM,
    heartbeat=timeouts.HEARTBEAT,
)
PROVE_WEBHOOK = Hand(
    name="prove_webhook",
    takes=ProofRequest,
    gives=Proof,
    queue=queues.PLATFORM,
    limit=timeouts.PROOF,
    heartbeat=timeouts.HEARTBEAT,
)
PROVE_ISSUANCE = Hand(
    name="prove_issuance",
    takes=ProofRequest,
    gives=Proof,
    queue=queues.PLATFORM,
    limit=timeouts.PROOF,
    heartbeat=timeouts.HEARTBEAT,
)
TAKE_BACKUP = Hand(
    name="take_backup", takes=BackupRequest, gives=BackupReport, queue=queues.PLATFORM, limit=timeouts.BACKUP
)
VERIFY_BACKUP = Hand(
    name="verify_backup", takes=BackupReport, gives=BackupReport, queue=queues.PLATFORM, limit=timeouts.BACKUP
)
PRUNE_BACKUPS = Hand(
    name="prune_backups", takes=BackupRequest, gives=BackupReport, queue=queues.PLATFORM, limit=timeouts.BACKUP
)
RESTORE_BACKUP = Hand(
    name="restore_backup", takes=RestoreRequest, gives=RestoreReport, queue=queues.PLATFORM, limit=timeouts.BACKUP
)

HANDS: tuple[Hand[Any, Any], ...] = tuple(value for value in list(globals().values()) if isinstance(value, Hand))
"""The whole table."""
