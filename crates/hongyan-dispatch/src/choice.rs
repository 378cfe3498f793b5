//! Which channel comes first: pure, over what was measured before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hongyan_core::app::AppPolicy;
use hongyan_core::delivery::Delivery;
use hongyan_core::device::Platform;
use hongyan_core::{AppId, ChannelId, Device, Message};

/// The channel of text messages: it costs money for each, so it is used only where somebody said so.
const SMS: &str = "sms";
/// Google's channel: on phones of Chinese makers it often looks well and delivers nothing.
const FCM: &str = "fcm";

/// What is believed of a channel before anything was measured, as the share of pushes that arrive.
const NATIVE: f64 = 0.9;
const OTHER: f64 = 0.8;
const FCM_ELSEWHERE: f64 = 0.5;
/// How many measured pushes the belief is worth.
const BELIEF_WEIGHT: f64 = 200.0;
/// Channels whose shares differ by less are equally good.
const STEP: f64 = 0.05;
/// Pushes after which older ones count half.
const MEMORY: f64 = 10_000.0;
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
    accepted: f64,
    delivered: f64,
}

/// What was measured in one app.
#[derive(Debug, Clone, Default)]
pub struct Scores(HashMap<Group, Measured>);

impl Scores {
    /// The share of pushes that this channel brings to such a device, as far as is known.
    fn share(&self, channel: &ChannelId, device: &Device) -> f64 {
        let belief = if native(device) == Some(channel.as_str()) {
            NATIVE
        } else if channel.as_str() == FCM {
            FCM_ELSEWHERE
        } else {
            OTHER
        };
        let Measured {
            accepted,
            delivered,
        } = self
            .0
            .get(&Group::of(channel, device))
            .copied()
            // A channel that never told of an arrival has no receipts switched on: its silence says nothing.
            .filter(|m| m.delivered > 0.0)
            .unwrap_or_default();
        (belief * BELIEF_WEIGHT + delivered.min(accepted)) / (BELIEF_WEIGHT + accepted)
    }

    fn note(&mut self, channel: &ChannelId, device: &Device, change: impl FnOnce(&mut Measured)) {
        let group = Group::of(channel, device);
        if self.0.len() >= GROUPS_MAX && !self.0.contains_key(&group) {
            return;
        }
        let measured = self.0.entry(group).or_default();
        change(measured);
        if measured.accepted > MEMORY {
            measured.accepted /= 2.0;
            measured.delivered /= 2.0;
        }
    }
}

/// What was measured, by app; shared by those who learn and those who choose. It begins anew with the process.
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
    pub fn accepted(&self, channel: &ChannelId, device: &Device) {
        self.note(channel, device, |m| m.accepted += 1.0);
    }

    /// A receipt said that a push arrived at this device.
    pub fn delivered(&self, channel: &ChannelId, device: &Device) {
        self.note(channel, device, |m| m.delivered += 1.0);
    }

    fn note(&self, channel: &ChannelId, device: &Device, change: impl FnOnce(&mut Measured)) {
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let scores = apps.entry(device.app.clone()).or_default();
        Arc::make_mut(scores).note(channel, device, change);
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
/// none, is ordered by what is believed and was measured: the maker's own channel first, `fcm` last unless the app puts it
/// first. `sms` comes after all, and only for classes that the app allows.
#[must_use]
pub fn order(
    message: &Message,
    device: &Device,
    policy: &AppPolicy,
    built_in: &[ChannelId],
    scores: &Scores,
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
        let first = policy.fcm_first && c.as_str() == FCM;
        let steps = (scores.share(c, device) / STEP).round();
        (c.as_str() == SMS, !first, steps)
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

/// Whether the device has a living token for a channel that was not tried, besides this one.
pub(crate) fn has_other(
    delivery: &Delivery,
    message: &Message,
    device: &Device,
    channel: &ChannelId,
) -> bool {
    let wanted = &message.options.channels.order;
    device.tokens.iter().any(|t| {
        t.is_active()
            && t.channel != *channel
            && !delivery.tried.contains(&t.channel)
            && (wanted.is_empty() || wanted.contains(&t.channel))
    })
}

#[cfg(test)]
mod tests;
