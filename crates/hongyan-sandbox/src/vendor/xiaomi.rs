//! Xiaomi `MiPush`, server API for mainland China.
//!
//! Sources: dev.mi.com documentation pages 1559 (API), 1560 (error codes), 1656 (quantity rule),
//! 2244 and 2422 (classification), 2314 (templates). Business errors come with HTTP 200. A regId
//! that is gone among living ones is not refused in the answer, as at Xiaomi: it comes back through
//! the callback (type 16) and the feedback queue. When none is left the answer is 20301, "No valid
//! targets!" (seen in wildfirechat/push_server, issue 5; the code is the one of a failed send).

mod message;
mod side;

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use http::Method;
use serde_json::{Value, json};

use self::message::Form;
use super::Simulator;
use super::counted::Counted;
use crate::accounts::{Accounts, base64_text};
use crate::channel::Channel;
use crate::clock::beijing_day;
use crate::dice::Dice;
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::limits;
use crate::push::{Fate, Push, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::tokens::TokenState;
use crate::world::World;

pub(super) const TARGETS_MAX: usize = 1000;
/// Requests per second of an app with few devices.
const PER_SECOND_MAX: u32 = 500;
/// What one device takes a day of one app: public channels, and messages without a channel.
const PUBLIC_PER_DEVICE_MAX: u32 = 5;
const DEFAULT_PER_DEVICE_MAX: u32 = 1;
/// The least that an app may send a day through a public channel.
const PUBLIC_PER_DAY_MIN: u64 = 10_000;

/// What the service remembers beyond device tokens.
#[derive(Debug, Default)]
pub(crate) struct State {
    day: Mutex<Day>,
    second: Mutex<(i64, u32)>,
    feedback: Mutex<VecDeque<String>>,
    /// Quotas that the operator set for a channel, messages a day.
    quotas: Mutex<HashMap<String, u64>>,
    /// Shown jobkeys by (token, jobkey).
    jobs: Mutex<VecDeque<(String, String)>>,
    messages: Mutex<VecDeque<(String, Counters)>>,
    rules: Mutex<Rules>,
}

/// Refusals that depend on when an app joined Xiaomi's newer rules.
#[derive(Debug, Clone, Copy, Default)]
struct Rules {
    channel_required: bool,
    template_required: bool,
}

#[derive(Debug, Default)]
struct Day {
    number: i64,
    by_channel: HashMap<String, u64>,
    by_device: HashMap<(String, &'static str), u32>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    at_ms: i64,
    sent: usize,
    resolved: usize,
}

/// A refusal with Xiaomi's code.
#[derive(Debug)]
pub(super) struct Refusal {
    code: i64,
    reason: String,
}

impl Refusal {
    pub(super) fn new(code: i64, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }

    fn reply(self) -> Reply {
        let body = json!({
            "result": "error", "reason": self.reason, "trace_id": trace_id(),
            "code": self.code, "description": self.reason,
        });
        Reply::json(200, &body, format!("refused {} {}", self.code, self.reason))
    }
}

pub(super) fn ok(data: &Value, info: &str, verdict: impl Into<String>) -> Reply {
    let body = json!({
        "result": "ok", "trace_id": trace_id(), "code": 0, "data": data,
        "description": "成功", "info": info,
    });
    Reply::json(200, &body, verdict)
}

fn trace_id() -> String {
    format!("Xcm{}", uuid::Uuid::new_v4().simple())
}

/// The simulator.
#[derive(Debug, Default)]
pub(crate) struct Xiaomi {
    counted: Counted,
}

impl Simulator for Xiaomi {
    fn channel(&self) -> Channel {
        Channel::Xiaomi
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        match super::segments(call).as_slice() {
            [
                "v2" | "v3",
                "message" | "multi_messages" | "schedule_job" | "topic" | "regid",
                ..,
            ]
            | [
                "v1",
                "trace" | "stats" | "feedback" | "validation" | "alias" | "topic" | "account"
                | "regid",
                ..,
            ]
            | ["revoke", "message"] => Some(Endpoint::Send),
            _ => None,
        }
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        decide(world, &self.counted, call).unwrap_or_else(Refusal::reply)
    }

    fn fault(&self, world: &World, call: &Call, kind: FaultKind) -> Reply {
        fault(world, call, kind)
    }

    fn new_token(&self, unique: &str, dice: &Dice) -> String {
        format!("{unique}{}", base64_text(dice, 32))
    }

    fn credential(&self, accounts: &Accounts) -> Value {
        let xiaomi = &accounts.xiaomi;
        json!({
            "app_secret": xiaomi.app_secret, "package": xiaomi.package_name,
            "channels": {
                "im": "100001", "transaction": "100002", "subscription": "100003", "marketing": "200001",
            },
        })
    }

    fn receipt(
        &self,
        receipt: &Receipt,
        fate: Fate,
        now_ms: i64,
        _console: Option<&ReceiptAddress>,
    ) -> Option<Post> {
        self.counted.add(&receipt.id, fate);
        let kind = match fate {
            Fate::Delivered => 1,
            Fate::Clicked => 2,
            Fate::TargetInvalid => 16,
            Fate::NotShown => 32,
            Fate::OverQuota => 128,
        };
        if receipt.kinds & kind == 0 {
            return None;
        }
        let mut entry = json!({
            "param": receipt.param, "type": kind, "targets": receipt.token,
            "jobkey": "", "timestamp": now_ms,
            "barStatus": if fate == Fate::NotShown { "Disable" } else { "Enable" },
        });
        if fate == Fate::OverQuota {
            entry["extra"] = json!({"ack": "0", "quota": "0"});
        }
        let data = json!({ receipt.id.as_str(): entry }).to_string();
        Some(Post::form(&receipt.url, &[("data", &data)]))
    }
}

fn fault(world: &World, call: &Call, kind: FaultKind) -> Reply {
    let refusal = match kind {
        FaultKind::RateLimited => Refusal::new(10027, "app calls the API too often"),
        FaultKind::QuotaExhausted => {
            let quota = quota(world, &Form::of(call).channel());
            Refusal::new(
                200_001,
                format!("exceed quota, quota: {quota}, have acked: {quota}"),
            )
        }
        FaultKind::TokenInvalid => Refusal::new(10029, "device invalid"),
        FaultKind::AuthExpired => Refusal::new(21301, "认证失败"),
        _ => return Reply::empty(503, "503 unavailable"),
    };
    refusal.reply()
}

/// Sets how many messages a channel takes a day, for tests of quotas; `None` restores the rule.
pub(crate) fn set_quota(world: &World, channel: &str, per_day: Option<u64>) {
    let mut quotas = lock(&world.xiaomi.quotas);
    match per_day {
        Some(per_day) if quotas.len() < 1000 => {
            quotas.insert(channel.to_owned(), per_day);
        }
        _ => {
            quotas.remove(channel);
        }
    }
}

/// Chooses whether the newer classification rules bind the app.
pub(crate) fn set_rules(world: &World, channel_required: bool, template_required: bool) {
    *lock(&world.xiaomi.rules) = Rules {
        channel_required,
        template_required,
    };
}

fn decide(world: &World, counted: &Counted, call: &Call) -> Result<Reply, Refusal> {
    let secret = call
        .header("authorization")
        .and_then(|header| header.strip_prefix("key="));
    if secret != Some(world.accounts.xiaomi.app_secret.as_str()) {
        return Err(Refusal::new(21301, "认证失败"));
    }
    let segments: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    let post = matches!(
        segments.as_slice(),
        [
            "v2" | "v3",
            "message" | "multi_messages" | "schedule_job",
            ..
        ] | ["v2", "topic", ..]
            | ["revoke", ..]
            | [_, "validation", ..]
    );
    if post != (call.method == Method::POST) {
        return Err(Refusal::new(
            10021,
            "HTTP method is not supported for this request",
        ));
    }
    let kind = call
        .header("content-type")
        .unwrap_or_default()
        .to_ascii_lowercase();
    if post && !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(Refusal::new(10007, "content type is not supported"));
    }
    if std::str::from_utf8(&call.body).is_err() {
        return Err(Refusal::new(10012, "illegal request, body is not UTF-8"));
    }
    limit_rate(world)?;
    match segments.as_slice() {
        ["v2" | "v3", "message", "regid"] => {
            let form = Form::of(call);
            let targets = form.targets("registration_id")?;
            send(world, &form, &targets)
        }
        [
            "v2" | "v3",
            "message",
            kind @ ("alias" | "user_account" | "miid"),
        ] => {
            let form = Form::of(call);
            let targets = form.targets(kind)?.len();
            let channel = form.check(world)?;
            admit(world, &form, &channel, targets)
        }
        [
            "v2" | "v3",
            "message",
            kind @ ("topic" | "multi_topic" | "all" | "region"),
        ] => {
            let form = Form::of(call);
            form.check_wide(kind)?;
            let channel = form.check(world)?;
            admit(world, &form, &channel, 1)
        }
        ["v2", "multi_messages", "regids"] => several(world, call),
        _ => side::handle(world, counted, call, &segments),
    }
}

fn send(world: &World, form: &Form, targets: &[String]) -> Result<Reply, Refusal> {
    let channel = form.check(world)?;
    let alive = |target: &String| {
        world
            .tokens
            .get(Channel::Xiaomi, target)
            .map(|token| token.state)
            == Some(TokenState::Valid)
    };
    if !targets.iter().any(alive) {
        targets.iter().for_each(|target| feed_back(world, target));
        return Err(Refusal::new(20301, "No valid targets!"));
    }
    let reply = admit(world, form, &channel, targets.len())?;
    let id = serde_json::from_slice::<Value>(&reply.body)
        .ok()
        .map(|body| crate::push::text(&body, "/data/id"))
        .unwrap_or_default();
    for target in targets {
        reach(world, form, &channel, &id, target);
    }
    Ok(reply)
}

/// Counts a send against the channel's day and answers it.
fn admit(world: &World, form: &Form, channel: &str, targets: usize) -> Result<Reply, Refusal> {
    let quota = quota(world, channel);
    let count = u64::try_from(targets).unwrap_or(u64::MAX);
    let acked = {
        let mut day = today(world);
        let acked = day.by_channel.entry(channel.to_owned()).or_default();
        if acked.saturating_add(count) > quota {
            let reason = format!("exceed quota, quota: {quota}, have acked: {acked}");
            return Err(Refusal::new(200_001, reason));
        }
        *acked += count;
        *acked
    };
    let id = format!("scm{}", uuid::Uuid::new_v4().simple());
    let mut messages = lock(&world.xiaomi.messages);
    while messages.len() >= limits::REQUESTS_KEPT_MAX {
        messages.pop_front();
    }
    let counters = Counters {
        at_ms: world.clock.now_ms(),
        sent: targets,
        resolved: targets,
    };
    messages.push_back((id.clone(), counters));
    let info = format!(
        "Received push messages for {targets} {}",
        form.target_noun()
    );
    let mut data = json!({"id": id});
    if quota < u64::MAX {
        data["day_quota"] = json!(quota.to_string());
        data["day_acked"] = json!(acked.to_string());
    }
    Ok(ok(&data, &info, "accepted"))
}

/// What happens for one regId after the send was accepted.
fn reach(world: &World, form: &Form, channel: &str, id: &str, target: &str) {
    // Without an address nothing is posted, but all is counted.
    let (url, param, kinds) = form.callback().unwrap_or_default();
    let receipt = Receipt {
        channel: Channel::Xiaomi,
        url,
        account: world.accounts.xiaomi.app_id.clone(),
        id: id.to_owned(),
        token: target.to_owned(),
        param,
        kinds,
    };
    let report = |fate| world.receipts.report(&receipt, fate);
    let state = world
        .tokens
        .get(Channel::Xiaomi, target)
        .map(|token| token.state);
    if state != Some(TokenState::Valid) {
        feed_back(world, target);
        report(Fate::TargetInvalid);
        return;
    }
    if let Some(job) = form.extra("jobkey") {
        let key = (target.to_owned(), job.to_owned());
        let mut jobs = lock(&world.xiaomi.jobs);
        if jobs.contains(&key) {
            return;
        }
        while jobs.len() >= limits::SEEN_MAX {
            jobs.pop_front();
        }
        jobs.push_back(key);
    }
    let per_device = match class(world, channel) {
        Class::Private => None,
        Class::Public => Some(("public", PUBLIC_PER_DEVICE_MAX)),
        Class::Default => Some(("default", DEFAULT_PER_DEVICE_MAX)),
    };
    if let Some((class, max)) = per_device.filter(|_| world.device_limits()) {
        let mut day = today(world);
        let full = day.by_device.len() >= limits::TOKENS_MAX;
        let count = if full {
            0
        } else {
            let count = day.by_device.entry((target.to_owned(), class)).or_default();
            *count += 1;
            *count
        };
        drop(day);
        if count > max {
            report(Fate::OverQuota);
            return;
        }
    }
    let push = Push {
        receipt: Some(receipt),
        ..form.push(world, class(world, channel))
    };
    world.deliver(Channel::Xiaomi, target, push);
}

/// Puts a dead regId into the queue that the sender may fetch.
fn feed_back(world: &World, target: &str) {
    let mut feedback = lock(&world.xiaomi.feedback);
    while feedback.len() >= limits::FEEDBACK_MAX {
        feedback.pop_front();
    }
    feedback.push_back(target.to_owned());
}

/// `POST /v2/multi_messages/regids`: another message for each target.
fn several(world: &World, call: &Call) -> Result<Reply, Refusal> {
    let outer = Form::of(call);
    let list: Vec<Value> = serde_json::from_str(outer.get("messages").unwrap_or_default())
        .map_err(|_| Refusal::new(65030, "JSON error in messages"))?;
    if list.is_empty() || list.len() > TARGETS_MAX {
        return Err(Refusal::new(10017, "messages must have 1 to 1000 entries"));
    }
    let mut ready = Vec::with_capacity(list.len());
    for entry in &list {
        let target = crate::push::text(entry, "/target");
        if target.is_empty() {
            return Err(Refusal::new(10016, "target is missing"));
        }
        let form = Form::of_item(entry.get("message").unwrap_or(&Value::Null))?;
        let channel = form.check(world)?;
        ready.push((target, form, channel));
    }
    let id = format!("scm{}", uuid::Uuid::new_v4().simple());
    let mut exceeded = Vec::<String>::new();
    for (target, form, channel) in &ready {
        if admit(world, form, channel, 1).is_ok() {
            reach(world, form, channel, &id, target);
        } else if !exceeded.contains(channel) {
            exceeded.push(channel.clone());
        }
    }
    let mut data = json!({"id": id});
    let mut verdict = "accepted".to_owned();
    if !exceeded.is_empty() {
        verdict = format!("partial channel_exceed_quota {}", exceeded.join(","));
        data["channel_exceed_quota"] = json!(exceeded.join(","));
    }
    let info = format!("Received push messages for {} REGID", ready.len());
    Ok(ok(&data, &info, verdict))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Private,
    Public,
    Default,
}

pub(super) fn class(world: &World, channel: &str) -> Class {
    match world
        .accounts
        .xiaomi
        .channels
        .get(channel)
        .map(|channel| channel.class.as_str())
    {
        Some("private") => Class::Private,
        Some(_) => Class::Public,
        None => Class::Default,
    }
}

fn quota(world: &World, channel: &str) -> u64 {
    if let Some(per_day) = lock(&world.xiaomi.quotas).get(channel) {
        return *per_day;
    }
    let devices = || u64::try_from(world.tokens.valid_count(Channel::Xiaomi)).unwrap_or(u64::MAX);
    match class(world, channel) {
        Class::Private => u64::MAX,
        Class::Public | Class::Default => (2 * devices()).max(PUBLIC_PER_DAY_MIN),
    }
}

fn limit_rate(world: &World) -> Result<(), Refusal> {
    let second = world.clock.now_s();
    let mut counted = lock(&world.xiaomi.second);
    if counted.0 != second {
        *counted = (second, 0);
    }
    counted.1 += 1;
    if counted.1 > PER_SECOND_MAX {
        return Err(Refusal::new(10027, "app calls the API too often"));
    }
    Ok(())
}

fn today(world: &World) -> std::sync::MutexGuard<'_, Day> {
    let number = beijing_day(world.clock.now_ms());
    let mut day = lock(&world.xiaomi.day);
    if day.number != number {
        *day = Day {
            number,
            ..Day::default()
        };
    }
    day
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
