//! vivo Push, server API.
//!
//! Sources: dev.vivo.com.cn documents 362 (server API), 359 (classification), 156 (FAQ); official Java server SDK 3.3.
//! All answers come with HTTP 200. The whole table of codes could not be read: faults of parameters without a code of
//! their own have one of 101xx here. Rules that depend on an app's state are settings and off at the start: the hours of
//! operation messages, the check for texts that look like tests.

mod payload;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Method;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::payload::{Payload, TARGETS};
use super::Simulator;
use super::oauth::{AccessTokens, Worth};
use crate::accounts::{Accounts, PACKAGE};
use crate::channel::Channel;
use crate::clock::beijing_day;
use crate::dice::{Dice, HEX};
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::limits;
use crate::push::{Fate, Push, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::tokens::TokenState;
use crate::world::World;

const AUTH: &str = "/message/auth";

/// Targets of a list.
const LIST_MIN: usize = 2;
const LIST_MAX: usize = 1000;
const REQUEST_ID_CHARS_MAX: usize = 64;
/// Life of an access token, seconds.
const TOKEN_LIFE_S: i64 = 86_400;
/// How far the sender's clock may be off, milliseconds.
const CLOCK_MS_MAX: i64 = 600_000;
const AUTH_PER_SECOND_MAX: u32 = 10;
/// Requests a second of an app with fewer than 5 million users.
const PER_SECOND_MAX: u32 = 3000;
/// The least that an app may send a day.
const PER_DAY_MIN: u64 = 10_000;
const SYSTEM_PER_USER: u64 = 3;
const OPERATION_PER_USER: u64 = 2;
const SAVES_PER_DAY: u64 = 10_000;
const ALL_PER_DAY: u64 = 1;
/// Operation messages that one device shows of an app that is none for news.
const PER_DEVICE_MAX: u32 = 2;
const TASKS_MAX: usize = 4096;

/// A parameter that is missing, or wrong.
const MISSING: i64 = 10_101;
const WRONG: i64 = 10_102;

/// What vivo's console shows for an app.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct VivoAccount {
    package: String,
    app_id: i64,
    app_key: String,
    app_secret: String,
}

impl fmt::Debug for VivoAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VivoAccount")
            .field("app_id", &self.app_id)
            .finish_non_exhaustive()
    }
}

impl VivoAccount {
    fn made(dice: &Dice) -> Self {
        Self {
            package: PACKAGE.to_owned(),
            app_id: dice.text(b"123456789", 9).parse().unwrap_or(100_123),
            app_key: dice.text(HEX, 32),
            app_secret: uuid::Uuid::new_v4().to_string(),
        }
    }
}

/// What the operator may choose.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Messages a day; absent: vivo's own rules.
    system_per_day: Option<u64>,
    operation_per_day: Option<u64>,
    /// Calls of `saveListPayload` a day.
    saves_per_day: Option<u64>,
    /// Hours in Beijing, from and to, in which operation messages are taken; absent: at any time. vivo's are 7 and 23.
    hours: Option<(i64, i64)>,
    /// Whether texts that look like tests are refused.
    text_rule: bool,
    /// regIds that were entered as test users.
    test_users: BTreeSet<String>,
    /// Whether a repeated `requestId` is refused instead of taken and not shown again.
    refuse_duplicates: bool,
    /// The numbers of receipt addresses that were entered; the address itself is the console's.
    receipt_ids: BTreeSet<String>,
}

/// A refusal with vivo's code.
#[derive(Debug)]
struct Refusal {
    code: i64,
    desc: String,
    invalid_user: Option<Value>,
}

impl Refusal {
    fn new(code: i64, desc: impl Into<String>) -> Self {
        Self {
            code,
            desc: desc.into(),
            invalid_user: None,
        }
    }

    fn reply(self) -> Reply {
        let mut body = json!({"result": self.code, "desc": self.desc});
        if let Some(user) = self.invalid_user {
            body["invalidUser"] = user;
        }
        let verdict = format!("refused {} {}", self.code, self.desc);
        Reply::json(200, &body, verdict)
    }
}

fn ok(mut body: Value, verdict: impl Into<String>) -> Reply {
    body["result"] = 0.into();
    body["desc"] = "请求成功".into();
    Reply::json(200, &body, verdict)
}

