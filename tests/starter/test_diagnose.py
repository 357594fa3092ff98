"""`certwright diagnose` as a program: one command, without Temporal, that says what is wrong and what to do."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from lab.cluster import GATEWAY_ADDRESSES, Lab

HOSTNAME = "shop.diagnosed.test"


async def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """The program as a process of its own; its environment is what is given."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "starter.cli",
        "diagnose",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "", "HOME": "/nowhere", "PYTHONPATH": ":".join(sys.path), **environment},
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def test_bad_input_is_told_at_once_with_2() -> None:
    code, _, err = await run("Not/A/Name", CERTWRIGHT_EDGE_HTTP_PORT="none", CERTWRIGHT_EDGE_ROOTS_FILE="/nowhere")
    assert code == 2
    for part in ("NAME (Not/A/Name)", "CERTWRIGHT_EDGE_HTTP_PORT", "CERTWRIGHT_EDGE_ROOTS_FILE"):
        assert part in err


async def test_a_cluster_that_cannot_be_asked_ends_with_1() -> None:
    code, _, err = await run(HOSTNAME)
    assert code == 1
    assert "name a kubeconfig" in err


@pytest.mark.lab
async def test_a_newcomer_is_told_the_record_to_set(lab: Lab) -> None:
    lab.dns.add_zone("diagnosed.test")
    environment = {
        "KUBECONFIG": str(lab.kubeconfig),
        "CERTWRIGHT_NAMESERVERS": lab.dns_address,
        "CERTWRIGHT_EDGE_HTTP_PORT": str(lab.http_port),
        "CERTWRIGHT_EDGE_HTTPS_PORT": str(lab.https_port),
        "CERTWRIGHT_EDGE_ALLOWED_NETWORKS": "127.0.0.0/8",
    }
    record = " and ".join(f"{HOSTNAME} A {address}" for address in GATEWAY_ADDRESSES)
    code, out, _ = await run(HOSTNAME, **environment)
    assert code == 1
    assert f"{HOSTNAME} is to blame\n" in out
    assert "The name does not exist in the DNS." in out
    assert f"Set {record}." in out
    code, out, _ = await run(HOSTNAME, "--json", "--fix", **environment)
    told = json.loads(out)
    assert code == 1
    assert told["diagnosis"]["cause"]["code"] == "CW1101"
    assert told["diagnosis"]["cause"]["fix"] == f"Set {record}."
    assert told["done"] == []
    code, out, _ = await run("default/nobody", **environment)
    assert code == 1
    assert "CW1350 CertificateMissing" in out
