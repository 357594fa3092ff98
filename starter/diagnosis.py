"""`certwright diagnose`: why a certificate is not issued or not served, asked of the cluster itself, without Temporal.

An operator's command, with the caller's own kubeconfig and rights. With ``--fix`` a domain of ours does its remedies
itself, by its worker's rights, so that they are recorded with it; any other Certificate, and every one with
``--direct``, gets them by the caller's. Left out: what is wrong (`lifecycle.diagnosing`).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import certifi
from cryptography import x509
from kubernetes.aio.config import ConfigException
from kubernetes.aio.dynamic import DynamicClient
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from activities.diagnosis import diagnosed, mended
from activities.edge import EdgeSettings
from activities.snapshot import CertificatePlace, DiagnosisSettings, find_certificate
from activities.temporal import TemporalAwayError
from lifecycle import findings
from lifecycle.chain import Link, LinkState
from lifecycle.diagnosing import Diagnosis
from lifecycle.domain import DomainStatus, GatewayTarget, Observation
from lifecycle.mending import STEP, Mended
from lifecycle.names import Hostname, parse_hostname
from lifecycle.requests import FieldError
from lifecycle.settings import Variables
from starter import console, domains

_OBJECT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_MARKS = {
    LinkState.GOOD: ("ok", "green"),
    LinkState.WAITING: ("waiting", "yellow"),
    LinkState.BAD: ("wrong", "red"),
    LinkState.UNKNOWN: ("unknown", "yellow"),
}


_LEAST_WORDS = 50
"""Columns for the mark and for what an object says: with fewer a sentence becomes a column of words."""


class UnreachableError(Exception):
    """The cluster cannot be asked; `fix` says what to do."""

    def __init__(self, title: str, fix: str) -> None:
        super().__init__(title)
        self.fix = fix


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """The diagnosis, and what was done by ``--fix`` before it was made.

    Attributes:
        diagnosis: None where the domain did its remedies, and the caller cannot ask the cluster.
        done: by the caller's own rights.
        recorded: what the domain did and recorded, where it was asked; `domain` is its state after that.
        note: why it was not asked, where that was meant.
    """

    diagnosis: Diagnosis | None
    done: tuple[Mended, ...] = ()
    recorded: tuple[Observation, ...] = ()
    domain: DomainStatus | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked: a hostname, or the Certificate `place`; `kubeconfig` is empty in a Pod.

    `direct` has remedies done by the caller although the domain could.
    """

    hostname: str
    place: CertificatePlace | None
    kubeconfig: str
    settings: DiagnosisSettings
    fix: bool
    direct: bool = False

    @property
    def by_domain(self) -> bool:
        """Whether the domain's own workflow is to do the remedies, if there is one."""
        return self.fix and not self.direct and bool(self.hostname)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("name", metavar="NAME", help="a hostname, or NAMESPACE/NAME of any Certificate")
    parser.add_argument("--fix", action="store_true", help="do the remedies that are safe; what was done is told")
    parser.add_argument("--direct", action="store_true", help="by your own kubeconfig, not by the domain's workflow")
    parser.add_argument("--kubeconfig", default="", metavar="FILE", help="(CERTWRIGHT_KUBECONFIG, KUBECONFIG)")


def parse(
    options: argparse.Namespace, environment: Mapping[str, str], gateway: GatewayTarget
) -> Query | tuple[FieldError, ...]:
    """What is asked, or every reason why not."""
    variables = Variables(environment)
    hostname, place, errors = "", None, list[FieldError]()
    if "/" in options.name:
        if _OBJECT.fullmatch(options.name):
            namespace, _, name = options.name.partition("/")
            place = CertificatePlace(namespace=namespace, name=name)
        else:
            fix = "write NAMESPACE/NAME of a Certificate, or a hostname"
            errors.append(FieldError(field="NAME", value=options.name[:80], problem="is no object's name", fix=fix))
    else:
        parsed = parse_hostname(options.name, wildcard_allowed=True)
        if isinstance(parsed, Hostname):
            hostname = parsed.name
        else:
            value = options.name[:80]
            errors += [FieldError(field="NAME", value=value, problem=one.problem, fix=one.fix) for one in parsed]
    settings = DiagnosisSettings(
        edge=EdgeSettings(
            roots_pem=_roots(variables),
            http_port=variables.number("EDGE_HTTP_PORT", 80, 1, 65535),
            https_port=variables.number("EDGE_HTTPS_PORT", 443, 1, 65535),
            allowed_networks=variables.networks("EDGE_ALLOWED_NETWORKS"),
            timeout_seconds=variables.seconds("EDGE_TIMEOUT", 5.0, 0.1, 30.0),
            nameservers=variables.servers("NAMESERVERS"),
        ),
        gateway=gateway,
        nameservers=variables.servers("NAMESERVERS"),
        dns_timeout=variables.seconds("DNS_TIMEOUT", 3.0, 0.1, 30.0),
        cname_target=variables.text("CNAME_TARGET").rstrip("."),
        caa_identities=variables.words("CAA_IDENTITIES"),
    )
    kubeconfig = options.kubeconfig or variables.text("KUBECONFIG") or environment.get("KUBECONFIG", "")
    if not kubeconfig and not environment.get("KUBERNETES_SERVICE_HOST"):
        kubeconfig = str(Path.home() / ".kube" / "config")
    problems = (*errors, *variables.problems())
    return problems or Query(
        hostname=hostname,
        place=place,
        kubeconfig=kubeconfig,
        settings=settings,
        fix=bool(options.fix),
        direct=bool(options.direct),
    )


