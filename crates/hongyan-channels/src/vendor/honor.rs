//! Honor Push (`honor`): Honor phones with Magic UI 4.0 and later.
//!
//! Sources: developer.honor.com, cn/docs/11002 (reference/downlink-message, guides/notification-class,
//! guides/notification-push-standards, guides/kit-history), and what public clients repeat of them (read 2026-11).
//! Unverified, and therefore settings of the credential: how many tokens one request takes, the size of the body, the
//! lengths of title and text, the path of the token endpoint, and what the numbers in receipts mean. Business codes
//! could only be read in part; those of Huawei's shape are understood as Huawei means them.
//!
//! Rate: 2,400 requests a second. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `app_id` | the App ID of the console; the path has it |
//! | `client_id`, `client_secret` | the OAuth client of the push page; not the App Secret |
//! | `granted`, `strict_classes` | which classes were granted, and whether others are refused; Honor has one right for all service classes |
//! | `class_override` | whether a sender may give a marketing message the importance of a service message |
//! | `click_intent` | intent URI for taps with `{hy_id}`, `{hy_url}`, `{hy_data}`, `{hy_user}`; absent: a tap opens the app, which gets `data` |
//! | `badge_class` | full name of the launcher activity, without which no badge is set |
//! | `test` | whether all messages are test messages (1,000 a day, outside the marketing limit) |
//! | `push_url`, `token_url` | the send host and the token endpoint, when not the usual ones (`…hihonor.com`, `/auth/realms/developer/protocol/openid-connect/token`); the credential's endpoint stands in for both hosts |
//! | `batch` | tokens in one request, 500 when absent, at most 1,000 |
//! | `title_chars_max`, `text_chars_max`, `body_bytes_max` | 40, 256 and 4,096 when absent |
//! | `receipt_statuses` | the meaning of receipt numbers that differ from the table below: `{"102": "quota_exhausted"}`, one of `delivered`, `token_invalid`, `permission_off`, `unreachable`, `collapsed`, `quota_exhausted`, `other` |
//!
//! Receipts: enter the credential's callback address in Honor's console. They are read as Huawei's first version: 0
//! delivered, 2 and 5 token invalid, 6 switched off, 10 unreachable, 15 collapsed, 102 and 201 quota. Honor signs nothing: the secret of the address proves a post, and one that comes again
//! changes nothing.
//!
//! `options.vendor.honor` is merged into the body. The target, `data` and `biTag` cannot be set that way, and a marketing
//! message keeps its importance unless the credential has `class_override`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, OpenCredential, Outbound, Parcel, QuotaWord, RateCounts,
    Receipt, ReceiptKind, Recipient, Truncation, Vendor,
};
use hongyan_core::{ChannelId, Class, ClassDetail, Message, Reason, Secret, Timestamp, Verdict};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::huawei::{path_part, read_statuses};
use crate::answer::{
    accepted, mend, rate_limited, refused, retry_after, token_dead, too_large, unavailable,
    unreadable,
};
use crate::classes::{self, Grants};
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::{ANSWER_BYTES_MAX, Answer, Call, h1};
use crate::token::{self, AccessToken, Fetched, TokenCache, TokenError};
use crate::vendor::{self, Decoded};
use crate::{payload, texts};

const NAME: &str = "honor";

/// 3,000 requests a second for every app.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: BODY_BYTES_MAX,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 2400,
    rate_counts: RateCounts::Requests,
    concurrency: 64,
    ttl_max: Duration::from_secs(15 * 86_400),
    recalls: false,
    receipts: true,
    poll_every: None,
    environments: false,
    repeatable: true,
    quota_word: QuotaWord::AskedAgain,
};

