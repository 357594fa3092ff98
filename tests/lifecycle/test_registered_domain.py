"""Registered domains are what a registrar, or a platform that listed itself, gives away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.registered_domain import is_registry, registered_domain, registered_domains

LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [
        ("example.com", "example.com"),
        ("www.example.com", "example.com"),
        ("new.blog.example.co.uk", "example.co.uk"),
        ("*.shop.example.com", "example.com"),
        ("alice.github.io", "alice.github.io"),  # the list's private section
        ("www.alice.github.io", "alice.github.io"),
        ("github.io", "github.io"),  # a suffix itself
        ("com", "com"),
        ("www.ck", "www.ck"),  # "!www.ck", an exception to "*.ck"
        ("a.b.c.ck", "b.c.ck"),
        ("shop.xn--85x722f.xn--55qx5d.cn", "xn--85x722f.xn--55qx5d.cn"),  # 食狮.公司.cn
        ("shop.example.test", "example.test"),  # a top-level label that is on no list
    ],
)
def test_registered_domains(hostname: str, expected: str) -> None:
    assert expected == registered_domain(hostname)


def test_several_names_have_each_domain_once() -> None:
    names = ("www.example.com", "example.com", "shop.example.org")
    assert registered_domains(names) == ("example.com", "example.org")


@given(st.lists(LABEL, min_size=1, max_size=5))
def test_it_covers_the_name_and_is_its_own(labels: list[str]) -> None:
    hostname = ".".join(labels)
    domain = registered_domain(hostname)
    assert hostname == domain or hostname.endswith(f".{domain}")
    assert domain == registered_domain(domain)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("com", True),
        ("co.uk", True),
        ("example.com", False),
        ("duckdns.org", False),  # of the private section: a domain that somebody registered
        ("corp", False),  # on no list
    ],
)
def test_a_registrys_zone_is_told_from_a_domain_and_from_a_zone_of_ones_own(name: str, expected: bool) -> None:
    assert is_registry(name) is expected
