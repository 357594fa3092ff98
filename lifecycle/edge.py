"""Is what one address of the gateway did, as a client saw it, what it should have done?

Decided over what was gathered at one address for one name: handshake, redirect, routes. The first thing that is wrong
is the finding, in the order in which a client meets it. Left out: connecting.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from lifecycle import findings
from lifecycle.domain import CertificateFacts, ServedAt
from lifecycle.findings import Finding, FindingKind

_UPSTREAM = "x-envoy-upstream-service-time"
"""Envoy adds it to every answer that came from behind it (Envoy: "HTTP header manipulation", router filter)."""

_REDIRECTS = {301, 308}
"""Permanent ones (RFC 9110, sections 15.4.2 and 15.4.9)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAnswer:
    """What a route's prefix answered. `upstream` whether an application, not the gateway itself, wrote it."""

    prefix: str
    status: int
    upstream: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeEvidence:
    """What one address did for one name.

    Attributes:
        refused: it may not be dialled.
        unreachable: no TCP connection, in words.
        handshake: the TLS handshake failed, in words.
        distrust: why the chain leads to no expected root for this name.
        unanswered: the HTTP request that failed, in words.
        redirect_status, redirect: what port 80 answered.
    """

    address: str
    hostname: str
    refused: bool = False
    unreachable: str = ""
    handshake: str = ""
    leaf: CertificateFacts | None = None
    distrust: str = ""
    protocol: str = ""
    cipher: str = ""
    unanswered: str = ""
    redirect_status: int = 0
    redirect: str = ""
    routes: tuple[RouteAnswer, ...] = ()


def may_dial(address: str, networks: tuple[str, ...]) -> bool:
    """Whether an address is public, or lies in a listed network; a mapped one counts as the address within.

    Raises ValueError for texts that are none.
    """
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    parsed = parsed if mapped is None else mapped
    listed = any(parsed in ipaddress.ip_network(network) for network in networks)
    return listed or (parsed.is_global and not parsed.is_multicast)


def route_answer(prefix: str, status: int, headers: Mapping[str, str]) -> RouteAnswer:
    """The answer of a route. A gateway that hides its marks (no `server: envoy`) is given the benefit of the doubt."""
    marked = "envoy" in headers.get("server", "").lower()
    return RouteAnswer(prefix=prefix, status=status, upstream=_UPSTREAM in headers or not marked)


def works(answer: RouteAnswer) -> bool:
    """Whether a route leads somewhere.

    Any answer of the application below 500 does, 401 and 404 included: what it says is its own affair. Of the
    gateway's own, 404 means that no route matches, and 5xx that nobody is behind it; a redirect or a denial it may
    give for the application.
    """
    return answer.status < 500 and (answer.upstream or answer.status != 404)


def served(
    evidence: EdgeEvidence, fingerprint: str, *, http_port: int, https_port: int
) -> tuple[ServedAt, Finding | None]:
    """What was served, and the first thing that is wrong with it; `fingerprint` is the Secret's."""
    kind, problem, fix = _judged(evidence, fingerprint, http_port, https_port)
    leaf = evidence.leaf
    seen = ServedAt(
        address=evidence.address,
        hostname=evidence.hostname,
        fingerprint=leaf.fingerprint if leaf else "",
        chain_verified=leaf is not None and not evidence.distrust,
        protocol=evidence.protocol,
        cipher=evidence.cipher,
        redirect=evidence.redirect,
        routes=tuple(f"{answer.prefix} {answer.status}" for answer in evidence.routes),
        problem=problem,
    )
    if kind is None:
        return seen, None
    return seen, kind.found(subject=evidence.hostname, problem=f"{evidence.address} {problem}.", fix=fix)


def _judged(
    evidence: EdgeEvidence, fingerprint: str, http_port: int, https_port: int
) -> tuple[FindingKind | None, str, str]:
    address, hostname, leaf = evidence.address, evidence.hostname, evidence.leaf
    literal = f"[{address}]" if ":" in address else address
    handshake = f"openssl s_client -connect {literal}:{https_port} -servername {hostname}"
    plain = f"curl -sI --resolve {hostname}:{http_port}:{literal} http://{_authority(hostname, http_port, 80)}/"
    if evidence.refused:
        networks = "List its network among the worker's allowed networks, or give the gateway a public address."
        return findings.EDGE_ADDRESS_REFUSED, "is not a public address and in no listed network", networks
    if evidence.unreachable:
        words = f"does not take connections on port {https_port}: {evidence.unreachable}"
        return findings.EDGE_UNREACHABLE, words, handshake
    if evidence.handshake or leaf is None:
        return findings.EDGE_HANDSHAKE_FAILED, f"ends the TLS handshake: {evidence.handshake}", handshake
    if leaf.fingerprint != fingerprint:
        words = f"serves certificate {leaf.fingerprint[:16]}, the Secret has {fingerprint[:16] or 'none'}"
        return findings.EDGE_SERVES_OTHER_CERTIFICATE, words, handshake
    if evidence.distrust:
        words = f"serves a chain that leads to no expected root: {evidence.distrust}"
        return findings.EDGE_CHAIN_UNTRUSTED, words, handshake
    if evidence.unanswered:
        return findings.ROUTE_NOT_ANSWERING, f"does not answer: {evidence.unanswered}", plain
    if evidence.redirect_status not in _REDIRECTS or not evidence.redirect.startswith(f"https://{hostname}/"):
        answer = f"{evidence.redirect_status} {evidence.redirect}".strip()
        words = f"answers HTTP with {answer}, not with a redirect to https://{hostname}/"
        return findings.EDGE_REDIRECT_WRONG, words, plain
    failing = [answer for answer in evidence.routes if not works(answer)]
    if failing:
        shown = ", ".join(f"{one.prefix} {one.status}{'' if one.upstream else ' by the gateway'}" for one in failing)
        authority = _authority(hostname, https_port, 443)
        fix = f"curl -si --resolve {hostname}:{https_port}:{literal} https://{authority}{failing[0].prefix}"
        return findings.ROUTE_NOT_ANSWERING, f"has a route without an answer: {shown}", fix
    return None, "", ""


def _authority(hostname: str, port: int, default: int) -> str:
    return hostname if port == default else f"{hostname}:{port}"
