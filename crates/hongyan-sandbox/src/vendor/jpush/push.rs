//! A push object: its checks, its targets, and what reaches the phones.

use serde_json::{Map, Value, json};

use super::{Jpush, Refusal, Sent, is_registration_id, nobody, schema};
use crate::channel::Channel;
use crate::clock::beijing_day;
use crate::exchange::{Call, Reply};
use crate::limits;
use crate::push::{self, Push, Receipt};
use crate::shape::{Names, Violation, check_object};
use crate::tokens::TokenState;
use crate::world::World;

const TARGETS_MAX: usize = 1000;
const TAGS_MAX: usize = 20;
const ANDROID_BYTES_MAX: usize = 4000;
const IOS_BYTES_MAX: usize = 2000;
const BROADCASTS_PER_DAY: u32 = 10;
const TTL_DEFAULT_S: i64 = 86_400;
const DAY_MS: i64 = 86_400_000;
const PLATFORMS: &[&str] = &["android", "ios", "hmos", "quickapp", "winphone"];

/// What a push object is sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Deliver,
    Validate,
}

impl From<Violation> for Refusal {
    fn from(Violation { field, why }: Violation) -> Self {
        if why.starts_with("unknown field") {
            Self::new(400, 1009, format!("unsupported key {field}"))
        } else if why == "is required" {
            Self::missing(format!("Missing parameter {field}"))
        } else {
            Self::value(format!("{field} {why}"))
        }
    }
}

pub(super) fn body_of(call: &Call) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(&call.body) {
        Ok(Value::Object(body)) => Ok(body),
        _ => Err(Refusal::value("Parse JSON failed")),
    }
}

impl Jpush {
    pub(super) fn push(
        &self,
        world: &World,
        call: &Call,
        purpose: Purpose,
    ) -> Result<Reply, Refusal> {
        let body = body_of(call)?;
        let answer = self.push_one(world, &body, purpose)?;
        Ok(Reply::json(200, &answer, "accepted"))
    }

    fn push_one(
        &self,
        world: &World,
        body: &Map<String, Value>,
        purpose: Purpose,
    ) -> Result<Value, Refusal> {
        check(body)?;
        let now = world.clock.now_ms();
        let cid = body.get("cid").and_then(Value::as_str);
        if let Some(cid) = cid {
            let ours = cid.strip_prefix(&format!("{}-", self.account.app_key));
            if ours.and_then(|id| uuid::Uuid::try_parse(id).ok()).is_none() {
                return Err(Refusal::value("cid is invalid"));
            }
            let mut state = self.state();
            state.cids.retain(|(_, at, _)| now - at < DAY_MS);
            if let Some((_, _, answer)) = state.cids.iter().find(|(known, _, _)| known == cid) {
                return Ok(answer.clone());
            }
        }
        let targets = self.targets(world, body, purpose)?;
        let options = body.get("options");
        let option = |name: &str| options.and_then(|o| o.get(name));
        let replaces = match option("override_msg_id").and_then(Value::as_i64) {
            None => None,
            Some(id) => {
                let id = id.to_string();
                let state = self.state();
                let known = state.pushes.iter().find(|sent| sent.id == id);
                if known.is_none_or(|sent| now - sent.at_ms > DAY_MS) {
                    return Err(Refusal::value("override_msg_id does not exist"));
                }
                Some(id)
            }
        };
        let id = self.next_id(world);
        let sendno = option("sendno").and_then(Value::as_i64).unwrap_or(0);
        let answer = json!({"sendno": sendno.to_string(), "msg_id": id});
        if purpose == Purpose::Validate {
            return Ok(answer);
        }
        if let Some(cid) = cid {
            let mut state = self.state();
            while state.cids.len() >= limits::SEEN_MAX {
                state.cids.pop_front();
            }
            state.cids.push_back((cid.to_owned(), now, answer.clone()));
        }
        let place = replaces.unwrap_or_else(|| id.clone());
        for target in &targets {
            let mut push = arrival(body, now);
            push.collapse = Some(format!("jpush {place}"));
            push.receipt = receipt(&self.account.app_key, body, &id, target);
            world.deliver(Channel::Jpush, target, push);
        }
        self.keep(Sent {
            id,
            at_ms: now,
            targets,
            withdrawn: false,
        });
        Ok(answer)
    }

