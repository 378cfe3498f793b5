//! Reads a stream: bytes in, headers and whole elements out (RFC 6120 section 4, RFC 7395).
//!
//! On TCP the document never ends, but its parser need not live as long: between stanzas it is
//! thrown away, and the next stanza begins with a new one that is given the stream's header again.
//! So an idle stream keeps nothing but what its header declared beyond the usual.

use rxml::parser::CommentMode;
use rxml::{Event as Xml, Options, Parse as _, Parser, WithOptions as _};

use super::xml::{Element, Node, ns};

/// Nesting of elements within a stanza, itself included.
pub(crate) const DEPTH_MAX: usize = 32;
/// Attributes of one element.
pub(crate) const ATTRIBUTES_MAX: usize = 64;
/// Longest name or attribute value, bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest header that may be kept, bytes: far above what declares a few prefixes.
const HEADER_BYTES_MAX: usize = 2 * 1024;
/// The header that most clients send, as far as it matters for what follows.
const USUAL: &[u8] =
    b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A stream header, or `<open/>`.
    Open(Header),
    /// Anything inside the stream.
    Element(Element),
    /// The stream's end tag, or `<close/>`.
    Close,
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Header {
    /// Its element is the right one, in the right namespace.
    pub(crate) sound: bool,
    pub(crate) to: Option<String>,
    pub(crate) version: Option<String>,
}

/// Why a stream cannot be read on: the condition of the stream error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    NotWellFormed,
    RestrictedXml,
    /// Too large, too deep, too many attributes.
    Policy(&'static str),
    BadFormat,
}

/// Reads one stream.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Exists while a header or a stanza is incomplete.
    active: Option<Box<Active>>,
    /// The header, when it declared other prefixes than the usual ones.
    header: Option<Box<[u8]>>,
    open: bool,
}

#[derive(Debug)]
struct Active {
    parser: Parser,
    stack: Vec<Element>,
    /// Bytes of the header or stanza so far.
    bytes: usize,
    /// The header so far.
    header: Vec<u8>,
}

impl Active {
    fn new() -> Self {
        let options = Options {
            max_token_length: TOKEN_BYTES_MAX,
            context: None,
            comments: CommentMode::Reject,
        };
        Self {
            parser: Parser::with_options(options),
            stack: Vec::new(),
            bytes: 0,
            header: Vec::new(),
        }
    }

    fn next(&mut self, bytes: &mut &[u8], last: bool) -> Result<Option<Xml>, Fault> {
        match self.parser.parse(bytes, last) {
            Ok(event) => Ok(event),
            Err(rxml::error::EndOrError::NeedMoreData) => Ok(None),
            Err(rxml::error::EndOrError::Error(error)) => Err(match error {
                rxml::Error::RestrictedXml(_) | rxml::Error::UndeclaredEntity => {
                    Fault::RestrictedXml
                }
                // `<!` and no CDATA: a document type, or something in one.
                rxml::Error::InvalidSyntax(what) if what.contains("comment section start") => {
                    Fault::RestrictedXml
                }
                _ => Fault::NotWellFormed,
            }),
        }
    }

    /// Adds an event to the element that is being built; answers the element when it is whole.
    fn build(&mut self, event: Xml) -> Result<Option<Element>, Fault> {
        match event {
            Xml::StartElement(_, (namespace, name), attributes) => {
                if self.stack.len() >= DEPTH_MAX {
                    return Err(Fault::Policy("elements are nested too deeply"));
                }
                if attributes.len() > ATTRIBUTES_MAX {
                    return Err(Fault::Policy("an element has too many attributes"));
                }
                let mut element = Element {
                    ns: namespace.as_str().to_owned(),
                    name: name.to_string(),
                    ..Element::default()
                };
                for ((namespace, name), value) in attributes {
                    if namespace.is_none() {
                        element.attributes.push((name.to_string(), value));
                    } else if namespace.as_str() == rxml::XMLNS_XML && name.as_str() == "lang" {
                        element.attributes.push(("xml:lang".to_owned(), value));
                    }
                }
                self.stack.push(element);
            }
            Xml::EndElement(_) => {
                let Some(done) = self.stack.pop() else {
                    return Ok(None);
                };
                match self.stack.last_mut() {
                    Some(parent) => parent.children.push(Node::Element(done)),
                    None => return Ok(Some(done)),
                }
            }
            Xml::Text(_, text) => match self.stack.last_mut() {
                Some(parent) => match parent.children.last_mut() {
                    Some(Node::Text(before)) => before.push_str(&text),
                    _ => parent.children.push(Node::Text(text)),
                },
                None if text.bytes().all(is_space) => {}
                None => return Err(Fault::BadFormat),
            },
            Xml::XmlDeclaration(..) => {}
        }
        Ok(None)
    }
}

