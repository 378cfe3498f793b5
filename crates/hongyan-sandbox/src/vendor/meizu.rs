//! Meizu Flyme Push, server API for mainland China.
//!
//! Source: GitHub MEIZUPUSH/PushAPI (HTTP document of 2025-04), MEIZUPUSH/JavaSdk, Meizu's notice on message classes of 2025.
//! Every answer has HTTP 200; targets that fail are named in `value`. Tasks for all users and for tags are taken and reach
//! nobody; aliases are not subscribed by anyone.
//!
//! Rules that can be set: `news` (the licence), `vip`, `registered_only` (only the console's address takes receipts),
//! `per_day` (messages of the app), `switched_off` (pushIds whose switch is off).

mod message;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Method;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Simulator;
use crate::accounts::{Accounts, PACKAGE};
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

const BASE: &str = "/garcia/api/server/push/";
const TARGETS_MAX: usize = 100;
const PER_SECOND_MAX: u32 = 200;
/// Public messages of one app to one device and day: news apps, and others.
const NEWS_PER_DEVICE_MAX: u32 = 5;
const PUBLIC_PER_DEVICE_MAX: u32 = 3;
/// Messages of one app to one device within a minute; more are folded.
const PER_MINUTE_MAX: u32 = 5;
const TASKS_MAX: usize = 1000;

/// What the console shows for an app.
#[derive(Clone, Serialize, Deserialize)]
struct Account {
    package: String,
    app_id: String,
    app_key: String,
    app_secret: String,
    /// The token of the receipt management.
    receipt_token: String,
}

/// What depends on the app's standing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rules {
    news: bool,
    vip: bool,
    registered_only: bool,
    per_day: Option<u64>,
    switched_off: BTreeSet<String>,
}

/// Counters of one Beijing day.
#[derive(Debug, Default)]
struct Day {
    number: i64,
    sent: u64,
    public: HashMap<String, u32>,
}

/// The simulator with its account.
pub(crate) struct Meizu {
    account: Account,
    rules: Mutex<Rules>,
    day: Mutex<Day>,
    second: Mutex<(i64, u32)>,
    /// The minute, and how many messages each device had in it.
    minute: Mutex<(i64, HashMap<String, u32>)>,
    tasks: Mutex<VecDeque<(String, Value)>>,
}

impl std::fmt::Debug for Meizu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meizu")
            .field("app_id", &self.account.app_id)
            .finish_non_exhaustive()
    }
}

