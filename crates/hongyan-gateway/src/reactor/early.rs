//! Messages that are not stored: given at once to who is connected, or not at all.

use std::collections::VecDeque;
use std::sync::Arc;

use hongyan_core::{Message, SessionId};

use super::Reactor;
use super::connection::Phase;
use crate::options::ticks;
use crate::protocol::{Outgoing, Taken};
use crate::seat::Seat;
use crate::wheel::Tick;

/// Messages that wait for first pages, in one reactor.
const EARLY_LEN_MAX: usize = 256;
/// How long one waits: a device that is being greeted is there, but what is to be given at once is of no use much later.
const EARLY_WAIT_MS: u64 = 5_000;

fn unstored_lost() {
    metrics::counter!("hongyan_gateway_unstored_lost_total").increment(1);
}

#[derive(Debug)]
struct Waiting {
    session: SessionId,
    message: Arc<Message>,
    until: Tick,
}

/// What waits for the first pages of its sessions.
#[derive(Debug, Default)]
pub(super) struct Early(VecDeque<Waiting>);

impl Early {
    /// When the next one has waited long enough.
    pub(super) fn due(&self) -> Option<Tick> {
        self.0.iter().map(|one| one.until).min()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Reactor {
    /// Gives a message that is not stored to a connection, once, if it takes it now. It stands where everything was sent up
    /// to, so that acknowledging it changes nothing.
    pub(super) fn hand(&mut self, session: SessionId, message: Arc<Message>) {
        self.hand_until(Waiting {
            session,
            message,
            until: self.now + ticks(EARLY_WAIT_MS),
        });
    }

    fn hand_until(&mut self, one: Waiting) {
        let Some(key) = self.find(one.session) else {
            unstored_lost();
            return;
        };
        let connection = &self.connections[key];
        let place = match (connection.phase, &connection.session) {
            (Phase::Live, Some(session)) => session.sent(),
            _ => None,
        };
        // Posted for who held the device a moment ago.
        let push = one.message.push.as_deref();
        let user = connection.seat().and_then(Seat::user);
        if place.is_some() && push.is_some_and(|push| !push.is_for(user)) {
            unstored_lost();
            return;
        }
        let Some(place) = place else {
            // The session is there for others already, but not for its protocol: its first page brings it.
            let begins =
                connection.phase == Phase::Greeting || connection.begins(&self.parts.options);
            if begins {
                self.hand_later(one);
            } else {
                unstored_lost();
            }
            return;
        };
        let taken = self.speak(key, None, |protocol, desk| {
            let one = Outgoing {
                message: &one.message,
                place,
                dup: false,
            };
            let taken = protocol.send(&one, desk);
            if taken == Taken::Sent {
                protocol.sent(1, false, desk);
            }
            taken
        });
        if taken != Some(Taken::Sent) {
            unstored_lost();
        }
        self.arm(key);
    }

    fn hand_later(&mut self, one: Waiting) {
        if self.early.0.len() >= EARLY_LEN_MAX {
            self.keep_early(|reactor, one| reactor.find(one.session).is_some());
        }
        if self.early.0.len() >= EARLY_LEN_MAX {
            self.early.0.pop_front();
            unstored_lost();
        }
        self.early.0.push_back(one);
    }

    fn keep_early(&mut self, keep: impl Fn(&Self, &Waiting) -> bool) {
        let mut early = std::mem::take(&mut self.early);
        let before = early.0.len();
        early.0.retain(|one| keep(self, one));
        for _ in early.0.len()..before {
            unstored_lost();
        }
        self.early = early;
    }

    /// Drops what has waited long enough.
    pub(super) fn drop_early(&mut self) {
        if self.early.due().is_some_and(|due| due <= self.now) {
            self.keep_early(|reactor, one| one.until > reactor.now);
        }
    }

    /// Hands over what came before the session's first page.
    pub(super) fn hand_early(&mut self, id: SessionId) {
        if self.early.0.is_empty() {
            return;
        }
        self.drop_early();
        let early = std::mem::take(&mut self.early.0).into_iter();
        let (own, others): (VecDeque<_>, VecDeque<_>) = early.partition(|one| one.session == id);
        self.early.0 = others;
        for one in own {
            self.hand_until(one);
        }
    }
}
