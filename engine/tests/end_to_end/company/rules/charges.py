"""The lines of a document before credits and taxes: charges, one-offs, discounts, the maximum and the minimum of each plan."""

from fractions import Fraction

from .numbers import DIGITS, rounded, spread
from .times import FOREVER, days_ended

FIXED = ("base", "credit")
TAXES = ("tax", "tax_included")


class Line:
    def __init__(self, kind, amount, starts, ends, price=None, dimensions=(), quantity=None, subscription=None, text=None):
        self.kind, self.amount, self.price, self.subscription = kind, amount, price, subscription
        self.dimensions, self.quantity, self.starts, self.ends = list(dimensions), quantity, starts, ends
        self.discount = self.promotional = 0
        self.text = text
        # Of an adjustment: the number of the document that it corrects, and the kind of that one's line.
        self.corrects = None

    def last(self):
        return max(self.ends - 1, self.starts)

    def net(self):
        return self.amount - self.discount

    def left(self):
        return self.amount - self.discount - self.promotional

    def billed_kind(self):
        return self.corrects[1] if self.corrects else self.kind

    def key(self):
        """What tells it from other lines of one document."""
        return (
            self.billed_kind(), self.subscription, self.price, tuple(self.dimensions), self.starts, self.ends, self.text)

    def like(self, **others):
        """A line of the same key, without what credits paid."""
        line = Line(
            self.kind, self.amount, self.starts, self.ends, self.price, self.dimensions, self.quantity, self.subscription, self.text)
        line.discount, line.corrects = self.discount, self.corrects
        for name, value in others.items():
            setattr(line, name, value)
        return line


class Known:
    """By what documents are made: accounts, prices, and the usage that a customer pays for by these accounts."""

    def __init__(self, accounts, prices, paid):
        self.accounts, self.prices, self.paid = accounts, prices, paid


def seats(row):
    return int(row["seats"]) if row.get("seats") is not None else 1


def fixed_lines(prices, cycle, plan_name, price, unit):
    """A fixed price by segment, rounded cumulatively."""
    terms, segments = prices.prices[price], cycle.segments.get(plan_name)
    if not segments:
        return []
    if terms["by"] == "period":
        amount = rounded(terms["fee"], unit)
        return [Line("base", amount, segments[0][0], segments[-1][1], price, subscription=cycle.subscription)]
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
        quantity = Fraction(count) if terms["each_seat"] else None
        lines.append(Line("base", amount, starts, ends, price, quantity=quantity, subscription=cycle.subscription))
    return lines


def usage_lines(known, cycle, plan_name, price, unit):
    """A usage price once, over the time in which the plan is in force."""
    times = cycle.usage[plan_name]
    lines = []
    for dimensions, quantity, amount in known.prices.prices[price](known.paid.within(times)):
        lines.append(Line(
            "usage", rounded(amount, unit), times[0][0], times[-1][1], price, dimensions, quantity, cycle.subscription))
    return lines


def is_usage(prices, price):
    return callable(prices.prices[price])


def billed_for(billed, cycle, price):
    """What of some lines was billed of a fixed price for a billing period of a subscription."""
    return [
        line for line in billed
        if line.price == price and line.subscription == cycle.subscription and line.billed_kind() in FIXED
        and cycle.starts <= line.starts and line.ends <= cycle.ends]


def not_billed(known, customer, billed, cycle, plan_name, price, now, unit):
    """`rate(now) - what was issued before`, of what is billed in advance. What was not paid is not given back: of a fee that had
    a discount, what comes back is what was paid less what the used part costs with its discounts, which take no more off than they
    did."""
    before = billed_for(billed, cycle, price)
    if not before or not now:
        return now
    more = sum(line.amount for line in now) - sum(line.amount for line in before)
    if more >= 0:
        kind, difference = "base", more
    else:
        discount = sum(line.discount for line in before)
        now = [line.like() for line in now]
        take_discounts(known, customer, now, known.prices.plans[plan_name].get("percent_first", False), unit)
        discount_now = min(sum(line.discount for line in now), discount)
        kind, difference = "credit", min(more + discount - discount_now, 0)
    if difference == 0:
        return []
    return [Line(kind, difference, cycle.starts, cycle.closes, price, subscription=cycle.subscription)]


def counted_in_advance(prices, billed, cycle, plan_name):
    """Fees in advance count in the period that they are for."""
    in_advance = prices.plans[plan_name]["in_advance"]
    return sum(line.net() for price in in_advance for line in billed_for(billed, cycle, price))


class Billing:
    """What a part is charged by all that is known, of which some was billed before. `in_advance` says what its prices in advance come
    to, where that is not what is known now."""

    def __init__(self, known, customer, billed, in_advance=None):
        self.known, self.customer, self.billed, self.in_advance = known, customer, billed, in_advance or {}

    def lines(self, part, unit):
        cycle, name, is_opening = part
        terms, lines = self.known.prices.plans[name], []
        for price in terms["prices"]:
            in_advance = price in terms["in_advance"]
            if in_advance:
                now = self.in_advance.get((cycle.subscription, is_opening), self.rated)(cycle, name, price, unit)
                lines += not_billed(self.known, self.customer, self.billed, cycle, name, price, now, unit)
            elif is_opening or name not in cycle.segments:
                continue
            elif is_usage(self.known.prices, price):
                lines += usage_lines(self.known, cycle, name, price, unit)
            else:
                lines += fixed_lines(self.known.prices, cycle, name, price, unit)
        return lines

    def rated(self, cycle, name, price, unit):
        return fixed_lines(self.known.prices, cycle, name, price, unit)

    def counted(self, part):
        return counted_in_advance(self.known.prices, self.billed, part[0], part[1])


