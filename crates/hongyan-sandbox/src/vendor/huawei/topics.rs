//! Topics of v1: subscribe, unsubscribe, list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::{Refusal, TOKENS_MAX, Way, authenticate, fault_of, parse, texts};
use crate::channel::Channel;
use crate::exchange::{Call, Reply};
use crate::world::World;

const TOPICS_MAX: usize = 2000;
const NAME_CHARS_MAX: usize = 900;

/// Subscribed tokens by topic.
pub(super) type Topics = BTreeMap<String, BTreeSet<String>>;

pub(super) fn handle(world: &World, call: &Call, verb: &str) -> Result<Reply, Refusal> {
    authenticate(world, call, Way::Either)?;
    let body = Value::Object(parse(&call.body)?);
    let mut topics = world
        .huawei
        .topics
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if verb == "topic:list" {
        let token = body
            .get("token")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if token.is_empty() {
            return Err(Refusal::new("82000011", "The token is empty."));
        }
        let list: Vec<Value> = topics
            .iter()
            .filter(|(_, tokens)| tokens.contains(token))
            .map(|(name, _)| json!({"name": name, "addDate": "2026-01-01"}))
            .collect();
        return Ok(answer(&json!({"topics": list}), "accepted topic list"));
    }
    let add = match verb {
        "topic:subscribe" => true,
        "topic:unsubscribe" => false,
        _ => return Ok(Reply::empty(404, "refused no such path")),
    };
    let name = body
        .get("topic")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let named = !name.is_empty()
        && name.chars().count() <= NAME_CHARS_MAX
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || "-_.~%".contains(c));
    if !named {
        return Err(Refusal::new("82000007", "The topic is invalid."));
    }
    let tokens = body.get("tokenArray").map(texts).unwrap_or_default();
    if tokens.is_empty() || tokens.len() > TOKENS_MAX {
        return Err(Refusal::new(
            "82000008",
            "The token array is empty or too big.",
        ));
    }
    if add && !topics.contains_key(name) && topics.len() >= TOPICS_MAX {
        return Err(Refusal::new("82000009", "There are more than 2000 topics."));
    }
    let members = topics.entry(name.to_owned()).or_default();
    let mut errors = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match fault_of(world, Channel::Huawei, token) {
            Some(reason) => errors.push(json!({"index": index, "reason": reason})),
            None if add => {
                members.insert((*token).to_owned());
            }
            None => {
                members.remove(*token);
            }
        }
    }
    if members.is_empty() {
        topics.remove(name);
    }
    let failed = errors.len();
    let mut body = json!({
        "successCount": tokens.len() - failed, "failureCount": failed, "errors": errors,
    });
    if failed > 0 {
        body["code"] = json!("82000010");
        body["msg"] = json!("Some tokens are invalid.");
    }
    Ok(answer(&body, "accepted topic change"))
}

fn answer(extra: &Value, verdict: &str) -> Reply {
    let mut body = json!({
        "code": "80000000", "msg": "Success",
        "requestId": uuid::Uuid::new_v4().simple().to_string(),
    });
    if let (Some(body), Some(extra)) = (body.as_object_mut(), extra.as_object()) {
        body.extend(extra.clone());
    }
    Reply::json(200, &body, verdict)
}
