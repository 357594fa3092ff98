"""What is brought beside cert-manager: by the installer's account on the lab's API server, and taken away again.

The lab has no network plugin: that the policies are accepted is seen here, what they would block is not.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio.dynamic import DynamicClient
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import kubernetes
from activities.additions import AdditionActivities, would_change
from lab.accounts import service_account_kubeconfig
from lab.binaries import monitoring_definitions
from lab.cluster import Lab
from lifecycle.manifests import Manifest
from lifecycle.steps import AdditionFacts, ChangeKind, PlatformRequest

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "lifecycle" / "golden" / "platform"
NAMESPACE = "cert-manager"
WISH = PlatformRequest(cluster="lab", network_policies=True, monitoring=True, dashboard=True)
NO_WISH = dataclasses.replace(WISH, network_policies=False, monitoring=False, dashboard=False)
POLICIES = {f"certwright-cert-manager-{component}" for component in ("controller", "webhook", "cainjector")}
GROUP = "monitoring.coreos.com"


@pytest.fixture(scope="module")
async def installer(lab: Lab) -> AsyncIterator[DynamicClient]:
    for document in yaml.safe_load_all((ROOT / "deploy" / "rbac.yaml").read_text()):
        await lab.apply(document)
    path = await service_account_kubeconfig(lab, "certwright", "certwright-installer", lab.directory / "additions")
    async with kubernetes.connect(str(path)) as cluster:
        yield cluster


@pytest.fixture
def additions(installer: DynamicClient) -> AdditionActivities:
    return AdditionActivities(installer)


@pytest.fixture(scope="module")
async def operator(lab: Lab) -> AsyncIterator[None]:
    """The Prometheus operator's kinds; of the operator itself nothing is needed."""
    definitions = [yaml.safe_load(path.read_text()) for path in await asyncio.to_thread(monitoring_definitions)]
    for definition in definitions:
        await lab.apply(definition)
        name = definition["metadata"]["name"]
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions?fieldSelector=metadata.name={name}"
        await lab.until(path, established, seconds=20)
    yield
    for definition in definitions:
        name = definition["metadata"]["name"]
        await lab.api.call("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")


def established(definition: dict[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


async def change(additions: AdditionActivities, request: PlatformRequest) -> AdditionFacts:
    return await ActivityEnvironment().run(additions.change_additions, request)


def told(facts: AdditionFacts) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in facts.changes:
        found.setdefault(one.change.value, set()).add(f"{one.kind} {one.name}")
    return found


async def policies(lab: Lab) -> set[str]:
    path = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"
    return {item["metadata"]["name"] for item in (await lab.api.call("GET", path))["items"]}


async def test_without_the_operators_kinds_the_rest_is_brought_and_the_missing_is_told(
    lab: Lab, additions: AdditionActivities
) -> None:
    facts = await change(additions, WISH)
    assert told(facts) == {
        "create": {f"NetworkPolicy {name}" for name in POLICIES} | {"ConfigMap certwright-dashboard"}
    }
    assert [finding.code for finding in facts.findings] == ["CW1017", "CW1017"]
    assert await policies(lab) == POLICIES


async def test_a_failed_run_takes_back_what_it_made(lab: Lab, additions: AdditionActivities) -> None:
    assert set(told(await change(additions, WISH))) == {"unchanged"}
    facts = await change(additions, dataclasses.replace(NO_WISH, monitoring=None))
    assert set(told(facts)) == {"remove"}
    facts = await change(additions, dataclasses.replace(WISH, monitoring=None))
    removed = (await ActivityEnvironment().run(additions.take_back_additions, facts)).removed
    assert len(removed) == 4
    assert await policies(lab) == set()
    assert (await ActivityEnvironment().run(additions.take_back_additions, facts)).removed == ()


@pytest.mark.usefixtures("operator")
async def test_all_of_it_is_brought_once_changed_by_request_and_removed(
    lab: Lab, installer: DynamicClient, additions: AdditionActivities
) -> None:
    foretold, found = await would_change(installer, WISH)
    assert found == ()
    facts = await change(additions, WISH)
    assert facts.findings == ()
    assert foretold == facts.changes
    assert {"create"} == set(told(facts))
    assert len(facts.changes) == 6
    again = await change(additions, WISH)
    assert {"unchanged"} == set(told(again))
    assert (await would_change(installer, WISH))[0] == again.changes

    other = dataclasses.replace(WISH, issuer_ports=(8200,), monitoring_labels=(("release", "prometheus"),))
    foretold, _ = await would_change(installer, other)
    facts = await change(additions, other)
    assert foretold == facts.changes
    changed = {f"{one.kind} {one.name}": one.fields for one in facts.changes if one.change is ChangeKind.CHANGE}
    assert set(changed) == {
        "NetworkPolicy certwright-cert-manager-controller",
        "PrometheusRule certwright-cert-manager",
        "ServiceMonitor certwright-cert-manager",
    }
    assert changed["ServiceMonitor certwright-cert-manager"] == ("metadata.labels.release",)
    assert "spec.egress[0].ports[5]" in changed["NetworkPolicy certwright-cert-manager-controller"]

    foretold, _ = await would_change(installer, NO_WISH)
    facts = await change(additions, NO_WISH)
    assert foretold == facts.changes
    assert {"remove"} == set(told(facts))
    assert (await change(additions, NO_WISH)).changes == ()
    assert await policies(lab) == set()


@pytest.mark.usefixtures("operator")
async def test_an_object_of_somebody_else_is_never_touched(lab: Lab, additions: AdditionActivities) -> None:
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "certwright-dashboard"}, "data": {"a": "b"}}
    await lab.api.call("POST", path, body=body)
    try:
        facts = await change(additions, WISH)
        assert [finding.code for finding in facts.findings] == ["CW1019"]
        assert facts.changes == ()
        assert await policies(lab) == set()
        assert (await change(additions, NO_WISH)).changes == ()
        assert (await lab.api.call("GET", f"{path}/certwright-dashboard"))["data"] == {"a": "b"}
    finally:
        await lab.api.call("DELETE", f"{path}/certwright-dashboard")


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    "document",
    [yaml.safe_load(path.read_text()) for path in sorted(GOLDEN.glob("*.yaml"))],
    ids=lambda one: one["kind"],
)
async def test_the_server_accepts_every_golden_object(installer: DynamicClient, document: Manifest) -> None:
    assert (await kubernetes.tried(installer, document))["metadata"]["name"] == document["metadata"]["name"]


async def test_the_worker_of_domains_may_not_do_it(lab: Lab, installer: DynamicClient) -> None:
    path = await service_account_kubeconfig(lab, "certwright", "certwright-worker", lab.directory / "additions-worker")
    async with kubernetes.connect(str(path)) as cluster:
        with pytest.raises(ApplicationError) as raised:
            await change(AdditionActivities(cluster), dataclasses.replace(WISH, monitoring=None))
    assert raised.value.type == "PermissionMissing"
    assert "networkpolicies.networking.k8s.io in namespace cert-manager" in raised.value.details[0].problem
