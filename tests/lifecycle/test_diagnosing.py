"""One cause and one remedy over a snapshot: what comes first, what is nobody's fault, what is done by itself."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle import findings
from lifecycle.blame import Action
from lifecycle.caa import CaaClimb, CaaLevel, CaaRecord
from lifecycle.chain import LinkState
from lifecycle.challenge_path import Ending, PathAnswer
from lifecycle.delegation import Delegation, DnsChallenge, DnsSolver, DynamicUpdates
from lifecycle.diagnosing import RULES, Diagnosis, diagnose
from lifecycle.domain import GatewayKind, TlsMode, TlsSettings, TlsVersion
from lifecycle.platform import Permission, permission_finding
from lifecycle.routing import DnsAnswer, Lookup
from lifecycle.snapshot import Snapshot, issuer_of, request_of, tls_of

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
HOSTNAME = "shop.example.com"
GATEWAY = ("192.0.2.1",)
TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
Json = dict[str, Any]


def made(name: str, *, ago: float = 60, owner: Json | None = None, **more: Any) -> Json:
    """An object of cert-manager, `ago` seconds old."""
    spec, status = more.pop("spec", {}), more.pop("status", {})
    created = f"{NOW - timedelta(seconds=ago):%Y-%m-%dT%H:%M:%SZ}"
    metadata: Json = {"name": name, "namespace": "istio-system", "uid": f"uid-{name}", "creationTimestamp": created}
    if owner is not None:
        metadata["ownerReferences"] = [{"uid": owner["metadata"]["uid"], "controller": True}]
    return {"metadata": metadata | more, "spec": spec, "status": status}


def condition(kind: str, status: str, message: str = "", reason: str = "", **more: Any) -> Json:
    return {"type": kind, "status": status, "message": message, "reason": reason, **more}


OURS = {"certwright.dev/domain": HOSTNAME, "certwright.dev/tenant": "acme"}
CERTIFICATE = made(
    "shop",
    annotations=OURS,
    generation=1,
    spec={
        "dnsNames": [HOSTNAME],
        "secretName": "shop-tls",
        "issuerRef": {"kind": "ClusterIssuer", "name": "le", "group": "cert-manager.io"},
    },
    status={"conditions": [condition("Issuing", "True", lastTransitionTime="2026-11-24T11:59:00Z")]},
)
READY = {
    **CERTIFICATE,
    "status": {"revision": 1, "conditions": [condition("Ready", "True", observedGeneration=1)]},
}
ISSUER = made("le", generation=1, status={"conditions": [condition("Ready", "True", observedGeneration=1)]})
REQUEST = made(
    "shop-1",
    owner=CERTIFICATE,
    annotations={"cert-manager.io/certificate-revision": "1", "cert-manager.io/certificate-name": "shop"},
    spec={"issuerRef": {"kind": "ClusterIssuer", "name": "le"}},
    status={"conditions": [condition("Approved", "True"), condition("Ready", "False", "waiting", "Pending")]},
)
ORDER = made("shop-1-77", owner=REQUEST, status={"state": "pending", "url": "https://ca.example/order/1"})


def challenge(state: str = "pending", reason: str = "", *, owner: Json | None = ORDER, **more: Any) -> Json:
    solver = {"http01": {"ingress": {"ingressClassName": "certwright-none"}}}
    spec = {"dnsName": HOSTNAME, "token": TOKEN, "type": "HTTP-01", "solver": solver} | more.pop("spec", {})
    status = {"state": state, "reason": reason, "presented": True, "processing": True} | more.pop("status", {})
    return made("shop-1-77-5", owner=owner, spec=spec, status=status, **more)


def pod(owner: Json, *conditions: Json) -> Json:
    return made("solver-pod", owner=owner, status={"conditions": list(conditions)})


def failed(reason: str) -> Json:
    return made("shop-1-77", owner=REQUEST, status={"state": "errored", "reason": reason, "url": "https://x"})


def seen(**more: Any) -> Snapshot:
    first: Json = {
        "now": NOW,
        "namespace": "istio-system",
        "name": "shop",
        "certificate": CERTIFICATE,
        "issuer": ISSUER,
        "gateway_addresses": GATEWAY,
        "answers": (DnsAnswer(hostname=HOSTNAME, lookup=Lookup.ANSWERED, addresses=GATEWAY),),
    }
    return Snapshot(**(first | more))


def issuing(**more: Any) -> Snapshot:
    return seen(**({"requests": (REQUEST,), "orders": (ORDER,)} | more))


def codes(found: Diagnosis) -> list[str]:
    return [one.code for one in found.findings]


def test_an_issuance_that_goes_its_way_is_neither_healthy_nor_anybodys_fault() -> None:
    found = diagnose(issuing(challenges=(challenge(ago=2),)))
    assert (found.healthy, found.cause, found.remedy) == (False, None, None)
    assert found.summary == "an issuance is under way since 2026-11-24T11:59:00Z, and nothing is in its way"


def test_a_certificate_that_is_ready_is_healthy_whatever_old_orders_say() -> None:
    old = failed("429 urn:ietf:params:acme:error:rateLimited")
    found = diagnose(seen(certificate=READY, requests=(REQUEST,), orders=(old,), secret_findings=()))
    assert codes(found) == ["CW1401"]  # no Secret was seen in this snapshot
    hidden = diagnose(seen(certificate=READY, requests=(REQUEST,), orders=(old,), secret_seen=False))
    assert (hidden.healthy, codes(hidden)) == (True, [])


def test_every_rule_bears_an_empty_snapshot() -> None:
    nothing = Snapshot(now=NOW, namespace="default", name="nobody")
    assert [list(rule(nothing)) for rule in RULES if rule.__name__ != "certificate_is_there"] == [[]] * (len(RULES) - 1)
    assert codes(diagnose(nothing)) == ["CW1350"]


# --- the cause comes first --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "code", "subject"),
    [
        ("429 urn:ietf:params:acme:error:rateLimited: retry after 2026-11-25 09:10:11 UTC", "CW1302", "Order"),
        ("403 urn:ietf:params:acme:error:caa: CAA record for shop.example.com prevents issuance", "CW1305", "Order"),
        ("Your account is temporarily paused for shop.example.com", "CW1306", "Order"),
        ("400 urn:ietf:params:acme:error:accountDoesNotExist: unable to find", "CW1251", "ClusterIssuer le"),
        ('403 unauthorized: Account is not valid, has status "deactivated"', "CW1251", "ClusterIssuer le"),
        ("403 urn:ietf:params:acme:error:unauthorized: Account has been deactivated", "CW1251", "ClusterIssuer le"),
        ("400 malformed: Key ID (kid) in JWS header missing expected URL prefix", "CW1251", "ClusterIssuer le"),
        ("something new", "CW1301", "Order"),
    ],
)
def test_what_the_ca_says_of_an_order_is_the_cause(reason: str, code: str, subject: str) -> None:
    found = diagnose(issuing(orders=(failed(reason),)))
    assert found.cause is not None
    assert (code, True) == (found.cause.code, found.cause.subject.startswith(subject))


def test_a_missing_issuer_goes_before_what_its_request_says() -> None:
    words = 'Referenced "ClusterIssuer" not found: clusterissuer.cert-manager.io "le" not found'
    waiting = {**REQUEST, "status": {"conditions": [condition("Approved", "True"), condition("Ready", "False", words)]}}
    found = diagnose(seen(issuer=None, requests=(waiting,)))
    assert codes(found) == ["CW1201"]
    assert found.cause is not None
    assert found.cause.subject == "ClusterIssuer le"


def test_an_issuer_that_could_not_be_looked_at_is_not_missing() -> None:
    assert codes(diagnose(seen(issuer=None, issuer_seen=False, requests=(REQUEST,), orders=(ORDER,)))) == []


def test_a_name_that_points_elsewhere_explains_the_failed_challenge() -> None:
    astray = DnsAnswer(hostname=HOSTNAME, lookup=Lookup.ANSWERED, addresses=("198.51.100.9",))
    found = diagnose(issuing(challenges=(challenge("invalid", "connection refused"),), answers=(astray,)))
    assert codes(found) == ["CW1102"]


def test_the_cas_word_about_caa_goes_before_where_the_name_points() -> None:
    astray = DnsAnswer(hostname=HOSTNAME, lookup=Lookup.ANSWERED, addresses=("198.51.100.9",))
    refused = challenge("invalid", "urn:ietf:params:acme:error:caa: CAA record forbids")
    found = diagnose(issuing(challenges=(refused,), answers=(astray,)))
    assert codes(found)[0] == "CW1305"


def test_a_challenge_that_failed_is_tried_again_only_where_its_way_is_free_now() -> None:
    over = {**CERTIFICATE, "status": {"conditions": [condition("Issuing", "False", "failed")]}}
    lost = challenge("invalid", "connection refused")
    found = diagnose(issuing(certificate=over, challenges=(lost,)))
    assert codes(found)[0] == "CW1303"
    assert found.remedy is not None
    assert found.remedy.action is Action.RENEW
    assert diagnose(issuing(certificate=over, challenges=(lost,), answers=())).remedy is None
    astray = DnsAnswer(hostname=HOSTNAME, lookup=Lookup.ANSWERED, addresses=("198.51.100.9",))
    assert diagnose(issuing(certificate=over, challenges=(lost,), answers=(astray,))).remedy is None


def test_a_request_does_not_repeat_what_its_order_says() -> None:
    reason = "429 urn:ietf:params:acme:error:rateLimited"
    words = condition("Ready", "False", f"order: {reason}", "Failed")
    repeated = {**REQUEST, "status": {"conditions": [condition("Approved", "True"), words]}}
    assert codes(diagnose(issuing(requests=(repeated,), orders=(failed(reason),)))) == ["CW1302"]


def test_a_name_that_could_not_be_looked_up_is_a_warning_beside_the_failed_challenge() -> None:
    unknown = DnsAnswer(hostname=HOSTNAME, lookup=Lookup.SERVFAIL)
    found = diagnose(issuing(challenges=(challenge("invalid", "SERVFAIL looking up A"),), answers=(unknown,)))
    assert codes(found) == ["CW1303", "CW1104"]


def test_what_may_not_be_looked_at_is_told_after_all_else_as_a_warning() -> None:
    unseen = permission_finding(Permission("list", "", "events", "istio-system"))
    found = diagnose(issuing(orders=(failed("something new"),), unseen=(unseen,)))
    assert codes(found) == ["CW1301", "CW1801"]
    assert found.findings[-1].severity is findings.Severity.WARNING


# --- "already exists" -------------------------------------------------------------------------------------------------


def test_a_request_of_nobody_with_the_next_name_is_deleted_and_the_certificate_renewed() -> None:
    left = made("shop-1", annotations={"cert-manager.io/certificate-name": "shop"})
    found = diagnose(seen(requests=(left,)))
    assert codes(found) == ["CW1309"]
    assert found.remedy is not None
    assert (found.remedy.action, found.remedy.uid, found.remedy.renew) == (Action.DELETE, "uid-shop-1", True)


def test_a_request_that_names_no_certificate_is_left_to_its_owner() -> None:
    found = diagnose(seen(requests=(made("shop-1"),)))
    assert (codes(found), found.remedy) == (["CW1309"], None)


def test_a_request_of_the_last_revision_is_in_nobodys_way() -> None:
    renewing = {**CERTIFICATE, "status": {**CERTIFICATE["status"], "revision": 1}}
    left = made("shop-1", annotations={"cert-manager.io/certificate-name": "shop"})
    assert codes(diagnose(seen(certificate=renewing, requests=(left,)))) == []


@pytest.mark.parametrize(
    ("more", "subject"),
    [
        (
            {"orders": (made("shop-1-77", annotations={"cert-manager.io/certificate-name": "shop"}),)},
            "Order istio-system/shop-1-77",
        ),
        ({"challenges": (challenge(owner=None),)}, "Challenge istio-system/shop-1-77-5"),
    ],
)
def test_a_restored_order_or_challenge_is_in_the_way_too(more: Json, subject: str) -> None:
    found = diagnose(issuing(**more))
    assert found.cause is not None
    assert (found.cause.code, found.cause.subject) == ("CW1309", subject)
    assert found.remedy is not None
    assert found.remedy.action is Action.DELETE


# --- the solver and its way -------------------------------------------------------------------------------------------


def ready_pod(owner: Json) -> Json:
    return pod(owner, condition("Ready", "True"))


def service(owner: Json) -> Json:
    return made("solver-service", owner=owner)


SLICE = {
    "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "solver-service"}},
    "endpoints": [{"conditions": {"ready": True}}],
}


def route(path: str = f"/.well-known/acme-challenge/{TOKEN}", host: str = "solver-service") -> Json:
    entry = {
        "match": [{"uri": {"exact": path}}],
        "route": [{"destination": {"host": f"{host}.istio-system.svc.cluster.local"}}],
    }
    return made("shop-acme", spec={"hosts": [HOSTNAME], "http": [entry]})


def solving(**more: Any) -> Snapshot:
    one = challenge(reason="wrong status code '404'")
    first = {
        "challenges": (one,),
        "solver_pods": (ready_pod(one),),
        "solver_services": (service(one),),
        "endpoint_slices": (SLICE,),
        "routes": (route(),),
    }
    return issuing(**(first | more))


@pytest.mark.parametrize(
    ("more", "code", "action"),
    [
        ({}, "CW1304", None),
        ({"routes": ()}, "CW1355", Action.ROUTE),
        ({"routes": (route("/.well-known/acme-challenge/another"),)}, "CW1355", Action.ROUTE),
        ({"routes": (route(host="yesterday"),)}, "CW1355", Action.ROUTE),
        ({"solver_pods": ()}, "CW1354", Action.DELETE),
        ({"endpoint_slices": ()}, "CW1354", Action.DELETE),
        ({"solver_pods": (pod(challenge(), condition("PodScheduled", "False", "no node")),)}, "CW1354", None),
    ],
)
def test_what_is_on_the_challenges_way_is_the_cause(more: Json, code: str, action: Action | None) -> None:
    found = diagnose(solving(**more))
    assert codes(found)[0] == code
    assert action == (found.remedy.action if found.remedy else None)


def test_a_challenge_that_was_open_when_its_order_failed_is_not_to_blame() -> None:
    """Its route is taken away with the failed issuance, and cert-manager goes on looking for it."""
    still_open = challenge(reason="wrong status code '404'", spec={"dnsName": "www.shop.example.com"})
    order = made("shop-1-77", owner=REQUEST, status={"state": "invalid", "url": "https://ca.example/order/1"})
    found = diagnose(solving(orders=(order,), challenges=(still_open, challenge("invalid", "refused")), routes=()))
    assert (codes(found)[0], found.findings[0].subject) == ("CW1303", HOSTNAME)
    assert not {"CW1304", "CW1355"} & set(codes(found))


def test_a_domain_of_the_gateway_api_is_routed_by_an_httproute() -> None:
    gateway = dataclasses.replace(seen().gateway, kind=GatewayKind.GATEWAY_API)
    unrouted = diagnose(solving(routes=(), gateway=gateway))
    assert unrouted.remedy is not None
    assert (unrouted.remedy.action, unrouted.remedy.kind) == (Action.ROUTE, "HTTPRoute")
    rule = {
        "matches": [{"path": {"type": "Exact", "value": f"/.well-known/acme-challenge/{TOKEN}"}}],
        "backendRefs": [{"name": "solver-service"}],
    }
    routed = diagnose(solving(routes=(), gateway=gateway, http_routes=(made("shop-acme", spec={"rules": [rule]}),)))
    assert codes(routed) == ["CW1304"]


def test_how_a_gateway_speaks_tls_is_read_from_it() -> None:
    tls = {"credentialName": "shop-tls", "mode": "MUTUAL", "minProtocolVersion": "TLSV1_3"}
    istio = made("shop", spec={"servers": [{"tls": tls}]})
    assert tls_of((istio,), None, "shop-tls") == TlsSettings(mode=TlsMode.MUTUAL, min_protocol=TlsVersion.TLSV1_3)
    options = {"gateway.istio.io/tls-terminate-mode": "OPTIONAL_MUTUAL"}
    listener = {"tls": {"certificateRefs": [{"name": "shop-tls"}], "options": options}}
    api = made("shop", spec={"listeners": [listener]})
    assert tls_of((), api, "shop-tls").mode is TlsMode.OPTIONAL_MUTUAL
    assert tls_of((istio,), api, "another") == TlsSettings()


def test_a_foreign_certificates_challenge_is_not_routed_by_us() -> None:
    foreign = made(
        "shop", generation=1, spec=CERTIFICATE["spec"], status=CERTIFICATE["status"], annotations={"other": "tool"}
    )
    found = diagnose(solving(certificate=foreign, routes=()))
    assert (codes(found)[0], found.remedy) == ("CW1355", None)


@pytest.mark.parametrize(
    ("status", "code"), [(301, "CW1317"), (403, "CW1318"), (503, "CW1319"), (404, "CW1304"), (200, "CW1304")]
)
def test_what_port_80_answers_is_the_cause_where_it_is_in_the_way(status: int, code: str) -> None:
    location = f"https://{HOSTNAME}/" if status == 301 else ""
    answer = PathAnswer(hostname=HOSTNAME, address=GATEWAY[0], ending=Ending.ANSWERED, status=status, location=location)
    assert codes(diagnose(solving(path=(answer,))))[0] == code


def test_an_error_of_the_gateway_is_told_by_the_route_that_takes_the_path() -> None:
    entry = {"match": [{"uri": {"prefix": "/.well-known/"}}], "route": [{"destination": {"host": "nobody"}}]}
    theirs = made("theirs", spec={"hosts": [HOSTNAME], "http": [entry]})
    catching = made("all", spec={"hosts": [HOSTNAME], "http": [{**entry, "match": [{"uri": {"prefix": "/"}}]}]})
    answer = PathAnswer(hostname=HOSTNAME, address=GATEWAY[0], ending=Ending.ANSWERED, status=503)
    found = diagnose(solving(routes=(catching, theirs, route()), path=(answer,)))
    assert [(one.code, one.subject) for one in found.findings[:2]] == [("CW1319", "VirtualService istio-system/theirs")]
    assert codes(diagnose(solving(routes=(catching, route()), path=(answer,))))[0] == "CW1319"


BY_ROUTES = {"http01": {"gatewayHTTPRoute": {"parentRefs": [{"name": "edge"}]}}}


def http_route(*conditions: Json) -> Json:
    """cert-manager's own, of the challenge."""
    parents = [{"parentRef": {"name": "edge"}, "conditions": list(conditions)}]
    spec = {"parentRefs": [{"name": "edge"}]}
    return made("cm-acme", owner=challenge(), spec=spec, status={"parents": parents})


