//! Huawei Push Kit v3 (`harmony`): HarmonyOS 5 ("NEXT") and later.
//!
//! Sources: Huawei developer documentation, HarmonyOS Push Kit references "Scenario-based messages" (request, parameters,
//! responses, frequency control), "Message revoke", "Generating an authentication token from a service account" (read
//! 2026-11).
//!
//! The credential is the service account's JSON file, on its own or under `service_account`. The app may add `client_id`
//! (without which nothing can be recalled), `receipt_id`, `test` (test messages, 1,000 a day), `granted`,
//! `strict_classes`, `categories`, `class_override`, `receipt_user` and `receipt_key` as for `huawei`.
//!
//! Rate: 4,800 devices a second, however many share a request. `limits.rate_per_s` sets another.
//!
//! The scene is an alert (`push-type` 0), or a background message (6) without a text. A sender may choose another with
//! `options.vendor.harmony.push_type`; everything else of `options.vendor.harmony` is merged into the body (`payload`,
//! `pushOptions`). The target and `biTag` cannot be set that way, and a marketing message keeps its category, and cannot
//! be a voice broadcast or a call, unless the credential has `class_override`. Verdicts share the table of `huawei`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, OpenCredential, Outbound, Parcel, QuotaWord, RateCounts,
    Recipient, Vendor,
};
use hongyan_core::{ChannelId, Class, ClassDetail, Message, Reason, Verdict};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::huawei::{
    BODY_BYTES_MAX, ENDPOINT, Receipts, Rights, ServiceAccount, TOKENS_MAX, asks_for_new_token,
    checked, decode, object_at, path_part, wrong_app,
};
use crate::answer::unavailable;
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::{Answer, Call, h1};
use crate::jwt::Minted;
use crate::vendor::{self, Decoded};
use crate::{payload, texts};

const NAME: &str = "harmony";

/// Huawei counts devices that are pushed to per second, at least 6,000 for an app: four fifths of it. Excess is answered 503.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: BODY_BYTES_MAX,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 4_800,
    rate_counts: RateCounts::Devices,
    concurrency: 64,
    ttl_max: Duration::from_secs(15 * 86_400),
    recalls: true,
    receipts: true,
    poll_every: None,
    environments: false,
    repeatable: true,
    quota_word: QuotaWord::AskedAgain,
};

/// Scenes: alert, card, voice broadcast, background, live view, in-app call.
const PUSH_TYPES: &[&str] = &["0", "1", "2", "6", "7", "10"];
/// Tokens in one request that refreshes a card.
const CARD_TOKENS_MAX: usize = 1;
/// Tokens in one request of test messages.
const TEST_TOKENS_MAX: usize = 10;

#[derive(Debug)]
struct Config {
    account: ServiceAccount,
    /// OAuth client id, without which nothing can be recalled.
    client_id: Option<String>,
    receipt_id: Option<String>,
    test: bool,
    rights: Rights,
    receipts: Receipts,
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let client_id = match fields.optional_text("client_id").map(|id| path_part(&id)) {
            None => None,
            Some(Ok(id)) => Some(id),
            Some(Err(problem)) => {
                fields.fault("client_id", problem);
                None
            }
        };
        let receipt_id = fields.optional_text("receipt_id");
        let test = fields.switch("test");
        let rights = Rights::read(&mut fields);
        let receipts = Receipts::read(&mut fields);
        let account = ServiceAccount::read(&mut fields, config);
        let faults = fields.finish_beside("service_account");
        match account {
            Some(account) if faults.is_empty() => Ok(Self {
                account,
                client_id,
                receipt_id,
                test,
                rights,
                receipts,
            }),
            _ => Err(faults),
        }
    }
}

/// A message without its tokens.
struct Encoded {
    push_type: String,
    body: Map<String, Value>,
    downgraded: Option<String>,
}

impl Encoded {
    fn with_tokens(&self, tokens: &[&str]) -> Bytes {
        let mut text = format!(
            "{{\"target\":{{\"token\":{}}}",
            Value::from(tokens.to_vec())
        );
        for (key, value) in &self.body {
            text.push_str(&format!(",{}:{value}", Value::from(key.as_str())));
        }
        text.push('}');
        text.into()
    }
}

fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let mut extra = payload::vendor_fields(outbound, NAME);
    let silent = outbound.title.is_none() && outbound.body.is_none();
    let push_type = match extra.remove("push_type") {
        None => if silent { "6" } else { "0" }.to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text,
        Some(_) => String::new(),
    };
    if !PUSH_TYPES.contains(&push_type.as_str()) {
        return Err((
            Reason::PayloadRejected,
            "vendor.harmony.push_type must be 0, 1, 2, 6, 7 or 10".to_owned(),
        ));
    }
    let message = &outbound.message;
    let marked = config.rights.mark(message)?;
    let fixed = config.rights.fixed(&marked);
    if fixed && matches!(push_type.as_str(), "2" | "10") {
        return Err((
            Reason::PayloadRejected,
            "a marketing message cannot be a voice broadcast or a call: send it as what it is, or set class_override in the credential".to_owned(),
        ));
    }
    let keys = Value::Object(payload::text_keys(message));
    let category = match push_type.as_str() {
        "2" => "PLAY_VOICE",
        _ => marked.marks.huawei_category,
    };
    let scene = match push_type.as_str() {
        "0" => json!({"notification": shown(outbound, category, &keys)}),
        "2" => {
            json!({"notification": shown(outbound, category, &keys), "extraData": keys.to_string()})
        }
        "6" | "10" => json!({"extraData": keys.to_string()}),
        // Cards and live views are described by the sender alone.
        _ => json!({}),
    };
    let mut body = Map::new();
    body.insert("payload".to_owned(), scene);
    body.insert(
        "pushOptions".to_owned(),
        Value::Object(push_options(config, outbound)),
    );
    let kept = body.get("payload").cloned().unwrap_or_default();
    payload::merge(&mut body, &extra);
    body.remove("target");
    let _ = keep(&mut body, &kept, fixed);
    if let Some(options) = object_at(&mut body, "pushOptions") {
        options.insert("biTag".to_owned(), message.id.to_string().into());
    }
    let bytes = Value::Object(body.clone()).to_string().len();
    if bytes > BODY_BYTES_MAX {
        return Err((
            Reason::PayloadTooLarge,
            format!("the body without tokens has {bytes} bytes; Huawei takes {BODY_BYTES_MAX}"),
        ));
    }
    // Only an alert has a category of its own.
    let downgraded = marked.downgraded.filter(|_| push_type == "0");
    Ok(Encoded {
        push_type,
        body,
        downgraded,
    })
}

/// What the sender's own fields may not change: where the message's id is, and the category of marketing.
fn keep(body: &mut Map<String, Value>, kept: &Value, category_too: bool) -> Option<()> {
    let kept = kept.as_object().filter(|k| !k.is_empty())?;
    let payload = object_at(body, "payload")?;
    if let Some(extra_data) = kept.get("extraData") {
        payload.insert("extraData".to_owned(), extra_data.clone());
    }
    let notification = kept.get("notification")?;
    let shown = object_at(payload, "notification")?;
    if category_too {
        let category = notification.get("category")?;
        shown.insert("category".to_owned(), category.clone());
    }
    let data = object_at(object_at(shown, "clickAction")?, "data")?;
    let id = notification.pointer("/clickAction/data/hy_id")?;
    data.insert("hy_id".to_owned(), id.clone());
    Some(())
}

fn push_options(config: &Config, outbound: &Outbound) -> Map<String, Value> {
    let mut options = Map::new();
    let ttl_s = vendor::ttl(outbound, CAPABILITY.ttl_max).as_secs();
    options.insert("ttl".to_owned(), ttl_s.into());
    if let Some(id) = &config.receipt_id {
        options.insert("receiptId".to_owned(), id.as_str().into());
    }
    if config.test {
        options.insert("testMessage".to_owned(), true.into());
    }
    options
}

fn shown(outbound: &Outbound, category: &str, keys: &Value) -> Value {
    let message = &outbound.message;
    let notification = message.notification.as_ref();
    let (title, text) = texts::title_and_text(outbound);
    let mut shown = json!({
        "category": category, "title": title, "body": text,
        "clickAction": {"actionType": 0, "data": keys},
        "notifyId": notify_id(message),
        "appMessageId": message.id.to_string(),
    });
    if let Some(image) = notification.and_then(|n| n.image.as_ref()) {
        shown["image"] = image.as_str().into();
    }
    if let Some(sound) = notification
        .and_then(|n| n.sound.as_ref())
        .filter(|s| *s != "default")
    {
        shown["sound"] = sound.as_str().into();
    }
    if let Some(badge) = outbound.badge {
        shown["badge"] = json!({"setNum": badge.min(99)});
    }
    shown
}

/// The same number replaces, so a repeated send is shown once; recalling needs it too.
fn notify_id(message: &Message) -> u32 {
    match &message.options.collapse_key {
        Some(key) => payload::number_of(key),
        None => payload::number_of(&message.id.to_string()),
    }
}

/// The vendor.
#[derive(Debug)]
pub struct Harmony {
    egress: Egress,
}

