//! Umeng U-Push (`umeng`), the push platform of Umeng+: Android through its own connection and the makers' channels, iOS,
//! HarmonyOS; the classic server API with MD5 signatures.
//!
//! Sources: developer.umeng.com U-Push documents (integration, parameters of each platform, error and signature appendices)
//! through public copies; hedeqiang/UMeng-Push, umeng-push (PyPI), official Java and PHP demos; the Alibaba Cloud SDK's models of
//! channel properties (read 2026-11). Unverified: the layout of receipts (a list of `msg_id`, `device_token`, `type` 1
//! delivered, 2 clicked, 3 dismissed, `ts`, `callback_params` is read); that times are of China; how often one app may
//! send (the lane starts at 80 a second).
//!
//! Rate: 80 requests a second. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `app_key`, `master_secret` | as the console shows them; one platform has one pair |
//! | `platform` | `android` (default), `ios` or `harmony`: what the pair is for. An app with several has a named credential for each |
//! | `granted`, `strict_classes` | the service classes that the makers granted the app; without one a message goes out as marketing, or not at all |
//! | `class_override` | whether a sender may give a marketing message another class at the makers |
//! | `xiaomi_channels`, `oppo_channels`, `android_channels` | the app's channels by class, as in `vendor/makers.rs` |
//! | `channel_activity` | activity that a tap on a maker's notification opens |
//! | `main_activity` | launcher activity, without which some makers set no badge |
//! | `production` | whether it is for all devices, not only for registered test devices and Apple's sandbox; `true` when absent |
//! | `payload_bytes_max` | size of the payload; absent: 2048, iOS 2012 |
//! | `callback` | URL for receipts instead of hongyan's own |
//!
//! `options.vendor.umeng` is merged into the body; targets, keys and the call's type cannot be set that way, and a marketing
//! message keeps its category and channel properties unless the credential has `class_override`.
//!
//! Umeng neither withdraws nor recognises a repeat of what is sent to named devices. On iOS a repeat replaces the first by its
//! collapse id; on Android and HarmonyOS it would show twice, so what may have been sent there is not sent again. Receipts are not signed: the secret in the callback's
//! address is what proves them, and one that comes again changes nothing.

mod body;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, OpenCredential, Outbound, Parcel, QuotaWord, RateCounts,
    Receipt, ReceiptKind, Recipient, Vendor,
};
use hongyan_core::{
    ChannelId, Class, ClassDetail, Message, MessageId, Reason, Secret, Timestamp, Verdict,
};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use self::body::{Encoded, encode};
use crate::answer::{
    accepted, mend, quota, rate_limited, refused, retry_after, token_dead, too_large, unavailable,
    unreadable, until_beijing_midnight,
};
use crate::callback::ReceiptUrl;
use crate::classes::Grants;
use crate::config::{self, Fields};
use crate::digests::md5_hex;
use crate::egress::{Egress, Origin};
use crate::http::{Answer, Call, h1};
use crate::texts;
use crate::vendor::makers::Makers;
use crate::vendor::{self, Decoded};

const NAME: &str = "umeng";

const CAPABILITY: Capability = Capability {
    payload_bytes_max: PAYLOAD_BYTES_MAX,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 80,
    rate_counts: RateCounts::Requests,
    concurrency: 32,
    ttl_max: Duration::from_secs(7 * 86_400),
    recalls: false,
    receipts: true,
    poll_every: None,
    environments: false,
    // But see `Sender::repeats`.
    repeatable: false,
    quota_word: QuotaWord::AskedAgain,
};

const ENDPOINT: &str = "https://msgapi.umeng.com";
const SEND: &str = "/api/send";
/// Device tokens in one listcast.
const TOKENS_MAX: usize = 500;
const PAYLOAD_BYTES_MAX: usize = 2048;
const IOS_PAYLOAD_BYTES_MAX: usize = 2012;
/// Device tokens of Android have exactly this many characters; those of iOS are Apple's.
const ANDROID_TOKEN_LEN: usize = 44;
const IOS_TOKEN_LEN: usize = 64;
/// Calls for one batch in which some tokens are bad: Umeng does not say which, so halves are tried.
const CALLS_MAX: usize = 64;
/// Items of one post of receipts that are read.
const ITEMS_MAX: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Platform {
    Android,
    Ios,
    Harmony,
}

