//! A message as OPPO takes it.

use std::collections::BTreeMap;

use hongyan_core::port::{Outbound, Truncation};
use hongyan_core::{Class, Message, Reason};
use serde_json::{Map, Value};

use super::credential::{Click, Config};
use super::{
    CAPABILITY, CLASS_FIELDS, LONG_TEXT_CHARS_MAX, NAME, PARAMETERS_CHARS_MAX, PUBLIC_CATEGORIES,
    TEXT_CHARS_MAX, TITLE_CHARS_MAX,
};
use crate::stored::life_step;
use crate::{classes, payload, texts, vendor};

/// A message without its target.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    pub(super) notification: Map<String, Value>,
    pub(super) verify: bool,
    pub(super) truncated: Vec<Truncation>,
    pub(super) downgraded: Option<String>,
}

impl Encoded {
    /// The message object without its target.
    pub(super) fn message(&self) -> Map<String, Value> {
        let mut message = Map::new();
        message.insert("target_type".to_owned(), 2.into());
        if self.verify {
            message.insert("verify_registration_id".to_owned(), true.into());
        }
        let notification = Value::Object(self.notification.clone());
        message.insert("notification".to_owned(), notification);
        message
    }

    pub(super) fn message_to(&self, token: &str) -> Value {
        let mut message = self.message();
        message.insert("target_value".to_owned(), token.into());
        Value::Object(message)
    }

    /// Every field of the notification as a form field, as `save_message_content` takes them.
    pub(super) fn fields(&self) -> Vec<(&str, String)> {
        self.notification
            .iter()
            .map(|(name, value)| {
                let text = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                (name.as_str(), text)
            })
            .collect()
    }

    /// What makes two contents the same: everything, and about how much of the life is left.
    pub(super) fn content_key(&self) -> Vec<u8> {
        let mut content = self.notification.clone();
        let life = content.remove("off_line_ttl").and_then(|ttl| ttl.as_u64());
        let (left, step) = life_step(life.unwrap_or_default());
        content.insert("off_line_ttl".to_owned(), format!("{left}x{step}").into());
        Value::Object(content).to_string().into_bytes()
    }

    pub(super) fn level(&self) -> Option<i64> {
        self.notification.get("notify_level")?.as_i64()
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
            "OPPO takes notifications only: give the message a notification".to_owned(),
        ));
    }
    let (class, downgraded) = config.grants.class_for(message)?;
    let mut truncated = Vec::new();
    let (title, text) = texts::title_and_text(outbound);
    let long = text.chars().count() > TEXT_CHARS_MAX;
    let text_max = if long {
        LONG_TEXT_CHARS_MAX
    } else {
        TEXT_CHARS_MAX
    };
    // The same number replaces, so a repeated send is shown once.
    let place = message
        .options
        .collapse_key
        .as_ref()
        .unwrap_or(&outbound.dedup_key);
    let mut notification = Map::new();
    let mut set = |name: &str, value: Value| notification.insert(name.to_owned(), value);
    set(
        "app_message_id",
        app_message_id(message, title, text).into(),
    );
    set("style", if long { 2 } else { 1 }.into());
    set(
        "title",
        texts::shorten("title", title, TITLE_CHARS_MAX, &mut truncated).into(),
    );
    set(
        "content",
        texts::shorten("body", text, text_max, &mut truncated).into(),
    );
    set("notify_id", payload::number_of(place).into());
    set("off_line", true.into());
    let ttl_s = vendor::ttl(outbound, CAPABILITY.ttl_max).as_secs();
    set("off_line_ttl", ttl_s.into());
    match &config.click {
        Click::App => {
            set("click_action_type", 0.into());
        }
        Click::Action(action) => {
            set("click_action_type", 1.into());
            set("click_action_activity", action.as_str().into());
        }
        Click::Activity(activity) => {
            set("click_action_type", 4.into());
            set("click_action_activity", activity.as_str().into());
        }
    }
    if let Some(url) = callback {
        set("call_back_url", url.into());
        set("call_back_parameter", message.id.to_string().into());
    }
    let marks = class_fields(config, message, class, title, text);
    notification.extend(marks.clone());
    merge(&mut notification, config, outbound, class, &marks)?;
    Ok(Encoded {
        notification,
        verify: config.verify,
        truncated,
        downgraded,
    })
}

