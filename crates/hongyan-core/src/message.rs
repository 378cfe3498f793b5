//! What the app server sends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    AppId, ChannelId, Class, ClassDetail, DeviceId, MessageId, Push, Timestamp, Topic, UserId,
};

/// A message as accepted: stored once, shared by all its deliveries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The app.
    pub app: AppId,
    /// For whom.
    pub to: Target,
    /// What it is for.
    #[serde(default)]
    pub class: Class,
    /// The kind of a transaction.
    #[serde(default)]
    pub class_detail: Option<ClassDetail>,
    /// What is shown.
    #[serde(default)]
    pub notification: Option<Notification>,
    /// What the app gets.
    #[serde(default)]
    pub data: Option<serde_json::Map<String, serde_json::Value>>,
    /// What came over a push endpoint: the device gets it as it is, and nothing is shown by us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<Box<Push>>,
    /// It is no message but the mark of a recall, of the message that it names: see [`Message::recall_mark`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recalls: Option<MessageId>,
    /// How it travels.
    #[serde(default)]
    pub options: Options,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it is no longer worth delivering.
    pub expires_at: Timestamp,
}

impl Message {
    /// Whether a device bound to this user may be given it: a message to users is for them alone,
    /// whichever list it stands in, and a push for who held the device when it was posted.
    #[must_use]
    pub fn may_be_given_to(&self, user: Option<&UserId>) -> bool {
        if let Some(push) = &self.push {
            return push.is_for(user.map(UserId::as_str));
        }
        match &self.to {
            Target::Users(users) => user.is_some_and(|u| users.contains(u)),
            Target::Devices(_) | Target::Topic(_) | Target::All => true,
        }
    }

    /// The mark of its recall: an entry of its own in the lists in which the message stands, so that whoever got the message
    /// is told in its turn, over every protocol. It is acknowledged like any entry, or with what comes after it. Nothing is shown or pushed for it, it
    /// has no deliveries, and it is kept as long as the longest time to live.
    #[must_use]
    pub fn recall_mark(&self, id: MessageId, now: Timestamp) -> Self {
        Self {
            id,
            app: self.app.clone(),
            to: self.to.clone(),
            class: self.class,
            class_detail: None,
            notification: None,
            data: None,
            push: None,
            recalls: Some(self.id),
            options: Options {
                priority: Some(Priority::Normal),
                ..Options::default()
            },
            accepted_at: now,
            expires_at: now.plus(crate::limits::TTL_MAX),
        }
    }

    /// Whether it waits for its `send_at`.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.options.send_at.is_some_and(|at| at > self.accepted_at)
    }

    /// Where it stands among messages: of those with the same collapse key the highest is the newest. A scheduled
    /// message is as new as its time.
    #[must_use]
    pub fn rank(&self) -> (Timestamp, MessageId) {
        let due = self.options.send_at.unwrap_or(self.accepted_at);
        (due.max(self.accepted_at), self.id)
    }

    /// What messages must share to take each other's place: the collapse key, and whether they are for a person or for
    /// whoever holds the device. `None` when it stands for itself.
    #[must_use]
    pub fn collapses_with(&self) -> Option<(&str, bool)> {
        let key = self.options.collapse_key.as_deref()?;
        Some((key, matches!(self.to, Target::Users(_))))
    }
}

/// For whom a message is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// All devices of these users.
    Users(Vec<UserId>),
    /// These devices, whoever holds them.
    Devices(Vec<DeviceId>),
    /// All subscribers of a topic.
    Topic(Topic),
    /// Every device of the app.
    All,
}

impl Target {
    /// The same target with nobody named twice, in the order of the first mention.
    #[must_use]
    pub fn each_once(mut self) -> Self {
        fn once<T: Clone + Eq + std::hash::Hash>(all: &mut Vec<T>) {
            let mut seen = std::collections::HashSet::with_capacity(all.len());
            all.retain(|one| seen.insert(one.clone()));
        }
        match &mut self {
            Self::Users(users) if users.len() > 1 => once(users),
            Self::Devices(devices) if devices.len() > 1 => once(devices),
            _ => {}
        }
        self
    }

