"""Is what one address of the gateway did, as a client saw it, what it should have done?

Decided over what was gathered at one address for one name: handshake, redirect, routes. The first thing that is wrong
is the finding, in the order in which a client meets it. Left out: connecting.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from lifecycle import findings, names
from lifecycle.domain import (
    DEFAULT_TLS,
    CertificateFacts,
    KeyAlgorithm,
    OnboardingRequest,
    Route,
    ServedAt,
    TlsMode,
    TlsSettings,
    TlsVersion,
)
from lifecycle.findings import Finding, FindingKind
from lifecycle.gateway_requests import CIPHERS

_UPSTREAM = "x-envoy-upstream-service-time"
"""Envoy adds it to every answer that came from behind it (Envoy: "HTTP header manipulation", router filter)."""

_REDIRECTS = {301, 308}
"""Permanent ones (RFC 9110, sections 15.4.2 and 15.4.9)."""


class Met(StrEnum):
    """What a client met that was tried on purpose."""

    REFUSED = "refused"
    ACCEPTED = "accepted"
    UNTRIED = "not tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One client that must be refused, or must be accepted, and what it met.

    Attributes:
        client: who, in words, e.g. ``TLS 1.1``.
        wanted: what it should meet; `Met.UNTRIED` where either is right.
        words: the alert's name, or why it could not be tried.
    """

    client: str
    wanted: Met
    met: Met
    words: str = ""

    def __str__(self) -> str:
        return f"{self.client}: {self.met.value}" + (f" ({self.words})" if self.words else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A client to be tried.

    Attributes:
        lowest, highest: names of `ssl.TLSVersion`, empty for the library's own.
        ciphers: of TLS 1.2, by OpenSSL's names.
        stranger: presents a certificate that no CA signed.
    """

    client: str
    wanted: Met
    lowest: str = ""
    highest: str = ""
    ciphers: tuple[str, ...] = ()
    stranger: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAnswer:
    """What a route's prefix answered. `upstream` whether an application, not the gateway itself, wrote it.

    Attributes:
        hsts: the answer's Strict-Transport-Security.
    """

    prefix: str
    status: int
    upstream: bool
    hsts: str = ""


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
        trials: clients that were tried on purpose.
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
    trials: tuple[Trial, ...] = ()


def may_dial(address: str, networks: tuple[str, ...]) -> bool:
    """Whether an address is public, or lies in a listed network; a mapped one counts as the address within.

    Raises ValueError for texts that are none.
    """
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    parsed = parsed if mapped is None else mapped
    listed = any(parsed in ipaddress.ip_network(network) for network in networks)
    return listed or (parsed.is_global and not parsed.is_multicast)


def from_upstream(headers: Mapping[str, str]) -> bool:
    """Whether an answer of Envoy came from an application behind it."""
    return _UPSTREAM in headers


def route_answer(prefix: str, status: int, headers: Mapping[str, str]) -> RouteAnswer:
    """The answer of a route. A gateway that hides its marks (no `server: envoy`) is given the benefit of the doubt."""
    marked = "envoy" in headers.get("server", "").lower()
    return RouteAnswer(
        prefix=prefix,
        status=status,
        upstream=from_upstream(headers) or not marked,
        hsts=headers.get("strict-transport-security", "")[:100],
    )


def trials(request: OnboardingRequest) -> tuple[Attempt, ...]:
    """The clients to try on one address, apart from those with a certificate of their own."""
    tls = request.tls
    if not tls.terminates:
        return ()
    found = [Attempt(client=f"{_BELOW[tls.min_protocol][1]}", wanted=Met.REFUSED, highest=_BELOW[tls.min_protocol][0])]
    if tls.max_protocol is TlsVersion.TLSV1_2:
        found.append(Attempt(client="TLS 1.3 only", wanted=Met.REFUSED, lowest="TLSv1_3"))
    if tls.ciphers:
        fitting = CIPHERS.get(request.certificate.key_algorithm, CIPHERS[KeyAlgorithm.ECDSA])
        good = tuple(cipher for cipher in fitting if cipher in tls.ciphers)
        bad = tuple(cipher for cipher in (*fitting, *_WEAK) if cipher not in tls.ciphers)
        found += [
            Attempt(client=f"TLS 1.2 with {good[0]}", wanted=Met.ACCEPTED, highest="TLSv1_2", ciphers=good),
            Attempt(client="TLS 1.2 with other ciphers", wanted=Met.REFUSED, highest="TLSv1_2", ciphers=bad),
        ]
        if tls.mode is TlsMode.MUTUAL:
            # without a certificate even an allowed cipher is refused
            found[-2] = replace(found[-2], wanted=Met.UNTRIED)
    if tls.mode is TlsMode.MUTUAL:
        found.append(Attempt(client="without a certificate", wanted=Met.REFUSED))
    elif tls.mode is TlsMode.OPTIONAL_MUTUAL:
        found.append(Attempt(client="without a certificate", wanted=Met.ACCEPTED))
    if tls.asks_clients:
        found.append(Attempt(client="with a stranger's certificate", wanted=Met.REFUSED, stranger=True))
    return tuple(found)


_BELOW = {TlsVersion.TLSV1_2: ("TLSv1_1", "TLS 1.1"), TlsVersion.TLSV1_3: ("TLSv1_2", "TLS 1.2")}
"""The newest version that must not be served, where this is the minimum."""

_WEAK = ("ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA", "AES128-GCM-SHA256", "AES128-SHA")
"""What Envoy still knows and nobody should choose; a client that offers only these and other ciphers must fail."""


def label(route: Route) -> str:
    """How a route is called in evidence: its path, and the names of the headers that it matches."""
    headers = f" with {', '.join(header.name for header in route.headers)}" if route.headers else ""
    return route.prefix + headers


def works(answer: RouteAnswer) -> bool:
    """Whether a route leads somewhere.

    Any answer of the application below 500 does, 401 and 404 included: what it says is its own affair. Of the
    gateway's own, 404 means that no route matches, and 5xx that nobody is behind it; a redirect or a denial it may
    give for the application.
    """
    return answer.status < 500 and (answer.upstream or answer.status != 404)


def served(
    evidence: EdgeEvidence,
    fingerprint: str,
    *,
    http_port: int,
    https_port: int,
    tls: TlsSettings = DEFAULT_TLS,
    hsts: str = "",
) -> tuple[ServedAt, Finding | None]:
    """What was served, and the first thing that is wrong with it.

    `fingerprint` is the Secret's; `tls` what was to be negotiated; `hsts` the header that every answer over HTTPS must
    have, empty where none need.
    """
    kind, problem, fix = _judged(evidence, fingerprint, http_port, https_port, tls, hsts)
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
        limits=tuple(map(str, evidence.trials)),
    )
    if kind is None:
        return seen, None
    return seen, kind.found(subject=evidence.hostname, problem=f"{evidence.address} {problem}.", fix=fix)


def _judged(
    evidence: EdgeEvidence, fingerprint: str, http_port: int, https_port: int, tls: TlsSettings, hsts: str
) -> tuple[FindingKind | None, str, str]:
    address, hostname, leaf = evidence.address, names.probed_name(evidence.hostname), evidence.leaf
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
    forbidden = _forbidden(evidence, tls)
    if forbidden:
        return findings.EDGE_ACCEPTS_FORBIDDEN, f"negotiates {forbidden}, which it must not", handshake
    for trial in evidence.trials:
        if (trial.wanted, trial.met) == (Met.REFUSED, Met.ACCEPTED):
            return findings.EDGE_ACCEPTS_FORBIDDEN, f"takes a client that it must refuse: {trial.client}", handshake
        if (trial.wanted, trial.met) == (Met.ACCEPTED, Met.REFUSED):
            return findings.EDGE_REFUSES_ALLOWED, f"refuses a client that it must take, {trial}", handshake
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
    other = next((answer for answer in evidence.routes if hsts and answer.hsts != hsts), None)
    if other is not None:
        authority = _authority(hostname, https_port, 443)
        fix = f"curl -si --resolve {hostname}:{https_port}:{literal} https://{authority}{other.prefix}"
        words = f"answers {other.prefix} with Strict-Transport-Security {other.hsts or 'missing'}, not {hsts}"
        return findings.HSTS_WRONG, words, fix
    return None, "", ""


def _forbidden(evidence: EdgeEvidence, tls: TlsSettings) -> str:
    """What our own client was given that no client may be, in words: a gateway that is about to change gives the old.

    Empty where all is right, or where the Service behind decides.
    """
    version = {"TLSv1.2": TlsVersion.TLSV1_2, "TLSv1.3": TlsVersion.TLSV1_3}.get(evidence.protocol)
    if not tls.terminates or not evidence.protocol:
        return ""
    if version is None or version < tls.min_protocol or (tls.max_protocol is not None and version > tls.max_protocol):
        return evidence.protocol
    if version is TlsVersion.TLSV1_2 and tls.ciphers and evidence.cipher not in tls.ciphers:
        return evidence.cipher
    return ""


def _authority(hostname: str, port: int, default: int) -> str:
    return hostname if port == default else f"{hostname}:{port}"
