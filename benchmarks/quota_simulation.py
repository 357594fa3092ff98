"""How long do 1,000 and 10,000 customers wait who all come at once, and does a renewal ever wait for them?

Run as ``python -m benchmarks.quota_simulation [--svg docs/quota.svg]``. The product's own ledger under simulated time;
the CA is a token bucket of another make that counts every order and would refuse. Beside it the same customers with
cert-manager alone, which tries again an hour after a refusal and doubles that up to 32 hours (cert-manager#5867).
Prints a table in Markdown; fails where the CA would have refused or a renewal waited longer than its lane allows.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import itertools
import random
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lifecycle.quota import PATIENCE, AnswerKind, Exemption, Lane, Ledger, Outcome, QuotaRequest, QuotaState
from lifecycle.rate_limits import LETS_ENCRYPT, Limit, LimitKind

START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

FLEET = 10_000
"""Domains that are served already; each renews once in a third of 90 days' life, at any time of it."""

RENEWED_EVERY = timedelta(days=30)
EXPIRING_ONE_IN = 50
FAILED_ONE_IN = 50
"""Orders whose validation fails; tried again ten minutes later."""

SECONDS_OF_AN_ORDER = (20, 90)
RETRY = timedelta(minutes=10)


class Ca:
    """Strict, and unlike ours: tokens as numbers."""

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self.limits = {limit.kind: limit for limit in limits}
        self.tokens: dict[tuple[LimitKind, str], tuple[float, datetime]] = {}
        self.refused = 0
        self.orders = 0

    def has_one(self, kind: LimitKind, key: str, now: datetime) -> bool:
        return self._level(kind, key, now) >= 1 - 1e-9

    def take(self, kind: LimitKind, key: str, now: datetime) -> None:
        self.tokens[(kind, key)] = (self._level(kind, key, now) - 1, now)

    def order(self, request: QuotaRequest, now: datetime) -> bool:
        """Whether a new order is taken."""
        renewal = request.exemption is Exemption.RENEWAL
        wanted = [
            (LimitKind.ORDERS, ""),
            *((LimitKind.DOMAIN, domain) for domain in request.registered_domains),
            (LimitKind.EXACT_SET, " ".join(request.hostnames)),
            *((LimitKind.FAILURES, name) for name in request.hostnames),
        ]
        counted = [(kind, key) for kind, key in wanted if self.limits[kind].renewals_count or not renewal]
        self.orders += 1
        if not all(self.has_one(kind, key, now) for kind, key in counted):
            self.refused += 1
            return False
        if (LimitKind.ORDERS, "") in counted:
            self.take(LimitKind.ORDERS, "", now)
        return True

    def issue(self, request: QuotaRequest, now: datetime) -> None:
        renewal = request.exemption is Exemption.RENEWAL
        if self.limits[LimitKind.DOMAIN].renewals_count or not renewal:
            for domain in request.registered_domains:
                self.take(LimitKind.DOMAIN, domain, now)
        self.take(LimitKind.EXACT_SET, " ".join(request.hostnames), now)

    def _level(self, kind: LimitKind, key: str, now: datetime) -> float:
        limit = self.limits[kind]
        tokens, at = self.tokens.get((kind, key), (float(limit.burst), now))
        return min(float(limit.burst), tokens + (now - at).total_seconds() / limit.refill_seconds)


@dataclasses.dataclass(kw_only=True)
class Run:
    """What one simulation showed."""

    name: str
    customers: int
    done: list[timedelta] = dataclasses.field(default_factory=list)
    waits: dict[Lane, list[timedelta]] = dataclasses.field(default_factory=lambda: {lane: [] for lane in Lane})
    orders: int = 0
    refused: int = 0
    deferred: int = 0
    real_seconds: float = 0.0


