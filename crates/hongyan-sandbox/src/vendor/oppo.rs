//! OPPO Push, server API for mainland China.
//!
//! Sources: open.oppomobile.com documents 11234 to 11239 (addresses, auth, fields, unicast, receipts), 13189
//! (classification of 2024-11-20); official Java server SDK 1.0.x. All answers come with HTTP 200. Where the documents leave
//! a choice it is a setting: how a repeated `app_message_id` is taken, whether an unpermitted service category is refused
//! (67) or silently marketing. Names of receipt events are not confirmed.

mod notification;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Method;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::notification::{Checked, Notification};
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

const AUTH: &str = "/server/v1/auth";
const PREFIX: &str = "/server/v1/message/notification/";
const FEEDBACK: &str = "/server/v1/feedback/fetch_invalid_regidList";

const TARGETS_MAX: usize = 1000;
/// Life of an access token, seconds.
const TOKEN_LIFE_S: i64 = 86_400;
/// How far the sender's clock may be off, milliseconds.
const CLOCK_MS_MAX: i64 = 600_000;
/// Targets a second of an app with fewer than 10 million users.
const PER_SECOND_MAX: usize = 5000;
/// Marketing messages a day of an app with fewer than 50,000 users; larger ones have twice their users.
const MARKETING_PER_DAY: u64 = 100_000;
const SMALL_APP_USERS_MAX: u64 = 50_000;
/// Marketing messages that one device shows of an app that is none for news.
const PER_DEVICE_MAX: u32 = 2;
const CONTENTS_MAX: usize = 4096;
/// Registration ids in one answer of the feedback call.
const FEEDBACK_PAGE: usize = 100;

/// What OPPO's console shows for an app.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct OppoAccount {
    package: String,
    app_id: String,
    app_key: String,
    app_secret: String,
    master_secret: String,
}

impl fmt::Debug for OppoAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OppoAccount")
            .field("app_id", &self.app_id)
            .finish_non_exhaustive()
    }
}

impl OppoAccount {
    fn made(dice: &Dice) -> Self {
        Self {
            package: PACKAGE.to_owned(),
            app_id: format!("3{}", dice.text(b"0123456789", 7)),
            app_key: dice.text(HEX, 32),
            app_secret: uuid::Uuid::new_v4().simple().to_string(),
            master_secret: uuid::Uuid::new_v4().simple().to_string(),
        }
    }
}

/// What the operator may choose.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Marketing messages a day; absent: OPPO's own rule.
    marketing_per_day: Option<u64>,
    /// Service categories that the app was granted; absent: all.
    granted: Option<BTreeSet<String>>,
    /// Whether level 16 was granted.
    level_16: bool,
    /// Whether a service category without permission is taken as marketing instead of refused.
    downgrade: bool,
    /// Whether the app may send to lists.
    broadcast: bool,
    /// Whether a repeated `app_message_id` is refused (32) instead of taken and not shown again.
    refuse_duplicates: bool,
    /// Whether the older limit of 200 characters holds for content.
    old_texts: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            marketing_per_day: None,
            granted: None,
            level_16: true,
            downgrade: false,
            broadcast: true,
            refuse_duplicates: false,
            old_texts: false,
        }
    }
}

/// A refusal with OPPO's code.
#[derive(Debug)]
struct Refusal {
    code: i64,
    message: String,
}

impl Refusal {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn reply(self) -> Reply {
        let body = json!({"code": self.code, "message": self.message});
        let verdict = format!("refused {} {}", self.code, self.message);
        Reply::json(200, &body, verdict)
    }
}

fn ok(data: &Value, verdict: impl Into<String>) -> Reply {
    let body = json!({"code": 0, "message": "Success", "data": data});
    Reply::json(200, &body, verdict)
}

/// 24 hex digits, as OPPO's message ids are.
fn new_id() -> String {
    let mut id = uuid::Uuid::new_v4().simple().to_string();
    id.truncate(24);
    id
}

