"""Say what is wrong with a certificate, now, and do about it what is safe to do.

A look, a verdict, and where asked for the cause's remedy, then another look. Left out: how it is looked
(`activities.snapshot`), what the verdict is (`lifecycle.diagnosing`), and how a remedy is done (`activities.remedies`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from activities.edge import EdgeSettings
from activities.remedies import mend
from activities.snapshot import CertificatePlace, DiagnosisSettings, find_certificate, look
from lifecycle import names
from lifecycle.blame import Remedy
from lifecycle.diagnosing import Diagnosis, diagnose
from lifecycle.domain import OnboardingRequest
from lifecycle.findings import Finding
from lifecycle.mending import Mended, mend_report, tenants
from lifecycle.snapshot import Snapshot
from lifecycle.steps import CertificateTarget, MendReport

_ROUNDS = 5
"""Remedies in a row: what is wrong after five is nothing that goes away by itself."""

_SETTLE_SECONDS = 1.0
"""cert-manager takes up what changed within a second."""

Permitted = Callable[[Snapshot, Remedy], bool]


class DiagnosisActivities:
    """The activity that mends a domain's certificate, given the cluster's client and how it is looked at."""

    def __init__(self, cluster: DynamicClient, settings: DiagnosisSettings) -> None:
        self._cluster = cluster
        self._settings = settings

    @activity.defn
    async def mend_certificate(self, target: CertificateTarget) -> MendReport:
        """Do what is safe about what keeps the domain's certificate, of its own objects only, and look again.

        Of its rehearsal, where that is under way: the domain's own Certificate is not there yet then.
        Raises ApplicationError, to be tried again, where the cluster does not answer.
        """
        request = target.request
        settings = replace(self._settings, gateway=request.gateway)
        place = await find_certificate(self._cluster, request.hostname, request.gateway)
        found, done = await mended(self._cluster, place, settings, permitted=partial(tenants, request))
        return mend_report(found, done, datetime.now(UTC))


def place_of(request: OnboardingRequest) -> CertificatePlace:
    """The Certificate of a domain."""
    name = names.certificate_name(request.hostname)
    return CertificatePlace(namespace=request.gateway.namespace, name=name, asked=request.hostname)


async def diagnosed(cluster: DynamicClient, place: CertificatePlace, settings: DiagnosisSettings) -> Diagnosis:
    """What is wrong with a Certificate, now. Raises ApplicationError where the cluster does not answer."""
    return diagnose(await look(cluster, place, settings))


async def stalled(cluster: DynamicClient, request: OnboardingRequest, name: str = "") -> Diagnosis:
    """What keeps an issuance of ours, as far as the cluster itself shows it. Raises ApplicationError.

    For whoever waits for it: nobody outside is asked, since a customer's name was looked at before the order. `name` of
    another Certificate than the domain's own.
    """
    edge_unused = EdgeSettings(roots_pem=b"")
    settings = DiagnosisSettings(edge=edge_unused, gateway=request.gateway, outside=False)
    own = place_of(request)
    return await diagnosed(cluster, replace(own, name=name or own.name, asked=""), settings)


def _anything(seen: Snapshot, remedy: Remedy) -> bool:
    return True


async def mended(
    cluster: DynamicClient,
    place: CertificatePlace,
    settings: DiagnosisSettings,
    *,
    permitted: Permitted = _anything,
) -> tuple[Diagnosis, tuple[Mended, ...]]:
    """Diagnose, do the cause's remedy, and look again until there is none; each remedy once.

    Only those that are `permitted` to whoever asks. A permission that a remedy lacks on the cluster is a finding.
    Raises ApplicationError where the cluster does not answer.
    """
    done: list[Mended] = []
    refused: list[Finding] = []
    while True:
        seen = await look(cluster, place, settings)
        found = diagnose(seen)
        remedy = found.remedy
        over = remedy is None or any(one.remedy == remedy for one in done) or len(done) >= _ROUNDS
        if remedy is None or over or not permitted(seen, remedy):
            return replace(found, findings=(*found.findings, *refused)), tuple(done)
        try:
            came = await mend(cluster, remedy, seen)
        except ApplicationError as error:
            told = kubernetes.told_by(error)
            if not told or not error.non_retryable:
                raise
            refused += told
            came = Mended(remedy=remedy, done=False, words=told[0].problem)
        done.append(replace(came, cause=found.cause))
        await asyncio.sleep(_SETTLE_SECONDS)
