//! `tollgate invoice`: drafts invoices for a billing period, or issues them.

use crate::{
    billing::{self, Asked, Documents, Issued, Review, Unbilled, Which, causes_text},
    cli::{
        html::{self, Parties},
        issuing, load,
        output::{self, Format},
        statement::statement,
    },
    clock::{Clock, SystemClock},
    config::{BillingSettings, Settings},
    error::{Error, Result, printable},
    view::View,
};
use arrow::array::RecordBatch;
use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::{Accounts, Index},
    invoice::{
        self, Invoice,
        changes::Change,
        tables::{invoices_batch, line_items_batch},
    },
    money::Exact,
    parser::nearest,
    window::DAY_US,
};

/// Flags of `tollgate invoice`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The billing period: a month such as 2026-10, in the time zone of `billing.time_zone`. Of subscriptions, what closes in
    /// that month, in the customer's time zone.
    #[arg(long, value_name = "YYYY-MM", required_unless_present_any = ["due", "void"])]
    pub period: Option<String>,
    /// Everything of subscriptions that was due by now and is not issued.
    #[arg(long, conflicts_with = "period")]
    pub due: bool,
    /// Bill what has changed since documents were issued: prices, rate tables, plans and accounts too, not usage alone. Of the period,
    /// the customer, or all.
    #[arg(long)]
    pub correct: bool,
    /// Take back the issued document with this number by a document of its own, after which what is due of its time is unissued.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["period", "due", "correct", "finalize", "customer"])]
    pub void: Option<String>,
    /// Who issues: kept with each document as `issued_by`. Without it the user of the process.
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Do not ask on a terminal before anything is issued.
    #[arg(long)]
    pub yes: bool,
    /// Issue the invoices: number them and write them to the lake, once and for ever.
    #[arg(long)]
    pub finalize: bool,
    /// Only this customer.
    #[arg(long, value_name = "CUSTOMER")]
    pub customer: Option<String>,
    /// Write `invoices` and `line_items` into this folder, a file for each format. With --finalize
    /// that is all the period's invoices, those issued before too.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Formats of the files.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "csv",
        requires = "out"
    )]
    pub format: Vec<Export>,
}

/// A format of exported files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Export {
    /// With a header line.
    Csv,
    /// An array of objects.
    Json,
    /// A Parquet file.
    Parquet,
    /// A page that prints, for each document that is drafted or issued now.
    Html,
}

/// Prints, and with `--out` writes, the invoices of a period.
///
/// # Errors
/// See [`billing::draft`] and [`billing::issue`]; and [`Error::InError`], when all is done, if customers got no invoice.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    if let Some(number) = &arguments.void {
        return void(settings, arguments, number).await;
    }
    let period = arguments.period.as_deref();
    let period = period.map(|month| settings.month(month)).transpose()?;
    let catalog = load(settings).await?;
    let lake = match arguments.finalize {
        true => Lake::open(&settings.lake.url, &settings.base).await?,
        false => Lake::open_to_read(&settings.lake.url, &settings.base).await?,
    };
    let view = View::open(catalog, &lake).await?;
    if billing::accounts::are_there(&lake).await? {
        return of_subscriptions(settings, arguments, (&view, &lake)).await;
    }
    if arguments.correct {
        let problem = "`--correct` is for subscriptions, and there are no accounts: import them";
        return Err(Error::Usage(problem.into()));
    }
    let Some(period) = period else {
        let problem = "`--due` is for subscriptions, and there are no accounts: import them, or name a month with --period";
        return Err(Error::Usage(problem.into()));
    };
    let period = settings.billing.since_start(&period)?;
    let mut drafts = match &arguments.customer {
        Some(customer) => billing::draft_of(&view, &settings.billing, &period, customer).await?,
        None => billing::draft(&view, &settings.billing, &period).await?,
    };
    let in_error = drafts.in_error();
    let (tables, review, invoices) = match arguments.finalize {
        false => {
            let review = billing::review_of(&view, &lake, &drafts, &period).await?;
            let text = listing(&drafts.invoices) + &changes_text(&review);
            match text.is_empty() && in_error.is_empty() {
                true => {
                    let used = billing::customers_with_usage(&view, &settings.billing, &period);
                    output::print(&nothing_text(arguments, &used.await?))?;
                }
                false => output::print(&text)?,
            }
            (None, review, drafts.invoices)
        }
        true => {
            if issuing::asks(arguments.yes) {
                let left = billing::left_to_issue(&lake, &drafts, &period).await?;
                if !is_confirmed(&lake, &left).await? {
                    return Ok(());
                }
            }
            drafts.issued_by = issuing::issuer(arguments.by.as_deref());
            let issued = billing::issue(&view, &lake, drafts, &period, &SystemClock).await?;
            output::print(&summary(&issued))?;
            output::print(&listing(&issued.issued))?;
            output::print(&changes_text(&issued.review))?;
            // What was issued before too, or a second run would leave empty files behind.
            let of = arguments.customer.as_deref();
            let tables = match arguments.out.is_some() {
                true => Some(billing::issued(&lake, &period, of).await?),
                false => None,
            };
            (tables, issued.review, issued.issued)
        }
    };
    write_documents(settings, arguments, (tables, &invoices), &Index::empty())?;
    if !in_error.is_empty() {
        return Err(Error::InError { in_error });
    }
    check_refused(&review)
}

