"""Makes up a company: customers, what they agreed to and what they used, from a seed.

    generate.py SEED CUSTOMERS OUT [TROUBLES]

writes a folder a run of the invoice job, `OUT/run-0` and so on: the CSV files that `tollgate accounts import` reads before that
run, and `events.ndjson` with the usage that has arrived by then. `OUT/runs.json` says of each run when it is, whether it corrects
everything, whose last documents are taken back before it (`voids`), what is changed of the price list (`edits`), at which of
its durable steps the job dies (`deaths`), one attempt after the other, and whether it is looked up then what is unissued (`looks`).

An account row is imported in the first run after it takes effect, and usage arrives when it happens, but for the troubles: some usage arrives
`late`, in a later run; some rows are `backdated`, and imported in a later run; `prices`, `voids` and `deaths`. TROUBLES names
those that there are, with commas between them; all without it. The first customers have one feature each; later ones have more.
"""

import csv
import json
import os
import random
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

UTC = timezone.utc
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = datetime(2025, 1, 1, tzinfo=UTC)
END = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = [(2025, 4, 10), (2025, 7, 16), (2025, 10, 20), (2025, 12, 12), (2026, 3, 5), (2026, 3, 6)]
RUNS = [datetime(*day, 12, tzinfo=UTC) for day in DAYS]

# The runs that correct everything. The last one leaves nothing.
CORRECTING = [2, 5]

# The runs after which it is looked up what is unissued.
LOOKING = [1, 4]

TROUBLES = ["late", "backdated", "prices", "voids", "deaths"]

# What may be changed of the price list: the file, what it says, what it says then, and the term that is (of `rules/price_list.py`).
EDITS = [
    ("model_rates.csv", "large,0.000003,0.000015", "large,0.0000028,0.0000165"),
    ("model_rates.csv", "vision,0.00000725,0.00002", "vision,0.0000075,0.00002"),
    ("tax_rates.csv", "DE,19,2025-07-01", "DE,18.5,2025-07-01"),
    ("tax_rates.csv", "US-NY,8.875,2020-01-01", "US-NY,8.75,2020-01-01"),
    ("definitions.sql", "unit_amount: 0.995", "unit_amount: 1.05", "ticket", "1.05"),
    ("definitions.sql", "up_to: 7200, unit_amount: 0.0111", "up_to: 7200, unit_amount: 0.0115", "gpu", "0.0115"),
    ("definitions.sql", "prorate(19.00,", "prorate(20.50,", "starter_base", "20.50"),
    ("definitions.sql", "minimum = '25.00'", "minimum = '27.00'", "starter_minimum", "27.00"),
    ("definitions.sql", "maximum = '140.00'", "maximum = '125.00'", "pro_maximum", "125.00"),
    ("definitions.sql", "prorate(49.99,", "prorate(52.49,", "pro_base", "52.49"),
    ("definitions.sql", "prorate(14.50 * seats,", "prorate(13.75 * seats,", "team_seats", "13.75"),
]

# Nothing takes effect so shortly before a run: its documents would wait for the windows of the day.
QUIET = timedelta(days=3)

# Zones whose clocks change, each with one anchor for months and one for quarters. The clock of Santiago skips the midnight of
# 7 September, New York has 01:30 twice on 2 November, and the days of Lord Howe begin at half past an hour of UTC.
ZONES = {
    "America/New_York": ((2024, 12, 31), (2025, 2, 2, 1, 30)),
    "Europe/Berlin": ((2024, 12, 30, 10, 30), (2025, 1, 30, 10, 30)),
    "Australia/Sydney": ((2024, 12, 29), (2025, 1, 31)),
    "America/Santiago": ((2024, 12, 31, 12), (2024, 12, 7)),
    "Australia/Lord_Howe": ((2024, 12, 30, 23, 45), (2025, 1, 29)),
}
YEARS = [(2024, 2, 29), (2025, 1, 31, 8)]
YEN_ANCHOR = (2025, 1, 6)

KEYS = {
    "customers": ("customer", "valid_from"),
    "subjects": ("subject", "valid_from"),
    "subscriptions": ("subscription", "starts_at"),
    "grants": ("grant",),
    "one_offs": ("one_off",),
    "discounts": ("discount",),
}


