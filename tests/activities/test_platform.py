"""cert-manager is brought to a cluster that has none, by an account with the rights of `deploy/rbac.yaml` and no more.

The tests of this file tell one story on one lab of their own, in their order: what fails first leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from kubernetes.aio.dynamic import DynamicClient
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import kubernetes
from activities.platform import PlatformActivities, PlatformSettings
from lab.accounts import service_account_kubeconfig
from lab.cluster import GATEWAY_ADDRESSES, Lab, run_lab
from lifecycle.findings import Finding
from lifecycle.steps import (
    ChangeKind,
    ObjectChange,
    PlatformRequest,
    PlatformVerdict,
    ProofRequest,
    ReleaseFacts,
    RollbackRequest,
)

pytestmark = pytest.mark.lab

A = TypeVar("A")
R = TypeVar("R")

NAMESPACE = "cert-manager"
REQUEST = PlatformRequest(cluster="lab")
WITHOUT_IMAGE = dataclasses.replace(
    REQUEST, values=json.dumps({"cainjector": {"image": {"repository": "registry.invalid/nothing"}}})
)
PROOF = ProofRequest(namespace=NAMESPACE)
LEASE = {"leaseDuration": "8s", "renewDeadline": "5s", "retryPeriod": "1s"}
"""A controller whose release is removed cannot hand its lease back; the next one has to wait for its end."""

RBAC = Path(__file__).parents[2] / "deploy" / "rbac.yaml"


@pytest.fixture(scope="module")
async def bare(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """A lab without cert-manager, with our accounts."""
    async with run_lab(tmp_path_factory.mktemp("bare")) as running:
        await apply_accounts(running)
        yield running


async def apply_accounts(lab: Lab) -> None:
    for document in yaml.safe_load_all(RBAC.read_text()):
        await lab.apply(document)


@pytest.fixture(scope="module")
async def kubeconfig(bare: Lab) -> Path:
    """Of the installer."""
    return await service_account_kubeconfig(bare, "certwright", "certwright-installer", bare.directory / "installer")


@pytest.fixture(scope="module")
async def cluster(kubeconfig: Path) -> AsyncIterator[DynamicClient]:
    async with kubernetes.connect(str(kubeconfig)) as connected:
        yield connected


@pytest.fixture(scope="module")
def settings(bare: Lab, kubeconfig: Path) -> PlatformSettings:
    return PlatformSettings(
        helm=str(bare.programs.binaries / "helm"),
        kubeconfig=str(kubeconfig),
        chart=str(bare.programs.cert_manager_chart),
        extra_values=json.dumps({**bare.cert_manager_values, "global": {"leaderElection": LEASE}}),
        helm_seconds=60,
        proof_seconds=30,
    )


@pytest.fixture
def platform(cluster: DynamicClient, settings: PlatformSettings) -> PlatformActivities:
    return PlatformActivities(cluster, settings)


@pytest.fixture
def impatient(cluster: DynamicClient, settings: PlatformSettings) -> PlatformActivities:
    return PlatformActivities(cluster, dataclasses.replace(settings, helm_seconds=6, proof_seconds=3))


async def run(work: Callable[[A], Awaitable[R]], argument: A, *, workflow: str = "first-run") -> R:
    """One activity as a worker would run it, for the workflow run of that id."""
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, workflow_run_id=workflow)
    return await environment.run(work, argument)


async def refused(work: Awaitable[object]) -> Finding:
    """The finding with which an activity refuses."""
    with pytest.raises(ApplicationError) as raised:
        await work
    assert raised.value.non_retryable, raised.value.message
    found = raised.value.details[0]
    assert isinstance(found, Finding)
    return found


async def names(lab: Lab, path: str) -> set[str]:
    return {item["metadata"]["name"] for item in (await lab.api.call("GET", path))["items"]}


async def left_of_release(lab: Lab) -> set[str]:
    """What there is of a release in cert-manager's namespace."""
    base = f"/api/v1/namespaces/{NAMESPACE}"
    found = set()
    for path in (
        f"{base}/pods",
        f"{base}/secrets?labelSelector=owner=helm",
        f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
    ):
        found |= await names(lab, path)
    return found


