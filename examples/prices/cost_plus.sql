-- Cost plus 20 %: the event carries what its request cost.
CREATE EVENT TYPE completion (
    provider VARCHAR NOT NULL,
    cost     DECIMAL(18, 9) NOT NULL CHECK (cost >= 0) OPTIONS (path = '$.usage.cost')
) WITH (type = 'completion');

CREATE METER spend WITH (window = '1 hour', unit = 'USD') AS
SELECT subject, provider, SUM(cost) AS cost FROM completion GROUP BY subject, provider;

CREATE PRICE cost_plus WITH (currency = 'USD') AS
SELECT customer, provider, SUM(cost) AS quantity, SUM(cost) * 1.20 AS amount
FROM spend
GROUP BY customer, provider;

CREATE PLAN resale WITH (currency = 'USD') AS (cost_plus);
