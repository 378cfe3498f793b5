//! What OPPO says: answers to calls, and posts about deliveries.

use std::collections::BTreeMap;
use std::time::Duration;

use hongyan_core::port::{Callback, CallbackError, CallbackRequest, Receipt, ReceiptKind};
use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Secret, Timestamp, Verdict};
use serde_json::{Map, Value};

use super::SLOW_DOWN;
use crate::answer::{
    accepted, mend, rate_limited, refused, retry_after, token_dead, unavailable, unreadable,
    until_beijing_midnight,
};
use crate::http::Answer;
use crate::vendor::Decoded;
use crate::{receipts, texts};

pub(super) fn code_of(answer: &Answer) -> Option<i64> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    number(body.get("code")?)
}

pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// One table for all calls. `asked` are the tokens of the request in order: `unicast_batch` answers in it.
pub(in crate::vendor) fn decode(answer: &Answer, now: Timestamp, asked: &[&str]) -> Decoded {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let after = retry_after(&answer.headers, now);
    let Some(code) = body.get("code").and_then(number) else {
        let words = format!("OPPO answered status {}", answer.status);
        return Decoded::all(match answer.status {
            429 => rate_limited(after, &words),
            500..=599 => unavailable(after, &words),
            401 | 403 => mend(&words, "check app_key and master_secret"),
            404 => mend(&words, "check the endpoint"),
            400..=499 => refused(&words),
            status => unreadable(status),
        });
    };
    if code != 0 {
        let message = body.get("message").and_then(Value::as_str);
        return Decoded::all(verdict(code, message.unwrap_or_default(), after, now));
    }
    match body.get("data") {
        Some(Value::Array(items)) => {
            let mut named = BTreeMap::new();
            for (at, item) in items.iter().enumerate() {
                let told = item.get("registrationId").and_then(Value::as_str);
                if let Some(token) = told.or_else(|| asked.get(at).copied()) {
                    named.insert(token.to_owned(), item_verdict(item, now));
                }
            }
            Decoded {
                // Whom the answer leaves out: nothing is known.
                rest: Verdict::Retry {
                    reason: Reason::VendorUnavailable,
                    after: None,
                    detail: "OPPO's answer leaves this registration id out".to_owned(),
                    certainty: Unsure::MaybeTaken,
                },
                named,
            }
        }
        Some(Value::Object(data)) => Decoded {
            rest: accepted(message_id(data)),
            named: failed(data, now),
        },
        _ => Decoded::all(accepted(None)),
    }
}

pub(super) fn item_verdict(item: &Value, now: Timestamp) -> Verdict {
    match item.get("errorCode").and_then(number) {
        None | Some(0) => accepted(item.as_object().and_then(message_id)),
        Some(code) => {
            let words = item.get("errorMessage").and_then(Value::as_str);
            verdict(code, words.unwrap_or_default(), None, now)
        }
    }
}

pub(super) fn message_id(data: &Map<String, Value>) -> Option<&str> {
    let id = data.get("messageId").or_else(|| data.get("message_id"))?;
    id.as_str()
}

/// The lists of a broadcast's answer: a business code and the ids that it is about.
pub(super) fn failed(data: &Map<String, Value>, now: Timestamp) -> BTreeMap<String, Verdict> {
    let mut named = BTreeMap::new();
    for (name, list) in data {
        let (Ok(code), Some(list)) = (name.parse::<i64>(), list.as_array()) else {
            continue;
        };
        for token in list.iter().filter_map(Value::as_str) {
            named.insert(token.to_owned(), verdict(code, "", None, now));
        }
    }
    named
}

