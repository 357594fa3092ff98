"""What people say of an issuer becomes cert-manager's own spec, against golden files; or every reason why not.

`REGOLD=1` writes the golden files anew, to be read in the diff.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lifecycle import issuer_requests
from lifecycle.domain import IssuerKind, IssuerRef
from lifecycle.issuer_requests import DNS01, VAULT_AUTH, VENAFI, Kind, parse_issuer, parse_issuers
from lifecycle.issuers import issuer_manifest
from lifecycle.steps import IssuerRequest
from tests.lifecycle.issuer_shapes import SHAPES, document

GOLDEN = Path(__file__).parent / "golden" / "issuers"


def parsed(given_document: object) -> IssuerRequest:
    request = parse_issuer(given_document)
    assert isinstance(request, IssuerRequest), request
    return request


def refused(given_document: object) -> dict[str, str]:
    found = parse_issuer(given_document)
    assert isinstance(found, tuple), found
    return {error.field: f"{error.problem}; {error.fix}" for error in found}


def acme(**fields: Any) -> dict[str, Any]:
    return {"name": "le", "server": "letsencrypt", **fields}


def solver(**fields: Any) -> dict[str, Any]:
    return acme(solvers=[fields])


def dns01(provider: str, /, **fields: Any) -> dict[str, Any]:
    return solver(dns01={provider: fields})


def vault(**fields: Any) -> dict[str, Any]:
    return {"name": "v", "vault": {"server": "https://v", "path": "x", **fields}}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_as_in_its_golden_file(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    made = issuer_manifest(parsed(document(name)))
    if os.environ.get("REGOLD"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(made, sort_keys=False))
    assert yaml.safe_load(path.read_text()) == made


def test_every_golden_file_is_of_a_shape() -> None:
    assert set(SHAPES) == {path.stem for path in GOLDEN.glob("*.yaml")}


def test_every_field_of_every_table_is_in_a_shape() -> None:
    written = set()

    def collect(part: Any, section: str) -> None:
        if isinstance(part, dict):
            for key, value in part.items():
                written.add((section, key))
                collect(value, key)
        elif isinstance(part, list):
            for entry in part:
                collect(entry, section)

    for shape in SHAPES.values():
        collect(shape, "")
    tables: dict[str, Any] = {"ca": issuer_requests.CA, "selfsigned": issuer_requests.SELF_SIGNED}
    tables |= {"acme": issuer_requests.ACME, "eab": issuer_requests.EAB, "vault": issuer_requests.VAULT}
    tables |= {name: fields for name, (_, fields) in (DNS01 | VAULT_AUTH).items() if name != "token"} | VENAFI
    wanted = {(section, field.name) for section, fields in tables.items() for field in fields}
    assert wanted - written == set()


def test_an_issuer_is_parsed_and_its_plain_fields_are_kept_for_earlier_releases() -> None:
    request = parsed({"name": "le", "server": "https://ca.example/dir", "email": "tls@example.com", "profile": "p"})
    assert request.ref == IssuerRef(name="le")
    assert (request.server, request.email, request.profile) == ("https://ca.example/dir", "tls@example.com", "p")


def test_a_request_of_an_earlier_release_makes_the_same_issuer() -> None:
    now = parsed({"name": "le", "server": "https://ca.example/dir", "email": "tls@example.com", "profile": "p"})
    then = dataclasses.replace(now, spec="", account_secret="")
    assert issuer_manifest(then) == issuer_manifest(now)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
        ("LetsEncrypt-Staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
    ],
)
def test_lets_encrypt_is_known_by_name(name: str, url: str) -> None:
    assert url == parsed({"name": "le", "server": name}).server


def test_all_problems_of_an_issuer_come_at_once() -> None:
    found = parse_issuer(
        {
            "name": "Le!",
            "kind": "Issuer",
            "server": "http://ca.example",
            "email": "nobody",
            "ca_bundle": "-----BEGIN EC PRIVATE KEY-----",
            "profile": "a b",
            "acount_secret": "x",
            "reuse_account": True,
            "eab": {"key_id": "k"},
            "solvers": [{"dns01": {"cloudflare": {}}}, {"http01": "carrier-pigeon"}],
        }
    )
    assert isinstance(found, tuple)
    assert {error.field for error in found} == {
        "name",
        "namespace",
        "server",
        "email",
        "ca_bundle",
        "profile",
        "acount_secret",
        "account_secret",
        "eab.secret",
        "solvers[0].dns01.cloudflare",
        "solvers[1].http01",
    }
    assert "PRIVATE" not in "".join(error.value for error in found)


AZURE = {"subscription_id": "s", "resource_group": "r"}
TPP = {"url": "https://t", "credentials": "c"}


@pytest.mark.parametrize(
    ("given_document", "field", "words"),
    [
        (acme(ca={"secret": "x"}), "ca", "not the only type"),
        (acme(acme={"server": "letsencrypt"}), "server", "beside the section acme"),
        ({"name": "x", "ca": {}}, "ca.secret", "is missing"),
        ({"name": "x", "ca": "root"}, "ca", "is not an object"),
        ({"name": "x"}, "server", "is missing"),
        (acme(solvers=[]), "solvers", "is no list"),
        (solver(http01="virtual-service", dns01={}), "solvers[0]", "has http01 and dns01"),
        (solver(), "solvers[0]", "neither"),
        (solver(dns01={"cloudflare": {}, "route53": {}}), "solvers[0].dns01", "names 2 providers"),
        (dns01("cloudflare", api_token="a", api_key="b"), "solvers[0].dns01.cloudflare", "has 2 of"),
        (dns01("cloudflare", api_key="b"), "solvers[0].dns01.cloudflare.email", "global API key"),
        (dns01("rfc2136", nameserver="n", tsig_key_name="k"), "solvers[0].dns01.rfc2136.tsig_secret", "other half"),
        (dns01("rfc2136", nameserver="n", tsig_algorithm="X"), "solvers[0].dns01.rfc2136.tsig_algorithm", "none of"),
        (dns01("route53", access_key_id="A"), "solvers[0].dns01.route53.secret_access_key", "other half"),
        (
            dns01("route53", access_key_id="A", access_key_id_secret="a"),
            "solvers[0].dns01.route53.access_key_id",
            "too",
        ),
        (dns01("route53", service_account="a"), "solvers[0].dns01.route53.role", "needs it"),
        (dns01("azuredns", client_id="c", **AZURE), "solvers[0].dns01.azuredns.tenant_id", "all three or none"),
        (
            dns01("azuredns", identity_tenant_id="t", **AZURE),
            "solvers[0].dns01.azuredns.identity_tenant_id",
            "without identity_client_id",
        ),
        (
            dns01("azuredns", identity_client_id="c", identity_resource_id="r", **AZURE),
            "solvers[0].dns01.azuredns.identity_client_id",
            "too",
        ),
        (dns01("acmedns", host="http://x", account="a"), "solvers[0].dns01.acmedns.host", "https"),
        (
            solver(http01={"gateway": {"name": "g", "group": "networking.istio.io", "kind": "Gateway"}}),
            "solvers[0].http01.gateway",
            "virtual-service",
        ),
        (solver(http01={"gateway": {"name": "g"}, "ingress_class": "x"}), "solvers[0].http01", "names 2 ways"),
        (
            solver(http01="virtual-service", selector={"dns_names": ["*.example.com"]}),
            "solvers[0].selector.dns_names[0]",
            "HTTP-01 cannot prove",
        ),
        (
            solver(http01="virtual-service", selector={"dns_zones": ["*.example.com"]}),
            "solvers[0].selector.dns_zones[0]",
            "write example.com",
        ),
        (
            solver(http01="virtual-service", selector={"match_labels": {"a": True}}),
            "solvers[0].selector.match_labels.a",
            "is not a label",
        ),
        (solver(http01="virtual-service", cname_strategy="follow"), "solvers[0].cname_strategy", "dns01 only"),
        (vault(path="../x", auth={"token": "t"}), "vault.path", ".."),
        (vault(), "vault.auth", "is missing"),
        (vault(auth={"token": "t", "kubernetes": {}}), "vault.auth", "names 2 ways"),
        (vault(auth={"kubernetes": {"role": "r"}}), "vault.auth.kubernetes", "has 0 of"),
        (vault(auth={"token": "t"}, client_key_secret="k"), "vault.client_certificate_secret", "other half"),
        ({"name": "v", "venafi": {"zone": "z"}}, "venafi", "names 0 products"),
        ({"name": "v", "venafi": {"zone": "z", "tpp": {**TPP, "ca_bundle": "x"}}}, "venafi.tpp.ca_bundle", "not PEM"),
    ],
)
def test_a_combination_that_cannot_work_is_refused_with_what_to_do(
    given_document: dict[str, Any], field: str, words: str
) -> None:
    assert words in refused(given_document)[field]


@pytest.mark.parametrize(
    "given_document",
    [
        {"name": "le", "server": "https://me:s3cret@ca.example/dir"},
        dns01("cloudflare", api_token="s3cret_Token+/="),
        acme(eab={"key_id": "k", "secret": {"name": "eab", "value": "s3cret"}}),
        dns01("webhook", group_name="a.b", solver_name="s", config={"apiToken": "s3cret"}),
        vault(auth={"token": "hvs.s3cret_X"}),
        vault(auth="s3cret"),
        {"name": "v", "venafi": {"zone": "z", "cloud": {"api_token": ["s3cret"]}}},
    ],
)
def test_a_credential_that_is_written_into_the_file_is_refused_and_not_repeated(given_document: Any) -> None:
    found = parse_issuer(given_document)
    assert isinstance(found, tuple)
    assert "s3cret" not in repr(found)


def test_a_secret_is_named_in_three_ways() -> None:
    for written in ("tsig", "tsig/tsig-secret-key", {"name": "tsig", "key": "tsig-secret-key"}):
        request = parsed(dns01("rfc2136", nameserver="ns1", tsig_key_name="k", tsig_secret=written))
        made = json.loads(request.spec)["acme"]["solvers"][0]["dns01"]["rfc2136"]
        assert made["tsigSecretSecretRef"] == {"name": "tsig", "key": "tsig-secret-key"}
        assert made["tsigAlgorithm"] == "HMACSHA256"


def test_several_issuers_are_one_file() -> None:
    requests = parse_issuers(
        {"issuers": [{"name": "root", "selfsigned": {}}, {**acme(), "kind": "issuer", "namespace": "a"}]}
    )
    assert [one.ref for one in requests if isinstance(one, IssuerRequest)] == [
        IssuerRef(name="root"),
        IssuerRef(name="le", kind=IssuerKind.ISSUER, namespace="a"),
    ]
    found = parse_issuers({"issuers": [acme(), acme(), {"name": "x", "ca": {}}], "isuers": 1})
    assert {"issuers[1].name", "issuers[2].ca.secret", "isuers"} == {
        one.field for one in found if not isinstance(one, IssuerRequest)
    }


@pytest.mark.parametrize(
    ("said", "fields", "expected"),
    [
        (None, {}, ""),
        ("le-staging", {}, "ClusterIssuer/le-staging"),
        ("clusterissuer/le-staging", {}, "ClusterIssuer/le-staging"),
        ({"name": "le-staging"}, {}, "ClusterIssuer/le-staging"),
        ("le-staging", {"kind": "Issuer", "namespace": "shop"}, "Issuer/le-staging"),
        ({"name": "le", "kind": "ClusterIssuer"}, {"kind": "Issuer", "namespace": "shop"}, "ClusterIssuer/le"),
        ("none", {}, "none"),
    ],
)
def test_an_issuer_says_where_its_certificates_are_rehearsed(said: Any, fields: dict[str, Any], expected: str) -> None:
    request = parsed(acme(rehearsal=said, **fields))
    assert request.rehearsal == expected
    annotations = issuer_manifest(request)["metadata"].get("annotations")
    assert annotations == ({"certwright.dev/rehearsal-issuer": expected} if expected else None)


@pytest.mark.parametrize(
    ("said", "field", "part"),
    [
        ("le", "rehearsal", "is the issuer itself"),
        ("Issuer/le-staging", "rehearsal.kind", "a ClusterIssuer is used from all"),
        ("Le Staging", "rehearsal.name", "is not an issuer's name"),
        ("Secret/le", "rehearsal.kind", "is none of"),
        (True, "rehearsal.name", "is not a text"),
        ({"name": "x", "namespace": "y"}, "rehearsal.namespace", "is not a known field"),
    ],
)
def test_an_issuer_that_cannot_rehearse_is_refused(said: Any, field: str, part: str) -> None:
    assert part in refused(acme(rehearsal=said))[field]


STAGING = {"name": "stage", "server": "letsencrypt-staging"}
IN_SHOP = {"kind": "Issuer", "namespace": "shop"}


@pytest.mark.parametrize(
    ("first", "beside", "expected", "hinted"),
    [
        (acme(), STAGING, "ClusterIssuer/stage", False),
        (acme(**IN_SHOP), STAGING, "ClusterIssuer/stage", False),
        (acme(**IN_SHOP), {**STAGING, **IN_SHOP}, "Issuer/stage", False),
        (acme(**IN_SHOP), {**STAGING, **IN_SHOP, "namespace": "other"}, "", True),
        (acme(), {**STAGING, **IN_SHOP}, "", True),
        (acme(rehearsal="other"), STAGING, "ClusterIssuer/other", False),
        (acme(rehearsal="none"), STAGING, "none", False),
        (acme(), {"name": "x", "selfsigned": {}}, "", True),
        (acme(server="https://ca.example/dir"), STAGING, "", False),
    ],
)
def test_lets_encrypt_is_rehearsed_at_the_staging_issuer_beside_it_or_it_is_said_how(
    first: dict[str, Any], beside: dict[str, Any], expected: str, hinted: bool
) -> None:
    request, _ = parse_issuers({"issuers": [first, beside]})
    assert isinstance(request, IssuerRequest)
    assert request.rehearsal == expected
    hint = issuer_requests.unrehearsed(request)
    assert (hint is not None and (hint.code, hint.severity.value) == ("CW1261", "note")) is hinted


def test_every_secret_of_a_provider_has_a_usual_key() -> None:
    assert all(field.key for _, fields in DNS01.values() for field in fields if field.kind is Kind.SECRET)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_sections = st.sampled_from(["name", "kind", "server", "eab", "solvers", "ca", "vault", "venafi", "selfsigned", "acme"])
_solver_fields = st.sampled_from(["http01", "dns01", "selector", "cname_strategy", "wait_seconds"])
_dns_fields = st.dictionaries(st.sampled_from([*DNS01, "x"]), st.dictionaries(st.text(max_size=9), _json) | _json)


@given(
    st.dictionaries(_sections, _json)
    | _json
    | st.lists(st.dictionaries(_solver_fields, _json | _dns_fields), max_size=3).map(lambda made: acme(solvers=made))
)
def test_whatever_is_sent_is_answered(given_document: object) -> None:
    for answer in (parse_issuer(given_document), parse_issuers({"issuers": [given_document]})):
        assert not isinstance(answer, tuple) or len(answer) > 0
