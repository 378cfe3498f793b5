//! Umeng.

use serde_json::json;

use super::{Paper, answer, json_of, oauth_token};
use crate::stand_in::Act;

pub(super) const UMENG: Paper = Paper {
    name: "umeng",
    config: || json!({"app_key": "5f3e2d1c0b9a8f7e6d5c4b3a", "master_secret": "secret"}),
    token_path: None,
    token_answer: oauth_token,
    tokens_expire: false,
    // It says that some are bad and not which; the halves tell.
    names_tokens: true,
    token: |n| format!("{n:044}"),
    take_apart: |seen| {
        let mut body = json_of(seen);
        let mut tokens = Vec::new();
        if let Some(body) = body.as_object_mut() {
            body.remove("timestamp");
            body.remove("type");
            if let Some(list) = body.remove("device_tokens") {
                tokens = list
                    .as_str()
                    .unwrap()
                    .split(',')
                    .map(str::to_owned)
                    .collect();
            }
        }
        (seen.path.clone(), body, tokens)
    },
    answer: |dead| {
        if dead.is_empty() {
            answer(
                200,
                &json!({"ret": "SUCCESS", "data": {"msg_id": "uu07343141897754408310"}}),
            )
        } else {
            answer(
                400,
                &json!({"ret": "FAIL", "data": {"error_code": "4014", "error_msg": "m"}}),
            )
        }
    },
    expired: || Act::Silence,
    rows: &[
        (
            "malformed token",
            400,
            r#"{"ret":"FAIL","data":{"error_code":"4010","error_msg":"m"}}"#,
            "token_dead token_invalid",
        ),
        (
            "body",
            400,
            r#"{"ret":"FAIL","data":{"error_code":"1009","error_msg":"m"}}"#,
            "refused payload_rejected",
        ),
        (
            "too long",
            400,
            r#"{"ret":"FAIL","data":{"error_code":"2022","error_msg":"m"}}"#,
            "refused payload_too_large",
        ),
        (
            "sign",
            400,
            r#"{"ret":"FAIL","data":{"error_code":"2027","error_msg":"m"}}"#,
            "credential_bad",
        ),
        (
            "clock",
            400,
            r#"{"ret":"FAIL","data":{"error_code":"2028","error_msg":"m"}}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "address",
            400,
            r#"{"ret":"FAIL","data":{"error_code":2054,"error_msg":"m"}}"#,
            "credential_bad",
        ),
        (
            "rate",
            400,
            r#"{"ret":"FAIL","data":{"error_code":"2050","error_msg":"m"}}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "quota",
            400,
            r#"{"ret":"FAIL","data":{"error_code":"2012","error_msg":"m"}}"#,
            "quota_exhausted",
        ),
        (
            "storage",
            400,
            r#"{"ret":"FAIL","data":{"error_code":"3001","error_msg":"m"}}"#,
            "retry vendor_unavailable not_taken",
        ),
        ("not JSON", 400, "<html>", "refused payload_rejected"),
        ("down", 502, "", "retry vendor_unavailable not_taken"),
        (
            "nonsense",
            200,
            "<html>",
            "retry vendor_unavailable maybe_taken",
        ),
    ],
};
