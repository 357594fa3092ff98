"""Gather what must be right before a certificate is ordered: DNS, gateway, issuer, other claims, our own permissions.

Everything is asked at once, and what may not be read is a finding like the others. The same look is had without a
workflow by `certwright check`. Left out: the verdict (`lifecycle.preflight`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import foresight, kubernetes, lookups, permissions, turns
from activities.delegation import gather_delegations
from activities.gateways import gateway_addresses
from activities.issuance import CERT_MANAGER
from activities.scratch_record import ScratchRecords
from activities.turns import Quotas
from lifecycle import claims, edge, gateway_api, names, targets
from lifecycle.challenge_path import PathAnswer
from lifecycle.delegation import delegation_verdict, dns_challenges
from lifecycle.domain import GatewayKind, GatewayTarget, IssuerKind, IssuerRef, OnboardingRequest
from lifecycle.findings import Finding
from lifecycle.foresight import Acme, Foresight, acme_of
from lifecycle.issuers import solvers_of
from lifecycle.manifests import Manifest
from lifecycle.platform import Permission, gateway_api_permissions, required_permissions
from lifecycle.port_eighty import neighbours
from lifecycle.preflight import PreflightEvidence, preflight_report, without_quota
from lifecycle.quota import PastOrder
from lifecycle.quota_used import past_orders
from lifecycle.rate_limits import LimitsTable, limits_of
from lifecycle.rehearsal import stage_of
from lifecycle.routing import DnsAnswer
from lifecycle.steps import PreflightReport
from lifecycle.targets import ISTIO, Place

T = TypeVar("T")

_ACME = "acme.cert-manager.io/v1"

PERMISSIONS_SECONDS = 10.0
"""Having all permissions is believed for so long: some dozen questions for each look would be the most of its work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightSettings:
    """How customers' names are looked up.

    Attributes:
        nameservers: "ip:port" each, all of them asked; empty for the system's.
        cname_target: a name of ours that customers may alias theirs to; empty where they set addresses.
        timeout_seconds: for one question.
        http_port: of the gateway, where a challenge's path is tried.
        http_timeout_seconds: for one request there.
        allowed_networks: CIDRs that may be dialled although they are not public, as `EdgeSettings`.
        authority_port: of the zones' own name servers.
        caa_identities: the CA's names in CAA records, where its directory is not a known one.
        limits: of CAs, before those that are known.
        delegation_zone: ours, that customers' ``_acme-challenge`` records may lead to; empty where there is none.
    """

    nameservers: tuple[str, ...] = ()
    cname_target: str = ""
    timeout_seconds: float = 3.0
    http_port: int = 80
    http_timeout_seconds: float = 5.0
    allowed_networks: tuple[str, ...] = ()
    authority_port: int = 53
    caa_identities: tuple[str, ...] = ()
    limits: LimitsTable = field(default_factory=LimitsTable)
    delegation_zone: str = ""

    def may_dial(self, address: str) -> bool:
        """Whether an address may be dialled: a public one, or one in a listed network."""
        return edge.may_dial(address, self.allowed_networks)


