"""Every workflow, for those who run or replay them; no workflow imports this.

Not in the package's own `__init__`: a sandbox imports a definition's package with it, anew for each workflow in a
worker's cache, so all definitions would be held in memory once for each.
"""

from __future__ import annotations

from workflows.backup import Backup
from workflows.certificate import CertificateIssuance
from workflows.domain import DomainOnboarding
from workflows.gateway import GatewayBinding
from workflows.issuer import IssuerInspection, IssuerSetup
from workflows.platform import PlatformInstallation
from workflows.quota import IssuanceQuota
from workflows.reservation import HostnameReservation
from workflows.restore import Restore
from workflows.review import FleetReview

WORKFLOWS: tuple[type, ...] = (
    PlatformInstallation,
    IssuerSetup,
    IssuerInspection,
    DomainOnboarding,
    HostnameReservation,
    IssuanceQuota,
    CertificateIssuance,
    GatewayBinding,
    FleetReview,
    Backup,
    Restore,
)
"""Every workflow, in the order of a domain's life; a worker of the queue `certwright-workflows` runs them all."""
