"""Everything on the wire keeps its form: what a workflow has written, every later release can read."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from datetime import UTC, datetime
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from temporalio.converter import DataConverter

from lifecycle import domain, findings, steps

GOLDEN = Path(__file__).parent / "golden" / "wire.json"
CONVERTER = DataConverter.default.payload_converter
INSTANT = datetime(2027, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)

WIRE: tuple[type, ...] = tuple(
    sorted(
        {
            value
            for module in (domain, steps, findings)
            for value in vars(module).values()
            if isinstance(value, type) and dataclasses.is_dataclass(value) and value is not findings.FindingKind
        },
        key=lambda one: one.__name__,
    )
)


def leaves(hint: Any) -> list[Any]:
    """The types that a field's annotation is made of."""
    if get_origin(hint) in (typing.Union, types.UnionType, tuple):
        return [leaf for part in get_args(hint) if part is not Ellipsis for leaf in leaves(part)]
    return [hint]


def example(hint: Any, *, full: bool = True) -> Any:
    """A value of the annotation; `full` False leaves out what may be left out."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return example(next(part for part in parts if part is not type(None))) if full else None
    if origin is tuple:
        if parts[-1] is Ellipsis:
            return (example(parts[0]),) * 2 if full else ()
        return tuple(example(part) for part in parts)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return made(hint, full=full)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return list(hint)[-1]
    return {str: "text äß", int: 7, float: 1.5, bool: True, datetime: INSTANT}[hint]


def made(kind: type, *, full: bool = True) -> Any:
    """An instance with every field filled, or with the fewest."""
    hints = get_type_hints(kind)
    needed = [
        field
        for field in dataclasses.fields(kind)
        if full or (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)
    ]
    return kind(**{field.name: example(hints[field.name], full=full) for field in needed})


def decoded(data: bytes, kind: type) -> Any:
    payload = CONVERTER.to_payloads([None])[0]
    payload.metadata["encoding"] = b"json/plain"
    payload.data = data
    return CONVERTER.from_payloads([payload], [kind])[0]


@pytest.mark.parametrize("kind", WIRE, ids=lambda kind: kind.__name__)
def test_a_wire_type_is_frozen_slotted_and_keyword_only(kind: Any) -> None:
    parameters = kind.__dataclass_params__
    assert parameters.frozen
    assert "__slots__" in vars(kind)
    assert all(field.kw_only for field in dataclasses.fields(kind))


@pytest.mark.parametrize("kind", WIRE, ids=lambda kind: kind.__name__)
def test_a_wire_type_has_only_fields_that_survive_the_wire(kind: Any) -> None:
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) in (typing.Union, types.UnionType):
            others = [part for part in get_args(hint) if part is not type(None)]
            assert len(others) == 1, f"{name}: a union decodes as the first that fits"
        for leaf in leaves(hint):
            if leaf is type(None):
                continue
            plain = leaf in (str, int, float, bool, datetime)
            nested = leaf in WIRE or (issubclass(leaf, Enum) and issubclass(leaf, StrEnum))
            assert plain or nested, f"{name}: {leaf}"


@pytest.mark.parametrize("full", [True, False], ids=["full", "empty"])
@pytest.mark.parametrize("kind", WIRE, ids=lambda kind: kind.__name__)
def test_a_wire_type_comes_back_as_it_was(kind: Any, full: bool) -> None:
    value = made(kind, full=full)
    (payload,) = CONVERTER.to_payloads([value])
    assert payload.metadata["encoding"] == b"json/plain"
    (back,) = CONVERTER.from_payloads([payload], [kind])
    assert value == back
    assert kind is type(back)


def missing(written: Any, now: Any) -> list[str]:
    """What an older release wrote and this one does not keep."""
    if isinstance(written, dict) and isinstance(now, dict):
        return [f"{key}: {part}" for key in written for part in missing(written[key], now.get(key))]
    if isinstance(written, list) and isinstance(now, list) and len(written) == len(now):
        return [part for before, after in zip(written, now, strict=True) for part in missing(before, after)]
    return [] if written == now else [f"{written!r} became {now!r}"]


def test_payloads_of_the_last_release_are_read() -> None:
    """Written by ``python -m tests.lifecycle.test_wire``; a change in the diff is a change of what is on the wire."""
    golden = json.loads(GOLDEN.read_text())
    kinds = {kind.__name__: kind for kind in WIRE}
    assert golden.keys() == kinds.keys()
    for name, written in golden.items():
        back = decoded(json.dumps(written).encode(), kinds[name])
        (again,) = CONVERTER.to_payloads([back])
        assert missing(written, json.loads(again.data)) == [], name
        assert back == decoded(json.dumps(written | {"of_a_later_release": 1}).encode(), kinds[name])


def main() -> None:
    """Write the golden payloads, every field filled."""
    payloads = {kind.__name__: json.loads(CONVERTER.to_payloads([made(kind)])[0].data) for kind in WIRE}
    GOLDEN.write_text(json.dumps(payloads, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
