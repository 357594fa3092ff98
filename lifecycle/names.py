"""What may a hostname be, and what are the workflows and objects named that manage it?

One hostname, one spelling: lower-case A-labels (IDNA 2008, UTS 46 mapping), no trailing dot. Ids and object names are
derived from it, so that asking twice finds the same workflow and the same objects. Whether a name resolves, and who
may ask for it, is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import NamedTuple

import idna

from lifecycle.domain import IssuerRef

MAX_HOSTNAME_OCTETS = 253
"""Longest textual name without the trailing dot (RFC 1035, section 2.3.4: 255 octets on the wire)."""

MAX_LABEL_OCTETS = 63
"""Longest label (RFC 1035, section 2.3.4)."""

MAX_WORKFLOW_ID_OCTETS = 255
"""PostgreSQL's and MySQL's column for workflow ids."""

MAX_OBJECT_NAME = 52
"""Ours; a DNS-1123 label has 63 octets, and suffixes such as ``-acme`` and the hash of a ReplicaSet must still fit."""

RESERVED_SUFFIXES = {
    "localhost": "RFC 6761, section 6.3: it always means the machine itself",
    "local": "RFC 6762, section 3: it is answered by multicast DNS only",
    "invalid": "RFC 6761, section 6.4: it never resolves",
    "onion": "RFC 7686: it is not looked up in the DNS",
    "internal": "ICANN reserves it for private use: no public CA issues for it",
    "svc": "it is a Service's name inside the cluster",
    "arpa": "RFC 3172: it holds infrastructure records, not hosts",
}
"""Top-level labels under which no customer's name can lie, with the reason."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_HASH_DIGITS = 16


class NameProblem(NamedTuple):
    """Why a text is no hostname we serve, and what to do about it."""

    problem: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostname:
    """A name that may be asked for.

    Attributes:
        name: lower-case A-labels without the trailing dot, ``*.`` in front of a wildcard.
        unicode: the same for people.
    """

    name: str
    unicode: str
    wildcard: bool = False


def parse_hostname(
    text: object, *, forbidden_suffixes: tuple[str, ...] = ("cluster.local",), wildcard_allowed: bool = False
) -> Hostname | tuple[NameProblem, ...]:
    """The hostname a text means, or every reason why it means none.

    Args:
        text: what the caller wrote.
        forbidden_suffixes: the cluster's own domains.
        wildcard_allowed: whether a DNS-01 solver exists; HTTP-01 proves no wildcard (RFC 8555, section 8.3).
    """
    if not isinstance(text, str):
        return (NameProblem("is not a text", 'write the hostname as a string, e.g. "shop.example.com"'),)
    name = text.strip()
    if not name:
        return (NameProblem("is empty", "write a hostname, e.g. shop.example.com"),)
    if "://" in name or "/" in name:
        bare = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://", "", name).split("/", 1)[0]
        return (NameProblem("is a URL, not a hostname", f"write only the name: {bare[:MAX_HOSTNAME_OCTETS]}"),)
    if _is_address(name):
        return (NameProblem("is an IP address", "write the name that your customers type; it gets the certificate"),)
    problems: list[NameProblem] = []
    host, colon, port = name.rpartition(":")
    if colon and port.isdigit():
        problems.append(NameProblem(f"carries the port {port}", f"write it without the port: {host}"))
        name = host
    name = name.removesuffix(".")
    wildcard = name.startswith("*.")
    if wildcard:
        name = name[2:]
        if not wildcard_allowed:
            problems.append(
                NameProblem(
                    "is a wildcard, which HTTP-01 cannot prove (RFC 8555, section 8.3)",
                    f"list each name, or the apex {name[:MAX_HOSTNAME_OCTETS]}; a wildcard needs an issuer with DNS-01",
                )
            )
    labels: list[str] = []
    for label in re.split(r"[.。．｡]", name):  # the dots that UTS 46 maps to a full stop
        ascii_label, found = _parse_label(label)
        labels.append(ascii_label)
        problems.extend(problem for problem in found if problem not in problems)
    ascii_name = ".".join(labels)
    if len(ascii_name) + (2 if wildcard else 0) > MAX_HOSTNAME_OCTETS:
        problems.append(
            NameProblem(
                f"has {len(ascii_name)} octets, more than {MAX_HOSTNAME_OCTETS} (RFC 1035, section 2.3.4)",
                f"shorten it to {MAX_HOSTNAME_OCTETS} octets",
            )
        )
    problems.extend(_place_problems(ascii_name, labels, forbidden_suffixes))
    if problems:
        return tuple(problems)
    shown = ".".join(_unicode_label(label) for label in labels)
    prefix = "*." if wildcard else ""
    return Hostname(name=prefix + ascii_name, unicode=prefix + shown, wildcard=wildcard)


