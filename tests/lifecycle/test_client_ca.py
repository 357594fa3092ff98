"""The CA of clients' certificates is looked for where Istio looks, and must be one."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from lifecycle import client_ca
from lifecycle.domain import TlsMode, TlsSettings
from tests.lifecycle.gateway_shapes import PLAIN

CA = trustme.CA()
LEAF = CA.issue_cert("client.example.com")
NOW = datetime.now(UTC)
MUTUAL = dataclasses.replace(PLAIN, tls=TlsSettings(mode=TlsMode.MUTUAL))


def leaf_pem() -> bytes:
    return LEAF.cert_chain_pems[0].bytes()


@pytest.mark.parametrize(
    ("named", "secrets"),
    [
        ("", ("shop-example-com-951623a26f-tls-cacert", "shop-example-com-951623a26f-tls")),
        ("clients", ("clients-cacert", "clients")),
        ("clients-cacert", ("clients-cacert",)),
    ],
)
def test_secrets_are_looked_at_in_istios_order(named: str, secrets: tuple[str, ...]) -> None:
    tls = TlsSettings(mode=TlsMode.OPTIONAL_MUTUAL, client_ca=named)
    assert client_ca.secrets(dataclasses.replace(PLAIN, tls=tls)) == secrets


def test_none_is_needed_where_no_client_is_asked() -> None:
    assert client_ca.secrets(PLAIN) == ()
    assert client_ca.problems(b"", PLAIN, NOW) == ()


@pytest.mark.parametrize(
    ("pem", "later", "codes"),
    [
        (CA.cert_pem.bytes(), 0, []),
        (leaf_pem() + CA.cert_pem.bytes(), 0, []),
        (b"", 0, ["CW1511"]),
        (b"nothing of the kind", 0, ["CW1512"]),
        (leaf_pem(), 0, ["CW1512"]),
        (CA.cert_pem.bytes(), 1000 * 365, ["CW1512"]),
    ],
    ids=["a CA", "a CA among others", "none", "no PEM", "a leaf", "expired"],
)
def test_it_must_be_a_ca_that_is_valid_now(pem: bytes, later: int, codes: list[str]) -> None:
    found = client_ca.problems(pem, MUTUAL, NOW + timedelta(days=later))
    assert [one.code for one in found] == codes
    assert all("--from-file=ca.crt=" in one.fix for one in found)


def test_a_client_is_known_by_who_signed_it() -> None:
    assert client_ca.signed(leaf_pem(), CA.cert_pem.bytes())
    assert not client_ca.signed(leaf_pem(), trustme.CA().cert_pem.bytes())
    assert not client_ca.signed(leaf_pem(), b"")
    assert not client_ca.signed(b"", CA.cert_pem.bytes())
