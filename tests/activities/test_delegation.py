"""The way of `_acme-challenge` is asked of real name servers, and a record on trial is written, read and removed."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import dns.tsig
import pytest

from activities import kubernetes, scratch_record
from activities.delegation import gather_delegations
from lab.dns import DnsServer, FaultKind
from lifecycle.delegation import Authority, Delegation, delegation_verdict, dns_challenges
from lifecycle.domain import IssuerRef
from lifecycle.routing import Lookup
from lifecycle.scratch_record import ScratchRecord, Writing, scratch_findings

KEYS = {"acme.": "c2VjcmV0LW9mLXRoZS1sYWI="}
RECORD = "_acme-challenge.shop.example.com"
OURS = "shop.example.com.acme.platform.net"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A name server that is resolver, the zones' own server and the solver's in one."""

    server: DnsServer
    address: str

    def solver(self, **fields: Any) -> dict[str, Any]:
        strategy = fields.pop("cnameStrategy", "Follow")
        signed = {"tsigKeyName": "acme", "tsigAlgorithm": "HMACSHA256"}
        reference = {"tsigSecretSecretRef": {"name": "tsig", "key": "secret"}}
        return {
            "dns01": {
                "cnameStrategy": strategy,
                "rfc2136": {"nameserver": self.address, **signed, **reference, **fields},
            }
        }

    async def seen(self, hostname: str = "shop.example.com", **fields: Any) -> Delegation:
        timeout = fields.pop("timeout", 1.0)
        challenges = dns_challenges((hostname,), [self.solver(**fields)])
        (delegation,) = await gather_delegations(challenges, (self.address,), timeout)
        return delegation

    async def codes(self, hostname: str = "shop.example.com", **fields: Any) -> list[str]:
        seen = await self.seen(hostname, **fields)
        return [one.code for one in delegation_verdict([seen], "acme.platform.net").findings]


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    server = DnsServer(keys=KEYS)
    for zone in ("com", "example.com", "acme.platform.net"):
        server.add_zone(zone)
    server.set("shop.example.com", "A", ["192.0.2.1"])
    server.set(RECORD, "CNAME", [f"{OURS}."])
    address, port = await server.start()
    yield Place(server=server, address=f"{address}:{port}")
    await server.stop()


# --- the way ----------------------------------------------------------------------------------------------------------


async def test_an_alias_into_our_zone_is_good_though_nothing_is_there_yet(place: Place) -> None:
    seen = await place.seen()
    assert (seen.aliases, seen.lookup, seen.wildcard) == ((OURS,), Lookup.NXDOMAIN, False)
    assert (seen.zone, seen.servers, seen.authority) == ("acme.platform.net", ("ns.acme.platform.net",), Authority.YES)
    assert seen.written_at == OURS
    assert await place.codes() == []
    assert await place.codes("*.shop.example.com") == []


async def test_several_aliases_are_followed_to_the_end(place: Place) -> None:
    place.server.set(RECORD, "CNAME", ["step.example.com."])
    place.server.set("step.example.com", "CNAME", [f"{OURS}."])
    assert (await place.seen()).aliases == ("step.example.com", OURS)
    assert await place.codes() == []


async def test_an_alias_that_is_not_followed_is_told(place: Place) -> None:
    assert await place.codes(cnameStrategy="None") == ["CW1341"]
    place.server.remove(RECORD)
    assert await place.codes(cnameStrategy="None") == []


async def test_an_alias_to_a_domain_that_nobody_registered_is_told(place: Place) -> None:
    place.server.set(RECORD, "CNAME", ["acme.gone.com."])
    seen = await place.seen()
    assert (seen.lookup, seen.zone) == (Lookup.NXDOMAIN, "com")
    assert await place.codes() == ["CW1345"]


async def test_a_circle_of_aliases_ends(place: Place) -> None:
    place.server.set(RECORD, "CNAME", [f"{RECORD}."])
    assert await place.codes() == ["CW1340"]
    place.server.set(RECORD, "CNAME", ["a.example.com."])
    place.server.set("a.example.com", "CNAME", [f"{RECORD}."])
    assert await place.codes() == ["CW1340"]


async def test_too_many_aliases_end(place: Place) -> None:
    place.server.set(RECORD, "CNAME", ["a0.example.com."])
    for number in range(20):
        place.server.set(f"a{number}.example.com", "CNAME", [f"a{number + 1}.example.com."])
    seen = await place.seen()
    assert (len(seen.aliases), await place.codes()) == (9, ["CW1340"])


