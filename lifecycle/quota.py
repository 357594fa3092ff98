"""Who may order a certificate now, and when may the others? One ledger for each ACME account.

Everybody who means to order asks first, and is granted when every bucket that the order may take from has one left:
lanes in strict order (about to expire, renewal, new), within a lane the tenants in turn (start-time fair queueing: each
request gets a turn when it is asked, and a tenant's turns are apart by one). A grant holds one in each bucket until its
outcome is known or its lease is over, since the CA counts when the order reaches it, which may be any moment in
between; what was not used goes back, and what nobody knows is taken for used. So the CA never refuses, in whatever
order and however late orders reach it.

Pure: time is an argument, and a `Ledger` is made from a `QuotaState` and gives one. Whoever asks says the registered
domains, which change with the Public Suffix List, so that a workflow's replay does not. Left out: the limits
themselves (`rate_limits`), and sending the answers.
"""

from __future__ import annotations

import hashlib
import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from lifecycle.names import workflow_id
from lifecycle.rate_limits import (
    LONGEST,
    UNTOLD,
    Limit,
    LimitKind,
    Throttle,
    by_kind,
    emptied,
    expected_at,
    free_at,
    taken,
)

LEASE = timedelta(minutes=75)
"""A little more than an issuance may take (an hour): its outcome is known before."""

MOST_NAMES_WAITING = 5_000
"""Names in the queue: with a few hundred octets each, the state stays well under Temporal's 2 MB for one payload. It is
two days of Let's Encrypt's orders; who comes later is told when to ask again."""

REMEMBERED = timedelta(days=1)
"""An ended request's id is known for so long: far beyond any repetition of a signal."""

MOST_REMEMBERED = 5_000

SOONEST_APPOINTMENT = timedelta(minutes=10)
"""Who finds the queue full asks again no sooner; after that, one for each refill of the account."""

