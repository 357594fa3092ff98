"""`certwright-worker`: run the workers of this process until SIGTERM or SIGINT, then let what runs end.

Settings are environment variables; `certwright-worker --help` lists them. Exit codes: 0 ended as asked, 1 something
failed, 2 settings are wrong (all of them are named).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence

import structlog
from temporalio import activity, workflow
from temporalio.client import Client, RPCError
from temporalio.worker import Worker

from activities import logs
from activities.temporal import ConnectionSettingsError, connected_in_the_end, connection, leave
from lifecycle import queues
from lifecycle import settings as variables
from lifecycle.diagnosis import said
from lifecycle.requests import FieldError
from worker import assembly, versions
from worker.settings import Settings, load

log = structlog.stdlib.get_logger("certwright.worker")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; the exit code. Without `arguments` it ends the process."""
    code = _main(arguments)
    return leave(code) if arguments is None else code


def _main(arguments: Sequence[str] | None) -> int:
    described = "\n".join(f"  {variables.PREFIX + name:<36}{text}" for name, text in variables.KNOWN.items())
    parser = argparse.ArgumentParser(
        prog="certwright-worker",
        description="Run the workers of this process.",
        epilog=f"settings (environment):\n{described}\n  TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_TLS_*, ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="check the settings and end")
    options = parser.parse_args(arguments)
    settings = load(os.environ)
    problems = [] if isinstance(settings, Settings) else list(settings)
    temporal = {}
    try:
        temporal = connection()
    except ConnectionSettingsError as error:
        problems.append(FieldError(field="TEMPORAL_*", value="", problem=f"cannot be read: {error}", fix=""))
    if problems or not isinstance(settings, Settings):
        for one in problems:
            value = f" ({one.value})" if one.value else ""
            print(f"{one.field}{value} {one.problem}; {one.fix}".rstrip("; "), file=sys.stderr)  # noqa: T201
        return 2
    logs.configure(settings.log_level, settings.log_format)
    if options.check:
        log.info("settings are good", **settings.shown(), temporal=temporal["target_host"])
        return 0
    # ids are fields of each event, not a part of its text
    workflow.logger.workflow_info_on_message = False
    activity.logger.activity_info_on_message = False
    return asyncio.run(serve(settings, temporal))


async def serve(settings: Settings, temporal: dict[str, object]) -> int:
    """Connect, run, and end in order; the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    connecting = asyncio.create_task(_connect(settings, temporal))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            connecting.cancel()
            log.info("stopped before it was connected")
            return 0
        client = connecting.result()
        async with assembly.assembled(settings, client) as workers:
            promoting = asyncio.create_task(_promote(settings, client))
            try:
                return await _run(workers, stopping)
            finally:
                promoting.cancel()
    except Exception:
        log.exception("worker failed")
        return 1
    finally:
        stopping.cancel()


async def _connect(settings: Settings, temporal: dict[str, object]) -> Client:
    def waiting(reason: str, attempt: int, pause: float) -> None:
        log.warning("temporal away", reason=reason, attempt=attempt, next_attempt_seconds=pause)

    client = await connected_in_the_end(temporal, runtime=assembly.runtime(settings), waiting=waiting)
    log.info("connected", temporal=temporal["target_host"], namespace=client.namespace)
    return client


async def _promote(settings: Settings, client: Client) -> None:
    """Let workflows begin on this worker's version; activities have none."""
    if queues.WORKFLOWS not in settings.queues or not settings.promote:
        return
    try:
        await versions.promote(client, settings.build_id)
    except RPCError as error:
        log.error("version not promoted", build_id=settings.build_id, reason=said(error.message))
        return
    log.info("version promoted", deployment=versions.DEPLOYMENT, build_id=settings.build_id)


async def _run(workers: Sequence[Worker], stopping: asyncio.Task[bool]) -> int:
    """Until it is stopped or one of the workers fails; then all of them are drained."""
    running = [asyncio.create_task(worker.run(), name=worker.task_queue) for worker in workers]
    for worker in workers:
        log.info("serving", queue=worker.task_queue)
    await asyncio.wait({stopping, *running}, return_when=asyncio.FIRST_COMPLETED)
    log.info("draining")
    await asyncio.gather(*(worker.shutdown() for worker in workers), return_exceptions=True)
    failed = False
    for task, outcome in zip(running, await asyncio.gather(*running, return_exceptions=True), strict=True):
        if isinstance(outcome, BaseException):
            failed = True
            log.error("worker failed", queue=task.get_name(), exc_info=outcome)
    log.info("ended")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
