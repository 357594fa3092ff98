"""A development server with pretended activities, and a portal in front of it."""

from __future__ import annotations

import dataclasses
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from temporalio.testing import WorkflowEnvironment

from lifecycle.domain import IssuerRef, Route
from lifecycle.requests import OnboardingDefaults
from starter import search_attributes, tokens
from starter.portal import application
from starter.settings import DoorSettings
from tests.workflows.pretended import World, working

SETTINGS = DoorSettings(
    defaults=OnboardingDefaults(
        issuer=IssuerRef(name="letsencrypt"), routes=(Route(prefix="/", service="frontend-service", port=80),)
    ),
    tenant="default",
    address=("127.0.0.1", 0),
    tokens_file=None,
    tls=None,
    log_level="info",
    log_format="json",
)


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[WorkflowEnvironment]:
    """A development server whose search attributes were made by our own command."""
    program = str(Path(sys.executable).parent / "temporal")
    async with await WorkflowEnvironment.start_local(dev_server_existing_path=program) as environment:
        assert len(await search_attributes.apply(environment.client)) == 10
        assert await search_attributes.apply(environment.client) == ()
        yield environment


@pytest.fixture
async def world(server: WorkflowEnvironment) -> AsyncIterator[World]:
    """Pretended workers on all queues."""
    pretending = World(server)
    async with working(server.client, pretending, versioned=True):
        yield pretending


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A portal and two tenants' tokens."""

    http: httpx.AsyncClient
    acme: str
    globex: str
    tokens_file: Path

    async def call(self, method: str, path: str, *, token: str | None = "acme", **more: object) -> httpx.Response:
        headers = dict(more.pop("headers", {}))  # type: ignore[call-overload]
        presented = {"acme": self.acme, "globex": self.globex}.get(token or "", token)
        if presented is not None:
            headers["Authorization"] = f"Bearer {presented}"
        return await self.http.request(method, path, headers=headers, **more)  # type: ignore[arg-type]


@pytest.fixture
async def door(server: WorkflowEnvironment, tmp_path: Path) -> AsyncIterator[Door]:
    """The portal in this process, asked as over HTTP."""
    (acme, first), (globex, second) = tokens.new("acme"), tokens.new("globex")
    path = tmp_path / "tokens"
    path.write_text(f"# tenants\n{first}\n{second}  # the other one\n")
    path.chmod(0o600)
    app = application(server.client, SETTINGS, tokens.Tokens(path))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://portal", timeout=60) as http:
        yield Door(http=http, acme=acme, globex=globex, tokens_file=path)


@pytest.fixture
def hostname() -> str:
    """A name that no other test uses."""
    return f"shop-{uuid.uuid4().hex[:10]}.example.com"
