//! Wake-ups by text: a phone whose app asked for a key believes them, connects for a moment and fetches.

use std::time::Duration;

use hongyan_client::wake::{Guard, Key, Refused, Text};

use super::model::Phone;
use crate::push::Push;

/// How long a woken app keeps its connection.
const AWAKE: Duration = Duration::from_secs(10);

/// What a phone knows of its wake-ups.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Waking {
    #[serde(default)]
    guard: Option<Guard>,
    /// Until when a woken app runs.
    #[serde(skip)]
    pub(super) until_ms: i64,
    /// A code that no key proved yet: the app asks for its key again.
    #[serde(skip)]
    pub(super) unproven: Option<Text>,
}

impl Phone {
    /// Whether a text is a code for the app, which then gets it in place of the person. A true and new one wakes the app.
    pub(super) fn wakes(&mut self, push: &Push, now_ms: i64) -> bool {
        let Some(text) = code(push) else { return false };
        self.take_code(text, now_ms);
        true
    }

    fn take_code(&mut self, text: Text, now_ms: i64) {
        let Ok(now) = jiff::Timestamp::from_millisecond(now_ms) else {
            return;
        };
        let taken = match &mut self.waking.guard {
            Some(guard) => guard.take(&text, now),
            None => Err(Refused::Key),
        };
        match taken {
            Ok(wake) => {
                tracing::debug!(phone = self.id, sequence = wake.sequence, "woken");
                let awake = i64::try_from(AWAKE.as_millis()).unwrap_or(0);
                self.waking.until_ms = now_ms.saturating_add(awake);
            }
            Err(Refused::Key | Refused::Forged | Refused::OtherApp) => {
                self.waking.unproven = Some(text);
            }
            Err(refused) => tracing::debug!(phone = self.id, %refused, "a wake-up is ignored"),
        }
    }

    /// The server gave the key of its wake-ups, or has none for this phone; a code that waited for it is judged now.
    pub(super) fn learn_key(&mut self, key: Option<Key>, now_ms: i64) {
        self.waking.guard = match (self.waking.guard.take(), key) {
            (_, None) => None,
            (None, Some(key)) => Some(Guard::new(key)),
            (Some(mut guard), Some(key)) => {
                guard.renew(key);
                Some(guard)
            }
        };
        if let Some(text) = self.waking.unproven.take() {
            self.take_code(text, now_ms);
            // A key that is fresh and does not prove it: it is false.
            self.waking.unproven = None;
        }
    }
}

/// The code in a text, or the frame of a binary one, which the centre hands over in hex.
fn code(push: &Push) -> Option<Text> {
    if push.visible {
        return Text::find(&push.body);
    }
    let digits: Option<Vec<u8>> = push
        .body
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    Text::from_frame(&digits?)
}
