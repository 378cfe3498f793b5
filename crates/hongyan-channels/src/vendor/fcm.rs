//! Firebase Cloud Messaging, HTTP v1 (`fcm`): Android with Google services, and its relays to iOS and browsers.
//!
//! Sources: Firebase documentation, "FCM REST v1 projects.messages", "FCM error codes", "Scale FCM", "Authorize send
//! requests"; Google Identity, "Using OAuth 2.0 for server to server applications" (read 2026-11).
//!
//! The credential is the service account's JSON file, on its own or under `service_account` (as an object or as the file's
//! text). Of it `project_id`, `client_email`, `private_key`, `private_key_id` and `token_uri` are used. The app may add
//! `android_channels`: its notification channel for each class, such as `{"im": "chats", "transaction.finance": "money"}`.
//!
//! Rate: 8,000 devices a second, each a request of its own. `limits.rate_per_s` sets another.
//!
//! A token does not say what it leads to, so every message has a part for each: `android`; `apns` with priority, expiration, collapse
//! id and `aps` as the channel `apns` has them (left out where it would make the payload too large); `webpush` with the headers `TTL`,
//! `Urgency` and, for a message with a collapse key, `Topic`.
//!
//! `options.vendor.fcm` is merged into `message` (or into the whole body when it has the key `message`), after all of that; the target
//! (`token`, `fid`, `topic`, `condition`) cannot be set that way. `data` takes only texts, and no key that Google keeps for itself:
//! `from`, `message_type`, and what begins with `google.` or `gcm.`.

mod data;
mod relays;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Capability, Channel, ChannelError, CheckReport, ConfigError, OpenCredential, Outbound,
    Parcel, QuotaWord, RateCounts, Recipient, Vendor,
};
use hongyan_core::{ChannelId, Message, Reason, Timestamp, Verdict};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::answer::{
    accepted, credential_bad, device_limited, mend, rate_limited, refused, retry_after, token_dead,
    unavailable, unreadable,
};
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin, Protocol};
use crate::http::{ANSWER_BYTES_MAX, Answer, Ask, h2};
use crate::jwt::Signer;
use crate::token::{self, Fetched, TokenCache, TokenError};
use crate::{classes, payload, texts, vendor};

const NAME: &str = "fcm";

/// Google allows 600,000 messages a minute for a project: four fifths of it.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: 4000,
    batch_len_max: 20,
    rate_per_s: 8_000,
    rate_counts: RateCounts::Devices,
    concurrency: 128,
    ttl_max: Duration::from_secs(28 * 86_400),
    recalls: false,
    receipts: false,
    poll_every: None,
    environments: false,
    repeatable: true,
    quota_word: QuotaWord::AskedAgain,
};

const ENDPOINT: &str = "https://fcm.googleapis.com";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// Wait after 429 where Google names none.
const QUOTA_PAUSE: Duration = Duration::from_secs(60);

/// The service account key file, and what an app may add to it.
#[derive(Debug)]
struct Config {
    project_id: String,
    client_email: String,
    key_id: Option<String>,
    signer: Signer,
    token_uri: String,
    /// The app's Android notification channels, by class name.
    android_channels: BTreeMap<String, String>,
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut outer = Fields::new(config);
        // The key file may stand on its own, or under a name, as an object or as the file's text.
        let parsed: Value;
        let (file, path) = match outer.value("service_account") {
            Some(Value::String(text)) => {
                parsed = serde_json::from_str(text).unwrap_or_default();
                (&parsed, "service_account".to_owned())
            }
            Some(object) => (object, "service_account".to_owned()),
            None => (config, String::new()),
        };
        let mut fields = Fields::at(file, path);
        let project_id =
            fields.checked("project_id", "use the service account's JSON file", |id| {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_:.".contains(&b);
                if id.bytes().all(plain) {
                    Ok(id.to_owned())
                } else {
                    Err("has characters that no project id has".to_owned())
                }
            });
        let client_email = fields.text("client_email", "use the service account's JSON file");
        let key_id = fields.optional_text("private_key_id");
        let signer = fields.checked(
            "private_key",
            "use the service account's JSON file",
            Signer::rs256,
        );
        let token_uri = fields.optional_url("token_uri");
        let android_channels = channels(&mut outer);
        outer.absorb(fields.finish());
        let faults = outer.finish_beside("service_account");
        match (project_id, signer) {
            (Some(project_id), Some(signer)) if faults.is_empty() => Ok(Self {
                project_id,
                client_email,
                key_id,
                signer,
                token_uri: token_uri.unwrap_or_else(|| TOKEN_URI.to_owned()),
                android_channels,
            }),
            _ => Err(faults),
        }
    }
}

