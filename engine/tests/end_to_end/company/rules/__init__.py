"""The rules by which the oracle bills, by topic. They are those of docs/accounts.md and docs/invoices.md, written down a second time."""
