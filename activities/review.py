"""One pass over all certificates: read the three clocks of each and wake the domains that need something.

Certificates, Secrets and workflows are listed in pages, and of each only a few facts are kept; the edge is asked by
TLS handshakes alone. Certificates that are not ours have two clocks, both in their status, so that no Secret outside
the gateways' namespaces is read. Left out: what the clocks say and who is woken (`lifecycle.renewal`), and everything
that a woken domain does.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity
from temporalio.client import Client, RPCError, WorkflowExecution, WorkflowExecutionStatus
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCStatusCode

from activities import kubernetes
from activities.attended import attended
from activities.edge import EdgeSettings, handshake
from activities.gateways import gateway_addresses
from lifecycle import edge, findings, names, queues, renewal, x509
from lifecycle.diagnosis import said
from lifecycle.domain import CertificateFacts, GatewayTarget
from lifecycle.edge import EdgeEvidence
from lifecycle.findings import Finding, Severity
from lifecycle.issuance import certificate_progress
from lifecycle.manifests import DOMAIN_ANNOTATION, Manifest
from lifecycle.rehearsal import NO_SHADOWS
from lifecycle.renewal import Clocks, ClockVerdict, KnownDomain
from lifecycle.steps import FleetReviewReport, FleetReviewRequest, Wake

_AT_ONCE = 32
"""Handshakes, and calls to Temporal, under way at the same time."""

_MOST_NAMED = 50
"""Domains and findings in the report: it lies in a workflow's history."""

_CALL_SECONDS = 10.0
"""One call to Temporal."""

_DOMAINS = "WorkflowType = 'DomainOnboarding' AND ExecutionStatus = 'Running'"

_PHASE = SearchAttributeKey.for_keyword(queues.DOMAIN_PHASE.name)
_SERVING = SearchAttributeKey.for_keyword(queues.SERVING_STATUS.name)
_GATEWAY = SearchAttributeKey.for_keyword(queues.GATEWAY.name)
_NOT_AFTER = SearchAttributeKey.for_datetime(queues.NOT_AFTER.name)
_NEXT_CHECK_AT = SearchAttributeKey.for_datetime(queues.NEXT_CHECK_AT.name)

_LOUDEST = {verdict: number for number, verdict in enumerate(ClockVerdict)}
_DUE = {ClockVerdict.DUE, ClockVerdict.DIAGNOSE, ClockVerdict.ALERT, ClockVerdict.PAGE}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What is kept of one Certificate. `domain` is empty where it is not ours."""

    namespace: str
    name: str
    secret: str
    domain: str
    not_before: datetime | None
    not_after: datetime | None
    renewal_at: datetime | None
    issuing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """A domain's running workflow as visibility lists it. `gateway` is ``namespace/service`` or empty."""

    known: KnownDomain
    gateway: str


class ReviewActivities:
    """The fleet's review, given the cluster's and Temporal's clients and how the edge is reached."""

    def __init__(self, cluster: DynamicClient, temporal: Client, settings: EdgeSettings) -> None:
        self._cluster = cluster
        self._temporal = temporal
        self._edge = settings

    @activity.defn
    async def review_fleet(self, request: FleetReviewRequest) -> FleetReviewReport:
        """Look at every Certificate and wake the domains that need something; heartbeats say how far it is.

        Raises ApplicationError where the cluster or Temporal refuses or does not answer; a second pass wakes again
        only those that have not looked since.
        """
        one_pass = _Pass(self._cluster, self._temporal, self._edge, request)
        return await attended(one_pass.run(), one_pass.words)


