"""What is wrong, in words: the one place where every kind of finding is recorded.

A finding is a value, never an exception. Its code is stable and never reused (`docs/findings.md` has one heading per
code), its fix is a command, a record or a field with the values filled in. This module does not decide when a finding
applies; the module that owns the rule does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding weighs: an error stops the step, a warning does not, a note explains."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Handling(StrEnum):
    """Who or what ends the trouble; each kind of failure is handled by its kind."""

    RETRY = "retry"
    CUSTOMER = "wait-for-customer"
    CA = "wait-for-ca"
    OPERATOR = "needs-operator"
    BUG = "bug"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem with one object.

    Attributes:
        code: stable code, e.g. ``CW1101``; heading of `docs/findings.md`.
        title: CamelCase name of the kind, e.g. ``NameDoesNotResolve``.
        severity: whether it stops the step.
        handling: who ends it.
        subject: the hostname or ``Kind namespace/name`` it is about.
        problem: what is wrong, one sentence.
        fix: the exact command, record or field to set.
    """

    code: str
    title: str
    severity: Severity
    handling: Handling
    subject: str
    problem: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingKind:
    """A record of the catalogue: what all findings with one code have in common."""

    code: str
    title: str
    severity: Severity
    handling: Handling

    def found(self, *, subject: str, problem: str, fix: str) -> Finding:
        """The finding of this kind about one subject."""
        return Finding(
            code=self.code,
            title=self.title,
            severity=self.severity,
            handling=self.handling,
            subject=subject,
            problem=problem,
            fix=fix,
        )


