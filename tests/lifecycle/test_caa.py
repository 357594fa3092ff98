"""CAA is read as the CA will read it; what could not be looked up is never called forbidden."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.caa import (
    CaaClimb,
    CaaLevel,
    CaaPolicy,
    CaaRecord,
    CaaStatus,
    caa_verdict,
    climbed,
    identities_of,
)
from lifecycle.domain import DnsRecord
from lifecycle.routing import Lookup

ACCOUNT = "https://acme-v02.api.letsencrypt.org/acme/acct/1234"
POLICY = CaaPolicy(identities=("letsencrypt.org",), account=ACCOUNT, target="edge.platform.net")


def record(text: str) -> CaaRecord:
    flags, tag, value = text.split(" ", 2)
    return CaaRecord(flags=int(flags), tag=tag, value=value)


def level(name: str, *texts: str, lookup: Lookup | None = None, cnames: tuple[str, ...] = ()) -> CaaLevel:
    found = tuple(map(record, texts))
    return CaaLevel(
        name=name, lookup=lookup or (Lookup.ANSWERED if found else Lookup.NO_DATA), records=found, cnames=cnames
    )


def climb(hostname: str, *given: CaaLevel, nameserver: str = "") -> CaaClimb:
    """All levels; those not given have nothing."""
    known = {one.name: one for one in given}
    levels = tuple(known.get(name, level(name)) for name in climbed(hostname))
    return CaaClimb(hostname=hostname, levels=levels, nameserver=nameserver)


def test_the_way_up_ends_at_the_top_level_domain() -> None:
    assert climbed("*.shop.example.com") == ("shop.example.com", "example.com", "com")
    assert identities_of("https://acme-v02.api.letsencrypt.org/directory") == ("letsencrypt.org",)
    assert identities_of("https://pki.example.net/acme") == ()


OURS = "0 issue letsencrypt.org"


@pytest.mark.parametrize(
    ("records", "hostname", "expected"),
    [
        ((), "example.com", CaaStatus.ALLOWED),
        ((OURS,), "example.com", CaaStatus.ALLOWED),
        (("0 ISSUE LetsEncrypt.org",), "example.com", CaaStatus.ALLOWED),
        (("0 issue pki.example", OURS), "example.com", CaaStatus.ALLOWED),
        (("0 issue pki.example",), "example.com", CaaStatus.FORBIDDEN),
        (("0 issue ;",), "example.com", CaaStatus.FORBIDDEN),
        (("0 issue ",), "example.com", CaaStatus.FORBIDDEN),
        (("0 issue %%%%%",), "example.com", CaaStatus.FORBIDDEN),  # malformed: nobody
        (("0 issue letsencrypt.org; policy",), "example.com", CaaStatus.FORBIDDEN),  # likewise
        (("0 issue letsencrypt.org;",), "example.com", CaaStatus.ALLOWED),
        (("0 iodef mailto:pki@example.com",), "example.com", CaaStatus.ALLOWED),
        (("0 issuewild pki.example",), "example.com", CaaStatus.ALLOWED),  # about wildcards only
        # RFC 8659, section 4.3
        (("0 issuewild pki.example", OURS), "*.example.com", CaaStatus.FORBIDDEN),
        (("0 issuewild letsencrypt.org", "0 issue ;"), "*.example.com", CaaStatus.ALLOWED),
        ((OURS,), "*.example.com", CaaStatus.ALLOWED),
        # RFC 8659, section 4.5, and the bit that many take for the critical one
        ((OURS, "128 tbs unknown"), "example.com", CaaStatus.FORBIDDEN),
        ((OURS, "1 tbs unknown"), "example.com", CaaStatus.FORBIDDEN),
        ((OURS, "0 tbs unknown"), "example.com", CaaStatus.ALLOWED),
        (("128 issue letsencrypt.org",), "example.com", CaaStatus.ALLOWED),
        # RFC 8657
        ((f"{OURS}; accounturi={ACCOUNT}",), "example.com", CaaStatus.ALLOWED),
        ((f"{OURS}; accounturi={ACCOUNT}5",), "example.com", CaaStatus.FORBIDDEN),
        ((f"{OURS}; accounturi={ACCOUNT}; accounturi={ACCOUNT}",), "example.com", CaaStatus.FORBIDDEN),
        ((f"{OURS};validationmethods=dns-01,http-01",), "example.com", CaaStatus.ALLOWED),
        ((f"{OURS}; validationmethods=dns-01",), "example.com", CaaStatus.FORBIDDEN),
        ((f"{OURS}; validationmethods=",), "example.com", CaaStatus.FORBIDDEN),
        ((f"{OURS}; validationmethods=http-01; accounturi={ACCOUNT}",), "example.com", CaaStatus.ALLOWED),
        ((f"{OURS}; accounturi=other", OURS), "example.com", CaaStatus.ALLOWED),
        ((f"{OURS}; future=x",), "example.com", CaaStatus.ALLOWED),
    ],
)
def test_records(records: tuple[str, ...], hostname: str, expected: CaaStatus) -> None:
    verdict = caa_verdict([climb(hostname, level("example.com", *records))], POLICY)
    assert expected is verdict.status
    assert bool(verdict.findings) is (expected is CaaStatus.FORBIDDEN)


def test_the_nearest_records_decide() -> None:
    near = climb("a.b.example.com", level("b.example.com", OURS), level("example.com", "0 issue ;"))
    assert caa_verdict([near], POLICY).status is CaaStatus.ALLOWED
    far = climb("a.b.example.com", level("b.example.com"), level("example.com", "0 issue ;"))
    assert caa_verdict([far], POLICY).status is CaaStatus.FORBIDDEN


def test_the_fix_is_the_record_to_set_and_where() -> None:
    (found,) = (
        verdict := caa_verdict([climb("a.example.com", level("example.com", "0 issue pki.example"))], POLICY)
    ).findings
    assert (found.code, found.subject) == ("CW1305", "a.example.com")
    assert found.fix == 'Add example.com CAA 0 issue "letsencrypt.org".'
    assert verdict.records == (DnsRecord(name="example.com", type="CAA", value='0 issue "letsencrypt.org"'),)
    registry = caa_verdict([climb("a.example.com", level("com", "0 issue ;"))], POLICY)
    assert registry.records[0].name == "example.com"


def test_our_own_target_zone_counts_for_every_customer() -> None:
    aliased = level("shop.example.com", "0 issue pki.example", cnames=("edge.platform.net",))
    verdict = caa_verdict([climb("shop.example.com", aliased)], POLICY)
    assert [(one.code, one.fix) for one in verdict.findings] == [
        ("CW1316", 'Add edge.platform.net CAA 0 issue "letsencrypt.org".')
    ]
    assert verdict.records == ()  # nothing for the customer to do
    # the way up goes on from the customer's own name (RFC 8659, section 3)
    nothing = level("shop.example.com", cnames=("edge.platform.net",))
    verdict = caa_verdict([climb("shop.example.com", nothing, level("example.com", "0 issue ;"))], POLICY)
    assert [one.code for one in verdict.findings] == ["CW1305"]


@pytest.mark.parametrize("lookup", [Lookup.SERVFAIL, Lookup.TIMEOUT, Lookup.REFUSED, Lookup.BROKEN])
def test_what_could_not_be_looked_up_is_unknown(lookup: Lookup) -> None:
    broken = climb("a.example.com", level("a.example.com", lookup=lookup), level("example.com", OURS))
    verdict = caa_verdict([broken], POLICY)
    assert verdict.status is CaaStatus.UNKNOWN
    assert [one.code for one in verdict.findings] == ["CW1314"]
    above = climb("a.example.com", level("example.com", OURS), level("com", lookup=lookup))
    assert caa_verdict([above], POLICY).status is CaaStatus.ALLOWED


def test_an_authority_that_refuses_what_lies_above_its_zone_says_nothing() -> None:
    refused = climb("a.example.com", level("com", lookup=Lookup.REFUSED))
    assert caa_verdict([refused], POLICY).status is CaaStatus.ALLOWED
    failed = climb("a.example.com", level("com", lookup=Lookup.SERVFAIL))
    assert caa_verdict([failed], POLICY).status is CaaStatus.UNKNOWN


def test_a_refusal_weighs_more_than_silence_and_silence_more_than_leave() -> None:
    good = climb("example.com", level("example.com", OURS), nameserver="a")
    bad = climb("example.com", level("example.com", "0 issue ;"), nameserver="b")
    silent = climb("example.com", level("example.com", lookup=Lookup.TIMEOUT), nameserver="c")
    assert caa_verdict([good, silent], POLICY).status is CaaStatus.UNKNOWN
    assert caa_verdict([good, silent, bad], POLICY).status is CaaStatus.FORBIDDEN
    assert caa_verdict([], POLICY).status is CaaStatus.UNKNOWN


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (CaaPolicy(identities=("letsencrypt.org",)), f"{OURS}; accounturi={ACCOUNT}"),
        (CaaPolicy(identities=()), "0 issue pki.example"),
    ],
)
def test_who_does_not_know_itself_does_not_judge(policy: CaaPolicy, text: str) -> None:
    verdict = caa_verdict([climb("example.com", level("example.com", text))], policy)
    assert verdict.status is CaaStatus.UNKNOWN
    assert [one.code for one in verdict.findings] == ["CW1315"]


TAG = st.one_of(st.text(max_size=8), st.sampled_from(["issue", "issuewild"]))
VALUE = st.one_of(st.text(max_size=90), st.text(max_size=90).map("letsencrypt.org; validationmethods={}".format))


@given(st.lists(st.tuples(st.integers(0, 255), TAG, VALUE), max_size=4))
def test_whatever_the_dns_holds_is_judged_and_said_on_one_line(records: list[tuple[int, str, str]]) -> None:
    found = tuple(CaaRecord(flags=flags, tag=tag, value=value) for flags, tag, value in records)
    asked = CaaLevel(name="example.com", lookup=Lookup.ANSWERED, records=found)
    verdict = caa_verdict([climb("example.com", asked)], POLICY)
    for one in verdict.findings:
        assert "\n" not in one.problem
        assert len(one.problem) < 500
