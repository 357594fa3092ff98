"""Gather what the CA and cert-manager would meet if the certificate were asked for now.

What may not be read here is left out: an own permission for it is not needed for the domain's life. Left out too: what
it means (`lifecycle.foresight`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kubernetes.aio.dynamic import DynamicClient
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from activities.caa import gather_caa
from activities.challenge_path import gather_challenge_path
from lifecycle.caa import CaaClimb
from lifecycle.challenge_path import PathAnswer
from lifecycle.foresight import HTTP, Acme, in_mesh, kept_out
from lifecycle.manifests import Manifest

CONTROLLER = "app.kubernetes.io/name=cert-manager"
"""The label of cert-manager's controller by its chart; the two others have names of their own."""


async def caa_climbs(acme: Acme, nameservers: tuple[str, ...], timeout: float) -> tuple[CaaClimb, ...]:
    """The CAA records on the way up from each name; none where the issuer is no ACME account.

    `timeout` in seconds for one question.
    """
    return await gather_caa((name for name, _ in acme.methods), nameservers, timeout)


async def challenge_answers(
    acme: Acme, addresses: tuple[str, ...], *, port: int, may_dial: Callable[[str], bool], timeout_seconds: float
) -> tuple[PathAnswer, ...]:
    """What each address answers to the challenge's path, for names that are proved over HTTP."""
    names = (name for name, method in acme.methods if method == HTTP)
    return await gather_challenge_path(names, addresses, port=port, may_dial=may_dial, timeout_seconds=timeout_seconds)


async def meshed_pods(cluster: DynamicClient) -> tuple[str, ...]:
    """cert-manager's Pods with Istio's sidecar, ``namespace/name``; empty also where we may not look.

    Raises ApplicationError where the cluster does not answer.
    """
    try:
        deployments = await kubernetes.listed(cluster, "apps/v1", "Deployment", "", label_selector=CONTROLLER)
        namespaces = {one["metadata"]["namespace"] for one in deployments if not kept_out(one)}
        pods = await asyncio.gather(
            *(kubernetes.listed(cluster, "v1", "Pod", where, label_selector=CONTROLLER) for where in namespaces)
        )
    except ApplicationError as error:
        if not error.non_retryable:
            raise
        return ()
    return tuple(_place(pod) for found in pods for pod in found if in_mesh(pod))


def _place(pod: Manifest) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
