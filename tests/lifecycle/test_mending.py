"""What a domain may do about itself, what it records of that, and what is told while nothing moves."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lifecycle import findings
from lifecycle.blame import Action, Remedy
from lifecycle.diagnosing import Diagnosis, diagnose
from lifecycle.domain import IssuerRef, OnboardingRequest
from lifecycle.mending import Mended, mend_report, standstill, tenants
from lifecycle.platform import Permission, permission_finding
from tests.lifecycle.test_diagnosing import CERTIFICATE, HOSTNAME, NOW, deleted, issuing, made, seen, solving

REQUEST = OnboardingRequest(tenant="acme", hostnames=(HOSTNAME,), issuer=IssuerRef(name="le"), routes=())
CAUSE = findings.SOLVER_NOT_READY.found(subject="Pod istio-system/solver", problem="It is gone.", fix="Look at it.")
REMEDY = Remedy(action=Action.DELETE, kind="Challenge", namespace="istio-system", name="shop-1-77-5", words="delete it")


def diagnosis(**more: Any) -> Diagnosis:
    first = Diagnosis(certificate="istio-system/shop", hostnames=(HOSTNAME,), healthy=False, summary="it is to blame")
    return dataclasses.replace(first, **more)


def left(name: str, certificate: str = "") -> Any:
    """A CertificateRequest that is in the way."""
    return made(name, annotations={"cert-manager.io/certificate-name": certificate} if certificate else {})


@pytest.mark.parametrize(
    ("snapshot", "may"),
    [
        (solving(routes=()), True),
        (seen(requests=(left("shop-1", "shop"),)), True),
        (solving(solver_pods=()), True),
        # the Certificate of another domain, or of nobody's
        (solving(routes=(), certificate={**CERTIFICATE, "metadata": made("shop")["metadata"]}), False),
    ],
)
def test_a_domain_may_do_what_concerns_its_own_certificate(snapshot: Any, may: bool) -> None:
    remedy = diagnose(snapshot).remedy
    assert may == (remedy is not None and tenants(REQUEST, snapshot, remedy))


def test_a_challenge_of_another_certificate_for_the_same_name_is_the_operators() -> None:
    theirs = deleted()
    theirs["metadata"] |= {"name": "other-1-3-9", "ownerReferences": []}
    snapshot = issuing(orders=(), requests=(), challenges=(theirs,))
    remedy = diagnose(snapshot).remedy
    assert remedy is not None
    assert (remedy.action, remedy.own) == (Action.RELEASE, False)
    assert not tenants(REQUEST, snapshot, remedy)


def test_one_more_issuance_is_the_domains_own_to_ask_for() -> None:
    renew = dataclasses.replace(REMEDY, action=Action.RENEW)
    assert not tenants(REQUEST, seen(), renew)
    assert mend_report(diagnosis(cause=CAUSE, findings=(CAUSE,), remedy=renew), (), NOW).renewal


def test_what_was_done_is_told_with_its_cause() -> None:
    done = Mended(remedy=dataclasses.replace(REMEDY, renew=True), done=True, words="done", cause=CAUSE)
    report = mend_report(diagnosis(), (done,), NOW)
    assert [line.detail for line in report.evidence] == [
        "fixed: delete it. The cause: CW1354 Pod istio-system/solver: It is gone."
    ]
    assert report.issuing
    failed = dataclasses.replace(done, done=False, words="it may not")
    report = mend_report(diagnosis(), (failed,), NOW)
    assert ([line.detail for line in report.evidence], report.issuing) == (["not fixed: delete it: it may not"], False)


def test_where_nothing_is_done_the_cause_is_told_and_what_may_not_be_seen_is_not() -> None:
    unseen = permission_finding(Permission("list", "", "events", "istio-system"))
    warning = dataclasses.replace(unseen, severity=findings.Severity.WARNING)
    report = mend_report(diagnosis(cause=CAUSE, findings=(CAUSE, warning, unseen)), (), NOW)
    assert report.evidence[0].detail.startswith("nothing was done by itself. The cause: CW1354")
    assert report.findings == (CAUSE, unseen)
    nothing = mend_report(diagnosis(cause=warning, findings=(warning,), summary="nothing is wrong"), (), NOW)
    assert nothing.evidence[0].detail == "nothing to do: nothing is wrong"


def test_while_nothing_moves_the_cause_is_told_with_what_would_be_done() -> None:
    told = standstill(diagnosis(cause=CAUSE, findings=(CAUSE,), remedy=REMEDY), HOSTNAME, NOW)
    assert told.cause is not None
    assert told.cause.fix == f"Look at it. Or: certwright diagnose {HOSTNAME} --fix, to delete it."
    assert told.since == NOW
    assert standstill(diagnosis(), HOSTNAME, NOW).cause is None


@pytest.mark.parametrize(("kind", "told"), [(findings.CHALLENGE_NOT_REACHABLE, True), (findings.NAME_IN_MOTION, False)])
def test_of_warnings_only_cert_managers_own_look_that_fails_is_a_cause(kind: findings.FindingKind, told: bool) -> None:
    warning = kind.found(subject=HOSTNAME, problem="404", fix="Look.")
    assert told == (standstill(diagnosis(cause=warning, findings=(warning,)), HOSTNAME, NOW).cause is not None)
