use super::*;
use crate::{
    accounts::{Index, csv_of, problems},
    definitions::SourceFile,
};
use proptest::prelude::*;

const DEFINITIONS: &str = "
CREATE EVENT TYPE call (n BIGINT NOT NULL) WITH (type = 'call');
CREATE METER calls WITH (window = '1 hour') AS SELECT subject, SUM(n) AS n FROM call GROUP BY subject;
CREATE PRICE api WITH (currency = 'USD') AS SELECT customer, SUM(n) AS amount FROM calls GROUP BY customer;
CREATE PRICE fee WITH (currency = 'USD') AS SELECT customer, 10.00 AS amount FROM subscription;
CREATE PRICE gebühr_eur WITH (currency = 'EUR') AS SELECT customer, 10.00 AS amount FROM subscription;
CREATE PLAN pro WITH (currency = 'USD', billing_period = 'month', maximum = '500') AS (api, fee);
CREATE PLAN seats WITH (currency = 'USD', billing_period = 'month') AS (fee);
CREATE PLAN euro WITH (currency = 'EUR', billing_period = 'month') AS (gebuehr);
";

fn definitions() -> Definitions {
    let text = DEFINITIONS.replace("gebühr_eur", "gebuehr");
    let name = "all.sql".into();
    Definitions::parse(&[SourceFile { name, text }]).unwrap()
}

fn files(texts: &[(&str, &str)]) -> Vec<AccountsFile> {
    let file = |(name, text): &(&str, &str)| AccountsFile {
        name: format!("{name}.csv"),
        bytes: text.as_bytes().to_vec(),
    };
    texts.iter().map(file).collect()
}

fn import_into(accounts: &Accounts, texts: &[(&str, &str)]) -> Result<Import> {
    import(accounts, &files(texts), &definitions(), "Europe/Berlin")
}

/// What is there after an import that must succeed.
fn after(accounts: &Accounts, texts: &[(&str, &str)]) -> Accounts {
    let import = import_into(accounts, texts).map_err(|error| error.to_string());
    together(accounts, import.unwrap().rows)
}

fn together(accounts: &Accounts, new: Accounts) -> Accounts {
    let mut all = accounts.clone();
    all.customers.extend(new.customers);
    all.subjects.extend(new.subjects);
    all.subscriptions.extend(new.subscriptions);
    all.grants.extend(new.grants);
    all.one_offs.extend(new.one_offs);
    all.discounts.extend(new.discounts);
    all
}

fn us(instant: &str) -> i64 {
    let instant: jiff::Timestamp = instant.parse().unwrap();
    instant.as_microsecond()
}

const ACME: (&str, &str) = ("customers", "customer,currency\nacme,USD\nglobex,\n");

fn acme() -> Accounts {
    let subscriptions = "subscription,customer,plan,starts_at\n\
                         a1,acme,pro,2026-01-01T00:00:00Z\n\
                         g1,globex,pro,2026-03-01T00:00:00Z\n";
    after(
        &Accounts::default(),
        &[ACME, ("subscriptions", subscriptions)],
    )
}

#[test]
fn columns_come_in_any_order_and_empty_cells_have_defaults() {
    let grants = "\u{feff}effective_at,customer,applies_to,amount,grant,currency,kind\r\n\
                  2026-01-05T12:00:00+02:00,acme,\"api; fee\",1e2,\"g,1\",USD,\r\n\
                  \r\n\
                  2026-01-05,acme,,12.50,g2,USD,promotional\r\n";
    let import = import_into(&acme(), &[("folder/grants", grants)]).unwrap();
    assert_eq!(import.read, 2);
    let [first, second] = import.rows.grants.as_slice() else {
        panic!("{:?}", import.rows.grants);
    };
    assert_eq!(
        (first.grant.as_str(), first.amount),
        ("g,1", crate::money::Exact::from(100_i64))
    );
    assert_eq!(first.applies_to, ["api", "fee"]);
    assert_eq!(first.effective_at_us, us("2026-01-05T10:00:00Z"));
    assert_eq!(first.kind, crate::accounts::GrantKind::Prepaid);
    assert_eq!((first.priority, first.rollover_max.is_zero()), (0, true));
    assert_eq!(second.kind, crate::accounts::GrantKind::Promotional);
    // In Berlin, for the customer has no zone.
    assert_eq!(second.effective_at_us, us("2026-01-04T23:00:00Z"));
    assert!(second.applies_to.is_empty());
}

