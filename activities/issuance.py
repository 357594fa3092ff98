"""Watch one issuance to its end, and keep its challenges reachable meanwhile.

Three watches, one loop: the Certificate decides, its Orders and Challenges say how far it is and what must be routed.
Started again, it takes up what the cluster shows. Left out: who asks for the issuance (`activities.certificates`,
`activities.renewals`), and why one failed (`lifecycle.diagnosis`).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from kubernetes.aio.dynamic import DynamicClient
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from lifecycle import diagnosis, findings, issuance, mending, names, order_outcome, pacing, solvers, targets, x509
from lifecycle.diagnosing import Diagnosis
from lifecycle.diagnosis import said
from lifecycle.domain import CertificateFacts, Observation, OnboardingRequest, QuotaTurn
from lifecycle.findings import Finding
from lifecycle.issuance import Progress
from lifecycle.manifests import ChallengeRoute, Manifest
from lifecycle.quota import Outcome
from lifecycle.steps import IssuanceResult, Standstill

CERT_MANAGER = "cert-manager.io/v1"
ACME = "acme.cert-manager.io/v1"

_FIRST_PAUSE, _PAUSE = 0.5, 2.0
"""Seconds without an event after which it is looked whether somebody is missing; soon after the start, since whoever
takes this up again may find nothing moving."""

_MISSING_SECONDS = 5.0
"""The Certificate was applied before: where the watch does not show it by then, it is gone."""

_CONTROLLER_SECONDS = _SOLVERS_SECONDS = 5.0
"""Between looks at cert-manager's Deployment, and at the solvers' Services: cert-manager deletes those and makes others
where it found several of one challenge, as it does after the API server was away."""

_STILL_SECONDS = 15.0
_AGAIN_SECONDS = 120.0
"""Without progress for so long, and then so often, it is looked what is to blame: some dozen lists each time."""
_LONG_SECONDS = 10.0
_MOST_EVIDENCE = 12

_CONTROLLER = "app.kubernetes.io/name=cert-manager,app.kubernetes.io/component=controller"
"""Labels of the chart's Deployment."""


async def read_secret(
    cluster: DynamicClient, request: OnboardingRequest, name: str = ""
) -> tuple[CertificateFacts | None, tuple[Finding, ...]]:
    """The facts of a domain's TLS Secret and what is wrong with it; no bytes leave. Raises ApplicationError.

    `name` of another Secret than the domain's own.
    """
    name = name or names.secret_name(request.hostname)
    subject = f"Secret {request.gateway.namespace}/{name}"
    secret = await kubernetes.read(cluster, "v1", "Secret", request.gateway.namespace, name)
    data = (secret or {}).get("data") or {}
    if "tls.crt" not in data or "tls.key" not in data:
        return None, ()
    chain, key = (base64.b64decode(data[part]) for part in ("tls.crt", "tls.key"))
    return x509.secret_findings(
        chain,
        key,
        request.hostnames,
        subject=subject,
        now=datetime.now(UTC),
        wanted=request.certificate,
        parts=frozenset(part for part, value in data.items() if value),
    )


def secret_missing(request: OnboardingRequest) -> Finding:
    """The finding that there is no usable Secret."""
    namespace, name = request.gateway.namespace, names.secret_name(request.hostname)
    return findings.SECRET_MISSING.found(
        subject=f"Secret {namespace}/{name}",
        problem="The Secret is not there, or holds no tls.crt and tls.key.",
        fix=f"kubectl describe certificate -n {namespace} {names.certificate_name(request.hostname)}",
    )


