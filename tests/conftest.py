"""What tests share: one lab with cert-manager, started when the first test asks for it (one for each process)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from lab.cluster import Lab, run_lab


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Which tests stay together where several processes share the work (`make test`): those of a file, since its
    fixtures are, and all end-to-end tests, which share one stage."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "tests/e2e" if path.startswith("tests/e2e/") else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Our own: the files are handed out whole."""
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The end-to-end tests take longest, so they begin."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """A lab with Istio and cert-manager's real chart; ends with the session, also after a failure."""
    async with run_lab(tmp_path_factory.mktemp("lab")) as running:
        chart = str(running.programs.cert_manager_chart)
        await running.helm(
            "install",
            "cert-manager",
            chart,
            "-n",
            "cert-manager",
            "--create-namespace",
            values=running.cert_manager_values,
        )
        names = ("cert-manager", "cert-manager-webhook", "cert-manager-cainjector")
        await asyncio.gather(*(running.deployment_available("cert-manager", name) for name in names))
        yield running
