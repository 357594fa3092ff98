"""How events are logged: fields beside a constant event name, one JSON object a line, and no secret among them.

structlog's `ProcessorFormatter` renders the events of structlog and of the standard library (Temporal's SDK, uvicorn)
alike. What is logged, and when, is everybody's own.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SUSPICIOUS = re.compile(
    r"(^|[_.-])(token|password|passphrase|passwd|secret|authorization|cookie|credential|credentials|kubeconfig|pem"
    r"|private|key|api_?key|identity_?key)s?([_.-]|$)",
    re.IGNORECASE,
)
"""Names of fields whose values are not written, whatever they are."""

_HARMLESS = frozenset({"secret_name", "credential_name", "key_algorithm", "key_size", "idempotency_key", "page_token"})

_SECRET_VALUE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)"
    r"|AGE-SECRET-KEY-1[A-Z0-9]+"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # a JSON Web Token, such as a ServiceAccount's
    r"|\b[Bb]earer\s+[\w.~+/=-]{8,}"
    r"|\bcw_[\w-]{20,}",  # a portal's token
    re.DOTALL,
)

REDACTED = "[redacted]"

_FLATTENED = ("workflow_id", "run_id", "workflow_type", "activity_type", "activity_id", "attempt", "task_queue")


def configure(level: str, form: str) -> None:
    """Log to standard error from now on.

    Args:
        level: debug, info, warning or error; other people's libraries log warnings at least.
        form: ``json``, or ``console`` for people.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        flattened,
    ]
    last: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if form == "json":
        last += [structlog.processors.format_exc_info, redacted, structlog.processors.JSONRenderer(default=str)]
    else:
        last += [redacted, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, _number(level)))
    for ours in ("certwright", "temporalio.activity", "temporalio.workflow"):
        logging.getLogger(ours).setLevel(_number(level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def flattened(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What Temporal's SDK adds to a record in a map of its own, as fields beside the others."""
    for place in ("temporal_workflow", "temporal_activity"):
        details = event.pop(place, None)
        if isinstance(details, dict):
            for name in _FLATTENED:
                if details.get(name) not in (None, ""):
                    event.setdefault(name, details[name])
    return event


def redacted(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The event without values of suspicious names, and without what looks like a secret in any text."""
    for name in list(event):
        event[name] = _clean(name, event[name])
    return event


def _clean(name: str, value: Any) -> Any:
    if name not in _HARMLESS and _SUSPICIOUS.search(name) and value not in (None, "", True, False):
        return REDACTED
    if isinstance(value, str):
        return _SECRET_VALUE.sub(REDACTED, value)
    if isinstance(value, dict):
        return {key: _clean(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean("", item) for item in value]
    if isinstance(value, bytes):
        return f"[{len(value)} octets]"
    return value
