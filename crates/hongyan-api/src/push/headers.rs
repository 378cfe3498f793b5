//! The headers of RFC 8030 and of the two content encodings.

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName};

use hongyan_core::push::{
    PUSH_HEADER_LEN_MAX, PUSH_TOPIC_LEN_MAX, PUSH_TTL_S_MAX, PushEncoding, Urgency,
};

use super::answer::Refusal;

const TTL: HeaderName = HeaderName::from_static("ttl");
const URGENCY: HeaderName = HeaderName::from_static("urgency");
const TOPIC: HeaderName = HeaderName::from_static("topic");
const ENCRYPTION: HeaderName = HeaderName::from_static("encryption");
pub(super) const CRYPTO_KEY: HeaderName = HeaderName::from_static("crypto-key");

/// Seconds for senders of the old UnifiedPush kind, who name none.
const OLD_TTL_S: u32 = 86_400;

/// How the address was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `/wpush/v1/…` and `/wpush/v2/…`: RFC 8030 by the letter.
    WebPush,
    /// `/up/…`: senders of the old UnifiedPush kind are borne with, if the server is set so.
    UnifiedPush {
        /// Whether bodies that say nothing of their encryption are taken.
        opaque: bool,
    },
}

/// A header as text; what is not ASCII is no value that is known here.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers
        .get(name)
        .map(|value| value.to_str().unwrap_or("\u{fffd}").trim())
}

/// The time to live that is granted, in seconds.
pub(super) fn ttl(headers: &HeaderMap, form: Form) -> Result<u32, Refusal> {
    let Some(text) = text(headers, &TTL) else {
        return match form {
            Form::WebPush => Err(Refusal::no_ttl()),
            Form::UnifiedPush { .. } => Ok(OLD_TTL_S),
        };
    };
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::no_ttl());
    }
    if digits.len() < text.len() {
        return Err(Refusal::negative_ttl());
    }
    // What does not fit is more than anybody is granted.
    Ok(digits
        .parse::<u32>()
        .unwrap_or(u32::MAX)
        .min(PUSH_TTL_S_MAX))
}

pub(super) fn urgency(headers: &HeaderMap) -> Result<Urgency, Refusal> {
    match text(headers, &URGENCY) {
        None => Ok(Urgency::Normal),
        Some(text) => Urgency::parse(&text.to_ascii_lowercase()).ok_or_else(Refusal::urgency),
    }
}

pub(super) fn topic(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(text) = text(headers, &TOPIC) else {
        return Ok(None);
    };
    if (1..=PUSH_TOPIC_LEN_MAX).contains(&text.len()) && text.bytes().all(is_base64url) {
        Ok(Some(text.to_owned()))
    } else {
        Err(Refusal::topic())
    }
}

