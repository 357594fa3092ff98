"""Is what a request says of its gateway well formed, and can it work? TLS, HSTS, routes, target: every reason at once.

Combinations that a gateway would take and then not serve, or serve otherwise than it reads, are refused here with
where that is said. Left out: whether the client CA's Secret is there (`lifecycle.client_ca`), and reading hostnames,
issuer and certificate (`lifecycle.requests`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol, TypeVar

from lifecycle import gateway_api
from lifecycle.domain import (
    DEFAULT_TLS,
    Backend,
    GatewayKind,
    HeaderMatch,
    Hsts,
    KeyAlgorithm,
    OnboardingRequest,
    Route,
    TlsMode,
    TlsSettings,
    TlsVersion,
)

CIPHERS = {
    KeyAlgorithm.ECDSA: (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    KeyAlgorithm.RSA: (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ),
}
"""Of those that Envoy knows for TLS 1.2 (Istio's ValidCipherSuites), the ones with forward secrecy and AEAD (RFC 9325,
section 4.2), by the key that the certificate must have."""

ALL_CIPHERS = tuple(cipher for ciphers in CIPHERS.values() for cipher in ciphers)

PRELOAD_SECONDS = 31_536_000
"""A year: browsers' preload list takes nothing shorter (hstspreload.org, "Submission Requirements")."""

MAX_WEIGHT = 1000
MAX_OTHERS = 15
"""With the route's first Service 16, as many as a rule of an HTTPRoute may name (its CRD)."""
MAX_HEADERS = 16
"""Of a match of an HTTPRoute (its CRD)."""

_LONGEST_TIMEOUT = 3600
_SECRET_HEADERS = {"authorization", "cookie", "proxy-authorization"}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,254}[\x21-\x7e])?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

_Choice = TypeVar("_Choice", bound=StrEnum)
Fields = Mapping[object, object]


class Form(Protocol):
    """What reads fields and remembers what is wrong with them (`lifecycle.requests`)."""

    @property
    def fields(self) -> set[str]: ...

    def refuse(self, field: str, value: object, problem: str, fix: str) -> None: ...

    def known(self, document: Fields, path: str, names: tuple[str, ...]) -> None: ...

    def section(self, document: Fields, field: str) -> Fields: ...

    def text(self, document: Fields, key: str, *, path: str = "", required: bool = False) -> str: ...

    def matching(
        self,
        document: Fields,
        key: str,
        pattern: re.Pattern[str],
        wanted: str,
        *,
        path: str = "",
        required: bool = False,
    ) -> str: ...

    def number(self, document: Fields, key: str, low: int, high: int, *, path: str, default: int | None) -> int: ...

    def choice(
        self, document: Fields, key: str, kinds: type[_Choice], default: _Choice, *, path: str = ""
    ) -> _Choice: ...


# --- reading --------------------------------------------------------------------------------------------------------


def tls_settings(form: Form, document: Fields) -> TlsSettings:
    """The field `tls`: mode, min_protocol, max_protocol, ciphers, client_ca."""
    given = form.section(document, "tls")
    path = "tls"
    form.known(given, path, ("mode", "min_protocol", "max_protocol", "ciphers", "client_ca"))
    highest: TlsVersion | None = None
    if given.get("max_protocol") not in (None, ""):
        highest = _version(form, given, "max_protocol", TlsVersion.TLSV1_3)
    return TlsSettings(
        mode=form.choice(given, "mode", TlsMode, DEFAULT_TLS.mode, path=path),
        min_protocol=_version(form, given, "min_protocol", DEFAULT_TLS.min_protocol),
        max_protocol=highest,
        ciphers=_ciphers(form, given),
        client_ca=form.matching(given, "client_ca", _NAME, "a Secret's name", path=path),
    )


def _version(form: Form, given: Fields, key: str, default: TlsVersion) -> TlsVersion:
    """Also as people write it: 1.2, TLSv1.2."""
    text = given.get(key)
    if isinstance(text, float | int) and not isinstance(text, bool):
        text = str(text)
    if not isinstance(text, str):
        return form.choice(given, key, TlsVersion, default, path="tls")
    plain = re.sub(r"(?i)^(tls\s*)?v?", "", text.strip()).replace(".", "_")
    if plain in {"1_0", "1_1", "1"} or text.strip().lower().startswith("ssl"):
        problem = "is deprecated: no server may negotiate it (RFC 8996)"
        form.refuse(f"tls.{key}", text, problem, "write TLSV1_2 or TLSV1_3")
        return default
    return form.choice({key: f"TLSV{plain}"}, key, TlsVersion, default, path="tls")


