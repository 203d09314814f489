//! The `halm` binary, built beside the tests: the same library, the same `main`. A worker process may be told by its
//! environment to break, which [`halm_tests::rogue`] does.

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some("worker")
        && let Some(fault) = halm_tests::rogue::planted()
    {
        halm_tests::rogue::turn(fault);
    }
    halm::cli::main()
}
