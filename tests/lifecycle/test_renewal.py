"""Three clocks give one verdict, by fractions of whatever lifetime there is."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.domain import CertificateFacts
from lifecycle.renewal import Clocks, ClockVerdict, KnownDomain, review, wake_reason, wake_reason_without_secret

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
NEW, OLD = "a" * 64, "b" * 64


def facts(life: timedelta) -> CertificateFacts:
    return CertificateFacts(
        fingerprint=NEW,
        serial="1",
        issuer="CN=ca",
        dns_names=("shop.example.com",),
        not_before=START,
        not_after=START + life,
        public_key="ECDSA 256",
    )


def clocks(life: timedelta, *served: str, renewal_at: datetime | None = None) -> Clocks:
    return Clocks(subject="shop.example.com", secret=facts(life), served=served, renewal_at=renewal_at)


@pytest.mark.parametrize(
    ("passed", "verdict", "code"),
    [
        (59 * DAY, ClockVerdict.NOTHING, ""),
        (61 * DAY, ClockVerdict.DUE, ""),
        (64 * DAY, ClockVerdict.DIAGNOSE, "CW1601"),
        (81 * DAY, ClockVerdict.ALERT, "CW1602"),
        (88 * DAY, ClockVerdict.PAGE, "CW1603"),
        (90 * DAY, ClockVerdict.EXPIRED, "CW1405"),
        (400 * DAY, ClockVerdict.EXPIRED, "CW1405"),
    ],
)
def test_ninety_days(passed: timedelta, verdict: ClockVerdict, code: str) -> None:
    said = review(clocks(90 * DAY), START + passed)
    assert verdict is said.verdict
    assert code == "".join(finding.code for finding in said.findings)


@pytest.mark.parametrize(
    ("minutes", "verdict"),
    [(59, ClockVerdict.NOTHING), (61, ClockVerdict.DUE), (64, ClockVerdict.DIAGNOSE), (88, ClockVerdict.PAGE)],
)
def test_the_same_fractions_hold_for_ninety_minutes(minutes: int, verdict: ClockVerdict) -> None:
    said = review(clocks(90 * MINUTE, renewal_at=START + 60 * MINUTE), START + minutes * MINUTE)
    assert verdict is said.verdict


def test_the_issuers_own_time_counts_before_ours() -> None:
    assert review(clocks(90 * DAY, renewal_at=START + 10 * DAY), START + 11 * DAY).verdict is ClockVerdict.DUE


def test_an_issuers_time_past_the_end_does_not_silence_us() -> None:
    assert review(clocks(90 * DAY, renewal_at=START + 91 * DAY), START + 89 * DAY).verdict is ClockVerdict.PAGE


def test_another_certificate_at_the_edge_is_stale_and_looked_at_again_soon() -> None:
    said = review(clocks(90 * DAY, NEW, OLD), START + DAY)
    assert said.verdict is ClockVerdict.STALE_AT_EDGE
    assert [finding.code for finding in said.findings] == ["CW1604"]
    assert said.next_look <= START + 5 * DAY


def test_an_edge_that_serves_the_secret_is_well() -> None:
    assert review(clocks(90 * DAY, NEW, NEW), START + DAY).verdict is ClockVerdict.NOTHING


def test_an_expired_secret_is_louder_than_a_stale_edge() -> None:
    said = review(clocks(90 * DAY, OLD), START + 91 * DAY)
    assert said.verdict is ClockVerdict.EXPIRED
    assert [finding.code for finding in said.findings] == ["CW1405", "CW1604"]


@given(
    st.timedeltas(timedelta(minutes=2), timedelta(days=400)),
    st.floats(0, 1.2),
    st.one_of(st.none(), st.floats(0.1, 1.1)),
    st.sampled_from([(), (NEW,), (OLD,), (NEW, OLD)]),
)
def test_the_next_look_lies_ahead_and_no_level_passes_unseen(
    life: timedelta, passed: float, renewal: float | None, served: tuple[str, ...]
) -> None:
    now = START + life * passed
    read = clocks(life, *served, renewal_at=None if renewal is None else START + life * renewal)
    said = review(read, now)
    assert said.next_look > now
    louder = list(ClockVerdict)
    if said.next_look - now > MINUTE:
        assert louder.index(review(read, said.next_look).verdict) <= louder.index(said.verdict) + 1


# --- who is woken -----------------------------------------------------------------------------------------------------

LIFE = 90 * DAY
RECORDED = START + LIFE
ACTIVE = KnownDomain(phase="active", serving="served", not_after=RECORDED, next_check_at=START + 60 * DAY)


def woken(known: KnownDomain, passed: timedelta, *served: str, unreached: int = 0) -> str:
    read = Clocks(subject="shop.example.com", secret=facts(LIFE), served=served, unreached=unreached)
    return wake_reason(read, review(read, START + passed), known)


@pytest.mark.parametrize(
    ("changes", "passed", "served", "word"),
    [
        ({}, 30 * DAY, (), ""),
        ({}, 30 * DAY, (NEW, NEW), ""),
        ({"not_after": RECORDED - 30 * DAY}, 30 * DAY, (), "another certificate"),
        ({"not_after": None}, 30 * DAY, (), ""),
        ({}, 30 * DAY, (NEW, OLD), "not every address"),
        ({"serving": ""}, 30 * DAY, (OLD,), "not every address"),
        ({"serving": "stale"}, 30 * DAY, (OLD,), ""),
        ({"serving": "partly"}, 30 * DAY, (NEW, OLD), ""),
        ({}, 61 * DAY, (), ""),
        ({"next_check_at": START + 70 * DAY}, 61 * DAY, (), "due"),
        ({"next_check_at": None}, 61 * DAY, (), "due"),
        ({"next_check_at": START + 82 * DAY}, 81 * DAY, (), ""),
        ({"next_check_at": START + 200 * DAY}, 91 * DAY, (), "due"),
        ({"phase": ""}, 30 * DAY, (OLD,), "not every address"),
        ({"phase": "issuing", "not_after": None, "next_check_at": None}, 61 * DAY, (), ""),
        ({"phase": "preflight", "not_after": START}, 30 * DAY, (OLD,), ""),
        ({"phase": "retiring"}, 91 * DAY, (OLD,), ""),
    ],
)
def test_only_a_domain_that_does_not_know_is_woken(
    changes: dict[str, Any], passed: timedelta, served: tuple[str, ...], word: str
) -> None:
    reason = woken(dataclasses.replace(ACTIVE, **changes), passed, *served)
    assert bool(word) is bool(reason)
    assert word in reason


def test_a_renewal_that_somebody_else_began_wakes_a_domain_that_is_not_at_it() -> None:
    read = Clocks(subject="shop.example.com", secret=facts(LIFE), issuing=True)
    said = review(read, START + DAY)
    assert "renewed" in wake_reason(read, said, ACTIVE)
    assert not wake_reason(read, said, dataclasses.replace(ACTIVE, phase="renewing"))


def test_an_address_that_presents_nothing_wakes_a_domain_that_believes_it_is_served() -> None:
    assert woken(ACTIVE, DAY, NEW, unreached=1)
    assert not woken(dataclasses.replace(ACTIVE, serving="partly"), DAY, NEW, unreached=1)


def test_half_a_second_is_the_same_certificate() -> None:
    known = dataclasses.replace(ACTIVE, not_after=RECORDED + timedelta(milliseconds=500))
    assert woken(known, DAY) == ""


def test_a_missing_secret_wakes_a_domain_that_sleeps() -> None:
    assert wake_reason_without_secret(ACTIVE, START)
    assert not wake_reason_without_secret(dataclasses.replace(ACTIVE, next_check_at=START + 30 * MINUTE), START)
    assert not wake_reason_without_secret(dataclasses.replace(ACTIVE, phase="issuing"), START)
