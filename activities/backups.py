"""Take, verify, prune and restore backups: read the cluster, encrypt, keep files, and put Secrets back.

What is read is encrypted in memory; no plain octet touches a disk. A backup counts as taken when its manifest is
there, which is written last, so a killed worker leaves nothing that looks like one. No Secret's data leaves this
module but into the cluster and, encrypted, into the directory. Left out: what belongs and what is compared
(`lifecycle.backup`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pyrage
from kubernetes.aio.dynamic import DynamicClient
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from lifecycle import backup, findings
from lifecycle.backup import BackupManifest, WantedSecret
from lifecycle.diagnosis import conditions_of
from lifecycle.findings import Finding
from lifecycle.manifests import Manifest
from lifecycle.steps import BackupItem, BackupReport, BackupRequest, RestoreReport, RestoreRequest

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 8
"""Requests under way at the same time: the API server serves others too (its priority levels start at a few dozen)."""

_MOST_NAMED = 50
"""Fingerprints, objects and findings in a report: it lies in a workflow's history; the manifest has all of them."""

_SETTLE_SECONDS = 2.0
"""cert-manager sees Secrets and Certificates by two watches; a Certificate seen first would order anew. Each watch is
milliseconds behind; this is a thousand times that."""

_READY_SECONDS = 30.0
"""How long restored Certificates are watched before the Orders are counted: cert-manager finds a Certificate whose
Secret is right Ready within a second."""

_LEFT_BEHIND_SECONDS = 3600.0
"""A file without a manifest is a killed worker's after this: writing one takes seconds."""

_PARTIAL = ".partial-"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSettings:
    """Where backups go and who can open them.

    Attributes:
        directory: of the files; None where no backups are wanted. Made, for its owner alone, where it is missing.
        recipients: age's X25519 public keys (``age1…``), one or more.
        identity_file: age's file of secret keys, to verify and to restore; None where this worker is not to open any.
        keep: verified backups that stay where a request names no number.
        cert_manager_namespace: where ClusterIssuers' Secrets lie (cert-manager: ``--cluster-resource-namespace``).
    """

    directory: Path | None
    recipients: tuple[str, ...]
    identity_file: Path | None
    keep: int
    cert_manager_namespace: str = "cert-manager"


