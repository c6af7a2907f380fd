-- Tokens, priced per million and by model. Cached input costs what the list says of it; a batch costs half.
CREATE EVENT TYPE completion (
    model         VARCHAR NOT NULL,
    batch         BOOLEAN DEFAULT false,
    input_tokens  BIGINT NOT NULL,
    -- A part of the input, as the APIs of models count it.
    cached_tokens BIGINT DEFAULT 0 CHECK (cached_tokens <= input_tokens),
    output_tokens BIGINT NOT NULL
) WITH (type = 'completion');

CREATE METER tokens WITH (window = '1 hour', unit = 'token') AS
SELECT subject, model, batch,
       SUM(input_tokens - cached_tokens) AS fresh, SUM(cached_tokens) AS cached, SUM(output_tokens) AS output
FROM completion
GROUP BY subject, model, batch;

-- Dollars per million tokens.
CREATE RATE TABLE model_rates (
    model  VARCHAR PRIMARY KEY,
    input  DECIMAL(18, 6) NOT NULL,
    cached DECIMAL(18, 6) NOT NULL,
    output DECIMAL(18, 6) NOT NULL
) WITH (location = 'tokens_per_million.csv');

-- A LEFT JOIN, so that a model without a rate has no amount and stops that customer's invoice; a JOIN would give it away.
CREATE PRICE tokens_per_million WITH (currency = 'USD') AS
SELECT t.customer, t.model, t.batch, SUM(t.fresh + t.cached + t.output) AS quantity,
       SUM(t.fresh * r.input + t.cached * r.cached + t.output * r.output) * 0.000001
           * CASE WHEN t.batch THEN 0.5 ELSE 1.0 END AS amount
FROM tokens t LEFT JOIN model_rates r ON r.model = t.model
GROUP BY t.customer, t.model, t.batch;

CREATE PLAN payg WITH (currency = 'USD') AS (tokens_per_million);
