//! The fields of a push object with their types.

use crate::shape::{Fields, Shape};

pub(super) const PUSH: &Fields = &[
    ("cid", Shape::Text),
    ("platform", Shape::Any),
    ("audience", Shape::Any),
    ("notification", Shape::Object(NOTIFICATION)),
    ("message", Shape::Object(MESSAGE)),
    ("live_activity", Shape::AnyObject),
    (
        "inapp_message",
        Shape::Object(&[("inapp_message", Shape::Bool)]),
    ),
    ("notification_3rd", Shape::AnyObject),
    ("sms_message", Shape::AnyObject),
    ("options", Shape::Object(OPTIONS)),
    ("callback", Shape::Object(CALLBACK)),
];

const NOTIFICATION: &Fields = &[
    ("alert", Shape::Text),
    ("android", Shape::Object(ANDROID)),
    ("ios", Shape::Object(IOS)),
    ("hmos", Shape::Object(HMOS)),
    ("quickapp", Shape::AnyObject),
    ("quick_app", Shape::AnyObject),
    ("winphone", Shape::AnyObject),
    ("voip", Shape::AnyObject),
    ("alternate_alert", Shape::Any),
    ("ai_opportunity", Shape::Bool),
];

const INTENT: Shape = Shape::Object(&[("url", Shape::Text)]);

const ANDROID: &Fields = &[
    ("alert", Shape::Text),
    ("title", Shape::Text),
    ("builder_id", Shape::Int(0, 1000)),
    ("channel_id", Shape::TextMax(1000)),
    ("category", Shape::Text),
    ("priority", Shape::Int(-2, 2)),
    ("style", Shape::Int(0, 3)),
    ("alert_type", Shape::Int(-1, 7)),
    ("big_text", Shape::Text),
    ("inbox", Shape::AnyObject),
    ("big_pic_path", Shape::Text),
    ("large_icon", Shape::Text),
    ("small_icon_uri", Shape::Text),
    ("icon_bg_color", Shape::Text),
    ("intent", INTENT),
    ("uri_activity", Shape::Text),
    ("uri_action", Shape::Text),
    ("badge_add_num", Shape::Int(1, 99)),
    ("badge_set_num", Shape::Int(0, 99)),
    ("badge_class", Shape::Text),
    ("sound", Shape::Text),
    ("show_begin_time", Shape::Text),
    ("show_end_time", Shape::Text),
    ("display_foreground", Shape::Word(&["0", "1"])),
    ("extras", Shape::AnyObject),
];

const IOS: &Fields = &[
    ("alert", Shape::Any),
    ("sound", Shape::Any),
    ("badge", Shape::Any),
    // Clients send 1 for true.
    ("content-available", Shape::Any),
    ("mutable-content", Shape::Any),
    ("category", Shape::Text),
    ("thread-id", Shape::Text),
    (
        "interruption-level",
        Shape::Word(&[
            "active",
            "critical",
            "passive",
            "time-sensitive",
            "timeSensitive",
        ]),
    ),
    ("extras", Shape::AnyObject),
];

const HMOS: &Fields = &[
    ("alert", Shape::Text),
    ("title", Shape::Text),
    ("category", Shape::Text),
    ("large_icon", Shape::Text),
    ("intent", INTENT),
    ("badge_add_num", Shape::Int(1, 99)),
    ("badge_set_num", Shape::Int(0, 99)),
    ("test_message", Shape::Bool),
    ("receipt_id", Shape::Text),
    ("extras", Shape::AnyObject),
    ("style", Shape::Int(0, 2)),
    ("inbox", Shape::AnyObject),
    ("push_type", Shape::Int(0, 10)),
    ("extra_data", Shape::Text),
    ("hm_payload", Shape::AnyObject),
    ("display_foreground", Shape::Text),
    ("sound", Shape::Text),
    ("sound_duration", Shape::Int(1, 60)),
];

const MESSAGE: &Fields = &[
    ("!msg_content", Shape::Text),
    ("title", Shape::Text),
    ("content_type", Shape::Text),
    ("extras", Shape::AnyObject),
    ("alternate_title", Shape::Any),
    ("alternate_content", Shape::Any),
];

