//! Threads of their own for what is asked: where queries and metering both want every processor, metering goes first.

use super::{Doors, problem::Problem};
use crate::error::{Error, Result};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode},
    middleware::Next,
    response::IntoResponse,
};
use std::sync::Arc;
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinSet,
};
use tracing::Instrument;

/// Of 99, where 49 is usual. On Linux a nice value of 12: beside a thread that always wants to run, one of these has some 6 % of
/// a processor, by the weights of `sched_prio_to_weight` in the kernel.
const PRIORITY: u8 = 17;

/// The threads; they end with it, and so do queries that run on them.
#[derive(Debug)]
pub(super) struct Aside {
    handle: Handle,
    /// `None` when it is dropped.
    runtime: Option<Runtime>,
}

impl Aside {
    /// As many as there are processors.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(super) fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .thread_name("queries")
            .on_thread_start(go_second)
            .build();
        let runtime = runtime.map_err(|source| Error::System {
            doing: "starting threads for queries",
            source,
        })?;
        Ok(Aside {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Where tasks are put to run on them.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Nobody waits for what runs there: whoever asked is gone.
            runtime.shutdown_background();
        }
    }
}

fn go_second() {
    let value = ThreadPriorityValue::try_from(PRIORITY);
    let set = value.map(|value| set_current_thread_priority(ThreadPriority::Crossplatform(value)));
    // A process that was made to go second itself may be denied it. Then queries take what they can.
    if !matches!(set, Ok(Ok(()))) {
        tracing::debug!(?set, "queries run with the priority of the process");
    }
}

/// Answers a request on those threads. When the caller is gone, the query ends.
pub(super) async fn aside(
    State(doors): State<Arc<Doors>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let mut task = JoinSet::new();
    task.spawn_on(next.run(request).in_current_span(), &doors.aside);
    match task.join_next().await {
        Some(Ok(response)) => response,
        _ => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, "task_ended", "the query ended without an answer").into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_runs_there_goes_second() {
        let aside = Aside::start().unwrap();
        let stat = async { std::fs::read_to_string("/proc/thread-self/stat").unwrap() };
        let stat = aside.handle().spawn(stat).await.unwrap();
        // Of the fields after the name in brackets, the seventeenth is the nice value.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let nice: i32 = fields.split_whitespace().nth(16).unwrap().parse().unwrap();
        assert_eq!(nice, 12);
    }
}
