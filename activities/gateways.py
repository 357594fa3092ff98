"""Put a domain's certificate on the gateway, and take it off again.

Left out: whether the edge really serves it (`activities.edge`).
"""

from __future__ import annotations

from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity

from activities import kubernetes
from activities.certificates import ISTIO, read_secret
from lifecycle import findings, manifests, names
from lifecycle.domain import GatewayTarget
from lifecycle.steps import BindingResult, CertificateTarget, Cleanup, IssuanceResult


async def gateway_addresses(cluster: DynamicClient, target: GatewayTarget) -> tuple[str, ...]:
    """The addresses that the gateway's Service shows: its load balancer's, else its external IPs."""
    service = await kubernetes.read(cluster, "v1", "Service", target.namespace, target.service)
    ingress = (((service or {}).get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    addresses = [str(entry["ip"]) for entry in ingress if "ip" in entry]
    return tuple(addresses or ((service or {}).get("spec") or {}).get("externalIPs") or ())


class GatewayActivities:
    """Activities on Gateways and VirtualServices, given the cluster's client."""

    def __init__(self, cluster: DynamicClient) -> None:
        self._cluster = cluster

    @activity.defn
    async def inspect_secret(self, target: CertificateTarget) -> IssuanceResult:
        """Whether the Secret parses, matches its key, and covers the names. Raises ApplicationError."""
        facts, problems = await read_secret(self._cluster, target.request)
        if facts is None and not problems:
            namespace, name = target.request.gateway.namespace, names.secret_name(target.request.hostname)
            missing = findings.SECRET_MISSING.found(
                subject=f"Secret {namespace}/{name}",
                problem="The Secret is not there, or holds no tls.crt and tls.key.",
                fix=f"kubectl describe certificate -n {namespace} {names.certificate_name(target.request.hostname)}",
            )
            problems = (missing,)
        return IssuanceResult(ready=not problems, secret=facts, findings=problems)

    @activity.defn
    async def bind_gateway(self, target: CertificateTarget) -> BindingResult:
        """Apply the routes and the Gateway's port 443. Raises ApplicationError."""
        await kubernetes.apply(self._cluster, manifests.virtual_service(target.request))
        await kubernetes.apply(self._cluster, manifests.gateway(target.request, https=True))
        return BindingResult(bound=True)

    @activity.defn
    async def unbind_gateway(self, target: CertificateTarget) -> Cleanup:
        """Back to port 80 alone, which later challenges need, and no routes. Raises ApplicationError."""
        request = target.request
        await kubernetes.apply(self._cluster, manifests.gateway(request, https=False))
        name = names.virtual_service_name(request.hostname)
        removed = await kubernetes.remove(self._cluster, ISTIO, "VirtualService", request.gateway.namespace, name)
        gone = (f"VirtualService {request.gateway.namespace}/{name}",) if removed else ()
        return Cleanup(removed=(*gone, f"port 443 of Gateway {names.gateway_name(request.hostname)}"))