const PUSH_URL: &str = "https://push-api.cloud.honor.com";
const TOKEN_URL: &str = "https://iam.developer.honor.com/auth/token";
/// Body without the tokens, bytes.
const BODY_BYTES_MAX: usize = 4096;
/// Tokens in one request: the most, and what is sent when the credential says nothing.
const TOKENS_MAX: usize = 1000;
const BATCH: u64 = 500;
/// Title and text, characters.
const TITLE_CHARS: u64 = 40;
const TEXT_CHARS: u64 = 256;
/// Length of a device token, characters.
const TOKEN_CHARS: std::ops::RangeInclusive<usize> = 16..=512;
/// What the vendor's callbacks want to hear.
const HEARD: &str = r#"{"code":"0","message":"success"}"#;

/// What the console shows for an app, and the settings.
#[derive(Debug)]
struct Config {
    app_id: String,
    client_id: String,
    client_secret: Secret,
    grants: Grants,
    class_override: bool,
    click_intent: Option<String>,
    badge_class: Option<String>,
    test: bool,
    push_url: String,
    token_url: String,
    batch: usize,
    title_chars_max: usize,
    text_chars_max: usize,
    body_bytes_max: usize,
    statuses: BTreeMap<i64, ReceiptKind>,
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let app_id = fields.checked("app_id", "the App ID of the console", path_part);
        let client_id = fields.text("client_id", "the Client ID of the push page");
        let client_secret = fields.text(
            "client_secret",
            "the Client Secret of the push page, not the App Secret",
        );
        let grants = Grants::read(&mut fields);
        let mut number = |name, usual, most| {
            let found = fields.value(name).map_or(Some(usual), Value::as_u64);
            let found = found.filter(|n| (1..=most).contains(n));
            if found.is_none() {
                fields.fault(name, format!("must be a number from 1 to {most}"));
            }
            usize::try_from(found.unwrap_or(usual)).unwrap_or(TOKENS_MAX)
        };
        let batch = number("batch", BATCH, TOKENS_MAX as u64);
        let title_chars_max = number("title_chars_max", TITLE_CHARS, 1024);
        let text_chars_max = number("text_chars_max", TEXT_CHARS, 4096);
        let body_bytes_max = number("body_bytes_max", BODY_BYTES_MAX as u64, 65_536);
        let class_override = fields.switch("class_override");
        let test = fields.switch("test");
        let click_intent = fields.optional_text("click_intent");
        let badge_class = fields.optional_text("badge_class");
        let push_url = fields.optional_url("push_url");
        let token_url = fields.optional_url("token_url");
        let statuses = statuses(&mut fields);
        // Of use to clients only.
        for name in ["app_secret", "package"] {
            fields.optional_text(name);
        }
        let faults = fields.finish_strict();
        match app_id {
            Some(app_id) if faults.is_empty() => Ok(Self {
                app_id,
                client_id,
                client_secret: Secret::new(client_secret),
                grants,
                class_override,
                click_intent,
                badge_class,
                test,
                push_url: push_url.unwrap_or_else(|| PUSH_URL.to_owned()),
                token_url: token_url.unwrap_or_else(|| TOKEN_URL.to_owned()),
                batch,
                title_chars_max,
                text_chars_max,
                body_bytes_max,
                statuses,
            }),
            _ => Err(faults),
        }
    }

    fn path(&self) -> String {
        format!("/api/v1/{}/sendMessage", self.app_id)
    }
}

