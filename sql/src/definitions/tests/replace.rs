//! What an event type may be replaced by.

use super::*;

const BEFORE: &str = "CREATE EVENT TYPE call (
    n BIGINT NOT NULL CHECK (n > 0), region VARCHAR,
    cost DECIMAL(18, 9) OPTIONS (path = '$.billing.cost'), plan VARCHAR NOT NULL DEFAULT 'free'
) WITH (type = 'call');
";

fn after(columns: &str, kind: &str) -> String {
    format!("{BEFORE}CREATE OR REPLACE EVENT TYPE call ({columns}) WITH (type = '{kind}');")
}

#[test]
fn a_replaced_event_type_may_add_and_relax() {
    let text = after(
        "plan VARCHAR NOT NULL DEFAULT 'pro', n BIGINT DEFAULT 1 OPTIONS (strings = 'true'),
         region VARCHAR CHECK (region <> ''), cost DECIMAL(18, 9) OPTIONS (path = '$.cost'),
         tags VARCHAR[], seats BIGINT NOT NULL DEFAULT 1",
        "call",
    );
    let read = read(&text).unwrap();
    let [call] = read.event_types.as_slice() else {
        panic!("one event type")
    };
    let columns: Vec<_> = call
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.nullable))
        .collect();
    assert_eq!(
        columns,
        [
            ("plan", false),
            ("n", true),
            ("region", true),
            ("cost", true),
            ("tags", true),
            ("seats", false),
        ]
    );
    assert_eq!(call.checks.len(), 1);
    // Events that were stored before have NULL there, whatever is declared.
    let relation = crate::schema::event_relation(call);
    assert!(relation.field_with_name("seats").unwrap().is_nullable());
}

#[test]
fn what_stored_events_could_not_follow_is_refused() {
    const KEPT: &str = "n BIGINT NOT NULL, region VARCHAR, cost DECIMAL(18, 9), plan VARCHAR";
    for (columns, kind, problem, hint) in [
        (
            KEPT,
            "call.made",
            "type 'call.made' was 'call' at a.sql:1:19",
            "define another event type for it: stored events keep the type they came with",
        ),
        (
            "n BIGINT NOT NULL, cost DECIMAL(18, 9), plan VARCHAR",
            "call",
            "column `region`, declared at a.sql:1:19, is gone",
            "keep it: stored events have it. It may become nullable, and is NULL where it is not sent",
        ),
        (
            "n BIGINT NOT NULL, region VARCHAR, cost DECIMAL(20, 9), plan VARCHAR",
            "call",
            "column `cost` is DECIMAL(20, 9), but DECIMAL(18, 9) at a.sql:1:19",
            "keep DECIMAL(18, 9) and add a column of another name that reads the same field: cost_2 DECIMAL(20, 9) OPTIONS (path = '$.billing.cost')",
        ),
        (
            "n VARCHAR NOT NULL, region VARCHAR, cost DECIMAL(18, 9), plan VARCHAR",
            "call",
            "column `n` is VARCHAR, but BIGINT at a.sql:1:19",
            "keep BIGINT and add a column of another name that reads the same field: n_2 VARCHAR OPTIONS (path = '$.n')",
        ),
        (
            "n BIGINT NOT NULL, region VARCHAR NOT NULL, cost DECIMAL(18, 9), plan VARCHAR",
            "call",
            "column `region` is NOT NULL, but may be NULL at a.sql:1:19",
            "write CHECK (region IS NOT NULL): it concerns events from now on, and stored ones may be NULL",
        ),
        (
            "n BIGINT NOT NULL, region VARCHAR, cost DECIMAL(18, 9), plan VARCHAR NOT NULL",
            "call",
            "column `plan` is NOT NULL without the DEFAULT it has at a.sql:1:19",
            "keep the DEFAULT, or leave NOT NULL out: events stored before the column was added have NULL there",
        ),
        (
            "n BIGINT NOT NULL, region VARCHAR, cost DECIMAL(18, 9), plan VARCHAR, seats BIGINT NOT NULL",
            "call",
            "the new column `seats` is NOT NULL",
            "leave NOT NULL out or give it a DEFAULT: publishers that do not send it yet would be refused, and stored events have NULL there",
        ),
    ] {
        assert_eq!(
            refusal(&after(columns, kind)),
            format!("a.sql:5:30: event type `call`: {problem}\n  hint: {hint}")
        );
    }
}

#[test]
fn a_path_in_a_hint_can_be_pasted() {
    let text =
        "CREATE EVENT TYPE call (n BIGINT OPTIONS (path = '$[''my key''].n')) WITH (type = 'call');
                CREATE OR REPLACE EVENT TYPE call (n VARCHAR) WITH (type = 'call');";
    let hint = "n_2 VARCHAR OPTIONS (path = '$[''my key''].n')";
    assert!(refusal(text).ends_with(hint), "{}", refusal(text));
}
