"""A domain's certificate by the real cert-manager: issued once, told why not, taken away without touching others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes.aio.dynamic import DynamicClient
from temporalio.exceptions import ApplicationError

from activities import issuance as watching
from activities import kubernetes
from activities.certificates import CertificateActivities
from lab.accounts import service_account_kubeconfig
from lab.api import ApiError, Json
from lab.cluster import Lab
from lifecycle import names
from lifecycle.steps import CertificateTarget, IssuanceResult
from tests.activities import domains

pytestmark = pytest.mark.lab

ISTIO = "/apis/networking.istio.io/v1/namespaces/istio-system"
ISSUED = domains.target("issued.h1.test", "www.issued.h1.test")


@pytest.fixture(scope="module")
def certificates(admin: DynamicClient) -> CertificateActivities:
    return CertificateActivities(admin)


@pytest.fixture(scope="module")
async def issued(issuing: Lab, certificates: CertificateActivities) -> AsyncIterator[tuple[IssuanceResult, list[str]]]:
    """What came of an issuance, and its heartbeats."""
    domains.point_here(issuing, *ISSUED.request.hostnames)
    applied = await domains.run(certificates.apply_certificate, ISSUED)
    assert (applied.ready, applied.findings) == (False, ())
    heard = domains.Heard()
    result = await domains.run(certificates.await_certificate, ISSUED, environment=heard.environment)
    yield result, heard.words
    await domains.run(certificates.remove_certificate, ISSUED)


async def there(lab: Lab, path: str) -> bool:
    try:
        await lab.api.call("GET", path)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


async def test_an_issuance_makes_one_order_and_tells_its_time(issued: tuple[IssuanceResult, list[str]]) -> None:
    result, _ = issued
    assert result.findings == ()
    assert result.ready
    assert result.secret is not None
    assert set(result.secret.dns_names) == set(ISSUED.request.hostnames)
    assert result.orders == 1
    assert result.order.startswith(names.certificate_name(ISSUED.request.hostname))
    assert 0 < result.ready_seconds < 60
    assert result.renewal_at is not None
    assert {"Certificate", f"Order {result.order}"} <= {line.step for line in result.evidence}


async def test_heartbeats_say_in_words_what_is_waited_for(issued: tuple[IssuanceResult, list[str]]) -> None:
    _, words = issued
    assert any(line.startswith("waiting for the challenge of ") for line in words)
    assert not any("/.well-known/acme-challenge/" in line and "…" not in line for line in words)


async def test_no_challenge_route_is_left(issuing: Lab, issued: tuple[IssuanceResult, list[str]]) -> None:
    assert issued[0].ready
    assert not await there(issuing, f"{ISTIO}/virtualservices/{names.challenge_route_name('issued.h1.test')}")


async def test_asking_again_changes_nothing(
    certificates: CertificateActivities, issued: tuple[IssuanceResult, list[str]]
) -> None:
    await domains.run(certificates.apply_certificate, ISSUED)
    again = await domains.run(certificates.await_certificate, ISSUED)
    assert again.secret == issued[0].secret
    assert again.orders == 1


async def test_a_solver_that_cert_manager_made_anew_is_routed_to(
    issuing: Lab, certificates: CertificateActivities
) -> None:
    """As after the API server was away: cert-manager finds several Services of a challenge, and deletes all of them."""
    hostname = "replaced.h1.test"
    target = domains.target(hostname)
    domains.point_here(issuing, hostname)
    await domains.run(certificates.apply_certificate, target)
    waiting = asyncio.create_task(domains.run(certificates.await_certificate, target))
    route = f"{ISTIO}/virtualservices/{names.challenge_route_name(hostname)}"
    try:
        async with asyncio.timeout(30):
            while not await there(issuing, route):  # noqa: ASYNC110 - looked at as a client would
                await asyncio.sleep(0.1)
        rule = (await issuing.api.call("GET", route))["spec"]["http"][0]
        service = rule["route"][0]["destination"]["host"].partition(".")[0]
        await issuing.api.call("DELETE", f"/api/v1/namespaces/istio-system/services/{service}")
        result = await waiting
        assert (result.ready, result.orders) == (True, 1)
    finally:
        waiting.cancel()
        await domains.run(certificates.remove_certificate, target)


async def test_a_failure_says_why_and_leaves_no_route(issuing: Lab, certificates: CertificateActivities) -> None:
    target = domains.target("astray.h1.test")
    domains.point_here(issuing, "astray.h1.test", addresses=("127.0.0.9",))  # the CA finds nobody there
    await domains.run(certificates.apply_certificate, target)
    try:
        result = await domains.run(certificates.await_certificate, target)
        assert not result.ready
        assert [finding.code for finding in result.findings] == ["CW1303", "CW1311", "CW1310"]
        assert result.findings[0].subject == "astray.h1.test"
        assert result.orders == 1
        assert not await there(issuing, f"{ISTIO}/virtualservices/{names.challenge_route_name('astray.h1.test')}")
    finally:
        await domains.run(certificates.remove_certificate, target)


async def test_a_cancelled_issuance_ends_at_once_and_is_taken_away(
    issuing: Lab, certificates: CertificateActivities
) -> None:
    hostname = "cancelled.h1.test"
    target = domains.target(hostname)
    domains.point_here(issuing, hostname)
    await domains.run(certificates.apply_certificate, target)
    heard = domains.Heard()
    waiting = asyncio.create_task(domains.run(certificates.await_certificate, target, environment=heard.environment))
    await heard.until("the challenge of")
    heard.environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 5)
    gone = await domains.run(certificates.remove_certificate, target)
    assert f"Certificate istio-system/{names.certificate_name(hostname)}" in gone.removed
    assert not await there(issuing, f"{ISTIO}/virtualservices/{names.challenge_route_name(hostname)}")
    assert not await there(issuing, f"{ISTIO}/gateways/{names.gateway_name(hostname)}")
    assert (await domains.run(certificates.remove_certificate, target)).removed == ()


async def test_a_stopping_worker_leaves_at_once_and_another_goes_on(
    issuing: Lab, certificates: CertificateActivities
) -> None:
    target = domains.target("handed-over.h1.test")
    domains.point_here(issuing, "handed-over.h1.test")
    await domains.run(certificates.apply_certificate, target)
    heard = domains.Heard()
    waiting = asyncio.create_task(domains.run(certificates.await_certificate, target, environment=heard.environment))
    await heard.until("the challenge of")
    heard.environment.worker_shutdown()
    with pytest.raises(ApplicationError) as caught:
        await asyncio.wait_for(waiting, 5)
    assert not caught.value.non_retryable
    result = await domains.run(certificates.await_certificate, target)
    assert (result.ready, result.orders) == (True, 1)
    await domains.run(certificates.remove_certificate, target)


async def test_the_secret_of_somebody_else_is_neither_overwritten_nor_removed(
    issuing: Lab, certificates: CertificateActivities
) -> None:
    target = domains.target("collides.h1.test")
    metadata = {"name": names.secret_name("collides.h1.test"), "namespace": "istio-system"}
    await issuing.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"mine": "yes"}})
    path = f"/api/v1/namespaces/istio-system/secrets/{metadata['name']}"
    try:
        result = await domains.run(certificates.apply_certificate, target)
        assert [finding.code for finding in result.findings] == ["CW1407"]
        certificate = names.certificate_name("collides.h1.test")
        assert not await there(issuing, f"/apis/cert-manager.io/v1/namespaces/istio-system/certificates/{certificate}")
        assert (await domains.run(certificates.remove_certificate, target)).removed == ()
        assert await there(issuing, path)
    finally:
        await issuing.api.call("DELETE", path)


async def test_a_certificate_that_is_not_there_any_more_is_told(certificates: CertificateActivities) -> None:
    result = await domains.run(certificates.await_certificate, domains.target("never-applied.h1.test"))
    assert [finding.code for finding in result.findings] == ["CW1310"]
    assert "not there" in result.findings[0].problem


async def test_a_cert_manager_that_does_not_run_is_told_as_broken_surroundings(
    issuing: Lab, certificates: CertificateActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller is not stopped, since other tests need it: only its count is replaced."""

    async def none(_: watching.IssuanceWatch) -> int:
        return 0

    monkeypatch.setattr(watching.IssuanceWatch, "_controllers", none)
    target = domains.target("nobody.h1.test")
    domains.point_here(issuing, "nobody.h1.test", addresses=("127.0.0.9",))
    await domains.run(certificates.apply_certificate, target)
    with pytest.raises(ApplicationError, match="controller is not running") as caught:
        await domains.run(certificates.await_certificate, target)
    assert not caught.value.non_retryable
    await domains.run(certificates.remove_certificate, target)


