"""What each of the twenty meters is, by DuckDB over the Parquet files of `events`, in whole numbers.

    twenty_meters.py LAKE OUT

writes one CSV a meter into OUT, its lines sorted, and prints how many events there were of each status.
Nothing here is a float: sums are DECIMAL or HUGEINT, and DuckDB ends a query that overflows. The rules
are those of docs/meters.md, written out by hand.
"""

import os
import sys
import duckdb
from deltalake import DeltaTable

MINUTE = 60_000_000
QUARTER = 15 * MINUTE
HOUR = 60 * MINUTE
DAY = 24 * HOUR

MACROS = """
CREATE MACRO unit(places) AS CAST('1' || repeat('0', places) AS HUGEINT);
CREATE MACRO digits(x) AS CAST(replace(CAST(x AS VARCHAR), '.', '') AS HUGEINT);
CREATE MACRO fixed(n, places) AS
    CASE WHEN n < 0 THEN '-' ELSE '' END || (abs(n) // unit(places)) || '.'
    || lpad(CAST(abs(n) % unit(places) AS VARCHAR), places, '0');
CREATE MACRO quotient(n, d) AS
    (CASE WHEN n < 0 THEN -1 ELSE 1 END)::HUGEINT * ((2 * abs(n) + d::HUGEINT) // (2 * d::HUGEINT));
-- The sorted values, none of them NULL, then the nearest rank and the line: p is numerator / 10^places.
CREATE MACRO rank(sorted, numerator, places) AS
    sorted[greatest(1, CAST((numerator * len(sorted) + unit(places) - 1) // unit(places) AS BIGINT))];
CREATE MACRO line(sorted, numerator, places) AS
    digits(sorted[CAST(numerator * (len(sorted) - 1) // unit(places) AS BIGINT) + 1])
        * (unit(places) - numerator * (len(sorted) - 1) % unit(places))
    + digits(sorted[least(CAST(numerator * (len(sorted) - 1) // unit(places) AS BIGINT) + 2, len(sorted))])
        * (numerator * (len(sorted) - 1) % unit(places));
"""


def mean(x, scale, condition="TRUE"):
    """The sum divided by the count, with 12 more digits but at most 24."""
    places = min(scale + 12, 24)
    kept = f"FILTER (WHERE {condition})"
    number = f"digits(sum({x}) {kept}) * unit({places - scale})"
    return f"fixed(quotient({number}, count({x}) {kept}), {places})"


def end(x, order, condition="TRUE"):
    """The value of the first or last event that has one."""
    by = ", ".join(f"{column} {order}" for column in ("us", "sequence", "ordinal"))
    return f"first({x} ORDER BY {by}) FILTER (WHERE {x} IS NOT NULL AND {condition})"


def first(x, condition="TRUE"):
    return end(x, "ASC", condition)


def latest(x):
    return end(x, "DESC")


def values(x, condition="TRUE"):
    return f"(list({x} ORDER BY {x}) FILTER (WHERE {x} IS NOT NULL AND {condition}))"


def integral(x, scale, width, condition="TRUE"):
    """The digits of what each change weighs until its window ends, in microseconds."""
    left = f"({width} - us % {width})"
    number = f"{x}::HUGEINT * {left}" if scale == 0 else f"{x} * {left}"
    return f"digits(sum({number}) FILTER (WHERE {condition}))"


def meter(width, keys, measures, where="TRUE"):
    """Window, subject, keys, then measures in their order."""
    keys = ["subject", *keys]
    return f"""
        SELECT strftime(make_timestamp(us - us % {width}), '%Y-%m-%dT%H:%M:%SZ') AS window_start,
               {", ".join([*keys, *measures])}
        FROM events WHERE {where} GROUP BY us // {width}, us - us % {width}, {", ".join(keys)}"""


