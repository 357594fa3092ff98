"""A domain that is stuck says why, with nobody looking at its history, and mends itself when its tenant asks."""

from __future__ import annotations

import pytest

from tests.activities.ward import restored_request
from tests.e2e.play import GATEWAY_NAMESPACE, ZONE, Play, active, codes

pytestmark = pytest.mark.lab

REQUESTS = f"/apis/cert-manager.io/v1/namespaces/{GATEWAY_NAMESPACE}/certificaterequests"
HOSTNAME = f"restored.{ZONE}"


async def test_a_stuck_domain_says_why_and_mends_itself_when_its_tenant_asks(play: Play) -> None:
    """A restored CertificateRequest has the name of its first one: cert-manager stands still for ever."""
    await play.lab.api.call("POST", REQUESTS, body=restored_request(HOSTNAME))
    play.point(HOSTNAME)
    await play.ask(HOSTNAME)
    seen = await play.until(HOSTNAME, lambda status: "CW1309" in codes(status))
    assert seen["phase"] == "issuing"
    assert "nothing has moved since" in seen["step"]
    assert f"certwright diagnose {HOSTNAME} --fix" in seen["findings"][0]["fix"]
    assert [line["detail"][:6] for line in seen["evidence"] if line["step"] == "nothing moves"] == ["CW1309"]
    theirs = await play.other.post(f"/v1/domains/{HOSTNAME}/fix")
    assert theirs.status_code == 404
    answer = await play.portal.post(f"/v1/domains/{HOSTNAME}/fix")
    assert answer.status_code == 200, answer.text
    done = [line["detail"] for line in answer.json()["evidence"] if line["step"] == "fix"]
    assert len(done) == 1
    assert done[0].startswith(f"fixed: delete CertificateRequest {GATEWAY_NAMESPACE}/")
    assert "The cause: CW1309" in done[0]
    seen = await play.until(HOSTNAME, active, seconds=90)
    assert seen["findings"] == []
    assert len(play.orders_of(HOSTNAME)) == 1
