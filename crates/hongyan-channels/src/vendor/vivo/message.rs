//! A message as vivo takes it.

use hongyan_core::port::{Outbound, Truncation};
use hongyan_core::{Class, Message, Reason, Timestamp};
use serde_json::{Map, Value, json};

use super::credential::Config;
use super::{
    CUSTOM_CHARS_MAX, CUSTOM_PAIRS_MAX, NAME, PUBLIC_CATEGORIES, SKIP_CHARS_MAX, TEXT_MAX,
    TITLE_MAX, TTL_MAX, TTL_MIN,
};
use crate::stored::life_step;
use crate::{classes, payload, texts, vendor};

const DAY_MS: i64 = 86_400_000;
const BEIJING_MS: i64 = 8 * 3_600_000;

/// A message without its target.
#[derive(Debug)]
pub(super) struct Encoded {
    /// Body of a single send, without target and request id.
    pub(super) body: Map<String, Value>,
    pub(super) message: String,
    pub(super) truncated: Vec<Truncation>,
    pub(super) downgraded: Option<String>,
}

impl Encoded {
    pub(super) fn single(&self, token: &str) -> Value {
        let mut body = self.body.clone();
        body.insert("regId".to_owned(), token.into());
        body.insert("requestId".to_owned(), self.request_id(token).into());
        Value::Object(body)
    }

    /// The body of a list: receipts V1 are for single sends.
    pub(super) fn content(&self) -> Map<String, Value> {
        let mut body = self.body.clone();
        let v1 = body
            .get("extra")
            .is_some_and(|e| e.get("callback").is_some());
        if v1 {
            body.remove("extra");
        }
        body.remove("profileId");
        body
    }

    /// What makes two contents the same: everything, about how much of the life is left, and the day in Beijing.
    pub(super) fn content_key(&self, now: Timestamp) -> Vec<u8> {
        let mut body = self.content();
        let life = body.remove("timeToLive").and_then(|ttl| ttl.as_u64());
        let (left, step) = life_step(life.unwrap_or_default());
        body.insert("timeToLive".to_owned(), format!("{left}x{step}").into());
        let day = (now.millis().saturating_add(BEIJING_MS)).div_euclid(DAY_MS);
        body.insert("day".to_owned(), day.into());
        Value::Object(body).to_string().into_bytes()
    }

    /// The same request again has the same id.
    pub(super) fn request_id(&self, targets: &str) -> String {
        payload::short_hash(&format!("{}\n{targets}", self.message), 16)
    }

    pub(super) fn test(&self) -> bool {
        self.body.get("pushMode").and_then(Value::as_i64) == Some(1)
    }
}

pub(super) fn encode(
    config: &Config,
    callback: Option<&str>,
    outbound: &Outbound,
) -> Result<Encoded, (Reason, String)> {
    let message = &outbound.message;
    if outbound.title.is_none() && outbound.body.is_none() {
        return Err((
            Reason::PayloadRejected,
            "vivo takes notifications only: give the message a notification".to_owned(),
        ));
    }
    let (class, downgraded) = config.grants.class_for(message)?;
    let marks = classes::of_class(message, class);
    let mut truncated = Vec::new();
    let (title, text) = texts::title_and_text(outbound);
    let shorten = match config.half_widths {
        true => texts::shorten_half_widths,
        false => texts::shorten,
    };
    // The same number replaces, so a repeated send is shown once.
    let place = message
        .options
        .collapse_key
        .as_ref()
        .unwrap_or(&outbound.dedup_key);
    let mut body = Map::new();
    let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
    set("appId", config.app_id.into());
    set(
        "title",
        shorten("title", title, TITLE_MAX, &mut truncated).into(),
    );
    set(
        "content",
        shorten("body", text, TEXT_MAX, &mut truncated).into(),
    );
    set("notifyType", if marks.sounds { 4 } else { 1 }.into());
    let ttl = vendor::ttl(outbound, TTL_MAX).max(TTL_MIN);
    set("timeToLive", ttl.as_secs().into());
    set("classification", marks.vivo_classification.into());
    let category = match class {
        Class::Marketing => config.marketing_category,
        _ => marks.vivo_category,
    };
    set("category", category.into());
    set("notifyId", payload::number_of(place).max(1).into());
    match &config.click_intent {
        None => {
            set("skipType", 1.into());
        }
        Some(template) => {
            let intent = intent(template, message);
            let size = intent.chars().count();
            if size > SKIP_CHARS_MAX {
                return Err((
                    Reason::PayloadTooLarge,
                    format!("the click intent has {size} characters; vivo takes {SKIP_CHARS_MAX}"),
                ));
            }
            set("skipType", 4.into());
            set("skipContent", intent.into());
        }
    }
    if config.test {
        set("pushMode", 1.into());
    }
    if config.add_badge {
        set("addBadge", true.into());
    }
    let id = message.id.to_string();
    if let Some(number) = &config.callback_id {
        set(
            "extra",
            json!({"callback.id": number, "callback.param": id}),
        );
    } else if let Some(url) = callback.filter(|_| !config.test) {
        set("extra", json!({"callback": url, "callback.param": id}));
    }
    merge(&mut body, config, outbound, class)?;
    Ok(Encoded {
        body,
        message: id,
        truncated,
        downgraded,
    })
}

