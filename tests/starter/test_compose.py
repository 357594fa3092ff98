"""The compose file is valid by its official schema, and keeps to the house's rules. No engine runs it here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lifecycle.settings import KNOWN, PREFIX
from starter import settings as doors
from worker import settings as worker

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"temporal-schema", "temporal-namespace", "certwright-setup"}
NAMES = sorted(SERVICES)


def environment(name: str) -> dict[str, str]:
    """A service's environment where the shell sets nothing."""
    found = {}
    for key, value in SERVICES[name].get("environment", {}).items():
        found[key] = re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)?\}", lambda match: match[1] or "", str(value))
    return found


def test_it_is_valid_by_the_compose_schema() -> None:
    schema = json.loads((Path(__file__).parent / "data" / "compose-spec.json").read_text())
    jsonschema.validate(COMPOSE, schema)


@pytest.mark.parametrize("name", NAMES)
def test_versions_are_pinned_and_nothing_deprecated_is_used(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"[a-z/-]+:(\d+\.\d+(\.\d+)?|\$\{CERTWRIGHT_TAG:-\d+\.\d+\.\d+\})", image)
    assert "auto-setup" not in image
    assert "elastic" not in image


@pytest.mark.parametrize("name", NAMES)
def test_what_runs_for_long_says_whether_it_is_well(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOT:
        assert service["restart"].startswith("on-failure:")
    else:
        assert service["restart"] == "unless-stopped"
        assert "healthcheck" in service or name == "temporal-ui"


@pytest.mark.parametrize("name", NAMES)
def test_it_waits_for_what_it_needs(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
        assert wanted == how["condition"]
        assert needed in SERVICES


def test_secrets_are_files_and_stand_in_no_environment() -> None:
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert set(COMPOSE["secrets"]) == used
    for name in NAMES:
        for key, value in environment(name).items():
            if re.search("PASSWORD|PWD|TOKEN|IDENTITY|KUBECONFIG", key):
                assert value.startswith("/run/secrets/"), (name, key)


def test_ports_are_open_on_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("certwright")])
def test_our_settings_exist(name: str) -> None:
    ours = {key.removeprefix(PREFIX) for key in environment(name) if key.startswith(PREFIX)}
    assert ours <= set(KNOWN)
    assert SERVICES[name]["read_only"]
    assert SERVICES[name]["cap_drop"] == ["ALL"]


def test_all_queues_are_served_and_by_two_accounts() -> None:
    served = {name: environment(name)["CERTWRIGHT_QUEUES"] for name in ("certwright-worker", "certwright-installer")}
    assert served == {"certwright-worker": "workflows,cluster,probe", "certwright-installer": "platform"}
    assert "BACKUP_IDENTITY_FILE" not in str(environment("certwright-worker"))


def test_our_programs_accept_their_settings(tmp_path: Path) -> None:
    for name, load in (("certwright-worker", worker.load), ("certwright-portal", doors.load)):
        given = {"PATH": "", **environment(name)}
        for key, value in given.items():
            if value.startswith("/run/secrets/"):
                file = tmp_path / Path(value).name
                file.touch()
                given[key] = str(file)
        found = load(given)
        assert not isinstance(found, tuple), found


def test_the_dynamic_configuration_is_one() -> None:
    content = yaml.safe_load((ROOT / "deploy" / "temporal" / "dynamicconfig.yaml").read_text())
    assert content
    for values in content.values():
        assert [set(value) for value in values] == [{"value"}]
    mounted = SERVICES["temporal"]["volumes"][0].partition(":")[0]
    assert (ROOT / mounted).is_file()
    for name in ("temporal-schema", "temporal-namespace"):
        script = Path(SERVICES[name]["entrypoint"][1])
        assert (ROOT / "deploy" / "temporal" / script.name).is_file()
