//! JPush.

use serde_json::json;

use super::{Paper, answer, json_of, texts};
use crate::stand_in::Act;

pub(super) const JPUSH: Paper = Paper {
    name: "jpush",
    config: || json!({"app_key": "7d431e42dfa6a6d693ac2d04", "master_secret": "5e987ac6d2e04d95a9d8f0d1"}),
    // Not access tokens, but numbers against doubles that are fetched in the same way.
    token_path: Some("/v3/push/cid"),
    token_answer: |n| {
        let cid = |i: usize| format!("7d431e42dfa6a6d693ac2d04-{n}-{i}");
        let list: Vec<String> = (0..500).map(cid).collect();
        json!({"cidlist": list}).to_string()
    },
    tokens_expire: false,
    names_tokens: true,
    token: |n| format!("{n:019x}"),
    take_apart: |seen| {
        let mut body = json_of(seen);
        let object = body.as_object_mut();
        let audience = object.and_then(|object| {
            object.remove("cid").unwrap();
            object.remove("audience")
        });
        let tokens = audience.and_then(|a| a.get("registration_id").cloned());
        (seen.path.clone(), body, texts(tokens))
    },
    // It names one malformed id at a time.
    answer: |dead| match dead.first() {
        None => answer(200, &json!({"sendno": "0", "msg_id": "18101042030527458"})),
        Some(id) => {
            let message = format!("The registration_id {id} is invalid!");
            answer(400, &json!({"error": {"code": 1003, "message": message}}))
        }
    },
    expired: || Act::Silence,
    rows: &[
        (
            "malformed id",
            400,
            r#"{"error":{"code":1003,"message":"The registration_id 3 is invalid!"}}"#,
            "token_dead token_invalid",
        ),
        (
            "nobody there",
            400,
            r#"{"error":{"code":1011,"message":"cannot find user by this audience"}}"#,
            "token_dead token_invalid",
        ),
        (
            "another value",
            400,
            r#"{"error":{"code":1003,"message":"time_to_live is invalid"}}"#,
            "refused payload_rejected",
        ),
        (
            "unknown key",
            400,
            r#"{"error":{"code":1009,"message":"m"}}"#,
            "refused payload_rejected",
        ),
        (
            "too long",
            400,
            r#"{"error":{"code":1005,"message":"m"}}"#,
            "refused payload_too_large",
        ),
        (
            "secret",
            401,
            r#"{"error":{"code":1004,"message":"Authen failed"}}"#,
            "credential_bad",
        ),
        (
            "code as text",
            400,
            r#"{"msg_id":1035959738,"error":{"code":"1008","message":"m"}}"#,
            "credential_bad",
        ),
        (
            "makers' quota",
            400,
            r#"{"error":{"code":1012,"message":"m"}}"#,
            "quota_exhausted",
        ),
        (
            "rate",
            429,
            r#"{"error":{"code":2002,"message":"Rate limit exceeded"}}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "fault",
            500,
            r#"{"error":{"code":1000,"message":"m"}}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "too slow",
            503,
            r#"{"error":{"code":1030,"message":"m"}}"#,
            "retry vendor_unavailable maybe_taken",
        ),
        (
            "gateway",
            502,
            "<html>",
            "retry vendor_unavailable not_taken",
        ),
        (
            "nonsense",
            200,
            "<html>",
            "retry vendor_unavailable maybe_taken",
        ),
    ],
};
