//! SIGKILL at random moments: what was answered `202` reaches its one final outcome, and its person once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Demo, KINDS, copy_tree, hello, try_http, until};

/// How many kills; a longer soak by `HONGYAN_CRASH_ROUNDS`.
fn rounds() -> usize {
    std::env::var("HONGYAN_CRASH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(50)
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_shown_twice() {
    let mut demo = Demo::start();
    let users: Vec<_> = KINDS
        .iter()
        .map(|k| format!("crash-{}", k.channel))
        .collect();
    let phones: Vec<_> = KINDS
        .iter()
        .zip(&users)
        .map(|(k, u)| demo.phone(k, u))
        .collect();
    // Two stay connected, the others are reached by their vendors.
    for (phone, user) in phones.iter().zip(&users).skip(2) {
        demo.set(phone, &json!({ "state": "killed" }));
        demo.until_online(user, false);
    }
    let accepted: Mutex<Vec<(usize, String)>> = Mutex::default();
    let mut seed = 0x5eed_u64;
    for round in 0..rounds() {
        let stop = AtomicBool::new(false);
        let (api, key) = (demo.fact("api"), demo.fact("server_key"));
        let child = &mut demo;
        std::thread::scope(|threads| {
            for driver in 0..2usize {
                let (accepted, stop, users, api, key) = (&accepted, &stop, &users, &api, &key);
                threads.spawn(move || {
                    let mut n = driver;
                    // A tray keeps 500 entries: the soak stays below that for every phone.
                    let mut left = 1_800 / rounds() / 2;
                    while !stop.load(Ordering::Relaxed) && left > 0 {
                        left -= 1;
                        let who = n % users.len();
                        n += 1;
                        let bearer = format!("Bearer {key}");
                        let headers = [
                            ("authorization", bearer.as_str()),
                            ("content-type", "application/json"),
                        ];
                        let body = hello(&users[who]).to_string();
                        let answer =
                            try_http("POST", api, "/v1/messages", &headers, body.as_bytes());
                        if let Ok((202, answer)) = answer {
                            let answer: Value = serde_json::from_slice(&answer).unwrap();
                            let id = answer["id"].as_str().unwrap().to_owned();
                            accepted.lock().unwrap().push((who, id));
                        }
                    }
                });
            }
            // The moment of the kill: somewhere within a third of a second of traffic.
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let moment = Duration::from_millis(20 + (seed >> 33) % 300);
            let begin = Instant::now();
            while begin.elapsed() < moment {
                std::thread::yield_now();
            }
            child.kill();
            stop.store(true, Ordering::Relaxed);
        });
        demo.launch();
        assert!(round < rounds());
    }
    let accepted = accepted.into_inner().unwrap();
    assert!(
        accepted.len() > rounds(),
        "the driver sent {}",
        accepted.len()
    );
    let mut copies_at_vendors = 0;
    for (who, id) in &accepted {
        let outcomes = demo.outcomes(id, 1);
        assert_eq!(outcomes.len(), 1, "{id} ended {outcomes:?}");
        let good = ["delivered", "accepted_by_vendor"].contains(&outcomes[0].as_str());
        assert!(good, "{id} for {} ended as {}", users[*who], outcomes[0]);
    }
    // Every person sees each message once; what the vendors got twice is counted and bounded.
    for (who, phone) in phones.iter().enumerate() {
        let mine: Vec<_> = accepted
            .iter()
            .filter(|(w, _)| *w == who)
            .map(|(_, id)| id)
            .collect();
        until(&format!("all messages of {}", users[who]), || {
            let tray = demo.tray(phone);
            let seen = |id: &String| tray.iter().any(|e| e["message"] == id.as_str());
            mine.iter().all(|id| seen(id)).then_some(())
        });
        let tray = demo.tray(phone);
        for id in mine {
            let entries: Vec<_> = tray
                .iter()
                .filter(|e| e["message"] == id.as_str())
                .collect();
            assert_eq!(entries.len(), 1, "{id} is shown {} times", entries.len());
            copies_at_vendors += entries[0]["copies"].as_u64().unwrap_or(1).saturating_sub(1);
        }
    }
    println!(
        "{} accepted, {} extra copies at phones over {} kills",
        accepted.len(),
        copies_at_vendors,
        rounds()
    );
    // At most what was under way at a kill can come twice.
    assert!(copies_at_vendors <= (rounds() * 200) as u64);
}

#[test]
fn a_damaged_store_never_opens_in_silence() {
    let mut demo = Demo::start();
    let phone = demo.phone(&KINDS[0], "careful");
    let ids: Vec<_> = (0..200).map(|_| demo.send(&hello("careful"))).collect();
    demo.outcomes(ids.last().unwrap(), 1);
    let _ = phone;
    demo.kill();
    let healthy = tempfile::tempdir().unwrap();
    copy_tree(&demo.data(), healthy.path());
    // The same ports, no sandbox: only the server on the damaged copy.
    let mut files = Vec::new();
    collect(&demo.store(), &mut files);
    assert!(!files.is_empty());
    let whole = records_of(copy_of(healthy.path()).path());
    assert!(whole > 1_000, "{whole} records");
    for file in files {
        let relative = file.strip_prefix(demo.data()).unwrap().to_owned();
        let len = std::fs::metadata(&file).unwrap().len();
        if len < 64 || relative.ends_with("LOCK") {
            continue;
        }
        let copy = copy_of(healthy.path());
        let target = copy.path().join(&relative);
        let bytes = std::fs::read(&target).unwrap();
        std::fs::write(&target, &bytes[..bytes.len() / 2]).unwrap();
        let doctor = std::process::Command::new(env!("CARGO_BIN_EXE_hongyan"))
            .args(["doctor", "--data"])
            .arg(copy.path())
            .output()
            .unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&doctor.stdout),
            String::from_utf8_lossy(&doctor.stderr)
        );
        // What opens must hold every record; else it must say so.
        if doctor.status.success() {
            let records = records_of(copy.path());
            assert_eq!(
                records,
                whole,
                "{} cut in half goes unnoticed: {said}",
                relative.display()
            );
        } else {
            assert!(said.contains("store"), "{said}");
        }
    }
}

fn copy_of(data: &std::path::Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(data, copy.path());
    copy
}

/// How many records a backup of the data directory has.
fn records_of(data: &std::path::Path) -> u64 {
    let to = tempfile::tempdir().unwrap();
    let backup = std::process::Command::new(env!("CARGO_BIN_EXE_hongyan"))
        .args(["backup", "--json", "--data"])
        .arg(data)
        .arg(to.path().join("backup"))
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&backup.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&backup.stderr)));
    said["records"].as_u64().unwrap_or_else(|| panic!("{said}"))
}

fn collect(dir: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
