//! The mistakes of a first day, in what `tollgate init` writes: each is said with its place and the way out.

use crate::world::Ran;
use std::{fs, path::Path, process::Stdio};
use tokio::process::Command;

async fn run(folder: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.current_dir(folder).args(arguments);
    command.env_remove("TOLLGATE_LOG").stdin(Stdio::null());
    Ran::of(arguments, command.output().await.unwrap())
}

/// What is replaced in which file, what is run then, and all that it says.
type Mistake = (
    &'static str,
    [&'static str; 2],
    &'static [&'static str],
    &'static str,
);

const CHECK: &[&str] = &["check"];
const USAGE: &str = "definitions/usage.sql";
const PRICES: &str = "definitions/prices.sql";
const RATES: &str = "definitions/model_rates.csv";

const MISTAKES: &[Mistake] = &[
    (
        USAGE,
        ["SUM(output_tokens)", "SUM(ouput_tokens)"],
        CHECK,
        "./definitions/usage.sql:15:56: meter `tokens`: there is no column `ouput_tokens`\n  hint: did you mean `output_tokens`? known \
         columns: `event_id`, `event_time`, `ingest_time`, `input_tokens`, `model`, `ordinal`, `output_tokens`, `sequence`, `shard`, \
         `source`, `subject`",
    ),
    (
        USAGE,
        ["'resolved'", "\"resolved\""],
        CHECK,
        "./definitions/usage.sql:22:17: meter `tickets`: there is no column `resolved`\n  hint: a text stands in single quotes: \
         'resolved'",
    ),
    (
        USAGE,
        [
            "model         VARCHAR NOT NULL,",
            "model         VARCHAR NOT NULL",
        ],
        CHECK,
        "./definitions/usage.sql:5:5: event type `completion`: a comma is missing before `input_tokens`\n  hint: a column is \
         `name TYPE [NOT NULL] [DEFAULT literal] [CHECK (expression)] [OPTIONS (path = '$.a.b')]`; separate columns with `,` and end \
         with `)`",
    ),
    (
        PRICES,
        ["unit_amount: 0.99", "unit_price: 0.99"],
        CHECK,
        "./definitions/prices.sql:18:76: price `tickets_resolved`: tier 2 has the key `unit_price`; there are up_to, unit_amount, \
         flat_amount, cap_amount, rate_percent, block_size, block_amount, max_blocks\n  hint: did you mean `unit_amount`? docs/sql.md says \
         what a tier has",
    ),
    (
        PRICES,
        ["graduated(", "gradated("],
        CHECK,
        "./definitions/prices.sql:18:8: price `tickets_resolved`: there is no function `gradated`\n  hint: did you mean `graduated`? \
         docs/sql.md has the functions of a price",
    ),
    (
        PRICES,
        ["(base_fee, tokens", "(basefee, tokens"],
        CHECK,
        "./definitions/prices.sql:27:72: plan `payg`: there is no price `basefee`\n  hint: did you mean `base_fee`? known prices: \
         `tokens_by_model`, `tickets_resolved`, `base_fee`",
    ),
    (
        PRICES,
        ["t.input * r.input_rate", "t.input / 1000 * r.input_rate"],
        CHECK,
        "./definitions/prices.sql:11:70: price `tokens_by_model`: `/` is not exact\n  hint: `package(x, 60, 1)` counts the 60s that are \
         begun; a factor must be exact, as in `x * 0.001` for `x / 1000`",
    ),
    (
        RATES,
        ["0.000003", "$0.000003"],
        CHECK,
        "./definitions/model_rates.csv:2: rate table `model_rates`, column `input_rate`: `$0.000003`: not a decimal number\n  hint: \
         write a number such as 0.0025 or 2.5e-3, without spaces, currency and marks between thousands",
    ),
    (
        "tollgate.toml",
        ["default_plan", "defaultplan"],
        CHECK,
        "tollgate.toml:36:1: there is no setting `defaultplan` in [billing]\n  hint: did you mean `default_plan`? known settings: \
         `default_plan`, `time_zone`, `tax_rates`, `starts_at`, `max_bytes`, `seller`",
    ),
    (
        "tollgate.toml",
        ["[billing]", "[biling]"],
        CHECK,
        "tollgate.toml:35:2: there is no setting `biling`\n  hint: did you mean `billing`? known settings: `definitions`, `source`, \
         `lake`, `flush`, `windows`, `ingest`, `dedupe`, `billing`, `maintenance`, `http`, `postgres`, `tls`",
    ),
    (
        "tollgate.toml",
        ["kind = \"files\"", "kind = files"],
        CHECK,
        "tollgate.toml:9:8: a text has no quotes\n  hint: write it in double quotes: stream = \"USAGE\"",
    ),
    (
        "tollgate.toml",
        ["\"files\"", "\"kafka\""],
        CHECK,
        "tollgate.toml:9:8: `kafka` is no kind of source: write \"nats\" or \"files\"",
    ),
    (
        "tollgate.toml",
        [
            "path = \"events.ndjson\"",
            "path = \"events.ndjson\"\ncreate = \"yes\"",
        ],
        CHECK,
        "tollgate.toml:11:10: `create` is not true or false, without quotes\n  hint: write create = true",
    ),
    (
        "tollgate.toml",
        [
            "# [flush]\n# interval = \"5s\"",
            "[flush]\ninterval = \"5 sekunden\"",
        ],
        CHECK,
        "tollgate.toml:28:12: `5 sekunden` is not a length of time such as 5s or 35 days",
    ),
    (
        "tollgate.toml",
        ["\"payg\"", "\"pyg\""],
        CHECK,
        "tollgate.toml:36:16: there is no plan `pyg`\n  hint: set billing.default_plan; did you mean `payg`? known plans: `payg`",
    ),
    (
        PRICES,
        ["'model_rates.csv'", "'model_rate.csv'"],
        CHECK,
        "./definitions/prices.sql:6:20: rate table `model_rates`: there is no file ./definitions/model_rate.csv\n  hint: `location` \
         starts at the folder of definitions; did you mean `model_rates.csv`? known files: `model_rates.csv` in ./definitions",
    ),
    (
        USAGE,
        ["'llm.completion'", "'llm.completion"],
        CHECK,
        "./definitions/usage.sql:7:16: event type `completion`: the quote that is opened here is not closed\n  hint: close it in \
         its line, as in 'llm.completion'; a ' within quotes is written twice",
    ),
    (
        "tollgate.toml",
        ["\"definitions/\"", "\"defs/\""],
        CHECK,
        "./defs/: the definitions folder cannot be read: No such file or directory (os error 2); set `definitions` in the \
         configuration to the folder of .sql files",
    ),
    (
        USAGE,
        ["", ""],
        &["publish", "events.ndjson"],
        "source.kind: is `files`, and `publish` sends to a stream; set it to `nats`, with `url` and `stream`",
    ),
    (
        "tollgate.toml",
        [
            "kind = \"files\"",
            "kind = \"nats\"\nurl = \"nats://127.0.0.1:9\"",
        ],
        &["publish", "events.ndjson"],
        "could not reach NATS at nats://127.0.0.1:9\n  caused by: IO error: Connection refused (os error 111)\n  hint: start the \
         server, or set source.url to where it is",
    ),
    (
        "tollgate.toml",
        ["file://./lake", "file://./lage"],
        &["query", "SELECT 1"],
        "lake file://./lage: folder ././lage could not be opened; nothing was written there yet, as `tollgate run` does, or the path \
         is wrong\n  caused by: No such file or directory (os error 2)",
    ),
    (
        USAGE,
        ["", ""],
        &["query", "SELECT * FROM tokns"],
        "the query, line 1, column 15: there is no relation `tokns`\n  hint: did you mean `tokens`? known relations: `completion`, \
         `conflicts`, `credit_ledger`, `customers`, `discounts`, `events`, `grants`, `invoices`, `line_items`, `model_rates`, `one_offs`, \
         `subjects`, `subscriptions`, `ticket`, `tickets`, `tickets_panes`, `tokens`, `tokens_panes`, `unbilled`, `unissued`",
    ),
    (
        USAGE,
        ["", ""],
        &["query", "SELECT subjct FROM tickets"],
        "the query, line 1, column 8: there is no column `subjct`\n  hint: did you mean `subject`? known columns: `customer`, `error`, \
         `is_final`, `resolved`, `subject`, `window_end`, `window_start`",
    ),
    (
        USAGE,
        ["", ""],
        &["query", "SELEC 1"],
        "the query, line 1, column 1: expected an SQL statement, found SELEC\n  hint: a query is one SELECT; docs/sql.md has examples",
    ),
    (
        USAGE,
        ["", ""],
        &["query", "DELETE FROM events"],
        "the query: DELETE is refused\n  hint: a query only reads",
    ),
    (
        USAGE,
        ["", ""],
        &[
            "query",
            "SELECT ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))",
        ],
        "the query: the query is nested too deeply\n  hint: write it with fewer parentheses within one another, or in steps: WITH a AS \
         (…) SELECT …",
    ),
];

