-- 300 premium requests a month are included, each further one costs $0.04. A request counts as often as its model says.
CREATE EVENT TYPE request (model VARCHAR NOT NULL) WITH (type = 'request');

CREATE METER requests WITH (window = '1 hour', unit = 'request') AS
SELECT subject, model, COUNT(*) AS requests FROM request GROUP BY subject, model;

CREATE RATE TABLE multipliers (model VARCHAR PRIMARY KEY, multiplier DECIMAL(9, 2) NOT NULL)
WITH (location = 'premium_requests.csv');

-- The allowance is one for all models, so usage is added up before it is priced. SUM passes over the NULL of a model without a
-- multiplier: the CASE makes the whole amount NULL then, which stops the invoice in place of giving the model away.
CREATE PRICE premium_requests WITH (currency = 'USD') AS
SELECT r.customer, SUM(r.requests * m.multiplier) AS quantity,
       CASE WHEN COUNT(m.multiplier) = COUNT(*)
            THEN per_unit(SUM(r.requests * m.multiplier), 0.04, 300) END AS amount
FROM requests r LEFT JOIN multipliers m ON m.model = r.model
GROUP BY r.customer;

CREATE PLAN developer WITH (currency = 'USD') AS (premium_requests);
