//! Meizu Flyme Push (`meizu`): Meizu phones.
//!
//! Sources: GitHub MEIZUPUSH/PushAPI (HTTP document of 2025-04), MEIZUPUSH/JavaSdk, Meizu's notice on message classes in
//! force since 2025-05-07 (read 2026-11). Unverified, and therefore a setting: how large a message may be as a whole.
//!
//! Rate: 160 requests a second. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `app_id`, `app_secret` | AppId and AppSecret of the console |
//! | `region` | `china` (default) or `overseas` |
//! | `granted`, `strict_classes` | which classes were granted, and whether others are refused. Meizu grants nothing beforehand and checks afterwards that private messages are: list the classes that are |
//! | `class_override` | whether a sender may make a marketing message private |
//! | `click_activity` | full name of the activity that a tap opens, with the keys of `payload` as parameters; absent: the app's first page |
//! | `click_uri` | instead: a URI with `{hy_id}`, `{hy_url}`, `{hy_data}`, `{hy_user}` |
//! | `native_bar` | whether notifications look like Android's own |
//! | `pass_through` | whether the app may still send messages without a text; without it they are refused, as Meizu withdraws them |
//! | `receipt_token` | the token of the console's receipt management. With it, receipts go to the server's own address, which must be entered there too |
//! | `callback` | https address for receipts, at most 128 bytes, when not the server's own |
//! | `message_bytes_max` | 4,096 when absent |
//!
//! `options.vendor.meizu` is merged into `messageJson`; `restrictedPackageNames` of it becomes the parameter of that name.
//! The targets and where receipts go cannot be set that way, and a marketing message stays public unless the credential
//! has `class_override`.
//!
//! Receipts carry the console's token and neither time nor nonce: one that comes again is taken again and changes nothing.

mod receipts;
mod verdicts;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, OpenCredential, Outbound, Parcel, QuotaWord, RateCounts,
    Recipient, Truncation, Vendor,
};
use hongyan_core::{ChannelId, Class, ClassDetail, Message, Reason, Secret, Verdict};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use md5::{Digest as _, Md5};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::huawei::object_at;
use crate::answer::unavailable;
use crate::callback::shown_url;
use crate::classes::{self, Grants, Marks};
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::{ANSWER_BYTES_MAX, Answer, Call, h1};
use crate::vendor::{self, Decoded};
use crate::{payload, texts};

pub(super) use self::verdicts::decode;

const NAME: &str = "meizu";

/// 200 requests a second for an app, more on application.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: MESSAGE_BYTES,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 160,
    rate_counts: RateCounts::Requests,
    concurrency: 8,
    ttl_max: Duration::from_secs(72 * 3600),
    recalls: false,
    receipts: true,
    poll_every: None,
    environments: false,
    repeatable: true,
    quota_word: QuotaWord::AskedAgain,
};

const SHOWN_PATH: &str = "/garcia/api/server/push/varnished/pushByPushId";
const SILENT_PATH: &str = "/garcia/api/server/push/unvarnished/pushByPushId";
const CHINA: &str = "https://server-api-push.meizu.com";
const OVERSEAS: &str = "https://server-api-push.in.meizu.com";
/// pushIds in one request.
const TOKENS_MAX: usize = 100;
/// The shortest life that is worth the hour for which Meizu keeps a message at least.
const KEPT_FROM: Duration = Duration::from_secs(5 * 60);
/// Title and text, characters.
const TITLE_CHARS_MAX: usize = 32;
const TEXT_CHARS_MAX: usize = 100;
/// Content of a message without a text, bytes.
const SILENT_BYTES_MAX: usize = 2000;
const MESSAGE_BYTES: usize = 4096;
/// An address for receipts, bytes.
const CALLBACK_BYTES_MAX: usize = 128;
/// A key by which notifications replace each other, characters.
const NOTIFY_KEY_CHARS: usize = 8;
/// Length of a pushId, characters.
const TOKEN_CHARS: std::ops::RangeInclusive<usize> = 16..=64;

