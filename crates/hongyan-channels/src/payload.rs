//! What every vendor payload carries for the app, in one convention that the SDKs rely on.
//!
//! | key | what | when |
//! | --- | --- | --- |
//! | `hy_id` | the message id, as a UUID in lower case | always |
//! | `hy_data` | the message's `data`: a JSON object on APNs, the same as a JSON text at vendors that take only texts | it has `data` |
//! | `hy_url` | what a tap opens | it has `notification.click.url` |
//! | `hy_user` | [`user_hash`] of the user it is meant for: act on a tap only while that user is logged in | `click_guard` is `owner` and it is for one user |
//! | `hy_image` | the picture's URL | the vendor has no field for it |
//! | `hy_splash` | `"skip"`: open without the splash screen | `skip_splash` is true |
//!
//! | channel | where the keys are |
//! | --- | --- |
//! | `apns` | top level of the payload, beside `aps` |
//! | `fcm` | `message.data` |
//! | `huawei` | the JSON text `message.data`; also placeholders of the configured click intent |
//! | `harmony` | `payload.notification.clickAction.data`, and the JSON text `payload.extraData` of background messages |
//! | `meizu` | `messageJson.clickTypeInfo.parameters`, and the JSON text `content` of messages without a text |
//! | `honor` | the JSON text `data`; also placeholders of the configured click intent |
//! | `xiaomi` | the JSON text `payload`; all but `hy_data` also as `extra.hy_…` |
//! | `oppo` | the JSON text `notification.action_parameters` |
//! | `vivo` | `clientCustomMap`, as texts; also placeholders of the configured click intent |
//! | `webpush` | top level of the JSON that the service worker gets, beside `notification` |
//! | `jpush` | `extras` of each platform's notification; the JSON text `msg_content` of background messages |
//! | `getui` | the JSON text `payload` of each notification; the JSON text `transmission` of background messages |
//! | `umeng` | `extra` on Android and HarmonyOS, top level of the payload on iOS; the JSON text `custom` of background messages |
//! | `tpns` | the JSON text `message.android.custom_content`; on iOS `message.ios.custom_content` |
//! | `aliyun` | the JSON text `AndroidExtParameters`, `iOSExtParameters` or `HarmonyExtParameters`; also the body of a data message |
//! | `sms` | nowhere: a text has no place for them |

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hongyan_core::message::{ClickGuard, Target};
use hongyan_core::port::Outbound;
use hongyan_core::{AppId, Message, UserId};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

/// Who a message is for, as a client can check it without learning other users' ids: the first 9 bytes of
/// SHA-256(app, line feed, user) in base64url, 12 characters.
#[must_use]
pub fn user_hash(app: &AppId, user: &UserId) -> String {
    let whole = digest(&SHA256, format!("{app}\n{user}").as_bytes());
    URL_SAFE_NO_PAD.encode(whole.as_ref().get(..9).unwrap_or_default())
}

/// The keys with their values; `hy_data` is an object.
#[must_use]
pub fn keys(message: &Message) -> Map<String, Value> {
    let mut keys = Map::new();
    keys.insert("hy_id".to_owned(), message.id.to_string().into());
    if let Some(data) = &message.data {
        keys.insert("hy_data".to_owned(), Value::Object(data.clone()));
    }
    if let Some(click) = message.notification.as_ref().and_then(|n| n.click.as_ref()) {
        keys.insert("hy_url".to_owned(), click.url.as_str().into());
    }
    if message.options.click_guard == ClickGuard::Owner
        && let Target::Users(users) = &message.to
        && let [user] = users.as_slice()
    {
        keys.insert("hy_user".to_owned(), user_hash(&message.app, user).into());
    }
    if message.options.skip_splash == Some(true) {
        keys.insert("hy_splash".to_owned(), "skip".into());
    }
    keys
}

/// The same for vendors that take only texts: `hy_data` is JSON text.
#[must_use]
pub fn text_keys(message: &Message) -> Map<String, Value> {
    let mut keys = keys(message);
    if let Some(data) = keys.get_mut("hy_data") {
        *data = Value::String(data.to_string());
    }
    keys
}

