"""Look at everything that a Certificate's issuance passes through, once.

All reads are bounded, and what may not be read is told as such. The webhook is tried by a dry run, which stores
nothing. Addresses are dialled only where the edge's settings allow it. Left out: what is wrong
(`lifecycle.diagnosing`), and doing anything about it (`activities.remedies`).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError
from temporalio.exceptions import ApplicationError

from activities import edge as edges
from activities import kubernetes, lookups
from activities.caa import gather_caa
from activities.challenge_path import presented_challenge_path
from activities.delegation import gather_delegations
from activities.edge import EdgeSettings
from activities.gateways import gateway_addresses
from activities.issuance import ACME, CERT_MANAGER
from activities.permissions import account_may
from activities.trust import expected_roots
from lifecycle import edge, findings, gateway_api, issuance, manifests, names, solvers, x509
from lifecycle.caa import CaaClimb
from lifecycle.challenge_path import PathAnswer
from lifecycle.delegation import Delegation, dns_challenge
from lifecycle.diagnosing import CONTROLLER_NEEDS
from lifecycle.diagnosis import said
from lifecycle.domain import (
    DEFAULT_GATEWAY,
    CertificateFacts,
    GatewayKind,
    GatewayTarget,
    IssuerKind,
    ServedAt,
)
from lifecycle.findings import Finding
from lifecycle.manifests import FIELD_MANAGER, Manifest
from lifecycle.observed import host_matches, hosts_of
from lifecycle.platform import Permission, refused_permission
from lifecycle.snapshot import (
    FINAL_STATES,
    Document,
    Snapshot,
    annotation,
    concerns,
    controlled,
    issuer_of,
    parents_of,
    request_of,
    tls_of,
)

T = TypeVar("T")

ISTIO, SECURITY, SLICES = "networking.istio.io/v1", "security.istio.io/v1", "discovery.k8s.io/v1"

_MOST_PAGES = 20
"""Of 500 objects each: a namespace with more than ten thousand requests is not read to its end."""

_MOST_NAMES, _MOST_PROBES = 20, 40

_FORM_OF_ANSWERS = {
    kind.code
    for kind in (
        findings.EDGE_ACCEPTS_FORBIDDEN,
        findings.EDGE_REFUSES_ALLOWED,
        findings.EDGE_REDIRECT_WRONG,
        findings.ROUTE_NOT_ANSWERING,
    )
}

_SOLVER = "acme.cert-manager.io/http01-solver=true"
_PARTS = (
    "app.kubernetes.io/component in (controller,webhook,cainjector),"
    "app.kubernetes.io/name in (cert-manager,webhook,cainjector)"
)
_CONTROLLER = "app.kubernetes.io/name=cert-manager,app.kubernetes.io/component=controller"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosisSettings:
    """How the gateway and the customers' names are looked at; `dns_timeout` in seconds.

    `outside` False leaves out what lies outside the cluster: name servers, and dialling the gateway. `caa_identities`
    are the CA's names in CAA records, where its directory is not a known one.
    """

    edge: EdgeSettings
    gateway: GatewayTarget = DEFAULT_GATEWAY
    nameservers: tuple[str, ...] = ()
    dns_timeout: float = 3.0
    cname_target: str = ""
    caa_identities: tuple[str, ...] = ()
    outside: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePlace:
    """Which Certificate is meant; `asked` is the hostname that led to it, empty where it was named itself."""

    namespace: str
    name: str
    asked: str = ""


async def find_certificate(cluster: DynamicClient, hostname: str, gateway: GatewayTarget) -> CertificatePlace:
    """The Certificate of a hostname: ours, else one that has the name; ours by name where there is none.

    Raises ApplicationError.
    """
    ours = CertificatePlace(namespace=gateway.namespace, name=names.certificate_name(hostname), asked=hostname)
    if await kubernetes.read(cluster, CERT_MANAGER, "Certificate", ours.namespace, ours.name) is not None:
        return ours
    found = [
        one
        for one in await _bounded(cluster, CERT_MANAGER, "Certificate", "")
        if hostname in (one["spec"].get("dnsNames") or ())
    ]
    found.sort(key=lambda one: (not annotation(one, manifests.DOMAIN_ANNOTATION), one["metadata"]["namespace"]))
    if not found:
        return ours
    metadata = found[0]["metadata"]
    return CertificatePlace(namespace=metadata["namespace"], name=metadata["name"], asked=hostname)


async def look(cluster: DynamicClient, place: CertificatePlace, settings: DiagnosisSettings) -> Snapshot:
    """One snapshot. Raises ApplicationError where the cluster does not answer."""
    return await _Look(cluster, place, settings).snapshot()


@dataclass(slots=True)
class _Look:
    cluster: DynamicClient
    place: CertificatePlace
    settings: DiagnosisSettings
    unseen: list[Finding] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)

    async def snapshot(self) -> Snapshot:
        namespace, name, gateway = self.place.namespace, self.place.name, self.settings.gateway
        certificate = await self._read(CERT_MANAGER, "Certificate", namespace, name)
        domain = annotation(certificate, manifests.DOMAIN_ANNOTATION) if certificate else ""
        api_gateway: Manifest | None = None
        if domain:
            own = names.gateway_name(domain)
            api_gateway = await self._read(gateway_api.VERSION, "Gateway", gateway.namespace, own)
        if api_gateway is not None:
            gateway = replace(gateway, kind=GatewayKind.GATEWAY_API)
        first = Snapshot(
            now=datetime.now(UTC),
            namespace=namespace,
            name=name,
            asked=self.place.asked,
            gateway=gateway,
            certificate=certificate,
            cname_target=self.settings.cname_target,
        )
        hostnames = first.hostnames
        no_addresses: tuple[str, ...] = ()
        certificates, requests, orders, challenges, pods, services, events = await asyncio.gather(
            self._list(CERT_MANAGER, "Certificate", namespace),
            self._list(CERT_MANAGER, "CertificateRequest", namespace),
            self._list(ACME, "Order", namespace),
            self._list(ACME, "Challenge", namespace),
            self._list("v1", "Pod", namespace, _SOLVER),
            self._list("v1", "Service", namespace, _SOLVER),
            self._list("v1", "Event", namespace, fields="type=Warning"),
        )
        routes, gateways, policies, deployments, controllers = await asyncio.gather(
            self._list(ISTIO, "VirtualService", ""),
            self._list(ISTIO, "Gateway", ""),
            self._list(SECURITY, "AuthorizationPolicy", gateway.namespace),
            self._list("apps/v1", "Deployment", "", _PARTS),
            self._list("v1", "Pod", "", _CONTROLLER, what="controllers"),
        )
        addressed = gateway_addresses(self.cluster, gateway, self.settings.nameservers)
        addresses = await self._looked("gateway", addressed, no_addresses)
        webhook = await self._webhook()
        challenges = [one for one in challenges if concerns(one, name, hostnames)]
        owners = {owner["uid"] for one in challenges for owner in one["metadata"].get("ownerReferences") or ()}
        orders = [one for one in orders if concerns(one, name, ()) or one["metadata"]["uid"] in owners]
        requests = [one for one in requests if concerns(one, name, ())]
        slices = await self._slices(namespace, services, challenges)
        issuer, issuer_namespaces = await self._issuer(certificate)
        secret_owner, facts, problems = await self._secret(certificate, hostnames)
        http_routes, parents_missing = await self._http_routes(api_gateway is not None, challenges)
        gateways = [one for one in gateways if _serves_any(one, hostnames)]
        credentials = await self._credentials(gateways)
        chain = [*filter(None, (certificate, issuer)), *requests, *orders, *challenges, *pods, *services]
        uids = {one["metadata"]["uid"] for one in chain}
        asked = hostnames[:_MOST_NAMES] if self.settings.outside else ()
        answers, caa = await asyncio.gather(
            lookups.ask(asked, self.settings.nameservers, self.settings.dns_timeout), self._caa(issuer, asked)
        )
        told, served = await self._edge(first, gateways, api_gateway, addresses, facts)
        return Snapshot(
            now=first.now,
            namespace=namespace,
            name=name,
            asked=first.asked,
            gateway=gateway,
            certificate=certificate,
            cname_target=first.cname_target,
            certificates=tuple(
                one
                for one in certificates
                if certificate is not None
                and one["metadata"]["name"] != name
                and one["spec"].get("secretName") == certificate["spec"]["secretName"]
            ),
            requests=tuple(requests),
            orders=tuple(orders),
            challenges=tuple(challenges),
            orders_seen="Order" not in self.hidden,
            issuer=issuer,
            issuer_seen="Issuer" not in self.hidden and "ClusterIssuer" not in self.hidden,
            issuer_namespaces=issuer_namespaces,
            solver_pods=tuple(pods),
            solver_services=tuple(services),
            endpoint_slices=tuple(slices),
            solver_seen=not {"Pod", "Service"} & self.hidden,
            endpoints_seen="EndpointSlice" not in self.hidden,
            routes_seen=not {"VirtualService", "HTTPRoute"} & self.hidden,
            http_routes=tuple(http_routes),
            parents_missing=parents_missing,
            api_gateway=api_gateway,
            routes=tuple(one for one in routes if set(one["spec"].get("hosts") or ()) & set(hostnames)),
            gateways=tuple(gateways),
            policies=tuple(policies),
            deployments=None if "Deployment" in self.hidden else tuple(deployments),
            controllers=tuple(controllers),
            controller_denied=() if first.settled else await self._controller_denied(certificate, controllers),
            webhook=webhook,
            events=tuple(one for one in events if one["involvedObject"].get("uid") in uids),
            secret_seen="Secret" not in self.hidden,
            secret_owner=secret_owner,
            secret=facts,
            secret_findings=problems,
            credentials=credentials,
            accounts_denied=await self._denied(gateways),
            answers=answers,
            caa=caa,
            caa_identities=self.settings.caa_identities,
            gateway_addresses=addresses,
            delegations=await self._delegations(challenges),
            path=await self._path(challenges, addresses),
            edge=told,
            served=served,
            unseen=tuple(dict.fromkeys(self.unseen)),
        )

    async def _delegations(self, challenges: Sequence[Document]) -> tuple[Delegation, ...]:
        asked = [
            dns_challenge(one["spec"]["dnsName"], one["spec"]["solver"])
            for one in challenges
            if self.settings.outside and (one["spec"].get("solver") or {}).get("dns01") is not None
        ]
        unique = tuple(dict.fromkeys(asked))[:_MOST_NAMES]
        return await gather_delegations(unique, self.settings.nameservers, self.settings.dns_timeout)

    async def _looked(self, kind: str, work: Coroutine[Any, Any, T], otherwise: T) -> T:
        """What may not be looked at is remembered as hidden; a kind that the cluster does not have is just empty."""
        try:
            return await work
        except ApplicationError as error:
            told = kubernetes.told_by(error)
            if not told:
                raise
            self.hidden.add(kind)
            if error.type != "KindMissing" or kind == "Certificate":
                self.unseen.extend(told)
            return otherwise

    async def _read(self, api_version: str, kind: str, namespace: str, name: str) -> Manifest | None:
        return await self._looked(kind, kubernetes.read(self.cluster, api_version, kind, namespace, name), None)

    async def _list(
        self, api_version: str, kind: str, namespace: str, labels: str = "", *, fields: str = "", what: str = ""
    ) -> list[Manifest]:
        """`what` tells apart lists of one kind, where being kept from one says nothing of the other."""
        return await self._looked(
            what or kind, _bounded(self.cluster, api_version, kind, namespace, labels=labels, fields=fields), []
        )

    async def _issuer(self, certificate: Document | None) -> tuple[Manifest | None, tuple[str, ...]]:
        ref = issuer_of(certificate) if certificate is not None else None
        if ref is None:
            return None, ()
        found = await self._read(CERT_MANAGER, ref.kind.value, ref.namespace, ref.name)
        if found is not None or ref.kind is IssuerKind.CLUSTER_ISSUER:
            return found, ()
        there = await self._list(CERT_MANAGER, "Issuer", "", fields=f"metadata.name={ref.name}")
        return None, tuple(one["metadata"]["namespace"] for one in there)

    async def _caa(self, issuer: Document | None, hostnames: tuple[str, ...]) -> tuple[CaaClimb, ...]:
        """Of an ACME issuer's names only: others ask nobody's DNS."""
        if not ((issuer or {}).get("spec") or {}).get("acme"):
            return ()
        return await gather_caa(hostnames, self.settings.nameservers, self.settings.dns_timeout)

    async def _http_routes(
        self, gateway_api_used: bool, challenges: list[Manifest]
    ) -> tuple[list[Manifest], frozenset[str]]:
        """HTTPRoutes that may lead to a solver, and the Gateways (``namespace/name``) that they name in vain."""
        by_routes = any(solvers.makes_http_route(one["spec"].get("solver") or {}) for one in challenges)
        places = {self.settings.gateway.namespace} if gateway_api_used else set()
        places |= {self.place.namespace} if by_routes else set()
        lists = await asyncio.gather(*(self._list(gateway_api.VERSION, "HTTPRoute", one) for one in sorted(places)))
        routes = [route for found in lists for route in found]
        theirs = [one for one in routes if any(controlled(one, challenge) for challenge in challenges)]
        parents = sorted({parent for one in theirs for parent in parents_of(one)})[:_MOST_NAMES]
        there = await asyncio.gather(
            *(self._read(gateway_api.VERSION, "Gateway", *parent.split("/")) for parent in parents)
        )
        if "Gateway" in self.hidden:
            return routes, frozenset()
        return routes, frozenset(parent for parent, one in zip(parents, there, strict=True) if one is None)

    async def _slices(self, namespace: str, services: list[Manifest], challenges: list[Manifest]) -> list[Manifest]:
        wanted = [one["metadata"]["name"] for one in services if any(controlled(one, owner) for owner in challenges)]
        if not wanted:
            return []
        selector = f"kubernetes.io/service-name in ({','.join(wanted[:_MOST_NAMES])})"
        return await self._list(SLICES, "EndpointSlice", namespace, selector)

    async def _secret(
        self, certificate: Document | None, hostnames: tuple[str, ...]
    ) -> tuple[str | None, CertificateFacts | None, tuple[Finding, ...]]:
        """The owner that the Secret names and the facts of its certificate; no bytes leave."""
        if certificate is None:
            return None, None, ()
        namespace, name = self.place.namespace, certificate["spec"]["secretName"]
        secret = await self._read("v1", "Secret", namespace, name)
        if secret is None:
            return None, None, ()
        owner, data = annotation(secret, issuance.CERTIFICATE_NAME), secret.get("data") or {}
        if not data.get("tls.crt") or not data.get("tls.key") or not hostnames:
            return owner, None, ()
        chain, key = (base64.b64decode(data[part]) for part in ("tls.crt", "tls.key"))
        now, subject = datetime.now(UTC), f"Secret {namespace}/{name}"
        facts, problems = x509.secret_findings(chain, key, hostnames, subject=subject, now=now)
        return owner, facts, problems

    async def _credentials(self, gateways: Iterable[Document]) -> frozenset[str]:
        """Those that Gateways name and the gateway's namespace does not have."""
        named = sorted({name for one in gateways for name in _credentials_of(one)})[:_MOST_NAMES]
        namespace = self.settings.gateway.namespace
        there = await asyncio.gather(*(self._read("v1", "Secret", namespace, name) for name in named))
        if "Secret" in self.hidden:
            return frozenset()
        return frozenset(name for name, secret in zip(named, there, strict=True) if secret is None)

    async def _denied(self, gateways: list[Manifest]) -> tuple[str, ...]:
        """ServiceAccounts of the gateway's Pods that may not list Secrets, as istiod asks before it hands any out."""
        if not any(_credentials_of(one) for one in gateways):
            return ()
        gateway = self.settings.gateway
        labels = ",".join(f"{key}={value}" for key, value in gateway.selector)
        pods = await self._list("v1", "Pod", gateway.namespace, labels, what="gateway")
        secrets = Permission("list", "", "secrets", "")
        accounts = sorted({str(pod["spec"].get("serviceAccountName") or "default") for pod in pods})
        may = await asyncio.gather(
            *(self._may(f"{gateway.namespace}/{one}", gateway.namespace, secrets) for one in accounts)
        )
        return tuple(f"{gateway.namespace}/{one}" for one, allowed in zip(accounts, may, strict=True) if not allowed)

    async def _controller_denied(
        self, certificate: Document | None, controllers: list[Manifest]
    ) -> tuple[tuple[str, Permission], ...]:
        """What cert-manager needs for an issuance in this namespace, and may not do."""
        if certificate is None or not controllers:
            return ()
        pod = controllers[0]
        account = f"{pod['metadata']['namespace']}/{pod['spec'].get('serviceAccountName') or 'default'}"
        place = self.place.namespace
        first = await self._may(account, place, CONTROLLER_NEEDS[0])  # alone: perhaps we may not ask at all
        others = await asyncio.gather(*(self._may(account, place, one) for one in CONTROLLER_NEEDS[1:]))
        may = (first, *others)
        return tuple((account, one) for one, allowed in zip(CONTROLLER_NEEDS, may, strict=True) if not allowed)

    async def _may(self, account: str, place: str, permission: Permission) -> bool:
        """Whether a ServiceAccount (``namespace/name``) may do something in a namespace; True where we cannot ask."""
        if "SubjectAccessReview" in self.hidden:
            return True
        wanted = permission._replace(namespace=place)
        return await self._looked("SubjectAccessReview", account_may(self.cluster, account, wanted), True)

    async def _webhook(self) -> str:
        """Why a dry-run create did not pass the webhook; empty where it did, or could not be tried."""
        namespace, name = self.place.namespace, "certwright-diagnosis"
        body = {
            "apiVersion": CERT_MANAGER,
            "kind": "Certificate",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"secretName": name, "dnsNames": ["diagnosis.certwright.dev"], "issuerRef": {"name": name}},
        }
        try:
            kind = await kubernetes.resource(self.cluster, CERT_MANAGER, "Certificate")
            async with kubernetes.answering(self.cluster, "dry-run create Certificate"):
                try:
                    await self.cluster.create(
                        kind,
                        body=body,
                        namespace=namespace,
                        dry_run="All",
                        field_manager=FIELD_MANAGER,
                        _request_timeout=kubernetes.CALL_SECONDS,
                    )
                except DynamicApiError as error:
                    words = str(error.summary())
                    # 500 is the API server's word for a webhook that failed; what is refused passed it, or RBAC did
                    return said(words) if error.status == 500 and not refused_permission(words) else ""
        except ApplicationError as error:
            return f"A dry-run create got no answer: {said(error.message)}" if "Timeout" in error.message else ""
        return ""

    async def _path(self, challenges: list[Manifest], addresses: tuple[str, ...]) -> tuple[PathAnswer, ...]:
        """What each address of the gateway answers to the path of each challenge that is presented."""
        if not self.settings.outside:
            return ()
        asked = [
            (str(one["spec"]["dnsName"]), str(one["spec"].get("token") or ""))
            for one in challenges
            if (one.get("status") or {}).get("presented")
            and one["spec"].get("type") == "HTTP-01"
            and one["status"].get("state") not in FINAL_STATES
        ][:_MOST_NAMES]
        edge_settings = self.settings.edge
        return await presented_challenge_path(
            asked,
            addresses,
            port=edge_settings.http_port,
            may_dial=edge_settings.allows,
            timeout_seconds=edge_settings.timeout_seconds,
        )

    async def _edge(
        self,
        first: Snapshot,
        gateways: list[Manifest],
        api_gateway: Manifest | None,
        addresses: tuple[str, ...],
        facts: CertificateFacts | None,
    ) -> tuple[tuple[Finding, ...], tuple[ServedAt, ...]]:
        """What the addresses serve for names whose Gateway has port 443; of others' domains no redirect is asked."""
        certificate = first.certificate
        if certificate is None or facts is None or not self.settings.outside:
            return (), ()
        bound = {
            host
            for one in gateways
            for server in one["spec"].get("servers") or ()
            if (server.get("tls") or {}).get("credentialName")
            for host in hosts_of(server)
        }
        bound |= {
            str(one.get("hostname") or "").lower()
            for one in (api_gateway or {}).get("spec", {}).get("listeners") or ()
            if (one.get("tls") or {}).get("certificateRefs")
        }
        hostnames = [name for name in first.hostnames if name in bound]
        tls = tls_of(gateways, api_gateway, certificate["spec"]["secretName"])
        request = replace(request_of(certificate, first.gateway), tls=tls)
        roots = self.settings.edge.roots_pem
        roots = await self._looked("roots", expected_roots(self.cluster, request, roots), roots)
        settings = replace(self.settings.edge, roots_pem=roots)
        pairs = [(address, name) for address in addresses for name in hostnames][:_MOST_PROBES]
        seen = await asyncio.gather(
            *(edges.probe(settings, request, address, name, facts.fingerprint) for address, name in pairs)
        )
        http, https = self.settings.edge.http_port, self.settings.edge.https_port
        judged = [edge.served(one, facts.fingerprint, http_port=http, https_port=https, tls=tls) for one in seen]
        # how others want their clients answered is their affair; which certificate is served is not
        theirs = set() if first.ours else _FORM_OF_ANSWERS
        told = tuple(one for _, one in judged if one is not None and one.code not in theirs)
        return told, tuple(
            replace(served, problem="") if one is not None and one.code in theirs else served for served, one in judged
        )


async def _bounded(
    cluster: DynamicClient, api_version: str, kind: str, namespace: str, *, labels: str = "", fields: str = ""
) -> list[Manifest]:
    """Objects of a namespace (empty: of all), no more than so many pages. Raises ApplicationError."""
    found: list[Manifest] = []
    pages = 0
    listing = kubernetes.pages(cluster, api_version, kind, namespace, label_selector=labels, field_selector=fields)
    async for page in listing:
        found += page
        pages += 1
        if pages >= _MOST_PAGES:
            await listing.aclose()  # type: ignore[attr-defined]
            break
    return found


def _serves_any(gateway: Document, hostnames: tuple[str, ...]) -> bool:
    hosts = {host for server in gateway["spec"].get("servers") or () for host in hosts_of(server)}
    return any(host_matches(host, name) for host in hosts for name in hostnames)


def _credentials_of(gateway: Document) -> set[str]:
    named = {str((one.get("tls") or {}).get("credentialName") or "") for one in gateway["spec"].get("servers") or ()}
    return {name for name in named if name and "://" not in name}
