"""Will this issuer sign this certificate? Asked at the door, and again before an order.

Each rule reads one combination that would fail later, or be signed otherwise than it was asked for, and says where
that is written. Issuers are known by their type, an ACME directory's host and its profile; of one that is none of
the public CAs below only what ACME itself says is held against it. Left out: whether a request is well formed
(`lifecycle.certificate_requests`), wildcards and solvers (`lifecycle.solvers`), and a CA's quotas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lifecycle import findings
from lifecycle.certificate_details import KeyUsage
from lifecycle.domain import DEFAULT_CERTIFICATE, KeyAlgorithm, OnboardingRequest, Rehearsal
from lifecycle.findings import Finding, FindingKind
from lifecycle.issuers import NO_REHEARSAL, IssuerType, issuer_type, rehearsal_of
from lifecycle.requests import FieldError
from lifecycle.steps import IssuerStatus

LETS_ENCRYPT = "letsencrypt.org"

PUBLIC_CAS = (
    LETS_ENCRYPT,
    "zerossl.com",
    "pki.goog",
    "buypass.com",
    "ssl.com",
    "sectigo.com",
    "digicert.com",
    "globalsign.com",
    "entrust.net",
)
"""Domains of ACME directories whose certificates browsers trust, so that the Baseline Requirements hold for them."""


def _day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


PUBLIC_MAXIMUM_DAYS = (
    (_day("2029-03-15"), 47),
    (_day("2027-03-15"), 100),
    (_day("2026-03-15"), 200),
    (_day("2020-09-01"), 398),
)
"""Longest life by the day of issuance, the latest first (Baseline Requirements, section 6.3.2; ballot SC-081)."""

CLASSIC_DAYS = ((_day("2028-02-16"), 45), (_day("2027-02-10"), 64), (_day("2015-12-03"), 90))
"""Life of Let's Encrypt's classic profile (letsencrypt.org, "Decreasing Certificate Lifetimes to 45 Days")."""

CLIENT_AUTH_ENDED = _day("2026-07-08")
"""Since then Let's Encrypt grants it in no profile (letsencrypt.org, "Ending TLS Client Authentication")."""

_PROFILES_PAGE = 'letsencrypt.org, "Profiles"'
_MANY_NAMES = 25


class Profile(NamedTuple):
    """What a profile of Let's Encrypt gives. `life` None: by the calendar."""

    names: int
    life: timedelta | None