#[test]
fn a_day_begins_in_the_zone_that_the_customer_has_then() {
    let customers = "customer,time_zone,valid_from\n\
                     acme,america/new_york,\n\
                     acme,Asia/Kolkata,2026-07-01\n\
                     globex,,2026-01-01\n";
    let subjects = "subject,customer,valid_from\n\
                    winter,acme,2026-01-15\n\
                    summer,acme,2026-06-15\n\
                    later,acme,2026-07-15\n\
                    berlin,globex,2026-01-15\n\
                    instant,acme,2026-01-15T00:00:00Z\n\
                    ever,acme,\n";
    let accounts = after(
        &Accounts::default(),
        // The order of the files does not matter.
        &[("subjects", subjects), ("customers", customers)],
    );
    let index = accounts.indexed();
    let from = |subject: &str| index.payers_of(subject)[0].from_us;
    assert_eq!(from("winter"), Some(us("2026-01-15T05:00:00Z")));
    assert_eq!(from("summer"), Some(us("2026-06-15T04:00:00Z")));
    assert_eq!(from("later"), Some(us("2026-07-14T18:30:00Z")));
    assert_eq!(from("berlin"), Some(us("2026-01-14T23:00:00Z")));
    assert_eq!(from("instant"), Some(us("2026-01-15T00:00:00Z")));
    assert_eq!(from("ever"), None);
    let zone = index.customer("acme")[0].time_zone.as_deref();
    assert_eq!(zone, Some("America/New_York"));
    // The row's own zone: Kolkata is five and a half hours ahead.
    let rows = index.customer("acme");
    assert_eq!(rows[1].valid_from_us, Some(us("2026-06-30T18:30:00Z")));
    assert_eq!(
        index.customer("globex")[0].valid_from_us,
        Some(us("2025-12-31T23:00:00Z"))
    );
}

#[test]
fn a_day_whose_midnight_is_not_there_begins_at_its_first_instant() {
    // Clocks go from 24:00 on 23 April to 01:00 on the 24th.
    let accounts = after(
        &Accounts::default(),
        &[
            ("customers", "customer,time_zone\na,Africa/Cairo\n"),
            ("subjects", "subject,customer,valid_from\ns,a,2026-04-24\n"),
        ],
    );
    let from = accounts.subjects[0].valid_from_us;
    assert_eq!(from, Some(us("2026-04-23T22:00:00Z")));
}

#[test]
fn importing_again_changes_nothing_and_a_row_for_the_same_time_replaces() {
    let subjects = (
        "subjects",
        "subject,customer,valid_from\nbot,acme,\nbot,globex,2026-02-01\n",
    );
    let once = after(&acme(), &[subjects]);
    let again = import_into(&once, &[subjects, ACME]).unwrap();
    assert_eq!((again.rows, again.read), (Accounts::default(), 4));
    // The hand-over is taken back: with the same key and time, the row that is written later stands.
    let back = (
        "subjects",
        "subject,customer,valid_from\nbot,acme,2026-02-01\n",
    );
    let twice = after(&once, &[back]);
    assert_eq!(twice.subjects.len(), 3);
    let at = us("2026-05-01T00:00:00Z");
    assert_eq!(twice.clone().indexed().payer_at("bot", at), Some("acme"));
    // The first file says something else than what stands now.
    let thrice = after(&twice, &[subjects]);
    assert_eq!(thrice.indexed().payer_at("bot", at), Some("globex"));
    // A row that is there twice is one.
    let double = ("subjects", "subject,customer\nbot2,acme\nbot2,acme\n");
    assert_eq!(
        import_into(&once, &[double]).unwrap().rows.subjects.len(),
        1
    );
}

/// Files, and what is said of them.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str);

