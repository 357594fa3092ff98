"""Tell a domain why its issuance does not move: heartbeats are seen by Temporal only, a domain's status by people.

One signal for each change of the cause, none where all goes its way. Left out: what is to blame
(`lifecycle.diagnosing`), and what a domain makes of it.
"""

from __future__ import annotations

from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from lifecycle.names import domain_id
from lifecycle.steps import Standstill

_SECONDS = timedelta(seconds=5)

log = structlog.stdlib.get_logger("certwright.standstill")


async def tell(client: Client, hostname: str, standstill: Standstill) -> bool:
    """Whether Temporal took it. An issuance goes on without: who waits for it only wants to say for what."""
    handle = client.get_workflow_handle(domain_id(hostname))
    try:
        await handle.signal("stands", standstill, rpc_timeout=_SECONDS)
    except RPCError as error:
        log.warning("not told why an issuance stands still", hostname=hostname, reason=error.status.name)
        return False
    return True
