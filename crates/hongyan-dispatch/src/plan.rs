//! The one decision about a delivery: pure, so that `explain` can run the same code.

use std::time::Duration;

pub use hongyan_core::app::CredentialIndex;

use hongyan_core::app::AppPolicy;
use hongyan_core::delivery::{Decision, Delivery};
use hongyan_core::device::TokenState;
use hongyan_core::limits::ACK_TIMEOUT_DEFAULT;
use hongyan_core::message::DeliveryMode;
use hongyan_core::port::SessionInfo;
use hongyan_core::{ChannelId, CredentialName, Device, Message, Reason, Timestamp, User};

use crate::choice::{self, Scores};
use crate::policy;

/// All that the decision looks at.
#[derive(Debug)]
pub struct Situation<'a> {
    /// The message.
    pub message: &'a Message,
    /// The delivery so far.
    pub delivery: &'a Delivery,
    /// The device as it is now; none when it was forgotten.
    pub device: Option<&'a Device>,
    /// The user that the device is bound to now.
    pub user: Option<&'a User>,
    /// What the app decides.
    pub policy: &'a AppPolicy,
    /// The app's credentials.
    pub credentials: &'a CredentialIndex,
    /// The channels that are built in, in their order.
    pub built_in_order: &'a [ChannelId],
    /// What was measured of them.
    pub scores: &'a Scores,
    /// The device's session.
    pub session: Option<&'a SessionInfo>,
    /// When the message was recalled.
    pub recalled: Option<Timestamp>,
    /// Now.
    pub now: Timestamp,
}

/// Decides what becomes of a delivery now.
#[must_use]
pub fn plan(s: &Situation<'_>) -> Decision {
    let (m, d) = (s.message, s.delivery);
    let Some(device) = s.device else {
        return Decision::End(Reason::DeviceDeleted);
    };
    if d.user.is_some() && (device.user != d.user || device.binding != d.binding) {
        return Decision::End(Reason::UserLoggedOut);
    }
    if s.recalled.is_some() {
        return Decision::End(Reason::Recalled);
    }
    if s.now >= m.expires_at {
        return Decision::End(Reason::Expired);
    }
    if let Some(at) = m.options.send_at
        && at > s.now
    {
        return Decision::Hold {
            until: at,
            reason: Reason::Scheduled,
        };
    }
    let push = push_way(s, device);
    let wait_for_session = Decision::Hold {
        until: m.expires_at,
        reason: Reason::WaitingForSession,
    };
    match m.options.delivery {
        DeliveryMode::OfflineOnly => push,
        DeliveryMode::OnlineOnly => match s.session {
            Some(_) if !d.online_tried => Decision::Online {
                until: m.expires_at,
            },
            _ => wait_for_session,
        },
        DeliveryMode::Both => match (push, s.session) {
            // No push is possible: the session is the only way left, and gets all the time there is.
            (Decision::End(reason), Some(_)) if unreachable(reason) => Decision::Online {
                until: m.expires_at,
            },
            // The push is not wanted; the session is there all the same.
            (Decision::End(_), Some(_)) if !d.online_tried => Decision::Online {
                until: s.now.plus(ack_timeout(m)).min(m.expires_at),
            },
            // The push failed; what the session was given beside it may still be acknowledged.
            (push @ Decision::End(_), _) => match d.online_until.filter(|until| s.now < *until) {
                Some(until) => Decision::Hold {
                    until,
                    reason: Reason::WaitingForSession,
                },
                None => push,
            },
            (push, _) => push,
        },
        DeliveryMode::OnlineFirst => match s.session {
            Some(_) if !d.online_tried => {
                let until = match push {
                    Decision::End(reason) if unreachable(reason) => m.expires_at,
                    _ => s.now.plus(ack_timeout(m)).min(m.expires_at),
                };
                Decision::Online { until }
            }
            _ if !m.options.push.enabled => wait_for_session,
            _ => push,
        },
    }
}

