"""Why is a Certificate not issued, or not served? The one object that is to blame, and one safe remedy.

Rules are asked in the order in which an issuance passes through them, and all of them are: the first error is the
cause, since what comes after it may be its consequence. Remedies are offered only where doing them twice does no harm,
where they touch what is ours or what nobody uses any more, and where nothing is restarted. What cmctl's `status
certificate` tells is in here; what lies beyond cert-manager (routes, gateway, edge) too. Left out: gathering
(`activities.snapshot`), and the CA's own words (`diagnosis`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from lifecycle import challenge_path, diagnosis, findings, names, solvers
from lifecycle.delegation import challenge_record, delegation_verdict
from lifecycle.diagnosis import Document, conditions_of, said
from lifecycle.domain import GatewayKind, IssuerKind, RoutingStatus
from lifecycle.findings import Finding, Severity
from lifecycle.foresight import acme_of, caa_foreseen, in_mesh
from lifecycle.issuance import CERTIFICATE_NAME
from lifecycle.manifests import CHALLENGE_PATH
from lifecycle.platform import Permission
from lifecycle.routing import routing_verdict
from lifecycle.snapshot import (
    FINAL_STATES,
    Snapshot,
    annotation,
    controlled,
    issuer_of,
    parents_of,
    request_of,
)

SETTLE = timedelta(seconds=5)
"""cert-manager and the kubelet act within a second or two; what is younger is on its way."""

STUCK = timedelta(seconds=15)
"""A deleted Challenge is cleaned up within a second or two."""

RECENT = timedelta(minutes=10)
"""Older events tell of what may be mended; what lasts is told again (cert-manager's back-off: 5 minutes at most)."""

CONTROLLER_NEEDS = (
    Permission("create", "cert-manager.io", "certificaterequests", ""),
    Permission("patch", "cert-manager.io", "certificates/status", ""),
    Permission("patch", "cert-manager.io", "certificaterequests/status", ""),
    Permission("create", "acme.cert-manager.io", "orders", ""),
    Permission("patch", "acme.cert-manager.io", "orders/status", ""),
    Permission("create", "acme.cert-manager.io", "challenges", ""),
    Permission("patch", "acme.cert-manager.io", "challenges/status", ""),
    Permission("create", "", "pods", ""),
    Permission("delete", "", "pods", ""),
    Permission("create", "", "services", ""),
    Permission("create", "networking.k8s.io", "ingresses", ""),
    Permission("create", "", "secrets", ""),
)
"""What an issuance by HTTP-01 cannot do without; without some of it cert-manager only writes to its log."""

_MOST_LINKS, _MOST_EVENTS = 40, 8


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


class LinkState(StrEnum):
    """How an object of the chain stands."""

    GOOD = "good"
    WAITING = "waiting"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One object of the chain from the Certificate to the edge, and what it says of itself."""

    subject: str
    state: LinkState
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLine:
    """A warning that the cluster keeps about an object of the chain."""

    at: str
    subject: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found about one Certificate.

    Attributes:
        healthy: it is issued, and served as far as was looked.
        cause: what is to blame; None where nothing is wrong, or all goes its way.
        findings: all of them, the cause first; those after it may be its consequences.
        remedy: what `--fix` would do about the cause; None where a person has to act.
    """

    certificate: str
    hostnames: tuple[str, ...]
    healthy: bool
    summary: str
    cause: Finding | None = None
    findings: tuple[Finding, ...] = ()
    remedy: Remedy | None = None
    chain: tuple[Link, ...] = ()
    events: tuple[EventLine, ...] = ()


class Blame(NamedTuple):
    """A finding, and what can be done about it by itself."""

    finding: Finding
    remedy: Remedy | None = None


Blames = Iterator[Blame]


def diagnose(seen: Snapshot) -> Diagnosis:
    """The verdict over one snapshot."""
    blames = [blame for rule in RULES for blame in rule(seen)]
    blames += [Blame(_unseen(finding)) for finding in seen.unseen]
    # stable: within one severity the rules' order is that of the chain
    weight = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}
    blames.sort(key=lambda blame: weight[blame.finding.severity])
    unique = {(one.finding.code, one.finding.subject, one.finding.problem): one for one in reversed(blames)}
    ordered = sorted(unique.values(), key=blames.index)
    found = tuple(blame.finding for blame in ordered)
    cause = ordered[0] if ordered else None
    healthy = seen.settled and not findings.errors(found)
    return Diagnosis(
        certificate=f"{seen.namespace}/{seen.name}",
        hostnames=seen.hostnames,
        healthy=healthy,
        summary=_summary(seen, cause, healthy=healthy),
        cause=cause.finding if cause else None,
        findings=found,
        remedy=cause.remedy if cause else None,
        chain=_chain(seen, found)[:_MOST_LINKS],
        events=_events(seen),
    )


def _unseen(finding: Finding) -> Finding:
    """What may not be looked at is no fault of the Certificate; who may not is whoever asks, a worker or a person."""
    words = finding.problem.replace("The worker may not", "Whoever asks may not")
    return replace(finding, severity=Severity.WARNING, problem=words)


def _summary(seen: Snapshot, cause: Blame | None, *, healthy: bool) -> str:
    if cause is not None and cause.finding.severity is Severity.ERROR:
        return f"{cause.finding.subject} is to blame"
    if healthy:
        return "issued, and nothing is wrong" if not seen.served else "issued, and served by every address"
    if seen.issuing and seen.certificate is not None:
        since = conditions_of(seen.certificate)["Issuing"].get("lastTransitionTime", "")
        return f"an issuance is under way since {since}, and nothing is in its way"
    return cause.finding.problem if cause else "nothing is known to be wrong"


# --- the rules, in the order of the chain -----------------------------------------------------------------------------


