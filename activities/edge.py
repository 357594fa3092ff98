"""What does the edge really serve? Every address of the gateway, for every name, as a client would see it.

Addresses come from the gateway's Service, and only public ones are dialled unless the operator lists a network, so
that nobody turns the probe against internal addresses. Where the names point is asked too where that is wished for.
Left out: whether what was seen is right (`lifecycle.edge`), and what to do about a difference.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity

from activities import lookups
from activities.attended import attended
from activities.gateways import gateway_addresses, read_client_ca
from activities.issuance import read_secret, secret_missing
from activities.trust import expected_roots
from lifecycle import client_ca, edge, findings, names, x509
from lifecycle.diagnosis import said
from lifecycle.domain import OnboardingRequest, Route, TlsMode
from lifecycle.edge import Attempt, EdgeEvidence, Met, RouteAnswer, Trial
from lifecycle.routing import routing_verdict
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
        nameservers: "ip:port" that customers' names, and a load balancer given by its name, are asked of; empty for
            the system's.
        dns_timeout: seconds for one question to them.
        cname_target: a name of ours that customers may alias theirs to; empty where they set addresses.
        client_certificate, client_key: PEM files of a client that gateways which ask for one know, or None: then their
            routes are not asked, and the evidence says so.
    """

    roots_pem: bytes
    http_port: int = 80
    https_port: int = 443
    allowed_networks: tuple[str, ...] = ()
    timeout_seconds: float = 5.0
    nameservers: tuple[str, ...] = ()
    dns_timeout: float = 3.0
    cname_target: str = ""
    client_certificate: Path | None = None
    client_key: Path | None = None

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

        Looks again for up to 15 s while the gateway catches up. Where it is asked for, the DNS is asked at the same
        time. Raises ApplicationError where the cluster cannot be read.
        """
        look = Look()
        work = self._with_routing if target.with_routing else self.verify
        return await attended(work(target.request, look), lambda: look.words)

    async def _with_routing(self, request: OnboardingRequest, look: Look) -> EdgeReport:
        settings = self._settings
        asked = lookups.ask_all(request.hostnames, settings.nameservers, settings.dns_timeout, may_dial=settings.allows)
        report, answers = await asyncio.gather(self.verify(request, look), asked)
        addresses = tuple(dict.fromkeys(one.address for one in report.served))
        if not addresses:
            return report  # there is nothing to compare with, which the report says
        verdict = routing_verdict(answers, addresses, settings.cname_target)
        return dataclasses.replace(
            report, routing=verdict.status, action_required=verdict.action_required, routing_findings=verdict.findings
        )

    async def verify(self, request: OnboardingRequest, look: Look) -> EdgeReport:
        """As `verify_edge`; `look` is told what is waited for."""
        deadline = asyncio.get_running_loop().time() + _CATCH_UP_SECONDS
        pause = _FIRST_PAUSE
        settings = dataclasses.replace(
            self._settings, roots_pem=await expected_roots(self._cluster, request, self._settings.roots_pem)
        )
        while True:
            report = await self._look(request, settings)
            lasting = {finding.code for finding in report.findings} == {findings.EDGE_ADDRESS_REFUSED.code}
            if report.serving or lasting or asyncio.get_running_loop().time() > deadline:
                return report
            look.words = f"waiting for the edge to serve it: {report.findings[0].problem}"
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)

    async def _look(self, request: OnboardingRequest, settings: EdgeSettings) -> EdgeReport:
        facts, problems = await read_secret(self._cluster, request)
        addresses = await gateway_addresses(self._cluster, request.gateway, self._settings.nameservers)
        fingerprint = facts.fingerprint if facts else ""
        ours = await self._known_client(request)
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
                return await probe(settings, request, address, hostname, fingerprint, known_client=ours)

        seen = await asyncio.gather(*(one(address, name) for address in addresses for name in request.hostnames))
        http, https = self._settings.http_port, self._settings.https_port
        hsts = request.hsts.header if request.hsts else ""
        judged = [
            edge.served(one, fingerprint, http_port=http, https_port=https, tls=request.tls, hsts=hsts) for one in seen
        ]
        wrong = tuple(finding for _, finding in judged if finding is not None)
        return EdgeReport(
            serving=not wrong and not findings.errors(problems),
            fingerprint=fingerprint,
            served=tuple(one for one, _ in judged),
            findings=(*problems, *wrong),
        )

    async def _known_client(self, request: OnboardingRequest) -> bool:
        """Whether the client certificate that we were given is one that the domain's gateway must take."""
        certificate = self._settings.client_certificate
        if certificate is None or not request.tls.asks_clients:
            return False
        authority = await read_client_ca(self._cluster, request)
        return client_ca.signed(await asyncio.to_thread(certificate.read_bytes), authority)