const OPTIONS: &Fields = &[
    ("sendno", Shape::Int(1, i64::MAX)),
    // The paid tier's ten days.
    ("time_to_live", Shape::Int(0, 864_000)),
    ("override_msg_id", Shape::Int(1, i64::MAX)),
    ("apns_production", Shape::Any),
    ("apns_collapse_id", Shape::TextMax(64)),
    ("big_push_duration", Shape::Int(1, 1400)),
    ("classification", Shape::Int(0, 1)),
    ("third_party_channel", Shape::Object(MAKERS)),
    ("target_event", Shape::List(&Shape::Text, 100)),
    ("test_message", Shape::Bool),
    ("receipt_id", Shape::Text),
    ("active_push", Shape::Bool),
    ("need_backup", Shape::Bool),
    ("business_operation_code", Shape::Text),
    ("notification_3rd_ver", Shape::Word(&["v1", "v2"])),
    ("test_model", Shape::Bool),
    ("auto_truncation", Shape::Bool),
    ("notification_switch_filter", Shape::Bool),
    ("mkt_enable", Shape::Bool),
    ("alternate_set", Shape::Any),
    ("geofence", Shape::Any),
    ("portal_extra", Shape::Any),
];

const MAKERS: &Fields = &[
    ("xiaomi", Shape::Object(MAKER)),
    ("huawei", Shape::Object(MAKER)),
    ("honor", Shape::Object(MAKER)),
    ("meizu", Shape::Object(MAKER)),
    ("oppo", Shape::Object(MAKER)),
    ("vivo", Shape::Object(MAKER)),
    ("fcm", Shape::Object(MAKER)),
    ("nio", Shape::Object(MAKER)),
    ("asus", Shape::Object(MAKER)),
    ("hmos", Shape::Object(MAKER)),
];

const MAKER: &Fields = &[
    (
        "distribution",
        Shape::Word(&["jpush", "ospush", "first_ospush", "secondary_push"]),
    ),
    ("distribution_fcm", Shape::Text),
    ("distribution_customize", Shape::Text),
    ("channel_id", Shape::Text),
    ("skip_quota", Shape::Bool),
    ("classification", Shape::Int(0, 1)),
    ("push_mode", Shape::Int(0, 1)),
    ("importance", Shape::Word(&["LOW", "NORMAL", "HIGH"])),
    ("urgency", Shape::Word(&["NORMAL", "HIGH"])),
    ("category", Shape::Text),
    ("notify_level", Shape::Int(1, 16)),
    ("sound", Shape::Text),
    ("default_sound", Shape::Bool),
    ("receipt_id", Shape::Text),
    ("callback_id", Shape::Text),
    ("target_user_type", Shape::Int(0, 1)),
    ("large_icon", Shape::Text),
    ("small_icon_uri", Shape::Text),
    ("small_icon_color", Shape::Text),
    ("style", Shape::Int(0, 3)),
    ("big_text", Shape::Text),
    ("inbox", Shape::Any),
    ("big_pic_path", Shape::Text),
    ("only_use_vendor_style", Shape::Bool),
    ("auditResponse", Shape::AnyObject),
    ("private_msg_template_id", Shape::Text),
    ("private_title_parameters", Shape::Any),
    ("private_content_parameters", Shape::Any),
    ("mi_template_id", Shape::Text),
    ("mi_template_param", Shape::Any),
    ("badge_operation_type", Shape::Int(0, 1)),
    ("badge_message_count", Shape::Int(0, 99)),
    ("add_badge", Shape::Any),
    ("hw_push_type", Shape::Any),
    ("hw_live_payload", Shape::Any),
    ("op_push_type", Shape::Any),
    ("op_intelligent_intent", Shape::Any),
    ("op_delete_intent_data", Shape::Any),
    ("vivo_push_type", Shape::Any),
    ("vivo_inapp_msg", Shape::Any),
    ("vivo_liveMessage", Shape::Any),
    ("honor_push_type", Shape::Any),
    ("mi_push_type", Shape::Any),
    ("mi_live_payload", Shape::Any),
    ("voip_extraData", Shape::Any),
    ("extensionExpireShow", Shape::Any),
];

const CALLBACK: &Fields = &[
    ("url", Shape::Text),
    // A number; old clients send its text.
    ("type", Shape::Any),
    ("params", Shape::AnyObject),
];
