//! Getui (`getui`), a push platform and the engine of DCloud uniPush: Android through its own connection and the makers'
//! channels, iOS, HarmonyOS; REST API v2.
//!
//! Sources: docs.getui.com REST v2 (token, push, user, return codes, receipts, Android custom receipts),
//! getui-pushapi-java-client-v2 1.0.8 (read 2026-11). Unverified: the codes of plan limits (HTTP 403 is read as one); the
//! meaning of `actionid` in receipts (`receipt_actions`); how often one app may push (the lane starts at 80 a second); whether
//! a list push leaves unknown cids out of its answer (they are asked for then).
//!
//! Rate: 80 requests a second. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `app_id`, `app_key`, `master_secret` | as the console shows them |
//! | `granted`, `strict_classes` | the service classes that the makers granted the app; without one a message goes out as marketing, or not at all |
//! | `class_override` | whether a sender may give a marketing message another class at the makers |
//! | `xiaomi_channels`, `oppo_channels`, `android_channels` | the app's channels by class, as in `vendor/makers.rs` |
//! | `strategy` | 1 Getui when online, else the maker (default); 2 maker only; 3 Getui only; 4 maker first; 6 smart quota |
//! | `custom_callback` | whether receipts carry the message id, a right of its own (SVIP); else they name the task |
//! | `receipt_actions` | what the `actionid`s of receipts mean: each `delivered`, `displayed`, `clicked`, `dismissed`. Absent: 60001 displayed, 60002 clicked, all others delivered |
//! | `click_intent` | intent URI for taps, with `{hy_id}`, `{hy_url}`, `{hy_data}`, `{hy_user}`; absent: a tap hands the keys to the app as `payload` |
//! | `badge_class` | launcher activity, without which Huawei and Honor set no badge |
//!
//! `options.vendor.getui` is merged into the push body; audience and `request_id` cannot be set that way, and a marketing
//! message keeps the makers' options unless the credential has `class_override`.
//!
//! The makers' quotas that Getui knows are shown in the report on quotas (`total_num`, `push_num` and `remain_num` of each
//! maker are read, which is unverified). They limit nothing here: which pushes go through which maker is not known before
//! they are sent.
//!
//! One recipient costs one call. More share a task, which is made once for a message and used for all of its batches. A
//! repeat has a `request_id` of its own, because Getui silently drops one that it has seen; `notify_id` lets the repeat take
//! the place of the first. Getui withdraws by task: tasks are remembered for a while, over a restart those that the
//! ledger's end names. Receipts are signed line by line without a time, so a replayed one is taken again; it changes nothing.

mod auth;
mod body;
mod callback;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, DailyLimit, Earlier, LimitOf, OpenCredential, Outbound,
    Parcel, QuotaWord, RateCounts, Recipient, Vendor,
};
use hongyan_core::{ChannelId, Class, ClassDetail, Message, Reason, Secret, Timestamp, Verdict};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use self::body::{Encoded, encode};
use self::callback::Actions;
use self::tasks::Tasks;
use crate::answer::{
    accepted, credential_bad, mend, quota, rate_limited, refused, retry_after, token_dead,
    unavailable, unreadable, until_beijing_midnight,
};
use crate::classes::Grants;
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::{Answer, Call, h1};
use crate::payload;
use crate::token::TokenCache;
use crate::vendor::limits::Limits;
use crate::vendor::makers::Makers;
use crate::vendor::recent::Recent;
use crate::vendor::{self, Decoded};

const NAME: &str = "getui";

const CAPABILITY: Capability = Capability {
    payload_bytes_max: PAYLOAD_MAX,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 80,
    rate_counts: RateCounts::Requests,
    concurrency: 32,
    ttl_max: Duration::from_secs(3 * 86_400),
    recalls: true,
    receipts: true,
    poll_every: None,
    environments: false,
    repeatable: true,
    quota_word: QuotaWord::AskedAgain,
};

