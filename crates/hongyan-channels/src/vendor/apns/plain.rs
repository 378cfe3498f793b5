//! The payload of a message that has no fields of its own for Apple, written without a tree of values in between: most are such.
//! [`super::encoding::body`] says what belongs where; a test holds the two against each other.

use hongyan_core::message::{ClickGuard, Target};
use hongyan_core::port::Outbound;
use serde::Serialize;
use serde_json::{Map, Value};

use super::encoding::Content;
use crate::{classes, payload};

/// Fields in the order of their names, as in a tree of values.
#[derive(Debug, Serialize)]
pub(super) struct Plain<'a> {
    aps: Aps<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hy_data: Option<&'a Map<String, Value>>,
    hy_id: hongyan_core::MessageId,
    #[serde(skip_serializing_if = "Option::is_none")]
    hy_image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hy_splash: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hy_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hy_user: Option<String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Aps<'a> {
    #[serde(skip_serializing_if = "Alert::is_empty")]
    alert: Alert<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    badge: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_available: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interruption_level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutable_content: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sound: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<&'a str>,
}

#[derive(Debug, Default, Serialize)]
struct Alert<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
}

impl Alert<'_> {
    const fn is_empty(&self) -> bool {
        self.body.is_none() && self.title.is_none()
    }
}

impl<'a> Plain<'a> {
    /// The payload of an alert or a background push; nothing for others.
    pub(super) fn of(outbound: &'a Outbound, content: Content) -> Option<Self> {
        let message = &outbound.message;
        let shown = message.notification.as_ref();
        let filled = |text: &'a Option<String>| text.as_deref().filter(|text| !text.is_empty());
        let aps = match content {
            Content::Alert => {
                let marks = classes::of(message);
                let sound = shown.and_then(|n| n.sound.as_deref());
                Aps {
                    alert: Alert {
                        body: filled(&outbound.body),
                        title: filled(&outbound.title),
                    },
                    badge: outbound.badge,
                    interruption_level: Some(marks.apns_interruption),
                    mutable_content: Some(1),
                    sound: sound.or_else(|| marks.sounds.then_some("default")),
                    thread_id: shown.and_then(|n| n.group.as_deref()),
                    ..Aps::default()
                }
            }
            Content::Background => Aps {
                content_available: Some(1),
                ..Aps::default()
            },
            _ => return None,
        };
        let user = match (&message.options.click_guard, &message.to) {
            (ClickGuard::Owner, Target::Users(users)) => match users.as_slice() {
                [user] => Some(payload::user_hash(&message.app, user)),
                _ => None,
            },
            _ => None,
        };
        let pictured = content == Content::Alert;
        Some(Self {
            aps,
            hy_data: message.data.as_ref(),
            hy_id: message.id,
            hy_image: shown.and_then(|n| n.image.as_deref()).filter(|_| pictured),
            hy_splash: (message.options.skip_splash == Some(true)).then_some("skip"),
            hy_url: shown.and_then(|n| n.click.as_ref()).map(|c| c.url.as_str()),
            hy_user: user,
        })
    }
}

#[cfg(test)]
mod tests {
    use hongyan_core::{Class, UserId};
    use serde_json::json;

    use super::super::encoding::{body, push_type_of};
    use super::*;
    use crate::vendor::fixture;

    #[test]
    fn it_is_the_payload_that_the_tree_of_values_gives() {
        for bits in 0..1_u32 << 12 {
            let is = |bit: u32| bits & (1 << bit) != 0;
            let mut message = fixture::message();
            message.class = if is(0) { Class::Marketing } else { Class::Im };
            if is(1) {
                message.data = None;
            }
            if is(2) {
                message.options.click_guard = ClickGuard::Anyone;
            }
            message.options.skip_splash = Some(is(3));
            if is(4) {
                message.to = Target::Users(vec![
                    UserId::parse("u1").unwrap(),
                    UserId::parse("u2").unwrap(),
                ]);
            }
            let shown = message.notification.as_mut().unwrap();
            shown.image = is(5).then(|| "https://a.example/\"p\u{1f600}".to_owned());
            shown.sound = is(6).then(|| "ding".to_owned());
            if is(7) {
                shown.group = None;
            }
            if is(8) {
                shown.click = None;
            }
            let mut outbound = fixture::of(message);
            outbound.badge = outbound.badge.filter(|_| is(9));
            outbound.title = outbound.title.filter(|_| is(10));
            outbound.body = is(11).then(String::new).or(outbound.body);
            for name in ["alert", "background"] {
                let push_type = push_type_of(name).unwrap();
                let tree = Value::Object(body(&outbound, push_type, Map::new()).unwrap());
                let plain = Plain::of(&outbound, push_type.content).unwrap();
                let plain = serde_json::to_string(&plain).unwrap();
                assert_eq!(plain, tree.to_string(), "{bits:b}");
            }
        }
        let push_type = push_type_of("voip").unwrap();
        let outbound = fixture::outbound();
        assert!(Plain::of(&outbound, push_type.content).is_none());
        assert_eq!(json!(outbound.message.id), outbound.message.id.to_string());
    }
}
