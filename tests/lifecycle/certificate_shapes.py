"""Every shape of a certificate that can be asked for, as a request says it; each has a golden manifest of its name."""

from __future__ import annotations

from typing import Any

from lifecycle import manifests
from lifecycle.authorities import Authority, authority_manifest, parse_authority
from lifecycle.domain import IssuerRef, OnboardingRequest, Route
from lifecycle.manifests import Manifest
from lifecycle.requests import OnboardingDefaults, parse_onboarding

DEFAULTS = OnboardingDefaults(
    issuer=IssuerRef(name="letsencrypt"),
    routes=(Route(prefix="/", service="frontend-service", port=80),),
    wildcard_allowed=True,
    operator=True,
)
HOSTNAMES = ["shop.example.com", "www.shop.example.com"]


def _with(**certificate: Any) -> dict[str, Any]:
    return {"hostnames": HOSTNAMES, "certificate": certificate}


SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"hostnames": HOSTNAMES},
    **{f"rsa-{size}": _with(key_algorithm="RSA", key_size=size) for size in (2048, 3072, 4096)},
    **{f"ecdsa-{size}": _with(key_algorithm="ECDSA", key_size=size) for size in (256, 384, 521)},
    "ed25519": _with(key_algorithm="Ed25519"),
    "rsa-pkcs1": _with(key_algorithm="RSA", key_size=4096, key_encoding="PKCS1"),
    "ecdsa-pkcs8": _with(key_encoding="pkcs8"),
    "key-kept": _with(rotation="Never"),
    "usages": _with(
        key_algorithm="RSA", usages=["digital signature", "key encipherment", "server auth", "client auth"]
    ),
    "subject": _with(
        common_name="shop.example.com",
        subject={
            "organizations": ["Shop Ltd"],
            "organizational_units": ["Web"],
            "countries": ["DE"],
            "localities": ["Berlin"],
            "provinces": ["Berlin"],
            "street_addresses": ["Kaufstraße 1"],
            "postal_codes": ["10115"],
            "serial_number": "HRB 1",
        },
    ),
    "duration-renew-before": _with(duration_seconds=7_776_000, renew_before_seconds=1_296_000),
    "duration-renew-before-percentage": _with(duration_seconds=7_776_000, renew_before_percentage=40),
    "wildcard": {"hostnames": ["*.shop.example.com", "shop.example.com"]},
    "many-names": {"hostnames": [f"n{number:03}.example.com" for number in range(100)]},
    "addresses-and-uris": _with(ip_addresses=["192.0.2.7", "2001:DB8::7"], uris=["spiffe://example.com/shop"]),
    "secret-template": _with(
        secret_template={"labels": {"team": "shop"}, "annotations": {"example.com/owner": "shop@example.com"}}
    ),
    "temporary": _with(temporary=True),
    "keystores": _with(
        keystores={
            "jks": {"secret": "keystore-password", "key": "jks", "alias": "shop"},
            "pkcs12": {"secret": "keystore-password", "profile": "Modern2023"},
        }
    ),
}

AUTHORITIES: dict[str, dict[str, Any]] = {
    "root": {"name": "shop-root", "issuer": "bootstrap", "certificate": {"common_name": "Shop Root"}},
    "constrained": {
        "name": "shop-ca",
        "namespace": "cert-manager",
        "issuer": {"name": "shop-root", "kind": "Issuer"},
        "certificate": {
            "common_name": "Shop CA",
            "key_algorithm": "RSA",
            "key_size": 3072,
            "subject": {"organizations": ["Shop Ltd"]},
            "duration_seconds": 94_608_000,
            "renew_before_percentage": 20,
        },
        "permitted": {"dns_domains": ["shop.example.com"], "ip_ranges": ["192.0.2.0/24"]},
        "excluded": {"dns_domains": ["admin.shop.example.com"], "uri_domains": ["example.org"]},
    },
}


def request(name: str) -> OnboardingRequest:
    """The request of a shape, as an operator sends it."""
    parsed = parse_onboarding(SHAPES[name], tenant="acme", defaults=DEFAULTS)
    assert isinstance(parsed, OnboardingRequest), parsed
    return parsed


def authority(name: str) -> Authority:
    """The CA of a shape."""
    parsed = parse_authority(AUTHORITIES[name])
    assert isinstance(parsed, Authority), parsed
    return parsed


def documents() -> dict[str, Manifest]:
    """What is applied for each."""
    return {
        **{name: manifests.certificate(request(name)) for name in SHAPES},
        **{f"ca-{name}": authority_manifest(authority(name)) for name in AUTHORITIES},
    }
