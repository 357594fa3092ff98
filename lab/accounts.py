"""A kubeconfig that acts as a ServiceAccount, so that programs outside the cluster have its rights and no more."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from lab.api import cluster_of
from lab.cluster import Lab

_SECONDS = 24 * 3600
"""A lab seldom lives longer; TokenRequest grants what is asked for, ten minutes at least."""


async def service_account_kubeconfig(lab: Lab, namespace: str, name: str, path: Path) -> Path:
    """Write a kubeconfig with a token of the ServiceAccount to `path` (mode 0600), and return it.

    The account must exist. Raises lab.api.ApiError (404 where it does not), aiohttp.ClientError, TimeoutError.
    """
    answer = await lab.api.call(
        "POST",
        f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
        body={
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _SECONDS},
        },
    )
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": cluster_of(lab.kubeconfig)}],
        "users": [{"name": name, "user": {"token": answer["status"]["token"]}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
    }
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)
        yaml.safe_dump(document, file)
    return path
