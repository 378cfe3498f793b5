//! What each vendor's paper says, as the stand-ins play it: how it takes, refuses and names tokens.

mod aliyun;
mod getui;
mod honor;
mod jpush;
mod meizu;
mod oppo;
mod sms;
mod tpns;
mod umeng;
mod vivo;
pub(crate) mod webpush;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::stand_in::{Act, Seen};

/// A vendor by its paper.
#[derive(Clone, Copy)]
pub(crate) struct Paper {
    /// The channel's name; what follows a slash tells papers of one channel apart.
    pub(crate) name: &'static str,
    pub(crate) config: fn() -> Value,
    /// The path of its token endpoint, if it has one.
    pub(crate) token_path: Option<&'static str>,
    /// What the token endpoint answers to its `n`th request: an access token that says `n`, an hour long.
    pub(crate) token_answer: fn(n: usize) -> String,
    pub(crate) tokens_expire: bool,
    pub(crate) names_tokens: bool,
    /// The token of the recipient with this number.
    pub(crate) token: fn(usize) -> String,
    /// Path, body and tokens of a request, with the tokens taken out.
    pub(crate) take_apart: fn(&Seen) -> (String, Value, Vec<String>),
    /// The answer when these of the request's tokens are dead.
    pub(crate) answer: fn(dead: &[String]) -> Act,
    pub(crate) expired: fn() -> Act,
    /// What it says, the status and body of the answer, and the verdict wanted.
    pub(crate) rows: &'static [(&'static str, u16, &'static str, &'static str)],
}

pub(crate) const ALL: &[Paper] = &[
    APNS,
    FCM,
    HUAWEI,
    HARMONY,
    XIAOMI,
    honor::HONOR,
    meizu::MEIZU,
    oppo::OPPO,
    vivo::VIVO,
    webpush::WEBPUSH,
    jpush::JPUSH,
    getui::GETUI,
    umeng::UMENG,
    tpns::PAPER,
    aliyun::PAPER,
    sms::TWILIO,
    sms::TENCENT,
    sms::ALIYUN,
];

/// Requests as the suite counts them, for vendors whose sends take several calls: each send as one request.
pub(crate) fn sends(vendor: &str, seen: Vec<Seen>) -> Vec<Seen> {
    match vendor {
        "oppo" => oppo::sends(seen),
        "vivo" => vivo::sends(seen),
        "getui" => getui::sends(seen),
        _ => seen,
    }
}

/// The answer to a call that only prepares a send and reaches nobody.
pub(crate) fn preparation(vendor: &str, seen: &Seen) -> Option<Act> {
    match vendor {
        "oppo" => oppo::preparation(seen),
        "vivo" => vivo::preparation(seen),
        "getui" => getui::preparation(seen),
        _ => None,
    }
}

/// The fields of a form.
fn form_of(seen: &Seen) -> BTreeMap<String, String> {
    String::from_utf8_lossy(&seen.body)
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (unescape(name), unescape(value)))
        .collect()
}

fn json_of(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).unwrap_or_default()
}

fn answer(status: u16, body: &Value) -> Act {
    Act::Answer(
        status,
        vec![("content-type", "application/json".to_owned())],
        body.to_string(),
    )
}

fn oauth_token(n: usize) -> String {
    json!({"access_token": format!("access-{n}"), "expires_in": 3600, "token_type": "Bearer"})
        .to_string()
}

fn plain_token(n: usize) -> String {
    format!("token-{n}")
}

fn texts(list: Option<Value>) -> Vec<String> {
    let list = list.unwrap_or_default();
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|t| t.as_str().map(str::to_owned))
        .collect()
}

const RSA_PEM: &str = include_str!("../fixtures/rsa.pem");

