"""What was seen of one Certificate and of all that its issuance passes through, at one moment.

From the Certificate down to what an address of the gateway serves: objects as the cluster shows them, answers of name
servers, of port 80 and of port 443. Whose object is whose is told by controller references, as cert-manager does, not
by names: a restored object has the name and not the reference. Left out: gathering (`activities.snapshot`), and what is
wrong (`diagnosing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lifecycle.caa import CaaClimb
from lifecycle.challenge_path import PathAnswer
from lifecycle.delegation import Delegation
from lifecycle.diagnosis import conditions_of
from lifecycle.domain import (
    DEFAULT_GATEWAY,
    DEFAULT_TLS,
    CertificateFacts,
    GatewayTarget,
    IssuerRef,
    OnboardingRequest,
    ServedAt,
    TlsMode,
    TlsSettings,
    TlsVersion,
)
from lifecycle.domain import IssuerKind as Kind
from lifecycle.findings import Finding
from lifecycle.issuance import CERTIFICATE_NAME, REVISION
from lifecycle.manifests import DOMAIN_ANNOTATION, TENANT_ANNOTATION
from lifecycle.platform import Permission
from lifecycle.routing import DnsAnswer

Document = Mapping[str, Any]

CERT_MANAGER_GROUP = "cert-manager.io"
FINAL_STATES = {"valid", "invalid", "expired", "errored"}
"""Of Orders and Challenges: nothing more comes of them (cert-manager: acme.IsFinalState)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What was seen; None stands for an object that is not there, and what was not looked at is empty.

    Attributes:
        asked: the hostname that was asked for; empty where the Certificate was named.
        certificates: others of the namespace that write the same Secret.
        requests, orders, challenges: those of the namespace that carry the Certificate's name, or concern its names.
        orders_seen: False where Orders could not be looked at: that there is none says nothing then.
        issuer_seen: False where the issuer could not be looked at.
        issuer_namespaces: where Issuers of that name lie instead.
        solver_pods, solver_services, endpoint_slices: of HTTP-01 solvers, in the Certificate's namespace; nothing is
            said of them where `solver_seen` is False, nor of endpoints where `endpoints_seen` is.
        routes, gateways, policies: VirtualServices, Istio's Gateways and AuthorizationPolicies; of routes nothing is
            said where `routes_seen` is False.
        http_routes, api_gateway: the Gateway API's: HTTPRoutes that may lead to a solver, and the domain's Gateway.
        parents_missing: Gateways (``namespace/name``) that HTTPRoutes of solvers name, and that are not there.
        deployments: cert-manager's; None where they could not be looked at. `controllers` are its controller's Pods.
        controller_denied: what cert-manager's own account may not do, as ``namespace/name`` and the permission.
        webhook: why a dry-run create did not pass the webhook; empty where it did, or could not be tried.
        events: warnings about the objects above.
        secret_seen: whether the Secret could be looked at; `secret` and `secret_findings` are what is in it.
        secret_owner: the Certificate that the Secret's annotation names; None where there is no Secret.
        credentials: names of Secrets that Gateways name and the gateway's namespace does not have.
        accounts_denied: ServiceAccounts of the gateway's Pods that may not list Secrets there.
        delegations: where the records of open DNS-01 challenges lead.
        caa: CAA records of the names, where an ACME issuer is asked; `caa_identities` are the CA's names in them,
            where its directory is not a known one.
        path: answers on port 80 to the paths of open challenges.
        edge, served: what addresses of the gateway serve, where there is a Secret.
        unseen: why something could not be looked at.
    """

    now: datetime
    namespace: str
    name: str
    asked: str = ""
    gateway: GatewayTarget = DEFAULT_GATEWAY
    certificate: Document | None = None
    certificates: tuple[Document, ...] = ()
    requests: tuple[Document, ...] = ()
    orders: tuple[Document, ...] = ()
    challenges: tuple[Document, ...] = ()
    orders_seen: bool = True
    issuer: Document | None = None
    issuer_seen: bool = True
    issuer_namespaces: tuple[str, ...] = ()
    solver_pods: tuple[Document, ...] = ()
    solver_services: tuple[Document, ...] = ()
    endpoint_slices: tuple[Document, ...] = ()
    solver_seen: bool = True
    endpoints_seen: bool = True
    routes: tuple[Document, ...] = ()
    routes_seen: bool = True
    gateways: tuple[Document, ...] = ()
    http_routes: tuple[Document, ...] = ()
    api_gateway: Document | None = None
    parents_missing: frozenset[str] = field(default_factory=frozenset)
    policies: tuple[Document, ...] = ()
    deployments: tuple[Document, ...] | None = None
    controllers: tuple[Document, ...] = ()
    controller_denied: tuple[tuple[str, Permission], ...] = ()
    webhook: str = ""
    events: tuple[Document, ...] = ()
    secret_seen: bool = True
    secret_owner: str | None = None
    secret: CertificateFacts | None = None
    secret_findings: tuple[Finding, ...] = ()
    credentials: frozenset[str] = field(default_factory=frozenset)
    accounts_denied: tuple[str, ...] = ()
    answers: tuple[DnsAnswer, ...] = ()
    gateway_addresses: tuple[str, ...] = ()
    cname_target: str = ""
    delegations: tuple[Delegation, ...] = ()
    caa: tuple[CaaClimb, ...] = ()
    caa_identities: tuple[str, ...] = ()
    path: tuple[PathAnswer, ...] = ()
    edge: tuple[Finding, ...] = ()
    served: tuple[ServedAt, ...] = ()
    unseen: tuple[Finding, ...] = ()

    @property
    def hostnames(self) -> tuple[str, ...]:
        """The Certificate's names; where it is ours the domain's first."""
        if self.certificate is None:
            return (self.asked,) if self.asked else ()
        names = tuple(dict.fromkeys(map(str.lower, self.certificate["spec"].get("dnsNames") or ())))
        first = annotation(self.certificate, DOMAIN_ANNOTATION)
        return (first, *(name for name in names if name != first)) if first in names else names

    @property
    def ours(self) -> bool:
        """Whether the Certificate is a domain's of Certwright."""
        return self.certificate is not None and bool(annotation(self.certificate, DOMAIN_ANNOTATION))

    @property
    def issuing(self) -> bool:
        """Whether an issuance is under way."""
        return bool(self.certificate and conditions_of(self.certificate).get("Issuing", {}).get("status") == "True")

    @property
    def settled(self) -> bool:
        """Whether the last issuance came to a certificate, and none is under way or failed since."""
        if self.certificate is None:
            return False
        ready = conditions_of(self.certificate).get("Ready", {})
        current = ready.get("observedGeneration") == self.certificate["metadata"].get("generation")
        failed = (self.certificate.get("status") or {}).get("lastFailureTime")
        return ready.get("status") == "True" and current and not self.issuing and not failed

    @property
    def next_revision(self) -> int:
        """The revision of the issuance under way, or of the next one."""
        return int(((self.certificate or {}).get("status") or {}).get("revision") or 0) + 1

    @property
    def request(self) -> Document | None:
        """The CertificateRequest of the latest revision."""
        mine = [one for one in self.requests if self.certificate is not None and controlled(one, self.certificate)]
        return max(mine, key=revision, default=None)

    @property
    def order(self) -> Document | None:
        """The Order of that request."""
        request = self.request
        return next((one for one in self.orders if request is not None and controlled(one, request)), None)

    @property
    def present(self) -> tuple[Document, ...]:
        """The Challenges of that Order."""
        order = self.order
        return tuple(one for one in self.challenges if order is not None and controlled(one, order))


