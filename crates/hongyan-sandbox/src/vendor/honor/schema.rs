//! The fields of a message with their types.

use crate::shape::{Fields, Shape};
use crate::vendor::huawei::https;

const HTTPS: Shape = Shape::TextLike(https, "an https URL");

pub(super) const REQUEST: &Fields = &[
    ("data", Shape::Text),
    (
        "notification",
        Shape::Object(&[
            ("title", Shape::Text),
            ("body", Shape::Text),
            ("image", HTTPS),
        ]),
    ),
    ("android", Shape::Object(ANDROID)),
    ("token", Shape::List(&Shape::Text, usize::MAX)),
];

const ANDROID: &Fields = &[
    ("ttl", Shape::Text),
    ("biTag", Shape::TextMax(64)),
    ("data", Shape::Text),
    ("targetUserType", Shape::Int(0, 1)),
    ("notification", Shape::Object(NOTIFICATION)),
];

const NOTIFICATION: &Fields = &[
    ("title", Shape::Text),
    ("body", Shape::Text),
    (
        "clickAction",
        Shape::Object(&[
            ("!type", Shape::Int(1, 3)),
            ("intent", Shape::Text),
            ("action", Shape::Text),
            ("url", HTTPS),
        ]),
    ),
    ("image", HTTPS),
    ("style", Shape::Int(0, 1)),
    ("bigTitle", Shape::Text),
    ("bigBody", Shape::Text),
    ("importance", Shape::Word(&["LOW", "NORMAL"])),
    ("when", Shape::Text),
    ("buttons", Shape::List(&Shape::Object(BUTTON), 3)),
    (
        "badge",
        Shape::Object(&[
            ("addNum", Shape::Int(1, 99)),
            ("setNum", Shape::Int(0, 99)),
            ("badgeClass", Shape::Text),
        ]),
    ),
    ("notifyId", Shape::Int(-1, i32::MAX as i64)),
    ("tag", Shape::Text),
    ("group", Shape::Text),
];

const BUTTON: &Fields = &[
    ("!name", Shape::TextMax(40)),
    ("!actionType", Shape::Int(0, 2)),
    ("intentType", Shape::Int(0, 1)),
    ("intent", Shape::Text),
    ("data", Shape::TextMax(1024)),
];
