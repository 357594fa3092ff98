"""Is what somebody says of an issuer well formed? Every type of cert-manager, every solver: all reasons at once.

A document has the issuer's name, kind and namespace, and one of the sections `acme` (or its fields at the top), `ca`,
`selfsigned`, `vault`, `venafi`; several issuers are a list under `issuers`. Tables say which fields there are and
where cert-manager has them; rules that span fields are those of its webhook (1.21, internal/apis/*/validation), told
before anything starts. Credentials are never taken: Secrets are named, as ``NAME``, ``NAME/KEY`` or name and key.
Left out: whether those are there (`lifecycle.issuers`), and writing them (the command line alone does).
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from lifecycle import findings
from lifecycle.domain import IssuerKind, IssuerRef
from lifecycle.findings import Finding
from lifecycle.issuers import NO_REHEARSAL
from lifecycle.requests import FieldError, Form
from lifecycle.solvers import UNROUTED_CLASS
from lifecycle.steps import IssuerRequest

Document = Mapping[object, object]
Made = dict[str, Any]

DIRECTORIES = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt-production": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
"""CAs by name (Let's Encrypt documentation, "Staging Environment" and "ACME Client Implementation Guide")."""

MAX_ISSUERS = 50
MAX_SOLVERS = 50
"""Ours: an issuer with more is better several."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DNS_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*\.?", re.IGNORECASE)
_KEY = re.compile(r"[A-Za-z0-9._-]{1,253}")
_EMAIL = re.compile(r"[^@\s\"<>]+@[^@\s\"<>]+\.[^@\s\"<>.]+")
_PROFILE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LINE = re.compile(r"[^\r\n]{1,1000}")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")
_WORD = re.compile(r"\S{1,500}")
_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_CREDENTIAL = re.compile(r"(token|secret|password|passphrase|private_?key|api_?key|credentials?)$", re.IGNORECASE)


class Kind(Enum):
    """What a field holds."""

    TEXT = "text"
    SECRET = "secret"
    SECRET_NAME = "secret name"
    URL = "url"
    PEM = "pem"
    FLAG = "flag"
    TEXTS = "texts"
    OBJECT = "object"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Field:
    """One field: our name, where cert-manager has it (dotted), and what may be written.

    Attributes:
        key: of a Secret, where none is written; the one that cert-manager's documentation uses.
        choices: the only texts there are; matched without regard to case.
    """

    name: str
    path: str
    kind: Kind = Kind.TEXT
    required: bool = False
    pattern: re.Pattern[str] = _LINE
    wanted: str = "a text"
    choices: tuple[str, ...] = ()
    key: str = ""


def _text(
    name: str, path: str, *, required: bool = False, pattern: re.Pattern[str] = _WORD, wanted: str = "a text"
) -> Field:
    return Field(name, path, required=required, pattern=pattern, wanted=wanted)


def _choice(name: str, path: str, *choices: str) -> Field:
    return Field(name, path, choices=choices)


def _secret(name: str, path: str, key: str, *, required: bool = False) -> Field:
    return Field(name, path, Kind.SECRET, required, key=key)


# --- the tables -------------------------------------------------------------------------------------------------------

ACME = (
    _text("email", "email", pattern=_EMAIL, wanted="an address, e.g. tls@example.com"),
    Field("ca_bundle", "caBundle", Kind.PEM),
    _text("profile", "profile", pattern=_PROFILE, wanted="a profile, e.g. tlsserver"),
    _text("preferred_chain", "preferredChain", pattern=_LINE, wanted="the common name of a root, e.g. ISRG Root X1"),
    Field("enable_duration", "enableDurationFeature", Kind.FLAG),
    Field("reuse_account", "disableAccountKeyGeneration", Kind.FLAG),
)
"""Of ACME; server, account_secret, eab and solvers are read by themselves."""

EAB = (
    _text("key_id", "keyID", required=True, wanted="the key's identifier that the CA gave"),
    _secret("secret", "keySecretRef", "secret", required=True),
)
"""External account binding (RFC 8555, section 7.3.4)."""

CA = (
    Field("secret", "secretName", Kind.SECRET_NAME, required=True),
    Field("crl_distribution_points", "crlDistributionPoints", Kind.TEXTS),
    Field("ocsp_servers", "ocspServers", Kind.TEXTS),
    Field("issuing_certificate_urls", "issuingCertificateURLs", Kind.TEXTS),
)
SELF_SIGNED = (Field("crl_distribution_points", "crlDistributionPoints", Kind.TEXTS),)

VAULT = (
    Field("server", "server", Kind.URL, required=True),
    _text("path", "path", required=True, wanted="the signing role's path, e.g. pki/sign/example"),
    _text("server_name", "serverName", wanted="the name in Vault's certificate"),
    _text("vault_namespace", "namespace", wanted="a namespace of Vault's"),
    Field("ca_bundle", "caBundle", Kind.PEM),
    _secret("ca_bundle_secret", "caBundleSecretRef", "ca.crt"),
    _secret("client_certificate_secret", "clientCertSecretRef", "tls.crt"),
    _secret("client_key_secret", "clientKeySecretRef", "tls.key"),
)
VAULT_AUTH: dict[str, tuple[str, tuple[Field, ...]]] = {
    "token": ("tokenSecretRef", (_secret("secret", "", "token", required=True),)),
    "app_role": (
        "appRole",
        (
            _text("path", "path", wanted="where the method is mounted (approle)"),
            _text("role_id", "roleId", required=True, wanted="the role's id"),
            _secret("secret", "secretRef", "secretId", required=True),
        ),
    ),
    "kubernetes": (
        "kubernetes",
        (
            _text("role", "role", required=True, wanted="a role of Vault's"),
            _text("mount_path", "mountPath", wanted="where the method is mounted, e.g. /v1/auth/kubernetes"),
            _text("service_account", "serviceAccountRef.name", pattern=_NAME, wanted="a ServiceAccount's name"),
            Field("audiences", "serviceAccountRef.audiences", Kind.TEXTS),
            _secret("secret", "secretRef", "token"),
        ),
    ),
    "client_certificate": (
        "clientCertificate",
        (
            _text("mount_path", "mountPath", wanted="where the method is mounted, e.g. /v1/auth/cert"),
            Field("secret", "secretName", Kind.SECRET_NAME),
            _text("name", "name", wanted="a role of Vault's"),
        ),
    ),
}
"""How cert-manager proves itself to Vault: our name, its field, and what is in it."""

VENAFI: dict[str, tuple[Field, ...]] = {
    "tpp": (
        Field("url", "url", Kind.URL, required=True),
        Field("credentials", "credentialsRef", Kind.SECRET_NAME, required=True),
        Field("ca_bundle", "caBundle", Kind.PEM),
        _secret("ca_bundle_secret", "caBundleSecretRef", "ca.crt"),
    ),
    "cloud": (
        Field("url", "url", Kind.URL),
        _secret("api_token", "apiTokenSecretRef", "apikey", required=True),
    ),
    "ngts": (
        _text("tsg_id", "tsgID", required=True, wanted="the tenant service group's id"),
        Field("url", "url", Kind.URL),
        Field("token_endpoint", "tokenEndpoint", Kind.URL),
        Field("credentials", "credentialsRef", Kind.SECRET_NAME, required=True),
    ),
}
"""CyberArk Certificate Manager, formerly Venafi: self-hosted (tpp), SaaS (cloud) and NGTS."""

DNS01: dict[str, tuple[str, tuple[Field, ...]]] = {
    "rfc2136": (
        "rfc2136",
        (
            _text("nameserver", "nameserver", required=True, pattern=_HOST_PORT, wanted="a name server, e.g. ns1:53"),
            _text("tsig_key_name", "tsigKeyName", wanted="the key's name"),
            _choice("tsig_algorithm", "tsigAlgorithm", "HMACSHA256", "HMACSHA512", "HMACSHA1", "HMACMD5"),
            _secret("tsig_secret", "tsigSecretSecretRef", "tsig-secret-key"),
            _choice("protocol", "protocol", "TCP", "UDP"),
        ),
    ),
    "cloudflare": (
        "cloudflare",
        (
            _text("email", "email", pattern=_EMAIL, wanted="an address, e.g. dns@example.com"),
            _secret("api_token", "apiTokenSecretRef", "api-token"),
            _secret("api_key", "apiKeySecretRef", "api-key"),
        ),
    ),
    "route53": (
        "route53",
        (
            _text("region", "region", wanted="a region, e.g. eu-central-1"),
            _text("hosted_zone_id", "hostedZoneID", wanted="a hosted zone's id"),
            _text("role", "role", wanted="a role's ARN"),
            _text("access_key_id", "accessKeyID", wanted="an access key's id"),
            _secret("access_key_id_secret", "accessKeyIDSecretRef", "access-key-id"),
            _secret("secret_access_key", "secretAccessKeySecretRef", "secret-access-key"),
            _text("service_account", "auth.kubernetes.serviceAccountRef.name", pattern=_NAME, wanted="a name"),
            Field("audiences", "auth.kubernetes.serviceAccountRef.audiences", Kind.TEXTS),
        ),
    ),
    "clouddns": (
        "cloudDNS",
        (
            _text("project", "project", required=True, wanted="a project's id"),
            _text("hosted_zone", "hostedZoneName", wanted="a managed zone's name"),
            _secret("service_account", "serviceAccountSecretRef", "key.json"),
        ),
    ),
    "azuredns": (
        "azureDNS",
        (
            _text("subscription_id", "subscriptionID", required=True, wanted="a subscription's id"),
            _text("resource_group", "resourceGroupName", required=True, wanted="a resource group's name"),
            _text("hosted_zone", "hostedZoneName", wanted="a zone's name"),
            _choice(
                "environment",
                "environment",
                "AzurePublicCloud",
                "AzureChinaCloud",
                "AzureGermanCloud",
                "AzureUSGovernmentCloud",
            ),
            _choice("zone_type", "zoneType", "AzurePublicZone", "AzurePrivateZone"),
            _text("client_id", "clientID", wanted="an application's id"),
            _text("tenant_id", "tenantID", wanted="a tenant's id"),
            _secret("client_secret", "clientSecretSecretRef", "client-secret"),
            _text("identity_client_id", "managedIdentity.clientID", wanted="a managed identity's client id"),
            _text("identity_resource_id", "managedIdentity.resourceID", wanted="a managed identity's resource id"),
            _text("identity_tenant_id", "managedIdentity.tenantID", wanted="a managed identity's tenant id"),
        ),
    ),
    "acmedns": (
        "acmeDNS",
        (
            Field("host", "host", Kind.URL, required=True),
            _secret("account", "accountSecretRef", "acmedns.json", required=True),
        ),
    ),
    "digitalocean": ("digitalocean", (_secret("token", "tokenSecretRef", "access-token", required=True),)),
    "akamai": (
        "akamai",
        (
            _text("service_consumer_domain", "serviceConsumerDomain", required=True, wanted="a domain"),
            _secret("client_token", "clientTokenSecretRef", "clientToken", required=True),
            _secret("client_secret", "clientSecretSecretRef", "clientSecret", required=True),
            _secret("access_token", "accessTokenSecretRef", "accessToken", required=True),
        ),
    ),
    "webhook": (
        "webhook",
        (
            _text("group_name", "groupName", required=True, pattern=_NAME, wanted="the webhook's API group"),
            _text("solver_name", "solverName", required=True, wanted="the solver's name"),
            Field("config", "config", Kind.OBJECT),
        ),
    ),
}
"""Providers of DNS-01: our name, cert-manager's, and the fields."""


# --- the documents ----------------------------------------------------------------------------------------------------


def parse_issuers(document: object) -> tuple[IssuerRequest, ...] | tuple[FieldError, ...]:
    """The requests of a document with one issuer or, under `issuers`, a list; or all that is wrong with them."""
    if not isinstance(document, Mapping) or "issuers" not in document:
        parsed = parse_issuer(document)
        return (parsed,) if isinstance(parsed, IssuerRequest) else parsed
    form = Form()
    form.known(document, "", ("issuers",))
    entries = document["issuers"]
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not 0 < len(entries) <= MAX_ISSUERS:
        form.refuse("issuers", entries, f"is no list of 1 to {MAX_ISSUERS} issuers", "write one entry for each")
        return form.errors
    requests: list[IssuerRequest] = []
    for index, entry in enumerate(entries):
        parsed = parse_issuer(entry)
        if isinstance(parsed, IssuerRequest):
            if parsed.ref in [one.ref for one in requests]:
                form.refuse(f"issuers[{index}].name", parsed.ref.name, "is there twice", "keep one of them")
            requests.append(parsed)
        else:
            for one in parsed:
                field = f"issuers[{index}].{one.field}".rstrip(".")
                form.refuse(field, one.value, one.problem, one.fix)
    return form.errors or tuple(_rehearsed_at_staging(one, requests) for one in requests)


def _rehearsed_at_staging(request: IssuerRequest, requests: Sequence[IssuerRequest]) -> IssuerRequest:
    """Of Let's Encrypt, with nothing said: at the staging issuer beside it, if there is one that it can use."""
    if request.rehearsal or request.server != DIRECTORIES["letsencrypt"]:
        return request
    for one in requests:
        near = one.ref.kind is IssuerKind.CLUSTER_ISSUER or one.ref.namespace == request.ref.namespace
        if one.server == DIRECTORIES["letsencrypt-staging"] and near:
            return dataclasses.replace(request, rehearsal=f"{one.ref.kind.value}/{one.ref.name}")
    return request


def unrehearsed(request: IssuerRequest) -> Finding | None:
    """How an issuer of Let's Encrypt's production gets a rehearsal, where nothing was said of one."""
    if request.rehearsal or request.server != DIRECTORIES["letsencrypt"]:
        return None
    return findings.REHEARSAL_NOT_SET.found(
        subject=f"{request.ref.kind.value} {request.ref.name}",
        problem="Its first certificates are not rehearsed: a failure counts at once against Let's Encrypt's limits.",
        fix="Declare an issuer with server: letsencrypt-staging beside it, or write rehearsal: NAME; rehearsal: none "
        "where that is meant.",
    )


def parse_issuer(document: object) -> IssuerRequest | tuple[FieldError, ...]:
    """The request for one issuer, or all that is wrong with it."""
    form = Form()
    if not isinstance(document, Mapping):
        form.refuse("", document, "is not an object", "send an object with name and server")
        return form.errors
    top = ("name", "kind", "namespace", "cert_manager_namespace", "rehearsal")
    acme_fields = ("server", "account_secret", "eab", "solvers", *(field.name for field in ACME))
    form.known(document, "", (*top, *acme_fields, *_TYPES))
    name = form.matching(document, "name", _NAME, "an object's name, e.g. letsencrypt", required=True)
    kind = form.choice(document, "kind", IssuerKind, IssuerKind.CLUSTER_ISSUER)
    namespace = form.matching(document, "namespace", _LABEL, "a namespace")
    if kind is IssuerKind.CLUSTER_ISSUER and namespace:
        form.refuse("namespace", namespace, "is set, but a ClusterIssuer has none", "remove it, or set kind: Issuer")
    if kind is IssuerKind.ISSUER and not namespace and "namespace" not in form.fields:
        form.refuse("namespace", "", "is missing", "name the namespace of the Issuer")
    place = form.matching(document, "cert_manager_namespace", _LABEL, "a namespace") or "cert-manager"
    rehearsal = _rehearsal(form, document, IssuerRef(name=name, kind=kind, namespace=namespace))
    present = [one for one in _TYPES if document.get(one) is not None]
    loose = [one for one in acme_fields if document.get(one) is not None]
    kinds = [*present, *(["acme"] if loose and "acme" not in present else [])]
    if len(kinds) > 1:
        named = " and ".join(sorted(set(kinds)))
        form.refuse(kinds[0], "", f"is not the only type: there is {named}", "write one issuer for each type")
    chosen = kinds[0] if kinds else "acme"
    if loose and "acme" in present:
        form.refuse(loose[0], "", "stands beside the section acme", "write all ACME fields in one place")
    section, path = (document, "") if chosen == "acme" and "acme" not in present else (document.get(chosen), chosen)
    if section is not None and not isinstance(section, Mapping):
        form.refuse(path, section, "is not an object", f"write {path} as an object with fields")
        return form.errors
    made = _TYPES[chosen](form, section or {}, path, name, place if kind is IssuerKind.CLUSTER_ISSUER else namespace)
    if form.errors:
        return form.errors
    acme = made.get("acme") or {}
    return IssuerRequest(
        ref=IssuerRef(name=name, kind=kind, namespace=namespace),
        server=acme.get("server", ""),
        email=acme.get("email", ""),
        account_secret=(acme.get("privateKeySecretRef") or {}).get("name", ""),
        profile=acme.get("profile", ""),
        cert_manager_namespace=place,
        spec=json.dumps(made, sort_keys=True),
        rehearsal=rehearsal,
    )


def _rehearsal(form: Form, document: Document, ref: IssuerRef) -> str:
    """Where its certificates are rehearsed: ``NAME``, ``KIND/NAME``, name and kind, or ``none``."""
    given = document.get("rehearsal")
    if given is None:
        return ""
    fields: Document = {"name": given}
    if isinstance(given, Mapping):
        fields = given
    elif isinstance(given, str) and "/" in given:
        written, _, named = given.partition("/")
        fields = {"kind": written, "name": named}
    form.known(fields, "rehearsal", ("name", "kind"))
    kind = form.choice(fields, "kind", IssuerKind, ref.kind, path="rehearsal")
    name = form.matching(fields, "name", _NAME, "an issuer's name, or none", path="rehearsal", required=True)
    if name == NO_REHEARSAL:
        return NO_REHEARSAL
    if kind is IssuerKind.ISSUER and ref.kind is IssuerKind.CLUSTER_ISSUER:
        problem = "is an Issuer of one namespace, and a ClusterIssuer is used from all"
        form.refuse("rehearsal.kind", kind.value, problem, "name a ClusterIssuer")
    if (kind, name) == (ref.kind, ref.name):
        form.refuse("rehearsal", name, "is the issuer itself", "name another one, of the CA's staging environment")
    return f"{kind.value}/{name}" if name else ""


def _acme(form: Form, given: Document, path: str, name: str, namespace: str) -> Made:
    if path:
        names = ("server", "account_secret", "eab", "solvers", *(field.name for field in ACME))
        form.known(given, path, names)
    made = _fields(form, given, path, ACME)
    server = form.text(given, "server", path=path, required=True)
    made["server"] = DIRECTORIES.get(server.lower(), server)
    if server and server.lower() not in DIRECTORIES:
        _url(form, made["server"], _join(path, "server"))
    if given.get("eab") is not None:
        section = _object(form, given, path, "eab")
        form.known(section, _join(path, "eab"), [field.name for field in EAB])
        made["externalAccountBinding"] = _fields(form, section, _join(path, "eab"), EAB)
    account = _secret_named(form, given.get("account_secret"), _join(path, "account_secret"), "")
    made["privateKeySecretRef"] = account or {"name": f"{name}-account"}
    if made.get("disableAccountKeyGeneration") and not account:
        # cert-manager documentation, "Reusing an ACME Account": the key must be there before the issuer is
        problem = "is missing, and an account cannot be reused without its key"
        form.refuse(_join(path, "account_secret"), "", problem, f"name the Secret with the key, in {namespace}")
    made["solvers"] = _solvers(form, given.get("solvers"), _join(path, "solvers"))
    return {"acme": made}


def _ca(form: Form, given: Document, path: str, name: str, namespace: str) -> Made:
    form.known(given, path, [field.name for field in CA])
    return {"ca": _fields(form, given, path, CA)}


def _self_signed(form: Form, given: Document, path: str, name: str, namespace: str) -> Made:
    form.known(given, path, [field.name for field in SELF_SIGNED])
    return {"selfSigned": _fields(form, given, path, SELF_SIGNED)}


def _vault(form: Form, given: Document, path: str, name: str, namespace: str) -> Made:
    form.known(given, path, [*(field.name for field in VAULT), "auth"])
    made = _fields(form, given, path, VAULT)
    if ".." in str(made.get("path", "")).split("/"):
        form.refuse(_join(path, "path"), made["path"], "has a part ..", "write it in full, e.g. pki/sign/example")
    if "caBundle" in made and "caBundleSecretRef" in made:
        form.refuse(_join(path, "ca_bundle"), "", "is set, and ca_bundle_secret too", "keep one of them")
    if ("clientCertSecretRef" in made) != ("clientKeySecretRef" in made):
        missing = "client_key_secret" if "clientCertSecretRef" in made else "client_certificate_secret"
        form.refuse(_join(path, missing), "", "is missing, and its other half is set", "set both or none")
    auth_path = _join(path, "auth")
    auth = _object(form, given, path, "auth")
    form.known(auth, auth_path, tuple(VAULT_AUTH))
    ways = [way for way in VAULT_AUTH if auth.get(way) is not None]
    if len(ways) != 1:
        problem = f"names {len(ways)} ways, and needs one" if auth else "is missing"
        form.refuse(auth_path, "", problem, f"write one of {', '.join(VAULT_AUTH)}")
    made["auth"] = {}
    for way in ways:
        their, fields = VAULT_AUTH[way]
        here = _join(auth_path, way)
        entry = auth[way]
        section: Document = {"secret": entry} if way == "token" and not _has(entry, "secret") else {}
        if not section:
            section = _object(form, auth, auth_path, way)
        form.known(section, here, [field.name for field in fields])
        part = _fields(form, section, here, fields)
        if way == "app_role":
            part.setdefault("path", "approle")
        if way == "kubernetes":
            _one_of(form, here, part, ("serviceAccountRef", "service_account"), ("secretRef", "secret"))
        made["auth"][their] = part.get("", part)
    return {"vault": made}


def _venafi(form: Form, given: Document, path: str, name: str, namespace: str) -> Made:
    form.known(given, path, ("zone", *VENAFI))
    zone = form.matching(given, "zone", _LINE, "a zone or policy folder", path=path, required=True)
    made: Made = {"zone": zone}
    ways = [way for way in VENAFI if given.get(way) is not None]
    if len(ways) != 1:
        form.refuse(path, "", f"names {len(ways)} products, and needs one", f"write one of {', '.join(VENAFI)}")
    for way in ways:
        here, section = _join(path, way), _object(form, given, path, way)
        form.known(section, here, [field.name for field in VENAFI[way]])
        made[way] = _fields(form, section, here, VENAFI[way])
        if "caBundle" in made[way] and "caBundleSecretRef" in made[way]:
            form.refuse(_join(here, "ca_bundle"), "", "is set, and ca_bundle_secret too", "keep one of them")
    return {"venafi": made}


_TYPES: dict[str, Callable[[Form, Document, str, str, str], Made]] = {
    "acme": _acme,
    "ca": _ca,
    "selfsigned": _self_signed,
    "vault": _vault,
    "venafi": _venafi,
}


# --- solvers ----------------------------------------------------------------------------------------------------------


def _solvers(form: Form, given: object, path: str) -> list[Made]:
    """Without any, HTTP-01 through Istio."""
    if given is None:
        return [{"http01": _routed()}]
    if not isinstance(given, Sequence) or isinstance(given, str) or not 0 < len(given) <= MAX_SOLVERS:
        form.refuse(path, given, f"is no list of 1 to {MAX_SOLVERS} solvers", "write http01 or dns01 for each")
        return []
    return [_solver(form, entry, f"{path}[{index}]") for index, entry in enumerate(given)]


def _solver(form: Form, entry: object, path: str) -> Made:
    if not isinstance(entry, Mapping):
        form.refuse(path, entry, "is not an object", "write http01 or dns01, and a selector")
        return {}
    form.known(entry, path, ("http01", "dns01", "cname_strategy", "selector", "wait_seconds"))
    made: Made = {}
    selector = _selector(form, entry, path)
    if selector:
        made["selector"] = selector
    if (entry.get("http01") is None) == (entry.get("dns01") is None):
        both = entry.get("http01") is not None
        problem = "has http01 and dns01" if both else "has neither http01 nor dns01"
        form.refuse(path, "", problem, "write one of them; several solvers are several entries")
    elif entry.get("dns01") is not None:
        made["dns01"] = _dns01(form, entry, path)
    else:
        made["http01"] = _http01(form, entry["http01"], f"{path}.http01")
        if entry.get("cname_strategy") is not None:
            form.refuse(f"{path}.cname_strategy", "", "is for dns01 only", "remove it")
        for index, name in enumerate(selector.get("dnsNames", ())):
            if name.startswith("*."):
                # RFC 8555, section 8.3: http-01 is never offered for a wildcard
                field = f"{path}.selector.dns_names[{index}]"
                form.refuse(field, name, "is a wildcard, which HTTP-01 cannot prove", "give it a dns01 solver")
    if entry.get("wait_seconds") is not None:
        seconds = form.number(entry, "wait_seconds", 0, 3600, path=path, default=None)
        made["waitInsteadOfSelfCheck"] = f"{seconds}s"
    return made


def _routed() -> Made:
    return {"ingress": {"ingressClassName": UNROUTED_CLASS, "serviceType": "ClusterIP"}}


def _http01(form: Form, given: object, path: str) -> Made:
    if given in ("virtual-service", "virtualservice", "istio"):
        return _routed()
    if not isinstance(given, Mapping):
        fix = "write virtual-service, or gateway, ingress_class or ingress_name as an object"
        form.refuse(path, given, "is no way to the solver", fix)
        return {}
    form.known(given, path, ("gateway", "ingress_class", "ingress_name", "service_type", "labels"))
    ways = [way for way in ("gateway", "ingress_class", "ingress_name") if given.get(way) is not None]
    if len(ways) != 1:
        fix = "write one of gateway, ingress_class, ingress_name; or virtual-service instead of an object"
        form.refuse(path, "", f"names {len(ways)} ways, and needs one", fix)
        return {}
    service = _choice_of(form, given, "service_type", path, ("ClusterIP", "NodePort")) or "ClusterIP"
    if ways == ["ingress_class"]:
        name = form.matching(given, "ingress_class", _NAME, "an IngressClass", path=path)
        return {"ingress": {"ingressClassName": name, "serviceType": service}}
    if ways == ["ingress_name"]:
        name = form.matching(given, "ingress_name", _NAME, "an Ingress's name", path=path)
        return {"ingress": {"name": name, "serviceType": service}}
    route: Made = {"parentRefs": _parents(form, given["gateway"], f"{path}.gateway"), "serviceType": service}
    labels = _labels(form, given, "labels", path)
    if labels:
        route["labels"] = labels
    return {"gatewayHTTPRoute": route}


def _parents(form: Form, given: object, path: str) -> list[Made]:
    entries = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    parents: list[Made] = []
    for index, entry in enumerate(entries):
        here = f"{path}[{index}]" if entries is given else path
        if not isinstance(entry, Mapping):
            form.refuse(here, entry, "is not an object", "write name and namespace of the Gateway API's Gateway")
            continue
        form.known(entry, here, ("name", "namespace", "section", "port", "kind", "group"))
        parent: Made = {
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "name": form.matching(entry, "name", _NAME, "a Gateway's name", path=here, required=True),
        }
        if namespace := form.matching(entry, "namespace", _LABEL, "a namespace", path=here):
            parent["namespace"] = namespace
        if section := form.matching(entry, "section", _NAME, "a listener's name", path=here):
            parent["sectionName"] = section
        if entry.get("port") is not None:
            parent["port"] = form.number(entry, "port", 1, 65535, path=here, default=None)
        group, kind = form.text(entry, "group", path=here), form.text(entry, "kind", path=here)
        if group not in ("", "gateway.networking.k8s.io") or kind not in ("", "Gateway"):
            # cert-manager makes an HTTPRoute, whose parents are the Gateway API's; Istio's own Gateway is another kind
            problem = "is not the Gateway API's Gateway, and an HTTPRoute has no other parents"
            form.refuse(here, f"{group}/{kind}".strip("/"), problem, "name one, or use http01: virtual-service")
        parents.append(parent)
    return parents


def _dns01(form: Form, entry: Document, path: str) -> Made:
    here = f"{path}.dns01"
    given = _object(form, entry, path, "dns01")
    providers = [name for name in given if name in DNS01]
    form.known(given, here, tuple(DNS01))
    made: Made = {}
    if strategy := _choice_of(form, entry, "cname_strategy", path, ("None", "Follow")):
        made["cnameStrategy"] = strategy
    if len(providers) != 1:
        problem = f"names {len(providers)} providers, and needs one"
        form.refuse(here, "", problem, f"write one of {', '.join(DNS01)}")
        return made
    (name,) = providers
    their, fields = DNS01[str(name)]
    place, section = f"{here}.{name}", _object(form, given, here, str(name))
    form.known(section, place, [field.name for field in fields])
    part = _fields(form, section, place, fields)
    rule = _RULES.get(str(name))
    if rule is not None:
        rule(form, part, place)
    made[their] = part
    return made


def _rfc2136(form: Form, made: Made, path: str) -> None:
    halves = {"tsig_key_name": "tsigKeyName" in made, "tsig_secret": "tsigSecretSecretRef" in made}
    if any(halves.values()):
        for half, there in halves.items():
            if not there:
                form.refuse(f"{path}.{half}", "", "is missing, and its other half is set", "set both or none")
        # cert-manager's own default is HMACMD5, which RFC 8945, section 6, forbids to use
        made.setdefault("tsigAlgorithm", "HMACSHA256")


def _cloudflare(form: Form, made: Made, path: str) -> None:
    _one_of(form, path, made, ("apiTokenSecretRef", "api_token"), ("apiKeySecretRef", "api_key"))
    if "apiKeySecretRef" in made and "email" not in made:
        form.refuse(f"{path}.email", "", "is missing, and a global API key needs it", "set it, or use api_token")


def _route53(form: Form, made: Made, path: str) -> None:
    if "accessKeyID" in made and "accessKeyIDSecretRef" in made:
        form.refuse(f"{path}.access_key_id", "", "is set, and access_key_id_secret too", "keep one of them")
    identified = "accessKeyID" in made or "accessKeyIDSecretRef" in made
    if identified != ("secretAccessKeySecretRef" in made):
        missing = "secret_access_key" if identified else "access_key_id"
        form.refuse(f"{path}.{missing}", "", "is missing, and its other half is set", "set both or none")
    if "auth" in made and "role" not in made:
        form.refuse(f"{path}.role", "", "is missing, and a ServiceAccount needs it", "set the role's ARN")


def _azuredns(form: Form, made: Made, path: str) -> None:
    parts = {
        "client_id": "clientID" in made,
        "tenant_id": "tenantID" in made,
        "client_secret": "clientSecretSecretRef" in made,
    }
    identity = made.get("managedIdentity") or {}
    if any(parts.values()):
        for part, there in parts.items():
            if not there:
                form.refuse(f"{path}.{part}", "", "is missing, and the others are set", "set all three or none")
        if identity:
            problem = "is set, and an application's credentials too"
            form.refuse(f"{path}.identity_client_id", "", problem, "keep one of them")
    if "clientID" in identity and "resourceID" in identity:
        form.refuse(f"{path}.identity_client_id", "", "is set, and identity_resource_id too", "keep one of them")
    if "tenantID" in identity and "clientID" not in identity:
        problem = "is set without identity_client_id"
        form.refuse(f"{path}.identity_tenant_id", "", problem, "set identity_client_id, or remove it")


_RULES: dict[str, Callable[[Form, Made, str], None]] = {
    "rfc2136": _rfc2136,
    "cloudflare": _cloudflare,
    "route53": _route53,
    "azuredns": _azuredns,
}


def _selector(form: Form, entry: Document, path: str) -> Made:
    given = _object(form, entry, path, "selector")
    here = f"{path}.selector"
    form.known(given, here, ("dns_zones", "dns_names", "match_labels"))
    made: Made = {}
    for ours, theirs in (("dns_names", "dnsNames"), ("dns_zones", "dnsZones")):
        names = []
        for index, text in enumerate(_texts(form, given, ours, here)):
            field = f"{here}.{ours}[{index}]"
            if not _DNS_NAME.fullmatch(text):
                form.refuse(field, text, "is no DNS name", "write it as in example.com")
            elif ours == "dns_zones" and text.startswith("*."):
                form.refuse(field, text, "is a wildcard; a zone covers all below it", f"write {text[2:]}")
            # names are compared as they are written, and those of a Certificate have small letters and no last dot
            names.append(text.lower().rstrip("."))
        if names:
            made[theirs] = names
    labels = _labels(form, given, "match_labels", here)
    if labels:
        made["matchLabels"] = labels
    return made


# --- fields -----------------------------------------------------------------------------------------------------------


def _fields(form: Form, given: Document, path: str, fields: Sequence[Field]) -> Made:
    """What the table's fields say, laid out as cert-manager has it."""
    made: Made = {}
    for field in fields:
        here = _join(path, field.name)
        value = given.get(field.name)
        if value is None or value == "":
            if field.required:
                form.refuse(here, "", "is missing", f"set {field.name}")
            continue
        found = _value(form, given, field, path, here)
        if found is not None:
            _put(made, field.path, found)
    return made


def _value(form: Form, given: Document, field: Field, path: str, here: str) -> Any:
    value = given[field.name]
    match field.kind:
        case Kind.SECRET:
            return _secret_named(form, value, here, field.key)
        case Kind.SECRET_NAME:
            named = _secret_named(form, value, here, "")
            if named is None:
                return None
            return named if field.path == "credentialsRef" else named["name"]
        case Kind.FLAG:
            if not isinstance(value, bool):
                form.refuse(here, value, "is neither true nor false", "write true or false")
            return value or None
        case Kind.TEXTS:
            return _texts(form, given, field.name, path) or None
        case Kind.PEM:
            return _pem(form, given, field.name, path)
        case Kind.OBJECT:
            return _free(form, value, here)
        case Kind.URL:
            text = form.text(given, field.name, path=path)
            _url(form, text, here)
            return text or None
        case _:
            if field.choices:
                return _choice_of(form, given, field.name, path, field.choices)
            return form.matching(given, field.name, field.pattern, field.wanted, path=path) or None


def _secret_named(form: Form, value: object, here: str, key: str) -> Made | None:
    """A Secret by name, and key where one is needed: ``NAME``, ``NAME/KEY``, or an object of both."""
    if value is None or value == "":
        return None
    if isinstance(value, Mapping):
        form.known(value, here, ("name", "key"))
        name = form.matching(value, "name", _NAME, "a Secret's name", path=here, required=True)
        key = form.matching(value, "key", _KEY, "a key of a Secret", path=here) or key
    elif isinstance(value, str):
        name, slash, written = value.strip().partition("/")
        key = written if slash else key
        if not _NAME.fullmatch(name) or len(name) > 253 or (key and not _KEY.fullmatch(key)):
            # not repeated: somebody may have written the credential itself
            form.refuse(here, "", "is no Secret's name", "write NAME or NAME/KEY of a Secret that holds the credential")
            return None
    else:
        form.refuse(here, "", "is no Secret's name", "write NAME or NAME/KEY of a Secret")
        return None
    return {"name": name, "key": key} if key else {"name": name}


def _pem(form: Form, given: Document, name: str, path: str) -> str | None:
    """Certificates in PEM as cert-manager has them, base64 of the text."""
    here, text = _join(path, name), form.text(given, name, path=path)
    if "PRIVATE KEY" in text:
        form.refuse(here, "", "contains a private key", "send the CA's certificates only, and replace that key")
    elif text and "-----BEGIN CERTIFICATE-----" not in text:
        form.refuse(here, text, "is not PEM", "paste the text from -----BEGIN CERTIFICATE----- on")
    elif text:
        return base64.b64encode(f"{text}\n".encode()).decode("ascii")
    return None


def _free(form: Form, value: object, here: str) -> Any:
    """A webhook's own configuration, which only it knows; credentials in it would lie open in cluster and history."""
    if not isinstance(value, Mapping):
        form.refuse(here, "", "is not an object", "write the webhook's own fields")
        return None
    suspicious = [path for path, key, text in _leaves(value, here) if _CREDENTIAL.search(key) or "PRIVATE KEY" in text]
    for path in suspicious:
        form.refuse(path, "", "looks like a credential", "put it into a Secret, and refer to that as the webhook says")
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        form.refuse(here, "", "cannot be written as JSON", "use texts, numbers, lists and objects only")
        return None


def _leaves(value: object, path: str, key: str = "") -> list[tuple[str, str, str]]:
    if isinstance(value, Mapping):
        return [leaf for name, part in value.items() for leaf in _leaves(part, f"{path}.{name}", str(name))]
    if isinstance(value, list | tuple):
        return [leaf for index, part in enumerate(value) for leaf in _leaves(part, f"{path}[{index}]", key)]
    return [(path, key, value)] if isinstance(value, str) else []


def _texts(form: Form, given: Document, name: str, path: str) -> list[str]:
    value, here = given.get(name), _join(path, name)
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Sequence):
        form.refuse(here, value, "is not a list", "write a list of texts")
        return []
    good = []
    for index, entry in enumerate(value):
        if isinstance(entry, str) and _WORD.fullmatch(entry):
            good.append(entry)
        else:
            form.refuse(f"{here}[{index}]", entry, "is not a text without spaces", "write one text for each entry")
    return good