async def revisions(lab: Lab) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = json.loads(
        await lab.helm("history", "cert-manager", "-n", NAMESPACE, "--output", "json")
    )
    return history


# --- before it is there -----------------------------------------------------------------------------------------------


async def test_a_bare_cluster_may_be_installed_on(platform: PlatformActivities) -> None:
    seen = await run(platform.inspect_platform, REQUEST)
    assert [finding.problem for finding in seen.findings if finding.severity == "error"] == []
    assert seen.verdict is PlatformVerdict.INSTALL
    assert seen.kubernetes.startswith("v1.36.")
    assert seen.istio
    assert seen.installed == ""
    assert seen.gateway_addresses == GATEWAY_ADDRESSES


async def test_a_dry_run_on_a_bare_cluster_names_every_object_and_makes_none(
    bare: Lab, platform: PlatformActivities
) -> None:
    asked = dataclasses.replace(REQUEST, dry_run=True, high_availability=True, network_policies=True, monitoring=True)
    seen = await run(platform.inspect_platform, asked)
    assert seen.verdict is PlatformVerdict.INSTALL
    assert {ChangeKind.CREATE} == {change.change for change in seen.changes}
    kinds = [change.kind for change in seen.changes]
    wanted = {"CustomResourceDefinition": 6, "Deployment": 3, "PodDisruptionBudget": 3, "NetworkPolicy": 3}
    assert wanted == {kind: kinds.count(kind) for kind in wanted}
    assert {"CW1017"} == {finding.code for finding in seen.findings if finding.code == "CW1017"}
    assert await left_of_release(bare) == set()


async def test_an_account_without_rights_hears_which_rules_to_add(bare: Lab, settings: PlatformSettings) -> None:
    path = await service_account_kubeconfig(bare, "certwright", "default", bare.directory / "nobody")
    async with kubernetes.connect(str(path)) as connected:
        nobody = PlatformActivities(connected, dataclasses.replace(settings, kubeconfig=str(path)))
        seen = await run(nobody.inspect_platform, REQUEST)
    assert seen.verdict is PlatformVerdict.REFUSE
    assert {"CW1801"} == {finding.code for finding in seen.findings}
    problems = {finding.problem: finding.fix for finding in seen.findings}
    (fix,) = (fix for problem, fix in problems.items() if "may not list pods in namespace istio-system" in problem)
    assert '- {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}' in fix


async def test_a_permission_that_helm_misses_is_named_and_nothing_stays(
    bare: Lab, platform: PlatformActivities
) -> None:
    binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/certwright-installer"
    await bare.api.call("DELETE", binding)
    try:
        seen = await run(platform.inspect_platform, REQUEST)
        found = await refused(run(platform.install_release, REQUEST))
    finally:
        await apply_accounts(bare)
    assert seen.verdict is PlatformVerdict.REFUSE
    assert {"CW1801"} == {finding.code for finding in seen.findings if finding.severity == "error"}
    assert found.code == "CW1801"
    assert "The worker may not" in found.problem
    assert await left_of_release(bare) == set()


async def test_a_chart_that_cannot_get_ready_is_taken_back_and_the_pod_is_named(
    bare: Lab, impatient: PlatformActivities
) -> None:
    found = await refused(run(impatient.install_release, WITHOUT_IMAGE))
    assert found.code == "CW1012"
    assert "registry.invalid/nothing" in found.problem
    assert "cert-manager-cainjector" in found.subject
    assert await left_of_release(bare) == set()


