"""How far an issuance is, by the Certificate's own conditions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle.issuance import (
    Progress,
    askable_at,
    belongs,
    certificate_progress,
    issuing_by_hand,
    issuing_since,
    parts,
    ready_seconds,
    silence,
)


def condition(kind: str, status: str, message: str = "", generation: int = 1) -> dict[str, Any]:
    return {"type": kind, "status": status, "message": message, "observedGeneration": generation}


def certificate(*conditions: dict[str, Any], **status: object) -> dict[str, Any]:
    metadata = {"name": "shop", "namespace": "istio-system", "generation": 1}
    return {"metadata": metadata, "status": {"conditions": list(conditions), **status}}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (certificate(), Progress.WAITING),
        (certificate(condition("Ready", "False"), condition("Issuing", "True")), Progress.WAITING),
        (certificate(condition("Ready", "False")), Progress.WAITING),
        (certificate(condition("Ready", "True")), Progress.READY),
        (certificate(condition("Ready", "True", generation=0)), Progress.WAITING),
        (certificate(condition("Ready", "True"), condition("Issuing", "True")), Progress.WAITING),
        (
            certificate(condition("Issuing", "False", "order failed"), lastFailureTime="2026-11-24T08:00:00Z"),
            Progress.FAILED,
        ),
    ],
)
def test_progress(seen: dict[str, Any], expected: Progress) -> None:
    assert expected is certificate_progress(seen).progress


def test_a_certificate_without_a_status_waits() -> None:
    assert certificate_progress({"metadata": {"name": "a", "namespace": "b"}}).progress is Progress.WAITING


def test_a_ready_certificate_tells_its_renewal_time() -> None:
    seen = certificate(condition("Ready", "True"), renewalTime="2026-12-01T00:00:00Z")
    assert certificate_progress(seen).renewal_at == datetime(2026, 12, 1, tzinfo=UTC)


def test_a_failure_is_a_finding_with_the_words_of_cert_manager() -> None:
    failed = condition("Issuing", "False", "The certificate request has failed\n" + "x" * 400)
    progress = certificate_progress(certificate(failed, lastFailureTime="2026-11-24T08:00:00Z"))
    (finding,) = progress.findings
    assert finding.code == "CW1310"
    assert len(finding.problem) <= 300
    assert "\n" not in finding.problem


def test_a_challenge_token_is_not_repeated() -> None:
    words = 'wrong status code "404", GET "http://shop.example.com/.well-known/acme-challenge/c2VjcmV0LXRva2Vu"'
    condition = {"type": "Issuing", "status": "True", "message": words}
    certificate = {"metadata": {"name": "shop", "namespace": "ns"}, "status": {"conditions": [condition]}}
    reason = certificate_progress(certificate).reason
    assert "c2VjcmV0LXRva2Vu" not in reason
    assert "404" in reason


NOW = datetime(2026, 11, 24, 8, 0, 30, tzinfo=UTC)


def owned(name: str, owner: str, revision: int = 0, created: str = "2026-11-24T08:00:00Z") -> dict[str, Any]:
    annotations = {"cert-manager.io/certificate-name": "shop", "cert-manager.io/certificate-revision": str(revision)}
    metadata = {"name": name, "uid": name, "creationTimestamp": created, "annotations": annotations}
    return {"metadata": {**metadata, "ownerReferences": [{"uid": owner, "name": owner}]}}


def made(*conditions: dict[str, Any], created: str = "2026-11-24T08:00:00Z", **status: object) -> dict[str, Any]:
    whole = certificate(*conditions, **status)
    return {**whole, "metadata": {**whole["metadata"], "creationTimestamp": created}}


def test_only_the_latest_revision_is_the_present_issuance() -> None:
    requests = [owned("r1", "shop", 1), owned("r2", "shop", 2)]
    orders = [owned("o1", "r1"), owned("o2", "r2")]
    challenges = [owned("c1", "o1"), owned("c2", "o2")]
    present = parts(made(), requests, orders, challenges)
    assert [one["metadata"]["name"] for part in present for one in part] == ["r2", "o2", "c2"]


def test_what_is_older_than_the_certificate_was_of_an_earlier_one_of_its_name() -> None:
    later = made(created="2026-11-24T08:00:01Z")
    assert not belongs(owned("o", "r"), later)
    assert belongs(owned("o", "r"), made())
    other = {"metadata": {"name": "o", "creationTimestamp": "2026-11-24T09:00:00Z"}}
    assert not belongs(other, made())


@pytest.mark.parametrize(
    ("seen", "orders", "controllers", "words"),
    [
        (made(condition("Issuing", "True")), [], None, ""),
        (made(condition("Issuing", "True")), [], 1, ""),
        (made(condition("Issuing", "True")), [], 0, "controller is not running"),
        (made(), [], None, "has not looked at the Certificate since 08:00:00 UTC"),
        (made(created="2026-11-24T08:00:25Z"), [], None, ""),
        (made(condition("Issuing", "True")), [owned("o", "r")], 1, "CA has not taken the order since 08:00:00 UTC"),
        (
            made(condition("Issuing", "True")),
            [{**owned("o", "r"), "status": {"url": "https://ca.example/1"}}],
            1,
            "",
        ),
        (made(condition("Issuing", "True")), [owned("o", "r", created="2026-11-24T08:00:25Z")], 1, ""),
    ],
)
def test_who_is_silent(seen: dict[str, Any], orders: list[dict[str, Any]], controllers: int | None, words: str) -> None:
    said = silence(seen, orders, controllers=controllers, now=NOW)
    assert words in said
    assert bool(words) is bool(said)


def test_cert_managers_own_time() -> None:
    ready = {**condition("Ready", "True"), "lastTransitionTime": "2026-11-24T08:00:12Z"}
    assert ready_seconds(made(ready), None, NOW) == 12.0
    began = datetime(2026, 11, 24, 8, 0, 20, tzinfo=UTC)
    assert ready_seconds(made(ready), began, NOW) == 10.0  # Ready did not change during the renewal
    assert ready_seconds(made(ready), datetime(2026, 11, 24, 8, 0, 5, tzinfo=UTC), NOW) == 7.0


def test_a_renewal_is_asked_for_as_cmctl_does_it() -> None:
    asked = issuing_by_hand(made(condition("Ready", "True"), condition("Issuing", "False")), NOW)
    assert asked is not None
    assert [(one["type"], one["status"]) for one in asked] == [("Ready", "True"), ("Issuing", "True")]
    assert (asked[1]["reason"], asked[1]["lastTransitionTime"]) == ("ManuallyTriggered", "2026-11-24T08:00:30Z")


def test_an_issuance_under_way_is_not_asked_for_again() -> None:
    issuing = {**condition("Issuing", "True"), "lastTransitionTime": "2026-11-24T08:00:00Z"}
    assert issuing_by_hand(made(issuing), NOW) is None
    assert issuing_since(made(issuing)) == datetime(2026, 11, 24, 8, tzinfo=UTC)


def test_a_second_lies_between_a_failure_and_the_next_wish() -> None:
    assert askable_at(made()) is None
    assert askable_at(made(lastFailureTime="2026-11-24T08:00:30Z")) == NOW + timedelta(seconds=1)


def test_failures_are_counted_since_their_times_do_not_tell_them_apart() -> None:
    failed = condition("Issuing", "False", "no")
    seen = certificate_progress(
        made(condition("Ready", "True"), failed, lastFailureTime="2026-11-24T08:00:30Z", failedIssuanceAttempts=2)
    )
    assert (seen.progress, seen.failures, seen.issuing) == (Progress.READY, 2, False)