pub(super) fn intent(template: &str, message: &Message) -> String {
    let keys = payload::text_keys(message);
    let mut intent = template.to_owned();
    for name in ["hy_id", "hy_url", "hy_data", "hy_user"] {
        let value = keys.get(name).and_then(Value::as_str).unwrap_or_default();
        intent = intent.replace(&format!("{{{name}}}"), &texts::escaped(value));
    }
    intent
}

/// The sender's own fields, which move neither the target nor a marketing message's class.
pub(super) fn merge(
    body: &mut Map<String, Value>,
    config: &Config,
    outbound: &Outbound,
    class: Class,
) -> Result<(), (Reason, String)> {
    let mut extra = payload::vendor_fields(outbound, NAME);
    let own = extra.remove("clientCustomMap");
    let kept: Vec<(&str, Option<Value>)> = ["appId", "classification", "category"]
        .map(|name| (name, body.get(name).cloned()))
        .to_vec();
    payload::merge(body, &extra);
    for target in [
        "regId",
        "alias",
        "regIds",
        "aliases",
        "taskId",
        "tagExpression",
        "requestId",
    ] {
        body.remove(target);
    }
    let fixed = class == Class::Marketing && !config.class_override;
    let asked = body.get("category").and_then(Value::as_str);
    let public = asked.and_then(|c| PUBLIC_CATEGORIES.iter().find(|known| **known == c));
    for (name, value) in kept {
        if let Some(value) = value.filter(|_| fixed || name == "appId") {
            body.insert(name.to_owned(), value);
        }
    }
    if let Some(category) = public.filter(|_| fixed) {
        body.insert("category".to_owned(), (*category).into());
    }
    let map = custom(&outbound.message, own.as_ref());
    let chars = |(key, value): (&String, &Value)| {
        key.chars().count() + value.as_str().unwrap_or_default().chars().count()
    };
    let size: usize = map.iter().map(chars).sum();
    if size > CUSTOM_CHARS_MAX || map.len() > CUSTOM_PAIRS_MAX {
        return Err((
            Reason::PayloadTooLarge,
            format!(
                "data and click have {} pairs and {size} characters; vivo takes {CUSTOM_PAIRS_MAX} and {CUSTOM_CHARS_MAX}",
                map.len()
            ),
        ));
    }
    body.insert("clientCustomMap".to_owned(), Value::Object(map));
    Ok(())
}

/// What the app gets: texts only.
pub(super) fn custom(message: &Message, own: Option<&Value>) -> Map<String, Value> {
    let mut map = Map::new();
    for (key, value) in own.and_then(Value::as_object).into_iter().flatten() {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        map.insert(key.clone(), text.into());
    }
    if let Some(image) = message.notification.as_ref().and_then(|n| n.image.as_ref()) {
        map.insert("hy_image".to_owned(), image.as_str().into());
    }
    map.extend(payload::text_keys(message));
    map
}
