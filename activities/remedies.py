"""Do what a remedy of a diagnosis says; what has changed since is left alone.

Each can be done twice without harm. Left out: which remedy is safe (`lifecycle.diagnosing`), and whether one may be
done for whoever asks (`activities.diagnosis`).
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import ConflictError, NotFoundError

from activities import kubernetes
from activities.issuance import ACME, CERT_MANAGER
from lifecycle import issuance, targets
from lifecycle.blame import Action, Remedy
from lifecycle.manifests import FIELD_MANAGER, ChallengeRoute
from lifecycle.mending import Mended
from lifecycle.snapshot import Snapshot, controlled, request_of

_WRITES = 5
"""Tries to set a condition: another write came between reading and writing, which each time is less likely."""


async def mend(cluster: DynamicClient, remedy: Remedy, seen: Snapshot) -> Mended:
    """Do what a remedy says; what has changed meanwhile is left alone. Raises ApplicationError."""
    match remedy.action:
        case Action.DELETE:
            done = await _delete(cluster, remedy)
        case Action.RELEASE:
            done = await _release(cluster, remedy)
        case Action.ROUTE:
            done = await _route(cluster, seen)
        case Action.RENEW:
            done = True
    if done and (remedy.renew or remedy.action is Action.RENEW):
        done = await _renew(cluster, seen, again=remedy.renew)
    return Mended(remedy=remedy, done=done, words="done" if done else "left alone: it has changed, or is gone")


async def _delete(cluster: DynamicClient, remedy: Remedy) -> bool:
    api_version = CERT_MANAGER if remedy.kind == "CertificateRequest" else ACME
    found = await kubernetes.resource(cluster, api_version, remedy.kind)
    async with kubernetes.answering(cluster, f"delete {remedy.kind} {remedy.name}"):
        try:
            await cluster.delete(
                found,
                name=remedy.name,
                namespace=remedy.namespace,
                body={"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": remedy.uid}},
                _request_timeout=kubernetes.CALL_SECONDS,
            )
        except (NotFoundError, ConflictError):
            return False
    return True


async def _release(cluster: DynamicClient, remedy: Remedy) -> bool:
    """Take cert-manager's finalizers only: others' keep what they keep."""
    item = await kubernetes.read(cluster, ACME, remedy.kind, remedy.namespace, remedy.name)
    if item is None or item["metadata"]["uid"] != remedy.uid or not item["metadata"].get("deletionTimestamp"):
        return False
    kept = [name for name in item["metadata"].get("finalizers") or () if "acme.cert-manager.io" not in name]
    found = await kubernetes.resource(cluster, ACME, remedy.kind)
    async with kubernetes.answering(cluster, f"take the finalizer of {remedy.kind} {remedy.name}"):
        try:
            await cluster.patch(
                found,
                body={"metadata": {"finalizers": kept or None, "resourceVersion": item["metadata"]["resourceVersion"]}},
                name=remedy.name,
                namespace=remedy.namespace,
                content_type="application/merge-patch+json",
                field_manager=FIELD_MANAGER,
                _request_timeout=kubernetes.CALL_SECONDS,
            )
        except (NotFoundError, ConflictError):
            return False
    return True


async def _route(cluster: DynamicClient, seen: Snapshot) -> bool:
    """The same route that the watch of an issuance applies, and takes away when it ends."""
    if seen.certificate is None or not seen.ours:
        return False
    routes = []
    for one in seen.present:
        services = [service for service in seen.solver_services if controlled(service, one)]
        if services and (one.get("status") or {}).get("presented"):
            routes.append(
                ChallengeRoute(
                    hostname=one["spec"]["dnsName"],
                    token=one["spec"]["token"],
                    service=services[0]["metadata"]["name"],
                    namespace=seen.namespace,
                )
            )
    if not routes:
        return False
    request = request_of(seen.certificate, seen.gateway)
    for manifest in targets.challenge_routes(request, tuple(routes)):
        await kubernetes.apply(cluster, manifest)
    return True


async def _renew(cluster: DynamicClient, seen: Snapshot, *, again: bool) -> bool:
    for _ in range(_WRITES):
        item = await kubernetes.read(cluster, CERT_MANAGER, "Certificate", seen.namespace, seen.name)
        if item is None:
            return False
        now = datetime.now(UTC)
        asked_at = max(now, issuance.askable_at(item) or now)
        await asyncio.sleep(min((asked_at - now).total_seconds(), 2.0))
        conditions = issuance.issuing_by_hand(item, asked_at, again=again)
        if conditions is None or await kubernetes.set_conditions(cluster, item, conditions):
            return True
        await asyncio.sleep(0.2)
    return False
