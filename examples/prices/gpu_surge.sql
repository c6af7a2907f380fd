-- GPU seconds: $0.0012 from 9 to 17 on weekdays in Berlin, $0.0008 at any other time.
CREATE EVENT TYPE gpu_job (seconds DECIMAL(18, 3) NOT NULL) WITH (type = 'gpu.job');

-- Hours of UTC are hours of Berlin too. A zone with a half hour needs windows of 30 minutes.
CREATE METER gpu WITH (window = '1 hour', unit = 'second') AS
SELECT subject, SUM(seconds) AS seconds FROM gpu_job GROUP BY subject;

CREATE PRICE gpu_seconds WITH (currency = 'USD') AS
WITH hours AS (
    SELECT customer, seconds,
           date_part('hour', local_time(window_start, 'Europe/Berlin')) BETWEEN 9 AND 16
           AND date_part('dow', local_time(window_start, 'Europe/Berlin')) BETWEEN 1 AND 5 AS surge
    FROM gpu_windows
)
SELECT customer, surge, SUM(seconds) AS quantity,
       per_unit(SUM(seconds), CASE WHEN surge THEN 0.0012 ELSE 0.0008 END) AS amount
FROM hours
GROUP BY customer, surge;

CREATE PLAN gpus WITH (currency = 'USD') AS (gpu_seconds);
