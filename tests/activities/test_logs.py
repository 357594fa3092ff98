"""Events are fields beside a name; what looks like a secret is not written."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from activities.logs import REDACTED, redacted

PROGRAM = """
import logging, structlog
from activities import logs
logs.configure("info", "json")
log = structlog.stdlib.get_logger("certwright.test")
log.info("domain active", domain="shop.example.com", token="abc", fingerprint="ff", nested={"password": "x", "n": 1})
of_temporal = {"temporal_activity": {"workflow_id": "w", "attempt": 2}}
logging.getLogger("temporalio.activity").warning("from %s", "there", extra=of_temporal)
logging.getLogger("somebody.else").info("chatter")
try:
    raise ValueError("-----BEGIN EC PRIVATE KEY-----\\nMHc\\n-----END EC PRIVATE KEY-----")
except ValueError:
    log.exception("step failed")
"""


def test_events_are_json_lines_of_fields() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == ""
    active, foreign, failed = (json.loads(line) for line in done.stderr.splitlines())
    assert (active["event"], active["domain"], active["level"]) == ("domain active", "shop.example.com", "info")
    assert active["logger"] == "certwright.test"
    assert active["timestamp"].endswith("Z")
    assert (active["token"], active["nested"], active["fingerprint"]) == (
        REDACTED,
        {"password": REDACTED, "n": 1},
        "ff",
    )
    assert (foreign["event"], foreign["workflow_id"], foreign["attempt"]) == ("from there", "w", 2)
    assert "temporal_activity" not in foreign
    assert "ValueError" in failed["exception"]
    assert "MHc" not in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "key AGE-SECRET-KEY-1QQQQQQ",
        "Authorization: Bearer abcdefghijkl",
        "cw_abcdefghijklmnopqrstuvwxyz",
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVz.c2ln",
        "-----BEGIN PRIVATE KEY-----\nabc",
    ],
)
def test_what_looks_like_a_secret_is_cut_out_of_any_text(text: str) -> None:
    event = redacted(None, "info", {"event": text, "list": [text]})
    assert REDACTED in event["event"]
    assert REDACTED in event["list"][0]
    assert not any(part in str(event) for part in ("QQQQQQ", "abcdefghijkl", "eyJ", "BEGIN"))


@pytest.mark.parametrize("name", ["secret_name", "key_algorithm", "fingerprint", "tenant", "monkey"])
def test_harmless_names_stay(name: str) -> None:
    assert redacted(None, "info", {name: "value"}) == {name: "value"}