/// Eighteen digits, as vivo's task ids are.
fn new_task() -> String {
    let number = uuid::Uuid::new_v4().as_u128() % 100_000_000_000_000_000;
    format!("7{number:017}")
}

#[derive(Debug, Default)]
struct Day {
    number: i64,
    system: u64,
    operation: u64,
    saves: u64,
    all: u64,
    by_device: BTreeMap<String, u32>,
}

#[derive(Debug, Default)]
struct State {
    settings: Mutex<Settings>,
    access: AccessTokens,
    /// Stored contents by task id, oldest first.
    tasks: Mutex<VecDeque<(String, Payload)>>,
    /// Requests by their id.
    requests: Mutex<VecDeque<String>>,
    day: Mutex<Day>,
    second: Mutex<(i64, u32)>,
    auth_second: Mutex<(i64, u32)>,
}

/// The simulator.
#[derive(Debug)]
pub(crate) struct Vivo {
    account: VivoAccount,
    state: State,
}

impl Vivo {
    pub(crate) fn open(accounts: &mut Accounts, dice: &Dice) -> Self {
        Self::of(accounts.of("vivo", || VivoAccount::made(dice)))
    }

    fn of(account: VivoAccount) -> Self {
        Self {
            account,
            state: State::default(),
        }
    }
}

impl Simulator for Vivo {
    fn channel(&self) -> Channel {
        Channel::Vivo
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        match super::segments(call).as_slice() {
            ["message", "auth"] => Some(Endpoint::Auth),
            [
                "message",
                "send" | "saveListPayload" | "pushToList" | "all" | "tagPush",
            ]
            | ["report", "getStatistics"]
            | ["tag" | "tagGroup" | "tagSegment", _]
            | ["invalidUser", "check"] => Some(Endpoint::Send),
            _ => None,
        }
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        self.decide(world, call).unwrap_or_else(Refusal::reply)
    }

    fn fault(&self, world: &World, call: &Call, kind: FaultKind) -> Reply {
        let refusal = match kind {
            FaultKind::RateLimited => Refusal::new(10_072, "发送速度过快"),
            FaultKind::QuotaExhausted => match call.path.as_str() {
                "/message/saveListPayload" => Refusal::new(10_252, "接口调用次数超限"),
                "/message/all" => Refusal::new(10_254, "全量发送次数超限"),
                _ => {
                    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
                    match Payload::of(&body).is_system() {
                        true => Refusal::new(10_073, "系统消息单日发送量超限"),
                        false => Refusal::new(10_070, "运营消息单日发送量超限"),
                    }
                }
            },
            FaultKind::AuthExpired => {
                if let Some(token) = call.header("authtoken") {
                    self.state.access.expire(token);
                }
                Refusal::new(10_000, "权限认证失败")
            }
            FaultKind::TokenInvalid => return self.all_invalid(world, call),
            _ => return Reply::empty(500, "500 unavailable"),
        };
        refusal.reply()
    }

    fn new_token(&self, unique: &str, dice: &Dice) -> String {
        format!("v2-{unique}{}", dice.text(HEX, 30))
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        json!({
            "app_id": self.account.app_id, "app_key": self.account.app_key,
            "app_secret": self.account.app_secret, "granted": ["im", "transaction", "subscription"],
        })
    }

    fn receipt(
        &self,
        receipt: &Receipt,
        fate: Fate,
        now_ms: i64,
        console: Option<&ReceiptAddress>,
    ) -> Option<Post> {
        let mut told = json!({
            "param": receipt.param, "targets": receipt.token, "ackTime": now_ms.to_string(),
            "ackType": "0",
        });
        match fate {
            Fate::Delivered => {}
            Fate::OverQuota => told["subErrorCode"] = "daily limit".into(),
            Fate::NotShown => told["subErrorCode"] = "1".into(),
            Fate::TargetInvalid | Fate::Clicked => return None,
        }
        let url = match receipt.url.as_str() {
            "" => &console?.url,
            own => own,
        };
        Some(Post::json(url, &json!({ receipt.id.as_str(): told })))
    }