def with_quota(name: str, customers: int, limits: tuple[Limit, ...], seed: int = 1) -> Run:
    """All customers ask at the start; renewals of the fleet come meanwhile; until the last customer is served."""
    began = time.monotonic()
    chance = random.Random(seed)
    run = Run(name=name, customers=customers)
    ledger, ca = Ledger(QuotaState(account="simulated", limits=limits)), Ca(limits)
    numbers = itertools.count()
    events: list[tuple[datetime, int, str, Any]] = []
    asked_at: dict[str, datetime] = {}
    requests: dict[str, QuotaRequest] = {}

    def plan(at: datetime, what: str, of: Any) -> None:
        heapq.heappush(events, (at, next(numbers), what, of))

    for number in range(customers):
        plan(START, "ask", _request(f"new-{number}", number, Lane.NEW))
    plan(START + RENEWED_EVERY / FLEET, "renewal", 0)
    wake: datetime | None = None
    while len(run.done) < customers:
        now, _, what, of = heapq.heappop(events)
        if what == "renewal":
            lane = Lane.EXPIRING if chance.randrange(EXPIRING_ONE_IN) == 0 else Lane.RENEWAL
            plan(now, "ask", _request(f"old-{of}", of % FLEET, lane))
            plan(now + timedelta(seconds=chance.expovariate(FLEET / RENEWED_EVERY.total_seconds())), "renewal", of + 1)
            continue
        if what == "ask":
            asked_at.setdefault(of.id, now)
            requests[of.id] = of
            for answer in ledger.ask(of, now):
                if answer.kind is AnswerKind.DEFERRED:
                    run.deferred += 1
                    plan(answer.at, "ask", requests[answer.request_id])
        elif what == "order":
            taken = ca.order(of, now)
            plan(now + timedelta(seconds=chance.uniform(*SECONDS_OF_AN_ORDER)), "end", (of, taken))
            continue
        elif what == "end":
            request, taken = of
            well = taken and (request.lane is not Lane.NEW or chance.randrange(FAILED_ONE_IN) != 0)
            if well:
                ca.issue(request, now)
            elif taken:
                ca.take(LimitKind.FAILURES, request.hostnames[0], now)
            failed = () if well else request.hostnames[:1]
            ledger.end(Outcome(request_id=request.id, orders=int(taken), issued=well, failed=failed), now)
            if not well:
                plan(now + RETRY, "ask", dataclasses.replace(request, id=f"{request.id}+"))
            elif request.lane is Lane.NEW:
                run.done.append(now - START)
        if what == "wake" and wake == now:
            wake = None
        for answer in ledger.grant(now):
            request = requests.pop(answer.request_id)
            run.waits[request.lane].append(now - asked_at.pop(request.id))
            plan(now + timedelta(seconds=chance.uniform(0, 5)), "order", request)
        following = ledger.next_at(now)
        if following is not None and (wake is None or following < wake):
            wake = following
            plan(following, "wake", None)
    run.orders, run.refused = ca.orders, ca.refused
    run.real_seconds = time.monotonic() - began
    return run


def _request(kind: str, number: int, lane: Lane) -> QuotaRequest:
    prefix = "new" if lane is Lane.NEW else "old"
    domain = f"{prefix}-{number}.example"
    return QuotaRequest(
        id=kind,
        owner=f"domain/{domain}",
        tenant=f"tenant-{number % 500}",
        hostnames=(domain, f"www.{domain}"),
        registered_domains=(domain,),
        lane=lane,
        exemption=Exemption.NONE if lane is Lane.NEW else Exemption.RENEWAL,
    )


def with_cert_manager_alone(name: str, customers: int, limits: tuple[Limit, ...], seed: int = 1) -> Run:
    """Everybody orders at once; whoever is refused comes back after 1, 2, 4 … 32 hours."""
    chance = random.Random(seed)
    run = Run(name=name, customers=customers)
    ca = Ca(limits)
    tries = [(START + timedelta(seconds=chance.uniform(0, 60)), number, 0) for number in range(customers)]
    heapq.heapify(tries)
    while tries:
        now, number, failures = heapq.heappop(tries)
        request = _request(f"new-{number}", number, Lane.NEW)
        if ca.order(request, now):
            run.done.append(now - START)
            run.waits[Lane.NEW].append(now - START)
        else:
            heapq.heappush(tries, (now + HOUR * min(2**failures, 32), number, failures + 1))
    run.orders, run.refused = ca.orders, ca.refused
    return run


# --- what is shown ----------------------------------------------------------------------------------------------------