/// What the console shows for an app, and the settings.
#[derive(Debug)]
struct Config {
    app_id: String,
    secret: Secret,
    host: &'static str,
    grants: Grants,
    class_override: bool,
    click_activity: Option<String>,
    click_uri: Option<String>,
    native_bar: bool,
    pass_through: bool,
    receipt_token: Option<Secret>,
    /// Where Meizu reports deliveries; its query has a secret.
    callback: Option<Secret>,
    message_bytes_max: usize,
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let app_id = fields.checked("app_id", "the AppId of the console", |text| {
            match text.bytes().all(|b| b.is_ascii_digit()) {
                true => Ok(text.to_owned()),
                false => Err("must be a number".to_owned()),
            }
        });
        let secret = fields.text("app_secret", "the AppSecret of the console");
        let host = match fields.optional_text("region").as_deref() {
            None | Some("china") => CHINA,
            Some("overseas") => OVERSEAS,
            Some(_) => {
                fields.fault("region", "must be china or overseas");
                CHINA
            }
        };
        let grants = Grants::read(&mut fields);
        let click_activity = fields.optional_text("click_activity");
        let click_uri = fields.optional_text("click_uri");
        if click_activity.is_some() && click_uri.is_some() {
            fields.fault(
                "click_uri",
                "cannot be beside click_activity: a tap opens one",
            );
        }
        let callback = fields.optional_url("callback");
        if callback
            .as_ref()
            .is_some_and(|url| url.len() > CALLBACK_BYTES_MAX)
        {
            fields.fault("callback", "is longer than 128 bytes");
        }
        let size = fields.value("message_bytes_max");
        let size = size.map_or(Some(MESSAGE_BYTES as u64), Value::as_u64);
        let size = size.filter(|n| (256..=65_536).contains(n));
        if size.is_none() {
            fields.fault("message_bytes_max", "must be a number from 256 to 65536");
        }
        let class_override = fields.switch("class_override");
        let native_bar = fields.switch("native_bar");
        let pass_through = fields.switch("pass_through");
        let receipt_token = fields.optional_text("receipt_token").map(Secret::new);
        // Of use to clients only.
        for name in ["app_key", "package"] {
            fields.optional_text(name);
        }
        let faults = fields.finish_strict();
        match app_id {
            Some(app_id) if faults.is_empty() => Ok(Self {
                app_id,
                secret: Secret::new(secret),
                host,
                grants,
                class_override,
                click_activity,
                click_uri,
                native_bar,
                pass_through,
                receipt_token,
                callback: callback.map(Secret::new),
                message_bytes_max: size
                    .and_then(|n| usize::try_from(n).ok())
                    .unwrap_or(MESSAGE_BYTES),
            }),
            _ => Err(faults),
        }
    }
}

impl Config {
    fn callback_url(&self) -> Option<&str> {
        self.callback.as_ref().and_then(Secret::expose_str)
    }
}

