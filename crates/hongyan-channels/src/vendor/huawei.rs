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
//! | `granted`, `strict_classes` | which classes were granted, and whether others are refused: the classes that the app has the self-classification right for |
//! | `categories` | the same in Huawei's own words: others are sent as `MARKETING`, or not at all with `strict_classes`. Absent: Huawei decides |
//! | `class_override` | whether a sender may give a marketing message another category |
//! | `click_intent` | intent URI for taps with `{hy_id}`, `{hy_url}`, `{hy_data}`, `{hy_user}`; absent: a tap opens the app, which gets `message.data` |
//! | `badge_class` | launcher activity, without which Huawei sets no badge |
//! | `receipt_id`, `test` | a configured receipt address; whether all messages are test messages (500 a day) |
//! | `receipt_user`, `receipt_key` | user name and key of the receipts' signature, as in AppGallery Connect; absent: receipts are believed for the secret in their address alone |
//!
//! `options.vendor.huawei` is merged into `message` (or into the whole body when it has the key `message`); the target
//! and `bi_tag` cannot be set that way, and a marketing message keeps its category unless the credential has
//! `class_override`. Receipts are read by `huawei/receipts.rs`, in both versions. A signed one is refused when it is more than
//! five minutes old or was taken before; an unsigned one that comes again changes nothing.

mod account;
mod receipts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, OpenCredential, Outbound, Parcel, Recipient, Vendor,
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
use crate::classes::{self, Grants, Marks};
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::{ANSWER_BYTES_MAX, Answer, Call, h1};
use crate::jwt::Minted;
use crate::token::{self, AccessToken, Fetched, TokenCache, TokenError};
use crate::vendor::{self, Decoded};
use crate::{payload, texts};

pub(super) use self::account::ServiceAccount;
pub(super) use self::receipts::{Receipts, read_statuses};

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
    repeatable: true,
};

/// Body without the tokens, bytes.
pub(super) const BODY_BYTES_MAX: usize = 4096;
/// Tokens in one request.
pub(super) const TOKENS_MAX: usize = 1000;
pub(super) const ENDPOINT: &str = "https://push-api.cloud.huawei.com";
/// Token endpoint, and the audience of service account JWTs.
const TOKEN_URI: &str = "https://oauth-login.cloud.huawei.com/oauth2/v3/token";

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
    grants: Grants,
    /// The granted categories; `None` leaves it to Huawei, which treats others as marketing.
    categories: Option<Vec<String>>,
    class_override: bool,
}

/// What a message is sent as.
#[derive(Debug)]
pub(super) struct Marked {
    class: Class,
    pub(super) marks: Marks,
    /// Why it is not sent as what it is.
    pub(super) downgraded: Option<String>,
}

impl Rights {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let grants = Grants::read(fields);
        let categories = fields.texts("categories");
        for (i, category) in categories.iter().flatten().enumerate() {
            if !CATEGORIES.contains(&category.as_str()) {
                fields.fault(&format!("categories/{i}"), "is not a category of Huawei");
            }
        }
        Self {
            grants,
            categories,
            class_override: fields.switch("class_override"),
        }
    }

    /// The marks that a message is sent with.
    ///
    /// # Errors
    /// The refusal, when its class was not granted and the credential is strict.
    pub(super) fn mark(&self, message: &Message) -> Result<Marked, (Reason, String)> {
        let (class, downgraded) = self.grants.class_for(message)?;
        let marks = classes::of_class(message, class);
        let category = marks.huawei_category;
        let missing = match &self.categories {
            Some(granted) => class != Class::Marketing && !granted.iter().any(|c| c == category),
            None => false,
        };
        if !missing {
            return Ok(Marked {
                class,
                marks,
                downgraded,
            });
        }
        if self.grants.strict() {
            return Err((
                Reason::ClassNotGranted,
                format!(
                    "{category} is not among the credential's categories and strict_classes is on: apply for the category in AppGallery Connect and add it"
                ),
            ));
        }
        Ok(Marked {
            class: Class::Marketing,
            marks: classes::of_class(message, Class::Marketing),
            downgraded: Some(format!(
                "{category} is not among the credential's categories: sent as MARKETING"
            )),
        })
    }

    /// Whether the sender's own fields may not change the category.
    pub(super) fn fixed(&self, marked: &Marked) -> bool {
        marked.class == Class::Marketing && !self.class_override
    }

    /// For people.
    pub(super) fn shown(&self) -> [(&'static str, Option<Value>); 2] {
        let categories = self.categories.as_ref();
        [
            ("granted", self.grants.shown()),
            (
                "categories",
                categories.map(|c| c.iter().map(String::as_str).collect()),
            ),
        ]
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
    receipts: Receipts,
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
        let receipts = Receipts::read(&mut fields);
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
                receipts,
            }),
            _ => Err(faults),
        }
    }
}