/// The meaning of the numbers in receipts, with what the credential says of them.
fn statuses(fields: &mut Fields<'_>) -> BTreeMap<i64, ReceiptKind> {
    let mut statuses = BTreeMap::from([
        (0, ReceiptKind::Delivered),
        (2, ReceiptKind::TokenInvalid),
        (5, ReceiptKind::TokenInvalid),
        (6, ReceiptKind::PermissionOff),
        (10, ReceiptKind::Failed(Reason::NoChannel)),
        (15, ReceiptKind::Failed(Reason::Collapsed)),
        (102, ReceiptKind::Failed(Reason::QuotaExhausted)),
        (201, ReceiptKind::Failed(Reason::QuotaExhausted)),
    ]);
    let Some(value) = fields.value("receipt_statuses") else {
        return statuses;
    };
    let Some(object) = value.as_object() else {
        fields.fault("receipt_statuses", "must map numbers to meanings");
        return statuses;
    };
    for (number, meaning) in object {
        let kind = match meaning.as_str().unwrap_or_default() {
            "delivered" => Some(ReceiptKind::Delivered),
            "token_invalid" => Some(ReceiptKind::TokenInvalid),
            "permission_off" => Some(ReceiptKind::PermissionOff),
            "unreachable" => Some(ReceiptKind::Failed(Reason::NoChannel)),
            "collapsed" => Some(ReceiptKind::Failed(Reason::Collapsed)),
            "quota_exhausted" => Some(ReceiptKind::Failed(Reason::QuotaExhausted)),
            "other" => Some(ReceiptKind::Other),
            _ => None,
        };
        match (number.parse(), kind) {
            (Ok(number), Some(kind)) => {
                statuses.insert(number, kind);
            }
            _ => fields.fault(
                &format!("receipt_statuses/{number}"),
                "must be a number with delivered, token_invalid, permission_off, unreachable, collapsed, quota_exhausted or other",
            ),
        }
    }
    statuses
}

/// A message without its tokens.
struct Encoded {
    body: Map<String, Value>,
    truncated: Vec<Truncation>,
    downgraded: Option<String>,
}

impl Encoded {
    fn with_tokens(&self, tokens: &[&str]) -> Bytes {
        let mut text = format!("{{\"token\":{}", Value::from(tokens.to_vec()));
        for (key, value) in &self.body {
            text.push_str(&format!(",{}:{value}", Value::from(key.as_str())));
        }
        text.push('}');
        text.into()
    }
}

fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let message = &outbound.message;
    let (class, downgraded) = config.grants.class_for(message)?;
    let importance = classes::of_class(message, class).honor_importance;
    let data = Value::Object(payload::text_keys(message)).to_string();
    let mut truncated = Vec::new();
    let mut android = Map::new();
    let ttl_s = vendor::ttl(outbound, CAPABILITY.ttl_max).as_secs();
    android.insert("ttl".to_owned(), format!("{ttl_s}s").into());
    if config.test {
        android.insert("targetUserType".to_owned(), 1.into());
    }
    let visible = outbound.title.is_some() || outbound.body.is_some();
    if visible {
        let shown = shown(config, outbound, importance, &mut truncated);
        android.insert("notification".to_owned(), Value::Object(shown));
    }
    let mut body = Map::from_iter([("android".to_owned(), Value::Object(android))]);
    payload::merge(&mut body, &payload::vendor_fields(outbound, NAME));
    let fixed = class == Class::Marketing && !config.class_override;
    keep(&mut body, message, data, fixed.then_some(importance));
    let bytes = Value::Object(body.clone()).to_string().len();
    if bytes > config.body_bytes_max {
        return Err((
            Reason::PayloadTooLarge,
            format!(
                "the body without tokens has {bytes} bytes; Honor takes {}",
                config.body_bytes_max
            ),
        ));
    }
    Ok(Encoded {
        body,
        truncated,
        downgraded: downgraded.filter(|_| visible),
    })
}

/// What the sender's own fields may not change: the target, what names the message, and the importance of marketing.
fn keep(body: &mut Map<String, Value>, message: &Message, data: String, importance: Option<&str>) {
    body.remove("token");
    body.insert("data".to_owned(), data.into());
    let android = body.entry("android").or_insert(Value::Null);
    if !android.is_object() {
        *android = json!({});
    }
    let Some(android) = android.as_object_mut() else {
        return;
    };
    // It would take the place of `data`.
    android.remove("data");
    android.insert("biTag".to_owned(), message.id.to_string().into());
    let shown = android.get_mut("notification");
    if let (Some(importance), Some(shown)) = (importance, shown.and_then(Value::as_object_mut)) {
        shown.insert("importance".to_owned(), importance.into());
    }
}

