//! `tollgate invoice`: drafts invoices for a billing period, or issues them.

use crate::{
    billing::{
        self, Asked, Documents, DocumentsInRanges, DraftsInRanges, Issued, Issuing, PeriodIssuing,
        Review, Reviewing, Unbilled, Which, accounts::ByRange, causes_text,
    },
    cli::{
        exports::Exports,
        html::{self, Parties},
        issuing::{self, Announcement},
        load,
        output::{self, Format},
        statement::statement,
    },
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Error, InError, Result, printable},
    tables,
    view::View,
};
use arrow::array::RecordBatch;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::tz::TimeZone;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    io::{self, IsTerminal},
    path::PathBuf,
    sync::Arc,
};
use tollgate_connectors::{Table, lake::Lake};
use tollgate_sql::{
    accounts::Index,
    invoice::{
        self, Invoice,
        changes::Change,
        tables::{invoices_batch, line_items_batch},
    },
    money::Exact,
    parser::nearest,
    period::Period,
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
    of_period(settings, arguments, (&view, &lake), &period).await
}

/// The invoices of a month where no one has an account, printed, and issued if they are to be.
async fn of_period(
    settings: &Settings,
    arguments: &Arguments,
    (view, lake): (&View, &Lake),
    period: &Period,
) -> Result<()> {
    let customer = arguments.customer.as_deref();
    let begin = || DraftsInRanges::begin(view, &settings.billing, period, customer);
    if arguments.finalize && issuing::asks(arguments.yes) {
        let announcement = announced_of_period(lake, begin().await?, period).await?;
        if !is_confirmed(&announcement)? {
            return Ok(());
        }
    }
    let mut exports = exports(arguments)?;
    let mut listed = Listed::default();
    let (mut in_error, mut review) = (BTreeSet::new(), Review::default());
    let mut job = begin().await?;
    if !arguments.finalize {
        let invoices = lake.existing(tables::INVOICES).await?;
        let invoices = invoices.as_ref().map(|invoices| invoices as &dyn Table);
        let mut reviewing = Reviewing::begin(invoices, period).await?;
        let bar = Bar::new();
        while let Some(drafts) = job.next().await? {
            let (of_range, _) = reviewing.add(view, invoices, &drafts, period).await?;
            review.extend(of_range);
            in_error.extend(drafts.in_error());
            write_documents(settings, &mut exports, &drafts.invoices, &Index::empty())?;
            listed.add(&drafts.invoices);
            bar.show(job.progress());
        }
        drop(bar);
        review.refused.extend(reviewing.billed_elsewhere());
        let text = listed.text + &changes_text(&review);
        match text.is_empty() && in_error.is_empty() {
            true => {
                let used = billing::customers_with_usage(view, &settings.billing, period);
                output::print(&nothing_text(arguments, &used.await?))?;
            }
            false => output::print(&text)?,
        }
        exports.map_or(Ok(()), Exports::finish)?;
        return refused(in_error, &review);
    }
    let mut issuing = PeriodIssuing::begin(view, lake, period, &SystemClock).await?;
    let by = issuing::issuer(arguments.by.as_deref());
    let mut issued = Issued::default();
    let bar = Bar::new();
    while let Some(mut drafts) = job.next().await? {
        in_error.extend(drafts.in_error());
        drafts.issued_by.clone_from(&by);
        let mut of_range = issuing.add(drafts).await?;
        let invoices = std::mem::take(&mut of_range.issued);
        write_pages(settings, &mut exports, &invoices, &Index::empty())?;
        listed.add(&invoices);
        issued.extend(of_range);
        bar.show(job.progress());
    }
    drop(bar);
    let mut last = issuing.commit(lake).await?;
    let invoices = std::mem::take(&mut last.issued);
    write_pages(settings, &mut exports, &invoices, &Index::empty())?;
    listed.add(&invoices);
    issued.extend(last);
    output::print(&summary_of(
        (listed.count, issued.already.len()),
        &issued.review,
    ))?;
    output::print(&listed.text)?;
    output::print(&changes_text(&issued.review))?;
    if let Some(mut exports) = exports {
        // What was issued before too, or a second run would leave empty files behind.
        let add = |invoices: &RecordBatch, lines: &RecordBatch| exports.add(invoices, lines);
        billing::issued_in_parts(lake, period, customer, add).await?;
        exports.finish()?;
    }
    refused(in_error, &issued.review)
}

/// Ends in an error that names the customers who get no invoice, if there are any.
fn refused(in_error: BTreeSet<InError>, review: &Review) -> Result<()> {
    if !in_error.is_empty() {
        return Err(Error::InError { in_error });
    }
    check_refused(review)
}

