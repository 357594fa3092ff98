"""Which of an issuer's solvers would prove a name? By cert-manager's own precedence, with the reason in words.

The rule is that of cert-manager 1.21 (`pkg/controller/acmeorders`, solverpicker, and its documentation "Configuring
multiple solver types"): of the solvers whose whole selector matches, one that lists the name wins over one that lists
its zone, a longer zone over a shorter one, more labels over fewer, and else the first in the list. Solvers are read
as cert-manager writes them, so that requests and live issuers are explained alike. Left out: whether the solver works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lifecycle import findings
from lifecycle.findings import Finding

Document = Mapping[str, Any]

OWN_LABELS = {"app.kubernetes.io/managed-by": "certwright"}
"""Those of our Certificates; an Order has its Certificate's labels, and selectors are matched with the Order's."""

UNROUTED_CLASS = "certwright-none"
"""The Ingress class of a solver whose challenges Certwright routes; nobody serves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """One solver and how it fared: `chosen`, else the reason why not."""

    number: int
    solver: str
    chosen: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The solver that a name takes.

    Attributes:
        number: its place in the issuer's list, from 0; -1 where none can be used.
        solver: the solver in words.
        considered: every solver, in the issuer's order.
    """

    hostname: str
    number: int
    solver: str
    considered: tuple[Considered, ...]


class _Weight(NamedTuple):
    """How particular a match is; compared in this order."""

    name: int
    zone: int
    labels: int


def explain(hostname: str, solvers: Sequence[Document], labels: Mapping[str, str]) -> Explanation:
    """Which solver proves `hostname` (a wildcard with its ``*.``) for a Certificate with these labels."""
    wildcard = hostname.startswith("*.")
    best: tuple[int, _Weight] | None = None
    reasons: list[str] = []
    for number, solver in enumerate(solvers):
        if wildcard and "dns01" not in solver:
            # RFC 8555, section 7.1.3 and 8.3: for a wildcard the CA offers no http-01
            reasons.append("HTTP-01 proves no wildcard (RFC 8555, section 8.3)")
            continue
        weight, against = _match(hostname, solver.get("selector") or {}, labels)
        reasons.append(against)
        if weight is not None and (best is None or weight > best[1]):
            best = number, weight
    chosen = -1 if best is None else best[0]
    considered = []
    for number, solver in enumerate(solvers):
        reason = reasons[number]
        if number == chosen and best is not None:
            reason = _why(best[1], len(solvers))
        elif not reason and best is not None:
            weight, _ = _match(hostname, solver.get("selector") or {}, labels)
            assert weight is not None
            reason = _lost(weight, best[1], chosen)
        considered.append(Considered(number=number, solver=words(solver), chosen=number == chosen, reason=reason))
    return Explanation(
        hostname=hostname,
        number=chosen,
        solver=words(solvers[chosen]) if chosen >= 0 else "",
        considered=tuple(considered),
    )


def _match(hostname: str, selector: Document, labels: Mapping[str, str]) -> tuple[_Weight | None, str]:
    """The weight of a match, or what stands against it; every part of a selector that is given must match."""
    names, zones = selector.get("dnsNames") or (), selector.get("dnsZones") or ()
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    for key, value in wanted.items():
        if labels.get(key) != value:
            return None, f"the Certificate has no label {key}={value}"
    if names and hostname not in names:
        return None, f"{hostname} is not among its dnsNames"
    zone = max((_zone_labels(zone, hostname) for zone in zones), default=0)
    if zones and not zone:
        return None, f"{hostname} lies in none of its dnsZones"
    return _Weight(int(bool(names)), zone, len(wanted)), ""


def _zone_labels(zone: str, hostname: str) -> int:
    """How many labels a zone has, where the name lies in it, else 0."""
    wanted = zone.rstrip(".").lower().split(".")
    return len(wanted) if hostname.rstrip(".").lower().split(".")[-len(wanted) :] == wanted else 0


def _why(weight: _Weight, several: int) -> str:
    if several == 1:
        return "it is the only one"
    if weight.name:
        return "its dnsNames list the name"
    if weight.zone:
        return f"its dnsZones match {weight.zone} labels of the name, the most"
    if weight.labels:
        return f"{weight.labels} of its labels match, the most"
    return "it takes every name, and is the first that does"


def _lost(weight: _Weight, best: _Weight, chosen: int) -> str:
    ahead = f"solver {chosen}"
    if weight.name < best.name:
        return f"{ahead} lists the name itself"
    if weight.zone < best.zone:
        return f"{ahead} has a longer zone"
    if weight.labels < best.labels:
        return f"{ahead} matches more labels"
    return f"{ahead} matches as well and comes first"


def words(solver: Document) -> str:
    """A solver for people: the challenge and by what it is answered."""
    dns01, http01 = solver.get("dns01"), solver.get("http01") or {}
    if dns01 is not None:
        provider = next((name for name in dns01 if name != "cnameStrategy"), "nobody")
        detail = {
            "rfc2136": "nameserver",
            "acmeDNS": "host",
            "webhook": "solverName",
            "cloudDNS": "project",
            "azureDNS": "hostedZoneName",
        }.get(provider)
        about = (dns01.get(provider) or {}).get(detail, "") if detail else ""
        follows = ", following CNAMEs" if dns01.get("cnameStrategy") == "Follow" else ""
        return f"DNS-01 by {provider}{f' {about}' if about else ''}{follows}"
    gateway, ingress = http01.get("gatewayHTTPRoute"), http01.get("ingress")
    if gateway is not None:
        parents = ", ".join(
            f"{one.get('namespace', '')}/{one.get('name', '')}".lstrip("/") for one in gateway.get("parentRefs") or ()
        )
        return f"HTTP-01 through the Gateway API's Gateway {parents}".rstrip()
    if ingress is not None:
        if ingress.get("ingressClassName") == UNROUTED_CLASS:
            return "HTTP-01 through Istio's VirtualService"
        named = ingress.get("name")
        where = ingress.get("ingressClassName") or ingress.get("class") or "default"
        return f"HTTP-01 through Ingress {named}" if named else f"HTTP-01 through Ingress class {where}"
    return "no solver"


def needs_route(solver: Document) -> bool:
    """Whether challenges of this solver need a route of ours: not a DNS record, nor an HTTPRoute of cert-manager's.

    Those through an Ingress do, whatever its class: the name points at Istio's gateway, where no Ingress is served.
    """
    return solver.get("dns01") is None and not makes_http_route(solver)


def makes_http_route(solver: Document) -> bool:
    """Whether cert-manager makes an HTTPRoute for challenges of this solver (documentation: "HTTP01 Gateway API")."""
    return (solver.get("http01") or {}).get("gatewayHTTPRoute") is not None


def solver_findings(issuer: str, hostnames: Sequence[str], solvers: Sequence[Document]) -> tuple[Finding, ...]:
    """A finding for each name that no solver of an ACME issuer proves; cert-manager would fail the whole Order."""
    return tuple(
        findings.NO_SOLVER.found(
            subject=hostname,
            problem=f"No solver of {issuer} proves it: "
            + ("; ".join(f"{one.solver}: {one.reason}" for one in explained.considered[:4]) or "it has none")
            + ".",
            fix=f"certwright issuer explain '{hostname}' --issuer {issuer.rpartition(' ')[2]}; "
            + ("give it a DNS-01 solver for the zone." if hostname.startswith("*.") else "give it a solver for it."),
        )
        for hostname in hostnames
        if (explained := explain(hostname, solvers, OWN_LABELS)).number < 0
    )