#[derive(Debug, Default)]
struct Day {
    number: i64,
    marketing: u64,
    by_device: HashMap<String, u32>,
}

/// A stored content.
#[derive(Debug, Clone)]
struct Content {
    id: String,
    app_message_id: String,
    notification: Notification,
}

#[derive(Debug, Default)]
struct State {
    settings: Mutex<Settings>,
    access: AccessTokens,
    contents: Mutex<VecDeque<Content>>,
    /// Shown messages by (app message id or stored content, registration id).
    seen: Mutex<VecDeque<(String, String)>>,
    day: Mutex<Day>,
    second: Mutex<(i64, usize)>,
    feedback: Mutex<VecDeque<String>>,
}

/// The simulator.
#[derive(Debug)]
pub(crate) struct Oppo {
    account: OppoAccount,
    state: State,
}

impl Oppo {
    pub(crate) fn open(accounts: &mut Accounts, dice: &Dice) -> Self {
        Self::of(accounts.of("oppo", || OppoAccount::made(dice)))
    }

    fn of(account: OppoAccount) -> Self {
        Self {
            account,
            state: State::default(),
        }
    }
}

impl Simulator for Oppo {
    fn channel(&self) -> Channel {
        Channel::Oppo
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        if call.path == AUTH {
            return Some(Endpoint::Auth);
        }
        call.path
            .starts_with("/server/v1/")
            .then_some(Endpoint::Send)
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        self.decide(world, call).unwrap_or_else(Refusal::reply)
    }

    fn fault(&self, world: &World, call: &Call, kind: FaultKind) -> Reply {
        let refusal = match kind {
            FaultKind::RateLimited => Refusal::new(55, "Call frequency over limit"),
            FaultKind::QuotaExhausted => {
                Refusal::new(33, "The number of messages exceeds the daily limit")
            }
            FaultKind::AuthExpired if call.path == AUTH => Refusal::new(16, "Invalid Signature"),
            FaultKind::AuthExpired => {
                if let Some(token) = auth_token(call) {
                    self.state.access.expire(&token);
                }
                Refusal::new(11, "Invalid AuthToken")
            }
            FaultKind::TokenInvalid => return self.all_invalid(world, call),
            _ => Refusal::new(-1, "Service Currently Unavailable"),
        };
        refusal.reply()
    }

    fn new_token(&self, unique: &str, _dice: &Dice) -> String {
        format!("OPPO_CN_{unique}")
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        json!({
            "app_key": self.account.app_key, "master_secret": self.account.master_secret,
            "granted": ["im", "transaction", "subscription"],
        })
    }

    fn receipt(
        &self,
        receipt: &Receipt,
        fate: Fate,
        now_ms: i64,
        _console: Option<&ReceiptAddress>,
    ) -> Option<Post> {
        let event = match fate {
            Fate::Delivered => "push_arrive",
            Fate::TargetInvalid => "regid_invalid",
            Fate::OverQuota => "user_daily_limit",
            Fate::NotShown => "notification_off",
            Fate::Clicked => return None,
        };
        let body = json!([{
            "messageId": receipt.id, "appId": receipt.account, "taskId": receipt.id,
            "registrationIds": receipt.token, "eventTime": now_ms.to_string(),
            "param": receipt.param, "eventType": event,
        }]);
        Some(Post::json(&receipt.url, &body))
    }

    fn set_rules(&self, rules: &Value) -> Result<(), String> {
        let settings = serde_json::from_value(rules.clone()).map_err(|e| e.to_string())?;
        *lock(&self.state.settings) = settings;
        Ok(())
    }
}

/// The field of a form.
fn field(form: &[(String, String)], name: &str) -> Option<String> {
    form.iter()
        .find(|(n, _)| n == name)
        .map(|(_, value)| value.clone())
}

/// The access token: a form field, a query parameter of the feedback call, and with some clients a header.
fn auth_token(call: &Call) -> Option<String> {
    field(&call.form(), "auth_token")
        .or_else(|| field(&call.query_pairs(), "auth_token"))
        .or_else(|| call.header("auth_token").map(str::to_owned))
}

