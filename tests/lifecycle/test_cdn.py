"""An address of a known content delivery network is told from any other."""

from __future__ import annotations

import pytest

from lifecycle.cdn import cdn_of, cdns_of


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("104.16.1.1", "Cloudflare"),
        ("2606:4700::1111", "Cloudflare"),
        ("151.101.1.57", "Fastly"),
        ("2a04:4e42::57", "Fastly"),
        ("203.0.113.7", ""),
        ("2001:db8::7", ""),
        ("no address", ""),
    ],
)
def test_networks(address: str, name: str) -> None:
    assert name == cdn_of(address)


def test_one_foreign_address_among_them_is_no_proxy() -> None:
    assert cdns_of(("104.16.1.1", "151.101.1.57", "104.16.1.2")) == ("Cloudflare", "Fastly")
    assert cdns_of(("104.16.1.1", "203.0.113.7")) == ()
    assert cdns_of(()) == ()