async def test_a_wildcard_that_catches_the_record_is_told_from_an_alias_of_its_own(place: Place) -> None:
    place.server.remove(RECORD)
    place.server.set("*.example.com", "CNAME", ["edge.other.com."])
    place.server.set("*.shop.example.com", "CNAME", ["edge.other.com."])
    place.server.add_zone("other.com")
    host, _, port = place.address.rpartition(":")
    primary = DnsServer(keys=KEYS)
    primary.add_zone("acme.platform.net")
    other = "127.0.0.5:" + str((await primary.start("127.0.0.5"))[1])
    try:
        seen = await place.seen(nameserver=other)
        assert (seen.aliases, seen.wildcard, seen.zone) == (("edge.other.com",), True, "other.com")
        assert seen.authority is Authority.NO
        assert await place.codes(nameserver=other) == ["CW1342"]
        place.server.set(RECORD, "CNAME", [f"{OURS}."])
        assert await place.codes(nameserver=other) == []
    finally:
        await primary.stop()
    assert (host, port.isdigit()) == ("127.0.0.1", True)


async def test_a_zone_that_the_solvers_server_does_not_have_is_told_with_the_record_to_set(place: Place) -> None:
    primary = DnsServer(keys=KEYS)
    primary.add_zone("acme.platform.net")
    address, port = await primary.start("127.0.0.5")
    place.server.remove(RECORD)
    try:
        seen = await place.seen(nameserver=f"{address}:{port}")
    finally:
        await primary.stop()
    verdict = delegation_verdict([seen], "acme.platform.net")
    assert [one.code for one in verdict.findings] == ["CW1343"]
    assert [(one.name, one.value) for one in verdict.records] == [(RECORD, f"{OURS}.")]


async def test_a_zone_of_its_own_for_the_record_is_as_good_as_an_alias(place: Place) -> None:
    place.server.remove(RECORD)
    place.server.add_zone(RECORD)
    seen = await place.seen()
    assert (seen.aliases, seen.zone, await place.codes()) == ((), RECORD, [])


@pytest.mark.parametrize(
    ("fault", "name", "lookup", "codes"),
    [
        (FaultKind.SERVFAIL, RECORD, "servfail", ["CW1346"]),
        (FaultKind.TIMEOUT, RECORD, "timeout", ["CW1346"]),
        (FaultKind.BOGUS, RECORD, "dnssec-bogus", ["CW1106"]),
        (FaultKind.SERVFAIL, OURS, "servfail", ["CW1346"]),
        (FaultKind.BOGUS, OURS, "dnssec-bogus", ["CW1106"]),
    ],
)
async def test_a_failing_server_is_unknown_and_broken_signatures_are_told(
    place: Place, fault: FaultKind, name: str, lookup: str, codes: list[str]
) -> None:
    place.server.fault(name, fault)
    seen = await place.seen(timeout=0.4)
    assert (seen.lookup.value, await place.codes(timeout=0.4)) == (lookup, codes)


async def test_a_solvers_server_that_is_silent_is_unknown(place: Place) -> None:
    assert (await place.seen(nameserver="127.0.0.9:1")).authority is Authority.UNKNOWN
    assert await place.codes(nameserver="127.0.0.9:1") == ["CW1346"]


async def test_records_that_were_left_are_counted(place: Place) -> None:
    place.server.set(OURS, "TXT", [f'"{number}"' for number in range(6)])
    assert ((await place.seen()).values, await place.codes()) == (6, ["CW1349"])


# --- a record on trial ------------------------------------------------------------------------------------------------


