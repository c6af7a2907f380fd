"""What a company's customers owe, document by document, from its raw events and CSV files.

    oracle.py FOLDER DEFINITIONS

reads what generate.py wrote, run by run, and the CSV files of the rate tables in DEFINITIONS, and prints each document that a
run of `tollgate invoice --due --finalize` issues as a line of JSON, and at the end what is left of each grant. The rules are those of DESIGN.md section 8, docs/accounts.md
and docs/invoices.md, written down a second time: nothing here is shared with the engine. Amounts are exact fractions until they
are rounded.
"""

import csv
import json
import os
import sys
from bisect import bisect_right
from calendar import monthrange
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

UTC = timezone.utc
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER = 10**18
TWO_YEARS = 731 * 86_400 * 10**6
DIGITS = {"USD": 2, "EUR": 2, "JPY": 0}


# The price list, as in definitions.sql: what each plan charges, and how.


def per_model(usage):
    rates = TOKEN_RATES
    lines = []
    for model in sorted({event["model"] for _, event in usage.get("llm.completion", [])}):
        of_model = [event for _, event in usage["llm.completion"] if event["model"] == model]
        given = sum(event["input_tokens"] for event in of_model)
        made = sum(event["output_tokens"] for event in of_model)
        lines.append(([model], Fraction(given + made), given * rates[model][0] + made * rates[model][1]))
    return lines


def resolved_tickets(usage):
    return sum(1 for _, event in usage["ticket.closed"] if event["outcome"] == "resolved")


def per_ticket(usage):
    if not usage.get("ticket.closed"):
        return []
    count = resolved_tickets(usage)
    # Three are free, up to eight cost 0.995 each, the others 0.79.
    amount = max(min(count, 8) - 3, 0) * Fraction("0.995") + max(count - 8, 0) * Fraction("0.79")
    return [([], Fraction(count), amount)]


def per_gpu_second(usage):
    jobs = usage.get("gpu.job")
    if not jobs:
        return []
    seconds = sum(Fraction(event["seconds"]) for _, event in jobs)
    return [([], seconds, seconds * (Fraction("0.0111") if seconds <= 7200 else Fraction("0.0093")))]


def per_euro_token(usage):
    calls = usage.get("llm.completion")
    if not calls:
        return []
    tokens = sum(event["input_tokens"] + event["output_tokens"] for _, event in calls)
    return [([], Fraction(tokens), tokens * Fraction("0.000004"))]


