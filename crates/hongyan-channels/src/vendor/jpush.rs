//! JPush (`jpush`), Jiguang's push platform: Android through its own connection and the makers' channels, iOS, HarmonyOS.
//!
//! Sources: docs.jiguang.cn, Push API v3, device API, REST status codes, JUMS callback page; jpush-api-python-client,
//! jpush-api-java-client and its issue 165 (read 2026-11). Unverified: the layout of JPush's own receipts (that of its
//! sister product JUMS is read, with the types of the push API: 1 delivered, 2 clicked, 8 taken); the size limit of the
//! iOS part (`ios_bytes_max`); whether an id of one's own making may be used as `cid` (so it comes from the pool).
//!
//! Rate: 8 requests a second. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `app_key`, `master_secret` | as the console shows them |
//! | `platforms` | which of `android`, `ios`, `hmos` the app has; all three when absent |
//! | `zone` | `default` or `beijing` |
//! | `granted`, `strict_classes` | the service classes that the makers granted the app; without one a message goes out as marketing, or not at all |
//! | `class_override` | whether a sender may give a marketing message another class at the makers |
//! | `xiaomi_channels`, `oppo_channels`, `android_channels` | the app's channels by class, as in `vendor/makers.rs` |
//! | `distribution` | `jpush`, `ospush`, `first_ospush` or `secondary_push` for all makers; JPush's default when absent |
//! | `vip` | whether the app is on the paid tier: receipts and a life of 10 days need it |
//! | `callback` | URL for receipts instead of hongyan's own; JPush calls only URLs that its console knows |
//! | `cid` | `pool` (default): each call has a number from JPush's pool, so that it can be repeated at once when its answer is lost, and goes out once; `none` |
//! | `apns_production` | whether iOS tokens are of Apple's production world; `true` when absent |
//! | `ios_bytes_max` | size of the iOS part, 2000 when absent |
//! | `click_intent` | intent URI for taps on the makers' notifications, with `{hy_id}`, `{hy_url}`, `{hy_data}`, `{hy_user}` |
//! | `badge_class` | launcher activity, without which Huawei and Honor set no badge |
//!
//! `options.vendor.jpush` is merged into the push object; the audience and the `cid` cannot be set that way, and a marketing
//! message keeps its marks unless the credential has `class_override`.
//!
//! The makers' quotas that JPush knows are shown in the report on quotas. They limit nothing here: which pushes go through
//! which maker is not known before they are sent.
//!
//! Nothing else tells a repeat from a new push: what may have been sent after all when the repeat's answer is lost too, is not
//! sent again.
//!
//! JPush withdraws by its own message id. It is remembered for the last 10,000 batches, over a restart as far as the ledger's end
//! names them. Receipts carry neither time stamp nor nonce under their signature, so a replayed one is taken again; it changes nothing.

mod body;
mod callback;
mod cid;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, DailyLimit, Earlier, LimitOf, OpenCredential, Outbound,
    Parcel, QuotaWord, RateCounts, Recipient, Vendor,
};
use hongyan_core::verdict::Unsure;
use hongyan_core::{ChannelId, Class, ClassDetail, Message, Reason, Secret, Timestamp, Verdict};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use self::body::{Encoded, encode};
use self::cid::Cids;
use crate::answer::{
    accepted, mend, quota, rate_limited, refused, retry_after, token_dead, too_large, unavailable,
    unreadable, until_beijing_midnight,
};
use crate::callback::ReceiptUrl;
use crate::classes::Grants;
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::{Answer, Call, h1};
use crate::texts;
use crate::vendor::limits::Limits;
use crate::vendor::makers::Makers;
use crate::vendor::recent::Recent;
use crate::vendor::{self, Decoded};

const NAME: &str = "jpush";