#[tokio::test]
async fn each_names_its_place_and_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let made = run(folder.path(), &["init", "shop"]).await;
    assert_eq!(made.code, Some(0), "{made:#?}");
    let shop = folder.path().join("shop");
    let metered = run(&shop, &["run", "--until-end"]).await;
    assert_eq!(metered.code, Some(0), "{metered:#?}");
    for (file, [from, to], arguments, said) in MISTAKES {
        let file = shop.join(file);
        let written = fs::read_to_string(&file).unwrap();
        assert!(written.contains(from), "{from}");
        fs::write(&file, written.replacen(from, to, 1)).unwrap();
        let ran = run(&shop, arguments).await;
        fs::write(&file, written).unwrap();
        assert_eq!(ran.stderr, format!("error: {said}\n"), "{to} {arguments:?}");
        assert!(matches!(ran.code, Some(1 | 2)), "{ran:#?}");
    }
    // All of several mistakes at once, and not that the price of a wrong meter needs it.
    let usage = shop.join(USAGE);
    let written = fs::read_to_string(&usage).unwrap();
    let wrong = written
        .replacen("SUM(output_tokens)", "SUM(ouput_tokens)", 1)
        .replacen("'ticket.closed'", "'ticket.closed", 1);
    fs::write(&usage, wrong).unwrap();
    let prices = shop.join(PRICES);
    let costs = fs::read_to_string(&prices).unwrap();
    let wrong = costs.replacen("graduated(", "gradated(", 1);
    let wrong = wrong.replacen("prorate(20.00,", "prorate('20.00',", 1);
    fs::write(&prices, wrong).unwrap();
    let ran = run(&shop, CHECK).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (
            Some(2),
            "",
            "error: ./definitions/prices.sql:24:26: price `base_fee`: `prorate`: `amount` is the text '20.00', but must be a \
             number\n  hint: write it without quotes: 20.00\nerror: ./definitions/usage.sql:11:16: event type `ticket`: the quote that \
             is opened here is not closed\n  hint: close it in its line, as in 'ticket.closed'; a ' within quotes is written \
             twice\nerror: ./definitions/usage.sql:15:56: meter `tokens`: there is no column `ouput_tokens`\n  hint: did you mean \
             `output_tokens`? known columns: `event_id`, `event_time`, `ingest_time`, `input_tokens`, `model`, `ordinal`, \
             `output_tokens`, `sequence`, `shard`, `source`, `subject`\n3 errors\n"
        )
    );
    fs::write(&usage, written).unwrap();
    fs::write(&prices, costs).unwrap();
    // A customer's name that is misspelt is said too.
    let nothing = run(
        &shop,
        &["invoice", "--period", "2026-01", "--customer", "acmee"],
    )
    .await;
    assert_eq!(
        (nothing.code, nothing.stdout.as_str()),
        (
            Some(0),
            "nothing to bill for `acmee` in 2026-01: it has no usage; did you mean `acme`?\n"
        )
    );
}
