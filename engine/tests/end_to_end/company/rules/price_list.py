"""The price list, as in definitions.sql: what each plan charges, and how. Some of its numbers are terms that change between runs."""

import csv
import os
from fractions import Fraction

from .times import FOREVER, UTC, instant

# What `terms` says of each where no run has changed it yet.
TERMS = {
    "ticket": "0.995", "gpu": "0.0111", "starter_base": "19.00", "pro_base": "49.99", "team_seats": "14.50", "starter_minimum": "25.00",
    "pro_maximum": "140.00",
}


def fee(amount, by="day", each_seat=False):
    """A fixed price: its amount for a whole period, prorated by days or by seconds, or not at all."""
    return {"fee": Fraction(amount), "by": by, "each_seat": each_seat}


def plan(prices, currency="USD", step=("months", 1), anchored=False, in_advance=(), minimum=None, maximum=None, **options):
    return {
        "prices": prices, "currency": currency, "step": step, "anchored": anchored, "in_advance": in_advance,
        "minimum": minimum and Fraction(minimum), "maximum": maximum and Fraction(maximum), **options}


class PriceList:
    """All prices, plans and rates as they are in one run."""

    def __init__(self, folder, edits):
        """From the CSV files of a folder and the edits of runs so far, by file."""
        self.terms = dict(TERMS)
        self.terms.update({edit["term"]: edit["value"] for edit in edits.get("definitions.sql", [])})
        rates = rows_of(folder, "model_rates.csv", edits)
        self.rates = {row["model"]: (Fraction(row["input_rate"]), Fraction(row["output_rate"])) for row in rates}
        self.taxes = [
            (row["region"], Fraction(row["rate_percent"]), instant(row["valid_from"], UTC),
             instant(row["valid_to"], UTC) if row["valid_to"] else FOREVER) for row in rows_of(folder, "tax_rates.csv", edits)]
        self.prices = self.all_prices()
        self.plans = self.all_plans()

    def all_prices(self):
        terms = self.terms
        return {
            "tokens_by_model": self.per_model,
            "resolved": self.per_ticket,
            "gpu_time": self.per_gpu_second,
            "euro_tokens": per_euro_token,
            "euro_resolved": per_five_tickets,
            "yen_tokens": per_yen_token,
            "starter_base": fee(terms["starter_base"]),
            "pro_base": fee(terms["pro_base"]),
            "pro_seats": fee("9.90", by="second", each_seat=True),
            "team_base": fee("99.00"),
            "team_seats": fee(terms["team_seats"], each_seat=True),
            "scale_base": fee("600.00"),
            "enterprise_base": fee("12000.00"),
            "platform": fee("250.00", by="period"),
            "support_base": fee("75.00"),
            "euro_base": fee("29.00"),
            "yen_base": fee("1000", each_seat=True),
        }

    def all_plans(self):
        terms = self.terms
        return {
            "starter": plan(["starter_base", "tokens_by_model", "resolved"], minimum=terms["starter_minimum"]),
            "pro": plan(
                ["pro_base", "pro_seats", "tokens_by_model", "resolved", "gpu_time"], in_advance=["pro_base"],
                maximum=terms["pro_maximum"], percent_first=True),
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

    def tax_rate(self, region, at):
        return next(rate for name, rate, starts, ends in self.taxes if name == region and starts <= at < ends)

    def says(self, price):
        """What the text of a price says, as far as it may change."""
        terms = {"resolved": self.terms["ticket"], "gpu_time": self.terms["gpu"]}
        return terms.get(price) if callable(self.prices[price]) else self.prices[price]

    # Prices of usage: (dimensions, quantity, amount) of each line.

    def per_model(self, usage):
        lines = []
        calls = usage.get("llm.completion", [])
        for model in sorted({call["model"] for call in calls}):
            of_model = [call for call in calls if call["model"] == model]
            given = sum(call["input_tokens"] for call in of_model)
            made = sum(call["output_tokens"] for call in of_model)
            amount = given * self.rates[model][0] + made * self.rates[model][1]
            lines.append(([model], Fraction(given + made), amount))
        return lines

    def per_ticket(self, usage):
        if not usage.get("ticket.closed"):
            return []
        count = resolved_tickets(usage)
        # Three are free, up to eight cost the same, the others 0.79 each.
        amount = max(min(count, 8) - 3, 0) * Fraction(self.terms["ticket"]) + max(count - 8, 0) * Fraction("0.79")
        return [([], Fraction(count), amount)]

    def per_gpu_second(self, usage):
        jobs = usage.get("gpu.job")
        if not jobs:
            return []
        seconds = sum(Fraction(job["seconds"]) for job in jobs)
        return [([], seconds, seconds * (Fraction(self.terms["gpu"]) if seconds <= 7200 else Fraction("0.0093")))]


def resolved_tickets(usage):
    return sum(1 for ticket in usage["ticket.closed"] if ticket["outcome"] == "resolved")


def per_euro_token(usage):
    calls = usage.get("llm.completion")
    if not calls:
        return []
    tokens = sum(call["input_tokens"] + call["output_tokens"] for call in calls)
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
    tokens = sum(call["output_tokens"] for call in calls)
    return [([], Fraction(tokens), max(tokens - 1000, 0) * Fraction("0.0021"))]


def rows_of(folder, name, edits):
    with open(os.path.join(folder, name), encoding="utf-8", newline="") as file:
        text = file.read()
    for edit in edits.get(name, []):
        assert edit["before"] in text, edit
        text = text.replace(edit["before"], edit["after"])
    return list(csv.DictReader(text.splitlines()))