/// The free tier has 600 pushes a minute, shared with the calls for cids, quotas and images.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: ANDROID_BYTES_MAX,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 8,
    rate_counts: RateCounts::Requests,
    concurrency: 16,
    ttl_max: TTL_MAX,
    recalls: true,
    receipts: true,
    poll_every: None,
    environments: false,
    repeatable: false,
    quota_word: QuotaWord::AskedAgain,
};

const TTL_MAX: Duration = Duration::from_secs(3 * 86_400);
const TTL_VIP_MAX: Duration = Duration::from_secs(10 * 86_400);
/// `registration_id`s in one push.
const TOKENS_MAX: usize = 1000;
/// Notification and message of Android together, bytes.
const ANDROID_BYTES_MAX: usize = 4000;
const IOS_BYTES_MAX: usize = 2000;
/// How often a batch is sent again without the id that JPush found malformed: it names one at a time.
const RESENDS_MAX: usize = 32;
/// How long a send waits for a cid before it goes without one.
const CID_PATIENCE: Duration = Duration::from_secs(3);
const PLATFORMS: &[&str] = &["android", "ios", "hmos"];
const DISTRIBUTIONS: &[&str] = &["jpush", "ospush", "first_ospush", "secondary_push"];

#[derive(Debug)]
struct Config {
    app_key: String,
    secret: Secret,
    beijing: bool,
    platforms: Vec<&'static str>,
    grants: Grants,
    class_override: bool,
    makers: Makers,
    distribution: Option<String>,
    vip: bool,
    callback: Option<ReceiptUrl>,
    pooled_cids: bool,
    apns_production: bool,
    ios_bytes_max: usize,
    click_intent: Option<String>,
    badge_class: Option<String>,
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let key = |text: &str| {
            if text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
                Ok(text.to_owned())
            } else {
                Err("has characters that no JPush key has".to_owned())
            }
        };
        let app_key = fields.checked("app_key", "the AppKey of the console", key);
        let secret = fields.checked("master_secret", "the Master Secret of the console", key);
        let beijing = match fields.optional_text("zone").as_deref() {
            None | Some("default") => false,
            Some("beijing") => true,
            Some(_) => {
                fields.fault("zone", "must be default or beijing");
                false
            }
        };
        let pooled_cids = match fields.optional_text("cid").as_deref() {
            None | Some("pool") => true,
            Some("none") => false,
            Some(_) => {
                fields.fault("cid", "must be pool or none");
                false
            }
        };
        let distribution = fields.optional_text("distribution");
        if distribution
            .as_ref()
            .is_some_and(|d| !DISTRIBUTIONS.contains(&d.as_str()))
        {
            fields.fault(
                "distribution",
                format!("must be one of {}", DISTRIBUTIONS.join(", ")),
            );
        }
        let ios_bytes_max = match fields.value("ios_bytes_max").map(Value::as_u64) {
            None => IOS_BYTES_MAX,
            Some(Some(bytes @ 256..=4096)) => usize::try_from(bytes).unwrap_or(IOS_BYTES_MAX),
            Some(_) => {
                fields.fault("ios_bytes_max", "must be a number from 256 to 4096");
                IOS_BYTES_MAX
            }
        };
        let apns_production =
            fields.value("apns_production").is_none() || fields.switch("apns_production");
        let read = Self {
            app_key: app_key.unwrap_or_default(),
            secret: Secret::new(secret.unwrap_or_default()),
            beijing,
            platforms: platforms(&mut fields),
            grants: Grants::read(&mut fields),
            class_override: fields.switch("class_override"),
            makers: Makers::read(&mut fields),
            distribution,
            vip: fields.switch("vip"),
            callback: fields.optional_url("callback").map(ReceiptUrl::new),
            pooled_cids,
            apns_production,
            ios_bytes_max,
            click_intent: fields.optional_text("click_intent"),
            badge_class: fields.optional_text("badge_class"),
        };
        let faults = fields.finish_strict();
        if faults.is_empty() {
            Ok(read)
        } else {
            Err(faults)
        }
    }

    fn has(&self, platform: &str) -> bool {
        self.platforms.contains(&platform)
    }

    /// The credentials as JPush sends and wants them: HTTP Basic.
    fn basic(&self) -> String {
        let secret = self.secret.expose_str().unwrap_or_default();
        let both = STANDARD.encode(format!("{}:{secret}", self.app_key));
        format!("Basic {both}")
    }
}

