//! A job in a process of its own, which may die at one of its durable steps: this test program, run for one test that does nothing
//! unless it is asked to.

use crate::books::Books;
use serde::{Deserialize, Serialize};
use std::{env, path::PathBuf, process::Command};

/// What a process is asked for, as JSON, and the folder of the books.
const JOB: &str = "TOLLGATE_COMPANY_JOB";
const FOLDER: &str = "TOLLGATE_COMPANY_FOLDER";

/// What is done with the lake of some books.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Job {
    /// Issues all that is due, in ranges of customers that take so many bytes.
    Issue {
        at_us: i64,
        corrects: bool,
        bytes_max: usize,
    },
    /// Takes a document back.
    Void {
        customer: String,
        number: String,
        at_us: i64,
    },
}

impl Job {
    pub(super) async fn run(&self, books: &Books) {
        match self {
            Job::Issue {
                at_us,
                corrects,
                bytes_max,
            } => drop(books.issue(*at_us, *corrects, *bytes_max).await),
            Job::Void {
                customer,
                number,
                at_us,
            } => assert!(books.void(customer, number, *at_us).await, "{number}"),
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It died at the step.
    Died,
    /// It was done before it came to the step.
    Succeeded,
}

/// Runs a job in a process that dies at its n-th durable step.
pub(super) fn attempt(books: &Books, job: &Job, step: u64) -> Attempt {
    let name = concat!(
        module_path!(),
        "::a_process_of_its_own_does_what_it_is_asked_for"
    );
    let (_, name) = name.split_once("::").unwrap();
    let ran = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(JOB, serde_json::to_string(job).unwrap())
        .env(FOLDER, books.path(""))
        .env("TOLLGATE_FAILPOINT", format!("any:{step}"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    match ran.status.code() {
        None => Attempt::Died,
        Some(0) if said.contains("1 passed") => Attempt::Succeeded,
        Some(_) => panic!("{job:?}: {said}{}", String::from_utf8_lossy(&ran.stderr)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_its_own_does_what_it_is_asked_for() {
    let (Ok(job), Some(folder)) = (env::var(JOB), env::var_os(FOLDER)) else {
        return;
    };
    let job: Job = serde_json::from_str(&job).unwrap();
    job.run(&Books::at(PathBuf::from(folder))).await;
}
