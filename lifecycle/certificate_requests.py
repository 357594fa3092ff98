"""Is what a request says of its certificate well formed, and can it be made at all? Every reason at once.

What no issuer would sign and no gateway serve is refused here, with where that is said. Left out: what one issuer
signs and another does not (`lifecycle.acceptance`).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lifecycle.certificate_details import KeyEncoding, Keystore, KeyUsage, Pkcs12Profile, RotationPolicy, Subject
from lifecycle.domain import CertificateSpec, KeyAlgorithm

if TYPE_CHECKING:
    from lifecycle.requests import Form

Fields = Mapping[object, object]

KEY_SIZES = {
    KeyAlgorithm.RSA: (2048, 3072, 4096),
    KeyAlgorithm.ECDSA: (256, 384, 521),
    KeyAlgorithm.ED25519: (256,),
}
"""Bits, as cert-manager takes them; public CAs accept no smaller RSA key (Baseline Requirements, section 6.1.5)."""

MIN_DURATION_SECONDS = 3600
"""cert-manager's webhook refuses less (API reference: CertificateSpec.duration)."""

MIN_RENEW_BEFORE_SECONDS = 300
"""cert-manager's webhook refuses less (API reference: CertificateSpec.renewBefore)."""

USUAL_DURATION_SECONDS = 90 * 86400
"""What cert-manager asks for where nothing is said (API reference: CertificateSpec.duration)."""

MAX_FURTHER_NAMES = 100
"""Ours, as many as hostnames: a certificate is sent in each handshake."""

OPERATORS_FIELDS = ("common_name", "subject", "ip_addresses", "uris", "secret_template", "keystores")
"""What a tenant may not set. Nobody proves a subject, an address or a URI to a CA of one's own, so that a tenant could
take another's; labels and annotations of a Secret can make other programs copy its key elsewhere; and a keystore's
password is any Secret of the gateway's namespace."""

FIELDS = (
    "key_algorithm",
    "key_size",
    "key_encoding",
    "rotation",
    "usages",
    "common_name",
    "subject",
    "duration_seconds",
    "renew_before_seconds",
    "renew_before_percentage",
    "ip_addresses",
    "uris",
    "secret_template",
    "temporary",
    "keystores",
)

_PATH = "certificate"
_TEN_YEARS = 10 * 365 * 86400
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_KEY = re.compile(r"[A-Za-z0-9._-]{1,253}")
_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_COUNTRY = re.compile(r"[A-Z]{2}")
_OURS = re.compile(r"(^|\.)(cert-manager\.io|certwright\.dev|kubernetes\.io|k8s\.io)/")
"""Prefixes by which Kubernetes, cert-manager and this product know their own objects."""

KEY_USAGES = {
    KeyUsage.DIGITAL_SIGNATURE,
    KeyUsage.CONTENT_COMMITMENT,
    KeyUsage.KEY_ENCIPHERMENT,
    KeyUsage.DATA_ENCIPHERMENT,
    KeyUsage.KEY_AGREEMENT,
}
"""Those of the keyUsage extension; the others are extended."""

_NO_KEY_TRANSPORT = (KeyUsage.KEY_ENCIPHERMENT, KeyUsage.DATA_ENCIPHERMENT)
_MOST_OCTETS = 262_144
"""Of all annotations together (Kubernetes: "Annotations")."""

_BOUNDS = {
    "organizations": 64,
    "organizational_units": 64,
    "countries": 2,
    "localities": 128,
    "provinces": 128,
    "street_addresses": 128,
    "postal_codes": 40,
}
"""Upper bounds in characters (RFC 5280, appendix A.1; X.520 for the others)."""


def certificate(form: Form, document: Fields, default: CertificateSpec, *, operator: bool) -> CertificateSpec:
    """The field `certificate`; what it does not say is as in `default`. `operator` False keeps from it what is his."""
    given = form.section(document, _PATH)
    form.known(given, _PATH, FIELDS)
    if not operator:
        for field in OPERATORS_FIELDS:
            if given.get(field) is not None:
                where = f"{_PATH}.{field}"
                form.refuse(where, "", "is the operator's to set", "leave it out, or ask the operator for it")
        given = {key: value for key, value in given.items() if key not in OPERATORS_FIELDS}
    algorithm = form.choice(given, "key_algorithm", KeyAlgorithm, default.key_algorithm, path=_PATH)
    wanted = dataclasses.replace(
        default,
        key_algorithm=algorithm,
        key_size=_key_size(form, given, algorithm, default),
        key_encoding=_encoding(form, given, algorithm, default),
        rotation=form.choice(given, "rotation", RotationPolicy, default.rotation, path=_PATH),
        usages=_usages(form, given, algorithm, default),
        common_name=_common_name(form, given, default),
        subject=_subject(form, given, default),
        ip_addresses=_addresses(form, given, default),
        uris=_uris(form, given, default),
        temporary=_flag(form, given, "temporary", default.temporary),
    )
    return _beside_it(form, given, _times(form, given, wanted))


