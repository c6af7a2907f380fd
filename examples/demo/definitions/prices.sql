-- What it costs. In a price, a meter is its total for the billing period; each row is a line item.

-- US dollars a token.
CREATE RATE TABLE model_rates (
    model       VARCHAR NOT NULL PRIMARY KEY,
    input_rate  DECIMAL(18, 12) NOT NULL,
    cached_rate DECIMAL(18, 12) NOT NULL,
    output_rate DECIMAL(18, 12) NOT NULL
) WITH (location = 'model_rates.csv');

-- Cached tokens are a part of the input, so they are taken out of it before it is priced. The join is a
-- LEFT JOIN because a model without a rate must stop the invoice, not be free: its amount is NULL.
CREATE PRICE tokens_by_model WITH (currency = 'USD') AS
SELECT t.customer, t.model, SUM(t.input + t.output) AS quantity,
       SUM((t.input - t.cached) * r.input_rate + t.cached * r.cached_rate + t.output * r.output_rate) AS amount
FROM tokens t LEFT JOIN model_rates r ON r.model = t.model
GROUP BY t.customer, t.model;

-- Only what an agent resolved is billed; what it tried is not.
CREATE PRICE tasks_resolved WITH (currency = 'USD') AS
SELECT customer, SUM(resolved) AS quantity, per_unit(SUM(resolved), 0.99) AS amount
FROM tasks
GROUP BY customer;

-- Each second costs what its own tier costs.
CREATE PRICE gpu_seconds WITH (currency = 'USD') AS
SELECT customer, SUM(gpu_seconds) AS quantity,
       graduated(SUM(gpu_seconds), [{up_to: 100000, unit_amount: 0.0009}, {up_to: NULL, unit_amount: 0.0007}]) AS amount
FROM gpu
GROUP BY customer;

-- What a subscription costs, for the days on which it is active.
CREATE PRICE base_fee WITH (currency = 'USD') AS
SELECT customer, prorate(99.00, active_days, period_days) AS amount FROM subscription;
CREATE PRICE seat_fees WITH (currency = 'USD') AS
SELECT customer, seats AS quantity, prorate(15.00 * seats, active_days, period_days) AS amount FROM subscription;

-- What a region adds to what is left after discounts.
CREATE RATE TABLE tax_rates (region VARCHAR NOT NULL PRIMARY KEY, rate_percent DECIMAL(9, 4) NOT NULL)
WITH (location = 'tax_rates.csv');

-- Usage alone; a base fee and seats beside it; usage, and at least $250 a month.
CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (tokens_by_model, tasks_resolved, gpu_seconds);
CREATE PLAN team WITH (currency = 'USD', billing_period = 'month')
AS (base_fee, seat_fees, tokens_by_model, tasks_resolved, gpu_seconds);
CREATE PLAN growth WITH (currency = 'USD', billing_period = 'month', minimum = '250.00')
AS (tokens_by_model, tasks_resolved, gpu_seconds);
