"""Why is a Certificate not issued, or not served? The one object that is to blame, and one safe remedy.

Rules are asked in the order in which an issuance passes through them, and all of them are: the first error is the
cause, since what comes after it may be its consequence. What cmctl's `status certificate` tells is in here; what lies
beyond cert-manager (routes, gateway, edge) too. Left out: gathering (`activities.snapshot`), the rules of challenges
(`challenge_blame`), what a remedy is (`blame`), and the CA's own words (`diagnosis`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from lifecycle import diagnosis, findings
from lifecycle.blame import SETTLE, Action, Blame, Blames, Remedy, remedy_for, renewal_of
from lifecycle.chain import EventLine, Link, chain_of, events_of
from lifecycle.challenge_blame import caa_allows, challenges_are_finalized, challenges_pass, names_blamed
from lifecycle.diagnosis import Document, conditions_of, said
from lifecycle.domain import IssuerKind
from lifecycle.findings import Finding, Severity
from lifecycle.foresight import in_mesh
from lifecycle.issuance import CERTIFICATE_NAME
from lifecycle.observed import (
    age_of,
    hosts_of,
    issuer_subject,
    place_of,
    reasons_of,
    recent_words,
    same_workload,
    state_of,
    words_of,
)
from lifecycle.platform import Permission
from lifecycle.snapshot import (
    FINAL_STATES,
    Snapshot,
    annotation,
    controlled,
    issuer_of,
)

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
        chain=chain_of(seen, found),
        events=events_of(seen),
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


def cert_manager_runs(seen: Snapshot) -> Blames:
    """Without the controller nothing is issued, and without the webhook nothing can be written."""
    for one in seen.deployments or ():
        where, part = place_of(one), (one["metadata"].get("labels") or {}).get("app.kubernetes.io/component", "")
        if not (one.get("status") or {}).get("availableReplicas"):
            wanted, namespace = one["spec"].get("replicas", 1), one["metadata"]["namespace"]
            finding = findings.CERT_MANAGER_NOT_RUNNING.found(
                subject=f"Deployment {where}",
                problem=f"cert-manager's {part or 'part'} has no Pod that is available ({wanted} wanted).",
                fix=f"kubectl describe pods -n {namespace} -l app.kubernetes.io/component={part}"
                if wanted
                else f"kubectl scale deployment -n {words_of(one)} --replicas=1",
            )
            # the cainjector only keeps the webhook's CA up to date: issuances go on without it for long
            later = part == "cainjector"
            yield Blame(replace(finding, severity=Severity.WARNING) if later else finding)


def webhook_answers(seen: Snapshot) -> Blames:
    """The API server asks the webhook before each write of cert-manager's kinds."""
    words = seen.webhook or next(
        (text for text in recent_words(seen) if re.search(r"failed calling webhook|failed to call webhook", text)), ""
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
    for text in (*reasons_of(seen), *recent_words(seen)):
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
            yield from names_blamed(seen, hostname)
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
                subject=f"Certificate {place_of(other)}",
                problem=f"It writes to Secret {seen.namespace}/{secret} too, as Certificate {seen.name} does.",
                fix=f"Give it another secretName: kubectl edit certificate -n {words_of(other)}",
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
    if order is not None and not seen.present and state_of(order) not in FINAL_STATES:
        prefix = f"{order['metadata']['name']}-"
        left = (one for one in seen.challenges if one["metadata"]["name"].startswith(prefix))
        yield from _in_the_way(seen, order, "Challenge", left)


def _in_the_way(seen: Snapshot, owner: Document, kind: str, candidates: Iterable[Document]) -> Blames:
    for one in candidates:
        if controlled(one, owner):
            continue
        where = place_of(one)
        finding = findings.REQUEST_DEADLOCK.found(
            subject=f"{kind} {where}",
            problem=f"It has the name that cert-manager needs for the next step of Certificate {seen.name}, and does "
            "not belong to it: it was restored, or left over (cert-manager#7912).",
            fix=f"kubectl delete {kind.lower()} -n {words_of(one)}; then renew.",
        )
        # A foreign object is for its owner to delete; one that names this Certificate can serve nobody else.
        nobodys = annotation(one, CERTIFICATE_NAME) == seen.name or kind == "Challenge"
        remedy = (
            remedy_for(seen, Action.DELETE, kind, one, f"delete {kind} {where}, and renew", renew=True)
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
    if not conditions.get("Approved") and not conditions.get("Denied") and age_of(request, seen.now) > SETTLE:
        issuer = request["spec"]["issuerRef"]
        signer = f"{issuer.get('kind', 'Issuer').lower()}s.{issuer.get('group', 'cert-manager.io')}"
        yield Blame(
            findings.REQUEST_NOT_APPROVED.found(
                subject=f"CertificateRequest {place_of(request)}",
                problem=f"Nobody has approved it: no approver may approve for {signer}.",
                fix=f"Let cert-manager approve {signer}/* (chart value approveSignerNames), or run the approver that "
                f"does; once: cmctl approve -n {words_of(request)}",
            )
        )


def order_goes_on(seen: Snapshot) -> Blames:
    """The CA has taken the order, and cert-manager's issuer has a solver for each name."""
    order = seen.order
    if order is None or seen.settled or state_of(order) in FINAL_STATES:
        return
    subject = f"Order {place_of(order)}"
    unsolved = [text for text in recent_words(seen, order) if "valid solver configuration" in text]
    if unsolved and not seen.present:
        yield Blame(
            findings.NO_SOLVER.found(
                subject=issuer_subject(seen),
                problem=said(unsolved[-1]),
                fix="Give the issuer a solver without a selector, or one that selects the names: "
                f"{', '.join(seen.hostnames[:4])}. Then renew.",
            )
        )
    if not (order.get("status") or {}).get("url") and age_of(order, seen.now) > 2 * SETTLE:
        yield Blame(
            findings.ORDER_NOT_TAKEN.found(
                subject=subject,
                problem=f"The CA has not taken it for {age_of(order, seen.now).total_seconds():.0f} s: it does not "
                f"answer cert-manager, or {issuer_subject(seen)} is not ready.",
                fix="Let cert-manager reach the CA's directory; it goes on asking by itself. "
                "kubectl logs -n cert-manager deployment/cert-manager",
            )
        )


def names_point_here(seen: Snapshot) -> Blames:
    """The names of a domain of ours, also while nothing is issued: visitors go where they point."""
    if seen.ours:
        for hostname in seen.hostnames:
            yield from names_blamed(seen, hostname)


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
            finding = replace(finding, subject=issuer_subject(seen))
        yield Blame(finding)
    if not seen.issuing:
        yield from (Blame(one, renewal_of(seen)) for one in waiting)


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
        if not same_workload(gateway, selector):
            continue
        for server in gateway["spec"].get("servers") or ():
            credential = str((server.get("tls") or {}).get("credentialName") or "")
            if not credential or not hosts_of(server) & set(seen.hostnames) or credential not in seen.credentials:
                continue
            where = place_of(gateway)
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
                        f"-n {words_of(gateway)}",
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
                    subject=f"Pod {place_of(pod)}",
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
