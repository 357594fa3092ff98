"""`certwright`: the whole lifecycle from a shell.

Exit codes: 0 done, 1 not as asked or failed, 2 bad input (all problems at once, field by field), 3 Temporal cannot be
reached, which `check` with a kubeconfig can do without. ``--json`` writes the result for programs. Left out: what is
done; the command line starts it and shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import re
import sys
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kubernetes.aio.config import ConfigException
from temporalio.client import Client, RPCError, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError
from temporalio.service import RPCStatusCode

from activities import logs
from activities.temporal import (
    IMPATIENT,
    ConnectionSettingsError,
    TemporalAwayError,
    away_if_unreachable,
    connected,
    connection,
    leave,
)
from lifecycle import findings, issuers, queues, solvers
from lifecycle.authorities import Authority, parse_authority
from lifecycle.diagnosis import said
from lifecycle.domain import DomainStatus, IssuerRef, OnboardingRequest, Phase, Rehearsal
from lifecycle.issuer_requests import parse_issuer, parse_issuers
from lifecycle.names import Hostname, issuer_id, parse_hostname, platform_id, restore_id
from lifecycle.progress import ENDED
from lifecycle.requests import FieldError, parse_onboarding, parse_platform
from lifecycle.settings import period
from lifecycle.steps import (
    BackupReport,
    BackupRequest,
    IssuerOverview,
    IssuerRequest,
    IssuerStatus,
    PlatformRequest,
    PlatformStatus,
    RestoreReport,
    RestoreRequest,
)
from starter import authorities, console, credentials, diagnosis, domains, quotas, schedules, search_attributes, tokens
from starter import issuers as look
from starter import settings as door
from starter.console import Screen
from starter.domains import Source
from starter.settings import TENANT, DoorSettings
from workflows.backup import Backup
from workflows.issuer import IssuerSetup
from workflows.platform import PlatformInstallation
from workflows.restore import Restore

DONE, FAILED, BAD_INPUT, AWAY = 0, 1, 2, 3

_LOOK_SECONDS = 1.0
_CALL = timedelta(seconds=10)
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SECRET = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_BACKUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_BACKUP_ID = "backup/by-hand"

T = TypeVar("T")


class BadInputError(Exception):
    """What was asked for is not well formed; all reasons."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(f"{len(errors)} problems")
        self.errors = errors


