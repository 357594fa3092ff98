"""What puts a domain on its gateway, in every shape, against golden files. `REGOLD=1` writes them anew."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import yaml

from lifecycle import gateway_api, manifests, targets
from lifecycle.domain import GatewayKind, GatewayTarget, HeaderMatch, Route, TlsMode, TlsSettings
from lifecycle.manifests import ChallengeRoute, Manifest
from tests.lifecycle.gateway_shapes import PLAIN, SHAPES, documents

GOLDEN = Path(__file__).parent / "golden" / "gateways"
BY_GATEWAY_API = dataclasses.replace(PLAIN, gateway=GatewayTarget(kind=GatewayKind.GATEWAY_API))


class _Plain(yaml.SafeDumper):
    """Without anchors, which nobody reads with ease."""

    def ignore_aliases(self, data: object) -> bool:
        return True


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_as_in_its_golden_file(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("REGOLD"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.dump_all(documents(name), Dumper=_Plain, sort_keys=False))
    assert tuple(yaml.safe_load_all(path.read_text())) == documents(name)


def test_every_golden_file_is_of_a_shape() -> None:
    assert set(SHAPES) == {path.stem for path in GOLDEN.glob("*.yaml")}


@pytest.mark.parametrize("name", SHAPES)
def test_no_shape_redirects_by_the_gateway_or_mixes_in_a_file(name: str) -> None:
    """`httpsRedirect` swallows challenges; `caCertificates` beside a credentialName is the guide's invalid mix."""
    text = yaml.safe_dump_all(documents(name))
    assert "httpsRedirect" not in text
    assert "caCertificates:" not in text


@pytest.mark.parametrize("kind", GatewayKind)
def test_a_gateway_without_https_has_port_80_alone(kind: GatewayKind) -> None:
    request = dataclasses.replace(
        PLAIN, gateway=GatewayTarget(kind=kind), tls=TlsSettings(mode=TlsMode.MUTUAL, client_ca="clients-ca")
    )
    spec = targets.gateway(request, https=False)["spec"]
    ports = [one["port"]["number"] for one in spec.get("servers", ())] or [one["port"] for one in spec["listeners"]]
    assert set(ports) == {80}
    assert "tls" not in spec


def test_the_nearest_route_comes_first() -> None:
    routes = (
        Route(prefix="/", service="a", port=1),
        Route(prefix="/api", service="b", port=1),
        Route(prefix="/api", service="c", port=1, headers=(HeaderMatch(name="x-v", value="2"),)),
        Route(prefix="/api", service="d", port=1, exact=True),
        Route(prefix="/api/v2", service="e", port=1),
    )
    ordered = manifests.in_order(dataclasses.replace(PLAIN, routes=routes))
    assert [route.service for route in ordered] == ["e", "d", "c", "b", "a"]


def test_many_challenges_take_as_many_http_routes_as_are_needed() -> None:
    hostnames = tuple(f"h{index}.example.com" for index in range(25))
    request = dataclasses.replace(BY_GATEWAY_API, hostnames=hostnames)
    challenges = tuple(
        ChallengeRoute(hostname=hostname, token=hostname, service=f"cm-{hostname[:3]}", namespace="istio-system")
        for hostname in hostnames
    )
    made = targets.challenge_routes(request, challenges)
    assert [len(one["spec"]["rules"]) for one in made] == [16, 9]
    assert targets.challenge_places(request) == tuple(map(targets.place, made))
    assert targets.challenge_routes(request, ()) == ()


def test_a_gateway_has_two_listeners_for_each_name_and_no_more_than_it_may() -> None:
    hostnames = tuple(f"h{index}.example.com" for index in range(gateway_api.MAX_NAMES))
    listeners = gateway_api.gateway(dataclasses.replace(BY_GATEWAY_API, hostnames=hostnames), https=True)["spec"][
        "listeners"
    ]
    assert len(listeners) == len({one["name"] for one in listeners}) == 64


@pytest.mark.parametrize("document", [one for name in SHAPES for one in documents(name)])
def test_every_object_says_who_manages_it(document: Manifest) -> None:
    assert document["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "certwright"}
    assert document["metadata"]["annotations"][manifests.TENANT_ANNOTATION] == "acme"
