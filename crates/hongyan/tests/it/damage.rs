//! Damage to the files of a killed server: it refuses to start and says why, or everything is there.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{
    Demo, KINDS, copy_tree, files_of, hello, now_ms, ready_url, scratch, try_http, until,
};

/// A page of a file system or of SQLite.
const PAGE: u64 = 4_096;

#[test]
fn a_damaged_fjall_store_never_opens_in_silence() {
    every_file("fjall");
}

#[test]
fn a_damaged_sqlite_store_never_opens_in_silence() {
    every_file("sqlite");
}

/// What a killed server left, and what it had acknowledged.
struct Killed {
    data: tempfile::TempDir,
    engine: &'static str,
    key: String,
    /// Ids and titles of the messages that were answered `202`.
    acknowledged: Vec<(String, String)>,
}

impl Killed {
    fn new(engine: &'static str) -> Self {
        let mut demo = Demo::with(&[
            ("HONGYAN_STORE_ENGINE", engine),
            ("HONGYAN_SHUTDOWN_DRAIN_MS", "0"),
        ]);
        demo.phone(&KINDS[0], "careful");
        let mut acknowledged = Vec::new();
        let mut send = |demo: &Demo, n: usize, options: Value| {
            let title = format!("number {n}.");
            let mut body = hello("careful");
            body["notification"]["title"] = json!(title);
            body["data"] = json!({ "weight": "x".repeat(500 * (n % 5)) });
            body["options"] = options;
            acknowledged.push((demo.send(&body), title));
            acknowledged[n].0.clone()
        };
        // Data of two lives: what an orderly stop leaves in the engine's main files, and what is in its journal.
        let mut now: Vec<_> = (0..40).map(|n| send(&demo, n, json!({}))).collect();
        now.iter().for_each(|id| drop(demo.outcomes(id, 1)));
        demo.stop();
        demo.launch();
        demo.until_online("careful", true);
        now = (40..80).map(|n| send(&demo, n, json!({}))).collect();
        now.iter().for_each(|id| drop(demo.outcomes(id, 1)));
        // Killed right after an acknowledgement, and with nothing left to do, so that a start changes nothing.
        let tomorrow = hongyan_core::Timestamp(now_ms() + 86_400_000).rfc3339();
        (80..120).for_each(|n| drop(send(&demo, n, json!({ "send_at": tomorrow }))));
        demo.kill();
        let data = scratch();
        copy_tree(&demo.data(), data.path());
        Self {
            data,
            engine,
            key: demo.fact("server_key"),
            acknowledged,
        }
    }

    /// A copy with one file damaged.
    fn damaged(&self, file: &Path, damage: Damage) -> tempfile::TempDir {
        let copy = scratch();
        copy_tree(self.data.path(), copy.path());
        damage.apply(&copy.path().join(file));
        copy
    }

    fn start(&self, data: &Path) -> Started {
        let log = data.join("log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_hongyan"))
            .args(["serve", "--data"])
            .arg(data)
            .env("HONGYAN_HTTP_LISTEN", "127.0.0.1:0")
            .env("HONGYAN_STORE_ENGINE", self.engine)
            .env("HONGYAN_LOG_FORMAT", "json")
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let end = until("a start or a refusal", || {
            let ended = child.try_wait().unwrap();
            ended.map(Err).or_else(|| ready_url(&log).map(Ok))
        });
        let said = fs::read_to_string(log).unwrap();
        match end {
            Ok(url) => Started::Ready(Server(child), url),
            Err(status) => Started::Refused(status.code(), said),
        }
    }
}

enum Started {
    Ready(Server, String),
    /// Its exit code and everything it said.
    Refused(Option<i32>, String),
}

/// Ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every record that a running server has.
fn records_of(data: &Path) -> Vec<u8> {
    let to = data.join("all.backup");
    let backup = Command::new(env!("CARGO_BIN_EXE_hongyan"))
        .args(["backup", "--data"])
        .args([data, &to])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&backup.stderr);
    assert!(backup.status.success(), "{said}");
    fs::read(to).unwrap()
}