async def test_a_cancelled_installation_is_taken_back(bare: Lab, platform: PlatformActivities) -> None:
    environment = ActivityEnvironment()
    working = asyncio.create_task(environment.run(platform.install_release, WITHOUT_IMAGE))
    await bare.until(f"/api/v1/namespaces/{NAMESPACE}/pods", lambda item: True, seconds=30)
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert await left_of_release(bare) == set()


WORKER = """
import asyncio, sys
from activities import kubernetes
from tests.activities.test_platform import WITHOUT_IMAGE, PlatformActivities, PlatformSettings, run

async def main():
    helm, kubeconfig, chart = sys.argv[1:]
    async with kubernetes.connect(kubeconfig) as cluster:
        settings = PlatformSettings(helm=helm, kubeconfig=kubeconfig, chart=chart)
        await run(PlatformActivities(cluster, settings).install_release, WITHOUT_IMAGE, workflow="dead-run")

asyncio.run(main())
"""


async def test_helm_does_not_outlive_a_killed_worker(
    bare: Lab, platform: PlatformActivities, settings: PlatformSettings
) -> None:
    arguments = ("-c", WORKER, settings.helm, settings.kubeconfig, settings.chart)
    worker = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    try:
        await bare.until(f"/api/v1/namespaces/{NAMESPACE}/pods", lambda item: True, seconds=30)
    finally:
        worker.kill()
        await worker.wait()
    # asked to stop by the kernel, Helm marks its release itself
    marked = "status=failed,name=cert-manager"
    await bare.until(f"/api/v1/namespaces/{NAMESPACE}/secrets?labelSelector={marked}", lambda item: True, seconds=20)
    back = RollbackRequest(name="cert-manager", namespace=NAMESPACE, revision=0)
    await run(platform.roll_back_release, back)
    assert await left_of_release(bare) == set()


async def test_what_a_killed_run_left_pending_is_cleared_away_by_that_run_only(
    bare: Lab, platform: PlatformActivities, settings: PlatformSettings
) -> None:
    command = [
        settings.helm,
        "upgrade",
        "--install",
        "--wait",
        "cert-manager",
        settings.chart,
        "--namespace",
        NAMESPACE,
    ]
    command += ["--labels", "certwright.dev/run=killed-run", "--set", "crds.enabled=true"]
    lease = {**LEASE, "namespace": NAMESPACE}
    command += ["--set-json", f"global.leaderElection={json.dumps(lease)}"]
    command += ["--set", "cainjector.image.repository=registry.invalid/nothing"]
    quiet = asyncio.subprocess.DEVNULL
    helm = await asyncio.create_subprocess_exec(*command, env=bare.environment, stdout=quiet, stderr=quiet)
    try:
        await bare.until(f"/api/v1/namespaces/{NAMESPACE}/pods", lambda item: True, seconds=30)
    finally:
        helm.kill()
        await helm.wait()
    seen = await run(platform.inspect_platform, REQUEST)
    assert {"CW1011"} == {finding.code for finding in seen.findings if finding.severity == "error"}
    assert (await refused(run(platform.install_release, REQUEST))).code == "CW1011"
    facts = await run(platform.install_release, REQUEST, workflow="killed-run")
    assert facts.changed
    assert [revision["status"] for revision in await revisions(bare)] == ["deployed"]


# --- while it is there ------------------------------------------------------------------------------------------------


async def test_it_was_installed_from_nothing(bare: Lab, platform: PlatformActivities) -> None:
    facts = await run(platform.install_release, REQUEST, workflow="killed-run")
    expected = ReleaseFacts(
        name="cert-manager",
        namespace=NAMESPACE,
        revision=1,
        previous_revision=0,
        app_version="v1.21.2",
        changed=True,
    )
    assert expected == facts  # a later attempt of the run that installed it tells what that one did


async def test_a_second_run_changes_nothing(bare: Lab, platform: PlatformActivities) -> None:
    seen = await run(platform.inspect_platform, REQUEST)
    assert seen.verdict is PlatformVerdict.KEEP
    assert (seen.installed, seen.namespace) == ("v1.21.2", NAMESPACE)
    facts = await run(platform.install_release, REQUEST, workflow="second-run")
    assert (facts.changed, facts.revision, facts.previous_revision) == (False, 1, 1)
    assert len(await revisions(bare)) == 1


