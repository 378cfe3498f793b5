//! Tencent TPNS (`tpns`), earlier Xinge: server REST API v3.
//!
//! Sources: Tencent Cloud international documents 1024/33764 to 33775 and 34672 (push API, signature, error codes), public
//! server SDKs, read 2026-11. Unverified and therefore a setting: the layout of receipt callbacks (`receipts`); left out: the
//! paths to withdraw a push, the clock's window. The service is in maintenance: Tencent moves its customers to TIMPush.
//!
//! Rate: 100 requests a second. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `access_id`, `secret_key` | of the application; Android and iOS have one each |
//! | `region` | access point: `guangzhou` (default), `shanghai`, `hongkong`, `singapore` |
//! | `platform` | `android` (default) or `ios` |
//! | `environment` | iOS: `production` (default) or `development` |
//! | `auth` | `sign` (default): each body is signed; `basic` |
//! | `channels` | for each class the makers' channel ids: `{"n_ch_id", "hw_ch_id", "xm_ch_id", "oppo_ch_id", "vivo_ch_id", "fcm_ch_id", "hw_category"}` |
//! | `granted`, `strict_classes`, `class_override` | classes that the makers granted; see the table of classes |
//! | `receipts` | which fields of a receipt say what: `{"list", "message", "push_id", "token", "event", "at", "detail", "events"}`. Absent: `trace_id`, `push_id`, `token`, `event`, `timestamp` and `detail` of each item of a JSON list, with the events `delivered`, `displayed`, `clicked`, `dismissed`, `token_invalid`, `permission_off`, `failed`. Set it, be it empty, once TPNS posts receipts: only then is silence a reason to go another way |
//!
//! `options.vendor.tpns` is merged into the body last; targets cannot be set that way, nor the makers' marks of a marketing
//! message unless the credential has `class_override`. TPNS itself raises a life of 1 to 799 seconds to 800.
//!
//! A push that is sent again replaces the first on Android, by its number (`n_id`). On iOS both would show, so what may have been
//! sent there is not sent again.
//!
//! Receipts come two ways. Enter the credential's callback address where TPNS takes one (a paid service): its posts are
//! not signed, the secret of the address proves them, and one that comes again changes nothing. Beside it the counters of
//! each push to at most 200 tokens are asked for, up to three a minute: where they are as high as the push has tokens,
//! everybody has it. After a restart those are known that the ledger's end names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, Earlier, OpenCredential, Outbound, Parcel, QuotaWord,
    RateCounts, Receipt, Recipient, Vendor,
};
use hongyan_core::{
    ChannelId, Class, ClassDetail, Message, MessageId, Reason, Secret, Timestamp, Verdict,
};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ring::hmac;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Decoded;
use super::counted::{Counted, Counts};
use crate::acs::hex;
use crate::answer::{
    accepted, credential_bad, mend, rate_limited, refused, retry_after, token_dead, too_large,
    unavailable, unreadable,
};
use crate::classes::Grants;
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::{Answer, Call, h1};
use crate::layout::{Layout, Usual};
use crate::{classes, payload, texts, vendor};

const NAME: &str = "tpns";
const PATH: &str = "/v3/push/app";
const STATISTICS: &str = "/v3/statistics/get_push_task_stat_channel";
/// Tokens in one request.
const TOKENS_MAX: usize = 1000;
/// Highest badge of an Android device; iOS has no such limit.
const BADGE_MAX: u32 = 99;
/// Characters of a token; those of the old Xinge have 64.
const TOKEN_CHARS_MAX: usize = 64;

/// How often counters are asked for, and how many: TPNS answers 200 times an hour.
const POLL_EVERY: Duration = Duration::from_secs(60);
const POLL_LEN: usize = 3;

/// What a receipt's fields are called, as long as nobody says otherwise.
const RECEIPT: Usual = Usual {
    message: "trace_id",
    vendor_id: "push_id",
    token: "token",
    event: "event",
    at: "timestamp",
    detail: "detail",
};

