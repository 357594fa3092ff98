"""How workflows are isolated: Temporal's sandbox stays on, our own pure packages pass through it.

Whole packages pass, not single imports: the converter looks type hints up in the modules that declare them, and finds
only those that were passed (temporalio: "Python SDK sandbox", passthrough modules).
"""

from __future__ import annotations

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions


def workflow_runner() -> SandboxedWorkflowRunner:
    """The runner that every worker of ours uses."""
    passed = SandboxRestrictions.default.with_passthrough_modules("lifecycle", "activities")
    return SandboxedWorkflowRunner(restrictions=passed)