class FailedError(Exception):
    """It did not become as asked; what to do, if anything, is `fix`."""

    def __init__(self, title: str, fix: str = "") -> None:
        super().__init__(title)
        self.fix = fix


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the command line: what was asked, where it is shown and which client does it."""

    options: argparse.Namespace
    screen: Screen
    settings: DoorSettings
    client: Client


Command = Callable[[Call], Awaitable[int]]


def main(arguments: Sequence[str] | None = None) -> int:
    """One command; the exit code. As a program, without `arguments`, it ends the process."""
    code = _main(arguments)
    return leave(code) if arguments is None else code


def _main(arguments: Sequence[str] | None) -> int:
    # Not as defaults of the arguments: given before the command, they would be set back by the command's own.
    given = argparse.Namespace(json=False, address="", namespace="")
    options = _parser().parse_args(arguments, given)
    screen = Screen(as_json=options.json)
    try:
        return asyncio.run(_run(options, screen))
    except BadInputError as error:
        refused = bool(error.errors) and all(one.code for one in error.errors)
        title = "the issuer would refuse it" if refused else "the request is not well formed"
        screen.error(title, errors=error.errors)
        return BAD_INPUT
    except TemporalAwayError as error:
        screen.error(str(error), "Start Temporal, or say where it is: --address HOST:PORT or TEMPORAL_ADDRESS.")
        return AWAY
    except FailedError as error:
        screen.error(str(error), error.fix)
        return FAILED
    except domains.DomainUnknownError as error:
        screen.error(f"there is no domain {error}", "certwright status lists those that are there")
        return FAILED
    except domains.NotAvailableError as error:
        screen.error(f"{error} is not available: another tenant or domain has this name, or one of the further names")
        return FAILED
    except domains.RetiredError as error:
        screen.error(f"{error} was retired", "--again begins it anew")
        return FAILED
    except domains.NotNowError as error:
        screen.error(str(error))
        return FAILED
    except domains.TooManyError as error:
        screen.error(f"too many requests for {error} at once", "ask again in a moment")
        return FAILED
    except domains.UnpreparedError as error:
        screen.error(f"Temporal lacks our search attributes: {error}", "certwright search-attributes apply")
        return FAILED
    except KeyboardInterrupt:
        screen.error("interrupted; what was started goes on", "certwright status shows it")
        return 130


async def _run(options: argparse.Namespace, screen: Screen) -> int:
    chosen: Callable[..., Any] = options.command
    if chosen is _token:
        return _token(options, screen)
    if chosen is _diagnose:
        return await _diagnose(options, screen)
    settings = door.load(os.environ, portal=chosen is _portal)
    if not isinstance(settings, DoorSettings):
        raise BadInputError(*settings)
    where = _where(options)
    if chosen is _portal:
        return await _portal(settings, where)
    if hasattr(options, "prepare"):  # bad input is told before anything is connected
        options.prepared = options.prepare(options, settings)
    if chosen is _issuer_credentials:
        return await _issuer_credentials(options, screen)
    if chosen is _issuer_authority:
        return await _issuer_authority(options, screen)
    command: Command = chosen
    try:
        client = await connected(where)
    except TemporalAwayError:
        if chosen is _check and _cluster_named(options):
            return await _check_unasked(options, screen, settings)
        if doubtful := getattr(options, "doubtful", ()):  # nobody can say that the issuer proves it
            raise BadInputError(*doubtful) from None
        raise
    try:
        return await command(Call(options=options, screen=screen, settings=settings, client=client))
    except RPCError as error:
        raise FailedError(f"Temporal refused: {said(error.message)}") from None


def _where(options: argparse.Namespace) -> dict[str, Any]:
    """How Temporal is reached."""
    try:
        return {**connection(options.address, options.namespace), "retry_config": IMPATIENT}
    except ConnectionSettingsError as error:
        fault = FieldError(field="TEMPORAL_*", value="", problem=f"cannot be read: {error}", fix="correct it")
        raise BadInputError(fault) from None


# --- platform and issuer ----------------------------------------------------------------------------------------------


def _platform_request(options: argparse.Namespace, settings: DoorSettings) -> PlatformRequest:
    gateway = settings.defaults.gateway
    document: dict[str, object] = {
        "cluster": options.cluster,
        "chart": options.chart,
        "version": options.version,
        "namespace": options.cert_manager_namespace,
        "dry_run": options.dry_run,
        "gateway": {
            "namespace": gateway.namespace,
            "service": gateway.service,
            "selector": dict(gateway.selector),
        },
    }
    if options.values:
        document["values"] = _file("--values", options.values)
    switches = ("high_availability", "network_policies", "monitoring", "dashboard")
    wishes = (*switches, "api_server_ports", "issuer_ports", "concurrent_workers")
    document |= {name: getattr(options, name) for name in wishes if getattr(options, name) is not None}
    if options.monitoring_labels:
        pairs = (text.partition("=") for text in options.monitoring_labels)
        document["monitoring_labels"] = {name: value for name, _, value in pairs}
    return _good(parse_platform(document), PlatformRequest)


async def _platform_install(call: Call) -> int:
    request: PlatformRequest = call.options.prepared
    handle = await _begin(call, PlatformInstallation.run, request, platform_id(request.cluster))
    status: PlatformStatus = await _followed(call, handle, PlatformInstallation.status)
    _show_platform(call, status)
    verdict_only = request.dry_run and not findings.errors(status.findings)
    return DONE if status.ready or verdict_only else FAILED


async def _platform_status(call: Call) -> int:
    workflow_id = platform_id(call.options.cluster)
    handle = call.client.get_workflow_handle(workflow_id)
    try:
        status: PlatformStatus = await _asked(handle.query(PlatformInstallation.status, rpc_timeout=_CALL))
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        fix = f"certwright platform install --cluster {call.options.cluster} --dry-run"
        raise FailedError(f"nothing was installed on {call.options.cluster} from here", fix) from None
    _show_platform(call, status)
    return DONE if status.ready else FAILED


def _show_platform(call: Call, status: PlatformStatus) -> None:
    lines: list[object] = [f"{status.cluster}: {'ready' if status.ready else 'not ready'} ({status.step})"]
    if status.inspection is not None:
        seen = status.inspection
        lines.append(
            f"  Kubernetes {seen.kubernetes}, Istio {seen.istio or 'none'}, cert-manager {seen.installed or 'none'}: "
            f"{seen.verdict.value}"
        )
    if status.release is not None:
        changed = "changed" if status.release.changed else "unchanged"
        release = f"release {status.release.name} revision {status.release.revision}"
        lines.append(f"  {release}, {status.release.app_version}, {changed}")
    if status.additions is not None:
        lines += console.changes(status.additions.changes)
    if status.inspection is not None:
        lines += console.changes(status.inspection.changes)
    lines += [f"  proved: {proof.detail}" for proof in status.proofs if not proof.findings]
    if status.rolled_back:
        lines.append("  what was changed was taken back")
    call.screen.result(status, *lines, *console.found(status.findings))


def _issuer_requests(options: argparse.Namespace, settings: DoorSettings) -> tuple[IssuerRequest, ...]:
    document = dict(_file("-f", options.file)) if options.file else {}
    given = ("name", "kind", "server", "email", "profile", "account_secret", "cert_manager_namespace", "rehearsal")
    document |= {name: getattr(options, name) for name in given if getattr(options, name)}
    if options.issuer_namespace:
        document["namespace"] = options.issuer_namespace
    if options.ca_bundle:
        document["ca_bundle"] = _text("--ca-bundle", options.ca_bundle)
    parsed = parse_issuers(document)
    faults = tuple(one for one in parsed if isinstance(one, FieldError))
    if faults:
        raise BadInputError(*faults)
    return tuple(one for one in parsed if isinstance(one, IssuerRequest))


async def _issuer_apply(call: Call) -> int:
    """One after another, each to its end: what one needs of the one before it is there then."""
    requests: tuple[IssuerRequest, ...] = call.options.prepared
    seen: list[IssuerStatus] = []
    for request in requests:
        handle = await _begin(call, IssuerSetup.run, request, issuer_id(request.ref))
        seen.append(await _followed(call, handle, IssuerSetup.status))
    call.screen.result(seen[0] if len(seen) == 1 else seen, *(line for one in seen for line in console.issuer(one)))
    return DONE if all(one.ready for one in seen) else FAILED


def _issuer_ref(options: argparse.Namespace, settings: DoorSettings) -> IssuerRef | None:
    """The issuer that is named, as ``NAME`` or ``Issuer/NAME``; None for all."""
    if not options.issuer:
        return None
    kind, slash, name = options.issuer.rpartition("/")
    document: dict[str, object] = {"name": name, "selfsigned": {}}
    if slash:
        document["kind"] = kind
    if options.issuer_namespace or kind.lower() == "issuer":
        document |= {"kind": "Issuer", "namespace": options.issuer_namespace or settings.defaults.gateway.namespace}
    parsed = parse_issuer(document)
    if isinstance(parsed, IssuerRequest):
        return parsed.ref
    raise BadInputError(*parsed)


async def _issuer_status(call: Call) -> int:
    overview = await _inspected(call, call.options.prepared)
    seen = overview.issuers
    lines = [line for one in seen for line in console.issuer(one)]
    if overview.more:
        lines.append(f"and {overview.more} more")
    call.screen.result(overview, *(lines or ["there are no issuers; certwright issuer apply makes them"]))
    return DONE if seen and all(one.ready for one in seen) else FAILED


def _explained(options: argparse.Namespace, settings: DoorSettings) -> tuple[IssuerRef, str, dict[str, str]]:
    errors: list[FieldError] = []
    parsed = parse_hostname(options.hostname, wildcard_allowed=True)
    if not isinstance(parsed, Hostname):
        value = options.hostname[:80]
        errors += (FieldError(field="NAME", value=value, problem=one.problem, fix=one.fix) for one in parsed)
    labels = dict(solvers.OWN_LABELS)
    for text in options.label:
        key, equals, value = text.partition("=")
        if not equals or not key:
            errors.append(FieldError(field="--label", value=text[:80], problem="is no label", fix="write key=value"))
        labels[key] = value
    if errors:
        raise BadInputError(*errors)
    assert isinstance(parsed, Hostname)
    ref = _issuer_ref(options, settings) or settings.defaults.issuer
    if ref is None:
        fix = "name it, or set CERTWRIGHT_DEFAULT_ISSUER"
        raise BadInputError(FieldError(field="--issuer", value="", problem="is missing", fix=fix))
    return ref, parsed.name, labels


async def _issuer_explain(call: Call) -> int:
    ref, hostname, labels = call.options.prepared
    (status,) = (await _inspected(call, ref)).issuers
    if not status.type:
        call.screen.result(status, *console.issuer(status))
        return FAILED
    if status.type != issuers.IssuerType.ACME:
        title = f"{hostname}: {ref.kind.value} {ref.name} ({status.type}) signs without a challenge"
        call.screen.result({"hostname": hostname, "issuer": ref, "type": status.type, "solver": ""}, title)
        return DONE
    explained = solvers.explain(hostname, json.loads(status.solvers or "[]"), labels)
    call.screen.result(explained, *console.explanation(explained, f"{ref.kind.value} {ref.name}"))
    return DONE if explained.number >= 0 else FAILED


async def _inspected(call: Call, ref: IssuerRef | None) -> IssuerOverview:
    try:
        return await look.inspect(call.client, ref)
    except look.NotSeenError as error:
        raise FailedError(str(error), error.fix) from None


def _credentials(options: argparse.Namespace, settings: DoorSettings) -> credentials.Credentials:
    errors = []
    for field, value in (("SECRET", options.secret), ("--secret-namespace", options.secret_namespace)):
        if not _SECRET.fullmatch(value) or len(value) > 253:
            errors.append(FieldError(field=field, value=value[:80], problem="is no name", fix="write small letters"))
    if errors:
        raise BadInputError(*errors)
    try:
        return credentials.gathered(
            options.source,
            os.environ,
            certificate=options.certificate,
            key=options.key,
            generate=options.generate_ca,
        )
    except credentials.CredentialsError as error:
        raise BadInputError(*error.errors) from None


async def _issuer_credentials(options: argparse.Namespace, screen: Screen) -> int:
    """Straight to the cluster with the caller's kubeconfig: no workflow ever has a credential."""
    written = await _by_oneself(
        options,
        "Secrets",
        lambda kubeconfig: credentials.write(
            kubeconfig,
            options.secret_namespace,
            options.secret,
            options.prepared,
            replace=options.replace,
        ),
    )
    title = f"Secret {written.namespace}/{written.name}: {'written' if written.changed else 'was as asked'}"
    lines = [f"  keys: {', '.join(written.keys)}"]
    if written.fingerprint:
        lines.append(f"  certificate SHA-256 {written.fingerprint}")
    screen.result(written, title, *lines)
    return DONE


