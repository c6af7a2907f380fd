//! The company of `examples/ai_company`: its documents are those that are worked out here by hand, from its price list, its
//! accounts and its events.

use crate::world::{Cli, World};
use std::{
    fs,
    path::{Path, PathBuf},
};

const ACCOUNTS: [&str; 6] = [
    "accounts/customers.csv",
    "accounts/subjects.csv",
    "accounts/subscriptions.csv",
    "accounts/grants.csv",
    "accounts/discounts.csv",
    "accounts/one_offs.csv",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ai_company")
}

/// Customer, and what each line is for: kind, price or nothing, quantity, amount and discount. Then the document's promotional
/// credits, tax, total, prepaid credits and what is due.
type Expected = (
    &'static str,
    &'static [(
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
    )],
    [&'static str; 5],
);

const DOCUMENTS: &[Expected] = &[
    // The base fee of 31 January to 28 February in advance. 300 less 50 of promotional credit, and 8.875 % of 250 = 22.1875.
    (
        "initech",
        &[
            ("base", "scale_base", "", "300.0000", "0.0000"),
            ("tax", "", "250", "22.1900", "0.0000"),
        ],
        ["50.0000", "22.1900", "272.1900", "0.0000", "272.1900"],
    ),
    // January in Berlin. Five seats are 75, ten tickets 7.90, and 0.4 M × 3 + 0.1 M × 15 = 2.70 of tokens; 19 % of 184.60 is 35.074.
    (
        "globex",
        &[
            ("base", "team_base", "", "99.0000", "0.0000"),
            ("base", "team_seats", "5", "75.0000", "0.0000"),
            ("usage", "tokens_by_model", "500000", "2.7000", "0.0000"),
            ("usage", "tickets_team", "10", "7.9000", "0.0000"),
            ("tax", "", "184.6", "35.0700", "0.0000"),
        ],
        ["0.0000", "35.0700", "219.6700", "100.0000", "119.6700"],
    ),
    // 15 days of starter and 16 of team. 20 × 15/31 = 9.677, 99 × 16/31 = 51.097, 45 × 16/31 = 23.226. 1 M × 3 + 0.2 M × 15 = 6.00,
    // two of four tickets are free, 2 M × 0.5 + 1 M × 1.5 = 2.50, five tickets at 0.79. 20 % of 98.44 is 19.688: the two cents that
    // are left over go to the largest remainders, of the seats and of the first fee. Team is 64.62 then, and its minimum
    // 150 × 16/31 = 77.419, so 12.80 is missing.
    (
        "acme",
        &[
            ("base", "starter_base", "", "9.6800", "1.9400"),
            ("usage", "tokens_by_model", "1200000", "6.0000", "1.2000"),
            ("usage", "tickets_starter", "4", "1.9800", "0.3900"),
            ("base", "team_base", "", "51.1000", "10.2200"),
            ("base", "team_seats", "3", "23.2300", "4.6500"),
            ("usage", "tokens_by_model", "3000000", "2.5000", "0.5000"),
            ("usage", "tickets_team", "5", "3.9500", "0.7900"),
            ("minimum", "", "", "12.8000", "0.0000"),
        ],
        ["0.0000", "0.0000", "91.5500", "0.0000", "91.5500"],
    ),
    // 144,000 seconds are all in the second tier: 129.60. 0.5 M × 3 + 0.05 M × 15 = 2.25. With the fee that was paid in advance that is
    // 431.85, so 68.15 is missing to 500. 8.875 % of 200.00 is 17.75.
    (
        "initech",
        &[
            ("usage", "gpu_time", "144000", "129.6000", "0.0000"),
            ("usage", "tokens_by_model", "550000", "2.2500", "0.0000"),
            ("minimum", "", "", "68.1500", "0.0000"),
            ("tax", "", "200", "17.7500", "0.0000"),
        ],
        ["0.0000", "17.7500", "217.7500", "0.0000", "217.7500"],
    ),
    // A sixth seat from 15 February, after 14 of 28 days: 37.50 and 45.00. 0.1 M tokens at 3.00, which were used on 1 February
    // in Berlin. With 250 for the migration, 19 % of 431.80 is 82.042.
    (
        "globex",
        &[
            ("base", "team_base", "", "49.5000", "0.0000"),
            ("base", "team_base", "", "49.5000", "0.0000"),
            ("base", "team_seats", "5", "37.5000", "0.0000"),
            ("base", "team_seats", "6", "45.0000", "0.0000"),
            ("usage", "tokens_by_model", "100000", "0.3000", "0.0000"),
            ("one_off", "", "", "250.0000", "0.0000"),
            ("tax", "", "431.8", "82.0400", "0.0000"),
        ],
        ["0.0000", "82.0400", "513.8400", "0.0000", "513.8400"],
    ),
    // 99 + 45 + 0.79 = 144.79, 20 % of it is 28.958, shared by 99.00, 45.00 and 0.79. 115.83 is 34.17 short of the minimum.
    (
        "acme",
        &[
            ("base", "team_base", "", "99.0000", "19.8000"),
            ("base", "team_seats", "3", "45.0000", "9.0000"),
            ("usage", "tickets_team", "1", "0.7900", "0.1600"),
            ("minimum", "", "", "34.1700", "0.0000"),
        ],
        ["0.0000", "0.0000", "150.0000", "0.0000", "150.0000"],
    ),
];

