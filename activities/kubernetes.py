"""How activities speak to the cluster: the official client, used bare, with one field manager and time-outs.

Errors become what Temporal needs to know: refused by RBAC or by validation is not tried again, everything else is. A
refusal carries its finding in the error's details. Left out: what is applied (`lifecycle.manifests`) and when
(workflows).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import ConflictError, DynamicApiError, NotFoundError, ResourceNotFoundError
from temporalio.exceptions import ApplicationError

from lifecycle import findings
from lifecycle.diagnosis import said
from lifecycle.manifests import FIELD_MANAGER, Manifest
from lifecycle.platform import Permission, permission_finding, refused_permission

CALL_SECONDS = 15.0
"""One request; the API server's own admission webhooks may take up to 30 s, but ours answer in well under one."""

PAGE_SIZE = 500
"""Objects in one answer: some megabytes, and what kubectl asks for too."""

_WATCH_SECONDS = 240
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=_WATCH_SECONDS + 30, sock_connect=5, sock_read=90)
"""The API server sends a bookmark about once a minute (API concepts: "Watch bookmarks"): silence is a dead link."""

_RETRY_SECONDS = 1.0

_MOST_WAITING = 256
"""Events that wait for their reader; a watch that is ahead by more is not read on."""

_NO_FILE = os.path.join(os.devnull, "discovery")  # noqa: PTH118 - a path that can never exist
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError)
_SETTLING_SECONDS = 10.0
"""A server that did not answer so long ago may refuse before it has read its roles, and be ready a moment later."""
_unanswered: weakref.WeakKeyDictionary[DynamicClient, float] = weakref.WeakKeyDictionary()
_discovering: weakref.WeakKeyDictionary[DynamicClient, asyncio.Lock] = weakref.WeakKeyDictionary()


@contextlib.asynccontextmanager
async def connect(kubeconfig: str) -> AsyncIterator[DynamicClient]:
    """A client of the cluster of `kubeconfig` (a path; empty: the Pod's own ServiceAccount). One for each worker."""
    settings = client.Configuration()
    if kubeconfig:
        await config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
    else:
        config.load_incluster_config(client_configuration=settings)
    settings.connection_pool_maxsize = 0  # no limit: watches hold a connection each, and must not starve the calls
    async with client.ApiClient(configuration=settings) as api:
        # The client would keep what it discovers in a file that others may write and that outlives the cluster.
        yield await DynamicClient(api, cache_file=_NO_FILE)


async def resource(cluster: DynamicClient, api_version: str, kind: str) -> Any:
    """The client's handle of a kind. Raises ApplicationError, with a finding where the cluster has no such kind.

    One discovery at a time: the client loses its way in its own cache where two overlap, or where one is cut off.
    """
    prefix = "apis" if "/" in api_version else "api"  # without it the client asks every group for "v1"
    lock = _discovering.setdefault(cluster, asyncio.Lock())
    async with lock, answering(cluster, f"discover {kind}"), asyncio.timeout(CALL_SECONDS):
        try:
            try:
                return await cluster.resources.get(prefix=prefix, api_version=api_version, kind=kind)
            except KeyError:
                await cluster.resources.invalidate_cache()
                return await cluster.resources.get(prefix=prefix, api_version=api_version, kind=kind)
        except ResourceNotFoundError:
            missing = findings.RESOURCE_KIND_MISSING.found(
                subject=f"{kind}.{api_version}",
                problem=f"The cluster has no {kind} of {api_version}.",
                fix=f"kubectl api-resources --api-group={api_version.rpartition('/')[0]}; install what brings it.",
            )
            # tried again: a server that has just started does not show all its kinds yet
            raise ApplicationError(missing.problem, missing, type="KindMissing") from None


async def apply(cluster: DynamicClient, manifest: Manifest) -> Manifest:
    """Server-side apply; asking twice changes nothing. Raises ApplicationError."""
    kind = await resource(cluster, manifest["apiVersion"], manifest["kind"])
    async with answering(cluster, f"apply {manifest['kind']} {manifest['metadata']['name']}"):
        answer = await cluster.server_side_apply(
            kind, body=manifest, field_manager=FIELD_MANAGER, force_conflicts=True, _request_timeout=CALL_SECONDS
        )
        return _plain(answer)


async def tried(cluster: DynamicClient, manifest: Manifest) -> Manifest:
    """What an apply would make of the object, without making it (a server-side dry run). Raises ApplicationError."""
    kind = await resource(cluster, manifest["apiVersion"], manifest["kind"])
    async with answering(cluster, f"try to apply {manifest['kind']} {manifest['metadata']['name']}"):
        answer = await cluster.server_side_apply(
            kind,
            body=manifest,
            field_manager=FIELD_MANAGER,
            force_conflicts=True,
            dry_run="All",
            _request_timeout=CALL_SECONDS,
        )
        return _plain(answer)


