//! JPush's receipts: a JSON list, signed with the app's own key in HTTP Basic; and its question whether a URL is ours.

use hongyan_core::port::{Callback, CallbackError, CallbackRequest, Receipt, ReceiptKind};
use hongyan_core::{MessageId, Secret, Timestamp};
use serde_json::Value;

use crate::callback::same;
use crate::texts::detail;

/// Items of one post that are read; JPush sends 100.
const ITEMS_MAX: usize = 1000;
/// Longest word that is echoed, bytes.
const ECHO_BYTES_MAX: usize = 128;

pub(super) fn read(basic: &str, request: &CallbackRequest<'_>) -> Result<Callback, CallbackError> {
    let signed = match request.header("authorization") {
        None => false,
        Some(given) if same(given.trim().as_bytes(), basic.as_bytes()) => true,
        Some(_) => {
            return Err(CallbackError::Signature(
                "the Authorization header is not that of the app".to_owned(),
            ));
        }
    };
    let answer = |receipts: Vec<Receipt>, body: String| Callback {
        receipts,
        signed,
        content_type: "text/plain; charset=utf-8",
        body,
    };
    let malformed = |why: String| match signed {
        true => CallbackError::SignedMalformed(why),
        false => CallbackError::Malformed(why),
    };
    if request.method == "GET" {
        let echo = echo(request.url)
            .ok_or_else(|| malformed("echostr is missing or strange".to_owned()))?;
        return Ok(answer(Vec::new(), echo));
    }
    let body: Value =
        serde_json::from_slice(request.body).map_err(|error| malformed(error.to_string()))?;
    let items = match &body {
        Value::Array(items) => items.as_slice(),
        Value::Object(object) => match object.get("data").and_then(Value::as_array) {
            Some(items) => items.as_slice(),
            None => std::slice::from_ref(&body),
        },
        _ => return Err(malformed("it is no list".to_owned())),
    };
    let receipts = items.iter().take(ITEMS_MAX).filter_map(receipt).collect();
    Ok(answer(receipts, "ok".to_owned()))
}

/// JPush asks with a random word and wants it back.
fn echo(url: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let word = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("echostr="))?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (word.len() <= ECHO_BYTES_MAX && word.bytes().all(plain)).then(|| word.to_owned())
}

fn receipt(item: &Value) -> Option<Receipt> {
    let text = |names: &[&str]| {
        names.iter().find_map(|name| match item.get(name)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
    };
    let kind = match text(&["type"]).as_deref() {
        Some("1") => ReceiptKind::Delivered,
        Some("2") => ReceiptKind::Clicked,
        _ => ReceiptKind::Other,
    };
    let message = item
        .pointer("/params/hy_id")
        .and_then(Value::as_str)
        .and_then(|id| MessageId::parse(id).ok());
    let vendor_id = text(&["msgid", "msg_id"]).map(|id| detail(&id));
    if message.is_none() && vendor_id.is_none() {
        return None;
    }
    let seconds = text(&["sent_time"]).and_then(|at| at.parse::<i64>().ok());
    Some(Receipt {
        kind,
        message,
        vendor_id,
        token: text(&["registration_id", "rid", "userid"])
            .filter(|token| token.len() <= 512)
            .map(Secret::new),
        at: seconds
            .filter(|at| (0..=9_999_999_999).contains(at))
            .map(|at| Timestamp(at * 1000)),
        detail: detail(&text(&["error", "channel"]).unwrap_or_default()),
    })
}
