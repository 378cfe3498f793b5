//! The record of one phone and the steps that change it; no I/O, time is handed in.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Deserializer, Serialize};

use super::link::{Kind, Profile};
use super::wake::Waking;
use crate::accounts::PACKAGE;
use crate::channel::Channel;
use crate::clock::rfc3339;
use crate::error::SandboxError;
use crate::limits;
use crate::push::{Push, Receipt};

/// Where the app is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppState {
    /// On the screen.
    Foreground,
    /// Running unseen; the platform lets it keep its connection for a while.
    Background,
    /// Not running.
    Killed,
}

/// A phone to add, as in `POST /phones`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPhone {
    /// `ios android harmony web desktop iot`.
    pub platform: String,
    /// Maker; decides the vendor channel when none is named.
    #[serde(default)]
    pub brand: String,
    /// Model, for people.
    #[serde(default)]
    pub model: String,
    /// Who is logged in.
    #[serde(default)]
    pub user: Option<String>,
    /// Vendor channels whose tokens the app gets; without it those of the brand.
    #[serde(default)]
    pub channels: Option<Vec<String>>,
}

impl NewPhone {
    /// A phone of a platform and brand with a user.
    #[must_use]
    pub fn of(platform: &str, brand: &str, model: &str, user: &str) -> Self {
        Self {
            platform: platform.to_owned(),
            brand: brand.to_owned(),
            model: model.to_owned(),
            user: Some(user.to_owned()),
            channels: None,
        }
    }

    /// An Android phone whose app is reached through a channel that does not follow from its maker.
    fn through(channel: Channel, model: &str, user: &str) -> Self {
        Self {
            channels: Some(vec![channel.as_str().to_owned()]),
            ..Self::of("android", "samsung", model, user)
        }
    }

    /// One phone for every simulated channel and one of every other platform.
    #[must_use]
    pub fn demo() -> Vec<Self> {
        vec![
            Self::of("ios", "apple", "iPhone 17", "alice"),
            Self::of("android", "google", "Pixel 10", "bob"),
            Self::of("android", "huawei", "Mate 50", "carol"),
            Self::of("harmony", "huawei", "Mate 80", "dave"),
            Self::of("android", "xiaomi", "Xiaomi 17", "erin"),
            Self::of("android", "honor", "Magic 8", "frank"),
            Self::of("android", "oppo", "Find X9", "grace"),
            Self::of("android", "vivo", "X300", "heidi"),
            Self::of("android", "meizu", "Meizu 22", "ivan"),
            Self::of("web", "firefox", "Firefox", "alice"),
            Self::through(Channel::Jpush, "Galaxy A17", "judy"),
            Self::through(Channel::Getui, "Galaxy A26", "judy"),
            Self::through(Channel::Umeng, "Galaxy A36", "mallory"),
            Self::through(Channel::Tpns, "Galaxy A56", "mallory"),
            Self::through(Channel::Aliyun, "Galaxy S26", "mallory"),
            Self::through(Channel::Sms, "Feature phone", "olivia"),
            Self::of("desktop", "linux", "Workstation", "bob"),
            Self::of("iot", "goose", "Doorbell", "carol"),
        ]
    }
}

/// A secret that a phone keeps in its private file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Kept(pub(crate) String);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept(…)")
    }
}

