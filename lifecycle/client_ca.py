"""Is the CA of clients' certificates there and fit, before a gateway asks clients for them?

Istio reads ``ca.crt`` of ``<name>-cacert``, else of the Secret ``<name>``, where the name is the one that the request
gives, else the domain's own Secret's (Istio reference: ServerTLSSettings); a gateway that finds none ends every
handshake. Left out: reading it.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from lifecycle import findings, names
from lifecycle.domain import OnboardingRequest
from lifecycle.findings import Finding

KEYS = ("ca.crt", "cacert")
"""Where Istio looks in a Secret, in this order."""


def secrets(request: OnboardingRequest) -> tuple[str, ...]:
    """The Secrets in which the CA may lie, the first that has one counts; none where no client is asked."""
    if not request.tls.asks_clients:
        return ()
    named = request.tls.client_ca or names.secret_name(request.hostname)
    return tuple(dict.fromkeys((names.client_ca_name(named), named)))


def problems(pem: bytes, request: OnboardingRequest, now: datetime) -> tuple[Finding, ...]:
    """What keeps the CA from being one; `pem` is empty where there is none."""
    namespace = request.gateway.namespace
    wanted = secrets(request)
    if not wanted:
        return ()
    name = request.tls.client_ca or wanted[0]
    subject = f"Secret {namespace}/{name}"
    fix = f"kubectl create secret generic -n {namespace} {name} --from-file=ca.crt=clients-ca.pem"
    if not pem:
        words = f"Mode {request.tls.mode.value} needs the CA of clients' certificates as ca.crt, and there is none."
        return (findings.CLIENT_CA_MISSING.found(subject=subject, problem=words, fix=fix),)
    try:
        parsed = x509.load_pem_x509_certificates(pem)
    except ValueError:
        parsed = []
    if not parsed:
        words = "Its ca.crt holds no PEM certificate."
        return (findings.CLIENT_CA_UNFIT.found(subject=subject, problem=words, fix=fix),)
    unfit = [one for one in parsed if not _is_ca(one) or not one.not_valid_before_utc <= now < one.not_valid_after_utc]
    if len(unfit) < len(parsed):
        return ()
    words = "None of the certificates in its ca.crt is a CA's and valid now."
    return (findings.CLIENT_CA_UNFIT.found(subject=subject, problem=words, fix=fix),)


def _is_ca(certificate: x509.Certificate) -> bool:
    """RFC 5280, section 4.2.1.9."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def signed(certificate_pem: bytes, pem: bytes) -> bool:
    """Whether a client's certificate is directly signed by a CA in `pem`; False where either cannot be read."""
    try:
        certificate = x509.load_pem_x509_certificates(certificate_pem)[0]
        authorities = x509.load_pem_x509_certificates(pem)
    except (ValueError, IndexError):
        return False
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False