/// The error table (document 11234 and the SDK's enumeration).
pub(super) fn verdict(
    code: i64,
    message: &str,
    after: Option<Duration>,
    now: Timestamp,
) -> Verdict {
    let words = format!("{code} {message}");
    let words = words.trim_end();
    match code {
        // A duplicate was sent before.
        0 | 32 => accepted(None),
        -2 | 55 => rate_limited(after, words),
        13 => rate_limited(after.or(Some(SLOW_DOWN)), words),
        ..0 => unavailable(after, words),
        // 11 and 29 after a renewal as well.
        11 | 29 => mend(words, "a fresh access token was refused"),
        12 | 20..=24 => mend(words, "check the endpoint"),
        14..=17 => mend(words, "check app_key and master_secret"),
        18 | 19 => unavailable(after, &format!("{words}: check this machine's clock")),
        26..=28 | 30 | 59 => mend(words, "see OPPO's console"),
        33 => Verdict::QuotaExhausted {
            until: Some(until_beijing_midnight(now)),
            detail: texts::detail(words),
        },
        10_000 | 10_001 => token_dead(words),
        67 => refused(&format!(
            "{words}: the app was not granted this category or level"
        )),
        _ => refused(words),
    }
}

/// Whether a text has the shape of a registration id: 32 hex digits after an optional region and an optional brand before
/// that. The SDK lets 24 bare hex digits through.
pub(super) fn is_registration_id(token: &str) -> bool {
    let hex =
        |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    let region = |text: &str| {
        text == "EUEX" || text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase())
    };
    let brand = |text: &str| {
        (2..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let parts: Vec<&str> = token.splitn(4, '_').collect();
    match parts.as_slice() {
        [id] => hex(id, 32) || hex(id, 24),
        [r, id] => region(r) && hex(id, 32),
        [b, r, id] => brand(b) && region(r) && hex(id, 32),
        _ => false,
    }
}

/// Whether an id is of a phone on the mainland.
pub(super) fn is_home(token: &str) -> bool {
    let parts: Vec<&str> = token.split('_').collect();
    match parts.as_slice() {
        [_] => true,
        [region, _] | [_, region, _] => *region == "CN",
        _ => false,
    }
}

/// Deaths that mean another app's ids when all of a batch die of them.
pub(super) fn wrong_app(detail: &str) -> bool {
    detail.starts_with("10000")
}

/// Reads a post of receipts: an array of events, each for a list of registration ids. OPPO signs nothing.
pub(in crate::vendor) fn read_callback(
    request: &CallbackRequest<'_>,
) -> Result<Callback, CallbackError> {
    let malformed = |what: &str| Err(CallbackError::Malformed(what.to_owned()));
    let events = match receipts::json(request.body)? {
        Value::Array(events) => events,
        one @ Value::Object(_) => vec![one],
        _ => return malformed("the body is neither a list nor an event"),
    };
    let mut news = Vec::new();
    for event in &events {
        if !event.is_object() {
            return malformed("an event is not an object");
        }
        let kind = receipts::text(event.get("eventType"));
        let ids = receipts::text(event.get("registrationIds"));
        let receipt = Receipt {
            kind: receipt_kind(&kind.to_ascii_lowercase()),
            message: receipts::message(event.get("param")),
            vendor_id: event
                .get("messageId")
                .and_then(Value::as_str)
                .map(texts::detail),
            token: None,
            at: receipts::at(event.get("eventTime")),
            detail: texts::detail(&kind),
        };
        for id in receipts::tokens(&ids) {
            if news.len() >= receipts::RECEIPTS_MAX {
                return malformed("it names too many registration ids");
            }
            news.push(Receipt {
                token: Some(Secret::new(id)),
                ..receipt.clone()
            });
        }
    }
    Ok(Callback {
        receipts: news,
        signed: false,
        content_type: "text/plain",
        body: String::new(),
    })
}

/// Event names are not confirmed, so they are read by what they contain.
pub(super) fn receipt_kind(event: &str) -> ReceiptKind {
    if event.contains("arrive") {
        ReceiptKind::Delivered
    } else if event.contains("invalid") {
        ReceiptKind::TokenInvalid
    } else if event.contains("limit") {
        ReceiptKind::Failed(Reason::QuotaExhausted)
    } else {
        ReceiptKind::Other
    }
}
