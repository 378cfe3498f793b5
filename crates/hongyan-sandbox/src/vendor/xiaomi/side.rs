//! Everything beside sending: revoke, feedback, validation, tracer.

use serde_json::{Value, json};

use super::super::counted::Counted;
use super::message::Form;
use super::{Refusal, lock, ok};
use crate::channel::Channel;
use crate::exchange::{Call, Reply};
use crate::tokens::TokenState;
use crate::world::World;

/// Entries that one feedback call takes out of the queue.
const FEEDBACK_PAGE: usize = 1000;

pub(super) fn handle(
    world: &World,
    told: &Counted,
    call: &Call,
    segments: &[&str],
) -> Result<Reply, Refusal> {
    let query = call.query_pairs();
    let asked = |name: &str| {
        query
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    };
    match segments {
        ["v1", "feedback", "fetch_invalid_regids"] => {
            let mut queue = lock(&world.xiaomi.feedback);
            let page = FEEDBACK_PAGE.min(queue.len());
            let list: Vec<String> = queue.drain(..page).collect();
            Ok(ok(&json!({"list": list}), "", "accepted feedback"))
        }
        [
            "v1",
            "feedback",
            "fetch_invalid_aliases" | "fetch_invalid_miid",
        ] => Ok(ok(&json!({"list": []}), "", "accepted feedback")),
        ["v1", "validation", "regids"] => {
            let form = Form::of(call);
            let list = form.targets("registration_ids")?;
            let valid: Vec<&String> = list
                .iter()
                .filter(|token| {
                    world.tokens.get(Channel::Xiaomi, token).map(|it| it.state)
                        == Some(TokenState::Valid)
                })
                .collect();
            Ok(ok(
                &json!({"valid_regids": valid}),
                "",
                "accepted validation",
            ))
        }
        ["v1", "trace", "message", "status"] => {
            let id = asked("msg_id")
                .or_else(|| asked("job_key"))
                .ok_or_else(|| Refusal::new(10016, "missing required parameter msg_id"))?;
            let messages = lock(&world.xiaomi.messages);
            let found = messages.iter().find(|(held, _)| held == id);
            let (id, counters) =
                found.ok_or_else(|| Refusal::new(65028, "message does not exist"))?;
            let numbers = told.of(id);
            let data = json!({
                "id": id, "create_time": counters.at_ms.to_string(),
                "msg_send": counters.sent.to_string(),
                "resolved": counters.resolved.to_string(),
                "delivered": numbers.delivered.to_string(),
                "click": numbers.clicked.to_string(),
            });
            Ok(ok(&json!({"data": data}), "", "accepted trace"))
        }
        ["v1", "stats", "message", "counters"] => {
            Ok(ok(&json!({"data": []}), "", "accepted stats"))
        }
        ["v2", "schedule_job", "exist"] => Err(Refusal::new(65028, "job does not exist")),
        ["v2" | "v3", "schedule_job", ..] | ["v2", "topic", ..] | ["v2", "message", "delete"] => {
            Ok(ok(&json!({}), "", "accepted"))
        }
        ["revoke", "message"] => {
            let form = Form::of(call);
            if form.get("restricted_package_name")
                != Some(world.accounts.xiaomi.package_name.as_str())
            {
                return Err(Refusal::new(
                    22022,
                    "package name does not belong to the app",
                ));
            }
            let notify = form.get("notify_id");
            if notify.is_none() && form.get("msg_id").is_none() {
                return Err(Refusal::new(
                    10016,
                    "missing required parameter msg_id or notify_id",
                ));
            }
            if let Some(notify) = notify {
                world
                    .phones
                    .withdraw_everywhere(Channel::Xiaomi, &format!("notify {notify}"));
            }
            Ok(ok(&json!({}), "", "accepted revoke"))
        }
        ["v1" | "v2", "regid", "presence"] => presence(world, asked("registration_id")),
        ["v1", "alias" | "topic" | "account", "all"] => {
            Ok(ok(&json!({"list": []}), "", "accepted"))
        }
        _ => Err(Refusal::new(10020, "API not found")),
    }
}

fn presence(world: &World, token: Option<&str>) -> Result<Reply, Refusal> {
    let token =
        token.ok_or_else(|| Refusal::new(10016, "missing required parameter registration_id"))?;
    let known = world.tokens.get(Channel::Xiaomi, token).map(|it| it.state);
    let status = if known == Some(TokenState::Valid) {
        "Online"
    } else {
        "Offline"
    };
    let data: Value = json!({"status": status});
    Ok(ok(&data, "", "accepted presence"))
}
