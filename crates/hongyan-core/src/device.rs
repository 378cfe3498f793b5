//! Devices and their vendor tokens.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{AppId, ChannelId, CredentialName, DeviceId, Reason, Timestamp, UserId};

/// What a device runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words are the platforms' names")]
pub enum Platform {
    Ios,
    Android,
    Harmony,
    Web,
    Desktop,
    Iot,
}

impl Platform {
    /// The public word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ios => "ios",
            Self::Android => "android",
            Self::Harmony => "harmony",
            Self::Web => "web",
            Self::Desktop => "desktop",
            Self::Iot => "iot",
        }
    }
}

/// Whether the person lets the app notify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Notifications are shown.
    #[default]
    Granted,
    /// Notifications are switched off.
    Denied,
    /// Not asked yet: the vendor would show nothing.
    NotDetermined,
    /// iOS: delivered quietly.
    Provisional,
}

impl Permission {
    /// Whether a notification can be seen at all.
    #[must_use]
    pub const fn shows(self) -> bool {
        matches!(self, Self::Granted | Self::Provisional)
    }
}

/// The vendor's world that a token belongs to (APNs has two).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Builds from the store.
    Production,
    /// Development builds.
    Sandbox,
}

/// Whether a token may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TokenState {
    /// It may be used.
    #[default]
    Active,
    /// A tombstone: the vendor, or a move to another device, ended it.
    Dead {
        /// Why.
        reason: Reason,
        /// Since when.
        at: Timestamp,
    },
}

/// A device's address at one channel. A device has at most one per channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// The channel.
    pub channel: ChannelId,
    /// The vendor's opaque text.
    pub token: String,
    /// Which credential it belongs to; `None` means the app's `default`.
    #[serde(default)]
    pub credential: Option<CredentialName>,
    /// The vendor's world, where it has several.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// Whether it may be used.
    #[serde(default)]
    pub state: TokenState,
    /// The device wants no pushes over it until it says otherwise (XEP-0357 `disable`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// When the device last gave it.
    pub updated_at: Timestamp,
}

impl Token {
    /// Whether it is alive, though pushes over it may be paused.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        matches!(self.state, TokenState::Active)
    }

    /// Whether pushes go over it.
    #[must_use]
    pub const fn takes_pushes(&self) -> bool {
        self.is_active() && !self.paused
    }
}

/// What lets a device log in by SCRAM (RFC 5802, RFC 7677) with its token as the password, without the token itself: made
/// where the token is seen in plain, for XMPP.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramKeys {
    /// [`Device::secret_hash`] of the token that they were made of: they die with it.
    pub secret_hash: [u8; 32],
    /// StoredKey of SCRAM-SHA-1.
    pub sha1_stored: [u8; 20],
    /// ServerKey of SCRAM-SHA-1.
    pub sha1_server: [u8; 20],
    /// StoredKey of SCRAM-SHA-256.
    pub sha256_stored: [u8; 32],
    /// ServerKey of SCRAM-SHA-256.
    pub sha256_server: [u8; 32],
}

impl ScramKeys {
    /// Rounds of PBKDF2. A device token has 256 random bits, so more would protect nothing.
    pub const ITERATIONS: u32 = 10_000;

    /// The salt of an app. All devices of an app share it, because a client asks before it can say which device it is;
    /// so a user who does not exist gets the same one, and nothing tells them apart.
    #[must_use]
    pub fn salt(app: &str) -> Vec<u8> {
        format!("hongyan.scram.1/{app}").into_bytes()
    }
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramKeys(…)")
    }
}

/// One installation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// The app.
    pub app: AppId,
    /// Its id, chosen by the client.
    pub id: DeviceId,
    /// Package or bundle id.
    #[serde(default)]
    pub package: Option<String>,
    /// What it runs.
    pub platform: Platform,
    /// Maker, lower case.
    #[serde(default)]
    pub brand: Option<String>,
    /// Model.
    #[serde(default)]
    pub model: Option<String>,
    /// BCP 47.
    #[serde(default)]
    pub locale: Option<String>,
    /// IANA name.
    #[serde(default)]
    pub timezone: Option<String>,
    /// The app's version on it.
    #[serde(default)]
    pub app_version: Option<String>,
    /// Whether the person lets the app notify.
    #[serde(default)]
    pub permission: Permission,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// Addresses at the channels, at most one per channel.
    #[serde(default)]
    pub tokens: Vec<Token>,
    /// The user it is bound to.
    #[serde(default)]
    pub user: Option<UserId>,
    /// Grows whenever the binding changes: a login by B after A is another binding.
    #[serde(default)]
    pub binding: u64,
    /// SHA-256 of the device token that acts as this device.
    pub secret_hash: [u8; 32],
    /// What lets it log in over XMPP by SCRAM, once it asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scram: Option<Box<ScramKeys>>,
    /// When it registered first.
    pub created_at: Timestamp,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// Grows with every change; checked on write.
    #[serde(default)]
    pub version: u64,
}

impl Device {
    /// The keys for SCRAM, while they belong to its present token.
    #[must_use]
    pub fn scram(&self) -> Option<&ScramKeys> {
        let keys = self.scram.as_deref()?;
        (keys.secret_hash == self.secret_hash).then_some(keys)
    }

    /// The token for a channel, dead or alive.
    #[must_use]
    pub fn token(&self, channel: &ChannelId) -> Option<&Token> {
        self.tokens.iter().find(|t| t.channel == *channel)
    }
}
