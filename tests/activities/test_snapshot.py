"""What lies outside cert-manager and keeps an issuance, or a served domain, is seen and told by its one object."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from activities.gateways import GatewayActivities
from activities.snapshot import CertificatePlace
from lab.api import MERGE_PATCH, Json
from lab.cluster import Lab
from lifecycle import names
from lifecycle.blame import Action
from lifecycle.domain import IssuerRef
from tests.activities import domains
from tests.activities.ward import (
    ACME,
    CAA_IDENTITY,
    ISTIO,
    NAMESPACE,
    ZONE,
    Ward,
    asked,
    gone,
    having,
    issuer,
    target,
)

pytestmark = pytest.mark.lab


async def warned(ward: Ward, here: CertificatePlace, code: str, subject: str) -> None:
    """Wait until a warning of the code names the subject, of a certificate that is well otherwise."""
    began = time.monotonic()
    async with asyncio.timeout(30):
        while True:
            seen = await ward.look(here)
            if (code, subject) in {(one.code, one.subject) for one in seen.findings}:
                assert seen.healthy
                ward.seconds[f"{code} warning"] = time.monotonic() - began
                return
            await asyncio.sleep(0.3)


async def test_a_caa_record_that_denies_is_told_with_the_record_to_add(ward: Ward) -> None:
    """The lab's CA does not look at CAA itself, so that this is told before anybody was refused."""
    hostname = f"denied.{ZONE}"
    async with asked(ward, hostname) as here:
        await ward.until(here, "CW1355", "")
        ward.lab.dns.set(hostname, "CAA", ['0 issue "other.example"'])
        _, cause = await ward.until(here, "CW1305")
        assert (cause.subject, cause.fix) == (hostname, f'Add {hostname} CAA 0 issue "{CAA_IDENTITY}".')
        ward.lab.dns.set(hostname, "CAA", ['0 issue "other.example"', f'0 issue "{CAA_IDENTITY}"'])
        assert await ward.healed(here) == {Action.ROUTE}
        ward.lab.dns.set(hostname, "CAA", ['0 issue ";"'])
        await warned(ward, here, "CW1305", hostname)


async def test_an_http_route_to_a_gateway_that_is_not_there_is_told_by_that_gateway(ward: Ward) -> None:
    def by_routes(document: Json) -> None:
        parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "nowhere", "namespace": NAMESPACE}
        document["spec"]["acme"]["solvers"] = [{"http01": {"gatewayHTTPRoute": {"parentRefs": [parent]}}}]

    gateway = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "nowhere", "namespace": NAMESPACE},
        "spec": {
            "gatewayClassName": "istio",
            "addresses": [{"type": "Hostname", "value": f"istio-ingressgateway.{NAMESPACE}.svc.cluster.local"}],
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    }
    ref = await issuer(ward, "stuck-by-routes", by_routes)
    async with asked(ward, f"parentless.{ZONE}", ref) as here:
        _, cause = await ward.until(here, "CW1355", "CW1355 HTTPRoute")
        assert cause.subject == f"Gateway {NAMESPACE}/nowhere"
        assert ref.name in cause.fix
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/gateways/nowhere"
        async with having(ward.lab, gateway, path):
            assert await ward.healed(here) == set()


async def test_a_route_that_takes_the_challenges_path_to_nobody_is_told_by_its_virtual_service(ward: Ward) -> None:
    hostname = f"overtaken.{ZONE}"
    service = {
        "apiVersion": ISTIO,
        "kind": "VirtualService",
        "metadata": {"name": "a-well-known", "namespace": "default"},
        "spec": {
            "hosts": [hostname],
            "gateways": [f"{NAMESPACE}/{names.gateway_name(hostname)}"],
            "http": [
                {
                    "match": [{"uri": {"prefix": "/.well-known/"}}],
                    "route": [{"destination": {"host": "nobody.default.svc.cluster.local", "port": {"number": 80}}}],
                }
            ],
        },
    }
    path = f"/apis/{ISTIO}/namespaces/default/virtualservices/a-well-known"
    async with having(ward.lab, service, path), asked(ward, hostname) as here:
        seen, _ = await ward.until(here, "CW1319")
        assert seen.findings[0].subject == "VirtualService default/a-well-known"
        await gone(ward.lab, path)
        await ward.healed(here)


