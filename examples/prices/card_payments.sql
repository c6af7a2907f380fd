-- Card payments: 1.5 % of what was paid and 0.25 EUR for each payment; cards from outside the area 3.25 %.
CREATE EVENT TYPE payment (
    amount   DECIMAL(18, 2) NOT NULL CHECK (amount >= 0),
    domestic BOOLEAN NOT NULL
) WITH (type = 'payment');

CREATE METER payments WITH (window = '1 hour', unit = 'EUR') AS
SELECT subject, domestic, SUM(amount) AS paid, COUNT(*) AS payments
FROM payment
GROUP BY subject, domestic;

CREATE PRICE card_payments WITH (currency = 'EUR') AS
SELECT customer, domestic, SUM(paid) AS quantity,
       percentage(SUM(paid), CASE WHEN domestic THEN 1.5 ELSE 3.25 END) + per_unit(SUM(payments), 0.25) AS amount
FROM payments
GROUP BY customer, domestic;

CREATE PLAN acquiring WITH (currency = 'EUR') AS (card_payments);
