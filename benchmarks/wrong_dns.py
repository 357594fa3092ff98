"""How often is the CA asked for a domain whose DNS is wrong for a day? Certwright, and cert-manager alone beside it.

`python -m benchmarks.wrong_dns` starts a lab (real cert-manager 1.21, istiod, Envoy, the CA pebble) and writes the
section "A day of wrong DNS" of `docs/benchmarks.md`. A name is wrong in four ways: it does not exist; it points to an
address where somebody else's web server answers; it is right for the cluster and points there for everybody else
(split horizon); or it points there for the CA alone, which nobody can see before. Every Order is seen by a watch, every
validation is a line of the CA's own log.

Certwright: its workflows on Temporal's test server, which skips a day of time; all activities are the real ones, on the
lab. Its resolvers are two that say what the CA is told too, and the zone's own server; for the fourth way they are
others, which are right.

cert-manager alone: a Certificate whose issuer has the solver that its documentation gives for gateways,
`gatewayHTTPRoute`; a name whose DNS is right is issued first, so its way is seen to work. The day is pretended in one
thing: each hour, `status.lastFailureTime` of the Certificate is set back by one hour. Whether that hour brings a new
attempt is cert-manager's own decision, by its own back-off. Where nothing has failed there is nothing to set back: such
a Certificate is watched for as long as the others take, and its self-check (every 10 s, for ever) is what goes on.

The lab's own shape: nobody here may open port 80, so the self-check goes through an HTTP proxy of this benchmark, which
looks the name up in the cluster's DNS and dials what that says, as the controller would without a proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import re
import sys
import tempfile
import textwrap
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from activities import kubernetes, lookups
from activities.preflight import PreflightActivities, PreflightSettings
from activities.temporal import leave
from benchmarks.onboarding import DOCUMENT, write
from lab.api import MERGE_PATCH
from lab.cluster import GATEWAY_ADDRESSES, Lab, LabError, run_lab
from lab.dns import DnsServer
from lab.ports import free_ports
from lifecycle import manifests, names, progress, queues
from lifecycle.domain import DomainStatus, IssuerRef, OnboardingRequest, Phase, Route
from lifecycle.steps import IssuerRequest, PreflightReport
from tests.workflows.conftest import skipping_server
from tests.workflows.pretended import busy
from worker import assembly
from worker.sandbox import workflow_runner
from worker.settings import Settings, load
from workflows.definitions import WORKFLOWS
from workflows.domain import DomainOnboarding

ZONE = "wrong-dns.com"
HOURS = 24
ELSEWHERE = "127.0.0.3"
"""An address of this machine that is not the gateway's, where somebody else's web server answers."""

OURS, ALONE = "Certwright", "cert-manager alone"
_NAMESPACE = "istio-system"
_CERTIFICATES = f"/apis/cert-manager.io/v1/namespaces/{_NAMESPACE}/certificates"
_SETTLE_SECONDS = 3.0
"""cert-manager sees a changed Certificate at once; a decision that has not come within this is that there is none."""

_LONGEST_SECONDS = 120.0
_GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "alone", "namespace": _NAMESPACE},
    "spec": {
        "gatewayClassName": "istio",
        "addresses": [{"type": "Hostname", "value": f"istio-ingressgateway.{_NAMESPACE}.svc.cluster.local"}],
        "listeners": [
            {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "Same"}}}
        ],
    },
}


class Wrong(StrEnum):
    """How the DNS is wrong."""

    NXDOMAIN = "nxdomain"
    ELSEWHERE = "elsewhere"
    SPLIT = "split"
    CA_ALONE = "ca-alone"


WORDS = {
    Wrong.NXDOMAIN: "the name does not exist",
    Wrong.ELSEWHERE: "it points to somebody else",
    Wrong.SPLIT: "right in the cluster only",
    Wrong.CA_ALONE: "wrong for the CA alone",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What one day brought for one name.

    Attributes:
        orders, authorizations: at the CA; an authorization is seen by its Challenge.
        validations: that the CA made, all of which failed.
        looks: Certwright's looks before an order; 0 for cert-manager alone.
        self_checks: requests of cert-manager's self-check; `watched` in how many seconds.
        attempts: at which hours an Order was made.
        afterwards: what became of it once the DNS was right.
    """

    who: str
    wrong: Wrong
    orders: int
    authorizations: int
    validations: int
    looks: int = 0
    self_checks: int = 0
    watched: float = 0.0
    attempts: tuple[int, ...] = ()
    afterwards: str = ""