def quiet(at):
    """An instant, or one some days before where it is shortly before a run."""
    return at - 2 * QUIET if any(run - QUIET <= at <= run for run in RUNS) else at


def text(at):
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def begins_periods(row):
    """Whether billing periods are counted from the start of a row."""
    return row.get("plan") in ["team", "scale", "enterprise", "yen"] and "anchor" not in row


def run_of(at):
    """The first run that an instant is before."""
    return next((number for number, run in enumerate(RUNS) if at <= run), len(RUNS) - 1)


def microseconds(at):
    return (at - EPOCH) // timedelta(microseconds=1)


class Company:
    def __init__(self, seed, customers, troubles):
        self.random = random.Random(seed)
        # Troubles have a dice each, so that the company is the same with and without them.
        self.dice = {name: random.Random(f"{name} {seed}") for name in TROUBLES}
        self.troubles = troubles
        self.rows = {table: [] for table in KEYS}
        self.events = []
        self.edges = {}
        self.subjects = {}
        makers = [
            self.starter, self.upgrades, self.seats, self.team, self.quarterly, self.yearly, self.euro, self.pauses,
            self.other_periods, self.trial, self.add_on, self.yen, self.own_bounds, self.without_plan, self.half_cents,
            self.surprises,
        ]
        for number in range(customers):
            kind = makers[number % len(makers)]
            self.customer(number, kind, plain=number < len(makers))
        self.hand_over(customers)
        self.usage()

    # Rows

    def row(self, table, known, **cells):
        def cell(value):
            return str(value).lower() if isinstance(value, bool) else str(value)

        self.rows[table].append((known, {name: cell(value) for name, value in cells.items() if value is not None}))

    def instant(self, at, day=False):
        """Notes an edge at which usage is tried, and gives the cell: a day where it is a midnight of the customer's zone."""
        self.edges[self.name].add(at.astimezone(UTC))
        local = at.astimezone(self.zone)
        is_midnight = (local.hour, local.minute, local.second, local.microsecond) == (0, 0, 0, 0)
        return local.strftime("%Y-%m-%d") if day and is_midnight and self.random.random() < 0.5 else text(at)

    def local(self, *parts):
        return datetime(*parts, tzinfo=self.zone).astimezone(UTC)

    def moment(self, first, last):
        """Some instant between two: a local midnight, a full hour, or any microsecond. Not shortly before a run."""
        width = microseconds(last) - microseconds(first)
        at = first + timedelta(microseconds=self.random.randrange(max(width, 1)))
        local = at.astimezone(self.zone)
        shape = self.random.random()
        if shape < 0.4:
            at = self.local(local.year, local.month, local.day)
        elif shape < 0.6:
            at = at.replace(minute=0, second=0, microsecond=0)
        return quiet(at)

    def subscribe(self, name, plan, starts, ends=None, seats=None, trial_ends=None, anchor=None, minimum=None, maximum=None):
        """A row of a subscription; one that ends is written a second time when it has ended."""
        cells = dict(
            subscription=name, customer=self.name, plan=plan, seats=seats, starts_at=text(starts),
            trial_ends_at=trial_ends and self.instant(trial_ends), anchor=anchor and text(anchor),
            minimum=minimum, maximum=maximum)
        self.instant(starts)
        self.row("subscriptions", starts, **cells)
        if ends is not None:
            self.row("subscriptions", ends, ends_at=self.instant(ends), **cells)

    # Customers

    def customer(self, number, kind, plain):
        self.name = f"c{number:04}"
        zones = list(ZONES)
        if kind == self.yen:
            zones = ["Australia/Sydney"]
        zone = zones[number % len(zones)] if plain else self.random.choice(zones)
        self.zone = ZoneInfo(zone)
        self.edges[self.name] = set()
        count = 1 if plain else self.random.choice([1, 1, 2, 3])
        self.subjects[self.name] = [f"{self.name}-s{place}" for place in range(count)]
        for subject in self.subjects[self.name]:
            self.row("subjects", START, subject=subject, customer=self.name)
        self.currency = {self.euro: "EUR", self.yen: "JPY"}.get(kind, "USD")
        region = None if plain and kind != self.euro else self.random.choice(["DE", "US-NY", "DE", None])
        region = "DE" if kind == self.euro else region
        is_exempt = not plain and self.random.random() < 0.15
        terms = dict(name=f"Customer {number}", currency=self.currency, time_zone=zone, tax_region=region)
        since = None if self.random.random() < 0.5 else text(START - timedelta(days=400))
        self.row("customers", START, customer=self.name, valid_from=since, tax_exempt=is_exempt or None, **terms)
        if not plain and self.random.random() < 0.15:
            at = self.moment(START + timedelta(days=60), END - timedelta(days=60))
            terms["tax_region"] = self.random.choice(["DE", "US-NY", None])
            self.row("customers", at, customer=self.name, valid_from=self.instant(at), **terms)
        kind()
        if not plain:
            self.more()

    def first_day(self):
        """When a customer begins: on the first day of the first month, or some time in the first half of the year."""
        if self.random.random() < 0.4:
            return self.local(2025, 1, 1)
        return self.moment(START + timedelta(days=2), START + timedelta(days=150))

    def starter(self):
        self.subscribe(f"{self.name}-main", "starter", self.local(2025, 1, 1))

    def upgrades(self):
        at, plan = self.first_day(), "starter"
        for _ in range(self.random.choice([2, 3, 4])):
            self.subscribe(f"{self.name}-main", plan, at, seats=self.random.choice([1, 2, 3]))
            plan = "pro" if plan == "starter" else "starter"
            at = self.moment(at + timedelta(days=5), at + timedelta(days=120))

    def seats(self):
        at = self.first_day()
        for _ in range(self.random.choice([2, 3, 5])):
            self.subscribe(f"{self.name}-main", "pro", at, seats=self.random.choice([0, 1, 2, 5, 7]))
            at = self.moment(at + timedelta(days=4), at + timedelta(days=70))

    def month_anchor(self):
        return self.local(*ZONES[self.zone.key][0])

    def quarter_anchor(self):
        return self.local(*ZONES[self.zone.key][1])

    def team(self):
        at, anchor = self.month_anchor(), None
        if self.random.random() < 0.5:
            at, anchor = self.first_day(), at
        for _ in range(self.random.choice([1, 2, 3])):
            self.subscribe(f"{self.name}-main", "team", at, seats=self.random.choice([1, 3, 4]), anchor=anchor)
            at = self.moment(at + timedelta(days=20), at + timedelta(days=100))

    def quarterly(self):
        at, anchor = self.quarter_anchor(), None
        if self.random.random() < 0.5:
            at, anchor = self.first_day(), at
        self.subscribe(f"{self.name}-main", "scale", at, anchor=anchor)

    def yearly(self):
        at, anchor = self.first_day(), self.local(*self.random.choice(YEARS))
        trial_ends = at + timedelta(days=21) if self.random.random() < 0.3 else None
        self.subscribe(f"{self.name}-main", "enterprise", at, anchor=anchor, trial_ends=trial_ends)

    def euro(self):
        self.subscribe(f"{self.name}-main", "euro", self.first_day())

    def pauses(self):
        at = self.first_day()
        for place in range(self.random.choice([2, 3])):
            ends = self.moment(at + timedelta(days=15), at + timedelta(days=90))
            is_last = place == 2
            self.subscribe(f"{self.name}-main", "pro" if place != 1 else "starter", at, ends=None if is_last else ends, seats=2)
            at = self.moment(ends + timedelta(days=3), ends + timedelta(days=60))

    def other_periods(self):
        """Months, then quarters, then months again: each change begins a period with an anchor of its own."""
        first, change = self.month_anchor(), self.local(2025, 6, 17, 9)
        again = self.local(2025, 11, 28)
        self.subscribe(f"{self.name}-main", "team", first, seats=2)
        self.subscribe(f"{self.name}-main", "scale", change)
        self.subscribe(f"{self.name}-main", self.random.choice(["starter", "pro"]), again)

    def trial(self):
        at = self.first_day()
        ends = self.moment(at + timedelta(days=10), at + timedelta(days=40))
        plans = self.random.choice([("starter", "pro"), ("pro", "starter"), ("team", "team")])
        anchor = self.month_anchor() if plans[0] == "team" else None
        self.subscribe(f"{self.name}-main", plans[0], at, trial_ends=ends, anchor=anchor)
        later = self.moment(at + timedelta(days=5), at + timedelta(days=80))
        self.subscribe(f"{self.name}-main", plans[1], later, trial_ends=max(ends, later), seats=2, anchor=anchor)

    def add_on(self):
        at = self.first_day()
        self.subscribe(f"{self.name}-main", self.random.choice(["starter", "pro"]), at, seats=3)
        at = self.moment(at + timedelta(days=1), at + timedelta(days=90))
        ends = self.moment(at + timedelta(days=20), at + timedelta(days=200))
        self.subscribe(f"{self.name}-extra", "support", at, ends=ends)

    def yen(self):
        at = self.local(*YEN_ANCHOR)
        self.subscribe(f"{self.name}-main", "yen", at, seats=1)
        at = self.moment(at + timedelta(days=20), at + timedelta(days=200))
        self.subscribe(f"{self.name}-main", "yen", at, seats=4)

    def own_bounds(self):
        at = self.first_day()
        self.subscribe(f"{self.name}-main", "starter", at, minimum=self.random.choice(["10.00", "0.00", "80.00"]))
        at = self.moment(at + timedelta(days=10), at + timedelta(days=90))
        self.subscribe(f"{self.name}-main", "pro", at, seats=4, minimum="60.00", maximum=self.random.choice(["75.00", "99.95"]))

    def without_plan(self):
        self.one_off(1)

    def half_cents(self):
        """49.99 and 99.99 for 1, 4 and 10 of 30 days are half a cent together, and no single one of them ends."""
        for day, plan, seats in [(1, "pro", 1), (2, "pro", 2), (6, "pro", 3), (16, "starter", 1)]:
            minimum = "99.99" if plan == "pro" else None
            self.subscribe(f"{self.name}-main", plan, self.local(2025, 6, day), seats=seats, minimum=minimum)

    def surprises(self):
        """Changes some days after a run has billed the period in advance: less seats, another plan or other periods, an end."""
        plan = self.random.choice(["pro", "team", "enterprise"])
        anchors = {"team": self.month_anchor(), "scale": self.quarter_anchor(), "enterprise": self.local(2025, 1, 31, 8)}
        self.subscribe(f"{self.name}-main", plan, self.local(2025, 1, 1), seats=5, anchor=anchors.get(plan))
        changes = [run + timedelta(days=self.random.randrange(1, 25), hours=self.random.randrange(24)) for run in RUNS[:4]]
        for at in sorted(map(quiet, self.random.sample(changes, 2))):
            plan = self.random.choice([plan, "starter", "team", "pro", "scale"])
            seats = self.random.choice([1, 2, 8])
            anchor = anchors.get(plan)
            self.subscribe(f"{self.name}-main", plan, at, seats=seats, anchor=anchor)
        if self.random.random() < 0.4:
            at = quiet(RUNS[-2] + timedelta(days=self.random.randrange(30, 60)))
            self.subscribe(f"{self.name}-main", plan, at, seats=3, anchor=anchor, ends=at + timedelta(days=9))

    # What comes on top

    def more(self):
        for place in range(self.random.choice([0, 0, 1, 1, 2, 3])):
            self.grant(place)
        for place in range(self.random.choice([0, 0, 0, 1, 2])):
            self.discount(place)
        for place in range(self.random.choice([0, 0, 1, 2])):
            self.one_off(place)

    def prices(self):
        if self.currency != "USD" or self.random.random() < 0.7:
            return None
        return self.random.choice(["tokens_by_model", "resolved;gpu_time", "pro_base;pro_seats", "starter_base;team_base;team_seats"])

    def money(self, least, most):
        digits = 0 if self.currency == "JPY" else 2
        scale = 100 if self.currency == "JPY" else 1
        return f"{self.random.uniform(least * scale, most * scale):.{digits}f}"

    def grant(self, place):
        at = self.moment(START, END - timedelta(days=60))
        cells = dict(
            grant=f"{self.name}-g{place}", customer=self.name, amount=self.money(5, 120), currency=self.currency,
            priority=self.random.choice([0, 0, 1]), effective_at=self.instant(at, day=True), applies_to=self.prices(),
            kind=self.random.choice(["prepaid", "promotional", "prepaid"]))
        if self.random.random() < 0.6:
            cells["expires_at"] = self.instant(self.moment(at + timedelta(days=20), at + timedelta(days=250)), day=True)
        if self.random.random() < 0.4:
            cells["recurs_every"] = self.random.choice(["month", "2 weeks", "quarter"])
            if self.random.random() < 0.6:
                cells["rollover_max"] = self.money(20, 60)
                if self.random.random() < 0.5:
                    cells["rollover_min"] = self.money(0, 20)
        self.row("grants", at, **cells)
        if self.random.random() < 0.15:
            voided = self.moment(at + timedelta(days=10), END)
            self.row("grants", voided, voided_at=self.instant(voided), **cells)

    def discount(self, place):
        at = self.moment(START, END - timedelta(days=90))
        is_percent = self.random.random() < 0.6
        cells = dict(
            discount=f"{self.name}-d{place}", customer=self.name, kind="percent" if is_percent else "fixed",
            value=self.random.choice(["10", "12.5", "33.333", "100"]) if is_percent else self.money(1, 40),
            currency=None if is_percent else self.currency, starts_at=self.instant(at, day=True), applies_to=self.prices(),
            position=self.random.choice([0, 1, 2]))
        if self.random.random() < 0.7:
            cells["ends_at"] = self.instant(self.moment(at + timedelta(days=30), at + timedelta(days=200)), day=True)
        self.row("discounts", at, **cells)

    def one_off(self, place):
        at = self.moment(START + timedelta(days=10), END - timedelta(days=10))
        amount = self.money(1, 250)
        self.row(
            "one_offs", at, one_off=f"{self.name}-o{place}", customer=self.name, currency=self.currency, text="onboarding",
            amount=amount if self.random.random() < 0.8 else f"-{amount}", date=self.instant(at, day=True))

    def hand_over(self, customers):
        """Subjects that another customer pays for, for a while or for ever."""
        for number in range(17, customers, 4):
            self.name = f"c{number:04}"
            self.zone = ZoneInfo("UTC")
            subject, other = self.subjects[self.name][0], f"c{number - 1:04}"
            at = self.moment(START + timedelta(days=20), END - timedelta(days=100))
            self.row("subjects", at, subject=subject, customer=other, valid_from=self.instant(at))
            if self.random.random() < 0.5:
                at = self.moment(at + timedelta(days=1), at + timedelta(days=90))
                self.row("subjects", at, subject=subject, customer=self.name, valid_from=self.instant(at))

    # Usage

    def usage(self):
        for customer, subjects in self.subjects.items():
            edges = sorted(at for at in self.edges[customer] if START <= at < END)
            for subject in subjects:
                for _ in range(self.random.randrange(20, 70)):
                    self.event(subject, START + timedelta(microseconds=self.random.randrange(microseconds(END) - microseconds(START))))
                for at in edges:
                    if self.random.random() < 0.7:
                        self.event(subject, at)
                        self.event(subject, at - timedelta(microseconds=1))
        for _ in range(20):
            self.event("stranger", START + timedelta(minutes=self.random.randrange(600_000)))
        self.events.sort(key=lambda event: (event[0], event[1]))

    def event(self, subject, at):
        kind = self.random.random()
        if kind < 0.5:
            type_, data = "llm.completion", {
                "model": self.random.choice(["small", "large", "vision"]),
                "input_tokens": self.random.randrange(1_000_000), "output_tokens": self.random.randrange(200_000)}
        elif kind < 0.8:
            type_, data = "ticket.closed", {"outcome": self.random.choice(["resolved", "resolved", "resolved", "escalated"])}
        else:
            type_, data = "gpu.job", {"seconds": self.random.randrange(4_000_000)}
        number = len(self.events)
        self.events.append((at, number, subject, type_, data))

    # Files

    def write(self, folder):
        rows = {table: self.known(table) for table in KEYS}
        arrivals = self.arrivals()
        for number in range(len(RUNS)):
            into = os.path.join(folder, f"run-{number}")
            os.makedirs(into)
            for table, by_run in rows.items():
                # Of two rows with one key in one run the later one stands: an import does not take both.
                known = {tuple(row.get(name) for name in KEYS[table]): row for row in by_run[number]}
                self.write_rows(os.path.join(into, f"{table}.csv"), known.values())
            with open(os.path.join(into, "events.ndjson"), "w", encoding="utf-8") as file:
                file.writelines(line(*event) for event in arrivals[number])
        with open(os.path.join(folder, "runs.json"), "w", encoding="utf-8") as file:
            json.dump(self.runs(), file)

    # Troubles

    def falls(self, trouble, chance):
        return trouble in self.troubles and self.dice[trouble].random() < chance

    def later(self, trouble, number):
        """Some run after one."""
        return self.dice[trouble].randrange(number + 1, len(RUNS)) if number + 1 < len(RUNS) else number

    def known(self, table):
        """The rows of a table by the run in which they are imported. Customers are known at once, for other rows name them, and so are
        rows that periods begin with: without them, other periods would end shortly before a run."""
        by_run = [[] for _ in RUNS]
        for at, row in self.rows[table]:
            number = run_of(at)
            may_be_late = table != "customers" and not begins_periods(row)
            if self.falls("backdated", 0.06) and may_be_late:
                number = self.later("backdated", number)
            by_run[number].append(row)
        return by_run

    def arrivals(self):
        """Events by run, in the order in which they arrive: late ones some time between the run before and the run."""
        by_run = [[] for _ in RUNS]
        for event in self.events:
            arrives, number = event[0], run_of(event[0])
            if self.falls("late", 0.05) and number + 1 < len(RUNS):
                number = self.later("late", number)
                arrives = RUNS[number - 1] + (RUNS[number] - RUNS[number - 1]) * self.dice["late"].random()
            by_run[number].append((arrives, event))
        return [[event for _, event in sorted(events, key=lambda known: (known[0], known[1][1]))] for events in by_run]

    def runs(self):
        edits = self.edits()
        return [{
            "at": microseconds(run), "corrects": number in CORRECTING, "voids": self.voids(number), "edits": edits[number],
            "deaths": self.deaths(number), "looks": number in LOOKING} for number, run in enumerate(RUNS)]

    def voids(self, number):
        """Whose last documents are taken back before a run: of some the last two."""
        dice, names = self.dice["voids"], sorted(self.subjects)
        if "voids" not in self.troubles or number == 0:
            return []
        some = dice.sample(names, max(1, len(names) // 12))
        return sorted(some + dice.sample(some, len(some) // 3))

    def edits(self):
        """What is changed of the price list before each run."""
        by_run = [[] for _ in RUNS]
        if "prices" in self.troubles:
            for file, before, after, *term in EDITS:
                if self.dice["prices"].random() < 0.6:
                    edit = {"file": file, "before": before, "after": after}
                    by_run[self.dice["prices"].randrange(1, len(RUNS))].append(edit | dict(zip(["term", "value"], term)))
        return by_run

    def deaths(self, number):
        """At which of its durable steps the job dies, one attempt after the other. The last run is not given again: it takes long."""
        dice = self.dice["deaths"]
        if "deaths" not in self.troubles or number == len(RUNS) - 1:
            return []
        return [dice.randrange(1, 60 if number == 0 else 25) for _ in range(1 if number in CORRECTING else dice.choice([1, 1, 1, 2]))]

    def write_rows(self, path, rows):
        names = sorted({name for row in rows for name in row})
        if not names:
            return
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)


def line(at, number, subject, type_, data):
    data = dict(data)
    event = {
        "specversion": "1.0", "id": f"e{number}", "source": "company", "type": type_, "subject": subject, "time": text(at),
        "data": data}
    written = json.dumps(event)
    if "seconds" in data:
        # A decimal number of exactly three digits after the point, which no float writes reliably.
        thousandths = data["seconds"]
        written = written.replace(f'"seconds": {thousandths}', f'"seconds": {thousandths // 1000}.{thousandths % 1000:03}')
    return written + "\n"


if __name__ == "__main__":
    named = sys.argv[4].split(",") if len(sys.argv) > 4 else TROUBLES
    Company(int(sys.argv[1]), int(sys.argv[2]), named).write(sys.argv[3])
