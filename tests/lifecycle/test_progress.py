"""How a domain's state changes, and what a person reads of it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

from lifecycle import findings, progress
from lifecycle.domain import (
    ActionRequired,
    CertificateStatus,
    DnsRecord,
    IssuerRef,
    Observation,
    OnboardingRequest,
    Phase,
    QuotaPlace,
    Route,
    RoutingStatus,
    ServingStatus,
)
from lifecycle.steps import Hindrance

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
STATE = progress.begin(
    OnboardingRequest(
        tenant="acme",
        hostnames=("shop.example.com", "www.shop.example.com"),
        issuer=IssuerRef(name="letsencrypt"),
        routes=(Route(prefix="/", service="frontend-service", port=80),),
    )
)


def found(number: int) -> findings.Finding:
    return findings.STEP_FAILED.found(subject=f"s{number}", problem="It is so.", fix="Mend it.")


def test_a_domain_begins_with_nothing_known() -> None:
    status = STATE.status
    assert (
        status.phase,
        status.routing,
        status.certificate,
        status.serving,
    ) == (Phase.REQUESTED, RoutingStatus.UNKNOWN, CertificateStatus.NONE, ServingStatus.NONE)


def test_findings_are_kept_few_and_each_once() -> None:
    many = tuple(found(number) for number in range(50))
    shown = progress.shown(STATE, findings=(many[0], *many))
    assert many[: progress.MOST_FINDINGS] == shown.status.findings


def test_evidence_is_bounded_and_the_oldest_goes_first() -> None:
    lines = tuple(Observation(at=NOW, step=str(number), detail="x" * 1000) for number in range(60))
    noted = progress.noted(progress.noted(STATE, *lines[:30]), *lines[30:])
    assert [str(number) for number in range(20, 60)] == [line.step for line in noted.status.evidence]
    assert {progress.LONGEST_DETAIL} == {len(line.detail) for line in noted.status.evidence}


def test_broken_surroundings_are_read_first_and_change_nothing() -> None:
    again = NOW + timedelta(seconds=10)
    hindrance = Hindrance(step="apply it", problem="connection refused", since=NOW, again_by=again)
    status = dataclasses.replace(STATE.status, findings=(found(1),))
    read = progress.hindered(status, hindrance)
    assert [findings.SURROUNDINGS_BROKEN.code, findings.STEP_FAILED.code] == [item.code for item in read.findings]
    assert again == read.waiting_until
    assert "surroundings broken since 12:00:00 UTC" in read.step
    assert status == progress.hindered(status, None)
    assert status == progress.hindered(status, Hindrance(step="apply it"))


def test_a_suspended_domain_begins_its_waits_anew() -> None:
    waited = dataclasses.replace(STATE, checks=9, reminders=3, waiting_since=NOW, failures=8, failed_at=NOW)
    suspended = progress.suspended(progress.shown(waited, findings=(found(1),), next_check_at=NOW), "Nothing came.")
    assert Phase.SUSPENDED is suspended.status.phase
    assert (
        suspended.checks,
        suspended.reminders,
        suspended.waiting_since,
        suspended.failures,
        suspended.failed_at,
    ) == (0, 0, None, 0, None)
    assert suspended.status.next_check_at is None
    assert [findings.DOMAIN_SUSPENDED.code, findings.STEP_FAILED.code] == [
        item.code for item in suspended.status.findings
    ]


def test_a_domains_page_has_its_state_the_exact_record_and_the_findings() -> None:
    record = DnsRecord(name="shop.example.com", type="A", value="203.0.113.7")
    status = dataclasses.replace(
        STATE.status,
        action_required=ActionRequired(summary="Set this record.", records=(record,)),
        findings=(found(1),),
        next_check_at=NOW,
    )
    page = progress.markdown(status)
    assert "**shop.example.com** is requested" in page
    assert "- `shop.example.com A 203.0.113.7`" in page
    assert "- CW1902 StepFailed (s1): It is so. Mend it." in page
    assert "2027-01-01 12:00:00 UTC" in page


def test_a_domains_page_says_where_it_waits_for_its_order() -> None:
    waits = QuotaPlace(account="https://acme.example/acct/1", lane="new", place=17, expected_at=NOW)
    page = progress.markdown(dataclasses.replace(STATE.status, quota=waits))
    assert "Waits for its turn to order: place 17, expected 2027-01-01 12:00:00 UTC" in page
