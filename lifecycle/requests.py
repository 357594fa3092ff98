"""Is a request well formed? Parsed into a value that everybody behind may trust, or refused with every reason at once.

The documents are what a portal's JSON or a command line's file says: maps, lists, texts and numbers of unknown
origin. Each problem names its field, what is wrong and what to write instead, so that one round trip is enough. Left
out: whether the request is allowed or can succeed now (DNS, quotas, names taken); whoever holds the evidence decides.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from lifecycle import certificate_requests, gateway_requests
from lifecycle.controller_values import FEWEST_WORKERS, MOST_WORKERS
from lifecycle.domain import (
    DEFAULT_CERTIFICATE,
    DEFAULT_GATEWAY,
    CertificateSpec,
    GatewayKind,
    GatewayTarget,
    IssuerKind,
    IssuerRef,
    OnboardingRequest,
    Rehearsal,
    Route,
)
from lifecycle.names import Hostname, parse_hostname
from lifecycle.steps import PlatformRequest

MAX_HOSTNAMES = 100
"""Names in one certificate (Let's Encrypt: "Profiles", classic; the others allow 25)."""

MAX_ROUTES = 50
"""Ours: far more than a gateway's route table should hold for one domain."""

_ACME_CHALLENGE = "/.well-known/acme-challenge"
_SHOWN = 80
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_SERVICE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_PREFIX = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_VERSION = re.compile(r"v?(\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?)")
_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One problem with one field.

    Attributes:
        field: path as in ``routes[0].port``; empty for the document itself.
        value: what was written, cut to 80 characters; empty where it was missing or is not repeated on purpose.
        problem: what is wrong, to be read after the field.
        fix: what to write instead.
        code: of the finding in `docs/findings.md`, where it is not the form but the issuer that stands against it.
    """

    field: str
    value: str
    problem: str
    fix: str
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnboardingDefaults:
    """What a customer need not say, and what a customer may say.

    Attributes:
        allowed_route_namespaces: where a customer's routes may lead; empty: where the default routes do, else
            ``default``. A tenant must not reach a Service of the platform by naming it.
        forbidden_suffixes: the cluster's own domains.
        wildcard_allowed: whether the issuers have a DNS-01 solver.
        operator: whether who asks may set what reaches beyond the domain (`certificate_requests.OPERATORS_FIELDS`).
    """

    issuer: IssuerRef | None = None
    routes: tuple[Route, ...] = ()
    gateway: GatewayTarget = DEFAULT_GATEWAY
    certificate: CertificateSpec = DEFAULT_CERTIFICATE
    allowed_route_namespaces: tuple[str, ...] = ()
    forbidden_suffixes: tuple[str, ...] = ("cluster.local",)
    wildcard_allowed: bool = False
    operator: bool = False

    @property
    def route_namespaces(self) -> tuple[str, ...]:
        """The namespaces that routes may lead to."""
        if self.allowed_route_namespaces:
            return self.allowed_route_namespaces
        return tuple(sorted({route.namespace for route in self.routes})) or ("default",)


_ONBOARDING = ("hostname", "hostnames", "issuer", "routes", "certificate", "tls", "hsts", "target", "rehearsal")


def parse_onboarding(
    document: object, *, tenant: str, defaults: OnboardingDefaults
) -> OnboardingRequest | tuple[FieldError, ...]:
    """The request of a tenant for a domain, or all that is wrong with it.

    Fields: `hostnames` (a list; the first names the domain) or `hostname`; `issuer` (a name, or name, kind,
    namespace); `routes` (a list of prefix, service, port, namespace, exact, headers, weight, others,
    timeout_seconds); `certificate` (`certificate_requests.FIELDS`); `tls` (mode, min_protocol, max_protocol, ciphers,
    client_ca); `hsts` (max_age_seconds, include_subdomains, preload); `target` (istio or gateway-api); `rehearsal`
    (first, always or never). The tenant is who the caller proved to be, never a field.
    """
    form = _Form()
    if not isinstance(document, Mapping):
        form.refuse("", document, "is not an object", 'send a JSON object: {"hostname": "shop.example.com"}')
        return form.errors
    form.known(document, "", _ONBOARDING)
    hostnames = _hostnames(form, document, defaults)
    issuer = _issuer_ref(form, document, defaults)
    routes = _routes(form, document, defaults)
    certificate = certificate_requests.certificate(form, document, defaults.certificate, operator=defaults.operator)
    kind = form.choice(document, "target", GatewayKind, defaults.gateway.kind)
    tls = gateway_requests.tls_settings(form, document)
    hsts = gateway_requests.hsts(form, document)
    rehearsal = form.choice(document, "rehearsal", Rehearsal, Rehearsal.FIRST)
    if not hostnames or issuer is None or not routes:
        return form.errors
    request = OnboardingRequest(
        tenant=tenant,
        hostnames=hostnames,
        issuer=issuer,
        routes=routes,
        gateway=dataclasses.replace(defaults.gateway, kind=kind),
        certificate=certificate,
        tls=tls,
        hsts=hsts,
        rehearsal=rehearsal,
    )
    gateway_requests.refuse_combinations(form, request)
    return form.errors or request


def parse_platform(document: object) -> PlatformRequest | tuple[FieldError, ...]:
    """The request to install or prove cert-manager, or all that is wrong with it.

    Fields: cluster, chart, version, namespace, values (an object), gateway (namespace, service, selector), dry_run; and
    high_availability, network_policies, monitoring, dashboard (true, false, or absent: as it is), api_server_ports,
    issuer_ports (lists of numbers), monitoring_labels (an object), concurrent_workers (a number).
    """
    form = _Form()
    if not isinstance(document, Mapping):
        form.refuse("", document, "is not an object", 'send an object: {"cluster": "prod-1"}')
        return form.errors
    form.known(
        document, "", ("cluster", "chart", "version", "namespace", "values", "gateway", "dry_run", *_WISHES, *_DETAILS)
    )
    pattern = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
    cluster = form.matching(document, "cluster", pattern, "a name of at most 100 letters, digits, . _ -", required=True)
    version = form.text(document, "version")
    found = _VERSION.fullmatch(version)
    if version and not found:
        form.refuse("version", version, "is not a version", "write it as v1.21.2")
    namespace = form.matching(document, "namespace", _LABEL, "a namespace") or "cert-manager"
    dry_run = document.get("dry_run", False)
    if not isinstance(dry_run, bool):
        form.refuse("dry_run", dry_run, "is neither true nor false", "write true or false")
    values = document.get("values", {})
    text = "{}"
    if not isinstance(values, Mapping):
        form.refuse("values", "", "is not an object", "write Helm values as an object")
    else:
        try:
            text = json.dumps(values, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError):
            form.refuse("values", "", "cannot be written as JSON", "use texts, numbers, lists and objects only")
    gateway = _gateway(form, document)
    chart = form.text(document, "chart")
    wishes = {name: _wish(form, document, name) for name in _WISHES}
    api_server_ports, issuer_ports = (_ports(form, document, name) for name in _DETAILS[:2])
    monitoring_labels = _labels(form, document, "monitoring_labels")
    workers = form.number(document, "concurrent_workers", FEWEST_WORKERS, MOST_WORKERS, path="", default=0)
    if form.errors:
        return form.errors
    return PlatformRequest(
        cluster=cluster,
        chart=chart,
        version=f"v{found[1]}" if found else "",
        namespace=namespace,
        values=text,
        gateway=gateway,
        dry_run=dry_run is True,
        **wishes,
        api_server_ports=api_server_ports,
        issuer_ports=issuer_ports,
        monitoring_labels=monitoring_labels,
        concurrent_workers=workers,
    )


_WISHES = ("high_availability", "network_policies", "monitoring", "dashboard")
_DETAILS = ("api_server_ports", "issuer_ports", "monitoring_labels", "concurrent_workers")
_MOST_PORTS = 20
_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
"""Kubernetes documentation, "Labels and Selectors": syntax and character set."""


def _wish(form: _Form, document: Mapping[object, object], key: str) -> bool | None:
    value = document.get(key)
    if value is None or isinstance(value, bool):
        return value
    form.refuse(key, value, "is neither true nor false", "write true or false, or leave it out to keep what is there")
    return None


def _ports(form: _Form, document: Mapping[object, object], key: str) -> tuple[int, ...]:
    value = document.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MOST_PORTS:
        form.refuse(key, value, f"is not a list of at most {_MOST_PORTS} ports", "write it as [443, 6443]")
        return ()
    found: dict[object, object] = {f"{key}[{index}]": port for index, port in enumerate(value)}
    return tuple(sorted({form.number(found, name, 1, 65535, path="", default=None) for name in map(str, found)}))


def _labels(form: _Form, document: Mapping[object, object], key: str) -> tuple[tuple[str, str], ...]:
    labels = []
    for name, value in form.section(document, key).items():
        label = name if isinstance(name, str) else repr(name)
        good_name = isinstance(name, str) and len(name) <= 253 and _LABEL_KEY.fullmatch(name)
        if not good_name or not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            form.refuse(
                f"{key}.{_cut(label, 40)}", value, "is no label of Kubernetes", "write it as release: prometheus"
            )
        else:
            labels.append((label, value))
    return tuple(sorted(labels))


_Choice = TypeVar("_Choice", bound=StrEnum)


class _Form:
    """Reads fields, and collects what is wrong with them; what it answers for a bad field is never used."""

    def __init__(self) -> None:
        self._errors: list[FieldError] = []

    @property
    def errors(self) -> tuple[FieldError, ...]:
        return tuple(self._errors)

    @property
    def fields(self) -> set[str]:
        return {error.field for error in self._errors}

    def refuse(self, field: str, value: object, problem: str, fix: str) -> None:
        shown = value if isinstance(value, str) else repr(value)
        self._errors.append(FieldError(field=field, value=_cut(shown), problem=problem, fix=_cut(fix, 300)))

    def known(self, document: Mapping[object, object], path: str, names: Sequence[str]) -> None:
        """Unknown fields are errors: a misspelt one would be ignored in silence. Their values are not repeated."""
        for key in document:
            if isinstance(key, str) and key in names:
                continue
            near = difflib.get_close_matches(str(key).lower(), names, n=1, cutoff=0.5)
            fix = f"did you mean {near[0]}?" if near else f"remove it; known are {', '.join(names)}"
            self.refuse(_join(path, _cut(str(key), 40)), "", "is not a known field", fix)

    def section(self, document: Mapping[object, object], field: str) -> Mapping[object, object]:
        value = document.get(field)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.refuse(field, value, "is not an object", f"write {field} as an object with fields")
            return {}
        return value

    def text(self, document: Mapping[object, object], key: str, *, path: str = "", required: bool = False) -> str:
        value = document.get(key)
        field = _join(path, key)
        if value is None or value == "":
            if required:
                self.refuse(field, "", "is missing", f"set {key}")
            return ""
        if not isinstance(value, str):
            self.refuse(field, value, "is not a text", "write it as a string")
            return ""
        if any(not character.isprintable() and character not in "\r\n\t" for character in value):
            self.refuse(field, "", "has control characters", "remove them")
            return ""
        return value.strip()

    def matching(
        self,
        document: Mapping[object, object],
        key: str,
        pattern: re.Pattern[str],
        wanted: str,
        *,
        path: str = "",
        required: bool = False,
    ) -> str:
        value = self.text(document, key, path=path, required=required)
        if value and (not pattern.fullmatch(value) or len(value) > 253):
            self.refuse(_join(path, key), value, f"is not {wanted.split(', e.g.')[0]}", f"write {wanted}")
            return ""
        return value

    def number(
        self, document: Mapping[object, object], key: str, low: int, high: int, *, path: str, default: int | None
    ) -> int:
        value = document.get(key, default)
        field = _join(path, key)
        if value is None:
            self.refuse(field, "", "is missing", f"set {key}, {low} to {high}")
        elif isinstance(value, bool) or not isinstance(value, int):  # True is an int in Python, not in JSON
            self.refuse(field, value, "is not a whole number", f"write a number, {low} to {high}, without quotes")
        elif not low <= value <= high and value != default:
            self.refuse(field, value, "is out of range", f"write a number, {low} to {high}")
        else:
            return value
        return low

    def choice(
        self, document: Mapping[object, object], key: str, kinds: type[_Choice], default: _Choice, *, path: str = ""
    ) -> _Choice:
        value = self.text(document, key, path=path)
        if not value:
            return default
        for kind in kinds:
            if value.lower() == kind.value.lower():
                return kind
        known = ", ".join(kind.value for kind in kinds)
        self.refuse(_join(path, key), value, f"is none of {known}", f"write one of {known}")
        return default


Form = _Form
"""The reader, for the parsers of other documents (`lifecycle.issuer_requests`)."""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _cut(text: str, length: int = _SHOWN) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _hostnames(form: _Form, document: Mapping[object, object], defaults: OnboardingDefaults) -> tuple[str, ...]:
    """The same name twice is one name; the order is kept, since the first names the domain."""
    single, several = document.get("hostname"), document.get("hostnames")
    if single is not None and several is not None:
        form.refuse("hostname", single, "is set, and hostnames too", "use one of them; the first name is the domain's")
    if several is None:
        if single is None:
            form.refuse("hostnames", "", "is missing", 'name the domain: "hostnames": ["shop.example.com"]')
            return ()
        entries: list[tuple[str, object]] = [("hostname", single)]
    elif isinstance(several, Sequence) and not isinstance(several, str):
        entries = [(f"hostnames[{index}]", entry) for index, entry in enumerate(several)]
        if not entries:
            form.refuse("hostnames", "", "is empty", "name at least one hostname")
    else:
        form.refuse("hostnames", several, "is not a list", 'write a list: ["shop.example.com"]')
        return ()
    if len(entries) > MAX_HOSTNAMES:
        problem = f"has {len(entries)} names, more than {MAX_HOSTNAMES} in one certificate"
        form.refuse("hostnames", "", problem, "ask for several domains")
        return ()
    good: dict[str, None] = {}
    for field, text in entries:
        parsed = parse_hostname(
            text, forbidden_suffixes=defaults.forbidden_suffixes, wildcard_allowed=defaults.wildcard_allowed
        )
        if isinstance(parsed, Hostname):
            good[parsed.name] = None
        else:
            for reason in parsed:
                form.refuse(field, text, reason.problem, reason.fix)
    return tuple(good)


def _issuer_ref(form: _Form, document: Mapping[object, object], defaults: OnboardingDefaults) -> IssuerRef | None:
    given = document.get("issuer")
    if given is None:
        if defaults.issuer is None:
            form.refuse("issuer", "", "is missing, and there is no default", 'name it: "issuer": "letsencrypt"')
        return defaults.issuer
    fields: Mapping[object, object] = {"name": given}
    if isinstance(given, Mapping):
        fields = given
    elif not isinstance(given, str):
        form.refuse("issuer", given, "is neither a name nor an object", "write its name, or name, kind and namespace")
        return None
    form.known(fields, "issuer", ("name", "kind", "namespace"))
    name = form.matching(fields, "name", _SUBDOMAIN, "an issuer's name", path="issuer", required=True)
    kind = form.choice(fields, "kind", IssuerKind, IssuerKind.CLUSTER_ISSUER, path="issuer")
    namespace = form.matching(fields, "namespace", _LABEL, "a namespace", path="issuer")
    if kind is IssuerKind.CLUSTER_ISSUER and namespace:
        fix = "remove it, or set kind: Issuer"
        form.refuse("issuer.namespace", namespace, "is set, but a ClusterIssuer has none", fix)
    if kind is IssuerKind.ISSUER:
        # An Issuer signs in its own namespace only, and the Certificate lies where the gateway can read its Secret.
        place = defaults.gateway.namespace
        if namespace and namespace != place:
            problem = f"is not the gateway's namespace, and an Issuer signs in its own only ({place} is needed)"
            form.refuse("issuer.namespace", namespace, problem, f"use an Issuer in {place}, or a ClusterIssuer")
        namespace = place
    return IssuerRef(name=name, kind=kind, namespace=namespace)


def _routes(form: _Form, document: Mapping[object, object], defaults: OnboardingDefaults) -> tuple[Route, ...]:
    given = document.get("routes")
    if given is None:
        if not defaults.routes:
            fix = '"routes": [{"prefix": "/", "service": "frontend-service", "port": 80}]'
            form.refuse("routes", "", "is missing, and there are no default routes", fix)
        return defaults.routes
    if not isinstance(given, Sequence) or isinstance(given, str):
        form.refuse("routes", given, "is not a list", "write a list of prefix, service and port")
        return ()
    if not given:
        form.refuse("routes", "", "is empty", "name at least one route, or leave the field out")
    if len(given) > MAX_ROUTES:
        form.refuse("routes", "", f"has {len(given)} routes, more than {MAX_ROUTES}", "join them by shorter prefixes")
        return ()
    routes: list[Route] = []
    routed: list[tuple[str, Route]] = []
    for index, entry in enumerate(given):
        path = f"routes[{index}]"
        if not isinstance(entry, Mapping):
            form.refuse(path, entry, "is not an object", "write prefix, service and port")
            continue
        form.known(entry, path, ("prefix", "service", "port", "namespace", *gateway_requests.ROUTE_FIELDS))
        exact, headers, weight, others, timeout = gateway_requests.route_details(
            form, entry, path, defaults.route_namespaces, _SERVICE
        )
        route = Route(
            prefix=_prefix(form, entry, path),
            service=form.matching(entry, "service", _SERVICE, "a Service's name", path=path, required=True),
            port=form.number(entry, "port", 1, 65535, path=path, default=None),
            namespace=_route_namespace(form, entry, path, defaults),
            exact=exact,
            headers=headers,
            weight=weight,
            others=others,
            timeout_seconds=timeout,
        )
        if f"{path}.prefix" not in form.fields:
            same = next((field for field, other in routed if gateway_requests.routes_collide(other, route)), None)
            if same:
                form.refuse(f"{path}.prefix", route.prefix, f"is also in {same}", "keep one of them")
            else:
                routed.append((f"{path}.prefix", route))
        routes.append(route)
    return tuple(routes)


def _prefix(form: _Form, entry: Mapping[object, object], path: str) -> str:
    prefix = form.text(entry, "prefix", path=path) or "/"
    field = f"{path}.prefix"
    if not prefix.startswith("/"):
        form.refuse(field, prefix, "does not begin with a slash", f"write /{prefix}")
    elif not _PREFIX.fullmatch(prefix) or "//" in prefix or {".", ".."} & set(prefix.split("/")):
        # Envoy normalises a request's path before it matches, so such a prefix would never match what it seems to
        problem = "is no plain path (no query, fragment, percent sign, // , . or ..)"
        form.refuse(field, prefix, problem, "write it as in /api/v1")
    elif (prefix.rstrip("/") + "/").startswith(_ACME_CHALLENGE + "/"):
        form.refuse(field, prefix, "is where certificates are proved (RFC 8555, section 8.3)", "choose another path")
    return prefix


def _route_namespace(form: _Form, entry: Mapping[object, object], path: str, defaults: OnboardingDefaults) -> str:
    allowed = defaults.route_namespaces
    namespace = form.matching(entry, "namespace", _LABEL, "a namespace", path=path)
    if not namespace:
        return "default" if "default" in allowed else allowed[0]
    if namespace not in allowed:
        form.refuse(f"{path}.namespace", namespace, "is not open to routes", f"use one of {', '.join(allowed)}")
    return namespace


def _gateway(form: _Form, document: Mapping[object, object]) -> GatewayTarget:
    given = form.section(document, "gateway")
    form.known(given, "gateway", ("namespace", "service", "selector"))
    namespace = form.matching(given, "namespace", _LABEL, "a namespace", path="gateway")
    service = form.matching(given, "service", _SERVICE, "a Service's name", path="gateway")
    labels = given.get("selector")
    selector = DEFAULT_GATEWAY.selector
    if labels is not None:
        if not isinstance(labels, Mapping) or not labels:
            form.refuse("gateway.selector", labels, "is not an object of labels", '{"istio": "ingressgateway"}')
        else:
            for key, value in labels.items():
                good = isinstance(key, str) and _LABEL_KEY.fullmatch(key)
                if not good or not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
                    field = f"gateway.selector.{_cut(str(key), 40)}"
                    form.refuse(field, value, "is not a label", 'write labels as {"istio": "ingressgateway"}')
            selector = tuple(sorted((str(key), str(value)) for key, value in labels.items()))
    return GatewayTarget(
        namespace=namespace or DEFAULT_GATEWAY.namespace,
        selector=selector,
        service=service or DEFAULT_GATEWAY.service,
    )
