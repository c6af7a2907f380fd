-- $0.99 for each conversation that was resolved, and for at least 50 of them a month.
CREATE EVENT TYPE conversation (outcome VARCHAR NOT NULL) WITH (type = 'conversation');

CREATE METER conversations WITH (window = '1 hour', unit = 'conversation') AS
SELECT subject, COUNT(*) AS conversations, COUNT(*) FILTER (WHERE outcome = 'resolved') AS resolved
FROM conversation
GROUP BY subject;

CREATE PRICE resolutions WITH (currency = 'USD') AS
SELECT customer, SUM(resolved) AS quantity, per_unit(GREATEST(SUM(resolved), 50), 0.99) AS amount
FROM conversations
GROUP BY customer;

CREATE PLAN support WITH (currency = 'USD') AS (resolutions);
