"""What would the CA, and cert-manager, meet if the certificate were asked for now?

CAA records, the way of the challenge or of its DNS record, the CA's limits, the gateway's ports and the mesh around
cert-manager; each by the module that owns its rule, over what was gathered. An issuer that is no ACME account asks
nobody's DNS. Left out: where the names point, who else claims them, and the verdict (`preflight`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from lifecycle import findings
from lifecycle.caa import CaaClimb, CaaPolicy, caa_verdict, identities_of
from lifecycle.challenge_path import PathAnswer, path_verdict
from lifecycle.delegation import Delegation, challenge_record, delegation_verdict
from lifecycle.domain import DnsRecord, OnboardingRequest
from lifecycle.findings import Finding
from lifecycle.port_eighty import Neighbours
from lifecycle.quota_used import quota_findings
from lifecycle.rate_limits import Limit
from lifecycle.scratch_record import ScratchRecord, scratch_findings
from lifecycle.solvers import OWN_LABELS, explain

Document = Mapping[str, Any]

HTTP, DNS = "http-01", "dns-01"
_PORTS = {80: "where CAs validate and clients are redirected", 443: "where clients come"}
_UNKNOWN = {
    kind.code for kind in (findings.CAA_NOT_LOOKED_UP, findings.DELEGATION_NOT_LOOKED_UP, findings.DNSSEC_BROKEN)
}
_NO_SIDECAR = "sidecar.istio.io/inject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acme:
    """What an issuer says of its CA; `server` empty where it is no ACME issuer.

    Attributes:
        identities: the CA's names in CAA records.
        account: URI, empty until it is registered.
        methods: hostname and the method that proves it.
    """

    server: str = ""
    identities: tuple[str, ...] = ()
    account: str = ""
    methods: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """What was gathered; empty where there was nothing to look at.

    Attributes:
        service: the gateway's, None where it is not there or was not seen.
        beside: who else speaks on port 80.
        limits: the CA's; empty where they are not known.
        meshed: cert-manager's Pods with Istio's sidecar, ``namespace/name``.
        delegations: where the records of DNS-01 lead.
        scratch: what was tried to be written there.
    """

    acme: Acme = field(default_factory=Acme)
    climbs: tuple[CaaClimb, ...] = ()
    path: tuple[PathAnswer, ...] = ()
    beside: Neighbours = field(default_factory=Neighbours)
    service: Document | None = None
    limits: tuple[Limit, ...] = ()
    orders: tuple[Document, ...] = ()
    meshed: tuple[str, ...] = ()
    delegations: tuple[Delegation, ...] = ()
    scratch: tuple[ScratchRecord, ...] = ()


class Foreseen(NamedTuple):
    """The findings, and what the customer has to set: CAA records beside others, aliases in place of others."""

    findings: tuple[Finding, ...]
    records: tuple[DnsRecord, ...]
    aliases: tuple[DnsRecord, ...] = ()


def acme_of(request: OnboardingRequest, issuer: Document | None, further: Iterable[str] = ()) -> Acme:
    """What the issuer says of its CA. `further`: names in CAA records of a CA that is not known here."""
    spec = ((issuer or {}).get("spec") or {}).get("acme") or {}
    server = str(spec.get("server") or "")
    if not server:
        return Acme()
    solvers = spec.get("solvers") or ()
    return Acme(
        server=server,
        identities=identities_of(server) or tuple(further),
        account=str((((issuer or {}).get("status") or {}).get("acme") or {}).get("uri") or ""),
        methods=tuple((name, _method(name, solvers)) for name in request.hostnames),
    )


def _method(hostname: str, solvers: Sequence[Document]) -> str:
    """By the solver that cert-manager takes; where there is none, which is told elsewhere, by what the name allows."""
    number = explain(hostname, solvers, OWN_LABELS).number
    if number < 0:
        return DNS if hostname.startswith("*.") else HTTP  # RFC 8555, section 8.3
    return DNS if solvers[number].get("dns01") is not None else HTTP


def foreseen(
    request: OnboardingRequest,
    seen: Foresight,
    *,
    addresses: tuple[str, ...],
    certificates: Iterable[Document],
    unresolved: frozenset[str],
    cname_target: str,
    now: datetime,
    delegation_zone: str = "",
) -> Foreseen:
    """Everything that the CA would refuse or stumble over.

    `addresses` are the gateway's. `unresolved`: names that could not be looked up at all, which is said already.
    """
    caa = caa_foreseen(seen.acme, seen.climbs, cname_target)
    delegated = delegation_verdict(seen.delegations, delegation_zone)
    unresolved |= {challenge_record(name) for name in unresolved}
    gateway = f"{request.gateway.namespace}/{request.gateway.service}"
    path = path_verdict(seen.path, addresses, gateway=gateway, source="from here", beside=seen.beside)
    return Foreseen(
        (
            *_not_said_yet((*caa.findings, *delegated.findings), unresolved),
            *(finding for record in seen.scratch for finding in scratch_findings(record)),
            *path.findings,
            *quota_findings(request, seen.limits, orders=seen.orders, certificates=certificates, now=now),
            *_ports(seen.service, gateway),
            *_meshed(seen.meshed),
        ),
        caa.records,
        delegated.records,
    )


def _not_said_yet(found: tuple[Finding, ...], unresolved: frozenset[str]) -> Iterable[Finding]:
    return (one for one in found if one.code not in _UNKNOWN or one.subject not in unresolved)


def caa_foreseen(acme: Acme, climbs: Sequence[CaaClimb], cname_target: str) -> Foreseen:
    """Whether the CA may issue for each name by the method that proves it, and the records to set where it may not."""
    methods = dict(acme.methods)
    verdicts = [
        caa_verdict(
            (climb for climb in climbs if methods.get(climb.hostname, HTTP) == method),
            CaaPolicy(identities=acme.identities, account=acme.account, method=method, target=cname_target),
        )
        for method in (HTTP, DNS)
    ]
    return Foreseen(
        tuple(one for verdict in verdicts for one in verdict.findings),
        tuple(one for verdict in verdicts for one in verdict.records),
    )


def _ports(service: Document | None, gateway: str) -> Iterable[Finding]:
    if service is None:
        return
    open_ports = {entry.get("port") for entry in (service.get("spec") or {}).get("ports") or ()}
    for port, why in _PORTS.items():
        if port not in open_ports:
            yield findings.GATEWAY_PORT_MISSING.found(
                subject=f"Service {gateway}",
                problem=f"It has no port {port}, {why}.",
                fix=f"kubectl edit service -n {gateway.replace('/', ' ')}; add port {port} of the gateway's Pods.",
            )


def _meshed(pods: tuple[str, ...]) -> Iterable[Finding]:
    if pods:
        namespace = pods[0].partition("/")[0]
        yield findings.CERT_MANAGER_IN_MESH.found(
            subject=f"Pod {pods[0]}",
            problem="cert-manager runs with Istio's sidecar, which breaks its webhook and its look at port 80.",
            fix=f"kubectl label namespace {namespace} istio-injection=disabled --overwrite; kubectl rollout restart "
            f"deployment -n {namespace}",
        )


def in_mesh(pod: Document) -> bool:
    """Whether a Pod carries Istio's sidecar, as a container or as a native one among its init containers."""
    spec = pod.get("spec") or {}
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    return any(container.get("name") == "istio-proxy" for container in containers)


def kept_out(deployment: Document) -> bool:
    """Whether a Deployment's Pods say that they want no sidecar, so that nobody needs to look at them."""
    metadata = ((deployment.get("spec") or {}).get("template") or {}).get("metadata") or {}
    marks = {**(metadata.get("annotations") or {}), **(metadata.get("labels") or {})}
    return marks.get(_NO_SIDECAR) == "false"
