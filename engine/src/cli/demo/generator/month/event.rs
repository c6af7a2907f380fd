//! One event of the month, and how it is written.

use super::{
    super::{
        customers::{CUSTOMERS, Customer},
        random::Random,
        text::{Times, put_hex, put_number, put_six},
    },
    expected::{MODELS, Tokens, Usage},
};

const REGIONS: [&str; 3] = ["us-west-2", "eu-central-1", "ap-southeast-1"];
const TASKS: [&str; 5] = [
    "refund",
    "order-status",
    "appointment",
    "address-change",
    "contract-review",
];
const OUTCOMES: [&str; 3] = ["resolved", "escalated", "failed"];
const GPUS: [&str; 3] = ["h100", "a100", "l4"];

/// An event that is sound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) id: u128,
    pub(super) customer: usize,
    pub(super) time_us: i64,
    pub(super) content: Content,
}

/// What was used.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    Completion {
        /// Its place in [`MODELS`].
        model: usize,
        region: &'static str,
        input: u64,
        cached: u64,
        output: u64,
    },
    Task {
        task: &'static str,
        outcome: &'static str,
    },
    Gpu {
        gpu: &'static str,
        us: u64,
    },
}

impl Content {
    /// What a customer may use next.
    pub(super) fn of(customer: &Customer, random: &mut Random) -> Self {
        match random.below(100) {
            n if n < customer.tasks => Content::task(random),
            n if n < customer.tasks + customer.gpu => Content::gpu(random),
            _ => Content::completion(random),
        }
    }

    fn completion(random: &mut Random) -> Self {
        let input = random.skewed(7, 14);
        // Two prompts of five begin with something that was read before.
        let cached = if random.below(5) < 2 {
            random.below(input)
        } else {
            0
        };
        Content::Completion {
            model: place(random, MODELS.len()),
            region: one_of(random, &REGIONS),
            input,
            cached,
            output: random.skewed(5, 11),
        }
    }

    fn task(random: &mut Random) -> Self {
        let outcome = match random.below(100) {
            0..72 => OUTCOMES[0],
            72..91 => OUTCOMES[1],
            _ => OUTCOMES[2],
        };
        Content::Task {
            task: one_of(random, &TASKS),
            outcome,
        }
    }

    /// From a second to about 17 minutes.
    fn gpu(random: &mut Random) -> Self {
        Content::Gpu {
            gpu: one_of(random, &GPUS),
            us: 1_000_000 + random.skewed(20, 30),
        }
    }

    pub(super) fn usage(&self) -> Usage {
        match *self {
            Content::Completion {
                model,
                input,
                cached,
                output,
                ..
            } => {
                let mut usage = Usage::default();
                usage.tokens[model] = Tokens {
                    calls: 1,
                    input,
                    cached,
                    output,
                };
                usage
            }
            Content::Task { outcome, .. } => Usage {
                attempts: 1,
                resolved: u64::from(outcome == OUTCOMES[0]),
                ..Usage::default()
            },
            Content::Gpu { us, .. } => Usage {
                gpu_us: us,
                ..Usage::default()
            },
        }
    }

    /// The same with something else in it.
    pub(super) fn altered(self) -> Self {
        match self {
            Content::Completion {
                model,
                region,
                input,
                cached,
                output,
            } => Content::Completion {
                model,
                region,
                input,
                cached,
                output: output + 1,
            },
            Content::Task { task, outcome } => {
                let other = if outcome == OUTCOMES[0] {
                    OUTCOMES[1]
                } else {
                    OUTCOMES[0]
                };
                Content::Task {
                    task,
                    outcome: other,
                }
            }
            Content::Gpu { gpu, us } => Content::Gpu { gpu, us: us + 1 },
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Content::Completion { .. } => "llm.completion",
            Content::Task { .. } => "agent.task",
            Content::Gpu { .. } => "gpu.usage",
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Content::Completion {
                model,
                region,
                input,
                cached,
                output,
            } => {
                put_text(out, r#"{"model":""#, MODELS[model]);
                put_text(out, r#"","region":""#, region);
                put_text(out, r#"","input_tokens":"#, "");
                put_number(out, input);
                put_text(out, r#","cached_tokens":"#, "");
                put_number(out, cached);
                put_text(out, r#","output_tokens":"#, "");
                put_number(out, output);
            }
            Content::Task { task, outcome } => {
                put_text(out, r#"{"task":""#, task);
                put_text(out, r#"","outcome":""#, outcome);
                out.push(b'"');
            }
            Content::Gpu { gpu, us } => {
                put_text(out, r#"{"gpu":""#, gpu);
                put_text(out, r#"","gpu_seconds":"#, "");
                put_number(out, us / 1_000_000);
                out.push(b'.');
                put_six(out, us % 1_000_000);
            }
        }
        out.push(b'}');
    }
}

impl Event {
    pub(super) fn write(&self, times: &mut Times, out: &mut Vec<u8>) {
        put_text(out, r#"{"specversion":"1.0","id":""#, "");
        put_hex(out, self.id);
        put_text(
            out,
            r#"","source":"demo","type":""#,
            self.content.type_name(),
        );
        put_text(out, r#"","subject":""#, CUSTOMERS[self.customer].name);
        put_text(out, r#"","time":""#, "");
        times.put(out, self.time_us);
        put_text(out, r#"","data":"#, "");
        self.content.write(out);
        out.push(b'}');
    }
}

fn put_text(out: &mut Vec<u8>, before: &str, text: &str) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// One of some names; the first is the likeliest.
fn one_of(random: &mut Random, names: &[&'static str]) -> &'static str {
    names[place(random, names.len())]
}

/// A place in a list of some length. The first is the likeliest: half of all, then half of the rest, and so on.
fn place(random: &mut Random, len: usize) -> usize {
    let place = usize::try_from(random.next_u64().trailing_zeros()).expect("it is at most 64");
    place % len
}
