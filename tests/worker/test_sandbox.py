"""Each workflow has its definition to itself and nothing else of ours, and what is forbidden there is caught."""

from __future__ import annotations

import sys
from types import CodeType, ModuleType
from typing import Any

import pytest
from temporalio import workflow
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError, SandboxedWorkflowRunner

from worker.sandbox import PASSED, workflow_runner
from workflows.definitions import WORKFLOWS


class Kept(SandboxedWorkflowRunner):
    """The workers' runner, which keeps what it makes."""

    made: list[Any] = []  # noqa: RUF012 - the base is frozen

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        instance = super().create_instance(det)
        self.made.append(instance)
        return instance


async def sandboxed(definition: type) -> Any:
    """An instance as a worker makes it."""
    Kept(restrictions=workflow_runner().restrictions).prepare_workflow(workflow._Definition.must_from_class(definition))
    return Kept.made.pop()


def own(instance: Any) -> dict[str, ModuleType]:
    """Our modules that are the instance's alone."""
    ours = ("activities", "lifecycle", "starter", "tests", "worker", "workflows")
    return {
        name: module
        for name, module in instance.importer.new_modules.items()
        if name.partition(".")[0] in ours and module is not sys.modules.get(name)
    }


def codes(module: ModuleType, definition: type) -> dict[str, CodeType]:
    cls = vars(module)[definition.__name__]
    return {
        name: value.__code__
        for name, value in vars(cls).items()
        if isinstance(getattr(value, "__code__", None), CodeType)
    }


@pytest.mark.parametrize("definition", WORKFLOWS)
async def test_a_workflow_has_its_own_definition_and_no_other_and_shares_its_code(definition: type) -> None:
    first, second = await sandboxed(definition), await sandboxed(definition)
    assert set(own(first)) == {"workflows", definition.__module__}
    one, other = (own(each)[definition.__module__] for each in (first, second))
    assert one is not other
    mine, others = codes(one, definition), codes(other, definition)
    assert "run" in mine
    assert all(code is others[name] for name, code in mine.items())


async def test_a_clock_in_a_definition_is_refused_and_what_passes_is_the_hosts() -> None:
    (definition,) = (one for one in WORKFLOWS if one.__name__ == "DomainOnboarding")
    instance = await sandboxed(definition)
    module: Any = own(instance)[definition.__module__]
    instance.importer.restriction_context.is_runtime = True
    with pytest.raises(RestrictedWorkflowAccessError, match=r"datetime\.now"):
        module.datetime.now()
    for name, passed in instance.importer.new_modules.items():
        if any(name == one or name.startswith(f"{one}.") for one in PASSED):
            assert passed is sys.modules[name]
