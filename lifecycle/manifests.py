"""What do we apply? The Kubernetes objects of an issuer and of a domain, as plain documents.

Objects are made here from a request alone, so that they stay out of workflow histories, and asking twice makes the
same object. The guide's forms are corrected: the HTTP redirect is the VirtualService's catch-all, since
`httpsRedirect` on a Gateway swallows challenges; the challenge route names the solver's own Service; the Certificate
lies in the gateway workload's namespace, since SDS serves no other. Left out: applying them, and issuers by their
whole spec (`lifecycle.issuers`).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from lifecycle import names
from lifecycle.certificate_manifests import annotated, certificate_spec
from lifecycle.domain import Hsts, IssuerKind, OnboardingRequest, Route
from lifecycle.steps import IssuerRequest

Manifest = dict[str, Any]

FIELD_MANAGER = "certwright"
"""The one field manager of every server-side apply (Kubernetes: "Server-Side Apply")."""

CHALLENGE_PATH = "/.well-known/acme-challenge/"
"""RFC 8555, section 8.3."""

HSTS_HEADER = "Strict-Transport-Security"
"""RFC 6797, section 6.1."""

DOMAIN_ANNOTATION = "certwright.dev/domain"
TENANT_ANNOTATION = "certwright.dev/tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeRoute:
    """One HTTP-01 challenge: requests to `hostname` for `token` go to the solver's Service."""

    hostname: str
    token: str
    service: str
    namespace: str
    port: int = 8089


def metadata(request: OnboardingRequest, name: str) -> Manifest:
    return {
        "name": name,
        "namespace": request.gateway.namespace,
        "labels": {"app.kubernetes.io/managed-by": "certwright"},
        "annotations": {DOMAIN_ANNOTATION: request.hostname, TENANT_ANNOTATION: request.tenant},
    }


def certificate(request: OnboardingRequest) -> Manifest:
    """The Certificate (cert-manager.io/v1), in the gateway's namespace."""
    spec = certificate_spec(request)
    made: Manifest = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": metadata(request, names.certificate_name(request.hostname)),
        "spec": spec,
    }
    return annotated(request, made)


def gateway(request: OnboardingRequest, *, https: bool) -> Manifest:
    """The Istio Gateway: port 80 for challenges and the redirect; with `https` also port 443 with the Secret."""
    hosts = list(request.hostnames)
    servers: list[Manifest] = [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": hosts}]
    if https and request.tls.terminates:
        port = {"number": 443, "name": "https", "protocol": "HTTPS"}
        servers.append({"port": port, "hosts": hosts, "tls": _tls(request)})
    elif https:
        port = {"number": 443, "name": "tls", "protocol": "TLS"}
        servers.append({"port": port, "hosts": hosts, "tls": {"mode": "PASSTHROUGH"}})
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": metadata(request, names.gateway_name(request.hostname)),
        "spec": {"selector": dict(request.gateway.selector), "servers": servers},
    }


def _tls(request: OnboardingRequest) -> Manifest:
    """Never `caCertificates`: beside a credentialName it is not read, and the guide's file is in no gateway."""
    wanted = request.tls
    tls: Manifest = {
        "mode": wanted.mode.value,
        "credentialName": names.secret_name(request.hostname),
        "minProtocolVersion": wanted.min_protocol.value,
    }
    if wanted.max_protocol:
        tls["maxProtocolVersion"] = wanted.max_protocol.value
    if wanted.ciphers:
        tls["cipherSuites"] = list(wanted.ciphers)
    if wanted.client_ca:
        # istiod takes a name for a CA's only where it ends so, and looks for the Secret without the ending too;
        # by the bare name it would serve no CA, and the gateway end every handshake (measured, Istio 1.31)
        tls["caCertCredentialName"] = names.client_ca_name(wanted.client_ca)
    return tls


def virtual_service(request: OnboardingRequest) -> Manifest:
    """The domain's routes on port 443, the nearest first, and the redirect as catch-all of port 80."""
    redirect: Manifest = {
        "name": "to-https",
        "match": [{"port": 80}],
        # the redirect's port is HTTPS's own, whatever port the client dialled
        "redirect": {"scheme": "https", "derivePort": "FROM_PROTOCOL_DEFAULT", "redirectCode": 301},
    }
    name = names.virtual_service_name(request.hostname)
    if not request.tls.terminates:
        made = _virtual_service(request, name, [redirect])
        match = {"port": 443, "sniHosts": list(request.hostnames)}
        made["spec"]["tls"] = [{"match": [match], "route": _destinations(request.routes[0])}]
        return made
    return _virtual_service(request, name, [redirect, *(_route(route, request.hsts) for route in in_order(request))])


