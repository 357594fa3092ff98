"""Get a domain's certificate: apply it, wait for it, take it away.

Killed and started again each activity takes up what the cluster shows, since every object's name derives from the
domain. What belongs to somebody else is neither overwritten nor removed. Left out: whether the certificate may be
ordered (`activities.preflight`), how an issuance is rehearsed (`activities.rehearsal`), and how it is watched
(`activities.issuance`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity
from temporalio.client import Client

from activities import kubernetes, standstill
from activities.attended import attended
from activities.diagnosis import stalled
from activities.issuance import CERT_MANAGER, IssuanceWatch
from activities.rehearsal import RehearsalWatch, remove_shadow
from activities.turns import Quotas
from lifecycle import claims, diagnosis, findings, manifests, names, targets, turns
from lifecycle.domain import QuotaTurn
from lifecycle.findings import Finding
from lifecycle.steps import CertificateTarget, Cleanup, IssuanceResult, Standstill
from lifecycle.targets import Place


class CertificateActivities:
    """Activities on Certificates and their challenges, given the cluster's client.

    With Temporal's client a domain is told why its issuance stands still, with the quotas these what came of an order.
    """

    def __init__(self, cluster: DynamicClient, temporal: Client | None = None, quotas: Quotas | None = None) -> None:
        self._cluster = cluster
        self._temporal = temporal
        self._quotas = quotas

    @activity.defn
    async def issue_certificate(self, target: CertificateTarget) -> IssuanceResult:
        """Rehearse where that is due, then apply the Certificate and await it.

        Findings where others hold a name, and then nothing is applied; where the rehearsal failed nothing is ordered,
        nor where the quota's grant is over. What came of the order is told to the quota.

        Made anew, after a killed worker too, it applies the same and goes on waiting: no second order comes of it.
        Raises ApplicationError as `apply_certificate` and `await_certificate` do.
        """
        watch = self._watch(target)
        stage = RehearsalWatch(self._cluster, target.request, self._tells(target))
        turn = self._turn(target)

        async def issued() -> IssuanceResult:
            refused = await self._refused(target)
            if refused:
                return IssuanceResult(ready=False, findings=refused)
            seen = await stage.run(partial(self._open_port_80, target))
            if seen is not None and not seen.ready:
                return seen
            if turn is not None and await self._is_over(target, turn):
                return IssuanceResult(ready=False, findings=(_turn_over(target, turn),))
            await self._apply(target)
            result = await watch.run()
            return result if seen is None else replace(result, evidence=(*seen.evidence, *result.evidence))

        work = issued()
        if turn is not None and self._quotas is not None:
            work = self._quotas.telling(
                turn, work, lambda ready: watch.outcome(turn, issued=ready), lambda result: result.ready
            )
        return await attended(work, lambda: stage.words or watch.words)

    async def apply_certificate(self, target: CertificateTarget) -> IssuanceResult:
        """Apply the Gateway's port 80, which challenges need, then the Certificate; findings where others hold a name.

        Raises ApplicationError.
        """
        found = await self._refused(target)
        if not found:
            await self._apply(target)
        return IssuanceResult(ready=False, findings=found)

    async def _refused(self, target: CertificateTarget) -> tuple[Finding, ...]:
        return (*await self._collisions(target), *await self._passwords(target))

    async def _apply(self, target: CertificateTarget) -> None:
        await self._open_port_80(target)
        await kubernetes.apply(self._cluster, manifests.certificate(target.request))

    async def _open_port_80(self, target: CertificateTarget) -> None:
        https = bool(target.previous_fingerprint)  # a domain that is served stays so
        await kubernetes.apply(self._cluster, targets.gateway(target.request, https=https))

    async def await_certificate(self, target: CertificateTarget) -> IssuanceResult:
        """Watch until a new certificate is in the Secret, or cert-manager gave up; route challenges meanwhile.

        Heartbeats say in words what is waited for. Raises ApplicationError: what is refused for good with its finding;
        to be tried again where the cluster, cert-manager or the CA does not answer.
        """
        watch = self._watch(target)
        return await attended(watch.run(), lambda: watch.words)

    @activity.defn
    async def remove_certificate(self, target: CertificateTarget) -> Cleanup:
        """Delete what an issuance made, its rehearsal first and the Secret last; what is not ours stays.

        Raises ApplicationError.
        """
        request = target.request
        hostname, namespace = request.hostname, request.gateway.namespace
        gone = await remove_shadow(self._cluster, request)
        for place in (
            *targets.challenge_places(request),
            Place(CERT_MANAGER, "Certificate", namespace, names.certificate_name(hostname)),
            targets.gateway_place(request),
        ):
            there = await kubernetes.read(self._cluster, *place)
            ours = there is not None and claims.is_ours(there, request)
            if ours and await kubernetes.remove(self._cluster, *place):
                gone.append(str(place))
        name = names.secret_name(hostname)
        secret = await kubernetes.read(self._cluster, "v1", "Secret", namespace, name)
        ours = diagnosis.secret_collision(secret, names.certificate_name(hostname)) is None
        if ours and await kubernetes.remove(self._cluster, "v1", "Secret", namespace, name):
            gone.append(f"Secret {namespace}/{name}")
        return Cleanup(removed=tuple(gone))

    def _watch(self, target: CertificateTarget) -> IssuanceWatch:
        return IssuanceWatch(
            self._cluster,
            target.request,
            previous=target.previous_fingerprint,
            diagnose=partial(stalled, self._cluster, target.request),
            tell=self._tells(target),
        )

    def _tells(self, target: CertificateTarget) -> Callable[[Standstill], Awaitable[bool]] | None:
        return partial(standstill.tell, self._temporal, target.request.hostname) if self._temporal else None

    @staticmethod
    def _turn(target: CertificateTarget) -> QuotaTurn | None:
        """The grant for this order; one by another issuer is not meant by it."""
        turn = target.turn
        return turn if turn is not None and turn.issuer == target.request.issuer else None

    async def _is_over(self, target: CertificateTarget, turn: QuotaTurn) -> bool:
        """Whether the grant is over before anything was ordered with it."""
        if not turns.too_late(turn, datetime.now(UTC)):
            return False
        namespace, name = target.request.gateway.namespace, names.certificate_name(target.request.hostname)
        return await kubernetes.read(self._cluster, CERT_MANAGER, "Certificate", namespace, name) is None

    async def _collisions(self, target: CertificateTarget) -> tuple[Finding, ...]:
        request = target.request
        namespace, hostname = request.gateway.namespace, request.hostname
        wanted = (
            ("v1", "Secret", names.secret_name(hostname)),
            (CERT_MANAGER, "Certificate", names.certificate_name(hostname)),
        )
        secret, certificate, gateway = await asyncio.gather(
            *(kubernetes.read(self._cluster, version, kind, namespace, name) for version, kind, name in wanted),
            kubernetes.read(self._cluster, *targets.gateway_place(request)),
        )
        return tuple(
            filter(
                None,
                (
                    diagnosis.secret_collision(secret, names.certificate_name(hostname)),
                    claims.object_collision(certificate, request),
                    claims.object_collision(gateway, request),
                ),
            )
        )

    async def _passwords(self, target: CertificateTarget) -> tuple[Finding, ...]:
        """Keystores whose password is not there: cert-manager would wait for it without a word in the status.

        Only whether the key holds anything is looked at.
        """
        certificate, found = target.request.certificate, []
        namespace = target.request.gateway.namespace
        for store in dict.fromkeys(filter(None, (certificate.jks, certificate.pkcs12))):
            secret = await kubernetes.read(self._cluster, "v1", "Secret", namespace, store.secret)
            if not ((secret or {}).get("data") or {}).get(store.key):
                found.append(diagnosis.keystore_password_missing(store, namespace, there=secret is not None))
        return tuple(dict.fromkeys(found))


def _turn_over(target: CertificateTarget, turn: QuotaTurn) -> Finding:
    at = f"{turn.at:%Y-%m-%d %H:%M:%S} UTC" if turn.at else "now"
    return findings.QUOTA_TURN_OVER.found(
        subject=target.request.hostname,
        problem=f"Its turn at the CA was until {at}, and nothing was ordered by then.",
        fix="Nothing to do: the quota is asked for another turn.",
    )
