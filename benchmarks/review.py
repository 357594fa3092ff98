"""How long does a review of 300 Certificates take, beside the script that the guide gives for the same question?

Both run on the same lab, one after the other: `python -m benchmarks.review --guide FILE`. FILE is the text of the guide
"How to Integrate Istio with cert-manager for TLS Certificates" by nawazdhandala; its `check-certificates.sh` is taken
out of it and run as it stands, and is not kept here. Without FILE only the review is measured.

Set-up, not measured: the Certificates' Secrets are made here before the Certificates, so cert-manager finds each of
them Ready and issues nothing; five end within five days, and their issuer does not exist, so they stay due. Each has
its Gateway, and a workflow that tells what a domain tells; no worker runs them.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.testing import ActivityEnvironment, WorkflowEnvironment

from activities import kubernetes
from activities.edge import EdgeSettings, handshake
from activities.review import ReviewActivities
from lab.api import Json
from lab.cluster import GATEWAY_ADDRESSES, Lab, run_lab
from lifecycle import backup, manifests, names, queues
from lifecycle.domain import IssuerRef, OnboardingRequest, Route
from lifecycle.steps import FleetReviewReport, FleetReviewRequest

T = TypeVar("T")

NEAR_THEIR_END = 5
RUNS, SCRIPT_RUNS = 5, 3
PATIENCE_SECONDS = 300.0
_AT_ONCE = 8

_PHASE = SearchAttributeKey.for_keyword(queues.DOMAIN_PHASE.name)
_SERVING = SearchAttributeKey.for_keyword(queues.SERVING_STATUS.name)
_GATEWAY = SearchAttributeKey.for_keyword(queues.GATEWAY.name)
_NOT_AFTER = SearchAttributeKey.for_datetime(queues.NOT_AFTER.name)
_NEXT_CHECK_AT = SearchAttributeKey.for_datetime(queues.NEXT_CHECK_AT.name)
_ATTRIBUTES: list[SearchAttributeKey[Any]] = [_PHASE, _SERVING, _GATEWAY, _NOT_AFTER, _NEXT_CHECK_AT]


def request_of(number: int) -> OnboardingRequest:
    """The domain of that number."""
    return OnboardingRequest(
        tenant="benchmark",
        hostnames=(f"d{number}.fleet.test",),
        issuer=IssuerRef(name="nobody"),
        routes=(Route(prefix="/", service="frontend-service", port=80),),
    )


def issued(request: OnboardingRequest, days_left: int, key: ec.EllipticCurvePrivateKey) -> tuple[Json, datetime, str]:
    """A Secret as cert-manager leaves it after issuing for 90 days, its end, and its certificate's fingerprint."""
    hostname, name = request.hostname, names.certificate_name(request.hostname)
    end = (datetime.now(UTC) + timedelta(days=days_left)).replace(microsecond=0)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=90))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    data = {"tls.crt": made.public_bytes(serialization.Encoding.PEM), "tls.key": pem}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": names.secret_name(hostname),
            "namespace": request.gateway.namespace,
            "labels": {backup.WATCHED: "true"},
            "annotations": {
                "cert-manager.io/certificate-name": name,
                "cert-manager.io/issuer-name": request.issuer.name,
                "cert-manager.io/issuer-kind": request.issuer.kind.value,
                "cert-manager.io/issuer-group": "cert-manager.io",
                "cert-manager.io/alt-names": hostname,
            },
        },
        "data": {part: base64.b64encode(value).decode() for part, value in data.items()},
    }
    return secret, end, made.fingerprint(hashes.SHA256()).hex()


async def set_up(lab: Lab, temporal: Client, number: int) -> str:
    """One domain of the fleet, as it is when it has been active for a while; its certificate's fingerprint."""
    request = request_of(number)
    key = ec.generate_private_key(ec.SECP256R1())
    secret, end, fingerprint = issued(request, NEAR_THEIR_END if number < NEAR_THEIR_END else 80, key)
    await lab.apply(secret)
    await lab.apply_when_answered(manifests.certificate(request))
    await lab.apply_when_answered(manifests.gateway(request, https=True))
    await temporal.start_workflow(
        "DomainOnboarding",
        id=names.domain_id(request.hostname),
        task_queue="nobody",
        search_attributes=TypedSearchAttributes(
            [
                SearchAttributePair(_PHASE, "active"),
                SearchAttributePair(_SERVING, "served"),
                SearchAttributePair(_GATEWAY, f"{request.gateway.namespace}/{request.gateway.service}"),
                SearchAttributePair(_NOT_AFTER, end),
                # a domain whose renewal is due is at it
                SearchAttributePair(_NEXT_CHECK_AT, end - timedelta(days=30)),
            ]
        ),
    )
    return fingerprint


