"""The alerts tell of what they should, by Prometheus' own program; alerts and dashboard ask for metrics that exist."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lab.binaries import promtool
from lab.cluster import Lab

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "alerts.yaml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "dashboard.json").read_text())
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]

KNOWN = {
    "certmanager_certificate_challenge_status",
    "certmanager_certificate_expiration_timestamp_seconds",
    "certmanager_certificate_ready_status",
    "certmanager_certificate_renewal_timestamp_seconds",
    "certmanager_clock_time_seconds_gauge",
    "certmanager_clusterissuer_ready_status",
    "certmanager_controller_sync_call_count",
    "certmanager_controller_sync_error_count",
    "certmanager_http_acme_client_request_count",
    "certmanager_issuer_ready_status",
}
"""Those of cert-manager v1.21 that we ask for (its internal/collectors and pkg/metrics)."""


@pytest.fixture(scope="module")
def program() -> Path:
    return promtool()


def run(program: Path, *arguments: str | Path) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", ["alerts-test.yaml", "alerts-lifetimes-test.yaml"])
def test_each_alert_comes_when_it_should_and_not_before(program: Path, file: str) -> None:
    run(program, "test", "rules", Path(__file__).with_name(file))


def test_every_alert_has_a_test() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("alerts*-test.yaml"))
    assert [rule["alert"] for rule in RULES if rule.get("alert", "") not in tests] == []


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*(rule["expr"] for rule in RULES), *panels]


def test_every_expression_is_one_that_prometheus_reads(program: Path, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(expressions())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    run(program, "check", "rules", file)


def test_only_metrics_that_cert_manager_has_are_asked_for() -> None:
    asked = set(re.findall(r"\bcertmanager_\w+", "\n".join(expressions())))
    assert sorted(KNOWN) == sorted(asked)


ONLY_LATER = {
    "certmanager_certificate_challenge_status",
    "certmanager_controller_sync_error_count",
    "certmanager_http_acme_client_request_count",
}


@pytest.mark.lab
async def test_cert_manager_serves_the_metrics_that_are_asked_for(lab: Lab) -> None:
    """Those that appear with the first order or error only are taken from cert-manager's source."""
    reference = {"name": "metrics", "kind": "Issuer"}
    certificate = {"secretName": "metrics", "dnsNames": ["metrics.example.com"], "issuerRef": reference}
    for kind, spec in (
        ("ClusterIssuer", {"selfSigned": {}}),
        ("Issuer", {"selfSigned": {}}),
        ("Certificate", certificate),
    ):
        place = {} if kind == "ClusterIssuer" else {"namespace": "default"}
        metadata = {"name": "metrics", **place}
        document = {"apiVersion": "cert-manager.io/v1", "kind": kind, "metadata": metadata, "spec": spec}
        await lab.apply_when_answered(document)
    (controller,) = (
        container
        for pod in lab.pods.values()
        for container in pod.containers
        if container.name == "cert-manager-controller" and container.launch is not None
    )
    assert controller.launch is not None
    address = f"http://127.0.0.1:{controller.launch.ports[9402]}/metrics"
    wanted = KNOWN - ONLY_LATER
    async with httpx.AsyncClient(timeout=5) as client:
        for _ in range(40):
            served = (await client.get(address)).text
            if missing := {name for name in wanted if not re.search(rf"^{name}\b", served, re.MULTILINE)}:
                await asyncio.sleep(0.5)
                continue
            break
    assert missing == set()
    renewals = [
        line for line in served.splitlines() if line.startswith("certmanager_certificate_renewal_timestamp_seconds{")
    ]
    assert any('name="metrics"' in line and 'namespace="default"' in line for line in renewals)


def test_no_alert_counts_in_days() -> None:
    """Certificates of six days and of ninety are told of by the same fractions; only what waits for people counts."""
    by_window = [rule for rule in RULES if rule.get("alert", "").startswith(("CertificateRenewal", "CertificateExp"))]
    assert len(by_window) == 4
    assert [rule["alert"] for rule in by_window if "for" in rule or re.search(r"\d{4,}", rule["expr"])] == []


def test_a_dashboard_is_found_by_its_id_and_has_every_panel_once() -> None:
    assert DASHBOARD["uid"] == "certwright-certificates"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
