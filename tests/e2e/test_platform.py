"""What a platform has beside cert-manager, asked for on the command line and brought by the installer's worker."""

from __future__ import annotations

from typing import Any

import pytest

from lab.stage import Stage

pytestmark = pytest.mark.lab

POLICIES = {f"NetworkPolicy certwright-cert-manager-{name}" for name in ("controller", "webhook", "cainjector")}
BESIDE = POLICIES | {"ConfigMap certwright-dashboard"}
WISH = ("--network-policies", "--issuer-port", "8200", "--dashboard", "--monitoring")


async def platform(stage: Stage, *wish: str) -> dict[str, Any]:
    answer: dict[str, Any] = await stage.command("platform", "install", "--cluster", "lab", *wish)
    return answer


def told(changes: list[dict[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in changes:
        found.setdefault(one["change"], set()).add(f"{one['kind']} {one['name']}")
    return found


async def objects(stage: Stage) -> set[str]:
    found = set()
    for kind, path in (
        ("NetworkPolicy", "/apis/networking.k8s.io/v1/namespaces/cert-manager/networkpolicies"),
        ("ConfigMap", "/api/v1/namespaces/cert-manager/configmaps"),
    ):
        names = {item["metadata"]["name"] for item in (await stage.lab.api.call("GET", path))["items"]}
        found |= {f"{kind} {name}" for name in names if name.startswith("certwright-")}
    return found


async def test_it_is_foretold_brought_proved_kept_and_taken_away(stage: Stage) -> None:
    before = await platform(stage, *WISH, "--dry-run")
    assert before["inspection"]["verdict"] == "keep"
    assert told(before["inspection"]["changes"]) == {"create": BESIDE}
    assert {"CW1017"} == {one["code"] for one in before["findings"]}, (
        "the lab has no Prometheus operator, and that is told"
    )
    assert await objects(stage) == set()

    brought = await platform(stage, *WISH)
    assert brought["ready"], brought
    assert told(brought["additions"]["changes"]) == {"create": BESIDE}
    assert [proof["findings"] for proof in brought["proofs"]] == [[], []]
    assert await objects(stage) == BESIDE

    again = await platform(stage, *WISH)
    assert again["ready"]
    assert told(again["additions"]["changes"]) == {"unchanged": BESIDE}
    assert (await platform(stage))["additions"] is None, "what is not asked about stays as it is"
    assert await objects(stage) == BESIDE

    taken = await platform(stage, "--no-network-policies", "--no-dashboard", "--no-monitoring")
    assert taken["ready"]
    assert told(taken["additions"]["changes"]) == {"remove": BESIDE}
    assert await objects(stage) == set()
