//! `messageJson` and the rules for its fields.

use serde_json::Value;

use super::{Refusal, What};
use crate::push::{self, Push};
use crate::shape::{Fields, Names, Shape, Violation, check_object};

const SILENT_BYTES_MAX: usize = 2000;
const CALLBACK_BYTES_MAX: usize = 128;
const PARAM_BYTES_MAX: usize = 64;
const VALID_HOURS: i64 = 24;

const FLAG: Shape = Shape::Int(0, 1);
const TIME: Shape = Shape::TextLike(is_time, "yyyy-MM-dd HH:mm:ss");

const SHOWN: &Fields = &[
    (
        "!noticeBarInfo",
        Shape::Object(&[
            ("noticeMsgType", FLAG),
            ("noticeBarType", Shape::Int(0, 2)),
            ("!title", Shape::TextMax(32)),
            ("!content", Shape::TextMax(100)),
        ]),
    ),
    (
        "noticeExpandInfo",
        Shape::Object(&[
            ("noticeExpandType", Shape::Int(0, 2)),
            ("noticeExpandContent", Shape::Text),
            ("noticeExpandImgUrl", Shape::Text),
        ]),
    ),
    (
        "clickTypeInfo",
        Shape::Object(&[
            ("clickType", Shape::Int(0, 3)),
            ("url", Shape::Text),
            ("parameters", Shape::AnyObject),
            ("activity", Shape::Text),
            ("customAttribute", Shape::Text),
        ]),
    ),
    (
        "pushTimeInfo",
        Shape::Object(&[
            ("offLine", FLAG),
            ("validTime", Shape::Int(1, 72)),
            ("pushTimeType", FLAG),
            ("startTime", TIME),
        ]),
    ),
    (
        "advanceInfo",
        Shape::Object(&[
            ("suspend", FLAG),
            ("clearNoticeBar", FLAG),
            ("fixDisplay", FLAG),
            ("fixStartDisplayTime", TIME),
            ("fixEndDisplayTime", TIME),
            (
                "notificationType",
                Shape::Object(&[("vibrate", FLAG), ("lights", FLAG), ("sound", FLAG)]),
            ),
            (
                "notifyKey",
                Shape::TextLike(is_key, "1 to 8 of [0-9A-Za-z_-]"),
            ),
            ("fixSpeed", FLAG),
        ]),
    ),
    (
        "vipInfo",
        Shape::Object(&[
            ("subtitle", Shape::TextMax(16)),
            ("pullDownTop", FLAG),
            ("timeTop", Shape::Int(1800, 7200)),
            ("notGroup", FLAG),
            ("titleColor", Shape::Word(&["#206CFF", "#E42D22"])),
        ]),
    ),
    ("extra", Shape::AnyObject),
];

const SILENT: &Fields = &[
    ("!title", Shape::TextMax(32)),
    ("!content", Shape::Text),
    (
        "pushTimeInfo",
        Shape::Object(&[("offLine", FLAG), ("validTime", Shape::Int(1, 72))]),
    ),
];

fn is_time(text: &str) -> bool {
    jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).is_ok()
}

fn is_key(text: &str) -> bool {
    (1..=8).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

impl From<Violation> for Refusal {
    fn from(Violation { field, why }: Violation) -> Self {
        Self::new("1005", format!("{field} {why}"))
    }
}

/// Every rule that does not depend on the target.
pub(super) fn check(message: &Value, what: What, vip: bool) -> Result<(), Refusal> {
    let refused = |why: &str| Err(Refusal::new("1005", why));
    let Some(object) = message.as_object() else {
        return refused("messageJson is not an object");
    };
    if what == What::Silent {
        check_object(object, SILENT, Names::Known, "")?;
        return match push::text(message, "/content").len() {
            0..=SILENT_BYTES_MAX => Ok(()),
            _ => refused("content is longer than 2000 bytes"),
        };
    }
    check_object(object, SHOWN, Names::Known, "")?;
    let has = |pointer: &str| !push::text(message, pointer).is_empty();
    let number = |pointer: &str| message.pointer(pointer).and_then(Value::as_i64);
    let click_complete = match number("/clickTypeInfo/clickType") {
        Some(1) => has("/clickTypeInfo/activity"),
        Some(2) => has("/clickTypeInfo/url"),
        Some(3) => {
            (1..=1000).contains(&push::text(message, "/clickTypeInfo/customAttribute").len())
        }
        _ => true,
    };
    if !click_complete {
        return refused("clickTypeInfo lacks activity (1), url (2) or customAttribute (3)");
    }
    let picture = number("/noticeExpandInfo/noticeExpandType") == Some(2);
    if number("/noticeExpandInfo/noticeExpandType") == Some(1)
        && !has("/noticeExpandInfo/noticeExpandContent")
        || picture && !has("/noticeExpandInfo/noticeExpandImgUrl")
    {
        return refused("noticeExpandInfo is not complete");
    }
    if !vip && (picture || message.get("vipInfo").is_some()) {
        return refused("vipInfo and big pictures are for VIP apps");
    }
    let extra = |name: &str| message.get("extra").and_then(|extra| extra.get(name));
    let long = |name: &str, most: usize| {
        let text = extra(name).and_then(Value::as_str);
        text.is_some_and(|text| text.len() > most)
    };
    if long("callback", CALLBACK_BYTES_MAX) || long("callback.param", PARAM_BYTES_MAX) {
        return refused("extra.callback or extra.callback.param is too long");
    }
    match extra("callback.type").map(kinds) {
        None | Some(Some(1..=3)) => Ok(()),
        Some(_) => refused("extra.callback.type is not 1, 2 or 3"),
    }
}

fn kinds(value: &Value) -> Option<u32> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => u32::try_from(other.as_u64()?).ok(),
    }
}

/// Callback URL, parameter and event bits.
pub(super) fn callback(message: &Value) -> Option<(String, String, u32)> {
    let extra = message.get("extra")?;
    let url = extra.get("callback")?.as_str()?.to_owned();
    let param = extra.get("callback.param").and_then(Value::as_str);
    let wished = extra.get("callback.type").and_then(kinds).unwrap_or(3);
    Some((url, param.unwrap_or_default().to_owned(), wished))
}

/// Whether it counts against a device's day.
pub(super) fn is_public(message: &Value) -> bool {
    let kind = message.pointer("/noticeBarInfo/noticeMsgType");
    kind.and_then(Value::as_i64) != Some(1)
}

/// What arrives at the phone.
pub(super) fn push(message: &Value, what: What, now_ms: i64) -> Push {
    let number = |pointer: &str| message.pointer(pointer).and_then(Value::as_i64);
    let hours = number("/pushTimeInfo/validTime").unwrap_or(VALID_HOURS);
    let stored = number("/pushTimeInfo/offLine") != Some(0);
    let life_ms = if stored { hours * 3_600_000 } else { 0 };
    let key = push::text(message, "/advanceInfo/notifyKey");
    let places = [
        "/clickTypeInfo/parameters",
        "/clickTypeInfo/customAttribute",
        "/content",
    ];
    let named = places
        .iter()
        .find_map(|place| push::message_id(message.pointer(place)?));
    Push {
        message: named
            .or_else(|| push::message_id_in_intent(&push::text(message, "/clickTypeInfo/url"))),
        title: push::text(message, "/noticeBarInfo/title"),
        body: push::text(message, "/noticeBarInfo/content"),
        visible: what == What::Shown,
        collapse: Some(key)
            .filter(|key| !key.is_empty())
            .map(|key| format!("notify {key}")),
        expires_ms: now_ms + life_ms,
        stored,
        receipt: None,
    }
}
