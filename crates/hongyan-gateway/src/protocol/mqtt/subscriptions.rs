//! What a session subscribed to, and under which name an entry goes to it.

use hongyan_core::message::Target;
use hongyan_core::push::PushEncoding;
use hongyan_core::{Message, Push, PushChannel, Topic};
use hongyan_mqtt::packet::{Property, QoS, ReasonCode};
use hongyan_mqtt::topic;

/// Most subscriptions of a session.
const LEN_MAX: usize = 32;
const INBOX: &str = "hy/me/inbox";
const TOPIC: &str = "hy/t/";
/// Before the name of one of the device's push channels.
const CHANNEL: &str = "hy/me/ch/";

/// What is wanted of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) qos: QoS,
    /// Its subscription identifier (5.0).
    pub(super) id: Option<u32>,
}

/// Where a filter leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The inbox, or a part of it.
    Inbox,
    /// One topic of the app, to be followed.
    Topic(Topic),
}

/// Judges a filter level by level: what is not ours does not exist, whatever wildcards say.
pub(super) fn place(filter: &str) -> Result<Place, ReasonCode> {
    if topic::share(filter).is_some() {
        return Err(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
    }
    if !topic::is_within_limits(filter) {
        return Err(ReasonCode::TOPIC_FILTER_INVALID);
    }
    if filter == INBOX
        || filter
            .strip_prefix(INBOX)
            .is_some_and(|rest| rest.starts_with('/'))
    {
        return Ok(Place::Inbox);
    }
    if let Some(rest) = filter.strip_prefix(CHANNEL) {
        return if matches!(rest, "+" | "#") || PushChannel::parse(rest).is_ok() {
            Ok(Place::Inbox)
        } else {
            Err(ReasonCode::TOPIC_FILTER_INVALID)
        };
    }
    match filter.strip_prefix(TOPIC) {
        // Everything that the device follows already.
        Some(rest) if rest.contains(['+', '#']) => Ok(Place::Inbox),
        Some(rest) => Topic::parse(rest)
            .map(Place::Topic)
            .map_err(|_| ReasonCode::TOPIC_FILTER_INVALID),
        None => Err(ReasonCode::NOT_AUTHORIZED),
    }
}

/// What a 5.0 client is told of a push that it gets as bytes.
pub(super) fn properties(push: &Push) -> Vec<Property<'_>> {
    let mut all = vec![Property::UserProperty("urgency", push.urgency.as_str())];
    if let Some(encoding) = push.encoding.as_str() {
        all.push(Property::UserProperty("encoding", encoding));
    }
    if let PushEncoding::Aesgcm {
        encryption,
        crypto_key,
    } = &push.encoding
    {
        all.push(Property::UserProperty("encryption", encryption));
        all.push(Property::UserProperty("crypto_key", crypto_key));
    }
    all
}

/// The subscriptions of a session. The common one, all of the inbox, owns no memory.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    inbox: Option<Wish>,
    #[allow(
        clippy::box_collection,
        reason = "one word instead of three in every session"
    )]
    others: Option<Box<Others>>,
}

/// Filters with what is wanted of them.
type Others = Vec<(Box<str>, Wish)>;

/// How an entry goes to the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The name that it is published under.
    pub(super) topic: String,
    /// The highest that a matching subscription asked for.
    pub(super) qos: QoS,
    /// Identifiers of the matching subscriptions.
    pub(super) ids: Vec<u32>,
}

impl Found {
    /// What was posted to a channel, byte for byte, when it goes out under the channel's name.
    pub(super) fn raw<'m>(&self, message: &'m Message) -> Option<&'m Push> {
        let push = message.push.as_deref();
        push.filter(|_| self.topic.starts_with(CHANNEL))
    }
}

impl Subscriptions {
    pub(super) fn is_empty(&self) -> bool {
        self.inbox.is_none() && self.others.is_none()
    }

    pub(super) fn is_full(&self) -> bool {
        self.others
            .as_ref()
            .is_some_and(|others| others.len() >= LEN_MAX - 1)
    }

    /// Adds a subscription, or replaces the one with the same filter [3.8.4-3].
    pub(super) fn add(&mut self, filter: &str, wish: Wish) {
        if filter == INBOX {
            self.inbox = Some(wish);
            return;
        }
        let others = self.others.get_or_insert_default();
        match others.iter_mut().find(|(known, _)| **known == *filter) {
            Some((_, known)) => *known = wish,
            None => others.push((filter.into(), wish)),
        }
    }

    /// Removes one; whether it was there.
    pub(super) fn remove(&mut self, filter: &str) -> bool {
        if filter == INBOX {
            return self.inbox.take().is_some();
        }
        let Some(others) = &mut self.others else {
            return false;
        };
        let before = others.len();
        others.retain(|(known, _)| **known != *filter);
        let removed = others.len() < before;
        if others.is_empty() {
            self.others = None;
        }
        removed
    }

    /// How an entry goes out: under the most particular name that a subscription matches, once.
    pub(super) fn find(&self, message: &Message) -> Option<Found> {
        let topic = match &message.to {
            Target::Topic(topic) => Some(topic),
            _ => None,
        };
        let channel = message.push.as_deref().map(|push| &push.channel);
        let names = [
            channel.map(|channel| format!("{CHANNEL}{channel}")),
            topic.map(|topic| format!("{TOPIC}{topic}")),
            topic.map(|topic| format!("{INBOX}/{topic}")),
            Some(INBOX.to_owned()),
        ];
        names
            .into_iter()
            .flatten()
            .find_map(|name| self.under(name))
    }

