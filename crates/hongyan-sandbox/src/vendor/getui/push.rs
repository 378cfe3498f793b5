//! Pushes: to one cid, to several with a message each, and to many with a stored one.

use serde_json::{Map, Value, json};

use super::{Getui, Refusal, TARGET_INVALID, Task, is_known, object, ok, schema, state_of};
use crate::channel::Channel;
use crate::clock::beijing_day;
use crate::exchange::{Call, Reply};
use crate::limits;
use crate::push::{self, Push, Receipt};
use crate::tokens::TokenState;
use crate::world::World;

const TARGETS_MAX: usize = 1000;
const BATCH_MAX: usize = 200;
const LISTED_PER_DAY: u64 = 2_000_000;
const TASKS_MAX: usize = 10_000;
const TTL_MS_DEFAULT: i64 = 2 * 3_600_000;

impl Getui {
    /// `POST /push/single/cid`.
    pub(super) fn single(
        &self,
        world: &World,
        body: &Map<String, Value>,
    ) -> Result<Reply, Refusal> {
        Ok(ok(&self.push_one(world, body)?))
    }

    fn push_one(&self, world: &World, body: &Map<String, Value>) -> Result<Value, Refusal> {
        let fresh = self.check(body)?;
        let cids = cids(body, 1)?;
        let task = self.task_of(world, body, "RASS");
        let Some(cid) = cids.first().filter(|cid| is_known(state_of(world, cid))) else {
            return Err(Refusal::parameter(TARGET_INVALID));
        };
        let id = self.keep("RASS", world, task.clone());
        let status = if fresh {
            self.reach(world, &task, &id, cid)
        } else {
            // A request id that was seen before: said to be sent, and dropped.
            "successed_offline"
        };
        Ok(json!({id: {cid.as_str(): status}}))
    }

    /// `POST /push/single/batch/cid`.
    pub(super) fn batch(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let body = object(call)?;
        let list = body.get("msg_list").and_then(Value::as_array);
        let Some(list) = list.filter(|list| !list.is_empty()) else {
            return Err(Refusal::parameter("msg_list can not be empty"));
        };
        if list.len() > BATCH_MAX {
            return Err(Refusal::parameter("msg_list size over limit"));
        }
        let mut data = Map::new();
        let mut last = None;
        for entry in list {
            let entry = entry.as_object().cloned().unwrap_or_default();
            match self.push_one(world, &entry) {
                Ok(Value::Object(one)) => data.extend(one),
                Ok(_) => {}
                Err(refusal) => last = Some(refusal),
            }
        }
        match last {
            Some(refusal) if data.is_empty() => Err(refusal),
            _ if body.get("is_async") == Some(&Value::Bool(true)) => Ok(ok(&Value::Null)),
            _ => Ok(ok(&Value::Object(data))),
        }
    }

    /// `POST /push/list/message`.
    pub(super) fn store(&self, world: &World, body: &Map<String, Value>) -> Result<Reply, Refusal> {
        self.check(body)?;
        let task = self.task_of(world, body, "RASL");
        let id = self.keep("RASL", world, task);
        Ok(ok(&json!({"taskid": id})))
    }

    /// `POST /push/list/cid`.
    pub(super) fn list(&self, world: &World, body: &Map<String, Value>) -> Result<Reply, Refusal> {
        let cids = cids(body, TARGETS_MAX)?;
        let id = body
            .get("taskid")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let now = world.clock.now_ms();
        let task = {
            let mut state = self.state();
            let day = beijing_day(now);
            if state.listed.0 != day {
                state.listed = (day, 0);
            }
            state.listed.1 += u64::try_from(cids.len()).unwrap_or(u64::MAX);
            if state.listed.1 > LISTED_PER_DAY {
                return Err(Refusal::new(403, 30001, "push count over limit"));
            }
            state.tasks.get(id).cloned()
        };
        let Some(task) = task.filter(|task| now < task.until_ms) else {
            return Err(Refusal::parameter("taskid is invalid"));
        };
        let known: Vec<&String> = cids
            .iter()
            .filter(|cid| is_known(state_of(world, cid)))
            .collect();
        if known.is_empty() {
            return Err(Refusal::parameter(TARGET_INVALID));
        }
        let statuses: Map<String, Value> = known
            .into_iter()
            .map(|cid| (cid.clone(), self.reach(world, &task, id, cid).into()))
            .collect();
        if body.get("is_async") == Some(&Value::Bool(true)) {
            return Ok(ok(&Value::Null));
        }
        Ok(ok(&json!({id: statuses})))
    }