async def probe(
    settings: EdgeSettings,
    request: OnboardingRequest,
    address: str,
    hostname: str,
    fingerprint: str,
    *,
    known_client: bool = False,
) -> EdgeEvidence:
    """What one address does for one hostname; no request is made over a certificate that is not the expected one.

    `fingerprint` is the Secret's; `known_client` whether the gateway must take our client certificate. A wildcard is
    asked by one of its names. Never raises for what it finds.
    """

    def seen(**more: Any) -> EdgeEvidence:
        return EdgeEvidence(address=address, hostname=hostname, **more)

    asked = names.probed_name(hostname)
    if not settings.allows(address):
        return seen(refused=True)
    ours = settings if known_client else dataclasses.replace(settings, client_certificate=None, client_key=None)
    try:
        chain, protocol, cipher = await handshake(ours, address, asked)
    except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError) as error:
        words = type(error).__name__
        if request.tls.mode is TlsMode.MUTUAL and not known_client:
            # only TLS 1.3 shows the server's certificate to a client that is then refused (RFC 8446, section 4.4.2)
            words += "; without CERTWRIGHT_EDGE_CLIENT_CERTIFICATE_FILE of the clients' CA nothing is seen in TLS 1.2"
        return seen(handshake=words)
    except (OSError, TimeoutError) as error:
        return seen(unreachable=type(error).__name__)
    tls: dict[str, Any] = {
        "leaf": x509.facts(ssl.DER_cert_to_PEM_cert(chain[0]).encode()),
        "distrust": said(x509.chain_problem(chain, settings.roots_pem, asked, datetime.now(UTC))),
        "protocol": protocol,
        "cipher": cipher,
    }
    if tls["leaf"].fingerprint != fingerprint or tls["distrust"]:
        return seen(**tls)
    if hostname == request.hostname:
        tls["trials"] = await _trials(ours, request, address, asked)
    try:
        status, redirect, routes = await _requests(ours, request, address, asked)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return seen(unanswered=type(error).__name__, **tls)
    return seen(redirect_status=status, redirect=redirect, routes=routes, **tls)


async def handshake(settings: EdgeSettings, address: str, hostname: str) -> tuple[tuple[bytes, ...], str, str]:
    """The chain that was presented (DER, leaf first), protocol and cipher; `settings.allows` is the caller's to ask.

    Raises OSError (ssl.SSLError included) and TimeoutError.
    """
    async with asyncio.timeout(settings.timeout_seconds):
        _, writer = await asyncio.open_connection(
            address, settings.https_port, ssl=_blind(settings), server_hostname=hostname
        )
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


async def _trials(settings: EdgeSettings, request: OnboardingRequest, address: str, hostname: str) -> tuple[Trial, ...]:
    """Clients that the gateway must refuse, or must take, tried one after the other: a few, on one name."""
    stranger = dataclasses.replace(settings, client_certificate=None, client_key=None)
    found = [await _tried(stranger, attempt, address, hostname) for attempt in edge.trials(request)]
    if request.tls.asks_clients:
        client = "with a certificate of the clients' CA"
        if settings.client_certificate is None:
            words = "the worker was given none of this CA: CERTWRIGHT_EDGE_CLIENT_CERTIFICATE_FILE"
            if request.tls.mode is TlsMode.MUTUAL:
                words += "; routes were not asked"
            found.append(Trial(client=client, wanted=Met.UNTRIED, met=Met.UNTRIED, words=words))
        else:
            found.append(await _tried(settings, Attempt(client=client, wanted=Met.ACCEPTED), address, hostname))
    return tuple(found)


