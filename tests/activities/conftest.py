"""What the tests of activities share: a client of the lab's cluster with all rights."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.dynamic import DynamicClient

from activities import kubernetes
from activities.edge import EdgeSettings
from activities.gateways import GatewayActivities
from lab.cluster import Lab
from tests.activities import domains
from tests.activities.ward import Ward, opened


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


@pytest.fixture(scope="module")
async def settings(issuing: Lab) -> EdgeSettings:
    """How the lab's edge is reached."""
    return await domains.edge_settings(issuing)


@pytest.fixture(scope="module")
def gateways(admin: DynamicClient) -> GatewayActivities:
    """The activities on gateways, with all rights."""
    return GatewayActivities(admin)


@pytest.fixture(scope="module")
async def ward(issuing: Lab, admin: DynamicClient) -> AsyncIterator[Ward]:
    """Where the tests of one file break issuances, and the seconds until each was found."""
    async with opened(issuing, admin) as made:
        yield made