async def test_the_webhook_is_proved(platform: PlatformActivities) -> None:
    proof = await run(platform.prove_webhook, PROOF)
    assert proof.findings == ()
    assert len(proof.pods) == 3


async def test_a_canary_is_issued_and_nothing_of_it_stays(bare: Lab, platform: PlatformActivities) -> None:
    secrets = await names(bare, f"/api/v1/namespaces/{NAMESPACE}/secrets")
    proof = await run(platform.prove_issuance, PROOF)
    assert proof.findings == ()
    assert len(proof.fingerprint) == 64
    assert secrets == await names(bare, f"/api/v1/namespaces/{NAMESPACE}/secrets")
    for kind in ("certificates", "issuers"):
        assert await names(bare, f"/apis/cert-manager.io/v1/namespaces/{NAMESPACE}/{kind}") == set()


async def test_a_silent_controller_is_found_and_the_canary_is_taken_away(
    bare: Lab, impatient: PlatformActivities
) -> None:
    await scale(bare, 0)
    try:
        webhook = await run(impatient.prove_webhook, PROOF)
        issuance = await run(impatient.prove_issuance, PROOF)
    finally:
        await scale(bare, 1)
    assert [finding.code for finding in webhook.findings] == ["CW1012"]
    assert [finding.code for finding in issuance.findings] == ["CW1014"]
    for kind in ("certificates", "issuers"):
        assert await names(bare, f"/apis/cert-manager.io/v1/namespaces/{NAMESPACE}/{kind}") == set()


async def scale(lab: Lab, replicas: int) -> None:
    await lab.api.call(
        "PATCH",
        f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/cert-manager",
        body={"spec": {"replicas": replicas}},
        content_type="application/merge-patch+json",
    )
    if replicas:
        await lab.deployment_available(NAMESPACE, "cert-manager")


async def test_other_values_are_an_upgrade_that_loses_nothing_and_can_be_rolled_back(
    bare: Lab, platform: PlatformActivities
) -> None:
    await bare.helm(
        "upgrade",
        "cert-manager",
        str(bare.programs.cert_manager_chart),
        "-n",
        NAMESPACE,
        "--reuse-values",
        "--set",
        "podAnnotations.operator=mine",
    )
    wish = dataclasses.replace(REQUEST, values=json.dumps({"podAnnotations": {"certwright": "ours"}}))
    seen = await run(platform.inspect_platform, wish)
    assert seen.verdict is PlatformVerdict.UPGRADE
    facts = await run(platform.install_release, wish, workflow="upgrading")
    assert (facts.changed, facts.revision, facts.previous_revision) == (True, 3, 2)
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/cert-manager"
    annotations = (await bare.api.call("GET", path))["spec"]["template"]["metadata"]["annotations"]
    assert {"operator": "mine", "certwright": "ours"}.items() <= annotations.items()
    back = RollbackRequest(name=facts.name, namespace=facts.namespace, revision=facts.previous_revision)
    assert (await run(platform.roll_back_release, back)).removed != ()
    assert (await run(platform.roll_back_release, back)).removed == ()
    assert len(await revisions(bare)) == 4
    annotations = (await bare.api.call("GET", path))["spec"]["template"]["metadata"]["annotations"]
    assert "certwright" not in annotations


async def test_an_upgrade_that_cannot_get_ready_is_rolled_back(bare: Lab, impatient: PlatformActivities) -> None:
    found = await refused(run(impatient.install_release, WITHOUT_IMAGE, workflow="failing"))
    assert found.code == "CW1012"
    last = (await revisions(bare))[-1]
    assert last["status"] == "deployed"
    assert last["description"].startswith("Rollback to")
    assert (await run(impatient.prove_webhook, PROOF)).findings == ()