    /// Everything that does not depend on who is there; whether the request id is new.
    fn check(&self, body: &Map<String, Value>) -> Result<bool, Refusal> {
        let id = match body.get("request_id") {
            Some(Value::String(id)) if !id.is_empty() => id,
            _ => return Err(Refusal::parameter("request_id can not be empty")),
        };
        if !(10..=32).contains(&id.chars().count()) {
            return Err(Refusal::parameter("request_id size over limit"));
        }
        if let Some(settings) = body.get("settings") {
            schema::check(settings, schema::SETTINGS, "settings")?;
        }
        let Some(message) = body.get("push_message") else {
            return Err(Refusal::parameter("push_message can not be empty"));
        };
        schema::check(message, schema::MESSAGE, "push_message")?;
        one_of(message, "notification and transmission and revoke")?;
        if let Some(notification) = message.get("notification") {
            schema::check(notification, schema::NOTIFICATION, "notification")?;
            clickable(notification)?;
            if notification.get("big_text").is_some() && notification.get("big_image").is_some() {
                return Err(Refusal::parameter("choose one of big_text and big_image"));
            }
        }
        if let Some(revoke) = message.get("revoke") {
            schema::check(revoke, schema::REVOKE, "revoke")?;
        }
        if let Some(channel) = body.get("push_channel") {
            check_channel(channel)?;
        }
        let mut state = self.state();
        if state.requests.contains(id) {
            return Ok(false);
        }
        while state.requests.len() >= limits::SEEN_MAX {
            state.requests.pop_front();
        }
        state.requests.push_back(id.clone());
        Ok(true)
    }

    fn task_of(&self, world: &World, body: &Map<String, Value>, prefix: &str) -> Task {
        let ttl = body.get("settings").and_then(|s| s.get("ttl"));
        let ttl = ttl.and_then(Value::as_i64).unwrap_or(TTL_MS_DEFAULT);
        let notify = Value::Object(body.clone())
            .pointer("/push_message/notification/notify_id")
            .and_then(Value::as_i64);
        let place = match notify {
            Some(number) => format!("getui notify {number}"),
            None => format!("getui {prefix} {}", uuid::Uuid::new_v4().simple()),
        };
        Task {
            body: body.clone(),
            until_ms: world.clock.now_ms() + ttl.max(0),
            place,
        }
    }

    fn keep(&self, prefix: &str, world: &World, task: Task) -> String {
        let day = jiff::Timestamp::from_millisecond(world.clock.now_ms() + 8 * 3_600_000)
            .map(|at| at.strftime("%m%d").to_string())
            .unwrap_or_default();
        let id = format!("{prefix}_{day}_{}", uuid::Uuid::new_v4().simple());
        let mut state = self.state();
        while state.order.len() >= TASKS_MAX {
            if let Some(oldest) = state.order.pop_front() {
                state.tasks.remove(&oldest);
            }
        }
        state.order.push_back(id.clone());
        state.tasks.insert(id.clone(), task);
        id
    }