def issuer_of(certificate: Document) -> IssuerRef | None:
    """The issuer that a Certificate names; None where it is no issuer of cert-manager's own."""
    ref = certificate["spec"]["issuerRef"]
    if ref.get("group") not in (None, "", CERT_MANAGER_GROUP):
        return None
    if ref.get("kind") == Kind.CLUSTER_ISSUER.value:
        return IssuerRef(name=ref["name"])
    return IssuerRef(name=ref["name"], kind=Kind.ISSUER, namespace=certificate["metadata"]["namespace"])


def request_of(certificate: Document, gateway: GatewayTarget) -> OnboardingRequest:
    """What a Certificate of ours was made from, as far as its own objects need it: no routes."""
    first = annotation(certificate, DOMAIN_ANNOTATION)
    hostnames = tuple(dict.fromkeys((first, *(certificate["spec"].get("dnsNames") or ()))))
    return OnboardingRequest(
        tenant=annotation(certificate, TENANT_ANNOTATION),
        hostnames=tuple(filter(None, hostnames)),
        issuer=issuer_of(certificate) or IssuerRef(name=certificate["spec"]["issuerRef"]["name"]),
        routes=(),
        gateway=gateway,
    )


def tls_of(seen_gateways: Iterable[Document], api_gateway: Document | None, secret: str) -> TlsSettings:
    """How the Gateway that serves a Secret is told to speak TLS; as by default where none says."""
    for one in seen_gateways:
        for server in one["spec"].get("servers") or ():
            tls = server.get("tls") or {}
            if tls.get("credentialName") == secret:
                return _tls(
                    tls.get("mode"),
                    tls.get("minProtocolVersion"),
                    tls.get("maxProtocolVersion"),
                    tls.get("cipherSuites"),
                )
    for listener in (api_gateway or {}).get("spec", {}).get("listeners") or ():
        tls = listener.get("tls") or {}
        if any(one.get("name") == secret for one in tls.get("certificateRefs") or ()):
            options = tls.get("options") or {}
            ciphers = (options.get("gateway.istio.io/tls-cipher-suites") or "").split(",")
            return _tls(options.get("gateway.istio.io/tls-terminate-mode"), None, None, list(filter(None, ciphers)))
    return DEFAULT_TLS


