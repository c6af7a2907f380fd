-- Tiers that begin anew each day: 1,000 free calls a day, then $0.002 for each.
CREATE EVENT TYPE call (calls BIGINT NOT NULL) WITH (type = 'call');

CREATE METER calls WITH (window = '1 day', unit = 'call') AS
SELECT subject, SUM(calls) AS calls FROM call GROUP BY subject;

-- A row of calls_windows is a day of one subject; a customer of several subjects has one allowance.
CREATE PRICE daily_tiers WITH (currency = 'USD') AS
SELECT customer, SUM(calls) AS quantity,
       SUM(graduated(calls, [{up_to: 1000, unit_amount: 0}, {unit_amount: 0.002}])) AS amount
FROM (SELECT customer, window_start, SUM(calls) AS calls FROM calls_windows GROUP BY customer, window_start)
GROUP BY customer;

CREATE PLAN payg WITH (currency = 'USD') AS (daily_tiers);
