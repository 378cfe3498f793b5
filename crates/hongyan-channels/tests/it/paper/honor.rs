use serde_json::json;

use super::{Paper, answer, json_of, oauth_token, texts};

pub(super) const HONOR: Paper = Paper {
    name: "honor",
    config: || json!({"app_id": "104", "client_id": "c1", "client_secret": "secret"}),
    token_path: Some("/auth/token"),
    token_answer: oauth_token,
    tokens_expire: true,
    names_tokens: true,
    token: |n| format!("BAEAAAAAB.token-{n}"),
    take_apart: |seen| {
        let mut body = json_of(seen);
        let tokens = body.as_object_mut().and_then(|b| b.remove("token"));
        (seen.path.clone(), body, texts(tokens))
    },
    answer: |dead| {
        answer(
            200,
            &json!({"code": 200, "message": "success", "data": {"sendResult": true, "requestId": "r1",
                    "failTokens": [], "expireTokens": dead}}),
        )
    },
    expired: || answer(401, &json!({"code": 401, "message": "expired"})),
    rows: &[
        (
            "failed without a reason",
            200,
            r#"{"code":200,"data":{"sendResult":false,"failTokens":["BAEAAAAAB.token-0"]}}"#,
            "refused payload_rejected",
        ),
        (
            "code as text",
            200,
            r#"{"code":"200","message":"ok","data":{"sendResult":true}}"#,
            "accepted",
        ),
        (
            "no result",
            200,
            r#"{"code":200,"data":{"sendResult":false}}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "all dead",
            200,
            r#"{"code":80300007,"message":"m"}"#,
            "token_dead token_invalid",
        ),
        (
            "parameter",
            400,
            r#"{"code":40001,"message":"m"}"#,
            "refused payload_rejected",
        ),
        ("size", 413, "", "refused payload_too_large"),
        (
            "too many tokens",
            200,
            r#"{"code":80300010,"message":"m"}"#,
            "refused payload_rejected",
        ),
        ("auth, twice", 401, "", "credential_bad"),
        ("right", 403, "", "credential_bad"),
        ("path", 404, "", "credential_bad"),
        (
            "flow control",
            429,
            "",
            "retry vendor_rate_limited not_taken",
        ),
        (
            "unknown",
            200,
            r#"{"code":4711,"message":"m"}"#,
            "retry vendor_unavailable not_taken",
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
