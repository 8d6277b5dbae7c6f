//! tokio's own TCP tests on the software NIC, and without privileges, as part of `cargo test`. On the emulated card `.ci/run` runs
//! them by the binary `tokio_suite`.

use std::process::Command;
use std::time::Duration;

use integration::process;

#[test]
fn tokios_own_tests_pass_and_are_offloaded() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokio_suite"));
    command.args(["--way", "soft", "--way", "unprivileged"]);
    if std::env::var_os("FLEXTCP_TEST_KERNEL").is_some() {
        command.arg("--kernel");
    }
    let run = process::run(command, Duration::from_secs(1200)).unwrap();
    assert!(
        run.status.success(),
        "{}\n{}{}",
        run.status,
        run.stdout,
        run.stderr
    );
    println!("{}", run.stdout);
}