@pytest.mark.parametrize(
    ("route_", "missing", "subject"),
    [
        (http_route(), frozenset({"istio-system/edge"}), "Gateway istio-system/edge"),
        (
            http_route(condition("Accepted", "False", "hostname does not match", "NoMatchingListenerHostname")),
            frozenset[str](),
            "HTTPRoute istio-system/cm-acme",
        ),
        (http_route(condition("Accepted", "True")), frozenset[str](), HOSTNAME),
    ],
)
def test_a_solvers_http_route_is_followed_to_its_gateway(route_: Json, missing: frozenset[str], subject: str) -> None:
    one = challenge(reason="wrong status code '404'", spec={"solver": BY_ROUTES})
    found = diagnose(solving(challenges=(one,), routes=(), http_routes=(route_,), parents_missing=missing))
    assert found.cause is not None
    assert (found.cause.code, found.cause.subject) == ("CW1304" if subject == HOSTNAME else "CW1355", subject)


# --- CAA --------------------------------------------------------------------------------------------------------------

ACME_ISSUER = {**ISSUER, "spec": {"acme": {"server": "https://acme-v02.api.letsencrypt.org/directory"}}}


def caa(value: str) -> CaaClimb:
    level = CaaLevel(
        name="example.com", lookup=Lookup.ANSWERED, records=(CaaRecord(flags=0, tag="issue", value=value),)
    )
    return CaaClimb(hostname=HOSTNAME, levels=(level,))


