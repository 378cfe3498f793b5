//! Aliyun Mobile Push: one code for a whole call, in the gateway's words.

use serde_json::json;

use super::{Paper, answer, form_of, oauth_token};

pub(super) const PAPER: Paper = Paper {
    name: "aliyun",
    config: || json!({"access_key_id": "testid", "access_key_secret": "testsecret", "app_key": "23267207"}),
    token_path: None,
    token_answer: oauth_token,
    tokens_expire: false,
    names_tokens: false,
    token: |n| format!("{n:032x}"),
    take_apart: |seen| {
        let mut body = json!(form_of(seen));
        let object = body.as_object_mut().unwrap();
        assert!(object.remove("IdempotentToken").is_some());
        let list = object.remove("TargetValue").unwrap_or_default();
        let tokens = list
            .as_str()
            .unwrap_or_default()
            .split(',')
            .map(str::to_owned)
            .collect();
        (seen.path.clone(), body, tokens)
    },
    answer: |_| answer(200, &json!({"RequestId": "R", "MessageId": "501029"})),
    expired: || {
        answer(
            400,
            &json!({"Code": "InvalidTimeStamp.Expired", "Message": "m"}),
        )
    },
    rows: &[
        (
            "key",
            404,
            r#"{"Code":"InvalidAccessKeyId.NotFound"}"#,
            "credential_bad",
        ),
        (
            "right",
            403,
            r#"{"Code":"Forbidden.RAM"}"#,
            "credential_bad",
        ),
        (
            "signature",
            400,
            r#"{"Code":"SignatureDoesNotMatch"}"#,
            "credential_bad",
        ),
        (
            "clock",
            400,
            r#"{"Code":"InvalidTimeStamp.Expired"}"#,
            "credential_bad",
        ),
        (
            "nonce, twice",
            400,
            r#"{"Code":"SignatureNonceUsed"}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "token",
            403,
            r#"{"Code":"InvalidSecurityToken.Expired"}"#,
            "credential_bad",
        ),
        (
            "parameter",
            400,
            r#"{"Code":"InvalidParameter"}"#,
            "refused payload_rejected",
        ),
        (
            "missing",
            400,
            r#"{"Code":"MissingAppKey"}"#,
            "refused payload_rejected",
        ),
        (
            "rate",
            400,
            r#"{"Code":"Throttling.User"}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "internal",
            500,
            r#"{"Code":"InternalError"}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "down",
            503,
            r#"{"Code":"ServiceUnavailable"}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "gateway page",
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
