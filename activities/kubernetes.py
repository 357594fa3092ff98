"""How activities speak to the cluster: the official client, used bare, with one field manager and time-outs.

Errors become what Temporal needs to know: refused by RBAC or by validation is not tried again, everything else is.
Left out: what is applied (`lifecycle.manifests`) and when (workflows).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError, NotFoundError
from temporalio.exceptions import ApplicationError

from lifecycle.diagnosis import said
from lifecycle.manifests import FIELD_MANAGER, Manifest

CALL_SECONDS = 15.0
"""One request; the API server's own admission webhooks may take up to 30 s, but ours answer in well under one."""

_WATCH_SECONDS = 240
_RETRY_SECONDS = 1.0


@contextlib.asynccontextmanager
async def connect(kubeconfig: str) -> AsyncIterator[DynamicClient]:
    """A client of the cluster of `kubeconfig` (a path; empty: the Pod's own ServiceAccount). One for each worker."""
    settings = client.Configuration()
    if kubeconfig:
        await config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
    else:
        config.load_incluster_config(client_configuration=settings)
    async with client.ApiClient(configuration=settings) as api:
        yield await DynamicClient(api)


async def apply(cluster: DynamicClient, manifest: Manifest) -> Manifest:
    """Server-side apply; asking twice changes nothing. Raises ApplicationError."""
    with translated(f"apply {manifest['kind']} {manifest['metadata']['name']}"):
        kind = await cluster.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])
        answer = await cluster.server_side_apply(
            kind, body=manifest, field_manager=FIELD_MANAGER, force_conflicts=True, _request_timeout=CALL_SECONDS
        )
        return _plain(answer)


async def read(cluster: DynamicClient, api_version: str, kind: str, namespace: str, name: str) -> Manifest | None:
    """One object, or None where there is none. Raises ApplicationError."""
    with translated(f"read {kind} {name}"):
        resource = await cluster.resources.get(api_version=api_version, kind=kind)
        try:
            answer = await cluster.get(resource, name=name, namespace=namespace, _request_timeout=CALL_SECONDS)
        except NotFoundError:
            return None
        return _plain(answer)


async def listed(
    cluster: DynamicClient, api_version: str, kind: str, namespace: str, *, label_selector: str = ""
) -> list[Manifest]:
    """The objects of a namespace that have the labels. Raises ApplicationError."""
    with translated(f"list {kind}"):
        resource = await cluster.resources.get(api_version=api_version, kind=kind)
        answer = await cluster.get(
            resource, namespace=namespace, label_selector=label_selector, _request_timeout=CALL_SECONDS
        )
        items: list[Manifest] = _plain(answer).get("items") or []
        return items


async def remove(cluster: DynamicClient, api_version: str, kind: str, namespace: str, name: str) -> bool:
    """Delete an object; False where there was none. Raises ApplicationError."""
    with translated(f"delete {kind} {name}"):
        resource = await cluster.resources.get(api_version=api_version, kind=kind)
        try:
            await cluster.delete(resource, name=name, namespace=namespace, _request_timeout=CALL_SECONDS)
        except NotFoundError:
            return False
        return True


async def follow(
    cluster: DynamicClient, api_version: str, kind: str, namespace: str, *, name: str = ""
) -> AsyncIterator[tuple[str, Manifest]]:
    """List, then watch, for ever: (ADDED | MODIFIED | DELETED, object).

    A broken watch is begun anew with a list, which may repeat what is known; objects that vanished meanwhile are
    reported as deleted.
    """
    known: dict[str, Manifest] = {}
    selector = f"metadata.name={name}" if name else None
    while True:
        try:
            resource = await cluster.resources.get(api_version=api_version, kind=kind)
            answer = await cluster.get(
                resource, namespace=namespace, field_selector=selector, _request_timeout=CALL_SECONDS
            )
            first = _plain(answer)
            items = {item["metadata"]["uid"]: item for item in first.get("items") or []}
            for uid in set(known) - set(items):
                yield "DELETED", known.pop(uid)
            known = items
            for item in items.values():
                yield "ADDED", item
            async for event in cluster.watch(
                resource,
                namespace=namespace,
                name=name or None,
                resource_version=first["metadata"]["resourceVersion"],
                timeout=_WATCH_SECONDS,
            ):
                item = event["raw_object"]
                if event["type"] == "DELETED":
                    known.pop(item["metadata"]["uid"], None)
                else:
                    known[item["metadata"]["uid"]] = item
                yield event["type"], item
        except (DynamicApiError, client.ApiException, aiohttp.ClientError, TimeoutError, OSError):
            await asyncio.sleep(_RETRY_SECONDS)


@contextlib.contextmanager
def translated(action: str) -> Iterator[None]:
    """Errors of the client as ApplicationErrors: 400, 401, 403, 409 and 422 are not tried again."""
    try:
        yield
    except (DynamicApiError, client.ApiException) as error:
        words = error.summary() if isinstance(error, DynamicApiError) else error.reason
        message = f"{action}: {error.status} {said(str(words))}"
        final = error.status in {400, 401, 403, 409, 422}
        kind = "PermissionMissing" if error.status == 403 else "ClusterRefused" if final else "ClusterUnreachable"
        raise ApplicationError(message, type=kind, non_retryable=final) from None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ApplicationError(f"{action}: {said(str(error))}", type="ClusterUnreachable") from None


def _plain(answer: Any) -> Manifest:
    plain: Manifest = answer.to_dict()
    return plain
