"""The portal: who may ask, what is refused with every reason, and what each answer looks like."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from jsonschema import Draft202012Validator
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from lifecycle.domain import ActionRequired, DnsRecord, Phase, RoutingStatus
from lifecycle.names import domain_id
from lifecycle.steps import PreflightReport, ReservationResult
from starter import openapi, tokens
from starter.portal import LARGEST_BODY, application
from tests.starter.bad_certificates import BAD_CERTIFICATES, DIRECTORY, asked
from tests.starter.bad_input import BAD_HOSTNAMES
from tests.starter.conftest import SETTINGS, Door
from tests.workflows.pretended import World, seen

DOCUMENT = openapi.document()
NOT_POINTED = PreflightReport(
    routing=RoutingStatus.MISSING,
    may_proceed=False,
    action_required=ActionRequired(
        summary="Set the record.", records=(DnsRecord(name="shop.example.com", type="A", value="203.0.113.7"),)
    ),
)


def described(response: httpx.Response, method: str, path: str) -> Any:
    """The answer's body, which is as the OpenAPI document says."""
    operation = DOCUMENT["paths"][path][method]
    answer = operation["responses"][str(response.status_code)]
    kind = response.headers["content-type"]
    schema = {**answer["content"][kind]["schema"], "components": DOCUMENT["components"]}
    body = response.json()
    Draft202012Validator(schema).validate(body)
    return body


async def exists(client: Client, hostname: str) -> bool:
    try:
        await client.get_workflow_handle(domain_id(hostname)).describe()
    except RPCError:
        return False
    return True


# --- start and join -------------------------------------------------------------------------------------------------


async def test_a_domain_is_started_joined_and_read(door: Door, world: World, hostname: str) -> None:
    first = await door.call("POST", "/v1/domains", json={"hostnames": [hostname, f"www.{hostname}"]})
    assert first.status_code == 201, first.text
    body = described(first, "post", "/v1/domains")
    assert (body["hostname"], body["joined"], body["status"]["tenant"]) == (hostname, False, "acme")
    assert first.headers["location"] == f"/v1/domains/{hostname}"
    second = await door.call("POST", "/v1/domains", json={"hostname": hostname.upper()})
    assert second.status_code == 200
    assert described(second, "post", "/v1/domains")["joined"]
    await seen(world.environment.client, domain_id(hostname), lambda status: status.phase is Phase.ACTIVE)
    read = await door.call("GET", f"/v1/domains/{hostname}")
    view = described(read, "get", "/v1/domains/{hostname}")
    assert (view["source"], view["status"]["phase"], view["status"]["serving"]) == ("domain", "active", "served")
    assert view["status"]["secret"]["not_after"].endswith("Z")
    assert read.headers["cache-control"] == "no-store"


async def test_two_requests_at_the_same_instant_make_one_domain(door: Door, world: World, hostname: str) -> None:
    asked = [door.call("POST", "/v1/domains", json={"hostname": hostname}) for _ in range(8)]
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({json.dumps(answer.json()["hostname"]) for answer in answers}) == 1
    await seen(world.environment.client, domain_id(hostname), lambda status: status.phase is Phase.ACTIVE)
    assert world.issued == 1