/// Whether a text has the shape of a registration id: hex digits after an optional region and an optional brand.
fn shaped(id: &str) -> bool {
    let mut parts: Vec<&str> = id.split('_').collect();
    let Some(hex) = parts.pop() else { return false };
    let region = parts.pop();
    let brand = parts.pop();
    let digits = hex.bytes().all(|b| b.is_ascii_hexdigit());
    let length = hex.len() == 32 || (hex.len() == 24 && region.is_none());
    let region = region
        .is_none_or(|r| r == "EUEX" || (r.len() == 2 && r.bytes().all(|b| b.is_ascii_uppercase())));
    let brand = brand.is_none_or(|b| {
        (2..=10).contains(&b.len()) && b.bytes().all(|c| c.is_ascii_alphanumeric())
    });
    digits && length && region && brand && parts.is_empty()
}

impl Oppo {
    fn decide(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let feedback = call.path == FEEDBACK;
        let method = if feedback { Method::GET } else { Method::POST };
        if call.method != method {
            return Err(Refusal::new(12, "HTTP Action Not Allowed"));
        }
        let kind = call.header("content-type").unwrap_or_default();
        let is_form = kind
            .to_ascii_lowercase()
            .starts_with("application/x-www-form-urlencoded");
        if !feedback && !is_form {
            return Err(Refusal::new(41, "Invalid Arguments: content type"));
        }
        if std::str::from_utf8(&call.body).is_err() {
            return Err(Refusal::new(25, "Encoding Error: not UTF-8"));
        }
        if call.path == AUTH {
            return self.auth(world, call);
        }
        match auth_token(call) {
            None => return Err(Refusal::new(29, "Missing AuthToken")),
            Some(token) if self.state.access.worth(&token, world.clock.now_s()) != Worth::Good => {
                return Err(Refusal::new(11, "Invalid AuthToken"));
            }
            Some(_) => {}
        }
        let form = call.form();
        match call.path.strip_prefix(PREFIX) {
            Some("unicast") => self.unicast(world, &form),
            Some("unicast_batch") => self.several(world, &form),
            Some("save_message_content") => self.save(&form),
            Some("broadcast") => self.broadcast(world, &form),
            None if feedback => Ok(self.feed_back()),
            _ => Err(Refusal::new(20, "Invalid Method")),
        }
    }

    fn auth(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let form = call.form();
        let key = field(&form, "app_key").ok_or_else(|| Refusal::new(15, "Missing AppKey"))?;
        let sign = field(&form, "sign").ok_or_else(|| Refusal::new(17, "Missing Signature"))?;
        let timestamp =
            field(&form, "timestamp").ok_or_else(|| Refusal::new(18, "Missing Timestamp"))?;
        if key != self.account.app_key {
            return Err(Refusal::new(14, "Invalid AppKey"));
        }
        let now = world.clock.now_ms();
        let fresh = timestamp.len() == 13
            && timestamp
                .parse::<i64>()
                .is_ok_and(|at| now.abs_diff(at) <= CLOCK_MS_MAX.unsigned_abs());
        if !fresh {
            return Err(Refusal::new(19, "Invalid Timestamp"));
        }
        let signed = format!("{key}{timestamp}{}", self.account.master_secret);
        let whole = digest(&SHA256, signed.as_bytes());
        let right: String = whole.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        if sign != right {
            return Err(Refusal::new(16, "Invalid Signature"));
        }
        let token = self
            .state
            .access
            .issue("", world.clock.now_s(), TOKEN_LIFE_S);
        let data = json!({"auth_token": token, "create_time": now});
        Ok(ok(&data, "accepted auth"))
    }

    fn settings(&self) -> Settings {
        lock(&self.state.settings).clone()
    }

