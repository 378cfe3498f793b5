//! Texts within limits.

use hongyan_core::limits::DETAIL_BYTES_MAX;
use hongyan_core::port::{Outbound, Truncation};

/// What most forms fit into, bytes.
const FORM_BYTES: usize = 960;
/// Stands for a text that the message has but that is empty.
const NO_TEXT: &str = "…";

/// At most `chars_max` characters, cut between characters; what was cut is noted.
pub(crate) fn shorten(
    field: &'static str,
    text: &str,
    chars_max: usize,
    truncated: &mut Vec<Truncation>,
) -> String {
    let from = text.chars().count();
    if from <= chars_max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    short.push('…');
    truncated.push(Truncation {
        field,
        from,
        to: chars_max,
    });
    short
}

/// The same for vendors that count in half widths: ASCII is one, everything else two.
pub(crate) fn shorten_half_widths(
    field: &'static str,
    text: &str,
    widths_max: usize,
    truncated: &mut Vec<Truncation>,
) -> String {
    let width = |c: char| if c.is_ascii() { 1 } else { 2 };
    let from: usize = text.chars().map(width).sum();
    if from <= widths_max {
        return text.to_owned();
    }
    let mut to = width('…');
    let mut short = String::new();
    for c in text.chars() {
        if to + width(c) > widths_max {
            break;
        }
        to += width(c);
        short.push(c);
    }
    short.push('…');
    truncated.push(Truncation { field, from, to });
    short
}

/// Title and text for vendors that take no empty ones: a title stands in for the text; over a text without a title, whose
/// sender is hidden, stands that there is something new.
pub(crate) fn title_and_text(outbound: &Outbound) -> (&str, &str) {
    match (
        filled(outbound.title.as_ref()),
        filled(outbound.body.as_ref()),
    ) {
        (Some(title), Some(text)) => (title, text),
        (Some(only), None) => (only, only),
        (None, Some(text)) => (something_new(text), text),
        (None, None) => (NO_TEXT, NO_TEXT),
    }
}

/// A title that says nothing of the sender, in the script of the text. Never a symbol alone: vivo takes such a title for a
/// test and refuses it.
fn something_new(text: &str) -> &'static str {
    let has = |range: std::ops::RangeInclusive<char>| text.chars().any(|c| range.contains(&c));
    if has('\u{3040}'..='\u{30FF}') {
        "新着メッセージ"
    } else if has('\u{AC00}'..='\u{D7AF}') {
        "새 메시지"
    } else if has('\u{3400}'..='\u{9FFF}') {
        "新消息"
    } else {
        "New message"
    }
}

fn filled(text: Option<&String>) -> Option<&str> {
    text.map(|t| t.trim()).filter(|t| !t.is_empty())
}

/// A vendor's words, short enough for an event.
pub(crate) fn detail(text: &str) -> String {
    let text = text.trim();
    let mut end = text.len().min(DETAIL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// A form in `application/x-www-form-urlencoded`.
pub(crate) fn form<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::with_capacity(FORM_BYTES);
    for (name, value) in fields {
        if !out.is_empty() {
            out.push('&');
        }
        escape(name, &mut out);
        out.push('=');
        escape(value, &mut out);
    }
    out
}

/// A text escaped for use in a URL's query.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::new();
    escape(text, &mut out);
    out
}

/// The pairs of a form or query (WHATWG URL section 5.1).
pub(crate) fn parse_form(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescaped(name), unescaped(value))
        })
        .collect()
}

/// The pairs of a URL's query.
pub(crate) fn query_of(url: &str) -> Vec<(String, String)> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    parse_form(query.split('#').next().unwrap_or_default())
}

fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn escape(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut rest = text;
    loop {
        let end = rest.bytes().position(|byte| !plain(byte));
        let (as_it_is, behind) = rest.split_at(end.unwrap_or(rest.len()));
        out.push_str(as_it_is);
        // What follows is a whole character, of one or several bytes.
        let Some(odd) = behind.chars().next() else {
            return;
        };
        for byte in odd.encode_utf8(&mut [0; 4]).bytes() {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
        rest = behind.get(odd.len_utf8()..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_whose_sender_is_hidden_is_not_shown_twice() {
        let shown = |title: Option<&str>, body: Option<&str>| {
            let mut outbound = crate::vendor::fixture::outbound();
            outbound.title = title.map(str::to_owned);
            outbound.body = body.map(str::to_owned);
            let (title, text) = title_and_text(&outbound);
            (title.to_owned(), text.to_owned())
        };
        let both = |title: &str, text: &str| (title.to_owned(), text.to_owned());
        assert_eq!(shown(Some("a"), Some("b")), both("a", "b"));
        assert_eq!(shown(Some("a"), None), both("a", "a"));
        assert_eq!(
            shown(None, Some("at eight")),
            both("New message", "at eight")
        );
        assert_eq!(shown(Some(" "), Some("八点见")), both("新消息", "八点见"));
        assert_eq!(shown(None, Some("8時に")), both("新着メッセージ", "8時に"));
        assert_eq!(shown(None, None), both("…", "…"));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let mut truncated = Vec::new();
        assert_eq!(shorten("title", "鸿雁传书", 4, &mut truncated), "鸿雁传书");
        assert!(truncated.is_empty());
        assert_eq!(shorten("title", "鸿雁传书", 3, &mut truncated), "鸿雁…");
        assert_eq!(
            truncated[0],
            Truncation {
                field: "title",
                from: 4,
                to: 3
            }
        );
        assert_eq!(
            shorten_half_widths("title", "ab鸿雁", 6, &mut truncated),
            "ab鸿雁"
        );
        assert_eq!(
            shorten_half_widths("title", "ab鸿雁c", 6, &mut truncated),
            "ab鸿…"
        );
        assert_eq!((truncated[1].from, truncated[1].to), (7, 6));
        let long = "雁".repeat(400);
        assert!(detail(&long).len() <= DETAIL_BYTES_MAX);
    }

    #[test]
    fn forms_escape_everything_that_is_not_plain() {
        assert_eq!(
            form([("a b", "1+2=3"), ("雁", "&")]),
            "a%20b=1%2B2%3D3&%E9%9B%81=%26"
        );
        let pairs = parse_form("a%20b=1%2B2%3D3&%E9%9B%81=%26+&c&%4=%");
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [("a b", "1+2=3"), ("雁", "& "), ("c", ""), ("%4", "%")]
        );
        assert_eq!(query_of("https://a/b?c=d#e").len(), 1);
    }
}
