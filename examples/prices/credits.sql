-- Credits: prices are in credits, and each plan says what one is worth. Nothing is rounded before the plan's currency.
CREATE CURRENCY credits WITH (digits = 2);

CREATE EVENT TYPE task (kind VARCHAR NOT NULL, tokens BIGINT NOT NULL) WITH (type = 'task');

CREATE METER tasks WITH (window = '1 hour', unit = 'task') AS
SELECT subject, kind, COUNT(*) AS tasks, SUM(tokens) AS tokens FROM task GROUP BY subject, kind;

-- An image is five credits, another task one; a thousand tokens are a third of a credit, or nearly.
CREATE PRICE tasks WITH (currency = 'credits') AS
SELECT customer, kind, SUM(tasks) AS quantity,
       SUM(tasks) * CASE kind WHEN 'image' THEN 5 ELSE 1 END + SUM(tokens) * 0.000333 AS amount
FROM tasks
GROUP BY customer, kind;

CREATE PLAN pro WITH (currency = 'USD', worth = '1 credits = 0.0125 USD') AS (tasks);
CREATE PLAN pro_eu WITH (currency = 'EUR', worth = '1 credits = 0.012 EUR') AS (tasks);
