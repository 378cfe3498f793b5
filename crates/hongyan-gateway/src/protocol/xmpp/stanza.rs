//! What a bound client says: stanzas, and the elements between them.

use std::fmt::Write as _;

use hongyan_core::limits::SAID_BYTES_MAX;
use hongyan_core::session::AppState;
use hongyan_core::{ChannelId, Class, MessageId, Stage};

use super::bound::{Live, failed};
use super::deliver::{Copied, Pings};
use super::entry::stamp;
use super::jid::Jid;
use super::machine::{Ground, Host, Machine, Query};
use super::party::Peer;
use super::sm::{Sm, hex};
use super::xml::{Element, Node, escape, ns};

/// What the domain answers about itself (XEP-0030).
const FEATURES: [&str; 7] = [
    ns::DISCO_INFO,
    ns::DISCO_ITEMS,
    ns::PING,
    ns::CARBONS,
    ns::VERSION,
    ns::TIME,
    "msgoffline",
];

impl Machine {
    pub(super) fn hear_live(&mut self, mut element: Element, host: &mut dyn Host) {
        let stanza = match (element.ns.as_str(), element.name.as_str()) {
            (ns::CLIENT, "message" | "presence" | "iq") => true,
            (ns::SM | ns::CSI, _) => false,
            ("" | ns::CLIENT, _) if self.ground == Ground::WebSocket && element.ns.is_empty() => {
                return self.fail("invalid-namespace", "", host);
            }
            _ => return self.fail("unsupported-stanza-type", "", host),
        };
        if !stanza {
            return match element.ns.as_str() {
                ns::SM => self.managed(&element, host),
                _ => self.client_state(&element, host),
            };
        }
        let Some(live) = &mut self.live else { return };
        let full = live.full();
        if let Some(from) = element.attribute("from")
            && !same_address(from, &full)
            && !same_address(from, &live.bare())
        {
            return self.fail("invalid-from", "", host);
        }
        element.set("from", &full);
        match element.name.as_str() {
            "iq" => self.iq(&element, host),
            "presence" => self.presence(&element, host),
            _ => self.message(element, host),
        }
        if let Some(live) = &mut self.live
            && let Some(sm) = &mut live.sm
        {
            sm.handled = sm.handled.wrapping_add(1);
        }
    }

    fn managed(&mut self, element: &Element, host: &mut dyn Host) {
        let Some(live) = &mut self.live else { return };
        let h = element.attribute("h").and_then(|h| h.parse::<u32>().ok());
        match (element.name.as_str(), &mut live.sm) {
            ("enable", Some(_)) => {
                self.fail("policy-violation", "it is enabled already", host);
            }
            ("enable", None) => {
                let resume = matches!(element.attribute("resume"), Some("true" | "1"));
                let id = resume.then(|| {
                    let mut id = [0; 16];
                    host.random(&mut id);
                    id
                });
                live.sm = Some(Box::new(Sm::new(id)));
                host.write(&match id {
                    Some(id) => format!(
                        "<enabled xmlns='{}' id='{}' resume='true' max='{}'/>",
                        ns::SM,
                        hex(&id),
                        self.shared.resume_s
                    ),
                    None => format!("<enabled xmlns='{}'/>", ns::SM),
                });
                // It acknowledges otherwise from now on, and what it owed so far holds up nothing.
                host.want();
            }
            ("r", Some(sm)) => {
                host.write(&format!("<a xmlns='{}' h='{}'/>", ns::SM, sm.handled));
            }
            ("a", Some(sm)) => match h.map(|h| (h, sm.acked(h))) {
                Some((_, Ok(ids))) => {
                    if !ids.is_empty() {
                        host.ack(ids);
                    }
                }
                Some((h, Err(too_high))) => self.too_high(h, too_high.sent, host),
                None => self.fail("bad-format", "", host),
            },
            ("r" | "a" | "resume", _) => host.write(&failed("unexpected-request", None)),
            _ => self.fail("unsupported-stanza-type", "", host),
        }
    }

    fn client_state(&mut self, element: &Element, host: &mut dyn Host) {
        let Some(live) = &mut self.live else { return };
        match element.name.as_str() {
            "active" => {
                live.inactive = false;
                host.state(AppState::Foreground);
                self.release(host);
                self.ask(host);
            }
            "inactive" => {
                live.inactive = true;
                host.state(AppState::Background);
            }
            _ => self.fail("unsupported-stanza-type", "", host),
        }
    }

