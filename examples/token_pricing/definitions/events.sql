-- One completion, as the gateway that served it reports it.
CREATE EVENT TYPE llm_completion (
    model         VARCHAR NOT NULL,
    input_tokens  BIGINT NOT NULL,   -- the whole prompt, cached part included
    cached_tokens BIGINT,            -- of these, read from the prompt cache; missing means none
    output_tokens BIGINT NOT NULL
) WITH (type = 'llm.completion');
