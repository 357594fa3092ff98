"""What is in a certificate, does its key match, and whom does it speak for?

Only public facts leave this module. Verification looks at subjectAltName alone (RFC 9525, section 6.3); the common
name is not read. Left out: revocation.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Collection
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lifecycle import findings
from lifecycle.certificate_details import KeyUsage
from lifecycle.domain import DEFAULT_CERTIFICATE, CertificateFacts, CertificateSpec
from lifecycle.findings import Finding


def facts(chain_pem: bytes) -> CertificateFacts:
    """The facts of the first certificate of a PEM chain. Raises ValueError where there is none."""
    chain = x509.load_pem_x509_certificates(chain_pem)
    return facts_of(chain[0], chain_length=len(chain))


def facts_of(certificate: x509.Certificate, *, chain_length: int = 1) -> CertificateFacts:
    """The facts of a parsed certificate."""
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns_names = tuple(alternatives.get_values_for_type(x509.DNSName))
        ip_addresses = tuple(str(one) for one in alternatives.get_values_for_type(x509.IPAddress))
        uris = tuple(alternatives.get_values_for_type(x509.UniformResourceIdentifier))
    except x509.ExtensionNotFound:
        pass
    key = certificate.public_key()
    return CertificateFacts(
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        serial=f"{certificate.serial_number:x}",
        issuer=certificate.issuer.rfc4514_string(),
        dns_names=dns_names,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        public_key=_describe(key),
        public_key_fingerprint=hashlib.sha256(_spki(key)).hexdigest(),
        chain_length=chain_length,
        ip_addresses=ip_addresses,
        uris=uris,
        usages=_usages(certificate),
    )


_USAGES = {
    ExtendedKeyUsageOID.SERVER_AUTH: KeyUsage.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH: KeyUsage.CLIENT_AUTH,
    ExtendedKeyUsageOID.CODE_SIGNING: KeyUsage.CODE_SIGNING,
    ExtendedKeyUsageOID.EMAIL_PROTECTION: KeyUsage.EMAIL_PROTECTION,
    ExtendedKeyUsageOID.TIME_STAMPING: KeyUsage.TIMESTAMPING,
    ExtendedKeyUsageOID.OCSP_SIGNING: KeyUsage.OCSP_SIGNING,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: KeyUsage.ANY,
}


def _usages(certificate: x509.Certificate) -> tuple[str, ...]:
    """The extended key usages, those without a name of ours by their number."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(_USAGES[one].value if one in _USAGES else one.dotted_string for one in found)


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _describe(key: PublicKeyTypes) -> str:
    match key:
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"ECDSA {key.key_size}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
    return type(key).__name__.strip("_")


def covers(certificate: CertificateFacts, hostname: str) -> bool:
    """Whether a name of the certificate is the hostname, or a wildcard for exactly its first label (RFC 9525, 6.3)."""
    hostname = hostname.lower()
    _, _, parent = hostname.partition(".")
    return any(name.lower() in {hostname, f"*.{parent}"} for name in certificate.dns_names)


KEYSTORES = {"jks": "keystore.jks", "pkcs12": "keystore.p12"}
"""Keys of a Secret with keystores (cert-manager API reference: JKSKeystore, PKCS12Keystore)."""


TEMPORARY_ISSUER = "CN=cert-manager.local"
"""Who signs temporary certificates (cert-manager 1.21, pkg/util/pki/temporarycertificate.go); no CA has that name."""