def _ciphers(form: Form, given: Fields) -> tuple[str, ...]:
    listed = given.get("ciphers")
    if listed is None:
        return ()
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        form.refuse("tls.ciphers", listed, "is not a list", f'write a list: ["{ALL_CIPHERS[0]}"]')
        return ()
    good: dict[str, None] = {}
    for index, cipher in enumerate(listed):
        field = f"tls.ciphers[{index}]"
        if cipher in ALL_CIPHERS:
            good[str(cipher)] = None
        elif isinstance(cipher, str) and cipher.startswith("TLS_"):
            problem = "is one of TLS 1.3, whose cipher suites Envoy does not let anyone choose"
            form.refuse(field, cipher, problem, "leave it out: all three of TLS 1.3 are good")
        else:
            problem = "is no cipher with forward secrecy and AEAD that Envoy knows (RFC 9325, section 4.2)"
            form.refuse(field, cipher, problem, f"use of {', '.join(ALL_CIPHERS)}")
    return tuple(good)


def hsts(form: Form, document: Fields) -> Hsts | None:
    """The field `hsts`: max_age_seconds, include_subdomains, preload; None where it is left out."""
    if document.get("hsts") is None:
        return None
    given = form.section(document, "hsts")
    form.known(given, "hsts", ("max_age_seconds", "include_subdomains", "preload"))
    wanted = Hsts(
        max_age_seconds=form.number(given, "max_age_seconds", 0, 10 * PRELOAD_SECONDS, path="hsts", default=None),
        include_subdomains=_flag(form, given, "include_subdomains", "hsts"),
        preload=_flag(form, given, "preload", "hsts"),
    )
    if wanted.preload and not (wanted.include_subdomains and wanted.max_age_seconds >= PRELOAD_SECONDS):
        problem = "needs include_subdomains and max_age_seconds of a year (hstspreload.org, submission requirements)"
        form.refuse("hsts.preload", "true", problem, f"set them, max_age_seconds to {PRELOAD_SECONDS}, or leave it out")
    return wanted


