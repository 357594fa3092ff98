"""What cert-manager and the CA say becomes a finding with a fix; foreign words are cut, tokens never repeated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lifecycle.diagnosis import issuance_findings, issuer_status, said, secret_collision
from lifecycle.domain import IssuerKind, IssuerRef

TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"


def challenge(state: str = "pending", reason: str = "", *, presented: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": "c", "namespace": "istio-system"},
        "spec": {"dnsName": "shop.example.com", "token": TOKEN},
        "status": {"state": state, "reason": reason, "presented": presented, "processing": True},
    }


def order(state: str, reason: str = "") -> dict[str, Any]:
    return {"metadata": {"name": "o", "namespace": "istio-system"}, "status": {"state": state, "reason": reason}}


def request(message: str, *, kind: str = "Ready", status: str = "False", reason: str = "Pending") -> dict[str, Any]:
    return {
        "metadata": {"name": "r", "namespace": "istio-system"},
        "spec": {"issuerRef": {"name": "le", "kind": "ClusterIssuer"}},
        "status": {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]},
    }


def certificate(**status: object) -> dict[str, Any]:
    return {"metadata": {"name": "shop", "namespace": "istio-system"}, "status": status}


RATE_LIMIT = (
    "Failed to create Order: 429 urn:ietf:params:acme:error:rateLimited: too many certificates (5) already issued for "
    "this exact set of identifiers in the last 168h0m0s, retry after 2026-11-25 09:10:11 UTC"
)


@pytest.mark.parametrize(
    ("order_reason", "code"),
    [
        (RATE_LIMIT, "CW1302"),
        ("403 urn:ietf:params:acme:error:caa: CAA record for shop.example.com prevents issuance", "CW1305"),
        ("400 urn:ietf:params:acme:error:rejectedIdentifier: policy forbids issuing for name", "CW1312"),
        ("Your account is temporarily paused for shop.example.com", "CW1306"),
        ("something new", "CW1301"),
        ("", "CW1301"),
    ],
)
def test_a_failed_order_is_told_by_its_reason(order_reason: str, code: str) -> None:
    (finding,) = issuance_findings(certificate(), (), (order("errored", order_reason),), ())
    assert code == finding.code
    assert finding.fix


def test_the_cas_own_time_is_the_fix_of_a_rate_limit() -> None:
    (finding,) = issuance_findings(certificate(), (), (order("errored", RATE_LIMIT),), ())
    assert finding.fix == "Wait until 2026-11-25 09:10:11 UTC, then renew."


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (challenge("invalid", "Invalid response from http://shop.example.com: 404"), "CW1303"),
        (challenge("invalid", "DNS problem: SERVFAIL looking up CAA for example.com: error:caa"), "CW1305"),
        (challenge("pending", "Waiting for HTTP-01 challenge propagation: wrong status code '404'"), "CW1304"),
        (challenge("", "no configured challenge solvers can be used for this challenge", presented=False), "CW1307"),
    ],
)
def test_a_challenge_is_told_by_its_state_and_reason(seen: dict[str, Any], code: str) -> None:
    (finding,) = issuance_findings(certificate(), (), (), (seen,))
    assert code == finding.code


@pytest.mark.parametrize("state", ["valid", "processing", "pending"])
def test_a_challenge_that_goes_its_way_is_no_finding(state: str) -> None:
    assert issuance_findings(certificate(), (), (order("pending"),), (challenge(state),)) == ()


def test_an_order_that_failed_by_its_challenge_is_not_told_twice() -> None:
    found = issuance_findings(certificate(), (), (order("invalid"),), (challenge("invalid", "404"),))
    assert [finding.code for finding in found] == ["CW1303"]


@pytest.mark.parametrize(
    ("made", "codes"),
    [
        (request("no", kind="Denied", status="True"), ["CW1308"]),
        (request('Referenced "ClusterIssuer" not found: clusterissuer.cert-manager.io "le" not found'), ["CW1201"]),
        (request("Referenced issuer does not have a Ready status condition"), ["CW1202"]),
        (request('orders.acme.cert-manager.io "x" already exists', reason="Failed"), ["CW1309"]),
        (request("Waiting on certificate issuance from order x: pending"), []),
        (request("Certificate fetched from issuer successfully", status="True"), []),
    ],
)
def test_a_request_is_told_by_its_conditions(made: dict[str, Any], codes: list[str]) -> None:
    assert codes == [finding.code for finding in issuance_findings(certificate(), (made,), (), ())]


@pytest.mark.parametrize(
    ("attempts", "again"), [(1, "2026-11-24 09:00"), (3, "2026-11-24 12:00"), (60, "2026-11-25 16:00")]
)
def test_the_next_try_of_cert_manager_is_named(attempts: int, again: str) -> None:
    failing = certificate(failedIssuanceAttempts=attempts, lastFailureTime="2026-11-24T08:00:00Z")
    (finding,) = issuance_findings(failing, (), (), ())
    assert (finding.code, f"again at {again} UTC" in finding.problem) == ("CW1311", True)


def test_foreign_words_are_cut_and_hold_no_token() -> None:
    words = said(f"GET request 'http://shop.example.com/.well-known/acme-challenge/{TOKEN}':\n timeout " + "x" * 500)
    assert TOKEN not in words
    assert "\n" not in words
    assert len(words) == 300


def issuer(status: str, reason: str, message: str = "", *, generation: int = 1) -> dict[str, Any]:
    condition = {"type": "Ready", "status": status, "reason": reason, "message": message, "observedGeneration": 1}
    return {
        "metadata": {"name": "le", "generation": generation},
        "status": {"conditions": [condition], "acme": {"uri": "https://ca.example/acct/1"}},
    }


@pytest.mark.parametrize(
    ("seen", "ready", "codes"),
    [
        (None, False, ["CW1201"]),
        ({"metadata": {"name": "le", "generation": 1}}, False, []),
        (issuer("True", "ACMEAccountRegistered"), True, []),
        (issuer("True", "ACMEAccountRegistered", generation=2), False, []),
        (issuer("False", "ErrRegisterACMEAccount", "403 unauthorized"), False, ["CW1203"]),
        (issuer("False", "ErrRegisterACMEAccount", "dial tcp 192.0.2.1:443: i/o timeout"), False, ["CW1205"]),
        (issuer("False", "InvalidConfig", "v1 endpoint"), False, ["CW1204"]),
        (issuer("False", "ErrGetKeyPair", 'Error getting keypair: secrets "root" not found'), False, ["CW1206"]),
        (issuer("False", "ErrGetKeyPair", "Error getting keypair: error decoding"), False, ["CW1204"]),
        (issuer("False", "ErrInvalidKeyPair", "is not a CA"), False, ["CW1204"]),
        (issuer("False", "VaultError", "Failed to initialize Vault client"), False, ["CW1202"]),
        (issuer("False", "Other"), False, ["CW1202"]),
    ],
)
def test_an_issuer_is_told_by_its_ready_condition(seen: dict[str, Any] | None, ready: bool, codes: list[str]) -> None:
    status = issuer_status(IssuerRef(name="le"), seen, step="await")
    assert (ready, codes) == (status.ready, [finding.code for finding in status.findings])


@pytest.mark.parametrize(
    ("state", "reason", "codes", "fix"),
    [
        ("pending", "", [], ""),
        ("pending", 'DNS record for "shop.example.com" not yet propagated', ["CW1304"], "dig TXT _acme-challenge.shop"),
        ("invalid", "During secondary validation: no TXT", ["CW1303"], "dig TXT _acme-challenge.shop.example.com"),
        ("invalid", "urn:ietf:params:acme:error:caa", ["CW1305"], "CAA"),
        ("pending", "gateway api is not enabled", ["CW1204"], "enableGatewayAPI"),
        ("valid", "done", [], ""),
    ],
)
def test_a_challenge_by_dns_is_told_with_its_record(state: str, reason: str, codes: list[str], fix: str) -> None:
    made = challenge(state, reason)
    made["spec"]["type"] = "DNS-01"
    found = issuance_findings(certificate(), (), (), (made,))
    assert codes == [finding.code for finding in found]
    assert all(fix in finding.fix for finding in found)


def test_an_issuer_says_what_it_is_and_can_prove() -> None:
    seen = issuer("True", "ACMEAccountRegistered")
    solver = {"dns01": {"rfc2136": {"nameserver": "ns1"}}}
    seen["spec"] = {"acme": {"server": "https://ca.example/dir", "profile": "short", "solvers": [solver]}}
    status = issuer_status(IssuerRef(name="le"), seen)
    assert (status.type, status.server, status.profile, status.wildcard) == (
        "acme",
        "https://ca.example/dir",
        "short",
        True,
    )
    assert json.loads(status.solvers) == [solver]


def test_an_issuer_in_a_namespace_is_named_with_it() -> None:
    ref = IssuerRef(name="le", kind=IssuerKind.ISSUER, namespace="istio-system")
    assert issuer_status(ref, None).findings[0].subject == "Issuer istio-system/le"


@pytest.mark.parametrize(
    ("annotations", "code"),
    [
        ({"cert-manager.io/certificate-name": "shop"}, None),
        ({"cert-manager.io/certificate-name": "other"}, "CW1407"),
        (None, "CW1407"),
    ],
)
def test_a_secret_of_somebody_else_is_not_overwritten(annotations: dict[str, str] | None, code: str | None) -> None:
    metadata = {"name": "shop-tls", "namespace": "istio-system", "annotations": annotations}
    finding = secret_collision({"metadata": metadata}, "shop")
    assert code == (finding.code if finding else None)
    assert secret_collision(None, "shop") is None


def test_a_challenge_that_failed_comes_before_one_that_waits() -> None:
    waiting = challenge("pending", "wrong status code '404'")
    found = issuance_findings(certificate(), (), (), (waiting, challenge("invalid", "refused")))
    assert [finding.code for finding in found] == ["CW1303", "CW1304"]
