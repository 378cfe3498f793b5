//! The notification object and the rules for its fields.

use serde_json::{Map, Value};

use super::{Refusal, Settings};
use crate::push::{self, Push};

const TITLE_CHARS_MAX: usize = 50;
const SUB_TITLE_CHARS_MAX: usize = 10;
const OLD_CONTENT_CHARS_MAX: usize = 200;
const APP_MESSAGE_ID_CHARS_MAX: usize = 64;
const ACTIVITY_CHARS_MAX: usize = 500;
const URL_CHARS_MAX: usize = 2000;
const PARAMETERS_CHARS_MAX: usize = 4000;
const CALLBACK_URL_CHARS_MAX: usize = 200;
const CALLBACK_PARAMETER_CHARS_MAX: usize = 100;
/// A longer life is cut to it, seconds.
const TTL_S_MAX: i64 = 864_000;
const TTL_S_DEFAULT: i64 = 3600;
const SHOW_TTL_S_MAX: i64 = 86_400;

const SERVICE: &[&str] = &[
    "IM",
    "ACCOUNT",
    "DEVICE_REMINDER",
    "ORDER",
    "TODO",
    "SUBSCRIPTION",
];
const MARKETING: &[&str] = &["NEWS", "CONTENT", "MARKETING", "SOCIAL"];

/// Every field that the documents have.
const FIELDS: &[&str] = &[
    "app_message_id",
    "style",
    "big_picture_id",
    "small_picture_id",
    "title",
    "sub_title",
    "content",
    "click_action_type",
    "click_action_activity",
    "click_action_url",
    "action_parameters",
    "show_time_type",
    "show_start_time",
    "show_end_time",
    "off_line",
    "off_line_ttl",
    "push_time_type",
    "push_start_time",
    "time_zone",
    "fix_speed",
    "fix_speed_rate",
    "network_type",
    "call_back_url",
    "call_back_parameter",
    "channel_id",
    "show_ttl",
    "notify_id",
    "category",
    "notify_level",
    "private_msg_template_id",
    "private_title_parameters",
    "private_content_parameters",
    "auditResponse",
];

/// The approved private templates, with the variables that each wants in title and content.
const TEMPLATES: &[(&str, &[&str], &[&str])] = &[
    ("T10001", &[], &["text"]),
    ("T10002", &["order"], &["state"]),
];

/// What the rules say about a message that keeps them.
#[derive(Debug)]
pub(super) struct Checked {
    /// A message of a service category, outside all quotas.
    pub(super) service: bool,
}

/// The fields; a form's are all texts.
#[derive(Debug, Clone)]
pub(super) struct Notification(Map<String, Value>);

/// A whole number, also as text: forms have nothing else.
pub(super) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn invalid(name: &str) -> Refusal {
    Refusal::new(41, format!("Invalid Arguments: {name}"))
}

fn missing(name: &str) -> Refusal {
    Refusal::new(40, format!("Missing Required Arguments: {name}"))
}

