"""What the steps of a lifecycle take and give: one dataclass in and one out for each activity and workflow.

Only wire types are here. What an activity does with them is said where it is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lifecycle.domain import (
    DEFAULT_GATEWAY,
    ActionRequired,
    CertificateFacts,
    DomainStatus,
    GatewayTarget,
    IssuerRef,
    Observation,
    OnboardingRequest,
    QuotaTurn,
    RoutingStatus,
    ServedAt,
)
from lifecycle.findings import Finding

# --- platform -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformRequest:
    """Install or prove cert-manager.

    Attributes:
        cluster: name of the cluster, for the workflow id and the messages.
        chart: OCI reference or a directory readable by the worker.
        version: chart version, e.g. ``v1.21.2``.
        values: extra Helm values as a JSON object, merged over ours; never a secret.
        high_availability: two replicas of each component, resources and disruption budgets. This and the next three:
            True brings it, False takes away what an earlier run brought, None leaves it as it is.
        network_policies: what each component may be asked on and may ask.
        monitoring: PrometheusRule and ServiceMonitor, where the cluster knows these kinds.
        dashboard: Grafana's, as a ConfigMap.
        api_server_ports: TCP ports that the API server listens on, as Pods reach it; empty means 443 and 6443.
        issuer_ports: further TCP ports of CAs and DNS services that the controller asks, e.g. 8200 for Vault.
        monitoring_labels: labels by which a Prometheus selects rules and monitors, e.g. ``release``.
        concurrent_workers: of each of cert-manager's controllers; 0 leaves them as they are.
    """

    cluster: str
    chart: str = ""
    version: str = ""
    namespace: str = "cert-manager"
    values: str = "{}"
    gateway: GatewayTarget = DEFAULT_GATEWAY
    dry_run: bool = False
    high_availability: bool | None = None
    network_policies: bool | None = None
    monitoring: bool | None = None
    dashboard: bool | None = None
    api_server_ports: tuple[int, ...] = ()
    issuer_ports: tuple[int, ...] = ()
    monitoring_labels: tuple[tuple[str, str], ...] = ()
    concurrent_workers: int = 0


class PlatformVerdict(StrEnum):
    """What is to be done about cert-manager."""

    INSTALL = "install"
    UPGRADE = "upgrade"
    ADOPT = "adopt"
    KEEP = "keep"
    REFUSE = "refuse"


class ChangeKind(StrEnum):
    """What becomes of an object."""

    CREATE = "create"
    CHANGE = "change"
    UNCHANGED = "unchanged"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectChange:
    """What becomes of one object; `fields` are the paths that change, without their values."""

    kind: str
    namespace: str
    name: str
    change: ChangeKind
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditionFacts:
    """What became of the objects beside cert-manager that were asked for; `namespace` is cert-manager's."""

    namespace: str
    changes: tuple[ObjectChange, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformInspection:
    """What the cluster is, and the verdict.

    Attributes:
        installed: the running cert-manager's version, in `namespace`.
        changes: of a dry run, what would become of each object.
    """

    verdict: PlatformVerdict
    kubernetes: str
    istio: str
    installed: str
    gateway_addresses: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    namespace: str = ""
    changes: tuple[ObjectChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFacts:
    """A Helm release. `previous_revision` is 0 where there was none (a failure then uninstalls)."""

    name: str
    namespace: str
    revision: int
    previous_revision: int
    app_version: str
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest:
    """Put the release back to `revision`, or uninstall it where it is 0."""

    name: str
    namespace: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRequest:
    """Prove a cert-manager in `namespace`."""

    namespace: str
    release: str = "cert-manager"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was proved, in words; `findings` holds the errors where it could not be."""

    detail: str
    pods: tuple[str, ...] = ()
    fingerprint: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformStatus:
    """The result and the query of `PlatformInstallation`."""

    cluster: str
    step: str
    ready: bool
    inspection: PlatformInspection | None = None
    release: ReleaseFacts | None = None
    proofs: tuple[Proof, ...] = ()
    findings: tuple[Finding, ...] = ()
    rolled_back: bool = False
    additions: AdditionFacts | None = None


# --- issuer ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerRequest:
    """An issuer: by `spec`, or of ACME with one HTTP-01 solver by the fields before it.

    Attributes:
        server: directory URL, https; empty for other types than ACME.
        email: contact, may be empty.
        ca_bundle: PEM certificates to trust for the directory (public), may be empty.
        account_secret: name of the Secret with the account key (cert-manager makes it).
        profile: ACME profile, may be empty.
        cert_manager_namespace: where a ClusterIssuer's Secrets lie.
        spec: the issuer's spec as cert-manager has it, a JSON object; Secrets by name only. Empty: by the fields above.
        rehearsal: the issuer at which its certificates are rehearsed, ``Kind/name``; ``none`` where that is not wished
            for; empty where nothing was said.
    """

    ref: IssuerRef
    server: str
    email: str = ""
    ca_bundle: str = ""
    account_secret: str = ""
    profile: str = ""
    cert_manager_namespace: str = "cert-manager"
    spec: str = ""
    rehearsal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerStatus:
    """The result and the query of `IssuerSetup`.

    Attributes:
        account: URL of the ACME account, once it is registered.
        detail: cert-manager's own words.
        type: acme, ca, selfSigned, vault or venafi; empty where it was not looked at.
        server: of ACME, the directory's URL; `profile` likewise.
        wildcard: whether it can prove a wildcard.
        solvers: of ACME, as cert-manager has them, a JSON list; no secrets.
        rehearsal: as `IssuerRequest.rehearsal`.
    """

    ref: IssuerRef
    step: str
    ready: bool
    account: str = ""
    detail: str = ""
    findings: tuple[Finding, ...] = ()
    type: str = ""
    server: str = ""
    profile: str = ""
    wildcard: bool = False
    solvers: str = ""
    rehearsal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerQuestion:
    """Which issuers to look at; `ref` None for all."""

    ref: IssuerRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerOverview:
    """The issuers that were looked at, by kind, namespace and name; `more` how many there are beyond those."""

    issuers: tuple[IssuerStatus, ...] = ()
    more: int = 0


# --- domain ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Names to hold for a tenant, or to let go. `owner` is the domain's workflow id."""

    tenant: str
    owner: str
    hostnames: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationResult:
    """Empty `taken` where all names are ours now. Nothing is said about who owns the others."""

    taken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightReport:
    """What was found before anything is ordered. `may_proceed` is the recorded verdict.

    Attributes:
        turn: what the account's quota said, where it was asked; the order waits for its grant.
    """

    routing: RoutingStatus
    may_proceed: bool
    gateway_addresses: tuple[str, ...] = ()
    action_required: ActionRequired | None = None
    findings: tuple[Finding, ...] = ()
    evidence: tuple[Observation, ...] = ()
    turn: QuotaTurn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaQuestion:
    """Ask the account's quota for the turn of one domain, again or for the first time."""

    request: OnboardingRequest
    turn: QuotaTurn


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateTarget:
    """The objects of one domain; names derive from the hostname (`names.object_name`).

    Attributes:
        with_routing: whether a look at the edge asks the DNS too, where the names point.
        turn: the quota's grant; what comes of the order is told to it, and nothing is ordered after it is over.
    """

    request: OnboardingRequest
    previous_fingerprint: str = ""
    with_routing: bool = False
    turn: QuotaTurn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuanceResult:
    """What came of one issuance.

    Attributes:
        ready: the Certificate is Ready and the Secret holds what it asks for.
        order: name of the ACME Order, empty for other issuers.
        renewal_at: the issuer's own renewal time (status.renewalTime).
        ready_seconds: cert-manager's own time, from Certificate creation (or Issuing) to Ready.
        cause_seen: of a failure, that a look before the next order sees whether its cause is gone.
        look_at: of a failed renewal, when it is looked again whether its cause is gone.
    """

    ready: bool
    secret: CertificateFacts | None = None
    renewal_at: datetime | None = None
    order: str = ""
    orders: int = 0
    ready_seconds: float = 0.0
    findings: tuple[Finding, ...] = ()
    evidence: tuple[Observation, ...] = ()
    cause_seen: bool = False
    look_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeReport:
    """What every address of the gateway serves. `serving` True only if all of it is as it must be.

    Attributes:
        routing: where the names point, None where the DNS was not asked; with `routing_findings`, and with the records
            that must be set as `action_required`.
    """

    serving: bool
    fingerprint: str
    served: tuple[ServedAt, ...] = ()
    findings: tuple[Finding, ...] = ()
    routing: RoutingStatus | None = None
    action_required: ActionRequired | None = None
    routing_findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingResult:
    """The result of `GatewayBinding`; `bound` False means that it was undone."""

    bound: bool
    edge: EdgeReport | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRequest:
    """See one renewal through: wait for the new certificate, route its challenges, verify the edge.

    One that failed is asked for again by itself where its cause is gone.

    Attributes:
        force: set the `Issuing` condition first, as `cmctl renew` does (once; a retry sees the new fingerprint).
        turn: the quota's grant, where it was asked for one.
        account: of the quota that learns of a renewal which it was not asked for; empty where there is none.
    """

    request: OnboardingRequest
    current_fingerprint: str
    force: bool = False
    turn: QuotaTurn | None = None
    account: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalResult:
    """The new certificate and what the edge serves; `issuance.ready` False where nothing new came in time."""

    issuance: IssuanceResult
    edge: EdgeReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """What was removed, in words."""

    removed: tuple[str, ...] = ()


# --- review ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReviewRequest:
    """One pass over all Certificates; `probe_edge` also reads the third clock of each of our domains."""

    page_size: int = 500
    probe_edge: bool = True
    gateway: GatewayTarget = DEFAULT_GATEWAY


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReviewReport:
    """Counts, which domains were woken (at most 50 of them named) and the worst findings (at most 50).

    Attributes:
        more_woken, more_findings: how many there were beyond those.
    """

    certificates: int
    ours: int
    woken: tuple[str, ...] = ()
    due: int = 0
    expired: int = 0
    stale_at_edge: int = 0
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    more_woken: int = 0
    more_findings: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """The review's signal to a domain: look at your certificate now, because of `reason`.

    Attributes:
        fingerprint: of the certificate that the review saw in the Secret; empty where it saw none.
        renewing: the review saw that it is being replaced; whoever asked for that, its challenges need a route.
    """

    reason: str
    at: datetime
    fingerprint: str = ""
    renewing: bool = False


# --- backup ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRequest:
    """Take a backup. Recipients and directory are the worker's settings; `keep` 0 means the worker's default."""

    keep: int = 0
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupItem:
    """One object in a backup; `fingerprint` of the certificate or of the account's public key, else empty."""

    kind: str
    namespace: str
    name: str
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """One backup file and what is in it (counts; the manifest beside the file has each item)."""

    name: str
    bytes: int
    sha256: str
    counts: tuple[tuple[str, int], ...]
    fingerprints: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    verified: bool = False
    verified_how: str = ""
    removed: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """Put the Secrets of a backup back, into `into` (empty: where they came from)."""

    backup: str
    into: str = ""
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """What was put back; equal where the fingerprint in the cluster is the manifest's."""

    backup: str
    restored: tuple[BackupItem, ...] = ()
    skipped: tuple[str, ...] = ()
    equal: bool = False
    orders_created: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standstill:
    """Why an issuance has not moved for a while; `cause` None says that it goes on.

    Attributes:
        since: when it moved last.
    """

    cause: Finding | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MendReport:
    """What was done about a domain's certificate, and what is wrong after it.

    Attributes:
        findings: what was found after it, the cause first.
        evidence: one line for each remedy that was done, or could not be.
        issuing: cert-manager was asked for an issuance.
        renewal: what is left to do is one more issuance, which is the domain's to ask for.
    """

    findings: tuple[Finding, ...] = ()
    evidence: tuple[Observation, ...] = ()
    issuing: bool = False
    renewal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainAnswer:
    """What the door's Update answers: the state, and whether this call started it."""

    status: DomainStatus
    joined: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindrance:
    """Broken surroundings that a step meets; an empty `problem` says that they answer again.

    Attributes:
        since: when the step met them first.
        again_by: the next attempt is made no later than this.
    """

    step: str
    problem: str = ""
    since: datetime | None = None
    again_by: datetime | None = None