#[derive(Clone, Copy)]
enum Damage {
    /// One bit, by the byte's place.
    Flip(u64, u8),
    /// The page that begins here.
    ZeroPage(u64),
    /// All from here on.
    Truncate(u64),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flip(at, bit) => write!(f, "with bit {bit} of byte {at} flipped"),
            Self::ZeroPage(at) => write!(f, "with the page at {at} zeroed"),
            Self::Truncate(to) => write!(f, "cut to {to} bytes"),
        }
    }
}

impl Damage {
    fn apply(self, path: &Path) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len();
        match self {
            Self::Flip(at, bit) => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
            }
            Self::ZeroPage(at) => {
                let zeros = vec![0; (len - at).min(PAGE) as usize];
                file.write_all_at(&zeros, at).unwrap();
            }
            Self::Truncate(to) => file.set_len(to).unwrap(),
        }
    }

    /// Damages to a file of which this many bytes are in use; `points` places of each kind.
    fn all(used: u64, points: u64, dice: &mut Dice) -> Vec<Self> {
        let mut all = vec![Self::Flip(used - 1, 0), Self::Truncate(used - 1)];
        for _ in 0..points {
            all.push(Self::Flip(dice.below(used), dice.below(8) as u8));
            all.push(Self::ZeroPage(dice.below(used) / PAGE * PAGE));
            all.push(Self::Truncate(dice.below(used)));
        }
        all
    }
}

/// The same numbers at every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Bytes of a file up to the last that is not zero: journals are allocated ahead.
fn used(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    let zeros = [0; PAGE as usize];
    let mut pages = bytes.chunks(zeros.len()).enumerate();
    let last = pages.rfind(|(_, page)| **page != zeros[..page.len()]);
    last.map_or(0, |(n, page)| {
        let end = page.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
        n as u64 * PAGE + end as u64
    })
}

fn every_file(engine: &'static str) {
    let killed = Killed::new(engine);
    let healthy = scratch();
    copy_tree(killed.data.path(), healthy.path());
    let Started::Ready(server, url) = killed.start(healthy.path()) else {
        panic!("the healthy store does not open");
    };
    for (id, _) in &killed.acknowledged {
        let bearer = format!("Bearer {}", killed.key);
        let path = format!("/v1/messages/{id}");
        let headers = [("authorization", bearer.as_str())];
        let (status, _) = try_http("GET", &url, &path, &headers, b"").unwrap();
        assert_eq!(status, 200, "{id}");
    }
    // From here on, the same records mean the same messages, devices, keys and jobs.
    let whole = records_of(healthy.path());
    drop(server);
    let text = String::from_utf8_lossy(&whole);
    for (id, title) in &killed.acknowledged {
        assert!(text.contains(title.as_str()), "{id} without its title");
    }

    let mut dice = Dice(0x6865_6c6c);
    let (mut refused, mut harmless) = (0, Vec::new());
    for file in files_of(&killed.data.path().join("store")) {
        let file = file.strip_prefix(killed.data.path()).unwrap().to_owned();
        let used = used(&killed.data.path().join(&file));
        if used == 0 {
            // An empty file, such as the lock, has nothing to lose.
            continue;
        }
        // Large files have many kinds of contents, small ones few.
        let points = if used < 8 * PAGE { 1 } else { 12 };
        for damage in Damage::all(used, points, &mut dice) {
            let copy = killed.damaged(&file, damage);
            let what = format!("{} {damage}", file.display());
            match killed.start(copy.path()) {
                Started::Refused(code, said) => {
                    assert_eq!(code, Some(1), "{what}: {said}");
                    says_why(&said, copy.path(), &what);
                    refused += 1;
                }
                Started::Ready(_server, _) => {
                    let found = records_of(copy.path());
                    assert!(
                        found == whole,
                        "{what}: it starts, and something is missing"
                    );
                    harmless.push(file.clone());
                }
            }
        }
    }
    let total = harmless.len();
    harmless.dedup();
    println!("{engine}: {refused} damages refused, {total} harmless, in {harmless:?}");
    assert!(refused > 20, "{refused}");
}

/// The last line names the store and what is wrong with it.
fn says_why(said: &str, data: &Path, what: &str) {
    let line = said.lines().last().unwrap_or_default();
    let names_it = line.contains(data.join("store").to_str().unwrap());
    let tells = [
        "lost acknowledged data",
        "cannot read its files",
        "was made by engine",
    ];
    assert!(
        names_it && tells.iter().any(|words| line.contains(words)),
        "{what}: {said}"
    );
}