/// The signature of a request: MD5 over the parameters by name, as `name=value` one after another, and the secret.
fn sign(parameters: &BTreeMap<&str, &str>, secret: &Secret) -> String {
    let mut hash = Md5::new();
    for (name, value) in parameters {
        hash.update(name);
        hash.update("=");
        hash.update(value);
    }
    hash.update(secret.expose());
    hash.finalize()
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A message without its targets.
#[derive(Debug)]
struct Encoded {
    path: &'static str,
    message: Value,
    /// The very text that is signed.
    text: String,
    packages: Option<String>,
    truncated: Vec<Truncation>,
    downgraded: Option<String>,
}

impl Encoded {
    fn with_tokens(&self, config: &Config, tokens: &[&str]) -> Bytes {
        let list = tokens.join(",");
        let mut parameters = BTreeMap::from([
            ("appId", config.app_id.as_str()),
            ("messageJson", self.text.as_str()),
            ("pushIds", list.as_str()),
        ]);
        if let Some(packages) = &self.packages {
            parameters.insert("restrictedPackageNames", packages);
        }
        let sign = sign(&parameters, &config.secret);
        parameters.insert("sign", &sign);
        texts::form(parameters).into()
    }

    /// The parameters as an object, for people.
    fn shown(&self, config: &Config) -> Value {
        let mut shown = json!({"appId": config.app_id, "messageJson": self.message});
        if let Some(packages) = &self.packages {
            shown["restrictedPackageNames"] = packages.as_str().into();
        }
        shown
    }
}

fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let message = &outbound.message;
    let (class, downgraded) = config.grants.class_for(message)?;
    let marks = classes::of_class(message, class);
    let visible = outbound.title.is_some() || outbound.body.is_some();
    let mut truncated = Vec::new();
    let mut body = if visible {
        shown(config, outbound, &marks, &mut truncated)
    } else {
        silent(config, message)?
    };
    body.insert("pushTimeInfo".to_owned(), life(outbound));
    let mut own = payload::vendor_fields(outbound, NAME);
    let packages = match own.remove("restrictedPackageNames") {
        Some(Value::String(packages)) => Some(packages),
        _ => None,
    };
    let kept = body.clone();
    payload::merge(&mut body, &own);
    let fixed = class == Class::Marketing && !config.class_override;
    keep(&mut body, &kept, config, message, fixed);
    let message_json = Value::Object(body);
    let text = message_json.to_string();
    if text.len() > config.message_bytes_max {
        return Err((
            Reason::PayloadTooLarge,
            format!(
                "the message has {} bytes; Meizu takes {}",
                text.len(),
                config.message_bytes_max
            ),
        ));
    }
    Ok(Encoded {
        path: if visible { SHOWN_PATH } else { SILENT_PATH },
        message: message_json,
        text,
        packages,
        truncated,
        downgraded: downgraded.filter(|_| visible),
    })
}

/// Meizu keeps messages for whole hours, one at least. A life of less than [`KEPT_FROM`] is for devices that are reachable
/// now; one that is longer reaches those too that are away for a moment.
fn life(outbound: &Outbound) -> Value {
    let ttl = vendor::ttl(outbound, CAPABILITY.ttl_max);
    if ttl < KEPT_FROM {
        return json!({"offLine": 0});
    }
    let hours = (ttl.as_secs() + 1800) / 3600;
    json!({"offLine": 1, "validTime": hours.clamp(1, 72)})
}

fn shown(
    config: &Config,
    outbound: &Outbound,
    marks: &Marks,
    truncated: &mut Vec<Truncation>,
) -> Map<String, Value> {
    let message = &outbound.message;
    let (title, text) = texts::title_and_text(outbound);
    let title = texts::shorten("title", title, TITLE_CHARS_MAX, truncated);
    let text = texts::shorten("body", text, TEXT_CHARS_MAX, truncated);
    // The same key replaces, so a repeated send is shown once.
    let place = message
        .options
        .collapse_key
        .as_ref()
        .unwrap_or(&outbound.dedup_key);
    let mut bar =
        json!({"noticeMsgType": marks.meizu_notice_type, "title": title, "content": text});
    if config.native_bar {
        bar["noticeBarType"] = 2.into();
    }
    let mut advance = json!({"notifyKey": notify_key(place)});
    if !marks.sounds {
        advance["suspend"] = 0.into();
        advance["notificationType"] = json!({"vibrate": 0, "lights": 0, "sound": 0});
    }
    let keys = payload::text_keys(message);
    let click = match (&config.click_uri, &config.click_activity) {
        (Some(template), _) => json!({"clickType": 2, "url": payload::intent(template, message),
                                      "parameters": keys}),
        (_, Some(activity)) => json!({"clickType": 1, "activity": activity, "parameters": keys}),
        _ => json!({"clickType": 0, "parameters": keys}),
    };
    Map::from_iter([
        ("noticeBarInfo".to_owned(), bar),
        ("clickTypeInfo".to_owned(), click),
        ("advanceInfo".to_owned(), advance),
    ])
}