    fn set_rules(&self, rules: &Value) -> Result<(), String> {
        let settings = serde_json::from_value(rules.clone()).map_err(|e| e.to_string())?;
        *lock(&self.state.settings) = settings;
        Ok(())
    }
}

impl Vivo {
    fn decide(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let get = call.path == "/report/getStatistics";
        let method = if get { Method::GET } else { Method::POST };
        if call.method != method {
            return Err(Refusal::new(WRONG, "请求方法错误"));
        }
        let kind = call.header("content-type").unwrap_or_default();
        if !get && !kind.to_ascii_lowercase().starts_with("application/json") {
            return Err(Refusal::new(WRONG, "Content-Type必须为application/json"));
        }
        let body: Value = if get {
            Value::Null
        } else {
            serde_json::from_slice(&call.body)
                .ok()
                .filter(Value::is_object)
                .ok_or_else(|| Refusal::new(WRONG, "请求体不是JSON"))?
        };
        if call.path == AUTH {
            return self.auth(world, &body);
        }
        let token = call.header("authtoken").unwrap_or_default();
        if self.state.access.worth(token, world.clock.now_s()) != Worth::Good {
            return Err(Refusal::new(10_000, "权限认证失败"));
        }
        if body
            .get("appId")
            .is_some_and(|id| whole(id) != Some(self.account.app_id))
        {
            return Err(Refusal::new(10_094, "appId与鉴权信息不匹配"));
        }
        limit_rate(&self.state.second, world, PER_SECOND_MAX)?;
        match call.path.as_str() {
            "/message/send" => self.send(world, &body),
            "/message/saveListPayload" => self.save(world, &body),
            "/message/pushToList" => self.list(world, &body),
            "/message/all" | "/message/tagPush" => self.wide(world, call, &body),
            "/invalidUser/check" => self.probe(world, &body),
            // Tags and numbers are taken and lead to nothing.
            _ if get => Ok(ok(json!({"statistics": []}), "accepted statistics")),
            _ => Ok(ok(json!({}), "accepted")),
        }
    }

    fn auth(&self, world: &World, body: &Value) -> Result<Reply, Refusal> {
        limit_rate(&self.state.auth_second, world, AUTH_PER_SECOND_MAX)?;
        let failed = || Refusal::new(10_000, "权限认证失败");
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let app_id = body.get("appId").and_then(whole).ok_or_else(failed)?;
        let key = text("appKey").ok_or_else(failed)?;
        let sign = text("sign").ok_or_else(failed)?;
        let timestamp = body.get("timestamp").and_then(whole).ok_or_else(failed)?;
        let now = world.clock.now_ms();
        let fresh = now.abs_diff(timestamp) <= CLOCK_MS_MAX.unsigned_abs();
        let signed = format!("{app_id}{key}{timestamp}{}", self.account.app_secret);
        let sum = Md5::digest(signed.trim().as_bytes());
        let right: String = sum.iter().map(|b| format!("{b:02x}")).collect();
        let known = app_id == self.account.app_id && key == self.account.app_key;
        if !(fresh && known && sign == right) {
            return Err(failed());
        }
        let token = self
            .state
            .access
            .issue("", world.clock.now_s(), TOKEN_LIFE_S);
        Ok(ok(json!({"authToken": token}), "accepted auth"))
    }

    fn settings(&self) -> Settings {
        lock(&self.state.settings).clone()
    }

    fn send(&self, world: &World, body: &Value) -> Result<Reply, Refusal> {
        let settings = self.settings();
        self.own_app(body)?;
        let target = match (text(body, "regId"), text(body, "alias")) {
            (Some(target), _) => target,
            (None, Some(alias)) if alias.chars().count() > 70 => {
                return Err(Refusal::new(WRONG, "alias过长"));
            }
            // Aliases are bound by the client SDK; the phones here bind none.
            (None, Some(alias)) => return Err(illegal(1, &alias, "alias不合法")),
            (None, None) => return Err(Refusal::new(MISSING, "regId和alias不能都为空")),
        };
        let payload = Payload::of(body);
        payload.check(&settings, true)?;
        let new = self.new_request(body, &settings)?;
        self.open_hours(world, &payload, &settings)?;
        if !shaped(&target) || world.tokens.get(Channel::Vivo, &target).is_none() {
            return Err(illegal(1, &target, "regId不合法"));
        }
        let task = new_task();
        if let Some(status) = self.invalid(world, &payload, &settings, &target) {
            let user = json!({"status": status, "userid": target});
            let answer = json!({"taskId": task, "invalidUser": user});
            return Ok(ok(answer, format!("accepted, invalid user {status}")));
        }
        self.admit(world, &payload, &settings, 1)?;
        if new {
            let receipt = self.receipt_of(&payload, &settings, true);
            self.reach(world, &payload, receipt, &task, &target);
        }
        Ok(ok(json!({"taskId": task}), "accepted"))
    }

