"""How programs connect to Temporal: by the official environment configuration, and patiently where that is wanted.

`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_TLS_*`, `TEMPORAL_API_KEY`, or a profile in `temporal.toml`
(Temporal: "Environment configuration"). Left out: what is asked of Temporal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NoReturn

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import (
    Client,
    RPCError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.envconfig import ClientConfig
from temporalio.runtime import Runtime
from temporalio.service import RetryConfig, RPCStatusCode

from lifecycle.diagnosis import said

CONNECT = timedelta(seconds=5)
"""A server on the same continent answers in well under one; a door must not let a person wait for long."""

_FIRST_PAUSE, _LAST_PAUSE = 1.0, 15.0

_AWAY = (
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.UNAUTHENTICATED,
    RPCStatusCode.PERMISSION_DENIED,
)


class TemporalAwayError(Exception):
    """Temporal does not answer, or does not let us in; `str` says which address and why."""


class ConnectionSettingsError(ValueError):
    """The environment's configuration of the connection cannot be read."""


def leave(code: int) -> NoReturn:
    """End the program with an exit code, what it wrote flushed, and without Python's own finalization.

    A call of Temporal's SDK that is still answered while Python finalizes aborts the process (SIGABRT, measured with
    temporalio 1.35 on Python 3.11), although all was done and said.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


IMPATIENT = RetryConfig(
    initial_interval_millis=100, max_interval_millis=1000, max_elapsed_time_millis=3000, max_retries=5
)
"""For doors: a person waits, and is told within seconds; by default the SDK tries for ten."""


def connection(address: str = "", namespace: str = "") -> dict[str, Any]:
    """The arguments of `Client.connect` by the environment; given ones win. Raises ConnectionSettingsError."""
    try:
        settings: dict[str, Any] = dict(ClientConfig.load_client_connect_config())
    except Exception as error:  # the SDK's own errors are of no common type
        raise ConnectionSettingsError(said(str(error))) from None
    settings.setdefault("target_host", "localhost:7233")
    if address:
        settings["target_host"] = address
    if namespace:
        settings["namespace"] = namespace
    return settings


async def connected(settings: dict[str, Any], *, runtime: Runtime | None = None) -> Client:
    """A client whose namespace is there. Raises TemporalAwayError."""
    address, namespace = settings["target_host"], settings.get("namespace", "default")
    with away_if_unreachable(address):
        client = await Client.connect(**{"connect_timeout": CONNECT, **settings}, runtime=runtime)
        try:
            await client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=namespace), timeout=CONNECT
            )
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            words = (
                f"Temporal at {address} has no namespace {namespace}: temporal operator namespace create -n {namespace}"
            )
            raise TemporalAwayError(words) from None
        return client


async def connected_in_the_end(
    settings: dict[str, Any], *, runtime: Runtime | None = None, waiting: Callable[[str, int, float], None]
) -> Client:
    """As `connected`, tried until it succeeds: a worker often starts before Temporal does.

    `waiting` is told the reason, the attempt and the seconds until the next one.
    """
    attempt, pause = 1, _FIRST_PAUSE
    while True:
        try:
            return await connected(settings, runtime=runtime)
        except TemporalAwayError as error:
            waiting(str(error), attempt, pause)
        await asyncio.sleep(pause)
        attempt, pause = attempt + 1, min(pause * 2, _LAST_PAUSE)


@contextlib.contextmanager
def away_if_unreachable(address: str = "") -> Iterator[None]:
    """Errors of the connection as TemporalAwayError; others pass."""
    where = f"Temporal at {address}" if address else "Temporal"
    try:
        yield
    except WorkflowUpdateRPCTimeoutOrCancelledError:
        raise TemporalAwayError(f"{where} did not answer in time") from None
    except RPCError as error:
        if error.status not in _AWAY:
            raise
        raise TemporalAwayError(f"{where} does not answer: {said(error.message)}") from None
    except RuntimeError as error:
        if "client connect" not in str(error):  # the SDK raises a bare RuntimeError where it cannot connect
            raise
        reason = re.search(r'message: "([^"]+)"', str(error))
        raise TemporalAwayError(f"{where} cannot be reached: {said(reason[1] if reason else str(error))}") from None
    except TimeoutError:
        raise TemporalAwayError(f"{where} did not answer in time") from None