const APNS: Paper = Paper {
    name: "apns",
    config: || {
        json!({"key_id": "ABCDE12345", "team_id": "TEAM567890", "bundle_id": "com.example.app",
               "private_key": rcgen::KeyPair::generate().unwrap().serialize_pem()})
    },
    token_path: None,
    token_answer: oauth_token,
    tokens_expire: true,
    names_tokens: true,
    token: |n| format!("{n:064x}"),
    take_apart: |seen| {
        let token = seen.path.rsplit('/').next().unwrap_or_default().to_owned();
        ("/3/device/{token}".to_owned(), json_of(seen), vec![token])
    },
    answer: |dead| {
        if dead.is_empty() {
            let id = uuid::Uuid::new_v4().to_string();
            Act::Answer(200, vec![("apns-id", id)], String::new())
        } else {
            answer(
                410,
                &json!({"reason": "Unregistered", "timestamp": 1_767_229_200_000_i64}),
            )
        }
    },
    expired: || answer(403, &json!({"reason": "ExpiredProviderToken"})),
    rows: &[
        (
            "bad token",
            400,
            r#"{"reason":"BadDeviceToken"}"#,
            "token_dead token_invalid",
        ),
        (
            "other app",
            400,
            r#"{"reason":"DeviceTokenNotForTopic"}"#,
            "refused token_environment",
        ),
        (
            "bad priority",
            400,
            r#"{"reason":"BadPriority"}"#,
            "refused payload_rejected",
        ),
        (
            "topic",
            400,
            r#"{"reason":"TopicDisallowed"}"#,
            "credential_bad",
        ),
        (
            "key",
            403,
            r#"{"reason":"InvalidProviderToken"}"#,
            "credential_bad",
        ),
        (
            "gone",
            410,
            r#"{"reason":"ExpiredToken","timestamp":1}"#,
            "token_dead token_invalid",
        ),
        (
            "size",
            413,
            r#"{"reason":"PayloadTooLarge"}"#,
            "refused payload_too_large",
        ),
        (
            "rate",
            429,
            r#"{"reason":"TooManyRequests"}"#,
            "device_limited",
        ),
        (
            "down",
            503,
            r#"{"reason":"ServiceUnavailable"}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "shutdown, twice",
            503,
            r#"{"reason":"Shutdown"}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "nonsense",
            500,
            "<html>",
            "retry vendor_unavailable not_taken",
        ),
    ],
};

