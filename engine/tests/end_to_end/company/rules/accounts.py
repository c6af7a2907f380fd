"""What CSV files say of customers, and who used what."""

import copy
import csv
import json
import os
from bisect import bisect_left, bisect_right
from collections import defaultdict
from decimal import Decimal
from zoneinfo import ZoneInfo

from .times import FOREVER, UTC, instant

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


class Accounts:
    """Rows of all imports so far. Of two rows with one key the later one stands."""

    def __init__(self):
        self.tables = {table: {} for table in TIMES}
        self.by_customer = {}

    def with_import(self, folder):
        """These accounts and the files of a folder."""
        more = Accounts()
        more.tables = {table: dict(rows) for table, rows in self.tables.items()}
        # Customers are first: their zones say when the days of the other tables begin.
        for table, times in TIMES.items():
            path = os.path.join(folder, f"{table}.csv")
            if os.path.exists(path):
                with open(path, encoding="utf-8", newline="") as file:
                    for row in csv.DictReader(file):
                        more.add(table, {name: cell or None for name, cell in row.items()}, times)
            more.index(table)
        return more

    def add(self, table, row, times):
        for name in times:
            cell = row.get(name)
            row[name] = instant(cell, self.zone_of_row(table, row, cell)) if cell else None
        self.tables[table][tuple(row[name] for name in KEYS[table])] = row

    def index(self, table):
        self.by_customer[table] = defaultdict(list)
        for row in self.tables[table].values():
            self.by_customer[table][row["customer"]].append(row)

    def with_subscription(self, name, rows):
        """These accounts with other rows of one subscription."""
        other = copy.copy(self)
        subscriptions = self.tables["subscriptions"].items()
        kept = {key: row for key, row in subscriptions if row["subscription"] != name}
        kept.update({(name, row["starts_at"]): row for row in rows})
        other.tables = {**self.tables, "subscriptions": kept}
        other.by_customer = dict(self.by_customer)
        other.index("subscriptions")
        return other

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
        """Rows of each subscription, in order of their start."""
        by_name = defaultdict(list)
        for row in self.rows("subscriptions", customer):
            by_name[row["subscription"]].append(row)
        return {name: sorted(by_name[name], key=lambda row: row["starts_at"]) for name in sorted(by_name)}

    def goes_on_after(self, customer, at):
        lasts = [rows[-1] for rows in self.subscriptions(customer).values()]
        return any(last["ends_at"] is None or at < last["ends_at"] for last in lasts)

    def payers(self):
        """Of each subject: since when who pays."""
        by_subject = defaultdict(list)
        for row in self.tables["subjects"].values():
            by_subject[row["subject"]].append((row["valid_from"] or -FOREVER, row["customer"]))
        return {subject: sorted(rows) for subject, rows in by_subject.items()}


class Usage:
    """Events as they arrived, run by run."""

    def __init__(self):
        # (at, subject, type, data, run)
        self.events = []

    def read(self, folder, run):
        with open(os.path.join(folder, "events.ndjson"), encoding="utf-8") as file:
            for line in file:
                event = json.loads(line, parse_float=Decimal)
                self.events.append((instant(event["time"], UTC), event["subject"], event["type"], event["data"], run))

    def by_customer(self, accounts, until):
        """Events that arrived by a run, by who paid for their subject when they happened, in order of time."""
        paid, payers = defaultdict(list), accounts.payers()
        for at, subject, type_, data, run in self.events:
            if run > until:
                break
            rows = payers.get(subject, [])
            place = bisect_right(rows, (at, "\U0010ffff")) - 1
            if place >= 0:
                paid[rows[place][1]].append((at, type_, data, subject))
        return {customer: Paid(events) for customer, events in paid.items()}


class Paid:
    """Usage that one customer pays for."""

    def __init__(self, events=()):
        self.events = sorted(events, key=lambda event: event[0])
        self.times = [event[0] for event in self.events]

    def within(self, times):
        """What was used in some times, by type of event."""
        used = defaultdict(list)
        for starts, ends in times:
            for _, type_, data, _ in self.between(starts, ends):
                used[type_].append(data)
        return used

    def between(self, starts, ends):
        return self.events[bisect_left(self.times, starts):bisect_left(self.times, ends)]
