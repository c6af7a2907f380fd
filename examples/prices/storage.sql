-- Storage by the GB-month: what is stored on average over the month, the first 100 GB at $0.023 and all beyond at $0.021.
CREATE EVENT TYPE stored (gb DECIMAL(18, 6) NOT NULL) WITH (type = 'stored');

-- Each event says how many GB were added, or removed when it is below zero. What was stored before the month goes on.
CREATE METER storage WITH (window = '1 hour', carry_over = 'true', unit = 'GB-month') AS
SELECT subject, TIME_WEIGHTED_AVG(gb) AS gb_months FROM stored GROUP BY subject;

CREATE PRICE storage WITH (currency = 'USD') AS
SELECT customer, SUM(gb_months) AS quantity,
       graduated(SUM(gb_months), [{up_to: 100, unit_amount: 0.023}, {unit_amount: 0.021}]) AS amount
FROM storage
GROUP BY customer;

CREATE PLAN cloud WITH (currency = 'USD') AS (storage);