    fn presence(&mut self, presence: &Element, host: &mut dyn Host) {
        let kind = presence.attribute("type");
        if presence.attribute("to").is_some() {
            // Nobody else hears of it; who asks for more is told so.
            if matches!(
                kind,
                Some("subscribe" | "subscribed" | "unsubscribe" | "unsubscribed")
            ) {
                let text = error_to(presence, None, "cancel", "not-allowed");
                self.stanza(text, host);
            }
            return;
        }
        let Some(live) = &mut self.live else { return };
        let priority = match kind {
            None => {
                let priority = presence.child(ns::CLIENT, "priority").map(Element::text);
                let priority = priority.and_then(|p| p.trim().parse::<i8>().ok());
                Some(priority.unwrap_or(0))
            }
            Some("unavailable") => None,
            Some(_) => return,
        };
        let before = std::mem::replace(&mut live.priority, priority);
        let (reader, session) = (&live.reader, live.session);
        self.shared
            .party
            .change(reader, session, |peer| peer.priority = priority);
        if priority.is_some_and(|now| now >= 0) && before.is_none_or(|before| before < 0) {
            host.want();
        }
        // RFC 6121 section 4.2.2: the resource itself hears it too.
        let mut echo = presence.clone();
        echo.set("to", &live.full());
        let mut text = String::new();
        echo.write("", &mut text);
        self.stanza(text, host);
    }

    fn message(&mut self, message: Element, host: &mut dyn Host) {
        self.take_receipts(&message, host);
        if message.attribute("type") == Some("error") {
            return;
        }
        let Some(live) = &self.live else { return };
        let bare = live.bare();
        let to = message.attribute("to").unwrap_or(&bare).to_owned();
        let Some(jid) = Jid::parse(&to) else {
            let text = error_to(&message, None, "modify", "jid-malformed");
            return self.stanza(text, host);
        };
        let domain = live.domain.to_string();
        if !jid.domain.eq_ignore_ascii_case(&domain) {
            let text = error_to(&message, Some(&to), "cancel", "remote-server-not-found");
            return self.stanza(text, host);
        }
        let own = jid.local.is_some() && same_bare(&to, &bare);
        if own {
            return self.among_own(message, &to, jid.resource, host);
        }
        let source = jid
            .local
            .is_none_or(|local| Class::ALL.iter().any(|class| class.as_str() == local));
        let condition = match message.child(ns::CLIENT, "body").map(Element::text) {
            _ if !source => ("cancel", "service-unavailable"),
            // Receipts and markers are taken above; other signs of a chat are for nobody.
            None => return,
            Some(text) if text.len() > SAID_BYTES_MAX => ("modify", "not-acceptable"),
            Some(text) => {
                host.said(text);
                return self.copy_sent(&message, &to, host);
            }
        };
        let text = error_to(&message, Some(&to), condition.0, condition.1);
        self.stanza(text, host);
    }

    /// A receipt (XEP-0184) says that the entry arrived, a marker (XEP-0333) that it was shown.
    fn take_receipts(&mut self, message: &Element, host: &mut dyn Host) {
        let id = |element: Option<&Element>| {
            let id = element.and_then(|e| e.attribute("id"));
            id.and_then(|id| MessageId::parse(id).ok())
        };
        if let Some(id) = id(message.child(ns::RECEIPTS, "received")) {
            self.forget_ping(id);
            host.ack(vec![id]);
        }
        if let Some(id) = id(message.child(ns::MARKERS, "displayed")) {
            self.forget_ping(id);
            host.ack(vec![id]);
            host.event(id, Stage::Displayed);
        }
    }

    fn forget_ping(&mut self, id: MessageId) {
        if let Some(live) = &mut self.live {
            live.pings.sent.retain(|(_, one)| *one != id);
        }
    }

