"""What is in the way of a challenge is told by who answers, and how."""

from __future__ import annotations

import dataclasses

import pytest

from lifecycle.challenge_path import Ending, PathAnswer, PathStatus, path_verdict
from lifecycle.findings import Handling

OURS, OURS_V6, ELSEWHERE = "203.0.113.7", "2001:db8::7", "198.51.100.9"
GATEWAY = (OURS, "2001:0db8:0:0::7")


def answer(status: int = 0, *, address: str = OURS, ending: Ending | None = None, location: str = "") -> PathAnswer:
    return PathAnswer(
        hostname="shop.example.com",
        address=address,
        ending=ending or Ending.ANSWERED,
        status=status,
        server="istio-envoy" if address == OURS else "nginx",
        location=location,
    )


def verdict(*answers: PathAnswer) -> tuple[PathStatus, list[str]]:
    found = path_verdict(answers, GATEWAY, gateway="istio-system/istio-ingressgateway")
    return found.status, [one.code for one in found.findings]


HTTPS = "https://shop.example.com/.well-known/acme-challenge/<token>"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answer(404), (PathStatus.FREE, [])),
        (answer(404, address=OURS_V6), (PathStatus.FREE, [])),
        (answer(200), (PathStatus.FREE, [])),  # a route of the customer's; the challenge's exact one goes before it
        (answer(301, location=HTTPS), (PathStatus.BLOCKED, ["CW1317"])),
        (answer(308, location=HTTPS), (PathStatus.BLOCKED, ["CW1317"])),
        (answer(302, location="/.well-known/acme-challenge/<token>/"), (PathStatus.BLOCKED, ["CW1317"])),
        (answer(301, location="https://other.example.net/"), (PathStatus.BLOCKED, ["CW1317"])),
        (answer(301), (PathStatus.BLOCKED, ["CW1317"])),
        (answer(401), (PathStatus.BLOCKED, ["CW1318"])),
        (answer(403), (PathStatus.BLOCKED, ["CW1318"])),
        (answer(429), (PathStatus.BLOCKED, ["CW1319"])),
        (answer(503), (PathStatus.BLOCKED, ["CW1319"])),
        (answer(ending=Ending.REFUSED), (PathStatus.BLOCKED, ["CW1320"])),
        (answer(ending=Ending.RESET), (PathStatus.BLOCKED, ["CW1320"])),
        (answer(ending=Ending.TIMEOUT), (PathStatus.BLOCKED, ["CW1320"])),
        (answer(200, address=ELSEWHERE), (PathStatus.BLOCKED, ["CW1321"])),
        (answer(404, address=ELSEWHERE), (PathStatus.BLOCKED, ["CW1321"])),
        (answer(301, address=ELSEWHERE, location=HTTPS), (PathStatus.BLOCKED, ["CW1321"])),
        (answer(403, address=ELSEWHERE), (PathStatus.BLOCKED, ["CW1321"])),
        (answer(address=ELSEWHERE, ending=Ending.TIMEOUT), (PathStatus.BLOCKED, ["CW1321"])),
        (answer(address="10.0.0.7", ending=Ending.NOT_ALLOWED), (PathStatus.UNKNOWN, ["CW1322"])),
        (answer(ending=Ending.BROKEN), (PathStatus.UNKNOWN, ["CW1322"])),
    ],
)
def test_answers(given: PathAnswer, expected: tuple[PathStatus, list[str]]) -> None:
    assert expected == verdict(given)


def test_a_token_that_comes_through_is_proof_whoever_stands_in_front() -> None:
    assert verdict(dataclasses.replace(answer(200, address=ELSEWHERE), token_served=True)) == (PathStatus.FREE, [])


def test_each_address_must_let_it_through_and_the_unknown_weighs_less() -> None:
    assert verdict(answer(404), answer(200, address=ELSEWHERE)) == (PathStatus.BLOCKED, ["CW1321"])
    unknown = answer(ending=Ending.BROKEN)
    assert verdict(answer(404), unknown)[0] is PathStatus.UNKNOWN
    assert verdict(unknown, answer(403)) == (PathStatus.BLOCKED, ["CW1322", "CW1318"])
    assert verdict() == (PathStatus.UNKNOWN, [])


def test_the_messages_name_who_and_what_to_do() -> None:
    def only(given: PathAnswer) -> tuple[str, str, Handling]:
        (one,) = path_verdict([given], GATEWAY, gateway="istio-system/gateway", source="from outside").findings
        return one.problem, one.fix, one.handling

    problem, fix, handling = only(answer(301, location=HTTPS))
    assert problem == (
        f"The gateway answers 301 to the challenge's path of shop.example.com at {OURS}: it redirects to {HTTPS}."
    )
    assert "httpsRedirect" in fix
    assert handling is Handling.OPERATOR
    problem, fix, handling = only(answer(200, address=ELSEWHERE))
    assert problem == f"Somebody else (nginx) answers 200 on port 80 of shop.example.com at {ELSEWHERE}."
    assert "Point shop.example.com at this gateway" in fix
    assert handling is Handling.CUSTOMER
    problem, fix, _ = only(answer(ending=Ending.REFUSED))
    assert problem == f"Port 80 of shop.example.com at {OURS} refuses connections from outside."
    assert fix.startswith("kubectl get service -n istio-system gateway;")
