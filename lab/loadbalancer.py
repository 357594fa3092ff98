"""The cloud's load balancer in front of the gateway: TCP from public addresses to Envoy's ports.

Each front is an address and port that clients dial (127.0.0.1 and 127.0.0.2, the same port numbers), each with a
backend. Faults are set per front: refuse connections, accept and stay silent, or lead somewhere else (to a server
with a stale certificate). Bytes pass through untouched, half-closed connections included; TLS is not looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from enum import StrEnum

_CHUNK = 64 * 1024
_DIAL_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Address:
    """A TCP address: a literal IP and a port number."""

    host: str
    port: int


class Fault(StrEnum):
    """What a front does instead of forwarding."""

    REFUSE = "refuse"
    BLACKHOLE = "blackhole"


@dataclasses.dataclass(slots=True, kw_only=True)
class _Front:
    listen: Address
    backend: Address
    fault: Fault | Address | None = None
    server: asyncio.Server | None = None
    connections: set[asyncio.Task[None]] = dataclasses.field(default_factory=set)


class LoadBalancer:
    """Forwards TCP from several fronts to their backends, with faults that can be switched."""

    def __init__(self) -> None:
        self._fronts: dict[Address, _Front] = {}

    @property
    def fronts(self) -> tuple[Address, ...]:
        """What clients can dial."""
        return tuple(self._fronts)

    async def add(self, listen: Address, backend: Address) -> Address:
        """Open a front; port 0 takes a free one. Returns what it listens on. Raises OSError where it is taken."""
        front = _Front(listen=listen, backend=backend)
        await self._open(front)
        self._fronts[front.listen] = front
        return front.listen

    def forward(self, listen: Address, backend: Address) -> None:
        """New connections of a front go to another backend from now on. Raises KeyError for an unknown front."""
        self._fronts[listen].backend = backend

    async def break_(self, listen: Address, fault: Fault | Address) -> None:
        """Set a fault on a front, and cut its connections; an Address leads them elsewhere."""
        front = self._fronts[listen]
        front.fault = fault
        await self._cut(front)
        if fault is Fault.REFUSE:
            await self._shut(front)
        elif front.server is None:
            await self._open(front)

    async def mend(self, listen: Address) -> None:
        """Take a front's fault away."""
        front = self._fronts[listen]
        front.fault = None
        await self._cut(front)
        if front.server is None:
            await self._open(front)

    def faults(self) -> dict[Address, str]:
        """The fronts that are broken, and how: a fault's name, or the address that they lead to."""
        return {
            listen: f"{front.fault.host}:{front.fault.port}" if isinstance(front.fault, Address) else front.fault.value
            for listen, front in self._fronts.items()
            if front.fault is not None
        }

    async def close(self) -> None:
        """Stop listening and cut every connection."""
        for front in self._fronts.values():
            await self._shut(front)
            await self._cut(front)
        self._fronts.clear()

    async def _open(self, front: _Front) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                front.connections.add(task)
            try:
                await self._serve(front, reader, writer)
            except asyncio.CancelledError:
                writer.transport.abort()
            finally:
                if task is not None:
                    front.connections.discard(task)

        front.server = await asyncio.start_server(accept, front.listen.host, front.listen.port, limit=_CHUNK)
        host, port = front.server.sockets[0].getsockname()[:2]
        front.listen = Address(host=host, port=port)

    async def _shut(self, front: _Front) -> None:
        server, front.server = front.server, None
        if server is not None:
            server.close()

    async def _cut(self, front: _Front) -> None:
        connections = list(front.connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, front: _Front, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if front.fault is Fault.BLACKHOLE:
            await asyncio.Event().wait()
        backend = front.fault if isinstance(front.fault, Address) else front.backend
        try:
            opening = asyncio.open_connection(backend.host, backend.port, limit=_CHUNK)
            upstream_reader, upstream_writer = await asyncio.wait_for(opening, _DIAL_SECONDS)
        except (OSError, TimeoutError):
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_pump(reader, upstream_writer), _pump(upstream_reader, writer))
        except (OSError, EOFError):
            writer.transport.abort()
        finally:
            upstream_writer.transport.abort() if writer.transport.is_closing() else upstream_writer.close()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof() and not writer.transport.is_closing():
        writer.write_eof()