fn platforms(fields: &mut Fields<'_>) -> Vec<&'static str> {
    let Some(wanted) = fields.texts("platforms") else {
        return PLATFORMS.to_vec();
    };
    let known = |name: &String| PLATFORMS.iter().find(|p| *p == name).copied();
    let platforms: Vec<&str> = wanted.iter().filter_map(known).collect();
    if platforms.len() != wanted.len() || platforms.is_empty() {
        fields.fault(
            "platforms",
            format!("must be some of {}", PLATFORMS.join(", ")),
        );
    }
    platforms
}

/// Code and words of an answer, whichever of JPush's APIs gave it.
fn error(answer: &Answer) -> Option<(i64, String)> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let error = body.get("error")?;
    let code = match error.get("code")? {
        Value::Number(number) => number.as_i64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    let words = error.get("message").and_then(Value::as_str);
    Some((code, words.unwrap_or_default().to_owned()))
}

/// What to do about a refused key.
const KEYS: &str = "check app_key and master_secret, and that zone is that of the app";

/// Seconds until the rate window turns over: every answer says it, and it is of no concern to any but a limited one.
fn reset(answer: &Answer, now: Timestamp) -> Option<Duration> {
    let seconds = answer.headers.get("x-rate-limit-reset");
    seconds
        .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok())
        .map(|seconds| Duration::from_secs(seconds.min(3600)))
        .or_else(|| retry_after(&answer.headers, now))
}

pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    let after = retry_after(&answer.headers, now);
    let Some((code, why)) = error(answer) else {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let id = match body.get("msg_id") {
            Some(Value::String(id)) => Some(id.clone()),
            Some(Value::Number(id)) => Some(id.to_string()),
            _ => None,
        };
        let words = format!("JPush answered status {}", answer.status);
        return match (answer.status, id) {
            (200, Some(id)) => accepted(Some(&id)),
            (429, _) => rate_limited(reset(answer, now), &words),
            (500..=599, _) => unavailable(after, &words),
            (401 | 403, _) => mend(&words, KEYS),
            (404 | 410, _) => mend(&words, "check zone and endpoint"),
            (400..=499, _) => refused(&words),
            (status, _) => unreadable(status),
        };
    };
    let words = format!("{code} {why}");
    match code {
        1000 | 7000 | 7030 | 8200 | 8203 | 10 => unavailable(after, &words),
        // It may have gone out.
        1030 => Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after,
            detail: texts::detail(&words),
            certainty: Unsure::MaybeTaken,
        },
        1003 if why.contains("registration_id") => token_dead(&words),
        1011 => token_dead(&words),
        1005 => too_large(&words),
        1004 | 1008 | 7001 | 7004 | 7008 | 8101 | 3001 => mend(&words, KEYS),
        1020 => mend(&words, "the endpoint must be https"),
        2003 => mend(&words, "JPush blocked the app"),
        2004 => mend(&words, "add this machine to the app's IP list"),
        1012 | 2008 => match quota(&words) {
            Verdict::QuotaExhausted { detail, .. } => Verdict::QuotaExhausted {
                until: Some(until_beijing_midnight(now)),
                detail,
            },
            other => other,
        },
        2002 => rate_limited(reset(answer, now), &words),
        2005 => Verdict::Refused {
            reason: Reason::QuotaExhausted,
            detail: texts::detail(&words),
        },
        2006 | 2007 => refused(&format!(
            "{words}: something in the message needs JPush's paid tier or a right of its own"
        )),
        1001 | 1002 | 1003 | 1009 | 1035 | 7002 | 7013 => refused(&words),
        _ => match answer.status {
            429 => rate_limited(reset(answer, now), &words),
            500..=599 => unavailable(after, &words),
            401 | 403 => mend(&words, KEYS),
            _ => refused(&words),
        },
    }
}

