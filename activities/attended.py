"""Work of an activity that takes its time: heartbeats in words meanwhile, and left at once when the worker stops.

Left out: what the work is. It must be idempotent, since whoever takes it up begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

T = TypeVar("T")

_HEARTBEAT_SECONDS = 2.0
"""Well under the shortest heartbeat time-out; the SDK throttles what is more than the server needs."""


async def attended(work: Coroutine[Any, Any, T], words: Callable[[], str]) -> T:
    """What `work` returns or raises; `words` says at each heartbeat what is waited for.

    A cancelled one is cancelled and waited for, heartbeating, until it has cleaned up. Raises ApplicationError, which
    is tried again, where the worker is shutting down.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(activity.wait_for_worker_shutdown())
    try:
        while True:
            activity.heartbeat(words())
            await asyncio.wait({task, leaving}, timeout=_HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if leaving.done():
                raise ApplicationError("the worker is shutting down; another one takes this up", type="WorkerStopping")
    finally:
        leaving.cancel()
        task.cancel()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                activity.heartbeat(words())
                await asyncio.wait({task}, timeout=_HEARTBEAT_SECONDS)