    fn save(&self, world: &World, body: &Value) -> Result<Reply, Refusal> {
        let settings = self.settings();
        self.own_app(body)?;
        if let Some(field) = TARGETS.iter().find(|field| body.get(**field).is_some()) {
            return Err(Refusal::new(WRONG, format!("{field}不能用于列表内容")));
        }
        let payload = Payload::of(body);
        payload.check(&settings, false)?;
        self.new_request(body, &settings)?;
        let most = settings.saves_per_day.unwrap_or(SAVES_PER_DAY);
        let mut day = self.today(world);
        if day.saves >= most {
            return Err(Refusal::new(10_252, "接口调用次数超限"));
        }
        day.saves += 1;
        drop(day);
        let task = new_task();
        let mut tasks = lock(&self.state.tasks);
        while tasks.len() >= TASKS_MAX {
            tasks.pop_front();
        }
        tasks.push_back((task.clone(), payload));
        Ok(ok(json!({"taskId": task}), "accepted content"))
    }

    fn list(&self, world: &World, body: &Value) -> Result<Reply, Refusal> {
        let settings = self.settings();
        self.own_app(body)?;
        let task = body.get("taskId").map(plain).unwrap_or_default();
        let payload = lock(&self.state.tasks)
            .iter()
            .find(|(held, _)| *held == task)
            .map(|(_, payload)| payload.clone())
            .ok_or_else(|| Refusal::new(WRONG, "taskId不存在"))?;
        let test = body.get("pushMode").and_then(whole) == Some(1);
        let payload = payload.in_mode(test);
        let list = |name: &str| -> Option<Vec<String>> {
            let list = body.get(name)?.as_array()?;
            list.iter().map(|t| t.as_str().map(str::to_owned)).collect()
        };
        let targets = match (list("regIds"), list("aliases")) {
            (Some(targets), None) => targets,
            (None, Some(aliases)) => aliases,
            _ => return Err(Refusal::new(MISSING, "regIds和aliases必须有且只有一个")),
        };
        if !(LIST_MIN..=LIST_MAX).contains(&targets.len()) {
            return Err(Refusal::new(WRONG, "列表目标数必须为2到1000"));
        }
        let new = self.new_request(body, &settings)?;
        self.open_hours(world, &payload, &settings)?;
        let mut good = Vec::new();
        let mut bad = Vec::new();
        for target in &targets {
            match self.invalid(world, &payload, &settings, target) {
                None => good.push(target),
                Some(status) => bad.push(json!({"status": status, "userid": target})),
            }
        }
        self.admit(world, &payload, &settings, good.len())?;
        if new {
            for target in &good {
                let receipt = self.receipt_of(&payload, &settings, false);
                self.reach(world, &payload, receipt, &task, target);
            }
        }
        let verdict = match bad.len() {
            0 => format!("accepted {}", good.len()),
            bad => format!("partial {bad} of {} invalid", targets.len()),
        };
        let request = body.get("requestId").cloned().unwrap_or_default();
        Ok(ok(
            json!({"requestId": request, "invalidUsers": bad}),
            verdict,
        ))
    }

    /// Sends to all and to tags: checked, counted, and reaching nobody.
    fn wide(&self, world: &World, call: &Call, body: &Value) -> Result<Reply, Refusal> {
        let settings = self.settings();
        let payload = Payload::of(body);
        payload.check(&settings, false)?;
        self.new_request(body, &settings)?;
        if call.path == "/message/all" {
            let mut day = self.today(world);
            if day.all >= ALL_PER_DAY {
                return Err(Refusal::new(10_254, "全量发送次数超限"));
            }
            day.all += 1;
        } else if !body.get("tagExpression").is_some_and(Value::is_object) {
            return Err(Refusal::new(MISSING, "tagExpression不能为空"));
        }
        self.open_hours(world, &payload, &settings)?;
        Ok(ok(json!({"taskId": new_task()}), "accepted"))
    }