def _authority(options: argparse.Namespace, settings: DoorSettings) -> Authority:
    return _good(parse_authority(_file("-f", options.file)), Authority)


async def _issuer_authority(options: argparse.Namespace, screen: Screen) -> int:
    """Straight to the cluster with the caller's kubeconfig, as for credentials."""
    authority: Authority = options.prepared
    written = await _by_oneself(options, "Certificates", lambda kubeconfig: authorities.write(kubeconfig, authority))
    place = f"{written.namespace}/{written.name}"
    screen.result(
        written,
        f"Certificate {place}: {'applied' if written.changed else 'was as asked'}",
        f"  kubectl wait -n {written.namespace} certificate/{written.name} --for=condition=Ready",
        f"  then an issuer: certwright issuer apply -f FILE, with name, and ca: {{secret: {written.name}}}",
    )
    return DONE


async def _by_oneself(options: argparse.Namespace, kind: str, work: Callable[[str], Awaitable[T]]) -> T:
    """What is done with the caller's own kubeconfig; what goes wrong is told as its own."""
    kubeconfig = options.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    try:
        return await work(kubeconfig)
    except credentials.NotWrittenError as error:
        raise FailedError(str(error), error.fix) from None
    except ApplicationError as error:
        told = next((one for one in error.details if isinstance(one, findings.Finding)), None)
        fix = f"Your own account needs that right on {kind}." if told else ""
        raise FailedError(error.message, fix) from None
    except (OSError, ConfigException):
        fix = "--kubeconfig FILE, or KUBECONFIG"
        raise FailedError(f"no cluster is named by {kubeconfig}", fix) from None


# --- domains ----------------------------------------------------------------------------------------------------------


def _onboarding_request(options: argparse.Namespace, settings: DoorSettings) -> OnboardingRequest:
    errors: list[FieldError] = []
    document: dict[str, object] = dict(_file("-f", options.file)) if options.file else {}
    if options.hostname:
        document.pop("hostname", None)
        document["hostnames"] = options.hostname
    if options.issuer:
        document["issuer"] = door.issuer(options.issuer)
    routes = []
    for text in options.route:
        parsed = door.route(text)
        if parsed is None:
            fix = "write PREFIX=SERVICE[.NAMESPACE]:PORT, e.g. /api=api-service:8080"
            errors.append(FieldError(field="--route", value=text[:80], problem="is no route", fix=fix))
        else:
            routes.append(parsed)
    if routes or errors:
        document["routes"] = routes or [{"prefix": "/", "service": "none", "port": 80}]
    if options.key_algorithm:
        document["certificate"] = _within(document, "certificate", key_algorithm=options.key_algorithm)
    tls = {
        "mode": options.tls_mode,
        "min_protocol": options.min_protocol,
        "max_protocol": options.max_protocol,
        "ciphers": options.cipher,
        "client_ca": options.client_ca,
    }
    if any(tls.values()):
        document["tls"] = _within(document, "tls", **{name: value for name, value in tls.items() if value})
    if options.hsts is not None:
        document["hsts"] = _within(document, "hsts", max_age_seconds=options.hsts)
    if options.target:
        document["target"] = options.target
    if options.rehearse is not None:
        document["rehearsal"] = Rehearsal.ALWAYS if options.rehearse else Rehearsal.NEVER
    tenant = options.tenant or settings.tenant
    if not TENANT.fullmatch(tenant):
        fix = "write up to 63 lower-case letters, digits and -"
        errors.append(FieldError(field="--tenant", value=tenant[:80], problem="is no tenant's name", fix=fix))
    defaults = dataclasses.replace(settings.defaults, operator=True)
    parsed_request = parse_onboarding(document, tenant=tenant, defaults=defaults)
    if isinstance(parsed_request, tuple) and not errors:
        # where nothing but a wildcard stands against it, the issuer decides
        provable = dataclasses.replace(defaults, wildcard_allowed=True)
        second = parse_onboarding(document, tenant=tenant, defaults=provable)
        if isinstance(second, OnboardingRequest):
            options.doubtful, parsed_request = parsed_request, second
    if isinstance(parsed_request, OnboardingRequest) and not errors:
        return parsed_request
    more = () if isinstance(parsed_request, OnboardingRequest) else parsed_request
    raise BadInputError(*errors, *more)


