//! Xiaomi MiPush (`xiaomi`): Xiaomi and Redmi phones.
//!
//! Sources: dev.mi.com documentation pages pId=1559 (API addresses and parameters), 1560 (error codes), 1656 (quantities),
//! 2422 (classification), 2314 (templates), 1691 (regions); official MiPush Java server SDK 2.2 (read 2026-11).
//! Unverified: whether a private message may omit its rendered text (it is always sent), which codes bad templates
//! have (any unknown code is tried again), the words of `barStatus`, the feedback hosts of regions abroad, and the shape of
//! the tracer's answer, which is that of clients.
//!
//! Rate: 400 requests a second. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `app_secret`, `package` | AppSecret and Android package of the app |
//! | `channels` | for each class (`im`, `transaction`, `transaction.finance` …, `subscription`, `marketing`) the approved channel: its id, or `{"channel_id", "template_id", "template_param", "public"}`. Template variables are texts in which `{title}` and `{body}` stand for the message's own. Absent: Xiaomi's default class, one message a device and day |
//! | `region` | `china` (default), `china_vip`, `singapore`, `europe`, `india` or `russia` |
//! | `granted`, `strict_classes` | which classes were granted, and whether others are refused. A class without a channel goes through the one of `marketing`, or not at all with `strict_classes`, once there are channels |
//! | `callback` | https URL for receipts, at most 128 bytes; absent: the server's own, when it has a public address and is short enough |
//! | `feedback_url` | where invalid regIds are fetched, when not at the region's usual host |
//! | `tracer` | whether Xiaomi's message tracer is asked what became of a push: `auto` (default: when there is no address for receipts), `always`, `never` |
//! | `ignore_bar_status` | whether a receipt's `barStatus` "Disable" says nothing about notifications being off |
//! | `class_override` | whether a sender may give a marketing message another channel |
//!
//! `options.vendor.xiaomi` is merged into the form; its object `extra` becomes `extra.<key>` fields. The target cannot be
//! set that way, nor where receipts go once there is an address for them, and a marketing message keeps its channel unless
//! the credential has `class_override`.
//!
//! Xiaomi names invalid regIds in receipts (type 16), and in a list that is fetched every ten minutes. Receipts are not
//! signed: the secret of their address proves them, and one that comes again changes nothing.
//!
//! The daily limit of public messages is the one that Xiaomi names in its answers to them, when the credential has none of
//! its own; private messages have none.
//!
//! The tracer counts: its numbers become receipts where they are as high as a push has regIds (at most 200), so that a
//! push to one person is always told. Up to ten pushes are asked about in a minute, until a day after they were sent, and
//! after a restart those that the ledger's end names.

mod channels;
mod receipts;
mod verdicts;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, DailyLimit, Earlier, LimitOf, OpenCredential, Outbound,
    Parcel, QuotaWord, RateCounts, Receipt, Recipient, Truncation, Vendor,
};
use hongyan_core::{
    ChannelId, Class, ClassDetail, Message, MessageId, Reason, Secret, Timestamp, Verdict,
};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use self::channels::Approved;
use super::counted::Counted;
use super::limits::Limits;
use crate::callback::shown_url;
use crate::classes::{self, Grants};
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::{Answer, Call, h1};
use crate::vendor;
use crate::{payload, texts};

pub(super) use self::verdicts::decode;

const NAME: &str = "xiaomi";

/// How often Xiaomi is asked at all: for that many pushes' numbers, and less often for invalid regIds.
const POLL_EVERY: Duration = Duration::from_secs(60);
const TRACES_LEN: usize = 10;
const FEEDBACK_EVERY: Duration = Duration::from_secs(600);

/// 500 requests a second for an app of fewer than 100,000 connected devices a day, more for larger ones.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: 4096,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 400,
    rate_counts: RateCounts::Requests,
    concurrency: 64,
    ttl_max: Duration::from_secs(10 * 86_400),
    recalls: false,
    receipts: true,
    poll_every: Some(POLL_EVERY),
    environments: false,
    repeatable: true,
    quota_word: QuotaWord::AskedAgain,
};