/// What will be issued of a month where no one has an account.
async fn announced_of_period(
    lake: &Lake,
    mut job: DraftsInRanges,
    period: &Period,
) -> Result<Announcement> {
    let mut announcement = Announcement::default();
    let bar = Bar::new();
    while let Some(drafts) = job.next().await? {
        let left = billing::left_to_issue(lake, &drafts, period).await?;
        let before = billing::billed_before(lake, &left).await?;
        announcement.add(&left, &before)?;
        bar.show(job.progress());
    }
    Ok(announcement)
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
    let mut exports = exports(arguments)?;
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
    write_documents(settings, &mut exports, &[void], &accounts)?;
    exports.map_or(Ok(()), Exports::finish)
}

/// The documents of subscriptions, printed, and issued if they are to be.
async fn of_subscriptions(
    settings: &Settings,
    arguments: &Arguments,
    (view, lake): (&View, &Lake),
) -> Result<()> {
    if let Some(customer) = &arguments.customer {
        check_known(lake, customer).await?;
    }
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
    let now_us = clock.now_us();
    // What is told, issued and left is by the same rows, whatever is imported meanwhile.
    let accounts = Arc::new(ByRange::begin(lake, arguments.customer.as_deref()).await?);
    let begin = || {
        let settings = &settings.billing;
        DocumentsInRanges::begin(view, lake, settings, &accounts, asked, now_us)
    };
    if arguments.finalize && issuing::asks(arguments.yes) {
        let announcement = announced(lake, begin().await?).await?;
        if !is_confirmed(&announcement)? {
            return Ok(());
        }
    }
    let mut exports = exports(arguments)?;
    let mut job = begin().await?;
    let mut issuing = match arguments.finalize {
        true => Some(Issuing::begin(lake, &clock).await?),
        false => None,
    };
    let by = issuing::issuer(arguments.by.as_deref());
    let (mut told, mut listed) = (Told::default(), Listed::default());
    let bar = Bar::new();
    while let Some(mut documents) = job.next().await? {
        told.add(&documents);
        documents.issued_by.clone_from(&by);
        let known = Arc::clone(documents.accounts());
        let invoices = match &mut issuing {
            Some(issuing) => issuing.add(documents).await?,
            None => documents.invoices,
        };
        write_documents(settings, &mut exports, &invoices, &known)?;
        listed.add(&invoices);
        bar.show(job.progress());
    }
    drop((bar, job));
    match issuing {
        None => {
            if arguments.period.is_some() {
                output::print(&issued_text(lake, told.already, &told.issued_before).await?)?;
            }
            output::print(&listed.drafts_text(view).await?)?;
        }
        Some(issuing) => {
            issuing.commit(lake).await?;
            output::print(&summary_of(
                (listed.count, told.already),
                &Review::default(),
            ))?;
            output::print(&listed.text)?;
        }
    }
    output::print(&waiting_text(&told.waiting))?;
    if arguments.customer.is_none() {
        let start_us = told.start_us.unwrap_or(now_us.saturating_sub(MONTH_US));
        let time = invoice::Period {
            start_us: start_us.min(now_us),
            end_us: now_us,
        };
        let unbilled = billing::unbilled(view, lake, &settings.billing, &accounts, time);
        let unbilled = unbilled.await?;
        output::print(&unbilled_text(&unbilled, time))?;
    }
    exports.map_or(Ok(()), Exports::finish)?;
    match told.in_error.is_empty() {
        true => Ok(()),
        false => Err(Error::InError {
            in_error: told.in_error,
        }),
    }
}

/// What will be issued of subscriptions.
async fn announced(lake: &Lake, mut job: DocumentsInRanges) -> Result<Announcement> {
    let mut announcement = Announcement::default();
    let bar = Bar::new();
    while let Some(documents) = job.next().await? {
        let to_issue = documents.to_issue();
        let before = billing::billed_before(lake, &to_issue).await?;
        announcement.add(&to_issue, &before)?;
        bar.show(job.progress());
    }
    Ok(announcement)
}

/// Whether a person wants these documents issued; nothing is asked where there are none.
fn is_confirmed(announcement: &Announcement) -> Result<bool> {
    match announcement.is_empty() {
        true => Ok(true),
        false => issuing::confirmed(&announcement.text(), "Issue them?"),
    }
}

