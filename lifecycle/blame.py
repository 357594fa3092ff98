"""What is to blame, and one safe thing to do about it.

Remedies are offered only where doing them twice does no harm, where they touch what is ours or what nobody uses any
more, and where nothing is restarted. Left out: when one is offered (`diagnosing`, `challenge_blame`), and for whom it
may be done (`mending`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from lifecycle.diagnosis import Document
from lifecycle.findings import Finding
from lifecycle.issuance import CERTIFICATE_NAME
from lifecycle.snapshot import (
    Snapshot,
    annotation,
    controlled,
)

SETTLE = timedelta(seconds=5)
"""cert-manager and the kubelet act within a second or two; what is younger is on its way."""


STUCK = timedelta(seconds=15)
"""A deleted Challenge is cleaned up within a second or two."""


class Action(StrEnum):
    """What a remedy does; each is idempotent."""

    DELETE = "delete"
    """One object, by name and uid."""
    RELEASE = "release"
    """Take cert-manager's finalizer from a deleted Challenge."""
    ROUTE = "route"
    """Apply the route of a domain's open challenges."""
    RENEW = "renew"
    """Ask cert-manager for an issuance now, as `cmctl renew` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One thing to do about one object.

    Attributes:
        words: what it does, for people.
        uid: of the object; another of its name is left alone.
        renew: whether cert-manager is asked for an issuance afterwards.
        own: whether the object is the Certificate's own, or names it; what is others' only an operator may touch.
    """

    action: Action
    kind: str
    namespace: str
    name: str
    words: str
    uid: str = ""
    renew: bool = False
    own: bool = True


class Blame(NamedTuple):
    """A finding, and what can be done about it by itself."""

    finding: Finding
    remedy: Remedy | None = None


Blames = Iterator[Blame]


def renewal_of(seen: Snapshot) -> Remedy:
    """One more issuance, now."""
    return Remedy(
        action=Action.RENEW,
        kind="Certificate",
        namespace=seen.namespace,
        name=seen.name,
        words=f"ask cert-manager to issue Certificate {seen.namespace}/{seen.name} now",
    )


def remedy_for(
    seen: Snapshot, action: Action, kind: str, document: Document, words: str, *, renew: bool = False
) -> Remedy:
    """A remedy about one object, by its uid."""
    metadata = document["metadata"]
    return Remedy(
        action=action,
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        words=words,
        renew=renew,
        own=_of_the_certificate(seen, document),
    )


def _of_the_certificate(seen: Snapshot, document: Document) -> bool:
    """By controller reference, by annotation, or by the names that cert-manager makes of the Certificate's."""
    owners = filter(None, (seen.certificate, seen.request, seen.order))
    return (
        any(controlled(document, owner) for owner in owners)
        or annotation(document, CERTIFICATE_NAME) == seen.name
        or re.fullmatch(rf"{re.escape(seen.name)}(-\d+)+", document["metadata"]["name"]) is not None
    )
