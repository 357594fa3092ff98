"""The product on one stage for all end-to-end tests: cert-manager and two issuers installed as an operator does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from lab.stage import Stage, run_stage
from tests.e2e.play import Play, Seen

Scene = Callable[[Play], Awaitable[None]]

_ORDER = (
    "test_demo",
    "test_newcomer",
    "test_platform",
    "test_lifecycle",
    "test_shapes",
    "test_issuers",
    "test_certificates",
    "test_stuck",
    "test_quota",
    "test_broken_surroundings",
    "test_histories",
)
"""The demo has the machine to itself, and the histories are read when all of them are written."""

_scenes: dict[tuple[str, str], Scene] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the modules of this directory in their own order, where they stand among the others."""
    here = Path(__file__).parent
    places = [place for place, item in enumerate(items) if item.path.parent == here]
    ours = sorted((items[place] for place in places), key=lambda item: _ORDER.index(item.path.stem))
    for place, item in zip(places, ours, strict=True):
        items[place] = item


@pytest.fixture(scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A stage with cert-manager, the issuer `lab`, and `minute`, whose certificates live for a hundred seconds."""
    async with run_stage(tmp_path_factory.mktemp("stage")) as running:
        async with asyncio.timeout(180):
            installed = await running.command("platform", "install", "--cluster", "lab", "--concurrent-workers", "30")
        assert installed["ready"], installed
        arguments = ("--server", running.lab.acme_directory, "--ca-bundle", str(running.lab.acme_ca))
        async with asyncio.timeout(60):
            issuers = await asyncio.gather(
                running.command("issuer", "apply", "--name", "lab", "--profile", "default", *arguments),
                running.command("issuer", "apply", "--name", "minute", "--profile", "minute", *arguments),
            )
        assert [issuer["ready"] for issuer in issuers] == [True, True], issuers
        yield running


@pytest.fixture(scope="session")
async def play(stage: Stage) -> AsyncIterator[Play]:
    """The stage as the tests use it."""
    async with Play.on(stage) as playing:
        yield playing


@pytest.fixture(scope="session")
async def resident(play: Play) -> Seen:
    """A domain that is active before anything else happens, and whose clients must never notice any of it."""
    return await play.active(RESIDENT)


RESIDENT = "resident.e2e-shops.com"


@pytest.fixture(scope="module")
async def scenes(
    play: Play, resident: Seen, request: pytest.FixtureRequest
) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """The scenes of a module that were asked for, all of them going on."""
    module = request.module.__name__
    wanted = {item.name for item in request.session.items if getattr(item, "module", None) is request.module}
    tasks = {
        name: asyncio.ensure_future(scene(play))
        for (place, name), scene in _scenes.items()
        if place == module and name in wanted
    }
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


def side_by_side(scene: Scene) -> Callable[..., Awaitable[None]]:
    """Make a test of a scene that disturbs no other: all those of a module begin together, and each is then awaited."""
    _scenes[scene.__module__, scene.__name__] = scene

    async def test(scenes: dict[str, asyncio.Task[None]]) -> None:
        await scenes[scene.__name__]

    test.__name__ = test.__qualname__ = scene.__name__
    test.__doc__ = scene.__doc__
    test.__module__ = scene.__module__
    return test