def _within(document: Mapping[str, object], section: str, **given: object) -> object:
    """A section of a file with what the command line says of it; one that is no object stays, to be refused."""
    there = document.get(section)
    if there is not None and not isinstance(there, Mapping):
        return there
    return {**(there or {}), **given}


async def _onboard(call: Call) -> int:
    request: OnboardingRequest = call.options.prepared
    errors = await look.objections(call.client, request, getattr(call.options, "doubtful", ()))
    if errors:
        raise BadInputError(*errors)
    onboarded = await domains.onboard(
        call.client, request, update_id=call.options.idempotency_key, again=call.options.again
    )
    if call.options.wait:
        status = await _until(
            call,
            request.hostname,
            lambda status: (
                status.phase in (Phase.ACTIVE, Phase.SUSPENDED, *ENDED) or status.action_required is not None
            ),
        )
        call.screen.result(status, *console.domain(status))
        return DONE if status.phase is Phase.ACTIVE else FAILED
    if onboarded.answer is None:
        title = f"{request.hostname}: recorded; no worker has answered yet"
        call.screen.result(onboarded, title, "  It goes on as soon as a worker runs: certwright-worker")
        return DONE
    title = f"{request.hostname}: {'joined who asked before' if onboarded.answer.joined else 'started'}"
    call.screen.result(onboarded, title, *console.domain(onboarded.answer.status))
    return DONE


async def _status(call: Call) -> int:
    tenant = call.options.tenant or None
    if not call.options.hostname:
        return await _list(call, tenant)
    hostname = call.options.prepared
    if call.options.watch:
        return await _watched(call, hostname, tenant)
    view = await domains.read(call.client, hostname, tenant)
    call.screen.result(view, *console.view(view))
    good = view.source is Source.DOMAIN and not findings.errors(view.status.findings if view.status else ())
    return DONE if good else FAILED


async def _watched(call: Call, hostname: str, tenant: str | None) -> int:
    """The domain as it becomes, until it ends."""
    with call.screen.live() as show:
        while True:
            view = await domains.read(call.client, hostname, tenant)
            show(view, console.view(view))
            if view.status is not None and view.status.phase in ENDED:
                return DONE
            await asyncio.sleep(_LOOK_SECONDS)


async def _list(call: Call, tenant: str | None) -> int:
    found: list[domains.DomainSummary] = []
    page = ""
    while True:
        part = await domains.listed(call.client, tenant, page=page, size=domains.LARGEST_PAGE, ended=call.options.ended)
        found += part.domains
        page = part.next_page
        if not page:
            break
    whole = domains.DomainPage(domains=tuple(found))
    call.screen.result(whole, console.fleet(whole) if found else "there are no domains")
    return DONE


async def _check(call: Call) -> int:
    hostname = call.options.prepared
    try:
        tenant = await _owner(call, hostname)
    except domains.DomainUnknownError:
        if not _cluster_named(call.options):
            fix = f"to look before it is asked for: certwright check {hostname} --kubeconfig FILE"
            raise FailedError(f"there is no domain {hostname}", fix) from None
        return await _check_unasked(call.options, call.screen, call.settings)
    with call.screen.progress() as progress:
        progress.step(f"looking at {hostname}")
        status = await domains.check(call.client, hostname, tenant)
    call.screen.result(status, *console.domain(status))
    return FAILED if findings.errors(status.findings) else DONE


def _cluster_named(options: argparse.Namespace) -> bool:
    """Whether anybody said which cluster is meant; in a Pod it is its own."""
    there = ("CERTWRIGHT_KUBECONFIG", "KUBERNETES_SERVICE_HOST")
    return bool(options.kubeconfig or any(os.environ.get(name) for name in there))


async def _check_unasked(options: argparse.Namespace, screen: Screen, settings: DoorSettings) -> int:
    """The look before an order for a name that nobody asked for yet."""
    from starter import checking  # the cluster's client costs half a second, which no other command needs

    hostname: str = options.prepared
    how = _good(checking.load(os.environ, options.kubeconfig), checking.CheckSettings)
    wanted = _good(
        checking.request(hostname, issuer=options.issuer, tenant=settings.tenant, defaults=settings.defaults),
        OnboardingRequest,
    )
    with screen.progress() as progress:
        progress.step(f"looking at {hostname}")
        try:
            report = await checking.look(wanted, how)
        except checking.ClusterAwayError as error:
            raise FailedError(f"the cluster cannot be asked: {error}", "kubectl get nodes") from None
    screen.result(report, *console.preflight(hostname, report))
    return DONE if report.may_proceed else FAILED


async def _renew(call: Call) -> int:
    hostname = call.options.prepared
    before = await domains.read(call.client, hostname, None)
    tenant = await _owner(call, hostname)
    renewals = before.status.renewals if before.status else 0
    with call.screen.progress() as progress:
        progress.step(f"renewing {hostname}")
        status = await domains.renew(call.client, hostname, tenant)
    if call.options.wait and status.renewals <= renewals:
        status = await _until(
            call,
            hostname,
            lambda now: now.renewals > renewals or (now.phase is not Phase.RENEWING and bool(now.findings)),
        )
    call.screen.result(status, *console.domain(status))
    if status.renewals > renewals:
        return DONE
    return FAILED if call.options.wait or status.phase is not Phase.RENEWING else DONE


async def _cancel(call: Call) -> int:
    hostname = call.options.prepared
    tenant = await _owner(call, hostname)
    if sys.stdin.isatty() and not call.options.yes:
        question = f"Take {hostname} off the gateway and delete its certificate? [y/N] "
        if not (await asyncio.to_thread(input, question)).lower().startswith("y"):
            raise FailedError("nothing was done")
    with call.screen.progress() as progress:
        progress.step(f"taking away what was made for {hostname}")
        status = await domains.cancel(call.client, hostname, tenant)
        if status.phase not in ENDED:
            status = await _until(call, hostname, lambda now: now.phase in ENDED)
    call.screen.result(status, *console.domain(status))
    return DONE if status.phase is Phase.RETIRED and not status.findings else FAILED


