"""Every state in which an issuance gets stuck, made to happen, is told by its one cause, and healed by its remedy.

Nobody watches these issuances but the diagnosis itself: where a challenge must be routed it is its remedy that does it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from activities import diagnosis, kubernetes
from activities import issuance as watching
from activities.certificates import CertificateActivities
from activities.gateways import GatewayActivities
from activities.snapshot import CertificatePlace, find_certificate
from lab.accounts import service_account_kubeconfig
from lab.api import MERGE_PATCH, ApiError, Json
from lab.cluster import ACME_BLOCKED, GATEWAY_ADDRESSES, Lab
from lifecycle import names
from lifecycle.blame import Action
from lifecycle.domain import IssuerKind, IssuerRef
from tests.activities import domains
from tests.activities.ward import (
    CERTIFICATES,
    ISTIO,
    NAMESPACE,
    ZONE,
    Ward,
    asked,
    gone,
    having,
    issuer,
    place,
    ready,
    restored_request,
    target,
)

pytestmark = pytest.mark.lab


# --- nothing is wrong -------------------------------------------------------------------------------------------------


async def test_a_domain_that_is_issued_and_served_is_healthy(ward: Ward) -> None:
    async with asked(ward, f"well.{ZONE}") as here:
        done = await ward.healed(here)
        assert Action.ROUTE in done
        assert (await domains.run(GatewayActivities(ward.cluster).bind_gateway, target(f"well.{ZONE}"))).bound
        await asyncio.sleep(1.0)
        seen = await ward.look(here)
        assert (seen.healthy, seen.findings, seen.remedy) == (True, (), None)
        assert seen.summary == "issued, and served by every address"
        subjects = [link.subject.split()[0] for link in seen.chain]
        assert subjects[:2] == ["Certificate", "ClusterIssuer"]
        assert subjects.count("edge") == len(GATEWAY_ADDRESSES)
        await wrong_credential(ward, here)
        await secrets_forbidden(ward, here)
        await dns_taken_away(ward, here)


async def wrong_credential(ward: Ward, here: CertificatePlace) -> None:
    """Envoy is kept from its Secret by a Gateway that names another."""
    gateway = f"/apis/{ISTIO}/namespaces/{NAMESPACE}/gateways/{names.gateway_name(f'well.{ZONE}')}"
    servers = (await ward.lab.api.call("GET", gateway))["spec"]["servers"]
    wrong = [{**one, "tls": {**one["tls"], "credentialName": "nobody-tls"}} if "tls" in one else one for one in servers]
    body = {"spec": {"servers": wrong}}
    await ward.lab.api.call("PATCH", gateway, body=body, content_type=MERGE_PATCH)
    _, cause = await ward.until(here, "CW1550")
    assert cause.subject == f"Gateway {NAMESPACE}/{names.gateway_name(f'well.{ZONE}')}"
    assert here.name in cause.fix
    await ward.lab.api.call("PATCH", gateway, body={"spec": {"servers": servers}}, content_type=MERGE_PATCH)
    await ward.healed(here)


async def secrets_forbidden(ward: Ward, here: CertificatePlace) -> None:
    """Envoy is kept from its Secret by RBAC: the gateway's account lost its Role."""
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings"
    mine = [
        one
        for one in (await ward.lab.api.call("GET", bindings))["items"]
        if any(subject["name"] == "istio-ingressgateway" for subject in one.get("subjects") or ())
    ]
    assert mine
    for one in mine:
        await ward.lab.api.call("DELETE", f"{bindings}/{one['metadata']['name']}")
    try:
        _, cause = await ward.until(here, "CW1551")
        assert cause.subject == f"ServiceAccount {NAMESPACE}/istio-ingressgateway"
    finally:
        for one in mine:
            for part in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
                one["metadata"].pop(part, None)
            await ward.lab.api.call("POST", bindings, body=one)
    await ward.healed(here)


async def dns_taken_away(ward: Ward, here: CertificatePlace) -> None:
    """The customer changes the record of a domain that is served."""
    ward.lab.dns.set(here.asked, "A", ["127.0.0.9"])
    _, cause = await ward.until(here, "CW1102", "CW1102 served")
    assert cause.subject == here.asked
    assert f"{here.asked} A {GATEWAY_ADDRESSES[0]}" in cause.fix


