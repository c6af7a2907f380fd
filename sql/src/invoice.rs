//! Charges to line items to totals.
