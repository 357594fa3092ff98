"""The review on the real lab: it reads three clocks of each certificate and wakes only the domains that do not know.

Domains' workflows are really there, on a real Temporal, but no worker runs them: what a review signals stays in their
histories to be read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509 as certificates
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kubernetes.aio.dynamic import DynamicClient
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment, WorkflowEnvironment

from activities import kubernetes
from activities.edge import EdgeSettings, handshake
from activities.review import ReviewActivities
from lab.api import ApiError, Json
from lab.cluster import GATEWAY_ADDRESSES, Lab
from lab.loadbalancer import Address, Fault
from lifecycle import manifests, names, queues, rehearsal, x509
from lifecycle.domain import CertificateFacts, IssuerRef, OnboardingRequest, Route
from lifecycle.findings import Finding
from lifecycle.steps import FleetReviewReport, FleetReviewRequest, Wake

pytestmark = pytest.mark.lab

KEYWORDS = (queues.DOMAIN_PHASE, queues.SERVING_STATUS, queues.GATEWAY)
INSTANTS = (queues.NOT_AFTER, queues.NEXT_CHECK_AT)
KEYS: dict[str, SearchAttributeKey[Any]] = {
    **{attribute.name: SearchAttributeKey.for_keyword(attribute.name) for attribute in KEYWORDS},
    **{attribute.name: SearchAttributeKey.for_datetime(attribute.name) for attribute in INSTANTS},
}
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One that is issued and served."""

    request: OnboardingRequest
    facts: CertificateFacts

    @property
    def hostname(self) -> str:
        return self.request.hostname


@pytest.fixture(scope="module")
async def temporal() -> AsyncIterator[Client]:
    program = str(Path(sys.executable).parent / "temporal")
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=program, search_attributes=list(KEYS.values())
    ) as environment:
        yield environment.client


@pytest.fixture(scope="module")
async def cluster(lab: Lab) -> AsyncIterator[DynamicClient]:
    async with kubernetes.connect(str(lab.kubeconfig)) as connected:
        await lab.apply_when_answered(
            {
                "apiVersion": "cert-manager.io/v1",
                "kind": "ClusterIssuer",
                "metadata": {"name": "h3-review"},
                "spec": {"selfSigned": {}},
            }
        )
        yield connected


@pytest.fixture(scope="module")
def edge(lab: Lab) -> EdgeSettings:
    return EdgeSettings(
        roots_pem=b"", http_port=lab.http_port, https_port=lab.https_port, allowed_networks=("127.0.0.0/8",)
    )


@pytest.fixture
def hands(cluster: DynamicClient, temporal: Client, edge: EdgeSettings) -> ReviewActivities:
    return ReviewActivities(cluster, temporal, edge)


def wanted(*, issuer: str = "h3-review") -> OnboardingRequest:
    return OnboardingRequest(
        tenant="h3",
        hostnames=(f"r{next(_numbers)}.review.h3.test",),
        issuer=IssuerRef(name=issuer),
        routes=(Route(prefix="/", service="frontend-service", port=80),),
    )


@pytest.fixture
async def domain(lab: Lab, cluster: DynamicClient, edge: EdgeSettings) -> AsyncIterator[Domain]:
    """A domain whose certificate every address serves."""
    request = wanted()
    name, secret = names.certificate_name(request.hostname), names.secret_name(request.hostname)
    await lab.apply(manifests.certificate(request))
    await lab.until("/apis/cert-manager.io/v1/namespaces/istio-system/certificates", ready(name))
    read = await lab.api.call("GET", f"/api/v1/namespaces/istio-system/secrets/{secret}")
    facts = x509.facts(base64.b64decode(read["data"]["tls.crt"]))
    await lab.apply(manifests.gateway(request, https=True))
    await served(edge, request.hostname, facts.fingerprint)
    yield Domain(request=request, facts=facts)
    await remove(lab, request)


def ready(name: str) -> Callable[[Json], bool]:
    def is_ready(item: Json) -> bool:
        conditions = (item.get("status") or {}).get("conditions") or []
        return item["metadata"]["name"] == name and any(
            one["type"] == "Ready" and one["status"] == "True" for one in conditions
        )

    return is_ready


async def served(edge: EdgeSettings, hostname: str, fingerprint: str, *, seconds: float = 30.0) -> None:
    """Until every address presents that certificate."""
    deadline = time.monotonic() + seconds
    for address in GATEWAY_ADDRESSES:
        while True:
            try:
                chain, _, _ = await handshake(edge, address, hostname)
                seen = hashlib.sha256(chain[0]).hexdigest()
            except (OSError, TimeoutError) as error:
                seen = repr(error)
            if seen == fingerprint:
                break
            assert time.monotonic() < deadline, f"{address} answers for {hostname} with {seen}, not {fingerprint}"
            await asyncio.sleep(0.1)


