"""Put a domain's certificate on the gateway, and take it off again.

Left out: whether the edge really serves it (`activities.edge`).
"""

from __future__ import annotations

import asyncio

from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity

from activities import kubernetes, lookups
from activities.issuance import ISTIO, read_secret, secret_missing
from lifecycle import claims, findings, manifests, names
from lifecycle.domain import GatewayTarget
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


class GatewayActivities:
    """Activities on Gateways and VirtualServices, given the cluster's client."""

    def __init__(self, cluster: DynamicClient) -> None:
        self._cluster = cluster

    async def inspect_secret(self, target: CertificateTarget) -> IssuanceResult:
        """Whether the Secret parses, matches its key, and covers the names. Raises ApplicationError."""
        facts, problems = await read_secret(self._cluster, target.request)
        if facts is None and not problems:
            problems = (secret_missing(target.request),)
        return IssuanceResult(ready=not findings.errors(problems), secret=facts, findings=problems)

    @activity.defn
    async def bind_gateway(self, target: CertificateTarget) -> BindingResult:
        """Apply the routes, then the Gateway's port 443; not bound where the Secret is unfit or others hold the names.

        Raises ApplicationError.
        """
        request = target.request
        namespace = request.gateway.namespace
        inspected, *there = await asyncio.gather(
            self.inspect_secret(target),
            kubernetes.read(self._cluster, ISTIO, "Gateway", namespace, names.gateway_name(request.hostname)),
            kubernetes.read(
                self._cluster, ISTIO, "VirtualService", namespace, names.virtual_service_name(request.hostname)
            ),
        )
        taken = tuple(filter(None, (claims.object_collision(one, request) for one in there)))
        if taken or not inspected.ready:
            return BindingResult(bound=False, findings=(*inspected.findings, *taken))
        await kubernetes.apply(self._cluster, manifests.virtual_service(request))
        await kubernetes.apply(self._cluster, manifests.gateway(request, https=True))
        return BindingResult(bound=True)

    @activity.defn
    async def unbind_gateway(self, target: CertificateTarget) -> Cleanup:
        """Back to port 80 alone, which later challenges need, and no routes; what is not ours stays.

        Raises ApplicationError.
        """
        request = target.request
        namespace, gone = request.gateway.namespace, []
        name = names.gateway_name(request.hostname)
        gateway = await kubernetes.read(self._cluster, ISTIO, "Gateway", namespace, name)
        if gateway is not None and claims.is_ours(gateway, request):
            await kubernetes.apply(self._cluster, manifests.gateway(request, https=False))
            gone.append(f"port 443 of Gateway {namespace}/{name}")
        name = names.virtual_service_name(request.hostname)
        routes = await kubernetes.read(self._cluster, ISTIO, "VirtualService", namespace, name)
        ours = routes is not None and claims.is_ours(routes, request)
        if ours and await kubernetes.remove(self._cluster, ISTIO, "VirtualService", namespace, name):
            gone.append(f"VirtualService {namespace}/{name}")
        return Cleanup(removed=tuple(gone))