def errors(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Those findings that stop a step."""
    return tuple(finding for finding in findings if finding.severity is Severity.ERROR)


# --- the catalogue ----------------------------------------------------------------------------------------------------
# Hundreds are subjects: 10 platform, 11 routing, 12 issuer, 13 issuance, 14 Secret, 15 gateway and edge, 16 renewal,
# 17 backup, 18 access to the cluster, 19 the domain itself. A code is never used again, also not after its kind is
# gone.


def _kind(code: str, title: str, severity: Severity, handling: Handling) -> FindingKind:
    return FindingKind(code=code, title=title, severity=severity, handling=handling)


KUBERNETES_VERSION_UNSUPPORTED = _kind("CW1001", "KubernetesVersionUnsupported", Severity.ERROR, Handling.OPERATOR)
ISTIO_VERSION_UNSUPPORTED = _kind("CW1002", "IstioVersionUnsupported", Severity.WARNING, Handling.OPERATOR)
ISTIO_MISSING = _kind("CW1003", "IstioMissing", Severity.ERROR, Handling.OPERATOR)
GATEWAY_WORKLOAD_MISSING = _kind("CW1004", "GatewayWorkloadMissing", Severity.ERROR, Handling.OPERATOR)
GATEWAY_ADDRESS_MISSING = _kind("CW1005", "GatewayAddressMissing", Severity.WARNING, Handling.OPERATOR)
CERT_MANAGER_TWICE = _kind("CW1006", "CertManagerTwice", Severity.ERROR, Handling.OPERATOR)
CERT_MANAGER_FOREIGN = _kind("CW1007", "CertManagerForeign", Severity.ERROR, Handling.OPERATOR)
CERT_MANAGER_NEWER = _kind("CW1008", "CertManagerNewer", Severity.ERROR, Handling.OPERATOR)
CERT_MANAGER_VERSION_BROKEN = _kind("CW1009", "CertManagerVersionBroken", Severity.ERROR, Handling.OPERATOR)
RELEASE_FAILED = _kind("CW1010", "ReleaseFailed", Severity.ERROR, Handling.OPERATOR)
RELEASE_BUSY = _kind("CW1011", "ReleaseBusy", Severity.ERROR, Handling.OPERATOR)
PODS_NOT_READY = _kind("CW1012", "PodsNotReady", Severity.ERROR, Handling.OPERATOR)
WEBHOOK_NOT_ANSWERING = _kind("CW1013", "WebhookNotAnswering", Severity.ERROR, Handling.OPERATOR)
CANARY_NOT_ISSUED = _kind("CW1014", "CanaryNotIssued", Severity.ERROR, Handling.OPERATOR)
CERT_MANAGER_MISSING = _kind("CW1015", "CertManagerMissing", Severity.ERROR, Handling.OPERATOR)
CERT_MANAGER_ADOPTED = _kind("CW1016", "CertManagerAdopted", Severity.NOTE, Handling.OPERATOR)
MONITORING_KIND_MISSING = _kind("CW1017", "MonitoringKindMissing", Severity.WARNING, Handling.OPERATOR)
VALUES_NOT_OURS = _kind("CW1018", "ValuesNotOurs", Severity.WARNING, Handling.OPERATOR)
ADDITION_FOREIGN = _kind("CW1019", "AdditionForeign", Severity.ERROR, Handling.OPERATOR)
ADDITION_KEPT = _kind("CW1020", "AdditionKept", Severity.WARNING, Handling.OPERATOR)
CERT_MANAGER_IN_MESH = _kind("CW1030", "CertManagerInMesh", Severity.WARNING, Handling.OPERATOR)
GATEWAY_PORT_MISSING = _kind("CW1031", "GatewayPortMissing", Severity.ERROR, Handling.OPERATOR)
CERT_MANAGER_NOT_RUNNING = _kind("CW1050", "CertManagerNotRunning", Severity.ERROR, Handling.OPERATOR)
CERT_MANAGER_FORBIDDEN = _kind("CW1051", "CertManagerForbidden", Severity.ERROR, Handling.OPERATOR)

NAME_DOES_NOT_RESOLVE = _kind("CW1101", "NameDoesNotResolve", Severity.ERROR, Handling.CUSTOMER)
NAME_POINTS_ELSEWHERE = _kind("CW1102", "NamePointsElsewhere", Severity.ERROR, Handling.CUSTOMER)
NAME_POINTS_PARTLY = _kind("CW1103", "NamePointsPartly", Severity.ERROR, Handling.CUSTOMER)
NAME_NOT_LOOKED_UP = _kind("CW1104", "NameNotLookedUp", Severity.WARNING, Handling.RETRY)
NAME_IN_MOTION = _kind("CW1105", "NameInMotion", Severity.WARNING, Handling.RETRY)
DNSSEC_BROKEN = _kind("CW1106", "DnssecBroken", Severity.ERROR, Handling.CUSTOMER)
NAME_PROXIED = _kind("CW1107", "NameProxied", Severity.ERROR, Handling.CUSTOMER)

ISSUER_MISSING = _kind("CW1201", "IssuerMissing", Severity.ERROR, Handling.OPERATOR)
ISSUER_NOT_READY = _kind("CW1202", "IssuerNotReady", Severity.ERROR, Handling.OPERATOR)
ACCOUNT_NOT_REGISTERED = _kind("CW1203", "AccountNotRegistered", Severity.ERROR, Handling.OPERATOR)
ISSUER_CONFIGURATION_INVALID = _kind("CW1204", "IssuerConfigurationInvalid", Severity.ERROR, Handling.OPERATOR)
ISSUER_CA_UNREACHABLE = _kind("CW1205", "IssuerCaUnreachable", Severity.ERROR, Handling.RETRY)
CREDENTIALS_MISSING = _kind("CW1206", "CredentialsMissing", Severity.ERROR, Handling.OPERATOR)
CREDENTIALS_NOT_CHECKED = _kind("CW1207", "CredentialsNotChecked", Severity.WARNING, Handling.OPERATOR)
REHEARSAL_ISSUER_MISSING = _kind("CW1260", "RehearsalIssuerMissing", Severity.ERROR, Handling.OPERATOR)
REHEARSAL_NOT_SET = _kind("CW1261", "RehearsalNotSet", Severity.NOTE, Handling.OPERATOR)
ACCOUNT_KEY_UNUSABLE = _kind("CW1250", "AccountKeyUnusable", Severity.ERROR, Handling.OPERATOR)
ACCOUNT_REFUSED = _kind("CW1251", "AccountRefused", Severity.ERROR, Handling.OPERATOR)

ORDER_FAILED = _kind("CW1301", "OrderFailed", Severity.ERROR, Handling.OPERATOR)
RATE_LIMITED = _kind("CW1302", "RateLimited", Severity.ERROR, Handling.CA)
CHALLENGE_FAILED = _kind("CW1303", "ChallengeFailed", Severity.ERROR, Handling.CUSTOMER)
CHALLENGE_NOT_REACHABLE = _kind("CW1304", "ChallengeNotReachable", Severity.WARNING, Handling.RETRY)
CAA_FORBIDS = _kind("CW1305", "CaaForbids", Severity.ERROR, Handling.CUSTOMER)
ACCOUNT_PAUSED = _kind("CW1306", "AccountPaused", Severity.ERROR, Handling.OPERATOR)
NO_SOLVER = _kind("CW1307", "NoSolver", Severity.ERROR, Handling.OPERATOR)
REQUEST_DENIED = _kind("CW1308", "RequestDenied", Severity.ERROR, Handling.OPERATOR)
REQUEST_DEADLOCK = _kind("CW1309", "RequestDeadlock", Severity.ERROR, Handling.OPERATOR)
ISSUANCE_FAILED = _kind("CW1310", "IssuanceFailed", Severity.ERROR, Handling.OPERATOR)
ISSUANCE_BACKING_OFF = _kind("CW1311", "IssuanceBackingOff", Severity.WARNING, Handling.CA)
NAME_REJECTED = _kind("CW1312", "NameRejected", Severity.ERROR, Handling.CUSTOMER)
ISSUANCE_TIMED_OUT = _kind("CW1313", "IssuanceTimedOut", Severity.ERROR, Handling.OPERATOR)
CAA_NOT_LOOKED_UP = _kind("CW1314", "CaaNotLookedUp", Severity.WARNING, Handling.RETRY)
CAA_NOT_JUDGED = _kind("CW1315", "CaaNotJudged", Severity.WARNING, Handling.OPERATOR)
CAA_FORBIDS_AT_TARGET = _kind("CW1316", "CaaForbidsAtTarget", Severity.ERROR, Handling.OPERATOR)
CHALLENGE_PATH_REDIRECTED = _kind("CW1317", "ChallengePathRedirected", Severity.ERROR, Handling.OPERATOR)
CHALLENGE_PATH_FORBIDDEN = _kind("CW1318", "ChallengePathForbidden", Severity.ERROR, Handling.OPERATOR)
CHALLENGE_PATH_UNAVAILABLE = _kind("CW1319", "ChallengePathUnavailable", Severity.ERROR, Handling.RETRY)
CHALLENGE_PATH_CLOSED = _kind("CW1320", "ChallengePathClosed", Severity.ERROR, Handling.OPERATOR)
CHALLENGE_PATH_ELSEWHERE = _kind("CW1321", "ChallengePathElsewhere", Severity.ERROR, Handling.CUSTOMER)
CHALLENGE_PATH_NOT_PROBED = _kind("CW1322", "ChallengePathNotProbed", Severity.WARNING, Handling.RETRY)
QUOTA_USED_UP = _kind("CW1323", "QuotaUsedUp", Severity.ERROR, Handling.CA)
KEY_NOT_ACCEPTED = _kind("CW1330", "KeyNotAccepted", Severity.ERROR, Handling.CUSTOMER)
TOO_MANY_NAMES = _kind("CW1331", "TooManyNames", Severity.ERROR, Handling.CUSTOMER)
USAGE_NOT_GRANTED = _kind("CW1332", "UsageNotGranted", Severity.ERROR, Handling.CUSTOMER)
LIFE_TOO_LONG = _kind("CW1333", "LifeTooLong", Severity.ERROR, Handling.CUSTOMER)
NAME_NOT_PROVABLE = _kind("CW1334", "NameNotProvable", Severity.ERROR, Handling.CUSTOMER)
SUBJECT_NOT_SIGNED = _kind("CW1335", "SubjectNotSigned", Severity.ERROR, Handling.CUSTOMER)
CHALLENGE_ALIAS_ENDLESS = _kind("CW1340", "ChallengeAliasEndless", Severity.ERROR, Handling.CUSTOMER)
CHALLENGE_ALIAS_NOT_FOLLOWED = _kind("CW1341", "ChallengeAliasNotFollowed", Severity.ERROR, Handling.OPERATOR)
CHALLENGE_CAUGHT_BY_WILDCARD = _kind("CW1342", "ChallengeCaughtByWildcard", Severity.ERROR, Handling.CUSTOMER)
CHALLENGE_ZONE_NOT_OURS = _kind("CW1343", "ChallengeZoneNotOurs", Severity.ERROR, Handling.CUSTOMER)
CHALLENGE_ZONE_ELSEWHERE = _kind("CW1344", "ChallengeZoneElsewhere", Severity.WARNING, Handling.OPERATOR)
CHALLENGE_ZONE_MISSING = _kind("CW1345", "ChallengeZoneMissing", Severity.ERROR, Handling.CUSTOMER)
DELEGATION_NOT_LOOKED_UP = _kind("CW1346", "DelegationNotLookedUp", Severity.WARNING, Handling.RETRY)
UPDATE_REFUSED = _kind("CW1347", "UpdateRefused", Severity.ERROR, Handling.OPERATOR)
UPDATE_NOT_SEEN = _kind("CW1348", "UpdateNotSeen", Severity.WARNING, Handling.OPERATOR)
CHALLENGE_RECORDS_LEFT = _kind("CW1349", "ChallengeRecordsLeft", Severity.WARNING, Handling.OPERATOR)
CERTIFICATE_MISSING = _kind("CW1350", "CertificateMissing", Severity.ERROR, Handling.OPERATOR)
REQUEST_NOT_APPROVED = _kind("CW1351", "RequestNotApproved", Severity.ERROR, Handling.OPERATOR)
ORDER_NOT_TAKEN = _kind("CW1352", "OrderNotTaken", Severity.ERROR, Handling.RETRY)
CHALLENGE_NOT_PRESENTED = _kind("CW1353", "ChallengeNotPresented", Severity.ERROR, Handling.OPERATOR)
SOLVER_NOT_READY = _kind("CW1354", "SolverNotReady", Severity.ERROR, Handling.OPERATOR)
CHALLENGE_NOT_ROUTED = _kind("CW1355", "ChallengeNotRouted", Severity.ERROR, Handling.OPERATOR)
CHALLENGE_NOT_FINALIZED = _kind("CW1356", "ChallengeNotFinalized", Severity.ERROR, Handling.OPERATOR)
REHEARSAL_FAILED = _kind("CW1360", "RehearsalFailed", Severity.ERROR, Handling.RETRY)
QUOTA_TURN_OVER = _kind("CW1370", "QuotaTurnOver", Severity.WARNING, Handling.RETRY)

SECRET_MISSING = _kind("CW1401", "SecretMissing", Severity.ERROR, Handling.RETRY)
SECRET_UNREADABLE = _kind("CW1402", "SecretUnreadable", Severity.ERROR, Handling.OPERATOR)
KEY_DOES_NOT_MATCH = _kind("CW1403", "KeyDoesNotMatch", Severity.ERROR, Handling.OPERATOR)
NAME_NOT_COVERED = _kind("CW1404", "NameNotCovered", Severity.ERROR, Handling.OPERATOR)
CERTIFICATE_EXPIRED = _kind("CW1405", "CertificateExpired", Severity.ERROR, Handling.OPERATOR)
CERTIFICATE_NOT_YET_VALID = _kind("CW1406", "CertificateNotYetValid", Severity.ERROR, Handling.RETRY)
SECRET_COLLISION = _kind("CW1407", "SecretCollision", Severity.ERROR, Handling.OPERATOR)
SECRET_IN_OTHER_NAMESPACE = _kind("CW1408", "SecretInOtherNamespace", Severity.ERROR, Handling.OPERATOR)
TEMPORARY_CERTIFICATE = _kind("CW1409", "TemporaryCertificate", Severity.ERROR, Handling.RETRY)
KEYSTORE_PASSWORD_MISSING = _kind("CW1410", "KeystorePasswordMissing", Severity.ERROR, Handling.OPERATOR)
KEYSTORE_MISSING = _kind("CW1411", "KeystoreMissing", Severity.ERROR, Handling.OPERATOR)

NAME_ON_OTHER_GATEWAY = _kind("CW1501", "NameOnOtherGateway", Severity.ERROR, Handling.OPERATOR)
NAME_ON_OTHER_CERTIFICATE = _kind("CW1502", "NameOnOtherCertificate", Severity.WARNING, Handling.OPERATOR)
EDGE_UNREACHABLE = _kind("CW1503", "EdgeUnreachable", Severity.ERROR, Handling.RETRY)
EDGE_HANDSHAKE_FAILED = _kind("CW1504", "EdgeHandshakeFailed", Severity.ERROR, Handling.OPERATOR)
EDGE_SERVES_OTHER_CERTIFICATE = _kind("CW1505", "EdgeServesOtherCertificate", Severity.ERROR, Handling.OPERATOR)
EDGE_CHAIN_UNTRUSTED = _kind("CW1506", "EdgeChainUntrusted", Severity.ERROR, Handling.OPERATOR)
EDGE_REDIRECT_WRONG = _kind("CW1507", "EdgeRedirectWrong", Severity.ERROR, Handling.OPERATOR)
ROUTE_NOT_ANSWERING = _kind("CW1508", "RouteNotAnswering", Severity.ERROR, Handling.OPERATOR)
EDGE_ADDRESS_REFUSED = _kind("CW1509", "EdgeAddressRefused", Severity.ERROR, Handling.OPERATOR)
GATEWAY_BINDING_UNDONE = _kind("CW1510", "GatewayBindingUndone", Severity.WARNING, Handling.OPERATOR)
CLIENT_CA_MISSING = _kind("CW1511", "ClientCaMissing", Severity.ERROR, Handling.OPERATOR)
CLIENT_CA_UNFIT = _kind("CW1512", "ClientCaUnfit", Severity.ERROR, Handling.OPERATOR)
EDGE_ACCEPTS_FORBIDDEN = _kind("CW1513", "EdgeAcceptsForbidden", Severity.ERROR, Handling.OPERATOR)
EDGE_REFUSES_ALLOWED = _kind("CW1514", "EdgeRefusesAllowed", Severity.ERROR, Handling.OPERATOR)
HSTS_WRONG = _kind("CW1515", "HstsWrong", Severity.ERROR, Handling.OPERATOR)
CREDENTIAL_MISSING = _kind("CW1550", "CredentialMissing", Severity.ERROR, Handling.OPERATOR)
GATEWAY_MAY_NOT_READ_SECRETS = _kind("CW1551", "GatewayMayNotReadSecrets", Severity.ERROR, Handling.OPERATOR)

RENEWAL_OVERDUE = _kind("CW1601", "RenewalOverdue", Severity.WARNING, Handling.OPERATOR)
EXPIRY_NEAR = _kind("CW1602", "ExpiryNear", Severity.ERROR, Handling.OPERATOR)
EXPIRY_IMMINENT = _kind("CW1603", "ExpiryImminent", Severity.ERROR, Handling.OPERATOR)
STALE_AT_EDGE = _kind("CW1604", "StaleAtEdge", Severity.ERROR, Handling.OPERATOR)
RENEWAL_NOT_SEEN = _kind("CW1605", "RenewalNotSeen", Severity.WARNING, Handling.RETRY)
DOMAIN_UNATTENDED = _kind("CW1606", "DomainUnattended", Severity.ERROR, Handling.OPERATOR)

BACKUP_NOT_CONFIGURED = _kind("CW1701", "BackupNotConfigured", Severity.ERROR, Handling.OPERATOR)
BACKUP_DAMAGED = _kind("CW1702", "BackupDamaged", Severity.ERROR, Handling.OPERATOR)
BACKUP_NOT_OPENED = _kind("CW1703", "BackupNotOpened", Severity.WARNING, Handling.OPERATOR)
BACKUP_DIFFERS = _kind("CW1704", "BackupDiffers", Severity.WARNING, Handling.RETRY)
BACKUP_SECRET_MISSING = _kind("CW1705", "BackupSecretMissing", Severity.WARNING, Handling.OPERATOR)
RESTORE_WOULD_OVERWRITE = _kind("CW1706", "RestoreWouldOverwrite", Severity.WARNING, Handling.OPERATOR)
RESTORE_DIFFERS = _kind("CW1707", "RestoreDiffers", Severity.ERROR, Handling.OPERATOR)

PERMISSION_MISSING = _kind("CW1801", "PermissionMissing", Severity.ERROR, Handling.OPERATOR)
OBJECT_REJECTED = _kind("CW1803", "ObjectRejected", Severity.ERROR, Handling.OPERATOR)
RESOURCE_KIND_MISSING = _kind("CW1804", "ResourceKindMissing", Severity.ERROR, Handling.OPERATOR)
FIELD_CONFLICT = _kind("CW1805", "FieldConflict", Severity.ERROR, Handling.OPERATOR)

DOMAIN_SUSPENDED = _kind("CW1901", "DomainSuspended", Severity.ERROR, Handling.CUSTOMER)
STEP_FAILED = _kind("CW1902", "StepFailed", Severity.ERROR, Handling.OPERATOR)
SURROUNDINGS_BROKEN = _kind("CW1903", "SurroundingsBroken", Severity.WARNING, Handling.RETRY)
HOSTNAME_NOT_AVAILABLE = _kind("CW1904", "HostnameNotAvailable", Severity.ERROR, Handling.CUSTOMER)
UNDO_INCOMPLETE = _kind("CW1905", "UndoIncomplete", Severity.ERROR, Handling.OPERATOR)


def catalogue() -> tuple[FindingKind, ...]:
    """Every kind there is, by code; `docs/findings.md` has one heading for each."""
    return tuple(sorted((kind for kind in globals().values() if isinstance(kind, FindingKind)), key=lambda k: k.code))