/// Changes of a phone, as in `PATCH /phones/{id}`; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchPhone {
    /// Where the app is.
    #[serde(default)]
    pub state: Option<AppState>,
    /// `on` or `off`.
    #[serde(default)]
    pub network: Option<String>,
    /// `granted` or `denied`.
    #[serde(default)]
    pub permission: Option<String>,
    /// Whether the app is on the phone.
    #[serde(default)]
    pub installed: Option<bool>,
    /// Who is logged in; `null` logs out.
    #[serde(default, deserialize_with = "present")]
    pub user: Option<Option<String>>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A phone as the control interface shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "the fields of the interface, described in the guide"
)]
pub struct PhoneView {
    pub id: String,
    pub device_id: String,
    pub platform: String,
    pub brand: String,
    pub model: String,
    pub user: Option<String>,
    pub state: AppState,
    pub network: String,
    pub permission: String,
    pub installed: bool,
    pub channels: Vec<Channel>,
    /// Whether the app's long connection is up.
    pub connected: bool,
    /// Whether the hongyan server knows the device.
    pub registered: bool,
    /// What keeps the phone from its server, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What the person has seen of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrayEntry {
    /// Number within the phone, growing.
    pub n: u64,
    /// hongyan's message id; `null` when a push carried none.
    pub message: Option<String>,
    /// Title as shown.
    pub title: String,
    /// Text as shown.
    pub body: String,
    /// `connection` or the channel that brought it first.
    pub via: String,
    /// When it was shown, RFC 3339.
    pub at: String,
    /// Whether it was tapped.
    pub clicked: bool,
    /// How often the message arrived, by any way.
    pub copies: u32,
    /// Whether it left the screen: replaced by a newer one, recalled or withdrawn.
    #[serde(default)]
    pub gone: bool,
    /// Who was logged in when it was shown.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) collapse: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) receipt: Option<Receipt>,
}

/// What became of something that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A new tray entry.
    New,
    /// The message was there already.
    Copy,
    /// Notifications are switched off.
    Denied,
    /// Nothing to show: the app has it.
    Silent,
}

/// Everything about one phone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Phone {
    pub(crate) id: String,
    /// Place among the phones: the first added comes first.
    #[serde(default)]
    pub(crate) place: u64,
    pub(crate) device_id: String,
    pub(crate) platform: String,
    pub(crate) brand: String,
    pub(crate) model: String,
    pub(crate) user: Option<String>,
    pub(crate) state: AppState,
    pub(crate) network: bool,
    pub(crate) permission: bool,
    pub(crate) installed: bool,
    pub(crate) channels: Vec<Channel>,
    pub(crate) tokens: BTreeMap<Channel, String>,
    /// Tokens of earlier installations, so that the vendors remember their death.
    #[serde(default)]
    pub(crate) dead_tokens: Vec<(Channel, String, i64)>,
    pub(crate) tray: Vec<TrayEntry>,
    next_n: u64,
    seen: VecDeque<String>,
    #[serde(default)]
    pub(crate) stored: VecDeque<(Channel, Push)>,
    background_since_ms: i64,
    /// Reports that have not reached the server.
    #[serde(default)]
    pub(crate) reports: VecDeque<(String, ReportKind)>,
    /// The token with which the phone acts at the server.
    #[serde(default)]
    pub(crate) device_token: Option<Kept>,
    #[serde(default)]
    pub(crate) waking: Waking,
    /// What the server was told last, to tell it again only what changed.
    #[serde(skip)]
    pub(crate) told: Option<Told>,
    #[serde(skip)]
    pub(crate) connected: bool,
    #[serde(skip)]
    pub(crate) trouble: Option<String>,
    /// Counts wishes, so that whoever changed something can wait for it.
    #[serde(skip)]
    pub(crate) wish: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReportKind {
    Displayed,
    Clicked,
}

impl From<ReportKind> for Kind {
    fn from(kind: ReportKind) -> Self {
        match kind {
            ReportKind::Displayed => Self::Displayed,
            ReportKind::Clicked => Self::Clicked,
        }
    }
}

/// What the server knows of the phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) device_id: String,
    pub(crate) tokens: BTreeMap<Channel, String>,
    /// Unknown until this run has said it once.
    pub(crate) user: Option<Option<String>>,
    pub(crate) permission: bool,
}