# --- before anything is ordered ---------------------------------------------------------------------------------------


async def test_a_name_that_does_not_exist_is_told_with_the_record_to_set(ward: Ward) -> None:
    hostname = f"nowhere.{ZONE}"
    found = await find_certificate(ward.cluster, hostname, ward.settings.gateway)
    _, cause = await ward.until(found, "CW1101")
    assert cause.subject == hostname
    assert cause.fix == "Set " + " and ".join(f"{hostname} A {one}" for one in GATEWAY_ADDRESSES) + "."


async def test_a_certificate_that_is_not_there_is_told(ward: Ward) -> None:
    _, cause = await ward.until(CertificatePlace(namespace="default", name="nobody"), "CW1350")
    assert cause.subject == "Certificate default/nobody"


async def test_a_missing_issuer_is_told_and_healed_by_applying_it(ward: Ward) -> None:
    async with asked(ward, f"no-issuer.{ZONE}", IssuerRef(name="stuck-later")) as here:
        _, cause = await ward.until(here, "CW1201")
        assert cause.subject == "ClusterIssuer stuck-later"
        await issuer(ward, "stuck-later")
        await ward.healed(here)


async def test_an_issuer_in_another_namespace_is_told_with_both(ward: Ward) -> None:
    def elsewhere(document: Json) -> None:
        document["kind"] = "Issuer"
        document["metadata"]["namespace"] = "default"

    await issuer(ward, "stuck-elsewhere", elsewhere)
    ref = IssuerRef(name="stuck-elsewhere", kind=IssuerKind.ISSUER, namespace=NAMESPACE)
    async with asked(ward, f"elsewhere.{ZONE}", ref) as here:
        _, cause = await ward.until(here, "CW1201", "CW1201 other namespace")
        assert cause.subject == "Issuer default/stuck-elsewhere"
        assert NAMESPACE in cause.fix


async def test_an_account_key_that_is_none_is_told_by_its_secret(ward: Ward) -> None:
    path = "/api/v1/namespaces/cert-manager/secrets/stuck-key"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "stuck-key", "namespace": "cert-manager"},
        "data": {"tls.key": base64.b64encode(b"no key").decode()},
    }
    async with having(ward.lab, secret, path):

        def named(document: Json) -> None:
            document["spec"]["acme"]["privateKeySecretRef"] = {"name": "stuck-key"}

        ref = await issuer(ward, "stuck-keyless", named)
        async with asked(ward, f"keyless.{ZONE}", ref) as here:
            _, cause = await ward.until(here, "CW1250")
            assert cause.subject == "Secret cert-manager/stuck-key"
            await gone(ward.lab, path)
            await ward.healed(here)


# --- the order --------------------------------------------------------------------------------------------------------


async def test_a_ca_that_forbids_the_name_is_told_by_its_words(ward: Ward) -> None:
    async with asked(ward, f"shop.{ACME_BLOCKED}") as here:
        _, cause = await ward.until(here, "CW1312")
        assert cause.subject.startswith(f"Order {NAMESPACE}/{here.name}")


async def test_a_ca_that_does_not_answer_is_told(ward: Ward) -> None:
    async with ward.lab.faults.refused(), asked(ward, f"silent.{ZONE}") as here:
        _, cause = await ward.until(here, "CW1352")
        assert cause.subject.startswith(f"Order {NAMESPACE}/{here.name}")
        await ward.lab.faults.accept()
        await ward.healed(here)


async def test_an_issuer_without_a_solver_for_the_name_is_told(ward: Ward) -> None:
    def selective(document: Json) -> None:
        document["spec"]["acme"]["solvers"][0]["selector"] = {"dnsNames": ["other.test"]}

    ref = await issuer(ward, "stuck-selective", selective)
    async with asked(ward, f"unsolved.{ZONE}", ref) as here:
        _, cause = await ward.until(here, "CW1307")
        assert cause.subject == "ClusterIssuer stuck-selective"


