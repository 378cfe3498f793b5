//! The `data` of a message: texts under keys that are not Google's own. A part may have its own, which then counts instead.

use hongyan_core::MessageId;
use serde_json::{Map, Value};

/// Parts of a message whose `data` takes the place of the message's.
const PARTS: [&str; 2] = ["android", "webpush"];

/// Whether Google takes the sender's `data`, of the message or of one of its parts.
pub(super) fn check(message: &Map<String, Value>) -> Result<(), String> {
    check_part(message, "")?;
    PARTS.iter().try_for_each(|part| check_part(message, part))
}

/// Whatever the sender's data is, the client must find its message.
pub(super) fn mark(message: &mut Map<String, Value>, id: MessageId) {
    let insert = |data: &mut Value| {
        if let Some(data) = data.as_object_mut() {
            data.insert("hy_id".to_owned(), id.to_string().into());
        }
    };
    let data = message
        .entry("data")
        .or_insert_with(|| Value::Object(Map::new()));
    insert(data);
    for part in PARTS {
        if let Some(data) = message.get_mut(part).and_then(|part| part.get_mut("data")) {
            insert(data);
        }
    }
}

fn check_part(message: &Map<String, Value>, parent: &str) -> Result<(), String> {
    let (part, path) = if parent.is_empty() {
        (message.get("data"), "vendor.fcm.data".to_owned())
    } else {
        let part = message.get(parent).and_then(|part| part.get("data"));
        (part, format!("vendor.fcm.{parent}.data"))
    };
    let data = match part {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(data)) => data,
        Some(_) => return Err(format!("{path} must be an object with texts")),
    };
    for (key, value) in data {
        let reserved = matches!(key.as_str(), "from" | "message_type")
            || ["google.", "gcm."].iter().any(|own| key.starts_with(own));
        if reserved {
            return Err(format!(
                "{path} must not have the key {key:?}: from, message_type, google.… and gcm.… are Google's own"
            ));
        }
        // Nothing is left of a key that is null.
        if !value.is_string() && !value.is_null() {
            return Err(format!(
                "{path} must have only texts, and {key:?} is none: write it as JSON text"
            ));
        }
    }
    Ok(())
}
