"""How a request to the challenge's path ends is told as what it is, against real servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from activities.challenge_path import gather_challenge_path
from lifecycle.challenge_path import PATH, Ending, PathAnswer

HEARD: list[bytes] = []


@contextlib.asynccontextmanager
async def serving(answer: bytes | None) -> AsyncIterator[int]:
    """A server that answers each request with these octets, or with none; b"" ends the connection at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            HEARD.append(await reader.readuntil(b"\r\n\r\n"))
            if answer is None:
                await asyncio.sleep(30)
            token = HEARD[-1].split()[1].rpartition(b"/")[2]
            writer.write((answer or b"").replace(b"TOKEN", token))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def asked(port: int, *addresses: str) -> PathAnswer:
    (answer,) = await gather_challenge_path(
        ("shop.example.com", "*.example.com", "shop.example.com"),
        addresses or ("127.0.0.1",),
        port=port,
        may_dial=lambda address: address != "10.0.0.7",
        timeout_seconds=0.3,
    )
    return answer


REDIRECT = (
    b"HTTP/1.1 301 Moved\r\nserver: istio-envoy\r\ncontent-length: 0\r\n"
    b"location: https://shop.example.com/.well-known/acme-challenge/TOKEN\r\n\r\n"
)


async def test_a_redirect_is_told_without_the_token_and_not_followed() -> None:
    HEARD.clear()
    async with serving(REDIRECT) as port:
        answer = await asked(port)
    assert (answer.ending, answer.status, answer.server) == (Ending.ANSWERED, 301, "istio-envoy")
    assert answer.location == f"https://shop.example.com{PATH}<token>"
    (request,) = HEARD
    assert request.startswith(b"GET /.well-known/acme-challenge/")
    assert b"host: shop.example.com\r\n" in request.lower()
    assert len(request.split()[1].rpartition(b"/")[2]) == 43, "256 bits in base64url"


async def test_an_answer_of_an_application_is_told_from_the_gateways_own() -> None:
    async with serving(b"HTTP/1.1 503 No\r\nx-envoy-upstream-service-time: 3\r\ncontent-length: 0\r\n\r\n") as port:
        assert (await asked(port)).upstream
    async with serving(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n") as port:
        assert not (await asked(port)).upstream


@pytest.mark.parametrize(
    ("answer", "ending"),
    [(None, Ending.TIMEOUT), (b"", Ending.RESET), (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", Ending.BROKEN)],
)
async def test_what_is_no_answer_is_told_by_how_it_ended(answer: bytes | None, ending: Ending) -> None:
    async with serving(answer) as port:
        seen = await asked(port)
    assert (seen.ending, seen.status) == (ending, 0)


async def test_a_port_that_nobody_listens_on_refuses() -> None:
    async with serving(b"") as port:
        pass
    assert (await asked(port)).ending is Ending.REFUSED


async def test_an_address_that_may_not_be_dialled_is_not() -> None:
    HEARD.clear()
    async with serving(b"") as port:
        assert (await asked(port, "10.0.0.7")).ending is Ending.NOT_ALLOWED
    assert HEARD == []
