//! Alibaba Cloud's RPC calls: signature version 3 and the errors of its gateway, shared by its services.
//!
//! Sources: Alibaba Cloud help, "V3 request structure and signature" (`ACS3-HMAC-SHA256`) and the common error codes of its
//! OpenAPI gateway, read 2026-11. All parameters travel as a form, which every service takes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Secret, Timestamp, Verdict};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ring::{digest, hmac, rand};
use serde_json::Value;
use tokio::time::Instant;

use crate::answer::{
    credential_bad, mend, rate_limited, refused, retry_after, unavailable, unreadable,
};
use crate::config::Fields;
use crate::egress::{Egress, Origin};
use crate::http::{Answer, Call, h1};
use crate::texts;

/// Calls of one request: the first, one with a fresh nonce or a corrected clock.
const TRIES_MAX: usize = 2;

/// What a call that is made twice does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeats {
    /// The same as one call.
    Harmless,
    /// It has its effect twice.
    Once,
}

/// A key pair of a RAM user, or a temporary one with its security token.
#[derive(Debug)]
pub(crate) struct AccessKey {
    pub(crate) id: String,
    secret: Secret,
    security_token: Option<Secret>,
}

impl AccessKey {
    /// Reads `access_key_id`, `access_key_secret` and `security_token`; faults are kept in `fields`.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Self {
        let plain = |text: &str| match HeaderValue::from_str(text) {
            Ok(_) if !text.contains([',', '=', ' ']) => Ok(text.to_owned()),
            _ => Err("has characters that no AccessKey id has".to_owned()),
        };
        let id = fields.checked("access_key_id", "the id of a RAM user's AccessKey", plain);
        let secret = fields.text("access_key_secret", "the secret of that AccessKey");
        let token = fields.optional_text("security_token");
        Self {
            id: id.unwrap_or_default(),
            secret: Secret::new(secret),
            security_token: token.map(Secret::new),
        }
    }
}

/// What is signed beside the parameters.
struct Signed<'a> {
    host: &'a str,
    action: &'a str,
    version: &'a str,
    /// `2024-01-02T03:04:05Z`.
    date: &'a str,
    nonce: &'a str,
    query: &'a str,
    content_type: Option<&'a str>,
    body: &'a [u8],
}

impl Signed<'_> {
    /// The headers to send, `host` left out, with the signature among them.
    fn headers(&self, key: &AccessKey) -> Result<HeaderMap, &'static str> {
        const BAD: &str = "the AccessKey has characters that no header may have";
        let content = hex(digest::digest(&digest::SHA256, self.body).as_ref());
        let token = key.security_token.as_ref().and_then(Secret::expose_str);
        let mut signed = BTreeMap::from([
            ("host", self.host),
            ("x-acs-action", self.action),
            ("x-acs-version", self.version),
            ("x-acs-date", self.date),
            ("x-acs-signature-nonce", self.nonce),
            ("x-acs-content-sha256", content.as_str()),
        ]);
        if let Some(kind) = self.content_type {
            signed.insert("content-type", kind);
        }
        if let Some(token) = token {
            signed.insert("x-acs-security-token", token);
            signed.insert("x-acs-accesskey-id", key.id.as_str());
        }
        let names = signed.keys().copied().collect::<Vec<_>>().join(";");
        let lines: String = signed
            .iter()
            .map(|(name, value)| format!("{name}:{}\n", value.trim()))
            .collect();
        let canonical = format!("POST\n/\n{}\n{lines}\n{names}\n{content}", self.query);
        let canonical = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let secret = key.secret.expose_str().unwrap_or_default();
        let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let text = format!("ACS3-HMAC-SHA256\n{canonical}");
        let signature = hex(hmac::sign(&hmac_key, text.as_bytes()).as_ref());
        let mut headers = HeaderMap::new();
        for (name, value) in signed.iter().filter(|(name, _)| **name != "host") {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| BAD)?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| BAD)?);
        }
        let authorization = format!(
            "ACS3-HMAC-SHA256 Credential={},SignedHeaders={names},Signature={signature}",
            key.id
        );
        let mut value = HeaderValue::from_str(&authorization).map_err(|_| BAD)?;
        value.set_sensitive(true);
        headers.insert(http::header::AUTHORIZATION, value);
        headers.insert(
            http::header::ACCEPT,
            HeaderValue::from_static("application/json"),
        );
        Ok(headers)
    }
}

