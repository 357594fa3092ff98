"""Settings are good, or every reason why not is named at once; nothing of a secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from lifecycle import queues
from lifecycle.rate_limits import LimitsTable
from worker.settings import Settings, load

RECIPIENT = "age1" + "q" * 58
GOOD = {"CERTWRIGHT_QUEUES": "workflows", "PATH": ""}


def problems(environment: dict[str, str]) -> dict[str, str]:
    found = load({"PATH": "", **environment})
    assert isinstance(found, tuple)
    assert all(one.fix for one in found)
    return {one.field.removeprefix("CERTWRIGHT_"): f"{one.value} {one.problem}; {one.fix}" for one in found}


def good(environment: dict[str, str]) -> Settings:
    found = load({**GOOD, **environment})
    assert isinstance(found, Settings), found
    return found


def test_little_has_to_be_said() -> None:
    settings = good({})
    assert settings.queues == (queues.WORKFLOWS,)
    assert settings.metrics is None
    assert settings.backup_directory is None
    assert b"BEGIN CERTIFICATE" in settings.roots_pem
    assert settings.promote


def test_all_queues_are_served_where_none_is_named(tmp_path: Path) -> None:
    helm = tmp_path / "helm"
    helm.touch(mode=0o755)
    found = load({"CERTWRIGHT_HELM": str(helm), "KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert isinstance(found, Settings)
    assert found.queues == queues.QUEUES


def test_everything_wrong_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    found = problems(
        {
            "CERTWRIGHT_QUEUES": "cluster,platform,kitchen",
            "CERTWRIGHT_EDGE_HTTPS_PORT": "70000",
            "CERTWRIGHT_EDGE_ROOTS_FILE": "no-such-file",
            "CERTWRIGHT_EDGE_ALLOWED_NETWORKS": "10.0.0.1/8",
            "CERTWRIGHT_EDGE_TIMEOUT": "soon",
            "CERTWRIGHT_NAMESERVERS": "dns.example.com",
            "CERTWRIGHT_HELM_VALUES_FILE": str(tmp_path / "empty"),
            "CERTWRIGHT_BACKUP_DIRECTORY": "no-such-directory",
            "CERTWRIGHT_METRICS_ADDRESS": "everywhere",
            "CERTWRIGHT_LOG_LEVEL": "loud",
            "CERTWRIGHT_BUILD_ID": "a b",
            "CERTWRIGHT_QUEUE": "cluster",
            "SOMEBODY_ELSES": "variable",
        }
    )
    assert set(found) == {
        "QUEUES",
        "QUEUE",
        "KUBECONFIG",
        "EDGE_HTTPS_PORT",
        "EDGE_ROOTS_FILE",
        "EDGE_ALLOWED_NETWORKS",
        "EDGE_TIMEOUT",
        "NAMESERVERS",
        "HELM",
        "BACKUP_DIRECTORY",
        "BACKUP_RECIPIENTS",
        "METRICS_ADDRESS",
        "LOG_LEVEL",
        "BUILD_ID",
    }
    assert "kitchen is no queue" in found["QUEUES"]
    assert "did you mean CERTWRIGHT_QUEUES?" in found["QUEUE"]
    assert "No such file" in found["EDGE_ROOTS_FILE"]


def test_a_private_key_among_the_recipients_is_refused_and_not_repeated() -> None:
    key = "AGE-SECRET-KEY-1" + "Q" * 58
    found = problems({"CERTWRIGHT_BACKUP_RECIPIENTS": f"{RECIPIENT},{key}"})
    assert "is a private key" in found["BACKUP_RECIPIENTS"]
    assert key not in found["BACKUP_RECIPIENTS"]


def test_good_values_arrive_as_they_are_meant(tmp_path: Path) -> None:
    roots, values = tmp_path / "roots.pem", tmp_path / "values.yaml"
    trustme.CA().cert_pem.write_to_path(roots)
    values.write_text("global:\n  leaderElection: {namespace: cert-manager}\n")
    settings = good(
        {
            "CERTWRIGHT_EDGE_ROOTS_FILE": str(roots),
            "CERTWRIGHT_EDGE_ALLOWED_NETWORKS": "127.0.0.0/8, 2001:db8::/32",
            "CERTWRIGHT_NAMESERVERS": "192.0.2.1 [2001:db8::1]:5353 2001:db8::2",
            "CERTWRIGHT_HELM_VALUES_FILE": str(values),
            "CERTWRIGHT_BACKUP_DIRECTORY": str(tmp_path),
            "CERTWRIGHT_BACKUP_RECIPIENTS": RECIPIENT,
            "CERTWRIGHT_EDGE_TIMEOUT": "500ms",
            "CERTWRIGHT_METRICS_ADDRESS": "[::1]:9464",
            "CERTWRIGHT_PROMOTE": "no",
        }
    )
    assert settings.roots_pem == roots.read_bytes()
    assert settings.allowed_networks == ("127.0.0.0/8", "2001:db8::/32")
    assert settings.nameservers == ("192.0.2.1:53", "[2001:db8::1]:5353", "[2001:db8::2]:53")
    assert settings.helm_values == '{"global": {"leaderElection": {"namespace": "cert-manager"}}}'
    assert settings.edge_timeout == 0.5
    assert settings.metrics == ("::1", 9464)
    assert not settings.promote
    assert "roots_pem" not in settings.shown()


@pytest.mark.parametrize("content", ["- a list", "key: [", "just text"])
def test_helm_values_are_an_object(content: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(content)
    assert set(problems({**GOOD, "CERTWRIGHT_HELM_VALUES_FILE": str(file)})) == {"HELM_VALUES_FILE"}


def test_a_client_certificate_for_the_edge_has_its_key_or_is_refused(tmp_path: Path) -> None:
    made, other = trustme.CA().issue_cert("probe.example.com"), trustme.CA().issue_cert("probe.example.com")
    certificate, key, wrong = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "wrong.pem"
    made.cert_chain_pems[0].write_to_path(certificate)
    made.private_key_pem.write_to_path(key)
    other.private_key_pem.write_to_path(wrong)
    file, key_file = "CERTWRIGHT_EDGE_CLIENT_CERTIFICATE_FILE", "CERTWRIGHT_EDGE_CLIENT_KEY_FILE"
    assert good({}).edge_client is None
    assert good({file: str(certificate), key_file: str(key)}).edge_client == (certificate, key)
    assert (
        "no certificate that the key"
        in problems({**GOOD, file: str(certificate), key_file: str(wrong)})["EDGE_CLIENT_CERTIFICATE_FILE"]
    )
    assert "is missing" in problems({**GOOD, file: str(certificate)})["EDGE_CLIENT_KEY_FILE"]
    assert "cannot be read" in problems({**GOOD, file: "gone", key_file: str(key)})["EDGE_CLIENT_CERTIFICATE_FILE"]


def test_a_file_of_limits_is_read_as_json_or_yaml(tmp_path: Path) -> None:
    file = tmp_path / "limits"
    assert good({}).limits == LimitsTable()
    for text in (
        '{"acme.example": [{"kind": "orders", "count": 2, "refill_seconds": 10}]}',
        "acme.example:\n- {kind: orders, count: 2, refill_seconds: 10}\n",
    ):
        file.write_text(text)
        (entry,) = good({"CERTWRIGHT_LIMITS_FILE": str(file)}).limits.entries
        assert (entry.host, entry.limits[0].burst, entry.limits[0].refill_seconds) == ("acme.example", 2, 10.0)


def test_everything_wrong_in_a_file_of_limits_is_named(tmp_path: Path) -> None:
    file = tmp_path / "limits.json"
    file.write_text('{"acme.example": [{"kind": "wishes", "count": 0}], "other.example": 5}')
    found = load({**GOOD, "CERTWRIGHT_LIMITS_FILE": str(file)})
    assert isinstance(found, tuple)
    assert {one.field for one in found} == {"CERTWRIGHT_LIMITS_FILE"}
    said = " ".join(f"{one.problem} {one.fix}" for one in found)
    for part in ("acme.example[0].kind", "acme.example[0].count", "period_seconds", "other.example is not a list"):
        assert part in said
    for content, problem in ((b"{", "neither JSON nor YAML"), (b"\xff", "neither JSON nor YAML"), (None, "be read")):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        assert problem in problems({**GOOD, "CERTWRIGHT_LIMITS_FILE": str(file)})["LIMITS_FILE"]
