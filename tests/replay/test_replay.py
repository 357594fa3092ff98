"""Histories of every workflow replay with today's code: no edit breaks what already runs."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from tests.replay.record import COMMANDS, HISTORIES, commands
from worker.sandbox import workflow_runner
from workflows.definitions import WORKFLOWS

FILES = sorted(HISTORIES.glob("*.json"))

KEY = re.compile(rb"PRIVATE KEY|BEGIN CERTIFICATE|tls\.key|AGE-SECRET-KEY|acme-challenge/[\w-]{20}|Bearer [\w-]{16}")


def read(file: Path) -> tuple[str, dict[str, Any]]:
    content = json.loads(file.read_text())
    return content.pop("workflowId"), content


def texts(value: Any) -> list[bytes]:
    """Every text of a history, and what each is where it is base64."""
    if isinstance(value, dict):
        return [text for part in value.values() for text in texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in texts(part)]
    if not isinstance(value, str):
        return []
    layers = [[value.encode()]]
    for _ in range(2):  # a payload is base64, and so may be a text in it
        words = [word for text in layers[-1] for word in re.findall(rb"[A-Za-z0-9+/]{24,}={0,2}", text)]
        layers.append([base64.b64decode(word + b"=" * (-len(word) % 4)) for word in words])
    return [text for layer in layers for text in layer]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_committed_history_replays(file: Path) -> None:
    workflow_id, history = read(file)
    replayer = Replayer(workflows=WORKFLOWS, workflow_runner=workflow_runner())
    result = await replayer.replay_workflow(
        WorkflowHistory.from_json(workflow_id, history), raise_on_replay_failure=False
    )
    assert result.replay_failure is None


def test_every_workflow_has_a_history() -> None:
    started = {
        read(file)[1]["events"][0]["workflowExecutionStartedEventAttributes"]["workflowType"]["name"] for file in FILES
    }
    assert {workflow.__name__ for workflow in WORKFLOWS} == started


def test_the_commands_of_each_history_are_the_committed_ones() -> None:
    """So that a history that was recorded anew shows in the diff what became different."""
    assert json.loads(COMMANDS.read_text()) == {file.stem: commands(read(file)[1]) for file in FILES}


def test_no_history_holds_key_material_or_a_machine() -> None:
    for file in FILES:
        for text in texts(read(file)[1]):
            assert KEY.search(text) is None, file.name
            assert re.search(rb"/(work|tmp|root|home)/|@vm", text) is None, file.name


def test_the_scan_looks_into_payloads() -> None:
    pem = "-----BEGIN EC PRIVATE KEY-----"
    inner = base64.b64encode(pem.encode()).decode()
    payload = base64.b64encode(json.dumps({"data": inner}).encode()).decode()
    for hidden in (pem, inner, payload):
        assert any(KEY.search(text) for text in texts({"events": [{"data": hidden}]})), hidden