def hostname(who: str, wrong: Wrong | None) -> str:
    """The name that is asked for."""
    return f"{'ours' if who == OURS else 'alone'}-{wrong.value if wrong else 'right'}.{ZONE}"


# --- the lab ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(slots=True, kw_only=True)
class Ground:
    """A lab with four views of the DNS: the CA's (the lab's own), two further resolvers', the cluster's.

    Attributes:
        resolver: says what the CA is told.
        distant: says what the CA is told, but where that is wrong for the CA alone.
        orders, challenges: hostnames by the uid of the object.
        at_the_ca: orders of a day by the CA's own log, by who asked.
    """

    lab: Lab
    resolver: DnsServer
    resolver_address: str
    distant: DnsServer
    distant_address: str
    cluster: DnsServer
    orders: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    challenges: dict[str, str] = dataclasses.field(default_factory=dict)
    self_checks: Counter[str] = dataclasses.field(default_factory=Counter)
    at_the_ca: dict[str, int] = dataclasses.field(default_factory=dict)

    def point(self, name: str, *, public: bool = True, distant: bool = True, cluster: bool = True) -> None:
        """Whether a name points here from now on: for the CA, for others outside, in the cluster."""
        views = ((self.lab.dns, public), (self.resolver, public), (self.distant, distant), (self.cluster, cluster))
        for server, right in views:
            server.set(name, "A", GATEWAY_ADDRESSES if right else (ELSEWHERE,))

    def break_(self, name: str, wrong: Wrong) -> None:
        """Make a name's DNS wrong."""
        if wrong is not Wrong.NXDOMAIN:
            inside = wrong in (Wrong.SPLIT, Wrong.CA_ALONE)
            self.point(name, public=False, distant=wrong is Wrong.CA_ALONE, cluster=inside)

    def made(self, name: str) -> tuple[int, int, int]:
        """Orders, authorizations and validations of a name so far."""
        log = (self.lab.directory / "logs" / "pebble.log").read_text(errors="replace")
        validations = len(re.findall(rf'Pulled a task from the Tasks queue.*?Value:"{re.escape(name)}"', log))
        orders = sum(name in hostnames for hostnames in self.orders.values())
        return orders, sum(one == name for one in self.challenges.values()), validations

    def orders_at_the_ca(self) -> int:
        """By the CA's own log."""
        log = (self.lab.directory / "logs" / "pebble.log").read_text(errors="replace")
        return len(re.findall(r"Added order ", log))

    async def watch(self, kind: str, take: Callable[[dict[str, Any]], None]) -> None:
        """See every object of an ACME kind, for ever."""
        async for _, item in self.lab.api.follow(f"/apis/acme.cert-manager.io/v1/{kind}"):
            if item:
                take(item)

    def take_order(self, item: dict[str, Any]) -> None:
        """Remember an Order."""
        if (item.get("status") or {}).get("url"):  # made at the CA
            self.orders[item["metadata"]["uid"]] = tuple(item["spec"].get("dnsNames") or ())

    def take_challenge(self, item: dict[str, Any]) -> None:
        """Remember a Challenge."""
        self.challenges[item["metadata"]["uid"]] = item["spec"]["dnsName"]


@contextlib.asynccontextmanager
async def ground(directory: Path) -> AsyncIterator[Ground]:
    """A lab with cert-manager, both issuers, and somebody else's web server."""
    async with contextlib.AsyncExitStack() as stack:
        lab = await stack.enter_async_context(run_lab(directory, progress=_said))
        servers = []
        for _ in range(3):
            server = DnsServer()
            address = await server.start(port=free_ports(1)[0])
            stack.push_async_callback(server.stop)
            servers.append((server, f"{address[0]}:{address[1]}"))
        (resolver, resolver_address), (distant, distant_address), (cluster, cluster_address) = servers
        for server in (lab.dns, resolver, distant, cluster):
            server.add_zone(ZONE)
            server.set(f"ns.{ZONE}", "A", ("127.0.0.1",))
        seen = Ground(
            lab=lab,
            resolver=resolver,
            resolver_address=resolver_address,
            distant=distant,
            distant_address=distant_address,
            cluster=cluster,
        )
        proxy = await _served(stack, _proxy(seen, cluster_address), "127.0.0.1", free_ports(1)[0])
        await _served(stack, _somebody_else(), ELSEWHERE, lab.http_port)
        await _cert_manager(lab, proxy=proxy, nameserver=cluster_address)
        for kind, take in (("orders", seen.take_order), ("challenges", seen.take_challenge)):
            watching = asyncio.create_task(seen.watch(kind, take))
            stack.callback(watching.cancel)
        yield seen


