"""Backups of the real cluster: encrypted before they touch a disk, opened by the standard tool, and put back equal."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pyrage
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes.aio.dynamic import DynamicClient
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import kubernetes
from activities.backups import BackupActivities, BackupSettings, manifests_in
from lab.accounts import service_account_kubeconfig
from lab.api import ApiError, Json
from lab.cluster import Lab
from lifecycle import backup, manifests
from lifecycle.domain import IssuerKind, IssuerRef
from lifecycle.findings import Finding
from lifecycle.steps import BackupReport, BackupRequest, IssuerRequest, RestoreReport, RestoreRequest

pytestmark = pytest.mark.lab

HOME = "h3-backup"
REQUEST = BackupRequest(namespaces=(HOME,))
CERTIFICATES = f"/apis/cert-manager.io/v1/namespaces/{HOME}/certificates"
ORDERS = f"/apis/acme.cert-manager.io/v1/namespaces/{HOME}/orders"


@pytest.fixture(scope="module")
async def cluster(lab: Lab) -> AsyncIterator[DynamicClient]:
    async with kubernetes.connect(str(lab.kubeconfig)) as connected:
        yield connected


async def namespace(lab: Lab, name: str) -> str:
    await lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def tls_secret(name: str, hostname: str, issuer: str) -> Json:
    """A Secret as cert-manager leaves it after issuing: a Certificate that finds it orders nothing."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"{name}-tls",
            "namespace": HOME,
            "labels": {backup.WATCHED: "true"},
            "annotations": {
                "cert-manager.io/certificate-name": name,
                "cert-manager.io/issuer-name": issuer,
                "cert-manager.io/issuer-kind": "Issuer",
                "cert-manager.io/issuer-group": "cert-manager.io",
                "cert-manager.io/common-name": hostname,
                "cert-manager.io/alt-names": hostname,
            },
        },
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(pem).decode()},
    }


def certificate(name: str, hostname: str, issuer: str) -> Json:
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": name, "namespace": HOME},
        "spec": {
            "secretName": f"{name}-tls",
            "dnsNames": [hostname],
            "privateKey": {"algorithm": "ECDSA", "size": 256},
            "issuerRef": {"group": "cert-manager.io", "kind": "Issuer", "name": issuer},
        },
    }


async def delete(lab: Lab, path: str) -> None:
    try:
        await lab.api.call("DELETE", path)
    except ApiError as error:
        if error.status != 404:
            raise


@pytest.fixture(scope="module")
async def home(lab: Lab) -> str:
    """A namespace with an ACME Issuer, two Certificates that are Ready, and a Gateway and routes of ours."""
    await namespace(lab, HOME)
    issuer = IssuerRequest(
        ref=IssuerRef(name="acme", kind=IssuerKind.ISSUER, namespace=HOME),
        server=lab.acme_directory,
        ca_bundle=lab.acme_ca.read_text(),
    )
    await lab.apply_when_answered(manifests.acme_issuer(issuer))
    for name in ("one", "two"):
        await lab.apply(tls_secret(name, f"{name}.h3.test", "acme"))
        await lab.apply_when_answered(certificate(name, f"{name}.h3.test", "acme"))
    ours = {"namespace": HOME, "labels": {"app.kubernetes.io/managed-by": "certwright"}}
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["one.h3.test"]}
    await lab.apply(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "one", **ours},
            "spec": {"selector": {"istio": "nobody"}, "servers": [server]},
        }
    )
    route = {"route": [{"destination": {"host": "frontend-service.default.svc.cluster.local"}}]}
    await lab.apply(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "one", **ours},
            "spec": {"hosts": ["one.h3.test"], "gateways": [f"{HOME}/one"], "http": [route]},
        }
    )
    await lab.until(f"/apis/cert-manager.io/v1/namespaces/{HOME}/issuers", ready)
    await until_ready(lab)
    return HOME


