"""Get a domain's certificate: apply it, route its challenges through Istio, wait for it, take it away.

One activity watches everything that an issuance moves and returns at the first decisive change. Killed and started
again it takes up what the cluster shows, since every object's name derives from the domain. Left out: whether the
certificate may be ordered, and what a failure means.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from lifecycle import issuance, manifests, names, x509
from lifecycle.diagnosis import said
from lifecycle.domain import CertificateFacts, Observation, OnboardingRequest
from lifecycle.findings import Finding
from lifecycle.issuance import Progress
from lifecycle.manifests import ChallengeRoute, Manifest
from lifecycle.steps import CertificateTarget, Cleanup, IssuanceResult

CERT_MANAGER = "cert-manager.io/v1"
ACME = "acme.cert-manager.io/v1"
ISTIO = "networking.istio.io/v1"
_HEARTBEAT_SECONDS = 2.0
_MOST_EVIDENCE = 20


class CertificateActivities:
    """Activities on Certificates and their challenges, given the cluster's client."""

    def __init__(self, cluster: DynamicClient) -> None:
        self._cluster = cluster

    @activity.defn
    async def apply_certificate(self, target: CertificateTarget) -> IssuanceResult:
        """Apply the Gateway's port 80, which challenges need, then the Certificate. Raises ApplicationError."""
        await kubernetes.apply(self._cluster, manifests.gateway(target.request, https=False))
        await kubernetes.apply(self._cluster, manifests.certificate(target.request))
        return IssuanceResult(ready=False)

    @activity.defn
    async def await_certificate(self, target: CertificateTarget) -> IssuanceResult:
        """Watch until a new certificate is in the Secret, or cert-manager gave up; route challenges meanwhile.

        Heartbeats say in words what is waited for. Raises ApplicationError where the cluster refuses.
        """
        watching = _Issuance(self._cluster, target)
        try:
            return await watching.run()
        finally:
            await watching.close()

    @activity.defn
    async def remove_certificate(self, target: CertificateTarget) -> Cleanup:
        """Delete what an issuance made, the Secret last. Raises ApplicationError."""
        hostname, namespace = target.request.hostname, target.request.gateway.namespace
        gone = []
        for api_version, kind, name in (
            (ISTIO, "VirtualService", names.challenge_route_name(hostname)),
            (CERT_MANAGER, "Certificate", names.certificate_name(hostname)),
            (ISTIO, "Gateway", names.gateway_name(hostname)),
            ("v1", "Secret", names.secret_name(hostname)),
        ):
            if await kubernetes.remove(self._cluster, api_version, kind, namespace, name):
                gone.append(f"{kind} {namespace}/{name}")
        return Cleanup(removed=tuple(gone))


async def read_secret(
    cluster: DynamicClient, request: OnboardingRequest
) -> tuple[CertificateFacts | None, tuple[Finding, ...]]:
    """The facts of a domain's TLS Secret and what is wrong with it; no bytes leave. Raises ApplicationError."""
    name = names.secret_name(request.hostname)
    subject = f"Secret {request.gateway.namespace}/{name}"
    secret = await kubernetes.read(cluster, "v1", "Secret", request.gateway.namespace, name)
    data = (secret or {}).get("data") or {}
    if "tls.crt" not in data or "tls.key" not in data:
        return None, ()
    chain, key = (base64.b64decode(data[part]) for part in ("tls.crt", "tls.key"))
    return x509.secret_findings(chain, key, request.hostnames, subject=subject, now=datetime.now(UTC))


