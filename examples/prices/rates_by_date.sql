-- A price list that changes on a day: usage before it is priced by the old rate, usage from it on by the new one.
CREATE EVENT TYPE completion (model VARCHAR NOT NULL, tokens BIGINT NOT NULL) WITH (type = 'completion');

CREATE METER tokens WITH (window = '1 hour', unit = 'token') AS
SELECT subject, model, SUM(tokens) AS tokens FROM completion GROUP BY subject, model;

-- Dollars per million tokens. No two rows of a model may apply at one time.
CREATE RATE TABLE dated_rates (
    model      VARCHAR,
    valid_from TIMESTAMP,
    valid_to   TIMESTAMP,
    rate       DECIMAL(18, 6) NOT NULL,
    PRIMARY KEY (model, PERIOD valid_from, valid_to)
) WITH (location = 'rates_by_date.csv');

CREATE PRICE by_date WITH (currency = 'USD') AS
SELECT w.customer, w.model, r.rate, SUM(w.tokens) AS quantity, SUM(w.tokens * r.rate) * 0.000001 AS amount
FROM tokens_windows w LEFT JOIN dated_rates r
    ON r.model = w.model AND w.window_start >= r.valid_from AND (w.window_start < r.valid_to OR r.valid_to IS NULL)
GROUP BY w.customer, w.model, r.rate;

CREATE PLAN payg WITH (currency = 'USD') AS (by_date);
