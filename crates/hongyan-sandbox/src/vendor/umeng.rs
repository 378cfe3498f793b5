//! Umeng U-Push, the classic server API: sends of every type, states, cancellation, uploads.
//!
//! Sources: developer.umeng.com U-Push documents (integration, platform parameters, error and signature appendices) through
//! public copies, and the public clients. The layout of receipts is this sandbox's own: a JSON list of `msg_id`,
//! `device_token`, `type`, `ts` and `callback_params`. The account has an Android and an iOS app. A token of
//! another app refuses the whole send (4014); a device whose app is gone is taken and not reached. Groups, aliases and
//! broadcasts are accepted and reach nobody; tags are not played.

mod message;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Method;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Simulator;
use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::clock::beijing_day;
use crate::dice::{BASE64URL, Dice, HEX};
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::push::{self, Fate, Push, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::tokens::TokenState;
use crate::world::World;

const CLOCK_MS_MAX: i64 = 10 * 60_000;
const LIST_MAX: usize = 500;
const UPLOAD_BYTES_MAX: usize = 10 * 1024 * 1024;
const FILES_MAX: usize = 100;
const TASKS_MAX: usize = 10_000;
const BROADCASTS_PER_DAY: u32 = 10;
const EXPIRY_MS_DEFAULT: i64 = 3 * 86_400_000;

/// One app's pair of keys.
#[derive(Clone, Serialize, Deserialize)]
struct App {
    app_key: String,
    master_secret: String,
}

/// The developer's apps: a pair for each platform.
#[derive(Clone, Serialize, Deserialize)]
struct Account {
    android: App,
    ios: App,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("android", &self.android.app_key)
            .field("ios", &self.ios.app_key)
            .finish_non_exhaustive()
    }
}

/// What an app's payloads look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Platform {
    Android,
    Ios,
}

/// The simulator.
#[derive(Debug)]
pub(crate) struct Umeng {
    account: Account,
    state: Mutex<State>,
    numbers: AtomicU64,
}

/// What the service remembers beyond device tokens.
#[derive(Debug, Default)]
struct State {
    broadcasts: (i64, u32),
    files: HashMap<String, Vec<String>>,
    tasks: HashMap<String, Task>,
    order: VecDeque<String>,
    /// Tasks by the sender's own number, so that a repeat is swallowed.
    numbers: HashMap<String, String>,
}

/// A task message.
#[derive(Debug)]
struct Task {
    starts_ms: i64,
    ends_ms: i64,
    sent: usize,
    cancelled: bool,
}

/// A refusal; Umeng answers every one with status 400 and its code as text.
#[derive(Debug)]
pub(super) struct Refusal {
    code: &'static str,
    msg: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, msg: impl Into<String>) -> Self {
        let msg = msg.into();
        Self { code, msg }
    }

    fn reply(&self) -> Reply {
        let data = json!({"error_code": self.code, "error_msg": self.msg});
        let body = json!({"ret": "FAIL", "data": data});
        Reply::json(400, &body, format!("refused {} {}", self.code, self.msg))
    }
}

fn ok(data: &Value) -> Reply {
    Reply::json(200, &json!({"ret": "SUCCESS", "data": data}), "accepted")
}

