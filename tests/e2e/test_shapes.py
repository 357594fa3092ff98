"""Domains on gateways of other shapes than the usual, through the portal and the worker with its listed rights."""

from __future__ import annotations

import trustme

from lifecycle import names
from tests.e2e.conftest import side_by_side
from tests.e2e.play import GATEWAY_NAMESPACE, ZONE, Play, active, codes

_GATEWAY_API = "/apis/gateway.networking.k8s.io"


async def gateway_api_objects(play: Play, hostname: str) -> set[str]:
    """The Gateway API's objects of a domain, in all namespaces."""
    found = set()
    for path in ("v1/gateways", "v1/httproutes", "v1/tlsroutes", "v1beta1/referencegrants"):
        for item in (await play.lab.api.call("GET", f"{_GATEWAY_API}/{path}"))["items"]:
            metadata = item["metadata"]
            if metadata["name"].startswith(names.object_name(hostname)):
                found.add(f"{path.partition('/')[2]} {metadata['namespace']}/{metadata['name']}")
    return found


@side_by_side
async def test_a_domain_lives_and_ends_by_the_gateway_api(play: Play) -> None:
    hostname, further = f"by-gateway-api.{ZONE}", f"www.by-gateway-api.{ZONE}"
    seen = await play.active(hostname, further, target="gateway-api", hsts={"max_age_seconds": 300})
    name = names.object_name(hostname)
    assert {f"gateways {GATEWAY_NAMESPACE}/{name}", f"referencegrants default/{name}"} < await gateway_api_objects(
        play, hostname
    )
    assert not {one for one in await play.objects_of(hostname) if one.startswith(("gateways/", "virtualservices/"))}
    fingerprint = await play.fingerprint(hostname)
    assert {fingerprint} == {one.fingerprint for one in await play.stage.witness.served_everywhere(hostname, further)}
    assert {one["redirect"] for one in seen["served"]} == {f"https://{hostname}/", f"https://{further}/"}
    assert any(one["limits"] == ["TLS 1.1: refused (tlsv1 alert protocol version)"] for one in seen["served"])
    renewed = await play.portal.post(f"/v1/domains/{hostname}/renew")
    assert renewed.status_code in (200, 202), renewed.text
    await play.until(hostname, lambda now: active(now) and now["renewals"] >= 1, seconds=90)
    assert await play.fingerprint(hostname) != fingerprint
    ended = await play.portal.delete(f"/v1/domains/{hostname}")
    assert ended.status_code in (200, 202), ended.text
    await play.until(hostname, lambda now: now["phase"] == "retired", seconds=60)
    assert await gateway_api_objects(play, hostname) == set()
    assert await play.objects_of(hostname) == []


@side_by_side
async def test_a_domain_that_asks_clients_is_bound_once_their_ca_is_there(play: Play) -> None:
    hostname = f"asks-clients.{ZONE}"
    play.point(hostname)
    await play.ask(hostname, tls={"mode": "MUTUAL", "client_ca": "e2e-clients"}, certificate={"key_algorithm": "RSA"})
    told = await play.until(hostname, lambda now: "CW1511" in codes(now), seconds=90)
    assert told["serving"] != "served"
    metadata = {"name": "e2e-clients", "namespace": GATEWAY_NAMESPACE}
    authority = trustme.CA().cert_pem.bytes().decode()
    await play.lab.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"ca.crt": authority}}
    )
    await play.check(hostname)
    seen = await play.until(hostname, active, seconds=60)
    for one in seen["served"]:
        assert any(limit.startswith("without a certificate: refused") for limit in one["limits"])
        assert any(limit.startswith("with a stranger's certificate: refused") for limit in one["limits"])
    assert play.orders_of(hostname) == [seen["order"]]


@side_by_side
async def test_the_guides_ciphers_with_an_rsa_key_are_served_and_nothing_else_is(play: Play) -> None:
    hostname = f"guide.{ZONE}"
    ciphers = ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"]
    refused = await play.portal.post("/v1/domains", json={"hostname": hostname, "tls": {"ciphers": ciphers}})
    assert refused.status_code == 422
    assert "RFC 8422" in refused.text
    seen = await play.active(
        hostname, tls={"ciphers": ciphers, "max_protocol": "TLSV1_2"}, certificate={"key_algorithm": "RSA"}
    )
    assert {one["protocol"] for one in seen["served"]} == {"TLSv1.2"}
    assert {one["cipher"] for one in seen["served"]} <= set(ciphers)
