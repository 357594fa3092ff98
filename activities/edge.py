"""What does the edge really serve? Every address of the gateway, for every name, as a client would see it.

Addresses come from the gateway's Service, and only public ones are dialled unless the operator lists a network, so
that nobody turns the probe against internal addresses. Left out: whether what was seen is right (`lifecycle.edge`),
and what to do about a difference.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity

from activities.attended import attended
from activities.gateways import gateway_addresses
from activities.issuance import read_secret, secret_missing
from lifecycle import edge, findings, x509
from lifecycle.diagnosis import said
from lifecycle.domain import OnboardingRequest
from lifecycle.edge import EdgeEvidence, RouteAnswer
from lifecycle.steps import CertificateTarget, EdgeReport

_CATCH_UP_SECONDS = 15.0
"""Envoy has a changed Secret a tenth of a second after the write; far more means that it does not come."""
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 1.0

_AT_ONCE = 32
"""Names and addresses looked at together: some dozen handshakes neither flood a gateway nor this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """How the edge is reached.

    Attributes:
        roots_pem: the roots that a served chain must lead to.
        allowed_networks: CIDRs that may be dialled although they are not public.
        timeout_seconds: for one connection or request.
        nameservers: "ip:port" that know a load balancer given by its name; empty for the system's.
    """

    roots_pem: bytes
    http_port: int = 80
    https_port: int = 443
    allowed_networks: tuple[str, ...] = ()
    timeout_seconds: float = 5.0
    nameservers: tuple[str, ...] = ()

    def allows(self, address: str) -> bool:
        """Whether an address may be dialled: a public one, or one in a listed network."""
        return edge.may_dial(address, self.allowed_networks)


@dataclass(slots=True)
class Look:
    """A verification under way; `words` says for people what is waited for."""

    words: str = "looking at every address of the gateway"
    reports: list[EdgeReport] = field(default_factory=list)


class EdgeActivities:
    """Activities that look at the edge, given the cluster's client."""

    def __init__(self, cluster: DynamicClient, settings: EdgeSettings) -> None:
        self._cluster = cluster
        self._settings = settings

    @activity.defn
    async def verify_edge(self, target: CertificateTarget) -> EdgeReport:
        """Whether every address serves the Secret's certificate, redirects HTTP and answers each route.

        Looks again for up to 15 s while the gateway catches up. Raises ApplicationError where the cluster cannot be
        read.
        """
        look = Look()
        return await attended(self.verify(target.request, look), lambda: look.words)

    async def verify(self, request: OnboardingRequest, look: Look) -> EdgeReport:
        """As `verify_edge`; `look` is told what is waited for."""
        deadline = asyncio.get_running_loop().time() + _CATCH_UP_SECONDS
        pause = _FIRST_PAUSE
        while True:
            report = await self._look(request)
            lasting = {finding.code for finding in report.findings} == {findings.EDGE_ADDRESS_REFUSED.code}
            if report.serving or lasting or asyncio.get_running_loop().time() > deadline:
                return report
            look.words = f"waiting for the edge to serve it: {report.findings[0].problem}"
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)

    async def _look(self, request: OnboardingRequest) -> EdgeReport:
        facts, problems = await read_secret(self._cluster, request)
        addresses = await gateway_addresses(self._cluster, request.gateway, self._settings.nameservers)
        fingerprint = facts.fingerprint if facts else ""
        if facts is None and not problems:
            problems = (secret_missing(request),)
        if not addresses:
            problem = f"Service {request.gateway.namespace}/{request.gateway.service} has no address."
            missing = findings.GATEWAY_ADDRESS_MISSING.found(
                subject=request.hostname, problem=problem, fix="Wait for the load balancer, or set externalIPs."
            )
            return EdgeReport(serving=False, fingerprint=fingerprint, findings=(*problems, missing))
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(address: str, hostname: str) -> EdgeEvidence:
            async with limit:
                return await probe(self._settings, request, address, hostname, fingerprint)

        seen = await asyncio.gather(*(one(address, name) for address in addresses for name in request.hostnames))
        http, https = self._settings.http_port, self._settings.https_port
        judged = [edge.served(evidence, fingerprint, http_port=http, https_port=https) for evidence in seen]
        wrong = tuple(finding for _, finding in judged if finding is not None)
        return EdgeReport(
            serving=not wrong and not findings.errors(problems),
            fingerprint=fingerprint,
            served=tuple(one for one, _ in judged),
            findings=(*problems, *wrong),
        )