def cert_manager_runs(seen: Snapshot) -> Blames:
    """Without the controller nothing is issued, and without the webhook nothing can be written."""
    for one in seen.deployments or ():
        where, part = _place(one), (one["metadata"].get("labels") or {}).get("app.kubernetes.io/component", "")
        if not (one.get("status") or {}).get("availableReplicas"):
            wanted, namespace = one["spec"].get("replicas", 1), one["metadata"]["namespace"]
            finding = findings.CERT_MANAGER_NOT_RUNNING.found(
                subject=f"Deployment {where}",
                problem=f"cert-manager's {part or 'part'} has no Pod that is available ({wanted} wanted).",
                fix=f"kubectl describe pods -n {namespace} -l app.kubernetes.io/component={part}"
                if wanted
                else f"kubectl scale deployment -n {_words(one)} --replicas=1",
            )
            # the cainjector only keeps the webhook's CA up to date: issuances go on without it for long
            later = part == "cainjector"
            yield Blame(replace(finding, severity=Severity.WARNING) if later else finding)


def webhook_answers(seen: Snapshot) -> Blames:
    """The API server asks the webhook before each write of cert-manager's kinds."""
    words = seen.webhook or next(
        (text for text in _recent(seen) if re.search(r"failed calling webhook|failed to call webhook", text)), ""
    )
    down = any(
        (one["metadata"].get("labels") or {}).get("app.kubernetes.io/component") == "webhook"
        and not (one.get("status") or {}).get("availableReplicas")
        for one in seen.deployments or ()
    )
    if words and not down:  # else it is told already whose fault that is
        service = re.search(r"https://([a-z0-9-]+)\.([a-z0-9-]+)\.svc", words)
        place = f"{service[2]}/{service[1]}" if service else "cert-manager/cert-manager-webhook"
        yield Blame(
            findings.WEBHOOK_NOT_ANSWERING.found(
                subject=f"Service {place}",
                problem=f"The API server asks it before each write of cert-manager's objects, in vain: {said(words)}",
                fix=f"kubectl get endpoints -n {place.replace('/', ' ')}; let the API server reach its port 10250.",
            )
        )


def cert_manager_is_allowed(seen: Snapshot) -> Blames:
    """cert-manager lacks a permission of its own chart: the API server says so, to us or to cert-manager."""
    if seen.settled:
        return
    for account, permission in seen.controller_denied:
        yield Blame(_forbidden(account, permission.verb, permission.group, permission.resource, seen.namespace))
        return  # one role brings them all
    pattern = re.compile(
        r'User "system:serviceaccount:(?P<namespace>[^:"]+):(?P<name>[^"]+)" cannot (?P<verb>\w+) resource '
        r'"(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"(?: in the namespace "(?P<place>[^"]+)")?'
    )
    for text in (*_reasons(seen), *_recent(seen)):
        if denied := pattern.search(text):
            account = f"{denied['namespace']}/{denied['name']}"
            yield Blame(_forbidden(account, denied["verb"], denied["group"], denied["resource"], denied["place"] or ""))
            return


def _forbidden(account: str, verb: str, group: str, resource: str, place: str) -> Finding:
    named = f"{resource}.{group}" if group else resource
    return findings.CERT_MANAGER_FORBIDDEN.found(
        subject=f"ServiceAccount {account}",
        problem=f"cert-manager may not {verb} {named}{f' in namespace {place}' if place else ''}.",
        fix="certwright platform install puts the chart's roles back; by hand: kubectl create clusterrole "
        f"certwright-mended --verb={verb} --resource={named}, bound to {account}.",
    )


def certificate_is_there(seen: Snapshot) -> Blames:
    """There is something to diagnose; a domain whose name does not point here has no Certificate yet."""
    if seen.certificate is None:
        for hostname in seen.hostnames:
            yield from _names(seen, hostname)
        yield Blame(
            findings.CERTIFICATE_MISSING.found(
                subject=f"Certificate {seen.namespace}/{seen.name}",
                problem="There is no such Certificate.",
                fix="certwright onboard asks for a domain; kubectl get certificates -A lists those that are there.",
            )
        )


def issuer_serves(seen: Snapshot) -> Blames:
    """The issuer is there, in the right namespace, and ready."""
    ref = issuer_of(seen.certificate) if seen.certificate is not None else None
    if ref is None or not seen.issuer_seen:
        return
    if seen.issuer is None and seen.issuer_namespaces:
        elsewhere = ", ".join(seen.issuer_namespaces)
        yield Blame(
            findings.ISSUER_MISSING.found(
                subject=f"Issuer {seen.issuer_namespaces[0]}/{ref.name}",
                problem=f"It lies in namespace {elsewhere}, and an Issuer serves its own only: the Certificate is in "
                f"{seen.namespace}.",
                fix=f"Make a ClusterIssuer of it, or an Issuer {ref.name} in namespace {seen.namespace}.",
            )
        )
        return
    for finding in diagnosis.issuer_status(ref, seen.issuer).findings:
        key = re.search(r"private key is invalid|secret was not found|is not of type RSA", finding.problem)
        acme = ((seen.issuer or {}).get("spec") or {}).get("acme") or {}
        secret = (acme.get("privateKeySecretRef") or {}).get("name", "")
        if key and secret:
            where = ref.namespace if ref.kind is IssuerKind.ISSUER else "cert-manager"
            finding = findings.ACCOUNT_KEY_UNUSABLE.found(
                subject=f"Secret {where}/{secret}",
                problem=f"It holds no key of the ACME account of {finding.subject}: {finding.problem}",
                fix="certwright restore puts it back from a backup; without one: kubectl delete secret "
                f"-n {where} {secret}, and set disableAccountKeyGeneration to false: a new account is registered.",
            )
        yield Blame(finding)


def secret_is_its_own(seen: Snapshot) -> Blames:
    """One Secret, one Certificate: two that write the same one issue for ever, in turns."""
    if seen.certificate is None:
        return
    secret = seen.certificate["spec"]["secretName"]
    for other in seen.certificates:
        yield Blame(
            findings.SECRET_COLLISION.found(
                subject=f"Certificate {_place(other)}",
                problem=f"It writes to Secret {seen.namespace}/{secret} too, as Certificate {seen.name} does.",
                fix=f"Give it another secretName: kubectl edit certificate -n {_words(other)}",
            )
        )
    if seen.secret_owner is not None and not seen.certificates and seen.secret_owner not in ("", seen.name):
        yield Blame(
            findings.SECRET_COLLISION.found(
                subject=f"Secret {seen.namespace}/{secret}",
                problem=f"It was made for Certificate {seen.secret_owner}.",
                fix=f"Give Certificate {seen.name} another secretName.",
            )
        )


