"""What a domain comes to when its surroundings break in the middle: workers killed, servers gone, a permission missing.

The worker is killed while it is at each of the steps, and those domains are looked at last: what is taken over only
after a time-out (45 s where a step does not heartbeat) then has had its time, while other things were broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from activities.preflight import PERMISSIONS_SECONDS
from lab.cluster import GATEWAY_ADDRESSES
from lab.dns import FaultKind
from lab.loadbalancer import Address, Fault
from lifecycle import names
from tests.e2e.play import (
    GATEWAY_NAMESPACE,
    ZONE,
    Play,
    Seen,
    active,
    after_renewals,
    brief,
    codes,
    eventually,
    exists,
    told_to_act,
)

pytestmark = pytest.mark.lab

GONE_SECONDS = 30.0
SURROUNDINGS_BROKEN = "CW1903"
PERMISSION_MISSING = "CW1801"

STEPS = (
    "reserve_names",
    "check_preflight",
    "issue_certificate",
    "bind_gateway",
    "verify_edge",
    "see_renewal_through",
)
KILLED_IN = {step: f"{step.replace('_', '-')}.{ZONE}" for step in STEPS}
"""The domain at whose step the worker is killed."""

ORDERS = dict.fromkeys(STEPS, 1) | {"see_renewal_through": 2}
"""One for each certificate: the renewed domain has had two."""


@pytest.fixture(scope="module")
async def killed(play: Play) -> dict[str, str]:
    """Each domain, after a worker was killed at its step; none of them has been waited for."""
    # Every domain is held at the customer's DNS until its turn, so that a kill meets those it is meant for.
    renewed = KILLED_IN["see_renewal_through"]
    held = [KILLED_IN[step] for step in STEPS if step not in ("reserve_names", "see_renewal_through")]
    await asyncio.gather(play.active(renewed), *(play.ask(hostname) for hostname in held))
    await asyncio.gather(*(play.until(hostname, told_to_act) for hostname in held))

    async def go_on(step: str) -> None:
        play.point(KILLED_IN[step])
        await play.check(KILLED_IN[step])

    # The slow steps are brought about first; the quick one is then caught while all of them are under way. An
    # address that stays silent keeps the look at the edge busy, a slow answer of the DNS the preflight.
    silent = Address(host=GATEWAY_ADDRESSES[1], port=play.lab.https_port)
    slow = KILLED_IN["check_preflight"]
    asking: list[asyncio.Task[object]] = []
    await play.lab.balancer.break_(silent, Fault.BLACKHOLE)
    try:
        asking.append(asyncio.ensure_future(go_on("verify_edge")))
        await play.until_under_way("verify_edge", KILLED_IN["verify_edge"])
        asking.append(asyncio.ensure_future(play.portal.post(f"/v1/domains/{renewed}/renew")))
        asking.append(asyncio.ensure_future(go_on("issue_certificate")))
        await play.until_under_way("issue_certificate", KILLED_IN["issue_certificate"])
        await play.until_under_way("see_renewal_through", renewed)
        play.lab.dns.fault(slow, FaultKind.SLOW, seconds=4.0)
        asking.append(asyncio.ensure_future(go_on("check_preflight")))
        await play.until_under_way("check_preflight", slow)
        many = [KILLED_IN["reserve_names"], *(f"{n}.{KILLED_IN['reserve_names']}" for n in range(8))]
        play.point(*many)
        await play.kill_worker_in(
            "reserve_names",
            many[0],
            play.portal.post("/v1/domains", json={"hostnames": many}),
            check_preflight=slow,
            issue_certificate=KILLED_IN["issue_certificate"],
            verify_edge=KILLED_IN["verify_edge"],
            see_renewal_through=renewed,
        )
    finally:
        play.lab.dns.fault(slow, None)
        await play.lab.balancer.mend(silent)
    async with _slow_to_change(play, names.gateway_name(KILLED_IN["bind_gateway"])):
        await play.kill_worker_in("bind_gateway", KILLED_IN["bind_gateway"], go_on("bind_gateway"))
    await asyncio.gather(*asking, return_exceptions=True)
    return KILLED_IN


async def test_a_worker_is_killed_while_it_is_at_each_step(killed: dict[str, str]) -> None:
    """What becomes of their domains is looked at when their time-outs have had their time, at the end."""
    assert set(STEPS) == set(killed)


async def test_a_worker_that_is_told_to_end_drains_and_another_takes_its_watch_over(play: Play) -> None:
    hostname = f"drained.{ZONE}"
    play.point(hostname)
    await play.ask(hostname)
    await _in_the_middle(play, hostname)
    log = play.stage.directory / "worker.log"
    before = log.stat().st_size
    began = time.monotonic()
    await play.stage.stop("worker")
    assert time.monotonic() - began < 20, "a watch is left at once"
    said = log.read_bytes()[before:].decode()
    assert "draining" in said
    assert '"ended"' in said, "it ended by itself, not by force"
    await play.stage.start("worker")
    served = await play.until(hostname, active, seconds=90)
    assert [served["order"]] == play.orders_of(hostname)


@pytest.mark.parametrize("server", ["kube-apiserver", "cert-manager", "pebble"])
async def test_a_server_that_is_gone_for_half_a_minute_is_waited_for_and_named_meanwhile(
    play: Play, server: str
) -> None:
    hostname = f"without-{server}.{ZONE}"
    play.point(hostname)
    if server == "pebble":  # it is asked at the order, and again at its end
        async with _gone(play, server):
            await play.ask(hostname)
            said = await play.until(hostname, _names_its_surroundings, seconds=GONE_SECONDS)
    else:
        await play.ask(hostname)
        await _in_the_middle(play, hostname)
        async with _gone(play, server):
            said = await play.until(hostname, _names_its_surroundings, seconds=GONE_SECONDS)
    assert said["phase"] == "issuing", brief(said)
    assert "surroundings broken since" in said["step"]
    assert said["waiting_until"] is not None
    (finding,) = [one for one in said["findings"] if one["code"] == SURROUNDINGS_BROKEN]
    assert finding["problem"]
    served = await play.until(hostname, active, seconds=120)
    assert served["findings"] == []
    assert "surroundings" in {line["step"] for line in served["evidence"]}
    # Also where the API server was away: cert-manager's controller gave up its lease meanwhile, and begins with caches
    # that have everything (lifecycle/controller_values.py); else it orders again what it does not see yet.
    assert [served["order"]] == play.orders_of(hostname), "nothing was ordered twice"


@pytest.mark.parametrize(("resource", "verb"), [("virtualservices", "create"), ("gateways", "patch")])
async def test_a_missing_permission_is_named_with_the_rule_to_add(play: Play, resource: str, verb: str) -> None:
    hostname = f"no-{verb}-{resource}.{ZONE}"
    play.point(hostname)
    async with _without(play, resource, verb):
        await play.ask(hostname)
        told = await play.until(hostname, lambda seen: PERMISSION_MISSING in codes(seen), seconds=30)
        (finding,) = [one for one in told["findings"] if one["code"] == PERMISSION_MISSING]
        for word in (verb, f"{resource}.networking.istio.io", GATEWAY_NAMESPACE):
            assert word in finding["problem"]
        rule = f'{{"apiGroups": ["networking.istio.io"], "resources": ["{resource}"], "verbs": ["{verb}"]}}'
        assert rule in finding["fix"]
        assert play.orders_of(hostname) == []
    await play.check(hostname)
    served = await play.until(hostname, active)
    assert served["findings"] == []


@pytest.mark.parametrize("step", STEPS)
async def test_a_domain_whose_worker_was_killed_in_a_step_becomes_active_with_one_order(
    play: Play, killed: dict[str, str], step: str
) -> None:
    hostname = killed[step]
    served = await play.until(hostname, after_renewals(ORDERS[step] - 1), seconds=150)
    assert served["findings"] == [], brief(served)
    assert ORDERS[step] == len(play.orders_of(hostname))
    fingerprint = await play.fingerprint(hostname)
    assert {fingerprint} == {one.fingerprint for one in await play.stage.witness.served_everywhere(hostname)}


async def test_the_clients_of_a_domain_noticed_nothing(play: Play, resident: Seen) -> None:
    seen = await play.until(resident["hostname"], active)
    assert seen["findings"] == []
    served = await play.stage.witness.served_everywhere(resident["hostname"])
    assert {await play.fingerprint(resident["hostname"])} == {one.fingerprint for one in served}


def _names_its_surroundings(seen: Seen) -> bool:
    return SURROUNDINGS_BROKEN in codes(seen)


async def _in_the_middle(play: Play, hostname: str) -> None:
    """Wait until a challenge of the domain is routed, and the worker waits for it."""
    await play.until_under_way("issue_certificate", hostname)
    route = (
        f"/apis/networking.istio.io/v1/namespaces/{GATEWAY_NAMESPACE}"
        f"/virtualservices/{names.challenge_route_name(hostname)}"
    )
    await eventually(lambda: exists(play, route), seconds=30)


@contextlib.asynccontextmanager
async def _gone(play: Play, server: str) -> AsyncIterator[None]:
    """Without the server for half a minute, however soon the block is through; then it is back."""
    began = time.monotonic()
    # A stopped CA would come back without its accounts: it is frozen, and does not answer.
    async with play.lab.frozen(server) if server == "pebble" else play.lab.stopped(server):
        yield
        await asyncio.sleep(max(0.0, GONE_SECONDS - (time.monotonic() - began)))


@contextlib.asynccontextmanager
async def _slow_to_change(play: Play, gateway: str) -> AsyncIterator[None]:
    """Each change of the Gateway takes the API server ten seconds: a webhook is asked, says nothing, and is ignored.

    What takes milliseconds otherwise, after the routes are applied, can then be met for sure.
    """

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        kind, name = "ValidatingWebhookConfiguration", "slow.e2e.certwright.test"
        group = "admissionregistration.k8s.io/v1"
        hook = {
            "name": name,
            "clientConfig": {"url": f"https://127.0.0.1:{port}/"},
            "rules": [
                {
                    "apiGroups": ["networking.istio.io"],
                    "apiVersions": ["*"],
                    "operations": ["UPDATE"],
                    "resources": ["gateways"],
                }
            ],
            "matchConditions": [{"name": "one-gateway", "expression": f"object.metadata.name == '{gateway}'"}],
            "failurePolicy": "Ignore",
            "timeoutSeconds": 10,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        await play.lab.apply({"apiVersion": group, "kind": kind, "metadata": {"name": name}, "webhooks": [hook]})
        try:
            yield
        finally:
            await play.lab.api.call("DELETE", f"/apis/{group}/validatingwebhookconfigurations/{name}")


@contextlib.asynccontextmanager
async def _without(play: Play, resource: str, verb: str) -> AsyncIterator[None]:
    """The worker's Role in the gateway's namespace without one verb on one resource; put back after the block."""
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{GATEWAY_NAMESPACE}/roles/certwright-worker"
    rules = (await play.lab.api.call("GET", path))["rules"]
    fewer = [
        rule | {"verbs": [one for one in rule["verbs"] if one != verb]} if resource in rule["resources"] else rule
        for rule in rules
    ]
    assert fewer != rules

    async def put(wanted: list[dict[str, object]]) -> None:
        await play.lab.api.call("PATCH", path, body={"rules": wanted}, content_type="application/merge-patch+json")

    await put(fewer)
    await asyncio.sleep(PERMISSIONS_SECONDS)  # the worker believes so long what it was told for another domain
    try:
        yield
    finally:
        await put(rules)
