//! Apple Push Notification service (`apns`): iOS, iPadOS, macOS, tvOS, watchOS, visionOS.
//!
//! Sources: Apple Developer Documentation, "Sending notification requests to APNs", "Generating a remote notification",
//! "Handling notification responses from APNs", "Establishing a token-based connection to APNs", "Pushing background
//! updates to your App", "Starting and updating Live Activities with ActivityKit push notifications" (read 2026-11).
//!
//! | credential | what |
//! | --- | --- |
//! | `bundle_id` | the app's bundle id, which is the topic |
//! | `key_id`, `team_id`, `private_key` | token authentication: the two ids of 10 characters and the text of the `.p8` file |
//! | `certificate`, `private_key` | instead of those: a PEM certificate and its PEM key |
//! | `environment` | `production` (default) or `sandbox`, for tokens that do not say which they belong to |
//! | `other_bundle_ids` | further apps of the team that this key serves: devices with that package get that topic |
//!
//! The push type is `alert`, or `background` for a message without a text. A sender may choose others and set Apple's own
//! fields in `options.vendor.apns`; these keys are taken out of it, everything else is merged into the payload:
//!
//! | key | becomes |
//! | --- | --- |
//! | `push_type` | `apns-push-type`: `alert background voip complication fileprovider mdm liveactivity location pushtotalk widgets controls`, with the topic suffix that belongs to it |
//! | `topic`, `priority`, `expiration`, `collapse_id` | the header of that name |
//! | `subtitle` | `aps.alert.subtitle` |
//! | `interruption_level`, `relevance_score`, `category`, `sound`, `thread_id`, `target_content_id`, `filter_criteria`, `mutable_content`, `content_available`, `event`, `content_state`, `timestamp`, `stale_date`, `dismissal_date`, `attributes_type`, `attributes`, `input_push_channel`, `input_push_token` | the `aps` key, with hyphens |
//!
//! When ten or more tokens of one batch are all answered `BadDeviceToken`, the environment or the credential is wrong, not
//! the tokens: the verdict is then `token_environment` without the death of a token.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::device::Environment;
use hongyan_core::port::{
    Batch, Capability, Channel, ChannelError, CheckReport, ConfigError, OpenCredential, Outbound,
    Parcel, Recipient, Vendor,
};
use hongyan_core::{ChannelId, Message, Reason, Timestamp, Verdict};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::answer::{
    accepted, credential_bad, rate_limited, refused, retry_after, token_dead, too_large,
    unavailable,
};
use crate::config::{self, Fields};
use crate::egress::{Egress, Identity, Origin, Protocol};
use crate::http::{Answer, Call, h2};
use crate::jwt::{Minted, Signer};
use crate::{classes, payload, vendor};

const NAME: &str = "apns";

/// Apple publishes no rate; the numbers of streams and connections are what its notes advise to keep reusing.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: 4096,
    batch_len_max: 100,
    rate_per_s: 1_000,
    concurrency: 128,
    ttl_max: Duration::from_secs(30 * 86_400),
    recalls: false,
    receipts: false,
    poll_every: None,
    environments: true,
};

/// Payload of a VoIP push, bytes.
const VOIP_BYTES_MAX: usize = 5120;
/// A provider token is used this long; Apple refuses it after 60 minutes and dislikes new ones before 20.
const TOKEN_REUSE: Duration = Duration::from_secs(45 * 60);
const TOKEN_FORCE_PAUSE: Duration = Duration::from_secs(20 * 60);
/// First wait after `TooManyRequests` for one device, where Apple names none.
const DEVICE_PAUSE: Duration = Duration::from_secs(60);

/// What Apple hands out for an app.
#[derive(Debug)]
struct Config {
    auth: Auth,
    /// The client certificate of [`Auth::Certificate`], until the TLS settings take it.
    identity: Option<Identity>,
    bundle_id: String,
    other_bundle_ids: Vec<String>,
    environment: Environment,
}

