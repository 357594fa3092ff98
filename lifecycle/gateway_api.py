"""What do we apply where the gateway is told by the Gateway API? Its Gateway, HTTPRoutes and ReferenceGrants.

The same workload serves it: a Gateway of class istio whose address is the Hostname of the gateway's Service deploys
nothing new (Istio: "Kubernetes Gateway API", manual deployment). Routes name no hostnames, since those of the
listeners they attach to are the domain's own, and an HTTPRoute may name 16 only. Left out: what Istio does not read
from these objects (minimum and maximum protocol), which is refused before (`lifecycle.gateway_requests`).
"""

from __future__ import annotations

from collections import defaultdict

from lifecycle import names
from lifecycle.domain import OnboardingRequest, Route, TlsMode
from lifecycle.manifests import CHALLENGE_PATH, HSTS_HEADER, ChallengeRoute, Manifest, in_order, metadata

GROUP = "gateway.networking.k8s.io"
VERSION = f"{GROUP}/v1"
GRANT_VERSION = f"{GROUP}/v1beta1"

MAX_NAMES = 32
"""A Gateway has at most 64 listeners (its CRD), and each name takes one for HTTP and one for HTTPS."""

MAX_RULES = 16
"""Of an HTTPRoute (its CRD); also the Services that one ReferenceGrant opens."""

CHALLENGE_ROUTES = MAX_NAMES // MAX_RULES

_MODE = "gateway.istio.io/tls-terminate-mode"
_CIPHERS = "gateway.istio.io/tls-cipher-suites"
"""Istio's own options of a listener's TLS (Istio: "Kubernetes Gateway API", TLS options)."""


def gateway(request: OnboardingRequest, *, https: bool) -> Manifest:
    """The Gateway: a listener on port 80 for each name; with `https` also one on 443 with the Secret."""
    target = request.gateway
    listeners: list[Manifest] = [
        {"name": f"http-{index}", "port": 80, "protocol": "HTTP", "hostname": hostname}
        for index, hostname in enumerate(request.hostnames)
    ]
    spec: Manifest = {
        "gatewayClassName": target.gateway_class,
        "addresses": [{"type": "Hostname", "value": f"{target.service}.{target.namespace}.svc.cluster.local"}],
        "listeners": listeners,
    }
    if https:
        listeners += [
            {
                "name": f"https-{index}",
                "port": 443,
                "protocol": "HTTPS" if request.tls.terminates else "TLS",
                "hostname": hostname,
                "tls": _tls(request),
            }
            for index, hostname in enumerate(request.hostnames)
        ]
        if request.tls.client_ca:
            reference = {"group": "", "kind": "Secret", "name": request.tls.client_ca}
            spec["tls"] = {"frontend": {"default": {"validation": {"caCertificateRefs": [reference]}}}}
    return {
        "apiVersion": VERSION,
        "kind": "Gateway",
        "metadata": metadata(request, names.gateway_name(request.hostname)),
        "spec": spec,
    }


def _tls(request: OnboardingRequest) -> Manifest:
    if not request.tls.terminates:
        return {"mode": "Passthrough"}
    tls: Manifest = {"mode": "Terminate", "certificateRefs": [{"name": names.secret_name(request.hostname)}]}
    options = {}
    if request.tls.mode is not TlsMode.SIMPLE:
        options[_MODE] = request.tls.mode.value
    if request.tls.ciphers:
        options[_CIPHERS] = ",".join(request.tls.ciphers)
    if options:
        tls["options"] = options
    return tls


def routes(request: OnboardingRequest) -> tuple[Manifest, ...]:
    """The domain's routes on port 443, the redirect of port 80, and what opens other namespaces' Services to them."""
    redirect: Manifest = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}],
    }
    if request.tls.terminates:
        rules = [_rule(route, request) for route in in_order(request)]
        served = _http_route(request, names.virtual_service_name(request.hostname), 443, rules)
    else:
        served = _tls_route(request)
    return (
        *_grants(request),
        served,
        _http_route(request, names.redirect_route_name(request.hostname), 80, [redirect]),
    )


