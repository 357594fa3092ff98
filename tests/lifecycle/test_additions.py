"""What a platform gets beside cert-manager, against golden files (`REGOLD=1` writes them), and high availability."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
import yaml

from lifecycle import additions
from lifecycle.additions import Source
from lifecycle.availability import high_availability_values, without_high_availability
from lifecycle.manifests import Manifest
from lifecycle.platform import (
    InstalledCertManager,
    Permission,
    PlatformEvidence,
    helm_values,
    installation_permissions,
    platform_verdict,
    release_values,
)
from lifecycle.steps import AdditionFacts, ChangeKind, ObjectChange, PlatformRequest, PlatformVerdict

GOLDEN = Path(__file__).parent / "golden" / "platform"
REQUEST = PlatformRequest(
    cluster="prod-1",
    network_policies=True,
    monitoring=True,
    dashboard=True,
    issuer_ports=(8200,),
    monitoring_labels=(("release", "prometheus"),),
)
SOURCE = Source(
    alerts={"groups": [{"name": "one", "rules": [{"alert": "CertManagerAbsent", "expr": "absent(up)"}]}]},
    dashboard='{"title": "Certificates"}\n',
)
DOCUMENTS = {
    f"{item['kind']}-{item['metadata']['name']}".lower(): item for item in additions.plan(REQUEST, SOURCE).present
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_object_is_as_in_its_golden_file(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("REGOLD"):
        path.write_text(yaml.safe_dump(DOCUMENTS[name], sort_keys=False))
    assert yaml.safe_load(path.read_text()) == DOCUMENTS[name]


def test_every_golden_file_is_of_an_object() -> None:
    assert set(DOCUMENTS) == {path.stem for path in GOLDEN.glob("*.yaml")}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_object_says_who_manages_it_and_can_be_removed_by_its_kind(document: Manifest) -> None:
    assert additions.is_ours(document)
    assert additions.API_VERSIONS[document["kind"]] == document["apiVersion"]


def test_only_what_was_asked_for_is_brought_and_only_what_was_refused_is_removed() -> None:
    nothing = additions.plan(PlatformRequest(cluster="prod-1"), SOURCE)
    assert nothing == ((), ())
    assert not additions.objects_asked_for(PlatformRequest(cluster="prod-1", high_availability=True))
    some = dataclasses.replace(REQUEST, monitoring=None, dashboard=False)
    present, absent = additions.plan(some, SOURCE)
    assert {"NetworkPolicy"} == {item["kind"] for item in present}
    (gone,) = absent
    assert gone["metadata"] == {"name": "certwright-dashboard", "namespace": "cert-manager"}


# --- network policies -------------------------------------------------------------------------------------------------


def ports(component: str, request: PlatformRequest = REQUEST) -> tuple[list[str], list[str]]:
    (policy,) = (
        item for item in additions.network_policies(request) if item["metadata"]["name"].endswith(f"-{component}")
    )
    spec = policy["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    inbound = [port["port"] for rule in spec["ingress"] for port in rule["ports"]]
    outbound = [f"{port['port']}/{port['protocol']}" for rule in spec["egress"] for port in rule["ports"]]
    return inbound, outbound


def test_each_component_has_the_ports_that_it_needs_and_no_more() -> None:
    controller = ["53/UDP", "53/TCP", "80/TCP", "443/TCP", "6443/TCP", "8200/TCP", "8080/TCP"]
    assert ports("controller") == (["http-metrics", "http-healthz"], controller)
    assert ports("webhook") == (["https", "healthcheck", "http-metrics"], ["53/UDP", "53/TCP", "443/TCP", "6443/TCP"])
    assert ports("cainjector") == (["http-metrics"], ["53/UDP", "53/TCP", "443/TCP", "6443/TCP"])


def test_an_api_server_on_another_port_is_reached_by_all_and_443_stays_open_for_the_ca() -> None:
    request = dataclasses.replace(REQUEST, api_server_ports=(16443,), issuer_ports=())
    assert ports("controller", request)[1] == ["53/UDP", "53/TCP", "80/TCP", "443/TCP", "16443/TCP", "8080/TCP"]
    for component in ("webhook", "cainjector"):
        assert ports(component, request)[1] == ["53/UDP", "53/TCP", "16443/TCP"]


@pytest.mark.parametrize("policy", additions.network_policies(REQUEST), ids=lambda one: one["metadata"]["name"])
def test_each_port_has_its_reason(policy: Manifest) -> None:
    reasons = policy["metadata"]["annotations"]["certwright.dev/reasons"].splitlines()
    opened = [port for rule in (*policy["spec"]["ingress"], *policy["spec"]["egress"]) for port in rule["ports"]]
    assert len(opened) == len(reasons)
    assert all(reason.partition(": ")[2] for reason in reasons)
    numbers = [reason.split()[1].partition("/")[0] for reason in reasons]
    assert all(number.isdigit() for number in numbers)  # also of the ports that the policy names


# --- high availability ------------------------------------------------------------------------------------------------


def test_every_component_has_two_replicas_a_budget_and_resources() -> None:
    values = helm_values(PlatformRequest(cluster="prod-1", high_availability=True))
    for component in (values, values["webhook"], values["cainjector"]):
        assert component["replicaCount"] == 2
        assert component["podDisruptionBudget"] == {"enabled": True, "minAvailable": 1}
        assert set(component["resources"]) == {"requests", "limits"}
        assert component["podLabels"] == {"sidecar.istio.io/inject": "false"}


def test_high_availability_is_brought_kept_and_taken_away_by_request_only() -> None:
    asked, plain = PlatformRequest(cluster="p", high_availability=True), PlatformRequest(cluster="p")
    without = dataclasses.replace(plain, high_availability=False)
    before = release_values(plain, "{}", {"nodeSelector": {"a": "b"}})
    brought = release_values(asked, "{}", before)
    assert brought["replicaCount"] == 2
    assert brought == release_values(asked, "{}", brought)
    assert brought == release_values(plain, "{}", brought)
    assert before == release_values(without, "{}", brought)
    assert before == release_values(without, "{}", before)


def test_what_somebody_else_set_stays_when_high_availability_goes() -> None:
    theirs = {"replicaCount": 3, "webhook": {"replicaCount": 2, "resources": {"limits": {"memory": "1Gi"}}}}
    left = without_high_availability(theirs, "cert-manager")
    assert left == {"replicaCount": 3, "webhook": {"resources": {"limits": {"memory": "1Gi"}}}}


def test_the_operator_and_the_request_have_the_last_word() -> None:
    request = PlatformRequest(cluster="p", high_availability=True, values=json.dumps({"replicaCount": 3}))
    values = release_values(request, json.dumps({"webhook": {"replicaCount": 1}}), {})
    assert (values["replicaCount"], values["webhook"]["replicaCount"], values["cainjector"]["replicaCount"]) == (
        3,
        1,
        2,
    )


def test_the_values_are_the_charts_own() -> None:
    assert set(high_availability_values("cert-manager")) == {
        "replicaCount",
        "resources",
        "podDisruptionBudget",
        "topologySpreadConstraints",
        "webhook",
        "cainjector",
    }


# --- permissions and findings -----------------------------------------------------------------------------------------

GOOD = PlatformEvidence(kubernetes="v1.36.3", istio="1.30.2", gateway_pods=1, gateway_addresses=("203.0.113.7",))


def test_nothing_more_is_needed_where_nothing_more_is_asked_for() -> None:
    assert additions.needed_permissions(PlatformRequest(cluster="p"), "cert-manager") == ()
    listed = additions.addition_permissions("cert-manager")
    assert all(permission.why and permission.namespace == "cert-manager" for permission in listed)
    assert len(listed) == len({permission[:4] for permission in listed})
    beyond = {one[:4] for one in listed} - {one[:4] for one in installation_permissions("cert-manager")}
    assert {"poddisruptionbudgets", "networkpolicies", "prometheusrules", "servicemonitors"} == {
        one[2] for one in beyond
    }


def test_a_missing_permission_of_a_wish_refuses_the_run() -> None:
    denied = (Permission("create", "networking.k8s.io", "networkpolicies", "cert-manager"),)
    decision = platform_verdict(REQUEST, dataclasses.replace(GOOD, additions_denied=denied))
    assert decision.verdict is PlatformVerdict.REFUSE
    assert [finding.code for finding in decision.findings] == ["CW1801"]


def test_replicas_of_a_foreign_cert_manager_are_left_to_whoever_installed_it() -> None:
    evidence = dataclasses.replace(GOOD, installed=(InstalledCertManager(namespace="x", version="v1.21.1"),))
    decision = platform_verdict(dataclasses.replace(REQUEST, high_availability=True), evidence)
    assert decision.verdict is PlatformVerdict.ADOPT
    assert [finding.code for finding in decision.findings] == ["CW1016", "CW1018"]


def change(kind: ChangeKind, name: str = "one") -> ObjectChange:
    return ObjectChange(kind="NetworkPolicy", namespace="cert-manager", name=name, change=kind)


def test_a_failed_run_removes_what_it_made_and_tells_of_the_rest() -> None:
    facts = AdditionFacts(
        namespace="cert-manager", changes=tuple(change(kind, f"object-{kind.value}") for kind in ChangeKind)
    )
    assert [one.name for one in additions.created(facts)] == ["object-create"]
    assert [(one.code, one.subject.rpartition("/")[2]) for one in additions.kept(facts)] == [
        ("CW1020", "object-change"),
        ("CW1020", "object-remove"),
    ]
