"""Would the CA refuse the order now, by what this cluster has ordered lately?

Arithmetic over the Orders and Certificates that the cluster still shows, against the CA's published limits. The cluster
shows no more than its own share, so nothing found is no promise; and an old Order that is gone is counted by its
Certificate. Left out: whose turn it is (`quota`), and orders of other clusters with the same account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lifecycle import findings
from lifecycle.domain import IssuerKind, IssuerRef, OnboardingRequest
from lifecycle.findings import Finding
from lifecycle.quota import Exemption, PastOrder
from lifecycle.rate_limits import Limit, LimitKind, free_at, taken
from lifecycle.registered_domain import registered_domain, registered_domains

Document = Mapping[str, Any]

LOOKED_BACK = timedelta(days=14)
"""A bucket of a week that was full a week before it was used: older orders take nothing from any bucket."""

_BACKDATED = timedelta(hours=1)
"""Let's Encrypt sets notBefore an hour before it issues (its integration guide)."""

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_REVISION = "cert-manager.io/certificate-revision"

_WORDS = {
    LimitKind.ORDERS: "new orders of the account",
    LimitKind.DOMAIN: "certificates for {key}",
    LimitKind.EXACT_SET: "certificates for exactly these names",
    LimitKind.FAILURES: "failed validations of {key}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    """One order: when, for which names, and what came of it."""

    at: datetime
    names: frozenset[str]
    renewal: bool
    issued: bool
    failed: bool


def quota_findings(
    request: OnboardingRequest,
    limits: Iterable[Limit],
    *,
    orders: Iterable[Document],
    certificates: Iterable[Document],
    now: datetime,
) -> tuple[Finding, ...]:
    """A finding for each limit that has nothing left for this request, with the instant when it has."""
    names = frozenset(request.hostnames)
    held = [one for one in certificates if _by(one["spec"].get("issuerRef"), one["metadata"], request.issuer)]
    events = sorted(_events(request, list(orders), held, now), key=lambda event: event.at)
    renewal = any(_instant((one.get("status") or {}).get("notBefore")) and _names(one) == names for one in held)
    found = []
    for limit in limits:
        if renewal and not limit.renewals_count:
            continue
        for key, counted in _counted(limit.kind, request, events):
            full_at = _BEGINNING
            for event in counted:
                if limit.renewals_count or not event.renewal:
                    full_at = taken(limit, full_at, event.at)
            free = free_at(limit, full_at, 0)
            if free is not None and free > now:
                found.append(_finding(request, limit, key, free))
    return tuple(found)


def past_orders(
    request: OnboardingRequest, *, orders: Iterable[Document], certificates: Iterable[Document], now: datetime
) -> tuple[PastOrder, ...]:
    """What the cluster shows of the request's issuer, for a quota that begins now."""
    held = [one for one in certificates if _by(one["spec"].get("issuerRef"), one["metadata"], request.issuer)]
    return tuple(
        PastOrder(
            at=event.at,
            hostnames=tuple(sorted(event.names)),
            registered_domains=registered_domains(event.names),
            exemption=Exemption.RENEWAL if event.renewal else Exemption.NONE,
            issued=event.issued,
            # Which of an order's names failed it does not say; of one with a single name it is known.
            failed=tuple(event.names) if event.failed and len(event.names) == 1 else (),
        )
        for event in sorted(_events(request, list(orders), held, now), key=lambda event: event.at)
    )


def _counted(kind: LimitKind, request: OnboardingRequest, events: list[_Event]) -> Iterable[tuple[str, list[_Event]]]:
    names = frozenset(request.hostnames)
    match kind:
        case LimitKind.ORDERS:
            yield "", events
        case LimitKind.DOMAIN:
            for domain in registered_domains(request.hostnames):
                yield domain, [one for one in events if one.issued and domain in map(registered_domain, one.names)]
        case LimitKind.EXACT_SET:
            yield "", [one for one in events if one.issued and one.names == names]
        case LimitKind.FAILURES:
            # Which of an order's names failed it does not say; of one with a single name it is known.
            for name in request.hostnames:
                yield name, [one for one in events if one.failed and one.names == {name}]
        case _:
            return


def _events(
    request: OnboardingRequest, orders: list[Document], held: list[Document], now: datetime
) -> Iterable[_Event]:
    seen: list[_Event] = []
    for order in orders:
        metadata, spec, status = order["metadata"], order["spec"], order.get("status") or {}
        if not _by(spec.get("issuerRef"), metadata, request.issuer):
            continue
        at = _instant(status.get("failureTime")) or _instant(metadata.get("creationTimestamp"))
        if at is None or at < now - LOOKED_BACK:
            continue
        state = str(status.get("state") or "")
        revision = str((metadata.get("annotations") or {}).get(_REVISION) or "1")
        seen.append(
            _Event(
                at=at,
                names=_names(order),
                renewal=revision != "1",
                issued=state == "valid",
                failed=state == "invalid",
            )
        )
    yield from seen
    for certificate in held:
        status = certificate.get("status") or {}
        began = _instant(status.get("notBefore"))
        if began is None:
            continue
        at, names = began + _BACKDATED, _names(certificate)
        if at < now - LOOKED_BACK or any(one.issued and one.names == names for one in seen):
            continue
        renewal = int(status.get("revision") or 1) > 1
        yield _Event(at=min(at, now), names=names, renewal=renewal, issued=True, failed=False)


def _by(ref: Mapping[str, Any] | None, metadata: Mapping[str, Any], issuer: IssuerRef) -> bool:
    """Whether it was asked of this issuer; an Issuer is its own namespace's."""
    kind = str((ref or {}).get("kind") or IssuerKind.ISSUER)
    same = (ref or {}).get("name") == issuer.name and kind == issuer.kind
    return same and (issuer.kind is IssuerKind.CLUSTER_ISSUER or metadata.get("namespace") == issuer.namespace)


def _names(document: Document) -> frozenset[str]:
    return frozenset(document["spec"].get("dnsNames") or ())


def _instant(text: object) -> datetime | None:
    return datetime.fromisoformat(str(text)) if text else None


def _finding(request: OnboardingRequest, limit: Limit, key: str, free: datetime) -> Finding:
    words = _WORDS[limit.kind].format(key=key)
    at = f"{free.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return findings.QUOTA_USED_UP.found(
        subject=key or request.hostname,
        problem=f"The CA's limit of {limit.burst} {words} is used up; one more comes every {limit.refill}.",
        fix=f"Nothing to do: free at {at}, and looked at again by itself. More: the CA's form for rate limits.",
    )
