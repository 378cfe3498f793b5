//! An entry of the inbox as a `<message/>`.

use std::fmt::Write as _;

use hongyan_core::message::Target;
use hongyan_core::push::Urgency;
use hongyan_core::{Class, Cursor, Message, MessageId, Timestamp};

use super::jid;
use super::xml::{escape, ns};
use crate::protocol::Encoding;
use crate::protocol::hongyan::outgoing;

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

/// Writes it. `waited` says that it was not sent as soon as it was accepted.
pub(crate) fn write(
    message: &Message,
    place: &Cursor,
    waited: bool,
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
    // As in hongyan's own protocol: what generic clients do not understand and apps do.
    let shared = outgoing::shared(Encoding::Json, message);
    let json = std::str::from_utf8(&shared).unwrap_or_default();
    let _ = write!(
        out,
        "<data xmlns='{NAMESPACE}'>{}</data></message>",
        escape(json)
    );
}

/// Writes the mark of a recall: a headline, which no client keeps, with the place at which it is acknowledged.
pub(crate) fn write_mark(
    mark: &Message,
    recalled: MessageId,
    place: &Cursor,
    to: Recipient<'_>,
    out: &mut String,
) {
    let bare = escape(to.bare);
    let _ = write!(
        out,
        "<message xmlns='{}' from='{}' to='{bare}/{}' id='{}' type='headline'>\
         <recall xmlns='{NAMESPACE}' id='{recalled}'/>\
         <stanza-id xmlns='urn:xmpp:sid:0' by='{bare}' id='{place}'/>\
         <no-store xmlns='{}'/></message>",
        ns::CLIENT,
        to.domain,
        escape(to.resource),
        mark.id,
        ns::HINTS,
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
    if let Some(push) = &message.push {
        return matches!(push.urgency, Urgency::Normal | Urgency::High);
    }
    match message.options.priority {
        Some(Priority::High) => true,
        Some(Priority::Normal) => false,
        None => matches!(message.class, Class::Im | Class::Transaction),
    }
}