def unique(width, measures):
    """The same where members come and go: `last_adds` is what the last operation on each member did,
    `ever` whether one added it, `us_adds` whether one in region us named it."""
    return f"""
        SELECT strftime(make_timestamp(start), '%Y-%m-%dT%H:%M:%SZ') AS window_start, subject,
               {", ".join(measures)}
        FROM (SELECT us - us % {width} AS start, subject, member,
                     last(operation IS DISTINCT FROM 'leave' ORDER BY us, sequence, ordinal) AS last_adds,
                     bool_or(operation IS DISTINCT FROM 'leave') AS ever,
                     sum(seats) AS seats
              FROM events GROUP BY ALL)
        GROUP BY start, subject"""


# The empty text is another region than none.
REGION = "coalesce(region, 'NULL')"
LARGE = "model = 'large'"
JOINS = "operation = 'join'"

METERS = {
    "sums": meter(MINUTE, [], ["sum(units)", "sum(huge)", "sum(cost)", "sum(rate)"]),
    "counts": meter(
        QUARTER,
        ["model", REGION],
        ["count(*)", "count(units)", "count(CASE WHEN operation = 'join' THEN 1 END)"],
    ),
    "distincts": meter(
        HOUR, [], ["count(DISTINCT member)", "count(DISTINCT units)", "count(DISTINCT level)"]
    ),
    "extremes": meter(
        HOUR,
        ["model"],
        ["min(units)", "max(units)", "min(huge)", "max(huge)", "min(cost)", "max(rate)", "max(member)"],
    ),
    "averages": meter(
        DAY, [], [mean("units", 0), mean("huge", 0), mean("cost", 9), mean("rate", 18)]
    ),
    "ends": meter(
        QUARTER, [REGION], [first("units"), latest("units"), first("cost"), latest("member")]
    ),
    "ranks": meter(
        HOUR,
        [],
        [
            f"rank({values('units')}, 95, 2)",
            f"rank({values('cost')}, 5, 1)",
            f"rank({values('member')}, 0, 0)",
            f"rank({values('huge')}, 1, 0)",
            f"rank({values('level')}, 999, 3)",
        ],
    ),
    "lines": meter(
        HOUR,
        [],
        [
            f"fixed(line({values('cost')}, 25, 2), 11)",
            f"fixed(line({values('units')}, 999, 3), 3)",
            f"fixed(line({values('huge')}, 5, 1), 1)",
        ],
    ),
    "medians": meter(
        DAY,
        ["model"],
        [f"fixed(line({values('units')}, 5, 1), 1)", f"fixed(line({values('level')}, 5, 1), 4)"],
    ),
    "seconds": meter(
        MINUTE,
        [],
        [f"fixed({integral('seats', 0, MINUTE)}, 6)", f"fixed({integral('level', 3, MINUTE)}, 9)"],
    ),
    "levels": meter(
        HOUR,
        [],
        [
            f"fixed(quotient({integral('seats', 0, HOUR)} * unit(12), {HOUR}), 12)",
            f"fixed(quotient({integral('level', 3, HOUR)} * unit(12), {HOUR}), 15)",
        ],
    ),
    # A window is within one day, so of that day nothing is left out.
    "prorated": meter(
        HOUR, [], ["fixed(sum(seats) * unit(12), 12)", "fixed(digits(sum(cost)) * unit(12), 21)"]
    ),
    "team": unique(
        QUARTER,
        [
            "count(CASE WHEN last_adds AND member IS NOT NULL THEN 1 END)",
            "fixed(count(CASE WHEN ever AND member IS NOT NULL THEN 1 END) * unit(12), 12)",
        ],
    ),
    "carried": unique(
        HOUR, ["sum(seats)", "count(CASE WHEN last_adds AND member IS NOT NULL THEN 1 END)"]
    ),
    "filtered": meter(
        QUARTER,
        [],
        [
            "sum(units)",
            "sum(CASE WHEN region = 'eu' THEN cost END)",
            "sum(CASE WHEN operation IS DISTINCT FROM 'leave' THEN 1 ELSE 0 END)",
        ],
        "model <> 'internal' AND units >= 0",
    ),
    "cases": meter(
        HOUR,
        [],
        [
            "sum(units::HUGEINT * CASE WHEN model = 'large' THEN 3 ELSE 1 END)",
            "sum(units::DECIMAL(19, 0) * cost)",
            "sum(CASE WHEN units > 500 THEN 1 ELSE 0 END)",
            "max(CASE WHEN operation = 'join' THEN seats WHEN operation = 'leave' THEN 0 - seats END)",
        ],
    ),
    "spreads": meter(
        HOUR,
        [],
        [
            "max(units) - min(units)",
            "sum(units) + sum(units) + count(*)",
            "CAST(sum(cost) AS DECIMAL(38, 18)) - sum(rate)",
            "coalesce(sum(seats), 0)",
            "CASE WHEN count(*) > 3 THEN max(cost) END",
        ],
    ),
    "by_many": meter(
        DAY, ["model", REGION, "upper(operation)"], ["count(*)", "sum(level)"]
    ),
    "extents": meter(
        DAY,
        [],
        [
            "3 * sum(huge)",
            latest("huge"),
            first("huge"),
            "count(DISTINCT huge)",
            f"fixed(line({values('huge')}, 5, 1), 1)",
        ],
    ),
    "sieved": meter(
        HOUR,
        [],
        [
            "count(DISTINCT CASE WHEN units > 500 THEN member END)",
            mean("cost", 9, "region IS NOT NULL"),
            first("units", "model = 'small'"),
            f"rank({values('units', LARGE)}, 9, 1)",
            f"fixed({integral('seats', 0, HOUR, JOINS)}, 6)",
            "count(DISTINCT CASE WHEN region = 'us' THEN member END)",
        ],
    ),
}

