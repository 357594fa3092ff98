"""How the lab's node talks to the API server: JSON in, JSON out, and lists that go on as watches.

The official client parses the kubeconfig and makes the TLS context. Its typed models are left out on purpose: the node
passes most of a Pod through untouched, and building models for every watch event costs more than running the Pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from kubernetes.aio import client, config

Json = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
_WATCH_SECONDS = 240
_RETRY_FIRST, _RETRY_LAST = 0.1, 2.0
_LONGEST_MESSAGE = 300


class ApiError(Exception):
    """The API server refused: `status` is the HTTP status, `reason` its machine-readable word."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message[:_LONGEST_MESSAGE]}")
        self.status = status
        self.reason = reason


class Api:
    """The API server of one kubeconfig."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self.server = server

    @staticmethod
    @contextlib.asynccontextmanager
    async def connect(kubeconfig: Path) -> AsyncIterator[Api]:
        """An open connection to the server of `kubeconfig`; closed on leaving the block."""
        settings = client.Configuration()
        await config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
        parsed = client.ApiClient(configuration=settings)
        headers = {}
        if token := settings.api_key.get("BearerToken"):
            headers["Authorization"] = token if token.startswith("Bearer ") else f"Bearer {token}"
        connector = aiohttp.TCPConnector(ssl=parsed.rest_client.ssl_context, limit=0)
        server = settings.host.rstrip("/")
        async with aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=2**22) as session:
            try:
                yield Api(session, server)
            finally:
                await parsed.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout: float = 15.0,
    ) -> Json:
        """One request. `timeout` in seconds. Raises ApiError, aiohttp.ClientError, TimeoutError."""
        async with self._session.request(
            method,
            self.server + path,
            params=query,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": content_type, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=timeout),
        ) as response:
            text = await response.read()
            if response.status >= 400:
                raise _error(response.status, text)
            answer: Json = json.loads(text)
            return answer

    async def follow(self, path: str, *, query: Mapping[str, str] | None = None) -> AsyncIterator[tuple[str, Json]]:
        """List, then watch, for ever: ("ADDED" | "MODIFIED" | "DELETED", object), and ("SYNCED", {}) after each list.

        A broken connection is taken up where it broke; an expired position (410) leads to a new list, and objects that
        vanished meanwhile are reported as deleted.
        """
        known: dict[str, Json] = {}
        position = ""
        delay = _RETRY_FIRST
        while True:
            try:
                if not position:
                    listed = await self.call("GET", path, query=query)
                    items = {item["metadata"]["uid"]: item for item in listed.get("items") or []}
                    for uid in set(known) - set(items):
                        yield "DELETED", known.pop(uid)
                    for uid, item in items.items():
                        kind = "MODIFIED" if uid in known else "ADDED"
                        known[uid] = item
                        yield kind, item
                    position = listed["metadata"]["resourceVersion"]
                    yield "SYNCED", {}
                async for kind, item in self._watch(path, query, position):
                    delay = _RETRY_FIRST
                    position = item["metadata"]["resourceVersion"]
                    if kind == "BOOKMARK":
                        continue
                    if kind == "DELETED":
                        known.pop(item["metadata"]["uid"], None)
                    else:
                        known[item["metadata"]["uid"]] = item
                    yield kind, item
            except ApiError as error:
                if error.status == 410:
                    position = ""
                    continue
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_LAST)
            except (aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_LAST)

    async def _watch(
        self, path: str, query: Mapping[str, str] | None, position: str
    ) -> AsyncIterator[tuple[str, Json]]:
        parameters = {
            **(query or {}),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": position,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        async with self._session.get(
            self.server + path,
            params=parameters,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_WATCH_SECONDS + 30),
        ) as response:
            if response.status >= 400:
                raise _error(response.status, await response.read())
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))
                    yield event["type"], event["object"]


def _error(status: int, text: bytes) -> ApiError:
    try:
        answer = json.loads(text)
        return ApiError(status, answer.get("reason", ""), answer.get("message", ""))
    except (ValueError, AttributeError):
        return ApiError(status, "", text[:_LONGEST_MESSAGE].decode(errors="replace"))


def cluster_of(kubeconfig: Path) -> Json:
    """The `cluster` entry of the kubeconfig's current context, its CA as `certificate-authority-data`."""
    parsed = yaml.safe_load(kubeconfig.read_text())
    contexts = {entry["name"]: entry["context"] for entry in parsed["contexts"]}
    clusters = {entry["name"]: entry["cluster"] for entry in parsed["clusters"]}
    cluster: Json = dict(clusters[contexts[parsed["current-context"]]["cluster"]])
    if path := cluster.get("certificate-authority"):
        absolute = kubeconfig.parent / path
        cluster["certificate-authority"] = str(absolute.resolve())
    return cluster
