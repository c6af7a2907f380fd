"""What a company's customers owe, document by document, from its raw events and CSV files.

    oracle.py FOLDER DEFINITIONS

reads what generate.py wrote, run by run, and the CSV files of the rate tables in DEFINITIONS, and prints each document that is
issued as a line of JSON, in the order of their numbers, after some runs what is unissued, and at the end what is left of each grant. The rules are those of
DESIGN.md section 8, docs/accounts.md and docs/invoices.md, written down a second time: nothing here is shared with the engine.
Amounts are exact fractions until they are rounded.

`rules/` has the rules by topic. What is known when is the heart of it: accounts and prices are kept by run, and each document by the run
that it was made in or was last corrected in.
"""

import json
import os
import sys
from fractions import Fraction

from rules.accounts import Accounts, Paid, Usage
from rules.credits import balance
from rules.documents import Bill
from rules.numbers import DIGITS, plain
from rules.price_list import PriceList


class Story:
    """What was known in each run."""

    def __init__(self, folder, definitions):
        with open(os.path.join(folder, "runs.json"), encoding="utf-8") as file:
            self.runs = json.load(file)
        self.at = [run["at"] for run in self.runs]
        self.accounts, self.prices, self.usage = [], [], Usage()
        self.payments, self.subjects = {}, {}
        accounts, edits = Accounts(), {}
        for number, run in enumerate(self.runs):
            of_run = os.path.join(folder, f"run-{number}")
            accounts = accounts.with_import(of_run)
            self.accounts.append(accounts)
            for edit in run["edits"]:
                edits.setdefault(edit["file"], []).append(edit)
            self.prices.append(PriceList(definitions, edits))
            self.usage.read(of_run, number)
        self.note_subjects()

    def note_subjects(self):
        """Whose usage a customer has ever paid for: also by rows that were replaced since."""
        for accounts in self.accounts:
            for subject, rows in accounts.payers().items():
                for _, customer in rows:
                    self.subjects.setdefault(customer, set()).add(subject)
        self.late = {}
        for at, subject, _, _, run in self.usage.events:
            self.late.setdefault(subject, []).append((run, at))

    def paid(self, by, run, customer):
        """What a customer pays for by the accounts of a run, of all that has arrived by another."""
        if (by, run) not in self.payments:
            self.payments[(by, run)] = self.usage.by_customer(self.accounts[by], run)
        return self.payments[(by, run)].get(customer) or Paid()

    def came(self, customer, document, run):
        """Whether usage of a customer's subjects came by a run for the time of a document that was issued before."""
        starts, ends = document.period
        return any(
            document.run < arrived <= run and starts <= at < ends
            for subject in self.subjects.get(customer, ()) for arrived, at in self.late.get(subject, ()))


class Numbers:
    """Two series without gaps."""

    def __init__(self):
        self.invoices = self.credit_notes = 0

    def give(self, document):
        if document.kind() == "invoice":
            self.invoices += 1
            document.number = f"INV-{self.invoices:06}"
        else:
            self.credit_notes += 1
            document.number = f"CN-{self.credit_notes:06}"


VOIDED_BEFORE = 3_600_000_000


def main(folder, definitions):
    story, numbers, bills = Story(folder, definitions), Numbers(), {}

    def issue(documents):
        for document in documents:
            numbers.give(document)
            print(json.dumps(document.as_json()))

    for number, run in enumerate(story.runs):
        for customer in run["voids"]:
            if customer in bills:
                issue(bills[customer].void(number - 1, run["at"] - VOIDED_BEFORE))
        for customer in story.accounts[number].customers():
            bill = bills.setdefault(customer, Bill(customer, story))
            issue(bill.run(number, run["corrects"]))
        if run["looks"]:
            rows = [row for customer in sorted(bills) for row in bills[customer].unissued(number)]
            print(json.dumps({"run": number, "unissued": rows}))
    balances, last = {}, len(story.runs) - 1
    for grant in story.accounts[last].tables["grants"].values():
        left = balance(grant, bills[grant["customer"]].burnt(), story.at[last])
        balances[grant["grant"]] = plain(Fraction(left, 10 ** DIGITS[grant["currency"]]))
    print(json.dumps({"balances": balances}))


if __name__ == "__main__":
    main(*sys.argv[1:])