    /// What happens for one cid of the app.
    fn reach(&self, world: &World, task: &Task, id: &str, cid: &str) -> &'static str {
        if state_of(world, cid) != Some(TokenState::Valid) {
            return "successed_ignore";
        }
        let body = Value::Object(task.body.clone());
        if let Some(old) = body.pointer("/push_message/revoke/old_task_id") {
            let old = old.as_str().unwrap_or_default();
            let place = self.state().tasks.get(old).map(|task| task.place.clone());
            let token = world.tokens.get(Channel::Getui, cid);
            if let (Some(place), Some(phone)) = (place, token.and_then(|token| token.phone)) {
                world.phones.withdraw(&phone, &place);
            }
            return "successed_online";
        }
        let notification = body.pointer("/push_message/notification");
        let hidden = [
            "/push_message/transmission",
            "/push_message/notification/payload",
        ];
        let hidden = hidden.iter().find_map(|place| body.pointer(place));
        let intent = push::text(&body, "/push_message/notification/intent");
        let param = push::text(&body, "/settings/custom_callback");
        let now = world.clock.now_ms();
        world.deliver(
            Channel::Getui,
            cid,
            Push {
                message: hidden
                    .and_then(push::message_id)
                    .or_else(|| push::message_id_in_intent(&intent)),
                title: push::text(&body, "/push_message/notification/title"),
                body: push::text(&body, "/push_message/notification/body"),
                visible: notification.is_some(),
                collapse: Some(task.place.clone()),
                expires_ms: task.until_ms,
                stored: task.until_ms > now,
                receipt: Some(Receipt {
                    channel: Channel::Getui,
                    url: String::new(),
                    account: self.account.app_id.clone(),
                    id: id.to_owned(),
                    token: cid.to_owned(),
                    param,
                    kinds: u32::MAX,
                }),
            },
        );
        "successed_online"
    }
}

fn cids(body: &Map<String, Value>, max: usize) -> Result<Vec<String>, Refusal> {
    let list = body.get("audience").and_then(|a| a.get("cid"));
    let Some(list) = list
        .and_then(Value::as_array)
        .filter(|list| !list.is_empty())
    else {
        return Err(Refusal::parameter("audience can not be empty"));
    };
    if list.len() > max {
        return Err(Refusal::parameter("cid size over limit"));
    }
    let mut cids = Vec::with_capacity(list.len());
    for cid in list {
        match cid.as_str().filter(|cid| !cid.is_empty()) {
            Some(cid) if cids.iter().any(|known| known == cid) => {
                return Err(Refusal::parameter("contains duplicate cid"));
            }
            Some(cid) => cids.push(cid.to_owned()),
            None => return Err(Refusal::parameter("cid type error")),
        }
    }
    Ok(cids)
}

/// Exactly one of notification, transmission and revoke.
fn one_of(part: &Value, words: &str) -> Result<(), Refusal> {
    let names = ["notification", "transmission", "revoke"];
    match names
        .iter()
        .filter(|name| part.get(**name).is_some())
        .count()
    {
        1 => Ok(()),
        _ => Err(Refusal::parameter(format!("please choose one of {words}"))),
    }
}

/// The field that the kind of click needs is there.
fn clickable(notification: &Value) -> Result<(), Refusal> {
    let field = match notification.get("click_type").and_then(Value::as_str) {
        Some("intent") => "intent",
        Some("url") => "url",
        Some("payload" | "payload_custom") => "payload",
        Some("want") => "want",
        _ => return Ok(()),
    };
    match notification.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(()),
        _ => Err(Refusal::parameter(format!("{field} can not be empty"))),
    }
}

fn check_channel(channel: &Value) -> Result<(), Refusal> {
    if let Some(ups) = channel.pointer("/android/ups") {
        one_of(ups, "notification and transmission and revoke")?;
        if let Some(notification) = ups.get("notification") {
            schema::check(notification, schema::NOTIFICATION, "ups.notification")?;
            clickable(notification)?;
        }
        if let Some(options) = ups.get("options") {
            let options = options.as_object().cloned().unwrap_or_default();
            crate::shape::check_object(
                &options,
                schema::OPTIONS,
                crate::shape::Names::Exact,
                "options",
            )?;
            for (maker, fields) in &options {
                let slashed = |name: &String| name.starts_with('/');
                if !fields.as_object().is_some_and(|f| f.keys().all(slashed)) {
                    return Err(Refusal::parameter(format!("options.{maker} is invalid")));
                }
            }
        }
    }
    if let Some(ios) = channel.get("ios") {
        schema::check(ios, schema::IOS, "ios")?;
    }
    if let Some(harmony) = channel.get("harmony")
        && let Some(notification) = harmony.get("notification")
    {
        schema::check(notification, schema::HARMONY, "harmony.notification")?;
        clickable(notification)?;
    }
    Ok(())
}
