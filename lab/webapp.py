"""The demo's web applications: a server that says in JSON who answered what.

Started by the node for the image `certwright-lab-web`. `APP_NAME` and `PORT` (or --name, --port) say who it is. It
is ready on `/healthz`; `POST /fail` makes that answer 503 and `POST /recover` 200 again, so that a failing probe
can be seen. `?wait=SECONDS` makes an answer late. With --tls DIRECTORY it serves HTTPS with that tls.crt and tls.key.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

_LONGEST_WAIT = 60.0


def application(name: str) -> web.Application:
    """The application that calls itself `name`."""
    health = {"status": 200}

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"app": name, "healthy": health["status"] == 200}, status=health["status"])

    async def fail(_: web.Request) -> web.Response:
        health["status"] = 503
        return web.json_response({"app": name, "healthy": False})

    async def recover(_: web.Request) -> web.Response:
        health["status"] = 200
        return web.json_response({"app": name, "healthy": True})

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(min(float(request.query.get("wait", "0")), _LONGEST_WAIT))
        return web.json_response(
            {
                "app": name,
                "host": request.host,
                "method": request.method,
                "path": request.path,
                "scheme": request.headers.get("X-Forwarded-Proto", request.scheme),
                "pod": os.environ.get("HOSTNAME", ""),
            }
        )

    server = web.Application()
    server.router.add_get("/healthz", healthz)
    server.router.add_post("/fail", fail)
    server.router.add_post("/recover", recover)
    server.router.add_route("*", "/{path:.*}", answer)
    return server


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="certwright-lab-web")
    parser.add_argument("--name", default=os.environ.get("APP_NAME", "web"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")))
    parser.add_argument("--address", default=os.environ.get("POD_IP") or "0.0.0.0")
    parser.add_argument("--tls", type=Path, metavar="DIRECTORY")
    given = parser.parse_args(arguments)
    context = None
    if given.tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(given.tls / "tls.crt", given.tls / "tls.key")
    web.run_app(
        application(given.name),
        host=given.address,
        port=given.port,
        access_log=None,
        print=None,
        shutdown_timeout=5,
        ssl_context=context,
    )


if __name__ == "__main__":
    main()