def _key_size(form: Form, given: Fields, algorithm: KeyAlgorithm, default: CertificateSpec) -> int:
    sizes = KEY_SIZES[algorithm]
    usual = default.key_size if algorithm is default.key_algorithm else sizes[0]
    size = form.number(given, "key_size", sizes[0], sizes[-1], path=_PATH, default=usual)
    if size not in sizes:
        known = ", ".join(map(str, sizes))
        form.refuse(f"{_PATH}.key_size", size, f"is no key size of {algorithm.value}", f"write one of {known}")
    return size


def _encoding(form: Form, given: Fields, algorithm: KeyAlgorithm, default: CertificateSpec) -> KeyEncoding | None:
    if given.get("key_encoding") in (None, ""):
        return default.key_encoding
    encoding = form.choice(given, "key_encoding", KeyEncoding, KeyEncoding.PKCS1, path=_PATH)
    if algorithm is KeyAlgorithm.ED25519 and encoding is KeyEncoding.PKCS1:
        problem = "has no form for Ed25519 (RFC 8410, section 7)"
        form.refuse(f"{_PATH}.key_encoding", encoding.value, problem, "write PKCS8, or leave it out")
    return encoding


def _usages(form: Form, given: Fields, algorithm: KeyAlgorithm, default: CertificateSpec) -> tuple[KeyUsage, ...]:
    texts = _texts(form, given, "usages", len(KeyUsage))
    if texts is None:
        return default.usages
    field, found = f"{_PATH}.usages", []
    for index, text in enumerate(texts):
        usage = next((one for one in KeyUsage if one.value == text.strip().lower()), None)
        if usage is None:
            known = ", ".join(one.value for one in KeyUsage)
            form.refuse(f"{field}[{index}]", text, "is no usage of a domain's certificate", f"write one of {known}")
        elif usage not in found:
            found.append(usage)
    if f"{field}[" in "".join(form.fields) or not found:
        return tuple(found)
    if KeyUsage.SERVER_AUTH not in found:
        problem = "lack server auth, so no client takes it from a server (RFC 5280, section 4.2.1.12)"
        form.refuse(field, "", problem, f"add {KeyUsage.SERVER_AUTH.value}")
    # without any of them the certificate has no keyUsage, which allows all (RFC 5280, section 4.2.1.3)
    if KeyUsage.DIGITAL_SIGNATURE not in found and not KEY_USAGES.isdisjoint(found):
        problem = "lack digital signature, by which a server proves its key (RFC 8446, section 4.4.2.2)"
        form.refuse(field, "", problem, f"add {KeyUsage.DIGITAL_SIGNATURE.value}")
    for usage in _NO_KEY_TRANSPORT:
        if usage in found and algorithm is not KeyAlgorithm.RSA:
            section = "RFC 8813, section 3" if algorithm is KeyAlgorithm.ECDSA else "RFC 9295, section 3"
            form.refuse(field, usage.value, f"must not be with an {algorithm.value} key ({section})", "remove it")
    return tuple(found)


def _common_name(form: Form, given: Fields, default: CertificateSpec) -> str:
    name = form.text(given, "common_name", path=_PATH)
    if len(name) > 64:
        form.refuse(f"{_PATH}.common_name", name, "is longer than 64 characters (RFC 5280, appendix A.1)", "shorten it")
    return name or default.common_name


