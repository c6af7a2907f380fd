-- $20 a month for each seat, by the day: a seat is paid from the day it is added to the day before it is given back.
CREATE EVENT TYPE seats_changed (seats BIGINT NOT NULL) WITH (type = 'seats.changed');

-- Each event says how many seats were added, or given back when it is below zero. Earlier months' seats go on.
CREATE METER team WITH (window = '1 hour', carry_over = 'true', unit = 'seat-month') AS
SELECT subject, PRORATED_SUM(seats) AS seat_months FROM seats_changed GROUP BY subject;

CREATE PRICE seats WITH (currency = 'USD') AS
SELECT customer, SUM(seat_months) AS quantity, per_unit(SUM(seat_months), 20.00) AS amount
FROM team
GROUP BY customer;

CREATE PLAN teams WITH (currency = 'USD') AS (seats);