    /// Between the devices of one user, and the carbons of it (XEP-0280).
    fn among_own(
        &mut self,
        mut message: Element,
        to: &str,
        resource: Option<&str>,
        host: &mut dyn Host,
    ) {
        let Some(live) = &self.live else { return };
        let (bare, me) = (live.bare(), live.session);
        let peers = self.shared.party.of(&live.reader);
        message.set("to", to);
        let mut text = String::new();
        message.write("", &mut text);
        let reached: Vec<_> = match resource {
            Some(resource) => peers.iter().filter(|p| *p.resource == *resource).collect(),
            None => peers
                .iter()
                .filter(|p| p.priority.is_some_and(|priority| priority >= 0))
                .collect(),
        };
        if reached.is_empty() {
            let text = error_to(&message, Some(to), "cancel", "service-unavailable");
            return self.stanza(text, host);
        }
        let copied = is_copied(&message);
        let mut say = Vec::new();
        for peer in &peers {
            let direct = reached.iter().any(|one| one.session == peer.session);
            if direct {
                say.push((peer.session, text.clone()));
            } else if peer.carbons && peer.session != me && copied {
                say.push((peer.session, carbon("received", &message, &bare, peer)));
            }
        }
        for (session, text) in say {
            if session == me {
                self.stanza(text, host);
            } else {
                host.tell(session, Copied(text));
            }
        }
    }

    /// The user's other resources see what was said to the app (XEP-0280).
    fn copy_sent(&self, message: &Element, to: &str, host: &mut dyn Host) {
        let Some(live) = self.live.as_ref().filter(|_| is_copied(message)) else {
            return;
        };
        let mut message = message.clone();
        message.set("to", to);
        for peer in self.shared.party.of(&live.reader) {
            if peer.carbons && peer.session != live.session {
                let copy = carbon("sent", &message, &live.bare(), &peer);
                host.tell(peer.session, Copied(copy));
            }
        }
    }

    fn iq(&mut self, iq: &Element, host: &mut dyn Host) {
        let (id, kind) = (iq.attribute("id"), iq.attribute("type"));
        if matches!(kind, Some("result" | "error")) {
            return self.answered(id.unwrap_or_default(), host);
        }
        let Some(answer) = self.answer(iq, host) else {
            return;
        };
        self.stanza(answer, host);
    }

    /// An answer to one of our pings acknowledges what was sent before it.
    fn answered(&mut self, id: &str, host: &mut dyn Host) {
        let number = id.strip_prefix("hy-").and_then(|n| n.parse::<u32>().ok());
        let (Some(number), Some(live)) = (number, &mut self.live) else {
            return;
        };
        let Pings { sent, next } = &mut live.pings;
        if next.wrapping_sub(number) > u32::MAX / 2 || number == *next {
            return;
        }
        let mut had = Vec::new();
        while let Some((ping, id)) = sent.front() {
            if number.wrapping_sub(*ping) > u32::MAX / 2 {
                break;
            }
            had.push(*id);
            sent.pop_front();
        }
        if sent.is_empty() {
            sent.shrink_to_fit();
        }
        if !had.is_empty() {
            host.ack(had);
        }
    }

