//! Huawei Push Kit for HMS Core (`huawei`): Android and EMUI phones, HarmonyOS up to 4; APIs v1 and v2.
//!
//! Sources: Huawei developer documentation, HMS Core "Downlink messages" REST reference, "FAQ: error codes", "Generating
//! an authentication token from a service account" (read 2026-11). Unverified: which HTTP status a business code comes
//! with, so the code is read whatever the status; other regions' host names, so the credential's endpoint may be set.
//!
//! | credential | what |
//! | --- | --- |
//! | `app_id` | the app id of AppGallery Connect |
//! | `client_secret`, `client_id` | OAuth client credentials; the client id is the app id when absent; API v1 |
//! | `service_account` | instead of those: the service account's JSON file (or its fields beside `app_id`); API v2 |
//! | `api`, `project_id` | `v1` or `v2` when it should differ; v2 addresses the project |
//! | `categories` | the categories that the app was granted; others are then sent as `MARKETING`. Absent: Huawei decides |
//! | `class_override` | whether a sender may give a marketing message another category |
//! | `click_intent` | intent URI for taps with `{hy_id}`, `{hy_url}`, `{hy_data}`, `{hy_user}`; absent: a tap opens the app, which gets `message.data` |
//! | `badge_class` | launcher activity, without which Huawei sets no badge |
//! | `receipt_id`, `test` | a configured receipt address; whether all messages are test messages (500 a day) |
//!
//! `options.vendor.huawei` is merged into `message` (or into the whole body when it has the key `message`); the target
//! cannot be set that way, and a marketing message keeps its category unless the credential has `class_override`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Capability, Channel, ChannelError, CheckReport, ConfigError, OpenCredential, Outbound,
    Parcel, Recipient, Vendor,
};
use hongyan_core::{ChannelId, Class, Message, Reason, Timestamp, Verdict};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::answer::{
    accepted, credential_bad, rate_limited, refused, retry_after, token_dead, too_large,
    unavailable, unreadable,
};
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::{ANSWER_BYTES_MAX, Answer, Call, h1};
use crate::jwt::{Minted, Signer};
use crate::token::{self, AccessToken, Fetched, TokenCache, TokenError};
use crate::vendor::{self, Decoded};
use crate::{classes, payload, texts};

const NAME: &str = "huawei";

/// Huawei counts tokens per second, at least 6,000 for an app; excess is answered 503.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: BODY_BYTES_MAX,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 500,
    concurrency: 64,
    ttl_max: Duration::from_secs(15 * 86_400),
    recalls: false,
    receipts: true,
    poll_every: None,
    environments: false,
};

/// Body without the tokens, bytes.
pub(super) const BODY_BYTES_MAX: usize = 4096;
/// Tokens in one request.
pub(super) const TOKENS_MAX: usize = 1000;
pub(super) const ENDPOINT: &str = "https://push-api.cloud.huawei.com";
/// Token endpoint, and the audience of service account JWTs.
const TOKEN_URI: &str = "https://oauth-login.cloud.huawei.com/oauth2/v3/token";
/// A service account JWT lives an hour and is used for 50 minutes.
const JWT_REUSE: Duration = Duration::from_secs(50 * 60);
const JWT_FORCE_PAUSE: Duration = Duration::from_secs(60);

/// Categories that an app can be granted.
pub(super) const CATEGORIES: &[&str] = &[
    "IM",
    "VOIP",
    "MISS_CALL",
    "SUBSCRIPTION",
    "TRAVEL",
    "HEALTH",
    "WORK",
    "ACCOUNT",
    "EXPRESS",
    "FINANCE",
    "DEVICE_REMINDER",
    "MAIL",
    "PLAY_VOICE",
    "MARKETING",
];

/// The service account's key file.
#[derive(Debug)]
pub(super) struct ServiceAccount {
    pub(super) project_id: String,
    key_id: String,
    sub_account: String,
    signer: Signer,
    audience: String,
}

impl ServiceAccount {
    /// Reads the key file, on its own or under `service_account` (as an object or as the file's text).
    pub(super) fn read(outer: &mut Fields<'_>, config: &Value) -> Option<Self> {
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
        let what = "use the service account's JSON file";
        let project_id = fields.checked("project_id", what, path_part);
        let key_id = fields.text("key_id", what);
        let sub_account = fields.text("sub_account", what);
        let signer = fields.checked("private_key", what, Signer::ps256);
        let audience = fields.optional_url("token_uri");
        outer.absorb(fields.finish());
        Some(Self {
            project_id: project_id?,
            key_id,
            sub_account,
            signer: signer?,
            audience: audience.unwrap_or_else(|| TOKEN_URI.to_owned()),
        })
    }

