-- An A/B test of two prices: half of the customers pay $0.010 for a call, the others $0.012. The salt names the experiment.
CREATE EVENT TYPE call (path VARCHAR) WITH (type = 'call');

CREATE METER calls WITH (window = '1 hour', unit = 'call') AS
SELECT subject, COUNT(*) AS calls FROM call GROUP BY subject;

CREATE PRICE calls WITH (currency = 'USD') AS
SELECT customer, arm(customer, 'calls 2026', 2) AS arm, SUM(calls) AS quantity,
       per_unit(SUM(calls), CASE arm(customer, 'calls 2026', 2) WHEN 0 THEN 0.010 ELSE 0.012 END) AS amount
FROM calls
GROUP BY customer;

CREATE PLAN payg WITH (currency = 'USD') AS (calls);