const PATH: &str = "/v3/message/regid";
const FEEDBACK_PATH: &str = "/v1/feedback/fetch_invalid_regids";
const TRACER_PATH: &str = "/v1/trace/message/status";
/// regIds in one request.
const TOKENS_MAX: usize = 1000;
/// Title and description, characters (the papers say fewer than 50 and 128).
const TITLE_CHARS_MAX: usize = 49;
const TEXT_CHARS_MAX: usize = 127;
/// The app's own pairs of `extra`, keys and values together, characters (one reading of the papers; the other is each).
const EXTRA_CHARS_MAX: usize = 1024;
/// An address for receipts, bytes.
const CALLBACK_BYTES_MAX: usize = 128;
/// Life of messages of public channels and of none.
const PUBLIC_TTL_MAX: Duration = Duration::from_secs(86_400);
/// Job key, characters.
const JOB_KEY_BYTES: usize = 10;

const FEEDBACK: &str = "https://feedback.xmpush.xiaomi.com";
const FEEDBACK_GLOBAL: &str = "https://feedback.xmpush.global.xiaomi.com";

/// Hosts by region.
const REGIONS: &[(&str, &str)] = &[
    ("china", "https://api.xmpush.xiaomi.com"),
    ("china_vip", "https://vip.api.xmpush.xiaomi.com"),
    ("singapore", "https://sgp-api.xmpush.global.xiaomi.com"),
    ("europe", "https://fr-api.xmpush.global.xiaomi.com"),
    ("india", "https://idmb-api.xmpush.global.xiaomi.com"),
    ("russia", "https://ru-api.xmpush.global.xiaomi.com"),
];

/// What the console shows for an app.
#[derive(Debug)]
struct Config {
    secret: Secret,
    package: String,
    host: &'static str,
    region: String,
    grants: Grants,
    /// The approved channel for each class name.
    channels: BTreeMap<String, Approved>,
    class_override: bool,
    /// Where Xiaomi reports deliveries; its query has a secret.
    callback: Option<Secret>,
    feedback_url: Option<String>,
    tracer: Tracer,
    ignore_bar_status: bool,
}

/// When the tracer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tracer {
    Auto,
    Always,
    Never,
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let secret = fields.checked("app_secret", "the AppSecret of the console", |text| {
            HeaderValue::from_str(text)
                .map(|_| Secret::new(text))
                .map_err(|_| "has characters that no AppSecret has".to_owned())
        });
        let package = fields.checked("package", "the app's Android package", |text| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._".contains(&b);
            if text.bytes().all(plain) {
                Ok(text.to_owned())
            } else {
                Err("is not an Android package name".to_owned())
            }
        });
        let region = fields
            .optional_text("region")
            .unwrap_or_else(|| "china".to_owned());
        let host = REGIONS
            .iter()
            .find(|(name, _)| *name == region)
            .map(|(_, host)| *host);
        if host.is_none() {
            let names: Vec<&str> = REGIONS.iter().map(|(name, _)| *name).collect();
            fields.fault("region", format!("must be one of {}", names.join(", ")));
        }
        let class_override = fields.switch("class_override");
        let callback = fields.optional_url("callback");
        if callback
            .as_ref()
            .is_some_and(|url| url.len() > CALLBACK_BYTES_MAX)
        {
            fields.fault("callback", "is longer than 128 bytes");
        }
        let feedback_url = fields.optional_url("feedback_url");
        let tracer = match fields.optional_text("tracer").as_deref() {
            None | Some("auto") => Tracer::Auto,
            Some("always") => Tracer::Always,
            Some("never") => Tracer::Never,
            Some(_) => {
                fields.fault("tracer", "must be auto, always or never");
                Tracer::Auto
            }
        };
        let ignore_bar_status = fields.switch("ignore_bar_status");
        let grants = Grants::read(&mut fields);
        // Other things that the console shows; they are of use to clients only.
        for name in ["app_id", "app_key"] {
            fields.optional_text(name);
        }
        let channels = channels::read(&mut fields);
        let faults = fields.finish_strict();
        match (secret, package, host) {
            (Some(secret), Some(package), Some(host)) if faults.is_empty() => Ok(Self {
                secret,
                package,
                host,
                region,
                grants,
                channels,
                class_override,
                callback: callback.map(Secret::new),
                feedback_url,
                tracer,
                ignore_bar_status,
            }),
            _ => Err(faults),
        }
    }

    fn traces(&self) -> bool {
        match self.tracer {
            Tracer::Auto => self.callback.is_none(),
            Tracer::Always => true,
            Tracer::Never => false,
        }
    }

    fn callback_url(&self) -> Option<&str> {
        self.callback.as_ref().and_then(Secret::expose_str)
    }

    /// How Xiaomi counts a kind of message: by the channel through which it goes. Without channels nothing is public or
    /// private, and all share one limit.
    fn counted(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        if self.channels.is_empty() {
            return self.grants.counted(class, detail);
        }
        let class = self
            .grants
            .class_of(class, detail)
            .map_or(class, |(class, _)| class);
        let names = classes::names(class, detail);
        match names.iter().find_map(|name| self.channels.get(name)) {
            Some(channel) if channel.private => CountedAs::Service,
            _ => CountedAs::Marketing,
        }
    }

    /// The channel of a message, the class as which it goes out, and why when that is not its own.
    ///
    /// # Errors
    /// The refusal, when its class was not granted and the credential is strict.
    fn channel(&self, message: &Message) -> Result<Marked<'_>, (Reason, String)> {
        let (class, downgraded) = self.grants.class_for(message)?;
        let names = classes::names(class, message.class_detail);
        let own = names.iter().find_map(|name| self.channels.get(name));
        if own.is_some() || self.channels.is_empty() {
            return Ok((own, class, downgraded));
        }
        let marketing = self.channels.get("marketing");
        let asked = names.first().map_or("", String::as_str);
        if class == Class::Marketing {
            let why = "marketing has no channel: sent as Xiaomi's default class, one message a device and day";
            return Ok((None, class, downgraded.or_else(|| Some(why.to_owned()))));
        }
        if self.grants.strict() {
            return Err((
                Reason::ClassNotGranted,
                format!(
                    "the credential has no channel for {asked} and strict_classes is on: apply for one in Xiaomi's console and add it to channels"
                ),
            ));
        }
        let how = match marketing {
            Some(_) => "sent through the channel of marketing",
            None => "sent as Xiaomi's default class, one message a device and day",
        };
        let why = format!("{asked} has no channel: {how}");
        Ok((marketing, Class::Marketing, Some(why)))
    }
}

