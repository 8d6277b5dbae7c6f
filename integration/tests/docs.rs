//! What the documents say of the code is so.

use std::fs;
use std::path::Path;
use std::time::Duration;

use integration::netns::{Namespace, require_privileges};
use integration::process::Process;
use integration::programs::{require_tools, workspace_binary};
use integration::stats::Stats;

fn document(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_migration_guide_lists_the_settings_that_there_are() {
    let guide = document("docs/migration.md");
    let (_, table) = guide.split_once("<!-- flextcp settings -->\n").unwrap();
    let documented: Vec<&str> = table.lines().skip(2).collect();
    let settings: Vec<String> = flextcp_rt::config::settings()
        .map(|setting| setting.to_string())
        .collect();
    assert_eq!(documented, settings, "paste what `flextcp settings` prints");
}

#[test]
fn the_readme_names_settings_and_features_that_there_are() {
    let readme = document("README.md");
    let known: Vec<String> = flextcp_rt::config::settings()
        .map(|setting| setting.variable)
        .chain(["FLEXTCP_REQUIRE_PRIVILEGED".to_owned()])
        .collect();
    let words = readme.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    for word in words.filter(|word| word.starts_with("FLEXTCP_") && word.len() > 8) {
        assert!(
            known.iter().any(|name| name == word),
            "{word} is no setting"
        );
    }
    let manifest = document("flextcp-net/Cargo.toml");
    for feature in [
        "axum",
        "tonic",
        "hyper-util",
        "tokio-util",
        "tokio-stream",
        "kernel",
    ] {
        assert!(manifest.contains(&format!("\n{feature} = [")), "{feature}");
        assert!(readme.contains(&format!("`{feature}`")), "{feature}");
    }
}

/// The files that a document links to.
#[test]
fn links_between_documents_lead_somewhere() {
    for path in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/migration.md",
        "docs/netronome.md",
        "docs/af-xdp.md",
    ] {
        let text = document(path);
        let directory = Path::new(path).parent().unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let file = root.join(directory).join(target);
            assert!(file.exists(), "{path} links to {target}");
        }
    }
}

/// Without an argument or a variable, as a newcomer types it.
#[test]
fn the_first_command_of_the_readme_serves_over_the_nic() {
    let test = "the_first_command_of_the_readme_serves_over_the_nic";
    let readme = document("README.md");
    let command = "cargo run --release --bin http      # serves http://127.0.0.1:8080/";
    assert!(
        readme.contains(command),
        "the command changed: change it here"
    );
    if !require_privileges(test) || !require_tools(test, &["curl"]) {
        return;
    }
    let namespace = Namespace::new("readme").unwrap();
    let program = workspace_binary("http").unwrap();
    let mut http = Process::spawn(namespace.command(program)).unwrap();
    let line = http.wait_line(Duration::from_secs(20), "the server to listen", |line| {
        line.contains("listening on").then(|| line.to_owned())
    });
    let line = line.unwrap();
    assert!(line.contains(" http://127.0.0.1:8080 "), "{line}");
    let get = |path: &str| {
        let url = format!("http://127.0.0.1:8080{path}");
        namespace
            .run("curl", ["-sSf", "--max-time", "20", &url])
            .unwrap()
    };
    if std::env::var_os("FLEXTCP_TEST_KERNEL").is_none() {
        // Nearly always on the NIC already; on a busy machine the slow path may have had the first request.
        assert!(get("/").contains("<span class=yes>"));
        Stats::parse(&get("/stats")).unwrap().assert_offloaded();
        assert!(get("/connections").contains("ESTABLISHED"));
    }
}
