"""A CA of one's own: is it well formed, and what is its Certificate?

Such a certificate is made once by an operator, beside cert-manager, for a CA issuer that refers to its Secret; its
name constraints bound what any client believes of that issuer (RFC 5280, section 4.2.1.10). Left out: a domain's
certificate, which is never a CA's (`lifecycle.certificate_manifests`), and the issuer (`lifecycle.issuers`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lifecycle import certificate_requests
from lifecycle.certificate_manifests import private_key, subject_spec
from lifecycle.domain import CertificateSpec, IssuerKind, IssuerRef, KeyAlgorithm
from lifecycle.requests import FieldError, Form

TEN_YEARS_SECONDS = 3650 * 86400
"""A private root's usual life; it is replaced with its cluster."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DOMAIN = re.compile(r"\.?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_USUAL = CertificateSpec(duration_seconds=TEN_YEARS_SECONDS)
_PARTS = {"dns_domains": "dnsDomains", "ip_ranges": "ipRanges", "uri_domains": "uriDomains"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NameConstraints:
    """One side of the constraints: domains with all below them, CIDRs, and hosts of URIs."""

    dns_domains: tuple[str, ...] = ()
    ip_ranges: tuple[str, ...] = ()
    uri_domains: tuple[str, ...] = ()


NOTHING = NameConstraints()


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A CA's certificate, whose Secret has its own name.

    Attributes:
        issuer: who signs it; a SelfSigned issuer makes a root of it.
        certificate: its key, subject, common name and times.
        permitted, excluded: its name constraints, which are critical (RFC 5280, section 4.2.1.10).
    """

    name: str
    namespace: str
    issuer: IssuerRef
    certificate: CertificateSpec
    permitted: NameConstraints = NOTHING
    excluded: NameConstraints = NOTHING


def authority_manifest(authority: Authority) -> dict[str, Any]:
    """The Certificate (cert-manager.io/v1). Its key stays at a renewal: what it has signed would lead nowhere else."""
    wanted, issuer = authority.certificate, authority.issuer
    spec: dict[str, Any] = {
        "isCA": True,
        "secretName": authority.name,
        "commonName": wanted.common_name,
        "issuerRef": {"group": "cert-manager.io", "kind": issuer.kind.value, "name": issuer.name},
        "privateKey": private_key(wanted) | {"rotationPolicy": "Never"},
        "usages": ["digital signature", "cert sign", "crl sign"],
        "duration": f"{wanted.duration_seconds}s",
    }
    if wanted.subject is not None and (subject := subject_spec(wanted.subject)):
        spec["subject"] = subject
    if wanted.renew_before_seconds:
        spec["renewBefore"] = f"{wanted.renew_before_seconds}s"
    if wanted.renew_before_percentage:
        spec["renewBeforePercentage"] = wanted.renew_before_percentage
    sides = {
        side: {theirs: list(getattr(names, ours)) for ours, theirs in _PARTS.items() if getattr(names, ours)}
        for side, names in (("permitted", authority.permitted), ("excluded", authority.excluded))
        if names != NOTHING
    }
    if sides:
        spec["nameConstraints"] = {"critical": True, **sides}
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {
            "name": authority.name,
            "namespace": authority.namespace,
            "labels": {"app.kubernetes.io/managed-by": "certwright"},
        },
        "spec": spec,
    }


def parse_authority(document: object) -> Authority | tuple[FieldError, ...]:
    """The CA that an operator's file asks for, or all that is wrong with it.

    Fields: name; namespace (cert-manager); issuer (a name, or name and kind); permitted, excluded (dns_domains,
    ip_ranges, uri_domains); certificate (key_algorithm, key_size, common_name, subject, duration_seconds, …).
    """
    form = Form()
    if not isinstance(document, Mapping):
        form.refuse("", document, "is not an object", "write name, issuer and certificate")
        return form.errors
    form.known(document, "", ("name", "namespace", "issuer", "permitted", "excluded", "certificate"))
    name = form.matching(document, "name", _NAME, "a name, e.g. shop-root", required=True)
    namespace = form.matching(document, "namespace", _LABEL, "a namespace") or "cert-manager"
    certificate = certificate_requests.certificate(form, document, _USUAL, operator=True)
    if not certificate.common_name:
        form.refuse("certificate.common_name", "", "is missing", "name the CA, e.g. Shop Root")
    given = document.get("certificate")
    for field in ("usages", "ip_addresses", "uris", "temporary", "rotation", "secret_template", "keystores"):
        if isinstance(given, Mapping) and given.get(field) is not None:
            form.refuse(f"certificate.{field}", "", "is no part of a CA's certificate", "remove it")
    authority = Authority(
        name=name,
        namespace=namespace,
        issuer=_issuer(form, document, namespace),
        certificate=certificate,
        permitted=_constraints(form, document, "permitted"),
        excluded=_constraints(form, document, "excluded"),
    )
    if certificate.key_algorithm is KeyAlgorithm.ED25519:
        problem = "signs what browsers do not believe (Baseline Requirements, section 7.1.3.2)"
        form.refuse("certificate.key_algorithm", "Ed25519", problem, "write ECDSA or RSA")
    return form.errors or authority


def _issuer(form: Form, document: Mapping[object, object], namespace: str) -> IssuerRef:
    given = document.get("issuer")
    fields: Mapping[object, object] = given if isinstance(given, Mapping) else {"name": given}
    form.known(fields, "issuer", ("name", "kind"))
    name = form.matching(fields, "name", _NAME, "an issuer's name", path="issuer", required=True)
    kind = form.choice(fields, "kind", IssuerKind, IssuerKind.CLUSTER_ISSUER, path="issuer")
    return IssuerRef(name=name, kind=kind, namespace=namespace if kind is IssuerKind.ISSUER else "")


def _constraints(form: Form, document: Mapping[object, object], side: str) -> NameConstraints:
    given = form.section(document, side)
    form.known(given, side, tuple(_PARTS))
    found: dict[str, tuple[str, ...]] = {}
    for part in _PARTS:
        value = given.get(part)
        if value is None:
            continue
        if not isinstance(value, list | tuple):
            form.refuse(f"{side}.{part}", value, "is not a list", "write a list of texts")
            continue
        good = []
        for index, text in enumerate(value):
            field = f"{side}.{part}[{index}]"
            if not isinstance(text, str) or len(text) > 253:
                form.refuse(field, text, "is not a text", "write it as a string")
            elif part == "ip_ranges":
                try:
                    good.append(str(ipaddress.ip_network(text)))
                except ValueError:
                    form.refuse(field, text, "is no range of addresses", "write it as 192.0.2.0/24")
            elif not _DOMAIN.fullmatch(text):
                # RFC 5280, section 4.2.1.10: a domain, with all names below it; there is no wildcard
                form.refuse(field, text, "is no domain", "write it as shop.example.com, without an asterisk")
            else:
                good.append(text)
        found[part] = tuple(good)
    return NameConstraints(**found)
