//! With the feature `firmware`: the card's firmware, compiled for the host.

fn main() {
    #[cfg(feature = "firmware")]
    firmware();
    println!("cargo::rerun-if-changed=build.rs");
}

#[cfg(feature = "firmware")]
fn firmware() {
    use std::fs;
    use std::path::Path;

    println!("cargo::rerun-if-changed=firmware");
    let root = Path::new("firmware");
    let mut build = cc::Build::new();
    build
        .std("c89")
        .warnings(true)
        .extra_warnings(true)
        .opt_level(2)
        .includes(["include", "core", "hal", "me", "p4", "test"].map(|folder| root.join(folder)));
    let mut files = Vec::new();
    for folder in ["core", "hal", "me", "p4", "test"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
            continue;
        };
        files.extend(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())));
    }
    // The card's own half of the hardware layer, and the tests' programs, are not for here.
    files.retain(|file| {
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let program = name == "runner.c" || name == "cost.c";
        name.ends_with(".c") && !program && !name.contains("nfp")
    });
    files.sort();
    build.files(files).compile("flextcp_firmware");
}
