//! A lake that an earlier Tollgate wrote is read, continued and billed.
//!
//! `tests/golden/lake_v1` is what the commit 59b856a left behind: definitions, the lake, and the stream's
//! store. `before.ndjson` has the published events. October was issued; event `a5` came after that. One
//! window is open, one group is in error, and the logs start at checkpoints, as `maintain` leaves them
//! after `log_after`. These files are never written again: a change that cannot read them is wrong.

use crate::world::{World, nats_binary};
use std::path::Path;

const LAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/lake_v1");

/// A server that has the stream of that time, beside the lake of that time.
async fn world() -> World {
    let mut world = World::with_server(nats_binary(), "").await;
    world.stop_server().await;
    for part in ["definitions", "lake", "nats"] {
        world.bring(&Path::new(LAKE).join(part), part);
    }
    world.start_server(None).await;
    world
}

#[tokio::test]
async fn a_lake_of_the_first_version_is_read() {
    let world = world().await;
    let cli = world.cli();
    assert_eq!(
        cli.query("SELECT status, COUNT(*) FROM events GROUP BY status ORDER BY status")
            .await,
        [
            ["conflict", "1"],
            ["late", "4"],
            ["ok", "9"],
            ["rejected", "2"],
            ["unmatched", "1"]
        ]
    );
    assert_eq!(
        cli.query(
            "SELECT event_id, model, output_tokens, cost, is_cached, started, day, tools[2]
             FROM llm_completion WHERE event_id IN ('a1', 'a3') ORDER BY 1"
        )
        .await,
        [
            [
                "a1",
                "sage-2",
                "200",
                "0.125000000",
                "true",
                "2026-10-05T09:09:59.500Z",
                "2026-10-05",
                "code"
            ],
            ["a3", "quill", "0", "0.000000001", "", "", "", ""],
        ]
    );
    // 1000 + 3000 + 4000 of sage-2 in one hour, the last of them late; one window is open.
    assert_eq!(
        cli.query(
            "SELECT window_start, subject, model, input, calls, is_final FROM tokens ORDER BY 1, 2"
        )
        .await,
        [
            [
                "2026-10-05T09:00:00Z",
                "acme",
                "sage-2",
                "8000",
                "3",
                "true"
            ],
            ["2026-10-05T10:00:00Z", "acme", "quill", "500", "1", "true"],
            [
                "2026-10-20T23:00:00Z",
                "globex",
                "quill",
                "700",
                "1",
                "true"
            ],
            [
                "2026-11-02T08:00:00Z",
                "acme",
                "sage-2",
                "2000",
                "1",
                "true"
            ],
            [
                "2026-11-04T00:00:00Z",
                "globex",
                "quill",
                "900",
                "1",
                "true"
            ],
            ["2026-11-05T00:00:00Z", "globex", "quill", "10", "1", "true"],
            [
                "2026-11-05T00:00:00Z",
                "initech",
                "quill",
                "10",
                "1",
                "true"
            ],
            [
                "2026-11-29T03:00:00Z",
                "acme",
                "sage-2",
                "10000",
                "1",
                "false"
            ],
        ]
    );
    assert_eq!(
        cli.query("SELECT number, customer, total FROM invoices ORDER BY serial")
            .await,
        [
            ["INV-000001", "acme", "31.4600"],
            ["INV-000002", "globex", "0.0100"]
        ]
    );
    assert_eq!(
        cli.query(
            "SELECT price, quantity, amount FROM line_items WHERE customer = 'acme' ORDER BY line"
        )
        .await,
        [
            ["tokens_by_model", "500", "0.0100"],
            ["tokens_by_model", "4000", "1.2000"],
            ["calls", "3", "0.2500"],
            ["seats", "3", "30.0000"],
        ]
    );
    cli.audit().await;
}

#[tokio::test]
async fn a_lake_of_the_first_version_is_continued_and_billed() {
    let world = world().await;
    let cli = world.cli();
    cli.publish(&Path::new(LAKE).join("after.ndjson"), 1).await;
    let summary = cli.run_to_end().await;
    // g2 is known, a2 has other content, g3 is late; a7 goes into the window that was open.
    assert_eq!(summary.of("counted"), 2);
    assert_eq!(summary.of("repeats"), 1);
    assert_eq!(summary.of("conflicts"), 1);
    assert_eq!(
        cli.query(
            "SELECT window_start, input, calls FROM tokens WHERE input IN (10500, 300) ORDER BY 1"
        )
        .await,
        [
            ["2026-10-21T01:00:00Z", "300", "1"],
            ["2026-11-29T03:00:00Z", "10500", "2"]
        ]
    );
    cli.audit().await;
    // November: 12500 × 0.0003 + (3 - 2) × 0.25 + (3 - 2) × 10, and 910 × 0.00001.
    let november = cli.run(&["invoice", "--period", "2026-11"]).await;
    assert_eq!(november.code, Some(1), "{november:#?}");
    assert_eq!(
        november.stdout,
        "draft        acme                                3 lines              14.00 USD\n\
         draft        globex                              2 lines               0.01 USD\n"
    );
    assert!(
        november
            .stderr
            .contains("no invoice for customer `initech`"),
        "{november:#?}"
    );
    // October: 8000 of sage-2 where 4000 were billed, and a fourth call. What g3 adds is below a cent.
    let october = cli.run(&["invoice", "--period", "2026-10"]).await;
    let changed: Vec<&str> = october
        .stdout
        .lines()
        .filter(|l| l.starts_with("changed"))
        .collect();
    assert_eq!(
        changed,
        [
            "changed      acme                             INV-000001 was 31.46, would be 32.91 now: \
             1.45 USD on no invoice, because usage has changed",
            "changed      globex                           INV-000002 was 0.01, would be 0.01 now: \
             0 USD on no invoice, because usage has changed",
        ]
    );
}

/// A completion of globex that the golden lake counted under the id `g2`, or one of another id.
fn completion(id: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"gateway","type":"llm.completion","subject":"globex","time":"2026-11-04T00:00:00Z","data":{data}}}"#
    )
}

#[tokio::test]
async fn ids_of_an_older_lake_keep_the_rule_that_they_were_counted_by() {
    let world = world().await;
    let cli = world.cli();
    let (sent, anew) = (
        r#"{"model":"quill","input_tokens":900,"output_tokens":9}"#,
        r#"{ "output_tokens": 9.0, "model": "quill", "input_tokens": 9e2 }"#,
    );
    // The old lake knows the bytes of `g2`; of `g9` it will know what they say.
    let lines = [
        completion("g2", sent),
        completion("g2", anew),
        completion("g9", sent),
        completion("g9", sent),
        completion("g9", anew),
        completion("g9", &anew.replace("9e2", "9e1")),
    ];
    world.write("again.ndjson", &lines.join("\n"));
    let file = world.path("again.ndjson");
    cli.publish(&file, 1).await;
    let summary = cli.run_to_end().await;
    let of = |name| summary.of(name);
    assert_eq!((of("counted"), of("repeats"), of("conflicts")), (1, 3, 2));
    let versions = "SELECT content_version, COUNT(*) FROM events WHERE event_id IN ('g2', 'g9') GROUP BY 1 ORDER BY 1";
    assert_eq!(cli.query(versions).await, [["2", "3"], ["", "1"]]);
    // Another process learns the ids from the lake, where both rules are.
    cli.publish(&file, 1).await;
    let summary = cli.run_to_end().await;
    let of = |name| summary.of(name);
    assert_eq!((of("counted"), of("repeats"), of("conflicts")), (0, 4, 2));
    cli.audit().await;
}
