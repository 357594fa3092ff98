"""How the command line shows things to a person, or to a program with ``--json``.

Colours and movement on a terminal only (rich also honours NO_COLOR); results go to standard output, progress and
errors to standard error.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lifecycle.domain import DomainStatus
from lifecycle.findings import Finding
from lifecycle.issuers import NO_REHEARSAL
from lifecycle.quota import QuotaOverview
from lifecycle.requests import FieldError
from lifecycle.solvers import Explanation
from lifecycle.solvers import words as solver_words
from lifecycle.steps import ChangeKind, IssuerStatus, ObjectChange, PreflightReport
from starter.domains import DomainPage, DomainSummary, DomainView
from starter.settings import words
from starter.shown import plain


class Screen:
    """Where the command line writes."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    def result(self, value: object, *lines: object) -> None:
        """The result: `value` as JSON, or the lines (texts and tables) for a person."""
        if self.as_json:
            self.out.print(json.dumps(plain(value), indent=2, ensure_ascii=False), markup=False)
            return
        for line in lines:
            text = Text(line) if isinstance(line, str) else line
            if isinstance(text, Text) and self.out.is_terminal:
                self._wrapped(text)
            else:
                self.out.print(text)

    def _wrapped(self, text: Text) -> None:
        """By words, and what follows as far in as the first line: a terminal by itself breaks within words."""
        indent = len(text.plain) - len(text.plain.lstrip(" "))
        for part in text[indent:].wrap(self.out, max(self.out.width - indent, 20)):
            self.out.print(Text(" " * indent) + part)

    def error(self, title: str, fix: str = "", errors: Sequence[FieldError] = ()) -> None:
        """What went wrong, and what to do about it."""
        if self.as_json:
            self.result({"error": {"title": title, "fix": fix, "errors": errors}})
            return
        self.err.print(Text.assemble(("error: ", "bold red"), title))
        for one in errors:
            self.err.print(f"  {words(one)}", markup=False)
        if fix:
            self.err.print(f"  {fix}", markup=False)

    @contextlib.contextmanager
    def live(self) -> Iterator[Callable[[object, Sequence[object]], None]]:
        """What shows a result in the place of the one before; one after the other where it is no terminal."""
        if self.as_json or not self.out.is_terminal:
            yield lambda value, lines: self.result(value, *lines)
            return
        with Live(console=self.out, auto_refresh=False) as place:
            yield lambda _, lines: place.update(_stacked(lines), refresh=True)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """A line that tells the step under way; on a terminal it moves, elsewhere each step is one line."""
        if not self.err.is_terminal:
            yield Progress(self.err, None)
            return
        with self.err.status("") as status:
            yield Progress(self.err, status)


class Progress:
    """The step under way."""

    def __init__(self, console: Console, status: Any) -> None:
        self._console = console
        self._status = status
        self._last = ""

    def step(self, text: str) -> None:
        """Show the step, where it is another than before."""
        if text == self._last or not text:
            return
        self._last = text
        if self._status is not None:
            self._status.update(Text(text))
        else:
            self._console.print(text, markup=False)


_GOOD, _BAD, _BUSY = "green", "red", "yellow"
_COLOURS = {
    "active": _GOOD,
    "pointed": _GOOD,
    "valid": _GOOD,
    "served": _GOOD,
    "suspended": _BAD,
    "failed": _BAD,
    "expired": _BAD,
    "refused": _BAD,
    "stale": _BAD,
}


def coloured(word: str) -> Text:
    """A status word in its colour."""
    return Text(word or "-", style=_COLOURS.get(word, _BUSY if word else ""))


def instant(at: datetime | None) -> str:
    """An instant as a person reads it, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else "-"


def _stacked(lines: Sequence[Any]) -> Group:
    return Group(*(Text(one) if isinstance(one, str) else one for one in lines))


def view(seen: DomainView) -> list[object]:
    """A domain, or what the list knows of it."""
    if seen.status is not None:
        return domain(seen.status)
    return summary(seen.summary) if seen.summary else []


_MOST_EVIDENCE = 6
"""Lines: the last step's, and what came before it; all are in ``--json``."""


def domain(status: DomainStatus) -> list[object]:
    """A domain: its statuses, what is to be done, what was found, what is served, and what was seen last."""
    grid = Table.grid(padding=(0, 2))
    rows: list[tuple[str, Text | str]] = [
        ("domain", ", ".join(status.hostnames)),
        ("tenant", status.tenant),
        ("phase", coloured(status.phase.value)),
        ("routing", coloured(status.routing.value)),
        ("certificate", coloured(status.certificate.value)),
        ("serving", coloured(status.serving.value)),
        ("step", status.step),
    ]
    if status.secret is not None:
        rows += [("fingerprint", status.secret.fingerprint), ("valid until", instant(status.secret.not_after))]
    if status.quota is not None:
        place = f"place {status.quota.place}, " if status.quota.place else ""
        rows.append(("turn at the CA", f"{place}expected {instant(status.quota.expected_at)}"))
    if status.renewal_at is not None:
        rows.append(("renewal", instant(status.renewal_at)))
    if status.next_check_at is not None:
        rows.append(("next check", instant(status.next_check_at)))
    for name, value in rows:
        grid.add_row(Text(name, style="bold"), Text(value) if isinstance(value, str) else value)
    lines: list[object] = [grid]
    if status.action_required is not None:
        lines.append(Text(f"\n{status.action_required.summary}", style=_BUSY))
        lines += [f"  {one.name}  {one.type}  {one.value}" for one in status.action_required.records]
    lines += found(status.findings)
    if status.served:
        table = Table("address", "hostname", "fingerprint", "chain", "protocol", "problem", box=None)
        for one in status.served:
            chain = "verified" if one.chain_verified else "not verified"
            cells = (one.address, one.hostname, one.fingerprint[:16], chain, one.protocol, one.problem)
            table.add_row(*(Text(cell) for cell in cells))
        lines += ["", table]
    if status.evidence:
        told = status.evidence[-_MOST_EVIDENCE:]
        lines += ["", *(Text(f"{one.at:%H:%M:%S}  {one.step}: {one.detail}", style="dim") for one in told)]
    return lines