async def test_a_cert_manager_with_a_sidecar_is_a_warning(ward: Ward) -> None:
    """A second controller's Pod that no node takes: it is its containers that are looked at."""
    labels = {"app.kubernetes.io/name": "cert-manager", "app.kubernetes.io/component": "controller", "captured": "yes"}
    images = ("cert-manager-controller", "istio-proxy")
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "captured", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"captured": "yes"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"kubernetes.io/os": "nowhere"},
                    "containers": [{"name": name, "image": name} for name in images],
                },
            },
        },
    }
    async with asked(ward, f"meshed.{ZONE}") as here:
        await ward.healed(here)
        async with having(ward.lab, deployment, "/apis/apps/v1/namespaces/default/deployments/captured"):
            pods = "/api/v1/namespaces/default/pods"
            pod = await ward.lab.until(pods, lambda item: item["metadata"]["name"].startswith("captured-"))
            await warned(ward, here, "CW1030", f"Pod default/{pod['metadata']['name']}")


async def test_an_order_that_was_restored_in_the_way_is_told_and_its_removal_heals(ward: Ward) -> None:
    """As a restore without owners leaves it: the name that cert-manager needs, and nobody's."""
    async with asked(ward, f"reordered.{ZONE}") as here:
        await ward.until(here, "CW1355", "")
        async with ward.lab.stopped("cert-manager"):
            order = await restored(ward.lab, here)
        _, cause = await ward.until(here, "CW1309", "CW1309 Order")
        assert cause.subject == f"Order {NAMESPACE}/{order}"
        assert Action.DELETE in await ward.healed(here)


async def restored(lab: Lab, here: CertificatePlace) -> str:
    """Put the Certificate's Order back without its owner, as nothing else had been there; returns its name."""
    (order,) = [
        one
        for one in (await lab.api.call("GET", f"{ACME}/orders"))["items"]
        if one["metadata"]["name"].startswith(f"{here.name}-")
    ]
    for challenge in (await lab.api.call("GET", f"{ACME}/challenges"))["items"]:
        if any(owner["uid"] == order["metadata"]["uid"] for owner in challenge["metadata"]["ownerReferences"]):
            path = f"{ACME}/challenges/{challenge['metadata']['name']}"
            body = {"metadata": {"finalizers": None}}
            await lab.api.call("PATCH", path, body=body, content_type=MERGE_PATCH)
            await lab.api.call("DELETE", path)
    name = str(order["metadata"]["name"])
    await lab.api.call("DELETE", f"{ACME}/orders/{name}")
    kept = {
        part: order["metadata"][part]
        for part in ("name", "namespace", "annotations", "labels")
        if part in order["metadata"]
    }
    copy = {"apiVersion": order["apiVersion"], "kind": "Order", "metadata": kept, "spec": order["spec"]}
    await lab.api.call("POST", f"{ACME}/orders", body=copy)
    return name


# --- what a domain that is served can meet ----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(ward: Ward, hostname: str) -> AsyncIterator[CertificatePlace]:
    """A domain whose certificate signs itself, so that it is renewed without any route."""
    ref = IssuerRef(name="stuck-selfsigned")
    document = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "ClusterIssuer",
        "metadata": {"name": ref.name},
        "spec": {"selfSigned": {}},
    }
    await ward.lab.apply_when_answered(document)
    async with asked(ward, hostname, ref) as here:
        await ward.healed(here)
        gateways, wanted = GatewayActivities(ward.cluster), target(hostname, ref)
        assert (await domains.run(gateways.bind_gateway, wanted)).bound
        try:
            await ward.healed(here)
            yield here
        finally:
            await domains.run(gateways.unbind_gateway, wanted)


async def test_an_envoy_that_istiod_does_not_tell_of_a_new_certificate_is_stale(ward: Ward) -> None:
    async with served(ward, f"stale.{ZONE}") as here:
        async with ward.lab.frozen("istiod"):
            await ward.renewed(here)
            _, cause = await ward.until(here, "CW1505")
            assert cause.subject.startswith(here.asked) or here.asked in cause.problem
        await ward.healed(here)


async def test_an_envoy_that_stands_still_is_unreachable(ward: Ward) -> None:
    async with served(ward, f"frozen.{ZONE}") as here:
        async with ward.lab.frozen("istio-ingressgateway"):
            await ward.until(here, "CW1503")
        await ward.healed(here)
