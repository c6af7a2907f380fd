//! Who may do what over HTTP: each role against each route, and a customer that tries to see another's usage.

use crate::{
    http::{Http, open, open_ready},
    world::{Cli, TOKENS, World},
};
use serde_json::json;
use std::collections::BTreeMap;

const ROLES: [&str; 5] = ["none", "ingest", "read", "customer", "admin"];

/// Each route: method, path, and whether each of [`ROLES`] may use it.
const TABLE: &[(&str, &str, [bool; 5])] = &[
    ("GET", "/health/live", [true; 5]),
    ("GET", "/livez", [true; 5]),
    ("GET", "/healthz", [true; 5]),
    ("GET", "/healthz/live", [true; 5]),
    ("GET", "/health/ready", [true; 5]),
    ("GET", "/readyz", [true; 5]),
    ("GET", "/healthz/ready", [true; 5]),
    ("GET", "/openapi.json", [true; 5]),
    ("POST", "/api/v1/events", [false, true, false, false, true]),
    (
        "POST",
        "/lago/api/v1/events",
        [false, true, false, false, true],
    ),
    (
        "POST",
        "/lago/api/v1/events/batch",
        [false, true, false, false, true],
    ),
    ("POST", "/v1/traces", [false, true, false, false, true]),
    ("GET", "/api/v1/meters", [false, false, true, true, true]),
    ("HEAD", "/api/v1/meters", [false, false, true, true, true]),
    (
        "GET",
        "/api/v1/meters/tokens_input",
        [false, false, true, true, true],
    ),
    (
        "GET",
        "/api/v1/meters/tokens_input/subjects",
        [false, false, true, true, true],
    ),
    (
        "GET",
        "/api/v1/meters/tokens_input/query",
        [false, false, true, true, true],
    ),
    (
        "POST",
        "/api/v1/meters/tokens_input/query",
        [false, false, true, true, true],
    ),
    (
        "GET",
        "/api/v1/invoices/INV-000001",
        [false, false, true, true, true],
    ),
    (
        "GET",
        "/api/v1/customers/a/invoices",
        [false, false, true, true, true],
    ),
    (
        "GET",
        "/api/v1/customers/a/usage",
        [false, false, true, true, true],
    ),
    (
        "GET",
        "/api/v1/customers/a/spend",
        [false, false, true, true, true],
    ),
    (
        "GET",
        "/api/v1/customers/a/balance",
        [false, false, true, true, true],
    ),
    (
        "POST",
        "/api/v1/accounts",
        [false, false, false, false, true],
    ),
    ("GET", "/api/v1/customers", [false, false, true, true, true]),
    (
        "GET",
        "/api/v1/customers/a",
        [false, false, true, true, true],
    ),
    (
        "PUT",
        "/api/v1/customers/a",
        [false, false, false, false, true],
    ),
    ("GET", "/api/v1/subjects", [false, false, true, true, true]),
    (
        "GET",
        "/api/v1/subjects/a",
        [false, false, true, true, true],
    ),
    (
        "PUT",
        "/api/v1/subjects/a",
        [false, false, false, false, true],
    ),
    (
        "GET",
        "/api/v1/subscriptions",
        [false, false, true, true, true],
    ),
    (
        "GET",
        "/api/v1/subscriptions/a",
        [false, false, true, true, true],
    ),
    (
        "PUT",
        "/api/v1/subscriptions/a",
        [false, false, false, false, true],
    ),
    ("GET", "/api/v1/grants", [false, false, true, true, true]),
    ("GET", "/api/v1/grants/a", [false, false, true, true, true]),
    (
        "PUT",
        "/api/v1/grants/a",
        [false, false, false, false, true],
    ),
    ("GET", "/api/v1/one_offs", [false, false, true, true, true]),
    (
        "GET",
        "/api/v1/one_offs/a",
        [false, false, true, true, true],
    ),
    (
        "PUT",
        "/api/v1/one_offs/a",
        [false, false, false, false, true],
    ),
    ("GET", "/api/v1/discounts", [false, false, true, true, true]),
    (
        "GET",
        "/api/v1/discounts/a",
        [false, false, true, true, true],
    ),
    (
        "PUT",
        "/api/v1/discounts/a",
        [false, false, false, false, true],
    ),
    (
        "GET",
        "/api/v1/definitions",
        [false, false, true, false, true],
    ),
    (
        "POST",
        "/api/v1/definitions/check",
        [false, false, false, false, true],
    ),
    (
        "POST",
        "/api/v1/definitions/reload",
        [false, false, false, false, true],
    ),
    ("POST", "/api/v1/query", [false, false, true, true, true]),
    ("GET", "/metrics", [false, false, true, false, true]),
];

