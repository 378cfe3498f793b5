//! The push body: our message in Getui's words, and what it hands on to each maker.

use bytes::Bytes;
use hongyan_core::port::{Outbound, Truncation};
use hongyan_core::{Class, Reason};
use serde_json::{Map, Value, json};

use super::{CAPABILITY, Config, NAME, PAYLOAD_MAX};
use crate::stored::life_step;
use crate::vendor::makers::{self, set};
use crate::{classes, payload, texts, vendor};

const TITLE_CHARS_MAX: usize = 50;
const BODY_CHARS_MAX: usize = 256;

/// A push body without audience and request id.
pub(super) struct Encoded {
    pub(super) body: Map<String, Value>,
    pub(super) truncated: Vec<Truncation>,
    pub(super) downgraded: Option<String>,
}

impl Encoded {
    pub(super) fn with(&self, request_id: String, audience: Option<Value>) -> Bytes {
        let mut body = self.body.clone();
        body.insert("request_id".to_owned(), request_id.into());
        if let Some(audience) = audience {
            body.insert("audience".to_owned(), audience);
        }
        Value::Object(body).to_string().into()
    }

    /// What makes two bodies the same message: everything, and about how much of its life remains.
    pub(super) fn key(&self) -> String {
        let mut body = self.body.clone();
        if let Some(settings) = body.get_mut("settings").and_then(Value::as_object_mut) {
            let life = settings.remove("ttl").and_then(|ttl| ttl.as_u64());
            let (left, step) = life_step(life.unwrap_or_default());
            settings.insert("ttl".to_owned(), format!("{left}x{step}").into());
        }
        payload::short_hash(&Value::Object(body).to_string(), 16)
    }
}

pub(super) fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let message = &outbound.message;
    let (class, downgraded) = config.grants.class_for(message)?;
    let hidden = Value::Object(payload::text_keys(message)).to_string();
    if hidden.len() > PAYLOAD_MAX {
        return Err((
            Reason::PayloadTooLarge,
            format!(
                "the payload has {} bytes; Getui takes {PAYLOAD_MAX}",
                hidden.len()
            ),
        ));
    }
    let mut truncated = Vec::new();
    let mut settings = json!({
        "ttl": u64::try_from(vendor::ttl(outbound, CAPABILITY.ttl_max).as_millis()).unwrap_or(0),
        // Getui's own connection never shows anything on iOS.
        "strategy": {"default": config.strategy, "ios": if config.strategy == 2 { 2 } else { 4 }},
    });
    if config.custom_callback {
        set(
            &mut settings,
            "custom_callback",
            Some(message.id.to_string()),
        );
    }
    let mut body = Map::new();
    body.insert("settings".to_owned(), settings);
    if outbound.title.is_none() && outbound.body.is_none() {
        body.insert("push_message".to_owned(), json!({"transmission": hidden}));
        body.insert(
            "push_channel".to_owned(),
            json!({
                "android": {"ups": {"transmission": hidden}},
                "ios": {"type": "notify", "aps": {"content-available": 1}, "payload": hidden},
                "harmony": {"transmission": hidden},
            }),
        );
    } else {
        let (title, text) = texts::title_and_text(outbound);
        let title = texts::shorten("title", title, TITLE_CHARS_MAX, &mut truncated);
        let text = texts::shorten("body", text, BODY_CHARS_MAX, &mut truncated);
        show(config, outbound, class, (&title, &text), &hidden, &mut body);
    }
    merge(&mut body, config, outbound, class, &hidden);
    Ok(Encoded {
        body,
        truncated,
        downgraded,
    })
}

fn show(
    config: &Config,
    outbound: &Outbound,
    class: Class,
    (title, text): (&str, &str),
    hidden: &str,
    body: &mut Map<String, Value>,
) {
    let message = &outbound.message;
    let marks = classes::of_class(message, class);
    let source = message.notification.as_ref();
    let place = message
        .options
        .collapse_key
        .as_ref()
        .unwrap_or(&outbound.dedup_key);
    let number = payload::number_of(place);
    let image = source.and_then(|n| n.image.as_deref());
    let group = source.and_then(|n| n.group.as_deref());
    let sound = source.and_then(|n| n.sound.as_deref());
    let mut plain = json!({"title": title, "body": text, "notify_id": number});
    match &config.click_intent {
        Some(template) => {
            set(&mut plain, "click_type", Some("intent"));
            set(
                &mut plain,
                "intent",
                Some(makers::intent(template, message)),
            );
        }
        None => {
            set(&mut plain, "click_type", Some("payload"));
            set(&mut plain, "payload", Some(hidden));
        }
    }
    let mut own = plain.clone();
    set(&mut own, "payload", Some(hidden));
    set(&mut own, "big_image", image);
    set(
        &mut own,
        "channel_id",
        config.makers.android(message, class),
    );
    let level = match (marks.sounds, class) {
        (false, _) => 2,
        (true, Class::Im) => 4,
        (true, _) => 3,
    };
    set(&mut own, "channel_level", Some(level));
    set(&mut own, "thread_id", group);
    set(&mut own, "ring_name", sound.filter(|s| *s != "default"));
    let mut aps = json!({"alert": {"title": title, "body": text}, "content-available": 0});
    let sound = match (sound, marks.sounds) {
        (Some(sound), _) => sound,
        (None, true) => "default",
        (None, false) => "com.gexin.ios.silence",
    };
    set(&mut aps, "sound", Some(sound));
    set(&mut aps, "thread-id", group);
    let mut ios = json!({
        "type": "notify", "aps": aps, "payload": hidden,
        "apns-collapse-id": if place.len() <= 64 { place.clone() } else { payload::short_hash(place, 16) },
    });
    set(
        &mut ios,
        "auto_badge",
        outbound.badge.map(|b| b.to_string()),
    );
    if let Some(url) = image {
        set(
            &mut ios,
            "multimedia",
            Some(json!([{"url": url, "type": 1}])),
        );
    }
    let harmony = json!({
        "notification": {
            "title": title, "body": text, "category": marks.huawei_category, "notify_id": number,
            "click_type": "payload", "payload": hidden,
        },
    });
    let options = options(config, outbound, class, (title, text));
    body.insert("push_message".to_owned(), json!({"notification": own}));
    body.insert(
        "push_channel".to_owned(),
        json!({
            "android": {"ups": {"notification": plain, "options": options}},
            "ios": ios,
            "harmony": harmony,
        }),
    );
}