async def _owner(call: Call, hostname: str) -> str:
    """An operator acts for whoever has the domain."""
    view = await domains.read(call.client, hostname, None)
    if view.status is not None:
        return view.status.tenant
    return view.summary.tenant if view.summary else ""


async def _until(call: Call, hostname: str, condition: Callable[[DomainStatus], bool]) -> DomainStatus:
    """The first state that the condition holds for; its steps are shown meanwhile."""
    with call.screen.progress() as progress:
        while True:
            view = await domains.read(call.client, hostname, None)
            if view.status is None:
                progress.step(f"{hostname}: no worker answers; waiting for one")
            else:
                progress.step(f"{hostname}: {view.status.step}")
                if condition(view.status):
                    return view.status
            await asyncio.sleep(_LOOK_SECONDS)


# --- quota ------------------------------------------------------------------------------------------------------------


async def _quota(call: Call) -> int:
    found, silent = await quotas.overviews(call.client, most=max(call.options.most, 0))
    lines = [line for one in found for line in console.quota(one)]
    lines += [f"{one}: does not answer; is a worker running?" for one in silent]
    nothing = "nobody has asked for an order yet; an account's quota begins with its first"
    call.screen.result({"accounts": found, "silent": silent}, *(lines or [nothing]))
    return FAILED if silent else DONE


# --- backup -----------------------------------------------------------------------------------------------------------


async def _backup(call: Call) -> int:
    handle = await _begin(call, Backup.run, BackupRequest(keep=call.options.keep), _BACKUP_ID)
    if not call.options.wait:
        call.screen.result({"workflow_id": handle.id}, f"started: {handle.id} (--wait shows what came of it)")
        return DONE
    report: BackupReport = await _followed(call, handle, None, "writing a backup, and opening it to compare")
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts)
    how = report.verified_how if report.verified else "not verified"
    call.screen.result(
        report, f"{report.name}: {report.bytes} octets, {counts}; {how}", *console.found(report.findings)
    )
    return DONE if report.verified and not findings.errors(report.findings) else FAILED


def _restore_request(options: argparse.Namespace, settings: DoorSettings) -> RestoreRequest:
    errors = []
    if not _BACKUP.fullmatch(options.backup):
        fix = "write its name as the backup's report says it, without a path"
        errors.append(FieldError(field="BACKUP", value=options.backup[:80], problem="is no backup's name", fix=fix))
    if not options.into and not options.in_place:
        fix = "name a namespace, or say --in-place to put everything where it came from"
        errors.append(FieldError(field="--into", value="", problem="is missing", fix=fix))
    if options.into and not _NAMESPACE.fullmatch(options.into):
        fix = "write up to 63 lower-case letters, digits and -"
        errors.append(FieldError(field="--into", value=options.into[:80], problem="is no namespace", fix=fix))
    if options.into and options.in_place:
        errors.append(FieldError(field="--in-place", value="", problem="is set, and --into too", fix="use one of them"))
    if errors:
        raise BadInputError(*errors)
    return RestoreRequest(backup=options.backup, into=options.into, overwrite=options.overwrite)


async def _restore(call: Call) -> int:
    request: RestoreRequest = call.options.prepared
    handle = await _begin(call, Restore.run, request, restore_id(request.backup, request.into))
    report: RestoreReport = await _followed(call, handle, None, f"putting {request.backup} back")
    equal = "equal to the manifest" if report.equal else "not equal to the manifest"
    lines = [f"  {one.kind} {one.namespace}/{one.name}  {one.fingerprint[:16]}" for one in report.restored]
    lines += [f"  skipped: {one}" for one in report.skipped]
    title = f"{report.backup}: {len(report.restored)} restored, {len(report.skipped)} skipped; {equal}"
    call.screen.result(report, title, *lines, *console.found(report.findings))
    return DONE if report.equal and not findings.errors(report.findings) else FAILED


# --- schedules, search attributes, portal, tokens ---------------------------------------------------------------------


def _periods(options: argparse.Namespace, settings: DoorSettings) -> tuple[timedelta, timedelta]:
    shortest, longest = schedules.SHORTEST.total_seconds(), timedelta(days=31).total_seconds()
    periods = []
    errors: list[FieldError] = []
    for flag, text in (("--review-every", options.review_every), ("--backup-every", options.backup_every)):
        one = period(text)
        if one is None or not shortest <= one <= longest:
            fix = "write it as in 90s, 15m, 6h or 1d"
            problem = f"is not a length of time from {shortest:g} s to 31 days"
            errors.append(FieldError(field=flag, value=text[:80], problem=problem, fix=fix))
        periods.append(timedelta(seconds=one or 0))
    if errors:
        raise BadInputError(*errors)
    return periods[0], periods[1]


async def _schedules_apply(call: Call) -> int:
    review_every, backup_every = call.options.prepared
    made = await schedules.apply(
        call.client,
        gateway=call.settings.defaults.gateway,
        review_every=review_every,
        backup_every=backup_every,
        keep=call.options.keep,
    )
    lines = [f"{name}: {'created' if new else 'updated'}" for name, new in made]
    call.screen.result([{"name": name, "created": new} for name, new in made], *lines)
    return DONE


async def _schedules_list(call: Call) -> int:
    found = await schedules.listed(call.client)
    lines = [
        f"{one.name}: every {timedelta(seconds=one.every_seconds)}, {'paused' if one.paused else 'running'}, "
        f"last {console.instant(one.last_at)}, next {console.instant(one.next_at)}"
        + (f" ({one.note})" if one.note else "")
        for one in found
    ]
    call.screen.result(found, *(lines or ["there are none; certwright schedules apply makes them"]))
    return DONE


async def _schedule(call: Call) -> int:
    name, verb, note = call.options.name, call.options.verb, "by certwright's command line"
    try:
        if verb == "pause":
            await schedules.pause(call.client, name, call.options.note or note)
        elif verb == "unpause":
            await schedules.unpause(call.client, name, call.options.note or note)
        else:
            await schedules.trigger(call.client, name)
    except schedules.ScheduleUnknownError:
        raise FailedError(f"there is no schedule {name}", "certwright schedules list") from None
    words = {"pause": "paused", "unpause": "goes on", "trigger": "runs now"}[verb]
    call.screen.result({"name": name, "done": verb}, f"{name} {words}")
    return DONE