/// Nobody is there for the whole batch: the tokens are of another app.
fn wrong_app(detail: &str) -> bool {
    detail.starts_with("1011") || detail.starts_with("1003")
}

/// The vendor.
#[derive(Debug)]
pub struct Jpush {
    egress: Egress,
}

impl Jpush {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Jpush {
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
            ("platforms", Some(json!(read.platforms))),
            (
                "zone",
                Some(if read.beijing { "beijing" } else { "default" }.into()),
            ),
            ("vip", Some(read.vip.into())),
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
        let (push, device) = if config.beijing {
            (
                "https://bjapi.push.jiguang.cn",
                "https://bjapi.push.jiguang.cn",
            )
        } else {
            ("https://api.jpush.cn", "https://device.jpush.cn")
        };
        let origin = |usual: &str| {
            let endpoint = credential.endpoint.as_deref().unwrap_or(usual);
            Origin::parse(endpoint).map_err(|e| ChannelError::Config {
                detail: e.to_string(),
            })
        };
        let mut authorization =
            HeaderValue::from_str(&config.basic()).map_err(|_| ChannelError::Config {
                detail: "the key has characters that no header takes".to_owned(),
            })?;
        authorization.set_sensitive(true);
        Ok(Arc::new(Sender {
            push: h1::Pool::new(&self.egress, origin(push)?),
            device: h1::Pool::new(&self.egress, origin(device)?),
            egress: self.egress.clone(),
            authorization,
            callback: config
                .callback
                .clone()
                .or(credential.callback.map(ReceiptUrl::new)),
            config,
            cids: Cids::default(),
            sent: Recent::default(),
            limits: Limits::default(),
        }))
    }
}

/// A channel for one app.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    authorization: HeaderValue,
    callback: Option<ReceiptUrl>,
    push: h1::Pool,
    device: h1::Pool,
    cids: Cids,
    sent: Recent,
    limits: Limits,
}

const PUSH: &str = "/v3/push";

impl Sender {
    async fn call(
        &self,
        pool: &h1::Pool,
        (method, path): (Method, String),
        body: Bytes,
        until: Instant,
    ) -> Result<Answer, Verdict> {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(AUTHORIZATION, self.authorization.clone());
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let call = Call {
            method,
            path,
            headers,
            body,
        };
        pool.call(&call, until).await.map_err(|e| e.verdict())
    }

    /// A number that makes JPush push once however often a call is repeated; nothing when none can be had.
    async fn cid(&self, until: Instant) -> Option<String> {
        if !self.config.pooled_cids {
            return None;
        }
        let fetch = || async {
            let path = format!("/v3/push/cid?count={}&type=push", cid::FETCHED);
            let call = (Method::GET, path);
            let answer = self.call(&self.push, call, Bytes::new(), until).await;
            answer.map(|answer| cid::read(&answer)).unwrap_or_default()
        };
        let next = self.cids.next(self.egress.now(), fetch);
        let patience = until.min(Instant::now() + CID_PATIENCE);
        tokio::time::timeout_at(patience, next).await.ok().flatten()
    }