def ready(item: Json) -> bool:
    conditions = (item.get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def named_and_ready(name: str, item: Json) -> bool:
    return item["metadata"]["name"] == name and ready(item)


async def until_ready(lab: Lab) -> None:
    for name in ("one", "two"):
        await lab.until(CERTIFICATES, partial(named_and_ready, name))


@pytest.fixture
def identity() -> pyrage.x25519.Identity:
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def settings(tmp_path: Path, identity: pyrage.x25519.Identity) -> BackupSettings:
    """Two recipients: the worker's own, and one whose identity lies with the operators."""
    file = tmp_path / "identity.txt"
    file.write_text(f"# created: today\n{identity}\n")
    other = pyrage.x25519.Identity.generate()
    (tmp_path / "operator.txt").write_text(f"{other}\n")
    return BackupSettings(
        directory=tmp_path / "backups",
        recipients=(str(identity.to_public()), str(other.to_public())),
        identity_file=file,
        keep=3,
    )


@pytest.fixture
def hands(home: str, cluster: DynamicClient, settings: BackupSettings) -> BackupActivities:
    return BackupActivities(cluster, settings)


async def take(hands: BackupActivities, request: BackupRequest = REQUEST) -> BackupReport:
    return await ActivityEnvironment().run(hands.take_backup, request)


async def verify(hands: BackupActivities, taken: BackupReport) -> BackupReport:
    return await ActivityEnvironment().run(hands.verify_backup, taken)


async def prune(hands: BackupActivities, keep: int) -> tuple[str, ...]:
    report = await ActivityEnvironment().run(hands.prune_backups, BackupRequest(keep=keep))
    return report.removed


async def restore(hands: BackupActivities, name: str, *, into: str = "", overwrite: bool = False) -> RestoreReport:
    request = RestoreRequest(backup=name, into=into, overwrite=overwrite)
    return await ActivityEnvironment().run(hands.restore_backup, request)


def codes(found: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in found]


async def test_a_backup_holds_what_names_it_and_is_verified_by_opening(
    hands: BackupActivities, settings: BackupSettings
) -> None:
    taken = await take(hands)
    assert taken.findings == ()
    counts = dict(taken.counts)
    assert {kind: counts[kind] for kind in ("Issuer", "Certificate", "Gateway", "VirtualService")} == {
        "Issuer": 1,
        "Certificate": 2,
        "Gateway": 1,
        "VirtualService": 1,
    }
    (manifest,) = manifests_in(settings.directory or Path())
    held = {(item.kind, item.namespace, item.name) for item in manifest.items}
    assert {("Secret", HOME, "one-tls"), ("Secret", HOME, "two-tls"), ("Secret", HOME, "acme-account")} <= held
    assert all(item.fingerprint for item in manifest.items if item.kind == "Secret")
    assert dict(manifest.versions)["kubernetes"].startswith("v1.")
    verified = await verify(hands, taken)
    assert verified.findings == ()
    assert verified.verified
    assert "compared" in verified.verified_how
    (manifest,) = manifests_in(settings.directory or Path())
    assert manifest.verified_at is not None


async def test_no_octet_of_a_key_lies_on_the_disk(lab: Lab, hands: BackupActivities, settings: BackupSettings) -> None:
    await verify(hands, await take(hands))
    secrets = await lab.api.call("GET", f"/api/v1/namespaces/{HOME}/secrets")
    keys = [item["data"]["tls.key"] for item in secrets["items"] if "tls.key" in (item.get("data") or {})]
    assert len(keys) >= 3
    assert settings.directory is not None
    files = list(settings.directory.iterdir())
    assert len(files) == 2
    for file in files:
        octets = file.read_bytes()
        assert file.stat().st_mode & 0o777 == 0o600
        for key in keys:
            pem = base64.b64decode(key)
            body = b"".join(pem.splitlines()[1:-1])
            assert key[40:80].encode() not in octets
            assert body[:40] not in octets
            assert base64.b64decode(body)[:24] not in octets


async def test_the_standard_tool_opens_it_for_each_recipient(
    lab: Lab, hands: BackupActivities, settings: BackupSettings, tmp_path: Path
) -> None:
    taken = await take(hands)
    age = str(lab.programs.binaries / "age")
    assert settings.directory is not None
    for identity in ("identity.txt", "operator.txt"):
        opened = await asyncio.to_thread(
            subprocess.run,
            [age, "-d", "-i", str(tmp_path / identity), str(settings.directory / taken.name)],
            capture_output=True,
            check=True,
        )
        out = tmp_path / f"out-{identity}"
        out.mkdir()
        await asyncio.to_thread(subprocess.run, ["tar", "xz", "-C", str(out)], input=opened.stdout, check=True)
        secret = json.loads((out / "0-secrets" / HOME / "one-tls.json").read_text())
        present = await lab.api.call("GET", f"/api/v1/namespaces/{HOME}/secrets/one-tls")
        assert present["data"] == secret["data"]


@pytest.mark.parametrize("spoiled", ["flipped", "cut", "other", "manifest", "gone"])
async def test_a_file_that_was_tampered_with_is_found(
    hands: BackupActivities, settings: BackupSettings, spoiled: str
) -> None:
    taken = await take(hands)
    assert settings.directory is not None
    file = settings.directory / taken.name
    beside = settings.directory / f"{taken.name}.json"
    octets = bytearray(file.read_bytes())
    if spoiled == "flipped":
        octets[-20] ^= 1
        file.write_bytes(octets)
    elif spoiled == "cut":
        file.write_bytes(octets[: len(octets) // 2])
    elif spoiled == "other":
        file.write_bytes((settings.directory / (await take(hands)).name).read_bytes())
    elif spoiled == "manifest":
        document = json.loads(beside.read_text())
        document["items"][0]["fingerprint"] = "0" * 64
        beside.write_text(json.dumps(document))
    else:
        file.unlink()
    checked = await verify(hands, taken)
    assert not checked.verified
    assert codes(checked.findings) == ["CW1702"]
    restored = await restore(hands, taken.name, into=HOME)
    assert codes(restored.findings) == ["CW1702"]
    assert restored.restored == ()


async def test_another_workers_identity_does_not_open_it(
    cluster: DynamicClient, hands: BackupActivities, settings: BackupSettings, tmp_path: Path
) -> None:
    taken = await take(hands)
    stranger = tmp_path / "stranger.txt"
    stranger.write_text(str(pyrage.x25519.Identity.generate()))
    other = BackupActivities(cluster, dataclasses.replace(settings, identity_file=stranger))
    assert codes((await verify(other, taken)).findings) == ["CW1702"]


async def test_without_an_identity_only_the_outside_is_looked_at_and_nothing_is_replaced(
    cluster: DynamicClient, hands: BackupActivities, settings: BackupSettings
) -> None:
    sealed = BackupActivities(cluster, dataclasses.replace(settings, identity_file=None))
    taken = await take(sealed)
    checked = await verify(sealed, taken)
    assert not checked.verified
    assert codes(checked.findings) == ["CW1703"]
    assert await prune(sealed, 1) == ()
    assert codes((await restore(sealed, taken.name)).findings) == ["CW1701"]


async def test_an_identity_file_that_holds_none_is_told_without_its_content(
    cluster: DynamicClient, hands: BackupActivities, settings: BackupSettings, tmp_path: Path
) -> None:
    taken = await take(hands)
    broken = tmp_path / "broken.txt"
    broken.write_text("AGE-SECRET-KEY-1BROKEN")
    other = BackupActivities(cluster, dataclasses.replace(settings, identity_file=broken))
    with pytest.raises(ApplicationError) as raised:
        await verify(other, taken)
    assert "BROKEN" not in str(raised.value)


@pytest.mark.parametrize("changes", [{"directory": None}, {"recipients": ()}, {"recipients": ("AGE-SECRET-KEY-1XYZ",)}])
async def test_what_is_not_configured_is_told_and_nothing_is_written(
    home: str, cluster: DynamicClient, settings: BackupSettings, changes: dict[str, object]
) -> None:
    lacking = BackupActivities(cluster, dataclasses.replace(settings, **changes))  # type: ignore[arg-type]
    report = await take(lacking)
    assert codes(report.findings) == ["CW1701"]
    assert "XYZ" not in str(report)
    assert not (settings.directory or Path()).exists()


async def test_a_certificate_that_was_renewed_since_is_told_and_does_not_spoil_the_backup(
    lab: Lab, hands: BackupActivities
) -> None:
    taken = await take(hands)
    before = await lab.api.call("GET", f"/api/v1/namespaces/{HOME}/secrets/two-tls")
    await lab.apply(tls_secret("two", "two.h3.test", "acme"))
    try:
        checked = await verify(hands, taken)
    finally:
        await lab.apply({**tls_secret("two", "two.h3.test", "acme"), "data": before["data"]})
    assert checked.verified
    assert codes(checked.findings) == ["CW1704"]
    assert f"{HOME}/two-tls" in checked.findings[0].problem


async def test_a_certificate_without_a_secret_is_told(lab: Lab, hands: BackupActivities) -> None:
    orphan = certificate("orphan", "orphan.h3.test", "nobody")
    await lab.apply_when_answered(orphan)
    try:
        taken = await take(hands)
    finally:
        await delete(lab, f"{CERTIFICATES}/orphan")
    assert codes(taken.findings) == ["CW1705"]
    assert f"{HOME}/orphan" in taken.findings[0].problem


async def test_the_oldest_go_once_newer_ones_are_verified(hands: BackupActivities, settings: BackupSettings) -> None:
    taken = []
    for _ in range(4):
        taken.append(await take(hands))
        await asyncio.sleep(0.01)
    assert await prune(hands, 2) == ()
    for report in taken[1:]:
        assert (await verify(hands, report)).verified
    assert {taken[0].name, taken[1].name} == set(await prune(hands, 2))
    assert await prune(hands, 2) == ()
    assert settings.directory is not None
    left = {path.name for path in settings.directory.iterdir()}
    assert {name for report in taken[2:] for name in (report.name, f"{report.name}.json")} == left


async def test_what_a_killed_worker_left_is_swept_up_and_fresh_files_are_not(
    hands: BackupActivities, settings: BackupSettings
) -> None:
    await take(hands)
    assert settings.directory is not None
    old, fresh = settings.directory / "20250101T000000Z-01234567.age", settings.directory / ".partial-fresh"
    foreign = settings.directory / "notes.txt"
    for path in (old, fresh, foreign):
        path.write_bytes(b"x")
    for path in (old, foreign):
        os.utime(path, (1e9, 1e9))
    await prune(hands, 2)
    assert not old.exists()
    assert fresh.exists()
    assert foreign.exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "", "20260301T123045Z-0123abcd.age/../x"])
async def test_a_name_that_is_a_path_is_refused(hands: BackupActivities, name: str) -> None:
    report = await restore(hands, name, into=HOME)
    assert codes(report.findings) == ["CW1702"]
    assert "not a backup's name" in report.findings[0].problem


async def test_restored_into_another_namespace_the_secrets_are_equal_and_nothing_is_ordered(
    lab: Lab, hands: BackupActivities
) -> None:
    drill = await namespace(lab, f"h3-drill-{uuid.uuid4().hex[:6]}")
    taken = await take(hands)
    report = await restore(hands, taken.name, into=drill)
    assert report.findings == ()
    assert report.equal
    assert report.orders_created == 0
    assert {item.kind for item in report.restored} == {"Secret"}
    assert {drill} == {item.namespace for item in report.restored}
    for name in ("one-tls", "two-tls", "acme-account"):
        source = await lab.api.call("GET", f"/api/v1/namespaces/{HOME}/secrets/{name}")
        copy = await lab.api.call("GET", f"/api/v1/namespaces/{drill}/secrets/{name}")
        assert source["data"] == copy["data"]
        assert "ownerReferences" not in copy["metadata"]
    again = await restore(hands, taken.name, into=drill)
    assert again.equal
    assert again.restored == ()
    assert all("equal already" in line for line in again.skipped)


async def test_another_secret_of_that_name_stays_unless_overwriting_is_asked_for(
    lab: Lab, hands: BackupActivities
) -> None:
    drill = await namespace(lab, f"h3-drill-{uuid.uuid4().hex[:6]}")
    foreign = tls_secret("one", "one.h3.test", "acme")
    foreign["metadata"]["namespace"] = drill
    await lab.apply(foreign)
    taken = await take(hands)
    report = await restore(hands, taken.name, into=drill)
    assert not report.equal
    assert codes(report.findings) == ["CW1706", "CW1707"]
    present = await lab.api.call("GET", f"/api/v1/namespaces/{drill}/secrets/one-tls")
    assert foreign["data"] == present["data"]
    forced = await restore(hands, taken.name, into=drill, overwrite=True)
    assert forced.findings == ()
    assert forced.equal


async def test_a_namespace_that_is_not_there_is_told(hands: BackupActivities) -> None:
    report = await restore(hands, (await take(hands)).name, into="h3-nowhere")
    assert codes(report.findings) == ["CW1803"]
    assert "kubectl create namespace h3-nowhere" in report.findings[0].fix


async def test_after_a_loss_everything_comes_back_in_place_and_no_order_is_created(
    lab: Lab, hands: BackupActivities
) -> None:
    """The same Certificates without their Secrets do create Orders: shown last, so that zero means something."""
    taken = await take(hands)
    account = await lab.api.call("GET", f"/api/v1/namespaces/{HOME}/secrets/acme-account")
    gone = (
        f"{CERTIFICATES}/one",
        f"{CERTIFICATES}/two",
        f"/apis/cert-manager.io/v1/namespaces/{HOME}/issuers/acme",
        f"/apis/networking.istio.io/v1/namespaces/{HOME}/gateways/one",
        f"/apis/networking.istio.io/v1/namespaces/{HOME}/virtualservices/one",
        f"/api/v1/namespaces/{HOME}/secrets/one-tls",
        f"/api/v1/namespaces/{HOME}/secrets/two-tls",
        f"/api/v1/namespaces/{HOME}/secrets/acme-account",
    )
    for path in gone:
        await delete(lab, path)
    report = await restore(hands, taken.name)
    assert report.findings == ()
    assert report.equal
    assert report.orders_created == 0
    assert len(report.restored) == len(gone)
    await until_ready(lab)
    assert (await lab.api.call("GET", ORDERS))["items"] == []
    restored = await lab.api.call("GET", f"/api/v1/namespaces/{HOME}/secrets/acme-account")
    assert account["data"] == restored["data"]
    for path in gone:
        await lab.api.call("GET", path)
    again = await restore(hands, taken.name)
    assert again.equal
    assert again.restored == ()
    await delete(lab, f"{CERTIFICATES}/one")
    await delete(lab, f"/api/v1/namespaces/{HOME}/secrets/one-tls")
    await lab.apply_when_answered(certificate("one", "one.h3.test", "acme"))
    await lab.until(ORDERS, lambda item: item["metadata"]["name"].startswith("one-"))
    await delete(lab, f"{CERTIFICATES}/one")
    await restore(hands, taken.name)


async def test_the_gateway_apis_objects_come_back_too(lab: Lab, hands: BackupActivities) -> None:
    ours = {"namespace": HOME, "labels": {"app.kubernetes.io/managed-by": "certwright"}}
    group = "gateway.networking.k8s.io"
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "hostname": "two.h3.test"}
    backend = {"name": "frontend-service", "namespace": "default", "port": 80}
    objects: dict[str, Json] = {
        "v1/gateways": {"kind": "Gateway", "spec": {"gatewayClassName": "nobody", "listeners": [listener]}},
        "v1/httproutes": {
            "kind": "HTTPRoute",
            "spec": {"parentRefs": [{"name": "two"}], "rules": [{"backendRefs": [backend]}]},
        },
        "v1beta1/referencegrants": {
            "kind": "ReferenceGrant",
            "spec": {
                "from": [{"group": group, "kind": "HTTPRoute", "namespace": HOME}],
                "to": [{"group": "", "kind": "Service"}],
            },
        },
    }
    paths = {}
    for place, document in objects.items():
        version, _, plural = place.partition("/")
        paths[place] = f"/apis/{group}/{version}/namespaces/{HOME}/{plural}/two"
        await lab.apply({"apiVersion": f"{group}/{version}", "metadata": {"name": "two", **ours}, **document})
    try:
        taken = await take(hands)
        assert {("Gateway", 2), ("HTTPRoute", 1), ("ReferenceGrant", 1)} <= set(taken.counts)
        assert (await verify(hands, taken)).verified
        for path in paths.values():
            await lab.api.call("DELETE", path)
        report = await restore(hands, taken.name)
        assert report.equal
        assert report.orders_created == 0
        for place, path in paths.items():
            assert (await lab.api.call("GET", path))["kind"] == objects[place]["kind"]
    finally:
        for path in paths.values():
            await delete(lab, path)


