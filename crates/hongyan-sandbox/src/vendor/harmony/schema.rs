//! The fields of a v3 message with their types, by scene.

use crate::shape::{Fields, Shape};
use crate::vendor::huawei::{CATEGORIES, https};

pub(super) const REQUEST: &Fields = &[
    ("!payload", Shape::AnyObject),
    (
        "!target",
        Shape::Object(&[("!token", Shape::List(&Shape::Text, usize::MAX))]),
    ),
    ("pushOptions", Shape::Object(OPTIONS)),
];

const OPTIONS: &Fields = &[
    ("testMessage", Shape::Bool),
    ("ttl", Shape::Int(1, 1_296_000)),
    ("biTag", Shape::TextMax(64)),
    ("receiptId", Shape::TextMax(64)),
    ("collapseKey", Shape::Int(-1, 100)),
    ("backgroundMode", Shape::Int(0, 1)),
];

const EXTRA: (&str, Shape) = ("!extraData", Shape::Text);

pub(super) const ALERT: &Fields = &[("!notification", Shape::Object(NOTIFICATION))];
pub(super) const VOICE: &Fields = &[("!notification", Shape::Object(NOTIFICATION)), EXTRA];
pub(super) const BACKGROUND: &Fields = &[EXTRA, ("proxyData", Shape::Word(&["ENABLE"]))];
pub(super) const CALL: &Fields = &[EXTRA];

pub(super) const CARD: &Fields = &[
    ("!formId", Shape::Int(0, i64::MAX)),
    ("!version", Shape::Int(0, i32::MAX as i64)),
    ("!moduleName", Shape::Text),
    ("!formName", Shape::Text),
    ("!abilityName", Shape::Text),
    ("!formData", Shape::AnyObject),
    (
        "images",
        Shape::List(
            &Shape::Object(&[
                ("!keyName", Shape::Text),
                ("!url", Shape::TextLike(https, "an https URL")),
                ("require", Shape::Int(0, 1)),
            ]),
            1,
        ),
    ),
];

pub(super) const LIVE_VIEW: &Fields = &[
    ("!activityId", Shape::Int(i32::MIN as i64, i32::MAX as i64)),
    ("!operation", Shape::Int(0, 2)),
    (
        "!event",
        Shape::Word(&[
            "TAXI",
            "DELIVERY",
            "FLIGHT",
            "TRAIN",
            "QUEUE",
            "PICK_UP",
            "SCORE",
            "RENT",
            "TIMER",
            "WORKOUT",
            "NAVIGATION",
        ]),
    ),
    ("status", Shape::Text),
    ("version", Shape::Int(0, i32::MAX as i64)),
    ("mute", Shape::Bool),
    ("title", Shape::Text),
    ("content", Shape::Text),
    (
        "!activityData",
        Shape::Object(&[
            ("!notificationData", Shape::AnyObject),
            ("capsuleData", Shape::AnyObject),
            ("externalData", Shape::AnyObject),
        ]),
    ),
];

const NOTIFICATION: &Fields = &[
    ("!category", Shape::Word(CATEGORIES)),
    ("!title", Shape::TextMax(1024)),
    ("!body", Shape::TextMax(4096)),
    (
        "!clickAction",
        Shape::Object(&[
            ("!actionType", Shape::Int(0, 1)),
            ("action", Shape::Text),
            ("uri", Shape::Text),
            ("data", Shape::AnyObject),
        ]),
    ),
    ("image", Shape::TextLike(https, "an https URL")),
    ("style", Shape::Int(0, 3)),
    ("bigTitle", Shape::Text),
    ("bigBody", Shape::Text),
    ("inboxContent", Shape::List(&Shape::TextMax(1024), 3)),
    ("notifyId", Shape::Int(-1, i32::MAX as i64)),
    ("appMessageId", Shape::TextMax(64)),
    ("profileId", Shape::TextMax(64)),
    (
        "badge",
        Shape::Object(&[("addNum", Shape::Int(1, 99)), ("setNum", Shape::Int(0, 99))]),
    ),
    ("sound", Shape::Text),
    ("soundDuration", Shape::Int(1, 60)),
    ("foregroundShow", Shape::Bool),
];
