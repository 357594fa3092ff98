"""A hostname has one spelling or every reason why it has none; ids and object names derive from it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle import names
from lifecycle.domain import IssuerKind, IssuerRef
from lifecycle.names import Hostname, parse_hostname

hostnames = st.lists(st.from_regex(r"[a-z]([a-z0-9]{0,20}[a-z0-9])?", fullmatch=True), min_size=2, max_size=5).map(
    lambda labels: ".".join([*labels, "example"])
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shop.example.com", "shop.example.com"),
        ("Shop.Example.COM.", "shop.example.com"),
        ("  shop.example.com ", "shop.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a" * 63 + ".example.com", "a" * 63 + ".example.com"),
    ],
)
def test_a_good_hostname_has_one_spelling(text: str, expected: str) -> None:
    parsed = parse_hostname(text)
    assert isinstance(parsed, Hostname)
    assert expected == parsed.name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shop_1.example.com", "underscore"),
        ("shop..example.com", "empty label"),
        ("a" * 64 + ".example.com", "64 octets"),
        ("*.example.com", "wildcard"),
        ("192.0.2.1", "IP address"),
        ("[2001:db8::1]", "IP address"),
        ("localhost", "localhost"),
        ("shop.localhost", "localhost"),
        ("web.default.svc.cluster.local", "cluster's own domain"),
        ("https://shop.example.com/x", "URL"),
        ("shop", "single label"),
        ("-shop.example.com", "hyphen"),
        ("", "empty"),
        (7, "not a text"),
        (".".join(["a" * 60] * 5), "more than 253"),
    ],
)
def test_a_bad_hostname_is_refused_with_the_reason_and_a_fix(text: object, words: str) -> None:
    problems = parse_hostname(text)
    assert isinstance(problems, tuple)
    assert words in " ".join(problem.problem for problem in problems)
    assert all(problem.fix for problem in problems)


def test_all_reasons_are_named_at_once() -> None:
    problems = parse_hostname("*.shop_1.." + "b" * 64 + ".cluster.local")
    assert isinstance(problems, tuple)
    said = " ".join(problem.problem for problem in problems)
    for words in ("wildcard", "underscore", "empty label", "64 octets", "cluster's own domain"):
        assert words in said


def test_a_wildcard_is_good_where_dns01_can_prove_it() -> None:
    parsed = parse_hostname("*.example.com", wildcard_allowed=True)
    assert isinstance(parsed, Hostname)
    assert (parsed.wildcard, parsed.name) == (True, "*.example.com")


@given(hostnames)
def test_parsing_is_idempotent(hostname: str) -> None:
    once = parse_hostname(hostname)
    if isinstance(once, Hostname):
        assert once == parse_hostname(once.name)


@given(hostnames)
def test_object_names_are_short_dns_labels(hostname: str) -> None:
    name = names.object_name(hostname)
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= names.MAX_OBJECT_NAME
    assert len(names.secret_name(hostname)) <= 63


def test_names_that_differ_only_in_dots_and_hyphens_have_different_objects() -> None:
    assert names.object_name("a-b.example.com") != names.object_name("a.b.example.com")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (names.domain_id("shop.example.com"), "domain/shop.example.com"),
        (names.reservation_id("shop.example.com"), "domain/shop.example.com"),
        (names.platform_id("prod-1"), "platform/prod-1"),
        (names.issuer_id(IssuerRef(name="le")), "issuer/cluster/le"),
        (names.issuer_id(IssuerRef(name="le", kind=IssuerKind.ISSUER, namespace="ns")), "issuer/namespace/ns/le"),
        (names.certificate_id("istio-system", "shop", "1"), "certificate/istio-system/shop/1"),
        (names.gateway_id("istio-system", "shop"), "gateway/istio-system/shop"),
        (names.restore_id("b1", ""), "restore/b1/in-place"),
    ],
)
def test_workflow_ids_are_readable(made: str, expected: str) -> None:
    assert expected == made


@given(st.text(min_size=1, max_size=400), st.text(min_size=1, max_size=400))
def test_workflow_ids_fit_the_column_and_stay_apart(one: str, other: str) -> None:
    first, second = names.workflow_id("domain", one), names.workflow_id("domain", other)
    assert len(first.encode()) <= names.MAX_WORKFLOW_ID_OCTETS
    assert (one == other) == (first == second)
