"""What belongs in a backup and what does not, and every way in which one can be other than its manifest says."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
import tarfile
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from lifecycle import backup, names, x509
from lifecycle.backup import BackupManifest
from lifecycle.manifests import DOMAIN_ANNOTATION, Manifest
from lifecycle.rehearsal import SHADOW_LABEL
from lifecycle.steps import BackupItem

NOW = datetime(2026, 3, 1, 12, 30, 45, tzinfo=UTC)


def made(kind: str, name: str, namespace: str = "edge", **body: Any) -> Manifest:
    api = next(known.api_version for known in backup.KINDS if known.kind == kind)
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}


def tls_secret(name: str, namespace: str = "edge") -> Manifest:
    issued = trustme.CA().issue_cert("shop.example.com")
    chain, key = issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()
    data = {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(key).decode()}
    return made("Secret", name, namespace, type="kubernetes.io/tls", data=data)


def account_secret(name: str, namespace: str = "edge") -> Manifest:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made("Secret", name, namespace, type="Opaque", data={"tls.key": base64.b64encode(pem).decode()})


def manifest_of(documents: tuple[Manifest, ...], **changes: Any) -> BackupManifest:
    known = BackupManifest(
        name="20260301T123045Z-0123abcd.age",
        taken_at=NOW,
        sha256="0" * 64,
        bytes=1,
        recipients=("age1x",),
        items=tuple(map(backup.item_of, documents)),
        versions=(("kubernetes", "v1.36.3"),),
    )
    return dataclasses.replace(known, **changes)


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_backup_is_named_after_its_time_and_content() -> None:
    name = backup.backup_name(NOW, "0123abcdef")
    assert name == "20260301T123045Z-0123abcd.age"
    assert backup.is_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "../20260301T123045Z-0123abcd.age",
        "20260301T123045Z-0123abcd.age/../../etc/passwd",
        "20260301T123045Z-0123abcd.age\n",
        "20260301T123045Z-0123ABCD.age",
        "٢0260301T123045Z-0123abcd.age",
        "20260301T123045Z-0123abcd.age.json",
        ".partial-20260301T123045Z-0123abcd.age",
    ],
)
def test_no_other_text_is_a_name(text: str) -> None:
    assert not backup.is_name(text)


# --- what belongs -----------------------------------------------------------------------------------------------------


def test_secrets_are_selected_from_what_names_them_and_never_by_label() -> None:
    certificates = [made("Certificate", "shop", spec={"secretName": "shop-tls"})]
    issuers = [
        made("Issuer", "acme", "tenant", spec={"acme": {"privateKeySecretRef": {"name": "account"}}}),
        made("Issuer", "selfsigned", "tenant", spec={"selfSigned": {}}),
    ]
    cluster = [made("ClusterIssuer", "letsencrypt", "", spec={"acme": {"privateKeySecretRef": {"name": "le"}}})]
    wanted = backup.wanted_secrets(certificates, issuers, cluster, cluster_namespace="cert-manager")
    assert [(one.namespace, one.name, one.tls) for one in wanted] == [
        ("cert-manager", "le", False),
        ("edge", "shop-tls", True),
        ("tenant", "account", False),
    ]


def test_a_wanted_secret_that_is_not_there_is_told() -> None:
    certificates = [made("Certificate", "shop", spec={"secretName": "shop-tls"})]
    wanted = backup.wanted_secrets(certificates, [], [], cluster_namespace="cert-manager")
    (missing,) = backup.missing_secrets(wanted, [])
    assert missing.code == "CW1705"
    assert "Certificate edge/shop" in missing.problem
    assert backup.missing_secrets(wanted, [tls_secret("shop-tls")]) == ()


def test_a_rehearsals_certificate_and_its_secret_do_not_belong() -> None:
    shadow = made("Certificate", "rehearsal-shop", spec={"secretName": "rehearsal-shop"})
    shadow["metadata"]["labels"] = {SHADOW_LABEL: "true"}
    assert not backup.belongs(shadow)
    assert backup.wanted_secrets([shadow], [], [], cluster_namespace="cert-manager") == ()


def test_a_challenges_route_does_not_belong_and_a_domains_routes_do() -> None:
    annotations = {DOMAIN_ANNOTATION: "shop.example.com"}
    challenges = names.challenge_route_name("shop.example.com")
    for kind, name, belongs in (
        ("VirtualService", names.virtual_service_name("shop.example.com"), True),
        ("VirtualService", challenges, False),
        ("HTTPRoute", names.virtual_service_name("shop.example.com"), True),
        ("HTTPRoute", names.redirect_route_name("shop.example.com"), True),
        ("HTTPRoute", challenges, False),
        ("HTTPRoute", f"{challenges}-2", False),
    ):
        route = made(kind, name)
        route["metadata"]["annotations"] = annotations
        assert backup.belongs(route) is belongs


def test_gateways_of_both_kinds_are_kept_apart() -> None:
    istio, by_gateway_api = (
        {"apiVersion": version, "kind": "Gateway", "metadata": {"name": "shop", "namespace": "edge"}, "spec": {}}
        for version in ("networking.istio.io/v1", "gateway.networking.k8s.io/v1")
    )
    assert backup.belongs(istio)
    assert backup.belongs(by_gateway_api)
    assert backup.in_order((by_gateway_api, istio)) == (istio, by_gateway_api)
    assert manifest_of((istio, by_gateway_api)).counts == (("Gateway", 2),)


@pytest.mark.parametrize("kind", ["CertificateRequest", "Order", "Challenge", "Pod"])
def test_kinds_that_deadlock_renewals_never_belong(kind: str) -> None:
    assert not backup.belongs({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}})


def test_what_belongs_to_one_clusters_life_is_left_behind() -> None:
    secret = tls_secret("shop-tls")
    secret["metadata"] |= {
        "uid": "u",
        "resourceVersion": "7",
        "generation": 2,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "ownerReferences": [{"kind": "Certificate"}],
        "finalizers": ["f"],
        "managedFields": [{}],
        "labels": {"a": "b"},
        "annotations": {
            "cert-manager.io/certificate-name": "shop",
            "kubectl.kubernetes.io/last-applied-configuration": "the whole Secret again",
        },
    }
    secret["status"] = {"x": 1}
    kept = backup.portable(secret)
    assert kept["metadata"] == {
        "name": "shop-tls",
        "namespace": "edge",
        "labels": {"a": "b"},
        "annotations": {"cert-manager.io/certificate-name": "shop"},
    }
    assert set(kept) == {"apiVersion", "kind", "metadata", "type", "data"}


def test_secrets_come_first_and_what_refers_to_them_after() -> None:
    documents = [
        made("VirtualService", "a"),
        made("Certificate", "a"),
        made("Gateway", "a"),
        made("Issuer", "a"),
        made("Secret", "b"),
        made("ClusterIssuer", "a", ""),
        made("Secret", "a"),
    ]
    assert [item["kind"] for item in backup.in_order(documents)] == [
        "Secret",
        "Secret",
        "ClusterIssuer",
        "Issuer",
        "Certificate",
        "Gateway",
        "VirtualService",
    ]


# --- fingerprints -----------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_the_certificates_or_the_accounts_public_keys() -> None:
    secret, account = tls_secret("shop-tls"), account_secret("account")
    facts = x509.facts(base64.b64decode(secret["data"]["tls.crt"]))
    assert facts.fingerprint == backup.fingerprint(secret)
    assert len(backup.fingerprint(account)) == 64
    assert backup.fingerprint(account) != backup.fingerprint(account_secret("account"))


@pytest.mark.parametrize("data", [None, {}, {"tls.crt": "!"}, {"tls.crt": "bm8="}, {"tls.key": "bm8="}])
def test_a_secret_that_holds_none_has_no_fingerprint(data: dict[str, str] | None) -> None:
    assert backup.fingerprint(made("Secret", "odd", data=data)) == ""


def test_the_same_certificate_with_another_key_is_not_the_same_content() -> None:
    kept = tls_secret("shop-tls")
    other = {**kept, "data": {**kept["data"], "tls.key": tls_secret("x")["data"]["tls.key"]}}
    assert backup.fingerprint(kept) == backup.fingerprint(other)
    assert not backup.same_content(kept, other)
    assert backup.same_content(kept, {**kept, "data": {**kept["data"], "another-tools": "eA=="}})


# --- manifest and archive ---------------------------------------------------------------------------------------------


def test_a_manifest_reads_back_as_it_was_written() -> None:
    manifest = manifest_of((tls_secret("a"), made("Gateway", "b")), verified_at=NOW)
    assert manifest == backup.parse_manifest(backup.manifest_text(manifest))
    assert manifest.counts == (("Secret", 1), ("Gateway", 1))
    assert len(manifest.fingerprints) == 1


def test_a_manifest_holds_no_data_of_a_secret() -> None:
    secret = tls_secret("a")
    text = backup.manifest_text(manifest_of((secret,)))
    assert all(value[:40] not in text for value in secret["data"].values())


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format": 2}', '{"format": 1}'])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        backup.parse_manifest(text)


def test_a_manifest_that_names_a_path_is_refused() -> None:
    document = json.loads(backup.manifest_text(manifest_of(())))
    with pytest.raises(ValueError, match="names no backup"):
        backup.parse_manifest(json.dumps({**document, "name": "../../etc/passwd"}))


def test_an_archive_gives_back_what_was_put_in_and_is_the_same_each_time() -> None:
    documents = backup.in_order([tls_secret("a"), account_secret("b"), made("Certificate", "c", spec={"x": "ü"})])
    octets = backup.packed(documents, at=NOW)
    assert documents == backup.unpacked(octets)
    assert octets == backup.packed(documents, at=NOW)


def archive(**files: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        for name, content in files.items():
            octets = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(name.replace("__", "."))
            entry.size = len(octets)
            opened.addfile(entry, io.BytesIO(octets))
    return gzip.compress(buffer.getvalue(), mtime=0)


ORDER = {"apiVersion": "acme.cert-manager.io/v1", "kind": "Order", "metadata": {"name": "x", "namespace": "y"}}


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"", "archive"),
        (b"\x1f\x8b\x08 cut off", "archive"),
        (gzip.compress(b"no tar", mtime=0), "archive"),
        (archive(), "list of objects"),
        (archive(manifest__json={"format": 9}), "list of objects"),
        (archive(manifest__json=b"\xff"), "no JSON"),
        (archive(manifest__json={"format": 1, "items": []}, order=ORDER), "Order"),
        (archive(manifest__json={"format": 1, "items": []}, gateway=made("Gateway", "x")), "what its list says"),
        (archive(manifest__json={"format": 1, "items": []}, number=7), "archive"),
    ],
)
def test_an_archive_that_is_none_of_ours_is_refused_in_words(octets: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        backup.unpacked(octets)


def test_recipients_are_counted_without_an_identity() -> None:
    header = b"age-encryption.org/v1\n-> X25519 a\nb\n-> X25519 c\nd\n-> x-grease e\nf\n--- mac\n-> X25519 payload"
    assert backup.stanzas(header) == 2
    assert backup.stanzas(b"-> X25519 a") == 0


def test_opened_objects_that_are_not_the_manifests_are_named() -> None:
    documents = (tls_secret("a"), made("Gateway", "b"))
    assert backup.content_problem(manifest_of(documents), documents) == ""
    assert "Gateway edge/b" in backup.content_problem(manifest_of(documents), documents[:1])
    assert "Secret edge/a" in backup.content_problem(manifest_of(documents), (tls_secret("a"), documents[1]))


def test_a_cluster_that_moved_on_is_told_by_name() -> None:
    kept, gone, same = tls_secret("renewed"), tls_secret("gone"), tls_secret("same")
    present = {("edge", "renewed"): tls_secret("renewed"), ("edge", "same"): same}
    (differs,) = backup.cluster_differences("b", (kept, gone, same), present)
    assert differs.code == "CW1704"
    assert "edge/renewed, Secret edge/gone" in differs.problem
    assert "same" not in differs.problem


# --- retention --------------------------------------------------------------------------------------------------------


def row(*verified: bool) -> tuple[BackupManifest, ...]:
    """Backups of successive days, oldest first."""
    return tuple(
        manifest_of(
            (),
            name=f"202603{day + 1:02}T000000Z-0123abcd.age",
            taken_at=NOW + timedelta(days=day),
            verified_at=NOW if opened else None,
        )
        for day, opened in enumerate(verified)
    )


@pytest.mark.parametrize(
    ("verified", "keep", "gone"),
    [
        ((True, True, True), 2, [0]),
        ((True, True, True), 3, []),
        ((True, True), 3, []),
        ((True, True, False), 1, [0]),
        ((True, False, False), 1, []),
        ((False, True, False, True), 2, [0]),
        ((True, False, True, False, True), 2, [0, 1]),
        ((False, False, False), 1, []),
        ((True, True, True), 0, []),
    ],
)
def test_the_oldest_go_only_after_newer_ones_are_verified(
    verified: tuple[bool, ...], keep: int, gone: list[int]
) -> None:
    backups = row(*verified)
    assert {backups[day].name for day in gone} == set(backup.surplus(backups, keep))


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 10))
def test_at_least_the_asked_number_of_verified_backups_stays(verified: list[bool], keep: int) -> None:
    backups = row(*verified)
    gone = set(backup.surplus(backups, keep))
    left = [one for one in backups if one.name not in gone and one.verified_at]
    assert len(left) >= min(keep, sum(verified))


# --- restoring --------------------------------------------------------------------------------------------------------


def test_into_another_namespace_go_the_secrets_alone() -> None:
    documents = (tls_secret("a"), account_secret("b", "cert-manager"), made("Certificate", "c"))
    plan = backup.restore_plan(documents, "drill")
    assert {("drill", "a"), ("drill", "b")} == {
        (item["metadata"]["namespace"], item["metadata"]["name"]) for item in plan.secrets
    }
    assert plan.others == ()
    assert documents[0]["metadata"]["namespace"] == "edge"


def test_two_secrets_that_would_meet_are_told_and_one_is_left_out() -> None:
    plan = backup.restore_plan((tls_secret("a", "x"), tls_secret("a", "y")), "drill")
    assert len(plan.secrets) == 1
    assert [finding.code for finding in plan.findings] == ["CW1706"]


def test_in_place_everything_goes_where_it_was_secrets_first() -> None:
    plan = backup.restore_plan((made("Certificate", "c", spec={"secretName": "a"}), tls_secret("a")), "")
    assert [item["kind"] for item in (*plan.secrets, *plan.others)] == ["Secret", "Certificate"]


def test_in_place_cert_manager_finds_a_certificates_secret_in_the_cache_where_it_looks() -> None:
    certificate = made("Certificate", "c", spec={"secretName": "a"})
    kept, account = tls_secret("a"), account_secret("b")
    plan = backup.restore_plan((certificate, kept, account), "")
    labels = [item["metadata"].get("labels") for item in plan.secrets]
    assert labels == [{backup.WATCHED: "true"}, None]
    assert not backup.same_content(plan.secrets[0], kept)
    assert backup.same_content(kept, plan.secrets[0])
    assert backup.same_content(plan.secrets[0], plan.secrets[0])


def test_a_certificate_without_its_secret_is_known() -> None:
    certificate = made("Certificate", "c", spec={"secretName": "a"})
    assert not backup.without_secret(certificate, [tls_secret("a")])
    assert backup.without_secret(certificate, [tls_secret("a", "elsewhere")])


def test_an_order_is_known_by_the_certificate_that_cert_manager_writes_on_it() -> None:
    order = {
        "kind": "Order",
        "metadata": {"namespace": "edge", "annotations": {"cert-manager.io/certificate-name": "c"}},
    }
    assert backup.orders_for(order, [made("Certificate", "c")])
    assert not backup.orders_for(order, [made("Certificate", "c", "elsewhere"), made("Gateway", "c")])


def test_a_line_moves_with_its_object() -> None:
    line = BackupItem(kind="Secret", namespace="edge", name="a", fingerprint="f")
    assert backup.at(line, "drill").namespace == "drill"
    assert backup.at(line, "") is line
