//! Commands in line: what may be done together without changing any session's order.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;

use hongyan_core::SessionId;
use hongyan_core::port::Hint;

use super::Reactor;
use crate::mailbox::Command;

/// Hints of one list that are worked off together.
const NEWS_JOINED_MAX: usize = 8;
/// Sessions that are told something else between hints that are joined.
const APART_LEN_MAX: usize = 64;

/// Whom a command tells something that stands in an order with what it is sent.
enum Told<'a> {
    These(&'a [SessionId]),
    All,
}

impl Command {
    fn told(&self) -> Told<'_> {
        match self {
            Self::News { sessions, .. } | Self::Wake(sessions) | Self::Recall { sessions, .. } => {
                Told::These(sessions)
            }
            Self::Hand { session, .. } | Self::Rebind { session, .. } => {
                Told::These(slice::from_ref(session))
            }
            Self::NewsApp(_) | Self::WakeApp(_) | Self::RecallApp { .. } => Told::All,
            // Also of pages: an entry that comes during a read waits for it.
            _ => Told::These(&[]),
        }
    }
}

/// Hints of one list that follow each other, but for what was told to a few sessions in between.
#[derive(Debug, Default)]
struct Run {
    list: Option<Arc<Hint>>,
    /// Sessions that its first hint is for.
    size: usize,
    /// By the first of their sessions: where its last hints stand, and how many of `apart` were told before.
    crowds: HashMap<SessionId, (usize, usize)>,
    apart: Vec<SessionId>,
}

impl Run {
    fn is_of(&self, hint: &Hint) -> bool {
        let list = self.list.as_ref();
        list.is_some_and(|list| list.owner == hint.owner && list.app == hint.app)
    }

    /// A hint comes: whether it belongs to the run, or begins another that is worth more.
    fn takes(&mut self, hint: &Arc<Hint>, sessions: &[SessionId]) -> bool {
        if !self.is_of(hint) && sessions.len() > self.size {
            *self = Self {
                list: Some(Arc::clone(hint)),
                size: sessions.len(),
                ..Self::default()
            };
        }
        self.is_of(hint)
    }

    /// Where the last hint for these sessions stands, if they were told nothing else since.
    fn last(&self, sessions: &[SessionId]) -> Option<usize> {
        let (at, before) = self.crowds.get(sessions.first()?)?;
        let mut since = self.apart.get(*before..)?.iter();
        let is_told = since.any(|session| sessions.contains(session));
        (!is_told).then_some(*at)
    }

    fn note(&mut self, sessions: &[SessionId], at: usize) {
        if let Some(first) = sessions.first().filter(|_| sessions.len() > 1) {
            self.crowds.insert(*first, (at, self.apart.len()));
        }
    }

    /// Something else comes.
    fn pass(&mut self, told: &Told<'_>) {
        match told {
            Told::These(sessions) if self.apart.len() + sessions.len() <= APART_LEN_MAX => {
                self.apart.extend_from_slice(sessions);
            }
            Told::These(_) | Told::All => *self = Self::default(),
        }
    }
}

impl Reactor {
    /// Puts commands into the queue. Hints of a list for the same sessions are joined, so that what they bring leaves in one
    /// write for each session, as it would when it was read. Nothing is joined to what stands before a hint of another
    /// list to one of these sessions: it would come too early.
    pub(super) fn line_up(&mut self, fresh: Vec<Command>) {
        let mut run = Run::default();
        for command in fresh {
            match command {
                Command::News {
                    sessions,
                    hint,
                    more,
                } if run.takes(&hint, &sessions) => {
                    if let Some(Command::News {
                        sessions: others,
                        more: joined,
                        ..
                    }) = run.last(&sessions).and_then(|at| self.commands.get_mut(at))
                        && joined.len() + 1 < NEWS_JOINED_MAX
                        && *others == sessions
                    {
                        joined.push(hint);
                        joined.extend(more);
                        continue;
                    }
                    run.note(&sessions, self.commands.len());
                    self.commands.push_back(Command::News {
                        sessions,
                        hint,
                        more,
                    });
                }
                other => {
                    run.pass(&other.told());
                    self.commands.push_back(other);
                }
            }
        }
    }
}
