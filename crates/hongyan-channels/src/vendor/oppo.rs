//! OPPO Push (`oppo`): OPPO, OnePlus and realme phones.
//!
//! Sources: open.oppomobile.com documentation ids 11234 to 11239 (addresses, auth, fields, unicast, receipts), 11256 (FAQ),
//! 13189 (classification of 2024-11-20); official Java server SDK 1.0.x (read 2026-11). Notifications only: there is no
//! pass-through. Unverified, so made settings or taken either way: whether an older access token outlives a newer one (one
//! is shared, and renewed when refused), names of receipt events (read by what they contain), whether storing a content
//! twice is refused (then the list goes out message by message), where tokens of overseas phones authenticate (at their
//! own host).
//!
//! Rate: 4,000 devices a second, however many share a request. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `app_key`, `master_secret` | AppKey and MasterSecret of the console |
//! | `granted`, `strict_classes` | which service classes OPPO granted, and whether others are refused; see [`crate::classes::Grants`] |
//! | `banner` | classes for which level 16 (banner) was granted; others are shown in the list and on the lock screen |
//! | `marketing_category` | `MARKETING` (default), `NEWS`, `CONTENT` or `SOCIAL` |
//! | `classification` | `category` (default), or `channel` for apps of the older scheme: then `channel_id` alone decides |
//! | `channel_id` | notification channel on the device: one for the service classes, or one for each class name |
//! | `templates` | for each class name an approved private template: `{"template_id", "title_parameters", "content_parameters"}`, texts in which `{title}` and `{body}` stand for the message's own |
//! | `click_action`, `click_activity` | intent action or activity class that a tap opens; absent: the app |
//! | `verify_registration_id` | whether the device compares the id with its own before it shows anything |
//! | `lists` | `broadcast` (default: the text is stored once and sent to up to 1,000) or `unicast_batch` |
//! | `relax_class` | whether a message whose class OPPO refuses (code 67) goes out again without level, then without category |
//! | `callback` | https URL for receipts, at most 200 characters; absent: the server's own |
//! | `class_override` | whether a sender may give a marketing message other class fields |
//!
//! `options.vendor.oppo` is merged into `notification`; its object `action_parameters` is merged into the message's own. The
//! target cannot be set that way, and a marketing message keeps its class unless the credential has `class_override`.
//!
//! Receipts are not signed: the secret of their address proves them, and one that comes again changes nothing.

mod answer;
mod credential;
mod message;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, OpenCredential, Outbound, Parcel, QuotaWord, RateCounts,
    Receipt, ReceiptKind, Recipient, Vendor,
};
use hongyan_core::{ChannelId, Class, ClassDetail, Message, Reason, Secret, Timestamp, Verdict};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

pub(super) use self::answer::decode;
use self::answer::{code_of, is_home, is_registration_id, message_id, read_callback, wrong_app};
use self::credential::{Config, fits_callback};
use self::message::{Encoded, encode};
use crate::answer::{refused, unavailable, until_beijing_midnight};
use crate::callback::ReceiptUrl;
use crate::config;
use crate::egress::{Egress, Origin};
use crate::http::{Answer, Call, h1};
use crate::stored::Stored;
use crate::token::{AccessToken, Fetched, Pace, TokenCache, TokenError};
use crate::vendor::{self, Decoded};
use crate::{receipts, texts};

const NAME: &str = "oppo";

/// 5,000 targets a second for an app with fewer than 10 million users.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: PARAMETERS_CHARS_MAX,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 4000,
    rate_counts: RateCounts::Devices,
    concurrency: 32,
    ttl_max: Duration::from_secs(10 * 86_400),
    recalls: false,
    receipts: true,
    poll_every: Some(Duration::from_secs(600)),
    environments: false,
    repeatable: true,
    quota_word: QuotaWord::AskedAgain,
};

const HOME: &str = "https://api.push.oppomobile.com";
const OVERSEAS: &str = "https://api-intl.push.oppomobile.com";
const FEEDBACK: &str = "https://feedback.push.oppomobile.com";

