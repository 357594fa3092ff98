"""Read the operator's file of the CAs' limits, for a worker and for whoever looks as one does.

Left out: what the file may say (`lifecycle.rate_limits.parse_limits`).
"""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from lifecycle.rate_limits import LimitsTable, parse_limits
from lifecycle.settings import Variables

_NAME = "LIMITS_FILE"


def limits_file(variables: Variables) -> LimitsTable:
    """The limits in the file that `LIMITS_FILE` names; empty where it names none, or where everything is refused."""
    path = variables.text(_NAME)
    if not path:
        return LimitsTable()
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))  # JSON is YAML
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "it cannot be read"
        variables.refuse(_NAME, path, f"is a file that cannot be read: {reason}", "correct the path or its permissions")
        return LimitsTable()
    except (UnicodeDecodeError, yaml.YAMLError):
        variables.refuse(_NAME, path, "is neither JSON nor YAML", "write it as docs/quota.md shows")
        return LimitsTable()
    parsed = parse_limits(document)
    if isinstance(parsed, LimitsTable):
        return parsed
    for one in parsed:
        variables.refuse(_NAME, one.value, f"{one.field or 'the whole'} {one.problem}", one.fix)
    return LimitsTable()
