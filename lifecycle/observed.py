"""What do the objects of a snapshot say of themselves? Read in one place, for all rules.

Left out: whether it is good (`diagnosing`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from lifecycle.diagnosis import Document, conditions_of
from lifecycle.snapshot import (
    Snapshot,
    issuer_of,
)

RECENT = timedelta(minutes=10)
"""Older events tell of what may be mended; what lasts is told again (cert-manager's back-off: 5 minutes at most)."""


def reasons_of(seen: Snapshot) -> Iterator[str]:
    """What objects say of themselves; a deleted Challenge's clean-up is told with its finalizer."""
    for one in (*(one for one in seen.challenges if not _deleted(one)), *seen.orders):
        yield str((one.get("status") or {}).get("reason") or "")
    for request in seen.requests:
        yield from (str(one.get("message") or "") for one in conditions_of(request).values())


def recent_words(seen: Snapshot, document: Document | None = None) -> list[str]:
    """The words of warnings that are not old, of one object or of all."""
    uid = document["metadata"]["uid"] if document is not None else ""
    over = {one["metadata"]["uid"] for one in seen.challenges if _deleted(one)}
    return [
        str(one.get("message") or "")
        for one in seen.events
        if (not uid or one["involvedObject"].get("uid") == uid)
        and one["involvedObject"].get("uid") not in over
        and (at := instant(event_at(one))) is not None
        and seen.now - at < RECENT
    ]


def event_at(event: Document) -> str:
    """`series` counts for events of the newer kind (events.k8s.io), `lastTimestamp` for the older one."""
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or "")


def issuer_subject(seen: Snapshot) -> str:
    """The issuer that the Certificate names, as findings call it."""
    ref = issuer_of(seen.certificate) if seen.certificate is not None else None
    if ref is None:
        return "the issuer"
    return f"{ref.kind.value} {ref.namespace}/{ref.name}" if ref.namespace else f"{ref.kind.value} {ref.name}"


def issuer_kubectl(seen: Snapshot) -> str:
    """The same as kubectl takes it."""
    kind, _, place = issuer_subject(seen).partition(" ")
    namespace, _, name = place.rpartition("/")
    return f"{kind.lower()} {f'-n {namespace} ' if namespace else ''}{name}"


def same_workload(gateway: Document, selector: dict[str, str]) -> bool:
    """Whether a Gateway's selector and this one may select the same Pods."""
    theirs = gateway["spec"].get("selector") or {}
    return set(theirs.items()) <= set(selector.items()) or set(selector.items()) <= set(theirs.items())


def hosts_of(server: Document) -> set[str]:
    """The hosts of a Gateway's server, without the namespaces that Istio allows before them."""
    return {str(host).rpartition("/")[2].lower() for host in server.get("hosts") or ()}


def host_matches(host: str, hostname: str) -> bool:
    """Istio reference: Server.hosts: a leading ``*`` stands for any prefix."""
    return host == hostname or (host.startswith("*") and hostname.endswith(host[1:]))


def has_endpoints(seen: Snapshot, services: list[Document]) -> bool:
    """Whether one of the Services leads to a Pod that is ready; True where that could not be looked at."""
    wanted = {one["metadata"]["name"] for one in services}
    if not seen.endpoints_seen:
        return True
    for piece in seen.endpoint_slices:
        if (piece["metadata"].get("labels") or {}).get("kubernetes.io/service-name") in wanted and any(
            (one.get("conditions") or {}).get("ready") is not False for one in piece.get("endpoints") or ()
        ):
            return True
    return False


def pod_ready(pod: Document) -> bool:
    """Whether a Pod is ready."""
    return conditions_of(pod).get("Ready", {}).get("status") == "True"


def pod_words(pod: Document) -> str:
    """Why a Pod does not run, in the cluster's words."""
    status = pod.get("status") or {}
    for one in status.get("containerStatuses") or ():
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return f"{waiting['reason']} {waiting.get('message') or ''}".strip()
    scheduled = conditions_of(pod).get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason') or 'not scheduled'}: {scheduled.get('message') or ''}"
    return str(status.get("phase") or "it has not started")


def _deleted(document: Document) -> bool:
    return bool(document["metadata"].get("deletionTimestamp"))


def state_of(document: Document) -> str:
    """The state of an Order or a Challenge; empty where it has none yet."""
    return str((document.get("status") or {}).get("state") or "")


def age_of(document: Document, now: datetime) -> timedelta:
    """Since when an object is there."""
    created = instant(document["metadata"].get("creationTimestamp"))
    return now - created if created else timedelta(0)


def instant(text: str | None) -> datetime | None:
    """A time as Kubernetes writes it; None where there is none."""
    return datetime.fromisoformat(text) if text else None


def place_of(document: Document) -> str:
    """``namespace/name``."""
    return f"{document['metadata'].get('namespace', '')}/{document['metadata']['name']}"


def words_of(document: Document) -> str:
    """Namespace and name, as kubectl takes them after ``-n``."""
    return place_of(document).replace("/", " ")
