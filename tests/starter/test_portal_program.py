"""The portal as a process: how it begins, what it says while Temporal is away, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest
from temporalio.testing import WorkflowEnvironment

from activities import temporal
from lab.ports import free_ports
from starter import domains, portal, search_attributes, tokens
from tests.programs import ended, program
from tests.starter.conftest import SETTINGS, Door

portal_program = partial(program, ("starter.cli", "portal"))


async def health(http: httpx.AsyncClient) -> int:
    for _ in range(200):
        with contextlib.suppress(httpx.ConnectError):
            return (await http.get("/healthz")).status_code
        await asyncio.sleep(0.05)
    raise AssertionError("the portal does not listen")


async def test_it_serves_and_ends_by_sigterm_and_logs_no_token(server: WorkflowEnvironment, tmp_path: Path) -> None:
    token, line = tokens.new("acme")
    file, log = tmp_path / "tokens", tmp_path / "log"
    file.write_text(line)
    file.chmod(0o644)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    settings = {
        "CERTWRIGHT_PORTAL_ADDRESS": f"127.0.0.1:{port}",
        "CERTWRIGHT_PORTAL_TOKENS_FILE": str(file),
        "TEMPORAL_ADDRESS": server.client.service_client.config.target_host,
    }
    async with portal_program(log, **settings) as process, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert await health(http) == 200
        headers = {"Authorization": f"Bearer {token}"}
        assert (await http.get("/v1/domains", headers=headers)).status_code == 200
        assert (await http.get(f"/v1/domains/{token}", headers=headers)).status_code == 404
        assert await ended(process, 20) == 0
    events = [json.loads(text) for text in log.read_text().splitlines() if text.startswith("{")]
    assert {"tokens file is open to others", "portal serving", "request", "portal ended"} <= {
        event["event"] for event in events
    }
    assert {("GET", 200, "acme"), ("GET", 404, "acme")} == {
        (event["method"], event["status"], event["tenant"]) for event in events if event["event"] == "request"
    }
    assert token not in log.read_text()


async def test_without_temporal_it_runs_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(tokens.new("acme")[1])
    (port,) = free_ports(1)
    settings = {
        "CERTWRIGHT_PORTAL_ADDRESS": f"127.0.0.1:{port}",
        "CERTWRIGHT_PORTAL_TOKENS_FILE": str(file),
        "TEMPORAL_ADDRESS": "127.0.0.1:9",
    }
    url = f"http://127.0.0.1:{port}"
    async with (
        portal_program(tmp_path / "log", **settings) as process,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        assert await health(http) == 503
        assert await ended(process, 20) == 0


async def test_a_tokens_file_with_a_token_in_it_is_refused_and_not_repeated(tmp_path: Path) -> None:
    token, _ = tokens.new("acme")
    file, log = tmp_path / "tokens", tmp_path / "log"
    file.write_text(f"acme {token}\n")
    async with portal_program(log, CERTWRIGHT_PORTAL_TOKENS_FILE=str(file)) as process:
        assert await asyncio.wait_for(process.wait(), 30) == 2
    assert "line 1" in log.read_text()
    assert token not in log.read_text()


async def test_temporal_that_goes_away_is_503_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    monkeypatch.setattr(domains, "READ", timedelta(seconds=2))
    token, line = tokens.new("acme")
    (tmp_path / "tokens").write_text(line)
    executable = str(Path(sys.executable).parent / "temporal")
    environment = await WorkflowEnvironment.start_local(dev_server_existing_path=executable)
    try:
        await search_attributes.apply(environment.client)
        where = {
            "target_host": environment.client.service_client.config.target_host,
            "retry_config": temporal.IMPATIENT,
        }
        client = await temporal.connected(where)
        app = portal.application(client, SETTINGS, tokens.Tokens(tmp_path / "tokens"))
        headers = {"Authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://portal", headers=headers) as http:
            assert (await http.get("/v1/domains")).status_code == 200
            await environment.shutdown()
            async with asyncio.timeout(20):
                assert (await http.get("/v1/domains")).status_code == 503
                assert (await http.get("/v1/domains/shop.example.com")).status_code == 503
                assert (await http.get("/healthz")).status_code == 503
    finally:
        with contextlib.suppress(RuntimeError):
            await environment.shutdown()


async def test_callers_beyond_the_bound_are_asked_to_come_again(
    server: WorkflowEnvironment, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, leave = asyncio.Semaphore(0), asyncio.Event()

    async def slow(*_: object, **__: object) -> object:
        inside.release()
        await leave.wait()
        raise domains.DomainUnknownError("x")

    monkeypatch.setattr(domains, "check", slow)
    asked = [
        asyncio.create_task(door.call("POST", "/v1/domains/shop.example.com/check")) for _ in range(portal._AT_ONCE)
    ]
    for _ in asked:
        await inside.acquire()
    refused = await door.call("POST", "/v1/domains/shop.example.com/check")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    leave.set()
    assert {404} == {answer.status_code for answer in await asyncio.gather(*asked)}
