"""What the CA and cert-manager would stumble over, judged from what was gathered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from lifecycle.caa import CaaClimb, CaaLevel, CaaRecord
from lifecycle.challenge_path import Ending, PathAnswer
from lifecycle.domain import DnsRecord, IssuerRef, OnboardingRequest, Route
from lifecycle.foresight import Foresight, acme_of, foreseen, in_mesh, kept_out
from lifecycle.port_eighty import Neighbours
from lifecycle.routing import Lookup

NAME, WILDCARD = "shop.example.com", "*.shop.example.com"
OURS = "203.0.113.7"
REQUEST = OnboardingRequest(
    tenant="acme",
    hostnames=(NAME, WILDCARD),
    issuer=IssuerRef(name="le"),
    routes=(Route(prefix="/", service="frontend", port=80),),
)
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
HTTP01: dict[str, Any] = {"http01": {"ingress": {}}}
DNS01: dict[str, Any] = {"dns01": {"rfc2136": {}}}


def issuer(*solvers: dict[str, Any], server: str = LETS_ENCRYPT) -> dict[str, Any]:
    return {
        "spec": {"acme": {"server": server, "solvers": list(solvers)}},
        "status": {"acme": {"uri": "https://ca.example/acct/1"}},
    }


def told(**seen: Any) -> tuple[list[str], tuple[DnsRecord, ...]]:
    unresolved = frozenset(seen.pop("unresolved", ()))
    made = foreseen(
        REQUEST,
        Foresight(**seen),
        addresses=(OURS,),
        certificates=(),
        unresolved=unresolved,
        cname_target="",
        now=datetime(2026, 11, 24, tzinfo=UTC),
    )
    return [one.code for one in made.findings], made.records


def test_the_issuer_says_who_the_ca_is_and_how_names_are_proved() -> None:
    acme = acme_of(REQUEST, issuer(HTTP01, DNS01))
    assert (acme.identities, acme.account) == (("letsencrypt.org",), "https://ca.example/acct/1")
    assert acme.methods == ((NAME, "http-01"), (WILDCARD, "dns-01"))
    assert acme_of(REQUEST, issuer(DNS01)).methods == ((NAME, "dns-01"), (WILDCARD, "dns-01"))
    assert acme_of(REQUEST, issuer(HTTP01, server="https://ca.example/"), ("ca.example",)).identities == ("ca.example",)
    others: tuple[dict[str, Any] | None, ...] = (None, {"spec": {"selfSigned": {}}})
    for other in others:
        assert acme_of(REQUEST, other).methods == ()


def climb(name: str, value: str = "", lookup: Lookup = Lookup.ANSWERED) -> CaaClimb:
    records = (CaaRecord(flags=0, tag="issue", value=value),) if value else ()
    return CaaClimb(hostname=name, levels=(CaaLevel(name=name.removeprefix("*."), lookup=lookup, records=records),))


def test_each_name_is_held_against_its_own_method() -> None:
    acme = acme_of(REQUEST, issuer(HTTP01, DNS01))
    only_http = "letsencrypt.org; validationmethods=http-01"
    codes, records = told(acme=acme, climbs=(climb(NAME, only_http), climb(WILDCARD, only_http)))
    assert codes == ["CW1305"]
    assert [record.value for record in records] == ['0 issuewild "letsencrypt.org"']


def test_a_name_that_could_not_be_looked_up_is_said_once() -> None:
    acme = acme_of(REQUEST, issuer(HTTP01))
    failed = climb(NAME, lookup=Lookup.SERVFAIL)
    assert told(acme=acme, climbs=(failed,)) == (["CW1314"], ())
    assert told(acme=acme, climbs=(failed,), unresolved=(NAME,)) == ([], ())


def path(status: int = 0, ending: Ending = Ending.ANSWERED, **more: Any) -> PathAnswer:
    return PathAnswer(hostname=NAME, address=OURS, ending=ending, status=status, **more)


@pytest.mark.parametrize(
    ("answer", "beside", "codes"),
    [
        (path(404), Neighbours(), []),
        (path(301), Neighbours(), ["CW1317"]),
        (path(301), Neighbours(covered=frozenset({NAME})), []),
        (path(301), Neighbours(covered=frozenset({NAME}), swallowing=((NAME, "default/other"),)), ["CW1317"]),
        (path(ending=Ending.RESET), Neighbours(), ["CW1320"]),
        (path(ending=Ending.RESET), Neighbours(listening=False), []),
        (path(403), Neighbours(covered=frozenset({NAME})), ["CW1318"]),
        (path(403, upstream=True), Neighbours(covered=frozenset({NAME})), []),
        (path(503, upstream=True), Neighbours(covered=frozenset({NAME})), []),
        (path(503), Neighbours(covered=frozenset({NAME})), ["CW1319"]),
        (path(503, upstream=True), Neighbours(), ["CW1319"]),
    ],
)
def test_who_else_speaks_on_port_80_explains_an_answer(
    answer: PathAnswer, beside: Neighbours, codes: list[str]
) -> None:
    assert (codes, ()) == told(path=(answer,), beside=beside)


@pytest.mark.parametrize(
    ("ports", "codes"), [((80, 443), []), ((443, 15021), ["CW1031"]), ((80,), ["CW1031"]), ((), ["CW1031", "CW1031"])]
)
def test_the_gateway_has_both_ports(ports: tuple[int, ...], codes: list[str]) -> None:
    assert (codes, ()) == told(service={"spec": {"ports": [{"port": port} for port in ports]}})


def test_cert_manager_with_a_sidecar_is_named() -> None:
    assert told(meshed=("cert-manager/cert-manager-1",)) == (["CW1030"], ())
    assert in_mesh({"spec": {"containers": [{"name": "controller"}, {"name": "istio-proxy"}]}})
    assert in_mesh({"spec": {"containers": [], "initContainers": [{"name": "istio-proxy"}]}})
    assert not in_mesh({"spec": {"containers": [{"name": "controller"}]}})
    for place in ("labels", "annotations"):
        mark = {place: {"sidecar.istio.io/inject": "false"}}
        assert kept_out({"spec": {"template": {"metadata": mark}}})
    assert not kept_out({"spec": {"template": {"metadata": {}}}})
