use serde_json::{Value, json};

use super::{Paper, answer, oauth_token, unescape};
use crate::stand_in::Act;

pub(super) const MEIZU: Paper = Paper {
    name: "meizu",
    config: || json!({"app_id": "100999", "app_secret": "secret"}),
    token_path: None,
    token_answer: oauth_token,
    tokens_expire: false,
    names_tokens: true,
    token: |n| format!("AA0000000000000000000000{n}"),
    take_apart: |seen| {
        let mut body = serde_json::Map::new();
        let mut tokens = Vec::new();
        for pair in String::from_utf8_lossy(&seen.body).split('&') {
            let (name, value) = pair.split_once('=').unwrap_or_default();
            let value = unescape(value);
            match name {
                "pushIds" => tokens = value.split(',').map(str::to_owned).collect(),
                "messageJson" => {
                    let message = serde_json::from_str(&value).unwrap_or_default();
                    body.insert(name.to_owned(), message);
                }
                "sign" => {}
                _ => {
                    body.insert(unescape(name), value.into());
                }
            }
        }
        (seen.path.clone(), Value::Object(body), tokens)
    },
    answer: |dead| {
        let value = match dead {
            [] => json!(""),
            dead => json!({"110002": dead}),
        };
        answer(
            200,
            &json!({"code": "200", "message": "", "value": value, "msgId": "m1", "redirect": ""}),
        )
    },
    expired: || Act::Silence,
    rows: &[
        (
            "folded",
            200,
            r#"{"code":"200","value":{"520":["AA00000000000000000000000"]},"msgId":"m"}"#,
            "accepted",
        ),
        (
            "switch off",
            200,
            r#"{"code":"200","value":{"110010":["AA00000000000000000000000"]},"msgId":"m"}"#,
            "refused permission_off",
        ),
        (
            "device quota",
            200,
            r#"{"code":"200","value":{"110011":["AA00000000000000000000000"]},"msgId":"m"}"#,
            "refused quota_exhausted",
        ),
        (
            "redirect to a stranger",
            200,
            r#"{"code":"300","redirect":"https://meizu.com.example/x"}"#,
            "retry vendor_unavailable not_taken",
        ),
        ("signature", 200, r#"{"code":"1006"}"#, "credential_bad"),
        (
            "parameter",
            200,
            r#"{"code":"1005"}"#,
            "refused payload_rejected",
        ),
        ("quota", 200, r#"{"code":"110019"}"#, "quota_exhausted"),
        (
            "rate",
            200,
            r#"{"code":"110010"}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "busy",
            200,
            r#"{"code":"1003"}"#,
            "retry vendor_rate_limited not_taken",
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