def _subject(form: Form, given: Fields, default: CertificateSpec) -> Subject | None:
    fields = given.get("subject")
    path = f"{_PATH}.subject"
    if fields is None:
        return default.subject
    if not isinstance(fields, Mapping):
        form.refuse(path, fields, "is not an object", 'write it as {"organizations": ["Shop Ltd"]}')
        return default.subject
    form.known(fields, path, (*_BOUNDS, "serial_number"))
    parts: dict[str, tuple[str, ...]] = {}
    for name, longest in _BOUNDS.items():
        texts = _texts(form, fields, name, 8, path) or ()
        for index, text in enumerate(texts):
            field = f"{path}.{name}[{index}]"
            if name == "countries" and not _COUNTRY.fullmatch(text):
                form.refuse(field, text, "is no country", "write two capital letters (ISO 3166-1), e.g. DE")
            elif len(text) > longest:
                form.refuse(field, text, f"is longer than {longest} characters (RFC 5280, appendix A.1)", "shorten it")
        parts[name] = texts
    serial = form.text(fields, "serial_number", path=path)
    if len(serial) > 64:
        form.refuse(f"{path}.serial_number", serial, "is longer than 64 characters", "shorten it")
    return Subject(**parts, serial_number=serial)


def _times(form: Form, given: Fields, wanted: CertificateSpec) -> CertificateSpec:
    """How long it lives and when it is renewed, as cert-manager's webhook takes it."""

    def number(key: str, low: int, high: int, default: int) -> int:
        return form.number(given, key, low, high, path=_PATH, default=default)

    duration = number("duration_seconds", MIN_DURATION_SECONDS, _TEN_YEARS, wanted.duration_seconds)
    both = given.get("renew_before_seconds") is not None and given.get("renew_before_percentage") is not None
    if both:
        problem = "is set, and renew_before_percentage too (cert-manager takes one of them)"
        form.refuse(f"{_PATH}.renew_before_seconds", "", problem, "keep renew_before_percentage")
    seconds = number("renew_before_seconds", MIN_RENEW_BEFORE_SECONDS, _TEN_YEARS, wanted.renew_before_seconds)
    share = number("renew_before_percentage", 1, 99, wanted.renew_before_percentage)
    # what is asked for takes the default's place
    if given.get("renew_before_seconds") is not None:
        share = 0
    elif given.get("renew_before_percentage") is not None:
        seconds = 0
    life = duration or USUAL_DURATION_SECONDS
    if seconds >= life:
        problem = f"is not less than the certificate's life of {life} s"
        form.refuse(f"{_PATH}.renew_before_seconds", seconds, problem, "write renew_before_percentage: 33 instead")
    # the webhook counts from the start of the life what the controller counts from its end: neither may be too short
    if share and duration and min(share, 100 - share) * duration / 100 < MIN_RENEW_BEFORE_SECONDS:
        problem = f"leaves less than {MIN_RENEW_BEFORE_SECONDS} s of {duration} s, which cert-manager refuses"
        form.refuse(f"{_PATH}.renew_before_percentage", share, problem, "write 33, or a longer duration_seconds")
    return dataclasses.replace(
        wanted, duration_seconds=duration, renew_before_seconds=seconds, renew_before_percentage=share
    )


def _addresses(form: Form, given: Fields, default: CertificateSpec) -> tuple[str, ...]:
    texts = _texts(form, given, "ip_addresses", MAX_FURTHER_NAMES)
    if texts is None:
        return default.ip_addresses
    found: dict[str, None] = {}
    for index, text in enumerate(texts):
        field = f"{_PATH}.ip_addresses[{index}]"
        try:
            address = ipaddress.ip_address(text.strip("[]"))
        except ValueError:
            form.refuse(field, text, "is no IP address", "write it as 192.0.2.7 or 2001:db8::7")
            continue
        if address.is_unspecified or address.is_multicast or getattr(address, "scope_id", None):
            form.refuse(field, text, "is the address of no single host", "write the address that clients dial")
            continue
        found[str(address)] = None
    return tuple(found)


def _uris(form: Form, given: Fields, default: CertificateSpec) -> tuple[str, ...]:
    texts = _texts(form, given, "uris", MAX_FURTHER_NAMES)
    if texts is None:
        return default.uris
    for index, text in enumerate(texts):
        try:
            parts = urlsplit(text)
            whole = bool(parts.scheme and (parts.netloc or parts.path)) and text.isascii() and " " not in text
        except ValueError:
            whole = False
        if not whole or len(text) > 2048:
            # RFC 5280, section 4.2.1.6: absolute, and in ASCII
            form.refuse(f"{_PATH}.uris[{index}]", text, "is no absolute URI", "write it as spiffe://example.com/shop")
        elif parts.username or parts.password:
            form.refuse(f"{_PATH}.uris[{index}]", "", "carries credentials, which everybody would see", "remove them")
    return tuple(dict.fromkeys(texts))