    fn unicast(&self, world: &World, form: &[(String, String)]) -> Result<Reply, Refusal> {
        let message = json_field(form, "message")?;
        let (target, notification) = single(&message)?;
        let checked = notification.check(&self.settings(), false)?;
        self.limit_rate(world, 1)?;
        self.reachable(world, &target)?;
        self.admit(world, &checked, 1)?;
        let id = new_id();
        let known = notification.text("app_message_id").unwrap_or_default();
        if !self.first(&known, &target) {
            if self.settings().refuse_duplicates {
                return Err(Refusal::new(32, "Data Duplicate"));
            }
            return Ok(ok(&json!({"messageId": id}), "accepted, seen before"));
        }
        self.reach(world, &notification, &checked, &id, &target);
        Ok(ok(&json!({"messageId": id}), "accepted"))
    }

    /// `unicast_batch`: other messages to other targets; a target that is at fault is told beside the others.
    fn several(&self, world: &World, form: &[(String, String)]) -> Result<Reply, Refusal> {
        let Value::Array(list) = json_field(form, "messages")? else {
            return Err(Refusal::new(
                41,
                "Invalid Arguments: messages is not a list",
            ));
        };
        if list.is_empty() || list.len() > TARGETS_MAX {
            return Err(Refusal::new(
                41,
                "Invalid Arguments: 1 to 1000 messages are allowed",
            ));
        }
        let settings = self.settings();
        let mut ready = Vec::with_capacity(list.len());
        for item in &list {
            let (target, notification) = single(item)?;
            let checked = notification.check(&settings, false)?;
            ready.push((target, notification, checked));
        }
        self.limit_rate(world, ready.len())?;
        let mut failed = 0;
        let mut answers = Vec::with_capacity(ready.len());
        for (target, notification, checked) in &ready {
            let id = new_id();
            let taken = self
                .reachable(world, target)
                .and_then(|()| self.admit(world, checked, 1));
            match taken {
                Ok(()) => {
                    let known = notification.text("app_message_id").unwrap_or_default();
                    if self.first(&known, target) {
                        self.reach(world, notification, checked, &id, target);
                    }
                    answers.push(json!({"messageId": id, "registrationId": target}));
                }
                Err(refusal) => {
                    failed += 1;
                    answers.push(json!({
                        "registrationId": target, "errorCode": refusal.code,
                        "errorMessage": refusal.message,
                    }));
                }
            }
        }
        let verdict = match failed {
            0 => format!("accepted {}", answers.len()),
            _ => format!("partial {failed} of {} refused", answers.len()),
        };
        Ok(ok(&json!(answers), verdict))
    }

    fn save(&self, form: &[(String, String)]) -> Result<Reply, Refusal> {
        let fields: Map<String, Value> = form
            .iter()
            .filter(|(name, _)| name != "auth_token")
            .map(|(name, value)| (name.clone(), value.as_str().into()))
            .collect();
        let notification = Notification::of(fields);
        let settings = self.settings();
        notification.check(&settings, true)?;
        if !settings.broadcast {
            return Err(Refusal::new(30, "No Permission for broadcast"));
        }
        let app_message_id = notification.text("app_message_id").unwrap_or_default();
        let mut contents = lock(&self.state.contents);
        let known = contents
            .iter()
            .find(|c| !app_message_id.is_empty() && c.app_message_id == app_message_id);
        if let Some(content) = known {
            if settings.refuse_duplicates {
                return Err(Refusal::new(32, "Data Duplicate"));
            }
            let data = json!({"message_id": content.id});
            return Ok(ok(&data, "accepted, stored before"));
        }
        let id = new_id();
        while contents.len() >= CONTENTS_MAX {
            contents.pop_front();
        }
        contents.push_back(Content {
            id: id.clone(),
            app_message_id,
            notification,
        });
        Ok(ok(&json!({"message_id": id}), "accepted content"))
    }

