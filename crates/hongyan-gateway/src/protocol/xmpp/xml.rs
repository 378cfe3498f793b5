//! Elements as they come in, and text as it goes out.

use std::fmt::Write as _;

/// Namespaces that are spoken here.
pub(crate) mod ns {
    pub(crate) const CLIENT: &str = "jabber:client";
    pub(crate) const STREAMS: &str = "http://etherx.jabber.org/streams";
    pub(crate) const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
    pub(crate) const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
    pub(crate) const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";
    pub(crate) const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
    pub(crate) const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
    pub(crate) const SASL_CB: &str = "urn:xmpp:sasl-cb:0";
    pub(crate) const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
    pub(crate) const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
    pub(crate) const SM: &str = "urn:xmpp:sm:3";
    pub(crate) const CSI: &str = "urn:xmpp:csi:0";
    pub(crate) const CARBONS: &str = "urn:xmpp:carbons:2";
    pub(crate) const FORWARD: &str = "urn:xmpp:forward:0";
    pub(crate) const HINTS: &str = "urn:xmpp:hints";
    pub(crate) const RECEIPTS: &str = "urn:xmpp:receipts";
    pub(crate) const MARKERS: &str = "urn:xmpp:chat-markers:0";
    pub(crate) const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
    pub(crate) const PUSH: &str = "urn:xmpp:push:0";
    pub(crate) const PING: &str = "urn:xmpp:ping";
    pub(crate) const TIME: &str = "urn:xmpp:time";
    pub(crate) const VERSION: &str = "jabber:iq:version";
    pub(crate) const ROSTER: &str = "jabber:iq:roster";
    pub(crate) const PRIVATE: &str = "jabber:iq:private";
    pub(crate) const VCARD: &str = "vcard-temp";
    pub(crate) const BLOCKING: &str = "urn:xmpp:blocking";
    pub(crate) const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
    pub(crate) const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
    pub(crate) const DATA_FORMS: &str = "jabber:x:data";
    pub(crate) const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";
}

/// An element with everything in it. Only what the protocol reads is kept of attributes: those
/// without a prefix, and `xml:lang`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Element {
    pub(crate) ns: String,
    pub(crate) name: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) children: Vec<Node>,
}

/// See [`Element`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    pub(crate) fn is(&self, ns: &str, name: &str) -> bool {
        self.ns == ns && self.name == name
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let mut all = self.attributes.iter();
        all.find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.attributes.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.attributes.push((name.to_owned(), value.to_owned())),
        }
    }

    pub(crate) fn elements(&self) -> impl Iterator<Item = &Self> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    pub(crate) fn child(&self, ns: &str, name: &str) -> Option<&Self> {
        self.elements().find(|child| child.is(ns, name))
    }

    /// Its own text, without that of its children.
    pub(crate) fn text(&self) -> String {
        let parts = self.children.iter().map(|node| match node {
            Node::Text(text) => text.as_str(),
            Node::Element(_) => "",
        });
        parts.collect()
    }

    /// Writes it into a place where `outer` is the default namespace.
    pub(crate) fn write(&self, outer: &str, out: &mut String) {
        let _ = write!(out, "<{}", self.name);
        if self.ns != outer {
            let _ = write!(out, " xmlns='{}'", escape(&self.ns));
        }
        for (name, value) in &self.attributes {
            let _ = write!(out, " {name}='{}'", escape(value));
        }
        if self.children.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        for node in &self.children {
            match node {
                Node::Element(child) => child.write(&self.ns, out),
                Node::Text(text) => {
                    let _ = write!(out, "{}", escape(text));
                }
            }
        }
        let _ = write!(out, "</{}>", self.name);
    }
}

/// Shows a text so that it can stand in an element or an attribute. What XML cannot carry at all
/// (XML 1.0 section 2.2) becomes U+FFFD.
pub(crate) fn escape(text: &str) -> Escaped<'_> {
    Escaped(text)
}

/// See [`escape`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(special) {
            f.write_str(&rest[..at])?;
            let Some(c) = rest[at..].chars().next() else {
                break;
            };
            f.write_str(match c {
                '<' => "&lt;",
                '>' => "&gt;",
                '&' => "&amp;",
                '\'' => "&apos;",
                '"' => "&quot;",
                // Bare, a reader would take it for a line feed.
                '\r' => "&#xd;",
                _ => "\u{fffd}",
            })?;
            rest = &rest[at + c.len_utf8()..];
        }
        f.write_str(rest)
    }
}

fn special(c: char) -> bool {
    matches!(
        c,
        '<' | '>' | '&' | '\'' | '"' | '\r' | '\u{fffe}' | '\u{ffff}'
    ) || (c < ' ' && c != '\t' && c != '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_carry_does_not_go_out() {
        assert_eq!(escape("plain 鸿雁").to_string(), "plain 鸿雁");
        assert_eq!(
            escape("<a b='c' d=\"e\">&\r\n\t\u{0}\u{1f}\u{ffff}x").to_string(),
            "&lt;a b=&apos;c&apos; d=&quot;e&quot;&gt;&amp;&#xd;\n\t\u{fffd}\u{fffd}\u{fffd}x"
        );
    }

    #[test]
    fn namespaces_are_written_where_they_change() {
        let inner = Element {
            ns: "b".into(),
            name: "inner".into(),
            children: vec![Node::Text("<".into())],
            ..Element::default()
        };
        let outer = Element {
            ns: ns::CLIENT.into(),
            name: "message".into(),
            attributes: vec![("to".into(), "a&b".into())],
            children: vec![Node::Element(inner)],
        };
        let mut text = String::new();
        outer.write(ns::CLIENT, &mut text);
        assert_eq!(
            text,
            "<message to='a&amp;b'><inner xmlns='b'>&lt;</inner></message>"
        );
    }
}
