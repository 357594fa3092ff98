"""What the worker's environment says: everything validated at once, before anything is connected.

Secrets come by file path only, so that no environment, no process list and no log has one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi
import yaml
from cryptography import x509

from activities.limits import limits_file
from lifecycle import queues
from lifecycle.rate_limits import LimitsTable
from lifecycle.requests import FieldError
from lifecycle.settings import Variables
from worker.versions import WORKFLOWS_VERSION

_QUEUES = {queue.removeprefix("certwright-"): queue for queue in queues.QUEUES}
_CLUSTER_QUEUES = {queues.CLUSTER, queues.PROBE, queues.PLATFORM}
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Validated settings of one worker process.

    Attributes:
        queues: full names of the task queues it serves.
        kubeconfig: path; empty for the Pod's own ServiceAccount.
        roots_pem: roots that a served chain must lead to.
        limits: of CAs, before those that are known.
        edge_client: certificate and key that gateways which ask clients for one are shown.
        helm_values: further Helm values, a JSON object.
        backup_directory: None where this worker writes no backups.
        metrics: host and port, None where no metrics are served.
        shutdown_grace: seconds that running activities are given at the end.
        build_id: version of the workflows' code.
        promote: whether workflows begin on it as soon as this worker runs.
    """

    queues: tuple[str, ...]
    kubeconfig: str
    edge_http_port: int
    edge_https_port: int
    roots_pem: bytes
    allowed_networks: tuple[str, ...]
    edge_timeout: float
    edge_client: tuple[Path, Path] | None
    nameservers: tuple[str, ...]
    cname_target: str
    delegation_zone: str
    dns_timeout: float
    caa_identities: tuple[str, ...]
    limits: LimitsTable
    helm: str
    chart: str
    helm_values: str
    backup_directory: Path | None
    backup_recipients: tuple[str, ...]
    backup_identity_file: Path | None
    backup_keep: int
    metrics: tuple[str, int] | None
    shutdown_grace: float
    build_id: str
    promote: bool
    log_level: str
    log_format: str

    def shown(self) -> dict[str, Any]:
        """What may be told of them: paths and names, no content of files."""
        return {
            "queues": list(self.queues),
            "kubeconfig_file": self.kubeconfig or "in-cluster",
            "allowed_networks": list(self.allowed_networks),
            "nameservers": list(self.nameservers) or "system",
            "backup_directory": str(self.backup_directory or ""),
            "metrics": ":".join(map(str, self.metrics)) if self.metrics else "off",
        }


def load(environment: Mapping[str, str]) -> Settings | tuple[FieldError, ...]:
    """The settings, or every reason why not."""
    variables = Variables(environment)
    served = _queues(variables)
    kubeconfig = variables.text("KUBECONFIG")
    if kubeconfig:
        _readable(variables, "KUBECONFIG", kubeconfig)
    elif _CLUSTER_QUEUES & set(served) and not environment.get("KUBERNETES_SERVICE_HOST"):
        fix = "set it, or run in a Pod with a ServiceAccount"
        variables.refuse("KUBECONFIG", "", "is missing, and this is no Pod", fix)
    metrics = variables.address("METRICS_ADDRESS", "") if variables.text("METRICS_ADDRESS") else None
    directory, recipients, identity = _backups(variables)
    helm = variables.text("HELM", "helm")
    if queues.PLATFORM in served and shutil.which(helm, path=environment.get("PATH")) is None:
        variables.refuse("HELM", helm, "is no program on the PATH", "install helm, or give its path")
    settings = Settings(
        queues=served,
        kubeconfig=kubeconfig,
        edge_http_port=variables.number("EDGE_HTTP_PORT", 80, 1, 65535),
        edge_https_port=variables.number("EDGE_HTTPS_PORT", 443, 1, 65535),
        roots_pem=_roots(variables),
        allowed_networks=variables.networks("EDGE_ALLOWED_NETWORKS"),
        edge_timeout=variables.seconds("EDGE_TIMEOUT", 5.0, 0.1, 30.0),
        edge_client=_edge_client(variables),
        nameservers=variables.servers("NAMESERVERS"),
        cname_target=variables.text("CNAME_TARGET").rstrip("."),
        delegation_zone=variables.text("DELEGATION_ZONE").strip(".").lower(),
        dns_timeout=variables.seconds("DNS_TIMEOUT", 5.0, 0.1, 30.0),
        caa_identities=variables.words("CAA_IDENTITIES"),
        limits=limits_file(variables),
        helm=helm,
        chart=variables.text("CHART"),
        helm_values=_helm_values(variables),
        backup_directory=directory,
        backup_recipients=recipients,
        backup_identity_file=identity,
        backup_keep=variables.number("BACKUP_KEEP", 7, 1, 10000),
        metrics=metrics,
        # a Pod is given 30 s in all by Kubernetes (terminationGracePeriodSeconds)
        shutdown_grace=variables.seconds("SHUTDOWN_GRACE", 20.0, 0.0, 600.0),
        build_id=_build_id(variables),
        promote=variables.choice("PROMOTE", ("yes", "no"), "yes") == "yes",
        log_level=variables.choice("LOG_LEVEL", ("debug", "info", "warning", "error"), "info"),
        log_format=variables.choice("LOG_FORMAT", ("json", "console"), "json"),
    )
    return variables.problems() or settings


