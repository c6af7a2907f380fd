-- US dollars a token.
CREATE RATE TABLE model_rates (
    model       VARCHAR NOT NULL,
    input_rate  DECIMAL(18, 12) NOT NULL,
    cached_rate DECIMAL(18, 12) NOT NULL,
    output_rate DECIMAL(18, 12) NOT NULL
) WITH (location = 'model_rates.csv');

-- Cached tokens are a subset of the input: they are taken out of it before the rest is priced, or they
-- would be paid twice. A LEFT JOIN, so that a model without a rate stops the invoice and is not free.
CREATE PRICE tokens_by_model WITH (currency = 'USD') AS
SELECT t.customer, t.model, SUM(t.input + t.output) AS quantity,
       SUM((t.input - t.cached) * r.input_rate + t.cached * r.cached_rate + t.output * r.output_rate) AS amount
FROM tokens t LEFT JOIN model_rates r ON r.model = t.model
GROUP BY t.customer, t.model;

CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (tokens_by_model);
