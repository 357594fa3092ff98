"""Who is rehearsed, where, and what its shadow is: nothing that anybody else could take for a domain's own."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle import findings, manifests, names, rehearsal
from lifecycle.certificate_details import Keystore
from lifecycle.domain import (
    CertificateFacts,
    CertificateSpec,
    IssuerKind,
    IssuerRef,
    OnboardingRequest,
    Rehearsal,
    Route,
)
from lifecycle.steps import IssuanceResult

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
NAME = "shop.example.com"
STAGE = IssuerRef(name="le-staging")
REQUEST = OnboardingRequest(
    tenant="acme",
    hostnames=(NAME, "www.shop.example.com"),
    issuer=IssuerRef(name="le"),
    routes=(Route(prefix="/", service="frontend", port=80),),
)


def issuer(said: str | None, *, namespace: str = "") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "le", **({"namespace": namespace} if namespace else {})}
    if said is not None:
        metadata["annotations"] = {"certwright.dev/rehearsal-issuer": said}
    return {"kind": "Issuer" if namespace else "ClusterIssuer", "metadata": metadata}


def certificate(issuer_name: str, *, ready: bool = True, kind: str = "ClusterIssuer") -> dict[str, Any]:
    return {
        "metadata": {"name": "other", "namespace": "default"},
        "spec": {"issuerRef": {"group": "cert-manager.io", "kind": kind, "name": issuer_name}},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


READY: dict[str, Any] = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def asked(mode: Rehearsal) -> OnboardingRequest:
    return dataclasses.replace(REQUEST, rehearsal=mode)


@pytest.mark.parametrize(
    ("said", "namespace", "expected"),
    [
        (None, "", None),
        ("", "", None),
        ("none", "", None),
        ("le-staging", "", STAGE),
        ("ClusterIssuer/le-staging", "", STAGE),
        ("ClusterIssuer/le-staging", "shop", STAGE),
        ("le-staging", "shop", IssuerRef(name="le-staging", kind=IssuerKind.ISSUER, namespace="shop")),
        ("Issuer/le-staging", "shop", IssuerRef(name="le-staging", kind=IssuerKind.ISSUER, namespace="shop")),
        ("Issuer/le-staging", "", STAGE),
    ],
)
def test_an_issuer_names_its_counterpart(said: str | None, namespace: str, expected: IssuerRef | None) -> None:
    assert expected == rehearsal.counterpart(issuer(said, namespace=namespace))


def test_an_issuer_that_is_not_there_names_none() -> None:
    assert rehearsal.counterpart(None) is None


@pytest.mark.parametrize(
    ("mode", "said", "certificates", "expected"),
    [
        (Rehearsal.FIRST, "le-staging", [], STAGE),
        (Rehearsal.FIRST, "le-staging", [certificate("le", ready=False)], STAGE),
        (Rehearsal.FIRST, "le-staging", [certificate("le-staging")], STAGE),
        (Rehearsal.FIRST, "le-staging", [certificate("le", kind="Issuer")], STAGE),
        (Rehearsal.FIRST, "le-staging", [rehearsal.shadow(REQUEST, REQUEST.issuer) | READY], STAGE),
        (Rehearsal.FIRST, "le-staging", [certificate("le-staging"), certificate("le")], None),
        (Rehearsal.FIRST, None, [], None),
        (Rehearsal.FIRST, "none", [], None),
        (Rehearsal.ALWAYS, "le-staging", [certificate("le")], STAGE),
        (Rehearsal.ALWAYS, "none", [], None),
        (Rehearsal.NEVER, "le-staging", [], None),
    ],
)
def test_an_issuer_is_new_until_a_certificate_of_it_is_ready(
    mode: Rehearsal, said: str | None, certificates: list[dict[str, Any]], expected: IssuerRef | None
) -> None:
    assert expected == rehearsal.stage_of(asked(mode), issuer(said), certificates)


def ready(status: str) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": status, "observedGeneration": 1, "message": "no account"}]
    return {"metadata": {"name": "x", "generation": 1}, "spec": {}, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("at", "document", "words"),
    [
        (STAGE, ready("True"), None),
        (STAGE, ready("False"), "no account"),
        (STAGE, None, "is not there"),
        (STAGE, {"metadata": {"name": "x", "generation": 1}, "spec": {}}, "has not looked yet"),
        (REQUEST.issuer, ready("True"), "the issuer itself"),
    ],
)
def test_a_stage_that_cannot_be_used_is_told_with_the_way_around(
    at: IssuerRef, document: dict[str, Any] | None, words: str | None
) -> None:
    found = rehearsal.stage_finding(REQUEST, at, document)
    if words is None:
        assert found is None
        return
    assert found is not None
    assert found.code == "CW1260"
    assert words in found.problem
    assert "kubectl annotate clusterissuer le --overwrite certwright.dev/rehearsal-issuer=none" in found.fix


FULL = CertificateSpec(
    key_size=384,
    duration_seconds=7776000,
    secret_labels=(("copy-to", "everywhere"),),
    secret_annotations=(("reflector/allowed", "true"),),
    temporary=True,
    jks=Keystore(secret="password", key="password"),
    pkcs12=Keystore(secret="password", key="password"),
)


def test_a_shadow_is_the_real_certificate_for_the_ca_and_nothing_else() -> None:
    request = dataclasses.replace(REQUEST, certificate=FULL)
    real, made = manifests.certificate(request), rehearsal.shadow(request, STAGE)
    seen_by_the_ca = ("dnsNames", "privateKey", "usages", "duration")
    assert [real["spec"][field] for field in seen_by_the_ca] == [made["spec"][field] for field in seen_by_the_ca]
    assert made["spec"]["issuerRef"] == {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "le-staging"}
    assert made["spec"]["secretName"] == names.rehearsal_name(NAME) != real["spec"]["secretName"]
    assert made["metadata"]["name"] == names.rehearsal_name(NAME) != real["metadata"]["name"]
    assert made["metadata"]["namespace"] == real["metadata"]["namespace"]
    assert made["spec"]["secretTemplate"] == {"labels": {"certwright.dev/rehearsal": "true"}}
    assert "keystores" not in made["spec"]
    assert set(made["metadata"]["annotations"]) == {"certwright.dev/domain", "certwright.dev/tenant"}
    assert real["metadata"]["labels"].items() < made["metadata"]["labels"].items()  # so that it takes the same solver
    assert (rehearsal.is_shadow(made), rehearsal.is_shadow(real)) == (True, False)


@pytest.mark.parametrize("hostname", [NAME, "*.example.com", "a" * 60 + ".example.com", "7.example.com"])
def test_a_shadows_name_fits_and_begins_like_nobody_elses(hostname: str) -> None:
    name = names.rehearsal_name(hostname)
    assert len(name) <= 63
    assert not name.startswith(names.certificate_name(hostname))
    assert name != names.certificate_name(f"rehearsal-{hostname.removeprefix('*.')}")


def test_a_failed_rehearsal_says_that_nothing_was_ordered_and_why() -> None:
    cause = findings.CHALLENGE_FAILED.found(subject=NAME, problem="404 seen.", fix="Open port 80.")
    waits = findings.ISSUANCE_BACKING_OFF.found(subject=NAME, problem="cert-manager waits.", fix="Wait.")
    told = rehearsal.failed(
        REQUEST, STAGE, IssuanceResult(ready=False, order="a", orders=1, findings=(cause, waits), cause_seen=True)
    )
    assert [one.code for one in told.findings] == ["CW1360", "CW1303"]
    assert told.findings[0].problem == (
        "Rehearsed at ClusterIssuer le-staging, and it failed; nothing was ordered of ClusterIssuer le. 404 seen."
    )
    assert told.findings[0].fix.startswith("Open port 80.")
    assert told.findings[0].fix.endswith("annotate clusterissuer le --overwrite certwright.dev/rehearsal-issuer=none")
    assert (told.ready, told.order, told.orders, told.cause_seen) == (False, "", 0, True)


def test_a_rehearsal_that_went_well_is_one_line_of_evidence() -> None:
    facts = CertificateFacts(
        fingerprint="ab" * 32,
        serial="1",
        issuer="CN=(STAGING) Pretend Pear X1",
        dns_names=REQUEST.hostnames,
        not_before=NOW,
        not_after=NOW + timedelta(days=90),
        public_key="ECDSA 256",
    )
    line = rehearsal.observed(STAGE, facts, 4.0, NOW)
    assert line.step == "rehearsal"
    assert line.detail == (
        "rehearsed at ClusterIssuer le-staging: abababababababab… by CN=(STAGING) Pretend Pear X1 after 4 s, "
        "names and key as asked for; it was taken away"
    )