impl Phone {
    pub(crate) fn new(new: NewPhone, now_ms: i64) -> Result<Self, SandboxError> {
        const PLATFORMS: [&str; 6] = ["ios", "android", "harmony", "web", "desktop", "iot"];
        let invalid = |why: String| Err(SandboxError::Invalid(why));
        if !PLATFORMS.contains(&new.platform.as_str()) {
            return invalid(format!(
                "platform {:?} is not one of {}",
                new.platform,
                PLATFORMS.join(", ")
            ));
        }
        let long = [&new.brand, &new.model]
            .into_iter()
            .chain(&new.user)
            .any(|it| it.len() > 128);
        if long {
            return invalid("brand, model and user may have at most 128 bytes each".to_owned());
        }
        let channels = match &new.channels {
            None => channels_of(&new.platform, &new.brand),
            Some(names) => {
                let mut channels = Vec::new();
                for name in names {
                    let channel: Channel = name
                        .parse()
                        .map_err(|error| SandboxError::Invalid(format!("{error}")))?;
                    if !channels.contains(&channel) {
                        channels.push(channel);
                    }
                }
                channels
            }
        };
        let unique = uuid::Uuid::new_v4();
        let short: String = unique.simple().to_string().chars().take(6).collect();
        let brand = if new.brand.is_empty() {
            &new.platform
        } else {
            &new.brand
        };
        let brand: String = brand.chars().filter(char::is_ascii_alphanumeric).collect();
        Ok(Self {
            id: format!("{}-{short}", brand.to_ascii_lowercase()),
            place: 0,
            device_id: uuid::Uuid::new_v4().to_string(),
            model: if new.model.is_empty() {
                new.brand.clone()
            } else {
                new.model
            },
            platform: new.platform,
            brand: new.brand,
            user: new.user.filter(|user| !user.is_empty()),
            state: AppState::Foreground,
            network: true,
            permission: true,
            installed: true,
            channels,
            tokens: BTreeMap::new(),
            dead_tokens: Vec::new(),
            tray: Vec::new(),
            next_n: 1,
            seen: VecDeque::new(),
            stored: VecDeque::new(),
            background_since_ms: now_ms,
            reports: VecDeque::new(),
            device_token: None,
            waking: Waking::default(),
            told: None,
            connected: false,
            trouble: None,
            wish: 1,
        })
    }

    pub(crate) fn view(&self) -> PhoneView {
        PhoneView {
            id: self.id.clone(),
            device_id: self.device_id.clone(),
            platform: self.platform.clone(),
            brand: self.brand.clone(),
            model: self.model.clone(),
            user: self.user.clone(),
            state: self.state,
            network: if self.network { "on" } else { "off" }.to_owned(),
            permission: if self.permission { "granted" } else { "denied" }.to_owned(),
            installed: self.installed,
            channels: self.channels.clone(),
            connected: self.connected,
            registered: self.told.is_some(),
            trouble: self.trouble.clone(),
        }
    }

    pub(crate) fn profile(&self) -> Profile {
        Profile {
            device_id: self.device_id.clone(),
            platform: self.platform.clone(),
            brand: self.brand.clone(),
            model: self.model.clone(),
            package: PACKAGE.to_owned(),
            permission: self.permission,
            device_token: self.device_token.as_ref().map(|kept| kept.0.clone()),
        }
    }

    pub(crate) fn apply(&mut self, patch: &PatchPhone, now_ms: i64) -> Result<(), SandboxError> {
        let wrong = |name: &str, value: &str, words: &str| {
            Err(SandboxError::Invalid(format!(
                "{name} is {value:?} but must be {words}"
            )))
        };
        let network = match patch.network.as_deref() {
            None => self.network,
            Some("on") => true,
            Some("off") => false,
            Some(other) => return wrong("network", other, "on or off"),
        };
        let permission = match patch.permission.as_deref() {
            None => self.permission,
            Some("granted") => true,
            Some("denied") => false,
            Some(other) => return wrong("permission", other, "granted or denied"),
        };
        if let Some(Some(user)) = &patch.user
            && (user.is_empty() || user.len() > 128)
        {
            return wrong("user", user, "1 to 128 bytes, or null to log out");
        }
        self.network = network;
        self.permission = permission;
        self.installed = patch.installed.unwrap_or(self.installed);
        if let Some(user) = &patch.user {
            self.user.clone_from(user);
        }
        if let Some(state) = patch.state {
            if state == AppState::Background && self.state != AppState::Background {
                self.background_since_ms = now_ms;
            }
            self.state = state;
        }
        Ok(())
    }