def _flag(form: Form, given: Fields, key: str, path: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        form.refuse(f"{path}.{key}", value, "is neither true nor false", "write true or false without quotes")
    return value is True


ROUTE_FIELDS = ("exact", "headers", "weight", "others", "timeout_seconds")
"""Of a route, beside prefix, service, port and namespace."""


def route_details(
    form: Form, entry: Fields, path: str, namespaces: tuple[str, ...], service: re.Pattern[str]
) -> tuple[bool, tuple[HeaderMatch, ...], int, tuple[Backend, ...], float]:
    """A route's exact, headers, weight, others and timeout_seconds; `namespaces` are those that routes may lead to."""
    others = _others(form, entry, path, namespaces, service)
    weight = form.number(entry, "weight", 0, MAX_WEIGHT, path=path, default=1)
    if f"{path}.weight" not in form.fields and weight + sum(one.weight for one in others) == 0:
        problem = "is 0, as all others are: nobody would answer" if others else "is 0, and there are no others"
        form.refuse(f"{path}.weight", 0, problem, "give one of them a weight")
    return _flag(form, entry, "exact", path), _headers(form, entry, path), weight, others, _timeout(form, entry, path)


def _headers(form: Form, entry: Fields, path: str) -> tuple[HeaderMatch, ...]:
    given = entry.get("headers")
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        form.refuse(f"{path}.headers", given, "is not an object", 'write names and values: {"x-canary": "yes"}')
        return ()
    if len(given) > MAX_HEADERS:
        form.refuse(f"{path}.headers", "", f"has more than {MAX_HEADERS} headers", "match fewer of them")
        return ()
    found: dict[str, str] = {}
    for name, value in given.items():
        field = f"{path}.headers.{str(name)[:40]}"
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            form.refuse(field, "", "is no header's name (RFC 9110, section 5.1)", 'write it as in {"x-canary": "yes"}')
        elif name.lower() in _SECRET_HEADERS:
            problem = "would put a secret into a request that is kept and shown"
            form.refuse(field, "", problem, "match a header that tells nothing secret")
        elif name.lower() == "host":
            form.refuse(field, "", "is the hostname, which the domain has already", "remove it")
        elif not isinstance(value, str) or not _VALUE.fullmatch(value):
            form.refuse(field, value, "is no value of 1 to 256 visible characters", "write a text")
        elif name.lower() in found:
            form.refuse(field, value, "is there twice, in other letters", "keep one of them")
        else:
            found[name.lower()] = value
    return tuple(HeaderMatch(name=name, value=value) for name, value in sorted(found.items()))


def _others(
    form: Form, entry: Fields, path: str, namespaces: tuple[str, ...], service: re.Pattern[str]
) -> tuple[Backend, ...]:
    given = entry.get("others")
    if given is None:
        return ()
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) > MAX_OTHERS:
        fix = '"others": [{"service": "canary", "port": 80, "weight": 1}]'
        form.refuse(f"{path}.others", "", f"is not a list of at most {MAX_OTHERS} Services", fix)
        return ()
    found = []
    for index, one in enumerate(given):
        here = f"{path}.others[{index}]"
        if not isinstance(one, Mapping):
            form.refuse(here, one, "is not an object", "write service, port and weight")
            continue
        form.known(one, here, ("service", "port", "namespace", "weight"))
        namespace = form.text(one, "namespace", path=here) or ("default" if "default" in namespaces else namespaces[0])
        if namespace not in namespaces:
            form.refuse(f"{here}.namespace", namespace, "is not open to routes", f"use one of {', '.join(namespaces)}")
        found.append(
            Backend(
                service=form.matching(one, "service", service, "a Service's name", path=here, required=True),
                port=form.number(one, "port", 1, 65535, path=here, default=None),
                namespace=namespace,
                weight=form.number(one, "weight", 0, MAX_WEIGHT, path=here, default=1),
            )
        )
    return tuple(found)


def _timeout(form: Form, entry: Fields, path: str) -> float:
    value = entry.get("timeout_seconds")
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.001 <= value <= _LONGEST_TIMEOUT:
        problem = f"is not a number of seconds up to {_LONGEST_TIMEOUT}"
        form.refuse(f"{path}.timeout_seconds", value, problem, "write 5 or 0.5")
        return 0.0
    return round(float(value), 3)  # the Gateway API knows whole milliseconds (GEP-2257)


# --- what does not go together --------------------------------------------------------------------------------------


def refuse_combinations(form: Form, request: OnboardingRequest) -> None:
    """Everything in a request whose fields are good by themselves that cannot work together."""
    for policy in (_protocols, _cipher_use, _client_ca, _passthrough, _gateway_api):
        policy(form, request)


def _protocols(form: Form, request: OnboardingRequest) -> None:
    tls = request.tls
    if tls.max_protocol is not None and tls.max_protocol < tls.min_protocol:
        problem = f"is below min_protocol {tls.min_protocol.value}: no client could connect"
        form.refuse("tls.max_protocol", tls.max_protocol.value, problem, "raise it, or leave it out")


def _cipher_use(form: Form, request: OnboardingRequest) -> None:
    tls = request.tls
    if not tls.ciphers or not tls.terminates:
        return
    if tls.min_protocol is TlsVersion.TLSV1_3:
        problem = "is only for TLS 1.2, and min_protocol is TLSV1_3 (Envoy: TlsParameters.cipher_suites)"
        form.refuse("tls.ciphers", "", problem, "remove it, or lower min_protocol")
        return
    algorithm = request.certificate.key_algorithm
    fitting = CIPHERS.get(algorithm, CIPHERS[KeyAlgorithm.ECDSA])
    if not set(tls.ciphers) & set(fitting):
        # RFC 8422, section 2: the cipher suite says which kind of key the certificate has
        problem = f"has none for the certificate's {algorithm.value} key: no client of TLS 1.2 could connect (RFC 8422)"
        fix = f"add {fitting[0]}, or set certificate.key_algorithm"
        form.refuse("tls.ciphers", ", ".join(tls.ciphers), problem, fix)


