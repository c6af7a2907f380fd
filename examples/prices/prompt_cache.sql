-- Cache writes and reads as multipliers of the input price: 1.25 for five minutes, 2 for an hour, 0.1 for a read.
CREATE EVENT TYPE completion (
    input_tokens        BIGINT NOT NULL,
    cache_write_5m      BIGINT DEFAULT 0 OPTIONS (path = '$.cache_creation.ephemeral_5m_input_tokens'),
    cache_write_1h      BIGINT DEFAULT 0 OPTIONS (path = '$.cache_creation.ephemeral_1h_input_tokens'),
    cache_read          BIGINT DEFAULT 0 OPTIONS (path = '$.cache_read_input_tokens'),
    output_tokens       BIGINT NOT NULL
) WITH (type = 'completion');

CREATE METER tokens WITH (window = '1 hour', unit = 'token') AS
SELECT subject, SUM(input_tokens) AS input, SUM(cache_write_5m) AS written_5m, SUM(cache_write_1h) AS written_1h,
       SUM(cache_read) AS cached, SUM(output_tokens) AS output
FROM completion
GROUP BY subject;

CREATE PRICE with_cache WITH (currency = 'USD') AS
SELECT customer, SUM(input + written_5m + written_1h + cached + output) AS quantity,
       (SUM(input + written_5m * 1.25 + written_1h * 2 + cached * 0.1) * 3.00 + SUM(output) * 15.00) * 0.000001 AS amount
FROM tokens
GROUP BY customer;

CREATE PLAN payg WITH (currency = 'USD') AS (with_cache);