fn silent(config: &Config, message: &Message) -> Result<Map<String, Value>, (Reason, String)> {
    if !config.pass_through {
        return Err((
            Reason::PayloadRejected,
            "Meizu withdraws messages without a text: give the message one, or set pass_through in the credential if the app may still send them".to_owned(),
        ));
    }
    let content = Value::Object(payload::text_keys(message)).to_string();
    if content.len() > SILENT_BYTES_MAX {
        return Err((
            Reason::PayloadTooLarge,
            format!(
                "the data has {} bytes; Meizu takes {SILENT_BYTES_MAX}",
                content.len()
            ),
        ));
    }
    Ok(Map::from_iter([
        ("title".to_owned(), "data".into()),
        ("content".to_owned(), content.into()),
    ]))
}

/// What the sender's own fields may not change: what names the message, where receipts go, and that marketing is public.
fn keep(
    body: &mut Map<String, Value>,
    kept: &Map<String, Value>,
    config: &Config,
    message: &Message,
    fixed: bool,
) {
    if let Some(content) = kept.get("content") {
        body.insert("content".to_owned(), content.clone());
        return;
    }
    let id = message.id.to_string();
    if fixed && let Some(bar) = object_at(body, "noticeBarInfo") {
        bar.insert("noticeMsgType".to_owned(), 0.into());
    }
    if let Some(click) = object_at(body, "clickTypeInfo")
        && let Some(parameters) = object_at(click, "parameters")
    {
        parameters.insert("hy_id".to_owned(), id.as_str().into());
    }
    if let Some(url) = config.callback_url() {
        let extra =
            json!({"callback": url, "callback.param": id, "callback.type": receipts::WANTED});
        body.insert("extra".to_owned(), extra);
    }
}

/// Eight characters of base 62.
fn notify_key(place: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let hash = payload::short_hash(place, 8);
    let mut number = u64::from_str_radix(&hash, 16).unwrap_or_default();
    (0..NOTIFY_KEY_CHARS)
        .filter_map(|_| {
            let digit = DIGITS.get(usize::try_from(number % 62).ok()?)?;
            number /= 62;
            Some(char::from(*digit))
        })
        .collect()
}

/// A pushId is a place in a comma list.
fn is_push_id(token: &str) -> bool {
    TOKEN_CHARS.contains(&token.len()) && token.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The vendor.
#[derive(Debug)]
pub struct Meizu {
    egress: Egress,
}

impl Meizu {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Meizu {
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
            ("granted", read.grants.shown()),
            (
                "callback",
                read.callback_url().map(|url| shown_url(url).into()),
            ),
            (
                "pass_through",
                read.pass_through.then_some(Value::Bool(true)),
            ),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let mut config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let endpoint = credential.endpoint.as_deref().unwrap_or(config.host);
        let origin = Origin::parse(endpoint).map_err(|e| ChannelError::Config {
            detail: e.to_string(),
        })?;
        // An address that is not in the console may be refused with the message: the token says that someone was there.
        let offered = credential
            .callback
            .filter(|_| config.receipt_token.is_some() && config.callback.is_none());
        let too_long = offered
            .as_ref()
            .is_some_and(|url| url.len() > CALLBACK_BYTES_MAX);
        if !too_long && offered.is_some() {
            config.callback = offered.map(Secret::new);
        }
        Ok(Arc::new(Sender {
            pool: h1::Pool::new(&self.egress, origin.clone()),
            egress: self.egress.clone(),
            config,
            origin,
            callback_too_long: too_long,
        }))
    }
}

/// A channel for one app.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    origin: Origin,
    pool: h1::Pool,
    /// The server's address for receipts does not fit, so that there are none.
    callback_too_long: bool,
}

