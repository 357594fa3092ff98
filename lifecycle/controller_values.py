"""How quickly does cert-manager's controller work, and when does it begin anew? By values of its chart.

Left out: merging them with everybody else's (`lifecycle.platform`), and how many controllers there are
(`lifecycle.availability`).
"""

from __future__ import annotations

from typing import Any

LEADER_ELECTION = {"leaseDuration": "15s", "renewDeadline": "10s", "retryPeriod": "2s"}
"""Kubernetes' own (kube-controller-manager reference, `--leader-elect-lease-duration` and the two after it); the
chart's are 60, 40 and 15 s. A controller that cannot renew its lease ends, and begins anew with all its caches at once.
One that outlives an outage of the API server has them back one by one, up to a minute apart, and meanwhile orders again
what it does not see (docs/operations.md)."""

FEWEST_WORKERS, MOST_WORKERS = 5, 60
"""cert-manager's default, and as many challenges as it has under way at once (`maxConcurrentChallenges`)."""

WORKERS_ANNOTATION = "certwright.dev/concurrent-workers"

_QPS_EACH, _BURST_EACH = 4, 10
"""Requests to the API server for each worker, as cert-manager's defaults have them (20 and 50 for five)."""


def concurrency_values(workers: int) -> dict[str, Any]:
    """Each worker is held for ten seconds by one look at an HTTP-01 challenge (`pkg/issuer/acme/http`: `Check`).

    The annotation makes new Pods: a controller reads its configuration once, and the chart does not roll it out
    (chart of v1.21: `templates/controller-config.yaml`).
    """
    return {
        "config": {
            "numberOfConcurrentWorkers": workers,
            "kubernetesAPIQPS": workers * _QPS_EACH,
            "kubernetesAPIBurst": workers * _BURST_EACH,
        },
        "podAnnotations": {WORKERS_ANNOTATION: str(workers)},
    }