impl Reader {
    /// Begins anew, as after STARTTLS and after login.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Whether nothing is kept of an unfinished element.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.active.is_none()
    }

    /// Takes bytes of a TCP stream until something is whole; call it again with what is left
    /// until it answers `None`. `limit` bounds the bytes of a header or stanza.
    pub(crate) fn take(&mut self, bytes: &mut &[u8], limit: usize) -> Result<Option<Event>, Fault> {
        if self.active.is_none() {
            let spaces = bytes.iter().take_while(|b| is_space(**b)).count();
            *bytes = &bytes[spaces..];
            if bytes.is_empty() {
                return Ok(None);
            }
            let mut active = Box::new(Active::new());
            if self.open {
                let mut header = self.header.as_deref().unwrap_or(USUAL);
                while let Some(event) = active.next(&mut header, false)? {
                    if matches!(event, Xml::StartElement(..)) {
                        break;
                    }
                }
            }
            self.active = Some(active);
        }
        let Some(active) = &mut self.active else {
            return Ok(None);
        };
        let event = loop {
            let before = *bytes;
            let event = active.next(bytes, false)?;
            let taken = before.len() - bytes.len();
            active.bytes += taken;
            if active.bytes > limit {
                return Err(Fault::Policy("the stanza is too large"));
            }
            if !self.open {
                active.header.extend_from_slice(&before[..taken]);
                if active.header.len() > HEADER_BYTES_MAX {
                    return Err(Fault::Policy("the stream header is too large"));
                }
            }
            let Some(event) = event else {
                return Ok(None);
            };
            match event {
                Xml::StartElement(_, name, attributes) if !self.open => {
                    let header = active.header.trim_ascii_start();
                    let clients = is_of_clients(header);
                    if !is_usual(header) {
                        self.header = Some(header.into());
                    }
                    self.open = true;
                    let attribute = |key: &str| {
                        let mut all = attributes.iter();
                        all.find(|((space, name), _)| space.is_none() && name.as_str() == key)
                            .map(|(_, value)| value.clone())
                    };
                    break Event::Open(Header {
                        sound: name.0.as_str() == ns::STREAMS
                            && name.1.as_str() == "stream"
                            && clients,
                        to: attribute("to"),
                        version: attribute("version"),
                    });
                }
                Xml::EndElement(_) if active.stack.is_empty() && self.open => break Event::Close,
                event => {
                    if let Some(element) = active.build(event)? {
                        break Event::Element(element);
                    }
                }
            }
        };
        active.bytes = 0;
        active.header = Vec::new();
        if bytes.iter().all(|b| is_space(*b)) {
            *bytes = &[];
            self.active = None;
        }
        Ok(Some(event))
    }

    /// Takes one WebSocket message: exactly one element (RFC 7395 section 3.3.3), or spaces that
    /// keep the connection alive.
    pub(crate) fn take_message(text: &[u8], limit: usize) -> Result<Option<Event>, Fault> {
        if text.iter().all(|b| is_space(*b)) {
            return Ok(None);
        }
        if text.len() > limit {
            return Err(Fault::Policy("the stanza is too large"));
        }
        let (mut rest, mut active, mut whole) = (text, Active::new(), None);
        while let Some(event) = active.next(&mut rest, true)? {
            if let Some(element) = active.build(event)? {
                whole = Some(element);
            }
        }
        let element = whole.ok_or(Fault::NotWellFormed)?;
        Ok(Some(if element.ns != ns::FRAMING {
            Event::Element(element)
        } else if element.name == "close" {
            Event::Close
        } else {
            Event::Open(Header {
                sound: element.name == "open",
                to: element.attribute("to").map(str::to_owned),
                version: element.attribute("version").map(str::to_owned),
            })
        }))
    }
}

/// Whether [`USUAL`] declares the same as this header, and its end tag is the same.
fn is_usual(header: &[u8]) -> bool {
    let Ok(mut text) = std::str::from_utf8(header) else {
        return false;
    };
    if let Some(after) = text.strip_prefix("<?xml") {
        text = after.split_once("?>").map_or("", |(_, rest)| rest);
    }
    let declares = |name: &str, value: &str| {
        text.contains(&format!("{name}='{value}'")) || text.contains(&format!("{name}=\"{value}\""))
    };
    text.trim_start().starts_with("<stream:stream")
        && text.matches("xmlns").count() == 2
        && declares(" xmlns", ns::CLIENT)
        && declares(" xmlns:stream", ns::STREAMS)
}

/// Whether what a header says of its content is that it is a client's: no default namespace, or that of clients
/// (RFC 6120 section 4.8.2). That of servers is for links between servers, which there are none of.
fn is_of_clients(header: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(header) else {
        return false;
    };
    let text = match text.strip_prefix("<?xml") {
        Some(after) => after.split_once("?>").map_or("", |(_, rest)| rest),
        None => text,
    };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("xmlns") {
        rest = after;
        let value = after.trim_start().strip_prefix('=').map(str::trim_start);
        let value = value.filter(|_| before.ends_with(|last: char| last.is_ascii_whitespace()));
        if let Some(value) = value {
            let inner = value.get(1..).unwrap_or_default();
            let end = inner.find(['\'', '"']).unwrap_or(inner.len());
            return inner.get(..end) == Some(ns::CLIENT);
        }
    }
    true
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