async def read(cluster: DynamicClient, api_version: str, kind: str, namespace: str, name: str) -> Manifest | None:
    """One object, or None where there is none. Raises ApplicationError."""
    found = await resource(cluster, api_version, kind)
    async with answering(cluster, f"read {kind} {name}"):
        try:
            answer = await cluster.get(found, name=name, namespace=namespace or None, _request_timeout=CALL_SECONDS)
        except NotFoundError:
            return None
        return _plain(answer)


async def listed(
    cluster: DynamicClient, api_version: str, kind: str, namespace: str, *, label_selector: str = ""
) -> list[Manifest]:
    """The objects of a namespace (empty: of all) that have the labels, read in pages. Raises ApplicationError."""
    found: list[Manifest] = []
    async for page in pages(cluster, api_version, kind, namespace, label_selector=label_selector):
        found += page
    return found


async def pages(
    cluster: DynamicClient,
    api_version: str,
    kind: str,
    namespace: str = "",
    *,
    label_selector: str = "",
    field_selector: str = "",
    size: int = PAGE_SIZE,
) -> AsyncIterator[list[Manifest]]:
    """All objects of a kind, a page at a time; of every namespace where `namespace` is empty. Raises ApplicationError.

    A list that expires between two pages (410, API concepts: "Retrieving large results sets in chunks") is an error
    that is tried again from the start.
    """
    found = await resource(cluster, api_version, kind)
    position = ""
    while True:
        page = await _page(cluster, found, namespace, label_selector, field_selector, size, position)
        yield page["items"]
        position = page["metadata"].get("continue") or ""
        if not position:
            return


async def _page(
    cluster: DynamicClient, found: Any, namespace: str, labels: str, fields: str, size: int, position: str
) -> Manifest:
    permission = Permission("list", found.group or "", found.name, namespace)
    async with answering(cluster, f"list {found.kind}", permission):
        # the raw answer: the client's own objects cost several times what parsing the JSON does
        answer = await cluster.get(
            found,
            namespace=namespace or None,
            label_selector=labels or None,
            field_selector=fields or None,
            limit=size,
            _continue=position or None,
            serialize=False,
            _request_timeout=CALL_SECONDS,
        )
        page: Manifest = json.loads(await answer.read())
    # the items of a list do not say what they are
    known = {"apiVersion": found.group_version, "kind": found.kind}
    page["items"] = [{**known, **item} for item in page.get("items") or []]
    return page


async def remove(cluster: DynamicClient, api_version: str, kind: str, namespace: str, name: str) -> bool:
    """Delete an object; False where there was none. Raises ApplicationError."""
    found = await resource(cluster, api_version, kind)
    async with answering(cluster, f"delete {kind} {name}"):
        try:
            await cluster.delete(found, name=name, namespace=namespace or None, _request_timeout=CALL_SECONDS)
        except NotFoundError:
            return False
        return True


async def set_conditions(cluster: DynamicClient, item: Manifest, conditions: list[Manifest]) -> bool:
    """Write the status conditions of an object as it was read; False where it has changed since, or is gone.

    Not an apply: a field that we own by apply would stay when its controller takes it away (cmctl renew writes it
    like this too). The resource version keeps it from overwriting what we have not seen. Raises ApplicationError.
    """
    metadata = item["metadata"]
    found = await resource(cluster, item["apiVersion"], item["kind"])
    async with answering(cluster, f"set conditions of {item['kind']} {metadata['name']}"):
        try:
            await cluster.patch(
                found.subresources["status"],
                body={
                    "metadata": {"resourceVersion": metadata["resourceVersion"]},
                    "status": {"conditions": conditions},
                },
                name=metadata["name"],
                namespace=metadata["namespace"],
                content_type="application/merge-patch+json",
                field_manager=FIELD_MANAGER,
                _request_timeout=CALL_SECONDS,
            )
        except (ConflictError, NotFoundError):
            return False
        return True


async def follow(
    cluster: DynamicClient, api_version: str, kind: str, namespace: str, *, name: str = ""
) -> AsyncGenerator[tuple[str, Manifest], None]:
    """List, then watch, for ever: (ADDED | MODIFIED | DELETED, object).

    A broken watch is begun anew with a list, which may repeat what is known; objects that vanished meanwhile are
    reported as deleted. Raises ApplicationError where the list fails or a permission is missing: whoever waits then
    learns that nobody is looking.
    """
    known: dict[str, Manifest] = {}
    selector = f"metadata.name={name}" if name else ""
    found = await resource(cluster, api_version, kind)
    permission = Permission("watch", found.group or "", found.name, namespace)
    while True:
        items: dict[str, Manifest] = {}
        position, rest = "", ""
        while not position or rest:
            page = await _page(cluster, found, namespace, "", selector, PAGE_SIZE, rest)
            items |= {item["metadata"]["uid"]: item for item in page["items"]}
            position, rest = page["metadata"]["resourceVersion"], page["metadata"].get("continue") or ""
        for uid in set(known) - set(items):
            yield "DELETED", known.pop(uid)
        known = items
        for item in list(items.values()):
            yield "ADDED", item
        try:
            while True:
                async with contextlib.aclosing(_events(cluster, found, namespace, selector, position)) as events:
                    async for change, item in events:
                        position = item["metadata"]["resourceVersion"]
                        if change == "BOOKMARK":
                            continue
                        if change == "DELETED":
                            known.pop(item["metadata"]["uid"], None)
                        else:
                            known[item["metadata"]["uid"]] = item
                        yield change, item
        except (DynamicApiError, client.ApiException) as error:
            if error.status in {401, 403}:
                async with answering(cluster, f"watch {kind}", permission):
                    raise
            if error.status != 410:  # the position is too old: list again at once
                await asyncio.sleep(_RETRY_SECONDS)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):  # a cut line is no JSON
            await asyncio.sleep(_RETRY_SECONDS)