    fn under(&self, name: String) -> Option<Found> {
        let inbox = self.inbox.iter().filter(|_| name == INBOX);
        let others = self.others.iter().flat_map(|others| others.iter());
        let others = others.filter(|(filter, _)| topic::matches(filter, &name));
        let wishes: Vec<Wish> = inbox
            .copied()
            .chain(others.map(|(_, wish)| *wish))
            .collect();
        let qos = wishes.iter().map(|wish| wish.qos).max()?;
        Some(Found {
            topic: name,
            qos,
            ids: wishes.iter().filter_map(|wish| wish.id).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(to: serde_json::Value) -> Message {
        serde_json::from_value(json!({
            "id": "0198f2f0-0000-7000-8000-000000000001", "app": "demo", "to": to,
            "accepted_at": 0, "expires_at": 9
        }))
        .unwrap()
    }

    const QOS_1: Wish = Wish {
        qos: QoS::AtLeastOnce,
        id: None,
    };

    #[test]
    fn mq_14_nothing_but_the_own_subtree_exists() {
        for filter in [
            "#",
            "+/me/inbox",
            "hy/#",
            "hy/+/inbox",
            "hy/you/inbox",
            "a",
            "$SYS/#",
            "hy/me/inboxes",
            "hy/me/ch",
            "hy/+/ch/a",
        ] {
            assert_eq!(place(filter), Err(ReasonCode::NOT_AUTHORIZED), "{filter}");
        }
        let shared = place("$share/g/hy/me/inbox");
        assert_eq!(shared, Err(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED));
        for filter in [
            "hy/me/inbox",
            "hy/me/inbox/#",
            "hy/me/inbox/news",
            "hy/t/#",
            "hy/me/ch/+",
            "hy/me/ch/#",
            "hy/me/ch/6f6b3d5e-0000-4000-8000-000000000001",
        ] {
            assert_eq!(place(filter), Ok(Place::Inbox), "{filter}");
        }
        for filter in ["hy/me/ch/", "hy/me/ch/a/b", "hy/me/ch/a b"] {
            let refused = Err(ReasonCode::TOPIC_FILTER_INVALID);
            assert_eq!(place(filter), refused, "{filter}");
        }
        let news = Topic::parse("news").unwrap();
        assert_eq!(place("hy/t/news"), Ok(Place::Topic(news)));
        assert_eq!(place("hy/t/"), Err(ReasonCode::TOPIC_FILTER_INVALID));
    }

    #[test]
    fn an_entry_goes_out_once_under_the_name_that_matches() {
        let personal = message(json!({"users": ["u"]}));
        let news = message(json!({"topic": "news"}));
        let name = |filters: &[&str], message: &Message| {
            let mut all = Subscriptions::default();
            for filter in filters {
                all.add(filter, QOS_1);
            }
            all.find(message).map(|found| found.topic)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(name(&["hy/me/inbox"], &personal), text("hy/me/inbox"));
        assert_eq!(name(&["hy/me/inbox"], &news), text("hy/me/inbox"));
        assert_eq!(name(&["hy/me/inbox/#"], &personal), text("hy/me/inbox"));
        assert_eq!(name(&["hy/me/inbox/#"], &news), text("hy/me/inbox/news"));
        assert_eq!(name(&["hy/me/inbox/news"], &personal), None);
        assert_eq!(
            name(&["hy/t/news", "hy/me/inbox/#"], &news),
            text("hy/t/news")
        );
        assert_eq!(name(&["hy/t/other"], &news), None);
    }

    #[test]
    fn a_push_goes_out_under_its_channel_or_with_the_inbox() {
        let mut push = message(json!({"devices": ["d"]}));
        push.push = Some(Box::new(Push {
            channel: PushChannel::parse("c-1").unwrap(),
            endpoint: [0; 32],
            body: bytes::Bytes::from_static(b"\x00\xff"),
            encoding: hongyan_core::push::PushEncoding::Opaque,
            urgency: hongyan_core::push::Urgency::Normal,
            topic: None,
            holder: None,
        }));
        let found = |filters: &[&str]| {
            let mut all = Subscriptions::default();
            for filter in filters {
                all.add(filter, QOS_1);
            }
            let found = all.find(&push)?;
            let raw = found.raw(&push).is_some();
            Some((found.topic, raw))
        };
        let text = |name: &str, raw| Some((name.to_owned(), raw));
        for filter in ["hy/me/ch/c-1", "hy/me/ch/+", "hy/me/ch/#"] {
            let both = found(&["hy/me/inbox", filter]);
            assert_eq!(both, text("hy/me/ch/c-1", true), "{filter}");
        }
        assert_eq!(found(&["hy/me/inbox"]), text("hy/me/inbox", false));
        assert_eq!(found(&["hy/me/ch/c-2"]), None);
    }

    #[test]
    fn the_highest_qos_and_every_identifier() {
        let mut all = Subscriptions::default();
        let wish = |qos, id| Wish { qos, id: Some(id) };
        all.add("hy/me/inbox", wish(QoS::AtMostOnce, 7));
        all.add("hy/me/inbox/#", wish(QoS::AtLeastOnce, 9));
        all.add("hy/me/inbox/#", wish(QoS::AtLeastOnce, 8));
        let found = all.find(&message(json!({"users": ["u"]}))).unwrap();
        assert_eq!((found.qos, found.ids), (QoS::AtLeastOnce, vec![7, 8]));
        assert!(all.remove("hy/me/inbox") && !all.remove("hy/me/inbox"));
        assert!(all.remove("hy/me/inbox/#") && all.is_empty());
    }
}
