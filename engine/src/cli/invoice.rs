//! `tollgate invoice`: drafts invoices for a billing period, or issues them.

use crate::{
    billing::{self, Drafts, Issued},
    cli::{
        load,
        output::{self, Format},
    },
    clock::SystemClock,
    config::Settings,
    error::{Error, Result},
    period::Period,
    view::View,
};
use arrow::array::RecordBatch;
use clap::{Args, ValueEnum};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::invoice::{
    Invoice,
    tables::{invoices_batch, line_items_batch},
};

/// Flags of `tollgate invoice`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The billing period: a month such as 2026-10, in the time zone of `billing.time_zone`.
    #[arg(long, value_name = "YYYY-MM")]
    pub period: String,
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
}

/// Prints, and with `--out` writes, the invoices of a period.
///
/// # Errors
/// See [`billing::draft`] and [`billing::issue`]; and [`Error::InError`], when all is done, if customers got no invoice.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let period = Period::month(&arguments.period, &settings.billing.time_zone)?;
    let catalog = load(settings).await?;
    let lake = match arguments.finalize {
        true => Lake::open(&settings.lake.url, &settings.base).await?,
        false => Lake::open_to_read(&settings.lake.url, &settings.base).await?,
    };
    let view = View::open(catalog, &lake).await?;
    let Drafts {
        invoices: mut drafts,
        mut in_error,
    } = billing::draft(&view, &settings.billing, &period).await?;
    if let Some(customer) = &arguments.customer {
        drafts.retain(|draft| draft.customer == *customer);
        in_error.retain(|known| known.customer == *customer);
    }
    let tables = match arguments.finalize {
        false => {
            output::print(&listing(&drafts))?;
            (invoices_batch(&drafts)?, line_items_batch(&drafts)?)
        }
        true => {
            let issued = billing::issue(&view, &lake, drafts, &period, &SystemClock).await?;
            output::print(&summary(&issued))?;
            output::print(&listing(&issued.issued))?;
            // What was issued before too, or a second run would leave empty files behind.
            billing::issued(&lake, &period, arguments.customer.as_deref()).await?
        }
    };
    if let Some(folder) = &arguments.out {
        export(folder, &tables, &arguments.format)?;
    }
    match in_error.is_empty() {
        true => Ok(()),
        false => Err(Error::InError { in_error }),
    }
}

/// What issuing did, for people.
pub fn summary(issued: &Issued) -> String {
    let mut text = format!("{} invoices issued", issued.issued.len());
    let (already, changed) = (issued.already.len(), &issued.changed);
    if already > 0 {
        let _ = write!(text, ", {already} were issued before");
    }
    if !changed.is_empty() {
        let customers = changed.join(", ");
        let _ = write!(
            text,
            "; usage has changed since, and is not invoiced yet, for: {customers}"
        );
    }
    text + "\n"
}

/// One line for each invoice, and their sum for each currency.
pub fn listing(invoices: &[Invoice]) -> String {
    let mut text = String::new();
    for invoice in invoices {
        let number = invoice.number.as_deref().unwrap_or("draft");
        let _ = writeln!(
            text,
            "{number:<12} {:<32} {:>4} lines {:>18} {}",
            invoice.customer,
            invoice.lines.len(),
            invoice.total.amount_text(),
            invoice.total.currency().code(),
        );
    }
    text
}

/// Writes `invoices` and `line_items` into a folder.
fn export(
    folder: &Path,
    (invoices, line_items): &(RecordBatch, RecordBatch),
    formats: &[Export],
) -> Result<()> {
    let failed = |doing| {
        move |source| Error::File {
            file: folder.display().to_string(),
            doing,
            source,
        }
    };
    fs::create_dir_all(folder).map_err(failed("creating the folder"))?;
    for (name, rows) in [("invoices", invoices), ("line_items", line_items)] {
        for format in formats {
            let (path, bytes) = file(folder, name, rows, *format)?;
            fs::write(&path, bytes).map_err(failed("writing an export"))?;
        }
    }
    Ok(())
}

fn file(
    folder: &Path,
    name: &str,
    rows: &RecordBatch,
    format: Export,
) -> Result<(PathBuf, Vec<u8>)> {
    let (extension, format) = match format {
        Export::Csv => ("csv", Format::Csv),
        Export::Json => ("json", Format::Json),
        Export::Parquet => ("parquet", Format::Parquet),
    };
    let bytes = output::encode_rows(&rows.schema(), std::slice::from_ref(rows), format)?;
    Ok((folder.join(format!("{name}.{extension}")), bytes))
}
