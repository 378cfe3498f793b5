//! vivo Push (`vivo`): vivo and iQOO phones.
//!
//! Sources: dev.vivo.com.cn documentation 362 (server API), 359 (classification), 156 (FAQ); official Java server SDK 3.3
//! (read 2026-11). Notifications only: there is no pass-through. Unverified, so made settings or taken either way: the
//! meaning of an invalid user's status 3 (`inactive`), whether lengths count characters or half widths (`half_widths`), the
//! life of a stored content (used for an hour of one day), names of failures in receipts (only what names one is a failure),
//! `/invalidUser/check` (seen in clients).
//!
//! vivo lowers the quota of an app that goes on calling after a quota code: such an answer closes system messages (the
//! classes `im`, `transaction` and `subscription` as far as they are granted) or operation messages until midnight in
//! Beijing, and nobody asks again before. Code 10071, outside hours, closes operation messages until seven. Where only lists
//! have run out (10252), devices are sent to one by one.
//!
//! Rate: 2,400 requests a second. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `app_id`, `app_key`, `app_secret` | AppID, AppKey and AppSecret of the console |
//! | `granted`, `strict_classes` | which service classes vivo granted, and whether others are refused; see [`crate::classes::Grants`] |
//! | `marketing_category` | `MARKETING` (default), `NEWS`, `CONTENT` or `SOCIAL` |
//! | `callback_id` | number of the receipt address that was entered in the console (receipts V2, single and list sends) |
//! | `callback` | https URL for receipts V1, at most 128 bytes, single sends only; absent: the server's own |
//! | `click_intent` | intent URI for taps with `{hy_id}`, `{hy_url}`, `{hy_data}`, `{hy_user}`; absent: a tap opens the app, which gets `clientCustomMap` |
//! | `add_badge` | whether each message counts the icon's badge up |
//! | `test` | whether all messages are test messages, to test users of the console only |
//! | `inactive` | `drop` (default) or `keep`: what becomes of a token that vivo calls inactive |
//! | `half_widths` | whether other than ASCII characters count twice in title and content |
//! | `class_override` | whether a sender may give a marketing message another class |
//!
//! `options.vendor.vivo` is merged into the body. The target cannot be set that way, and a marketing message keeps its
//! class unless the credential has `class_override`.
//!
//! Receipts are not signed: the secret of their address proves them, and one that comes again changes nothing.

mod answer;
mod credential;
mod message;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, OpenCredential, Outbound, Parcel, QuotaWord, RateCounts,
    Recipient, Vendor,
};
use hongyan_core::{ChannelId, Class, ClassDetail, Message, Reason, Secret, Timestamp, Verdict};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

pub(super) use self::answer::decode;
use self::answer::{code_of, is_reg_id, read_callback, wrong_app};
use self::credential::Config;
use self::message::{Encoded, encode};
use crate::answer::{refused, unavailable, until_beijing_midnight};
use crate::callback::ReceiptUrl;
use crate::config;
use crate::egress::{Egress, Origin};
use crate::http::{Answer, Call, h1};
use crate::stored::Stored;
use crate::token::{Fetched, Pace, TokenCache, TokenError};
use crate::vendor::{self, Decoded};
use crate::{payload, receipts};

const NAME: &str = "vivo";

/// 3,000 requests a second for an app with fewer than 5 million users with notifications on.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: CUSTOM_CHARS_MAX,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 2400,
    rate_counts: RateCounts::Requests,
    concurrency: 32,
    ttl_max: TTL_MAX,
    recalls: false,
    receipts: true,
    poll_every: None,
    environments: false,
    repeatable: true,
    quota_word: QuotaWord::Final,
};

const ENDPOINT: &str = "https://api-push.vivo.com.cn";
const AUTH_PATH: &str = "/message/auth";
const SEND_PATH: &str = "/message/send";
const SAVE_PATH: &str = "/message/saveListPayload";
const LIST_PATH: &str = "/message/pushToList";
const PROBE_PATH: &str = "/invalidUser/check";
const TOKEN_HEADER: HeaderName = HeaderName::from_static("authtoken");

