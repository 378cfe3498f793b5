//! Aliyun Mobile Push (EMAS), version 2016-08-01: pushes to devices, device checks, statistics.
//!
//! Sources: Alibaba Cloud help pages on Push, MassPush and their limits; the generated SDK. A device id that nobody has is
//! accepted and reaches nobody, as at the service; `CheckDevices` tells. Tags, aliases and accounts are not simulated.
//!
//! Statistics grow with what becomes of a push. Receipts of each device are posted to the console's address as a JSON list of
//! `MessageId`, `JobKey`, `DeviceId`, `Event` (`receive`, `open`) and `Time`: their true layout is not published.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Simulator;
use super::acs::{self, AccessKey, Gate, Refusal};
use super::counted::Counted;
use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::dice::Dice;
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::limits;
use crate::push::{Fate, Push, Receipt, message_id};
use crate::receipts::{Post, ReceiptAddress};
use crate::tokens::TokenState;
use crate::world::World;

const VERSION: &str = "2016-08-01";
const TARGETS_MAX: usize = 1000;
const TASKS_MAX: usize = 100;
const CHECK_MAX: usize = 100;
const CONTENT_BYTES_MAX: usize = 4000;
const EXPIRE_MS_MAX: i64 = 72 * 3_600_000;
const PUSH_TIME_MS_MAX: i64 = 7 * 86_400_000;

#[derive(Clone, Serialize, Deserialize)]
struct Account {
    key: AccessKey,
    app_key: String,
}

/// What the service remembers.
#[derive(Debug, Default)]
struct State {
    /// Results by idempotency token.
    results: VecDeque<(String, String)>,
    /// Targets by message id.
    counts: VecDeque<(String, usize)>,
}

/// The simulator.
pub(crate) struct Aliyun {
    account: Account,
    gate: Gate,
    state: Mutex<State>,
    counted: Counted,
}

impl std::fmt::Debug for Aliyun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aliyun")
            .field("app_key", &self.account.app_key)
            .finish_non_exhaustive()
    }
}

type Parameters = BTreeMap<String, String>;

impl Aliyun {
    pub(crate) fn open(accounts: &mut Accounts, dice: &Dice) -> Self {
        let account = accounts.of("aliyun", || Account {
            key: AccessKey::make(dice),
            app_key: format!("3{}", dice.text(b"0123456789", 7)),
        });
        Self {
            account,
            gate: Gate::default(),
            state: Mutex::default(),
            counted: Counted::default(),
        }
    }

    fn decide(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let passed = self
            .gate
            .pass(call, &self.account.key, world.clock.now_ms())?;
        let parameters = &passed.parameters;
        if acs::required(parameters, "AppKey")? != self.account.app_key {
            return Err(Refusal::new(
                403,
                "Forbidden",
                "You are not the owner of this AppKey.",
            ));
        }
        match passed.action.as_str() {
            "Push" => {
                let id = self.once(world, parameters, parameters)?;
                Ok(acs::success(json!({"MessageId": id}), "accepted"))
            }
            "PushNoticeToAndroid"
            | "PushNoticeToiOS"
            | "PushMessageToAndroid"
            | "PushMessageToiOS" => {
                let mut whole = parameters.clone();
                let notice = passed.action.starts_with("PushNotice");
                whole.insert(
                    "PushType".to_owned(),
                    if notice { "NOTICE" } else { "MESSAGE" }.to_owned(),
                );
                whole
                    .entry("DeviceType".to_owned())
                    .or_insert_with(|| "ALL".to_owned());
                let id = self.once(world, parameters, &whole)?;
                Ok(acs::success(json!({"MessageId": id}), "accepted"))
            }
            "MassPush" => self.mass(world, parameters),
            "CheckDevices" => check(world, parameters),
            "QueryPushStatByMsg" => {
                let id = acs::required(parameters, "MessageId")?;
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let count = state
                    .counts
                    .iter()
                    .find(|(of, _)| of == id)
                    .map_or(0, |(_, n)| *n);
                let numbers = self.counted.of(id);
                let stat = json!({"MessageId": id, "AcceptCount": count, "SentCount": count,
                                  "ReceivedCount": numbers.delivered, "OpenedCount": numbers.clicked,
                                  "DeletedCount": 0});
                Ok(acs::success(
                    json!({"PushStats": {"PushStat": [stat]}}),
                    "accepted",
                ))
            }
            _ => Err(Refusal::new(
                404,
                "InvalidApi.NotFound",
                "Specified api is not found.",
            )),
        }
    }

