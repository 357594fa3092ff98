"""Put a domain's certificate on the gateway, and take it off again.

Left out: whether the edge really serves it (`activities.edge`).
"""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime

from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity

from activities import kubernetes, lookups
from activities.issuance import read_secret, secret_missing
from lifecycle import claims, client_ca, findings, targets
from lifecycle.domain import GatewayTarget, OnboardingRequest
from lifecycle.steps import BindingResult, CertificateTarget, Cleanup, IssuanceResult

_LOOKUP_SECONDS = 3.0


async def gateway_addresses(
    cluster: DynamicClient, target: GatewayTarget, nameservers: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The addresses that the gateway's Service shows: its load balancer's, else its external IPs.

    A load balancer that is given as a name is looked up at `nameservers` (empty: the system's). Raises
    ApplicationError.
    """
    service = await kubernetes.read(cluster, "v1", "Service", target.namespace, target.service)
    ingress = (((service or {}).get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    addresses = [str(entry["ip"]) for entry in ingress if entry.get("ip")]
    for entry in ingress:
        if entry.get("hostname") and not entry.get("ip"):
            addresses += await lookups.addresses_of(str(entry["hostname"]), nameservers, _LOOKUP_SECONDS)
    return tuple(dict.fromkeys(addresses or ((service or {}).get("spec") or {}).get("externalIPs") or ()))


async def read_client_ca(cluster: DynamicClient, request: OnboardingRequest) -> bytes:
    """The CA of clients' certificates (PEM), from the first Secret that has one; empty where none has.

    Raises ApplicationError.
    """
    for name in client_ca.secrets(request):
        secret = await kubernetes.read(cluster, "v1", "Secret", request.gateway.namespace, name)
        data = (secret or {}).get("data") or {}
        found = next((str(data[key]) for key in client_ca.KEYS if data.get(key)), "")
        if found:
            return base64.b64decode(found)
    return b""


class GatewayActivities:
    """Activities on Gateways and VirtualServices, given the cluster's client."""

    def __init__(self, cluster: DynamicClient) -> None:
        self._cluster = cluster

    async def inspect_secret(self, target: CertificateTarget) -> IssuanceResult:
        """Whether the Secret parses, matches its key and covers the names, and a CA for clients is there if needed.

        Raises ApplicationError.
        """
        facts, problems = await read_secret(self._cluster, target.request)
        if facts is None and not problems:
            problems = (secret_missing(target.request),)
        elif target.request.tls.asks_clients:
            authority = await read_client_ca(self._cluster, target.request)
            problems = (*problems, *client_ca.problems(authority, target.request, datetime.now(UTC)))
        return IssuanceResult(ready=not findings.errors(problems), secret=facts, findings=problems)

    @activity.defn
    async def bind_gateway(self, target: CertificateTarget) -> BindingResult:
        """Apply the routes, then the Gateway's port 443; not bound where the Secret is unfit or others hold the names.

        Raises ApplicationError.
        """
        request = target.request
        routes, gateway = targets.routes(request), targets.gateway(request, https=True)
        inspected, there = await asyncio.gather(
            self.inspect_secret(target),
            asyncio.gather(*(kubernetes.read(self._cluster, *targets.place(one)) for one in (*routes, gateway))),
        )
        taken = tuple(filter(None, (claims.object_collision(one, request) for one in there)))
        if taken or not inspected.ready:
            return BindingResult(bound=False, findings=(*inspected.findings, *taken))
        for manifest in (*routes, gateway):
            await kubernetes.apply(self._cluster, manifest)
        return BindingResult(bound=True)

    @activity.defn
    async def unbind_gateway(self, target: CertificateTarget) -> Cleanup:
        """Back to port 80 alone, which later challenges need, and no routes; what is not ours stays.

        Raises ApplicationError.
        """
        request = target.request
        gone = []
        place = targets.gateway_place(request)
        gateway = await kubernetes.read(self._cluster, *place)
        if gateway is not None and claims.is_ours(gateway, request):
            await kubernetes.apply(self._cluster, targets.gateway(request, https=False))
            gone.append(f"port 443 of {place}")
        for place in reversed([targets.place(route) for route in targets.routes(request)]):
            there = await kubernetes.read(self._cluster, *place)
            ours = there is not None and claims.is_ours(there, request)
            if ours and await kubernetes.remove(self._cluster, *place):
                gone.append(str(place))
        return Cleanup(removed=tuple(gone))