    fn probe(&self, world: &World, body: &Value) -> Result<Reply, Refusal> {
        let ids = body.get("userIds").and_then(Value::as_array);
        let ids = ids.filter(|ids| (1..=LIST_MAX).contains(&ids.len()));
        let Some(ids) = ids else {
            return Err(Refusal::new(WRONG, "userIds数目必须为1到1000"));
        };
        if body.get("userType").and_then(whole) != Some(1) {
            return Err(Refusal::new(WRONG, "userType错误"));
        }
        let bad: Vec<Value> = ids
            .iter()
            .filter_map(Value::as_str)
            .filter_map(|id| {
                let status = status(world, id)?;
                Some(json!({"status": status, "userid": id}))
            })
            .collect();
        let verdict = format!("accepted check, {} invalid", bad.len());
        Ok(ok(json!({"invalidUsers": bad}), verdict))
    }

    fn own_app(&self, body: &Value) -> Result<(), Refusal> {
        match body.get("appId") {
            Some(_) => Ok(()),
            None => Err(Refusal::new(10_094, "appId不能为空")),
        }
    }

    /// Whether the request was not made before.
    fn new_request(&self, body: &Value, settings: &Settings) -> Result<bool, Refusal> {
        let id =
            text(body, "requestId").ok_or_else(|| Refusal::new(MISSING, "requestId不能为空"))?;
        if id.chars().count() > REQUEST_ID_CHARS_MAX {
            return Err(Refusal::new(WRONG, "requestId过长"));
        }
        let mut requests = lock(&self.state.requests);
        if requests.contains(&id) {
            return if settings.refuse_duplicates {
                Err(Refusal::new(WRONG, "requestId重复"))
            } else {
                Ok(false)
            };
        }
        while requests.len() >= limits::SEEN_MAX {
            requests.pop_front();
        }
        requests.push_back(id);
        Ok(true)
    }

    /// Why a target is not reached.
    fn invalid(
        &self,
        world: &World,
        payload: &Payload,
        settings: &Settings,
        target: &str,
    ) -> Option<i64> {
        status(world, target)
            .or_else(|| (payload.is_test() && !settings.test_users.contains(target)).then_some(4))
    }

    fn open_hours(
        &self,
        world: &World,
        payload: &Payload,
        settings: &Settings,
    ) -> Result<(), Refusal> {
        let Some((from, to)) = settings.hours else {
            return Ok(());
        };
        let ms = world.clock.now_ms().saturating_add(8 * 3_600_000);
        let hour = ms.rem_euclid(86_400_000) / 3_600_000;
        if payload.is_system() || payload.is_test() || (from..to).contains(&hour) {
            Ok(())
        } else {
            Err(Refusal::new(10_071, "超出运营消息允许的发送时间"))
        }
    }

    /// Counts a send against the day of its class.
    fn admit(
        &self,
        world: &World,
        payload: &Payload,
        settings: &Settings,
        targets: usize,
    ) -> Result<(), Refusal> {
        let users = u64::try_from(world.tokens.valid_count(Channel::Vivo)).unwrap_or(u64::MAX);
        let rule = |each: u64| users.saturating_mul(each).max(PER_DAY_MIN);
        let count = u64::try_from(targets).unwrap_or(u64::MAX);
        let mut day = self.today(world);
        let (sent, most, refusal) = if payload.is_system() {
            let most = settings.system_per_day.unwrap_or(rule(SYSTEM_PER_USER));
            (&mut day.system, most, (10_073, "系统消息单日发送量超限"))
        } else {
            let most = settings.operation_per_day;
            let most = most.unwrap_or(rule(OPERATION_PER_USER));
            (&mut day.operation, most, (10_070, "运营消息单日发送量超限"))
        };
        if sent.saturating_add(count) > most {
            return Err(Refusal::new(refusal.0, refusal.1));
        }
        *sent += count;
        Ok(())
    }