    /// One push. With a number of its own it is made once more when nobody knows what became of it.
    async fn push(
        &self,
        encoded: &Encoded,
        tokens: &[&str],
        until: Instant,
    ) -> Result<Answer, Verdict> {
        let cid = self.cid(until).await;
        let body = encoded.with_tokens(tokens, cid.as_deref());
        let call = |until| {
            self.call(
                &self.push,
                (Method::POST, PUSH.to_owned()),
                body.clone(),
                until,
            )
        };
        if cid.is_none() {
            return call(until).await;
        }
        // A repeat of what JPush took is answered at once.
        let now = Instant::now();
        let first = call(now + until.saturating_duration_since(now) * 2 / 3).await;
        let verdict = match &first {
            Ok(answer) => &decode(answer, self.egress.now()),
            Err(verdict) => verdict,
        };
        let unsure = matches!(
            verdict,
            Verdict::Retry {
                certainty: Unsure::MaybeTaken,
                ..
            }
        );
        if !unsure {
            return first;
        }
        let second = call(until).await;
        // That the repeat was not taken says nothing of the first call.
        let proves = second.as_ref().is_ok_and(|answer| {
            !matches!(
                decode(answer, self.egress.now()),
                Verdict::Retry { .. }
                    | Verdict::QuotaExhausted { .. }
                    | Verdict::CredentialBad { .. }
                    | Verdict::Refused {
                        reason: Reason::QuotaExhausted,
                        ..
                    }
            )
        });
        if proves { second } else { first }
    }

    async fn send_part(
        &self,
        encoded: &Encoded,
        message: &Message,
        part: &[Recipient],
        until: Instant,
    ) -> Decoded {
        let mut decoded = Decoded {
            rest: unavailable(None, "too many malformed registration ids for one call"),
            named: BTreeMap::new(),
        };
        let mut left = vendor::tokens(part);
        for _ in 0..=RESENDS_MAX {
            if left.is_empty() {
                break;
            }
            let answer = match self.push(encoded, &left, until).await {
                Ok(answer) => answer,
                Err(verdict) => {
                    decoded.rest = verdict;
                    break;
                }
            };
            let verdict = decode(&answer, self.egress.now());
            let malformed = match error(&answer) {
                Some((1003, why)) if left.len() > 1 => named_in(&why, &left),
                _ => Vec::new(),
            };
            if malformed.is_empty() {
                decoded.rest = match (&verdict, left.len()) {
                    // One of many is malformed and JPush does not say which.
                    (Verdict::TokenDead { detail, .. }, 2..) if detail.starts_with("1003") => {
                        refused(detail)
                    }
                    _ => verdict,
                };
                break;
            }
            for token in malformed {
                left.retain(|t| *t != token);
                decoded.named.insert(token, verdict.clone());
            }
        }
        if let Verdict::Accepted {
            vendor_id: Some(id),
        } = &decoded.rest
        {
            self.sent.remember(message.id, id);
        }
        decoded
    }

    async fn probe_one(&self, token: &Secret, until: Instant) -> Verdict {
        let token = token.expose_str().unwrap_or_default();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Verdict::no_token("a registration_id");
        }
        let devices = if self.config.beijing {
            "device"
        } else {
            "devices"
        };
        let call = (Method::GET, format!("/v3/{devices}/{token}"));
        match self.call(&self.device, call, Bytes::new(), until).await {
            Ok(answer) if answer.status == 200 => accepted(None),
            Ok(answer) => match error(&answer) {
                Some((code @ (1003 | 7002), why)) => token_dead(&format!("{code} {why}")),
                _ => decode(&answer, self.egress.now()),
            },
            Err(verdict) => verdict,
        }
    }

    async fn withdraw(&self, id: &str, until: Instant) -> Verdict {
        let call = (Method::DELETE, format!("{PUSH}/{id}"));
        match self.call(&self.push, call, Bytes::new(), until).await {
            Ok(answer) if answer.status == 200 => accepted(Some(id)),
            Ok(answer) => decode(&answer, self.egress.now()),
            Err(verdict) => verdict,
        }
    }
}

