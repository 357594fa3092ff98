"""Domains by every type of issuer that the lab has, from the command line to the served certificate."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from lab.cluster import DNS_KEY_NAME, GATEWAY_ADDRESSES, Lab
from lab.stage import CommandError
from lifecycle import names
from tests.e2e.play import Play

pytestmark = pytest.mark.lab

ROUTE = ("--route", "/=frontend-service:80")
DOMAINS = (
    ("i4e-acme", "*.wild.i4.test", "wild.i4.test"),
    ("i4e-acme", "shop.customer.test"),
    ("i4e-acme", "plain.i4.test"),
    ("i4e-gateway", "gateway.i4.test"),
    ("i4e-made", "made.i4.test"),
    ("i4e-made", "*.inner.i4.test"),
    ("i4e-given", "given.i4.test"),
    ("i4e-self", "self.i4.test"),
)
"""Issuer and names of each domain."""

ZONES = ("i4.test", "customer.test", "delegated.test")


GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "i4-edge", "namespace": "istio-system"},
    "spec": {
        "gatewayClassName": "istio",
        "addresses": [{"type": "Hostname", "value": "istio-ingressgateway.istio-system.svc.cluster.local"}],
        "listeners": [
            {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "Same"}}}
        ],
    },
}
"""The Gateway API's, served by the gateway workload that is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The stage, and a directory for what is written for the command line."""

    play: Play
    directory: Path

    @property
    def lab(self) -> Lab:
        return self.play.lab

    async def run(self, *arguments: str) -> tuple[int, Any, str]:
        """A command: exit code, result, and what it said besides."""
        try:
            async with asyncio.timeout(150):
                return 0, await self.play.stage.command(*arguments), ""
        except CommandError as error:
            return error.code, json.loads(error.output) if error.output.strip() else None, error.errors

    def file(self, name: str, document: dict[str, Any]) -> str:
        path = self.directory / name
        path.write_text(yaml.safe_dump(document))
        return str(path)


