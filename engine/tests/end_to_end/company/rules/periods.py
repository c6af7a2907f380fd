"""Billing periods of subscriptions, and which documents are due when."""

from datetime import datetime

from .times import FOREVER, after, clock, clock_to_us, days_ended

TWO_YEARS = 731 * 86_400 * 10**6


class Cycle:
    """A billing period of a subscription: `starts` to `ends`, over at `closes`, first in force at `opens`."""

    def __init__(self, subscription, zone, starts, ends, closes):
        self.subscription, self.zone = subscription, zone
        self.starts, self.ends, self.closes = starts, ends, closes
        self.opens = None
        # By plan: the times whose usage it rates, and segments of (starts, ends, row).
        self.usage, self.segments = {}, {}

    def days(self):
        return days_ended(self.starts, self.ends, self.zone)


def cycles_of(rows, zone_at, until, plans):
    """The billing periods of a subscription that begin by an instant."""
    stretches = []
    for row, later in zip(rows, rows[1:] + [None]):
        terms = plans[row["plan"]]
        ends = min(row["ends_at"] or FOREVER, later["starts_at"] if later else FOREVER)
        kind = (terms["step"], terms["anchored"])
        # A row without an anchor keeps the one that runs.
        same = stretches and stretches[-1]["kind"] == kind and (
            not terms["anchored"] or row["anchor"] in (None, stretches[-1]["anchor"]))
        if not same:
            if stretches:
                stretches[-1]["ends"] = row["starts_at"]
            anchor = (row["anchor"] if row["anchor"] is not None else row["starts_at"]) if terms["anchored"] else None
            stretches.append({"kind": kind, "anchor": anchor, "starts": row["starts_at"], "ends": FOREVER, "rows": []})
        stretches[-1]["rows"].append((row, row["starts_at"], ends))
    cycles = []
    for stretch in stretches:
        cycles.extend(cycles_in(stretch, zone_at, until, plans))
    return cycles


def cycles_in(stretch, zone_at, until, plans):
    step = stretch["kind"][0]
    zone = zone_at(stretch["starts"])
    if stretch["anchor"] is None:
        anchor = datetime(1970, 1, 1) if step[0] == "months" else datetime(1970, 1, 5)
    else:
        anchor = clock(stretch["anchor"], zone_at(stretch["anchor"]))
    count = -1000
    while clock_to_us(after(anchor, step, count + 1), zone) <= stretch["starts"]:
        count += 1
    starts = clock_to_us(after(anchor, step, count), zone)
    last = min(max(ends for _, _, ends in stretch["rows"]), stretch["ends"])
    while starts <= until and starts < last:
        # A running period keeps its zone; the next one begins where it ended.
        zone = zone_at(max(starts, stretch["starts"]))
        count += 1
        ends = clock_to_us(after(anchor, step, count), zone)
        if ends <= starts:
            continue
        cycle = Cycle(stretch["rows"][0][0]["subscription"], zone, starts, ends, min(ends, stretch["ends"]))
        fill(cycle, stretch["rows"], plans)
        if cycle.opens is not None:
            yield cycle
        starts = ends


def fill(cycle, rows, plans):
    for row, begins, ends in rows:
        begins, ends = max(begins, cycle.starts), min(ends, cycle.closes)
        if begins >= ends:
            continue
        if cycle.opens is None:
            cycle.opens = begins
        paid = max(begins, row["trial_ends_at"] or begins)
        used = begins if plans[row["plan"]].get("trial_billed") else paid
        usage = cycle.usage.setdefault(row["plan"], [])
        segments = cycle.segments.setdefault(row["plan"], [])
        if used < ends:
            usage.append((used, ends))
        if paid < ends:
            segments.append((paid, ends, row))


class Due:
    """What is due of a customer at one instant."""

    def __init__(self, at):
        self.at, self.closing, self.opening, self.one_offs = at, [], [], []

    def is_nothing(self):
        return not (self.closing or self.opening or self.one_offs)

    def period(self):
        if self.closing:
            return [min(cycle.starts for cycle in self.closing), self.at]
        if self.opening:
            return [min(cycle.starts for cycle in self.opening), max(cycle.ends for cycle in self.opening)]
        return [self.at, self.at]

    def parts(self):
        """A part is a billing period on one plan: (cycle, plan, whether it only begins)."""
        closing = [(cycle, name, False) for cycle in self.closing for name in cycle.segments]
        return closing + [(cycle, name, True) for cycle in self.opening for name in cycle.segments]


def due_of(accounts, plans, customer, until):
    """What is due of a customer by an instant, by when it is due."""
    due, closes = {}, []

    def at(instant):
        return due.setdefault(instant, Due(instant))

    for rows in accounts.subscriptions(customer).values():
        # A period that closes later takes a one-off too.
        for cycle in cycles_of(rows, lambda when: accounts.zone_at(customer, when), until + TWO_YEARS, plans):
            closes.append(cycle.closes)
            if any(plans[name]["in_advance"] for name in cycle.segments) and cycle.opens <= until:
                at(cycle.opens).opening.append(cycle)
            if cycle.closes <= until:
                at(cycle.closes).closing.append(cycle)
    for row in sorted(accounts.rows("one_offs", customer), key=lambda row: (row["date"], row["one_off"])):
        when = min((when for when in closes if when > row["date"]), default=row["date"])
        if row["date"] <= until and when <= until:
            at(when).one_offs.append(row)
    return dict(sorted(due.items()))
