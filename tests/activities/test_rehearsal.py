"""A rehearsal on the real lab: one order at the counterpart, one at the issuer, and nothing left of the first.

The lab's CA has one directory, so the counterpart is a second ClusterIssuer there with an account of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes.aio.dynamic import DynamicClient
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from activities.certificates import CertificateActivities
from activities.issuance import ACME, CERT_MANAGER
from activities.preflight import PreflightActivities
from activities.rehearsal import remove_shadow
from lab.accounts import service_account_kubeconfig
from lab.cluster import ACME_BLOCKED, Lab
from lifecycle import names
from lifecycle.domain import IssuerRef, Rehearsal
from lifecycle.steps import CertificateTarget
from tests.activities import domains

pytestmark = pytest.mark.lab

NAMESPACE = "istio-system"
REAL, STAGE = IssuerRef(name="h1-rehearsed"), IssuerRef(name="h1-stage")
RBAC = Path(__file__).parents[2] / "deploy" / "rbac.yaml"


@pytest.fixture(scope="module")
async def rehearsing(issuing: Lab) -> Lab:
    """The lab with an issuer and its counterpart."""
    await domains.issuer(issuing, STAGE)
    await domains.issuer(issuing, REAL, rehearsal=f"ClusterIssuer/{STAGE.name}")
    return issuing


@pytest.fixture(scope="module")
async def worker(rehearsing: Lab) -> AsyncIterator[DynamicClient]:
    """A client with the worker's own rights and no more."""
    await rehearsing.apply_all(RBAC)
    path = rehearsing.directory / "rehearsal-worker"
    kubeconfig = await service_account_kubeconfig(rehearsing, "certwright", "certwright-worker", path)
    async with kubernetes.connect(str(kubeconfig)) as connected:
        yield connected


@pytest.fixture
def certificates(worker: DynamicClient) -> CertificateActivities:
    return CertificateActivities(worker)


def target(hostname: str, mode: Rehearsal = Rehearsal.FIRST) -> CertificateTarget:
    request = dataclasses.replace(domains.request(hostname), issuer=REAL, rehearsal=mode)
    return CertificateTarget(request=request)


@contextlib.asynccontextmanager
async def ordered(cluster: DynamicClient, hostname: str) -> AsyncIterator[dict[str, str]]:
    """The Orders for a name, by uid the issuer that was asked, seen while they were there."""
    seen: dict[str, str] = {}

    async def look() -> None:
        async for _, order in kubernetes.follow(cluster, ACME, "Order", NAMESPACE):
            if hostname in order["spec"].get("dnsNames", ()):
                seen[order["metadata"]["uid"]] = order["spec"]["issuerRef"]["name"]

    looking = asyncio.create_task(look())
    await asyncio.sleep(0.5)
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def until_gone(cluster: DynamicClient, hostname: str) -> None:
    """Until nothing in the cluster has the shadow's name: its owner's deletion takes the requests and Orders too."""
    shadow = names.rehearsal_name(hostname)
    kinds = ((CERT_MANAGER, "Certificate"), (CERT_MANAGER, "CertificateRequest"), (ACME, "Order"), (ACME, "Challenge"))

    async def left() -> list[str]:
        found = [
            one
            for version, kind in (*kinds, ("v1", "Secret"))
            for one in await kubernetes.listed(cluster, version, kind, NAMESPACE)
        ]
        return [one["metadata"]["name"] for one in found if one["metadata"]["name"].startswith(shadow)]

    async with asyncio.timeout(30):
        while await left():  # noqa: ASYNC110 - what is gone is no event of one object
            await asyncio.sleep(0.2)


async def test_a_new_issuer_is_rehearsed_once_and_only_the_real_certificate_stays(
    rehearsing: Lab, admin: DynamicClient, certificates: CertificateActivities
) -> None:
    first, second, third = (target(f"{name}.h1.test") for name in ("first", "second", "third"))
    third = dataclasses.replace(third, request=dataclasses.replace(third.request, rehearsal=Rehearsal.ALWAYS))
    for one in (first, second, third):
        domains.point_here(rehearsing, one.request.hostname)
    heard = domains.Heard()
    asked: dict[str, list[str]] = {}
    try:
        for one in (first, second, third):
            hostname = one.request.hostname
            async with ordered(admin, hostname) as orders:
                result = await domains.run(certificates.issue_certificate, one, environment=heard.environment)
                await until_gone(admin, hostname)
            assert (result.ready, result.findings, result.orders) == (True, (), 1)
            assert result.order.startswith(names.certificate_name(hostname))
            assert result.secret is not None
            secret = await kubernetes.read(admin, "v1", "Secret", NAMESPACE, names.secret_name(hostname))
            assert secret is not None
            asked[hostname] = list(orders.values())
            rehearsed = [line.detail for line in result.evidence if line.step == "rehearsal"]
            assert len(rehearsed) == len(orders) - 1
            assert all(
                line.startswith(f"rehearsed at ClusterIssuer {STAGE.name}: ")
                and result.secret.fingerprint[:16] not in line
                for line in rehearsed
            )
        assert asked == {
            "first.h1.test": [STAGE.name, REAL.name],
            "second.h1.test": [REAL.name],
            "third.h1.test": [STAGE.name, REAL.name],
        }
        assert any(
            words.startswith(f"rehearsal at {STAGE.name}: waiting for the challenge of ") for words in heard.words
        )
    finally:
        for one in (first, second, third):
            await domains.run(certificates.remove_certificate, one)


