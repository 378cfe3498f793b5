//! The fields of `projects.messages.send` with their types.

use crate::shape::{Fields, Shape, duration_ms};

const DURATION: Shape = Shape::TextLike(
    |text| duration_ms(text).is_some(),
    "a duration such as \"3.5s\"",
);
const TEXTS: Shape = Shape::List(&Shape::Text, 64);

pub(super) const REQUEST: &Fields = &[
    ("validate_only", Shape::Bool),
    ("!message", Shape::Object(MESSAGE)),
];

const MESSAGE: &Fields = &[
    ("name", Shape::Text),
    ("data", Shape::Map(&Shape::Text)),
    ("notification", Shape::Object(NOTIFICATION)),
    ("android", Shape::Object(ANDROID)),
    ("apns", Shape::Object(APNS)),
    ("webpush", Shape::Object(WEBPUSH)),
    ("fcm_options", Shape::Object(OPTIONS)),
    ("token", Shape::Text),
    ("fid", Shape::Text),
    ("topic", Shape::TextLike(topic, "a topic name")),
    ("condition", Shape::Text),
];

const NOTIFICATION: &Fields = &[
    ("title", Shape::Text),
    ("body", Shape::Text),
    ("image", Shape::Text),
];

const OPTIONS: &Fields = &[("analytics_label", LABEL)];

const LABEL: Shape = Shape::TextLike(
    |text| text.len() <= 50 && topic(text),
    "an analytics label of at most 50 letters, digits and -_.~%",
);

const ANDROID: &Fields = &[
    ("collapse_key", Shape::Text),
    ("priority", Shape::TextLike(priority, "NORMAL or HIGH")),
    ("ttl", DURATION),
    ("restricted_package_name", Shape::Text),
    ("data", Shape::Map(&Shape::Text)),
    ("notification", Shape::Object(ANDROID_NOTIFICATION)),
    ("fcm_options", Shape::Object(OPTIONS)),
    ("direct_boot_ok", Shape::Bool),
    ("bandwidth_constrained_ok", Shape::Bool),
    ("restricted_satellite_ok", Shape::Bool),
];

const ANDROID_NOTIFICATION: &Fields = &[
    ("title", Shape::Text),
    ("body", Shape::Text),
    ("icon", Shape::Text),
    ("color", Shape::TextLike(color, "a colour such as #rrggbb")),
    ("sound", Shape::Text),
    ("tag", Shape::Text),
    ("click_action", Shape::Text),
    ("title_loc_key", Shape::Text),
    ("title_loc_args", TEXTS),
    ("body_loc_key", Shape::Text),
    ("body_loc_args", TEXTS),
    ("channel_id", Shape::Text),
    ("ticker", Shape::Text),
    ("sticky", Shape::Bool),
    ("event_time", Shape::Text),
    ("local_only", Shape::Bool),
    (
        "notification_priority",
        Shape::Word(&[
            "PRIORITY_UNSPECIFIED",
            "PRIORITY_MIN",
            "PRIORITY_LOW",
            "PRIORITY_DEFAULT",
            "PRIORITY_HIGH",
            "PRIORITY_MAX",
        ]),
    ),
    ("default_sound", Shape::Bool),
    ("default_vibrate_timings", Shape::Bool),
    ("default_light_settings", Shape::Bool),
    ("vibrate_timings", Shape::List(&DURATION, 64)),
    (
        "visibility",
        Shape::Word(&["VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"]),
    ),
    ("notification_count", Shape::Int(0, i32::MAX as i64)),
    ("light_settings", Shape::Object(LIGHT)),
    ("image", Shape::Text),
    (
        "proxy",
        Shape::Word(&["PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"]),
    ),
];

const LIGHT: &Fields = &[
    ("color", Shape::Object(LIGHT_COLOR)),
    ("light_on_duration", DURATION),
    ("light_off_duration", DURATION),
];

const LIGHT_COLOR: &Fields = &[
    ("red", Shape::Number(0.0, 1.0)),
    ("green", Shape::Number(0.0, 1.0)),
    ("blue", Shape::Number(0.0, 1.0)),
    ("alpha", Shape::Number(0.0, 1.0)),
];

const APNS: &Fields = &[
    ("headers", Shape::Map(&Shape::Text)),
    ("payload", Shape::AnyObject),
    (
        "fcm_options",
        Shape::Object(&[("analytics_label", LABEL), ("image", Shape::Text)]),
    ),
    ("live_activity_token", Shape::Text),
];

const WEBPUSH: &Fields = &[
    ("headers", Shape::Map(&Shape::Text)),
    ("data", Shape::Map(&Shape::Text)),
    ("notification", Shape::AnyObject),
    (
        "fcm_options",
        Shape::Object(&[
            (
                "link",
                Shape::TextLike(|text| text.starts_with("https://"), "an https URL"),
            ),
            ("analytics_label", LABEL),
        ]),
    ),
];

/// Older clients write the two priorities in lower case, which the service reads as well.
fn priority(text: &str) -> bool {
    text.eq_ignore_ascii_case("high") || text.eq_ignore_ascii_case("normal")
}

fn topic(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.~%".contains(c))
}

fn color(text: &str) -> bool {
    text.len() == 7
        && text
            .strip_prefix('#')
            .is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit()))
}

/// `'a' in topics && ('b' in topics || !('c' in topics))`, at most five topics.
pub(super) fn condition(text: &str) -> bool {
    const DEPTH_MAX: usize = 16;
    struct Parser<'a> {
        rest: &'a str,
        topics: usize,
    }
    impl Parser<'_> {
        fn eat(&mut self, word: &str) -> bool {
            match self.rest.trim_start().strip_prefix(word) {
                Some(rest) => {
                    self.rest = rest;
                    true
                }
                None => false,
            }
        }
        fn expression(&mut self, depth: usize) -> bool {
            if depth > DEPTH_MAX || !self.term(depth) {
                return false;
            }
            while self.eat("&&") || self.eat("||") {
                if !self.term(depth) {
                    return false;
                }
            }
            true
        }
        fn term(&mut self, depth: usize) -> bool {
            while self.eat("!") {}
            if self.eat("(") {
                return self.expression(depth + 1) && self.eat(")");
            }
            if !self.eat("'") {
                return false;
            }
            let Some((name, rest)) = self.rest.split_once('\'') else {
                return false;
            };
            let named = topic(name);
            self.rest = rest;
            self.topics += 1;
            named && self.eat("in") && self.eat("topics")
        }
    }
    let mut parser = Parser {
        rest: text,
        topics: 0,
    };
    parser.expression(0) && parser.rest.trim().is_empty() && parser.topics <= 5
}

#[cfg(test)]
mod tests {
    use super::condition;

    #[test]
    fn conditions_are_parsed() {
        let check = |text: &str, want: bool| assert_eq!(condition(text), want, "{text}");
        check("'a' in topics", true);
        check("'a' in topics && ('b' in topics || !('c' in topics))", true);
        check("'a' in topics &&", false);
        check("('a' in topics", false);
        check("a in topics", false);
        check("'a b' in topics", false);
        check("", false);
        let many = |n: usize| vec!["'t' in topics"; n].join(" || ");
        check(&many(5), true);
        check(&many(6), false);
    }
}