async def _search_attributes(call: Call) -> int:
    try:
        made = await search_attributes.apply(call.client)
    except search_attributes.WrongTypeError as error:
        raise FailedError(str(error)) from None
    known = len(queues.SEARCH_ATTRIBUTES)
    call.screen.result({"created": made}, f"{len(made)} created, {known - len(made)} were there")
    return DONE


async def _portal(settings: DoorSettings, where: dict[str, Any]) -> int:
    from starter import portal  # the web server costs a quarter of a second, which no other command needs

    logs.configure(settings.log_level, settings.log_format)
    assert settings.tokens_file is not None
    try:
        known = tokens.Tokens(settings.tokens_file)
    except tokens.TokensFileError as error:
        fault = FieldError(
            field="CERTWRIGHT_PORTAL_TOKENS_FILE", value="", problem=f"is bad: {error}", fix="correct it"
        )
        raise BadInputError(fault) from None
    # lazy: the portal is there, and says so, also while Temporal is away
    await portal.serve(await Client.connect(**where, lazy=True), settings, known)
    return DONE


async def _diagnose(options: argparse.Namespace, screen: Screen) -> int:
    """Of the cluster alone: it must say what is wrong also while Temporal, or our workers, are away.

    Remedies are the domain's own to do and to record, where there is one that answers.
    """
    settings = door.load(os.environ)
    if not isinstance(settings, DoorSettings):
        raise BadInputError(*settings)
    query = diagnosis.parse(options, os.environ, settings.defaults.gateway)
    if not isinstance(query, diagnosis.Query):
        raise BadInputError(*query)
    by_domain: diagnosis.Treatment | None = None
    with screen.progress() as progress:
        if query.by_domain:
            progress.step(f"asking {query.hostname} to do what is safe")
            by_domain = await _fixed(options, query.hostname)
        progress.step(f"looking at {options.name}")
        fix_here = query.fix and (by_domain is None or by_domain.domain is None)
        try:
            treatment = await diagnosis.ask(dataclasses.replace(query, fix=fix_here))
        except diagnosis.UnreachableError as error:
            if fix_here or by_domain is None:
                raise FailedError(str(error), error.fix) from None
            treatment = by_domain
        else:
            if by_domain is not None:
                treatment = dataclasses.replace(by_domain, diagnosis=treatment.diagnosis, done=treatment.done)
    screen.result(treatment, *diagnosis.shown(treatment))
    return DONE if diagnosis.good(treatment) else FAILED


async def _fixed(options: argparse.Namespace, hostname: str) -> diagnosis.Treatment:
    """What the domain did; without its state where it could not be asked, with the reason."""
    try:
        return await diagnosis.fixed(await connected(_where(options)), hostname)
    except domains.DomainUnknownError:
        why = f"There is no domain {hostname}"
    except TemporalAwayError as error:
        why = f"The domain cannot be asked: {error}"
    return diagnosis.Treatment(diagnosis=None, note=f"{why}; remedies are done by your own kubeconfig.")


def _token(options: argparse.Namespace, screen: Screen) -> int:
    if not TENANT.fullmatch(options.tenant_name):
        fix = "write up to 63 lower-case letters, digits and -"
        value = options.tenant_name[:80]
        raise BadInputError(FieldError(field="TENANT", value=value, problem="is no tenant's name", fix=fix))
    token, line = tokens.new(options.tenant_name)
    screen.result(
        {"token": token, "line": line},
        "Give this token to the tenant; it is shown only now:",
        f"  {token}",
        "Add this line to the portal's tokens file (mode 0600):",
        f"  {line}",
    )
    return DONE


# --- what commands share ----------------------------------------------------------------------------------------------


async def _begin(call: Call, run: Any, argument: Any, workflow_id: str) -> WorkflowHandle[Any, Any]:
    """Start the workflow, or join the one that runs under this id."""
    handle: WorkflowHandle[Any, Any] = await _asked(
        call.client.start_workflow(
            run,
            argument,
            id=workflow_id,
            task_queue=queues.WORKFLOWS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            rpc_timeout=_CALL,
        )
    )
    return handle


async def _followed(call: Call, handle: WorkflowHandle[Any, Any], query: Any, words: str = "") -> Any:
    """The workflow's result; its steps are shown meanwhile. Raises FailedError."""
    result = asyncio.ensure_future(handle.result())
    try:
        with call.screen.progress() as progress:
            progress.step(words or f"waiting for a worker to take up {handle.id}")
            while not result.done():
                await asyncio.wait({result}, timeout=_LOOK_SECONDS)
                if query is not None and not result.done():
                    with contextlib.suppress(RPCError):  # no worker has taken it up yet
                        seen = await handle.query(query, rpc_timeout=timedelta(seconds=3))
                        progress.step(seen.step)
            return await _asked(result)
    except WorkflowFailureError as error:
        raise FailedError(
            f"{handle.id} failed: {_innermost(error)}", "Its history in Temporal's UI says more."
        ) from None
    finally:
        result.cancel()


def _innermost(error: BaseException) -> str:
    cause: BaseException = error
    while isinstance(cause, WorkflowFailureError | ActivityError) and cause.cause is not None:
        cause = cause.cause
    return said(cause.message if isinstance(cause, FailureError) else str(cause))


async def _asked(asking: Awaitable[T]) -> T:
    with away_if_unreachable():
        return await asking


def _good(parsed: object, kind: type[T]) -> T:
    if isinstance(parsed, kind):
        return parsed
    assert isinstance(parsed, tuple)
    raise BadInputError(*parsed)