    /// Pushes, or gives the first result again.
    fn once(&self, world: &World, call: &Parameters, push: &Parameters) -> Result<String, Refusal> {
        let token = call
            .get("IdempotentToken")
            .filter(|token| !token.is_empty());
        if let Some(token) = token {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, id)) = state.results.iter().find(|(of, _)| of == token) {
                return Ok(id.clone());
            }
        }
        let id = self.push(world, push)?;
        if let Some(token) = token {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            while state.results.len() >= limits::REQUESTS_KEPT_MAX {
                state.results.pop_front();
            }
            state.results.push_back((token.clone(), id.clone()));
        }
        Ok(id)
    }

    fn mass(&self, world: &World, parameters: &Parameters) -> Result<Reply, Refusal> {
        let mut tasks: BTreeMap<usize, Parameters> = BTreeMap::new();
        for (name, value) in parameters {
            let Some(rest) = name.strip_prefix("PushTask.") else {
                continue;
            };
            let numbered = rest
                .split_once('.')
                .and_then(|(n, name)| Some((n.parse().ok()?, name)));
            let Some((number, name)) = numbered else {
                return Err(invalid("PushTask", "PushTask.N.Name is the form"));
            };
            tasks
                .entry(number)
                .or_default()
                .insert(name.to_owned(), value.clone());
        }
        if tasks.is_empty() || tasks.len() > TASKS_MAX {
            return Err(invalid("PushTask", "from 1 to 100 tasks"));
        }
        let ids = tasks
            .values()
            .map(|task| self.push(world, task))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(acs::success(
            json!({"MessageIds": {"MessageId": ids}}),
            "accepted",
        ))
    }

    fn push(&self, world: &World, set: &Parameters) -> Result<String, Refusal> {
        let now_ms = world.clock.now_ms();
        let word = |name: &str, words: &[&str]| -> Result<String, Refusal> {
            let value = acs::required(set, name)?;
            if words.contains(&value) {
                Ok(value.to_owned())
            } else {
                Err(invalid(name, &format!("one of {}", words.join(", "))))
            }
        };
        let kind = word("PushType", &["NOTICE", "MESSAGE"])?;
        word("DeviceType", &["iOS", "ANDROID", "HARMONY", "ALL"])?;
        let target = word(
            "Target",
            &["DEVICE", "ACCOUNT", "ALIAS", "TAG", "ALL", "TBD"],
        )?;
        let targets: Vec<&str> = acs::required(set, "TargetValue")?.split(',').collect();
        if targets.len() > TARGETS_MAX {
            return Err(invalid("TargetValue", "at most 1000 targets"));
        }
        let body = acs::required(set, "Body")?;
        let title = acs::required(set, "Title")?;
        let expires_ms =
            time(set, "ExpireTime", now_ms, EXPIRE_MS_MAX)?.unwrap_or(now_ms + EXPIRE_MS_MAX);
        time(set, "PushTime", now_ms, PUSH_TIME_MS_MAX)?;
        let mut extras = Value::Null;
        for name in [
            "AndroidExtParameters",
            "iOSExtParameters",
            "HarmonyExtParameters",
        ] {
            let Some(text) = set.get(name) else { continue };
            let object: Value = serde_json::from_str(text).unwrap_or_default();
            if !object.is_object() {
                return Err(invalid(name, "a JSON object"));
            }
            if object
                .as_object()
                .is_some_and(|o| o.values().any(|v| !v.is_string()))
            {
                return Err(invalid(name, "an object of texts"));
            }
            extras = object;
        }
        let content = title.len() + body.len() + extras.to_string().len();
        if content > CONTENT_BYTES_MAX && kind == "NOTICE" {
            return Err(invalid(
                "Body",
                "title, body and extras of at most 4000 bytes",
            ));
        }
        for (name, words) in [
            (
                "AndroidNotifyType",
                &["VIBRATE", "SOUND", "BOTH", "NONE"][..],
            ),
            (
                "AndroidOpenType",
                &["APPLICATION", "ACTIVITY", "URL", "NONE"],
            ),
            ("AndroidMessageHuaweiUrgency", &["HIGH", "NORMAL"]),
            ("AndroidNotificationHuaweiChannel", &["LOW", "NORMAL"]),
            ("AndroidNotificationHonorChannel", &["LOW", "NORMAL"]),
            ("AndroidNotificationVivoChannel", &["0", "1"]),
            ("AndroidMessageOppoNotifyLevel", &["1", "2", "16"]),
            ("AndroidMeizuNoticeMsgType", &["0", "1"]),
            ("iOSApnsEnv", &["DEV", "PRODUCT"]),
            (
                "iOSInterruptionLevel",
                &["passive", "active", "time-sensitive", "critical"],
            ),
        ] {
            if set.contains_key(name) {
                word(name, words)?;
            }
        }
        let id = format!("{}", 100_000 + world.dice.next() % 1_000_000_000_000);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.counts.len() >= limits::REQUESTS_KEPT_MAX {
            state.counts.pop_front();
        }
        state.counts.push_back((id.clone(), targets.len()));
        drop(state);
        if target == "DEVICE" {
            let number = set
                .get("AndroidNotificationNotifyId")
                .or_else(|| set.get("HarmonyNotifyId"));
            for device in targets {
                let held = world.tokens.get(Channel::Aliyun, device);
                if held.map(|token| token.state) != Some(TokenState::Valid) {
                    continue;
                }
                let push = Push {
                    message: message_id(&extras),
                    title: title.to_owned(),
                    body: body.to_owned(),
                    visible: kind == "NOTICE",
                    collapse: number
                        .or_else(|| set.get("iOSNotificationCollapseId"))
                        .cloned(),
                    expires_ms,
                    stored: kind == "NOTICE"
                        || set
                            .get("StoreOffline")
                            .is_some_and(|v| v.eq_ignore_ascii_case("true")),
                    receipt: Some(Receipt {
                        channel: Channel::Aliyun,
                        url: String::new(),
                        account: self.account.app_key.clone(),
                        id: id.clone(),
                        token: device.to_owned(),
                        param: set.get("JobKey").cloned().unwrap_or_default(),
                        kinds: u32::MAX,
                    }),
                };
                world.deliver(Channel::Aliyun, device, push);
            }
        }
        Ok(id)
    }
}