/// Takes an issued document back by one of its own, prints it, and with `--out` writes it.
///
/// # Errors
/// See [`billing::issue_void`].
async fn void(settings: &Settings, arguments: &Arguments, number: &str) -> Result<()> {
    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    let accounts = match billing::accounts::are_there(&lake).await? {
        true => billing::accounts::load(&lake).await?.indexed(),
        false => Index::empty(),
    };
    let question = format!("Take {} back?", printable(number));
    if issuing::asks(arguments.yes) && !issuing::confirmed("", &question)? {
        return Ok(());
    }
    let by = issuing::issuer(arguments.by.as_deref());
    let clock = (&SystemClock as _, by.as_deref());
    let void = billing::issue_void(&lake, &accounts, number, clock).await?;
    let issued = void.number.as_deref().unwrap_or_default();
    output::print(&format!(
        "{number} is void by {issued}; what is due of its time is issued again by the next job\n"
    ))?;
    output::print(&listing(std::slice::from_ref(&void)))?;
    write_documents(settings, arguments, (None, &[void]), &accounts)
}

/// The documents of subscriptions, printed, and issued if they are to be.
async fn of_subscriptions(
    settings: &Settings,
    arguments: &Arguments,
    (view, lake): (&View, &Lake),
) -> Result<()> {
    let accounts = match &arguments.customer {
        Some(customer) => accounts_of(lake, customer).await?,
        None => billing::accounts::load(lake).await?,
    };
    let which = match &arguments.period {
        Some(month) => Which::Month(month.clone()),
        None => Which::Due,
    };
    let asked = Asked {
        which: &which,
        customer: arguments.customer.as_deref(),
        corrects: arguments.correct,
    };
    let clock = SystemClock;
    let accounts = accounts.indexed();
    let now_us = clock.now_us();
    let documents = billing::documents_of(view, lake, &settings.billing, &accounts, asked, now_us);
    let mut documents = documents.await?;
    let in_error = documents.in_error.clone();
    let waiting = waiting_text(&documents);
    let starts = documents
        .invoices
        .iter()
        .map(|invoice| invoice.period.start_us);
    let unbilled_from_us = starts.min().unwrap_or(now_us.saturating_sub(MONTH_US));
    let invoices = match arguments.finalize {
        false => {
            if arguments.period.is_some() {
                output::print(&issued_text(lake, &documents.issued_before).await?)?;
            }
            output::print(&drafts_text(view, &documents.invoices).await?)?;
            documents.invoices
        }
        true => {
            if issuing::asks(arguments.yes) && !is_confirmed(lake, &documents.to_issue()).await? {
                return Ok(());
            }
            documents.issued_by = issuing::issuer(arguments.by.as_deref());
            let issued = billing::issue_documents(lake, documents, &clock).await?;
            output::print(&summary(&issued))?;
            output::print(&listing(&issued.issued))?;
            issued.issued
        }
    };
    output::print(&waiting)?;
    let time = invoice::Period {
        start_us: unbilled_from_us.min(now_us),
        end_us: now_us,
    };
    if arguments.customer.is_none() {
        let unbilled = billing::unbilled(view, lake, &settings.billing, &accounts, time);
        let unbilled = unbilled.await?;
        output::print(&unbilled_text(&unbilled, time))?;
    }
    write_documents(settings, arguments, (None, &invoices), &accounts)?;
    match in_error.is_empty() {
        true => Ok(()),
        false => Err(Error::InError { in_error }),
    }
}