async def test_a_deactivated_account_is_told_and_a_new_one_heals(ward: Ward) -> None:
    ref = await issuer(ward, "stuck-deactivated")
    account = (await ready(ward, ref.name))["status"]["acme"]["uri"]
    path = f"/api/v1/namespaces/cert-manager/secrets/{ref.name}-account"
    key = base64.b64decode((await ward.lab.api.call("GET", path))["data"]["tls.key"])
    await deactivate(ward.lab, account, key)
    async with asked(ward, f"deactivated.{ZONE}", ref) as here:
        _, cause = await ward.until(here, "CW1251")
        assert cause.subject == f"ClusterIssuer {ref.name}"
        await gone(ward.lab, path)
        await ready(ward, ref.name, other_than=account)
        await ward.renewed(here)
        await ward.healed(here)


async def deactivate(lab: Lab, account: str, pem: bytes) -> None:
    """As the account's owner (RFC 8555, sections 6.2 and 7.3.6)."""
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, rsa.RSAPrivateKey)

    def text(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    trust = ssl.create_default_context(cafile=str(lab.acme_ca))
    async with httpx.AsyncClient(verify=trust, trust_env=False) as http:
        directory = (await http.get(lab.acme_directory)).json()
        nonce = (await http.head(directory["newNonce"])).headers["replay-nonce"]
        protected = text(json.dumps({"alg": "RS256", "kid": account, "nonce": nonce, "url": account}).encode())
        payload = text(json.dumps({"status": "deactivated"}).encode())
        signature = key.sign(f"{protected}.{payload}".encode(), padding.PKCS1v15(), hashes.SHA256())
        body = {"protected": protected, "payload": payload, "signature": text(signature)}
        answer = await http.post(account, json=body, headers={"Content-Type": "application/jose+json"})
        assert answer.json()["status"] == "deactivated", answer.text


async def test_a_restored_request_in_the_way_is_told_and_its_removal_heals(ward: Ward) -> None:
    hostname = f"restored.{ZONE}"
    name, request = names.certificate_name(hostname), restored_request(hostname)
    path = f"/apis/cert-manager.io/v1/namespaces/{NAMESPACE}/certificaterequests/{name}-1"
    async with having(ward.lab, request, path), asked(ward, hostname) as here:
        seen, cause = await ward.until(here, "CW1309")
        assert cause.subject == f"CertificateRequest {NAMESPACE}/{name}-1"
        assert seen.remedy is not None
        assert (seen.remedy.action, seen.remedy.renew) == (Action.DELETE, True)
        done = await ward.healed(here)
        assert Action.DELETE in done


async def test_a_request_that_nobody_approves_is_told(ward: Ward) -> None:
    certificate = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "stuck-foreign", "namespace": "default"},
        "spec": {
            "secretName": "stuck-foreign",
            "dnsNames": [f"foreign.{ZONE}"],
            "issuerRef": {"group": "example.com", "kind": "Issuer", "name": "theirs"},
        },
    }
    path = "/apis/cert-manager.io/v1/namespaces/default/certificates/stuck-foreign"
    async with having(ward.lab, certificate, path):
        _, cause = await ward.until(CertificatePlace(namespace="default", name="stuck-foreign"), "CW1351")
        assert cause.subject == "CertificateRequest default/stuck-foreign-1"
        assert "issuers.example.com" in cause.fix


async def test_two_certificates_with_one_secret_are_told(ward: Ward) -> None:
    hostname = f"twice.{ZONE}"
    async with asked(ward, hostname) as here:
        other = {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": {"name": "stuck-twin", "namespace": NAMESPACE},
            "spec": {
                "secretName": names.secret_name(hostname),
                "dnsNames": [f"twin.{ZONE}"],
                "issuerRef": {"kind": "ClusterIssuer", "name": "nobody"},
            },
        }
        async with having(ward.lab, other, f"{CERTIFICATES}/stuck-twin"):
            _, cause = await ward.until(here, "CW1407")
            assert cause.subject == f"Certificate {NAMESPACE}/stuck-twin"
        await ward.healed(here)


# --- the challenge ----------------------------------------------------------------------------------------------------


async def test_a_name_that_points_elsewhere_is_the_cause_and_not_the_failed_challenge(ward: Ward) -> None:
    hostname = f"astray.{ZONE}"
    async with asked(ward, hostname, here=False) as here:
        certificates = CertificateActivities(ward.cluster)
        failed = await domains.run(certificates.await_certificate, target(hostname))
        assert [one.code for one in failed.findings] == ["CW1303", "CW1311", "CW1310"]
        _, cause = await ward.until(here, "CW1102")
        assert cause.subject == hostname
        ward.lab.dns.set(hostname, "A", GATEWAY_ADDRESSES)
        # the failure is past: what can be seen is free now, so that one attempt is offered
        seen, _ = await ward.until(here, "CW1303")
        assert seen.remedy is not None
        assert seen.remedy.action is Action.RENEW
        assert await ward.healed(here) == {Action.RENEW, Action.ROUTE}