/// Each case is imported where `acme` is in dollars on plan `pro` since January and `globex` in no certain currency on `pro`
/// since March.
const REFUSED: &[Case<'_>] = &[
    // Of files.
    (
        &[("custmers", "customer\nx\n")],
        "custmers.csv:1: the file is named after no table of accounts: `custmers`\n  hint: name it after its table and `.csv`; did \
         you mean `customers`? known tables: `customers`, `subjects`, `subscriptions`, `grants`, `one_offs`, `discounts`",
    ),
    (
        &[("subjects", "subjekt,customer,customer\n")],
        "subjects.csv:1: column `subjekt`: `subjects` has no such column\n  hint: did you mean `subject`? known columns: `subject`, \
         `customer`, `valid_from`\n\
         subjects.csv:1: column `customer`: twice in the header\n  hint: remove or rename one of the two\n\
         subjects.csv:1: column `subject`: not in the header\n  hint: name it there, in lower case; did you mean `subjekt`? known \
         columns of the file: `subjekt`, `customer`, `customer`",
    ),
    (
        &[("subjects", "subject;customer\na;acme\n")],
        "subjects.csv:1: the first line does not name the columns\n  hint: the cells of `subject;customer` are not separated by \
         commas: save the file as comma-separated values",
    ),
    (
        &[(
            "subjects",
            "subject,customer\na,acme\nb\n,acme\n\"c,acme\nd,acme\n",
        )],
        "subjects.csv:3: column `customer`: the row has 1 cells, the header 2\n  hint: write one cell for each name of the header; \
         a cell with a comma stands in double quotes\n\
         subjects.csv:4: column `subject`: empty\n  hint: write a value: each row has one here\n\
         subjects.csv:5: column `subject`: a line break in the cell: is a closing quote missing?\n  hint: close the quote in this \
         cell; a quote within a quoted cell is written twice",
    ),
    // Of cells, all of a row.
    (
        &[(
            "customers",
            "customer,currency,time_zone,tax_exempt,valid_from\n x,usd,Mars/Olympus,yes,01.02.2026\ny,XAU,,,2026-02-30\n",
        )],
        "customers.csv:2: column `customer`: ` x`: it begins or ends with a space\n  hint: remove the space\n\
         customers.csv:2: column `currency`: `usd`: not a currency\n  hint: write USD\n\
         customers.csv:2: column `time_zone`: `Mars/Olympus`: not a time zone\n  hint: write a name of the IANA database such as \
         Europe/Berlin, or nothing for billing.time_zone\n\
         customers.csv:2: column `tax_exempt`: `yes`: neither `true` nor `false`\n  hint: write `true` or `false`\n\
         customers.csv:2: column `valid_from`: `01.02.2026`: not an instant such as 2026-10-01T00:00:00Z\n  hint: write an instant \
         with its offset and at most microseconds such as 2026-10-01T00:00:00Z, or a day such as 2026-10-01\n\
         customers.csv:3: column `currency`: `XAU`: not a currency\n  hint: write a code of ISO 4217 such as USD\n\
         customers.csv:3: column `valid_from`: `2026-02-30`: not an instant such as 2026-10-01T00:00:00Z\n  hint: write an instant \
         with its offset and at most microseconds such as 2026-10-01T00:00:00Z, or a day such as 2026-10-01",
    ),
    (
        &[(
            "grants",
            "grant,customer,amount,currency,effective_at,kind,recurs_every,rollover_min,priority\n\
             g,acme,0,USD,2026-01-01,free,fortnight,-1,1.5\n\
             h,acme,\"1,000\",USD,2026-01-01,,,,\n\
             i,acme,1000000000000000000000,USD,2026-01-01,,,,\n\
             j,acme,0.0000000000000000001,USD,2026-01-01,,,,\n",
        )],
        "grants.csv:2: column `amount`: `0`: not above zero\n  hint: write a number above zero\n\
         grants.csv:2: column `priority`: `1.5`: not a whole number of 64 bits\n  hint: write digits alone\n\
         grants.csv:2: column `kind`: `free`: not known here\n  hint: write `prepaid` or `promotional`\n\
         grants.csv:2: column `recurs_every`: `fortnight`: not a length\n  hint: write `day`, `week`, `month`, `quarter` or `year`, \
         or several of one such as `2 weeks`\n\
         grants.csv:2: column `rollover_min`: `-1`: below zero\n  hint: write 0 or more\n\
         grants.csv:3: column `amount`: `1,000`: not a decimal number\n  hint: write a number such as 12.50, without spaces, \
         currency and marks between thousands\n\
         grants.csv:4: column `amount`: `1000000000000000000000`: too large for DECIMAL(38, 18)\n  hint: write at most 20 digits \
         before the point\n\
         grants.csv:5: column `amount`: `0.0000000000000000001`: more than 18 digits after the point\n  hint: write fewer digits \
         after the point",
    ),
    // Of rows by themselves.
    (
        &[
            (
                "subscriptions",
                "subscription,customer,plan,seats,starts_at,ends_at,trial_ends_at,minimum,maximum\n\
                 s1,acme,seats,-1,2026-02-01,,,,\n\
                 s2,acme,seats,,2026-02-01,2026-02-01,2026-01-31,,\n\
                 s3,acme,seats,,2026-02-01,,,10,9.99\n\
                 s4,acme,seats,,2026-02-01,,,0.001,\n",
            ),
            (
                "grants",
                "grant,customer,amount,currency,effective_at,expires_at,rollover_min,rollover_max\n\
                 g,acme,1,USD,2026-02-01,2026-02-01,2,1\n\
                 h,acme,1.005,USD,2026-02-01,,,\n",
            ),
            (
                "discounts",
                "discount,customer,kind,value,currency,starts_at,ends_at\n\
                 d1,acme,percent,100.5,,,\n\
                 d2,acme,percent,-1,,,\n\
                 d3,acme,fixed,5,,2026-02-02,2026-02-01\n\
                 d4,acme,fixed,0.001,USD,,\n",
            ),
            (
                "one_offs",
                "one_off,customer,amount,currency,date\no,acme,-1.001,USD,2026-01-01\n",
            ),
        ],
        "subscriptions.csv:2: column `seats`: `-1`: below 0\n  hint: write 0 or more\n\
         subscriptions.csv:3: column `ends_at`: it is not after `starts_at`\n  hint: `ends_at` is the first instant that does not \
         count; leave it empty until further notice\n\
         subscriptions.csv:3: column `trial_ends_at`: the trial ends before `starts_at`\n  hint: write the first instant after the \
         trial, or nothing where there is none\n\
         subscriptions.csv:4: column `minimum`: the minimum, 10, is above the maximum, 9.99\n  hint: write both, the minimum first \
         up to the maximum\n\
         subscriptions.csv:5: column `minimum`: 0.001 is finer than the minor unit of USD\n  hint: write at most 2 digits after \
         the point\n\
         grants.csv:2: column `expires_at`: it is not after `effective_at`\n  hint: `expires_at` is the first instant that does \
         not count; leave it empty until further notice\n\
         grants.csv:2: column `rollover_min`: 2 is above `rollover_max`, 1\n  hint: write the most that a recurrence carries over \
         into `rollover_max`\n\
         grants.csv:3: column `amount`: 1.005 is finer than the minor unit of USD\n  hint: write at most 2 digits after the point\n\
         discounts.csv:2: column `value`: 100.5 per cent is more than everything\n  hint: write a number from 0 to 100\n\
         discounts.csv:3: column `value`: `-1`: below zero\n  hint: write 0 or more\n\
         discounts.csv:4: column `ends_at`: it is not after `starts_at`\n  hint: `ends_at` is the first instant that does not \
         count; leave it empty until further notice\n\
         discounts.csv:4: column `currency`: empty, but a fixed discount is an amount\n  hint: write its currency, such as USD\n\
         discounts.csv:5: column `value`: 0.001 is finer than the minor unit of USD\n  hint: write at most 2 digits after the point\n\
         one_offs.csv:2: column `amount`: -1.001 is finer than the minor unit of USD\n  hint: write at most 2 digits after the point",
    ),
    // The plan's own maximum is 500.
    (
        &[(
            "subscriptions",
            "subscription,customer,plan,starts_at,minimum\ng1,globex,pro,2026-03-01T00:00:00Z,500.01\n",
        )],
        "subscriptions.csv:2: column `minimum`: the minimum, 500.01, is above the maximum of plan `pro`, 500\n  hint: write both, the \
         minimum first up to the maximum",
    ),
    // Of names.
    (
        &[
            ("subjects", "subject,customer\ns,acmee\n"),
            (
                "subscriptions",
                "subscription,customer,plan,starts_at\nx,nobody,pro,2026-01-01\ng1,globex,prp,2026-03-01T00:00:00Z\n",
            ),
            (
                "discounts",
                "discount,customer,kind,value,applies_to\nd,acme,percent,1,api;apy\n",
            ),
        ],
        "subjects.csv:2: column `customer`: `acmee` has no row in `customers`\n  hint: did you mean `acme`? Else add the customer to \
         customers.csv, in this import or in one before\n\
         subscriptions.csv:2: column `customer`: `nobody` has no row in `customers`\n  hint: add the customer to customers.csv, in \
         this import or in one before\n\
         subscriptions.csv:3: column `plan`: there is no plan `prp`\n  hint: did you mean `pro`? known plans: `pro`, `seats`, `euro`\n\
         discounts.csv:2: column `applies_to`: there is no price `apy`\n  hint: did you mean `api`? known prices: `api`, `fee`, \
         `gebuehr`",
    ),
    // A customer in a row that cannot be read is not also one that is not there.
    (
        &[
            ("customers", "customer,currency\nnew,EURO\n"),
            ("subjects", "subject,customer\ns,new\n"),
        ],
        "customers.csv:2: column `currency`: `EURO`: not a currency\n  hint: write a code of ISO 4217 such as USD",
    ),
    (
        &[
            ("customers", "kunde\nnew\n"),
            ("subjects", "subject,customer\ns,new\n"),
        ],
        "customers.csv:1: column `kunde`: `customers` has no such column\n  hint: known columns: `customer`, `name`, `email`, \
         `currency`, `time_zone`, `tax_region`, `tax_exempt`, `valid_from`\n\
         customers.csv:1: column `customer`: not in the header\n  hint: name it there, in lower case; known columns of the file: \
         `kunde`",
    ),
    // Two rows with one key and time.
    (
        &[(
            "subjects",
            "subject,customer,valid_from\nbot,acme,2026-02-01\nbot,acme,\nbot,globex,2026-01-31T23:00:00Z\n",
        )],
        "subjects.csv:4: column `subject`: `bot` has two payers from 2026-01-31T23:00:00Z on: `acme` in subjects.csv:2 and `globex` \
         here\n  hint: keep one of the two; a later import replaces a row with the same key and time",
    ),
    (
        &[(
            "grants",
            "grant,customer,amount,currency,effective_at\ng,acme,1,USD,2026-01-01\ng,acme,1,USD,2026-01-02\n",
        )],
        "grants.csv:3: column `grant`: `g` has two rows, and the other in grants.csv:2 says something else\n  hint: keep one of the \
         two; a later import replaces a row with the same key and time",
    ),
    // Whose it is.
    (
        &[(
            "subscriptions",
            "subscription,customer,plan,starts_at\na1,globex,seats,2026-05-01\n",
        )],
        "subscriptions.csv:2: column `customer`: subscription `a1` is of customer `acme` already\n  hint: end it, and give the one \
         of the other customer a name of its own",
    ),
    (
        &[(
            "subscriptions",
            "subscription,customer,plan,starts_at\nn,globex,seats,2026-05-01\nn,acme,seats,2026-04-01\n",
        )],
        "subscriptions.csv:2: column `customer`: subscription `n` is of customer `acme` already\n  hint: end it, and give the one \
         of the other customer a name of its own",
    ),
    // A second subscription of the same usage.
    (
        &[(
            "subscriptions",
            "subscription,customer,plan,starts_at\na2,acme,pro,2026-05-01\n",
        )],
        "subscriptions.csv:2: column `plan`: subscriptions `a1` and `a2` of customer `acme` overlap and both bill price `api`: usage \
         would be billed twice\n  hint: end one before the other begins, or take the price out of one of the plans",
    ),
    // A row before that was there: the new one is named.
    (
        &[(
            "subscriptions",
            "subscription,customer,plan,starts_at,ends_at\na0,acme,pro,2025-05-01,2026-01-02\n",
        )],
        "subscriptions.csv:2: column `plan`: subscriptions `a0` and `a1` of customer `acme` overlap and both bill price `api`: usage \
         would be billed twice\n  hint: end one before the other begins, or take the price out of one of the plans",
    ),
    // Currencies.
    (
        &[(
            "subscriptions",
            "subscription,customer,plan,starts_at\na2,acme,euro,2026-05-01\n",
        )],
        "subscriptions.csv:2: column `plan`: subscription `a2` is on plan `euro`, which is in EUR, and customer `acme` is in USD\n  \
         hint: write a plan in the customer's currency, or the plan's currency into `customers`",
    ),
    (
        &[(
            "customers",
            "customer,currency,valid_from\nacme,EUR,2026-07-01\n",
        )],
        "customers.csv:2: column `currency`: subscription `a1` is on plan `pro`, which is in USD, and customer `acme` is in EUR from \
         2026-06-30T22:00:00Z on\n  hint: write a plan in the customer's currency, or the plan's currency into `customers`",
    ),
    (
        &[(
            "subscriptions",
            "subscription,customer,plan,starts_at\ng2,globex,euro,2026-05-01\n",
        )],
        "subscriptions.csv:2: column `plan`: customer `globex` has subscription `g2` in EUR and `g1` in USD at the same time\n  hint: \
         a customer has one currency at a time: write a plan in the same one, or another customer",
    ),
    (
        &[
            (
                "grants",
                "grant,customer,amount,currency,effective_at\ng,acme,1,EUR,2026-01-01\nh,globex,1,EUR,2025-01-01\n",
            ),
            (
                "one_offs",
                "one_off,customer,amount,currency,date\no,acme,1,JPY,2026-01-01\n",
            ),
            (
                "discounts",
                "discount,customer,kind,value,currency\nd,acme,fixed,1,EUR\ne,acme,percent,1,EUR\n",
            ),
        ],
        "grants.csv:2: column `currency`: `g` is in EUR, and customer `acme` is in USD\n  hint: an amount pays or lowers what is \
         billed in its own currency alone: write it in the customer's\n\
         grants.csv:3: column `currency`: `h` is in EUR, and customer `globex` is in USD by plan `pro` of subscription `g1`\n  hint: \
         an amount pays or lowers what is billed in its own currency alone: write it in the customer's\n\
         one_offs.csv:2: column `currency`: `o` is in JPY, and customer `acme` is in USD\n  hint: an amount pays or lowers what is \
         billed in its own currency alone: write it in the customer's\n\
         discounts.csv:2: column `currency`: `d` is in EUR, and customer `acme` is in USD\n  hint: an amount pays or lowers what is \
         billed in its own currency alone: write it in the customer's",
    ),
    // A subscription of a customer that is not there yet.
    (
        &[
            ("customers", "customer,valid_from\nnew,2026-02-01\n"),
            (
                "subscriptions",
                "subscription,customer,plan,starts_at\nn,new,seats,2026-01-31\n",
            ),
        ],
        "subscriptions.csv:2: column `starts_at`: it begins before customer `new` is there, which is from 2026-01-31T23:00:00Z on\n  \
         hint: leave `valid_from` of the customer's first row empty, or write an earlier one",
    ),
];

