"""What is a Certificate's spec? cert-manager's form of all that can be asked of a domain's certificate.

Left out: the object around it (`lifecycle.manifests`) and a CA's certificate (`lifecycle.authorities`).
"""

from __future__ import annotations

from typing import Any

from lifecycle import names
from lifecycle.certificate_details import KeyEncoding, Keystore, KeyUsage, Subject
from lifecycle.domain import CertificateSpec, KeyAlgorithm, OnboardingRequest

DEFAULT_USAGES = (KeyUsage.DIGITAL_SIGNATURE, KeyUsage.SERVER_AUTH)
"""All that TLS 1.3 and the ECDHE suites of TLS 1.2 need."""

TEMPORARY = "cert-manager.io/issue-temporary-certificate"
"""The annotation by which cert-manager fills the Secret before the issuer has signed."""

_SUBJECT = {
    "organizations": "organizations",
    "organizational_units": "organizationalUnits",
    "countries": "countries",
    "localities": "localities",
    "provinces": "provinces",
    "street_addresses": "streetAddresses",
    "postal_codes": "postalCodes",
}


def certificate_spec(request: OnboardingRequest) -> dict[str, Any]:
    """The spec of a domain's Certificate; by default its key is new at each renewal."""
    wanted, issuer = request.certificate, request.issuer
    spec: dict[str, Any] = {
        "secretName": names.secret_name(request.hostname),
        "dnsNames": list(request.hostnames),
        "issuerRef": {"group": "cert-manager.io", "kind": issuer.kind.value, "name": issuer.name},
        "privateKey": private_key(wanted),
        "usages": [usage.value for usage in wanted.usages or DEFAULT_USAGES],
    }
    if wanted.ip_addresses:
        spec["ipAddresses"] = list(wanted.ip_addresses)
    if wanted.uris:
        spec["uris"] = list(wanted.uris)
    if wanted.common_name:
        spec["commonName"] = wanted.common_name
    if wanted.subject is not None and (subject := subject_spec(wanted.subject)):
        spec["subject"] = subject
    if wanted.duration_seconds:
        spec["duration"] = f"{wanted.duration_seconds}s"
    if wanted.renew_before_seconds:
        spec["renewBefore"] = f"{wanted.renew_before_seconds}s"
    if wanted.renew_before_percentage:
        spec["renewBeforePercentage"] = wanted.renew_before_percentage
    template = {"labels": dict(wanted.secret_labels), "annotations": dict(wanted.secret_annotations)}
    if any(template.values()):
        spec["secretTemplate"] = {part: values for part, values in template.items() if values}
    keystores = {
        kind: _keystore(one) for kind, one in (("jks", wanted.jks), ("pkcs12", wanted.pkcs12)) if one is not None
    }
    if keystores:
        spec["keystores"] = keystores
    return spec


def private_key(wanted: CertificateSpec) -> dict[str, Any]:
    """The key that is to be made; of Ed25519 there is one size and one encoding (RFC 8410)."""
    key: dict[str, Any] = {"algorithm": wanted.key_algorithm.value}
    encoding = wanted.key_encoding
    if wanted.key_algorithm is KeyAlgorithm.ED25519:
        encoding = KeyEncoding.PKCS8
    else:
        key["size"] = wanted.key_size
    if encoding is not None:
        key["encoding"] = encoding.value
    return key | {"rotationPolicy": wanted.rotation.value}


def subject_spec(subject: Subject) -> dict[str, Any]:
    """Those parts of a distinguished name that are set."""
    found: dict[str, Any] = {
        theirs: list(getattr(subject, ours)) for ours, theirs in _SUBJECT.items() if getattr(subject, ours)
    }
    if subject.serial_number:
        found["serialNumber"] = subject.serial_number
    return found


def annotated(request: OnboardingRequest, certificate: dict[str, Any]) -> dict[str, Any]:
    """The Certificate with the annotations that its own kind needs."""
    if request.certificate.temporary:
        certificate["metadata"]["annotations"][TEMPORARY] = "true"
    return certificate


def _keystore(wanted: Keystore) -> dict[str, Any]:
    made: dict[str, Any] = {"create": True, "passwordSecretRef": {"name": wanted.secret, "key": wanted.key}}
    if wanted.alias:
        made["alias"] = wanted.alias
    if wanted.profile is not None:
        made["profile"] = wanted.profile.value
    return made
