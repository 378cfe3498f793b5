//! Xiaomi MiPush (`xiaomi`): Xiaomi and Redmi phones.
//!
//! Sources: dev.mi.com documentation pages pId=1559 (API addresses and parameters), 1560 (error codes), 1656 (quantities),
//! 2422 (classification), 2314 (templates), 1691 (regions); official MiPush Java server SDK 2.2 (read 2026-11).
//! Unverified: whether a private message may omit its rendered text (it is always sent), and which codes bad templates
//! have (any unknown code is tried again).
//!
//! | credential | what |
//! | --- | --- |
//! | `app_secret`, `package` | AppSecret and Android package of the app |
//! | `channels` | for each class (`im`, `transaction`, `transaction.finance` …, `subscription`, `marketing`) the approved channel: its id, or `{"channel_id", "template_id", "template_param", "public"}`. Template variables are texts in which `{title}` and `{body}` stand for the message's own. Absent: Xiaomi's default class, one message a device and day |
//! | `region` | `china` (default), `china_vip`, `singapore`, `europe`, `india` or `russia` |
//! | `callback` | https URL for receipts, at most 128 bytes |
//! | `class_override` | whether a sender may give a marketing message another channel |
//!
//! `options.vendor.xiaomi` is merged into the form; its object `extra` becomes `extra.<key>` fields. The target cannot be
//! set that way, and a marketing message keeps its channel unless the credential has `class_override`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Capability, Channel, ChannelError, CheckReport, ConfigError, OpenCredential, Outbound,
    Parcel, Recipient, Truncation, Vendor,
};
use hongyan_core::{ChannelId, Class, Message, Reason, Secret, Timestamp, Verdict};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::answer::{
    accepted, credential_bad, quota, rate_limited, refused, retry_after, token_dead, too_large,
    unavailable, unreadable, until_beijing_midnight,
};
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::{Answer, Call, h1};
use crate::vendor;
use crate::{classes, payload, texts};

const NAME: &str = "xiaomi";

/// 500 requests a second for an app of fewer than 100,000 connected devices a day, more for larger ones.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: 4096,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 400,
    concurrency: 64,
    ttl_max: Duration::from_secs(10 * 86_400),
    recalls: false,
    receipts: true,
    poll_every: None,
    environments: false,
};

const PATH: &str = "/v3/message/regid";
/// regIds in one request.
const TOKENS_MAX: usize = 1000;
/// Title and description, characters (the papers say fewer than 50 and 128).
const TITLE_CHARS_MAX: usize = 49;
const TEXT_CHARS_MAX: usize = 127;
/// One pair of `extra`, key and value, characters.
const EXTRA_CHARS_MAX: usize = 1024;
/// Life of messages of public channels and of none.
const PUBLIC_TTL_MAX: Duration = Duration::from_secs(86_400);
/// Job key, characters.
const JOB_KEY_BYTES: usize = 10;

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
    /// The approved channel for each class name.
    channels: BTreeMap<String, Channels>,
    class_override: bool,
    /// Where Xiaomi reports deliveries.
    callback: Option<String>,
}

/// An approved channel of the console.
#[derive(Debug, Clone, Default)]
struct Channels {
    id: String,
    private: bool,
    template_id: Option<String>,
    /// Template variables: `{title}`, `{body}` and text.
    template_param: BTreeMap<String, String>,
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
        if callback.as_ref().is_some_and(|url| url.len() > 128) {
            fields.fault("callback", "is longer than 128 bytes");
        }
        // Other things that the console shows; they are of use to clients only.
        for name in ["app_id", "app_key"] {
            fields.optional_text(name);
        }
        let channels = channels(&mut fields);
        let faults = fields.finish_strict();
        match (secret, package, host) {
            (Some(secret), Some(package), Some(host)) if faults.is_empty() => Ok(Self {
                secret,
                package,
                host,
                region,
                channels,
                class_override,
                callback,
            }),
            _ => Err(faults),
        }
    }

    /// The channel of a message's class.
    fn channel(&self, message: &Message) -> Option<&Channels> {
        classes::names(message.class, message.class_detail)
            .iter()
            .find_map(|name| self.channels.get(name))
    }
}

