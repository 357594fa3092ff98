"""What a domain does next with its turn, as a table, and what an answer changes."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle import turns
from lifecycle.domain import IssuerRef, QuotaTurn
from lifecycle.quota import LEASE, PATIENCE, AnswerKind, Lane, QuotaAnswer
from lifecycle.turns import Move

NOW = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def turn(**changes: Any) -> QuotaTurn:
    asked = QuotaTurn(
        account="https://acme.example/acct/1",
        server="https://acme.example/directory",
        issuer=IssuerRef(name="letsencrypt"),
        request_id="domain/shop.example.com/1",
        lane=Lane.NEW,
        since=NOW,
        asked_at=NOW,
    )
    return dataclasses.replace(asked, **changes)


GRANTED = turn(granted=True, at=NOW + LEASE)
QUEUED = turn(place=17, at=NOW + HOUR)
SILENT = turn(silent_since=NOW)


@pytest.mark.parametrize(
    ("asked", "looked_ago", "after", "wished", "expected"),
    [
        (GRANTED, 0 * MINUTE, 0 * MINUTE, False, Move.ORDER),
        (GRANTED, turns.LOOK_HOLDS, 0 * MINUTE, False, Move.LOOK),
        (GRANTED, 0 * MINUTE, 0 * MINUTE, True, Move.LOOK),
        (GRANTED, 0 * MINUTE, LEASE - turns.LAST_MOMENT, False, Move.ANEW),
        (GRANTED, 0 * MINUTE, LEASE - turns.LAST_MOMENT, True, Move.ANEW),
        (turn(over=True, at=NOW), 0 * MINUTE, 0 * MINUTE, False, Move.ANEW),
        (QUEUED, 0 * MINUTE, HOUR, False, Move.WAIT),
        (QUEUED, 0 * MINUTE, HOUR + 6 * MINUTE - timedelta(seconds=1), False, Move.WAIT),
        (QUEUED, 0 * MINUTE, HOUR + 6 * MINUTE, False, Move.ASK),
        (QUEUED, HOUR, 0 * MINUTE, True, Move.LOOK),
        (turn(place=1, at=NOW), 0 * MINUTE, turns.SLACK, False, Move.ASK),
        (turn(at=NOW + HOUR), 0 * MINUTE, HOUR - MINUTE, False, Move.WAIT),
        (turn(at=NOW + HOUR), 0 * MINUTE, HOUR, False, Move.ASK),
        (SILENT, 0 * MINUTE, 0 * MINUTE, False, Move.WAIT),
        (SILENT, 0 * MINUTE, turns.SILENCE, False, Move.ASK),
        (SILENT, -turns.LONGEST_SILENCE, turns.LONGEST_SILENCE, False, Move.UNASKED),
        (SILENT, 0 * MINUTE, turns.LONGEST_SILENCE, False, Move.LOOK),
    ],
)
def test_the_next_move(asked: QuotaTurn, looked_ago: timedelta, after: timedelta, wished: bool, expected: Move) -> None:
    assert expected is turns.move(asked, NOW - looked_ago, NOW + after, wished=wished)


def answer(kind: AnswerKind, *, place: int = 0, request_id: str = QUEUED.request_id) -> QuotaAnswer:
    return QuotaAnswer(request_id=request_id, owner="domain/shop.example.com", kind=kind, at=NOW + LEASE, place=place)


def test_only_the_end_takes_a_grant_back() -> None:
    assert turns.answered(GRANTED, answer(AnswerKind.WAITING, place=3)) == GRANTED
    assert turns.answered(QUEUED, answer(AnswerKind.GRANTED)) == GRANTED
    assert turns.answered(GRANTED, answer(AnswerKind.OVER)).over
    assert not turns.answered(GRANTED, answer(AnswerKind.OVER)).granted


def test_an_answer_to_another_request_changes_nothing() -> None:
    assert turns.answered(QUEUED, answer(AnswerKind.GRANTED, request_id="another")) == QUEUED


def test_an_answer_ends_the_silence_and_a_silence_keeps_its_beginning() -> None:
    later = turns.unanswered(turns.unanswered(QUEUED, NOW + MINUTE), NOW + 2 * MINUTE)
    assert (later.silent_since, later.asked_at) == (NOW + MINUTE, NOW + 2 * MINUTE)
    assert turns.answered(later, answer(AnswerKind.WAITING, place=2)).silent_since is None


def test_a_full_queue_has_an_appointment_and_no_place() -> None:
    deferred = turns.answered(SILENT, answer(AnswerKind.DEFERRED))
    assert deferred.at == turns.due(deferred)
    shown = turns.place(deferred)
    assert shown is not None
    assert (0, deferred.at) == (shown.place, shown.expected_at)
    assert "the queue is full" in turns.words(deferred)


def test_who_waits_is_shown_place_and_time_and_who_orders_is_not() -> None:
    shown = turns.place(QUEUED)
    assert shown is not None
    assert (17, QUEUED.at, Lane.NEW) == (shown.place, shown.expected_at, shown.lane)
    assert turns.words(QUEUED) == "waiting for its turn at the CA; place 17, expected 2027-01-02 04:04:05 UTC"
    assert turns.place(GRANTED) is None
    assert turns.place(None) is None
    assert "has not answered" in turns.words(SILENT)


def test_a_forced_renewal_waits_far_less_than_does_harm() -> None:
    for lane, longest in turns.LONGEST_WAIT.items():
        assert longest * 6 <= PATIENCE[lane]
