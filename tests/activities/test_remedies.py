"""What a domain does about itself, by its worker's own account: its own objects only, and each deed told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes.aio.dynamic import DynamicClient

from activities import issuance as watching
from activities import kubernetes
from activities.certificates import CertificateActivities
from activities.diagnosis import DiagnosisActivities
from activities.snapshot import CertificatePlace
from lab.accounts import service_account_kubeconfig
from lab.cluster import GATEWAY_ADDRESSES
from lifecycle import names, rehearsal
from lifecycle.blame import Action
from lifecycle.steps import CertificateTarget, MendReport, Standstill
from tests.activities import domains
from tests.activities.ward import (
    NAMESPACE,
    ZONE,
    Ward,
    asked,
    having,
    restored_request,
    target,
)

pytestmark = pytest.mark.lab

RBAC = Path(__file__).parents[2] / "deploy" / "rbac.yaml"
REQUESTS = f"/apis/cert-manager.io/v1/namespaces/{NAMESPACE}/certificaterequests"


@pytest.fixture(scope="module")
async def worker(ward: Ward) -> AsyncIterator[DynamicClient]:
    """As the worker's account, whose rights are those of deploy/rbac.yaml."""
    await ward.lab.apply_all(RBAC)
    path = await service_account_kubeconfig(ward.lab, "certwright", "certwright-worker", ward.lab.directory / "mending")
    async with kubernetes.connect(str(path)) as cluster:
        yield cluster


async def mended(ward: Ward, cluster: DynamicClient, wanted: CertificateTarget) -> MendReport:
    return await domains.run(DiagnosisActivities(cluster, ward.settings).mend_certificate, wanted)


def told(report: MendReport) -> str:
    return "; ".join(line.detail for line in report.evidence)


async def test_a_worker_may_do_the_remedies_of_its_own_domain(ward: Ward, worker: DynamicClient) -> None:
    hostname = f"worker.{ZONE}"
    request = restored_request(hostname)
    name = request["metadata"]["name"]
    async with having(ward.lab, request, f"{REQUESTS}/{name}"), asked(ward, hostname) as here:
        await ward.until(here, "CW1309", "")
        report = await mended(ward, worker, target(hostname))
        assert f"fixed: delete CertificateRequest {NAMESPACE}/{name}, and renew. The cause: CW1309" in told(report)
        assert report.issuing
        assert "CW1801" not in {one.code for one in report.findings}
        await ward.until(here, "CW1355", "")  # nobody watches this issuance
        assert "fixed: apply VirtualService" in told(await mended(ward, worker, target(hostname)))
        assert await ward.healed(here) <= {Action.ROUTE}
        assert told(await mended(ward, worker, target(hostname))) == "nothing to do: issued, and nothing is wrong"


async def test_a_rehearsal_that_is_stuck_is_mended_too(ward: Ward, worker: DynamicClient) -> None:
    hostname = f"rehearsed.{ZONE}"
    wanted, name = target(hostname), names.rehearsal_name(hostname)
    request = restored_request(hostname, name)
    ward.lab.dns.set(hostname, "A", GATEWAY_ADDRESSES)
    certificate = f"/apis/cert-manager.io/v1/namespaces/{NAMESPACE}/certificates/{name}"
    async with (
        having(ward.lab, request, f"{REQUESTS}/{name}-1"),
        having(ward.lab, rehearsal.shadow(wanted.request, domains.ISSUER), certificate),
    ):
        await ward.until(CertificatePlace(namespace=NAMESPACE, name=name), "CW1309", "")
        report = await mended(ward, worker, wanted)
        assert f"fixed: delete CertificateRequest {NAMESPACE}/{name}-1" in told(report)


