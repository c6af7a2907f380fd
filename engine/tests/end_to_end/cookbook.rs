//! Every price list of `examples/prices`, from events to the lines of an invoice. Amounts are worked out by hand, beside
//! each; `docs/prices.md` explains the lists.

use crate::world::World;
use arrow::datatypes::DataType;
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    logical_expr::{ExprSchemable, utils::merge_schema},
    physical_plan::displayable,
    prelude::SessionContext,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tollgate::{catalog::Catalog, view::View};
use tollgate_sql::{period::Period, session, subscriptions};

const PAGE: &str = include_str!("../../../docs/prices.md");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/prices")
}

/// One price list, what is used, and what it comes to.
struct Recipe {
    file: &'static str,
    /// The plan of all customers, and the zone of billing periods.
    plan: &'static str,
    zone: &'static str,
    /// Type, subject, time and `data`.
    events: &'static [(&'static str, &'static str, &'static str, &'static str)],
    /// Customer, dimensions, quantity and amount of each line of October 2026.
    lines: &'static [(&'static str, &'static str, &'static str, &'static str)],
}

const RECIPES: &[Recipe] = &[
    Recipe {
        file: "tokens_per_million.sql",
        plan: "payg",
        zone: "UTC",
        events: &[
            (
                "completion",
                "acme",
                "2026-10-01T00:00:00Z",
                r#"{"model":"sage-2","input_tokens":1200000,"cached_tokens":800000,"output_tokens":50000}"#,
            ),
            (
                "completion",
                "acme",
                "2026-10-02T10:00:00Z",
                r#"{"model":"sage-2","batch":true,"input_tokens":2000000,"output_tokens":100000}"#,
            ),
            (
                "completion",
                "globex",
                "2026-10-31T23:59:59.999999Z",
                r#"{"model":"owl-1","input_tokens":10000,"output_tokens":1}"#,
            ),
            // Of the next month.
            (
                "completion",
                "globex",
                "2026-11-01T00:00:00Z",
                r#"{"model":"owl-1","input_tokens":10000,"output_tokens":1}"#,
            ),
        ],
        lines: &[
            // 0.4 M × 3 + 0.8 M × 0.30 + 0.05 M × 15 = 1.20 + 0.24 + 0.75
            (
                "acme",
                r#"{"model":"sage-2","batch":"false"}"#,
                "1250000",
                "2.1900",
            ),
            // (2 M × 3 + 0.1 M × 15) / 2 = 7.50 / 2
            (
                "acme",
                r#"{"model":"sage-2","batch":"true"}"#,
                "2100000",
                "3.7500",
            ),
            // 0.01 M × 0.25 + 0.000001 M × 2 = 0.0025 + 0.000002, below half a cent
            (
                "globex",
                r#"{"model":"owl-1","batch":"false"}"#,
                "10001",
                "0.0000",
            ),
        ],
    },
    Recipe {
        file: "long_context.sql",
        plan: "payg",
        zone: "UTC",
        events: &[
            (
                "completion",
                "acme",
                "2026-10-05T10:00:00Z",
                r#"{"input_tokens":200000,"output_tokens":1000}"#,
            ),
            (
                "completion",
                "acme",
                "2026-10-05T10:00:01Z",
                r#"{"input_tokens":200001,"output_tokens":1000}"#,
            ),
            // Many short requests are not a long one.
            (
                "completion",
                "acme",
                "2026-10-05T10:00:02Z",
                r#"{"input_tokens":150000,"output_tokens":0}"#,
            ),
        ],
        lines: &[
            // 350,000 × 3 + 1,000 × 15 = 1,065,000 millionths
            ("acme", r#"{"long_context":"false"}"#, "351000", "1.0700"),
            // 200,001 × 6 + 1,000 × 22.50 = 1,222,506 millionths
            ("acme", r#"{"long_context":"true"}"#, "201001", "1.2200"),
        ],
    },
    Recipe {
        file: "prompt_cache.sql",
        plan: "payg",
        zone: "UTC",
        events: &[
            (
                "completion",
                "acme",
                "2026-10-05T10:00:00Z",
                r#"{"input_tokens":1000,"cache_creation":{"ephemeral_5m_input_tokens":100000,"ephemeral_1h_input_tokens":50000},"output_tokens":2000}"#,
            ),
            (
                "completion",
                "acme",
                "2026-10-05T10:01:00Z",
                r#"{"input_tokens":1000,"cache_read_input_tokens":150000,"output_tokens":2000}"#,
            ),
        ],
        // Input 2,000 + 100,000 × 1.25 + 50,000 × 2 + 150,000 × 0.1 = 242,000 at 3 = 726,000; output 4,000 at 15 = 60,000.
        lines: &[("acme", "{}", "306000", "0.7900")],
    },
    Recipe {
        file: "resolutions.sql",
        plan: "support",
        zone: "UTC",
        events: &[
            (
                "conversation",
                "acme",
                "2026-10-05T10:00:00Z",
                r#"{"outcome":"resolved"}"#,
            ),
            (
                "conversation",
                "acme",
                "2026-10-05T11:00:00Z",
                r#"{"outcome":"handed over"}"#,
            ),
        ],
        // One resolution, 50 are paid: 50 × 0.99.
        lines: &[("acme", "{}", "1", "49.5000")],
    },
    Recipe {
        file: "premium_requests.sql",
        plan: "developer",
        zone: "UTC",
        events: &[
            (
                "request",
                "acme",
                "2026-10-05T10:00:00Z",
                r#"{"model":"owl-1"}"#,
            ),
            (
                "request",
                "acme",
                "2026-10-05T10:00:01Z",
                r#"{"model":"owl-mini"}"#,
            ),
            (
                "request",
                "acme",
                "2026-10-05T10:00:02Z",
                r#"{"model":"sage-max"}"#,
            ),
        ],
        // 0 + 0.33 + 10 of the 300 that are included.
        lines: &[("acme", "{}", "10.33", "0.0000")],
    },
    Recipe {
        file: "gpu_surge.sql",
        plan: "gpus",
        zone: "Europe/Berlin",
        events: &[
            // A Friday in summer time: 16:59 and 17:00 in Berlin.
            (
                "gpu.job",
                "acme",
                "2026-10-23T14:59:59Z",
                r#"{"seconds":1000}"#,
            ),
            (
                "gpu.job",
                "acme",
                "2026-10-23T15:00:00Z",
                r#"{"seconds":200}"#,
            ),
            // A Saturday at noon.
            (
                "gpu.job",
                "acme",
                "2026-10-24T10:00:00Z",
                r#"{"seconds":30.5}"#,
            ),
            // Clocks went back on the 25th: 08:59 and 09:00 of a Monday in Berlin.
            (
                "gpu.job",
                "acme",
                "2026-10-26T07:59:59Z",
                r#"{"seconds":4000}"#,
            ),
            (
                "gpu.job",
                "acme",
                "2026-10-26T08:00:00Z",
                r#"{"seconds":500}"#,
            ),
            // October begins in Berlin two hours before it does in UTC: half past midnight of a Thursday.
            (
                "gpu.job",
                "acme",
                "2026-09-30T22:30:00Z",
                r#"{"seconds":7}"#,
            ),
            (
                "gpu.job",
                "acme",
                "2026-10-31T23:00:00Z",
                r#"{"seconds":999999}"#,
            ),
        ],
        lines: &[
            // 200 + 30.5 + 4,000 + 7 = 4,237.5 × 0.0008 = 3.39
            ("acme", r#"{"surge":"false"}"#, "4237.5", "3.3900"),
            // 1,500 × 0.0012
            ("acme", r#"{"surge":"true"}"#, "1500", "1.8000"),
        ],
    },
    Recipe {
        file: "storage.sql",
        plan: "cloud",
        zone: "UTC",
        events: &[
            // 21 of 31 days: 310 × 21 / 31 = 210 GB-months.
            ("stored", "acme", "2026-10-11T00:00:00Z", r#"{"gb":310}"#),
            // All of October, since September: 50.
            ("stored", "globex", "2026-09-20T12:00:00Z", r#"{"gb":50}"#),
        ],
        lines: &[
            // 100 × 0.023 + 110 × 0.021 = 2.30 + 2.31
            ("acme", "{}", "210", "4.6100"),
            ("globex", "{}", "50", "1.1500"),
        ],
    },
    Recipe {
        file: "messages.sql",
        plan: "texts",
        zone: "UTC",
        events: &[
            (
                "message",
                "acme",
                "2026-10-05T10:00:00Z",
                r#"{"segments":999}"#,
            ),
            (
                "message",
                "acme",
                "2026-10-06T10:00:00Z",
                r#"{"segments":1}"#,
            ),
            (
                "message",
                "globex",
                "2026-10-05T10:00:00Z",
                r#"{"segments":1001}"#,
            ),
            (
                "message",
                "initech",
                "2026-10-05T10:00:00Z",
                r#"{"segments":10001}"#,
            ),
        ],
        lines: &[
            // The 1,000th is in the first tier: 1,000 × 0.0079.
            ("acme", "{}", "1000", "7.9000"),
            // 1,001 × 0.0075 = 7.5075: one message more costs less.
            ("globex", "{}", "1001", "7.5100"),
            // 10,001 × 0.007 = 70.007
            ("initech", "{}", "10001", "70.0100"),
        ],
    },
    Recipe {
        file: "card_payments.sql",
        plan: "acquiring",
        zone: "UTC",
        events: &[
            (
                "payment",
                "shop",
                "2026-10-05T10:00:00Z",
                r#"{"amount":19.99,"domestic":true}"#,
            ),
            (
                "payment",
                "shop",
                "2026-10-05T11:00:00Z",
                r#"{"amount":100.01,"domestic":true}"#,
            ),
            (
                "payment",
                "shop",
                "2026-10-05T12:00:00Z",
                r#"{"amount":40,"domestic":false}"#,
            ),
        ],
        lines: &[
            // 40 × 3.25 % + 0.25 = 1.30 + 0.25
            ("shop", r#"{"domestic":"false"}"#, "40", "1.5500"),
            // 120 × 1.5 % + 2 × 0.25 = 1.80 + 0.50
            ("shop", r#"{"domestic":"true"}"#, "120", "2.3000"),
        ],
    },
    Recipe {
        file: "seats.sql",
        plan: "teams",
        zone: "UTC",
        events: &[
            (
                "seats.changed",
                "acme",
                "2026-09-03T10:00:00Z",
                r#"{"seats":5}"#,
            ),
            // From the 11th on there are 21 of 31 days left, from the 21st on 11: 5 + 42 / 31 − 11 / 31 = 6.
            (
                "seats.changed",
                "acme",
                "2026-10-11T15:00:00Z",
                r#"{"seats":2}"#,
            ),
            (
                "seats.changed",
                "acme",
                "2026-10-21T08:00:00Z",
                r#"{"seats":-1}"#,
            ),
            // One day of 31: 20 / 31 = 0.6451…
            (
                "seats.changed",
                "globex",
                "2026-10-31T23:00:00Z",
                r#"{"seats":1}"#,
            ),
        ],
        lines: &[
            ("acme", "{}", "6", "120.0000"),
            // 1 / 31 at twelve digits.
            ("globex", "{}", "0.032258064516", "0.6500"),
        ],
    },
    Recipe {
        file: "price_test.sql",
        plan: "payg",
        zone: "UTC",
        // The arms are those of another implementation of XXH3.
        events: &[
            ("call", "acme", "2026-10-05T10:00:00Z", "{}"),
            ("call", "acme", "2026-10-05T11:00:00Z", "{}"),
            ("call", "umbrella", "2026-10-05T10:00:00Z", "{}"),
            ("call", "umbrella", "2026-10-05T11:00:00Z", "{}"),
        ],
        lines: &[
            // 2 × 0.012 = 0.024
            ("acme", r#"{"arm":"1"}"#, "2", "0.0200"),
            // 2 × 0.010
            ("umbrella", r#"{"arm":"0"}"#, "2", "0.0200"),
        ],
    },
    Recipe {
        file: "credits.sql",
        plan: "pro",
        zone: "UTC",
        events: &[
            (
                "task",
                "acme",
                "2026-10-05T10:00:00Z",
                r#"{"kind":"image","tokens":1500}"#,
            ),
            (
                "task",
                "acme",
                "2026-10-05T11:00:00Z",
                r#"{"kind":"image","tokens":1500}"#,
            ),
            (
                "task",
                "acme",
                "2026-10-05T12:00:00Z",
                r#"{"kind":"text","tokens":100000}"#,
            ),
        ],
        lines: &[
            // 2 × 5 + 3,000 × 0.000333 = 10.999 credits, at 0.0125 0.1374875 dollars.
            ("acme", r#"{"kind":"image"}"#, "2", "0.1400"),
            // 1 + 33.3 = 34.3 credits, at 0.0125 0.42875 dollars.
            ("acme", r#"{"kind":"text"}"#, "1", "0.4300"),
        ],
    },
    Recipe {
        file: "cost_plus.sql",
        plan: "resale",
        zone: "UTC",
        events: &[
            (
                "completion",
                "acme",
                "2026-10-05T10:00:00Z",
                r#"{"provider":"north","usage":{"cost":0.000000001}}"#,
            ),
            (
                "completion",
                "acme",
                "2026-10-05T11:00:00Z",
                r#"{"provider":"north","usage":{"cost":12.5}}"#,
            ),
            (
                "completion",
                "acme",
                "2026-10-05T11:00:00Z",
                r#"{"provider":"south","usage":{"cost":0.0042}}"#,
            ),
        ],
        lines: &[
            // 12.500000001 × 1.2 = 15.0000000012
            ("acme", r#"{"provider":"north"}"#, "12.500000001", "15.0000"),
            // 0.0042 × 1.2 = 0.00504
            ("acme", r#"{"provider":"south"}"#, "0.0042", "0.0100"),
        ],
    },
    Recipe {
        file: "reserved_throughput.sql",
        plan: "reserved",
        zone: "Europe/Berlin",
        events: &[
            // Exactly what is paid for, and twice as much in another hour; two subjects' hours are their own.
            (
                "completion",
                "acme",
                "2026-10-05T10:00:00Z",
                r#"{"tokens":250000}"#,
            ),
            (
                "completion",
                "acme",
                "2026-10-05T11:00:00Z",
                r#"{"tokens":300000}"#,
            ),
            (
                "completion",
                "acme",
                "2026-10-05T11:59:59Z",
                r#"{"tokens":200000}"#,
            ),
        ],
        // October has 745 hours in Berlin: 745 × 0.50 = 372.50. 250,000 tokens beyond at 0.000003 are 0.75.
        lines: &[("acme", r#"{"hours":"745"}"#, "250000", "373.2500")],
    },
    Recipe {
        file: "daily_tiers.sql",
        plan: "payg",
        zone: "UTC",
        events: &[
            ("call", "acme", "2026-10-05T00:00:00Z", r#"{"calls":1000}"#),
            // 500 beyond the 1,000 of that day.
            ("call", "acme", "2026-10-06T10:00:00Z", r#"{"calls":1500}"#),
            // 10 of the next day are within its own.
            ("call", "acme", "2026-10-07T10:00:00Z", r#"{"calls":10}"#),
        ],
        // 500 × 0.002; over the whole month it would have been 1,510 × 0.002.
        lines: &[("acme", "{}", "2510", "1.0000")],
    },
    Recipe {
        file: "rates_by_date.sql",
        plan: "payg",
        zone: "UTC",
        events: &[
            (
                "completion",
                "acme",
                "2026-10-15T11:59:59.999999Z",
                r#"{"model":"sage-2","tokens":1000000}"#,
            ),
            (
                "completion",
                "acme",
                "2026-10-15T12:00:00Z",
                r#"{"model":"sage-2","tokens":2000000}"#,
            ),
        ],
        lines: &[
            (
                "acme",
                r#"{"model":"sage-2","rate":"2.500000"}"#,
                "2000000",
                "5.0000",
            ),
            (
                "acme",
                r#"{"model":"sage-2","rate":"3.000000"}"#,
                "1000000",
                "3.0000",
            ),
        ],
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn every_price_list_of_the_cookbook_comes_to_what_it_says() {
    let recipes: BTreeMap<&str, &Recipe> =
        RECIPES.iter().map(|recipe| (recipe.file, recipe)).collect();
    assert_eq!(
        files("sql"),
        recipes.keys().map(|file| (*file).to_owned()).collect()
    );
    for (file, recipe) in recipes {
        let named = format!("(../examples/prices/{file})");
        assert!(PAGE.contains(&named), "docs/prices.md has no link {named}");
        check(recipe).await;
    }
}

/// Every plan of every price: as it is written, as it is optimized and as it runs.
#[tokio::test]
async fn no_plan_of_a_price_has_a_float() {
    let mut prices = BTreeSet::new();
    for Recipe { file, zone, .. } in RECIPES {
        let world = World::offline();
        write_definitions(&world, file);
        let catalog = Catalog::load(&world.cli().settings()).await.unwrap();
        let view = View::empty(Arc::new(catalog));
        let period = Period::month("2026-10", zone).unwrap();
        let totals = view.all_totals(&period).await.unwrap();
        for price in &view.catalog().definitions.prices {
            let nobody = subscriptions::relation(&[], &period).unwrap();
            let session = view.period_session(&period, &price.query, &totals, nobody);
            let session = session.await.unwrap();
            let found = floats_in(&session.context, &price.query).await;
            assert_eq!(found, Vec::<String>::new(), "{file}: {}", price.name);
            prices.insert(price.name.clone());
            // The walk sees a float that is between two decimals only.
            let through = "SELECT customer, CAST(CAST(seats AS DOUBLE) AS DECIMAL(9, 2)) AS amount FROM subscription";
            assert!(!floats_in(&session.context, through).await.is_empty());
        }
    }
    assert!(!prices.is_empty());
}

/// Floats in the plans of a query: columns of a step, and what is calculated on the way.
async fn floats_in(context: &SessionContext, query: &str) -> Vec<String> {
    let state = context.state();
    let written = session::plan(&state, query).await.unwrap();
    let optimized = state.optimize(&written).unwrap();
    let mut floats = Vec::new();
    for plan in [&written, &optimized] {
        let walked = plan.apply_with_subqueries(|node| {
            let fields = node.schema().fields().iter();
            floats.extend(
                fields
                    .filter(|field| is_float(field.data_type()))
                    .map(|field| field.to_string()),
            );
            let schema = merge_schema(&node.inputs());
            node.apply_expressions(|root| {
                root.apply(|expr| {
                    if expr.get_type(&schema).is_ok_and(|t| is_float(&t)) {
                        floats.push(expr.to_string());
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        });
        walked.unwrap();
    }
    let planner = state.query_planner();
    let physical = planner
        .create_physical_plan(&optimized, &state)
        .await
        .unwrap();
    let mut steps = vec![physical];
    while let Some(step) = steps.pop() {
        let schema = step.schema();
        let fields = schema
            .fields()
            .iter()
            .filter(|field| is_float(field.data_type()));
        floats.extend(fields.map(|field| field.to_string()));
        let text = displayable(step.as_ref()).one_line().to_string();
        floats.extend(text.contains("Float").then_some(text));
        steps.extend(step.children().into_iter().cloned());
    }
    floats
}

fn is_float(data_type: &DataType) -> bool {
    data_type.to_string().contains("Float")
}

fn files(extension: &str) -> BTreeSet<String> {
    let files = fs::read_dir(folder()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.ends_with(&format!(".{extension}")))
        .collect()
}

/// A price list as a definitions folder, with every file that it may read.
fn write_definitions(world: &World, file: &str) {
    for name in files("csv").into_iter().chain([file.to_owned()]) {
        let text = fs::read_to_string(folder().join(&name)).unwrap();
        world.write(&format!("definitions/{name}"), &text);
    }
}

async fn check(recipe: &Recipe) {
    let Recipe {
        file,
        plan,
        zone,
        events,
        lines,
    } = recipe;
    let world = World::offline();
    write_definitions(&world, file);
    let events = events.iter().enumerate().map(|(id, (of_type, subject, time, data))| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"cookbook","type":"{of_type}","subject":"{subject}","time":"{time}","data":{data}}}"#
        )
    });
    world.write(
        "events.ndjson",
        &(events.collect::<Vec<_>>().join("\n") + "\n"),
    );
    let cli = world
        .cli()
        .with("TOLLGATE_SOURCE_KIND", "files")
        .with("TOLLGATE_SOURCE_PATH", "events.ndjson")
        .with("TOLLGATE_BILLING_DEFAULT_PLAN", plan)
        .with("TOLLGATE_BILLING_TIME_ZONE", zone);
    let checked = cli.run(&["check"]).await;
    assert_eq!(checked.code, Some(0), "{file}: {checked:#?}");
    // Only a volume price is cheaper for more, and is meant to be.
    let warned = match *file {
        "messages.sql" => {
            "warning: ./definitions/messages.sql:7:14: price `messages`: more usage costs less: 7.9 USD where every measure is \
             1000, 7.5075 USD where it is 1001\n  hint: a volume price does that at each tier; if it is not meant, use graduated, \
             or a cap_amount for each tier\n"
        }
        _ => "",
    };
    assert_eq!(checked.stderr, warned, "{file}");
    let counted = cli.run_to_end().await;
    assert_eq!(counted.of("rejected"), 0, "{file}: {}", counted.0);
    let out = world.path("draft");
    cli.succeed(&[
        "invoice",
        "--period",
        "2026-10",
        "--out",
        out.to_str().unwrap(),
    ])
    .await;
    let text = fs::read_to_string(out.join("line_items.csv")).unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let drafted: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    let drafted: Vec<[&str; 4]> = drafted
        .iter()
        .map(|line| {
            ["customer", "dimensions", "quantity", "amount"].map(|column| line[column].as_str())
        })
        .collect();
    let wanted: Vec<[&str; 4]> = lines
        .iter()
        .map(|line| [line.0, line.1, line.2, line.3])
        .collect();
    assert_eq!(drafted, wanted, "{file}");
}
