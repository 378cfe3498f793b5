//! The fields of a push body with their types. Getui ignores what it does not know, so only known fields are held against
//! their shapes.

use serde_json::{Map, Value};

use crate::shape::{Fields, Names, Shape, Violation, check_object};

pub(super) const SETTINGS: &Fields = &[
    ("ttl", Shape::Int(-1, 259_200_000)),
    ("strategy", Shape::Map(&Shape::Int(1, 6))),
    ("speed", Shape::Int(0, i64::MAX)),
    ("schedule_time", Shape::Int(0, i64::MAX)),
    ("custom_callback", Shape::Text),
    ("filter_notify_off", Shape::Bool),
    ("active_days", Shape::Int(3, 15)),
    ("need_backup", Shape::Bool),
];

pub(super) const MESSAGE: &Fields = &[
    ("network_type", Shape::Int(0, 1)),
    ("duration", Shape::Text),
    ("notification", Shape::AnyObject),
    ("transmission", Shape::TextMax(3072)),
    ("revoke", Shape::AnyObject),
];

pub(super) const REVOKE: &Fields = &[("!old_task_id", Shape::TextMax(64)), ("force", Shape::Bool)];

const CLICKS: &[&str] = &[
    "intent",
    "url",
    "payload",
    "payload_custom",
    "startapp",
    "none",
];

pub(super) const NOTIFICATION: &Fields = &[
    ("!title", Shape::TextMax(50)),
    ("!body", Shape::TextMax(256)),
    ("big_text", Shape::TextMax(512)),
    ("big_image", Shape::TextMax(1024)),
    ("logo", Shape::TextMax(64)),
    ("logo_url", Shape::TextMax(256)),
    ("channel_id", Shape::TextMax(64)),
    ("channel_name", Shape::TextMax(64)),
    ("channel_level", Shape::Int(0, 4)),
    ("!click_type", Shape::Word(CLICKS)),
    ("intent", Shape::TextMax(4096)),
    ("url", Shape::TextMax(1024)),
    ("payload", Shape::TextMax(3072)),
    ("notify_id", Shape::Int(0, 2_147_483_647)),
    ("ring_name", Shape::TextMax(40)),
    ("badge_add_num", Shape::Int(1, i64::MAX)),
    ("thread_id", Shape::Text),
];

pub(super) const IOS: &Fields = &[
    ("type", Shape::Word(&["notify", "voip", "liveactivity"])),
    ("aps", Shape::AnyObject),
    ("auto_badge", Shape::Text),
    ("payload", Shape::Text),
    ("multimedia", Shape::List(&Shape::AnyObject, 3)),
    ("apns-collapse-id", Shape::TextMax(64)),
];

pub(super) const HARMONY: &Fields = &[
    ("!title", Shape::TextMax(50)),
    ("!body", Shape::TextMax(256)),
    ("category", Shape::TextMax(50)),
    ("!click_type", Shape::Word(&["want", "startapp", "payload"])),
    ("want", Shape::Text),
    ("payload", Shape::TextMax(3072)),
    ("notify_id", Shape::Int(0, 2_147_483_647)),
];

/// The options of makers: by maker, then by the maker's own field.
pub(super) const OPTIONS: &Fields = &[
    ("ALL", Shape::AnyObject),
    ("HW", Shape::AnyObject),
    ("HO", Shape::AnyObject),
    ("XM", Shape::AnyObject),
    ("XMG", Shape::AnyObject),
    ("VV", Shape::AnyObject),
    ("OP", Shape::AnyObject),
    ("OPG", Shape::AnyObject),
    ("MZ", Shape::AnyObject),
    ("UPS", Shape::AnyObject),
];

/// Checks those fields of an object that the table knows.
pub(super) fn check(object: &Value, fields: &Fields, path: &str) -> Result<(), Violation> {
    let Some(object) = object.as_object() else {
        return Err(Violation {
            field: path.to_owned(),
            why: "must be an object".to_owned(),
        });
    };
    let known: Map<String, Value> = object
        .iter()
        .filter(|(name, _)| {
            fields
                .iter()
                .any(|(field, _)| field.trim_start_matches('!') == *name)
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    check_object(&known, fields, Names::Exact, path)
}