def request_is_made(seen: Snapshot) -> Blames:
    """An object that was restored, or left over, has the name that cert-manager needs ("already exists")."""
    certificate = seen.certificate
    if certificate is None or seen.settled:
        return
    if seen.issuing:
        # cert-manager names a request after Certificate and revision, and does not look for another name
        name = f"{seen.name}-{seen.next_revision}"
        yield from _in_the_way(
            seen, certificate, "CertificateRequest", (one for one in seen.requests if one["metadata"]["name"] == name)
        )
    request, order = seen.request, seen.order
    if request is not None and order is None:
        prefix = f"{request['metadata']['name']}-"
        left = (one for one in seen.orders if one["metadata"]["name"].startswith(prefix))
        yield from _in_the_way(seen, request, "Order", left)
    if order is not None and not seen.present and _state(order) not in FINAL_STATES:
        prefix = f"{order['metadata']['name']}-"
        left = (one for one in seen.challenges if one["metadata"]["name"].startswith(prefix))
        yield from _in_the_way(seen, order, "Challenge", left)


def _in_the_way(seen: Snapshot, owner: Document, kind: str, candidates: Iterable[Document]) -> Blames:
    for one in candidates:
        if controlled(one, owner):
            continue
        where = _place(one)
        finding = findings.REQUEST_DEADLOCK.found(
            subject=f"{kind} {where}",
            problem=f"It has the name that cert-manager needs for the next step of Certificate {seen.name}, and does "
            "not belong to it: it was restored, or left over (cert-manager#7912).",
            fix=f"kubectl delete {kind.lower()} -n {_words(one)}; then renew.",
        )
        # A foreign object is for its owner to delete; one that names this Certificate can serve nobody else.
        nobodys = annotation(one, CERTIFICATE_NAME) == seen.name or kind == "Challenge"
        remedy = (
            _remedy(seen, Action.DELETE, kind, one, f"delete {kind} {where}, and renew", renew=True)
            if nobodys
            else None
        )
        yield Blame(finding, remedy)


def request_is_approved(seen: Snapshot) -> Blames:
    """A request waits for an approver, or was denied, or the issuer refuses it."""
    request = seen.request
    if request is None or seen.settled:
        return
    conditions = conditions_of(request)
    if not conditions.get("Approved") and not conditions.get("Denied") and _age(request, seen.now) > SETTLE:
        issuer = request["spec"]["issuerRef"]
        signer = f"{issuer.get('kind', 'Issuer').lower()}s.{issuer.get('group', 'cert-manager.io')}"
        yield Blame(
            findings.REQUEST_NOT_APPROVED.found(
                subject=f"CertificateRequest {_place(request)}",
                problem=f"Nobody has approved it: no approver may approve for {signer}.",
                fix=f"Let cert-manager approve {signer}/* (chart value approveSignerNames), or run the approver that "
                f"does; once: cmctl approve -n {_words(request)}",
            )
        )


def order_goes_on(seen: Snapshot) -> Blames:
    """The CA has taken the order, and cert-manager's issuer has a solver for each name."""
    order = seen.order
    if order is None or seen.settled or _state(order) in FINAL_STATES:
        return
    subject = f"Order {_place(order)}"
    unsolved = [text for text in _recent(seen, order) if "valid solver configuration" in text]
    if unsolved and not seen.present:
        yield Blame(
            findings.NO_SOLVER.found(
                subject=_issuer_subject(seen),
                problem=said(unsolved[-1]),
                fix="Give the issuer a solver without a selector, or one that selects the names: "
                f"{', '.join(seen.hostnames[:4])}. Then renew.",
            )
        )
    if not (order.get("status") or {}).get("url") and _age(order, seen.now) > 2 * SETTLE:
        yield Blame(
            findings.ORDER_NOT_TAKEN.found(
                subject=subject,
                problem=f"The CA has not taken it for {_age(order, seen.now).total_seconds():.0f} s: it does not "
                f"answer cert-manager, or {_issuer_subject(seen)} is not ready.",
                fix="Let cert-manager reach the CA's directory; it goes on asking by itself. "
                "kubectl logs -n cert-manager deployment/cert-manager",
            )
        )


def caa_allows(seen: Snapshot) -> Blames:
    """The records that a CA will read let it issue; a certificate that is there meets them at its renewal."""
    for finding in _caa(seen):
        if not seen.settled:
            yield Blame(finding)
        elif finding.severity is Severity.ERROR:
            later = f"At the next renewal the CA will refuse. {finding.problem}"
            yield Blame(replace(finding, severity=Severity.WARNING, problem=later))


def _caa(seen: Snapshot) -> tuple[Finding, ...]:
    if seen.certificate is None or not seen.caa:
        return ()
    acme = acme_of(request_of(seen.certificate, seen.gateway), seen.issuer, seen.caa_identities)
    return caa_foreseen(acme, seen.caa, seen.cname_target).findings


def challenges_pass(seen: Snapshot) -> Blames:
    """Each challenge that is open or failed: the CA's own words, or what on the way to the solver is in its way."""
    if seen.settled:
        return
    for one in seen.present:
        state = _state(one)
        if state in ("valid", "processing") or one["metadata"].get("deletionTimestamp"):
            continue
        nearer = list(_on_the_way(seen, one))
        yield from nearer
        if not any(blame.finding.severity is Severity.ERROR for blame in nearer):
            yield from _by_its_words(seen, one)


def _on_the_way(seen: Snapshot, challenge: Document) -> Blames:
    hostname, status = str(challenge["spec"]["dnsName"]), challenge.get("status") or {}
    reason, failed = said(status.get("reason") or ""), _state(challenge) in FINAL_STATES
    solver = challenge["spec"].get("solver") or {}
    if failed and re.search(r"error:caa|rateLimited|rejectedIdentifier|\bCAA\b", reason):
        return  # the CA has said why, and it is not the way
    if astray := _astray(seen, hostname):
        yield from map(Blame, astray)
        return
    if not failed and not status.get("presented"):
        yield from _presented(seen, challenge, reason)
        return
    if challenge["spec"].get("type") == "DNS-01":
        return
    old = _age(challenge, seen.now) > SETTLE
    if not failed and old and seen.solver_seen:
        yield from _solver(seen, challenge)
        ingress = (solver.get("http01") or {}).get("ingress") or {}
        # others' solvers may have an Ingress controller that routes them
        by_us = solvers.needs_route(solver) if seen.ours else ingress.get("ingressClassName") == solvers.UNROUTED_CLASS
        if seen.routes_seen and by_us:
            yield from _route(seen, challenge)
        yield from _parents(seen, challenge)
    yield from _names(seen, hostname)
    yield from _gateway_in_the_way(seen, challenge, reason)


