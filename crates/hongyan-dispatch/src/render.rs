//! From a message to what a vendor push shows: the push options applied, nothing vendor-specific.

use std::sync::Arc;

use hongyan_core::port::{Channel, Outbound, Parcel, Truncation};
use hongyan_core::{Message, Reason, Timestamp};

/// A body is not made shorter than this before `data` is left to the inbox.
const BODY_CHARS_KEPT: usize = 40;
/// Ends a text that was shortened.
const ELLIPSIS: char = '…';

/// The outbound form of a message for devices of one package. The same over all tries, but for `now`.
#[must_use]
pub fn outbound(message: &Arc<Message>, package: Option<String>, now: Timestamp) -> Outbound {
    let push = &message.options.push;
    let (title, body, badge) = match &message.notification {
        None => (None, None, None),
        Some(n) => {
            // A title that was written for the push names whom its author wants named.
            let own = Some(&n.title).filter(|_| push.show_sender);
            let title = push.title.as_ref().or(own);
            let body = push.body.as_ref().unwrap_or(&n.body);
            (
                title.cloned().filter(|t| !t.is_empty()),
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

/// What is taken from an outbound so that the vendor takes the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shortened {
    /// Characters of the body that stay, the mark of the cut among them.
    body: Option<usize>,
    /// The device fetches it by the message's id.
    without_data: bool,
}

impl Shortened {
    /// What is left.
    #[must_use]
    pub fn of(&self, mut left: Outbound) -> Outbound {
        if self.without_data && left.message.data.is_some() {
            left.message = Arc::new(Message {
                data: None,
                ..Message::clone(&left.message)
            });
        }
        if let (Some(chars), Some(body)) = (self.body, &mut left.body) {
            let begin = body.chars().take(chars.saturating_sub(1));
            *body = begin.chain([ELLIPSIS]).collect();
        }
        left
    }
}

/// What the vendor is shown of an outbound, and what had to go for that: its payload has a size in bytes, which no limit of a
/// single text keeps. The body goes first, as long as enough of it stays; then `data`.
///
/// # Errors
/// As [`Channel::preview`], when it does not fit in the end either.
pub fn fit(
    channel: &dyn Channel,
    outbound: &Outbound,
) -> Result<(Shortened, Parcel), (Reason, String)> {
    let too_large = match channel.preview(outbound) {
        Ok(parcel) => return Ok((Shortened::default(), parcel)),
        Err(error) if error.0 == Reason::PayloadTooLarge => error,
        Err(error) => return Err(error),
    };
    let chars = outbound.body.as_ref().map_or(0, |b| b.chars().count());
    let data = outbound.message.data.as_ref();
    let data_bytes = data.map(|data| serde_json::to_vec(data).map_or(0, |bytes| bytes.len()));
    for without_data in [false, true] {
        if without_data && data.is_none() {
            break;
        }
        let kept = if without_data || data.is_none() {
            1
        } else {
            BODY_CHARS_KEPT
        };
        let Some((shortened, mut parcel)) = longest(channel, outbound, without_data, chars, kept)
        else {
            continue;
        };
        if let Some(to) = shortened.body {
            // The vendor's own cut, if it made one, began with what is left here.
            parcel.truncated.retain(|cut| cut.field != "body");
            let (field, from) = ("body", chars);
            parcel.truncated.push(Truncation { field, from, to });
        }
        if let Some(from) = data_bytes.filter(|_| without_data) {
            let (field, to) = ("data", 0);
            parcel.truncated.push(Truncation { field, from, to });
        }
        return Ok((shortened, parcel));
    }
    Err(too_large)
}

/// The longest body that fits, of at least `kept` of its `chars` characters.
fn longest(
    channel: &dyn Channel,
    outbound: &Outbound,
    without_data: bool,
    chars: usize,
    kept: usize,
) -> Option<(Shortened, Parcel)> {
    let attempt = |body: Option<usize>| {
        let shortened = Shortened { body, without_data };
        let parcel = channel.preview(&shortened.of(outbound.clone())).ok()?;
        Some((shortened, parcel))
    };
    if without_data && let Some(whole) = attempt(None) {
        return Some(whole);
    }
    // The first is known to be too long, and what is too short is not asked for.
    let (mut too_long, mut found) = (chars, None);
    let mut fits = kept.saturating_sub(1);
    while fits + 1 < too_long {
        let middle = fits.midpoint(too_long);
        match attempt(Some(middle)) {
            Some(one) => (fits, found) = (middle, Some(one)),
            None => too_long = middle,
        }
    }
    found
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
            o.push.show_sender = false;
            o.push.title = text("Chat");
        });
        assert_eq!(hidden, (text("Chat"), body(), Some(3)));
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