    fn broadcast(&self, world: &World, form: &[(String, String)]) -> Result<Reply, Refusal> {
        let id = field(form, "message_id")
            .ok_or_else(|| Refusal::new(40, "Missing Required Arguments: message_id"))?;
        let settings = self.settings();
        if !settings.broadcast {
            return Err(Refusal::new(30, "No Permission for broadcast"));
        }
        let content = lock(&self.state.contents)
            .iter()
            .find(|c| c.id == id)
            .cloned()
            .ok_or_else(|| Refusal::new(31, "Data Not Exist: message_id"))?;
        let list = field(form, "target_value").unwrap_or_default();
        let targets: Vec<&str> = list.split(';').filter(|t| !t.is_empty()).collect();
        match field(form, "target_type").as_deref() {
            Some("1") if targets.is_empty() => {}
            Some("2") if (1..=TARGETS_MAX).contains(&targets.len()) => {}
            _ => {
                return Err(Refusal::new(
                    41,
                    "Invalid Arguments: target_type or target_value",
                ));
            }
        }
        let checked = content.notification.check(&settings, true)?;
        self.limit_rate(world, targets.len())?;
        self.admit(world, &checked, targets.len().max(1))?;
        let mut data = json!({"message_id": id, "task_id": new_id()});
        let mut failed = 0;
        for target in &targets {
            match self.reachable(world, target) {
                Ok(()) => self.reach(world, &content.notification, &checked, &id, target),
                Err(refusal) => {
                    failed += 1;
                    let key = refusal.code.to_string();
                    match data.get_mut(&key).and_then(Value::as_array_mut) {
                        Some(list) => list.push(json!(target)),
                        None => data[&key] = json!([target]),
                    }
                }
            }
        }
        let verdict = match failed {
            0 => format!("accepted {}", targets.len()),
            _ => format!("partial {failed} of {} refused", targets.len()),
        };
        Ok(ok(&data, verdict))
    }

    /// Takes some ids out of the queue of invalid ones.
    fn feed_back(&self) -> Reply {
        let mut queue = lock(&self.state.feedback);
        let page = queue.len().min(FEEDBACK_PAGE);
        let ids: Vec<String> = queue.drain(..page).collect();
        let data = json!({"registration_ids": ids, "totalCount": ids.len()});
        ok(&data, "accepted feedback")
    }

    /// Whether the id is one of a device that has the app.
    fn reachable(&self, world: &World, target: &str) -> Result<(), Refusal> {
        if !shaped(target) {
            return Err(Refusal::new(10_000, "Invalid RegistrationId"));
        }
        let state = world.tokens.get(Channel::Oppo, target).map(|t| t.state);
        if state == Some(TokenState::Valid) {
            return Ok(());
        }
        let mut queue = lock(&self.state.feedback);
        while queue.len() >= limits::FEEDBACK_MAX {
            queue.pop_front();
        }
        queue.push_back(target.to_owned());
        match state {
            Some(TokenState::Expired { .. }) => {
                Err(Refusal::new(10_001, "RegistrationId is unsubscribed"))
            }
            _ => Err(Refusal::new(10_000, "Invalid RegistrationId")),
        }
    }

    /// Counts a send against the app's day.
    fn admit(&self, world: &World, checked: &Checked, targets: usize) -> Result<(), Refusal> {
        if checked.service {
            return Ok(());
        }
        let users = u64::try_from(world.tokens.valid_count(Channel::Oppo)).unwrap_or(u64::MAX);
        let rule = if users < SMALL_APP_USERS_MAX {
            MARKETING_PER_DAY
        } else {
            users.saturating_mul(2)
        };
        let most = self.settings().marketing_per_day.unwrap_or(rule);
        let count = u64::try_from(targets).unwrap_or(u64::MAX);
        let mut day = self.today(world);
        if day.marketing.saturating_add(count) > most {
            return Err(Refusal::new(
                33,
                "The number of messages exceeds the daily limit",
            ));
        }
        day.marketing += count;
        Ok(())
    }

    fn limit_rate(&self, world: &World, targets: usize) -> Result<(), Refusal> {
        let now = world.clock.now_s();
        let mut second = lock(&self.state.second);
        if second.0 != now {
            *second = (now, 0);
        }
        second.1 = second.1.saturating_add(targets);
        if second.1 > PER_SECOND_MAX {
            return Err(Refusal::new(55, "Call frequency over limit"));
        }
        Ok(())
    }