def test_a_caa_record_that_denies_is_the_cause_with_the_record_to_add() -> None:
    found = diagnose(issuing(issuer=ACME_ISSUER, caa=(caa("other.example"),), challenges=(challenge(ago=2),)))
    assert found.cause is not None
    assert (found.cause.code, found.cause.subject) == ("CW1305", HOSTNAME)
    assert found.cause.fix == 'Add example.com CAA 0 issue "letsencrypt.org".'
    assert codes(diagnose(issuing(issuer=ACME_ISSUER, caa=(caa("letsencrypt.org"),), orders=(ORDER,)))) == []


def test_the_records_are_told_once_and_not_in_the_cas_words_too() -> None:
    refused = challenge("invalid", "urn:ietf:params:acme:error:caa: CAA record forbids")
    found = diagnose(issuing(issuer=ACME_ISSUER, caa=(caa("other.example"),), challenges=(refused,)))
    assert [one.fix for one in found.findings if one.subject == HOSTNAME] == [
        'Add example.com CAA 0 issue "letsencrypt.org".'
    ]


def test_a_certificate_that_is_there_meets_the_records_at_its_renewal() -> None:
    found = diagnose(seen(certificate=READY, issuer=ACME_ISSUER, caa=(caa("other.example"),), secret_seen=False))
    assert found.healthy
    assert [(one.code, one.severity) for one in found.findings] == [("CW1305", findings.Severity.WARNING)]
    assert found.findings[0].problem.startswith("At the next renewal the CA will refuse.")


