//! The machine that takes one message to one device.
//!
//! Pure: [`Delivery::apply`] turns an [`Input`] into a [`Step`] (what happened, what comes next). Every open
//! delivery has exactly one job in the work store, due when something must happen if nothing else does; a
//! final outcome has no way out, later news (a late ack, a click) is recorded as stages only.

mod input;
mod seen;
mod step;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::device::{Device, Platform};
use crate::message::{DeviceChoice, Message};
use crate::{
    AppId, ChannelId, Class, CredentialName, DeviceId, Event, MessageId, Reason, Timestamp, UserId,
};

pub use self::input::{Called, Decision, Happened, Input, Next, Step};
pub use self::seen::Seen;

/// One message on its way to one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The app.
    pub app: AppId,
    /// The message.
    pub message: MessageId,
    /// The device.
    pub device: DeviceId,
    /// The user it is meant for; none when the device itself was addressed.
    #[serde(default)]
    pub user: Option<UserId>,
    /// Who held the device when it was planned: for the trace, also of what addresses everybody.
    #[serde(default)]
    pub holder: Option<UserId>,
    /// The device's binding when it was planned: another binding is another person.
    #[serde(default)]
    pub binding: u64,
    /// The message's class.
    pub class: Class,
    /// The device's platform.
    pub platform: Platform,
    /// The message's collapse key.
    #[serde(default)]
    pub collapse_key: Option<String>,
    /// When it is no longer worth delivering.
    pub expires_at: Timestamp,
    /// Where it is.
    pub state: State,
    /// Whether a session had its chance and stayed silent, or has been given it beside a push.
    #[serde(default)]
    pub online_tried: bool,
    /// Until when a session that was given it beside a push has its chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online_until: Option<Timestamp>,
    /// Channels that failed for good.
    #[serde(default)]
    pub tried: Vec<ChannelId>,
    /// A channel that was given up because its quota of the day was used up, and when it has more: the way back, should the
    /// others fail. For the bulk classes only, which may wait so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<(ChannelId, Timestamp)>,
    /// Why the last way failed.
    #[serde(default)]
    pub last_failure: Option<Reason>,
    /// Tries at the present channel.
    #[serde(default)]
    pub attempt: u16,
    /// The channel whose vendor took it last.
    #[serde(default)]
    pub via: Option<ChannelId>,
    /// Every channel whose vendor took it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<ChannelId>,
    /// A channel whose vendor gave it up before its answer to our call came, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<(ChannelId, Reason)>,
    /// When a vendor that must not be asked twice was about to be called: since then it may have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed: Option<Timestamp>,
    /// Whether an ack ends the deliveries to the user's other devices.
    #[serde(default)]
    pub first_ack: bool,
    /// What the device reported, each once.
    #[serde(default)]
    pub seen: Seen,
    /// Grows with every change; checked on write.
    #[serde(default)]
    pub version: u32,
}

/// Where a delivery is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// To be planned.
    Planning,
    /// With a session; `until` is when the wait for its ack ends.
    Online {
        /// End of the wait.
        until: Timestamp,
    },
    /// Waits for a time.
    Held {
        /// Until when.
        until: Timestamp,
        /// For what.
        reason: Reason,
    },
    /// With a lane or vendor.
    Pushing {
        /// The channel.
        channel: ChannelId,
        /// The credential.
        credential: CredentialName,
    },
    /// Waits for the next try at a vendor.
    Retrying {
        /// The channel.
        channel: ChannelId,
        /// The credential.
        credential: CredentialName,
        /// When.
        until: Timestamp,
    },
    /// A vendor took it; another channel is tried if no receipt comes in time.
    AwaitingReceipt {
        /// The vendor's channel.
        channel: ChannelId,
        /// End of the wait.
        until: Timestamp,
    },
    /// The final outcome.
    Done {
        /// Which.
        reason: Reason,
        /// When.
        at: Timestamp,
    },
}

impl Delivery {
    /// A delivery that nothing has happened to. `to_user` says whether the message addresses the user, so that
    /// it must not outlive the device's binding.
    #[must_use]
    pub fn new(message: &Message, device: &Device, to_user: bool) -> Self {
        Self {
            app: message.app.clone(),
            message: message.id,
            device: device.id.clone(),
            user: device.user.clone().filter(|_| to_user),
            holder: device.user.clone(),
            binding: device.binding,
            class: message.class,
            platform: device.platform,
            collapse_key: message.options.collapse_key.clone(),
            expires_at: message.expires_at,
            state: State::Planning,
            online_tried: false,
            online_until: None,
            tried: Vec::new(),
            opens: None,
            last_failure: None,
            attempt: 0,
            via: None,
            taken: Vec::new(),
            given_up: None,
            handed: None,
            first_ack: message.options.devices == DeviceChoice::FirstAck,
            seen: Seen::default(),
            version: 0,
        }
    }

    /// The final outcome, if there is one.
    #[must_use]
    pub const fn outcome(&self) -> Option<Reason> {
        match &self.state {
            State::Done { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    /// The channel of a vendor that must not be asked twice and may have it.
    #[must_use]
    pub const fn handed_to(&self) -> Option<&ChannelId> {
        match &self.state {
            State::Pushing { channel, .. } if self.handed.is_some() => Some(channel),
            _ => None,
        }
    }

    /// Takes an input. When the answer is not [`Next::Nothing`], the version has grown and the delivery must be
    /// written together with what happened.
    pub fn apply(&mut self, input: Input, now: Timestamp) -> Step {
        let mut happened = Vec::new();
        let next = self.step(input, now, &mut happened);
        if next != Next::Nothing {
            self.version = self.version.wrapping_add(1);
        }
        Step { happened, next }
    }

    /// The event for something that happened to this delivery.
    #[must_use]
    pub fn event(&self, what: Happened, at: Timestamp) -> Event {
        Event {
            seq: 0,
            at: what.at.unwrap_or(at),
            app: self.app.clone(),
            stage: what.stage,
            reason: what.reason,
            message: Some(self.message),
            class: Some(self.class),
            user: self.user.clone().or_else(|| self.holder.clone()),
            device: Some(self.device.clone()),
            platform: Some(self.platform),
            channel: what.channel,
            attempt: what.attempt,
            until: what.until,
            took_ms: what.took_ms,
            detail: what.detail,
            r#final: what.r#final,
        }
    }
}