def _tls(mode: str | None, low: str | None, high: str | None, ciphers: list[str] | None) -> TlsSettings:
    """Words that are none of ours (an Istio mode that we do not make) leave the default."""
    modes, versions = {one.value: one for one in TlsMode}, {one.value: one for one in TlsVersion}
    return TlsSettings(
        mode=modes.get(mode or "", DEFAULT_TLS.mode),
        min_protocol=versions.get(low or "", DEFAULT_TLS.min_protocol),
        max_protocol=versions.get(high or ""),
        ciphers=tuple(ciphers or ()),
    )


def annotation(document: Document, name: str) -> str:
    """An annotation's value, empty where there is none."""
    return str((document["metadata"].get("annotations") or {}).get(name) or "")


def parents_of(route: Document) -> tuple[str, ...]:
    """The Gateways that an HTTPRoute names, ``namespace/name``; its own namespace where none is given."""
    own = route["metadata"]["namespace"]
    return tuple(
        f"{one.get('namespace') or own}/{one['name']}"
        for one in route["spec"].get("parentRefs") or ()
        if one.get("kind") in (None, "Gateway")
    )


def controlled(document: Document, owner: Document) -> bool:
    """Whether `owner` is the controller of an object (Kubernetes: "Owners and Dependents")."""
    references = document["metadata"].get("ownerReferences") or ()
    return any(one.get("controller") and one["uid"] == owner["metadata"]["uid"] for one in references)


def revision(request: Document) -> int:
    """Which issuance a CertificateRequest is of; 0 where it does not say."""
    text = annotation(request, REVISION)
    return int(text) if text.isdigit() else 0


def concerns(document: Document, name: str, hostnames: Iterable[str]) -> bool:
    """Whether a CertificateRequest, Order or Challenge has to do with the Certificate of that name."""
    named = document["metadata"]["name"].startswith(f"{name}-") or annotation(document, CERTIFICATE_NAME) == name
    return named or document["spec"].get("dnsName") in set(hostnames)
