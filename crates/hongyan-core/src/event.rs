//! What happened: the ledger's events.

use serde::{Deserialize, Serialize};

use crate::device::Platform;
use crate::{AppId, ChannelId, Class, DeviceId, MessageId, Reason, Timestamp, UserId};

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident = $word:literal),* $(,)?) => {
        /// Where on its way a message or delivery is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Stage { $($(#[$doc])* $name),* }
        impl Stage {
            /// Every stage there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
            /// The public word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

stages! {
    /// The message is durable (`202`).
    Accepted = "accepted",
    /// A delivery to one device was planned.
    Targeted = "targeted",
    /// It went to a session.
    SentOnline = "sent_online",
    /// It waits; the reason says for what.
    Held = "held",
    /// A vendor was called with it. Told together with the answer, with the time of the call. What waits in a lane, or is
    /// held by a quota, was not sent.
    SentVendor = "sent_vendor",
    /// The vendor took it.
    AcceptedByVendor = "accepted_by_vendor",
    /// A try failed; another follows.
    Retried = "retried",
    /// Another way is tried; the reason says why.
    Fallback = "fallback",
    /// The device has it.
    Delivered = "delivered",
    /// It was shown.
    Displayed = "displayed",
    /// It was tapped.
    Clicked = "clicked",
    /// The app was opened through it.
    Opened = "opened",
    /// It was swiped away.
    Dismissed = "dismissed",
    /// A text was shortened for the vendor.
    Truncated = "truncated",
    /// The vendor goes out with it as a lower class; the detail says why.
    ClassDowngraded = "class_downgraded",
    /// A vendor that had taken it did not deliver it after all, or said nothing in time; the reason says why.
    Undelivered = "undelivered",
    /// The delivery ended without reaching the person; the reason says why.
    Dropped = "dropped",
    /// The message was recalled.
    Recalled = "recalled",
    /// A vendor token was taken out of use.
    TokenDead = "token_dead",
    /// A device said something to its app; the detail is what.
    Said = "said",
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that happened. Counters are sums over events and can be re-derived from them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Place in the ledger; 0 until the engine has assigned it.
    #[serde(default)]
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// The app.
    pub app: AppId,
    /// What happened.
    pub stage: Stage,
    /// Why.
    #[serde(default)]
    pub reason: Option<Reason>,
    /// The message.
    #[serde(default)]
    pub message: Option<MessageId>,
    /// Its class.
    #[serde(default)]
    pub class: Option<Class>,
    /// The user it is meant for.
    #[serde(default)]
    pub user: Option<UserId>,
    /// The device.
    #[serde(default)]
    pub device: Option<DeviceId>,
    /// The device's platform.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// The vendor's channel; none for the long connection.
    #[serde(default)]
    pub channel: Option<ChannelId>,
    /// Which try, from 1.
    #[serde(default)]
    pub attempt: u16,
    /// Until when it waits, for `held` and `retried`.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// How long the step took, in milliseconds.
    #[serde(default)]
    pub took_ms: Option<u32>,
    /// The vendor's words or other detail; never a secret, token or payload. For `said`, the device's words.
    #[serde(default)]
    pub detail: Option<String>,
    /// Whether the delivery ended with this event: its reason is the final outcome.
    #[serde(default)]
    pub r#final: bool,
}