const ENDPOINT: &str = "https://restapi.getui.com";
/// cids in one list push.
const TOKENS_MAX: usize = 1000;
/// cids in one question about users: they are part of the path.
const ASKED_MAX: usize = 100;
/// `payload` and `transmission`, characters; counted in bytes here, which is stricter.
const PAYLOAD_MAX: usize = 3072;
/// The limit of calls turns over every minute.
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Config {
    app_id: String,
    app_key: String,
    secret: Secret,
    grants: Grants,
    class_override: bool,
    makers: Makers,
    strategy: u64,
    custom_callback: bool,
    actions: Actions,
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
                Err("has characters that no id or key of Getui has".to_owned())
            }
        };
        let app_id = fields.checked("app_id", "the AppID of the console", key);
        let app_key = fields.checked("app_key", "the AppKey of the console", key);
        let secret = fields.checked("master_secret", "the MasterSecret of the console", key);
        let strategy = match fields.value("strategy").map(Value::as_u64) {
            None => 1,
            Some(Some(strategy @ (1..=4 | 6))) => strategy,
            Some(_) => {
                fields.fault("strategy", "must be 1, 2, 3, 4 or 6");
                1
            }
        };
        let read = Self {
            app_id: app_id.unwrap_or_default(),
            app_key: app_key.unwrap_or_default(),
            secret: Secret::new(secret.unwrap_or_default()),
            grants: Grants::read(&mut fields),
            class_override: fields.switch("class_override"),
            makers: Makers::read(&mut fields),
            strategy,
            custom_callback: fields.switch("custom_callback"),
            actions: Actions::read(&mut fields),
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

    fn path(&self, rest: &str) -> String {
        format!("/v2/{}{rest}", self.app_id)
    }
}

/// Code, words and data of an answer.
fn parts(answer: &Answer) -> Option<(i64, String, Value)> {
    let mut body: Value = serde_json::from_slice(&answer.body).ok()?;
    let code = body.get("code")?.as_i64()?;
    let words = body.get("msg").and_then(Value::as_str).unwrap_or_default();
    let words = words.to_owned();
    let data = body.get_mut("data").map(Value::take).unwrap_or_default();
    Some((code, words, data))
}

const TARGET_INVALID: &str = "target user is invalid";

/// What to do about a refused key.
const KEYS: &str = "check app_id, app_key, master_secret and this machine's clock";

pub(super) fn decode(answer: &Answer, now: Timestamp) -> Decoded {
    let after = retry_after(&answer.headers, now);
    let next_minute = Some(after.unwrap_or(MINUTE));
    let Some((code, why, data)) = parts(answer) else {
        let words = format!("Getui answered status {}", answer.status);
        return Decoded::all(match answer.status {
            429 => rate_limited(next_minute, &words),
            500..=599 => unavailable(after, &words),
            401 => mend(&words, KEYS),
            403 => limited(now, &words),
            404 => mend(&words, "check app_id and endpoint"),
            400..=499 => refused(&words),
            status => unreadable(status),
        });
    };
    let words = format!("{code} {why}");
    Decoded::all(match code {
        0 => return taken(&data),
        2 => unavailable(after, &words),
        301 => credential_bad(&format!(
            "{words}: set the credential's endpoint to one of {data}"
        )),
        404 => mend(&words, "check app_id and endpoint"),
        10001 => mend(&words, KEYS),
        10002 => mend(&words, "the app or this machine's address is blocked"),
        10003 | 10005 => rate_limited(next_minute, &words),
        20001 if why.contains(TARGET_INVALID) => token_dead(&words),
        1 | 405 | 10004 | 20001 => refused(&words),
        30000..=39_999 => limited(now, &words),
        _ => match answer.status {
            403 => limited(now, &words),
            429 => rate_limited(next_minute, &words),
            401 => mend(&words, KEYS),
            400..=499 => refused(&words),
            _ => unavailable(after, &words),
        },
    })
}