fn is_base64url(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

/// A parameter in all headers of a name: lists of sets (`a=1;b=2, a=3`), the first that has it.
pub(super) fn parameter(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> Option<String> {
    let values = headers.get_all(name).iter();
    let sets = values.filter_map(|v| v.to_str().ok());
    sets.flat_map(|text| text.split([',', ';']))
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case(wanted))
        .map(|(_, value)| {
            let value = value.trim().trim_matches('"').trim_end_matches('=');
            value.to_owned()
        })
}

/// A parameter that is base64 of a bounded length, in the URL's alphabet.
fn bytes_parameter(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> Option<String> {
    let value = parameter(headers, name, wanted)?
        .replace('+', "-")
        .replace('/', "_");
    let fits = (1..=PUSH_HEADER_LEN_MAX).contains(&value.len());
    (fits && value.bytes().all(is_base64url)).then_some(value)
}

/// How a body of so many bytes is encrypted.
pub(super) fn encoding(
    headers: &HeaderMap,
    form: Form,
    body_bytes: usize,
) -> Result<PushEncoding, Refusal> {
    let opaque = matches!(form, Form::UnifiedPush { opaque: true });
    let named = text(headers, &CONTENT_ENCODING).map(str::to_ascii_lowercase);
    match named.as_deref() {
        Some("aes128gcm") => {
            let has_old = parameter(headers, &ENCRYPTION, "salt").is_some()
                || parameter(headers, &CRYPTO_KEY, "dh").is_some();
            if has_old {
                return Err(Refusal::encryption(
                    "aes128gcm has its salt and key in the body: leave Encryption and Crypto-Key: dh= out",
                ));
            }
            Ok(PushEncoding::Aes128gcm)
        }
        Some("aesgcm") => {
            let salt = bytes_parameter(headers, &ENCRYPTION, "salt");
            let dh = bytes_parameter(headers, &CRYPTO_KEY, "dh");
            let (Some(salt), Some(dh)) = (salt, dh) else {
                return Err(Refusal::encryption(
                    "aesgcm needs Encryption: salt= and Crypto-Key: dh=, both in base64url",
                ));
            };
            let record = parameter(headers, &ENCRYPTION, "rs")
                .filter(|rs| (1..=9).contains(&rs.len()) && rs.bytes().all(|b| b.is_ascii_digit()))
                .map_or_else(String::new, |rs| format!(";rs={rs}"));
            Ok(PushEncoding::Aesgcm {
                encryption: format!("salt={salt}{record}"),
                crypto_key: format!("dh={dh}"),
            })
        }
        _ if body_bytes == 0 || opaque => Ok(PushEncoding::Opaque),
        _ => Err(Refusal::encryption(
            "a body needs Content-Encoding: aes128gcm (or aesgcm)",
        )),
    }
}

/// Whether a receipt is asked for.
pub(super) fn wants_receipt(headers: &HeaderMap) -> bool {
    let values = headers.get_all("prefer").iter();
    values
        .filter_map(|v| v.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("respond-async"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_ttl_is_read_to_the_second_and_lowered_to_the_longest() {
        let of = |text: &str| ttl(&headers(&[("ttl", text)]), Form::WebPush);
        assert_eq!(of("0"), Ok(0));
        assert_eq!(of(" 77 "), Ok(77));
        assert_eq!(of("2592001"), Ok(PUSH_TTL_S_MAX));
        assert_eq!(of("1000000000000"), Ok(PUSH_TTL_S_MAX));
        assert_eq!(of("99999999999999999999999999"), Ok(PUSH_TTL_S_MAX));
        for bad in ["", "soon", "1.5", "+1", "0x10"] {
            assert_eq!(of(bad), Err(Refusal::no_ttl()), "{bad:?}");
        }
        assert_eq!(of("-1"), Err(Refusal::negative_ttl()));
        assert_eq!(
            ttl(&HeaderMap::new(), Form::WebPush),
            Err(Refusal::no_ttl())
        );
        let old = Form::UnifiedPush { opaque: false };
        assert_eq!(ttl(&HeaderMap::new(), old), Ok(86_400));
    }

    #[test]
    fn the_old_encoding_needs_its_headers_and_the_new_one_none() {
        let of = |pairs: &[(&'static str, &str)], form, len| encoding(&headers(pairs), form, len);
        let strict = Form::WebPush;
        assert_eq!(of(&[], strict, 0), Ok(PushEncoding::Opaque));
        assert!(of(&[], strict, 1).is_err());
        assert!(of(&[("content-encoding", "gzip")], strict, 1).is_err());
        let opaque = Form::UnifiedPush { opaque: true };
        assert_eq!(of(&[], opaque, 1), Ok(PushEncoding::Opaque));
        assert!(of(&[], Form::UnifiedPush { opaque: false }, 1).is_err());
        let new = ("content-encoding", "AES128GCM");
        assert_eq!(of(&[new], strict, 9), Ok(PushEncoding::Aes128gcm));
        let key = ("crypto-key", "p256ecdsa=abc");
        assert_eq!(of(&[new, key], strict, 9), Ok(PushEncoding::Aes128gcm));
        assert!(of(&[new, ("encryption", "salt=abc")], strict, 9).is_err());
        assert!(of(&[new, ("crypto-key", "dh=abc")], strict, 9).is_err());
        let old = ("content-encoding", "aesgcm");
        assert!(of(&[old], strict, 9).is_err());
        let encryption = ("encryption", "keyid=p256dh;salt=\"a+b/c==\";rs=24");
        let key = ("crypto-key", "keyid=p256dh;dh=AbC_1, p256ecdsa=xyz");
        assert_eq!(
            of(&[old, encryption, key], strict, 9),
            Ok(PushEncoding::Aesgcm {
                encryption: "salt=a-b_c;rs=24".to_owned(),
                crypto_key: "dh=AbC_1".to_owned(),
            })
        );
        let bad = ("encryption", "salt=a\\\"b");
        assert!(of(&[old, bad, key], strict, 9).is_err());
    }

    #[test]
    fn topics_and_urgencies_are_those_of_the_standard() {
        let of = |text: &str| topic(&headers(&[("topic", text)]));
        assert_eq!(of("a-Z_9"), Ok(Some("a-Z_9".to_owned())));
        assert_eq!(of(&"x".repeat(32)).unwrap().unwrap().len(), 32);
        for bad in ["", &"x".repeat(33), "a b", "a+b", "a=", "ä"] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
        assert_eq!(topic(&HeaderMap::new()), Ok(None));
        let of = |text: &str| urgency(&headers(&[("urgency", text)]));
        assert_eq!(of("very-low"), Ok(Urgency::VeryLow));
        assert_eq!(of("High"), Ok(Urgency::High));
        assert!(of("urgent").is_err());
        assert!(wants_receipt(&headers(&[(
            "prefer",
            "wait=1, Respond-Async"
        )])));
        assert!(!wants_receipt(&headers(&[("prefer", "respond")])));
    }
}