/// regIds in one list, which takes 2 to 1,000.
const TOKENS_MAX: usize = 500;
/// regIds in one check.
const PROBE_MAX: usize = 1000;
const TITLE_MAX: usize = 40;
const TEXT_MAX: usize = 100;
/// Pairs of `clientCustomMap`, and characters of all together.
const CUSTOM_PAIRS_MAX: usize = 10;
const CUSTOM_CHARS_MAX: usize = 1024;
const SKIP_CHARS_MAX: usize = 1024;
const CALLBACK_BYTES_MAX: usize = 128;
const TTL_MIN: Duration = Duration::from_secs(60);
const TTL_MAX: Duration = Duration::from_secs(86_400);

/// An access token lives a day; vivo wants few requests for them.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
const TOKEN_PACE: Pace = Pace {
    renew_after: Some(Duration::from_secs(12 * 3600)),
    pause: Duration::from_secs(1),
};
/// How long a stored content is sent to further lists, on the same day.
const CONTENT_REUSE: Duration = Duration::from_secs(3600);
/// There are no more lists today.
const NO_LISTS: i64 = 10_252;
/// Hour in Beijing from which operation messages may be sent again; they may until 23.
const OPENS_AT: u32 = 7;

/// Categories of operation messages, which need no right.
const PUBLIC_CATEGORIES: &[&str] = &["MARKETING", "NEWS", "CONTENT", "SOCIAL"];

/// The vendor.
#[derive(Debug)]
pub struct Vivo {
    egress: Egress,
}

