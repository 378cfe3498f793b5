//! Which channel comes first: pure, over what was measured before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hongyan_core::app::AppPolicy;
use hongyan_core::device::Platform;
use hongyan_core::{AppId, ChannelId, Device, Message, Timestamp};

/// The channel of text messages: it costs money for each, so it is used only where somebody said so.
const SMS: &str = "sms";
/// Google's channel: on phones of Chinese makers it often looks well and delivers nothing.
const FCM: &str = "fcm";

/// What is believed of a channel before anything was measured, as the share of pushes that arrive.
const NATIVE: f64 = 0.9;
const OTHER: f64 = 0.8;
/// How many measured pushes the belief is worth.
const BELIEF_WEIGHT: f64 = 200.0;
/// Channels whose shares differ by less are equally good.
const STEP: f64 = 0.05;
/// A push counts when its receipt had this long to come.
const RIPE_AFTER_MS: i64 = 600_000;
/// What is left of a measurement after as long again: half in half a day, so that a channel that was given up is tried again.
const KEPT: f64 = 0.99;
/// Groups of phones that are told apart in one app.
const GROUPS_MAX: usize = 4_096;

/// Phones that a channel serves alike: channel, maker and region.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Group {
    channel: ChannelId,
    brand: String,
    region: String,
}

impl Group {
    fn of(channel: &ChannelId, device: &Device) -> Self {
        Self {
            channel: channel.clone(),
            brand: brand(device),
            region: region(device),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    /// Taken by the vendor, long enough ago to have arrived.
    ripe: f64,
    /// Taken since `turned`, and in the period before it.
    fresh: [f64; 2],
    delivered: f64,
    turned: Timestamp,
}

impl Measured {
    /// Lets the time pass.
    fn at(mut self, now: Timestamp) -> Self {
        let periods = (now.millis() - self.turned.millis()).max(0) / RIPE_AFTER_MS;
        if periods == 0 {
            return self;
        }
        let [newest, older] = self.fresh;
        let (ripened, fresh) = match periods {
            1 => (older, [0.0, newest]),
            _ => (older + newest, [0.0, 0.0]),
        };
        let kept = KEPT.powf(periods as f64);
        self.ripe = (self.ripe + ripened) * kept;
        self.delivered *= kept;
        self.fresh = fresh;
        self.turned = Timestamp(self.turned.millis() + periods * RIPE_AFTER_MS);
        self
    }
}

/// What was measured in one app.
#[derive(Debug, Clone, Default)]
pub struct Scores(HashMap<Group, Measured>);

impl Scores {
    /// The share of pushes that this channel brings to such a device, as far as is known.
    fn share(&self, channel: &ChannelId, device: &Device, now: Timestamp) -> f64 {
        let belief = if native(device) == Some(channel.as_str()) {
            NATIVE
        } else {
            OTHER
        };
        let known = self.0.get(&Group::of(channel, device)).map(|m| m.at(now));
        let Measured {
            ripe, delivered, ..
        } = known.unwrap_or_default();
        (belief * BELIEF_WEIGHT + delivered.min(ripe)) / (BELIEF_WEIGHT + ripe)
    }

    fn note(&mut self, channel: &ChannelId, device: &Device, now: Timestamp, arrived: bool) {
        let group = Group::of(channel, device);
        let known = self.0.get(&group).copied();
        // A channel that never told of an arrival has no receipts switched on: its silence says nothing, so nothing is
        // counted before the first.
        if known.is_none() && (!arrived || self.0.len() >= GROUPS_MAX) {
            return;
        }
        let mut measured = known
            .unwrap_or(Measured {
                turned: now,
                ..Measured::default()
            })
            .at(now);
        if arrived {
            measured.delivered += 1.0;
        } else {
            measured.fresh[0] += 1.0;
        }
        self.0.insert(group, measured);
    }
}

/// What was measured, by app; shared by those who learn and those who choose. The ledger's end brings it back after a restart.
#[derive(Debug, Clone, Default)]
pub struct Learned(Arc<Mutex<HashMap<AppId, Arc<Scores>>>>);

impl Learned {
    /// What is known now.
    #[must_use]
    pub fn scores(&self, app: &AppId) -> Arc<Scores> {
        let apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        apps.get(app).cloned().unwrap_or_default()
    }

    /// A vendor took a push for this device.
    pub fn accepted(&self, channel: &ChannelId, device: &Device, now: Timestamp) {
        self.note(channel, device, now, false);
    }

    /// A receipt said that a push arrived at this device.
    pub fn delivered(&self, channel: &ChannelId, device: &Device, now: Timestamp) {
        self.note(channel, device, now, true);
    }

    fn note(&self, channel: &ChannelId, device: &Device, now: Timestamp, arrived: bool) {
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let scores = apps.entry(device.app.clone()).or_default();
        Arc::make_mut(scores).note(channel, device, now, arrived);
    }
}

/// The channel that a device's maker runs.
#[must_use]
pub fn native(device: &Device) -> Option<&'static str> {
    match device.platform {
        Platform::Ios => Some("apns"),
        Platform::Harmony => Some("harmony"),
        Platform::Web => Some("webpush"),
        Platform::Android => match brand(device).as_str() {
            "huawei" => Some("huawei"),
            "honor" => Some("honor"),
            "xiaomi" | "redmi" | "poco" | "blackshark" => Some("xiaomi"),
            "oppo" | "oneplus" | "realme" => Some("oppo"),
            "vivo" | "iqoo" => Some("vivo"),
            "meizu" => Some("meizu"),
            "google" => Some(FCM),
            _ => None,
        },
        _ => None,
    }
}

fn brand(device: &Device) -> String {
    device
        .brand
        .as_deref()
        .unwrap_or_default()
        .to_ascii_lowercase()
}

/// The country of the device's locale (`zh-CN`, `zh_Hans_CN`), else its time zone.
fn region(device: &Device) -> String {
    let locale = device.locale.as_deref().unwrap_or_default();
    let country = locale
        .split(['-', '_'])
        .skip(1)
        .find(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_alphabetic()));
    country.map_or_else(
        || device.timezone.clone().unwrap_or_default(),
        str::to_ascii_uppercase,
    )
}