async def test_a_challenge_that_nobody_routes_is_told_and_the_route_heals(ward: Ward) -> None:
    async with asked(ward, f"unrouted.{ZONE}") as here:
        seen, cause = await ward.until(here, "CW1355")
        assert cause.subject == f"VirtualService {NAMESPACE}/{names.challenge_route_name(here.asked)}"
        assert seen.remedy is not None
        assert seen.remedy.action is Action.ROUTE
        assert await ward.healed(here) == {Action.ROUTE}


async def test_a_redirect_of_another_gateway_is_told_by_that_gateway(ward: Ward) -> None:
    hostname = f"redirected.{ZONE}"
    gateway = {
        "apiVersion": ISTIO,
        "kind": "Gateway",
        # older than ours by name: Istio merges in the order of creation
        "metadata": {"name": "a-redirect", "namespace": "default"},
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "servers": [
                {
                    "port": {"number": 80, "name": "http", "protocol": "HTTP"},
                    "hosts": [hostname],
                    "tls": {"httpsRedirect": True},
                }
            ],
        },
    }
    path = f"/apis/{ISTIO}/namespaces/default/gateways/a-redirect"
    async with having(ward.lab, gateway, path), asked(ward, hostname) as here:
        await ward.until(here, "CW1355", "")
        _, done = await diagnosis.mended(ward.cluster, here, ward.settings)
        assert done
        _, cause = await ward.until(here, "CW1317")
        assert cause.subject == "Gateway default/a-redirect"
        await gone(ward.lab, path)
        await ward.healed(here)


async def test_a_policy_at_the_gateway_is_told_by_its_name(ward: Ward) -> None:
    hostname = f"forbidden.{ZONE}"
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "nobody-in", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"istio": "ingressgateway"}},
            "action": "DENY",
            "rules": [{"to": [{"operation": {"hosts": [hostname, f"{hostname}:*"]}}]}],
        },
    }
    path = f"/apis/security.istio.io/v1/namespaces/{NAMESPACE}/authorizationpolicies/nobody-in"
    await ward.lab.api.call(
        "POST", f"/apis/security.istio.io/v1/namespaces/{NAMESPACE}/authorizationpolicies", body=policy
    )
    try:
        async with asked(ward, hostname) as here:
            await ward.until(here, "CW1355", "")
            await diagnosis.mended(ward.cluster, here, ward.settings)
            _, cause = await ward.until(here, "CW1318")
            assert cause.subject == f"AuthorizationPolicy {NAMESPACE}/nobody-in"
            await gone(ward.lab, path)
            await ward.healed(here)
    finally:
        await gone(ward.lab, path)


def unscheduled(document: Json) -> None:
    ingress = document["spec"]["acme"]["solvers"][0]["http01"]["ingress"]
    ingress["podTemplate"] = {"spec": {"nodeSelector": {"kubernetes.io/os": "nowhere"}}}


async def test_a_solver_that_cannot_be_scheduled_is_told_by_its_pod(ward: Ward) -> None:
    ref = await issuer(ward, "stuck-unscheduled", unscheduled)
    async with asked(ward, f"unscheduled.{ZONE}", ref) as here:
        _, cause = await ward.until(here, "CW1354")
        assert cause.subject.startswith(f"Pod {NAMESPACE}/cm-acme-http-solver-")


async def test_a_solver_whose_service_lost_its_pod_is_told_and_a_new_challenge_heals(ward: Ward) -> None:
    async with asked(ward, f"lost.{ZONE}") as here:
        await ward.until(here, "CW1355", "")
        services = (await ward.lab.api.call("GET", f"/api/v1/namespaces/{NAMESPACE}/services"))["items"]
        (mine,) = [one for one in services if one["metadata"]["name"].startswith("cm-acme-http-solver")]
        path = f"/api/v1/namespaces/{NAMESPACE}/services/{mine['metadata']['name']}"
        other = {"spec": {"selector": {"acme.cert-manager.io/http-token": "another"}}}
        await ward.lab.api.call("PATCH", path, body=other, content_type=MERGE_PATCH)
        seen, cause = await ward.until(here, "CW1354", "CW1354 Service")
        assert cause.subject == f"Service {NAMESPACE}/{mine['metadata']['name']}"
        assert seen.remedy is not None
        assert seen.remedy.kind == "Challenge"
        assert Action.DELETE in await ward.healed(here)