async def remove(lab: Lab, request: OnboardingRequest) -> None:
    hostname = request.hostname
    for path in (
        f"/apis/cert-manager.io/v1/namespaces/istio-system/certificates/{names.certificate_name(hostname)}",
        f"/apis/networking.istio.io/v1/namespaces/istio-system/gateways/{names.gateway_name(hostname)}",
        f"/api/v1/namespaces/istio-system/secrets/{names.secret_name(hostname)}",
    ):
        try:
            await lab.api.call("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise


async def attend(temporal: Client, hostname: str, **told: str | datetime | None) -> None:
    """The domain's workflow, as it tells of itself."""
    known = {
        queues.DOMAIN_PHASE.name: "active",
        queues.SERVING_STATUS.name: "served",
        queues.GATEWAY.name: "istio-system/istio-ingressgateway",
        **told,
    }
    pairs = [SearchAttributePair(KEYS[name], value) for name, value in known.items() if value is not None]
    await temporal.start_workflow(
        "DomainOnboarding",
        id=names.domain_id(hostname),
        task_queue="nobody",
        search_attributes=TypedSearchAttributes(pairs),
    )


async def wakes(temporal: Client, hostname: str) -> list[Wake]:
    """What the domain was signalled."""
    history = await temporal.get_workflow_handle(names.domain_id(hostname)).fetch_history()
    signals = [
        event.workflow_execution_signaled_event_attributes
        for event in history.events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert {"wake"} >= {signal.signal_name for signal in signals}
    converter = temporal.data_converter
    return [(await converter.decode(list(signal.input.payloads), [Wake]))[0] for signal in signals]


async def review(hands: ReviewActivities, *, page_size: int = 500, probe_edge: bool = True) -> FleetReviewReport:
    request = FleetReviewRequest(page_size=page_size, probe_edge=probe_edge)
    return await ActivityEnvironment().run(hands.review_fleet, request)


def about(report: FleetReviewReport, subject: str) -> list[Finding]:
    return [finding for finding in report.findings if subject in finding.subject]


async def test_a_domain_that_knows_everything_is_left_in_peace(
    hands: ReviewActivities, temporal: Client, domain: Domain
) -> None:
    await attend(temporal, domain.hostname, NotAfter=domain.facts.not_after)
    report = await review(hands, page_size=1)
    assert report.certificates >= report.ours >= 1
    assert about(report, domain.hostname) == []
    assert domain.hostname not in report.woken
    assert await wakes(temporal, domain.hostname) == []
    assert report.seconds > 0


async def test_a_domain_that_recorded_another_certificate_is_woken_with_the_new_fingerprint(
    hands: ReviewActivities, temporal: Client, domain: Domain
) -> None:
    await attend(temporal, domain.hostname, NotAfter=domain.facts.not_after - timedelta(days=30))
    report = await review(hands)
    assert domain.hostname in report.woken
    (wake,) = await wakes(temporal, domain.hostname)
    assert domain.facts.fingerprint == wake.fingerprint
    assert "another certificate" in wake.reason


async def test_a_rehearsal_is_no_domains_certificate(
    lab: Lab, hands: ReviewActivities, temporal: Client, domain: Domain
) -> None:
    await attend(temporal, domain.hostname, NotAfter=domain.facts.not_after)
    before = await review(hands)
    await lab.apply(rehearsal.shadow(domain.request, domain.request.issuer))
    shadow = names.rehearsal_name(domain.hostname)
    namespace = "/apis/cert-manager.io/v1/namespaces/istio-system/certificates"
    await lab.until(namespace, ready(shadow))
    try:
        after = await review(hands)
    finally:
        await lab.api.call("DELETE", f"{namespace}/{shadow}")
        await lab.api.call("DELETE", f"/api/v1/namespaces/istio-system/secrets/{shadow}")
    assert (after.certificates, after.ours) == (before.certificates, before.ours)
    assert domain.hostname not in after.woken
    assert about(after, shadow) == []


async def test_an_edge_that_serves_another_certificate_is_stale_and_wakes_its_domain_once(
    lab: Lab, hands: ReviewActivities, temporal: Client, domain: Domain, edge: EdgeSettings
) -> None:
    other = wanted()
    await lab.apply(manifests.certificate(other))
    await lab.until(
        "/apis/cert-manager.io/v1/namespaces/istio-system/certificates", ready(names.certificate_name(other.hostname))
    )
    secret = names.secret_name(other.hostname)
    read = await lab.api.call("GET", f"/api/v1/namespaces/istio-system/secrets/{secret}")
    wrong = manifests.gateway(domain.request, https=True)
    wrong["spec"]["servers"][1]["tls"]["credentialName"] = secret
    await lab.apply(wrong)
    await served(edge, domain.hostname, x509.facts(base64.b64decode(read["data"]["tls.crt"])).fingerprint)
    await attend(temporal, domain.hostname, NotAfter=domain.facts.not_after)
    try:
        report = await review(hands)
        blind = await review(hands, probe_edge=False)
    finally:
        await remove(lab, other)
    assert report.stale_at_edge >= 1
    assert [finding.code for finding in about(report, domain.hostname)] == ["CW1604"]
    assert domain.hostname in report.woken
    assert about(blind, domain.hostname) == []
    (wake,) = await wakes(temporal, domain.hostname)
    assert domain.facts.fingerprint == wake.fingerprint


async def test_an_address_that_does_not_answer_is_told_and_wakes_who_believes_in_it(
    lab: Lab, hands: ReviewActivities, temporal: Client, domain: Domain
) -> None:
    await attend(temporal, domain.hostname, NotAfter=domain.facts.not_after)
    broken = Address(host=GATEWAY_ADDRESSES[1], port=lab.https_port)
    await lab.balancer.break_(broken, Fault.REFUSE)
    try:
        report = await review(hands)
    finally:
        await lab.balancer.mend(broken)
    (finding,) = about(report, domain.hostname)
    assert finding.code in {"CW1503", "CW1504"}
    assert GATEWAY_ADDRESSES[1] in finding.problem
    assert domain.hostname in report.woken


async def test_a_domain_that_is_not_active_is_neither_looked_at_nor_woken(
    lab: Lab, hands: ReviewActivities, temporal: Client, domain: Domain
) -> None:
    await attend(temporal, domain.hostname, DomainPhase="issuing")
    await lab.apply(manifests.gateway(domain.request, https=False))
    report = await review(hands)
    assert about(report, domain.hostname) == []
    assert domain.hostname not in report.woken


async def test_a_domain_without_a_workflow_is_told(hands: ReviewActivities, domain: Domain) -> None:
    report = await review(hands)
    (finding,) = about(report, domain.hostname)
    assert finding.code == "CW1606"
    assert names.certificate_name(domain.hostname) in finding.problem


async def test_a_domain_whose_workflow_ended_is_told_too(
    hands: ReviewActivities, temporal: Client, domain: Domain
) -> None:
    await attend(temporal, domain.hostname, NotAfter=domain.facts.not_after)
    await temporal.get_workflow_handle(names.domain_id(domain.hostname)).terminate()
    report = await review(hands)
    assert [finding.code for finding in about(report, domain.hostname)] == ["CW1606"]


async def test_a_secret_that_vanished_is_told_and_wakes_its_domain(
    lab: Lab, hands: ReviewActivities, temporal: Client
) -> None:
    request = wanted(issuer="h3-nobody")
    await lab.apply_when_answered(manifests.certificate(request))
    await attend(temporal, request.hostname, NotAfter=datetime.now(UTC) + timedelta(days=60))
    try:
        report = await review(hands)
    finally:
        await remove(lab, request)
    (finding,) = about(report, names.secret_name(request.hostname))
    assert finding.code == "CW1401"
    (wake,) = await wakes(temporal, request.hostname)
    assert wake.fingerprint == ""


def expired(name: str, namespace: str) -> Json:
    """A TLS Secret whose certificate ended yesterday."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = certificates.Name([])
    now = datetime.now(UTC)
    made = (
        certificates.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(certificates.random_serial_number())
        .not_valid_before(now - timedelta(days=91))
        .not_valid_after(now - timedelta(days=1))
        .add_extension(certificates.SubjectAlternativeName([certificates.DNSName("old.h3.test")]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    data = {"tls.crt": made.public_bytes(serialization.Encoding.PEM), "tls.key": pem}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


async def test_a_certificate_that_is_not_ours_has_two_clocks_and_nobody_to_wake(
    lab: Lab, hands: ReviewActivities
) -> None:
    await lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "h3-foreign"}})
    await lab.apply(expired("old-tls", "h3-foreign"))
    foreign = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "old", "namespace": "h3-foreign"},
        "spec": {"secretName": "old-tls", "dnsNames": ["old.h3.test"], "issuerRef": {"name": "h3-nobody"}},
    }
    await lab.apply_when_answered(foreign)
    path = "/apis/cert-manager.io/v1/namespaces/h3-foreign/certificates"
    await lab.until(path, lambda item: "notAfter" in (item.get("status") or {}))
    try:
        report = await review(hands)
    finally:
        await lab.api.call("DELETE", f"{path}/old")
    assert report.expired >= 1
    assert report.certificates > report.ours
    assert [finding.code for finding in about(report, "Certificate h3-foreign/old")] == ["CW1405"]


async def test_a_temporal_that_is_away_ends_the_pass_with_an_error_that_is_tried_again(
    cluster: DynamicClient, domain: Domain, edge: EdgeSettings
) -> None:
    program = str(Path(sys.executable).parent / "temporal")
    async with await WorkflowEnvironment.start_local(dev_server_existing_path=program) as environment:
        client = environment.client
    with pytest.raises(ApplicationError) as raised:
        await review(ReviewActivities(cluster, client, edge))
    assert raised.value.type == "TemporalUnreachable"
    assert not raised.value.non_retryable
