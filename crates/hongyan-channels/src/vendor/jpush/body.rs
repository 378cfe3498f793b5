//! The push object: our message in JPush's words, and what it hands on to each maker.

use bytes::Bytes;
use hongyan_core::port::Outbound;
use hongyan_core::{Class, Message, Reason};
use serde_json::{Map, Value, json};

use super::{ANDROID_BYTES_MAX, Config, NAME, TTL_MAX, TTL_VIP_MAX};
use crate::vendor::makers::{self, set};
use crate::{classes, payload, texts, vendor};

const COLLAPSE_BYTES_MAX: usize = 64;
/// Fields of `third_party_channel` that decide class and quota.
const MARKS: &[&str] = &[
    "category",
    "importance",
    "channel_id",
    "classification",
    "notify_level",
    "mi_template_id",
    "mi_template_param",
    "private_msg_template_id",
    "skip_quota",
];

/// A push object without its audience.
pub(super) struct Encoded {
    pub(super) body: Map<String, Value>,
    pub(super) downgraded: Option<String>,
}

impl Encoded {
    pub(super) fn with_tokens(&self, tokens: &[&str], cid: Option<&str>) -> Bytes {
        let mut body = self.body.clone();
        body.insert("audience".to_owned(), json!({"registration_id": tokens}));
        if let Some(cid) = cid {
            body.insert("cid".to_owned(), cid.into());
        }
        Value::Object(body).to_string().into()
    }
}

pub(super) fn encode(
    config: &Config,
    callback: Option<&str>,
    outbound: &Outbound,
) -> Result<Encoded, (Reason, String)> {
    let message = &outbound.message;
    let (class, downgraded) = config.grants.class_for(message)?;
    let keys = payload::text_keys(message);
    let mut body = Map::new();
    body.insert("platform".to_owned(), json!(config.platforms));
    if outbound.title.is_none() && outbound.body.is_none() {
        let hidden = json!({
            "msg_content": Value::Object(keys.clone()).to_string(),
            "content_type": "text", "extras": keys,
        });
        body.insert("message".to_owned(), hidden);
    } else {
        let shown = shown(config, outbound, class, &keys);
        body.insert("notification".to_owned(), Value::Object(shown));
    }
    let place = message
        .options
        .collapse_key
        .as_ref()
        .unwrap_or(&outbound.dedup_key);
    let collapse = if place.len() <= COLLAPSE_BYTES_MAX {
        place.clone()
    } else {
        payload::short_hash(place, 16)
    };
    let ttl_max = if config.vip { TTL_VIP_MAX } else { TTL_MAX };
    let texts = texts::title_and_text(outbound);
    body.insert(
        "options".to_owned(),
        json!({
            "time_to_live": vendor::ttl(outbound, ttl_max).as_secs(),
            "apns_production": config.apns_production,
            "apns_collapse_id": collapse,
            "classification": u8::from(class != Class::Marketing),
            "third_party_channel": third_party(config, message, class, texts),
        }),
    );
    if let (true, Some(url)) = (config.vip, callback) {
        let params = json!({"hy_id": message.id.to_string()});
        body.insert(
            "callback".to_owned(),
            json!({"url": url, "type": 3, "params": params}),
        );
    }
    merge(&mut body, config, outbound, class);
    check_sizes(config, &body)?;
    Ok(Encoded { body, downgraded })
}

fn shown(
    config: &Config,
    outbound: &Outbound,
    class: Class,
    keys: &Map<String, Value>,
) -> Map<String, Value> {
    let message = &outbound.message;
    let notification = message.notification.as_ref();
    let marks = classes::of_class(message, class);
    let (title, text) = texts::title_and_text(outbound);
    let badge = outbound.badge.map(|badge| badge.min(99));
    let image = notification.and_then(|n| n.image.as_deref());
    let group = notification.and_then(|n| n.group.as_deref());
    let sound = notification.and_then(|n| n.sound.as_deref());
    let named = sound.filter(|sound| *sound != "default");
    let intent = config
        .click_intent
        .as_ref()
        .map(|template| json!({"url": makers::intent(template, message)}));
    let mut shown = Map::from_iter([("alert".to_owned(), text.into())]);
    if config.has("android") {
        let mut android = json!({
            "alert": text, "title": title, "extras": keys,
            "priority": match marks.fcm_notification {
                "PRIORITY_HIGH" => 1,
                "PRIORITY_LOW" => -1,
                _ => 0,
            },
            "alert_type": if marks.sounds { -1 } else { 0 },
        });
        set(
            &mut android,
            "channel_id",
            config.makers.android(message, class),
        );
        set(&mut android, "sound", named);
        set(&mut android, "intent", intent.clone());
        if let Some(image) = image {
            set(&mut android, "style", Some(3));
            set(&mut android, "big_pic_path", Some(image));
        }
        if let Some(badge) = badge {
            set(&mut android, "badge_set_num", Some(badge));
            set(&mut android, "badge_class", config.badge_class.as_deref());
        }
        shown.insert("android".to_owned(), android);
    }
    if config.has("ios") {
        let mut ios = json!({
            "alert": {"title": title, "body": text}, "extras": keys,
            "interruption-level": marks.apns_interruption,
        });
        let silent = sound.is_none() && !marks.sounds;
        set(
            &mut ios,
            "sound",
            (!silent).then(|| sound.unwrap_or("default")),
        );
        set(&mut ios, "badge", badge);
        set(&mut ios, "thread-id", group);
        if let Some(image) = image {
            set(&mut ios, "mutable-content", Some(true));
            if let Some(extras) = ios.get_mut("extras").and_then(Value::as_object_mut) {
                extras.insert("hy_image".to_owned(), image.into());
            }
        }
        shown.insert("ios".to_owned(), ios);
    }
    if config.has("hmos") {
        let mut hmos = json!({
            "alert": text, "title": title, "category": marks.huawei_category, "extras": keys,
        });
        set(&mut hmos, "badge_set_num", badge);
        shown.insert("hmos".to_owned(), hmos);
    }
    shown
}

