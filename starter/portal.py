"""The portal's HTTP API: parses, starts or joins, and shows. Who asks is who the token says.

Errors are problem details (RFC 9457) that name every field at once and say what to do. Another tenant's domain is
answered exactly like one that does not exist. What the answers hold is described in `openapi`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NoReturn

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from temporalio.client import Client

from activities.temporal import TemporalAwayError, away_if_unreachable
from lifecycle.domain import OnboardingRequest, Phase
from lifecycle.names import Hostname, parse_hostname
from lifecycle.progress import ENDED
from lifecycle.requests import FieldError, parse_onboarding
from starter import domains, issuers, openapi
from starter.openapi import PROBLEMS, DomainRequested, Health, Problem
from starter.settings import DoorSettings
from starter.shown import plain
from starter.tokens import Tokens

LARGEST_BODY = 64 * 1024
"""Octets: a hundred names and fifty routes are about 20 KB."""

_BODY_SECONDS = 10.0
_AT_ONCE = 64
"""Updates that the portal waits for at once, each for up to 40 s; beyond it callers are asked to come again."""

_RETRY_SECONDS = "2"
_HEALTH = timedelta(seconds=2)

log = structlog.stdlib.get_logger("certwright.portal")

Handler = Callable[[Request, str], Awaitable[Response]]


class ProblemError(Exception):
    """A problem to answer with; `kind` is one of `openapi.PROBLEMS`."""

    def __init__(self, kind: str, detail: str = "", errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(kind)
        self.kind = kind
        self.detail = detail
        self.errors = errors


def application(client: Client, settings: DoorSettings, tokens: Tokens) -> Starlette:
    """The portal as an ASGI application."""
    portal = Portal(client, settings, tokens)
    return Starlette(
        routes=[
            Route("/v1/domains", portal.api(portal.onboard), methods=["POST"]),
            Route("/v1/domains", portal.api(portal.listed), methods=["GET"]),
            Route("/v1/domains/{hostname}", portal.api(portal.read), methods=["GET"]),
            Route("/v1/domains/{hostname}", portal.api(portal.cancel), methods=["DELETE"]),
            Route("/v1/domains/{hostname}/check", portal.api(portal.check), methods=["POST"]),
            Route("/v1/domains/{hostname}/fix", portal.api(portal.fix), methods=["POST"]),
            Route("/v1/domains/{hostname}/renew", portal.api(portal.renew), methods=["POST"]),
            Route("/healthz", portal.health, methods=["GET"]),
            Route("/openapi.json", _openapi, methods=["GET"]),
            Route("/docs", _docs, methods=["GET"]),
            Route("/problems/{kind}", _described, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_problem, Exception: _fault},
    )


async def serve(client: Client, settings: DoorSettings, tokens: Tokens) -> None:
    """Serve until SIGTERM or SIGINT; what is being answered then is answered."""
    host, port = settings.address
    config = uvicorn.Config(
        application(client, settings, tokens),
        host=host,
        port=port,
        ssl_certfile=settings.tls[0] if settings.tls else None,
        ssl_keyfile=settings.tls[1] if settings.tls else None,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=int(domains.ASK.total_seconds()),
        limit_concurrency=1000,
        h11_max_incomplete_event_size=32 * 1024,
    )
    log.info("portal serving", host=host, port=port, tls=bool(settings.tls))
    server = _Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.end)
    await server.serve()
    log.info("portal ended")


class _Server(uvicorn.Server):
    """uvicorn's server, ended by us: its own handlers raise the signal again, and the exit code is lost."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        """Answer what is being answered, then end; at once when asked twice."""
        self.force_exit = self.should_exit
        self.should_exit = True


