"""Domains whose certificates are of other shapes, from a door to what the edge serves, on the whole product."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.cluster import GATEWAY_ADDRESSES
from lab.stage import CommandError
from tests.e2e.conftest import side_by_side
from tests.e2e.play import ZONE, Play, Seen, exists

pytestmark = pytest.mark.lab

CERT_MANAGER = "/apis/cert-manager.io/v1/namespaces/cert-manager/certificates"


def served(seen: Seen, key: str, *hostnames: str) -> None:
    """Every address serves every name with the certificate of that key, whose chain was verified."""
    assert seen["findings"] == []
    assert seen["secret"]["public_key"] == key
    assert {(one["address"], one["hostname"]) for one in seen["served"]} == {
        (address, hostname) for address in GATEWAY_ADDRESSES for hostname in hostnames
    }
    assert {one["fingerprint"] for one in seen["served"]} == {seen["secret"]["fingerprint"]}
    assert all(one["chain_verified"] for one in seen["served"])


@side_by_side
async def test_a_large_rsa_key_is_served(play: Play) -> None:
    hostname = f"rsa.{ZONE}"
    wanted = {"key_algorithm": "RSA", "key_size": 4096, "key_encoding": "PKCS1"}
    served(await play.active(hostname, issuer="lab", certificate=wanted), "RSA 4096", hostname)


@side_by_side
async def test_a_p384_key_is_served(play: Play) -> None:
    hostname = f"p384.{ZONE}"
    served(await play.active(hostname, issuer="lab", certificate={"key_size": 384}), "ECDSA 384", hostname)


@side_by_side
async def test_25_names_in_one_certificate_are_served_each(play: Play) -> None:
    hostnames = tuple(f"n{number:02}.many.{ZONE}" for number in range(25))
    seen = await play.active(*hostnames, seconds=180, issuer="lab")
    served(seen, "ECDSA 256", *hostnames)
    assert set(seen["secret"]["dns_names"]) == set(hostnames)
    assert len(play.orders_of(hostnames[0])) == 1


@side_by_side
async def test_a_ca_of_ones_own_signs_what_acme_does_not(play: Play) -> None:
    """Made by the command line alone: a root, an issuer of it, a password's Secret, and a domain with all of it."""
    hostname, directory = f"own.{ZONE}", play.stage.directory
    play.point(hostname)
    kubeconfig = ("--kubeconfig", str(play.lab.kubeconfig))

    def file(name: str, document: dict[str, Any]) -> str:
        path = Path(directory) / name
        path.write_text(yaml.safe_dump(document))
        return str(path)

    await play.stage.command("issuer", "apply", "-f", file("bootstrap.yaml", {"name": "c4-self", "selfsigned": {}}))
    root = {
        "name": "c4-root",
        "issuer": "c4-self",
        "certificate": {"common_name": "Shop Root"},
        "permitted": {"dns_domains": [ZONE], "ip_ranges": ["192.0.2.0/24"]},
    }
    made = await play.stage.command("issuer", "authority", "-f", file("root.yaml", root), *kubeconfig)
    assert made == {"namespace": "cert-manager", "name": "c4-root", "changed": True}
    again = await play.stage.command("issuer", "authority", "-f", file("root.yaml", root), *kubeconfig)
    assert not again["changed"]
    assert await exists(play, f"{CERT_MANAGER}/c4-root")
    await play.lab.until(CERT_MANAGER, lambda item: item["metadata"]["name"] == "c4-root" and "notAfter" in str(item))
    issuer = await play.stage.command(
        "issuer", "apply", "-f", file("ca.yaml", {"name": "c4", "ca": {"secret": "c4-root"}})
    )
    assert issuer["ready"], issuer
    await play.stage.command(
        "issuer",
        "credentials",
        "c4-password",
        f"password=file:{file('password', {'any': 'text'})}",
        "--secret-namespace",
        "istio-system",
        *kubeconfig,
    )
    wanted = {
        "key_algorithm": "Ed25519",
        "ip_addresses": ["192.0.2.7"],
        "keystores": {"pkcs12": {"secret": "c4-password", "profile": "Modern2023"}},
        "secret_template": {"labels": {"team": "shop"}},
    }
    path = file("request.yaml", {"hostname": hostname, "issuer": "c4", "certificate": wanted})
    seen = await play.stage.command("onboard", "-f", path, "--route", "/=frontend-service:80", "--wait")
    served(seen, "Ed25519", hostname)
    assert seen["secret"]["ip_addresses"] == ["192.0.2.7"]
    assert seen["secret"]["keystores"] == ["keystore.p12"]


@side_by_side
async def test_what_the_issuer_would_not_sign_is_refused_at_the_door(play: Play) -> None:
    hostname = f"spiffe.{ZONE}"
    document = {"hostname": hostname, "issuer": "lab", "certificate": {"uris": ["spiffe://shop/a"]}}
    path = Path(play.stage.directory) / "spiffe.json"
    path.write_text(json.dumps(document))
    with pytest.raises(CommandError) as refused:
        await play.stage.command("onboard", "-f", str(path), "--route", "/=frontend-service:80")
    assert "exit 2" in str(refused.value)
    assert "CW1334" in str(refused.value)
    answer = await play.portal.post("/v1/domains", json=document)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["field"], error["problem"]) == ("certificate.uris", "is the operator's to set")
    assert await play.running_workflows(hostname) == []