async def test_a_repetition_with_the_same_key_gets_the_first_answer(door: Door, world: World, hostname: str) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    answers = [await door.call("POST", "/v1/domains", json={"hostname": hostname}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()


async def test_without_a_worker_a_request_is_recorded_and_the_list_knows_it(
    door: Door, server: WorkflowEnvironment, hostname: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from starter import domains

    monkeypatch.setattr(domains, "START", timedelta(seconds=2))
    monkeypatch.setattr(domains, "READ", timedelta(seconds=2))
    asked = await door.call("POST", "/v1/domains", json={"hostname": hostname})
    assert asked.status_code == 202, asked.text
    assert described(asked, "post", "/v1/domains")["status"] is None
    read = await door.call("GET", f"/v1/domains/{hostname}")
    view = described(read, "get", "/v1/domains/{hostname}")
    assert (view["source"], view["status"], view["summary"]["phase"]) == ("visibility", None, "requested")
    foreign = await door.call("GET", f"/v1/domains/{hostname}", token="globex")
    assert foreign.status_code == 404
    taken = await door.call("POST", "/v1/domains", json={"hostname": hostname}, token="globex")
    assert taken.status_code == 409
    await server.client.get_workflow_handle(domain_id(hostname)).terminate()


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bad", "reason"), list(BAD_HOSTNAMES.items()), ids=list(BAD_HOSTNAMES.values()))
async def test_a_bad_hostname_is_refused_before_anything_starts(
    door: Door, server: WorkflowEnvironment, bad: str, reason: str
) -> None:
    response = await door.call("POST", "/v1/domains", json={"hostname": bad})
    assert response.status_code == 422
    body = described(response, "post", "/v1/domains")
    assert reason in " ".join(error["problem"] for error in body["errors"])
    assert {"hostname"} == {error["field"] for error in body["errors"]}
    assert all(error["fix"] for error in body["errors"])
    assert not await exists(server.client, bad)


async def test_a_wildcard_is_taken_where_its_issuer_proves_it(door: Door, world: World, hostname: str) -> None:
    wanted = {"hostname": f"*.{hostname}"}
    assert (await door.call("POST", "/v1/domains", json=wanted)).status_code == 422
    world.dns01 = True
    taken = await door.call("POST", "/v1/domains", json=wanted)
    assert taken.status_code == 201, taken.text
    assert described(taken, "post", "/v1/domains")["hostname"] == f"*.{hostname}"


async def test_all_reasons_come_at_once_field_by_field(door: Door) -> None:
    document = {
        "hostnames": ["good.example.com", *BAD_HOSTNAMES],
        "routes": [{"prefix": "api", "service": "UPPER", "port": "80"}],
        "tenant": "globex",
    }
    response = await door.call("POST", "/v1/domains", json=document)
    assert response.status_code == 422
    fields = {error["field"] for error in response.json()["errors"]}
    assert {f"hostnames[{index}]" for index in range(1, len(BAD_HOSTNAMES) + 1)} <= fields
    assert {"routes[0].prefix", "routes[0].service", "routes[0].port", "tenant"} <= fields


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"hostname": "a.example.com", "hostname": "b.example.com"}', 400),
        (b'{"hostname": NaN}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 60000, 400),
        (b"[]", 422),
        (b'"text"', 422),
        (b" " * (LARGEST_BODY + 1), 413),
    ],
)
async def test_a_body_that_is_no_request_is_refused(door: Door, content: bytes, status: int) -> None:
    response = await door.call("POST", "/v1/domains", content=content)
    assert status == response.status_code
    described(response, "post", "/v1/domains")


async def test_a_body_that_grows_without_a_length_is_cut_off(door: Door) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * LARGEST_BODY:
            sent += 4096
            yield b" " * 4096

    response = await door.call("POST", "/v1/domains", content=endless())
    assert response.status_code == 413


async def test_another_content_type_is_refused(door: Door) -> None:
    response = await door.call("POST", "/v1/domains", content=b"a=1", headers={"Content-Type": "text/plain"})
    assert response.status_code == 415
    described(response, "post", "/v1/domains")


# --- who asks ---------------------------------------------------------------------------------------------------------

OPERATIONS = [
    ("POST", "/v1/domains", "/v1/domains"),
    ("GET", "/v1/domains", "/v1/domains"),
    ("GET", "/v1/domains/{}", "/v1/domains/{hostname}"),
    ("DELETE", "/v1/domains/{}", "/v1/domains/{hostname}"),
    ("POST", "/v1/domains/{}/check", "/v1/domains/{hostname}/check"),
    ("POST", "/v1/domains/{}/fix", "/v1/domains/{hostname}/fix"),
    ("POST", "/v1/domains/{}/renew", "/v1/domains/{hostname}/renew"),
]


@pytest.mark.parametrize(("method", "path", "template"), OPERATIONS)
@pytest.mark.parametrize("token", [None, "", "wrong", "cw_" + "A" * 43, "é" * 9, "A" * 5000])
async def test_without_a_valid_token_nothing_happens(
    door: Door, server: WorkflowEnvironment, hostname: str, method: str, path: str, template: str, token: str | None
) -> None:
    headers = {} if token is None else {b"Authorization": f"Bearer {token}".encode()}
    response = await door.http.request(
        method, path.format(hostname), headers=headers, json={"hostname": hostname} if method == "POST" else None
    )
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    described(response, method.lower(), template)
    assert not await exists(server.client, hostname)


async def test_the_sum_in_the_file_is_no_token(door: Door) -> None:
    sum_ = hashlib.sha256(door.acme.encode()).hexdigest()
    assert sum_ in door.tokens_file.read_text()
    assert door.acme not in door.tokens_file.read_text()
    assert (await door.call("GET", "/v1/domains", token=sum_)).status_code == 401


async def test_tokens_are_read_again_when_the_file_changes(door: Door) -> None:
    token, line = tokens.new("acme")
    assert (await door.call("GET", "/v1/domains", token=token)).status_code == 401
    door.tokens_file.write_text(line + "\n")
    assert (await door.call("GET", "/v1/domains", token=token)).status_code == 200
    assert (await door.call("GET", "/v1/domains")).status_code == 401
    door.tokens_file.write_text("what is this\n")  # the last good one counts
    assert (await door.call("GET", "/v1/domains", token=token)).status_code == 200


# --- tenants ----------------------------------------------------------------------------------------------------------


async def test_another_tenant_gets_409_and_learns_nothing(door: Door, world: World, hostname: str) -> None:
    assert (await door.call("POST", "/v1/domains", json={"hostname": hostname})).status_code == 201
    response = await door.call("POST", "/v1/domains", json={"hostname": hostname}, token="globex")
    assert response.status_code == 409
    body = described(response, "post", "/v1/domains")
    assert body == {
        "type": "/problems/name-not-available",
        "title": "The name is not available",
        "status": 409,
        "detail": "",
        "fix": "Ask for another name, or without it.",
        "errors": [],
    }


async def test_a_further_name_that_is_anothers_refuses_the_domain(door: Door, world: World, hostname: str) -> None:
    world.script["reserve_names"] = [ReservationResult(taken=(f"www.{hostname}",))]
    asked = {"hostnames": [hostname, f"www.{hostname}"]}
    response = await door.call("POST", "/v1/domains", json=asked, token="globex")
    assert response.status_code == 409
    # Without that name it may be had, although the refused request had the same id.
    response = await door.call("POST", "/v1/domains", json={"hostname": hostname}, token="globex")
    assert response.status_code == 201, response.text


@pytest.mark.parametrize(("method", "path", "template"), OPERATIONS[2:])
async def test_another_tenants_domain_is_answered_like_an_unknown_one(
    door: Door, world: World, hostname: str, method: str, path: str, template: str
) -> None:
    assert (await door.call("POST", "/v1/domains", json={"hostname": hostname})).status_code == 201
    theirs = await door.call(method, path.format(hostname), token="globex")
    unknown = await door.call(method, path.format(f"no-{hostname}"), token="globex")
    nonsense = await door.call(method, path.format("no_name"), token="globex")
    described(theirs, method.lower(), template)
    assert [one.status_code for one in (theirs, unknown, nonsense)] == [404, 404, 404]
    assert theirs.content == unknown.content == nonsense.content
    assert set(theirs.headers) == set(unknown.headers)


async def test_a_list_has_the_tenants_own_domains_in_pages(door: Door, world: World) -> None:
    token, line = tokens.new(f"t{uuid.uuid4().hex[:8]}")
    with door.tokens_file.open("a") as file:
        file.write(line + "\n")
    mine = {f"d{index}-{uuid.uuid4().hex[:6]}.example.com" for index in range(5)}
    for name in mine:
        assert (await door.call("POST", "/v1/domains", json={"hostname": name}, token=token)).status_code == 201
    for name in mine:
        await seen(world.environment.client, domain_id(name), lambda status: status.phase is Phase.ACTIVE)
    for _ in range(50):
        pages, page = [], ""
        while True:
            query = {"limit": "2", "phase": "active", **({"page": page} if page else {})}
            response = await door.call("GET", "/v1/domains", params=query, token=token)
            body = described(response, "get", "/v1/domains")
            pages.append(body["domains"])
            page = body["next_page"]
            if not page:
                break
        found = [one for part in pages for one in part]
        if len(found) == 5:
            break
        await asyncio.sleep(0.1)  # the list is told a little later
    assert mine == {one["hostname"] for one in found}
    assert len(found) == 5
    assert all(len(part) <= 2 for part in pages)
    assert {("active", "valid", "served", "letsencrypt")} == {
        (one["phase"], one["certificate"], one["serving"], one["issuer"]) for one in found
    }


BAD_QUERIES = ["limit=0", "limit=999", "limit=x", "phase=none", "ended=yes", "page=%21", "page=AAAA"]


@pytest.mark.parametrize("query", BAD_QUERIES)
async def test_a_bad_query_is_refused(door: Door, query: str) -> None:
    response = await door.call("GET", f"/v1/domains?{query}")
    assert response.status_code == 422, response.text
    body = described(response, "get", "/v1/domains")
    assert query.partition("=")[0] == body["errors"][0]["field"]


# --- a domain's life through the portal -------------------------------------------------------------------------------


async def test_what_the_customer_must_do_is_said_and_a_check_looks_again(
    door: Door, world: World, hostname: str
) -> None:
    world.script["check_preflight"] = [lambda _: NOT_POINTED]
    assert (await door.call("POST", "/v1/domains", json={"hostname": hostname})).status_code == 201
    await seen(world.environment.client, domain_id(hostname), lambda status: status.next_check_at is not None)
    checked = await door.call("POST", f"/v1/domains/{hostname}/check")
    body = described(checked, "post", "/v1/domains/{hostname}/check")
    assert body["action_required"]["records"] == [{"name": "shop.example.com", "type": "A", "value": "203.0.113.7"}]
    assert world.calls.count("check_preflight") == 2
    not_now = await door.call("POST", f"/v1/domains/{hostname}/renew")
    assert not_now.status_code == 409
    assert "preflight" in described(not_now, "post", "/v1/domains/{hostname}/renew")["detail"]
    world.script["check_preflight"] = []
    await door.call("POST", f"/v1/domains/{hostname}/check")
    await seen(world.environment.client, domain_id(hostname), lambda status: status.phase is Phase.ACTIVE)
    fixed = await door.call("POST", f"/v1/domains/{hostname}/fix")
    evidence = described(fixed, "post", "/v1/domains/{hostname}/fix")["evidence"]
    assert [line["detail"] for line in evidence if line["step"] == "fix"] == ["nothing to do: nothing is wrong"]
    renewed = await door.call("POST", f"/v1/domains/{hostname}/renew")
    assert described(renewed, "post", "/v1/domains/{hostname}/renew")["renewals"] == 1


async def test_a_retired_domain_begins_anew_only_when_that_is_said(door: Door, world: World, hostname: str) -> None:
    assert (await door.call("POST", "/v1/domains", json={"hostname": hostname})).status_code == 201
    ended = await door.call("DELETE", f"/v1/domains/{hostname}")
    assert ended.status_code == 200, ended.text
    assert described(ended, "delete", "/v1/domains/{hostname}")["phase"] == "retired"
    refused = await door.call("POST", "/v1/domains", json={"hostname": hostname})
    assert refused.status_code == 409
    assert "again=true" in described(refused, "post", "/v1/domains")["fix"]
    # To somebody else the name is simply free.
    assert (await door.call("POST", "/v1/domains", json={"hostname": hostname}, token="globex")).status_code == 201
    assert (await door.call("DELETE", f"/v1/domains/{hostname}", token="globex")).status_code == 200
    assert (await door.call("POST", "/v1/domains?again=true", json={"hostname": hostname})).status_code == 201


async def test_broken_surroundings_do_not_reach_the_caller(door: Door, world: World, hostname: str) -> None:
    world.script["check_preflight"] = [lambda _: ApplicationError("refused by 10.0.0.1", type="ClusterUnreachable")]
    response = await door.call("POST", "/v1/domains", json={"hostname": hostname})
    assert response.status_code == 201


# --- the rest ---------------------------------------------------------------------------------------------------------


async def test_temporal_away_is_503_and_says_so(tmp_path: Path) -> None:
    token, line = tokens.new("acme")
    (tmp_path / "tokens").write_text(line)
    client = await Client.connect("127.0.0.1:9", lazy=True)
    app = application(client, SETTINGS, tokens.Tokens(tmp_path / "tokens"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://portal") as http:
        for method, path, template in OPERATIONS:
            response = await http.request(
                method,
                path.format("shop.example.com"),
                json={"hostname": "shop.example.com"} if method == "POST" else None,
                headers={"Authorization": f"Bearer {token}"},
            )
            assert response.status_code == 503, (method, path, response.text)
            assert response.headers["retry-after"]
            described(response, method.lower(), template)
        health = await http.get("/healthz")
        assert health.status_code == 503
        assert not described(health, "get", "/healthz")["temporal"]


async def test_health_and_documents_need_no_token(door: Door) -> None:
    health = await door.http.get("/healthz")
    assert described(health, "get", "/healthz") == {"status": "ok", "temporal": True}
    assert (await door.http.get("/openapi.json")).json() == DOCUMENT
    page = await door.http.get("/docs")
    assert "http://" not in page.text
    assert "https://" not in page.text.replace("https://json-schema.org", "")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in DOCUMENT["paths"]:
        assert path in page.text
    for kind in openapi.PROBLEMS:
        assert (await door.http.get(f"/problems/{kind}")).status_code == 200


async def test_unknown_paths_and_methods_are_problems_too(door: Door) -> None:
    for response, status in (
        (await door.call("GET", "/v1/nothing"), 404),
        (await door.call("GET", "/problems/nothing"), 404),
        (await door.call("PUT", "/v1/domains"), 405),
    ):
        assert status == response.status_code
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["fix"]


def test_the_document_is_valid_openapi() -> None:
    schema = json.loads((Path(__file__).parent / "data" / "openapi-3.1.schema.json").read_text())
    jsonschema.validate(DOCUMENT, schema, cls=Draft202012Validator)
    for name in DOCUMENT["components"]["schemas"]:
        Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"][name])


# --- certificates that an issuer would refuse -------------------------------------------------------------------------


@pytest.mark.parametrize("row", BAD_CERTIFICATES)
async def test_what_the_issuer_would_refuse_is_refused_before_anything_starts(
    door: Door, world: World, server: WorkflowEnvironment, hostname: str, row: str
) -> None:
    _, world.profile, code, words = BAD_CERTIFICATES[row]
    world.directory = DIRECTORY
    response = await door.call("POST", "/v1/domains", json=asked(row, hostname))
    assert response.status_code == 422
    (error,) = described(response, "post", "/v1/domains")["errors"]
    assert error["code"] == code
    assert words in error["problem"]
    assert error["fix"]
    assert not await exists(server.client, hostname)


async def test_a_rehearsal_is_refused_where_the_issuer_has_nowhere_for_it(
    door: Door, world: World, hostname: str
) -> None:
    document = {"hostname": hostname, "rehearsal": "always"}
    (error,) = described(await door.call("POST", "/v1/domains", json=document), "post", "/v1/domains")["errors"]
    assert (error["field"], error["code"]) == ("rehearsal", "CW1260")
    world.rehearsal = "ClusterIssuer/stage"
    assert (await door.call("POST", "/v1/domains", json=document)).status_code == 201


async def test_what_is_the_operators_is_refused_to_a_tenant(door: Door) -> None:
    wanted = {"secret_template": {"labels": {"copy": "everywhere"}}, "keystores": {"jks": {"secret": "root-ca"}}}
    response = await door.call("POST", "/v1/domains", json={"hostname": "a.example.com", "certificate": wanted})
    assert response.status_code == 422
    problems = {error["field"]: error["problem"] for error in response.json()["errors"]}
    assert problems == {f"certificate.{field}": "is the operator's to set" for field in wanted}


async def test_a_certificate_that_the_issuer_signs_is_asked_for(door: Door, world: World, hostname: str) -> None:
    world.directory = DIRECTORY
    document = {"hostname": hostname, "certificate": {"key_algorithm": "RSA", "key_size": 4096}}
    response = await door.call("POST", "/v1/domains", json=document)
    assert response.status_code == 201
    assert "inspect_issuers" in world.calls