def test_a_redirect_is_told_by_the_gateway_that_makes_it() -> None:
    server = {"port": {"number": 80}, "hosts": ["*.example.com"], "tls": {"httpsRedirect": True}}
    gateway = made("theirs", spec={"selector": {"istio": "ingressgateway"}, "servers": [server]})
    other = made("apart", spec={"selector": {"istio": "another"}, "servers": [server]})
    found = diagnose(solving(gateways=(other, gateway)))
    assert [one.subject for one in found.findings if one.code == "CW1317"] == ["Gateway istio-system/theirs"]


@pytest.mark.parametrize(
    ("kind", "words", "code", "fix"),
    [
        ("DNS-01", "error getting credentials: secret not found", "CW1353", "credentials"),
        ("HTTP-01", "couldn't Present challenge a/b: gateway api is not enabled", "CW1204", "CRDs"),
        ("HTTP-01", 'pods "x" is forbidden: exceeded quota: few', "CW1353", "quota"),
    ],
)
def test_a_challenge_that_cannot_be_presented_is_told_in_the_clusters_words(
    kind: str, words: str, code: str, fix: str
) -> None:
    one = challenge("pending", words, spec={"type": kind}, status={"presented": False})
    found = diagnose(issuing(challenges=(one,)))
    assert found.cause is not None
    assert (found.cause.code, True) == (code, fix in found.cause.fix)


