"""What would a write change on the cluster? Asked of the API server itself, by server-side apply as a dry run.

The server fills in defaults and normalises, so that only what would really be other is told (Kubernetes documentation,
"Dry-run"). Left out: writing it, and how two forms are compared (`lifecycle.difference`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from kubernetes.aio.dynamic import DynamicClient

from activities import kubernetes
from lifecycle.difference import change_of, changed_fields, dropped, form_in
from lifecycle.manifests import Manifest
from lifecycle.steps import ObjectChange

_AT_ONCE = 6
"""Dry runs that are under way at the same time: one of a large CustomResourceDefinition takes tens of milliseconds."""


async def difference(
    cluster: DynamicClient, wanted: Iterable[Manifest], before: Sequence[Manifest] = ()
) -> tuple[ObjectChange, ...]:
    """What would become of each object, and of those of `before` that are not wanted any more.

    Args:
        before: the last form of the release that they belong to: what is in it and not in the next form goes, which
            an apply by somebody else does not show.

    Raises:
        ApplicationError.
    """
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Manifest) -> ObjectChange:
        async with limit:
            live = await kubernetes.read(
                cluster,
                item["apiVersion"],
                item["kind"],
                item["metadata"].get("namespace", ""),
                item["metadata"]["name"],
            )
            if live is None:
                return change_of(item, None)
            fields = changed_fields(live, await kubernetes.tried(cluster, item))
            if (last := form_in(before, item)) is not None:
                fields += changed_fields(last, item)
            return change_of(item, live, fields)

    items = list(wanted)
    changes = await asyncio.gather(*(one(item) for item in items))
    return (*changes, *dropped(before, items))