class BackupActivities:
    """Activities on backups, given the cluster's client."""

    def __init__(self, cluster: DynamicClient, settings: BackupSettings) -> None:
        self._cluster = cluster
        self._settings = settings

    @activity.defn
    async def take_backup(self, request: BackupRequest) -> BackupReport:
        """Write one encrypted backup and its manifest.

        What cannot be read for want of a permission is a finding, an error, and the rest is written nevertheless.
        Raises ApplicationError where the cluster or the directory does not answer.
        """
        directory, recipients, problem = self._target()
        if directory is None:
            return _nothing(problem)
        at = datetime.now(UTC)
        documents, found = await self._gather(request.namespaces)
        versions = await self._versions()
        ciphertext = await asyncio.to_thread(lambda: pyrage.encrypt(backup.packed(documents, at=at), list(recipients)))
        digest = hashlib.sha256(ciphertext).hexdigest()
        manifest = BackupManifest(
            name=backup.backup_name(at, digest),
            taken_at=at,
            sha256=digest,
            bytes=len(ciphertext),
            recipients=self._settings.recipients,
            items=tuple(map(backup.item_of, documents)),
            versions=versions,
        )
        with _disk(f"write {manifest.name}"):
            await asyncio.to_thread(_write, directory / manifest.name, ciphertext)
            await asyncio.to_thread(_write_manifest, directory, manifest)
        return _report(manifest, findings=found)

    @activity.defn
    async def verify_backup(self, taken: BackupReport) -> BackupReport:
        """Open the backup and compare each Secret with the manifest and with the cluster.

        `verified` only where it was opened and holds what its manifest says; a cluster that has changed since is
        told, and does not spoil it. Without an identity only the file's sum and header are looked at. Raises
        ApplicationError where the cluster or the directory does not answer.
        """
        directory = self._settings.directory
        if directory is None:
            return _nothing("No directory for backups is set.")
        opened = await self._open(directory, taken.name, sha256=taken.sha256)
        if isinstance(opened, Finding):
            return dataclasses.replace(taken, verified=False, verified_how="", findings=(*taken.findings, opened))
        manifest, documents = opened
        if documents is None:
            unopened = findings.BACKUP_NOT_OPENED.found(
                subject=f"backup {manifest.name}",
                problem="This worker has no identity, so only the file's SHA-256 and header were looked at.",
                fix="Set CERTWRIGHT_BACKUP_IDENTITY_FILE, or open it elsewhere: age -d -i KEY FILE | tar tz",
            )
            how = f"SHA-256 and header for {len(manifest.recipients)} recipients; not opened"
            return _report(manifest, verified_how=how, findings=(*taken.findings, unopened))
        secrets = [item for item in documents if item["kind"] == "Secret"]
        present = await self._present(secrets)
        changed = backup.cluster_differences(manifest.name, secrets, present)
        verified = dataclasses.replace(manifest, verified_at=datetime.now(UTC))
        with _disk(f"write the manifest of {manifest.name}"):
            await asyncio.to_thread(_write_manifest, directory, verified)
        how = f"opened; {len(secrets)} Secrets compared with the manifest and the cluster"
        return _report(verified, verified=True, verified_how=how, findings=(*taken.findings, *changed))

    @activity.defn
    async def prune_backups(self, request: BackupRequest) -> BackupReport:
        """Take away what is older than the last backups to keep, and what killed workers left. Raises ApplicationError.

        `removed` names the backups. Nothing goes before that many are verified.
        """
        directory = self._settings.directory
        if directory is None:
            return _nothing("No directory for backups is set.")
        keep = request.keep or self._settings.keep

        def prune() -> tuple[str, ...]:
            gone = backup.surplus(manifests_in(directory), keep)
            for name in gone:
                # the manifest last: what it names is gone by then, so a second run finds what is left to do
                (directory / name).unlink(missing_ok=True)
                (directory / f"{name}{backup.MANIFEST_SUFFIX}").unlink(missing_ok=True)
            _sweep(directory)
            return gone

        with _disk("take backups away"):
            removed = await asyncio.to_thread(prune)
        return BackupReport(name="", bytes=0, sha256="", counts=(), removed=removed)

    @activity.defn
    async def restore_backup(self, request: RestoreRequest) -> RestoreReport:
        """Put the Secrets back, then, in place, what refers to them; a second run finds all equal and changes nothing.

        An object that is there with other content stays, unless overwriting is asked for; a Certificate whose Secret
        is not there stays out, since it would order. CertificateRequests, Orders and Challenges are never touched.
        Raises ApplicationError where the cluster refuses or does not answer, or the directory does not.
        """
        report = RestoreReport(backup=request.backup)
        if self._settings.directory is None or self._settings.identity_file is None:
            lacking = findings.BACKUP_NOT_CONFIGURED.found(
                subject=f"backup {request.backup}"[:120],
                problem="This worker has no directory of backups, or no identity to open them.",
                fix="Set CERTWRIGHT_BACKUP_DIRECTORY and CERTWRIGHT_BACKUP_IDENTITY_FILE.",
            )
            return dataclasses.replace(report, findings=(lacking,))
        opened = await self._open(self._settings.directory, request.backup)
        if isinstance(opened, Finding):
            return dataclasses.replace(report, findings=(opened,))
        manifest, documents = opened
        assert documents is not None  # there is an identity
        if request.into and (missing := await self._namespace_missing(request.into)):
            return dataclasses.replace(report, findings=(missing,))
        plan = backup.restore_plan(documents, request.into)
        before = await self._orders(request.into, documents)
        putting = _Restoring(self._cluster, overwrite=request.overwrite)
        await _at_once(plan.secrets, putting.put)
        present = await self._present(plan.secrets)
        if plan.others:
            await self._put_others(putting, plan.others, tuple(present.values()))
        orders = await self._orders(request.into, documents) - before
        said = {backup.at(item, request.into) for item in manifest.items if item.kind == "Secret"}
        held = {backup.item_of(item) for item in present.values()}
        apart = backup.cluster_differences(manifest.name, plan.secrets, present)
        equal = not apart and not plan.findings and said == held
        differs = findings.RESTORE_DIFFERS.found(
            subject=f"backup {manifest.name}",
            problem=f"What the cluster holds differs: {apart[0].problem}" if apart else "A fingerprint differs.",
            fix="See what else is said of it, mend that and restore again.",
        )
        found = (*plan.findings, *putting.findings, *(() if equal else (differs,)))
        return RestoreReport(
            backup=manifest.name,
            restored=tuple(putting.restored[:_MOST_NAMED]),
            skipped=_named(putting.skipped),
            equal=equal,
            orders_created=len(orders),
            findings=found[:_MOST_NAMED],
        )

    # --- reading the cluster ------------------------------------------------------------------------------------------

    async def _gather(self, namespaces: tuple[str, ...]) -> tuple[tuple[Manifest, ...], tuple[Finding, ...]]:
        """Everything that belongs, as it is put back, and what could not be read."""
        found: list[Finding] = []
        read: dict[str, list[Manifest]] = {}
        for kind in backup.KINDS[1:]:
            places = (namespaces or ("",)) if kind.namespaced else ("",)
            read.setdefault(kind.kind, [])
            for place in places:
                with _told(found, missing_kind_too=kind.optional):
                    labels = backup.OURS if kind.ours else ""
                    read[kind.kind] += await kubernetes.listed(
                        self._cluster, kind.api_version, kind.kind, place, label_selector=labels
                    )
        wanted = backup.wanted_secrets(
            read["Certificate"],
            read["Issuer"],
            read["ClusterIssuer"],
            cluster_namespace=self._settings.cert_manager_namespace,
        )
        secrets, unread = await self._secrets(wanted, found)
        found += backup.missing_secrets((one for one in wanted if one not in unread), secrets)
        documents = [item for items in read.values() for item in items if backup.belongs(item)]
        kept = backup.in_order(backup.portable(item) for item in (*secrets, *documents))
        return kept, tuple(dict.fromkeys(found))[:_MOST_NAMED]

    async def _secrets(
        self, wanted: tuple[WantedSecret, ...], found: list[Finding]
    ) -> tuple[list[Manifest], set[WantedSecret]]:
        """The wanted Secrets that are there, and those that could not be read.

        TLS Secrets by pages of their namespaces, for there may be thousands; account keys one by one.
        """
        secrets: list[Manifest] = []
        unread: set[WantedSecret] = set()
        for namespace in sorted({one.namespace for one in wanted if one.tls}):
            here = {one.name: one for one in wanted if one.tls and one.namespace == namespace}
            unread.update(here.values())
            with _told(found):
                async for page in kubernetes.pages(
                    self._cluster, "v1", "Secret", namespace, field_selector="type=kubernetes.io/tls"
                ):
                    secrets += [item for item in page if item["metadata"]["name"] in here]
                unread.difference_update(here.values())
        for one in (one for one in wanted if not one.tls):
            unread.add(one)
            with _told(found):
                secret = await kubernetes.read(self._cluster, "v1", "Secret", one.namespace, one.name)
                unread.discard(one)
                if secret is not None:
                    secrets.append(secret)
        return secrets, unread

    async def _present(self, secrets: Iterable[Manifest]) -> dict[tuple[str, str], Manifest]:
        """What the cluster holds under the names of these Secrets."""

        async def read(secret: Manifest) -> Manifest | None:
            metadata = secret["metadata"]
            return await kubernetes.read(self._cluster, "v1", "Secret", metadata["namespace"], metadata["name"])

        there = [item for item in await _at_once(secrets, read) if item is not None]
        return {(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in there}

    async def _orders(self, into: str, documents: Iterable[Manifest]) -> set[str]:
        """The uids of the Orders of these Certificates, or of all in the namespace that Secrets are put into."""
        orders = await kubernetes.listed(self._cluster, "acme.cert-manager.io/v1", "Order", into)
        return {item["metadata"]["uid"] for item in orders if into or backup.orders_for(item, documents)}

    async def _namespace_missing(self, name: str) -> Finding | None:
        if await kubernetes.read(self._cluster, "v1", "Namespace", "", name) is not None:
            return None
        return findings.OBJECT_REJECTED.found(
            subject=f"namespace {name}",
            problem="Secrets are to be restored into it, and it is not there.",
            fix=(
                f"kubectl create namespace {name}; kubectl create rolebinding certwright-restore -n {name} "
                "--clusterrole=certwright-restore --serviceaccount=certwright:certwright-installer"
            ),
        )

    async def _versions(self) -> tuple[tuple[str, str], ...]:
        """What ran, as far as we may see it; a backup does without."""
        running = self._cluster.version.get("kubernetes") or {}
        versions = [("kubernetes", str(running.get("gitVersion", "")))]
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(("certwright", importlib.metadata.version("certwright")))
        with contextlib.suppress(ApplicationError):
            controller = await kubernetes.read(
                self._cluster, "apps/v1", "Deployment", self._settings.cert_manager_namespace, "cert-manager"
            )
            labels = ((controller or {}).get("metadata") or {}).get("labels") or {}
            versions.append(("cert-manager", str(labels.get("app.kubernetes.io/version", ""))))
        return tuple((name, version) for name, version in versions if version)

    async def _put_others(
        self, putting: _Restoring, others: tuple[Manifest, ...], secrets: tuple[Manifest, ...]
    ) -> None:
        """Issuers, Certificates, Gateways and routes, in that order; then cert-manager is given time to look."""
        if putting.restored:
            await asyncio.sleep(_SETTLE_SECONDS)
        waited: list[Manifest] = []
        for document in others:
            if document["kind"] == "Certificate":
                if backup.without_secret(document, secrets):
                    putting.skipped.append(f"{backup.subject(document)}: without its Secret it would order anew")
                    continue
                waited.append(document)
            await putting.put(document)
        if not waited:
            return
        waiting = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in waited}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_SECONDS):
                await asyncio.gather(
                    *(
                        self._until_ready(namespace, {name for place, name in waiting if place == namespace})
                        for namespace in sorted({place for place, _ in waiting})
                    )
                )

    async def _until_ready(self, namespace: str, names: set[str]) -> None:
        api_version = backup.CERTIFICATE.api_version
        async with contextlib.aclosing(
            kubernetes.follow(self._cluster, api_version, "Certificate", namespace)
        ) as following:
            async for _, item in following:
                if conditions_of(item).get("Ready", {}).get("status") == "True":
                    names.discard(item["metadata"]["name"])
                if not names:
                    return

    # --- files --------------------------------------------------------------------------------------------------------

    def _target(self) -> tuple[Path | None, tuple[pyrage.x25519.Recipient, ...], str]:
        """Where to write and for whom, or what is not set."""
        directory = self._settings.directory
        if directory is None:
            return None, (), "No directory for backups is set."
        if not self._settings.recipients:
            return None, (), "No recipient is set, and nothing is written in the clear."
        recipients = []
        for text in self._settings.recipients:
            try:
                recipients.append(pyrage.x25519.Recipient.from_str(text))
            except pyrage.RecipientError:
                # not quoted: somebody may have put the secret key there
                return None, (), "A recipient is no X25519 public key of age (age1…)."
        return directory, tuple(recipients), ""

    async def _open(
        self, directory: Path, name: str, *, sha256: str = ""
    ) -> tuple[BackupManifest, tuple[Manifest, ...] | None] | Finding:
        """The manifest and the objects of a backup, None in their place without an identity; or what is wrong."""
        if not backup.is_name(name):
            return backup.damaged(name[:60], "this is not a backup's name")

        def read() -> tuple[str, bytes] | None:
            try:
                text = (directory / f"{name}{backup.MANIFEST_SUFFIX}").read_text()
                return text, (directory / name).read_bytes()
            except FileNotFoundError:
                return None

        with _disk(f"read {name}"):
            files = await asyncio.to_thread(read)
        if files is None:
            return backup.damaged(name, "the file or its manifest is not there")
        text, ciphertext = files
        try:
            manifest = backup.parse_manifest(text)
        except ValueError:
            return backup.damaged(name, "its manifest cannot be read")
        if manifest.name != name or (sha256 and sha256 != manifest.sha256):
            return backup.damaged(name, "its manifest is another backup's")
        if problem := backup.file_problem(manifest, ciphertext):
            return backup.damaged(name, problem)
        if self._settings.identity_file is None:
            return manifest, None
        identities = await asyncio.to_thread(_identities, self._settings.identity_file)
        try:
            plain = await asyncio.to_thread(pyrage.decrypt, ciphertext, identities)
            documents = await asyncio.to_thread(backup.unpacked, plain)
        except pyrage.DecryptError:
            return backup.damaged(name, "the worker's identity does not open it")
        except ValueError as error:
            return backup.damaged(name, str(error))
        if problem := backup.content_problem(manifest, documents):
            return backup.damaged(name, problem)
        return manifest, documents


