"""What keeps a challenge from being passed, or a deleted one from going? The rules between the order and the gateway.

From what the CA reads before it asks (CAA) over the solver, its route and the name to the gateway's port 80. The CA's
own words count only where nothing on the way explains them. Left out: the other rules, and their order (`diagnosing`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from lifecycle import challenge_path, diagnosis, findings, names, solvers
from lifecycle.blame import SETTLE, STUCK, Action, Blame, Blames, Remedy, remedy_for, renewal_of
from lifecycle.delegation import challenge_record, delegation_verdict
from lifecycle.diagnosis import Document, said
from lifecycle.domain import GatewayKind, RoutingStatus
from lifecycle.findings import Finding, Severity
from lifecycle.foresight import acme_of, caa_foreseen
from lifecycle.manifests import CHALLENGE_PATH
from lifecycle.observed import (
    age_of,
    has_endpoints,
    host_matches,
    hosts_of,
    instant,
    issuer_kubectl,
    issuer_subject,
    place_of,
    pod_ready,
    pod_words,
    recent_words,
    same_workload,
    state_of,
    words_of,
)
from lifecycle.routing import routing_verdict
from lifecycle.snapshot import (
    FINAL_STATES,
    Snapshot,
    annotation,
    controlled,
    parents_of,
    request_of,
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
    # an order ends with its first challenge that fails: those that are open then are not solved any more
    over = seen.order is not None and state_of(seen.order) in FINAL_STATES
    for one in seen.present:
        state = state_of(one)
        if state in ("valid", "processing") or one["metadata"].get("deletionTimestamp"):
            continue
        if over and state not in FINAL_STATES:
            continue
        nearer = list(_on_the_way(seen, one))
        yield from nearer
        if not any(blame.finding.severity is Severity.ERROR for blame in nearer):
            yield from _by_its_words(seen, one)


def _on_the_way(seen: Snapshot, challenge: Document) -> Blames:
    hostname, status = str(challenge["spec"]["dnsName"]), challenge.get("status") or {}
    reason, failed = said(status.get("reason") or ""), state_of(challenge) in FINAL_STATES
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
    old = age_of(challenge, seen.now) > SETTLE
    if not failed and old and seen.solver_seen:
        yield from _solver(seen, challenge)
        ingress = (solver.get("http01") or {}).get("ingress") or {}
        # others' solvers may have an Ingress controller that routes them
        by_us = solvers.needs_route(solver) if seen.ours else ingress.get("ingressClassName") == solvers.UNROUTED_CLASS
        if seen.routes_seen and by_us:
            yield from _route(seen, challenge)
        yield from _parents(seen, challenge)
    yield from names_blamed(seen, hostname)
    yield from _gateway_in_the_way(seen, challenge, reason)


def _astray(seen: Snapshot, hostname: str) -> tuple[Finding, ...]:
    """Why the record of a DNS-01 challenge cannot be where the CA looks."""
    record = challenge_record(hostname)
    return findings.errors(
        delegation_verdict(one for one in seen.delegations if one.challenge.record == record).findings
    )


def _presented(seen: Snapshot, challenge: Document, reason: str) -> Blames:
    words = reason or next(iter(recent_words(seen, challenge)), "")
    subject = f"Challenge {place_of(challenge)}"
    if not words or ("cannot " in words and "system:serviceaccount" in words):
        return  # on its way, or cert-manager's missing permission, told before
    if re.search(r"gateway api is not enabled", words, re.IGNORECASE):
        yield Blame(
            findings.ISSUER_CONFIGURATION_INVALID.found(
                subject=issuer_subject(seen),
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
    if any(pod_ready(pod) for pod in pods) and (not services or has_endpoints(seen, services)):
        return
    where = place_of(challenge)
    again = remedy_for(
        seen,
        Action.DELETE,
        "Challenge",
        challenge,
        f"delete Challenge {where}: its Order makes it anew, with a new solver",
    )
    for pod in pods:
        if not pod_ready(pod) and age_of(pod, seen.now) > SETTLE:
            yield Blame(
                findings.SOLVER_NOT_READY.found(
                    subject=f"Pod {place_of(pod)}",
                    problem=f"The solver's Pod does not run: {said(pod_words(pod))}",
                    fix=f"kubectl describe pod -n {words_of(pod)}; mend what keeps it, or correct the issuer's "
                    "podTemplate (nodeSelector, tolerations) and renew.",
                )
            )
            return
    if not pods:
        yield Blame(
            findings.SOLVER_NOT_READY.found(
                subject=f"Challenge {where}",
                problem="Its solver's Pod, which answers the CA's question, is gone.",
                fix=f"kubectl delete challenge -n {words_of(challenge)}: its Order makes it anew, with a new solver.",
            ),
            again,
        )
    elif services and any(pod_ready(pod) for pod in pods):
        yield Blame(
            findings.SOLVER_NOT_READY.found(
                subject=f"Service {place_of(services[0])}",
                problem="It has no endpoint, though the solver's Pod is ready: its selector or port was changed.",
                fix=f"kubectl delete challenge -n {words_of(challenge)}: its Order makes it anew, with a new Service.",
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
                        problem=f"It is not there, and the challenge's HTTPRoute {place_of(route)} for {hostname} "
                        "names it as its parent: nobody answers the challenge.",
                        fix=f"Name a Gateway that is there: kubectl edit {issuer_kubectl(seen)}: gatewayHTTPRoute."
                        "parentRefs of its solver; then renew.",
                    )
                )
        for words in _not_accepted(route):
            yield Blame(
                findings.CHALLENGE_NOT_ROUTED.found(
                    subject=f"HTTPRoute {place_of(route)}",
                    problem=f"Its Gateway does not take it, so nobody answers the challenge of {hostname}: {words}",
                    fix=f"kubectl describe httproute -n {words_of(route)}; let a listener of the Gateway allow routes "
                    f"of namespace {seen.namespace} (allowedRoutes) for {hostname}.",
                )
            )


def _not_accepted(route: Document) -> Iterator[str]:
    """Gateway API reference: RouteParentStatus, condition Accepted."""
    for parent in (route.get("status") or {}).get("parents") or ():
        for one in parent.get("conditions") or ():
            if (one["type"], one["status"]) == ("Accepted", "False"):
                yield said(f"{one.get('reason') or ''} {one.get('message') or ''}")


def names_blamed(seen: Snapshot, hostname: str) -> Blames:
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
        where = place_of(gateway)
        yield Blame(
            findings.CHALLENGE_PATH_REDIRECTED.found(
                subject=f"Gateway {where}",
                problem=f"Its httpsRedirect on port 80 answers the challenge's path of {hostname}, before any route.",
                fix=f"kubectl edit gateway.networking.istio.io -n {words_of(gateway)}: take httpsRedirect from port "
                "80, and redirect in the VirtualService, as the last route.",
            )
        )
    denying = [one for one in seen.policies if _applies(one, seen)]
    forbidden = findings.CHALLENGE_PATH_FORBIDDEN.code in blocked or re.search(r"\b403\b", reason)
    if forbidden and denying:
        policy = denying[0]
        yield Blame(
            findings.CHALLENGE_PATH_FORBIDDEN.found(
                subject=f"AuthorizationPolicy {place_of(policy)}",
                problem=f"The gateway answers 403 to the challenge's path of {hostname}.",
                fix=f"kubectl edit authorizationpolicy -n {words_of(policy)}: except the path by "
                f'to: [{{operation: {{notPaths: ["{CHALLENGE_PATH}*"]}}}}].',
            )
        )
    before = [one for one in seen.routes if _goes_before(one, CHALLENGE_PATH + str(challenge["spec"].get("token", "")))]
    unavailable = findings.CHALLENGE_PATH_UNAVAILABLE.code in blocked
    if unavailable and before:
        route = before[0]
        yield Blame(
            findings.CHALLENGE_PATH_UNAVAILABLE.found(
                subject=f"VirtualService {place_of(route)}",
                problem=f"Its route takes the challenge's path of {hostname}, before the challenge's own, and leads "
                "to a Service that does not answer: the gateway says 503.",
                fix=f"kubectl edit virtualservice -n {words_of(route)}: take {CHALLENGE_PATH} from it.",
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
    if state_of(challenge) not in FINAL_STATES and age_of(challenge, seen.now) < SETTLE:
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
            yield Blame(replace(finding, fix=fix), renewal_of(seen))
        else:
            yield Blame(finding)


def _points_here(seen: Snapshot, hostname: str) -> bool:
    answers = [one for one in seen.answers if one.hostname == hostname]
    verdict = routing_verdict(answers, seen.gateway_addresses, seen.cname_target)
    return bool(answers) and verdict.status is RoutingStatus.POINTED


def challenges_are_finalized(seen: Snapshot) -> Blames:
    """A deleted Challenge that stays keeps others for its name waiting."""
    for one in seen.challenges:
        deleted = instant(one["metadata"].get("deletionTimestamp"))
        held = [name for name in one["metadata"].get("finalizers") or () if "acme.cert-manager.io" in name]
        if deleted is None or not held or seen.now - deleted < STUCK:
            continue
        where, reason = place_of(one), said((one.get("status") or {}).get("reason") or "")
        owners = {owner["uid"] for owner in one["metadata"].get("ownerReferences") or ()}
        orders = [order for order in seen.orders if order["metadata"]["uid"] in owners]
        # also where it is gone; what may not be looked at may be there
        ended = seen.orders_seen and seen.solver_seen and all(state_of(order) in FINAL_STATES for order in orders)
        solver = [part for part in (*seen.solver_pods, *seen.solver_services) if controlled(part, one)]
        why = f": {reason}" if reason else "."
        finding = findings.CHALLENGE_NOT_FINALIZED.found(
            subject=f"Challenge {where}",
            problem=f"It was deleted {(seen.now - deleted).total_seconds():.0f} s ago, and cert-manager's mark that it "
            f"has to clean up first (a finalizer) keeps it{why}",
            fix=f'kubectl patch challenge -n {words_of(one)} --type=merge -p \'{{"metadata":{{"finalizers":null}}}}\''
            if ended and not solver
            else f"kubectl describe challenge -n {words_of(one)}: mend what its clean-up meets.",
        )
        free = ended and not solver
        yield Blame(
            finding,
            remedy_for(seen, Action.RELEASE, "Challenge", one, f"take the finalizer from Challenge {where}")
            if free
            else None,
        )


def _swallows(gateway: Document, hostname: str, selector: dict[str, str]) -> bool:
    """A redirect on the Gateway goes before every route, the challenge's too (measured: 301)."""
    return same_workload(gateway, selector) and any(
        (server.get("tls") or {}).get("httpsRedirect")
        and (server.get("port") or {}).get("number") == 80
        and any(host_matches(host, hostname) for host in hosts_of(server))
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