def quota(seen: QuotaOverview) -> list[object]:
    """An account's quota: what is under way, who waits in which lane, and who is next."""
    lanes = ", ".join(f"{number} {lane}" for lane, number in seen.lanes if number)
    waits = f"{seen.waiting} wait ({lanes})" if seen.waiting else "nobody waits"
    lines: list[object] = [Text.assemble((seen.account, "bold"), f": {seen.under_way} under way, {waits}")]
    if seen.paused_until is not None:
        lines.append(Text(f"  the CA refused; nothing is ordered before {instant(seen.paused_until)}", style=_BAD))
    if seen.next:
        table = Table("place", "lane", "expected", "request", box=None)
        for one in seen.next:
            table.add_row(str(one.place), one.lane.value, instant(one.expected_at), Text(one.request_id))
        lines.append(table)
    return lines


def issuer(status: IssuerStatus) -> list[object]:
    """An issuer: ready or not, its account, what it can prove and its last error in words."""
    ref = status.ref
    where = f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name
    account = f", account {status.account}" if status.account else ""
    word = Text("ready", style=_GOOD) if status.ready else Text("not ready", style=_BAD)
    lines: list[object] = [Text.assemble(f"{ref.kind.value} {where}: ", word, account)]
    if status.type:
        details = [status.type, status.server, f"profile {status.profile}" if status.profile else ""]
        details.append("proves wildcards" if status.wildcard else "proves no wildcards")
        lines.append(f"  {', '.join(one for one in details if one)}")
    if status.rehearsal:
        lines.append(f"  rehearsed at {status.rehearsal}" if status.rehearsal != NO_REHEARSAL else "  not rehearsed")
    for number, one in enumerate(json.loads(status.solvers or "[]")):
        selector = one.get("selector") or {}
        parts = [f"{name} {', '.join(selector[name])}" for name in ("dnsNames", "dnsZones") if selector.get(name)] + [
            f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()
        ]
        lines.append(f"  solver {number}: {solver_words(one)}" + (f" for {'; '.join(parts)}" if parts else ""))
    if status.detail:
        lines.append(f"  {status.detail}")
    return [*lines, *found(status.findings)]


def explanation(explained: Explanation, issuer: str) -> list[object]:
    """Which solver a name takes, and why not the others."""
    taken = f"takes solver {explained.number}, {explained.solver}" if explained.number >= 0 else "has no solver"
    lines: list[object] = [f"{explained.hostname}: {taken} ({issuer})"]
    for one in explained.considered:
        mark = Text("->", style=_GOOD) if one.chosen else Text("  ")
        lines.append(Text.assemble("  ", mark, f" solver {one.number}: {one.solver}: {one.reason}"))
    return lines


def preflight(hostname: str, report: PreflightReport) -> list[object]:
    """What stands against an order for a name, or that nothing does; and what was seen."""
    verdict = ("may be ordered", _GOOD) if report.may_proceed else ("may not be ordered yet", _BAD)
    lines: list[object] = [Text.assemble((hostname, "bold"), " ", verdict, f" (routing: {report.routing.value})")]
    lines += [Text(f"  {one.step}: {one.detail}", style="dim") for one in report.evidence]
    if report.action_required is not None:
        lines.append(Text(f"\n{report.action_required.summary}", style=_BUSY))
        lines += [f"  {one.name}  {one.type}  {one.value}" for one in report.action_required.records]
    return [*lines, *found(report.findings)]


def summary(one: DomainSummary) -> list[object]:
    """What the list knows of a domain where no worker answers."""
    return ["No worker answers; this is what was told last.", fleet(DomainPage(domains=(one,)))]


def fleet(page: DomainPage) -> Table:
    """A list of domains."""
    table = Table("domain", "tenant", "phase", "routing", "certificate", "serving", "valid until", "to do", box=None)
    for one in page.domains:
        table.add_row(
            Text(one.hostname),
            Text(one.tenant),
            *(coloured(word) for word in (one.phase, one.routing, one.certificate, one.serving)),
            instant(one.not_after),
            "customer" if one.action_required else "",
        )
    return table


_MARKS = {
    ChangeKind.CREATE: ("+", _GOOD),
    ChangeKind.CHANGE: ("~", _BUSY),
    ChangeKind.REMOVE: ("-", _BAD),
}


def changes(objects: Sequence[ObjectChange]) -> list[object]:
    """What becomes of each object, with the fields; those that stay as they are, as a number."""
    lines: list[object] = []
    for one in objects:
        if one.change in _MARKS:
            mark, style = _MARKS[one.change]
            place = f"{one.namespace}/{one.name}" if one.namespace else one.name
            lines.append(Text.assemble("  ", (f"{mark} {one.change.value}", style), f" {one.kind} {place}"))
            lines += [f"      {field}" for field in one.fields]
    same = sum(one.change is ChangeKind.UNCHANGED for one in objects)
    return [*lines, f"  unchanged: {same} {'object' if same == 1 else 'objects'}"] if same else lines


def found(findings: Sequence[Finding]) -> list[object]:
    """Findings, each with what to do."""
    lines: list[object] = []
    for one in findings:
        style = _BAD if one.severity.value == "error" else _BUSY
        lines.append(Text.assemble("\n", (f"{one.code} {one.title}", style), f" {one.subject}: {one.problem}"))
        lines.append(f"  {one.fix}")
    return lines