    /// The broadcast audience that this target is, if it is one.
    #[must_use]
    pub fn audience(&self) -> Option<Audience> {
        match self {
            Self::Users(_) | Self::Devices(_) => None,
            Self::Topic(topic) => Some(Audience::Topic(topic.clone())),
            Self::All => Some(Audience::All),
        }
    }
}

/// Whom a broadcast reaches: stored once per audience, not per recipient.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Subscribers of a topic.
    Topic(Topic),
    /// Every device of the app.
    All,
}

/// What is shown to the person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Notification {
    /// First line.
    pub title: String,
    /// Text.
    pub body: String,
    /// Picture, https.
    pub image: Option<String>,
    /// Number on the icon.
    pub badge: Option<u32>,
    /// Sound name; `default` is the system's.
    pub sound: Option<String>,
    /// What a tap opens.
    pub click: Option<Click>,
    /// Notifications of one group are shown together.
    pub group: Option<String>,
}

/// What a tap opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Click {
    /// A deep link or web address.
    pub url: String,
}

/// How a message travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Options {
    /// Seconds that it is worth delivering.
    pub ttl_s: Option<u32>,
    /// A newer message with the same key takes the place of an undelivered older one.
    pub collapse_key: Option<String>,
    /// Urgency; by class when absent.
    pub priority: Option<Priority>,
    /// Which ways it may take.
    pub delivery: DeliveryMode,
    /// How long a session has to acknowledge before the vendor's channel is used.
    pub ack_timeout_ms: Option<u32>,
    /// Which of a user's devices.
    pub devices: DeviceChoice,
    /// Not before this time.
    pub send_at: Option<Timestamp>,
    /// What the vendor push looks like.
    pub push: PushOptions,
    /// Which channels, in which order.
    pub channels: ChannelOptions,
    /// Who may act on a tap.
    pub click_guard: ClickGuard,
    /// Whether the app should skip its splash screen on a tap.
    pub skip_splash: Option<bool>,
    /// Merged last into that vendor's payload.
    pub vendor: BTreeMap<ChannelId, serde_json::Map<String, serde_json::Value>>,
}

/// Urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words say it")]
pub enum Priority {
    High,
    Normal,
}

/// Which ways a message may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryMode {
    /// A session if there is one, else (or when it stays silent) the vendor's channel.
    #[default]
    OnlineFirst,
    /// Only a session.
    OnlineOnly,
    /// Only the vendor's channel.
    OfflineOnly,
    /// Both at once; shown once.
    Both,
}

/// Which of a user's devices get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// Every device.
    #[default]
    All,
    /// The one that was seen last.
    Latest,
    /// Every device, until one acknowledges; the others are cancelled.
    FirstAck,
}

/// What the vendor push looks like, when it should differ from the notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PushOptions {
    /// Whether there is a vendor push at all.
    pub enabled: bool,
    /// Title instead of the notification's.
    pub title: Option<String>,
    /// Text instead of the notification's.
    pub body: Option<String>,
    /// Whether the sender's name (the notification's title) is shown.
    pub show_sender: bool,
    /// Whether the push counts on the icon.
    pub badge: bool,
    /// Whether it is pushed although the person muted its class or it is their quiet time: for a mention or a call. The
    /// permission of the system is never overridden.
    pub force: bool,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            title: None,
            body: None,
            show_sender: true,
            badge: true,
            force: false,
        }
    }
}

/// Which channels, in which order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelOptions {
    /// Only these, in this order; empty means the app's order.
    pub order: Vec<ChannelId>,
    /// Whether the next channel is tried when one fails for good.
    pub fallback: bool,
    /// Milliseconds to wait for the receipt of a vendor that gives receipts, before the next channel is tried. Absent: the
    /// vendor's word is enough.
    pub fallback_after_ms: Option<u32>,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            fallback: true,
            fallback_after_ms: None,
        }
    }
}

/// Who may act on a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ClickGuard {
    /// Only while the user it was meant for is logged in.
    #[default]
    Owner,
    /// Whoever holds the device.
    Anyone,
}
