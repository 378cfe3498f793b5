//! Wake-ups by text message: "something waits for you, fetch it", and nothing else.
//!
//! A device without push service gives its telephone number as its token of the channel `sms`. When the app's credential is
//! in the mode `signal`, the server sends it a short code instead of the message. The device tells a true code from a false
//! or repeated one with its [`Guard`], and fetches what waits with [`Client::fetch`](crate::Client::fetch). Never show or run
//! anything of the text itself.
//!
//! ```no_run
//! # async fn run(session: hongyan_client::DeviceSession, options: hongyan_client::Options,
//! #     tokens: std::sync::Arc<dyn hongyan_client::TokenSource>, received: &str) -> Result<(), Box<dyn std::error::Error>> {
//! use hongyan_client::Client;
//! use hongyan_client::wake::{Guard, Text};
//! // Once, after registering and giving the number; kept where the device token is kept.
//! let mut guard = Guard::new(session.wake_key().await?);
//! // For every text that comes:
//! if let Some(text) = Text::find(received) {
//!     guard.take(&text, jiff::Timestamp::now())?;
//!     for event in Client::fetch(options, tokens, std::time::Duration::from_secs(20)).await? {
//!         println!("{event:?}");
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! The frame has 22 octets, integers are big-endian: version 1, flags, app (4), sequence (u32), time (u32, Unix seconds), and
//! the first 8 octets of HMAC-SHA-256 under the device's key over the 14 before. As text it is `#P1:` and the frame in
//! base64url without padding; as binary message to an application port it is the frame itself.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// How the code begins in a text.
const MARK: &str = "#P1:";
/// Characters of the code after the mark.
const CODE_LEN: usize = 30;
/// Octets of a frame.
const FRAME_LEN: usize = 22;
const VERSION: u8 = 1;
const URGENT: u8 = 1;
const EVERYTHING: u8 = 2;
const REGISTER: u8 = 4;

/// What a device tells true wake-ups from false ones with; the answer of `POST /v1/devices/{id}/wake-key`. It is good as long
/// as the device token is: ask again after registering anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The device's own secret, base64url.
    pub key: Secret,
    /// The app, as its wake-ups name it: 8 hex digits.
    pub app: String,
    /// How far the time in a wake-up may be from the device's clock, in seconds.
    pub valid_s: u64,
}

/// A wake-up as it came, not believed yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text([u8; FRAME_LEN]);

impl fmt::Debug for Text {
    /// Without the MAC, which would let whoever reads a log wake the device.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text")
            .field("sequence", &self.sequence())
            .finish_non_exhaustive()
    }
}

/// A wake-up that is true and new: fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake {
    /// Its place among the device's wake-ups; grows.
    pub sequence: u32,
    /// Whether a person waits for it.
    pub urgent: bool,
    /// What to do.
    pub fetch: Fetch,
}

/// What a wake-up asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// Connect and take what is new.
    New,
    /// Connect without the stored cursor and take everything.
    Everything,
    /// Register anew before connecting.
    AfterRegistering,
}

/// Why a wake-up is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// A later version of the frame.
    #[error("the wake-up has a version that this client does not know")]
    Version,
    /// It is for another app.
    #[error("the wake-up is for another app")]
    OtherApp,
    /// The key did not make it: a forgery, or a key that ended; ask for the key again.
    #[error("the wake-up was not made with this device's key")]
    Forged,
    /// It was under way too long, or the clocks differ too much.
    #[error("the wake-up is {0} s away from this device's clock")]
    TooOld(u64),
    /// It, or a later one, was taken before.
    #[error("the wake-up was taken before")]
    Repeated,
    /// The key itself cannot be read.
    #[error("the wake-up key is malformed; ask for it again")]
    Key,
}

impl Text {
    /// Finds the code in a text message, wherever it stands in it.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        text.match_indices(MARK).find_map(|(at, mark)| {
            let code = text.get(at + mark.len()..)?.get(..CODE_LEN)?;
            Self::from_frame(&URL_SAFE_NO_PAD.decode(code).ok()?)
        })
    }

    /// Reads the frame of a binary message.
    #[must_use]
    pub fn from_frame(frame: &[u8]) -> Option<Self> {
        frame.try_into().ok().map(Self)
    }

    /// What it asks for, when the key made it, it is for this app and its time is near `now`. Whether it is new is for
    /// [`Guard::take`] to say.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn verify(&self, key: &Key, now: Timestamp) -> Result<Wake, Refused> {
        let [version, flags, a, b, c, d, ..] = self.0;
        if version != VERSION {
            return Err(Refused::Version);
        }
        let secret = URL_SAFE_NO_PAD
            .decode(key.key.expose())
            .map_err(|_| Refused::Key)?;
        let app = u32::from_str_radix(&key.app, 16).map_err(|_| Refused::Key)?;
        if app != u32::from_be_bytes([a, b, c, d]) {
            return Err(Refused::OtherApp);
        }
        let (said, mac) = self.0.split_at(FRAME_LEN - 8);
        let right = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), said);
        // Every octet is looked at, whichever differs.
        let differs = (mac.iter().zip(right.as_ref())).fold(0, |sum, (a, b)| sum | (a ^ b));
        if differs != 0 {
            return Err(Refused::Forged);
        }
        let away = now.as_second().abs_diff(i64::from(self.word(10)));
        if away > key.valid_s {
            return Err(Refused::TooOld(away));
        }
        Ok(Wake {
            sequence: self.sequence(),
            urgent: flags & URGENT != 0,
            fetch: match flags {
                flags if flags & REGISTER != 0 => Fetch::AfterRegistering,
                flags if flags & EVERYTHING != 0 => Fetch::Everything,
                _ => Fetch::New,
            },
        })
    }

    fn sequence(&self) -> u32 {
        self.word(6)
    }

    fn word(&self, at: usize) -> u32 {
        let octets = self.0.iter().skip(at).take(4);
        octets.fold(0, |word, octet| (word << 8) | u32::from(*octet))
    }
}

