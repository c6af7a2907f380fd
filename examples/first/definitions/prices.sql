-- US dollars a token, by model. A LEFT JOIN below, so that a model without a rate stops its customer's invoice and is not free.
CREATE RATE TABLE model_rates (
    model       VARCHAR NOT NULL PRIMARY KEY,
    input_rate  DECIMAL(18, 12) NOT NULL,
    output_rate DECIMAL(18, 12) NOT NULL
) WITH (location = 'model_rates.csv');

-- What it costs: in a price, a meter is its total for the billing period. Each row is a line of the invoice.
-- docs/sql.md has the functions of a price.
CREATE PRICE tokens_by_model WITH (currency = 'USD') AS
SELECT t.customer, t.model, SUM(t.input + t.output) AS quantity, SUM(t.input * r.input_rate + t.output * r.output_rate) AS amount
FROM tokens t LEFT JOIN model_rates r ON r.model = t.model
GROUP BY t.customer, t.model;

-- Two tickets are free; from the third on each costs 0.99.
CREATE PRICE tickets_resolved WITH (currency = 'USD') AS
SELECT customer, SUM(resolved) AS quantity,
       graduated(SUM(resolved), [{up_to: 2, unit_amount: 0}, {up_to: NULL, unit_amount: 0.99}]) AS amount
FROM tickets
GROUP BY customer;

-- The base fee, for the days on which the subscription is active.
CREATE PRICE base_fee WITH (currency = 'USD') AS
SELECT customer, prorate(20.00, active_days, period_days) AS amount
FROM subscription;

CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (base_fee, tokens_by_model, tickets_resolved);
