//! A message as Huawei's APIs v1 and v2 take it.

use bytes::Bytes;
use hongyan_core::port::Outbound;
use hongyan_core::{Message, Reason};
use serde_json::{Map, Value, json};

use super::{BODY_BYTES_MAX, CAPABILITY, Config, NAME};
use crate::classes::Marks;
use crate::{payload, texts, vendor};

/// A message without its tokens.
pub(super) struct Encoded {
    pub(super) body: Value,
    open: String,
    pub(super) downgraded: Option<String>,
}

impl Encoded {
    pub(super) fn with_tokens(&self, tokens: &[&str]) -> Bytes {
        let list = Value::from(tokens.to_vec()).to_string();
        format!("{},\"token\":{list}}}}}", self.open).into()
    }
}

pub(super) fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
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
pub(in crate::vendor) fn object_at<'a>(
    parent: &'a mut Map<String, Value>,
    key: &str,
) -> Option<&'a mut Map<String, Value>> {
    let place = parent.entry(key).or_insert(Value::Null);
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut()
}
