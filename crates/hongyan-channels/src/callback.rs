//! What the callbacks of all vendors need: forms and JSON within limits, signatures compared without telling how far they
//! agree, and a memory of what was taken before.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::port::CallbackError;
use hongyan_core::{MessageId, Timestamp};
use ring::digest::{SHA256, digest};
use serde_json::Value;

/// Largest body that is read, bytes: vendors post at most a thousand receipts at a time.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Fields of a form.
const FIELDS_MAX: usize = 256;
/// How far a vendor's clock may be from ours, both ways.
const SKEW_MAX: Duration = Duration::from_secs(300);
/// How long a nonce is remembered: as long as its signature could be taken, from the earliest clock to the latest.
const NONCE_LIFE: Duration = Duration::from_secs(2 * 300);
/// Nonces of one credential that are remembered, about 6 MB. With more than a hundred posts a second the oldest leave
/// early; taking a receipt twice does no harm.
const NONCES_MAX: usize = 65_536;

/// Nonces of signed requests that were taken, each with its request: when that could not be stored the vendor posts it again.
/// Ask only once the signature holds, so that nobody else can fill it.
#[derive(Debug, Default)]
pub(crate) struct Nonces(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    known: HashMap<[u8; 16], [u8; 16]>,
    by_age: VecDeque<(Timestamp, [u8; 16])>,
}

impl std::fmt::Debug for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} nonces", self.by_age.len())
    }
}

impl Nonces {
    /// Whether the nonce was not seen before, or with this very body; from now on it was.
    pub(crate) fn takes(&self, nonce: &str, body: &[u8], now: Timestamp) -> bool {
        let (key, print) = (half_digest(nonce.as_bytes()), half_digest(body));
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, oldest)) = taken.by_age.front().copied() {
            if taken.by_age.len() < NONCES_MAX && now.since(at) <= NONCE_LIFE {
                break;
            }
            taken.by_age.pop_front();
            taken.known.remove(&oldest);
        }
        match taken.known.get(&key) {
            Some(before) => *before == print,
            None => {
                taken.known.insert(key, print);
                taken.by_age.push_back((now, key));
                true
            }
        }
    }
}

fn half_digest(bytes: &[u8]) -> [u8; 16] {
    let whole = digest(&SHA256, bytes);
    let mut half = [0; 16];
    half.iter_mut()
        .zip(whole.as_ref())
        .for_each(|(to, from)| *to = *from);
    half
}

/// Whether two secrets or signatures are the same, in a time that depends on their length alone.
#[must_use]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}

/// Refuses what was signed at another time than about now.
pub(crate) fn timely(signed: Timestamp, now: Timestamp) -> Result<(), CallbackError> {
    if now.since(signed) <= SKEW_MAX && signed.since(now) <= SKEW_MAX {
        return Ok(());
    }
    Err(CallbackError::Signature(
        "its time is more than five minutes from this machine's clock".to_owned(),
    ))
}

/// `application/x-www-form-urlencoded` (WHATWG URL section 5.1): the fields in order. Empty when the body is not UTF-8
/// once decoded, or is over the limits.
pub(crate) fn form(body: &[u8]) -> Vec<(String, String)> {
    if body.len() > BODY_BYTES_MAX || body.split(|b| *b == b'&').nth(FIELDS_MAX).is_some() {
        return Vec::new();
    }
    let pairs = body.split(|b| *b == b'&').filter(|pair| !pair.is_empty());
    let fields: Option<Vec<_>> = pairs
        .map(|pair| {
            let mut halves = pair.splitn(2, |b| *b == b'=');
            let name = unescaped(halves.next().unwrap_or_default())?;
            let value = unescaped(halves.next().unwrap_or_default())?;
            Some((name, value))
        })
        .collect();
    fields.unwrap_or_default()
}

/// A field of a form.
pub(crate) fn field<'a>(form: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = form.iter().find(|(n, _)| n == name);
    found.map(|(_, value)| value.as_str())
}

/// A body in JSON.
pub(crate) fn json(body: &[u8]) -> Result<Value, CallbackError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(CallbackError::Malformed(format!(
            "its body has more than {BODY_BYTES_MAX} bytes"
        )));
    }
    serde_json::from_slice(body)
        .map_err(|_| CallbackError::Malformed("its body is not JSON".to_owned()))
}

/// An address for receipts. Its query may have a secret, which is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ReceiptUrl(String);

impl ReceiptUrl {
    pub(crate) const fn new(url: String) -> Self {
        Self(url)
    }

