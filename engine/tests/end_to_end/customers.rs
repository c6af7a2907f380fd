//! What a customer is told over HTTP of its usage, its spend and its grants, and its accounts as they are written there.

use crate::{
    attacks::key,
    http::{Http, open_ready},
    world::{TOKENS, World},
};
use jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Value, json};

/// A cent for each token, a fee for each period, which is a month from the start of a subscription.
const PRICED: &str = "
CREATE PRICE fee WITH (currency = 'USD') AS SELECT customer, 2.50 AS amount FROM subscription;
CREATE PRICE by_token WITH (currency = 'USD') AS
SELECT customer, SUM(input) AS quantity, SUM(input * 0.01) AS amount FROM tokens GROUP BY customer;
CREATE PLAN pro WITH (currency = 'USD', billing_period = 'month', anchor = 'subscription') AS (fee, by_token);
CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (by_token);
";

pub(crate) fn definitions() -> String {
    format!("{TOKENS}{PRICED}")
}

/// So many hours before now, to the second.
fn hours_ago(hours: i64) -> String {
    let now = Timestamp::now().round(Unit::Second).unwrap();
    (now - SignedDuration::from_hours(hours)).to_string()
}

pub(crate) fn event(id: &str, subject: &str, time: &str, input: u64) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "s", "type": "llm.completion", "subject": subject, "time": time,
        "data": {"model": "m", "input_tokens": input, "output_tokens": 1},
    })
}

pub(crate) async fn publish(http: &Http, events: &Value) {
    let stored = http
        .post("/api/v1/events", "application/json", &events.to_string())
        .await;
    assert_eq!(stored.status, 204, "{stored:?}");
}