impl Umeng {
    pub(crate) fn open(accounts: &mut Accounts, dice: &Dice) -> Self {
        let app = || App {
            app_key: dice.text(HEX, 24),
            master_secret: uuid::Uuid::new_v4().simple().to_string(),
        };
        let account = accounts.of("umeng", || Account {
            android: app(),
            ios: app(),
        });
        Self {
            account,
            state: Mutex::default(),
            numbers: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Two letters and twenty digits.
    fn number(&self, world: &World, letters: &str) -> String {
        let n = self.numbers.fetch_add(1, Ordering::Relaxed) % 10_000_000;
        format!("{letters}{}{n:07}", world.clock.now_ms())
    }

    /// The app that signed the call; the body is read after its bytes were checked.
    fn app(&self, call: &Call) -> Result<(Platform, Map<String, Value>), Refusal> {
        let pairs = call.query_pairs();
        let sign = pairs.iter().find(|(name, _)| name == "sign");
        let body: Value = serde_json::from_slice(&call.body)
            .map_err(|_| Refusal::new("2008", "the body is not JSON"))?;
        let Value::Object(body) = body else {
            return Err(Refusal::new("2008", "the body is not an object"));
        };
        let Some((_, sign)) = sign.filter(|(_, sign)| !sign.is_empty()) else {
            return Err(Refusal::new("2007", "the request has no sign"));
        };
        let key = body.get("appkey").or_else(|| body.get("appKey"));
        let key = key.and_then(Value::as_str).unwrap_or_default();
        let (platform, app) = match key {
            "" => return Err(Refusal::new("1000", "appkey is missing")),
            key if key == self.account.android.app_key => {
                (Platform::Android, &self.account.android)
            }
            key if key == self.account.ios.app_key => (Platform::Ios, &self.account.ios),
            _ => return Err(Refusal::new("2021", "appkey does not exist")),
        };
        // What the client believed to call; TLS may have ended before.
        let right = ["https", "http"].iter().any(|scheme| {
            let mut md5 = Md5::new();
            md5.update(format!("POST{scheme}://{}{}", call.authority, call.path));
            md5.update(&call.body);
            md5.update(&app.master_secret);
            let wanted: String = md5.finalize().iter().map(|b| format!("{b:02x}")).collect();
            wanted == *sign
        });
        if right {
            Ok((platform, body))
        } else {
            Err(Refusal::new("2027", "the sign is wrong"))
        }
    }

    fn decide(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let (platform, body) = self.app(call)?;
        check_clock(world, &body)?;
        match super::segments(call).as_slice() {
            ["api", "send"] => self.send(world, platform, &body),
            ["api", "status"] => self.status(world, &body),
            ["api", "task", "stat"] => self.stat(&body),
            ["api", "cancel"] => self.cancel(world, &body),
            _ => self.upload(world, &body),
        }
    }

    fn send(
        &self,
        world: &World,
        platform: Platform,
        body: &Map<String, Value>,
    ) -> Result<Reply, Refusal> {
        let text = |name: &str| push::text(&Value::Object(body.clone()), &format!("/{name}"));
        let kind = text("type");
        let task = match kind.as_str() {
            "" => return Err(Refusal::new("1016", "type is missing")),
            "unicast" | "listcast" => false,
            "filecast" | "broadcast" | "groupcast" => true,
            "customizedcast" => body.contains_key("file_id"),
            _ => return Err(Refusal::new("2048", "type is unknown")),
        };
        message::check(world, platform, body, task)?;
        let targets = match kind.as_str() {
            "unicast" | "listcast" => {
                let tokens = text("device_tokens");
                let tokens: Vec<&str> = tokens.split(',').filter(|t| !t.is_empty()).collect();
                let max = if kind == "unicast" { 1 } else { LIST_MAX };
                match tokens.len() {
                    0 => return Err(Refusal::new("1015", "device_tokens is missing")),
                    n if n > max => return Err(Refusal::new("2015", "too many device_tokens")),
                    _ => reachable(world, platform, &tokens)?,
                }
            }
            "filecast" => {
                let file = text("file_id");
                if file.is_empty() {
                    return Err(Refusal::new("2018", "file_id is missing"));
                }
                let tokens = self.state().files.get(&file).cloned();
                let tokens = tokens.ok_or_else(|| Refusal::new("2019", "file_id is gone"))?;
                let known = |t: &String| reachable(world, platform, &[t]).unwrap_or_default();
                tokens.iter().flat_map(known).collect()
            }
            "broadcast" => {
                self.broadcast(world, body)?;
                Vec::new()
            }
            "groupcast" if body.contains_key("group_id") => Vec::new(),
            "groupcast" => match body.get("filter") {
                None => return Err(Refusal::new("2016", "filter is missing")),
                Some(filter) if filter.pointer("/where/and").is_none() => {
                    return Err(Refusal::new("2031", "filter is malformed"));
                }
                Some(_) => Vec::new(),
            },
            _ => {
                customized(body)?;
                Vec::new()
            }
        };
        if !task {
            let id = self.number(world, "uu");
            self.deliver(world, body, &id, &targets);
            return Ok(ok(&json!({"msg_id": id})));
        }
        let number = body.get("policy").map(|p| push::text(p, "/out_biz_no"));
        let number = number.filter(|number| !number.is_empty());
        if let Some(known) = number
            .as_ref()
            .and_then(|n| self.state().numbers.get(n).cloned())
        {
            return Ok(ok(&json!({"task_id": known})));
        }
        let id = self.number(world, "us");
        self.deliver(world, body, &id, &targets);
        let now = world.clock.now_ms();
        let mut state = self.state();
        while state.order.len() >= TASKS_MAX {
            if let Some(oldest) = state.order.pop_front() {
                state.tasks.remove(&oldest);
                state.numbers.retain(|_, task| *task != oldest);
            }
        }
        if let Some(number) = number {
            state.numbers.insert(number, id.clone());
        }
        state.order.push_back(id.clone());
        let task = Task {
            starts_ms: message::time(body, "start_time").unwrap_or(now),
            ends_ms: message::time(body, "expire_time").unwrap_or(now + EXPIRY_MS_DEFAULT),
            sent: targets.len(),
            cancelled: false,
        };
        state.tasks.insert(id.clone(), task);
        Ok(ok(&json!({"task_id": id})))
    }

    fn broadcast(&self, world: &World, body: &Map<String, Value>) -> Result<(), Refusal> {
        let test = body.get("production_mode");
        if matches!(test, Some(Value::String(text)) if text == "false")
            || test == Some(&Value::Bool(false))
        {
            return Ok(());
        }
        let day = beijing_day(world.clock.now_ms());
        let mut state = self.state();
        if state.broadcasts.0 != day {
            state.broadcasts = (day, 0);
        }
        if state.broadcasts.1 >= BROADCASTS_PER_DAY {
            return Err(Refusal::new("2012", "broadcasts of today are used up"));
        }
        state.broadcasts.1 += 1;
        Ok(())
    }

    fn deliver(&self, world: &World, body: &Map<String, Value>, id: &str, targets: &[String]) {
        let body = Value::Object(body.clone());
        let now = world.clock.now_ms();
        let expires_ms = body
            .as_object()
            .and_then(|body| message::time(body, "expire_time"))
            .unwrap_or(now + EXPIRY_MS_DEFAULT);
        let kinds = match body.get("receipt_type") {
            Some(Value::String(text)) => text.parse().unwrap_or(3),
            Some(Value::Number(number)) => number
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(3),
            _ => 3,
        };
        let params = body.get("callback_params");
        let payload = body.get("payload").unwrap_or(&Value::Null);
        let alert = payload.pointer("/aps/alert");
        let custom = payload.pointer("/body/custom");
        let hidden = [payload.get("extra"), custom, Some(payload)];
        let text = |android: &str, ios: &str| match alert {
            Some(Value::String(text)) if ios == "body" => text.clone(),
            Some(alert) => push::text(alert, &format!("/{ios}")),
            None => push::text(payload, &format!("/body/{android}")),
        };
        let shown = push::text(payload, "/display_type") == "notification" || alert.is_some();
        for target in targets {
            let push = Push {
                message: hidden.into_iter().flatten().find_map(push::message_id),
                title: text("title", "title"),
                body: text("text", "body"),
                visible: shown,
                collapse: None,
                expires_ms,
                stored: true,
                receipt: Some(Receipt {
                    channel: Channel::Umeng,
                    url: push::text(&body, "/receipt_url"),
                    account: push::text(&body, "/appkey"),
                    id: id.to_owned(),
                    token: target.clone(),
                    param: params.map_or_else(String::new, Value::to_string),
                    kinds,
                }),
            };
            world.deliver(Channel::Umeng, target, push);
        }
    }

    fn status(&self, world: &World, body: &Map<String, Value>) -> Result<Reply, Refusal> {
        let id = task_id(body)?;
        let now = world.clock.now_ms();
        let state = self.state();
        let task = state.tasks.get(&id);
        let task = task.ok_or_else(|| Refusal::new("1014", "the task does not exist"))?;
        let status = match task {
            task if task.cancelled => 4,
            task if now < task.starts_ms => 7,
            task if now > task.ends_ms => 5,
            _ => 2,
        };
        let sent = if status == 2 { task.sent } else { 0 };
        Ok(ok(&json!({
            "task_id": id, "status": status, "total_count": task.sent, "sent_count": sent,
            "open_count": 0, "dismiss_count": 0,
        })))
    }

    fn stat(&self, body: &Map<String, Value>) -> Result<Reply, Refusal> {
        let id = task_id(body)?;
        let state = self.state();
        let task = state.tasks.get(&id);
        let task = task.ok_or_else(|| Refusal::new("1014", "the task does not exist"))?;
        Ok(ok(&json!({
            "arrive_count": task.sent, "accept_count": task.sent, "sent_count": task.sent,
            "open_count": 0, "dismiss_count": 0, "open_rate": 0.0, "dismiss_rate": 0.0,
        })))
    }

    fn cancel(&self, world: &World, body: &Map<String, Value>) -> Result<Reply, Refusal> {
        let id = task_id(body)?;
        let now = world.clock.now_ms();
        let mut state = self.state();
        match state.tasks.get_mut(&id) {
            None => Err(Refusal::new("1014", "the task does not exist")),
            Some(task) if now > task.ends_ms => {
                Err(Refusal::new("1028", "the task cannot be cancelled"))
            }
            Some(task) => {
                task.cancelled = true;
                Ok(ok(&json!({"task_id": id})))
            }
        }
    }

    fn upload(&self, world: &World, body: &Map<String, Value>) -> Result<Reply, Refusal> {
        let content = body
            .get("content")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if content.is_empty() {
            return Err(Refusal::new("2029", "content is missing"));
        }
        if content.len() > UPLOAD_BYTES_MAX {
            return Err(Refusal::new("2023", "content is too long"));
        }
        let lines = content
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        let id = self.number(world, "PF");
        let mut state = self.state();
        if state.files.len() >= FILES_MAX {
            state.files.clear();
        }
        state.files.insert(id.clone(), lines);
        Ok(ok(&json!({"file_id": id})))
    }
}

fn task_id(body: &Map<String, Value>) -> Result<String, Refusal> {
    let id = body.get("task_id").and_then(Value::as_str);
    id.filter(|id| !id.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| Refusal::new("2053", "task_id is missing"))
}

fn check_clock(world: &World, body: &Map<String, Value>) -> Result<(), Refusal> {
    let text = match body.get("timestamp") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err(Refusal::new("2052", "timestamp is missing")),
    };
    let number: Option<i64> = text.parse().ok();
    let at = match (text.len(), number) {
        (10, Some(seconds)) => seconds * 1000,
        (13, Some(millis)) => millis,
        _ => return Err(Refusal::new("2036", "timestamp is malformed")),
    };
    if (world.clock.now_ms() - at).abs() > CLOCK_MS_MAX {
        return Err(Refusal::new("2028", "timestamp is expired"));
    }
    Ok(())
}

fn customized(body: &Map<String, Value>) -> Result<(), Refusal> {
    let has = |name: &str| body.get(name).is_some_and(|v| !v.is_null());
    if !has("alias_type") {
        return Err(Refusal::new("2047", "alias_type is missing"));
    }
    match (has("alias"), has("file_id")) {
        (true, true) => Err(Refusal::new("2049", "choose one of alias and file_id")),
        (false, false) => Err(Refusal::new("2009", "alias and file_id are missing")),
        _ => Ok(()),
    }
}

/// Those tokens that reach a device, each once; a strange one refuses all.
fn reachable(world: &World, platform: Platform, tokens: &[&str]) -> Result<Vec<String>, Refusal> {
    let mut seen = HashSet::new();
    let mut alive = Vec::with_capacity(tokens.len());
    for token in tokens {
        if platform == Platform::Ios {
            if token.len() != 64 || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(Refusal::new("4020", "a device_token is malformed"));
            }
            continue;
        }
        if token.len() != 44 {
            return Err(Refusal::new("4010", "a device_token is malformed"));
        }
        match world.tokens.get(Channel::Umeng, token).map(|t| t.state) {
            None | Some(TokenState::OtherApp | TokenState::OtherEnvironment) => {
                return Err(Refusal::new("4014", "a device_token is of another appkey"));
            }
            Some(TokenState::Valid) if seen.insert(*token) => alive.push((*token).to_owned()),
            Some(_) => {}
        }
    }
    Ok(alive)
}

