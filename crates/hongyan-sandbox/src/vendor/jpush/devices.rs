//! Devices with their tags and aliases, and what became of pushes.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Map, Value, json};

use super::push::body_of;
use super::{Jpush, Refusal};
use crate::channel::Channel;
use crate::exchange::{Call, Reply};
use crate::limits;
use crate::tokens::TokenState;
use crate::world::World;

const IDS_MAX: usize = 1000;
const TAGS_MAX: usize = 100;
const MESSAGES_MAX: usize = 100;
/// Devices that may share an alias.
const ALIAS_DEVICES_MAX: usize = 10;

/// What the sender told about a device.
#[derive(Debug, Default, Clone)]
pub(super) struct Profile {
    tags: BTreeSet<String>,
    alias: Option<String>,
    mobile: Option<String>,
}

fn illegal(message: impl Into<String>) -> Refusal {
    Refusal::new(400, 7002, message)
}

fn state_of(world: &World, id: &str) -> Option<TokenState> {
    world
        .tokens
        .get(Channel::Jpush, id)
        .map(|token| token.state)
}

fn texts(value: Option<&Value>, max: usize) -> Result<Vec<String>, Refusal> {
    let list = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= max => list,
        Some(_) => return Err(illegal("a list is malformed or too long")),
    };
    let texts = list.iter().map(|v| v.as_str().map(str::to_owned));
    texts
        .collect::<Option<_>>()
        .ok_or_else(|| illegal("a list has something else than texts"))
}

impl Jpush {
    /// `GET` and `POST /v3/devices/{registration_id}`.
    pub(super) fn device(
        &self,
        world: &World,
        call: &Call,
        method: &Method,
        id: &str,
    ) -> Result<Reply, Refusal> {
        // A device that was not seen for 255 days is forgotten.
        if state_of(world, id) != Some(TokenState::Valid) {
            return Err(illegal(format!("registration_id {id} is illegal")));
        }
        match *method {
            Method::GET => {
                let state = self.state();
                let profile = state.devices.get(id).cloned().unwrap_or_default();
                let tags = match profile.tags.is_empty() {
                    true => Value::Null,
                    false => json!(profile.tags),
                };
                let body = json!({"tags": tags, "alias": profile.alias, "mobile": profile.mobile});
                Ok(Reply::json(200, &body, "accepted"))
            }
            Method::POST => {
                let body = body_of(call).map_err(|_| illegal("Parse JSON failed"))?;
                self.describe(id, &body)?;
                Ok(Reply::empty(200, "accepted"))
            }
            _ => Err(Refusal::new(405, 7000, "method is not supported")),
        }
    }

    fn describe(&self, id: &str, body: &Map<String, Value>) -> Result<(), Refusal> {
        let mut state = self.state();
        let mut profile = state.devices.get(id).cloned().unwrap_or_default();
        let word = |value: &Value| match value {
            Value::String(text) if text.is_empty() => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(illegal("alias and mobile are texts")),
        };
        match body.get("tags") {
            None => {}
            Some(Value::String(text)) if text.is_empty() => profile.tags.clear(),
            Some(Value::Object(tags)) => {
                profile.tags.extend(texts(tags.get("add"), TAGS_MAX)?);
                for gone in texts(tags.get("remove"), TAGS_MAX)? {
                    profile.tags.remove(&gone);
                }
            }
            Some(_) => return Err(illegal("tags is an object or an empty text")),
        }
        if let Some(alias) = body.get("alias") {
            profile.alias = word(alias)?;
            let same = |p: &&Profile| p.alias.is_some() && p.alias == profile.alias;
            if state.devices.values().filter(same).count() >= ALIAS_DEVICES_MAX {
                return Err(Refusal::new(400, 7015, "the alias has ten devices"));
            }
        }
        if let Some(mobile) = body.get("mobile") {
            profile.mobile = word(mobile)?;
        }
        if state.devices.len() < limits::TOKENS_MAX {
            state.devices.insert(id.to_owned(), profile);
        }
        Ok(())
    }

