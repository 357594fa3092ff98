"""What can be said of a certificate beside its names and its key's size: the parts of `domain.CertificateSpec`.

Wire types. Left out: reading what people write (`lifecycle.certificate_requests`), cert-manager's form of it
(`lifecycle.certificate_manifests`), and what an issuer will not sign (`lifecycle.acceptance`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class KeyEncoding(StrEnum):
    """How the private key lies in ``tls.key``: PKCS #1 (RFC 8017; SEC 1 for ECDSA) or PKCS #8 (RFC 5958)."""

    PKCS1 = "PKCS1"
    PKCS8 = "PKCS8"


class RotationPolicy(StrEnum):
    """Whether a renewal makes a new key."""

    ALWAYS = "Always"
    NEVER = "Never"


class KeyUsage(StrEnum):
    """Key usages and extended key usages (RFC 5280, sections 4.2.1.3 and 4.2.1.12) as cert-manager spells them.

    Without those of a CA, which no certificate of a domain may have (RFC 5280, section 4.2.1.9).
    """

    DIGITAL_SIGNATURE = "digital signature"
    CONTENT_COMMITMENT = "content commitment"
    KEY_ENCIPHERMENT = "key encipherment"
    DATA_ENCIPHERMENT = "data encipherment"
    KEY_AGREEMENT = "key agreement"
    SERVER_AUTH = "server auth"
    CLIENT_AUTH = "client auth"
    CODE_SIGNING = "code signing"
    EMAIL_PROTECTION = "email protection"
    TIMESTAMPING = "timestamping"
    OCSP_SIGNING = "ocsp signing"
    IPSEC_END_SYSTEM = "ipsec end system"
    IPSEC_TUNNEL = "ipsec tunnel"
    IPSEC_USER = "ipsec user"
    ANY = "any"


class Pkcs12Profile(StrEnum):
    """Algorithms of a PKCS#12 file, as cert-manager names them; the older two for readers that know no newer ones."""

    LEGACY_RC2 = "LegacyRC2"
    LEGACY_DES = "LegacyDES"
    MODERN_2023 = "Modern2023"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The distinguished name beside the common name (RFC 5280, section 4.1.2.6)."""

    organizations: tuple[str, ...] = ()
    organizational_units: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    localities: tuple[str, ...] = ()
    provinces: tuple[str, ...] = ()
    street_addresses: tuple[str, ...] = ()
    postal_codes: tuple[str, ...] = ()
    serial_number: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keystore:
    """A keystore beside ``tls.crt``; its password is in a Secret of the gateway's namespace and nowhere else.

    Attributes:
        secret: the Secret's name; `key` which of its keys holds the password.
        alias: of a JKS keystore's entry, empty for cert-manager's own.
        profile: of a PKCS#12 keystore, None for cert-manager's own.
    """

    secret: str
    key: str = "password"
    alias: str = ""
    profile: Pkcs12Profile | None = None