impl Simulator for Umeng {
    fn channel(&self) -> Channel {
        Channel::Umeng
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        match super::segments(call).as_slice() {
            ["api", "send" | "status" | "cancel" | "upload"]
            | ["api", "task", "stat"]
            | ["upload"] => Some(Endpoint::Send),
            _ => None,
        }
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        if call.method != Method::POST {
            return Reply::empty(405, "refused method");
        }
        match self.decide(world, call) {
            Ok(reply) => reply,
            Err(refusal) => refusal.reply(),
        }
    }

    fn fault(&self, _world: &World, _call: &Call, kind: FaultKind) -> Reply {
        match kind {
            FaultKind::RateLimited => Refusal::new("2050", "too many requests"),
            FaultKind::QuotaExhausted => Refusal::new("2012", "broadcasts of today are used up"),
            FaultKind::TokenInvalid => Refusal::new("4014", "a device_token is of another appkey"),
            FaultKind::AuthExpired => Refusal::new("2028", "timestamp is expired"),
            _ => return Reply::empty(503, "503 unavailable"),
        }
        .reply()
    }

    fn new_token(&self, unique: &str, dice: &Dice) -> String {
        format!("A{unique}{}", dice.text(BASE64URL, 11))
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        json!({
            "app_key": self.account.android.app_key,
            "master_secret": self.account.android.master_secret,
            "platform": "android",
            "channel_activity": "com.example.hongyan.PushActivity",
            "xiaomi_channels": {
                "im": "100001", "transaction": "100002", "subscription": "100003", "marketing": "200001",
            },
        })
    }

    fn receipt(
        &self,
        receipt: &Receipt,
        fate: Fate,
        now_ms: i64,
        console: Option<&ReceiptAddress>,
    ) -> Option<Post> {
        let kind = match fate {
            Fate::Delivered => 1,
            Fate::Clicked => 2,
            Fate::TargetInvalid | Fate::NotShown | Fate::OverQuota => return None,
        };
        if receipt.kinds & kind == 0 {
            return None;
        }
        let url = match (receipt.url.as_str(), console) {
            ("", Some(console)) => console.url.as_str(),
            ("", None) => return None,
            (url, _) => url,
        };
        let name = if receipt.id.starts_with("uu") {
            "msg_id"
        } else {
            "task_id"
        };
        let params: Value = serde_json::from_str(&receipt.param).unwrap_or_default();
        let item = json!({
            name: receipt.id, "device_token": receipt.token, "type": kind, "ts": now_ms,
            "callback_params": params,
        });
        Some(Post::json(url, &json!([item])))
    }
}
