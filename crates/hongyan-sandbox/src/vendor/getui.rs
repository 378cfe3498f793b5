//! Getui, REST API v2: tokens, single, batch and list pushes, tasks, users and receipts.
//!
//! Sources: docs.getui.com REST v2 (token, push, user, return codes, receipts, custom receipts of Android),
//! getui-pushapi-java-client-v2. The bound of the clock and the words about a wrong signature are this sandbox's choice, as are
//! the `actionid`s of receipts (0 arrived, 60002 tapped). A cid that Getui does not know is left out of a list push's
//! answer, unless all are; one whose app is gone counts as inactive and is `successed_ignore`. Pushes to all, to tags and to
//! aliases, and reports, are not played.

mod auth;
mod push;
mod schema;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Method;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Simulator;
use super::oauth::AccessTokens;
use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::dice::{Dice, HEX};
use crate::exchange::{Call, Connection, Reply, percent_decode};
use crate::faults::{Endpoint, FaultKind};
use crate::push::{Fate, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::shape::Violation;
use crate::tokens::TokenState;
use crate::world::World;

/// Token requests a minute.
const AUTHS_PER_MINUTE: u32 = 100;
const MINUTE_MS: i64 = 60_000;
const USERS_MAX: usize = 1000;

/// The app, as Getui's console shows it.
#[derive(Clone, Serialize, Deserialize)]
struct Account {
    app_id: String,
    app_key: String,
    master_secret: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("app_id", &self.app_id)
            .finish_non_exhaustive()
    }
}

/// The simulator.
#[derive(Debug)]
pub(crate) struct Getui {
    account: Account,
    access: AccessTokens,
    state: Mutex<State>,
}

/// What the service remembers beyond device tokens.
#[derive(Debug, Default)]
struct State {
    /// Token requests of the running minute.
    auths: (i64, u32),
    /// Targets of list pushes of the Beijing day.
    listed: (i64, u64),
    /// Request ids, newest last.
    requests: VecDeque<String>,
    tasks: HashMap<String, Task>,
    order: VecDeque<String>,
}

/// A message that was stored, or sent at once.
#[derive(Debug, Clone)]
struct Task {
    body: Map<String, Value>,
    until_ms: i64,
    /// The notification's place on a phone, by which it is withdrawn.
    place: String,
}

/// A refusal with Getui's status and code.
#[derive(Debug)]
struct Refusal {
    status: u16,
    code: i64,
    msg: String,
}

impl Refusal {
    fn new(status: u16, code: i64, msg: impl Into<String>) -> Self {
        Self {
            status,
            code,
            msg: msg.into(),
        }
    }

    /// A parameter error, code 20001.
    fn parameter(msg: impl Into<String>) -> Self {
        Self::new(400, 20001, msg)
    }

    fn reply(&self) -> Reply {
        let body = json!({"code": self.code, "msg": self.msg});
        let verdict = format!("refused {} {}", self.code, self.msg);
        Reply::json(self.status, &body, verdict)
    }
}

impl From<Violation> for Refusal {
    fn from(Violation { field, why }: Violation) -> Self {
        if why == "is required" {
            Self::parameter(format!("{field} can not be empty"))
        } else if why.starts_with("is longer") || why.starts_with("has ") {
            Self::parameter(format!("{field} size over limit"))
        } else if why.starts_with("must be") {
            Self::parameter(format!("{field} type error"))
        } else {
            Self::parameter(format!("{field} is invalid"))
        }
    }
}

const TARGET_INVALID: &str = "target user is invalid";

fn ok(data: &Value) -> Reply {
    let mut body = json!({"code": 0, "msg": "success"});
    if !data.is_null() {
        body["data"] = data.clone();
    }
    Reply::json(200, &body, "accepted")
}