/// A device shows a message of one id once. Texts of one message differ between languages, and a stored content is
/// known by its id, so the text is part of it.
pub(super) fn app_message_id(message: &Message, title: &str, text: &str) -> String {
    let texts = payload::short_hash(&format!("{title}\n{text}"), 4);
    format!("{}-{texts}", message.id)
}

/// The fields that decide class and quota.
pub(super) fn class_fields(
    config: &Config,
    message: &Message,
    class: Class,
    title: &str,
    text: &str,
) -> Map<String, Value> {
    let names = classes::names(class, message.class_detail);
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    if !config.by_channel {
        let marks = classes::of_class(message, class);
        let category = match class {
            Class::Marketing => config.marketing_category,
            _ => marks.oppo_category,
        };
        let level = if names.iter().any(|name| config.banner.contains(name)) {
            16
        } else {
            marks.oppo_notify_level
        };
        set("category", category.into());
        set("notify_level", level.into());
    }
    if let Some(id) = names.iter().find_map(|name| config.channels.get(name)) {
        set("channel_id", id.as_str().into());
    }
    if let Some(template) = names.iter().find_map(|name| config.templates.get(name)) {
        let filled = |patterns: &BTreeMap<String, String>| {
            let values: Map<String, Value> = patterns
                .iter()
                .map(|(name, pattern)| {
                    let value = pattern.replace("{title}", title).replace("{body}", text);
                    (name.clone(), value.into())
                })
                .collect();
            Value::Object(values).to_string()
        };
        set("private_msg_template_id", template.id.as_str().into());
        for (name, patterns) in [
            ("private_title_parameters", &template.title),
            ("private_content_parameters", &template.content),
        ] {
            if !patterns.is_empty() {
                set(name, filled(patterns).into());
            }
        }
    }
    fields
}

/// The sender's own fields, which move neither the target nor a marketing message's class.
pub(super) fn merge(
    notification: &mut Map<String, Value>,
    config: &Config,
    outbound: &Outbound,
    class: Class,
    marks: &Map<String, Value>,
) -> Result<(), (Reason, String)> {
    let mut extra = payload::vendor_fields(outbound, NAME);
    let own = extra.remove("action_parameters");
    let id = notification.get("app_message_id").cloned();
    payload::merge(notification, &extra);
    for target in [
        "target_type",
        "target_value",
        "registration_id",
        "message_id",
        "auth_token",
    ] {
        notification.remove(target);
    }
    if let Some(id) = id {
        notification.insert("app_message_id".to_owned(), id);
    }
    if class == Class::Marketing && !config.class_override {
        let asked = notification.get("category").and_then(Value::as_str);
        let category = asked.and_then(|c| PUBLIC_CATEGORIES.iter().find(|known| **known == c));
        for field in CLASS_FIELDS {
            notification.remove(*field);
        }
        notification.extend(marks.clone());
        if let Some(category) = category.filter(|_| marks.contains_key("category")) {
            notification.insert("category".to_owned(), (*category).into());
        }
    }
    let parameters = parameters(&outbound.message, own.as_ref());
    let size = parameters.chars().count();
    if size > PARAMETERS_CHARS_MAX {
        return Err((
            Reason::PayloadTooLarge,
            format!("data and click have {size} characters; OPPO takes {PARAMETERS_CHARS_MAX}"),
        ));
    }
    notification.insert("action_parameters".to_owned(), parameters.into());
    Ok(())
}

/// What the app gets when the notification is tapped, as JSON text.
pub(super) fn parameters(message: &Message, own: Option<&Value>) -> String {
    let mut all = match own {
        Some(Value::Object(own)) => own.clone(),
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        _ => Map::new(),
    };
    if let Some(image) = message.notification.as_ref().and_then(|n| n.image.as_ref()) {
        all.insert("hy_image".to_owned(), image.as_str().into());
    }
    all.extend(payload::text_keys(message));
    Value::Object(all).to_string()
}