async def test_a_solver_pod_that_was_killed_is_told_and_a_new_challenge_heals(ward: Ward) -> None:
    async with asked(ward, f"killed.{ZONE}") as here:
        await ward.until(here, "CW1355", "")
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        for pod in (await ward.lab.api.call("GET", pods))["items"]:
            if pod["metadata"]["name"].startswith("cm-acme-http-solver"):
                await ward.lab.api.call("DELETE", f"{pods}/{pod['metadata']['name']}")
        seen, cause = await ward.until(here, "CW1354", "CW1354 Pod killed")
        assert cause.subject.startswith(f"Challenge {NAMESPACE}/{here.name}")
        assert seen.remedy is not None
        assert seen.remedy.action is Action.DELETE
        assert Action.DELETE in await ward.healed(here)


async def test_a_cluster_that_refuses_the_solver_is_told_in_its_words(ward: Ward) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-more-pods", "namespace": NAMESPACE},
        "spec": {"hard": {"pods": "0"}},
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas/no-more-pods"
    async with having(ward.lab, quota, path):
        await asyncio.sleep(1.0)  # the controller has counted
        async with asked(ward, f"quota.{ZONE}") as here:
            _, cause = await ward.until(here, "CW1353")
            assert "exceeded quota" in cause.problem
            await gone(ward.lab, path)
            await ward.healed(here)


async def test_a_finalizer_that_stays_is_told_and_taken_away(ward: Ward) -> None:
    """A DNS provider's webhook is gone: its challenges can neither be presented nor cleaned up."""

    def provider(document: Json) -> None:
        webhook = {"groupName": "acme.gone.example", "solverName": "gone"}
        document["spec"]["acme"]["solvers"] = [{"dns01": {"webhook": webhook}}]

    hostname = f"kept.{ZONE}"
    ref = await issuer(ward, "stuck-provider", provider)
    async with asked(ward, hostname, ref) as here:
        _, cause = await ward.until(here, "CW1051", "CW1051 DNS-01 webhook")
        assert "acme.gone.example" in cause.problem
    # the domain begins anew with a solver that works, and its challenge waits for the old one to go
    async with asked(ward, hostname) as here:
        seen, cause = await ward.until(here, "CW1356")
        assert cause.subject.startswith(f"Challenge {NAMESPACE}/{here.name}")
        assert seen.remedy is not None
        assert seen.remedy.action is Action.RELEASE
        assert Action.RELEASE in await ward.healed(here)


# --- cert-manager itself ----------------------------------------------------------------------------------------------


async def test_a_controller_that_is_away_is_told(ward: Ward) -> None:
    async with ward.lab.stopped("cert-manager"), asked(ward, f"unattended.{ZONE}") as here:
        _, cause = await ward.until(here, "CW1050")
        assert cause.subject == "Deployment cert-manager/cert-manager"
        await ward.lab.faults.start("cert-manager")
        await ward.healed(here)


async def test_a_webhook_that_cannot_be_reached_is_told(ward: Ward) -> None:
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/cert-manager-webhook"
    right = (await ward.lab.api.call("GET", path))["webhooks"]
    wrong = copy.deepcopy(right)
    for one in wrong:
        one["clientConfig"]["service"]["port"] = 9443  # a port that the Service does not have
    async with asked(ward, f"unhooked.{ZONE}") as here:
        await ward.lab.api.call("PATCH", path, body={"webhooks": wrong}, content_type=MERGE_PATCH)
        try:
            _, cause = await ward.until(here, "CW1013")
            assert cause.subject == "Service cert-manager/cert-manager-webhook"
        finally:
            await ward.lab.api.call("PATCH", path, body={"webhooks": right}, content_type=MERGE_PATCH)
        await ward.healed(here)


