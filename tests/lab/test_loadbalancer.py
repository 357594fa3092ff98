"""The lab's load balancer passes bytes through, and each of its addresses can be broken by itself."""

from __future__ import annotations

import asyncio

import pytest

from lab.loadbalancer import Address, Fault, LoadBalancer
from lab.ports import free_ports


async def answering(word: bytes) -> tuple[asyncio.Server, Address]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(word + await reader.read())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    return server, Address(host=host, port=port)


async def ask(address: Address) -> bytes:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"hello")
    writer.write_eof()
    said = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return said


async def test_each_address_forwards_and_fails_by_itself() -> None:
    good, good_at = await answering(b"good ")
    stale, stale_at = await answering(b"stale ")
    (port,) = free_ports(1)
    balancer = LoadBalancer()
    one = await balancer.add(Address(host="127.0.0.1", port=port), good_at)
    two = await balancer.add(Address(host="127.0.0.2", port=port), good_at)
    try:
        assert b"good hello" == await ask(one) == await ask(two)
        await balancer.break_(two, stale_at)
        assert (await ask(one), await ask(two)) == (b"good hello", b"stale hello")
        await balancer.break_(two, Fault.REFUSE)
        with pytest.raises(OSError, match=r".*"):
            await ask(two)
        assert await ask(one) == b"good hello"
        await balancer.mend(two)
        assert await ask(two) == b"good hello"
    finally:
        await balancer.close()
        good.close()
        stale.close()
