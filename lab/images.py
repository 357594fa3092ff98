"""What runs here for a container image.

An image's last path part decides (`quay.io/jetstack/cert-manager-webhook:v1.21.2` is the built
cert-manager-webhook). Each entry adds what a container would have had around it: a kubeconfig instead of the
in-cluster mount at an absolute path, other ports than the well-known ones (`lab.ports`), and for Istio's proxy the
Envoy and bootstrap of this machine. Flags are appended to the container's own, whose last mention wins.

Left out: command lines of images that are not listed; such Pods stay in ErrImagePull, as on a cluster that cannot
pull.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from lab.api import Json
from lab.ports import Ports, free_ports

ISTIOD_SERVICE = "istiod.istio-system.svc"
_DRAIN_SECONDS = 2

PROXY_ADMIN, PROXY_STATUS, PROXY_HEALTH, PROXY_PROMETHEUS = 15000, 15020, 15021, 15090


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How one container runs: program, flags to append, variables to set (None unsets), real ports."""

    program: tuple[str, ...]
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    ports: Mapping[int, int] = dataclasses.field(default_factory=dict)
    claims: frozenset[int] = frozenset()
    """Real ports of which only one Pod of the lab can have each."""
    solver: bool = False
    """An acmesolver: no process; the lab's listener answers for it."""


class UnknownImageError(Exception):
    """No program of this machine stands for the image."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The programs of one lab: `binaries` is a directory, `envoy` a program, `bootstrap` Istio's Envoy template.

    `variables` are added to a program's environment, by its name in `binaries` ("pilot-discovery").
    """

    binaries: Path
    envoy: Path
    bootstrap: Path
    ports: Ports
    variables: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    def launch(self, image: str, container: Json, environment: Mapping[str, str], kubeconfig: Path) -> Launch:
        """How to run `container` of `image`, given its resolved environment and its Pod's kubeconfig.

        Raises UnknownImageError.
        """
        name = short_name(image)
        for pattern, build in _IMAGES:
            if re.fullmatch(pattern, name):
                launch = build(self, container, environment, kubeconfig)
                if not launch.solver and not Path(launch.program[0]).exists():
                    raise UnknownImageError(f"{Path(launch.program[0]).name} is not built")
                extra = self.variables.get(Path(launch.program[0]).name if launch.program else "", {})
                return dataclasses.replace(launch, environment={**launch.environment, **extra})
        raise UnknownImageError(f"no program of the lab stands for image {image}")

    def binary(self, name: str) -> tuple[str, ...]:
        """The program `name` among the lab's binaries."""
        return (str(self.binaries / name),)