async def test_a_domain_leaves_what_is_not_its_own(ward: Ward, worker: DynamicClient) -> None:
    """Another domain's worker run, asked about a Certificate that carries somebody else's name."""
    hostname = f"theirs.{ZONE}"
    request = restored_request(hostname)
    name = request["metadata"]["name"]
    async with having(ward.lab, request, f"{REQUESTS}/{name}"), asked(ward, hostname) as here:
        await ward.until(here, "CW1309", "")
        path = f"/apis/cert-manager.io/v1/namespaces/{NAMESPACE}/certificates/{here.name}"
        body = {"metadata": {"annotations": {"certwright.dev/domain": f"another.{ZONE}"}}}
        await ward.lab.api.call("PATCH", path, body=body, content_type="application/merge-patch+json")
        report = await mended(ward, worker, target(hostname))
        assert told(report).startswith("nothing was done by itself. The cause: CW1309")
        assert not report.issuing
        await ward.lab.api.call("GET", f"{REQUESTS}/{name}")
        body["metadata"]["annotations"]["certwright.dev/domain"] = hostname
        await ward.lab.api.call("PATCH", path, body=body, content_type="application/merge-patch+json")


async def test_a_remedy_that_the_account_may_not_do_is_a_finding_with_the_rule_to_add(ward: Ward) -> None:
    hostname = f"powerless.{ZONE}"
    await ward.lab.apply_all(RBAC)
    metadata = {"name": "certwright-looker", "namespace": "certwright"}
    await ward.lab.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "certwright-looker"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "certwright-worker"},
        "subjects": [{"kind": "ServiceAccount", **metadata}],
    }
    await ward.lab.apply(binding)
    kubeconfig = await service_account_kubeconfig(
        ward.lab, "certwright", "certwright-looker", ward.lab.directory / "looking"
    )
    request = restored_request(hostname)
    path = f"{REQUESTS}/{request['metadata']['name']}"
    async with (
        kubernetes.connect(str(kubeconfig)) as cluster,
        having(ward.lab, request, path),
        asked(ward, hostname) as here,
    ):
        await ward.until(here, "CW1309", "")
        report = await mended(ward, cluster, target(hostname))
    assert "not fixed: delete CertificateRequest" in told(report)
    (denied,) = [one for one in report.findings if one.code == "CW1801"]
    assert "may not delete certificaterequests.cert-manager.io" in denied.problem
    assert "delete" in denied.fix


async def test_who_waits_for_an_issuance_tells_its_domain_each_cause_once(
    ward: Ward, worker: DynamicClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal itself is the workflows' tests' and the end-to-end tests': here is heard what would be signalled."""
    monkeypatch.setattr(watching, "_STILL_SECONDS", 4.0)
    monkeypatch.setattr(watching, "_AGAIN_SECONDS", 2.0)
    heard: list[Standstill] = []

    async def hear(client: object, hostname: str, standstill: Standstill) -> bool:
        heard.append(standstill)
        return True

    monkeypatch.setattr("activities.standstill.tell", hear)
    hostname = f"heard.{ZONE}"
    request = restored_request(hostname)
    path = f"{REQUESTS}/{request['metadata']['name']}"
    wanted = target(hostname)
    ward.lab.dns.set(hostname, "A", GATEWAY_ADDRESSES)
    async with having(ward.lab, request, path):
        watcher = CertificateActivities(worker, object())  # type: ignore[arg-type]
        waiting = asyncio.create_task(domains.run(watcher.issue_certificate, wanted, seconds=90))
        try:
            async with asyncio.timeout(40):
                while not heard:  # noqa: ASYNC110 - a list is no event
                    await asyncio.sleep(0.1)
            await asyncio.sleep(6.0)
            (cause,) = [one.cause for one in heard]
            assert cause is not None
            assert cause.code == "CW1309"
            assert f"certwright diagnose {hostname} --fix" in cause.fix
            assert (await mended(ward, worker, wanted)).issuing
            assert (await waiting).ready
            codes = [one.cause.code if one.cause else "" for one in heard]
            assert codes[:2] == ["CW1309", ""]
            assert all(before != after for before, after in itertools.pairwise(codes))
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await domains.run(CertificateActivities(ward.cluster).remove_certificate, wanted)
