"""Domains that are ill on the lab, and who looks at them: what the tests of diagnosis, snapshot and remedies share.

Nobody watches these issuances but the diagnosis itself: where a challenge must be routed it is its remedy that does it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kubernetes.aio.dynamic import DynamicClient

from activities import diagnosis
from activities.certificates import CertificateActivities
from activities.remedies import mend
from activities.snapshot import CertificatePlace, DiagnosisSettings, look
from lab.api import ApiError, Json
from lab.cluster import GATEWAY_ADDRESSES, Lab
from lifecycle import manifests, names
from lifecycle.blame import Action, Remedy
from lifecycle.diagnosing import Diagnosis
from lifecycle.domain import IssuerRef, OnboardingRequest
from lifecycle.findings import Finding
from lifecycle.steps import CertificateTarget, IssuerRequest
from tests.activities import domains

NAMESPACE = "istio-system"
ZONE = "stuck.test"
CAA_IDENTITY = "ca.lab.test"
"""What the lab's CA is taken to be called in CAA records, which it does not look at itself."""

CERTIFICATES = f"/apis/cert-manager.io/v1/namespaces/{NAMESPACE}/certificates"
ACME = f"/apis/acme.cert-manager.io/v1/namespaces/{NAMESPACE}"
ISTIO = "networking.istio.io/v1"
_LONGEST = 75.0


class Ward:
    """Domains that are ill, and who looks at them."""

    def __init__(self, lab: Lab, cluster: DynamicClient, settings: DiagnosisSettings) -> None:
        self.lab = lab
        self.cluster = cluster
        self.settings = settings
        self.seconds: dict[str, float] = {}

    async def look(self, place: CertificatePlace) -> Diagnosis:
        return await diagnosis.diagnosed(self.cluster, place, self.settings)

    async def until(self, place: CertificatePlace, code: str, state: str = "") -> tuple[Diagnosis, Finding]:
        """The diagnosis whose cause has the code; how long it took from now is kept for the table."""
        began = time.monotonic()
        while True:
            seen = await self.look(place)
            if seen.cause is not None and seen.cause.code == code:
                self.seconds[state or code] = time.monotonic() - began
                assert not seen.healthy
                assert seen.cause.fix
                return seen, seen.cause
            if time.monotonic() - began > _LONGEST:
                told = [f"{one.code} {one.subject}: {one.problem}" for one in seen.findings]
                pytest.fail(f"not {code} within {_LONGEST} s but {told or seen.summary}; {seen.chain}")
            await asyncio.sleep(0.3)

    async def healed(self, place: CertificatePlace) -> set[Action]:
        """Do the remedies until nothing is wrong any more; returns what was done."""
        began, done = time.monotonic(), set()
        while True:
            seen, mended = await diagnosis.mended(self.cluster, place, self.settings)
            done |= {one.remedy.action for one in mended if one.done}
            if seen.healthy:
                return done
            if time.monotonic() - began > _LONGEST:
                told = [f"{one.code} {one.subject}: {one.problem}" for one in seen.findings]
                pytest.fail(f"not healed within {_LONGEST} s: {told or seen.summary}; {seen.chain}")
            await asyncio.sleep(0.5)

    async def renewed(self, place: CertificatePlace) -> None:
        """What a person does who has mended the cause of a failed order: ask for another one."""
        remedy = Remedy(
            action=Action.RENEW, kind="Certificate", namespace=place.namespace, name=place.name, words="by hand"
        )
        seen = await look(self.cluster, place, self.settings)
        assert (await mend(self.cluster, remedy, seen)).done


@contextlib.asynccontextmanager
async def opened(lab: Lab, cluster: DynamicClient) -> AsyncIterator[Ward]:
    """A ward for the tests of one file; the seconds until each finding are printed at its end."""
    lab.dns.add_zone(ZONE)
    edge = await domains.edge_settings(lab)
    settings = DiagnosisSettings(edge=edge, nameservers=(lab.dns_address,), caa_identities=(CAA_IDENTITY,))
    made = Ward(lab, cluster, settings)
    yield made
    for state, seconds in made.seconds.items():
        print(f"{state}: {seconds:.1f} s")


def place(hostname: str) -> CertificatePlace:
    return CertificatePlace(namespace=NAMESPACE, name=names.certificate_name(hostname), asked=hostname)


def target(hostname: str, issuer: IssuerRef = domains.ISSUER) -> CertificateTarget:
    request = OnboardingRequest(tenant="acme", hostnames=(hostname,), issuer=issuer, routes=domains.ROUTES)
    return CertificateTarget(request=request)


@contextlib.asynccontextmanager
async def asked(
    ward: Ward, hostname: str, issuer: IssuerRef = domains.ISSUER, *, here: bool = True
) -> AsyncIterator[CertificatePlace]:
    """A domain whose Certificate was applied, and whose name points to the gateway or elsewhere."""
    certificates = CertificateActivities(ward.cluster)
    wanted = target(hostname, issuer)
    if hostname.endswith(ZONE):
        ward.lab.dns.set(hostname, "A", GATEWAY_ADDRESSES if here else ("127.0.0.9",))
    try:
        applied = await domains.run(certificates.apply_certificate, wanted)
        assert applied.findings == ()
        yield place(hostname)
    finally:
        await domains.run(certificates.remove_certificate, wanted)


async def gone(lab: Lab, path: str) -> None:
    with contextlib.suppress(ApiError):
        await lab.api.call("DELETE", path)


@contextlib.asynccontextmanager
async def having(lab: Lab, document: Json, path: str) -> AsyncIterator[Json]:
    """An object that somebody else made, for as long as the block."""
    yield await lab.apply_when_answered(document)
    await gone(lab, path)


async def issuer(ward: Ward, name: str, change: Any = None, *, kind: str = "ClusterIssuer") -> IssuerRef:
    """A ClusterIssuer at the lab's CA, changed by `change`."""
    ref = IssuerRef(name=name)
    wanted = IssuerRequest(ref=ref, server=ward.lab.acme_directory, ca_bundle=ward.lab.acme_ca.read_text())
    document = manifests.acme_issuer(wanted)
    if change is not None:
        change(document)
    await ward.lab.apply_when_answered(document)
    return ref


async def ready(ward: Ward, name: str, *, other_than: str = "") -> Json:
    """The ClusterIssuer once it has an account, another than before."""

    def good(item: Json) -> bool:
        status = item.get("status") or {}
        conditions, account = status.get("conditions") or (), (status.get("acme") or {}).get("uri")
        return (
            item["metadata"]["name"] == name
            and account not in (None, "", other_than)
            and any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)
        )

    return await ward.lab.until("/apis/cert-manager.io/v1/clusterissuers", good)


def restored_request(hostname: str, certificate: str = "") -> Json:
    """The CertificateRequest of a domain's first issuance as a restore without owners leaves it, and nobody's."""
    name = certificate or names.certificate_name(hostname)
    annotations = {"cert-manager.io/certificate-name": name, "cert-manager.io/certificate-revision": "1"}
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "CertificateRequest",
        "metadata": {"name": f"{name}-1", "namespace": NAMESPACE, "annotations": annotations},
        "spec": {"issuerRef": {"name": "gone", "kind": "ClusterIssuer"}, "request": _csr(hostname)},
    }


def _csr(hostname: str) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()