async def _served(stack: contextlib.AsyncExitStack, application: web.Application, address: str, port: int) -> str:
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, address, port).start()
    return f"http://{address}:{port}"


def _proxy(seen: Ground, nameserver: str) -> web.Application:
    """What the controller would meet by itself: the name as the cluster's DNS knows it, and port 80 there."""

    async def answer(request: web.Request) -> web.Response:
        name = (request.host or "").partition(":")[0]
        seen.self_checks[name] += 1
        addresses = await lookups.addresses_of(name, (nameserver,), 3.0)
        if not addresses:
            return web.Response(status=502, text=f"lookup {name}: no such host")
        url = f"http://{addresses[0]}:{seen.lab.http_port}{request.path}"
        async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:
            told = await client.get(url, headers={"Host": name})
        return web.Response(status=told.status_code, body=told.content)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    return application


def _somebody_else() -> web.Application:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=404, text="not found")

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    return application


async def _cert_manager(lab: Lab, *, proxy: str, nameserver: str) -> None:
    values = lab.cert_manager_values
    quick = "--dns01-check-retry-period"  # the lab's; left out, a self-check is made every 10 s as by default
    kept = [one for one in values["extraArgs"] if not one.startswith((quick, "--acme-http01-solver-nameservers"))]
    values |= {"http_proxy": proxy, "extraArgs": [*kept, f"--acme-http01-solver-nameservers={nameserver}"]}
    place = ("cert-manager", str(lab.programs.cert_manager_chart), "-n", "cert-manager", "--create-namespace")
    await lab.helm("install", *place, values=values)
    parts = ("cert-manager", "cert-manager-webhook", "cert-manager-cainjector")
    await asyncio.gather(*(lab.deployment_available("cert-manager", name) for name in parts))
    await lab.apply(_GATEWAY)
    for name in ("ours", "alone"):
        wanted = IssuerRequest(
            ref=IssuerRef(name=name), server=lab.acme_directory, ca_bundle=lab.acme_ca.read_text(), profile="default"
        )
        issuer = manifests.acme_issuer(wanted)
        if name == "alone":
            parent = {"name": "alone", "namespace": _NAMESPACE, "kind": "Gateway"}
            issuer["spec"]["acme"]["solvers"] = [{"http01": {"gatewayHTTPRoute": {"parentRefs": [parent]}}}]
        await lab.apply_when_answered(issuer)
        await lab.until("/apis/cert-manager.io/v1/clusterissuers", _ready(name))