    /// The header value in use: a JWT signed here, with no exchange.
    pub(super) fn authorization(
        &self,
        minted: &Minted,
        now: Timestamp,
    ) -> Option<(HeaderValue, u64)> {
        minted.get(now, || {
            let claims = json!({
                "iss": self.sub_account, "aud": self.audience,
                "iat": now.seconds(), "exp": now.seconds() + 3600,
            });
            let header = json!({"typ": "JWT", "kid": self.key_id});
            let jwt = self.signer.sign(header, &claims)?;
            let mut value = HeaderValue::from_str(&format!("Bearer {jwt}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        })
    }

    /// A place for its JWT.
    pub(super) fn minted() -> Minted {
        Minted::new(JWT_REUSE, JWT_FORCE_PAUSE)
    }
}

/// Ids become part of a path.
pub(super) fn path_part(id: &str) -> Result<String, String> {
    if id
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        Ok(id.to_owned())
    } else {
        Err("has characters that no id has".to_owned())
    }
}

/// What a Huawei credential says about classes, for all API generations.
#[derive(Debug)]
pub(super) struct Rights {
    /// The granted categories; `None` leaves it to Huawei, which treats others as marketing.
    categories: Option<Vec<String>>,
    class_override: bool,
}

impl Rights {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let categories = fields.texts("categories");
        for (i, category) in categories.iter().flatten().enumerate() {
            if !CATEGORIES.contains(&category.as_str()) {
                fields.fault(&format!("categories/{i}"), "is not a category of Huawei");
            }
        }
        Self {
            categories,
            class_override: fields.switch("class_override"),
        }
    }

    /// The category that a message is sent with.
    pub(super) fn category(&self, message: &Message) -> &'static str {
        let wanted = classes::of(message).huawei_category;
        match &self.categories {
            Some(granted) if !granted.iter().any(|c| c == wanted) => "MARKETING",
            _ => wanted,
        }
    }

    /// Whether the sender's own fields may not change the category.
    pub(super) fn fixed(&self, message: &Message) -> bool {
        message.class == Class::Marketing && !self.class_override
    }
}

#[derive(Debug)]
struct Config {
    /// App id or project id, as in the path.
    path: String,
    auth: Auth,
    shown: Shown,
    rights: Rights,
    options: Options,
}

enum Auth {
    OAuth {
        client_id: String,
        secret: hongyan_core::Secret,
    },
    Account(Box<ServiceAccount>),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OAuth { .. } => "OAuth",
            Self::Account(_) => "Account",
        })
    }
}

#[derive(Debug)]
struct Shown {
    app_id: String,
    project_id: Option<String>,
}

/// What an app may add to its credential.
#[derive(Debug, Default)]
struct Options {
    /// Intent URI with `{hy_id}`, `{hy_url}` and `{hy_data}`; a tap opens the app when absent.
    click_intent: Option<String>,
    /// Launcher activity, without which Huawei sets no badge.
    badge_class: Option<String>,
    /// A configured receipt address.
    receipt_id: Option<String>,
    /// Whether all messages are test messages (500 a day).
    test: bool,
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let app_id = fields.checked("app_id", "the app id of AppGallery Connect", path_part);
        let client_id = fields.optional_text("client_id");
        let api = fields.optional_text("api");
        let rights = Rights::read(&mut fields);
        let options = Options {
            click_intent: fields.optional_text("click_intent"),
            badge_class: fields.optional_text("badge_class"),
            receipt_id: fields.optional_text("receipt_id"),
            test: fields.switch("test"),
        };
        let auth = if config.get("client_secret").is_some()
            || config.get("sub_account").is_none() && config.get("service_account").is_none()
        {
            let secret = fields.text(
                "client_secret",
                "the app secret of AppGallery Connect, or use a service account's JSON file",
            );
            let client_id = client_id.or_else(|| app_id.clone()).unwrap_or_default();
            Some(Auth::OAuth {
                client_id,
                secret: hongyan_core::Secret::new(secret),
            })
        } else {
            ServiceAccount::read(&mut fields, config).map(|a| Auth::Account(Box::new(a)))
        };
        let project_id = match &auth {
            Some(Auth::Account(account)) => Some(account.project_id.clone()),
            _ => fields.optional_text("project_id"),
        };
        let version = match (api.as_deref(), &auth) {
            (Some("v1"), _) | (None, Some(Auth::OAuth { .. })) => "v1",
            (Some("v2") | None, _) => "v2",
            _ => {
                fields.fault("api", "must be v1 or v2");
                "v1"
            }
        };
        let id = match (version, &auth, &project_id) {
            ("v2", _, Some(project)) => project.clone(),
            ("v2", _, None) => {
                fields.fault("project_id", "is missing: v2 addresses the project");
                String::new()
            }
            (_, Some(Auth::OAuth { client_id, .. }), _) => client_id.clone(),
            _ => app_id.clone().unwrap_or_default(),
        };
        if let Err(problem) = path_part(&id) {
            fields.fault("client_id", problem);
        }
        let faults = fields.finish();
        match (auth, app_id) {
            (Some(auth), Some(app_id)) if faults.is_empty() => Ok(Self {
                path: format!("/{version}/{id}/messages:send"),
                auth,
                shown: Shown { app_id, project_id },
                rights,
                options,
            }),
            _ => Err(faults),
        }
    }
}

