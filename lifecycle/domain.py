"""What is known of a customer's domain: the values that workflows carry, activities return and doors show.

These are wire types (frozen, slotted, keyword-only; tuples, `StrEnum`, aware datetimes; a default on every field that
was added later). Rules about them live beside their subject: hostnames in `names`, waiting in `waiting`, renewal in
`renewal`, manifests in `manifests`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lifecycle.certificate_details import KeyEncoding, Keystore, KeyUsage, RotationPolicy, Subject
from lifecycle.findings import Finding


class Phase(StrEnum):
    """Where a domain is in its life."""

    REQUESTED = "requested"
    PREFLIGHT = "preflight"
    ISSUING = "issuing"
    BINDING = "binding"
    ACTIVE = "active"
    RENEWING = "renewing"
    SUSPENDED = "suspended"
    RETIRING = "retiring"
    RETIRED = "retired"
    REFUSED = "refused"


class RoutingStatus(StrEnum):
    """Does every name point at our gateway?"""

    UNKNOWN = "unknown"
    MISSING = "missing"
    ELSEWHERE = "elsewhere"
    PARTLY = "partly"
    POINTED = "pointed"


class CertificateStatus(StrEnum):
    """What the issuer and the Secret say."""

    NONE = "none"
    PENDING = "pending"
    ISSUED = "issued"
    VALID = "valid"
    RENEWING = "renewing"
    FAILED = "failed"
    EXPIRED = "expired"


class ServingStatus(StrEnum):
    """What the edge presents."""

    UNKNOWN = "unknown"
    NONE = "none"
    PARTLY = "partly"
    SERVED = "served"
    STALE = "stale"


class Rehearsal(StrEnum):
    """When a certificate is first had from the issuer's counterpart, whose limits nobody misses."""

    FIRST = "first"
    """Until the issuer has proved itself by a certificate in this cluster."""
    ALWAYS = "always"
    NEVER = "never"


class IssuerKind(StrEnum):
    """cert-manager's two kinds of issuer."""

    ISSUER = "Issuer"
    CLUSTER_ISSUER = "ClusterIssuer"


class KeyAlgorithm(StrEnum):
    """Private key algorithms as cert-manager spells them."""

    RSA = "RSA"
    ECDSA = "ECDSA"
    ED25519 = "Ed25519"


class GatewayKind(StrEnum):
    """Which objects tell the gateway workload what to serve."""

    ISTIO = "istio"
    GATEWAY_API = "gateway-api"


class TlsMode(StrEnum):
    """Who ends TLS, and whether clients need a certificate; as Istio spells them (ServerTLSSettings.TLSmode)."""

    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    OPTIONAL_MUTUAL = "OPTIONAL_MUTUAL"
    PASSTHROUGH = "PASSTHROUGH"


class TlsVersion(StrEnum):
    """Protocol versions that may be served; older ones may not (RFC 8996)."""

    TLSV1_2 = "TLSV1_2"
    TLSV1_3 = "TLSV1_3"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerRef:
    """Which issuer signs; `namespace` is empty for a ClusterIssuer."""

    name: str
    kind: IssuerKind = IssuerKind.CLUSTER_ISSUER
    namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayTarget:
    """The gateway workload that serves the domain: by namespace, Pod selector and Service name.

    Attributes:
        kind: by which objects it is told what to serve; the workload is the same.
        gateway_class: of the Gateway API's Gateway.
    """

    namespace: str = "istio-system"
    selector: tuple[tuple[str, str], ...] = (("istio", "ingressgateway"),)
    service: str = "istio-ingressgateway"
    kind: GatewayKind = GatewayKind.ISTIO
    gateway_class: str = "istio"