    /// Where a receipt goes: the address of the message (V1, single sends), or the one of the console (V2).
    fn receipt_of(&self, payload: &Payload, settings: &Settings, single: bool) -> Option<Receipt> {
        let (url, param) = match payload.callback()? {
            (payload::Callback::Url(url), param) if single && !payload.is_test() => (url, param),
            (payload::Callback::Id(id), param) if settings.receipt_ids.contains(&id) => {
                (String::new(), param)
            }
            _ => return None,
        };
        Some(Receipt {
            channel: Channel::Vivo,
            url,
            account: self.account.app_id.to_string(),
            id: String::new(),
            token: String::new(),
            param,
            kinds: u32::MAX,
        })
    }

    /// What happens for one regId after the send was accepted.
    fn reach(
        &self,
        world: &World,
        payload: &Payload,
        receipt: Option<Receipt>,
        task: &str,
        target: &str,
    ) {
        let receipt = receipt.map(|receipt| Receipt {
            id: task.to_owned(),
            token: target.to_owned(),
            ..receipt
        });
        if !payload.is_system() && !payload.is_test() && world.device_limits() {
            let mut day = self.today(world);
            let full = day.by_device.len() >= limits::TOKENS_MAX;
            let count = if full {
                0
            } else {
                let count = day.by_device.entry(target.to_owned()).or_default();
                *count += 1;
                *count
            };
            drop(day);
            if count > PER_DEVICE_MAX {
                if let Some(receipt) = &receipt {
                    world.receipts.report(receipt, Fate::OverQuota);
                }
                return;
            }
        }
        let push = Push {
            receipt,
            ..payload.push(world.clock.now_ms())
        };
        world.deliver(Channel::Vivo, target, push);
    }

    fn today(&self, world: &World) -> MutexGuard<'_, Day> {
        let number = beijing_day(world.clock.now_ms());
        let mut day = lock(&self.state.day);
        if day.number != number {
            *day = Day {
                number,
                ..Day::default()
            };
        }
        day
    }

    /// The answer when every target of a call is invalid.
    fn all_invalid(&self, world: &World, call: &Call) -> Reply {
        let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        match call.path.as_str() {
            "/message/send" => {
                let target = text(&body, "regId").unwrap_or_default();
                illegal(1, &target, "regId不合法").reply()
            }
            "/message/pushToList" | "/invalidUser/check" => {
                let list = body.get("regIds").or_else(|| body.get("userIds"));
                let users: Vec<Value> = list
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .map(|id| json!({"status": 1, "userid": id}))
                    .collect();
                ok(json!({"invalidUsers": users}), "partial all invalid")
            }
            _ => self.decide(world, call).unwrap_or_else(Refusal::reply),
        }
    }
}

/// What vivo thinks of a regId that does not reach its app.
fn status(world: &World, id: &str) -> Option<i64> {
    match world.tokens.get(Channel::Vivo, id).map(|t| t.state) {
        Some(TokenState::Valid) => None,
        Some(TokenState::Dead { .. }) => Some(2),
        Some(TokenState::Expired { .. }) => Some(3),
        _ => Some(1),
    }
}

fn illegal(status: i64, id: &str, desc: &str) -> Refusal {
    Refusal {
        invalid_user: Some(json!({"status": status, "userid": id})),
        ..Refusal::new(10_302, desc)
    }
}

/// 23 digits, or `v2-` and more.
fn shaped(id: &str) -> bool {
    let digits = id.len() == 23 && id.bytes().all(|b| b.is_ascii_digit());
    let newer = id.starts_with("v2-")
        && id.len() > 50
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    digits || newer
}

fn limit_rate(second: &Mutex<(i64, u32)>, world: &World, most: u32) -> Result<(), Refusal> {
    let now = world.clock.now_s();
    let mut second = lock(second);
    if second.0 != now {
        *second = (now, 0);
    }
    second.1 = second.1.saturating_add(1);
    if second.1 > most {
        return Err(Refusal::new(10_072, "发送速度过快"));
    }
    Ok(())
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn text(body: &Value, name: &str) -> Option<String> {
    let text = body.get(name)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