def _labels(form: Form, given: Document, name: str, path: str) -> Made:
    value, here = given.get(name), _join(path, name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        form.refuse(here, value, "is not an object of labels", "write labels as key: value")
        return {}
    for key, text in value.items():
        good = isinstance(key, str) and _LABEL_KEY.fullmatch(key)
        if not good or not isinstance(text, str) or not _LABEL_VALUE.fullmatch(text):
            # YAML reads true and 1 as no texts
            form.refuse(f"{here}.{str(key)[:40]}", text, "is not a label", 'write labels as key: "value"')
    return {str(key): text for key, text in value.items()}


def _object(form: Form, given: Document, path: str, name: str) -> Document:
    value = given.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        # not repeated: it may be a credential
        form.refuse(_join(path, name), "", "is not an object", f"write {name} as an object with fields")
        return {}
    return value


def _choice_of(form: Form, given: Document, name: str, path: str, choices: tuple[str, ...]) -> str | None:
    text = form.text(given, name, path=path)
    for choice in choices:
        if text.lower() == choice.lower():
            return choice
    if text:
        known = ", ".join(choices)
        form.refuse(_join(path, name), text, f"is none of {known}", f"write one of {known}")
    return None


def _one_of(form: Form, path: str, made: Made, *ways: tuple[str, str]) -> None:
    named = [ours for theirs, ours in ways if theirs in made]
    if len(named) != 1 and not any(field.startswith(f"{path}.") for field in form.fields):
        known = ", ".join(ours for _, ours in ways)
        form.refuse(path, "", f"has {len(named)} of {known}, and needs one", f"write one of {known}")


def _url(form: Form, text: str, here: str) -> None:
    if not text:
        return
    try:
        url = urlsplit(text)
        port_is_good = url.port is None or url.port > 0
    except ValueError:
        form.refuse(here, text, "is not a URL", "write it in full, https://…")
        return
    if url.username or url.password:
        form.refuse(here, "", "carries credentials", "remove them; credentials are referred to by Secret")
    elif url.scheme != "https" or not url.hostname or not port_is_good:
        # RFC 8555, section 6.1: ACME is spoken over HTTPS only; nor do credentials go to others in the clear
        form.refuse(here, text, "is not an https URL", "write it in full, https://…")


def _put(made: Made, path: str, value: Any) -> None:
    *inner, last = path.split(".")
    for part in inner:
        made = made.setdefault(part, {})
    made[last] = value


def _has(value: object, name: str) -> bool:
    return isinstance(value, Mapping) and name in value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