/// A click intent of a credential with `{hy_id}`, `{hy_url}`, `{hy_data}` and `{hy_user}` filled in, escaped for a URL.
pub(crate) fn intent(template: &str, message: &Message) -> String {
    let keys = text_keys(message);
    let names = ["hy_id", "hy_url", "hy_data", "hy_user"];
    names.iter().fold(template.to_owned(), |intent, name| {
        let value = keys.get(*name).and_then(Value::as_str).unwrap_or_default();
        intent.replace(&format!("{{{name}}}"), &crate::texts::escaped(value))
    })
}

/// Merges `patch` over `target` as a JSON merge patch (RFC 7396): objects deeply, everything else replaces, `null`
/// removes.
pub fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(inner) => {
                let place = target
                    .entry(key.clone())
                    .or_insert_with(|| Value::Object(Map::new()));
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                if let Value::Object(place) = place {
                    merge(place, inner);
                }
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
}

/// The sender's own fields for a channel, if any.
pub(crate) fn vendor_fields(outbound: &Outbound, channel: &str) -> Map<String, Value> {
    outbound
        .message
        .options
        .vendor
        .iter()
        .find(|(id, _)| id.as_str() == channel)
        .map(|(_, fields)| fields.clone())
        .unwrap_or_default()
}

/// The first bytes of SHA-256 of a text as lower-case hex: job keys and numeric ids that are the same over all tries.
pub(crate) fn short_hash(text: &str, bytes: usize) -> String {
    let whole = digest(&SHA256, text.as_bytes());
    whole
        .as_ref()
        .iter()
        .take(bytes)
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// A number of 31 bits from a text, for vendors that name notifications by number.
pub(crate) fn number_of(text: &str) -> u32 {
    let whole = digest(&SHA256, text.as_bytes());
    let first = whole.as_ref().iter().take(4);
    first.fold(0u32, |n, b| (n << 8) | u32::from(*b)) & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::vendor::fixture;

    fn check(target: Value, patch: Value, want: Value) {
        let (Value::Object(mut target), Value::Object(patch)) = (target, patch) else {
            panic!("objects are wanted")
        };
        merge(&mut target, &patch);
        assert_eq!(Value::Object(target), want);
    }

    #[test]
    fn vendor_fields_are_merged_deeply() {
        check(
            json!({"a": {"b": 1, "c": [1]}, "d": 1}),
            json!({"a": {"c": [2], "e": null, "f": {"g": null, "h": 1}}, "d": null}),
            json!({"a": {"b": 1, "c": [2], "f": {"h": 1}}}),
        );
        check(
            json!({"a": 1}),
            json!({"a": {"b": 1}}),
            json!({"a": {"b": 1}}),
        );
    }

    #[test]
    fn every_key_of_the_convention_is_there_when_it_should_be() {
        let outbound = fixture::outbound();
        let keys = keys(&outbound.message);
        assert_eq!(keys["hy_id"], "018f0000-0000-7000-8000-000000000001");
        assert_eq!(keys["hy_data"], json!({"order": 42}));
        assert_eq!(keys["hy_url"], "app://order/42");
        assert_eq!(keys["hy_user"].as_str().unwrap().len(), 12);
        assert_eq!(text_keys(&outbound.message)["hy_data"], "{\"order\":42}");
        let mut message = (*outbound.message).clone();
        message.options.click_guard = ClickGuard::Anyone;
        message.data = None;
        message.notification = None;
        let bare = super::keys(&message);
        assert_eq!(bare.keys().collect::<Vec<_>>(), ["hy_id"]);
    }

    #[test]
    fn two_users_have_two_hashes() {
        let app = AppId::parse("demo").unwrap();
        let hash = |user| user_hash(&app, &UserId::parse(user).unwrap());
        assert_eq!(hash("u1"), hash("u1"));
        assert_ne!(hash("u1"), hash("u2"));
    }
}
