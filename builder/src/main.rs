//! Entry point.

fn main() -> std::process::ExitCode {
    builder::main()
}