async def test_a_permission_that_cert_manager_lost_is_told(ward: Ward) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    bindings = (await ward.lab.api.call("GET", path))["items"]
    (binding,) = [one for one in bindings if one["metadata"]["name"] == "cert-manager-controller-challenges"]
    await ward.lab.api.call("DELETE", f"{path}/{binding['metadata']['name']}")
    try:
        async with asked(ward, f"powerless.{ZONE}") as here:
            try:
                _, cause = await ward.until(here, "CW1051")
                assert cause.subject == "ServiceAccount cert-manager/cert-manager"
            finally:
                for part in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
                    binding["metadata"].pop(part, None)
                await ward.lab.api.call("POST", path, body=binding)
            await ward.healed(here)
    finally:
        with contextlib.suppress(ApiError):
            await ward.lab.api.call("POST", path, body=binding)


# --- the gateway ------------------------------------------------------------------------------------------------------


async def test_a_secret_that_the_gateway_cannot_see_is_told_by_its_certificate(ward: Ward) -> None:
    hostname = f"apart.{ZONE}"
    certificate = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "apart", "namespace": "default"},
        "spec": {"secretName": "apart-tls", "dnsNames": [hostname], "issuerRef": {"name": "self", "kind": "Issuer"}},
    }
    selfsigned = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Issuer",
        "metadata": {"name": "self", "namespace": "default"},
        "spec": {"selfSigned": {}},
    }
    gateway = {
        "apiVersion": ISTIO,
        "kind": "Gateway",
        "metadata": {"name": "apart", "namespace": "default"},
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "servers": [
                {
                    "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
                    "hosts": [hostname],
                    "tls": {"mode": "SIMPLE", "credentialName": "apart-tls"},
                }
            ],
        },
    }
    base = "/apis/cert-manager.io/v1/namespaces/default"
    async with (
        having(ward.lab, selfsigned, f"{base}/issuers/self"),
        having(ward.lab, certificate, f"{base}/certificates/apart"),
        having(ward.lab, gateway, f"/apis/{ISTIO}/namespaces/default/gateways/apart"),
    ):
        found = await find_certificate(ward.cluster, hostname, ward.settings.gateway)
        assert (found.namespace, found.name) == ("default", "apart")
        _, cause = await ward.until(found, "CW1408")
        assert cause.subject == "Certificate default/apart"
        assert NAMESPACE in cause.fix


# --- whoever asks -----------------------------------------------------------------------------------------------------


async def test_what_may_not_be_looked_at_is_a_warning(ward: Ward, tmp_path: Path) -> None:
    metadata = {"name": "stuck-nobody", "namespace": "default"}
    await ward.lab.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    kubeconfig = await service_account_kubeconfig(ward.lab, "default", "stuck-nobody", tmp_path / "nobody")
    async with kubernetes.connect(str(kubeconfig)) as cluster:
        seen = await diagnosis.diagnosed(cluster, place(f"well.{ZONE}"), ward.settings)
    assert "CW1801" in {one.code for one in seen.findings}
    assert {one.severity.value for one in seen.findings if one.code == "CW1801"} == {"warning"}


# --- whoever waits ----------------------------------------------------------------------------------------------------


async def test_who_waits_for_an_issuance_hears_what_is_to_blame(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the worker's own rights, which let it see less than an operator does."""
    monkeypatch.setattr(watching, "_STILL_SECONDS", 6.0)
    hostname = f"waited.{ZONE}"
    await ward.lab.apply_all(Path(__file__).parents[2] / "deploy" / "rbac.yaml")
    kubeconfig = await service_account_kubeconfig(ward.lab, "certwright", "certwright-worker", tmp_path / "worker")
    wanted = target(hostname, await issuer(ward, "stuck-waited", unscheduled))
    ward.lab.dns.set(hostname, "A", GATEWAY_ADDRESSES)
    heard = domains.Heard()
    async with kubernetes.connect(str(kubeconfig)) as cluster:
        issued = CertificateActivities(cluster).issue_certificate
        waiting = asyncio.create_task(domains.run(issued, wanted, environment=heard.environment, seconds=90))
        try:
            await heard.until("The solver's Pod does not run", seconds=60)
        finally:
            heard.environment.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await domains.run(CertificateActivities(ward.cluster).remove_certificate, wanted)
