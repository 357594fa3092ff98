"""Bring to a cluster what was asked for beside cert-manager, and take it away again.

All of it is tried as a dry run before the first object is written, so that a refusal leaves nothing half done. Left
out: what the objects are and whose (`lifecycle.additions`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from pathlib import Path

import yaml
from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from activities.difference import difference
from lifecycle import additions
from lifecycle.additions import Plan, Source
from lifecycle.difference import change_of, changed_fields, removal_of
from lifecycle.findings import Finding
from lifecycle.manifests import Manifest
from lifecycle.steps import AdditionFacts, Cleanup, ObjectChange, PlatformRequest

_SOURCES = Path(__file__).parent.parent / "deploy"
"""Beside the packages, in a checkout as in an installation."""


class AdditionActivities:
    """Activities on the objects beside cert-manager, given the cluster's client."""

    def __init__(self, cluster: DynamicClient) -> None:
        self._cluster = cluster

    @activity.defn
    async def change_additions(self, request: PlatformRequest) -> AdditionFacts:
        """Apply what the request wishes and remove what it wishes away; the same again changes nothing.

        An object that is not ours is left as it is, and then nothing is changed: the facts' findings say so. What
        an attempt made before it failed is removed; an attempt that is killed leaves what it made to the next, which
        finds it unchanged. Raises ApplicationError.
        """
        plan = additions.plan(request, await asyncio.to_thread(source))
        looked = await look(self._cluster, plan)
        if looked.foreign:
            return AdditionFacts(namespace=request.namespace, findings=looked.foreign)
        for wanted, _ in looked.present:
            await kubernetes.tried(self._cluster, wanted)
        changes: list[ObjectChange] = []
        try:
            for wanted, live in looked.present:
                changes.append(await self._apply(wanted, live))
            for present in looked.absent:
                await self._remove(present["kind"], present["metadata"]["namespace"], present["metadata"]["name"])
                changes.append(removal_of(present))
        except BaseException:
            with contextlib.suppress(ApplicationError):
                await self._take_back(AdditionFacts(namespace=request.namespace, changes=tuple(changes)))
            raise
        return AdditionFacts(namespace=request.namespace, changes=tuple(changes), findings=looked.missing)

    async def _apply(self, wanted: Manifest, live: Manifest | None) -> ObjectChange:
        applied = await kubernetes.apply(self._cluster, wanted)
        if live is None:
            return change_of(wanted, None)
        # the same again does not write (Kubernetes documentation, "Server-Side Apply")
        same = applied["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
        return change_of(wanted, live, () if same else changed_fields(live, applied) or ("metadata",))

    @activity.defn
    async def take_back_additions(self, facts: AdditionFacts) -> Cleanup:
        """Remove what a run made, and nothing that was there before it. Raises ApplicationError."""
        return await self._take_back(facts)

    async def _take_back(self, facts: AdditionFacts) -> Cleanup:
        removed = [one for one in additions.created(facts) if await self._remove(one.kind, one.namespace, one.name)]
        return Cleanup(removed=tuple(f"{one.kind} {one.namespace}/{one.name}" for one in removed))

    async def _remove(self, kind: str, namespace: str, name: str) -> bool:
        return await kubernetes.remove(self._cluster, additions.API_VERSIONS[kind], kind, namespace, name)


@functools.cache
def source() -> Source:
    """The alerts and the dashboard, from their files."""
    return Source(
        alerts=yaml.safe_load((_SOURCES / "alerts.yaml").read_text()),
        dashboard=(_SOURCES / "dashboard.json").read_text(),
    )


class Looked:
    """What there is of a plan.

    Attributes:
        present: the objects to be, each with its present form, None where there is none.
        absent: the objects of ours to go.
    """

    def __init__(self) -> None:
        self.present: list[tuple[Manifest, Manifest | None]] = []
        self.absent: list[Manifest] = []
        self._foreign: list[Finding] = []
        self._missing: list[Finding] = []

    @property
    def foreign(self) -> tuple[Finding, ...]:
        """Errors: objects of our names that are not ours."""
        return tuple(self._foreign)

    @property
    def missing(self) -> tuple[Finding, ...]:
        """Warnings: objects left out, since the cluster has no such kind."""
        return tuple(self._missing)

    def add(self, wanted: Manifest, live: Manifest | None) -> None:
        """An object to be."""
        if live is not None and not additions.is_ours(live):
            self._foreign.append(additions.foreign(live))
        self.present.append((wanted, live))

    def leave_out(self, wanted: Manifest) -> None:
        """An object that cannot be here."""
        self._missing.append(additions.kind_missing(wanted))


async def look(cluster: DynamicClient, plan: Plan) -> Looked:
    """What there is of the plan's objects. Raises ApplicationError."""
    looked = Looked()
    for wanted in plan.present:
        try:
            looked.add(wanted, await _live(cluster, wanted))
        except ApplicationError as error:
            if error.type != "KindMissing":
                raise
            looked.leave_out(wanted)
    for unwanted in plan.absent:
        try:
            live = await _live(cluster, unwanted)
        except ApplicationError as error:
            if error.type != "KindMissing":
                raise
            continue
        if live is not None and additions.is_ours(live):
            looked.absent.append(live)
    return looked


async def would_change(
    cluster: DynamicClient, request: PlatformRequest
) -> tuple[tuple[ObjectChange, ...], tuple[Finding, ...]]:
    """What `change_additions` would do, and what it would find. Raises ApplicationError."""
    looked = await look(cluster, additions.plan(request, await asyncio.to_thread(source)))
    findings = (*looked.foreign, *looked.missing)
    if looked.foreign:
        return (), findings
    changes = await difference(cluster, (wanted for wanted, _ in looked.present))
    return (*changes, *(removal_of(present) for present in looked.absent)), findings


async def _live(cluster: DynamicClient, item: Manifest) -> Manifest | None:
    metadata = item["metadata"]
    return await kubernetes.read(cluster, item["apiVersion"], item["kind"], metadata["namespace"], metadata["name"])