const AUTH_PATH: &str = "/server/v1/auth";
const UNICAST_PATH: &str = "/server/v1/message/notification/unicast";
const UNICAST_BATCH_PATH: &str = "/server/v1/message/notification/unicast_batch";
const SAVE_PATH: &str = "/server/v1/message/notification/save_message_content";
const BROADCAST_PATH: &str = "/server/v1/message/notification/broadcast";
const FEEDBACK_PATH: &str = "/server/v1/feedback/fetch_invalid_regidList";

/// Registration ids in one broadcast.
const TOKENS_MAX: usize = 1000;
/// Messages in one `unicast_batch`, which takes 1,000; each carries its whole text.
const MESSAGES_MAX: usize = 200;
/// Characters.
const TITLE_CHARS_MAX: usize = 50;
const TEXT_CHARS_MAX: usize = 50;
const LONG_TEXT_CHARS_MAX: usize = 128;
const PARAMETERS_CHARS_MAX: usize = 4000;
const CALLBACK_CHARS_MAX: usize = 200;
const ACTIVITY_CHARS_MAX: usize = 500;

/// An access token lives a day and is renewed after half of it; the auth call has a limit of its own.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
const TOKEN_PACE: Pace = Pace {
    renew_after: Some(Duration::from_secs(12 * 3600)),
    pause: Duration::from_secs(1),
};
/// How long a stored content is sent to further lists. Its life on an offline device is counted anew each time; a content is
/// stored anew when an eighth of it has passed.
const CONTENT_REUSE: Duration = Duration::from_secs(3600);
/// An app that is over its call limit for so long comes again tomorrow.
const LIMITED_MAX: Duration = Duration::from_secs(600);
/// Two words of it that are further apart tell nothing of the time between them.
const LIMITED_GAP_MAX: Duration = Duration::from_secs(120);
const SLOW_DOWN: Duration = Duration::from_secs(10);
/// Times that one content is tried with fewer fields: pictures, level, category.
const RELAX_MAX: usize = 4;

/// Categories that need no right.
const PUBLIC_CATEGORIES: &[&str] = &["MARKETING", "NEWS", "CONTENT", "SOCIAL"];
/// Fields that decide class and quota.
const CLASS_FIELDS: &[&str] = &[
    "category",
    "notify_level",
    "channel_id",
    "private_msg_template_id",
    "private_title_parameters",
    "private_content_parameters",
];
const PICTURES: &[&str] = &["big_picture_id", "small_picture_id"];

/// The vendor.
#[derive(Debug)]
pub struct Oppo {
    egress: Egress,
}

