"""The table of the workflows and the assembled activities are one: names, types, queues."""

from __future__ import annotations

from typing import Any, cast

import pytest
from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity
from temporalio.client import Client

from lifecycle import queues
from worker import assembly
from worker.settings import Settings, load
from workflows.definitions import WORKFLOWS
from workflows.hands import HANDS, Hand


@pytest.fixture
async def provided() -> tuple[object, ...]:
    """The providers, given no clients: nothing is called."""
    settings = load({"CERTWRIGHT_QUEUES": "workflows"})
    assert isinstance(settings, Settings)
    return assembly.providers(settings, cast("DynamicClient", object()), cast("Client", None))


@pytest.mark.parametrize("hand", HANDS, ids=lambda hand: hand.name)
async def test_an_activity_is_as_the_table_says(hand: Hand[Any, Any], provided: tuple[object, ...]) -> None:
    found = [one for one in assembly.activities_on(hand.queue, provided) if one.__name__ == hand.name]
    assert len(found) == 1
    definition = activity._Definition.must_from_callable(found[0])
    assert hand.name == definition.name
    assert definition.arg_types is not None
    assert [hand.takes] == [one for one in definition.arg_types if one is not type(provided)][-1:]
    assert hand.gives is definition.ret_type


async def test_each_activity_is_provided_once_and_called_by_the_table(provided: tuple[object, ...]) -> None:
    names = []
    for provider in provided:
        for name in dir(type(provider)):
            definition = activity._Definition.from_callable(getattr(type(provider), name))
            if definition is not None:
                names.append(definition.name)
    assert sorted(hand.name for hand in HANDS) == sorted(name for name in names if name)


async def test_every_queue_has_work(provided: tuple[object, ...]) -> None:
    assert WORKFLOWS
    for queue in queues.QUEUES:
        assert assembly.activities_on(queue, provided)


async def test_a_worker_of_workflows_needs_no_cluster() -> None:
    settings = load({"CERTWRIGHT_QUEUES": "workflows"})
    assert isinstance(settings, Settings)
    assert assembly.activities_on(queues.WORKFLOWS, assembly.providers(settings, None, cast("Client", None)))


async def test_a_missing_activity_is_told(provided: tuple[object, ...]) -> None:
    with pytest.raises(LookupError, match="no activity"):
        assembly.activities_on(queues.PROBE, provided[:1])


def test_slots_are_set_for_each_queue() -> None:
    assert set(queues.QUEUES) == set(assembly.SLOTS)