/// A message without its tokens.
struct Encoded {
    body: Value,
    open: String,
}

impl Encoded {
    fn with_tokens(&self, tokens: &[&str]) -> Bytes {
        let list = Value::from(tokens.to_vec()).to_string();
        format!("{},\"token\":{list}}}}}", self.open).into()
    }
}

fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let source = &outbound.message;
    let mut android = Map::new();
    let ttl_s = vendor::ttl(outbound, CAPABILITY.ttl_max).as_secs();
    android.insert("ttl".to_owned(), format!("{ttl_s}s").into());
    android.insert("bi_tag".to_owned(), source.id.to_string().into());
    if let Some(id) = &config.options.receipt_id {
        android.insert("receipt_id".to_owned(), id.as_str().into());
    }
    if config.options.test {
        android.insert("target_user_type".to_owned(), 1.into());
    }
    let data = Value::Object(payload::text_keys(source)).to_string();
    if outbound.title.is_some() || outbound.body.is_some() {
        android.insert("category".to_owned(), config.rights.category(source).into());
        android.insert(
            "notification".to_owned(),
            Value::Object(shown(config, outbound)),
        );
    } else {
        // High urgency needs a right of its own; without it Huawei refuses the whole message.
        android.insert("urgency".to_owned(), "NORMAL".into());
    }
    let mut message = Map::new();
    message.insert("data".to_owned(), data.as_str().into());
    message.insert("android".to_owned(), Value::Object(android));
    let mut body = Map::new();
    body.insert("validate_only".to_owned(), false.into());
    body.insert("message".to_owned(), Value::Object(message));
    merge(&mut body, config, outbound, &data);
    let bytes = Value::Object(body.clone()).to_string().len();
    if bytes > BODY_BYTES_MAX {
        return Err((
            Reason::PayloadTooLarge,
            format!("the body without tokens has {bytes} bytes; Huawei takes {BODY_BYTES_MAX}"),
        ));
    }
    let mut open = "{".to_owned();
    for (key, value) in body.iter().filter(|(key, _)| *key != "message") {
        open.push_str(&format!("{}:{value},", Value::from(key.as_str())));
    }
    let text = body
        .get("message")
        .map(Value::to_string)
        .unwrap_or_default();
    open.push_str("\"message\":");
    open.push_str(text.strip_suffix('}').unwrap_or(&text));
    Ok(Encoded {
        body: Value::Object(body),
        open,
    })
}

fn shown(config: &Config, outbound: &Outbound) -> Map<String, Value> {
    let message = &outbound.message;
    let notification = message.notification.as_ref();
    let (title, text) = texts::title_and_text(outbound);
    let importance = match config.rights.category(message) {
        "MARKETING" => "LOW",
        _ => classes::of(message).huawei_importance,
    };
    // The same number replaces, so a repeated send is shown once.
    let place = message
        .options
        .collapse_key
        .as_ref()
        .unwrap_or(&outbound.dedup_key);
    let mut shown = Map::new();
    shown.insert("title".to_owned(), title.into());
    shown.insert("body".to_owned(), text.into());
    shown.insert("importance".to_owned(), importance.into());
    shown.insert("notify_id".to_owned(), payload::number_of(place).into());
    shown.insert("click_action".to_owned(), click(config, message));
    for (key, value) in [
        ("image", notification.and_then(|n| n.image.as_ref())),
        ("group", notification.and_then(|n| n.group.as_ref())),
        (
            "sound",
            notification
                .and_then(|n| n.sound.as_ref())
                .filter(|s| *s != "default"),
        ),
    ] {
        if let Some(value) = value {
            shown.insert(key.to_owned(), value.as_str().into());
        }
    }
    if let (Some(badge), Some(class)) = (outbound.badge, &config.options.badge_class) {
        let badge = json!({"set_num": badge.min(99), "class": class});
        shown.insert("badge".to_owned(), badge);
    }
    shown
}

