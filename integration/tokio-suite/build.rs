//! Takes tokio's test files, and the examples in its documentation, from the locked tokio package and points them at
//! `flextcp_net`.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "build/examples.rs"]
mod examples;

/// Every file of tokio's test directory that uses the TCP types. Whole files are run where only some functions do.
const FILES: &[&str] = &[
    "async_send_sync",
    "buffered",
    "io_copy_bidirectional",
    "io_driver",
    "io_driver_drop",
    "net_bind_resource",
    "net_lookup_host",
    "net_panic",
    "net_quickack",
    "no_rt",
    "rt_busy_tick",
    "rt_common",
    "rt_handle_block_on",
    "rt_shutdown_err",
    "rt_threaded",
    "tcp_accept",
    "tcp_accept_ready",
    "tcp_connect",
    "tcp_echo",
    "tcp_into_split",
    "tcp_into_std",
    "tcp_peek",
    "tcp_shutdown",
    "tcp_socket",
    "tcp_split",
    "tcp_stream",
    "unwindsafe",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rustc-check-cfg=cfg(tokio_unstable)");
    println!("cargo::rerun-if-changed=../../Cargo.lock");

    let tokio = tokio_manifest_dir()?;
    let tests = tokio.join("tests");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    // net_panic takes `tests/support/panic.rs` by a relative path.
    fs::create_dir_all(out.join("support"))?;
    copy(&tests, &out, "support/panic.rs")?;
    for file in FILES {
        copy(&tests, &out, &format!("{file}.rs"))?;
    }
    fs::write(out.join("doc_examples.rs"), examples::generate(&tokio)?)?;
    Ok(())
}

fn copy(tests: &Path, out: &Path, name: &str) -> Result<(), Box<dyn Error>> {
    let from = tests.join(name);
    let source = fs::read_to_string(&from)
        .map_err(|error| format!("tokio's test file {}: {error}", from.display()))?;
    fs::write(out.join(name), point_at_flextcp(&source, out))?;
    Ok(())
}

fn point_at_flextcp(source: &str, out: &Path) -> String {
    strip_inner_attributes(source)
        .replace(
            "use tokio::{net, time};",
            "use flextcp_net as net;\nuse tokio::time;",
        )
        .replace("use tokio::net;", "use flextcp_net as net;")
        .replace("tokio::net::", "flextcp_net::")
        .replace(
            "mod support {\n    pub mod panic;\n}",
            &format!(
                "mod support {{\n    #[path = {:?}]\n    pub mod panic;\n}}",
                out.join("support/panic.rs")
            ),
        )
}

/// An included file may not have inner attributes or inner documentation. Those of tokio's tests select platforms and lints; the including
/// target states what it needs itself.
fn strip_inner_attributes(source: &str) -> String {
    let mut kept = String::with_capacity(source.len());
    let mut depth = 0i32;
    for line in source.lines() {
        let opens = depth == 0 && line.starts_with("#![");
        if line.starts_with("//!") {
            kept.push('\n');
        } else if opens || depth > 0 {
            let code = line.split("//").next().unwrap_or(line);
            for c in code.chars() {
                match c {
                    '[' | '(' => depth += 1,
                    ']' | ')' => depth -= 1,
                    _ => {}
                }
            }
            // Keep the line numbers of tokio's file in messages.
            kept.push('\n');
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Asks cargo where the locked tokio package lies: the registry's cache, or a vendored copy.
fn tokio_manifest_dir() -> Result<PathBuf, Box<dyn Error>> {
    let cargo = env::var_os("CARGO").ok_or("CARGO is not set")?;
    let target = env::var("TARGET")?;
    let manifest = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", &target, "--manifest-path"])
        .arg(manifest)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "tokio")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("cargo metadata names no tokio package")?;
    let dir = Path::new(manifest)
        .parent()
        .ok_or("tokio's manifest has no directory")?;
    Ok(dir.to_owned())
}
