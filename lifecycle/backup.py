"""What belongs in a backup, does it hold what its manifest says, which ones stay, and what is put back from one?

Secrets are selected from the Certificates and issuers that name them: what cert-manager labels is not all of it.
CertificateRequests, Orders and Challenges never belong: restored, they deadlock renewals (cert-manager#7912, #8847).
A backup is a tar.gz of one JSON file for each object, which anybody may apply by hand, inside an age file. The
manifest beside it is no secret: it names the objects and the fingerprints of their public keys. Left out: encryption,
files and the cluster (`activities.backups`), and the credentials of DNS-01 solvers, which operators keep themselves.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from lifecycle import findings, gateway_api, names, x509
from lifecycle.findings import Finding
from lifecycle.manifests import DOMAIN_ANNOTATION, Manifest
from lifecycle.rehearsal import is_shadow
from lifecycle.steps import BackupItem

FORMAT = 1
"""Of the manifest and of the archive's layout; a reader refuses one that it does not know."""

OURS = "app.kubernetes.io/managed-by=certwright"
"""The label of the Gateways and routes that are ours to keep."""

WATCHED = "controller.cert-manager.io/fao"
"""cert-manager keeps Secrets with this label in one cache and all others in another. One that gets the label while its
Certificate is looked at is for a moment in neither, "does not exist", and is ordered anew (cert-manager#6494): of 360
Certificates applied over Secrets without it on a busy machine 8 were, of 360 over Secrets with it none."""

MANIFEST_SUFFIX = ".json"

AGE_HEADER = b"age-encryption.org/v1\n"
"""The first line of every age file (age specification, C2SP.org/age, "Header")."""

_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}\.age")
_INSIDE = "manifest.json"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of object that belongs in a backup."""

    kind: str
    api_version: str
    group: str = ""
    resource: str
    namespaced: bool = True
    ours: bool = False
    """Only those with our label are kept."""
    optional: bool = False
    """A cluster may do without the kind."""


_CERTS, _ISTIO = "cert-manager.io", "networking.istio.io"

SECRET = Kind(kind="Secret", api_version="v1", resource="secrets")
CLUSTER_ISSUER = Kind(
    kind="ClusterIssuer", api_version=f"{_CERTS}/v1", group=_CERTS, resource="clusterissuers", namespaced=False
)
ISSUER = Kind(kind="Issuer", api_version=f"{_CERTS}/v1", group=_CERTS, resource="issuers")
CERTIFICATE = Kind(kind="Certificate", api_version=f"{_CERTS}/v1", group=_CERTS, resource="certificates")
GATEWAY = Kind(kind="Gateway", api_version=f"{_ISTIO}/v1", group=_ISTIO, resource="gateways", ours=True)
VIRTUAL_SERVICE = Kind(
    kind="VirtualService", api_version=f"{_ISTIO}/v1", group=_ISTIO, resource="virtualservices", ours=True
)
BY_GATEWAY_API = tuple(
    Kind(kind=kind, api_version=version, group=gateway_api.GROUP, resource=resource, ours=True, optional=True)
    for kind, version, resource in (
        ("Gateway", gateway_api.VERSION, "gateways"),
        ("ReferenceGrant", gateway_api.GRANT_VERSION, "referencegrants"),
        ("HTTPRoute", gateway_api.VERSION, "httproutes"),
        ("TLSRoute", gateway_api.VERSION, "tlsroutes"),
    )
)

KINDS = (SECRET, CLUSTER_ISSUER, ISSUER, CERTIFICATE, GATEWAY, VIRTUAL_SERVICE, *BY_GATEWAY_API)
"""All of them, in the order in which they are put back: a Certificate that finds its Secret orders nothing."""

_RANK = {(kind.api_version, kind.kind): number for number, kind in enumerate(KINDS)}


def _rank(document: Manifest) -> int:
    return _RANK[document["apiVersion"], document["kind"]]


# --- names ------------------------------------------------------------------------------------------------------------


def backup_name(at: datetime, sha256: str) -> str:
    """The file's name: when (UTC), and the first 8 digits of what is in it."""
    return f"{at:%Y%m%dT%H%M%SZ}-{sha256[:8]}.age"