def _astray(seen: Snapshot, hostname: str) -> tuple[Finding, ...]:
    """Why the record of a DNS-01 challenge cannot be where the CA looks."""
    record = challenge_record(hostname)
    return findings.errors(
        delegation_verdict(one for one in seen.delegations if one.challenge.record == record).findings
    )


def _presented(seen: Snapshot, challenge: Document, reason: str) -> Blames:
    words = reason or next(iter(_recent(seen, challenge)), "")
    subject = f"Challenge {_place(challenge)}"
    if not words or ("cannot " in words and "system:serviceaccount" in words):
        return  # on its way, or cert-manager's missing permission, told before
    if re.search(r"gateway api is not enabled", words, re.IGNORECASE):
        yield Blame(
            findings.ISSUER_CONFIGURATION_INVALID.found(
                subject=_issuer_subject(seen),
                problem="Its solver makes an HTTPRoute, and cert-manager does not serve the Gateway API.",
                fix="Install the Gateway API's CRDs, set the chart's config.enableGatewayAPI to true, and restart "
                "cert-manager's controller: it looks for them when it starts.",
            )
        )
        return
    dns = challenge["spec"].get("type") == "DNS-01"
    yield Blame(
        findings.CHALLENGE_NOT_PRESENTED.found(
            subject=subject,
            problem=f"cert-manager cannot put up the answer to the CA's question ({'DNS-01' if dns else 'HTTP-01'}): "
            f"{words}",
            fix="Check the credentials that the issuer's DNS solver names, and whether it selects this name."
            if dns
            else "Mend what the API server refuses (a quota, an admission policy, a missing ServiceAccount); "
            "it is tried again.",
        )
    )


def _solver(seen: Snapshot, challenge: Document) -> Blames:
    """Pod, Service and endpoints of the solver."""
    services = [one for one in seen.solver_services if controlled(one, challenge)]
    pods = [one for one in seen.solver_pods if controlled(one, challenge)]
    if any(_pod_ready(pod) for pod in pods) and (not services or _has_endpoints(seen, services)):
        return
    where = _place(challenge)
    again = _remedy(
        seen,
        Action.DELETE,
        "Challenge",
        challenge,
        f"delete Challenge {where}: its Order makes it anew, with a new solver",
    )
    for pod in pods:
        if not _pod_ready(pod) and _age(pod, seen.now) > SETTLE:
            yield Blame(
                findings.SOLVER_NOT_READY.found(
                    subject=f"Pod {_place(pod)}",
                    problem=f"The solver's Pod does not run: {said(_pod_words(pod))}",
                    fix=f"kubectl describe pod -n {_words(pod)}; mend what keeps it, or correct the issuer's "
                    "podTemplate (nodeSelector, tolerations) and renew.",
                )
            )
            return
    if not pods:
        yield Blame(
            findings.SOLVER_NOT_READY.found(
                subject=f"Challenge {where}",
                problem="Its solver's Pod, which answers the CA's question, is gone.",
                fix=f"kubectl delete challenge -n {_words(challenge)}: its Order makes it anew, with a new solver.",
            ),
            again,
        )
    elif services and any(_pod_ready(pod) for pod in pods):
        yield Blame(
            findings.SOLVER_NOT_READY.found(
                subject=f"Service {_place(services[0])}",
                problem="It has no endpoint, though the solver's Pod is ready: its selector or port was changed.",
                fix=f"kubectl delete challenge -n {_words(challenge)}: its Order makes it anew, with a new Service.",
            ),
            again,
        )


def _route(seen: Snapshot, challenge: Document) -> Blames:
    """Only for our own solvers, which no Ingress controller routes: some VirtualService has the exact path."""
    path = CHALLENGE_PATH + str(challenge["spec"].get("token", ""))
    services = {one["metadata"]["name"] for one in seen.solver_services if controlled(one, challenge)}
    for route in seen.routes:
        for entry in route["spec"].get("http") or ():
            exact = any((match.get("uri") or {}).get("exact") == path for match in entry.get("match") or ())
            hosts = {target["destination"]["host"].partition(".")[0] for target in entry.get("route") or ()}
            if exact and (not services or hosts & services):
                return
    for route in seen.http_routes:
        for rule in route["spec"].get("rules") or ():
            exact = any((match.get("path") or {}).get("value") == path for match in rule.get("matches") or ())
            backends = {one.get("name") for one in rule.get("backendRefs") or ()}
            if exact and (not services or backends & services):
                return
    if not services:
        return  # nothing to lead to
    hostname = str(challenge["spec"]["dnsName"])
    domain = annotation(seen.certificate or challenge, "certwright.dev/domain")
    name = names.challenge_route_name(domain or hostname)
    kind = "HTTPRoute" if seen.gateway.kind is GatewayKind.GATEWAY_API else "VirtualService"
    finding = findings.CHALLENGE_NOT_ROUTED.found(
        subject=f"{kind} {seen.gateway.namespace}/{name}",
        problem=f"No route leads the challenge's path of {hostname} to Service {', '.join(sorted(services))}: nobody "
        "watches this issuance, or the route was taken away.",
        fix=f"certwright diagnose {domain} --fix applies it; see that a certwright-worker runs."
        if domain
        else "Have the domain made by certwright, or use a solver whose Ingress class or Gateway somebody serves.",
    )
    remedy = Remedy(
        action=Action.ROUTE,
        kind=kind,
        namespace=seen.gateway.namespace,
        name=name,
        words=f"apply {kind} {seen.gateway.namespace}/{name} for the open challenges",
    )
    yield Blame(finding, remedy if domain else None)


