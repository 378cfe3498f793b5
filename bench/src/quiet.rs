//! Neighbours that do nothing, for a room that is measured alone.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use hongyan_core::error::BoxError;
use hongyan_core::port::{Clock, Dice, Hint, Owner, Presence, SessionInfo, SessionSink};
use hongyan_core::session::SessionEvent;
use hongyan_core::{AppId, DeviceId, MessageId, Timestamp, UserId};
use hongyan_dispatch::credentials::Sealer;
use ring::rand::{SecureRandom as _, SystemRandom};

/// The machine's clock, never backwards.
#[derive(Debug, Default)]
pub struct SystemClock(AtomicI64);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let millis = i64::try_from(nanos() / 1_000_000).unwrap_or(i64::MAX);
        Timestamp(self.0.fetch_max(millis, Ordering::AcqRel).max(millis))
    }
}

/// Nanoseconds since the epoch: comparable between processes of one machine.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "a measurement has no other clock"
)]
pub fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// The system's random numbers, as the server takes them.
#[derive(Debug)]
pub struct SystemDice(SystemRandom);

impl Default for SystemDice {
    fn default() -> Self {
        Self(SystemRandom::new())
    }
}

impl Dice for SystemDice {
    fn fill(&self, buffer: &mut [u8]) {
        // Only the speed counts here: bytes that stay zero harm nothing.
        let _ = self.0.fill(buffer);
    }
}

/// Nobody is connected.
#[derive(Debug)]
pub struct Nobody;

#[async_trait]
impl Presence for Nobody {
    fn sessions(&self, _: &AppId, devices: &[DeviceId]) -> Vec<Option<SessionInfo>> {
        vec![None; devices.len()]
    }
    fn notify(&self, _: Vec<Hint>) {}
    async fn rebind(&self, _: &AppId, _: &DeviceId, _: Option<UserId>) {}
    fn recall(&self, _: &AppId, _: &Owner, _: MessageId) {}
    async fn disconnect(&self, _: &AppId, _: &DeviceId) {}
    async fn disconnect_app(&self, _: &AppId) {}
    fn resubscribe(&self, _: &AppId, _: &DeviceId) {}
    fn len(&self) -> usize {
        0
    }
}

/// Nobody listens to what sessions say.
#[derive(Debug)]
pub struct Deaf;

#[async_trait]
impl SessionSink for Deaf {
    async fn accept(&self, _: Vec<SessionEvent>) {}
}

/// There are no credentials to seal.
#[derive(Debug)]
pub struct NoSecrets;

impl Sealer for NoSecrets {
    fn proof(&self, bound_to: &str) -> String {
        format!("proof-of-{}", bound_to.len())
    }
    fn proves(&self, bound_to: &str, proof: &str) -> bool {
        self.proof(bound_to) == proof
    }
    fn seal(&self, _: &str, _: &[u8]) -> Result<Vec<u8>, BoxError> {
        Err("there is no master key here".into())
    }
    fn open(&self, _: &str, _: &[u8]) -> Result<Vec<u8>, BoxError> {
        Err("there is no master key here".into())
    }
}