enum Auth {
    Token {
        key_id: String,
        team_id: String,
        signer: Box<Signer>,
    },
    Certificate,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token { .. } => "Token",
            Self::Certificate => "Certificate",
        })
    }
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let bundle_id = fields.text("bundle_id", "the app's bundle id, which is the topic");
        let other_bundle_ids = fields.texts("other_bundle_ids").unwrap_or_default();
        let environment = match fields.optional_text("environment").as_deref() {
            None | Some("production") => Environment::Production,
            Some("sandbox" | "development") => Environment::Sandbox,
            Some(_) => {
                fields.fault("environment", "must be production or sandbox");
                Environment::Production
            }
        };
        let mut identity = None;
        let auth = if config.get("certificate").is_some() && config.get("key_id").is_none() {
            let certificate = fields.text("certificate", "the PEM certificate");
            identity = fields.checked("private_key", "the certificate's PEM private key", |key| {
                Identity::from_pem(&certificate, key)
            });
            Some(Auth::Certificate)
        } else {
            let ten = |text: &str| {
                if text.len() == 10 && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    Ok(text.to_owned())
                } else {
                    Err("must be 10 letters and digits".to_owned())
                }
            };
            let key_id = fields.checked("key_id", "the 10 characters of the key's id", ten);
            let team_id = fields.checked("team_id", "the 10 characters of the team's id", ten);
            let signer = fields.checked("private_key", "the text of the .p8 file", Signer::es256);
            match (key_id, team_id, signer) {
                (Some(key_id), Some(team_id), Some(signer)) => Some(Auth::Token {
                    key_id,
                    team_id,
                    signer: Box::new(signer),
                }),
                _ => None,
            }
        };
        let faults = fields.finish_strict();
        match auth {
            Some(auth) if faults.is_empty() => Ok(Self {
                auth,
                identity,
                bundle_id,
                other_bundle_ids,
                environment,
            }),
            _ => Err(faults),
        }
    }

    /// The topic's base: the devices' own bundle id where this credential serves it.
    fn bundle_id(&self, outbound: &Outbound) -> &str {
        outbound
            .package
            .as_ref()
            .and_then(|p| self.other_bundle_ids.iter().find(|b| *b == p))
            .unwrap_or(&self.bundle_id)
    }
}

/// One way of waking a device.
struct PushType {
    name: &'static str,
    topic_suffix: &'static str,
    /// `None`: by class.
    priority: Option<u8>,
    bytes_max: usize,
    content: Content,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Alert,
    Background,
    /// Apple asks for no `aps` keys.
    Free,
    Activity,
    Reload,
    /// Only what the sender gives.
    Bare,
}

const fn push_type(
    name: &'static str,
    topic_suffix: &'static str,
    priority: Option<u8>,
    bytes_max: usize,
    content: Content,
) -> PushType {
    PushType {
        name,
        topic_suffix,
        priority,
        bytes_max,
        content,
    }
}

const PUSH_TYPES: &[PushType] = &[
    push_type("alert", "", None, 4096, Content::Alert),
    push_type("background", "", Some(5), 4096, Content::Background),
    push_type("voip", ".voip", Some(10), VOIP_BYTES_MAX, Content::Free),
    push_type(
        "complication",
        ".complication",
        Some(10),
        4096,
        Content::Free,
    ),
    push_type(
        "fileprovider",
        ".pushkit.fileprovider",
        None,
        4096,
        Content::Free,
    ),
    push_type("mdm", "", None, 4096, Content::Bare),
    push_type(
        "liveactivity",
        ".push-type.liveactivity",
        None,
        4096,
        Content::Activity,
    ),
    push_type("location", ".location-query", None, 4096, Content::Free),
    push_type("pushtotalk", ".voip-ptt", Some(10), 4096, Content::Free),
    push_type("widgets", ".push-type.widgets", None, 4096, Content::Reload),
    push_type(
        "controls",
        ".push-type.controls",
        None,
        4096,
        Content::Reload,
    ),
];

/// Keys of `options.vendor.apns` that go into `aps`.
const APS_KEYS: &[(&str, &str)] = &[
    ("interruption_level", "interruption-level"),
    ("relevance_score", "relevance-score"),
    ("category", "category"),
    ("sound", "sound"),
    ("thread_id", "thread-id"),
    ("target_content_id", "target-content-id"),
    ("filter_criteria", "filter-criteria"),
    ("mutable_content", "mutable-content"),
    ("content_available", "content-available"),
    ("event", "event"),
    ("content_state", "content-state"),
    ("timestamp", "timestamp"),
    ("stale_date", "stale-date"),
    ("dismissal_date", "dismissal-date"),
    ("attributes_type", "attributes-type"),
    ("attributes", "attributes"),
    ("input_push_channel", "input-push-channel"),
    ("input_push_token", "input-push-token"),
];