def _rule(route: Route, request: OnboardingRequest) -> Manifest:
    match: Manifest = {"path": {"type": "Exact" if route.exact else "PathPrefix", "value": route.prefix}}
    if route.headers:
        match["headers"] = [{"type": "Exact", "name": one.name, "value": one.value} for one in route.headers]
    rule: Manifest = {"matches": [match], "backendRefs": _backends(route, request)}
    if request.hsts is not None:
        header = {"name": HSTS_HEADER, "value": request.hsts.header}
        rule["filters"] = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [header]}}]
    if route.timeout_seconds:
        # GEP-2257 has no fractions
        rule["timeouts"] = {"request": f"{round(route.timeout_seconds * 1000)}ms"}
    return rule


def _backends(route: Route, request: OnboardingRequest) -> list[Manifest]:
    return [
        {
            "name": one.service,
            "port": one.port,
            "weight": one.weight,
            **({"namespace": one.namespace} if one.namespace != request.gateway.namespace else {}),
        }
        for one in route.backends
    ]


def _grants(request: OnboardingRequest) -> tuple[Manifest, ...]:
    """One for each namespace that routes lead to: without it they may not (Gateway API: ReferenceGrant)."""
    opened: dict[str, set[str]] = defaultdict(set)
    for route in request.routes:
        for one in route.backends:
            if one.namespace != request.gateway.namespace:
                opened[one.namespace].add(one.service)
    kind = "HTTPRoute" if request.tls.terminates else "TLSRoute"
    return tuple(
        {
            "apiVersion": GRANT_VERSION,
            "kind": "ReferenceGrant",
            "metadata": {
                **metadata(request, names.gateway_name(request.hostname)),
                "namespace": namespace,
            },
            "spec": {
                "from": [{"group": GROUP, "kind": kind, "namespace": request.gateway.namespace}],
                "to": [{"group": "", "kind": "Service", "name": service} for service in sorted(services)],
            },
        }
        for namespace, services in sorted(opened.items())
    )


def challenge_routes(request: OnboardingRequest, challenges: tuple[ChallengeRoute, ...]) -> tuple[Manifest, ...]:
    """The HTTPRoutes that exist only while challenges do: one exact path for each, `MAX_RULES` in a route."""
    rules: list[Manifest] = [
        {
            "matches": [{"path": {"type": "Exact", "value": CHALLENGE_PATH + challenge.token}}],
            "backendRefs": [{"name": challenge.service, "port": challenge.port}],
        }
        for challenge in sorted(challenges, key=lambda challenge: (challenge.hostname, challenge.token))
    ]
    parts = [rules[start : start + MAX_RULES] for start in range(0, len(rules), MAX_RULES)]
    return tuple(
        _http_route(request, challenge_route_name(request, number), 80, part) for number, part in enumerate(parts)
    )


def challenge_route_name(request: OnboardingRequest, number: int) -> str:
    """The name of one of the routes of challenges; `number` from 0 to `CHALLENGE_ROUTES` - 1."""
    name = names.challenge_route_name(request.hostname)
    return f"{name}-{number + 1}" if number else name


def _parent(request: OnboardingRequest, port: int) -> Manifest:
    return {"group": GROUP, "kind": "Gateway", "name": names.gateway_name(request.hostname), "port": port}


def _http_route(request: OnboardingRequest, name: str, port: int, rules: list[Manifest]) -> Manifest:
    return {
        "apiVersion": VERSION,
        "kind": "HTTPRoute",
        "metadata": metadata(request, name),
        "spec": {"parentRefs": [_parent(request, port)], "rules": rules},
    }


def _tls_route(request: OnboardingRequest) -> Manifest:
    return {
        "apiVersion": VERSION,
        "kind": "TLSRoute",
        "metadata": metadata(request, names.virtual_service_name(request.hostname)),
        "spec": {
            "parentRefs": [_parent(request, 443)],
            "hostnames": list(request.hostnames),
            "rules": [{"backendRefs": _backends(request.routes[0], request)}],
        },
    }