/// No limit is published for pushes to tokens; pushes to all and to tags may go once a second.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: 4096,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 100,
    rate_counts: RateCounts::Requests,
    concurrency: 32,
    ttl_max: Duration::from_secs(72 * 3600),
    recalls: false,
    receipts: true,
    poll_every: Some(POLL_EVERY),
    environments: false,
    // But see `Sender::repeats`.
    repeatable: false,
    quota_word: QuotaWord::AskedAgain,
};

const REGIONS: &[(&str, &str)] = &[
    ("guangzhou", "https://api.tpns.tencent.com"),
    ("shanghai", "https://api.tpns.sh.tencent.com"),
    ("hongkong", "https://api.tpns.hk.tencent.com"),
    ("singapore", "https://api.tpns.sgp.tencent.com"),
];
/// The makers' channels that a credential may name for a class.
const CHANNEL_FIELDS: &[&str] = &[
    "n_ch_id",
    "hw_ch_id",
    "xm_ch_id",
    "oppo_ch_id",
    "vivo_ch_id",
    "fcm_ch_id",
    "hw_category",
];
/// Fields of the body that name or widen who gets it.
const TARGETS: &[&str] = &[
    "audience_type",
    "token_list",
    "account_list",
    "account_push_type",
    "tag_list",
    "tag_rules",
    "upload_id",
    "push_id",
    "send_time",
    "loop_param",
];

/// What the console shows.
#[derive(Debug)]
struct Config {
    access_id: String,
    secret: Secret,
    host: &'static str,
    region: String,
    ios: bool,
    environment: &'static str,
    basic: bool,
    channels: BTreeMap<String, Map<String, Value>>,
    grants: Grants,
    class_override: bool,
    layout: Layout,
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let plain = |text: &str| {
            if text.bytes().all(|b| b.is_ascii_alphanumeric()) {
                Ok(text.to_owned())
            } else {
                Err("has characters that no such id has".to_owned())
            }
        };
        let access_id = fields.checked("access_id", "the AccessID of the application", plain);
        let secret = fields.checked("secret_key", "the SecretKey of the application", plain);
        let region = fields
            .optional_text("region")
            .unwrap_or_else(|| "guangzhou".to_owned());
        let host = REGIONS
            .iter()
            .find(|(name, _)| *name == region)
            .map(|(_, host)| *host);
        if host.is_none() {
            let names: Vec<&str> = REGIONS.iter().map(|(name, _)| *name).collect();
            fields.fault("region", format!("must be one of {}", names.join(", ")));
        }
        let mut one_of = |name: &'static str, usual: &str, other: &str| match fields
            .optional_text(name)
            .as_deref()
        {
            None => false,
            Some(text) if text == usual => false,
            Some(text) if text == other => true,
            Some(_) => {
                fields.fault(name, format!("must be {usual} or {other}"));
                false
            }
        };
        let ios = one_of("platform", "android", "ios");
        let development = one_of("environment", "production", "development");
        let basic = one_of("auth", "sign", "basic");
        let channels = channels(&mut fields);
        let grants = Grants::read(&mut fields);
        let class_override = fields.switch("class_override");
        let layout = Layout::read(&mut fields, RECEIPT);
        let faults = fields.finish_strict();
        match (access_id, secret, host) {
            (Some(access_id), Some(secret), Some(host)) if faults.is_empty() => Ok(Self {
                access_id,
                secret: Secret::new(secret),
                host,
                region,
                ios,
                environment: if development { "dev" } else { "product" },
                basic,
                channels,
                grants,
                class_override,
                layout,
            }),
            _ => Err(faults),
        }
    }

    /// The headers that prove who sends this body.
    fn proof(&self, body: &[u8], now: Timestamp) -> Vec<(HeaderName, String)> {
        let secret = self.secret.expose_str().unwrap_or_default();
        if self.basic {
            let pair = STANDARD.encode(format!("{}:{secret}", self.access_id));
            return vec![(AUTHORIZATION, format!("Basic {pair}"))];
        }
        let at = now.millis().div_euclid(1000).to_string();
        vec![
            (HeaderName::from_static("accessid"), self.access_id.clone()),
            (
                HeaderName::from_static("sign"),
                sign(secret, &at, &self.access_id, body),
            ),
            (HeaderName::from_static("timestamp"), at),
        ]
    }
}

