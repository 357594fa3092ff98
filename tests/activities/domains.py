"""What the tests of a domain's activities share: requests under one zone, and activities run as a worker would.

Each test file has names of its own, since one lab is shared by all.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
from temporalio.testing import ActivityEnvironment

from activities.edge import EdgeSettings
from activities.preflight import PreflightSettings
from lab.cluster import GATEWAY_ADDRESSES, Lab
from lifecycle import issuers, manifests
from lifecycle.domain import IssuerRef, OnboardingRequest, Route
from lifecycle.steps import CertificateTarget, IssuerRequest

A = TypeVar("A")
R = TypeVar("R")

ISSUER = IssuerRef(name="h1-pebble")
ROUTES = (
    Route(prefix="/", service="frontend-service", port=80),
    Route(prefix="/api", service="api-service", port=8080),
)


def request(*hostnames: str) -> OnboardingRequest:
    """A request for names that lie in the zone h1.test."""
    return OnboardingRequest(tenant="acme", hostnames=hostnames, issuer=ISSUER, routes=ROUTES)


def target(*hostnames: str, previous: str = "") -> CertificateTarget:
    """The same as most activities take it."""
    return CertificateTarget(request=request(*hostnames), previous_fingerprint=previous)


def point_here(lab: Lab, *hostnames: str, addresses: tuple[str, ...] = GATEWAY_ADDRESSES) -> None:
    """The customers set their records."""
    lab.dns.add_zone("h1.test")
    for hostname in hostnames:
        lab.dns.set(hostname, "A", addresses)


async def issuer(lab: Lab, ref: IssuerRef = ISSUER, *, rehearsal: str = "") -> None:
    """A ClusterIssuer of these tests, with an account of its own; `rehearsal` as its annotation has it."""
    wanted = IssuerRequest(ref=ref, server=lab.acme_directory, ca_bundle=lab.acme_ca.read_text())
    document = manifests.acme_issuer(wanted)
    if rehearsal:
        document["metadata"]["annotations"] = {issuers.REHEARSAL_ANNOTATION: rehearsal}
    await lab.apply_when_answered(document)
    await lab.until(
        "/apis/cert-manager.io/v1/clusterissuers",
        lambda item: (
            item["metadata"]["name"] == ref.name
            and any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for condition in (item.get("status") or {}).get("conditions") or []
            )
        ),
    )


async def edge_settings(lab: Lab) -> EdgeSettings:
    """How the lab's edge is reached, and the root of its CA."""
    trust = ssl.create_default_context(cafile=str(lab.acme_ca))
    async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
        root = (await client.get(f"{lab.acme_management}/roots/0")).content
    return EdgeSettings(
        roots_pem=root, http_port=lab.http_port, https_port=lab.https_port, allowed_networks=("127.0.0.0/8",)
    )


def preflight_settings(lab: Lab, **more: Any) -> PreflightSettings:
    """How the lab's customers' names are looked up."""
    return PreflightSettings(
        **{
            "nameservers": (lab.dns_address,),
            "timeout_seconds": 1.0,
            "http_port": lab.http_port,
            "http_timeout_seconds": 1.0,
            "allowed_networks": ("127.0.0.0/8",),
            "authority_port": int(lab.dns_address.rpartition(":")[2]),
            **more,
        }
    )


async def run(
    work: Callable[[A], Awaitable[R]],
    argument: A,
    *,
    environment: ActivityEnvironment | None = None,
    seconds: float = 60,
) -> R:
    """One activity as a worker would run it."""
    environment = environment or ActivityEnvironment()
    async with asyncio.timeout(seconds):
        result: Any = await environment.run(work, argument)
        return result  # type: ignore[no-any-return]


class Heard:
    """An environment that keeps what was heartbeaten, and tells when certain words come."""

    def __init__(self) -> None:
        self.environment = ActivityEnvironment()
        self.words: list[str] = []
        self.environment.on_heartbeat = lambda *details: self.words.append(str(details[0]))

    async def until(self, part: str, *, seconds: float = 30) -> None:
        """Wait until words with this part were heartbeaten."""
        async with asyncio.timeout(seconds):
            while not any(part in words for words in self.words):  # noqa: ASYNC110 - heartbeats are no event
                await asyncio.sleep(0.05)