    /// The one answer to a get or set; `None` when it comes later.
    fn answer(&mut self, iq: &Element, host: &mut dyn Host) -> Option<String> {
        let live = self.live.as_mut()?;
        let get = match (iq.attribute("id"), iq.attribute("type")) {
            (Some(_), Some("get")) => true,
            (Some(_), Some("set")) => false,
            _ => return Some(error_to(iq, None, "modify", "bad-request")),
        };
        let mut payloads = iq.elements();
        let (Some(payload), None) = (payloads.next(), payloads.next()) else {
            return Some(error_to(iq, None, "modify", "bad-request"));
        };
        let bare = live.bare();
        let to = iq.attribute("to").map(str::to_owned);
        let jid = match to.as_deref().map(Jid::parse) {
            Some(None) => return Some(error_to(iq, None, "modify", "jid-malformed")),
            Some(jid) => jid,
            None => None,
        };
        let push = format!("push.{}", self.shared.domain);
        let push_own = format!("push.{}", live.domain);
        let at_push = jid.is_some_and(|jid| jid.domain == push || jid.domain == push_own);
        let at_domain = jid.is_some_and(|jid| {
            jid.local.is_none() && jid.domain.eq_ignore_ascii_case(&live.domain)
        });
        let own = to.as_deref().is_none_or(|to| same_bare(to, &bare));
        if let Some(jid) = jid
            && !at_push
            && !jid.domain.eq_ignore_ascii_case(&live.domain)
        {
            return Some(error_to(
                iq,
                to.as_deref(),
                "cancel",
                "remote-server-not-found",
            ));
        }
        let mine = own || at_domain;
        if !mine && !at_push {
            // Of somebody else: who they are, or whether they are there, is not told.
            return Some(error_to(iq, to.as_deref(), "cancel", "service-unavailable"));
        }
        let (space, name) = (payload.ns.as_str(), payload.name.as_str());
        let result = match (space, name, get) {
            (ns::PING, "ping", true) => String::new(),
            (ns::DISCO_INFO, "query", true) => {
                let node = payload.attribute("node").map(str::to_owned);
                if node.is_some() {
                    return Some(error_to(iq, to.as_deref(), "cancel", "item-not-found"));
                }
                info(at_domain, at_push)
            }
            (ns::DISCO_ITEMS, "query", true) if at_domain => format!(
                "<query xmlns='{}'><item jid='{push_own}'/></query>",
                ns::DISCO_ITEMS
            ),
            (ns::DISCO_ITEMS, "query", true) => format!("<query xmlns='{}'/>", ns::DISCO_ITEMS),
            (ns::SESSION, "session", false) if mine => String::new(),
            (ns::ROSTER, "query", true) if own => format!("<query xmlns='{}'/>", ns::ROSTER),
            (ns::ROSTER, "query", false) if own => {
                return Some(error_to(iq, to.as_deref(), "cancel", "not-allowed"));
            }
            (ns::VERSION, "query", true) if mine => format!(
                "<query xmlns='{}'><name>hongyan</name><version>{}</version></query>",
                ns::VERSION,
                env!("CARGO_PKG_VERSION")
            ),
            (ns::TIME, "time", true) if mine => format!(
                "<time xmlns='{}'><tzo>+00:00</tzo><utc>{}</utc></time>",
                ns::TIME,
                stamp(host.now())
            ),
            (ns::PRIVATE, "query", true) if own => {
                let mut text = String::new();
                payload.write(ns::CLIENT, &mut text);
                text
            }
            (ns::VCARD, "vCard", true) if own => format!("<vCard xmlns='{}'/>", ns::VCARD),
            (ns::BLOCKING, "blocklist", true) if own => {
                format!("<blocklist xmlns='{}'/>", ns::BLOCKING)
            }
            (ns::CARBONS, "enable" | "disable", false) if own => {
                let on = name == "enable";
                live.carbons = on;
                let (reader, session) = (&live.reader, live.session);
                self.shared
                    .party
                    .change(reader, session, |peer| peer.carbons = on);
                String::new()
            }
            (ns::PUSH, "enable" | "disable", false) if own => {
                let refuse = |kind, word| Some(error_to(iq, to.as_deref(), kind, word));
                let on = name == "enable";
                let Some(service) = payload.attribute("jid") else {
                    return refuse("modify", "bad-request");
                };
                if service != push && service != push_own {
                    let unknown = match on {
                        true => "remote-server-not-found",
                        false => "item-not-found",
                    };
                    return refuse("cancel", unknown);
                }
                if on && !options_are_sound(payload) {
                    return refuse("modify", "bad-request");
                }
                // Without a node all that were turned on end; nothing is turned on without one.
                let channel = match payload.attribute("node").map(ChannelId::parse) {
                    Some(Ok(channel)) => Some(channel),
                    None if !on => None,
                    _ => return refuse("cancel", "item-not-found"),
                };
                let query = Query::Push {
                    iq: iq.attribute("id").unwrap_or_default().to_owned(),
                    app: live.reader.app.clone(),
                    device: live.reader.device.clone(),
                    channel,
                    on,
                };
                if !host.ask(query) {
                    return refuse("wait", "resource-constraint");
                }
                return None;
            }
            _ => return Some(error_to(iq, to.as_deref(), "cancel", "service-unavailable")),
        };
        Some(result_to(iq, live, to.as_deref(), &result))
    }

    /// Pushes through a node of the push service are on or off now.
    pub(super) fn pushed(&mut self, iq: &str, known: Option<bool>, host: &mut dyn Host) {
        let Some(live) = &self.live else { return };
        let mut asked = Element {
            ns: ns::CLIENT.to_owned(),
            name: "iq".to_owned(),
            ..Element::default()
        };
        asked.set("id", iq);
        asked.set("from", &live.full());
        let text = match known {
            Some(true) => result_to(&asked, live, None, ""),
            Some(false) => error_to(&asked, None, "cancel", "item-not-found"),
            None => error_to(&asked, None, "wait", "resource-constraint"),
        };
        self.stanza(text, host);
    }
}