    /// `POST /v3/push/batch/regid/single`: another push for each target, by cid.
    pub(super) fn batch(&self, world: &World, call: &Call, kind: &str) -> Result<Reply, Refusal> {
        let body = body_of(call)?;
        let Some(list) = body.get("pushlist").and_then(Value::as_object) else {
            return Err(Refusal::missing("Missing parameter pushlist"));
        };
        if list.is_empty() || list.len() > TARGETS_MAX {
            return Err(Refusal::value("pushlist must have 1 to 1000 entries"));
        }
        let name = if kind == "alias" {
            "alias"
        } else {
            "registration_id"
        };
        let mut answers = Map::new();
        let mut refused = 0;
        for (cid, entry) in list {
            let mut single = entry.as_object().cloned().unwrap_or_default();
            let target = single.remove("target").unwrap_or_default();
            single.insert("audience".to_owned(), json!({name: [target]}));
            single.insert("cid".to_owned(), cid.as_str().into());
            let answer = match self.push_one(world, &single, Purpose::Deliver) {
                Ok(answer) => json!({"msg_id": answer["msg_id"]}),
                Err(refusal) => {
                    refused += 1;
                    refusal.body()
                }
            };
            answers.insert(cid.clone(), answer);
        }
        let verdict = match refused {
            0 => "accepted".to_owned(),
            some => format!("partial {some} of {} refused", list.len()),
        };
        Ok(Reply::json(200, &Value::Object(answers), verdict))
    }

    /// The living devices of an audience.
    fn targets(
        &self,
        world: &World,
        body: &Map<String, Value>,
        purpose: Purpose,
    ) -> Result<Vec<String>, Refusal> {
        let audience = match body.get("audience") {
            Some(Value::String(all)) if all == "all" => {
                if purpose == Purpose::Deliver {
                    self.broadcast(world)?;
                }
                return Ok(self.reachable(world));
            }
            Some(Value::Object(audience)) => audience,
            Some(Value::Null) | None => {
                return Err(Refusal::missing("Missing parameter audience"));
            }
            Some(_) => return Err(Refusal::value("audience must be all or an object")),
        };
        let mut found: Option<Vec<String>> = None;
        for (kind, values) in audience {
            let Value::Array(values) = values else {
                return Err(Refusal::value("Audience value must be JSON Array format!"));
            };
            let values: Vec<&str> = values
                .iter()
                .map(|value| value.as_str().filter(|text| !text.is_empty()))
                .collect::<Option<_>>()
                .ok_or_else(|| Refusal::value(format!("{kind} has an empty value")))?;
            if values.is_empty() {
                continue;
            }
            let max = if kind.starts_with("tag") {
                TAGS_MAX
            } else {
                TARGETS_MAX
            };
            if values.len() > max {
                return Err(Refusal::value(format!("{kind} has more than {max} values")));
            }
            let of_kind = match kind.as_str() {
                "registration_id" => registered(world, &values)?,
                "alias" | "tag" | "tag_and" | "tag_not" => self.marked(world, kind, &values),
                "segment" | "abtest" => Vec::new(),
                other => {
                    return Err(Refusal::new(
                        400,
                        1009,
                        format!("unsupported key audience.{other}"),
                    ));
                }
            };
            found = Some(match found {
                None => of_kind,
                Some(before) => before.into_iter().filter(|t| of_kind.contains(t)).collect(),
            });
        }
        match found {
            None => Err(Refusal::missing("audience has no target")),
            Some(targets) if targets.is_empty() => Err(nobody()),
            Some(targets) => Ok(targets),
        }
    }

