//! The content of a message and the rules for its fields.

use serde_json::{Map, Value};

use super::{MISSING, Refusal, Settings, WRONG, whole};
use crate::push::{self, Push};

const TITLE_CHARS_MAX: usize = 40;
const CONTENT_CHARS_MAX: usize = 100;
const SKIP_CHARS_MAX: usize = 1024;
const CUSTOM_PAIRS_MAX: usize = 10;
const CUSTOM_CHARS_MAX: usize = 1024;
const CALLBACK_URL_CHARS_MAX: usize = 128;
const CALLBACK_PARAM_CHARS_MAX: usize = 64;
const PROFILE_CHARS_MAX: usize = 64;
const TTL_S_MIN: i64 = 60;
const TTL_S_MAX: i64 = 86_400;

const SYSTEM: &[&str] = &[
    "IM",
    "ACCOUNT",
    "TODO",
    "DEVICE_REMINDER",
    "ORDER",
    "SUBSCRIPTION",
];
const OPERATION: &[&str] = &["NEWS", "CONTENT", "MARKETING", "SOCIAL"];

/// Fields that name targets.
pub(super) const TARGETS: &[&str] = &["regId", "alias", "regIds", "aliases", "profileId"];

/// Every field that the documents have.
const FIELDS: &[&str] = &[
    "appId",
    "regId",
    "alias",
    "notifyType",
    "title",
    "content",
    "timeToLive",
    "skipType",
    "skipContent",
    "networkType",
    "classification",
    "category",
    "clientCustomMap",
    "extra",
    "requestId",
    "pushMode",
    "notifyId",
    "profileId",
    "sendOnline",
    "foregroundShow",
    "addBadge",
    "auditReview",
    "timedDisplay",
    "marketing",
    "serverSdkVer",
    "tagExpression",
];

/// Where receipts of a message go.
pub(super) enum Callback {
    /// V1: to this URL.
    Url(String),
    /// V2: to the address with this number.
    Id(String),
}

/// The fields of a content.
#[derive(Debug, Clone)]
pub(super) struct Payload(Map<String, Value>);

fn missing(name: &str) -> Refusal {
    Refusal::new(MISSING, format!("{name}不能为空"))
}

fn wrong(name: &str) -> Refusal {
    Refusal::new(WRONG, format!("{name}不合法"))
}

impl Payload {
    pub(super) fn of(body: &Value) -> Self {
        Self(body.as_object().cloned().unwrap_or_default())
    }

