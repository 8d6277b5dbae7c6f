//! The `flextcp` program.
#![cfg(all(target_os = "linux", not(feature = "kernel")))]

use std::process::{Command, Output};

fn flextcp(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flextcp"))
        .args(args)
        .env_remove("FLEXTCP_CONTROL")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_doctor_says_whether_the_nic_can_serve() {
    let output = flextcp(&["doctor"]);
    let said = text(&output.stdout);
    assert!(said.lines().count() > 1, "{said}");
    let last = said.lines().last().unwrap();
    if output.status.success() {
        assert_eq!(last, "The NIC can serve here.");
    } else {
        assert!(
            said.contains("problem: ") && last.contains("cannot"),
            "{said}"
        );
    }
}

#[test]
fn settings_are_listed_and_mistakes_explained() {
    let output = flextcp(&["settings"]);
    assert!(text(&output.stdout).contains("| `FLEXTCP_FALLBACK` | `fallback` |"));
    for (args, reason) in [
        (&["frobnicate"][..], "flextcp help"),
        (&["ss"], "FLEXTCP_CONTROL"),
        (&["ss", "/nonexistent/socket"], "is a program running"),
        (&["ss", "a", "b"], "one control socket"),
    ] {
        let output = flextcp(args);
        assert!(!output.status.success(), "{args:?}");
        let said = text(&output.stderr);
        assert!(said.contains(reason), "{args:?}: {said}");
    }
}

/// The control socket of this very process, of which the environment cannot be set by a test: `FLEXTCP_CONTROL` through
/// the configuration.
#[tokio::test]
async fn a_process_is_watched_from_outside() {
    use flextcp_net::{TcpListener, TcpStream, TcpStreamExt as _, observe};
    use flextcp_rt::Host;
    use flextcp_rt::config::{Config, NicChoice};

    let directory = std::env::temp_dir().join(format!("flextcp-tool-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("control");
    // No interface: the hairpin alone, which needs no privilege.
    let config = Config::builder()
        .nic(NicChoice::Auto)
        .interfaces(flextcp_rt::config::Interfaces::List(Vec::new()))
        .control(Some(path.clone()))
        .build()
        .unwrap();
    Host::configure(config).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (client, _server) = (client.unwrap(), server.unwrap());
    assert!(client.is_accelerated());

    let peer = client.local_addr().unwrap().to_string();
    let socket = path.to_str().unwrap().to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        ["ss", "stats", "metrics"].map(|what| flextcp(&[what, &socket]))
    });
    let [ss, stats, metrics] = asked.await.unwrap();
    for (output, expected) in [
        (&ss, peer.as_str()),
        (&ss, "ESTABLISHED"),
        (&ss, "LISTEN"),
        (&stats, "\"accepted\": 1"),
        (&metrics, "flextcp_connections_accepted_total 1"),
    ] {
        let said = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(said.contains(expected), "{expected:?} not in {said}");
    }
    assert!(observe::connections().contains(&peer));
    assert!(observe::prometheus().contains("flextcp_connections_connected_total 1"));
    assert!(observe::stats_json().contains("\"fast_path\""));
    std::fs::remove_dir_all(directory).unwrap();
}