fn shown(
    config: &Config,
    outbound: &Outbound,
    importance: &str,
    truncated: &mut Vec<Truncation>,
) -> Map<String, Value> {
    let message = &outbound.message;
    let notification = message.notification.as_ref();
    let (title, text) = texts::title_and_text(outbound);
    // The same number replaces, so a repeated send is shown once.
    let place = message
        .options
        .collapse_key
        .as_ref()
        .unwrap_or(&outbound.dedup_key);
    let click = match &config.click_intent {
        Some(template) => json!({"type": 1, "intent": payload::intent(template, message)}),
        None => json!({"type": 3}),
    };
    let title = texts::shorten("title", title, config.title_chars_max, truncated);
    let text = texts::shorten("body", text, config.text_chars_max, truncated);
    let mut shown = Map::from_iter([
        ("title".to_owned(), title.into()),
        ("body".to_owned(), text.into()),
        ("importance".to_owned(), importance.into()),
        ("notifyId".to_owned(), payload::number_of(place).into()),
        ("clickAction".to_owned(), click),
    ]);
    // Honor shows pictures with service messages alone, and takes https addresses alone.
    let image = notification.and_then(|n| n.image.as_deref());
    if let Some(image) = image.filter(|i| importance == "NORMAL" && i.starts_with("https://")) {
        shown.insert("image".to_owned(), image.into());
    }
    if let Some(group) = notification.and_then(|n| n.group.as_deref()) {
        shown.insert("group".to_owned(), group.into());
    }
    if let (Some(badge), Some(class)) = (outbound.badge, &config.badge_class) {
        let badge = json!({"setNum": badge.min(99), "badgeClass": class});
        shown.insert("badge".to_owned(), badge);
    }
    shown
}