/// Makes a key; returns what its holder sends.
pub(crate) async fn key(cli: &Cli, arguments: &[&str]) -> String {
    let arguments: Vec<&str> = ["keys", "create"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    cli.succeed(&arguments).await.trim().to_owned()
}

/// A key of each role that has one; the customer is `a`.
async fn keys(cli: &Cli) -> BTreeMap<&'static str, String> {
    let mut keys = BTreeMap::new();
    for role in ["ingest", "read", "admin"] {
        keys.insert(role, key(cli, &["--role", role]).await);
    }
    keys.insert(
        "customer",
        key(cli, &["--role", "customer", "--customer", "a"]).await,
    );
    keys
}

fn usage() -> String {
    let event = |id: &str, subject: &str, input: u64| {
        json!({
            "specversion": "1.0", "id": id, "source": "s", "type": "llm.completion", "subject": subject,
            "time": "2026-10-01T10:00:00Z", "data": {"model": "m", "input_tokens": input, "output_tokens": 1},
        })
    };
    json!([
        event("1", "a", 5),
        event("2", "b", 700),
        event("3", "a' OR '1'='1", 90_000)
    ])
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_the_table_says_and_no_more() {
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    let keys = keys(&cli).await;
    let (running, http) = open_ready(&cli, &["run"]).await;
    for (method, path, allowed) in TABLE {
        for (role, is_allowed) in ROLES.into_iter().zip(allowed) {
            let http = match keys.get(role) {
                Some(key) => http.with_key(key),
                None => http.clone(),
            };
            // An empty body is refused by the door itself, after it let the caller in.
            let answer = http.send(method, path, &[], b"").await.unwrap();
            let is_let_in = !matches!(answer.status, 401 | 403);
            assert_eq!(is_let_in, *is_allowed, "{role} {method} {path}: {answer:?}");
            if !is_let_in {
                let expected = if role == "none" { 401 } else { 403 };
                assert_eq!(answer.status, expected, "{role} {method} {path}");
            }
        }
    }
    // Keys that are none.
    let read = &keys["read"];
    let (id, secret) = read.strip_prefix("tg_").unwrap().split_once('_').unwrap();
    for wrong in [
        String::new(),
        "x".into(),
        format!("tg_{id}_"),
        format!("tg_{id}_{}", "0".repeat(64)),
        format!("tg_0000000000000000_{secret}"),
        secret.to_owned(),
        format!("{read}x"),
    ] {
        let answer = http.with_key(&wrong).get("/api/v1/meters").await;
        assert_eq!(answer.status, 401, "{wrong}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert_eq!(answer.json()["code"], "unauthorized");
    }
    for scheme in ["Basic", "Token"] {
        let headers = [("Authorization", format!("{scheme} {read}"))];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let answer = http
            .send("GET", "/api/v1/meters", &headers, b"")
            .await
            .unwrap();
        assert_eq!(answer.status, 401, "{scheme}");
    }
    // A key that was revoked is refused within seconds; one that is made is known at once.
    let admin = http.with_key(&keys["admin"]);
    cli.succeed(&["keys", "revoke", id]).await;
    let revoked = http.with_key(read);
    revoked
        .until("/api/v1/meters", |answer| answer.status == 401)
        .await;
    let expired = key(&cli, &["--role", "read", "--expires", "1us"]).await;
    let new = key(&cli, &["--role", "read"]).await;
    http.with_key(&new)
        .until("/api/v1/meters", |answer| answer.status == 200)
        .await;
    assert_eq!(
        http.with_key(&expired).get("/api/v1/meters").await.status,
        401
    );
    assert_eq!(admin.get("/api/v1/meters").await.status, 200);
    let log = running.log();
    running.terminate().await;
    let list = cli.succeed(&["keys", "list"]).await;
    for token in keys.values().chain([&expired, &new]) {
        let (_, secret) = token.rsplit_once('_').unwrap();
        assert!(
            !log.contains(secret) && !list.contains(secret),
            "a secret is shown"
        );
    }
    let line = list.lines().find(|line| line.starts_with(id)).unwrap();
    assert!(line.contains("revoked"), "{list}");
    // Its day of use was noted: the last column, since it has no customer.
    assert!(!line.ends_with("never"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_key_shows_no_usage_of_another_however_it_is_asked() {
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    let keys = keys(&cli).await;
    let (running, http) = open_ready(&cli, &["run"]).await;
    let batch = [("Content-Type", "application/json")];
    let stored = http.with_key(&keys["ingest"]);
    let stored = stored
        .send("POST", "/api/v1/events", &batch, usage().as_bytes())
        .await;
    assert_eq!(stored.unwrap().status, 204);
    let reader = http.with_key(&keys["read"]);
    let query = "/api/v1/meters/tokens_input/query";
    reader
        .until(query, |answer| answer.text().contains("90705"))
        .await;
    let customer = http.with_key(&keys["customer"]);
    assert_mine(&customer, query).await;
    for (method, path, body) in [
        ("GET", "?subject=b", ""),
        ("GET", "?subject=a&subject=b", ""),
        ("GET", "?filterCustomerId=b", ""),
        ("GET", "?filterCustomerId=b&subject=b", ""),
        ("GET", "?groupBy=subject", ""),
        ("GET", "?groupBy=customer_id", ""),
        ("GET", "?groupBy=subject&groupBy=model", ""),
        ("GET", "?subject=a%27%20OR%20%271%27%3D%271", ""),
        ("GET", "?subject=%25", ""),
        ("GET", "?subject=", ""),
        ("GET", "?subject=B", ""),
        ("GET", "?filterGroupBy[model]=m", ""),
        ("GET", "?filterGroupBy[subject]=b", ""),
        (
            "GET",
            "?windowSize=MINUTE&from=2026-10-01T10:00:00Z&to=2026-10-01T10:05:00Z&groupBy=subject",
            "",
        ),
        (
            "GET",
            "?windowSize=DAY&windowTimeZone=Asia/Kathmandu&groupBy=subject",
            "",
        ),
        ("GET", "?customer=b", ""),
        ("POST", "", r#"{"subject":["b"]}"#),
        ("POST", "", r#"{"subject":["a","b"],"groupBy":["subject"]}"#),
        ("POST", "", r#"{"filterCustomerId":["b"]}"#),
        (
            "POST",
            "",
            r#"{"filterGroupBy":{"model":["m"]},"groupBy":["subject","customer_id"]}"#,
        ),
        ("POST", "?subject=b", "{}"),
    ] {
        let answer = customer
            .send(method, &format!("{query}{path}"), &[], body.as_bytes())
            .await;
        let answer = answer.unwrap();
        let text = answer.text();
        assert!(
            !text.contains("700") && !text.contains("90000") && !text.contains("90705"),
            "{path} {body}: {text}"
        );
        if answer.status == 200 {
            for row in answer.json()["data"].as_array().unwrap() {
                assert_eq!(row["value"], 5, "{path} {body}: {text}");
            }
        }
    }
    let subjects = customer.get("/api/v1/meters/tokens_input/subjects").await;
    assert_eq!(subjects.json(), json!(["a"]));
    let csv = customer
        .get_as(&format!("{query}?groupBy=subject"), "text/csv")
        .await;
    assert!(csv.text().ends_with(",a,5\n"), "{}", csv.text());
    running.terminate().await;
}

async fn assert_mine(customer: &Http, query: &str) {
    let mine = customer.get(query).await.json();
    assert_eq!(mine["data"].as_array().unwrap().len(), 1);
    assert_eq!(mine["data"][0]["value"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_refused_that_make_no_sense_and_an_open_address_needs_one() {
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    for (arguments, says) in [
        (vec!["--role", "customer"], "--customer"),
        (vec!["--role", "read", "--customer", "a"], "--customer"),
        (vec!["--role", "king"], "king"),
        (vec!["--role", "read", "--expires", "soon"], "soon"),
    ] {
        let all: Vec<&str> = ["keys", "create"].into_iter().chain(arguments).collect();
        let ran = cli.run(&all).await;
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        assert!(ran.stderr.contains(says), "{ran:#?}");
    }
    let ran = cli.run(&["keys", "revoke", "nothing"]).await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    // Other machines may not ask without a key, nor send one where anyone on the way can read it.
    let everywhere = cli.with("TOLLGATE_HTTP_LISTEN", "0.0.0.0:0");
    let ran = everywhere.run(&["serve"]).await;
    assert!(ran.stderr.contains("tollgate keys create"), "{ran:#?}");
    key(&cli, &["--role", "read"]).await;
    let ran = everywhere.run(&["serve"]).await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(ran.stderr.contains("http.behind_tls"), "{ran:#?}");
    let (running, http) = open(&cli, &["serve"]).await;
    assert_eq!(http.get("/api/v1/meters").await.status, 401);
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_reads_its_own_documents_and_no_others_line_by_line() {
    let definitions = format!(
        "{TOKENS}\nCREATE PRICE by_token WITH (currency = 'USD') AS
         SELECT customer, SUM(input) AS quantity, SUM(input * 0.01) AS amount FROM tokens GROUP BY customer;
         CREATE PLAN payg WITH (currency = 'USD') AS (by_token);"
    );
    let world = World::new(&definitions).await;
    let cli = world.cli();
    let keys = keys(&cli).await;
    let (running, http) = open_ready(&cli, &["serve"]).await;
    let batch = [("Content-Type", "application/json")];
    let ingest = http.with_key(&keys["ingest"]);
    let stored = ingest
        .send("POST", "/api/v1/events", &batch, usage().as_bytes())
        .await;
    assert_eq!(stored.unwrap().status, 204);
    cli.run_to_end().await;
    cli.succeed(&["invoice", "--period", "2026-10", "--finalize"])
        .await;
    let reader = http.with_key(&keys["read"]);
    let customer = http.with_key(&keys["customer"]);
    // Customers in order of their names: a, `a' OR '1'='1`, b.
    for (number, total, is_mine) in [
        ("INV-000001", "0.05", true),
        ("INV-000002", "900.0", false),
        ("INV-000003", "7.0", false),
    ] {
        let path = format!("/api/v1/invoices/{number}");
        let document = reader.get(&path).await;
        assert_eq!(document.status, 200, "{document:?}");
        let document = document.json();
        assert!(
            document["invoice"]["total"].to_string().starts_with(total),
            "{document}"
        );
        assert_eq!(document["lines"].as_array().unwrap().len(), 1);
        assert_eq!(document["cut"][0]["shard"], "USAGE");
        assert_eq!(document["invoice"].get("document"), None);
        let status = customer.get(&path).await.status;
        assert_eq!(status, if is_mine { 200 } else { 404 }, "{number}");
    }
    for path in ["INV-9", "INV-000001%27%20OR%201=1", "%00"] {
        assert_eq!(
            reader.get(&format!("/api/v1/invoices/{path}")).await.status,
            404,
            "{path}"
        );
    }
    let mine = customer
        .get("/api/v1/customers/a/invoices?limit=1")
        .await
        .json();
    assert_eq!(mine["data"].as_array().unwrap().len(), 1);
    assert_eq!(mine["next"], json!(null));
    assert_eq!(
        customer.get("/api/v1/customers/b/invoices").await.status,
        404
    );
    let theirs = reader.get("/api/v1/customers/b/invoices").await.json();
    assert_eq!(theirs["data"][0]["number"], "INV-000003");
    let after = reader
        .get("/api/v1/customers/b/invoices?cursor=INV-000003")
        .await
        .json();
    assert_eq!(after["data"], json!([]));
    let metrics = reader.get("/metrics").await;
    for line in [
        "tollgate_http_events_acknowledged_total 3",
        "tollgate_http_requests_total{route=\"/api/v1/events\",status=\"204\"} 1",
        "# TYPE tollgate_http_request_duration_seconds histogram",
    ] {
        assert!(
            metrics.text().lines().any(|known| known == line),
            "{line}: {}",
            metrics.text()
        );
    }
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_reads_what_is_committed_and_nothing_else_within_its_bounds() {
    let world = World::new(TOKENS).await;
    let cli = world
        .cli()
        .with("TOLLGATE_HTTP_ROWS_MAX", "1000")
        .with("TOLLGATE_HTTP_TIMEOUT", "5s");
    cli.run_to_end().await;
    let (running, http) = open_ready(&cli, &["serve"]).await;
    let stored = http
        .post("/api/v1/events", "application/json", &usage())
        .await;
    assert_eq!(stored.status, 204);
    cli.run_to_end().await;
    let ask = async |sql: &str| {
        let body = json!({"sql": sql}).to_string();
        http.post("/api/v1/query", "application/json", &body).await
    };
    let answer =
        ask("SELECT subject, SUM(input) AS input FROM tokens GROUP BY subject ORDER BY subject")
            .await;
    let answer = answer.json();
    assert_eq!(
        answer["data"][1],
        json!({"subject": "a' OR '1'='1", "input": 90_000})
    );
    assert_eq!(answer["cut"], json!([{"shard": "USAGE", "sequence": 1}]));
    let csv = [("Accept", "text/csv"), ("Content-Type", "application/json")];
    let sql = br#"{"sql":"SELECT COUNT(*) AS n FROM events"}"#;
    let csv = http.send("POST", "/api/v1/query", &csv, sql).await.unwrap();
    assert_eq!(
        (csv.text(), csv.headers["tollgate-cut"].as_str()),
        ("n\n3\n", "USAGE=1")
    );
    for refused in [
        "DROP TABLE events",
        "INSERT INTO events SELECT * FROM events",
        "CREATE TABLE x AS SELECT 1",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "SET datafusion.execution.batch_size = 1",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT 1; SELECT 2",
        "SELECT nothing FROM tokens",
        "SELECT * FROM generate_series(1, 1001)",
        "",
    ] {
        let answer = ask(refused).await;
        assert_eq!(answer.status, 400, "{refused}: {}", answer.text());
    }
    // A statement that would run for ever ends, and the next one is answered.
    let endless = "SELECT COUNT(*) FROM generate_series(1, 9000000000000) AS t(n) WHERE n % 7 IS NULL OR md5(CAST(n AS VARCHAR)) = 'x'";
    let endless = endless.replace("n % 7 IS NULL OR ", "");
    assert_eq!(ask(&endless).await.json()["code"], "timed_out");
    assert_eq!(ask("SELECT 1 AS n").await.json()["data"], json!([{"n": 1}]));
    running.terminate().await;
}

/// The rival's model and quantity, which stand in no statement below.
const SECRETS: [&str; 2] = ["secret-model", "70007"];

/// What a customer tries with SQL, and what it is told: rows, or nothing at all.
fn tried() -> Vec<(&'static str, Option<serde_json::Value>)> {
    let rows = |rows| Some(rows);
    let n = |n: u32| rows(json!([{ "n": n }]));
    vec![
        ("SELECT COUNT(*) AS n FROM events", n(1)),
        (
            "SELECT e.model AS m FROM llm_completion AS e WHERE e.subject <> 'mine'",
            rows(json!([])),
        ),
        (
            "WITH whole AS (SELECT * FROM llm_completion) SELECT SUM(input_tokens) AS n FROM whole",
            n(5),
        ),
        ("SELECT (SELECT SUM(input) FROM tokens) AS n", n(5)),
        (
            "SELECT model FROM llm_completion UNION ALL SELECT model FROM tokens",
            rows(json!([{"model": "m"}, {"model": "m"}])),
        ),
        ("SELECT \"input\" AS n FROM \"tokens\" \"t\"", n(5)),
        (
            "SELECT a.model FROM tokens a JOIN llm_completion b ON a.subject <> b.subject",
            rows(json!([])),
        ),
        (
            "SELECT a.model FROM tokens a FULL JOIN (SELECT 'rival' AS subject) r USING (subject) WHERE a.model IS NOT NULL",
            rows(json!([{"model": "m"}])),
        ),
        ("SELECT MAX(input) AS n FROM tokens_panes", n(5)),
        ("SELECT MAX(input) OVER () AS n FROM tokens_windows", n(5)),
        (
            "SELECT COUNT(*) AS n FROM events WHERE subject = 'rival' OR 1 = 1",
            n(1),
        ),
        (
            "SELECT COUNT(*) AS n FROM tokens WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.subject = 'rival')",
            n(1),
        ),
        (
            "SELECT 1 AS n WHERE (SELECT COUNT(*) FROM events) > 1",
            rows(json!([])),
        ),
        (
            "SELECT COUNT(*) AS n FROM tokens t WHERE t.customer = 'rival' OR t.subject LIKE '%'",
            n(1),
        ),
        ("SELECT COUNT(DISTINCT customer) AS n FROM invoices", n(1)),
        (
            "SELECT customer FROM line_items GROUP BY customer",
            rows(json!([{"customer": "mine"}])),
        ),
        (
            "SELECT COUNT(*) AS n FROM customers, subjects, subscriptions, grants, one_offs, discounts",
            n(0),
        ),
        (
            "SELECT COUNT(*) AS n FROM credit_ledger, unissued, unbilled",
            n(0),
        ),
        // An error shows a value of its own rows, and would show another's if it were evaluated there.
        (
            "SELECT CAST(model AS BIGINT) AS n FROM llm_completion WHERE CAST(model AS BIGINT) > 0",
            None,
        ),
        (
            "SELECT CAST(model AS BIGINT) AS n FROM tokens_panes ORDER BY CAST(model AS BIGINT)",
            None,
        ),
        ("SELECT document FROM invoices", None),
        ("SELECT basis, burns FROM invoices", None),
        ("SELECT * FROM conflicts", None),
        ("SELECT * FROM secret_prices", None),
        ("SELECT * FROM tokens, secret_prices", None),
        ("EXPLAIN SELECT * FROM events", None),
        ("EXPLAIN ANALYZE VERBOSE SELECT * FROM events", None),
        ("SELECT * FROM information_schema.tables", None),
        ("SHOW TABLES", None),
        ("COPY events TO '/tmp/stolen.csv'", None),
        ("COPY (SELECT * FROM events) TO '/tmp/stolen.csv'", None),
        ("CREATE VIEW v AS SELECT * FROM events", None),
        ("SELECT * FROM 'lake/events'", None),
        ("SELECT * FROM read_parquet('lake/events')", None),
        ("SELECT 1 AS n; SELECT * FROM events", None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_key_reads_no_row_of_another_whatever_its_sql_says() {
    let definitions = format!(
        "{TOKENS}\nCREATE RATE TABLE secret_prices (model VARCHAR NOT NULL, price DECIMAL(10, 2) NOT NULL)
         WITH (location = 'secret_prices.csv');
         CREATE PRICE by_token WITH (currency = 'USD') AS
         SELECT customer, SUM(input) AS quantity, SUM(input * 0.01) AS amount FROM tokens GROUP BY customer;
         CREATE PLAN payg WITH (currency = 'USD') AS (by_token);"
    );
    let world = World::new(&definitions).await;
    world.write(
        "definitions/secret_prices.csv",
        "model,price\nsecret-model,7.00\n",
    );
    let cli = world.cli();
    for (id, subject, model, input) in [
        ("1", "mine", "m", 5),
        ("2", "rival", "secret-model", 70_007),
    ] {
        let event = json!({
            "specversion": "1.0", "id": id, "source": "s", "type": "llm.completion", "subject": subject,
            "time": "2026-10-01T10:00:00Z", "data": {"model": model, "input_tokens": input, "output_tokens": 1},
        });
        world.send(&[], &event.to_string()).await;
    }
    cli.run_to_end().await;
    cli.succeed(&["invoice", "--period", "2026-10", "--finalize"])
        .await;
    let reads = key(&cli, &["--role", "read"]).await;
    let mine = key(&cli, &["--role", "customer", "--customer", "mine"]).await;
    let (running, http) = open_ready(&cli, &["serve"]).await;
    let ask = async |key: &str, sql: &str| {
        let body = json!({ "sql": sql }).to_string();
        let http = http.with_key(key);
        http.post("/api/v1/query", "application/json", &body).await
    };
    // The rows are there.
    for (sql, secret) in [
        ("SELECT model FROM llm_completion", SECRETS[0]),
        ("SELECT MAX(input) AS n FROM tokens", SECRETS[1]),
        ("SELECT model FROM secret_prices", SECRETS[0]),
    ] {
        assert!(ask(&reads, sql).await.text().contains(secret), "{sql}");
    }
    for (sql, expected) in tried() {
        let answer = ask(&mine, sql).await;
        let text = answer.text();
        for secret in SECRETS {
            assert!(!text.contains(secret), "{sql}: {text}");
        }
        match expected {
            Some(rows) => assert_eq!(answer.json()["data"], rows, "{sql}: {text}"),
            None => assert_eq!(answer.status, 400, "{sql}: {text}"),
        }
    }
    running.terminate().await;
}