fn channels(fields: &mut Fields<'_>) -> BTreeMap<String, Channels> {
    let mut channels = BTreeMap::new();
    let Some(value) = fields.value("channels") else {
        return channels;
    };
    let Some(object) = value.as_object() else {
        fields.fault("channels", "must map classes to channels");
        return channels;
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
        // Private is what the classes im, transaction and subscription need; marketing is public.
        let private = !class.starts_with("marketing");
        match value {
            Value::String(id) => {
                channels.insert(
                    class.clone(),
                    Channels { id: id.clone(), private, ..Channels::default() },
                );
            }
            Value::Object(_) => {
                let mut part = Fields::at(value, path);
                let id = part.text("channel_id", "the id of the approved channel");
                let template_id = part.optional_text("template_id");
                let template_param = params(&mut part);
                let public = part.switch("public");
                fields.absorb(part.finish_strict());
                channels.insert(
                    class.clone(),
                    Channels { id, private: private && !public, template_id, template_param },
                );
            }
            _ => fields.fault(&path, "must be a channel id, or an object with channel_id, template_id, template_param, public"),
        }
    }
    channels
}

fn params(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut params = BTreeMap::new();
    match fields.value("template_param") {
        None => {}
        Some(Value::Object(object)) => {
            for (name, value) in object {
                match value.as_str() {
                    Some(text) => {
                        params.insert(name.clone(), text.to_owned());
                    }
                    None => fields.fault(&format!("template_param/{name}"), "must be a text"),
                }
            }
        }
        Some(_) => fields.fault("template_param", "must map variables to texts"),
    }
    params
}

/// A form without its targets.
struct Encoded {
    form: BTreeMap<String, String>,
    truncated: Vec<Truncation>,
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
    let channel = config.channel(message);
    let keys = payload::text_keys(message);
    let hidden = Value::Object(keys.clone()).to_string();
    let mut truncated = Vec::new();
    let mut form = BTreeMap::new();
    let mut set = |name: &str, value: String| form.insert(name.to_owned(), value);
    set("restricted_package_name", config.package.clone());
    set("payload", hidden);
    let ttl_max = match channel {
        Some(Channels { private: true, .. }) => CAPABILITY.ttl_max,
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
            if classes::of(message).sounds {
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
    for (key, value) in &keys {
        let text = value.as_str().unwrap_or_default();
        if key != "hy_data" && key.len() + text.len() <= EXTRA_CHARS_MAX {
            set(&format!("extra.{key}"), text.to_owned());
        }
    }
    if let Some(url) = &config.callback {
        set("extra.callback", url.clone());
        set("extra.callback.param", message.id.to_string());
        set("extra.callback.type", "243".to_owned());
    }
    let (title, text) = texts::title_and_text(outbound);
    let marks = channel
        .map(|c| channel_fields(c, title, text))
        .unwrap_or_default();
    form.extend(marks.clone());
    merge(&mut form, config, outbound, &marks);
    check_sizes(&form)?;
    Ok(Encoded { form, truncated })
}

/// The fields that decide class and quota.
fn channel_fields(channel: &Channels, title: &str, text: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::from([("extra.channel_id".to_owned(), channel.id.clone())]);
    if let Some(id) = &channel.template_id {
        let params: Map<String, Value> = channel
            .template_param
            .iter()
            .map(|(name, pattern)| {
                let value = pattern.replace("{title}", title).replace("{body}", text);
                let short: String = value.chars().take(128).collect();
                (name.clone(), short.into())
            })
            .collect();
        fields.insert("extra.template_id".to_owned(), id.clone());
        fields.insert(
            "extra.template_param".to_owned(),
            Value::Object(params).to_string(),
        );
    }
    fields
}

fn merge(
    form: &mut BTreeMap<String, String>,
    config: &Config,
    outbound: &Outbound,
    marks: &BTreeMap<String, String>,
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
    if outbound.message.class == Class::Marketing && !config.class_override {
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

pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let code = match body.get("code") {
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let after = retry_after(&answer.headers, now);
    let why = if text("reason").is_empty() {
        text("description")
    } else {
        text("reason")
    };
    let words = code.map_or_else(String::new, |code| format!("{code} {why}"));
    let Some(code) = code else {
        let words = format!("Xiaomi answered status {}", answer.status);
        return match answer.status {
            429 => rate_limited(after, &words),
            500..=599 => unavailable(after, &words),
            401 | 403 => credential_bad(&words),
            404 => credential_bad(&format!("{words}: check region and endpoint")),
            400..=499 => refused(&words),
            status => unreadable(status),
        };
    };
    match code {
        0 => accepted(body.pointer("/data/id").and_then(Value::as_str)),
        10018 | 65009 => too_large(&words),
        // The answer to a send whose every regId is gone (wildfirechat/push_server, issue 5).
        20301 if why == "No valid targets!" => token_dead(&words),
        10029 | 65003 | 65007 => token_dead(&words),
        10034 | 200_001 => quota_until_midnight(now, &words),
        10022 | 10023 | 10024 | 10027 | 10028 | 10030 | 10032 | 10039 | 22101 | 26004 | 26005
        | 65006 => rate_limited(after, &words),
        -1 | 1 | 10001 | 10002 | 10003 | 10009 | 10010 | 10011 | 10037 | 20215 | 20216 | 20301
        | 20315 | 20607 | 22102 | 26003 | 65029 | 65040 => unavailable(after, &words),
        10004
        | 10005
        | 10006
        | 10013
        | 10014
        | 10020
        | 10021
        | 10026
        | 10031
        | 10033
        | 10036
        | 10038
        | 21301
        | 21302
        | 21303
        | 22000..=22008
        | 22020
        | 22021
        | 22022
        | 26006
        | 27001
        | 66108 => credential_bad(&words),
        100
        | 10007
        | 10008
        | 10012
        | 10016
        | 10017
        | 10025
        | 10035
        | 20209
        | 21305
        | 22100
        | 22103
        | 65008
        | 65010..=65017
        | 65028
        | 65030
        | 65035..=65038
        | 65041 => refused(&words),
        // Codes that the table does not have: the notes ask for another try.
        _ => unavailable(after, &words),
    }
}

fn quota_until_midnight(now: Timestamp, words: &str) -> Verdict {
    match quota(words) {
        Verdict::QuotaExhausted { detail, .. } => Verdict::QuotaExhausted {
            until: Some(until_beijing_midnight(now)),
            detail,
        },
        other => other,
    }
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
            ("channels", Some(json!(channels))),
            ("callback", read.callback.as_deref().map(Value::from)),
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
            pool: h1::Pool::new(&self.egress, origin),
            egress: self.egress.clone(),
            config,
        }))
    }
}

