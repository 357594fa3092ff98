"""Which objects put a domain on its gateway? Istio's own or the Gateway API's, by the kind of the target.

Whoever applies or removes them asks here and needs no knowledge of either. Left out: what is in them
(`lifecycle.manifests`, `lifecycle.gateway_api`).
"""

from __future__ import annotations

from typing import NamedTuple

from lifecycle import gateway_api, manifests, names
from lifecycle.domain import GatewayKind, OnboardingRequest
from lifecycle.manifests import ChallengeRoute, Manifest

ISTIO = "networking.istio.io/v1"


class Place(NamedTuple):
    """Where an object of ours lies."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def place(manifest: Manifest) -> Place:
    """Where an object lies."""
    metadata = manifest["metadata"]
    return Place(manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"])


def _by_gateway_api(request: OnboardingRequest) -> bool:
    return request.gateway.kind is GatewayKind.GATEWAY_API


def gateway(request: OnboardingRequest, *, https: bool) -> Manifest:
    """The Gateway: port 80 for challenges and the redirect; with `https` also port 443."""
    if _by_gateway_api(request):
        return gateway_api.gateway(request, https=https)
    return manifests.gateway(request, https=https)


def gateway_place(request: OnboardingRequest) -> Place:
    """Where the Gateway lies."""
    return place(gateway(request, https=False))


def routes(request: OnboardingRequest) -> tuple[Manifest, ...]:
    """The domain's routes and the redirect, with what they need; to be applied before the Gateway's port 443."""
    if _by_gateway_api(request):
        return gateway_api.routes(request)
    return (manifests.virtual_service(request),)


def challenge_routes(request: OnboardingRequest, challenges: tuple[ChallengeRoute, ...]) -> tuple[Manifest, ...]:
    """The routes that exist only while challenges do; none without a challenge."""
    if not challenges:
        return ()
    if _by_gateway_api(request):
        return gateway_api.challenge_routes(request, challenges)
    return (manifests.challenge_route(request, challenges),)


def challenge_places(request: OnboardingRequest) -> tuple[Place, ...]:
    """Where routes of challenges may lie."""
    namespace = request.gateway.namespace
    if _by_gateway_api(request):
        parts = range(-(-len(request.hostnames) // gateway_api.MAX_RULES))
        ours = (gateway_api.challenge_route_name(request, number) for number in parts)
        return tuple(Place(gateway_api.VERSION, "HTTPRoute", namespace, name) for name in ours)
    return (Place(ISTIO, "VirtualService", namespace, names.challenge_route_name(request.hostname)),)
