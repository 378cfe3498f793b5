//! What an operator does: back up, bring back, look after it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::harness::{Demo, KINDS, hello, ready_url, try_http, until};

fn hongyan(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hongyan"))
        .args(args)
        .output()
        .unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn succeeded(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A server on restored data; ends with the test.
struct Served {
    child: Child,
    url: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(data: &Path, engine: &str) -> Self {
        let log = data.with_extension("log");
        let child = Command::new(env!("CARGO_BIN_EXE_hongyan"))
            .args(["serve", "--data", text(data)])
            .args(["--set", "http.listen=127.0.0.1:0"])
            .args(["--set", &format!("store.engine={engine}")])
            .args(["--set", "log.format=json"])
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let url = until("the server's address", || ready_url(&log));
        Self { child, url }
    }

    fn status_of(&self, message: &str, key: &str) -> u16 {
        let bearer = format!("Bearer {key}");
        let path = format!("/v1/messages/{message}");
        try_http("GET", &self.url, &path, &[("authorization", &bearer)], b"")
            .unwrap()
            .0
    }
}

/// Whatever was acknowledged before the backup began is in it, for either engine, and the result is sound.
#[test]
fn a_backup_under_load_comes_back_on_both_engines() {
    let demo = Demo::start();
    demo.phone(&KINDS[0], "loaded");
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("hongyan.backup");
    let (sent, enough) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let lock = || sent.lock().unwrap_or_else(PoisonError::into_inner);
    let before = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                let id = demo.send(&hello("loaded"));
                lock().push(id);
            }
        });
        until("some messages", || (lock().len() >= 20).then_some(()));
        let before = lock().clone();
        let output = hongyan(&[
            "backup",
            "--json",
            "--data",
            text(&demo.data()),
            text(&file),
        ]);
        enough.store(true, Ordering::Relaxed);
        let summary = succeeded(&output);
        assert_eq!(summary["bytes"], fs::metadata(&file).unwrap().len());
        before
    });

    for engine in ["fjall", "sqlite"] {
        let data = files.path().join(engine);
        let of_engine = format!("store.engine={engine}");
        let place = ["--data", text(&data), "--set", &of_engine];
        let restored = hongyan(&[&["restore", "--json"], &place[..], &[text(&file)]].concat());
        succeeded(&restored);
        fs::copy(demo.data().join("master.key"), data.join("master.key")).unwrap();

        let free = ["--set", "http.listen=127.0.0.1:0"];
        let examined = hongyan(&[&["doctor", "--deep", "--json"], &place[..], &free].concat());
        let findings = succeeded(&examined);
        let about: Vec<_> = findings
            .as_array()
            .unwrap()
            .iter()
            .map(|finding| finding["about"].as_str().unwrap())
            .collect();
        assert!(
            about.contains(&"records") && about.contains(&"credentials"),
            "{about:?}"
        );

        let served = Served::start(&data, engine);
        let key = demo.fact("server_key");
        for id in &before {
            assert_eq!(served.status_of(id, &key), 200, "{id} on {engine}");
        }
    }
}

/// A restore never touches what is there, and a damaged backup makes nothing.
#[test]
fn what_is_there_stays_and_a_damaged_backup_is_refused() {
    let demo = Demo::start();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("hongyan.backup");
    succeeded(&hongyan(&[
        "backup",
        "--json",
        "--data",
        text(&demo.data()),
        text(&file),
    ]));
    let again = hongyan(&["backup", "--data", text(&demo.data()), text(&file)]);
    assert_eq!(again.status.code(), Some(1));
    let refused = hongyan(&["restore", "--data", text(&demo.data()), text(&file)]);
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("there is a store in"), "{words}");

    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = files.path().join("damaged.backup");
    fs::write(&damaged, bytes).unwrap();
    let empty = files.path().join("empty");
    for args in [
        vec!["restore", "--check", text(&damaged)],
        vec!["restore", "--data", text(&empty), text(&damaged)],
    ] {
        let refused = hongyan(&args);
        assert_eq!(refused.status.code(), Some(1), "{args:?}");
        assert!(!empty.join("store").exists());
    }
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("http.listen={}", taken.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let examined = hongyan(&["doctor", "--json", "--data", text(&data), "--set", &listen]);
    assert_eq!(examined.status.code(), Some(1));
    let findings: Vec<Value> = serde_json::from_slice(&examined.stdout).unwrap();
    let bad: Vec<_> = findings
        .iter()
        .filter(|finding| finding["health"] == "bad")
        .collect();
    assert_eq!(bad.len(), 1, "{findings:?}");
    assert_eq!(bad[0]["about"], "http.listen");
    assert!(bad[0]["todo"].as_str().unwrap().contains("another address"));
    assert!(!data.exists());
}