/// A notification without its token and authorization.
struct Encoded {
    headers: Vec<(&'static str, String)>,
    body: Value,
    bytes: Bytes,
}

fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let rejected = |words: String| (Reason::PayloadRejected, words);
    let mut extra = payload::vendor_fields(outbound, NAME);
    let silent = outbound.title.is_none() && outbound.body.is_none();
    let wanted = match extra.remove("push_type") {
        None => if silent { "background" } else { "alert" }.to_owned(),
        Some(Value::String(name)) => name,
        Some(_) => return Err(rejected("vendor.apns.push_type must be a text".to_owned())),
    };
    let push_type = PUSH_TYPES
        .iter()
        .find(|p| p.name == wanted)
        .ok_or_else(|| rejected(format!("vendor.apns.push_type {wanted:?} is not known")))?;
    let headers = headers(config, outbound, push_type, &mut extra)?;
    let body = body(outbound, push_type, extra).map_err(rejected)?;
    let body = Value::Object(body);
    let bytes = body.to_string();
    if bytes.len() > push_type.bytes_max {
        return Err((
            Reason::PayloadTooLarge,
            format!(
                "the payload has {} bytes; APNs takes {}",
                bytes.len(),
                push_type.bytes_max
            ),
        ));
    }
    Ok(Encoded {
        headers,
        body,
        bytes: bytes.into(),
    })
}

fn headers(
    config: &Config,
    outbound: &Outbound,
    push_type: &PushType,
    extra: &mut Map<String, Value>,
) -> Result<Vec<(&'static str, String)>, (Reason, String)> {
    let options = &outbound.message.options;
    let mut given = |name: &str| -> Result<Option<String>, (Reason, String)> {
        let plain = |s: &str| s.bytes().all(|b| (0x20..0x7f).contains(&b));
        match extra.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if plain(&text) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err((
                Reason::PayloadRejected,
                format!("vendor.apns.{name} must be a text or a number"),
            )),
        }
    };
    let topic = given("topic")?
        .unwrap_or_else(|| format!("{}{}", config.bundle_id(outbound), push_type.topic_suffix));
    let by_class = push_type
        .priority
        .unwrap_or_else(|| classes::of(&outbound.message).apns_priority);
    let priority = given("priority")?.unwrap_or_else(|| by_class.to_string());
    let allowed = match priority.as_str() {
        "1" | "5" => true,
        "10" => push_type.content != Content::Background,
        _ => false,
    };
    if !allowed {
        return Err((
            Reason::PayloadRejected,
            format!(
                "vendor.apns.priority {priority} is not allowed: 1, 5 or 10, and for background pushes 1 or 5"
            ),
        ));
    }
    let expiration = given("expiration")?.unwrap_or_else(|| {
        if options.ttl_s == Some(0) {
            "0".to_owned()
        } else {
            outbound.expires_at.seconds().max(0).to_string()
        }
    });
    let collapse_id = match given("collapse_id")? {
        Some(id) => id,
        None => options
            .collapse_key
            .clone()
            .unwrap_or_else(|| outbound.dedup_key.clone()),
    };
    let mut headers = vec![
        ("apns-push-type", push_type.name.to_owned()),
        ("apns-topic", topic),
        ("apns-priority", priority),
        ("apns-expiration", expiration),
    ];
    // A collapse id makes a repeated send shown once; these kinds are not shown by the system.
    if matches!(push_type.name, "alert" | "background") {
        headers.push(("apns-collapse-id", collapse_text(&collapse_id)));
    }
    Ok(headers)
}

/// Apple takes 64 bytes; longer keys and keys that are no header text are hashed.
fn collapse_text(key: &str) -> String {
    if key.len() <= 64 && key.bytes().all(|b| (0x21..0x7f).contains(&b)) {
        key.to_owned()
    } else {
        payload::short_hash(key, 16)
    }
}

