"""Credentials come from files, the environment or are made here; what is wrong is told, and never a value."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lab.cluster import Lab
from starter import cli
from starter.credentials import Credentials, CredentialsError, gathered

SECRET = "s3cret"


def refused(sources: tuple[str, ...], **more: str) -> dict[str, str]:
    with pytest.raises(CredentialsError) as raised:
        gathered(sources, {"TOKEN": SECRET}, **more)
    assert SECRET not in repr(raised.value.errors)
    return {error.field: error.problem for error in raised.value.errors}


@pytest.fixture
def authority(tmp_path: Path) -> tuple[str, str]:
    """Files of a CA's certificate and key."""
    made = trustme.CA()
    (tmp_path / "ca.crt").write_bytes(made.cert_pem.bytes())
    (tmp_path / "ca.key").write_bytes(made.private_key_pem.bytes())
    return str(tmp_path / "ca.crt"), str(tmp_path / "ca.key")


def test_values_come_from_files_and_the_environment_without_the_end_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"abc\r\n")
    (tmp_path / "key.json").write_bytes(b"{\n}\n")
    found = gathered(
        (f"a=file:{tmp_path / 'token'}", "b.c=env:TOKEN", f"d=file:{tmp_path / 'key.json'}"), {"TOKEN": SECRET}
    )
    assert found.values == {"a": b"abc", "b.c": SECRET.encode(), "d": b"{\n}\n"}
    assert SECRET not in repr(found)


def test_all_that_is_wrong_with_sources_comes_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"\n")
    found = refused((f"a=file:{tmp_path / 'empty'}", "b=env:NOBODY", "c=file:/nowhere", f"d={SECRET}", "b=env:TOKEN"))
    assert {field.removeprefix("SOURCE ") for field in found} == {"a", "b", "c", "SOURCE"}
    assert "is no source" in found["SOURCE"]


@pytest.mark.parametrize(
    ("sources", "more"),
    [((), {}), (("a=env:TOKEN",), {"generate": "Root"}), ((), {"generate": "Root", "certificate": "x", "key": "y"})],
)
def test_there_is_one_way_at_a_time(sources: tuple[str, ...], more: dict[str, str]) -> None:
    assert set(refused(sources, **more)) == {"SOURCE"}


def test_a_cas_certificate_and_key_are_taken_where_they_belong_together(
    authority: tuple[str, str], tmp_path: Path
) -> None:
    certificate, key = authority
    found = gathered((), {}, certificate=certificate, key=key)
    assert (found.kind, set(found.values)) == ("kubernetes.io/tls", {"tls.crt", "tls.key"})
    other = trustme.CA()
    (tmp_path / "other.key").write_bytes(other.private_key_pem.bytes())
    assert "is not the key" in refused((), certificate=certificate, key=str(tmp_path / "other.key"))["--key"]
    leaf = other.issue_cert("a.example.com")
    (tmp_path / "leaf.crt").write_bytes(leaf.cert_chain_pems[0].bytes())
    (tmp_path / "leaf.key").write_bytes(leaf.private_key_pem.bytes())
    told = refused((), certificate=str(tmp_path / "leaf.crt"), key=str(tmp_path / "leaf.key"))
    assert "is no CA's" in told["--certificate"]
    assert set(refused((), certificate=certificate)) == {"--key"}
    assert "is no PEM" in refused((), certificate=key, key=key)["--certificate"]
    assert "is no PEM private key" in refused((), certificate=certificate, key=certificate)["--key"]


def test_a_root_is_made_here() -> None:
    made = gathered((), {}, generate="Shop Root")
    root = x509.load_pem_x509_certificate(made.values["tls.crt"])
    key = serialization.load_pem_private_key(made.values["tls.key"], password=None)
    assert root.subject == root.issuer
    assert root.subject.rfc4514_string() == "CN=Shop Root"
    assert root.public_key() == key.public_key()
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert root.not_valid_before_utc <= datetime.now(UTC)
    assert set(refused((), generate="x" * 65)) == {"--generate-ca"}


async def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = await asyncio.to_thread(cli.main, ["--json", "issuer", "credentials", *arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


async def test_bad_input_and_a_missing_cluster_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = await command(capsys, "Bad_Name", "a=env:X", "--secret-namespace", "x y")
    assert (code, {one["field"] for one in json.loads(told)["error"]["errors"]}) == (
        2,
        {"SECRET", "--secret-namespace"},
    )
    code, told = await command(capsys, "dns", f"token={SECRET}")
    assert (code, SECRET in told) == (2, False)
    monkeypatch.setenv("TOKEN", SECRET)
    code, told = await command(capsys, "dns", "token=env:TOKEN", "--kubeconfig", "/nowhere")
    assert (code, "no cluster is named by /nowhere" in told) == (1, True)


@pytest.mark.lab
async def test_a_secret_is_written_once_and_replaced_only_if_asked(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--kubeconfig", str(lab.kubeconfig))
    monkeypatch.setenv("TOKEN", SECRET)
    code, told = await command(capsys, "i4-written", "token=env:TOKEN", *where)
    assert (code, json.loads(told)["changed"], SECRET in told) == (0, True, False)
    code, told = await command(capsys, "i4-written", "token=env:TOKEN", *where)
    assert (code, json.loads(told)["changed"]) == (0, False)
    monkeypatch.setenv("TOKEN", "another")
    code, told = await command(capsys, "i4-written", "token=env:TOKEN", *where)
    assert (code, "--replace" in told) == (1, True)
    code, told = await command(capsys, "i4-written", "token=env:TOKEN", "--replace", *where)
    assert (code, json.loads(told)["changed"]) == (0, True)
    code, told = await command(capsys, "i4-written", "token=env:TOKEN", "--secret-namespace", "i4-nowhere", *where)
    assert (code, "kubectl create namespace i4-nowhere" in told) == (1, True)


def test_credentials_are_never_shown() -> None:
    assert SECRET not in repr(Credentials(values={"a": SECRET.encode()}))
