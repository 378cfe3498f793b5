//! The vendor services that the sandbox plays.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A vendor service, by the name that hongyan's API gives its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging, HTTP v1.
    Fcm,
    /// Huawei Push Kit for HMS Core, API generations v1 and v2.
    Huawei,
    /// Huawei Push Kit for HarmonyOS 5 and later, API generation v3.
    Harmony,
    /// Xiaomi MiPush.
    Xiaomi,
}

impl Channel {
    /// Every channel that has a simulator.
    pub const ALL: [Self; 5] = [
        Self::Apns,
        Self::Fcm,
        Self::Huawei,
        Self::Harmony,
        Self::Xiaomi,
    ];

    /// The channel's name in paths and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
            Self::Huawei => "huawei",
            Self::Harmony => "harmony",
            Self::Xiaomi => "xiaomi",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Whether the platform runs the app's code when a push arrives, so that the app can report
    /// `displayed` without being opened: Android with Google services, and the notification
    /// service extension of iOS.
    #[must_use]
    pub const fn runs_code_on_arrival(self) -> bool {
        matches!(self, Self::Apns | Self::Fcm)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name is not one of a simulated channel.
#[derive(Debug, thiserror::Error)]
#[error("channel {0:?} has no simulator; there are apns, fcm, huawei, harmony and xiaomi")]
pub struct UnknownChannel(pub String);

impl FromStr for Channel {
    type Err = UnknownChannel;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|channel| channel.as_str() == name)
            .ok_or_else(|| UnknownChannel(name.chars().take(40).collect()))
    }
}