fn body(
    outbound: &Outbound,
    push_type: &PushType,
    mut extra: Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    if push_type.content == Content::Bare {
        return if extra.is_empty() {
            Err("an mdm push needs vendor.apns.mdm, the push magic".to_owned())
        } else {
            Ok(extra)
        };
    }
    let mut aps = aps(outbound, push_type.content);
    for (name, key) in APS_KEYS {
        if let Some(value) = extra.remove(*name) {
            if value.is_null() {
                aps.remove(*key);
            } else {
                aps.insert((*key).to_owned(), value);
            }
        }
    }
    if let Some(subtitle) = extra.remove("subtitle")
        && let Some(Value::Object(alert)) = aps.get_mut("alert")
    {
        alert.insert("subtitle".to_owned(), subtitle);
    }
    let mut body = payload::keys(&outbound.message);
    if push_type.content == Content::Alert
        && let Some(image) = outbound
            .message
            .notification
            .as_ref()
            .and_then(|n| n.image.as_ref())
    {
        body.insert("hy_image".to_owned(), image.as_str().into());
    }
    body.insert("aps".to_owned(), Value::Object(aps));
    let id = body.get("hy_id").cloned();
    payload::merge(&mut body, &extra);
    if let Some(id) = id {
        body.insert("hy_id".to_owned(), id);
    }
    if push_type.content == Content::Activity {
        check_activity(&body)?;
    }
    Ok(body)
}

fn aps(outbound: &Outbound, content: Content) -> Map<String, Value> {
    let mut aps = Map::new();
    let marks = classes::of(&outbound.message);
    let shown = outbound.message.notification.as_ref();
    let mut alert = Map::new();
    for (key, text) in [("title", &outbound.title), ("body", &outbound.body)] {
        if let Some(text) = text.as_ref().filter(|t| !t.is_empty()) {
            alert.insert(key.to_owned(), text.as_str().into());
        }
    }
    let sound = shown
        .and_then(|n| n.sound.clone())
        .or_else(|| marks.sounds.then(|| "default".to_owned()));
    match content {
        Content::Alert => {
            if let Some(sound) = sound {
                aps.insert("sound".to_owned(), sound.into());
            }
            if let Some(badge) = outbound.badge {
                aps.insert("badge".to_owned(), badge.into());
            }
            if let Some(group) = shown.and_then(|n| n.group.as_ref()) {
                aps.insert("thread-id".to_owned(), group.as_str().into());
            }
            aps.insert(
                "interruption-level".to_owned(),
                marks.apns_interruption.into(),
            );
            // Lets the app's notification service extension acknowledge and fetch the picture.
            aps.insert("mutable-content".to_owned(), 1.into());
        }
        Content::Background => {
            aps.insert("content-available".to_owned(), 1.into());
        }
        Content::Reload => {
            aps.insert("content-changed".to_owned(), true.into());
        }
        Content::Activity => {
            aps.insert("timestamp".to_owned(), outbound.now.seconds().into());
        }
        Content::Free | Content::Bare => {}
    }
    if !alert.is_empty() && matches!(content, Content::Alert | Content::Activity) {
        aps.insert("alert".to_owned(), Value::Object(alert));
    }
    aps
}

fn check_activity(body: &Map<String, Value>) -> Result<(), String> {
    let aps = body.get("aps").and_then(Value::as_object);
    let has = |key: &str| aps.is_some_and(|a| a.contains_key(key));
    let event = aps.and_then(|a| a.get("event")).and_then(Value::as_str);
    let needed: &[&str] = match event {
        Some("start") => &["attributes-type", "attributes", "content-state", "alert"],
        Some("update") => &["content-state"],
        Some("end") => &[],
        _ => {
            return Err(
                "a liveactivity push needs vendor.apns.event: start, update or end".to_owned(),
            );
        }
    };
    match needed.iter().find(|key| !has(key)) {
        Some(key) => Err(format!("a liveactivity push of this event needs {key}")),
        None => Ok(()),
    }
}

/// Apple's reason in an error answer; empty when there is none.
fn reason_of(answer: &Answer) -> String {
    serde_json::from_slice::<Value>(&answer.body)
        .ok()
        .and_then(|v| v.get("reason")?.as_str().map(str::to_owned))
        .unwrap_or_default()
}

pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    let reason = reason_of(answer);
    let after = retry_after(&answer.headers, now);
    let status = answer.status;
    let words = if reason.is_empty() {
        format!("APNs answered status {status}")
    } else {
        format!("{status} {reason}")
    };
    match (status, reason.as_str()) {
        (200, _) => accepted(
            answer
                .headers
                .get("apns-id")
                .and_then(|id| id.to_str().ok()),
        ),
        (_, "BadDeviceToken" | "DeviceTokenNotForTopic") => token_dead(&words),
        (410, _) | (_, "Unregistered" | "ExpiredToken") => dead_since(answer, &words),
        (413, _) | (_, "PayloadTooLarge") => too_large(&words),
        (_, "TooManyRequests" | "TooManyProviderTokenUpdates") | (429, _) => {
            rate_limited(after.or(Some(DEVICE_PAUSE)), &words)
        }
        // Refused after a renewal as well: the clocks differ. It heals without a person once they agree.
        (_, "ExpiredProviderToken") => {
            unavailable(after, &format!("{words}: check this machine's clock"))
        }
        (_, "IdleTimeout" | "Shutdown" | "UnrelatedKeyIdInToken") => unavailable(after, &words),
        (_, "TopicDisallowed" | "BadTopic" | "MissingTopic") => credential_bad(&format!(
            "{words}: check bundle_id and what the key may send to"
        )),
        (_, "InvalidProviderToken") => credential_bad(&format!(
            "{words}: check key_id, team_id, private_key and the clock"
        )),
        (_, "BadPath" | "MethodNotAllowed") => {
            credential_bad(&format!("{words}: check the endpoint"))
        }
        (401 | 403, _) => credential_bad(&words),
        (500..=599, _) => unavailable(after, &words),
        (404 | 405, _) => credential_bad(&format!("{words}: check the endpoint")),
        _ => refused(&words),
    }
}

/// The token is dead, since when APNs says (milliseconds).
fn dead_since(answer: &Answer, words: &str) -> Verdict {
    let known = serde_json::from_slice::<Value>(&answer.body)
        .ok()
        .and_then(|v| v.get("timestamp")?.as_i64())
        .map(Timestamp);
    match (known, token_dead(words)) {
        (Some(at), Verdict::TokenDead { reason, detail, .. }) => Verdict::TokenDead {
            reason,
            detail: format!("{detail} since {}", at.rfc3339()),
            since: Some(at),
        },
        (_, verdict) => verdict,
    }
}

/// Whether a death may in truth be a wrong environment.
fn wrong_environment(detail: &str) -> bool {
    detail.ends_with("BadDeviceToken")
}

/// The vendor.
#[derive(Debug)]
pub struct Apns {
    egress: Egress,
}

