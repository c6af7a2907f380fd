-- Reserved throughput: $0.50 for each hour of the month, used or not, which pays for 250,000 tokens in that hour; what an hour
-- uses beyond costs one and a half times as much. Unused hours do not help busy ones.
CREATE EVENT TYPE completion (tokens BIGINT NOT NULL) WITH (type = 'completion');

CREATE METER tokens WITH (window = '1 hour', unit = 'token') AS
SELECT subject, SUM(tokens) AS tokens FROM completion GROUP BY subject;

-- A month has 743 to 745 hours where clocks change, so they are counted and not written down.
CREATE PRICE reserved_throughput WITH (currency = 'USD') AS
WITH overage AS (
    SELECT customer, SUM(GREATEST(tokens - 250000, 0)) AS tokens
    FROM (SELECT customer, window_start, SUM(tokens) AS tokens FROM tokens_windows GROUP BY customer, window_start)
    GROUP BY customer
), hours AS (
    SELECT customer,
           package(arrow_cast(period_end, 'Int64') - arrow_cast(period_start, 'Int64'), 3600000000, 1) AS hours
    FROM subscription
)
SELECT h.customer, h.hours, COALESCE(o.tokens, 0) AS quantity,
       h.hours * 0.50 + COALESCE(o.tokens, 0) * 0.000002 * 1.5 AS amount
FROM hours h LEFT JOIN overage o ON o.customer = h.customer;

CREATE PLAN reserved WITH (currency = 'USD') AS (reserved_throughput);
