//! SMS as a signal: "something waits for you, fetch it", and nothing else.
//!
//! The frame is this project's own, 22 octets: version 1, flags (bit 0 urgent), app (4), sequence (u32), time (u32, Unix
//! seconds), and the first 8 octets of HMAC-SHA256(device key, the 14 octets before). Integers are big-endian. The
//! sequence of a device only grows: it is the second of the wake-up, and wake-ups of one device are further apart than that.
//! As text: `#P1:` and the frame in base64url without padding, 34 characters of the GSM alphabet.
//!
//! A device's key is HMAC-SHA256(`wake_key`, device id, a zero octet, SHA-256 of the device token): nothing is stored of it,
//! and it ends with the device token. The device gets it from `POST /v1/devices/{id}/wake-key`. A client checks version, app,
//! time and MAC, wants a higher sequence than its last, then connects and fetches; it never shows or runs anything of the
//! text. iOS apps cannot read texts at all; Android apps need a permission that stores seldom grant: this is for own firmware
//! and modules.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hongyan_core::message::Priority;
use hongyan_core::port::{Outbound, Recipient, WakeKey};
use hongyan_core::verdict::Unsure;
use hongyan_core::{AppId, DeviceId, Reason, Secret, Timestamp, Verdict};
use ring::{digest, hmac};

use super::Words;
use crate::config::Fields;

const VERSION: u8 = 1;
const URGENT: u8 = 1;
const TEXT_MARK: &str = "#P1:";
const EVERY_S_DEFAULT: u64 = 1800;
const VALID_S_DEFAULT: u64 = 3600;
const PORT_DEFAULT: u64 = 16_000;
/// Devices whose last wake-up is remembered; the oldest goes first.
const WAKES_MAX: usize = 65_536;

/// A credential's fields for wake-ups.
#[derive(Debug)]
pub(super) struct Config {
    key: Secret,
    app: Option<[u8; 4]>,
    pub(super) every: Duration,
    /// A wake-up that is older is worth nothing, to the provider and to the device.
    pub(super) valid: Duration,
    pub(super) binary: bool,
    pub(super) port: u16,
}

impl Config {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let key = fields.text("wake_key", "the secret from which device keys are made");
        if !key.is_empty() && key.len() < 16 {
            fields.fault("wake_key", "is shorter than 16 characters");
        }
        let app = match fields.optional_text("wake_app") {
            None => None,
            Some(text) => {
                let number = u32::from_str_radix(&text, 16)
                    .ok()
                    .filter(|_| text.len() == 8);
                if number.is_none() {
                    fields.fault("wake_app", "must be 8 hex digits");
                }
                number.map(u32::to_be_bytes)
            }
        };
        let every = fields.number("wake_every_s", 1..=86_400, EVERY_S_DEFAULT);
        let valid = fields.number("wake_valid_s", 60..=86_400, VALID_S_DEFAULT);
        let binary = fields.value("wake_binary").is_none() || fields.switch("wake_binary");
        let port = fields.number("wake_port", 1..=65_535, PORT_DEFAULT);
        Self {
            key: Secret::new(key),
            app,
            every: Duration::from_secs(every),
            valid: Duration::from_secs(valid),
            binary,
            port: u16::try_from(port).unwrap_or(16_000),
        }
    }

    /// The same fields are allowed, and of no use, in the other mode.
    pub(super) fn ignore(fields: &mut Fields<'_>) {
        for name in [
            "wake_key",
            "wake_app",
            "wake_every_s",
            "wake_valid_s",
            "wake_binary",
            "wake_port",
        ] {
            fields.value(name);
        }
    }

    /// Fills in what follows from the app.
    pub(super) fn bind(&mut self, app: &AppId) {
        if self.app.is_none() {
            let hash = digest::digest(&digest::SHA256, app.to_string().as_bytes());
            self.app = hash.as_ref().get(..4).and_then(|b| b.try_into().ok());
        }
    }

    /// What a device checks its wake-ups with.
    pub(super) fn device_key(&self, device: &DeviceId, secret_hash: &[u8; 32]) -> WakeKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose());
        let of = [device.as_str().as_bytes(), &[0], secret_hash].concat();
        WakeKey {
            key: Secret::new(hmac::sign(&key, &of).as_ref()),
            app: self.app.unwrap_or_default(),
            valid: self.valid,
        }
    }

    /// The words of a wake-up for a device.
    pub(super) fn words(&self, words: Words, outbound: &Outbound, recipient: &Recipient) -> Words {
        let device = self.device_key(&recipient.device, &recipient.secret_hash);
        let second = u32::try_from(outbound.now.millis().div_euclid(1000)).unwrap_or(u32::MAX);
        let urgent = outbound.message.options.priority == Some(Priority::High);
        let frame = frame(
            device.key.expose(),
            if urgent { URGENT } else { 0 },
            device.app,
            second,
            second,
        );
        Words {
            wake: text(&frame),
            frame: Some(frame),
            ..words
        }
    }
}