async def settled(lab: Lab, settings: EdgeSettings, fingerprints: list[str]) -> None:
    """Until cert-manager has looked at every Certificate and every address serves every domain."""
    path = "/apis/cert-manager.io/v1/namespaces/istio-system/certificates"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        items = (await lab.api.call("GET", path))["items"]
        if sum("notAfter" in (item.get("status") or {}) for item in items) >= len(fingerprints):
            break
        if time.monotonic() > deadline:
            raise SystemExit("cert-manager did not look at all Certificates in time")
        await asyncio.sleep(1)
    for number, fingerprint in enumerate(fingerprints):
        for address in GATEWAY_ADDRESSES:
            while True:
                try:
                    chain, _, _ = await handshake(settings, address, request_of(number).hostname)
                    if hashlib.sha256(chain[0]).hexdigest() == fingerprint:
                        break
                except (OSError, TimeoutError):
                    pass
                if time.monotonic() > deadline:
                    raise SystemExit(f"{address} did not serve {request_of(number).hostname} in time")
                await asyncio.sleep(0.2)


def script_of(guide: Path) -> str:
    """The guide's own script, as it stands there."""
    found = re.search(r"```bash\n(#!/bin/bash\n# File: check-certificates\.sh\n.*?)\n```", guide.read_text(), re.DOTALL)
    if found is None:
        raise SystemExit(f"{guide} has no check-certificates.sh")
    return found[1]


async def run_script(lab: Lab, script: Path) -> tuple[int, int]:
    """How many Certificates the script listed, and how many it called critical."""
    programs = Path(sys.executable).parent
    environment = {**lab.environment, "PATH": f"{programs}:{lab.environment['PATH']}"}
    process = await asyncio.create_subprocess_exec("bash", str(script), env=environment, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    text = out.decode()
    if process.returncode != 0:
        raise SystemExit(f"the script ended with {process.returncode}")
    return len(re.findall(r"^istio-system ", text, re.MULTILINE)), text.count("CRITICAL")


async def timed(work: Callable[[], Awaitable[T]], runs: int) -> tuple[list[float], T]:
    """Seconds of each run, and the last one's result."""
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        result = await work()
        seconds.append(time.perf_counter() - began)
    return seconds, result


def line(what: str, seconds: list[float], said: str) -> None:
    middle, spread = statistics.median(seconds), f"{min(seconds):.2f}-{max(seconds):.2f}"
    print(f"{what:<24} {middle:8.2f} s  (median of {len(seconds)}, {spread})  {said}", flush=True)


async def main(count: int, guide: Path | None) -> None:
    """Set up, measure both, print."""
    script = script_of(guide) if guide else ""
    with tempfile.TemporaryDirectory(prefix="certwright-benchmark-") as directory:
        home = Path(directory)
        async with (
            run_lab(home) as lab,
            await WorkflowEnvironment.start_local(
                dev_server_existing_path=str(Path(sys.executable).parent / "temporal"), search_attributes=_ATTRIBUTES
            ) as environment,
            kubernetes.connect(str(lab.kubeconfig)) as cluster,
        ):
            chart = str(lab.programs.cert_manager_chart)
            options = ("-n", "cert-manager", "--create-namespace")
            await lab.helm("install", "cert-manager", chart, *options, values=lab.cert_manager_values)
            for name in ("cert-manager", "cert-manager-webhook", "cert-manager-cainjector"):
                await lab.deployment_available("cert-manager", name)
            print(f"setting up {count} certificates", flush=True)
            limit = asyncio.Semaphore(_AT_ONCE)

            async def one(number: int) -> str:
                async with limit:
                    return await set_up(lab, environment.client, number)

            settings = EdgeSettings(
                roots_pem=b"", http_port=lab.http_port, https_port=lab.https_port, allowed_networks=("127.0.0.0/8",)
            )
            await settled(lab, settings, await asyncio.gather(*map(one, range(count))))
            hands = ReviewActivities(cluster, environment.client, settings)

            async def review(*, probe_edge: bool) -> FleetReviewReport:
                request = FleetReviewRequest(probe_edge=probe_edge)
                return await ActivityEnvironment().run(hands.review_fleet, request)

            print("measuring", flush=True)
            three, report = await timed(lambda: review(probe_edge=True), RUNS)
            two, _ = await timed(lambda: review(probe_edge=False), RUNS)
            looks = count * len(GATEWAY_ADDRESSES)
            seen = f"{report.certificates} certificates, {report.due} due, {len(report.woken)} woken"
            line("review, three clocks", three, f"{seen}, {looks} handshakes, {report.stale_at_edge} stale")
            line("review, without the edge", two, seen)
            if not script:
                print("check-certificates.sh: not run; give the guide with --guide")
                return
            file = home / "check-certificates.sh"
            file.write_text(script)
            theirs, (listed, critical) = await timed(lambda: run_script(lab, file), SCRIPT_RUNS)
            line("check-certificates.sh", theirs, f"{listed} certificates, {critical} critical, no edge")
            ours = statistics.median(three)
            print(
                f"ratio {theirs[0] / ours:.0f} : 1 with the edge, {theirs[0] / statistics.median(two):.0f} : 1 without"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--certificates", type=int, default=300)
    parser.add_argument("--guide", type=Path, help="the guide's text, whose script is run")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.certificates, arguments.guide))