#[test]
fn what_is_refused_says_file_line_and_column() {
    let accounts = acme();
    for (texts, expected) in REFUSED {
        let error = import_into(&accounts, texts).map_err(|error| error.to_string());
        let error = error.expect_err(&format!("{texts:?}"));
        let (head, problems) = error.split_once('\n').unwrap();
        assert_eq!(problems, *expected);
        let count = expected.matches("\n  hint: ").count();
        let are = if count == 1 { "problem" } else { "problems" };
        assert_eq!(head, format!("nothing was imported: {count} {are}"));
    }
}

#[test]
fn neighbours_of_what_is_refused_are_taken() {
    let accounts = acme();
    let taken: &[&[(&str, &str)]] = &[
        // Two subscriptions of one customer, one with usage and one without.
        &[(
            "subscriptions",
            "subscription,customer,plan,starts_at\na2,acme,seats,2026-05-01\na3,acme,seats,2026-05-01\n",
        )],
        // One that ends when the other begins.
        &[(
            "subscriptions",
            "subscription,customer,plan,starts_at,ends_at\na0,acme,pro,2025-05-01,2026-01-01T00:00:00Z\n",
        )],
        // A change of plan, seats and terms, and the end of a trial that is the start.
        &[(
            "subscriptions",
            "subscription,customer,plan,seats,starts_at,ends_at,trial_ends_at,minimum,maximum\n\
             a1,acme,seats,0,2026-05-01,2026-06-01,2026-05-01,10,10\n",
        )],
        // An earlier end than the next row is none.
        &[(
            "subscriptions",
            "subscription,customer,plan,starts_at,ends_at\na1,acme,pro,2026-01-01T00:00:00Z,2027-01-01\na1,acme,seats,2026-05-01,\n",
        )],
        // A currency from the time on at which the plan has it.
        &[
            (
                "customers",
                "customer,currency,valid_from\nacme,EUR,2026-07-01\n",
            ),
            (
                "subscriptions",
                "subscription,customer,plan,starts_at\na1,acme,euro,2026-07-01\n",
            ),
            (
                "discounts",
                "discount,customer,kind,value,currency,starts_at\nd,acme,fixed,1,EUR,2026-07-01\n",
            ),
            (
                "grants",
                "grant,customer,amount,currency,effective_at\ng,acme,1,USD,2026-06-30\n",
            ),
        ],
        // Another zone.
        &[(
            "customers",
            "customer,currency,time_zone,valid_from\nacme,USD,Asia/Tokyo,2026-07-01\n",
        )],
        // Amounts that can be paid, in other currencies.
        &[
            ("customers", "customer,currency\nj,JPY\nk,KWD\n"),
            (
                "grants",
                "grant,customer,amount,currency,effective_at\nj,j,100.00,JPY,2026-01-01\nk,k,0.001,KWD,2026-01-01\n",
            ),
        ],
        &[(
            "discounts",
            "discount,customer,kind,value\nd,acme,percent,100\ne,acme,percent,0\nf,acme,percent,33.333333\n",
        )],
        &[(
            "one_offs",
            "one_off,customer,amount,currency,date\no,acme,-5,USD,2026-01-01\n",
        )],
        // A file without rows.
        &[("grants", "grant,customer,amount,currency,effective_at\n")],
    ];
    for texts in taken {
        let import = import_into(&accounts, texts).map_err(|error| error.to_string());
        assert!(import.is_ok(), "{texts:?}: {import:?}");
    }
    // A one-off without a text is called by its name; per cent have no currency.
    let texts = [
        (
            "one_offs",
            "one_off,customer,amount,currency,date\no,acme,5,USD,2026-01-01\n",
        ),
        (
            "discounts",
            "discount,customer,kind,value,currency\nd,acme,percent,5,EUR\n",
        ),
    ];
    let rows = import_into(&accounts, &texts).unwrap().rows;
    assert_eq!(rows.one_offs[0].text, "o");
    assert_eq!(rows.discounts[0].currency, None);
}