/// Whether the session gets it beside what was decided: a push that goes out or waits, of a message for both. Until when it may
/// acknowledge before the push's failure ends the delivery.
pub(crate) fn online_too(s: &Situation<'_>, decision: &Decision) -> Option<Timestamp> {
    let beside = match decision {
        Decision::Push { .. } => true,
        Decision::Hold { reason, .. } => *reason != Reason::Scheduled,
        Decision::Online { .. } | Decision::End(_) => false,
    };
    let is_given = beside
        && s.message.options.delivery == DeliveryMode::Both
        && s.session.is_some()
        && !s.delivery.online_tried;
    let until = s.now.plus(ack_timeout(s.message));
    is_given.then(|| until.min(s.message.expires_at))
}

/// Whether the reason means that no vendor could carry it at all, so that falling back would only end the wait.
const fn unreachable(reason: Reason) -> bool {
    matches!(reason, Reason::NoChannel | Reason::NoCredential)
}

fn ack_timeout(m: &Message) -> Duration {
    m.options
        .ack_timeout_ms
        .map_or(ACK_TIMEOUT_DEFAULT, |ms| Duration::from_millis(ms.into()))
}

/// What the push path says: policy first, then the choice of a channel.
fn push_way(s: &Situation<'_>, device: &Device) -> Decision {
    let m = s.message;
    if !m.options.channels.fallback && !s.delivery.tried.is_empty() {
        // Its one channel failed, and only what the session was given beside it is waited for.
        return Decision::End(s.delivery.last_failure.unwrap_or(Reason::NoChannel));
    }
    if !m.options.push.enabled {
        return Decision::End(Reason::PushDisabled);
    }
    if m.notification.is_some() && !device.permission.shows() {
        return Decision::End(Reason::PermissionOff);
    }
    if m.options.push.force {
        return choose_or_wait(s, device);
    }
    if s.user
        .is_some_and(|u| u.preferences.muted_classes.contains(&m.class))
    {
        return Decision::End(Reason::PreferenceMuted);
    }
    if let Some(until) = policy::quiet_until(s.user, device, s.policy, m.class, s.now) {
        return if until < m.expires_at {
            Decision::Hold {
                until,
                reason: Reason::QuietHours,
            }
        } else {
            Decision::End(Reason::QuietHours)
        };
    }
    choose_or_wait(s, device)
}

/// The next channel; where none is left, the wait for one that was given up because its quota was used up, if it is still good
/// and has more before the message ends.
fn choose_or_wait(s: &Situation<'_>, device: &Device) -> Decision {
    let reason = match choose(s, device) {
        Ok(decision) => return decision,
        Err(reason) => reason,
    };
    match &s.delivery.opens {
        Some((channel, at)) if *at < s.message.expires_at && usable(s, device, channel).is_ok() => {
            Decision::Hold {
                until: *at,
                reason: Reason::QuotaExhausted,
            }
        }
        _ => Decision::End(reason),
    }
}

/// The first channel in order that has a live token and a credential and has not failed yet; else why there is none.
pub(crate) fn choose(s: &Situation<'_>, device: &Device) -> Result<Decision, Reason> {
    let mut why = s.delivery.last_failure;
    let order = choice::order(
        s.message,
        device,
        s.policy,
        s.built_in_order,
        s.scores,
        s.now,
    );
    for channel in order {
        if device.token(&channel).is_none() || s.delivery.tried.contains(&channel) {
            continue;
        }
        match usable(s, device, &channel) {
            Ok(credential) => {
                return Ok(Decision::Push {
                    channel,
                    credential,
                });
            }
            Err(reason) => why = why.or(Some(reason)),
        }
    }
    Err(why.unwrap_or(Reason::NoChannel))
}

/// The credential through which the device's token at a channel takes pushes, else why there is none.
fn usable(
    s: &Situation<'_>,
    device: &Device,
    channel: &ChannelId,
) -> Result<CredentialName, Reason> {
    let token = device.token(channel).ok_or(Reason::NoChannel)?;
    if let TokenState::Dead { reason, .. } = token.state {
        return Err(reason);
    }
    if token.paused {
        return Err(Reason::PermissionOff);
    }
    let credential = s.credentials.pick(channel, token.credential.as_ref());
    credential.cloned().ok_or(Reason::NoCredential)
}

#[cfg(test)]
mod tests;