async def test_a_version_older_than_the_running_one_is_refused(platform: PlatformActivities) -> None:
    seen = await run(platform.inspect_platform, dataclasses.replace(REQUEST, version="v1.20.3"))
    assert seen.verdict is PlatformVerdict.REFUSE
    assert {"CW1008"} == {finding.code for finding in seen.findings if finding.severity == "error"}


async def test_a_directory_with_another_version_is_refused(bare: Lab, platform: PlatformActivities) -> None:
    found = await refused(run(platform.install_release, dataclasses.replace(REQUEST, version="v1.21.9")))
    assert "v1.21.2" in found.problem
    assert "v1.21.9" in found.problem


@contextlib.asynccontextmanager
async def another_controller(lab: Lab, version: str) -> AsyncIterator[None]:
    """A Deployment that looks as if somebody had applied cert-manager's manifests in another namespace."""
    labels = {"app.kubernetes.io/name": "cert-manager", "app.kubernetes.io/component": "controller"}
    container = {"name": "controller", "image": f"registry.invalid/cert-manager-controller:{version}"}
    path = "/apis/apps/v1/namespaces/default/deployments"
    other = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "other", "namespace": "default", "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    await lab.api.call("POST", path, body=other)
    try:
        yield
    finally:
        await lab.api.call("DELETE", f"{path}/other")


async def test_a_second_cert_manager_is_refused(bare: Lab, platform: PlatformActivities) -> None:
    async with another_controller(bare, "v1.19.0"):
        seen = await run(platform.inspect_platform, REQUEST)
    assert seen.verdict is PlatformVerdict.REFUSE
    assert "CW1006" in {finding.code for finding in seen.findings}
    (found,) = (finding for finding in seen.findings if finding.code == "CW1006")
    assert "default (v1.19.0)" in found.problem


@pytest.fixture
def one_webhook(cluster: DynamicClient, settings: PlatformSettings) -> PlatformActivities:
    """The lab's node has one address, so one Pod of the webhook: its port cannot be had twice."""
    values = {**json.loads(settings.extra_values), "webhook": {"replicaCount": 1}}
    return PlatformActivities(cluster, dataclasses.replace(settings, extra_values=json.dumps(values)))


HIGHLY = dataclasses.replace(REQUEST, high_availability=True)
NOT_HIGHLY = dataclasses.replace(REQUEST, high_availability=False)
COMPONENTS = ("cert-manager", "cert-manager-cainjector", "cert-manager-webhook")


async def changes(platform: PlatformActivities, request: PlatformRequest) -> dict[str, ObjectChange]:
    """What a dry run tells, by kind and name; without what stays as it is."""
    seen = await run(platform.inspect_platform, dataclasses.replace(request, dry_run=True))
    told = {f"{one.kind} {one.name}": one for one in seen.changes if one.change is not ChangeKind.UNCHANGED}
    assert seen.changes == () or len(seen.changes) > len(told)
    return told


