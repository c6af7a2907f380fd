//! The example of `docs/meters.md` through a real server and a real lake, whole and in parts.

use crate::{
    guide::{self, rows},
    world::{Cli, World},
};
use std::{collections::BTreeMap, fs};

const GUIDE: &str = include_str!("../../../docs/meters.md");

fn blocks(language: &str) -> Vec<&'static str> {
    guide::blocks(GUIDE, language)
}

/// What the page says comes of it.
async fn check(world: &World, cli: &Cli) {
    let (sql, csv) = (blocks("sql"), blocks("csv"));
    assert_eq!((sql.len(), csv.len()), (2, 2));
    assert_eq!(cli.query(sql[1]).await, rows(csv[0]));
    let mut wanted: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for row in rows(csv[1]) {
        wanted.entry(row[0].clone()).or_default().push(row);
    }
    for (period, lines) in wanted {
        let out = world.path("draft");
        let folder = out.to_str().unwrap();
        cli.succeed(&["invoice", "--period", &period, "--out", folder])
            .await;
        let text = fs::read_to_string(out.join("line_items.csv")).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let drafted: Vec<BTreeMap<String, String>> =
            reader.deserialize().map(Result::unwrap).collect();
        let plain = |number: &str| match number.split_once('.') {
            Some(_) => number
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned(),
            None => number.to_owned(),
        };
        let line = |line: &BTreeMap<String, String>| {
            let (quantity, amount) = (plain(&line["quantity"]), plain(&line["amount"]));
            vec![period.clone(), line["price"].clone(), quantity, amount]
        };
        assert_eq!(drafted.iter().map(line).collect::<Vec<_>>(), lines);
    }
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_to_meters_tells_what_happens() {
    let world = World::new(blocks("sql")[0]).await;
    let [events] = blocks("json")[..] else {
        panic!("the guide has one list of events");
    };
    let ndjson = [("Content-Type", "application/x-ndjson")];
    world.send(&ndjson, events.trim_end()).await;
    let cli = world.cli();
    assert_eq!(cli.run_to_end().await.of("counted"), 4);
    check(&world, &cli).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_merge_from_panes_in_any_order() {
    let world = World::new(blocks("sql")[0]).await;
    let cli = world.cli();
    // Each event in a run of its own: all but the first are late, and each makes a pane.
    for event in blocks("json")[0].lines() {
        world.send(&[], event).await;
        assert_eq!(cli.run_to_end().await.of("counted"), 1);
    }
    check(&world, &cli).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_windows_are_measured_like_closed_ones() {
    let open = "WITH (lateness = '366 days', window =";
    let world = World::new(&blocks("sql")[0].replace("WITH (window =", open)).await;
    let ndjson = [("Content-Type", "application/x-ndjson")];
    world.send(&ndjson, blocks("json")[0].trim_end()).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "50ms");
    let mut run = cli.start(&["run"]);
    run.logged("flush committed", 1).await;
    let ran = run.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let still_open = "SELECT COUNT(*) FROM requests WHERE NOT is_final";
    assert_eq!(cli.query(still_open).await, [["3"]]);
    check(&world, &cli).await;
}
