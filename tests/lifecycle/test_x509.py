"""Facts of real certificates, and what keeps a gateway from serving them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import (
    AuthorityKeyIdentifier,
    BasicConstraints,
    Certificate,
    CertificateBuilder,
    DNSName,
    ExtendedKeyUsage,
    KeyUsage,
    Name,
    NameAttribute,
    SubjectAlternativeName,
    SubjectKeyIdentifier,
    load_der_x509_certificate,
    random_serial_number,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lifecycle import x509
from lifecycle.certificate_details import Keystore
from lifecycle.domain import CertificateFacts, CertificateSpec

CA = trustme.CA()
NOW = datetime.now(UTC)
LEAF = CA.issue_cert(
    "shop.example.com", "*.shop.example.com", not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=9)
)
CHAIN = LEAF.cert_chain_pems[0].bytes() + CA.cert_pem.bytes()
KEY = LEAF.private_key_pem.bytes()


def found(chain: bytes = CHAIN, key: bytes = KEY, *names: str, now: datetime = NOW) -> list[str]:
    said = x509.secret_findings(chain, key, names or ("shop.example.com",), subject="Secret a/b", now=now)[1]
    assert all("PRIVATE" not in repr(finding) for finding in said)
    return [finding.code for finding in said]


def facts(*dns_names: str) -> CertificateFacts:
    return CertificateFacts(
        fingerprint="", serial="", issuer="", dns_names=dns_names, not_before=NOW, not_after=NOW, public_key=""
    )


def test_the_facts_of_a_chain_are_its_leafs() -> None:
    read = x509.facts(CHAIN)
    assert read.dns_names == ("shop.example.com", "*.shop.example.com")
    assert read.chain_length == 2
    assert len(read.fingerprint) == len(read.public_key_fingerprint) == 64


def test_a_good_secret_has_no_findings() -> None:
    assert found(CHAIN, KEY, "shop.example.com", "www.shop.example.com") == []


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (lambda: found(b"nothing"), ["CW1402"]),
        (lambda: found(CHAIN, b"nothing"), ["CW1402"]),
        (lambda: found(CHAIN, CA.issue_cert("x.example.com").private_key_pem.bytes()), ["CW1403"]),
        (lambda: found(CHAIN, KEY, "shop.example.com", "other.example.com"), ["CW1404"]),
        (lambda: found(now=NOW + timedelta(days=10)), ["CW1405"]),
        (lambda: found(now=NOW - timedelta(days=2)), ["CW1406"]),
        (
            lambda: found(
                CHAIN, CA.issue_cert("x.example.com").private_key_pem.bytes(), "o.example.com", now=NOW + timedelta(99)
            ),
            ["CW1403", "CW1404", "CW1405"],
        ),
    ],
)
def test_everything_wrong_with_a_secret_is_found(codes: object, expected: list[str]) -> None:
    assert callable(codes)
    assert expected == codes()


@pytest.mark.parametrize(
    ("dns_names", "hostname", "expected"),
    [
        (("shop.example.com",), "shop.example.com", True),
        (("Shop.Example.com",), "shop.EXAMPLE.com", True),
        (("*.example.com",), "shop.example.com", True),
        (("*.example.com",), "a.shop.example.com", False),
        (("*.example.com",), "example.com", False),
        (("s*.example.com",), "shop.example.com", False),
        ((), "shop.example.com", False),
    ],
)
def test_a_wildcard_stands_for_exactly_one_label(dns_names: tuple[str, ...], hostname: str, expected: bool) -> None:
    assert expected is x509.covers(facts(*dns_names), hostname)


def authority(name: str) -> tuple[Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = Name([NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        CertificateBuilder(subject, subject, key.public_key(), random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=99))
        .add_extension(BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            KeyUsage(
                key_cert_sign=True,
                crl_sign=True,
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    return made, key


# the verifier holds a chain to the Web's profile, which trustme's leaves miss: their subjectAltName is critical
ROOT, ROOT_KEY = authority("root")
OTHER_ROOT, _ = authority("another root")
PRESENTED = (
    CertificateBuilder(
        ROOT.subject, Name([]), ec.generate_private_key(ec.SECP256R1()).public_key(), random_serial_number()
    )
    .not_valid_before(NOW - timedelta(days=1))
    .not_valid_after(NOW + timedelta(days=9))
    .add_extension(SubjectAlternativeName([DNSName("shop.example.com"), DNSName("*.shop.example.com")]), critical=True)
    .add_extension(AuthorityKeyIdentifier.from_issuer_public_key(ROOT_KEY.public_key()), critical=False)
    .add_extension(ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    .sign(ROOT_KEY, hashes.SHA256())
    .public_bytes(Encoding.DER)
)


@pytest.mark.parametrize(
    ("root", "hostname", "days", "good"),
    [
        (ROOT, "shop.example.com", 0, True),
        (ROOT, "www.shop.example.com", 0, True),
        (ROOT, "other.example.com", 0, False),
        (ROOT, "shop.example.com", 30, False),
        (OTHER_ROOT, "shop.example.com", 0, False),
    ],
)
def test_a_chain_leads_to_an_expected_root_or_the_problem_is_said(
    root: Certificate, hostname: str, days: int, good: bool
) -> None:
    now = NOW + timedelta(days=days)
    problem = x509.chain_problem((PRESENTED,), root.public_bytes(Encoding.PEM), hostname, now)
    assert good is (problem == "")


@pytest.mark.parametrize(
    ("hostname", "days", "problem"),
    [
        ("shop.example.com", 0, ""),
        ("www.shop.example.com", 0, ""),
        ("other.example.com", 0, "it does not cover other.example.com"),
        ("shop.example.com", 30, "it is not valid at this time"),
        ("shop.example.com", -30, "it is not valid at this time"),
    ],
)
def test_a_leaf_that_is_itself_expected_needs_no_chain(hostname: str, days: int, problem: str) -> None:
    roots = OTHER_ROOT.public_bytes(Encoding.PEM) + load_der_x509_certificate(PRESENTED).public_bytes(Encoding.PEM)
    assert problem == x509.chain_problem((PRESENTED,), roots, hostname, NOW + timedelta(days=days))


# --- what was asked for beside the hostnames --------------------------------------------------------------------------

NAMED = CA.issue_cert("shop.example.com", "192.0.2.7", not_after=NOW + timedelta(days=9))


def wanting(parts: set[str] | None = None, **wanted: Any) -> list[str]:
    """What is wrong with the Secret of such a certificate; `parts` are its keys."""
    chain, key = NAMED.cert_chain_pems[0].bytes(), NAMED.private_key_pem.bytes()
    certificate = CertificateSpec(**wanted)
    read, said = x509.secret_findings(
        chain, key, ("shop.example.com",), subject="Secret a/b", now=NOW, wanted=certificate, parts=parts or set()
    )
    assert read is not None
    assert read.ip_addresses == ("192.0.2.7",)
    return [finding.code for finding in said]


def test_addresses_and_uris_must_be_there_too() -> None:
    assert wanting(ip_addresses=("192.0.2.7",)) == []
    assert wanting(ip_addresses=("192.0.2.8",), uris=("spiffe://example.com/shop",)) == ["CW1404", "CW1404"]


def test_keystores_must_be_there_too() -> None:
    stores = {"jks": Keystore(secret="password"), "pkcs12": Keystore(secret="password")}
    assert wanting({"keystore.jks", "keystore.p12"}, **stores) == []
    assert wanting({"keystore.p12"}, **stores) == ["CW1411"]
    read, _ = x509.secret_findings(
        CHAIN, KEY, ("shop.example.com",), subject="Secret a/b", now=NOW, parts={"tls.crt", "keystore.p12"}
    )
    assert read is not None
    assert read.keystores == ("keystore.p12",)


def test_extended_usages_are_told_by_name() -> None:
    assert x509.facts(CHAIN).usages == ("client auth", "server auth", "code signing")


def test_a_temporary_certificate_is_never_served() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    made = (
        CertificateBuilder(
            Name([NameAttribute(NameOID.COMMON_NAME, "cert-manager.local")]), Name([]), key.public_key(), 1234567890
        )
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=9))
        .add_extension(SubjectAlternativeName([DNSName("shop.example.com")]), critical=True)
        .sign(key, None)
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    read = x509.facts(made.public_bytes(Encoding.PEM))
    assert (read.public_key, read.usages) == ("Ed25519", ())
    assert found(made.public_bytes(Encoding.PEM), pem) == ["CW1409"]
