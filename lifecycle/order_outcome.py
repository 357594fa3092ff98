"""What came of an order, for the account's quota: how many reached the CA, which names failed, what it refused.

By the Orders and Challenges that were watched, since the CA counts what reached it and not what became Ready. Left
out: what the quota makes of it (`quota`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from lifecycle.issuance import proved_name
from lifecycle.quota import Outcome
from lifecycle.rate_limits import throttle_of

Document = Mapping[str, Any]

_FAILED = "invalid"
"""RFC 8555, section 7.1.6: the state of a challenge that the CA could not validate."""


def outcome(
    request_id: str,
    orders: Iterable[Document],
    challenges: Iterable[Document],
    *,
    since: datetime,
    issued: bool,
    now: datetime,
) -> Outcome:
    """The outcome of the request; of a domain's Orders and Challenges those that were made from `since` on count."""
    begun = since.replace(microsecond=0)  # as exact as Kubernetes' times
    made = [one for one in orders if _made(one) >= begun]
    tried = [one for one in challenges if _made(one) >= begun]
    reasons = [str((one.get("status") or {}).get("reason") or "") for one in (*made, *tried)]
    refusals = filter(None, (throttle_of(words, now) for words in reasons))
    reached = sum(bool((one.get("status") or {}).get("url")) for one in made)
    return Outcome(
        request_id=request_id,
        orders=max(reached, int(issued)),
        issued=issued,
        failed=tuple(
            dict.fromkeys(proved_name(one) for one in tried if (one.get("status") or {}).get("state") == _FAILED)
        ),
        throttle=next(iter(sorted(refusals, key=lambda one: one.until, reverse=True)), None),
    )


def _made(item: Document) -> datetime:
    return datetime.fromisoformat(str(item["metadata"]["creationTimestamp"]))