fn click(config: &Config, message: &Message) -> Value {
    let Some(template) = &config.options.click_intent else {
        return json!({"type": 3});
    };
    let keys = payload::text_keys(message);
    let mut intent = template.clone();
    for name in ["hy_id", "hy_url", "hy_data", "hy_user"] {
        let value = keys.get(name).and_then(Value::as_str).unwrap_or_default();
        intent = intent.replace(&format!("{{{name}}}"), &texts::escaped(value));
    }
    json!({"type": 1, "intent": intent})
}

fn merge(body: &mut Map<String, Value>, config: &Config, outbound: &Outbound, data: &str) {
    let mut extra = payload::vendor_fields(outbound, NAME);
    if !extra.contains_key("message") {
        extra = Map::from_iter([("message".to_owned(), Value::Object(extra))]);
    }
    let kept = body.clone();
    payload::merge(body, &extra);
    let message = body
        .entry("message")
        .or_insert_with(|| Value::Object(Map::new()));
    let Some(message) = message.as_object_mut() else {
        *body = kept;
        return;
    };
    for target in ["token", "topic", "condition"] {
        message.remove(target);
    }
    message.insert("data".to_owned(), data.into());
    if config.rights.fixed(&outbound.message) {
        let android = message.get_mut("android").and_then(Value::as_object_mut);
        if let Some(android) = android {
            match kept
                .get("message")
                .and_then(|m| m.pointer("/android/category"))
            {
                Some(category) => android.insert("category".to_owned(), category.clone()),
                None => android.remove("category"),
            };
            if let Some(shown) = android
                .get_mut("notification")
                .and_then(Value::as_object_mut)
            {
                shown.insert("importance".to_owned(), "LOW".into());
            }
        }
    }
}

/// The business code of an answer, whatever the HTTP status; empty when there is none.
pub(super) fn code_of(answer: &Answer) -> String {
    text_of(answer, "code")
}

fn text_of(answer: &Answer, name: &str) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match body.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// Whether the access token or JWT in use is to be replaced and the call repeated.
pub(super) fn asks_for_new_token(answer: &Answer) -> bool {
    matches!(
        code_of(answer).as_str(),
        "80200001" | "80200003" | "80200005"
    )
}

/// One table for v1, v2 and v3; what differs is the shape of a partial failure.
pub(super) fn decode(answer: &Answer, now: Timestamp) -> Decoded {
    let code = code_of(answer);
    let msg = text_of(answer, "msg");
    let after = retry_after(&answer.headers, now);
    let request = Some(text_of(answer, "requestId")).filter(|id| !id.is_empty());
    // A message that is JSON names tokens, which do not belong into an event.
    let words = if msg.trim_start().starts_with('{') {
        code.clone()
    } else {
        format!("{code} {msg}")
    };
    Decoded::all(match (code.as_str(), answer.status) {
        ("80000000", _) => accepted(request.as_deref()),
        ("80100000", _) => {
            return Decoded {
                rest: accepted(request.as_deref()),
                named: named(&msg),
            };
        }
        ("80300007", _) => {
            return Decoded {
                rest: token_dead("80300007 all tokens are invalid"),
                named: named(&msg),
            };
        }
        ("80000001" | "80600003" | "81000001", _) => unavailable(after, &words),
        ("80100017" | "80300029", _) => rate_limited(after, &words),
        ("80300008", _) => too_large(&words),
        // Refused after a renewal as well: the clocks differ. It heals without a person once they agree.
        ("80200003" | "80200005", _) => {
            unavailable(after, &format!("{words}: check this machine's clock"))
        }
        (
            "80200001" | "80200006" | "80300002" | "80300036" | "80300037" | "82000012"
            | "82000013",
            _,
        ) => credential_bad(&words),
        (code, _) if code.starts_with("802") => credential_bad(&words),
        (code, _) if !code.is_empty() => refused(&words),
        // No code: Huawei's edge answered. 503 is its flow control.
        (_, 429 | 503) => rate_limited(after, &format!("Huawei answered status {}", answer.status)),
        (_, 500..=599) => unavailable(after, &format!("Huawei answered status {}", answer.status)),
        (_, 401 | 403) => credential_bad(&format!("Huawei answered status {}", answer.status)),
        (_, 404) => {
            credential_bad("Huawei answered status 404: check app_id, project_id and the endpoint")
        }
        (_, 400) => refused("Huawei answered status 400"),
        (_, status) => unreadable(status),
    })
}

