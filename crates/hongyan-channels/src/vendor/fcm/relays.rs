//! What Firebase passes on with a message to the two services behind it: APNs for iOS, Web Push for browsers. A token does not say
//! which of the three it leads to, so every message has all parts; Firebase takes the one of the device.

use hongyan_core::port::Outbound;
use serde_json::{Map, Value, json};

use crate::vendor::{apns, webpush};
use crate::{classes, payload};

/// Where Firebase keeps headers for a service behind it.
const RELAYS: [&str; 2] = ["apns", "webpush"];

/// The part for iOS. The alert is Firebase's own work; what the alert does not say is in `payload.aps`, unless a phone could get no
/// more than `room` bytes of it.
pub(super) fn apns(outbound: &Outbound, room: usize) -> Value {
    let options = &outbound.message.options;
    let silent = outbound.title.is_none() && outbound.body.is_none();
    let priority = if silent {
        5
    } else {
        classes::of(&outbound.message).apns_priority
    };
    let expiration = if options.ttl_s == Some(0) {
        0
    } else {
        outbound.expires_at.seconds().max(0)
    };
    let collapse = options.collapse_key.as_ref();
    let collapse = apns::collapse_text(collapse.unwrap_or(&outbound.dedup_key));
    let mut part = json!({"headers": {
        "apns-priority": priority.to_string(),
        "apns-expiration": expiration.to_string(),
        "apns-collapse-id": collapse,
    }});
    let payload = json!({"aps": apns::aps_without_alert(outbound)});
    if payload.to_string().len() <= room {
        part["payload"] = payload;
    }
    part
}

/// The part for browsers.
pub(super) fn webpush(outbound: &Outbound) -> Value {
    let urgency = classes::of(&outbound.message).webpush_urgency;
    let mut headers = json!({"TTL": super::ttl_s(outbound).to_string(), "Urgency": urgency});
    if let Some(key) = &outbound.message.options.collapse_key {
        headers["Topic"] = webpush::topic_of(key).into();
    }
    json!({ "headers": headers })
}

/// Merges the sender's fields of a message; a header is the same one in whatever case it is written.
pub(super) fn merge(message: &mut Map<String, Value>, extra: &Map<String, Value>) {
    for relay in RELAYS {
        let theirs = extra.get(relay).and_then(|part| part.get("headers"));
        let ours = message
            .get_mut(relay)
            .and_then(|part| part.get_mut("headers"));
        if let (Some(Value::Object(ours)), Some(Value::Object(theirs))) = (ours, theirs) {
            ours.retain(|name, _| !theirs.keys().any(|other| other.eq_ignore_ascii_case(name)));
        }
    }
    payload::merge(message, extra);
}