/// A channel if there is one, the class as which a message goes out, and why when that is not its own.
type Marked<'a> = (Option<&'a Approved>, Class, Option<String>);

/// A form without its targets.
struct Encoded {
    form: BTreeMap<String, String>,
    truncated: Vec<Truncation>,
    downgraded: Option<String>,
    /// Whether it goes out as a private message, which has no daily limit.
    private: bool,
}

impl Encoded {
    fn with_tokens(&self, tokens: &[&str]) -> Bytes {
        let mut text = texts::form(self.form.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        text.push_str("&registration_id=");
        text.push_str(&texts::escaped(&tokens.join(",")));
        text.into()
    }

    /// The form as an object, for people.
    fn shown(&self) -> Value {
        json!(self.form)
    }
}

fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let message = &outbound.message;
    let (channel, class, downgraded) = config.channel(message)?;
    let keys = payload::text_keys(message);
    let hidden = Value::Object(keys.clone()).to_string();
    let mut truncated = Vec::new();
    let mut form = BTreeMap::new();
    let mut set = |name: &str, value: String| form.insert(name.to_owned(), value);
    set("restricted_package_name", config.package.clone());
    set("payload", hidden);
    let ttl_max = match channel {
        Some(Approved { private: true, .. }) => CAPABILITY.ttl_max,
        _ => PUBLIC_TTL_MAX,
    };
    set(
        "time_to_live",
        vendor::ttl(outbound, ttl_max).as_millis().to_string(),
    );
    if outbound.title.is_none() && outbound.body.is_none() {
        set("pass_through", "1".to_owned());
    } else {
        let (title, text) = texts::title_and_text(outbound);
        // The same number replaces, so a repeated send is shown once.
        let place = message
            .options
            .collapse_key
            .as_ref()
            .unwrap_or(&outbound.dedup_key);
        set("pass_through", "0".to_owned());
        set(
            "title",
            texts::shorten("title", title, TITLE_CHARS_MAX, &mut truncated),
        );
        set(
            "description",
            texts::shorten("body", text, TEXT_CHARS_MAX, &mut truncated),
        );
        set("notify_id", payload::number_of(place).to_string());
        set(
            "notify_type",
            if classes::of_class(message, class).sounds {
                "-1"
            } else {
                "0"
            }
            .to_owned(),
        );
    }
    // A device shows the first message of a job only: a repeat after an unknown outcome is invisible. The job is the
    // message, not its collapse key, or a newer message would never show.
    set(
        "extra.jobkey",
        payload::short_hash(&message.id.to_string(), JOB_KEY_BYTES),
    );
    let mut room = EXTRA_CHARS_MAX;
    for (key, value) in keys.iter().filter(|(key, _)| *key != "hy_data") {
        let text = value.as_str().unwrap_or_default();
        let chars = key.chars().count() + text.chars().count();
        if let Some(left) = room.checked_sub(chars) {
            room = left;
            set(&format!("extra.{key}"), text.to_owned());
        }
    }
    let (title, text) = texts::title_and_text(outbound);
    let marks = channel
        .map(|c| channels::fields(c, title, text, &mut truncated))
        .unwrap_or_default();
    form.extend(marks.clone());
    let fixed = class == Class::Marketing && !config.class_override;
    merge(&mut form, config, outbound, fixed.then_some(&marks));
    if let Some(url) = config.callback_url() {
        let id = message.id.to_string();
        form.insert("extra.callback".to_owned(), url.to_owned());
        form.insert("extra.callback.param".to_owned(), id);
        form.insert(
            "extra.callback.type".to_owned(),
            receipts::WANTED.to_string(),
        );
    }
    check_sizes(&form)?;
    Ok(Encoded {
        form,
        truncated,
        downgraded,
        private: channel.is_some_and(|c| c.private),
    })
}

