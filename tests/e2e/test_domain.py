"""One domain through real Temporal workflows on the real lab: issued, bound, verified, and undone where it must be."""

from __future__ import annotations

import re
import ssl
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities import kubernetes
from activities.certificates import CertificateActivities
from activities.edge import EdgeActivities, EdgeSettings
from activities.gateways import GatewayActivities
from lab.cluster import GATEWAY_ADDRESSES, Lab
from lab.loadbalancer import Address, Fault
from lifecycle import manifests, names
from lifecycle.domain import IssuerRef, OnboardingRequest, Route
from lifecycle.steps import BindingResult, CertificateTarget, IssuanceResult, IssuerRequest
from worker import versions
from worker.sandbox import workflow_runner
from workflows.certificate import CertificateIssuance
from workflows.gateway import GatewayBinding

pytestmark = pytest.mark.lab

QUEUE = "certwright-e2e"
LONGEST = timedelta(minutes=2)
TARGET = CertificateTarget(
    request=OnboardingRequest(
        tenant="globex",
        hostnames=("store.globex.test", "www.store.globex.test"),
        issuer=IssuerRef(name="pebble-e2e"),
        routes=(
            Route(prefix="/", service="frontend-service", port=80),
            Route(prefix="/api", service="api-service", port=8080),
        ),
    )
)


@pytest.fixture(scope="session")
async def temporal(lab: Lab) -> AsyncIterator[Client]:
    """A client of a dev server, with a worker whose activities work on the lab."""
    async with aiohttp.ClientSession() as session:
        trust = ssl.create_default_context(cafile=str(lab.acme_ca))
        root = await (await session.get(f"{lab.acme_management}/roots/0", ssl=trust)).read()
    settings = EdgeSettings(
        roots_pem=root, http_port=lab.http_port, https_port=lab.https_port, allowed_networks=("127.0.0.0/8",)
    )
    program = str(Path(sys.executable).parent / "temporal")
    async with (
        await WorkflowEnvironment.start_local(dev_server_existing_path=program) as environment,
        kubernetes.connect(str(lab.kubeconfig)) as cluster,
    ):
        certificates, gateways = CertificateActivities(cluster), GatewayActivities(cluster)
        async with Worker(
            environment.client,
            task_queue=QUEUE,
            workflows=[CertificateIssuance, GatewayBinding],
            activities=[
                certificates.issue_certificate,
                certificates.remove_certificate,
                gateways.bind_gateway,
                gateways.unbind_gateway,
                EdgeActivities(cluster, settings).verify_edge,
            ],
            workflow_runner=workflow_runner(),
            deployment_config=versions.deployment(),
            max_heartbeat_throttle_interval=timedelta(seconds=2),
        ):
            await versions.promote(environment.client)
            yield environment.client


@pytest.fixture(scope="session")
async def issued(lab: Lab, temporal: Client) -> IssuanceResult:
    """The result of the domain's issuance."""
    lab.dns.add_zone("globex.test")
    for hostname in TARGET.request.hostnames:
        lab.dns.set(hostname, "A", GATEWAY_ADDRESSES)
    issuer = IssuerRequest(ref=TARGET.request.issuer, server=lab.acme_directory, ca_bundle=lab.acme_ca.read_text())
    await lab.apply_when_answered(manifests.acme_issuer(issuer))
    return await temporal.execute_workflow(
        CertificateIssuance.run, TARGET, id=f"certificate/{uuid.uuid4()}", task_queue=QUEUE, run_timeout=LONGEST
    )


async def bind(temporal: Client) -> BindingResult:
    workflow_id = f"gateway/{uuid.uuid4()}"
    return await temporal.execute_workflow(
        GatewayBinding.run, TARGET, id=workflow_id, task_queue=QUEUE, run_timeout=LONGEST
    )


async def test_an_issuance_makes_one_order_and_leaves_no_challenge_route(lab: Lab, issued: IssuanceResult) -> None:
    assert issued.findings == ()
    assert issued.ready
    assert issued.secret is not None
    assert set(TARGET.request.hostnames) == set(issued.secret.dns_names)
    assert issued.renewal_at is not None
    orders = await lab.api.call("GET", "/apis/acme.cert-manager.io/v1/namespaces/istio-system/orders")
    ours = names.certificate_name(TARGET.request.hostname)
    assert [issued.order] == [
        order["metadata"]["name"] for order in orders["items"] if order["metadata"]["name"].startswith(ours)
    ]
    routes = await lab.api.call("GET", "/apis/networking.istio.io/v1/namespaces/istio-system/virtualservices")
    challenge_route = names.challenge_route_name(TARGET.request.hostname)
    assert challenge_route not in {route["metadata"]["name"] for route in routes["items"]}


async def test_a_binding_is_proved_on_every_address(issued: IssuanceResult, temporal: Client) -> None:
    result = await bind(temporal)
    assert result.findings == ()
    assert result.bound
    assert result.edge is not None
    assert issued.secret is not None
    assert {issued.secret.fingerprint} == {served.fingerprint for served in result.edge.served}
    seen = {(served.address, served.hostname) for served in result.edge.served}
    assert {(a, h) for a in GATEWAY_ADDRESSES for h in TARGET.request.hostnames} == seen
    assert all(served.chain_verified for served in result.edge.served)


async def test_a_binding_is_undone_where_one_address_does_not_serve(
    lab: Lab, issued: IssuanceResult, temporal: Client
) -> None:
    broken = Address(host=GATEWAY_ADDRESSES[1], port=lab.https_port)
    await lab.balancer.break_(broken, Fault.REFUSE)
    try:
        result = await bind(temporal)
    finally:
        await lab.balancer.mend(broken)
    assert not result.bound
    assert {"CW1503", "CW1510"} == {finding.code for finding in result.findings}
    path = f"/apis/networking.istio.io/v1/namespaces/istio-system/gateways/{names.gateway_name('store.globex.test')}"
    gateway = await lab.api.call("GET", path)
    assert [server["port"]["number"] for server in gateway["spec"]["servers"]] == [80]
    assert issued.ready


async def test_no_history_holds_key_material(issued: IssuanceResult, temporal: Client) -> None:
    async for execution in temporal.list_workflows():
        history = await temporal.get_workflow_handle(execution.id, run_id=execution.run_id).fetch_history()
        text = history.to_json()
        assert re.search(r"acme-challenge/[\w-]{20}|PRIVATE KEY|UFJJVkFURSBLRVk|BEGIN CERT|tls\.key\"", text) is None
    assert issued.ready
