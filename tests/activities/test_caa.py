"""CAA answers are gathered level by level from a real name server, with its faults."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from activities.caa import gather_caa
from lab.dns import DnsServer, FaultKind
from lifecycle.caa import CaaClimb, CaaPolicy, CaaRecord, CaaStatus, caa_verdict
from lifecycle.routing import Lookup

POLICY = CaaPolicy(identities=("letsencrypt.org",), account="https://ca.example/acct/1", target="edge.platform.test")


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    server = DnsServer()
    server.add_zone("example.test")
    server.add_zone("platform.test")
    server.set("shop.example.test", "A", ["192.0.2.1"])
    server.set("edge.platform.test", "A", ["192.0.2.1"])
    yield server
    await server.stop()


async def gathered(server: DnsServer, *hostnames: str, timeout: float = 1.0) -> tuple[CaaClimb, ...]:
    address, port = await server.start()
    return await gather_caa(hostnames, (f"{address}:{port}",), timeout)


async def test_each_level_is_asked_and_the_nearest_decides(server: DnsServer) -> None:
    server.set("example.test", "CAA", ['0 issue "pki.example"', '0 iodef "mailto:pki@example.test"'])
    server.set("shop.example.test", "CAA", ['0 issue "letsencrypt.org; validationmethods=http-01"'])
    climbs = await gathered(server, "shop.example.test", "www.shop.example.test", "example.test")
    assert [one.hostname for one in climbs] == ["shop.example.test", "www.shop.example.test", "example.test"]
    assert [(level.name, level.lookup) for level in climbs[1].levels] == [
        ("www.shop.example.test", Lookup.NXDOMAIN),
        ("shop.example.test", Lookup.ANSWERED),
        ("example.test", Lookup.ANSWERED),
        ("test", Lookup.REFUSED),
    ]
    assert climbs[0].levels[0].records == (
        CaaRecord(flags=0, tag="issue", value="letsencrypt.org; validationmethods=http-01"),
    )
    assert [caa_verdict([one], POLICY).status for one in climbs] == [
        CaaStatus.ALLOWED,
        CaaStatus.ALLOWED,
        CaaStatus.FORBIDDEN,
    ]
    assert server.queries == 4  # names of one domain share their levels


async def test_an_alias_is_followed_to_our_own_target(server: DnsServer) -> None:
    server.set("www.example.test", "CNAME", ["edge.platform.test."])
    server.set("edge.platform.test", "CAA", ['0 issue ";"'])
    (climb,) = await gathered(server, "www.example.test")
    assert climb.levels[0].cnames == ("edge.platform.test",)
    verdict = caa_verdict([climb], POLICY)
    assert [one.code for one in verdict.findings] == ["CW1316"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(FaultKind.SERVFAIL, Lookup.SERVFAIL), (FaultKind.TIMEOUT, Lookup.TIMEOUT)],
)
async def test_a_failing_server_makes_it_unknown(server: DnsServer, fault: FaultKind, expected: Lookup) -> None:
    server.fault("shop.example.test", fault)
    (climb,) = await gathered(server, "shop.example.test", timeout=0.5)
    assert climb.levels[0].lookup is expected
    verdict = caa_verdict([climb], POLICY)
    assert verdict.status is CaaStatus.UNKNOWN
    assert [one.code for one in verdict.findings] == ["CW1314"]


async def test_a_wildcard_is_asked_without_its_label(server: DnsServer) -> None:
    server.set("example.test", "CAA", ['0 issue "letsencrypt.org"', '0 issuewild ";"'])
    (climb,) = await gathered(server, "*.example.test")
    assert [level.name for level in climb.levels] == ["example.test", "test"]
    assert caa_verdict([climb], POLICY).status is CaaStatus.FORBIDDEN


async def test_endless_aliases_end(server: DnsServer) -> None:
    server.set("a.example.test", "CNAME", ["b.example.test."])
    server.set("b.example.test", "CNAME", ["a.example.test."])
    (climb,) = await gathered(server, "a.example.test")
    assert climb.levels[0].lookup is Lookup.BROKEN


async def test_no_name_is_no_question() -> None:
    assert await gather_caa((), (), 1.0) == ()
