"""What may we, or another account, do on this cluster? Asked of the API server itself, by access reviews.

Every authenticated account may ask that about itself (RBAC documentation: system:basic-user); about others it needs a
permission. Left out: which permissions are needed, and what to say about a missing one (`lifecycle.platform`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from kubernetes.aio.dynamic import DynamicClient

from activities import kubernetes
from lifecycle.platform import Permission

_AT_ONCE = 8
"""Reviews that are under way at the same time: each is answered in milliseconds, and the API server has others."""


_AUTHORIZATION = "authorization.k8s.io/v1"


async def denied(cluster: DynamicClient, permissions: Iterable[Permission]) -> tuple[Permission, ...]:
    """Those of the permissions that we do not have, each once, in their order. Raises ApplicationError."""
    unique = {permission[:4]: permission for permission in reversed(list(permissions))}
    limit = asyncio.Semaphore(_AT_ONCE)

    async def allowed(permission: Permission) -> bool:
        async with limit:
            return await _allowed(cluster, "SelfSubjectAccessReview", {}, permission, "our own permissions")

    asked = list(reversed(unique.values()))
    answers = await asyncio.gather(*(allowed(permission) for permission in asked))
    return tuple(permission for permission, may in zip(asked, answers, strict=True) if not may)


async def account_may(cluster: DynamicClient, account: str, permission: Permission) -> bool:
    """Whether a ServiceAccount (``namespace/name``) has a permission. Raises ApplicationError."""
    namespace, _, name = account.partition("/")
    who = {
        "user": f"system:serviceaccount:{namespace}:{name}",
        "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
    }
    return await _allowed(cluster, "SubjectAccessReview", who, permission, f"the permissions of {account}")


async def _allowed(
    cluster: DynamicClient, kind: str, who: Mapping[str, object], permission: Permission, words: str
) -> bool:
    resource, _, subresource = permission.resource.partition("/")
    attributes = {
        "verb": permission.verb,
        "group": permission.group,
        "resource": resource,
        "subresource": subresource,
        "namespace": permission.namespace,
    }
    body = {
        "apiVersion": _AUTHORIZATION,
        "kind": kind,
        "spec": {**who, "resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    found = await kubernetes.resource(cluster, _AUTHORIZATION, kind)
    async with kubernetes.answering(cluster, f"ask for {words}"):
        answer = await cluster.create(found, body=body, _request_timeout=kubernetes.CALL_SECONDS)
        return bool(answer.to_dict()["status"].get("allowed"))
