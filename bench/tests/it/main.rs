//! Runs the subjects for a moment each: they must work and say what they found. How fast it was is not looked at.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use serde_json::Value;

fn bench(arguments: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hongyan-bench"))
        .args(arguments)
        .args(["--seconds", "1", "--json"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every figure of a row is a positive number; how many rows there are.
fn check(report: &Value) -> usize {
    let rows = report["rows"].as_array().unwrap();
    for row in rows {
        for (unit, figure) in row["figures"].as_object().unwrap() {
            assert!(figure.as_f64().unwrap() >= 0.0, "{row}: {unit}");
        }
    }
    rows.len()
}

#[test]
fn intake_is_measured_beside_a_bare_log() {
    for engine in ["fjall", "sqlite"] {
        let report = bench(&["intake", "--callers", "4", "--engine", engine]);
        assert_eq!(check(&report), 2, "{report}");
        assert!(report["ratios"][0]["ratio"].as_f64().unwrap() > 0.0);
        assert!(report["latency"][1]["count"].as_u64().unwrap() > 0);
    }
}

#[test]
fn every_message_of_the_gateway_arrives() {
    // So many that no client acknowledges more often than the gateway lets it.
    let ours = [
        "hongyan",
        "hongyan-mqtt",
        "hongyan-sse",
        "hongyan-poll",
        "hongyan-xmpp",
        "hongyan-autopush",
    ];
    let servers = [&ours[..], &["tungstenite"]].concat().join(",");
    let report = bench(&[
        "gateway",
        "--connections",
        "700",
        "--fanout",
        "600",
        "--servers",
        &servers,
    ]);
    assert_eq!(check(&report), ours.len() + 1, "{report}");
    for (at, name) in ours.iter().enumerate() {
        let figures = &report["rows"][at]["figures"];
        let rate = |name: &str| figures[name].as_f64().unwrap_or(0.0);
        assert!(rate("unicast: deliveries per second") > 0.0, "{name}");
        // A web push is for one browser.
        let fanned = rate("fan-out, one at a time: deliveries per second") > 0.0;
        assert_eq!(fanned, *name != "hongyan-autopush", "{name}");
    }
}

#[test]
fn idle_tls_connections_are_measured_beside_tokio_rustls() {
    let servers = "hongyan-tls,hongyan-rustls,tokio-rustls";
    let report = bench(&["gateway", "--connections", "40", "--servers", servers]);
    assert_eq!(check(&report), 3, "{report}");
    let named: Vec<&str> = report["ratios"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ratio| ratio["name"].as_str().unwrap())
        .collect();
    assert!(
        named.contains(
            &"bytes per idle connection: hongyan gateway, TLS 1.3 / tokio-rustls, 4 KiB buffer"
        ),
        "{named:?}"
    );
}

#[test]
fn the_channel_is_measured_beside_a_bare_client() {
    let report = bench(&["channels", "--callers", "4"]);
    assert_eq!(check(&report), 5, "{report}");
}

#[test]
fn messages_pass_a_hanging_channel() {
    let report = bench(&["bulkhead", "--rate", "50"]);
    assert_eq!(check(&report), 4, "{report}");
}

#[test]
fn a_wrong_engine_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_hongyan-bench"))
        .args([
            "intake",
            "--engine",
            "papyrus",
            "--seconds",
            "1",
            "--callers",
            "1",
        ])
        .current_dir(tempfile::tempdir().unwrap().path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && errors.contains("--engine"),
        "{errors}"
    );
}
