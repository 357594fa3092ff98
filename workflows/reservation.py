"""`HostnameReservation`: one further name of a domain is held, so that nobody else can ask for it.

It has the id that a domain of this name would have, so that one name has one owner; it does nothing else.
"""

from __future__ import annotations

from temporalio import workflow
from temporalio.common import VersioningBehavior
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from lifecycle import queues
    from lifecycle.domain import OnboardingRequest
    from lifecycle.steps import DomainAnswer, Reservation


@workflow.defn(versioning_behavior=VersioningBehavior.AUTO_UPGRADE)
class HostnameReservation:
    """Lives until its owner lets the name go. It may upgrade at any time: it issues no command."""

    @workflow.init
    def __init__(self, reservation: Reservation) -> None:
        self._reservation = reservation
        self._released = False

    @workflow.run
    async def run(self, reservation: Reservation) -> Reservation:
        """What was held."""
        workflow.set_current_details(f"Held for the domain with the workflow id {reservation.owner}.")
        await workflow.wait_condition(lambda: self._released)
        return reservation

    @workflow.signal
    def release(self, owner: str) -> None:
        """The owner lets the name go; a word of anybody else is not heard."""
        if owner == self._reservation.owner:
            self._released = True

    @workflow.query
    def owner(self) -> Reservation:
        """Who holds the name; for our own activities, never for a customer."""
        return self._reservation

    @workflow.update
    async def onboard(self, request: OnboardingRequest) -> DomainAnswer:
        """Never: the name is held."""
        raise _taken(request.hostname)  # pragma: no cover - the validator refuses first

    @onboard.validator
    def _refuse(self, request: OnboardingRequest) -> None:
        raise _taken(request.hostname)


def _taken(hostname: str) -> ApplicationError:
    return ApplicationError(f"{hostname} is not available", type=queues.HOSTNAME_TAKEN, non_retryable=True)
