"""What does port 80 of the gateway answer to a challenge's path? Each address, for each name.

Asked as a CA would ask, by HTTP on port 80 and without following a redirect: with a random token, or with that of a
challenge that is presented. Only public addresses are dialled unless the
operator lists a network. Left out: what the answers mean (`lifecycle.challenge_path`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable

import httpx

from lifecycle.challenge_path import PATH, Ending, PathAnswer
from lifecycle.diagnosis import said
from lifecycle.edge import from_upstream

_AT_ONCE = 32
"""As at the edge: some dozen requests neither flood a gateway nor this process."""

_LONGEST_HEADER, _MOST_BODY = 200, 1024


async def gather_challenge_path(
    hostnames: Iterable[str],
    addresses: Iterable[str],
    *,
    port: int,
    may_dial: Callable[[str], bool],
    timeout_seconds: float,
) -> tuple[PathAnswer, ...]:
    """One answer for each name at each address; wildcards are left out, since no challenge of this kind proves them.

    `timeout_seconds` for each request. Never raises for what it finds.
    """
    # RFC 8555, section 8.3: base64url, at least 128 bits of entropy
    asked = [(name, secrets.token_urlsafe(32)) for name in dict.fromkeys(hostnames) if not name.startswith("*.")]
    return await _gather(asked, addresses, port, may_dial, timeout_seconds, presented=False)


async def presented_challenge_path(
    challenges: Iterable[tuple[str, str]],
    addresses: Iterable[str],
    *,
    port: int,
    may_dial: Callable[[str], bool],
    timeout_seconds: float,
) -> tuple[PathAnswer, ...]:
    """As `gather_challenge_path`, of challenges that are presented, each as hostname and token."""
    return await _gather(challenges, addresses, port, may_dial, timeout_seconds, presented=True)


async def _gather(
    asked: Iterable[tuple[str, str]],
    addresses: Iterable[str],
    port: int,
    may_dial: Callable[[str], bool],
    timeout_seconds: float,
    *,
    presented: bool,
) -> tuple[PathAnswer, ...]:
    pairs = [(address, *question) for address in addresses for question in asked]
    limit = asyncio.Semaphore(_AT_ONCE)
    # One connection for each request, and no proxy of the environment: it is the gateway that is asked.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=timeout_seconds, trust_env=False, limits=limits) as http:

        async def one(address: str, hostname: str, token: str) -> PathAnswer:
            if not may_dial(address):
                return PathAnswer(hostname=hostname, address=address, ending=Ending.NOT_ALLOWED)
            async with limit:
                return await _answer(http, hostname, address, port, token, timeout_seconds, presented=presented)

        return tuple(await asyncio.gather(*(one(*pair) for pair in pairs)))


async def _answer(
    http: httpx.AsyncClient,
    hostname: str,
    address: str,
    port: int,
    token: str,
    timeout_seconds: float,
    *,
    presented: bool,
) -> PathAnswer:
    def ended(ending: Ending, error: Exception) -> PathAnswer:
        detail = said(str(error).replace(token, "<token>")) or type(error).__name__
        return PathAnswer(hostname=hostname, address=address, ending=ending, detail=detail)

    url = f"http://{f'[{address}]' if ':' in address else address}:{port}{PATH}{token}"
    try:
        async with (
            asyncio.timeout(2 * timeout_seconds),  # a server may trickle for as long as it likes
            http.stream("GET", url, headers={"Host": hostname}) as answer,
        ):
            return PathAnswer(
                hostname=hostname,
                address=address,
                ending=Ending.ANSWERED,
                status=answer.status_code,
                server=_cut(answer.headers.get("server", "")),
                location=_cut(answer.headers.get("location", "").replace(token, "<token>")),
                token_served=presented and await _serves(answer, token),
                upstream=from_upstream(answer.headers),
            )
    except (httpx.TimeoutException, TimeoutError) as error:
        return ended(Ending.TIMEOUT, error)
    except httpx.ConnectError as error:
        # no way there at all (no IPv6 here, say) is a fault on our side
        return ended(Ending.REFUSED if _refused(error) else Ending.BROKEN, error)
    except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as error:
        nothing = not isinstance(error, httpx.RemoteProtocolError) or "without sending" in str(error)
        return ended(Ending.RESET if nothing else Ending.BROKEN, error)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return ended(Ending.BROKEN, error)


async def _serves(answer: httpx.Response, token: str) -> bool:
    """Whether the body is a solver's: RFC 8555, section 8.1: the key authorization begins with the token."""
    if answer.status_code != 200:
        return False
    body = b""
    async for part in answer.aiter_bytes(_MOST_BODY):
        body += part
        if len(body) >= _MOST_BODY:
            break
    return body.startswith(f"{token}.".encode())


def _refused(error: BaseException) -> bool:
    """Whether a refusal of the connection is what this came from."""
    seen: list[BaseException | None] = [error]
    while seen:
        one = seen.pop()
        if isinstance(one, ConnectionRefusedError):
            return True
        if one is not None:
            seen += [one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ())]
    return False


def _cut(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_HEADER]
