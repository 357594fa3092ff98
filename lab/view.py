"""How a long piece of work is shown: its steps, what each is doing, how long it took, and a table of evidence.

On a terminal one live table; elsewhere a line whenever a step begins, says something new or ends. Colours only on a
terminal (rich heeds NO_COLOR). Left out: what the steps do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


@dataclasses.dataclass(slots=True)
class Step:
    """One step; `seconds` is set when it has ended, `failed` where it did not end well."""

    name: str
    detail: str = ""
    began: float | None = None
    seconds: float | None = None
    failed: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One line of evidence: what was looked at, what was seen, and why that is not as it must be (empty: it is)."""

    what: str
    seen: str
    wrong: str = ""


class Steps:
    """The steps of one piece of work, shown while they run."""

    def __init__(self, console: Console, names: tuple[str, ...]) -> None:
        self._console = console
        self._began = time.monotonic()
        self._live: Live | None = None
        self._current: Step | None = None
        self.steps = {name: Step(name) for name in names}

    def __enter__(self) -> Steps:
        if self._console.is_terminal:
            self._live = Live(self, console=self._console, refresh_per_second=8, transient=False)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Run one of the steps. What is raised inside marks it as failed and goes on."""
        step = self.steps.setdefault(name, Step(name))
        step.began = time.monotonic()
        self._current = step
        self._line(f"… {name}")
        try:
            yield step
        except BaseException as error:
            step.failed = True
            step.detail = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise
        finally:
            step.seconds = time.monotonic() - step.began
            self._line(f"{'✗' if step.failed else '✓'} {name} ({step.seconds:.1f} s) {step.detail}")

    def say(self, detail: str) -> None:
        """What the present step is doing."""
        step = self._current
        detail = re.sub(r"^\s*\d+\.\d s\s+", "", detail)  # the lab tells its own time, which the step has already
        if step is not None and detail and detail != step.detail:
            step.detail = detail
            self._line(f"    {detail}")

    def _line(self, text: str) -> None:
        if self._live is None:
            self._console.print(f"{time.monotonic() - self._began:6.1f} s  {text}", highlight=False, markup=False)

    def __rich__(self) -> Table:
        """The steps as they are now; called at each refresh."""
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(no_wrap=True, min_width=max(map(len, self.steps), default=1))
        table.add_column(justify="right", no_wrap=True, min_width=7)
        table.add_column(style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
        for step in self.steps.values():
            if step.began is None:
                table.add_row(Text("·", style="dim"), Text(step.name, style="dim"), "", "")
            elif step.seconds is None:
                running = f"{time.monotonic() - step.began:.1f} s"
                table.add_row(Spinner("dots", style="cyan"), step.name, running, Text(step.detail))
            else:
                mark = Text("✗", style="bold red") if step.failed else Text("✓", style="green")
                table.add_row(mark, step.name, f"{step.seconds:.1f} s", Text(step.detail))
        return table


def picture(console: Console, title: str) -> str:
    """What a recording console was shown, as an SVG: one that fetches a font shows nothing where it may not."""
    return re.sub(r"@font-face \{.*?\}\n", "", console.export_svg(title=title), flags=re.DOTALL)


def evidence_table(facts: list[Fact]) -> Table:
    """The evidence, each line marked as true or not."""
    table = Table(title="Evidence", title_justify="left", show_header=False, expand=False)
    table.add_column(width=1)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for fact in facts:
        mark = Text("✗", style="bold red") if fact.wrong else Text("✓", style="green")
        seen = Text(fact.seen)
        if fact.wrong:
            seen.append(f"\n{fact.wrong}", style="red")
        table.add_row(mark, Text(fact.what), seen)
    return table
