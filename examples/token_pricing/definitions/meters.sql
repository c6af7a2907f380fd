-- COALESCE, because the sum of no values is NULL, and a price of NULL is an error.
CREATE METER tokens WITH (window = '1 hour', lateness = '10 minutes', unit = 'token') AS
SELECT subject, model,
       SUM(input_tokens) AS input, SUM(COALESCE(cached_tokens, 0)) AS cached, SUM(output_tokens) AS output,
       COUNT(*) AS calls
FROM llm_completion
GROUP BY subject, model;