impl Platform {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Android => "android",
            Self::Ios => "ios",
            Self::Harmony => "harmony",
        }
    }

    /// Whether a token can be one of this platform, and of a comma list.
    fn knows(self, token: &str) -> bool {
        let plain = |b: u8| b.is_ascii_graphic() && b != b',';
        token.bytes().all(plain)
            && match self {
                Self::Android => token.len() == ANDROID_TOKEN_LEN,
                Self::Ios => {
                    token.len() == IOS_TOKEN_LEN && token.bytes().all(|b| b.is_ascii_hexdigit())
                }
                Self::Harmony => !token.is_empty() && token.len() <= 512,
            }
    }
}

#[derive(Debug)]
struct Config {
    app_key: String,
    secret: Secret,
    platform: Platform,
    grants: Grants,
    class_override: bool,
    makers: Makers,
    channel_activity: Option<String>,
    main_activity: Option<String>,
    production: bool,
    payload_bytes_max: usize,
    callback: Option<ReceiptUrl>,
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let key = |text: &str| {
            if text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
                Ok(text.to_owned())
            } else {
                Err("has characters that no key of Umeng has".to_owned())
            }
        };
        let app_key = fields.checked("app_key", "the AppKey of the console", key);
        let what = "the App Master Secret of the console";
        let secret = fields.checked("master_secret", what, key);
        let platform = match fields.optional_text("platform").as_deref() {
            None | Some("android") => Platform::Android,
            Some("ios") => Platform::Ios,
            Some("harmony") => Platform::Harmony,
            Some(_) => {
                fields.fault("platform", "must be android, ios or harmony");
                Platform::Android
            }
        };
        let usual = match platform {
            Platform::Ios => IOS_PAYLOAD_BYTES_MAX,
            Platform::Android | Platform::Harmony => PAYLOAD_BYTES_MAX,
        };
        let payload_bytes_max = match fields.value("payload_bytes_max").map(Value::as_u64) {
            None => usual,
            Some(Some(bytes @ 256..=4096)) => usize::try_from(bytes).unwrap_or(usual),
            Some(_) => {
                fields.fault("payload_bytes_max", "must be a number from 256 to 4096");
                usual
            }
        };
        let read = Self {
            app_key: app_key.unwrap_or_default(),
            secret: Secret::new(secret.unwrap_or_default()),
            platform,
            grants: Grants::read(&mut fields),
            class_override: fields.switch("class_override"),
            makers: Makers::read(&mut fields),
            channel_activity: fields.optional_text("channel_activity"),
            main_activity: fields.optional_text("main_activity"),
            production: fields.value("production").is_none() || fields.switch("production"),
            payload_bytes_max,
            callback: fields.optional_url("callback").map(ReceiptUrl::new),
        };
        let faults = fields.finish_strict();
        if faults.is_empty() {
            Ok(read)
        } else {
            Err(faults)
        }
    }
}

/// `md5(METHOD + URL + BODY + secret)` in lower-case hex; the URL without its query.
fn sign(method: &str, url: &str, body: &[u8], secret: &[u8]) -> String {
    md5_hex(&[method.as_bytes(), url.as_bytes(), body, secret])
}

/// The code of a refusal, as text, and the words with it.
fn error(answer: &Answer) -> Option<(String, String)> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    if body.get("ret").and_then(Value::as_str) != Some("FAIL") {
        return None;
    }
    let text = |name: &str| match body.pointer(&format!("/data/{name}")) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    Some((text("error_code"), text("error_msg")))
}

pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    let after = retry_after(&answer.headers, now);
    let Some((code, why)) = error(answer) else {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let id = ["msg_id", "task_id"]
            .iter()
            .find_map(|name| body.get("data")?.get(name)?.as_str());
        let success = body.get("ret").and_then(Value::as_str) == Some("SUCCESS");
        let words = format!("Umeng answered status {}", answer.status);
        return match answer.status {
            200 if success => accepted(id),
            429 => rate_limited(after, &words),
            500..=599 => unavailable(after, &words),
            401 | 403 => mend(&words, "check app_key and master_secret"),
            404 => mend(&words, "check the endpoint"),
            400..=499 => refused(&words),
            status => unreadable(status),
        };
    };
    let words = format!("{code} {why}");
    let number: u32 = code.parse().unwrap_or(0);
    match number {
        2022 => too_large(&words),
        4010 | 4014 | 4020 | 4025 | 4026 | 5000 | 5005 => token_dead(&words),
        2012 => until_midnight(now, &words),
        2026 | 2050 => rate_limited(after, &words),
        2013 | 2014 | 2020 | 2023 | 2038 | 3000..=3004 | 6003 | 6004 => unavailable(after, &words),
        2004 | 2054 => mend(&words, "add this machine's address to the app's IP list"),
        // The clocks differ. It heals without a person once they agree.
        2028 => unavailable(after, &format!("{words}: check this machine's clock")),
        2036 | 2052 => mend(&words, "set this machine's clock"),
        2006 | 2007 | 2027 => mend(&words, "check master_secret"),
        1000 | 1018 | 1020 | 2000 | 2021 => mend(
            &words,
            "check app_key, that it is of this platform, and that the app is enabled in Umeng's console",
        ),
        2032..=2035 | 5001 | 5007..=5010 | 6002 => mend(
            &words,
            "store Apple's certificate or key anew in Umeng's console",
        ),
        6001 => mend(&words, "ask Umeng to switch the interface on for the app"),
        // All others of the table are faults of the body, which no repeat mends.
        1001..=1028 | 2001..=2053 | 5002 | 10089 => refused(&words),
        _ => match answer.status {
            429 => rate_limited(after, &words),
            500..=599 => unavailable(after, &words),
            401 | 403 => mend(&words, "check app_key and master_secret"),
            _ => refused(&words),
        },
    }
}

