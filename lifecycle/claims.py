"""Who else claims a domain's names, Secret or objects in the cluster?

Ours is what carries the domain's annotation. Istio merges the Gateways of one workload, so a second one for the same
host makes two answers of one name (Istio analysis: IST0138 and "MultipleGateways"). Left out: whose the name is among
our customers (the workflow's id decides that), and reading the objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lifecycle import findings, names
from lifecycle.domain import OnboardingRequest
from lifecycle.findings import Finding
from lifecycle.manifests import DOMAIN_ANNOTATION

Document = Mapping[str, Any]


def is_ours(document: Document, request: OnboardingRequest) -> bool:
    """Whether an object was made for this domain."""
    return bool((document["metadata"].get("annotations") or {}).get(DOMAIN_ANNOTATION) == request.hostname)


def object_collision(document: Document | None, request: OnboardingRequest) -> Finding | None:
    """Whether an object with one of the domain's names is somebody else's, and must not be overwritten."""
    if document is None or is_ours(document, request):
        return None
    kind, where = document["kind"], _place(document)
    made = findings.SECRET_COLLISION if kind == "Secret" else findings.NAME_ON_OTHER_GATEWAY
    return made.found(
        subject=f"{kind} {where}",
        problem=f"It has the name that the {kind} of {request.hostname} needs, and was not made by certwright.",
        fix=f"kubectl delete {kind.lower()} -n {where.replace('/', ' ')}, or rename it.",
    )


def other_claims(
    request: OnboardingRequest,
    *,
    certificates: Iterable[Document] = (),
    gateways: Iterable[Document] = (),
    virtual_services: Iterable[Document] = (),
) -> tuple[Finding, ...]:
    """A finding for each object of somebody else that claims one of the domain's names or its Secret."""
    other_gateways = [one for one in gateways if not is_ours(one, request)]
    elsewhere = {_place(one) for one in other_gateways if not same_workload(one, request)}
    return (
        *(finding for one in certificates if not is_ours(one, request) for finding in _certificate(one, request)),
        *(
            _claimed(one, request, hosts)
            for one in other_gateways
            if same_workload(one, request) and (hosts := gateway_hosts(one) & set(request.hostnames))
        ),
        *(
            _claimed(one, request, hosts)
            for one in virtual_services
            if not is_ours(one, request)
            and (hosts := set(one["spec"].get("hosts") or ()) & set(request.hostnames))
            and set(_referenced(one)) - elsewhere
        ),
    )


def _certificate(document: Document, request: OnboardingRequest) -> Iterable[Finding]:
    where, spec = _place(document), document["spec"]
    in_namespace = document["metadata"].get("namespace") == request.gateway.namespace
    if in_namespace and spec.get("secretName") == names.secret_name(request.hostname):
        yield findings.SECRET_COLLISION.found(
            subject=f"Certificate {where}",
            problem=f"It writes to Secret {request.gateway.namespace}/{spec['secretName']}, which this domain needs.",
            fix=f"Give it another secretName: kubectl edit certificate -n {where.replace('/', ' ')}",
        )
    hosts = set(spec.get("dnsNames") or ()) & set(request.hostnames)
    if hosts:
        yield findings.NAME_ON_OTHER_CERTIFICATE.found(
            subject=f"Certificate {where}",
            problem=f"It asks for {', '.join(sorted(hosts))} too: both count against the CA's limits.",
            fix=f"Where nobody needs it: kubectl delete certificate -n {where.replace('/', ' ')}",
        )


def _claimed(document: Document, request: OnboardingRequest, hosts: set[str]) -> Finding:
    where, kind = _place(document), document["kind"]
    group = str(document.get("apiVersion", "networking.istio.io/v1")).partition("/")[0]
    return findings.NAME_ON_OTHER_GATEWAY.found(
        subject=f"{kind} {where}",
        problem=f"It claims {', '.join(sorted(hosts))} on the same gateway.",
        fix=f"Take the host out of it: kubectl edit {kind.lower()}.{group} -n {where.replace('/', ' ')}",
    )


def same_workload(gateway: Document, request: OnboardingRequest) -> bool:
    """One selector is part of the other: some Pod may carry both (an empty one selects every gateway).

    A Gateway API's names the Service instead; without an address it has a workload of its own.
    """
    if "listeners" in gateway["spec"]:
        target = request.gateway
        ours = f"{target.service}.{target.namespace}.svc"
        return any(str(one.get("value", "")).startswith(ours) for one in gateway["spec"].get("addresses") or ())
    theirs = set((gateway["spec"].get("selector") or {}).items())
    labels = set(request.gateway.selector)
    return theirs <= labels or labels <= theirs


def gateway_hosts(gateway: Document) -> set[str]:
    """A host may name the namespace it is for: ``ns/host`` (Istio reference: Server.hosts)."""
    if "listeners" in gateway["spec"]:
        return {str(one.get("hostname", "*")).lower() for one in gateway["spec"]["listeners"]}
    return {
        host.rpartition("/")[2].lower()
        for server in gateway["spec"].get("servers") or ()
        for host in server.get("hosts") or ()
    }


def _referenced(virtual_service: Document) -> Iterable[str]:
    """The Gateways by ``namespace/name``; ``mesh`` means sidecars, which no customer talks to."""
    namespace = virtual_service["metadata"].get("namespace", "")
    for name in virtual_service["spec"].get("gateways") or ():
        if name != "mesh":
            yield name if "/" in name else f"{namespace}/{name}"


def _place(document: Document) -> str:
    return f"{document['metadata'].get('namespace', '')}/{document['metadata']['name']}"
