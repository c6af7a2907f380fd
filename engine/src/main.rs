//! The `tollgate` binary: flags to settings to components, then run.

use clap::Parser;
use std::process::ExitCode;
use tollgate::cli::{self, Cli};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // With the limit that shells set, some thousand connections would leave the lake none; what the system refuses stays as it is.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    match cli::runtime().and_then(|runtime| runtime.block_on(cli::run(cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::print_error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