impl Harmony {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Harmony {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        let [granted, categories] = read.rights.shown();
        Ok(config::shown([
            ("project_id", Some(read.account.project_id.into())),
            ("client_id", read.client_id.map(Value::from)),
            granted,
            categories,
            ("test", read.test.then_some(Value::Bool(true))),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let endpoint = credential.endpoint.as_deref().unwrap_or(ENDPOINT);
        let origin = Origin::parse(endpoint).map_err(|e| ChannelError::Config {
            detail: e.to_string(),
        })?;
        Ok(Arc::new(Sender {
            path: format!("/v3/{}/messages:send", config.account.project_id),
            pool: h1::Pool::new(&self.egress, origin),
            egress: self.egress.clone(),
            config,
            minted: ServiceAccount::minted(),
        }))
    }
}

/// A channel for one project.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    path: String,
    pool: h1::Pool,
    minted: Minted,
}

impl Sender {
    /// One call; repeated once with a new JWT when Huawei does not take the one in use.
    async fn post(
        &self,
        path: &str,
        push_type: &str,
        body: Bytes,
        until: Instant,
    ) -> Result<Answer, Verdict> {
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json;charset=UTF-8"),
        );
        if let Ok(value) = HeaderValue::from_str(push_type) {
            headers.insert(HeaderName::from_static("push-type"), value);
        }
        let mut call = Call {
            method: Method::POST,
            path: path.to_owned(),
            headers,
            body,
        };
        let mut first = true;
        loop {
            let (value, generation) = self
                .config
                .account
                .authorization(&self.minted, self.egress.now())
                .ok_or_else(|| unavailable(None, "the system's source of chance failed"))?;
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
            self.minted.refused(generation, self.egress.now());
        }
    }

    async fn post_to(
        &self,
        path: &str,
        push_type: &str,
        recipients: &[Recipient],
        body: Bytes,
        until: Instant,
    ) -> Vec<Verdict> {
        let decoded = match self.post(path, push_type, body, until).await {
            Ok(answer) => decode(&answer, self.egress.now()),
            Err(verdict) => Decoded::all(verdict),
        };
        recipients
            .iter()
            .map(|recipient| decoded.of(recipient))
            .collect()
    }
}

#[async_trait]
impl Channel for Sender {
    fn counts_as(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        self.config.rights.counted(class, detail)
    }

    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let encoded = encode(&self.config, outbound)?;
        Ok(Parcel {
            method: "POST",
            path: self.path.clone(),
            headers: vec![("push-type".to_owned(), encoded.push_type)],
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
        let tokens_max = match encoded.push_type.as_str() {
            "1" => CARD_TOKENS_MAX,
            _ if self.config.test => TEST_TOKENS_MAX,
            _ => TOKENS_MAX,
        };
        let mut verdicts = Vec::with_capacity(batch.recipients.len());
        for part in batch.recipients.chunks(tokens_max) {
            let body = encoded.with_tokens(&vendor::tokens(part));
            verdicts.extend(
                self.post_to(&self.path, &encoded.push_type, part, body, until)
                    .await,
            );
        }
        vendor::spare_tokens(verdicts, wrong_app)
    }

    /// A background message to a token that nobody has: Huawei's complaint about the token proves the credential.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let body = json!({"payload": {"extraData": "{}"}, "target": {"token": ["hongyan-credential-check"]},
                          "pushOptions": {"testMessage": true, "ttl": 1}});
        let until = Instant::now() + deadline;
        let verdict = match self
            .post(&self.path, "6", body.to_string().into(), until)
            .await
        {
            Ok(answer) => decode(&answer, self.egress.now()).rest,
            Err(verdict) => verdict,
        };
        checked(&verdict)
    }

    /// Withdraws a shown notification. A message with a collapse key is left alone: its place may show a newer one.
    async fn recall(
        &self,
        message: &Message,
        recipients: &[Recipient],
        deadline: Duration,
    ) -> Option<Vec<Verdict>> {
        let client_id = self.config.client_id.as_ref()?;
        if message.options.collapse_key.is_some() {
            return None;
        }
        let until = Instant::now() + deadline;
        let path = format!("/v1/{client_id}/messages:revoke");
        let id = notify_id(message);
        let mut verdicts = Vec::with_capacity(recipients.len());
        for part in recipients.chunks(TOKENS_MAX) {
            let body = json!({"notifyId": id, "token": vendor::tokens(part)});
            verdicts.extend(
                self.post_to(&path, "0", part, body.to_string().into(), until)
                    .await,
            );
        }
        Some(verdicts)
    }

    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        Some(self.config.receipts.callback(request))
    }
}

#[cfg(test)]
mod tests;