class AsIssued:
    """What a part is charged by usage as it is now, with fixed prices as they were issued."""

    def __init__(self, known, fixed, billed):
        self.known, self.fixed, self.billed = known, fixed, billed

    def lines(self, part, unit):
        cycle, name, is_opening = part
        terms, lines = self.known.prices.plans[name], []
        for price in terms["prices"]:
            if is_usage(self.known.prices, price):
                lines += [] if is_opening else usage_lines(self.known, cycle, name, price, unit)
            else:
                own = [line.like() for line in self.fixed.get(id(part), []) if line.price == price]
                lines += sorted(own, key=lambda line: (line.starts, line.ends))
        return lines

    def counted(self, part):
        return counted_in_advance(self.known.prices, self.billed, part[0], part[1])


def priced(known, customer, due, parts, charges):
    """The lines of a document before credits and taxes, each with the tax that it bears: (line, (rate, whether included, region))."""
    plans = known.prices.plans
    currency = currency_of(known, due, parts)
    unit = 10 ** DIGITS[currency]
    first = plans[parts[0][1]] if parts else {}
    lines, of_parts = [], []
    for part in parts:
        of_part = charges.lines(part, unit)
        of_parts.append(of_part)
        lines += of_part
    for row in due.one_offs:
        amount = rounded(Fraction(row["amount"]), unit)
        lines.append(Line("one_off", amount, row["date"], row["date"], text=row["text"]))
    # Discounts come after the minimum where a plan says so.
    for part, of_part in zip(parts, of_parts):
        if plans[part[1]].get("minimum_before_discounts") and not part[2]:
            lines += bound(known, "minimum", part, of_part, charges, unit)
    take_discounts(known, customer, lines, first.get("percent_first", False), unit)
    # The maximum, then the minimum, of each plan.
    for part, of_part in zip(parts, of_parts):
        if not part[2]:
            lines += bound(known, "maximum", part, of_part, charges, unit)
            if not plans[part[1]].get("minimum_before_discounts"):
                lines += bound(known, "minimum", part, of_part, charges, unit)
    included = {price for _, name, _ in parts if plans[name].get("tax_included") for price in plans[name]["prices"]}
    return [(line, tax_of(known, customer, line, included, first.get("tax_included", False))) for line in lines]


def currency_of(known, due, parts):
    return known.prices.plans[parts[0][1]]["currency"] if parts else due.one_offs[0]["currency"] if due.one_offs else None


def bound(known, kind, part, of_part, charges, unit):
    """The line of a plan's maximum or minimum for the days that it was active, if it has one."""
    cycle, name, _ = part
    prices, terms = known.prices, known.prices.plans[name]
    limit = None
    for starts, ends, row in cycle.segments.get(name, []):
        whole = Fraction(row[kind]) if row.get(kind) is not None else terms[kind]
        if whole is None:
            continue
        if kind == "minimum" and terms.get("less_fees"):
            fees = sum(prices.prices[price]["fee"] for price in terms["prices"] if not is_usage(prices, price))
            whole = max(whole - fees, 0)
        limit = (limit or 0) + whole * Fraction(days_ended(starts, ends, cycle.zone), cycle.days())
    if limit is None:
        return []
    if terms.get("less_fees"):
        counted = sum(line.net() for line in of_part if line.kind not in FIXED)
    else:
        counted = sum(line.net() for line in of_part) + charges.counted(part)
    missing = limit - Fraction(counted, unit)
    amount = rounded(max(missing, 0) if kind == "minimum" else min(missing, 0), unit)
    if amount == 0:
        return []
    line = Line(kind, amount, cycle.starts, cycle.ends, subscription=cycle.subscription, text=name)
    of_part.append(line)
    return [line]


def applies(row, price):
    """Whether a discount or a grant is for a price; one that names prices is for no line without one."""
    names = (row.get("applies_to") or "").replace(";", " ").split()
    return not names or price in names


def take_discounts(known, customer, lines, percent_first, unit):
    def order(row):
        return (percent_first and row["kind"] == "fixed", int(row.get("position") or 0), row["discount"])

    for row in sorted(known.accounts.rows("discounts", customer), key=order):
        starts, ends = row["starts_at"] or -FOREVER, row["ends_at"] or FOREVER
        left = [max(line.net(), 0) if applies(row, line.price) and starts <= line.last() < ends else 0 for line in lines]
        whole = sum(left)
        if row["kind"] == "percent":
            off = rounded(Fraction(whole) * Fraction(row["value"]) / 100)
        else:
            off = min(rounded(Fraction(row["value"]), unit), whole)
        for line, share in zip(lines, spread(off, left)):
            line.discount += share


def tax_of(known, customer, line, included, included_else):
    """The tax that a line bears: that of where its customer is at the last instant of its service period."""
    row = known.accounts.customer_at(customer, line.last())
    if row is None or not row.get("tax_region") or row.get("tax_exempt") == "true":
        return None
    region = row["tax_region"]
    is_included = line.price in included if line.price else included_else
    return (known.prices.tax_rate(region, line.last()), is_included, region)


def tax_on(tax, taxable):
    """The tax of an amount, rounded once."""
    rate, is_included, _ = tax
    if is_included:
        return taxable - rounded(Fraction(taxable) * 100 / (100 + rate))
    return rounded(Fraction(taxable) * rate / 100)
