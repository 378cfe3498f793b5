//! JPush, REST API v3: push, validation, cids, withdrawal, quotas, batches of single pushes, devices and reports.
//!
//! Sources: docs.jiguang.cn (Push API v3, device API, report API, REST status codes), the JUMS callback page for receipts,
//! jpush-api-java-client issue 165 for the words about a foreign registration id. The app of the sandbox is on the paid
//! tier. An id that JPush never gave out, or gave to another app, refuses the whole push and is named; one whose app
//! is gone counts as inactive: it is left out silently, and when none is left the answer is 1011. Schedules, files, images,
//! templates and groups of apps are not played.

mod devices;
mod push;
mod schema;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Simulator;
use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::dice::{Dice, HEX};
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::limits;
use crate::push::{Fate, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::world::World;

/// Pushes, cids and quota questions a minute of the free tier; the other families likewise.
const PUSHES_PER_MINUTE: u32 = 600;
const DEVICES_PER_MINUTE: u32 = 600;
const REPORTS_PER_MINUTE: u32 = 2400;
const MINUTE_MS: i64 = 60_000;

/// The app, as JPush's console shows it.
#[derive(Clone, Serialize, Deserialize)]
struct Account {
    app_key: String,
    master_secret: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("app_key", &self.app_key)
            .finish_non_exhaustive()
    }
}

/// The simulator.
#[derive(Debug)]
pub(crate) struct Jpush {
    account: Account,
    state: Mutex<State>,
    messages: AtomicU64,
}

/// What the service remembers beyond device tokens.
#[derive(Debug, Default)]
struct State {
    windows: HashMap<&'static str, (i64, u32)>,
    /// Broadcasts of the Beijing day.
    broadcasts: (i64, u32),
    /// Answers by cid, for a day.
    cids: VecDeque<(String, i64, Value)>,
    pushes: VecDeque<Sent>,
    devices: HashMap<String, devices::Profile>,
}

/// A push that was taken.
#[derive(Debug)]
struct Sent {
    id: String,
    at_ms: i64,
    targets: Vec<String>,
    withdrawn: bool,
}

/// A refusal with JPush's status and code.
#[derive(Debug)]
struct Refusal {
    status: u16,
    code: i64,
    message: String,
}

impl Refusal {
    fn new(status: u16, code: i64, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// A bad value, code 1003.
    fn value(message: impl Into<String>) -> Self {
        Self::new(400, 1003, message)
    }

    /// Something missing, code 1002.
    fn missing(message: impl Into<String>) -> Self {
        Self::new(400, 1002, message)
    }

    fn body(&self) -> Value {
        json!({"error": {"code": self.code, "message": self.message}})
    }

    fn reply(&self) -> Reply {
        let verdict = format!("refused {} {}", self.code, self.message);
        Reply::json(self.status, &self.body(), verdict)
    }
}

/// The parts of the API; each counts its calls on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Push,
    Device,
    Report,
}

impl Family {
    fn of(call: &Call) -> Option<Self> {
        let segments = super::segments(call);
        let segments: Vec<&str> = segments.into_iter().filter(|s| !s.is_empty()).collect();
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        match segments.as_slice() {
            ["v3", "push"] | ["v3", "push", "validate" | "cid" | "quota"] => Some(Self::Push),
            ["v3", "push", "batch", "regid" | "alias", "single"] => Some(Self::Push),
            ["v3", "push", id] if number(id) => Some(Self::Push),
            ["v3", "devices", ..] => Some(Self::Device),
            // The Beijing zone's spelling.
            ["v3", "device", id] if *id == "status" || is_registration_id(id) => Some(Self::Device),
            ["v3", "received", ..] | ["v3", "status", "message"] => Some(Self::Report),
            ["v3", "report", "received", ..] | ["v3", "report", "status", "message"] => {
                Some(Self::Report)
            }
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Device => "device",
            Self::Report => "report",
        }
    }

    const fn per_minute(self) -> u32 {
        match self {
            Self::Push => PUSHES_PER_MINUTE,
            Self::Device => DEVICES_PER_MINUTE,
            Self::Report => REPORTS_PER_MINUTE,
        }
    }
}