def _beside_it(form: Form, given: Fields, wanted: CertificateSpec) -> CertificateSpec:
    """What else the Secret is to have."""
    template = _object(form, given, "secret_template", ("labels", "annotations"))
    if template is not None:
        wanted = dataclasses.replace(
            wanted,
            secret_labels=_pairs(form, template, "labels"),
            secret_annotations=_pairs(form, template, "annotations"),
        )
    stores = _object(form, given, "keystores", ("jks", "pkcs12"))
    if stores is not None:
        wanted = dataclasses.replace(
            wanted, jks=_keystore(form, stores, "jks"), pkcs12=_keystore(form, stores, "pkcs12")
        )
    return wanted


def _pairs(form: Form, template: Fields, part: str) -> tuple[tuple[str, str], ...]:
    path = f"{_PATH}.secret_template.{part}"
    given = template.get(part)
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        form.refuse(path, given, "is not an object", 'write it as {"team": "shop"}')
        return ()
    found = {}
    for key, value in given.items():
        field = f"{path}.{str(key)[:60]}"
        if not isinstance(key, str) or not _LABEL_KEY.fullmatch(key):
            form.refuse(field, "", "is no key of labels and annotations", "write it as team or example.com/team")
        elif _OURS.search(key):
            form.refuse(field, "", "has a prefix that is not yours to set", "use a prefix of your own")
        elif not isinstance(value, str) or (part == "labels" and not _LABEL_VALUE.fullmatch(value)):
            form.refuse(field, value, "is no value that Kubernetes takes", "write up to 63 letters, digits, . _ -")
        else:
            found[key] = value
    if sum(len(key) + len(value) for key, value in found.items()) > _MOST_OCTETS:
        form.refuse(path, "", f"have more than {_MOST_OCTETS} octets", "shorten them")
    return tuple(sorted(found.items()))


def _keystore(form: Form, stores: Fields, kind: str) -> Keystore | None:
    if stores.get(kind) is None:
        return None
    fields, path = stores[kind], f"{_PATH}.keystores.{kind}"
    if not isinstance(fields, Mapping):
        form.refuse(path, "", "is not an object", 'write it as {"secret": "keystore-password"}')
        return None
    if "password" in fields:
        fix = "certwright issuer credentials NAME --secret-namespace NAMESPACE password=env:VARIABLE; secret: NAME"
        form.refuse(f"{path}.password", "", "would lie in every history; name a Secret instead", fix)
        fields = {key: value for key, value in fields.items() if key != "password"}
    form.known(fields, path, ("secret", "key", "alias") if kind == "jks" else ("secret", "key", "profile"))
    profile: Pkcs12Profile | None = None
    if kind == "pkcs12" and fields.get("profile") not in (None, ""):
        profile = form.choice(fields, "profile", Pkcs12Profile, Pkcs12Profile.MODERN_2023, path=path)
    alias = form.text(fields, "alias", path=path)
    if len(alias) > 64:
        form.refuse(f"{path}.alias", alias, "is longer than 64 characters", "shorten it")
    return Keystore(
        secret=form.matching(fields, "secret", _NAME, "a Secret's name", path=path, required=True),
        key=form.matching(fields, "key", _KEY, "a key of a Secret", path=path) or "password",
        alias=alias,
        profile=profile,
    )


def _object(form: Form, given: Fields, key: str, known: tuple[str, ...]) -> Fields | None:
    value = given.get(key)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        form.refuse(f"{_PATH}.{key}", "", "is not an object", f"write an object of {', '.join(known)}")
        return None
    form.known(value, f"{_PATH}.{key}", known)
    return value


def _flag(form: Form, given: Fields, key: str, default: bool) -> bool:
    value: Any = given.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        form.refuse(f"{_PATH}.{key}", value, "is neither true nor false", "write true or false")
        return default
    return value


def _texts(form: Form, given: Fields, key: str, most: int, path: str = _PATH) -> tuple[str, ...] | None:
    """A list of texts; None where nothing is said."""
    value, field = given.get(key), f"{path}.{key}"
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str):
        form.refuse(field, value, "is not a list", "write a list of texts")
        return ()
    if len(value) > most:
        form.refuse(field, "", f"has {len(value)} entries, more than {most}", "shorten the list")
        return ()
    for index, text in enumerate(value):
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            form.refuse(f"{field}[{index}]", text, "is no text", "write a text without control characters")
    return tuple(text.strip() for text in value if isinstance(text, str) and text.strip() and text.isprintable())
