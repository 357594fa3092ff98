"""A CA of one's own: what may be said of it. Its golden files are with the other certificates'."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.authorities import parse_authority
from lifecycle.domain import IssuerKind, IssuerRef
from tests.lifecycle import certificate_shapes

GOOD = certificate_shapes.AUTHORITIES["root"]


def test_a_root_lives_long_and_an_issuer_of_its_namespace_may_sign_it() -> None:
    root = certificate_shapes.authority("root")
    assert (root.namespace, root.certificate.duration_seconds) == ("cert-manager", 3650 * 86400)
    beside = certificate_shapes.authority("constrained").issuer
    assert beside == IssuerRef(name="shop-root", kind=IssuerKind.ISSUER, namespace="cert-manager")


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"name": ""}, "name", "missing"),
        ({"issuer": None}, "issuer.name", "missing"),
        ({"certificate": {}}, "certificate.common_name", "missing"),
        (
            {"certificate": {"common_name": "R", "usages": ["server auth", "digital signature"]}},
            "certificate.usages",
            "no",
        ),
        ({"certificate": {"common_name": "R", "key_algorithm": "Ed25519"}}, "certificate.key_algorithm", "browsers"),
        ({"certificate": {"common_name": "R", "keystores": {}}}, "certificate.keystores", "no part"),
        ({"permitted": {"dns_domains": ["*.example.com"]}}, "permitted.dns_domains[0]", "no domain"),
        ({"permitted": {"dns_domains": "example.com"}}, "permitted.dns_domains", "not a list"),
        ({"excluded": {"ip_ranges": ["192.0.2.7/24"]}}, "excluded.ip_ranges[0]", "no range"),
        ({"excluded": {"uri_domains": [1]}}, "excluded.uri_domains[0]", "not a text"),
        ({"permited": {}}, "permited", "not a known field"),
    ],
)
def test_a_bad_field_is_refused_by_its_name(change: dict[str, Any], field: str, words: str) -> None:
    found = parse_authority({**GOOD, **change})
    assert isinstance(found, tuple)
    assert [one.field for one in found] == [field]
    assert words in found[0].problem


def test_what_is_no_object_is_refused() -> None:
    found = parse_authority([])
    assert isinstance(found, tuple)
    assert found[0].problem == "is not an object"