/// A refusal with Meizu's code.
#[derive(Debug)]
struct Refusal(&'static str, String);

impl Refusal {
    fn new(code: &'static str, why: impl Into<String>) -> Self {
        Self(code, why.into())
    }

    fn reply(&self) -> Reply {
        let Self(code, why) = self;
        answer(code, why, &json!(""), "", format!("refused {code} {why}"))
    }
}

fn answer(code: &str, message: &str, value: &Value, id: &str, verdict: String) -> Reply {
    let body =
        json!({"code": code, "message": message, "value": value, "msgId": id, "redirect": ""});
    Reply::json(200, &body, verdict)
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Shown,
    Silent,
}

impl Meizu {
    /// The simulator; its account is made on the first start.
    pub(crate) fn open(accounts: &mut Accounts, dice: &Dice) -> Self {
        const DIGITS: &[u8] = b"0123456789";
        let secret = || uuid::Uuid::new_v4().simple().to_string();
        let account = accounts.of("meizu", || Account {
            package: PACKAGE.to_owned(),
            app_id: format!("1{}", dice.text(DIGITS, 5)),
            app_key: secret(),
            app_secret: secret(),
            receipt_token: secret(),
        });
        Self {
            account,
            rules: Mutex::default(),
            day: Mutex::default(),
            second: Mutex::default(),
            minute: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    fn decide(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let kind = call.header("content-type").unwrap_or_default();
        if call.method != Method::POST
            || !kind
                .to_ascii_lowercase()
                .starts_with("application/x-www-form-urlencoded")
        {
            return Err(Refusal::new("1005", "a form by POST is wanted"));
        }
        let form: BTreeMap<String, String> = call.form().into_iter().collect();
        self.authenticate(&form)?;
        self.limit_rate(world)?;
        let parameter = |name: &str| {
            let found = form.get(name).filter(|value| !value.is_empty());
            found.ok_or_else(|| Refusal::new("110004", format!("parameter {name} is empty")))
        };
        let parsed = || {
            let text = parameter("messageJson")?;
            serde_json::from_str::<Value>(text)
                .map_err(|_| Refusal::new("1005", "messageJson is not JSON"))
        };
        match call.path.strip_prefix(BASE).unwrap_or_default() {
            "varnished/pushByPushId" => {
                let targets = targets(parameter("pushIds")?)?;
                let message = parsed()?;
                self.send(world, What::Shown, &message, &targets)
            }
            "unvarnished/pushByPushId" => {
                let targets = targets(parameter("pushIds")?)?;
                let message = parsed()?;
                self.send(world, What::Silent, &message, &targets)
            }
            "varnished/pushByAlias" => {
                let aliases = targets(parameter("alias")?)?;
                self.check(world, What::Shown, &parsed()?)?;
                let value = json!({"110005": aliases});
                Ok(answer(
                    "200",
                    "",
                    &value,
                    &id(),
                    "no alias is subscribed".to_owned(),
                ))
            }
            "pushTask/getTaskId" => {
                let message = parsed()?;
                self.check(world, What::Shown, &message)?;
                let task = self.keep_task(&message);
                let value = json!({"taskId": task, "pushType": 0, "appId": self.account.app_id});
                Ok(answer("200", "", &value, &id(), "accepted task".to_owned()))
            }
            "task/varnished/pushByPushId" => {
                let targets = targets(parameter("pushIds")?)?;
                let task = parameter("taskId")?;
                let found = lock(&self.tasks)
                    .iter()
                    .find(|(held, _)| held == task)
                    .map(|(_, message)| message.clone());
                let message = found.ok_or_else(|| Refusal::new("110032", "taskId is illegal"))?;
                self.send(world, What::Shown, &message, &targets)
            }
            "pushTask/pushToApp" | "pushTask/pushToTag" => {
                let message = parsed()?;
                self.check(world, What::Shown, &message)?;
                let value = json!({"taskId": self.keep_task(&message), "pushType": 0});
                Ok(answer(
                    "200",
                    "",
                    &value,
                    &id(),
                    "accepted for many".to_owned(),
                ))
            }
            "pushTask/cancel" => {
                let task = parameter("taskId")?;
                let mut tasks = lock(&self.tasks);
                let known = tasks.len();
                tasks.retain(|(held, _)| held != task);
                if tasks.len() == known {
                    return Err(Refusal::new("110032", "taskId is illegal"));
                }
                Ok(answer(
                    "200",
                    "",
                    &json!({"result": true}),
                    "",
                    "cancelled".to_owned(),
                ))
            }
            _ => Err(Refusal::new("1005", "no such interface")),
        }
    }

    /// MD5 over the parameters by name and the secret.
    fn authenticate(&self, form: &BTreeMap<String, String>) -> Result<(), Refusal> {
        if form.get("appId") != Some(&self.account.app_id) {
            return Err(Refusal::new("110000", "appId is illegal"));
        }
        let mut hash = Md5::new();
        for (name, value) in form.iter().filter(|(name, _)| *name != "sign") {
            hash.update(format!("{name}={value}"));
        }
        hash.update(&self.account.app_secret);
        let wanted = hash
            .finalize()
            .iter()
            .fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            });
        match form.get("sign") {
            Some(sign) if *sign == wanted => Ok(()),
            _ => Err(Refusal::new("1006", "the signature is wrong")),
        }
    }

    fn keep_task(&self, message: &Value) -> String {
        let mut tasks = lock(&self.tasks);
        while tasks.len() >= TASKS_MAX {
            tasks.pop_front();
        }
        let task = (uuid::Uuid::new_v4().as_u128() % 1_000_000_000).to_string();
        tasks.push_back((task.clone(), message.clone()));
        task
    }

    fn check(&self, world: &World, what: What, message: &Value) -> Result<(), Refusal> {
        let rules = lock(&self.rules).clone();
        message::check(message, what, rules.vip)?;
        let url = message.pointer("/extra/callback").and_then(Value::as_str);
        if let Some(url) = url.filter(|_| rules.registered_only) {
            let console = world.receipts.console(Channel::Meizu);
            if console.is_none_or(|console| console.url != url) {
                let why = "extra.callback is not in the receipt management";
                return Err(Refusal::new("1005", why));
            }
        }
        Ok(())
    }

    fn send(
        &self,
        world: &World,
        what: What,
        message: &Value,
        targets: &[String],
    ) -> Result<Reply, Refusal> {
        self.check(world, what, message)?;
        self.admit(world, targets.len())?;
        let id = id();
        let mut failed: BTreeMap<&'static str, Vec<&String>> = BTreeMap::new();
        for target in targets {
            let fault = self.fault_of(world, target).or_else(|| {
                let push = self.incoming(world, what, message, &id, target);
                self.pass(world, target, push, message::is_public(message))
            });
            if let Some(code) = fault {
                failed.entry(code).or_default().push(target);
            }
        }
        let verdict = match failed.is_empty() {
            true => "accepted".to_owned(),
            false => format!(
                "partial {}",
                Vec::from_iter(failed.keys().copied()).join(",")
            ),
        };
        Ok(answer("200", "", &json!(failed), &id, verdict))
    }

    /// Counts against the app's day.
    fn admit(&self, world: &World, targets: usize) -> Result<(), Refusal> {
        let most = lock(&self.rules).per_day.unwrap_or(u64::MAX);
        let count = u64::try_from(targets).unwrap_or(u64::MAX);
        let mut day = self.today(world);
        if day.sent.saturating_add(count) > most {
            return Err(Refusal::new(
                "110019",
                "the app's messages of the day are used up",
            ));
        }
        day.sent += count;
        Ok(())
    }

    /// Why a target cannot be sent to.
    fn fault_of(&self, world: &World, target: &str) -> Option<&'static str> {
        if lock(&self.rules).switched_off.contains(target) {
            return Some("110010");
        }
        match world.tokens.get(Channel::Meizu, target).map(|it| it.state) {
            Some(TokenState::Valid) => None,
            Some(TokenState::Dead { .. } | TokenState::Expired { .. }) => Some("110002"),
            Some(TokenState::OtherApp | TokenState::OtherEnvironment) | None => Some("110003"),
        }
    }

    /// Brings a push to its phone, or says why not.
    fn pass(&self, world: &World, target: &str, push: Push, public: bool) -> Option<&'static str> {
        if world.device_limits() && push.visible {
            if public && !self.count_public(world, target) {
                return Some("110011");
            }
            if !self.count_minute(world, target) {
                return Some("520");
            }
        }
        world.deliver(Channel::Meizu, target, push);
        None
    }

    fn incoming(&self, world: &World, what: What, message: &Value, id: &str, target: &str) -> Push {
        let receipt = message::callback(message).map(|(url, param, kinds)| Receipt {
            channel: Channel::Meizu,
            url,
            account: self.account.app_id.clone(),
            id: id.to_owned(),
            token: target.to_owned(),
            param,
            kinds,
        });
        Push {
            receipt,
            ..message::push(message, what, world.clock.now_ms())
        }
    }

    fn limit_rate(&self, world: &World) -> Result<(), Refusal> {
        let second = world.clock.now_s();
        let mut counted = lock(&self.second);
        if counted.0 != second {
            *counted = (second, 0);
        }
        counted.1 += 1;
        if counted.1 > PER_SECOND_MAX {
            return Err(Refusal::new("110010", "the app pushes too fast"));
        }
        Ok(())
    }

    fn today(&self, world: &World) -> MutexGuard<'_, Day> {
        let number = beijing_day(world.clock.now_ms());
        let mut day = lock(&self.day);
        if day.number != number {
            *day = Day {
                number,
                ..Day::default()
            };
        }
        day
    }

    fn count_public(&self, world: &World, target: &str) -> bool {
        let most = match lock(&self.rules).news {
            true => NEWS_PER_DEVICE_MAX,
            false => PUBLIC_PER_DEVICE_MAX,
        };
        count(&mut self.today(world).public, target) <= most
    }

    fn count_minute(&self, world: &World, target: &str) -> bool {
        let minute = world.clock.now_s().div_euclid(60);
        let mut counted = lock(&self.minute);
        if counted.0 != minute {
            *counted = (minute, HashMap::new());
        }
        count(&mut counted.1, target) <= PER_MINUTE_MAX
    }
}

