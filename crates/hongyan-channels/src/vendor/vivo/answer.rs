//! What vivo says: answers to calls, and posts about deliveries.

use std::collections::BTreeMap;

use hongyan_core::port::{Callback, CallbackError, CallbackRequest, Receipt, ReceiptKind};
use hongyan_core::{Reason, Secret, Timestamp, Verdict};
use serde_json::Value;

use super::OPENS_AT;
use crate::answer::{
    accepted, mend, rate_limited, refused, retry_after, token_dead, unavailable, unreadable,
    until_beijing_hour, until_beijing_midnight,
};
use crate::http::Answer;
use crate::vendor::Decoded;
use crate::{receipts, texts};

/// `invalidUser.status` of an id that was not seen for long.
const INACTIVE: i64 = 3;

pub(super) fn number(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn code_of(answer: &Answer) -> Option<i64> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    number(body.get("result"))
}

/// One table for all calls.
pub(in crate::vendor) fn decode(answer: &Answer, now: Timestamp, keeps_inactive: bool) -> Decoded {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let after = retry_after(&answer.headers, now);
    let Some(code) = number(body.get("result")) else {
        let words = format!("vivo answered status {}", answer.status);
        return Decoded::all(match answer.status {
            429 => rate_limited(after, &words),
            500..=599 => unavailable(after, &words),
            401 | 403 => mend(&words, "check app_id, app_key and app_secret"),
            404 => mend(&words, "check the endpoint"),
            400..=499 => refused(&words),
            status => unreadable(status),
        });
    };
    let desc = body.get("desc").and_then(Value::as_str).unwrap_or_default();
    let words = format!("{code} {desc}");
    let words = words.trim_end();
    let id = [body.get("taskId"), body.get("requestId")]
        .into_iter()
        .map(receipts::text)
        .find(|id| !id.is_empty());
    let mut decoded = Decoded::all(match code {
        0 => accepted(id.as_deref()),
        10_000 => mend(words, "check app_id, app_key and app_secret"),
        10_094 => mend(words, "check app_id"),
        10_040 | 10_500..=10_599 => unavailable(after, words),
        10_070 | 10_073 | 10_252 | 10_254 => Verdict::QuotaExhausted {
            until: Some(until_beijing_midnight(now)),
            detail: texts::detail(words),
        },
        10_071 => Verdict::QuotaExhausted {
            until: Some(until_beijing_hour(now, OPENS_AT)),
            detail: texts::detail(&format!(
                "{words}: operation messages go from seven to 23 in Beijing"
            )),
        },
        10_072 => rate_limited(after, words),
        10_085 | 10_104 => refused(&format!(
            "{words}: vivo refuses texts that look like a test (only digits, Latin letters or symbols, brackets, 测试)"
        )),
        10_302 => token_dead(words),
        10_001..=10_199 => refused(words),
        // Codes that the table does not have: another try.
        _ => unavailable(after, words),
    });
    decoded.named = invalid(&body, keeps_inactive);
    decoded
}

/// The ids that an answer names, each with what vivo says about it.
pub(super) fn invalid(body: &Value, keeps_inactive: bool) -> BTreeMap<String, Verdict> {
    let lists = [
        body.get("invalidUser"),
        body.get("invalidUsers"),
        body.pointer("/data/invalidUsers"),
        body.get("data"),
    ];
    let mut named = BTreeMap::new();
    for list in lists.into_iter().flatten() {
        let items = match list {
            Value::Array(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        };
        for item in items {
            let id = receipts::text(item.get("userid").or_else(|| item.get("userId")));
            if id.is_empty() {
                continue;
            }
            let status = number(item.get("status")).unwrap_or(1);
            let verdict = match status {
                1 => token_dead("invalid user 1: not found for this app"),
                2 => token_dead("invalid user 2: uninstalled, unsubscribed or cleared"),
                INACTIVE if keeps_inactive => Verdict::Refused {
                    reason: Reason::TokenInvalid,
                    detail: "invalid user 3: inactive for long".to_owned(),
                },
                INACTIVE => token_dead("invalid user 3: inactive for long"),
                4 => refused("invalid user 4: not a test user; add the device in vivo's console"),
                other => refused(&format!("invalid user {other}")),
            };
            named.insert(id, verdict);
        }
    }
    named
}

/// A regId is a text without commas; older ones are 23 digits.
pub(super) fn is_reg_id(token: &str) -> bool {
    (16..=256).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

/// Deaths that mean another app's ids when all of a batch die of them.
pub(super) fn wrong_app(detail: &str) -> bool {
    detail.starts_with("10302") || detail.starts_with("invalid user 1")
}

/// Reads a post of receipts: an object keyed by task id. vivo signs nothing.
pub(in crate::vendor) fn read_callback(
    request: &CallbackRequest<'_>,
) -> Result<Callback, CallbackError> {
    let malformed = |what: &str| Err(CallbackError::Malformed(what.to_owned()));
    let Value::Object(tasks) = receipts::json(request.body)? else {
        return malformed("the body is not an object");
    };
    let mut news = Vec::new();
    for (task, told) in &tasks {
        let items = match told {
            Value::Array(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        };
        for item in items {
            if !item.is_object() {
                return malformed("what it says about a task is not an object");
            }
            let (kind, detail) = receipt_kind(item);
            let receipt = Receipt {
                kind,
                message: receipts::message(item.get("param")),
                vendor_id: Some(texts::detail(task)),
                token: None,
                at: receipts::at(item.get("ackTime")),
                detail: texts::detail(&detail),
            };
            let targets = receipts::text(item.get("targets"));
            for id in receipts::tokens(&targets) {
                if news.len() >= receipts::RECEIPTS_MAX {
                    return malformed("it names too many targets");
                }
                news.push(Receipt {
                    token: Some(Secret::new(id)),
                    ..receipt.clone()
                });
            }
        }
    }
    Ok(Callback {
        receipts: news,
        signed: false,
        content_type: "application/json",
        body: r#"{"errno":0,"errmsg":"success"}"#.to_owned(),
    })
}

/// Delivered, unless there is a mark of failure, whose numbers are not confirmed: then nothing is claimed but a limit that
/// is called one.
pub(super) fn receipt_kind(item: &Value) -> (ReceiptKind, String) {
    let kind = receipts::text(item.get("ackType"));
    let failure = receipts::text(item.get("subErrorCode"));
    let words = format!("ackType {kind} {failure}");
    let words = words.trim_end();
    let lower = words.to_ascii_lowercase();
    let marked = ["limit", "control", "daily"]
        .iter()
        .any(|w| lower.contains(w));
    let kind = if marked {
        ReceiptKind::Failed(Reason::QuotaExhausted)
    } else if !matches!(failure.trim(), "" | "0") || lower.contains("fail") {
        ReceiptKind::Other
    } else {
        ReceiptKind::Delivered
    };
    (kind, words.to_owned())
}