def per_five_tickets(usage):
    if not usage.get("ticket.closed"):
        return []
    count = resolved_tickets(usage)
    return [([], Fraction(count), -(-count // 5) * Fraction("2.50"))]


def per_yen_token(usage):
    calls = usage.get("llm.completion")
    if not calls:
        return []
    tokens = sum(event["output_tokens"] for _, event in calls)
    return [([], Fraction(tokens), max(tokens - 1000, 0) * Fraction("0.0021"))]


def fee(amount, by="day", each_seat=False):
    """A fixed price: its amount for a whole period, prorated by days or by seconds, or not at all."""
    return {"fee": Fraction(amount), "by": by, "each_seat": each_seat}


PRICES = {
    "tokens_by_model": per_model,
    "resolved": per_ticket,
    "gpu_time": per_gpu_second,
    "euro_tokens": per_euro_token,
    "euro_resolved": per_five_tickets,
    "yen_tokens": per_yen_token,
    "starter_base": fee("19.00"),
    "pro_base": fee("49.99"),
    "pro_seats": fee("9.90", by="second", each_seat=True),
    "team_base": fee("99.00"),
    "team_seats": fee("14.50", each_seat=True),
    "scale_base": fee("600.00"),
    "enterprise_base": fee("12000.00"),
    "platform": fee("250.00", by="period"),
    "support_base": fee("75.00"),
    "euro_base": fee("29.00"),
    "yen_base": fee("1000", each_seat=True),
}


def plan(prices, currency="USD", step=("months", 1), anchored=False, in_advance=(), minimum=None, maximum=None, **options):
    return {
        "prices": prices, "currency": currency, "step": step, "anchored": anchored, "in_advance": in_advance,
        "minimum": minimum and Fraction(minimum), "maximum": maximum and Fraction(maximum), **options}


PLANS = {
    "starter": plan(["starter_base", "tokens_by_model", "resolved"], minimum="25.00"),
    "pro": plan(
        ["pro_base", "pro_seats", "tokens_by_model", "resolved", "gpu_time"], in_advance=["pro_base"], maximum="140.00",
        percent_first=True),
    "team": plan(
        ["team_base", "team_seats", "tokens_by_model", "gpu_time"], anchored=True, in_advance=["team_base", "team_seats"],
        minimum="160.00"),
    "scale": plan(
        ["scale_base", "tokens_by_model", "resolved", "gpu_time"], step=("months", 3), anchored=True, minimum="650.00",
        less_fees=True),
    "enterprise": plan(
        ["enterprise_base", "platform", "tokens_by_model", "gpu_time"], step=("months", 12), anchored=True,
        in_advance=["enterprise_base"], trial_billed=True),
    "support": plan(["support_base"], in_advance=["support_base"]),
    "euro": plan(
        ["euro_base", "euro_tokens", "euro_resolved"], currency="EUR", minimum="35.00", tax_included=True,
        minimum_before_discounts=True),
    "yen": plan(["yen_base", "yen_tokens"], currency="JPY", step=("days", 14), anchored=True),
}

TOKEN_RATES = {}
TAX_RATES = []


def read_rates(folder):
    for row in rows_of(os.path.join(folder, "model_rates.csv")):
        TOKEN_RATES[row["model"]] = (Fraction(row["input_rate"]), Fraction(row["output_rate"]))
    for row in rows_of(os.path.join(folder, "tax_rates.csv")):
        ends = instant(row["valid_to"], UTC) if row["valid_to"] else FOREVER
        TAX_RATES.append((row["region"], Fraction(row["rate_percent"]), instant(row["valid_from"], UTC), ends))


def tax_rate(region, at):
    return next(rate for name, rate, starts, ends in TAX_RATES if name == region and starts <= at < ends)


# Numbers


def rounded(amount, unit=1):
    """To whole units, half away from zero."""
    scaled = amount * unit
    size = (2 * abs(scaled.numerator) + scaled.denominator) // (2 * scaled.denominator)
    return size if scaled >= 0 else -size


def spread(amount, weights):
    """Whole units in proportion to weights; what is left over goes to the largest remainders, of equal ones to the first."""
    whole = sum(weights)
    if whole == 0:
        return [0] * len(weights)
    sign, size = (-1, -amount) if amount < 0 else (1, amount)
    parts = [divmod(size * weight, whole) for weight in weights]
    given = [part for part, _ in parts]
    by_remainder = sorted(range(len(parts)), key=lambda place: -parts[place][1])
    for place in by_remainder[: size - sum(given)]:
        given[place] += 1
    return [sign * part for part in given]


def plain(number):
    """A decimal number without zeros at its end."""
    number = Fraction(number)
    scaled, digits = number, 0
    while scaled.denominator != 1:
        scaled, digits = scaled * 10, digits + 1
    return f"{Decimal(scaled.numerator).scaleb(-digits):f}"


# Time: instants are whole microseconds since 1970.


def us(at):
    return (at - EPOCH) // timedelta(microseconds=1)


def instant(cell, zone):
    """A cell with an offset, or a day, which is its first instant in the zone."""
    if len(cell) == 10:
        return clock_to_us(datetime.fromisoformat(cell), zone)
    return us(datetime.fromisoformat(cell.replace("Z", "+00:00")))


def clock_to_us(local, zone):
    """A time by the clock of a zone: where the clock shows it twice the first one, where it skips it the time after."""
    return us(local.replace(tzinfo=zone, fold=0).astimezone(UTC))


def clock(at, zone):
    return (EPOCH + timedelta(microseconds=at)).astimezone(zone).replace(tzinfo=None)


def days_ended(starts, ends, zone):
    """A day that is cut belongs to the time in which it ends."""
    return (clock(ends, zone).date() - clock(starts, zone).date()).days


def after(anchor, step, count):
    """So many steps after an anchor: on its day of the month, or the last one of a shorter month."""
    unit, size = step
    if unit == "days":
        return anchor + timedelta(days=size * count)
    month = anchor.year * 12 + anchor.month - 1 + size * count
    year, month = month // 12, month % 12 + 1
    return anchor.replace(year=year, month=month, day=min(anchor.day, monthrange(year, month)[1]))


# What CSV files say


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Accounts:
    """Rows of all imports so far. Of two rows with one key the later one stands."""

    TIMES = {
        "customers": ["valid_from"],
        "subjects": ["valid_from"],
        "subscriptions": ["starts_at", "ends_at", "trial_ends_at", "anchor"],
        "grants": ["effective_at", "expires_at", "voided_at"],
        "one_offs": ["date"],
        "discounts": ["starts_at", "ends_at"],
    }
    KEYS = {
        "customers": ["customer", "valid_from"], "subjects": ["subject", "valid_from"],
        "subscriptions": ["subscription", "starts_at"], "grants": ["grant"], "one_offs": ["one_off"], "discounts": ["discount"]}

    def __init__(self):
        self.tables = {table: {} for table in self.TIMES}
        self.by_customer = {}

    def read(self, folder):
        # Customers are first: their zones say when the days of the other tables begin.
        for table, times in self.TIMES.items():
            path = os.path.join(folder, f"{table}.csv")
            if not os.path.exists(path):
                continue
            for row in rows_of(path):
                row = {name: cell or None for name, cell in row.items()}
                for name in times:
                    cell = row.get(name)
                    row[name] = instant(cell, self.zone_of_row(table, row, cell)) if cell else None
                self.tables[table][tuple(row[name] for name in self.KEYS[table])] = row
            self.by_customer[table] = defaultdict(list)
            for row in self.tables[table].values():
                self.by_customer[table][row["customer"]].append(row)

    def zone_of_row(self, table, row, cell):
        if table == "customers":
            return ZoneInfo(row.get("time_zone") or "UTC")
        of_customer = self.customer_at(row["customer"], instant(cell, UTC))
        return ZoneInfo(of_customer["time_zone"] or "UTC") if of_customer else UTC

    def rows(self, table, customer):
        return self.by_customer.get(table, {}).get(customer, [])

    def customers(self):
        return sorted({row["customer"] for row in self.tables["customers"].values()})

    def customer_rows(self, customer):
        return sorted(self.rows("customers", customer), key=lambda row: row["valid_from"] or -FOREVER)

    def customer_at(self, customer, at):
        begun = [row for row in self.customer_rows(customer) if (row["valid_from"] or -FOREVER) <= at]
        return begun[-1] if begun else None

    def zone_at(self, customer, at):
        row = self.customer_at(customer, at) or self.customer_rows(customer)[0]
        return ZoneInfo(row["time_zone"] or "UTC")

    def subscriptions(self, customer):
        by_name = defaultdict(list)
        for row in self.rows("subscriptions", customer):
            by_name[row["subscription"]].append(row)
        return {name: sorted(by_name[name], key=lambda row: row["starts_at"]) for name in sorted(by_name)}

    def payers(self):
        """Of each subject: since when who pays."""
        by_subject = defaultdict(list)
        for row in self.tables["subjects"].values():
            by_subject[row["subject"]].append((row["valid_from"] or -FOREVER, row["customer"]))
        return {subject: sorted(rows) for subject, rows in by_subject.items()}


class Usage:
    """Events by who paid for their subject when they happened, in order of time."""

    def __init__(self):
        self.events = []

    def read(self, folder):
        with open(os.path.join(folder, "events.ndjson"), encoding="utf-8") as file:
            for line in file:
                event = json.loads(line, parse_float=Decimal)
                self.events.append((instant(event["time"], UTC), event["subject"], event["type"], event["data"]))

    def by_customer(self, payers):
        paid = defaultdict(list)
        for at, subject, type_, data in self.events:
            rows = payers.get(subject, [])
            place = bisect_right(rows, (at, "\U0010ffff")) - 1
            if place >= 0:
                paid[rows[place][1]].append((at, type_, data))
        return {customer: sorted(events, key=lambda event: event[0]) for customer, events in paid.items()}


# Billing periods


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


def cycles_of(rows, zone_at, until):
    """The billing periods of a subscription that begin by an instant."""
    stretches = []
    for row, later in zip(rows, rows[1:] + [None]):
        terms = PLANS[row["plan"]]
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
        cycles.extend(cycles_in(stretch, zone_at, until))
    return cycles


def cycles_in(stretch, zone_at, until):
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
        fill(cycle, stretch["rows"])
        if cycle.opens is not None:
            yield cycle
        starts = ends


def fill(cycle, rows):
    for row, begins, ends in rows:
        begins, ends = max(begins, cycle.starts), min(ends, cycle.closes)
        if begins >= ends:
            continue
        if cycle.opens is None:
            cycle.opens = begins
        paid = max(begins, row["trial_ends_at"] or begins)
        used = begins if PLANS[row["plan"]].get("trial_billed") else paid
        usage = cycle.usage.setdefault(row["plan"], [])
        segments = cycle.segments.setdefault(row["plan"], [])
        if used < ends:
            usage.append((used, ends))
        if paid < ends:
            segments.append((paid, ends, row))


# Charges


class Line:
    def __init__(self, kind, amount, starts, ends, price=None, dimensions=(), quantity=None, subscription=None):
        self.kind, self.amount, self.price, self.subscription = kind, amount, price, subscription
        self.dimensions, self.quantity, self.starts, self.ends = list(dimensions), quantity, starts, ends
        self.discount = self.promotional = 0

    def last(self):
        return max(self.ends - 1, self.starts)

    def net(self):
        return self.amount - self.discount

    def left(self):
        return self.amount - self.discount - self.promotional


def seats(row):
    return int(row["seats"]) if row.get("seats") is not None else 1


def fixed_lines(cycle, plan_name, price, unit):
    """A fixed price by segment, rounded cumulatively."""
    terms, segments = PRICES[price], cycle.segments[plan_name]
    if not segments:
        return []
    if terms["by"] == "period":
        line = Line("base", rounded(terms["fee"], unit), segments[0][0], segments[-1][1], price, subscription=cycle.subscription)
        return [line]
    lines, so_far, before = [], Fraction(0), 0
    for starts, ends, row in segments:
        if terms["by"] == "day":
            share = Fraction(days_ended(starts, ends, cycle.zone), cycle.days())
        else:
            share = Fraction(ends - starts, cycle.ends - cycle.starts)
        count = seats(row) if terms["each_seat"] else 1
        so_far += terms["fee"] * count * share
        amount = rounded(so_far, unit) - before
        before += amount
        quantity = count if terms["each_seat"] else None
        lines.append(Line("base", amount, starts, ends, price, quantity=quantity, subscription=cycle.subscription))
    return lines


def usage_lines(cycle, plan_name, price, events, unit):
    """A usage price once, over the time in which the plan is in force."""
    times = cycle.usage[plan_name]
    used = defaultdict(list)
    for at, type_, data in events:
        if any(starts <= at < ends for starts, ends in times):
            used[type_].append((at, data))
    lines = []
    for dimensions, quantity, amount in PRICES[price](used):
        lines.append(Line(
            "usage", rounded(amount, unit), times[0][0], times[-1][1], price, dimensions, quantity, cycle.subscription))
    return lines


class Bill:
    """One customer's documents, run by run."""

    def __init__(self, customer):
        self.customer = customer
        self.issued = {}
        # What was billed of each subscription and price for fixed prices: (subscription, price) -> lines.
        self.billed = defaultdict(list)
        self.one_offs = set()
        # What each grant paid: (at, amount).
        self.burnt = defaultdict(list)

    def run(self, accounts, events, until):
        """The documents that are due by an instant and not issued."""
        due = defaultdict(lambda: {"closing": [], "opening": [], "one_offs": []})
        closes = []
        for rows in accounts.subscriptions(self.customer).values():
            # A period that closes after this run takes a one-off too.
            closes += [cycle.closes for cycle in cycles_of(rows, lambda at: accounts.zone_at(self.customer, at), until + TWO_YEARS)]
            for cycle in cycles_of(rows, lambda at: accounts.zone_at(self.customer, at), until):
                if any(PLANS[name]["in_advance"] for name in cycle.segments) and cycle.opens <= until:
                    due[cycle.opens]["opening"].append(cycle)
                if cycle.closes <= until:
                    due[cycle.closes]["closing"].append(cycle)
        one_offs = sorted(accounts.rows("one_offs", self.customer), key=lambda row: (row["date"], row["one_off"]))
        for row in one_offs:
            at = min((at for at in closes if at > row["date"]), default=row["date"])
            if row["date"] <= until and at <= until and row["one_off"] not in self.one_offs:
                due[at]["one_offs"].append(row)
        for at in sorted(due):
            if at in self.issued:
                continue
            document = self.document(accounts, events, at, due[at])
            if document is not None:
                self.issued[at] = document
                self.one_offs.update(row["one_off"] for row in due[at]["one_offs"])
                yield at, document

    def document(self, accounts, events, at, due):
        parts = [(cycle, name, False) for cycle in due["closing"] for name in cycle.segments]
        parts += [(cycle, name, True) for cycle in due["opening"] for name in cycle.segments]
        currency = PLANS[parts[0][1]]["currency"] if parts else due["one_offs"][0]["currency"]
        first = PLANS[parts[0][1]] if parts else {}
        unit = 10 ** DIGITS[currency]
        lines, of_parts = [], []
        for cycle, name, is_opening in parts:
            of_part = self.lines_of(accounts, cycle, name, is_opening, events, unit)
            of_parts.append(of_part)
            lines += of_part
        for row in due["one_offs"]:
            lines.append(Line("one_off", rounded(Fraction(row["amount"]), unit), row["date"], row["date"]))
        # 2. Discounts, after the minimum where a plan says so.
        for (cycle, name, is_opening), of_part in zip(parts, of_parts):
            if PLANS[name].get("minimum_before_discounts") and not is_opening:
                lines += self.bound("minimum", cycle, name, of_part, unit)
        self.take_discounts(accounts, lines, first.get("percent_first", False), unit)
        # 3. The maximum, then the minimum, of each plan.
        for (cycle, name, is_opening), of_part in zip(parts, of_parts):
            if is_opening:
                continue
            lines += self.bound("maximum", cycle, name, of_part, unit)
            if not PLANS[name].get("minimum_before_discounts"):
                lines += self.bound("minimum", cycle, name, of_part, unit)
        if not lines:
            return None
        # 4. Promotional credits.
        for line, paid in zip(lines, self.pay(accounts, "promotional", currency, lines, owed(lines), unit)):
            line.promotional = paid
        # 5. Taxes.
        included = {price for _, name, _ in parts if PLANS[name].get("tax_included") for price in PLANS[name]["prices"]}
        taxes = self.taxes(accounts, lines, included, first.get("tax_included", False), at, due, unit)
        # 6. Prepaid credits pay of what is left with its tax, never more than the total.
        total = sum(line.left() for line in lines) + sum(line.amount for line, _ in taxes if line.kind == "tax")
        with_tax = owed(lines)
        for line, taxable in taxes:
            if line.kind == "tax":
                shares = spread(line.amount, [max(amount, 0) for amount in taxable])
                with_tax = [amount + share for amount, share in zip(with_tax, shares)]
        paid = sum(self.pay(accounts, "prepaid", currency, lines, with_tax, unit))
        # What later documents have to know.
        for (cycle, name, _), of_part in zip(parts, of_parts):
            for line in of_part:
                if line.kind in ("base", "credit"):
                    self.billed[(line.subscription, line.price)].append(line)
        lines += [line for line, _ in taxes]
        money = lambda amount: f"{Decimal(amount).scaleb(-DIGITS[currency]):f}"
        return {
            "customer": self.customer, "period": period_of(at, due), "currency": currency,
            "lines": [{
                "kind": line.kind, "price": line.price, "subscription": line.subscription, "dimensions": line.dimensions,
                "quantity": None if line.quantity is None else plain(line.quantity), "amount": money(line.amount),
                "discount": money(line.discount), "promotional": money(line.promotional),
                "period": [line.starts, line.ends]} for line in lines],
            "discount": money(sum(line.discount for line in lines)),
            "promotional": money(sum(line.promotional for line in lines)),
            "tax": money(sum(line.amount for line, _ in taxes)), "total": money(total), "credits": money(paid),
            "amount_due": money(total - paid)}

    def lines_of(self, accounts, cycle, name, is_opening, events, unit):
        terms, lines = PLANS[name], []
        for price in terms["prices"]:
            in_advance = price in terms["in_advance"]
            if is_opening and not in_advance:
                continue
            if callable(PRICES[price]):
                lines += usage_lines(cycle, name, price, events, unit)
                continue
            now = fixed_lines(cycle, name, price, unit)
            if in_advance:
                now = self.not_billed(accounts, cycle, name, price, now, unit)
            lines += now
        return lines

    def billed_for(self, cycle, price):
        """What was billed of a price for this period of the subscription."""
        lines = self.billed[(cycle.subscription, price)]
        return [line for line in lines if cycle.starts <= line.starts < cycle.ends]

    def not_billed(self, accounts, cycle, name, price, now, unit):
        """`rate(now) - what was issued before`, of what is billed in advance. What was not paid is not given back: of a fee that
        had a discount, what comes back is what was paid less what the used part costs with its discounts, which take no more off
        than they did."""
        before = self.billed_for(cycle, price)
        if not before or not now:
            return now
        more = sum(line.amount for line in now) - sum(line.amount for line in before)
        if more >= 0:
            kind, difference = "base", more
        else:
            discount = sum(line.discount for line in before)
            self.take_discounts(accounts, now, PLANS[name].get("percent_first", False), unit)
            discount_now = min(sum(line.discount for line in now), discount)
            kind, difference = "credit", min(more + discount - discount_now, 0)
        if difference == 0:
            return []
        return [Line(kind, difference, cycle.starts, cycle.closes, price, subscription=cycle.subscription)]

    def bound(self, kind, cycle, name, of_part, unit):
        """The line of a plan's maximum or minimum for the days that it was active, if it has one."""
        terms, segments = PLANS[name], cycle.segments[name]
        limit = None
        for starts, ends, row in segments:
            whole = Fraction(row[kind]) if row.get(kind) is not None else terms[kind]
            if whole is None:
                continue
            if terms.get("less_fees"):
                fees = sum(PRICES[price]["fee"] for price in terms["prices"] if not callable(PRICES[price]))
                whole = max(whole - fees, 0)
            limit = (limit or 0) + whole * Fraction(days_ended(starts, ends, cycle.zone), cycle.days())
        if limit is None:
            return []
        if terms.get("less_fees"):
            counted = sum(line.net() for line in of_part if line.kind not in ("base", "credit"))
        else:
            # Fees in advance count in the period that they are for.
            counted = sum(line.net() for line in of_part)
            for price in terms["in_advance"]:
                counted += sum(line.net() for line in self.billed_for(cycle, price))
        missing = limit - Fraction(counted, unit)
        amount = rounded(max(missing, 0) if kind == "minimum" else min(missing, 0), unit)
        if amount == 0:
            return []
        line = Line(kind, amount, cycle.starts, cycle.ends, subscription=cycle.subscription)
        of_part.append(line)
        return [line]

    def take_discounts(self, accounts, lines, percent_first, unit):
        def order(row):
            return (percent_first and row["kind"] == "fixed", int(row.get("position") or 0), row["discount"])

        for row in sorted(accounts.rows("discounts", self.customer), key=order):
            starts, ends = row["starts_at"] or -FOREVER, row["ends_at"] or FOREVER
            left = [
                max(line.net(), 0) if applies(row, line.price) and starts <= line.last() < ends else 0 for line in lines]
            whole = sum(left)
            if row["kind"] == "percent":
                off = rounded(Fraction(whole) * Fraction(row["value"]) / 100)
            else:
                off = min(rounded(Fraction(row["value"]), unit), whole)
            for line, share in zip(lines, spread(off, left)):
                line.discount += share

    def taxes(self, accounts, lines, included, included_else, at, due, unit):
        """One line for each rate, rounded once over the lines that it is for, with what each of them is taxed on."""
        taxable = {}
        for place, line in enumerate(lines):
            customer = accounts.customer_at(self.customer, line.last())
            if customer is None or not customer.get("tax_region") or customer.get("tax_exempt") == "true":
                continue
            region = customer["tax_region"]
            is_included = line.price in included if line.price else included_else
            key = (tax_rate(region, line.last()), is_included, region)
            taxable.setdefault(key, [0] * len(lines))[place] = line.left()
        taxes = []
        starts, ends = period_of(at, due)
        for (rate, is_included, region), amounts in sorted(taxable.items()):
            gross = sum(amounts)
            if is_included:
                kind, tax = "tax_included", gross - rounded(Fraction(gross) * 100 / (100 + rate))
            else:
                kind, tax = "tax", rounded(Fraction(gross) * rate / 100)
            line = Line(kind, tax, starts, ends, dimensions=[region, plain(rate)], quantity=Fraction(gross, unit))
            taxes.append((line, amounts))
        return taxes

    def pay(self, accounts, kind, currency, lines, owed, unit):
        """What grants of a kind pay of each line: earlier service first, and of it grants in their order."""
        grants = [row for row in accounts.rows("grants", self.customer) if (row.get("kind") or "prepaid") == kind]
        grants = [row for row in grants if row["currency"] == currency]
        grants.sort(key=lambda row: (
            int(row.get("priority") or 0), row["expires_at"] or FOREVER, row["effective_at"], row["grant"]))
        paid, owed = [0] * len(lines), list(owed)
        for at in sorted({line.last() for line in lines}):
            for grant in grants:
                left = self.available(grant, at, unit)
                for place, line in enumerate(lines):
                    if line.last() != at or not applies(grant, line.price) or left <= 0 or owed[place] <= 0:
                        continue
                    amount = min(left, owed[place])
                    left -= amount
                    owed[place] -= amount
                    paid[place] += amount
                    self.burnt[grant["grant"]].append((at, amount))
        return paid

    def available(self, grant, at, unit):
        """How much of a grant may be burnt at an instant, so that what was burnt of later times still has its own."""
        ends = min(grant["expires_at"] or FOREVER, grant["voided_at"] or FOREVER)
        if not grant["effective_at"] <= at < ends:
            return 0
        turns = self.turns(grant, at)
        amount, least, most = terms_of(grant, unit)

        def lasts(more):
            """Whether nothing is overdrawn when so much more is burnt."""
            return all(rest >= 0 for _, rest in rests(turns + [(at, BURN, more)], amount, least, most))

        low, high = 0, amount + most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if lasts(middle) else (low, middle - 1)
        return low

    def turns(self, grant, at):
        """What happens to a grant up to an instant and to what was burnt after it: (when, what, how much)."""
        ends = min(grant["expires_at"] or FOREVER, grant["voided_at"] or FOREVER)
        burnt = self.burnt[grant["grant"]]
        turns = [(grant["effective_at"], GRANT, 0)] + [(when, BURN, amount) for when, amount in burnt]
        last = max([at] + [when for when, _ in burnt])
        if grant.get("recurs_every"):
            count, every = grant["recurs_every"].split() if " " in grant["recurs_every"] else ("1", grant["recurs_every"])
            step = {"month": ("months", 1), "quarter": ("months", 3), "weeks": ("days", 7)}[every]
            step = (step[0], step[1] * int(count))
            anchor, place = clock(grant["effective_at"], UTC), 1
            while (when := clock_to_us(after(anchor, step, place), UTC)) <= last and when < ends:
                turns.append((when, RECUR, 0))
                place += 1
        return turns

    def balance(self, grant, at, unit):
        """What is left of a grant at an instant. After its end that is what a document had burnt of later time before it was known
        that the grant ends."""
        ends = min(grant["expires_at"] or FOREVER, grant["voided_at"] or FOREVER)
        if at < grant["effective_at"] or ends <= grant["effective_at"]:
            return 0
        if ends <= at:
            return sum(amount for when, amount in self.burnt[grant["grant"]] if when > at)
        known = [(when, rest) for when, rest in rests(self.turns(grant, at), *terms_of(grant, unit)) if when <= at]
        return known[-1][1]


GRANT, RECUR, BURN = range(3)


def terms_of(grant, unit):
    names = ("amount", "rollover_min", "rollover_max")
    return [rounded(Fraction(grant.get(name) or 0), unit) for name in names]


def rests(turns, amount, least, most):
    """What is left after each turn. Of one instant, what follows from the grant is before what is burnt."""
    rest = 0
    for when, what, burn in sorted(turns, key=lambda turn: turn[:2]):
        if what == GRANT:
            rest = amount
        elif what == RECUR:
            rest = amount + min(most, max(rest, least))
        else:
            rest -= burn
        yield when, rest


def applies(row, price):
    """Whether a discount or a grant is for a price; one that names prices is for no line without one."""
    names = (row.get("applies_to") or "").replace(";", " ").split()
    return not names or price in names


def owed(lines):
    """What each line comes to; what lines below zero give back is taken off the others in proportion."""
    left = [line.left() for line in lines]
    weights = [max(amount, 0) for amount in left]
    back = min(-sum(amount for amount in left if amount < 0), sum(weights))
    return [weight - share for weight, share in zip(weights, spread(back, weights))]


def period_of(at, due):
    if due["closing"]:
        return [min(cycle.starts for cycle in due["closing"]), at]
    if due["opening"]:
        return [min(cycle.starts for cycle in due["opening"]), max(cycle.ends for cycle in due["opening"])]
    return [at, at]


def main(folder, definitions):
    read_rates(definitions)
    accounts, usage, bills = Accounts(), Usage(), {}
    with open(os.path.join(folder, "runs.json"), encoding="utf-8") as file:
        runs = json.load(file)
    for number, until in enumerate(runs):
        of_run = os.path.join(folder, f"run-{number}")
        accounts.read(of_run)
        usage.read(of_run)
        paid = usage.by_customer(accounts.payers())
        documents = []
        for customer in accounts.customers():
            bill = bills.setdefault(customer, Bill(customer))
            documents += bill.run(accounts, paid.get(customer, []), until)
        for _, document in sorted(documents, key=lambda known: (known[0], known[1]["customer"])):
            print(json.dumps({"run": number, **document}))
    balances = {}
    for grant in accounts.tables["grants"].values():
        unit = 10 ** DIGITS[grant["currency"]]
        left = bills[grant["customer"]].balance(grant, runs[-1], unit)
        balances[grant["grant"]] = plain(Fraction(left, unit))
    print(json.dumps({"balances": balances}))


if __name__ == "__main__":
    main(*sys.argv[1:])