def test_a_dns_challenge_that_failed_is_mended_in_the_dns() -> None:
    one = challenge("invalid", "no TXT record found", spec={"type": "DNS-01"})
    found = diagnose(issuing(challenges=(one,)))
    assert found.cause is not None
    assert found.cause.fix.startswith(f"dig TXT _acme-challenge.{HOSTNAME}")


def test_a_dns_challenge_whose_record_leads_astray_is_told_by_the_record() -> None:
    updates = DynamicUpdates(nameserver="192.0.2.53")
    solver = DnsSolver(provider="rfc2136", title="DNS-01 by rfc2136 192.0.2.53", follows=True, updates=updates)
    record = f"_acme-challenge.{HOSTNAME}"
    seen = Delegation(challenge=DnsChallenge(record=record, solver=solver), lookup=Lookup.ANSWERED, aliases=(record,))
    words = f"Found recursive CNAME record to {record!r}"
    one = challenge("pending", words, spec={"type": "DNS-01"}, status={"presented": False})
    found = diagnose(issuing(challenges=(one,), delegations=(seen,)))
    assert found.cause is not None
    assert (found.cause.code, found.cause.subject) == ("CW1340", record)
    unknown = dataclasses.replace(seen, lookup=Lookup.SERVFAIL, aliases=())
    assert codes(diagnose(issuing(challenges=(one,), delegations=(unknown,)))) == ["CW1353"]