/// Base64 of the hex characters, not of the octets.
fn sign(secret: &str, at: &str, access_id: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(at.as_bytes());
    context.update(access_id.as_bytes());
    context.update(body);
    STANDARD.encode(hex(context.sign().as_ref()))
}

fn channels(fields: &mut Fields<'_>) -> BTreeMap<String, Map<String, Value>> {
    let mut channels = BTreeMap::new();
    let object = match fields.value("channels") {
        None => return channels,
        Some(Value::Object(object)) => object,
        Some(_) => {
            fields.fault("channels", "must map classes to channel ids");
            return channels;
        }
    };
    for (class, value) in object {
        let path = format!("channels/{class}");
        if !classes::is_name(class) {
            fields.fault(
                &path,
                "is not a class: im, transaction, transaction.finance …, subscription, marketing",
            );
            continue;
        }
        let mut part = Fields::at(value, path);
        let ids = CHANNEL_FIELDS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), part.optional_text(name)?.into())))
            .collect();
        fields.absorb(part.finish_strict());
        channels.insert(class.clone(), ids);
    }
    channels
}

/// A body without its tokens.
struct Encoded {
    body: Map<String, Value>,
    downgraded: Option<String>,
}

fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let source = &outbound.message;
    let (class, downgraded) = config.grants.class_for(source)?;
    let shown = outbound.title.is_some() || outbound.body.is_some();
    let mut keys = payload::text_keys(source);
    let image = source
        .notification
        .as_ref()
        .and_then(|n| n.image.as_deref());
    if let Some(image) = image {
        keys.insert("hy_image".to_owned(), image.into());
    }
    let extras = Value::Object(keys).to_string();
    let (title, text) = if shown {
        texts::title_and_text(outbound)
    } else {
        ("data", "data")
    };
    let mut message = Map::from_iter([
        ("title".to_owned(), title.into()),
        ("content".to_owned(), text.into()),
    ]);
    if let Some(group) = source.notification.as_ref().and_then(|n| n.group.as_ref()) {
        message.insert("thread_id".to_owned(), group.as_str().into());
    }
    if let Some(image) = image.filter(|_| shown) {
        message.insert("xg_media_resources".to_owned(), image.into());
    }
    let marks = marks(config, source, class);
    if config.ios {
        message.insert("ios".to_owned(), ios(outbound, class, shown, &extras));
    } else {
        let mut android = android(outbound, class, &extras);
        android.extend(marks.clone());
        message.insert("android".to_owned(), Value::Object(android));
    }
    let life = vendor::ttl(outbound, CAPABILITY.ttl_max).as_secs();
    let mut body = Map::from_iter([
        (
            "message_type".to_owned(),
            if shown { "notify" } else { "message" }.into(),
        ),
        ("environment".to_owned(), config.environment.into()),
        ("expire_time".to_owned(), life.into()),
        ("trace_id".to_owned(), source.id.to_string().into()),
        ("message".to_owned(), Value::Object(message)),
    ]);
    merge(&mut body, config, outbound, class, (&marks, &extras));
    let bytes = body
        .get("message")
        .map(Value::to_string)
        .unwrap_or_default()
        .len();
    if bytes > CAPABILITY.payload_bytes_max {
        let max = CAPABILITY.payload_bytes_max;
        let words = format!("the message has {bytes} bytes; TPNS takes {max}");
        return Err((Reason::PayloadTooLarge, words));
    }
    Ok(Encoded { body, downgraded })
}

fn android(outbound: &Outbound, class: Class, extras: &str) -> Map<String, Value> {
    let message = &outbound.message;
    let notification = message.notification.as_ref();
    let sounds = classes::of_class(message, class).sounds;
    // The same number replaces, so a repeated send is shown once.
    let place = message
        .options
        .collapse_key
        .as_ref()
        .unwrap_or(&outbound.dedup_key);
    let mut android = Map::from_iter([
        ("n_id".to_owned(), payload::number_of(place).into()),
        ("ring".to_owned(), u8::from(sounds).into()),
        ("vibrate".to_owned(), u8::from(sounds).into()),
        ("action".to_owned(), json!({"action_type": 1})),
        ("custom_content".to_owned(), extras.into()),
    ]);
    if let Some(badge) = outbound.badge {
        android.insert("badge_type".to_owned(), badge.min(BADGE_MAX).into());
    }
    if let Some(sound) = notification
        .and_then(|n| n.sound.as_ref())
        .filter(|s| *s != "default")
    {
        android.insert("ring_raw".to_owned(), sound.as_str().into());
    }
    android
}

