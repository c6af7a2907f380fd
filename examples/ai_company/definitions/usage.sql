-- What arrives.
CREATE EVENT TYPE completion (
    model         VARCHAR NOT NULL,
    input_tokens  BIGINT  NOT NULL,
    output_tokens BIGINT  NOT NULL
) WITH (type = 'llm.completion');
CREATE EVENT TYPE ticket (outcome VARCHAR NOT NULL) WITH (type = 'ticket.closed');
CREATE EVENT TYPE gpu_job (seconds BIGINT NOT NULL) WITH (type = 'gpu.job');

-- What is measured.
CREATE METER tokens WITH (window = '1 hour', unit = 'token') AS
SELECT subject, model, SUM(input_tokens) AS input, SUM(output_tokens) AS output
FROM completion GROUP BY subject, model;
CREATE METER tickets WITH (window = '1 hour', unit = 'ticket') AS
SELECT subject, COUNT(*) FILTER (WHERE outcome = 'resolved') AS resolved FROM ticket GROUP BY subject;
CREATE METER gpu WITH (window = '1 hour', unit = 'second') AS
SELECT subject, SUM(seconds) AS seconds FROM gpu_job GROUP BY subject;