class _Restoring:
    """Puts objects back one by one and remembers what became of each."""

    def __init__(self, cluster: DynamicClient, *, overwrite: bool) -> None:
        self._cluster = cluster
        self._overwrite = overwrite
        self.restored: list[BackupItem] = []
        self.skipped: list[str] = []
        self.findings: list[Finding] = []

    async def put(self, document: Manifest) -> None:
        metadata = document["metadata"]
        present = await kubernetes.read(
            self._cluster, document["apiVersion"], document["kind"], metadata.get("namespace", ""), metadata["name"]
        )
        if present is not None and backup.same_content(document, present):
            self.skipped.append(f"{backup.subject(document)}: equal already")
            return
        if present is not None and not self._overwrite:
            self.skipped.append(f"{backup.subject(document)}: exists with other content")
            self.findings.append(backup.would_overwrite(document))
            return
        await kubernetes.apply(self._cluster, document)
        self.restored.append(backup.item_of(document))


def manifests_in(directory: Path) -> tuple[BackupManifest, ...]:
    """The backups of a directory, newest first, by their manifests; what is none of ours is passed over."""
    read: list[BackupManifest] = []
    for path in directory.glob(f"*.age{backup.MANIFEST_SUFFIX}"):
        with contextlib.suppress(ValueError, FileNotFoundError):
            manifest = backup.parse_manifest(path.read_text())
            if path.name == f"{manifest.name}{backup.MANIFEST_SUFFIX}":
                read.append(manifest)
    return tuple(sorted(read, key=lambda manifest: (manifest.taken_at, manifest.name), reverse=True))