# Measures that are their own state, so that anyone may merge the panes: how.
PANES = {
    "sums": ["sum(units)", "sum(huge)", "sum(cost)", "sum(rate)"],
    "extremes": [
        "min(least)",
        "max(most)",
        "min(least_huge)",
        "max(most_huge)",
        "min(cheapest)",
        "max(dearest)",
        "max(last_name)",
    ],
    "filtered": ["sum(units)", "sum(european)", "sum(others)"],
}
PANE_KEYS = {"sums": [], "extremes": ["model"], "filtered": []}


def lines(rows):
    text = (",".join("" if value is None else str(value) for value in row) for row in rows)
    return "".join(line + "\n" for line in sorted(text))


def main(lake, out):
    duck = duckdb.connect()
    duck.execute("SET TimeZone = 'UTC'")
    duck.execute(MACROS)
    files = DeltaTable(lake + "/events").file_uris()
    stored = f"read_parquet({files!r})"
    duck.execute(f"""
        CREATE TABLE events AS
        SELECT epoch_us(event_time) AS us, sequence, ordinal, subject, reading.*
        FROM {stored} WHERE status IN ('ok', 'late') AND type = 'proof.reading'""")
    for name, query in METERS.items():
        with open(f"{out}/{name}.csv", "w", encoding="utf-8") as file:
            file.write(lines(duck.execute(query).fetchall()))
    for name, measures in PANES.items():
        files = DeltaTable(f"{lake}/meters/{name}").file_uris()
        keys = ", ".join(["subject", *PANE_KEYS[name]])
        merged = duck.execute(f"""
            SELECT strftime(window_start, '%Y-%m-%dT%H:%M:%SZ'), {keys}, {", ".join(measures)}
            FROM read_parquet({files!r}) GROUP BY window_start, {keys}""").fetchall()
        with open(f"{out}/{name}.panes.csv", "w", encoding="utf-8") as file:
            file.write(lines(merged))
    for row in duck.execute(
        f"SELECT status, count(*) FROM {stored} GROUP BY status ORDER BY status"
    ).fetchall():
        print(*row)


main(*sys.argv[1:])