impl Oppo {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Oppo {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        let channels = Some(json!(read.channels)).filter(|_| !read.channels.is_empty());
        Ok(config::shown([
            ("app_key", Some(read.app_key.as_str().into())),
            ("granted", read.grants.shown()),
            (
                "classification",
                read.by_channel.then_some(Value::from("channel")),
            ),
            ("channel_id", channels),
            (
                "callback",
                read.callback.as_ref().map(|url| url.shown().into()),
            ),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let endpoint = credential.endpoint.as_deref();
        let origin = |usual: &str| {
            Origin::parse(endpoint.unwrap_or(usual)).map_err(|e| ChannelError::Config {
                detail: e.to_string(),
            })
        };
        let offered = credential.callback.map(ReceiptUrl::new);
        let callback = config.callback.clone().or(offered);
        let callback_too_long = callback
            .as_ref()
            .is_some_and(|url| !fits_callback(url.as_str()));
        Ok(Arc::new(Sender {
            home: Host::new(&self.egress, origin(HOME)?),
            overseas: match endpoint {
                Some(_) => None,
                None => Some(Host::new(&self.egress, origin(OVERSEAS)?)),
            },
            feedback: h1::Pool::new(&self.egress, origin(FEEDBACK)?),
            callback_too_long,
            callback: callback.filter(|_| !callback_too_long),
            limited: Mutex::default(),
            egress: self.egress.clone(),
            config,
        }))
    }
}

/// One of OPPO's regions.
#[derive(Debug)]
struct Host {
    pool: h1::Pool,
    tokens: TokenCache,
    contents: Stored,
}

impl Host {
    fn new(egress: &Egress, origin: Origin) -> Self {
        Self {
            pool: h1::Pool::new(egress, origin),
            tokens: TokenCache::with_pace(TOKEN_PACE),
            contents: Stored::new(CONTENT_REUSE),
        }
    }
}

/// A channel for one app.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    /// Its query has a secret.
    callback: Option<ReceiptUrl>,
    callback_too_long: bool,
    home: Host,
    /// Absent when the credential says where OPPO is.
    overseas: Option<Host>,
    feedback: h1::Pool,
    limited: Mutex<Limited>,
}

/// From when to when OPPO said, call after call, that the app calls too often.
#[derive(Debug, Default)]
struct Limited(Option<(Timestamp, Timestamp)>);

impl Limited {
    /// Hears a code; answers whether it has been so for too long.
    fn is_over(&mut self, code: i64, now: Timestamp) -> bool {
        if code != 13 {
            self.0 = None;
            return false;
        }
        let held = self
            .0
            .filter(|(_, last)| now.since(*last) <= LIMITED_GAP_MAX);
        let (first, _) = held.unwrap_or((now, now));
        self.0 = Some((first, now));
        now.since(first) >= LIMITED_MAX
    }
}

/// Why a content is not stored.
enum Unstored {
    /// What everyone of the list gets to hear.
    Told(Verdict),
    /// The list goes out message by message.
    Each,
}

fn post_call(path: &str, body: Bytes) -> Call {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded;charset=UTF-8"),
    );
    Call {
        method: Method::POST,
        path: path.to_owned(),
        headers,
        body,
    }
}

fn out_of_time() -> Verdict {
    unavailable(None, "the time for the call was over before it was made")
}

impl Sender {
    fn callback_url(&self) -> Option<&str> {
        self.callback.as_ref().map(ReceiptUrl::as_str)
    }

    async fn token(&self, host: &Host, until: Instant) -> Result<AccessToken, Verdict> {
        let now = self.egress.now();
        let got = host.tokens.get(now, || self.fetch_token(host, until));
        tokio::time::timeout_at(until, got)
            .await
            .map_err(|_| out_of_time())?
            .map_err(|e| e.verdict())
    }

    async fn fetch_token(&self, host: &Host, until: Instant) -> Result<Fetched, TokenError> {
        let now = self.egress.now();
        let timestamp = now.millis().to_string();
        let form = texts::form([
            ("app_key", self.config.app_key.as_str()),
            ("timestamp", &timestamp),
            ("sign", &self.config.sign(now.millis())),
        ]);
        let answer = host
            .pool
            .call(&post_call(AUTH_PATH, form.into()), until)
            .await?;
        read_token(&answer, now)
    }

    /// One call; repeated once with a new token when OPPO does not take the one in use.
    async fn call(
        &self,
        host: &Host,
        until: Instant,
        make: impl Fn(&str) -> (bool, Call),
    ) -> Result<Answer, Verdict> {
        let mut first = true;
        loop {
            let token = self.token(host, until).await?;
            let (feedback, call) = make(token.text());
            let pool = if feedback { &self.feedback } else { &host.pool };
            let answer = pool.call(&call, until).await.map_err(|e| e.verdict())?;
            if !(first && matches!(code_of(&answer), Some(11 | 29))) {
                return Ok(answer);
            }
            first = false;
            host.tokens.refused(&token);
        }
    }

    async fn post(
        &self,
        host: &Host,
        path: &str,
        fields: &[(&str, &str)],
        until: Instant,
    ) -> Result<Answer, Verdict> {
        self.call(host, until, |token| {
            let fields = fields.iter().copied().chain([("auth_token", token)]);
            (false, post_call(path, texts::form(fields).into()))
        })
        .await
    }