/// The tokens that a partial failure names: a list (v1, v2), or lists by reason (v3).
fn named(msg: &str) -> BTreeMap<String, Verdict> {
    let msg: Value = serde_json::from_str(msg).unwrap_or_default();
    let mut named = BTreeMap::new();
    let mut add = |list: &Value, verdict: Verdict| {
        for token in list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            named.insert(token.to_owned(), verdict.clone());
        }
    };
    if let Some(list) = msg.get("illegal_tokens") {
        add(list, token_dead("illegal token"));
    }
    for (reason, list) in msg
        .get("illegalTokens")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        add(list, illegal(reason));
    }
    named
}

/// What the reasons of v3 mean for a token.
fn illegal(reason: &str) -> Verdict {
    match reason {
        "tokenFormatError" | "tokenPlatformNotSupport" | "noRight" => token_dead(reason),
        "disableSendHuaweiMsgBecauseOfPenalty" => credential_bad(reason),
        "appinfoError" => unavailable(None, reason),
        // The token is fine; the message may not be sent to it: noPushTypeRight, countryNotSupport and others.
        _ => refused(reason),
    }
}

/// Deaths that mean a wrong app or project when all tokens of a batch die of them.
pub(super) fn wrong_app(detail: &str) -> bool {
    detail.starts_with("80300007") || detail == "illegal token" || detail == "noRight"
}

/// The vendor.
#[derive(Debug)]
pub struct Huawei {
    egress: Egress,
}

impl Huawei {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Huawei {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        let auth = match &read.auth {
            Auth::OAuth { .. } => "oauth",
            Auth::Account(_) => "service_account",
        };
        Ok(config::shown([
            ("auth", Some(auth.into())),
            ("app_id", Some(read.shown.app_id.into())),
            ("project_id", read.shown.project_id.map(Value::from)),
            ("categories", read.rights.categories.map(Value::from)),
            ("test", read.options.test.then_some(Value::Bool(true))),
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
            token_url: token::moved(TOKEN_URI, endpoint).map_err(unusable)?,
            pool: h1::Pool::new(&self.egress, origin),
            egress: self.egress.clone(),
            config,
            tokens: TokenCache::default(),
            minted: ServiceAccount::minted(),
        }))
    }
}

/// A channel for one app.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    token_url: String,
    pool: h1::Pool,
    tokens: TokenCache,
    minted: Minted,
}

/// What the call was authorized with, to replace it when it is refused.
enum Used {
    Access(AccessToken),
    Minted(u64),
}

impl Sender {
    async fn authorization(&self, until: Instant) -> Result<(HeaderValue, Used), Verdict> {
        let now = self.egress.now();
        match &self.config.auth {
            Auth::OAuth { client_id, secret } => {
                let token = self
                    .tokens
                    .get(now, || self.fetch_token(client_id, secret, until))
                    .await
                    .map_err(|e| e.verdict())?;
                Ok((token.header.clone(), Used::Access(token)))
            }
            Auth::Account(account) => account
                .authorization(&self.minted, now)
                .map(|(value, generation)| (value, Used::Minted(generation)))
                .ok_or_else(|| unavailable(None, "the system's source of chance failed")),
        }
    }