fn ios(outbound: &Outbound, class: Class, shown: bool, extras: &str) -> Value {
    let message = &outbound.message;
    let notification = message.notification.as_ref();
    let mut aps = Map::new();
    if shown {
        let sounds = classes::of_class(message, class).sounds;
        let sound = notification
            .and_then(|n| n.sound.as_deref())
            .or_else(|| sounds.then_some("default"));
        if let Some(sound) = sound {
            aps.insert("sound".to_owned(), sound.into());
        }
        aps.insert("mutable-content".to_owned(), 1.into());
    } else {
        aps.insert("content-available".to_owned(), 1.into());
    }
    if let Some(badge) = outbound.badge {
        aps.insert("badge_type".to_owned(), badge.into());
    }
    json!({"aps": aps, "custom_content": extras, "custom": extras})
}

/// The makers' marks for a class.
fn marks(config: &Config, message: &Message, class: Class) -> Map<String, Value> {
    let m = classes::of_class(message, class);
    let service = class != Class::Marketing;
    let mut marks = Map::from_iter([
        (
            "hw_importance".to_owned(),
            if service { 2 } else { 1 }.into(),
        ),
        ("hw_category".to_owned(), m.huawei_category.into()),
        (
            "vivo_ch_id".to_owned(),
            m.vivo_classification.to_string().into(),
        ),
    ]);
    let named = classes::names(class, message.class_detail)
        .iter()
        .find_map(|name| config.channels.get(name).cloned());
    marks.extend(named.unwrap_or_default());
    marks
}

fn merge(
    body: &mut Map<String, Value>,
    config: &Config,
    outbound: &Outbound,
    class: Class,
    (marks, extras): (&Map<String, Value>, &str),
) {
    let mut patch = payload::vendor_fields(outbound, NAME);
    patch.retain(|name, _| !TARGETS.contains(&name.as_str()));
    payload::merge(body, &patch);
    // Whatever was set, the message is an object and names itself.
    let id = outbound.message.id.to_string();
    body.insert("trace_id".to_owned(), id.into());
    let part = if config.ios { "ios" } else { "android" };
    let message = body.entry("message").or_insert_with(|| json!({}));
    if !message.is_object() {
        *message = json!({});
    }
    let Value::Object(message) = message else {
        return;
    };
    let place = message.entry(part).or_insert_with(|| json!({}));
    if !place.is_object() {
        *place = json!({});
    }
    let Value::Object(place) = place else { return };
    place.insert("custom_content".to_owned(), extras.into());
    if class == Class::Marketing && !config.class_override && !config.ios {
        for name in CHANNEL_FIELDS
            .iter()
            .chain(&["hw_importance", "hw_biz_type"])
        {
            place.remove(*name);
        }
        place.extend(marks.clone());
    }
}