def is_name(text: str) -> bool:
    """Whether a text from outside names a backup and nothing else: no path is made of any other."""
    return _NAME.fullmatch(text) is not None


# --- what belongs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class WantedSecret:
    """A Secret that a Certificate (`tls`) or an ACME issuer (its account's key) names."""

    namespace: str
    name: str
    tls: bool
    owner: str


def wanted_secrets(
    certificates: Iterable[Manifest],
    issuers: Iterable[Manifest],
    cluster_issuers: Iterable[Manifest],
    *,
    cluster_namespace: str,
) -> tuple[WantedSecret, ...]:
    """The Secrets that these objects name, each once; a ClusterIssuer's lie in `cluster_namespace`, cert-manager's."""
    wanted: dict[tuple[str, str], WantedSecret] = {}
    for item in filter(belongs, certificates):
        place = (item["metadata"]["namespace"], item["spec"]["secretName"])
        wanted[place] = WantedSecret(namespace=place[0], name=place[1], tls=True, owner=subject(item))
    for item in (*issuers, *cluster_issuers):
        account = ((item["spec"].get("acme") or {}).get("privateKeySecretRef") or {}).get("name")
        if account:
            place = (item["metadata"].get("namespace") or cluster_namespace, account)
            wanted.setdefault(place, WantedSecret(namespace=place[0], name=place[1], tls=False, owner=subject(item)))
    return tuple(sorted(wanted.values()))


def missing_secrets(wanted: Iterable[WantedSecret], secrets: Iterable[Manifest]) -> tuple[Finding, ...]:
    """One finding for each wanted Secret that is not among `secrets`."""
    have = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in secrets}
    return tuple(
        findings.BACKUP_SECRET_MISSING.found(
            subject=f"Secret {one.namespace}/{one.name}",
            problem=f"{one.owner} names it, and it is not there; it is not in the backup.",
            fix=f"See why {one.owner} has none, or delete it; the next backup has what is there then.",
        )
        for one in wanted
        if (one.namespace, one.name) not in have
    )


def belongs(document: Manifest) -> bool:
    """Whether an object of a kind that belongs does itself.

    A challenge's route is gone with its challenge, a rehearsal's Certificate with the rehearsal.
    """
    hostname = (document["metadata"].get("annotations") or {}).get(DOMAIN_ANNOTATION, "")
    challenged = (
        bool(hostname)
        and document["kind"] in {"VirtualService", "HTTPRoute"}
        and _name(document).startswith(names.challenge_route_name(hostname))
    )
    known = (document["apiVersion"], document["kind"]) in _RANK
    return known and not challenged and not is_shadow(document)


def portable(document: Manifest) -> Manifest:
    """The object without what belongs to one cluster's life of it: uid, owners, versions, managers, status."""
    metadata = document["metadata"]
    kept: Manifest = {"name": metadata["name"]}
    if metadata.get("namespace"):
        kept["namespace"] = metadata["namespace"]
    if metadata.get("labels"):
        kept["labels"] = dict(metadata["labels"])
    # kubectl's copy of the whole object, a Secret's data included
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != _LAST_APPLIED}
    if annotations:
        kept["annotations"] = annotations
    body: Manifest = {key: document[key] for key in ("spec", "type", "data", "immutable") if key in document}
    return {"apiVersion": document["apiVersion"], "kind": document["kind"], "metadata": kept, **body}