def words(duration: timedelta) -> str:
    """For people."""
    seconds = duration.total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def table(runs: list[Run]) -> str:
    """Markdown."""
    lines = [
        "| customers at once | half are served after | all after | orders | refused by the CA "
        "| renewals meanwhile | longest wait of a renewal | of an expiring one |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        done = sorted(run.done)
        renewals, expiring = run.waits[Lane.RENEWAL], run.waits[Lane.EXPIRING]
        lines.append(
            f"| {run.name} | {words(done[len(done) // 2])} | {words(done[-1])} | {run.orders:,} | {run.refused:,} "
            f"| {len(renewals) + len(expiring) or '–'} | {words(max(renewals)) if renewals else '–'} "
            f"| {words(max(expiring)) if expiring else '–'} |"
        )
    return "\n".join(lines)


COLOURS = ("#1b6ca8", "#2a9d5c", "#8a5fbf", "#c0392b")


def plot(runs: list[Run], until: timedelta = 6 * DAY) -> str:
    """Customers served over time, as SVG."""
    width, height, left, bottom, top = 760, 420, 70, 50, 30
    most = max(run.customers for run in runs)
    across, up = width - left - 20, height - bottom - top

    def x(at: timedelta) -> float:
        return left + across * (at / until)

    def y(number: float) -> float:
        return top + up * (1 - number / most)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="13" role="img" aria-label="Customers served over time, with and without a quota">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for day in range(until.days + 1):
        at = x(day * DAY)
        parts.append(f'<line x1="{at:.0f}" y1="{top}" x2="{at:.0f}" y2="{top + up}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{at:.0f}" y="{top + up + 20}" text-anchor="middle" fill="#444">{day}</text>')
    for number in range(0, most + 1, most // 5):
        parts.append(
            f'<line x1="{left}" y1="{y(number):.0f}" x2="{width - 20}" y2="{y(number):.0f}" stroke="#e4e4e4"/>'
        )
        parts.append(f'<text x="{left - 8}" y="{y(number) + 4:.0f}" text-anchor="end" fill="#444">{number:,}</text>')
    parts.append(f'<text x="{left + across / 2:.0f}" y="{height - 10}" text-anchor="middle" fill="#444">days</text>')
    parts.append(f'<text x="{left}" y="{top - 12}" fill="#444">customers served</text>')
    for index, run in enumerate(runs):
        done = sorted(run.done)
        points = [(timedelta(), 0)]
        step = max(len(done) // 300, 1)
        points += [(at, number) for number, at in enumerate(done, start=1) if number % step == 0 or number == len(done)]
        shown = [(at, number) for at, number in points if at <= until]
        if shown[-1][0] < until:
            shown.append((until, shown[-1][1]))
        line = " ".join(f"{x(at):.1f},{y(number):.1f}" for at, number in shown)
        dashes = ' stroke-dasharray="6 4"' if index == 2 else ""
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[index]}" stroke-width="2.5"{dashes}/>')
        at = top + 160 + 22 * index
        parts.append(f'<rect x="{width - 372}" y="{at - 11}" width="14" height="14" fill="{COLOURS[index]}"/>')
        parts.append(f'<text x="{width - 350}" y="{at}" fill="#222">{run.name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    """Non-zero where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path, help="write the plot here")
    chosen = parser.parse_args()
    strict = tuple(dataclasses.replace(limit, renewals_count=True) for limit in LETS_ENCRYPT)
    runs = [
        with_quota("1,000 with the quota", 1_000, LETS_ENCRYPT),
        with_quota("10,000 with the quota", 10_000, LETS_ENCRYPT),
        with_quota("10,000, and a CA that counts renewals too", 10_000, strict),
        with_cert_manager_alone("10,000 with cert-manager alone", 10_000, LETS_ENCRYPT),
    ]
    print(table(runs))
    broken = Counter[str]()
    for run in runs[:-1]:
        print(
            f"{run.name}: {run.deferred:,} appointments by a full queue; {run.real_seconds:.0f} s of real time",
            file=sys.stderr,
        )
        broken["refused by the CA"] += run.refused
        for lane, patience in PATIENCE.items():
            broken[f"longer than the lane {lane} allows"] += sum(wait > patience for wait in run.waits[lane])
    if chosen.svg:
        chosen.svg.write_text(plot(runs))
    for what, number in broken.items():
        if number:
            print(f"{number} {what}", file=sys.stderr)
    return int(any(broken.values()))


if __name__ == "__main__":
    sys.exit(main())