async def test_a_missing_permission_is_told_and_the_rest_is_kept(
    lab: Lab, settings: BackupSettings, home: str, tmp_path: Path
) -> None:
    """An account that may read everything of the namespace but its Secrets."""
    name = "h3-no-secrets"
    meta = {"name": name, "namespace": HOME}
    await lab.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    read = {"verbs": ["get", "list", "watch"]}
    rules = [
        {"apiGroups": ["cert-manager.io"], "resources": ["certificates", "issuers", "clusterissuers"], **read},
        {"apiGroups": ["networking.istio.io"], "resources": ["gateways", "virtualservices"], **read},
        {
            "apiGroups": ["gateway.networking.k8s.io"],
            "resources": ["gateways", "httproutes", "tlsroutes", "referencegrants"],
            **read,
        },
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    await lab.api.call(
        "PATCH",
        f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}",
        body={**role, "rules": rules},
        query={"fieldManager": "test", "force": "true"},
        content_type="application/apply-patch+yaml",
    )
    await lab.api.call(
        "PATCH",
        f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{name}",
        body={
            **role,
            "kind": "ClusterRoleBinding",
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": HOME}],
        },
        query={"fieldManager": "test", "force": "true"},
        content_type="application/apply-patch+yaml",
    )
    kubeconfig = await service_account_kubeconfig(lab, HOME, name, tmp_path / "kubeconfig")
    async with kubernetes.connect(str(kubeconfig)) as limited:
        report = await take(BackupActivities(limited, settings))
    assert "CW1801" in codes(report.findings)
    refused = next(finding for finding in report.findings if finding.code == "CW1801" and HOME in finding.problem)
    assert "list secrets" in refused.problem
    assert '"verbs": ["list"]' in refused.fix
    assert "CW1705" not in codes(report.findings)
    assert dict(report.counts)["Certificate"] == 2