def in_order(documents: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """As they are put back: Secrets first."""
    return tuple(sorted(documents, key=lambda item: (_rank(item), _namespace(item), _name(item))))


# --- fingerprints -----------------------------------------------------------------------------------------------------


def fingerprint(document: Manifest) -> str:
    """SHA-256 of a Secret's certificate, or of the public key of an account's key; empty for everything else."""
    if document["kind"] != "Secret":
        return ""
    data = document.get("data") or {}
    try:
        if data.get("tls.crt"):
            return x509.facts(base64.b64decode(data["tls.crt"])).fingerprint
        if data.get("tls.key"):
            key = serialization.load_pem_private_key(base64.b64decode(data["tls.key"]), password=None).public_key()
            der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            return hashlib.sha256(der).hexdigest()
    except (ValueError, TypeError, UnsupportedAlgorithm):  # no PEM: kept as it is, compared octet for octet
        return ""
    return ""


def item_of(document: Manifest) -> BackupItem:
    """The manifest's line about an object."""
    return BackupItem(
        kind=document["kind"],
        namespace=_namespace(document),
        name=_name(document),
        fingerprint=fingerprint(document),
    )


def same_content(kept: Manifest, present: Manifest) -> bool:
    """Whether an object in the cluster holds what the backup's does: every key of a Secret, the whole spec of others.

    Keys of a Secret that only the cluster's has do not count: they are another tool's. Labels count where
    cert-manager goes by them (`WATCHED`).
    """
    if kept["kind"] != "Secret":
        return bool(kept.get("spec") == present.get("spec"))
    have = present.get("data") or {}
    same = all(have.get(key) == value for key, value in (kept.get("data") or {}).items())
    return same and _watched(kept) in (None, _watched(present))


def _watched(secret: Manifest) -> str | None:
    label: str | None = (secret["metadata"].get("labels") or {}).get(WATCHED)
    return label


# --- the manifest -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupManifest:
    """What lies beside a backup.

    Attributes:
        sha256, bytes: of the encrypted file.
        recipients: public keys (``age1…``) that it was encrypted for.
        versions: of what ran, e.g. ("kubernetes", "v1.36.3").
        verified_at: when it was opened and found to hold `items`; None where nobody has.
    """

    name: str
    taken_at: datetime
    sha256: str
    bytes: int
    recipients: tuple[str, ...]
    items: tuple[BackupItem, ...]
    versions: tuple[tuple[str, str], ...] = ()
    verified_at: datetime | None = None

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """How many objects of each kind."""
        found = Counter(item.kind for item in self.items)
        return tuple((kind, found[kind]) for kind in dict.fromkeys(kind.kind for kind in KINDS) if found[kind])

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Those of the Secrets."""
        return tuple(item.fingerprint for item in self.items if item.fingerprint)


def manifest_text(manifest: BackupManifest) -> str:
    """The manifest as JSON."""
    document = {
        "format": FORMAT,
        "name": manifest.name,
        "takenAt": manifest.taken_at.isoformat(),
        "verifiedAt": manifest.verified_at.isoformat() if manifest.verified_at else None,
        "sha256": manifest.sha256,
        "bytes": manifest.bytes,
        "recipients": list(manifest.recipients),
        "versions": dict(manifest.versions),
        "items": _lines(manifest.items),
    }
    return json.dumps(document, indent=1) + "\n"


def parse_manifest(text: str) -> BackupManifest:
    """The manifest that a JSON text is. Raises ValueError where it is none that we read."""
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r} is not known")
        verified = document["verifiedAt"]
        manifest = BackupManifest(
            name=document["name"],
            taken_at=datetime.fromisoformat(document["takenAt"]),
            verified_at=datetime.fromisoformat(verified) if verified else None,
            sha256=str(document["sha256"]),
            bytes=int(document["bytes"]),
            recipients=tuple(map(str, document["recipients"])),
            versions=tuple((str(key), str(value)) for key, value in document["versions"].items()),
            items=tuple(map(_item, document["items"])),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no backup's manifest: {type(error).__name__}") from None
    if not isinstance(manifest.name, str) or not is_name(manifest.name):
        raise ValueError("it names no backup")
    return manifest


def _lines(items: Iterable[BackupItem]) -> list[dict[str, str]]:
    return [
        {"kind": one.kind, "namespace": one.namespace, "name": one.name, "fingerprint": one.fingerprint}
        for one in items
    ]


def _item(line: Mapping[str, Any]) -> BackupItem:
    return BackupItem(
        kind=str(line["kind"]),
        namespace=str(line["namespace"]),
        name=str(line["name"]),
        fingerprint=str(line["fingerprint"]),
    )


# --- the archive ------------------------------------------------------------------------------------------------------


def packed(documents: tuple[Manifest, ...], *, at: datetime) -> bytes:
    """The objects as tar.gz, a directory for each kind and namespace; the same objects make the same octets."""
    inside = {"format": FORMAT, "items": _lines(map(item_of, documents))}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in ((_INSIDE, inside), *((_path(item), item) for item in documents)):
            octets = json.dumps(content, indent=1).encode()
            entry = tarfile.TarInfo(path)
            entry.size, entry.mtime, entry.mode = len(octets), int(at.timestamp()), 0o600
            archive.addfile(entry, io.BytesIO(octets))
    return gzip.compress(buffer.getvalue(), mtime=int(at.timestamp()))


def unpacked(octets: bytes) -> tuple[Manifest, ...]:
    """The objects of an archive, as they are put back; its file names are not used. Raises ValueError.

    Whoever knows a recipient can make an age file, so an object of a kind that does not belong is refused here too.
    """
    documents: list[Manifest] = []
    inside: Any = None
    try:
        with tarfile.open(fileobj=io.BytesIO(octets), mode="r:gz") as archive:
            for entry in archive:
                content = archive.extractfile(entry)
                if content is None:
                    raise ValueError("it holds what is no file")
                document = json.loads(content.read())
                if entry.name == _INSIDE:
                    inside = document
                else:
                    documents.append(document)
        if inside is None or inside["format"] != FORMAT:
            raise ValueError("its list of objects is missing or of an unknown format")
        foreign = sorted({str(item["kind"]) for item in documents if not _known(item)})
        if foreign:
            raise ValueError(f"it holds {', '.join(foreign)}, which do not belong in a backup")
        if tuple(map(_item, inside["items"])) != tuple(map(item_of, documents)):
            raise ValueError("it does not hold what its list says")
    except (json.JSONDecodeError, UnicodeDecodeError):  # whose words may quote what was read
        raise ValueError("it holds what is no JSON") from None
    except (tarfile.TarError, zlib.error, EOFError, OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no archive of ours: {type(error).__name__}") from None
    return in_order(documents)


def _known(document: Manifest) -> bool:
    return any((document["apiVersion"], document["kind"]) == (one.api_version, one.kind) for one in KINDS)


def _path(document: Manifest) -> str:
    number = _rank(document)
    return f"{number}-{KINDS[number].resource}/{_namespace(document) or '_'}/{_name(document)}.json"


def stanzas(octets: bytes) -> int:
    """How many X25519 recipients an age file is for; 0 where it is none (C2SP.org/age, "X25519 recipient stanza")."""
    header = octets.partition(b"\n--- ")[0]
    if not octets.startswith(AGE_HEADER):
        return 0
    return sum(line.startswith(b"-> X25519 ") for line in header.splitlines())


# --- verdicts ---------------------------------------------------------------------------------------------------------


def damaged(name: str, problem: str) -> Finding:
    """The finding about a backup that is not what it should be."""
    return findings.BACKUP_DAMAGED.found(
        subject=f"backup {name}",
        problem=f"It cannot be relied on: {problem}.",
        fix="certwright backup; then look at the disk, and at who may write to the directory.",
    )


def file_problem(manifest: BackupManifest, octets: bytes) -> str:
    """Why a file is not the one of its manifest; empty where it is. Needs no identity."""
    if hashlib.sha256(octets).hexdigest() != manifest.sha256:
        return "its SHA-256 is not the one in its manifest"
    if stanzas(octets) != len(manifest.recipients):
        return f"it is for {stanzas(octets)} recipients, its manifest names {len(manifest.recipients)}"
    return ""


def content_problem(manifest: BackupManifest, documents: Iterable[Manifest]) -> str:
    """Why the opened objects are not the manifest's; empty where they are."""
    said, held = set(manifest.items), {item_of(document) for document in documents}
    if said == held:
        return ""
    apart = min(said ^ held, key=lambda item: (item.kind, item.namespace, item.name))
    return f"{apart.kind} {apart.namespace}/{apart.name} is not as its manifest says"


def cluster_differences(
    name: str, secrets: Iterable[Manifest], present: Mapping[tuple[str, str], Manifest]
) -> tuple[Finding, ...]:
    """How the cluster's Secrets, by namespace and name, are not the backup's any more."""
    apart = [
        subject(kept)
        for kept in secrets
        if (now := present.get((_namespace(kept), _name(kept)))) is None or not same_content(kept, now)
    ]
    if not apart:
        return ()
    named = ", ".join(apart[:3]) + (f" and {len(apart) - 3} more" if len(apart) > 3 else "")
    differs = findings.BACKUP_DIFFERS.found(
        subject=f"backup {name}",
        problem=f"The cluster changed since it was taken: {named}.",
        fix="certwright backup",
    )
    return (differs,)


def surplus(backups: Iterable[BackupManifest], keep: int) -> tuple[str, ...]:
    """The backups that may go: those older than the `keep`-th newest verified one.

    What nobody has opened counts for nothing and stays as long as it is newer than that.
    """
    newest = sorted(backups, key=lambda one: (one.taken_at, one.name), reverse=True)
    verified = [number for number, one in enumerate(newest) if one.verified_at is not None]
    if keep < 1 or len(verified) < keep:
        return ()
    return tuple(one.name for one in newest[verified[keep - 1] + 1 :])


# --- restoring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """What is put back: `secrets` first, then `others`, which only a restore in place has."""

    secrets: tuple[Manifest, ...]
    others: tuple[Manifest, ...] = ()
    findings: tuple[Finding, ...] = ()


def restore_plan(documents: Iterable[Manifest], into: str) -> RestorePlan:
    """What of a backup goes where; into another namespace go the Secrets alone.

    Two Secrets of one name that would meet there are told, and the later one is left out.
    """
    ordered = in_order(documents)
    secrets = [item for item in ordered if item["kind"] == "Secret"]
    if not into:
        others = tuple(item for item in ordered if item["kind"] != "Secret")
        named = [item for item in others if item["kind"] == "Certificate"]
        watched = {(_namespace(item), item["spec"]["secretName"]) for item in named}
        ready = (_labelled(item) if (_namespace(item), _name(item)) in watched else item for item in secrets)
        return RestorePlan(secrets=tuple(ready), others=others)
    moved: dict[str, Manifest] = {}
    clashes: list[Finding] = []
    for item in secrets:
        first = moved.setdefault(_name(item), item)
        if first is not item and not same_content(item, first):
            clashes.append(
                findings.RESTORE_WOULD_OVERWRITE.found(
                    subject=subject(item),
                    problem=f"{subject(first)} of the same backup goes to {into}/{_name(item)} too.",
                    fix="Restore in place, or one of them by hand.",
                )
            )
    return RestorePlan(secrets=tuple(_moved(item, into) for item in moved.values()), findings=tuple(clashes))


def _labelled(secret: Manifest) -> Manifest:
    metadata = secret["metadata"]
    return {**secret, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), WATCHED: "true"}}}