    /// The same content without what OPPO does not take: pictures over their limit, and the class when the credential says so.
    fn relaxed(&self, answer: &Answer, encoded: &Encoded) -> Option<Encoded> {
        let without: &[&str] = match code_of(answer)? {
            34 | 51 => PICTURES,
            67 if self.config.relax && encoded.notification.contains_key("notify_level") => {
                &["notify_level"]
            }
            67 if self.config.relax => &["category"],
            _ => return None,
        };
        let mut less = encoded.clone();
        let mut removed = false;
        for field in without {
            removed |= less.notification.remove(*field).is_some();
        }
        if without == PICTURES && less.notification.get("style") == Some(&Value::from(3)) {
            less.notification.insert("style".to_owned(), 1.into());
        }
        removed.then_some(less)
    }

    /// What an answer means for this app at this moment.
    fn judge(&self, answer: &Answer, asked: &[&str], level: Option<i64>) -> Decoded {
        let now = self.egress.now();
        let code = code_of(answer);
        let is_over = code.is_some_and(|code| {
            let limited = self.limited.lock();
            let mut limited = limited.unwrap_or_else(PoisonError::into_inner);
            limited.is_over(code, now)
        });
        if is_over {
            return Decoded::all(Verdict::QuotaExhausted {
                until: Some(until_beijing_midnight(now)),
                detail: "13 the app was over its call limit for ten minutes".to_owned(),
            });
        }
        if code == Some(30) && level == Some(16) {
            return Decoded::all(refused(
                "30 no permission: was level 16 granted to the app?",
            ));
        }
        decode(answer, now, asked)
    }

    async fn unicast(
        &self,
        host: &Host,
        encoded: &Encoded,
        token: &str,
        until: Instant,
    ) -> Decoded {
        let mut encoded = encoded.clone();
        for _ in 0..RELAX_MAX {
            let message = encoded.message_to(token).to_string();
            let fields = [("message", message.as_str())];
            let answer = match self.post(host, UNICAST_PATH, &fields, until).await {
                Ok(answer) => answer,
                Err(verdict) => return Decoded::all(verdict),
            };
            match self.relaxed(&answer, &encoded) {
                Some(less) => encoded = less,
                None => return self.judge(&answer, &[token], encoded.level()),
            }
        }
        Decoded::all(refused("67 the class is refused"))
    }

    /// Another message for each, all in one call; the answer names who did not get it.
    async fn each(
        &self,
        host: &Host,
        encoded: &Encoded,
        tokens: &[&str],
        until: Instant,
    ) -> Decoded {
        let mut all = Decoded::all(out_of_time());
        for part in tokens.chunks(MESSAGES_MAX) {
            let messages: Vec<Value> = part.iter().map(|t| encoded.message_to(t)).collect();
            let messages = Value::from(messages).to_string();
            let fields = [("messages", messages.as_str())];
            let decoded = match self.post(host, UNICAST_BATCH_PATH, &fields, until).await {
                Ok(answer) => self.judge(&answer, part, encoded.level()),
                Err(verdict) => Decoded::all(verdict),
            };
            for token in part {
                let verdict = decoded.named.get(*token).unwrap_or(&decoded.rest);
                all.named.insert((*token).to_owned(), verdict.clone());
            }
        }
        all
    }

    /// The stored content, then its id to the whole list.
    async fn broadcast(
        &self,
        host: &Host,
        encoded: &Encoded,
        tokens: &[&str],
        until: Instant,
    ) -> Decoded {
        let key = encoded.content_key();
        let list = tokens.join(";");
        for again in [true, false] {
            let storing = host
                .contents
                .get(&key, self.egress.now(), || self.save(host, encoded, until));
            let stored = match tokio::time::timeout_at(until, storing).await {
                Ok(stored) => stored,
                Err(_) => return Decoded::all(out_of_time()),
            };
            let id = match stored {
                Ok(id) => id,
                Err(Unstored::Told(verdict)) => return Decoded::all(verdict),
                Err(Unstored::Each) => break,
            };
            let fields = [
                ("message_id", id.as_str()),
                ("target_type", "2"),
                ("target_value", &list),
            ];
            let answer = match self.post(host, BROADCAST_PATH, &fields, until).await {
                Ok(answer) => answer,
                Err(verdict) => return Decoded::all(verdict),
            };
            match code_of(&answer) {
                // OPPO has forgotten the content.
                Some(31) if again => host.contents.forget(&key),
                // Some of them are invalid and none is named, or lists are not for this app: one by one tells more.
                Some(30 | 31 | 10_000..=10_003) => break,
                _ => return self.judge(&answer, tokens, encoded.level()),
            }
        }
        self.each(host, encoded, tokens, until).await
    }

