"""Volumes hold what the cluster holds, and change in one step."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from lab import volumes
from lab.api import Json

POD: Json = {
    "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"note": 'say "hi"'}},
    "spec": {"nodeName": "lab", "serviceAccountName": "web"},
    "status": {"podIP": "192.0.2.7"},
}
SECRET: Json = {"kind": "Secret", "type": "Opaque", "data": {"user": base64.b64encode(b"ann").decode()}}
CONFIG: Json = {"kind": "ConfigMap", "data": {"a.yaml": "a: 1"}}


async def lookup(kind: str, name: str) -> Json | None:
    return {("secrets", "login"): SECRET, ("configmaps", "settings"): CONFIG}.get((kind, name))


async def token(audience: str | None, seconds: int) -> str:
    return f"token for {audience} living {seconds}"


@pytest.mark.parametrize(
    ("volume", "files"),
    [
        ({"secret": {"secretName": "login"}}, {"user": b"ann"}),
        (
            {"secret": {"secretName": "login", "items": [{"key": "user", "path": "who/is"}]}},
            {"who/is": b"ann"},
        ),
        ({"secret": {"secretName": "none", "optional": True}}, {}),
        ({"configMap": {"name": "settings"}}, {"a.yaml": b"a: 1"}),
        (
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"labels": b'app="web"'},
        ),
        (
            {
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "t", "audience": "istio-ca", "expirationSeconds": 900}},
                        {"configMap": {"name": "settings", "items": [{"key": "a.yaml", "path": "b.yaml"}]}},
                    ]
                }
            },
            {"t": b"token for istio-ca living 900", "b.yaml": b"a: 1"},
        ),
    ],
)
async def test_each_kind_of_volume_is_rendered(volume: Json, files: dict[str, bytes]) -> None:
    assert files == await volumes.render(volume, POD, lookup, token)


@pytest.mark.parametrize("volume", [{"configMap": {"name": "none"}}, {"secret": {"secretName": "none"}}])
async def test_a_missing_source_is_named(volume: Json) -> None:
    with pytest.raises(volumes.MissingSourceError, match="none"):
        await volumes.render(volume, POD, lookup, token)


def test_a_volume_is_replaced_by_one_rename_and_only_when_it_changed(tmp_path: Path) -> None:
    place = tmp_path / "volume"
    assert volumes.write(place, {"old": b"1", "kept": b"1"})
    before = (place / "..data").resolve()
    assert not volumes.write(place, {"old": b"1", "kept": b"1"})
    assert volumes.write(place, {"kept": b"2", "deep/new": b"3"})
    assert not before.exists()
    assert sorted(entry.name for entry in place.iterdir() if not entry.name.startswith("..")) == ["deep", "kept"]
    assert ((place / "kept").read_bytes(), (place / "deep/new").read_bytes()) == (b"2", b"3")


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("--config=/etc/app/config.yaml", "--config=/here/app/config.yaml"),
        ("file:///etc/app", "file:///etc/app"),
        ("./etc/app/x", "./etc/app/x"),
        ("/etc/application", "/etc/application"),
        ("/etc/app/certs/tls.crt", "/here/certs/tls.crt"),
    ],
)
def test_only_whole_mount_paths_are_rewritten(text: str, rewritten: str) -> None:
    assert rewritten == volumes.rewrite(text, {"/etc/app": "/here/app", "/etc/app/certs": "/here/certs"})


def test_variables_are_expanded_as_in_a_container() -> None:
    assert volumes.expand("--ns=$(NS) $(NONE) $$(NS)", {"NS": "shop"}) == "--ns=shop $(NONE) $(NS)"


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        ({"resource": "limits.cpu", "divisor": "1"}, "2"),
        ({"resource": "limits.memory", "divisor": "1"}, "1073741824"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "1024"),
        ({"resource": "requests.cpu", "divisor": "1m"}, "100"),
    ],
)
def test_resources_are_shown_rounded_up(reference: Json, shown: str) -> None:
    container = {"resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}, "requests": {"cpu": "100m"}}}
    assert shown == volumes.resource(container, reference, {})