/// The limits of an app's plan turn over with the day.
fn limited(now: Timestamp, words: &str) -> Verdict {
    match quota(words) {
        Verdict::QuotaExhausted { detail, .. } => Verdict::QuotaExhausted {
            until: Some(until_beijing_midnight(now)),
            detail,
        },
        other => other,
    }
}

/// `{task: {cid: status}}`.
fn taken(data: &Value) -> Decoded {
    let mut named = BTreeMap::new();
    for (task, cids) in data.as_object().into_iter().flatten() {
        for (cid, status) in cids.as_object().into_iter().flatten() {
            let status = status.as_str().unwrap_or_default();
            let verdict =
                if status.starts_with("successed_on") || status.starts_with("successed_off") {
                    accepted(Some(task))
                } else if status == "successed_ignore" {
                    token_dead("successed_ignore: the device was not active for 90 days")
                } else {
                    refused(status)
                };
            named.insert(cid.clone(), verdict);
        }
    }
    let rest = match named.is_empty() {
        true => accepted(data.get("taskid").and_then(Value::as_str)),
        false => unnamed(),
    };
    Decoded { rest, named }
}

/// Of a cid that an answer leaves out.
fn unnamed() -> Verdict {
    unavailable(None, "Getui's answer leaves this cid out")
}

fn wrong_app(detail: &str) -> bool {
    detail.contains(TARGET_INVALID)
}

/// The vendor.
#[derive(Debug)]
pub struct Getui {
    egress: Egress,
}

impl Getui {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Getui {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        Ok(config::shown([
            ("app_id", Some(read.app_id.as_str().into())),
            ("app_key", Some(read.app_key.as_str().into())),
            ("strategy", Some(read.strategy.into())),
            ("granted", read.grants.shown()),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let endpoint = credential.endpoint.as_deref().unwrap_or(ENDPOINT);
        let origin = Origin::parse(endpoint).map_err(|e| ChannelError::Config {
            detail: e.to_string(),
        })?;
        let mut salt = [0; 16];
        SystemRandom::new()
            .fill(&mut salt)
            .map_err(|_| ChannelError::Config {
                detail: "the system has no randomness for request ids".to_owned(),
            })?;
        Ok(Arc::new(Sender {
            pool: h1::Pool::new(&self.egress, origin),
            egress: self.egress.clone(),
            config,
            tokens: TokenCache::default(),
            tasks: Tasks::default(),
            sent: Recent::default(),
            limits: Limits::default(),
            requests: AtomicU64::new(0),
            salt: u128::from_be_bytes(salt),
        }))
    }
}

/// A channel for one app.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    pool: h1::Pool,
    tokens: TokenCache,
    tasks: Tasks,
    sent: Recent,
    limits: Limits,
    /// Requests made so far, for their ids.
    requests: AtomicU64,
    /// What sets this node's request ids apart from another's.
    salt: u128,
}

impl Sender {
    /// A request id that no other request of any node has: 32 hex digits.
    fn request_id(&self, message: &Message) -> String {
        let n = self.requests.fetch_add(1, Ordering::Relaxed);
        let now = self.egress.now().millis();
        payload::short_hash(&format!("{}\n{now}\n{n}\n{:x}", message.id, self.salt), 16)
    }

    /// Makes a call with an access token; one that Getui refuses is replaced, once.
    async fn call(
        &self,
        method: Method,
        rest: &str,
        body: Bytes,
        until: Instant,
    ) -> Result<Answer, Verdict> {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json;charset=utf-8"),
        );
        let mut call = Call {
            method,
            path: self.config.path(rest),
            headers,
            body,
        };
        let mut first = true;
        loop {
            let now = self.egress.now();
            let fetch = || auth::fetch(&self.config, &self.pool, now, until);
            let token = self.tokens.get_until(now, until, fetch).await?;
            call.headers.insert("token", auth::header(&token));
            let answer = self.pool.call(&call, until).await;
            let answer = answer.map_err(|e| e.verdict())?;
            let expired = matches!(parts(&answer), Some((10001, _, _)));
            if !(first && expired) {
                return Ok(answer);
            }
            first = false;
            self.tokens.refused(&token);
        }
    }

