//! What there is over HTTP, route by route.

/// What a route does, the parameters of its URL that may be left out, and its answer when all is well.
pub(super) struct Described {
    pub(super) path: &'static str,
    pub(super) method: &'static str,
    pub(super) does: &'static str,
    pub(super) parameters: &'static [&'static str],
    pub(super) takes: &'static [&'static str],
    pub(super) answer: (u16, &'static [&'static str]),
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const QUERY: &[&str] = &[
    "from",
    "to",
    "windowSize",
    "windowTimeZone",
    "subject",
    "filterCustomerId",
    "groupBy",
    "filterGroupBy",
    "advancedMeterGroupByFilters",
    "clientId",
];

const fn get(
    path: &'static str,
    does: &'static str,
    parameters: &'static [&'static str],
    answer: &'static [&'static str],
) -> Described {
    Described {
        path,
        method: "GET",
        does,
        parameters,
        takes: &[],
        answer: (200, answer),
    }
}

const fn post(
    path: &'static str,
    does: &'static str,
    takes: &'static [&'static str],
    answer: (u16, &'static [&'static str]),
) -> Described {
    Described {
        path,
        method: "POST",
        does,
        parameters: &[],
        takes,
        answer,
    }
}

const fn put(path: &'static str, does: &'static str) -> Described {
    Described {
        method: "PUT",
        ..post(path, does, &[JSON], (200, &[JSON]))
    }
}

/// Every route, once for each of its methods.
pub(super) const DESCRIBED: &[Described] = &[
    get("/health/live", "Says that the process lives.", &[], &[TEXT]),
    get("/livez", "Says that the process lives.", &[], &[TEXT]),
    get("/healthz", "Says that the process lives.", &[], &[TEXT]),
    get(
        "/healthz/live",
        "Says that the process lives.",
        &[],
        &[TEXT],
    ),
    get(
        "/health/ready",
        "Says whether requests will be answered.",
        &[],
        &[TEXT],
    ),
    get(
        "/readyz",
        "Says whether requests will be answered.",
        &[],
        &[TEXT],
    ),
    get(
        "/healthz/ready",
        "Says whether requests will be answered.",
        &[],
        &[TEXT],
    ),
    get("/openapi.json", "This document.", &[], &[JSON]),
    get(
        "/metrics",
        "What the process counts, for Prometheus.",
        &[],
        &[TEXT],
    ),
    Described {
        parameters: &["validate"],
        ..post(
            "/api/v1/events",
            "Stores CloudEvents; answers when JetStream has acknowledged all of them.",
            &[
                "application/cloudevents+json",
                "application/cloudevents-batch+json",
                JSON,
                "application/x-ndjson",
            ],
            (204, &[]),
        )
    },
    post(
        "/lago/api/v1/events",
        "Stores an event as Lago's clients send it.",
        &[JSON],
        (200, &[JSON]),
    ),
    post(
        "/lago/api/v1/events/batch",
        "Stores events as Lago's clients send them.",
        &[JSON],
        (200, &[JSON]),
    ),
    post(
        "/v1/traces",
        "Stores an event for each span of a model call, as OpenTelemetry exports traces.",
        &["application/x-protobuf", JSON],
        (200, &["application/x-protobuf", JSON]),
    ),
    get(
        "/api/v1/meters",
        "Lists the meters.",
        &["page", "pageSize", "order", "orderBy", "includeDeleted"],
        &[JSON],
    ),
    get("/api/v1/meters/{meter}", "Describes a meter.", &[], &[JSON]),
    get(
        "/api/v1/meters/{meter}/subjects",
        "Lists who has usage.",
        &["from", "to"],
        &[JSON],
    ),
    get(
        "/api/v1/meters/{meter}/query",
        "Answers with usage by time and group.",
        QUERY,
        &[JSON, "text/csv"],
    ),
    post(
        "/api/v1/meters/{meter}/query",
        "Answers with usage by time and group.",
        &[JSON],
        (200, &[JSON, "text/csv"]),
    ),
    post(
        "/api/v1/query",
        "Answers one SQL statement that reads.",
        &[JSON],
        (
            200,
            &[
                JSON,
                "text/csv",
                "application/x-ndjson",
                "application/vnd.apache.parquet",
                "application/vnd.apache.arrow.stream",
            ],
        ),
    ),
    get(
        "/api/v1/invoices/{number}",
        "Answers with an issued document and its lines.",
        &[],
        &[JSON],
    ),
    get(
        "/api/v1/customers/{customer}/invoices",
        "Lists the issued documents of a customer.",
        &["limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/customers/{customer}/usage",
        "Answers with what a customer used, by meter, subject and dimensions.",
        &["from", "to"],
        &[JSON],
    ),
    get(
        "/api/v1/customers/{customer}/spend",
        "Answers with what the running billing periods of a customer come to so far.",
        &[],
        &[JSON],
    ),
    get(
        "/api/v1/customers/{customer}/balance",
        "Answers with the grants of a customer and what is left of each.",
        &[],
        &[JSON],
    ),
    post(
        "/api/v1/accounts",
        "Writes rows of accounts, all of them or none.",
        &[JSON],
        (200, &[JSON]),
    ),
    get(
        "/api/v1/customers",
        "Lists the rows of `customers` that stand.",
        &["customer", "limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/customers/{customer}",
        "Answers with the rows of one customer that stand.",
        &[],
        &[JSON],
    ),
    put(
        "/api/v1/customers/{customer}",
        "Writes a row of `customers`.",
    ),
    get(
        "/api/v1/subjects",
        "Lists the rows of `subjects` that stand.",
        &["customer", "limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/subjects/{subject}",
        "Answers with the rows of one subject that stand.",
        &[],
        &[JSON],
    ),
    put("/api/v1/subjects/{subject}", "Writes a row of `subjects`."),
    get(
        "/api/v1/subscriptions",
        "Lists the rows of `subscriptions` that stand.",
        &["customer", "limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/subscriptions/{subscription}",
        "Answers with the rows of one subscription that stand.",
        &[],
        &[JSON],
    ),
    put(
        "/api/v1/subscriptions/{subscription}",
        "Writes a row of `subscriptions`.",
    ),
    get(
        "/api/v1/grants",
        "Lists the rows of `grants` that stand.",
        &["customer", "limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/grants/{grant}",
        "Answers with the rows of one grant that stand.",
        &[],
        &[JSON],
    ),
    put("/api/v1/grants/{grant}", "Writes a row of `grants`."),
    get(
        "/api/v1/one_offs",
        "Lists the rows of `one_offs` that stand.",
        &["customer", "limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/one_offs/{one_off}",
        "Answers with the rows of one one_off that stand.",
        &[],
        &[JSON],
    ),
    put("/api/v1/one_offs/{one_off}", "Writes a row of `one_offs`."),
    get(
        "/api/v1/discounts",
        "Lists the rows of `discounts` that stand.",
        &["customer", "limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/discounts/{discount}",
        "Answers with the rows of one discount that stand.",
        &[],
        &[JSON],
    ),
    put(
        "/api/v1/discounts/{discount}",
        "Writes a row of `discounts`.",
    ),
    get(
        "/api/v1/definitions",
        "Says which definitions are in force.",
        &[],
        &[JSON],
    ),
    post(
        "/api/v1/definitions/check",
        "Checks the files of a folder of definitions; nothing comes into force.",
        &[JSON],
        (200, &[JSON]),
    ),
    post(
        "/api/v1/definitions/reload",
        "Takes the definitions folder again.",
        &[],
        (200, &[JSON]),
    ),
];
