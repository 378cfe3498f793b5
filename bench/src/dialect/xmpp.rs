//! XMPP over TCP, as far as a measurement needs it: no TLS, `PLAIN`, stream management.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::contains;

/// Namespace of stream management.
const SM: &str = "urn:xmpp:sm:3";

/// What an element asks of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Log in.
    Login,
    /// Begin the stream anew.
    Restart,
    /// Bind a resource.
    Bind,
    /// Turn acknowledgements on, and say that one is there.
    Enable,
    /// All is done.
    Ready,
    /// Say what has come so far.
    Acknowledge,
    /// It answers a heartbeat.
    Beat,
    /// A stanza that counts.
    Stanza,
    /// The server ended it.
    End,
    /// Nothing.
    Nothing,
}

/// Appends the header of a stream.
pub(super) fn open(out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' \
          xmlns:stream='http://etherx.jabber.org/streams' to='bench.localhost'>",
    );
}

/// Appends what a step asks for.
pub(super) fn answer(step: Step, index: u32, token: &str, handled: u32, out: &mut Vec<u8>) {
    let text = match step {
        Step::Login => {
            let secret = STANDARD.encode(format!("\0u{index}\0{token}"));
            format!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>"
            )
        }
        Step::Restart => return open(out),
        Step::Bind => {
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>".to_owned()
        }
        Step::Enable => format!("<enable xmlns='{SM}' resume='true'/><presence/>"),
        Step::Acknowledge => format!("<a xmlns='{SM}' h='{handled}'/>"),
        _ => return,
    };
    out.extend_from_slice(text.as_bytes());
}

/// Appends a question that the server answers at once.
pub(super) fn beat(out: &mut Vec<u8>) {
    out.extend_from_slice(format!("<r xmlns='{SM}'/>").as_bytes());
}

/// What to make of a whole element.
pub(super) fn step(element: &[u8]) -> Step {
    let is = |name: &[u8]| {
        element.strip_prefix(b"<").is_some_and(|rest| {
            rest.strip_prefix(name)
                .and_then(<[u8]>::first)
                .is_some_and(|next| !next.is_ascii_alphanumeric())
        })
    };
    if is(b"message") || is(b"presence") {
        Step::Stanza
    } else if is(b"r") {
        Step::Acknowledge
    } else if is(b"a") {
        Step::Beat
    } else if is(b"iq") {
        match contains(element, b"<bind") {
            true => Step::Enable,
            false => Step::Stanza,
        }
    } else if is(b"stream:features") {
        match contains(element, b"<mechanisms") {
            true => Step::Login,
            false => Step::Bind,
        }
    } else if is(b"success") {
        Step::Restart
    } else if is(b"enabled") {
        Step::Ready
    } else if is(b"stream:stream") || is(b"?xml") {
        Step::Nothing
    } else {
        Step::End
    }
}

/// Where the first element (or the stream's header, or white space) ends, when it is whole.
pub(super) fn element_at(bytes: &[u8]) -> Option<usize> {
    if *bytes.first()? != b'<' {
        return Some(
            bytes
                .iter()
                .position(|byte| *byte == b'<')
                .unwrap_or(bytes.len()),
        );
    }
    let (mut at, mut depth) = (0, 0_u32);
    loop {
        let begin = at + bytes.get(at..)?.iter().position(|byte| *byte == b'<')?;
        let end = tag_end(bytes, begin)?;
        let tag = &bytes[begin..end];
        if tag.starts_with(b"<?")
            || tag.starts_with(b"<stream:stream")
            || tag.starts_with(b"</stream:stream")
        {
            return Some(end);
        }
        if tag.starts_with(b"</") {
            depth = depth.saturating_sub(1);
        } else if !tag.ends_with(b"/>") {
            depth += 1;
        }
        at = end;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Where the tag that begins here ends; quoted text may hold what looks like its end.
fn tag_end(bytes: &[u8], begin: usize) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in bytes.iter().enumerate().skip(begin) {
        match quote {
            Some(open) if *byte == open => quote = None,
            Some(_) => {}
            None if matches!(byte, b'"' | b'\'') => quote = Some(*byte),
            None if *byte == b'>' => return Some(at + 1),
            None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_end_where_their_own_end_tag_is() {
        let message = b"<message a='>'><body>x</body><r/></message>";
        for cut in 1..message.len() {
            assert_eq!(element_at(&message[..cut]), None, "{cut}");
        }
        let two = [&message[..], b"<r xmlns='s'/>"].concat();
        assert_eq!(element_at(&two), Some(message.len()));
        assert_eq!(element_at(b"<r xmlns='s'/><"), Some(14));
        assert_eq!(element_at(b"  <r/>"), Some(2));
        assert_eq!(element_at(b"<stream:stream to='x'><f>"), Some(22));
    }

    #[test]
    fn each_element_has_its_step() {
        for (element, expected) in [
            (
                &b"<stream:features><mechanisms/></stream:features>"[..],
                Step::Login,
            ),
            (b"<success xmlns='s'/>", Step::Restart),
            (b"<stream:features><bind/></stream:features>", Step::Bind),
            (b"<iq type='result'><bind/></iq>", Step::Enable),
            (b"<enabled xmlns='s'/>", Step::Ready),
            (b"<r xmlns='s'/>", Step::Acknowledge),
            (b"<a xmlns='s' h='1'/>", Step::Beat),
            (b"<message><body/></message>", Step::Stanza),
            (b"<stream:error/>", Step::End),
            (b"</stream:stream>", Step::End),
        ] {
            assert_eq!(step(element), expected, "{}", element.escape_ascii());
        }
    }
}