    /// One recipient: one call.
    async fn send_one(
        &self,
        encoded: &Encoded,
        message: &Message,
        token: &str,
        until: Instant,
    ) -> Decoded {
        let body = encoded.with(self.request_id(message), Some(json!({"cid": [token]})));
        let answer = self.call(Method::POST, "/push/single/cid", body, until);
        match answer.await {
            Ok(answer) => decode(&answer, self.egress.now()),
            Err(verdict) => Decoded::all(verdict),
        }
    }

    /// Many recipients: the message's task, then its targets.
    async fn send_list(
        &self,
        encoded: &Encoded,
        outbound: &Outbound,
        tokens: &[&str],
        until: Instant,
    ) -> Decoded {
        let key = encoded.key();
        let mut left = tokens.to_vec();
        let mut dead = BTreeMap::new();
        // A second time without the cids that Getui does not know, or with a new task in place of one that ended.
        for _ in 0..3 {
            let task = match self.task(encoded, outbound, &key, until).await {
                Ok(task) => task,
                Err(verdict) => return joined(Decoded::all(verdict), dead),
            };
            let body = json!({"audience": {"cid": left}, "taskid": task, "is_async": false});
            let body = body.to_string().into();
            let answer = match self.call(Method::POST, "/push/list/cid", body, until).await {
                Ok(answer) => answer,
                Err(verdict) => return joined(Decoded::all(verdict), dead),
            };
            match parts(&answer) {
                Some((20001, why, _)) if why.contains("taskid") => {
                    self.tasks.forget(&task);
                }
                Some((20001, why, _)) if why.contains(TARGET_INVALID) => {
                    let found = self.unknown(&left, until).await;
                    left.retain(|cid| !found.contains_key(*cid));
                    let progress = !found.is_empty() && !left.is_empty();
                    dead.extend(found);
                    if !progress {
                        let rest = match left.is_empty() {
                            true => token_dead(TARGET_INVALID),
                            false => refused(&format!("20001 {why}")),
                        };
                        return joined(Decoded::all(rest), dead);
                    }
                }
                _ => {
                    let mut decoded = decode(&answer, self.egress.now());
                    if decoded.rest == unnamed() {
                        let out = left.iter().filter(|cid| !decoded.named.contains_key(**cid));
                        let out: Vec<&str> = out.copied().collect();
                        dead.extend(self.unknown(&out, until).await);
                    } else if decoded.named.is_empty()
                        && matches!(decoded.rest, Verdict::Accepted { .. })
                    {
                        decoded.rest = accepted(Some(&task));
                    }
                    return joined(decoded, dead);
                }
            }
        }
        joined(
            Decoded::all(unavailable(None, "Getui takes no task of this message")),
            dead,
        )
    }

    async fn task(
        &self,
        encoded: &Encoded,
        outbound: &Outbound,
        key: &str,
        until: Instant,
    ) -> Result<String, Verdict> {
        let now = self.egress.now();
        if let Some(task) = self.tasks.of(key, now) {
            return Ok(task);
        }
        let body = encoded.with(self.request_id(&outbound.message), None);
        let answer = self
            .call(Method::POST, "/push/list/message", body, until)
            .await?;
        let verdict = decode(&answer, now).rest;
        let Verdict::Accepted { vendor_id } = verdict else {
            return Err(verdict);
        };
        let Some(task) = vendor_id.filter(|task| !task.is_empty()) else {
            return Err(unavailable(None, "Getui's answer names no task"));
        };
        let life = vendor::ttl(outbound, CAPABILITY.ttl_max);
        self.tasks.keep(key, &task, now.plus(life));
        Ok(task)
    }