/// A service of Alibaba Cloud behind one host.
#[derive(Debug)]
pub(crate) struct Service {
    egress: Egress,
    pool: h1::Pool,
    host: String,
    version: &'static str,
    /// By how much our clock differs from theirs, milliseconds; learned when they refuse our time.
    skew_ms: AtomicI64,
}

impl Service {
    pub(crate) fn new(egress: &Egress, origin: Origin, version: &'static str) -> Self {
        Self {
            egress: egress.clone(),
            host: origin.authority(),
            pool: h1::Pool::new(egress, origin),
            version,
            skew_ms: AtomicI64::new(0),
        }
    }

    /// Makes a signed call. A clock that is wrong is mended once, and so is a nonce that is taken where the service takes a
    /// repeat for what it is. Every nonce is new, so one that is taken was seen with this very call, whose answer got lost:
    /// a `Once` call is not repeated then.
    pub(crate) async fn call(
        &self,
        (key, repeats): (&AccessKey, Repeats),
        action: &str,
        parameters: &BTreeMap<String, String>,
        until: Instant,
    ) -> Result<Answer, Verdict> {
        let form = texts::form(parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let body = Bytes::from(form);
        let mut tries = 1;
        loop {
            let skew = self.skew_ms.load(Ordering::Relaxed);
            let date = date(Timestamp(self.egress.now().millis().saturating_add(skew)));
            let nonce = nonce().map_err(|problem| unavailable(None, problem))?;
            let signed = Signed {
                host: &self.host,
                action,
                version: self.version,
                date: &date,
                nonce: &nonce,
                query: "",
                content_type: Some("application/x-www-form-urlencoded"),
                body: &body,
            };
            let call = Call {
                method: Method::POST,
                path: "/".to_owned(),
                headers: signed.headers(key).map_err(credential_bad)?,
                body: body.clone(),
            };
            let answer = self
                .pool
                .call(&call, until)
                .await
                .map_err(|e| e.verdict())?;
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let code = body.get("Code").and_then(Value::as_str).unwrap_or_default();
            let again = match code {
                "InvalidTimeStamp.Expired" => self.learn_clock(&answer),
                "SignatureNonceUsed" if repeats == Repeats::Once => {
                    return Err(Verdict::Retry {
                        reason: Reason::VendorUnavailable,
                        after: None,
                        detail:
                            "SignatureNonceUsed: the call was taken before, and its answer got lost"
                                .to_owned(),
                        certainty: Unsure::MaybeTaken,
                    });
                }
                "SignatureNonceUsed" => true,
                _ => false,
            };
            if !again || tries >= TRIES_MAX {
                return Ok(answer);
            }
            tries += 1;
        }
    }

    /// Takes over the other side's time from its `Date` header.
    fn learn_clock(&self, answer: &Answer) -> bool {
        let Some(theirs) = server_time(&answer.headers) else {
            return false;
        };
        let skew = theirs.millis().saturating_sub(self.egress.now().millis());
        self.skew_ms.store(skew, Ordering::Relaxed);
        true
    }
}

/// The `Date` header of an answer.
pub(crate) fn server_time(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(http::header::DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text.trim())
        .ok()?;
    Some(Timestamp(date.as_millisecond()))
}

/// The gateway's errors, the same for every service; nothing for codes of the service itself.
pub(crate) fn gateway(answer: &Answer, code: &str, words: &str, now: Timestamp) -> Option<Verdict> {
    let after = retry_after(&answer.headers, now).or_else(|| time_left(&answer.headers));
    Some(match code {
        "Throttling" | "Throttling.User" | "Throttling.Api" => rate_limited(after, words),
        "InternalError" | "ServiceUnavailable" => unavailable(after, words),
        "InvalidTimeStamp.Expired" => mend(words, "set this machine's clock"),
        "SignatureNonceUsed" => unavailable(after, words),
        "InvalidProduct.NotFound"
        | "InvalidApi.NotFound"
        | "InvalidProtocol.NeedSsl"
        | "InvalidTimeStamp.Format"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "Forbidden"
        | "Forbidden.RAM"
        | "NoPermission" => mend(
            words,
            "check access_key_id, access_key_secret and the RAM user's rights",
        ),
        code if code.starts_with("InvalidAccessKeyId")
            || code.starts_with("InvalidSecurityToken") =>
        {
            mend(
                words,
                "check access_key_id, access_key_secret and security_token",
            )
        }
        _ => return None,
    })
}

/// An answer whose code says nothing more: by its status, as the notes ask.
pub(crate) fn by_status(answer: &Answer, words: &str, now: Timestamp) -> Verdict {
    match answer.status {
        429 => rate_limited(retry_after(&answer.headers, now), words),
        400..=499 => refused(words),
        500..=599 => unavailable(retry_after(&answer.headers, now), words),
        status => unreadable(status),
    }
}

/// `TimeLeft` of the rate-limit headers, milliseconds.
fn time_left(headers: &HeaderMap) -> Option<std::time::Duration> {
    let header = headers
        .get("x-ratelimit-user-api")
        .or_else(|| headers.get("x-ratelimit-user"))?;
    let (_, rest) = header.to_str().ok()?.split_once("TimeLeft:")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let left = std::time::Duration::from_millis(digits.parse().ok()?);
    Some(left.min(std::time::Duration::from_secs(3600)))
}

/// `2024-01-02T03:04:05Z`.
pub(crate) fn date(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_second(at.millis().div_euclid(1000)).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn nonce() -> Result<String, &'static str> {
    let random = rand::generate::<[u8; 16]>(&rand::SystemRandom::new())
        .map_err(|_| "the system gave no randomness for a nonce; try again")?;
    Ok(hex(&random.expose()))
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(signed: &Signed<'_>, id: &str, secret: &str, want: &str) {
        let key = AccessKey {
            id: id.to_owned(),
            secret: Secret::new(secret),
            security_token: None,
        };
        let headers = signed.headers(&key).unwrap();
        let authorization = headers["authorization"].to_str().unwrap();
        assert!(
            authorization.ends_with(&format!("Signature={want}")),
            "{authorization}"
        );
    }

    #[test]
    fn signatures_are_the_worked_examples() {
        check(
            &Signed {
                host: "ecs.cn-shanghai.aliyuncs.com",
                action: "RunInstances",
                version: "2014-05-26",
                date: "2023-10-26T10:22:32Z",
                nonce: "3156853299f313e23d1673dc12e1703d",
                query: "ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai",
                content_type: None,
                body: b"",
            },
            "YourAccessKeyId",
            "YourAccessKeySecret",
            "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0",
        );
        let push = BTreeMap::from([
            ("PushTask.1.Target", "DEVICE"),
            ("PushTask.1.TargetValue", "d1,d2"),
            ("PushTask.1.DeviceType", "ALL"),
            ("PushTask.1.PushType", "NOTICE"),
            ("PushTask.1.Title", "hi there"),
            ("PushTask.1.Body", "a*b~c+d 你好"),
        ]);
        let body = texts::form(push);
        check(
            &Signed {
                host: "cloudpush.aliyuncs.com",
                action: "MassPush",
                version: "2016-08-01",
                date: "2024-01-02T03:04:05Z",
                nonce: "0123456789abcdef",
                query: "AppKey=23267207",
                content_type: Some("application/x-www-form-urlencoded"),
                body: body.as_bytes(),
            },
            "testid",
            "testsecret",
            "968a7ef70fcf09cac43c22f7f7f2f09b8ebd0e74751b1b5a7ce0b017b7198200",
        );
    }

    #[test]
    fn temporary_keys_sign_their_token() {
        let key = AccessKey {
            id: "STS.x".to_owned(),
            secret: Secret::new("s"),
            security_token: Some(Secret::new("token")),
        };
        let signed = Signed {
            host: "h",
            action: "A",
            version: "1",
            date: "d",
            nonce: "n",
            query: "",
            content_type: None,
            body: b"",
        };
        let headers = signed.headers(&key).unwrap();
        assert_eq!(headers["x-acs-security-token"], "token");
        let authorization = headers["authorization"].to_str().unwrap();
        assert!(
            authorization.contains("x-acs-accesskey-id;"),
            "{authorization}"
        );
        assert!(!format!("{key:?}").contains("token\""), "{key:?}");
    }

    #[test]
    fn times_are_utc_without_fractions() {
        assert_eq!(date(Timestamp(1_704_164_645_678)), "2024-01-02T03:04:05Z");
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-ratelimit-user",
            HeaderValue::from_static("Limit:500,Remain:0,TimeLeft:1500,Reset:1"),
        );
        assert_eq!(
            time_left(&headers),
            Some(std::time::Duration::from_millis(1500))
        );
    }
}