impl Simulator for Meizu {
    fn channel(&self) -> Channel {
        Channel::Meizu
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        call.path.starts_with(BASE).then_some(Endpoint::Send)
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        self.decide(world, call)
            .unwrap_or_else(|refusal| refusal.reply())
    }

    fn fault(&self, _world: &World, call: &Call, kind: FaultKind) -> Reply {
        match kind {
            FaultKind::RateLimited => Refusal::new("110010", "the app pushes too fast").reply(),
            FaultKind::QuotaExhausted => {
                Refusal::new("110019", "the app's messages of the day are used up").reply()
            }
            FaultKind::TokenInvalid => {
                let form = call.form();
                let list = form.iter().find(|(name, _)| name == "pushIds");
                let list: Vec<&str> = list.map_or("", |(_, v)| v).split(',').collect();
                let value = json!({"110002": list});
                answer("200", "", &value, &id(), "all pushIds are dead".to_owned())
            }
            // There is no access token; a signature is wrong or right.
            FaultKind::AuthExpired => Refusal::new("1006", "the signature is wrong").reply(),
            _ => Refusal::new("1001", "system error").reply(),
        }
    }

    fn new_token(&self, unique: &str, dice: &Dice) -> String {
        const HEX: &[u8] = b"0123456789abcdef";
        format!("RA{unique}{}", dice.text(HEX, 10))
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        json!({
            "app_id": self.account.app_id, "app_secret": self.account.app_secret,
            "receipt_token": self.account.receipt_token,
            "granted": ["im", "transaction", "subscription"],
        })
    }

