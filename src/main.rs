//! Arguments → `cli` → exit code, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    knockd_rs::cli::main()
}