@dataclass(frozen=True, slots=True)
class _Chain:
    """The chain as a table; where that would break an object's name, what it says stands below the name."""

    links: tuple[Link, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = max(len(link.subject) for link in self.links)
        beside = names + _LEAST_WORDS <= options.max_width
        table = Table("", "object", "it says", box=None) if beside else Table(box=None, show_header=False)
        for link in self.links:
            mark, style = _MARKS[link.state]
            words = Text(link.words, style=style if link.state is LinkState.BAD else "")
            if beside:
                table.add_row(Text(mark, style=style), Text(link.subject, no_wrap=True), words)
            else:
                said = Text.assemble((link.subject, "bold"), *(("\n  ", words) if link.words else ()), overflow="fold")
                table.add_row(Text(mark, style=style), said)
        yield table


def _roots(variables: Variables) -> bytes:
    path = variables.text("EDGE_ROOTS_FILE")
    if not path:
        return Path(certifi.where()).read_bytes()
    try:
        content = Path(path).read_bytes()
        x509.load_pem_x509_certificates(content)
    except (OSError, ValueError):
        variables.refuse("EDGE_ROOTS_FILE", path, "has no PEM certificate that can be read", "correct the path")
        return b""
    return content


async def fixed(client: Client, hostname: str) -> Treatment:
    """What the domain did itself. Raises DomainUnknownError, TooManyError, TemporalAwayError."""
    before = await domains.read(client, hostname, None)
    if before.status is None:
        raise TemporalAwayError("no worker answers for this domain")
    known = set(before.status.evidence)
    after = await domains.fix(client, hostname, before.status.tenant)
    recorded = tuple(line for line in after.evidence if line.step == STEP and line not in known)
    note = "" if recorded else f"It is not done yet: certwright status {hostname} shows what was done."
    return Treatment(diagnosis=None, recorded=recorded, domain=after, note=note)


async def ask(query: Query) -> Treatment:
    """The diagnosis; with `fix` after the remedies. Raises UnreachableError."""
    try:
        async with kubernetes.connect(query.kubeconfig) as cluster:
            return await _ask(cluster, query)
    except ApplicationError as error:
        fix = next((told.fix for told in kubernetes.told_by(error)), "kubectl cluster-info")
        raise UnreachableError(error.message, fix) from None
    except (ConfigException, OSError) as error:
        title = f"no cluster can be asked: {type(error).__name__}"
        raise UnreachableError(title, "name a kubeconfig: --kubeconfig FILE or CERTWRIGHT_KUBECONFIG") from None


async def _ask(cluster: DynamicClient, query: Query) -> Treatment:
    settings = query.settings
    place = query.place or await find_certificate(cluster, query.hostname, settings.gateway)
    if query.fix:
        found, done = await mended(cluster, place, settings)
        return Treatment(diagnosis=found, done=done)
    return Treatment(diagnosis=await diagnosed(cluster, place, settings))


def good(treatment: Treatment) -> bool:
    """Whether nothing is wrong, also where an issuance is still under way."""
    if treatment.diagnosis is not None:
        return not findings.errors(treatment.diagnosis.findings)
    return treatment.domain is not None and not findings.errors(treatment.domain.findings)


def shown(treatment: Treatment) -> list[object]:
    """The diagnosis for a person: what was done, the cause and what to do first, the chain after it."""
    lines: list[object] = [
        *([Text(treatment.note, style="yellow")] if treatment.note else ()),
        *(
            Text(line.detail, style="green" if line.detail.startswith("fixed") else "yellow")
            for line in treatment.recorded
        ),
        *(
            Text.assemble(("fixed: " if one.done else "not fixed: ", "green" if one.done else "red"), one.remedy.words)
            for one in treatment.done
        ),
    ]
    if treatment.diagnosis is not None:
        option = "--fix" if treatment.domain is None else "--fix --direct"  # what the domain left is not its own
        lines += _diagnosis(treatment.diagnosis, option, good=good(treatment))
    elif treatment.domain is not None:
        lines += console.domain(treatment.domain)
    return lines


def _diagnosis(seen: Diagnosis, option: str, *, good: bool) -> list[object]:
    lines: list[object] = [
        Text.assemble((f"Certificate {seen.certificate}", "bold"), f"  {', '.join(seen.hostnames)}"),
        Text(seen.summary, style="green" if seen.healthy else "red" if not good else "yellow"),
    ]
    if seen.cause is not None:
        lines += console.found((seen.cause,))
    if seen.remedy is not None:
        lines.append(Text(f"  {option} does this: {seen.remedy.words}", style="green"))
    others = seen.findings[1:]
    if others:
        lines += ["", "Found too; it may follow from that:", *console.found(others)]
    if seen.chain:
        lines += ["", _Chain(seen.chain)]
    if seen.events:
        lines += ["", "Events:", *(Text(f"  {one.at} {one.subject}: {one.words}") for one in seen.events)]
    return lines