class IssuanceWatch:
    """One issuance as it is watched: the Certificate, its Orders and Challenges, and the route they need."""

    def __init__(
        self,
        cluster: DynamicClient,
        request: OnboardingRequest,
        *,
        previous: str = "",
        known_failures: int = 0,
        begins_within: float | None = None,
        diagnose: Callable[[], Awaitable[Diagnosis]] | None = None,
        tell: Callable[[Standstill], Awaitable[bool]] | None = None,
        name: str = "",
        secret: str = "",
    ) -> None:
        """Of a renewal: the certificate it replaces, failures that are not its own, and seconds until it must begin.

        `diagnose` is asked what is to blame where nothing moves, and after a failure; `tell` hears each change of it.
        `name` and `secret` are of a Certificate and a Secret that are not the domain's own.
        """
        self._cluster = cluster
        self._request = request
        self._previous = previous
        self._known_failures = known_failures
        self._begins_within = begins_within
        self._namespace = request.gateway.namespace
        self._name = name or names.certificate_name(request.hostname)
        self._secret = secret
        self._certificate: Manifest | None = None
        self._deleted = False
        self._began: datetime | None = None
        self._issuing_seen = False
        self._orders: dict[str, Manifest] = {}
        self._challenges: dict[str, Manifest] = {}
        self._open: dict[str, float] = {}
        self._routes: dict[str, ChallengeRoute] = {}
        self._routed: tuple[ChallengeRoute, ...] | None = None
        self._evidence: list[Observation] = []
        self._words = "waiting for cert-manager to look at the Certificate"
        self._started = self._controllers_looked_at = self._solvers_looked_at = 0.0
        self._diagnose = diagnose
        self._tell = tell
        self._cause: Finding | None = None
        self._told: tuple[str, str] | None = None
        self._said: dict[str, str] = {}
        self._moved = self._diagnosed_at = 0.0

    @property
    def words(self) -> str:
        """What is waited for, for people."""
        now = _now()
        why = f"; {self._cause.subject}: {self._cause.problem}" if self._cause is not None else ""
        for uid, since in self._open.items():
            hostname, seen = self._challenges[uid]["spec"]["dnsName"], _state(self._challenges[uid])
            waited = f" for {now - since:.0f} s" if now - since > _LONG_SECONDS else ""
            # the cause goes before the challenge's own words: what is long is cut
            return said(f"waiting{waited} for the challenge of {hostname}{why}: {seen or 'not presented yet'}")
        return said(f"{self._words}{why}")

    async def run(self) -> IssuanceResult:
        """What came of it; where it failed no challenge is routed any more.

        Raises ApplicationError: a missing permission for good, broken surroundings (the cluster, cert-manager or the
        CA does not answer) to be tried again.
        """
        self._started = self._moved = _now()
        follow = kubernetes.follow
        async with kubernetes.merged(
            follow(self._cluster, CERT_MANAGER, "Certificate", self._namespace, name=self._name),
            follow(self._cluster, ACME, "Order", self._namespace),
            follow(self._cluster, ACME, "Challenge", self._namespace),
        ) as events:
            pause = _FIRST_PAUSE
            while True:
                quiet = False
                try:
                    event = await asyncio.wait_for(events.get(), pause)
                except TimeoutError:
                    quiet, pause = True, _PAUSE
                else:
                    if isinstance(event, Exception):
                        raise event
                    self._take(*event)
                if events.empty():
                    result = await self._decide()
                    if result is not None:
                        return result
                if quiet:
                    await self._blame()

    def outcome(self, turn: QuotaTurn, *, issued: bool) -> Outcome:
        """What came of the order, as far as it was seen."""
        return order_outcome.outcome(
            turn.request_id,
            self._orders.values(),
            self._challenges.values(),
            since=turn.since,
            issued=issued,
            now=datetime.now(UTC),
        )

    def _take(self, change: str, item: Manifest) -> None:
        metadata = item["metadata"]
        match item["kind"]:
            case "Certificate":
                self._deleted = change == "DELETED"
                self._certificate = item
                self._began = issuance.issuing_since(item) or self._began
            case "Order" if (metadata.get("annotations") or {}).get(issuance.CERTIFICATE_NAME) == self._name:
                self._orders[metadata["uid"]] = item
                self._saw(f"Order {metadata['name']}", _state(item) or "made")
            case "Challenge" if self._is_ours(item):
                uid = metadata["uid"]
                self._challenges[uid] = item
                self._saw(f"Challenge for {item['spec']['dnsName']}", _state(item) or change.lower())
                if change == "DELETED":
                    self._open.pop(uid, None)
                    self._routes.pop(uid, None)
                else:
                    self._open.setdefault(uid, _now())

    def _is_ours(self, challenge: Manifest) -> bool:
        """An Order's name begins with that of its CertificateRequest, and that with its Certificate's."""
        owners = [owner["name"] for owner in challenge["metadata"].get("ownerReferences") or []]
        hostname = issuance.proved_name(challenge)
        return hostname in self._request.hostnames and any(name.startswith(f"{self._name}-") for name in owners)

    def _saw(self, step: str, detail: str) -> None:
        detail = said(detail)  # a failed self-check quotes its URL, token and all
        self._words = f"{step}: {detail}" if detail else step
        if self._said.get(step) != detail:
            self._said[step], self._moved = detail, _now()
        if len(self._evidence) < _MOST_EVIDENCE and all(
            (step, detail) != (seen.step, seen.detail) for seen in self._evidence
        ):
            self._evidence.append(Observation(at=datetime.now(UTC), step=step, detail=detail))

    async def _decide(self) -> IssuanceResult | None:
        await self._route_challenges()
        item = self._certificate
        if item is None or self._deleted:
            if self._deleted or _now() - self._started > _MISSING_SECONDS:
                return await self._ended(self._gone())
            return None
        seen = issuance.certificate_progress(item)
        self._issuing_seen = self._issuing_seen or seen.issuing
        self._saw("Certificate", seen.reason or seen.progress.value)
        if seen.progress is Progress.READY:
            facts, problems = await read_secret(self._cluster, self._request, self._secret)
            told = facts is not None and seen.not_after in (None, facts.not_after)
            if facts is not None and facts.fingerprint != self._previous and told:
                return await self._issued(item, facts, problems, seen.renewal_at)
        failed = seen.progress is Progress.FAILED or (
            bool(self._previous) and not seen.issuing and seen.failed_at is not None
        )
        if failed and seen.failures > self._known_failures:
            return await self._ended(*await self._why(item), issuance.failure(item))
        late = self._begins_within is not None and _now() - self._started > self._begins_within
        if late and not self._issuing_seen:
            return await self._ended(self._not_begun())
        return None  # where the Secret is read between its write and the status', the status' change comes yet

    async def _issued(
        self, item: Manifest, facts: CertificateFacts, problems: tuple[Finding, ...], renewal_at: datetime | None
    ) -> IssuanceResult:
        now = datetime.now(UTC)
        await self._route(())
        orders = await kubernetes.listed(self._cluster, ACME, "Order", self._namespace)
        orders = sorted(
            (order for order in orders if issuance.belongs(order, item)),
            key=lambda order: str(order["metadata"]["creationTimestamp"]),
        )
        return IssuanceResult(
            ready=not findings.errors(problems),
            secret=facts,
            renewal_at=renewal_at,
            order=orders[-1]["metadata"]["name"] if orders else "",
            orders=len(orders),
            ready_seconds=issuance.ready_seconds(item, self._began if self._previous else None, now),
            findings=problems,
            evidence=tuple(self._evidence),
        )

    async def _ended(self, *found: Finding) -> IssuanceResult:
        """Nothing came of it; the nearest cause first, each told once."""
        await self._route(())
        orders = sorted(self._orders.values(), key=lambda order: str(order["metadata"]["creationTimestamp"]))
        return IssuanceResult(
            ready=False,
            order=orders[-1]["metadata"]["name"] if orders else "",
            orders=len(orders),
            findings=tuple(dict.fromkeys(found)),
            evidence=tuple(self._evidence),
            cause_seen=pacing.cause_seen(found),
        )

    async def _why(self, item: Manifest) -> tuple[Finding, ...]:
        requests = await kubernetes.listed(self._cluster, CERT_MANAGER, "CertificateRequest", self._namespace)
        orders = await kubernetes.listed(self._cluster, ACME, "Order", self._namespace)
        challenges = {one["metadata"]["uid"]: one for one in self._challenges.values()}
        for one in await kubernetes.listed(self._cluster, ACME, "Challenge", self._namespace):
            challenges[one["metadata"]["uid"]] = one
        present = issuance.parts(item, requests, orders, challenges.values())
        found = diagnosis.issuance_findings(item, *present)
        seen = await self._ask()
        nearer = seen.cause if seen is not None and findings.errors(seen.findings) else None
        known = {one.code for one in found}
        return (nearer, *found) if nearer is not None and nearer.code not in known else found

    async def _ask(self) -> Diagnosis | None:
        """What is to blame; None where it cannot be told."""
        if self._diagnose is None:
            return None
        self._diagnosed_at = _now()
        try:
            return await self._diagnose()
        except ApplicationError:
            return None  # whoever waits goes on waiting: this was only to say for what

    def _gone(self) -> Finding:
        return findings.ISSUANCE_FAILED.found(
            subject=f"Certificate {self._namespace}/{self._name}",
            problem="The Certificate is not there: it was deleted while it was waited for.",
            fix=f"certwright check {self._request.hostname}",
        )

    def _not_begun(self) -> Finding:
        return findings.RENEWAL_NOT_SEEN.found(
            subject=f"Certificate {self._namespace}/{self._name}",
            problem="cert-manager has not begun to renew it.",
            fix=f"kubectl describe certificate -n {self._namespace} {self._name}; "
            f"certwright renew {self._request.hostname}",
        )

    async def _blame(self) -> None:
        """Nothing moves: where that is somebody's fault, say so by failing; a next attempt goes on from here."""
        if self._certificate is None:
            return
        await self._explain()
        controllers: int | None = None
        if _now() - self._controllers_looked_at > _CONTROLLER_SECONDS:
            self._controllers_looked_at = _now()
            controllers = await self._controllers()
        orders = [order for order in self._orders.values() if issuance.belongs(order, self._certificate)]
        words = issuance.silence(self._certificate, orders, controllers=controllers, now=datetime.now(UTC))
        waits = self._previous and not self._issuing_seen  # until the renewal begins nobody owes anything
        if words and not waits:
            raise ApplicationError(words, type="IssuanceStalled")

    async def _explain(self) -> None:
        """Say what is to blame where nothing has moved for long; what moves explains itself."""
        now = _now()
        if now - self._moved < _STILL_SECONDS or (self._previous and not self._issuing_seen):
            if self._moved > self._diagnosed_at:
                await self._blames(Standstill())
            return
        if not self._diagnosed_at or self._diagnosed_at < self._moved or now - self._diagnosed_at > _AGAIN_SECONDS:
            seen = await self._ask()
            since = datetime.now(UTC) - timedelta(seconds=now - self._moved)
            await self._blames(mending.standstill(seen, self._request.hostname, since) if seen else Standstill())

    async def _blames(self, standstill: Standstill) -> None:
        """Keep what is to blame, and tell it where it is another than was told before."""
        cause = self._cause = standstill.cause
        named = (cause.code, cause.subject) if cause is not None else None
        if self._tell is not None and named != self._told and await self._tell(standstill):
            self._told = named

    async def _controllers(self) -> int | None:
        """How many of cert-manager's controllers are available; None where that cannot be seen."""
        try:
            found = await kubernetes.listed(self._cluster, "apps/v1", "Deployment", "", label_selector=_CONTROLLER)
        except ApplicationError:
            return None
        return sum((one.get("status") or {}).get("availableReplicas") or 0 for one in found) if found else None

    async def _route_challenges(self) -> None:
        """One exact path for each challenge that cert-manager has presented; no route without one."""
        presented = [uid for uid in self._open if _needs_route(self._challenges[uid])]
        looked = _now() - self._solvers_looked_at < _SOLVERS_SECONDS
        if presented and not (looked and all(uid in self._routes for uid in presented)):
            self._solvers_looked_at = _now()
            solvers_of = await self._solvers()
            for uid in presented:
                self._take_solver(uid, solvers_of.get(uid, ()))
        if self._routed is not None or self._routes:
            await self._route(tuple(self._routes.values()))

    def _take_solver(self, challenge: str, services: Sequence[str]) -> None:
        """Route to one of the Services; a route to another one leads nowhere any more."""
        known = self._routes.get(challenge)
        if services and (known is None or known.service not in services):
            spec = self._challenges[challenge]["spec"]
            self._routes[challenge] = ChallengeRoute(
                hostname=spec["dnsName"], token=spec["token"], service=services[0], namespace=self._namespace
            )

    async def _solvers(self) -> dict[str, list[str]]:
        """Of each challenge, by uid, the names of the Services that cert-manager has made for it and not deleted."""
        found: dict[str, list[str]] = {}
        services = await kubernetes.listed(
            self._cluster, "v1", "Service", self._namespace, label_selector="acme.cert-manager.io/http01-solver=true"
        )
        for metadata in (service["metadata"] for service in services):
            if not metadata.get("deletionTimestamp"):
                for owner in metadata.get("ownerReferences") or []:
                    found.setdefault(owner["uid"], []).append(str(metadata["name"]))
        return found

    async def _route(self, routes: tuple[ChallengeRoute, ...]) -> None:
        if routes == self._routed:
            return
        wanted = targets.challenge_routes(self._request, routes)
        for manifest in wanted:
            await kubernetes.apply(self._cluster, manifest)
        for place in set(targets.challenge_places(self._request)) - set(map(targets.place, wanted)):
            await kubernetes.remove(self._cluster, *place)
        self._routed = routes


def _needs_route(challenge: Manifest) -> bool:
    """Whether it is presented, and neither by a DNS record nor through a route that cert-manager makes itself."""
    presented = (challenge.get("status") or {}).get("presented")
    return bool(presented and solvers.needs_route(challenge["spec"].get("solver") or {}))


def _state(item: Manifest) -> str:
    status = item.get("status") or {}
    return " ".join(str(status.get(part, "")) for part in ("state", "reason")).strip()


def _now() -> float:
    return asyncio.get_running_loop().time()