    /// Those cids that Getui does not know, and those that it cannot tell about now.
    async fn unknown(&self, cids: &[&str], until: Instant) -> BTreeMap<String, Verdict> {
        let mut unknown = BTreeMap::new();
        for part in cids.chunks(ASKED_MAX) {
            let plain: Vec<&str> = part.iter().filter(|c| is_cid(c)).copied().collect();
            let strange = part.iter().filter(|c| !is_cid(c));
            unknown.extend(strange.map(|c| ((*c).to_owned(), Verdict::no_token("a cid"))));
            if plain.is_empty() {
                continue;
            }
            let path = format!("/user/detail/{}", plain.join(","));
            let asked = self.call(Method::GET, &path, Bytes::new(), until).await;
            let told = asked.map(|answer| match parts(&answer) {
                Some((0, _, data)) => Ok(data),
                _ => Err(decode(&answer, self.egress.now()).rest),
            });
            let data = match told {
                Ok(Ok(data)) => data,
                Ok(Err(verdict)) | Err(verdict) => {
                    let all = plain.iter().map(|c| ((*c).to_owned(), verdict.clone()));
                    unknown.extend(all);
                    continue;
                }
            };
            let list = ["invalidCids", "invalid_cids"];
            let list = list.iter().find_map(|name| data.get(name)?.as_array());
            for cid in list.into_iter().flatten().filter_map(Value::as_str) {
                unknown.insert(cid.to_owned(), token_dead(TARGET_INVALID));
            }
        }
        unknown
    }