def secret_findings(
    chain_pem: bytes,
    key_pem: bytes,
    hostnames: tuple[str, ...],
    *,
    subject: str,
    now: datetime,
    wanted: CertificateSpec = DEFAULT_CERTIFICATE,
    parts: Collection[str] = (),
) -> tuple[CertificateFacts | None, tuple[Finding, ...]]:
    """What is wrong with a TLS Secret's content before a gateway may serve it; the key's bytes go nowhere.

    `wanted` is what was asked for beside the hostnames, `parts` the Secret's keys that hold anything.
    """
    renew = f"certwright renew {hostnames[0]}"
    try:
        found = facts(chain_pem)
        key = serialization.load_pem_private_key(key_pem, password=None)
    except ValueError:  # the library's text could quote the input
        problem = "tls.crt or tls.key holds no PEM that can be read."
        return None, (findings.SECRET_UNREADABLE.found(subject=subject, problem=problem, fix=renew),)
    said: list[Finding] = []
    if hashlib.sha256(_spki(key.public_key())).hexdigest() != found.public_key_fingerprint:
        problem = "tls.key is not the key of the certificate in tls.crt."
        said.append(findings.KEY_DOES_NOT_MATCH.found(subject=subject, problem=problem, fix=renew))
    said.extend(
        findings.NAME_NOT_COVERED.found(
            subject=subject,
            problem=f"The certificate does not cover {hostname}; it has {', '.join(found.dns_names) or 'no names'}.",
            fix=renew,
        )
        for hostname in hostnames
        if not covers(found, hostname)
    )
    if found.issuer == TEMPORARY_ISSUER:
        problem = "tls.crt is cert-manager's temporary certificate: the issuer has not signed yet."
        fix = f"certwright status {hostnames[0]}; it is replaced as soon as the issuer has signed."
        said.append(findings.TEMPORARY_CERTIFICATE.found(subject=subject, problem=problem, fix=fix))
    here = {*found.ip_addresses, *found.uris}
    said.extend(
        findings.NAME_NOT_COVERED.found(
            subject=subject,
            problem=f"The certificate does not cover {name}; it has {', '.join(sorted(here)) or 'none of its kind'}.",
            fix=renew,
        )
        for name in (*wanted.ip_addresses, *wanted.uris)
        if name not in here
    )
    found = dataclasses.replace(found, keystores=tuple(key for key in KEYSTORES.values() if key in parts))
    for kind, store in (("jks", wanted.jks), ("pkcs12", wanted.pkcs12)):
        if store is not None and KEYSTORES[kind] not in parts:
            problem = (
                f"It has no {KEYSTORES[kind]}, which was asked for with a password from {store.secret}/{store.key}."
            )
            fix = f"kubectl describe secret {store.secret} in the same namespace; then {renew}"
            said.append(findings.KEYSTORE_MISSING.found(subject=subject, problem=problem, fix=fix))
    if now >= found.not_after:
        problem = f"The certificate expired at {found.not_after.isoformat()}."
        said.append(findings.CERTIFICATE_EXPIRED.found(subject=subject, problem=problem, fix=renew))
    if now < found.not_before:
        problem = f"The certificate is valid only from {found.not_before.isoformat()}."
        fix = "Check the clocks of the CA and of this machine."
        said.append(findings.CERTIFICATE_NOT_YET_VALID.found(subject=subject, problem=problem, fix=fix))
    return found, tuple(said)


def chain_problem(chain_der: tuple[bytes, ...], roots_pem: bytes, hostname: str, now: datetime) -> str:
    """Why a presented chain does not lead to an expected root for this name; empty where it does (RFC 5280).

    A leaf that is itself among the roots is expected by its bytes, as a self-signed one can only be; then its names
    and its time are looked at alone.
    """
    roots, store = _store(roots_pem)
    leaf, *others = (x509.load_der_x509_certificate(der) for der in chain_der)
    if leaf in roots:
        return _expected_leaf_problem(leaf, hostname, now)
    verifier = verification.PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(hostname))
    try:
        verifier.verify(leaf, others)
    except verification.VerificationError as error:
        return str(error)[:300]
    return ""


def stranger(now: datetime) -> tuple[bytes, bytes]:
    """Certificate and key (PEM) of a client whom no CA knows, to be refused; valid for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "certwright-stranger")])
    hour = timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - hour)
        .not_valid_after(now + hour)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private


def _expected_leaf_problem(leaf: x509.Certificate, hostname: str, now: datetime) -> str:
    found = facts_of(leaf)
    if not covers(found, hostname):
        return f"it does not cover {hostname}"
    return "" if found.not_before <= now < found.not_after else "it is not valid at this time"


@functools.lru_cache(maxsize=16)
def _store(roots_pem: bytes) -> tuple[frozenset[x509.Certificate], verification.Store]:
    """Parsing all public roots takes longer than a handshake, and an edge has many addresses."""
    roots = x509.load_pem_x509_certificates(roots_pem)
    return frozenset(roots), verification.Store(roots)