def in_order(request: OnboardingRequest) -> tuple[Route, ...]:
    """The nearest match first, as the Gateway API orders them: longest path, exact ones first, then most headers.

    Istio takes the first that matches (VirtualService.http).
    """

    def nearness(route: Route) -> tuple[int, bool, int, str, str]:
        return -len(route.prefix), not route.exact, -len(route.headers), route.prefix, repr(route.headers)

    return tuple(sorted(request.routes, key=nearness))


def _route(route: Route, hsts: Hsts | None) -> Manifest:
    entry: Manifest = {"route": _destinations(route)}
    prefix = route.prefix.rstrip("/")
    common: Manifest = {"port": 443}
    if route.headers:
        common["headers"] = {header.name: {"exact": header.value} for header in route.headers}
    if route.exact:
        entry["match"] = [{**common, "uri": {"exact": route.prefix}}]
    elif not prefix:
        entry["match"] = [common]
    else:
        # "/api" and what lies under it, but not "/apiary"
        entry["match"] = [
            {**common, "uri": {"exact": prefix}},
            {**common, "uri": {"prefix": f"{prefix}/"}},
        ]
    if route.timeout_seconds:
        entry["timeout"] = f"{route.timeout_seconds:g}s"
    if hsts is not None:
        # on port 443 only: over HTTP the header must not be sent (RFC 6797, section 7.2)
        entry["headers"] = {"response": {"set": {HSTS_HEADER: hsts.header}}}
    return entry


def _destinations(route: Route) -> list[Manifest]:
    found: list[Manifest] = [
        {"destination": {"host": f"{one.service}.{one.namespace}.svc.cluster.local", "port": {"number": one.port}}}
        for one in route.backends
    ]
    if len(found) > 1:
        for made, one in zip(found, route.backends, strict=True):
            made["weight"] = one.weight
    return found


def challenge_route(request: OnboardingRequest, challenges: tuple[ChallengeRoute, ...]) -> Manifest:
    """The VirtualService that exists only while challenges do: one exact path for each."""
    entries = [
        {
            "match": [
                {
                    "port": 80,
                    "authority": {"regex": _host_pattern(challenge.hostname)},
                    "uri": {"exact": CHALLENGE_PATH + challenge.token},
                }
            ],
            "route": [
                {
                    "destination": {
                        "host": f"{challenge.service}.{challenge.namespace}.svc.cluster.local",
                        "port": {"number": challenge.port},
                    }
                }
            ],
        }
        for challenge in sorted(challenges, key=lambda challenge: (challenge.hostname, challenge.token))
    ]
    return _virtual_service(request, names.challenge_route_name(request.hostname), entries)


def _host_pattern(hostname: str) -> str:
    """The Host header is the name, with or without a port (RFC 9110, section 7.2); RE2 syntax."""
    return "(?i)" + hostname.replace(".", r"\.") + r"(:\d+)?"


def _virtual_service(request: OnboardingRequest, name: str, http: list[Manifest]) -> Manifest:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": metadata(request, name),
        "spec": {
            "hosts": list(request.hostnames),
            "gateways": [f"{request.gateway.namespace}/{names.gateway_name(request.hostname)}"],
            "http": http,
        },
    }


def acme_issuer(request: IssuerRequest) -> Manifest:
    """An Issuer or ClusterIssuer for ACME with one HTTP-01 solver, whose challenges Istio routes."""
    ref = request.ref
    acme: Manifest = {
        "server": request.server,
        "privateKeySecretRef": {"name": request.account_secret or f"{ref.name}-account"},
        # the solver's Ingress has a class that nobody serves: the VirtualService is the way to the solver
        "solvers": [{"http01": {"ingress": {"ingressClassName": "certwright-none", "serviceType": "ClusterIP"}}}],
    }
    if request.email:
        acme["email"] = request.email
    if request.profile:
        acme["profile"] = request.profile
    if request.ca_bundle:
        acme["caBundle"] = _base64(request.ca_bundle)
    metadata: Manifest = {"name": ref.name, "labels": {"app.kubernetes.io/managed-by": "certwright"}}
    if ref.kind is IssuerKind.ISSUER:
        metadata["namespace"] = ref.namespace
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": ref.kind.value,
        "metadata": metadata,
        "spec": {"acme": acme},
    }


def _base64(pem: str) -> str:
    return base64.b64encode(pem.encode()).decode("ascii")
