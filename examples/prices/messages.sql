-- Messages by volume: the whole month's messages cost the price of the tier that the last of them is in.
CREATE EVENT TYPE message (segments BIGINT NOT NULL) WITH (type = 'message');

CREATE METER messages WITH (window = '1 hour', unit = 'segment') AS
SELECT subject, SUM(segments) AS segments FROM message GROUP BY subject;

CREATE PRICE messages WITH (currency = 'USD') AS
SELECT customer, SUM(segments) AS quantity,
       volume(SUM(segments), [{up_to: 1000, unit_amount: 0.0079}, {up_to: 10000, unit_amount: 0.0075}, {unit_amount: 0.007}])
           AS amount
FROM messages
GROUP BY customer;

CREATE PLAN texts WITH (currency = 'USD') AS (messages);