def _client_ca(form: Form, request: OnboardingRequest) -> None:
    if request.tls.client_ca and not request.tls.asks_clients:
        problem = f"is set, but mode {request.tls.mode.value} asks no client for a certificate"
        form.refuse("tls.client_ca", request.tls.client_ca, problem, "remove it, or set mode: MUTUAL")


def _passthrough(form: Form, request: OnboardingRequest) -> None:
    """The gateway sees the ClientHello and nothing after it: the Service behind it serves the certificate."""
    tls = request.tls
    if tls.terminates:
        return
    decided = "is decided by the Service behind it, since mode PASSTHROUGH ends no TLS"
    if tls.min_protocol is not DEFAULT_TLS.min_protocol:
        form.refuse("tls.min_protocol", tls.min_protocol.value, decided, "remove it")
    if tls.max_protocol is not None:
        form.refuse("tls.max_protocol", tls.max_protocol.value, decided, "remove it")
    if tls.ciphers:
        form.refuse("tls.ciphers", ", ".join(tls.ciphers), decided, "remove it")
    if request.hsts is not None:
        form.refuse("hsts", "", "cannot be added to what mode PASSTHROUGH cannot read", "let the Service send it")
    first = request.routes[0]
    plain = first.prefix == "/" and not (first.exact or first.headers or first.others or first.timeout_seconds)
    if len(request.routes) > 1 or not plain:
        problem = "has paths, headers, shares or time-outs, which mode PASSTHROUGH cannot see"
        form.refuse("routes", "", problem, "leave one route with the prefix / to one Service")
    if first.namespace != request.gateway.namespace:
        # Kubernetes: a Pod mounts Secrets of its own namespace only
        problem = (
            f"is not {request.gateway.namespace}, where the certificate's Secret lies: in mode PASSTHROUGH the "
            "Service serves it, and a Pod mounts Secrets of its own namespace only"
        )
        fix = f"run the Service in {request.gateway.namespace}, or use mode SIMPLE"
        form.refuse("routes[0].namespace", first.namespace, problem, fix)


def _gateway_api(form: Form, request: OnboardingRequest) -> None:
    if request.gateway.kind is not GatewayKind.GATEWAY_API:
        return
    use = "or use target: istio"
    count = len(request.hostnames)
    if count > gateway_api.MAX_NAMES:
        problem = f"has {count} names; a Gateway has 64 listeners, two for each name (Gateway API: Gateway.spec)"
        form.refuse("hostnames", "", problem, f"ask for at most {gateway_api.MAX_NAMES} in one domain, {use}")
    if len(request.routes) > gateway_api.MAX_RULES:
        problem = f"has {len(request.routes)} routes; an HTTPRoute has {gateway_api.MAX_RULES} rules (its CRD)"
        form.refuse("routes", "", problem, f"join them by shorter prefixes, {use}")
    services: dict[str, set[str]] = defaultdict(set)
    for route in request.routes:
        for one in route.backends:
            services[one.namespace].add(one.service)
    for namespace, named in sorted(services.items()):
        if namespace != request.gateway.namespace and len(named) > gateway_api.MAX_RULES:
            problem = f"has {len(named)} Services in {namespace}; a ReferenceGrant opens {gateway_api.MAX_RULES}"
            form.refuse("routes", "", problem, f"lead to fewer, {use}")
    if request.tls.terminates and request.tls.min_protocol is not DEFAULT_TLS.min_protocol:
        form.refuse("tls.min_protocol", request.tls.min_protocol.value, _NO_PROTOCOLS, f"remove it, {use}")
    if request.tls.terminates and request.tls.max_protocol is not None:
        form.refuse("tls.max_protocol", request.tls.max_protocol.value, _NO_PROTOCOLS, f"remove it, {use}")


_NO_PROTOCOLS = "cannot be said in the Gateway API, nor by an option of Istio 1.31; it serves TLS 1.2 and newer"


def routes_collide(first: Route, second: Route) -> bool:
    """Whether two routes match the same requests: "/api" and "/api/" mean the same paths, unless exact."""

    def matched(route: Route) -> tuple[object, ...]:
        return (route.prefix if route.exact else route.prefix.rstrip("/"), route.exact, route.headers)

    return matched(first) == matched(second)