class _Pass:
    """One review while it goes on."""

    def __init__(
        self, cluster: DynamicClient, temporal: Client, settings: EdgeSettings, request: FleetReviewRequest
    ) -> None:
        self._cluster = cluster
        self._temporal = temporal
        self._edge = settings
        self._request = request
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._reading = asyncio.Lock()
        self._addresses: dict[tuple[str, str], tuple[str, ...]] = {}
        self._verdicts: Counter[ClockVerdict] = Counter()
        self._findings: list[tuple[int, Finding]] = []
        self._woken: list[str] = []
        self._certificates = 0
        self._reviewed = 0

    def words(self) -> str:
        """How far it is, for the heartbeat."""
        return f"{self._reviewed} of {self._certificates} certificates reviewed, {len(self._woken)} domains woken"

    async def run(self) -> FleetReviewReport:
        began = time.monotonic()
        ours: dict[str, dict[str, list[_Seen]]] = defaultdict(lambda: defaultdict(list))
        async for page in kubernetes.pages(
            self._cluster,
            "cert-manager.io/v1",
            "Certificate",
            label_selector=NO_SHADOWS,  # they live for seconds, and no gateway serves them
            size=self._request.page_size,
        ):
            now = datetime.now(UTC)
            self._certificates += len(page)
            for seen in map(_seen, page):
                if seen.domain:
                    ours[seen.namespace][seen.secret].append(seen)
                else:
                    self._review_foreign(seen, now)
        counted = sum(len(sharing) for secrets in ours.values() for sharing in secrets.values())
        if counted:
            await self._review_ours(ours, await self._listed())
        loudest = sorted(self._findings, key=lambda entry: (-entry[0], entry[1].code, entry[1].subject))
        return FleetReviewReport(
            certificates=self._certificates,
            ours=counted,
            woken=tuple(sorted(self._woken)[:_MOST_NAMED]),
            more_woken=max(0, len(self._woken) - _MOST_NAMED),
            due=sum(self._verdicts[verdict] for verdict in _DUE),
            expired=self._verdicts[ClockVerdict.EXPIRED],
            stale_at_edge=self._verdicts[ClockVerdict.STALE_AT_EDGE],
            findings=tuple(finding for _, finding in loudest[:_MOST_NAMED]),
            more_findings=max(0, len(loudest) - _MOST_NAMED),
            seconds=round(time.monotonic() - began, 3),
        )

    # --- certificates -------------------------------------------------------------------------------------------------

    def _review_foreign(self, seen: _Seen, now: datetime) -> None:
        """Somebody else's: two clocks, as its status tells them. One that was never issued has none."""
        self._reviewed += 1
        if seen.not_after is None or seen.not_before is None:
            return
        told = CertificateFacts(
            fingerprint="",
            serial="",
            issuer="",
            dns_names=(),
            not_before=seen.not_before,
            not_after=seen.not_after,
            public_key="",
        )
        subject = f"Certificate {seen.namespace}/{seen.name}"
        self._take(renewal.review(Clocks(subject=subject, secret=told, renewal_at=seen.renewal_at), now))

    async def _review_ours(self, ours: dict[str, dict[str, list[_Seen]]], listed: dict[str, _Listed]) -> None:
        """Ours, namespace by namespace, as the pages of Secrets come."""
        for namespace, wanted in ours.items():
            async for page in kubernetes.pages(
                self._cluster,
                "v1",
                "Secret",
                namespace,
                field_selector="type=kubernetes.io/tls",
                size=self._request.page_size,
            ):
                # parsing hundreds of certificates takes long enough to starve the heartbeat
                facts = await asyncio.to_thread(_facts, page, frozenset(wanted))
                del page  # the keys in it are not kept while domains are asked
                await asyncio.gather(
                    *(self._review_domain(seen, read, listed) for name, read in facts for seen in wanted.pop(name))
                )
            await asyncio.gather(
                *(self._review_domain(seen, None, listed) for sharing in wanted.values() for seen in sharing)
            )

    async def _review_domain(self, seen: _Seen, facts: CertificateFacts | None, listed: dict[str, _Listed]) -> None:
        now = datetime.now(UTC)
        domain = listed.get(names.domain_id(seen.domain)) or await self._unlisted(seen)
        if facts is None:
            # before its first certificate a domain has none, and is at it
            if domain is None or domain.known.not_after is not None:
                self._tell(
                    findings.SECRET_MISSING.found(
                        subject=f"Secret {seen.namespace}/{seen.secret}",
                        problem=f"{seen.domain} was issued a certificate, and its Secret is missing or unreadable.",
                        fix=f"kubectl describe certificate -n {seen.namespace} {seen.name}",
                    )
                )
            if domain is not None and (reason := renewal.wake_reason_without_secret(domain.known, now)):
                await self._wake(seen, Wake(reason=reason, at=now))
        else:
            served: list[str] = []
            unreached = 0
            if domain is not None and self._request.probe_edge and renewal.serves(domain.known):
                served, unreached = await self._served(seen, domain)
            clocks = Clocks(
                subject=seen.domain,
                secret=facts,
                renewal_at=seen.renewal_at,
                served=tuple(served),
                unreached=unreached,
                issuing=seen.issuing,
            )
            verdict = renewal.review(clocks, now)
            self._take(verdict)
            if domain is not None and (reason := renewal.wake_reason(clocks, verdict, domain.known)):
                await self._wake(
                    seen, Wake(reason=reason, at=now, fingerprint=facts.fingerprint, renewing=seen.issuing)
                )
        self._reviewed += 1

    def _take(self, verdict: renewal.Review) -> None:
        self._verdicts[verdict.verdict] += 1
        for finding in verdict.findings:
            self._tell(finding, _LOUDEST[verdict.verdict])

    def _tell(self, finding: Finding, loud: int = 0) -> None:
        # errors before warnings, and among them by how loud the clocks are
        self._findings.append((loud + (100 if finding.severity is Severity.ERROR else 0), finding))

    # --- the edge -----------------------------------------------------------------------------------------------------

    async def _served(self, seen: _Seen, domain: _Listed) -> tuple[list[str], int]:
        """The fingerprints that the gateway's addresses present for the domain, and how many present none.

        Its first name alone: all its names are of one Gateway with one Secret.
        """
        answers = await asyncio.gather(
            *(self._presented(seen.domain, address) for address in await self._gateway(seen, domain))
        )
        return [answer for answer in answers if answer], sum(not answer for answer in answers)

    async def _gateway(self, seen: _Seen, domain: _Listed) -> tuple[str, ...]:
        """The addresses that may be dialled of the domain's gateway, read once in a pass."""
        target = self._request.gateway
        namespace, _, service = domain.gateway.partition("/")
        place = (namespace or seen.namespace, service or target.service)
        async with self._reading:
            known = self._addresses.get(place)
            if known is None:
                known = await self._dialled(GatewayTarget(namespace=place[0], service=place[1]))
                self._addresses[place] = known
        return known

    async def _dialled(self, target: GatewayTarget) -> tuple[str, ...]:
        addresses = await gateway_addresses(self._cluster, target, self._edge.nameservers)
        subject = f"Service {target.namespace}/{target.service}"
        if not addresses:
            self._tell(
                findings.GATEWAY_ADDRESS_MISSING.found(
                    subject=subject,
                    problem="It has no address, so no edge was looked at.",
                    fix="Wait for its load balancer, or set spec.externalIPs.",
                )
            )
        allowed = tuple(address for address in addresses if self._edge.allows(address))
        for address in sorted(set(addresses) - set(allowed)):
            self._judge(EdgeEvidence(address=address, hostname=subject, refused=True))
        return allowed

    async def _presented(self, hostname: str, address: str) -> str:
        """The fingerprint of the leaf that an address presents; empty where it presents none."""
        async with self._limit:
            try:
                chain, _, _ = await handshake(self._edge, address, hostname)
            except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError) as error:
                self._judge(EdgeEvidence(address=address, hostname=hostname, handshake=type(error).__name__))
                return ""
            except (OSError, TimeoutError) as error:
                self._judge(EdgeEvidence(address=address, hostname=hostname, unreachable=type(error).__name__))
                return ""
        return hashlib.sha256(chain[0]).hexdigest()

    def _judge(self, evidence: EdgeEvidence) -> None:
        _, wrong = edge.served(evidence, "", http_port=self._edge.http_port, https_port=self._edge.https_port)
        if wrong is not None:
            self._tell(wrong)

    # --- Temporal -----------------------------------------------------------------------------------------------------

    async def _listed(self) -> dict[str, _Listed]:
        """The running domains by workflow id."""
        try:
            return {execution.id: _known(execution) async for execution in self._temporal.list_workflows(_DOMAINS)}
        except RPCError as error:
            raise _away(error) from None

    async def _unlisted(self, seen: _Seen) -> _Listed | None:
        """A domain that no list has: lists lag behind, so its workflow is asked for; None where there is none."""
        handle = self._temporal.get_workflow_handle(names.domain_id(seen.domain))
        try:
            async with self._limit, asyncio.timeout(_CALL_SECONDS):
                execution = await handle.describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise _away(error) from None
        else:
            if execution.status is WorkflowExecutionStatus.RUNNING:
                return _known(execution)
        self._unattended(seen)
        return None

    async def _wake(self, seen: _Seen, wake: Wake) -> None:
        handle = self._temporal.get_workflow_handle(names.domain_id(seen.domain))
        try:
            async with self._limit, asyncio.timeout(_CALL_SECONDS):
                await handle.signal("wake", wake)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise _away(error) from None
            self._unattended(seen)
        else:
            self._woken.append(seen.domain)

    def _unattended(self, seen: _Seen) -> None:
        self._tell(
            findings.DOMAIN_UNATTENDED.found(
                subject=seen.domain,
                problem=f"Certificate {seen.namespace}/{seen.name} is its, and no workflow attends to it.",
                fix=f"certwright onboard {seen.domain}; or kubectl delete certificate -n {seen.namespace} {seen.name}",
            )
        )