    /// The same content as a list send asks for it.
    pub(super) fn in_mode(mut self, test: bool) -> Self {
        if test {
            self.0.insert("pushMode".to_owned(), 1.into());
        }
        self
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => whole(value).map(Some).ok_or_else(|| wrong(name)),
        }
    }

    fn number_in(&self, name: &str, low: i64, high: i64) -> Result<Option<i64>, Refusal> {
        match self.number(name)? {
            Some(number) if !(low..=high).contains(&number) => Err(wrong(name)),
            number => Ok(number),
        }
    }

    fn needed(&self, name: &str, chars_max: usize) -> Result<&str, Refusal> {
        let text = self.text(name).filter(|text| !text.trim().is_empty());
        let text = text.ok_or_else(|| missing(name))?;
        if text.chars().count() > chars_max {
            return Err(Refusal::new(WRONG, format!("{name}过长")));
        }
        Ok(text)
    }

    /// Every rule that does not depend on the target.
    pub(super) fn check(&self, settings: &Settings, single: bool) -> Result<(), Refusal> {
        if let Some(name) = self.0.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(Refusal::new(WRONG, format!("未知参数{name}")));
        }
        let title = self.needed("title", TITLE_CHARS_MAX)?;
        let content = self.needed("content", CONTENT_CHARS_MAX)?;
        self.number_in("notifyType", 1, 4)?
            .ok_or_else(|| missing("notifyType"))?;
        let skip = self
            .number_in("skipType", 1, 4)?
            .ok_or_else(|| missing("skipType"))?;
        if skip > 1 {
            self.needed("skipContent", SKIP_CHARS_MAX)?;
        }
        self.number_in("timeToLive", TTL_S_MIN, TTL_S_MAX)?;
        if self
            .number("networkType")?
            .is_some_and(|n| n != -1 && n != 1)
        {
            return Err(wrong("networkType"));
        }
        self.number_in("notifyId", 1, i64::from(i32::MAX))?;
        self.number_in("pushMode", 0, 1)?;
        for name in ["sendOnline", "foregroundShow", "addBadge"] {
            if self.0.get(name).is_some_and(|value| !value.is_boolean()) {
                return Err(wrong(name));
            }
        }
        let profile = self.text("profileId");
        if profile.is_some_and(|id| !single || id.chars().count() > PROFILE_CHARS_MAX) {
            return Err(wrong("profileId"));
        }
        self.check_class()?;
        self.check_custom()?;
        self.check_extra()?;
        if settings.text_rule && !self.is_test() && (like_a_test(title) || like_a_test(content)) {
            return Err(Refusal::new(10_085, "消息内容疑似测试消息"));
        }
        Ok(())
    }

    fn check_class(&self) -> Result<(), Refusal> {
        let classification = self.number_in("classification", 0, 1)?;
        let Some(category) = self.0.get("category") else {
            return Ok(());
        };
        let category = category.as_str().unwrap_or_default();
        let system = SYSTEM.contains(&category);
        if !system && !OPERATION.contains(&category) {
            return Err(Refusal::new(10_096, "category不合法"));
        }
        match classification {
            Some(number) if (number == 1) != system => {
                Err(Refusal::new(10_097, "category与classification不匹配"))
            }
            _ => Ok(()),
        }
    }

    fn check_custom(&self) -> Result<(), Refusal> {
        let map = match self.0.get("clientCustomMap") {
            None => return Ok(()),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(wrong("clientCustomMap")),
        };
        let mut chars = 0;
        for (key, value) in map {
            let value = value.as_str().ok_or_else(|| wrong("clientCustomMap"))?;
            chars += key.chars().count() + value.chars().count();
        }
        if map.len() > CUSTOM_PAIRS_MAX || chars > CUSTOM_CHARS_MAX {
            return Err(wrong("clientCustomMap"));
        }
        Ok(())
    }

    fn check_extra(&self) -> Result<(), Refusal> {
        let extra = match self.0.get("extra") {
            None => return Ok(()),
            Some(Value::Object(extra)) => extra,
            Some(_) => return Err(wrong("extra")),
        };
        for (key, value) in extra {
            let value = value.as_str().ok_or_else(|| wrong("extra"))?;
            let fits = match key.as_str() {
                "callback" => {
                    let web = value.starts_with("http://") || value.starts_with("https://");
                    web && value.chars().count() <= CALLBACK_URL_CHARS_MAX
                }
                "callback.param" => value.chars().count() <= CALLBACK_PARAM_CHARS_MAX,
                "callback.id" => value.bytes().all(|b| b.is_ascii_digit()),
                _ => true,
            };
            if !fits {
                return Err(wrong(&format!("extra.{key}")));
            }
        }
        Ok(())
    }

    /// Whether it is a system message; the category alone may say so.
    pub(super) fn is_system(&self) -> bool {
        match self.0.get("classification").and_then(whole) {
            Some(number) => number == 1,
            None => self.text("category").is_some_and(|c| SYSTEM.contains(&c)),
        }
    }

    pub(super) fn is_test(&self) -> bool {
        self.0.get("pushMode").and_then(whole) == Some(1)
    }

    /// Where receipts go, and the sender's parameter.
    pub(super) fn callback(&self) -> Option<(Callback, String)> {
        let extra = self.0.get("extra")?;
        let text = |name: &str| extra.get(name).and_then(Value::as_str).map(str::to_owned);
        let param = text("callback.param").unwrap_or_default();
        match (text("callback.id"), text("callback")) {
            (Some(id), _) => Some((Callback::Id(id), param)),
            (None, Some(url)) => Some((Callback::Url(url), param)),
            (None, None) => None,
        }
    }

    /// What a phone gets.
    pub(super) fn push(&self, now_ms: i64) -> Push {
        let text = |name: &str| self.text(name).unwrap_or_default().to_owned();
        let number = |name: &str| self.0.get(name).and_then(whole);
        let custom = self.0.get("clientCustomMap").cloned().unwrap_or_default();
        let ttl_s = number("timeToLive").unwrap_or(TTL_S_MAX);
        Push {
            message: push::message_id(&custom)
                .or_else(|| push::message_id_in_intent(&text("skipContent"))),
            title: text("title"),
            body: text("content"),
            visible: true,
            collapse: number("notifyId").map(|id| format!("notify {id}")),
            expires_ms: now_ms.saturating_add(ttl_s * 1000),
            stored: self.0.get("sendOnline") != Some(&Value::Bool(true)),
            receipt: None,
        }
    }
}

/// Only digits, only Latin letters, only symbols (with digits or not), brackets, or the word for "test".
fn like_a_test(text: &str) -> bool {
    let text = text.trim();
    let all = |is: fn(char) -> bool| text.chars().all(is);
    all(|c| c.is_ascii_alphabetic())
        || all(|c| !c.is_alphabetic())
        || text.contains("测试")
        || text.contains(['{', '}', '[', ']'])
}

#[cfg(test)]
mod tests {
    use super::like_a_test;

    #[test]
    fn texts_that_look_like_tests_are_known() {
        for text in [
            "123",
            "hello",
            "!!!",
            "#42",
            "这是测试",
            "{x}鸿雁",
            "[鸿]雁",
        ] {
            assert!(like_a_test(text), "{text}");
        }
        for text in ["您的订单已发货", "Order 42", "Hi there", "订单42"] {
            assert!(!like_a_test(text), "{text}");
        }
    }
}