DEFAULT_GATEWAY = GatewayTarget()
"""What Istio's own gateway chart makes when it is installed by its usual names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A Service that takes its share of a route's requests: `weight` over the sum of all weights."""

    service: str
    port: int
    namespace: str = "default"
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMatch:
    """A request header that must have exactly this value; `name` in lower case."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Requests whose path has `prefix` go to `service`.`namespace`:`port`.

    Attributes:
        exact: the path is `prefix` and nothing else.
        headers: all of them must match too.
        weight: of the first Service, where `others` share the requests with it.
        timeout_seconds: for a whole request, 0 for the gateway's own.
    """

    prefix: str
    service: str
    port: int
    namespace: str = "default"
    exact: bool = False
    headers: tuple[HeaderMatch, ...] = ()
    weight: int = 1
    others: tuple[Backend, ...] = ()
    timeout_seconds: float = 0.0

    @property
    def backends(self) -> tuple[Backend, ...]:
        """All Services that share its requests."""
        first = Backend(service=self.service, port=self.port, namespace=self.namespace, weight=self.weight)
        return (first, *self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """How the gateway speaks TLS for the domain.

    Attributes:
        max_protocol: None for the newest there is.
        ciphers: of TLS 1.2, by OpenSSL's names; empty for the gateway's own. Those of TLS 1.3 are not chosen.
        client_ca: Secret in the gateway's namespace whose ``ca.crt`` has the CA of clients' certificates. Empty: the
            Secret that is named as the domain's with ``-cacert`` behind it, else the domain's own.
    """

    mode: TlsMode = TlsMode.SIMPLE
    min_protocol: TlsVersion = TlsVersion.TLSV1_2
    max_protocol: TlsVersion | None = None
    ciphers: tuple[str, ...] = ()
    client_ca: str = ""

    @property
    def asks_clients(self) -> bool:
        """Whether the gateway asks clients for a certificate."""
        return self.mode in {TlsMode.MUTUAL, TlsMode.OPTIONAL_MUTUAL}

    @property
    def terminates(self) -> bool:
        """Whether the gateway ends TLS, and so can read and change what passes."""
        return self.mode is not TlsMode.PASSTHROUGH


DEFAULT_TLS = TlsSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hsts:
    """What browsers are told to remember (RFC 6797, section 6.1)."""

    max_age_seconds: int
    include_subdomains: bool = False
    preload: bool = False

    @property
    def header(self) -> str:
        """The value of Strict-Transport-Security."""
        further = ("; includeSubDomains" if self.include_subdomains else "") + ("; preload" if self.preload else "")
        return f"max-age={self.max_age_seconds}{further}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSpec:
    """What the customer's certificate is to be.

    Attributes:
        key_size: bits, 2048/3072/4096 for RSA, 256/384/521 for ECDSA; Ed25519 has one size only.
        duration_seconds: requested lifetime, 0 to leave it to the issuer.
        renew_before_percentage: of the lifetime left at renewal, 1..99, 0 for cert-manager's default (a third).
        key_encoding: None for cert-manager's default (PKCS1, of Ed25519 PKCS8).
        usages: empty for what a TLS server needs.
        common_name: at most 64 characters; no client looks at it (RFC 9525).
        renew_before_seconds: before its end, 0 to leave it to `renew_before_percentage`.
        ip_addresses, uris: further subjectAltNames, beside the hostnames.
        secret_labels, secret_annotations: that the Secret is to have.
        temporary: the Secret is filled before the issuer has signed; no gateway is given that.
        jks, pkcs12: keystores that the Secret is to have too.
    """

    key_algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA
    key_size: int = 256
    duration_seconds: int = 0
    renew_before_percentage: int = 0
    key_encoding: KeyEncoding | None = None
    rotation: RotationPolicy = RotationPolicy.ALWAYS
    usages: tuple[KeyUsage, ...] = ()
    common_name: str = ""
    subject: Subject | None = None
    renew_before_seconds: int = 0
    ip_addresses: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    secret_labels: tuple[tuple[str, str], ...] = ()
    secret_annotations: tuple[tuple[str, str], ...] = ()
    temporary: bool = False
    jks: Keystore | None = None
    pkcs12: Keystore | None = None


DEFAULT_CERTIFICATE = CertificateSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class OnboardingRequest:
    """A well-formed request; made by `requests.parse_onboarding` only. The first hostname names the domain."""

    tenant: str
    hostnames: tuple[str, ...]
    issuer: IssuerRef
    routes: tuple[Route, ...]
    gateway: GatewayTarget = DEFAULT_GATEWAY
    certificate: CertificateSpec = DEFAULT_CERTIFICATE
    tls: TlsSettings = DEFAULT_TLS
    hsts: Hsts | None = None
    rehearsal: Rehearsal = Rehearsal.FIRST

    @property
    def hostname(self) -> str:
        """The domain's own name, after which its workflow and objects are named."""
        return self.hostnames[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsRecord:
    """A record to set, exactly as a DNS provider's form wants it."""

    name: str
    type: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequired:
    """What the customer must do, with the exact records."""

    summary: str
    records: tuple[DnsRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What is public of one X.509 certificate; bytes stay where they are.

    Attributes:
        fingerprint: SHA-256 over the DER, lower-case hex, 64 digits.
        dns_names: the subjectAltName dNSNames (RFC 9525 looks at nothing else).
        public_key_fingerprint: SHA-256 over the SubjectPublicKeyInfo, hex.
        usages: extended key usages, as cert-manager spells them.
        keystores: those beside it in its Secret, by the names of their keys there.
    """

    fingerprint: str
    serial: str
    issuer: str
    dns_names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    public_key: str
    public_key_fingerprint: str = ""
    chain_length: int = 1
    ip_addresses: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    usages: tuple[str, ...] = ()
    keystores: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One line of evidence: when, which step, what was seen (public facts only, at most 300 characters)."""

    at: datetime
    step: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAt:
    """What one address of the gateway served for one hostname.

    Attributes:
        fingerprint: of the leaf it presented; empty where the handshake failed.
        problem: empty where all was well.
        limits: what clients that must be refused, or accepted, met there, in words; asked of the first name only.
    """

    address: str
    hostname: str
    fingerprint: str
    chain_verified: bool
    protocol: str = ""
    cipher: str = ""
    redirect: str = ""
    routes: tuple[str, ...] = ()
    problem: str = ""
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaTurn:
    """A request for an order, as it stands with the quota of an ACME account (`lifecycle.quota`).

    Attributes:
        account: URI of the ACME account, or the directory's URL where it has none yet.
        server: URL of the CA's directory.
        issuer: by which the order is to be made.
        request_id: the asker's own; one grant at most comes of it.
        since: when the quota was asked first, and last `asked_at`.
        silent_since: when it first gave no answer, None where it answered last time.
        granted: order before `at`.
        place: in the queue, from 1; 0 where it is not in the queue.
        at: where it is not granted, when that is expected, or when to ask again; None where nobody has answered.
        over: this request's grant is over, and another one is to be asked for.
    """

    account: str
    server: str
    issuer: IssuerRef
    request_id: str
    lane: str
    since: datetime
    asked_at: datetime
    silent_since: datetime | None = None
    granted: bool = False
    place: int = 0
    at: datetime | None = None
    over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaPlace:
    """Where a domain waits for its order: at `place` (from 1; 0 not known) of everybody who asks with `account`.

    Attributes:
        lane: how urgent it is (`lifecycle.quota.Lane`).
        expected_at: when it may order, if nobody comes in front.
        told_at: when the quota said so.
    """

    account: str
    lane: str = ""
    place: int = 0
    expected_at: datetime | None = None
    told_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainStatus:
    """Everything a portal shows of a domain; the answer of the `status` query and of every Update.

    Attributes:
        quota: where it waits for its order; None where it does not.
    """

    hostname: str
    hostnames: tuple[str, ...]
    tenant: str
    phase: Phase
    routing: RoutingStatus
    certificate: CertificateStatus
    serving: ServingStatus
    step: str = ""
    action_required: ActionRequired | None = None
    findings: tuple[Finding, ...] = ()
    next_check_at: datetime | None = None
    waiting_until: datetime | None = None
    secret: CertificateFacts | None = None
    served: tuple[ServedAt, ...] = ()
    renewal_at: datetime | None = None
    order: str = ""
    evidence: tuple[Observation, ...] = ()
    previous_fingerprint: str = ""
    requested_at: datetime | None = None
    active_at: datetime | None = None
    renewals: int = 0
    quota: QuotaPlace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainState:
    """What `DomainOnboarding` carries from run to run: the request and its status, due times as instants.

    Attributes:
        checks: how many routing checks were made in this wait.
        waiting_since: when the present wait for the customer began.
        reminders: how many were given in this wait.
        failures: issuances or bindings that failed in a row, the last of them at `failed_at`.
        retry_at: when the next one is made, unless somebody wishes for it sooner.
        turn: what the quota was asked for and said; None where nothing is to be ordered.
        looked_at: when everything was last found ready for an order.
        account, server: of the quota that was asked last; empty where none was.
    """

    request: OnboardingRequest
    status: DomainStatus
    reserved: bool = False
    applied: bool = False
    bound: bool = False
    checks: int = 0
    waiting_since: datetime | None = None
    reminders: int = 0
    failures: int = 0
    failed_at: datetime | None = None
    retry_at: datetime | None = None
    turn: QuotaTurn | None = None
    looked_at: datetime | None = None
    account: str = ""
    server: str = ""
