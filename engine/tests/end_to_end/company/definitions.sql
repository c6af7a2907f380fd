-- The price list of the simulated company. `oracle.py` states the same prices in its own words.

CREATE EVENT TYPE completion (model VARCHAR NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL)
WITH (type = 'llm.completion');
CREATE EVENT TYPE ticket (outcome VARCHAR NOT NULL) WITH (type = 'ticket.closed');
CREATE EVENT TYPE gpu_job (seconds DECIMAL(18, 3) NOT NULL) WITH (type = 'gpu.job');

CREATE METER tokens WITH (window = '1 hour', lateness = '1 hour') AS
SELECT subject, model, SUM(input_tokens) AS input, SUM(output_tokens) AS output FROM completion GROUP BY subject, model;
CREATE METER tickets WITH (window = '1 day') AS
SELECT subject, COUNT(*) FILTER (WHERE outcome = 'resolved') AS resolved FROM ticket GROUP BY subject;
CREATE METER gpu WITH (window = '15 minutes') AS SELECT subject, SUM(seconds) AS seconds FROM gpu_job GROUP BY subject;

CREATE RATE TABLE model_rates (model VARCHAR, input_rate DECIMAL(38, 18), output_rate DECIMAL(38, 18), PRIMARY KEY (model))
WITH (location = 'model_rates.csv');
CREATE RATE TABLE tax_rates (region VARCHAR, rate_percent DECIMAL(9, 4), valid_from TIMESTAMP, valid_to TIMESTAMP,
    PRIMARY KEY (region, PERIOD valid_from, valid_to)) WITH (location = 'tax_rates.csv');

CREATE PRICE tokens_by_model WITH (currency = 'USD') AS
SELECT t.customer, t.model, SUM(t.input + t.output) AS quantity,
       SUM(t.input * r.input_rate + t.output * r.output_rate) AS amount
FROM tokens t LEFT JOIN model_rates r ON r.model = t.model GROUP BY t.customer, t.model;
CREATE PRICE resolved WITH (currency = 'USD') AS
SELECT customer, SUM(resolved) AS quantity, graduated(SUM(resolved), [{up_to: 3, unit_amount: 0},
    {up_to: 8, unit_amount: 0.995}, {unit_amount: 0.79}]) AS amount FROM tickets GROUP BY customer;
CREATE PRICE gpu_time WITH (currency = 'USD') AS
SELECT customer, SUM(seconds) AS quantity,
       volume(SUM(seconds), [{up_to: 7200, unit_amount: 0.0111}, {unit_amount: 0.0093}]) AS amount FROM gpu GROUP BY customer;

CREATE PRICE starter_base WITH (currency = 'USD') AS
SELECT customer, prorate(19.00, active_days, period_days) AS amount FROM subscription;
CREATE PRICE pro_base WITH (currency = 'USD') AS
SELECT customer, prorate(49.99, active_days, period_days) AS amount FROM subscription;
CREATE PRICE pro_seats WITH (currency = 'USD') AS
SELECT customer, seats AS quantity, prorate(9.90 * seats, active_seconds, period_seconds) AS amount FROM subscription;
CREATE PRICE team_base WITH (currency = 'USD') AS
SELECT customer, prorate(99.00, active_days, period_days) AS amount FROM subscription;
CREATE PRICE team_seats WITH (currency = 'USD') AS
SELECT customer, seats AS quantity, prorate(14.50 * seats, active_days, period_days) AS amount FROM subscription;
CREATE PRICE scale_base WITH (currency = 'USD') AS
SELECT customer, prorate(600.00, active_days, period_days) AS amount FROM subscription;
CREATE PRICE enterprise_base WITH (currency = 'USD') AS
SELECT customer, prorate(12000.00, active_days, period_days) AS amount FROM subscription;
CREATE PRICE platform WITH (currency = 'USD') AS
SELECT customer, MAX(250.00) AS amount FROM subscription GROUP BY customer;
CREATE PRICE support_base WITH (currency = 'USD') AS
SELECT customer, prorate(75.00, active_days, period_days) AS amount FROM subscription;

CREATE PRICE euro_base WITH (currency = 'EUR') AS
SELECT customer, prorate(29.00, active_days, period_days) AS amount FROM subscription;
CREATE PRICE euro_tokens WITH (currency = 'EUR') AS
SELECT customer, SUM(input + output) AS quantity, SUM(input + output) * 0.000004 AS amount FROM tokens GROUP BY customer;
CREATE PRICE euro_resolved WITH (currency = 'EUR') AS
SELECT customer, SUM(resolved) AS quantity, package(SUM(resolved), 5, 2.50) AS amount FROM tickets GROUP BY customer;
CREATE PRICE yen_base WITH (currency = 'JPY') AS
SELECT customer, seats AS quantity, prorate(1000 * seats, active_days, period_days) AS amount FROM subscription;
CREATE PRICE yen_tokens WITH (currency = 'JPY') AS
SELECT customer, SUM(output) AS quantity, per_unit(SUM(output), 0.0021, 1000) AS amount FROM tokens GROUP BY customer;

CREATE PLAN starter WITH (currency = 'USD', minimum = '25.00') AS (starter_base, tokens_by_model, resolved);
CREATE PLAN pro WITH (currency = 'USD', in_advance = 'pro_base', maximum = '140.00', discount_order = 'percent_first')
AS (pro_base, pro_seats, tokens_by_model, resolved, gpu_time);
CREATE PLAN team WITH (currency = 'USD', anchor = 'subscription', in_advance = 'team_base, team_seats', minimum = '160.00')
AS (team_base, team_seats, tokens_by_model, gpu_time);
CREATE PLAN scale WITH (currency = 'USD', billing_period = 'quarter', anchor = 'subscription', minimum = '650.00',
    minimum_proration = 'minimum_less_fees') AS (scale_base, tokens_by_model, resolved, gpu_time);
CREATE PLAN enterprise WITH (currency = 'USD', billing_period = 'year', anchor = 'subscription', in_advance = 'enterprise_base',
    trial_usage = 'billed') AS (enterprise_base, platform, tokens_by_model, gpu_time);
CREATE PLAN support WITH (currency = 'USD', in_advance = 'support_base') AS (support_base);
CREATE PLAN euro WITH (currency = 'EUR', tax = 'included', minimum = '35.00', minimum_before_discounts = 'true')
AS (euro_base, euro_tokens, euro_resolved);
CREATE PLAN yen WITH (currency = 'JPY', billing_period = '2 weeks', anchor = 'subscription') AS (yen_base, yen_tokens);