PROFILES = {
    "classic": Profile(100, None),
    "tlsserver": Profile(_MANY_NAMES, timedelta(days=45)),
    "shortlived": Profile(_MANY_NAMES, timedelta(hours=160)),
}
"""letsencrypt.org, "Profiles"; classic is what is given where none is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerTraits:
    """What of an issuer decides what it signs; `type` None where it is not known.

    `rehearses`: it names a counterpart at which its certificates are rehearsed.
    """

    name: str
    type: IssuerType | None
    server: str = ""
    profile: str = ""
    rehearses: bool = False

    @property
    def acme(self) -> bool:
        """Whether it speaks ACME (RFC 8555)."""
        return self.type is IssuerType.ACME

    @property
    def public(self) -> bool:
        """Whether it is one of the public CAs that we know."""
        return self.acme and any(self._under(domain) for domain in PUBLIC_CAS)

    @property
    def lets_encrypt(self) -> bool:
        """Whether it is Let's Encrypt, staging included."""
        return self.acme and self._under(LETS_ENCRYPT)

    def _under(self, domain: str) -> bool:
        try:
            host = (urlsplit(self.server).hostname or "").lower()
        except ValueError:
            return False
        return host == domain or host.endswith(f".{domain}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why it will not be signed; `field` is the request's, `problem` is read after it."""

    kind: FindingKind
    field: str
    value: str
    problem: str
    fix: str

    def field_error(self) -> FieldError:
        """As a door tells it."""
        return FieldError(
            field=self.field, value=self.value[:80], problem=self.problem, fix=self.fix, code=self.kind.code
        )

    def finding(self, request: OnboardingRequest) -> Finding:
        """As a domain tells it."""
        shown = f"{self.field} ({self.value})" if self.value else self.field
        fix = f"{self.fix[:1].upper()}{self.fix[1:]}."
        return self.kind.found(subject=request.hostname, problem=f"{shown} {self.problem}.", fix=fix)


def traits_of(status: IssuerStatus) -> IssuerTraits:
    """Of an issuer as a worker saw it."""
    known = next((one for one in IssuerType if one.value == status.type), None)
    return IssuerTraits(
        name=status.ref.name,
        type=known,
        server=status.server,
        profile=status.profile,
        rehearses=status.rehearsal not in ("", NO_REHEARSAL),
    )


def traits_in(issuer: Mapping[str, Any]) -> IssuerTraits:
    """Of an issuer's own document."""
    acme = (issuer.get("spec") or {}).get("acme") or {}
    return IssuerTraits(
        name=issuer["metadata"]["name"],
        type=issuer_type(issuer),
        server=str(acme.get("server") or ""),
        profile=str(acme.get("profile") or ""),
        rehearses=rehearsal_of(issuer) not in ("", NO_REHEARSAL),
    )


def depends_on_issuer(request: OnboardingRequest) -> bool:
    """Whether an issuer could refuse it for what it asks: a plain certificate for a few names is signed by all."""
    more = request.certificate != DEFAULT_CERTIFICATE or len(request.hostnames) > _MANY_NAMES
    return more or request.rehearsal is Rehearsal.ALWAYS


def refusals(request: OnboardingRequest, issuer: IssuerTraits, now: datetime) -> tuple[Refusal, ...]:
    """All that stands against it, at this time."""
    return tuple(refusal for rule in RULES for refusal in rule(request, issuer, now))


def field_errors(request: OnboardingRequest, issuer: IssuerTraits, now: datetime) -> tuple[FieldError, ...]:
    """The same for a door."""
    return tuple(refusal.field_error() for refusal in refusals(request, issuer, now))


def acceptance_findings(
    request: OnboardingRequest, issuer: Mapping[str, Any] | None, now: datetime
) -> tuple[Finding, ...]:
    """The same for a domain; nothing where its issuer is not there, which others tell."""
    if issuer is None:
        return ()
    return tuple(refusal.finding(request) for refusal in refusals(request, traits_in(issuer), now))


# --- the rules --------------------------------------------------------------------------------------------------------


def the_ca_takes_no_such_key(request: OnboardingRequest, issuer: IssuerTraits, _: datetime) -> tuple[Refusal, ...]:
    """Keys by the Baseline Requirements, section 6.1.5, and P-521 by Let's Encrypt."""
    wanted = request.certificate
    if issuer.public and wanted.key_algorithm is KeyAlgorithm.ED25519:
        problem = f"is taken by no public CA, {issuer.name} included (Baseline Requirements, section 6.1.5)"
        fix = "write ECDSA or RSA"
        return (
            Refusal(
                kind=findings.KEY_NOT_ACCEPTED,
                field="certificate.key_algorithm",
                value="Ed25519",
                problem=problem,
                fix=fix,
            ),
        )
    if issuer.lets_encrypt and (wanted.key_algorithm, wanted.key_size) == (KeyAlgorithm.ECDSA, 521):
        problem = 'is not taken by Let\'s Encrypt (letsencrypt.org, "Integration Guide": P-256 and P-384)'
        return (
            Refusal(
                kind=findings.KEY_NOT_ACCEPTED,
                field="certificate.key_size",
                value="521",
                problem=problem,
                fix="write 384 or 256",
            ),
        )
    return ()


def the_profile_takes_fewer_names(request: OnboardingRequest, issuer: IssuerTraits, _: datetime) -> tuple[Refusal, ...]:
    """Names in one certificate of Let's Encrypt."""
    if not issuer.lets_encrypt:
        return ()
    profile = PROFILES.get(issuer.profile or "classic")
    count = len(request.hostnames) + len(request.certificate.ip_addresses)
    if profile is None or count <= profile.names:
        return ()
    called = issuer.profile or "classic"
    return (
        Refusal(
            kind=findings.TOO_MANY_NAMES,
            field="hostnames",
            value="",
            problem=f"has {count} names, more than the {profile.names} of profile {called} ({_PROFILES_PAGE})",
            fix="ask for several domains, or name an issuer with the profile classic",
        ),
    )


def the_ca_grants_no_such_usage(request: OnboardingRequest, issuer: IssuerTraits, now: datetime) -> tuple[Refusal, ...]:
    """clientAuth at Let's Encrypt by its calendar; the others by the Baseline Requirements, section 7.1.2.7.10."""
    if not issuer.public:
        return ()
    granted = {KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT, KeyUsage.KEY_AGREEMENT, KeyUsage.SERVER_AUTH}
    found = []
    for usage in request.certificate.usages:
        if usage is KeyUsage.CLIENT_AUTH:
            if not issuer.lets_encrypt or now < CLIENT_AUTH_ENDED:
                continue
            problem = (
                f"is not granted by Let's Encrypt since {CLIENT_AUTH_ENDED:%Y-%m-%d} "
                '(letsencrypt.org, "Ending TLS Client Authentication")'
            )
            fix = "remove it; certificates of clients come from a CA issuer of your own"
        elif usage not in granted:
            problem = "is granted by no public CA (Baseline Requirements, section 7.1.2.7)"
            fix = "remove it, or use a CA issuer of your own"
        else:
            continue
        found.append(
            Refusal(
                kind=findings.USAGE_NOT_GRANTED,
                field="certificate.usages",
                value=usage.value,
                problem=problem,
                fix=fix,
            )
        )
    return tuple(found)


def it_is_to_live_too_long(request: OnboardingRequest, issuer: IssuerTraits, now: datetime) -> tuple[Refusal, ...]:
    """The public maximum on this day, and the life that a profile gives."""
    if not issuer.public:
        return ()
    longest, where = public_maximum(now), "Baseline Requirements, section 6.3.2"
    life = profile_life(issuer, now)
    if life is not None:
        longest, where = life, f"profile {issuer.profile or 'classic'}: {_PROFILES_PAGE}"
    wanted, found = request.certificate, []
    if wanted.duration_seconds > longest.total_seconds():
        found.append(
            Refusal(
                kind=findings.LIFE_TOO_LONG,
                field="certificate.duration_seconds",
                value=str(wanted.duration_seconds),
                problem=f"is longer than the {_words(longest)} that {issuer.name} gives on {now:%Y-%m-%d} ({where})",
                fix="leave it out",
            )
        )
    if life is not None and wanted.renew_before_seconds >= life.total_seconds():
        problem = f"is no part of the {_words(life)} that {issuer.name} gives ({where}): cert-manager ignores it"
        found.append(
            Refusal(
                kind=findings.LIFE_TOO_LONG,
                field="certificate.renew_before_seconds",
                value=str(wanted.renew_before_seconds),
                problem=problem,
                fix="write renew_before_percentage: 33 instead",
            )
        )
    return tuple(found)


def acme_proves_no_such_name(request: OnboardingRequest, issuer: IssuerTraits, _: datetime) -> tuple[Refusal, ...]:
    """URIs have no identifier in ACME; an address would be asked where no Istio Gateway answers for it."""
    if not issuer.acme:
        return ()
    wanted, found = request.certificate, []
    if wanted.uris:
        problem = f"cannot be proved to {issuer.name}: ACME has no such identifier (RFC 8555, section 9.7.7)"
        found.append(("certificate.uris", wanted.uris[0], problem, "use a CA issuer, or remove them"))
    if wanted.ip_addresses:
        # Istio, "Gateway": hosts are DNS names, so a challenge that names an address in Host finds no route
        problem = f"cannot be proved to {issuer.name}: the CA asks the address itself (RFC 8738, section 5), which a"
        problem += " Gateway's hosts cannot name"
        found.append(("certificate.ip_addresses", wanted.ip_addresses[0], problem, "use a CA issuer, or remove them"))
    return tuple(
        Refusal(kind=findings.NAME_NOT_PROVABLE, field=field, value=value, problem=problem, fix=fix)
        for field, value, problem, fix in found
    )


def the_ca_says_no_such_subject(request: OnboardingRequest, issuer: IssuerTraits, _: datetime) -> tuple[Refusal, ...]:
    """A common name must be one of the names; more of a subject is never proved by a domain's validation."""
    if not issuer.acme:
        return ()
    wanted, found = request.certificate, []
    if wanted.common_name and wanted.common_name.lower() not in request.hostnames:
        # cert-manager 1.21, pkg/controller/certificaterequests/acme, refuses the same
        problem = f"is none of the hostnames, as {issuer.name} needs (Baseline Requirements, section 7.1.4.3)"
        found.append(("certificate.common_name", wanted.common_name, problem, "leave it out"))
    if issuer.public and wanted.subject is not None:
        problem = f"is not signed by {issuer.name}, which proves names only (Baseline Requirements, section 7.1.2.7.2)"
        found.append(("certificate.subject", "", problem, "leave it out, or use a CA issuer of your own"))
    return tuple(
        Refusal(kind=findings.SUBJECT_NOT_SIGNED, field=field, value=value, problem=problem, fix=fix)
        for field, value, problem, fix in found
    )


def it_has_nowhere_to_be_rehearsed(
    request: OnboardingRequest, issuer: IssuerTraits, _: datetime
) -> tuple[Refusal, ...]:
    """Asked for in any case, and the issuer names no counterpart."""
    if request.rehearsal is not Rehearsal.ALWAYS or issuer.rehearses:
        return ()
    return (
        Refusal(
            kind=findings.REHEARSAL_ISSUER_MISSING,
            field="rehearsal",
            value=request.rehearsal.value,
            problem=f"cannot be: {issuer.name} names no issuer at which its certificates are rehearsed",
            fix=f"add rehearsal: NAME to {issuer.name} in the issuers' file and apply it, or ask without",
        ),
    )


Rule = Callable[[OnboardingRequest, IssuerTraits, datetime], tuple[Refusal, ...]]

RULES: tuple[Rule, ...] = (
    the_ca_takes_no_such_key,
    the_profile_takes_fewer_names,
    the_ca_grants_no_such_usage,
    it_is_to_live_too_long,
    acme_proves_no_such_name,
    the_ca_says_no_such_subject,
    it_has_nowhere_to_be_rehearsed,
)


def public_maximum(now: datetime) -> timedelta:
    """The longest life that a public CA may give on this day."""
    return timedelta(days=_by_calendar(PUBLIC_MAXIMUM_DAYS, now))


def profile_life(issuer: IssuerTraits, now: datetime) -> timedelta | None:
    """The life that Let's Encrypt gives by its profile; None of other issuers and of profiles that we do not know."""
    profile = PROFILES.get(issuer.profile or "classic")
    if not issuer.lets_encrypt or profile is None:
        return None
    return profile.life or timedelta(days=_by_calendar(CLASSIC_DAYS, now))


def _by_calendar(calendar: tuple[tuple[datetime, int], ...], now: datetime) -> int:
    return next((days for since, days in calendar if now >= since), calendar[-1][1])


def _words(life: timedelta) -> str:
    hours = life.total_seconds() / 3600
    return f"{life.days} days" if hours % 24 == 0 else f"{hours:g} hours"