/// A message without its tokens.
struct Encoded {
    body: Value,
    open: String,
    downgraded: Option<String>,
}

impl Encoded {
    fn with_tokens(&self, tokens: &[&str]) -> Bytes {
        let list = Value::from(tokens.to_vec()).to_string();
        format!("{},\"token\":{list}}}}}", self.open).into()
    }
}

fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let source = &outbound.message;
    let mut marked = config.rights.mark(source)?;
    let mut android = Map::new();
    let ttl_s = vendor::ttl(outbound, CAPABILITY.ttl_max).as_secs();
    android.insert("ttl".to_owned(), format!("{ttl_s}s").into());
    if let Some(id) = &config.options.receipt_id {
        android.insert("receipt_id".to_owned(), id.as_str().into());
    }
    if config.options.test {
        android.insert("target_user_type".to_owned(), 1.into());
    }
    let data = Value::Object(payload::text_keys(source)).to_string();
    if outbound.title.is_some() || outbound.body.is_some() {
        let shown = shown(config, outbound, &marked.marks);
        android.insert("category".to_owned(), marked.marks.huawei_category.into());
        android.insert("notification".to_owned(), Value::Object(shown));
    } else {
        // Without a text there is no category.
        marked.downgraded = None;
        // High urgency needs a right of its own; without it Huawei refuses the whole message.
        android.insert("urgency".to_owned(), "NORMAL".into());
    }
    let mut message = Map::new();
    message.insert("data".to_owned(), data.as_str().into());
    message.insert("android".to_owned(), Value::Object(android));
    let mut body = Map::new();
    body.insert("validate_only".to_owned(), false.into());
    body.insert("message".to_owned(), Value::Object(message));
    let fixed = config.rights.fixed(&marked);
    merge(&mut body, outbound, &data, fixed);
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
        downgraded: marked.downgraded,
    })
}

fn shown(config: &Config, outbound: &Outbound, marks: &Marks) -> Map<String, Value> {
    let message = &outbound.message;
    let notification = message.notification.as_ref();
    let (title, text) = texts::title_and_text(outbound);
    // The same number replaces, so a repeated send is shown once.
    let place = message
        .options
        .collapse_key
        .as_ref()
        .unwrap_or(&outbound.dedup_key);
    let mut shown = Map::new();
    shown.insert("title".to_owned(), title.into());
    shown.insert("body".to_owned(), text.into());
    shown.insert("importance".to_owned(), marks.huawei_importance.into());
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
    let intent = payload::intent(template, message);
    json!({"type": 1, "intent": intent})
}

fn merge(body: &mut Map<String, Value>, outbound: &Outbound, data: &str, fixed: bool) {
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
    let Some(android) = object_at(message, "android") else {
        return;
    };
    android.insert("bi_tag".to_owned(), outbound.message.id.to_string().into());
    if fixed {
        let category = kept
            .get("message")
            .and_then(|m| m.pointer("/android/category"));
        match category {
            Some(category) => android.insert("category".to_owned(), category.clone()),
            None => android.remove("category"),
        };
        let shown = android.get_mut("notification");
        if let Some(shown) = shown.and_then(Value::as_object_mut) {
            shown.insert("importance".to_owned(), "LOW".into());
        }
    }
}

/// The object under a key; whatever else is there gives way.
pub(super) fn object_at<'a>(
    parent: &'a mut Map<String, Value>,
    key: &str,
) -> Option<&'a mut Map<String, Value>> {
    let place = parent.entry(key).or_insert(Value::Null);
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut()
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
        let [granted, categories] = read.rights.shown();
        Ok(config::shown([
            ("auth", Some(auth.into())),
            ("app_id", Some(read.shown.app_id.into())),
            ("project_id", read.shown.project_id.map(Value::from)),
            granted,
            categories,
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
                let fetch = || self.fetch_token(client_id, secret, until);
                let token = self.tokens.get_until(now, until, fetch).await?;
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

    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        Some(self.config.receipts.callback(request))
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
mod tests;
