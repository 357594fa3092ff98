"""What a request may say of its certificate, and each shape against its golden file. `REGOLD=1` writes them anew."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from lifecycle.certificate_details import KeyEncoding, Keystore, KeyUsage, Pkcs12Profile, RotationPolicy
from lifecycle.certificate_requests import OPERATORS_FIELDS
from lifecycle.domain import KeyAlgorithm, OnboardingRequest
from lifecycle.manifests import Manifest
from lifecycle.requests import FieldError, parse_onboarding
from tests.lifecycle import certificate_shapes

GOLDEN = Path(__file__).parent / "golden" / "certificates"
DOCUMENTS = certificate_shapes.documents()
TENANTS = dataclasses.replace(certificate_shapes.DEFAULTS, operator=False)


def refused(certificate: Any, *, operator: bool = True) -> dict[str, str]:
    """Field by field what is wrong."""
    document = {"hostname": "shop.example.com", "certificate": certificate}
    defaults = certificate_shapes.DEFAULTS if operator else TENANTS
    found = parse_onboarding(document, tenant="acme", defaults=defaults)
    assert isinstance(found, tuple), found
    assert all(isinstance(one, FieldError) and one.fix for one in found)
    return {one.field.removeprefix("certificate."): one.problem for one in found}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_certificate_is_as_in_its_golden_file(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("REGOLD"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(DOCUMENTS[name], sort_keys=False, allow_unicode=True))
    assert yaml.safe_load(path.read_text()) == DOCUMENTS[name]


def test_every_golden_file_is_of_a_certificate() -> None:
    assert set(DOCUMENTS) == {path.stem for path in GOLDEN.glob("*.yaml")}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_no_certificate_carries_a_password(document: Manifest) -> None:
    assert "password" not in (document["spec"].get("keystores") or {}).get("jks", {})
    assert "password:" not in yaml.safe_dump(document)


def test_everything_that_is_asked_for_is_kept() -> None:
    usages = certificate_shapes.request("usages").certificate
    assert usages.usages[-1] is KeyUsage.CLIENT_AUTH
    stores = certificate_shapes.request("keystores").certificate
    assert stores.jks == Keystore(secret="keystore-password", key="jks", alias="shop")
    assert stores.pkcs12 is not None
    assert (stores.pkcs12.key, stores.pkcs12.profile) == ("password", Pkcs12Profile.MODERN_2023)
    assert certificate_shapes.request("ecdsa-pkcs8").certificate.key_encoding is KeyEncoding.PKCS8
    assert certificate_shapes.request("key-kept").certificate.rotation is RotationPolicy.NEVER
    assert certificate_shapes.request("ed25519").certificate.key_algorithm is KeyAlgorithm.ED25519
    named = certificate_shapes.request("addresses-and-uris").certificate
    assert named.ip_addresses == ("192.0.2.7", "2001:db8::7")


def test_extended_usages_alone_are_taken_as_the_guide_has_them() -> None:
    document = {"hostname": "shop.example.com", "certificate": {"usages": ["server auth", "client auth"]}}
    request = parse_onboarding(document, tenant="acme", defaults=certificate_shapes.DEFAULTS)
    assert isinstance(request, OnboardingRequest)
    assert request.certificate.usages == (KeyUsage.SERVER_AUTH, KeyUsage.CLIENT_AUTH)


def test_what_is_asked_for_takes_the_place_of_the_default_renewal() -> None:
    usual = dataclasses.replace(certificate_shapes.DEFAULTS.certificate, renew_before_percentage=50)
    defaults = dataclasses.replace(certificate_shapes.DEFAULTS, certificate=usual)
    document = {"hostname": "shop.example.com", "certificate": {"renew_before_seconds": 86400}}
    request = parse_onboarding(document, tenant="acme", defaults=defaults)
    assert isinstance(request, OnboardingRequest)
    assert (request.certificate.renew_before_seconds, request.certificate.renew_before_percentage) == (86400, 0)


@pytest.mark.parametrize(
    ("certificate", "field", "words"),
    [
        ({"key_algorithm": "RSA", "key_size": 1024}, "key_size", "out of range"),
        ({"key_algorithm": "RSA", "key_size": 2049}, "key_size", "no key size of RSA"),
        ({"key_algorithm": "Ed25519", "key_size": 512}, "key_size", "out of range"),
        ({"key_algorithm": "Ed25519", "key_encoding": "PKCS1"}, "key_encoding", "RFC 8410"),
        ({"key_encoding": "DER"}, "key_encoding", "none of PKCS1, PKCS8"),
        ({"rotation": "Sometimes"}, "rotation", "none of Always, Never"),
        ({"usages": "server auth"}, "usages", "not a list"),
        ({"usages": ["server auth", "flying"]}, "usages[1]", "no usage"),
        ({"usages": ["cert sign"]}, "usages[0]", "no usage"),
        ({"usages": ["digital signature", "client auth"]}, "usages", "section 4.2.1.12"),
        ({"usages": ["server auth", "key agreement"]}, "usages", "RFC 8446"),
        ({"usages": ["digital signature", "server auth", "key encipherment"]}, "usages", "RFC 8813"),
        ({"common_name": "x" * 65}, "common_name", "64 characters"),
        ({"subject": []}, "subject", "not an object"),
        ({"subject": {"countries": ["Germany"]}}, "subject.countries[0]", "no country"),
        ({"subject": {"organizations": ["x" * 65]}}, "subject.organizations[0]", "longer than 64"),
        ({"subject": {"organizations": ["a\nb"]}}, "subject.organizations[0]", "no text"),
        ({"subject": {"organisations": ["x"]}}, "subject.organisations", "not a known field"),
        ({"subject": {"serial_number": "x" * 65}}, "subject.serial_number", "longer than 64"),
        ({"renew_before_seconds": 60}, "renew_before_seconds", "out of range"),
        ({"duration_seconds": 7200, "renew_before_seconds": 7200}, "renew_before_seconds", "not less than"),
        ({"renew_before_seconds": 90 * 86400}, "renew_before_seconds", "not less than"),
        ({"renew_before_seconds": 3600, "renew_before_percentage": 9}, "renew_before_seconds", "takes one of them"),
        ({"duration_seconds": 3600, "renew_before_percentage": 95}, "renew_before_percentage", "leaves less"),
        ({"duration_seconds": 3600, "renew_before_percentage": 5}, "renew_before_percentage", "leaves less"),
        ({"ip_addresses": ["shop.example.com"]}, "ip_addresses[0]", "no IP address"),
        ({"ip_addresses": ["0.0.0.0"]}, "ip_addresses[0]", "no single host"),
        ({"ip_addresses": ["fe80::1%eth0"]}, "ip_addresses[0]", "no single host"),
        ({"ip_addresses": ["192.0.2.7"] * 101}, "ip_addresses", "more than 100"),
        ({"uris": ["shop"]}, "uris[0]", "no absolute URI"),
        ({"uris": ["https://me:s3cret@shop.example.com/"]}, "uris[0]", "credentials"),
        (
            {"secret_template": {"labels": {"cert-manager.io/x": "y"}}},
            "secret_template.labels.cert-manager.io/x",
            "not",
        ),
        ({"secret_template": {"labels": {"a": "b c"}}}, "secret_template.labels.a", "no value"),
        ({"secret_template": {"labels": []}}, "secret_template.labels", "not an object"),
        ({"secret_template": {"annotations": {"a b": "c"}}}, "secret_template.annotations.a b", "no key"),
        ({"secret_template": "x"}, "secret_template", "not an object"),
        ({"temporary": "yes"}, "temporary", "neither true nor false"),
        ({"keystores": {"jks": {}}}, "keystores.jks.secret", "missing"),
        ({"keystores": {"jks": {"secret": "a", "profile": "LegacyDES"}}}, "keystores.jks.profile", "not a known field"),
        ({"keystores": {"jks": {"secret": "a", "alias": "x" * 65}}}, "keystores.jks.alias", "longer"),
        ({"keystores": {"pkcs12": {"secret": "a", "profile": "Best"}}}, "keystores.pkcs12.profile", "none of"),
        ({"keystores": {"pkcs12": "changeit"}}, "keystores.pkcs12", "not an object"),
    ],
)
def test_a_bad_field_is_refused_by_its_name(certificate: dict[str, Any], field: str, words: str) -> None:
    found = refused(certificate)
    assert words in found[field]
    assert len(found) == 1


def test_a_password_is_refused_and_not_repeated() -> None:
    document = {
        "hostname": "shop.example.com",
        "certificate": {"keystores": {"jks": {"secret": "a", "password": "s3cret"}}},
    }
    found = parse_onboarding(document, tenant="acme", defaults=certificate_shapes.DEFAULTS)
    assert isinstance(found, tuple)
    assert [one.field for one in found] == ["certificate.keystores.jks.password"]
    assert "s3cret" not in repr(found)


def test_a_tenant_may_not_set_what_nobody_proves_or_what_reaches_beyond_the_domain() -> None:
    wanted = {
        "common_name": "istiod",
        "subject": {"organizations": ["system:masters"]},
        "ip_addresses": ["10.0.0.1"],
        "uris": ["spiffe://cluster.local/ns/istio-system/sa/istiod"],
        "secret_template": {"labels": {"copy": "everywhere"}},
        "keystores": {"jks": {"secret": "root-ca", "password": "s3cret"}},
    }
    assert set(wanted) == set(OPERATORS_FIELDS)
    assert refused(wanted, operator=False) == dict.fromkeys(wanted, "is the operator's to set")


def test_all_problems_come_at_once() -> None:
    found = refused({"key_algorithm": "DSA", "usages": ["x"], "subject": {"countries": ["x"]}, "uris": [1], "xyz": 1})
    assert set(found) == {"key_algorithm", "usages[0]", "subject.countries[0]", "uris[0]", "xyz"}