class PreflightActivities:
    """The activities that look before anything is ordered, given the cluster's client."""

    def __init__(self, cluster: DynamicClient, settings: PreflightSettings, quotas: Quotas | None = None) -> None:
        """Without `quotas` nobody is asked for a turn."""
        self._cluster = cluster
        self._settings = settings
        self._quotas = quotas
        self._permitted: dict[tuple[str, GatewayKind], float] = {}
        self._scratch = ScratchRecords(
            cluster,
            nameservers=settings.nameservers,
            may_dial=settings.may_dial,
            timeout=settings.timeout_seconds,
            port=settings.authority_port,
        )

    @activity.defn
    async def check_preflight(self, request: OnboardingRequest) -> PreflightReport:
        """Whether an order may be made, with everything that stands against it; if it may, the quota is asked.

        Raises ApplicationError, to be tried again, where the cluster does not answer.
        """
        evidence, now = await self._gathered(request)
        report = self._report(request, evidence, now)
        ahead = evidence.ahead
        queued = without_quota(report)
        if self._quotas is None or not ahead.acme.server or not queued.may_proceed:
            return report
        asked = turns.new_turn(request, account=ahead.acme.account or ahead.acme.server, server=ahead.acme.server)

        def past() -> tuple[PastOrder, ...]:
            return past_orders(request, orders=ahead.orders, certificates=evidence.certificates, now=now)

        turn = await self._quotas.ask(request, asked, owner=activity.info().workflow_id or "", past=past)
        return replace(queued, turn=turn)

    @activity.defn
    async def check_again(self, request: OnboardingRequest) -> PreflightReport:
        """As `check_preflight`, for a domain that has its turn, or waits for it: the quota is not asked."""
        return without_quota(self._report(request, *await self._gathered(request)))

    async def look(self, request: OnboardingRequest, *, as_worker: bool = True) -> PreflightReport:
        """As `check_preflight`, by nobody who orders: the quota is not asked.

        Without `as_worker` whether the caller may do what a worker must is not asked either.
        """
        return self._report(request, *await self._gathered(request, as_worker=as_worker))

    async def _gathered(
        self, request: OnboardingRequest, *, as_worker: bool = True
    ) -> tuple[PreflightEvidence, datetime]:
        """Everything at once; writing a record is tried last.

        By a worker, which looks again and again for days, only where nothing else stands against an order.
        """
        cluster, settings = self._cluster, self._settings
        namespace, hostname = request.gateway.namespace, request.hostname
        unseen: list[Finding] = []

        async def looked(work: Coroutine[Any, Any, T], otherwise: T) -> T:
            try:
                return await work
            except ApplicationError as error:
                told = kubernetes.told_by(error)
                if not told:
                    raise
                unseen.extend(told)
                return otherwise

        def one(place: Place) -> Coroutine[Any, Any, Manifest | None]:
            return looked(kubernetes.read(cluster, *place), None)

        def every(api_version: str, kind: str, where: str) -> Coroutine[Any, Any, list[Manifest]]:
            return looked(kubernetes.listed(cluster, api_version, kind, where), [])

        nothing: tuple[str, ...] = ()
        no_permissions: tuple[Permission, ...] = ()
        gathered = await asyncio.gather(
            self._answers(request.hostnames),
            looked(gateway_addresses(cluster, request.gateway, settings.nameservers), nothing),
            one(Place("v1", "Secret", namespace, names.secret_name(hostname))),
            one(Place(CERT_MANAGER, "Certificate", namespace, names.certificate_name(hostname))),
            one(targets.gateway_place(request)),
            *(one(targets.place(route)) for route in targets.routes(request)),
        )
        answers, addresses, secret, *objects = gathered
        issuer_before = len(unseen)
        issuer = await looked(self._issuer(request.issuer), None)
        issuer_seen = len(unseen) == issuer_before
        certificates, gateways, virtual_services, denied, service = await asyncio.gather(
            every(CERT_MANAGER, "Certificate", ""),
            every(ISTIO, "Gateway", ""),
            every(ISTIO, "VirtualService", ""),
            looked(self._denied(request.gateway), no_permissions) if as_worker else _value(no_permissions),
            one(Place("v1", "Service", namespace, request.gateway.service)),
        )
        if request.gateway.kind is GatewayKind.GATEWAY_API:
            gateways += await every(gateway_api.VERSION, "Gateway", "")
        stage = None if objects[0] is not None else stage_of(request, issuer, certificates)  # it was rehearsed, or not
        stage_issuer = await looked(self._issuer(stage), None) if stage else None
        acme = acme_of(request, issuer, settings.caa_identities)
        limits = limits_of(acme.server, settings.limits)
        now = datetime.now(UTC)
        challenges = dns_challenges(request.hostnames, solvers_of(issuer)) if issuer else ()
        climbs, path, meshed, orders, delegations = await asyncio.gather(
            foresight.caa_climbs(acme, settings.nameservers, settings.timeout_seconds),
            self._path(acme, addresses),
            looked(foresight.meshed_pods(cluster), nothing),
            every(_ACME, "Order", "") if limits else _value([]),
            gather_delegations(challenges, settings.nameservers, settings.timeout_seconds),
        )
        _, _, *routes = objects
        bound = any(route is not None and claims.is_ours(route, request) for route in routes)
        ahead = Foresight(
            acme=acme,
            climbs=climbs,
            path=path,
            beside=neighbours(request, gateways, bound=bound, now=now),
            service=service,
            limits=limits,
            orders=tuple(orders),
            meshed=meshed,
            delegations=delegations,
        )
        evidence = PreflightEvidence(
            answers=answers,
            gateway_addresses=addresses,
            issuer=issuer,
            issuer_seen=issuer_seen,
            stage=stage,
            stage_issuer=stage_issuer,
            secret=secret,
            objects=tuple(objects),
            certificates=tuple(certificates),
            gateways=tuple(gateways),
            virtual_services=tuple(virtual_services),
            denied=denied,
            unseen=tuple(unseen),
            ahead=ahead,
        )
        if as_worker and not without_quota(self._report(request, evidence, now)).may_proceed:
            return evidence, now
        writable = delegation_verdict(delegations).writable
        scratch = await self._scratch.tried(writable, request.issuer)
        return replace(evidence, ahead=replace(ahead, scratch=scratch)), now

    def _report(self, request: OnboardingRequest, evidence: PreflightEvidence, now: datetime) -> PreflightReport:
        settings = self._settings
        return preflight_report(
            request,
            evidence,
            cname_target=settings.cname_target,
            now=now,
            delegation_zone=settings.delegation_zone,
        )

    async def _answers(self, hostnames: tuple[str, ...]) -> tuple[DnsAnswer, ...]:
        settings = self._settings
        return await lookups.ask_all(
            hostnames,
            settings.nameservers,
            settings.timeout_seconds,
            may_dial=settings.may_dial,
            port=settings.authority_port,
        )

    async def _path(self, acme: Acme, addresses: tuple[str, ...]) -> tuple[PathAnswer, ...]:
        settings = self._settings
        return await foresight.challenge_answers(
            acme,
            addresses,
            port=settings.http_port,
            may_dial=settings.may_dial,
            timeout_seconds=settings.http_timeout_seconds,
        )

    async def _issuer(self, ref: IssuerRef) -> Manifest | None:
        namespace = ref.namespace if ref.kind is IssuerKind.ISSUER else ""
        return await kubernetes.read(self._cluster, CERT_MANAGER, ref.kind.value, namespace, ref.name)

    async def _denied(self, target: GatewayTarget) -> tuple[Permission, ...]:
        now = asyncio.get_running_loop().time()
        place = (target.namespace, target.kind)
        if now < self._permitted.get(place, 0.0):
            return ()
        needed = required_permissions(target.namespace)
        if target.kind is GatewayKind.GATEWAY_API:
            needed += gateway_api_permissions(target.namespace)
        missing = await permissions.denied(self._cluster, needed)
        if not missing:
            self._permitted[place] = now + PERMISSIONS_SECONDS
        return missing


async def _value(value: T) -> T:
    """What needs no asking, where others are asked."""
    return value
