-- What arrives: CloudEvents of these types. A column reads the key of its name in `data`; NOT NULL rejects an event
-- without it, with the reason in `events`. docs/event-types.md has the types, paths, defaults and checks.
CREATE EVENT TYPE completion (
    model         VARCHAR NOT NULL,
    input_tokens  BIGINT  NOT NULL,
    output_tokens BIGINT  NOT NULL
) WITH (type = 'llm.completion');

CREATE EVENT TYPE ticket (
    outcome VARCHAR NOT NULL
) WITH (type = 'ticket.closed');

-- What is measured: one aggregate query over one event type, for each window and subject. docs/meters.md has the aggregates.
CREATE METER tokens WITH (window = '1 hour', lateness = '10 minutes', unit = 'token') AS
SELECT subject, model, SUM(input_tokens) AS input, SUM(output_tokens) AS output
FROM completion
GROUP BY subject, model;

CREATE METER tickets WITH (window = '1 hour', lateness = '10 minutes', unit = 'ticket') AS
SELECT subject, COUNT(*) AS resolved
FROM ticket
WHERE outcome = 'resolved'
GROUP BY subject;