    /// The whole address, for the vendor.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The address for people.
    pub(crate) fn shown(&self) -> String {
        shown_url(&self.0)
    }
}

impl std::fmt::Debug for ReceiptUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

/// A callback address for people: its query has a secret, and so may have what is before the host.
pub(crate) fn shown_url(url: &str) -> String {
    let (address, query) = match url.split_once(['?', '#']) {
        Some((address, _)) => (address, "?…"),
        None => (url, ""),
    };
    let shown = match address.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => address.to_owned(),
    };
    format!("{shown}{query}")
}

/// Our message, when a vendor's parameter names one.
pub(crate) fn message(parameter: &str) -> Option<MessageId> {
    MessageId::parse(parameter.trim()).ok()
}

fn unescaped(bytes: &[u8]) -> Option<String> {
    let hex = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).ok()?);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_767_229_200_000);

    #[test]
    fn a_nonce_is_good_for_one_request_and_the_memory_has_an_end() {
        let nonces = Nonces::default();
        assert!(nonces.takes("a", b"1", NOW));
        assert!(nonces.takes("a", b"1", NOW), "the vendor posts again");
        assert!(!nonces.takes("a", b"2", NOW));
        assert!(!nonces.takes("a", b"2", NOW.plus(NONCE_LIFE)));
        assert!(nonces.takes("b", b"2", NOW));
        let later = NOW.plus(NONCE_LIFE + Duration::from_secs(1));
        assert!(
            nonces.takes("a", b"2", later),
            "its signature is too old by now"
        );
        for n in 0..NONCES_MAX + 10 {
            assert!(nonces.takes(&n.to_string(), b"", later));
        }
        let taken = nonces.0.lock().unwrap();
        assert_eq!(
            (taken.known.len(), taken.by_age.len()),
            (NONCES_MAX, NONCES_MAX)
        );
        assert_eq!(format!("{taken:?}"), format!("{NONCES_MAX} nonces"));
    }

    #[test]
    fn only_the_same_is_the_same() {
        assert!(same(b"", b"") && same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }

    #[test]
    fn a_signature_has_five_minutes() {
        for (seconds, good) in [(0, true), (300, true), (301, false)] {
            let by = Duration::from_secs(seconds);
            assert_eq!(timely(NOW, NOW.plus(by)).is_ok(), good);
            assert_eq!(timely(NOW.plus(by), NOW).is_ok(), good);
        }
    }

    #[test]
    fn forms_are_read_within_limits() {
        let check = |input: &[u8], want: &[(&str, &str)]| {
            let got = form(input);
            let got: Vec<_> = got.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(got, want);
        };
        check(b"", &[]);
        check(b"a=1&&b=", &[("a", "1"), ("b", "")]);
        check(
            b"d=%7B%22x%22%3A1%7D&t=%E9%9B%81+%2B&c",
            &[("d", "{\"x\":1}"), ("t", "雁 +"), ("c", "")],
        );
        check(b"a=%4&b=1=2", &[("a", "%4"), ("b", "1=2")]);
        check(b"a=%FF", &[]);
        check(&b"a&".repeat(FIELDS_MAX + 1), &[]);
        check(&vec![b'x'; BODY_BYTES_MAX + 1], &[]);
        assert_eq!(
            field(&form(b"a=1&b=2&a=3"), "a"),
            Some("1"),
            "the first counts"
        );
        assert_eq!(
            json(b"{"),
            Err(CallbackError::Malformed("its body is not JSON".to_owned()))
        );
    }

    #[test]
    fn the_secret_of_an_address_is_not_shown() {
        assert_eq!(
            shown_url("https://x.example/cb?k=s"),
            "https://x.example/cb?…"
        );
        assert_eq!(shown_url("https://x.example/cb"), "https://x.example/cb");
        assert_eq!(
            shown_url("https://user:pw@x.example/cb#s"),
            "https://x.example/cb?…"
        );
        let url = ReceiptUrl::new("https://x.example/cb?k=s".to_owned());
        assert_eq!(format!("{url:?}"), "https://x.example/cb?…");
        assert_eq!(url.as_str(), "https://x.example/cb?k=s");
    }

    #[test]
    fn a_parameter_names_a_message_or_nothing() {
        let id = "018f0000-0000-7000-8000-000000000001";
        assert_eq!(message(id), MessageId::parse(id).ok());
        assert_eq!(message("batch-1"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            form(&bytes);
            let _ = json(&bytes);
        }
    }
}
