//! Arguments → `cli` → exit code, nothing else.

use std::process::ExitCode;

use clap::Parser;
use knockd_rs::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