/// What JPush hands on to each maker.
fn third_party(config: &Config, message: &Message, class: Class, texts: (&str, &str)) -> Value {
    let marks = classes::of_class(message, class);
    let mut makers = json!({
        "huawei": {"category": marks.huawei_category, "importance": marks.huawei_importance},
        "honor": {"importance": marks.honor_importance},
        "oppo": {"category": marks.oppo_category, "notify_level": marks.oppo_notify_level},
        "vivo": {"category": marks.vivo_category, "classification": marks.vivo_classification},
        "xiaomi": {}, "meizu": {},
    });
    if let Some(part) = config.makers.xiaomi(message, class, texts) {
        set(&mut makers["xiaomi"], "channel_id", Some(part.channel_id));
        if let Some((id, params)) = part.template {
            set(&mut makers["xiaomi"], "mi_template_id", Some(id));
            let params = Value::Object(params).to_string();
            set(&mut makers["xiaomi"], "mi_template_param", Some(params));
        }
    }
    set(
        &mut makers["oppo"],
        "channel_id",
        config.makers.oppo(message, class),
    );
    if let Some(makers) = makers.as_object_mut() {
        for maker in makers.values_mut() {
            set(maker, "distribution", config.distribution.as_deref());
        }
        makers.retain(|_, maker| maker.as_object().is_some_and(|m| !m.is_empty()));
    }
    makers
}

/// The sender's own fields, which never move the target, hide the message or lift its class.
fn merge(body: &mut Map<String, Value>, config: &Config, outbound: &Outbound, class: Class) {
    let extra = payload::vendor_fields(outbound, NAME);
    if extra.is_empty() {
        return;
    }
    let kept = body.clone();
    payload::merge(body, &extra);
    for target in ["audience", "cid"] {
        body.remove(target);
    }
    if let Some(callback) = kept.get("callback") {
        body.insert("callback".to_owned(), callback.clone());
    }
    let id = Value::from(outbound.message.id.to_string());
    let places = [
        "/notification/android",
        "/notification/ios",
        "/notification/hmos",
        "/message",
    ];
    let ours = Value::Object(kept.clone());
    let mut merged = Value::Object(std::mem::take(body));
    let mut named = false;
    for place in places {
        if ours.pointer(place).is_some()
            && let Some(Value::Object(part)) = merged.pointer_mut(place)
        {
            let extras = part.entry("extras").or_insert_with(|| json!({}));
            if !extras.is_object() {
                *extras = json!({});
            }
            set(extras, "hy_id", Some(id.clone()));
            named = true;
        }
    }
    if class == Class::Marketing && !config.class_override {
        named &= restore_marks(&mut merged, &ours);
    }
    *body = match merged {
        Value::Object(merged) if named => merged,
        _ => kept,
    };
}

/// Puts the marks of a marketing message back; false when the options are not an object any more.
fn restore_marks(merged: &mut Value, ours: &Value) -> bool {
    let Some(options) = merged.get_mut("options").and_then(Value::as_object_mut) else {
        return false;
    };
    options.insert("classification".to_owned(), 0.into());
    let makers = options
        .entry("third_party_channel")
        .or_insert_with(|| json!({}));
    let Some(makers) = makers.as_object_mut() else {
        return false;
    };
    for name in [
        "xiaomi", "huawei", "honor", "meizu", "oppo", "vivo", "fcm", "nio", "asus", "hmos",
    ] {
        let of_ours = ours.pointer(&format!("/options/third_party_channel/{name}"));
        let Some(maker) = makers.get_mut(name).and_then(Value::as_object_mut) else {
            match of_ours {
                Some(of_ours) => makers.insert(name.to_owned(), of_ours.clone()),
                None => makers.remove(name),
            };
            continue;
        };
        for mark in MARKS {
            match of_ours.and_then(|o| o.get(mark)) {
                Some(value) => maker.insert((*mark).to_owned(), value.clone()),
                None => maker.remove(*mark),
            };
        }
    }
    for (place, mark) in [
        ("android", "channel_id"),
        ("android", "category"),
        ("hmos", "category"),
    ] {
        let of_ours = ours
            .pointer(&format!("/notification/{place}/{mark}"))
            .cloned();
        if let Some(Value::Object(part)) = merged.pointer_mut(&format!("/notification/{place}")) {
            match of_ours {
                Some(value) => part.insert(mark.to_owned(), value),
                None => part.remove(mark),
            };
        }
    }
    true
}

fn check_sizes(config: &Config, body: &Map<String, Value>) -> Result<(), (Reason, String)> {
    let bytes = |value: Option<&Value>| value.map_or(0, |v| v.to_string().len());
    let notification = body.get("notification");
    let message = bytes(body.get("message"));
    let parts = [
        (
            "Android",
            bytes(notification.and_then(|n| n.get("android"))) + message,
            ANDROID_BYTES_MAX,
        ),
        (
            "iOS",
            bytes(notification.and_then(|n| n.get("ios"))),
            config.ios_bytes_max,
        ),
        (
            "HarmonyOS",
            bytes(notification.and_then(|n| n.get("hmos"))),
            ANDROID_BYTES_MAX,
        ),
    ];
    for (name, size, max) in parts {
        if size > max {
            return Err((
                Reason::PayloadTooLarge,
                format!(
                    "the {name} part has {size} bytes; JPush takes {max} (platforms that the app has not can be left out of the credential)"
                ),
            ));
        }
    }
    Ok(())
}
