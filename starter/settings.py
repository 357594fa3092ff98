"""What the environment says to the doors: the portal and the command line share the same defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lifecycle.domain import DEFAULT_GATEWAY, GatewayKind, GatewayTarget
from lifecycle.requests import FieldError, OnboardingDefaults, parse_onboarding
from lifecycle.settings import Variables

TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A tenant's name: it is written into search attributes, and compared there."""

_ROUTE = re.compile(r"(?P<prefix>/[^=]*)=(?P<service>[^.:=]+)(\.(?P<namespace>[^.:=]+))?:(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSettings:
    """Validated settings of a door.

    Attributes:
        tokens_file: of the portal; None for the command line.
        tls: certificate and key of the portal itself, None for plain HTTP.
    """

    defaults: OnboardingDefaults
    tenant: str
    address: tuple[str, int]
    tokens_file: Path | None
    tls: tuple[Path, Path] | None
    log_level: str
    log_format: str


def load(environment: Mapping[str, str], *, portal: bool = False) -> DoorSettings | tuple[FieldError, ...]:
    """The settings, or every reason why not."""
    variables = Variables(environment)
    tenant = variables.text("TENANT", "default")
    if not TENANT.fullmatch(tenant):
        variables.refuse("TENANT", tenant, "is no tenant's name", "write up to 63 lower-case letters, digits and -")
    tokens = variables.text("PORTAL_TOKENS_FILE")
    if portal and not tokens:
        fix = "write the lines that `certwright token new TENANT` prints into a file, mode 0600, and name it"
        variables.refuse("PORTAL_TOKENS_FILE", "", "is missing, and the portal lets nobody in without", fix)
    elif portal:
        _file(variables, "PORTAL_TOKENS_FILE", tokens)
    certificate, key = variables.text("PORTAL_TLS_CERTIFICATE"), variables.text("PORTAL_TLS_KEY")
    if portal and bool(certificate) != bool(key):
        missing = "PORTAL_TLS_KEY" if certificate else "PORTAL_TLS_CERTIFICATE"
        variables.refuse(missing, "", "is missing, and its other half is set", "set both or none")
    elif portal and certificate:
        _file(variables, "PORTAL_TLS_CERTIFICATE", certificate)
        _file(variables, "PORTAL_TLS_KEY", key)
    settings = DoorSettings(
        defaults=_defaults(variables),
        tenant=tenant,
        address=variables.address("PORTAL_ADDRESS", "127.0.0.1:8080"),
        tokens_file=Path(tokens) if tokens else None,
        tls=(Path(certificate), Path(key)) if certificate and key else None,
        log_level=variables.choice("LOG_LEVEL", ("debug", "info", "warning", "error"), "info"),
        log_format=variables.choice("LOG_FORMAT", ("json", "console"), "json"),
    )
    return variables.problems() or settings


def route(text: str) -> dict[str, object] | None:
    """A route as a request has it, from ``PREFIX=SERVICE[.NAMESPACE]:PORT``; None where it is not written so."""
    found = _ROUTE.fullmatch(text)
    if found is None:
        return None
    fields: dict[str, object] = {
        "prefix": found["prefix"],
        "service": found["service"],
        "port": int(found["port"]),
    }
    if found["namespace"]:
        fields["namespace"] = found["namespace"]
    return fields


def issuer(text: str) -> object:
    """An issuer as a request has it, from ``NAME`` or ``Issuer/NAME`` or ``ClusterIssuer/NAME``."""
    kind, slash, name = text.partition("/")
    return {"kind": kind, "name": name} if slash else text


def _defaults(variables: Variables) -> OnboardingDefaults:
    """Defaults are judged as a request that consists of them would be."""
    gateway = GatewayTarget(
        namespace=variables.text("GATEWAY_NAMESPACE", DEFAULT_GATEWAY.namespace),
        service=variables.text("GATEWAY_SERVICE", DEFAULT_GATEWAY.service),
        selector=_selector(variables),
        kind=GatewayKind(variables.choice("GATEWAY_KIND", tuple(GatewayKind), GatewayKind.ISTIO)),
    )
    plain = OnboardingDefaults(
        gateway=gateway,
        allowed_route_namespaces=variables.words("ROUTE_NAMESPACES"),
        forbidden_suffixes=("cluster.local", *variables.words("FORBIDDEN_SUFFIXES")),
    )
    document: dict[str, object] = {"hostname": "shop.example.com"}
    named = variables.text("DEFAULT_ISSUER")
    document["issuer"] = issuer(named) if named else "none"
    routes = []
    for text in variables.words("DEFAULT_ROUTES"):
        parsed = route(text)
        if parsed is None:
            variables.refuse("DEFAULT_ROUTES", text, "is no route", "write /api=api-service.default:8080")
        else:
            routes.append(parsed)
    document["routes"] = routes or [{"prefix": "/", "service": "none", "port": 80}]
    # the operator's own routes may lead anywhere
    places = {str(one["namespace"]) for one in routes if "namespace" in one} | {"default"}
    open_to = OnboardingDefaults(gateway=gateway, allowed_route_namespaces=tuple(sorted(places)))
    request = parse_onboarding(document, tenant="default", defaults=open_to)
    if isinstance(request, tuple):
        for error in request:
            name = "DEFAULT_ISSUER" if error.field.startswith("issuer") else "DEFAULT_ROUTES"
            variables.refuse(name, error.value, error.problem, error.fix)
        return plain
    return OnboardingDefaults(
        issuer=request.issuer if named else None,
        routes=request.routes if routes else (),
        gateway=gateway,
        allowed_route_namespaces=plain.allowed_route_namespaces,
        forbidden_suffixes=plain.forbidden_suffixes,
    )


def _selector(variables: Variables) -> tuple[tuple[str, str], ...]:
    labels = []
    for word in variables.words("GATEWAY_SELECTOR"):
        key, equals, value = word.partition("=")
        if not equals or not key or not value:
            variables.refuse("GATEWAY_SELECTOR", word, "is not a label", "write istio=ingressgateway")
        else:
            labels.append((key, value))
    return tuple(labels) or DEFAULT_GATEWAY.selector


def _file(variables: Variables, name: str, path: str) -> None:
    if not os.access(path, os.R_OK) or not Path(path).is_file():
        variables.refuse(name, path, "is no file that can be read", "correct the path or its permissions")


def words(error: FieldError) -> str:
    """A field's problem as a person reads it: what is wrong and what to do."""
    value = f" ({error.value})" if error.value else ""
    code = f" [{error.code}]" if error.code else ""
    return f"{error.field or 'the request'}{value} {error.problem}; {error.fix}{code}"
