WITH completions AS (
    SELECT customer, SUM(calls) AS calls, SUM(input) AS input, SUM(cached) AS cached, SUM(output) AS output
    FROM tokens GROUP BY customer
),
agents AS (
    SELECT customer, SUM(attempts) AS attempts, SUM(resolved) AS resolved FROM tasks GROUP BY customer
),
machines AS (
    SELECT customer, SUM(gpu_seconds) AS gpu_seconds FROM gpu GROUP BY customer
),
everyone AS (
    SELECT customer FROM completions UNION SELECT customer FROM agents UNION SELECT customer FROM machines
)
SELECT e.customer,
       CAST(COALESCE(c.calls, 0) AS VARCHAR) AS calls,
       CAST(COALESCE(c.input, 0) AS VARCHAR) AS input,
       CAST(COALESCE(c.cached, 0) AS VARCHAR) AS cached,
       CAST(COALESCE(c.output, 0) AS VARCHAR) AS output,
       CAST(COALESCE(a.attempts, 0) AS VARCHAR) AS attempts,
       CAST(COALESCE(a.resolved, 0) AS VARCHAR) AS resolved,
       CAST(CAST(COALESCE(m.gpu_seconds, 0) AS DECIMAL(38, 6)) AS VARCHAR) AS gpu_seconds
FROM everyone e
LEFT JOIN completions c ON c.customer = e.customer
LEFT JOIN agents a ON a.customer = e.customer
LEFT JOIN machines m ON m.customer = e.customer
ORDER BY e.customer
