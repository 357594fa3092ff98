"""The client's errors become what Temporal and people need to know, and a watch that nobody serves does not wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest
from kubernetes.aio.client import ApiException
from kubernetes.aio.dynamic import DynamicClient
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from lab.accounts import service_account_kubeconfig
from lab.api import Json
from lab.cluster import Lab
from lifecycle.findings import Finding
from lifecycle.manifests import Manifest

NAMESPACE = "h1-kubernetes"
FORBIDDEN = (
    'challenges.acme.cert-manager.io is forbidden: User "system:serviceaccount:a:b" cannot watch resource '
    '"challenges" in API group "acme.cert-manager.io" in the namespace "istio-system"'
)


@pytest.mark.parametrize(
    ("status", "kind", "final", "code"),
    [
        (403, "PermissionMissing", True, "CW1801"),
        (422, "ClusterRefused", True, "CW1803"),
        (400, "ClusterRefused", True, "CW1803"),
        (401, "ClusterUnreachable", False, ""),
        (404, "ClusterUnreachable", False, ""),
        (409, "ClusterUnreachable", False, ""),
        (429, "ClusterUnreachable", False, ""),
        (500, "ClusterUnreachable", False, ""),
        (503, "ClusterUnreachable", False, ""),
    ],
)
def test_an_answer_of_the_api_server(status: int, kind: str, final: bool, code: str) -> None:
    with pytest.raises(ApplicationError) as caught, kubernetes.translated("watch Challenge"):
        raise ApiException(status=status, reason=FORBIDDEN)
    assert (kind, final) == (caught.value.type, caught.value.non_retryable)
    assert code == "".join(detail.code for detail in caught.value.details)


def test_a_refusal_that_names_no_permission_is_somebody_elses_rule() -> None:
    with pytest.raises(ApplicationError) as caught, kubernetes.translated("apply Gateway shop"):
        raise ApiException(status=403, reason='admission webhook "policy" denied the request: no')
    assert (caught.value.type, caught.value.details[0].code) == ("ClusterRefused", "CW1803")


@pytest.mark.parametrize("error", [aiohttp.ClientConnectionError("gone"), TimeoutError(), OSError("no route")])
def test_a_server_that_does_not_answer_is_asked_again(error: Exception) -> None:
    with pytest.raises(ApplicationError) as caught, kubernetes.translated("list Pod"):
        raise error
    assert (caught.value.type, caught.value.non_retryable) == ("ClusterUnreachable", False)
    assert caught.value.message.partition(": ")[2]


@pytest.fixture(scope="module")
async def namespace(lab: Lab) -> str:
    await lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    return NAMESPACE


def config_map(name: str, **data: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"of": name.partition("-")[0]}},
        "data": data,
    }


@pytest.mark.lab
async def test_objects_are_applied_read_listed_in_pages_and_removed(admin: DynamicClient, namespace: str) -> None:
    for number in range(5):
        await kubernetes.apply(admin, config_map(f"paged-{number}"))
    sizes = [
        len(page)
        async for page in kubernetes.pages(admin, "v1", "ConfigMap", namespace, label_selector="of=paged", size=2)
    ]
    assert sizes == [2, 2, 1]
    items = await kubernetes.listed(admin, "v1", "ConfigMap", namespace, label_selector="of=paged")
    assert {("ConfigMap", f"paged-{number}") for number in range(5)} == {
        (item["kind"], item["metadata"]["name"]) for item in items
    }
    assert await kubernetes.remove(admin, "v1", "ConfigMap", namespace, "paged-0")
    assert not await kubernetes.remove(admin, "v1", "ConfigMap", namespace, "paged-0")
    assert await kubernetes.read(admin, "v1", "ConfigMap", namespace, "paged-0") is None


@pytest.mark.lab
async def test_a_kind_that_the_cluster_does_not_have_is_a_finding_and_asked_for_again(admin: DynamicClient) -> None:
    with pytest.raises(ApplicationError) as caught:
        await kubernetes.listed(admin, "example.com/v1", "Nothing", "default")
    assert (caught.value.type, caught.value.non_retryable) == ("KindMissing", False)
    assert caught.value.details[0].code == "CW1804"


@pytest.mark.lab
async def test_many_may_discover_kinds_at_once_on_a_new_client(lab: Lab) -> None:
    kinds = (
        ("v1", "Secret"),
        ("example.com/v1", "Nothing"),
        ("apps/v1", "Deployment"),
        ("cert-manager.io/v1", "Certificate"),
        ("example.com/v2", "Nothing"),
        ("networking.istio.io/v1", "Gateway"),
    )
    async with kubernetes.connect(str(lab.kubeconfig)) as cluster:
        found = await asyncio.gather(
            *(kubernetes.resource(cluster, version, kind) for version, kind in kinds), return_exceptions=True
        )
    assert ["" if isinstance(one, ApplicationError) else getattr(one, "kind", one) for one in found] == [
        "Secret",
        "",
        "Deployment",
        "Certificate",
        "",
        "Gateway",
    ]


@pytest.mark.lab
async def test_changes_are_followed(admin: DynamicClient, namespace: str) -> None:
    await kubernetes.apply(admin, config_map("followed", a="1"))
    seen: list[tuple[str, str]] = []
    follow = kubernetes.follow(admin, "v1", "ConfigMap", namespace, name="followed")
    async with asyncio.timeout(20), contextlib.aclosing(follow):
        async for change, item in follow:
            seen.append((change, item["data"]["a"]))
            if change == "ADDED":
                await kubernetes.apply(admin, config_map("followed", a="2"))
            elif change == "MODIFIED":
                await kubernetes.remove(admin, "v1", "ConfigMap", namespace, "followed")
            else:
                break
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]


async def limited(lab: Lab, name: str, rules: list[Json], directory: Path) -> str:
    """The kubeconfig of an account that may do only that in the namespace."""
    metadata = {"name": name, "namespace": NAMESPACE}
    await lab.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    group = "rbac.authorization.k8s.io"
    await lab.apply({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules})
    await lab.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
        }
    )
    return str(await service_account_kubeconfig(lab, NAMESPACE, name, directory / name))


async def drained(follow: AsyncGenerator[tuple[str, Manifest], None]) -> None:
    async with asyncio.timeout(20), contextlib.aclosing(follow):
        async for _ in follow:
            pass


@pytest.mark.lab
@pytest.mark.parametrize("verbs", [["get", "list"], ["get", "watch"]], ids=["no watch", "no list"])
async def test_a_watch_that_is_not_permitted_ends_with_the_rule_to_add(
    lab: Lab, namespace: str, tmp_path: Path, verbs: list[str]
) -> None:
    missing = ({"list", "watch"} - set(verbs)).pop()
    rules: list[Json] = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}]
    kubeconfig = await limited(lab, f"may-not-{missing}", rules, tmp_path)
    async with kubernetes.connect(kubeconfig) as cluster:
        with pytest.raises(ApplicationError) as caught:
            await drained(kubernetes.follow(cluster, "v1", "ConfigMap", namespace))
    (finding,) = caught.value.details
    assert isinstance(finding, Finding)
    assert caught.value.non_retryable
    assert finding.code == "CW1801"
    assert f"{missing} configmaps in namespace {namespace}" in finding.problem
    assert f'"verbs": ["{missing}"]' in finding.fix


@pytest.mark.lab
@pytest.mark.parametrize("words", [FORBIDDEN, 'forbidden: User "a" cannot get path "/api/v1"'])
async def test_a_server_that_is_starting_refuses_only_for_the_moment(
    admin: DynamicClient, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    async def starting(_: DynamicClient) -> bool:
        return False

    monkeypatch.setattr(kubernetes, "_ready", starting)
    with pytest.raises(ApplicationError) as caught:
        async with kubernetes.answering(admin, "read Secret shop"):
            raise ApiException(status=403, reason=words)
    assert (caught.value.type, caught.value.non_retryable) == ("ClusterUnreachable", False)


@pytest.mark.lab
async def test_a_server_that_did_not_answer_a_moment_ago_refuses_only_for_the_moment(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have read its roles between its refusal and the question whether it is ready."""

    async def refused(cluster: DynamicClient) -> ApplicationError:
        with pytest.raises(ApplicationError) as caught:
            async with kubernetes.answering(cluster, "read Secret shop"):
                raise ApiException(status=403, reason=FORBIDDEN)
        return caught.value

    async with kubernetes.connect(str(lab.kubeconfig)) as cluster:
        assert (await refused(cluster)).non_retryable
        with pytest.raises(ApplicationError, match="gone"):
            async with kubernetes.answering(cluster, "read Secret shop"):
                raise ConnectionResetError("gone")
        assert not (await refused(cluster)).non_retryable
        monkeypatch.setattr(kubernetes, "_SETTLING_SECONDS", 0.0)
        assert (await refused(cluster)).non_retryable


@pytest.mark.lab
async def test_conditions_are_written_only_over_what_was_read(admin: DynamicClient, namespace: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "conditions", "namespace": namespace},
        "spec": {"ports": [{"port": 80}]},
    }
    read = await kubernetes.apply(admin, service)
    condition = {
        "type": "Issuing",
        "status": "True",
        "reason": "Test",
        "message": "",
        "lastTransitionTime": "2026-11-24T08:00:00Z",
    }
    assert await kubernetes.set_conditions(admin, read, [condition])
    assert not await kubernetes.set_conditions(admin, read, [{**condition, "status": "False"}])
    now = await kubernetes.read(admin, "v1", "Service", namespace, "conditions")
    assert now is not None
    assert [(one["type"], one["status"]) for one in now["status"]["conditions"]] == [("Issuing", "True")]