def _moved(document: Manifest, namespace: str) -> Manifest:
    return {**document, "metadata": {**document["metadata"], "namespace": namespace}}


def would_overwrite(document: Manifest) -> Finding:
    """An object of that name exists with other content, and overwriting was not asked for."""
    return findings.RESTORE_WOULD_OVERWRITE.found(
        subject=subject(document),
        problem="It exists with other content than the backup's.",
        fix="Restore into another namespace and compare; or restore with overwriting.",
    )


def without_secret(certificate: Manifest, secrets: Iterable[Manifest]) -> bool:
    """Whether none of these Secrets is the Certificate's: put back without one, it would order anew."""
    place = (_namespace(certificate), certificate["spec"]["secretName"])
    return place not in {(_namespace(secret), _name(secret)) for secret in secrets}


def orders_for(order: Manifest, documents: Iterable[Manifest]) -> bool:
    """Whether an ACME Order is for a Certificate among these objects; cert-manager writes its name on the Order."""
    metadata = order["metadata"]
    owner = (metadata.get("annotations") or {}).get("cert-manager.io/certificate-name", "")
    place = ("Certificate", metadata["namespace"], owner)
    return any(place == (item["kind"], _namespace(item), _name(item)) for item in documents)


def at(item: BackupItem, namespace: str) -> BackupItem:
    """The manifest's line about an object as it is in another namespace; empty means its own."""
    return replace(item, namespace=namespace) if namespace else item


def subject(document: Manifest) -> str:
    """``Kind namespace/name``, or ``Kind name`` where the kind has no namespace."""
    namespace = _namespace(document)
    return f"{document['kind']} {namespace}/{_name(document)}" if namespace else f"{document['kind']} {_name(document)}"


def _namespace(document: Manifest) -> str:
    return str(document["metadata"].get("namespace") or "")


def _name(document: Manifest) -> str:
    return str(document["metadata"]["name"])
