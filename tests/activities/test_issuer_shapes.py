"""Every shape of an issuer passes the real webhook; Secrets are seen before; the solver is the one that was told."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio.dynamic import DynamicClient
from temporalio.testing import ActivityEnvironment

from activities import kubernetes
from activities.issuers import IssuerActivities
from lab.accounts import service_account_kubeconfig
from lab.api import APPLY, ApiError
from lab.cluster import ACME_EAB_KEY_ID, DNS_KEY_NAME, Lab
from lifecycle import solvers
from lifecycle.domain import IssuerKind, IssuerRef
from lifecycle.issuer_requests import parse_issuer
from lifecycle.issuers import issuer_manifest
from lifecycle.steps import IssuerQuestion, IssuerRequest, IssuerStatus
from starter import credentials
from tests.activities.test_issuers import applied, set_up
from tests.lifecycle.issuer_shapes import SHAPES, document

pytestmark = pytest.mark.lab

RBAC = Path(__file__).parents[2] / "deploy" / "rbac.yaml"


async def account(lab: Lab, name: str) -> Path:
    for one in yaml.safe_load_all(RBAC.read_text()):
        await lab.apply(one)
    return await service_account_kubeconfig(lab, "certwright", name, lab.directory / f"shapes-{name}")


@pytest.fixture(scope="module")
async def installer(lab: Lab) -> AsyncIterator[DynamicClient]:
    """As the account that applies issuers."""
    async with kubernetes.connect(str(await account(lab, "certwright-installer"))) as connected:
        yield connected


@pytest.fixture
def issuers(installer: DynamicClient) -> IssuerActivities:
    return IssuerActivities(installer, longest_seconds=20)


def request(lab: Lab, name: str, **fields: Any) -> IssuerRequest:
    """An issuer of the lab's CA, or of another type where the fields say so."""
    types = {"ca", "selfsigned", "vault", "venafi"} & set(fields)
    acme = {} if types else {"server": lab.acme_directory, "ca_bundle": lab.acme_ca.read_text()}
    parsed = parse_issuer({"name": name, **acme, **fields})
    assert isinstance(parsed, IssuerRequest), parsed
    return parsed


async def written(lab: Lab, name: str, namespace: str = "cert-manager", **values: str) -> None:
    """A Secret, as the command line writes it."""
    found = credentials.Credentials(values={key.replace("_", "-"): value.encode() for key, value in values.items()})
    await credentials.write(str(lab.kubeconfig), namespace, name, found, replace=True)


@pytest.mark.parametrize("name", SHAPES)
async def test_the_server_takes_a_shape_with_every_field(lab: Lab, name: str) -> None:
    parsed = parse_issuer(document(name, pem=lab.acme_ca.read_text()))
    assert isinstance(parsed, IssuerRequest), parsed
    made = issuer_manifest(parsed)
    plural = f"{made['kind'].lower()}s"
    scope = f"/namespaces/{parsed.ref.namespace}" if parsed.ref.namespace else ""
    path = f"/apis/cert-manager.io/v1{scope}/{plural}/{name}"
    # strict: a field that the server does not know is refused, not dropped
    query = {"fieldManager": "certwright", "force": "true", "dryRun": "All", "fieldValidation": "Strict"}
    for attempt in range(50):
        try:
            taken = await lab.api.call("PATCH", path, body=made, query=query, content_type=APPLY)
            break
        except ApiError as error:
            if error.status != 500 or attempt == 49:  # the webhook answers a moment after its Pod is ready
                raise
            await asyncio.sleep(0.2)
    assert made["spec"] == {**taken["spec"]} or missing(made["spec"], taken["spec"]) == []