const FCM: Paper = Paper {
    name: "fcm",
    config: || {
        json!({"type": "service_account", "project_id": "demo-1", "private_key_id": "k1",
               "private_key": RSA_PEM, "client_email": "a@demo-1.iam.gserviceaccount.com",
               "token_uri": "https://oauth2.googleapis.com/token"})
    },
    token_path: Some("/token"),
    token_answer: oauth_token,
    tokens_expire: true,
    names_tokens: true,
    token: plain_token,
    take_apart: |seen| {
        let mut body = json_of(seen);
        let token = body
            .pointer_mut("/message")
            .and_then(|m| m.as_object_mut()?.remove("token"));
        (
            seen.path.clone(),
            body,
            texts(Some(Value::from_iter(token))),
        )
    },
    answer: |dead| {
        if dead.is_empty() {
            answer(200, &json!({"name": "projects/demo-1/messages/1"}))
        } else {
            answer(
                404,
                &json!({"error": {"code": 404, "status": "NOT_FOUND", "details": [
                {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "UNREGISTERED"}]}}),
            )
        }
    },
    expired: || {
        answer(
            401,
            &json!({"error": {"code": 401, "status": "UNAUTHENTICATED", "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_EXPIRED"}]}}),
        )
    },
    rows: &[
        (
            "gone",
            404,
            r#"{"error":{"status":"NOT_FOUND","details":[{"@type":"x/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}"#,
            "token_dead token_invalid",
        ),
        (
            "project",
            404,
            r#"{"error":{"status":"NOT_FOUND"}}"#,
            "credential_bad",
        ),
        (
            "sender",
            403,
            r#"{"error":{"status":"PERMISSION_DENIED","details":[{"@type":"x/google.firebase.fcm.v1.FcmError","errorCode":"SENDER_ID_MISMATCH"}]}}"#,
            "token_dead token_invalid",
        ),
        (
            "right",
            403,
            r#"{"error":{"status":"PERMISSION_DENIED"}}"#,
            "credential_bad",
        ),
        (
            "payload",
            400,
            r#"{"error":{"status":"INVALID_ARGUMENT"}}"#,
            "refused payload_rejected",
        ),
        (
            "quota",
            429,
            r#"{"error":{"status":"RESOURCE_EXHAUSTED"}}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "down",
            503,
            r#"{"error":{"status":"UNAVAILABLE"}}"#,
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

const HUAWEI: Paper = Paper {
    name: "huawei",
    config: || json!({"app_id": "1001", "client_secret": "secret"}),
    token_path: Some("/oauth2/v3/token"),
    token_answer: oauth_token,
    tokens_expire: true,
    names_tokens: true,
    token: plain_token,
    take_apart: |seen| {
        let mut body = json_of(seen);
        let tokens = body
            .pointer_mut("/message")
            .and_then(|m| m.as_object_mut()?.remove("token"));
        (seen.path.clone(), body, texts(tokens))
    },
    answer: |dead| {
        if dead.is_empty() {
            answer(
                200,
                &json!({"code": "80000000", "msg": "Success", "requestId": "r1"}),
            )
        } else {
            let msg = json!({"success": 1, "failure": dead.len(), "illegal_tokens": dead});
            answer(
                200,
                &json!({"code": "80100000", "msg": msg.to_string(), "requestId": "r1"}),
            )
        }
    },
    expired: || {
        answer(
            401,
            &json!({"code": "80200003", "msg": "Access token expired."}),
        )
    },
    rows: HUAWEI_ROWS,
};

const HUAWEI_ROWS: &[(&str, u16, &str, &str)] = &[
    (
        "all dead",
        200,
        r#"{"code":"80300007","msg":"m"}"#,
        "token_dead token_invalid",
    ),
    (
        "parameter",
        400,
        r#"{"code":"80100001","msg":"m"}"#,
        "refused payload_rejected",
    ),
    (
        "size",
        400,
        r#"{"code":"80300008","msg":"m"}"#,
        "refused payload_too_large",
    ),
    (
        "right",
        200,
        r#"{"code":"80300002","msg":"m"}"#,
        "credential_bad",
    ),
    (
        "auth, twice",
        401,
        r#"{"code":"80200001","msg":"m"}"#,
        "credential_bad",
    ),
    (
        "down",
        500,
        r#"{"code":"81000001","msg":"m"}"#,
        "retry vendor_unavailable not_taken",
    ),
    (
        "flow control",
        503,
        "",
        "retry vendor_rate_limited not_taken",
    ),
    (
        "nonsense",
        200,
        "<html>",
        "retry vendor_unavailable maybe_taken",
    ),
];

const HARMONY: Paper = Paper {
    name: "harmony",
    config: || {
        json!({"project_id": "7", "key_id": "k", "sub_account": "s", "private_key": RSA_PEM,
               "token_uri": "https://oauth-login.cloud.huawei.com/oauth2/v3/token"})
    },
    token_path: None,
    token_answer: oauth_token,
    tokens_expire: true,
    names_tokens: true,
    token: plain_token,
    take_apart: |seen| {
        let mut body = json_of(seen);
        let target = body.as_object_mut().and_then(|b| b.remove("target"));
        (
            seen.path.clone(),
            body,
            texts(target.and_then(|t| t.get("token").cloned())),
        )
    },
    answer: |dead| {
        if dead.is_empty() {
            answer(
                200,
                &json!({"code": "80000000", "msg": "Success", "requestId": "r1"}),
            )
        } else {
            let msg = json!({"success": 1, "failure": dead.len(), "illegalTokens": {"tokenFormatError": dead}});
            answer(
                200,
                &json!({"code": "80100000", "msg": msg.to_string(), "requestId": "r1"}),
            )
        }
    },
    expired: || {
        answer(
            401,
            &json!({"code": "80200005", "msg": "Jwt token expired."}),
        )
    },
    rows: HUAWEI_ROWS,
};

const XIAOMI: Paper = Paper {
    name: "xiaomi",
    config: || {
        json!({"app_secret": "secret", "package": "com.example.app",
               "channels": {"transaction": "100002", "marketing": "200001"}})
    },
    token_path: None,
    token_answer: oauth_token,
    tokens_expire: false,
    names_tokens: false,
    token: plain_token,
    take_apart: |seen| {
        let mut body = serde_json::Map::new();
        let mut tokens = Vec::new();
        for pair in String::from_utf8_lossy(&seen.body).split('&') {
            let (name, value) = pair.split_once('=').unwrap_or_default();
            let value = unescape(value);
            if name == "registration_id" {
                tokens = value.split(',').map(str::to_owned).collect();
            } else {
                body.insert(unescape(name), value.into());
            }
        }
        (seen.path.clone(), Value::Object(body), tokens)
    },
    answer: |_| {
        answer(
            200,
            &json!({"result": "ok", "code": 0, "data": {"id": "scm1"}}),
        )
    },
    expired: || Act::Silence,
    rows: &[
        (
            "secret",
            200,
            r#"{"code":21301,"reason":"r"}"#,
            "credential_bad",
        ),
        (
            "parameter",
            200,
            r#"{"code":10017,"reason":"r"}"#,
            "refused payload_rejected",
        ),
        (
            "too long",
            200,
            r#"{"code":65009,"reason":"r"}"#,
            "refused payload_too_large",
        ),
        (
            "quota",
            200,
            r#"{"code":200001,"reason":"exceed quota"}"#,
            "quota_exhausted",
        ),
        (
            "rate",
            200,
            r#"{"code":10027,"reason":"r"}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "busy",
            200,
            r#"{"code":10002,"reason":"r"}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "device",
            200,
            r#"{"code":65003,"reason":"r"}"#,
            "token_dead token_invalid",
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

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let pair = [rest.next().unwrap(), rest.next().unwrap()];
                let hex = std::str::from_utf8(&pair).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).unwrap()
}
