"""`certwright check` for a name that nobody asked for yet: the whole look, without a workflow and without Temporal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lab.cluster import DNS_KEY_NAME, GATEWAY_ADDRESSES, Lab
from lifecycle.issuer_requests import parse_issuer
from lifecycle.issuers import issuer_manifest
from lifecycle.steps import IssuerRequest
from starter import credentials
from tests.activities import domains

ZONE = "unasked.test"

Check = Callable[..., Awaitable[tuple[int, str, str]]]


async def program(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """The program as a process of its own, with a Temporal that is not there."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "starter.cli",
        "check",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": "",
            "TEMPORAL_ADDRESS": "127.0.0.1:9",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            **environment,
        },
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
async def check(lab: Lab) -> Check:
    """The program with the lab's cluster and DNS."""
    with contextlib.suppress(ValueError):
        lab.dns.add_zone(ZONE)
    await domains.issuer(lab)

    async def checked(*arguments: str, **environment: str) -> tuple[int, str, str]:
        ours = {
            "CERTWRIGHT_NAMESERVERS": lab.dns_address,
            "CERTWRIGHT_EDGE_HTTP_PORT": str(lab.http_port),
            "CERTWRIGHT_EDGE_ALLOWED_NETWORKS": "127.0.0.0/8",
            "CERTWRIGHT_DEFAULT_ISSUER": domains.ISSUER.name,
            "CERTWRIGHT_KUBECONFIG": str(lab.kubeconfig),
        }
        return await program(*arguments, **{**ours, **environment})

    return checked


@pytest.mark.lab
async def test_a_name_that_may_be_ordered_ends_with_0(lab: Lab, check: Check) -> None:
    lab.dns.set(f"good.{ZONE}", "A", GATEWAY_ADDRESSES)
    code, out, err = await check(f"good.{ZONE}")
    assert (code, err.count("error")) == (0, 0), out + err
    assert f"good.{ZONE} may be ordered (routing: pointed)" in out


@pytest.mark.lab
async def test_a_name_that_may_not_ends_with_1_and_the_exact_record(check: Check) -> None:
    code, out, _ = await check(f"nowhere.{ZONE}", "--json")
    told = json.loads(out)
    assert (code, told["may_proceed"], told["routing"]) == (1, False, "missing")
    assert [one["code"] for one in told["findings"]] == ["CW1101"]
    assert {(f"nowhere.{ZONE}", "A", address) for address in GATEWAY_ADDRESSES} == {
        (one["name"], one["type"], one["value"]) for one in told["action_required"]["records"]
    }
    code, out, _ = await check(f"nowhere.{ZONE}")
    assert code == 1
    assert f"nowhere.{ZONE}  A  {GATEWAY_ADDRESSES[0]}" in out


@pytest.mark.lab
async def test_a_wildcard_that_the_issuer_cannot_prove_is_a_finding_like_others(lab: Lab, check: Check) -> None:
    lab.dns.set(f"*.{ZONE}", "A", GATEWAY_ADDRESSES)
    code, out, _ = await check(f"*.{ZONE}", "--json")
    lab.dns.remove(f"*.{ZONE}")
    told = json.loads(out)
    assert (code, told["routing"], [one["code"] for one in told["findings"]]) == (1, "pointed", ["CW1307"])


async def key_of(lab: Lab, key: str) -> None:
    """Of the solver; cert-manager's issuer is not ready without one."""
    found = credentials.Credentials(values={"tsig-secret-key": key.encode()})
    await credentials.write(str(lab.kubeconfig), "cert-manager", "unasked-tsig", found, replace=True)


@pytest.mark.lab
async def test_a_record_on_trial_is_written_with_the_callers_rights_and_removed(lab: Lab, check: Check) -> None:
    await key_of(lab, lab.dns_key)
    update = {"nameserver": lab.dns_address, "tsig_key_name": DNS_KEY_NAME.rstrip("."), "tsig_secret": "unasked-tsig"}
    made = parse_issuer(
        {
            "name": "unasked-dns",
            "server": lab.acme_directory,
            "ca_bundle": lab.acme_ca.read_text(),
            "solvers": [{"dns01": {"rfc2136": update}}],
        }
    )
    assert isinstance(made, IssuerRequest)
    await lab.apply_when_answered(issuer_manifest(made))
    await lab.until(
        "/apis/cert-manager.io/v1/clusterissuers",
        lambda item: (
            item["metadata"]["name"] == "unasked-dns"
            and any(one["status"] == "True" for one in (item.get("status") or {}).get("conditions") or ())
        ),
    )
    lab.dns.set(f"trial.{ZONE}", "A", GATEWAY_ADDRESSES)
    wrong = "b3RoZXI="
    for key, code, told in (
        (lab.dns_key, 0, f"a record was written, read from {lab.dns_address}, and removed"),
        (wrong, 1, "CW1347"),
    ):
        await key_of(lab, key)
        ended, out, err = await check(f"trial.{ZONE}", "--issuer", "unasked-dns", "--json")
        assert (ended, told in out) == (code, True), out + err
        assert key not in out + err
        assert lab.dns.shown(f"_acme-challenge.trial.{ZONE}") == []


@pytest.mark.lab
async def test_what_is_not_well_formed_ends_with_2(check: Check) -> None:
    for arguments, environment, told in (
        ((f"under_score.{ZONE}",), {}, "hostname"),
        ((f"good.{ZONE}",), {"CERTWRIGHT_NAMESERVERS": "dns.example.com"}, "CERTWRIGHT_NAMESERVERS"),
        ((f"good.{ZONE}",), {"CERTWRIGHT_DEFAULT_ISSUER": ""}, "issuer"),
        ((f"good.{ZONE}", "--kubeconfig", "nowhere"), {}, "CERTWRIGHT_KUBECONFIG"),
    ):
        code, _, err = await check(*arguments, **environment)
        assert code == 2, err
        assert told in err


async def test_without_a_cluster_temporal_is_what_is_missing() -> None:
    code, _, err = await program("shop.example.com")
    assert code == 3
    assert "Temporal" in err


async def test_a_cluster_that_cannot_be_reached_ends_with_1(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "clusters": [{"name": "gone", "cluster": {"server": "http://127.0.0.1:9"}}],
                "contexts": [{"name": "gone", "context": {"cluster": "gone", "user": "nobody"}}],
                "users": [{"name": "nobody", "user": {}}],
                "current-context": "gone",
            }
        )
    )
    arguments = ("shop.example.com", "--issuer", "le", "--kubeconfig")
    code, _, err = await program(*arguments, str(path))
    assert code == 1
    assert "the cluster cannot be asked" in err
    path.write_text("{}")
    code, _, err = await program(*arguments, str(path))
    assert (code, "the kubeconfig cannot be used" in err) == (1, True), err
