//! The fields of a v1/v2 message with their types.

use super::CATEGORIES;
use crate::shape::{Fields, Shape};

const TEXTS: Shape = Shape::List(&Shape::Text, 64);
const INT: Shape = Shape::Int(i32::MIN as i64, i32::MAX as i64);

pub(super) const REQUEST: &Fields = &[
    ("validate_only", Shape::Bool),
    ("!message", Shape::Object(MESSAGE)),
    ("review", Shape::List(&Shape::AnyObject, 16)),
];

const MESSAGE: &Fields = &[
    ("data", Shape::Text),
    (
        "notification",
        Shape::Object(&[
            ("title", Shape::Text),
            ("body", Shape::Text),
            ("image", Shape::TextLike(https, "an https URL")),
        ]),
    ),
    ("android", Shape::Object(ANDROID)),
    ("apns", Shape::AnyObject),
    ("webpush", Shape::AnyObject),
    ("token", Shape::List(&Shape::Text, usize::MAX)),
    ("topic", Shape::TextMax(900)),
    ("condition", Shape::TextMax(4096)),
];

const ANDROID: &Fields = &[
    ("category", Shape::Word(CATEGORIES)),
    ("collapse_key", INT),
    ("urgency", Shape::Word(&["HIGH", "NORMAL"])),
    ("ttl", Shape::Text),
    ("bi_tag", Shape::TextMax(64)),
    ("receipt_id", Shape::Text),
    ("target_user_type", Shape::Int(0, 1)),
    ("fast_app_target", Shape::Int(1, 2)),
    ("data", Shape::Text),
    ("notification", Shape::Object(NOTIFICATION)),
];

const NOTIFICATION: &Fields = &[
    ("title", Shape::Text),
    ("body", Shape::Text),
    ("icon", Shape::Text),
    ("color", Shape::TextLike(color, "a colour such as #RRGGBB")),
    ("sound", Shape::Text),
    ("default_sound", Shape::Bool),
    ("tag", Shape::Text),
    (
        "click_action",
        Shape::Object(&[
            ("!type", Shape::Int(1, 3)),
            ("intent", Shape::Text),
            ("action", Shape::Text),
            ("url", Shape::Text),
        ]),
    ),
    ("title_loc_key", Shape::Text),
    ("title_loc_args", TEXTS),
    ("body_loc_key", Shape::Text),
    ("body_loc_args", TEXTS),
    ("multi_lang_key", Shape::AnyObject),
    ("channel_id", Shape::Text),
    ("notify_summary", Shape::Text),
    ("image", Shape::TextLike(https, "an https URL")),
    ("style", Shape::Int(0, 3)),
    ("big_title", Shape::Text),
    ("big_body", Shape::Text),
    ("inbox_content", Shape::List(&Shape::TextMax(1024), 5)),
    ("notify_id", Shape::Int(0, i32::MAX as i64)),
    ("group", Shape::Text),
    (
        "badge",
        Shape::Object(&[
            ("add_num", Shape::Int(1, 99)),
            ("set_num", Shape::Int(0, 99)),
            ("class", Shape::Text),
        ]),
    ),
    ("ticker", Shape::Text),
    ("when", Shape::Text),
    ("importance", Shape::Word(&["LOW", "NORMAL", "HIGH"])),
    ("use_default_vibrate", Shape::Bool),
    ("use_default_light", Shape::Bool),
    ("vibrate_config", Shape::List(&Shape::Text, 10)),
    (
        "visibility",
        Shape::Word(&["PRIVATE", "PUBLIC", "SECRET", "VISIBILITY_UNSPECIFIED"]),
    ),
    ("light_settings", Shape::AnyObject),
    ("foreground_show", Shape::Bool),
    ("profile_id", Shape::TextMax(64)),
    ("buttons", Shape::List(&Shape::Object(BUTTON), 3)),
];

const BUTTON: &Fields = &[
    ("!name", Shape::TextMax(40)),
    ("!action_type", Shape::Int(0, 4)),
    ("intent_type", Shape::Int(0, 1)),
    ("intent", Shape::Text),
    ("data", Shape::TextMax(1024)),
];

pub(in crate::vendor) fn https(text: &str) -> bool {
    text.starts_with("https://")
}

fn color(text: &str) -> bool {
    text.len() == 7
        && text
            .strip_prefix('#')
            .is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit()))
}