FORBIDDEN = (
    'pods is forbidden: User "system:serviceaccount:cert-manager:cert-manager" cannot create resource "pods" in API '
    'group "" in the namespace "istio-system"'
)


def test_a_permission_that_cert_manager_lacks_is_told_by_its_account() -> None:
    found = diagnose(issuing(challenges=(challenge("pending", FORBIDDEN, status={"presented": False}),)))
    assert codes(found) == ["CW1051"]
    assert found.findings[0].problem == "cert-manager may not create pods in namespace istio-system."


def test_a_permission_that_is_only_in_the_log_is_asked_for() -> None:
    denied = ("cert-manager/cert-manager", Permission("patch", "acme.cert-manager.io", "challenges/status", ""))
    found = diagnose(issuing(controller_denied=(denied,)))
    assert [(one.code, one.subject) for one in found.findings] == [
        ("CW1051", "ServiceAccount cert-manager/cert-manager")
    ]


def test_what_may_not_be_seen_of_the_solver_is_not_held_against_it() -> None:
    assert "CW1354" not in codes(diagnose(solving(solver_pods=(), solver_seen=False)))
    assert "CW1354" not in codes(diagnose(solving(endpoint_slices=(), endpoints_seen=False)))
    assert "CW1355" not in codes(diagnose(solving(routes=(), routes_seen=False)))


