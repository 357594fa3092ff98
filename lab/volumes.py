"""What a Pod's volumes hold, and how it reaches the disk.

Contents are gathered from the cluster (`render`) and written (`write`) as the kubelet does: into a new directory, with
one rename of the `..data` link, so that a reader sees the old set or the new one, never a mixture, and file watchers
fire. Left out: persistent volumes, CSI, file modes, ownership; host paths are empty directories here.
"""

from __future__ import annotations

import base64
import contextlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from pathlib import Path

from lab.api import Json

Lookup = Callable[[str, str], Awaitable[Json | None]]
"""("configmaps" | "secrets", name) in the Pod's namespace; None where there is none."""
LookupIn = Callable[[str, str, str], Awaitable[Json | None]]
"""("configmaps" | "secrets", namespace, name)."""
Token = Callable[[str | None, int], Awaitable[str]]
"""(audience, seconds) to a token of the Pod's ServiceAccount."""

_SUBSCRIPT = re.compile(r"^(metadata\.(?:labels|annotations))\['(.+)'\]$")
_QUANTITY = re.compile(r"^([0-9.]+)([numkMGTPE]?i?|Ki)$")
_FACTORS = {letter: Decimal(1000) ** power for power, letter in enumerate(["", "k", "M", "G", "T", "P", "E"])}
_FACTORS |= {"m": Decimal("1e-3"), "u": Decimal("1e-6"), "n": Decimal("1e-9")}
_FACTORS |= {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)}


class MissingSourceError(Exception):
    """A volume or variable names a ConfigMap, Secret or key that does not exist (yet)."""


def field(pod: Json, path: str) -> str:
    """The value of a `fieldRef` (Kubernetes: "Downward API"); labels and annotations as lines of key="value"."""
    if found := _SUBSCRIPT.match(path):
        mapping = pod["metadata"].get(found[1].split(".")[1]) or {}
        return str(mapping.get(found[2], ""))
    if path in {"metadata.labels", "metadata.annotations"}:
        mapping = pod["metadata"].get(path.split(".")[1]) or {}
        escaped = {
            key: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for key, value in mapping.items()
        }
        return "\n".join(f'{key}="{value}"' for key, value in sorted(escaped.items()))
    value: object = pod
    if path in {"status.podIPs", "status.hostIPs"}:
        path = path[:-1]
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity ("500m", "1Gi") as a number. Raises ValueError."""
    found = _QUANTITY.match(str(text))
    if not found or found[2] not in _FACTORS:
        raise ValueError(f"not a quantity: {text}")
    return Decimal(found[1]) * _FACTORS[found[2]]


def resource(container: Json, reference: Json, capacity: dict[str, float]) -> str:
    """The value of a `resourceFieldRef`, rounded up; the node's own capacity where the container sets no limit."""
    kind, _, name = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    stated = (resources.get(kind) or {}).get(name) or (resources.get("limits") or {}).get(name)
    amount = quantity(stated) if stated is not None else Decimal(capacity.get(name, 0.0))
    divisor = quantity(reference.get("divisor") or "1") or Decimal(1)
    return str(math.ceil(amount / divisor))


def is_rendered(volume: Json) -> bool:
    """Whether the volume's contents come from the cluster (else it is just a directory)."""
    return any(kind in volume for kind in ("configMap", "secret", "downwardAPI", "projected"))


async def render(volume: Json, pod: Json, lookup: Lookup, token: Token) -> dict[str, bytes]:
    """The files of one volume by relative path. Raises MissingSourceError; errors of `lookup` and `token` pass."""
    if "configMap" in volume:
        return await _keys("configmaps", volume["configMap"].get("name"), volume["configMap"], lookup)
    if "secret" in volume:
        return await _keys("secrets", volume["secret"].get("secretName"), volume["secret"], lookup)
    if "downwardAPI" in volume:
        return _fields(volume["downwardAPI"], pod)
    files: dict[str, bytes] = {}
    for source in (volume.get("projected") or {}).get("sources") or []:
        if asked := source.get("serviceAccountToken"):
            seconds = int(asked.get("expirationSeconds") or 3600)
            files[asked["path"]] = (await token(asked.get("audience"), seconds)).encode()
        elif "configMap" in source:
            files |= await _keys("configmaps", source["configMap"].get("name"), source["configMap"], lookup)
        elif "secret" in source:
            files |= await _keys("secrets", source["secret"].get("name"), source["secret"], lookup)
        elif "downwardAPI" in source:
            files |= _fields(source["downwardAPI"], pod)
    return files