impl Apns {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Apns {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn day_offset_s(&self) -> i32 {
        0
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        let environment = match read.environment {
            Environment::Production => "production",
            Environment::Sandbox => "sandbox",
        };
        let (auth, key_id, team_id) = match read.auth {
            Auth::Token {
                key_id, team_id, ..
            } => ("token", Some(key_id.into()), Some(team_id.into())),
            Auth::Certificate => ("certificate", None, None),
        };
        Ok(config::shown([
            ("auth", Some(auth.into())),
            ("key_id", key_id),
            ("team_id", team_id),
            ("bundle_id", Some(read.bundle_id.into())),
            (
                "other_bundle_ids",
                Some(read.other_bundle_ids.into()).filter(|v| *v != json!([])),
            ),
            ("environment", Some(environment.into())),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let mut config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let tls = match config.identity.take() {
            None => self.egress.tls(Protocol::Http2),
            Some(identity) => {
                self.egress
                    .tls_with(Protocol::Http2, identity)
                    .map_err(|source| ChannelError::Failed {
                        what: "the certificate and its key cannot be used together",
                        source: Box::new(source),
                    })?
            }
        };
        let pool = |usual: &str| -> Result<h2::Pool, ChannelError> {
            let endpoint = credential.endpoint.as_deref().unwrap_or(usual);
            let origin = Origin::parse(endpoint).map_err(|e| ChannelError::Config {
                detail: e.to_string(),
            })?;
            Ok(h2::Pool::new(&self.egress, origin, tls.clone()))
        };
        Ok(Arc::new(Sender {
            production: pool("https://api.push.apple.com")?,
            sandbox: pool("https://api.sandbox.push.apple.com")?,
            egress: self.egress.clone(),
            config,
            token: Minted::new(TOKEN_REUSE, TOKEN_FORCE_PAUSE),
        }))
    }
}

/// A channel for one credential: two pools of connections, because the environments are separate worlds.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    production: h2::Pool,
    sandbox: h2::Pool,
    token: Minted,
}

impl Sender {
    /// The provider token in use; `None` with a certificate.
    fn authorization(&self) -> Option<(HeaderValue, u64)> {
        let Auth::Token {
            key_id,
            team_id,
            signer,
        } = &self.config.auth
        else {
            return None;
        };
        let now = self.egress.now();
        self.token.get(now, || {
            let claims = json!({"iss": team_id, "iat": now.seconds()});
            let jwt = signer.sign(json!({"kid": key_id}), &claims)?;
            let mut value = HeaderValue::from_str(&format!("bearer {jwt}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        })
    }

    fn pool(&self, environment: Option<Environment>) -> &h2::Pool {
        match environment.unwrap_or(self.config.environment) {
            Environment::Production => &self.production,
            Environment::Sandbox => &self.sandbox,
        }
    }

    async fn send_one(
        &self,
        encoded: &Encoded,
        headers: &HeaderMap,
        recipient: &Recipient,
        until: Instant,
    ) -> Verdict {
        let token = recipient.token.expose_str().unwrap_or_default().trim();
        if token.is_empty() || token.len() % 2 == 1 || !token.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return token_dead("the token is not hexadecimal");
        }
        let path = format!("/3/device/{}", token.to_ascii_lowercase());
        let answer = self
            .post(path, headers, &encoded.bytes, recipient.environment, until)
            .await;
        match answer {
            Ok(answer) => decode(&answer, self.egress.now()),
            Err(verdict) => verdict,
        }
    }

    /// One call; repeated once when the provider token had expired or the server was going away.
    async fn post(
        &self,
        path: String,
        headers: &HeaderMap,
        body: &Bytes,
        environment: Option<Environment>,
        until: Instant,
    ) -> Result<Answer, Verdict> {
        let pool = self.pool(environment);
        let mut call = Call {
            method: Method::POST,
            path,
            headers: headers.clone(),
            body: body.clone(),
        };
        let mut first = true;
        loop {
            let generation = match self.authorization() {
                Some((value, generation)) => {
                    call.headers.insert(AUTHORIZATION, value);
                    generation
                }
                None => 0,
            };
            let (answer, route) = pool.call(&call, until).await.map_err(|e| e.verdict())?;
            if answer.status == 200 || !first {
                return Ok(answer);
            }
            first = false;
            match reason_of(&answer).as_str() {
                "ExpiredProviderToken" => self.token.refused(generation, self.egress.now()),
                "Shutdown" | "IdleTimeout" | "UnrelatedKeyIdInToken" => route.retire(),
                _ => return Ok(answer),
            }
        }
    }
}

fn header_map(encoded: &Encoded) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(encoded.headers.len() + 2);
    for (name, value) in &encoded.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            map.insert(HeaderName::from_static(name), value);
        }
    }
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    map
}

#[async_trait]
impl Channel for Sender {
    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let encoded = encode(&self.config, outbound)?;
        Ok(Parcel {
            method: "POST",
            path: "/3/device/{token}".to_owned(),
            headers: encoded
                .headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            body: encoded.body,
            truncated: Vec::new(),
            downgraded: None,
        })
    }

    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict> {
        let until = Instant::now() + deadline;
        let encoded = match encode(&self.config, &batch.outbound) {
            Ok(encoded) => encoded,
            Err(refused) => return vendor::for_all(&batch.recipients, &vendor::refusal(refused)),
        };
        let headers = header_map(&encoded);
        let calls = batch
            .recipients
            .iter()
            .map(|recipient| self.send_one(&encoded, &headers, recipient, until))
            .collect();
        let verdicts = vendor::fan_out(calls).await;
        vendor::spare_tokens(verdicts, wrong_environment)
    }

    /// Sends a background push to a token that no device has: `BadDeviceToken` proves the credential.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let until = Instant::now() + deadline;
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("apns-push-type", "background"),
            ("apns-topic", self.config.bundle_id.as_str()),
            ("apns-priority", "5"),
            ("apns-expiration", "0"),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let body = Bytes::from_static(b"{\"aps\":{\"content-available\":1}}");
        let path = format!("/3/device/{}", "0".repeat(64));
        match self.post(path, &headers, &body, None, until).await {
            Ok(answer) if answer.status == 200 => report(true, "APNs accepts the credential"),
            Ok(answer) => match decode(&answer, self.egress.now()) {
                Verdict::TokenDead { .. } => report(true, "APNs accepts the credential"),
                other => report(false, other.detail()),
            },
            Err(verdict) => report(false, verdict.detail()),
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

fn report(ok: bool, detail: &str) -> CheckReport {
    CheckReport {
        ok,
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests;