impl Vivo {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Vivo {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        Ok(config::shown([
            ("app_id", Some(read.app_id.into())),
            ("app_key", Some(read.app_key.as_str().into())),
            ("granted", read.grants.shown()),
            ("callback_id", read.callback_id.as_deref().map(Value::from)),
            (
                "callback",
                read.callback.as_ref().map(|url| url.shown().into()),
            ),
            ("test", read.test.then_some(Value::Bool(true))),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let endpoint = credential.endpoint.as_deref().unwrap_or(ENDPOINT);
        let origin = Origin::parse(endpoint).map_err(|e| ChannelError::Config {
            detail: e.to_string(),
        })?;
        let offered = credential.callback.map(ReceiptUrl::new);
        let callback = config.callback.clone().or(offered);
        let callback_too_long = callback
            .as_ref()
            .is_some_and(|url| url.as_str().len() > CALLBACK_BYTES_MAX);
        Ok(Arc::new(Sender {
            pool: h1::Pool::new(&self.egress, origin),
            egress: self.egress.clone(),
            callback_too_long,
            callback: callback.filter(|_| !callback_too_long),
            tokens: TokenCache::with_pace(TOKEN_PACE),
            contents: Stored::new(CONTENT_REUSE),
            no_lists_until: AtomicI64::new(0),
            config,
        }))
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
    pool: h1::Pool,
    tokens: TokenCache,
    contents: Stored,
    /// Until when there are no more lists today, which have a limit of their own; single sends go on.
    no_lists_until: AtomicI64,
}

fn json_call(path: &str, body: &Value, token: Option<&str>) -> Call {
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json;charset=UTF-8"),
    );
    if let Some(mut value) = token.and_then(|t| HeaderValue::from_str(t).ok()) {
        value.set_sensitive(true);
        headers.insert(TOKEN_HEADER, value);
    }
    Call {
        method: Method::POST,
        path: path.to_owned(),
        headers,
        body: body.to_string().into(),
    }
}

fn out_of_time() -> Verdict {
    unavailable(None, "the time for the call was over before it was made")
}

/// Why a content is not stored.
enum Unstored {
    /// What everyone of the list gets to hear.
    Told(Verdict),
    /// The quota of lists is used up: single sends may have some left.
    Singles,
}

impl Sender {
    fn callback_url(&self) -> Option<&str> {
        self.callback.as_ref().map(ReceiptUrl::as_str)
    }

    async fn fetch_token(&self, until: Instant) -> Result<Fetched, TokenError> {
        let now = self.egress.now();
        let body = json!({
            "appId": self.config.app_id, "appKey": self.config.app_key,
            "timestamp": now.millis(), "sign": self.config.sign(now.millis()),
        });
        let answer = self
            .pool
            .call(&json_call(AUTH_PATH, &body, None), until)
            .await?;
        read_token(&answer, now)
    }

    /// One call; repeated once with a new token when vivo does not take the one in use.
    async fn post(&self, path: &str, body: &Value, until: Instant) -> Result<Answer, Verdict> {
        let mut first = true;
        loop {
            let now = self.egress.now();
            let got = self.tokens.get(now, || self.fetch_token(until));
            let token = tokio::time::timeout_at(until, got)
                .await
                .map_err(|_| out_of_time())?
                .map_err(|e| e.verdict())?;
            let call = json_call(path, body, Some(token.text()));
            let answer = self
                .pool
                .call(&call, until)
                .await
                .map_err(|e| e.verdict())?;
            if !(first && code_of(&answer) == Some(10_000)) {
                return Ok(answer);
            }
            first = false;
            self.tokens.refused(&token);
        }
    }

    /// Reads an answer; that there are no more lists is remembered.
    fn judge(&self, answer: &Answer) -> Decoded {
        let now = self.egress.now();
        if code_of(answer) == Some(NO_LISTS) {
            let until = now.plus(until_beijing_midnight(now)).millis();
            self.no_lists_until.store(until, Ordering::Relaxed);
        }
        decode(answer, now, self.config.keeps_inactive)
    }

    fn has_lists(&self) -> bool {
        self.egress.now().millis() >= self.no_lists_until.load(Ordering::Relaxed)
    }

    async fn single(&self, encoded: &Encoded, token: &str, until: Instant) -> Verdict {
        let decoded = match self.post(SEND_PATH, &encoded.single(token), until).await {
            Ok(answer) => self.judge(&answer),
            Err(verdict) => return verdict,
        };
        decoded.named.get(token).cloned().unwrap_or(decoded.rest)
    }

    async fn singles(&self, encoded: &Encoded, tokens: &[&str], until: Instant) -> Decoded {
        let verdicts = one_by_one(tokens, |token| self.single(encoded, token, until)).await;
        let named = tokens.iter().map(|t| (*t).to_owned()).zip(verdicts);
        Decoded {
            rest: out_of_time(),
            named: named.collect(),
        }
    }

    /// The stored content, then its id to the whole list.
    async fn list(&self, encoded: &Encoded, tokens: &[&str], until: Instant) -> Decoded {
        if !self.has_lists() {
            return self.singles(encoded, tokens, until).await;
        }
        let now = self.egress.now();
        let key = encoded.content_key(now);
        let storing = self.contents.get(&key, now, || self.save(encoded, until));
        let stored = match tokio::time::timeout_at(until, storing).await {
            Ok(stored) => stored,
            Err(_) => return Decoded::all(out_of_time()),
        };
        let task = match stored {
            Ok(task) => task,
            Err(Unstored::Told(verdict)) => return Decoded::all(verdict),
            Err(Unstored::Singles) => return self.singles(encoded, tokens, until).await,
        };
        let mut body = json!({
            "appId": self.config.app_id, "taskId": task,
            "requestId": encoded.request_id(&tokens.join(",")), "regIds": tokens,
        });
        if encoded.test() {
            body["pushMode"] = 1.into();
        }
        let answer = match self.post(LIST_PATH, &body, until).await {
            Ok(answer) => answer,
            Err(verdict) => return Decoded::all(verdict),
        };
        let mut decoded = self.judge(&answer);
        match code_of(&answer) {
            Some(NO_LISTS) => self.singles(encoded, tokens, until).await,
            // One of them is illegal and none is named: one by one tells which.
            Some(10_054 | 10_302) if decoded.named.is_empty() => {
                self.singles(encoded, tokens, until).await
            }
            Some(10_054 | 10_302) => {
                decoded.rest = unavailable(None, "the list was refused because of others in it");
                decoded
            }
            _ => decoded,
        }
    }

    async fn save(&self, encoded: &Encoded, until: Instant) -> Result<String, Unstored> {
        let mut body = encoded.content();
        let now = self.egress.now().millis();
        let unique = format!("{now} {}", Value::Object(body.clone()));
        body.insert("requestId".to_owned(), encoded.request_id(&unique).into());
        let answer = self
            .post(SAVE_PATH, &Value::Object(body), until)
            .await
            .map_err(|verdict| Unstored::Told(vendor::not_taken(verdict)))?;
        let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let task = receipts::text(told.get("taskId"));
        if code_of(&answer) == Some(0) && !task.is_empty() {
            return Ok(task);
        }
        let decoded = self.judge(&answer);
        match (code_of(&answer), decoded.rest) {
            (Some(NO_LISTS), _) => Err(Unstored::Singles),
            (_, Verdict::Accepted { .. }) => Err(Unstored::Told(unavailable(
                None,
                "the answer to the stored content has no taskId",
            ))),
            // Nothing went to anyone yet.
            (_, Verdict::TokenDead { detail, .. }) => Err(Unstored::Told(refused(&detail))),
            (_, verdict) => Err(Unstored::Told(vendor::not_taken(verdict))),
        }
    }
}

/// Each alone. vivo lowers the quota of who goes on after its word that it is used up: one goes ahead of the others, and none
/// that waits for its turn is sent after that word.
async fn one_by_one<'t, F>(tokens: &[&'t str], single: impl Fn(&'t str) -> F + Sync) -> Vec<Verdict>
where
    F: Future<Output = Verdict> + Send,
{
    let used_up = OnceLock::<Verdict>::new();
    let ask = async |token: &'t str| {
        if let Some(verdict) = used_up.get() {
            return verdict.clone().unasked();
        }
        let verdict = single(token).await;
        if matches!(verdict, Verdict::QuotaExhausted { .. }) {
            used_up.get_or_init(|| verdict.clone());
        }
        verdict
    };
    let Some((first, rest)) = tokens.split_first() else {
        return Vec::new();
    };
    let mut verdicts = vec![ask(first).await];
    let calls = rest.iter().map(|token| ask(token));
    verdicts.extend(vendor::fan_out(calls.collect()).await);
    verdicts
}

/// Reads the answer of the auth call.
fn read_token(answer: &Answer, now: Timestamp) -> Result<Fetched, TokenError> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let token = receipts::text(body.get("authToken"));
    if code_of(answer) == Some(0) && !token.is_empty() {
        return Ok(Fetched {
            text: token,
            lives: TOKEN_LIFE,
        });
    }
    match decode(answer, now, false).rest {
        Verdict::CredentialBad { detail } | Verdict::Refused { detail, .. } => {
            Err(TokenError::Refused(format!(
                "{detail} (also when this machine's clock is off by ten minutes)"
            )))
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
    /// For more than one the content is stored first; where lists have run out each goes alone.
    fn requests(&self, devices: usize) -> usize {
        match self.has_lists() {
            true => devices.min(2),
            false => devices,
        }
    }

    fn counts_as(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        self.config.grants.counted(class, detail)
    }

    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let callback = self.callback.as_ref().map(ReceiptUrl::shown);
        let encoded = encode(&self.config, callback.as_deref(), outbound)?;
        Ok(Parcel {
            method: "POST",
            path: SEND_PATH.to_owned(),
            headers: Vec::new(),
            body: Value::Object(encoded.body),
            truncated: encoded.truncated,
            downgraded: encoded.downgraded,
        })
    }

    /// One call for one device; for more the content is stored once and sent by its id.
    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict> {
        let until = Instant::now() + deadline;
        let encoded = match encode(&self.config, self.callback_url(), &batch.outbound) {
            Ok(encoded) => encoded,
            Err(refused) => return vendor::for_all(&batch.recipients, &vendor::refusal(refused)),
        };
        let mut tokens = vendor::tokens(&batch.recipients);
        tokens.retain(|t| is_reg_id(t));
        let mut said: BTreeMap<String, Verdict> = BTreeMap::new();
        for part in tokens.chunks(TOKENS_MAX) {
            let decoded = match part {
                [one] => Decoded::all(self.single(&encoded, one, until).await),
                many => self.list(&encoded, many, until).await,
            };
            for token in part {
                let verdict = decoded.named.get(*token).unwrap_or(&decoded.rest);
                said.insert((*token).to_owned(), verdict.clone());
            }
        }
        let malformed = Verdict::no_token("a regId");
        let verdicts = batch.recipients.iter().map(|recipient| {
            let token = recipient.token.expose_str().unwrap_or_default();
            said.get(token).unwrap_or(&malformed).clone()
        });
        vendor::spare_tokens(verdicts.collect(), wrong_app)
    }

    /// A test message, which reaches test users only, to a regId that nobody has: vivo's complaint about it proves the
    /// credential.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let nobody = "0".repeat(23);
        let now = self.egress.now();
        let body = json!({
            "appId": self.config.app_id, "regId": nobody, "notifyType": 1, "title": "连接检查",
            "content": "凭证检查", "timeToLive": 60, "skipType": 1, "pushMode": 1,
            "requestId": payload::short_hash(&format!("check {}", now.millis()), 16),
        });
        let verdict = match self.post(SEND_PATH, &body, Instant::now() + deadline).await {
            Ok(answer) => decode(&answer, now, true).rest,
            Err(verdict) => verdict,
        };
        match verdict {
            bad @ (Verdict::CredentialBad { .. } | Verdict::Retry { .. }) => {
                vendor::unproved(&bad)
            }
            Verdict::QuotaExhausted { .. } => CheckReport {
                ok: true,
                detail: "vivo accepts the credential; today's quota is used up".to_owned(),
            },
            _ if self.callback_too_long && self.config.callback_id.is_none() => CheckReport {
                ok: true,
                detail: "vivo accepts the credential; there are no receipts, because the server's callback address is longer than the 128 bytes that vivo takes: set a shorter callback in the credential".to_owned(),
            },
            _ => CheckReport {
                ok: true,
                detail: "vivo accepts the credential".to_owned(),
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

    async fn probe(&self, tokens: &[Secret], deadline: Duration) -> Option<Vec<Verdict>> {
        let until = Instant::now() + deadline;
        let mut verdicts = Vec::with_capacity(tokens.len());
        for part in tokens.chunks(PROBE_MAX) {
            let good: Vec<&str> = part
                .iter()
                .filter_map(Secret::expose_str)
                .filter(|t| is_reg_id(t))
                .collect();
            let body = json!({"appId": self.config.app_id, "userType": 1, "userIds": good});
            let decoded = match self.post(PROBE_PATH, &body, until).await {
                Ok(answer) => decode(&answer, self.egress.now(), self.config.keeps_inactive),
                Err(verdict) => Decoded::all(verdict),
            };
            verdicts.extend(part.iter().map(|token| {
                match token.expose_str().filter(|t| is_reg_id(t)) {
                    Some(token) => decoded.named.get(token).unwrap_or(&decoded.rest).clone(),
                    None => Verdict::no_token("a regId"),
                }
            }));
        }
        Some(vendor::spare_tokens(verdicts, wrong_app))
    }
}
