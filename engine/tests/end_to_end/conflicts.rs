//! A conflict says what differs: the relation `conflicts`.

use crate::world::World;

const DEFINITIONS: &str = "
CREATE EVENT TYPE call (
    model VARCHAR NOT NULL,
    n     BIGINT NOT NULL,
    cost  DECIMAL(18, 6) OPTIONS (path = '$.billing.cost')
) WITH (type = 'call');
CREATE EVENT TYPE image (n BIGINT) WITH (type = 'image');
CREATE METER calls WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, SUM(n) AS n FROM call GROUP BY subject;
";

/// An event with an id, of which some texts are replaced.
fn event(id: &str, replaced: &[(&str, &str)]) -> String {
    let mut event = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"gateway","type":"call","subject":"acme","time":"2026-01-05T10:00:00Z","data":{{"model":"sage","n":5,"billing":{{"cost":0.10,"by":["card"]}},"note":"x"}}}}"#
    );
    for (from, to) in replaced {
        assert!(event.contains(from), "{event} has no {from}");
        event = event.replace(from, to);
    }
    event
}

/// An id, what is replaced in the event of that id that comes second, and the values that differ then.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [[&'a str; 3]]);

const DIFFERS: &str =
    "SELECT event_id, path, value, counted_value FROM conflicts ORDER BY sequence, ordinal";

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_names_each_value_that_differs_with_both() {
    let world = World::new(DEFINITIONS).await;
    let cli = world.cli();
    cli.run_to_end().await;
    assert_eq!(cli.query(DIFFERS).await, Vec::<Vec<String>>::new());
    let long = "y".repeat(100);
    let shown = format!("\"{}…", "y".repeat(39));
    let cases: [Case<'_>; 10] = [
        // The same in another spelling is a repeat.
        (
            "spelled",
            &[("0.10", "1e-1"), ("\"n\":5,", "\"n\" : 5.0 ,")],
            &[],
        ),
        ("number", &[("\"n\":5", "\"n\":7")], &[["$.n", "7", "5"]]),
        (
            "path",
            &[("0.10", "0.11")],
            &[["$.billing.cost", "0.110000", "0.100000"]],
        ),
        (
            "subject",
            &[("acme", "globex")],
            &[["subject", "globex", "acme"]],
        ),
        (
            "time",
            &[("10:00:00Z", "10:00:01Z")],
            &[["time", "2026-01-05T10:00:01Z", "2026-01-05T10:00:00Z"]],
        ),
        (
            "kind",
            &[("\"call\"", "\"image\"")],
            &[["type", "image", "call"]],
        ),
        (
            "undeclared",
            &[("[\"card\"]", "[\"card\",3]")],
            &[["$.billing.by[1]", "3", ""]],
        ),
        (
            "gone",
            &[(",\"note\":\"x\"", "")],
            &[["$.note", "", "\"x\""]],
        ),
        (
            "several",
            &[("sage", "a\\u001b[2J\u{202e}"), ("\"x\"", "\"y\u{202e}\"")],
            &[
                ["$.model", r#""a\u001b[2J\u{202e}""#, r#""sage""#],
                ["$.note", r#""y\u{202e}""#, r#""x""#],
            ],
        ),
        (
            "long",
            &[("sage", long.as_str())],
            &[["$.model", shown.as_str(), "\"sage\""]],
        ),
    ];
    let mut expected: Vec<Vec<String>> = Vec::new();
    for (id, replaced, differs) in cases {
        world.send(&[], &event(id, &[])).await;
        world.send(&[], &event(id, replaced)).await;
        let row = |differs: &[&str; 3]| {
            [&[id][..], differs]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect()
        };
        expected.extend(differs.iter().map(row));
    }
    let summary = cli.run_to_end().await;
    assert_eq!(
        (
            summary.of("counted"),
            summary.of("repeats"),
            summary.of("conflicts")
        ),
        (10, 1, 9)
    );
    assert_eq!(cli.query(DIFFERS).await, expected);
    // Where both are; the ids were counted at the odd sequences.
    let places = "SELECT sequence, shard, counted_sequence, counted_shard FROM conflicts WHERE event_id = 'number'";
    assert_eq!(cli.query(places).await, [["4", "USAGE", "3", "USAGE"]]);
    // In a later run, and without a time, which is when it was stored: that is no difference.
    let timeless = [(",\"time\":\"2026-01-05T10:00:00Z\"", "")];
    for n in ["\"n\":5", "\"n\":6"] {
        let event = event("timeless", &[timeless[0], ("\"n\":5", n)]);
        world.send(&[], &event).await;
        cli.run_to_end().await;
    }
    expected.push(["timeless", "$.n", "6", "5"].map(str::to_owned).to_vec());
    assert_eq!(cli.query(DIFFERS).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_of_conflicts_says_where_to_see_what_differs() {
    let world = World::new(DEFINITIONS).await;
    world.send(&[], &event("1", &[])).await;
    world.send(&[], &event("1", &[("acme", "globex")])).await;
    let ran = world.cli().run(&["run", "--until-end"]).await;
    let said = "shard=\"USAGE\" rejected=0 unmatched=0 conflicts=1 events=2 reasons=\"1 conflicts: this source and id were \
                counted before with other content\" look=\"SELECT * FROM conflicts\"\n";
    assert!(ran.stderr.contains(said), "{ran:#?}");
}