/// The business code of an answer as text; empty when there is none.
fn code_of(body: &Value) -> String {
    match body.get("code") {
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// Whether the access token in use is to be replaced and the call repeated.
fn asks_for_new_token(answer: &Answer) -> bool {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = code_of(&body);
    answer.status == 401 || matches!(code.as_str(), "401" | "80200001" | "80200003")
}

/// Whether Honor wants fewer tokens in one request.
fn asks_for_fewer_tokens(answer: &Answer) -> bool {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    code_of(&body) == "80300010"
}

pub(super) fn decode(answer: &Answer, now: Timestamp) -> Decoded {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let code = code_of(&body);
    let said = match text("message") {
        "" => text("msg"),
        said => said,
    };
    let words = format!("{code} {said}");
    let after = retry_after(&answer.headers, now);
    let status_words = format!("Honor answered status {}", answer.status);
    Decoded::all(match (code.as_str(), answer.status) {
        ("200" | "0" | "80000000" | "80100000", 200..=299) => return taken(&body, &words),
        ("80300007", _) => token_dead("80300007 all tokens are invalid"),
        ("80300008" | "413", _) => too_large(&words),
        ("80300010", _) => refused(&format!("{words}: lower batch in the credential")),
        ("80200001" | "80200003" | "401", _) => mend(
            &words,
            "check client_id and client_secret (not the App Secret)",
        ),
        ("80300002" | "403", _) => mend(
            &words,
            "the app has no right to push, or app_id is not of this client_id",
        ),
        ("404", _) => mend(&words, "check app_id"),
        // Honor has no code for it, but a word: the message is good, and the clocks differ.
        ("400" | "80100001" | "80100003", _) if said.contains("timestamp") => {
            unavailable(after, &format!("{words}: check this machine's clock"))
        }
        ("400" | "80100001" | "80100003", _) => refused(&words),
        (code, _) if code.len() == 5 && code.starts_with("400") => refused(&words),
        ("429" | "503", _) => rate_limited(after, &words),
        ("500" | "502" | "504" | "81000001", _) => unavailable(after, &words),
        (_, 400) => refused(&status_words),
        (_, 401) => mend(
            &status_words,
            "check client_id and client_secret (not the App Secret)",
        ),
        (_, 403) => mend(
            &status_words,
            "the app has no right to push, or app_id is not of this client_id",
        ),
        (_, 404) => mend(&status_words, "check app_id and the endpoint"),
        (_, 413) => too_large(&status_words),
        (_, 429 | 503) => rate_limited(after, &status_words),
        (_, 500..=599) => unavailable(after, &status_words),
        (_, 402..=499) => refused(&status_words),
        // A code that no table has: another try is the best that can be done.
        (code, _) if !code.is_empty() => unavailable(after, &words),
        (_, status) => unreadable(status),
    })
}

/// An answer of success, with the tokens that it takes out.
fn taken(body: &Value, words: &str) -> Decoded {
    let data = body.get("data").unwrap_or(&Value::Null);
    let mut named = BTreeMap::new();
    let mut add = |list: &str, verdict: &Verdict| {
        let tokens = data.get(list).and_then(Value::as_array);
        for token in tokens.into_iter().flatten().filter_map(Value::as_str) {
            named.insert(token.to_owned(), verdict.clone());
        }
    };
    add(
        "failTokens",
        &refused(&format!(
            "failTokens: Honor could not send to this token, and says of the whole: {words}; when all fail, check that the tokens come from this app"
        )),
    );
    add(
        "expireTokens",
        &token_dead("expireTokens: expired or not registered"),
    );
    let rest = if data.get("sendResult") == Some(&Value::Bool(false)) && named.is_empty() {
        unavailable(None, "sendResult is false, and no token is named")
    } else {
        accepted(data.get("requestId").and_then(Value::as_str))
    };
    Decoded { rest, named }
}

/// Deaths that mean a wrong app when all tokens of a batch die of them.
fn wrong_app(detail: &str) -> bool {
    detail.starts_with("80300007") || detail.starts_with("expireTokens")
}

/// A token as Honor's phones have them.
fn is_token(token: &str) -> bool {
    TOKEN_CHARS.contains(&token.len())
        && token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._:=+/-".contains(&b))
}

/// Reads a post of receipts.
fn receipts(config: &Config, body: &[u8]) -> Result<Vec<Receipt>, CallbackError> {
    read_statuses(body, |status| {
        let known = config.statuses.get(&status);
        known.copied().unwrap_or(ReceiptKind::Other)
    })
}

/// The vendor.
#[derive(Debug)]
pub struct Honor {
    egress: Egress,
}

impl Honor {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Honor {
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
            ("client_id", Some(read.client_id.into())),
            ("granted", read.grants.shown()),
            ("test", read.test.then_some(Value::Bool(true))),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let endpoint = credential.endpoint.as_deref();
        let unusable = |e: crate::CallError| ChannelError::Config {
            detail: e.to_string(),
        };
        let origin = Origin::parse(endpoint.unwrap_or(&config.push_url)).map_err(unusable)?;
        Ok(Arc::new(Sender {
            token_url: token::moved(&config.token_url, endpoint).map_err(unusable)?,
            pool: h1::Pool::new(&self.egress, origin),
            egress: self.egress.clone(),
            config,
            tokens: TokenCache::default(),
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
}

impl Sender {
    async fn authorization(&self, until: Instant) -> Result<AccessToken, Verdict> {
        let fetch = || self.fetch_token(until);
        self.tokens.get_until(self.egress.now(), until, fetch).await
    }

    async fn fetch_token(&self, until: Instant) -> Result<Fetched, TokenError> {
        let form = texts::form([
            ("grant_type", "client_credentials"),
            ("client_id", self.config.client_id.as_str()),
            (
                "client_secret",
                self.config.client_secret.expose_str().unwrap_or_default(),
            ),
        ]);
        let call = token::form_call(form);
        let mut answer = self
            .egress
            .fetch(&self.token_url, call, ANSWER_BYTES_MAX, until)
            .await?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let error = body.get("error").and_then(Value::as_str);
        // Honor's words count, whichever status they come with.
        if answer.status != 200
            && matches!(
                error,
                Some("unauthorized_client" | "invalid_client" | "invalid_grant")
            )
        {
            answer.status = 401;
        }
        token::read(&answer, self.egress.now())
    }

    /// One call; repeated once with a new token when Honor does not take the one in use.
    async fn post(&self, body: Bytes, until: Instant) -> Result<Answer, Verdict> {
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=UTF-8"),
        );
        let mut call = Call {
            method: Method::POST,
            path: self.config.path(),
            headers,
            body,
        };
        let mut first = true;
        loop {
            let token = self.authorization(until).await?;
            call.headers.insert(AUTHORIZATION, token.header.clone());
            if let Ok(now) = HeaderValue::from_str(&self.egress.now().millis().to_string()) {
                call.headers
                    .insert(HeaderName::from_static("timestamp"), now);
            }
            let answer = self
                .pool
                .call(&call, until)
                .await
                .map_err(|e| e.verdict())?;
            if !(first && asks_for_new_token(&answer)) {
                return Ok(answer);
            }
            first = false;
            self.tokens.refused(&token);
        }
    }

    /// One request; in halves when Honor wants fewer tokens, down to one.
    async fn send_part(
        &self,
        encoded: &Encoded,
        part: &[Recipient],
        until: Instant,
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(part.len());
        let mut waiting = vec![part];
        while let Some(part) = waiting.pop() {
            let tokens: Vec<&str> = vendor::tokens(part)
                .into_iter()
                .filter(|t| is_token(t))
                .collect();
            let decoded = if tokens.is_empty() {
                Decoded::all(refused("no token"))
            } else {
                match self.post(encoded.with_tokens(&tokens), until).await {
                    Ok(answer) if tokens.len() > 1 && asks_for_fewer_tokens(&answer) => {
                        let (now, later) = part.split_at(part.len() / 2);
                        waiting.extend([later, now]);
                        continue;
                    }
                    Ok(answer) => decode(&answer, self.egress.now()),
                    Err(verdict) => Decoded::all(verdict),
                }
            };
            let malformed = Verdict::no_token("one of Honor's");
            verdicts.extend(part.iter().map(|recipient| {
                match recipient.token.expose_str().is_some_and(is_token) {
                    true => decoded.of(recipient),
                    false => malformed.clone(),
                }
            }));
        }
        verdicts
    }
}

#[async_trait]
impl Channel for Sender {
    fn requests(&self, devices: usize) -> usize {
        devices.div_ceil(self.config.batch.max(1))
    }

    fn counts_as(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        self.config.grants.counted(class, detail)
    }

    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let encoded = encode(&self.config, outbound)?;
        Ok(Parcel {
            method: "POST",
            path: self.config.path(),
            headers: Vec::new(),
            body: Value::Object(encoded.body),
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
        for part in batch.recipients.chunks(self.config.batch) {
            verdicts.extend(self.send_part(&encoded, part, until).await);
        }
        vendor::spare_tokens(verdicts, wrong_app)
    }

    /// A test message without a text to a token that nobody has: Honor's complaint about the token proves the credential.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let body = json!({"data": "{}", "android": {"ttl": "1s", "targetUserType": 1},
                          "token": ["hongyan-credential-check"]});
        let until = Instant::now() + deadline;
        let verdict = match self.post(body.to_string().into(), until).await {
            Ok(answer) => decode(&answer, self.egress.now()).rest,
            Err(verdict) => verdict,
        };
        match verdict {
            Verdict::Accepted { .. } | Verdict::TokenDead { .. } | Verdict::Refused { .. } => {
                CheckReport {
                    ok: true,
                    detail: "Honor accepts the credential".to_owned(),
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

    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        Some(
            receipts(&self.config, request.body).map(|receipts| Callback {
                receipts,
                signed: false,
                content_type: "application/json",
                body: HEARD.to_owned(),
            }),
        )
    }
}

#[cfg(test)]
mod tests;
