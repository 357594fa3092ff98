"""The catalogue of findings: codes are unique, grouped, and documented."""

from __future__ import annotations

import re
from pathlib import Path

from lifecycle import findings
from lifecycle.findings import Severity

DOCUMENT = Path(__file__).parents[2] / "docs" / "findings.md"


def test_codes_and_titles_are_unique() -> None:
    kinds = findings.catalogue()
    assert len(kinds) == len({kind.code for kind in kinds}) == len({kind.title for kind in kinds})
    assert all(re.fullmatch(r"CW1[0-9]\d\d", kind.code) for kind in kinds)


def test_every_kind_has_its_heading_in_the_documentation() -> None:
    headings = re.findall(r"^### (CW\d{4}) (\w+)$", DOCUMENT.read_text(), re.MULTILINE)
    assert [(kind.code, kind.title) for kind in findings.catalogue()] == headings


def test_only_errors_stop_a_step() -> None:
    found = tuple(
        kind.found(subject="shop.example.com", problem="It does not resolve.", fix="Set the record.")
        for kind in (findings.NAME_DOES_NOT_RESOLVE, findings.NAME_NOT_LOOKED_UP)
    )
    assert tuple(finding.code for finding in findings.errors(found)) == ("CW1101",)
    assert Severity.WARNING is found[1].severity
