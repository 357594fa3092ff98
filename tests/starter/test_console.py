"""What a person sees of a result: whole names and whole words, whatever the width of the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lifecycle.chain import Link, LinkState
from lifecycle.diagnosing import Diagnosis
from starter import diagnosis
from starter.console import Screen

CERTIFICATE = "istio-system/shop-example-com-951623a26f"
SAID = "Certificate is up to date and has not expired"
FIX = f"  kubectl describe certificate -n istio-system {CERTIFICATE}; set the record that is missing, and ask again."


def shown(*lines: object, width: int, terminal: bool = True) -> str:
    """The lines as they come out."""
    screen, out = Screen(as_json=False), io.StringIO()
    screen.out = Console(
        file=out, width=width, force_terminal=terminal, color_system=None, highlight=False, soft_wrap=True
    )
    screen.result(None, *lines)
    return out.getvalue()


def test_a_terminal_breaks_lines_between_words_and_keeps_them_indented() -> None:
    lines = shown(FIX, width=50).splitlines()
    assert len(lines) > 1
    assert all(line.startswith("  ") and len(line) <= 50 for line in lines)
    assert FIX.split() == " ".join(lines).split()


def test_what_is_piped_is_not_broken() -> None:
    assert shown(FIX, width=50, terminal=False) == f"{FIX}\n"


@pytest.mark.parametrize("width", [80, 120])
def test_no_objects_name_is_cut(width: int) -> None:
    link = Link(subject=f"Certificate {CERTIFICATE}", state=LinkState.GOOD, words=SAID)
    seen = Diagnosis(certificate=CERTIFICATE, hostnames=("shop.example.com",), healthy=True, summary="", chain=(link,))
    out = shown(*diagnosis.shown(diagnosis.Treatment(diagnosis=seen)), width=width)
    assert out.count(f"Certificate {CERTIFICATE}") == 2, "the heading, and the chain"
    assert SAID in out
    assert "…" not in out