    async fn fetch_token(
        &self,
        client_id: &str,
        secret: &hongyan_core::Secret,
        until: Instant,
    ) -> Result<Fetched, TokenError> {
        let form = texts::form([
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("client_secret", secret.expose_str().unwrap_or_default()),
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
        token::read(&answer, self.egress.now())
    }

    /// One call; repeated once with a new token when Huawei does not take the one in use.
    async fn post(&self, body: Bytes, until: Instant) -> Result<Answer, Verdict> {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json;charset=UTF-8"),
        );
        let mut call = Call {
            method: Method::POST,
            path: self.config.path.clone(),
            headers,
            body,
        };
        let mut first = true;
        loop {
            let (value, used) = self.authorization(until).await?;
            call.headers.insert(AUTHORIZATION, value);
            let answer = self
                .pool
                .call(&call, until)
                .await
                .map_err(|e| e.verdict())?;
            if !(first && asks_for_new_token(&answer)) {
                return Ok(answer);
            }
            first = false;
            match used {
                Used::Access(token) => self.tokens.refused(&token),
                Used::Minted(generation) => self.minted.refused(generation, self.egress.now()),
            }
        }
    }
}

#[async_trait]
impl Channel for Sender {
    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let encoded = encode(&self.config, outbound)?;
        Ok(Parcel {
            method: "POST",
            path: self.config.path.clone(),
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
        let mut verdicts = Vec::with_capacity(batch.recipients.len());
        for part in batch.recipients.chunks(TOKENS_MAX) {
            let decoded = match self
                .post(encoded.with_tokens(&vendor::tokens(part)), until)
                .await
            {
                Ok(answer) => decode(&answer, self.egress.now()),
                Err(verdict) => Decoded::all(verdict),
            };
            verdicts.extend(part.iter().map(|recipient| decoded.of(recipient)));
        }
        vendor::spare_tokens(verdicts, wrong_app)
    }

    /// A message that is checked only, to a token that nobody has: Huawei's complaint about the token proves the
    /// credential.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let body = json!({"validate_only": true, "message": {"data": "{}", "android": {},
                          "token": ["hongyan-credential-check"]}});
        let verdict = match self
            .post(body.to_string().into(), Instant::now() + deadline)
            .await
        {
            Ok(answer) => decode(&answer, self.egress.now()).rest,
            Err(verdict) => verdict,
        };
        checked(&verdict)
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