def _is_address(name: str) -> bool:
    """Also bracketed v6, with a port, and the shortened v4 forms that inet_aton (and so many a client) takes."""
    bare = name.strip("[]")
    if name.startswith("[") and "]" in name:
        bare = name[1 : name.index("]")]
    elif name.count(":") == 1:
        bare = name.rpartition(":")[0]
    try:
        ipaddress.ip_address(bare.split("%", 1)[0])
    except ValueError:
        parts = bare.removesuffix(".").split(".")
        # WHATWG URL, section 3.5: a name that ends in a number is parsed as an IPv4 address by browsers.
        return bool(parts[-1]) and re.fullmatch(r"\d+|0[xX][0-9a-fA-F]*", parts[-1]) is not None
    return True


def _parse_label(label: str) -> tuple[str, tuple[NameProblem, ...]]:
    """The A-label of a label, and what is wrong with it."""
    if not label:
        return label, (NameProblem("has an empty label (two dots in a row, or one in front)", "remove the extra dot"),)
    found: list[NameProblem] = []
    lower = label.lower()
    if "_" in label:
        found.append(
            NameProblem(
                f'has an underscore in the label "{_cut(label)}" (RFC 1123, section 2.1; no public CA issues for it)',
                f'use a hyphen: "{_cut(label.replace("_", "-"))}"',
            )
        )
        lower = lower.replace("_", "-")
    if "*" in label:
        found.append(
            NameProblem(
                f'has an asterisk in the label "{_cut(label)}"',
                "a wildcard is a whole leftmost label: *.example.com (RFC 9525, section 6.3)",
            )
        )
        lower = lower.replace("*", "")
    if lower.isascii():
        a_label = lower
        if lower.startswith("xn--"):
            try:
                idna.decode(lower)
            except (idna.IDNAError, UnicodeError):
                found.append(NameProblem(f'has an invalid A-label "{_cut(label)}" (RFC 5891)', "write it in Unicode"))
    else:
        try:
            a_label = idna.encode(lower, uts46=True, std3_rules=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            if "too long" in str(error).lower():
                found.append(_too_long(label, None))
            else:
                found.append(
                    NameProblem(
                        f'has characters that no hostname can have in the label "{_cut(label)}" (IDNA 2008, RFC 5892)',
                        "use letters, digits and hyphens",
                    )
                )
            return lower, tuple(found)
    if len(a_label) > MAX_LABEL_OCTETS:
        found.append(_too_long(label, len(a_label)))
    if a_label.startswith("-") or a_label.endswith("-"):
        found.append(
            NameProblem(f'has a label that begins or ends with a hyphen: "{_cut(label)}"', "remove the outer hyphen")
        )
    elif a_label and _LABEL.fullmatch(a_label) is None:
        found.append(
            NameProblem(
                f'has characters other than letters, digits and hyphens in the label "{_cut(label)}"',
                "remove them (RFC 1123, section 2.1)",
            )
        )
    elif a_label[2:4] == "--" and not a_label.startswith("xn--"):
        found.append(
            NameProblem(
                f'has hyphens in places 3 and 4 of the label "{_cut(label)}", reserved for IDNA (RFC 5891, 4.2.3.1)',
                "choose another name; public CAs refuse it",
            )
        )
    return a_label, tuple(found)


def _too_long(label: str, octets: int | None) -> NameProblem:
    size = f"{octets} octets" if octets else "too many octets"
    return NameProblem(
        f'has a label of {size}, more than {MAX_LABEL_OCTETS}: "{_cut(label)}" (RFC 1035, section 2.3.4)',
        f"shorten the label to {MAX_LABEL_OCTETS} octets",
    )


def _place_problems(name: str, labels: list[str], forbidden_suffixes: tuple[str, ...]) -> list[NameProblem]:
    """What is wrong with where in the tree of names this one lies."""
    lower = name.lower()
    if lower == "localhost" or lower.endswith(".localhost"):
        return [
            NameProblem(
                f"is localhost or a name under it: {RESERVED_SUFFIXES['localhost']}",
                "use a public name, e.g. shop.example.com",
            )
        ]
    for suffix in forbidden_suffixes:
        bare = suffix.strip(".").lower()
        if bare and (lower == bare or lower.endswith("." + bare)):
            return [
                NameProblem(
                    f"lies under the cluster's own domain {bare}", "use the public name that resolves to the gateway"
                )
            ]
    if len(labels) == 1 and labels[0]:
        return [NameProblem("has a single label", "write the full name, e.g. shop.example.com")]
    if labels[-1] in RESERVED_SUFFIXES:
        return [
            NameProblem(
                f"lies under .{labels[-1]}: {RESERVED_SUFFIXES[labels[-1]]}", "use a name that is registered publicly"
            )
        ]
    return []


def _unicode_label(label: str) -> str:
    try:
        return idna.decode(label) if label.startswith("xn--") else label
    except (idna.IDNAError, UnicodeError):  # pragma: no cover - parsed above
        return label


def _cut(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


# --- names of objects -----------------------------------------------------------------------------------------------


def object_name(hostname: str) -> str:
    """The name of a domain's objects: readable, and with 10 hex digits of SHA-256, because dots become hyphens.

    At most `MAX_OBJECT_NAME` octets, a DNS-1123 label (so it also fits where a Service's or a label's rules apply).
    """
    digest = hashlib.sha256(hostname.encode()).hexdigest()[:10]
    readable = hostname.lower().replace("*.", "wildcard-", 1)
    readable = re.sub(r"[^a-z0-9]+", "-", readable).strip("-")
    readable = readable[: MAX_OBJECT_NAME - len(digest) - 1].rstrip("-")
    if not readable or not readable[0].isalpha():  # DNS-1035, which Services ask for, wants a letter in front
        readable = f"d-{readable}"[: MAX_OBJECT_NAME - len(digest) - 1].rstrip("-")
    return f"{readable}-{digest}"


def certificate_name(hostname: str) -> str:
    """The Certificate of a domain."""
    return object_name(hostname)


def secret_name(hostname: str) -> str:
    """The TLS Secret of a domain; also the `credentialName` of its Gateway."""
    return f"{object_name(hostname)}-tls"


def rehearsal_name(hostname: str) -> str:
    """The Certificate and the Secret of a rehearsal.

    In front, since whose a Challenge is shows in what its name begins with. Of at most 62 octets.
    """
    return f"rehearsal-{object_name(hostname)}"


def client_ca_name(secret: str) -> str:
    """The Secret where Istio looks for the CA of clients' certificates, before the Secret itself."""
    return secret if secret.endswith("-cacert") else f"{secret}-cacert"


def probed_name(hostname: str) -> str:
    """A name that a client can ask for: a wildcard is asked by one of its names (RFC 9525, section 6.3)."""
    return hostname.replace("*.", "certwright-probe.", 1) if hostname.startswith("*.") else hostname


def gateway_name(hostname: str) -> str:
    """The Istio Gateway of a domain."""
    return object_name(hostname)


def virtual_service_name(hostname: str) -> str:
    """The VirtualService with a domain's routes."""
    return object_name(hostname)


def challenge_route_name(hostname: str) -> str:
    """The VirtualService that exists only while challenges do."""
    return f"{object_name(hostname)}-acme"


def redirect_route_name(hostname: str) -> str:
    """The Gateway API's route that leads HTTP to HTTPS; Istio's is part of the VirtualService."""
    return f"{object_name(hostname)}-redirect"


# --- names of workflows ---------------------------------------------------------------------------------------------


def workflow_id(kind: str, *parts: str) -> str:
    """``kind/part/part`` where that fits 255 octets, else cut and with 16 hex digits of the SHA-256 of the whole."""
    whole = "/".join((kind, *parts))
    octets = whole.encode()
    if len(octets) <= MAX_WORKFLOW_ID_OCTETS:
        return whole
    digest = hashlib.sha256(octets).hexdigest()[:_HASH_DIGITS]
    kept = octets[: MAX_WORKFLOW_ID_OCTETS - _HASH_DIGITS - 1].decode(errors="ignore")
    return f"{kept}~{digest}"  # "~" is in no hostname and no object name: a cut id never equals a whole one


def domain_id(hostname: str) -> str:
    """`DomainOnboarding` of a hostname."""
    return workflow_id("domain", hostname)


def reservation_id(hostname: str) -> str:
    """`HostnameReservation` of a further name: the same id, so that one name has one owner."""
    return domain_id(hostname)


def certificate_id(namespace: str, name: str, *further: str) -> str:
    """`CertificateIssuance`, a child; `further` tells one issuance from the next."""
    return workflow_id("certificate", namespace, name, *further)


def gateway_id(namespace: str, name: str, *further: str) -> str:
    """`GatewayBinding`, a child."""
    return workflow_id("gateway", namespace, name, *further)


def issuer_inspection_id(ref: IssuerRef | None) -> str:
    """`IssuerInspection`, which several may ask for at once; of all issuers where `ref` is None."""
    return workflow_id("issuer-inspection", *(issuer_id(ref).split("/")[1:] if ref else ("all",)))


def issuer_id(ref: IssuerRef) -> str:
    """`IssuerSetup`; a ClusterIssuer lies in ``cluster``, which no Issuer's id can be taken for."""
    return workflow_id("issuer", f"namespace/{ref.namespace}" if ref.namespace else "cluster", ref.name)


def platform_id(cluster: str) -> str:
    """`PlatformInstallation` of a cluster."""
    return workflow_id("platform", cluster)


def restore_id(backup: str, into: str) -> str:
    """`Restore` of a backup into a namespace (empty: where its objects came from)."""
    return workflow_id("restore", backup, into or "in-place")
