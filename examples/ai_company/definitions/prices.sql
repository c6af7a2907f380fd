-- US dollars a token, by model, and what each region taxes.
CREATE RATE TABLE model_rates (
    model       VARCHAR NOT NULL PRIMARY KEY,
    input_rate  DECIMAL(18, 12) NOT NULL,
    output_rate DECIMAL(18, 12) NOT NULL
) WITH (location = 'model_rates.csv');
CREATE RATE TABLE tax_rates (region VARCHAR NOT NULL PRIMARY KEY, rate_percent DECIMAL(9, 4) NOT NULL)
WITH (location = 'tax_rates.csv');

-- What usage costs.
CREATE PRICE tokens_by_model WITH (currency = 'USD') AS
SELECT t.customer, t.model, SUM(t.input + t.output) AS quantity, SUM(t.input * r.input_rate + t.output * r.output_rate) AS amount
FROM tokens t LEFT JOIN model_rates r ON r.model = t.model
GROUP BY t.customer, t.model;
CREATE PRICE tickets_starter WITH (currency = 'USD') AS
SELECT customer, SUM(resolved) AS quantity,
       graduated(SUM(resolved), [{up_to: 2, unit_amount: 0}, {unit_amount: 0.99}]) AS amount
FROM tickets GROUP BY customer;
CREATE PRICE tickets_team WITH (currency = 'USD') AS
SELECT customer, SUM(resolved) AS quantity, per_unit(SUM(resolved), 0.79) AS amount FROM tickets GROUP BY customer;
CREATE PRICE gpu_time WITH (currency = 'USD') AS
SELECT customer, SUM(seconds) AS quantity,
       volume(SUM(seconds), [{up_to: 100000, unit_amount: 0.0011}, {unit_amount: 0.0009}]) AS amount
FROM gpu GROUP BY customer;

-- What a subscription costs, for the days on which it is active.
CREATE PRICE starter_base WITH (currency = 'USD') AS
SELECT customer, prorate(20.00, active_days, period_days) AS amount FROM subscription;
CREATE PRICE team_base WITH (currency = 'USD') AS
SELECT customer, prorate(99.00, active_days, period_days) AS amount FROM subscription;
CREATE PRICE team_seats WITH (currency = 'USD') AS
SELECT customer, seats AS quantity, prorate(15.00 * seats, active_days, period_days) AS amount FROM subscription;
CREATE PRICE scale_base WITH (currency = 'USD') AS
SELECT customer, prorate(300.00, active_days, period_days) AS amount FROM subscription;

-- By calendar months, paid afterwards.
CREATE PLAN starter WITH (currency = 'USD') AS (starter_base, tokens_by_model, tickets_starter);
-- The same with seats, and at least $150 a month.
CREATE PLAN team WITH (currency = 'USD', minimum = '150.00') AS (team_base, team_seats, tokens_by_model, tickets_team);
-- By months from the day on which it began. The base fee is paid when a month begins, and counts toward the $500.
CREATE PLAN scale WITH (currency = 'USD', anchor = 'subscription', in_advance = 'scale_base', minimum = '500.00')
AS (scale_base, gpu_time, tokens_by_model);
