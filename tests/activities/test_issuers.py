"""An issuer is applied through cert-manager's webhook and watched until it is ready or says why not."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from kubernetes.aio.dynamic import DynamicClient
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import kubernetes
from activities.issuers import IssuerActivities
from lab.accounts import service_account_kubeconfig
from lab.cluster import Lab
from lifecycle import manifests
from lifecycle.domain import IssuerKind, IssuerRef
from lifecycle.steps import IssuerRequest, IssuerStatus

pytestmark = pytest.mark.lab

RBAC = Path(__file__).parents[2] / "deploy" / "rbac.yaml"


@pytest.fixture(scope="module")
async def cluster(lab: Lab) -> AsyncIterator[DynamicClient]:
    """As the worker's account."""
    for document in yaml.safe_load_all(RBAC.read_text()):
        await lab.apply(document)
    path = await service_account_kubeconfig(lab, "certwright", "certwright-worker", lab.directory / "issuers-worker")
    async with kubernetes.connect(str(path)) as connected:
        yield connected


@pytest.fixture
def issuers(cluster: DynamicClient) -> IssuerActivities:
    return IssuerActivities(cluster, longest_seconds=20)


@pytest.fixture
def request_(lab: Lab) -> IssuerRequest:
    return IssuerRequest(
        ref=IssuerRef(name="pebble-h2"),
        server=lab.acme_directory,
        email="ops@h2.test",
        ca_bundle=lab.acme_ca.read_text(),
    )


def named(request: IssuerRequest, name: str) -> IssuerRequest:
    return dataclasses.replace(request, ref=IssuerRef(name=name))


async def applied(issuers: IssuerActivities, request: IssuerRequest) -> IssuerStatus:
    """Applied, through a webhook that may just have started, as the workflow's retries do."""
    for _ in range(50):
        try:
            return await ActivityEnvironment().run(issuers.apply_issuer, request)
        except ApplicationError as error:
            if error.non_retryable:
                raise
            await asyncio.sleep(0.2)
    raise AssertionError("the webhook does not answer")


async def set_up(issuers: IssuerActivities, request: IssuerRequest) -> IssuerStatus:
    status = await applied(issuers, request)
    if status.findings:
        return status
    return await ActivityEnvironment().run(issuers.await_issuer, request)


async def test_an_issuer_gets_ready_with_its_account_and_asking_again_changes_nothing(
    lab: Lab, issuers: IssuerActivities, request_: IssuerRequest
) -> None:
    status = await set_up(issuers, request_)
    assert status.findings == ()
    assert status.ready
    assert status.account.startswith("https://localhost:")
    path = f"/apis/cert-manager.io/v1/clusterissuers/{request_.ref.name}"
    before = await lab.api.call("GET", path)
    assert status == await set_up(issuers, request_)
    after = await lab.api.call("GET", path)
    assert before["metadata"]["generation"] == after["metadata"]["generation"]


async def test_an_issuer_of_a_namespace_gets_ready_too(issuers: IssuerActivities, request_: IssuerRequest) -> None:
    ref = IssuerRef(name="pebble-h2", kind=IssuerKind.ISSUER, namespace="default")
    status = await set_up(issuers, dataclasses.replace(request_, ref=ref))
    assert status.ready
    assert ref == status.ref


async def test_a_ca_that_does_not_answer_is_waited_for_and_said(
    cluster: DynamicClient, request_: IssuerRequest
) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        nobody = f"https://127.0.0.1:{reserved.getsockname()[1]}/dir"
        impatient = IssuerActivities(cluster, longest_seconds=3)
        status = await set_up(impatient, dataclasses.replace(named(request_, "silent-h2"), server=nobody))
    assert not status.ready
    assert [finding.code for finding in status.findings] == ["CW1205"]
    assert "connection refused" in status.findings[0].problem


async def test_a_contact_that_the_ca_refuses_is_said_at_once(
    issuers: IssuerActivities, request_: IssuerRequest
) -> None:
    refused = dataclasses.replace(named(request_, "refused-h2"), email="not an address")
    status = await set_up(issuers, refused)
    assert [finding.code for finding in status.findings] == ["CW1203"]


async def test_what_the_webhook_refuses_is_a_finding(issuers: IssuerActivities, request_: IssuerRequest) -> None:
    status = await applied(issuers, dataclasses.replace(named(request_, "wrong-h2"), server=""))
    assert [finding.code for finding in status.findings] == ["CW1204"]
    assert "server" in status.findings[0].problem


async def test_fields_that_somebody_else_owns_are_not_taken_over(
    lab: Lab, issuers: IssuerActivities, request_: IssuerRequest
) -> None:
    theirs = named(request_, "theirs-h2")
    await lab.apply_when_answered(manifests.acme_issuer(dataclasses.replace(theirs, email="them@h2.test")))
    status = await applied(issuers, theirs)
    assert [finding.code for finding in status.findings] == ["CW1805"]
    assert "certwright-lab" in status.findings[0].problem


async def test_a_namespace_that_is_not_there_is_a_finding(issuers: IssuerActivities, request_: IssuerRequest) -> None:
    ref = IssuerRef(name="pebble-h2", kind=IssuerKind.ISSUER, namespace="nowhere-h2")
    status = await applied(issuers, dataclasses.replace(request_, ref=ref))
    assert [finding.code for finding in status.findings] == ["CW1803"]


async def test_a_cluster_without_cert_manager_is_told(
    issuers: IssuerActivities, request_: IssuerRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lab has it: so another group is asked for, which the API server knows as little."""
    monkeypatch.setattr("activities.issuers._CERT_MANAGER", "cert-manager.example/v1")
    status = await applied(issuers, request_)
    assert [finding.code for finding in status.findings] == ["CW1015"]
    assert "certwright platform install" in status.findings[0].fix


async def test_a_missing_permission_is_named(lab: Lab, request_: IssuerRequest) -> None:
    await lab.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody-h2", "namespace": "default"}}
    )
    path = await service_account_kubeconfig(lab, "default", "nobody-h2", lab.directory / "issuers-nobody")
    async with kubernetes.connect(str(path)) as cluster:
        with pytest.raises(ApplicationError) as raised:
            await applied(IssuerActivities(cluster), request_)
        assert "may not patch clusterissuers.cert-manager.io" in raised.value.details[0].problem
        with pytest.raises(ApplicationError) as raised:
            await ActivityEnvironment().run(IssuerActivities(cluster).await_issuer, request_)
        assert "may not list clusterissuers.cert-manager.io" in raised.value.details[0].problem


async def test_a_stopping_worker_leaves_the_watch_at_once(issuers: IssuerActivities, request_: IssuerRequest) -> None:
    environment = ActivityEnvironment()
    absent = named(request_, "absent-h2")
    watching = asyncio.create_task(environment.run(issuers.await_issuer, absent))
    await asyncio.sleep(0.5)
    environment.worker_shutdown()
    with pytest.raises(ApplicationError) as raised:
        await asyncio.wait_for(watching, 2)
    assert not raised.value.non_retryable
