"""The lab's own keys: a certificate authority for the control plane, and kubeconfigs with client certificates.

Made anew for each lab and never leaving its directory. The customers' certificates are the ACME CA's business.
"""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = datetime.timedelta(days=365)


def _write(path: Path, content: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common: str, organization: str = "") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


class Authority:
    """A CA in `directory`: issues what the control plane's servers and clients need (PKIX, RFC 5280)."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name("certwright lab")
        self._certificate = (
            self._builder(self._subject, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.path = _write(directory / "ca.crt", self._certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + _LIFE)
        )

    def issue(self, common: str, *, organization: str = "", names: tuple[str, ...] = ()) -> tuple[Path, Path]:
        """Certificate and key files for a server (with `names`, DNS or IP) or a client (without)."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(common, organization), key).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        stem = common.replace(":", "-")
        return (
            _write(self._directory / f"{stem}.crt", certificate.public_bytes(serialization.Encoding.PEM)),
            _write(self._directory / f"{stem}.key", _pem(key)),
        )

    def kubeconfig(self, path: Path, server: str, common: str, *, organization: str = "") -> Path:
        """A kubeconfig for the client `common`; its files are named relative to it."""
        certificate, key = self.issue(common, organization=organization)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": str(self.path)}}],
            "users": [
                {"name": common, "user": {"client-certificate": str(certificate), "client-key": str(key)}},
            ],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": common}}],
        }
        return _write(path, yaml.safe_dump(document).encode())


def service_account_key(path: Path) -> Path:
    """The RSA key that signs ServiceAccount tokens; the API server verifies with the same file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return _write(
        path,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        ),
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