#[test]
fn the_first_hundred_problems_are_printed_and_the_others_counted() {
    let rows: String = (0..130).map(|row| format!("s{row},nobody\n")).collect();
    let text = format!("subject,customer\n{rows}");
    let error = import_into(&acme(), &[("subjects", &text)]).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("nothing was imported: 130 problems\nsubjects.csv:2: "));
    assert!(text.ends_with("\nand 30 more"), "{text}");
    assert_eq!(text.matches("hint: ").count(), 100);
}

#[test]
fn definitions_that_lost_a_plan_or_a_price_are_found_while_it_is_in_use() {
    let accounts = after(
        &acme(),
        &[
            (
                "discounts",
                "discount,customer,kind,value,ends_at,applies_to\nd,acme,percent,1,2026-06-01T00:00:00Z,fee\n",
            ),
            (
                "subscriptions",
                "subscription,customer,plan,starts_at,ends_at\ng1,globex,pro,2026-03-01T00:00:00Z,2026-04-01T00:00:00Z\n",
            ),
        ],
    );
    let text = "CREATE PRICE base WITH (currency = 'USD') AS SELECT customer, 10.00 AS amount FROM subscription;
                CREATE PLAN pros WITH (currency = 'USD', billing_period = 'month') AS (base);";
    let file = SourceFile {
        name: "all.sql".into(),
        text: text.into(),
    };
    let without = Definitions::parse(&[file]).unwrap();
    let index: Index = accounts.indexed();
    let at = |now: &str| {
        let found = problems(&index, &without, us(now)).unwrap();
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let of = |name: &str| {
        format!(
            "accounts/subscriptions: `{name}`: column `plan`: there is no plan `pro`\n  hint: did you mean `pros`? known plans: `pros`"
        )
    };
    let discount = "accounts/discounts: `d`: column `applies_to`: there is no price `fee`\n  hint: known prices: `base`";
    assert_eq!(
        at("2026-03-31T23:59:59Z"),
        [of("a1"), of("g1"), discount.to_owned()]
    );
    assert_eq!(at("2026-04-01T00:00:00Z"), [of("a1"), discount.to_owned()]);
    assert_eq!(at("2026-06-01T00:00:00Z"), [of("a1")]);
    assert_eq!(
        problems(&index, &definitions(), us("2026-04-01T00:00:00Z")).unwrap(),
        []
    );
}

/// Cells of a file that can be imported.
fn cell() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-zA-Z\", ;=ü\u{202e}]{1,12}",
        Just("\"".to_owned()),
    ]
}

