//! Meizu's receipts: a form with the events of a second in `cb`, and the console's receipt token.
//!
//! Source: GitHub MEIZUPUSH/PushAPI, HTTP document of 2025-04. Each batch is posted once; the answer is not looked at.

use hongyan_core::Secret;
use hongyan_core::port::{Callback, CallbackError, Receipt, ReceiptKind};
use serde_json::Value;

use crate::callback;
use crate::texts;

/// The events that are asked for: delivered and clicked.
pub(super) const WANTED: u32 = 3;

/// Reads a post. With a token in the credential, another one or none is refused.
pub(super) fn read(body: &[u8], token: Option<&Secret>) -> Result<Callback, CallbackError> {
    let form = callback::form(body);
    let events = callback::field(&form, "cb")
        .ok_or_else(|| CallbackError::Malformed("it has no form field cb".to_owned()))?;
    if let Some(token) = token {
        let given = callback::field(&form, "access_token").unwrap_or_default();
        if !callback::same(token.expose(), given.as_bytes()) {
            return Err(CallbackError::Signature(
                "access_token is not the credential's receipt_token: compare it with the console's receipt management".to_owned(),
            ));
        }
    }
    let events = callback::json(events.as_bytes())?;
    let events = events
        .as_object()
        .ok_or_else(|| CallbackError::Malformed("cb is not a JSON object".to_owned()))?;
    Ok(Callback {
        receipts: events.iter().flat_map(|(key, e)| entries(key, e)).collect(),
        signed: token.is_some(),
        content_type: "text/plain",
        body: String::new(),
    })
}

/// The receipts of one message and event: one for each target.
fn entries(key: &str, entry: &Value) -> Vec<Receipt> {
    let (id, of_key) = key.rsplit_once('-').unwrap_or((key, ""));
    let kind = match entry.get("type") {
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        _ => of_key.to_owned(),
    };
    let param = entry.get("param").and_then(Value::as_str);
    let receipt = |target: &str| Receipt {
        kind: match kind.as_str() {
            "1" => ReceiptKind::Delivered,
            "2" => ReceiptKind::Clicked,
            _ => ReceiptKind::Other,
        },
        message: param.and_then(callback::message),
        vendor_id: Some(texts::detail(id)).filter(|id| !id.is_empty()),
        token: Some(Secret::new(target)),
        at: None,
        detail: texts::detail(&format!("type {kind}")),
    };
    match entry.get("targets") {
        Some(Value::Array(targets)) => targets
            .iter()
            .filter_map(Value::as_str)
            .map(receipt)
            .collect(),
        Some(Value::String(targets)) => {
            let targets = targets.split(',').map(str::trim);
            targets.filter(|t| !t.is_empty()).map(receipt).collect()
        }
        _ => Vec::new(),
    }
}
