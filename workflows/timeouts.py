"""How long each step may take and how it is tried again: each number with its reason."""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy

CALL = timedelta(minutes=2)
"""A few requests to the API server, each bounded at 15 s by its activity."""

ISSUANCE = timedelta(hours=1)
"""cert-manager's next try after a failed one begins an hour later: what has not come by then has failed."""

HEARTBEAT = timedelta(seconds=15)
"""A watch heartbeats every two seconds; a killed worker is noticed, and its step taken over, after this."""

VERIFICATION = timedelta(minutes=1)
"""The edge is given 15 s to catch up, and each look at it is bounded at 5 s a connection."""

SURROUNDINGS = RetryPolicy(
    initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=10), maximum_attempts=0
)
"""Broken surroundings are waited for; what the cluster refuses for good is marked non-retryable where it is seen."""