# --- finalizers -------------------------------------------------------------------------------------------------------


def deleted(**more: Any) -> Json:
    ago = more.pop("deleted_ago", 60)
    return challenge(
        deletionTimestamp=f"{NOW - timedelta(seconds=ago):%Y-%m-%dT%H:%M:%SZ}",
        finalizers=["acme.cert-manager.io/finalizer"],
        **more,
    )


ENDED = made("shop-1-77", owner=REQUEST, status={"state": "invalid", "url": "https://x"})


@pytest.mark.parametrize(
    ("more", "action"),
    [
        ({"orders": (ENDED,), "challenges": (deleted(),)}, Action.RELEASE),
        ({"orders": (), "requests": (), "challenges": (deleted(),)}, Action.RELEASE),
        ({"challenges": (deleted(),)}, None),
        ({"orders": (), "requests": (), "challenges": (deleted(),), "orders_seen": False}, None),
        ({"orders": (ENDED,), "challenges": (deleted(),), "solver_seen": False}, None),
        ({"orders": (ENDED,), "challenges": (deleted(),), "solver_pods": (ready_pod(challenge()),)}, None),
    ],
)
def test_a_finalizer_is_taken_away_only_where_nothing_needs_it(more: Json, action: Action | None) -> None:
    found = diagnose(issuing(**more))
    assert codes(found)[0] == "CW1356"
    assert action == (found.remedy.action if found.remedy else None)


def test_a_clean_up_that_fails_is_told_with_the_finalizer_it_keeps() -> None:
    kept = deleted(reason=f"Error cleaning up challenge: {FORBIDDEN}")
    found = diagnose(issuing(orders=(ENDED,), challenges=(kept,)))
    assert codes(found)[0] == "CW1356"
    assert "cannot create" in found.findings[0].problem


def test_a_challenge_that_was_deleted_just_now_is_given_time() -> None:
    assert "CW1356" not in codes(diagnose(issuing(challenges=(deleted(deleted_ago=3),))))


# --- cert-manager itself, the gateway, and what else there is ---------------------------------------------------------


def deployment(component: str, available: int) -> Json:
    labels = {"app.kubernetes.io/component": component}
    return made(component, labels=labels, spec={"replicas": 1}, status={"availableReplicas": available})


def test_a_controller_that_is_away_goes_before_everything() -> None:
    found = diagnose(issuing(orders=(failed("x"),), deployments=(deployment("controller", 0),)))
    assert codes(found)[0] == "CW1050"