    /// Whether this message is new to this device.
    fn first(&self, app_message_id: &str, target: &str) -> bool {
        if app_message_id.is_empty() {
            return true;
        }
        let key = (app_message_id.to_owned(), target.to_owned());
        let mut seen = lock(&self.state.seen);
        if seen.contains(&key) {
            return false;
        }
        while seen.len() >= limits::SEEN_MAX {
            seen.pop_front();
        }
        seen.push_back(key);
        true
    }

    /// What happens for one registration id after the send was accepted.
    fn reach(
        &self,
        world: &World,
        notification: &Notification,
        checked: &Checked,
        id: &str,
        target: &str,
    ) {
        let receipt = notification.text("call_back_url").map(|url| Receipt {
            channel: Channel::Oppo,
            url,
            account: self.account.app_id.clone(),
            id: id.to_owned(),
            token: target.to_owned(),
            param: notification.text("call_back_parameter").unwrap_or_default(),
            kinds: u32::MAX,
        });
        if !checked.service && world.device_limits() {
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
            ..notification.push(world.clock.now_ms())
        };
        world.deliver(Channel::Oppo, target, push);
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
        let form = call.form();
        match call.path.strip_prefix(PREFIX) {
            Some("unicast") => Refusal::new(10_000, "Invalid RegistrationId").reply(),
            Some("broadcast") => {
                let list = field(&form, "target_value").unwrap_or_default();
                let ids: Vec<&str> = list.split(';').collect();
                let data = json!({"message_id": new_id(), "task_id": new_id(), "10000": ids});
                ok(&data, "partial all invalid")
            }
            Some("unicast_batch") => {
                let list = json_field(&form, "messages").unwrap_or_default();
                let items = list.as_array().into_iter().flatten().map(|item| {
                    json!({"registrationId": item.get("target_value"), "errorCode": 10_000,
                           "errorMessage": "Invalid RegistrationId"})
                });
                ok(&items.collect(), "partial all invalid")
            }
            _ => self.decide(world, call).unwrap_or_else(Refusal::reply),
        }
    }
}

fn json_field(form: &[(String, String)], name: &str) -> Result<Value, Refusal> {
    let text = field(form, name)
        .ok_or_else(|| Refusal::new(40, format!("Missing Required Arguments: {name}")))?;
    serde_json::from_str(&text)
        .map_err(|_| Refusal::new(41, format!("Invalid Arguments: {name} is not JSON")))
}

/// Target and notification of a message object.
fn single(message: &Value) -> Result<(String, Notification), Refusal> {
    let kind = message.get("target_type").and_then(notification::whole);
    let target = message
        .get("target_value")
        .and_then(Value::as_str)
        .filter(|t| !t.is_empty())
        .ok_or_else(|| Refusal::new(40, "Missing Required Arguments: target_value"))?;
    match kind {
        Some(2) => {}
        // Aliases are bound by the client SDK; the phones here bind none.
        Some(3 | 5) => return Err(Refusal::new(10_002, "Invalid Alias")),
        _ => return Err(Refusal::new(41, "Invalid Arguments: target_type")),
    }
    let notification = message
        .get("notification")
        .and_then(Value::as_object)
        .ok_or_else(|| Refusal::new(40, "Missing Required Arguments: notification"))?;
    Ok((target.to_owned(), Notification::of(notification.clone())))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registration_ids_have_their_shape() {
        let hex = "0123456789abcdef0123456789ABCDEF";
        let check = |id: &str, want: bool| assert_eq!(shaped(id), want, "{id}");
        check(hex, true);
        check(&hex[..24], true);
        check(&format!("CN_{hex}"), true);
        check(&format!("EUEX_{hex}"), true);
        check(&format!("OPPO_CN_{hex}"), true);
        check(&format!("cn_{hex}"), false);
        check(&format!("CN_{}", &hex[..24]), false);
        check(&format!("X_OPPO_CN_{hex}"), false);
        check("", false);
    }
}
