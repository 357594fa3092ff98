"""The servers of these tests: one that skips time, and a development server for what only that one knows."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.common import SearchAttributeKey
from temporalio.testing import WorkflowEnvironment

from lifecycle import queues
from lifecycle.queues import AttributeType
from tests.workflows.pretended import World, working

PROGRAMS = Path(sys.executable).parent

_MAKE: dict[AttributeType, Callable[[str], SearchAttributeKey[Any]]] = {
    AttributeType.KEYWORD: SearchAttributeKey.for_keyword,
    AttributeType.BOOL: SearchAttributeKey.for_bool,
    AttributeType.DATETIME: SearchAttributeKey.for_datetime,
}
_TYPES = {
    AttributeType.KEYWORD: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    AttributeType.BOOL: IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
    AttributeType.DATETIME: IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
}


@asynccontextmanager
async def skipping_server() -> AsyncIterator[WorkflowEnvironment]:
    """A server whose time is skipped, with our search attributes."""
    program = str(PROGRAMS / "temporal-test-server")
    async with await WorkflowEnvironment.start_time_skipping(test_server_existing_path=program) as environment:
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace=environment.client.namespace,
                search_attributes={one.name: _TYPES[one.type] for one in queues.SEARCH_ATTRIBUTES},
            )
        )
        yield environment


@pytest.fixture
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    """The same for one test: a task that waits for an ended worker holds its clock for ever."""
    async with skipping_server() as environment:
        yield environment


@asynccontextmanager
async def development_server(*configuration: str) -> AsyncIterator[WorkflowEnvironment]:
    """A development server with our search attributes; `configuration` is dynamic, ``key=value`` in JSON."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(PROGRAMS / "temporal"),
        dev_server_log_level="error",
        dev_server_extra_args=[part for one in configuration for part in ("--dynamic-config-value", one)],
        search_attributes=[_MAKE[one.type](one.name) for one in queues.SEARCH_ATTRIBUTES],
    ) as environment:
        yield environment


@pytest.fixture(params=[100, 0], ids=["cached", "replayed each time"])
async def world(request: pytest.FixtureRequest, skipping: WorkflowEnvironment) -> AsyncIterator[World]:
    """Pretending workers under skipped time; the second time each workflow task replays the whole history."""
    pretending = World(skipping, cached=request.param)
    async with working(skipping.client, pretending):
        yield pretending
