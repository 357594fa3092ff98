"""What does port 80 of the gateway answer to a challenge's path? Each address, for each name, with a random token.

Asked as a CA would ask: by HTTP on port 80, without following a redirect. Only public addresses are dialled unless the
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

_LONGEST_HEADER = 200


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
    names = [name for name in dict.fromkeys(hostnames) if not name.startswith("*.")]
    limit = asyncio.Semaphore(_AT_ONCE)
    # One connection for each request, and no proxy of the environment: it is the gateway that is asked.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=timeout_seconds, trust_env=False, limits=limits) as http:

        async def one(hostname: str, address: str) -> PathAnswer:
            if not may_dial(address):
                return PathAnswer(hostname=hostname, address=address, ending=Ending.NOT_ALLOWED)
            async with limit:
                return await _answer(http, hostname, address, port, timeout_seconds)

        return tuple(await asyncio.gather(*(one(name, address) for address in addresses for name in names)))


async def _answer(
    http: httpx.AsyncClient, hostname: str, address: str, port: int, timeout_seconds: float
) -> PathAnswer:
    token = secrets.token_urlsafe(32)  # RFC 8555, section 8.3: base64url, at least 128 bits of entropy

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
