//! What a message becomes at APNs: push type, headers and payload.

use bytes::Bytes;
use hongyan_core::port::Outbound;
use hongyan_core::{MessageId, Reason};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::plain::Plain;
use super::{Config, NAME};
use crate::{classes, payload};

/// Payload of every push but those below, bytes.
const BYTES_MAX: usize = 4096;
/// Payload of a VoIP push, bytes.
const VOIP_BYTES_MAX: usize = 5120;
/// Payload of a broadcast, bytes.
pub(super) const BROADCAST_BYTES_MAX: usize = 5120;

/// One way of waking a device.
pub(super) struct PushType {
    pub(super) name: &'static str,
    topic_suffix: &'static str,
    /// `None`: by class.
    priority: Option<u8>,
    pub(super) bytes_max: usize,
    pub(super) content: Content,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Alert,
    Background,
    /// Apple asks for no `aps` keys.
    Free,
    Activity,
    Reload,
    /// Only what the sender gives.
    Bare,
}

const fn push_type(
    name: &'static str,
    topic_suffix: &'static str,
    priority: Option<u8>,
    bytes_max: usize,
    content: Content,
) -> PushType {
    PushType {
        name,
        topic_suffix,
        priority,
        bytes_max,
        content,
    }
}

const PUSH_TYPES: &[PushType] = &[
    push_type("alert", "", None, BYTES_MAX, Content::Alert),
    push_type("background", "", Some(5), BYTES_MAX, Content::Background),
    push_type("voip", ".voip", Some(10), VOIP_BYTES_MAX, Content::Free),
    push_type(
        "complication",
        ".complication",
        Some(10),
        BYTES_MAX,
        Content::Free,
    ),
    push_type(
        "fileprovider",
        ".pushkit.fileprovider",
        None,
        BYTES_MAX,
        Content::Free,
    ),
    push_type("mdm", "", None, BYTES_MAX, Content::Bare),
    push_type(
        "liveactivity",
        ".push-type.liveactivity",
        None,
        BYTES_MAX,
        Content::Activity,
    ),
    push_type(
        "location",
        ".location-query",
        None,
        BYTES_MAX,
        Content::Free,
    ),
    push_type(
        "pushtotalk",
        ".voip-ptt",
        Some(10),
        BYTES_MAX,
        Content::Free,
    ),
    push_type(
        "widgets",
        ".push-type.widgets",
        None,
        BYTES_MAX,
        Content::Reload,
    ),
    push_type(
        "controls",
        ".push-type.controls",
        None,
        BYTES_MAX,
        Content::Reload,
    ),
];

/// Keys of `options.vendor.apns` that go into `aps`.
const APS_KEYS: &[(&str, &str)] = &[
    ("interruption_level", "interruption-level"),
    ("relevance_score", "relevance-score"),
    ("category", "category"),
    ("sound", "sound"),
    ("thread_id", "thread-id"),
    ("target_content_id", "target-content-id"),
    ("filter_criteria", "filter-criteria"),
    ("mutable_content", "mutable-content"),
    ("content_available", "content-available"),
    ("event", "event"),
    ("content_state", "content-state"),
    ("timestamp", "timestamp"),
    ("stale_date", "stale-date"),
    ("dismissal_date", "dismissal-date"),
    ("attributes_type", "attributes-type"),
    ("attributes", "attributes"),
    ("input_push_channel", "input-push-channel"),
    ("input_push_token", "input-push-token"),
];

/// The push type of a name.
pub(super) fn push_type_of(name: &str) -> Option<&'static PushType> {
    PUSH_TYPES.iter().find(|p| p.name == name)
}

/// A notification without its token and authorization.
pub(super) struct Encoded {
    pub(super) push_type: &'static PushType,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) bytes: Bytes,
    starts_an_activity: bool,
}

impl Encoded {
    /// Whether it is short enough.
    pub(super) fn fits(&self, bytes_max: usize) -> Result<(), (Reason, String)> {
        let len = self.bytes.len();
        if len <= bytes_max {
            return Ok(());
        }
        let words = format!("the payload has {len} bytes; APNs takes {bytes_max}");
        Err((Reason::PayloadTooLarge, words))
    }

    /// Whether it is an activity's first push.
    pub(super) fn starts_an_activity(&self) -> bool {
        self.starts_an_activity
    }

    /// The payload, for people.
    pub(super) fn shown(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }
}

/// Encodes a message; its size is left to [`Encoded::fits`], since broadcasts may be longer.
pub(super) fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let rejected = |words: String| (Reason::PayloadRejected, words);
    let mut extra = payload::vendor_fields(outbound, NAME);
    let silent = outbound.title.is_none() && outbound.body.is_none();
    let wanted = match extra.remove("push_type") {
        None => if silent { "background" } else { "alert" }.to_owned(),
        Some(Value::String(name)) => name,
        Some(_) => return Err(rejected("vendor.apns.push_type must be a text".to_owned())),
    };
    let push_type = push_type_of(&wanted)
        .ok_or_else(|| rejected(format!("vendor.apns.push_type {wanted:?} is not known")))?;
    let headers = headers(config, outbound, push_type, &mut extra)?;
    let mut starts_an_activity = false;
    let bytes = if extra.is_empty()
        && let Some(plain) = Plain::of(outbound, push_type.content)
    {
        serde_json::to_vec(&plain)
    } else {
        let body = Value::Object(body(outbound, push_type, extra).map_err(rejected)?);
        let event = body.pointer("/aps/event").and_then(Value::as_str);
        starts_an_activity = event == Some("start");
        serde_json::to_vec(&body)
    };
    Ok(Encoded {
        push_type,
        headers,
        // Texts and numbers always have a JSON text.
        bytes: bytes.unwrap_or_default().into(),
        starts_an_activity,
    })
}

