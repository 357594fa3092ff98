"""How bad it is that a renewal has not come, by fractions of the life that was left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lifecycle import findings
from lifecycle.domain import CertificateFacts
from lifecycle.escalation import LOOKS, Level, escalate, renewal_time

START = datetime(2027, 1, 1, tzinfo=UTC)


def facts(life: timedelta) -> CertificateFacts:
    return CertificateFacts(
        fingerprint="ab" * 32,
        serial="1",
        issuer="CN=R11",
        dns_names=("shop.example.com",),
        not_before=START,
        not_after=START + life,
        public_key="ECDSA 256",
    )


@pytest.mark.parametrize("days", [6, 47, 90])
@pytest.mark.parametrize(
    ("part", "level", "kind"),
    [
        (-0.01, Level.WAIT, None),
        (0.09, Level.WAIT, None),
        (0.11, Level.DIAGNOSE, findings.RENEWAL_OVERDUE),
        (0.66, Level.DIAGNOSE, findings.RENEWAL_OVERDUE),
        (0.67, Level.ALERT, findings.EXPIRY_NEAR),
        (0.89, Level.ALERT, findings.EXPIRY_NEAR),
        (0.91, Level.PAGE, findings.EXPIRY_IMMINENT),
        (1.0, Level.EXPIRED, findings.CERTIFICATE_EXPIRED),
        (2.0, Level.EXPIRED, findings.CERTIFICATE_EXPIRED),
    ],
)
def test_short_and_long_certificates_are_watched_alike(
    days: int, part: float, level: Level, kind: findings.FindingKind | None
) -> None:
    certificate = facts(timedelta(days=days))
    due = renewal_time(certificate, None)
    now = due + (certificate.not_after - due) * part
    seen = escalate(certificate, None, now, hostname="shop.example.com")
    assert level is seen.level
    assert ([kind.code] if kind else []) == [item.code for item in seen.findings]
    assert now + (certificate.not_after - due) / LOOKS == seen.look_at


def test_the_issuers_renewal_time_is_believed_unless_it_is_after_the_end() -> None:
    certificate = facts(timedelta(days=90))
    said = START + timedelta(days=80)
    assert said == renewal_time(certificate, said)
    assert START + timedelta(days=60) == renewal_time(certificate, None)
    assert START + timedelta(days=60) == renewal_time(certificate, START + timedelta(days=91))


def test_a_certificate_of_minutes_is_not_looked_at_without_a_pause() -> None:
    certificate = facts(timedelta(minutes=3))
    now = certificate.not_after
    assert now + timedelta(minutes=1) == escalate(certificate, None, now, hostname="shop.example.com").look_at