    async fn save(
        &self,
        host: &Host,
        encoded: &Encoded,
        until: Instant,
    ) -> Result<String, Unstored> {
        let mut encoded = encoded.clone();
        for _ in 0..RELAX_MAX {
            let fields = encoded.fields();
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let answer = self
                .post(host, SAVE_PATH, &fields, until)
                .await
                .map_err(|verdict| Unstored::Told(vendor::not_taken(verdict)))?;
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let data = body.get("data").and_then(Value::as_object);
            match (code_of(&answer), data.and_then(message_id)) {
                (Some(0), Some(id)) => return Ok(id.to_owned()),
                // Without its id it cannot be sent to a list.
                (Some(0 | 30 | 32), _) => return Err(Unstored::Each),
                _ => match self.relaxed(&answer, &encoded) {
                    Some(less) => encoded = less,
                    None => {
                        // Nothing went to anyone yet, and no token is at fault.
                        let told = match self.judge(&answer, &[], encoded.level()).rest {
                            Verdict::TokenDead { detail, .. } => refused(&detail),
                            other => vendor::not_taken(other),
                        };
                        return Err(Unstored::Told(told));
                    }
                },
            }
        }
        Err(Unstored::Told(refused("67 the class is refused")))
    }

    async fn send_to(
        &self,
        host: &Host,
        encoded: &Encoded,
        tokens: &[&str],
        until: Instant,
    ) -> Decoded {
        match tokens {
            [one] => self.unicast(host, encoded, one, until).await,
            many if self.config.broadcasts => self.broadcast(host, encoded, many, until).await,
            many => self.each(host, encoded, many, until).await,
        }
    }
}

/// Reads the answer of the auth call.
fn read_token(answer: &Answer, now: Timestamp) -> Result<Fetched, TokenError> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let token = body.pointer("/data/auth_token").and_then(Value::as_str);
    if let (Some(0), Some(token)) = (code_of(answer), token) {
        return Ok(Fetched {
            text: token.to_owned(),
            lives: TOKEN_LIFE,
        });
    }
    match decode(answer, now, &[]).rest {
        Verdict::CredentialBad { detail } | Verdict::Refused { detail, .. } => {
            Err(TokenError::Refused(detail))
        }
        Verdict::Retry { detail, after, .. } => Err(TokenError::Unavailable { detail, after }),
        _ => Err(TokenError::Unavailable {
            detail: "the auth call's answer has no token".to_owned(),
            after: None,
        }),
    }
}