impl Notification {
    pub(super) fn of(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text = self.0.get(name)?.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => whole(value).map(Some).ok_or_else(|| invalid(name)),
        }
    }

    fn number_in(&self, name: &str, allowed: &[i64], default: i64) -> Result<i64, Refusal> {
        let number = self.number(name)?.unwrap_or(default);
        if allowed.contains(&number) {
            Ok(number)
        } else {
            Err(invalid(name))
        }
    }

    fn switch(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(on)) => Ok(*on),
            Some(Value::String(text)) => text.parse().map_err(|_| invalid(name)),
            Some(_) => Err(invalid(name)),
        }
    }

    fn at_most(&self, name: &str, chars_max: usize) -> Result<Option<String>, Refusal> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.chars().count() <= chars_max => {
                Ok(Some(text.clone()).filter(|t| !t.is_empty()))
            }
            Some(_) => Err(invalid(name)),
        }
    }

    fn needed(&self, name: &str, chars_max: usize) -> Result<String, Refusal> {
        self.at_most(name, chars_max)?
            .filter(|text| !text.trim().is_empty())
            .ok_or_else(|| missing(name))
    }

    /// Every rule that does not depend on the target.
    pub(super) fn check(&self, settings: &Settings, stored: bool) -> Result<Checked, Refusal> {
        if let Some(name) = self.0.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(invalid(name));
        }
        self.at_most("app_message_id", APP_MESSAGE_ID_CHARS_MAX)?;
        self.check_texts(settings, stored)?;
        self.check_click()?;
        self.check_times(stored)?;
        self.check_callback()?;
        self.number_in("network_type", &[0, 1], 0)?;
        if self.number("notify_id")?.is_some_and(|id| id < 0) {
            return Err(invalid("notify_id"));
        }
        self.check_template()?;
        self.check_class(settings)
    }

    fn check_texts(&self, settings: &Settings, stored: bool) -> Result<(), Refusal> {
        let style = self.number_in("style", &[1, 2, 3], 1)?;
        if style == 3 && (!stored || self.switch("fix_speed", false)?) {
            return Err(invalid("style"));
        }
        if style == 3 {
            self.needed("big_picture_id", 64)?;
        }
        // Nothing is ever uploaded here.
        for picture in ["big_picture_id", "small_picture_id"] {
            if self.text(picture).is_some() {
                return Err(Refusal::new(31, format!("Data Not Exist: {picture}")));
            }
        }
        let content_max = match style {
            _ if settings.old_texts => OLD_CONTENT_CHARS_MAX,
            2 => 128,
            _ => 50,
        };
        self.needed("title", TITLE_CHARS_MAX)?;
        self.needed("content", content_max)?;
        self.at_most("sub_title", SUB_TITLE_CHARS_MAX)?;
        Ok(())
    }

    fn check_click(&self) -> Result<(), Refusal> {
        match self.number_in("click_action_type", &[0, 1, 2, 4, 5], 0)? {
            1 | 4 => {
                self.needed("click_action_activity", ACTIVITY_CHARS_MAX)?;
            }
            2 | 5 => {
                self.needed("click_action_url", URL_CHARS_MAX)?;
            }
            _ => {}
        }
        let parameters = self.at_most("action_parameters", PARAMETERS_CHARS_MAX)?;
        let object = |text: &String| serde_json::from_str::<Map<String, Value>>(text).is_ok();
        if parameters.as_ref().is_some_and(|text| !object(text)) {
            return Err(invalid("action_parameters"));
        }
        Ok(())
    }

    fn check_times(&self, stored: bool) -> Result<(), Refusal> {
        let is_time = |ms: i64| (1_000_000_000_000..10_000_000_000_000).contains(&ms);
        if self.number_in("show_time_type", &[0, 1], 0)? == 1 {
            let start = self.number("show_start_time")?;
            let end = self.number("show_end_time")?;
            match (start, end) {
                (Some(start), Some(end)) if is_time(start) && is_time(end) && start < end => {}
                (None, _) => return Err(missing("show_start_time")),
                (_, None) => return Err(missing("show_end_time")),
                _ => return Err(invalid("show_end_time")),
            }
        }
        self.switch("off_line", true)?;
        if self.number("off_line_ttl")?.is_some_and(|s| s < 0) {
            return Err(invalid("off_line_ttl"));
        }
        let show = self.number("show_ttl")?.unwrap_or(0);
        if !(0..=SHOW_TTL_S_MAX).contains(&show) {
            return Err(invalid("show_ttl"));
        }
        if self.number_in("push_time_type", &[0, 1], 0)? == 1 && !stored {
            return Err(invalid("push_time_type"));
        }
        let fixed = self.switch("fix_speed", false)?;
        let speed = self.number("fix_speed_rate")?.unwrap_or(1000);
        if fixed && (!stored || !(1000..=10_000).contains(&speed)) {
            return Err(invalid("fix_speed_rate"));
        }
        Ok(())
    }

    fn check_callback(&self) -> Result<(), Refusal> {
        let url = self.at_most("call_back_url", CALLBACK_URL_CHARS_MAX)?;
        let web = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if url.as_ref().is_some_and(|url| !web(url)) {
            return Err(invalid("call_back_url"));
        }
        self.at_most("call_back_parameter", CALLBACK_PARAMETER_CHARS_MAX)?;
        Ok(())
    }

    fn check_template(&self) -> Result<(), Refusal> {
        let Some(id) = self.text("private_msg_template_id") else {
            return Ok(());
        };
        let (_, title, content) = TEMPLATES
            .iter()
            .find(|(known, ..)| *known == id)
            .ok_or_else(|| Refusal::new(31, "Data Not Exist: private_msg_template_id"))?;
        for (name, wanted) in [
            ("private_title_parameters", title),
            ("private_content_parameters", content),
        ] {
            let text = self.text(name).unwrap_or_else(|| "{}".to_owned());
            let given: Map<String, Value> =
                serde_json::from_str(&text).map_err(|_| invalid(name))?;
            let exact = given.len() == wanted.len()
                && wanted
                    .iter()
                    .all(|variable| given.get(*variable).is_some_and(Value::is_string));
            if !exact {
                return Err(invalid(name));
            }
        }
        Ok(())
    }

    fn check_class(&self, settings: &Settings) -> Result<Checked, Refusal> {
        let wrong = |why: &str| {
            Err(Refusal::new(
                67,
                format!("Invalid category or level: {why}"),
            ))
        };
        let level = self.number("notify_level")?;
        let Some(category) = self.text("category") else {
            return match level {
                Some(_) => wrong("notify_level needs a category"),
                None => Ok(Checked { service: false }),
            };
        };
        if level.is_some_and(|level| ![1, 2, 16].contains(&level)) {
            return wrong("notify_level is 1, 2 or 16");
        }
        if MARKETING.contains(&category.as_str()) {
            return match level {
                None | Some(1) => Ok(Checked { service: false }),
                Some(_) => wrong("content and marketing is shown in the list only"),
            };
        }
        if !SERVICE.contains(&category.as_str()) {
            return wrong("no such category");
        }
        let granted = settings.granted.as_ref();
        if granted.is_some_and(|granted| !granted.contains(&category)) {
            return if settings.downgrade {
                Ok(Checked { service: false })
            } else {
                wrong("the app has no permission for the category")
            };
        }
        if level == Some(16) && !settings.level_16 {
            return wrong("the app has no permission for level 16");
        }
        Ok(Checked { service: true })
    }

    /// What a phone gets.
    pub(super) fn push(&self, now_ms: i64) -> Push {
        let text = |name: &str| self.text(name).unwrap_or_default();
        let ttl_s = self.number("off_line_ttl").ok().flatten();
        let ttl_s = ttl_s.unwrap_or(TTL_S_DEFAULT).clamp(0, TTL_S_MAX);
        let parameters = Value::String(text("action_parameters"));
        let notify_id = self.number("notify_id").ok().flatten();
        Push {
            message: push::message_id(&parameters),
            title: text("title"),
            body: text("content"),
            visible: true,
            collapse: notify_id.map(|id| format!("notify {id}")),
            expires_ms: now_ms.saturating_add(ttl_s * 1000),
            stored: self.switch("off_line", true).unwrap_or(true),
            receipt: None,
        }
    }
}
