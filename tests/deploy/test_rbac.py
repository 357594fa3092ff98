"""The accounts of `deploy/rbac.yaml` have the rights that `lifecycle.platform` lists, and no more."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio.dynamic import DynamicClient
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from activities.permissions import denied
from lab.accounts import service_account_kubeconfig
from lab.cluster import Lab
from lifecycle.additions import addition_permissions
from lifecycle.platform import (
    Permission,
    backup_permissions,
    diagnosis_permissions,
    gateway_api_permissions,
    installation_permissions,
    proof_permissions,
    required_permissions,
    restore_permissions,
)

RBAC = Path(__file__).parents[2] / "deploy" / "rbac.yaml"
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all(RBAC.read_text()))

Right = tuple[str, str, str, str]

REQUIRED = (
    *required_permissions("istio-system"),
    *gateway_api_permissions("istio-system"),
    *diagnosis_permissions("istio-system"),
)
INSTALLER = (
    *REQUIRED,
    *proof_permissions("cert-manager"),
    *backup_permissions("cert-manager"),
    *installation_permissions("cert-manager"),
    *addition_permissions("cert-manager"),
)


def rights_of_role(kind: str, name: str, namespace: str, scope: str) -> Counter[Right]:
    (role,) = (
        document
        for document in DOCUMENTS
        if (document["kind"], document["metadata"]["name"], document["metadata"].get("namespace", ""))
        == (kind, name, namespace)
    )
    return Counter(
        (verb, group, resource, scope)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def rights(account: str) -> Counter[Right]:
    """What a ServiceAccount may do by the file's bindings; twice where two of them say so."""
    found: Counter[Right] = Counter()
    for document in DOCUMENTS:
        if not document["kind"].endswith("RoleBinding"):
            continue
        subjects = {(one["kind"], one["namespace"], one["name"]) for one in document["subjects"]}
        if ("ServiceAccount", "certwright", account) in subjects:
            ref, namespace = document["roleRef"], document["metadata"].get("namespace", "")
            home = namespace if ref["kind"] == "Role" else ""
            found += rights_of_role(ref["kind"], ref["name"], home, namespace)
    return found


def listed(permissions: tuple[Permission, ...]) -> set[Right]:
    return {permission[:4] for permission in permissions}


@pytest.mark.parametrize(("account", "wanted"), [("certwright-worker", REQUIRED), ("certwright-installer", INSTALLER)])
def test_an_account_has_the_listed_rights_each_once(account: str, wanted: tuple[Permission, ...]) -> None:
    assert Counter(listed(wanted)) == rights(account)


def test_nobody_is_cluster_admin_and_no_rule_has_a_wildcard() -> None:
    assert "cluster-admin" not in {document.get("roleRef", {}).get("name") for document in DOCUMENTS}
    assert "*" not in {
        part for right in (*rights("certwright-worker"), *rights("certwright-installer")) for part in right
    }


def test_the_worker_can_give_nobody_rights_and_sees_secrets_beside_the_gateway_only() -> None:
    held = rights("certwright-worker")
    assert {"istio-system"} == {namespace for _, _, resource, namespace in held if resource == "secrets"}
    assert not [right for right in held if right[0] in {"bind", "escalate", "impersonate"} or "rbac" in right[1]]


def test_the_role_for_restores_is_bound_to_nobody() -> None:
    held = rights_of_role("ClusterRole", "certwright-restore", "", "elsewhere")
    assert Counter(listed(restore_permissions("elsewhere"))) == held
    assert "certwright-restore" not in {document.get("roleRef", {}).get("name") for document in DOCUMENTS}


@pytest.fixture(scope="module")
async def worker(lab: Lab) -> Any:
    for document in DOCUMENTS:
        await lab.apply(document)
    path = await service_account_kubeconfig(lab, "certwright", "certwright-worker", lab.directory / "rbac-worker")
    assert path.stat().st_mode & 0o777 == 0o600
    async with kubernetes.connect(str(path)) as cluster:
        yield cluster


@pytest.mark.lab
async def test_the_cluster_agrees_about_the_worker(worker: DynamicClient) -> None:
    assert await denied(worker, REQUIRED) == ()
    beyond = {permission for permission in INSTALLER if permission[:4] not in listed(REQUIRED)}
    refused = await denied(worker, beyond)
    allowed = {permission[:4] for permission in beyond} - listed(refused)
    # what it may do in all namespaces it may do in cert-manager's too
    held = {right[:3] for right in rights("certwright-worker") if not right[3]}
    assert {right for right in allowed if right[:3] not in held} == set()


@pytest.mark.lab
@pytest.mark.parametrize("namespace", ["cert-manager", "default", "kube-system", ""])
async def test_the_worker_reads_no_secret_elsewhere(worker: DynamicClient, namespace: str) -> None:
    with pytest.raises(ApplicationError) as raised:
        await kubernetes.listed(worker, "v1", "Secret", namespace)
    assert raised.value.type == "PermissionMissing"


@pytest.mark.lab
async def test_the_worker_makes_no_cluster_role(worker: DynamicClient) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "certwright-more"},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    }
    with pytest.raises(ApplicationError) as raised:
        await kubernetes.apply(worker, role)
    assert raised.value.type == "PermissionMissing"
    assert "may not patch clusterroles.rbac.authorization.k8s.io" in raised.value.details[0].problem