    fn broadcast(&self, world: &World) -> Result<(), Refusal> {
        let day = beijing_day(world.clock.now_ms());
        let mut state = self.state();
        if state.broadcasts.0 != day {
            state.broadcasts = (day, 0);
        }
        if state.broadcasts.1 >= BROADCASTS_PER_DAY {
            return Err(Refusal::new(403, 2008, "broadcasts of today are used up"));
        }
        state.broadcasts.1 += 1;
        Ok(())
    }
}

/// Those ids that reach a device. One that this app never had refuses all of them.
fn registered(world: &World, ids: &[&str]) -> Result<Vec<String>, Refusal> {
    let mut alive = Vec::with_capacity(ids.len());
    for id in ids {
        let token = world.tokens.get(Channel::Jpush, id);
        match token.map(|token| token.state) {
            _ if !is_registration_id(id) => return Err(foreign(id)),
            None | Some(TokenState::OtherApp) => return Err(foreign(id)),
            Some(TokenState::Valid) if !alive.contains(&(*id).to_owned()) => {
                alive.push((*id).to_owned());
            }
            Some(_) => {}
        }
    }
    Ok(alive)
}

fn foreign(id: &str) -> Refusal {
    Refusal::value(format!("The registration_id {id} is invalid!"))
}

/// Everything that does not depend on who is there.
fn check(body: &Map<String, Value>) -> Result<(), Refusal> {
    let has = |name: &str| body.get(name).is_some_and(|value| !value.is_null());
    match body.get("platform") {
        None | Some(Value::Null) => return Err(Refusal::missing("Missing parameter platform")),
        Some(Value::String(text)) if text == "all" || PLATFORMS.contains(&text.as_str()) => {}
        Some(Value::Array(list)) if !list.is_empty() => {
            let known = |name: &Value| name.as_str().is_some_and(|n| PLATFORMS.contains(&n));
            if !list.iter().all(known) {
                return Err(Refusal::value("platform has an unknown value"));
            }
        }
        Some(_) => return Err(Refusal::value("platform must be all or a list")),
    }
    check_object(body, schema::PUSH, Names::Exact, "")?;
    if !(has("notification") || has("message") || has("live_activity")) {
        return Err(Refusal::missing(
            "Missing parameter notification, message or live_activity",
        ));
    }
    if has("live_activity") && (has("notification") || has("message")) {
        return Err(Refusal::value("live_activity stands alone"));
    }
    if has("inapp_message") && (has("message") || !has("notification")) {
        return Err(Refusal::value(
            "inapp_message needs a notification and no message",
        ));
    }
    if has("notification_3rd") && (!has("message") || has("notification")) {
        return Err(Refusal::value(
            "notification_3rd needs a message and no notification",
        ));
    }
    check_notification(body)?;
    check_options(body)?;
    check_callback(body.get("callback"))
}

fn check_notification(body: &Map<String, Value>) -> Result<(), Refusal> {
    let bytes = |value: Option<&Value>| value.map_or(0, |v| v.to_string().len());
    let notification = body.get("notification").unwrap_or(&Value::Null);
    let (android, ios) = (notification.get("android"), notification.get("ios"));
    if bytes(android) + bytes(body.get("message")) > ANDROID_BYTES_MAX || bytes(ios) > IOS_BYTES_MAX
    {
        return Err(Refusal::new(400, 1005, "the message is too long"));
    }
    let shared = notification.get("alert").is_some();
    for name in ["android", "ios", "hmos"] {
        if let Some(part) = notification.get(name)
            && part.get("alert").is_none()
            && !shared
        {
            return Err(Refusal::missing(format!("Missing parameter {name}.alert")));
        }
    }
    if let Some(android) = android {
        let numbered = ["badge_add_num", "badge_set_num"];
        if android.get("badge_class").is_some()
            && !numbered.iter().any(|name| android.get(*name).is_some())
        {
            return Err(Refusal::value("badge_class needs a badge number"));
        }
        if let Some(intent) = android.pointer("/intent/url").and_then(Value::as_str)
            && !intent.starts_with("intent:")
            && !intent.contains("://")
        {
            return Err(Refusal::value(
                "intent.url is neither an intent nor a deeplink",
            ));
        }
    }
    let badge = ios.and_then(|ios| ios.get("badge"));
    let badge_fits = match badge {
        None => true,
        Some(Value::Number(number)) => number.as_i64().is_some_and(|n| (0..=99).contains(&n)),
        Some(Value::String(text)) => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit())
        }
        Some(_) => false,
    };
    if badge_fits {
        Ok(())
    } else {
        Err(Refusal::value("ios.badge is invalid"))
    }
}