/// Whether a person wants these documents issued; nothing is asked where there are none.
async fn is_confirmed(lake: &Lake, drafts: &[&Invoice]) -> Result<bool> {
    if drafts.is_empty() {
        return Ok(true);
    }
    let before = billing::billed_before(lake, drafts).await?;
    let text = issuing::announcement(drafts, &before)?;
    issuing::confirmed(&text, "Issue them?")
}

/// The accounts of one customer.
///
/// # Errors
/// There is none of that name.
async fn accounts_of(lake: &Lake, customer: &str) -> Result<Accounts> {
    let own = billing::accounts::load_of(lake, customer).await?;
    if !own.customers.is_empty() || !own.subscriptions.is_empty() {
        return Ok(own);
    }
    let all = billing::accounts::load(lake).await?;
    let known: BTreeSet<&String> = all.customers.iter().map(|row| &row.customer).collect();
    let known: Vec<&String> = known.into_iter().collect();
    let meant = nearest(customer, &known);
    let meant = meant.map_or(String::new(), |near| {
        format!("did you mean `{}`? ", printable(near))
    });
    Err(Error::Usage(format!(
        "there is no customer `{}`\n  hint: {meant}`tollgate accounts list customers` has all",
        printable(customer)
    )))
}

/// How far back the job looks for usage that no subscription pays for when it has no document.
const MONTH_US: i64 = 31 * DAY_US;

/// How many drafts are shown with their lines.
const STATEMENTS_MAX: usize = 20;

/// A line for each document of a period that was issued before; how many there are when they are many.
async fn issued_text(lake: &Lake, ids: &BTreeSet<String>) -> Result<String> {
    if ids.len() > STATEMENTS_MAX {
        return Ok(format!(
            "issued       {} documents of this period\n",
            ids.len()
        ));
    }
    let mut text = String::new();
    for known in billing::issued_as(lake, ids).await? {
        let _ = writeln!(
            text,
            "issued       {:<32} {} {:>18} {}",
            printable(&known.customer),
            known.number,
            known.total.amount_text(),
            known.total.currency().code(),
        );
    }
    Ok(text)
}

/// Drafts with their lines and tiers; one line for each when they are many.
async fn drafts_text(view: &View, drafts: &[Invoice]) -> Result<String> {
    if drafts.len() > STATEMENTS_MAX {
        return Ok(listing(drafts));
    }
    let mut text = String::new();
    for draft in drafts {
        let tiers = billing::tiers_of(view.catalog(), &draft.lines).await?;
        text += &statement(draft, &tiers);
    }
    Ok(text)
}

/// How much no subscription pays for, by meter and measure.
fn unbilled_text(unbilled: &[Unbilled], time: invoice::Period) -> String {
    type Sum<'a> = (Option<Exact>, BTreeSet<&'a str>);
    let mut sums: BTreeMap<(&str, &str), Sum<'_>> = BTreeMap::new();
    for row in unbilled {
        let of_measure = sums.entry((&row.meter, &row.measure));
        let (sum, subjects) = of_measure.or_insert_with(|| (Some(Exact::ZERO), BTreeSet::new()));
        let quantity = Exact::parse(&row.quantity).ok();
        *sum = sum
            .zip(quantity)
            .and_then(|(sum, quantity)| sum.checked_add(quantity).ok());
        subjects.insert(&row.subject);
    }
    let mut text = String::new();
    for ((meter, measure), (sum, subjects)) in sums {
        let sum = sum.map_or("more than 38 digits".to_owned(), |sum| {
            sum.without_trailing_zeros().to_string()
        });
        let _ = writeln!(
            text,
            "unbilled     {sum} {measure} of {meter} by {} {} from {} to {}, which no subscription pays for",
            subjects.len(),
            if subjects.len() == 1 {
                "subject"
            } else {
                "subjects"
            },
            instant(time.start_us),
            instant(time.end_us),
        );
    }
    text
}