def _seen(certificate: Manifest) -> _Seen:
    metadata, status = certificate["metadata"], certificate.get("status") or {}

    def at(field: str) -> datetime | None:
        return datetime.fromisoformat(status[field]) if status.get(field) else None

    return _Seen(
        namespace=str(metadata["namespace"]),
        name=str(metadata["name"]),
        secret=str(certificate["spec"]["secretName"]),
        domain=str((metadata.get("annotations") or {}).get(DOMAIN_ANNOTATION, "")),
        not_before=at("notBefore"),
        not_after=at("notAfter"),
        renewal_at=at("renewalTime"),
        issuing=certificate_progress(certificate).issuing,
    )


def _facts(page: Iterable[Manifest], wanted: frozenset[str]) -> list[tuple[str, CertificateFacts]]:
    """The facts of the wanted Secrets of a page; one without a certificate is passed over, as if it were missing."""
    read = []
    for secret in page:
        name = secret["metadata"]["name"]
        if name in wanted:
            try:
                chain = base64.b64decode((secret.get("data") or {}).get("tls.crt", ""))
                read.append((name, x509.facts(chain)))
            except ValueError:
                continue
    return read


def _known(execution: WorkflowExecution) -> _Listed:
    attributes = execution.typed_search_attributes
    return _Listed(
        known=KnownDomain(
            phase=attributes.get(_PHASE) or "",
            serving=attributes.get(_SERVING) or "",
            not_after=attributes.get(_NOT_AFTER),
            next_check_at=attributes.get(_NEXT_CHECK_AT),
        ),
        gateway=attributes.get(_GATEWAY) or "",
    )


def _away(error: RPCError) -> ApplicationError:
    return ApplicationError(f"Temporal does not answer: {said(error.message)}", type="TemporalUnreachable")