def short_name(image: str) -> str:
    """An image's last path part, without tag and digest."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def declared_ports(container: Json) -> list[int]:
    """The containerPorts of a container."""
    return [int(port["containerPort"]) for port in container.get("ports") or []]


def _flag(container: Json, name: str) -> str | None:
    for argument in container.get("args") or []:
        if argument.startswith(f"--{name}="):
            return str(argument.partition("=")[2])
    return None


def _controller(images: Images, container: Json, _: Mapping[str, str], kubeconfig: Path) -> Launch:
    metrics, health = free_ports(2)
    return Launch(
        program=images.binary("cert-manager-controller"),
        flags=(
            f"--kubeconfig={kubeconfig}",
            f"--metrics-listen-address=0.0.0.0:{metrics}",
            f"--healthz-listen-address=0.0.0.0:{health}",
        ),
        ports={9402: metrics, 9403: health},
    )


def _webhook(images: Images, container: Json, _: Mapping[str, str], kubeconfig: Path) -> Launch:
    metrics, health = free_ports(2)
    declared = int(_flag(container, "secure-port") or 10250)
    secure = images.ports.cert_manager_webhook if declared == 10250 else declared
    flags = [f"--kubeconfig={kubeconfig}", f"--secure-port={secure}", f"--healthz-port={health}"]
    if _flag(container, "metrics-listen-address") != "0":
        flags.append(f"--metrics-listen-address=0.0.0.0:{metrics}")
    return Launch(
        program=images.binary("cert-manager-webhook"),
        flags=tuple(flags),
        ports={declared: secure, 6080: health, 9402: metrics},
        claims=frozenset({secure}),
    )


def _cainjector(images: Images, container: Json, _: Mapping[str, str], kubeconfig: Path) -> Launch:
    (metrics,) = free_ports(1)
    flags = [f"--kubeconfig={kubeconfig}"]
    if _flag(container, "metrics-listen-address") != "0":
        flags.append(f"--metrics-listen-address=0.0.0.0:{metrics}")
    return Launch(program=images.binary("cert-manager-cainjector"), flags=tuple(flags), ports={9402: metrics})


def _startup_check(images: Images, container: Json, _: Mapping[str, str], kubeconfig: Path) -> Launch:
    return Launch(program=images.binary("cert-manager-startupapicheck"), environment={"KUBECONFIG": str(kubeconfig)})


def _solver(images: Images, container: Json, _: Mapping[str, str], kubeconfig: Path) -> Launch:
    return Launch(program=(), ports={8089: images.ports.solver}, solver=True)


def _istiod(images: Images, container: Json, _: Mapping[str, str], kubeconfig: Path) -> Launch:
    ports = dict(images.ports.istiod)
    (debug,) = free_ports(1)
    return Launch(
        program=images.binary("pilot-discovery"),
        flags=(
            f"--kubeconfig={kubeconfig}",
            f"--httpAddr=:{debug}",
            f"--grpcAddr=:{ports[15010]}",
            f"--secureGRPCAddr=:{ports[15012]}",
            f"--monitoringAddr=:{ports[15014]}",
            f"--httpsAddr=:{ports[15017]}",
            "--ctrlz_port=0",
            "--shutdownDuration=1s",
        ),
        environment={
            "KUBECONFIG": str(kubeconfig),
            "PILOT_ENABLE_METADATA_EXCHANGE": "false",
            "PILOT_ENABLE_ALPN_FILTER": "false",
            "ISTIOD_CUSTOM_HOST": "localhost",
        },
        ports={**ports, 8080: debug},
        claims=frozenset(ports.values()),
    )


def _proxy(images: Images, container: Json, environment: Mapping[str, str], kubeconfig: Path) -> Launch:
    admin, status, health, prometheus = free_ports(4)
    proxy = json.loads(environment.get("PROXY_CONFIG") or "{}")
    proxy |= {
        "binaryPath": str(images.envoy),
        # "localhost" also makes pilot-agent expect istiod's certificate for its Service's name
        "discoveryAddress": f"localhost:{images.ports.istiod_xds}",
        "proxyAdminPort": admin,
        "statusPort": status,
        "terminationDrainDuration": f"{_DRAIN_SECONDS}s",
    }
    return Launch(
        program=images.binary("pilot-agent"),
        environment={
            "PROXY_CONFIG": json.dumps(proxy),
            "CA_ADDR": None,  # the discovery address serves certificates too
            "ISTIOD_SAN": ISTIOD_SERVICE,
            "ISTIO_BOOTSTRAP": str(images.bootstrap),
            "ENVOY_STATUS_PORT": str(health),
            "ENVOY_PROMETHEUS_PORT": str(prometheus),
            "PEER_METADATA_DISCOVERY": "false",
            "DNS_PROXY_ADDR": "localhost:0",
        },
        ports={
            PROXY_ADMIN: admin,
            PROXY_STATUS: status,
            PROXY_HEALTH: health,
            PROXY_PROMETHEUS: prometheus,
        },
    )


def _web(images: Images, container: Json, environment: Mapping[str, str], kubeconfig: Path) -> Launch:
    declared = declared_ports(container)
    given: dict[str, str | None] = {"APP_NAME": environment.get("APP_NAME") or container["name"]}
    if "PORT" not in environment and declared:
        given["PORT"] = str(declared[0])
    return Launch(program=(sys.executable, "-m", "lab.webapp"), environment=given, claims=frozenset(declared))


_Build = Callable[[Images, Json, Mapping[str, str], Path], Launch]
_IMAGES: tuple[tuple[str, _Build], ...] = (
    (r"cert-manager-controller", _controller),
    (r"cert-manager-webhook", _webhook),
    (r"cert-manager-cainjector", _cainjector),
    (r"cert-manager-acmesolver", _solver),
    (r"cert-manager-startupapicheck|cert-manager-ctl", _startup_check),
    (r"pilot", _istiod),
    (r"proxyv2|auto", _proxy),
    (r"certwright-lab-web", _web),
)
