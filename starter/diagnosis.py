"""`certwright diagnose`: why a certificate is not issued or not served, asked of the cluster itself, without Temporal.

An operator's command, with the caller's own kubeconfig and rights. Left out: what is wrong (`lifecycle.diagnosing`).
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
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from activities.diagnosis import (
    CertificatePlace,
    DiagnosisSettings,
    Mended,
    diagnosed,
    find_certificate,
    mended,
)
from activities.edge import EdgeSettings
from lifecycle import findings
from lifecycle.diagnosing import Diagnosis, Link, LinkState
from lifecycle.domain import GatewayTarget
from lifecycle.findings import Finding
from lifecycle.names import Hostname, parse_hostname
from lifecycle.requests import FieldError
from lifecycle.settings import Variables
from starter import console

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
    """The diagnosis, and what was done by ``--fix`` before it was made."""

    diagnosis: Diagnosis
    done: tuple[Mended, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked: a hostname, or the Certificate `place`; `kubeconfig` is empty in a Pod."""

    hostname: str
    place: CertificatePlace | None
    kubeconfig: str
    settings: DiagnosisSettings
    fix: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("name", metavar="NAME", help="a hostname, or NAMESPACE/NAME of any Certificate")
    parser.add_argument("--fix", action="store_true", help="do the remedies that are safe; what was done is told")
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
    )
    kubeconfig = options.kubeconfig or variables.text("KUBECONFIG") or environment.get("KUBECONFIG", "")
    if not kubeconfig and not environment.get("KUBERNETES_SERVICE_HOST"):
        kubeconfig = str(Path.home() / ".kube" / "config")
    problems = (*errors, *variables.problems())
    return problems or Query(
        hostname=hostname, place=place, kubeconfig=kubeconfig, settings=settings, fix=bool(options.fix)
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


async def ask(query: Query) -> Treatment:
    """The diagnosis; with `fix` after the remedies. Raises UnreachableError."""
    try:
        async with kubernetes.connect(query.kubeconfig) as cluster:
            return await _ask(cluster, query)
    except ApplicationError as error:
        fix = next((detail.fix for detail in error.details if isinstance(detail, Finding)), "kubectl cluster-info")
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
    return not findings.errors(treatment.diagnosis.findings)


def shown(treatment: Treatment) -> list[object]:
    """The diagnosis for a person: the cause and what to do first, the chain after it."""
    seen = treatment.diagnosis
    lines: list[object] = [
        Text.assemble((f"Certificate {seen.certificate}", "bold"), f"  {', '.join(seen.hostnames)}"),
        *(
            Text.assemble(("fixed: " if one.done else "not fixed: ", "green" if one.done else "red"), one.remedy.words)
            for one in treatment.done
        ),
        Text(seen.summary, style="green" if seen.healthy else "red" if not good(treatment) else "yellow"),
    ]
    if seen.cause is not None:
        lines += console.found((seen.cause,))
    if seen.remedy is not None:
        lines.append(Text(f"  --fix does this: {seen.remedy.words}", style="green"))
    others = seen.findings[1:]
    if others:
        lines += ["", "Found too; it may follow from that:", *console.found(others)]
    if seen.chain:
        lines += ["", _Chain(seen.chain)]
    if seen.events:
        lines += ["", "Events:", *(Text(f"  {one.at} {one.subject}: {one.words}") for one in seen.events)]
    return lines
