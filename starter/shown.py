"""Values as JSON: the same for the portal's answers and the command line's ``--json``, with a schema for each type."""

from __future__ import annotations

import dataclasses
import types
import typing
from datetime import UTC, datetime
from enum import Enum
from typing import Any


def plain(value: Any) -> Any:
    """Maps, lists, texts and numbers: instants as RFC 3339 in UTC, fields by their own names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def schemas(*roots: type) -> dict[str, Any]:
    """JSON Schemas of dataclasses and all that is in them, by the classes' names (OpenAPI's components)."""
    found: dict[str, Any] = {}
    for root in roots:
        _schema(root, found)
    return found


def _schema(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        alternatives = [_schema(part, found) for part in parts if part is not type(None)]
        optional = [{"type": "null"}] if type(None) in parts else []
        return {"anyOf": [*alternatives, *optional]}
    if origin is tuple:
        if len(parts) == 2 and parts[1] is Ellipsis:
            return {"type": "array", "items": _schema(parts[0], found)}
        return {
            "type": "array",
            "prefixItems": [_schema(part, found) for part in parts],
            "minItems": len(parts),
            "maxItems": len(parts),
        }
    if dataclasses.is_dataclass(kind):
        name = kind.__name__  # type: ignore[union-attr]
        if name not in found:
            found[name] = {}  # keeps a type that contains itself from going round
            hints = typing.get_type_hints(kind)
            fields = [field.name for field in dataclasses.fields(kind)]
            found[name] = {
                "type": "object",
                "description": (kind.__doc__ or "").strip().partition("\n")[0],
                "properties": {field: _schema(hints[field], found) for field in fields},
                "required": fields,
            }
        return {"$ref": f"#/components/schemas/{name}"}
    if isinstance(kind, type) and issubclass(kind, Enum):
        # not an enumeration: a client must bear values that a later release adds
        return {"type": "string", "examples": [member.value for member in kind]}
    simple: dict[Any, dict[str, Any]] = {
        str: {"type": "string"},
        int: {"type": "integer"},
        float: {"type": "number"},
        bool: {"type": "boolean"},
        datetime: {"type": "string", "format": "date-time"},
    }
    return dict(simple[kind])
