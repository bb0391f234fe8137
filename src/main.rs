//! The binary: hands the arguments to the library and its exit code to the system.

use std::process::ExitCode;

fn main() -> ExitCode {
    ebbtide::cli::main(std::env::args_os())
}
