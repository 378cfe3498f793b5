//! Getui's access token: asked for with a signed time stamp, good for a day.

use std::time::Duration;

use bytes::Bytes;
use hongyan_core::Timestamp;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Config, MINUTE, parts};
use crate::digests::sha256_hex;
use crate::http::{Answer, Call, h1};
use crate::texts::detail;
use crate::token::{AccessToken, Fetched, TokenError};

/// A token is not used in its last hour, as Getui's own client does not.
const SPARED: Duration = Duration::from_secs(3600);

/// `sha256(appkey + timestamp + mastersecret)` in lower-case hex.
pub(super) fn sign(app_key: &str, timestamp: &str, secret: &[u8]) -> String {
    let mut text = format!("{app_key}{timestamp}").into_bytes();
    text.extend_from_slice(secret);
    sha256_hex(&text)
}

pub(super) async fn fetch(
    config: &Config,
    pool: &h1::Pool,
    now: Timestamp,
    until: Instant,
) -> Result<Fetched, TokenError> {
    let timestamp = now.millis().to_string();
    let sign = sign(&config.app_key, &timestamp, config.secret.expose());
    let body = json!({"sign": sign, "timestamp": timestamp, "appkey": config.app_key});
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json;charset=utf-8"),
    );
    let call = Call {
        method: Method::POST,
        path: config.path("/auth"),
        headers,
        body: Bytes::from(body.to_string()),
    };
    read(&pool.call(&call, until).await?, now)
}

pub(super) fn read(answer: &Answer, now: Timestamp) -> Result<Fetched, TokenError> {
    let unavailable = |detail: String, after| Err(TokenError::Unavailable { detail, after });
    let Some((code, why, data)) = parts(answer) else {
        return match answer.status {
            status @ (400..=428 | 430..=499) => Err(TokenError::Refused(format!(
                "status {status}: check app_id and endpoint"
            ))),
            status => unavailable(format!("Getui answered status {status}"), None),
        };
    };
    let token = data.get("token").and_then(Value::as_str);
    match (code, token) {
        (0, Some(token)) => {
            let expires = match data.get("expire_time") {
                Some(Value::String(text)) => text.parse().ok(),
                Some(Value::Number(number)) => number.as_i64(),
                _ => None,
            };
            let lives = expires.map_or(SPARED * 2, |at| Timestamp(at).since(now));
            let lives = lives.min(Duration::from_secs(86_400));
            Ok(Fetched {
                text: token.to_owned(),
                lives: lives.saturating_sub(SPARED).max(Duration::from_secs(1)),
            })
        }
        (2, _) | (500..=599, _) => unavailable(format!("{code} {why}"), None),
        (10003 | 10005, _) => unavailable(format!("{code} {why}"), Some(MINUTE)),
        (0, None) => unavailable("Getui's answer has no token".to_owned(), None),
        (code, _) if answer.status >= 500 => unavailable(format!("{code} {why}"), None),
        (code, _) => Err(TokenError::Refused(detail(&format!(
            "{code} {why}: check app_key, master_secret and this machine's clock"
        )))),
    }
}

/// The token as Getui wants it: in a header of its own, without a scheme.
pub(super) fn header(token: &AccessToken) -> HeaderValue {
    let bytes = token.header.as_bytes();
    let bare = bytes.strip_prefix(b"Bearer ").unwrap_or(bytes);
    let mut value = HeaderValue::from_bytes(bare).unwrap_or_else(|_| token.header.clone());
    value.set_sensitive(true);
    value
}