fn quoted(cell: &str) -> String {
    format!("\"{}\"", cell.replace('"', "\"\""))
}

proptest! {
    /// What is exported says the same when it is imported, where there is nothing and where it is.
    #[test]
    fn what_is_exported_can_be_imported_unchanged(
        names in prop::collection::vec((cell(), cell(), prop::option::of(0_i64..4_000_000_000_000_000)), 1..8),
        amounts in prop::collection::vec((1_i64..10_000_000, any::<bool>()), 0..6),
    ) {
        let mut customers = "customer,name,email,tax_exempt,valid_from\n".to_owned();
        for (number, (name, email, from)) in names.iter().enumerate() {
            let from = from.map(|us| jiff::Timestamp::from_microsecond(us).unwrap().to_string());
            customers += &format!(
                "\"c \"\"{number}\"\"\",{},{},{},{}\n",
                quoted(name), quoted(email), number % 2 == 0, from.unwrap_or_default()
            );
        }
        let mut grants = "grant,customer,amount,currency,effective_at,kind,applies_to,recurs_every\n".to_owned();
        let mut one_offs = "one_off,customer,amount,currency,text,date\n".to_owned();
        for (number, (cents, is_one)) in amounts.iter().enumerate() {
            let (whole, part) = (cents / 100, cents % 100);
            let kind = if *is_one { "promotional" } else { "" };
            grants += &format!("g{number},\"c \"\"0\"\"\",{whole}.{part:02},USD,2026-01-01,{kind},fee api,2 weeks\n");
            one_offs += &format!("o{number},\"c \"\"0\"\"\",-{whole}.{part:02},USD,,2026-01-01T00:00:00.000001Z\n");
        }
        let subscriptions = "subscription,customer,plan,starts_at,minimum\n\
                             s,\"c \"\"0\"\"\",seats,2200-01-01,0.10\n";
        let texts = [
            ("customers", customers.as_str()),
            ("grants", &grants),
            ("one_offs", &one_offs),
            ("subscriptions", subscriptions),
        ];
        let accounts = after(&Accounts::default(), &texts).indexed().into_accounts();
        let exported = crate::accounts::TABLES.map(|table| (table, csv_of(&accounts, table).unwrap()));
        let exported = exported.each_ref().map(|(table, text)| (*table, text.as_str()));
        let again = after(&Accounts::default(), &exported).indexed().into_accounts();
        prop_assert_eq!(&again, &accounts);
        let nothing = import_into(&accounts, &exported).unwrap();
        prop_assert_eq!(nothing.rows, Accounts::default());
    }
}
