"""What a document was made from, and why it would be another now: the causes in the relation `unissued`."""

from collections import defaultdict
from decimal import Decimal

from .charges import is_usage


class Basis:
    """Usage by meter and subject, and what plans, prices and rate tables say, of the parts of a document."""

    def __init__(self, known, customer, parts):
        self.usage, self.plans, self.prices, self.tables = [], {}, {}, {}
        prices = known.prices
        for cycle, name, is_opening in parts:
            terms = prices.plans[name]
            self.plans[name] = terms
            usage = [price for price in terms["prices"] if is_usage(prices, price)]
            if not is_opening and usage:
                self.usage += used(known.paid, cycle.usage[name])
            rated = terms["in_advance"] if is_opening else terms["prices"]
            for price in rated:
                self.prices[price] = prices.says(price)
                if price == "tokens_by_model":
                    self.tables["model_rates"] = prices.rates
        if any(row.get("tax_region") and row.get("tax_exempt") != "true" for row in known.accounts.customer_rows(customer)):
            self.tables["tax_rates"] = prices.taxes
        self.usage.sort(key=str)

    def causes(self, now):
        """Why a document that was made from this is another when it is made from something else; without it, it is not made at all."""
        causes = []
        if now is not None:
            if self.usage != now.usage:
                causes.append("usage")
            pairs = [("plan", self.plans, now.plans), ("price", self.prices, now.prices), ("rate table", self.tables, now.tables)]
            for kind, before, after in pairs:
                if kind != "plan" or (before and after):
                    names = sorted(set(before) | set(after))
                    causes += [f"{kind} `{name}`" for name in names if before.get(name) != after.get(name)]
        return ", ".join(causes or ["an account"]) + " has changed since it was issued"


def used(paid, times):
    """Of each meter and subject, what the meter measures."""
    measured = defaultdict(lambda: defaultdict(Decimal))
    for starts, ends in times:
        for _, type_, data, subject in paid.between(starts, ends):
            of_subject = measured[(type_, subject)]
            if type_ == "llm.completion":
                of_subject[(data["model"], "input")] += data["input_tokens"]
                of_subject[(data["model"], "output")] += data["output_tokens"]
            elif type_ == "ticket.closed":
                of_subject["resolved"] += data["outcome"] == "resolved"
            else:
                of_subject["seconds"] += data["seconds"]
    return [(key, sorted(of_subject.items(), key=str)) for key, of_subject in measured.items()]
