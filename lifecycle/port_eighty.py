"""Who speaks on the gateway's port 80 for a name, beside ourselves?

Istio merges the Gateways of one workload and port: a host that two of them name exactly is one virtual host, and
`httpsRedirect` of either swallows its challenges (measured; design page "facts"). A wildcard is another virtual host,
which our own exact one goes before: what it answers until ours is there says nothing about the challenge. Left out:
what was answered (`challenge_path`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lifecycle.claims import is_ours, same_workload
from lifecycle.domain import OnboardingRequest

Document = Mapping[str, Any]

SETTLED = timedelta(seconds=30)
"""A Gateway is at Envoy's within a second or two of its creation; a younger one proves no fault."""

_HTTP_PORT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """What stands on port 80 of the gateway workload.

    Attributes:
        listening: some Gateway has had a server on port 80 long enough, so an answer can be expected.
        swallowing: hostname and the Gateway ``namespace/name`` whose `httpsRedirect` swallows its challenges.
        covered: hostnames for which some route or redirect answers that a challenge's exact route goes before.
    """

    listening: bool = True
    swallowing: tuple[tuple[str, str], ...] = ()
    covered: frozenset[str] = frozenset()


def neighbours(request: OnboardingRequest, gateways: Iterable[Document], *, bound: bool, now: datetime) -> Neighbours:
    """Who is there. `bound`: our own VirtualService is, with its redirect as the catch-all."""
    listening = False
    swallowing: dict[str, str] = {}
    covered: set[str] = set(request.hostnames) if bound else set()
    for gateway in gateways:
        if not same_workload(gateway, request):
            continue
        for hosts, redirects in _servers(gateway):
            listening = listening or _settled(gateway, now)
            if is_ours(gateway, request):
                continue
            for hostname in request.hostnames:
                if hostname in hosts and redirects:
                    metadata = gateway["metadata"]
                    swallowing[hostname] = f"{metadata.get('namespace', '')}/{metadata['name']}"
                elif any(_covers(host, hostname) for host in hosts):
                    covered.add(hostname)
    return Neighbours(listening=listening, swallowing=tuple(swallowing.items()), covered=frozenset(covered))


def _servers(gateway: Document) -> Iterator[tuple[set[str], bool]]:
    """The hosts of each server on port 80, and whether it redirects; of both kinds of Gateway."""
    for listener in gateway["spec"].get("listeners") or ():
        if listener.get("port") == _HTTP_PORT:
            yield {str(listener.get("hostname") or "*").lower()}, False
    for server in gateway["spec"].get("servers") or ():
        if (server.get("port") or {}).get("number") == _HTTP_PORT:
            hosts = {host.rpartition("/")[2].lower() for host in server.get("hosts") or ()}
            yield hosts, bool((server.get("tls") or {}).get("httpsRedirect"))


def _settled(gateway: Document, now: datetime) -> bool:
    created = gateway["metadata"].get("creationTimestamp")
    return bool(created) and datetime.fromisoformat(str(created)) <= now - SETTLED


def _covers(host: str, hostname: str) -> bool:
    """A host of a Gateway: exact, ``*``, or ``*.domain``, which covers every depth (Istio reference: Server.hosts)."""
    return host in (hostname, "*") or (host.startswith("*.") and hostname.endswith(host[1:]))