/// A channel for one app.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    pool: h1::Pool,
}

impl Sender {
    async fn post(&self, body: Bytes, until: Instant) -> Result<Answer, Verdict> {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded;charset=UTF-8"),
        );
        let secret = self.config.secret.expose_str().unwrap_or_default();
        if let Ok(mut value) = HeaderValue::from_str(&format!("key={secret}")) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let call = Call {
            method: Method::POST,
            path: PATH.to_owned(),
            headers,
            body,
        };
        self.pool.call(&call, until).await.map_err(|e| e.verdict())
    }

    async fn send_part(
        &self,
        encoded: &Encoded,
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
            Some(match self.post(encoded.with_tokens(&tokens), until).await {
                Ok(answer) => decode(&answer, self.egress.now()),
                Err(verdict) => verdict,
            })
        };
        let malformed = token_dead("the token is not a regId");
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
    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let encoded = encode(&self.config, outbound)?;
        Ok(Parcel {
            method: "POST",
            path: PATH.to_owned(),
            headers: Vec::new(),
            body: encoded.shown(),
            truncated: encoded.truncated,
            downgraded: None,
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
            verdicts.extend(self.send_part(&encoded, part, until).await);
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
            fields.extend(channel_fields(channel, "check", "check"));
        }
        let form = texts::form(fields.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let verdict = match self.post(form.into(), Instant::now() + deadline).await {
            Ok(answer) => decode(&answer, self.egress.now()),
            Err(verdict) => verdict,
        };
        match verdict {
            Verdict::CredentialBad { detail } | Verdict::Retry { detail, .. } => {
                CheckReport { ok: false, detail }
            }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::fixture;

    fn config() -> Value {
        json!({
            "app_secret": "s3cr3t==", "package": "com.example.app", "callback": "https://push.example/cb",
            "channels": {
                "im": "100001",
                "transaction": {"channel_id": "100002", "template_id": "P10002",
                                "template_param": {"order": "{title}", "state": "{body}"}},
                "subscription": {"channel_id": "200002", "public": true},
                "marketing": "200001",
            },
        })
    }

    fn encoded(outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
        encode(&Config::read(&config()).unwrap(), outbound)
    }

    #[test]
    fn golden_notification() {
        let encoded = encoded(&fixture::outbound()).unwrap();
        let id = "018f0000-0000-7000-8000-000000000001";
        let keys = payload::text_keys(&fixture::message());
        assert_eq!(
            encoded.shown(),
            json!({
                "restricted_package_name": "com.example.app",
                "payload": Value::Object(keys.clone()).to_string(),
                "time_to_live": "3600000", "pass_through": "0", "title": "Order 42", "description": "is on its way",
                "notify_id": payload::number_of(id).to_string(), "notify_type": "-1",
                "extra.jobkey": payload::short_hash(id, 10),
                "extra.hy_id": id, "extra.hy_url": "app://order/42", "extra.hy_user": keys["hy_user"],
                "extra.callback": "https://push.example/cb", "extra.callback.param": id, "extra.callback.type": "243",
                "extra.channel_id": "100002", "extra.template_id": "P10002",
                "extra.template_param": "{\"order\":\"Order 42\",\"state\":\"is on its way\"}",
            })
        );
        let sent = String::from_utf8(encoded.with_tokens(&["a+/=", "b"]).to_vec()).unwrap();
        assert!(sent.ends_with("&registration_id=a%2B%2F%3D%2Cb"), "{sent}");
        assert!(sent.contains("description=is%20on%20its%20way&"), "{sent}");
        assert_eq!(encoded.form["extra.jobkey"].len(), 20);
    }

    #[test]
    fn golden_pass_through() {
        let form = encoded(&fixture::data_only()).unwrap().form;
        assert_eq!(form["pass_through"], "1");
        assert!(!form.contains_key("title") && form["payload"].contains("hy_data"));
    }

    #[test]
    fn each_class_has_its_channel_and_life() {
        for (class, channel, ttl_h, notify) in [
            (Class::Im, "100001", 240, "-1"),
            (Class::Transaction, "100002", 240, "-1"),
            (Class::Subscription, "200002", 24, "-1"),
            (Class::Marketing, "200001", 24, "0"),
        ] {
            let mut message = fixture::message();
            message.class = class;
            message.expires_at = fixture::NOW.plus(Duration::from_secs(30 * 86_400));
            let form = encoded(&fixture::of(message)).unwrap().form;
            assert_eq!(form["extra.channel_id"], channel);
            assert_eq!(form["time_to_live"], (ttl_h * 3_600_000).to_string());
            assert_eq!(form["notify_type"], notify);
        }
    }

    #[test]
    fn a_newer_message_takes_the_place_of_an_older_one() {
        let form_of = |id: &str| {
            let mut message = fixture::message();
            message.id = hongyan_core::MessageId::parse(id).unwrap();
            message.options.collapse_key = Some("chat-42".to_owned());
            let mut outbound = fixture::of(message);
            outbound.dedup_key = "chat-42".to_owned();
            encoded(&outbound).unwrap().form
        };
        let older = form_of("018f0000-0000-7000-8000-000000000001");
        let newer = form_of("018f0000-0000-7000-8000-000000000002");
        assert_eq!(older["notify_id"], newer["notify_id"]);
        assert_ne!(older["extra.jobkey"], newer["extra.jobkey"]);
    }

    #[test]
    fn long_texts_are_shortened_and_told() {
        let mut message = fixture::message();
        let shown = message.notification.as_mut().unwrap();
        shown.title = "鸿".repeat(60);
        shown.body = "雁".repeat(128);
        let encoded = encoded(&fixture::of(message)).unwrap();
        assert_eq!(encoded.form["title"].chars().count(), 49);
        assert_eq!(encoded.form["description"].chars().count(), 127);
        let cut: Vec<_> = encoded
            .truncated
            .iter()
            .map(|t| (t.field, t.from, t.to))
            .collect();
        assert_eq!(cut, [("title", 60, 49), ("body", 128, 127)]);
    }

    #[test]
    fn empty_texts_stand_in_for_each_other() {
        let mut outbound = fixture::outbound();
        outbound.title = Some(" ".to_owned());
        let form = encoded(&outbound).unwrap().form;
        assert_eq!(
            (form["title"].as_str(), form["description"].as_str()),
            ("is on its way", "is on its way")
        );
    }

    #[test]
    fn the_senders_fields_are_merged_last() {
        let extra = json!({
            "notify_type": 2, "registration_id": "x", "topic": "all", "notify_id": null,
            "extra": {"sound_uri": "android.resource://x/raw/y", "hy_id": "forged", "channel_id": "9"},
        });
        let mut outbound = fixture::with_vendor(NAME, &extra);
        let form = encoded(&outbound).unwrap().form;
        assert_eq!(form["notify_type"], "2");
        assert_eq!(form["extra.sound_uri"], "android.resource://x/raw/y");
        assert_eq!(form["extra.channel_id"], "9");
        assert_eq!(form["extra.hy_id"], "018f0000-0000-7000-8000-000000000001");
        for absent in ["registration_id", "topic", "notify_id"] {
            assert!(!form.contains_key(absent), "{absent}");
        }
        let mut message = (*outbound.message).clone();
        message.class = Class::Marketing;
        outbound.message = Arc::new(message);
        assert_eq!(
            encoded(&outbound).unwrap().form["extra.channel_id"],
            "200001"
        );
    }

    #[test]
    fn too_large_is_never_sent() {
        let mut message = fixture::message();
        message.data = json!({"x": "y".repeat(4096)}).as_object().cloned();
        assert_eq!(
            encoded(&fixture::of(message)).err().unwrap().0,
            Reason::PayloadTooLarge
        );
    }

    #[test]
    fn verdict_table() {
        let check = |codes: &[i64], want: &str| {
            for code in codes {
                let body = json!({"result": "error", "code": code, "reason": "r"}).to_string();
                let verdict = decode(&fixture::answer(200, &body), fixture::NOW);
                assert_eq!(fixture::words(&verdict), want, "{code}");
            }
        };
        check(&[0], "accepted");
        check(
            &[
                -1, 1, 10001, 10002, 10003, 10009, 10010, 10011, 10037, 20215, 20216, 20301, 20315,
                20607, 22102, 26003, 65029, 65040, 299_999,
            ],
            "retry vendor_unavailable not_taken",
        );
        check(
            &[
                100, 10007, 10008, 10012, 10016, 10017, 10025, 20209, 21305, 22100, 22103, 65008,
                65010, 65011, 65012, 65013, 65014, 65015, 65016, 65017, 65028, 65030, 65035, 65036,
                65037, 65038, 65041,
            ],
            "refused payload_rejected",
        );
        check(&[10018, 65009], "refused payload_too_large");
        check(&[10029, 65003, 65007], "token_dead token_invalid");
        check(
            &[
                10022, 10023, 10024, 10027, 10028, 10030, 10032, 10039, 22101, 26004, 26005, 65006,
            ],
            "retry vendor_rate_limited not_taken",
        );
        check(&[10034, 200_001], "quota");
        check(
            &[
                10004, 10005, 10006, 10013, 10014, 10020, 10021, 10026, 10031, 10033, 10036, 10038,
                21301, 21302, 21303, 22000, 22001, 22002, 22003, 22004, 22005, 22006, 22007, 22008,
                22020, 22021, 22022, 26006, 27001, 66108,
            ],
            "credential_bad",
        );
        let plain = |status, body, want: &str| {
            let verdict = decode(&fixture::answer(status, body), fixture::NOW);
            assert_eq!(fixture::words(&verdict), want, "{status} {body}");
        };
        plain(502, "", "retry vendor_unavailable not_taken");
        plain(429, "", "retry vendor_rate_limited not_taken");
        plain(401, "", "credential_bad");
        plain(404, "", "credential_bad");
        plain(413, "", "refused payload_rejected");
        plain(200, "<html>", "retry vendor_unavailable maybe_taken");
    }

    #[test]
    fn the_quota_opens_again_at_midnight_in_beijing() {
        let body = json!({"code": 200_001, "reason": "exceed quota"}).to_string();
        let Verdict::QuotaExhausted { until, .. } =
            decode(&fixture::answer(200, &body), fixture::NOW)
        else {
            panic!("a quota verdict is wanted")
        };
        // NOW is 09:00 in Beijing.
        assert_eq!(until, Some(Duration::from_secs(15 * 3600)));
    }

    #[test]
    fn configurations_are_checked_and_shown_without_secrets() {
        let vendor = Xiaomi::new(&fixture::egress());
        let shown = vendor.check_config(&config()).unwrap();
        assert_eq!(shown["package"], "com.example.app");
        assert_eq!(shown["region"], "china");
        assert!(!Value::Object(shown).to_string().contains("s3cr3t"));
        let bad = json!({
            "package": "a b", "region": "moon", "typo": 1, "callback": "http://x",
            "channels": {"news": "1", "im": 2, "transaction": {"template_id": "P", "x": 1}},
        });
        let faults = vendor.check_config(&bad).unwrap_err();
        assert_eq!(
            fixture::paths(&faults),
            [
                "app_secret",
                "package",
                "region",
                "callback",
                "channels/im",
                "channels/news",
                "channels/transaction/channel_id",
                "channels/transaction/x",
                "typo"
            ]
        );
    }
}
