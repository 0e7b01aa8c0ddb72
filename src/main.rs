//! `cfdfu`: everything is in the library, where the tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    cfdfu::main()
}
