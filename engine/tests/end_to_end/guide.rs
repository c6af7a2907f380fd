//! The guides in `docs/`: their code blocks, which the tests run.

/// The code blocks of a language, in their order.
pub(crate) fn blocks(guide: &'static str, language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let after = guide.split(fence.as_str()).skip(1);
    after
        .map(|text| text.split("```").next().unwrap())
        .collect()
}

/// The rows of a CSV block, without its header.
pub(crate) fn rows(csv: &str) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let records = reader.records().map(Result::unwrap);
    records
        .map(|row| row.iter().map(str::to_owned).collect())
        .collect()
}
