"""The lab's DNS answers as an authority does, takes signed updates, and fails on request."""

from __future__ import annotations

from collections.abc import AsyncIterator

import dns.asyncquery
import dns.message
import dns.name
import dns.rcode
import dns.tsigkeyring
import dns.update
import pytest

from lab.dns import DnsServer, FaultKind

KEY = {"lab-key.": "c2VjcmV0LW9mLXRoZS1sYWI="}
Served = tuple[DnsServer, str, int]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    server = DnsServer(keys=KEY)
    server.add_zone("example.test")
    server.set("shop.example.test", "A", ["127.0.0.1", "127.0.0.2"])
    server.set("www.example.test", "CNAME", ["shop.example.test."])
    address, port = await server.start()
    yield server, address, port
    await server.stop()


async def ask(served: Served, name: str, rdtype: str, timeout: float = 2.0) -> dns.message.Message:
    _, address, port = served
    return await dns.asyncquery.udp(dns.message.make_query(name, rdtype), address, port=port, timeout=timeout)


async def test_addresses_are_answered_and_aliases_followed(served: Served) -> None:
    answer = await ask(served, "www.example.test", "A")
    texts = {str(record) for rrset in answer.answer for record in rrset}
    assert {"shop.example.test.", "127.0.0.1", "127.0.0.2"} == texts


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nobody.example.test", dns.rcode.NXDOMAIN),
        ("shop.example.test", dns.rcode.NOERROR),
        ("elsewhere.invalid", dns.rcode.REFUSED),
    ],
)
async def test_missing_empty_and_foreign_names_are_told_apart(
    served: Served, name: str, expected: dns.rcode.Rcode
) -> None:
    assert expected == (await ask(served, name, "AAAA")).rcode()


async def test_faults_are_switched_on_and_off(served: Served) -> None:
    server = served[0]
    server.fault("shop.example.test", FaultKind.SERVFAIL)
    assert (await ask(served, "shop.example.test", "A")).rcode() == dns.rcode.SERVFAIL
    server.mend()
    assert (await ask(served, "shop.example.test", "A")).rcode() == dns.rcode.NOERROR


async def test_only_signed_updates_are_taken(served: Served) -> None:
    _, address, port = served
    unsigned = dns.update.UpdateMessage("example.test")
    unsigned.add("_acme-challenge.shop", 5, "TXT", '"proof"')
    refused = await dns.asyncquery.udp(unsigned, address, port=port, timeout=2)
    assert refused.rcode() != dns.rcode.NOERROR
    signed = dns.update.UpdateMessage(
        "example.test", keyring=dns.tsigkeyring.from_text(KEY), keyname=dns.name.from_text("lab-key.")
    )
    signed.add("_acme-challenge.shop", 5, "TXT", '"proof"')
    assert (await dns.asyncquery.udp(signed, address, port=port, timeout=2)).rcode() == dns.rcode.NOERROR
    answer = await ask(served, "_acme-challenge.shop.example.test", "TXT")
    assert [str(record) for rrset in answer.answer for record in rrset] == ['"proof"']
