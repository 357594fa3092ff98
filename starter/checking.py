"""May a name be ordered, now? The domain's own look before an order, without a domain and without a workflow.

Reads the cluster with the caller's rights and asks the DNS and the gateway from here; changes nothing but a scratch
record of an RFC 2136 solver, which it takes away again (`activities.scratch_record`). Left out: what is looked at
(`activities.preflight`), and whether the caller may do what a worker must.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kubernetes.aio.config import ConfigException
from temporalio.exceptions import ApplicationError

from activities import kubernetes
from activities.limits import limits_file
from activities.preflight import PreflightActivities, PreflightSettings
from lifecycle.diagnosis import said
from lifecycle.domain import OnboardingRequest, Route
from lifecycle.requests import FieldError, OnboardingDefaults, parse_onboarding
from lifecycle.settings import Variables
from lifecycle.steps import PreflightReport
from starter import settings as door

_NOWHERE = Route(prefix="/", service="none", port=80)
"""Where a route leads is not looked at before an order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """How the cluster and the DNS are reached; `kubeconfig` empty for the Pod's own ServiceAccount."""

    kubeconfig: str
    preflight: PreflightSettings


class ClusterAwayError(Exception):
    """The cluster cannot be asked; the message says why, in words that may be shown."""


def load(environment: Mapping[str, str], kubeconfig: str = "") -> CheckSettings | tuple[FieldError, ...]:
    """The settings of a worker that such a look needs, or every reason why not.

    `kubeconfig` goes before the variable.
    """
    variables = Variables(environment)
    path = kubeconfig or variables.text("KUBECONFIG")
    if path and not Path(path).is_file():
        variables.refuse("KUBECONFIG", path, "is no file", "correct the path")
    preflight = PreflightSettings(
        nameservers=variables.servers("NAMESERVERS"),
        cname_target=variables.text("CNAME_TARGET").rstrip("."),
        delegation_zone=variables.text("DELEGATION_ZONE").strip(".").lower(),
        timeout_seconds=variables.seconds("DNS_TIMEOUT", 5.0, 0.1, 30.0),
        http_port=variables.number("EDGE_HTTP_PORT", 80, 1, 65535),
        http_timeout_seconds=variables.seconds("EDGE_TIMEOUT", 5.0, 0.1, 30.0),
        allowed_networks=variables.networks("EDGE_ALLOWED_NETWORKS"),
        caa_identities=variables.words("CAA_IDENTITIES"),
        limits=limits_file(variables),
    )
    return variables.problems() or CheckSettings(kubeconfig=path, preflight=preflight)


def request(
    hostname: str, *, issuer: str, tenant: str, defaults: OnboardingDefaults
) -> OnboardingRequest | tuple[FieldError, ...]:
    """What somebody would ask for, or every reason why not. `issuer` as the command line has it, may be empty."""
    document: dict[str, object] = {"hostnames": [hostname]}
    if issuer:
        document["issuer"] = door.issuer(issuer)
    # whether the issuer proves a wildcard is part of the look
    open_to = dataclasses.replace(defaults, routes=defaults.routes or (_NOWHERE,), wildcard_allowed=True)
    return parse_onboarding(document, tenant=tenant, defaults=open_to)


async def look(wanted: OnboardingRequest, settings: CheckSettings) -> PreflightReport:
    """Everything that stands against an order now. Raises ClusterAwayError."""
    try:
        with kubernetes.translated("reach the cluster"):
            async with kubernetes.connect(settings.kubeconfig) as cluster:
                return await PreflightActivities(cluster, settings.preflight).look(wanted, as_worker=False)
    except ApplicationError as error:
        raise ClusterAwayError(said(error.message)) from None
    except ConfigException as error:
        raise ClusterAwayError(f"the kubeconfig cannot be used: {said(str(error))}") from None
