"""Credentials on their way into a Secret: from files, the environment or made here, with the caller's own rights.

They go from this process to the API server and nowhere else: no workflow, no log, no error and no output has them.
The Secret is written once by server-side apply; what somebody else manages is not taken over unasked. Left out: which
Secrets an issuer needs (`lifecycle.issuers`).
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes.aio.dynamic.exceptions import DynamicApiError

from activities import kubernetes
from lifecycle.diagnosis import said
from lifecycle.manifests import FIELD_MANAGER, Manifest
from lifecycle.requests import FieldError

TEN_YEARS = timedelta(days=3650)
"""A root's life; those of browsers' programs live longer, and a private one is replaced with its cluster."""

_SOURCE = re.compile(r"(?P<key>[A-Za-z0-9._-]{1,253})=(?P<kind>file|env):(?P<where>.+)")
_LONGEST = 256 * 1024
"""Octets of one value; Kubernetes takes 1 MiB in all ("Secrets": "Size limit")."""


class CredentialsError(Exception):
    """What was given cannot be written; all reasons. Values are never among them."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(f"{len(errors)} problems")
        self.errors = errors


class NotWrittenError(Exception):
    """The cluster did not take it; what to do is `fix`."""

    def __init__(self, title: str, fix: str = "") -> None:
        super().__init__(title)
        self.fix = fix


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Credentials:
    """What a Secret is to hold; never shown."""

    values: dict[str, bytes]
    kind: str = "Opaque"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written: names only."""

    namespace: str
    name: str
    keys: tuple[str, ...]
    changed: bool
    fingerprint: str = ""


def gathered(
    sources: Sequence[str],
    environment: Mapping[str, str],
    *,
    certificate: str = "",
    key: str = "",
    generate: str = "",
) -> Credentials:
    """The values from ``KEY=file:PATH`` and ``KEY=env:VARIABLE``, a certificate with its key, or a root made here.

    Raises CredentialsError.
    """
    ways = [bool(sources), bool(certificate or key), bool(generate)]
    if sum(ways) != 1:
        problem = "names nothing" if not any(ways) else "names several"
        fix = "give KEY=file:PATH or KEY=env:VARIABLE, or --certificate and --key, or --generate-ca NAME"
        raise CredentialsError(FieldError(field="SOURCE", value="", problem=problem, fix=fix))
    if generate:
        return _root(generate)
    if sources:
        return _plain(sources, environment)
    return _pair(certificate, key)


def _plain(sources: Sequence[str], environment: Mapping[str, str]) -> Credentials:
    errors: list[FieldError] = []
    values: dict[str, bytes] = {}
    for source in sources:
        found = _SOURCE.fullmatch(source)
        if found is None:
            # not repeated: somebody may have written the credential itself
            fix = "write KEY=file:PATH or KEY=env:VARIABLE; a value on the command line is seen by others"
            errors.append(FieldError(field="SOURCE", value="", problem="is no source", fix=fix))
            continue
        field, where = f"SOURCE {found['key']}", found["where"]
        if found["key"] in values:
            errors.append(FieldError(field=field, value="", problem="is there twice", fix="keep one of them"))
        if found["kind"] == "env":
            text = environment.get(where, "")
            if not text:
                errors.append(FieldError(field=field, value=where, problem="is empty or not set", fix=f"set {where}"))
            values[found["key"]] = _trimmed(text.encode())
        else:
            values[found["key"]] = _trimmed(_read(field, where, errors))
    if errors:
        raise CredentialsError(*errors)
    return Credentials(values=values)


def _pair(certificate: str, key: str) -> Credentials:
    """A CA's certificate and key, which belong together; the chain may follow the certificate."""
    errors: list[FieldError] = []
    for field, path in (("--certificate", certificate), ("--key", key)):
        if not path:
            fix = "give --certificate and --key"
            errors.append(FieldError(field=field, value="", problem="is missing, and its other half is set", fix=fix))
    chain_pem = _read("--certificate", certificate, errors) if certificate else b""
    key_pem = _read("--key", key, errors) if key else b""
    if errors:
        raise CredentialsError(*errors)
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except ValueError:  # the library's text could quote the input
        fault = FieldError(
            field="--certificate", value=certificate[:80], problem="is no PEM certificate", fix="mend it"
        )
        raise CredentialsError(fault) from None
    try:
        private = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError):
        fix = "write it as PEM without a passphrase; cert-manager takes no other"
        fault = FieldError(field="--key", value=key[:80], problem="is no PEM private key", fix=fix)
        raise CredentialsError(fault) from None
    if _spki(private.public_key()) != _spki(chain[0].public_key()):
        problem = "is not the key of the first certificate"
        raise CredentialsError(FieldError(field="--key", value=key[:80], problem=problem, fix="give its own key"))
    try:
        authority = chain[0].extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        authority = False
    if not authority:
        # RFC 5280, section 4.2.1.9; cert-manager refuses it too (pkg/issuer/ca/setup.go)
        problem = "is no CA's: its basic constraints do not say so"
        fault = FieldError(
            field="--certificate", value=certificate[:80], problem=problem, fix="give a CA's certificate"
        )
        raise CredentialsError(fault)
    return Credentials(values={"tls.crt": chain_pem, "tls.key": key_pem}, kind="kubernetes.io/tls")