/// The answer, once so many messages are in it.
async fn asked(http: &Http, path: &str) -> Value {
    let has_all = |answer: &crate::http::Answer| {
        answer.headers.get("tollgate-cut").map(String::as_str) == Some("USAGE=1")
    };
    let answer = http.until(path, has_all).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// Each row of usage: meter, subject, and how many tokens.
fn tokens(answer: &Value) -> Vec<(String, u64)> {
    let rows = answer["data"].as_array().unwrap().iter();
    rows.map(|row| {
        assert_eq!(
            (&row["meter"], &row["dimensions"]["model"]),
            (&json!("tokens"), &json!("m"))
        );
        let subject = row["subject"].as_str().unwrap().to_owned();
        (subject, row["quantities"]["input"].as_u64().unwrap())
    })
    .collect()
}

/// Two customers; `b` moves from the first to the second two hours ago.
pub(crate) fn write_accounts(world: &World) -> [&'static str; 5] {
    let (day, two, one, soon) = (hours_ago(24), hours_ago(2), hours_ago(1), hours_ago(-1));
    world.write("customers.csv", "customer,name\nacme,Acme\nglobex,Globex\n");
    let subjects = format!("subject,customer,valid_from\na,acme,\nb,acme,\nb,globex,{two}\n");
    world.write("subjects.csv", &subjects);
    let subscriptions =
        format!("subscription,customer,plan,starts_at\ns1,acme,pro,{day}\ns2,globex,pro,{day}\n");
    world.write("subscriptions.csv", &subscriptions);
    let grants = format!("grant,customer,amount,currency,effective_at\ng,acme,5,USD,{day}\n");
    world.write("grants.csv", &grants);
    let one_offs = format!(
        "one_off,customer,amount,currency,text,date\no1,acme,3.00,USD,setup,{one}\no2,acme,100,USD,later,{soon}\n"
    );
    world.write("one_offs.csv", &one_offs);
    [
        "customers.csv",
        "subjects.csv",
        "subscriptions.csv",
        "grants.csv",
        "one_offs.csv",
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_told_its_usage_its_spend_and_its_grants_live_and_from_the_lake() {
    let world = World::new(&definitions()).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "1h");
    cli.run_to_end().await;
    let files = write_accounts(&world);
    let import: Vec<&str> = ["accounts", "import"].into_iter().chain(files).collect();
    cli.succeed(&import).await;
    let admin = key(&cli, &["--role", "admin"]).await;
    let own = key(&cli, &["--role", "customer", "--customer", "acme"]).await;
    let (running, http) = open_ready(&cli, &["run"]).await;
    let events = json!([
        event("1", "a", &hours_ago(3), 1_000),
        event("2", "b", &hours_ago(3), 50),
        event("3", "b", &hours_ago(1), 7),
        event("4", "nobody", &hours_ago(1), 90_000),
    ]);
    publish(&http.with_key(&admin), &events).await;
    check(&http, (&admin, &own)).await;
    running.terminate().await;
    let (serving, http) = open_ready(&cli, &["serve"]).await;
    check(&http, (&admin, &own)).await;
    serving.terminate().await;
}

async fn check(http: &Http, (admin, own): (&str, &str)) {
    let (admin, own) = (http.with_key(admin), http.with_key(own));
    // Who pays for a subject is not the subject: a meter refuses to take one for the other.
    for asked in ["groupBy=customer_id", "filterCustomerId=acme"] {
        let path = format!("/api/v1/meters/tokens_input/query?{asked}");
        let answer = admin.get(&path).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains("/usage"), "{}", answer.text());
    }
    for http in [&admin, &own] {
        let used = asked(http, "/api/v1/customers/acme/usage").await;
        assert_eq!(
            tokens(&used),
            [("a".to_owned(), 1_000), ("b".to_owned(), 50)]
        );
        assert_eq!(used["data"][0]["quantities"]["calls"], 1);
        assert_eq!(used["cut"], json!([{"shard": "USAGE", "sequence": 1}]));
        assert!(used["age_ms"].is_u64(), "{used}");
        let spend = asked(http, "/api/v1/customers/acme/spend").await;
        // A fee of 2.50, 1,050 tokens, and what was billed once an hour ago; a grant pays 5 of it.
        let total = json!([{"currency": "USD", "total": 16, "amount_due": 11}]);
        assert_eq!(spend["totals"], total, "{spend}");
        let lines = spend["data"][0]["lines"].as_array().unwrap().iter();
        let lines: Vec<(&Value, &Value)> =
            lines.map(|line| (&line["kind"], &line["amount"])).collect();
        let amounts = [json!(2.5), json!(10.5), json!(3.0)];
        assert_eq!(
            lines.iter().map(|(_, amount)| *amount).collect::<Vec<_>>(),
            amounts.iter().collect::<Vec<_>>(),
            "{spend}"
        );
        let balance = asked(http, "/api/v1/customers/acme/balance").await;
        assert_eq!(
            balance["totals"],
            json!([{"currency": "USD", "prepaid": 5, "promotional": 0}])
        );
        let grant = &balance["data"][0];
        assert_eq!((&grant["grant"], &grant["left"]), (&json!("g"), &json!(5)));
        for path in [
            "usage?from=2026-01-01T00:00:00Z",
            "usage?to=x",
            "spend?at=1",
        ] {
            let refused = http.get(&format!("/api/v1/customers/acme/{path}")).await;
            assert_eq!(refused.status, 400, "{path}");
        }
    }
    // From the instant of the move on, the other one pays.
    let (two, now) = (hours_ago(2), hours_ago(0));
    for (customer, rows) in [("acme", vec![]), ("globex", vec![("b".to_owned(), 7)])] {
        let path = format!("/api/v1/customers/{customer}/usage?from={two}&to={now}");
        assert_eq!(tokens(&asked(&admin, &path).await), rows, "{customer}");
    }
    let spend = asked(&admin, "/api/v1/customers/globex/spend").await;
    let total = json!([{"currency": "USD", "total": 2.57, "amount_due": 2.57}]);
    assert_eq!(spend["totals"], total, "{spend}");
    for of in ["usage", "spend", "balance"] {
        for (http, customer) in [(&own, "globex"), (&admin, "nobody"), (&own, "acme%27%20OR")] {
            let answer = http
                .get(&format!("/api/v1/customers/{customer}/{of}"))
                .await;
            assert_eq!(
                (answer.status, answer.json()["code"].clone()),
                (404, json!("not_found"))
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_accounts_a_subject_is_told_what_it_used_this_month() {
    let world = World::new(&definitions()).await;
    let (running, http) = open_ready(&world.cli(), &["run"]).await;
    let events = json!([
        event("1", "a", &hours_ago(0), 5),
        event("2", "b", &hours_ago(0), 700)
    ]);
    publish(&http, &events).await;
    let used = asked(&http, "/api/v1/customers/a/usage").await;
    assert_eq!(tokens(&used), [("a".to_owned(), 5)]);
    let spend = asked(&http, "/api/v1/customers/a/spend").await;
    assert_eq!(
        spend["totals"],
        json!([{"currency": "USD", "total": 0.05, "amount_due": 0.05}])
    );
    let balance = http.get("/api/v1/customers/a/balance").await.json();
    assert_eq!(balance["data"], json!([]));
    let nobody = asked(&http, "/api/v1/customers/nobody/spend").await;
    assert_eq!(
        (&nobody["data"], &nobody["totals"]),
        (&json!([]), &json!([]))
    );
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instalment_has_billed_and_a_grant_has_paid_is_not_told_again() {
    let anchor = "anchor = 'subscription'";
    let instalments = format!("{anchor}, progressive_billing = '5.00'");
    let world = World::new(&definitions().replace(anchor, &instalments)).await;
    let cli = world.cli();
    cli.run_to_end().await;
    let files = write_accounts(&world);
    let import: Vec<&str> = ["accounts", "import"].into_iter().chain(files).collect();
    cli.succeed(&import).await;
    let (serving, http) = open_ready(&cli, &["serve"]).await;
    let events = json!([
        event("1", "a", &hours_ago(3), 1_000),
        event("2", "b", &hours_ago(3), 50),
    ]);
    publish(&http, &events).await;
    cli.run_to_end().await;
    let told = async |of: &str| {
        let path = format!("/api/v1/customers/acme/{of}");
        asked(&http, &path).await["totals"].clone()
    };
    let total = json!([{"currency": "USD", "total": 16, "amount_due": 11}]);
    assert_eq!(told("spend").await, total);
    // 10.50 of usage is more than 5.00: it is billed at once, and the grant pays 5 of it.
    cli.succeed(&["invoice", "--due", "--finalize"]).await;
    let issued = cli
        .query("SELECT total, credits_applied FROM invoices")
        .await;
    assert_eq!(issued, [["10.5000", "5.0000"]]);
    let rest = json!([{"currency": "USD", "total": 5.5, "amount_due": 5.5}]);
    assert_eq!(told("spend").await, rest);
    let left = json!([{"currency": "USD", "prepaid": 0, "promotional": 0}]);
    assert_eq!(told("balance").await, left);
    serving.terminate().await;
}

/// Rows of each table of accounts, in JSON and as files.
const ROWS: [(&str, &str, &str, &str); 6] = [
    (
        "customers",
        "acme",
        r#"{"name": "Acme, Inc.", "currency": "USD", "time_zone": "Europe/Berlin", "tax_exempt": true, "email": null}"#,
        "customer,name,currency,time_zone,tax_exempt\nacme,\"Acme, Inc.\",USD,Europe/Berlin,true\n",
    ),
    (
        "subjects",
        "bot",
        r#"{"subject": "bot", "customer": "acme", "valid_from": "2026-03-01"}"#,
        "subject,customer,valid_from\nbot,acme,2026-03-01\n",
    ),
    (
        "subscriptions",
        "s1",
        r#"{"customer": "acme", "plan": "pro", "seats": 3, "starts_at": "2026-03-01T12:00:00+01:00", "minimum": "12.50"}"#,
        "subscription,customer,plan,seats,starts_at,minimum\ns1,acme,pro,3,2026-03-01T11:00:00Z,12.50\n",
    ),
    (
        "grants",
        "g1",
        r#"{"customer": "acme", "amount": 5.25, "currency": "USD", "effective_at": "2026-03-01", "applies_to": ["fee", "by_token"]}"#,
        "grant,customer,amount,currency,effective_at,applies_to\ng1,acme,5.25,USD,2026-03-01,fee;by_token\n",
    ),
    (
        "one_offs",
        "o1",
        r#"{"customer": "acme", "amount": "-0.50", "currency": "USD", "text": "a \"gift\"", "date": "2026-03-01"}"#,
        "one_off,customer,amount,currency,text,date\no1,acme,-0.50,USD,\"a \"\"gift\"\"\",2026-03-01\n",
    ),
    (
        "discounts",
        "d1",
        r#"{"customer": "acme", "kind": "percent", "value": 12.500000000000000001, "position": -1}"#,
        "discount,customer,kind,value,position\nd1,acme,percent,12.500000000000000001,-1\n",
    ),
];

async fn put(http: &Http, path: &str, headers: &[(&str, &str)], body: &str) -> crate::http::Answer {
    let json = ("Content-Type", "application/json");
    let headers: Vec<(&str, &str)> = headers.iter().copied().chain([json]).collect();
    let path = format!("/api/v1/{path}");
    http.send("PUT", &path, &headers, body.as_bytes())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_are_written_over_http_are_the_rows_that_an_import_writes() {
    let world = World::new(&definitions()).await;
    let (imported, asked) = (world.cli().lake("imported"), world.cli());
    let mut import = vec!["accounts".to_owned(), "import".to_owned()];
    for (table, _, _, csv) in ROWS {
        world.write(&format!("{table}.csv"), csv);
        import.push(format!("{table}.csv"));
    }
    let import: Vec<&str> = import.iter().map(String::as_str).collect();
    imported.succeed(&import).await;
    asked.run_to_end().await;
    let (serving, http) = open_ready(&asked, &["serve"]).await;
    for (table, key, body, _) in ROWS {
        let answer = put(&http, &format!("{table}/{key}"), &[], body).await;
        assert_eq!(answer.json(), json!({"rows": 1, "written": 1}), "{table}");
        let again = put(&http, &format!("{table}/{key}"), &[], body).await;
        assert_eq!(again.json(), json!({"rows": 1, "written": 0}), "{table}");
    }
    for (table, key, _, _) in ROWS {
        let all = format!("SELECT * EXCEPT (written_at) FROM {table}");
        let rows = asked.query(&all).await;
        assert_eq!(rows.len(), 1, "{table}");
        assert_eq!(rows, imported.query(&all).await, "{table}");
        let one = http.get(&format!("/api/v1/{table}/{key}")).await.json();
        let many = http
            .get(&format!("/api/v1/{table}?customer=acme&limit=1"))
            .await
            .json();
        assert_eq!(one["data"], many["data"], "{table}");
        assert_eq!((&many["next"], &one["serial"]), (&json!(null), &json!(6)));
    }
    let discount = http.get("/api/v1/discounts/d1").await;
    assert!(
        discount.text().contains(r#""value":12.500000000000000001"#),
        "{}",
        discount.text()
    );
    assert_eq!(http.get("/api/v1/grants/none").await.status, 404);
    serving.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_land_whole_or_not_at_all_and_a_request_that_comes_again_writes_once() {
    let world = World::new(&definitions()).await;
    let cli = world.cli();
    cli.run_to_end().await;
    let (serving, http) = open_ready(&cli, &["serve"]).await;
    let all = r#"{"customers": [{"customer": "acme"}, {"customer": "globex", "time_zone": "Berlin"}],
        "subscriptions": [{"subscription": "s", "customer": "acme", "plan": "gold", "starts_at": "soon"}]}"#;
    let refused = http.post("/api/v1/accounts", "application/json", all).await;
    assert_eq!(
        (refused.status, refused.json()["code"].clone()),
        (400, json!("accounts_invalid"))
    );
    let errors = refused.json()["errors"].clone();
    let places: Vec<(&Value, &Value, &Value)> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (&error["table"], &error["index"], &error["field"]))
        .collect();
    assert_eq!(
        places,
        [
            (&json!("customers"), &json!(1), &json!("time_zone")),
            (&json!("subscriptions"), &json!(0), &json!("starts_at")),
        ],
        "{errors}"
    );
    assert_eq!(
        http.get("/api/v1/customers").await.json()["data"],
        json!([])
    );
    let good = all
        .replace("Berlin", "Asia/Tokyo")
        .replace("gold", "pro")
        .replace("soon", "2026-03-01");
    let written = http
        .post("/api/v1/accounts", "application/json", &good)
        .await;
    assert_eq!(written.json(), json!({"rows": 3, "written": 3}));
    let plan = put(
        &http,
        "subscriptions/t",
        &[],
        r#"{"customer": "acme", "plan": "gold", "starts_at": "2026-03-01"}"#,
    )
    .await;
    assert_eq!(
        (plan.status, &plan.json()["errors"][0]["field"]),
        (400, &json!("plan")),
        "{plan:?}"
    );

    let grant = |amount: u32| {
        json!({"customer": "acme", "amount": amount, "currency": "USD", "effective_at": "2026-03-01"}).to_string()
    };
    let first = [("Idempotency-Key", "first")];
    let made = put(&http, "grants/g", &first, &grant(5)).await;
    assert_eq!(
        (made.status, made.json()["written"].clone()),
        (200, json!(1))
    );
    let second = put(
        &http,
        "grants/g",
        &[("Idempotency-Key", "second")],
        &grant(7),
    )
    .await;
    assert_eq!(second.json()["written"], 1);
    // It comes late, and does not take back what was written since.
    let again = put(&http, "grants/g", &first, &grant(5)).await;
    assert_eq!(
        (again.status, again.json()["written"].clone()),
        (200, json!(1))
    );
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let stands = http.get("/api/v1/grants/g").await;
    assert!(
        stands.text().contains(r#""amount":7.0"#),
        "{}",
        stands.text()
    );
    let other = put(&http, "grants/g", &first, &grant(6)).await;
    assert_eq!(
        (other.status, other.json()["code"].clone()),
        (422, json!("idempotency_key_reused"))
    );
    // Pages of two keys.
    for customer in ["c1", "c2", "c3"] {
        assert_eq!(
            put(&http, &format!("customers/{customer}"), &[], "{}")
                .await
                .status,
            200
        );
    }
    let page = http.get("/api/v1/customers?limit=2").await.json();
    let next = page["next"].as_str().unwrap().to_owned();
    assert_eq!(
        (page["data"].as_array().unwrap().len(), next.as_str()),
        (2, "c1")
    );
    let rest = http
        .get(&format!("/api/v1/customers?cursor={next}"))
        .await
        .json();
    assert_eq!(
        (rest["data"].as_array().unwrap().len(), &rest["next"]),
        (3, &json!(null))
    );
    serving.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_key_reads_its_own_accounts_alone() {
    let world = World::new(&definitions()).await;
    let cli = world.cli();
    cli.run_to_end().await;
    let files = write_accounts(&world);
    let import: Vec<&str> = ["accounts", "import"].into_iter().chain(files).collect();
    cli.succeed(&import).await;
    let own = key(&cli, &["--role", "customer", "--customer", "acme"]).await;
    let (serving, http) = open_ready(&cli, &["serve"]).await;
    let own = http.with_key(&own);
    for (table, theirs, mine) in [
        ("customers", "globex", 1),
        ("subjects", "c", 2),
        ("subscriptions", "s2", 1),
        ("grants", "none", 1),
        ("one_offs", "none", 2),
        ("discounts", "none", 0),
    ] {
        let all = own.get(&format!("/api/v1/{table}")).await;
        assert!(!all.text().contains("globex"), "{}", all.text());
        assert_eq!(
            all.json()["data"].as_array().unwrap().len(),
            mine,
            "{table}"
        );
        for path in [
            format!("{table}/{theirs}"),
            format!("{table}?customer=globex"),
        ] {
            assert_eq!(
                own.get(&format!("/api/v1/{path}")).await.status,
                404,
                "{path}"
            );
        }
    }
    // Who pays for `b` since the move is not said.
    let subject = own.get("/api/v1/subjects/b").await;
    assert!(subject.text().contains("acme") && !subject.text().contains("globex"));
    serving.terminate().await;
}
