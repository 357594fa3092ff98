"""What is an issuer, what does it need, and what can it prove? Read from cert-manager's own document.

Requests carry an issuer's spec as cert-manager has it (`IssuerRequest.spec`), so that one reading serves what is asked
for and what is there. Secrets are referred to by name and key only. Left out: reading what people write
(`lifecycle.issuer_requests`), and which solver a name takes (`lifecycle.solvers`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from lifecycle import findings, manifests
from lifecycle.domain import IssuerKind, IssuerRef
from lifecycle.findings import Finding
from lifecycle.manifests import Manifest
from lifecycle.steps import IssuerRequest

Document = Mapping[str, Any]


class IssuerType(StrEnum):
    """The five types of cert-manager, as they are named in its spec."""

    ACME = "acme"
    CA = "ca"
    SELF_SIGNED = "selfSigned"
    VAULT = "vault"
    VENAFI = "venafi"


ACCOUNT_KEY = "tls.key"
"""Where cert-manager keeps an account's key in its Secret (pkg/acme: PrivateKeySelector)."""

REHEARSAL_ANNOTATION = "certwright.dev/rehearsal-issuer"
"""On an issuer: the one at which its certificates are rehearsed, ``Kind/name``, or `NO_REHEARSAL`."""

NO_REHEARSAL = "none"

_TLS = ("tls.crt", "tls.key")
_SECRET_FIELD = re.compile(r"[sS]ecretRef$|^credentialsRef$")
"""How cert-manager names fields that refer to a Secret; it has no other form, except those named below."""


class SecretReference(NamedTuple):
    """A Secret that an issuer refers to.

    Attributes:
        field: where the spec names it.
        keys: those that it must have.
        alternatives: further sets, of which one must be complete too; empty where `keys` say it all.
    """

    field: str
    name: str
    keys: tuple[str, ...]
    alternatives: tuple[tuple[str, ...], ...] = ()


def issuer_manifest(request: IssuerRequest) -> Manifest:
    """The Issuer or ClusterIssuer that is asked for."""
    if not request.spec:  # an ACME issuer with one HTTP-01 solver, as earlier releases asked for
        return manifests.acme_issuer(request)
    ref = request.ref
    metadata: Manifest = {"name": ref.name, "labels": {"app.kubernetes.io/managed-by": "certwright"}}
    if ref.kind is IssuerKind.ISSUER:
        metadata["namespace"] = ref.namespace
    if request.rehearsal:
        metadata["annotations"] = {REHEARSAL_ANNOTATION: request.rehearsal}
    spec: Manifest = json.loads(request.spec)
    return {"apiVersion": "cert-manager.io/v1", "kind": ref.kind.value, "metadata": metadata, "spec": spec}


def rehearsal_of(issuer: Document | None) -> str:
    """What an issuer's annotation says, as `IssuerRequest.rehearsal`."""
    annotations = ((issuer or {}).get("metadata") or {}).get("annotations") or {}
    return str(annotations.get(REHEARSAL_ANNOTATION) or "").strip()


def issuer_type(issuer: Document) -> IssuerType | None:
    """The type of an issuer; None for one that this module does not know."""
    spec = issuer.get("spec") or {}
    return next((one for one in IssuerType if spec.get(one.value) is not None), None)


def solvers_of(issuer: Document) -> tuple[Document, ...]:
    """The solvers of an ACME issuer, in its order; none for others."""
    return tuple(((issuer.get("spec") or {}).get("acme") or {}).get("solvers") or ())


def proves_wildcards(issuer: Document) -> bool:
    """Whether any wildcard can be had of it: of ACME by DNS-01 only (RFC 8555, section 8.3), of the others always."""
    kind = issuer_type(issuer)
    if kind is IssuerType.ACME:
        return any(solver.get("dns01") is not None for solver in solvers_of(issuer))
    return kind is not None


def brings_its_root(issuer: Document | None) -> bool:
    """Whether what it signs leads to a root of its own, which cert-manager writes into ``ca.crt`` beside it.

    Of Vault and CyberArk too, but whose roots those are the issuer does not say: the operator names them.
    """
    return issuer is not None and issuer_type(issuer) in {IssuerType.CA, IssuerType.SELF_SIGNED}


