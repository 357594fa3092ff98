"""Grants never exceed a limit, never wait without need, and survive being handed from run to run."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule
from temporalio.converter import DataConverter

from lifecycle import quota
from lifecycle.quota import (
    LEASE,
    REMEMBERED,
    AnswerKind,
    Exemption,
    Lane,
    Ledger,
    Outcome,
    PastOrder,
    QuotaAnswer,
    QuotaRequest,
    QuotaState,
    quota_id,
)
from lifecycle.rate_limits import LETS_ENCRYPT, Limit, LimitKind, Throttle
from lifecycle.registered_domain import registered_domains

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

COUNT = itertools.count()


def asking(
    *hostnames: str,
    tenant: str = "acme",
    lane: Lane = Lane.NEW,
    exemption: Exemption = Exemption.NONE,
    request_id: str = "",
) -> QuotaRequest:
    names = hostnames or (f"shop-{next(COUNT)}.example{next(COUNT)}.com",)
    return QuotaRequest(
        id=request_id or f"request-{next(COUNT)}",
        owner=f"domain/{names[0]}",
        tenant=tenant,
        hostnames=names,
        registered_domains=registered_domains(names),
        lane=lane,
        exemption=exemption,
    )


def ledger(*limits: Limit) -> Ledger:
    return Ledger(QuotaState(account="acct/1", limits=limits or LETS_ENCRYPT))


def orders(burst: int, refill_seconds: float = 3600) -> Limit:
    return Limit(kind=LimitKind.ORDERS, burst=burst, refill_seconds=refill_seconds, renewals_count=False)


def granted(answers: Iterable[QuotaAnswer]) -> list[str]:
    return [answer.request_id for answer in answers if answer.kind is AnswerKind.GRANTED]


def handed_on(state: QuotaState) -> QuotaState:
    """Through the converter that continue-as-new uses."""
    converter = DataConverter.default.payload_converter
    return converter.from_payloads(converter.to_payloads([state]), [QuotaState])[0]  # type: ignore[no-any-return]


# --- answers ----------------------------------------------------------------------------------------------------------


def test_who_has_room_is_granted_at_once_and_the_rest_hears_place_and_time() -> None:
    held = ledger(orders(1))
    first, second, third = asking(), asking(), asking()
    answers = held.step(NOW, asked=(first, second, third))
    assert [(first.id, AnswerKind.GRANTED, NOW + LEASE, 0)] == [
        (one.request_id, one.kind, one.at, one.place) for one in answers if one.request_id == first.id
    ]
    waits = {one.request_id: (one.kind, one.place, one.at - NOW) for one in answers if one.request_id != first.id}
    assert waits == {
        second.id: (AnswerKind.WAITING, 1, 1 * HOUR),
        third.id: (AnswerKind.WAITING, 2, 2 * HOUR),
    }


def test_asking_again_is_asking_once() -> None:
    held = ledger(orders(1))
    request, other = asking(), asking()
    assert granted(held.step(NOW, asked=(request, other))) == [request.id]
    again = held.step(NOW + MINUTE, asked=(request,))
    assert [(one.kind, one.at) for one in again] == [(AnswerKind.GRANTED, NOW + LEASE)]
    held.step(NOW + 2 * MINUTE, asked=(other,))
    assert [other.id] == [one.request_id for one in held.places(NOW + 2 * MINUTE)]
    held.end(Outcome(request_id=request.id, orders=1, issued=True), NOW + 3 * MINUTE)
    assert [one.kind for one in held.step(NOW + 4 * MINUTE, asked=(request,))] == [AnswerKind.OVER]


def test_a_grant_that_was_not_used_goes_to_the_next_at_once() -> None:
    held = ledger(orders(1))
    first, second = asking(), asking()
    held.step(NOW, asked=(first, second))
    assert granted(held.step(NOW + SECOND, outcomes=(Outcome(request_id=first.id),))) == [second.id]


def test_a_grant_of_which_nothing_is_heard_counts_as_used_when_its_lease_is_over() -> None:
    held = ledger(orders(1))
    first, second = asking(), asking()
    held.step(NOW, asked=(first, second))
    assert held.next_at(NOW) == NOW + LEASE
    assert granted(held.step(NOW + LEASE)) == []
    assert held.next_at(NOW + LEASE) == NOW + LEASE + HOUR
    late = Outcome(request_id=first.id, orders=1, issued=True)
    assert granted(held.step(NOW + LEASE + MINUTE, outcomes=(late,))) == []
    assert granted(held.step(NOW + LEASE + HOUR)) == [second.id]


def test_a_request_can_be_withdrawn() -> None:
    held = ledger(orders(1))
    first, second, third = asking(), asking(), asking()
    held.step(NOW, asked=(first, second, third))
    held.end(Outcome(request_id=second.id), NOW)
    assert [third.id] == [one.request_id for one in held.places(NOW)]


def test_more_orders_than_one_all_count() -> None:
    held = ledger(orders(3))
    first = asking()
    held.step(NOW, asked=(first,), outcomes=())
    held.end(Outcome(request_id=first.id, orders=3), NOW)
    assert granted(held.step(NOW, asked=(asking(),))) == []
    assert held.next_at(NOW) == NOW + HOUR


# --- what is counted --------------------------------------------------------------------------------------------------


def test_renewals_of_the_same_names_need_no_room_in_the_first_two_limits_but_in_the_third() -> None:
    held = ledger(
        orders(1),
        Limit(kind=LimitKind.DOMAIN, burst=1, refill_seconds=3600, renewals_count=False),
        Limit(kind=LimitKind.EXACT_SET, burst=2, refill_seconds=3600),
    )
    names = ("example.com", "www.example.com")
    first = asking(*names)
    held.step(NOW, asked=(first,))
    held.end(Outcome(request_id=first.id, orders=1, issued=True), NOW)
    renewal = asking(*reversed(names), lane=Lane.RENEWAL, exemption=Exemption.RENEWAL)
    other = asking("shop.example.com", exemption=Exemption.NONE)
    assert granted(held.step(NOW, asked=(renewal, other))) == [renewal.id]
    third = asking(*names, exemption=Exemption.RENEWAL)
    assert granted(held.step(NOW, asked=(third,))) == []  # the exact set: one issued, one under way
    ari = asking(*names, exemption=Exemption.ARI)
    assert granted(held.step(NOW, asked=(ari,))) == [ari.id]


def test_a_failed_order_costs_an_order_and_a_failure_of_its_name_and_no_certificate() -> None:
    held = ledger(
        orders(9),
        Limit(kind=LimitKind.DOMAIN, burst=1, refill_seconds=86400),
        Limit(kind=LimitKind.FAILURES, burst=2, refill_seconds=720),
    )
    names = ("a.example.com", "b.example.com")
    for _ in range(2):
        request = asking(*names)
        assert granted(held.step(NOW, asked=(request,))) == [request.id]
        held.end(Outcome(request_id=request.id, orders=1, failed=("b.example.com",)), NOW)
    both, well = asking(*names), asking("a.example.com")
    assert granted(held.step(NOW, asked=(both, well))) == [well.id]
    held.end(Outcome(request_id=well.id), NOW)
    assert held.next_at(NOW) == NOW + 12 * MINUTE


def test_a_success_ends_consecutive_failures() -> None:
    held = ledger(Limit(kind=LimitKind.CONSECUTIVE, burst=2, refill_seconds=86400))
    outcomes: list[Outcome] = []
    for issued in (False, True, False, False):
        request = asking("a.example.com")
        assert granted(held.step(NOW, asked=(request,), outcomes=outcomes)) == [request.id]
        failed = () if issued else ("a.example.com",)
        outcomes = [Outcome(request_id=request.id, orders=1, issued=issued, failed=failed)]
    assert granted(held.step(NOW, asked=(asking("a.example.com"),), outcomes=outcomes)) == []


def test_what_the_cluster_already_shows_counts_and_only_once() -> None:
    held = ledger(orders(3), Limit(kind=LimitKind.EXACT_SET, burst=1, refill_seconds=86400))
    past = tuple(
        PastOrder(at=NOW - hours * HOUR, hostnames=(f"{name}.example.com",), registered_domains=("example.com",))
        for hours, name in ((1.5, "b"), (2, "a"))
    )
    held.learn(past)
    held.learn(past)
    a, c, d = asking("a.example.com"), asking("c.example.com"), asking("d.example.com")
    assert granted(held.step(NOW, asked=(a, c, d))) == [c.id, d.id]
    assert held.next_at(NOW) == NOW + LEASE


def test_a_refused_order_waits_as_long_as_the_ca_says_and_others_do_not() -> None:
    held = ledger()
    refused, other = asking("a.example.com"), asking("b.example.com")
    held.step(NOW, asked=(refused,))
    until = NOW + 5 * HOUR
    throttle = Throttle(until=until, kind=LimitKind.DOMAIN, key="example.com")
    outcome = Outcome(request_id=refused.id, throttle=throttle)
    elsewhere, again = asking("shop.example.org"), asking("a.example.com")
    assert granted(held.step(NOW, asked=(again, other, elsewhere), outcomes=(outcome,))) == [elsewhere.id]
    held.end(Outcome(request_id=elsewhere.id), NOW)
    assert held.next_at(NOW) == until
    assert granted(held.step(until)) == [again.id]
    assert held.places(until)[0].expected_at == until + timedelta(minutes=202)


@pytest.mark.parametrize(
    ("throttle", "own", "others"),
    [
        (Throttle(until=NOW + 5 * HOUR), 5 * HOUR, 1 * HOUR),  # about what, it does not say
        (Throttle(until=NOW + 99 * DAY), 8 * DAY, 1 * HOUR),
        (Throttle(until=NOW + 5 * HOUR, kind=LimitKind.EXACT_SET), 5 * HOUR, 0 * HOUR),
        (Throttle(until=NOW + 5 * HOUR, kind=LimitKind.ORDERS), 5 * HOUR, 5 * HOUR),
        (Throttle(until=NOW + 5 * HOUR, kind=LimitKind.FAILURES, key="a.example.com"), 5 * HOUR, 0 * HOUR),
    ],
)
def test_a_ca_without_known_limits_is_believed_too(throttle: Throttle, own: timedelta, others: timedelta) -> None:
    held = Ledger(QuotaState(account="acct/1", limits=()))
    refused = asking("a.example.com")
    held.step(NOW, asked=(refused,))
    held.end(Outcome(request_id=refused.id, throttle=throttle), NOW)
    again, other = asking("a.example.com"), asking("b.example.org")
    held.step(NOW, asked=(again,))
    assert held.next_at(NOW) == NOW + own
    held.step(NOW, asked=(other,))
    expected = {one.request_id: one.expected_at for one in held.places(NOW)}
    assert expected.get(other.id, NOW) == NOW + others
    for at, request in sorted([(NOW + own, again), (NOW + others, other)], key=lambda one: one[0]):
        held.step(at)
        assert request.id not in {one.request_id for one in held.places(at)}


def test_limits_can_be_raised_while_others_wait() -> None:
    held = ledger(orders(1))
    first, second = asking(), asking()
    held.step(NOW, asked=(first, second))
    held.allow((orders(2),))
    assert granted(held.step(NOW)) == [second.id]


# --- order ------------------------------------------------------------------------------------------------------------


def all_in_order(held: Ledger, now: datetime) -> list[str]:
    """Whom the ledger grants, one after the other; each grant is used at once."""
    order = []
    while (at := held.next_at(now)) is not None:
        now = at
        for one in granted(held.step(now)):
            order.append(one)
            held.end(Outcome(request_id=one, orders=1, issued=True), now)
    return order


def busy(*limits: Limit) -> Ledger:
    """One whose account has nothing left."""
    held = ledger(*(limits or (orders(1),)))
    request = asking()
    held.step(NOW, asked=(request,))
    held.end(Outcome(request_id=request.id, orders=1), NOW)
    return held


def test_lanes_go_before_each_other_and_tenants_take_turns() -> None:
    held = busy()
    a = [asking(tenant="a") for _ in range(3)]
    b = [asking(tenant="b") for _ in range(2)]
    renewal = asking(tenant="a", lane=Lane.RENEWAL)
    expiring = asking(tenant="a", lane=Lane.EXPIRING)
    held.step(NOW, asked=(*a, *b, renewal, expiring))
    expected = [expiring.id, renewal.id, a[0].id, b[0].id, a[1].id, b[1].id, a[2].id]
    assert [one.request_id for one in held.places(NOW)] == expected
    assert all_in_order(held, NOW) == expected


def test_a_tenant_that_asks_anew_after_each_grant_gets_no_more_than_its_turn() -> None:
    held = busy()
    held.step(
        NOW, asked=[asking(tenant="a", request_id=f"a{n}") for n in range(4)] + [asking(tenant="c", request_id="c0")]
    )
    order, now = [], NOW
    for number in range(1, 6):
        now = held.next_at(now) or now
        (one,) = granted(held.step(now))
        order.append(one)
        held.end(Outcome(request_id=one, orders=1), now)
        if one.startswith("c"):
            held.step(now, asked=(asking(tenant="c", request_id=f"c{number}"),))
    assert [one[0] for one in order] == ["a", "c", "a", "c", "a"]


def test_one_whose_own_domain_is_used_up_holds_up_nobody() -> None:
    held = ledger(orders(9), Limit(kind=LimitKind.DOMAIN, burst=1, refill_seconds=3600))
    first, second, third = asking("a.example.com"), asking("b.example.com"), asking("c.example.org")
    assert granted(held.step(NOW, asked=(first, second, third))) == [first.id, third.id]


def test_a_request_that_becomes_urgent_changes_its_lane() -> None:
    held = busy()
    new, renewal = asking(), asking(lane=Lane.RENEWAL)
    held.step(NOW, asked=(new, renewal))
    held.step(NOW, asked=(dataclasses.replace(new, lane=Lane.EXPIRING),))
    held.step(NOW, asked=(new,))  # what is urgent stays so
    assert [new.id, renewal.id] == [one.request_id for one in held.places(NOW)]


def test_the_queue_is_bounded_and_who_does_not_fit_gets_an_appointment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MOST_NAMES_WAITING", 3)
    held = busy(orders(1, 600))
    a = [asking(tenant="a") for _ in range(3)]
    held.step(NOW, asked=a)
    more = [asking(tenant="a") for _ in range(2)]
    answers = held.step(NOW, asked=more)
    assert [(one.kind, one.at - NOW) for one in answers] == [
        (AnswerKind.DEFERRED, 10 * MINUTE),
        (AnswerKind.DEFERRED, 20 * MINUTE),
    ]
    b = asking(tenant="b")  # an earlier turn than the last of the others
    displaced = {one.request_id: one.kind for one in held.step(NOW, asked=(b,))}
    assert displaced == {a[2].id: AnswerKind.DEFERRED, b.id: AnswerKind.WAITING}
    urgent = asking(tenant="a", lane=Lane.EXPIRING)
    displaced = {one.request_id: one.kind for one in held.step(NOW, asked=(urgent,))}
    assert displaced == {a[1].id: AnswerKind.DEFERRED, urgent.id: AnswerKind.WAITING}
    assert [urgent.id, a[0].id, b.id] == [one.request_id for one in held.places(NOW)]


def test_the_overview_counts_and_names_who_is_next() -> None:
    held = busy()
    held.step(NOW, asked=[asking() for _ in range(5)] + [asking(lane=Lane.RENEWAL)])
    overview = held.overview(NOW, most=2)
    assert (overview.waiting, overview.under_way) == (6, 0)
    assert overview.lanes == (("expiring", 0), ("renewal", 1), ("new", 5))
    assert [(one.place, one.lane) for one in overview.next] == [(1, Lane.RENEWAL), (2, Lane.NEW)]
    assert overview.next_at == NOW + HOUR


def test_a_full_state_fits_a_payload() -> None:
    """Temporal refuses a payload of 2 MB."""
    held = ledger()
    names = [f"shop{number}.some-customers-domain.example{number}.com" for number in range(quota.MOST_NAMES_WAITING)]
    pairs = [asking(*names[index : index + 2], tenant=f"tenant-{index % 700}") for index in range(0, len(names), 2)]
    past = [
        PastOrder(at=NOW - timedelta(seconds=36 * n), hostnames=(f"old{n}.example.com",), registered_domains=(f"o{n}",))
        for n in range(3400)  # all that the account may have ordered while an exact set's bucket refills
    ]
    held.learn(past)
    for request in pairs:
        held.ask(request, NOW)
    held.grant(NOW)
    state = held.state(NOW)
    assert len(state.waiting) + len(state.leases) == len(pairs)
    (payload,) = DataConverter.default.payload_converter.to_payloads([state])
    assert payload.ByteSize() < 1_800_000


def test_the_workflows_id_is_the_accounts() -> None:
    assert quota_id("https://acme.example/acct/1") == "quota/https://acme.example/acct/1"


# --- any interleaving -------------------------------------------------------------------------------------------------

LIMITS = (
    Limit(kind=LimitKind.ORDERS, burst=3, refill_seconds=600, renewals_count=False),
    Limit(kind=LimitKind.DOMAIN, burst=2, refill_seconds=1800, renewals_count=False),
    Limit(kind=LimitKind.EXACT_SET, burst=2, refill_seconds=3000),
    Limit(kind=LimitKind.FAILURES, burst=2, refill_seconds=900),
    Limit(kind=LimitKind.CONSECUTIVE, burst=3, refill_seconds=7200),
)
NAMES = ("a.one.com", "b.one.com", "a.two.com")
Key = tuple[LimitKind, str]


def keys_of(request: QuotaRequest) -> list[Key]:
    """Which buckets a CA looks at, said anew."""
    if request.exemption is Exemption.ARI:
        return []
    keys: list[Key] = [(LimitKind.EXACT_SET, " ".join(sorted(request.hostnames)))]
    for name in request.hostnames:
        keys += [(LimitKind.FAILURES, name), (LimitKind.CONSECUTIVE, name)]
    if request.exemption is Exemption.NONE:
        keys += [(LimitKind.ORDERS, ""), *((LimitKind.DOMAIN, domain) for domain in request.registered_domains)]
    return keys


class Buckets:
    """Token buckets as the textbook has them, over a record of every event."""

    def __init__(self) -> None:
        self.events: dict[Key, list[datetime]] = {}

    def take(self, key: Key, at: datetime) -> None:
        self.events.setdefault(key, []).append(at)

    def forget(self, key: Key) -> None:
        self.events.pop(key, None)

    def tokens(self, key: Key, now: datetime) -> Fraction:
        limit = next(one for one in LIMITS if one.kind is key[0])
        burst, refill = Fraction(limit.burst), Fraction(int(limit.refill_seconds))
        tokens, last = burst, None
        for at in [*sorted(self.events.get(key, [])), now]:
            if last is not None:
                tokens = min(burst, tokens + Fraction(int((at - last).total_seconds())) / refill)
            last = at
            tokens -= 1
        return tokens + 1


@dataclasses.dataclass
class Granted:
    """A grant as its owner knows it."""

    request: QuotaRequest
    until: datetime
    failing: dict[Key, list[datetime]]
    ordered: bool = False
    outcome: Outcome | None = None


class Interleavings(RuleBasedStateMachine):
    """Owners that order when they like, tell their outcomes when they like or never, and a CA that counts strictly."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.ledger = Ledger(QuotaState(account="acct/1", limits=LIMITS))
        self.twin = Ledger(QuotaState(account="acct/1", limits=LIMITS))
        self.ca = Buckets()
        self.told = Buckets()  # what the ledger was told, or has to assume
        self.waiting: dict[str, QuotaRequest] = {}
        self.under_way: dict[str, Granted] = {}
        self.ever: Counter[str] = Counter()
        self.over: dict[str, datetime] = {}

    def step(self, asked: tuple[QuotaRequest, ...] = (), outcomes: tuple[Outcome, ...] = ()) -> None:
        answers = self.ledger.step(self.now, asked=asked, outcomes=outcomes)
        assert answers == self.twin.step(self.now, asked=asked, outcomes=outcomes)
        for answer in answers:
            if answer.kind is AnswerKind.GRANTED and answer.request_id in self.waiting:
                request = self.waiting.pop(answer.request_id)
                self.ever[request.id] += 1
                failing = {key: list(self.told.events.get(key, [])) for key in keys_of(request)}
                self.under_way[request.id] = Granted(request, answer.at, failing)
        asked_ids = {request.id for request in asked}
        assert asked_ids <= {answer.request_id for answer in answers}

    @rule(
        target=requests,
        tenant=st.sampled_from("abc"),
        names=st.sets(st.sampled_from(NAMES), min_size=1, max_size=2),
        lane=st.sampled_from(Lane),
        exemption=st.sampled_from([Exemption.NONE] * 4 + [Exemption.RENEWAL, Exemption.ARI]),
    )
    def ask(self, tenant: str, names: set[str], lane: Lane, exemption: Exemption) -> QuotaRequest:
        request = asking(*sorted(names), tenant=tenant, lane=lane, exemption=exemption)
        self.waiting[request.id] = request
        self.step((request,))
        return request

    @rule(request=requests)
    def ask_again(self, request: QuotaRequest) -> None:
        if self.now >= self.over.get(request.id, self.now) + REMEMBERED:
            return
        if not self.ever[request.id]:
            self.waiting[request.id] = request  # it was withdrawn, or waits
        self.step((request,))

    @rule(seconds=st.one_of(st.integers(0, 120), st.integers(0, 7200)))
    def let_time_pass(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self._leases_end()
        self.step()

    @rule()
    def go_to_the_next_instant(self) -> None:
        following = self.ledger.next_at(self.now)
        assert following == self.twin.next_at(self.now)
        if following is None:
            return
        assert following > self.now
        before = set(self.waiting)
        if following - self.now > SECOND:
            self.now = following - SECOND
            self.step()
            assert set(self.waiting) == before, "somebody could have been granted before the next instant"
        self.now = following
        ended = self._leases_end()
        self.step()
        assert ended or set(self.waiting) < before, "nothing happened at the next instant"

    def _leases_end(self) -> bool:
        over = [one for one in self.under_way.values() if one.until <= self.now]
        for one in over:
            del self.under_way[one.request.id]
            self.over[one.request.id] = one.until
            for key in keys_of(one.request):
                self.told.take(key, one.until)
            if one.ordered and one.outcome is None:  # it ends badly or well, unheard; at the latest now
                self._issue(one, one.until)
        return bool(over)

    @precondition(lambda self: any(not one.ordered for one in self.under_way.values()))
    @rule(data=st.data())
    def order(self, data: st.DataObject) -> None:
        self._order(data.draw(st.sampled_from([one for one in self.under_way.values() if not one.ordered])))

    @precondition(lambda self: any(one.ordered and one.outcome is None for one in self.under_way.values()))
    @rule(data=st.data(), well=st.booleans())
    def finish(self, data: st.DataObject, well: bool) -> None:
        one = data.draw(st.sampled_from([one for one in self.under_way.values() if one.ordered and not one.outcome]))
        self._finish(one, set() if well else data.draw(st.sets(st.sampled_from(one.request.hostnames))))

    @precondition(lambda self: any(one.outcome or not one.ordered for one in self.under_way.values()))
    @rule(data=st.data())
    def tell(self, data: st.DataObject) -> None:
        self._tell(
            data.draw(st.sampled_from([one for one in self.under_way.values() if one.outcome or not one.ordered]))
        )

    @precondition(lambda self: self.under_way)
    @rule(well=st.booleans(), late=st.booleans(), heard=st.booleans())
    def use_all(self, well: bool, late: bool, heard: bool) -> None:
        """Everybody uses the grant, now or at the last moment."""
        if late:
            self.now = max(self.now, min(one.until for one in self.under_way.values()) - SECOND)
            self.step()
        for one in list(self.under_way.values()):
            if not one.ordered:
                self._order(one)
            if one.outcome is None:
                self._finish(one, set() if well else {one.request.hostnames[0]})
            if heard:
                self._tell(one)

    def _order(self, one: Granted) -> None:
        for key in keys_of(one.request):
            assert self.ca.tokens(key, self.now) >= 1, f"the CA refuses: {key}"
        if one.request.exemption is Exemption.NONE:
            self.ca.take((LimitKind.ORDERS, ""), self.now)
        one.ordered = True

    def _issue(self, one: Granted, at: datetime) -> None:
        for key in keys_of(one.request):
            if key[0] in (LimitKind.DOMAIN, LimitKind.EXACT_SET):
                assert self.ca.tokens(key, at) >= 1, f"above the limit: {key}"
                self.ca.take(key, at)

    def _finish(self, one: Granted, failed: set[str]) -> None:
        if failed:
            for key in keys_of(one.request):
                # By the kind too: an exact set of one name has that name's key, and no certificate was issued.
                if key[0] in (LimitKind.FAILURES, LimitKind.CONSECUTIVE) and key[1] in failed:
                    assert self.ca.tokens(key, self.now) >= 1, f"above the limit: {key}"
                    self.ca.take(key, self.now)
        else:
            self._issue(one, self.now)
            for name in one.request.hostnames:
                self.ca.forget((LimitKind.CONSECUTIVE, name))
        one.outcome = Outcome(request_id=one.request.id, orders=1, issued=not failed, failed=tuple(sorted(failed)))

    def _tell(self, one: Granted) -> None:
        del self.under_way[one.request.id]
        self.over[one.request.id] = self.now
        outcome = one.outcome or Outcome(request_id=one.request.id)
        for key in keys_of(one.request):
            used = {
                LimitKind.ORDERS: outcome.orders > 0,
                LimitKind.DOMAIN: outcome.issued,
                LimitKind.EXACT_SET: outcome.issued,
            }.get(key[0], key[1] in outcome.failed)
            if used:
                self.told.take(key, self.now)
            elif (
                key[0] is LimitKind.CONSECUTIVE and outcome.issued and self.told.events.get(key, []) == one.failing[key]
            ):
                self.told.forget(key)
        self.step(outcomes=(outcome,))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        request = self.waiting.pop(data.draw(st.sampled_from(sorted(self.waiting))))
        self.step(outcomes=(Outcome(request_id=request.id),))

    @rule()
    def continue_as_new(self) -> None:
        self.ledger = Ledger(handed_on(self.ledger.state(self.now)))

    @invariant()
    def nobody_waits_who_could_be_granted(self) -> None:
        held = Counter(key for one in self.under_way.values() for key in keys_of(one.request))
        for request in self.waiting.values():
            keys = keys_of(request)
            assert any(self.told.tokens(key, self.now) - held[key] < 1 for key in keys), f"{request} waits in vain"

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        state = self.ledger.state(self.now)
        assert set(self.waiting) == {one.request.id for one in state.waiting}
        assert set(self.under_way) == {one.request.id for one in state.leases}
        assert set(self.ever.values()) <= {1}
        assert {one.request_id for one in self.ledger.places(self.now)} == set(self.waiting)


Interleavings.TestCase.settings = settings(
    max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class TestInterleavings(Interleavings.TestCase):  # type: ignore[valid-type,misc]
    """Never above any limit, for any interleaving; work-conserving; nothing lost or doubled from run to run."""


@pytest.mark.parametrize("late", [False, True])
def test_a_failure_of_the_only_name_takes_no_certificate_of_its_exact_set(late: bool) -> None:
    """The machine's CA once took one for it, as the set has that name's key; Let's Encrypt counts what it issues."""
    owners = Interleavings()
    for well in (True, False, True):
        owners.ask(tenant="a", names={"b.one.com"}, lane=Lane.EXPIRING, exemption=Exemption.NONE)
        owners.nobody_waits_who_could_be_granted()
        assert owners.under_way, "granted at once: one certificate of two, however the other order ended"
        owners.use_all(well=well, late=late, heard=True)
        owners.nobody_waits_who_could_be_granted()
        owners.nothing_is_lost_or_doubled()
    assert len(owners.ca.events[(LimitKind.EXACT_SET, "b.one.com")]) == 2
