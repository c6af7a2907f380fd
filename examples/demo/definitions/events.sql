-- What arrives: one CloudEvents `type` each. Columns are read from the event's `data`.

CREATE EVENT TYPE llm_completion (
    model         VARCHAR NOT NULL,
    region        VARCHAR NOT NULL,
    input_tokens  BIGINT  NOT NULL,
    cached_tokens BIGINT,            -- read from a cache; a part of input_tokens
    output_tokens BIGINT  NOT NULL
) WITH (type = 'llm.completion');

CREATE EVENT TYPE agent_task (
    task    VARCHAR NOT NULL,
    outcome VARCHAR NOT NULL         -- resolved, escalated or failed
) WITH (type = 'agent.task');

CREATE EVENT TYPE gpu_usage (
    gpu_model   VARCHAR NOT NULL OPTIONS (path = '$.gpu'),
    gpu_seconds DECIMAL(18, 6) NOT NULL
) WITH (type = 'gpu.usage');
