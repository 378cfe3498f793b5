//! OPPO by its paper. A list goes out in two calls: the content is stored, then sent by its id; the suite sees the two as
//! one send.

use std::collections::BTreeMap;

use http::HeaderValue;
use serde_json::{Map, Value, json};

use super::{Paper, answer, form_of};
use crate::stand_in::{Act, Seen};

const UNICAST: &str = "/server/v1/message/notification/unicast";
const SAVE: &str = "/server/v1/message/notification/save_message_content";
const BROADCAST: &str = "/server/v1/message/notification/broadcast";

/// Form fields that are not texts in the JSON of a single message.
const NOT_TEXTS: &[&str] = &[
    "style",
    "notify_id",
    "off_line",
    "off_line_ttl",
    "click_action_type",
    "notify_level",
];

pub(crate) const OPPO: Paper = Paper {
    name: "oppo",
    config: || json!({"app_key": "k", "master_secret": "s"}),
    token_path: Some("/server/v1/auth"),
    token_answer: |n| {
        json!({"code": 0, "message": "Success",
               "data": {"auth_token": format!("access-{n}"), "create_time": 1_700_000_000_000_i64}})
        .to_string()
    },
    tokens_expire: true,
    names_tokens: true,
    token: |n| format!("CN_{n:032x}"),
    take_apart: |seen| {
        let form = form_of(seen);
        if let Some(list) = form.get("target_value") {
            let tokens = list.split(';').map(str::to_owned).collect();
            return (seen.path.clone(), Value::Null, tokens);
        }
        let text = form.get("message").map_or("null", String::as_str);
        let mut message: Value = serde_json::from_str(text).unwrap();
        let tokens = message
            .as_object_mut()
            .and_then(|m| m.remove("target_value"))
            .and_then(|t| t.as_str().map(str::to_owned));
        (seen.path.clone(), message, tokens.into_iter().collect())
    },
    answer: |dead| {
        let mut data = json!({"messageId": "5f0a", "message_id": "5f0a", "task_id": "t"});
        if !dead.is_empty() {
            data["10000"] = json!(dead);
        }
        answer(200, &json!({"code": 0, "message": "Success", "data": data}))
    },
    expired: || answer(200, &json!({"code": 11, "message": "Invalid AuthToken"})),
    rows: &[
        (
            "busy",
            200,
            r#"{"code":-1,"message":"m"}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "flow control",
            200,
            r#"{"code":-2,"message":"m"}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "call limit",
            200,
            r#"{"code":13,"message":"m"}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "signature",
            200,
            r#"{"code":16,"message":"m"}"#,
            "credential_bad",
        ),
        (
            "clock",
            200,
            r#"{"code":19,"message":"m"}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "disabled",
            200,
            r#"{"code":28,"message":"m"}"#,
            "credential_bad",
        ),
        ("duplicate", 200, r#"{"code":32,"message":"m"}"#, "accepted"),
        (
            "quota",
            200,
            r#"{"code":33,"message":"m"}"#,
            "quota_exhausted",
        ),
        (
            "argument",
            200,
            r#"{"code":41,"message":"m"}"#,
            "refused payload_rejected",
        ),
        (
            "category",
            200,
            r#"{"code":67,"message":"m"}"#,
            "refused payload_rejected",
        ),
        (
            "invalid id",
            200,
            r#"{"code":10000,"message":"m"}"#,
            "token_dead token_invalid",
        ),
        (
            "unsubscribed",
            200,
            r#"{"code":10001,"message":"m"}"#,
            "token_dead token_invalid",
        ),
        (
            "auth, twice",
            200,
            r#"{"code":11,"message":"m"}"#,
            "credential_bad",
        ),
        ("down", 502, "", "retry vendor_unavailable not_taken"),
        (
            "nonsense",
            200,
            "<html>",
            "retry vendor_unavailable maybe_taken",
        ),
    ],
};

/// Each send as one request to one path, whichever way it went, with its access token as authorization.
pub(crate) fn sends(seen: Vec<Seen>) -> Vec<Seen> {
    let mut saved = None;
    let mut sends = Vec::new();
    for mut one in seen {
        let mut form = form_of(&one);
        let token = form.remove("auth_token").unwrap_or_default();
        one.headers
            .insert("authorization", HeaderValue::from_str(&token).unwrap());
        match one.path.as_str() {
            SAVE => saved = Some(form),
            BROADCAST => {
                let content: &BTreeMap<String, String> = saved.as_ref().unwrap();
                let notification: Map<String, Value> = content
                    .iter()
                    .map(|(name, value)| (name.clone(), typed(name, value)))
                    .collect();
                for target in form["target_value"].split(';') {
                    let message = json!({"target_type": 2, "target_value": target,
                                         "notification": notification});
                    let mut single = one.clone();
                    single.path = UNICAST.to_owned();
                    single.body = format!("message={}", escaped(&message.to_string())).into();
                    sends.push(single);
                }
            }
            _ => sends.push(one),
        }
    }
    sends
}

fn typed(name: &str, value: &str) -> Value {
    if NOT_TEXTS.contains(&name) {
        serde_json::from_str(value).unwrap()
    } else {
        value.into()
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// The answer to a call that stores a content.
pub(crate) fn preparation(seen: &Seen) -> Option<Act> {
    (seen.path == SAVE).then(|| {
        answer(
            200,
            &json!({"code": 0, "message": "Success", "data": {"message_id": "5f0b"}}),
        )
    })
}
