//! Web push: what a sender that knows nothing but an address puts there for one device.
//!
//! Bodies are encrypted between the sender and the app on the device (RFC 8291); nothing here looks into them.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{AppId, DeviceId, PushChannel, Timestamp, UserId};

/// Longest time to live of a push: four weeks and two days, as other push services have it; more is lowered to it.
pub const PUSH_TTL_S_MAX: u32 = 2_592_000;
/// Largest body, bytes: what RFC 8030 section 7.2 asks every service to take.
pub const PUSH_BODY_BYTES_MAX: usize = 4_096;
/// Largest body of the draft encoding `aesgcm`, bytes: as above, and 5 percent for its older padding.
pub const PUSH_AESGCM_BYTES_MAX: usize = 4_300;
/// Live channels of one device.
pub const CHANNELS_PER_DEVICE_MAX: usize = 1_000;
/// Pushes that wait for one channel: beyond it the oldest of the lowest urgency goes.
pub const PUSHES_PER_CHANNEL_MAX: u64 = 1_000;
/// Pushes that wait for one device, over all its channels: with bodies of [`PUSH_AESGCM_BYTES_MAX`] at most 21 MB. Beyond it
/// the channel with the most gives one up, so that a flooded one does not push out the others'.
pub const PUSHES_PER_DEVICE_MAX: u64 = 5_000;
/// A device that was not heard of for so long has no endpoints any more; a browser that made itself known over autopush is
/// forgotten with them.
pub const UNSEEN_MAX: Duration = Duration::from_secs(60 * 86_400);
/// What ids of browsers begin with.
pub const BROWSER_PREFIX: &str = "autopush-";
/// How long an enrolment makes browsers devices of its user. Those that it made stay.
pub const ENROLMENT_LIFE: Duration = Duration::from_secs(86_400);
/// Text that an app gives a channel, bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 100;
/// A topic, characters (RFC 8030 section 5.4).
pub const PUSH_TOPIC_LEN_MAX: usize = 32;
/// Longest value of an encryption header that travels with an `aesgcm` body: a salt has 22 characters, a key 87.
pub const PUSH_HEADER_LEN_MAX: usize = 128;

/// How soon the person should hear of it (RFC 8030 section 5.3): the device weighs it against power and network.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the words say it")]
pub enum Urgency {
    VeryLow,
    Low,
    #[default]
    Normal,
    High,
}

impl Urgency {
    /// Every urgency, lowest first.
    pub const ALL: [Self; 4] = [Self::VeryLow, Self::Low, Self::Normal, Self::High];

    /// The word of the header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VeryLow => "very-low",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    /// Reads the word of the header.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|u| u.as_str() == text)
    }
}

/// How a body is encrypted, as its sender says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PushEncoding {
    /// RFC 8188: everything is in the body.
    Aes128gcm,
    /// The draft before it: salt and key come in headers.
    Aesgcm {
        /// Value of `Encryption`, without padding and quotes: `salt=…`.
        encryption: String,
        /// Value of `Crypto-Key`, without padding and quotes: `dh=…`.
        crypto_key: String,
    },
    /// Nothing is said of it.
    Opaque,
}

impl PushEncoding {
    /// The word of `Content-Encoding`, if there is one.
    #[must_use]
    pub const fn as_str(&self) -> Option<&'static str> {
        match self {
            Self::Aes128gcm => Some("aes128gcm"),
            Self::Aesgcm { .. } => Some("aesgcm"),
            Self::Opaque => None,
        }
    }
}

/// The opaque part of a message that came over a push endpoint.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Which of the device's channels it is for.
    pub channel: PushChannel,
    /// Hash of the endpoint's token: who knows it may take the message back.
    #[serde(with = "base64_bytes")]
    pub endpoint: [u8; 32],
    /// The body, byte for byte.
    #[serde(with = "base64_bytes", default)]
    pub body: Bytes,
    /// How it is encrypted.
    pub encoding: PushEncoding,
    /// How soon the person should hear of it.
    #[serde(default)]
    pub urgency: Urgency,
    /// What it replaces on its channel while undelivered.
    #[serde(default)]
    pub topic: Option<String>,
    /// Who held the device when it was posted: nobody else is given it. `None`: nobody held it, and whoever does now is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<UserId>,
}