def missing(wanted: Any, taken: Any, path: str = "spec") -> list[str]:
    """What was asked for and is not as asked in what the server took; its defaults beside are its own."""
    if isinstance(wanted, dict) and isinstance(taken, dict):
        return [one for key in wanted for one in missing(wanted[key], taken.get(key), f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(taken, list) and len(wanted) == len(taken):
        return [one for pair in zip(wanted, taken, strict=True) for one in missing(*pair, f"{path}[]")]
    return [] if wanted == taken else [f"{path}: {wanted!r} became {taken!r}"]


# --- Secrets ----------------------------------------------------------------------------------------------------------


def tsig(lab: Lab, secret: str) -> dict[str, Any]:
    return {
        "rfc2136": {"nameserver": lab.dns_address, "tsig_key_name": DNS_KEY_NAME.rstrip("."), "tsig_secret": secret}
    }


async def exists(lab: Lab, name: str) -> bool:
    try:
        await lab.api.call("GET", f"/apis/cert-manager.io/v1/clusterissuers/{name}")
    except ApiError:
        return False
    return True


async def test_a_secret_that_is_missing_elsewhere_or_lacks_a_key_is_told_before_anything_is_applied(
    lab: Lab, issuers: IssuerActivities
) -> None:
    wanted = request(lab, "i4-dns", solvers=[{"dns01": tsig(lab, "i4-tsig")}])
    for namespace, key, words in (
        ("", "", "is not there"),
        ("istio-system", "tsig_secret_key", "lies in istio-system instead"),
        ("cert-manager", "tsig", "lacks the key tsig-secret-key"),
    ):
        if namespace:
            await written(lab, "i4-tsig", namespace, **{key: lab.dns_key})
        status = await applied(issuers, wanted)
        assert [finding.code for finding in status.findings] == ["CW1206"]
        assert words in status.findings[0].problem
        assert not await exists(lab, "i4-dns")
        assert lab.dns_key not in repr(status)
    await written(lab, "i4-tsig", tsig_secret_key=lab.dns_key)
    status = await set_up(issuers, wanted)
    assert (status.ready, status.findings, status.wildcard) == (True, (), True)


async def test_where_the_worker_may_not_look_that_is_a_warning_with_the_rule_to_add(lab: Lab) -> None:
    await written(lab, "i4-unseen", tsig_secret_key=lab.dns_key)
    wanted = request(lab, "i4-unseen", solvers=[{"dns01": tsig(lab, "i4-unseen")}])
    async with kubernetes.connect(str(await account(lab, "certwright-worker"))) as cluster:
        status = await applied(IssuerActivities(cluster), wanted)
    assert [finding.code for finding in status.findings] == ["CW1207"]
    assert '"resources": ["secrets"], "verbs": ["get"]' in status.findings[0].fix
    assert await exists(lab, "i4-unseen")


# --- types ------------------------------------------------------------------------------------------------------------


async def test_an_account_is_reused_by_its_key_and_bound_to_an_external_one(
    lab: Lab, issuers: IssuerActivities
) -> None:
    await written(lab, "i4-eab", secret=lab.acme_eab_key)
    eab = {"key_id": ACME_EAB_KEY_ID, "secret": "i4-eab"}
    first = await set_up(issuers, request(lab, "i4-bound", account_secret="i4-account", eab=eab))
    assert (first.ready, first.findings) == (True, ())
    again = await set_up(issuers, request(lab, "i4-reused", account_secret="i4-account", reuse_account=True))
    assert (again.ready, again.account) == (True, first.account)
    none = await applied(issuers, request(lab, "i4-no-key", account_secret="i4-nothing", reuse_account=True))
    assert [finding.code for finding in none.findings] == ["CW1206"]


async def test_a_wrong_external_key_is_told_in_the_cas_words(lab: Lab, issuers: IssuerActivities) -> None:
    wrong = base64.urlsafe_b64encode(b"\0" * 32).decode().rstrip("=")
    await written(lab, "i4-wrong-eab", secret=wrong)
    status = await set_up(issuers, request(lab, "i4-wrong", eab={"key_id": ACME_EAB_KEY_ID, "secret": "i4-wrong-eab"}))
    assert [finding.code for finding in status.findings] == ["CW1203"]
    assert wrong not in repr(status)


async def test_a_ca_and_a_self_signed_issuer_get_ready_without_an_account(lab: Lab, issuers: IssuerActivities) -> None:
    root = credentials.gathered((), {}, generate="I4 Root")
    assert (await credentials.write(str(lab.kubeconfig), "cert-manager", "i4-root", root, replace=False)).changed
    assert not (await credentials.write(str(lab.kubeconfig), "cert-manager", "i4-root", root, replace=False)).changed
    for name, fields in (("i4-ca", {"ca": {"secret": "i4-root"}}), ("i4-self", {"selfsigned": {}})):
        status = await set_up(issuers, request(lab, name, **fields))
        assert (status.ready, status.findings, status.account, status.wildcard) == (True, (), "", True)


async def test_a_secret_that_is_no_cas_is_told(lab: Lab, issuers: IssuerActivities) -> None:
    await written(lab, "i4-broken-root", **{"tls.crt": "nonsense", "tls.key": "nonsense"})
    status = await set_up(issuers, request(lab, "i4-broken", ca={"secret": "i4-broken-root"}))
    assert [finding.code for finding in status.findings] == ["CW1204"]


async def test_a_vault_that_does_not_answer_is_told(lab: Lab, issuers: IssuerActivities) -> None:
    await written(lab, "i4-vault", token="hvs.lab")
    vault = {"server": "https://127.0.0.1:1", "path": "pki/sign/x", "auth": {"token": "i4-vault"}}
    status = await set_up(issuers, request(lab, "i4-vault", vault=vault))
    assert [finding.code for finding in status.findings] == ["CW1202"]
    assert "hvs.lab" not in repr(status)


async def test_issuers_are_looked_at_one_or_all(lab: Lab, issuers: IssuerActivities) -> None:
    await set_up(issuers, request(lab, "i4-seen", selfsigned={}))
    run = ActivityEnvironment().run
    one = (await run(issuers.inspect_issuers, IssuerQuestion(ref=IssuerRef(name="i4-seen")))).issuers
    assert [(status.ref.name, status.ready, status.type) for status in one] == [("i4-seen", True, "selfSigned")]
    everything = await run(issuers.inspect_issuers, IssuerQuestion())
    assert "i4-seen" in {status.ref.name for status in everything.issuers}
    nobody = IssuerRef(name="i4-nobody", kind=IssuerKind.ISSUER, namespace="default")
    absent = (await run(issuers.inspect_issuers, IssuerQuestion(ref=nobody))).issuers[0]
    assert [finding.code for finding in absent.findings] == ["CW1201"]


# --- which solver -----------------------------------------------------------------------------------------------------

SOLVERS: list[dict[str, Any]] = [
    {"http01": "virtual-service"},
    {"dns01": {}, "selector": {"dns_zones": ["pick.test"]}},
    {"http01": {"ingress_class": "two"}, "selector": {"dns_zones": ["shop.pick.test", "pick.test"]}},
    {"http01": {"ingress_class": "three"}, "selector": {"dns_names": ["www.pick.test", "shop.pick.test"]}},
    {"http01": {"ingress_class": "four"}, "selector": {"dns_names": ["www.pick.test"], "dns_zones": ["pick.test"]}},
    {"http01": {"ingress_class": "five"}, "selector": {"match_labels": {"tier": "gold"}}},
    {"dns01": {}, "cname_strategy": "follow", "selector": {"match_labels": {"tier": "gold", "team": "a"}}},
    {"http01": {"ingress_class": "seven"}, "selector": {"dns_names": ["www.pick.test"], "match_labels": {"tier": "b"}}},
    {"dns01": {}, "wait_seconds": 5},
    {"http01": {"ingress_class": "nine"}, "selector": {"dns_names": ["UPPER.pick.test"]}},
]
NAMES: tuple[tuple[str, dict[str, str]], ...] = (
    ("other.test", {}),
    ("other.test", {"tier": "gold"}),
    ("other.test", {"tier": "gold", "team": "a"}),
    ("pick.test", {}),
    ("a.pick.test", {"tier": "gold", "team": "a"}),
    ("a.shop.pick.test", {}),
    ("shop.pick.test", {}),
    ("www.pick.test", {}),
    ("www.pick.test", {"tier": "b"}),
    ("*.pick.test", {}),
    ("*.shop.pick.test", {}),
    ("*.other.test", {}),
    ("*.other.test", {"tier": "gold", "team": "a"}),
    ("badpick.test", {}),
    ("upper.pick.test", {}),
)


@pytest.fixture
def picking(lab: Lab) -> IssuerRequest:
    """An issuer with many solvers. None of the names can be proved, so its Challenges stay to be looked at."""
    made = [one if "http01" in one else {**one, "dns01": tsig(lab, "i4-pick")} for one in SOLVERS]
    return request(lab, "i4-pick", solvers=made)


async def test_cert_manager_picks_the_solver_that_is_explained(
    lab: Lab, issuers: IssuerActivities, picking: IssuerRequest
) -> None:
    await written(lab, "i4-pick", tsig_secret_key=lab.dns_key)
    status: IssuerStatus = await set_up(issuers, picking)
    assert status.ready, status
    listed = json.loads(status.solvers)
    base = "/apis/cert-manager.io/v1/namespaces/default/certificates"
    challenges = "/apis/acme.cert-manager.io/v1/namespaces/default/challenges"

    async def picked(number: int, hostname: str, labels: dict[str, str]) -> dict[str, Any]:
        name = f"i4-pick-{number}"
        await lab.apply_when_answered(
            {
                "apiVersion": "cert-manager.io/v1",
                "kind": "Certificate",
                "metadata": {"name": name, "namespace": "default", "labels": {**solvers.OWN_LABELS, **labels}},
                "spec": {
                    "secretName": name,
                    "dnsNames": [hostname],
                    "issuerRef": {"name": picking.ref.name, "kind": "ClusterIssuer"},
                    "privateKey": {"algorithm": "ECDSA", "size": 256},
                },
            }
        )

        def ours(item: dict[str, Any]) -> bool:
            return any(
                owner["name"].startswith(f"{name}-") and owner["name"].count("-") == name.count("-") + 2
                for owner in item["metadata"].get("ownerReferences") or []
            )

        found = await lab.until(challenges, ours)
        return dict(found["spec"]["solver"])

    try:
        seen = await asyncio.gather(*(picked(number, *one) for number, one in enumerate(NAMES)))
    finally:
        for number in range(len(NAMES)):
            await lab.api.call("DELETE", f"{base}/i4-pick-{number}")
    told = [solvers.explain(hostname, listed, {**solvers.OWN_LABELS, **labels}) for hostname, labels in NAMES]
    assert [listed[one.number] for one in told] == seen
    assert len({one.number for one in told}) == len(SOLVERS) - 1  # seven's names always have a better one
