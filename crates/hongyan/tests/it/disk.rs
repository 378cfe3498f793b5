//! A disk that is really full: what does not fit is refused in clear words, what was acknowledged stays.
//!
//! The data directory is on a small file system in memory, in a mount namespace that ends with the test.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::{ready_url, try_http, until};

const MIB: u64 = 1 << 20;
/// The first size of the disk. The server's reserve is 16 MiB, the smallest there is.
const SMALL: u64 = 40 * MIB;
/// Messages of 24 KiB that the small disk cannot hold.
const TOO_MANY: usize = 4_000;

#[test]
fn a_full_disk_loses_nothing_on_fjall() {
    fill("fjall");
}

#[test]
fn a_full_disk_loses_nothing_on_sqlite() {
    fill("sqlite");
}

/// A small disk and the namespace in which it is mounted.
struct Disk {
    holder: Child,
    dir: tempfile::TempDir,
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Disk {
    /// `Err` says why this machine does not let a test mount anything.
    fn new() -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        let holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
            .arg("echo >\"$0\" && exec sleep 1000000")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("unshare")).unwrap())
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let mut disk = Self { holder, dir };
        let ended = until("the namespace", || {
            let ended = disk.holder.try_wait().unwrap().is_some();
            (ended || ready.exists()).then_some(ended)
        });
        if ended {
            return Err(fs::read_to_string(disk.dir.path().join("unshare")).unwrap());
        }
        let mounted = disk
            .inside("mkdir")
            .arg(disk.mount_point())
            .output()
            .and_then(|_| disk.mount(&format!("size={SMALL}")))
            .map_err(|e| format!("nsenter: {e}"))?;
        if mounted.status.success() {
            Ok(disk)
        } else {
            Err(String::from_utf8_lossy(&mounted.stderr).into_owned())
        }
    }

    fn mount_point(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn data(&self) -> PathBuf {
        self.mount_point().join("data")
    }

    fn mount(&self, options: &str) -> std::io::Result<Output> {
        let kind = ["-t", "tmpfs", "-o", options, "tmpfs"];
        let mut mount = self.inside("mount");
        mount.args(kind).arg(self.mount_point()).output()
    }

    fn grow(&self, bytes: u64) {
        let grown = self.mount(&format!("remount,size={bytes}")).unwrap();
        assert!(grown.status.success(), "{grown:?}");
    }

    /// Takes all room that is left.
    fn choke(&self) {
        let filler = self.mount_point().join("filler");
        let output = self
            .inside("dd")
            .args(["if=/dev/zero", "bs=64k"])
            .arg(format!("of={}", filler.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("No space left"), "{said}");
    }

    fn give_room(&self) {
        let filler = self.mount_point().join("filler");
        let removed = self.inside("rm").arg(filler).status().unwrap();
        assert!(removed.success());
    }

    /// A command that sees the disk.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--preserve-credentials", "--user", "--mount", "--target"])
            .arg(self.holder.id().to_string())
            .arg(program);
        command
    }

    fn hongyan(&self, engine: &str, args: &[&str]) -> Command {
        let mut command = self.inside(env!("CARGO_BIN_EXE_hongyan"));
        command
            .args(args)
            .arg("--data")
            .arg(self.data())
            .env("HONGYAN_HTTP_LISTEN", "127.0.0.1:0")
            .env("HONGYAN_STORE_ENGINE", engine)
            .env("HONGYAN_STORE_FREE_BYTES_MIN", (16 * MIB).to_string())
            .env("HONGYAN_LOG_FORMAT", "json")
            .stdin(Stdio::null());
        command
    }

    /// A server, or what it said when it did not start.
    fn serve(&self, engine: &str) -> Result<Server, String> {
        let log = self.dir.path().join("log");
        let mut child = self
            .hongyan(engine, &["serve"])
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let started = until("a start or a refusal", || {
            let ended = child.try_wait().unwrap();
            ended.map(|_| None).or_else(|| ready_url(&log).map(Some))
        });
        match started {
            Some(url) => Ok(Server { child, url }),
            None => Err(fs::read_to_string(log).unwrap()),
        }
    }
}

struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn ask(&self, key: &str, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let bearer = format!("Bearer {key}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let bytes = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let (status, answer) = try_http(method, &self.url, path, &headers, &bytes).ok()?;
        let answer = serde_json::from_slice(&answer).unwrap_or(Value::Null);
        Some((status, answer))
    }

    /// Sends 24 KiB that do not compress; `Err` when it is not answered `202`.
    fn send(&self, key: &str, n: usize) -> Result<String, Option<(u16, Value)>> {
        let mut dice = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n as u64 + 1);
        let weight: String = (0..24 * 1024 / 16)
            .map(|_| {
                dice = dice
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                format!("{:016x}", dice ^ dice >> 29)
            })
            .collect();
        let body = json!({ "to": { "user": "nobody" }, "data": { "n": n, "weight": weight } });
        match self.ask(key, "POST", "/v1/messages", &body) {
            Some((202, answer)) => Ok(answer["id"].as_str().unwrap().to_owned()),
            other => Err(other),
        }
    }

    fn has_all(&self, key: &str, ids: &[String], when: &str) {
        for id in ids {
            let path = format!("/v1/messages/{id}");
            let (status, answer) = self.ask(key, "GET", &path, &Value::Null).unwrap();
            assert_eq!(status, 200, "{id} {when}: {answer}");
        }
    }
}

