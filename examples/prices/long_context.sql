-- A request with more than 200,000 tokens of input costs double its input and one and a half times its output, as a whole.
CREATE EVENT TYPE completion (
    input_tokens  BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL
) WITH (type = 'completion');

-- The size of a request is only known here: the meter tells the two kinds apart.
CREATE METER tokens WITH (window = '1 hour', unit = 'token') AS
SELECT subject, input_tokens > 200000 AS long_context,
       SUM(input_tokens) AS input, SUM(output_tokens) AS output
FROM completion
GROUP BY subject, input_tokens > 200000;

CREATE PRICE by_context WITH (currency = 'USD') AS
SELECT customer, long_context, SUM(input + output) AS quantity,
       CASE WHEN long_context THEN SUM(input * 6.00 + output * 22.50)
            ELSE SUM(input * 3.00 + output * 15.00) END * 0.000001 AS amount
FROM tokens
GROUP BY customer, long_context;

CREATE PLAN payg WITH (currency = 'USD') AS (by_context);