#[async_trait]
impl Channel for Sender {
    fn counts_as(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        self.config.grants.counted(class, detail)
    }

    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let callback = self.callback.as_ref().map(ReceiptUrl::shown);
        let encoded = encode(&self.config, callback.as_deref(), outbound)?;
        Ok(Parcel {
            method: "POST",
            path: UNICAST_PATH.to_owned(),
            headers: Vec::new(),
            body: Value::Object(encoded.message()),
            truncated: encoded.truncated,
            downgraded: encoded.downgraded,
        })
    }

    /// One call for one device; for more the content is stored once and sent by its id, at most 1,000 in a call.
    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict> {
        let until = Instant::now() + deadline;
        let encoded = match encode(&self.config, self.callback_url(), &batch.outbound) {
            Ok(encoded) => encoded,
            Err(refused) => return vendor::for_all(&batch.recipients, &vendor::refusal(refused)),
        };
        let mut said: BTreeMap<String, Verdict> = BTreeMap::new();
        let tokens = vendor::tokens(&batch.recipients);
        let (home, overseas): (Vec<&str>, Vec<&str>) = tokens
            .into_iter()
            .filter(|t| is_registration_id(t))
            .partition(|t| self.overseas.is_none() || is_home(t));
        for (host, tokens) in [(Some(&self.home), home), (self.overseas.as_ref(), overseas)] {
            let Some(host) = host else { continue };
            for part in tokens.chunks(TOKENS_MAX) {
                let decoded = self.send_to(host, &encoded, part, until).await;
                for token in part {
                    let verdict = decoded.named.get(*token).unwrap_or(&decoded.rest);
                    said.insert((*token).to_owned(), verdict.clone());
                }
            }
        }
        let malformed = Verdict::no_token("a registration id");
        let verdicts = batch.recipients.iter().map(|recipient| {
            let token = recipient.token.expose_str().unwrap_or_default();
            said.get(token).unwrap_or(&malformed).clone()
        });
        vendor::spare_tokens(verdicts.collect(), wrong_app)
    }

    /// A message to a registration id that nobody has: OPPO's complaint about the id proves the credential.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let notification = json!({"title": "check", "content": "check", "off_line": false});
        let encoded = Encoded {
            notification: notification.as_object().cloned().unwrap_or_default(),
            verify: true,
            truncated: Vec::new(),
            downgraded: None,
        };
        let until = Instant::now() + deadline;
        let nobody = "0".repeat(32);
        let decoded = self.unicast(&self.home, &encoded, &nobody, until).await;
        let verdict = decoded.named.get(&nobody).unwrap_or(&decoded.rest);
        match verdict {
            bad @ (Verdict::CredentialBad { .. } | Verdict::Retry { .. }) => vendor::unproved(bad),
            Verdict::QuotaExhausted { .. } => CheckReport {
                ok: true,
                detail: "OPPO accepts the credential; today's quota is used up".to_owned(),
            },
            _ if self.callback_too_long => CheckReport {
                ok: true,
                detail: "OPPO accepts the credential; there are no receipts, because the server's callback address is longer than the 200 characters that OPPO takes: set a shorter callback in the credential".to_owned(),
            },
            _ => CheckReport {
                ok: true,
                detail: "OPPO accepts the credential".to_owned(),
            },
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
        Some(read_callback(request))
    }

    /// Takes some of the invalid registration ids out of OPPO's queue (mainland only).
    async fn poll(&self, deadline: Duration) -> Result<Vec<Receipt>, ChannelError> {
        let failed = |detail: String| ChannelError::Failed {
            what: "OPPO's list of invalid registration ids cannot be had",
            source: detail.into(),
        };
        let until = Instant::now() + deadline;
        let answer = self
            .call(&self.home, until, |token| {
                let call = Call {
                    method: Method::GET,
                    path: format!("{FEEDBACK_PATH}?auth_token={}", texts::escaped(token)),
                    headers: HeaderMap::new(),
                    body: Bytes::new(),
                };
                (true, call)
            })
            .await
            .map_err(|verdict| failed(verdict.detail().to_owned()))?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let list = body.pointer("/data/registration_ids");
        if code_of(&answer) != Some(0) {
            let decoded = decode(&answer, self.egress.now(), &[]);
            return Err(failed(decoded.rest.detail().to_owned()));
        }
        let ids = list.and_then(Value::as_array).into_iter().flatten();
        Ok(ids
            .filter_map(Value::as_str)
            .take(receipts::RECEIPTS_MAX)
            .map(|id| Receipt {
                kind: ReceiptKind::TokenInvalid,
                message: None,
                vendor_id: None,
                token: Some(Secret::new(id)),
                at: None,
                detail: "in OPPO's list of invalid registration ids".to_owned(),
            })
            .collect())
    }
}