#[test]
fn a_wrong_configuration_is_one_line_with_every_fault() {
    let output = hongyan(&["config", "--set", "gateway.reactors=x", "--set", "nope=1"]);
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(words.lines().count(), 1, "{words}");
    for name in ["gateway.reactors", "nope"] {
        assert!(words.contains(name), "{words}");
    }
    let output = hongyan(&["config", "--set", "seal.key=c2VjcmV0"]);
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stdout).contains("c2VjcmV0"));
}

/// The demo prints its server key on purpose; nothing else of a secret is ever written to the log.
#[test]
fn secrets_stay_out_of_the_log() {
    let demo = Demo::start();
    let phone = demo.phone(&KINDS[0], "discreet");
    let id = demo.send(&hello("discreet"));
    demo.sees(&phone, &id);
    let (status, _) = demo.api_as("hy_sk_made-up", "GET", "/v1/devices", &Value::Null);
    assert_eq!(status, 401);
    let master = fs::read_to_string(demo.data().join("master.key")).unwrap();
    let log = demo.log();
    assert!(log.contains("master.key"), "the log is not there");
    let secrets = [
        master.trim().to_owned(),
        demo.fact("admin_key"),
        demo.fact("client_key"),
        "hy_sk_made-up".to_owned(),
        "from afar".to_owned(),
    ];
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret}");
    }
}

/// The lost key need not be known, and what was made with it stays.
#[test]
fn a_lost_admin_key_is_replaced_while_the_server_runs_and_while_it_does_not() {
    let mut demo = Demo::start();
    let data = demo.data();
    let rotate = ["key", "admin", "--rotate", "--json", "--data", text(&data)];
    let apps = |demo: &Demo, key: &str| demo.api_as(key, "GET", "/v1/apps", &Value::Null).0;
    let file = data.join("admin.key");
    let first = demo.fact("admin_key");
    assert_eq!(apps(&demo, &first), 200);
    fs::remove_file(&file).unwrap();
    let made = succeeded(&hongyan(&rotate));
    let second = made["admin_key"].as_str().unwrap().to_owned();
    assert_eq!(made["ended"], 1);
    assert_eq!((apps(&demo, &first), apps(&demo, &second)), (401, 200));
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), second);
    assert!(!demo.log().contains(&second));
    demo.stop();
    let made = succeeded(&hongyan(&rotate));
    let third = made["admin_key"].as_str().unwrap();
    demo.launch();
    assert_eq!((apps(&demo, &second), apps(&demo, third)), (401, 200));
    assert_eq!(demo.fact("admin_key"), third);
    let nowhere = tempfile::tempdir().unwrap();
    let refused = hongyan(&["key", "admin", "--rotate", "--data", text(nowhere.path())]);
    assert_eq!(refused.status.code(), Some(2));
}

/// What the page of metrics has is what the documentation lists, before anything has happened and after.
#[test]
fn the_metrics_are_those_of_the_documentation() {
    let demo = Demo::start();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `hongyan_"));
    let mut listed: Vec<_> = rows
        .map(|row| {
            let mut cells = row.split(" | ");
            let name = cells.next().unwrap().trim_end_matches('`');
            format!("# TYPE hongyan_{name} {}", cells.next().unwrap())
        })
        .collect();
    listed.sort_unstable();
    let phone = demo.phone(&KINDS[0], "counted");
    for sent in [false, true] {
        if sent {
            let id = demo.send(&hello("counted"));
            demo.sees(&phone, &id);
        }
        let (status, text) = demo.api("GET", "/metrics", &Value::Null);
        assert_eq!(status, 200);
        let text = text.as_str().unwrap();
        let mut served: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        served.sort_unstable();
        assert_eq!(served, listed);
        let helped = text.lines().filter(|l| l.starts_with("# HELP")).count();
        assert_eq!(helped, listed.len());
    }
}
