"""A domain means to order and has asked the account's quota: what does it do next, and what is shown of that?

The domain's side of the conversation; the quota's own is `quota`. Pure transitions of a `QuotaTurn`. Left out: who
sends what (`activities.turns`, `workflows.domain`).
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from lifecycle.domain import QuotaPlace, QuotaTurn
from lifecycle.quota import AnswerKind, Lane, QuotaAnswer

LOOK_HOLDS = timedelta(minutes=10)
"""A look that found everything ready is believed for so long; DNS records commonly live for five minutes."""

LAST_MOMENT = timedelta(minutes=5)
"""Nothing is ordered so shortly before a grant is over: cert-manager reaches the CA within seconds, if it is there."""

SLACK = timedelta(minutes=1)
"""After the expected instant a grant is due within a moment; who has none by then asks again."""

_SLACK_SHARE = 0.1
"""Of a long wait: renewals come in front meanwhile, and each question costs some events."""

SILENCE = timedelta(minutes=1)
"""A quota that did not answer is asked again after this."""

LONGEST_SILENCE = timedelta(minutes=30)
"""A quota that answered nothing for so long is broken: one order without it does less harm than none at all."""

LONGEST_WAIT = {Lane.EXPIRING: timedelta(minutes=10), Lane.RENEWAL: timedelta(hours=1)}
"""A renewal that is asked for by hand, or because its time runs out, is made without a turn after this. Far within
`quota.PATIENCE`, since a person or an alert waits for it."""


class Move(StrEnum):
    """What the domain does next."""

    ORDER = "order"
    WAIT = "wait"
    LOOK = "look"
    """The last look is too old, or somebody wishes for one."""
    ASK = "ask"
    """The same request again: the answer is overdue."""
    ANEW = "anew"
    """The grant is over: begin with the look, and ask with another request."""
    UNASKED = "unasked"
    """The quota is silent: order without it."""


def move(turn: QuotaTurn, looked_at: datetime | None, now: datetime, *, wished: bool = False) -> Move:
    """What to do; `wished`: somebody asks for a look."""
    if turn.over or (turn.granted and too_late(turn, now)):
        return Move.ANEW
    silent = turn.silent_since is not None and now >= turn.silent_since + LONGEST_SILENCE
    if wished or ((turn.granted or silent) and (looked_at is None or now >= looked_at + LOOK_HOLDS)):
        return Move.LOOK
    if turn.granted:
        return Move.ORDER
    if silent:
        return Move.UNASKED
    return Move.ASK if now >= due(turn) else Move.WAIT


def too_late(turn: QuotaTurn, now: datetime) -> bool:
    """Whether an order must not be made with this grant any more."""
    return turn.at is not None and now >= turn.at - LAST_MOMENT


def due(turn: QuotaTurn) -> datetime:
    """When to ask again, if nothing is heard until then."""
    if turn.silent_since is not None or turn.at is None:
        return turn.asked_at + SILENCE
    if not turn.place:
        return turn.at
    return turn.at + max(SLACK, (turn.at - turn.asked_at) * _SLACK_SHARE)


def answered(turn: QuotaTurn, answer: QuotaAnswer) -> QuotaTurn:
    """The turn after an answer; one to another request changes nothing, and only the end takes a grant back."""
    if answer.request_id != turn.request_id or (turn.granted and answer.kind is not AnswerKind.OVER):
        return turn
    return dataclasses.replace(
        turn,
        silent_since=None,
        granted=answer.kind is AnswerKind.GRANTED,
        over=answer.kind is AnswerKind.OVER,
        place=answer.place if answer.kind is AnswerKind.WAITING else 0,
        at=answer.at,
    )


def unanswered(turn: QuotaTurn, now: datetime) -> QuotaTurn:
    """The turn after a question that nobody answered in time."""
    return dataclasses.replace(turn, asked_at=now, silent_since=turn.silent_since or now)


def place(turn: QuotaTurn | None) -> QuotaPlace | None:
    """What a portal shows of a turn that is waited for."""
    if turn is None or turn.granted:
        return None
    return QuotaPlace(
        account=turn.account, lane=turn.lane, place=turn.place, expected_at=turn.at, told_at=turn.asked_at
    )


def words(turn: QuotaTurn) -> str:
    """The same for a person."""
    if turn.at is None:
        return "waiting for its turn at the CA; the account's quota has not answered yet"
    at = f"{turn.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if not turn.place:
        return f"waiting for its turn at the CA; the queue is full, asked again at {at}"
    return f"waiting for its turn at the CA; place {turn.place}, expected {at}"
