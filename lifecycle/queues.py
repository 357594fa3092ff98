"""Which queue does which work, and under which search attributes a domain is found.

Queues are cut by blast radius: a worker that may write to the cluster is not the one that connects to customers'
addresses, and Helm's process does not sit beside either. What runs on a queue is the worker's to say; how the search
attributes are created is the starter's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

WORKFLOWS = "certwright-workflows"
CLUSTER = "certwright-cluster"
PROBE = "certwright-probe"
PLATFORM = "certwright-platform"

QUEUES = (WORKFLOWS, CLUSTER, PROBE, PLATFORM)

# Lower is sooner (Temporal's task queue priority, 1..5): a certificate that runs out comes before a new customer.
PRIORITY_RENEWAL = 2
PRIORITY_ONBOARDING = 3
PRIORITY_REVIEW = 4


class AttributeType(StrEnum):
    """The types of Temporal's visibility store that we use."""

    KEYWORD = "Keyword"
    BOOL = "Bool"
    DATETIME = "Datetime"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchAttribute:
    """A typed search attribute. SQL visibility stores have room for ten keywords and three of each other type."""

    name: str
    type: AttributeType


TENANT = SearchAttribute(name="Tenant", type=AttributeType.KEYWORD)
DOMAIN_PHASE = SearchAttribute(name="DomainPhase", type=AttributeType.KEYWORD)
ROUTING_STATUS = SearchAttribute(name="RoutingStatus", type=AttributeType.KEYWORD)
CERTIFICATE_STATUS = SearchAttribute(name="CertificateStatus", type=AttributeType.KEYWORD)
SERVING_STATUS = SearchAttribute(name="ServingStatus", type=AttributeType.KEYWORD)
ACTION_REQUIRED = SearchAttribute(name="ActionRequired", type=AttributeType.BOOL)
ISSUER_NAME = SearchAttribute(name="IssuerName", type=AttributeType.KEYWORD)
GATEWAY = SearchAttribute(name="Gateway", type=AttributeType.KEYWORD)
NOT_AFTER = SearchAttribute(name="NotAfter", type=AttributeType.DATETIME)
NEXT_CHECK_AT = SearchAttribute(name="NextCheckAt", type=AttributeType.DATETIME)

SEARCH_ATTRIBUTES = (
    TENANT,
    DOMAIN_PHASE,
    ROUTING_STATUS,
    CERTIFICATE_STATUS,
    SERVING_STATUS,
    ACTION_REQUIRED,
    ISSUER_NAME,
    GATEWAY,
    NOT_AFTER,
    NEXT_CHECK_AT,
)

# The one error type by which a door learns that a name is not to be had; its message says nothing about the owner.
HOSTNAME_TAKEN = "HostnameTaken"
