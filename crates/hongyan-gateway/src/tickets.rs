//! Tickets: what a browser page may put into its `hello` instead of the device token (websocket.md, section 5).
//!
//! A ticket is single use, lives 60 seconds, and belongs to a device as it is bound when the ticket is made.
//! They are kept in memory only: a restart ends them, and the page asks for another.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::{AppId, DeviceId, Secret, Timestamp, UserId};

/// How long a ticket is good.
pub const TICKET_TTL: Duration = Duration::from_secs(60);
/// Tickets at once; more are refused until some were used or ended.
const TICKETS_MAX: usize = 65_536;

/// Whose ticket it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) app: AppId,
    pub(crate) device: DeviceId,
    pub(crate) user: Option<UserId>,
}

type Hash = [u8; 32];

/// The tickets that are good.
#[derive(Debug, Default)]
pub(crate) struct Tickets(Mutex<HashMap<Hash, (Holder, Timestamp)>>);

impl Tickets {
    /// Takes a ticket's text in, which the caller drew at random. Answers whether there was room.
    pub(crate) fn issue(&self, text: &Secret, holder: Holder, now: Timestamp) -> bool {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() >= TICKETS_MAX {
            tickets.retain(|_, (_, until)| *until > now);
        }
        let room = tickets.len() < TICKETS_MAX;
        if room {
            tickets.insert(hash(text), (holder, now.plus(TICKET_TTL)));
        }
        room
    }

    /// Uses a ticket up.
    pub(crate) fn redeem(&self, text: &Secret, now: Timestamp) -> Option<Holder> {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (holder, until) = tickets.remove(&hash(text))?;
        (until > now).then_some(holder)
    }
}

fn hash(text: &Secret) -> Hash {
    let mut hash = [0u8; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, text.expose()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_for_a_minute() {
        let tickets = Tickets::default();
        let holder = Holder {
            app: AppId::parse("a").unwrap(),
            device: DeviceId::parse("d").unwrap(),
            user: None,
        };
        let (one, two) = (Secret::new("one"), Secret::new("two"));
        let now = Timestamp(1_000);
        assert!(tickets.issue(&one, holder.clone(), now));
        assert!(tickets.issue(&two, holder.clone(), now));
        assert_eq!(tickets.redeem(&one, now), Some(holder));
        assert_eq!(tickets.redeem(&one, now), None, "used up");
        assert_eq!(tickets.redeem(&two, now.plus(TICKET_TTL)), None, "too late");
    }

    #[test]
    fn there_are_only_so_many() {
        let tickets = Tickets::default();
        let holder = Holder {
            app: AppId::parse("a").unwrap(),
            device: DeviceId::parse("d").unwrap(),
            user: None,
        };
        for n in 0..TICKETS_MAX {
            let text = Secret::new(n.to_string());
            assert!(tickets.issue(&text, holder.clone(), Timestamp(0)));
        }
        let more = Secret::new("more");
        assert!(!tickets.issue(&more, holder.clone(), Timestamp(1)));
        assert!(
            tickets.issue(&more, holder, Timestamp(0).plus(TICKET_TTL)),
            "the old ones ended"
        );
    }
}
