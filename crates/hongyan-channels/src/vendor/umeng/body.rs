//! The body of a send: our message in Umeng's words, and what it hands on to each maker.

use std::time::Duration;

use bytes::Bytes;
use hongyan_core::port::Outbound;
use hongyan_core::{Class, Reason, Timestamp};
use serde_json::{Map, Value, json};

use super::{CAPABILITY, Config, NAME, Platform};
use crate::vendor::makers::set;
use crate::{classes, payload, texts, vendor};

/// `big_text`, characters.
const BIG_BODY_CHARS_MAX: usize = 120;
const COLLAPSE_BYTES_MAX: usize = 64;
const SECOND: Duration = Duration::from_secs(1);

/// A body without its targets, its type and its time stamp.
pub(super) struct Encoded {
    pub(super) body: Map<String, Value>,
    pub(super) downgraded: Option<String>,
}

impl Encoded {
    pub(super) fn with_tokens(&self, tokens: &[&str], now: Timestamp) -> Bytes {
        let mut body = self.body.clone();
        let kind = if tokens.len() == 1 {
            "unicast"
        } else {
            "listcast"
        };
        body.insert("type".to_owned(), kind.into());
        body.insert("device_tokens".to_owned(), tokens.join(",").into());
        body.insert("timestamp".to_owned(), now.seconds().to_string().into());
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
    let payload = match config.platform {
        Platform::Ios => ios(outbound, class, &keys),
        Platform::Android => android(outbound, class, &keys),
        Platform::Harmony => harmony(outbound, &keys),
    };
    // Up to the next second: Umeng refuses a time that is past.
    let life = vendor::ttl(outbound, CAPABILITY.ttl_max - SECOND) + SECOND;
    let mut policy = json!({"expire_time": china(outbound.now.plus(life))});
    if config.platform == Platform::Ios {
        let place = message.options.collapse_key.as_ref();
        let place = place.unwrap_or(&outbound.dedup_key);
        let collapse = if place.len() <= COLLAPSE_BYTES_MAX {
            place.clone()
        } else {
            payload::short_hash(place, 16)
        };
        set(&mut policy, "apns_collapse_id", Some(collapse));
    }
    let mut body = json!({
        "appkey": config.app_key,
        "payload": payload,
        "policy": policy,
        "production_mode": if config.production { "true" } else { "false" },
        "category": u8::from(class != Class::Marketing),
        "description": message.id.to_string(),
    });
    let properties = channel_properties(config, outbound, class);
    set(&mut body, "channel_properties", properties);
    if let Some(id) = config.makers.android(message, class) {
        set(
            &mut body,
            "local_properties",
            Some(json!({"channel_id": id})),
        );
    }
    if let Some(url) = callback {
        set(&mut body, "receipt_url", Some(url));
        set(&mut body, "receipt_type", Some("3"));
        let params = json!({"hy_id": message.id.to_string()});
        set(&mut body, "callback_params", Some(params));
    }
    let body = merged(body, config, outbound, class);
    let size = body.get("payload").map_or(0, |p| p.to_string().len());
    if size > config.payload_bytes_max {
        return Err((
            Reason::PayloadTooLarge,
            format!(
                "the payload has {size} bytes; Umeng takes {}",
                config.payload_bytes_max
            ),
        ));
    }
    Ok(Encoded { body, downgraded })
}

fn android(outbound: &Outbound, class: Class, keys: &Map<String, Value>) -> Value {
    if outbound.title.is_none() && outbound.body.is_none() {
        let custom = Value::Object(keys.clone()).to_string();
        return json!({"display_type": "message", "body": {"custom": custom}, "extra": keys});
    }
    let source = outbound.message.notification.as_ref();
    let (title, text) = texts::title_and_text(outbound);
    let sounds = classes::of_class(&outbound.message, class).sounds;
    let sound = source.and_then(|n| n.sound.as_deref());
    let rings = if sounds || sound.is_some() {
        "true"
    } else {
        "false"
    };
    let mut body = json!({
        "ticker": title, "title": title, "text": text, "after_open": "go_app",
        "play_sound": rings, "play_vibrate": rings, "play_lights": rings,
    });
    let image = source.and_then(|n| n.image.as_deref());
    set(&mut body, "expand_image", image);
    set(&mut body, "sound", sound.filter(|s| *s != "default"));
    let badge = outbound.badge.filter(|b| *b > 0).map(|b| b.min(99));
    set(&mut body, "set_badge", badge);
    json!({"display_type": "notification", "body": body, "extra": keys})
}

fn ios(outbound: &Outbound, class: Class, keys: &Map<String, Value>) -> Value {
    let mut payload = Value::Object(keys.clone());
    if outbound.title.is_none() && outbound.body.is_none() {
        set(&mut payload, "aps", Some(json!({"content-available": 1})));
        return payload;
    }
    let source = outbound.message.notification.as_ref();
    let marks = classes::of_class(&outbound.message, class);
    let (title, text) = texts::title_and_text(outbound);
    let mut aps = json!({
        "alert": {"title": title, "body": text},
        "interruption-level": marks.apns_interruption,
    });
    let sound = source.and_then(|n| n.sound.as_deref());
    let usual = marks.sounds.then_some("default");
    set(&mut aps, "sound", sound.or(usual));
    set(&mut aps, "badge", outbound.badge);
    set(
        &mut aps,
        "thread-id",
        source.and_then(|n| n.group.as_deref()),
    );
    if let Some(image) = source.and_then(|n| n.image.as_deref()) {
        set(&mut aps, "mutable-content", Some(1));
        set(&mut payload, "hy_image", Some(image));
    }
    set(&mut payload, "aps", Some(aps));
    payload
}

fn harmony(outbound: &Outbound, keys: &Map<String, Value>) -> Value {
    if outbound.title.is_none() && outbound.body.is_none() {
        let custom = Value::Object(keys.clone()).to_string();
        return json!({"display_type": "message", "body": {"custom": custom}, "extra": keys});
    }
    let (title, text) = texts::title_and_text(outbound);
    let mut body = json!({"title": title, "text": text, "after_open": "go_app"});
    if text.chars().count() <= BIG_BODY_CHARS_MAX {
        set(&mut body, "big_body", Some(text));
    }
    json!({"display_type": "notification", "body": body, "extra": keys})
}

/// What Umeng hands on to each maker.
fn channel_properties(config: &Config, outbound: &Outbound, class: Class) -> Option<Value> {
    let message = &outbound.message;
    let marks = classes::of_class(message, class);
    if config.platform == Platform::Ios {
        return None;
    }
    if config.platform == Platform::Harmony {
        return Some(json!({"harmony_channel_category": marks.huawei_category}));
    }
    let mut properties = json!({
        "huawei_channel_category": marks.huawei_category,
        "huawei_channel_importance": marks.huawei_importance,
        "honor_channel_importance": marks.honor_importance,
        "oppo_category": marks.oppo_category,
        "oppo_notify_level": marks.oppo_notify_level.to_string(),
        "vivo_category": marks.vivo_category,
        "vivo_classification": marks.vivo_classification.to_string(),
        "meizu_msg_type": marks.meizu_notice_type.to_string(),
    });
    let activity = config.channel_activity.as_deref();
    set(&mut properties, "channel_activity", activity);
    let activity = config.main_activity.as_deref();
    set(&mut properties, "main_activity", activity);
    let channel = config.makers.oppo(message, class);
    set(&mut properties, "oppo_channel_id", channel);
    let texts = texts::title_and_text(outbound);
    if let Some(part) = config.makers.xiaomi(message, class, texts) {
        set(&mut properties, "xiaomi_channel_id", Some(part.channel_id));
        if let Some((id, params)) = part.template {
            let params = Value::Object(params).to_string();
            let extra = json!({"template_id": id, "template_param": params});
            set(&mut properties, "xiaomi_extra_properties", Some(extra));
        }
    }
    Some(properties)
}

/// The body with the sender's own fields, which never move the target, hide the message or lift its class.
fn merged(body: Value, config: &Config, outbound: &Outbound, class: Class) -> Map<String, Value> {
    const OURS: &[&str] = &[
        "appkey",
        "receipt_url",
        "receipt_type",
        "callback_params",
        "description",
    ];
    const TARGETS: &[&str] = &[
        "type",
        "device_tokens",
        "alias",
        "alias_type",
        "file_id",
        "filter",
        "group_id",
        "timestamp",
        "appKey",
    ];
    let Value::Object(ours) = body else {
        return Map::new();
    };
    let extra = payload::vendor_fields(outbound, NAME);
    if extra.is_empty() {
        return ours;
    }
    let mut merged = ours.clone();
    payload::merge(&mut merged, &extra);
    for target in TARGETS {
        merged.remove(*target);
    }
    let mut kept: Vec<&str> = OURS.to_vec();
    if class == Class::Marketing && !config.class_override {
        kept.extend(["category", "channel_properties"]);
    }
    for name in kept {
        match ours.get(name) {
            Some(value) => merged.insert(name.to_owned(), value.clone()),
            None => merged.remove(name),
        };
    }
    let id = outbound.message.id.to_string();
    let place = match config.platform {
        Platform::Ios => merged.get_mut("payload"),
        Platform::Android | Platform::Harmony => merged
            .get_mut("payload")
            .and_then(|payload| payload.get_mut("extra")),
    };
    match place {
        Some(place) if place.is_object() => set(place, "hy_id", Some(id)),
        _ => {
            if let Some(payload) = ours.get("payload") {
                merged.insert("payload".to_owned(), payload.clone());
            }
        }
    }
    merged
}

/// A time as Umeng writes it: of China, to the second.
pub(super) fn china(at: Timestamp) -> String {
    const CHINA_MS: i64 = 8 * 3_600_000;
    let shifted = jiff::Timestamp::from_millisecond(at.millis().saturating_add(CHINA_MS));
    shifted
        .map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default()
}