def _build_id(variables: Variables) -> str:
    text = variables.text("BUILD_ID", WORKFLOWS_VERSION)
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", text):
        variables.refuse("BUILD_ID", text, "is no version", "write up to 100 letters, digits, . _ -")
    return text


def _queues(variables: Variables) -> tuple[str, ...]:
    served = []
    for word in variables.words("QUEUES", tuple(_QUEUES)):
        queue = _QUEUES.get(word.removeprefix("certwright-"))
        if queue is None:
            variables.refuse("QUEUES", word, "is no queue", f"use any of {', '.join(_QUEUES)}")
        elif queue not in served:
            served.append(queue)
    return tuple(served)


def _readable(variables: Variables, name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "it cannot be read"
        variables.refuse(name, path, f"is a file that cannot be read: {reason}", "correct the path or its permissions")
        return b""


def _roots(variables: Variables) -> bytes:
    path = variables.text("EDGE_ROOTS_FILE")
    if not path:
        return Path(certifi.where()).read_bytes()
    content = _readable(variables, "EDGE_ROOTS_FILE", path)
    if content:
        try:
            x509.load_pem_x509_certificates(content)
        except ValueError:
            variables.refuse(
                "EDGE_ROOTS_FILE", path, "has no PEM certificate", "write the CA's root certificates there"
            )
    return content


def _edge_client(variables: Variables) -> tuple[Path, Path] | None:
    certificate, key = variables.text("EDGE_CLIENT_CERTIFICATE_FILE"), variables.text("EDGE_CLIENT_KEY_FILE")
    if not certificate and not key:
        return None
    for name, path in (("EDGE_CLIENT_CERTIFICATE_FILE", certificate), ("EDGE_CLIENT_KEY_FILE", key)):
        if not path:
            variables.refuse(name, "", "is missing, and the other of the pair is set", "set both, or neither")
        else:
            _readable(variables, name, path)
    if not variables.problems():
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)
        except (OSError, ValueError):
            problem = "is no certificate that the key in EDGE_CLIENT_KEY_FILE belongs to, or has a pass phrase"
            variables.refuse("EDGE_CLIENT_CERTIFICATE_FILE", certificate, problem, "write both as PEM, unencrypted")
    return Path(certificate), Path(key)


def _helm_values(variables: Variables) -> str:
    path = variables.text("HELM_VALUES_FILE")
    content = _readable(variables, "HELM_VALUES_FILE", path) if path else b""
    if not content:
        return "{}"
    try:
        values = yaml.safe_load(content)  # JSON is YAML
        if isinstance(values, dict):
            return json.dumps(values, sort_keys=True, allow_nan=False)
    except (yaml.YAMLError, TypeError, ValueError):
        pass
    variables.refuse("HELM_VALUES_FILE", path, "is no YAML or JSON object", "write Helm values as key: value")
    return "{}"


def _backups(variables: Variables) -> tuple[Path | None, tuple[str, ...], Path | None]:
    directory, identity = variables.text("BACKUP_DIRECTORY"), variables.text("BACKUP_IDENTITY_FILE")
    recipients = variables.words("BACKUP_RECIPIENTS")
    for recipient in recipients:
        if recipient.startswith("AGE-SECRET-KEY"):
            fix = "give the public key (age1...), and replace this one: environments are seen by others"
            variables.refuse("BACKUP_RECIPIENTS", "", "is a private key", fix)
        elif not _RECIPIENT.fullmatch(recipient):
            variables.refuse(
                "BACKUP_RECIPIENTS", recipient, "is no age public key", "write age1..., as age-keygen -y prints"
            )
    if directory and not Path(directory).is_dir():
        variables.refuse("BACKUP_DIRECTORY", directory, "is no directory", "create it, mode 0700")
    elif directory and not os.access(directory, os.W_OK):
        variables.refuse("BACKUP_DIRECTORY", directory, "cannot be written", "give it to the worker's user")
    if directory and not recipients:
        variables.refuse("BACKUP_RECIPIENTS", "", "is missing, and backups are encrypted", "write at least one age1...")
    if identity:
        _readable(variables, "BACKUP_IDENTITY_FILE", identity)
    return Path(directory) if directory else None, recipients, Path(identity) if identity else None
