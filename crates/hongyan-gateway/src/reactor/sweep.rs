//! Looks at every session, in slices: for hints and recalls that concern a whole app.
//!
//! They are worked off one after the other, so that each session sees them in their order. What comes meanwhile for single
//! sessions does not wait for them: a session that is still to be reached reads for itself, and finds all in its order.

use std::sync::Arc;

use hongyan_core::port::Hint;
use hongyan_core::{AppId, MessageId};

use super::Reactor;
use super::connection::{Connection, Phase};

/// Slab places in one turn that a look at everything visits.
pub(super) const SWEEP_PER_TURN: usize = 4096;
/// The same when each may be sent an entry.
const NEWS_PER_TURN: usize = 1024;
/// Recalls of the last moments that are remembered, for entries that are still on their way.
const RECALLED_LEN_MAX: usize = 64;
/// Looks at everything that carry an entry, at most.
const NEWS_SWEEPS_MAX: usize = 16;
/// All looks at everything that wait.
const SWEEPS_LEN_MAX: usize = 1024;

/// A look at every session, in slices.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Only of this app.
    app: Option<AppId>,
    what: SweepFor,
    at: usize,
}

#[derive(Debug, Clone)]
pub(super) enum SweepFor {
    Wake,
    News(Arc<Hint>),
    Recall(MessageId),
}

impl Sweep {
    /// Whether it is for this connection. Whose one is that is being greeted is not known yet, and what its first page holds
    /// was read already, maybe.
    fn concerns(&self, connection: &Connection) -> bool {
        match connection.seat() {
            Some(seat) => {
                let app = self.app.as_ref();
                app.is_none_or(|app| app.as_str() == seat.app())
            }
            None => connection.phase == Phase::Greeting,
        }
    }

    fn is_for(&self, app: &AppId) -> bool {
        self.app.as_ref().is_none_or(|own| own == app)
    }
}

impl Reactor {
    /// Queues a look at sessions. So many are not queued as would be one look for each message of a busy app: those that
    /// follow are joined in one after which sessions read for themselves. With very many in the queue those of all apps are
    /// joined, and recalls are told by their marks alone.
    pub(super) fn look(&mut self, app: Option<AppId>, what: SweepFor) {
        let (app, what) = match what {
            _ if self.sweeps.len() < SWEEPS_LEN_MAX => (app, what),
            SweepFor::Recall(_) => {
                metrics::counter!("hongyan_gateway_recalls_lost_total").increment(1);
                return;
            }
            SweepFor::Wake | SweepFor::News(_) => (None, SweepFor::Wake),
        };
        let what = match what {
            SweepFor::News(_) if self.sweeps.len() >= NEWS_SWEEPS_MAX => SweepFor::Wake,
            what => what,
        };
        let is_wake = |what: &SweepFor| matches!(what, SweepFor::Wake);
        let is_queued = |sweep: &Sweep| sweep.at == 0 && is_wake(&sweep.what) && sweep.app == app;
        if is_wake(&what) && self.sweeps.iter().any(is_queued) {
            return;
        }
        self.sweeps.push_back(Sweep { app, what, at: 0 });
    }

    /// Whether a look at everything that brings something is still to come by a connection of this app.
    pub(super) fn is_before_sweep(&self, app: &AppId, key: usize) -> bool {
        self.sweeps.iter().any(|sweep| {
            let brings = matches!(sweep.what, SweepFor::Wake | SweepFor::News(_));
            brings && key >= sweep.at && sweep.is_for(app)
        })
    }

    /// Visits a slice of the sessions.
    pub(super) fn sweep(&mut self) {
        let Some(mut sweep) = self.sweeps.pop_front() else {
            return;
        };
        let len = match sweep.what {
            SweepFor::News(_) => NEWS_PER_TURN,
            SweepFor::Wake | SweepFor::Recall(_) => SWEEP_PER_TURN,
        };
        let end = (sweep.at + len).min(self.connections.capacity());
        for key in sweep.at..end {
            let connection = self.connections.get(key);
            if !connection.is_some_and(|connection| sweep.concerns(connection)) {
                continue;
            }
            match &sweep.what {
                SweepFor::Wake => self.want(key),
                SweepFor::News(hint) => {
                    let news = self.is_news(hint);
                    self.guard(key, |reactor| reactor.take_fresh(key, news));
                }
                SweepFor::Recall(id) => self.recall(key, *id),
            }
        }
        sweep.at = end;
        if end < self.connections.capacity() {
            self.sweeps.push_front(sweep);
        }
    }

    /// Remembers a recall for a while. Whom a look at everything did not reach with the message yet is not given it.
    pub(super) fn note_recall(&mut self, id: MessageId) {
        let brings_it = |hint: &Hint| {
            let fresh = hint.fresh.as_ref();
            fresh.is_some_and(|fresh| fresh.message.id == id)
        };
        for sweep in &mut self.sweeps {
            if matches!(&sweep.what, SweepFor::News(hint) if brings_it(hint)) {
                sweep.what = SweepFor::Wake;
            }
        }
        if self.recalled.len() >= RECALLED_LEN_MAX {
            self.recalled.pop_front();
        }
        self.recalled.push_back(id);
    }
}
