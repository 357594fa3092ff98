"""What would an object's fields be after a write that are other now? The paths, never the values.

Values stay out because this goes into histories, and a ConfigMap or a Helm value may hold what nobody should read
there. Left out: asking the API server what the object would be (`activities.difference`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lifecycle.steps import ChangeKind, ObjectChange

FIELDS_TOLD = 20
"""Paths told of one object; a new version of a CustomResourceDefinition would name thousands."""

_KEPT = "helm.sh/resource-policy"
"""Helm documentation, "Tell Helm Not To Uninstall a Resource"."""

_BY_SERVER = {"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"}
"""Metadata that the API server writes (API conventions: "Metadata")."""


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths as ``spec.template.spec.containers[webhook].args[2]`` of what differs, status and bookkeeping left out."""
    return tuple(dict.fromkeys(_paths(_comparable(before), _comparable(after), "")))


def told(fields: Sequence[str]) -> tuple[str, ...]:
    """The fields for a person and for a history: at most `FIELDS_TOLD`, then how many more."""
    unique = tuple(dict.fromkeys(fields))
    more = len(unique) - FIELDS_TOLD
    return unique if more <= 0 else (*unique[:FIELDS_TOLD], f"and {more} more")


def change_of(wanted: Mapping[str, Any], live: Mapping[str, Any] | None, fields: Sequence[str] = ()) -> ObjectChange:
    """What becomes of one object that is to be as `wanted`."""
    if live is None:
        return _change(wanted, ChangeKind.CREATE)
    return _change(wanted, ChangeKind.CHANGE if fields else ChangeKind.UNCHANGED, told(fields))


def removal_of(present: Mapping[str, Any]) -> ObjectChange:
    """The removal of one object."""
    return _change(present, ChangeKind.REMOVE)


def dropped(before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]) -> tuple[ObjectChange, ...]:
    """The objects of a release that its next form has not; those that Helm is told to keep stay."""
    stay = {_identity(item) for item in after}
    return tuple(
        removal_of(item)
        for item in before
        if _identity(item) not in stay and (item["metadata"].get("annotations") or {}).get(_KEPT) != "keep"
    )


def form_in(release: Iterable[Mapping[str, Any]], wanted: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The object of a release that has the kind, namespace and name of `wanted`."""
    return next((item for item in release if _identity(item) == _identity(wanted)), None)


def _identity(item: Mapping[str, Any]) -> tuple[str, str, str, str]:
    group = str(item["apiVersion"]).rpartition("/")[0]
    return group, str(item["kind"]), str(item["metadata"].get("namespace", "")), str(item["metadata"]["name"])


def _change(item: Mapping[str, Any], change: ChangeKind, fields: tuple[str, ...] = ()) -> ObjectChange:
    return ObjectChange(
        kind=str(item["kind"]),
        namespace=str(item["metadata"].get("namespace", "")),
        name=str(item["metadata"]["name"]),
        change=change,
        fields=fields,
    )


def _comparable(item: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in item.get("metadata", {}).items() if key not in _BY_SERVER}
    return {**{key: value for key, value in item.items() if key != "status"}, "metadata": metadata}


def _paths(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in (*before, *(key for key in after if key not in before)):
            word = key if _plain(key) else f'["{key}"]'
            below = f"{path}.{word}" if path and _plain(key) else f"{path}{word}"
            yield from _paths(before.get(key), after.get(key), below)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _in_list(before, after, path)
    elif before != after:
        yield path


def _in_list(before: list[Any], after: list[Any], path: str) -> Iterator[str]:
    """Lists of objects with names are compared by name, as Kubernetes merges them; others by position."""
    if all(isinstance(item, Mapping) and "name" in item for item in (*before, *after)):
        mine = {item["name"]: item for item in before}
        theirs = {item["name"]: item for item in after}
        for name in (*mine, *(name for name in theirs if name not in mine)):
            yield from _paths(mine.get(name), theirs.get(name), f"{path}[{name}]")
        return
    both = min(len(before), len(after))
    for number in range(both):
        yield from _paths(before[number], after[number], f"{path}[{number}]")
    for number in range(both, max(len(before), len(after))):  # also where it is empty: an empty rule allows everything
        yield f"{path}[{number}]"


def _plain(key: str) -> bool:
    return "." not in key and "/" not in key