async def _tried(settings: EdgeSettings, attempt: Attempt, address: str, hostname: str) -> Trial:
    """What one client met. A handshake of TLS 1.3 is over before a server has judged the client: so it asks, too."""

    def met(what: Met, words: str = "") -> Trial:
        return Trial(client=attempt.client, wanted=attempt.wanted, met=what, words=words)

    context = _blind(settings)
    # an old version needs the library's own guard down: it is to be the server that refuses (OpenSSL, SECLEVEL)
    context.set_ciphers(":".join(attempt.ciphers or ("ALL",)) + ":@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion[attempt.lowest] if attempt.lowest else ssl.TLSVersion.TLSv1
        context.maximum_version = (
            ssl.TLSVersion[attempt.highest] if attempt.highest else ssl.TLSVersion.MAXIMUM_SUPPORTED
        )
    if attempt.stranger:
        await asyncio.to_thread(_introduce_stranger, context)
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            reader, writer = await asyncio.open_connection(
                address, settings.https_port, ssl=context, server_hostname=hostname
            )
            try:
                writer.write(f"HEAD / HTTP/1.1\r\nHost: {hostname}\r\nConnection: close\r\n\r\n".encode())
                answered = await reader.read(1)
            finally:
                writer.close()
    except ssl.SSLError as error:
        reason = (error.reason or type(error).__name__).replace("_", " ").lower()
        return met(Met.UNTRIED if error.reason in _OUR_OWN else Met.REFUSED, said(reason))
    except (ConnectionResetError, ConnectionAbortedError, BrokenPipeError) as error:
        return met(Met.REFUSED, type(error).__name__)
    except (OSError, TimeoutError) as error:
        return met(Met.UNTRIED, type(error).__name__)
    return met(Met.ACCEPTED) if answered else met(Met.REFUSED, "the connection was closed")


_OUR_OWN = {"NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE", "NO_CIPHER_MATCH", "LIBRARY_BUG"}
"""OpenSSL's reasons for not even asking: they say nothing of the server."""


def _introduce_stranger(context: ssl.SSLContext) -> None:
    """Give the client a certificate that nobody has signed, made for the occasion and gone at once."""
    certificate, key = x509.stranger(datetime.now(UTC))
    # the library takes keys from files only
    with tempfile.TemporaryDirectory(prefix="certwright-") as directory:
        path = Path(directory) / "stranger.pem"
        path.touch(mode=0o600)
        path.write_bytes(certificate + key)
        context.load_cert_chain(path)


async def _requests(
    settings: EdgeSettings, request: OnboardingRequest, address: str, hostname: str
) -> tuple[int, str, tuple[RouteAnswer, ...]]:
    """Port 80's status and Location, and each route's answer; bodies are not read.

    Of a gateway that wants a certificate which we have not, no route is asked.
    """
    literal = f"[{address}]" if ":" in address else address
    headers = {"Host": hostname}
    # One connection for each request: the pool would take one that was made with another name's SNI.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(
        verify=_blind(settings), timeout=settings.timeout_seconds, trust_env=False, limits=limits
    ) as http:

        async def plain() -> tuple[int, str]:
            async with http.stream("GET", f"http://{literal}:{settings.http_port}/", headers=headers) as answer:
                return answer.status_code, said(answer.headers.get("location", ""))

        async def route(asked: Route) -> RouteAnswer:
            url = f"https://{literal}:{settings.https_port}{asked.prefix}"
            sni = {"sni_hostname": hostname}
            wanted = headers | {header.name: header.value for header in asked.headers}
            async with http.stream("GET", url, headers=wanted, extensions=sni) as answer:
                return edge.route_answer(edge.label(asked), answer.status_code, answer.headers)

        closed = request.tls.mode is TlsMode.MUTUAL and settings.client_certificate is None
        routes = asyncio.gather(*(route(one) for one in request.routes if not closed))
        (status, redirect), answers = await asyncio.gather(plain(), routes)
        return status, redirect, tuple(answers)


def _blind(settings: EdgeSettings) -> ssl.SSLContext:
    """A handshake that accepts anything: what was presented is judged afterwards, and in words.

    Made for each connection, so it loads no trust store: that takes longer than the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if settings.client_certificate is not None:
        context.load_cert_chain(settings.client_certificate, settings.client_key)
    return context
