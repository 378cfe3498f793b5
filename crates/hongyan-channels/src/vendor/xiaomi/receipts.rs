//! What Xiaomi says about a message later: posts to the callback address, and the list of invalid regIds.
//!
//! Sources: dev.mi.com pages pId=1559 and 1558, official MiPush Java server SDK 2.2 (read 2026-11). Unverified: the words
//! of `barStatus`, what repeats a post, and the shape of the feedback answer, which is the SDK's.

use hongyan_core::port::{CallbackError, ChannelError, Receipt, ReceiptKind};
use hongyan_core::{Reason, Secret, Timestamp};
use serde_json::Value;

use crate::callback;
use crate::http::Answer;
use crate::texts;
use crate::vendor::counted::Counts;

/// The most that one device gets of a kind in a day (1, 5 or 8): a quota above is the channel's.
const DEVICE_QUOTA_MAX: u64 = 8;
/// The events that are asked for: delivered, clicked, regId invalid, switched off, filtered, over quota.
pub(super) const WANTED: u32 = 1 + 2 + 16 + 32 + 64 + 128;

/// Reads a post: the form field `data`, a JSON object of message ids.
pub(super) fn read(body: &[u8], ignore_bar_status: bool) -> Result<Vec<Receipt>, CallbackError> {
    let form = callback::form(body);
    let data = callback::field(&form, "data")
        .ok_or_else(|| CallbackError::Malformed("it has no form field data".to_owned()))?;
    let data = callback::json(data.as_bytes())?;
    let messages = data
        .as_object()
        .ok_or_else(|| CallbackError::Malformed("data is not a JSON object".to_owned()))?;
    let mut receipts = Vec::new();
    for (id, entry) in messages {
        entries(id, entry, ignore_bar_status, &mut receipts);
    }
    Ok(receipts)
}

/// The receipts of one message: one for each target.
fn entries(id: &str, entry: &Value, ignore_bar_status: bool, receipts: &mut Vec<Receipt>) {
    let text = |name: &str| match entry.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let kind = text("type");
    let error = text("errorCode");
    let mut detail = format!("type {kind}");
    if !error.is_empty() {
        detail.push_str(&format!(" errorCode {error}"));
    }
    let counts = entry.get("extra").and_then(counts_of);
    if let Some((acked, quota)) = counts {
        detail.push_str(&format!(" ack {acked} quota {quota}"));
    }
    let at: Option<i64> = text("timestamp").parse().ok();
    let targets = text("targets");
    let off = !ignore_bar_status && text("barStatus") == "Disable";
    for target in targets.split(',').map(str::trim).filter(|t| !t.is_empty()) {
        let receipt = Receipt {
            kind: meaning(&kind, counts),
            message: callback::message(&text("param")),
            vendor_id: Some(texts::detail(id)).filter(|id| !id.is_empty()),
            token: Some(Secret::new(target)),
            at: at.map(Timestamp),
            detail: texts::detail(&detail),
        };
        // It reached the device, where the app may show nothing.
        if off && receipt.kind == ReceiptKind::Delivered {
            receipts.push(receipt.clone());
            receipts.push(Receipt {
                kind: ReceiptKind::PermissionOff,
                detail: "barStatus Disable".to_owned(),
                ..receipt
            });
        } else {
            receipts.push(receipt);
        }
    }
}

/// How many were delivered and how many may be, where a receipt tells it.
fn counts_of(extra: &Value) -> Option<(u64, u64)> {
    let number = |name: &str| match extra.get(name)? {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    };
    Some((number("ack")?, number("quota")?))
}

fn meaning(kind: &str, counts: Option<(u64, u64)>) -> ReceiptKind {
    match kind {
        "1" => ReceiptKind::Delivered,
        "2" => ReceiptKind::Clicked,
        "16" => ReceiptKind::TokenInvalid,
        "32" => ReceiptKind::PermissionOff,
        // The sender's own conditions, in options.vendor, left this device out.
        "64" => ReceiptKind::Failed(Reason::PayloadRejected),
        "128" => match counts {
            Some((acked, quota)) if quota > DEVICE_QUOTA_MAX && acked >= quota => {
                ReceiptKind::OverQuota
            }
            _ => ReceiptKind::Failed(Reason::QuotaExhausted),
        },
        "1024" => ReceiptKind::Failed(Reason::Expired),
        _ => ReceiptKind::Other,
    }
}

/// Reads one answer of the feedback host. It has no news when it was asked too often.
pub(super) fn invalid(answer: &Answer) -> Result<Vec<Receipt>, ChannelError> {
    let failed = |why: String| ChannelError::Failed {
        what: "the list of invalid regIds could not be read",
        source: why.into(),
    };
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = match body.get("code") {
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let list = match code {
        Some(0) => body.pointer("/data/list").or_else(|| body.get("data")),
        // Asked too often; nothing more.
        Some(10030 | 10032 | 10035) => None,
        Some(code) => {
            let reason = body.get("reason").and_then(Value::as_str);
            let words = texts::detail(reason.unwrap_or_default());
            return Err(failed(format!("Xiaomi answered {code} {words}")));
        }
        None => return Err(failed(format!("Xiaomi answered status {}", answer.status))),
    };
    let list = list.and_then(Value::as_array).into_iter().flatten();
    let tokens = list.filter_map(Value::as_str).filter(|t| !t.is_empty());
    Ok(tokens
        .map(|token| Receipt {
            kind: ReceiptKind::TokenInvalid,
            message: None,
            vendor_id: None,
            token: Some(Secret::new(token)),
            at: None,
            detail: "in Xiaomi's list of invalid regIds".to_owned(),
        })
        .collect())
}

/// What the tracer says of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traced {
    Counts(Counts),
    /// It does not know the push, or its answer makes no sense.
    Nothing,
    /// It was asked too often (10039), or may not be asked (10038, a wrong secret).
    Refused,
}

/// Reads an answer of the tracer: the push under `data.data`, an object or a list with one, its numbers perhaps as texts.
pub(super) fn traced(answer: &Answer) -> Traced {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let number = |value: Option<&Value>| match value {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    match number(body.get("code")) {
        Some(0) => {}
        Some(10038 | 10039 | 21301..=21303 | 22006..=22008) => return Traced::Refused,
        _ => return Traced::Nothing,
    }
    let data = body.pointer("/data/data").or_else(|| body.get("data"));
    let push = data.and_then(|data| data.as_array().map_or(Some(data), |list| list.first()));
    let count = |name: &str| number(push.and_then(|push| push.get(name)));
    match count("delivered") {
        Some(delivered) => Traced::Counts(Counts {
            delivered,
            displayed: 0,
            clicked: count("click").unwrap_or(0),
            dismissed: 0,
        }),
        None => Traced::Nothing,
    }
}

#[cfg(test)]
mod tests;