fn merge(
    form: &mut BTreeMap<String, String>,
    config: &Config,
    outbound: &Outbound,
    fixed: Option<&BTreeMap<String, String>>,
) {
    let mut put = |name: String, value: &Value| match value {
        Value::Null => {
            form.remove(&name);
        }
        Value::String(text) => {
            form.insert(name, text.clone());
        }
        other => {
            form.insert(name, other.to_string());
        }
    };
    for (name, value) in payload::vendor_fields(outbound, NAME) {
        match value {
            Value::Object(extra) if name == "extra" => {
                for (key, value) in extra {
                    put(format!("extra.{key}"), &value);
                }
            }
            value => put(name, &value),
        }
    }
    for target in [
        "registration_id",
        "alias",
        "user_account",
        "topic",
        "topics",
        "topic_op",
        "restricted_package_name",
    ] {
        form.remove(target);
    }
    form.insert("restricted_package_name".to_owned(), config.package.clone());
    form.insert("extra.hy_id".to_owned(), outbound.message.id.to_string());
    if let Some(marks) = fixed {
        for mark in [
            "extra.channel_id",
            "extra.template_id",
            "extra.template_param",
        ] {
            form.remove(mark);
        }
        form.extend(marks.clone());
    }
}

fn check_sizes(form: &BTreeMap<String, String>) -> Result<(), (Reason, String)> {
    let size = form.get("payload").map_or(0, String::len);
    if size >= CAPABILITY.payload_bytes_max {
        return Err((
            Reason::PayloadTooLarge,
            format!(
                "the payload has {size} bytes; Xiaomi takes fewer than {}",
                CAPABILITY.payload_bytes_max
            ),
        ));
    }
    Ok(())
}

