# The sums and the prices of benches/rating.rs in DuckDB, over the Parquet files of the meter's table.
import resource
import sys
import time

import duckdb

folder, threads = sys.argv[1:]
duck = duckdb.connect()
# It would stand among the answers of a query that takes seconds.
duck.execute("SET enable_progress_bar = false")
duck.execute(f"SET threads = {threads}")
duck.execute("SET TimeZone = 'UTC'")
duck.execute(
    f"""CREATE TABLE rates AS SELECT * FROM read_csv('{folder}/definitions/rates.csv', header = true,
        columns = {{'model': 'VARCHAR', 'rate': 'DECIMAL(18, 9)', 'percent': 'DECIMAL(9, 3)'}})"""
)

SUMS = f"""
CREATE TABLE used AS
SELECT subject AS customer, model, SUM(tokens) AS tokens, SUM(calls) AS calls, SUM(paid) AS paid
FROM read_parquet('{folder}/lake/meters/used_by_model/*.parquet')
WHERE window_start >= TIMESTAMPTZ '2026-01-01' AND window_start < TIMESTAMPTZ '2026-02-01'
GROUP BY subject, model"""

PRICES = {
    "tokens": """
SELECT u.customer, u.model, SUM(u.tokens) AS quantity, SUM(u.tokens * r.rate) AS amount
FROM used u LEFT JOIN rates r ON r.model = u.model
GROUP BY u.customer, u.model""",
    "calls": """
SELECT customer, SUM(calls) AS quantity,
       (LEAST(GREATEST(SUM(calls), 1000), 3000) - 1000) * 0.002::DECIMAL(9, 4)
       + (GREATEST(SUM(calls), 3000) - 3000) * 0.0005::DECIMAL(9, 4) AS amount
FROM used
GROUP BY customer""",
    "payments": """
SELECT u.customer, u.model, SUM(u.paid) AS quantity,
       SUM(u.paid * r.percent * 0.01::DECIMAL(3, 2) + 0.25::DECIMAL(3, 2)) AS amount
FROM used u LEFT JOIN rates r ON r.model = u.model
GROUP BY u.customer, u.model""",
}


def run(statements):
    started = time.perf_counter_ns()
    for statement in statements:
        duck.execute(statement)
    return (time.perf_counter_ns() - started) // 1_000_000


sums = run([SUMS])
prices = run([f"CREATE TABLE price_{name} AS {query} ORDER BY ALL" for name, query in PRICES.items()])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_000
print(sums, prices, peak)
for name in PRICES:
    row = duck.sql(f"SELECT COUNT(*), SUM(amount), MIN(amount), MAX(amount) FROM price_{name}").fetchall()[0]
    print(*row)