fn channels(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut channels = BTreeMap::new();
    match fields.value("android_channels") {
        None => {}
        Some(Value::Object(object)) => {
            for (class, id) in object {
                match id.as_str() {
                    Some(id) if classes::is_name(class) => {
                        channels.insert(class.clone(), id.to_owned());
                    }
                    Some(_) => fields.fault(
                        &format!("android_channels/{class}"),
                        "is not a class: im, transaction, transaction.finance …, subscription, marketing",
                    ),
                    None => fields.fault(&format!("android_channels/{class}"), "must be a text"),
                }
            }
        }
        Some(_) => fields.fault("android_channels", "must map classes to channel ids"),
    }
    channels
}

/// A message without its target: JSON text from the opening brace of the body to before the closing ones.
struct Encoded {
    body: Value,
    open: String,
}

impl Encoded {
    fn with_token(&self, token: &str) -> Bytes {
        let mut text = String::with_capacity(self.open.len() + token.len() + 16);
        text.push_str(&self.open);
        text.push_str(",\"token\":");
        text.push_str(&Value::from(token).to_string());
        text.push_str("}}");
        text.into()
    }
}

fn ttl_s(outbound: &Outbound) -> u64 {
    if outbound.message.options.ttl_s == Some(0) {
        0
    } else {
        vendor::ttl(outbound, CAPABILITY.ttl_max).as_secs()
    }
}

fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let marks = classes::of(&outbound.message);
    let options = &outbound.message.options;
    let ttl_s = ttl_s(outbound);
    let mut android = Map::new();
    android.insert("priority".to_owned(), marks.fcm_priority.into());
    android.insert("ttl".to_owned(), format!("{ttl_s}s").into());
    // A device keeps four keys only, so none is set that the sender did not ask for.
    if let Some(key) = &options.collapse_key {
        android.insert("collapse_key".to_owned(), key.as_str().into());
    }
    let mut message = Map::new();
    message.insert(
        "data".to_owned(),
        Value::Object(payload::text_keys(&outbound.message)),
    );
    if outbound.title.is_some() || outbound.body.is_some() {
        message.insert("notification".to_owned(), Value::Object(shown(outbound)));
        android.insert(
            "notification".to_owned(),
            Value::Object(shown_on_android(config, outbound)),
        );
    }
    message.insert("android".to_owned(), Value::Object(android));
    let room = CAPABILITY
        .payload_bytes_max
        .saturating_sub(payload_bytes(&message));
    message.insert("apns".to_owned(), relays::apns(outbound, room));
    message.insert("webpush".to_owned(), relays::webpush(outbound));
    let mut body = Map::new();
    body.insert("message".to_owned(), Value::Object(message));
    merge(&mut body, outbound).map_err(|words| (Reason::PayloadRejected, words))?;
    let message = body.get("message").and_then(Value::as_object);
    let size = message.map_or(0, payload_bytes);
    if size > CAPABILITY.payload_bytes_max {
        return Err((
            Reason::PayloadTooLarge,
            format!(
                "data and notification have {size} bytes; FCM takes {}",
                CAPABILITY.payload_bytes_max
            ),
        ));
    }
    let open = open_text(&body);
    Ok(Encoded {
        body: Value::Object(body),
        open,
    })
}

fn shown(outbound: &Outbound) -> Map<String, Value> {
    let image = outbound
        .message
        .notification
        .as_ref()
        .and_then(|n| n.image.as_ref());
    let mut shown = Map::new();
    for (key, text) in [
        ("title", outbound.title.as_ref()),
        ("body", outbound.body.as_ref()),
        ("image", image),
    ] {
        if let Some(text) = text.filter(|t| !t.is_empty()) {
            shown.insert(key.to_owned(), text.as_str().into());
        }
    }
    shown
}