/// Takes each wake-up once. Keep it (it can be serialized) beside the device token after every [`Guard::take`] that went well:
/// one that forgets believes an old text again, as long as its time is near.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    key: Key,
    #[serde(default)]
    last: Option<u32>,
}

impl Guard {
    /// A guard that has taken nothing.
    #[must_use]
    pub const fn new(key: Key) -> Self {
        Self { key, last: None }
    }

    /// Goes on with a new key; what was taken stays taken.
    pub fn renew(&mut self, key: Key) {
        self.key = key;
    }

    /// Takes a wake-up that is true and newer than all that were taken.
    ///
    /// # Errors
    /// [`Refused`]; the guard is as before.
    pub fn take(&mut self, text: &Text, now: Timestamp) -> Result<Wake, Refused> {
        let wake = text.verify(&self.key, now)?;
        if self.last.is_some_and(|last| wake.sequence <= last) {
            return Err(Refused::Repeated);
        }
        self.last = Some(wake.sequence);
        Ok(wake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "#P1:AQAAwP_uAAAAKmWTfSXtGzjirFQECw";

    fn key() -> Key {
        Key {
            key: URL_SAFE_NO_PAD.encode("device-secret").into(),
            app: "00c0ffee".to_owned(),
            valid_s: 3_600,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const THEN: i64 = 1_704_164_645;

    fn made(flags: u8, sequence: u32, time: u32) -> Text {
        let mut frame = vec![VERSION, flags, 0x00, 0xc0, 0xff, 0xee];
        frame.extend(sequence.to_be_bytes());
        frame.extend(time.to_be_bytes());
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"device-secret"), &frame);
        frame.extend(mac.as_ref().iter().take(8));
        Text::from_frame(&frame).unwrap()
    }

    #[test]
    fn the_worked_example_is_believed_wherever_it_stands() {
        for text in [
            EXAMPLE.to_owned(),
            format!("[Goose] {EXAMPLE}"),
            format!("#P1: 鸿雁 {EXAMPLE}. Reply STOP to end"),
        ] {
            let wake = Text::find(&text).unwrap().verify(&key(), at(THEN + 5));
            let want = Wake {
                sequence: 42,
                urgent: false,
                fetch: Fetch::New,
            };
            assert_eq!(wake, Ok(want), "{text}");
        }
        for text in ["", "#P1:", "#P1:AQAAwP_uAAAAKmWTfSXtGzjirFQEC", "hello"] {
            assert_eq!(Text::find(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_true_is_refused() {
        let check = |text: Text, key: &Key, now: i64, want: Refused| {
            assert_eq!(text.verify(key, at(now)), Err(want));
        };
        let text = Text::find(EXAMPLE).unwrap();
        let now = at(THEN).as_second();
        check(text, &key(), now + 3_601, Refused::TooOld(3_601));
        check(text, &key(), now - 3_601, Refused::TooOld(3_601));
        let other = Key {
            app: "00c0ffef".to_owned(),
            ..key()
        };
        check(text, &other, now, Refused::OtherApp);
        let ended = Key {
            key: URL_SAFE_NO_PAD.encode("another").into(),
            ..key()
        };
        check(text, &ended, now, Refused::Forged);
        let unreadable = Key {
            key: "=".into(),
            ..key()
        };
        check(text, &unreadable, now, Refused::Key);
        for bit in 0..FRAME_LEN * 8 {
            let mut frame = text.0;
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(Text(frame).verify(&key(), at(THEN)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn each_is_taken_once_also_after_a_restart() {
        let mut guard = Guard::new(key());
        let time = u32::try_from(THEN).unwrap();
        let urgent = guard.take(&made(URGENT, 7, time), at(THEN)).unwrap();
        assert!(urgent.urgent);
        let kept = serde_json::to_string(&guard).unwrap();
        let mut guard: Guard = serde_json::from_str(&kept).unwrap();
        for old in [7, 6, 0] {
            let again = guard.take(&made(0, old, time), at(THEN));
            assert_eq!(again, Err(Refused::Repeated));
        }
        // A forgery with a high number takes no true one's place.
        let mut forged = made(0, u32::MAX, time).0;
        forged[FRAME_LEN - 1] ^= 1;
        assert_eq!(guard.take(&Text(forged), at(THEN)), Err(Refused::Forged));
        let next = guard.take(&made(EVERYTHING, 8, time), at(THEN)).unwrap();
        assert_eq!(next.fetch, Fetch::Everything);
        let next = guard.take(&made(REGISTER, 9, time), at(THEN)).unwrap();
        assert_eq!(next.fetch, Fetch::AfterRegistering);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let guard = Guard::new(key());
        let printed = format!("{guard:?} {:?}", Text::find(EXAMPLE));
        assert!(
            !printed.contains("ZGV2aWNl") && !printed.contains("0x"),
            "{printed}"
        );
        assert!(!printed.contains("236"), "{printed}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,64}", frame in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let marked = format!("#P1:{text}");
            for found in [Text::find(&text), Text::find(&marked), Text::from_frame(&frame)].into_iter().flatten() {
                proptest::prop_assert!(found.verify(&key(), at(THEN)).is_err());
            }
        }
    }
}