class Portal:
    """The handlers of one portal, given its client."""

    def __init__(self, client: Client, settings: DoorSettings, tokens: Tokens) -> None:
        self._client = client
        self._settings = settings
        self._tokens = tokens
        self._asking = asyncio.Semaphore(_AT_ONCE)

    def api(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """A handler behind authentication; its errors become problems, and each call one event."""

        async def answer(request: Request) -> Response:
            began = time.perf_counter()
            tenant = self._authenticated(request)
            response = (
                problem("not-authenticated") if tenant is None else await self._answered(handler, request, tenant)
            )
            response.headers["Cache-Control"] = "no-store"
            response.headers["X-Content-Type-Options"] = "nosniff"
            log.info(
                "request",
                method=request.method,
                path=request.url.path[:300],
                status=response.status_code,
                tenant=tenant or "",
                milliseconds=round((time.perf_counter() - began) * 1000),
            )
            return response

        return answer

    def _authenticated(self, request: Request) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return self._tokens.tenant(token.strip()) if scheme.lower() == "bearer" else None

    async def _answered(self, handler: Handler, request: Request, tenant: str) -> Response:
        try:
            return await handler(request, tenant)
        except ProblemError as error:
            return problem(error.kind, error.detail, error.errors)
        except domains.DomainUnknownError:
            return problem("unknown")
        except domains.NotAvailableError:
            return problem("name-not-available")
        except domains.RetiredError:
            return problem("retired")
        except domains.NotNowError as error:
            return problem("not-now", str(error))
        except domains.TooManyError:
            return problem("too-many")
        except domains.UnpreparedError as error:
            fix = "certwright search-attributes apply"
            log.error("search attributes missing", reason=str(error), fix=fix)
            return problem("temporal-away", "The service is not set up yet.")
        except TemporalAwayError as error:
            log.warning("temporal away", reason=str(error))
            return problem("temporal-away")
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it

    # --- the operations ---------------------------------------------------------------------------------------------

    async def onboard(self, request: Request, tenant: str) -> Response:
        """POST /v1/domains."""
        again = _flag(request, "again")
        key = request.headers.get("idempotency-key", "")
        if len(key) > 200 or not key.isprintable():
            fault = FieldError(
                field="Idempotency-Key", value="", problem="is too long", fix="send up to 200 characters"
            )
            raise ProblemError("invalid-request", errors=(fault,))
        parsed = await self._parsed(await _body(request), tenant)
        # The tenant is part of the id: the same key of another tenant must not fetch this one's answer.
        update_id = hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest() if key else ""
        asked = await self._bounded(domains.onboard(self._client, parsed, update_id=update_id, again=again))
        joined = asked.answer is not None and asked.answer.joined
        answer = DomainRequested(
            hostname=asked.hostname, joined=joined, status=asked.answer.status if asked.answer else None
        )
        status = 202 if asked.answer is None else 200 if joined else 201
        return _json(answer, status, {"Location": f"/v1/domains/{asked.hostname}"})

    async def _parsed(self, body: object, tenant: str) -> OnboardingRequest:
        """A well-formed request that its issuer would sign; a wildcard is well formed where the issuer proves it."""
        defaults = self._settings.defaults
        parsed = parse_onboarding(body, tenant=tenant, defaults=defaults)
        doubtful: tuple[FieldError, ...] = ()
        if not isinstance(parsed, OnboardingRequest):
            provable = dataclasses.replace(defaults, wildcard_allowed=True)
            doubtful, parsed = parsed, parse_onboarding(body, tenant=tenant, defaults=provable)
        if not isinstance(parsed, OnboardingRequest):
            raise ProblemError("invalid-request", errors=doubtful)
        errors = await self._bounded(issuers.objections(self._client, parsed, doubtful))
        if errors:
            raise ProblemError("invalid-request", errors=errors)
        return parsed

    async def listed(self, request: Request, tenant: str) -> Response:
        """GET /v1/domains."""
        query = request.query_params
        errors: list[FieldError] = []
        limit, phase = query.get("limit", "50"), query.get("phase")
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:6]) <= domains.LARGEST_PAGE):
            fix = f"send a number, 1 to {domains.LARGEST_PAGE}"
            errors.append(FieldError(field="limit", value=limit[:80], problem="is out of range", fix=fix))
        known = [one.value for one in Phase]
        if phase is not None and phase not in known:
            errors.append(
                FieldError(
                    field="phase", value=phase[:80], problem="is no phase", fix=f"send one of {', '.join(known)}"
                )
            )
        ended = _flag(request, "ended", errors)
        if errors:
            raise ProblemError("invalid-request", errors=tuple(errors))
        try:
            page = await domains.listed(
                self._client,
                tenant,
                page=query.get("page", ""),
                size=int(limit),
                phase=Phase(phase) if phase else None,
                ended=ended,
            )
        except ValueError:
            fault = FieldError(field="page", value="", problem="is no page of ours", fix="send next_page of an answer")
            raise ProblemError("invalid-request", errors=(fault,)) from None
        return _json(page)

    async def read(self, request: Request, tenant: str) -> Response:
        """GET /v1/domains/{hostname}."""
        return _json(await domains.read(self._client, _hostname(request), tenant))

    async def check(self, request: Request, tenant: str) -> Response:
        """POST /v1/domains/{hostname}/check."""
        return _json(await self._bounded(domains.check(self._client, _hostname(request), tenant)))

    async def fix(self, request: Request, tenant: str) -> Response:
        """POST /v1/domains/{hostname}/fix."""
        return _json(await self._bounded(domains.fix(self._client, _hostname(request), tenant)))

    async def renew(self, request: Request, tenant: str) -> Response:
        """POST /v1/domains/{hostname}/renew."""
        return _json(await self._bounded(domains.renew(self._client, _hostname(request), tenant)))

    async def cancel(self, request: Request, tenant: str) -> Response:
        """DELETE /v1/domains/{hostname}."""
        status = await self._bounded(domains.cancel(self._client, _hostname(request), tenant))
        return _json(status, 200 if status.phase in ENDED else 202)

    async def health(self, request: Request) -> Response:
        """GET /healthz; needs no token and says nothing else."""
        try:
            with away_if_unreachable():
                reached = await self._client.service_client.check_health(timeout=_HEALTH)
        except TemporalAwayError:
            reached = False
        return _json(Health(status="ok" if reached else "temporal away", temporal=reached), 200 if reached else 503)

    async def _bounded(self, work: Any) -> Any:
        if self._asking.locked():
            work.close()
            raise ProblemError("too-many")
        async with self._asking:
            return await work