fn shown_on_android(config: &Config, outbound: &Outbound) -> Map<String, Value> {
    let message = &outbound.message;
    let marks = classes::of(message);
    let mut shown = Map::new();
    shown.insert(
        "notification_priority".to_owned(),
        marks.fcm_notification.into(),
    );
    // The same tag replaces, so a repeated send is shown once.
    let tag = message
        .options
        .collapse_key
        .as_ref()
        .unwrap_or(&outbound.dedup_key);
    shown.insert("tag".to_owned(), tag.as_str().into());
    let channel = classes::names(message.class, message.class_detail)
        .iter()
        .find_map(|name| config.android_channels.get(name).cloned());
    if let Some(channel) = channel {
        shown.insert("channel_id".to_owned(), channel.into());
    }
    let sound = message
        .notification
        .as_ref()
        .and_then(|n| n.sound.clone())
        .or_else(|| marks.sounds.then(|| "default".to_owned()));
    if let Some(sound) = sound {
        shown.insert("sound".to_owned(), sound.into());
    }
    if let Some(badge) = outbound.badge {
        shown.insert("notification_count".to_owned(), badge.into());
    }
    shown
}

/// Merges the sender's own fields, and says which of them Google would not take.
fn merge(body: &mut Map<String, Value>, outbound: &Outbound) -> Result<(), String> {
    let mut extra = payload::vendor_fields(outbound, NAME);
    let theirs = match extra.remove("message") {
        Some(Value::Object(message)) => {
            payload::merge(body, &extra);
            message
        }
        Some(_) => return Err("vendor.fcm.message must be an object".to_owned()),
        None => extra,
    };
    let Some(message) = body.get_mut("message").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    data::check(&theirs)?;
    relays::merge(message, &theirs);
    for target in ["token", "fid", "topic", "condition", "name"] {
        message.remove(target);
    }
    data::mark(message, outbound.message.id);
    Ok(())
}

/// Google counts keys and values of `data` and `notification`.
fn payload_bytes(message: &Map<String, Value>) -> usize {
    ["data", "notification"]
        .iter()
        .filter_map(|part| message.get(*part))
        .map(|part| part.to_string().len())
        .sum()
}

/// The body with the message last and open: the token is added at its end.
fn open_text(body: &Map<String, Value>) -> String {
    let mut text = "{".to_owned();
    for (key, value) in body.iter().filter(|(key, _)| *key != "message") {
        text.push_str(&format!("{}:{value},", Value::from(key.as_str())));
    }
    text.push_str("\"message\":");
    let message = body
        .get("message")
        .map(Value::to_string)
        .unwrap_or_default();
    text.push_str(message.strip_suffix('}').unwrap_or(&message));
    text
}

/// What Google's error object says, in the order in which it is to be believed.
struct Fault {
    /// `FcmError.errorCode`, else empty.
    code: String,
    /// `google.rpc` status, else empty.
    status: String,
    /// `ErrorInfo.reason`, else empty.
    info: String,
    message: String,
    /// Fields that `BadRequest` names.
    fields: Vec<String>,
    /// Whether the quotas that `QuotaFailure` names are all of one device.
    of_device: bool,
    delay: Option<Duration>,
}

fn fault(answer: &Answer) -> Fault {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let error = body.get("error").cloned().unwrap_or_default();
    let text = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let details = error
        .get("details")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let of_type = |suffix: &str| {
        details
            .iter()
            .find(|d| text(d, "@type").ends_with(suffix))
            .cloned()
            .unwrap_or_default()
    };
    let quota = of_type("google.rpc.QuotaFailure");
    let of_device = quota
        .get("violations")
        .and_then(Value::as_array)
        .is_some_and(|all| !all.is_empty() && all.iter().all(names_device));
    let violations = of_type("google.rpc.BadRequest");
    let delay = text(&of_type("google.rpc.RetryInfo"), "retryDelay");
    Fault {
        code: text(&of_type("fcm.v1.FcmError"), "errorCode"),
        status: text(&error, "status"),
        info: text(&of_type("google.rpc.ErrorInfo"), "reason"),
        message: text(&error, "message"),
        fields: violations
            .get("fieldViolations")
            .and_then(Value::as_array)
            .map(|list| list.iter().map(|v| text(v, "field")).collect())
            .unwrap_or_default(),
        of_device,
        delay: delay
            .strip_suffix('s')
            .and_then(|s| s.parse::<f64>().ok())
            .filter(|s| (0.0..86_400.0).contains(s))
            .map(Duration::from_secs_f64),
    }
}

/// Whether a quota that was exceeded is one device's: the project's and the topics' are named without the word.
fn names_device(violation: &Value) -> bool {
    let says = |name: &str| {
        let text = violation.get(name).and_then(Value::as_str);
        text.is_some_and(|text| text.to_ascii_lowercase().contains("device"))
    };
    says("subject") || says("description") || says("quotaMetric") || says("quotaId")
}

pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    if answer.status == 200 {
        return serde_json::from_slice::<Value>(&answer.body)
            .ok()
            .and_then(|body| body.get("name")?.as_str().map(|name| accepted(Some(name))))
            .unwrap_or_else(|| unreadable(200));
    }
    let fault = fault(answer);
    let after = retry_after(&answer.headers, now).or(fault.delay);
    let words = format!(
        "{} {} {}",
        answer.status,
        if fault.code.is_empty() {
            &fault.status
        } else {
            &fault.code
        },
        fault.message
    );
    let third_party = "the APNs or Web Push key in the Firebase project is not valid";
    match (fault.code.as_str(), fault.status.as_str(), answer.status) {
        ("UNREGISTERED", _, _) => token_dead(&words),
        ("SENDER_ID_MISMATCH", _, _) => token_dead(&words),
        ("THIRD_PARTY_AUTH_ERROR", _, _) => credential_bad(&format!("{words}: {third_party}")),
        ("QUOTA_EXCEEDED", _, _) | ("", "RESOURCE_EXHAUSTED", _) if fault.of_device => {
            device_limited(after.or(Some(QUOTA_PAUSE)), &words)
        }
        ("QUOTA_EXCEEDED", _, _) | ("", "RESOURCE_EXHAUSTED", _) => {
            rate_limited(after.or(Some(QUOTA_PAUSE)), &words)
        }
        ("INTERNAL" | "UNAVAILABLE" | "UNSPECIFIED_ERROR", _, _) => unavailable(after, &words),
        ("INVALID_ARGUMENT", _, _) | ("", "INVALID_ARGUMENT", _) if blames_token(&fault) => {
            token_dead(&words)
        }
        ("INVALID_ARGUMENT", _, _) | ("", "INVALID_ARGUMENT", _) => refused(&words),
        // Refused after a renewal as well: the clocks differ. It heals without a person once they agree.
        ("", "UNAUTHENTICATED", _) if fault.info == "ACCESS_TOKEN_EXPIRED" => {
            unavailable(after, &format!("{words}: check this machine's clock"))
        }
        ("", "UNAUTHENTICATED", _) | (_, _, 401) => mend(
            &words,
            "make a new key for the service account, store it, and check this machine's clock",
        ),
        ("", "PERMISSION_DENIED", _) | (_, _, 403) => mend(
            &words,
            "enable the Firebase Cloud Messaging API and give the account the right to send",
        ),
        ("", "NOT_FOUND", _) | (_, _, 404) => mend(&words, "check project_id"),
        (_, _, 429) => rate_limited(after.or(Some(QUOTA_PAUSE)), &words),
        (_, _, 500..=599) => unavailable(after, &words),
        (_, _, 400..=499) => refused(&words),
        (_, _, status) => unreadable(status),
    }
}

/// Whether an invalid argument is the token. Google names the field only at times; its sentence is the only other sign,
/// and a token lives on when neither is there.
fn blames_token(fault: &Fault) -> bool {
    if fault.fields.is_empty() {
        fault.message.contains("registration token")
    } else {
        fault.fields.iter().all(|f| f == "message.token")
    }
}

/// Tokens of another project: many at once mean a wrong service account.
fn wrong_project(detail: &str) -> bool {
    detail.contains("SENDER_ID_MISMATCH") || detail.contains("INVALID_ARGUMENT")
}

/// The vendor.
#[derive(Debug)]
pub struct Fcm {
    egress: Egress,
}