fn check_options(body: &Map<String, Value>) -> Result<(), Refusal> {
    let Some(options) = body.get("options") else {
        return Ok(());
    };
    let on = |name: &str| options.get(name).and_then(Value::as_bool) == Some(true);
    if on("active_push")
        && (body.get("message").is_some() || options.get("big_push_duration").is_some())
    {
        return Err(Refusal::new(
            400,
            1035,
            "active_push takes notifications only",
        ));
    }
    if on("need_backup") && !on("active_push") {
        return Err(Refusal::value("need_backup needs active_push"));
    }
    let makers = options.get("third_party_channel");
    let level = makers.and_then(|m| m.pointer("/oppo/notify_level"));
    if let Some(level) = level {
        let known = matches!(level.as_i64(), Some(1 | 2 | 16));
        let category = makers.and_then(|m| m.pointer("/oppo/category"));
        if !known || category.is_none() {
            return Err(Refusal::value(
                "oppo.notify_level is 1, 2 or 16 and needs a category",
            ));
        }
    }
    let high = makers.and_then(|m| m.pointer("/honor/importance"));
    if high.and_then(Value::as_str) == Some("HIGH") {
        return Err(Refusal::value("honor.importance is LOW or NORMAL"));
    }
    Ok(())
}

fn check_callback(callback: Option<&Value>) -> Result<(), Refusal> {
    let Some(callback) = callback else {
        return Ok(());
    };
    let url = push::text(callback, "/url");
    if !(url.is_empty() || url.starts_with("http://") || url.starts_with("https://")) {
        return Err(Refusal::value("callback.url is invalid"));
    }
    match callback_kinds(callback) {
        Some(1 | 2 | 3 | 8 | 9 | 10 | 11) => Ok(()),
        _ => Err(Refusal::value("callback.type is invalid")),
    }
}

fn callback_kinds(callback: &Value) -> Option<u32> {
    match callback.get("type")? {
        Value::Number(number) => u32::try_from(number.as_u64()?).ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn receipt(app_key: &str, body: &Map<String, Value>, id: &str, token: &str) -> Option<Receipt> {
    let callback = body.get("callback")?;
    Some(Receipt {
        channel: Channel::Jpush,
        url: push::text(callback, "/url"),
        account: app_key.to_owned(),
        id: id.to_owned(),
        token: token.to_owned(),
        param: callback
            .get("params")
            .map_or_else(String::new, Value::to_string),
        kinds: callback_kinds(callback)?,
    })
}

/// What a phone gets of a push.
fn arrival(body: &Map<String, Value>, now_ms: i64) -> Push {
    let notification = body.get("notification");
    let part = |name: &str| notification.and_then(|n| n.get(name));
    let parts = ["android", "hmos", "ios"];
    let first = parts.iter().find_map(|name| part(name));
    let message = body.get("message");
    let extras = first.or(message).and_then(|part| part.get("extras"));
    let ttl = body.get("options").and_then(|o| o.get("time_to_live"));
    let ttl_s = ttl.and_then(Value::as_i64).unwrap_or(TTL_DEFAULT_S);
    let text = |name: &str| match first.and_then(|part| part.get(name)) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Object(alert)) => alert.get("body")?.as_str().map(str::to_owned),
        _ => None,
    };
    let shared = notification.map(|n| push::text(n, "/alert"));
    Push {
        message: extras.and_then(push::message_id),
        title: text("title").unwrap_or_default(),
        body: text("alert").or(shared).unwrap_or_default(),
        visible: notification.is_some(),
        collapse: None,
        expires_ms: now_ms + ttl_s * 1000,
        stored: ttl_s > 0,
        receipt: None,
    }
}