def _write_manifest(directory: Path, manifest: BackupManifest) -> None:
    _write(directory / f"{manifest.name}{backup.MANIFEST_SUFFIX}", backup.manifest_text(manifest).encode())


def _write(path: Path, octets: bytes) -> None:
    """The whole file or none of it, also when the power fails, and for its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.parent / f"{_PARTIAL}{path.name}-{os.getpid()}-{time.monotonic_ns()}"
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _sweep(directory: Path) -> None:
    """Remove what killed workers left: parts, and files that never got a manifest."""
    for path in directory.iterdir() if directory.is_dir() else ():
        unfinished = path.name.startswith(_PARTIAL) or (
            backup.is_name(path.name) and not path.with_name(f"{path.name}{backup.MANIFEST_SUFFIX}").exists()
        )
        if unfinished and time.time() - path.stat().st_mtime > _LEFT_BEHIND_SECONDS:
            path.unlink(missing_ok=True)


def _identities(path: Path) -> list[pyrage.x25519.Identity]:
    """The keys of an age identity file. Raises ApplicationError, whose words quote nothing of it."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
        identities = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError, pyrage.IdentityError) as error:
        message = f"the identity file of backups cannot be used: {type(error).__name__}"
        raise ApplicationError(message, type="BackupIdentity") from None
    if not identities:
        raise ApplicationError("the identity file of backups holds no identity", type="BackupIdentity")
    return identities


