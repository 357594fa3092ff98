"""See one renewal through: the new certificate in the Secret, and on every address of the gateway.

One activity, so that a renewal is a few events of a domain's history. Left out: when a renewal is due, and how bad it
is that one did not come (`lifecycle.escalation`).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from activities import kubernetes, standstill
from activities.attended import attended
from activities.diagnosis import stalled
from activities.edge import EdgeActivities, EdgeSettings, Look
from activities.issuance import CERT_MANAGER, IssuanceWatch, read_secret
from activities.preflight import PreflightActivities
from activities.turns import Quotas
from lifecycle import findings, issuance, manifests, names, pacing
from lifecycle.findings import Finding
from lifecycle.issuance import CertificateProgress
from lifecycle.quota import Exemption, Outcome, PastOrder
from lifecycle.registered_domain import registered_domains
from lifecycle.steps import IssuanceResult, RenewalRequest, RenewalResult

_BEGINS_WITHIN = 30.0
"""cert-manager takes up a due renewal within a second; a review may be a little ahead of it."""

_LONGEST_WAIT = 2.0
"""Of the second that must lie between a failure and the next wish, also where the clocks differ."""

_WRITES = 5
"""Tries to set the condition: another write came between reading and writing, which each time is less likely."""


class RenewalActivities:
    """The activity that renews, given the cluster's client, how the edge is reached, and who looks before an order.

    With Temporal's client a domain is told why its renewal stands still, with the quotas these what came of it.
    """

    def __init__(
        self,
        cluster: DynamicClient,
        settings: EdgeSettings,
        preflight: PreflightActivities,
        temporal: Client | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        self._cluster = cluster
        self._temporal = temporal
        self._edge = EdgeActivities(cluster, settings)
        self._preflight = preflight
        self._quotas = quotas

    @activity.defn
    async def see_renewal_through(self, renewal: RenewalRequest) -> RenewalResult:
        """Wait for a certificate other than the current one, then look whether the edge serves it everywhere.

        With `force` cert-manager is asked to renew first, as `cmctl renew` does; also where the last renewal failed,
        its pause is over and nothing stands against an order any more. Else a renewal that has not begun after 30 s is
        told as not seen. Raises ApplicationError as `await_certificate` does.
        """
        through = _Renewal(self._cluster, self._edge, self._preflight, renewal, self._temporal, self._quotas)
        return await attended(through.run(), lambda: through.words)


class _Renewal:
    """One renewal under way."""

    def __init__(
        self,
        cluster: DynamicClient,
        edge: EdgeActivities,
        preflight: PreflightActivities,
        renewal: RenewalRequest,
        temporal: Client | None,
        quotas: Quotas | None,
    ) -> None:
        self._quotas = quotas
        self._cluster = cluster
        self._temporal = temporal
        self._edge = edge
        self._preflight = preflight
        self._renewal = renewal
        self._watch: IssuanceWatch | None = None
        self._look: Look | None = None

    @property
    def words(self) -> str:
        """What is waited for, for people."""
        if self._look is not None:
            return self._look.words
        return self._watch.words if self._watch is not None else "looking whether cert-manager is to be asked to renew"

    async def run(self) -> RenewalResult:
        result = await self._renewed()
        if not result.ready:
            return RenewalResult(issuance=replace(result, look_at=await self._look_at()))
        self._look = Look()
        return RenewalResult(issuance=result, edge=await self._edge.verify(self._renewal.request, self._look))

    async def _renewed(self) -> IssuanceResult:
        """The new certificate; the quota hears of it, as what came of its grant or as an order without one."""
        turn, account = self._renewal.turn, self._renewal.account
        if self._quotas is None:
            return await self._watched()
        result = await self._quotas.telling(turn, self._watched(), self._outcome, lambda result: result.ready)
        if turn is None and account and result.ready:
            names_now = self._renewal.request.hostnames
            past = PastOrder(
                at=datetime.now(UTC),
                hostnames=names_now,
                registered_domains=registered_domains(names_now),
                exemption=Exemption.RENEWAL,
            )
            await self._quotas.learn(account, past)
        return result

    def _outcome(self, issued: bool) -> Outcome:
        assert self._renewal.turn is not None
        if self._watch is None:  # it was not even asked for
            return Outcome(request_id=self._renewal.turn.request_id)
        return self._watch.outcome(self._renewal.turn, issued=issued)

    async def _watched(self) -> IssuanceResult:
        asked, against = (True, ()) if self._renewal.force else await self._mended()
        known_failures = await self._ask() if asked else 0
        self._watch = IssuanceWatch(
            self._cluster,
            self._renewal.request,
            previous=self._renewal.current_fingerprint,
            known_failures=known_failures,
            begins_within=None if asked else _BEGINS_WITHIN,
            diagnose=partial(stalled, self._cluster, self._renewal.request),
            tell=partial(standstill.tell, self._temporal, self._renewal.request.hostname) if self._temporal else None,
        )
        result = await self._watch.run()
        if result.ready:
            return result
        return replace(result, findings=tuple(dict.fromkeys((*against, *result.findings))))

    async def _mended(self) -> tuple[bool, tuple[Finding, ...]]:
        """Whether the last renewal failed and its cause is gone, so that cert-manager need not wait for hours.

        And what stands against it where it is not gone. Not before its pause is over (`lifecycle.pacing`).
        """
        failed = await self._failed()
        if failed is None or failed.failed_at is None or failed.issuing:
            return False, ()
        if datetime.now(UTC) < pacing.next_renewal(failed.failures, failed.failed_at):
            return False, ()
        report = await self._preflight.look(self._renewal.request)
        return report.may_proceed, findings.errors(report.findings)

    async def _look_at(self) -> datetime | None:
        """When to look again whether a failed renewal may be asked for; None where none has failed."""
        failed = await self._failed()
        if failed is None or failed.failed_at is None:
            return None
        return pacing.next_look(failed.failures, failed.failed_at, datetime.now(UTC))

    async def _failed(self) -> CertificateProgress | None:
        request = self._renewal.request
        name = names.certificate_name(request.hostname)
        item = await kubernetes.read(self._cluster, CERT_MANAGER, "Certificate", request.gateway.namespace, name)
        return issuance.certificate_progress(item) if item is not None else None

    async def _ask(self) -> int:
        """Set the `Issuing` condition, once; returns how many issuances had failed in a row before.

        Not where the Secret is new already, where an issuance is under way, or where the one that this activity asked
        for has failed since. Raises ApplicationError.
        """
        request = self._renewal.request
        namespace, name = request.gateway.namespace, names.certificate_name(request.hostname)
        for _ in range(_WRITES):
            facts, _ = await read_secret(self._cluster, request)
            if facts is not None and facts.fingerprint != self._renewal.current_fingerprint:
                return 0
            item = await kubernetes.read(self._cluster, CERT_MANAGER, "Certificate", namespace, name)
            if item is None:
                await kubernetes.apply(self._cluster, manifests.certificate(request))
                continue
            seen = issuance.certificate_progress(item)
            scheduled = activity.info().scheduled_time.replace(microsecond=0)  # as exact as cert-manager's times
            if seen.failed_at is not None and activity.info().attempt > 1 and seen.failed_at >= scheduled:
                return 0
            now = datetime.now(UTC)
            asked_at = max(now, issuance.askable_at(item) or now)
            await asyncio.sleep(min((asked_at - now).total_seconds(), _LONGEST_WAIT))
            conditions = issuance.issuing_by_hand(item, asked_at)
            if conditions is None or await kubernetes.set_conditions(self._cluster, item, conditions):
                return seen.failures
            await asyncio.sleep(0.2)
        raise ApplicationError(
            f"Certificate {name} changes faster than its renewal can be asked for", type="ClusterUnreachable"
        )