fn is_refusal(status: u16, answer: &Value) {
    assert_eq!(
        (status, &answer["code"]),
        (503, &json!("disk_full")),
        "{answer}"
    );
    let words = format!("{} {}", answer["title"], answer["detail"]);
    assert!(words.contains("disk"), "{words}");
}

/// In the words of the system or of SQLite.
fn says_full(line: &str) -> bool {
    line.contains("No space left") || line.contains("disk is full")
}

fn fill(engine: &str) {
    let disk = match Disk::new() {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: this machine lets nobody mount a small disk: {why}");
            return;
        }
    };
    let mut server = disk.serve(engine).unwrap_or_else(|said| panic!("{said}"));
    let admin = disk
        .inside("cat")
        .arg(disk.data().join("admin.key"))
        .output()
        .unwrap();
    let admin = String::from_utf8(admin.stdout).unwrap().trim().to_owned();
    let made = |answer: Option<(u16, Value)>| {
        let (status, answer) = answer.unwrap();
        assert!((200..300).contains(&status), "{answer}");
        answer
    };
    let app = json!({ "id": "full", "name": "full" });
    made(server.ask(&admin, "POST", "/v1/apps", &app));
    let key = json!({ "kind": "server", "scopes": ["send", "read"] });
    let key = made(server.ask(&admin, "POST", "/v1/apps/full/keys", &key));
    let key = key["secret"].as_str().or(key["key"].as_str()).unwrap();

    // It fills up: intake ends in good time, everything else goes on.
    let mut acknowledged = Vec::new();
    let refusal = (0..TOO_MANY).find_map(|n| match server.send(key, n) {
        Ok(id) => {
            acknowledged.push(id);
            None
        }
        Err(refusal) => Some(refusal),
    });
    let (status, answer) = refusal.flatten().expect("it is never full");
    is_refusal(status, &answer);
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    server.has_all(key, &acknowledged, "while the disk is full");
    // With more room it goes on without a restart.
    disk.grow(2 * SMALL);
    acknowledged.push(until("room", || server.send(key, TOO_MANY).ok()));

    // Somebody else takes the rest of the disk at once, in the middle of the traffic.
    let (choked, taken) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (late, last) = std::thread::scope(|scope| {
        let driver = scope.spawn(|| {
            let mut late = Vec::new();
            for n in 0.. {
                // What was sent after the disk was full must be refused, or nothing answers any more.
                let full = choked.load(Ordering::Acquire);
                match server.send(key, n) {
                    Ok(id) => {
                        late.push(id);
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(last) if full => return (late, last),
                    Err(Some((status, answer))) if status < 500 => panic!("{answer}"),
                    Err(_) => {}
                }
            }
            unreachable!("a full disk takes no more")
        });
        until("traffic", || {
            (taken.load(Ordering::Relaxed) >= 10).then_some(())
        });
        disk.choke();
        choked.store(true, Ordering::Release);
        driver.join().unwrap()
    });
    match &last {
        Some((status, answer)) => {
            assert_eq!(*status, 503, "{answer}");
            assert!(
                answer["code"].is_string() && answer["detail"].is_string(),
                "{answer}"
            );
        }
        // A write that failed half way ends the server: nobody can tell what is on the disk.
        None => {
            let end = until("its end", || server.child.try_wait().unwrap());
            let said = fs::read_to_string(disk.dir.path().join("log")).unwrap();
            assert_eq!(end.code(), Some(1), "{said}");
            let line = said.lines().last().unwrap_or_default();
            assert!(
                line.contains("the store failed") && says_full(line),
                "{said}"
            );
        }
    }
    acknowledged.extend(late);
    drop(server);

    // On a full disk it starts and refuses, or says why it does not start.
    match disk.serve(engine) {
        Ok(server) => {
            let refused = server.send(key, 0).unwrap_err();
            let (status, answer) = refused.expect("an answer");
            is_refusal(status, &answer);
            server.has_all(key, &acknowledged, "after a start on a full disk");
        }
        Err(said) => {
            let line = said.lines().last().unwrap_or_default();
            assert!(says_full(line), "{said}");
        }
    }

    // With room again, everything is there and sound.
    disk.give_room();
    let server = disk.serve(engine).unwrap_or_else(|said| panic!("{said}"));
    server.has_all(key, &acknowledged, "after a start with room");
    acknowledged.push(server.send(key, 1).unwrap());
    drop(server);
    let doctor = disk
        .hongyan(engine, &["doctor", "--deep"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(doctor.status.success(), "{said}");
    println!("{engine}: {} acknowledged and there", acknowledged.len());
}
