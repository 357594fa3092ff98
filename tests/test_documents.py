"""What the documents say is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from lifecycle.settings import KNOWN

ROOT = Path(__file__).parent.parent


def test_operations_lists_every_setting_as_the_code_describes_it() -> None:
    rows = re.findall(r"^\| `CERTWRIGHT_(\w+)` \| (.*) \|$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert list(KNOWN.items()) == rows


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