# --- what is shared by the operations -------------------------------------------------------------------------------


def problem(
    kind: str, detail: str = "", errors: tuple[FieldError, ...] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A problem as a response."""
    status, title, fix = PROBLEMS[kind]
    body = Problem(type=f"/problems/{kind}", title=title, status=status, detail=detail, fix=fix, errors=errors)
    more = dict(headers or {})
    if status == 401:
        more["WWW-Authenticate"] = 'Bearer realm="certwright"'  # RFC 6750, section 3
    if status in (429, 503):
        more["Retry-After"] = _RETRY_SECONDS
    return JSONResponse(plain(body), status, more, media_type="application/problem+json")


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(plain(value), status, headers)


def _hostname(request: Request) -> str:
    """The name in the path; one that no domain can have is unknown."""
    parsed = parse_hostname(request.path_params["hostname"], wildcard_allowed=True)
    if not isinstance(parsed, Hostname):
        raise ProblemError("unknown")
    return parsed.name


def _flag(request: Request, name: str, errors: list[FieldError] | None = None) -> bool:
    value = request.query_params.get(name, "false")
    if value not in ("true", "false"):
        fault = FieldError(field=name, value=value[:80], problem="is neither true nor false", fix="send true or false")
        if errors is None:
            raise ProblemError("invalid-request", errors=(fault,))
        errors.append(fault)
    return value == "true"


async def _body(request: Request) -> object:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise ProblemError("not-json")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > LARGEST_BODY:
        raise ProblemError("too-large")
    content = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > LARGEST_BODY:
                    raise ProblemError("too-large")
    except TimeoutError:
        raise ProblemError("bad-json", "The body did not come within 10 s.") from None
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        detail = str(error) if isinstance(error, json.JSONDecodeError | _DuplicateError) else ""
        raise ProblemError("bad-json", detail) from None


class _DuplicateError(ValueError):
    """A field that stands twice in one object: which one counts would be a guess."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _DuplicateError("a field stands twice in one object")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


async def _http_problem(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        return problem("method-not-allowed", headers=error.headers)
    return problem("unknown")


async def _fault(request: Request, error: Exception) -> Response:
    # Starlette hands the error on to the server after this, which logs it with its traceback.
    return problem("fault")


async def _openapi(request: Request) -> Response:
    return JSONResponse(openapi.document())


async def _docs(request: Request) -> Response:
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return HTMLResponse(openapi.page(), headers={"Content-Security-Policy": policy})


async def _described(request: Request) -> Response:
    known = PROBLEMS.get(request.path_params["kind"])
    if known is None:
        return problem("unknown")
    return PlainTextResponse(f"{known[1]}\n\n{known[2]}\n")
