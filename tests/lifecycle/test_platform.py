"""A cluster is judged by a matrix, a list of permissions, and by who installed cert-manager."""

from __future__ import annotations

import dataclasses
import json

import pytest
import yaml

from lifecycle.platform import (
    InstalledCertManager,
    Permission,
    PlatformEvidence,
    helm_values,
    installation_permissions,
    permission_finding,
    platform_verdict,
    required_permissions,
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
        ((dataclasses.replace(OURS, release_status="pending-install"),), PlatformVerdict.REFUSE, "CW1011"),
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


def test_every_permission_has_a_reason_and_stands_once() -> None:
    listed = (*required_permissions("istio-system"), *installation_permissions("cert-manager"))
    assert all(permission.why for permission in listed)
    assert len(listed) == len({permission[:4] for permission in listed})


def test_nothing_is_asked_for_secrets_of_all_namespaces() -> None:
    listed = (*required_permissions("istio-system"), *installation_permissions("cert-manager"))
    assert {"istio-system", "cert-manager"} == {entry.namespace for entry in listed if entry.resource == "secrets"}


def test_values_are_merged_field_by_field_over_ours() -> None:
    request = dataclasses.replace(REQUEST, values=json.dumps({"webhook": {"securePort": 1}, "extraArgs": ["-v"]}))
    values = helm_values(request)
    assert values["webhook"]["securePort"] == 1
    assert values["webhook"]["timeoutSeconds"] == 30
    assert values["extraArgs"] == ["-v"]
    assert values["crds"]["enabled"] is True
    assert values["prometheus"]["enabled"] is True


def test_values_that_are_no_object_are_refused() -> None:
    with pytest.raises(ValueError, match="not an object"):
        helm_values(dataclasses.replace(REQUEST, values="[]"))