class _Issuance:
    """One issuance as it is watched: the Certificate, its Challenges, and the route they need."""

    def __init__(self, cluster: DynamicClient, target: CertificateTarget) -> None:
        self._cluster = cluster
        self._target = target
        self._request = target.request
        self._namespace = target.request.gateway.namespace
        self._events: asyncio.Queue[tuple[str, Manifest]] = asyncio.Queue()
        self._routes: dict[str, ChallengeRoute] = {}
        self._routed: tuple[ChallengeRoute, ...] | None = None
        self._order = ""
        self._evidence: list[Observation] = []
        self._words = "waiting for cert-manager to look at the Certificate"
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> IssuanceResult:
        name = names.certificate_name(self._request.hostname)
        follow = kubernetes.follow
        self._watch(follow(self._cluster, CERT_MANAGER, "Certificate", self._namespace, name=name))
        self._watch(follow(self._cluster, ACME, "Challenge", self._namespace))
        while True:
            activity.heartbeat(self._words)
            if activity.is_worker_shutdown():
                raise ApplicationError("the worker is shutting down; another one goes on watching")
            try:
                change, item = await asyncio.wait_for(self._events.get(), _HEARTBEAT_SECONDS)
            except TimeoutError:
                continue
            if item["kind"] == "Certificate":
                result = await self._certificate(item)
                if result is not None:
                    return result
            elif item["spec"]["dnsName"] in self._request.hostnames:
                await self._challenge(change, item)

    async def close(self) -> None:
        """Stop watching. The route stays while challenges do: whoever tries again needs it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _watch(self, events: AsyncIterator[tuple[str, Manifest]]) -> None:
        async def pass_on() -> None:
            async for event in events:
                self._events.put_nowait(event)

        self._tasks.append(asyncio.create_task(pass_on()))

    def _saw(self, step: str, detail: str) -> None:
        detail = said(detail)  # a failed self-check quotes its URL, token and all
        self._words = f"{step}: {detail}" if detail else step
        entry = Observation(at=datetime.now(UTC), step=step, detail=detail)
        if len(self._evidence) < _MOST_EVIDENCE and all(
            (step, detail) != (seen.step, seen.detail) for seen in self._evidence
        ):
            self._evidence.append(entry)

    async def _certificate(self, item: Manifest) -> IssuanceResult | None:
        seen = issuance.certificate_progress(item)
        self._saw("Certificate", seen.reason or seen.progress.value)
        if seen.progress is Progress.WAITING:
            return None
        if seen.progress is Progress.FAILED:
            await self._route(())
            return IssuanceResult(
                ready=False, order=self._order, findings=seen.findings, evidence=tuple(self._evidence)
            )
        facts, problems = await read_secret(self._cluster, self._request)
        if facts is None or facts.fingerprint == self._target.previous_fingerprint:
            return None  # the Secret is written a moment before or after the status; its write touches the status
        await self._route(())
        return IssuanceResult(
            ready=not problems,
            secret=facts,
            renewal_at=seen.renewal_at,
            order=self._order,
            findings=problems,
            evidence=tuple(self._evidence),
        )

    async def _challenge(self, change: str, item: Manifest) -> None:
        metadata, status = item["metadata"], item.get("status") or {}
        owners = metadata.get("ownerReferences") or []
        self._order = next((owner["name"] for owner in owners if owner["kind"] == "Order"), self._order)
        words = " ".join(str(status.get(part, "")) for part in ("state", "reason")).strip()
        self._saw(f"Challenge for {item['spec']['dnsName']}", words or change.lower())
        if change == "DELETED":
            self._routes.pop(metadata["uid"], None)
        elif metadata["uid"] not in self._routes and status.get("presented"):
            service = await self._solver(metadata["uid"])
            if service is not None:
                self._routes[metadata["uid"]] = ChallengeRoute(
                    hostname=item["spec"]["dnsName"],
                    token=item["spec"]["token"],
                    service=service,
                    namespace=self._namespace,
                )
        await self._route(tuple(self._routes.values()))

    async def _solver(self, challenge: str) -> str | None:
        """The name of the Service that cert-manager made for this challenge."""
        services = await kubernetes.listed(
            self._cluster, "v1", "Service", self._namespace, label_selector="acme.cert-manager.io/http01-solver=true"
        )
        for service in services:
            if any(owner["uid"] == challenge for owner in service["metadata"].get("ownerReferences") or []):
                return str(service["metadata"]["name"])
        return None

    async def _route(self, routes: tuple[ChallengeRoute, ...]) -> None:
        """The route exists only while a challenge does."""
        if routes == self._routed:
            return
        if routes:
            await kubernetes.apply(self._cluster, manifests.challenge_route(self._request, routes))
        else:
            name = names.challenge_route_name(self._request.hostname)
            await kubernetes.remove(self._cluster, ISTIO, "VirtualService", self._namespace, name)
        self._routed = routes