impl Getui {
    pub(crate) fn open(accounts: &mut Accounts, dice: &Dice) -> Self {
        let account = accounts.of("getui", || Account {
            app_id: dice.text(HEX, 22),
            app_key: dice.text(HEX, 22),
            master_secret: uuid::Uuid::new_v4()
                .simple()
                .to_string()
                .chars()
                .take(22)
                .collect(),
        });
        Self {
            account,
            access: AccessTokens::default(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts of a path behind the app's base.
    fn tail<'a>(&self, call: &'a Call) -> Option<Vec<&'a str>> {
        match super::segments(call).as_slice() {
            ["v2", app, tail @ ..] if *app == self.account.app_id => Some(tail.to_vec()),
            _ => None,
        }
    }

    fn decide(&self, world: &World, call: &Call, tail: &[&str]) -> Result<Reply, Refusal> {
        match (tail, &call.method) {
            (["auth"], &Method::POST) => return self.auth(world, call),
            (["auth", token], &Method::DELETE) => {
                self.access.expire(token);
                return Ok(ok(&Value::Null));
            }
            _ => self.authorize(world, call)?,
        }
        match (tail, &call.method) {
            (["push", "single", "cid"], &Method::POST) => self.single(world, &object(call)?),
            (["push", "single", "batch", "cid"], &Method::POST) => self.batch(world, call),
            (["push", "list", "message"], &Method::POST) => self.store(world, &object(call)?),
            (["push", "list", "cid"], &Method::POST) => self.list(world, &object(call)?),
            (["task", id], &Method::DELETE) => self.stop(id),
            (["user", "status", cids], &Method::GET) => users(world, cids, false),
            (["user", "detail", cids], &Method::GET) => users(world, cids, true),
            (["report", "push", "count"], &Method::GET) => {
                let left = json!({"total_num": 10_000, "push_num": 0, "remain_num": 10_000, "limit": true});
                Ok(ok(&json!({"xm": left, "op": left, "vv": left})))
            }
            (["push" | "user" | "task" | "report", ..], _) => {
                Err(Refusal::new(405, 405, "method not allowed"))
            }
            _ => Err(Refusal::new(404, 404, "not found")),
        }
    }

    fn stop(&self, id: &str) -> Result<Reply, Refusal> {
        match self.state().tasks.remove(id) {
            Some(_) => Ok(ok(&Value::Null)),
            None => Err(Refusal::parameter("taskid is invalid")),
        }
    }

    /// Where the sender's signature of a receipt comes from.
    fn sign(&self, cid: &str, task: &str, id: &str) -> String {
        let account = &self.account;
        let mut md5 = Md5::new();
        for part in [&account.app_id, cid, task, id, &account.master_secret] {
            md5.update(part.as_bytes());
        }
        md5.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

fn object(call: &Call) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(&call.body) {
        Ok(Value::Object(body)) => Ok(body),
        _ => Err(Refusal::new(200, 1, "request body is not json")),
    }
}

fn state_of(world: &World, cid: &str) -> Option<TokenState> {
    let token = world.tokens.get(Channel::Getui, cid);
    token.map(|token| token.state)
}

/// Whether a cid is one of this app.
fn is_known(state: Option<TokenState>) -> bool {
    matches!(
        state,
        Some(TokenState::Valid | TokenState::Dead { .. } | TokenState::Expired { .. })
    )
}

/// `GET /user/status/{cids}` and `/user/detail/{cids}`.
fn users(world: &World, cids: &str, detail: bool) -> Result<Reply, Refusal> {
    let cids = percent_decode(cids.as_bytes());
    let cids: Vec<&str> = cids.split(',').filter(|cid| !cid.is_empty()).collect();
    if cids.is_empty() || cids.len() > USERS_MAX {
        return Err(Refusal::parameter("cid size over limit"));
    }
    let (known, unknown): (Vec<&str>, Vec<&str>) = cids
        .into_iter()
        .partition(|cid| is_known(state_of(world, cid)));
    let now = world.clock.now_ms().to_string();
    if !detail {
        let status = |cid: &&str| {
            let alive = state_of(world, cid) == Some(TokenState::Valid);
            let status = if alive { "online" } else { "offline" };
            (
                (*cid).to_owned(),
                json!({"last_login_time": now, "status": status}),
            )
        };
        let data: Map<String, Value> = known.iter().map(status).collect();
        if data.is_empty() {
            return Err(Refusal::parameter(TARGET_INVALID));
        }
        return Ok(ok(&Value::Object(data)));
    }
    let valid: Map<String, Value> = known
        .iter()
        .map(|cid| {
            let user = json!({"client_app_id": "1", "package_name": crate::accounts::PACKAGE,
                              "phone_type": 1, "notificationSwitch": true});
            ((*cid).to_owned(), user)
        })
        .collect();
    Ok(ok(&json!({"invalidCids": unknown, "validCids": valid})))
}

impl Simulator for Getui {
    fn channel(&self) -> Channel {
        Channel::Getui
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        match self.tail(call)?.as_slice() {
            ["auth"] => Some(Endpoint::Auth),
            // Huawei has the same base, and this verb.
            ["messages:send"] => None,
            _ => Some(Endpoint::Send),
        }
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        let tail = self.tail(call).unwrap_or_default();
        match self.decide(world, call, &tail) {
            Ok(reply) => reply,
            Err(refusal) => refusal.reply(),
        }
    }

    fn fault(&self, _world: &World, call: &Call, kind: FaultKind) -> Reply {
        let auth = self.tail(call).is_some_and(|tail| tail == ["auth"]);
        match (kind, auth) {
            (FaultKind::RateLimited, true) => Refusal::new(401, 10003, "auth over limit"),
            (FaultKind::RateLimited, false) => Refusal::new(401, 10005, "request over limit"),
            (FaultKind::QuotaExhausted, _) => Refusal::new(403, 30001, "push count over limit"),
            (FaultKind::TokenInvalid, false) => Refusal::parameter(TARGET_INVALID),
            (FaultKind::TokenInvalid, true) => Refusal::parameter("sign is invalid"),
            (FaultKind::AuthExpired, _) => {
                if let Some(token) = call.header("token") {
                    self.access.expire(token);
                }
                Refusal::new(401, 10001, "token is invalid")
            }
            _ => Refusal::new(503, 2, "service is starting"),
        }
        .reply()
    }

    fn new_token(&self, unique: &str, _dice: &Dice) -> String {
        unique.to_owned()
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        json!({
            "app_id": self.account.app_id, "app_key": self.account.app_key,
            "master_secret": self.account.master_secret, "custom_callback": true,
            "receipt_actions": {"0": "delivered", "60001": "displayed", "60002": "clicked"},
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
        let (code, action) = match fate {
            Fate::Delivered => ("200", "0"),
            Fate::Clicked => ("200", "60002"),
            Fate::TargetInvalid => ("402", "0"),
            Fate::NotShown | Fate::OverQuota => return None,
        };
        let console = console?;
        let id = format!("{}{action}", receipt.id);
        let mut item = json!({
            "appid": receipt.account, "cid": receipt.token, "taskid": receipt.id, "msgid": id,
            "code": code, "desc": if code == "200" { "success" } else { "inactive" },
            "actionid": action, "recvtime": now_ms,
            "sign": self.sign(&receipt.token, &receipt.id, &id),
        });
        if !receipt.param.is_empty() {
            item["custom_callback"] = receipt.param.as_str().into();
        }
        Some(Post::json(&console.url, &item))
    }
}