/// Eleven digits on old devices, nineteen on current ones, in hex.
fn is_registration_id(text: &str) -> bool {
    (11..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Jpush {
    pub(crate) fn open(accounts: &mut Accounts, dice: &Dice) -> Self {
        let account = accounts.of("jpush", || Account {
            app_key: dice.text(HEX, 24),
            master_secret: uuid::Uuid::new_v4()
                .simple()
                .to_string()
                .chars()
                .take(24)
                .collect(),
        });
        Self {
            account,
            state: Mutex::default(),
            messages: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn basic(&self) -> String {
        let account = &self.account;
        let both = STANDARD.encode(format!("{}:{}", account.app_key, account.master_secret));
        format!("Basic {both}")
    }

    /// Who calls, in the words of the part of the API that is called.
    fn authorize(&self, call: &Call, family: Family) -> Result<(), Refusal> {
        let given = call.header("authorization").unwrap_or_default();
        if given == self.basic() {
            return Ok(());
        }
        let decoded = given
            .strip_prefix("Basic ")
            .and_then(|text| STANDARD.decode(text.trim()).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let key = decoded.as_deref().and_then(|both| both.split(':').next());
        let unknown = key.is_some_and(|key| key != self.account.app_key);
        Err(match (family, unknown) {
            (Family::Push, false) => Refusal::new(401, 1004, "Authen failed"),
            (Family::Push, true) => Refusal::new(400, 1008, "app_key does not exist"),
            (Family::Device, true) => Refusal::new(400, 7008, "app_key does not exist"),
            (Family::Device, false) if given.is_empty() => {
                Refusal::new(401, 7001, "Basic authentication is missing")
            }
            (Family::Device, false) => Refusal::new(401, 7004, "Basic authentication failed"),
            (Family::Report, _) => Refusal::new(401, 3001, "Basic authentication failed"),
        })
    }

    /// Counts a call against its minute; answers what is left and when the minute ends, in seconds.
    fn count(&self, world: &World, family: Family) -> (Option<u32>, i64) {
        let now = world.clock.now_ms();
        let minute = now.div_euclid(MINUTE_MS);
        let reset = (MINUTE_MS - now.rem_euclid(MINUTE_MS)).div_euclid(1000) + 1;
        let mut state = self.state();
        let window = state.windows.entry(family.name()).or_default();
        if window.0 != minute {
            *window = (minute, 0);
        }
        if window.1 >= family.per_minute() {
            return (None, reset);
        }
        window.1 += 1;
        (Some(family.per_minute() - window.1), reset)
    }

    fn decide(&self, world: &World, call: &Call, family: Family) -> Result<Reply, Refusal> {
        self.authorize(call, family)?;
        let segments = super::segments(call);
        let segments: Vec<&str> = segments.into_iter().filter(|s| !s.is_empty()).collect();
        let tail = match segments.as_slice() {
            ["v3", "report", tail @ ..] | ["v3", tail @ ..] => tail,
            _ => &[],
        };
        match (tail, &call.method) {
            (["push"], &Method::POST) => self.push(world, call, push::Purpose::Deliver),
            (["push", "validate"], &Method::POST) => {
                self.push(world, call, push::Purpose::Validate)
            }
            (["push", "cid"], &Method::GET) => self.cids(call),
            (["push", "quota"], &Method::GET) => Ok(quota()),
            (["push", "batch", kind, "single"], &Method::POST) => self.batch(world, call, kind),
            (["push", id], &Method::DELETE) => self.withdraw(world, id),
            (["push", ..], _) => Err(Refusal::new(405, 1001, "Only support Post method")),
            (["devices" | "device", "status"], &Method::POST) => self.online(world, call),
            (["devices" | "device", id], method) => self.device(world, call, method, id),
            (["received", ..], &Method::GET) => self.received(call),
            (["status", "message"], &Method::POST) => self.status(world, call),
            _ => Err(Refusal::new(404, 1000, "no such call")),
        }
    }

    /// `GET /v3/push/cid`: numbers that make a repeated push go out once.
    fn cids(&self, call: &Call) -> Result<Reply, Refusal> {
        let pairs = call.query_pairs();
        let value = |name: &str| {
            let found = pairs.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_str())
        };
        let count: usize = match value("count").map(str::parse) {
            None => 1,
            Some(Ok(count @ 1..=1000)) => count,
            Some(_) => return Err(Refusal::value("count must be 1 to 1000")),
        };
        if !matches!(value("type"), None | Some("push" | "schedule")) {
            return Err(Refusal::value("type must be push or schedule"));
        }
        let cid = || format!("{}-{}", self.account.app_key, uuid::Uuid::new_v4());
        let list: Vec<String> = (0..count).map(|_| cid()).collect();
        Ok(Reply::json(200, &json!({"cidlist": list}), "accepted"))
    }

    fn withdraw(&self, world: &World, id: &str) -> Result<Reply, Refusal> {
        let mut state = self.state();
        let sent = state.pushes.iter_mut().find(|sent| sent.id == id);
        let Some(sent) = sent else {
            return Err(Refusal::value("msg_id does not exist"));
        };
        sent.withdrawn = true;
        drop(state);
        let key = format!("jpush {id}");
        world.phones.withdraw_everywhere(Channel::Jpush, &key);
        Ok(Reply::empty(200, "accepted withdrawal"))
    }

    fn next_id(&self, world: &World) -> String {
        // Below 2^53, so that JavaScript clients read it.
        let n = self.messages.fetch_add(1, Ordering::Relaxed) % 1000;
        format!("{}{n:03}", world.clock.now_ms())
    }

    fn keep(&self, sent: Sent) {
        let mut state = self.state();
        while state.pushes.len() >= limits::REQUESTS_KEPT_MAX {
            state.pushes.pop_front();
        }
        state.pushes.push_back(sent);
    }
}

/// All that the makers allow is left.
fn quota() -> Reply {
    let each =
        json!({"system": {"total": -1, "used": 0}, "operation": {"total": 10_000, "used": 0}});
    let data = json!({"xiaomi_quota": each, "oppo_quota": each, "vivo_quota": each});
    let body = json!({"code": 0, "message": "success", "data": data});
    Reply::json(200, &body, "accepted")
}

impl Simulator for Jpush {
    fn channel(&self) -> Channel {
        Channel::Jpush
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        Family::of(call).map(|_| Endpoint::Send)
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        let family = Family::of(call).unwrap_or(Family::Push);
        let (left, reset) = self.count(world, family);
        let reply = match left {
            None => Refusal::new(429, 2002, "Rate limit exceeded").reply(),
            Some(_) => match self.decide(world, call, family) {
                Ok(reply) => reply,
                Err(refusal) => refusal.reply(),
            },
        };
        let limit = family.per_minute().to_string();
        // Old papers say Quota, all clients read Limit.
        reply
            .with("x-rate-limit-limit", limit.clone())
            .with("x-rate-limit-quota", limit)
            .with("x-rate-limit-remaining", left.unwrap_or(0).to_string())
            .with("x-rate-limit-reset", reset.to_string())
    }

    fn fault(&self, _world: &World, _call: &Call, kind: FaultKind) -> Reply {
        match kind {
            FaultKind::RateLimited => Refusal::new(429, 2002, "Rate limit exceeded")
                .reply()
                .with("x-rate-limit-reset", "7"),
            FaultKind::QuotaExhausted => {
                Refusal::new(400, 1012, "the quota of the third party channel is used up").reply()
            }
            FaultKind::TokenInvalid => nobody().reply(),
            FaultKind::AuthExpired => Refusal::new(401, 1004, "Authen failed").reply(),
            _ => Refusal::new(500, 1000, "Internal error").reply(),
        }
    }

    fn new_token(&self, unique: &str, _dice: &Dice) -> String {
        let tail: String = unique.chars().take(18).collect();
        format!("1{tail}")
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        json!({
            "app_key": self.account.app_key, "master_secret": self.account.master_secret, "vip": true,
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
        let params: Value = serde_json::from_str(&receipt.param).unwrap_or_default();
        let item = json!({
            "type": kind, "appkey": receipt.account, "msgid": receipt.id,
            "registration_id": receipt.token, "channel": "jpush", "platform": "android",
            "sent_time": now_ms.div_euclid(1000), "params": params,
        });
        let post = Post::json(url, &json!([item]));
        Some(post.with("authorization", self.basic()))
    }
}

/// None of the targets is there.
fn nobody() -> Refusal {
    Refusal::new(
        400,
        1011,
        "cannot find user by this audience or has been inactive for more than 255 days",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_vendors_have_paths_of_their_own() {
        let check = |path: &str, want: Option<Family>| {
            let call = Call {
                path: path.to_owned(),
                ..Call::default()
            };
            assert_eq!(Family::of(&call), want, "{path}");
        };
        check("/v3/push", Some(Family::Push));
        check("/v3//push/validate", Some(Family::Push));
        check("/v3/push/18101042030527458", Some(Family::Push));
        check("/v3/devices/1507bfd3f7c466c355c", Some(Family::Device));
        check("/v3/device/1507bfd3f7c466c355c", Some(Family::Device));
        check("/v3/received/detail", Some(Family::Report));
        // Tencent's and Xiaomi's.
        check("/v3/push/app", None);
        check("/v3/device/tag", None);
        check("/v3/message/regid", None);
        check("/v3/10001/messages:send", None);
    }
}
