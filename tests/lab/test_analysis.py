"""What `istioctl analyze` would report about our objects is nothing; what it should report about others it does."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from lab.binaries import prepare
from lifecycle import names, targets
from lifecycle.manifests import Manifest
from tests.lifecycle.gateway_shapes import CA, PLAIN, SHAPES, challenges, documents

pytestmark = pytest.mark.lab

AUTHORITY = trustme.CA()
LEAF = AUTHORITY.issue_cert(*PLAIN.hostnames, "*.shop.example.com")
SELECTOR = {"istio": "ingressgateway"}


def named(kind: str, namespace: str, name: str, **more: Any) -> Manifest:
    version = "apps/v1" if kind == "Deployment" else "v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **more}


def service(namespace: str, name: str, *ports: tuple[str, int]) -> Manifest:
    shown = [{"name": label, "port": port, "targetPort": port, "protocol": "TCP"} for label, port in ports]
    labels = SELECTOR if name == "istio-ingressgateway" else {"app": name}
    return named("Service", namespace, name, spec={"selector": labels, "ports": shown})


def secret(name: str, **content: bytes) -> Manifest:
    data = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in content.items()}
    return named("Secret", "istio-system", name, data=data)


def surroundings(hostname: str) -> list[Manifest]:
    """What a cluster has around the objects of a domain: the gateway's Pod, the routes' Services, the Secrets."""
    root = AUTHORITY.cert_pem.bytes()
    chain = b"".join(blob.bytes() for blob in LEAF.cert_chain_pems)
    key = LEAF.private_key_pem.bytes()
    pod = named("Pod", "istio-system", "gateway")
    pod["metadata"]["labels"] = SELECTOR
    pod["spec"] = {"containers": [{"name": "istio-proxy", "image": "proxyv2"}]}
    return [
        pod,
        service("istio-system", "istio-ingressgateway", ("http2", 80), ("https", 443)),
        service("istio-system", "tls-service", ("https", 8443)),
        service("default", "frontend-service", ("http", 80)),
        service("shop", "api-service", ("http", 8080)),
        service("shop", "api-v2", ("http", 8080)),
        *(service("istio-system", one.service, ("http", one.port)) for one in challenges(PLAIN)),
        secret(names.secret_name(hostname), tls_crt=chain, tls_key=key, ca_crt=root),
        secret(CA, ca_crt=root),
    ]


async def analyzed(directory: Path, found: list[Manifest]) -> list[dict[str, str]]:
    """The analyzers' messages; those about namespaces without injection are not about our objects."""
    path = directory / "objects.yaml"
    path.write_text(yaml.safe_dump_all(found))
    program = (await asyncio.to_thread(prepare)).binaries / "analyze"
    process = await asyncio.create_subprocess_exec(
        str(program), str(path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    messages: list[dict[str, str]] = json.loads(out)
    return messages


@pytest.mark.parametrize("name", SHAPES)
async def test_nothing_is_reported_about_a_shape(tmp_path: Path, name: str) -> None:
    assert await analyzed(tmp_path, [*documents(name), *surroundings(SHAPES[name].hostname)]) == []


async def test_a_missing_secret_and_a_missing_service_are_reported(tmp_path: Path) -> None:
    """The analyzers do look: else the test before would prove nothing."""
    kept = [
        one
        for one in surroundings(PLAIN.hostname)
        if one["metadata"]["name"] not in {names.secret_name(PLAIN.hostname), "api-service"}
    ]
    messages = await analyzed(tmp_path, [*documents("istio-simple"), *kept])
    assert {"IST0101"} == {message["code"] for message in messages}
    assert {"Gateway", "VirtualService"} == {message["origin"].partition(" ")[0] for message in messages}


async def test_two_domains_on_one_gateway_are_no_conflict(tmp_path: Path) -> None:
    """Every domain has a Gateway of its own on the same workload: other hosts, so no IST0145 and no IST0138."""
    other = dataclasses.replace(PLAIN, hostnames=("store.example.com",))
    objects = [*documents("istio-simple"), targets.gateway(other, https=True), *targets.routes(other)]
    around = [*surroundings(PLAIN.hostname), surroundings(other.hostname)[-2]]
    assert await analyzed(tmp_path, [*objects, *around]) == []