async def test_the_installers_account_has_the_rights_to_take_open_and_restore(
    lab: Lab, settings: BackupSettings, home: str, tmp_path: Path
) -> None:
    """With the rights of `deploy/rbac.yaml`, and the binding that it names for a restore elsewhere."""
    await lab.apply_all(Path(__file__).parents[2] / "deploy" / "rbac.yaml")
    secret, wanted = tls_secret("h3-edge", "edge.h3.test", "nobody"), certificate("h3-edge", "edge.h3.test", "nobody")
    for document in (secret, wanted):
        document["metadata"]["namespace"] = "istio-system"
        await lab.apply_when_answered(document)
    drill = await namespace(lab, f"h3-drill-{uuid.uuid4().hex[:6]}")
    kubeconfig = await service_account_kubeconfig(lab, "certwright", "certwright-installer", tmp_path / "kubeconfig")
    certificates = "/apis/cert-manager.io/v1/namespaces/istio-system/certificates"
    async with kubernetes.connect(str(kubeconfig)) as limited:
        hands = BackupActivities(limited, settings)
        taken = await take(hands, BackupRequest(namespaces=("istio-system",)))
        assert "CW1801" not in codes(taken.findings)
        assert dict((await verify(hands, taken)).counts)["Secret"] >= 1
        request = RestoreRequest(backup=taken.name, into=drill)
        with pytest.raises(ApplicationError) as raised:
            await ActivityEnvironment().run(hands.restore_backup, request)
        assert raised.value.details[0].code == "CW1801"
        await bind(lab, drill)
        into = await restore(hands, taken.name, into=drill)
        assert into.equal
        await delete(lab, f"{certificates}/h3-edge")
        await delete(lab, "/api/v1/namespaces/istio-system/secrets/h3-edge-tls")
        in_place = await restore(hands, taken.name)
    assert in_place.equal
    assert in_place.orders_created == 0
    assert {("Secret", "h3-edge-tls"), ("Certificate", "h3-edge")} == {
        (item.kind, item.name) for item in in_place.restored
    }
    await delete(lab, f"{certificates}/h3-edge")
    await delete(lab, "/api/v1/namespaces/istio-system/secrets/h3-edge-tls")


async def bind(lab: Lab, target: str) -> None:
    """What the comment in `deploy/rbac.yaml` says to do before a restore into another namespace."""
    command = ["kubectl", "create", "rolebinding", "certwright-restore", "-n", target]
    command += ["--clusterrole=certwright-restore", "--serviceaccount=certwright:certwright-installer"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{lab.environment['PATH']}"
    await asyncio.to_thread(subprocess.run, command, env={**lab.environment, "PATH": path}, check=True)