fn frame(key: &[u8], flags: u8, app: [u8; 4], sequence: u32, time_s: u32) -> Vec<u8> {
    let mut frame = vec![VERSION, flags];
    frame.extend(app);
    frame.extend(sequence.to_be_bytes());
    frame.extend(time_s.to_be_bytes());
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &frame);
    frame.extend(mac.as_ref().iter().take(8));
    frame
}

fn text(frame: &[u8]) -> String {
    format!("{TEXT_MARK}{}", URL_SAFE_NO_PAD.encode(frame))
}

/// When each device was last woken.
#[derive(Debug)]
pub(super) struct Wakes {
    every: Duration,
    inner: Mutex<(HashMap<DeviceId, Timestamp>, VecDeque<DeviceId>)>,
}

impl Wakes {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            every,
            inner: Mutex::default(),
        }
    }

    /// Takes the device's turn, or says when it has one. Whoever waits is brought by the wake-up before as long as the device
    /// has not fetched yet, and by the next one otherwise.
    pub(super) fn reserve(&self, device: &DeviceId, now: Timestamp) -> Result<(), Verdict> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, order) = &mut *inner;
        if let Some(at) = last.get(device) {
            let since = now.since(*at);
            if since < self.every {
                return Err(Verdict::Retry {
                    reason: Reason::FrequencyCap,
                    after: Some(self.every.saturating_sub(since)),
                    detail: format!(
                        "the device was woken {} s ago; the least distance between two wake-ups is {} s",
                        since.as_secs(),
                        self.every.as_secs(),
                    ),
                    certainty: Unsure::NotTaken,
                });
            }
        }
        if last.insert(device.clone(), now).is_none() {
            order.push_back(device.clone());
        }
        while order.len() > WAKES_MAX {
            if let Some(oldest) = order.pop_front() {
                last.remove(&oldest);
            }
        }
        Ok(())
    }

    /// Gives the turn back: nothing was sent.
    pub(super) fn release(&self, device: &DeviceId) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, order) = &mut *inner;
        if last.remove(device).is_some()
            && let Some(at) = order.iter().position(|other| other == device)
        {
            order.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_the_worked_example() {
        let frame = frame(
            b"device-secret",
            0,
            [0x00, 0xc0, 0xff, 0xee],
            42,
            1_704_164_645,
        );
        let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "010000c0ffee0000002a65937d25ed1b38e2ac54040b");
        assert_eq!(text(&frame), "#P1:AQAAwP_uAAAAKmWTfSXtGzjirFQECw");
    }

    #[test]
    fn a_key_is_the_devices_and_ends_with_its_token() {
        let config = Config {
            key: Secret::new("a secret of some length"),
            app: Some([0, 1, 2, 3]),
            every: Duration::ZERO,
            valid: Duration::from_secs(60),
            binary: false,
            port: 1,
        };
        let (one, two) = (
            DeviceId::parse("d1").unwrap(),
            DeviceId::parse("d2").unwrap(),
        );
        let key = |device, hash| config.device_key(device, &[hash; 32]).key;
        assert_eq!(key(&one, 1), key(&one, 1));
        assert_ne!(key(&one, 1), key(&one, 2));
        assert_ne!(key(&one, 1), key(&two, 1));
        assert_eq!(key(&one, 1).expose().len(), 32);
    }

    #[test]
    fn a_device_is_woken_once_in_a_while() {
        let wakes = Wakes::new(Duration::from_secs(60));
        let device = DeviceId::parse("d1").unwrap();
        let other = DeviceId::parse("d2").unwrap();
        let at = Timestamp(1_000_000);
        assert!(wakes.reserve(&device, at).is_ok());
        let again = wakes.reserve(&device, at.plus(Duration::from_secs(59)));
        assert!(matches!(
            again,
            Err(Verdict::Retry {
                reason: Reason::FrequencyCap,
                after: Some(after),
                ..
            }) if after == Duration::from_secs(1)
        ));
        assert!(wakes.reserve(&other, at).is_ok());
        assert!(
            wakes
                .reserve(&device, at.plus(Duration::from_secs(60)))
                .is_ok()
        );
        wakes.release(&device);
        assert!(
            wakes
                .reserve(&device, at.plus(Duration::from_secs(61)))
                .is_ok()
        );
    }
}
