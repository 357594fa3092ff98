"""A difference names what becomes of each object, by the paths of its fields and never by their values."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.difference import FIELDS_TOLD, change_of, changed_fields, dropped, form_in, told
from lifecycle.steps import ChangeKind


def item(name: str = "one", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "x"}, **fields}


@pytest.mark.parametrize(
    ("before", "after", "fields"),
    [
        ({"spec": {"replicas": 1}}, {"spec": {"replicas": 2}}, ("spec.replicas",)),
        ({"spec": {}}, {"spec": {"replicas": 2}}, ("spec.replicas",)),
        ({"spec": {"replicas": 2}}, {"spec": {}}, ("spec.replicas",)),
        ({"data": {"tls.key": "a"}}, {"data": {"tls.key": "b"}}, ('data["tls.key"]',)),
        ({"spec": {"args": ["a", "b"]}}, {"spec": {"args": ["a", "c", "d"]}}, ("spec.args[1]", "spec.args[2]")),
        (
            {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}},
            {"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}]}},
            ("spec.containers[b].image",),
        ),
        ({"spec": {"egress": []}}, {"spec": {"egress": [{}]}}, ("spec.egress[0]",)),
        ({"status": {"ready": 1}}, {"status": {"ready": 2}}, ()),
        ({"metadata": {"resourceVersion": "1", "generation": 1}}, {"metadata": {"resourceVersion": "2"}}, ()),
        ({"metadata": {"labels": {"a/b": "1"}}}, {"metadata": {"labels": {"a/b": "2"}}}, ('metadata.labels["a/b"]',)),
    ],
)
def test_fields_are_named_by_their_paths(before: Any, after: Any, fields: tuple[str, ...]) -> None:
    assert fields == changed_fields(before, after)


def test_values_are_never_told() -> None:
    assert "hunter2" not in repr(change_of(item(), item(data={"a": "b"}), changed_fields({"a": "hunter2"}, {"a": "b"})))


def test_an_object_is_made_changed_or_left() -> None:
    assert change_of(item(), None).change is ChangeKind.CREATE
    assert change_of(item(), item(), ()).change is ChangeKind.UNCHANGED
    changed = change_of(item(), item(), ("data.a", "data.a"))
    assert (changed.change, changed.fields) == (ChangeKind.CHANGE, ("data.a",))


def test_many_fields_are_cut_and_counted() -> None:
    assert told([f"spec.field{number}" for number in range(FIELDS_TOLD + 7)])[-1] == "and 7 more"


def test_what_a_release_has_no_more_goes_unless_it_is_kept() -> None:
    keep = item("kept")
    keep["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    (gone,) = dropped([item("one"), item("two"), keep], [item("one")])
    assert (gone.name, gone.change) == ("two", ChangeKind.REMOVE)


def test_an_object_is_found_in_a_release_also_in_another_version_of_its_group() -> None:
    old = {**item(), "apiVersion": "policy/v1beta1"}
    assert form_in([item("two"), old], {**item(), "apiVersion": "policy/v1"}) is old
    assert form_in([old], item()) is None
