//! vivo by its paper. A list goes out in two calls: the content is stored, then sent by its id; the suite sees the two as
//! one send.

use serde_json::{Value, json};

use super::{Paper, answer, json_of, texts};
use crate::stand_in::{Act, Seen};

const SEND: &str = "/message/send";
const SAVE: &str = "/message/saveListPayload";
const LIST: &str = "/message/pushToList";

pub(crate) const VIVO: Paper = Paper {
    name: "vivo",
    config: || json!({"app_id": 100_123, "app_key": "k", "app_secret": "s"}),
    token_path: Some("/message/auth"),
    token_answer: |n| {
        json!({"result": 0, "desc": "请求成功", "authToken": format!("access-{n}")}).to_string()
    },
    tokens_expire: true,
    names_tokens: true,
    token: |n| format!("{n:023}"),
    take_apart: |seen| {
        let mut body = json_of(seen);
        let fields = body.as_object_mut();
        let mut tokens = Vec::new();
        if let Some(fields) = fields {
            tokens = texts(fields.remove("regIds"));
            tokens.extend(texts(fields.remove("regId").map(|one| json!([one]))));
            // It follows from the token.
            fields.remove("requestId");
        }
        (seen.path.clone(), body, tokens)
    },
    answer: |dead| {
        let users: Vec<Value> = dead
            .iter()
            .map(|token| json!({"status": 1, "userid": token}))
            .collect();
        answer(
            200,
            &json!({"result": 0, "desc": "请求成功", "taskId": "7", "invalidUsers": users}),
        )
    },
    expired: || answer(200, &json!({"result": 10000, "desc": "权限认证失败"})),
    rows: &[
        (
            "busy",
            200,
            r#"{"result":10040,"desc":"d"}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "too fast",
            200,
            r#"{"result":10072,"desc":"d"}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "text",
            200,
            r#"{"result":10085,"desc":"d"}"#,
            "refused payload_rejected",
        ),
        (
            "other app",
            200,
            r#"{"result":10094,"desc":"d"}"#,
            "credential_bad",
        ),
        (
            "category",
            200,
            r#"{"result":10096,"desc":"d"}"#,
            "refused payload_rejected",
        ),
        (
            "class",
            200,
            r#"{"result":10097,"desc":"d"}"#,
            "refused payload_rejected",
        ),
        (
            "regId",
            200,
            r#"{"result":10302,"desc":"d"}"#,
            "token_dead token_invalid",
        ),
        (
            "server",
            200,
            r#"{"result":10510,"desc":"d"}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "auth, twice",
            200,
            r#"{"result":10000,"desc":"d"}"#,
            "credential_bad",
        ),
        ("down", 500, "", "retry vendor_unavailable not_taken"),
        (
            "nonsense",
            200,
            "<html>",
            "retry vendor_unavailable maybe_taken",
        ),
        // After this one the day is over for system messages.
        (
            "quota",
            200,
            r#"{"result":10073,"desc":"d"}"#,
            "quota_exhausted",
        ),
    ],
};

/// Each send as one request to one path, whichever way it went, with its access token as authorization.
pub(crate) fn sends(seen: Vec<Seen>) -> Vec<Seen> {
    let mut saved = Value::Null;
    let mut sends = Vec::new();
    for mut one in seen {
        if let Some(token) = one.headers.get("authtoken").cloned() {
            one.headers.insert("authorization", token);
        }
        match one.path.as_str() {
            SAVE => saved = json_of(&one),
            LIST => {
                let mut body = saved.clone();
                body["regIds"] = json_of(&one)["regIds"].clone();
                one.path = SEND.to_owned();
                one.body = body.to_string().into();
                sends.push(one);
            }
            _ => sends.push(one),
        }
    }
    sends
}

/// The answer to a call that stores a content.
pub(crate) fn preparation(seen: &Seen) -> Option<Act> {
    (seen.path == SAVE).then(|| answer(200, &json!({"result": 0, "desc": "请求成功", "taskId": 7})))
}