def _parents(seen: Snapshot, challenge: Document) -> Blames:
    """The HTTPRoute that cert-manager made for the challenge hangs on a Gateway that is there and takes it."""
    for route in seen.http_routes:
        if not controlled(route, challenge):
            continue
        hostname = str(challenge["spec"]["dnsName"])
        for parent in parents_of(route):
            if parent in seen.parents_missing:
                yield Blame(
                    findings.CHALLENGE_NOT_ROUTED.found(
                        subject=f"Gateway {parent}",
                        problem=f"It is not there, and the challenge's HTTPRoute {_place(route)} for {hostname} names "
                        "it as its parent: nobody answers the challenge.",
                        fix=f"Name a Gateway that is there: kubectl edit {_issuer_kubectl(seen)}: gatewayHTTPRoute."
                        "parentRefs of its solver; then renew.",
                    )
                )
        for words in _not_accepted(route):
            yield Blame(
                findings.CHALLENGE_NOT_ROUTED.found(
                    subject=f"HTTPRoute {_place(route)}",
                    problem=f"Its Gateway does not take it, so nobody answers the challenge of {hostname}: {words}",
                    fix=f"kubectl describe httproute -n {_words(route)}; let a listener of the Gateway allow routes of "
                    f"namespace {seen.namespace} (allowedRoutes) for {hostname}.",
                )
            )


def _not_accepted(route: Document) -> Iterator[str]:
    """Gateway API reference: RouteParentStatus, condition Accepted."""
    for parent in (route.get("status") or {}).get("parents") or ():
        for one in parent.get("conditions") or ():
            if (one["type"], one["status"]) == ("Accepted", "False"):
                yield said(f"{one.get('reason') or ''} {one.get('message') or ''}")


def _names(seen: Snapshot, hostname: str) -> Blames:
    """Whether the name points at the gateway; where that is not known, nothing is said against it."""
    answers = [one for one in seen.answers if one.hostname == hostname]
    verdict = routing_verdict(answers, seen.gateway_addresses, seen.cname_target)
    if verdict.status is not RoutingStatus.POINTED and answers:
        yield from map(Blame, verdict.findings)


def _gateway_in_the_way(seen: Snapshot, challenge: Document, reason: str) -> Blames:
    """A redirect or a policy of the gateway itself, by who made it; else what port 80 answers."""
    hostname = str(challenge["spec"]["dnsName"])
    mine = [one for one in seen.path if one.hostname == hostname]
    place = f"{seen.gateway.namespace}/{seen.gateway.service}"
    verdict = challenge_path.path_verdict(mine, seen.gateway_addresses, gateway=place, source="from here")
    blocked = {one.code for one in verdict.findings}
    swallowing = [one for one in seen.gateways if _swallows(one, hostname, dict(seen.gateway.selector))]
    for gateway in swallowing:
        where = _place(gateway)
        yield Blame(
            findings.CHALLENGE_PATH_REDIRECTED.found(
                subject=f"Gateway {where}",
                problem=f"Its httpsRedirect on port 80 answers the challenge's path of {hostname}, before any route.",
                fix=f"kubectl edit gateway.networking.istio.io -n {_words(gateway)}: take httpsRedirect from port 80, "
                "and redirect in the VirtualService, as the last route.",
            )
        )
    denying = [one for one in seen.policies if _applies(one, seen)]
    forbidden = findings.CHALLENGE_PATH_FORBIDDEN.code in blocked or re.search(r"\b403\b", reason)
    if forbidden and denying:
        policy = denying[0]
        yield Blame(
            findings.CHALLENGE_PATH_FORBIDDEN.found(
                subject=f"AuthorizationPolicy {_place(policy)}",
                problem=f"The gateway answers 403 to the challenge's path of {hostname}.",
                fix=f"kubectl edit authorizationpolicy -n {_words(policy)}: except the path by "
                f'to: [{{operation: {{notPaths: ["{CHALLENGE_PATH}*"]}}}}].',
            )
        )
    before = [one for one in seen.routes if _goes_before(one, CHALLENGE_PATH + str(challenge["spec"].get("token", "")))]
    unavailable = findings.CHALLENGE_PATH_UNAVAILABLE.code in blocked
    if unavailable and before:
        route = before[0]
        yield Blame(
            findings.CHALLENGE_PATH_UNAVAILABLE.found(
                subject=f"VirtualService {_place(route)}",
                problem=f"Its route takes the challenge's path of {hostname}, before the challenge's own, and leads "
                "to a Service that does not answer: the gateway says 503.",
                fix=f"kubectl edit virtualservice -n {_words(route)}: take {CHALLENGE_PATH} from it.",
            )
        )
    told = {
        *((findings.CHALLENGE_PATH_UNAVAILABLE.code,) if before else ()),
        *((findings.CHALLENGE_PATH_REDIRECTED.code,) if swallowing else ()),
        *((findings.CHALLENGE_PATH_FORBIDDEN.code,) if denying else ()),
    }
    yield from (Blame(one) for one in verdict.findings if one.code not in told)


def _by_its_words(seen: Snapshot, challenge: Document) -> Blames:
    """What cert-manager and the CA say of it, where nothing on its way explains it."""
    if _state(challenge) not in FINAL_STATES and _age(challenge, seen.now) < SETTLE:
        return
    by_records = {(one.code, one.subject) for one in _caa(seen)}
    for finding in diagnosis.issuance_findings(seen.certificate or {}, (), (), (challenge,)):
        # the records themselves name the one to set, and go before the CA's word about them
        if finding.code == findings.ISSUANCE_BACKING_OFF.code or (finding.code, finding.subject) in by_records:
            continue
        dns = challenge["spec"].get("type") == "DNS-01"
        over = finding.code == findings.CHALLENGE_FAILED.code and not dns and not seen.issuing
        if over and _points_here(seen, finding.subject):
            # what the CA met is past, and what can be seen of its way is free: one attempt tells
            fix = f"Nothing is in its way any more as far as can be seen: renew. If it fails again: {finding.fix}"
            yield Blame(replace(finding, fix=fix), _renewal(seen))
        else:
            yield Blame(finding)


