"""A CA of one's own, applied from the command line with the caller's own rights.

The worker's account may write Certificates beside the gateway only, and that is as it should be: who can make a CA can
sign for every name. What is somebody else's is neither overwritten nor taken over. Left out: what such a Certificate
looks like (`lifecycle.authorities`).
"""

from __future__ import annotations

from dataclasses import dataclass

from activities import kubernetes
from lifecycle.authorities import Authority, authority_manifest
from lifecycle.diagnosis import secret_collision
from starter.credentials import NotWrittenError

_CERT_MANAGER = "cert-manager.io/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The Certificate that was applied; `changed` False where it was there as asked."""

    namespace: str
    name: str
    changed: bool


async def write(kubeconfig: str, authority: Authority) -> Applied:
    """Apply the CA's Certificate. Raises NotWrittenError, temporalio ApplicationError (refused, or not reached)."""
    namespace, name = authority.namespace, authority.name
    async with kubernetes.connect(kubeconfig) as cluster:
        there = await kubernetes.read(cluster, _CERT_MANAGER, "Certificate", namespace, name)
        if there is not None:
            labels = there["metadata"].get("labels") or {}
            if labels.get("app.kubernetes.io/managed-by") != "certwright":
                raise NotWrittenError(f"Certificate {namespace}/{name} is somebody else's", "choose another name")
        secret = await kubernetes.read(cluster, "v1", "Secret", namespace, name)
        if secret_collision(secret, name) is not None:
            raise NotWrittenError(f"Secret {namespace}/{name} is somebody else's", "choose another name")
        before = there and there["metadata"].get("generation")
        applied = await kubernetes.apply(cluster, authority_manifest(authority))
    return Applied(namespace=namespace, name=name, changed=applied["metadata"].get("generation") != before)