fn headers(
    config: &Config,
    outbound: &Outbound,
    push_type: &PushType,
    extra: &mut Map<String, Value>,
) -> Result<Vec<(&'static str, String)>, (Reason, String)> {
    let rejected = |words: String| (Reason::PayloadRejected, words);
    let options = &outbound.message.options;
    let mut given = |name: &str| -> Result<Option<String>, (Reason, String)> {
        let plain = |s: &str| s.bytes().all(|b| (0x20..0x7f).contains(&b));
        match extra.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => {
                Err(rejected(format!("vendor.apns.{name} is empty")))
            }
            Some(Value::String(text)) if plain(&text) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(rejected(format!(
                "vendor.apns.{name} must be a text or a number"
            ))),
        }
    };
    let topic = given("topic")?
        .unwrap_or_else(|| format!("{}{}", config.bundle_id(outbound), push_type.topic_suffix));
    let by_class = push_type
        .priority
        .unwrap_or_else(|| classes::of(&outbound.message).apns_priority);
    let priority = given("priority")?.unwrap_or_else(|| by_class.to_string());
    let allowed = match priority.as_str() {
        "5" => true,
        "1" | "10" => push_type.content != Content::Background,
        _ => false,
    };
    if !allowed {
        return Err(rejected(format!(
            "vendor.apns.priority {priority} is not allowed: 1, 5 or 10, and 5 alone for background pushes"
        )));
    }
    let expiration = match given("expiration")? {
        Some(text) if text.parse::<i64>().is_ok_and(|at| at >= 0) => text,
        Some(text) => {
            return Err(rejected(format!(
                "vendor.apns.expiration {text} is not allowed: whole seconds since 1970, or 0 for now or never"
            )));
        }
        // Nobody wants to be called, or spoken to, later.
        None if options.ttl_s == Some(0) || matches!(push_type.name, "voip" | "pushtotalk") => {
            "0".to_owned()
        }
        None => outbound.expires_at.seconds().max(0).to_string(),
    };
    let collapse_id = match given("collapse_id")? {
        Some(id) => id,
        None => options
            .collapse_key
            .clone()
            .unwrap_or_else(|| outbound.dedup_key.clone()),
    };
    let mut headers = vec![
        ("apns-push-type", push_type.name.to_owned()),
        ("apns-topic", topic),
        ("apns-priority", priority),
        ("apns-expiration", expiration),
    ];
    // A collapse id makes a repeated send shown once; these kinds are not shown by the system.
    if matches!(push_type.name, "alert" | "background") {
        headers.push(("apns-collapse-id", collapse_text(&collapse_id)));
    }
    Ok(headers)
}

/// `apns-collapse-id`: Apple takes 64 bytes; longer keys and keys that are no header text are hashed.
pub(in crate::vendor) fn collapse_text(key: &str) -> String {
    if key.len() <= 64 && key.bytes().all(|b| (0x21..0x7f).contains(&b)) {
        key.to_owned()
    } else {
        payload::short_hash(key, 16)
    }
}