ANSWER_SIGNAL = "quota_answered"
"""The signal by which an owner hears, with a `QuotaAnswer`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HASH_DIGITS = 16
_UNLIMITED = 10**9


class Lane(StrEnum):
    """How urgent it is; the first lane goes first."""

    EXPIRING = "expiring"
    RENEWAL = "renewal"
    NEW = "new"


LANES = (Lane.EXPIRING, Lane.RENEWAL, Lane.NEW)

PATIENCE = {Lane.EXPIRING: timedelta(hours=1), Lane.RENEWAL: timedelta(days=1)}
"""Longest waits that do no harm: a tenth of the life left is 16 hours with the shortest profile (160 h), and a third is
two days; new ones wait for as long as there are. Held by the order of the lanes; `benchmarks/quota_simulation.py`."""


class Exemption(StrEnum):
    """What a CA makes of the order (Let's Encrypt, "Rate Limits": Limit Exemptions for Renewals)."""

    NONE = "none"
    RENEWAL = "renewal"
    """The exact set of names had a certificate before: limits that do not count renewals do not apply."""
    ARI = "ari"
    """It replaces a certificate by ARI (RFC 9773, section 5): no limit applies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaRequest:
    """Somebody means to order.

    Attributes:
        id: the asker's; asking twice with one is asking once, and tells the place anew.
        owner: id of the workflow that hears the answer.
        registered_domains: of all hostnames (`registered_domain.registered_domains`).
    """

    id: str
    owner: str
    tenant: str
    hostnames: tuple[str, ...]
    registered_domains: tuple[str, ...]
    lane: Lane = Lane.NEW
    exemption: Exemption = Exemption.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaAsk:
    """A request by an Update, whose answer is the first one; with the limits that the asker's worker knows."""

    request: QuotaRequest
    limits: tuple[Limit, ...] = ()


class AnswerKind(StrEnum):
    """What became of a request."""

    GRANTED = "granted"
    """Order before `at`; then tell the outcome."""
    WAITING = "waiting"
    """In the queue at `place`; expected at `at`."""
    DEFERRED = "deferred"
    """The queue is full: ask again at `at`."""
    OVER = "over"
    """This id had its grant, and that is over: ask with another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaAnswer:
    """The answer to one request; `place` counts from 1."""

    request_id: str
    owner: str
    kind: AnswerKind
    at: datetime
    place: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a grant; also how a request is withdrawn (nothing ordered).

    Attributes:
        orders: how many reached the CA and were taken.
        issued: whether a certificate was.
        failed: the names that the CA could not validate.
        throttle: the CA's refusal, if that was the end.
    """

    request_id: str
    orders: int = 0
    issued: bool = False
    failed: tuple[str, ...] = ()
    throttle: Throttle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastOrder:
    """An order that was not asked for here, as the cluster shows it: what to learn from."""

    at: datetime
    hostnames: tuple[str, ...]
    registered_domains: tuple[str, ...]
    exemption: Exemption = Exemption.NONE
    issued: bool = True
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PastOrders:
    """Several, as one argument."""

    orders: tuple[PastOrder, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLimits:
    """An account's limits, as one argument."""

    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A bucket that is not full: until `full_at`."""

    kind: LimitKind
    key: str
    full_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A request in the queue: its turn in the lane, and its number among all that ever came."""

    request: QuotaRequest
    turn: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A grant that is under way.

    Attributes:
        failing: the counts of consecutive failures when it was granted; a success ends those, and no later ones.
    """

    request: QuotaRequest
    until: datetime
    failing: tuple[Level, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An id that had its grant."""

    request_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The last turn that a tenant was given in a lane."""

    lane: Lane
    tenant: str
    turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The turn that a lane has come to."""

    lane: Lane
    turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaState:
    """All that an account's quota knows; what a run hands to the next.

    Attributes:
        unread: requests that came and were not looked at yet; the workflow's, a ledger hands them on as they are.
    """

    account: str
    limits: tuple[Limit, ...]
    levels: tuple[Level, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    leases: tuple[Lease, ...] = ()
    ended: tuple[Ended, ...] = ()
    turns: tuple[Turn, ...] = ()
    clocks: tuple[Clock, ...] = ()
    number: int = 0
    paused_until: datetime | None = None
    appointment: datetime | None = None
    learned_until: datetime | None = None
    unread: tuple[QuotaRequest, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a request stands: its place among all that wait, and when it is granted if nobody comes in front."""

    request_id: str
    lane: Lane
    place: int
    expected_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaOverview:
    """What a person sees: counts, and who is next (at most as many as asked for).

    Attributes:
        next_at: when something will happen by itself; None where nothing waits.
    """

    account: str
    waiting: int
    under_way: int
    lanes: tuple[tuple[str, int], ...] = ()
    next: tuple[Place, ...] = ()
    next_at: datetime | None = None
    paused_until: datetime | None = None


def quota_id(account: str) -> str:
    """`IssuanceQuota` of an ACME account: its URL at the CA, or the issuer's name where that is not known."""
    return workflow_id("quota", account)


def opened(account: str, limits: tuple[Limit, ...], past: Iterable[PastOrder], now: datetime) -> QuotaState:
    """The state in which an account's quota begins: what the cluster already shows is counted."""
    ledger = Ledger(QuotaState(account=account, limits=limits))
    ledger.learn(past)
    return ledger.state(now)


_Key = tuple[LimitKind, str]
_Order = tuple[int, int]

_ACCOUNT: _Key = (LimitKind.ORDERS, "")
"""The one bucket that nearly all take from: thousands need not be looked at one by one where it is empty."""


class _Entry:
    """A request in memory, with the buckets it takes from."""

    __slots__ = ("failing", "keys", "number", "orders", "request", "turn", "until")

    def __init__(self, request: QuotaRequest, turn: int, number: int, keys: tuple[_Key, ...]) -> None:
        self.request, self.turn, self.number, self.keys = request, turn, number, keys
        self.orders = _ACCOUNT in keys
        self.until = _EPOCH
        self.failing: dict[_Key, datetime] = {}

    @property
    def order(self) -> _Order:
        return self.turn, self.number


class Ledger:
    """The decisions over one state. Deterministic: the same calls with the same times give the same answers."""

    def __init__(self, state: QuotaState) -> None:
        self._account = state.account
        self._given_limits: tuple[Limit, ...] = ()
        self._limits: dict[LimitKind, Limit] = {}
        self.allow(state.limits)
        self._full_at: dict[_Key, datetime] = {(one.kind, one.key): one.full_at for one in state.levels}
        self._held: Counter[_Key] = Counter()
        self._entries: dict[str, _Entry] = {}
        self._lanes: dict[Lane, list[tuple[_Order, str]]] = {lane: [] for lane in LANES}
        self._leases: dict[str, _Entry] = {}
        self._ended = {one.request_id: one.at for one in state.ended}
        self._turns = {(one.lane, one.tenant): one.turn for one in state.turns}
        self._clocks = dict.fromkeys(LANES, 0) | {one.lane: one.turn for one in state.clocks}
        self._number = state.number
        self._paused_until = state.paused_until
        self._appointment = state.appointment
        self._learned_until = state.learned_until
        self._names_waiting = 0
        for waiting in state.waiting:
            self._enqueue(_Entry(waiting.request, waiting.turn, waiting.number, self._keys(waiting.request)))
        for lease in state.leases:
            entry = _Entry(lease.request, 0, 0, self._keys(lease.request))
            entry.until = lease.until
            entry.failing = {(one.kind, one.key): one.full_at for one in lease.failing}
            self._leases[lease.request.id] = entry
            self._held.update(entry.keys)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits that it was given."""
        return self._given_limits

    def state(self, now: datetime) -> QuotaState:
        """What a next ledger is made from; without what no longer matters at `now`."""
        return QuotaState(
            account=self._account,
            limits=self._given_limits,
            levels=tuple(
                Level(kind=kind, key=key, full_at=full_at)
                for (kind, key), full_at in self._full_at.items()
                if full_at > now
            ),
            waiting=tuple(
                Waiting(request=entry.request, turn=entry.turn, number=entry.number) for entry in self._entries.values()
            ),
            leases=tuple(
                Lease(
                    request=entry.request,
                    until=entry.until,
                    failing=tuple(
                        Level(kind=kind, key=key, full_at=full_at) for (kind, key), full_at in entry.failing.items()
                    ),
                )
                for entry in self._leases.values()
            ),
            ended=tuple(
                Ended(request_id=one, at=at)
                for one, at in list(self._ended.items())[-MOST_REMEMBERED:]
                if at + REMEMBERED > now
            ),
            turns=tuple(
                Turn(lane=lane, tenant=tenant, turn=turn)
                for (lane, tenant), turn in self._turns.items()
                if turn >= self._clocks[lane]
            ),
            clocks=tuple(Clock(lane=lane, turn=turn) for lane, turn in self._clocks.items() if turn),
            number=self._number,
            paused_until=self._paused_until,
            appointment=self._appointment,
            learned_until=self._learned_until,
        )

    # --- what happens -------------------------------------------------------------------------------------------------

    def step(
        self,
        now: datetime,
        *,
        asked: Iterable[QuotaRequest] = (),
        outcomes: Iterable[Outcome] = (),
        throttles: Iterable[Throttle] = (),
    ) -> tuple[QuotaAnswer, ...]:
        """Take in what came, grant what can be granted, and answer everybody whom that concerns."""
        for outcome in outcomes:
            self.end(outcome, now)
        for throttle in throttles:
            self.throttle(throttle, now)
        requests = {request.id: request for request in asked}
        answers = {answer.request_id: answer for request in requests.values() for answer in self.ask(request, now)}
        answers.update((answer.request_id, answer) for answer in self.grant(now))
        unanswered = [request for one, request in requests.items() if one not in answers]
        if unanswered:
            places = {place.request_id: place for place in self.places(now)}
            answers.update(
                (request.id, _answer(request, AnswerKind.WAITING, places[request.id].expected_at, places[request.id]))
                for request in unanswered
            )
        return tuple(answers.values())

    def ask(self, request: QuotaRequest, now: datetime) -> tuple[QuotaAnswer, ...]:
        """Put a request into the queue; answers only where it does not wait there, or another one had to leave it."""
        self._expire(now)
        if request.id in self._leases:
            return (_answer(request, AnswerKind.GRANTED, self._leases[request.id].until),)
        ended = self._ended.get(request.id)
        if ended is not None and now < ended + REMEMBERED:
            return (_answer(request, AnswerKind.OVER, ended),)
        before = self._entries.get(request.id)
        if before is not None:
            if LANES.index(request.lane) >= LANES.index(before.request.lane):
                return ()
            self._leave(request.id)  # it has become more urgent
        clock, last = self._clocks[request.lane], self._turns.get((request.lane, request.tenant))
        turn = clock if last is None else max(clock, last + 1)
        displaced: list[QuotaAnswer] = []
        while self._names_waiting + max(len(request.hostnames), 1) > MOST_NAMES_WAITING:
            last_one = self._last()
            if last_one is None or self._goes_before(last_one, request.lane, turn):
                return (*displaced, self._deferred(request, now))
            self._leave(last_one.request.id)
            displaced.append(self._deferred(last_one.request, now))
        self._turns[(request.lane, request.tenant)] = turn
        self._number += 1
        self._enqueue(_Entry(request, turn, self._number, self._keys(request)))
        return tuple(displaced)

    def grant(self, now: datetime) -> tuple[QuotaAnswer, ...]:
        """Everybody whose buckets all have one now, in the order of lanes and turns."""
        self._expire(now)
        if self._paused_until is not None and now < self._paused_until:
            return ()
        granted = []
        empty: set[_Key] = set()
        no_orders = False
        for lane in LANES:
            for (turn, _), request_id in list(self._lanes[lane]):
                entry = self._entries[request_id]
                if (entry.orders and no_orders) or not empty.isdisjoint(entry.keys):
                    continue
                short = [key for key in entry.keys if not self._has_one(key, now)]
                if short:
                    empty.update(short)
                    no_orders = _ACCOUNT in empty
                    continue
                self._leave(request_id)
                self._clocks[lane] = max(self._clocks[lane], turn)
                entry.until = now + LEASE
                entry.failing = {
                    key: self._full_at[key]
                    for key in entry.keys
                    if key[0] is LimitKind.CONSECUTIVE and key in self._full_at
                }
                self._leases[request_id] = entry
                self._held.update(entry.keys)
                granted.append(_answer(entry.request, AnswerKind.GRANTED, entry.until))
        return tuple(granted)

    def end(self, outcome: Outcome, now: datetime) -> None:
        """A grant was used, or not; or a request is withdrawn. What is unknown, or was told before, changes nothing."""
        self._expire(now)
        if outcome.request_id in self._entries:
            self._leave(outcome.request_id)
            return
        entry = self._leases.get(outcome.request_id)
        if outcome.throttle is not None:
            self.throttle(outcome.throttle, now, entry.request if entry else None)
        if entry is None:
            return
        failed = set(outcome.failed)
        self._release(entry, now)
        for kind, key in entry.keys:
            if kind is LimitKind.ORDERS:
                self._take((kind, key), now, outcome.orders)
            elif kind in (LimitKind.DOMAIN, LimitKind.EXACT_SET):
                self._take((kind, key), now, int(outcome.issued))
            elif key in failed:
                self._take((kind, key), now, 1)
            elif (
                kind is LimitKind.CONSECUTIVE
                and outcome.issued
                and self._full_at.get((kind, key)) == entry.failing.get((kind, key))
            ):
                self._full_at.pop((kind, key), None)  # unless another order failed since: who came first is unknown

    def throttle(self, throttle: Throttle, now: datetime, request: QuotaRequest | None = None) -> None:
        """The CA refuses: its word counts more than our arithmetic.

        Where it does not tell what it counted, the names that were refused wait for as long as it says, and everybody
        else for at most an hour: an unknown limit must not stop all renewals for days.

        Args:
            request: whose order was refused.
        """
        until = min(throttle.until, now + LONGEST)
        names = request.hostnames if request else ()
        own = {
            LimitKind.DOMAIN: request.registered_domains if request else (),
            LimitKind.EXACT_SET: (_set_key(names),) if request else (),
            LimitKind.FAILURES: names,
            LimitKind.CONSECUTIVE: names,
            LimitKind.ORDERS: ("",),
        }
        kind = throttle.kind or LimitKind.EXACT_SET
        keys = (throttle.key,) if throttle.key else own[kind]
        for key in keys:
            full_at = self._full_at.get((kind, key), _EPOCH)
            self._full_at[(kind, key)] = emptied(self._limits[kind], full_at, until)
        if throttle.kind is None or not keys:
            pause = min(until, now + UNTOLD)
            self._paused_until = max(pause, self._paused_until or pause)

    def allow(self, limits: tuple[Limit, ...]) -> None:
        """The limits of the account from now on. Of what is not limited there is always one, unless the CA refuses."""
        self._given_limits = limits
        unlimited = {kind: Limit(kind=kind, burst=_UNLIMITED, refill_seconds=0) for kind in LimitKind}
        self._limits = unlimited | by_kind(limits)

    def learn(self, past: Iterable[PastOrder]) -> None:
        """Count orders that were made without us. Told again, they change nothing: only what is later than the latest
        of an earlier telling counts. Orders that were granted here are not to be among them."""
        known_until = self._learned_until
        for order in sorted(past, key=lambda one: one.at):
            if known_until is not None and order.at <= known_until:
                continue
            self._learned_until = order.at
            request = QuotaRequest(
                id="",
                owner="",
                tenant="",
                hostnames=order.hostnames,
                registered_domains=order.registered_domains,
                exemption=order.exemption,
            )
            for kind, key in self._keys(request):
                counts = {
                    LimitKind.ORDERS: True,
                    LimitKind.DOMAIN: order.issued,
                    LimitKind.EXACT_SET: order.issued,
                }.get(kind, key in order.failed)
                self._take((kind, key), order.at, int(counts))

    # --- what will happen ---------------------------------------------------------------------------------------------

    def next_at(self, now: datetime) -> datetime | None:
        """The earliest instant after `now` at which something can be granted or a lease is over; None: never."""
        best = min((entry.until for entry in self._leases.values()), default=None)
        pause = self._paused_until or now
        known: dict[_Key, datetime | None] = {}

        def free(key: _Key) -> datetime | None:
            if key not in known:
                known[key] = free_at(self._limits[key[0]], self._full_at.get(key, _EPOCH), self._held[key])
            return known[key]

        orders = free(_ACCOUNT)
        for entry in self._entries.values():
            if entry.orders and (orders is None or (best is not None and orders >= best)):
                continue
            earliest = pause
            for key in entry.keys:
                at = free(key)
                if at is None:  # an end of a lease, or its outcome, comes first
                    break
                earliest = max(earliest, at)
            else:
                best = earliest if best is None else min(best, earliest)
        return best

    def places(self, now: datetime) -> tuple[Place, ...]:
        """Everybody who waits, in the order of the expected grants: if nobody comes, and each grant is used."""
        ahead = Counter(self._held)
        releases: list[tuple[datetime, int, _Entry]] = []
        queue = [self._entries[one] for lane in LANES for _, one in self._lanes[lane]]
        for index, entry in enumerate(queue):
            release = max(now, self._paused_until or now)
            for kind, key in entry.keys:
                if kind is not LimitKind.ORDERS:
                    release = max(release, self._expected((kind, key), ahead[(kind, key)], now))
                    ahead[(kind, key)] += 1
            releases.append((release, index, entry))
        expected = [one for one in releases if not one[2].orders]
        pending = sorted((one for one in releases if one[2].orders), key=lambda one: one[:2])
        ready: list[tuple[int, datetime, _Entry]] = []
        position, orders = 0, self._held[_ACCOUNT]
        while position < len(pending) or ready:
            at = max(now, self._expected(_ACCOUNT, orders, now))
            if not ready:
                at = max(at, pending[position][0])
            while position < len(pending) and pending[position][0] <= at:
                release, index, entry = pending[position]
                heapq.heappush(ready, (index, release, entry))
                position += 1
            index, _, entry = heapq.heappop(ready)
            expected.append((at, index, entry))
            orders += 1
        expected.sort(key=lambda one: one[:2])
        return tuple(
            Place(request_id=entry.request.id, lane=entry.request.lane, place=place, expected_at=at)
            for place, (at, _, entry) in enumerate(expected, start=1)
        )

    def place_of(self, owner: str, now: datetime) -> Place | None:
        """Where an owner's request stands; None where none of its waits."""
        ids = {one for one, entry in self._entries.items() if entry.request.owner == owner}
        return next((place for place in self.places(now) if place.request_id in ids), None) if ids else None

    def overview(self, now: datetime, most: int = 20) -> QuotaOverview:
        """For people."""
        return QuotaOverview(
            account=self._account,
            waiting=len(self._entries),
            under_way=len(self._leases),
            lanes=tuple((lane.value, len(self._lanes[lane])) for lane in LANES),
            next=self.places(now)[:most],
            next_at=self.next_at(now),
            paused_until=self._paused_until if self._paused_until and self._paused_until > now else None,
        )

    # --- inside -------------------------------------------------------------------------------------------------------

    def _keys(self, request: QuotaRequest) -> tuple[_Key, ...]:
        """The buckets that an order for these names may take from; the account's first, since it is empty most."""
        if request.exemption is Exemption.ARI:
            return ()
        keys = [_ACCOUNT]
        keys.extend((LimitKind.DOMAIN, domain) for domain in dict.fromkeys(request.registered_domains))
        keys.append((LimitKind.EXACT_SET, _set_key(request.hostnames)))
        names = tuple(dict.fromkeys(request.hostnames))
        keys.extend((kind, name) for kind in (LimitKind.FAILURES, LimitKind.CONSECUTIVE) for name in names)
        renewal = request.exemption is Exemption.RENEWAL
        return tuple((kind, key) for kind, key in keys if self._limits[kind].renewals_count or not renewal)

    def _has_one(self, key: _Key, now: datetime) -> bool:
        free = free_at(self._limits[key[0]], self._full_at.get(key, _EPOCH), self._held[key])
        return free is not None and free <= now

    def _expected(self, key: _Key, ahead: int, now: datetime) -> datetime:
        return expected_at(self._limits[key[0]], self._full_at.get(key, _EPOCH), ahead, now)

    def _take(self, key: _Key, at: datetime, number: int) -> None:
        if number > 0:
            self._full_at[key] = taken(self._limits[key[0]], self._full_at.get(key, _EPOCH), at, number)

    def _release(self, entry: _Entry, now: datetime) -> None:
        """A lease is over: nothing is held for it any more, and its id is not granted again."""
        del self._leases[entry.request.id]
        for key in entry.keys:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
        self._ended[entry.request.id] = now

    def _expire(self, now: datetime) -> None:
        """Of a grant without an outcome nobody knows what it did: it is taken to have done its worst, at the end."""
        over = sorted((entry for entry in self._leases.values() if entry.until <= now), key=lambda one: one.until)
        for entry in over:
            self._release(entry, entry.until)
            for key in entry.keys:
                self._take(key, entry.until, 1)

    def _enqueue(self, entry: _Entry) -> None:
        self._entries[entry.request.id] = entry
        insort(self._lanes[entry.request.lane], (entry.order, entry.request.id))
        self._names_waiting += max(len(entry.request.hostnames), 1)

    def _leave(self, request_id: str) -> None:
        entry = self._entries.pop(request_id)
        lane = self._lanes[entry.request.lane]
        del lane[bisect_left(lane, (entry.order, request_id))]
        self._names_waiting -= max(len(entry.request.hostnames), 1)

    def _last(self) -> _Entry | None:
        """Who would be granted last."""
        for lane in reversed(LANES):
            if self._lanes[lane]:
                return self._entries[self._lanes[lane][-1][1]]
        return None

    def _goes_before(self, entry: _Entry, lane: Lane, turn: int) -> bool:
        """Whether `entry` goes before a newcomer in `lane` at `turn`; it came earlier."""
        return (LANES.index(entry.request.lane), entry.turn) <= (LANES.index(lane), turn)

    def _deferred(self, request: QuotaRequest, now: datetime) -> QuotaAnswer:
        """Appointments follow each other as fast as the account lets orders through."""
        after = (self._appointment or now) + self._limits[LimitKind.ORDERS].refill
        self._appointment = max(after, now + SOONEST_APPOINTMENT)
        return _answer(request, AnswerKind.DEFERRED, self._appointment)


def _answer(request: QuotaRequest, kind: AnswerKind, at: datetime, place: Place | None = None) -> QuotaAnswer:
    return QuotaAnswer(request_id=request.id, owner=request.owner, kind=kind, at=at, place=place.place if place else 0)


def _set_key(hostnames: Iterable[str]) -> str:
    """The exact set of names, in any order."""
    return hashlib.sha256("\n".join(sorted(set(hostnames))).encode()).hexdigest()[:_HASH_DIGITS]
