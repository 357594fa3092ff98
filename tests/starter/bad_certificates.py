"""The rows of certificates that both doors refuse: what is asked of Let's Encrypt, by which profile, and why not."""

from __future__ import annotations

from typing import Any

DIRECTORY = "https://acme-v02.api.letsencrypt.org/directory"
PLAIN = ["digital signature", "server auth"]

BAD_CERTIFICATES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "names over the profile's limit": ({}, "tlsserver", "CW1331", "more than the 25 of profile tlsserver"),
    "Ed25519 at a public CA": ({"key_algorithm": "Ed25519"}, "", "CW1330", "Baseline Requirements, section 6.1.5"),
    "P-521 at Let's Encrypt": ({"key_size": 521}, "", "CW1330", "Integration Guide"),
    "clientAuth at Let's Encrypt": ({"usages": [*PLAIN, "client auth"]}, "", "CW1332", "since 2026-07-08"),
    "a life over the profile's": ({"duration_seconds": 7 * 86400}, "shortlived", "CW1333", "160 hours"),
}

OPERATORS_CERTIFICATES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "an address over ACME": ({"ip_addresses": ["192.0.2.7"]}, "", "CW1334", "RFC 8738"),
    "a subject": ({"subject": {"organizations": ["Shop Ltd"]}}, "", "CW1335", "section 7.1.2.7.2"),
}
"""Those that a tenant may not even ask for."""

ALL_CERTIFICATES = BAD_CERTIFICATES | OPERATORS_CERTIFICATES


def asked(row: str, hostname: str) -> dict[str, Any]:
    """The request of a row: of one name, and of 26 where their number is what is wrong."""
    certificate, profile, _, _ = ALL_CERTIFICATES[row]
    count = 26 if profile == "tlsserver" else 1
    return {
        "hostnames": [hostname, *(f"n{number}.{hostname}" for number in range(count - 1))],
        "certificate": certificate,
    }