@pytest.mark.parametrize("blocked", [False, True], ids=["astray", "blocked"])
async def test_a_failed_rehearsal_orders_nothing_and_says_so(
    rehearsing: Lab, admin: DynamicClient, certificates: CertificateActivities, blocked: bool
) -> None:
    hostname = f"never.{ACME_BLOCKED}" if blocked else "unproved.h1.test"
    one = target(hostname, Rehearsal.ALWAYS)
    if not blocked:
        domains.point_here(rehearsing, hostname, addresses=("127.0.0.9",))  # the CA alone finds nobody there
    try:
        async with ordered(admin, hostname) as orders:
            result = await domains.run(certificates.issue_certificate, one)
            await until_gone(admin, hostname)
        assert set(orders.values()) == {STAGE.name}
        assert (result.ready, result.order, result.orders) == (False, "", 0)
        assert [finding.code for finding in result.findings[:2]] == ["CW1360", "CW1312" if blocked else "CW1303"]
        assert f"nothing was ordered of ClusterIssuer {REAL.name}" in result.findings[0].problem
        assert result.cause_seen is not blocked
        real = names.certificate_name(hostname)
        assert await kubernetes.read(admin, CERT_MANAGER, "Certificate", NAMESPACE, real) is None
    finally:
        await domains.run(certificates.remove_certificate, one)


async def test_a_cancelled_rehearsal_is_taken_away_and_one_of_a_killed_worker_taken_up(
    rehearsing: Lab, admin: DynamicClient, certificates: CertificateActivities
) -> None:
    hostname = "interrupted.h1.test"
    one = target(hostname, Rehearsal.ALWAYS)
    domains.point_here(rehearsing, hostname)
    try:
        async with ordered(admin, hostname) as orders:
            heard = domains.Heard()
            work = asyncio.create_task(domains.run(certificates.issue_certificate, one, environment=heard.environment))
            await heard.until("rehearsal at")
            heard.environment.worker_shutdown()
            with pytest.raises(ApplicationError):
                await asyncio.wait_for(work, 5)
            taken_up = await domains.run(certificates.issue_certificate, one)
        assert taken_up.ready
        assert list(orders.values()) == [STAGE.name, REAL.name]
        await domains.run(certificates.remove_certificate, one)
        heard = domains.Heard()
        work = asyncio.create_task(domains.run(certificates.issue_certificate, one, environment=heard.environment))
        await heard.until("rehearsal at")
        heard.environment.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(work, 5)
        gone = await domains.run(certificates.remove_certificate, one)
        assert f"Certificate {NAMESPACE}/{names.rehearsal_name(hostname)}" in gone.removed
        await until_gone(admin, hostname)
    finally:
        await domains.run(certificates.remove_certificate, one)


async def test_what_has_the_shadows_name_and_is_not_ours_stays(
    rehearsing: Lab, admin: DynamicClient, certificates: CertificateActivities
) -> None:
    hostname = "occupied.h1.test"
    one = target(hostname, Rehearsal.ALWAYS)
    place = ("v1", "Secret", NAMESPACE, names.rehearsal_name(hostname))
    metadata = {"name": place[3], "namespace": NAMESPACE}
    await rehearsing.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"mine": "yes"}})
    try:
        result = await domains.run(certificates.issue_certificate, one)
        assert [finding.code for finding in result.findings] == ["CW1360", "CW1407"]
        assert await remove_shadow(admin, one.request) == []
        assert await kubernetes.read(admin, *place) is not None
    finally:
        await domains.run(certificates.remove_certificate, one)
        await kubernetes.remove(admin, *place)


async def test_a_counterpart_that_is_not_there_is_told_before_anything_is_ordered(
    rehearsing: Lab, admin: DynamicClient
) -> None:
    astray = IssuerRef(name="h1-astray")
    await domains.issuer(rehearsing, astray, rehearsal="h1-nobody")
    domains.point_here(rehearsing, "ahead-of-it.h1.test")
    request = dataclasses.replace(domains.request("ahead-of-it.h1.test"), issuer=astray)
    preflight = PreflightActivities(admin, domains.preflight_settings(rehearsing))
    for mode, expected in ((Rehearsal.FIRST, ["CW1260"]), (Rehearsal.NEVER, [])):
        report = await domains.run(preflight.check_preflight, dataclasses.replace(request, rehearsal=mode))
        assert [finding.code for finding in report.findings] == expected
        assert report.may_proceed is (not expected)