/// What an answer says of all, and of the tokens that it names.
fn read(answer: &Answer, now: Timestamp) -> Decoded {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = body
        .get("ret_code")
        .or_else(|| body.get("retCode"))
        .and_then(Value::as_i64);
    let why = body
        .get("err_msg")
        .or_else(|| body.get("errMsg"))
        .and_then(Value::as_str);
    let after = retry_after(&answer.headers, now);
    let Some(code) = code else {
        let words = format!("TPNS answered status {}", answer.status);
        return Decoded::all(match answer.status {
            200..=299 => unreadable(answer.status),
            // The wrong host, or a wrong key: there is no body then.
            401 | 403 => mend(
                &words,
                "check access_id, secret_key, region and this machine's clock",
            ),
            404 => mend(&words, "check region and endpoint"),
            429 => rate_limited(after, &words),
            400..=499 => refused(&words),
            500..=599 => unavailable(after, &words),
            status => unreadable(status),
        });
    };
    let words = format!("{code} {}", why.unwrap_or_default());
    let rest = match code {
        0 => {
            let id = match body.get("push_id") {
                Some(Value::String(id)) => Some(id.clone()),
                Some(Value::Number(id)) => Some(id.to_string()),
                Some(Value::Array(ids)) => ids
                    .first()
                    .map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned)),
                _ => None,
            };
            accepted(id.as_deref())
        }
        1_008_006 | 1_008_029 | 10110 | 10_110_008 => token_dead(&words),
        1_008_003 => mend(&words, "check this machine's clock as well"),
        1_008_013 | 1_008_020..=1_008_023 | 1_008_030 | 1_008_031 | 10104..=10106 => mend(
            &words,
            "check access_id, secret_key, region and that the app may push",
        ),
        10117 => too_large(&words),
        1_008_028 => rate_limited(Some(after.unwrap_or(Duration::from_secs(1))), &words),
        1_008_004
        | 1_008_026
        | 1_008_027
        | 10_010_005
        | 10100
        | 10101
        | 10108
        | 10109
        | 10111..=10114
        | 10201..=10207
        | 10301..=10305
        | 10401..=10407
        | 10_010_000..=10_010_099 => unavailable(after, &words),
        _ => refused(&words),
    };
    let named = body
        .get("invalid_targe_list")
        .or_else(|| body.get("invalid_target_list"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|token| (token.to_owned(), token_dead("in invalid_targe_list")))
        .collect();
    Decoded { rest, named }
}

/// What an answer means for those whom it does not name.
pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    read(answer, now).rest
}

/// The vendor.
#[derive(Debug)]
pub struct Tpns {
    egress: Egress,
}