/// That there is nothing to bill, and of whom there is usage, for a name may be misspelt.
fn nothing_text(arguments: &Arguments, used: &BTreeSet<String>) -> String {
    let period = arguments.period.as_deref().unwrap_or_default();
    match &arguments.customer {
        Some(customer) => {
            let known: Vec<&String> = used.iter().collect();
            let why = match (used.contains(customer), nearest(customer, &known)) {
                (true, _) => "no price has a charge for that customer".to_owned(),
                (false, Some(near)) => {
                    format!("it has no usage; did you mean `{}`?", printable(near))
                }
                (false, None) => "it has no usage".to_owned(),
            };
            format!(
                "nothing to bill for `{}` in {period}: {why}\n",
                printable(customer)
            )
        }
        None => format!("nothing to bill in {period}: no price has a charge\n"),
    }
}

/// A line for each time whose documents wait.
fn waiting_text(documents: &Documents) -> String {
    let mut text = String::new();
    for at_us in &documents.waiting {
        let _ = writeln!(
            text,
            "waiting      what is due at {}: usage before it may still be on its way",
            instant(*at_us)
        );
    }
    text
}

/// What issuing did, for people: how many invoices, and of those issued before which would be others now, by cause.
pub fn summary(issued: &Issued) -> String {
    let mut text = format!("{} invoices issued", issued.issued.len());
    let already = issued.already.len();
    if already > 0 {
        let _ = write!(text, ", {already} were issued before");
    }
    for (causes, customers) in by_causes(&issued.review.changed) {
        let customers = printable(&customers.join(", "));
        let _ = write!(
            text,
            "; {causes} has changed since, and is not invoiced yet, for: {customers}"
        );
    }
    text + "\n"
}

/// Customers by why their invoices would be others now.
fn by_causes(changed: &[Change]) -> BTreeMap<String, Vec<&str>> {
    let mut by_causes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for change in changed {
        let causes = causes_text(&change.causes);
        by_causes.entry(causes).or_default().push(&change.customer);
    }
    by_causes
}

/// One line for each invoice that would be another now, and one for each customer with usage between two billing
/// periods.
fn changes_text(review: &Review) -> String {
    let mut text = String::new();
    for change in &review.changed {
        let _ = writeln!(
            text,
            "changed      {:<32} {} was {}, would be {} now: {} {} on no invoice, because {} has changed",
            printable(&change.customer),
            change.number,
            change.issued,
            change.now,
            change.difference,
            change.currency,
            causes_text(&change.causes),
        );
    }
    for untold in &review.untold {
        let _ = writeln!(
            text,
            "changed?     {:<32} {} was {} {}; what it would be now cannot be told: {}",
            printable(&untold.customer),
            untold.number,
            untold.issued,
            untold.currency,
            printable(&untold.reason),
        );
    }
    let gap = review.gap.iter();
    for (period, invoice) in gap.flat_map(|gap| gap.invoices.iter().map(|i| (&gap.period, i))) {
        let _ = writeln!(
            text,
            "unbilled     {:<32} {} {} from {} to {}, which is in no billing period",
            printable(&invoice.customer),
            invoice.total.amount_text(),
            invoice.total.currency().code(),
            instant(period.start_us),
            instant(period.end_us),
        );
    }
    let gap = review.gap.iter();
    for (period, known) in gap.flat_map(|gap| gap.in_error.iter().map(|k| (&gap.period, k))) {
        let _ = writeln!(
            text,
            "unbilled?    {:<32} from {} to {}, which is in no billing period, it cannot be told: {}",
            printable(&known.customer),
            instant(period.start_us),
            instant(period.end_us),
            printable(&known.reason),
        );
    }
    text
}

fn instant(us: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(us).unwrap_or_default()
}

/// Ends in an error that names the customers who get no invoice, if there are any.
fn check_refused(review: &Review) -> Result<()> {
    if review.refused.is_empty() {
        return Ok(());
    }
    let refused = review.refused.iter();
    let refused = refused
        .map(|refused| format!("\n  `{}`: {}", printable(&refused.customer), refused.reason));
    Err(Error::Billing {
        problem: format!(
            "{} customers get no invoice, the others do:{}",
            review.refused.len(),
            refused.collect::<String>()
        ),
        hint: "bill what is missing by hand, or put back what was changed".into(),
    })
}

