"""How long each step may take and how it is tried again: each number with its reason."""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy

CALL = timedelta(seconds=45)
"""A few requests to the API server, each bounded at 15 s by its activity; also the time until a step that does not
heartbeat is taken over from a killed worker."""

ISSUANCE = timedelta(hours=1)
"""cert-manager's next try after a failed one begins an hour later: what has not come by then has failed."""

HEARTBEAT = timedelta(seconds=15)
"""A watch heartbeats every two seconds; a killed worker is noticed, and its step taken over, after this."""

VERIFICATION = timedelta(minutes=1)
"""The edge is given 15 s to catch up, and each look at it is bounded at 5 s a connection."""

PREFLIGHT = timedelta(seconds=45)
"""Every name server is asked within a few seconds, all of them at once."""

ISSUER = timedelta(minutes=3)
"""Registering an account takes seconds; cert-manager tries again within two minutes where the CA does not answer."""

HELM = timedelta(minutes=15)
"""Helm waits six minutes at most for an installation, and as long for taking it back (`activities.platform`)."""

ADDITIONS = timedelta(minutes=2)
"""Seven small objects, each read, tried and written."""

PROOF = timedelta(minutes=5)
"""Three Pods pull their images and the webhook gets its certificate; a canary is issued within seconds after."""

MENDING = timedelta(minutes=1)
"""Five looks of about a second, and as many small writes; a webhook that is away costs a look 15 s."""

REVIEW = timedelta(minutes=30)
"""Thousands of Certificates in pages, and each of our edges once; the next review must not overtake it."""

BACKUP = timedelta(minutes=15)
"""Reading and encrypting some thousand Secrets takes seconds; directories may be slow network ones."""

PROMPT = timedelta(seconds=5)
"""How long a door waits to learn whether the names are to be had."""

ANSWER = timedelta(seconds=30)
"""How long an Update waits for fresh findings; then it answers with the state as it is. At most ten may wait."""

CHILD_BUSY = timedelta(seconds=5)
"""A child that still undoes an earlier attempt holds its id; it is asked for again after this, then twice as long."""

CHILD_BUSY_LONGEST = timedelta(minutes=5)
"""Each time costs eight events: an undoing that takes a day costs a few hundred."""

WINDOWS = (
    RetryPolicy(
        initial_interval=timedelta(milliseconds=500),
        backoff_coefficient=3.0,
        maximum_interval=timedelta(seconds=5),
        maximum_attempts=3,
    ),
    RetryPolicy(
        initial_interval=timedelta(seconds=1),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=10),
        maximum_attempts=30,
    ),
    RetryPolicy(
        initial_interval=timedelta(seconds=10),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(minutes=1),
        maximum_attempts=60,
    ),
    RetryPolicy(
        initial_interval=timedelta(minutes=1),
        backoff_coefficient=1.0,
        maximum_interval=timedelta(minutes=1),
        maximum_attempts=480,
    ),
)
"""Broken surroundings are waited for without end, but in windows: attempts leave no events, and only the end of a
window tells the workflow. After the first (2 s, and three times what an attempt takes to fail) the domain's state says
so: a server that is gone for 30 s is named meanwhile. After the others (5 minutes, an hour, 8 hours, and 8 hours again)
it costs six events each. What the cluster refuses for good is marked non-retryable where it is seen."""

THRICE = RetryPolicy(initial_interval=timedelta(seconds=5), backoff_coefficient=3.0, maximum_attempts=3)
"""Scheduled work bridges a restart of the API server (a minute); the next schedule does the rest."""
