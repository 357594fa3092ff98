"""One listener that answers for every acmesolver Pod of a lab.

cert-manager starts one Pod for each HTTP-01 challenge, all on port 8089. Pods share the host's network here, so
only one process could have that port: the node starts no process for such a Pod but registers its domain, token and
key here, and takes them back when the Pod goes. The listener's own port is free-chosen (`lab.ports`), so labs don't
meet.

Answers are acmesolver's (cert-manager `pkg/issuer/acme/http/solver`): the key for the exact Host and challenge path
of a running solver, 404 for anything else, 200 for health checks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from aiohttp import web

CHALLENGE_PATH = "/.well-known/acme-challenge/"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What one acmesolver Pod answers: `key` (the key authorization, RFC 8555 section 8.1) for `token` on `domain`."""

    domain: str
    token: str
    key: str = dataclasses.field(repr=False)

    @classmethod
    def of_arguments(cls, arguments: Sequence[str]) -> Solution:
        """From acmesolver's own flags. Raises ValueError where one is missing."""
        given: dict[str, str] = {}
        words = iter(arguments)
        for word in words:
            name, equals, value = word.removeprefix("--").partition("=")
            given[name] = value if equals else next(words, "")
        try:
            return cls(domain=given["domain"].lower(), token=given["token"], key=given["key"])
        except KeyError as missing:
            raise ValueError(f"acmesolver needs --{missing.args[0]}") from None


class SolverListener:
    """Serves all registered solutions from one port of this host."""

    def __init__(self, *, address: str, port: int) -> None:
        self._address = address
        self._port = port
        self._solutions: dict[str, Solution] = {}
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. Raises OSError where the port is taken."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._address, self._port).start()

    async def stop(self) -> None:
        """Stop listening; running answers end first."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def register(self, pod: str, solution: Solution) -> None:
        """Answer for the Pod with this uid from now on."""
        self._solutions[pod] = solution

    def unregister(self, pod: str) -> None:
        """The Pod has gone."""
        self._solutions.pop(pod, None)

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path in {"/", "/healthz"}:
            return web.Response(text="")
        host = (request.host or "").rsplit(":", 1)[0].lower()
        for solution in self._solutions.values():
            if host == solution.domain and request.path == CHALLENGE_PATH + solution.token:
                return web.Response(text=solution.key, content_type="text/plain")
        return web.Response(status=404, text="no solver for this name and token\n")
