-- Twenty meters that have every aggregate between them, over one kind of event.
CREATE EVENT TYPE reading (
    model     VARCHAR,
    region    VARCHAR,
    member    VARCHAR,
    operation VARCHAR,
    units     BIGINT,
    huge      BIGINT,
    seats     BIGINT,
    cost      DECIMAL(18, 9),
    rate      DECIMAL(38, 18),
    level     DECIMAL(9, 3)
) WITH (type = 'proof.reading');

CREATE METER sums WITH (window = '1 minute') AS
SELECT subject, SUM(units) AS units, SUM(huge) AS huge, SUM(cost) AS cost, SUM(rate) AS rate
FROM reading GROUP BY subject;

CREATE METER counts WITH (window = '15 minutes', lateness = '1 minute') AS
SELECT subject, model, region, COUNT(*) AS calls, COUNT(units) AS counted,
       COUNT(*) FILTER (WHERE operation = 'join') AS joins
FROM reading GROUP BY subject, model, region;

CREATE METER distincts WITH (window = '1 hour') AS
SELECT subject, COUNT(DISTINCT member) AS members, COUNT(DISTINCT units) AS units,
       COUNT(DISTINCT level) AS levels
FROM reading GROUP BY subject;

CREATE METER extremes WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, model, MIN(units) AS least, MAX(units) AS most, MIN(huge) AS least_huge,
       MAX(huge) AS most_huge, MIN(cost) AS cheapest, MAX(rate) AS dearest, MAX(member) AS last_name
FROM reading GROUP BY subject, model;

CREATE METER averages WITH (window = '1 day') AS
SELECT subject, AVG(units) AS units, AVG(huge) AS huge, AVG(cost) AS cost, AVG(rate) AS rate
FROM reading GROUP BY subject;

CREATE METER ends WITH (window = '15 minutes') AS
SELECT subject, region, FIRST(units) AS opening, LATEST(units) AS closing,
       FIRST(cost) AS first_cost, LATEST(member) AS last_member
FROM reading GROUP BY subject, region;

CREATE METER ranks WITH (window = '1 hour', lateness = '2 hours') AS
SELECT subject, PERCENTILE(units, 0.95) AS p95, PERCENTILE(cost, 0.5) AS middle_cost,
       PERCENTILE(member, 0) AS first_name, PERCENTILE(huge, 1) AS most, PERCENTILE(level, 0.999) AS p999
FROM reading GROUP BY subject;

CREATE METER lines WITH (window = '1 hour') AS
SELECT subject, PERCENTILE_CONT(cost, 0.25) AS quarter, PERCENTILE_CONT(units, 0.999) AS p999,
       PERCENTILE_CONT(huge, 0.5) AS huge
FROM reading GROUP BY subject;

CREATE METER medians WITH (window = '1 day', lateness = '1 hour') AS
SELECT subject, model, MEDIAN(units) AS units, MEDIAN(level) AS level
FROM reading GROUP BY subject, model;

CREATE METER seconds WITH (window = '1 minute', lateness = '5 minutes') AS
SELECT subject, TIME_WEIGHTED_SUM(seats) AS seat_seconds, TIME_WEIGHTED_SUM(level) AS level_seconds
FROM reading GROUP BY subject;

CREATE METER levels WITH (window = '1 hour') AS
SELECT subject, TIME_WEIGHTED_AVG(seats) AS seats, TIME_WEIGHTED_AVG(level) AS level
FROM reading GROUP BY subject;

CREATE METER prorated WITH (window = '1 hour') AS
SELECT subject, PRORATED_SUM(seats) AS seats, PRORATED_SUM(cost) AS cost
FROM reading GROUP BY subject;

CREATE METER team WITH (window = '15 minutes') AS
SELECT subject, UNIQUE_COUNT(member, operation IS DISTINCT FROM 'leave') AS members,
       PRORATED_UNIQUE_COUNT(member, operation IS DISTINCT FROM 'leave') AS member_days
FROM reading GROUP BY subject;

CREATE METER carried WITH (window = '1 hour', carry_over = 'true') AS
SELECT subject, SUM(seats) AS seats, UNIQUE_COUNT(member, operation IS DISTINCT FROM 'leave') AS members
FROM reading GROUP BY subject;

CREATE METER filtered WITH (window = '15 minutes') AS
SELECT subject, SUM(units) AS units, SUM(cost) FILTER (WHERE region = 'eu') AS european,
       COUNT(*) FILTER (WHERE operation IS NULL OR operation <> 'leave') AS others
FROM reading WHERE model <> 'internal' AND units >= 0 GROUP BY subject;

CREATE METER cases WITH (window = '1 hour') AS
SELECT subject, SUM(CASE WHEN model = 'large' THEN units * 3 ELSE units END) AS weighted,
       SUM(units * cost) AS amount, COUNT(CASE WHEN units > 500 THEN 1 END) AS large,
       MAX(CASE operation WHEN 'join' THEN seats WHEN 'leave' THEN -seats END) AS step
FROM reading GROUP BY subject;

CREATE METER spreads WITH (window = '1 hour') AS
SELECT subject, MAX(units) - MIN(units) AS spread, SUM(units) * 2 + COUNT(*) AS points,
       SUM(cost) - SUM(rate) AS margin, COALESCE(SUM(seats), 0) AS seats,
       CASE WHEN COUNT(*) > 3 THEN MAX(cost) END AS busy_cost
FROM reading GROUP BY subject;

CREATE METER by_many WITH (window = '1 day', lateness = '6 hours') AS
SELECT subject, model, region, upper(operation) AS verb, COUNT(*) AS calls, SUM(level) AS level
FROM reading GROUP BY subject, model, region, upper(operation);

CREATE METER extents WITH (window = '1 day') AS
SELECT subject, SUM(huge * 3) AS triple, LATEST(huge) AS last, FIRST(huge) AS first,
       COUNT(DISTINCT huge) AS different, MEDIAN(huge) AS middle
FROM reading GROUP BY subject;

CREATE METER sieved WITH (window = '1 hour', lateness = '1 minute') AS
SELECT subject, COUNT(DISTINCT member) FILTER (WHERE units > 500) AS members,
       AVG(cost) FILTER (WHERE region IS NOT NULL) AS mean_cost,
       FIRST(units) FILTER (WHERE model = 'small') AS first_small,
       PERCENTILE(units, 0.9) FILTER (WHERE model = 'large') AS p90_large,
       TIME_WEIGHTED_SUM(seats) FILTER (WHERE operation = 'join') AS joined_seconds,
       UNIQUE_COUNT(member, TRUE) FILTER (WHERE region = 'us') AS american
FROM reading GROUP BY subject;
