"""Rehearse one issuance: the same specification at the issuer's counterpart, its shadow removed whatever came of it.

Made anew, after a killed worker too, it goes on with the shadow that is there; where the real Certificate is there
already the rehearsal was before it. Left out: whether one is due (`lifecycle.rehearsal`), and the real order
(`activities.certificates`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

from kubernetes.aio.dynamic import DynamicClient

from activities import kubernetes
from activities.diagnosis import stalled
from activities.issuance import CERT_MANAGER, IssuanceWatch
from lifecycle import claims, diagnosis, findings, names, rehearsal
from lifecycle.domain import IssuerRef, OnboardingRequest, Rehearsal
from lifecycle.manifests import Manifest
from lifecycle.steps import IssuanceResult, Standstill
from lifecycle.targets import Place

_PAGE = 50
"""Certificates in one answer: one of them is enough, and where an issuer is in use the first page has it."""


class RehearsalWatch:
    """One rehearsal; `words` says what is waited for, and `tell` hears why it stands still."""

    def __init__(
        self,
        cluster: DynamicClient,
        request: OnboardingRequest,
        tell: Callable[[Standstill], Awaitable[bool]] | None = None,
    ) -> None:
        self._cluster = cluster
        self._request = request
        self._tell = tell
        self._watch: IssuanceWatch | None = None
        self._at = ""

    @property
    def words(self) -> str:
        """What is waited for, for people; empty where nothing is rehearsed."""
        return f"rehearsal at {self._at}: {self._watch.words}" if self._watch is not None else ""

    async def run(self, before: Callable[[], Awaitable[None]]) -> IssuanceResult | None:
        """What came of it, with one line of evidence; None where nothing is to be rehearsed.

        `before` makes what challenges need. Cancelled it leaves its shadow to `remove_shadow`. Raises ApplicationError.
        """
        request = self._request
        at = await self._stage()
        if at is None:
            return None
        name = names.rehearsal_name(request.hostname)
        found = await self._collisions(name)
        if found:
            return rehearsal.failed(request, at, IssuanceResult(ready=False, findings=found))
        await before()
        await kubernetes.apply(self._cluster, rehearsal.shadow(request, at))
        self._at = at.name
        self._watch = IssuanceWatch(
            self._cluster,
            rehearsal.rehearsed(request, at),
            name=name,
            secret=name,
            diagnose=partial(stalled, self._cluster, request, name),
            tell=self._tell,
        )
        result = await self._watch.run()
        self._watch = None
        await remove_shadow(self._cluster, request)
        if not result.ready or result.secret is None:
            return rehearsal.failed(request, at, result)
        seen = rehearsal.observed(at, result.secret, result.ready_seconds, datetime.now(UTC))
        return IssuanceResult(ready=True, evidence=(seen,))

    async def _stage(self) -> IssuerRef | None:
        """Where it is rehearsed; None where it is not, or was before."""
        request = self._request
        if request.rehearsal is Rehearsal.NEVER:
            return None
        ref = request.issuer
        issuer = await kubernetes.read(self._cluster, CERT_MANAGER, ref.kind.value, ref.namespace, ref.name)
        if rehearsal.counterpart(issuer) is None:
            return None
        real = names.certificate_name(request.hostname)
        if await kubernetes.read(self._cluster, CERT_MANAGER, "Certificate", request.gateway.namespace, real):
            return None
        first = request.rehearsal is Rehearsal.FIRST
        return rehearsal.stage_of(request, issuer, await self._proof(ref) if first else ())

    async def _proof(self, issuer: IssuerRef) -> list[Manifest]:
        """Certificates by which the issuer has proved itself, as far as they must be read."""
        async for page in kubernetes.pages(self._cluster, CERT_MANAGER, "Certificate", size=_PAGE):
            if rehearsal.has_proved_itself(issuer, page):
                return page
        return []

    async def _collisions(self, name: str) -> tuple[findings.Finding, ...]:
        namespace = self._request.gateway.namespace
        certificate = await kubernetes.read(self._cluster, CERT_MANAGER, "Certificate", namespace, name)
        secret = await kubernetes.read(self._cluster, "v1", "Secret", namespace, name)
        return tuple(
            filter(
                None,
                (claims.object_collision(certificate, self._request), diagnosis.secret_collision(secret, name)),
            )
        )


async def remove_shadow(cluster: DynamicClient, request: OnboardingRequest) -> list[str]:
    """Delete what a rehearsal made, in words; its requests, Orders and Challenges go with their owner.

    Raises ApplicationError.
    """
    namespace, name = request.gateway.namespace, names.rehearsal_name(request.hostname)
    gone = []
    place = Place(CERT_MANAGER, "Certificate", namespace, name)
    certificate = await kubernetes.read(cluster, *place)
    ours = certificate is not None and rehearsal.is_shadow(certificate) and claims.is_ours(certificate, request)
    if ours and await kubernetes.remove(cluster, *place):
        gone.append(str(place))
    place = Place("v1", "Secret", namespace, name)
    secret = await kubernetes.read(cluster, *place)
    ours = secret is not None and diagnosis.secret_collision(secret, name) is None
    if ours and await kubernetes.remove(cluster, *place):
        gone.append(str(place))
    return gone
