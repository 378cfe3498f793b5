//! Trouble on demand: what a vendor does on a bad day.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::dice::Dice;
use crate::error::SandboxError;
use crate::limits;

/// The kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The vendor's own words for being down (HTTP 5xx or its business code).
    Unavailable,
    /// The answer comes late; the request is processed.
    Slow,
    /// Too many requests.
    RateLimited,
    /// The day's quota is used up, as this vendor says it.
    QuotaExhausted,
    /// The device token is dead.
    TokenInvalid,
    /// The sender's access token or signature is too old.
    AuthExpired,
    /// HTTP/2 GOAWAY, this request not processed. On HTTP/1.1 the request is processed, and the connection
    /// closes after the answer; SMPP unbinds.
    Goaway,
    /// The stream is reset (HTTP/1.1: the connection drops) after the request was processed, so
    /// that the outcome is unknown to the sender.
    Reset,
    /// The request is processed and the answer's body is not readable.
    Malformed,
}

/// One fault as asked for by `POST /vendors/{channel}/faults`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// To which share of requests, 0.0 to 1.0.
    #[serde(default = "always")]
    pub rate: f64,
    /// How often at most; without it until cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Only for requests that name this device token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// For `slow`: how long the answer is held, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Which requests: `send` (default) or `auth`, the vendor's access token endpoint.
    #[serde(default)]
    pub endpoint: Endpoint,
}

/// The part of a vendor that a fault strikes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// Everything but the token endpoint.
    #[default]
    Send,
    /// The endpoint for access tokens, at vendors that have one.
    Auth,
}

const fn always() -> f64 {
    1.0
}

impl Fault {
    /// A fault of `kind` for every request until cleared.
    #[must_use]
    pub const fn always(kind: FaultKind) -> Self {
        Self {
            kind,
            rate: 1.0,
            count: None,
            token: None,
            delay_ms: None,
            endpoint: Endpoint::Send,
        }
    }

    /// A fault of `kind` for the next `count` requests.
    #[must_use]
    pub fn times(kind: FaultKind, count: u64) -> Self {
        Self {
            count: Some(count),
            ..Self::always(kind)
        }
    }
}

/// The active faults of all channels.
#[derive(Debug, Default)]
pub(crate) struct Faults([Mutex<Vec<Fault>>; Channel::ALL.len()]);

impl Faults {
    pub(crate) fn inject(&self, channel: Channel, fault: Fault) -> Result<(), SandboxError> {
        if !(0.0..=1.0).contains(&fault.rate) {
            return Err(SandboxError::Invalid(format!(
                "rate is {} but must be between 0 and 1",
                fault.rate
            )));
        }
        if fault
            .delay_ms
            .is_some_and(|delay| delay > limits::SLOW_MS_MAX)
        {
            return Err(SandboxError::Invalid(format!(
                "delay_ms may be at most {}",
                limits::SLOW_MS_MAX
            )));
        }
        let mut faults = self.of(channel);
        if faults.len() >= limits::FAULTS_MAX {
            return Err(SandboxError::Full {
                what: "faults per channel; DELETE them first",
                limit: limits::FAULTS_MAX,
            });
        }
        if fault.count != Some(0) {
            faults.push(fault);
        }
        Ok(())
    }

    pub(crate) fn clear(&self, channel: Channel) {
        self.of(channel).clear();
    }

    pub(crate) fn list(&self, channel: Channel) -> Vec<Fault> {
        self.of(channel).clone()
    }

    /// Rolls for each active fault in the order of injection; the first that hits is taken.
    /// `names_token` says whether the request carries a token, read only when a fault asks.
    pub(crate) fn strike(
        &self,
        channel: Channel,
        endpoint: Endpoint,
        dice: &Dice,
        names_token: impl Fn(&str) -> bool,
    ) -> Option<Fault> {
        let mut faults = self.of(channel);
        let hit = faults.iter().position(|fault| {
            fault.endpoint == endpoint
                && fault.token.as_deref().is_none_or(&names_token)
                && dice.chance(fault.rate)
        })?;
        let fault = faults.get_mut(hit)?;
        let struck = fault.clone();
        if let Some(count) = &mut fault.count {
            *count = count.saturating_sub(1);
            if *count == 0 {
                faults.remove(hit);
            }
        }
        Some(struck)
    }

    fn of(&self, channel: Channel) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        // Every index is within the array: it has one place per variant.
        #[allow(clippy::indexing_slicing, reason = "one place per variant")]
        self.0[channel.index()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_fault_ends() {
        let faults = Faults::default();
        let dice = Dice::new(1);
        faults
            .inject(Channel::Fcm, Fault::times(FaultKind::Reset, 2))
            .unwrap();
        let strike = |channel| {
            faults
                .strike(channel, Endpoint::Send, &dice, |_| false)
                .map(|fault| fault.kind)
        };
        assert_eq!(strike(Channel::Apns), None);
        assert_eq!(strike(Channel::Fcm), Some(FaultKind::Reset));
        assert_eq!(strike(Channel::Fcm), Some(FaultKind::Reset));
        assert_eq!(strike(Channel::Fcm), None);
    }

    #[test]
    fn a_rate_is_a_share_of_requests() {
        let faults = Faults::default();
        let dice = Dice::new(7);
        faults
            .inject(
                Channel::Apns,
                Fault {
                    rate: 0.25,
                    ..Fault::always(FaultKind::Unavailable)
                },
            )
            .unwrap();
        let hits = (0..4000)
            .filter(|_| {
                faults
                    .strike(Channel::Apns, Endpoint::Send, &dice, |_| false)
                    .is_some()
            })
            .count();
        assert!((850..1150).contains(&hits), "{hits}");
        let wrong = Fault {
            rate: 1.5,
            ..Fault::always(FaultKind::Slow)
        };
        assert!(faults.inject(Channel::Apns, wrong).is_err());
    }
}
