"""How far an issuance is, by the Certificate's own conditions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from lifecycle.issuance import Progress, certificate_progress


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