/// What Getui hands on to each maker: Huawei's and Honor's by JSON pointer, Xiaomi's as `extra.…`, others' by name.
fn options(config: &Config, outbound: &Outbound, class: Class, texts: (&str, &str)) -> Value {
    let message = &outbound.message;
    let marks = classes::of_class(message, class);
    let mut options = json!({
        "HW": {
            "/message/android/category": marks.huawei_category,
            "/message/android/notification/importance": marks.huawei_importance,
        },
        "HO": {"/android/notification/importance": marks.honor_importance},
        "OP": {"/category": marks.oppo_category, "/notify_level": marks.oppo_notify_level},
        "VV": {"/category": marks.vivo_category, "/classification": marks.vivo_classification},
        "MZ": {"/noticeMsgType": marks.meizu_notice_type},
    });
    set(
        &mut options["OP"],
        "/channel_id",
        config.makers.oppo(message, class),
    );
    if let Some(part) = config.makers.xiaomi(message, class, texts) {
        let mut xiaomi = json!({"/extra.channel_id": part.channel_id});
        if let Some((id, params)) = part.template {
            set(&mut xiaomi, "/extra.template_id", Some(id));
            let params = Value::Object(params).to_string();
            set(&mut xiaomi, "/extra.template_param", Some(params));
        }
        set(&mut options, "XM", Some(xiaomi));
    }
    if let (Some(badge), Some(class)) = (outbound.badge, config.badge_class.as_deref()) {
        let badge = badge.min(99);
        let huawei = &mut options["HW"];
        set(
            huawei,
            "/message/android/notification/badge/class",
            Some(class),
        );
        set(
            huawei,
            "/message/android/notification/badge/set_num",
            Some(badge),
        );
        let honor = &mut options["HO"];
        set(honor, "/android/notification/badge/badgeClass", Some(class));
        set(honor, "/android/notification/badge/setNum", Some(badge));
    }
    options
}

/// The sender's own fields, which never move the target, hide the message or lift its class.
fn merge(
    body: &mut Map<String, Value>,
    config: &Config,
    outbound: &Outbound,
    class: Class,
    hidden: &str,
) {
    let extra = payload::vendor_fields(outbound, NAME);
    if extra.is_empty() {
        return;
    }
    let kept = Value::Object(body.clone());
    payload::merge(body, &extra);
    for target in ["audience", "request_id", "taskid"] {
        body.remove(target);
    }
    let mut merged = Value::Object(std::mem::take(body));
    let mut whole = true;
    // Where the keys are, they stay; a part that lost them goes back to what it was.
    for (place, name) in [
        ("/push_message", "transmission"),
        ("/push_message/notification", "payload"),
        ("/push_channel/android/ups", "transmission"),
        ("/push_channel/android/ups/notification", "payload"),
        ("/push_channel/ios", "payload"),
        ("/push_channel/harmony", "transmission"),
        ("/push_channel/harmony/notification", "payload"),
    ] {
        let ours = kept.pointer(place).and_then(|part| part.get(name));
        if ours.is_none() {
            continue;
        }
        match merged.pointer_mut(place) {
            Some(part) if part.is_object() => set(part, name, Some(hidden)),
            _ => whole = false,
        }
    }
    if config.custom_callback {
        let id = outbound.message.id.to_string();
        match merged.get_mut("settings") {
            Some(settings) if settings.is_object() => set(settings, "custom_callback", Some(id)),
            _ => whole = false,
        }
    }
    let options = "/push_channel/android/ups/options";
    if class == Class::Marketing
        && !config.class_override
        && let Some(ours) = kept.pointer(options)
    {
        match merged.pointer_mut(options) {
            Some(place) => *place = ours.clone(),
            None => whole = false,
        }
        let category = "/push_channel/harmony/notification/category";
        if let (Some(ours), Some(place)) = (kept.pointer(category), merged.pointer_mut(category)) {
            *place = ours.clone();
        }
    }
    *body = match if whole { merged } else { kept } {
        Value::Object(body) => body,
        _ => Map::new(),
    };
}
