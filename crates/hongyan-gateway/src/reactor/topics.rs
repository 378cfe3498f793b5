//! Topics that changed behind a session's back: they are read until that succeeds, as nothing of them is certain before.

use std::collections::HashSet;

use hongyan_core::SessionId;

use super::connection::Phase;
use super::{READ_RETRY_MS, Reactor};
use crate::backend::Job;
use crate::options::ticks;
use crate::wheel::Tick;

/// Sessions whose topics could not be read: at most each connection once.
#[derive(Debug, Default)]
pub(super) struct Unread {
    sessions: HashSet<SessionId>,
    /// When all of them are tried again.
    at: Tick,
}

impl Unread {
    /// When there is something to be tried again.
    pub(super) fn due(&self) -> Option<Tick> {
        (!self.sessions.is_empty()).then_some(self.at)
    }
}

impl Reactor {
    /// Has a session's topics read anew. One that is being greeted may have read them already: it does so again later.
    pub(super) fn resubscribe(&mut self, session: SessionId) {
        let Some(key) = self.find(session) else {
            return;
        };
        let connection = &self.connections[key];
        let job = match connection.seat().cloned() {
            Some(seat) => Job::Resubscribe { session, seat },
            None if connection.phase == Phase::Greeting => {
                self.resubscribe_later(session);
                return;
            }
            None => return,
        };
        if self.parts.jobs.try_send(job).is_err() {
            self.resubscribe_later(session);
        }
    }

    /// The same after a while.
    pub(super) fn resubscribe_later(&mut self, session: SessionId) {
        if self.find(session).is_none() {
            return;
        }
        if self.unread.sessions.is_empty() {
            self.unread.at = self.now + ticks(READ_RETRY_MS);
        }
        self.unread.sessions.insert(session);
    }

    /// A session that was greeted has its topics read if they changed meanwhile.
    pub(super) fn resubscribe_greeted(&mut self, session: SessionId) {
        if self.unread.sessions.remove(&session) {
            self.resubscribe(session);
        }
    }

    /// Tries those again that are due.
    pub(super) fn ask_topics(&mut self) {
        if self.unread.due().is_some_and(|due| due <= self.now) {
            for session in std::mem::take(&mut self.unread.sessions) {
                self.resubscribe(session);
            }
        }
    }
}
