"""What became of a record on trial, and what is to be done about it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lifecycle.scratch_record import ScratchRecord, Writing, scratch_findings, scratch_words
from tests.lifecycle.test_delegation import GOOD, OURS, SOLVER, STAYS, UPDATES

TRIED = ScratchRecord(
    delegation=GOOD, ending=Writing.SEEN, value="certwright-preflight-1", asked=("192.0.2.53:53",), namespace="cm"
)


def found(**changes: Any) -> list[tuple[str, str, str]]:
    return [(one.code, one.problem, one.fix) for one in scratch_findings(dataclasses.replace(TRIED, **changes))]


@pytest.mark.parametrize("ending", [Writing.SEEN, Writing.NOT_TRIED])
def test_a_record_that_was_seen_or_not_tried_is_no_finding(ending: Writing) -> None:
    assert found(ending=ending) == []


@pytest.mark.parametrize(
    ("ending", "problem", "fix"),
    [
        (Writing.BADKEY, "key acme with HMACMD5 (BADKEY)", "tsigKeyName"),
        (Writing.BADSIG, "another one than in Secret cm/tsig, key key (BADSIG)", "--secret-namespace cm key=file:"),
        (Writing.BADTIME, "(BADTIME)", "NTP"),
        (Writing.NOTAUTH, "(NOTAUTH)", "primary of acme.platform.net"),
        (Writing.NOTZONE, f"{OURS} does not lie in its zone", "dig @192.0.2.53 SOA acme.platform.net"),
        (Writing.REFUSED, "refuses the key acme", f"update-policy {{ grant acme name {OURS}. TXT; }};"),
        (Writing.FAILED, "SERVFAIL", "log of 192.0.2.53"),
        (Writing.KEY_UNUSABLE, "SERVFAIL", "base64"),
    ],
)
def test_each_refusal_has_its_fix(ending: Writing, problem: str, fix: str) -> None:
    ((code, its_problem, its_fix),) = found(ending=ending, detail="SERVFAIL")
    assert code == "CW1347"
    assert problem in its_problem
    assert fix in its_fix


def test_an_update_that_is_not_signed_is_refused_as_such() -> None:
    unsigned = dataclasses.replace(SOLVER, updates=dataclasses.replace(UPDATES, key_name=""))
    challenge = dataclasses.replace(GOOD.challenge, solver=unsigned)
    ((_, problem, _),) = found(ending=Writing.REFUSED, delegation=dataclasses.replace(GOOD, challenge=challenge))
    assert "updates that are not signed" in problem


def test_what_is_not_seen_not_answered_or_left_is_a_warning() -> None:
    ((code, problem, _),) = found(ending=Writing.NOT_SEEN, unseen=("ns2.platform.net",))
    assert (code, "ns2.platform.net" in problem) == ("CW1348", True)
    assert [code for code, *_ in found(ending=Writing.UNANSWERED, detail="Timeout")] == ["CW1346"]
    ((code, problem, fix),) = found(left=True)
    assert (code, "certwright-preflight-1" in problem) == ("CW1349", True)
    assert f'update delete {OURS}. TXT "certwright-preflight-1"' in fix
    assert "server 192.0.2.53 53" in fix


def test_where_it_was_written_is_where_cert_manager_would_write() -> None:
    assert TRIED.delegation.written_at == OURS
    staying = dataclasses.replace(GOOD, aliases=(), challenge=dataclasses.replace(GOOD.challenge, solver=STAYS))
    assert staying.written_at == "_acme-challenge.shop.example.com"


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (Writing.SEEN, "a record was written, read from 192.0.2.53:53, and removed"),
        (Writing.NOT_TRIED, "writing not tried: Secret may not be read"),
        (Writing.BADSIG, "writing a record: BADSIG"),
    ],
)
def test_it_is_said_in_few_words(ending: Writing, words: str) -> None:
    assert scratch_words(dataclasses.replace(TRIED, ending=ending, detail="Secret may not be read")) == words
