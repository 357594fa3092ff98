"""How workflows are isolated: Temporal's sandbox stays on, our own pure packages pass through it.

Whole packages pass, not single imports: the converter looks type hints up in the modules that declare them, and finds
only those that were passed (temporalio: "Python SDK sandbox", passthrough modules). Of `workflows` the tables pass, by
name; the definitions do not, so that a forbidden call in one is caught: each workflow in a worker's cache has a copy of
its definition's module. The compiled code, which nobody can change, is held once for all copies; that, and
`workflows.definitions` being apart, is what keeps a waiting domain small (`benchmarks/waiting.py`).
"""

from __future__ import annotations

import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from types import CodeType

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

import workflows

PASSED = ("lifecycle", "activities", "workflows.timeouts", "workflows.hands")
"""Types, decisions and tables: none of them keeps anything from one workflow for another."""


class _SharedCode(SourceFileLoader):
    """Gives the same code to each import of a module; Python's own loader reads it anew: 90 KiB for a domain."""

    _known: dict[str, CodeType | None] = {}  # noqa: RUF012 - shared by intent

    def get_code(self, fullname: str) -> CodeType | None:
        if fullname not in self._known:
            self._known[fullname] = super().get_code(fullname)
        return self._known[fullname]


def workflow_runner() -> SandboxedWorkflowRunner:
    """The runner that every worker of ours uses."""
    for directory in workflows.__path__:
        if type(sys.path_importer_cache.get(directory)) is FileFinder:
            sys.path_importer_cache[directory] = FileFinder(directory, (_SharedCode, SOURCE_SUFFIXES))
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSED))