@pytest.fixture(scope="module")
async def world(play: Play, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The stage with the zones and the Gateway API's Gateway of these tests."""
    for zone in ZONES:
        play.lab.dns.add_zone(zone)
    await play.lab.apply(GATEWAY)
    return World(play=play, directory=tmp_path_factory.mktemp("i4"))


def given_root(directory: Path) -> tuple[str, str]:
    """Files of a root that somebody else made, RSA."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Given Root")])
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, decipher_only=False, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "root.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "root.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(directory / "root.crt"), str(directory / "root.key")


@pytest.fixture(scope="module")
async def issuers(world: World) -> dict[str, dict[str, Any]]:
    """The issuers of these tests, from one file, with credentials that the command line wrote."""
    lab = world.lab
    (world.directory / "tsig").write_text(f"{lab.dns_key}\n")
    certificate, key = given_root(world.directory)
    for arguments in (
        ("i4e-tsig", f"tsig-secret-key=file:{world.directory / 'tsig'}"),
        ("i4e-made", "--generate-ca", "Made Root"),
        ("i4e-given", "--certificate", certificate, "--key", key),
    ):
        code, result, err = await world.run("issuer", "credentials", *arguments, "--kubeconfig", str(lab.kubeconfig))
        assert code == 0, err
        assert result["changed"]
        assert lab.dns_key not in json.dumps(result) + err
    # unasked, this CA takes any of its profiles
    acme = {"server": lab.acme_directory, "ca_bundle": lab.acme_ca.read_text(), "profile": "default"}
    update = {"nameserver": lab.dns_address, "tsig_key_name": DNS_KEY_NAME.rstrip("."), "tsig_secret": "i4e-tsig"}
    path = world.file(
        "issuers.yaml",
        {
            "issuers": [
                {
                    "name": "i4e-acme",
                    **acme,
                    "solvers": [
                        {"http01": "virtual-service"},
                        {
                            # cert-manager's self-check of a DNS record lasts a minute, one record after another
                            "dns01": {"rfc2136": update},
                            "wait_seconds": 1,
                            "selector": {"dns_zones": ["wild.i4.test"]},
                        },
                        {
                            "dns01": {"rfc2136": update},
                            "cname_strategy": "follow",
                            "selector": {"dns_zones": ["customer.test"]},
                        },
                    ],
                },
                {"name": "i4e-http", **acme},
                {"name": "i4e-rehearsed", **acme, "rehearsal": "i4e-http"},
                {
                    "name": "i4e-gateway",
                    **acme,
                    "solvers": [{"http01": {"gateway": {"name": "i4-edge", "namespace": "istio-system"}}}],
                },
                {"name": "i4e-made", "ca": {"secret": "i4e-made"}},
                {"name": "i4e-given", "ca": {"secret": "i4e-given"}},
                {"name": "i4e-self", "selfsigned": {}},
            ]
        },
    )
    code, result, err = await world.run("issuer", "apply", "-f", path)
    assert code == 0, (result, err)
    return {one["ref"]["name"]: one for one in result}


def point_here(lab: Lab, *hostnames: str) -> None:
    for hostname in hostnames:
        lab.dns.set(hostname, "A", GATEWAY_ADDRESSES)


async def onboarded(world: World, issuer: str, *hostnames: str) -> dict[str, Any]:
    code, status, err = await world.run("onboard", *hostnames, "--issuer", issuer, *ROUTE, "--wait")
    assert code == 0, (status, err)
    assert status["phase"] == "active"
    assert status["findings"] == []
    assert {(one["address"], one["hostname"]) for one in status["served"]} == {
        (address, hostname) for address in GATEWAY_ADDRESSES for hostname in hostnames
    }
    assert {(one["fingerprint"], one["chain_verified"]) for one in status["served"]} == {
        (status["secret"]["fingerprint"], True)
    }
    return dict(status)


async def orders(lab: Lab, hostname: str) -> list[str]:
    listed = await lab.api.call("GET", "/apis/acme.cert-manager.io/v1/namespaces/istio-system/orders")
    ours = names.certificate_name(hostname)
    return [one["metadata"]["name"] for one in listed["items"] if one["metadata"]["name"].startswith(ours)]


async def test_issuers_get_ready_and_tell_what_they_prove(world: World, issuers: dict[str, Any]) -> None:
    assert all(one["ready"] for one in issuers.values())
    assert {name: one["wildcard"] for name, one in issuers.items()} == {
        "i4e-acme": True,
        "i4e-http": False,
        "i4e-rehearsed": False,
        "i4e-gateway": False,
        "i4e-made": True,
        "i4e-given": True,
        "i4e-self": True,
    }
    assert issuers["i4e-acme"]["account"].startswith("https://localhost:")
    code, result, _ = await world.run("issuer", "status", "i4e-acme")
    assert (code, result["issuers"][0]["account"]) == (0, issuers["i4e-acme"]["account"])
    code, result, _ = await world.run("issuer", "explain", "*.wild.i4.test", "--issuer", "i4e-acme")
    assert (code, result["number"]) == (0, 1)
    code, result, _ = await world.run("issuer", "explain", "*.i4.test", "--issuer", "i4e-acme")
    assert (code, result["number"]) == (1, -1)


@pytest.mark.usefixtures("issuers")
async def test_a_new_issuers_first_certificate_is_rehearsed_and_the_second_is_not(world: World) -> None:
    """From the command line to the edge; the first order is the counterpart's, which has an account of its own."""
    for hostname, rehearsed in (("rehearsed.i4.test", 1), ("known.i4.test", 0)):
        point_here(world.lab, hostname)
        status = await onboarded(world, "i4e-rehearsed", hostname)
        lines = [one["detail"] for one in status["evidence"] if one["step"] == "rehearsal"]
        assert len(lines) == rehearsed
        assert all(line.startswith("rehearsed at ClusterIssuer i4e-http: ") for line in lines)
        assert len(await orders(world.lab, hostname)) == 1
        shadow = names.rehearsal_name(hostname)
        assert sum(name.startswith(shadow) for name in world.play.orders.values()) == rehearsed
        secrets = await world.lab.api.call("GET", "/api/v1/namespaces/istio-system/secrets")
        assert not any(one["metadata"]["name"].startswith(shadow) for one in secrets["items"])


@pytest.fixture(scope="module")
async def asked(
    world: World, issuers: dict[str, Any], proofs: set[str], routes: set[tuple[str, str]]
) -> AsyncIterator[dict[str, asyncio.Task[dict[str, Any]]]]:
    """All domains of these tests, asked for side by side; each ends active."""
    lab = world.lab
    lab.dns.set("_acme-challenge.shop.customer.test", "CNAME", ["shop.delegated.test."])
    tasks = {}
    for issuer, *hostnames in DOMAINS:
        point_here(lab, *hostnames)
        tasks[hostnames[0]] = asyncio.create_task(onboarded(world, issuer, *hostnames))
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.fixture(scope="module")
async def proofs(world: World, issuers: dict[str, Any]) -> AsyncIterator[set[str]]:
    """Where TXT records are seen while the domains are issued."""
    seen: set[str] = set()

    async def watch() -> None:
        while True:
            seen.update(line.split()[0] for line in world.lab.dns.shown() if " TXT " in line)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    yield seen
    watching.cancel()


@pytest.fixture(scope="module")
async def routes(world: World, issuers: dict[str, Any]) -> AsyncIterator[set[tuple[str, str]]]:
    """HTTPRoutes by hostname and VirtualServices by name that are seen while the domains are issued."""
    seen: set[tuple[str, str]] = set()

    async def watch(group: str, plural: str) -> None:
        async for change, item in world.lab.api.follow(f"/apis/{group}/v1/namespaces/istio-system/{plural}"):
            if change == "SYNCED":
                continue
            if plural == "httproutes":
                seen.update(("HTTPRoute", hostname) for hostname in item["spec"].get("hostnames") or ())
            else:
                seen.add(("VirtualService", item["metadata"]["name"]))

    kinds = (("gateway.networking.k8s.io", "httproutes"), ("networking.istio.io", "virtualservices"))
    watching = [asyncio.create_task(watch(*kind)) for kind in kinds]
    yield seen
    for one in watching:
        one.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


Asked = dict[str, asyncio.Task[dict[str, Any]]]


async def test_a_wildcard_is_issued_by_dns_and_served_for_any_name_below(
    world: World, proofs: set[str], asked: Asked
) -> None:
    lab = world.lab
    status = await asked["*.wild.i4.test"]
    assert "_acme-challenge.wild.i4.test." in proofs
    assert set(status["secret"]["dns_names"]) == {"*.wild.i4.test", "wild.i4.test"}
    assert len(await orders(lab, "*.wild.i4.test")) == 1
    assert lab.dns.shown("_acme-challenge.wild.i4.test") == []
    routes = await lab.api.call("GET", "/apis/networking.istio.io/v1/namespaces/istio-system/virtualservices")
    challenge_route = names.challenge_route_name("*.wild.i4.test")
    assert challenge_route not in {route["metadata"]["name"] for route in routes["items"]}
    trust = ssl.create_default_context(cafile=str(await lab.acme_root()))
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    for name in ("any.wild.i4.test", "other.wild.i4.test", "wild.i4.test"):
        _, writer = await asyncio.open_connection("127.0.0.1", lab.https_port, ssl=trust, server_hostname=name)
        writer.close()


async def test_a_wildcard_is_refused_at_the_door_where_its_issuer_has_http_only(
    world: World, issuers: dict[str, Any]
) -> None:
    code, result, _ = await world.run("onboard", "*.no.i4.test", "--issuer", "i4e-http", *ROUTE)
    assert code == 2
    assert "wildcard" in result["error"]["errors"][0]["problem"]


async def test_a_wildcard_that_no_solver_selects_waits_and_orders_nothing(
    world: World, issuers: dict[str, Any]
) -> None:
    point_here(world.lab, "*.none.i4.test")
    code, _, err = await world.run("onboard", "*.none.i4.test", "--issuer", "i4e-acme", *ROUTE)
    assert code == 0, err
    code, status, _ = await world.run("check", "*.none.i4.test")
    assert code == 1
    assert [finding["code"] for finding in status["findings"]] == ["CW1307"]
    assert await orders(world.lab, "*.none.i4.test") == []
    await world.run("cancel", "*.none.i4.test", "--yes")


async def test_a_challenge_is_delegated_by_a_cname(world: World, proofs: set[str], asked: Asked) -> None:
    await asked["shop.customer.test"]
    assert {name for name in proofs if "customer" in name or "delegated" in name} == {"shop.delegated.test."}
    assert world.lab.dns.shown("delegated.test") == []


@pytest.mark.parametrize(
    ("hostname", "signer"),
    [
        ("made.i4.test", "CN=Made Root"),
        ("given.i4.test", "CN=Given Root"),
        ("self.i4.test", ""),
        ("*.inner.i4.test", "CN=Made Root"),
    ],
)
async def test_a_private_cas_certificate_is_served_and_verified_by_its_own_root(
    world: World, asked: Asked, hostname: str, signer: str
) -> None:
    status = await asked[hostname]
    assert status["secret"]["issuer"] == signer
    assert status["order"] == ""
    assert await orders(world.lab, hostname) == []
    before = status["secret"]["fingerprint"]
    code, renewed, err = await world.run("renew", hostname, "--wait")
    assert code == 0, err
    assert renewed["secret"]["fingerprint"] != before
    assert {one["fingerprint"] for one in renewed["served"]} == {renewed["secret"]["fingerprint"]}


async def test_http_01_goes_on_beside_dns_01_of_the_same_issuer(asked: Asked) -> None:
    status = await asked["plain.i4.test"]
    assert status["secret"]["issuer"].startswith("CN=Pebble")


async def test_http_01_through_the_gateway_api_needs_no_route_of_ours(
    world: World, issuers: dict[str, Any], routes: set[tuple[str, str]], asked: Asked
) -> None:
    status = await asked["gateway.i4.test"]
    assert status["secret"]["issuer"].startswith("CN=Pebble")
    # once more beside the redirect of port 80, which must not swallow the challenge
    code, renewed, err = await world.run("renew", "gateway.i4.test", "--wait")
    assert code == 0, err
    assert renewed["secret"]["fingerprint"] != status["secret"]["fingerprint"]
    made = {name for kind, name in routes if kind == "HTTPRoute"}
    assert made == {"gateway.i4.test"}
    ours = {name for kind, name in routes if kind == "VirtualService"}
    assert names.challenge_route_name("gateway.i4.test") not in ours
    assert names.challenge_route_name("plain.i4.test") in ours


async def test_no_history_holds_the_key_of_the_dns(world: World, asked: Asked) -> None:
    """Private keys and tokens are looked for in all histories of the stage, after all tests."""
    await asyncio.gather(*asked.values())
    temporal = world.play.stage.temporal
    written = base64.b64encode(world.lab.dns_key.encode()).decode()
    async for execution in temporal.list_workflows():
        history = await temporal.get_workflow_handle(execution.id, run_id=execution.run_id).fetch_history()
        text = b"".join(event.SerializeToString() for event in history.events)
        assert not any(key.encode() in text for key in (world.lab.dns_key, written)), execution.id
