//! Cases of other billing systems, run through the whole path: definitions from SQL text, events from
//! CloudEvents through a shard in memory to panes, totals, and prices.
//!
//! Each case is a line of `aggregation.jsonl` or `pricing.jsonl`, each whole story one of `billing.jsonl`. `TOLLGATE_VECTORS` names another
//! folder than [`CASES`]. A case that has no translation fails as `not built yet`: nothing is skipped.
//! The last line is `N passed, N failed`, and the exit code is 1 when any failed.

#![expect(
    clippy::print_stdout,
    reason = "what a test program prints is its result"
)]

mod aggregation;
mod case;
mod credits;
mod invoicing;
mod price;
mod pricing;
mod run;
mod stories;

use case::{Case, Failure, check};
use std::{env, fs, path::Path, process::ExitCode};

/// The cases that run when no other folder is named.
const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/cases");

/// The file of whole stories.
const STORIES: &str = "billing.jsonl";

fn main() -> ExitCode {
    if is_left_out() {
        return ExitCode::SUCCESS;
    }
    let folder = env::var("TOLLGATE_VECTORS").unwrap_or_else(|_| CASES.to_owned());
    match run_folder(Path::new(&folder)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(problem) => {
            println!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the arguments that every test program gets ask for a list, or for other tests.
fn is_left_out() -> bool {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let mut names = arguments.iter().filter(|text| !text.starts_with('-'));
    let others = names.clone().count() > 0 && !names.any(|name| "vectors".contains(name.as_str()));
    others || arguments.iter().any(|text| text == "--list")
}

/// Runs both files, or the one that the folder has; returns how many cases failed.
fn run_folder(folder: &Path) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let (mut passed, mut failed) = (0, 0);
    let names = ["aggregation.jsonl", "pricing.jsonl", STORIES];
    let paths = names.map(|name| (name, folder.join(name)));
    if !paths.iter().any(|(_, path)| path.exists()) {
        let folder = folder.display();
        return Err(format!(
            "{folder} has none of aggregation.jsonl, pricing.jsonl and {STORIES}"
        ));
    }
    for (name, path) in paths.iter().filter(|(_, path)| path.exists()) {
        let text = fs::read_to_string(path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let told = match *name {
                STORIES => runtime.block_on(stories::run_story(line)),
                _ => runtime.block_on(run_line(name, line)),
            };
            match told {
                Ok(()) => passed += 1,
                Err(problem) => {
                    println!("{problem}");
                    failed += 1;
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed)
}

/// Runs one case; a failure says everything there is to say about it.
async fn run_line(file: &str, line: &str) -> Result<(), String> {
    let case: Case = serde_json::from_str(line).map_err(|error| format!("{file}: {error}"))?;
    let answer = match file {
        "aggregation.jsonl" => aggregation::answer(&case).await,
        _ => pricing::answer(&case).await,
    };
    let expected = &case.expected;
    match answer {
        Ok(got) if check(expected, &got) => Ok(()),
        Ok(got) => Err(format!("{}: expected {expected}, got {got}", case.id)),
        Err(Failure::NotBuilt(why)) => {
            let why = if why.is_empty() {
                why
            } else {
                format!(" ({why})")
            };
            let (id, model) = (&case.id, &case.model);
            Err(format!(
                "{id}: expected {expected}, not built yet: {model}{why}"
            ))
        }
        Err(Failure::Error(error)) => Err(format!(
            "{}: expected {expected}, got error: {error}",
            case.id
        )),
    }
}