fn until_midnight(now: Timestamp, words: &str) -> Verdict {
    match quota(words) {
        Verdict::QuotaExhausted { detail, .. } => Verdict::QuotaExhausted {
            until: Some(until_beijing_midnight(now)),
            detail,
        },
        other => other,
    }
}

fn wrong_app(_detail: &str) -> bool {
    true
}

/// The vendor.
#[derive(Debug)]
pub struct Umeng {
    egress: Egress,
}

impl Umeng {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Umeng {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        Ok(config::shown([
            ("app_key", Some(read.app_key.as_str().into())),
            ("platform", Some(read.platform.as_str().into())),
            ("production", Some(read.production.into())),
            ("granted", read.grants.shown()),
            (
                "callback",
                read.callback.as_ref().map(|url| url.shown().into()),
            ),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let endpoint = credential.endpoint.as_deref().unwrap_or(ENDPOINT);
        let origin = Origin::parse(endpoint).map_err(|e| ChannelError::Config {
            detail: e.to_string(),
        })?;
        Ok(Arc::new(Sender {
            base: origin.to_string(),
            pool: h1::Pool::new(&self.egress, origin),
            egress: self.egress.clone(),
            callback: config
                .callback
                .clone()
                .or(credential.callback.map(ReceiptUrl::new)),
            config,
        }))
    }
}

/// A channel for one app.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    /// The address as it is signed: scheme, host and port.
    base: String,
    callback: Option<ReceiptUrl>,
    pool: h1::Pool,
}

impl Sender {
    async fn post(&self, path: &str, body: Bytes, until: Instant) -> Result<Answer, Verdict> {
        let url = format!("{}{path}", self.base);
        let sign = sign("POST", &url, &body, self.config.secret.expose());
        let mut headers = HeaderMap::with_capacity(1);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let call = Call {
            method: Method::POST,
            path: format!("{path}?sign={sign}"),
            headers,
            body,
        };
        self.pool.call(&call, until).await.map_err(|e| e.verdict())
    }

    /// Sends to all; when Umeng says that there are bad tokens among them, to their halves.
    async fn send_part(&self, encoded: &Encoded, tokens: Vec<&str>, until: Instant) -> Decoded {
        let mut decoded = Decoded {
            rest: Verdict::no_token("a device_token of this platform"),
            named: BTreeMap::new(),
        };
        let mut waiting = vec![tokens];
        let mut calls = 0;
        while let Some(tokens) = waiting.pop() {
            if tokens.is_empty() {
                continue;
            }
            let verdict = if calls >= CALLS_MAX {
                unavailable(None, "too many bad device tokens for one call")
            } else {
                calls += 1;
                let body = encoded.with_tokens(&tokens, self.egress.now());
                match self.post(SEND, body, until).await {
                    Ok(answer) => decode(&answer, self.egress.now()),
                    Err(verdict) => verdict,
                }
            };
            // Code 4026 says that the others of the list were taken; a repeat would show twice.
            let partly =
                matches!(&verdict, Verdict::TokenDead { detail, .. } if detail.starts_with("4026"));
            if partly && tokens.len() > 1 {
                let taken = tokens.iter().map(|t| ((*t).to_owned(), accepted(None)));
                decoded.named.extend(taken);
            } else if matches!(verdict, Verdict::TokenDead { .. }) && tokens.len() > 1 {
                let (left, right) = tokens.split_at(tokens.len() / 2);
                waiting.push(right.to_vec());
                waiting.push(left.to_vec());
            } else {
                let named = tokens.iter().map(|t| ((*t).to_owned(), verdict.clone()));
                decoded.named.extend(named);
            }
        }
        decoded
    }
}

#[async_trait]
impl Channel for Sender {
    fn counts_as(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        self.config.grants.counted(class, detail)
    }