/// The makers' quotas: `xiaomi operation`, its total and what is used of it.
fn quotas(answer: &Answer) -> Option<Vec<(String, i64, Option<i64>)>> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let makers = body.get("data")?.as_object()?;
    let mut parts = Vec::new();
    for (maker, classes) in makers {
        let maker = maker.trim_end_matches("_quota");
        for (class, numbers) in classes.as_object().into_iter().flatten() {
            let number = |name: &str| numbers.get(name).and_then(Value::as_i64);
            if let Some(total) = number("total") {
                parts.push((format!("{maker} {class}"), total, number("used")));
            }
        }
    }
    Some(parts)
}

/// Those of the tokens that a sentence names.
fn named_in(words: &str, tokens: &[&str]) -> Vec<String> {
    let words: Vec<&str> = words.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let named = tokens.iter().filter(|token| words.contains(*token));
    named.map(|token| (*token).to_owned()).collect()
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
            path: PUSH.to_owned(),
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
            let message = &batch.outbound.message;
            let decoded = self.send_part(&encoded, message, part, until).await;
            verdicts.extend(part.iter().map(|recipient| decoded.of(recipient)));
        }
        vendor::spare_tokens(verdicts, wrong_app)
    }

    /// A push that is validated only, to a device that nobody has: JPush's complaint about it proves the credential.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let body = json!({
            "platform": self.config.platforms,
            "audience": {"registration_id": ["00000000000"]},
            "notification": {"alert": "check"},
            "options": {"time_to_live": 0, "apns_production": self.config.apns_production},
        });
        let call = (Method::POST, format!("{PUSH}/validate"));
        let until = Instant::now() + deadline;
        let body = body.to_string().into();
        let verdict = match self.call(&self.push, call, body, until).await {
            Ok(answer) => decode(&answer, self.egress.now()),
            Err(verdict) => verdict,
        };
        match verdict {
            Verdict::Accepted { .. } | Verdict::TokenDead { .. } => CheckReport {
                ok: true,
                detail: "JPush accepts the credential".to_owned(),
            },
            other => CheckReport {
                ok: false,
                detail: match other.detail() {
                    "" => "JPush does not take the check".to_owned(),
                    words => words.to_owned(),
                },
            },
        }
    }

    async fn recall(
        &self,
        message: &Message,
        recipients: &[Recipient],
        deadline: Duration,
    ) -> Option<Vec<Verdict>> {
        let until = Instant::now() + deadline;
        let ids = self.sent.of(message.id);
        let mut verdict =
            refused("JPush withdraws by its own message id, which is known only for a while");
        for id in &ids {
            verdict = self.withdraw(id, until).await;
            if !matches!(verdict, Verdict::Accepted { .. }) {
                break;
            }
        }
        Some(vendor::for_all(recipients, &verdict))
    }

    fn remember(&self, earlier: &[Earlier]) {
        self.sent.recollect(earlier);
    }

    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        Some(callback::read(&self.config.basic(), request))
    }

    async fn ask_limits(&self, deadline: Duration) -> Result<(), ChannelError> {
        let until = Instant::now() + deadline;
        let call = (Method::GET, format!("{PUSH}/quota"));
        let asked = self.call(&self.push, call, Bytes::new(), until).await;
        let failed = |words: &str| ChannelError::Failed {
            what: "the makers' quotas could not be asked for",
            source: words.into(),
        };
        let answer = asked.map_err(|verdict| failed(verdict.detail()))?;
        let now = self.egress.now();
        let Some(parts) = quotas(&answer) else {
            return Err(failed(decode(&answer, now).detail()));
        };
        for (part, total, used) in parts {
            self.limits.hear(LimitOf::Part, &part, total, used, now);
        }
        Ok(())
    }

    fn limits(&self) -> Vec<DailyLimit> {
        self.limits.all()
    }

    async fn probe(&self, tokens: &[Secret], deadline: Duration) -> Option<Vec<Verdict>> {
        let until = Instant::now() + deadline;
        let calls = tokens.iter().map(|token| self.probe_one(token, until));
        Some(vendor::fan_out(calls.collect()).await)
    }
}

#[cfg(test)]
mod tests;