/// What there is to say of documents beside them, when they are gone.
#[derive(Default)]
struct Told {
    in_error: BTreeSet<InError>,
    waiting: BTreeSet<i64>,
    already: usize,
    /// The ids of those that were issued before, as many as are named.
    issued_before: BTreeSet<String>,
    /// The first start of a period.
    start_us: Option<i64>,
}

impl Told {
    fn add(&mut self, documents: &Documents) {
        self.in_error.extend(documents.in_error.iter().cloned());
        self.waiting.extend(&documents.waiting);
        self.already += documents.already.len();
        let room = STATEMENTS_MAX.saturating_sub(self.issued_before.len());
        let ids = documents.issued_before.iter().take(room);
        self.issued_before.extend(ids.cloned());
        let starts = documents.invoices.iter();
        let starts = starts.map(|invoice| invoice.period.start_us);
        self.start_us = self.start_us.into_iter().chain(starts).min();
    }
}

/// Documents as lines, and the first of them whole.
#[derive(Default)]
struct Listed {
    text: String,
    count: usize,
    few: Vec<Invoice>,
}

impl Listed {
    fn add(&mut self, invoices: &[Invoice]) {
        self.text += &listing(invoices);
        self.count += invoices.len();
        match self.count <= STATEMENTS_MAX {
            true => self.few.extend_from_slice(invoices),
            false => self.few.clear(),
        }
    }

    /// Drafts with their lines and tiers; one line for each when they are many.
    async fn drafts_text(self, view: &View) -> Result<String> {
        if self.count > STATEMENTS_MAX {
            return Ok(self.text);
        }
        let mut text = String::new();
        for draft in &self.few {
            let tiers = billing::tiers_of(view.catalog(), &draft.lines).await?;
            text += &statement(draft, &tiers);
        }
        Ok(text)
    }
}

/// How far a job is, on a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = match io::stderr().is_terminal() {
            true => ProgressBar::new(0),
            false => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template("{spinner} customer {pos}/{len} {wide_bar} {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Bar(bar)
    }

    fn show(&self, (done, of): (usize, usize)) {
        self.0.set_length(of as u64);
        self.0.set_position(done as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// That there is a customer of a name.
///
/// # Errors
/// There is none.
async fn check_known(lake: &Lake, customer: &str) -> Result<()> {
    let own = billing::accounts::load_of(lake, customer).await?;
    if !own.customers.is_empty() || !own.subscriptions.is_empty() {
        return Ok(());
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
async fn issued_text(lake: &Lake, count: usize, ids: &BTreeSet<String>) -> Result<String> {
    if count > STATEMENTS_MAX {
        return Ok(format!("issued       {count} documents of this period\n"));
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
fn waiting_text(waiting: &BTreeSet<i64>) -> String {
    let mut text = String::new();
    for at_us in waiting {
        let _ = writeln!(
            text,
            "waiting      what is due at {}: usage before it may still be on its way",
            instant(*at_us)
        );
    }
    text
}

/// What issuing did, for people: how many invoices were issued now, how many before, and which of these would be others now, by cause.
fn summary_of((issued, already): (usize, usize), review: &Review) -> String {
    let mut text = format!("{issued} invoices issued");
    if already > 0 {
        let _ = write!(text, ", {already} were issued before");
    }
    for (causes, customers) in by_causes(&review.changed) {
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

/// The files that are asked for, if any are.
fn exports(arguments: &Arguments) -> Result<Option<Exports>> {
    let formats = arguments.format.iter();
    let formats: Vec<_> = formats.filter_map(|format| format.of_rows()).collect();
    let folder = arguments.out.as_deref();
    let exports = folder.map(|folder| {
        let has_pages = arguments.format.contains(&Export::Html);
        Exports::begin(folder, &formats, has_pages)
    });
    exports.transpose()
}

/// Writes documents in all formats that are asked for.
fn write_documents(
    settings: &Settings,
    exports: &mut Option<Exports>,
    invoices: &[Invoice],
    accounts: &Index,
) -> Result<()> {
    if let Some(exports) = exports {
        exports.add(&invoices_batch(invoices)?, &line_items_batch(invoices)?)?;
    }
    write_pages(settings, exports, invoices, accounts)
}

/// Writes a page for each document, if pages are asked for, named by its number, a draft's by its customer and the end of its period.
fn write_pages(
    settings: &Settings,
    exports: &mut Option<Exports>,
    invoices: &[Invoice],
    accounts: &Index,
) -> Result<()> {
    let Some(exports) = exports.as_mut().filter(|exports| exports.has_pages()) else {
        return Ok(());
    };
    let settings = &settings.billing;
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
        exports.add_page(&format!("{name}.html"), &html::page(invoice, &parties))?;
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
