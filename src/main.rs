//! `cfdfu`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A panic is a defect of this program; its report should be readable and complete.
    let _ = color_eyre::install();
    cfdfu::cli::main()
}