def _points_here(seen: Snapshot, hostname: str) -> bool:
    answers = [one for one in seen.answers if one.hostname == hostname]
    verdict = routing_verdict(answers, seen.gateway_addresses, seen.cname_target)
    return bool(answers) and verdict.status is RoutingStatus.POINTED


def _renewal(seen: Snapshot) -> Remedy:
    return Remedy(
        action=Action.RENEW,
        kind="Certificate",
        namespace=seen.namespace,
        name=seen.name,
        words=f"ask cert-manager to issue Certificate {seen.namespace}/{seen.name} now",
    )


def names_point_here(seen: Snapshot) -> Blames:
    """The names of a domain of ours, also while nothing is issued: visitors go where they point."""
    if seen.ours:
        for hostname in seen.hostnames:
            yield from _names(seen, hostname)


def issuance_has_not_failed(seen: Snapshot) -> Blames:
    """What request and order say of the failure, and when cert-manager tries again."""
    certificate, request, order = seen.certificate, seen.request, seen.order
    if certificate is None or seen.settled:
        return
    found = diagnosis.issuance_findings(
        certificate, (request,) if request is not None else (), (order,) if order is not None else (), ()
    )
    waiting = [one for one in found if one.code == findings.ISSUANCE_BACKING_OFF.code]
    issuer = {findings.ISSUER_MISSING.code, findings.ISSUER_NOT_READY.code}
    told = set(issuer)  # the issuer itself is looked at, and a request repeats what its order says
    for finding in found:
        if finding in waiting or finding.code in told:
            continue
        told.add(finding.code)
        if finding.code == findings.ACCOUNT_REFUSED.code:
            finding = replace(finding, subject=_issuer_subject(seen))
        yield Blame(finding)
    if not seen.issuing:
        yield from (Blame(one, _renewal(seen)) for one in waiting)


def challenges_are_finalized(seen: Snapshot) -> Blames:
    """A deleted Challenge that stays keeps others for its name waiting."""
    for one in seen.challenges:
        deleted = _instant(one["metadata"].get("deletionTimestamp"))
        held = [name for name in one["metadata"].get("finalizers") or () if "acme.cert-manager.io" in name]
        if deleted is None or not held or seen.now - deleted < STUCK:
            continue
        where, reason = _place(one), said((one.get("status") or {}).get("reason") or "")
        owners = {owner["uid"] for owner in one["metadata"].get("ownerReferences") or ()}
        orders = [order for order in seen.orders if order["metadata"]["uid"] in owners]
        # also where it is gone; what may not be looked at may be there
        ended = seen.orders_seen and seen.solver_seen and all(_state(order) in FINAL_STATES for order in orders)
        solver = [part for part in (*seen.solver_pods, *seen.solver_services) if controlled(part, one)]
        why = f": {reason}" if reason else "."
        finding = findings.CHALLENGE_NOT_FINALIZED.found(
            subject=f"Challenge {where}",
            problem=f"It was deleted {(seen.now - deleted).total_seconds():.0f} s ago, and cert-manager's mark that it "
            f"has to clean up first (a finalizer) keeps it{why}",
            fix=f'kubectl patch challenge -n {_words(one)} --type=merge -p \'{{"metadata":{{"finalizers":null}}}}\''
            if ended and not solver
            else f"kubectl describe challenge -n {_words(one)}: mend what its clean-up meets.",
        )
        free = ended and not solver
        yield Blame(
            finding,
            _remedy(seen, Action.RELEASE, "Challenge", one, f"take the finalizer from Challenge {where}")
            if free
            else None,
        )


def secret_is_good(seen: Snapshot) -> Blames:
    """What the Secret holds."""
    if seen.certificate is None or not seen.secret_seen:
        return
    for finding in seen.secret_findings:
        renew = (
            f"cmctl renew -n {seen.namespace} {seen.name}"  # of others' Certificates `certwright renew` knows nothing
        )
        yield Blame(finding if seen.ours else replace(finding, fix=renew))
    if seen.settled and seen.secret is None and not seen.secret_findings:
        name = seen.certificate["spec"]["secretName"]
        yield Blame(
            findings.SECRET_MISSING.found(
                subject=f"Secret {seen.namespace}/{name}",
                problem="The Certificate is Ready, and its Secret is not there.",
                fix="cert-manager makes it anew by itself; if it does not: kubectl logs -n cert-manager "
                "deployment/cert-manager",
            )
        )


def gateway_has_the_secret(seen: Snapshot) -> Blames:
    """The Gateways that serve the names find their Secrets in their own namespace, and may read them."""
    certificate = seen.certificate
    if certificate is None:
        return
    secret, selector = certificate["spec"]["secretName"], dict(seen.gateway.selector)
    for gateway in seen.gateways:
        if not _same_workload(gateway, selector):
            continue
        for server in gateway["spec"].get("servers") or ():
            credential = str((server.get("tls") or {}).get("credentialName") or "")
            if not credential or not _hosts(server) & set(seen.hostnames) or credential not in seen.credentials:
                continue
            where = _place(gateway)
            if credential == secret and seen.namespace != seen.gateway.namespace:
                yield Blame(
                    findings.SECRET_IN_OTHER_NAMESPACE.found(
                        subject=f"Certificate {seen.namespace}/{seen.name}",
                        problem=f"Its Secret {secret} is in {seen.namespace}, and Gateway {where} is served from "
                        f"{seen.gateway.namespace}: Envoy gets Secrets of that namespace only.",
                        fix=f"Make the Certificate in namespace {seen.gateway.namespace}.",
                    )
                )
            elif credential != secret or seen.settled:
                yield Blame(
                    findings.CREDENTIAL_MISSING.found(
                        subject=f"Gateway {where}",
                        problem=f"It names Secret {credential}, and namespace {seen.gateway.namespace} has none such.",
                        fix=f"Set credentialName to {secret}: kubectl edit gateway.networking.istio.io "
                        f"-n {_words(gateway)}",
                    )
                )
    for account in seen.accounts_denied:
        namespace, _, name = account.partition("/")
        yield Blame(
            findings.GATEWAY_MAY_NOT_READ_SECRETS.found(
                subject=f"ServiceAccount {account}",
                problem=f"It may not list Secrets of {namespace}, so istiod gives its Envoy none.",
                fix=f"kubectl create role {name}-sds -n {namespace} --verb=get,watch,list --resource=secrets && "
                f"kubectl create rolebinding {name}-sds -n {namespace} --role={name}-sds "
                f"--serviceaccount={namespace}:{name}",
            )
        )