def _ready(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda item: item["metadata"]["name"] == name and _condition(item, "Ready") == "True"


def _condition(item: dict[str, Any], kind: str) -> str:
    conditions = (item.get("status") or {}).get("conditions") or []
    return next((str(one["status"]) for one in conditions if one["type"] == kind), "")


# --- cert-manager alone -----------------------------------------------------------------------------------------------


async def cert_manager_alone(seen: Ground) -> list[Counted]:
    """A day of each, side by side."""
    right = hostname(ALONE, None)
    seen.point(right)
    await _ask_alone(seen.lab, right)
    await seen.lab.until(_CERTIFICATES, _ready(_object(right)), seconds=_LONGEST_SECONDS)
    began, before = asyncio.get_running_loop().time(), seen.orders_at_the_ca()
    for wrong in Wrong:
        seen.break_(hostname(ALONE, wrong), wrong)
        await _ask_alone(seen.lab, hostname(ALONE, wrong))
    failing = (Wrong.SPLIT, Wrong.CA_ALONE)
    days = await asyncio.gather(*(_day_alone(seen, hostname(ALONE, wrong)) for wrong in failing))
    attempts = dict(zip(failing, days, strict=True))
    watched = asyncio.get_running_loop().time() - began
    seen.at_the_ca[ALONE] = seen.orders_at_the_ca() - before
    counted = []
    for wrong in Wrong:
        name = hostname(ALONE, wrong)
        orders, authorizations, validations = seen.made(name)
        one = Counted(
            who=ALONE,
            wrong=wrong,
            orders=orders,
            authorizations=authorizations,
            validations=validations,
            self_checks=seen.self_checks[name],
            watched=watched,
            attempts=tuple(attempts.get(wrong, (0,))),
        )
        counted.append(dataclasses.replace(one, afterwards=await _afterwards_alone(seen, one)))
    return counted


def _object(name: str) -> str:
    return name.partition(".")[0]


async def _ask_alone(lab: Lab, name: str) -> None:
    own = _object(name)
    await lab.apply_when_answered(
        {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": {"name": own, "namespace": _NAMESPACE},
            "spec": {
                "secretName": own,
                "dnsNames": [name],
                "issuerRef": {"kind": "ClusterIssuer", "name": "alone"},
            },
        }
    )


async def _day_alone(seen: Ground, name: str) -> list[int]:
    """The hours at which an Order was made: each hour the last failure is set back by one."""
    own, attempts = _object(name), [0]
    failures = await _failed(seen.lab, own, 0)
    for hour in range(1, HOURS):
        certificate = await _set_back(seen.lab, own)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                while _condition(certificate, "Issuing") != "True":
                    await asyncio.sleep(0.2)
                    certificate = await seen.lab.api.call("GET", f"{_CERTIFICATES}/{own}")
        if _condition(certificate, "Issuing") == "True":
            attempts.append(hour)
            failures = await _failed(seen.lab, own, failures)
        _said(f"{name}: hour {hour}, {len(attempts)} attempts")
    return attempts


async def _failed(lab: Lab, own: str, before: int) -> int:
    """How many failures there are, once there is one more."""

    def failed(item: dict[str, Any]) -> bool:
        status = item.get("status") or {}
        more = int(status.get("failedIssuanceAttempts") or 0) > before
        return bool(item["metadata"]["name"] == own and more and _condition(item, "Issuing") == "False")

    found = await lab.until(_CERTIFICATES, failed, seconds=_LONGEST_SECONDS)
    # times are told to the second: an attempt in the same one takes the failed request for its own
    await asyncio.sleep(_SETTLE_SECONDS)
    return int(found["status"]["failedIssuanceAttempts"])


async def _set_back(lab: Lab, own: str) -> dict[str, Any]:
    certificate = await lab.api.call("GET", f"{_CERTIFICATES}/{own}")
    earlier = datetime.fromisoformat(certificate["status"]["lastFailureTime"]) - timedelta(hours=1)
    body = {"status": {"lastFailureTime": earlier.isoformat(timespec="seconds").replace("+00:00", "Z")}}
    path = f"{_CERTIFICATES}/{own}"
    changed: dict[str, Any] = await lab.api.call("PATCH", f"{path}/status", body=body, content_type=MERGE_PATCH)
    return changed


async def _afterwards_alone(seen: Ground, one: Counted) -> str:
    """What comes of it within a minute of the DNS being right."""
    name = hostname(ALONE, one.wrong)
    seen.point(name)
    try:
        await seen.lab.until(_CERTIFICATES, _ready(_object(name)), seconds=60)
    except LabError:
        due = one.attempts[-1] + 2 ** (len(one.attempts) - 1)
        return f"waits on, until hour {due}"
    return "issued by the same Order" if seen.made(name)[0] == one.orders else "issued by another Order"


# --- Certwright -------------------------------------------------------------------------------------------------------


async def certwright(seen: Ground) -> list[Counted]:
    """A day of each, side by side, in skipped time."""
    async with skipping_server() as environment, _working(seen, environment.client):
        handles, before = {}, seen.orders_at_the_ca()
        for wrong in Wrong:
            request = OnboardingRequest(
                tenant="acme",
                hostnames=(hostname(OURS, wrong),),
                issuer=IssuerRef(name="ours"),
                routes=(Route(prefix="/", service="frontend-service", port=80),),
            )
            seen.break_(request.hostname, wrong)
            handles[wrong] = await environment.client.start_workflow(
                DomainOnboarding.run,
                progress.begin(request),
                id=f"{names.domain_id(request.hostname)}-{uuid.uuid4()}",
                task_queue=queues.WORKFLOWS,
            )
        for minute in range(HOURS * 60):
            await _rested(environment.client, handles[Wrong.CA_ALONE].id)
            await environment.sleep(timedelta(minutes=1))
            if minute % 60 == 59:
                _said(f"Certwright: hour {minute // 60 + 1}")
        seen.at_the_ca[OURS] = seen.orders_at_the_ca() - before
        counted = []
        for wrong, handle in handles.items():
            name = hostname(OURS, wrong)
            history = await handle.fetch_history()
            looks = sum(
                event.activity_task_scheduled_event_attributes.activity_type.name == "check_preflight"
                for event in history.events
            )
            orders, authorizations, validations = seen.made(name)
            seen.point(name)
            client = environment.client
            afterwards = await _afterwards_ours(client, handle.id)
            counted.append(
                Counted(
                    who=OURS,
                    wrong=wrong,
                    orders=orders,
                    authorizations=authorizations,
                    validations=validations,
                    looks=looks,
                    afterwards=f"{afterwards}, {seen.made(name)[0] - orders} Order",
                )
            )
        return counted


async def _rested(client: Client, workflow_id: str) -> None:
    """Until a workflow does nothing: an issuance takes real time, and a call that skips time has half a minute."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_SECONDS):
            while await busy(client, workflow_id):  # noqa: ASYNC110 - a history is no event
                await asyncio.sleep(0.2)


class Looks:
    """The real look before an order, by the resolvers that are told of a name what is meant for it."""

    def __init__(self, near: PreflightActivities, distant: PreflightActivities) -> None:
        self._near = near
        self._distant = distant

    @activity.defn
    async def check_preflight(self, request: OnboardingRequest) -> PreflightReport:
        """As `PreflightActivities`."""
        hidden = request.hostname == hostname(OURS, Wrong.CA_ALONE)
        return await (self._distant if hidden else self._near).check_preflight(request)


async def _afterwards_ours(client: Client, workflow_id: str) -> str:
    """What comes of it once somebody asks for a check."""
    handle = client.get_workflow_handle(workflow_id)
    await handle.execute_update(DomainOnboarding.check_now, "acme")
    status: DomainStatus | None = None
    async with asyncio.timeout(_LONGEST_SECONDS):
        while status is None or status.phase is not Phase.ACTIVE:
            await asyncio.sleep(0.5)
            with contextlib.suppress(Exception):  # the test server loses questions; it is asked again
                status = await handle.query(DomainOnboarding.status, rpc_timeout=timedelta(seconds=2))
    return "active"


@contextlib.asynccontextmanager
async def _working(seen: Ground, client: Client) -> AsyncIterator[None]:
    """Workers with all real activities of a domain; the test server knows no versions of workers."""
    lab = seen.lab
    environment = {
        "CERTWRIGHT_QUEUES": "workflows,cluster,probe",
        "CERTWRIGHT_KUBECONFIG": str(lab.kubeconfig),
        "CERTWRIGHT_EDGE_HTTP_PORT": str(lab.http_port),
        "CERTWRIGHT_EDGE_HTTPS_PORT": str(lab.https_port),
        "CERTWRIGHT_EDGE_ROOTS_FILE": str(await lab.acme_root()),
        "CERTWRIGHT_EDGE_ALLOWED_NETWORKS": "127.0.0.0/8",
        "CERTWRIGHT_NAMESERVERS": f"{lab.dns_address},{seen.resolver_address}",
    }
    settings = load(environment)
    if not isinstance(settings, Settings):
        raise SystemExit(str(settings))

    def preflight(*nameservers: str) -> PreflightSettings:
        return PreflightSettings(
            nameservers=nameservers,
            http_port=settings.edge_http_port,
            allowed_networks=settings.allowed_networks,
            authority_port=int(nameservers[0].rpartition(":")[2]),  # the zone's own server; elsewhere that is port 53
        )

    async with contextlib.AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(kubernetes.connect(settings.kubeconfig))
        looks = Looks(
            PreflightActivities(cluster, preflight(*settings.nameservers)),
            PreflightActivities(cluster, preflight(seen.distant_address)),
        )
        provided = (looks, *assembly.providers(settings, cluster, client))
        for queue in settings.queues:
            of_workflows: dict[str, Any] = {"workflows": list(WORKFLOWS)} if queue == queues.WORKFLOWS else {}
            await stack.enter_async_context(
                Worker(
                    client,
                    task_queue=queue,
                    activities=assembly.activities_on(queue, provided),
                    workflow_runner=workflow_runner(),
                    max_heartbeat_throttle_interval=assembly.HEARTBEAT_THROTTLE,
                    **of_workflows,
                )
            )
        yield


# --- telling ----------------------------------------------------------------------------------------------------------


def told(counted: list[Counted], at_the_ca: dict[str, int]) -> str:
    """The section, in Markdown."""
    lines = [
        "## A day of wrong DNS",
        "",
        "`python -m benchmarks.wrong_dns`: a name whose DNS is wrong for 24 hours, asked for from Certwright and,",
        "beside it, from cert-manager 1.21 alone (a Certificate, the `gatewayHTTPRoute` solver). Orders are counted by",
        "a watch, validations in the CA's log. `benchmarks/wrong_dns.py` says at its top what of the day is pretended.",
        "",
        "| the DNS | who | looks before an order | Orders | authorizations | failed validations | once it is right |",
        "|---|---|---|---|---|---|---|",
    ]
    by_wrong = sorted(counted, key=lambda one: (list(Wrong).index(one.wrong), one.who != OURS))
    for one in by_wrong:
        looks = str(one.looks) if one.who == OURS else "-"
        lines.append(
            f"| {WORDS[one.wrong]} | {one.who} | {looks} | {one.orders} | {one.authorizations} | {one.validations} "
            f"| {one.afterwards} |"
        )
    alone = {one.wrong: one for one in counted if one.who == ALONE}
    seen_before = [one for one in counted if one.wrong is not Wrong.CA_ALONE]
    held, split = alone[Wrong.ELSEWHERE], alone[Wrong.SPLIT]
    hours = ", ".join(map(str, split.attempts))

    def both(count: Callable[[Counted], int]) -> str:
        ours, theirs = (sum(count(one) for one in seen_before if one.who == who) for who in (OURS, ALONE))
        return f"{ours} to {theirs}"

    made = sum(one.orders for one in counted)
    # seen in its log: "optimistic locking" on the Order, and a second order in the CA's log in the same second
    again = f" (of {made} Orders: where its write of an Order meets a conflict, cert-manager orders anew)"
    differs = again if sum(at_the_ca.values()) > made else ""
    words = (
        f"Of what can be seen before: Orders {both(lambda one: one.orders)}, failed validations "
        f"{both(lambda one: one.validations)}. Where cert-manager's self-check passes, its attempts came at the hours "
        f"{hours}, by its back-off of 1, 2, 4, 8, 16 h. Where it does not pass, one Order stays open, and whoever has "
        f"the address is asked by HTTP for as long: {held.self_checks} times in {held.watched:.0f} s. What the CA "
        "alone is told nobody can see before: there an order is made, and after a failure the next by the pace that "
        f"Let's Encrypt advises. All four together, by the CA's own log: {at_the_ca[OURS]} orders to {at_the_ca[ALONE]}"
        f"{differs}."
    )
    lines += ["", *textwrap.wrap(words, 118)]
    return "\n".join(lines) + "\n"


def _said(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


async def _main(directory: Path) -> tuple[list[Counted], dict[str, int]]:
    async with ground(directory) as seen:
        alone = await cert_manager_alone(seen)
        ours = await certwright(seen)
        return [*ours, *alone], seen.at_the_ca


def main() -> int:
    """Measure, print and write; 1 where Certwright asked the CA for what could be seen to be wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wrong_dns", description="A day of wrong DNS.")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON, and do not write the document")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        counted, at_the_ca = asyncio.run(_main(Path(directory) / "lab"))
    if given.json:
        days = [dataclasses.asdict(one) for one in counted]
        print(json.dumps({"days": days, "orders_at_the_ca": at_the_ca}, indent=2))
    else:
        section = told(counted, at_the_ca)
        print(section)
        write(section, DOCUMENT)
    ours = (one for one in counted if one.who == OURS and one.wrong is not Wrong.CA_ALONE)
    return 1 if any(one.orders or one.validations for one in ours) else 0


if __name__ == "__main__":
    leave(main())
