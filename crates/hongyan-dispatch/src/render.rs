//! From a message to what a vendor push shows: the push options applied, nothing vendor-specific.

use std::sync::Arc;

use hongyan_core::port::{Outbound, Truncation};
use hongyan_core::{Message, Reason, Timestamp};

/// The outbound form of a message for devices of one package. The same over all tries, but for `now`.
#[must_use]
pub fn outbound(message: &Arc<Message>, package: Option<String>, now: Timestamp) -> Outbound {
    let push = &message.options.push;
    let (title, body, badge) = match &message.notification {
        None => (None, None, None),
        Some(n) => {
            let title = push.title.as_ref().unwrap_or(&n.title);
            let body = push.body.as_ref().unwrap_or(&n.body);
            (
                Some(title.clone()).filter(|t| push.show_sender && !t.is_empty()),
                Some(body.clone()).filter(|b| !b.is_empty()),
                n.badge.filter(|_| push.badge),
            )
        }
    };
    let dedup_key = message
        .options
        .collapse_key
        .clone()
        .unwrap_or_else(|| message.id.to_string());
    Outbound {
        message: Arc::clone(message),
        title,
        body,
        badge,
        package,
        expires_at: message.expires_at,
        now,
        dedup_key,
    }
}

/// Which texts were shortened, in words.
#[must_use]
pub fn cut_words(cut: &[Truncation]) -> String {
    let words = cut.iter();
    words
        .map(|c| format!("{} {} to {}", c.field, c.from, c.to))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The refusal of a message whose texts are too long, for an app that wants none shortened.
#[must_use]
pub fn too_long(cut: &[Truncation]) -> (Reason, String) {
    let detail = format!(
        "strict_payload is on and the vendor takes less: {}",
        cut_words(cut)
    );
    (Reason::PayloadTooLarge, detail)
}

#[cfg(test)]
mod tests {
    use hongyan_core::draft::Draft;
    use hongyan_core::message::{Notification, Options, Target};
    use hongyan_core::{AppId, Class, MessageId, UserId};

    use super::*;

    fn shown(change: impl FnOnce(&mut Options)) -> (Option<String>, Option<String>, Option<u32>) {
        let mut options = Options::default();
        change(&mut options);
        let draft = Draft {
            to: Target::Users(vec![UserId::parse("u").unwrap()]),
            class: Class::Im,
            class_detail: None,
            notification: Some(Notification {
                title: "Li Lei".to_owned(),
                body: "see you at eight".to_owned(),
                badge: Some(3),
                ..Notification::default()
            }),
            data: None,
            options,
        };
        let app = AppId::parse("a").unwrap();
        let message = draft.into_message(app, MessageId(uuid::Uuid::nil()), Timestamp(0));
        let out = outbound(&Arc::new(message), None, Timestamp(0));
        (out.title, out.body, out.badge)
    }

    #[test]
    fn the_push_shows_what_its_switches_say() {
        let text = |t: &str| Some(t.to_owned());
        let body = || text("see you at eight");
        assert_eq!(shown(|_| {}), (text("Li Lei"), body(), Some(3)));
        assert_eq!(
            shown(|o| o.push.show_sender = false),
            (None, body(), Some(3))
        );
        assert_eq!(
            shown(|o| o.push.badge = false),
            (text("Li Lei"), body(), None)
        );
        let hidden = shown(|o| {
            o.push.title = text("Chat");
            o.push.body = text("You have a new message");
        });
        assert_eq!(
            hidden,
            (text("Chat"), text("You have a new message"), Some(3))
        );
    }
}