async def _events(
    cluster: DynamicClient, found: Any, namespace: str, selector: str, position: str
) -> AsyncGenerator[tuple[str, Manifest], None]:
    """One watch. The client's own makes a second client, with a trust store, for each."""
    answer = await cluster.get(
        found,
        namespace=namespace or None,
        field_selector=selector or None,
        resource_version=position,
        watch="true",
        timeout_seconds=_WATCH_SECONDS,
        query_params=[("allowWatchBookmarks", "true")],
        serialize=False,
        _request_timeout=_WATCH_TIMEOUT,
    )
    try:
        async for line in answer.content:
            event = json.loads(line)
            if event["type"] == "ERROR":
                status = event["object"]
                raise client.ApiException(status=status.get("code", 500), reason=status.get("message", ""))
            yield event["type"], event["object"]
    finally:
        answer.close()


@contextlib.asynccontextmanager
async def merged(
    *sources: AsyncGenerator[tuple[str, Manifest], None],
) -> AsyncIterator[asyncio.Queue[tuple[str, Manifest] | Exception]]:
    """The events of several `follow`s in one queue, for as long as the block; where one ends, its error comes too."""
    events: asyncio.Queue[tuple[str, Manifest] | Exception] = asyncio.Queue(_MOST_WAITING)

    async def pass_on(source: AsyncGenerator[tuple[str, Manifest], None]) -> None:
        try:
            async with contextlib.aclosing(source):
                async for event in source:
                    await events.put(event)
        except Exception as error:  # the reader raises it
            await events.put(error)

    tasks = [asyncio.create_task(pass_on(source)) for source in sources]
    try:
        yield events
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def told_by(error: ApplicationError) -> list[findings.Finding]:
    """The findings that an error carries: of what is refused for good, what to do about it."""
    return [detail for detail in error.details if isinstance(detail, findings.Finding)]


@contextlib.asynccontextmanager
async def answering(cluster: DynamicClient, action: str, permission: Permission | None = None) -> AsyncIterator[None]:
    """As `translated`; and a server that is only starting refuses for the moment, since it has not read its roles."""
    try:
        with translated(action, permission):
            yield
    except ApplicationError as error:
        now = asyncio.get_running_loop().time()
        if isinstance(error.__context__, _NO_ANSWER):
            _unanswered[cluster] = now
        if not error.non_retryable:
            raise
        settling = cluster in _unanswered and now - _unanswered[cluster] < _SETTLING_SECONDS
        if not settling and await _ready(cluster):
            raise
        raise ApplicationError(f"{action}: the API server is starting", type="ClusterUnreachable") from None


async def _ready(cluster: DynamicClient) -> bool:
    """Kubernetes API health endpoints: /readyz answers 200 once informers, so roles too, are in step."""
    try:
        answer = await cluster.request("get", "/readyz", serialize=False, _request_timeout=CALL_SECONDS)
        await answer.read()
    except (DynamicApiError, client.ApiException, aiohttp.ClientError, TimeoutError, OSError):
        return False
    return True


@contextlib.contextmanager
def translated(action: str, permission: Permission | None = None) -> Iterator[None]:
    """Errors of the client as ApplicationErrors: 400, 403 and 422 are refusals for good, each with its finding.

    A 403 names the missing permission by Kubernetes' own words, else by `permission`. A 401 is tried again: tokens are
    renewed.
    """
    try:
        yield
    except (DynamicApiError, client.ApiException) as error:
        words = str(error.summary() if isinstance(error, DynamicApiError) else error.reason)
        message = f"{action}: {error.status} {said(words)}"
        if error.status not in {400, 403, 422}:
            raise ApplicationError(message, type="ClusterUnreachable") from None
        missing = (refused_permission(words) or permission) if error.status == 403 else None
        told = permission_finding(missing) if missing else _rejected(action, words)
        kind = "PermissionMissing" if missing else "ClusterRefused"
        raise ApplicationError(message, told, type=kind, non_retryable=True) from None
    except _NO_ANSWER as error:
        words = said(str(error)) or type(error).__name__
        raise ApplicationError(f"{action}: {words}", type="ClusterUnreachable") from None


def _rejected(action: str, words: str) -> findings.Finding:
    return findings.OBJECT_REJECTED.found(
        subject=action, problem=f"The cluster refused it: {said(words)}", fix="Mend what the refusal names, then check."
    )


def _plain(answer: Any) -> Manifest:
    plain: Manifest = answer.to_dict()
    return plain