    /// `POST /v3/devices/status`.
    pub(super) fn online(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let body = body_of(call).map_err(|_| illegal("Parse JSON failed"))?;
        let ids = texts(body.get("registration_ids"), IDS_MAX)?;
        let answer: Map<String, Value> = ids
            .into_iter()
            .map(|id| {
                let known = state_of(world, &id) == Some(TokenState::Valid);
                let state = if known {
                    json!({"online": true})
                } else {
                    json!({})
                };
                (id, state)
            })
            .collect();
        Ok(Reply::json(200, &Value::Object(answer), "accepted"))
    }

    /// Every device that a broadcast reaches: those that the sender described, and those that it ever pushed to.
    pub(super) fn reachable(&self, world: &World) -> Vec<String> {
        let state = self.state();
        let pushed = state.pushes.iter().flat_map(|sent| &sent.targets);
        let ids: BTreeSet<&String> = state.devices.keys().chain(pushed).collect();
        ids.into_iter()
            .filter(|id| state_of(world, id) == Some(TokenState::Valid))
            .cloned()
            .collect()
    }

    /// The devices with these aliases or tags.
    pub(super) fn marked(&self, world: &World, kind: &str, values: &[&str]) -> Vec<String> {
        let state = self.state();
        let fits = |profile: &Profile| {
            let tagged = |value: &&str| profile.tags.contains(*value);
            match kind {
                "alias" => profile
                    .alias
                    .as_deref()
                    .is_some_and(|a| values.contains(&a)),
                "tag" => values.iter().any(tagged),
                "tag_and" => values.iter().all(tagged),
                _ => !values.iter().any(tagged),
            }
        };
        let found = state.devices.iter().filter(|(id, profile)| {
            fits(profile) && state_of(world, id) == Some(TokenState::Valid)
        });
        found.map(|(id, _)| id.clone()).collect()
    }

    /// `GET /v3/received` and `/v3/received/detail`.
    pub(super) fn received(&self, call: &Call) -> Result<Reply, Refusal> {
        let pairs = call.query_pairs();
        let ids = pairs.iter().find(|(name, _)| name == "msg_ids");
        let ids: Vec<&str> = ids.map_or(Vec::new(), |(_, ids)| ids.split(',').collect());
        if ids.is_empty() || ids.len() > MESSAGES_MAX {
            return Err(Refusal::missing("msg_ids must name 1 to 100 messages"));
        }
        let detail = call.path.trim_end_matches('/').ends_with("detail");
        let state = self.state();
        let known = ids
            .iter()
            .filter_map(|id| state.pushes.iter().find(|sent| sent.id == *id));
        let items: Vec<Value> = known
            .map(|sent| {
                let count = sent.targets.len();
                if detail {
                    json!({
                        "msg_id": sent.id, "jpush_received": count, "android_pns_sent": null,
                        "android_pns_received": null, "ios_apns_sent": null, "ios_apns_received": null,
                        "ios_msg_received": null, "live_acivity_sent": null, "live_acivity_received": null,
                        "quickapp_jpush_received": null, "quickapp_pns_sent": null, "hmos_hmpns_sent": null,
                        "hmos_hmpns_received": null, "hmos_msg_received": null, "wp_mpns_sent": null,
                    })
                } else {
                    json!({
                        "msg_id": sent.id.parse::<u64>().unwrap_or(0), "android_received": count,
                        "ios_apns_sent": null, "ios_apns_received": null, "ios_msg_received": null,
                        "wp_mpns_sent": null,
                    })
                }
            })
            .collect();
        Ok(Reply::json(200, &Value::from(items), "accepted"))
    }

    /// `POST /v3/status/message`: what became of a push, device by device.
    pub(super) fn status(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let body = body_of(call)?;
        let id = match body.get("msg_id") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return Err(Refusal::missing("Missing parameter msg_id")),
        };
        let ids = texts(body.get("registration_ids"), IDS_MAX)?;
        let state = self.state();
        let sent = state.pushes.iter().find(|sent| sent.id == id);
        let answer: Map<String, Value> = ids
            .into_iter()
            .map(|id| {
                let target = sent.is_some_and(|sent| sent.targets.contains(&id));
                let status = match (state_of(world, &id), target) {
                    (None | Some(TokenState::OtherApp), _) => 2,
                    (_, false) => 3,
                    (Some(TokenState::Valid), true) if sent.is_some_and(|s| !s.withdrawn) => 0,
                    _ => 1,
                };
                (id, json!({"status": status}))
            })
            .collect();
        Ok(Reply::json(200, &Value::Object(answer), "accepted"))
    }
}
