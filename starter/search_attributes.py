"""The typed search attributes under which domains are found, created where they are missing."""

from __future__ import annotations

from datetime import timedelta

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client, RPCError
from temporalio.service import RPCStatusCode

from activities.temporal import away_if_unreachable
from lifecycle import queues
from lifecycle.queues import AttributeType

_TYPES = {
    AttributeType.KEYWORD: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    AttributeType.BOOL: IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
    AttributeType.DATETIME: IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
}

_CALL = timedelta(seconds=10)


class WrongTypeError(Exception):
    """An attribute of ours is there with another type; `str` says which."""


async def apply(client: Client) -> tuple[str, ...]:
    """The names of those that were made now. Raises WrongTypeError, TemporalAwayError."""
    with away_if_unreachable():
        present = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace), timeout=_CALL
        )
        there = dict(present.custom_attributes)
        wrong = [
            one.name for one in queues.SEARCH_ATTRIBUTES if there.get(one.name, _TYPES[one.type]) != _TYPES[one.type]
        ]
        if wrong:
            raise WrongTypeError(
                f"{', '.join(wrong)}: there with another type in the namespace {client.namespace}; "
                "use a namespace of your own"
            )
        missing = {one.name: _TYPES[one.type] for one in queues.SEARCH_ATTRIBUTES if one.name not in there}
        if missing:
            try:
                await client.operator_service.add_search_attributes(
                    AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing), timeout=_CALL
                )
            except RPCError as error:
                if error.status is not RPCStatusCode.ALREADY_EXISTS:  # somebody else was a little faster
                    raise
    return tuple(missing)