def secret(key: str) -> dict[str, Any]:
    return {"data": {"secret": base64.b64encode(key.encode()).decode()}}


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What stands for the cluster here: one Secret. The real one is in `test_foresight`."""
    kept: dict[str, Any] = {"secret": secret(KEYS["acme."] + "\n")}

    async def read(*_: Any) -> Any:
        return kept["secret"]

    async def listed(*_: Any, **__: Any) -> list[Any]:
        return []

    monkeypatch.setattr(kubernetes, "read", read)
    monkeypatch.setattr(kubernetes, "listed", listed)
    return kept


async def tried(place: Place, seen: Delegation, *, timeout: float = 1.0) -> ScratchRecord:
    records = scratch_record.ScratchRecords(
        None,  # type: ignore[arg-type]
        nameservers=(place.address,),
        may_dial=lambda address: address.startswith("127."),
        timeout=timeout,
        port=int(place.address.rpartition(":")[2]),
    )
    (record,) = await records.tried([seen], IssuerRef(name="le"))
    return record


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
async def test_a_record_is_written_read_and_removed(place: Place, held: dict[str, Any], protocol: str) -> None:
    place.server.set(OURS, "TXT", ['"of-an-order-under-way"'])
    record = await tried(place, await place.seen(protocol=protocol))
    assert (record.ending, record.asked, record.left) == (Writing.SEEN, (place.address,), False)
    assert scratch_findings(record) == ()
    assert [line.split()[-1] for line in place.server.shown("acme.platform.net")] == ['"of-an-order-under-way"']
    assert KEYS["acme."] not in repr(record)


@pytest.mark.parametrize(
    ("key", "fields", "ending"),
    [
        ("b3RoZXI=", {}, Writing.BADSIG),
        (KEYS["acme."], {"tsigKeyName": "nobody"}, Writing.BADKEY),
        ("no base64 !", {}, Writing.KEY_UNUSABLE),
        ("", {}, Writing.KEY_UNUSABLE),
        (KEYS["acme."], {"tsigAlgorithm": "ROT13"}, Writing.KEY_UNUSABLE),
        (KEYS["acme."], {"tsigKeyName": ""}, Writing.REFUSED),
    ],
)
async def test_refusals_are_told_apart_and_leave_nothing_and_tell_no_key(
    place: Place, held: dict[str, Any], key: str, fields: dict[str, Any], ending: Writing
) -> None:
    held["secret"] = secret(key)
    record = await tried(place, await place.seen(**fields))
    found = scratch_findings(record)
    assert (record.ending, [one.code for one in found]) == (ending, ["CW1347"])
    assert place.server.shown("acme.platform.net") == []
    assert not key or key not in repr((record, found))


async def test_a_clock_that_is_wrong_is_told(
    place: Place, held: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = await place.seen()
    sign: Any = dns.tsig.sign

    def late(wire: Any, key: Any, rdata: Any, time: int, *rest: Any) -> Any:
        return sign(wire, key, rdata, time - 3600, *rest)

    monkeypatch.setattr(dns.tsig, "sign", late)
    assert (await tried(place, seen)).ending is Writing.BADTIME


async def test_a_secret_without_the_key_is_a_finding_of_the_issuer(place: Place, held: dict[str, Any]) -> None:
    held["secret"] = {"data": {"other": "eA=="}}
    record = await tried(place, await place.seen())
    assert (record.ending, [one.code for one in scratch_findings(record)]) == (Writing.NOT_TRIED, ["CW1206"])


async def test_a_secondary_that_does_not_show_it_is_named(
    place: Place, held: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch_record, "_SHOWN_SECONDS", 0.3)
    secondary = DnsServer()
    secondary.add_zone("acme.platform.net")
    await secondary.start("127.0.0.6", int(place.address.rpartition(":")[2]))
    place.server.set("ns.acme.platform.net", "A", ["127.0.0.6"])
    try:
        record = await tried(place, await place.seen())
    finally:
        await secondary.stop()
    assert (record.ending, record.unseen) == (Writing.NOT_SEEN, ("ns.acme.platform.net",))
    assert [one.code for one in scratch_findings(record)] == ["CW1348"]
    assert not any("TXT" in line for line in place.server.shown("acme.platform.net"))


async def test_nothing_is_left_where_it_is_cut_off(
    place: Place, held: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = await place.seen()
    written = asyncio.Event()

    async def never(*_: Any) -> bool | None:
        assert any("certwright-preflight" in line for line in place.server.shown(OURS))
        written.set()
        return await asyncio.Event().wait()

    monkeypatch.setattr(scratch_record.ScratchRecords, "_shows", never)
    task = asyncio.create_task(tried(place, seen))
    await asyncio.wait_for(written.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.server.shown(OURS) == []


async def test_of_another_provider_it_is_said_that_nothing_was_tried(place: Place, held: dict[str, Any]) -> None:
    challenges = dns_challenges(("shop.example.com",), [{"dns01": {"cloudflare": {}, "cnameStrategy": "Follow"}}])
    (seen,) = await gather_delegations(challenges, (place.address,), 1.0)
    record = await tried(place, seen)
    assert (record.ending, record.detail) == (
        Writing.NOT_TRIED,
        "DNS-01 by cloudflare, following CNAMEs is no RFC 2136",
    )
    assert place.server.shown("acme.platform.net") == []


async def test_a_zone_that_is_not_the_servers_is_not_written_to(place: Place, held: dict[str, Any]) -> None:
    seen = dataclasses.replace(await place.seen(), zone="platform.net")
    record = await tried(place, seen)
    assert record.ending is Writing.NOTAUTH
