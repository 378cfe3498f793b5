//! The node goes away: every session is told, then closed at its own moment of the window, so that
//! they do not all knock at the next node at once.

use std::time::Duration;

use super::Reactor;
use super::sweep::SWEEP_PER_TURN;
use crate::options::{ticks, ticks_of};
use crate::protocol::websocket::close;
use crate::wheel::Tick;

/// A drain that is under way.
#[derive(Debug)]
pub(super) struct Drain {
    window: Duration,
    started: Tick,
    ends: Tick,
    /// Slab places below it were told.
    told: usize,
    /// Slab places below it were closed.
    closed: usize,
}

impl Reactor {
    pub(super) fn begin_drain(&mut self, window: Duration) {
        if self.drain.is_none() {
            let ends = self.now + ticks_of(window);
            self.drain = Some(Drain {
                window,
                started: self.now,
                ends,
                told: 0,
                closed: 0,
            });
        }
    }

    pub(super) fn drain_some(&mut self) {
        let Some(mut drain) = self.drain.take() else {
            return;
        };
        let places = self.connections.capacity();
        let told = (drain.told + SWEEP_PER_TURN).min(places);
        let after_ms = u64::try_from(drain.window.as_millis()).unwrap_or(u64::MAX);
        for key in drain.told..told {
            if self
                .connections
                .get(key)
                .is_some_and(|c| c.session.is_some())
            {
                self.speak(key, None, |protocol, desk| protocol.drain(after_ms, desk));
            }
        }
        drain.told = told;
        // Half of the window is the clients' own, to leave as they like; then they are closed in
        // the order of their places, evenly until its end.
        let half = (drain.ends - drain.started) / 2;
        let into = self.now.saturating_sub(drain.started + half);
        let share = if self.now >= drain.ends {
            places
        } else {
            places * into as usize / (half.max(1) as usize)
        };
        let closed = share.min(drain.told).min(drain.closed + SWEEP_PER_TURN);
        for key in drain.closed..closed {
            self.close(key, close::GOING_AWAY, "the node goes away");
        }
        drain.closed = drain.closed.max(closed);
        // Newcomers on places that were visited already.
        if self.now >= drain.ends + ticks(500) {
            for key in 0..places {
                self.close(key, close::GOING_AWAY, "the node goes away");
            }
        }
        if !self.connections.is_empty() {
            self.drain = Some(drain);
        }
    }
}