fn info(at_domain: bool, at_push: bool) -> String {
    let (identity, features): (_, &[&str]) = match (at_domain, at_push) {
        (true, _) => ("category='server' type='im' name='hongyan'", &FEATURES),
        (_, true) => ("category='pubsub' type='push'", &[ns::PUSH]),
        _ => (
            "category='account' type='registered'",
            &[ns::PUSH, ns::CARBONS],
        ),
    };
    let features: String = features
        .iter()
        .map(|f| format!("<feature var='{f}'/>"))
        .collect();
    format!(
        "<query xmlns='{}'><identity {identity}/>{features}</query>",
        ns::DISCO_INFO
    )
}

/// A form beside a push node has to be the one for publish options (XEP-0357 section 5).
fn options_are_sound(enable: &Element) -> bool {
    let Some(form) = enable.child(ns::DATA_FORMS, "x") else {
        return true;
    };
    form.elements().any(|field| {
        field.attribute("var") == Some("FORM_TYPE")
            && field
                .child(ns::DATA_FORMS, "value")
                .is_some_and(|value| value.text() == ns::PUBLISH_OPTIONS)
    })
}

fn result_to(iq: &Element, live: &Live, from: Option<&str>, inner: &str) -> String {
    let bare = live.bare();
    let from = from.unwrap_or(&bare);
    let id = iq.attribute("id").unwrap_or_default();
    let (from, id, full) = (escape(from), escape(id), live.full());
    let head = format!(
        "<iq xmlns='{}' type='result' id='{id}' from='{from}' to='{}'",
        ns::CLIENT,
        escape(&full)
    );
    match inner {
        "" => format!("{head}/>"),
        inner => format!("{head}>{inner}</iq>"),
    }
}

/// A stanza error (RFC 6120 section 8.3). `from` is whom the stanza was for.
pub(super) fn error_to(
    stanza: &Element,
    from: Option<&str>,
    kind: &str,
    condition: &str,
) -> String {
    let mut answer = Element {
        ns: ns::CLIENT.to_owned(),
        name: stanza.name.clone(),
        ..Element::default()
    };
    answer.set("type", "error");
    if let Some(id) = stanza.attribute("id") {
        answer.set("id", id);
    }
    if let Some(from) = from.or_else(|| stanza.attribute("to")) {
        answer.set("from", from);
    }
    if let Some(to) = stanza.attribute("from") {
        answer.set("to", to);
    }
    let mut error = Element {
        ns: ns::CLIENT.to_owned(),
        name: "error".to_owned(),
        ..Element::default()
    };
    error.set("type", kind);
    error.children.push(Node::Element(Element {
        ns: ns::STANZA_ERRORS.to_owned(),
        name: condition.to_owned(),
        ..Element::default()
    }));
    answer.children.push(Node::Element(error));
    let mut text = String::new();
    answer.write("", &mut text);
    text
}

/// Whether a message is one of those that other resources are to see (XEP-0280 section 6).
fn is_copied(message: &Element) -> bool {
    let private = message.child(ns::CARBONS, "private").is_some()
        || message.child(ns::HINTS, "no-copy").is_some();
    let kind = message.attribute("type");
    let talk = kind == Some("chat")
        || (kind.is_none_or(|kind| kind == "normal")
            && message.child(ns::CLIENT, "body").is_some())
        || message.elements().any(|child| child.ns == ns::CHAT_STATES);
    talk && !private
}

/// A copy of a message for another resource of the user: `sent` by this one, or `received`.
fn carbon(what: &str, message: &Element, bare: &str, peer: &Peer) -> String {
    let mut copy = String::new();
    let _ = write!(
        copy,
        "<message xmlns='{}' from='{}' to='{}/{}' type='chat'><{what} xmlns='{}'><forwarded xmlns='{}'>",
        ns::CLIENT,
        escape(bare),
        escape(bare),
        escape(&peer.resource),
        ns::CARBONS,
        ns::FORWARD
    );
    message.write(ns::FORWARD, &mut copy);
    let _ = write!(copy, "</forwarded></{what}></message>");
    copy
}

fn same_bare(address: &str, bare: &str) -> bool {
    let address = address.split_once('/').map_or(address, |(bare, _)| bare);
    address.to_lowercase() == bare.to_lowercase()
}

/// Local part and domain in any case, the resource exactly.
fn same_address(a: &str, b: &str) -> bool {
    let resource = |jid: &str| jid.split_once('/').map(|(_, resource)| resource.to_owned());
    let bare = b.split_once('/').map_or(b, |(bare, _)| bare);
    same_bare(a, bare) && resource(a) == resource(b)
}
