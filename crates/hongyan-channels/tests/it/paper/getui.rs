//! Getui: one recipient costs one call; more get a task first.

use http::HeaderValue;
use serde_json::{Value, json};

use super::{Paper, answer, json_of, texts};
use crate::stand_in::{Act, Seen};

const BASE: &str = "/v2/app1";

pub(super) const GETUI: Paper = Paper {
    name: "getui",
    config: || json!({"app_id": "app1", "app_key": "key1", "master_secret": "secret1"}),
    token_path: Some("/v2/app1/auth"),
    token_answer: |n| {
        let expires = "9999999999999";
        let data = json!({"token": format!("access{n}"), "expire_time": expires});
        json!({"code": 0, "msg": "success", "data": data}).to_string()
    },
    tokens_expire: true,
    names_tokens: true,
    token: |n| format!("{n:032x}"),
    take_apart: |seen| {
        let mut body = json_of(seen);
        let audience = body.as_object_mut().and_then(|body| {
            body.remove("request_id");
            body.remove("audience")
        });
        let tokens = audience.and_then(|a| a.get("cid").cloned());
        (seen.path.clone(), body, texts(tokens))
    },
    answer: |dead| {
        if dead.is_empty() {
            answer(
                200,
                &json!({"code": 0, "msg": "success", "data": {"taskid": "RASL_1"}}),
            )
        } else {
            answer(
                400,
                &json!({"code": 20001, "msg": "target user is invalid"}),
            )
        }
    },
    expired: || answer(401, &json!({"code": 10001, "msg": "token is invalid"})),
    rows: &[
        (
            "inactive",
            200,
            r#"{"code":0,"data":{"RASS_1":{"00000000000000000000000000000000":"successed_ignore"}}}"#,
            "token_dead token_invalid",
        ),
        (
            "unknown cid",
            400,
            r#"{"code":20001,"msg":"target user is invalid"}"#,
            "token_dead token_invalid",
        ),
        (
            "parameter",
            400,
            r#"{"code":20001,"msg":"title size over limit"}"#,
            "refused payload_rejected",
        ),
        (
            "not JSON",
            200,
            r#"{"code":1,"msg":"m"}"#,
            "refused payload_rejected",
        ),
        (
            "starting",
            200,
            r#"{"code":2,"msg":"m"}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "other domain",
            200,
            r#"{"code":301,"msg":"m","data":["https://x.getui.com"]}"#,
            "credential_bad",
        ),
        (
            "auth, twice",
            401,
            r#"{"code":10001,"msg":"m"}"#,
            "credential_bad",
        ),
        (
            "blocked",
            401,
            r#"{"code":10002,"msg":"m"}"#,
            "credential_bad",
        ),
        (
            "rate",
            401,
            r#"{"code":10005,"msg":"m"}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "plan",
            403,
            r#"{"code":30002,"msg":"m"}"#,
            "quota_exhausted",
        ),
        ("path", 404, "", "credential_bad"),
        ("fault", 500, "", "retry vendor_unavailable not_taken"),
        (
            "nonsense",
            200,
            "<html>",
            "retry vendor_unavailable maybe_taken",
        ),
    ],
};

/// A task and its targets are one send; questions about users are none. The access token goes where the suite looks for it.
pub(super) fn sends(seen: Vec<Seen>) -> Vec<Seen> {
    let mut sends: Vec<Seen> = Vec::new();
    let mut task: Option<Seen> = None;
    for mut request in seen {
        let token = request.headers.get("token").cloned();
        let token = token.unwrap_or(HeaderValue::from_static(""));
        request.headers.insert("authorization", token);
        match request.path.strip_prefix(BASE) {
            Some("/push/list/message") => task = Some(request),
            Some("/push/list/cid") => {
                let mut whole = task.clone().unwrap_or_else(|| request.clone());
                let mut body = json_of(&whole);
                body["audience"] = json_of(&request)["audience"].clone();
                whole.body = body.to_string().into();
                sends.push(whole);
            }
            Some(path) if path.starts_with("/user/") => {}
            _ => sends.push(request),
        }
    }
    sends
}

/// Tasks are made, and users looked up: those whose cid is odd are unknown.
pub(super) fn preparation(seen: &Seen) -> Option<Act> {
    let path = seen.path.strip_prefix(BASE)?;
    let data = match path.strip_prefix("/user/detail/") {
        Some(cids) => {
            let odd = |cid: &&str| {
                let last = cid.chars().last().and_then(|c| c.to_digit(16));
                last.is_some_and(|digit| digit % 2 == 1)
            };
            let unknown: Vec<&str> = cids.split(',').filter(odd).collect();
            json!({"invalidCids": unknown, "validCids": {}})
        }
        None if path == "/push/list/message" => json!({"taskid": "RASL_1"}),
        None => Value::Null,
    };
    (!data.is_null()).then(|| answer(200, &json!({"code": 0, "msg": "success", "data": data})))
}
