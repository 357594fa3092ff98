"""What does a client see, whatever the product says? A witness that uses nothing of the product.

It dials the gateway's addresses as a browser would: the chain must lead to the CA's root and the name must match, or
the handshake fails. It reads the Secret as the cluster's administrator, and it keeps requesting while something is
changed, counting what was lost. Evidence of the demo and of the end-to-end tests comes from here.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from lab.api import Api

_DIAL_SECONDS = 5.0
_PAUSE_SECONDS = 0.02


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What one address served for one name: SHA-256 of the certificate, and whether the client trusted it."""

    address: str
    hostname: str
    fingerprint: str = ""
    protocol: str = ""
    cipher: str = ""
    problem: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer: status, where it redirects to, and which application wrote it (the demo's say so)."""

    status: int
    location: str = ""
    app: str = ""


@dataclasses.dataclass(slots=True)
class Traffic:
    """Requests made and lost, why they were lost, and which certificates the clients saw."""

    made: int = 0
    lost: int = 0
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    fingerprints: Counter[str] = dataclasses.field(default_factory=Counter)


class Witness:
    """A client of the gateway that trusts `roots` (a PEM file) alone."""

    def __init__(self, roots: Path, addresses: tuple[str, ...], http_port: int, https_port: int) -> None:
        self._trust = ssl.create_default_context(cafile=str(roots))
        self.addresses = addresses
        self._http_port = http_port
        self._https_port = https_port

    async def served(self, address: str, hostname: str) -> Served:
        """One verified handshake; `problem` says why it failed."""
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                _, writer = await asyncio.open_connection(
                    address, self._https_port, ssl=self._trust, server_hostname=hostname
                )
        except (OSError, TimeoutError) as error:
            return Served(address=address, hostname=hostname, problem=str(error) or type(error).__name__)
        session: ssl.SSLObject = writer.get_extra_info("ssl_object")
        leaf, cipher = session.getpeercert(binary_form=True), session.cipher()
        writer.transport.abort()
        return Served(
            address=address,
            hostname=hostname,
            fingerprint=hashlib.sha256(leaf or b"").hexdigest(),
            protocol=session.version() or "",
            cipher=cipher[0] if cipher else "",
        )

    async def served_everywhere(self, *hostnames: str) -> tuple[Served, ...]:
        """Every name on every address."""
        looks = (self.served(address, hostname) for address in self.addresses for hostname in hostnames)
        return tuple(await asyncio.gather(*looks))

    async def get(self, address: str, hostname: str, path: str, *, https: bool = True) -> Answer:
        """One request on a connection of its own. Raises aiohttp.ClientError."""
        async with self._session(keep=False) as session, self._request(session, address, hostname, path, https) as got:
            app = (await got.json()).get("app", "") if got.content_type == "application/json" else ""
            return Answer(status=got.status, location=got.headers.get("Location", ""), app=app)

    @contextlib.asynccontextmanager
    async def traffic(self, hostname: str, *, clients: int = 4) -> AsyncIterator[Traffic]:
        """Clients that request for as long as the block: half on kept connections, half on a new one each time.

        One observer for each address only shakes hands, and notes which certificate it was given.
        """
        seen, stop = Traffic(), asyncio.Event()

        async def client(number: int) -> None:
            address = self.addresses[number % len(self.addresses)]
            async with self._session(keep=number * 2 < clients) as session:
                while not stop.is_set():
                    await self._one(seen, session, address, hostname)
                    await asyncio.sleep(_PAUSE_SECONDS)

        async def observer(address: str) -> None:
            while not stop.is_set():
                served = await self.served(address, hostname)
                seen.made += 1
                if served.problem:
                    seen.lost += 1
                    seen.reasons[served.problem] += 1
                else:
                    seen.fingerprints[served.fingerprint] += 1
                await asyncio.sleep(_PAUSE_SECONDS)

        async with asyncio.TaskGroup() as group:
            for address in self.addresses:
                group.create_task(observer(address))
            for number in range(clients):
                group.create_task(client(number))
            try:
                yield seen
            finally:
                stop.set()

    async def _one(self, seen: Traffic, session: aiohttp.ClientSession, address: str, hostname: str) -> None:
        seen.made += 1
        try:
            async with self._request(session, address, hostname, "/", https=True) as answer:
                await answer.read()
                if answer.status != 200:
                    seen.lost += 1
                    seen.reasons[f"status {answer.status}"] += 1
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            seen.lost += 1
            seen.reasons[type(error).__name__] += 1

    def _session(self, *, keep: bool) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self._trust, force_close=not keep)
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=_DIAL_SECONDS))

    def _request(
        self, session: aiohttp.ClientSession, address: str, hostname: str, path: str, https: bool
    ) -> aiohttp.client._RequestContextManager:
        scheme, port = ("https", self._https_port) if https else ("http", self._http_port)
        return session.get(
            f"{scheme}://{address}:{port}{path}",
            headers={"Host": hostname},
            server_hostname=hostname if https else None,
            allow_redirects=False,
        )


async def secret_fingerprint(api: Api, namespace: str, name: str) -> str:
    """SHA-256 of the certificate in a TLS Secret. Raises lab.api.ApiError, ValueError."""
    secret = await api.call("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
    return (
        x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"])).fingerprint(hashes.SHA256()).hex()
    )