async def budgets(lab: Lab) -> set[str]:
    return await names(lab, f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets")


async def replicas(lab: Lab) -> list[int]:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
    found = [(await lab.api.call("GET", f"{path}/{name}"))["status"]["availableReplicas"] for name in COMPONENTS]
    return [int(number) for number in found]


async def test_replicas_and_budgets_are_foretold_brought_and_proved(bare: Lab, one_webhook: PlatformActivities) -> None:
    told = await changes(one_webhook, HIGHLY)
    assert {f"{kind} {name}" for kind in ("Deployment", "PodDisruptionBudget") for name in COMPONENTS} == set(told)
    for name in COMPONENTS:
        assert told[f"PodDisruptionBudget {name}"].change is ChangeKind.CREATE
        assert told[f"Deployment {name}"].change is ChangeKind.CHANGE
    fields = told["Deployment cert-manager"].fields
    assert "spec.replicas" in fields
    assert any("resources" in field for field in fields)
    assert "spec.replicas" not in told["Deployment cert-manager-webhook"].fields
    assert await budgets(bare) == set()
    facts = await run(one_webhook.install_release, HIGHLY, workflow="highly")
    assert facts.changed
    assert await replicas(bare) == [2, 2, 1]
    assert await budgets(bare) == set(COMPONENTS)
    assert (await run(one_webhook.prove_webhook, PROOF)).findings == ()
    assert (await run(one_webhook.prove_issuance, PROOF)).findings == ()


async def test_high_availability_stays_until_it_is_taken_away(bare: Lab, one_webhook: PlatformActivities) -> None:
    for request in (HIGHLY, REQUEST):
        seen = await run(one_webhook.inspect_platform, dataclasses.replace(request, dry_run=True))
        assert (seen.verdict, seen.changes) == (PlatformVerdict.KEEP, ())
    told = await changes(one_webhook, NOT_HIGHLY)
    assert {ChangeKind.REMOVE} == {told[f"PodDisruptionBudget {name}"].change for name in COMPONENTS}
    assert "spec.replicas" in told["Deployment cert-manager"].fields
    assert (await run(one_webhook.install_release, NOT_HIGHLY, workflow="not-highly")).changed
    assert await budgets(bare) == set()
    assert await replicas(bare) == [1, 1, 1]
    assert (await run(one_webhook.inspect_platform, NOT_HIGHLY)).verdict is PlatformVerdict.KEEP


async def test_what_somebody_changed_by_hand_is_foretold_too(bare: Lab, one_webhook: PlatformActivities) -> None:
    await bare.api.call(
        "PATCH",
        f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/cert-manager-cainjector",
        body={
            "spec": {"template": {"spec": {"terminationGracePeriodSeconds": 31}}},
            "metadata": {"labels": {"app": "x"}},
        },
        content_type="application/merge-patch+json",
    )
    told = await changes(one_webhook, dataclasses.replace(REQUEST, values='{"podAnnotations": {"a": "b"}}'))
    assert told["Deployment cert-manager-cainjector"].fields == ("metadata.labels.app",)
    assert "spec.template.metadata.annotations.a" in told["Deployment cert-manager"].fields


async def test_uninstalled_it_leaves_no_pods_and_keeps_the_definitions(bare: Lab, platform: PlatformActivities) -> None:
    back = RollbackRequest(name="cert-manager", namespace=NAMESPACE, revision=0)
    assert (await run(platform.roll_back_release, back)).removed != ()
    assert (await run(platform.roll_back_release, back)).removed == ()
    assert await left_of_release(bare) == set()
    definitions = await names(bare, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    assert "certificates.cert-manager.io" in definitions


async def test_a_foreign_one_of_the_same_minor_is_adopted_where_it_may_be_proved(
    bare: Lab, platform: PlatformActivities, settings: PlatformSettings
) -> None:
    async with another_controller(bare, "v1.21.1"), kubernetes.connect(str(bare.kubeconfig)) as admin:
        seen = await run(PlatformActivities(admin, settings).inspect_platform, REQUEST)
        by_us = await run(platform.inspect_platform, REQUEST)
    assert seen.verdict is PlatformVerdict.ADOPT
    assert (seen.installed, seen.namespace) == ("v1.21.1", "default")
    assert by_us.verdict is PlatformVerdict.REFUSE
    problems = [finding.problem for finding in by_us.findings if finding.severity == "error"]
    assert any("may not delete secrets in namespace default" in problem for problem in problems)


async def test_a_foreign_one_of_another_minor_is_refused(bare: Lab, platform: PlatformActivities) -> None:
    async with another_controller(bare, "v1.14.4"):
        seen = await run(platform.inspect_platform, REQUEST)
    assert seen.verdict is PlatformVerdict.REFUSE
    assert "CW1007" in {finding.code for finding in seen.findings}
