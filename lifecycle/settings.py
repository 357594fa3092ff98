"""What does the environment say? Variables parsed into values, or refused with every reason at once.

Pure: whoever calls hands the variables over. What only the machine knows (whether a file is there) is for the caller,
who adds such reasons by `refuse`. A variable that resembles one of ours but is none is refused as a misspelling.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Mapping

from lifecycle.requests import FieldError

PREFIX = "CERTWRIGHT_"

KNOWN = {
    "QUEUES": "queues this worker serves: workflows, cluster, probe, platform (all of them by default)",
    "KUBECONFIG": "file that names the cluster (the Pod's own ServiceAccount by default)",
    "EDGE_HTTP_PORT": "port of the gateway for HTTP (80)",
    "EDGE_HTTPS_PORT": "port of the gateway for HTTPS (443)",
    "EDGE_ROOTS_FILE": "PEM file with the roots that served chains must lead to (the public ones by default)",
    "EDGE_ALLOWED_NETWORKS": "networks that may be dialled although they are not public",
    "EDGE_TIMEOUT": "longest wait for one connection to the edge (5s)",
    "EDGE_CLIENT_CERTIFICATE_FILE": "PEM file with the certificate that is shown to gateways which ask for one (none)",
    "EDGE_CLIENT_KEY_FILE": "PEM file with its key",
    "NAMESERVERS": "resolvers that customers' names are asked of (the system's by default)",
    "CNAME_TARGET": "name that customers may point a CNAME at",
    "DELEGATION_ZONE": "zone of ours that customers' _acme-challenge may lead to by CNAME, for DNS-01 (none)",
    "CAA_IDENTITIES": "names of the CA in CAA records (known for Let's Encrypt)",
    "LIMITS_FILE": "JSON or YAML file with the limits of CAs, before those that are known (Let's Encrypt's)",
    "DNS_TIMEOUT": "longest wait for one answer of a resolver (5s)",
    "HELM": "Helm's program (helm)",
    "CHART": "cert-manager's chart: an OCI reference or a directory (the official one by default)",
    "HELM_VALUES_FILE": "JSON or YAML file with further Helm values; no secrets",
    "BACKUP_DIRECTORY": "where backups are written (none: no backups)",
    "BACKUP_RECIPIENTS": "age public keys (age1...) that can open a backup",
    "BACKUP_IDENTITY_FILE": "file with the age identity that opens backups for verification and restore",
    "BACKUP_KEEP": "how many backups are kept (7)",
    "METRICS_ADDRESS": "where Prometheus metrics are served, as in 127.0.0.1:9464 (off by default)",
    "SHUTDOWN_GRACE": "how long running activities may go on after SIGTERM (20s)",
    "BUILD_ID": "version of the workflows' code, by which Temporal routes them (the one built in)",
    "PROMOTE": "yes: workflows begin on this worker's version as soon as it runs; no: an operator promotes it (yes)",
    "LOG_LEVEL": "debug, info, warning or error (info)",
    "LOG_FORMAT": "json or console (json)",
    "DEFAULT_ISSUER": "issuer where a request names none: NAME, or Issuer/NAME",
    "DEFAULT_ROUTES": "routes where a request names none, as in /api=api-service.default:8080,/=frontend-service:80",
    "ROUTE_NAMESPACES": "namespaces that customers' routes may lead to (those of the default routes)",
    "FORBIDDEN_SUFFIXES": "further domains that are the cluster's own (cluster.local always is)",
    "GATEWAY_NAMESPACE": "namespace of the gateway workload (istio-system)",
    "GATEWAY_SERVICE": "Service of the gateway workload (istio-ingressgateway)",
    "GATEWAY_KIND": "objects that tell the gateway what to serve: istio or gateway-api (istio)",
    "GATEWAY_SELECTOR": "labels of the gateway's Pods (istio=ingressgateway)",
    "PORTAL_ADDRESS": "where the portal listens (127.0.0.1:8080)",
    "PORTAL_TOKENS_FILE": "file with a tenant and a token's SHA-256 a line",
    "PORTAL_TLS_CERTIFICATE": "PEM file with the portal's own certificate (plain HTTP by default)",
    "PORTAL_TLS_KEY": "PEM file with its key",
    "TENANT": "tenant that the command line acts for (default)",
}
"""Every variable there is, without the prefix, and what it says; the default in parentheses."""

_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(ms|s|m|h|d)?", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_SHOWN = 80


class Variables:
    """The variables of one program; each reading remembers what is wrong, and gives the default then."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._problems: list[FieldError] = []

    def problems(self) -> tuple[FieldError, ...]:
        """All that is wrong."""
        unread = []
        for name in sorted(self._environment):
            bare = name.removeprefix(PREFIX)
            if bare == name or bare in KNOWN:
                continue
            close = difflib.get_close_matches(bare, KNOWN, n=1, cutoff=0.75)
            if close:  # one that resembles none of ours is somebody else's
                fix = f"did you mean {PREFIX}{close[0]}?"
                unread.append(FieldError(field=name, value="", problem="is not a setting", fix=fix))
        return (*self._problems, *unread)

    def refuse(self, name: str, value: str, problem: str, fix: str) -> None:
        """Remember a problem with a variable; `name` is without the prefix."""
        shown = value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…"
        self._problems.append(FieldError(field=PREFIX + name, value=shown, problem=problem, fix=fix))

    def text(self, name: str, default: str = "") -> str:
        """The text, stripped; the default where it is empty or missing."""
        if name not in KNOWN:
            raise KeyError(name)
        value = self._environment.get(PREFIX + name, "").strip()
        if any(not character.isprintable() for character in value):
            self.refuse(name, "", "has control characters", "remove them")
            return default
        return value or default

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        text = self.text(name)
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            self.refuse(name, text, f"is not a whole number from {low} to {high}", f"write one, e.g. {default}")
            return default
        return int(text)

    def seconds(self, name: str, default: float, low: float, high: float) -> float:
        """A length of time in seconds, written as 90, 90s, 15m, 6h or 1d."""
        text = self.text(name)
        if not text:
            return default
        value = period(text)
        if value is None or not low <= value <= high:
            problem = f"is not a length of time from {low:g} s to {high:g} s"
            self.refuse(name, text, problem, f"write it as in {default:g}s, 15m or 6h")
            return default
        return value

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        """One of the words."""
        text = self.text(name)
        if text and text not in allowed:
            self.refuse(name, text, f"is none of {', '.join(allowed)}", f"write one of them, e.g. {default}")
            return default
        return text or default

    def words(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Texts parted by commas or spaces."""
        return tuple(part for part in re.split(r"[,\s]+", self.text(name)) if part) or default

    def address(self, name: str, default: str) -> tuple[str, int]:
        """A host and a port to listen on, written as 127.0.0.1:8080 or [::1]:8080."""
        text = self.text(name, default)
        parsed = socket_address(text)
        if parsed is None:
            self.refuse(name, text, "is not an IP address and a port", f"write it as {default or '127.0.0.1:9464'}")
            return ("127.0.0.1", 0)
        return parsed

    def networks(self, name: str) -> tuple[str, ...]:
        """Networks in CIDR notation."""
        good = []
        for word in self.words(name):
            try:
                good.append(str(ipaddress.ip_network(word)))
            except ValueError:
                self.refuse(name, word, "is not a network", "write it as 10.0.0.0/8 or 2001:db8::/32, host bits zero")
        return tuple(good)

    def servers(self, name: str) -> tuple[str, ...]:
        """Name servers as ``ip:port``; the port is 53 where it is not said."""
        good = []
        for word in self.words(name):
            parsed = socket_address(word) or socket_address(f"{word}:53") or socket_address(f"[{word}]:53")
            if parsed is None or not parsed[1]:
                self.refuse(name, word, "is not a name server's address", "write it as 1.1.1.1 or 127.0.0.1:5353")
                continue
            host, port = parsed
            good.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        return tuple(good)


def period(text: str) -> float | None:
    """Seconds of a length of time written as 90, 90s, 15m, 6h or 1d; None where it is not written so."""
    found = _DURATION.fullmatch(text)
    return float(found[1]) * _UNITS[found[2]] if found else None


def socket_address(text: str) -> tuple[str, int] | None:
    """Host (an IP address) and port, or None where it is neither."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        return None