impl Tpns {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Tpns {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        Ok(config::shown([
            ("access_id", Some(read.access_id.as_str().into())),
            ("region", Some(read.region.as_str().into())),
            (
                "platform",
                Some(if read.ios { "ios" } else { "android" }.into()),
            ),
            ("channels", Some(json!(read.channels))),
            ("granted", read.grants.shown()),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let endpoint = credential.endpoint.as_deref().unwrap_or(config.host);
        let origin = Origin::parse(endpoint).map_err(|e| ChannelError::Config {
            detail: e.to_string(),
        })?;
        Ok(Arc::new(Sender {
            counted: Counted::new(POLL_EVERY, POLL_LEN),
            has_callback: credential.callback.is_some(),
            pool: h1::Pool::new(&self.egress, origin),
            egress: self.egress.clone(),
            config,
        }))
    }
}

/// A channel for one app.
#[derive(Debug)]
struct Sender {
    config: Config,
    pool: h1::Pool,
    egress: Egress,
    counted: Counted,
    has_callback: bool,
}

impl Sender {
    async fn post(&self, path: &str, body: &Value, until: Instant) -> Result<Answer, Verdict> {
        let body = Bytes::from(body.to_string());
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.config.proof(&body, self.egress.now()) {
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                credential_bad("the credential has characters that no header may have")
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let call = Call {
            method: Method::POST,
            path: path.to_owned(),
            headers,
            body,
        };
        self.pool.call(&call, until).await.map_err(|e| e.verdict())
    }

    /// What was taken is asked about later.
    fn keep(&self, message: MessageId, part: &[Recipient], decoded: &Decoded) {
        let Verdict::Accepted {
            vendor_id: Some(id),
        } = &decoded.rest
        else {
            return;
        };
        let tokens = vendor::tokens(part).into_iter();
        let taken = tokens
            .filter(|token| is_token(token) && !decoded.named.contains_key(*token))
            .map(Secret::new);
        self.counted
            .remember(id, message, taken.collect(), self.egress.now());
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
            .filter(|t| is_token(t))
            .collect();
        let malformed = Verdict::no_token("one of TPNS");
        let decoded = if tokens.is_empty() {
            Decoded::all(malformed.clone())
        } else {
            let mut body = encoded.body.clone();
            body.insert("audience_type".to_owned(), "token_list".into());
            body.insert("token_list".to_owned(), tokens.into());
            match self.post(PATH, &Value::Object(body), until).await {
                Ok(answer) => {
                    let decoded = read(&answer, self.egress.now());
                    self.keep(message, part, &decoded);
                    decoded
                }
                Err(verdict) => Decoded::all(verdict),
            }
        };
        part.iter()
            .map(|recipient| {
                if recipient.token.expose_str().is_some_and(is_token) {
                    decoded.of(recipient)
                } else {
                    malformed.clone()
                }
            })
            .collect()
    }
}

/// What the statistics of a push say, all channels together; nothing when they say nothing.
fn counts(answer: &Answer) -> Option<Counts> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    if body.get("retCode").and_then(Value::as_i64) != Some(0) {
        return None;
    }
    let channels = body.get("pushStatDataAll")?.as_array()?;
    let all = channels
        .iter()
        .find(|c| c.get("channel").and_then(Value::as_str) == Some("all"))
        .or_else(|| channels.last())?;
    let count = |name: &str| match all.pointer(&format!("/pushState/{name}")) {
        Some(Value::Number(number)) => number.as_u64().unwrap_or(0),
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        _ => 0,
    };
    let displayed = count("verifyUv");
    Some(Counts {
        delivered: count("verifySvcUv")
            .max(count("callbackVerifySvcUv"))
            .max(displayed),
        displayed,
        clicked: count("clickUv"),
        dismissed: count("cleanupUv"),
    })
}

fn is_token(token: &str) -> bool {
    (1..=TOKEN_CHARS_MAX).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
}

#[async_trait]
impl Channel for Sender {
    fn counts_as(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        self.config.grants.counted(class, detail)
    }

    /// Android has `n_id`; TPNS gives out the ids by which a notification of iOS is replaced, and only after the first send.
    fn repeats(&self) -> Option<bool> {
        Some(!self.config.ios)
    }

    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let mut encoded = encode(&self.config, outbound)?;
        encoded
            .body
            .insert("audience_type".to_owned(), "token_list".into());
        Ok(Parcel {
            method: "POST",
            path: PATH.to_owned(),
            headers: Vec::new(),
            body: Value::Object(encoded.body),
            truncated: Vec::new(),
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
        vendor::spare_tokens(verdicts, |_| true)
    }

    /// Asks for the statistics of a push that there is not: nothing is sent.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let until = Instant::now() + deadline;
        let verdict = match self.post(STATISTICS, &json!({"pushId": "0"}), until).await {
            Ok(answer) => {
                let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                match body.get("retCode").and_then(Value::as_i64) {
                    // There is no such push, says someone who knows who asks.
                    Some(0 | 1_008_015 | 1_008_007) => accepted(None),
                    _ => decode(&answer, self.egress.now()),
                }
            }
            Err(verdict) => verdict,
        };
        let (ok, detail) = match verdict {
            Verdict::Accepted { .. } => (true, "TPNS knows the application".to_owned()),
            Verdict::CredentialBad { detail } => {
                (false, format!("TPNS refuses the credential: {detail}"))
            }
            Verdict::Retry { detail, .. } => (
                false,
                format!("TPNS could not be asked: {detail}; try again later"),
            ),
            other => (false, format!("TPNS answered: {}", other.detail())),
        };
        CheckReport { ok, detail }
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
        self.counted.recollect(earlier);
    }

    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        Some(self.config.layout.callback(request))
    }

    fn hears(&self) -> Option<bool> {
        Some(self.has_callback && self.config.layout.is_given())
    }

    /// Asks for the counters of what was sent lately.
    async fn poll(&self, deadline: Duration) -> Result<Vec<Receipt>, ChannelError> {
        let until = Instant::now() + deadline;
        let mut receipts = Vec::new();
        for id in self.counted.due(self.egress.now()) {
            match self.post(STATISTICS, &json!({"pushId": id}), until).await {
                Ok(answer) => {
                    let counts = counts(&answer).unwrap_or_default();
                    receipts.extend(self.counted.heard(&id, counts));
                }
                // What was heard already is not given away.
                Err(_) if !receipts.is_empty() => break,
                Err(verdict) => {
                    return Err(ChannelError::Failed {
                        what: "the counters of a push could not be asked for",
                        source: verdict.detail().into(),
                    });
                }
            }
        }
        Ok(receipts)
    }
}

#[cfg(test)]
mod tests;