def _text(field: str, path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        problem = f"cannot be read: {reason}"
        raise BadInputError(FieldError(field=field, value=path[:80], problem=problem, fix="correct the path")) from None


def _file(field: str, path: str) -> dict[str, object]:
    text = _text(field, path)
    try:
        document = tomllib.loads(text) if path.endswith(".toml") else yaml.safe_load(text)  # JSON is YAML
    except tomllib.TOMLDecodeError as error:
        # the parser's text could quote the input
        found = re.search(r"at line \d+", str(error))
        problem = f"is no TOML {found[0] if found else ''}".rstrip()
        raise BadInputError(FieldError(field=field, value=path[:80], problem=problem, fix="correct it")) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        problem = f"is neither YAML nor JSON{place}"
        raise BadInputError(FieldError(field=field, value=path[:80], problem=problem, fix="correct it")) from None
    if not isinstance(document, dict):
        problem = "is not an object"
        fix = "write fields as name: value"
        raise BadInputError(FieldError(field=field, value=path[:80], problem=problem, fix=fix))
    return document


def _hostname(options: argparse.Namespace, settings: DoorSettings) -> str:
    if not options.hostname:
        return ""
    parsed = parse_hostname(options.hostname, wildcard_allowed=True)
    if isinstance(parsed, Hostname):
        return parsed.name
    value = options.hostname[:80]
    raise BadInputError(
        *(FieldError(field="hostname", value=value, problem=one.problem, fix=one.fix) for one in parsed)
    )


# --- the arguments ----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="write the result as JSON")
    common.add_argument("--address", default=argparse.SUPPRESS, help="Temporal, HOST:PORT (TEMPORAL_ADDRESS)")
    common.add_argument("--namespace", default=argparse.SUPPRESS, help="Temporal's namespace (TEMPORAL_NAMESPACE)")
    parser = argparse.ArgumentParser(
        prog="certwright",
        description="TLS for customers' domains on Istio with cert-manager.",
        epilog="exit codes: 0 done, 1 not as asked, 2 bad input, 3 Temporal cannot be reached",
        parents=[common],
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def group(name: str, words: str) -> Any:
        return commands.add_parser(name, help=words, description=words).add_subparsers(required=True, metavar="COMMAND")

    def command(place: Any, name: str, words: str, run: Any, prepare: Any = None) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = place.add_parser(name, help=words, description=words, parents=[common])
        made.set_defaults(command=run)
        if prepare is not None:
            made.set_defaults(prepare=prepare)
        return made

    _platform_arguments(group("platform", "cert-manager on the cluster"), command)
    _issuer_arguments(group("issuer", "issuers of certificates"), command)
    _domain_arguments(commands, command)
    diagnosis.arguments(command(commands, "diagnose", "say why a certificate is not issued or served", _diagnose))
    quota = command(commands, "quota", "show who waits for an order at the CA, by ACME account", _quota)
    quota.add_argument("--most", type=int, default=20, metavar="N", help="of the next ones, for each account (20)")
    _backup_arguments(commands, command)
    _schedule_arguments(group("schedules", "what runs by itself"), command)
    place = group("search-attributes", "what domains are found by in Temporal")
    command(place, "apply", "create those that are missing", _search_attributes)
    command(commands, "portal", "serve the portal's HTTP API", _portal)
    token = command(group("token", "tokens of the portal"), "new", "make a token for a tenant", _token)
    token.add_argument("tenant_name", metavar="TENANT")
    return parser


def _platform_arguments(place: Any, command: Any) -> None:
    install = command(place, "install", "install or prove cert-manager", _platform_install, _platform_request)
    install.add_argument("--cluster", default="default", help="its name (default)")
    install.add_argument("--chart", default="", help="OCI reference, or a directory that the worker can read")
    install.add_argument("--version", default="", help="of the chart, as v1.21.2")
    install.add_argument("--values", metavar="FILE", help="further Helm values, YAML or JSON; no secrets")
    install.add_argument("--cert-manager-namespace", default="cert-manager")
    install.add_argument("--dry-run", action="store_true", help="only look, and say what would be done to each object")
    _addition_arguments(install)
    status = command(place, "status", "what the last installation came to", _platform_status)
    status.add_argument("--cluster", default="default")


def _addition_arguments(install: argparse.ArgumentParser) -> None:
    """Each with its --no- form; left out, what is there stays as it is."""

    def wish(flag: str, name: str, words: str) -> None:
        install.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, default=None, help=words)

    wish("--ha", "high_availability", "two replicas of each component, resources, disruption budgets")
    wish("--network-policies", "network_policies", "NetworkPolicies of the three components")
    wish("--monitoring", "monitoring", "PrometheusRule and ServiceMonitor, where the cluster has these kinds")
    wish("--dashboard", "dashboard", "Grafana's dashboard, as a ConfigMap")
    words = "of each of cert-manager's controllers, 5 (its default) to 60: for many domains at once"
    install.add_argument("--concurrent-workers", dest="concurrent_workers", type=int, metavar="NUMBER", help=words)
    port: dict[str, Any] = {"action": "append", "type": int, "metavar": "PORT"}
    words = "that the API server listens on (443 and 6443); for the policies, repeatable"
    install.add_argument("--api-server-port", dest="api_server_ports", help=words, **port)
    words = "of a CA or DNS service beside 80, 443 and 53; for the policies, repeatable"
    install.add_argument("--issuer-port", dest="issuer_ports", help=words, **port)
    words = "by which your Prometheus selects rules and monitors; repeatable"
    install.add_argument(
        "--monitoring-label", dest="monitoring_labels", action="append", metavar="KEY=VALUE", help=words
    )


def _issuer_arguments(place: Any, command: Any) -> None:
    apply = command(place, "apply", "make issuers and see them ready", _issuer_apply, _issuer_requests)
    apply.add_argument(
        "-f",
        "--file",
        help="YAML, TOML or JSON: an issuer, or several under issuers (- for standard input)",
    )
    apply.add_argument("--name")
    apply.add_argument("--kind", help="ClusterIssuer (default) or Issuer")
    apply.add_argument("--issuer-namespace", help="of an Issuer")
    apply.add_argument("--server", help="the CA's directory URL, or letsencrypt, letsencrypt-staging")
    apply.add_argument("--email")
    apply.add_argument("--ca-bundle", metavar="FILE", help="PEM certificates to trust for the directory")
    apply.add_argument("--account-secret", help="name of the Secret with the account's key")
    apply.add_argument("--profile", help="ACME profile")
    apply.add_argument("--cert-manager-namespace", default="")
    apply.add_argument("--rehearsal", metavar="ISSUER", help="where its certificates are rehearsed: NAME, or none")
    status = command(place, "status", "show issuers: ready, account, last error", _issuer_status, _issuer_ref)
    status.add_argument("issuer", nargs="?", metavar="NAME", default="", help="NAME or Issuer/NAME (all)")
    status.add_argument("--issuer-namespace", default="", help="of an Issuer (the gateway's)")
    explain = command(place, "explain", "show which solver a name takes, and why", _issuer_explain, _explained)
    explain.add_argument("hostname", metavar="NAME", help="a hostname or a wildcard")
    explain.add_argument("--issuer", default="", help="NAME or Issuer/NAME (CERTWRIGHT_DEFAULT_ISSUER)")
    explain.add_argument("--issuer-namespace", default="", help="of an Issuer (the gateway's)")
    explain.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="of the Certificate")
    words = "put an issuer's credentials into a Secret, with your own kubeconfig"
    secret = command(place, "credentials", words, _issuer_credentials, _credentials)
    secret.add_argument("secret", metavar="SECRET", help="its name")
    secret.add_argument("source", nargs="*", metavar="KEY=file:PATH|KEY=env:VARIABLE")
    secret.add_argument("--secret-namespace", default="cert-manager", help="a ClusterIssuer's: cert-manager's own")
    secret.add_argument("--certificate", default="", metavar="FILE", help="of a CA, PEM")
    secret.add_argument("--key", default="", metavar="FILE", help="of that CA, PEM")
    secret.add_argument("--generate-ca", default="", metavar="COMMON-NAME", help="make a root here")
    secret.add_argument("--replace", action="store_true", help="also where a Secret is there and differs")
    secret.add_argument("--kubeconfig", default="", metavar="FILE", help="(KUBECONFIG)")
    words = "have cert-manager make a CA of your own, name constraints included, with your own kubeconfig"
    authority = command(place, "authority", words, _issuer_authority, _authority)
    authority.add_argument("-f", "--file", required=True, help="YAML, TOML or JSON (- for standard input)")
    authority.add_argument("--kubeconfig", default="", metavar="FILE", help="(KUBECONFIG)")