def edge_serves(seen: Snapshot) -> Blames:
    """What every address of the gateway really serves."""
    yield from map(Blame, seen.edge)


def cert_manager_is_outside(seen: Snapshot) -> Blames:
    """The mesh captures cert-manager's traffic, DNS included (cert-manager#5917)."""
    for pod in seen.controllers:
        ambient = annotation(pod, "ambient.istio.io/redirection") == "enabled"
        if ambient or in_mesh(pod):
            namespace = pod["metadata"]["namespace"]
            yield Blame(
                findings.CERT_MANAGER_IN_MESH.found(
                    subject=f"Pod {_place(pod)}",
                    problem=f"The mesh captures its traffic ({'ambient' if ambient else 'a sidecar'}): its self-checks "
                    "and DNS queries do not see what a CA sees.",
                    fix=f"kubectl label namespace {namespace} istio.io/dataplane-mode=none istio-injection=disabled "
                    "--overwrite; then restart cert-manager's Deployments.",
                )
            )


RULES: tuple[Callable[[Snapshot], Blames], ...] = (
    cert_manager_runs,
    webhook_answers,
    cert_manager_is_allowed,
    certificate_is_there,
    issuer_serves,
    secret_is_its_own,
    request_is_made,
    request_is_approved,
    order_goes_on,
    challenges_are_finalized,
    caa_allows,
    challenges_pass,
    names_point_here,
    issuance_has_not_failed,
    secret_is_good,
    gateway_has_the_secret,
    edge_serves,
    cert_manager_is_outside,
)
"""From what all certificates need to what only this one meets, and from the Certificate to the edge."""


# --- the chain, for people --------------------------------------------------------------------------------------------


def _chain(seen: Snapshot, found: tuple[Finding, ...]) -> tuple[Link, ...]:
    """Every object that an issuance passes through, whether good or bad."""
    bad = {finding.subject for finding in findings.errors(found)}

    def link(kind: str, document: Document, state: LinkState, words: str) -> Link:
        subject = f"{kind} {_place(document)}"
        return Link(subject=subject, state=LinkState.BAD if subject in bad else state, words=said(words))

    links: list[Link] = []
    if seen.certificate is not None:
        ready = conditions_of(seen.certificate).get("Ready", {})
        state = LinkState.GOOD if ready.get("status") == "True" else LinkState.WAITING
        words = conditions_of(seen.certificate).get("Issuing", {}).get("message") or ready.get("message", "")
        links.append(link("Certificate", seen.certificate, state, words))
        ref = seen.certificate["spec"]["issuerRef"]
        good = seen.issuer is not None and conditions_of(seen.issuer).get("Ready", {}).get("status") == "True"
        if seen.issuer is not None:
            words = conditions_of(seen.issuer).get("Ready", {}).get("message", "")
            links.append(
                Link(subject=_issuer_subject(seen), state=LinkState.GOOD if good else LinkState.BAD, words=said(words))
            )
        elif issuer_of(seen.certificate) is not None:
            state = LinkState.BAD if seen.issuer_seen else LinkState.UNKNOWN
            links.append(Link(subject=f"{ref.get('kind', 'Issuer')} {ref['name']}", state=state, words="not there"))
    if not seen.settled and seen.request is not None:
        ready = conditions_of(seen.request).get("Ready", {})
        failed = ready.get("reason") in ("Failed", "Denied")
        state = LinkState.BAD if failed else _good_if(ready.get("status") == "True")
        links.append(link("CertificateRequest", seen.request, state, ready.get("message", "")))
    if not seen.settled and seen.order is not None:
        links.append(link("Order", seen.order, *_state_words(seen.order)))
    for challenge in seen.present if not seen.settled else ():
        links.append(link("Challenge", challenge, *_state_words(challenge)))
        links += [
            link("Pod", pod, _good_if(_pod_ready(pod)), "ready" if _pod_ready(pod) else _pod_words(pod))
            for pod in seen.solver_pods
            if controlled(pod, challenge)
        ]
        links += [
            link("Service", one, _good_if(_has_endpoints(seen, [one])), "")
            for one in seen.solver_services
            if controlled(one, challenge)
        ]
    for hostname in seen.hostnames if seen.answers else ():
        answers = [one for one in seen.answers if one.hostname == hostname]
        verdict = routing_verdict(answers, seen.gateway_addresses, seen.cname_target)
        state = LinkState.GOOD if verdict.status is RoutingStatus.POINTED else LinkState.BAD
        state = LinkState.UNKNOWN if verdict.status is RoutingStatus.UNKNOWN else state
        addresses = ", ".join(dict.fromkeys(address for one in answers for address in one.addresses))
        links.append(Link(subject=f"DNS {hostname}", state=state, words=addresses or "no address"))
    links += [
        link("Gateway", one, LinkState.GOOD, "")
        for one in seen.gateways
        if any(_hosts(server) & set(seen.hostnames) for server in one["spec"].get("servers") or ())
    ]
    if seen.certificate is not None and seen.secret is not None:
        subject = f"Secret {seen.namespace}/{seen.certificate['spec']['secretName']}"
        words = f"{seen.secret.fingerprint[:16]}, valid until {seen.secret.not_after:%Y-%m-%d %H:%M} UTC"
        links.append(Link(subject=subject, state=LinkState.BAD if subject in bad else LinkState.GOOD, words=words))
    links += [
        Link(
            subject=f"edge {one.address} {one.hostname}",
            state=LinkState.BAD if one.problem else LinkState.GOOD,
            words=one.problem or f"serves {one.fingerprint[:16]}",
        )
        for one in seen.served
    ]
    return tuple(links)


def _state_words(document: Document) -> tuple[LinkState, str]:
    state, status = _state(document), document.get("status") or {}
    good, bad = state in ("valid", "ready"), state in FINAL_STATES - {"valid"}
    words = f"{state or 'made'} {status.get('reason') or ''}".strip()
    return LinkState.GOOD if good else LinkState.BAD if bad else LinkState.WAITING, words


