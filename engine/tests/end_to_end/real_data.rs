//! The real inputs, read here, by means of nothing of ours.

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
};

pub(crate) const AZURE: &str = "azure_llm_events.ndjson.gz";
pub(crate) const MOONCAKE: &str = "mooncake_events.ndjson.gz";

/// The folder that `TOLLGATE_DATA` names, from where the tests were started.
pub(crate) fn folder() -> Option<PathBuf> {
    let Some(named) = env::var_os("TOLLGATE_DATA").filter(|folder| !folder.is_empty()) else {
        println!("skipped: TOLLGATE_DATA is not set");
        return None;
    };
    let folder = PathBuf::from(&named);
    // Cargo runs tests in their package's folder; people mean the workspace's.
    let from_package = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(&named);
    let found = [folder, from_package]
        .into_iter()
        .find(|folder| folder.is_dir());
    Some(found.unwrap_or_else(|| panic!("TOLLGATE_DATA is no folder: {named:?}")))
}

/// What of an event is needed here.
#[derive(Deserialize)]
struct Event {
    subject: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    model: String,
    input_tokens: i128,
    #[serde(default)]
    cached_tokens: i128,
    output_tokens: i128,
}

/// Tokens of one subject and model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input: i128,
    pub(crate) cached: i128,
    pub(crate) output: i128,
    pub(crate) calls: i128,
}

/// By subject and model.
pub(crate) type ByModel = BTreeMap<(String, String), Usage>;

/// Adds up files, integers only. No id in them is there twice, so nothing is dropped here.
pub(crate) fn add_up(files: &[&str]) -> ByModel {
    let folder = folder().unwrap();
    let mut sums = ByModel::new();
    for file in files {
        let lines = BufReader::new(MultiGzDecoder::new(File::open(folder.join(file)).unwrap()));
        for line in lines.lines() {
            let event: Event = serde_json::from_str(&line.unwrap()).unwrap();
            let usage = sums.entry((event.subject, event.data.model)).or_default();
            usage.input += event.data.input_tokens;
            usage.cached += event.data.cached_tokens;
            usage.output += event.data.output_tokens;
            usage.calls += 1;
        }
    }
    sums
}

/// Rows of subject, model, input, cached, output and calls, as SQL prints them.
pub(crate) fn as_rows(sums: &ByModel) -> Vec<Vec<String>> {
    let row = |((subject, model), usage): (&(String, String), &Usage)| {
        let Usage {
            input,
            cached,
            output,
            calls,
        } = usage;
        let numbers = [input, cached, output, calls].map(i128::to_string);
        [subject.clone(), model.clone()]
            .into_iter()
            .chain(numbers)
            .collect()
    };
    sums.iter().map(row).collect()
}
