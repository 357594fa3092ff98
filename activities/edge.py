"""What does the edge really serve? Every address of the gateway, for every name, as a client would see it.

Addresses come from the gateway's Service, and only public ones are dialled unless the operator lists a network, so
that nobody turns the probe against internal addresses. Left out: what to do about a difference.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity

from activities.gateways import gateway_addresses
from activities.issuance import read_secret
from lifecycle import findings, x509
from lifecycle.domain import OnboardingRequest, ServedAt
from lifecycle.findings import Finding, FindingKind
from lifecycle.steps import CertificateTarget, EdgeReport

_CATCH_UP_SECONDS = 15.0
"""Envoy has a changed Secret a tenth of a second after the write; far more means that it does not come."""
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """How the edge is reached.

    Attributes:
        roots_pem: the roots that a served chain must lead to.
        allowed_networks: CIDRs that may be dialled although they are not public.
        timeout_seconds: for one connection or request.
    """

    roots_pem: bytes
    http_port: int = 80
    https_port: int = 443
    allowed_networks: tuple[str, ...] = ()
    timeout_seconds: float = 5.0

    def allows(self, address: str) -> bool:
        """Whether an address may be dialled: a public one, or one in a listed network."""
        parsed = ipaddress.ip_address(address)
        return parsed.is_global or any(parsed in ipaddress.ip_network(network) for network in self.allowed_networks)


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
        deadline = asyncio.get_running_loop().time() + _CATCH_UP_SECONDS
        pause = _FIRST_PAUSE
        while True:
            report = await self._look(target.request)
            activity.heartbeat("the edge serves it" if report.serving else "waiting for the edge to serve it")
            if report.serving or asyncio.get_running_loop().time() > deadline:
                return report
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)

    async def _look(self, request: OnboardingRequest) -> EdgeReport:
        facts, problems = await read_secret(self._cluster, request)
        addresses = await gateway_addresses(self._cluster, request.gateway)
        fingerprint = facts.fingerprint if facts else ""
        if not addresses:
            problem = f"Service {request.gateway.namespace}/{request.gateway.service} has no address."
            missing = findings.GATEWAY_ADDRESS_MISSING.found(
                subject=request.hostname, problem=problem, fix="Wait for the load balancer, or set externalIPs."
            )
            return EdgeReport(serving=False, fingerprint=fingerprint, findings=(*problems, missing))
        async with httpx.AsyncClient(verify=_blind(), timeout=self._settings.timeout_seconds, trust_env=False) as http:
            seen = await asyncio.gather(
                *(
                    probe(self._settings, http, request, address, hostname, fingerprint)
                    for address in addresses
                    for hostname in request.hostnames
                )
            )
        wrong = tuple(_finding(one, kind) for one, kind in seen if kind is not None)
        return EdgeReport(
            serving=not wrong and not problems,
            fingerprint=fingerprint,
            served=tuple(one for one, _ in seen),
            findings=(*problems, *wrong),
        )


async def probe(
    settings: EdgeSettings,
    http: httpx.AsyncClient,
    request: OnboardingRequest,
    address: str,
    hostname: str,
    fingerprint: str,
) -> tuple[ServedAt, FindingKind | None]:
    """What one address serves for one hostname, and what kind of finding that is, None where all is well.

    `fingerprint` is the Secret's. Never raises for what it finds.
    """

    def seen(kind: FindingKind | None, problem: str, **more: Any) -> tuple[ServedAt, FindingKind | None]:
        known: dict[str, Any] = {"fingerprint": "", "chain_verified": False, **more}
        return ServedAt(address=address, hostname=hostname, problem=problem, **known), kind

    if not settings.allows(address):
        return seen(findings.EDGE_ADDRESS_REFUSED, "is not a public address and in no listed network")
    try:
        chain, protocol, cipher = await handshake(settings, address, hostname)
    except (OSError, TimeoutError, ssl.SSLError) as error:
        return seen(findings.EDGE_HANDSHAKE_FAILED, f"ends the TLS handshake: {type(error).__name__}")
    leaf = x509.facts(ssl.DER_cert_to_PEM_cert(chain[0]).encode())
    distrust = x509.chain_problem(chain, settings.roots_pem, hostname, datetime.now(UTC))
    tls = {
        "fingerprint": leaf.fingerprint,
        "chain_verified": not distrust,
        "protocol": protocol,
        "cipher": cipher,
    }
    if leaf.fingerprint != fingerprint:
        difference = f"serves certificate {leaf.fingerprint[:16]}, the Secret has {fingerprint[:16] or 'none'}"
        return seen(findings.EDGE_SERVES_OTHER_CERTIFICATE, difference, **tls)
    if distrust:
        words = f"serves a chain that leads to no expected root: {distrust}"
        return seen(findings.EDGE_CHAIN_UNTRUSTED, words, **tls)
    try:
        redirect, routes = await _requests(settings, http, request, address, hostname)
    except httpx.HTTPError as error:
        return seen(findings.ROUTE_NOT_ANSWERING, f"does not answer: {type(error).__name__}", **tls)
    if not redirect.startswith(f"https://{hostname}/"):
        words = f"answers HTTP with {redirect}, not with a redirect to https://{hostname}/"
        return seen(findings.EDGE_REDIRECT_WRONG, words, redirect=redirect, **tls)
    failing = [route for route in routes if route.rpartition(" ")[2] >= "500"]
    problem = f"has a route without an answer: {', '.join(failing)}" if failing else ""
    return seen(findings.ROUTE_NOT_ANSWERING if failing else None, problem, redirect=redirect, routes=routes, **tls)


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
    settings: EdgeSettings, http: httpx.AsyncClient, request: OnboardingRequest, address: str, hostname: str
) -> tuple[str, tuple[str, ...]]:
    literal = f"[{address}]" if ":" in address else address
    headers = {"Host": hostname}
    plain = await http.get(f"http://{literal}:{settings.http_port}/", headers=headers)
    redirect = plain.headers.get("location", "") if plain.status_code == 301 else f"status {plain.status_code}"
    answers = []
    for route in request.routes:
        url = f"https://{literal}:{settings.https_port}{route.prefix}"
        answer = await http.get(url, headers=headers, extensions={"sni_hostname": hostname})
        answers.append(f"{route.prefix} {answer.status_code}")
    return redirect, tuple(answers)


def _blind() -> ssl.SSLContext:
    """A handshake that accepts anything: what was presented is judged afterwards, and in words.

    Made for each connection, so it loads no trust store: that takes longer than the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _finding(served: ServedAt, kind: FindingKind) -> Finding:
    return kind.found(
        subject=served.hostname,
        problem=f"{served.address} {served.problem}.",
        fix=f"openssl s_client -connect {served.address}:443 -servername {served.hostname}",
    )
