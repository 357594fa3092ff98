"""The catalogue of findings: codes are unique, grouped, and documented."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from lifecycle import findings
from lifecycle.findings import Severity

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "findings.md"


def test_codes_and_titles_are_unique() -> None:
    kinds = findings.catalogue()
    assert len(kinds) == len({kind.code for kind in kinds}) == len({kind.title for kind in kinds})
    assert all(re.fullmatch(r"CW1[0-9]\d\d", kind.code) for kind in kinds)


def test_every_kind_has_its_heading_in_the_documentation() -> None:
    headings = re.findall(r"^### (CW\d{4}) (\w+)$", DOCUMENT.read_text(), re.MULTILINE)
    assert [(kind.code, kind.title) for kind in findings.catalogue()] == headings


def test_every_kind_is_asked_for_by_name_in_a_test() -> None:
    """By a reproduction or a table: a kind that a test only makes, to hand it to what is tested, does not count."""
    words = {word: kind.code for kind in findings.catalogue() for word in (kind.code, kind.title)}
    words |= {name: kind.code for name, kind in vars(findings).items() if isinstance(kind, findings.FindingKind)}
    asked: set[str] = set()
    for file in TESTS.rglob("test_*.py"):
        if file != Path(__file__):
            asked |= named(ast.parse(file.read_text()))
    assert [kind.code for kind in findings.catalogue()] == sorted({words[word] for word in asked if word in words})


def named(tree: ast.AST) -> set[str]:
    """Every name and word of a file, without the kinds of findings that it makes itself."""
    made = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Attribute) and one.attr == "found"}
    found: set[str] = set()
    for one in ast.walk(tree):
        if isinstance(one, ast.Attribute) and id(one) not in made:
            found.add(one.attr)
        elif isinstance(one, ast.Constant) and isinstance(one.value, str):
            found |= set(re.findall(r"\w+", one.value))
    return found


def test_only_errors_stop_a_step() -> None:
    found = tuple(
        kind.found(subject="shop.example.com", problem="It does not resolve.", fix="Set the record.")
        for kind in (findings.NAME_DOES_NOT_RESOLVE, findings.NAME_NOT_LOOKED_UP)
    )
    assert tuple(finding.code for finding in findings.errors(found)) == ("CW1101",)
    assert Severity.WARNING is found[1].severity