def _root(common_name: str) -> Credentials:
    """A new root (RFC 5280, section 4.2.1): for servers' certificates of one level below it."""
    if not common_name.isprintable() or not 0 < len(common_name.strip()) <= 64:
        # RFC 5280, appendix A.1: ub-common-name
        problem = "is no common name of 1 to 64 characters"
        fault = FieldError(field="--generate-ca", value=common_name[:80], problem=problem, fix="write Shop Root CA")
        raise CredentialsError(fault)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name.strip())])
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + TEN_YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    return Credentials(values={"tls.crt": public, "tls.key": private}, kind="kubernetes.io/tls")


async def write(kubeconfig: str, namespace: str, name: str, credentials: Credentials, *, replace: bool) -> Written:
    """Put them into the Secret, with the rights of `kubeconfig`.

    `replace` False keeps what is there: a Secret whose values differ is refused. Raises NotWrittenError,
    temporalio ApplicationError (refused, or not reached).
    """
    data = {key: base64.b64encode(value).decode("ascii") for key, value in credentials.values.items()}
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "certwright"},
        },
        "type": credentials.kind,
        "data": data,
    }
    written = Written(
        namespace=namespace,
        name=name,
        keys=tuple(sorted(data)),
        changed=True,
        fingerprint=_fingerprint(credentials.values.get("tls.crt", b"")),
    )
    async with kubernetes.connect(kubeconfig) as cluster:
        there = await kubernetes.read(cluster, "v1", "Secret", namespace, name)
        if there is not None:
            held = there.get("data") or {}
            if all(held.get(key) == value for key, value in data.items()):
                return Written(namespace=namespace, name=name, keys=written.keys, changed=False)
            differ = ", ".join(key for key in sorted(data) if key in held and held[key] != data[key])
            if differ and not replace:
                raise NotWrittenError(
                    f"Secret {namespace}/{name} is there with another {differ}", "--replace overwrites it"
                )
        kind = await kubernetes.resource(cluster, "v1", "Secret")
        async with kubernetes.answering(cluster, f"write Secret {namespace}/{name}"):
            try:
                await cluster.server_side_apply(
                    kind,
                    body=manifest,
                    namespace=namespace,
                    field_manager=FIELD_MANAGER,
                    force_conflicts=replace,
                    _request_timeout=kubernetes.CALL_SECONDS,
                )
            except DynamicApiError as error:
                if error.status == 404:
                    fix = f"kubectl create namespace {namespace}"
                    raise NotWrittenError(f"there is no namespace {namespace}", fix) from None
                if error.status == 409:
                    raise NotWrittenError(
                        f"somebody else manages it: {said(str(error.summary()))}", "--replace takes it over"
                    ) from None
                if error.status == 422:
                    # the server's words may quote what was sent
                    fix = f"kubectl delete secret -n {namespace} {name}, or another name"
                    raise NotWrittenError("the cluster refused it: its type or form does not fit", fix) from None
                raise
    return written


def _read(field: str, path: str, errors: list[FieldError]) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "it cannot be read"
        fault = FieldError(field=field, value=path[:80], problem=f"cannot be read: {reason}", fix="correct the path")
        errors.append(fault)
        return b""
    if not content.strip() or len(content) > _LONGEST:
        problem = "is empty" if not content.strip() else f"has more than {_LONGEST} octets"
        errors.append(FieldError(field=field, value=path[:80], problem=problem, fix="name the right file"))
    return content


def _trimmed(value: bytes) -> bytes:
    """A single line without its end, which editors add and no API takes; more lines stay as they are."""
    return value.rstrip(b"\r\n") if value.count(b"\n") <= 1 else value


def _spki(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined, no-any-return]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _fingerprint(pem: bytes) -> str:
    return x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex() if b"BEGIN CERT" in pem else ""
