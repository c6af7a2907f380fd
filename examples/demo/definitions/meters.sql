-- What is measured: one aggregate query over one event type, per hour.

CREATE METER tokens WITH (window = '1 hour', lateness = '10 minutes', unit = 'token') AS
SELECT subject, model, region,
       SUM(input_tokens) AS input, SUM(COALESCE(cached_tokens, 0)) AS cached, SUM(output_tokens) AS output,
       COUNT(*) AS calls
FROM llm_completion
GROUP BY subject, model, region;

CREATE METER tasks WITH (window = '1 hour', lateness = '10 minutes', unit = 'task') AS
SELECT subject, task,
       COUNT(*) AS attempts, COUNT(*) FILTER (WHERE outcome = 'resolved') AS resolved
FROM agent_task
GROUP BY subject, task;

CREATE METER gpu WITH (window = '1 hour', lateness = '10 minutes', unit = 'second') AS
SELECT subject, gpu_model, SUM(gpu_seconds) AS gpu_seconds
FROM gpu_usage
GROUP BY subject, gpu_model;
