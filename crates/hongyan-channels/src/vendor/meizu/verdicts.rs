//! Meizu's tables of answers: one code for the request, and codes with the targets that they are for.

use std::collections::BTreeMap;

use hongyan_core::{Reason, Timestamp, Verdict};
use serde_json::Value;

use crate::answer::{
    accepted, mend, rate_limited, refused, retry_after, token_dead, unavailable, unreadable,
    until_beijing_midnight,
};
use crate::http::Answer;
use crate::texts::detail;
use crate::vendor::Decoded;

/// A code as text, however it is written; empty when there is none.
fn text_of(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// Where the request is to go instead.
pub(super) fn redirect(answer: &Answer) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let to = text_of(body.get("redirect"));
    (text_of(body.get("code")) == "300" && !to.is_empty()).then_some(to)
}

pub(in crate::vendor) fn decode(answer: &Answer, now: Timestamp) -> Decoded {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = text_of(body.get("code"));
    let words = format!("{code} {}", text_of(body.get("message")));
    let after = retry_after(&answer.headers, now);
    let status_words = format!("Meizu answered status {}", answer.status);
    Decoded::all(match (code.as_str(), answer.status) {
        ("200", 200..=299) => {
            return Decoded {
                rest: accepted(body.get("msgId").and_then(Value::as_str)),
                named: named(body.get("value").unwrap_or(&Value::Null)),
            };
        }
        ("300", _) => unavailable(after, &format!("{words}: sent from place to place")),
        ("500" | "1001", _) => unavailable(after, &words),
        ("1003", _) => rate_limited(after, &words),
        ("1005" | "110004" | "110031" | "110032" | "110053", _) => refused(&words),
        ("1006" | "110000" | "110001" | "110033", _) => mend(&words, "check app_id and app_secret"),
        ("110009", _) => mend(&words, "Meizu blocked the app"),
        ("110002" | "110003", _) => token_dead(&words),
        // Speed here; within `value` the same number means a switch.
        ("110010", _) => rate_limited(after, &words),
        ("110019" | "110051", _) => Verdict::QuotaExhausted {
            until: Some(until_beijing_midnight(now)),
            detail: detail(&words),
        },
        (_, 429) => rate_limited(after, &status_words),
        (_, 500..=599) => unavailable(after, &status_words),
        (_, 401 | 403) => mend(&status_words, "check app_id and app_secret"),
        (_, 404) => mend(&status_words, "check region and the endpoint"),
        (_, 400..=499) => refused(&status_words),
        // A code that no table has: another try is the best that can be done.
        (code, _) if !code.is_empty() => unavailable(after, &words),
        (_, status) => unreadable(status),
    })
}

/// The targets that `value` names: lists by code, or codes by target.
fn named(value: &Value) -> BTreeMap<String, Verdict> {
    // Seen as a text with JSON in it, too.
    let parsed: Value;
    let value = match value {
        Value::String(text) => {
            parsed = serde_json::from_str(text).unwrap_or_default();
            &parsed
        }
        other => other,
    };
    let mut named = BTreeMap::new();
    for (key, inner) in value.as_object().into_iter().flatten() {
        match inner {
            Value::Array(targets) => {
                for target in targets.iter().filter_map(Value::as_str) {
                    named.insert(target.to_owned(), of_target(key));
                }
            }
            code => {
                named.insert(key.clone(), of_target(&text_of(Some(code))));
            }
        }
    }
    named
}

/// What a code means for the targets that it is for.
fn of_target(code: &str) -> Verdict {
    let for_one = |reason, words: &str| Verdict::Refused {
        reason,
        detail: format!("{code} {words}"),
    };
    match code {
        "501" | "513" => unavailable(None, &format!("{code} failed")),
        "518" | "519" => rate_limited(None, &format!("{code} too fast or overloaded")),
        // More than five messages within a minute are folded into one on the device.
        "520" | "200" => accepted(None),
        "110002" => token_dead("110002 the pushId is not subscribed any more"),
        "110003" => token_dead("110003 the pushId is illegal"),
        "110010" => for_one(Reason::PermissionOff, "the device's switch is off"),
        "110011" => for_one(
            Reason::QuotaExhausted,
            "the device had its public messages of the day",
        ),
        "201" => for_one(Reason::PayloadRejected, "no permission"),
        _ => for_one(Reason::PayloadRejected, "the target is refused"),
    }
}

/// Deaths that mean a wrong app when all tokens of a batch die of them.
pub(super) fn wrong_app(detail: &str) -> bool {
    detail.starts_with("110002") || detail.starts_with("110003")
}
