"""How does cert-manager outlive a node? By values of its chart, which can be taken away again.

Left out: merging them with everybody else's (`lifecycle.platform`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def component_labels(release: str, component: str) -> dict[str, str]:
    """By which the Pods of a component are found: the chart's labels, and those of cert-manager's static manifests.

    The label `app.kubernetes.io/name` is left out, since it goes by the chart's `nameOverride`.
    """
    return {"app.kubernetes.io/instance": release, "app.kubernetes.io/component": component}


def high_availability_values(release: str) -> dict[str, Any]:
    """The guide's replicas and resources, corrected: each component has a disruption budget of its own in the chart.

    The guide's one budget covers the controller alone (chart of v1.21: `podDisruptionBudget`,
    `webhook.podDisruptionBudget`, `cainjector.podDisruptionBudget`). Replicas are spread over nodes where that can be:
    two on one node would go together.
    """
    return {
        **_replicated(release, "controller", cpu=("50m", "200m"), memory=("64Mi", "256Mi")),
        "webhook": _replicated(release, "webhook", cpu=("25m", "100m"), memory=("32Mi", "128Mi")),
        "cainjector": _replicated(release, "cainjector", cpu=("25m", "100m"), memory=("64Mi", "256Mi")),
    }


def _replicated(release: str, component: str, *, cpu: tuple[str, str], memory: tuple[str, str]) -> dict[str, Any]:
    return {
        "replicaCount": 2,
        "resources": {
            "requests": {"cpu": cpu[0], "memory": memory[0]},
            "limits": {"cpu": cpu[1], "memory": memory[1]},
        },
        "podDisruptionBudget": {"enabled": True, "minAvailable": 1},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": component_labels(release, component)},
            }
        ],
    }


def without_high_availability(values: Mapping[str, Any], release: str) -> dict[str, Any]:
    """The values of a release without those that we set; what somebody set otherwise stays."""
    return _without(values, high_availability_values(release))


def _without(values: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    left: dict[str, Any] = {}
    for key, value in values.items():
        mine = ours.get(key)
        if isinstance(value, Mapping) and isinstance(mine, Mapping):
            if inner := _without(value, mine):
                left[key] = inner
        elif key not in ours or value != mine:
            left[key] = value
    return left