async def probe(
    settings: EdgeSettings, request: OnboardingRequest, address: str, hostname: str, fingerprint: str
) -> EdgeEvidence:
    """What one address does for one hostname; no request is made over a certificate that is not the expected one.

    `fingerprint` is the Secret's. Never raises for what it finds.
    """

    def seen(**more: Any) -> EdgeEvidence:
        return EdgeEvidence(address=address, hostname=hostname, **more)

    if not settings.allows(address):
        return seen(refused=True)
    try:
        chain, protocol, cipher = await handshake(settings, address, hostname)
    except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError) as error:
        return seen(handshake=type(error).__name__)
    except (OSError, TimeoutError) as error:
        return seen(unreachable=type(error).__name__)
    tls: dict[str, Any] = {
        "leaf": x509.facts(ssl.DER_cert_to_PEM_cert(chain[0]).encode()),
        "distrust": said(x509.chain_problem(chain, settings.roots_pem, hostname, datetime.now(UTC))),
        "protocol": protocol,
        "cipher": cipher,
    }
    if tls["leaf"].fingerprint != fingerprint or tls["distrust"]:
        return seen(**tls)
    try:
        status, redirect, routes = await _requests(settings, request, address, hostname)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return seen(unanswered=type(error).__name__, **tls)
    return seen(redirect_status=status, redirect=redirect, routes=routes, **tls)


async def handshake(settings: EdgeSettings, address: str, hostname: str) -> tuple[tuple[bytes, ...], str, str]:
    """The chain that was presented (DER, leaf first), protocol and cipher; `settings.allows` is the caller's to ask.

    Raises OSError (ssl.SSLError included) and TimeoutError.
    """
    async with asyncio.timeout(settings.timeout_seconds):
        _, writer = await asyncio.open_connection(address, settings.https_port, ssl=_blind(), server_hostname=hostname)
    try:
        session = writer.get_extra_info("ssl_object")
        name, version, _ = session.cipher()
        return _presented(session), session.version() or version, name
    finally:
        writer.close()


def _presented(session: Any) -> tuple[bytes, ...]:
    """The chain as it was presented, DER, leaf first: public from Python 3.13 on, underneath before."""
    public: Callable[[], list[bytes]] | None = getattr(session, "get_unverified_chain", None)
    if public is not None:
        return tuple(public())
    return tuple(ssl.PEM_cert_to_DER_cert(part.public_bytes()) for part in session._sslobj.get_unverified_chain())


async def _requests(
    settings: EdgeSettings, request: OnboardingRequest, address: str, hostname: str
) -> tuple[int, str, tuple[RouteAnswer, ...]]:
    """Port 80's status and Location, and each route's answer; bodies are not read."""
    literal = f"[{address}]" if ":" in address else address
    headers = {"Host": hostname}
    # One connection for each request: the pool would take one that was made with another name's SNI.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(
        verify=_blind(), timeout=settings.timeout_seconds, trust_env=False, limits=limits
    ) as http:

        async def plain() -> tuple[int, str]:
            async with http.stream("GET", f"http://{literal}:{settings.http_port}/", headers=headers) as answer:
                return answer.status_code, said(answer.headers.get("location", ""))

        async def route(prefix: str) -> RouteAnswer:
            url = f"https://{literal}:{settings.https_port}{prefix}"
            sni = {"sni_hostname": hostname}
            async with http.stream("GET", url, headers=headers, extensions=sni) as answer:
                return edge.route_answer(prefix, answer.status_code, answer.headers)

        routes = asyncio.gather(*(route(one.prefix) for one in request.routes))
        (status, redirect), answers = await asyncio.gather(plain(), routes)
        return status, redirect, tuple(answers)


def _blind() -> ssl.SSLContext:
    """A handshake that accepts anything: what was presented is judged afterwards, and in words.

    Made for each connection, so it loads no trust store: that takes longer than the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