    fn receipt(
        &self,
        receipt: &Receipt,
        fate: Fate,
        _now_ms: i64,
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
        let key = format!("{}-{kind}", receipt.id);
        let cb = json!({key: {"param": receipt.param, "type": kind, "targets": [receipt.token]}});
        let token = console.and_then(|console| console.key.as_deref());
        let token = token.unwrap_or(&self.account.receipt_token);
        let fields = [("cb", cb.to_string()), ("access_token", token.to_owned())];
        let fields = fields
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        Some(Post::form(&receipt.url, &fields))
    }

    fn set_rules(&self, rules: &Value) -> Result<(), String> {
        let rules: Rules = serde_json::from_value(rules.clone()).map_err(|e| e.to_string())?;
        *lock(&self.rules) = rules;
        Ok(())
    }
}

fn id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn targets(list: &str) -> Result<Vec<String>, Refusal> {
    let targets = list.split(',').map(str::trim).filter(|t| !t.is_empty());
    let targets: Vec<String> = targets.map(str::to_owned).collect();
    if targets.is_empty() || targets.len() > TARGETS_MAX {
        let why = format!("1 to {TARGETS_MAX} targets are wanted");
        return Err(Refusal::new("1005", why));
    }
    Ok(targets)
}

/// One more for a device. A crowd that is too large is not counted.
fn count(devices: &mut HashMap<String, u32>, target: &str) -> u32 {
    if devices.len() >= limits::TOKENS_MAX {
        return 0;
    }
    let count = devices.entry(target.to_owned()).or_default();
    *count += 1;
    *count
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
