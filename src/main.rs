//! The program. Everything it does stands in the library, where tests reach it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    glint::cli::main()
}