/// The channels for a device, best first.
///
/// The message's channels alone if it names any. Else the app's order; what it does not name, and everything when it names
/// none, is ordered by what is believed and was measured: the maker's own channel first, unless another was seen to deliver
/// better. `fcm` is last but on Google's own phones, or first where the app says so; `sms` comes after all, and only for
/// classes that the app allows.
#[must_use]
pub fn order(
    message: &Message,
    device: &Device,
    policy: &AppPolicy,
    built_in: &[ChannelId],
    scores: &Scores,
    now: Timestamp,
) -> Vec<ChannelId> {
    let wanted = &message.options.channels.order;
    if !wanted.is_empty() {
        return wanted.clone();
    }
    let mut order: Vec<ChannelId> = policy
        .channel_order
        .iter()
        .filter(|c| device.token(c).is_some())
        .cloned()
        .collect();
    let place = |c: &ChannelId| built_in.iter().position(|b| b == c).unwrap_or(usize::MAX);
    let rank = |c: &ChannelId| {
        let fcm = c.as_str() == FCM;
        let late = match (fcm, policy.fcm_first) {
            (true, true) => 0,
            (true, false) if native(device) != Some(FCM) => 2,
            _ => 1,
        };
        let steps = (scores.share(c, device, now) / STEP).round();
        (c.as_str() == SMS, late, steps)
    };
    let mut rest: Vec<_> = device
        .tokens
        .iter()
        .map(|t| &t.channel)
        .filter(|c| !order.contains(c))
        .map(|c| (rank(c), place(c), c))
        .collect();
    rest.sort_by(
        |((a_sms, a_late, a), a_place, _), ((b_sms, b_late, b), b_place, _)| {
            (a_sms, a_late)
                .cmp(&(b_sms, b_late))
                .then(b.total_cmp(a))
                .then(a_place.cmp(b_place))
        },
    );
    order.extend(rest.into_iter().map(|(_, _, c)| c.clone()));
    order.retain(|c| c.as_str() != SMS || policy.sms_fallback.contains(&message.class));
    order
}

#[cfg(test)]
mod tests;
