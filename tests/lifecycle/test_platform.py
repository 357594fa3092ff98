"""A cluster is judged by a matrix, a list of permissions, and by who installed cert-manager."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import yaml

from lifecycle.platform import (
    InstalledCertManager,
    Permission,
    PlatformEvidence,
    Revision,
    backup_permissions,
    helm_values,
    installation_permissions,
    missing_components,
    permission_finding,
    platform_verdict,
    pod_findings,
    previous_revision,
    proof_permissions,
    refused_permission,
    release_failure,
    release_values,
    required_permissions,
    surroundings_broken,
)
from lifecycle.steps import PlatformRequest, PlatformVerdict

REQUEST = PlatformRequest(cluster="prod-1")
GOOD = PlatformEvidence(kubernetes="v1.36.3", istio="1.30.2", gateway_pods=1, gateway_addresses=("203.0.113.7",))
OURS = InstalledCertManager(
    namespace="cert-manager", version="v1.21.2", release="cert-manager", release_status="deployed"
)


@pytest.mark.parametrize(
    ("installed", "verdict", "codes"),
    [
        ((), PlatformVerdict.INSTALL, ""),
        ((OURS,), PlatformVerdict.KEEP, ""),
        ((dataclasses.replace(OURS, version="v1.20.1"),), PlatformVerdict.UPGRADE, ""),
        ((dataclasses.replace(OURS, release_status="failed"),), PlatformVerdict.UPGRADE, ""),
        ((dataclasses.replace(OURS, values_differ=True),), PlatformVerdict.UPGRADE, ""),
        ((dataclasses.replace(OURS, release_status="pending-install"),), PlatformVerdict.REFUSE, "CW1011"),
        ((dataclasses.replace(OURS, release_status="uninstalling"),), PlatformVerdict.REFUSE, "CW1011"),
        ((dataclasses.replace(OURS, version="v1.22.0"),), PlatformVerdict.REFUSE, "CW1008"),
        ((dataclasses.replace(OURS, namespace="infra"),), PlatformVerdict.REFUSE, "CW1007"),
        ((dataclasses.replace(OURS, release="cm"),), PlatformVerdict.REFUSE, "CW1007"),
        ((InstalledCertManager(namespace="x", version="v1.21.1"),), PlatformVerdict.ADOPT, "CW1016"),
        ((InstalledCertManager(namespace="x", version="v1.21.0"),), PlatformVerdict.REFUSE, "CW1007"),
        ((InstalledCertManager(namespace="x", version="v1.14.0"),), PlatformVerdict.REFUSE, "CW1007"),
        ((InstalledCertManager(namespace="x", version=""),), PlatformVerdict.REFUSE, "CW1007"),
        ((OURS, InstalledCertManager(namespace="x", version="v1.21.1")), PlatformVerdict.REFUSE, "CW1006"),
    ],
)
def test_an_existing_cert_manager_is_adopted_upgraded_or_refused(
    installed: tuple[InstalledCertManager, ...], verdict: PlatformVerdict, codes: str
) -> None:
    decision = platform_verdict(REQUEST, dataclasses.replace(GOOD, installed=installed))
    assert verdict is decision.verdict
    assert codes == " ".join(finding.code for finding in decision.findings)


@pytest.mark.parametrize(
    ("evidence", "verdict", "codes"),
    [
        (dataclasses.replace(GOOD, kubernetes="v1.33.0-gke.1"), PlatformVerdict.INSTALL, ""),
        (dataclasses.replace(GOOD, kubernetes="v1.32.9"), PlatformVerdict.REFUSE, "CW1001"),
        (dataclasses.replace(GOOD, kubernetes="v1.37.0"), PlatformVerdict.REFUSE, "CW1001"),
        (dataclasses.replace(GOOD, kubernetes="unknown"), PlatformVerdict.INSTALL, ""),
        (dataclasses.replace(GOOD, istio=""), PlatformVerdict.REFUSE, "CW1003"),
        (dataclasses.replace(GOOD, istio="1.24.0"), PlatformVerdict.INSTALL, "CW1002"),
        (dataclasses.replace(GOOD, gateway_pods=0), PlatformVerdict.REFUSE, "CW1004"),
        (dataclasses.replace(GOOD, gateway_addresses=()), PlatformVerdict.INSTALL, "CW1005"),
        (dataclasses.replace(GOOD, denied=(Permission("get", "", "pods", "x"),)), PlatformVerdict.REFUSE, "CW1801"),
        (PlatformEvidence(kubernetes="v1.20.0", istio=""), PlatformVerdict.REFUSE, "CW1001 CW1003 CW1004"),
    ],
)
def test_surroundings(evidence: PlatformEvidence, verdict: PlatformVerdict, codes: str) -> None:
    decision = platform_verdict(REQUEST, evidence)
    assert verdict is decision.verdict
    assert codes == " ".join(finding.code for finding in decision.findings)


def test_a_broken_release_is_not_installed() -> None:
    decision = platform_verdict(dataclasses.replace(REQUEST, version="v1.21.0"), GOOD)
    assert [finding.code for finding in decision.findings] == ["CW1009"]


def test_a_missing_permission_names_verb_resource_namespace_and_the_rule_to_add() -> None:
    finding = permission_finding(Permission("delete", "networking.istio.io", "gateways", "istio-system", "the end"))
    assert "may not delete gateways.networking.istio.io in namespace istio-system (the end)" in finding.problem
    (rule,) = yaml.safe_load(finding.fix[finding.fix.index("- {") :])
    assert rule == {"apiGroups": ["networking.istio.io"], "resources": ["gateways"], "verbs": ["delete"]}


LISTS = (
    required_permissions("istio-system"),
    proof_permissions("cert-manager"),
    backup_permissions("cert-manager"),
    installation_permissions("cert-manager"),
)


@pytest.mark.parametrize("listed", LISTS)
def test_every_permission_has_a_reason_and_stands_once(listed: tuple[Permission, ...]) -> None:
    assert all(permission.why for permission in listed)
    assert len(listed) == len({permission[:4] for permission in listed})


def test_nothing_is_asked_for_secrets_of_all_namespaces() -> None:
    listed = [entry for entries in LISTS for entry in entries]
    assert {"istio-system", "cert-manager"} == {entry.namespace for entry in listed if entry.resource == "secrets"}


def test_rights_to_install_are_asked_for_only_where_something_is_installed() -> None:
    evidence = dataclasses.replace(GOOD, installation_denied=(Permission("create", "", "namespaces"),))
    assert platform_verdict(REQUEST, evidence).verdict is PlatformVerdict.REFUSE
    there = dataclasses.replace(evidence, installed=(OURS,))
    assert platform_verdict(REQUEST, there).verdict is PlatformVerdict.KEEP


def test_what_may_not_be_looked_at_is_not_taken_for_missing() -> None:
    evidence = PlatformEvidence(
        kubernetes="v1.36.3", istio="", denied=(Permission("list", "apps", "deployments"),), complete=False
    )
    decision = platform_verdict(REQUEST, evidence)
    assert decision.verdict is PlatformVerdict.REFUSE
    assert [finding.code for finding in decision.findings] == ["CW1801"]


@pytest.mark.parametrize(
    ("text", "permission"),
    [
        (
            'secrets is forbidden: User "system:serviceaccount:certwright:certwright-installer" cannot list resource '
            '"secrets" in API group "" in the namespace "cert-manager"',
            Permission("list", "", "secrets", "cert-manager"),
        ),
        (
            'clusterroles.rbac.authorization.k8s.io "x" is forbidden: User "a" cannot create resource "clusterroles" '
            'in API group "rbac.authorization.k8s.io" at the cluster scope',
            Permission("create", "rbac.authorization.k8s.io", "clusterroles"),
        ),
        ("context deadline exceeded", None),
    ],
)
def test_a_refusal_names_its_permission(text: str, permission: Permission | None) -> None:
    assert permission == refused_permission(text)


@pytest.mark.parametrize(
    ("revisions", "previous"),
    [
        ((), 0),
        ((Revision(1, "deployed", "ours"),), 0),
        ((Revision(1, "failed", "theirs"), Revision(2, "failed", "ours")), 0),
        ((Revision(1, "superseded", "theirs"), Revision(2, "deployed", "ours")), 1),
        ((Revision(1, "deployed"), Revision(2, "failed", "ours"), Revision(3, "pending-upgrade", "ours")), 1),
        ((Revision(1, "superseded"), Revision(2, "superseded"), Revision(3, "pending-upgrade", "ours")), 2),
    ],
)
def test_what_a_run_did_is_taken_back_to_the_last_good_revision_of_others(
    revisions: tuple[Revision, ...], previous: int
) -> None:
    assert previous == previous_revision(revisions, "ours")


def deployment(component: str, *, available: int = 1, generation: int = 1) -> dict[str, Any]:
    labels = {"app.kubernetes.io/instance": "cert-manager", "app.kubernetes.io/component": component}
    status = {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": available}
    return {
        "metadata": {"name": component, "labels": labels, "generation": generation},
        "spec": {"replicas": 1},
        "status": status,
    }


def test_three_deployments_must_be_available_in_their_present_form() -> None:
    controller, webhook, cainjector = (deployment(name) for name in ("controller", "webhook", "cainjector"))
    assert missing_components((controller, webhook, cainjector), "cert-manager") == ()
    assert missing_components((controller, webhook), "cert-manager") == ("cainjector",)
    assert missing_components((controller, webhook, cainjector), "another")[:1] == ("controller",)
    stale = deployment("webhook", generation=2)
    assert missing_components((controller, stale, cainjector), "cert-manager") == ("webhook",)
    broken = deployment("cainjector", available=0)
    assert missing_components((controller, webhook, broken), "cert-manager") == ("cainjector",)


def test_a_pod_that_is_not_ready_is_named_with_the_nodes_words() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    pod = {
        "metadata": {"name": "webhook-1", "namespace": "cm", "labels": {"app.kubernetes.io/instance": "cert-manager"}},
        "status": {"containerStatuses": [{"ready": False, "image": "quay.io/x:1", "state": waiting}]},
    }
    (found,) = pod_findings([pod], "cert-manager")
    assert (found.code, found.subject) == ("CW1012", "Pod cm/webhook-1")
    assert "ImagePullBackOff not found (image quay.io/x:1)" in found.problem
    ready = {**pod, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert pod_findings([ready], "cert-manager") == ()


@pytest.mark.parametrize(
    ("helm_said", "broken", "code"),
    [
        ("Kubernetes cluster unreachable: Get https://x: dial tcp: connection refused", True, "CW1010"),
        ("context deadline exceeded", False, "CW1010"),
        ("another operation (install/upgrade/rollback) is in progress", False, "CW1011"),
        ("CRD exists and cannot be imported into the current release: invalid ownership metadata", False, "CW1010"),
        ('User "a" cannot get resource "secrets" in API group "" in the namespace "cert-manager"', False, "CW1801"),
    ],
)
def test_helms_words_are_understood(helm_said: str, broken: bool, code: str) -> None:
    assert broken is surroundings_broken(helm_said)
    assert code == release_failure("cert-manager", "cert-manager", helm_said, ()).code


def test_an_upgrade_keeps_what_somebody_set_and_the_request_has_the_last_word() -> None:
    request = dataclasses.replace(REQUEST, values=json.dumps({"http_proxy": "request"}))
    operator = json.dumps({"http_proxy": "operator", "extraArgs": ["-v"]})
    values = release_values(request, operator, {"nodeSelector": {"a": "b"}, "crds": {"enabled": False}})
    assert values["nodeSelector"] == {"a": "b"}
    assert values["http_proxy"] == "request"
    assert values["extraArgs"] == ["-v"]
    assert values["crds"]["enabled"] is True
    assert values == release_values(request, operator, values)


def test_values_are_merged_field_by_field_over_ours() -> None:
    request = dataclasses.replace(REQUEST, values=json.dumps({"webhook": {"securePort": 1}, "extraArgs": ["-v"]}))
    values = helm_values(request)
    assert values["webhook"]["securePort"] == 1
    assert values["webhook"]["timeoutSeconds"] == 30
    assert values["extraArgs"] == ["-v"]
    assert values["crds"]["enabled"] is True
    assert values["prometheus"]["enabled"] is True


def test_more_workers_come_with_their_requests_and_new_pods_and_stay_until_told_otherwise() -> None:
    asked = dataclasses.replace(REQUEST, concurrent_workers=50)
    values = release_values(asked, "{}", {})
    assert values["config"] == {"numberOfConcurrentWorkers": 50, "kubernetesAPIQPS": 200, "kubernetesAPIBurst": 500}
    assert values["podAnnotations"] == {"certwright.dev/concurrent-workers": "50"}
    assert values == release_values(REQUEST, "{}", values)
    operator = json.dumps({"config": {"kubernetesAPIQPS": 100}})
    assert release_values(asked, operator, {})["config"]["kubernetesAPIQPS"] == 100
    fewer = release_values(dataclasses.replace(REQUEST, concurrent_workers=5), "{}", values)
    assert fewer["config"] == {"numberOfConcurrentWorkers": 5, "kubernetesAPIQPS": 20, "kubernetesAPIBurst": 50}


def test_a_controller_gives_its_lease_up_before_its_caches_are_a_minute_apart() -> None:
    election = helm_values(REQUEST)["global"]["leaderElection"]
    assert election == {
        "namespace": "cert-manager",
        "leaseDuration": "15s",
        "renewDeadline": "10s",
        "retryPeriod": "2s",
    }


def test_values_that_are_no_object_are_refused() -> None:
    with pytest.raises(ValueError, match="not an object"):
        helm_values(dataclasses.replace(REQUEST, values="[]"))