async fn imported() -> (World, Cli) {
    let world = World::offline();
    for file in ["tollgate.toml", "events.ndjson"] {
        world.write(file, &fs::read_to_string(folder().join(file)).unwrap());
    }
    for name in ["definitions", "accounts"] {
        world.bring(&folder().join(name), name);
    }
    let cli = world.cli();
    let checked = cli.succeed(&["check"]).await;
    assert!(checked.ends_with("ok\n"), "{checked}");
    let import = ["accounts", "import"].iter().chain(&ACCOUNTS).copied();
    cli.succeed(&import.collect::<Vec<_>>()).await;
    let summary = cli.run_to_end().await;
    assert_eq!(summary.of("counted"), 30);
    (world, cli)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_company_bills_what_is_worked_out_by_hand() {
    let (_world, cli) = imported().await;
    let issued = cli.succeed(&["invoice", "--due", "--finalize"]).await;
    assert!(issued.starts_with("6 invoices issued\n"), "{issued}");
    // Nobody pays for what the visitor used.
    let unbilled = "unbilled     70000 input of tokens by 1 subject";
    assert!(issued.contains(unbilled), "{issued}");
    let invoices = cli
        .query(
            "SELECT number, customer, promotional, tax, total, credits_applied, amount_due FROM invoices ORDER BY number",
        )
        .await;
    assert_eq!(invoices.len(), DOCUMENTS.len());
    // Numbers are by customer, and of each customer by time.
    let mut documents: Vec<_> = DOCUMENTS.iter().collect();
    documents.sort_by_key(|(customer, ..)| *customer);
    for (invoice, (customer, lines, sums)) in invoices.iter().zip(documents) {
        assert_eq!(invoice[1], *customer);
        assert_eq!(invoice[2..], *sums, "{customer}");
        let number = &invoice[0];
        let found = cli
            .query(&format!(
                "SELECT kind, price, quantity, l.amount, l.discount FROM line_items l JOIN invoices i ON i.invoice = l.invoice
                 WHERE number = '{number}' ORDER BY line"
            ))
            .await;
        let expected: Vec<Vec<&str>> = lines
            .iter()
            .map(|(kind, price, quantity, amount, discount)| {
                vec![*kind, *price, *quantity, *amount, *discount]
            })
            .collect();
        assert_eq!(found, expected, "{number}");
    }
    let again = cli.succeed(&["invoice", "--due", "--finalize"]).await;
    assert!(
        again.starts_with("0 invoices issued, 6 were issued before\n"),
        "{again}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_shows_what_each_line_is_made_of() {
    let (_world, cli) = imported().await;
    let draft = cli
        .succeed(&["invoice", "--period", "2025-01", "--customer", "acme"])
        .await;
    let expected = "\
draft  acme  2025-01-01 to 2025-02-01  USD
  base        starter_base                            2025-01-01 to 2025-01-16    9.68
  usage       tokens_by_model, model sage-2, 1200000  2025-01-01 to 2025-01-16    6.00
  usage       tickets_starter, 4                      2025-01-01 to 2025-01-16    1.98
                up to 2: 2 for 0
                above 2: 2 for 1.98
  base        team_base                               2025-01-16 to 2025-02-01   51.10
  base        team_seats, 3                           2025-01-16 to 2025-02-01   23.23
  usage       tokens_by_model, model quill, 3000000   2025-01-16 to 2025-02-01    2.50
  usage       tickets_team, 5                         2025-01-16 to 2025-02-01    3.95
  minimum     team                                    2025-01-01 to 2025-02-01   12.80
  discounts                                                                     -19.69
  total                                                                          91.55
  amount due                                                                     91.55
";
    let trimmed: Vec<&str> = draft.lines().map(str::trim_end).collect();
    assert_eq!(trimmed, expected.lines().collect::<Vec<_>>(), "{draft}");
    cli.succeed(&["invoice", "--due", "--finalize"]).await;
    let after = cli.succeed(&["invoice", "--period", "2025-01"]).await;
    // Both documents of January close with it; the one of 31 January in New York is due in it.
    for line in [
        "issued       acme                             INV-000001              91.55 USD",
        "issued       globex                           INV-000003             219.67 USD",
        "issued       initech                          INV-000005             272.19 USD",
    ] {
        assert!(after.contains(line), "{after}");
    }
}