@contextlib.contextmanager
def _disk(action: str) -> Iterator[None]:
    """Errors of the directory as ApplicationErrors that are tried again, without its path."""
    try:
        yield
    except OSError as error:
        raise ApplicationError(f"{action}: {error.strerror or type(error).__name__}", type="BackupDirectory") from None


@contextlib.contextmanager
def _told(found: list[Finding], *, missing_kind_too: bool = False) -> Iterator[None]:
    """A missing permission is told and the rest goes on; so does it without a word where a kind may be missing."""
    try:
        yield
    except ApplicationError as error:
        if missing_kind_too and error.type == "KindMissing":
            return
        told = kubernetes.told_by(error)
        if error.type != "PermissionMissing" or not told:
            raise
        found += told


async def _at_once(items: Iterable[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    """The results in order, a few under way at a time."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(item: T) -> R:
        async with limit:
            return await work(item)

    return list(await asyncio.gather(*map(one, items)))


def _report(
    manifest: BackupManifest, *, verified: bool = False, verified_how: str = "", findings: tuple[Finding, ...] = ()
) -> BackupReport:
    return BackupReport(
        name=manifest.name,
        bytes=manifest.bytes,
        sha256=manifest.sha256,
        counts=manifest.counts,
        fingerprints=manifest.fingerprints[:_MOST_NAMED],
        recipients=manifest.recipients,
        verified=verified,
        verified_how=verified_how,
        findings=tuple(dict.fromkeys(findings)),
    )


def _named(skipped: list[str]) -> tuple[str, ...]:
    more = len(skipped) - _MOST_NAMED
    return (*skipped[:_MOST_NAMED], *((f"and {more} more",) if more > 0 else ()))


def _nothing(problem: str) -> BackupReport:
    lacking = findings.BACKUP_NOT_CONFIGURED.found(
        subject="backup",
        problem=problem,
        fix="Set CERTWRIGHT_BACKUP_DIRECTORY and CERTWRIGHT_BACKUP_RECIPIENTS.",
    )
    return BackupReport(name="", bytes=0, sha256="", counts=(), findings=(lacking,))
