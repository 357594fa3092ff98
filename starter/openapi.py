"""What the portal's API says of itself: an OpenAPI 3.1 document, and a page that shows it without a script.

Schemas come from the types that are sent (`shown.schemas`), so that they cannot differ from what is sent.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from lifecycle import gateway_requests
from lifecycle.certificate_details import KeyEncoding, KeyUsage, RotationPolicy
from lifecycle.certificate_requests import MIN_DURATION_SECONDS, MIN_RENEW_BEFORE_SECONDS
from lifecycle.domain import DomainStatus, GatewayKind, KeyAlgorithm, Phase, Rehearsal, TlsMode, TlsVersion
from lifecycle.requests import MAX_HOSTNAMES, MAX_ROUTES, FieldError
from starter.domains import LARGEST_PAGE, DomainPage, DomainView
from starter.shown import schemas


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRequested:
    """The answer to a request for a domain; `status` is null where no worker has answered yet (202)."""

    hostname: str
    joined: bool
    status: DomainStatus | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What went wrong (RFC 9457); `errors` names every field of a request that was refused."""

    type: str
    title: str
    status: int
    detail: str
    fix: str
    errors: tuple[FieldError, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether the portal reaches Temporal."""

    status: str
    temporal: bool


PROBLEMS = {
    "bad-json": (400, "The body is not JSON", "Send one JSON object, encoded in UTF-8."),
    "not-authenticated": (401, "No valid token", "Send `Authorization: Bearer TOKEN` with a token of yours."),
    "unknown": (404, "There is no such thing", "Look at the list of your domains: GET /v1/domains."),
    "method-not-allowed": (405, "The method is not allowed here", "See /docs for what is."),
    "name-not-available": (409, "The name is not available", "Ask for another name, or without it."),
    "retired": (409, "The domain was retired", "Send `?again=true` to begin anew."),
    "not-now": (409, "The domain is not in a state for that", "Wait until it is active."),
    "too-large": (413, "The body is too large", "A request for a domain has a few kilobytes; send less."),
    "not-json": (415, "The content is of another type", "Send `Content-Type: application/json`."),
    "invalid-request": (422, "The request is not well formed", "Correct every field that `errors` names."),
    "too-many": (429, "Too many requests at once", "Wait for as long as Retry-After says, then ask again."),
    "fault": (500, "The portal failed", "Ask again; where it stays, tell the operator the time."),
    "temporal-away": (503, "The service is not reachable now", "Nothing is lost; ask again in a moment."),
}
"""Every kind of problem: status, title, and what the caller can do."""


def _problem_answer(*kinds: str) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for kind in kinds:
        status, title, fix = PROBLEMS[kind]
        known = answers.get(str(status))
        words = f"{title}. {fix}"
        answers[str(status)] = {
            "description": f"{known['description']} Or: {words}" if known else words,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    return answers


def _answer(words: str, schema: str) -> dict[str, Any]:
    return {
        "description": words,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


_HOSTNAME = {
    "name": "hostname",
    "in": "path",
    "required": True,
    "description": "The first name of the domain.",
    "schema": {"type": "string"},
}
_ALWAYS = ("not-authenticated", "temporal-away", "fault")


def _query(name: str, words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": words, "schema": schema}


_REQUEST = {
    "type": "object",
    "description": "A request for a domain: `hostname`, or `hostnames` of which the first names the domain.",
    "additionalProperties": False,
    "properties": {
        "hostname": {"type": "string", "examples": ["shop.example.com"]},
        "hostnames": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_HOSTNAMES},
        "issuer": {
            "description": "Its name, or name and kind; the portal's default where it is missing.",
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string"},
                        "kind": {"type": "string", "enum": ["ClusterIssuer", "Issuer"]},
                        "namespace": {"type": "string"},
                    },
                },
            ],
        },
        "routes": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_ROUTES,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["service", "port"],
                "properties": {
                    "prefix": {"type": "string", "default": "/"},
                    "service": {"type": "string"},
                    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                    "namespace": {"type": "string"},
                    "exact": {"type": "boolean", "description": "The path is the prefix and nothing else."},
                    "headers": {
                        "type": "object",
                        "description": "Request headers that must have exactly these values.",
                        "additionalProperties": {"type": "string"},
                        "maxProperties": gateway_requests.MAX_HEADERS,
                    },
                    "weight": {"type": "integer", "minimum": 0, "maximum": gateway_requests.MAX_WEIGHT, "default": 1},
                    "others": {
                        "type": "array",
                        "description": "Services that share the route's requests by their weights.",
                        "maxItems": gateway_requests.MAX_OTHERS,
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["service", "port"],
                            "properties": {
                                "service": {"type": "string"},
                                "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                                "namespace": {"type": "string"},
                                "weight": {"type": "integer", "minimum": 0, "maximum": gateway_requests.MAX_WEIGHT},
                            },
                        },
                    },
                    "timeout_seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 3600},
                },
            },
        },
        "tls": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "mode": {"type": "string", "enum": [one.value for one in TlsMode], "default": TlsMode.SIMPLE.value},
                "min_protocol": {"type": "string", "enum": [one.value for one in TlsVersion], "default": "TLSV1_2"},
                "max_protocol": {"type": "string", "enum": [one.value for one in TlsVersion]},
                "ciphers": {
                    "type": "array",
                    "description": "Of TLS 1.2; the gateway's own where they are left out.",
                    "items": {"type": "string", "enum": list(gateway_requests.ALL_CIPHERS)},
                },
                "client_ca": {
                    "type": "string",
                    "description": "Secret in the gateway's namespace with ca.crt, the CA of clients' certificates.",
                },
            },
        },
        "hsts": {
            "type": "object",
            "additionalProperties": False,
            "required": ["max_age_seconds"],
            "properties": {
                "max_age_seconds": {"type": "integer", "minimum": 0},
                "include_subdomains": {"type": "boolean", "default": False},
                "preload": {"type": "boolean", "default": False},
            },
        },
        "target": {
            "type": "string",
            "enum": [one.value for one in GatewayKind],
            "description": "Objects that tell the gateway what to serve; the portal's default where it is missing.",
        },
        "rehearsal": {
            "type": "string",
            "enum": [one.value for one in Rehearsal],
            "default": Rehearsal.FIRST.value,
            "description": "Whether the certificate is first had from the issuer's counterpart (of Let's Encrypt its "
            "staging environment): until the issuer has issued one here, always, or never.",
        },
        "certificate": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "key_algorithm": {"type": "string", "enum": [one.value for one in KeyAlgorithm]},
                "key_size": {
                    "type": "integer",
                    "description": "2048, 3072, 4096 of RSA; 256, 384, 521 of ECDSA.",
                },
                "key_encoding": {"type": "string", "enum": [one.value for one in KeyEncoding]},
                "rotation": {"type": "string", "enum": [one.value for one in RotationPolicy]},
                "usages": {"type": "array", "items": {"type": "string", "enum": [one.value for one in KeyUsage]}},
                "duration_seconds": {"type": "integer", "minimum": MIN_DURATION_SECONDS},
                "renew_before_seconds": {"type": "integer", "minimum": MIN_RENEW_BEFORE_SECONDS},
                "renew_before_percentage": {"type": "integer", "minimum": 1, "maximum": 99},
                "temporary": {"type": "boolean", "description": "Fill the Secret before the issuer has signed."},
            },
        },
    },
}


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    one = {"parameters": [_HOSTNAME]}
    status = _answer("The state after it, or as it is after 30 s.", "DomainStatus")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Certwright",
            "version": "1",
            "description": "TLS for your domains: ask for one, set the DNS record it names, and it becomes active.",
        },
        "security": [{"token": []}],
        "paths": {
            "/v1/domains": {
                "post": {
                    "operationId": "requestDomain",
                    "summary": "Ask for a domain, or join who asked before",
                    "description": "Asking twice starts one domain; the second answer has the state of the first, "
                    "whatever else the second request says.",
                    "parameters": [
                        {
                            "name": "Idempotency-Key",
                            "in": "header",
                            "description": "A repetition with the same key gets the first answer.",
                            "schema": {"type": "string", "maxLength": 200},
                        },
                        _query("again", "Begin anew although the domain was retired.", {"type": "boolean"}),
                    ],
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/DomainRequest"}}},
                    },
                    "responses": {
                        "201": _answer("Started.", "DomainRequested"),
                        "200": _answer("Joined: it was asked for before.", "DomainRequested"),
                        "202": _answer("Recorded; no worker has answered yet.", "DomainRequested"),
                        **_problem_answer(
                            "bad-json",
                            "name-not-available",
                            "retired",
                            "too-large",
                            "not-json",
                            "invalid-request",
                            "too-many",
                            *_ALWAYS,
                        ),
                    },
                },
                "get": {
                    "operationId": "listDomains",
                    "summary": "List your domains",
                    "parameters": [
                        _query("limit", "Domains a page.", {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE}),
                        _query("page", "`next_page` of the answer before.", {"type": "string"}),
                        _query("phase", "Only those in it.", {"type": "string", "enum": [one.value for one in Phase]}),
                        _query("ended", "Those that ended, instead of the living ones.", {"type": "boolean"}),
                    ],
                    "responses": {
                        "200": _answer("One page.", "DomainPage"),
                        **_problem_answer("invalid-request", *_ALWAYS),
                    },
                },
            },
            "/v1/domains/{hostname}": {
                **one,
                "get": {
                    "operationId": "readDomain",
                    "summary": "Read a domain",
                    "description": "Where no worker answers, `source` is `visibility`, `status` is null and `summary` "
                    "says what was told last.",
                    "responses": {"200": _answer("The domain.", "DomainView"), **_problem_answer("unknown", *_ALWAYS)},
                },
                "delete": {
                    "operationId": "cancelDomain",
                    "summary": "End a domain: everything it made is taken away",
                    "responses": {
                        "200": _answer("Ended.", "DomainStatus"),
                        "202": _answer("Ending; it is not done yet.", "DomainStatus"),
                        **_problem_answer("unknown", "too-many", *_ALWAYS),
                    },
                },
            },
            "/v1/domains/{hostname}/check": {
                **one,
                "post": {
                    "operationId": "checkDomain",
                    "summary": "Look again now",
                    "responses": {"200": status, **_problem_answer("unknown", "too-many", *_ALWAYS)},
                },
            },
            "/v1/domains/{hostname}/fix": {
                **one,
                "post": {
                    "operationId": "fixDomain",
                    "summary": "Do what is safe about what keeps the domain",
                    "description": "Only about its own certificate, and nothing that could do harm if it were done "
                    "twice. Lines of `evidence` whose step is `fix` say what was done, or why nothing was.",
                    "responses": {"200": status, **_problem_answer("unknown", "too-many", *_ALWAYS)},
                },
            },
            "/v1/domains/{hostname}/renew": {
                **one,
                "post": {
                    "operationId": "renewDomain",
                    "summary": "Renew the certificate although it is not due",
                    "responses": {"200": status, **_problem_answer("unknown", "not-now", "too-many", *_ALWAYS)},
                },
            },
            "/healthz": {
                "get": {
                    "operationId": "health",
                    "summary": "Whether the portal reaches Temporal",
                    "security": [],
                    "responses": {"200": _answer("It does.", "Health"), "503": _answer("It does not.", "Health")},
                }
            },
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "DomainRequest": _REQUEST,
                **schemas(DomainRequested, DomainView, DomainPage, DomainStatus, Problem, Health),
            },
        },
    }


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f4f4f4;padding:1rem;overflow:auto}summary{cursor:pointer}"
    "b.verb{display:inline-block;min-width:4.5rem;text-transform:uppercase}td,th{text-align:left;padding:.1rem .8rem}"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}pre{background:#222}}"
)


def page() -> str:
    """The document as one HTML page that loads nothing."""
    described = document()
    said = html.escape
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{said(described['info']['title'])} API</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>",
        f"<h1>{said(described['info']['title'])} API</h1><p>{said(described['info']['description'])}</p>",
        "<p>Machine-readable: <a href=/openapi.json>/openapi.json</a></p><h2>Operations</h2>",
    ]
    for path, item in described["paths"].items():
        for verb, operation in item.items():
            if verb == "parameters":
                continue
            parts.append(
                f"<details><summary><b class=verb>{verb}</b> <code>{said(path)}</code> "
                f"{said(operation['summary'])}</summary><p>{said(operation.get('description', ''))}</p><table>"
            )
            for given in [*item.get("parameters", []), *operation.get("parameters", [])]:
                words = f"{said(given['in'])}: {said(given['description'])}"
                parts.append(f"<tr><td><code>{said(given['name'])}</code><td>{words}")
            for status, answer in operation["responses"].items():
                phrase = HTTPStatus(int(status)).phrase
                parts.append(f"<tr><td>{status} {said(phrase)}<td>{said(answer['description'])}")
            parts.append("</table></details>")
    parts.append("<h2>Schemas</h2>")
    for name, schema in described["components"]["schemas"].items():
        text = said(json.dumps(schema, indent=2))
        parts.append(f"<details id='{said(name)}'><summary>{said(name)}</summary><pre>{text}</pre></details>")
    return "".join(parts)