    /// A fresh installation: another device to the server, nothing remembered.
    pub(crate) fn reinstall(&mut self) {
        self.device_id = uuid::Uuid::new_v4().to_string();
        self.state = AppState::Foreground;
        self.told = None;
        self.device_token = None;
        self.waking = Waking::default();
        self.seen.clear();
        self.reports.clear();
        self.stored.clear();
    }

    pub(crate) fn bury(&mut self, channel: Channel, token: String, now_ms: i64) {
        const DEAD_MAX: usize = 50;
        if self.dead_tokens.len() >= DEAD_MAX {
            self.dead_tokens.remove(0);
        }
        self.dead_tokens.push((channel, token, now_ms));
    }

    /// Whether the app can hold its long connection now, and until when if it will have to let go.
    pub(crate) fn may_connect(&self, now_ms: i64) -> (bool, Option<i64>) {
        if !self.installed || !self.network {
            return (false, None);
        }
        let until = match (self.state, grace_ms(&self.platform)) {
            (AppState::Foreground, _) | (AppState::Background, None) => return (true, None),
            (AppState::Background, Some(grace)) => self.background_since_ms.saturating_add(grace),
            (AppState::Killed, _) => i64::MIN,
        };
        let until = until.max(self.waking.until_ms);
        (now_ms < until, (now_ms < until).then_some(until))
    }

    /// Keeps a push at the vendor until the phone is back on the network.
    pub(crate) fn hold(&mut self, channel: Channel, push: Push, now_ms: i64) {
        self.stored.retain(|(_, held)| held.expires_ms > now_ms);
        // Apple holds one notification per app; elsewhere a key replaces its like.
        self.stored.retain(|(of, held)| {
            *of != channel
                || (channel != Channel::Apns
                    && (push.collapse.is_none() || held.collapse != push.collapse))
        });
        let limit = if channel == Channel::Fcm {
            100
        } else {
            limits::STORED_PUSHES_MAX
        };
        let of_channel = self.stored.iter().filter(|(of, _)| *of == channel).count();
        if of_channel >= limit {
            match channel {
                // Over a hundred Google throws all of them away.
                Channel::Fcm => self.stored.retain(|(of, _)| *of != channel),
                _ => {
                    if let Some(at) = self.stored.iter().position(|(of, _)| *of == channel) {
                        self.stored.remove(at);
                    }
                }
            }
        }
        self.stored.push_back((channel, push));
    }

    /// A push reached the phone.
    pub(crate) fn take_push(&mut self, channel: Channel, push: Push, now_ms: i64) -> Shown {
        if channel == Channel::Sms && self.wakes(&push, now_ms) {
            return Shown::Silent;
        }
        let reports = channel.runs_code_on_arrival() || self.state == AppState::Foreground;
        let message = push.message.clone();
        let shown = self.take(
            Arrival {
                message: push.message,
                title: push.title,
                body: push.body,
                visible: push.visible,
                collapse: push.collapse,
                receipt: push.receipt,
                via: channel.as_str(),
            },
            now_ms,
        );
        if let (Shown::New, Some(message), true) = (shown, message, reports) {
            self.report(message, ReportKind::Displayed);
        }
        shown
    }

    /// A message came over the long connection.
    pub(crate) fn take_message(
        &mut self,
        id: &str,
        notification: Option<(String, String)>,
        collapse: Option<String>,
        now_ms: i64,
    ) -> Shown {
        let visible = notification.is_some();
        let (title, body) = notification.unwrap_or_default();
        let message = Some(id.to_owned());
        let arrival = Arrival {
            message,
            title,
            body,
            visible,
            collapse,
            receipt: None,
            via: "connection",
        };
        let shown = self.take(arrival, now_ms);
        if shown == Shown::New {
            self.report(id.to_owned(), ReportKind::Displayed);
        }
        shown
    }