impl Push {
    /// Whether it may be given to the device while this user holds it.
    #[must_use]
    pub fn is_for(&self, user: Option<&str>) -> bool {
        let holder = self.holder.as_ref().map(UserId::as_str);
        holder.is_none() || holder == user
    }
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push")
            .field("channel", &self.channel)
            .field("body_bytes", &self.body.len())
            .field("urgency", &self.urgency)
            .finish_non_exhaustive()
    }
}

/// An address that senders post to, and the channel of a device behind it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushEndpoint {
    /// SHA-256 of the token in the address.
    #[serde(with = "base64_bytes")]
    pub hash: [u8; 32],
    /// The token, sealed, so that the device can be told the address again.
    #[serde(with = "base64_bytes")]
    pub sealed: Vec<u8>,
    /// The app.
    pub app: AppId,
    /// The device.
    pub device: DeviceId,
    /// Its channel.
    pub channel: PushChannel,
    /// What the device knows the channel by, such as a hash of the connector's token.
    #[serde(default)]
    pub label: Option<String>,
    /// SHA-256 of the one VAPID key that may post (RFC 8292 section 4); everybody may without.
    #[serde(with = "maybe_hash", default)]
    pub vapid: Option<[u8; 32]>,
    /// Text for people.
    #[serde(default)]
    pub description: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it takes nothing any more.
    #[serde(default)]
    pub gone_since: Option<Timestamp>,
}

impl fmt::Debug for PushEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushEndpoint")
            .field("app", &self.app)
            .field("device", &self.device)
            .field("channel", &self.channel)
            .field("bound", &self.vapid.is_some())
            .field("gone_since", &self.gone_since)
            .finish_non_exhaustive()
    }
}

/// Bytes as base64url text.
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &impl AsRef<[u8]>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D, T>(from: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: super::FromBytes,
    {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let bytes = URL_SAFE_NO_PAD
            .decode(text.as_bytes())
            .map_err(D::Error::custom)?;
        T::from_bytes(bytes).ok_or_else(|| D::Error::custom("has another length"))
    }
}

/// What [`base64_bytes`] reads.
trait FromBytes: Sized {
    fn from_bytes(bytes: Vec<u8>) -> Option<Self>;
}

impl FromBytes for Vec<u8> {
    fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        Some(bytes)
    }
}

impl FromBytes for Bytes {
    fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        Some(bytes.into())
    }
}

impl FromBytes for [u8; 32] {
    fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        bytes.try_into().ok()
    }
}

/// A hash that may be missing.
mod maybe_hash {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Hash(#[serde(with = "super::base64_bytes")] [u8; 32]);

    pub(super) fn serialize<S: Serializer>(
        hash: &Option<[u8; 32]>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        hash.map(Hash).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<[u8; 32]>, D::Error> {
        Ok(Option::<Hash>::deserialize(from)?.map(|hash| hash.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_comes_back_from_its_record_byte_for_byte() {
        let push = Push {
            channel: PushChannel::parse("c-1").unwrap(),
            endpoint: [7; 32],
            body: (0..=255).collect(),
            encoding: PushEncoding::Aesgcm {
                encryption: "salt=abc".to_owned(),
                crypto_key: "dh=def".to_owned(),
            },
            urgency: Urgency::VeryLow,
            topic: Some("t".to_owned()),
            holder: UserId::parse("u").ok(),
        };
        let json = serde_json::to_vec(&push).unwrap();
        assert_eq!(serde_json::from_slice::<Push>(&json).unwrap(), push);
        let shown = format!("{push:?}");
        assert!(shown.contains("body_bytes: 256"), "{shown}");
        assert!(!shown.contains("255"), "{shown}");
    }

    #[test]
    fn urgency_words_are_those_of_the_header() {
        for urgency in Urgency::ALL {
            assert_eq!(Urgency::parse(urgency.as_str()), Some(urgency));
            let json = serde_json::to_value(urgency).unwrap();
            assert_eq!(json, urgency.as_str());
        }
        assert_eq!(Urgency::parse("High"), None);
    }
}