/// One line for each invoice, and their sum for each currency.
pub fn listing(invoices: &[Invoice]) -> String {
    let mut text = String::new();
    for invoice in invoices {
        let number = invoice.number.as_deref().unwrap_or("draft");
        let _ = writeln!(
            text,
            "{number:<12} {:<32} {:>4} lines {:>18} {}",
            printable(&invoice.customer),
            invoice.lines.len(),
            invoice.total.amount_text(),
            invoice.total.currency().code(),
        );
    }
    text
}

/// The rows of `invoices` and of `line_items`.
type Tables = (RecordBatch, RecordBatch);

/// Writes documents in all formats that are asked for; the rows are those of `tables`, if there are others than theirs.
fn write_documents(
    settings: &Settings,
    arguments: &Arguments,
    (tables, invoices): (Option<Tables>, &[Invoice]),
    accounts: &Index,
) -> Result<()> {
    let Some(folder) = &arguments.out else {
        return Ok(());
    };
    let tables = match tables {
        Some(tables) => tables,
        None => (invoices_batch(invoices)?, line_items_batch(invoices)?),
    };
    export(folder, &tables, &arguments.format)?;
    match arguments.format.contains(&Export::Html) {
        true => write_pages(folder, invoices, &settings.billing, accounts),
        false => Ok(()),
    }
}

/// Writes `invoices` and `line_items` into a folder.
fn export(folder: &Path, (invoices, line_items): &Tables, formats: &[Export]) -> Result<()> {
    let failed = |doing| {
        move |source| Error::File {
            file: folder.display().to_string(),
            doing,
            source,
        }
    };
    fs::create_dir_all(folder).map_err(failed("creating the folder"))?;
    for (name, rows) in [("invoices", invoices), ("line_items", line_items)] {
        let formats = formats.iter().filter_map(|format| format.of_rows());
        for (extension, format) in formats {
            let (path, bytes) = file(folder, (name, extension), rows, format)?;
            fs::write(&path, bytes).map_err(failed("writing an export"))?;
        }
    }
    Ok(())
}

/// Writes a page for each document, named by its number, a draft's by its customer and the end of its period.
fn write_pages(
    folder: &Path,
    invoices: &[Invoice],
    settings: &BillingSettings,
    accounts: &Index,
) -> Result<()> {
    for invoice in invoices {
        let last_us = invoice.period.last_us();
        let customer = accounts.customer_at(&invoice.customer, last_us);
        let zone = customer.and_then(|customer| customer.time_zone.as_deref());
        let zone = TimeZone::get(zone.unwrap_or(&settings.time_zone));
        let parties = Parties {
            seller: &settings.seller,
            customer,
            zone: zone.unwrap_or(TimeZone::UTC),
        };
        let name = match &invoice.number {
            Some(number) => number.clone(),
            None => format!("draft-{}-{last_us}", invoice.customer),
        };
        // A customer's name may hold what no file name may.
        let name = utf8_percent_encode(&name, FILE_NAME).to_string();
        let path = folder.join(format!("{name}.html"));
        let page = html::page(invoice, &parties);
        fs::write(&path, page).map_err(|source| Error::File {
            file: path.display().to_string(),
            doing: "writing a document",
            source,
        })?;
    }
    Ok(())
}

/// What is not itself in a file's name.
const FILE_NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

impl Export {
    /// The extension and format of files of rows; `None` of pages.
    fn of_rows(self) -> Option<(&'static str, Format)> {
        match self {
            Export::Csv => Some(("csv", Format::Csv)),
            Export::Json => Some(("json", Format::Json)),
            Export::Parquet => Some(("parquet", Format::Parquet)),
            Export::Html => None,
        }
    }
}

fn file(
    folder: &Path,
    (name, extension): (&str, &str),
    rows: &RecordBatch,
    format: Format,
) -> Result<(PathBuf, Vec<u8>)> {
    let bytes = output::encode_rows(&rows.schema(), std::slice::from_ref(rows), format)?;
    Ok((folder.join(format!("{name}.{extension}")), bytes))
}