    /// Only iOS has a collapse id.
    fn repeats(&self) -> Option<bool> {
        Some(self.config.platform == Platform::Ios)
    }

    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let callback = self.callback.as_ref().map(ReceiptUrl::shown);
        let encoded = encode(&self.config, callback.as_deref(), outbound)?;
        Ok(Parcel {
            method: "POST",
            path: SEND.to_owned(),
            headers: Vec::new(),
            body: Value::Object(encoded.body),
            truncated: Vec::new(),
            downgraded: encoded.downgraded,
        })
    }

    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict> {
        let until = Instant::now() + deadline;
        let callback = self.callback.as_ref().map(ReceiptUrl::as_str);
        let encoded = match encode(&self.config, callback, &batch.outbound) {
            Ok(encoded) => encoded,
            Err(refused) => return vendor::for_all(&batch.recipients, &vendor::refusal(refused)),
        };
        let mut verdicts = Vec::with_capacity(batch.recipients.len());
        for part in batch.recipients.chunks(TOKENS_MAX) {
            let tokens = vendor::tokens(part).into_iter();
            let tokens = tokens.filter(|t| self.config.platform.knows(t)).collect();
            let decoded = self.send_part(&encoded, tokens, until).await;
            verdicts.extend(part.iter().map(|recipient| decoded.of(recipient)));
        }
        vendor::spare_tokens(verdicts, wrong_app)
    }

    /// A question about a task that nobody made: that Umeng does not find it proves the credential.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let now = self.egress.now();
        let body = json!({
            "appkey": self.config.app_key, "timestamp": now.seconds().to_string(),
            "task_id": "us00000000000000000000",
        });
        let until = Instant::now() + deadline;
        let body = body.to_string().into();
        let verdict = match self.post("/api/status", body, until).await {
            Ok(answer) => match error(&answer) {
                Some((code, _)) if code == "1014" || code == "2005" => accepted(None),
                _ => decode(&answer, now),
            },
            Err(verdict) => verdict,
        };
        match verdict {
            Verdict::Accepted { .. } => CheckReport {
                ok: true,
                detail: "Umeng accepts the credential".to_owned(),
            },
            other => vendor::unproved(&other),
        }
    }

    async fn recall(
        &self,
        _message: &Message,
        _recipients: &[Recipient],
        _deadline: Duration,
    ) -> Option<Vec<Verdict>> {
        None
    }

    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        Some(receipts(request.body))
    }
}

/// Reads a post of receipts; Umeng does not sign them.
fn receipts(body: &[u8]) -> Result<Callback, CallbackError> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| CallbackError::Malformed(error.to_string()))?;
    let items = match &body {
        Value::Array(items) => items.as_slice(),
        Value::Object(object) => match object.get("data").and_then(Value::as_array) {
            Some(items) => items.as_slice(),
            None => std::slice::from_ref(&body),
        },
        _ => return Err(CallbackError::Malformed("it is no list".to_owned())),
    };
    Ok(Callback {
        receipts: items.iter().take(ITEMS_MAX).filter_map(receipt).collect(),
        signed: false,
        content_type: "application/json",
        body: r#"{"ret":"SUCCESS"}"#.to_owned(),
    })
}

fn receipt(item: &Value) -> Option<Receipt> {
    let text = |name: &str| match item.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    // The parameters come back as an object or as its text.
    let params = match item.get("callback_params") {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        Some(other) => other.clone(),
        None => Value::Null,
    };
    let message = params
        .get("hy_id")
        .and_then(Value::as_str)
        .and_then(|id| MessageId::parse(id).ok());
    let vendor_id = ["msg_id", "task_id"]
        .iter()
        .map(|name| texts::detail(&text(name)))
        .find(|id| !id.is_empty());
    if message.is_none() && vendor_id.is_none() {
        return None;
    }
    let at = text("ts").parse::<i64>().ok();
    Some(Receipt {
        kind: match text("type").as_str() {
            "1" => ReceiptKind::Delivered,
            "2" => ReceiptKind::Clicked,
            "3" => ReceiptKind::Dismissed,
            _ => ReceiptKind::Other,
        },
        message,
        vendor_id,
        token: Some(text("device_token"))
            .filter(|token| !token.is_empty() && token.len() <= 512)
            .map(Secret::new),
        at: at
            .filter(|at| (0..=9_999_999_999_999).contains(at))
            .map(Timestamp),
        detail: texts::detail(&text("error_code")),
    })
}

#[cfg(test)]
mod tests;
