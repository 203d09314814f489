//! The `halm` binary.

fn main() -> std::process::ExitCode {
    halm::cli::main()
}
