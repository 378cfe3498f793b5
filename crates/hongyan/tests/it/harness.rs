//! Starts `hongyan demo` as a user would and speaks to it over plain HTTP, with nothing of our own in between.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take before a test gives up. Generous, because two cores may run eight of these.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running `hongyan demo` with its own data directory and ports of its own.
pub(crate) struct Demo {
    child: Option<Child>,
    dir: tempfile::TempDir,
    log: PathBuf,
    facts: Value,
    listeners: Option<[String; 3]>,
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            println!("--- the end of the server's log ---");
            for line in tail.into_iter().rev() {
                println!("{line}");
            }
        }
    }
}

impl Demo {
    /// Starts in an empty directory.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut demo = Self {
            child: None,
            dir,
            log,
            facts: Value::Null,
            listeners: None,
        };
        demo.launch();
        demo
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts again on the same data and the same ports.
    pub(crate) fn launch(&mut self) {
        let facts = self.data().join("demo.json");
        let _ = std::fs::remove_file(&facts);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let any = || "127.0.0.1:0".to_owned();
        let [http, vendors, control] = self.listeners.clone().unwrap_or([any(), any(), any()]);
        let child = Command::new(env!("CARGO_BIN_EXE_hongyan"))
            .arg("demo")
            .arg("--data")
            .arg(self.data())
            .env("HONGYAN_HTTP_LISTEN", http)
            .env("HONGYAN_SANDBOX_VENDORS_LISTEN", vendors)
            .env("HONGYAN_SANDBOX_CONTROL_LISTEN", control)
            .env("HONGYAN_LOG_LEVEL", "info")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.facts = until("demo.json", || {
            let text = std::fs::read_to_string(&facts).ok()?;
            serde_json::from_str(&text).ok()
        });
        until("readiness", || {
            (try_http("GET", &self.fact("api"), "/readyz", &[], b"")
                .ok()?
                .0
                == 200)
                .then_some(())
        });
        let address = |key: &str| {
            let url = self.fact(key);
            url.split("://")
                .nth(1)
                .unwrap()
                .trim_end_matches('/')
                .to_owned()
        };
        self.listeners = Some([address("api"), address("vendors"), address("sandbox")]);
    }

    /// A value of `demo.json`.
    pub(crate) fn fact(&self, key: &str) -> String {
        self.facts[key]
            .as_str()
            .unwrap_or_else(|| panic!("{key} in {}", self.facts))
            .to_owned()
    }

    /// The files of the store.
    pub(crate) fn store(&self) -> PathBuf {
        self.data().join("store")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A call with the server key.
    pub(crate) fn api(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.api_as(&self.fact("server_key"), method, path, body)
    }

    pub(crate) fn api_as(&self, key: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let bearer = format!("Bearer {key}");
        call(
            &self.fact("api"),
            method,
            path,
            &[("authorization", &bearer)],
            body,
        )
    }

    /// A call to the sandbox's control port.
    pub(crate) fn sandbox(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        call(
            &self.fact("sandbox"),
            method,
            path,
            &[("accept", "application/json")],
            body,
        )
    }

    /// Sends a message; answers its id.
    pub(crate) fn send(&self, body: &Value) -> String {
        let (status, answer) = self.api("POST", "/v1/messages", body);
        assert_eq!(status, 202, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    /// A new phone; waits until it is connected.
    pub(crate) fn phone(&self, kind: &Kind, user: &str) -> String {
        let body = json!({
            "platform": kind.platform, "brand": kind.brand, "user": user, "channels": [kind.channel],
        });
        let (status, phone) = self.sandbox("POST", "/phones", &body);
        assert!((200..300).contains(&status), "{phone}");
        let id = match &phone["id"] {
            Value::String(id) => id.clone(),
            other => other.to_string(),
        };
        self.until_online(user, true);
        id
    }

    pub(crate) fn set(&self, phone: &str, change: &Value) {
        let (status, answer) = self.sandbox("PATCH", &format!("/phones/{phone}"), change);
        assert!((200..300).contains(&status), "{answer}");
    }

    /// The tray of a phone.
    pub(crate) fn tray(&self, phone: &str) -> Vec<Value> {
        let (status, tray) = self.sandbox("GET", &format!("/phones/{phone}/tray"), &Value::Null);
        assert_eq!(status, 200, "{tray}");
        tray.as_array().unwrap_or_else(|| panic!("{tray}")).clone()
    }

    /// Entries of a phone's tray for a message.
    pub(crate) fn shown(&self, phone: &str, message: &str) -> Vec<Value> {
        self.tray(phone)
            .into_iter()
            .filter(|e| e["message"] == message)
            .collect()
    }

    /// Waits until the person sees it; answers how it came.
    pub(crate) fn sees(&self, phone: &str, message: &str) -> String {
        until(&format!("{message} in the tray of {phone}"), || {
            self.shown(phone, message).first()?["via"]
                .as_str()
                .map(str::to_owned)
        })
    }

    /// Requests that a simulator got with this message in it.
    pub(crate) fn vendor_requests(&self, channel: &str, message: &str) -> Vec<Value> {
        let (status, list) =
            self.sandbox("GET", &format!("/vendors/{channel}/requests"), &Value::Null);
        assert_eq!(status, 200, "{list}");
        let list = list.as_array().unwrap_or_else(|| panic!("{list}")).clone();
        list.into_iter()
            .filter(|r| r.to_string().contains(message))
            .collect()
    }

    pub(crate) fn trace(&self, message: &str) -> Vec<Value> {
        let path = format!("/v1/messages/{message}/trace?limit=1000");
        let (status, trace) = self.api("GET", &path, &Value::Null);
        assert_eq!(status, 200, "{trace}");
        trace["events"]
            .as_array()
            .unwrap_or_else(|| panic!("{trace}"))
            .clone()
    }

    /// Waits for the final outcomes of a message.
    pub(crate) fn outcomes(&self, message: &str, count: usize) -> Vec<String> {
        until(&format!("{count} outcomes of {message}"), || {
            let finals: Vec<_> = self
                .trace(message)
                .iter()
                .filter(|e| e["final"] == true)
                .filter_map(|e| e["reason"].as_str().map(str::to_owned))
                .collect();
            (finals.len() >= count).then_some(finals)
        })
    }

    /// Waits until the trace has an event with this reason.
    pub(crate) fn until_reason(&self, message: &str, reason: &str) {
        until(&format!("{reason} in the trace of {message}"), || {
            self.trace(message)
                .iter()
                .any(|e| e["reason"] == reason)
                .then_some(())
        });
    }

    /// Waits until the user has, or has not, a live connection.
    pub(crate) fn until_online(&self, user: &str, wanted: bool) {
        let path = format!("/v1/users/{user}/presence");
        let reached = reach(|| {
            let (status, answer) = self.api("GET", &path, &Value::Null);
            let online = status == 200 && answer["online"] == true;
            (online == wanted).then_some(())
        });
        if reached.is_none() {
            let presence = self.api("GET", &path, &Value::Null);
            let phones = self.sandbox("GET", "/phones", &Value::Null);
            panic!("{user} online: {wanted} never came: {presence:?} {phones:?}");
        }
    }
}

/// A kind of phone, by the vendor that reaches it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) channel: &'static str,
    pub(crate) platform: &'static str,
    pub(crate) brand: &'static str,
}

/// One kind for each channel.
pub(crate) const KINDS: [Kind; 5] = [
    Kind {
        channel: "apns",
        platform: "ios",
        brand: "apple",
    },
    Kind {
        channel: "fcm",
        platform: "android",
        brand: "google",
    },
    Kind {
        channel: "huawei",
        platform: "android",
        brand: "huawei",
    },
    Kind {
        channel: "harmony",
        platform: "harmony",
        brand: "huawei",
    },
    Kind {
        channel: "xiaomi",
        platform: "android",
        brand: "xiaomi",
    },
];

/// A message with a title for one user.
pub(crate) fn hello(user: &str) -> Value {
    json!({ "to": { "user": user }, "class": "im", "notification": { "title": "hello", "body": "from afar" } })
}

/// Polls until there is an answer.
pub(crate) fn until<T>(what: &str, ask: impl Fn() -> Option<T>) -> T {
    reach(ask).unwrap_or_else(|| panic!("waited in vain for {what}"))
}

fn reach<T>(ask: impl Fn() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// One JSON call.
fn call(
    base: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> (u16, Value) {
    let bytes = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let mut all = headers.to_vec();
    all.push(("content-type", "application/json"));
    let (status, answer) = try_http(method, base, path, &all, &bytes)
        .unwrap_or_else(|e| panic!("{method} {path}: {e}"));
    let value = serde_json::from_slice(&answer)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&answer).into_owned()));
    (status, value)
}

/// One HTTP/1.1 request on a connection of its own.
pub(crate) fn try_http(
    method: &str,
    base: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<(u16, Vec<u8>)> {
    let host = base
        .split("://")
        .nth(1)
        .unwrap_or(base)
        .trim_end_matches('/');
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| std::io::Error::other("not an HTTP answer"))
}

fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..split]).to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut rest = &answer[split + 4..];
    if !head.contains("transfer-encoding: chunked") {
        return Some((status, rest.to_vec()));
    }
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let size =
            usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Some((status, body));
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

/// Copies a directory tree.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &target);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
