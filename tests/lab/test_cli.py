"""The lab's command line: what it refuses to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import cli


@pytest.mark.parametrize("command", ["up", "serve"])
def test_a_directory_that_is_not_a_labs_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("kept")
    assert cli.main([command, "--dir", str(tmp_path)]) == 2
    assert precious.read_text() == "kept"
    assert "not a lab's" in capsys.readouterr().err


def test_an_earlier_labs_directory_may_be_replaced(tmp_path: Path) -> None:
    assert cli.may_be_replaced(tmp_path / "new")
    assert cli.may_be_replaced(tmp_path)
    (tmp_path / "lab.log").touch()
    assert cli.may_be_replaced(tmp_path)
    assert not cli.may_be_replaced(tmp_path / "lab.log")


@pytest.mark.parametrize("words", [["--dir", "{}", "status"], ["status", "--dir", "{}"]])
def test_the_directory_may_be_given_before_or_after_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert cli.main([word.format(tmp_path) for word in words]) == 1
    assert f"no lab runs in {tmp_path}" in capsys.readouterr().err


def test_without_dir_the_environment_says_which_lab_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cli.VARIABLE, str(tmp_path / "mine"))
    assert cli.main(["status"]) == 1
    assert f"no lab runs in {tmp_path / 'mine'}" in capsys.readouterr().err
    assert cli.main(["--dir", str(tmp_path / "other"), "status"]) == 1
    assert f"no lab runs in {tmp_path / 'other'}" in capsys.readouterr().err
