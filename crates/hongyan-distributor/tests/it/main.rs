//! The program as a person starts it. What it does on a bus is shown by `distributor.py` beside the gateway's public clients.

use std::io;
use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path, bus: &str) -> io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_hongyan-distributor"))
        .args(["--server", "http://127.0.0.1:9", "--state"])
        .arg(folder.join("state"))
        .env("HONGYAN_CLIENT_KEY", "hy_pk_hidden")
        .env("DBUS_SESSION_BUS_ADDRESS", bus)
        .output()
}

#[test]
fn up_14_without_a_session_bus_it_says_so_and_shows_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = format!("unix:path={}", folder.path().join("nowhere").display());
    let ended = run(folder.path(), &nowhere).unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success());
    assert!(said.contains("session bus"), "{said}");
    assert!(!said.contains("hidden"), "{said}");
}

#[test]
fn up_14_help_names_the_settings_and_hides_the_key() {
    let ended = Command::new(env!("CARGO_BIN_EXE_hongyan-distributor"))
        .arg("--help")
        .env("HONGYAN_CLIENT_KEY", "hy_pk_hidden")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(
        said.contains("HONGYAN_SERVER") && said.contains("--state"),
        "{said}"
    );
    assert!(!said.contains("hidden"), "{said}");
}