def token_seconds(volume: Json) -> list[int]:
    """The asked-for lifetimes, in seconds, of the tokens in a volume."""
    sources = (volume.get("projected") or {}).get("sources") or []
    return [
        int(s["serviceAccountToken"].get("expirationSeconds") or 3600) for s in sources if s.get("serviceAccountToken")
    ]


def sources(volume: Json) -> set[tuple[str, str]]:
    """The ConfigMaps and Secrets a volume reads: ("configmaps" | "secrets", name)."""
    found = set()
    if "configMap" in volume:
        found.add(("configmaps", volume["configMap"].get("name", "")))
    if "secret" in volume:
        found.add(("secrets", volume["secret"].get("secretName", "")))
    for source in (volume.get("projected") or {}).get("sources") or []:
        if "configMap" in source:
            found.add(("configmaps", source["configMap"].get("name", "")))
        if "secret" in source:
            found.add(("secrets", source["secret"].get("name", "")))
    return found


def contents(item: Json) -> dict[str, bytes]:
    """All keys of a ConfigMap or Secret, decoded."""
    if item.get("kind") == "Secret" or "type" in item:
        return {key: base64.b64decode(value) for key, value in (item.get("data") or {}).items()}
    binary = {key: base64.b64decode(value) for key, value in (item.get("binaryData") or {}).items()}
    return binary | {key: value.encode() for key, value in (item.get("data") or {}).items()}


async def _keys(kind: str, name: str | None, source: Json, lookup: Lookup) -> dict[str, bytes]:
    item = await lookup(kind, name or "")
    if item is None:
        if source.get("optional"):
            return {}
        raise MissingSourceError(f"{kind} {name!r} not found")
    values = contents(item)
    if not source.get("items"):
        return values
    chosen = {}
    for entry in source["items"]:
        if entry["key"] in values:
            chosen[entry["path"]] = values[entry["key"]]
        elif not source.get("optional"):
            raise MissingSourceError(f"{kind} {name!r} has no key {entry['key']!r}")
    return chosen


def _fields(source: Json, pod: Json) -> dict[str, bytes]:
    return {
        item["path"]: field(pod, item["fieldRef"]["fieldPath"]).encode()
        for item in source.get("items") or []
        if "fieldRef" in item
    }


def write(directory: Path, files: dict[str, bytes]) -> bool:
    """Make `directory` hold exactly `files`, by one rename. Returns whether anything changed."""
    directory.mkdir(parents=True, exist_ok=True)
    link = directory / "..data"
    current = link.resolve() if link.is_symlink() else None
    if current is not None and _read(current) == files:
        return False
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    for name, value in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
        path.chmod(0o600)
    swap = directory / "..data_tmp"
    with contextlib.suppress(FileNotFoundError):
        swap.unlink()
    swap.symlink_to(fresh.name)
    os.replace(swap, link)  # noqa: PTH105 - replaces the link itself, atomically
    tops = {Path(name).parts[0] for name in files}
    for top in tops:
        entry = directory / top
        if not entry.is_symlink():
            entry.symlink_to(Path("..data") / top)
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.is_symlink() and entry.name not in tops:
            entry.unlink()
    if current is not None:
        shutil.rmtree(current, ignore_errors=True)
    return True


def _read(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def rewrite(text: str, mounts: dict[str, str]) -> str:
    """`text` with every mount path replaced by where it lies here; longer paths first, whole path parts only."""
    for path in sorted(mounts, key=len, reverse=True):
        if path in text:
            text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?=$|[/\s,;:'\"\]}}])", partial(_mounted, mounts[path]), text)
    return text


def _mounted(place: str, _: re.Match[str]) -> str:
    return place


_VARIABLE = re.compile(r"\$\$|\$\(([A-Za-z_.-][\w.-]*)\)")


def expand(text: str, environment: dict[str, str]) -> str:
    """`$(NAME)` replaced from `environment`; `$$` is one dollar; unknown names stay (Kubernetes: container args)."""

    def value(found: re.Match[str]) -> str:
        if found[1] is None:
            return "$"
        return environment.get(found[1], found[0])

    return _VARIABLE.sub(value, text)