    async fn revoke(
        &self,
        message: &Message,
        task: &str,
        cids: &[&str],
        until: Instant,
    ) -> Vec<Verdict> {
        // With force, Getui would take away every notification of the app when the task is gone.
        let revoke = json!({"revoke": {"old_task_id": task, "force": false}});
        let channel = json!({"revoke": {"old_task_id": task}});
        let encoded = Encoded {
            body: Map::from_iter([
                ("push_message".to_owned(), revoke),
                (
                    "push_channel".to_owned(),
                    json!({"android": {"ups": channel}, "harmony": channel}),
                ),
            ]),
            truncated: Vec::new(),
            downgraded: None,
        };
        let encoded = &encoded;
        let calls = cids.iter().map(|cid| async move {
            let one = self.send_one(encoded, message, cid, until).await;
            one.named.get(*cid).unwrap_or(&one.rest).clone()
        });
        vendor::fan_out(calls.collect()).await
    }
}

/// The makers' quotas: for each `total_num` and `push_num`, or what remains.
fn quotas(data: &Value) -> Vec<(String, i64, Option<i64>)> {
    let makers = data.as_object().into_iter().flatten();
    let quotas = makers.filter_map(|(maker, numbers)| {
        let number = |name: &str| match numbers.get(name)? {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let total = number("total_num")?;
        let left = number("remain_num").map(|left| total.saturating_sub(left));
        Some((maker.clone(), total, number("push_num").or(left)))
    });
    quotas.collect()
}

fn joined(mut decoded: Decoded, dead: BTreeMap<String, Verdict>) -> Decoded {
    decoded.named.extend(dead);
    decoded
}

/// A cid becomes part of a path and of a comma list.
fn is_cid(token: &str) -> bool {
    !token.is_empty() && token.len() <= 64 && token.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[async_trait]
impl Channel for Sender {
    /// For more than one the content is stored first.
    fn requests(&self, devices: usize) -> usize {
        devices.min(2)
    }

    fn counts_as(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        self.config.grants.counted(class, detail)
    }

    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let encoded = encode(&self.config, outbound)?;
        Ok(Parcel {
            method: "POST",
            path: self.config.path("/push/list/message"),
            headers: Vec::new(),
            body: Value::Object(encoded.body),
            truncated: encoded.truncated,
            downgraded: encoded.downgraded,
        })
    }

    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict> {
        let until = Instant::now() + deadline;
        let outbound = &batch.outbound;
        let encoded = match encode(&self.config, outbound) {
            Ok(encoded) => encoded,
            Err(refused) => return vendor::for_all(&batch.recipients, &vendor::refusal(refused)),
        };
        let mut verdicts = Vec::with_capacity(batch.recipients.len());
        for part in batch.recipients.chunks(TOKENS_MAX) {
            let decoded = match vendor::tokens(part).as_slice() {
                [] => Decoded::all(Verdict::no_token("a cid")),
                [one] => self.send_one(&encoded, &outbound.message, one, until).await,
                many => self.send_list(&encoded, outbound, many, until).await,
            };
            let of_part = part.iter().map(|recipient| decoded.of(recipient));
            verdicts.extend(of_part);
        }
        for verdict in &verdicts {
            if let Verdict::Accepted {
                vendor_id: Some(task),
            } = verdict
            {
                self.sent.remember(outbound.message.id, task);
            }
        }
        vendor::spare_tokens(verdicts, wrong_app)
    }

    /// A new access token, and with it a question about a device that nobody has.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let until = Instant::now() + deadline;
        let report = vendor::unproved;
        let now = self.egress.now();
        if let Err(error) = auth::fetch(&self.config, &self.pool, now, until).await {
            return report(&error.verdict());
        }
        let path = format!("/user/status/{}", "0".repeat(32));
        let answer = self.call(Method::GET, &path, Bytes::new(), until).await;
        match answer.map(|answer| decode(&answer, now).rest) {
            Ok(
                verdict @ (Verdict::CredentialBad { .. }
                | Verdict::Retry { .. }
                | Verdict::QuotaExhausted { .. }),
            )
            | Err(verdict) => report(&verdict),
            Ok(_) => CheckReport {
                ok: true,
                detail: "Getui accepts the credential".to_owned(),
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
        let tasks = self.sent.of(message.id);
        let cids = vendor::tokens(recipients);
        let mut decoded = Decoded::all(refused(
            "Getui withdraws by task, which is known only for a while",
        ));
        for task in &tasks {
            let verdicts = self.revoke(message, task, &cids, until).await;
            let names = cids.iter().map(|cid| (*cid).to_owned());
            decoded.named = names.zip(verdicts).collect();
        }
        Some(recipients.iter().map(|r| decoded.of(r)).collect())
    }

    fn remember(&self, earlier: &[Earlier]) {
        self.sent.recollect(earlier);
    }

    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        Some(callback::read(&self.config, request))
    }

    async fn ask_limits(&self, deadline: Duration) -> Result<(), ChannelError> {
        let until = Instant::now() + deadline;
        let asked = self.call(Method::GET, "/report/push/count", Bytes::new(), until);
        let failed = |words: &str| ChannelError::Failed {
            what: "the makers' quotas could not be asked for",
            source: words.into(),
        };
        let answer = asked.await.map_err(|verdict| failed(verdict.detail()))?;
        let now = self.egress.now();
        let Some((0, _, data)) = parts(&answer) else {
            return Err(failed(decode(&answer, now).rest.detail()));
        };
        for (maker, total, used) in quotas(&data) {
            self.limits.hear(LimitOf::Part, &maker, total, used, now);
        }
        Ok(())
    }

    fn limits(&self) -> Vec<DailyLimit> {
        self.limits.all()
    }

    async fn probe(&self, tokens: &[Secret], deadline: Duration) -> Option<Vec<Verdict>> {
        let until = Instant::now() + deadline;
        let cids: Vec<&str> = tokens.iter().filter_map(Secret::expose_str).collect();
        let unknown = self.unknown(&cids, until).await;
        let verdict = |token: &Secret| {
            let cid = token.expose_str().unwrap_or_default();
            unknown.get(cid).cloned().unwrap_or_else(|| accepted(None))
        };
        Some(tokens.iter().map(verdict).collect())
    }
}

#[cfg(test)]
mod tests;