impl Sender {
    /// One call; once more where Meizu says that it is to go, if that is Meizu.
    async fn post(
        &self,
        path: &'static str,
        body: Bytes,
        until: Instant,
    ) -> Result<Answer, Verdict> {
        let mut headers = HeaderMap::with_capacity(1);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded;charset=UTF-8"),
        );
        let call = Call {
            method: Method::POST,
            path: path.to_owned(),
            headers,
            body,
        };
        let answer = self.pool.call(&call, until).await;
        let answer = answer.map_err(|e| e.verdict())?;
        let Some(elsewhere) = verdicts::redirect(&answer) else {
            return Ok(answer);
        };
        let known = Origin::split(&elsewhere).is_ok_and(|(origin, _)| {
            origin.host() == self.origin.host() || origin.host().ends_with(".meizu.com")
        });
        if !known {
            return Err(unavailable(
                None,
                "300 Meizu sends to an address that is not its own",
            ));
        }
        self.egress
            .fetch(&elsewhere, call, ANSWER_BYTES_MAX, until)
            .await
            .map_err(|e| e.verdict())
    }

    async fn send_part(
        &self,
        encoded: &Encoded,
        part: &[Recipient],
        until: Instant,
    ) -> Vec<Verdict> {
        let tokens: Vec<&str> = vendor::tokens(part)
            .into_iter()
            .filter(|t| is_push_id(t))
            .collect();
        let malformed = Verdict::no_token("a pushId");
        let decoded = if tokens.is_empty() {
            Decoded::all(malformed.clone())
        } else {
            let body = encoded.with_tokens(&self.config, &tokens);
            match self.post(encoded.path, body, until).await {
                Ok(answer) => decode(&answer, self.egress.now()),
                Err(verdict) => Decoded::all(verdict),
            }
        };
        part.iter()
            .map(
                |recipient| match recipient.token.expose_str().is_some_and(is_push_id) {
                    true => decoded.of(recipient),
                    false => malformed.clone(),
                },
            )
            .collect()
    }
}

#[async_trait]
impl Channel for Sender {
    fn counts_as(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        self.config.grants.counted(class, detail)
    }

    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let mut encoded = encode(&self.config, outbound)?;
        if let Some(Value::String(url)) = encoded.message.pointer_mut("/extra/callback") {
            *url = shown_url(url);
        }
        Ok(Parcel {
            method: "POST",
            path: encoded.path.to_owned(),
            headers: Vec::new(),
            body: encoded.shown(&self.config),
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
            verdicts.extend(self.send_part(&encoded, part, until).await);
        }
        vendor::spare_tokens(verdicts, verdicts::wrong_app)
    }

    /// A message to a pushId that nobody has: Meizu's complaint about the pushId proves the credential.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let message = json!({"noticeBarInfo": {"noticeMsgType": 0, "title": "check", "content": "check"},
                             "pushTimeInfo": {"offLine": 0}});
        let encoded = Encoded {
            path: SHOWN_PATH,
            text: message.to_string(),
            message,
            packages: None,
            truncated: Vec::new(),
            downgraded: None,
        };
        let body = encoded.with_tokens(&self.config, &["hongyanCredentialCheck"]);
        let until = Instant::now() + deadline;
        let verdict = match self.post(encoded.path, body, until).await {
            Ok(answer) => decode(&answer, self.egress.now()).rest,
            Err(verdict) => verdict,
        };
        match verdict {
            bad @ (Verdict::CredentialBad { .. } | Verdict::Retry { .. }) => {
                vendor::unproved(&bad)
            }
            _ if self.callback_too_long => CheckReport {
                ok: true,
                detail: "Meizu accepts the credential; there are no receipts, because the server's callback address has more than the 128 bytes that Meizu takes: set a shorter callback in the credential".to_owned(),
            },
            _ => CheckReport {
                ok: true,
                detail: "Meizu accepts the credential".to_owned(),
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
        let token = self.config.receipt_token.as_ref();
        Some(receipts::read(request.body, token))
    }
}

#[cfg(test)]
mod tests;
