"""What the tests of activities share: a client of the lab's cluster with all rights."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.dynamic import DynamicClient

from activities import kubernetes
from lab.cluster import Lab
from tests.activities import domains


@pytest.fixture(scope="session")
async def admin(lab: Lab) -> AsyncIterator[DynamicClient]:
    """A client of the lab's administrator."""
    async with kubernetes.connect(str(lab.kubeconfig)) as connected:
        yield connected


@pytest.fixture(scope="session")
async def issuing(lab: Lab) -> Lab:
    """The lab with an issuer for domains."""
    await domains.issuer(lab)
    return lab