def secret_namespace(ref: IssuerRef, cert_manager_namespace: str) -> str:
    """Where cert-manager looks for an issuer's Secrets.

    cert-manager documentation, "Cluster Resource Namespace": of a ClusterIssuer beside cert-manager itself.
    """
    return ref.namespace if ref.kind is IssuerKind.ISSUER else cert_manager_namespace


def secret_references(issuer: Document) -> tuple[SecretReference, ...]:
    """Every Secret that an issuer needs and that cert-manager does not make itself."""
    spec = issuer.get("spec") or {}
    found = list(_references(spec, "spec"))
    acme = spec.get("acme") or {}
    if acme.get("disableAccountKeyGeneration"):
        account = acme.get("privateKeySecretRef") or {}
        keys = (account.get("key") or ACCOUNT_KEY,)
        found.append(SecretReference("spec.acme.privateKeySecretRef", account.get("name", ""), keys))
    return tuple(found)


def _references(part: object, path: str) -> Iterable[SecretReference]:
    if isinstance(part, Mapping):
        for key, value in part.items():
            here = f"{path}.{key}"
            if here == "spec.acme.privateKeySecretRef":
                continue  # cert-manager makes it unless it is told not to
            if here in {"spec.ca.secretName", "spec.vault.auth.clientCertificate.secretName"} and value:
                yield SecretReference(here, value, _TLS)
            elif here == "spec.venafi.tpp.credentialsRef":
                # cert-manager documentation, "Venafi": either an access token or name and password
                ways = (("access-token",), ("username", "password"))
                yield SecretReference(here, value.get("name", ""), (), ways)
            elif isinstance(value, Mapping) and _SECRET_FIELD.search(key) and isinstance(value.get("name"), str):
                yield SecretReference(here, value["name"], (value["key"],) if value.get("key") else ())
            else:
                yield from _references(value, here)
    elif isinstance(part, list | tuple):
        for index, entry in enumerate(part):
            yield from _references(entry, f"{path}[{index}]")


def credential_finding(
    reference: SecretReference, namespace: str, keys: frozenset[str] | None, *, elsewhere: tuple[str, ...] = ()
) -> Finding | None:
    """What is wrong with a Secret that an issuer refers to; None where all is as needed.

    Args:
        namespace: where it must lie.
        keys: what it has; None where it is not there.
        elsewhere: namespaces that have one of its name.
    """
    subject = f"Secret {namespace}/{reference.name}"
    if keys is None:
        wanted = reference.keys or (reference.alternatives[0] if reference.alternatives else ())
        parts = " ".join(f"{key}=file:PATH" for key in wanted)
        if elsewhere:
            problem = f"It is needed by {reference.field}, and lies in {', '.join(elsewhere)} instead."
        else:
            problem = f"It is needed by {reference.field}, and is not there."
        if wanted == _TLS:
            parts = "--certificate PATH --key PATH"
        return findings.CREDENTIALS_MISSING.found(
            subject=subject,
            problem=problem,
            fix=f"certwright issuer credentials {reference.name} --secret-namespace {namespace} {parts}".rstrip(),
        )
    missing = [key for key in reference.keys if key not in keys]
    if not missing and reference.alternatives and not any(keys >= set(way) for way in reference.alternatives):
        missing = [" or ".join("+".join(way) for way in reference.alternatives)]
    if not missing:
        return None
    has = ", ".join(sorted(keys)[:8]) or "nothing"
    return findings.CREDENTIALS_MISSING.found(
        subject=subject,
        problem=f"It lacks the key {', '.join(missing)}, which {reference.field} needs; it has {has}.",
        fix=f"certwright issuer credentials {reference.name} --secret-namespace {namespace} {missing[0]}=file:PATH, "
        "or name the key that it has.",
    )


def credentials_unseen(reference: SecretReference, namespace: str, rule: str) -> Finding:
    """The finding that we may not look whether a Secret is there; cert-manager will say so if it is not."""
    return findings.CREDENTIALS_NOT_CHECKED.found(
        subject=f"Secret {namespace}/{reference.name}",
        problem=f"{reference.field} needs it, and the worker may not look at it.",
        fix=rule,
    )