async def test_a_missing_permission_is_told_with_the_rule_to_add(
    issuing: Lab, certificates: CertificateActivities, tmp_path: Path
) -> None:
    name = "h1-no-challenges"
    target: CertificateTarget = domains.target("permitted.h1.test")
    await account(issuing, name)
    kubeconfig = await service_account_kubeconfig(issuing, "istio-system", name, tmp_path / name)
    domains.point_here(issuing, "permitted.h1.test")
    await domains.run(certificates.apply_certificate, target)
    try:
        async with kubernetes.connect(str(kubeconfig)) as cluster:
            with pytest.raises(ApplicationError) as caught:
                await domains.run(CertificateActivities(cluster).await_certificate, target)
    finally:
        await domains.run(certificates.remove_certificate, target)
    (finding,) = caught.value.details
    assert caught.value.non_retryable
    assert finding.code == "CW1801"
    assert "watch challenges.acme.cert-manager.io in namespace istio-system" in finding.problem
    assert '"resources": ["challenges"], "verbs": ["watch"]' in finding.fix


async def account(lab: Lab, name: str) -> None:
    """An account that may do all that an issuance needs, but not watch Challenges."""
    group = "rbac.authorization.k8s.io"
    metadata = {"name": name, "namespace": "istio-system"}
    read = ["get", "list", "watch"]
    rules: list[Json] = [
        {"apiGroups": ["cert-manager.io"], "resources": ["certificates", "certificaterequests"], "verbs": read},
        {"apiGroups": ["acme.cert-manager.io"], "resources": ["orders"], "verbs": read},
        {"apiGroups": ["acme.cert-manager.io"], "resources": ["challenges"], "verbs": ["get", "list"]},
        {"apiGroups": ["networking.istio.io"], "resources": ["virtualservices"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["secrets", "services"], "verbs": read},
    ]
    await lab.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    await lab.apply({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules})
    await lab.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "istio-system"}],
        }
    )
