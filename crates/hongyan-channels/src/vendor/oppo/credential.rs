//! What an OPPO credential says.

use std::collections::{BTreeMap, BTreeSet};

use hongyan_core::port::ConfigError;
use hongyan_core::{Class, Secret};
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::{ACTIVITY_CHARS_MAX, CALLBACK_CHARS_MAX, PUBLIC_CATEGORIES};
use crate::callback::ReceiptUrl;
use crate::classes::{self, Grants};
use crate::config::Fields;

/// What the console shows for an app, and how it wants to be used.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) app_key: String,
    pub(super) secret: Secret,
    pub(super) grants: Grants,
    pub(super) class_override: bool,
    /// The older scheme: a channel instead of a category.
    pub(super) by_channel: bool,
    /// Classes with level 16.
    pub(super) banner: BTreeSet<String>,
    pub(super) marketing_category: &'static str,
    pub(super) channels: BTreeMap<String, String>,
    pub(super) templates: BTreeMap<String, Template>,
    pub(super) click: Click,
    pub(super) verify: bool,
    pub(super) broadcasts: bool,
    pub(super) relax: bool,
    pub(super) callback: Option<ReceiptUrl>,
}

/// What a tap does.
#[derive(Debug, Default)]
pub(super) enum Click {
    #[default]
    App,
    Action(String),
    Activity(String),
}

/// An approved private template.
#[derive(Debug, Clone, Default)]
pub(super) struct Template {
    pub(super) id: String,
    pub(super) title: BTreeMap<String, String>,
    pub(super) content: BTreeMap<String, String>,
}

impl Config {
    pub(super) fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let app_key = fields.text("app_key", "the AppKey of the console");
        let secret = fields.text("master_secret", "the MasterSecret of the console");
        let grants = Grants::read(&mut fields);
        let class_override = fields.switch("class_override");
        let by_channel = match fields.optional_text("classification").as_deref() {
            None | Some("category") => false,
            Some("channel") => true,
            Some(_) => {
                fields.fault("classification", "must be category or channel");
                false
            }
        };
        let banner = fields.texts("banner").unwrap_or_default();
        for (at, class) in banner.iter().enumerate() {
            if !classes::is_name(class) || class == "marketing" {
                fields.fault(&format!("banner/{at}"), "is not a service class");
            }
        }
        let marketing_category = match fields.optional_text("marketing_category") {
            None => "MARKETING",
            Some(text) => {
                let known = PUBLIC_CATEGORIES.iter().find(|c| **c == text);
                known.copied().unwrap_or_else(|| {
                    let all = PUBLIC_CATEGORIES.join(", ");
                    fields.fault("marketing_category", format!("must be one of {all}"));
                    "MARKETING"
                })
            }
        };
        let channels = channels(&mut fields);
        let templates = templates(&mut fields);
        let click = click(&mut fields);
        let verify = fields.switch("verify_registration_id");
        let broadcasts = match fields.optional_text("lists").as_deref() {
            None | Some("broadcast") => true,
            Some("unicast_batch") => false,
            Some(_) => {
                fields.fault("lists", "must be broadcast or unicast_batch");
                true
            }
        };
        let relax = fields.switch("relax_class");
        let callback = fields.optional_url("callback");
        if callback.as_ref().is_some_and(|url| !fits_callback(url)) {
            fields.fault("callback", "is longer than 200 characters");
        }
        // Other things that the console shows; they are of use to clients only.
        for name in ["app_id", "app_secret"] {
            fields.optional_text(name);
        }
        let faults = fields.finish_strict();
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            app_key,
            secret: Secret::new(secret),
            grants,
            class_override,
            by_channel,
            banner: banner.into_iter().collect(),
            marketing_category,
            channels,
            templates,
            click,
            verify,
            broadcasts,
            relax,
            callback: callback.map(ReceiptUrl::new),
        })
    }

    /// The signature of the auth call, SHA-256 over AppKey, time and MasterSecret.
    pub(super) fn sign(&self, timestamp_ms: i64) -> String {
        let secret = self.secret.expose_str().unwrap_or_default();
        let text = format!("{}{timestamp_ms}{secret}", self.app_key);
        let whole = digest(&SHA256, text.as_bytes());
        whole.as_ref().iter().map(|b| format!("{b:02x}")).collect()
    }
}

pub(super) fn fits_callback(url: &str) -> bool {
    url.chars().count() <= CALLBACK_CHARS_MAX
}

pub(super) fn channels(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut channels = BTreeMap::new();
    match fields.value("channel_id") {
        None => {}
        Some(Value::String(id)) if !id.trim().is_empty() => {
            for class in Class::ALL.iter().filter(|c| **c != Class::Marketing) {
                channels.insert(class.as_str().to_owned(), id.trim().to_owned());
            }
        }
        Some(Value::Object(object)) => {
            for (class, id) in object {
                match id.as_str().map(str::trim) {
                    Some(id) if classes::is_name(class) && !id.is_empty() => {
                        channels.insert(class.clone(), id.to_owned());
                    }
                    _ => fields.fault(
                        &format!("channel_id/{class}"),
                        "must map a class (im, transaction, transaction.finance …, subscription, marketing) to a channel id",
                    ),
                }
            }
        }
        Some(_) => fields.fault("channel_id", "must be a channel id, or map classes to them"),
    }
    channels
}

pub(super) fn templates(fields: &mut Fields<'_>) -> BTreeMap<String, Template> {
    let mut templates = BTreeMap::new();
    let Some(value) = fields.value("templates") else {
        return templates;
    };
    let Some(object) = value.as_object() else {
        fields.fault("templates", "must map classes to templates");
        return templates;
    };
    for (class, value) in object {
        let path = format!("templates/{class}");
        if !classes::is_name(class) || class == "marketing" {
            fields.fault(&path, "is not a service class");
            continue;
        }
        let mut part = Fields::at(value, path);
        let template = Template {
            id: part.text("template_id", "the id of the approved template"),
            title: patterns(&mut part, "title_parameters"),
            content: patterns(&mut part, "content_parameters"),
        };
        fields.absorb(part.finish_strict());
        templates.insert(class.clone(), template);
    }
    templates
}

pub(super) fn patterns(fields: &mut Fields<'_>, name: &'static str) -> BTreeMap<String, String> {
    let mut patterns = BTreeMap::new();
    match fields.value(name) {
        None => {}
        Some(Value::Object(object)) => {
            for (variable, value) in object {
                match value.as_str() {
                    Some(text) => {
                        patterns.insert(variable.clone(), text.to_owned());
                    }
                    None => fields.fault(&format!("{name}/{variable}"), "must be a text"),
                }
            }
        }
        Some(_) => fields.fault(name, "must map variables to texts"),
    }
    patterns
}

pub(super) fn click(fields: &mut Fields<'_>) -> Click {
    let action = fields.optional_text("click_action");
    let activity = fields.optional_text("click_activity");
    let long = |text: &Option<String>| {
        text.as_ref()
            .is_some_and(|t| t.chars().count() > ACTIVITY_CHARS_MAX)
    };
    for (name, text) in [("click_action", &action), ("click_activity", &activity)] {
        if long(text) {
            fields.fault(name, "is longer than 500 characters");
        }
    }
    match (action, activity) {
        (Some(_), Some(_)) => {
            fields.fault(
                "click_activity",
                "stands beside click_action: use one of them",
            );
            Click::App
        }
        (Some(action), None) => Click::Action(action),
        (None, Some(activity)) => Click::Activity(activity),
        (None, None) => Click::App,
    }
}