def _domain_arguments(commands: Any, command: Any) -> None:
    onboard = command(commands, "onboard", "ask for a domain, or join who asked before", _onboard, _onboarding_request)
    onboard.add_argument("hostname", nargs="*", metavar="HOSTNAME", help="the first names the domain")
    onboard.add_argument("-f", "--file", help="YAML or JSON as the portal takes it (- for standard input)")
    onboard.add_argument("--issuer", help="NAME or Issuer/NAME")
    onboard.add_argument("--route", action="append", default=[], metavar="PREFIX=SERVICE[.NS]:PORT")
    onboard.add_argument("--key-algorithm", help="ECDSA (default), RSA or Ed25519; more by -f")
    onboard.add_argument("--tls-mode", help="SIMPLE (default), MUTUAL, OPTIONAL_MUTUAL or PASSTHROUGH")
    onboard.add_argument("--min-protocol", help="TLSV1_2 (default) or TLSV1_3")
    onboard.add_argument("--max-protocol", help="TLSV1_2 or TLSV1_3 (the newest)")
    onboard.add_argument("--cipher", action="append", default=[], help="of TLS 1.2 (the gateway's own)")
    onboard.add_argument("--client-ca", metavar="SECRET", help="with ca.crt, in the gateway's namespace")
    onboard.add_argument("--hsts", type=int, metavar="SECONDS", help="tell browsers to remember HTTPS for so long")
    onboard.add_argument("--target", help="istio or gateway-api (CERTWRIGHT_GATEWAY_KIND)")
    words = "have it from the issuer's counterpart before it is ordered (until the issuer has issued one here)"
    onboard.add_argument("--rehearse", action=argparse.BooleanOptionalAction, help=words)
    onboard.add_argument("--tenant", default="", help="whose it is (CERTWRIGHT_TENANT)")
    onboard.add_argument("--again", action="store_true", help="begin anew although it was retired")
    onboard.add_argument("--wait", action="store_true", help="until it is active, or somebody must act")
    onboard.add_argument("--idempotency-key", default="", help="a repetition gets the first answer")
    status = command(commands, "status", "show a domain, or list all", _status, _hostname)
    status.add_argument("hostname", nargs="?", metavar="HOSTNAME", default="")
    status.add_argument("--watch", action="store_true", help="show it again and again until it ends")
    status.add_argument("--tenant", default="", help="only this tenant's")
    status.add_argument("--ended", action="store_true", help="list those that ended")
    for name, words, run in (
        ("check", "look again now; for a name that nobody asked for, whether it could be ordered", _check),
        ("renew", "renew although it is not due", _renew),
        ("cancel", "end a domain: everything it made is taken away", _cancel),
    ):
        one = command(commands, name, words, run, _hostname)
        one.add_argument("hostname", metavar="HOSTNAME")
        if name == "check":
            one.add_argument("--issuer", default="", help="for a name not asked for yet: NAME or Issuer/NAME")
            one.add_argument("--kubeconfig", default="", metavar="FILE", help="likewise (CERTWRIGHT_KUBECONFIG)")
        if name == "renew":
            one.add_argument("--wait", action="store_true", help="until the new certificate is served")
        if name == "cancel":
            one.add_argument("--yes", action="store_true", help="do not ask")


def _backup_arguments(commands: Any, command: Any) -> None:
    backup = command(commands, "backup", "write an encrypted backup", _backup)
    backup.add_argument("--wait", action="store_true", help="until it is verified")
    backup.add_argument("--keep", type=int, default=0, help="backups to keep (the worker's setting)")
    restore = command(commands, "restore", "put the Secrets of a backup back", _restore, _restore_request)
    restore.add_argument("backup", metavar="BACKUP", help="its name")
    restore.add_argument("--into", default="", metavar="NAMESPACE")
    restore.add_argument("--in-place", action="store_true", help="into the namespaces that they came from")
    restore.add_argument("--overwrite", action="store_true", help="also where a Secret is there and differs")


def _schedule_arguments(place: Any, command: Any) -> None:
    apply = command(place, "apply", "create or update the schedules", _schedules_apply, _periods)
    apply.add_argument("--review-every", default=f"{schedules.REVIEW_EVERY.total_seconds():.0f}s", metavar="TIME")
    apply.add_argument("--backup-every", default=f"{schedules.BACKUP_EVERY.total_seconds():.0f}s", metavar="TIME")
    apply.add_argument("--keep", type=int, default=0, help="backups to keep (the worker's setting)")
    command(place, "list", "show them", _schedules_list)
    for verb, words in (("pause", "start no further runs"), ("unpause", "go on"), ("trigger", "one run now")):
        one = command(place, verb, words, _schedule)
        one.set_defaults(verb=verb)
        one.add_argument("name", metavar="NAME", choices=[schedules.REVIEW, schedules.BACKUP])
        if verb != "trigger":
            one.add_argument("--note", default="")


if __name__ == "__main__":
    sys.exit(main())
