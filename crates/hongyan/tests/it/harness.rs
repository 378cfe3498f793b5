//! Starts `hongyan demo`, or `hongyan serve` beside `hongyan sandbox`, as a user would, and speaks to it over plain HTTP,
//! with nothing of our own in between.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take before a test gives up. Generous, because two cores may run eight of these.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running `hongyan demo` with its own data directory and ports of its own; or the same in two processes, so that the
/// vendors and the phones outlive the server.
pub(crate) struct Demo {
    child: Option<Child>,
    /// The sandbox, when it is a process of its own.
    sandbox: Option<Child>,
    dir: tempfile::TempDir,
    log: PathBuf,
    facts: Value,
    listeners: Option<[String; 3]>,
    settings: Vec<(&'static str, String)>,
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut sandbox) = self.sandbox.take() {
            let _ = sandbox.kill();
            let _ = sandbox.wait();
        }
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
        Self::with(&[])
    }

    /// Starts in an empty directory with settings, by the names of their environment variables.
    pub(crate) fn with(settings: &[(&'static str, &str)]) -> Self {
        let mut demo = Self::empty(settings);
        demo.launch();
        demo
    }

    /// Starts the sandbox and a server beside it. [`Demo::kill`] and [`Demo::launch`] are about the server alone. Each
    /// credential gets `limits`.
    pub(crate) fn apart(settings: &[(&'static str, &str)], limits: &Value) -> Self {
        let mut demo = Self::empty(settings);
        demo.start_sandbox();
        demo.launch();
        demo.set_up(limits);
        demo
    }

    fn empty(settings: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        Self {
            child: None,
            sandbox: None,
            dir,
            log,
            facts: Value::Null,
            listeners: None,
            settings: settings
                .iter()
                .map(|(k, v)| (*k, (*v).to_owned()))
                .collect(),
        }
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

    /// Ends it as an operator would.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let asked = Command::new("kill").arg(child.id().to_string()).status();
        assert!(asked.unwrap().success());
        let ended = child.wait().unwrap();
        assert!(ended.success(), "{ended}");
    }

    /// Gives the process away, to be killed by somebody else than [`Demo::kill`].
    pub(crate) fn take_server(&mut self) -> Child {
        self.child.take().unwrap()
    }

    /// Starts again on the same data and the same ports.
    pub(crate) fn launch(&mut self) {
        if self.sandbox.is_some() {
            self.launch_server();
        } else {
            self.launch_demo();
        }
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

    fn launch_demo(&mut self) {
        let facts = self.data().join("demo.json");
        let _ = std::fs::remove_file(&facts);
        let any = || "127.0.0.1:0".to_owned();
        let [http, vendors, control] = self.listeners.clone().unwrap_or([any(), any(), any()]);
        let log = append_to(&self.log);
        let child = self
            .command("demo")
            .env("HONGYAN_HTTP_LISTEN", http)
            .env("HONGYAN_SANDBOX_VENDORS_LISTEN", vendors)
            .env("HONGYAN_SANDBOX_CONTROL_LISTEN", control)
            .env("HONGYAN_SANDBOX_SMPP_LISTEN", "127.0.0.1:0")
            .env("HONGYAN_XMPP_LISTEN", "127.0.0.1:0")
            .env("HONGYAN_MQTT_LISTEN", "127.0.0.1:0")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.facts = until("demo.json", || {
            let text = std::fs::read_to_string(&facts).ok()?;
            serde_json::from_str(&text).ok()
        });
    }

    fn start_sandbox(&mut self) {
        let said = self.dir.path().join("sandbox.json");
        let child = Command::new(env!("CARGO_BIN_EXE_hongyan"))
            .args(["sandbox", "--json", "--no-phones"])
            .args(["--control", "127.0.0.1:0", "--vendors", "127.0.0.1:0"])
            .args(["--smpp", "127.0.0.1:0"])
            .arg("--data")
            .arg(self.dir.path().join("sandbox"))
            .stdout(File::create(&said).unwrap())
            .stderr(append_to(&self.log))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.sandbox = Some(child);
        self.facts = until("the sandbox's addresses", || {
            serde_json::from_str(&std::fs::read_to_string(&said).ok()?).ok()
        });
        let (control, ca) = (self.fact("sandbox"), self.dir.path().join("ca.pem"));
        let (status, pem) = try_http("GET", &control, "/ca.pem", &[], b"").unwrap();
        assert_eq!(status, 200);
        std::fs::write(&ca, pem).unwrap();
        // What an operator sets who tries a server with simulated vendors.
        let ca = ca.to_str().unwrap().to_owned();
        self.settings.push(("HONGYAN_EGRESS_EXTRA_CA", ca));
        self.settings
            .push(("HONGYAN_EGRESS_ALLOW_LOOPBACK", "true".to_owned()));
    }

    fn launch_server(&mut self) {
        let listen = match &self.listeners {
            Some([http, ..]) => http.clone(),
            None => "127.0.0.1:0".to_owned(),
        };
        let child = self
            .command("serve")
            .env("HONGYAN_HTTP_LISTEN", listen)
            .env("HONGYAN_LOG_FORMAT", "json")
            .stdout(Stdio::null())
            .stderr(append_to(&self.log))
            .spawn()
            .unwrap();
        self.child = Some(child);
        let url = until("the server's address", || ready_url(&self.log));
        self.facts["api"] = json!(url);
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hongyan"));
        command
            .arg(name)
            .arg("--data")
            .arg(self.data())
            .env("HONGYAN_LOG_LEVEL", "info")
            .envs(self.settings.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null());
        command
    }

    /// An app with its keys and credentials, as an operator makes them; the phones are told where the server is.
    fn set_up(&mut self, limits: &Value) {
        let admin = std::fs::read_to_string(self.data().join("admin.key")).unwrap();
        let admin = admin.trim();
        self.facts["admin_key"] = json!(admin);
        let made = |(status, answer): (u16, Value)| {
            assert!((200..300).contains(&status), "{answer}");
            answer
        };
        // The texts of the sandbox cost nothing.
        let classes = ["im", "transaction", "subscription", "marketing"];
        let policy = json!({ "sms_fallback": classes });
        let app = json!({ "id": "demo", "name": "demo", "policy": policy });
        made(self.api_as(admin, "POST", "/v1/apps", &app));
        for (fact, kind, scopes) in [
            ("server_key", "server", json!(["send", "read", "manage"])),
            ("client_key", "client", json!([])),
        ] {
            let key = json!({ "kind": kind, "scopes": scopes });
            let key = made(self.api_as(admin, "POST", "/v1/apps/demo/keys", &key));
            self.facts[fact] = key.get("secret").or(key.get("key")).unwrap().clone();
        }
        let vendors = made(self.sandbox("GET", "/vendors", &Value::Null));
        for vendor in vendors.as_array().unwrap() {
            let path = format!(
                "/vendors/{}/credential",
                vendor["channel"].as_str().unwrap()
            );
            // As a person would copy it from the vendor's console; the channel of texts has one for each provider.
            let (status, mut credential) = self.sandbox("GET", &path, &Value::Null);
            if status != 200 {
                continue;
            }
            let text = |name: &str| credential[name].as_str().unwrap().to_owned();
            let path = format!(
                "/v1/channels/{}/credentials/{}",
                text("channel"),
                text("name")
            );
            let (config, endpoint) = (credential["config"].take(), credential["endpoint"].take());
            let body = json!({ "config": config, "endpoint": endpoint, "limits": limits });
            made(self.api("PUT", &path, &body));
        }
        let server = json!({ "api": self.fact("api"), "client_key": self.fact("client_key") });
        made(self.sandbox("POST", "/attach", &server));
    }

    /// A value of `demo.json`.
    pub(crate) fn fact(&self, key: &str) -> String {
        self.facts[key]
            .as_str()
            .unwrap_or_else(|| panic!("{key} in {}", self.facts))
            .to_owned()
    }

    /// What the server's process holds in memory, KiB; Linux only.
    pub(crate) fn resident_kib(&self) -> u64 {
        let id = self.child.as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
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

    /// Requests that a simulator got, after the one with this number.
    pub(crate) fn requests_after(&self, channel: &str, after: u64) -> Vec<Value> {
        let path = format!("/vendors/{channel}/requests?after={after}");
        let (status, list) = self.sandbox("GET", &path, &Value::Null);
        assert_eq!(status, 200, "{list}");
        list.as_array().unwrap_or_else(|| panic!("{list}")).clone()
    }

    /// Requests that a simulator got with this message in it.
    pub(crate) fn vendor_requests(&self, channel: &str, message: &str) -> Vec<Value> {
        self.requests_after(channel, 0)
            .into_iter()
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

    /// Whether a delivery of the message is with the lane of a vendor, or was.
    pub(crate) fn is_with_a_lane(&self, message: &str) -> bool {
        let path = format!("/v1/messages/{message}?deliveries=true");
        let (status, state) = self.api("GET", &path, &Value::Null);
        assert_eq!(status, 200, "{state}");
        let mut deliveries = state["deliveries"]["items"]
            .as_array()
            .into_iter()
            .flatten();
        deliveries.any(|d| !["planning", "online"].contains(&d["state"].as_str().unwrap_or("")))
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

/// The newest address that a server's log names as its own; lines are JSON.
pub(crate) fn ready_url(log: &Path) -> Option<String> {
    let log = std::fs::read_to_string(log).ok()?;
    let ready = log
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["message"] == "ready")?;
    Some(ready["url"].as_str()?.to_owned())
}

fn append_to(log: &Path) -> File {
    File::options().create(true).append(true).open(log).unwrap()
}

/// A kind of phone, by the vendor that reaches it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) channel: &'static str,
    pub(crate) platform: &'static str,
    pub(crate) brand: &'static str,
}

/// One kind for each channel.
pub(crate) const KINDS: [Kind; 16] = [
    kind("apns", "ios", "apple"),
    kind("fcm", "android", "google"),
    kind("huawei", "android", "huawei"),
    kind("harmony", "harmony", "huawei"),
    kind("xiaomi", "android", "xiaomi"),
    kind("honor", "android", "honor"),
    kind("oppo", "android", "oppo"),
    kind("vivo", "android", "vivo"),
    kind("meizu", "android", "meizu"),
    kind("webpush", "web", "firefox"),
    kind("jpush", "android", "samsung"),
    kind("getui", "android", "samsung"),
    kind("umeng", "android", "samsung"),
    kind("tpns", "android", "samsung"),
    kind("aliyun", "android", "samsung"),
    kind("sms", "android", "samsung"),
];

const fn kind(channel: &'static str, platform: &'static str, brand: &'static str) -> Kind {
    Kind {
        channel,
        platform,
        brand,
    }
}

/// Does the same for every kind at once: most of it is waiting.
pub(crate) fn for_each(kinds: &[Kind], work: impl Fn(&Kind) + Sync) {
    std::thread::scope(|threads| {
        for kind in kinds {
            let work = &work;
            std::thread::Builder::new()
                .name(kind.channel.to_owned())
                .spawn_scoped(threads, move || work(kind))
                .unwrap();
        }
    });
}

/// A message with a title for one user.
pub(crate) fn hello(user: &str) -> Value {
    json!({ "to": { "user": user }, "class": "im", "notification": { "title": "hello", "body": "from afar" } })
}

/// Polls until there is an answer.
pub(crate) fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    reach(ask).unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// The same, with nothing where it was in vain.
pub(crate) fn reach<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
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

/// Now, milliseconds since 1970.
#[allow(
    clippy::disallowed_methods,
    reason = "compared with times that another process took"
)]
pub(crate) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// A directory of its own, in memory where there is a place: what is copied there need not outlive a power cut.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// All files below a directory.
pub(crate) fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(files_of(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    files
}

/// Copies a directory tree. Holes stay holes: journals are allocated far ahead.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for file in files_of(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let (mut read, write) = (File::open(&file).unwrap(), File::create(target).unwrap());
        let mut block = vec![0; 64 * 1024];
        let empty = block.clone();
        let mut at = 0;
        loop {
            let len = read.read(&mut block).unwrap();
            if len == 0 {
                break;
            }
            if block[..len] != empty[..len] {
                write.write_all_at(&block[..len], at).unwrap();
            }
            at += len as u64;
        }
        write.set_len(at).unwrap();
    }
}
