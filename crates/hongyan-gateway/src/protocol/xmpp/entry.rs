//! An entry of the inbox as a `<message/>`.

use std::fmt::Write as _;

use hongyan_core::message::{Notification, Target};
use hongyan_core::{Class, Cursor, Message, Timestamp, Topic};
use serde::Serialize;

use super::jid;
use super::xml::{escape, ns};

/// Namespace of the element that has the message as JSON.
pub(crate) const NAMESPACE: &str = "urn:hongyan:msg:1";

/// For whom an entry is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipient<'a> {
    /// `user@domain`.
    pub(crate) bare: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) domain: &'a str,
}

/// What generic clients do not understand and apps do.
#[derive(Serialize)]
struct Payload<'a> {
    at: Timestamp,
    exp: Timestamp,
    class: Class,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a Topic>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notification: &'a Option<Notification>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: &'a Option<serde_json::Map<String, serde_json::Value>>,
    dup: bool,
}

/// Writes it. `waited` says that it was not sent as soon as it was accepted.
pub(crate) fn write(
    message: &Message,
    place: &Cursor,
    (dup, waited): (bool, bool),
    to: Recipient<'_>,
    out: &mut String,
) {
    let topic = match &message.to {
        Target::Topic(topic) => Some(topic),
        _ => None,
    };
    // Who chats gets a conversation, everybody else single messages; what is worth nothing
    // later is not kept by the client either.
    let kind = match (message.options.ttl_s, message.class) {
        (Some(0), _) => "headline",
        (_, Class::Im) => "chat",
        _ => "normal",
    };
    let source = match topic {
        Some(topic) => jid::escape(topic.as_str()),
        None => message.class.as_str().to_owned(),
    };
    let _ = write!(
        out,
        "<message xmlns='{}' from='{}@{}' to='{}/{}' id='{}' type='{kind}'>",
        ns::CLIENT,
        escape(&source),
        to.domain,
        escape(to.bare),
        escape(to.resource),
        message.id,
    );
    if let Some(notification) = &message.notification {
        if !notification.title.is_empty() {
            let _ = write!(out, "<subject>{}</subject>", escape(&notification.title));
        }
        let gap = match (notification.title.is_empty(), notification.body.is_empty()) {
            (false, false) => "\n",
            _ => "",
        };
        let _ = write!(
            out,
            "<body>{}{gap}{}</body>",
            escape(&notification.title),
            escape(&notification.body)
        );
    }
    let _ = write!(
        out,
        "<stanza-id xmlns='urn:xmpp:sid:0' by='{}' id='{place}'/>",
        escape(to.bare)
    );
    if waited {
        let _ = write!(
            out,
            "<delay xmlns='urn:xmpp:delay' from='{}' stamp='{}'/>",
            to.domain,
            stamp(message.accepted_at)
        );
    }
    if kind == "headline" {
        let _ = write!(out, "<no-store xmlns='{}'/>", ns::HINTS);
    } else {
        let _ = write!(
            out,
            "<store xmlns='{}'/><request xmlns='{}'/>",
            ns::HINTS,
            ns::RECEIPTS
        );
        if message.notification.is_some() {
            let _ = write!(out, "<markable xmlns='{}'/>", ns::MARKERS);
        }
    }
    let payload = Payload {
        at: message.accepted_at,
        exp: message.expires_at,
        class: message.class,
        topic,
        notification: &message.notification,
        data: &message.data,
        dup,
    };
    let json = serde_json::to_string(&payload).unwrap_or_default();
    let _ = write!(
        out,
        "<data xmlns='{NAMESPACE}'>{}</data></message>",
        escape(&json)
    );
}

/// XEP-0082, without fractions of a second.
pub(crate) fn stamp(at: Timestamp) -> String {
    let text = at.rfc3339();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// Whether it may wait while the client says that nobody looks (XEP-0352).
pub(crate) fn is_urgent(message: &Message) -> bool {
    use hongyan_core::message::Priority;
    match message.options.priority {
        Some(Priority::High) => true,
        Some(Priority::Normal) => false,
        None => matches!(message.class, Class::Im | Class::Transaction),
    }
}
