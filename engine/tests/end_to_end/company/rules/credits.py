"""What grants pay. Balances follow from grants and from what was burnt of them: (grant, at, amount), below zero where it went back."""

from fractions import Fraction

from .charges import applies
from .numbers import DIGITS, rounded
from .times import FOREVER, UTC, after, clock, clock_to_us

GRANTED, RECURRED, BURNT = range(3)
STEPS = {"month": ("months", 1), "quarter": ("months", 3), "weeks": ("days", 7)}


class Grants:
    """Grants of a customer, and all that was burnt of them so far."""

    def __init__(self, rows, burnt):
        self.rows, self.burnt = rows, burnt

    def in_order(self, kind, currency):
        rows = [row for row in self.rows if (row.get("kind") or "prepaid") == kind and row["currency"] == currency]
        return sorted(rows, key=lambda row: (
            int(row.get("priority") or 0), row["expires_at"] or FOREVER, row["effective_at"], row["grant"]))

    def pay(self, kind, currency, at, lines):
        """What grants pay of lines, all with service periods that end at an instant: each (price, owed). Gives (place, grant, amount)."""
        payments, owed = [], [amount for _, amount in lines]
        for grant in self.in_order(kind, currency):
            left = available(grant, self.burnt, at)
            for place, (price, _) in enumerate(lines):
                amount = min(left, owed[place])
                if amount <= 0 or not applies(grant, price):
                    continue
                left -= amount
                owed[place] -= amount
                payments.append((place, grant["grant"], amount))
        return payments

    def give_back(self, kind, currency, at, by, lines):
        """What goes back of lines that are less now: to the grant that was burnt last, as far as it had paid, while the occurrence
        that paid is in force. Gives (place, grant, amount), amounts below zero."""
        payments, less = [], [amount for _, amount in lines]
        for grant in reversed(self.in_order(kind, currency)):
            if not is_one_occurrence(grant, at, by):
                continue
            paid = sum(amount for name, when, amount in self.burnt if name == grant["grant"] and when == at)
            for place, (price, _) in enumerate(lines):
                amount = min(paid, less[place])
                if amount <= 0 or not applies(grant, price):
                    continue
                paid -= amount
                less[place] -= amount
                payments.append((place, grant["grant"], -amount))
        return payments

    def undo(self, own, by):
        """The burns of a document the other way, the last one first."""
        burnt, undone = list(self.burnt), []
        named = {row["grant"]: row for row in self.rows}
        for name, at, amount in reversed(own):
            grant = named[name]
            is_promotional = grant.get("kind") == "promotional"
            if amount > 0:
                back = -amount if is_promotional or is_one_occurrence(grant, at, by) else 0
            else:
                back = min(-amount, available(grant, burnt, at))
                assert back == -amount or not is_promotional, "a promotional grant has spent what it had back"
            if back:
                burnt.append((name, at, back))
                undone.append((name, at, back))
        return undone


def ends_of(grant):
    return min(grant["expires_at"] or FOREVER, grant["voided_at"] or FOREVER)


def is_in_force(grant, at):
    return grant["effective_at"] <= at < ends_of(grant)


def recurrences(grant, until):
    """The instants at which a grant is granted anew."""
    if not grant.get("recurs_every"):
        return
    count, every = grant["recurs_every"].split() if " " in grant["recurs_every"] else ("1", grant["recurs_every"])
    unit, size = STEPS[every]
    anchor, place = clock(grant["effective_at"], UTC), 1
    while (when := clock_to_us(after(anchor, (unit, size * int(count)), place), UTC)) <= until and when < ends_of(grant):
        yield when
        place += 1


def is_one_occurrence(grant, starts, ends):
    anew = any(starts < when <= ends for when in recurrences(grant, ends))
    return is_in_force(grant, starts) and is_in_force(grant, ends) and not anew


def turns_of(grant, burnt, at):
    """What happens to a grant up to an instant and to what was burnt after it: (when, what, how much)."""
    own = [(when, BURNT, amount) for name, when, amount in burnt if name == grant["grant"]]
    last = max([at] + [when for when, _, _ in own])
    anew = [(when, RECURRED, 0) for when in recurrences(grant, last)]
    return [(grant["effective_at"], GRANTED, 0)] + anew + own


def terms_of(grant):
    unit = 10 ** DIGITS[grant["currency"]]
    return [rounded(Fraction(grant.get(name) or 0), unit) for name in ("amount", "rollover_min", "rollover_max")]


def rests(turns, amount, least, most):
    """What is left after each turn. Of one instant, what follows from the grant is first, then what went back, then what paid."""
    rest = 0
    for when, what, burn in sorted(turns):
        if what == GRANTED:
            rest = amount
        elif what == RECURRED:
            rest = amount + min(most, max(rest, least))
        else:
            rest -= burn
        yield when, rest


def available(grant, burnt, at):
    """How much of a grant may be burnt at an instant, so that what was burnt of later times still has its own."""
    if not is_in_force(grant, at):
        return 0
    turns = turns_of(grant, burnt, at)
    amount, least, most = terms_of(grant)

    def lasts(more):
        """Whether nothing is overdrawn when so much more is burnt."""
        return all(rest >= 0 for when, rest in rests(turns + [(at, BURNT, more)], amount, least, most) if when >= at)

    low, high = 0, amount + most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if lasts(middle) else (low, middle - 1)
    return low


def balance(grant, burnt, at):
    """What is left of a grant at an instant. After its end that is what a document had burnt of later time before it was known
    that the grant ends."""
    if at < grant["effective_at"] or ends_of(grant) <= grant["effective_at"]:
        return 0
    if ends_of(grant) <= at:
        return sum(amount for name, when, amount in burnt if name == grant["grant"] and when > at)
    turns = turns_of(grant, burnt, at)
    return [rest for when, rest in rests(turns, *terms_of(grant)) if when <= at][-1]
