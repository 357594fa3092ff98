"""Is the way of an HTTP-01 challenge free? Judged from the answers to a random token's path on port 80.

The CA asks ``http://<name>/.well-known/acme-challenge/<token>`` on port 80 and follows redirects to ports 80 and 443
(RFC 8555, section 8.3; Let's Encrypt, "Challenge Types"). Before anything is ordered, the right answer for a token that
nobody knows is the gateway's own 404, or any answer by a route that the challenge's exact route will go before. What is
in the way is told by who answers, and how. Left out: sending the request, and where the name points (`routing`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urlsplit

from lifecycle import findings
from lifecycle.findings import Finding
from lifecycle.port_eighty import Neighbours

PATH = "/.well-known/acme-challenge/"

_MOST_SHOWN = 120


class Ending(StrEnum):
    """How one request ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """The connection was."""
    RESET = "reset"
    """The connection was ended without an answer."""
    TIMEOUT = "timeout"
    NOT_ALLOWED = "not-allowed"
    """We may not connect to this address (private, loopback, the cluster's)."""
    BROKEN = "broken"
    """Not HTTP, or a fault on our side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathAnswer:
    """One answer, of one address of the name. Redirects are not followed.

    Attributes:
        status: of the response, 0 where there was none.
        server: its `Server` header, cut.
        location: its `Location` header, cut; the token in it is replaced by ``<token>``.
        token_served: the body was what our own solver would have served; only with a token that is really presented.
        upstream: an application behind the gateway answered, not the gateway itself.
        detail: what the client said where there was no response, cut.
    """

    hostname: str
    address: str
    ending: Ending
    status: int = 0
    server: str = ""
    location: str = ""
    token_served: bool = False
    upstream: bool = False
    detail: str = ""


class PathStatus(StrEnum):
    """Can the CA come through?"""

    FREE = "free"
    BLOCKED = "blocked"
    UNKNOWN = "unknown"


class PathVerdict(NamedTuple):
    """The status of all names and addresses together, and a finding for each that is not free."""

    status: PathStatus
    findings: tuple[Finding, ...] = ()


ALONE = Neighbours()


def path_verdict(
    answers: Iterable[PathAnswer],
    gateway_addresses: tuple[str, ...],
    *,
    gateway: str,
    source: str = "",
    beside: Neighbours = ALONE,
) -> PathVerdict:
    """The verdict over all answers: a CA may ask any address of a name, so each of them must let it through.

    Args:
        gateway_addresses: of the gateway's Service: who answers there is our gateway.
        gateway: ``namespace/service`` of it, for the messages.
        source: from where it was asked, for the messages ("from outside the mesh").
        beside: who else speaks on the gateway's port 80.
    """
    ours = frozenset(map(_canonical, gateway_addresses))
    judged = [_judged(answer, _canonical(answer.address) in ours, gateway, source, beside) for answer in answers]
    statuses = {one.status for one in judged}
    unique = {(one.code, one.subject, one.problem): one for verdict in judged for one in verdict.findings}
    for status in (PathStatus.BLOCKED, PathStatus.UNKNOWN):
        if status in statuses:
            return PathVerdict(status, tuple(unique.values()))
    return PathVerdict(PathStatus.FREE if judged else PathStatus.UNKNOWN)


def _judged(answer: PathAnswer, ours: bool, gateway: str, source: str, beside: Neighbours) -> PathVerdict:
    if answer.token_served:
        return PathVerdict(PathStatus.FREE)  # whoever stands in between lets it through
    where = f"{answer.hostname} at {answer.address}"
    if answer.ending in (Ending.NOT_ALLOWED, Ending.BROKEN):
        return _unknown(answer, where)
    if answer.ending is not Ending.ANSWERED:
        if ours and not beside.listening:
            return PathVerdict(PathStatus.FREE)  # nobody opened port 80 yet; our own Gateway will
        how = {
            Ending.REFUSED: "refuses connections",
            Ending.RESET: "ends the connection without an answer",
            Ending.TIMEOUT: "does not answer in time",
        }[answer.ending]
        problem = f"Port 80 of {where} {how}{f' {source}' if source else ''}."
        if ours:
            fix = f"kubectl get service -n {gateway.replace('/', ' ')}; open port 80 to everywhere, firewalls included."
            return _blocked(findings.CHALLENGE_PATH_CLOSED, answer, problem, fix)
        return _elsewhere(answer, problem)
    by = f" ({answer.server[:_MOST_SHOWN]})" if answer.server else ""
    if 300 <= answer.status < 400 and answer.status != 304:
        return _redirected(answer, ours, where, by, beside)
    if not ours:
        return _elsewhere(answer, f"Somebody else{by} answers {answer.status} on port 80 of {where}.")
    if answer.upstream and answer.hostname in beside.covered:
        return PathVerdict(PathStatus.FREE)  # a route that ours goes before, whatever its application says
    if answer.status in (401, 403, 407, 451):
        return _blocked(
            findings.CHALLENGE_PATH_FORBIDDEN,
            answer,
            f"The gateway answers {answer.status} to the challenge's path of {where}: a policy is in the way.",
            "Except the path in the AuthorizationPolicy that selects the gateway: "
            f'to: [{{operation: {{notPaths: ["{PATH}*"]}}}}].',
        )
    if answer.status == 429 or answer.status >= 500:
        return _blocked(
            findings.CHALLENGE_PATH_UNAVAILABLE,
            answer,
            f"The gateway answers {answer.status} to the challenge's path of {where}.",
            f"istioctl proxy-config routes deploy/{gateway.rpartition('/')[2]} -n {gateway.partition('/')[0]}; a "
            "route's Service has no Pod that is ready, or a limit is in the way.",
        )
    # 404 and 200 alike: the challenge's exact route goes before whatever answered (measured; design page "facts")
    return PathVerdict(PathStatus.FREE)


def _redirected(answer: PathAnswer, ours: bool, where: str, by: str, beside: Neighbours) -> PathVerdict:
    swallowing = dict(beside.swallowing).get(answer.hostname, "")
    if ours and not swallowing and answer.hostname in beside.covered:
        return PathVerdict(PathStatus.FREE)  # a catch-all's redirect, ours included: the exact route goes before it
    target = urlsplit(answer.location)
    to = answer.location[:_MOST_SHOWN] or "nowhere"
    if not ours:
        return _elsewhere(answer, f"Somebody else{by} redirects the challenge's path of {where} to {to}.")
    host = (target.hostname or answer.hostname).lower()
    if host != answer.hostname.lower():
        problem = f"The gateway redirects the challenge's path of {where} to another host: {to}."
    else:
        problem = f"The gateway answers {answer.status} to the challenge's path of {where}: it redirects to {to}."
    return _blocked(
        findings.CHALLENGE_PATH_REDIRECTED,
        answer,
        problem,
        f"Take httpsRedirect from {f'Gateway {swallowing}' if swallowing else 'the Gateway that serves this name'} on "
        f"port 80, and redirect in its VirtualService, as the last route, so that {PATH} goes before it.",
    )


def _blocked(kind: findings.FindingKind, answer: PathAnswer, problem: str, fix: str) -> PathVerdict:
    return PathVerdict(PathStatus.BLOCKED, (kind.found(subject=answer.hostname, problem=problem, fix=fix),))


def _elsewhere(answer: PathAnswer, problem: str) -> PathVerdict:
    fix = (
        f"Point {answer.hostname} at this gateway only; where something must stand in front, let "
        f"http://{answer.hostname}{PATH}* through to the gateway, without a redirect."
    )
    return _blocked(findings.CHALLENGE_PATH_ELSEWHERE, answer, problem, fix)


def _unknown(answer: PathAnswer, where: str) -> PathVerdict:
    why = (
        "it may not be connected to from here"
        if answer.ending is Ending.NOT_ALLOWED
        else f"the answer could not be read: {answer.detail[:_MOST_SHOWN] or 'no reason is known'}"
    )
    fix = (
        "An operator lists the network in CERTWRIGHT_EDGE_ALLOWED_NETWORKS, or lets it be tried from outside."
        if answer.ending is Ending.NOT_ALLOWED
        else f"curl -v http://{answer.hostname}{PATH}test"
    )
    found = findings.CHALLENGE_PATH_NOT_PROBED.found(
        subject=answer.hostname, problem=f"The way of the challenge to {where} is not known: {why}.", fix=fix
    )
    return PathVerdict(PathStatus.UNKNOWN, (found,))


def _canonical(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower()
