//! The `halm` binary, built beside the tests: the same library, the same `main`.

fn main() -> std::process::ExitCode {
    halm::cli::main()
}
