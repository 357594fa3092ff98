"""The shapes in which a domain can be put on its gateway, for the tests of what is applied."""

from __future__ import annotations

import dataclasses

from lifecycle import targets
from lifecycle.domain import (
    Backend,
    GatewayKind,
    GatewayTarget,
    HeaderMatch,
    Hsts,
    IssuerRef,
    OnboardingRequest,
    Route,
    TlsMode,
    TlsSettings,
    TlsVersion,
)
from lifecycle.manifests import ChallengeRoute, Manifest

PLAIN = OnboardingRequest(
    tenant="acme",
    hostnames=("shop.example.com", "www.shop.example.com"),
    issuer=IssuerRef(name="letsencrypt"),
    routes=(
        Route(prefix="/", service="frontend-service", port=80),
        Route(prefix="/api", service="api-service", port=8080, namespace="shop"),
    ),
)
ROUTES = (
    *PLAIN.routes,
    Route(prefix="/api", service="api-v2", port=8080, namespace="shop", headers=(HeaderMatch(name="x-v", value="2"),)),
    Route(prefix="/status", service="frontend-service", port=80, exact=True, timeout_seconds=0.5),
    Route(
        prefix="/shared",
        service="frontend-service",
        port=80,
        weight=90,
        others=(Backend(service="api-service", port=8080, namespace="shop", weight=10),),
        timeout_seconds=5,
    ),
)
BEHIND = Route(prefix="/", service="tls-service", port=8443, namespace="istio-system")
YEAR = Hsts(max_age_seconds=31_536_000, include_subdomains=True, preload=True)
CA = "clients-ca"


def _tls(**settings: object) -> OnboardingRequest:
    return dataclasses.replace(PLAIN, tls=TlsSettings(**settings))  # type: ignore[arg-type]


_ISTIO = {
    "simple": PLAIN,
    "routes-hsts": dataclasses.replace(PLAIN, routes=ROUTES, hsts=YEAR),
    "mutual": _tls(mode=TlsMode.MUTUAL),
    "mutual-named-ca": _tls(mode=TlsMode.MUTUAL, client_ca=CA),
    "optional-mutual": _tls(mode=TlsMode.OPTIONAL_MUTUAL, client_ca=CA),
    "ciphers": _tls(ciphers=("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384")),
    "passthrough": dataclasses.replace(_tls(mode=TlsMode.PASSTHROUGH), routes=(BEHIND,)),
    "wildcard": dataclasses.replace(PLAIN, hostnames=("*.shop.example.com", "shop.example.com")),
}
_PROTOCOLS = {
    "newest-protocol": _tls(min_protocol=TlsVersion.TLSV1_3),
    "older-protocol": _tls(max_protocol=TlsVersion.TLSV1_2),
}
SHAPES: dict[str, OnboardingRequest] = {
    **{f"istio-{name}": request for name, request in (_ISTIO | _PROTOCOLS).items()},
    **{
        f"gateway-api-{name}": dataclasses.replace(request, gateway=GatewayTarget(kind=GatewayKind.GATEWAY_API))
        for name, request in _ISTIO.items()
    },
}


def challenges(request: OnboardingRequest) -> tuple[ChallengeRoute, ...]:
    """One for each name."""
    return tuple(
        ChallengeRoute(hostname=hostname, token=f"token-{index}", service=f"cm-acme-{index}", namespace="istio-system")
        for index, hostname in enumerate(request.hostnames)
    )


def documents(name: str) -> tuple[Manifest, ...]:
    """All objects of a shape, as while a renewal's challenges are there."""
    request = SHAPES[name]
    challenged = () if name.endswith("wildcard") else challenges(request)
    return (
        targets.gateway(request, https=True),
        *targets.routes(request),
        *targets.challenge_routes(request, challenged),
    )