fn invalid(name: &str, wanted: &str) -> Refusal {
    Refusal::new(
        400,
        &format!("Invalid{name}"),
        format!("{name} must be {wanted}."),
    )
}

/// A time in UTC, not further ahead than this.
fn time(set: &Parameters, name: &str, now_ms: i64, ahead_ms: i64) -> Result<Option<i64>, Refusal> {
    let Some(text) = set.get(name) else {
        return Ok(None);
    };
    let at = text
        .parse::<jiff::Timestamp>()
        .map_err(|_| invalid(name, "YYYY-MM-DDThh:mm:ssZ"))?;
    let at = at.as_millisecond();
    if at - now_ms > ahead_ms {
        return Err(invalid(name, "nearer"));
    }
    Ok(Some(at))
}

fn check(world: &World, parameters: &Parameters) -> Result<Reply, Refusal> {
    let ids: Vec<&str> = acs::required(parameters, "DeviceIds")?.split(',').collect();
    if ids.len() > CHECK_MAX {
        return Err(invalid("DeviceIds", "at most 100 ids"));
    }
    let list: Vec<Value> = ids
        .iter()
        .map(|id| {
            let state = world
                .tokens
                .get(Channel::Aliyun, id)
                .map(|token| token.state);
            json!({"DeviceId": id, "Available": state == Some(TokenState::Valid)})
        })
        .collect();
    Ok(acs::success(
        json!({"DeviceCheckInfos": {"DeviceCheckInfo": list}}),
        "accepted",
    ))
}

impl Simulator for Aliyun {
    fn channel(&self) -> Channel {
        Channel::Aliyun
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        (acs::version(call).as_deref() == Some(VERSION)).then_some(Endpoint::Send)
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        self.decide(world, call)
            .unwrap_or_else(|refusal| refusal.reply())
    }

    fn fault(&self, _world: &World, _call: &Call, kind: FaultKind) -> Reply {
        match kind {
            FaultKind::TokenInvalid => invalid("TargetValue", "known devices").reply(),
            FaultKind::QuotaExhausted => Refusal::new(
                400,
                "Throttling.Api",
                "Request was denied due to api flow control.",
            )
            .reply(),
            kind => acs::fault(kind).reply(),
        }
    }

    fn receipt(
        &self,
        receipt: &Receipt,
        fate: Fate,
        now_ms: i64,
        console: Option<&ReceiptAddress>,
    ) -> Option<Post> {
        self.counted.add(&receipt.id, fate);
        let event = match fate {
            Fate::Delivered => "receive",
            Fate::Clicked => "open",
            Fate::TargetInvalid | Fate::NotShown | Fate::OverQuota => return None,
        };
        let entry = json!({"MessageId": receipt.id, "JobKey": receipt.param, "DeviceId": receipt.token,
                           "Event": event, "Time": now_ms});
        Some(Post::json(&console?.url, &json!([entry])))
    }

    fn new_token(&self, unique: &str, _dice: &Dice) -> String {
        unique.to_owned()
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        let Account { key, app_key } = &self.account;
        json!({
            "access_key_id": key.id, "access_key_secret": key.secret, "app_key": app_key,
            "popup_activity": "com.example.hongyan.Popup",
            "xiaomi_channels": {"im": "100001", "transaction": "100002", "subscription": "100003", "marketing": "200001"},
            "granted": ["im", "transaction", "subscription"],
        })
    }
}
