//! Every crash point, every order, and chance: see the crate's own page.

fn main() -> std::process::ExitCode {
    if backstay_crashes::campaign::main() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
