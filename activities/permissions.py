"""What may we do on this cluster? Asked of the API server itself, by SelfSubjectAccessReview.

Every authenticated account may ask that about itself (RBAC documentation: system:basic-user). Left out: which
permissions are needed, and what to say about a missing one (`lifecycle.platform`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from kubernetes.aio.dynamic import DynamicClient

from activities import kubernetes
from lifecycle.platform import Permission

_AT_ONCE = 8
"""Reviews that are under way at the same time: each is answered in milliseconds, and the API server has others."""


async def denied(cluster: DynamicClient, permissions: Iterable[Permission]) -> tuple[Permission, ...]:
    """Those of the permissions that we do not have, each once, in their order. Raises ApplicationError."""
    unique = {permission[:4]: permission for permission in reversed(list(permissions))}
    limit = asyncio.Semaphore(_AT_ONCE)
    kind = await kubernetes.resource(cluster, "authorization.k8s.io/v1", "SelfSubjectAccessReview")

    async def allowed(permission: Permission) -> bool:
        resource, _, subresource = permission.resource.partition("/")
        attributes = {
            "verb": permission.verb,
            "group": permission.group,
            "resource": resource,
            "subresource": subresource,
            "namespace": permission.namespace,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        async with limit, kubernetes.answering(cluster, "ask for our own permissions"):
            answer = await cluster.create(kind, body=body, _request_timeout=kubernetes.CALL_SECONDS)
            return bool(answer.to_dict()["status"].get("allowed"))

    asked = list(reversed(unique.values()))
    answers = await asyncio.gather(*(allowed(permission) for permission in asked))
    return tuple(permission for permission, may in zip(asked, answers, strict=True) if not may)
