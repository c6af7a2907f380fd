-- Every kind of column, aggregate, window, late policy, price and table that this lake keeps.
CREATE EVENT TYPE llm_completion (
    model         VARCHAR NOT NULL,
    input_tokens  BIGINT NOT NULL CHECK (input_tokens >= 0),
    output_tokens BIGINT DEFAULT 0,
    cost          DECIMAL(18, 9) OPTIONS (path = '$.billing.cost'),
    is_cached     BOOLEAN,
    started       TIMESTAMP,
    day           DATE,
    tools         VARCHAR[],
    code          VARCHAR
) WITH (type = 'llm.completion');

CREATE EVENT TYPE seat_change (member VARCHAR NOT NULL, seats BIGINT NOT NULL) WITH (type = 'seat.change');

CREATE METER tokens WITH (window = '1 hour', lateness = '10 minutes', unit = 'token') AS
SELECT subject, model, SUM(input_tokens) AS input, SUM(output_tokens) AS output, COUNT(*) AS calls,
       COUNT(*) FILTER (WHERE is_cached) AS cached
FROM llm_completion
GROUP BY subject, model;

CREATE METER latency WITH (window = '1 day', late = 'next_period') AS
SELECT subject, AVG(input_tokens) AS mean, MEDIAN(input_tokens) AS median, MIN(cost) AS least,
       PERCENTILE(input_tokens, 0.9) AS p90, COUNT(DISTINCT model) AS models, LATEST(day) AS last_day
FROM llm_completion
GROUP BY subject;

CREATE METER hops WITH (window = '2 hours every 1 hour', late = 'quarantine') AS
SELECT subject, SUM(cost) AS cost FROM llm_completion GROUP BY subject;

CREATE METER work WITH (window = 'session 30 minutes') AS
SELECT subject, COUNT(*) AS calls FROM llm_completion GROUP BY subject;

-- A code that is no number puts its group in error.
CREATE METER codes WITH (window = '1 hour') AS
SELECT subject, SUM(CAST(code AS BIGINT)) AS code FROM llm_completion WHERE code IS NOT NULL GROUP BY subject;

CREATE METER seats WITH (window = '1 hour', carry_over = 'true') AS
SELECT subject, SUM(seats) AS seats, TIME_WEIGHTED_SUM(seats) AS seat_seconds,
       UNIQUE_COUNT(member, seats > 0) AS members
FROM seat_change
GROUP BY subject;

CREATE RATE TABLE model_rates (model VARCHAR PRIMARY KEY, input_rate DECIMAL(18, 12) NOT NULL)
WITH (location = 'model_rates.csv');

CREATE PRICE tokens_by_model WITH (currency = 'USD') AS
SELECT t.customer, t.model, SUM(t.input) AS quantity, SUM(t.input * r.input_rate) AS amount
FROM tokens t LEFT JOIN model_rates r ON r.model = t.model
GROUP BY t.customer, t.model;

CREATE PRICE calls WITH (currency = 'USD') AS
SELECT customer, SUM(calls) AS quantity,
       graduated(SUM(calls), [{up_to: 2, unit_amount: 0}, {unit_amount: 0.25}]) AS amount
FROM tokens GROUP BY customer;

CREATE PRICE seats WITH (currency = 'USD') AS
SELECT customer, seats AS quantity, per_unit(seats, 10) AS amount FROM seats;

CREATE PLAN payg WITH (currency = 'USD') AS (tokens_by_model, calls, seats);