impl Fcm {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Fcm {
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
        let channels = read.android_channels;
        Ok(config::shown([
            ("project_id", Some(read.project_id.into())),
            ("client_email", Some(read.client_email.into())),
            ("private_key_id", read.key_id.map(Value::from)),
            (
                "android_channels",
                (!channels.is_empty()).then(|| json!(channels)),
            ),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let endpoint = credential.endpoint.as_deref();
        let unusable = |e: crate::CallError| ChannelError::Config {
            detail: e.to_string(),
        };
        let origin = Origin::parse(endpoint.unwrap_or(ENDPOINT)).map_err(unusable)?;
        Ok(Arc::new(Sender {
            path: format!("/v1/projects/{}/messages:send", config.project_id).into(),
            token_url: token::moved(&config.token_uri, endpoint).map_err(unusable)?,
            pool: h2::Pool::new(&self.egress, origin, self.egress.tls(Protocol::Http2)),
            egress: self.egress.clone(),
            config,
            tokens: TokenCache::default(),
        }))
    }
}

/// A channel for one service account.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    path: Bytes,
    token_url: String,
    pool: h2::Pool,
    tokens: TokenCache,
}

impl Sender {
    /// Exchanges a signed assertion for an access token (RFC 7523).
    async fn fetch_token(&self, until: Instant) -> Result<Fetched, TokenError> {
        let now = self.egress.now();
        let mut header = json!({"typ": "JWT"});
        if let Some(key_id) = &self.config.key_id {
            header["kid"] = key_id.as_str().into();
        }
        let claims = json!({
            "iss": self.config.client_email, "scope": SCOPE, "aud": self.config.token_uri,
            "iat": now.seconds(), "exp": now.seconds() + 3600,
        });
        let Some(assertion) = self.config.signer.sign(header, &claims) else {
            return Err(TokenError::Unavailable {
                detail: "the system's source of chance failed".to_owned(),
                after: None,
            });
        };
        let form = texts::form([
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", assertion.as_str()),
        ]);
        let answer = self
            .egress
            .fetch(
                &self.token_url,
                token::form_call(form),
                ANSWER_BYTES_MAX,
                until,
            )
            .await?;
        token::read(&answer, self.egress.now()).map_err(|error| match error {
            // A bad signature, or a time that is not theirs: Google has one word for both.
            TokenError::Refused(why) if why.starts_with("invalid_grant") => TokenError::Refused(
                format!("{why}: check the service account and this machine's clock"),
            ),
            other => other,
        })
    }

    /// One call; repeated once with a new access token when Google does not take the one in use.
    async fn post(&self, body: Bytes, until: Instant) -> Result<Answer, Verdict> {
        let json = HeaderValue::from_static("application/json; charset=UTF-8");
        let mut call = Ask {
            method: Method::POST,
            path: self.path.clone(),
            headers: Arc::default(),
            body,
        };
        let mut first = true;
        loop {
            let token = self
                .tokens
                .get(self.egress.now(), || self.fetch_token(until))
                .await
                .map_err(|e| e.verdict())?;
            call.headers = Arc::new(vec![
                (CONTENT_TYPE, json.clone()),
                (AUTHORIZATION, token.header.clone()),
            ]);
            let (answer, _) = self
                .pool
                .call(&call, until)
                .await
                .map_err(|e| e.verdict())?;
            let ours_is_bad = answer.status == 401 && fault(&answer).code.is_empty();
            if !(ours_is_bad && first) {
                return Ok(answer);
            }
            first = false;
            self.tokens.refused(&token);
        }
    }

    async fn send_one(&self, encoded: &Encoded, recipient: &Recipient, until: Instant) -> Verdict {
        let token = recipient.token.expose_str().unwrap_or_default();
        if token.is_empty() {
            return Verdict::no_token("a registration token: it is empty");
        }
        match self.post(encoded.with_token(token), until).await {
            Ok(answer) => decode(&answer, self.egress.now()),
            Err(verdict) => verdict,
        }
    }
}

#[async_trait]
impl Channel for Sender {
    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let encoded = encode(&self.config, outbound)?;
        Ok(Parcel {
            method: "POST",
            path: String::from_utf8_lossy(&self.path).into_owned(),
            headers: Vec::new(),
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
        let calls = batch
            .recipients
            .iter()
            .map(|recipient| self.send_one(&encoded, recipient, until))
            .collect();
        vendor::spare_tokens(vendor::fan_out(calls).await, wrong_project)
    }

    /// A dry run to a token that nobody has: Google's complaint about the token proves the credential.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let body = json!({"validate_only": true,
                          "message": {"token": "hongyan-credential-check", "data": {"hy_id": "check"}}});
        let verdict = match self
            .post(body.to_string().into(), Instant::now() + deadline)
            .await
        {
            Ok(answer) => decode(&answer, self.egress.now()),
            Err(verdict) => verdict,
        };
        match verdict {
            Verdict::Accepted { .. } | Verdict::TokenDead { .. } | Verdict::Refused { .. } => {
                CheckReport {
                    ok: true,
                    detail: "FCM accepts the credential".to_owned(),
                }
            }
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
}

#[cfg(test)]
mod tests;
