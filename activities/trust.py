"""Which roots must a domain's served chain lead to? The worker's, and of a private CA its own.

cert-manager writes the root of a CA issuer into ``ca.crt`` of each Secret that it makes; of a self-signed certificate
that is the certificate itself, which is so expected by its bytes. Of other issuers ``ca.crt`` does not count: what is
to be trusted for them the operator says. Left out: judging a chain (`lifecycle.x509`).
"""

from __future__ import annotations

import base64
import binascii

from kubernetes.aio.dynamic import DynamicClient

from activities import kubernetes
from activities.issuance import CERT_MANAGER
from lifecycle import issuers, names
from lifecycle.domain import OnboardingRequest

_LONGEST = 100_000
"""Octets of a root that is taken over; real ones have some thousand."""


async def expected_roots(cluster: DynamicClient, request: OnboardingRequest, roots_pem: bytes) -> bytes:
    """The roots in PEM: `roots_pem`, and the issuer's own where it has one. Raises ApplicationError."""
    ref = request.issuer
    issuer = await kubernetes.read(cluster, CERT_MANAGER, ref.kind.value, ref.namespace, ref.name)
    if not issuers.brings_its_root(issuer):
        return roots_pem
    name = names.secret_name(request.hostname)
    secret = await kubernetes.read(cluster, "v1", "Secret", request.gateway.namespace, name)
    try:
        own = base64.b64decode(((secret or {}).get("data") or {}).get("ca.crt") or "", validate=True)
    except (binascii.Error, ValueError):
        return roots_pem
    return roots_pem + b"\n" + own if b"BEGIN CERTIFICATE" in own and len(own) <= _LONGEST else roots_pem
