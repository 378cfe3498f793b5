//! A push on its way from a vendor to a phone, after the vendor accepted it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a vendor brings to a phone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Push {
    /// hongyan's message id (`hy_id` in the custom data), if the payload carries one.
    pub(crate) message: Option<String>,
    pub(crate) title: String,
    pub(crate) body: String,
    /// Whether the system shows it; a silent push goes to the app only.
    pub(crate) visible: bool,
    /// Replaces an earlier push of the same key.
    pub(crate) collapse: Option<String>,
    /// When the vendor stops trying, milliseconds since the epoch.
    pub(crate) expires_ms: i64,
    /// Whether the vendor holds it for a phone that is offline.
    pub(crate) stored: bool,
    /// Where the vendor reports what became of it.
    pub(crate) receipt: Option<Receipt>,
}

/// What a vendor needs to know to report on a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) channel: crate::channel::Channel,
    /// Callback URL of this push (Xiaomi); Huawei's is configured for the app.
    pub(crate) url: String,
    /// The sender's app id.
    pub(crate) account: String,
    /// The vendor's id of the push (Xiaomi message id, Huawei request id).
    pub(crate) id: String,
    pub(crate) token: String,
    /// Callback parameter (Xiaomi) or `biTag` (Huawei).
    pub(crate) param: String,
    /// Bit sum of wished events (Xiaomi); all ones elsewhere.
    pub(crate) kinds: u32,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    Clicked,
    TargetInvalid,
    NotShown,
    OverQuota,
}

/// Text of a JSON field, empty when absent.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// `hy_id` in custom data that may be an object or JSON text.
pub(crate) fn message_id(data: &Value) -> Option<String> {
    match data {
        Value::Object(object) => object.get("hy_id")?.as_str().map(str::to_owned),
        Value::String(text) => match serde_json::from_str::<Value>(text).ok()? {
            inner @ Value::Object(_) => message_id(&inner),
            _ => None,
        },
        _ => None,
    }
}

/// `hy_id=` or `"hy_id"` in an intent URI, whose extras are written `S.hy_id=…;`, or as a query.
pub(crate) fn message_id_in_intent(intent: &str) -> Option<String> {
    let (_, rest) = intent.split_once("hy_id=")?;
    let id: String = rest
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(64)
        .collect();
    (!id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_message_id_is_found_where_senders_put_it() {
        assert_eq!(message_id(&json!({"hy_id": "a"})).as_deref(), Some("a"));
        assert_eq!(
            message_id(&json!("{\"hy_id\":\"b\"}")).as_deref(),
            Some("b")
        );
        assert_eq!(message_id(&json!("not json")), None);
        assert_eq!(message_id(&json!("\"{}\"")), None);
        let intent = "intent://x/y#Intent;scheme=app;S.hy_id=0190-ab;end";
        assert_eq!(message_id_in_intent(intent).as_deref(), Some("0190-ab"));
        assert_eq!(
            message_id_in_intent("app://x?hy_id=12&b=1").as_deref(),
            Some("12")
        );
        assert_eq!(message_id_in_intent("app://x"), None);
    }
}
