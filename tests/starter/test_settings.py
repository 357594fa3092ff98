"""The doors' settings: defaults are judged as requests are, and every problem is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifecycle.domain import IssuerKind, Route
from starter.settings import DoorSettings, issuer, load, route


def good(**environment: str) -> DoorSettings:
    found = load({f"CERTWRIGHT_{name}": value for name, value in environment.items()})
    assert isinstance(found, DoorSettings), found
    return found


def problems(*, portal: bool = False, **environment: str) -> dict[str, str]:
    found = load({f"CERTWRIGHT_{name}": value for name, value in environment.items()}, portal=portal)
    assert isinstance(found, tuple)
    return {one.field.removeprefix("CERTWRIGHT_"): one.problem for one in found}


def test_nothing_has_to_be_said_for_the_command_line() -> None:
    settings = good()
    assert settings.defaults.issuer is None
    assert settings.defaults.routes == ()
    assert settings.defaults.forbidden_suffixes == ("cluster.local",)


def test_defaults_are_what_requests_may_leave_out() -> None:
    settings = good(
        DEFAULT_ISSUER="Issuer/lab",
        DEFAULT_ROUTES="/api=api-service.shop:8080, /=frontend-service:80",
        FORBIDDEN_SUFFIXES="corp.example.com",
        GATEWAY_NAMESPACE="edge",
        GATEWAY_SELECTOR="istio=edge,tier=public",
        ROUTE_NAMESPACES="shop",
    )
    assert settings.defaults.issuer is not None
    assert (settings.defaults.issuer.kind, settings.defaults.issuer.namespace) == (IssuerKind.ISSUER, "edge")
    assert settings.defaults.routes == (
        Route(prefix="/api", service="api-service", port=8080, namespace="shop"),
        Route(prefix="/", service="frontend-service", port=80),
    )
    assert settings.defaults.gateway.selector == (("istio", "edge"), ("tier", "public"))
    assert settings.defaults.route_namespaces == ("shop",)
    assert settings.defaults.forbidden_suffixes == ("cluster.local", "corp.example.com")


def test_every_problem_is_named(tmp_path: Path) -> None:
    found = problems(
        portal=True,
        DEFAULT_ISSUER="Not Good",
        DEFAULT_ROUTES="nonsense,/=UPPER:80",
        GATEWAY_SELECTOR="nonsense",
        TENANT="Not-Good",
        PORTAL_ADDRESS="everywhere:80",
        PORTAL_TLS_CERTIFICATE=str(tmp_path / "none"),
        PORTAL_ADRESS="x",
    )
    assert set(found) == {
        "DEFAULT_ISSUER",
        "DEFAULT_ROUTES",
        "GATEWAY_SELECTOR",
        "TENANT",
        "PORTAL_ADDRESS",
        "PORTAL_TOKENS_FILE",
        "PORTAL_TLS_KEY",
        "PORTAL_ADRESS",
    }


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("/=web:80", {"prefix": "/", "service": "web", "port": 80}),
        ("/api/v1=api.shop:8080", {"prefix": "/api/v1", "service": "api", "port": 8080, "namespace": "shop"}),
        ("api=web:80", None),
        ("/=web", None),
        ("/=web:http", None),
        ("", None),
    ],
)
def test_a_route_in_one_word(text: str, fields: dict[str, object] | None) -> None:
    assert fields == route(text)


def test_an_issuer_in_one_word() -> None:
    assert issuer("letsencrypt") == "letsencrypt"
    assert issuer("Issuer/lab") == {"kind": "Issuer", "name": "lab"}
