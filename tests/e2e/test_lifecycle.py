"""A domain's life on the whole product: doors, workers under their own accounts, cert-manager, Istio and a CA.

Scenes that disturb nobody go on side by side; each says what a tenant asks, and what the cluster and an independent
client see of it.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest

from lab.api import MERGE_PATCH
from lab.cluster import GATEWAY_ADDRESSES
from lab.loadbalancer import Address, Fault
from lab.witness import Witness
from lifecycle import names
from tests.e2e.conftest import RESIDENT, side_by_side
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

TICKING = f"ticking.{ZONE}"
WOKEN = f"woken.{ZONE}"
KEPT = f"kept.{ZONE}"


@pytest.fixture(scope="module", autouse=True)
async def ticking(play: Play) -> AsyncIterator[asyncio.Task[Seen]]:
    """A domain whose certificate lives for a hundred seconds; asked for first, since its renewal takes its time."""
    onboarding = asyncio.ensure_future(play.active(TICKING, issuer="minute"))
    yield onboarding
    onboarding.cancel()


# --- side by side -----------------------------------------------------------------------------------------------------


async def _without_challenges(play: Play, hostname: str) -> bool:
    return not [name for name in await play.objects_of(hostname) if name.startswith("challenges/")]


@side_by_side
async def test_a_domain_that_does_not_point_here_is_told_the_exact_record_and_orders_nothing(play: Play) -> None:
    hostname, further = f"early.{ZONE}", f"www.early.{ZONE}"
    play.lab.dns.set(further, "A", ["192.0.2.7"])
    await play.ask(hostname, further)
    waiting = await play.until(hostname, told_to_act, seconds=30)
    assert waiting["phase"] == "preflight"
    records = {(one["name"], one["type"], one["value"]) for one in waiting["action_required"]["records"]}
    assert {(name, "A", address) for name in (hostname, further) for address in GATEWAY_ADDRESSES} == records
    assert {"CW1101", "CW1102"} <= codes(waiting)
    assert waiting["next_check_at"] is not None
    still = await play.check(hostname)
    assert told_to_act(still), "a check that finds nothing new does not order either"
    assert play.orders_of(hostname) == []
    assert await play.objects_of(hostname) == []

    play.point(hostname, further)
    asked = time.monotonic()
    await play.check(hostname)
    served = await play.until(hostname, active)
    assert time.monotonic() - asked < 55, "the check is made at once, not on the schedule"
    assert served["action_required"] is None
    assert served["findings"] == []
    assert [served["order"]] == play.orders_of(hostname)
    fingerprint = await play.fingerprint(hostname)
    assert {fingerprint} == {one.fingerprint for one in await play.stage.witness.served_everywhere(hostname, further)}
    # cert-manager takes its Challenges away by itself, a moment after the certificate is there
    await eventually(lambda: _without_challenges(play, hostname), seconds=15)
    assert f"virtualservices/{names.challenge_route_name(hostname)}" not in await play.objects_of(hostname)
    seen = {(one["address"], one["hostname"]) for one in served["served"]}
    assert {(address, name) for address in GATEWAY_ADDRESSES for name in (hostname, further)} == seen
    assert all(one["chain_verified"] and one["fingerprint"] == fingerprint for one in served["served"])


@side_by_side
async def test_two_requests_at_the_same_instant_are_one_domain(play: Play) -> None:
    hostname = f"twice.{ZONE}"
    body = {"hostnames": [hostname]}
    answers = await asyncio.gather(*(play.portal.post("/v1/domains", json=body) for _ in range(2)))
    assert {200, 201} == {answer.status_code for answer in answers}
    assert {False, True} == {answer.json()["joined"] for answer in answers}
    first, second = (answer.json()["status"] for answer in answers)
    assert first["requested_at"] == second["requested_at"]
    again = await play.portal.post("/v1/domains", json=body)
    assert (again.status_code, again.json()["joined"]) == (200, True)
    assert first["requested_at"] == again.json()["status"]["requested_at"]
    runs = [
        execution
        async for execution in play.stage.temporal.list_workflows(f"WorkflowId = '{names.domain_id(hostname)}'")
    ]
    assert len(runs) == 1


@side_by_side
async def test_another_tenant_learns_nothing_of_a_domain_that_is_taken(play: Play) -> None:
    hostname, further = f"taken.{ZONE}", f"www.taken.{ZONE}"
    await play.ask(hostname, further)
    for wanted in ([hostname], [further], [f"theirs.{ZONE}", further]):
        answer = await play.other.post("/v1/domains", json={"hostnames": wanted})
        assert answer.status_code == 409, answer.text
        for word in ("acme", "preflight", "routing", "workflow", "192.0.2"):
            assert word not in answer.text.replace(hostname, "").replace(further, ""), answer.text
    unknown = await play.other.get(f"/v1/domains/nobodys.{ZONE}")
    for method, path in (
        ("GET", f"/v1/domains/{hostname}"),
        ("POST", f"/v1/domains/{hostname}/check"),
        ("POST", f"/v1/domains/{hostname}/renew"),
        ("DELETE", f"/v1/domains/{hostname}"),
    ):
        answer = await play.other.request(method, path)
        assert (unknown.status_code, unknown.json()) == (answer.status_code, answer.json()), "as if it did not exist"
    listed = await play.other.get("/v1/domains")
    assert hostname not in listed.text
    mine = await play.seen(hostname)
    assert mine is not None
    assert mine["phase"] == "preflight"


@side_by_side
async def test_nobody_without_a_token_starts_anything(play: Play) -> None:
    hostname = f"stranger.{ZONE}"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {play.stage.tokens['acme']}"}):
        async with httpx.AsyncClient(base_url=play.stage.portal, headers=headers, trust_env=False) as stranger:
            for method, path in (("POST", "/v1/domains"), ("GET", "/v1/domains"), ("GET", f"/v1/domains/{RESIDENT}")):
                answer = await stranger.request(method, path, json={"hostnames": [hostname]})
                assert answer.status_code == 401, answer.text
    assert (await play.portal.get(f"/v1/domains/{hostname}")).status_code == 404
    assert await play.running_workflows(hostname) == []


@side_by_side
async def test_a_renewal_by_request_loses_no_request_of_any_client(play: Play) -> None:
    before = await play.fingerprint(RESIDENT)
    async with play.stage.witness.traffic(RESIDENT) as traffic:
        asked = await play.portal.post(f"/v1/domains/{RESIDENT}/renew")
        assert asked.status_code == 200, asked.text
        renewed = await play.until(RESIDENT, after_renewals(1))
        await asyncio.sleep(1.0)
    after = await play.fingerprint(RESIDENT)
    assert after != before
    assert (after, before) == (renewed["secret"]["fingerprint"], renewed["previous_fingerprint"])
    assert (traffic.lost, dict(traffic.reasons)) == (0, {})
    assert {before, after} == set(traffic.fingerprints)
    assert {after} == {one.fingerprint for one in await play.stage.witness.served_everywhere(RESIDENT)}


@side_by_side
async def test_the_review_wakes_a_domain_whose_renewal_somebody_else_began(play: Play) -> None:
    first = await play.active(WOKEN)
    path = f"/apis/cert-manager.io/v1/namespaces/{GATEWAY_NAMESPACE}/certificates/{names.certificate_name(WOKEN)}"
    certificate = await play.lab.api.call("GET", path)
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    issuing = {
        "type": "Issuing",
        "status": "True",
        "reason": "ManuallyTriggered",
        "message": "by a person with cmctl",
        "lastTransitionTime": now,
    }
    conditions = [one for one in certificate["status"]["conditions"] if one["type"] != "Issuing"]
    await play.lab.api.call(
        "PATCH", f"{path}/status", body={"status": {"conditions": [*conditions, issuing]}}, content_type=MERGE_PATCH
    )
    await play.stage.command("schedules", "apply", "--review-every", "10h", "--backup-every", "10d")
    listed = await play.stage.command("schedules", "list")
    assert {"fleet-review", "backup"} == {one["name"] for one in listed}
    await play.stage.command("schedules", "trigger", "fleet-review")
    renewed = await play.until(WOKEN, after_renewals(1))
    assert first["secret"]["fingerprint"] == renewed["previous_fingerprint"]
    assert "review" in {line["step"] for line in renewed["evidence"]}
    assert {renewed["secret"]["fingerprint"]} == {
        one.fingerprint for one in await play.stage.witness.served_everywhere(WOKEN)
    }


@side_by_side
async def test_a_backup_restores_equal_secrets_into_another_namespace(play: Play) -> None:
    kept = await play.active(KEPT)
    backup = await play.stage.command("backup", "--wait")
    assert backup["verified"], backup
    api, namespace, secret = play.lab.api, "restored", names.secret_name(KEPT)
    account = {"kind": "ServiceAccount", "name": "certwright-installer", "namespace": "certwright"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "certwright-restore"}
    await play.lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    await play.lab.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "certwright-restore", "namespace": namespace},
            "roleRef": role,
            "subjects": [account],
        }
    )
    orders = len(play.orders_of(KEPT))
    restored = await play.stage.command("restore", backup["name"], "--into", namespace)
    assert (restored["equal"], restored["findings"]) == (True, [])
    original = await api.call("GET", f"/api/v1/namespaces/{GATEWAY_NAMESPACE}/secrets/{secret}")
    copy = await api.call("GET", f"/api/v1/namespaces/{namespace}/secrets/{secret}")
    assert original["data"] == copy["data"]
    assert original["type"] == copy["type"]
    assert kept["secret"]["fingerprint"] == await play.fingerprint(KEPT)
    accounts = await api.call("GET", "/api/v1/namespaces/cert-manager/secrets/lab-account")
    moved = await api.call("GET", f"/api/v1/namespaces/{namespace}/secrets/lab-account")
    assert accounts["data"] == moved["data"]
    assert orders == len(play.orders_of(KEPT)), "a restore orders nothing"
    sealed = (play.stage.backups / backup["name"]).read_bytes()
    key = base64.b64decode(original["data"]["tls.key"])
    assert sealed.startswith(b"age-encryption.org/v1")
    assert key not in sealed
    assert (play.stage.backups / backup["name"]).stat().st_mode & 0o777 == 0o600


# --- one after another ------------------------------------------------------------------------------------------------


async def test_a_certificate_that_renews_by_itself_is_served_and_recorded(
    play: Play, ticking: asyncio.Task[Seen]
) -> None:
    first = await ticking
    renewed = await play.until(TICKING, after_renewals(1), seconds=120)
    assert first["secret"]["fingerprint"] != renewed["secret"]["fingerprint"]
    assert renewed["findings"] == []
    served = {one.fingerprint for one in await play.stage.witness.served_everywhere(TICKING)}
    assert {await play.fingerprint(TICKING)} == served
    ended = await play.portal.delete(f"/v1/domains/{TICKING}")
    assert ended.json()["phase"] == "retired", "otherwise it would renew every minute until the end"


async def test_a_binding_is_undone_where_one_address_refuses_and_a_cancelled_request_leaves_nothing(
    play: Play, resident: Seen
) -> None:
    """Both while the clients of another domain go on at the other address, and lose nothing."""
    undone, cancelled = f"undone.{ZONE}", f"cancelled.{ZONE}"
    further = f"www.{cancelled}"
    lab = play.lab
    healthy, broken = GATEWAY_ADDRESSES
    witness = Witness(await lab.acme_root(), (healthy,), lab.http_port, lab.https_port)
    refusing = Address(host=broken, port=lab.https_port)
    await lab.balancer.break_(refusing, Fault.REFUSE)
    try:
        async with witness.traffic(RESIDENT) as traffic:
            play.point(undone, cancelled, further)
            await play.ask(undone)
            await play.ask(cancelled, further)
            await _cancel_in_the_middle(play, cancelled)
            seen = await play.until(undone, lambda one: "CW1510" in codes(one), seconds=90)
    finally:
        await lab.balancer.mend(refusing)
    assert (traffic.lost, dict(traffic.reasons)) == (0, {})
    assert traffic.made > 100
    assert seen["phase"] == "binding", brief(seen)
    assert {"CW1503", "CW1510"} == codes(seen), "the address takes no connections, and the binding was undone"
    assert {broken} == {one["address"] for one in seen["served"] if one["problem"]}
    path = f"/apis/networking.istio.io/v1/namespaces/{GATEWAY_NAMESPACE}/gateways/{names.gateway_name(undone)}"
    gateway = await lab.api.call("GET", path)
    assert [server["port"]["number"] for server in gateway["spec"]["servers"]] == [80]
    await play.check(undone)
    bound = await play.until(undone, active)
    assert [bound["order"]] == play.orders_of(undone), "what was issued is bound, and not ordered again"


async def _cancel_in_the_middle(play: Play, hostname: str) -> None:
    """Cancel while a challenge waits; whatever was made is gone after."""
    await play.until_under_way("issue_certificate", hostname)
    route = (
        f"/apis/networking.istio.io/v1/namespaces/{GATEWAY_NAMESPACE}"
        f"/virtualservices/{names.challenge_route_name(hostname)}"
    )
    await eventually(lambda: exists(play, route), seconds=30)
    assert await play.objects_of(hostname)
    answer = await play.portal.delete(f"/v1/domains/{hostname}")
    assert (answer.status_code, answer.json()["phase"]) == (200, "retired"), answer.text
    assert answer.json()["findings"] == []

    async def nothing_left() -> bool:
        return not await play.objects_of(hostname)

    # cert-manager and the garbage collector take theirs away after the Certificate
    await eventually(nothing_left, seconds=15)
    assert await play.running_workflows(hostname) == [], "the names are let go"
    anew = await play.other.post("/v1/domains", json={"hostnames": [f"www.{hostname}"]})
    assert anew.status_code == 201, "a name that was let go may be asked for by anybody"
    await play.other.delete(f"/v1/domains/www.{hostname}")