/// What the verdict on a check message says about the credential.
pub(super) fn checked(verdict: &Verdict) -> CheckReport {
    match verdict {
        Verdict::Accepted { .. } | Verdict::TokenDead { .. } | Verdict::Refused { .. } => {
            CheckReport {
                ok: true,
                detail: "Huawei accepts the credential".to_owned(),
            }
        }
        other => CheckReport {
            ok: false,
            detail: other.detail().to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::fixture;

    fn oauth() -> Value {
        json!({"app_id": "1001", "client_secret": "s3cr3t"})
    }

    fn encoded_with(config: &Value, outbound: &Outbound) -> Result<Value, (Reason, String)> {
        let encoded = encode(&Config::read(config).unwrap(), outbound)?;
        let mut sent: Value = serde_json::from_slice(&encoded.with_tokens(&["a", "b\""])).unwrap();
        let tokens = sent["message"].as_object_mut().unwrap().remove("token");
        assert_eq!(tokens, Some(json!(["a", "b\""])));
        assert_eq!(sent, encoded.body, "what is shown is what is sent");
        Ok(sent)
    }

    fn encoded(outbound: &Outbound) -> Result<Value, (Reason, String)> {
        encoded_with(&oauth(), outbound)
    }

    #[test]
    fn golden_notification() {
        let body = encoded(&fixture::outbound()).unwrap();
        let data: Value = serde_json::from_str(body["message"]["data"].as_str().unwrap()).unwrap();
        assert_eq!(data["hy_id"], "018f0000-0000-7000-8000-000000000001");
        assert_eq!(data["hy_data"], "{\"order\":42}");
        assert_eq!(
            body["message"]["android"],
            json!({
                "category": "EXPRESS", "ttl": "3600s", "bi_tag": "018f0000-0000-7000-8000-000000000001",
                "notification": {
                    "title": "Order 42", "body": "is on its way", "importance": "NORMAL",
                    "click_action": {"type": 3}, "group": "orders",
                    "notify_id": payload::number_of("018f0000-0000-7000-8000-000000000001"),
                },
            })
        );
        assert_eq!(body["validate_only"], false);
    }

    #[test]
    fn golden_data_message() {
        let body = encoded(&fixture::data_only()).unwrap();
        let android = &body["message"]["android"];
        assert!(android.get("notification").is_none() && android.get("category").is_none());
        assert_eq!(android["urgency"], "NORMAL");
        assert!(body["message"]["data"].as_str().unwrap().contains("hy_id"));
    }

    #[test]
    fn options_of_the_credential_shape_the_message() {
        let config = json!({
            "app_id": "1001", "client_secret": "s", "badge_class": "com.example.Main", "test": true, "receipt_id": "r1",
            "click_intent": "intent://x/y#Intent;scheme=app;S.hy_id={hy_id};S.hy_url={hy_url};end",
            "categories": ["IM"],
        });
        let body = encoded_with(&config, &fixture::outbound()).unwrap();
        let android = &body["message"]["android"];
        assert_eq!(android["category"], "MARKETING", "not granted");
        assert_eq!(android["notification"]["importance"], "LOW");
        assert_eq!(android["target_user_type"], 1);
        assert_eq!(android["receipt_id"], "r1");
        assert_eq!(
            android["notification"]["badge"],
            json!({"set_num": 3, "class": "com.example.Main"})
        );
        assert_eq!(
            android["notification"]["click_action"],
            json!({"type": 1, "intent": "intent://x/y#Intent;scheme=app;S.hy_id=018f0000-0000-7000-8000-000000000001;S.hy_url=app%3A%2F%2Forder%2F42;end"})
        );
    }

    #[test]
    fn each_class_has_its_category() {
        use hongyan_core::ClassDetail as D;
        for (class, detail, category) in [
            (Class::Im, None, "IM"),
            (Class::Subscription, None, "SUBSCRIPTION"),
            (Class::Marketing, None, "MARKETING"),
            (Class::Transaction, Some(D::Order), "EXPRESS"),
            (Class::Transaction, Some(D::Account), "ACCOUNT"),
            (Class::Transaction, Some(D::Finance), "FINANCE"),
            (Class::Transaction, Some(D::Schedule), "WORK"),
            (Class::Transaction, Some(D::Device), "DEVICE_REMINDER"),
            (Class::Transaction, Some(D::Work), "WORK"),
            (Class::Transaction, Some(D::Travel), "TRAVEL"),
            (Class::Transaction, Some(D::Health), "HEALTH"),
        ] {
            let mut message = fixture::message();
            (message.class, message.class_detail) = (class, detail);
            let body = encoded(&fixture::of(message)).unwrap();
            assert_eq!(
                body["message"]["android"]["category"], category,
                "{class:?} {detail:?}"
            );
        }
    }

    #[test]
    fn marketing_is_never_upgraded_by_the_sender() {
        let extra = json!({"android": {"category": "IM", "notification": {"importance": "NORMAL"}}, "topic": "x", "data": "{}"});
        let mut outbound = fixture::with_vendor(NAME, &extra);
        let mut message = (*outbound.message).clone();
        message.class = Class::Marketing;
        outbound.message = Arc::new(message);
        let body = encoded(&outbound).unwrap();
        assert_eq!(body["message"]["android"]["category"], "MARKETING");
        assert_eq!(
            body["message"]["android"]["notification"]["importance"],
            "LOW"
        );
        assert!(body["message"].get("topic").is_none());
        assert!(body["message"]["data"].as_str().unwrap().contains("hy_id"));
        let allowed = json!({"app_id": "1001", "client_secret": "s", "class_override": true});
        let body = encoded_with(&allowed, &outbound).unwrap();
        assert_eq!(body["message"]["android"]["category"], "IM");
    }

    #[test]
    fn too_large_is_never_sent() {
        let mut message = fixture::message();
        message.data = json!({"x": "y".repeat(4096)}).as_object().cloned();
        assert_eq!(
            encoded(&fixture::of(message)).unwrap_err().0,
            Reason::PayloadTooLarge
        );
    }

    #[test]
    fn verdict_table() {
        let check = |status: u16, code: &str, want: &str| {
            let body = json!({"code": code, "msg": "m", "requestId": "r"}).to_string();
            let decoded = decode(&fixture::answer(status, &body), fixture::NOW);
            assert_eq!(fixture::words(&decoded.rest), want, "{status} {code}");
        };
        check(200, "80000000", "accepted");
        for code in ["80000001", "81000001", "80600003"] {
            check(500, code, "retry vendor_unavailable not_taken");
        }
        for code in [
            "80100001", "80100002", "80100003", "80100004", "80100013", "80100016", "80100018",
            "80100020", "80100022", "80300010", "80300011", "80300013", "80300017", "80300028",
            "80300030", "80300032", "82000001", "82000007", "82000010", "99999999",
        ] {
            check(400, code, "refused payload_rejected");
            check(200, code, "refused payload_rejected");
        }
        for code in ["80100017", "80300029"] {
            check(200, code, "retry vendor_rate_limited not_taken");
        }
        for code in [
            "80200001", "80200006", "80200099", "80300002", "80300036", "80300037", "82000012",
            "82000013",
        ] {
            check(401, code, "credential_bad");
        }
        for code in ["80200003", "80200005"] {
            check(401, code, "retry vendor_unavailable not_taken");
        }
        check(200, "80300007", "token_dead token_invalid");
        check(200, "80300008", "refused payload_too_large");
        let plain = |status, body, want: &str| {
            let decoded = decode(&fixture::answer(status, body), fixture::NOW);
            assert_eq!(fixture::words(&decoded.rest), want, "{status} {body}");
        };
        plain(503, "", "retry vendor_rate_limited not_taken");
        plain(502, "<html>", "retry vendor_unavailable not_taken");
        plain(500, "", "retry vendor_unavailable not_taken");
        plain(404, "", "credential_bad");
        plain(401, "", "credential_bad");
        plain(400, "", "refused payload_rejected");
        plain(200, "<html>", "retry vendor_unavailable maybe_taken");
    }

    #[test]
    fn a_partial_failure_names_its_tokens() {
        let of = |msg: Value| {
            let body =
                json!({"code": "80100000", "msg": msg.to_string(), "requestId": "r"}).to_string();
            decode(&fixture::answer(200, &body), fixture::NOW)
        };
        let v1 = of(json!({"success": 1, "failure": 1, "illegal_tokens": ["b"]}));
        assert_eq!(fixture::words(&v1.rest), "accepted");
        assert_eq!(fixture::words(&v1.named["b"]), "token_dead token_invalid");
        let v3 = of(json!({"illegalTokens": {
            "tokenFormatError": ["a"], "tokenPlatformNotSupport": ["b"], "noRight": ["c"], "noPushTypeRight": ["d"],
            "notSupportPlayVoice": ["e"], "noRightToSendThisLiveNotificationEvent": ["f"],
            "atomicUnableSendUnsubscribedMsg": ["g"], "differentImgVerifyPolicy": ["h"], "countryNotSupport": ["i"],
            "disableSendHuaweiMsgBecauseOfPenalty": ["j"], "appinfoError": ["k"],
        }}));
        for token in ["a", "b", "c"] {
            assert_eq!(
                fixture::words(&v3.named[token]),
                "token_dead token_invalid",
                "{token}"
            );
        }
        for token in ["d", "e", "f", "g", "h", "i"] {
            assert_eq!(
                fixture::words(&v3.named[token]),
                "refused payload_rejected",
                "{token}"
            );
        }
        assert_eq!(fixture::words(&v3.named["j"]), "credential_bad");
        assert_eq!(
            fixture::words(&v3.named["k"]),
            "retry vendor_unavailable not_taken"
        );
    }

    #[test]
    fn a_batch_of_foreign_tokens_kills_none() {
        let body = json!({"code": "80300007", "msg": "All the tokens are invalid."}).to_string();
        let verdict = decode(&fixture::answer(200, &body), fixture::NOW).rest;
        let few = vendor::spare_tokens(vec![verdict.clone(); 9], wrong_app);
        assert_eq!(fixture::words(&few[0]), "token_dead token_invalid");
        let many = vendor::spare_tokens(vec![verdict; 10], wrong_app);
        assert_eq!(fixture::words(&many[0]), "refused token_environment");
    }

    #[test]
    fn both_ways_of_authentication_are_read() {
        let vendor = Huawei::new(&fixture::egress());
        let shown = vendor.check_config(&oauth()).unwrap();
        assert_eq!(
            Value::Object(shown),
            json!({"auth": "oauth", "app_id": "1001"})
        );
        assert_eq!(
            Config::read(&oauth()).unwrap().path,
            "/v1/1001/messages:send"
        );
        let account = json!({
            "app_id": "1001", "project_id": "7", "key_id": "k", "sub_account": "s",
            "private_key": fixture::RSA_PEM,
        });
        assert_eq!(Config::read(&account).unwrap().path, "/v2/7/messages:send");
        let shown = vendor.check_config(&account).unwrap();
        assert_eq!(
            Value::Object(shown),
            json!({"auth": "service_account", "app_id": "1001", "project_id": "7"})
        );
        let wrapped = json!({"app_id": "1001", "service_account": account, "api": "v1"});
        assert_eq!(
            Config::read(&wrapped).unwrap().path,
            "/v1/1001/messages:send"
        );
        let faults = vendor
            .check_config(&json!({"app_id": "a/b", "categories": ["X"], "api": "v9"}))
            .unwrap_err();
        assert_eq!(
            fixture::paths(&faults),
            ["app_id", "categories/0", "client_secret", "api"]
        );
    }
}