/// A regId is a place in a comma list.
fn is_reg_id(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

/// Codes that speak of targets: of all at once, since Xiaomi names none of them.
fn wrong_app(_detail: &str) -> bool {
    true
}

/// The vendor.
#[derive(Debug)]
pub struct Xiaomi {
    egress: Egress,
}

impl Xiaomi {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Xiaomi {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        let channels: BTreeMap<&str, &str> = read
            .channels
            .iter()
            .map(|(class, c)| (class.as_str(), c.id.as_str()))
            .collect();
        Ok(config::shown([
            ("package", Some(read.package.as_str().into())),
            ("region", Some(read.region.as_str().into())),
            ("granted", read.grants.shown()),
            ("channels", Some(json!(channels))),
            (
                "callback",
                read.callback_url().map(|url| shown_url(url).into()),
            ),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let mut config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let unusable = |e: crate::CallError| ChannelError::Config {
            detail: e.to_string(),
        };
        let endpoint = credential.endpoint.as_deref();
        let origin = Origin::parse(endpoint.unwrap_or(config.host)).map_err(unusable)?;
        let usual = match config.region.as_str() {
            "china" | "china_vip" => FEEDBACK,
            _ => FEEDBACK_GLOBAL,
        };
        let feedback = config.feedback_url.as_deref().or(endpoint).unwrap_or(usual);
        let feedback = Origin::parse(feedback).map_err(unusable)?;
        let offered = credential.callback;
        let too_long = config.callback.is_none()
            && offered
                .as_ref()
                .is_some_and(|url| url.len() > CALLBACK_BYTES_MAX);
        if !too_long && config.callback.is_none() {
            config.callback = offered.map(Secret::new);
        }
        Ok(Arc::new(Sender {
            pool: h1::Pool::new(&self.egress, origin),
            feedback: h1::Pool::new(&self.egress, feedback),
            egress: self.egress.clone(),
            config,
            callback_too_long: too_long,
            counted: Counted::new(POLL_EVERY, TRACES_LEN),
            limits: Limits::default(),
            feedback_due: Mutex::new(Timestamp(0)),
        }))
    }
}

/// A channel for one app.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    pool: h1::Pool,
    feedback: h1::Pool,
    /// The server's address for receipts does not fit, so that there are none.
    callback_too_long: bool,
    /// What the tracer may be asked about.
    counted: Counted,
    limits: Limits,
    /// When invalid regIds are fetched next.
    feedback_due: Mutex<Timestamp>,
}

impl Sender {
    async fn post(&self, body: Bytes, until: Instant) -> Result<Answer, Verdict> {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded;charset=UTF-8"),
        );
        self.authorize(&mut headers);
        let call = Call {
            method: Method::POST,
            path: PATH.to_owned(),
            headers,
            body,
        };
        self.pool.call(&call, until).await.map_err(|e| e.verdict())
    }

    fn get(&self, path: String) -> Call {
        let mut headers = HeaderMap::with_capacity(1);
        self.authorize(&mut headers);
        Call {
            method: Method::GET,
            path,
            headers,
            body: Bytes::new(),
        }
    }

    async fn invalid(&self, now: Timestamp, until: Instant) -> Result<Vec<Receipt>, ChannelError> {
        if now < *self.feedback_due() {
            return Ok(Vec::new());
        }
        let call = self.get(FEEDBACK_PATH.to_owned());
        let asked = self.feedback.call(&call, until);
        let answer = asked.await.map_err(|source| ChannelError::Failed {
            what: "the list of invalid regIds could not be fetched",
            source: Box::new(source),
        })?;
        let invalid = receipts::invalid(&answer)?;
        // The end of the list.
        if invalid.is_empty() {
            *self.feedback_due() = now.plus(FEEDBACK_EVERY);
        }
        Ok(invalid)
    }

    async fn traced(&self, now: Timestamp, until: Instant) -> Vec<Receipt> {
        let mut heard = Vec::new();
        for id in self.counted.due(now) {
            let path = format!("{TRACER_PATH}?msg_id={}", texts::escaped(&id));
            let Ok(answer) = self.pool.call(&self.get(path), until).await else {
                break;
            };
            match receipts::traced(&answer) {
                receipts::Traced::Counts(counts) => heard.extend(self.counted.heard(&id, counts)),
                receipts::Traced::Nothing => {}
                // Asked too often, or by one who may not ask.
                receipts::Traced::Refused => break,
            }
        }
        heard
    }

    fn feedback_due(&self) -> std::sync::MutexGuard<'_, Timestamp> {
        self.feedback_due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn authorize(&self, headers: &mut HeaderMap) {
        let secret = self.config.secret.expose_str().unwrap_or_default();
        if let Ok(mut value) = HeaderValue::from_str(&format!("key={secret}")) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
    }

    fn hear_limit(&self, encoded: &Encoded, answer: &Answer, now: Timestamp) {
        if let Some((limit, used)) = verdicts::day_limit(answer).filter(|_| !encoded.private) {
            let of = match self.config.channels.is_empty() {
                true => LimitOf::All,
                false => LimitOf::Marketing,
            };
            self.limits.hear(of, "", limit, used, now);
        }
    }

    async fn send_part(
        &self,
        encoded: &Encoded,
        message: MessageId,
        part: &[Recipient],
        until: Instant,
    ) -> Vec<Verdict> {
        let tokens: Vec<&str> = vendor::tokens(part)
            .into_iter()
            .filter(|t| is_reg_id(t))
            .collect();
        let verdict = if tokens.is_empty() {
            None
        } else {
            let now = self.egress.now();
            let verdict = match self.post(encoded.with_tokens(&tokens), until).await {
                Ok(answer) => {
                    self.hear_limit(encoded, &answer, now);
                    decode(&answer, now)
                }
                Err(verdict) => verdict,
            };
            if self.config.traces()
                && let Verdict::Accepted {
                    vendor_id: Some(id),
                } = &verdict
            {
                let tokens = tokens.iter().map(|t| Secret::new(*t)).collect();
                self.counted.remember(id, message, tokens, now);
            }
            Some(verdict)
        };
        let malformed = Verdict::no_token("a regId");
        part.iter()
            .map(|recipient| match &verdict {
                Some(verdict) if recipient.token.expose_str().is_some_and(is_reg_id) => {
                    verdict.clone()
                }
                _ => malformed.clone(),
            })
            .collect()
    }
}

#[async_trait]
impl Channel for Sender {
    fn counts_as(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        self.config.counted(class, detail)
    }

    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let mut encoded = encode(&self.config, outbound)?;
        if let Some(url) = encoded.form.get_mut("extra.callback") {
            *url = shown_url(url);
        }
        Ok(Parcel {
            method: "POST",
            path: PATH.to_owned(),
            headers: Vec::new(),
            body: encoded.shown(),
            truncated: encoded.truncated,
            downgraded: encoded.downgraded,
        })
    }

    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict> {
        let until = Instant::now() + deadline;
        let encoded = match encode(&self.config, &batch.outbound) {
            Ok(encoded) => encoded,
            Err(refused) => return vendor::for_all(&batch.recipients, &vendor::refusal(refused)),
        };
        let mut verdicts = Vec::with_capacity(batch.recipients.len());
        for part in batch.recipients.chunks(TOKENS_MAX) {
            verdicts.extend(
                self.send_part(&encoded, batch.outbound.message.id, part, until)
                    .await,
            );
        }
        vendor::spare_tokens(verdicts, wrong_app)
    }

    /// A message to a regId that nobody has: Xiaomi takes it and delivers nothing.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let package = self.config.package.as_str();
        let mut fields = BTreeMap::from(
            [
                ("restricted_package_name", package),
                ("pass_through", "0"),
                ("title", "check"),
                ("description", "check"),
                ("payload", "{}"),
                ("time_to_live", "1000"),
                ("registration_id", "hongyan-credential-check"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        // An app under the newer rules must name a channel; the quiet one will do.
        let channels = &self.config.channels;
        if let Some(channel) = channels.get("marketing").or(channels.values().next()) {
            fields.extend(channels::fields(channel, "check", "check", &mut Vec::new()));
        }
        let form = texts::form(fields.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let verdict = match self.post(form.into(), Instant::now() + deadline).await {
            Ok(answer) => decode(&answer, self.egress.now()),
            Err(verdict) => verdict,
        };
        match verdict {
            bad @ (Verdict::CredentialBad { .. } | Verdict::Retry { .. }) => {
                vendor::unproved(&bad)
            }
            _ if self.callback_too_long => CheckReport {
                ok: true,
                detail: "Xiaomi accepts the credential; there are no receipts, because the server's callback address has more than the 128 bytes that Xiaomi takes: set a shorter callback in the credential".to_owned(),
            },
            _ => CheckReport {
                ok: true,
                detail: "Xiaomi accepts the credential".to_owned(),
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

    fn remember(&self, earlier: &[Earlier]) {
        if self.config.traces() {
            self.counted.recollect(earlier);
        }
    }

    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        let ignore = self.config.ignore_bar_status;
        Some(
            receipts::read(request.body, ignore).map(|receipts| Callback {
                receipts,
                signed: false,
                content_type: "text/plain",
                body: String::new(),
            }),
        )
    }

    fn limits(&self) -> Vec<DailyLimit> {
        self.limits.all()
    }

    fn hears(&self) -> Option<bool> {
        Some(self.config.callback.is_some())
    }

    /// The next part of Xiaomi's list of invalid regIds, every ten minutes, and what the tracer counts of the latest pushes.
    /// What was read once does not come again.
    async fn poll(&self, deadline: Duration) -> Result<Vec<Receipt>, ChannelError> {
        let until = Instant::now() + deadline;
        let now = self.egress.now();
        let invalid = self.invalid(now, until).await;
        let mut receipts = self.traced(now, until).await;
        match invalid {
            Ok(invalid) => receipts.extend(invalid),
            // What was heard already is not given away.
            Err(error) if receipts.is_empty() => return Err(error),
            Err(_) => {}
        }
        Ok(receipts)
    }
}

#[cfg(test)]
mod tests;