    fn take(&mut self, arrival: Arrival, now_ms: i64) -> Shown {
        if let Some(message) = &arrival.message
            && self.seen.contains(message)
        {
            let known = self
                .tray
                .iter_mut()
                .find(|entry| entry.message == arrival.message);
            if let Some(entry) = known {
                entry.copies = entry.copies.saturating_add(1);
                if entry.receipt.is_none() {
                    entry.receipt = arrival.receipt;
                }
            }
            return Shown::Copy;
        }
        if !arrival.visible {
            return Shown::Silent;
        }
        // With the app on the screen it shows the message itself; the switch is for the system.
        if !self.permission && self.state != AppState::Foreground {
            return Shown::Denied;
        }
        if let Some(message) = &arrival.message {
            while self.seen.len() >= limits::SEEN_MAX {
                self.seen.pop_front();
            }
            self.seen.push_back(message.clone());
        }
        if arrival.collapse.is_some() {
            for entry in &mut self.tray {
                if entry.collapse == arrival.collapse && entry.via == arrival.via {
                    entry.gone = true;
                }
            }
        }
        while self.tray.len() >= limits::TRAY_MAX {
            self.tray.remove(0);
        }
        let n = self.next_n;
        self.next_n += 1;
        self.tray.push(TrayEntry {
            n,
            message: arrival.message,
            title: arrival.title,
            body: arrival.body,
            via: arrival.via.to_owned(),
            at: rfc3339(now_ms),
            clicked: false,
            copies: 1,
            gone: false,
            user: self.user.clone(),
            collapse: arrival.collapse,
            receipt: arrival.receipt,
        });
        Shown::New
    }

    /// Opens an entry: the app comes to the front.
    pub(crate) fn click(&mut self, n: u64, _now_ms: i64) -> Option<(TrayEntry, Option<Receipt>)> {
        let entry = self.tray.iter_mut().find(|entry| entry.n == n)?;
        let first = !entry.clicked;
        entry.clicked = true;
        let entry = entry.clone();
        if self.installed {
            self.state = AppState::Foreground;
            if let (Some(message), true) = (entry.message.clone(), first) {
                self.report(message, ReportKind::Clicked);
            }
        }
        let receipt = entry.receipt.clone().filter(|_| first);
        Some((entry, receipt))
    }

    pub(crate) fn recall(&mut self, message: &str) {
        for entry in &mut self.tray {
            if entry.message.as_deref() == Some(message) {
                entry.gone = true;
            }
        }
    }

    pub(crate) fn withdraw(&mut self, collapse: &str) {
        for entry in &mut self.tray {
            if entry.collapse.as_deref() == Some(collapse) {
                entry.gone = true;
            }
        }
        self.stored
            .retain(|(_, held)| held.collapse.as_deref() != Some(collapse));
    }

    fn report(&mut self, message: String, kind: ReportKind) {
        while self.reports.len() >= limits::PHONE_ORDERS_MAX {
            self.reports.pop_front();
        }
        self.reports.push_back((message, kind));
    }
}

struct Arrival {
    message: Option<String>,
    title: String,
    body: String,
    visible: bool,
    collapse: Option<String>,
    receipt: Option<Receipt>,
    via: &'static str,
}

/// How long the platform lets an unseen app keep its connection; `None` is for ever.
fn grace_ms(platform: &str) -> Option<i64> {
    match platform {
        "ios" => Some(10_000),
        "android" => Some(180_000),
        "harmony" => Some(60_000),
        "web" => Some(300_000),
        _ => None,
    }
}

/// The vendor channels of a platform and brand.
fn channels_of(platform: &str, brand: &str) -> Vec<Channel> {
    let brand = brand.to_ascii_lowercase();
    match platform {
        "ios" => vec![Channel::Apns],
        "harmony" => vec![Channel::Harmony],
        "web" => vec![Channel::Webpush],
        "android" => match brand.as_str() {
            "huawei" => vec![Channel::Huawei],
            "xiaomi" | "redmi" | "poco" => vec![Channel::Xiaomi],
            "honor" => vec![Channel::Honor],
            "oppo" | "oneplus" | "realme" => vec![Channel::Oppo],
            "vivo" | "iqoo" => vec![Channel::Vivo],
            "meizu" => vec![Channel::Meizu],
            _ => vec![Channel::Fcm],
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