def test_a_cainjector_that_is_away_is_only_a_warning() -> None:
    found = diagnose(issuing(deployments=(deployment("cainjector", 0), deployment("controller", 1))))
    assert [(one.code, one.severity) for one in found.findings] == [("CW1050", findings.Severity.WARNING)]


def test_a_webhook_without_a_pod_is_told_once() -> None:
    words = 'failed calling webhook "webhook.cert-manager.io": Post "https://cert-manager-webhook.cert-manager.svc:443"'
    down = diagnose(issuing(webhook=words, deployments=(deployment("webhook", 0),)))
    assert codes(down) == ["CW1050"]
    unreachable = diagnose(issuing(webhook=words, deployments=(deployment("webhook", 1),)))
    assert [one.subject for one in unreachable.findings] == ["Service cert-manager/cert-manager-webhook"]


@pytest.mark.parametrize(
    "captured",
    [
        made("cm", annotations={"ambient.istio.io/redirection": "enabled"}, spec={"containers": []}),
        made("cm", spec={"containers": [{"name": "cert-manager-controller"}, {"name": "istio-proxy"}]}),
    ],
)
def test_cert_manager_in_the_mesh_is_a_warning(captured: Json) -> None:
    assert codes(diagnose(issuing(controllers=(captured,)))) == ["CW1030"]


def test_a_failure_that_is_over_offers_to_issue_now() -> None:
    status = {
        "failedIssuanceAttempts": 2,
        "lastFailureTime": "2026-11-24T11:00:00Z",
        "conditions": [condition("Issuing", "False", "The certificate request has failed")],
    }
    found = diagnose(seen(certificate={**CERTIFICATE, "status": status}))
    assert codes(found) == ["CW1311"]
    assert found.remedy is not None
    assert found.remedy.action is Action.RENEW


def test_events_are_told_the_newest_first_and_old_ones_blame_nobody() -> None:
    def event(minutes: float, message: str) -> Json:
        at = f"{NOW - timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"
        about = {"uid": "uid-shop-1-77", "kind": "Order", "name": "shop-1-77"}
        return {"involvedObject": about, "message": message, "reason": "Solver", "lastTimestamp": at}

    words = "Failed to determine a valid solver configuration for the set of domains on the Order"
    recent, old = event(1, words), event(50, words)
    assert codes(diagnose(issuing(events=(old, recent)))) == ["CW1307"]
    assert [line.at for line in diagnose(issuing(events=(old, recent))).events] == [
        "2026-11-24T11:59:00Z",
        "2026-11-24T11:10:00Z",
    ]
    assert codes(diagnose(issuing(events=(old,)))) == []


def test_the_chain_shows_every_object_and_marks_the_one_to_blame() -> None:
    found = diagnose(solving(solver_pods=(pod(challenge(), condition("PodScheduled", "False", "no node")),)))
    states = {link.subject: link.state for link in found.chain}
    assert states["Pod istio-system/solver-pod"] is LinkState.BAD
    assert states["ClusterIssuer le"] is LinkState.GOOD
    assert [subject.split()[0] for subject in states] == [
        "Certificate",
        "ClusterIssuer",
        "CertificateRequest",
        "Order",
        "Challenge",
        "Pod",
        "Service",
        "DNS",
    ]


def test_no_token_is_repeated() -> None:
    reason = f"failed to perform self check GET request 'http://{HOSTNAME}/.well-known/acme-challenge/{TOKEN}'"
    assert TOKEN not in str(diagnose(solving(challenges=(challenge(reason=reason),))))


def test_a_certificate_of_another_group_has_no_issuer_of_ours() -> None:
    foreign = dataclasses.replace(seen(), issuer=None)
    spec = {**CERTIFICATE["spec"], "issuerRef": {"group": "example.com", "kind": "Issuer", "name": "x"}}
    assert issuer_of({**CERTIFICATE, "spec": spec}) is None
    assert request_of(CERTIFICATE, foreign.gateway).hostnames == (HOSTNAME,)