def _events(seen: Snapshot) -> tuple[EventLine, ...]:
    newest = sorted(seen.events, key=_event_at, reverse=True)[:_MOST_EVENTS]
    return tuple(
        EventLine(
            at=_event_at(one),
            subject=f"{one['involvedObject'].get('kind')} {one['involvedObject'].get('name')}",
            words=said(f"{one.get('reason') or ''}: {one.get('message') or ''}"),
        )
        for one in newest
    )


# --- reading objects --------------------------------------------------------------------------------------------------


def _remedy(
    seen: Snapshot, action: Action, kind: str, document: Document, words: str, *, renew: bool = False
) -> Remedy:
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


def _reasons(seen: Snapshot) -> Iterator[str]:
    """What objects say of themselves; a deleted Challenge's clean-up is told with its finalizer."""
    for one in (*(one for one in seen.challenges if not _deleted(one)), *seen.orders):
        yield str((one.get("status") or {}).get("reason") or "")
    for request in seen.requests:
        yield from (str(one.get("message") or "") for one in conditions_of(request).values())


def _recent(seen: Snapshot, document: Document | None = None) -> list[str]:
    """The words of warnings that are not old, of one object or of all."""
    uid = document["metadata"]["uid"] if document is not None else ""
    over = {one["metadata"]["uid"] for one in seen.challenges if _deleted(one)}
    return [
        str(one.get("message") or "")
        for one in seen.events
        if (not uid or one["involvedObject"].get("uid") == uid)
        and one["involvedObject"].get("uid") not in over
        and (at := _instant(_event_at(one))) is not None
        and seen.now - at < RECENT
    ]


def _event_at(event: Document) -> str:
    """`series` counts for events of the newer kind (events.k8s.io), `lastTimestamp` for the older one."""
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or "")


def _issuer_subject(seen: Snapshot) -> str:
    ref = issuer_of(seen.certificate) if seen.certificate is not None else None
    if ref is None:
        return "the issuer"
    return f"{ref.kind.value} {ref.namespace}/{ref.name}" if ref.namespace else f"{ref.kind.value} {ref.name}"


def _issuer_kubectl(seen: Snapshot) -> str:
    kind, _, place = _issuer_subject(seen).partition(" ")
    namespace, _, name = place.rpartition("/")
    return f"{kind.lower()} {f'-n {namespace} ' if namespace else ''}{name}"


def _swallows(gateway: Document, hostname: str, selector: dict[str, str]) -> bool:
    """A redirect on the Gateway goes before every route, the challenge's too (measured: 301)."""
    return _same_workload(gateway, selector) and any(
        (server.get("tls") or {}).get("httpsRedirect")
        and (server.get("port") or {}).get("number") == 80
        and any(_matches(host, hostname) for host in _hosts(server))
        for server in gateway["spec"].get("servers") or ()
    )


def _goes_before(route: Document, path: str) -> bool:
    """Whether a VirtualService takes the path by a prefix, and so perhaps before the exact route that is ours.

    Istio puts what takes every path last, whoever came first (pilot: SortVHostRoutes).
    """
    prefixes = (
        str((match.get("uri") or {}).get("prefix") or "")
        for entry in route["spec"].get("http") or ()
        for match in entry.get("match") or ()
    )
    return any(len(prefix) > 1 and path.startswith(prefix) for prefix in prefixes)


def _applies(policy: Document, seen: Snapshot) -> bool:
    """Whether an AuthorizationPolicy may deny at the gateway: it selects its Pods, and does not only audit."""
    labels = ((policy["spec"].get("selector") or {}).get("matchLabels") or {}).items()
    selects = set(labels) <= set(seen.gateway.selector)
    here = policy["metadata"]["namespace"] in (seen.gateway.namespace, "istio-system")
    return selects and here and policy["spec"].get("action", "ALLOW") != "AUDIT"


def _same_workload(gateway: Document, selector: dict[str, str]) -> bool:
    theirs = gateway["spec"].get("selector") or {}
    return set(theirs.items()) <= set(selector.items()) or set(selector.items()) <= set(theirs.items())


def _hosts(server: Document) -> set[str]:
    return {str(host).rpartition("/")[2].lower() for host in server.get("hosts") or ()}


def _matches(host: str, hostname: str) -> bool:
    """Istio reference: Server.hosts: a leading ``*`` stands for any prefix."""
    return host == hostname or (host.startswith("*") and hostname.endswith(host[1:]))


def _has_endpoints(seen: Snapshot, services: list[Document]) -> bool:
    wanted = {one["metadata"]["name"] for one in services}
    if not seen.endpoints_seen:
        return True
    for piece in seen.endpoint_slices:
        if (piece["metadata"].get("labels") or {}).get("kubernetes.io/service-name") in wanted and any(
            (one.get("conditions") or {}).get("ready") is not False for one in piece.get("endpoints") or ()
        ):
            return True
    return False


def _pod_ready(pod: Document) -> bool:
    return conditions_of(pod).get("Ready", {}).get("status") == "True"


def _pod_words(pod: Document) -> str:
    status = pod.get("status") or {}
    for one in status.get("containerStatuses") or ():
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return f"{waiting['reason']} {waiting.get('message') or ''}".strip()
    scheduled = conditions_of(pod).get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason') or 'not scheduled'}: {scheduled.get('message') or ''}"
    return str(status.get("phase") or "it has not started")


def _good_if(good: bool) -> LinkState:
    return LinkState.GOOD if good else LinkState.WAITING


def _deleted(document: Document) -> bool:
    return bool(document["metadata"].get("deletionTimestamp"))


def _state(document: Document) -> str:
    return str((document.get("status") or {}).get("state") or "")


def _age(document: Document, now: datetime) -> timedelta:
    created = _instant(document["metadata"].get("creationTimestamp"))
    return now - created if created else timedelta(0)


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _place(document: Document) -> str:
    return f"{document['metadata'].get('namespace', '')}/{document['metadata']['name']}"


def _words(document: Document) -> str:
    return _place(document).replace("/", " ")