/// `apns-id`: the same over all tries of a message to a token, and another one for every other. It tells nothing of the token.
pub(super) fn apns_id(message: MessageId, token: &str) -> Uuid {
    let whole = digest(&SHA256, format!("{message}\n{token}").as_bytes());
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().zip(whole.as_ref()) {
        *place = *byte;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The payload, with the sender's own fields.
pub(super) fn body(
    outbound: &Outbound,
    push_type: &PushType,
    mut extra: Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    if push_type.content == Content::Bare {
        return if extra.is_empty() {
            Err("an mdm push needs vendor.apns.mdm, the push magic".to_owned())
        } else {
            Ok(extra)
        };
    }
    let mut aps = aps(outbound, push_type.content);
    for (name, key) in APS_KEYS {
        if let Some(value) = extra.remove(*name) {
            if value.is_null() {
                aps.remove(*key);
            } else {
                aps.insert((*key).to_owned(), value);
            }
        }
    }
    if let Some(subtitle) = extra.remove("subtitle")
        && let Some(Value::Object(alert)) = aps.get_mut("alert")
    {
        alert.insert("subtitle".to_owned(), subtitle);
    }
    let mut body = payload::keys(&outbound.message);
    if push_type.content == Content::Alert
        && let Some(image) = outbound
            .message
            .notification
            .as_ref()
            .and_then(|n| n.image.as_ref())
    {
        body.insert("hy_image".to_owned(), image.as_str().into());
    }
    body.insert("aps".to_owned(), Value::Object(aps));
    let id = body.get("hy_id").cloned();
    payload::merge(&mut body, &extra);
    if let Some(id) = id {
        body.insert("hy_id".to_owned(), id);
    }
    if push_type.content == Content::Activity {
        check_activity(&body)?;
    }
    Ok(body)
}

/// `aps` of an alert or a background push without its `alert`, for vendors that write that themselves and relay the rest.
pub(in crate::vendor) fn aps_without_alert(outbound: &Outbound) -> Map<String, Value> {
    let silent = outbound.title.is_none() && outbound.body.is_none();
    let mut aps = aps(
        outbound,
        if silent {
            Content::Background
        } else {
            Content::Alert
        },
    );
    aps.remove("alert");
    aps
}

fn aps(outbound: &Outbound, content: Content) -> Map<String, Value> {
    let mut aps = Map::new();
    let marks = classes::of(&outbound.message);
    let shown = outbound.message.notification.as_ref();
    let mut alert = Map::new();
    for (key, text) in [("title", &outbound.title), ("body", &outbound.body)] {
        if let Some(text) = text.as_ref().filter(|t| !t.is_empty()) {
            alert.insert(key.to_owned(), text.as_str().into());
        }
    }
    let sound = shown
        .and_then(|n| n.sound.clone())
        .or_else(|| marks.sounds.then(|| "default".to_owned()));
    match content {
        Content::Alert => {
            if let Some(sound) = sound {
                aps.insert("sound".to_owned(), sound.into());
            }
            if let Some(badge) = outbound.badge {
                aps.insert("badge".to_owned(), badge.into());
            }
            if let Some(group) = shown.and_then(|n| n.group.as_ref()) {
                aps.insert("thread-id".to_owned(), group.as_str().into());
            }
            aps.insert(
                "interruption-level".to_owned(),
                marks.apns_interruption.into(),
            );
            // Lets the app's notification service extension acknowledge and fetch the picture.
            aps.insert("mutable-content".to_owned(), 1.into());
        }
        Content::Background => {
            aps.insert("content-available".to_owned(), 1.into());
        }
        Content::Reload => {
            aps.insert("content-changed".to_owned(), true.into());
        }
        Content::Activity => {
            // Of two updates the phone keeps the later one, so a repeated try must not make an old one young.
            let message = &outbound.message;
            let begun = message.options.send_at.unwrap_or(message.accepted_at);
            let at = begun.max(message.accepted_at);
            aps.insert("timestamp".to_owned(), at.seconds().into());
            if let Some(sound) = shown
                .and_then(|n| n.sound.clone())
                .filter(|_| !alert.is_empty())
            {
                alert.insert("sound".to_owned(), sound.into());
            }
        }
        Content::Free | Content::Bare => {}
    }
    if !alert.is_empty() && matches!(content, Content::Alert | Content::Activity) {
        aps.insert("alert".to_owned(), Value::Object(alert));
    }
    aps
}

/// Whether the phone could make something of an activity's push: which keys each event needs, and what they are.
fn check_activity(body: &Map<String, Value>) -> Result<(), String> {
    type Is = fn(&Value) -> bool;
    const KINDS: &[(&str, Is, &str)] = &[
        ("content-state", Value::is_object, "an object"),
        ("attributes", Value::is_object, "an object"),
        ("attributes-type", Value::is_string, "a text"),
        ("timestamp", Value::is_i64, "seconds since 1970"),
        ("stale-date", Value::is_i64, "seconds since 1970"),
        ("dismissal-date", Value::is_i64, "seconds since 1970"),
        ("relevance-score", Value::is_number, "a number"),
        ("input-push-channel", Value::is_string, "a channel's id"),
    ];
    const START_ONLY: &[&str] = &[
        "attributes-type",
        "attributes",
        "input-push-channel",
        "input-push-token",
    ];
    let aps = body.get("aps").and_then(Value::as_object);
    let get = |key: &str| aps.and_then(|a| a.get(key));
    let event = get("event").and_then(Value::as_str).unwrap_or_default();
    let needed: &[&str] = match event {
        "start" => &["attributes-type", "attributes", "content-state", "alert"],
        "update" => &["content-state"],
        "end" => &[],
        _ => {
            return Err(
                "a liveactivity push needs vendor.apns.event: start, update or end".to_owned(),
            );
        }
    };
    if let Some(key) = needed.iter().find(|key| get(key).is_none()) {
        return Err(format!(
            "a liveactivity push that is to {event} needs {key}"
        ));
    }
    if let Some(key) = START_ONLY
        .iter()
        .find(|key| event != "start" && get(key).is_some())
    {
        return Err(format!(
            "{key} belongs to a liveactivity push that is to start"
        ));
    }
    let wrong = |(key, is, _): &&(&str, Is, &str)| get(key).is_some_and(|value| !is(value));
    match KINDS.iter().find(wrong) {
        Some((key, _, kind)) => Err(format!("{key} of a liveactivity push must be {kind}")),
        None => Ok(()),
    }
}
